"""The warp head: identity at the start, direction of the difference, mean of the branches."""

from __future__ import annotations

import pytest
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


def trained_looking_head() -> WarpHead:
    """A head whose batch norms and offsets are those of no new head, so that even no motion moves."""
    head = small_head()
    for module in head.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.bias)
            torch.nn.init.normal_(module.running_mean)
        elif isinstance(module, torch.nn.Conv2d):
            torch.nn.init.normal_(module.weight, std=0.2)
    for kernel in head.kernels:
        torch.nn.init.normal_(kernel, std=0.3)
    return head.eval()


@pytest.mark.parametrize("batch", [1, 3])
def test_a_frame_warped_to_itself_by_offsets_computed_once(batch) -> None:
    head = trained_looking_head().double()
    offsets = head.still_offsets(12, 10)
    assert [o.shape for o in offsets] == [(1, 54, 12, 10)] * 2
    assert max(o.abs().max() for o in offsets) > 0.5
    values, frame = torch.rand(2, batch, 3, 12, 10, dtype=torch.float64)
    with torch.no_grad():
        whole = head(values, source=frame, target=frame)
        torch.testing.assert_close(head.move(values, offsets), whole, rtol=0, atol=1e-12)
        # In float32 a convolution rounds by the size of its batch, and offsets of pixels feel it.
        head, values = head.float(), values.float()
        moved = head.move(values, head.still_offsets(12, 10))
        torch.testing.assert_close(moved, whole.float(), rtol=0, atol=1e-5)


def test_still_offsets_are_in_full_precision_and_without_gradients() -> None:
    head = trained_looking_head()
    plain = head.still_offsets(12, 10)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = head.still_offsets(12, 10)
    assert all(torch.equal(p, m) and not m.requires_grad for p, m in zip(plain, mixed, strict=True))
    double = head.double()
    assert double.still_offsets(8, 8)[0].dtype == torch.float64


def test_still_offsets_are_refused_in_training() -> None:
    with pytest.raises(RuntimeError, match="evaluation mode"):
        small_head().train().still_offsets(12, 10)
