"""Deformable convolution with one offset group a channel, exact and fast in training on a CPU.

``torchvision.ops.deform_conv2d`` is the reference. Here the nine taps are read by ``grid_sample``, whose
backward pass is several times faster on a CPU, and mixed by one matrix product. Three things make that exact:

* ``grid_sample`` takes coordinates as shares of the map. For most sizes that division rounds, and a
  whole-number position (all of them, while the offsets are zero) may land a hair to the left of its cell,
  where the slope, and so the gradient of the offset, is the neighbouring cell's. For a power of two the way
  there and back is free of rounding, so maps are padded with zeros to the next power of two.
* Outside the map torchvision and ``grid_sample`` both read zeros and fade linearly within one pixel of the
  border, so the padding changes no value and no gradient.
* Coordinates stay in float32 (or float64): bfloat16 would be wrong by a seventh of a pixel.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TAPS = 9
# Samples whose taps are read in one call: small enough for the caches, large enough to keep two cores busy.
_CHUNK = 4


def _power_of_two(size: int) -> int:
    return 1 << (size - 1).bit_length()


def sampling_grid(offsets: Tensor, height: int, width: int, dilation: int) -> Tensor:
    """Return where each tap reads, in the coordinates of ``grid_sample`` on the padded map.

    Args:
        offsets: (B, C * 18, H, W) in pixels; for each channel nine taps in row-major order, for each tap
            first the vertical, then the horizontal offset.
        height: H of the map that is read.
        width: W of the map that is read.
        dilation: distance between taps in pixels.

    Returns:
        (B * C, 9 * H, W, 2), x before y, as ``grid_sample(align_corners=False)`` takes it for a map that is
        padded to the next powers of two.
    """
    b, channels = offsets.shape[0], offsets.shape[1] // (2 * TAPS)
    kind = {"device": offsets.device, "dtype": offsets.dtype}
    steps = torch.arange(-1, 2, **kind) * dilation
    rows = torch.arange(height, **kind)
    columns = torch.arange(width, **kind)
    # (3, 1, H, 1) + (1, 3, 1, 1) and so on, kept apart by axis so that both become (9, H, W) by expansion.
    y = (
        (steps.view(3, 1, 1, 1) + rows.view(1, 1, -1, 1))
        .expand(3, 3, height, width)
        .reshape(TAPS, height, -1)
    )
    x = (steps.view(1, 3, 1, 1) + columns).expand(3, 3, height, width).reshape(TAPS, height, -1)
    pixels = offsets.view(b, channels, TAPS, 2, height, width)
    grid_y = ((pixels[:, :, :, 0] + y) * 2 + 1) / _power_of_two(height) - 1
    grid_x = ((pixels[:, :, :, 1] + x) * 2 + 1) / _power_of_two(width) - 1
    return torch.stack((grid_x, grid_y), dim=-1).view(b * channels, TAPS * height, width, 2)


def sample_taps(values: Tensor, offsets: Tensor, dilation: int) -> Tensor:
    """Read the nine displaced taps of every channel at every location, bilinearly, zero outside.

    Args:
        values: (B, C, H, W).
        offsets: (B, C * 18, H, W) in pixels, laid out as in :func:`sampling_grid`.
        dilation: distance between taps in pixels.

    Returns:
        (B, C * 9, H, W), the taps of a channel side by side.
    """
    b, c, h, w = values.shape
    grid = sampling_grid(offsets, h, w, dilation)
    padded = F.pad(values, (0, _power_of_two(w) - w, 0, _power_of_two(h) - h))
    maps = padded.reshape(b * c, 1, *padded.shape[2:])
    taps = F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return taps.view(b, c * TAPS, h, w)


def deform_conv(values: Tensor, offsets: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """Deformable 3x3 convolution, stride 1, padding equal to the dilation, no bias (paper, section 3).

    Every channel has its own offsets (C offset groups); the kernel is dense over channels. Computed in
    float32 whatever autocast says, and in float64 for float64 input.

    Args:
        values: (B, C, H, W).
        offsets: (B, C * 18, H, W) in pixels, laid out as in :func:`sampling_grid`.
        weight: (O, C, 3, 3).
        dilation: distance between taps in pixels.

    Returns:
        (B, O, H, W).

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
    with torch.autocast(values.device.type, enabled=False):
        values, offsets, kernel = values.to(kind), offsets.to(kind), weight.to(kind).flatten(1)
        if torch.compiler.is_exporting():  # chunks would tie the graph to one size of the batch
            return _read_and_mix(values, offsets, kernel, dilation)
        chunk = _CHUNK if values.device.type == "cpu" else max(len(values), 1)
        parts = [
            _read_and_mix(v, o, kernel, dilation)
            for v, o in zip(values.split(chunk), offsets.split(chunk), strict=True)
        ]
    return torch.cat(parts)


def _read_and_mix(values: Tensor, offsets: Tensor, kernel: Tensor, dilation: int) -> Tensor:
    return torch.matmul(kernel, sample_taps(values, offsets, dilation).flatten(2)).unflatten(
        2, values.shape[2:]
    )
