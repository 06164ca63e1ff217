"""Boxes and crops: where a crop lies in its image, and the way back.

Points are ``(x, y)`` pixels with the centre of the top-left pixel at (0, 0), in images and in crops alike.
An image of W columns therefore spans -0.5 to W - 0.5, and the box of a whole image is
``(-0.5, -0.5, W, H)``. A box around keypoints lies on the same axis: no half pixels are added to it.

The functions named ``paper_...`` are those of the paper's own code, with its habits: they map coordinate
0 of the box's left edge to coordinate 0 of the crop, measure in units of 200 pixels and round to float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posewarper.errors import LabelsError

Floats = NDArray[np.float64]

BOX_PADDING = 1.25
"""How much larger than the tight box a crop is, in width and in height."""

_PAPER_UNIT = 200.0  # pixels in one unit of the paper's scale


@dataclass(frozen=True, eq=False)
class CropTransform:
    """The affine map from image pixels to crop pixels, and back.

    Args:
        matrix: (2, 3) float64, ``crop_xy = matrix[:, :2] @ image_xy + matrix[:, 2]``.
        size: (height, width) of the crop in pixels.
    """

    matrix: Floats
    size: tuple[int, int]

    def __post_init__(self) -> None:
        matrix = np.array(self.matrix, np.float64).reshape(2, 3)
        matrix.setflags(write=False)
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "size", (int(self.size[0]), int(self.size[1])))

    @property
    def inverse(self) -> Floats:
        """The (2, 3) matrix from crop pixels to image pixels.

        Raises:
            LabelsError: if the crop was made of a box without area.
        """
        if np.linalg.matrix_rank(self.matrix[:, :2]) < 2:
            raise _empty_box(self.matrix.tolist())
        inverse = np.empty((2, 3))
        inverse[:, :2] = np.linalg.inv(self.matrix[:, :2])
        inverse[:, 2] = -inverse[:, :2] @ self.matrix[:, 2]
        return inverse

    def to_crop(self, points: ArrayLike) -> Floats:
        """Carry image points (..., 2) xy into the crop; NaN stays NaN."""
        return apply_matrix(points, self.matrix)

    def to_image(self, points: ArrayLike) -> Floats:
        """Carry crop points (..., 2) xy back into the image; NaN stays NaN."""
        return apply_matrix(points, self.inverse)


def apply_matrix(points: ArrayLike, matrix: ArrayLike) -> Floats:
    """Apply a (2, 3) affine matrix to points (..., 2) xy; NaN stays NaN."""
    matrix = np.asarray(matrix, np.float64)
    return np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]


def crop_transform(
    box_xywh: ArrayLike, size: tuple[int, int], *, rotation: float = 0.0, flip: bool = False
) -> CropTransform:
    """Return the transform under which a box fills a crop from edge to edge.

    Args:
        box_xywh: (4,) box in image pixels, already padded; another aspect ratio than that of ``size``
            stretches the crop.
        size: (height, width) of the crop.
        rotation: degrees by which the picture turns about the box's centre, counter-clockwise as seen.
        flip: mirror the crop left to right, after the rotation.

    Raises:
        LabelsError: if the box has no area or is not finite.
    """
    box = np.asarray(box_xywh, np.float64)
    if not np.isfinite(box).all() or box[2] <= 0 or box[3] <= 0:
        raise _empty_box(box.tolist())
    angle = np.deg2rad(rotation)
    # y points down, so turning counter-clockwise as seen is this matrix and not its transpose.
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    scale = np.array([size[1] / box[2], size[0] / box[3]])
    if flip:
        scale[0] = -scale[0]
    linear = scale[:, None] * turn
    crop_centre = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2])
    return CropTransform(np.column_stack([linear, crop_centre - linear @ (box[:2] + box[2:] / 2)]), size)


def pad_box(boxes: ArrayLike, *, aspect_ratio: float, padding: float = BOX_PADDING) -> Floats:
    """Grow boxes about their centres, first to an aspect ratio, then by a factor.

    Boxes are (..., 4) xywh in pixels, the aspect ratio is width divided by height; NaN stays NaN.
    """
    boxes = np.asarray(boxes, np.float64)
    centre = boxes[..., :2] + boxes[..., 2:] / 2
    width = np.maximum(boxes[..., 2], boxes[..., 3] * aspect_ratio)
    size = np.stack([width, width / aspect_ratio], -1) * padding
    return np.concatenate([centre - size / 2, size], -1)


def keypoint_boxes(keypoints: ArrayLike) -> Floats:
    """Return the tight boxes (..., 4) xywh around keypoints (..., K, 2) xy, NaN where there are none."""
    keypoints = np.asarray(keypoints, np.float64)
    there = np.isfinite(keypoints).all(-1, keepdims=True)
    low = np.where(there, keypoints, np.inf).min(-2)
    high = np.where(there, keypoints, -np.inf).max(-2)
    some = np.isfinite(low)
    low, high = np.where(some, low, np.nan), np.where(some, high, np.nan)
    return np.concatenate([low, high - low], -1)


def paper_center_scale(
    boxes_xywh: ArrayLike, aspect_ratio: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Turn boxes (..., 4) in pixels into the paper's centre and scale, both float32 as in the original.

    Returns:
        The centre (..., 2) in pixels and the scale (..., 2), width and height in units of 200 pixels, grown
        to the crop's aspect ratio (width / height) and padded by 1.25. As in the original, a box whose centre
        has x = -1 exactly is not padded.
    """
    boxes = np.asarray(boxes_xywh, np.float64)
    center = (boxes[..., :2] + boxes[..., 2:] * 0.5).astype(np.float32)
    width, height = boxes[..., 2], boxes[..., 3]
    grown = np.stack([np.maximum(width, height * aspect_ratio), np.maximum(height, width / aspect_ratio)], -1)
    scale = (grown / _PAPER_UNIT).astype(np.float32)
    return center, np.where(center[..., :1] != -1, scale * np.float32(BOX_PADDING), scale)


