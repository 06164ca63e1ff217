"""The loss against the original's recorded numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from posewarper.training.losses import heatmap_loss


@pytest.mark.parametrize("batch", ["b4", "b1"])
def test_the_weighted_loss_and_its_gradient(parity_dir: Path, batch: str) -> None:
    recorded = np.load(parity_dir / "loss.npz")
    output = torch.from_numpy(recorded[f"{batch}_output"]).double().requires_grad_()
    target = torch.from_numpy(recorded[f"{batch}_target"]).double()
    weights = torch.from_numpy(recorded[f"{batch}_target_weight"]).double()[..., 0]
    assert 0 < weights.mean() < 1.5
    assert (weights == 0).any() or batch == "b1"
    loss = heatmap_loss(output, target, weights)
    assert loss.item() == pytest.approx(float(recorded[f"{batch}_mse_weighted_f64"]), rel=1e-10)
    loss.backward()
    np.testing.assert_allclose(output.grad, recorded[f"{batch}_mse_weighted_grad"], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("batch", ["b4", "b1"])
def test_the_unweighted_loss(parity_dir: Path, batch: str) -> None:
    recorded = np.load(parity_dir / "loss.npz")
    output, target = (torch.from_numpy(recorded[f"{batch}_{n}"]).double() for n in ("output", "target"))
    loss = heatmap_loss(output, target, torch.ones(output.shape[:2]))
    assert loss.item() == pytest.approx(float(recorded[f"{batch}_mse_unweighted_f64"]), rel=1e-10)
