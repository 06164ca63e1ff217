"""Deformable convolution with one offset group a channel: one function, the fastest exact form a device has.

``torchvision.ops.deform_conv2d`` is the reference. Here the nine taps are read by ``grid_sample``, which is
several times faster on a CPU, and mixed by a matrix product. Three things make that exact:

* ``grid_sample`` takes coordinates as shares of the map. For most sizes that division rounds, and a
  whole-number position (all of them, while the offsets are zero) may land a hair to the left of its cell,
  where the slope, and so the gradient of the offset, is the neighbouring cell's. For a power of two the way
  there and back is free of rounding, so maps are padded with zeros to the next power of two.
* Outside the map torchvision and ``grid_sample`` both read zeros and fade linearly within one pixel of the
  border, so the padding changes no value and no gradient.
* Coordinates stay in float32 (or float64): bfloat16 would be wrong by a seventh of a pixel.

Three forms compute the same: ``BlockwiseConv`` on a CPU, the kernels of ``triton_deformable`` on a CUDA GPU,
and ``plain_deform_conv``, ordinary operations on the whole batch, elsewhere and while a graph is recorded.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from posewarper.errors import PosewarperWarning

TAPS = 9
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None, None]
# Maps that are read in one call: few enough for blocks of memory that the C library keeps between calls.
_MAPS = 34
_BILINEAR, _ZEROS = 0, 0  # how grid_sampler_2d numbers its modes


def _power_of_two(size: int) -> int:
    return 1 << (size - 1).bit_length()


def resting_positions(height: int, width: int, dilation: int, like: Tensor) -> Tensor:
    """Return where the nine taps read while the offsets are zero, in the dtype and on the device of ``like``.

    (2, 9, H, W), x before y, as shares of the padded map, as ``grid_sample(align_corners=False)`` takes them:
    whole pixels divided by a power of two, and so without rounding. ``dilation`` is in pixels.
    """
    kind = {"device": like.device, "dtype": like.dtype}
    steps = torch.arange(-1, 2, **kind) * dilation
    shape = (3, 3, height, width)
    x = steps.view(1, 3, 1, 1) + torch.arange(width, **kind)
    y = steps.view(3, 1, 1, 1) + torch.arange(height, **kind).view(1, 1, -1, 1)
    shares = [(p * 2 + 1) / _power_of_two(size) - 1 for p, size in ((x, width), (y, height))]
    return torch.stack([s.expand(shape).reshape(TAPS, height, width) for s in shares])


def sampling_grid(offsets: Tensor, height: int, width: int, dilation: int) -> Tensor:
    """Return where each tap reads, in the coordinates of ``grid_sample`` on the padded map.

    Args:
        offsets: (B, C * 18, H, W) in pixels; for each channel nine taps in row-major order, for each tap
            first the vertical, then the horizontal offset.
        height, width: H and W of the map that is read.
        dilation: distance between taps in pixels.

    Returns:
        (B * C, 9 * H, W, 2), x before y, as ``grid_sample(align_corners=False)`` takes it for a map that is
        padded to the next powers of two.
    """
    b, channels = offsets.shape[0], offsets.shape[1] // (2 * TAPS)
    x, y = resting_positions(height, width, dilation, offsets)
    pixels = offsets.view(b, channels, TAPS, 2, height, width)
    grid_x = x + pixels[:, :, :, 1] * (2 / _power_of_two(width))
    grid_y = y + pixels[:, :, :, 0] * (2 / _power_of_two(height))
    return torch.stack((grid_x, grid_y), dim=-1).view(b * channels, TAPS * height, width, 2)


def _padded_maps(values: Tensor) -> Tensor:
    """Return (B * C, 1, H', W') from (B, C, H, W): maps of their own, zeros up to powers of two."""
    height, width = values.shape[2:]
    padded = F.pad(values, (0, _power_of_two(width) - width, 0, _power_of_two(height) - height))
    return padded.reshape(-1, 1, *padded.shape[2:])


def plain_deform_conv(values: Tensor, offsets: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """Compute :func:`deform_conv` by ordinary operations, which can be exported and run anywhere."""
    b, c, h, w = values.shape
    grid = sampling_grid(offsets, h, w, dilation)
    maps = _padded_maps(values)
    taps = F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return torch.matmul(weight.flatten(1), taps.view(b, c * TAPS, h * w)).view(b, len(weight), h, w)


class _Blocks:
    """A batch cut into blocks of a few samples, and the sampling positions of each block.

    Working memory is one block's whatever the batch: fresh memory costs as much as the arithmetic, as the
    system clears every page of it.
    """

    def __init__(self, values: Tensor, offsets: Tensor, dilation: int) -> None:
        self.values, self.dilation = values, dilation
        b, c, self.height, self.width = values.shape
        self.pixels = offsets.view(b, c, TAPS, 2, self.height, self.width)
        # A call shares its maps among the threads, which wait for each other at its end: some maps for each.
        self.samples = min(b, max(1, max(_MAPS, 4 * torch.get_num_threads()) // max(c, 1)))
        self.scales = (2 / _power_of_two(self.width), 2 / _power_of_two(self.height))  # of x, of y

    def __iter__(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield samples, padded maps and grid, block by block; the next overwrites the grid."""
        b, c = self.values.shape[:2]
        resting = resting_positions(self.height, self.width, self.dilation, self.values)
        buffer = self.values.new_empty(self.samples, c, 2, TAPS, self.height, self.width)
        for first in range(0, b, max(self.samples, 1)):
            some = slice(first, min(first + self.samples, b))
            grid = buffer[: some.stop - first]
            for axis, scale in enumerate(self.scales):
                offsets = self.pixels[some, :, :, 1 - axis]
                torch.add(resting[axis], offsets, alpha=scale, out=grid[:, :, axis])
            # All x, then all y of a map: one of the orders that grid_sample reads without shuffling.
            grid = grid.view(-1, 2, TAPS * self.height, self.width).permute(0, 2, 3, 1)
            yield some, _padded_maps(self.values[some]), grid