def paper_matrix(
    center: ArrayLike,
    scale: ArrayLike,
    rotation: float,
    output_size_wh: ArrayLike,
    *,
    shift: ArrayLike = (0.0, 0.0),
    inverse: bool = False,
) -> Floats:
    """Return the paper's (2, 3) matrix from image pixels to crop pixels.

    Args:
        center: (2,) xy of the box's centre in pixels.
        scale: (2,) width and height in units of 200 pixels; only the width enters.
        rotation: degrees, counter-clockwise as seen.
        output_size_wh: (width, height) of the crop.
        shift: (2,) displacement of the centre in units of the box's width and height.
        inverse: return the matrix from crop to image; it exists for an empty box, too, where the forward
            matrix is zero.
    """
    # The original defines the map by three points kept in float32. Doing the same gives the same matrix to
    # the last digits, and so the same crop: a change in the eighth digit already moves some pixel values.
    center = np.asarray(center, np.float32)
    box = np.asarray(scale, np.float32) * np.float32(_PAPER_UNIT)
    size = np.asarray(output_size_wh, np.float64)
    angle = np.pi * float(rotation) / 180
    up = float(box[0]) * -0.5
    direction = np.array([-up * np.sin(angle), up * np.cos(angle)])
    moved = box * np.asarray(shift, np.float32)
    in_image = _three_points(center + moved, center + direction + moved)
    in_crop = _three_points(size * 0.5, size * 0.5 + (0.0, size[0] * -0.5))
    return _affine_through(in_crop, in_image) if inverse else _affine_through(in_image, in_crop)


def _three_points(first: ArrayLike, second: ArrayLike) -> NDArray[np.float32]:
    # The third point makes a right angle at the second.
    a, b = np.asarray(first, np.float32), np.asarray(second, np.float32)
    return np.stack([a, b, b + np.array([b[1] - a[1], a[0] - b[0]], np.float32)])


def _affine_through(sources: ArrayLike, targets: ArrayLike) -> Floats:
    sources, targets = np.asarray(sources, np.float64), np.asarray(targets, np.float64)
    corners = np.column_stack([sources, np.ones(3)])
    if np.linalg.matrix_rank(corners) < 3:
        return np.zeros((2, 3))
    return np.linalg.solve(corners, targets).T.astype(np.float64)


def paper_crop_transform(
    center: ArrayLike, scale: ArrayLike, rotation: float, output_size_wh: tuple[int, int]
) -> CropTransform:
    """Return the paper's crop as a :class:`CropTransform`; for the arguments see :func:`paper_matrix`."""
    width, height = output_size_wh
    return CropTransform(paper_matrix(center, scale, rotation, output_size_wh), (height, width))


def paper_points_to_image(
    points: ArrayLike, center: ArrayLike, scale: ArrayLike, heatmap_size_wh: ArrayLike
) -> Floats:
    """Carry points (..., 2) from heatmap pixels to the image as the paper does; see :func:`paper_matrix`."""
    return apply_matrix(points, paper_matrix(center, scale, 0.0, heatmap_size_wh, inverse=True))


def _empty_box(got: object) -> LabelsError:
    return LabelsError(
        "a crop cannot be cut out of a box without area",
        expected="a box xywh with a width and a height above 0",
        got=got,
        fix="give the instance a box, or at least two labelled keypoints that lie apart",
    )
