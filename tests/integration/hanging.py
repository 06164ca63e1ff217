"""Runs `posewarper` and hangs for ever in the N-th call of a function: what a test kills at that moment.

    python hanging.py posewarper.runs:RecordLog.keep 2 FILE predict ...

FILE is written when it hangs.
"""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path
from typing import Any

from posewarper.cli.app import app


def hang_in(place: str, number: int, reached: Path) -> None:
    """Let the N-th call of a method (module:Class.name) hang before it has done anything."""
    module, _, name = place.partition(":")
    owner, _, method = name.partition(".")
    kind = getattr(importlib.import_module(module), owner)
    usual, calls = getattr(kind, method), 0

    def counted(*arguments: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            reached.touch()
            while True:
                time.sleep(60)
        return usual(*arguments, **more)

    setattr(kind, method, counted)


if __name__ == "__main__":
    hang_in(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
    app(sys.argv[4:], prog_name="posewarper")
