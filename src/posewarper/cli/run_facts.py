"""What ``run.json`` tells of a run: inputs with hashes, versions, machine."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
import sys
from pathlib import Path
from typing import Any


def describe_inputs(**paths: Path | None) -> dict[str, Any]:
    """Return path and hash of each input by its name, None for those not given.

    What cannot be read has None for a hash: whoever goes on to read it says what is wrong.
    """
    return {
        name: None if path is None else {"path": str(path), "sha256": _digest(path)}
        for name, path in paths.items()
    }


def describe_process(device: str) -> dict[str, Any]:
    """Return versions, system, device and command of this process, as plain values."""
    import torch

    from posewarper.model.runtime import resolve_device
    from posewarper.version import __version__

    return {
        "posewarper": __version__,
        "threads": torch.get_num_threads(),
        "ran_on": str(resolve_device(device)),
        "system": platform.platform(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "command": sys.argv[1:],
    }


def peak_memory() -> int | None:
    """Return the most bytes of memory that this process has held, None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write plain values as JSON, whole or not at all."""
    from posewarper.files import replacing

    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _digest(path: Path) -> str | None:
    try:
        if path.is_dir():  # of a folder of frames: over names and contents
            parts = [f"{p.name} {_digest(p)}" for p in sorted(path.iterdir()) if p.is_file()]
            return hashlib.sha256("\n".join(parts).encode()).hexdigest()
        facts = path.stat()
        return _digest_of_file(path.absolute(), facts.st_ino, facts.st_size, facts.st_mtime_ns)
    except (OSError, ValueError):
        return None


@functools.lru_cache(1024)  # of many videos the model is the same
def _digest_of_file(path: Path, *facts: int) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
