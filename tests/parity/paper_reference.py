"""What only these tests compute: the paper's whole samples, its mined loss and the accuracy in its log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from posewarper.crops import Image, normalise
from posewarper.heatmaps import paper_argmax, paper_encode
from posewarper.skeletons import POSETRACK
from posewarper.structures import Floats, is_there
from posewarper.training.random_crops import Framing, Sample


@dataclass(frozen=True)
class TargetSpec:
    """(height, width) of crops and of targets, and sigma of the targets in heatmap pixels."""

    crop_size: tuple[int, int]
    heatmap_size: tuple[int, int]
    sigma: int


@dataclass(frozen=True)
class PaperSample:
    """Normalised crops (n, 3, h, w), keypoints (K, 2) in crop pixels, target (K, H, W) and weights (K,)."""

    inputs: NDArray[np.float32]
    keypoints: Floats
    target: NDArray[np.float32]
    weights: NDArray[np.float32]


def cut_paper_sample(
    frames: Sequence[Image], keypoints: ArrayLike, framing: Framing, spec: TargetSpec
) -> PaperSample:
    """Cut one crop out of several frames, the sample's own first, and make its target."""
    points = np.asarray(keypoints, np.float64)
    crops = [
        framing.cut(Sample(frame, points, is_there(points)), spec.crop_size, POSETRACK, paper=True)
        for frame in frames
    ]
    sizes = spec.crop_size[::-1], spec.heatmap_size[::-1]
    target, weights = paper_encode(crops[0].keypoints, crops[0].visibility, *sizes, spec.sigma)
    inputs = normalise(np.stack([crop.image for crop in crops]))
    return PaperSample(inputs, crops[0].keypoints, target, weights[:, 0])


def hard_keypoint_loss(predicted: Tensor, target: Tensor, weights: Tensor, hardest: int = 8) -> Tensor:
    """Return the loss of each sample's hardest keypoints only (online hard keypoint mining).

    Each keypoint of each sample has the loss of :func:`heatmap_loss` over its own map; the mean runs over the
    ``hardest`` largest of each sample.

    Args:
        predicted: (B, K, H, W).
        target: (B, K, H, W), finite also where the weight is 0.
        weights: (B, K), 0 for keypoints without a label.
        hardest: how many keypoints of a sample count; all, if it has no more.

    Returns:
        A scalar.
    """
    factor = weights[..., None, None]
    losses = 0.5 * ((predicted * factor - target * factor) ** 2).mean(dim=(2, 3))
    return losses.topk(min(hardest, losses.shape[1]), dim=1).values.mean()


_THRESHOLD = 0.5


@dataclass(frozen=True)
class HeatmapAccuracy:
    """Share of keypoints whose highest pixels agree.

    Args:
        per_keypoint: (K,), NaN for a keypoint without a usable target (the original says -1).
        mean: over the keypoints that have one; 0 if none has.
        count: how many keypoints have one.
        predictions: (B, K, 2) xy of the predicted maps' highest pixels.
    """

    per_keypoint: Floats
    mean: float
    count: int
    predictions: Floats


def paper_heatmap_accuracy(output: NDArray[np.floating], target: NDArray[np.floating]) -> HeatmapAccuracy:
    """Compare the highest pixels of predicted maps and targets, as the original does for its log.

    A keypoint agrees within half of a tenth of the map, where, by an oversight of the original that is kept
    here, x is measured in tenths of the map's *height* and y in tenths of its *width*. A target counts if its
    highest pixel has x > 1 and y > 1.

    Args:
        output: (B, K, h, w).
        target: (B, K, h, w).
    """
    height, width = output.shape[-2:]
    predictions, truth = paper_argmax(output)[0], paper_argmax(target)[0]
    usable = (truth > 1).all(-1)
    tenths = np.array([height, width]) / 10
    distances = np.linalg.norm(predictions / tenths - truth / tenths, axis=-1)
    agreeing = (usable & (distances < _THRESHOLD)).sum(0)
    counts = usable.sum(0)
    per_keypoint = np.where(counts > 0, agreeing / np.maximum(counts, 1), np.nan)
    known = per_keypoint[counts > 0]
    mean = float(known.mean()) if len(known) else 0.0
    return HeatmapAccuracy(per_keypoint, mean, len(known), predictions)
