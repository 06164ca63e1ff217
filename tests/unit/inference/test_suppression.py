"""Suppression of doubles."""

from __future__ import annotations

import numpy as np

from posewarper.inference.suppression import suppress_doubles


def test_the_best_of_doubles_stays_and_what_it_removed_removes_nothing() -> None:
    # 0 and 1 are doubles, 1 and 2 too, 0 and 2 are not: 1 removes both when it is best ...
    similarity = np.array([[1, 0.9, 0.2], [0.9, 1, 0.9], [0.2, 0.9, 1]])
    np.testing.assert_array_equal(
        suppress_doubles(similarity, np.array([0.1, 0.9, 0.5]), 0.5), [False, True, False]
    )
    # ... and when it is removed itself, the third stays.
    np.testing.assert_array_equal(
        suppress_doubles(similarity, np.array([0.9, 0.5, 0.1]), 0.5), [True, False, True]
    )


def test_ties_go_to_the_first_and_the_threshold_itself_is_allowed() -> None:
    similarity = np.array([[1, 0.9], [0.9, 1]])
    np.testing.assert_array_equal(suppress_doubles(similarity, np.ones(2), 0.8), [True, False])
    np.testing.assert_array_equal(suppress_doubles(similarity, np.ones(2), 0.9), [True, True])
    assert suppress_doubles(np.zeros((0, 0)), np.zeros(0), 0.5).shape == (0,)
