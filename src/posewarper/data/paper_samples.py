"""Whole samples as the original's dataset makes them: crops under one transform, keypoints, targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posewarper.crops import IMAGENET_MEAN, IMAGENET_STD, Image, crop_image, flip_keypoints, normalise
from posewarper.data.paper_augmentation import Framing
from posewarper.geometry import paper_crop_transform
from posewarper.heatmaps import paper_encode
from posewarper.skeletons import POSETRACK, Skeleton
from posewarper.structures import Floats, is_there


@dataclass(frozen=True)
class TargetSpec:
    """Sizes of crops and targets.

    Args:
        crop_size: (height, width) of the crops in pixels.
        heatmap_size: (height, width) of the targets in heatmap pixels.
        sigma: of the targets' Gaussians, in heatmap pixels, a whole number.
        keypoint_weights: K factors on the weights, such as 1.5 for wrists; None for none.
        mean: (3,) of red, green and blue, in units of 255.
        std: (3,) of red, green and blue, in units of 255.
    """

    crop_size: tuple[int, int] = (384, 288)
    heatmap_size: tuple[int, int] = (96, 72)
    sigma: int = 3
    keypoint_weights: tuple[float, ...] | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


@dataclass(frozen=True)
class PaperSample:
    """One instance in one frame, seen in that frame and in others.

    Args:
        inputs: (n, 3, h, w) float32, normalised crops, the sample's own frame first.
        keypoints: (K, 2) xy in crop pixels, NaN where there is none.
        target: (K, H, W) float32, zero where there is no keypoint.
        weights: (K,) float32, 0 where there is no keypoint or it lies far outside.
    """

    inputs: NDArray[np.float32]
    keypoints: Floats
    target: NDArray[np.float32]
    weights: NDArray[np.float32]


def cut_inputs(frames: Sequence[Image], framing: Framing, spec: TargetSpec) -> NDArray[np.float32]:
    """Cut and normalise the same crop of several frames.

    Args:
        frames: n images (H, W, 3) uint8 RGB, mirrored here if the framing says so.
        framing: where the crop lies.
        spec: its size and the normalisation.

    Returns:
        (n, 3, h, w) float32.
    """
    height, width = spec.crop_size
    transform = paper_crop_transform(framing.center, framing.scale, framing.rotation, (width, height))
    seen = [np.ascontiguousarray(frame[:, ::-1]) if framing.flip else frame for frame in frames]
    return normalise(np.stack([crop_image(frame, transform) for frame in seen]), spec.mean, spec.std)


def cut_paper_sample(
    frames: Sequence[Image],
    keypoints: ArrayLike,
    framing: Framing,
    spec: TargetSpec,
    skeleton: Skeleton = POSETRACK,
) -> PaperSample:
    """Make a sample: the mirroring first, then one transform for all crops and the keypoints.

    Args:
        frames: images (H, W, 3) uint8 RGB of one size, the sample's own first.
        keypoints: (K, 2) xy in pixels of the first image, NaN where there is none.
        framing: as drawn by :func:`posewarper.data.paper_augmentation.draw_framing`, or the sample's own.
        spec: sizes and normalisation.
        skeleton: for the mirror image.
    """
    points = np.asarray(keypoints, np.float64)
    if framing.flip:
        points, _ = flip_keypoints(points, is_there(points), skeleton, frames[0].shape[1])
    height, width = spec.crop_size
    transform = paper_crop_transform(framing.center, framing.scale, framing.rotation, (width, height))
    points = transform.to_crop(points)
    target, weights = paper_encode(
        points,
        is_there(points),
        (width, height),
        spec.heatmap_size[::-1],
        spec.sigma,
        keypoint_weights=spec.keypoint_weights,
    )
    return PaperSample(cut_inputs(frames, framing, spec), points, target, weights[:, 0])
