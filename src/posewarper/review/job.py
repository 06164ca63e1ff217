"""Runs ``posewarper propagate`` for the page: the very command, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

# Set for a command: it tells its progress as JSON lines on standard error, with "stage", "done", "total" and
# "left" (seconds), and stops as by Ctrl-C when its standard input is closed.
PROGRESS_AS_JSON = "POSEWARPER_PROGRESS_JSON"
# Ctrl-C in the terminal is for the page alone.
_APART: dict[str, Any] = {"start_new_session": True}
if sys.platform == "win32":
    _APART = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
_LINES_KEPT = 40  # of what the command says, for the message if it fails


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Args:
        code: its exit code; 130 where it was cancelled.
        said: its last lines.
    """

    code: int
    said: str


class Job:
    """A command of posewarper that runs.

    Args:
        arguments: of the command line, without ``posewarper``.
        progress: is told (stage, done, total, seconds left or None), in a thread of its own.
        ended: is told how it ended, in that thread.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        progress: Callable[[str, int, int, float | None], None],
        ended: Callable[[Ended], None],
    ) -> None:
        self._progress, self._ended = progress, ended
        self._said: deque[str] = deque(maxlen=_LINES_KEPT)
        self._cancelled = False
        # The command watches its standard input: when this process is gone, however it went, it stops.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "posewarper", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, PROGRESS_AS_JSON: "1", "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
            **_APART,
        )
        self._reader = threading.Thread(target=self._read, name="job", daemon=True)
        self._reader.start()

    def cancel(self) -> None:
        """Stop it as Ctrl-C does, so that what is done is kept."""
        self._cancelled = True
        if self._process.poll() is not None:
            return
        if sys.platform != "win32":
            self._process.send_signal(signal.SIGINT)
        elif self._process.stdin is not None:  # signals end a process at once there
            self._process.stdin.close()

    def close(self, seconds: float = 10.0) -> None:
        """Stop it and wait; it is killed if it does not stop in time."""
        self.cancel()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reader.join(seconds)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            text = line.decode("utf-8", "replace").rstrip()
            told = _as_progress(text)
            if told is not None:
                self._progress(*told)
            elif text:
                self._said.append(text)
        code = self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._ended(Ended(130 if self._cancelled and code else code, "\n".join(self._said)))


def _as_progress(line: str) -> tuple[str, int, int, float | None] | None:
    if not line.startswith('{"stage":'):
        return None
    try:
        told = json.loads(line)
        return str(told["stage"]), int(told["done"]), int(told["total"]), told["left"]
    except (ValueError, KeyError, TypeError):
        return None
