"""Interpolation of labels: knots per keypoint, held ends, exact values."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from posewarper.motion.interpolation import INTERPOLATIONS, interpolate
from posewarper.structures import Track


def run(method: str, track: Track, at) -> np.ndarray:
    return interpolate(track.frames, track.keypoints, at, method)


def track_of(frames: list[int], *keypoints: list[float], hidden: bool = False) -> Track:
    """A track with one list of x a keypoint; y is minus x; NaN = no label."""
    x = np.array(keypoints).T
    visibility = np.full(x.shape, 1 if hidden else 2)
    return Track(np.array(frames), np.stack([x, -x], -1), visibility=visibility)


@pytest.mark.parametrize("method", INTERPOLATIONS)
@pytest.mark.parametrize("hidden", [False, True])
def test_labels_are_met_and_ends_are_held(method, hidden):
    track = track_of([3, 5, 9], [1.0, 7.0, 2.0], hidden=hidden)
    result = run(method, track, [0, 3, 5, 9, 40])
    assert result.shape == (5, 1, 2) and result.dtype == np.float64
    assert_allclose(result[:, 0, 0], [1, 1, 7, 2, 2])
    assert_allclose(result[:, 0, 1], [-1, -1, -7, -2, -2])


def test_nearest_takes_the_earlier_of_two_equally_near():
    track = track_of([0, 4, 7], [10.0, 20.0, 30.0])
    assert_allclose(run("nearest", track, [1, 2, 3, 5, 6])[:, 0, 0], [10, 10, 20, 20, 30])


def test_linear_by_hand():
    track = track_of([0, 4, 6], [0.0, 8.0, 2.0])
    assert_allclose(run("linear", track, [1, 2, 5])[:, 0, 0], [2, 4, 5])


def test_pchip_by_hand():
    # Slope 0 at the turning point; at the first knot the three-point rule gives
    # ((2 * 2 + 2) * 2 - 2 * (-2)) / (2 + 2) = 4. Hermite's cubic halfway: (0 + 4) / 2 + 2 * (4 - 0) / 8 = 3.
    track = track_of([0, 2, 4], [0.0, 4.0, 0.0])
    assert_allclose(run("pchip", track, [1, 3])[:, 0, 0], [3, 3])
    # Never beyond the labels, where a plain cubic spline would swing over.
    flat = run("pchip", track_of([0, 4, 8, 12], [0.0, 0.0, 10.0, 10.0]), np.arange(13))[:, 0, 0]
    assert flat.min() == 0 and flat.max() == 10 and np.all(np.diff(flat) >= 0)


@pytest.mark.parametrize("method", INTERPOLATIONS)
def test_each_keypoint_has_its_own_knots(method):
    nan = np.nan
    track = track_of([0, 2, 4], [0.0, nan, 4.0], [nan, 5.0, nan], [nan, nan, nan], [0.0, 2.0, 4.0])
    result = run(method, track, [0, 1, 2, 3, 4])
    assert_allclose(result[:, 1, 0], 5.0)
    assert np.isnan(result[:, 2]).all()
    if method == "nearest":
        assert_allclose(result[:, 0, 0], [0, 0, 0, 4, 4])
        assert_allclose(result[:, 3, 0], [0, 0, 2, 2, 4])
    else:
        assert_allclose(result[:, 0, 0], [0, 1, 2, 3, 4])
        assert_allclose(result[:, 3, 0], [0, 1, 2, 3, 4])


@pytest.mark.parametrize("method", INTERPOLATIONS)
def test_empty_tracks_and_unordered_frames(method):
    empty = Track(np.zeros(0), np.zeros((0, 3, 2)))
    assert np.isnan(run(method, empty, [0, 1])).all() and run(method, empty, [0, 1]).shape == (2, 3, 2)
    track = track_of([0, 4], [0.0, 8.0])
    assert_allclose(run(method, track, [3, 1]), run(method, track, [1, 3])[::-1])
    assert run(method, track, []).shape == (0, 1, 2)
