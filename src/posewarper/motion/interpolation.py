"""Interpolates labels over time: nearest, linear and PCHIP. The video itself is not looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import PchipInterpolator

from posewarper.structures import Floats, Ints, is_there


def interpolate(frames: Ints, points: Floats, at: ArrayLike, method: str = "linear") -> Floats:
    """Interpolate each of K points between the frames on which it is there (its knots).

    Before its first and after its last knot the value there is held; one knot gives a constant; a point that
    is never there stays NaN.

    Args:
        frames: (t,) rising frame indices.
        points: (t, K, 2) xy, NaN where there is none.
        at: (n,) frame indices in any order.
        method: ``nearest`` copies the nearest knot, the earlier one of two; ``linear`` joins knots by
            straight lines; ``pchip`` by monotone cubics, which are smooth and never overshoot a knot.

    Returns:
        (n, K, 2).
    """
    between = INTERPOLATIONS[method]
    at = np.asarray(at, np.int64).reshape(-1)
    result = np.full((len(at), points.shape[1], 2), np.nan)
    for k, there in enumerate(is_there(points).T):
        if there.any():
            knots = frames[there]
            # Held ends: a frame outside the knots is treated as the knot next to it.
            result[:, k] = between(knots, points[there, k], np.clip(at, knots[0], knots[-1]))
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


INTERPOLATIONS: Mapping[str, Callable[[Ints, Floats, Ints], Floats]] = {
    "nearest": _nearest,
    "linear": _linear,
    "pchip": _pchip,
}
"""The methods by name."""
