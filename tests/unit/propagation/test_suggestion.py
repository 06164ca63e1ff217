"""Suggestions on made-up labels, errors and pictures, whose best frames follow from the rules by hand."""

from __future__ import annotations

import numpy as np
import pytest

from posewarper.errors import ConfigError, LabelsError
from posewarper.propagation.suggestion import Suggestion, choose_order, suggest, suggest_frames
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Poses, Track
from posewarper.video.source import Video, open_video

SKELETON = Skeleton(("nose", "tail"))
SHAPE = np.array([[10.0, 8.0], [10.0, 28.0]])  # 20 pixels long


def still(n_frames: int) -> Video:
    """A video of 40 x 48 pixels on which nothing moves."""
    return open_video([np.zeros((40, 48, 3), np.uint8)] * n_frames)


def labels_on(frames, n_frames: int, **more) -> Track:
    return Track(np.array(frames), np.repeat(SHAPE[None], len(frames), 0), **more)


def given(tracks, n_frames: int, **more) -> Labels:
    return Labels(SKELETON, tracks, image_size=(40, 48), n_frames=n_frames, **more)


def poses_with(
    errors: dict[int, dict[tuple[int, int], float]], labelled, n_frames: int, frames=None
) -> Poses:
    """Poses whose expected errors are 0 but for those given as track -> (frame, keypoint) -> pixels."""
    frames = np.arange(n_frames) if frames is None else np.array(frames)
    tracks = {}
    for i, own in errors.items():
        error = np.zeros((len(frames), 2))
        for (frame, keypoint), pixels in own.items():
            error[frames == frame, keypoint] = pixels
        points = np.repeat(SHAPE[None], len(frames), 0)
        on_label = np.isin(frames, labelled)[:, None] & np.ones((1, 2), bool)
        tracks[i] = Track(
            frames, points, labelled=on_label, keypoint_scores=np.ones((len(frames), 2)), expected_error=error
        )
    return Poses(SKELETON, tracks, (40, 48), n_frames, np.array(labelled))


def by_error(poses: Poses, labels: Labels | None = None, count: int = 10) -> list[Suggestion]:
    with still(poses.n_frames) as video:
        return suggest_frames(video, labels, poses, count=count)


def by_gaps(labels: Labels | None, n_frames: int, count: int) -> list[tuple[int, float]]:
    with still(n_frames) as video:
        found = suggest_frames(video, labels, count=count, by="gaps")
    return [(each.frame, round(each.gain * n_frames)) for each in found]


# --- expected error ---------------------------------------------------------------------------------------


def test_the_only_doubt_is_the_only_suggestion():
    [found] = by_error(poses_with({0: {(7, 1): 3.0}}, [0, 20], 21))
    assert (found.frame, found.track, found.keypoint) == (7, 0, 1)
    assert found.gain == pytest.approx(1.0)
    assert found.reason == (
        "tail is expected to be off by up to 3 pixels on frames 1 to 19; a label here takes away 100 percent "
        "of the clip's expected error."
    )


def test_the_error_is_counted_anew_as_if_the_label_bound():
    found = by_error(poses_with({0: {(5, 0): 4.0, (15, 1): 3.0}}, [0, 20], 21))
    # A label on frame 5 takes 4 there; of the 3 on frame 15 a walk between 5 and 20 in place of one between
    # 0 and 20 leaves sqrt((10 * 5 / 15) / (15 * 5 / 20)), so that 0.1716 go away.
    away = 3 * (1 - np.sqrt((10 * 5 / 15) / (15 * 5 / 20)))
    assert away == pytest.approx(0.1716, abs=1e-4)
    assert [each.frame for each in found] == [5, 15]
    assert [each.gain for each in found] == pytest.approx([(4 + away) / 7, (3 - away) / 7])
    assert [each.keypoint for each in found] == [0, 1]


def test_errors_that_grow_like_a_random_walk_are_halved():
    error = {(frame, k): np.sqrt(frame * (20 - frame) / 20) for frame in range(1, 20) for k in (0, 1)}
    found = by_error(poses_with({0: error}, [0, 20], 21), count=3)
    assert found[0].frame == 10
    assert {each.frame for each in found[1:]} == {5, 15}
    assert found[0].gain > 2 * found[1].gain


def test_labels_made_since_the_run_bind():
    poses = poses_with({0: {(5, 0): 4.0, (15, 1): 3.0}}, [0, 20], 21)
    away = 3 * (1 - np.sqrt((10 * 5 / 15) / (15 * 5 / 20)))
    [found] = by_error(poses, given({0: labels_on([0, 5, 20], 21)}, 21))
    assert found.frame == 15
    assert found.gain == pytest.approx((3 - away) / 7)


