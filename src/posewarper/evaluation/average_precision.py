"""Precision, recall and the area under their curve, as PoseTrack's evaluation counts them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from posewarper.structures import Floats


class PrecisionRecall(NamedTuple):
    """Shares from 0 to 1; ``ap`` and ``recall`` are NaN where there are predictions and nothing to find."""

    ap: float
    precision: float
    recall: float


def score_detections(scores: Floats, hits: NDArray[np.bool_], n_labelled: int) -> PrecisionRecall:
    """Return average precision, and precision and recall with all predictions together.

    The average precision is the area under the envelope of the precision, which falls with the recall.
    Without any prediction all three are 0, also where there is nothing to find.

    Args:
        scores: (n,) of the predicted points.
        hits: (n,) which of them are right.
        n_labelled: number of annotated points.

    Example:
        >>> score_detections(np.array([0.9, 0.8, 0.7]), np.array([True, False, True]), 2)
        PrecisionRecall(ap=0.8333333333333333, precision=0.6666666666666666, recall=1.0)
    """
    if not len(scores):
        return PrecisionRecall(0.0, 0.0, 0.0)
    # The reference turns numpy's default order round, which is not stable. Where of equal scores some are
    # right and some are wrong the figure hangs on it: only the same call gives the same figure.
    order = np.argsort(scores)[::-1]
    found = np.cumsum(hits[order])
    precision = found / np.arange(1, len(found) + 1)
    if n_labelled == 0:
        return PrecisionRecall(np.nan, float(precision[-1]), np.nan)
    recall = found / n_labelled
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.diff(recall, prepend=0.0)
    return PrecisionRecall(float((steps * envelope).sum()), float(precision[-1]), float(recall[-1]))
