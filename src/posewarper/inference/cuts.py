"""Cuts of a film: where one frame shows another scene than the frame before."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from posewarper.crops import Image

_SIDE = 32  # pixels of the small picture that frames are compared by
_BINS = 8  # of each colour's histogram
# A cut changes both what is where and which colours there are: panning changes the first alone, and a lamp
# that is switched on the second less.
_LEAST_CHANGE, _LEAST_RECOLOURED = 22.0, 0.25
_TIMES_BEFORE = 3.0  # and more than the frames before, which a shaking camera changes too


class CutFinder:
    """Tells frame by frame whether a new scene begins, from the frame and the two before it."""

    LOOKS_BACK = 2

    def __init__(self) -> None:
        self._previous: NDArray[np.float32] | None = None
        self._last_change = 0.0

    def begins_scene(self, image: Image) -> bool:
        """Return whether ``image`` (H, W, 3) shows another scene than the one before; the first does not."""
        small = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
        previous, self._previous = self._previous, small
        if previous is None:
            return False
        change = float(np.abs(small - previous).mean())
        usual, self._last_change = self._last_change, change
        return bool(
            change > max(_LEAST_CHANGE, _TIMES_BEFORE * usual)
            and _recoloured(small, previous) > _LEAST_RECOLOURED
        )


def _recoloured(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the share of the pixels whose colour has to change to make one picture's colours the other's."""
    counts = [
        np.stack([np.histogram(small[..., c], _BINS, (0, 256))[0] for c in range(3)])
        for small in (one, other)
    ]
    return float(np.abs(counts[0] - counts[1]).sum() / (2 * 3 * _SIDE**2))
