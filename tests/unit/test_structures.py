"""Labels and poses: what they promise about shapes, order, missing keypoints and frames."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from posewarper.errors import LabelsError
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Poses, Track

SKELETON = Skeleton(("nose", "tail"))


def a_track(frames, seed=0, **more) -> Track:
    keypoints = np.random.default_rng(seed).uniform(0, 50, (len(frames), 2, 2))
    return Track(frames, keypoints, **more)


def some_labels(**more) -> Labels:
    return Labels(SKELETON, {7: a_track([2, 5, 9], 1), 3: a_track([5], 2)}, **more)


def test_a_keypoint_is_there_with_both_coordinates_and_visibility_or_not_at_all():
    nan, inf = np.nan, np.inf
    keypoints = [[[1, 2], [nan, 3]], [[inf, 1], [4, 5]], [[6, 7], [8, 9]]]
    track = Track([0, 1, 2], keypoints, visibility=[[2, 2], [2, 0], [1, 5]])  # type: ignore[arg-type]
    assert track.visibility.tolist() == [[2, 0], [0, 0], [1, 2]]
    there = np.isfinite(track.keypoints)
    np.testing.assert_array_equal(there.all(-1), track.visibility > 0)
    np.testing.assert_array_equal(there.any(-1), track.visibility > 0)
    assert track.keypoints[2].tolist() == [[6, 7], [8, 9]]
    assert track.boxes.shape == track.head_boxes.shape == (3, 4)
    assert np.isnan(track.boxes).all()


def a_row(*states: str, frame: int = 4) -> Track:
    """A row of a track whose keypoints are in the states named."""
    number = {"visible": 2, "hidden": 1, "predicted": 2, "absent": 0, "not looked at": 0}
    points = [[1.0 + k, 2.0] if number[state] else [np.nan, np.nan] for k, state in enumerate(states)]
    return Track(
        [frame],
        [points],
        visibility=[[number[state] for state in states]],
        labelled=[[state in ("visible", "hidden", "absent") for state in states]],
        keypoint_scores=[[0.5 if number[state] else np.nan for state in states]],
        expected_error=[[3.0 if state == "predicted" else np.nan for state in states]],
    )


def test_five_states_of_a_keypoint_are_told_apart():
    track = a_row("visible", "hidden", "absent", "not looked at", "predicted")
    told = [track.placed, track.absent, track.not_looked_at, track.predicted]
    assert [np.flatnonzero(each).tolist() for each in told] == [[0, 1], [2], [3], [4]]
    assert np.sum(told, 0).tolist() == [[1] * 5]
    assert track.is_gone.tolist() == [False]
    assert a_row("absent", "absent").is_gone.tolist() == [True]
    # Left out, it is where a keypoint is: an empty one counts as not looked at.
    assert Track([0], [[[1, 1], [np.nan, 1]]]).labelled.tolist() == [[True, False]]  # type: ignore[arg-type]
    with pytest.raises(LabelsError, match="labelled has another shape"):
        Track([0], [[[1, 1], [2, 2]]], labelled=[[True]])  # type: ignore[arg-type]


def test_nothing_is_labelled_beyond_the_labelled_frames():
    for make in (
        lambda: some_labels(labelled_frames=[5]),
        lambda: Poses(SKELETON, some_labels().tracks, (60, 60), 10, labelled_frames=[5]),
    ):
        of = make().tracks
        assert of[7].labelled.tolist() == [[False] * 2, [True] * 2, [False] * 2]
        assert of[7].predicted[[0, 2]].all() and of[3].placed.all()
    assert not Poses(SKELETON, some_labels().tracks, (60, 60), 10).tracks[3].labelled.any()
    assert all(track.labelled.all() for track in some_labels().tracks.values())


def test_labels_alone_are_without_predicted_keypoints_of_labelled_frames():
    labels = Labels(SKELETON, {0: a_row("visible", "predicted"), 1: a_row("predicted", "predicted")})
    alone = labels.only_labelled()
    assert alone.tracks[0].placed.tolist() == [[True, False]]
    assert alone.tracks[0].not_looked_at.tolist() == [[False, True]]
    # A track that nobody has looked at keeps its row, or it would count as not there.
    assert alone.tracks[1].frames.tolist() == [4] and alone.tracks[1].not_looked_at.all()
    assert np.isnan(alone.tracks[0].expected_error).all()
    assert np.isnan(alone.tracks[0].keypoints[0, 1]).all()


def test_what_is_not_labelled_can_be_taken_as_absent():
    tracks = {0: a_row("visible", "not looked at"), 1: a_row("not looked at", "not looked at")}
    labels = Labels(SKELETON, {**tracks, 2: a_row("visible", "not looked at", frame=9)}, [4])
    whole = labels.with_unlabelled_absent()
    assert list(whole.tracks) == [0, 2]
    assert whole.tracks[0].absent.tolist() == [[False, True]]
    assert not whole.tracks[2].labelled.any()  # frame 9 holds predictions
    assert whole.labelled_frames.tolist() == [4]


def test_the_states_are_part_of_the_fingerprint():
    one = Labels(SKELETON, {0: a_row("visible", "absent")})
    other = Labels(SKELETON, {0: a_row("visible", "not looked at")})
    assert one.fingerprint() != other.fingerprint()
    assert one.fingerprint() == Labels(SKELETON, {0: a_row("visible", "absent")}).fingerprint()


def test_a_table_says_of_each_keypoint_whether_it_is_labelled():
    tracks = {0: a_row("visible", "predicted"), 1: a_track([5])}
    table = Poses(SKELETON, tracks, (60, 60), 10, labelled_frames=[4]).to_table()
    assert table["labelled"].tolist() == [True, False, False, False]
    assert table["visibility"].tolist() == [2, 2, 2, 2]


def test_labels_are_copies_that_cannot_be_changed():
    keypoints = np.ones((1, 2, 2))
    track = Track([0], keypoints)  # type: ignore[arg-type]
    keypoints[:] = 9
    assert (track.keypoints == 1).all()
    for array in (track.frames, track.keypoints, track.visibility, track.boxes):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    with pytest.raises(FrozenInstanceError):
        track.frames = np.arange(1)  # type: ignore[misc]


@pytest.mark.parametrize("frames", [[3, 3], [4, 2], [-1, 2]])
def test_frames_count_from_0_and_rise(frames):
    with pytest.raises(LabelsError, match="rise"):
        a_track(frames)
    with pytest.raises(LabelsError, match="rise"):
        Track(frames, np.zeros((2, 1, 2)), keypoint_scores=np.ones((2, 1)))


@pytest.mark.parametrize(
    "changed",
    [
        {"keypoints": np.zeros((2, 2, 2))},
        {"keypoints": np.zeros((1, 2, 3))},
        {"keypoints": np.zeros((1, 2))},
        {"visibility": np.zeros((1, 3))},
        {"boxes": np.zeros((4,))},
        {"head_boxes": np.zeros((2, 4))},
    ],
)
def test_shapes_must_agree(changed):
    good = {"frames": [0], "keypoints": np.zeros((1, 2, 2)), "visibility": np.zeros((1, 2))}
    Track(**good)
    with pytest.raises(LabelsError, match="another shape"):
        Track(**{**good, **changed})


def test_tracks_are_sorted_and_frames_follow_from_them():
    labels = some_labels()
    assert list(labels.tracks) == [3, 7]
    assert labels.instance_frames.tolist() == labels.labelled_frames.tolist() == [2, 5, 9]
    assert Labels(SKELETON, {}).instance_frames.size == 0
    some = Labels(SKELETON, {0: Track([1], [[[1, 1], [1, 1]]], visibility=[[1, 0]])})  # type: ignore[arg-type]
    assert some.labelled_keypoints.tolist() == [True, False]


def test_labels_must_fit_skeleton_and_length():
    with pytest.raises(LabelsError, match=r"track 3 does not fit[^$]*2 keypoints"):
        Labels(Skeleton(("a", "b", "c")), {3: a_track([0])})
    some_labels(n_frames=10)
    with pytest.raises(LabelsError, match=r"0 to 8[^$]*frame 9"):
        some_labels(n_frames=9)
    with pytest.raises(LabelsError, match="frame 12"):
        Labels(SKELETON, {}, labelled_frames=np.array([12]), n_frames=12)


def test_a_selection_of_frames():
    # Frame 9 holds predictions; frame 4 was gone through, and nobody is there.
    labels = some_labels(labelled_frames=np.array([4, 2, 5, 5]), image_size=(40, 60), n_frames=20)
    assert labels.labelled_frames.tolist() == [2, 4, 5]
    part = labels.at(iter([4, 9, 100]))
    assert list(part.tracks) == [7]
    assert part.tracks[7].frames.tolist() == [9]
    np.testing.assert_array_equal(part.tracks[7].keypoints, labels.tracks[7].keypoints[2:])
    assert part.labelled_frames.tolist() == [4]
    assert (part.image_size, part.n_frames) == ((40, 60), 20)
    only = labels.only_labelled()
    assert only.instance_frames.tolist() == [2, 5]
    assert only.labelled_frames.tolist() == [2, 4, 5]


def test_one_track_keeps_the_clip_s_labelled_frames():
    labels = some_labels()
    alone = labels.only_track(3)
    assert list(alone.tracks) == [3]
    assert alone.labelled_frames.tolist() == [2, 5, 9]
    with pytest.raises(LabelsError, match=r"\[3, 7\]"):
        labels.only_track(0)


def test_boxes_travel_with_their_frames():
    boxes = np.arange(12.0).reshape(3, 4)
    part = a_track([1, 4, 6], boxes=boxes, head_boxes=boxes + 100).at([4])
    assert part.boxes.tolist() == [[4, 5, 6, 7]]
    assert part.head_boxes.tolist() == [[104, 105, 106, 107]]


def test_scores_of_what_is_not_there_are_0():
    keypoints = np.array([[[1.0, 2], [np.nan, np.nan]], [[np.nan, 1], [np.nan, np.nan]]])
    track = Track([4, 5], keypoints, keypoint_scores=[[0.5, 0.9], [0.7, 0.7]])  # type: ignore[arg-type]
    assert track.keypoint_scores.tolist() == [[0.5, 0], [0, 0]]
    assert track.visibility.tolist() == [[2, 0], [0, 0]]
    assert track.instance_scores.tolist() == [0.5, 0]
    with pytest.raises(LabelsError, match="expected error"):
        Track([4, 5], keypoints, keypoint_scores=np.ones((2, 2)), expected_error=np.zeros(2))  # type: ignore[arg-type]


def test_the_dense_view_is_frames_by_tracks_in_order_of_their_ids():
    late = Track([1, 3], np.full((2, 2, 2), 1.0), keypoint_scores=np.ones((2, 2)))  # type: ignore[arg-type]
    early = Track([0], np.full((1, 2, 2), 2.0), keypoint_scores=np.ones((1, 2)))  # type: ignore[arg-type]
    poses = Poses(SKELETON, {9: late, 4: early}, (10, 20), n_frames=4, labelled_frames=np.array([3, 1]))
    dense = poses.dense()
    assert dense.shape == (4, 2, 2, 2)
    assert (dense[0, 0] == 2).all()
    assert (dense[[1, 3], 1] == 1).all()
    assert np.isfinite(dense).sum() == 3 * 4
    assert poses.labelled_frames.tolist() == [1, 3]
