"""What ``run.json`` tells of a run: inputs with hashes, versions, machine."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Self

from posewarper.errors import OutputError
from posewarper.files import replacing, sha256_of
from posewarper.structures import Progress

LOCK = ".lock"


@contextmanager
def sole_writer(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Keep other processes that ask for it too out of a folder while the block runs.

    The folder is made if it is not there; it goes again if nothing is written to it. On Windows, and on a
    file system that knows no locks, nobody is kept out.

    Raises:
        OutputError: if another process writes there, or the folder cannot be written.
    """
    place = Path(folder)
    is_new = not os.path.exists(place)
    held = _take(place)
    try:
        yield
    finally:
        if held is not None:
            (place / LOCK).unlink(missing_ok=True)
            held.close()
        if is_new:
            with suppress(OSError):  # not empty, as is usual
                place.rmdir()


def _take(place: Path) -> BinaryIO | None:
    path, fix = place / LOCK, "name another output folder"
    while True:
        try:
            above = next(p for p in (place.absolute(), *place.absolute().parents) if p.exists())
            if not above.is_dir():
                raise OutputError("this is a file, not a folder", path=above, fix=fix)
            place.mkdir(parents=True, exist_ok=True)
            if sys.platform == "win32":
                return None
            held = path.open("ab")
        except OSError as error:
            raise OutputError("this folder cannot be written", path=place, got=error, fix=fix) from error
        try:
            _lock(held)
            # Whoever held it before has removed its file, perhaps after we opened that.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(held.fileno()), path.stat()):
                    return held
        except BlockingIOError as error:
            held.close()
            raise OutputError(
                "another run is writing here",
                path=place,
                fix="wait until it has ended, or name another output folder",
            ) from error
        held.close()


def _lock(file: BinaryIO) -> None:
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            return  # this file system knows no locks


_REQUEST = "request.json"


def claim_folder(place: Path, request: Mapping[str, Any], results: Sequence[str], *, overwrite: bool) -> None:
    """Make a folder ready for a run: a new one, or one that the same request has written to.

    Args:
        place: the folder.
        request: plain values that decide on the results.
        results: names of the files and folders that a run writes; with ``overwrite`` they are removed.
        overwrite: begin anew.

    Raises:
        OutputError: if the folder holds something else, or results cannot be removed.
    """
    noted = place / _REQUEST
    above = next(p for p in (place.absolute(), *place.absolute().parents) if p.exists())
    if not above.is_dir():
        raise OutputError("this is a file, not a folder", path=above, fix="name another output folder")
    if not overwrite:
        if is_claimed(place, request):
            return
        # A run that failed before its first result leaves nothing but its request.
        if place.is_dir() and any(path.name not in (_REQUEST, LOCK) for path in place.iterdir()):
            raise OutputError(
                "this folder holds other files, or a run with other settings",
                path=place,
                fix="name another folder, or allow results to be replaced with --overwrite",
            )
    try:
        # The request goes first: results without one are never taken for those of another.
        for name in (_REQUEST, *results):
            if (place / name).is_dir():
                shutil.rmtree(place / name)
            else:
                (place / name).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            "the results of an earlier run cannot be removed",
            path=error.filename,
            got=error.strerror,
            fix="name another output folder",
        ) from error
    with replacing(noted) as temporary:
        temporary.write_text(json.dumps(request, indent=1) + "\n", encoding="utf-8")


def is_claimed(place: Path, request: Mapping[str, Any]) -> bool:
    """Return whether a folder is that of the same request."""
    noted = place / _REQUEST
    return noted.is_file() and _read(noted) == json.loads(json.dumps(request))


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None


def counter(progress: Progress, what: str, before: int, total: int) -> Callable[[int], None]:
    """Return a function that adds to a count and tells the progress."""
    done = before

    def advance(n: int) -> None:
        nonlocal done
        done += n
        progress(what, done, total)

    return advance


_STATE = "state.json"


class PoseLog:
    """A folder of JSON-lines files, to which one record a frame is appended.

    Every record is handed to the system at once, so that others may read along. :meth:`keep` notes how far
    the records are complete, together with the state of whoever makes them; what a killed run wrote after
    that is cut off when the folder is opened again, so that nothing is lost and nothing comes twice.

    Args:
        folder: made if it is not there.
        lines_per_file: a new file is begun at the first :meth:`keep` after so many.

    Raises:
        OutputError: if the folder holds something that is no such log, or another process writes to it.
    """

    def __init__(self, folder: str | os.PathLike[str], *, lines_per_file: int = 10_000) -> None:
        self._folder, self._lines_per_file = Path(folder), lines_per_file
        with ExitStack() as held:
            held.enter_context(sole_writer(folder))
            noted = self._read_state()
            self.state: Mapping[str, Any] | None = noted["state"]
            self._number, self._lines = noted["file"], noted["lines"]
            for path in self._files():
                if int(path.stem) > self._number:
                    path.unlink()
            self._handle = self._place(self._number).open("ab")
            self._handle.truncate(noted["bytes"])
            self._held = held.pop_all()

    def _read_state(self) -> dict[str, Any]:
        path = self._folder / _STATE
        if not path.is_file():
            return {"state": None, "file": 0, "lines": 0, "bytes": 0}
        try:
            noted = json.loads(path.read_text(encoding="utf-8"))
            size = self._place(noted["file"]).stat().st_size if noted["bytes"] else 0
            whole = size >= noted["bytes"]
        except (ValueError, KeyError, OSError) as error:
            raise self.damaged(error) from error
        if not whole:
            raise self.damaged(f"{self._place(noted['file']).name} is shorter than noted")
        return noted

    def damaged(self, what: object) -> OutputError:
        """Return the error that says that these records are not to be gone on with."""
        return OutputError(
            "the records of the run that is to go on are damaged",
            path=self._folder,
            got=what,
            fix="begin anew with --overwrite",
        )

    def _place(self, number: int) -> Path:
        return self._folder / f"{number:06d}.jsonl"

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("[0-9]*.jsonl"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._handle.close()
        self._held.close()

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record of plain values."""
        self._handle.write(json.dumps(record, allow_nan=False, separators=(",", ":")).encode() + b"\n")
        self._handle.flush()
        self._lines += 1

    def keep(self, state: Mapping[str, Any]) -> None:
        """Note that all records so far are to be kept, and the state of plain values that belongs to them."""
        os.fsync(self._handle.fileno())
        if self._lines >= self._lines_per_file:
            self._handle.close()
            self._number, self._lines = self._number + 1, 0
            self._handle = self._place(self._number).open("ab")
        size = self._handle.tell()
        noted = {"file": self._number, "lines": self._lines, "bytes": size, "state": dict(state)}
        with replacing(self._folder / _STATE) as temporary:
            temporary.write_text(json.dumps(noted, allow_nan=False), encoding="utf-8")
        self.state = state

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield all records in their order.

        Raises:
            OutputError: if a line is none.
        """
        self._handle.flush()
        for path in self._files():
            with path.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, start=1):
                    try:
                        yield json.loads(line)
                    except ValueError as error:
                        raise self.damaged(f"line {number} of {path.name}: {error}") from error


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
    return sha256_of(path)