def test_a_keypoint_that_was_corrected_since_is_settled_and_the_other_is_not():
    poses = poses_with({0: {(5, 0): 4.0, (5, 1): 1.0}}, [0, 20], 21)
    points, said = np.full((3, 2, 2), np.nan), np.zeros((3, 2), bool)
    points[[0, 2]], said[[0, 2]] = SHAPE, True
    points[1, 0], said[1, 0] = SHAPE[0], True
    track = Track(np.array([0, 5, 20]), points, labelled=said)
    # The two have gone together so far, so what one of them has to gain stays.
    [found] = by_error(poses, given({0: track}, 21))
    assert (found.frame, found.keypoint) == (5, 0)


def test_errors_of_all_tracks_add_up_in_shares_of_their_size():
    poses = poses_with({3: {(5, 0): 2.0, (14, 0): 1.0}, 4: {(14, 1): 1.5}}, [0, 20], 21)
    first = by_error(poses)[0]
    assert (first.frame, first.track, first.keypoint) == (14, 4, 1)
    assert first.reason.startswith("tail of track 4 is expected to be off by up to 2 pixels")
    large = poses.tracks[3]
    grown = Track(
        large.frames,
        large.keypoints * [1, 0.5],  # half as long, so twice the share
        labelled=large.labelled,
        keypoint_scores=large.keypoint_scores,
        expected_error=large.expected_error,
    )
    both = Poses(SKELETON, {3: grown, 4: poses.tracks[4]}, (40, 48), 21, poses.labelled_frames)
    assert by_error(both)[0].frame == 5


def test_frames_without_a_pose_count_like_the_worst():
    error = {(frame, 0): 1.0 for frame in range(1, 11)}
    poses = poses_with({0: error}, [0], 31, frames=range(11))
    first = by_error(poses)[0]
    assert 11 <= first.frame < 31
    assert first.reason == "No pose of track 0 on frames 11 to 30: label it, or say that it is not there."


def test_frames_on_which_the_track_is_known_not_to_be_do_not_count():
    error = {(frame, 0): 1.0 for frame in range(1, 11)}
    poses = poses_with({0: error}, [0, 15], 31, frames=range(11))
    # Frame 15 is labelled, and the track is not on it.
    found = by_error(poses)
    assert found and max(each.frame for each in found) <= 10


def test_suggestions_are_apart():
    error = {(frame, 0): 9.0 for frame in (8, 9, 10, 11, 12)} | {(30, 1): 0.1}
    found = by_error(poses_with({0: error}, [0, 60], 61), count=3)
    frames = sorted(each.frame for each in found)
    assert min(np.diff(frames)) >= 61 // 12


def test_poses_without_expected_error_are_refused_by_error_and_lead_to_gaps():
    poses = poses_with({0: {}}, [0, 20], 21)
    track = poses.tracks[0]
    blind = Poses(SKELETON, {0: Track(track.frames, track.keypoints, labelled=track.labelled)}, (40, 48), 21)
    blind = Poses(SKELETON, blind.tracks, (40, 48), 21, poses.labelled_frames)
    assert choose_order(None, blind) == "gaps"
    with still(21) as video, pytest.raises(ConfigError, match="nobody knows the expected error"):
        suggest_frames(video, None, blind, by="error")
    with still(21) as video, pytest.raises(ConfigError, match="there are no poses yet"):
        suggest_frames(video, by="error")


# --- the widest gap ---------------------------------------------------------------------------------------


def test_the_widest_gap_is_halved_again_and_again():
    labels = given({0: labels_on([3, 10, 16], 20)}, 20)
    # Gaps of 6 (4 to 9), 5 (11 to 15), then 3 (0 to 2), 3 (7 to 9), 3 (17 to 19), the earliest first.
    assert by_gaps(labels, 20, 5) == [(6, 6), (13, 5), (1, 3), (8, 3), (18, 3)]


def test_nothing_labelled_is_one_gap():
    assert by_gaps(None, 20, 3) == [(9, 20), (14, 10), (4, 9)]
    assert [frame for frame, _ in by_gaps(None, 3, 9)] == [1, 0, 2]


def test_the_widest_gap_of_any_track_counts():
    said = np.zeros((3, 2), bool)
    said[1] = True
    points = np.where(said[..., None], SHAPE, np.nan)
    # Nobody has looked at track 1 on frames 3 and 16.
    tracks = {0: labels_on([3, 10, 16], 20), 1: Track(np.array([3, 10, 16]), points, labelled=said)}
    with still(20) as video:
        found = suggest_frames(video, given(tracks, 20), count=2)
    assert [(each.frame, each.track) for each in found] == [(4, 1), (15, 1)]
    assert found[0].reason == "The middle of the widest gap: no label of track 1 on frames 0 to 9."


