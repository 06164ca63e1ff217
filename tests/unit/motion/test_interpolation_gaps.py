"""Guesses in place of keypoints that nobody has looked at, which keep a subject its size."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from posewarper.motion.interpolation import fill_in
from posewarper.structures import Track
from posewarper.video.track_crops import instance_sizes

SHAPE = np.array([[0.0, 0.0], [30.0, 10.0], [20.0, 60.0], [-10.0, 40.0]])
FRAMES = np.array([0, 10, 20, 40, 70])


def walking(labelled, absent=()) -> Track:
    """A stiff subject that crosses the picture; ``labelled`` (5, 4) are its labels."""
    points = SHAPE + 20.0 * FRAMES[:, None, None] * [1.0, 0.0]
    labelled = np.array(labelled, bool)
    gone = np.zeros_like(labelled)
    for row, k in absent:
        gone[row, k] = True
    return Track(FRAMES, points, visibility=np.where(labelled & ~gone, 2, 0), labelled=labelled | gone)


def test_a_subject_that_crosses_the_picture_is_filled_in_where_it_is():
    # Interpolated in time alone, the keypoints of the second row would stay far behind.
    labelled = [[1, 1, 1, 1], [0, 1, 0, 0], [1, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 0]]
    whole = walking(np.ones((5, 4)))
    filled = fill_in(walking(labelled))
    assert_allclose(filled.keypoints, whole.keypoints, atol=0.01)
    assert_allclose(instance_sizes(filled), 60, atol=0.01)
    assert_array_equal(filled.labelled, np.array(labelled, bool))  # what it says of the labeller stays


def test_labels_of_one_keypoint_each_are_told_from_each_other_by_time():
    labelled = np.zeros((5, 4))
    labelled[range(4), range(4)] = 1
    points = np.broadcast_to(SHAPE, (5, 4, 2))
    standing = Track(FRAMES, points, visibility=labelled * 2)
    assert_allclose(fill_in(standing).keypoints[:4], points[:4], atol=1e-6)


def test_what_is_absent_never_labelled_or_told_by_a_box_is_not_filled_in():
    filled = fill_in(walking([[1, 1, 0, 1], [1, 1, 0, 0], [1] * 4, [1] * 4, [1] * 4], absent=[(1, 3)]))
    assert filled.visibility[:2].tolist() == [[2, 2, 2, 2], [2, 2, 2, 0]]
    assert not fill_in(walking([[1, 1, 0, 0]] * 5)).visibility[:, 2:].any()
    boxed = Track([0, 1], [SHAPE, SHAPE], visibility=[[2] * 4, [2, 0, 0, 0]], boxes=[[0, 0, 9, 9]] * 2)
    assert fill_in(boxed) is boxed
    predicted = Track([0, 1], [SHAPE, SHAPE], visibility=[[2] * 4, [2, 0, 0, 0]], labelled=np.zeros((2, 4)))
    assert fill_in(predicted) is predicted


@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=5, max_size=5))
def test_labels_stay_as_they_are_and_guesses_are_finite(labelled):
    track = walking(labelled)
    filled = fill_in(track)
    assert_array_equal(filled.keypoints[track.placed], track.keypoints[track.placed])
    known = track.placed.any(0)
    assert np.isfinite(filled.keypoints[:, known]).all() and np.isnan(filled.keypoints[:, ~known]).all()
    if all(map(all, labelled)):
        assert filled is track
