"""What all commands share: options, the reporting of errors and progress, and the reading of small texts."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from posewarper.errors import Interrupted, OutputError, PosewarperError, PosewarperWarning

if TYPE_CHECKING:  # importing these would slow `posewarper --help` down
    from rich.console import Console

    from posewarper.structures import Progress

BAD_MACHINE, BAD_INPUT, INTERRUPTED = 1, 2, 130
# The machine is at fault, not the user and not the program: one message, no traceback.
_MACHINE_ERRORS = {
    getattr(errno, name)
    for name in ("ENOSPC", "EIO", "EDQUOT", "EROFS", "EFBIG", "EMFILE", "ENFILE", "ENOMEM")
    if hasattr(errno, name)
}


class DeviceName(StrEnum):
    """Where the network runs."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"


Device = Annotated[
    DeviceName, typer.Option("--device", help="Where the network runs; auto takes the fastest there is.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress (warnings are still shown).")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace results that are there already.")]
Effort = Annotated[
    str, typer.Option(metavar="fast|normal|best", help="How long to train; fast trains nothing.")
]
JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write everything to this file as JSON too.")
]

BackboneWeights = Annotated[
    str,
    typer.Option(
        "--backbone-weights",
        metavar="none|imagenet|FILE",
        help="What training starts from: random weights, timm's own, or those of a file.",
    ),
]

# Scripts may give every command the same options, also those that have no use for some of them.
UnusedDevice = Annotated[DeviceName, typer.Option("--device", hidden=True)]
UnusedSeed = Annotated[int, typer.Option("--seed", hidden=True)]
UnusedOverwrite = Annotated[bool, typer.Option("--overwrite", hidden=True)]
UnusedQuiet = Annotated[bool, typer.Option("--quiet", hidden=True)]


@contextmanager
def reported_errors() -> Iterator[None]:
    """Run a command; end it with one message and the right exit code where no traceback is due.

    Bad input ends with 2, Ctrl-C with 130 and what was kept, a failing machine (disk full) with 1. Any other
    exception is a fault of the program and keeps its traceback.
    """
    try:
        with _shown_warnings():
            yield
    except PosewarperError as error:
        _say(f"error: {error}")
        raise SystemExit(BAD_INPUT) from None
    except KeyboardInterrupt as error:
        _say(f"interrupted: {error.kept}" if isinstance(error, Interrupted) else "interrupted")
        raise SystemExit(INTERRUPTED) from None
    except OSError as error:
        if not is_of_machine(error):
            raise
        place = f"{error.filename}: " if error.filename else ""
        _say(f"error: {place}{os.strerror(error.errno or 0)}")
        raise SystemExit(BAD_MACHINE) from None


def is_of_machine(error: Exception) -> bool:
    """Return whether an exception says that the machine fails (disk full), whatever the input."""
    return isinstance(error, OSError) and error.errno in _MACHINE_ERRORS


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def _shown_warnings() -> Iterator[None]:
    """Show our own warnings as plain lines, each text once; those of others stay as Python shows them."""
    said: set[str] = set()
    usual = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not issubclass(category, PosewarperWarning):
            usual(message, category, filename, lineno, file, line)
        elif str(message) not in said:
            said.add(str(message))
            _say(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", PosewarperWarning)
        warnings.showwarning = show
        yield


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Progress]:
    """Give a function that shows progress on stderr: bars with the time left, or a line a stage in a log."""
    from rich.console import Console

    console = Console(stderr=True)
    if quiet:
        yield lambda what, done, total: None
    elif console.is_terminal:
        with _bars(console) as show:
            yield show
    else:
        begun: set[str] = set()

        def tell(what: str, done: int, total: int) -> None:
            what, _, _ = what.partition("\t")
            if what not in begun:
                begun.add(what)
                _say(f"{what} ..." if total == 0 else f"{what} ({total}) ...")

        yield tell


@contextmanager
def _bars(console: Console) -> Iterator[Progress]:
    from rich import progress as parts
    from rich.markup import escape

    columns = (
        parts.TextColumn("{task.description}"),
        parts.BarColumn(bar_width=24),
        parts.MofNCompleteColumn(),
        parts.TimeElapsedColumn(),
        parts.TextColumn("left"),
        parts.TimeRemainingColumn(),
    )
    with parts.Progress(*columns, console=console, transient=True) as bars:
        tasks: dict[str, parts.TaskID] = {}

        def progress(what: str, done: int, total: int) -> None:
            name, _, note = what.partition("\t")
            if name not in tasks:
                tasks[name] = bars.add_task(escape(name), total=total or None)
            shown = escape(f"{name}, {note}" if note else name)
            bars.update(tasks[name], completed=done, total=total or None, description=shown)

        yield progress


def print_line(line: str) -> None:
    """Print a line at once, also where stdout is a file."""
    print(line, flush=True)


def count_of(number: int, what: str) -> str:
    """Return a number with what it counts: "1 track", "2 tracks"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def refuse_existing(path: str | os.PathLike[str], overwrite: bool) -> None:
    """Refuse a file that exists, or a folder that is not empty, unless it may be overwritten.

    Raises:
        OutputError: if the place is taken.
    """
    place = Path(path)
    taken = any(place.iterdir()) if place.is_dir() else place.exists() or place.is_symlink()
    if taken and not overwrite:
        raise OutputError(
            "this folder holds files already" if place.is_dir() else "this file exists already",
            path=place,
            fix="name another place, or allow it to be replaced with --overwrite",
        )


def read_names(text: str) -> list[str]:
    """Return the parts of a text with commas in between, without blanks and empty parts."""
    return [part.strip() for part in text.split(",") if part.strip()]
