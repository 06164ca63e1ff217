"""Made-up sightings of a crowd: who is found, how far off, and that their order says nothing."""

from __future__ import annotations

import numpy as np

from posewarper.demo.crowd import stage_crowd
from posewarper.demo.posetrack_tree import NOBODY, sight_crowd

CROWD = stage_crowd(4, (240, 320), seed=3)
TIMES = np.arange(60.0)


def test_without_faults_everybody_in_sight_is_where_they_are() -> None:
    near = []
    for truth, found in sight_crowd(CROWD, TIMES, noise=0.0, missed=0.0, invented=0.0):
        assert set(found.people.tolist()) <= set(truth.tracks.tolist())
        assert len(set(found.people.tolist())) == len(found.people)
        for person, keypoints, scores in zip(
            found.people, found.keypoints, found.keypoint_scores, strict=True
        ):
            true = truth.keypoints[truth.tracks.tolist().index(person)]
            there = np.isfinite(true).all(-1)
            assert (np.isfinite(keypoints).all(-1) == there).all() and (scores[~there] == 0).all()
            seen = scores > 0.5  # the hidden have less
            near.append(np.linalg.norm(keypoints - true, axis=-1)[seen] < 1e-9)
    assert 0.93 < np.concatenate(near).mean() < 0.99  # all but the strays


def test_people_are_hidden_missed_and_invented() -> None:
    clean = [f for _, f in sight_crowd(CROWD, TIMES, missed=0.0, invented=0.0)]
    hidden = [set(range(4)) - set(f.people.tolist()) for f in clean]
    assert 0 < sum(map(len, hidden)) < 0.5 * 4 * len(TIMES)
    assert all(3 not in h for h in hidden)  # nobody stands before the last one
    faulty = [f for _, f in sight_crowd(CROWD, TIMES, missed=0.3, invented=0.5)]
    found = sum(int((f.people != NOBODY).sum()) for f in faulty) / sum(len(f.people) for f in clean)
    assert 0.6 < found < 0.8
    assert 0.3 < np.mean([NOBODY in f.people for f in faulty]) < 0.7


def test_the_order_says_nothing_and_the_seed_all() -> None:
    first, again, other = (list(sight_crowd(CROWD, TIMES, seed=seed)) for seed in (1, 1, 2))
    for (_, a), (_, b) in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.keypoints, b.keypoints)
        np.testing.assert_array_equal(a.people, b.people)
    assert any(len(a.scores) != len(b.scores) for (_, a), (_, b) in zip(first, other, strict=True))
    fronts = [int(f.people[0]) for _, f in first if len(f.people)]
    assert len(set(fronts)) >= 4


def test_nobody_in_sight() -> None:
    (_, found), *_ = sight_crowd(CROWD, TIMES, missed=1.0, invented=0.0)
    assert found.keypoints.shape == (0, 17, 2) and found.people.dtype == np.int64
