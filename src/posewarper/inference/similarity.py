"""How alike poses of one frame, or of neighbouring frames, are: by what both show, and by their boxes.

The object keypoint similarity of ``posewarper.evaluation.oks`` compares predictions with labels: what a
prediction lacks counts as a miss. Here both sides are predictions, and a keypoint that one of them lacks says
nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from posewarper.structures import Floats, Ints, is_there


def confident(keypoints: Floats, scores: Floats, threshold: float) -> NDArray[np.bool_]:
    """Return (n, K) which keypoints (n, K, 2) are there with a score of at least the threshold."""
    with np.errstate(invalid="ignore"):
        return is_there(keypoints) & (scores >= threshold)


def shared_similarity(
    first: Floats, first_boxes: Floats, second: Floats, second_boxes: Floats, sigmas: Floats
) -> tuple[Floats, Ints]:
    """Return the object keypoint similarity over the keypoints that both have, and their number.

    Args:
        first: (A, K, 2) xy in pixels, NaN where there is none.
        first_boxes: (A, 4) xywh; the area of a pair is the mean of its two boxes.
        second: (B, K, 2).
        second_boxes: (B, 4).
        sigmas: (K,) how far keypoints scatter, as a share of the square root of the area.

    Returns:
        (A, B) mean over shared keypoints of exp(-distance^2 / (2 area (2 sigma)^2)), 0 where none is shared,
        and (A, B) how many are shared.
    """
    shared = is_there(first)[:, None] & is_there(second)[None]
    step = np.where(shared[..., None], first[:, None] - second[None], 0.0)
    area = (first_boxes[:, None, 2:].prod(-1) + second_boxes[None, :, 2:].prod(-1)) / 2
    spread = 2 * (area[..., None] + np.spacing(1)) * (2 * sigmas) ** 2
    alike = np.where(shared, np.exp(-(step**2).sum(-1) / spread), 0.0).sum(-1)
    n_shared = shared.sum(-1)
    return alike / np.maximum(n_shared, 1), n_shared


def box_overlap(first: Floats, second: Floats) -> Floats:
    """Return the intersection over union (A, B) of boxes (A, 4) and (B, 4) xywh; 0 for boxes of no size."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum((first[:, :2] + first[:, 2:])[:, None], (second[:, :2] + second[:, 2:])[None])
    common = np.maximum(high - low, 0).prod(-1)
    union = first[:, 2:].prod(-1)[:, None] + second[:, 2:].prod(-1)[None] - common
    return common / np.maximum(union, np.spacing(1))
