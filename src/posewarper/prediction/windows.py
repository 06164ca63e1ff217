"""Temporal aggregation: neighbours' heatmaps, warped to the present frame, in a weighted sum (section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from posewarper.errors import ConfigError
from posewarper.model.network import PoseModel

PAPER_OFFSETS = (0, -1, -2, 1, 2)
"""The frames that the paper sums, counted from the present one, in the order of the original."""
PAPER_WEIGHTS = (0.3, 0.25, 0.1, 0.25, 0.1)
"""The weight of each of them; they are constants, not learned."""


@dataclass(frozen=True)
class Window:
    """Which frames are summed, the present one (offset 0) first, and with which weights.

    Raises:
        ConfigError: if there is not one weight an offset, or the present frame is not the first.
    """

    offsets: tuple[int, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.offsets) != len(self.weights) or self.offsets[:1] != (0,):
            raise ConfigError(
                "a window needs the present frame first, and a weight for each frame",
                expected="offsets (0, ...) and as many weights",
                got=(self.offsets, self.weights),
                fix="put offset 0 first and give one weight an offset",
            )


# Beyond two frames the weight goes on falling as from the first to the second.
_FALL = PAPER_WEIGHTS[2] / PAPER_WEIGHTS[1]

WINDOWS = {"paper": Window(PAPER_OFFSETS, PAPER_WEIGHTS), "none": Window((0,), (1.0,))}


def named_window(name: str) -> Window:
    """Return the window of an ``--aggregate`` option: ``paper`` (five frames) or ``none`` (one).

    Raises:
        ConfigError: if there is no such window.
    """
    if name not in WINDOWS:
        raise ConfigError(
            "unknown aggregation", expected=", ".join(WINDOWS), got=name, fix="use one of the names expected"
        )
    return WINDOWS[name]


def make_window(radius: int, *, causal: bool = False) -> Window:
    """Return a window of any length, with the paper's weights by distance, which sum to 1.

    The paper's window is that of radius 2; farther away the weights go on falling by the same factor.

    Args:
        radius: frames on either side.
        causal: look at earlier frames only, for live use.

    Raises:
        ConfigError: if the radius is negative.

    Example:
        >>> make_window(2).offsets, make_window(1, causal=True).offsets
        ((0, -1, -2, 1, 2), (0, -1))
    """
    if radius < 0:
        raise ConfigError("a window has no such radius", expected="0 or more", got=radius, fix="correct it")
    by_distance = [PAPER_WEIGHTS[0], *(PAPER_WEIGHTS[1] * _FALL**n for n in range(radius))]
    before, after = range(-1, -radius - 1, -1), range(1, 1 if causal else radius + 1)
    offsets = (0, *before, *after)
    weights = np.array([by_distance[abs(offset)] for offset in offsets])
    return Window(offsets, tuple((weights / weights.sum()).tolist()))


def aggregate_heatmaps(model: PoseModel, heatmaps: Tensor, weights: Tensor | Sequence[float]) -> Tensor:
    """Warp each frame's heatmaps to the present frame and sum them.

    Each frame is the source of its warp and the present frame is the target. The present frame, too, goes
    through the head, with a difference of zero, as in the original.

    Args:
        model: its head warps.
        heatmaps: (F, B, K, h, w), the present frame first.
        weights: (F,), or (F, B) with weights of each sample's own.

    Returns:
        (B, K, h, w).
    """
    shares = torch.as_tensor(weights, dtype=heatmaps.dtype, device=heatmaps.device)
    shares = shares.reshape(len(heatmaps), -1, 1, 1, 1)
    present = heatmaps[0]
    # Frame by frame: all at once takes F times the memory and is no faster.
    warped = [
        share * model.warp(source, source=source, target=present)
        for share, source in zip(shares, heatmaps, strict=True)
    ]
    return torch.stack(warped).sum(0)


def predict_heatmaps(model: PoseModel, crops: Tensor, weights: Tensor) -> Tensor:
    """Return the heatmaps of the present frame, from it alone or with its neighbours.

    Args:
        model: in evaluation mode.
        crops: (F, B, 3, H, W), normalised, the present frame first, all cut with the present frame's box.
            With F = 1 the network's own heatmaps are returned; nothing is warped.
        weights: (F, B) of the sum.

    Returns:
        (B, K, H / 4, W / 4).
    """
    f, b = crops.shape[:2]
    heatmaps = model.heatmaps(crops.flatten(0, 1)).unflatten(0, (f, b))
    return heatmaps[0] if f == 1 else aggregate_heatmaps(model, heatmaps, weights)
