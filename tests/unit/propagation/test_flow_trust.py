"""Optical flow beside labels that are left out: chains whose errors are known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from posewarper.motion.flow import FlowChain
from posewarper.propagation.trust import carried_sigma, measure_flow_error
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Track
from posewarper.video.track_crops import instance_boxes

NAN, SIZE, GAP = np.nan, 100.0, 10


def labels_and_chain(off: float, n: int = 40, k: int = 3) -> tuple[Labels, dict[int, FlowChain]]:
    """Labels every ten frames, and chains that arrive ``off`` deviations beside them."""
    frames = np.arange(n) * GAP
    points = np.random.default_rng(0).uniform(100, 200, (n, k, 2))
    boxes = np.tile([0.0, 0, SIZE, SIZE / 2], (n, 1))
    track = Track(frames, points, boxes=boxes)
    sizes = instance_boxes(points, boxes)[:, 2:].max(1)
    away = off * np.stack([carried_sigma(np.array(GAP), np.zeros(()), np.array(s)) for s in sizes])
    arrived = points + np.stack([away, np.zeros(n)], -1)[:, None]
    forward, backward = arrived.copy(), arrived.copy()
    forward[0], backward[-1] = NAN, NAN
    nothing = np.zeros((n, k))
    left_out = FlowChain(frames, forward, backward, nothing, nothing)
    return Labels(Skeleton(tuple("abc"[:k])), {0: track}), {
        0: FlowChain(frames, points, points, nothing, nothing, left_out)
    }


@pytest.mark.parametrize("times", [1.0, 2.0, 3.0])
def test_errors_beside_the_usual_ones_are_found(times: float) -> None:
    labels, chains = labels_and_chain(0.45 * times)
    assert_allclose(measure_flow_error(labels, chains), times, rtol=0.25)


def test_few_labels_do_not_say_much() -> None:
    few, many = (measure_flow_error(*labels_and_chain(0.9, n, 1)) for n in (2, 60))
    assert 1.0 < few < 1.2 < 1.7 < many < 2.0


def test_nothing_to_compare_is_the_usual() -> None:
    assert measure_flow_error(*labels_and_chain(2.0, 1)) == 1.0
    labels, chains = labels_and_chain(2.0)
    empty = FlowChain(
        chains[0].frames,
        *(getattr(chains[0], n) for n in ("forward", "backward")),
        *(chains[0].forward_error,) * 2,
    )
    assert measure_flow_error(labels, {0: empty}) == 1.0
    assert measure_flow_error(labels, {}) == 1.0


def test_hidden_labels_are_guesses_and_not_compared() -> None:
    labels, chains = labels_and_chain(2.0)
    track = labels.tracks[0]
    hidden = Track(
        track.frames, track.keypoints, visibility=np.ones_like(track.visibility), boxes=track.boxes
    )
    assert measure_flow_error(Labels(labels.skeleton, {0: hidden}), chains) == 1.0


def test_neither_perfect_nor_hopeless_flow_is_believed_beyond_limits() -> None:
    assert measure_flow_error(*labels_and_chain(0.01)) == 0.8
    assert measure_flow_error(*labels_and_chain(900.0)) == 100.0


def test_the_deviation_grows_with_distance_and_inconsistency() -> None:
    near, far = (carried_sigma(np.array(d), np.zeros(()), np.array(SIZE)) for d in (1.0, 10.0))
    assert 0 < near < far
    assert carried_sigma(np.array(1.0), np.array(5.0), np.array(SIZE)) > near + 3
    assert np.isinf(carried_sigma(np.array(1.0), np.array(NAN), np.array(SIZE)))
