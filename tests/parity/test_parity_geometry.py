"""Boxes, matrices, crops, targets and decoding against numbers recorded from the original implementation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from largest_errors import measure, record

from posewarper.crops import crop_image, flip_keypoints, normalise
from posewarper.geometry import (
    CropTransform,
    apply_matrix,
    paper_center_scale,
    paper_crop_transform,
    paper_matrix,
    paper_points_to_image,
)
from posewarper.heatmaps import flip_heatmaps, paper_argmax, paper_decode, paper_encode
from posewarper.skeletons import POSETRACK

FACTORS = {"elbow": 1.2, "knee": 1.2, "wrist": 1.5, "ankle": 1.5}


def arrays(folder: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(folder / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


@pytest.fixture(scope="module")
def affine(parity_dir):
    return arrays(parity_dir, "affine_crop")


@pytest.fixture(scope="module")
def decoding(parity_dir):
    return arrays(parity_dir, "decode")


def test_center_and_scale(affine):
    for key in [key for key in affine if key.startswith("center_a")]:
        suffix = key.removeprefix("center_a")
        center, scale = paper_center_scale(affine["boxes_xywh"], int(suffix) / 1000)
        assert measure("affine_crop.npz", center, affine[key]) <= 1e-5
        assert measure("affine_crop.npz", scale, affine[f"scale_a{suffix}"]) <= 1e-5


def test_matrices_and_points(affine):
    for i, (center, scale) in enumerate(zip(affine["center"], affine["scale"], strict=True)):
        box = (center, scale, affine["rot"][i], affine["output_size"][i])
        forward = paper_matrix(*box)
        assert measure("affine_crop.npz", forward, affine["matrices_f64"][i]) <= 1e-9
        assert (
            measure("affine_crop.npz", paper_matrix(*box, inverse=True), affine["inverse_matrices_f64"][i])
            <= 1e-9
        )
        shifted = paper_matrix(*box, shift=affine["shift"])
        assert measure("affine_crop.npz", shifted, affine["shifted_matrices_f64"][i]) <= 1e-9
        transformed = apply_matrix(affine["points"][i], forward)
        assert measure("affine_crop.npz", transformed, affine["transformed_points_f64"][i]) <= 1e-5


def test_heatmap_points_carried_to_the_image(affine):
    for i, recorded in enumerate(affine["transform_preds_f64"]):
        box = (affine["center"][i], affine["scale"][i], affine["output_size"][i])
        assert (
            measure("affine_crop.npz", paper_points_to_image(affine["heatmap_coords"][i], *box), recorded)
            <= 1e-5
        )


def test_crops_are_equal_to_the_last_bit(affine):
    width, height = affine["crop_size"]
    for i, recorded in enumerate(affine["crops_opencv4"]):
        transform = paper_crop_transform(
            affine["crop_center"][i], affine["crop_scale"][i], affine["crop_rot"][i], (width, height)
        )
        assert measure("affine_crop.npz", transform.matrix, affine["crop_matrices_f64"][i]) <= 1e-9
        np.testing.assert_array_equal(crop_image(affine["image"], transform), recorded)
        given = CropTransform(affine["crop_matrices_f64"][i], (height, width))
        np.testing.assert_array_equal(crop_image(affine["image"], given), recorded)
    record("affine_crop.npz", 0.0, "exact")


def test_normalised_crop(affine):
    assert (
        measure("affine_crop.npz", normalise(affine["crops_opencv4"][:1])[0], affine["crop0_normalized"])
        <= 1e-6
    )


@pytest.mark.parametrize("setting", "abcde")
def test_targets(parity_dir, setting):
    every = arrays(parity_dir, "targets")
    recorded = {key[2:]: value for key, value in every.items() if key.startswith(f"{setting}_")}
    joints, visibility = recorded["joints"][:, :2], recorded["joints_vis"][:, 0]
    sizes = (recorded["image_size"], recorded["heatmap_size"])
    target, weight = paper_encode(joints, visibility, *sizes, int(recorded["sigma"]))
    assert target.dtype == np.float32
    assert measure("targets.npz", target, recorded["target"]) <= 1e-6
    np.testing.assert_array_equal(target > 0, recorded["target"] > 0)
    np.testing.assert_array_equal(weight, recorded["target_weight"])
    factors = [FACTORS.get(name.split("_")[-1], 1.0) for name in POSETRACK.names]
    _, weight = paper_encode(joints, visibility, *sizes, int(recorded["sigma"]), keypoint_weights=factors)
    assert measure("targets.npz", weight, recorded["target_weight_different_joints"]) <= 1e-6


def test_highest_pixels(decoding):
    points, scores = paper_argmax(decoding["heatmaps"])
    np.testing.assert_array_equal(points, decoding["max_coords"])
    np.testing.assert_array_equal(scores[..., None], decoding["maxvals"])
    record("decode.npz", 0.0, "exact")


@pytest.mark.parametrize(
    ("decode", "key"), [(paper_decode, "preds_postprocess"), (paper_argmax, "preds_plain")]
)
def test_decoded_points_in_the_image(decoding, decode, key):
    heatmaps = decoding["heatmaps"]
    points, scores = decode(heatmaps)
    np.testing.assert_array_equal(scores[..., None], decoding["maxvals"])
    size = heatmaps.shape[:1:-1]
    for i, recorded in enumerate(decoding[key]):
        ours = paper_points_to_image(points[i], decoding["center"][i], decoding["scale"][i], size)
        assert measure("decode.npz", ours, recorded) <= 1e-6
    moved = (decoding["preds_postprocess"] != decoding["preds_plain"]).any(-1)
    assert moved.any() and not moved.all()


def test_flips(parity_dir):
    recorded = arrays(parity_dir, "flip_halfbody")
    assert POSETRACK.flip_pairs == tuple(map(tuple, recorded["flip_pairs"].tolist()))
    flipped = flip_heatmaps(torch.from_numpy(recorded["heatmaps"]), POSETRACK.flip_order)
    np.testing.assert_array_equal(flipped.numpy(), recorded["flip_back"])
    keypoints, visibility = flip_keypoints(
        recorded["joints"][:, :2], recorded["joints_vis"][:, 0], POSETRACK, int(recorded["width"])
    )
    np.testing.assert_array_equal(visibility, recorded["fliplr_joints_vis"][:, 0])
    # The original puts invisible keypoints at (0, 0); for us there is nothing to compare there.
    there = visibility > 0
    assert measure("flip_halfbody.npz", keypoints[there], recorded["fliplr_joints"][there, :2]) <= 1e-6
