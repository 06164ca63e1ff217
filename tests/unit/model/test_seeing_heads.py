"""Heads that see more than heatmaps: what they are given, and that it says what it is to say."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.model.seeing_heads import SEEING_HEADS, CorrelationWarpHead, ImageWarpHead, correlate
from posewarper.model.warping import WarpHead
from posewarper.skeletons import Skeleton

SIZE = (16, 12)


class Features(nn.Module):
    """A backbone of another scale at each place: the crops' colours, a quarter of their size."""

    def forward(self, crops: torch.Tensor) -> list[torch.Tensor]:
        return [7 * functional.avg_pool2d(crops, 4)]


def views(head: WarpHead, heatmaps: torch.Tensor, crops: torch.Tensor) -> list[torch.Tensor]:
    return [head.view(h, c, Features()) for h, c in zip(heatmaps, crops, strict=True)]


@pytest.mark.parametrize("make", SEEING_HEADS.values())
def test_a_new_head_returns_its_values_and_learns_as_any_other(make) -> None:
    torch.manual_seed(0)
    head = make(3, 8, 2, (1, 2)).train()
    heatmaps, crops = torch.rand(2, 2, 3, *SIZE), torch.randn(2, 2, 3, 64, 48)
    source, target = views(head, heatmaps, crops)
    values = torch.rand(2, 3, *SIZE)
    warped = head(values, source=source, target=target)
    torch.testing.assert_close(warped, values)
    warped.square().mean().backward()
    assert all(branch.weight.grad.abs().max() > 0 for branch in head.offsets)


def test_images_are_compared_at_the_size_of_the_heatmaps() -> None:
    torch.manual_seed(0)
    head = ImageWarpHead(3, 8, 2, (1,)).eval()
    heatmaps, crops = torch.rand(2, 2, 3, *SIZE), torch.randn(2, 2, 3, 64, 48)
    source, target = views(head, heatmaps, crops)
    pooled = crops.unflatten(3, (16, 4)).unflatten(5, (12, 4)).mean((4, 6))
    difference = torch.cat([heatmaps[1] - heatmaps[0], pooled[1] - pooled[0]], 1)
    torch.testing.assert_close(head.features(source, target), head.residual_stack(difference))


@pytest.mark.parametrize(("x", "y"), [(0, 0), (3, -2), (-4, 1)])
def test_correlation_is_highest_at_the_shift_by_which_the_target_has_moved(x: int, y: int) -> None:
    torch.manual_seed(0)
    source = functional.normalize(torch.randn(2, 24, 20, 18), dim=1)
    target = torch.roll(source, (y, x), (2, 3))
    found = correlate(source, target, reach=4, every=1)
    assert found.shape == (2, 81, 20, 18)
    inner = found[..., 4:-4, 4:-4]
    assert (inner.argmax(1) == (y + 4) * 9 + x + 4).all()
    torch.testing.assert_close(inner.amax(1), torch.ones(2, 12, 10))


def test_correlation_takes_every_second_shift_and_nothing_from_outside() -> None:
    torch.manual_seed(0)
    source, target = torch.randn(2, 1, 4, 10, 10)
    every = correlate(source, target, reach=4, every=1).unflatten(1, (9, 9))
    torch.testing.assert_close(correlate(source, target, reach=4, every=2), every[:, ::2, ::2].flatten(1, 2))
    assert (every[0, 0, :, :4] == 0).all() and (every[0, :, 8, :, -4:] == 0).all()


def test_what_looks_alike_reaches_the_stack_whatever_the_features_scale() -> None:
    torch.manual_seed(0)
    head = CorrelationWarpHead(3, 8, 2, (1,)).eval()
    heatmaps, crops = torch.rand(2, 1, 3, *SIZE), torch.randn(2, 1, 3, 64, 48)
    source, target = views(head, heatmaps, crops)
    assert source.shape == (1, 6, *SIZE)
    torch.testing.assert_close(source[:, 3:].norm(dim=1), torch.ones(1, *SIZE))
    alike = correlate(source[:, 3:], target[:, 3:], 8, 2)
    expected = torch.cat([heatmaps[1] - heatmaps[0], alike], 1)
    torch.testing.assert_close(head.features(source, target), head.residual_stack(expected))


def test_the_paper_s_head_sees_heatmaps_alone() -> None:
    spec = ModelSpec(
        "hrnet_w18_small", Skeleton(("nose", "tail")), (64, 64), 2.0, head_width=8, head_blocks=1
    )
    heatmaps = torch.rand(2, 2, 16, 16)
    assert PoseWarper(spec).view(heatmaps, torch.rand(2, 3, 64, 64)) is heatmaps
