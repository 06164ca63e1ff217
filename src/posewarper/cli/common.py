"""Many videos by one command: which they are, whose turn each is, and what to do when one fails."""

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
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from posewarper.errors import ConfigError

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

BackboneWeights = Annotated[
    str,
    typer.Option(
        "--backbone-weights",
        metavar="none|imagenet|FILE",
        help="What training starts from: random weights, timm's own, or those of a file.",
    ),
]

# Scripts may give every command the same options; some have nothing to do with a device or with chance.
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


_LISTS = (".csv", ".tsv", ".txt")
_VIDEOS = (
    *(
        ".mp4",
        ".mov",
        ".avi",
        ".mkv",
        ".webm",
        ".m4v",
        ".mpg",
        ".mpeg",
        ".ts",
        ".mts",
        ".m2ts",
        ".wmv",
        ".flv",
    ),
    *(".ogv", ".3gp", ".mjpeg"),
)


@dataclass(frozen=True)
class VideoJob:
    """One video of many, with the files that belong to it."""

    video: str
    labels: Path | None = None
    boxes: Path | None = None


class DoneBefore(OutputError):
    """The folder holds the results of a finished run with the same settings and inputs."""


class VideoWork(Protocol):
    """What is done with each video."""

    def __call__(self, job: VideoJob, place: Path, *, quietly: bool) -> None:
        """Work on a video and write into a folder.

        Raises:
            DoneBefore: if that was done before, and is not to be done again.
        """


def list_videos(name: str) -> list[VideoJob] | None:
    """Return the videos of a list or of a folder of videos; None where the name is that of one video.

    A list is a .csv or .tsv file with the columns ``video`` and, if need be, ``labels`` and ``boxes``, or a
    .txt file with a video a line; paths begin at its folder. A folder is one of videos if it holds no images
    but files that are videos by their suffix, or folders of frames.

    Raises:
        ConfigError: if a list cannot be read or names nothing.
    """
    place = Path(name)
    if place.suffix.lower() in _LISTS and place.is_file():
        from posewarper.formats.lists import read_list

        jobs = []
        for _, row in read_list(place, ("video", "labels", "boxes")):
            paths = {key: place.parent / value for key, value in row.items()}
            jobs.append(VideoJob(str(paths["video"]), paths.get("labels"), paths.get("boxes")))
    elif place.is_dir():
        found = _videos_in(place)
        if found is None:
            return None
        jobs = [VideoJob(str(path)) for path in found]
    else:
        return None
    stems = [Path(job.video).stem for job in jobs]
    doubles = sorted({stem for stem in stems if stems.count(stem) > 1})
    if doubles or not jobs:
        raise ConfigError(
            "two videos would be written to one folder" if doubles else "this names no video",
            path=place,
            expected="videos with names of their own",
            got=", ".join(doubles[:5]) or "none",
            fix="rename them, or split the list" if doubles else "name some",
        )
    return jobs


def _videos_in(folder: Path) -> list[Path] | None:
    from posewarper.video.images import IMAGE_SUFFIXES

    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    if any(path.suffix.lower() in IMAGE_SUFFIXES for path in entries if path.is_file()):
        return None

    def is_video(path: Path) -> bool:
        if path.is_file():
            return path.suffix.lower() in _VIDEOS
        return any(inner.suffix.lower() in IMAGE_SUFFIXES for inner in path.iterdir())

    return [path for path in entries if is_video(path)] or None


def share_videos(jobs: Sequence[VideoJob], out: Path, work: VideoWork, *, quiet: bool) -> None:
    """Work on the videos whose turn it is in this process; one that fails is told of and left out.

    Of N processes that ``torchrun`` started each takes every N-th video. Results of a video lie in
    ``out/<its name>``; one that is done is skipped.

    Raises:
        SystemExit: with 2 if a video failed.
    """
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    failed: list[str] = []
    mine = list(jobs)[rank::world]
    for number, job in enumerate(mine, start=1):
        place = out / Path(job.video).stem
        print(f"[{number}/{len(mine)}] {job.video}", flush=True)
        try:
            work(job, place, quietly=quiet or world > 1)
        except DoneBefore:
            print("done before", flush=True)
        except Exception as error:
            if is_of_machine(error):  # which would spoil the others too
                raise
            failed.append(job.video)
            if not isinstance(error, PosewarperError):
                traceback.print_exc()
            print(f"error: {error}\nleft out: {job.video}", file=sys.stderr, flush=True)
    if failed:
        print(f"{len(failed)} of {len(mine)} videos failed: {', '.join(failed[:10])}", file=sys.stderr)
        raise SystemExit(2)
