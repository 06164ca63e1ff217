"""The warp head: identity at the start, direction of the difference, mean of the branches."""

from __future__ import annotations

import torch

from posewarper.model.warping import WarpHead


def small_head(keypoints: int = 3) -> WarpHead:
    torch.manual_seed(0)
    return WarpHead(keypoints, width=8, blocks=2, dilations=(1, 2))


def test_a_new_head_returns_its_values() -> None:
    head = WarpHead(3, width=8, blocks=2).eval()
    values, source, target = torch.rand(3, 2, 3, 20, 16)
    torch.testing.assert_close(head(values, source=source, target=target), values)


def test_the_paper_s_defaults() -> None:
    head = WarpHead(17)
    assert head.dilations == (3, 6, 12, 18, 24)
    assert len(head.residual_stack) == 20
    assert [b.weight.shape for b in head.offsets] == [(306, 128, 3, 3)] * 5
    assert [k.shape for k in head.kernels] == [(17, 17, 3, 3)] * 5


def test_the_stack_gets_no_gradient_in_the_first_step_and_offsets_do() -> None:
    head = small_head().train()
    values, source, target = torch.rand(3, 2, 3, 12, 10)
    head(values, source=source, target=target).square().mean().backward()
    assert all(p.grad.abs().max() == 0 for p in head.residual_stack.parameters())
    assert all(b.weight.grad.abs().max() > 0 for b in head.offsets)
    assert all(k.grad.abs().max() > 0 for k in head.kernels)


def test_features_are_those_of_target_minus_source() -> None:
    head = small_head().eval()
    source, target = torch.rand(2, 2, 3, 12, 10)
    torch.testing.assert_close(head.features(source, target), head.residual_stack(target - source))
    assert not torch.allclose(head.features(source, target), head.features(target, source))


def test_only_values_are_moved_and_branches_are_averaged() -> None:
    head = small_head().eval()
    with torch.no_grad():
        head.kernels[0].mul_(3)
    values, source, target = torch.rand(3, 2, 3, 12, 10)
    torch.testing.assert_close(head(values, source=source, target=target), 2 * values)


def test_float64_stays_float64() -> None:
    head = small_head().double().eval()
    values, source, target = torch.rand(3, 1, 3, 8, 8, dtype=torch.float64)
    assert head(values, source=source, target=target).dtype == torch.float64
