"""Partial labels: what is placed never moves, what is absent never appears, what is left is predicted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal

from posewarper.motion.flow import BLENDS
from posewarper.motion.interpolation import INTERPOLATIONS, measure_guesses
from posewarper.propagation.clip import prepare_clip, settled_frames
from posewarper.propagation.methods import propagate_clip
from posewarper.propagation.stretch import Stretch
from posewarper.propagation.trust import Trust
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Poses, Track

NAMES = ("left_paw", "right_paw", "back", "tail")
START = np.array([[38.0, 42.0], [62.5, 30.25], [50.0, 35.0], [52.25, 37.5]])
FRAMES = [2, 6, 9, 14]
CHEAP = [*INTERPOLATIONS, *BLENDS, "default"]
NOT_LOOKED_AT, ABSENT, HIDDEN, VISIBLE = range(4)


def labels_of(picture, states, noise=0.0) -> Labels:
    """Labels of tracks (n, 4, 4): the state of each keypoint on each labelled frame."""
    tracks = {}
    for i, own in enumerate(np.asarray(states)):
        points = picture.keypoints(START + 3 * i, FRAMES) + noise
        visibility = np.select([own == VISIBLE, own == HIDDEN], [2, 1], 0)
        tracks[i] = Track(FRAMES, points, visibility=visibility, labelled=own != NOT_LOOKED_AT)
    return Labels(Skeleton(NAMES), tracks, FRAMES)


def off(picture, track, i=0) -> np.ndarray:
    return np.linalg.norm(track.keypoints - picture.keypoints(START + 3 * i, track.frames), axis=-1)


def assert_labels_bind(poses: Poses, labels: Labels) -> None:
    assert_array_equal(poses.labelled_frames, labels.labelled_frames)
    for i, track in labels.tracks.items():
        found = poses.tracks[i]
        rows = np.isin(track.frames, found.frames)
        here = found.at(track.frames)
        # A track that is gone has no row; one that nobody has looked at, or in part, goes on.
        assert not track.is_gone[rows].any()
        first, last = track.frames[track.placed.any(1)][[0, -1]] if track.placed.any() else (1, 0)
        between = (track.frames >= first) & (track.frames <= last)
        if not track.is_gone[between].any():
            assert rows[between].all()
        said = track.labelled[rows]
        assert_array_equal(here.labelled, said)
        assert here.keypoints[said].tobytes() == track.keypoints[rows][said].tobytes()
        assert_array_equal(here.visibility[said], track.visibility[rows][said])
        assert not here.visibility[track.absent[rows]].any()
        known = track.placed.any(0)
        assert (here.visibility[~said & known] == 2).all()
        assert not found.visibility[:, ~known].any()
        assert not found.labelled[~np.isin(found.frames, track.frames)].any()


@pytest.mark.parametrize("method", CHEAP)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(states=arrays(np.int64, (2, 4, 4), elements=st.integers(0, 3)), extend=st.booleans())
def test_placed_keypoints_never_move_and_absent_ones_never_appear(
    picture, moving_video, method, states, extend
):
    states[0, 0, 0] = VISIBLE
    labels = labels_of(picture, states, noise=1 / 3)
    clip = prepare_clip(moving_video, labels, extend=extend, flow=method not in INTERPOLATIONS)
    poses = propagate_clip(clip, method)
    if not extend:
        assert_labels_bind(poses, labels)
    for i, track in labels.tracks.items():
        here, placed = poses.tracks[i].at(track.frames), track.placed
        rows = np.isin(track.frames, here.frames)
        assert rows[placed.any(1)].all()
        assert here.keypoints[placed[rows]].tobytes() == track.keypoints[placed].tobytes()
        assert not here.visibility[track.absent[rows]].any()
    # What was propagated is a set of partial labels itself, with the same labels in it.
    again = poses.as_labels().only_labelled()
    for i, track in again.tracks.items():
        before = labels.tracks[i]
        assert_array_equal(track.labelled, before.at(track.frames).labelled)
        assert track.keypoints[track.placed].tobytes() == before.keypoints[before.placed].tobytes()


@pytest.mark.parametrize("method", CHEAP)
def test_correcting_one_keypoint_leaves_the_others_where_they_were(picture, moving_video, method):
    whole = [[VISIBLE] * 4, [NOT_LOOKED_AT] * 4, [NOT_LOOKED_AT] * 4, [VISIBLE] * 4]
    corrected = [whole[0], [NOT_LOOKED_AT, VISIBLE, NOT_LOOKED_AT, NOT_LOOKED_AT], *whole[2:]]
    before, after = (
        propagate_clip(prepare_clip(moving_video, labels_of(picture, [states])), method).tracks[0]
        for states in (whole, corrected)
    )
    assert_array_equal(after.frames, before.frames)
    assert (after.visibility == 2).all()
    assert after.labelled[6].tolist() == [False, True, False, False]
    others = [0, 2, 3]
    np.testing.assert_allclose(after.keypoints[:, others], before.keypoints[:, others], atol=0.3)
    if method == "default":
        # They are as unsure as they were; the one that is labelled is certain.
        assert (after.expected_error[6, others] > 0).all() and after.expected_error[6, 1] == 0
        np.testing.assert_allclose(
            after.expected_error[6, others], before.expected_error[6, others], rtol=0.2
        )
        assert (after.expected_error[4:9, 1] <= before.expected_error[4:9, 1]).all()


def test_a_stretch_goes_past_a_frame_on_which_only_some_keypoints_are_labelled(picture, moving_video):
    states = np.full((1, 4, 4), VISIBLE)
    states[0, 1, 0], states[0, 2, 0] = NOT_LOOKED_AT, ABSENT
    labels = labels_of(picture, states)
    assert settled_frames(labels.tracks[0]).tolist() == [2, 9, 14]
    # A keypoint that is labelled nowhere unsettles no frame.
    states[..., 3] = NOT_LOOKED_AT
    assert settled_frames(labels_of(picture, states).tracks[0]).tolist() == [2, 9, 14]
    track = propagate_clip(prepare_clip(moving_video, labels), "default").tracks[0]
    assert off(picture, track)[track.visibility > 0].max() < 0.5


def test_half_of_the_keypoints_of_each_frame_are_enough_to_follow(picture, moving_video):
    states = np.full((1, 4, 4), VISIBLE)
    states[0, ::2, :2] = states[0, 1::2, 2:] = NOT_LOOKED_AT
    for method in ("flow", "flow2", "default"):
        poses = propagate_clip(prepare_clip(moving_video, labels_of(picture, states)), method)
        track = poses.tracks[0]
        assert off(picture, track).max() < 0.6
        assert (track.keypoint_scores[~track.labelled] < 1).all()


def test_keypoints_far_from_their_labels_are_sought_where_the_others_tell(picture, moving_video):
    def carried(states):
        clip = prepare_clip(moving_video, labels_of(picture, states))
        track = Stretch(clip, 0, clip.frames[0][2:], np.full((4, 2), np.nan), None)
        return track.frames, track._carry(Trust(1.0, np.ones(4), {}))

    states = np.full((1, 4, 4), VISIBLE)
    states[0, 1:, 1] = NOT_LOOKED_AT
    frames, (*both_sides, guess) = carried(states)
    assert len(both_sides) == 2
    there = np.isfinite(guess.points).all(-1)
    assert not there[:, [0, 2, 3]].any()
    assert frames[there[:, 1]].tolist() == [*range(7, 16)]  # more than one gap, of 4, from its label
    truth = picture.keypoints(START, frames)
    assert np.linalg.norm(guess.points - truth, axis=-1)[there].max() < 1
    # Where each keypoint has its labels as near as usual, as where one is corrected, there is no guess.
    states[:] = VISIBLE
    assert len(carried(states)[1]) == 2
    states[0, 2, 1:] = NOT_LOOKED_AT
    assert len(carried(states)[1]) == 2


def test_guesses_are_trusted_by_how_far_off_they_are_on_the_labels():
    frames, shape = np.arange(6) * 10, np.array([[0.0, 0.0], [40.0, 0.0], [0.0, 40.0]])
    stiff = np.repeat(shape[None], 6, 0) + frames[:, None, None]
    assert measure_guesses(Track(frames, stiff)) < 0.01
    stiff[::2, 1] += 30  # a limb that swings
    assert 10 < measure_guesses(Track(frames, stiff)) < 60
    assert measure_guesses(Track([0], shape[None])) == np.inf


def test_pieces_of_a_long_stretch_join_at_partly_labelled_frames(picture, moving_video, monkeypatch):
    from posewarper.propagation import stretch

    states = np.full((1, 4, 4), VISIBLE)
    states[0, 0, 0] = states[0, 1, 1] = states[0, 2, 2] = states[0, 3, 3] = NOT_LOOKED_AT
    clip = prepare_clip(moving_video, labels_of(picture, states), extend=True)
    whole = propagate_clip(clip, "default").tracks[0]
    monkeypatch.setattr(stretch, "_LONGEST", 6)
    monkeypatch.setattr(stretch, "_OVERLAP", 2)
    pieces = propagate_clip(clip, "default").tracks[0]
    assert off(picture, pieces).max() < 0.6
    np.testing.assert_allclose(pieces.keypoints, whole.keypoints, atol=0.6)
