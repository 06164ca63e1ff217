"""Runs commands one after another, each in a process group of its own, and stops some: a script for tests.

    python stopped_runs.py '[{"words": [...]}, {"words": [...], "signal": "SIGKILL", "after": 0.3}]'

The commands are forked from this process, which has imported everything and computed nothing: starting Python
anew for each would take longer than they do. ``after`` is a share of the first command's time; ``when`` the
path of a file: it is stopped once that is there. Prints as JSON, for each command, its exit code (less than
0: the signal), its seconds, what it said on stderr, and whether anything of its group was still running.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import timm  # noqa: F401
import torch

from posewarper.cli import app


def run_command(words: list[str], said: Path) -> None:
    """Be the command: does not come back."""
    os.setsid()
    # A shell lets what it starts in the background ignore Ctrl-C, and that is handed on.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
    code = 1
    try:
        app.app(words, prog_name="posewarper")
        code = 0
    except SystemExit as left:
        code = int(left.code or 0)
    finally:
        os._exit(code)


def is_running(group: int) -> bool:
    """Whether any process of a group is still there, a second after its first has ended."""
    for _ in range(20):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.05)
    return True


def run_job(job: dict[str, Any], said: Path, whole: float) -> dict:
    """Run a command, stop it if that is asked for, and tell how it went."""
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        run_command(job["words"], said)
    ended, status = 0, 0
    while not ended:
        due = time.monotonic() - begun > job["after"] * whole if "after" in job else False
        due = due or ("when" in job and Path(job["when"]).exists())
        if "signal" in job and due:
            os.killpg(child, getattr(signal, job.pop("signal")))
        ended, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.005)
    code, seconds = os.waitstatus_to_exitcode(status), time.monotonic() - begun
    found = {"code": code, "seconds": seconds, "stderr": said.read_text(), "left": is_running(child)}
    if found["left"]:
        os.killpg(child, signal.SIGKILL)
    return found


if __name__ == "__main__":
    results: list[dict] = []
    with tempfile.TemporaryDirectory() as folder:
        for n, wanted in enumerate(json.loads(sys.argv[1])):
            first = results[0]["seconds"] if results else 0.0
            results.append(run_job(wanted, Path(folder, f"{n}.txt"), first))
    print(json.dumps(results))
