"""What a training run tells: JSON lines for programs, TensorBoard for eyes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from posewarper.files import replacing


class Journal:
    """Writes ``log.jsonl`` and TensorBoard's events; lines of work that was lost are taken back.

    Args:
        folder: of the run.
        step: steps done, over all epochs, from which the run goes on; later lines are removed.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._path = folder / "log.jsonl"
        if self._path.is_file():
            lines = self._path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if _step_of(line) <= step]
            with replacing(self._path) as temporary:
                temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        self._handle = self._path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, **values: Any) -> None:
        """Note values at a step (counted over all epochs)."""
        self._handle.write(json.dumps({"step": step, **values}) + "\n")
        self._handle.flush()
        for name, value in values.items():
            if isinstance(value, (int, float)) and name != "epoch":
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Finish both files."""
        self._handle.close()
        self._board.close()


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):  # cut off by a kill
        return float("inf")
