"""Views: parts of a frame around its subjects, with their poses drawn on them, as pictures in a page."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from posewarper.crops import Image, smooth_crop
from posewarper.geometry import crop_transform, keypoint_boxes
from posewarper.reporting.overlay import Colour, draw_pose, instances_on, write_text
from posewarper.structures import Floats, Ints, Poses, is_there

_MARGIN = 1.35  # of a view around its subject
_LEAST_SHARE = 0.08  # of the image's longer side that a view covers at least
_WHOLE_SHARE = 0.4  # a view that would cover more of the image's area than this shows all of it
_ASPECTS = (0.62, 1.6)  # narrowest and widest view


def whole_image(image_size: tuple[int, int]) -> Floats:
    """Return the box (4,) xywh of an image of ``(height, width)``."""
    return np.array([-0.5, -0.5, image_size[1], image_size[0]], float)


def tight_boxes(keypoints: Floats, image_size: tuple[int, int], most: float = np.inf) -> Floats:
    """Return the boxes (t, 4) xywh around keypoints (t, K, 2); NaN where there are none.

    Keypoints outside of the image do not count, nor do those that lie more than ``most`` pixels from the
    middle of the others: one that has strayed should not make its subject small.
    """
    limits = np.array([image_size[1], image_size[0]]) - 0.5
    with np.errstate(invalid="ignore"):
        inside: NDArray[np.bool_] = np.all((keypoints >= -0.5) & (keypoints <= limits), axis=-1)
    boxes = keypoint_boxes(np.where(inside[..., None], keypoints, np.nan))
    for row in np.flatnonzero(boxes[:, 2:].max(-1) > most):
        points = keypoints[row, inside[row]]
        near = np.abs(points - np.median(points, axis=0)).max(-1) <= most
        boxes[row] = keypoint_boxes(points[near] if near.any() else points)
    return boxes


def join_boxes(boxes: Sequence[Floats], frames: Sequence[Ints], n_frames: int) -> Floats:
    """Return the boxes (n_frames, 4) around the boxes (t, 4) of all tracks on their ``frames`` (t,)."""
    low, high = np.full((n_frames, 2), np.inf), np.full((n_frames, 2), -np.inf)
    for box, rows in zip(boxes, frames, strict=True):
        low[rows] = np.fmin(low[rows], box[:, :2])
        high[rows] = np.fmax(high[rows], box[:, :2] + box[:, 2:])
    some = np.isfinite(low)
    low, high = np.where(some, low, np.nan), np.where(some, high, np.nan)
    return np.concatenate([low, high - low], -1)


def usual_aspect(boxes: Floats) -> float:
    """Return the median width divided by height of boxes (t, 4), neither very narrow nor very wide."""
    sides = np.maximum(boxes[np.all(boxes[:, 2:] >= 0, axis=-1), 2:], 1.0)
    return float(np.clip(np.median(sides[:, 0] / sides[:, 1]), *_ASPECTS)) if len(sides) else 1.0


def pad_boxes(boxes: Floats, aspect: float, image_size: tuple[int, int]) -> Floats:
    """Return boxes (t, 4) xywh of one aspect (width divided by height) in which subjects are seen well.

    They have a margin around the subjects' ``boxes`` and lie within the image as far as they can. Where
    subjects are large, they are the whole image. NaN stays NaN.
    """
    some: NDArray[np.bool_] = np.all(np.isfinite(boxes), axis=-1)
    if not some.any():
        return boxes
    # Around a lone keypoint a quarter of the image is seen.
    lone = bool((boxes[some, 2:] < 1).all())
    sides = np.maximum(boxes[some, 2:] * _MARGIN, (0.25 if lone else _LEAST_SHARE) * max(image_size))
    width = np.maximum(sides[:, 0], sides[:, 1] * aspect)
    if np.median(width**2 / aspect) > _WHOLE_SHARE * image_size[0] * image_size[1]:
        return np.where(some[:, None], whole_image(image_size), np.nan)
    padded = np.full_like(boxes, np.nan)
    size = np.stack([width, width / aspect], -1)
    padded[some] = np.concatenate([boxes[some, :2] + boxes[some, 2:] / 2 - size / 2, size], -1)
    return _shift_inside(padded, image_size)


def are_apart(together: Floats, single: Sequence[Floats]) -> bool:
    """Tell whether the boxes (t, 4) around each ``single`` track show much more of it than those around all.

    Rows of NaN do not count.
    """
    areas = [
        float(np.nanmedian(box[:, 2] * box[:, 3])) for box in (together, *single) if np.isfinite(box).any()
    ]
    return len(areas) > 2 and areas[0] > 2.5 * max(areas[1:])


def _shift_inside(boxes: Floats, image_size: tuple[int, int]) -> Floats:
    """Move boxes that reach over an edge of the image; what is larger than the image stays in the middle."""
    extent = np.array(image_size[::-1], float)
    low, size = boxes[:, :2], boxes[:, 2:]
    moved = np.clip(low, -0.5, np.maximum(extent - 0.5 - size, -0.5))
    centred = (extent - size) / 2 - 0.5
    return np.concatenate([np.where(size > extent, centred, moved), size], -1)


def view_size(box: ArrayLike, longest: int) -> tuple[int, int]:
    """Return the (height, width) of a picture of a box: its longer side is ``longest`` pixels."""
    _, _, width, height = np.asarray(box, float)
    factor = longest / max(width, height)
    return max(16, round(height * factor)), max(16, round(width * factor))


def draw_view(
    image: Image,
    box: ArrayLike,
    longest: int,
    poses: Poses,
    frame: int,
    *,
    tags: bool = False,
    rings: tuple[int, Sequence[int]] | None = None,
) -> Image:
    """Return the part ``box`` (xywh) of a frame (H, W, 3) uint8 RGB with the poses of all tracks on it.

    The picture's longer side has ``longest`` pixels. ``tags`` write each track's id beside it; ``rings``
    names a track and the keypoints of it to draw rings around.
    """
    size = view_size(box, longest)
    transform = crop_transform(box, size)
    view = smooth_crop(image, transform)
    labels: list[tuple[str, Floats, Colour]] = []
    for track_id, track, row, colour in instances_on(poses, frame):
        points = transform.to_crop(track.keypoints[row])
        scores, visibility = track.keypoint_scores[row], track.visibility[row]
        view = draw_pose(view, points, poses.skeleton, scores=scores, visibility=visibility, colour=colour)
        if rings is not None and rings[0] == track_id:
            draw_rings(view, points[list(rings[1])])
        there = points[is_there(points)]
        if tags and len(there) and np.all((there.max(0) > 0) & (there.min(0) < size[::-1])):
            corner = np.array([there[:, 0].max() + 6, there[:, 1].min() - 16])
            labels.append((f"track {track_id}", corner, colour))
    for text, corner, colour in labels:
        write_text(view, text, corner, max(13, longest // 50), colour)
    return view


def draw_rings(image: Image, points: Floats) -> None:
    """Draw a ring around each point (n, 2) into the image."""
    radius = max(9, round(max(image.shape[:2]) / 34))
    for x, y in points[is_there(points)]:
        centre = int(np.clip(round(x), -9999, 9999)), int(np.clip(round(y), -9999, 9999))
        cv2.circle(image, centre, radius, (16, 16, 16), 5, cv2.LINE_AA)
        cv2.circle(image, centre, radius, (255, 255, 255), 2, cv2.LINE_AA)


def encode_picture(image: NDArray[np.uint8], most_bytes: int) -> str:
    """Return the picture as a JPEG in a ``data:`` address, of so many bytes at most where that can be."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    data = b""
    for quality in (88, 78, 65, 50, 35, 20):
        data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(data) <= most_bytes:
            break
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode('ascii')}"
