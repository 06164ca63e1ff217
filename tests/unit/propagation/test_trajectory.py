"""The trajectory: what each kind of evidence does to it, on motion that is known exactly."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from posewarper.propagation.trajectory import Sighting, label_sighting, solve_trajectory

NAN = np.nan
SIZE = 100.0
VELOCITY = np.array([2.0, -1.0])
START = np.array([[10.0, 20.0], [70.0, 90.0]])


def truth(t, k=2) -> np.ndarray:
    return START[None, :k] + np.arange(t)[:, None, None] * VELOCITY


def exact(points):
    """Read the motion: the same everywhere."""
    step = np.broadcast_to(VELOCITY, points[1:].shape)
    return step, step


def labels_on(points, rows, visibility=2) -> Sighting:
    shown = np.zeros(points.shape[:2], np.uint8)
    shown[list(rows)] = visibility
    return label_sighting(points, shown, np.full(len(points), SIZE))


def solve(start, labels, sightings=(), steps=exact, size=SIZE):
    return solve_trajectory(start, labels, sightings, steps, np.full(len(start), size))


def sighted(points, share=0.02) -> Sighting:
    return Sighting(points, np.full(points.shape[:2], share * SIZE))


def test_label_sighting():
    keypoints = np.arange(12.0).reshape(2, 3, 2)
    sighting = label_sighting(keypoints, np.array([[2, 1, 0], [0, 2, 1]]), np.array([100.0, 10.0]))
    assert_array_equal(np.isnan(sighting.points).all(-1), [[0, 0, 1], [1, 0, 0]])
    assert_array_equal(sighting.points[0, :2], keypoints[0, :2])
    assert sighting.sigma[0, 0] < sighting.sigma[0, 1]
    assert_allclose(sighting.sigma[0, 0], sighting.sigma[1, 1] * 10)


@pytest.mark.parametrize("row", [0, 7, 11])
def test_exact_flow_and_one_label_reproduce_the_motion(row):
    points = truth(12)
    label = np.repeat(points[row : row + 1], 12, 0)  # the first guess: the label stays where it is
    result = solve(label, labels_on(points, [row]))
    assert_allclose(result.points, points, atol=0.01)
    assert result.sigma.shape == (12, 2)


def test_the_motion_is_read_where_the_trajectory_goes():
    # Everything turns about a centre, so the motion differs from place to place, and the guess starts wrong.
    centre, angle = np.array([50.0, 60.0]), np.deg2rad(6)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

    def steps(points):
        after = (points[:-1] - centre) @ turn.T + centre
        before = (points[1:] - centre) @ turn + centre
        return after - points[:-1], points[1:] - before

    points = np.stack([(START - centre) @ np.linalg.matrix_power(turn.T, n) + centre for n in range(10)])
    result = solve(np.repeat(points[:1], 10, 0), labels_on(points, [0]), steps=steps)
    assert_allclose(result.points[0], points[0], atol=0.01)
    # The weak wish for a steady velocity cuts the curve a little.
    assert np.linalg.norm(result.points - points, axis=-1).max() < 1.0
    between = solve(np.repeat(points[:1], 10, 0), labels_on(points, [0, 9]), steps=steps)
    assert np.linalg.norm(between.points - points, axis=-1).max() < 0.3


def test_labels_are_hard():
    points = truth(11)
    points[5] += 8  # off the motion, and against what is seen
    result = solve(truth(11), labels_on(points, [0, 5, 10]), [sighted(truth(11))])
    assert_allclose(result.points[[0, 5, 10]], points[[0, 5, 10]], atol=0.03)


def test_hidden_labels_are_loose():
    points = truth(11)
    points[5] += 8
    visible = solve(truth(11), labels_on(points, [0, 5, 10]))
    labels = labels_on(points, [0, 10])
    hidden = labels_on(points, [5], visibility=1)
    both = Sighting(
        np.where(np.isfinite(hidden.points), hidden.points, labels.points),
        np.where(np.isfinite(hidden.points).all(-1), hidden.sigma, labels.sigma),
    )
    loose = solve(truth(11), both)
    assert np.abs(visible.points[5] - points[5]).max() < 0.03
    assert (np.abs(loose.points[5] - truth(11)[5]) < np.abs(loose.points[5] - points[5])).all()
    assert (loose.points[5] > truth(11)[5]).all()  # but they do draw
    alone = solve(truth(11), labels_on(truth(11) + 3, [5], visibility=1))
    assert_allclose(alone.points, truth(11) + 3, atol=0.1)  # and rule where nothing else is known


def test_an_outlier_among_sightings_is_ignored():
    points, seen = truth(15), truth(15)
    seen[7] += 60
    clean = solve(points, labels_on(points, [0, 14]), [sighted(points)])
    result = solve(points, labels_on(points, [0, 14]), [sighted(seen)])
    assert np.abs(result.points - clean.points).max() < 0.5
    # Also where a single label is all there is besides, and the outlier is taken to be sure.
    share = np.full(points.shape[:2], 0.02 * SIZE)
    share[7] /= 4
    result = solve(points, labels_on(points, [0]), [Sighting(seen, share)])
    assert np.abs(result.points - points).max() < 0.5


def test_sightings_hold_a_flow_that_drifts():
    def drifting(points):
        step = np.broadcast_to(VELOCITY + 0.3, points[1:].shape)
        return step, step

    points = truth(21)
    without = solve(points, labels_on(points, [0]), steps=drifting)
    within = solve(points, labels_on(points, [0]), [sighted(points)], steps=drifting)
    assert np.abs(without.points - points)[-1].min() > 5
    assert np.abs(within.points - points).max() < 0.5 * np.abs(without.points - points).max()
    sure = solve(points, labels_on(points, [0]), [sighted(points, 0.002)], steps=drifting)
    assert np.abs(sure.points - points).max() < np.abs(within.points - points).max()
    # A label at either end spreads the drift over all frames: the middle is right.
    ends = solve(points, labels_on(points, [0, 20]), steps=drifting)
    assert np.abs(ends.points - points)[10].max() < 1.0


def test_a_lost_flow_gives_way_where_its_two_directions_disagree():
    points = truth(13)

    def lost(guess):
        forward, backward = (np.array(step) for step in exact(guess))
        forward[6] += (30, -20)
        backward[6] -= (5, 25)
        return forward, backward

    result = solve(points, labels_on(points, [0, 12]), steps=lost)
    assert np.abs(result.points - points).max() < 0.5
    one = solve(points, labels_on(points, [0]), [sighted(points)], steps=lost)
    assert np.abs(one.points - points).max() < 1.0


def test_what_the_flow_misses_falls_where_its_two_directions_disagree():
    points = truth(13)
    points[7:] += 3  # a jump that the flow does not show, but between its two directions

    def unsure(guess):
        forward, backward = (np.array(step) for step in exact(guess))
        forward[6] += 2
        backward[6] -= 2
        return forward, backward

    result = solve(truth(13), labels_on(points, [0, 12]), steps=unsure)
    assert np.abs(result.points - points).max() < 0.5
    spread = solve(truth(13), labels_on(points, [0, 12]))
    assert np.abs(spread.points - points).max() > 1  # where all steps are equally sure, all take their share


def test_motion_that_is_unknown_is_bridged():
    points = truth(9)

    def blind(guess):
        forward, backward = (np.array(step) for step in exact(guess))
        forward[3:5] = NAN
        return forward, backward

    result = solve(points, labels_on(points, [0, 8]), steps=blind)
    assert_allclose(result.points, points, atol=0.1)


def test_keypoints_about_which_nothing_is_known_stay_nan():
    points = truth(6)
    start = points.copy()
    start[:, 1] = NAN
    asked = []

    def steps(guess):
        asked.append(guess.copy())
        return exact(guess)

    result = solve(start, labels_on(points, [0]), [sighted(points)], steps=steps)
    assert np.isnan(result.points[:, 1]).all() and np.isnan(result.sigma[:, 1]).all()
    assert_allclose(result.points[:, 0], points[:, 0], atol=0.01)
    assert all(np.isnan(guess[:, 1]).all() and np.isfinite(guess[:, 0]).all() for guess in asked)
    nothing = solve(np.full_like(points, NAN), labels_on(points, [0]))
    assert np.isnan(nothing.points).all() and np.isnan(nothing.sigma).all()


def test_gaps_in_the_first_guess_are_filled():
    points = truth(8)
    start = points.copy()
    start[[0, 3, 4, 7], 0] = NAN
    kept = start.copy()
    result = solve(start, labels_on(points, [2]))
    assert_allclose(result.points, points, atol=0.01)
    assert_array_equal(start, kept)  # what is given is left alone


@pytest.mark.parametrize("t", [1, 2, 3])
def test_short_stretches(t):
    points = truth(t)
    for rows in ([0], [t - 1], [0, t - 1]):
        result = solve(points + 1, labels_on(points, rows))
        assert result.points.shape == (t, 2, 2) and np.isfinite(result.sigma).all()
        assert_allclose(result.points, points, atol=0.03)
    seen = solve(points, labels_on(points, []), [sighted(points + 2)])
    assert_allclose(seen.points, points + 2, atol=0.1)
    assert_allclose(solve(points, labels_on(points, [])).points, points, atol=0.1)


def test_doubt_is_a_standard_deviation_in_pixels():
    points = truth(1)
    label = labels_on(points, [0], visibility=1)
    assert_allclose(solve(points, label).sigma, label.sigma, rtol=1e-3)
    first, second = Sighting(points, np.full((1, 2), 3.0)), Sighting(points, np.full((1, 2), 4.0))
    both = solve(points, labels_on(points, []), [first, second])
    assert_allclose(both.sigma, 3 * 4 / 5, rtol=1e-3)  # weights, the inverse squares, add up


def test_a_keypoint_without_a_label_in_the_stretch():
    points = truth(10)
    labels = labels_on(points, [0, 9])
    labels.points[:, 1] = NAN
    guess = points.copy()
    guess[:, 1] += 1.0
    alone = solve(guess, labels)
    assert_allclose(alone.points[:, 0], points[:, 0], atol=0.01)
    assert_allclose(alone.points[:, 1], guess[:, 1], atol=0.2)  # stays where it was taken to be
    assert (alone.sigma[:, 1] > 10 * alone.sigma[:, 0].max()).all()
    seen = solve(guess, labels, [sighted(points)])
    assert_allclose(seen.points[:, 1], points[:, 1], atol=0.1)
    assert (seen.sigma[:, 1] < alone.sigma[:, 1]).all()


def test_doubt_grows_with_the_distance_to_labels():
    points = truth(21)
    one = solve(points, labels_on(points, [5])).sigma
    assert (one.argmin(0) == 5).all()
    assert (np.diff(one[5:], axis=0) > 0).all() and (np.diff(one[:6], axis=0) < 0).all()
    both = solve(points, labels_on(points, [0, 20])).sigma
    assert (both.argmax(0) == 10).all() and (
        both[1:-1] < solve(points, labels_on(points, [0])).sigma[1:-1]
    ).all()
    assert_allclose(both, both[::-1], rtol=1e-6)
    # A hidden label leaves more doubt than a visible one, and sightings lessen it.
    assert (solve(points, labels_on(points, [5], visibility=1)).sigma > one).all()
    assert (solve(points, labels_on(points, [5]), [sighted(points)]).sigma < one)[6:].all()


def test_everything_scales_with_the_subject():
    rng = np.random.default_rng(0)
    points, noise = truth(9), rng.normal(0, 2, (9, 2, 2))

    def scaled(factor):
        shown = np.zeros((9, 2), np.uint8)
        shown[[0, 8]] = 2, 1
        sizes = np.full(9, SIZE * factor)
        seen = Sighting((points + noise) * factor, np.full((9, 2), 2.0 * factor))

        def steps(guess):
            step = np.broadcast_to(VELOCITY * factor, guess[1:].shape)
            return step + 0.2 * factor, step

        return solve_trajectory(
            points * factor, label_sighting(points * factor, shown, sizes), [seen], steps, sizes
        )

    small, large = scaled(1.0), scaled(7.5)
    assert_allclose(large.points, small.points * 7.5)
    assert_allclose(large.sigma, small.sigma * 7.5)


def test_keypoints_do_not_disturb_each_other_nor_x_and_y():
    rng = np.random.default_rng(1)
    points = truth(8)
    seen = sighted(points + rng.normal(0, 1, points.shape))
    both = solve(points, labels_on(points, [0]), [seen])
    first = solve(
        points[:, :1], labels_on(points[:, :1], [0]), [Sighting(seen.points[:, :1], seen.sigma[:, :1])]
    )
    assert_allclose(first.points[:, 0], both.points[:, 0])

    def turned(guess):
        forward, backward = exact(guess[..., ::-1])
        return forward[..., ::-1], backward[..., ::-1]

    labels = labels_on(points, [0])
    swapped = solve(
        points[..., ::-1].copy(),
        Sighting(labels.points[..., ::-1], labels.sigma),
        [Sighting(seen.points[..., ::-1], seen.sigma)],
        steps=turned,
    )
    assert_allclose(swapped.points[..., ::-1], both.points)


def test_a_guide_draws_the_trajectory_and_is_no_evidence():
    points = truth(12)
    aside = sighted(points + np.array([8.0, 0]))

    def unknown(points):
        return np.full((2, *points[1:].shape), NAN)

    labels = labels_on(points, [0])
    free = solve_trajectory(points, labels, [], unknown, np.full(12, SIZE))
    drawn = solve_trajectory(points, labels, [], unknown, np.full(12, SIZE), guide=aside)
    assert_allclose(drawn.points[4:], aside.points[4:], atol=0.5)
    assert_allclose(drawn.sigma, free.sigma)
    seen = solve_trajectory(points, labels, [aside], unknown, np.full(12, SIZE))
    assert (seen.sigma[4:] < 0.1 * free.sigma[4:]).all()
