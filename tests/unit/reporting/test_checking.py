"""Each reason to check a frame is found where it was put, and nowhere in a clean track."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from posewarper.reporting.checking import Doubt, frames_to_check, subject_size
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Poses, Track

SKELETON = Skeleton(("nose", "left_hand", "right_hand", "tail"), ((0, 3),))
N_FRAMES, SIZE = 61, (400, 640)
NOSE, LEFT, RIGHT, TAIL = range(4)
LABELLED = np.arange(0, N_FRAMES, 10)
SHAPE = np.array([[100.0, 100.0], [60.0, 150.0], [140.0, 150.0], [100.0, 200.0]])  # 100 pixels tall


def clean_points() -> np.ndarray:
    """A subject that drifts and sways slowly, (t, 4, 2)."""
    t = np.arange(N_FRAMES)
    return SHAPE + np.stack([2.0 * t, 5 * np.sin(t / 8)], -1)[:, None]


def judge(points=None, scores=None, labelled=LABELLED, **more) -> list[Doubt]:
    """Suggestions for one track that is clean but for what is given."""
    points = clean_points() if points is None else points
    scores = np.full(points.shape[:2], 0.9) if scores is None else scores
    truth = clean_points()[labelled]
    frames = more.pop("frames", np.arange(N_FRAMES))
    tracks = {0: Track(frames, points[frames], keypoint_scores=scores[frames], **more)}
    return check(tracks, {0: Track(labelled, truth)})


def check(tracks, labels, **more) -> list[Doubt]:
    given = Labels(SKELETON, labels)
    poses = Poses(SKELETON, tracks, SIZE, N_FRAMES, labelled_frames=given.labelled_frames)
    return frames_to_check(poses, given, **more)


def only(doubts: list[Doubt]) -> Doubt:
    assert len(doubts) == 1, doubts
    return doubts[0]


def test_a_clean_track_gives_no_reason() -> None:
    assert judge() == []
    noise = np.random.default_rng(0).normal(0, 0.7, (N_FRAMES, 4, 2))
    assert judge(clean_points() + noise) == []
    assert judge(expected_error=np.full((N_FRAMES, 4), 1.0)) == []


def test_low_scores() -> None:
    scores = np.full((N_FRAMES, 4), 0.9)
    scores[33, TAIL], scores[33, LEFT] = 0.3, 0.5
    found = only(judge(scores=scores))
    assert (found.frame, found.track, found.keypoints) == (33, 0, (TAIL, LEFT))
    assert found.reasons == ("Low score: tail (0.30), left_hand (0.50); 0.90 is usual for this track.",)
    # What is uncertain all along stands out on no frame.
    scores = np.full((N_FRAMES, 4), 0.9)
    scores[:, RIGHT] = 0.2
    assert judge(scores=scores) == []


def test_large_expected_errors() -> None:
    error = np.full((N_FRAMES, 4), np.nan)
    error[24, NOSE] = 12.0
    found = only(judge(expected_error=error))
    assert (found.frame, found.keypoints) == (24, (NOSE,))
    assert found.reasons == ("Expected to be off by 12 pixels: nose.",)


def test_of_a_labelled_frame_only_what_nobody_has_labelled_is_worth_a_look() -> None:
    error = np.full((N_FRAMES, 4), 1.0)
    error[20, [NOSE, TAIL]] = 30.0, 12.0
    labelled = np.zeros((N_FRAMES, 4), bool)
    labelled[LABELLED] = True
    for is_nose_labelled, keypoints in ((True, (TAIL,)), (False, (NOSE, TAIL))):
        labelled[20, [NOSE, TAIL]] = is_nose_labelled, False
        given = Track(LABELLED, clean_points()[LABELLED], visibility=2 * labelled[LABELLED])
        scores = np.full((N_FRAMES, 4), 0.9)
        track = Track(
            np.arange(N_FRAMES),
            clean_points(),
            labelled=labelled,
            keypoint_scores=scores,
            expected_error=error,
        )
        found = only(check({0: track}, {0: given}))
        assert (found.frame, found.keypoints) == (20, keypoints)
    # A frame that is labelled as a whole is not suggested.
    assert judge(expected_error=error) == []


def test_jumps() -> None:
    points = clean_points()
    points[45, RIGHT] += (9, 0)  # off the line by 9 pixels: no other test sees so little
    found = only(judge(points))
    assert (found.frame, found.keypoints) == (45, (RIGHT,))
    assert "right_hand jumps: 9 pixels off" in found.reasons[0] and "usually less than 1" in found.reasons[0]


def test_a_jump_onto_a_label_shows_beside_it() -> None:
    points = clean_points()
    points[31:40, RIGHT] += np.linspace(0, 14, 9)[:, None] * (1, 0)  # drifts, and 40 is a label
    found = only(judge(points))
    assert found.frame == 39 and "right_hand jumps" in found.reasons[0]
    # Across a gap there is no speed to judge by.
    assert judge(frames=np.r_[0:20, 40:N_FRAMES], points=clean_points() + 0.0) == []


@pytest.mark.parametrize(("share", "length"), [(1.5, 150), (0.4, 40)])
def test_limbs_unlike_the_labelled_ones(share: float, length: int) -> None:
    points = clean_points()
    bump = np.cos(np.pi * np.clip((np.arange(N_FRAMES) - 30) / 10, -1, 1)) / 2 + 0.5
    points[:, TAIL, 1] = points[:, NOSE, 1] + 100 * (1 + (share - 1) * bump)
    worst = judge(points, labelled=np.arange(0, N_FRAMES, 20))[0]
    assert worst.frame == 30 and set(worst.keypoints) == {NOSE, TAIL}
    assert worst.reasons == (f"nose to tail is {length} pixels long, but 100 to 100 where it is labelled.",)


def test_left_and_right_that_meet() -> None:
    points = clean_points()
    near = 1 - np.exp(-((np.arange(N_FRAMES) - 35) ** 2) / 18)
    middle = points[:, [LEFT, RIGHT]].mean(1, keepdims=True)
    points[:, [LEFT, RIGHT]] = middle + (points[:, [LEFT, RIGHT]] - middle) * near[:, None, None]
    points[LABELLED] = clean_points()[LABELLED]
    found = next(s for s in judge(points) if s.frame == 35)
    assert set(found.keypoints) == {LEFT, RIGHT}
    reason = "left_hand and right_hand come within 0 pixels of each other: they may have changed places."
    assert reason in found.reasons


def test_far_from_labels() -> None:
    last = judge(labelled=np.arange(0, 31, 10))
    assert last[0].frame == 60 and last[0].keypoints == ()
    assert last[0].reasons == ("30 frames after this track's last label, and none follows.",)
    assert all(s.frame > 38 for s in last)
    assert judge(labelled=np.array([30, 40, 50]))[0].reasons == (
        "30 frames before this track's first label, and none comes earlier.",
    )
    between = judge(labelled=np.array([0, 5, 10, 15, 55, 60]))
    assert between[0].frame == 35
    assert between[0].reasons == ("20 frames from the nearest label; labels are usually 5 frames apart.",)
    one = judge(labelled=np.array([20]))
    assert one[0].frame == 60 and "last label" in one[0].reasons[0]


def test_outside_of_the_image() -> None:
    points = clean_points() - np.array([0, 104])
    points[LABELLED] = clean_points()[LABELLED]
    reasons = [r for s in judge(points) for r in s.reasons if "outside" in r]
    assert reasons and "nose" in reasons[0]
    # A pixel reaches half a pixel beyond its centre.
    edge = clean_points() + np.array([SIZE[1] - 0.5 - clean_points()[..., 0].max(), 0])
    assert not [r for s in judge(edge) for r in s.reasons if "outside" in r]


def test_tracks_on_top_of_each_other() -> None:
    scores = np.full((N_FRAMES, 4), 0.9)
    away = np.clip(np.abs(np.arange(N_FRAMES) - 33) * 6.0, 4, None)
    other = clean_points() + np.stack([np.zeros(N_FRAMES), away], -1)[:, None]
    frames = np.arange(N_FRAMES)
    tracks = {
        2: Track(frames, clean_points(), keypoint_scores=scores),
        7: Track(frames, other, keypoint_scores=scores),
    }
    labels = {i: Track(LABELLED, t.keypoints[LABELLED]) for i, t in tracks.items()}
    found = next(s for s in check(tracks, labels) if s.frame == 33)
    assert "Lies on top of track 7, 4 pixels apart on average: the two may have become one." in found.reasons
    moved = {**tracks, 7: Track(frames, clean_points() + np.array([0, 100]), keypoint_scores=scores)}
    labels[7] = replace(labels[7], keypoints=moved[7].keypoints[LABELLED])
    assert check(moved, labels) == []


def test_reasons_on_one_frame_are_merged_and_labelled_frames_left_out() -> None:
    points, scores = clean_points(), np.full((N_FRAMES, 4), 0.9)
    points[33, RIGHT] += (15, 0)
    scores[33, RIGHT] = 0.3
    found = only(judge(points, scores))
    assert found.keypoints == (RIGHT,) and len(found.reasons) == 2
    scores[LABELLED] = 0.1
    assert only(judge(points, scores)).frame == 33


def test_suggestions_are_few_spread_and_varied() -> None:
    rng = np.random.default_rng(1)
    scores = np.full((N_FRAMES, 4), 0.9)
    scores[::2] = rng.uniform(0.2, 0.5, (len(scores[::2]), 4))
    scores[20:30, NOSE] = 0.05  # the worst, and all in one place
    found = judge(scores=scores)
    frames = np.sort([s.frame for s in found])
    assert len(found) == 8 and found[0].frame in range(20, 30)
    assert np.diff(frames).min() >= 3 and not np.isin(frames, LABELLED).any()
    assert len({s.keypoints[0] for s in found}) >= 3


def test_keypoints_that_are_not_there_and_tracks_without_labels() -> None:
    points = clean_points()
    points[:, TAIL] = np.nan
    points[20:25] = np.nan
    assert judge(points) == []
    tracks = {0: Track(np.arange(N_FRAMES), clean_points(), keypoint_scores=np.full((N_FRAMES, 4), 0.9))}
    assert check(tracks, {}) == []
    single = {0: Track(np.array([5]), points[5:6], keypoint_scores=np.full((1, 4), 0.9))}
    assert check(single, {}) == []


def test_the_size_of_a_subject() -> None:
    assert subject_size(SHAPE[None], SHAPE[None] * 9, SIZE) == 100
    assert subject_size(None, SHAPE[None] * 2, SIZE) == 200
    assert subject_size(None, SHAPE[None, :1], SIZE) == 160
