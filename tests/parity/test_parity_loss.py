"""The loss against the original's recorded numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from paper_reference import hard_keypoint_loss, paper_heatmap_accuracy

from posewarper.training.steps import heatmap_loss


@pytest.mark.parametrize("batch", ["b4", "b1"])
def test_the_weighted_loss_and_its_gradient(parity_dir: Path, parity_error, batch: str) -> None:
    recorded = np.load(parity_dir / "loss.npz")
    output = torch.from_numpy(recorded[f"{batch}_output"]).double().requires_grad_()
    target = torch.from_numpy(recorded[f"{batch}_target"]).double()
    weights = torch.from_numpy(recorded[f"{batch}_target_weight"]).double()[..., 0]
    assert 0 < weights.mean() < 1.5
    assert (weights == 0).any() or batch == "b1"
    loss = heatmap_loss(output, target, weights)
    measure = parity_error("loss.npz")
    assert measure(loss, recorded[f"{batch}_mse_weighted_f64"]) <= 1e-10
    loss.backward()
    assert measure(output.grad, recorded[f"{batch}_mse_weighted_grad"]) <= 1e-6


@pytest.mark.parametrize("batch", ["b4", "b1"])
def test_the_unweighted_loss(parity_dir: Path, parity_error, batch: str) -> None:
    recorded = np.load(parity_dir / "loss.npz")
    output, target = (torch.from_numpy(recorded[f"{batch}_{n}"]).double() for n in ("output", "target"))
    loss = heatmap_loss(output, target, torch.ones(output.shape[:2]))
    assert parity_error("loss.npz")(loss, recorded[f"{batch}_mse_unweighted_f64"]) <= 1e-10


def test_the_hard_keypoint_loss(parity_dir: Path, parity_error) -> None:
    recorded = np.load(parity_dir / "loss.npz")
    output, target = (torch.from_numpy(recorded[f"b4_{n}"]).double() for n in ("output", "target"))
    weights = torch.from_numpy(recorded["b4_target_weight"]).double()[..., 0]
    loss = hard_keypoint_loss(output, target, weights, hardest=8)
    assert parity_error("loss.npz")(loss, recorded["b4_ohkm_top8_weighted_f64"]) <= 1e-10
    everything = hard_keypoint_loss(output, target, weights, hardest=99)
    assert parity_error("loss.npz")(everything, recorded["b4_mse_weighted_f64"]) <= 1e-10


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_training_accuracy(parity_dir: Path, parity_error, dtype) -> None:
    recorded = np.load(parity_dir / "decode.npz")
    accuracy = paper_heatmap_accuracy(
        recorded["acc_output"].astype(dtype), recorded["acc_target"].astype(dtype)
    )
    measure = parity_error("decode.npz")
    per_keypoint = np.nan_to_num(accuracy.per_keypoint, nan=-1)
    assert measure(per_keypoint, recorded["acc_per_joint"][1:]) <= 1e-6
    assert measure(np.float64(accuracy.mean), recorded["acc_avg"]) <= 1e-6
    assert measure(np.float64(accuracy.mean), recorded["acc_per_joint"][0]) <= 1e-6
    assert accuracy.count == recorded["acc_count"]
    np.testing.assert_array_equal(accuracy.predictions, recorded["acc_pred"])
