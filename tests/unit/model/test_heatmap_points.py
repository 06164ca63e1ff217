"""Keypoints of crops to heatmaps and back, by the targets that a model was trained on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from posewarper.geometry import paper_crop_transform, paper_points_to_image
from posewarper.heatmaps import paper_decode, paper_encode
from posewarper.model.heatmap_runner import InstanceCrops
from posewarper.model.network import ModelSpec
from posewarper.skeletons import Skeleton

SPEC = ModelSpec("hrnet_w18_small", Skeleton(("head", "left", "right")), (64, 96), sigma=2.0)
CENTERS = np.array([[50.0, 40.0], [20.3, 60.8]], np.float32)
SCALES = np.array([[0.6, 0.4], [0.3, 0.2]], np.float32)  # 120 x 80 and 60 x 40 pixels


def some_points():
    points = CENTERS[:, None] + np.random.default_rng(0).uniform(-0.3, 0.3, (2, 3, 2)) * SCALES[:, None] * 200
    points[0, 1] = np.nan
    return points


def test_exact_targets_come_back_exactly():
    points, spec = some_points(), replace(SPEC, targets="exact")
    maps = InstanceCrops(spec, CENTERS, SCALES).draw(points)
    assert maps.shape == (2, 3, 16, 24) and not maps[0, 1].any()
    found, scores = InstanceCrops(spec, CENTERS, SCALES).find(maps)
    there = np.isfinite(points)
    # A pixel of the heatmap is five and two and a half pixels of the image wide.
    np.testing.assert_allclose(found[there], points[there], atol=0.05)
    assert (scores[there[..., 0]] > 0.85).all() and scores[0, 1] == 0


def test_the_paper_s_are_the_paper_s():
    points = some_points()
    maps = InstanceCrops(SPEC, CENTERS, SCALES).draw(points)
    found, scores = InstanceCrops(SPEC, CENTERS, SCALES).find(maps)
    for n in range(2):
        own = paper_crop_transform(CENTERS[n], SCALES[n], 0.0, (96, 64)).to_crop(points[n])
        there = np.isfinite(own).all(axis=1)
        np.testing.assert_array_equal(maps[n], paper_encode(own, there, (96, 64), (24, 16), 2)[0])
        expected, heights = paper_decode(maps[n][None])
        image = paper_points_to_image(expected[0], CENTERS[n], SCALES[n], (24, 16))
        np.testing.assert_allclose(found[n], image, rtol=1e-6)
        np.testing.assert_array_equal(scores[n], heights[0])
    away = np.abs(found - points)[np.isfinite(points)]
    assert 0.5 < away.max() < 5.5  # rounded to whole pixels of the heatmap


@pytest.mark.parametrize("targets", ["paper", "exact"])
def test_the_kind_of_targets_is_kept(targets):
    spec = replace(SPEC, targets=targets)
    assert ModelSpec.from_dict(spec.to_dict()) == spec


def test_checkpoints_that_do_not_tell_are_the_paper_s():
    values = replace(SPEC, targets="exact").to_dict()
    del values["targets"]
    assert ModelSpec.from_dict(values).targets == "paper"
