"""The deformable convolution on a CUDA GPU: a Triton kernel forward and one backward.

Neither keeps intermediate results in the GPU's memory.

Both work on tiles of some taps (of the 9 * C of an image) by some pixels: offsets are read once, the four
neighbours of each tap come from the caches, taps stay in registers and meet the dense kernel in a matrix
product of full float32. Positions are rounded once, as in torchvision; zeros are read outside.

The backward pass gives each program one tile of taps and some blocks of pixels. Shares of the kernel's
gradient are added up in a fixed order; the values' gradient is added to atomically, so its order is open.

This module is imported only for CUDA tensors: it needs the package triton, which torch installs on Linux.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None, None]

_ROWS = 16  # taps of a tile
# Chosen by what the compiler reports for an H100 (128 registers, 168 with gradients of values, none spilled),
# not by timings. One stage, as more would send the gathers through shared memory and spill.
_FORWARD: dict[str, Any] = {"ROWS": _ROWS, "PIXELS": 64, "num_warps": 4, "num_stages": 1}
_BACKWARD: dict[str, Any] = {"ROWS": _ROWS, "PIXELS": 32, "BLOCKS": 16, "num_warps": 4, "num_stages": 1}


@triton.jit
def _cells(offsets, row, pixel, height, width, dilation, of_row, of_pixel, used):
    """Return, for a tile of taps, their cell and place in it.

    The cell's first corner as an index into the map; whether the corners there, right, below and right below
    lie in the map; how far below and right of the first corner the tap reads, in shares of the cell.
    """
    tap = row % 9
    place = row.to(tl.int64) * 2 * of_row + pixel * of_pixel
    y = (pixel // width + (tap // 3 - 1) * dilation).to(tl.float32)
    x = (pixel % width + (tap % 3 - 1) * dilation).to(tl.float32)
    y += tl.load(offsets + place, mask=used, other=0.0)
    x += tl.load(offsets + place + of_row, mask=used, other=0.0)
    top, left = tl.floor(y), tl.floor(x)
    # Offsets may be huge: cut to just outside the map before they become integers.
    first = tl.minimum(tl.maximum(top, -2.0), height).to(tl.int32)
    second = tl.minimum(tl.maximum(left, -2.0), width).to(tl.int32)
    upper, lower = used & (first >= 0) & (first < height), used & (first >= -1) & (first < height - 1)
    near, far = (second >= 0) & (second < width), (second >= -1) & (second < width - 1)
    corner = first * width + second
    return corner, upper & near, upper & far, lower & near, lower & far, y - top, x - left


@triton.jit
def _forward(
    values, offsets, kernel, output, channels, outputs, height, width, dilation, of_image, of_row, of_pixel,
    OUTPUTS: tl.constexpr, ROWS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    pixels, rows = height * width, channels * 9
    blocks = tl.cdiv(pixels, PIXELS)
    image = (tl.program_id(0) // blocks).to(tl.int64)
    pixel = (tl.program_id(0) % blocks * PIXELS + tl.arange(0, PIXELS))[None, :]
    out = tl.arange(0, OUTPUTS)[:, None]
    values += image * channels * pixels
    offsets += image * of_image
    total = tl.zeros((OUTPUTS, PIXELS), dtype=tl.float32)
    for start in range(0, rows, ROWS):
        row = (start + tl.arange(0, ROWS))[:, None]
        used = (row < rows) & (pixel < pixels)
        corner, m00, m01, m10, m11, dy, dx = _cells(
            offsets, row, pixel, height, width, dilation, of_row, of_pixel, used
        )
        cell = values + row // 9 * pixels + corner
        v00 = tl.load(cell, mask=m00, other=0.0)
        v01 = tl.load(cell + 1, mask=m01, other=0.0)
        v10 = tl.load(cell + width, mask=m10, other=0.0)
        v11 = tl.load(cell + width + 1, mask=m11, other=0.0)
        taps = (1 - dy) * ((1 - dx) * v00 + dx * v01) + dy * ((1 - dx) * v10 + dx * v11)
        column = (start + tl.arange(0, ROWS))[None, :]
        mix = tl.load(kernel + out * rows + column, mask=(out < outputs) & (column < rows), other=0.0)
        total = tl.dot(mix, taps, total, input_precision="ieee")
    place = (image * outputs + out) * pixels + pixel
    tl.store(output + place, total, mask=(out < outputs) & (pixel < pixels))


@triton.jit
def _backward(
    values, offsets, kernel, upstream, of_values, of_offsets, shares,
    channels, outputs, height, width, dilation, of_image, of_row, of_pixel, to_image, to_row, to_pixel,
    VALUES: tl.constexpr, OFFSETS: tl.constexpr, KERNEL: tl.constexpr,
    OUTPUTS: tl.constexpr, ROWS: tl.constexpr, PIXELS: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    pixels, rows = height * width, channels * 9
    tiles, groups = tl.cdiv(rows, ROWS), tl.cdiv(pixels, PIXELS * BLOCKS)
    # Neighbouring programs read the same pixels of the gradient from above: it stays in the cache.
    start = tl.program_id(0) % tiles * ROWS
    group = tl.program_id(0) // tiles % groups
    image = (tl.program_id(0) // (tiles * groups)).to(tl.int64)
    row = (start + tl.arange(0, ROWS))[:, None]
    out = tl.arange(0, OUTPUTS)
    maps = image * channels * pixels + row // 9 * pixels
    turned = tl.load(
        kernel + out[None, :] * rows + row, mask=(out[None, :] < outputs) & (row < rows), other=0.0
    )
    share = tl.zeros((OUTPUTS, ROWS), dtype=tl.float32)
    for block in range(BLOCKS):
        pixel = ((group * BLOCKS + block) * PIXELS + tl.arange(0, PIXELS))[None, :]
        used = (row < rows) & (pixel < pixels)
        place = (image * outputs + out[:, None]) * pixels + pixel
        above = tl.load(upstream + place, mask=(out[:, None] < outputs) & (pixel < pixels), other=0.0)
        of_taps = tl.dot(turned, above, input_precision="ieee")
        corner, m00, m01, m10, m11, dy, dx = _cells(
            offsets + image * of_image, row, pixel, height, width, dilation, of_row, of_pixel, used
        )
        cell = maps + corner
        v00 = tl.load(values + cell, mask=m00, other=0.0)
        v01 = tl.load(values + cell + 1, mask=m01, other=0.0)
        v10 = tl.load(values + cell + width, mask=m10, other=0.0)
        v11 = tl.load(values + cell + width + 1, mask=m11, other=0.0)
        if OFFSETS:
            target = of_offsets + image * to_image + row.to(tl.int64) * 2 * to_row + pixel * to_pixel
            tl.store(target, of_taps * ((1 - dx) * (v10 - v00) + dx * (v11 - v01)), mask=used)
            tl.store(target + to_row, of_taps * ((1 - dy) * (v01 - v00) + dy * (v11 - v10)), mask=used)
        if VALUES:
            tl.atomic_add(of_values + cell, of_taps * (1 - dy) * (1 - dx), mask=m00, sem="relaxed")
            tl.atomic_add(of_values + cell + 1, of_taps * (1 - dy) * dx, mask=m01, sem="relaxed")
            tl.atomic_add(of_values + cell + width, of_taps * dy * (1 - dx), mask=m10, sem="relaxed")
            tl.atomic_add(of_values + cell + width + 1, of_taps * dy * dx, mask=m11, sem="relaxed")
        if KERNEL:
            taps = (1 - dy) * ((1 - dx) * v00 + dx * v01) + dy * ((1 - dx) * v10 + dx * v11)
            share = tl.dot(above, tl.trans(taps), share, input_precision="ieee")
    if KERNEL:
        place = (
            ((image * groups + group) * outputs + out[:, None]) * rows + start + tl.arange(0, ROWS)[None, :]
        )
        used = (out[:, None] < outputs) & (start + tl.arange(0, ROWS)[None, :] < rows)
        tl.store(shares + place, share, mask=used)


def backward_programs(height: int, width: int) -> int:
    """Return the programs a tile of taps and an image: each leaves its share of the kernel's gradient."""
    return triton.cdiv(height * width, _BACKWARD["PIXELS"] * _BACKWARD["BLOCKS"])


