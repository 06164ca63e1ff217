from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from posewarper.evaluation.posetrack import score_detections
from posewarper.evaluation.scales import head_sizes, is_ignored, is_inside, match_people


def test_head_size_is_six_tenths_of_the_diagonal() -> None:
    assert head_sizes(np.array([[5.0, 7.0, 60.0, 80.0]])).tolist() == [60.0]


def test_a_point_matches_up_to_half_the_head_the_border_included() -> None:
    truth = np.array([[[0.0, 0.0], [100.0, 0.0]]])
    predicted = truth + np.array([[18.0, 24.0], [18.0, 24.1]])
    match = match_people(truth, np.array([60.0]), predicted)
    assert match.hits.tolist() == [[True, False]]
    assert match.distances[0, 0, 0] == 0.5 and np.isnan(match.distances[0, 0, 1])


def test_a_prediction_belongs_to_the_person_of_whom_it_has_the_largest_share() -> None:
    # Person 0 has four points, of which the prediction has two; person 1 has one, and the prediction has it.
    truth = np.full((2, 4, 2), np.nan)
    truth[0], truth[1, 3] = [[0, 0], [10, 0], [20, 0], [30, 0]], [500, 0]
    predicted = np.array([[[0.0, 0], [10, 0], [900, 0], [500, 0]]])
    match = match_people(truth, np.array([10.0, 10.0]), predicted)
    assert match.hits.tolist() == [[False, False, False, True]]
    # The tracking does not care who belongs to whom.
    assert np.isfinite(match.distances[0, 0]).tolist() == [True, True, False, False]


def test_a_person_keeps_its_best_prediction_and_the_first_on_a_tie() -> None:
    truth = np.array([[[0.0, 0], [50, 0]]])
    worse, good = [[0.0, 0], [90, 0]], [[1.0, 0], [51, 0]]
    hits = match_people(truth, np.array([10.0]), np.array([worse, good, good])).hits
    assert hits.tolist() == [[False, False], [True, True], [False, False]]


def test_one_side_alone_matches_nothing() -> None:
    people = np.zeros((2, 3, 2))
    nobody = np.zeros((0, 3, 2))
    assert not match_people(nobody, np.zeros(0), people).hits.any()
    assert match_people(people, np.ones(2), nobody).distances.shape == (2, 0, 3)


def test_average_precision_by_hand() -> None:
    scores, hits = np.array([0.2, 0.9, 0.5, 0.4]), np.array([True, True, False, True])
    # Ranked: right, wrong, right, right of 4; the envelope of 1, 1/2, 2/3, 3/4 is 1, 3/4, 3/4, 3/4.
    found = score_detections(scores, hits, 4)
    assert found == pytest.approx((0.25 * (1 + 0.75 + 0.75), 0.75, 0.75))


def test_average_precision_where_one_side_is_empty() -> None:
    assert score_detections(np.zeros(0), np.zeros(0, bool), 3) == (0, 0, 0)
    assert score_detections(np.zeros(0), np.zeros(0, bool), 0) == (0, 0, 0)
    nothing_to_find = score_detections(np.ones(2), np.zeros(2, bool), 0)
    assert nothing_to_find == pytest.approx((np.nan, 0.0, np.nan), nan_ok=True)


def test_inside_of_a_polygon_without_its_border() -> None:
    triangle = np.array([[0.0, 0], [8, 0], [0, 4]])
    points = np.array([[1.0, 1], [4, 2], [4, 0], [0, 0], [5, 2], [-1, 1], [3, 2], [np.nan, 1], [9, 0]])
    assert is_inside(points, triangle).tolist() == [True] + [False] * 5 + [True, False, False]
    assert is_inside(points, triangle[::-1]).tolist() == is_inside(points, triangle).tolist()
    assert not is_inside(points, triangle[:2]).any()


def test_a_polygon_with_a_dent() -> None:
    dented = np.array([[0.0, 0], [10, 0], [10, 10], [5, 2], [0, 10]])
    assert is_inside(np.array([[5.0, 1], [5, 3], [2, 3], [8, 3]]), dented).tolist() == [
        True,
        False,
        True,
        True,
    ]


def test_rounding_does_not_decide_at_the_border() -> None:
    # In decimals (0.3, 0.9) lies on the edge from (0, 0) to (1, 3); the floats lie a little to its left.
    assert Fraction(0.9) > 3 * Fraction(0.3)
    left, right = np.array([[0.0, 0], [1, 3], [0, 3]]), np.array([[0.0, 0], [1, 3], [1, 0]])
    assert is_inside(np.array([0.3, 0.9]), left) and not is_inside(np.array([0.3, 0.9]), right)


def test_points_in_any_region_are_ignored() -> None:
    regions = (np.array([[0.0, 0], [2, 0], [2, 2], [0, 2]]), np.array([[5.0, 5], [7, 5], [7, 7], [5, 7]]))
    points = np.array([[[1.0, 1], [6, 6]], [[3, 3], [2, 1]]])
    assert is_ignored(points, regions).tolist() == [[True, True], [False, False]]