class BlockwiseConv(torch.autograd.Function):
    """Forward and backward in blocks that fit the caches; the backward pass reads the taps again."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, offsets: Tensor, weight: Tensor, dilation: int) -> Tensor:
        """Return (B, O, H, W); arguments as for :func:`deform_conv`."""
        ctx.save_for_backward(values, offsets, weight)
        ctx.dilation = dilation
        (b, _, h, w), kernel = values.shape, weight.flatten(1)
        output = values.new_empty(b, len(weight), h * w)
        for some, maps, grid in _Blocks(values, offsets, dilation):
            taps = torch.grid_sampler_2d(maps, grid, _BILINEAR, _ZEROS, False)
            part = output[some]
            torch.bmm(kernel.expand(len(part), -1, -1), taps.view(len(part), -1, h * w), out=part)
        return output.view(b, len(weight), h, w)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Gradients:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the gradients of values, offsets and weight."""
        values, offsets, weight = ctx.saved_tensors
        wanted = list(ctx.needs_input_grad[:3])
        with torch.autocast(values.device.type, enabled=False):
            return *_gradients(values, offsets, weight, ctx.dilation, upstream, wanted), None


def _gradients(
    values: Tensor, offsets: Tensor, weight: Tensor, dilation: int, upstream: Tensor, wanted: list[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    (b, c, h, w), kernel = values.shape, weight.flatten(1)
    upstream = upstream.reshape(b, len(weight), h * w)
    of_values = torch.empty_like(values) if wanted[0] else None
    of_offsets = offsets.new_empty(b, c, TAPS, 2, h, w) if wanted[1] else None
    of_kernel = torch.zeros_like(kernel) if wanted[2] else None
    blocks = _Blocks(values, offsets, dilation)
    for some, maps, grid in blocks:
        above = upstream[some]
        if of_kernel is not None:
            taps = torch.grid_sampler_2d(maps, grid, _BILINEAR, _ZEROS, False).view(len(above), -1, h * w)
            of_kernel += torch.bmm(above, taps.transpose(1, 2)).sum(0)
        if of_values is None and of_offsets is None:
            continue
        of_taps = torch.bmm(kernel.t().expand(len(above), -1, -1), above).view(-1, 1, TAPS * h, w)
        of_maps, of_grid = torch.ops.aten.grid_sampler_2d_backward(
            of_taps, maps, grid, _BILINEAR, _ZEROS, False, wanted[:2]
        )
        if of_values is not None:
            of_values[some] = of_maps.view(len(above), -1, *maps.shape[2:])[:, :, :h, :w]
        if of_offsets is not None:
            of_grid = of_grid.view(len(above), -1, TAPS, h, w, 2)
            for axis, scale in enumerate(blocks.scales):
                torch.mul(of_grid[..., axis], scale, out=of_offsets[some, :, :, 1 - axis])
    return (
        of_values,
        None if of_offsets is None else of_offsets.view(offsets.shape),
        None if of_kernel is None else of_kernel.view(weight.shape),
    )


def deform_conv(values: Tensor, offsets: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """Deformable 3x3 convolution, stride 1, padding equal to the dilation, no bias (paper, section 3).

    Every channel has its own offsets (C offset groups); the kernel is dense over channels. Computed in
    float32 whatever autocast says, and in float64 for float64 input. Differentiable once.

    Args:
        values: (B, C, H, W).
        offsets: (B, C * 18, H, W) in pixels, laid out as in :func:`sampling_grid`. Offsets of one sample that
            are expanded to B cost no memory.
        weight: (O, C, 3, 3).
        dilation: distance between taps in pixels.

    Returns:
        (B, O, H, W), contiguous.

    Example:
        >>> values, weight = torch.rand(1, 2, 5, 7), torch.zeros(2, 2, 3, 3)
        >>> weight[:, :, 1, 1] = torch.eye(2)
        >>> bool(torch.equal(deform_conv(values, torch.zeros(1, 36, 5, 7), weight, dilation=3), values))
        True
    """
    if not values.is_floating_point() or offsets.shape[1] != values.shape[1] * 2 * TAPS:
        raise ValueError(
            f"{values.shape[1]} channels need {values.shape[1] * 2 * TAPS} offset channels, "
            f"got {offsets.shape[1]}"
        )
    kind = torch.float64 if values.dtype == torch.float64 else torch.float32
    with full_precision(values.device.type):
        inputs = values.to(kind), offsets.to(kind), weight.to(kind)
        return _form(inputs)(*inputs, dilation)


def _form(inputs: tuple[Tensor, Tensor, Tensor]) -> Callable[..., Tensor]:
    """Return the fastest form for these inputs: all compute the same."""
    values = inputs[0]
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
        return plain_deform_conv
    if values.device.type == "cpu":
        return BlockwiseConv.apply
    # Added up atomically, the gradient of the values differs in its last bits from run to run: if the user
    # wants repeatable runs, torch's own operation says what it can promise.
    repeatable = torch.are_deterministic_algorithms_enabled() and values.requires_grad
    if values.device.type == "cuda" and values.dtype == torch.float32 and not repeatable:
        return triton_form(values.device) or plain_deform_conv
    return plain_deform_conv


@cache
def triton_form(device: torch.device) -> Callable[..., Tensor] | None:
    """Return the Triton kernels as one operation, tried once on this GPU; None if they do not work here.

    Warns if Triton is installed and the kernels fail or disagree with :func:`plain_deform_conv`. The trial
    waits for the GPU: warp once before a CUDA graph is recorded.
    """
    try:
        from posewarper.model.triton_deformable import TritonConv
    except ImportError:
        return None
    try:
        _compare(TritonConv.apply, device)
    except Exception as error:  # whatever stops a compiler on this machine, slower is better than not at all
        warnings.warn(
            f"the Triton kernels of the warp do not work on {device}; slower operations replace them: "
            f"{type(error).__name__}: {error}",
            PosewarperWarning,
            stacklevel=2,
        )
        return None
    return TritonConv.apply


def _compare(form: Callable[..., Tensor], device: torch.device) -> None:
    """Raise unless outputs and gradients of a small case are those of :func:`plain_deform_conv`."""
    results: list[list[Tensor]] = []
    # Values, offsets, weight, made up without the random generator, whose state belongs to the user. No
    # position comes near a whole number, where a last bit decides between two slopes.
    shapes = ((2, 2, 5, 7), (2, 36, 5, 7), (3, 2, 3, 3))
    with torch.inference_mode(False), torch.enable_grad():
        for operation in (form, plain_deform_conv):
            values, offsets, weight = (
                torch.arange(math.prod(shape), device=device).mul(0.7).sin().view(shape) for shape in shapes
            )
            inputs = [values.requires_grad_(), offsets.mul(9).floor().add(0.3).requires_grad_()]
            inputs.append(weight.requires_grad_())
            output = operation(inputs[0], inputs[1], inputs[2], 1)
            results.append([output, *torch.autograd.grad(output.square().sum(), inputs)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def full_precision(device: str) -> torch.autocast | nullcontext:
    """Return a context without autocast, empty where there is none: exported graphs keep such regions."""
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()
