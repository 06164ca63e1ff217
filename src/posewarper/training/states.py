"""The state of a training run on disk, from which it goes on exactly."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from posewarper.errors import ModelError
from posewarper.files import replacing

_FORMAT = "posewarper training state"


@dataclass
class RunState:
    """Where a run stands.

    Args:
        epoch: number of epochs that are done.
        step: steps done of the epoch that has begun.
        best: highest validation figure so far, None before the first.
        best_epoch: when it was reached.
        figure: the last validation figure.
        seconds: of work so far.
        loss_sum: of the losses of the epoch that has begun.
    """

    epoch: int = 0
    step: int = 0
    best: float | None = None
    best_epoch: int | None = None
    figure: float | None = None
    seconds: float = 0.0
    loss_sum: float = 0.0


def save_state(
    path: Path, state: RunState, recipe: dict[str, Any], model: dict[str, Any], optimiser: dict[str, Any]
) -> None:
    """Write a state, whole or not at all.

    Args:
        path: the file.
        state: where the run stands.
        recipe: its settings, as plain values.
        model: state dict of the model.
        optimiser: state dict of the optimiser.
    """
    content = {
        "format": _FORMAT, "state": asdict(state), "recipe": recipe, "model": model, "optimiser": optimiser
    }  # fmt: skip
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_state(path: Path) -> tuple[RunState, dict[str, Any]]:
    """Read a state; returns where the run stands, and ``recipe``, ``model`` and ``optimiser``.

    Raises:
        ModelError: if the file is damaged or no state.
    """
    mend = "remove the file, so that the run begins anew"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what is damaged fails in any way
        first = str(error).strip().split("\n")[0][:200]
        raise ModelError("cannot read this training state", path=path, got=first, mend=mend) from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ModelError("this is no training state", path=path, mend=mend)
    return RunState(**content["state"]), content