def _layout(offsets: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
    """Return offsets and their strides by image, channel and pixel; copied only if rows do not join up."""
    if offsets.stride(2) != offsets.stride(3) * offsets.shape[3]:
        offsets = offsets.contiguous()
    return offsets, (offsets.stride(0), offsets.stride(1), offsets.stride(3))


def _output_rows(outputs: int) -> int:
    return max(16, triton.next_power_of_2(outputs))


def warp_forward(values: Tensor, offsets: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """Launch the forward kernel; arguments as for ``deform_conv``, all float32."""
    b, c, h, w = values.shape
    output = values.new_empty(b, len(weight), h, w)
    if output.numel():
        offsets, strides = _layout(offsets)
        launch: Any = _forward[(b * triton.cdiv(h * w, _FORWARD["PIXELS"]),)]
        launch(
            values.contiguous(), offsets, weight.contiguous(), output,
            c, len(weight), h, w, dilation, *strides,
            OUTPUTS=_output_rows(len(weight)), **_FORWARD,
        )  # fmt: skip
    return output


def warp_backward(
    values: Tensor,
    offsets: Tensor,
    weight: Tensor,
    dilation: int,
    upstream: Tensor,
    wanted: tuple[bool, bool, bool] = (True, True, True),
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Launch the backward kernel; return the gradients that are wanted, of values, offsets and weight."""
    (b, c, h, w), outputs = values.shape, len(weight)
    tiles, groups = triton.cdiv(c * 9, _ROWS), backward_programs(h, w)
    values = values.contiguous()
    offsets, strides = _layout(offsets)
    of_values = torch.zeros_like(values) if wanted[0] else None
    of_offsets = torch.empty_like(offsets) if wanted[1] else None
    shares = values.new_empty(b * groups, outputs, c * 9) if wanted[2] else None
    if values.numel() and outputs and any(wanted):
        # A gradient that is not wanted is not written: any tensor may stand in its place.
        targets = [values if t is None else t for t in (of_values, of_offsets, shares)]
        launch: Any = _backward[(b * groups * tiles,)]
        launch(
            values, offsets, weight.contiguous(), upstream.contiguous(), *targets, c, outputs, h, w, dilation,
            *strides, *_layout(targets[1])[1],
            VALUES=wanted[0], OFFSETS=wanted[1], KERNEL=wanted[2],
            OUTPUTS=_output_rows(outputs), **_BACKWARD,
        )  # fmt: skip
    return of_values, of_offsets, None if shares is None else shares.sum(0).view(weight.shape)


class TritonConv(torch.autograd.Function):
    """The two kernels as one differentiable operation; differentiating twice raises."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, offsets: Tensor, weight: Tensor, dilation: int) -> Tensor:
        """Return (B, O, H, W); arguments as for ``deform_conv``."""
        ctx.save_for_backward(values, offsets, weight)
        ctx.dilation = dilation
        with _on(values.device):
            return warp_forward(values, offsets, weight, dilation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Gradients:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the gradients of values, offsets and weight."""
        values, offsets, weight = ctx.saved_tensors
        with _on(values.device):
            return *warp_backward(
                values, offsets, weight, ctx.dilation, upstream, ctx.needs_input_grad[:3]
            ), None


def _on(device: torch.device) -> torch.cuda.device:
    # Triton launches on the current device. -1 changes nothing: in its interpreter tensors are on the CPU.
    return torch.cuda.device(device if device.type == "cuda" else -1)
