"""The loss against sums done by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from posewarper.training.steps import heatmap_loss


def test_half_the_mean_of_weighted_squares():
    predicted = torch.tensor([[[[1.0, 2.0]], [[0.0, 0.0]]]])  # (1, 2, 1, 2)
    target = torch.tensor([[[[0.0, 4.0]], [[3.0, 0.0]]]])
    # (1 + 4 + 9 + 0) / 4 pixels / 2
    assert heatmap_loss(predicted, target, torch.ones(1, 2)).item() == pytest.approx(14 / 8)
    # The weight enters squared: (1 + 4) * 0.25 + 9 * 4.
    weights = torch.tensor([[0.5, 2.0]])
    assert heatmap_loss(predicted, target, weights).item() == pytest.approx((5 * 0.25 + 9 * 4) / 8)


def test_what_has_no_weight_adds_nothing_but_counts_in_the_mean():
    rng = torch.Generator().manual_seed(0)
    predicted, target = torch.rand(2, 3, 4, 5, 6, generator=rng)
    weights = torch.ones(3, 4)
    weights[1, 2] = weights[0, 0] = 0
    off = ((predicted - target) ** 2).numpy()
    expected = 0.5 * sum(off[b, k].sum() for b, k in np.argwhere(weights.numpy() > 0)) / off.size
    assert heatmap_loss(predicted, target, weights).item() == pytest.approx(expected)
    changed = predicted.clone()
    changed[1, 2] = 1e6
    assert heatmap_loss(changed, target, weights).item() == pytest.approx(expected)


def test_the_gradient_is_the_weighted_difference():
    predicted = torch.rand(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    target = torch.rand(2, 2, 3, 3, dtype=torch.float64)
    weights = torch.tensor([[1.0, 0.0], [0.5, 1.0]], dtype=torch.float64)
    heatmap_loss(predicted, target, weights).backward()
    expected = weights[..., None, None] ** 2 * (predicted.detach() - target) / predicted.numel()
    torch.testing.assert_close(predicted.grad, expected)
