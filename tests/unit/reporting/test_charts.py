"""Strips and axes: every frame is in its column, and the lowest score of a column is the one that shows."""

from __future__ import annotations

import numpy as np
import pytest

from posewarper.reporting.report import (
    LEVELS,
    axis_ticks,
    level_names,
    marks,
    mean_and_lowest,
    place,
    score_strip,
)
from posewarper.structures import Track


def track(frames, scores) -> Track:
    scores = np.asarray(scores, float)
    return Track(np.asarray(frames), np.full((*scores.shape, 2), 7.0), keypoint_scores=scores)


def test_runs_of_one_level_are_one_bar() -> None:
    strip = score_strip(track([1, 2, 3, 5], [[0.9, 0.1], [0.85, 0.36], [0.4, 0.4], [0.9, 0.1]]), 7)
    assert (strip.columns, strip.rows) == (7, 2)
    assert strip.paths == (
        "M1 1.07h1v0.86h-1zM5 1.07h1v0.86h-1z",
        "M3 0.07h1v0.86h-1zM2 1.07h2v0.86h-2z",
        "",
        "",
        "M1 0.07h2v0.86h-2zM5 0.07h1v0.86h-1z",
    )


def test_levels_begin_at_their_bounds() -> None:
    scores = np.array([[0.0], *([level - 1e-9] for level in LEVELS), *([level] for level in LEVELS), [1.0]])
    strip = score_strip(track(np.arange(10), scores), 10)
    assert strip.paths[0] == "M0 0.07h2v0.86h-2z"
    assert strip.paths[1] == "M2 0.07h1v0.86h-1zM5 0.07h1v0.86h-1z"
    assert strip.paths[4] == "M8 0.07h2v0.86h-2z"
    assert level_names() == ["below 0.35", "0.35 to 0.5", "0.5 to 0.65", "0.65 to 0.8", "0.8 or more"]


def test_a_long_clip_shows_the_lowest_of_a_column() -> None:
    scores = np.full((1000, 1), 0.9)
    scores[517] = 0.1
    strip = score_strip(track(np.arange(1000), scores), 1000, 100)
    assert strip.columns == 100
    assert strip.paths[0] == "M51 0.07h1v0.86h-1z"
    assert strip.paths[4] == "M0 0.07h51v0.86h-51zM52 0.07h48v0.86h-48z"
    assert score_strip(track(np.arange(1000), scores), 1000).columns == 320
    assert score_strip(track(np.arange(1000), scores), 1000, 3).columns == 60


@pytest.mark.parametrize(
    ("n", "ticks"),
    [(1, [0]), (8, [0, 1, 2, 3, 4, 5, 6, 7]), (9, [0, 2, 4, 6, 8]), (130, [0, 20, 40, 60, 80, 100, 120])],
)
def test_ticks_are_round_and_few(n: int, ticks: list[int]) -> None:
    assert axis_ticks(n) == ticks
    assert len(axis_ticks(n * 1000 + 1)) <= 8


def test_places_are_the_middles_of_frames() -> None:
    assert [place(f, 4) for f in range(4)] == [12.5, 37.5, 62.5, 87.5]
    assert marks(np.array([0, 3]), 4) == [12.5, 87.5]
    many = marks(np.arange(5000), 5000)
    assert len(many) == 200 and many[0] == 0.25 and many[-1] == 99.75


def test_figures_leave_out_labels_and_what_is_not_there() -> None:
    poses = track([3, 4, 5], [[0.2, 0.5], [0.6, 0.5], [1.0, 0.5]])
    points = np.array(poses.keypoints)
    points[:, 1] = np.nan
    labelled = np.array([[True], [False], [False]]).repeat(2, 1)
    poses = Track(poses.frames, points, labelled=labelled, keypoint_scores=poses.keypoint_scores)
    first, second = mean_and_lowest(poses)
    assert first == (pytest.approx(0.8), 0.6, 4) and second is None
