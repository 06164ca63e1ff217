"""Tracks: the rules one by one, and the official figures on crowds that cross."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from posewarper.demo.crowd import stage_crowd
from posewarper.demo.posetrack_tree import sight_crowd
from posewarper.errors import ConfigError
from posewarper.evaluation.oks import usual_sigmas
from posewarper.evaluation.posetrack import score_posetrack, total_of
from posewarper.geometry import keypoint_boxes
from posewarper.options import TrackSettings
from posewarper.prediction.tracker import Tracker
from posewarper.skeletons import POSETRACK
from posewarper.structures import NO_TRACK, InstanceTable

# A body of four keypoints, 30 wide and 80 high.
BODY = np.array([[15.0, 0.0], [0.0, 30.0], [30.0, 32.0], [12.0, 80.0]])
SIGMAS = np.full(4, 0.08)
BOX = keypoint_boxes(BODY)


def at(*places: tuple[float, float]) -> np.ndarray:
    """(n, 4, 2) bodies whose top left corners are at these places."""
    return np.array([BODY + place for place in places]).reshape(-1, 4, 2)


def show(tracker: Tracker, frame: int, keypoints: np.ndarray, **other: object) -> list[int]:
    n = len(keypoints)
    seen = {
        "keypoint_scores": np.full((n, 4), 0.9),
        "boxes": keypoint_boxes(keypoints),
        "scores": np.full(n, 0.9),
    }
    return tracker.update(frame, keypoints, **{**seen, **other}).tolist()  # type: ignore[arg-type]


def test_ids_count_from_one_and_follow_the_instance_not_its_place() -> None:
    tracker = Tracker(SIGMAS)
    assert show(tracker, 0, at((0, 0), (100, 0))) == [1, 2]
    assert show(tracker, 1, at((102, 1), (300, 0), (2, 1))) == [2, 3, 1]
    assert show(tracker, 2, at()) == []
    assert show(tracker, 5, at((3, 2), (104, 2))) == [1, 2]


def test_assignment_is_best_over_all() -> None:
    # Nearest first would give 7 to the track at 10 and leave nothing but 20, too far, to the track at 0.
    tracker = Tracker(SIGMAS, TrackSettings(smoothing=0.0))
    show(tracker, 0, at((0, 0), (10, 0)))
    assert show(tracker, 1, at((20, 0), (7, 0))) == [2, 1]


def test_motion_carries_tracks_through_each_other() -> None:
    right, left = (lambda t: (8.0 * t, 0.0)), (lambda t: (160.0 - 8.0 * t, 3.0))

    def cross(tracker: Tracker) -> list[int]:
        for t in range(8):
            assert show(tracker, t, at(right(t), left(t))) == [1, 2]
        for t in range(8, 13):  # nobody is seen while they pass each other
            show(tracker, t, at())
        return show(tracker, 13, at(left(13), right(13)))

    assert cross(Tracker(SIGMAS, TrackSettings(fading=1.0))) == [2, 1]
    assert cross(Tracker(SIGMAS, TrackSettings(smoothing=0.0))) != [2, 1]


@pytest.mark.parametrize("patience", [1, 4])
def test_an_id_outlives_patience_frames_and_is_never_used_again(patience: int) -> None:
    for missing, expected in ((patience, [1]), (patience + 1, [2])):
        tracker = Tracker(SIGMAS, TrackSettings(patience=patience))
        show(tracker, 0, at((50, 50)))
        for t in range(missing):
            assert tracker.expected_boxes(1 + t)[0].tolist() == ([1] if t <= patience else [])
            assert show(tracker, 1 + t, at()) == []
        assert show(tracker, 1 + missing, at((50, 50))) == expected


def test_the_velocity_is_smoothed_and_fades() -> None:
    tracker = Tracker(SIGMAS, TrackSettings(smoothing=0.5, fading=0.5))
    show(tracker, 0, at((0, 0)))
    assert tracker.expected_boxes(1)[1].tolist() == [[0, 0, 30, 80]]
    show(tracker, 1, at((4, 2)))  # the first step is the velocity
    np.testing.assert_allclose(tracker.expected_boxes(2)[1], [[8, 4, 30, 80]])
    show(tracker, 2, at((4, 2)))  # expected (8, 4); a step of 0, so that half of the velocity is left
    np.testing.assert_allclose(tracker.expected_boxes(3)[1], [[6, 3, 30, 80]])
    np.testing.assert_allclose(tracker.expected_boxes(5)[1], [[10, 5, 30, 80]])
    show(tracker, 3, at())  # unseen: moved on by (2, 1), and slower by half
    np.testing.assert_allclose(tracker.expected_boxes(4)[1], [[7, 3.5, 30, 80]])


def test_one_stray_keypoint_does_not_move_the_body() -> None:
    tracker = Tracker(SIGMAS)
    show(tracker, 0, at((0, 0)))
    pose = at((2, 0))
    pose[0, 2] += (60, 0)
    show(tracker, 1, pose)
    _, boxes = tracker.expected_boxes(2)
    np.testing.assert_allclose(boxes, [[4, 0, 90, 80]])  # the extent holds the stray, moved by (2, 0)


def test_hidden_keypoints_move_along_and_are_forgotten_in_time() -> None:
    tracker = Tracker(SIGMAS, TrackSettings(patience=3))
    show(tracker, 0, at((0, 0)))
    feet_gone = np.array([[0.9, 0.9, 0.9, 0.1]])
    for t in range(1, 5):
        pose = at((4.0 * t, 0))
        pose[0, 3] = (500, 500) if t == 1 else np.nan
        show(tracker, t, pose, keypoint_scores=feet_gone, boxes=BOX[None] + (4.0 * t, 0, 0, 0))
        _, boxes = tracker.expected_boxes(t + 1)
        height = 80 if t <= 3 else 32
        np.testing.assert_allclose(boxes, [[4.0 * t + 4, 0, 30, height]], atol=1e-9)


def test_what_is_low_or_missing_does_not_count() -> None:
    tracker = Tracker(SIGMAS)
    show(tracker, 0, at((0, 0)))
    pose = at((1, 0))
    pose[0, 0], pose[0, 1] = np.nan, (900, 900)
    assert show(tracker, 1, pose, keypoint_scores=np.array([[0.9, 0.1, 0.9, 0.9]]), boxes=BOX[None]) == [1]


def test_boxes_decide_where_poses_are_poor() -> None:
    tracker = Tracker(SIGMAS)
    show(tracker, 0, at((0, 0), (60, 0)))
    scores = np.full((2, 4), 0.1)
    boxes = BOX + np.array([[58.0, 0, 0, 0], [3.0, 0, 0, 0]])
    assert show(tracker, 1, at((300, 0), (300, 0)), keypoint_scores=scores, boxes=boxes) == [2, 1]


def test_poor_poses_and_low_scores_begin_no_track() -> None:
    tracker = Tracker(SIGMAS, TrackSettings(start_score=0.5, pose_score=0.3))
    poor = np.array([[0.9, 0.1, 0.1, np.nan], [0.9, 0.9, 0.9, 0.9], [0.9, 0.1, 0.1, 0.1]])
    scores = np.array([0.9, 0.4, 0.5])
    ids = show(tracker, 0, at((0, 0), (100, 0), (200, 0)), keypoint_scores=poor, scores=scores)
    assert ids == [NO_TRACK, NO_TRACK, 1]
    # A low score goes on with a track that is there.
    assert show(tracker, 1, at((200, 0)), scores=np.array([0.1])) == [1]


def test_a_track_of_poor_poses_is_dropped() -> None:
    tracker = Tracker(SIGMAS, TrackSettings(patience=4))
    show(tracker, 0, at((50, 50)))
    show(tracker, 1, at((50, 50)))
    for t in range(2, 7):
        ids, boxes = tracker.expected_boxes(t)
        assert ids.tolist() == [1]
        assert show(tracker, t, at((50, 50)), keypoint_scores=np.full((1, 4), 0.1), boxes=boxes) == [1]
    assert len(tracker.expected_boxes(7)[0]) == 0 and tracker.expected_boxes(7)[1].shape == (0, 4)
    assert show(tracker, 7, at((50, 50))) == [2]


def test_tracks_live_on_their_own_boxes() -> None:
    """A body that walks and turns stays within its padded expected box, from the first pose on."""
    tracker = Tracker(SIGMAS)
    place = np.array([40.0, 60.0])
    show(tracker, 0, at(tuple(place)))
    rng = np.random.default_rng(0)
    for t in range(1, 80):
        place += np.array([2 * np.cos(t / 8), 2 * np.sin(t / 5)])
        ids, boxes = tracker.expected_boxes(t)
        true = keypoint_boxes(BODY + place)
        reach = boxes[0, 2:] * 0.125
        assert ids.tolist() == [1]
        assert (true[:2] >= boxes[0, :2] - reach).all()
        assert (true[:2] + true[2:] <= boxes[0, :2] + boxes[0, 2:] + reach).all()
        assert show(tracker, t, at(tuple(place)) + rng.normal(0, 0.5, (1, 4, 2)), boxes=boxes) == [1]


def test_a_lone_keypoint_keeps_its_box() -> None:
    tracker = Tracker([0.1])
    ids = tracker.update(
        0, np.array([[[20.0, 30.0]]]), np.ones((1, 1)), np.array([[10.0, 20, 20, 20]]), np.ones(1)
    )
    np.testing.assert_allclose(tracker.expected_boxes(1)[1], [[10, 20, 20, 20]])
    assert ids.dtype == np.int64


def test_the_state_goes_through_json_exactly() -> None:
    crowd = stage_crowd(4, (120, 160), seed=1)
    frames = [found for _, found in sight_crowd(crowd, np.arange(40.0), seed=1)]
    sigmas = usual_sigmas(POSETRACK)

    def run(tracker: Tracker, first: int, last: int) -> list[list[int]]:
        return [
            tracker.update(t, f.keypoints, f.keypoint_scores, f.boxes, f.scores).tolist()
            for t, f in enumerate(frames[first:last], start=first)
        ]

    whole = Tracker(sigmas)
    ids = run(whole, 0, 40)
    first = Tracker(sigmas)
    start = run(first, 0, 17)
    text = json.dumps(first.state_dict(), allow_nan=False)
    second = Tracker(sigmas)
    second.load_state_dict(json.loads(text))
    assert json.dumps(second.state_dict()) == text
    assert start + run(second, 17, 40) == ids
    assert second.state_dict() == whole.state_dict()
    for mine, other in zip(second.expected_boxes(40), whole.expected_boxes(40), strict=True):
        np.testing.assert_array_equal(mine, other)
    assert Tracker(sigmas).state_dict()["frame"] is None
    with pytest.raises(ConfigError, match="number of keypoints"):
        Tracker(SIGMAS).load_state_dict(whole.state_dict())
    fresh = Tracker(SIGMAS)
    fresh.load_state_dict(json.loads(json.dumps(Tracker(SIGMAS).state_dict())))
    assert show(fresh, 0, at((0, 0))) == [1]


def test_what_was_given_stays_as_it_is() -> None:
    tracker = Tracker(SIGMAS)
    poses, boxes = at((0, 0)), BOX[None].copy()
    show(tracker, 0, poses, boxes=boxes)
    show(tracker, 1, at((5, 5)))
    assert (poses == at((0, 0))).all() and (boxes == BOX).all()
    _, expected = tracker.expected_boxes(2)
    expected += 100
    assert tracker.expected_boxes(2)[1].max() < 100


def test_frames_must_rise_and_shapes_agree() -> None:
    tracker = Tracker(SIGMAS)
    show(tracker, 3, at())
    with pytest.raises(ValueError, match="frame 3 comes after frame 3"):
        show(tracker, 3, at((0, 0)))
    with pytest.raises(ValueError, match="expected"):
        show(tracker, 4, np.zeros((1, 5, 2)))


@pytest.mark.parametrize("setting", [{"patience": 0}, {"smoothing": 1.5}, {"start_score": -0.1}])
def test_impossible_settings(setting: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting))):
        TrackSettings.read(setting)
    with pytest.raises(ConfigError, match="sigmas"):
        Tracker([0.1, 0.0])


def test_the_snippet_of_the_docs_runs() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "tracking.md").read_text(encoding="utf-8")
    snippets = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(snippets) == 1 and "assert" in snippets[0]
    exec(snippets[0], {})


# --- crowds -----------------------------------------------------------------------------------------------

_Update = Callable[[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def nearest_box() -> _Update:
    """Greedy: each instance, the nearest pairs first, goes on with a box of the last frames; no motion."""
    seen: dict[int, tuple[int, np.ndarray, float]] = {}

    def update(
        frame: int, keypoints: np.ndarray, keypoint_scores: np.ndarray, boxes: np.ndarray, scores: np.ndarray
    ) -> np.ndarray:
        ids = np.full(len(boxes), NO_TRACK)
        centres = boxes[:, :2] + boxes[:, 2:] / 2
        pairs = sorted(
            (float(np.hypot(*(centre - centres[j]))), i, j)
            for i, (last, centre, _) in seen.items()
            if frame - last <= 30
            for j in range(len(boxes))
        )
        for distance, i, j in pairs:
            if ids[j] == NO_TRACK and i not in ids and distance <= seen[i][2]:
                ids[j] = i
        for j in np.flatnonzero((ids == NO_TRACK) & (scores >= 0.5)):
            ids[j] = len(seen) + 1
            seen[len(seen) + 1] = (frame, centres[j], float(boxes[j, 3]))
        for j in np.flatnonzero(ids != NO_TRACK):
            seen[int(ids[j])] = (frame, centres[j], float(boxes[j, 3]))
        return ids

    return update


def official_figures(seed: int, updates: list[_Update]) -> list[tuple[float, float]]:
    """MOTA in percent, and a point's mean switches, of trackers that are shown the same crowd."""
    times = 1.5 * np.arange(80, dtype=np.float64)
    frames = list(sight_crowd(stage_crowd(4, (240, 320), seed), times, seed=seed))
    names, numbers = tuple(f"{n:06}.jpg" for n in range(len(times))), np.arange(len(times))
    truth = InstanceTable(
        "clip",
        names,
        numbers,
        rows=np.repeat(numbers, [len(t.tracks) for t, _ in frames]),
        keypoints=np.concatenate([t.keypoints for t, _ in frames]),
        tracks=np.concatenate([t.tracks for t, _ in frames]),
        head_boxes=np.concatenate([t.head_boxes for t, _ in frames]),
    )
    figures = []
    for update in updates:
        ids = np.concatenate(
            [update(n, f.keypoints, f.keypoint_scores, f.boxes, f.scores) for n, (_, f) in enumerate(frames)]
        )
        kept = ids != NO_TRACK
        predicted = InstanceTable(
            "clip",
            names,
            numbers,
            rows=np.repeat(numbers, [len(f.people) for _, f in frames])[kept],
            keypoints=np.concatenate([f.keypoints for _, f in frames])[kept],
            keypoint_scores=np.concatenate([f.keypoint_scores for _, f in frames])[kept],
            tracks=ids[kept],
        )
        scored = score_posetrack({"clip": truth}, {"clip": predicted}).tracking
        assert scored is not None
        figures.append((total_of(scored.mota), float(scored.counts.switches.mean())))
    return figures


def test_official_figures_on_crowds_that_cross() -> None:
    sigmas = usual_sigmas(POSETRACK)
    ways = [TrackSettings(start_score=0.5, smoothing=0.0), TrackSettings(start_score=0.5)]
    figures = np.array(
        [
            official_figures(seed, [nearest_box(), *(Tracker(sigmas, way).update for way in ways)])
            for seed in range(3)
        ]
    )
    mota, switches = figures[..., 0].mean(0), figures[..., 1].sum(0)
    assert mota[2] > mota[0] + 4 and mota[2] > mota[1]
    assert switches[2] < 0.4 * switches[0] and switches[2] < switches[1]
    assert (figures[:, 2, 0] > figures[:, 0, 0]).all()
