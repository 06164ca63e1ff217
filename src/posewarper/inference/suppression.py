"""Suppression of doubles: of instances that lie on one another, only the best is kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from posewarper.structures import Floats


def suppress_doubles(similarity: Floats, scores: Floats, threshold: float) -> NDArray[np.bool_]:
    """Return which instances stay when each, best first, removes those that are more similar than allowed.

    Args:
        similarity: (n, n), 1 for equal instances, such as object keypoint similarity.
        scores: (n,); of equal scores the earlier instance goes first.
        threshold: instances with a similarity above it are doubles.

    Example:
        >>> similarity = np.array([[1, 0.95, 0.1], [0.95, 1, 0.1], [0.1, 0.1, 1]])
        >>> suppress_doubles(similarity, np.array([0.5, 0.8, 0.3]), threshold=0.9)
        array([False,  True,  True])
    """
    stays = np.ones(len(scores), bool)
    for best in np.argsort(-scores, kind="stable"):
        if stays[best]:
            doubles = similarity[best] > threshold
            doubles[best] = False
            stays &= ~doubles
    return stays
