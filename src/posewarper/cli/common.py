"""What all commands share: options, the reporting of errors and progress, and the reading of small texts."""

from __future__ import annotations

import _thread
import errno
import io
import json
import os
import re
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from posewarper.errors import (
    ConfigError,
    Interrupted,
    OutputError,
    PosewarperError,
    PosewarperWarning,
    ProcessError,
    few_of,
    first_sentence,
    no_such_file,
)
from posewarper.files import remove_leftovers
from posewarper.model.hub import is_address, read_address
from posewarper.processes import is_lost_connection
from posewarper.review.job import PROGRESS_AS_JSON
from posewarper.runs import duration

if TYPE_CHECKING:  # importing these would slow `posewarper --help` down
    from rich.console import Console

    from posewarper.structures import Progress

# A stage of a run: its name, its steps (None: as many as the video has frames), the usual seconds of a step.
Stage = tuple[str, int | None, float]
_BETWEEN_JSON, _BETWEEN_LOOKS = 0.2, 0.2  # seconds
_FIRST_LINE, _NEXT_LINE = 10, 30  # seconds until progress is told in a log, and from then on
BAD_MACHINE, BAD_INPUT, INTERRUPTED = 1, 2, 130
DEBUG = "--debug"
_SMALLER = "give a smaller or shorter input, or use a machine with more memory"
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

LabelsOf = Annotated[
    str | None,
    typer.Option(
        "--labels-of",
        metavar="NAME",
        help="Which video of the label file to take, whatever the one that is given is called.",
    ),
]
FrameSpan = Annotated[
    str | None,
    typer.Option("--frames", metavar="A-B", help="Work on frames A to B alone, with the labels on them."),
]


class Unlabelled(StrEnum):
    """What keypoints without a label are."""

    UNKNOWN = "unknown"
    ABSENT = "absent"


UnlabelledAs = Annotated[
    Unlabelled,
    typer.Option(
        "--unlabelled",
        help="What keypoints without a label are on a labelled frame: unknown, since nobody looked at them, "
        "or absent, since they are not there.",
    ),
]
FrameNumber = Annotated[
    int | None,
    typer.Option(
        "--frame-number",
        metavar="N",
        help="Which number in the names of labelled images is the frame: 1 for the first, -1 for the last.",
    ),
]
RerunFile = Annotated[
    Path | None,
    typer.Option(
        "--rerun",
        metavar="FILE.rrd",
        help="Also write frames, skeletons and expected errors as a recording of Rerun.",
    ),
]
BackboneWeights = Annotated[
    str | None,
    typer.Option(
        "--backbone-weights",
        metavar="auto|none|imagenet|FILE|hf:OWNER/NAME",
        help="What training starts from: trained weights that are at hand (auto, the default), random ones, "
        "timm's, or those of a file here or on Hugging Face.",
    ),
]

# Scripts may give every command the same options, also those that have no use for some of them.
UnusedDevice = Annotated[DeviceName, typer.Option("--device", hidden=True)]
UnusedSeed = Annotated[int, typer.Option("--seed", hidden=True)]
UnusedOverwrite = Annotated[bool, typer.Option("--overwrite", hidden=True)]
UnusedQuiet = Annotated[bool, typer.Option("--quiet", hidden=True)]


_words: ContextVar[tuple[str, ...]] = ContextVar("words", default=())  # of the command line, with --debug
_OUTPUTS = ("--out", "--json", "--picture")
# What moves a terminal's cursor, sets its title or turns the direction of what follows.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def take_words(words: Sequence[str]) -> list[str]:
    """Note the words of the command line for messages, and return them without ``--debug``."""
    _words.set(tuple(words))
    end = words.index("--") if "--" in words else len(words)
    # Whatever a name holds, printing it never fails.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    return [word for n, word in enumerate(words) if word != DEBUG or n > end]


@contextmanager
def reported_errors() -> Iterator[None]:
    """Run a command; end it with one message and the right exit code, and never with a traceback.

    Bad input ends with 2, Ctrl-C with 130 and what was kept, a failing machine (disk full) with 1. What
    nobody has foreseen counts as bad input, whose files are named. ``--debug`` shows the traceback as well.
    """
    try:
        with _shown_warnings():
            yield
    except KeyboardInterrupt as error:
        _say(f"interrupted: {error.kept}" if isinstance(error, Interrupted) else "interrupted")
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        # Typer ends with these itself, also where nobody reads the output any more.
        if isinstance(error, typer.Abort | BrokenPipeError) or hasattr(error, "exit_code"):
            raise
        report(error)
        raise SystemExit(BAD_MACHINE if is_of_machine(error) else BAD_INPUT) from None


