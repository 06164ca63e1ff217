"""Whether two rows of pictures show the same, such as labelled images and the frames that they may be."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import cv2
import numpy as np

from posewarper.crops import Image
from posewarper.structures import Floats

_SIDE = 32  # pixels of the longer side of the small grey pictures that are compared
_ALIKE = 6.0  # grey levels; compression changes a pixel of them by 1 to 3
_OF_USUAL = 0.5  # share of the usual difference between frames of the video


def show_the_same(pictures: Sequence[Image], frames: Sequence[Image]) -> bool | None:
    """Return whether pictures (H, W, 3) uint8 RGB show what the frames in the same places show.

    Brightness and contrast may differ, as in a converted copy. Where a camera stands still only the subject
    tells one frame from another, so the place counts that differs most, and it is judged by how much the
    frames differ among themselves. None if there is nothing to compare, or sizes differ, since pictures may
    be cut out of frames.
    """
    if not frames or any(a.shape != b.shape for a, b in zip(pictures, frames, strict=True)):
        return None
    ours, theirs = ([_shrink(image) for image in images] for images in (pictures, frames))
    usual = [_difference(a, b) for a, b in combinations(theirs, 2)]
    # One frame may be damaged in a copy, and on some there may be nobody.
    apart = float(np.quantile([_difference(a, b) for a, b in zip(ours, theirs, strict=True)], 0.75))
    return apart <= max(_ALIKE, _OF_USUAL * float(np.median(usual or [0.0])))


def _shrink(image: Image) -> Floats:
    """Return a small grey picture as a row of pixels."""
    scale = _SIDE / max(image.shape[:2])
    size = max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1)
    small = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)
    return small.astype(np.float64).ravel()


def _difference(picture: Floats, frame: Floats) -> float:
    """Return the largest difference of two small pictures, after the frame's brightness was fitted."""
    lit = np.stack([frame, np.ones_like(frame)], 1)
    return float(np.abs(picture - lit @ np.linalg.lstsq(lit, picture, rcond=None)[0]).max())
