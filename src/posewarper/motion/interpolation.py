"""Interpolation of labels over time: what can be had without looking at the video.

Each keypoint is interpolated between the frames on which that keypoint is labelled (its knots), visible or
hidden. Before its first and after its last knot the value there is held; one knot gives a constant; a
keypoint that is never labelled stays NaN. Every function takes a track of t labels with K keypoints and
``frames`` (n,), indices in any order, and returns (n, K, 2) xy in pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import PchipInterpolator

from posewarper.structures import Floats, Ints, Track


def nearest(track: Track, frames: ArrayLike) -> Floats:
    """Copy the label of the nearest knot; the earlier one if two are equally near.

    Example:
        >>> track = Track([0, 4], [[[0.0, 0.0]], [[8.0, 4.0]]], [[2], [2]])
        >>> nearest(track, [2, 3])[:, 0]
        array([[0., 0.],
               [8., 4.]])
    """
    return _each_keypoint(track, frames, _nearest)


def linear(track: Track, frames: ArrayLike) -> Floats:
    """Join the knots by straight lines."""
    return _each_keypoint(track, frames, _linear)


def pchip(track: Track, frames: ArrayLike) -> Floats:
    """Join the knots by monotone cubics, which are smooth and never overshoot a label."""
    return _each_keypoint(track, frames, _pchip)


def _each_keypoint(
    track: Track, frames: ArrayLike, between: Callable[[Ints, Floats, Ints], Floats]
) -> Floats:
    at = np.asarray(frames, np.int64).reshape(-1)
    result = np.full((len(at), track.keypoints.shape[1], 2), np.nan)
    for k, labelled in enumerate((track.visibility > 0).T):
        if labelled.any():
            knots = track.frames[labelled]
            # Held ends: a frame outside the knots is treated as the knot next to it.
            inside = np.clip(at, knots[0], knots[-1])
            result[:, k] = between(knots, track.keypoints[labelled, k], inside)
    return result


def _nearest(knots: Ints, values: Floats, at: Ints) -> Floats:
    after = np.searchsorted(knots, at)
    before = np.maximum(after - 1, 0)
    return values[np.where(at - knots[before] <= knots[after] - at, before, after)]


def _linear(knots: Ints, values: Floats, at: Ints) -> Floats:
    return np.stack([np.interp(at, knots, values[:, axis]) for axis in (0, 1)], -1)


def _pchip(knots: Ints, values: Floats, at: Ints) -> Floats:
    if len(knots) == 1:
        return np.broadcast_to(values, (len(at), 2))
    return PchipInterpolator(knots, values)(at)
