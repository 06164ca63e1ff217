"""Paths through candidates, on motion that is known exactly."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal, assert_array_less

from posewarper.propagation import best_path
from posewarper.propagation.best_path import choose_paths, measure_limbs
from posewarper.propagation.evidence import Evidence, Peaks
from posewarper.propagation.trajectory import Sighting
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Track

NAN, SIZE = np.nan, 100.0


def still(points):
    """Read the motion: nothing moves, or nothing can be told."""
    return np.zeros_like(points[1:]), np.zeros_like(points[1:])


def following(*tracks):
    """Read the motion of the track (t, 2) that is nearest; elsewhere nothing moves."""

    def steps(points):
        forward, backward = np.zeros_like(points[1:]), np.zeros_like(points[1:])
        for row in range(len(points) - 1):
            for track in tracks:
                step = track[row + 1] - track[row]
                with np.errstate(invalid="ignore"):
                    here = np.linalg.norm(points[row] - track[row], axis=-1) < 2
                    there = np.linalg.norm(points[row + 1] - track[row + 1], axis=-1) < 2
                forward[row, here], backward[row, there] = step, step
        return forward, backward

    return steps


def peaks(*places_and_heights) -> Peaks:
    """Return peaks (t, K, n, 2) of one list of (points (t, 2), height) for each keypoint."""
    most = max(len(own) for own in places_and_heights)
    t = len(places_and_heights[0][0][0])
    points = np.full((t, len(places_and_heights), most, 2), NAN)
    heights = np.full(points.shape[:3], NAN)
    for k, own in enumerate(places_and_heights):
        for n, (place, height) in enumerate(own):
            points[:, k, n], heights[:, k, n] = place, height
    return Peaks(points, heights)


def evidence(seen: Peaks | None, k: int, t: int, **more) -> Evidence:
    nothing = np.full((t, k, 2), NAN)
    known = {"warped": None, "carried": (), "size": np.full(t, SIZE), "origin": np.zeros((t, 2))}
    known |= {"interpolated": Sighting(nothing, np.full((t, k), NAN)), "steps": still}
    known |= {"trust_in_seen": np.ones(k), "trust_in_flow": np.ones(k)}
    return Evidence(**{"anchors": nothing, "rough": nothing, "seen": seen, **known, **more})


def choose(found: Evidence, steps=still, flip=None, limbs=None):
    k = found.anchors.shape[1]
    found = replace(found, steps=steps)
    return choose_paths(found, list(range(k)) if flip is None else flip, limbs or {}, np.arange(k))


def line(t, x, y, vx=0.0, vy=0.0):
    return np.stack([x + vx * np.arange(t), y + vy * np.arange(t)], axis=1)


def test_the_only_peak_is_the_path() -> None:
    place = line(6, 10, 20, vx=1)
    assert_allclose(choose(evidence(peaks([(place, 0.9)]), 1, 6))[:, 0], place)


def test_a_peak_that_is_higher_for_a_moment_far_away_is_left_out() -> None:
    place, other = line(9, 10, 20, vx=1), line(9, 80, 90)
    heights = np.full(9, 0.2)
    heights[4:6] = 0.9
    path = choose(evidence(peaks([(place, 0.5), (other, heights)]), 1, 9))
    assert_allclose(path[:, 0], place)


def test_a_label_is_its_frame_s_only_place_and_decides_for_its_neighbours() -> None:
    place, other = line(5, 10, 20), line(5, 60, 20)
    anchors = np.full((5, 1, 2), NAN)
    anchors[2, 0] = (61.5, 21)
    path = choose(evidence(peaks([(place, 0.6), (other, 0.5)]), 1, 5, anchors=anchors))[:, 0]
    assert_array_equal(path[2], (61.5, 21))
    assert_allclose(path[[0, 1, 3, 4]], other[[0, 1, 3, 4]])


def crossing(t=15):
    """Two feet that cross on frame 7: one moves, the other stands."""
    return line(t, 10, 50, vx=10), line(t, 80, 50.5)


def test_left_and_right_keep_their_sides_where_limbs_cross_though_the_heatmaps_say_otherwise() -> None:
    moving, standing = crossing()
    after = np.arange(15) > 7
    # Behind the crossing the network takes each foot for the other.
    left = peaks([(moving, np.where(after, 0.7, 0.8)), (standing, np.where(after, 0.8, 0.7))]).points
    high, low = np.where(after, 0.7, 0.8), np.where(after, 0.8, 0.7)
    seen = Peaks(
        np.concatenate([left, left], axis=1),
        np.stack([np.stack([high, low], 1), np.stack([low, high], 1)], 1),
    )
    anchors = np.full((15, 2, 2), NAN)
    anchors[0, 0], anchors[0, 1] = moving[0], standing[0]
    path = choose(evidence(seen, 2, 15, anchors=anchors), following(moving, standing), flip=[1, 0])
    away = np.linalg.norm(path - np.stack([moving, standing], 1), axis=-1)
    # At the crossing itself either candidate will do.
    assert away[[*range(6), *range(9, 15)]].max() < 1e-6


def test_left_and_right_are_not_both_put_on_the_surer_limb() -> None:
    one, other = line(12, 20, 50), line(12, 60, 50)
    seen = peaks([(one, 0.9), (other, 0.6)], [(one, 0.8), (other, 0.6)])
    path = choose(evidence(seen, 2, 12), flip=[1, 0])
    assert_allclose(path[:, 0], one)
    assert_allclose(path[:, 1], other)


@pytest.mark.parametrize("mirrored", [1.0, 0.9])
def test_a_limb_that_one_heatmap_shows_does_not_hold_both_sides(mirrored, monkeypatch) -> None:
    """Flow has carried both labels to one limb; each heatmap shows another limb, right or exchanged."""
    monkeypatch.setattr(best_path, "_TOGETHER_COST_SEEN", 0.0)
    one, other = line(12, 20, 50), line(12, 60, 50)
    carried = Sighting(np.stack([one, one], 1), np.full((12, 2), 1.0))
    for maps in ([(one, 0.8)], [(other, 0.8)]), ([(other, 0.8)], [(one, 0.8)]):
        found = evidence(peaks(*maps), 2, 12, carried=(carried,), mirrored=mirrored)
        path = choose(found, flip=[1, 0])
        assert_allclose(sorted(path[0, :, 0]), [20, 60])
        assert_allclose(path, np.repeat(path[:1], 12, axis=0))


def test_a_limb_longer_than_any_label_is_not_believed() -> None:
    hip, near, far = line(8, 50, 20), line(8, 50, 45), line(8, 50, 95)
    seen = peaks([(hip, 0.9)], [(near, 0.5), (far, 0.7)])
    limbs = {(0, 1): 0.3, (1, 0): 0.3}
    assert_allclose(choose(evidence(seen, 2, 8))[:, 1], far)
    assert_allclose(choose(evidence(seen, 2, 8), limbs=limbs)[:, 1], near)


def test_limbs_are_the_longest_labels_both_ways_round() -> None:
    skeleton = Skeleton(("a", "b", "c", "d"), edges=((0, 1), (1, 2)))
    points = [[[0, 0], [30, 0], [NAN, NAN], [100, 0]]], [[[0, 0], [0, 50.0], [NAN, NAN], [0, 200]]]
    tracks = {n: Track([3], own) for n, own in enumerate(points)}
    # As shares of 100 and 200 pixels; nothing is known of the other.
    assert measure_limbs(Labels(skeleton, tracks)) == {(0, 1): 0.3, (1, 0): 0.3}


def test_carried_labels_are_candidates_and_the_surer_side_wins() -> None:
    before, after = line(10, 20, 20), line(10, 40, 20)
    away = np.arange(10.0)[:, None]
    sides = [
        Sighting(before[:, None], 1 + 2 * away),
        Sighting(after[:, None], 1 + 2 * away[::-1]),
    ]
    anchors = np.full((10, 1, 2), NAN)
    anchors[:3, 0], anchors[-3:, 0] = before[:3], after[-3:]
    path = choose(evidence(None, 1, 10, carried=sides, anchors=anchors))[:, 0]
    # Of the 20 pixels between them; what is less sure still has its share.
    assert path[3, 0] < 28 and path[6, 0] > 32
    assert_allclose(path[:, 1], 20)


def test_what_is_a_toss_up_without_a_network_is_averaged_and_a_network_decides() -> None:
    t = 9
    here, there = np.tile([20.0, 20.0], (t, 1)), np.tile([70.0, 20.0], (t, 1))
    carried = tuple(Sighting(place[:, None], np.full((t, 1), 2.0)) for place in (here, there))
    found = evidence(None, 1, t, carried=carried)
    assert_allclose(choose(found)[:, 0], (here + there) / 2)
    surer = replace(found, carried=(carried[0], replace(carried[1], sigma=np.full((t, 1), 4.0))))
    assert_array_less(choose(surer)[:, 0, 0], 45.0)
    assert_allclose(choose(replace(found, seen=peaks([(here, 0.6)])))[:, 0], here)


def test_flow_that_is_not_trusted_does_not_outvote_the_network() -> None:
    t = 9
    here, there = np.tile([20.0, 20.0], (t, 1)), np.tile([70.0, 20.0], (t, 1))
    seen = peaks([(here, 0.6)])
    carried = tuple(Sighting(there[:, None], np.full((t, 1), 2.0)) for _ in range(2))
    found = evidence(seen, 1, t, carried=carried)
    weak = replace(found, seen=peaks([(here, 0.3), (there, 0.2)]))
    assert_allclose(choose(weak)[:, 0], there)
    assert_allclose(choose(replace(weak, trust_in_flow=np.array([0.1])))[:, 0], here)


def test_lines_are_candidates_and_count_as_far_as_they_are_trusted() -> None:
    t = 9
    here, there = np.tile([20.0, 20.0], (t, 1)), np.tile([70.0, 20.0], (t, 1))
    carried = tuple(Sighting(there[:, None], np.full((t, 1), 2.0)) for _ in range(2))

    def beside_flow(sigma, trust) -> np.ndarray:
        lines = Sighting(here[:, None], np.full((t, 1), sigma))
        found = evidence(None, 1, t, carried=carried, interpolated=lines)
        return choose(replace(found, trust_in_flow=np.array([trust])))[:, 0]

    assert_allclose(beside_flow(1.0, 1.0), there, atol=2)
    assert_allclose(beside_flow(1.0, 0.1)[1:-1], here[1:-1], atol=2)
    assert_allclose(beside_flow(50.0, 0.3), there, atol=2)


def test_without_candidates_the_fallback_counts_and_without_that_nothing() -> None:
    rough = np.full((4, 2, 2), NAN)
    rough[:, 0] = (7, 8)
    path = choose(evidence(None, 2, 4, rough=rough))
    assert_allclose(path[:, 0], rough[:, 0])
    assert np.isnan(path[:, 1]).all()
    assert np.isnan(choose_paths(evidence(None, 2, 4, rough=rough), [0, 1], {}, np.array([1]))).all()
    alone = choose(evidence(None, 2, 1, rough=rough[:1]))
    assert_allclose(alone[0, 0], (7, 8))


@pytest.mark.parametrize("seed", range(4))
def test_dynamic_programming_finds_what_trying_everything_finds(seed, monkeypatch) -> None:
    """The same costs, summed over every pair of paths through few candidates."""
    monkeypatch.setattr(best_path, "_CANDIDATES", 3)
    rng = np.random.default_rng(seed)
    t, n = 4, 3
    both, motion = rng.uniform(0, 3, (t, n, n)), rng.uniform(0, 3, (t - 1, n, n))
    relative = rng.uniform(0, 0.2, (t, n, 2))

    def alone(path) -> float:
        cost = sum(float(motion[r, path[r], path[r + 1]]) for r in range(t - 1))
        for r in range(1, t - 1):
            cost += float(best_path._turn_costs(relative, 0.5)[r - 1][path[r - 1], path[r], path[r + 1]])
        return cost

    paths = list(product(range(n), repeat=t))
    single = {p: alone(p) for p in paths}
    costs = both[:, :, 0]
    least = min(single[p] + sum(costs[r, p[r]] for r in range(t)) for p in paths)
    chosen = best_path._cheapest(costs, motion, relative, 0.5)
    assert_allclose(single[tuple(chosen)] + costs[range(t), chosen].sum(), least)
    whole = {p: single[p] + sum(costs[r, p[r]] for r in range(t)) for p in paths}
    through = [[min(whole[p] for p in paths if p[r] == c) for c in range(n)] for r in range(t)]
    assert_allclose(best_path._costs_through(costs, motion, relative, 0.5), through)
    least = min(
        single[p] + single[q] + sum(both[r, p[r], q[r]] for r in range(t)) for p in paths for q in paths
    )
    left, right = best_path._cheapest_pair(both, motion, relative, 0.5)
    found = single[tuple(left)] + single[tuple(right)] + both[range(t), left, right].sum()
    assert_allclose(found, least)
    whole = {
        (p, q): single[p] + single[q] + sum(both[r, p[r], q[r]] for r in range(t))
        for p in paths
        for q in paths
    }
    for side, found in enumerate(best_path._costs_through_pair(both, motion, relative, 0.5)):
        for r, c in product(range(t), range(n)):
            assert_allclose(found[r, c], min(cost for two, cost in whole.items() if two[side][r] == c))


def test_costs_through_candidates_of_two_frames_need_no_change_of_velocity() -> None:
    costs, motion = np.array([[1.0, 5.0], [2.0, 0.0]]), np.array([[[0.0, 4.0], [1.0, 0.0]]])
    found = best_path._costs_through(costs, motion, np.zeros((2, 2, 2)), 0.5)
    assert_allclose(found, [[3.0, 5.0], [3.0, 5.0]])


def test_scaling_the_picture_scales_the_paths() -> None:
    moving, standing = crossing()
    seen = peaks([(moving, 0.5), (standing, 0.6)], [(standing, 0.4), (moving, 0.5)])
    found = evidence(seen, 2, 15)
    path = choose(found, following(moving, standing), flip=[1, 0])
    larger = replace(found, seen=Peaks(seen.points * 3, seen.heights), size=found.size * 3)
    scaled = choose(larger, lambda p: tuple(3 * s for s in following(moving, standing)(p / 3)), flip=[1, 0])
    assert_allclose(scaled, 3 * path)


def test_a_network_that_is_trusted_less_is_overruled_by_the_flow() -> None:
    place, wrong = line(9, 10, 20), line(9, 30, 20)
    seen, carried = peaks([(wrong, 0.9)]), Sighting(place[:, None], np.full((9, 1), 1.0))
    for trust, expected in ((1.0, wrong), (0.1, place)):
        found = evidence(seen, 1, 9, carried=(carried,), trust_in_seen=np.array([trust]))
        assert_allclose(choose(found)[:, 0], expected)
