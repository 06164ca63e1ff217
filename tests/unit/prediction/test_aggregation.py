"""Aggregation: a weighted sum of warped neighbours."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from posewarper.errors import ConfigError
from posewarper.model.heatmap_runner import HeatmapEngine
from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.prediction.windows import PAPER_WEIGHTS, Window, named_window
from posewarper.skeletons import Skeleton


@pytest.fixture(scope="module")
def model() -> PoseWarper:
    torch.manual_seed(0)
    spec = ModelSpec(
        "hrnet_w18_small",
        Skeleton(("a", "b")),
        (64, 32),
        sigma=1.0,
        head_width=4,
        head_blocks=1,
        head_dilations=(1, 2),
    )
    return PoseWarper(spec).eval()


def summed_up(model: PoseWarper, heatmaps: torch.Tensor, weights) -> torch.Tensor:
    """Sum heatmaps (F, B, K, h, w), the present frame first, by weights (F, B)."""
    f, b = heatmaps.shape[:2]
    shares = np.broadcast_to(np.reshape(weights, (f, -1)), (f, b))
    return HeatmapEngine(model, precision="float32").aggregate(
        heatmaps[0],
        shares[0].tolist(),
        heatmaps[1:].flatten(0, 1),
        [*range(b)] * (f - 1),
        shares[1:].ravel().tolist(),
    )


def test_a_fresh_head_gives_the_weighted_mean(model: PoseWarper) -> None:
    heatmaps = torch.rand(5, 3, 2, 16, 8)
    wanted = np.einsum("f,fbkhw->bkhw", PAPER_WEIGHTS, heatmaps.numpy())
    np.testing.assert_allclose(summed_up(model, heatmaps, PAPER_WEIGHTS).numpy(), wanted, atol=1e-6)


def test_each_sample_may_have_its_own_weights(model: PoseWarper) -> None:
    heatmaps = torch.rand(2, 2, 2, 16, 8)
    summed = summed_up(model, heatmaps, [[1.0, 0.25], [0.0, 0.75]])
    torch.testing.assert_close(summed[0], heatmaps[0, 0])
    torch.testing.assert_close(summed[1], 0.25 * heatmaps[0, 1] + 0.75 * heatmaps[1, 1])


def test_every_frame_is_moved_by_its_own_difference(model: PoseWarper) -> None:
    """With offsets that a difference makes, the warped neighbour is what the head gives for that pair."""
    torch.manual_seed(1)
    with torch.no_grad():
        for offsets in model.warp_head.offsets:
            offsets.weight.normal_(std=0.5)
        for block in model.warp_head.residual_stack:
            block.conv1.weight.normal_(std=0.5)
            block.conv2.weight.normal_(std=0.5)
    heatmaps = torch.rand(3, 1, 2, 16, 8)
    with torch.no_grad():
        summed = summed_up(model, heatmaps, (0.5, 0.3, 0.2))
        parts = [
            share * model.warp_head(h, source=h, target=heatmaps[0])
            for share, h in zip((0.5, 0.3, 0.2), heatmaps, strict=True)
        ]
    torch.testing.assert_close(summed, sum(parts))
    assert (summed - (0.5 * heatmaps[0] + 0.3 * heatmaps[1] + 0.2 * heatmaps[2])).abs().max() > 0.05


def test_windows_by_name() -> None:
    assert named_window("paper").offsets == (0, -1, -2, 1, 2)
    assert sum(named_window("paper").weights) == pytest.approx(1)
    with pytest.raises(ConfigError, match="paper, none"):
        named_window("mean")
    with pytest.raises(ConfigError, match="present frame first"):
        Window((-1, 0), (0.5, 0.5))
