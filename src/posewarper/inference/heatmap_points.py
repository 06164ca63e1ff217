"""Keypoints of crops to heatmaps and back, the way a model was trained: the paper's or the exact one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from posewarper.geometry import paper_crop_transform, paper_points_to_image
from posewarper.heatmaps import (
    crop_to_heatmap,
    decode,
    encode,
    heatmap_to_crop,
    paper_decode,
    paper_encode,
)
from posewarper.model.backbone import STRIDE
from posewarper.model.network import ModelSpec
from posewarper.structures import Floats, is_there


def draw_points(
    spec: ModelSpec,
    keypoints: Floats,
    centers: NDArray[np.float32],
    scales: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Return the heatmaps of keypoints as targets of the model's kind.

    Args:
        spec: of the model.
        keypoints: (n, K, 2) xy in image pixels, NaN where there is none.
        centers: (n, 2) xy of each crop's centre in image pixels.
        scales: (n, 2) width and height of each crop in units of 200 pixels.

    Returns:
        (n, K, h, w), zero where there is no keypoint or it lies far outside of the crop.
    """
    height, width = spec.crop_size
    size = height // STRIDE, width // STRIDE
    maps = []
    for points, center, scale in zip(keypoints, centers, scales, strict=True):
        own = paper_crop_transform(center, scale, 0.0, (width, height)).to_crop(points)
        if spec.targets == "exact":
            maps.append(encode(crop_to_heatmap(own, STRIDE), size, spec.sigma))
        else:
            sigma = max(1, round(spec.sigma))
            maps.append(paper_encode(own, is_there(own), (width, height), size[::-1], sigma)[0])
    return np.stack(maps)


def find_points(
    spec: ModelSpec,
    heatmaps: NDArray[np.floating],
    centers: NDArray[np.float32],
    scales: NDArray[np.float32],
) -> tuple[Floats, Floats]:
    """Return where the peaks of heatmaps lie in the image, decoded as the model's kind of targets asks for.

    Args:
        spec: of the model.
        heatmaps: (n, K, h, w).
        centers: (n, 2) xy of each crop's centre in image pixels.
        scales: (n, 2) width and height of each crop in units of 200 pixels.

    Returns:
        Points (n, K, 2) xy in image pixels, and the maxima (n, K).
    """
    exact = spec.targets == "exact"
    points, scores = decode(heatmaps) if exact else paper_decode(heatmaps)
    height, width = spec.crop_size
    found = np.empty(points.shape, np.float64)
    for n, (own, center, scale) in enumerate(zip(points, centers, scales, strict=True)):
        if exact:
            transform = paper_crop_transform(center, scale, 0.0, (width, height))
            found[n] = transform.to_image(heatmap_to_crop(own, STRIDE))
        else:
            found[n] = paper_points_to_image(own, center, scale, heatmaps.shape[:-3:-1])
    return found, np.asarray(scores, np.float64)
