"""Interpolates labels over time: nearest, linear, PCHIP, and gaps in them. The video is not looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import PchipInterpolator

from posewarper.structures import VISIBLE, Floats, Ints, Track, is_there


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


_ROUNDS = 50  # until the mean shape and the places of the instance agree


def fill_in(track: Track) -> Track:
    """Return labels with a guess in place of the keypoints that nobody has looked at.

    A label of a few keypoints would otherwise seem to be that of a small subject. A guess lies where the
    track's mean shape has the keypoint, seen from the keypoints that are there; how the keypoint deviates
    from the shape is interpolated in time. Keypoints that the track has nowhere stay NaN, and so do those
    that are absent, and those of an instance with less than two keypoints and a box, which tells its size.
    """
    boxed = (track.boxes[:, 2:] > 0).all(1) & (track.placed.sum(1) < 2)
    wanted = track.not_looked_at & track.placed.any(0) & ~boxed[:, None]
    if not wanted.any() or not track.placed.any():
        return track
    guess, deviation = _shape_of(track)
    guess = guess + interpolate(track.frames, deviation, track.frames)
    return replace(
        track,
        keypoints=np.where(wanted[..., None], guess, track.keypoints),
        visibility=np.where(wanted, VISIBLE, track.visibility),
    )


def measure_guesses(track: Track) -> float:
    """Return how far off such guesses are, in pixels: the median over labels, each left out in turn."""
    _, deviation = _shape_of(track)
    errors = []
    for own in deviation.transpose(1, 0, 2):
        rows = np.flatnonzero(is_there(own))
        for row in rows if len(rows) > 1 else ():
            others = rows[rows != row]
            found = interpolate(track.frames[others], own[others, None], track.frames[[row]])
            errors.append(float(np.linalg.norm(found[0, 0] - own[row])))
    return float(np.median(errors)) if errors else np.inf


def _shape_of(track: Track) -> tuple[Floats, Floats]:
    """Return where the mean shape has each keypoint (t, K, 2), and how labels deviate from that (t, K, 2)."""
    known = track.placed.any(0)
    rows = np.flatnonzero(track.placed.any(1))
    points = np.where(track.placed[..., None], track.keypoints, np.nan)
    there = track.placed[:, known][..., None]
    own = np.where(there, points[:, known], 0.0)
    count_rows, count = there.sum(0), np.maximum(there.sum(1), 1)
    # What labels of different keypoints have to do with each other, at first time alone tells.
    middle = interpolate(track.frames, points[:, known], track.frames).mean(1)
    shape = np.zeros((int(known.sum()), 2))
    for _ in range(_ROUNDS):
        shape = np.where(there, own - middle[:, None], 0.0).sum(0) / count_rows
        middle = np.where(there, own - shape, 0.0).sum(1) / count
    guess = np.full_like(points, np.nan)
    guess[:, known] = interpolate(track.frames[rows], middle[rows, None], track.frames) + shape
    return guess, points - guess


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
