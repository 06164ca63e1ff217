"""Crops: an image and a :class:`~posewarper.geometry.CropTransform` in, what a network takes out."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from posewarper.geometry import CropTransform, crop_transform, paper_crop_transform
from posewarper.skeletons import Skeleton

Image = NDArray[np.uint8]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of red, green and blue, in units of 255, that the usual pretrained backbones expect."""
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation of red, green and blue, in units of 255."""


def crop_image(image: Image, transform: CropTransform) -> Image:
    """Cut a crop out of an image by bilinear sampling, black outside the image.

    This is how the paper cuts its crops. Where a crop is much smaller than its box, single pixels are
    picked and the rest is skipped; :func:`smooth_crop` averages instead.

    Args:
        image: (H, W, 3) uint8 RGB.
        transform: from image to crop pixels.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    height, width = transform.size
    crop = cv2.warpAffine(image, transform.matrix, (width, height), flags=cv2.INTER_LINEAR)
    return crop.astype(np.uint8, copy=False)


def smooth_crop(image: Image, transform: CropTransform) -> Image:
    """Cut a crop out of an image without aliasing, black outside the image.

    Where the crop is half as large as its box or less, blocks of n by n image pixels are averaged first and
    the crop is sampled from the averages; otherwise this is :func:`crop_image`.

    Args:
        image: (H, W, 3) uint8 RGB.
        transform: from image to crop pixels.

    Returns:
        (h, w, 3) uint8 RGB.

    Raises:
        LabelsError: if the transform was made of a box without area.
    """
    shrink = 1 / np.sqrt(max(abs(np.linalg.det(transform.matrix[:, :2])), 1e-12))
    block = int(shrink + 1e-6)
    if block < 2:
        return crop_image(image, transform)
    height, width = transform.size
    corners = transform.to_image([(-1, -1), (width, -1), (-1, height), (width, height)])
    limits = np.array([image.shape[1], image.shape[0]])
    low = np.clip(np.floor(corners.min(0)) - block, 0, limits).astype(int)
    high = np.clip(np.ceil(corners.max(0)) + block + 1, 0, limits).astype(int)
    if (high <= low).any():
        return np.zeros((height, width, 3), np.uint8)
    blocks = -(-(high - low) // block)
    missing = blocks * block - (high - low)
    region = image[low[1] : high[1], low[0] : high[0]]
    if missing.any():
        # Black pixels make up whole blocks where the image ends, since it is black beyond.
        region = cv2.copyMakeBorder(region, 0, int(missing[1]), 0, int(missing[0]), cv2.BORDER_CONSTANT)
    small = cv2.resize(region, (int(blocks[0]), int(blocks[1])), interpolation=cv2.INTER_AREA)
    # The centre of the first block lies (block - 1) / 2 pixels right of and below its first pixel.
    origin = low + (block - 1) / 2
    linear, offset = transform.matrix[:, :2], transform.matrix[:, 2]
    from_small = np.column_stack([linear * block, linear @ origin + offset])
    return crop_image(small.astype(np.uint8, copy=False), CropTransform(from_small, transform.size))


def instance_transform(
    center: ArrayLike, scale: ArrayLike, size: tuple[int, int], *, rotation: float = 0.0, exact: bool
) -> CropTransform:
    """Return where the crop of an instance lies that is given by the paper's centre and scale.

    Args:
        center: (2,) xy of the crop's centre in image pixels.
        scale: (2,) width and height of the crop, padding included, in units of 200 pixels.
        size: (height, width) of the crop.
        rotation: degrees, counter-clockwise as seen.
        exact: the box, at least a pixel large, fills the crop from edge to edge, as own clips have it; else
            the paper's map, which lies half a crop pixel off.
    """
    if not exact:
        return paper_crop_transform(center, scale, rotation, (size[1], size[0]))
    extent = np.maximum(200.0 * np.asarray(scale, np.float64), 1)
    low = np.asarray(center, np.float64) - extent / 2
    return crop_transform(np.concatenate([low, extent]), size, rotation=rotation)


def cut_instance(image: Image, transform: CropTransform, *, exact: bool) -> Image:
    """Cut a crop (h, w, 3) without aliasing, or as the paper does; see :func:`instance_transform`."""
    return smooth_crop(image, transform) if exact else crop_image(image, transform)


def normalise(
    crops: Image, mean: ArrayLike = IMAGENET_MEAN, std: ArrayLike = IMAGENET_STD
) -> NDArray[np.float32]:
    """Turn crops into network input.

    Args:
        crops: (B, h, w, 3) uint8 RGB.
        mean: (3,) in units of 255.
        std: (3,) in units of 255.

    Returns:
        (B, 3, h, w) float32, ``(crop / 255 - mean) / std``.
    """
    mean, std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    factor = (1 / (255 * std)).astype(np.float32).reshape(1, 3, 1, 1)
    offset = (mean / std).astype(np.float32).reshape(1, 3, 1, 1)
    channels_first = np.ascontiguousarray(np.asarray(crops).transpose(0, 3, 1, 2), dtype=np.float32)
    return channels_first * factor - offset


def flip_keypoints(
    keypoints: ArrayLike, visibility: ArrayLike, skeleton: Skeleton, width: int
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Return the keypoints of the mirror image of a crop, each under the name that it has there.

    Args:
        keypoints: (..., K, 2) xy in crop pixels, NaN where there is none.
        visibility: (..., K).
        skeleton: says which keypoints change places.
        width: of the crop, in pixels; x becomes ``width - 1 - x``.
    """
    order = list(skeleton.flip_order)
    keypoints = np.array(keypoints, np.float64)
    keypoints[..., 0] = width - 1 - keypoints[..., 0]
    return keypoints[..., order, :], np.asarray(visibility, np.uint8)[..., order]
