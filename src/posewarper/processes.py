"""Several processes, on one machine or many: which of them this is, and how they wait for each other.

Whoever starts them sets ``RANK``, ``WORLD_SIZE`` and ``LOCAL_RANK`` in the environment, as ``torchrun`` does.
Processes that only share a list of videos know each other by these numbers alone; those that train, or work
on a data set together, are connected by ``training.engine.make_accelerator``.
"""

from __future__ import annotations

import functools
import os
import platform
import re
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from posewarper.errors import ConfigError

_Made = TypeVar("_Made")
# How long the others wait while one process works through a data set, or has not yet come to its end.
_PATIENCE = timedelta(days=1)
_RUN = (
    "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT",
    "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT",
)  # fmt: skip


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return default
    if not text.isdecimal():
        raise ConfigError(
            f"the environment variable {name} is no number of processes",
            expected="a whole number, as torchrun sets it",
            got=text,
            fix="start the processes with torchrun, or unset the variable",
        )
    return int(text)


def world() -> int:
    """Return how many processes were started together: 1 for one that was started alone."""
    return max(_number("WORLD_SIZE", 1), 1)


def rank() -> int:
    """Return the number of this process among all, from 0.

    Raises:
        ConfigError: if the environment is at odds with itself.
    """
    own, n = _number("RANK", 0), world()
    if own >= n:
        raise ConfigError(
            "the environment variables RANK and WORLD_SIZE do not fit together",
            expected=f"a RANK from 0 to {n - 1}, for {n} processes",
            got=own,
            fix="start the processes with torchrun, or set both variables",
        )
    return own


def local_rank() -> int:
    """Return the number of this process among those on its machine, from 0; it decides on the GPU."""
    return _number("LOCAL_RANK", 0)


def is_first() -> bool:
    """Return whether this is the only process, or the first of all."""
    return rank() == 0


def run_name() -> str:
    """Return what the processes that were started together have in common, and those of other runs not."""
    return " ".join(f"{name}={os.environ[name]}" for name in _RUN if name in os.environ)


@functools.cache
def machine_name() -> str:
    """Return the name of this machine, of letters, digits and hyphens, for names of files."""
    return re.sub(r"[^A-Za-z0-9-]+", "-", platform.node())[:40].strip("-") or "unnamed"


def is_connected() -> bool:
    """Return whether this process can wait for others and tell them something."""
    if world() == 1 or "torch" not in sys.modules:
        return False
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


@functools.cache
def patient_group() -> Any:
    """Return the connection for long waits, made at the first call, which all processes must make together.

    The usual one gives up after minutes, so that the loss of a machine shows in the steps of a training. With
    this one, a process that was killed is noticed at once, and a machine that falls silent after a day.
    """
    import torch.distributed as dist

    return dist.new_group(backend="gloo", timeout=_PATIENCE)


def own_share(work: Sequence[_Made]) -> Sequence[_Made]:
    """Return the part of some work that is this process's among those it is connected with, else all."""
    return work[rank() :: world()] if is_connected() else work


def wait_for_all() -> None:
    """Wait until every process has come here, for as long as a day."""
    if is_connected():
        import torch.distributed as dist

        dist.barrier(group=patient_group())


def of_first(make: Callable[[], _Made]) -> _Made:
    """Let the first process make something, and return it on all; an error of it is raised on all.

    On the others the error bears ``is_told``: the first process says it.
    """
    if not is_connected():
        return make()
    import torch.distributed as dist

    told: list[Any] = [None, None]
    error: Exception | None = None
    if is_first():
        try:
            told = [make(), None]
        except Exception as caught:
            error, told = caught, [None, caught]
    dist.broadcast_object_list(told, group=patient_group())
    if error is not None:
        raise error
    if told[1] is not None:
        told[1].is_told = True
        raise told[1]
    return told[0]


def of_each(make: Callable[[], _Made]) -> _Made:
    """Let every process make something for itself; an error of one, the first by number, is raised on all."""
    if not is_connected():
        return make()
    import torch.distributed as dist

    made, error = None, None
    try:
        made = make()
    except Exception as caught:
        error = caught
    errors: list[Exception | None] = [None] * world()
    dist.all_gather_object(errors, error, group=patient_group())
    for n, found in enumerate(errors):
        if found is not None:
            found.is_told = n != rank()  # type: ignore[attr-defined]
            raise found if error is None or n != rank() else error
    return made  # type: ignore[return-value]


def is_lost_connection(error: BaseException) -> bool:
    """Return whether an error says that another process has ended or cannot be reached."""
    if not isinstance(error, RuntimeError) or world() == 1:
        return False
    kinds = {kind.__name__ for kind in type(error).__mro__}
    said = str(error)
    return bool(kinds & {"DistError", "DistBackendError"}) or "gloo" in said or "by peer" in said
