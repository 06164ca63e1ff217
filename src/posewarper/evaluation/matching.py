"""The rules by which PoseTrack's evaluation ties predicted people to annotated ones in a frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posewarper.structures import Floats, is_there

# A point matches within this share of the reference length, the border included.
THRESHOLD = 0.5
# The reference length is this share of the diagonal of the head box.
HEAD_SHARE = 0.6


@dataclass(frozen=True)
class FrameMatch:
    """P predicted people beside G annotated ones, with K points each.

    Args:
        hits: (P, K) predicted points that count as found.
        distances: (G, P, K) between points, in reference lengths; NaN where they do not match.
    """

    hits: NDArray[np.bool_]
    distances: Floats


def head_sizes(head_boxes: Floats) -> Floats:
    """Return the reference lengths (n,) in pixels of head boxes (n, 4) xywh: 0.6 times the diagonal."""
    width, height = head_boxes[:, 2], head_boxes[:, 3]
    return HEAD_SHARE * np.sqrt(width * width + height * height)


def match_people(truth: Floats, sizes: Floats, predicted: Floats) -> FrameMatch:
    """Tie each prediction to the person of whose points it has the largest share; a person keeps the best.

    Args:
        truth: (G, K, 2) annotated points in pixels, NaN where there is none.
        sizes: (G,) reference lengths in pixels.
        predicted: (P, K, 2) predicted points in pixels, NaN where there is none.

    Returns:
        FrameMatch: points of predictions that are tied to nobody are no hits. On a tie the first person, and
        the first prediction, is taken.
    """
    n_truth, n_predicted = len(truth), len(predicted)
    hits = np.zeros(predicted.shape[:2], bool)
    if n_truth == 0 or n_predicted == 0:
        return FrameMatch(hits, np.full((n_truth, n_predicted, predicted.shape[1]), np.nan))
    step = truth[:, None] - predicted[None]
    with np.errstate(divide="ignore", invalid="ignore"):
        distances = np.sqrt(step[..., 0] ** 2 + step[..., 1] ** 2) / sizes[:, None, None]
        near = distances <= THRESHOLD
    share = near.sum(-1) / np.maximum(is_there(truth).sum(-1), 1)[:, None]
    tied = share.argmax(0)
    share = np.where(np.arange(n_truth)[:, None] == tied, share, 0.0)
    person = np.flatnonzero(share.max(1) > 0)
    best = share[person].argmax(1)
    hits[best] = near[person, best]
    return FrameMatch(hits, np.where(near, distances, np.nan))
