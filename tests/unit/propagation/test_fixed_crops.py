"""The paper's way of propagating: nearest label, its crop, and what an untrained head makes of it."""

from __future__ import annotations

import numpy as np
import torch

from posewarper.model.heatmap_runner import HeatmapEngine
from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.propagation import methods
from posewarper.propagation.methods import warp_in_fixed_crops
from posewarper.skeletons import Skeleton
from posewarper.structures import Track


class Clip:
    """Twelve frames of noise, by index."""

    image_size = (96, 128)

    def frames(self, indices):
        for i in indices:
            yield i, np.random.default_rng(i).integers(0, 255, (96, 128, 3), np.uint8)


def test_an_untrained_head_copies_the_nearest_label_and_nothing_moves_with_the_frame(monkeypatch) -> None:
    torch.manual_seed(0)
    spec = ModelSpec("hrnet_w18_small", Skeleton(("a", "b", "c")), (64, 64), 2.0, head_width=8, head_blocks=1)
    model = PoseWarper(spec).eval()
    keypoints = np.array([[[30.0, 20], [60, 40], [45, 70]], [[70.0, 30], [90, 60], [80, 80]]])
    visibility = np.array([[2, 2, 2], [2, 0, 2]])
    absent = Track(np.array([2, 8]), keypoints, visibility=visibility, labelled=np.ones((2, 3), bool))
    told: list[int] = []
    monkeypatch.setattr(methods, "_LONGEST", 3)  # in pieces
    network = HeatmapEngine(model, flip=True)
    points, scores = warp_in_fixed_crops(Clip(), absent, np.arange(12), network, told.append)
    # Frame 5 is as near to either label: the earlier one counts.
    expected = np.where(np.arange(12)[:, None, None] <= 5, absent.keypoints[0], absent.keypoints[1])
    missing = np.isnan(expected)
    assert np.array_equal(np.isnan(points), missing)
    assert np.abs(points - expected)[~missing].max() < 0.2
    assert (scores[6:, 1] == 0).all()
    assert sum(told) == 12
    # A keypoint that nobody has looked at on the nearer label comes from the other one.
    told.clear()
    partial = Track(np.array([2, 8]), keypoints, visibility=visibility)
    points, scores = warp_in_fixed_crops(Clip(), partial, np.arange(12), network, told.append)
    expected[6:, 1] = keypoints[0, 1]
    assert np.abs(points - expected).max() < 0.2
    assert (scores > 0).all()
    assert sum(told) == 12
