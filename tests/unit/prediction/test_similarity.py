"""How alike poses are: by what both show, and by boxes."""

from __future__ import annotations

import math

import numpy as np

from posewarper.evaluation.oks import similarity
from posewarper.prediction.tracker import box_overlap, confident, shared_similarity


def test_the_mean_goes_over_what_both_have() -> None:
    first = np.array([[[10.0, 20.0], [30.0, 40.0], [np.nan, np.nan]]])
    second = np.array([[[13.0, 16.0], [np.nan, np.nan], [5.0, 5.0]], [[10.0, 20.0], [30.0, 46.0], [0, 0]]])
    boxes = np.array([[0.0, 0, 20, 50]]), np.array([[0.0, 0, 30, 20], [0.0, 0, 20, 50]])
    sigmas = np.array([0.1, 0.05, 0.2])
    alike, shared = shared_similarity(first, boxes[0], second, boxes[1], sigmas)
    assert shared.tolist() == [[1, 2]]
    # Areas: the mean of 1000 and 600, then 1000. Distances 5, then 0 and 6.
    expected = [math.exp(-25 / (2 * 800 * 0.2**2)), (1 + math.exp(-36 / (2 * 1000 * 0.1**2))) / 2]
    np.testing.assert_allclose(alike, [expected], rtol=1e-12)


def test_it_is_the_usual_similarity_where_nothing_is_missing() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.uniform(0, 40, (3, 5, 2)), rng.uniform(0, 40, (2, 5, 2))
    box, sigmas = np.array([0.0, 0, 30, 60]), rng.uniform(0.1, 0.4, 5)
    alike, shared = shared_similarity(first, np.tile(box, (3, 1)), second, np.tile(box, (2, 1)), sigmas)
    np.testing.assert_allclose(alike, similarity(first, np.tile(box, (3, 1)), second, sigmas), rtol=1e-12)
    assert (shared == 5).all()


def test_nobody_and_nothing() -> None:
    nobody, nothing = np.zeros((0, 2, 2)), np.full((1, 2, 2), np.nan)
    box = np.array([[0.0, 0, 4, 4]])
    alike, shared = shared_similarity(nobody, np.zeros((0, 4)), nothing, box, np.ones(2))
    assert alike.shape == shared.shape == (0, 1)
    assert shared_similarity(nothing, box, nothing, box, np.ones(2))[0].tolist() == [[0.0]]


def test_overlap_of_boxes() -> None:
    first = np.array([[0.0, 0, 10, 20], [0.0, 0, 0, 0]])
    second = np.array([[5.0, 10, 10, 20], [10.0, 0, 5, 20], [0.0, 0, 10, 20], [0.0, 0, 0, 0]])
    np.testing.assert_allclose(box_overlap(first, second), [[50 / 350, 0, 1, 0], [0, 0, 0, 0]])


def test_keypoints_that_count() -> None:
    keypoints = np.array([[[1.0, 2.0], [np.nan, np.nan], [3.0, 4.0], [5.0, 6.0]]])
    scores = np.array([[0.2, 0.9, 0.19, np.nan]])
    assert confident(keypoints, scores, 0.2).tolist() == [[True, False, False, False]]