def report(error: Exception, path: str | None = None) -> str:
    """Say what went wrong, and with ``--debug`` where; ``path`` is the input if it is known.

    Returns the message.
    """
    if DEBUG in _words.get():
        _say("".join(traceback.format_exception(error)))
    known = error if isinstance(error, PosewarperError) else _explain(error, path or _name_inputs())
    if not getattr(error, "is_told", False):  # by the first of several processes
        _say(f"error: {known}")
    return str(known)


def _explain(error: Exception, path: str | None) -> PosewarperError:
    """Return what to say of an error that no place in the program has foreseen."""
    if isinstance(error, OSError) and error.errno is not None:
        at_fault = path if error.filename is None else os.fsdecode(error.filename)
        fix = "make room, and run this again" if is_of_machine(error) else "name another place"
        return PosewarperError(os.strerror(error.errno), path=at_fault, fix=fix)
    if is_lost_connection(error):
        return ProcessError(
            "another process of this run has ended, or its machine cannot be reached",
            got=re.sub(r"^\[.*?\] (Read error |Write error )?", "", first_sentence(error)),
            fix="read what it says; what is done is kept, and the same command (train: --resume) goes on. "
            "If it never began, name the network that all machines share in GLOO_SOCKET_IFNAME and "
            "NCCL_SOCKET_IFNAME",
        )
    *_, place = traceback.extract_tb(error.__traceback__)
    got = f"{type(error).__name__}: {first_sentence(error)}, in {Path(place.filename).name}:{place.lineno}"
    if isinstance(error, MemoryError):
        return PosewarperError("this needs more memory than there is", path=path, got=got, fix=_SMALLER)
    what = "posewarper cannot use this input, for a reason that it does not know"
    fix = f"check the input; if it is sound, run this again with {DEBUG} and report the traceback"
    return PosewarperError(what, path=path, got=got, fix=fix)


def _name_inputs() -> str | None:
    """Return the files and folders that the command line names, without those to be written."""
    named, last = [], ""
    for word in _words.get()[1:]:
        option, _, value = word.partition("=") if word.startswith("-") else ("", "", word)
        if not {option, last} & set(_OUTPUTS) and value and os.path.lexists(value):
            named.append(value)
        last = word
    return few_of(named) or None


def is_of_machine(error: Exception) -> bool:
    """Return whether an exception says that machines fail (disk full, one lost), whatever the input."""
    if isinstance(error, OSError):
        return error.errno in _MACHINE_ERRORS
    return isinstance(error, ProcessError) or is_lost_connection(error)


def _say(text: str) -> None:
    print_line(text, file=sys.stderr)


def printable(text: str) -> str:
    """Return a text whose control characters, but line ends and tabs, are shown and have no effect."""
    return _CONTROLS.sub(lambda found: repr(found[0])[1:-1], text)


def as_cell(text: str) -> str:
    """Return a text for a table of rich's: printable, and without what rich takes for markup."""
    from rich.markup import escape

    return escape(printable(text.encode("utf-8", "backslashreplace").decode()))


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


class _TimeLeft:
    """Estimates how long a run takes: its stage by its own speed, the later ones by their usual times."""

    def __init__(self, plan: Sequence[Stage]) -> None:
        self._plan, self._at, self._name, self._frames = plan, -1, "", 0
        self._begun = self._entered = time.monotonic()
        self._first = self._done = 0

    def update(self, what: str, done: int, total: int) -> float | None:
        """Return the seconds left, None where nothing tells them."""
        now = time.monotonic()
        if what != self._name or done < self._done:
            later = [n for n, stage in enumerate(self._plan) if stage[0] == what and n > self._at]
            self._at = later[0] if later else self._at
            self._name, self._entered, self._first = what, now, done
            self._frames = self._frames or total
        self._done = done
        # The first steps often hold work that the others do not, such as reading up to the first label.
        if done - self._first < max(2, total / 50) or not total:
            return None
        left = (total - done) * (now - self._entered) / (done - self._first)
        usual = [(self._frames if steps is None else steps) * each for _, steps, each in self._plan]
        if self._at < 0 or self._plan[self._at][0] != what:
            return left
        passed = sum(usual[: self._at]) + usual[self._at] * done / total
        return left + sum(usual[self._at + 1 :]) * (now - self._begun) / max(passed, 1e-9)


