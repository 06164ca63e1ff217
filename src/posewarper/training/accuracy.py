"""The accuracy that the original prints while it trains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posewarper.heatmaps import paper_argmax
from posewarper.structures import Floats

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