def test_one_corrected_keypoint_leaves_its_gap_open():
    three = Skeleton(("a", "b", "c"))
    points, said = np.full((3, 3, 2), np.nan), np.zeros((3, 3), bool)
    points[[0, 2]], said[[0, 2]] = 5.0, True
    points[1, 0], said[1, 0] = 6.0, True
    track = Track(np.array([0, 5, 20]), points, labelled=said)
    labels = Labels(three, {0: track}, image_size=(40, 48), n_frames=21)
    assert by_gaps(labels, 21, 1) == [(10, 19)]


def test_gaps_between_frames_without_the_track_are_left_out():
    labels = given({0: labels_on([0], 41)}, 41, labelled_frames=np.array([0, 10, 40]))
    assert by_gaps(labels, 41, 2) == [(5, 9), (2, 4)]


# --- looks and motion -------------------------------------------------------------------------------------


def scenes(lengths: dict[int, int]) -> Video:
    """Scenes of one grey each, on which nothing moves."""
    return open_video([np.full((40, 48, 3), grey, np.uint8) for grey, n in lengths.items() for _ in range(n)])


def test_a_cut_parts_the_clip_into_frames_that_look_alike():
    with scenes({0: 47, 200: 43}) as video:
        found = suggest_frames(video, count=2)
        again = suggest_frames(video, count=2)
    assert found == again
    black, white = sorted(found, key=lambda each: each.frame)
    assert black.frame < 47 <= white.frame
    # Seven tenths are time; three tenths are motion, of which there is none but the cut, on frame 47.
    assert black.gain == pytest.approx(0.7 * 47 / 90)
    assert white.gain == pytest.approx(0.7 * 43 / 90 + 0.3)
    assert found[0] == white
    assert white.reason == (
        "Stands for frames 47 to 89, which look alike and have 100 percent of the clip's motion."
    )
    assert black.reason.endswith("frames 0 to 46, which look alike and have none of the clip's motion.")


def test_more_frames_are_taken_where_something_moves():
    frames = [np.full((40, 48, 3), 90, np.uint8) for _ in range(120)]
    for n in range(60):
        frames[60 + n][10:20, 5 + n % 30 : 15 + n % 30] = 160
    with open_video(frames) as video:
        found = [each.frame for each in suggest_frames(video, count=10)]
    # 0.7 of time and 0.3 of motion: 3.5 frames of ten where nothing moves, and 6.5 where something does.
    assert sum(frame >= 60 for frame in found) in (6, 7)
    assert min(np.diff(sorted(found))) >= 3


def test_looks_keeps_away_from_labels():
    with scenes({0: 60, 90: 40, 180: 24}) as video:
        free = suggest_frames(video, count=3)[0].frame
        labels = given({0: labels_on([free], 124)}, 124)
        found = suggest_frames(video, labels, count=3, by="looks")
    assert min(abs(each.frame - free) for each in found) >= 124 // 12


def test_a_still_clip_is_taken_evenly():
    with still(40) as video:
        found = suggest_frames(video, count=4)
    frames = sorted(each.frame for each in found)
    assert np.abs(np.array(frames) - [4.5, 14.5, 24.5, 34.5]).max() < 2


def test_more_than_there_are_gives_what_there_is():
    with still(3) as video:
        assert sorted(each.frame for each in suggest_frames(video, count=9)) == [0, 1, 2]


# --- what is given ----------------------------------------------------------------------------------------


def test_the_order_follows_from_what_is_given():
    labels = given({0: labels_on([3], 20)}, 20)
    assert choose_order(None, None) == "looks"
    assert choose_order(labels, None) == "gaps"
    assert choose_order(labels, poses_with({0: {(1, 0): 1.0}}, [0, 20], 21)) == "error"


def test_what_cannot_be_used_is_refused(tmp_path):
    with still(20) as video:
        with pytest.raises(ConfigError, match="did you mean gaps"):
            suggest_frames(video, by="gap")
        with pytest.raises(LabelsError, match="the labels belong to another video"):
            suggest_frames(video, given({0: labels_on([25], 40)}, 40))
        with pytest.raises(LabelsError, match="another size"):
            suggest_frames(video, Labels(SKELETON, {0: labels_on([2], 20)}, image_size=(48, 40)))
        with pytest.raises(LabelsError, match=r"a folder with poses\.json in it"):
            suggest(video, result=tmp_path)