@contextmanager
def progress_bar(quiet: bool, plan: Sequence[Stage] = ()) -> Iterator[Progress]:
    """Give a function that shows progress on stderr: bars, or in a log a line from time to time.

    Both tell the time left; a line in a log that of the whole run, if its stages are known by a ``plan``. A
    program that has started this one can ask for JSON lines (:data:`PROGRESS_AS_JSON`), a few a second.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if os.environ.get(PROGRESS_AS_JSON):
        yield _json_lines(plan)
    elif quiet:
        yield lambda what, done, total: None
    elif console.is_terminal:
        with _bars(console) as show:
            yield show
    else:
        begun: set[str] = set()
        time_left, next_line = _TimeLeft(plan), time.monotonic() + _FIRST_LINE

        def tell(what: str, done: int, total: int) -> None:
            nonlocal next_line
            what, _, _ = what.partition("\t")
            left = time_left.update(what, done, total)
            if what not in begun:
                begun.add(what)
                _say(f"{what} ..." if total == 0 else f"{what} ({total}) ...")
            elif done != total and time.monotonic() >= next_line:
                next_line = time.monotonic() + _NEXT_LINE
                of = f" of {total}" if total else ""
                _say(f"{what}: {done}{of}" + ("" if left is None else f", about {duration(left)} left"))

        yield tell


def _json_lines(plan: Sequence[Stage]) -> Progress:
    time_left, stage, told = _TimeLeft(plan), "", 0.0

    def tell(what: str, done: int, total: int) -> None:
        nonlocal stage, told
        what, _, _ = what.partition("\t")
        left, now = time_left.update(what, done, total), time.monotonic()
        if what != stage or now - told >= _BETWEEN_JSON or done == total:
            stage, told = what, now
            seconds = None if left is None else round(left, 1)
            line = {"stage": what, "done": int(done), "total": int(total), "left": seconds}
            print(json.dumps(line), file=sys.stderr, flush=True)

    _stop_with_parent()
    return tell


def _stop_with_parent() -> None:
    """Stop this process as Ctrl-C does when the program that has started it, and holds its stdin, is gone."""

    def watch() -> None:
        with suppress(OSError):
            if sys.platform == "win32":
                _wait_for_end_of_pipe()
            while os.read(0, 64):
                pass
        _thread.interrupt_main()

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _wait_for_end_of_pipe() -> None:
    """Wait until nobody holds the other end of standard input, if that is a pipe of Windows.

    While a thread there waits for a pipe to have something to read, other uses of it wait, too: the start of
    a process, which inherits it.
    """
    if sys.platform == "win32":
        import _winapi
        import msvcrt

        with suppress(OSError):  # it is closed, or no pipe: reading tells
            handle = msvcrt.get_osfhandle(0)
            while True:
                _winapi.PeekNamedPipe(handle)
                time.sleep(_BETWEEN_LOOKS)


@contextmanager
def _bars(console: Console) -> Iterator[Progress]:
    from rich import progress as parts

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
                tasks[name] = bars.add_task(as_cell(name), total=total or None)
            shown = as_cell(f"{name}, {note}" if note else name)
            bars.update(tasks[name], completed=done, total=total or None, description=shown)

        yield progress


def print_line(line: str, file: TextIO | None = None) -> None:
    """Print a line at once, also where stdout is a file; names in it cannot steer the terminal."""
    print(printable(line), file=file, flush=True)


def count_of(number: int, what: str) -> str:
    """Return a number with what it counts: "1 track", "2 tracks"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def refuse_existing(path: str | os.PathLike[str], overwrite: bool) -> None:
    """Refuse a file that exists, or a folder that is not empty, unless it may be overwritten.

    What killed processes had not finished to write there is removed.

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
    remove_leftovers(place)


def check_there(
    path: str | os.PathLike[str] | None, expected: str, error: type[PosewarperError] = ConfigError
) -> None:
    """Refuse an input that does not exist, at once: what reads it takes seconds to import.

    Args:
        path: None if the input is not given. An address on Hugging Face need only be one.
        expected: what it should be.
        error: to raise.
    """
    if path is not None and is_address(path):
        read_address(path)
    elif path is not None and not os.path.exists(path):
        raise no_such_file(path, expected, error=error)


def read_span(text: str) -> range:
    """Return the frames of a text like ``100-250``, both included.

    Raises:
        ConfigError: if it is none.
    """
    first, dash, last = text.partition("-")
    if not (dash and first.strip().isdecimal() and last.strip().isdecimal() and int(first) <= int(last)):
        raise ConfigError(
            "--frames takes the first and the last frame of a part of the clip",
            expected="for example 100-250, counted from 0",
            got=repr(text),
            fix="name both, with - in between",
        )
    return range(int(first), int(last) + 1)


def read_names(text: str) -> list[str]:
    """Return the parts of a text with commas in between, without blanks and empty parts."""
    return [part.strip() for part in text.split(",") if part.strip()]
