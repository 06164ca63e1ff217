"""Regions with a dot of its own colour at every keypoint, so that a picture tells where its keypoints are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from posewarper.skeletons import Skeleton
from posewarper.video.track_crops import Region

SKELETON = Skeleton(("nose", "left_eye", "right_eye"))
_GREY, _DOT = 40.0, 160.0


def dotted_region(
    keypoints: Sequence[Sequence[float]],
    visibility: Sequence[int] = (2, 2, 2),
    *,
    size: tuple[int, int] = (120, 150),
    box: Sequence[float] = (24.5, 19.5, 100, 80),
    frame: int = 0,
    track: int = 0,
) -> Region:
    """A grey region with a soft dot at each labelled keypoint: red, green and blue, in this order."""
    points = np.array(keypoints, np.float64)
    shown = np.array(visibility, np.uint8)
    y, x = np.mgrid[: size[0], : size[1]]
    image = np.full((*size, 3), _GREY)
    for channel, (point, v) in enumerate(zip(points, shown, strict=True)):
        if v:
            image[..., channel] += _DOT * np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / (2 * 2.5**2))
    points[shown == 0] = np.nan
    return Region(frame, track, np.array(box, np.float64), points, shown, image.astype(np.uint8))


def find_dot(image: np.ndarray, channel: int) -> np.ndarray:
    """Where the dot of a colour lies in a crop (h, w, 3), as xy in pixels; NaN if there is none."""
    colour = image[..., channel].astype(np.float64)
    others = np.delete(image, channel, axis=2).astype(np.float64).max(2)
    # What is grey or black is no dot, whatever the random gain on the colours.
    excess = np.maximum(colour - 1.35 * others - 12, 0)
    if excess.max() < 15:
        return np.full(2, np.nan)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(x * excess).sum(), (y * excess).sum()]) / excess.sum()
