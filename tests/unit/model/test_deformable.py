"""The deformable convolution: identities, exact shifts, gradients by torchvision and finite differences."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import deform_conv2d

from posewarper.model import deformable
from posewarper.model.deformable import deform_conv, plain_deform_conv, sampling_grid

# Sizes that are and are not powers of two; 96x72 and 48x48 are those of the paper and of small clips.
SIZES = [(48, 48), (96, 72), (64, 64), (13, 9)]


def both(values, offsets, weight, dilation):
    """Outputs and gradients of ours and of torchvision."""
    results = []
    upstream = torch.randn(values.shape[0], weight.shape[0], *values.shape[2:], dtype=values.dtype)
    for operation in (
        deform_conv,
        lambda v, o, w, d: deform_conv2d(v, o, w, padding=d, dilation=d),
    ):
        inputs = [t.clone().requires_grad_() for t in (values, offsets, weight)]
        output = operation(*inputs, dilation)
        output.backward(upstream)
        results.append([output.detach(), *(t.grad for t in inputs)])
    return zip(*results, strict=True)


def close(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float) -> None:
    assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max().clamp(min=1e-12)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["zero", "whole", "border", "anywhere", "far"])
def test_equals_torchvision_in_values_and_all_gradients(size, kind) -> None:
    torch.manual_seed(0)
    values, weight = torch.randn(2, 3, *size), torch.randn(3, 3, 3, 3)
    shape = (2, 3 * 18, *size)
    offsets = {
        "zero": lambda: torch.zeros(shape),
        "whole": lambda: torch.randint(-5, 6, shape).float(),
        # Positions within one and a half pixels of the border on either side.
        "border": lambda: (
            torch.randint(-1, 2, shape) * float(max(size)) / 2 + torch.randint(-3, 4, shape) / 2
        ),
        "anywhere": lambda: torch.randn(shape) * 3,
        "far": lambda: torch.randn(shape) * 100,
    }[kind]()
    for dilation in (3, 12):
        output, of_values, of_offsets, of_weight = both(values, offsets, weight, dilation)
        for ours, theirs in (output, of_values, of_weight):
            close(ours, theirs, 1e-5)
        ours, theirs = of_offsets
        # A float32 position within 4e-6 of a whole number, but not on it, may count to either cell.
        wrong = (ours - theirs).abs() > 1e-5 * theirs.abs().max()
        assert wrong.float().mean() <= (1e-5 if kind in ("anywhere", "far") else 0)


def test_gradients_at_whole_numbers_are_exact() -> None:
    # Where training starts. Rounding into the neighbouring cell would change every tenth gradient altogether.
    torch.manual_seed(1)
    values, weight = torch.randn(1, 2, 96, 72), torch.randn(2, 2, 3, 3)
    _, _, (ours, theirs), _ = both(values, torch.zeros(1, 36, 96, 72), weight, 6)
    wrong = (ours - theirs).abs() > 1e-4 * theirs.abs().max()
    assert not wrong.any()
    assert (theirs != 0).float().mean() > 0.5


@pytest.mark.parametrize("place", ["inside", "at the border", "beyond the border"])
def test_gradients_equal_finite_differences(place) -> None:
    torch.manual_seed(2)
    height, width = 7, 5
    values = torch.randn(1, 2, height, width, dtype=torch.float64)
    weight = torch.randn(2, 2, 3, 3, dtype=torch.float64)
    reach = {"inside": 0.0, "at the border": 3.0, "beyond the border": 8.0}[place]
    # 0.2 to 0.8 beyond a whole number: away from the kinks of the bilinear surface.
    offsets = torch.rand(1, 36, height, width, dtype=torch.float64) * 0.6 + 0.2
    offsets = offsets + torch.randint(-1, 2, offsets.shape) * reach
    inputs = tuple(t.requires_grad_() for t in (values, offsets, weight))
    assert torch.autograd.gradcheck(lambda v, o, w: deform_conv(v, o, w, 1), inputs, eps=1e-6, atol=1e-7)


def identity_kernel(channels: int) -> torch.Tensor:
    weight = torch.zeros(channels, channels, 3, 3)
    weight[:, :, 1, 1] = torch.eye(channels)
    return weight


def test_zero_offsets_and_identity_kernels_give_identity() -> None:
    values = torch.rand(2, 4, 12, 9)
    assert torch.equal(deform_conv(values, torch.zeros(2, 72, 12, 9), identity_kernel(4), 3), values)


def test_constant_offsets_give_an_exact_shift_in_the_right_direction() -> None:
    values = torch.rand(1, 2, 10, 14)
    offsets = torch.zeros(1, 2, 9, 2, 10, 14)
    offsets[:, :, :, 0], offsets[:, :, :, 1] = 2.0, -3.0  # down by 2, left by 3
    moved = deform_conv(values, offsets.flatten(1, 3), identity_kernel(2), 6)
    expected = torch.zeros_like(values)
    expected[:, :, :8, 3:] = values[:, :, 2:, :11]
    assert torch.equal(moved, expected)


def test_half_a_pixel_is_the_mean_of_neighbours() -> None:
    values = torch.rand(1, 1, 6, 8)
    offsets = torch.zeros(1, 1, 9, 2, 6, 8)
    offsets[:, :, :, 1] = 0.5
    moved = deform_conv(values, offsets.flatten(1, 3), identity_kernel(1), 1)
    torch.testing.assert_close(moved[..., :-1], (values[..., 1:] + values[..., :-1]) / 2)
    torch.testing.assert_close(moved[..., -1], values[..., -1] / 2)


def test_each_channel_has_its_own_offsets_and_kernels_are_dense() -> None:
    values = torch.rand(1, 2, 6, 8)
    offsets = torch.zeros(1, 2, 9, 2, 6, 8)
    offsets[:, 1, :, 1] = 1.0
    weight = identity_kernel(2)
    weight[0, 1, 1, 1] = 10.0  # the first output also reads the second channel
    moved = deform_conv(values, offsets.flatten(1, 3), weight, 1)
    torch.testing.assert_close(moved[0, 0, :, :-1], values[0, 0, :, :-1] + 10 * values[0, 1, :, 1:])


def test_coordinates_stay_exact_under_autocast() -> None:
    torch.manual_seed(3)
    values, weight, offsets = (
        torch.rand(1, 2, 48, 48),
        torch.randn(2, 2, 3, 3),
        torch.randn(1, 36, 48, 48) * 8,
    )
    plain = deform_conv(values, offsets, weight, 3)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = deform_conv(values, offsets, weight, 3)
    assert mixed.dtype == torch.float32
    assert torch.equal(plain, mixed)
    assert deform_conv(values.bfloat16(), offsets, weight, 3).dtype == torch.float32


def test_the_grid_of_whole_positions_is_free_of_rounding() -> None:
    for height, width in SIZES:
        grid = sampling_grid(torch.zeros(1, 18, height, width), height, width, 3).view(9, height, width, 2)
        padded = torch.tensor([1 << (n - 1).bit_length() for n in (width, height)])
        pixels = ((grid + 1) * padded - 1) / 2
        assert torch.equal(pixels, pixels.round())
        assert torch.equal(pixels[4, :, :, 0], torch.arange(width).float().expand(height, width))


def test_the_batch_is_split_without_a_trace(monkeypatch) -> None:
    monkeypatch.setattr(deformable, "_MAPS", 4)
    torch.manual_seed(4)
    values, offsets, weight = torch.rand(9, 2, 6, 5), torch.randn(9, 36, 6, 5), torch.randn(2, 2, 3, 3)
    whole = deform_conv(values, offsets, weight, 1)
    single = torch.cat([deform_conv(values[n : n + 1], offsets[n : n + 1], weight, 1) for n in range(9)])
    torch.testing.assert_close(whole, single)


def random_inputs(batch: int, channels: int, outputs: int) -> list[torch.Tensor]:
    torch.manual_seed(5)
    shapes = ((batch, channels, 7, 6), (batch, channels * 18, 7, 6), (outputs, channels, 3, 3))
    return [torch.randn(shape).requires_grad_() for shape in shapes]


def test_the_plain_form_computes_the_same(monkeypatch) -> None:
    inputs = random_inputs(5, 3, 4)
    results = []
    monkeypatch.setattr(deformable, "_MAPS", 6)
    for form in (deform_conv, plain_deform_conv):
        output = form(*inputs, 2)
        results.append([output, *torch.autograd.grad(output.square().sum(), inputs)])
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("wanted", [(True, False, False), (False, True, False), (False, False, True)])
def test_single_gradients_are_those_of_all_three(wanted) -> None:
    inputs = random_inputs(2, 3, 3)
    all_three = torch.autograd.grad(deform_conv(*inputs, 2).square().sum(), inputs)
    some = [t.detach().requires_grad_(w) for t, w in zip(inputs, wanted, strict=True)]
    deform_conv(*some, 2).square().sum().backward()
    for tensor, expected in zip(some, all_three, strict=True):
        assert tensor.grad is None or torch.equal(tensor.grad, expected)
    assert [t.grad is not None for t in some] == list(wanted)


def test_any_memory_layout() -> None:
    values, offsets, weight = random_inputs(3, 2, 2)
    expected = deform_conv(values, offsets, weight, 2)
    gradient = torch.autograd.grad(expected.square().sum(), offsets)[0]
    last = [t.detach().to(memory_format=torch.channels_last).requires_grad_() for t in (values, offsets)]
    output = deform_conv(*last, weight, 2)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(torch.autograd.grad(output.square().sum(), last[1])[0], gradient)
    wide = [torch.cat((t, t), 3).detach()[..., :6] for t in (values, offsets)]
    assert torch.equal(deform_conv(*wide, weight, 2), expected)
    above = torch.randn(2, 3, 6, 7).permute(1, 0, 3, 2)
    one, other = (
        torch.autograd.grad(deform_conv(values, offsets, weight, 2), offsets, a)[0]
        for a in (above, above.contiguous())
    )
    assert torch.equal(one, other)


def test_offsets_of_one_sample_serve_a_batch() -> None:
    values, offsets, weight = random_inputs(3, 2, 2)
    same = deform_conv(values, offsets[:1].expand(3, -1, -1, -1), weight, 2)
    torch.testing.assert_close(same, deform_conv(values, offsets[:1].repeat(3, 1, 1, 1), weight, 2))


def test_an_empty_batch_and_inference_mode() -> None:
    values, offsets, weight = random_inputs(2, 2, 3)
    empty = deform_conv(values[:0], offsets[:0], weight, 2)
    assert empty.shape == (0, 3, 7, 6)
    empty.sum().backward()
    assert weight.grad is not None and not weight.grad.any()
    with torch.inference_mode():
        assert torch.equal(deform_conv(values, offsets, weight, 2), deform_conv(values, offsets, weight, 2))


def test_differentiating_twice_raises() -> None:
    inputs = random_inputs(1, 2, 2)
    first = torch.autograd.grad(deform_conv(*inputs, 2).square().sum(), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        first[1].sum().backward()


def test_gradients_are_exact_under_autocast() -> None:
    inputs = random_inputs(2, 2, 2)
    plain = torch.autograd.grad(deform_conv(*inputs, 2).square().sum(), inputs)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = torch.autograd.grad(deform_conv(*inputs, 2).square().sum(), inputs)
    assert all(torch.equal(p, m) for p, m in zip(plain, mixed, strict=True))


def test_an_exported_graph_takes_any_batch() -> None:
    class Warp(torch.nn.Module):
        def forward(self, values, offsets, weight):
            return deform_conv(values, offsets, weight, 2)

    inputs = [t.detach() for t in random_inputs(5, 2, 2)]
    batch = torch.export.Dim("batch", min=1, max=99)
    program = torch.export.export(
        Warp(), tuple(inputs), dynamic_shapes={"values": {0: batch}, "offsets": {0: batch}, "weight": None}
    )
    values, offsets, weight = (t.detach() for t in random_inputs(9, 2, 2))
    torch.testing.assert_close(
        program.module()(values, offsets, weight), deform_conv(values, offsets, weight, 2)
    )


def test_wrong_offset_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="54 offset channels"):
        deform_conv(torch.rand(1, 3, 4, 4), torch.zeros(1, 36, 4, 4), torch.rand(3, 3, 3, 3), 1)
