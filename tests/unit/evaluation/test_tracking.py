from __future__ import annotations

import numpy as np
import pytest

from posewarper.evaluation.posetrack import TrackedFrame, count_events

NAN = np.nan


def frame(objects, tracks, distances) -> TrackedFrame:
    """A frame of one point, which everybody has."""
    distances = np.array(distances, float).reshape(len(objects), len(tracks), 1)
    every = np.ones((len(objects), 1), bool), np.ones((len(tracks), 1), bool)
    return TrackedFrame(np.array(objects, int), np.array(tracks, int), *every, distances)


def counts_of(*frames) -> tuple[int, ...]:
    counts = count_events(frames, 1)
    names = ("misses", "switches", "false_positives", "objects", "detections")
    return tuple(int(getattr(counts, name)[0]) for name in names)


def test_an_object_keeps_its_track_though_another_is_nearer() -> None:
    first = frame([7], [40], [[0.4]])
    second = frame([7], [50, 40], [[0.1, 0.5]])
    counts = count_events([first, second], 1)
    assert counts_of(first, second) == (0, 0, 1, 2, 2)
    assert counts.distance[0] == pytest.approx(0.9)


def test_an_object_remembers_its_track_over_frames_without_it() -> None:
    first, without = frame([7], [40], [[0.4]]), frame([7], [60], [[NAN]])
    again = frame([7], [50, 40], [[0.1, 0.5]])
    assert counts_of(first, without, again) == (1, 0, 2, 3, 2)


def test_another_track_than_before_is_a_switch() -> None:
    first, second = frame([7], [40], [[0.4]]), frame([7], [50, 40], [[0.1, NAN]])
    assert counts_of(first, second) == (0, 1, 1, 2, 2)


def test_two_objects_that_remember_the_same_track_do_not_share_it() -> None:
    # Object 1 has track 9, then is gone while object 2 takes the track; both come back.
    frames = (
        frame([1], [9], [[0.1]]),
        frame([2], [9], [[0.1]]),
        frame([2, 1], [9, 8], [[0.3, NAN], [0.2, 0.4]]),
    )
    # Object 2 stands first and keeps track 9; object 1 gets 8, a switch.
    assert counts_of(*frames) == (0, 1, 0, 4, 4)


def test_what_is_left_is_assigned_at_the_least_total_distance() -> None:
    # The nearest pair (0.1) would leave the others apart by 0.5; 0.2 + 0.2 is less.
    counts = count_events([frame([1, 2], [8, 9], [[0.1, 0.2], [0.2, 0.5]])], 1)
    assert counts.distance[0] == pytest.approx(0.4) and counts.detections[0] == 2


def test_nobody_at_all() -> None:
    assert counts_of(frame([], [], np.zeros((0, 0)))) == (0, 0, 0, 0, 0)
    assert counts_of(frame([], [3], np.zeros((0, 1)))) == (0, 0, 1, 0, 0)
    assert counts_of(frame([3], [], np.zeros((1, 0)))) == (1, 0, 0, 1, 0)
    assert count_events([], 2).misses.tolist() == [0, 0]


def random_frames(seed: int, n: int = 30, n_points: int = 2) -> list[TrackedFrame]:
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(n):
        g, p = rng.integers(0, 5, 2)
        labelled, predicted = rng.random((g, n_points)) < 0.8, rng.random((p, n_points)) < 0.8
        distances = rng.random((g, p, n_points))
        distances[(distances > 0.5) | ~labelled[:, None] | ~predicted[None]] = NAN
        frames.append(
            TrackedFrame(rng.permutation(6)[:g], rng.permutation(7)[:p], labelled, predicted, distances)
        )
    return frames


@pytest.mark.parametrize("seed", range(3))
def test_events_are_those_of_motmetrics(seed: int) -> None:
    motmetrics = pytest.importorskip("motmetrics")
    names = ["num_misses", "num_switches", "num_false_positives", "num_objects", "num_detections"]
    frames = random_frames(seed)
    counts = count_events(frames, 2)
    for k in range(2):
        accumulator = motmetrics.MOTAccumulator(auto_id=True)
        for f in frames:
            g, p = np.flatnonzero(f.labelled[:, k]), np.flatnonzero(f.predicted[:, k])
            accumulator.update(f.objects[g], f.tracks[p], f.distances[np.ix_(g, p, [k])][..., 0])
        theirs = motmetrics.metrics.create().compute(accumulator, metrics=names, return_dataframe=False)
        ours = {name: int(getattr(counts, name.removeprefix("num_"))[k]) for name in names}
        assert ours == {name: int(theirs[name]) for name in names}
        events = accumulator.mot_events
        matches = events[events.Type.isin(["MATCH", "SWITCH"])]
        assert counts.distance[k] == pytest.approx(matches.D.sum())
    assert counts.switches.sum() > 5  # or the comparison would say little
