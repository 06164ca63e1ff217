"""Temporal aggregation (section 3 of the paper): which frames are summed, and with which weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from posewarper.errors import ConfigError, ModelError, unknown_name
from posewarper.model.export import check_warper
from posewarper.model.network import PoseModel
from posewarper.posetrack.samples import support_numbers
from posewarper.structures import Floats

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
        raise unknown_name("unknown aggregation", name, WINDOWS)
    return WINDOWS[name]


def make_window(radius: int, *, causal: bool = False) -> Window:
    """Return a window of any length, with the paper's weights by distance, which sum to 1.

    The paper's window is that of radius 2 (frames on either side); farther away the weights go on falling by
    the same factor. A causal window looks at earlier frames only, for live use.

    Raises:
        ConfigError: if the radius is negative.
    """
    if radius < 0:
        raise ConfigError(
            "a window's radius cannot be negative",
            expected="0 or more",
            got=radius,
            fix="give 0 or a positive number",
        )
    by_distance = [PAPER_WEIGHTS[0], *(PAPER_WEIGHTS[1] * _FALL**n for n in range(radius))]
    before, after = range(-1, -radius - 1, -1), range(1, 1 if causal else radius + 1)
    offsets = (0, *before, *after)
    weights = np.array([by_distance[abs(offset)] for offset in offsets])
    return Window(offsets, tuple((weights / weights.sum()).tolist()))


def check_window(model: PoseModel, window: Window) -> None:
    """Refuse to sum several frames by a head that was never trained, or is missing from an exported model.

    Raises:
        ModelError: if the window asks for that.
    """
    if len(window.offsets) == 1:
        return
    if "warp" not in model.spec.trained:
        raise ModelError(
            "the warp head of this model was never trained: neighbours would not be moved",
            expected="a model with a trained warper",
            got="a pose network alone",
            fix="train its warper, or predict each frame alone with --aggregate none",
        )
    check_warper(model)


def frames_to_sum(
    number: int, window: Window, has: Callable[[int], bool], *, bounds: tuple[int, int] | None = None
) -> tuple[list[int], Floats]:
    """Return which frames are summed for a frame, and their weights.

    Args:
        number: of the present frame.
        window: the frames wanted.
        has: tells whether there is a frame of a number.
        bounds: the video's first and last number, to treat its ends as the original does: beyond them the
            first or last frame counts again, and the present frame for one that is missing. None leaves such
            frames out, and the weights of the others grow to the same sum.

    Returns:
        F different numbers, the present frame first, and (F,) weights.
    """
    if bounds is None:
        numbers = [number + offset for offset in window.offsets]
    else:
        first, last = bounds
        numbers = support_numbers(number, window.offsets, first=first, n_frames=last + 1 - first, exists=has)
    shares: dict[int, float] = {}
    for near, weight in zip(numbers, window.weights, strict=True):
        if near == number or has(near):
            shares[near] = shares.get(near, 0.0) + weight
    weights = np.array(list(shares.values()))
    return list(shares), weights * (sum(window.weights) / weights.sum())
