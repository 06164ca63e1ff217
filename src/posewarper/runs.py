"""One way to claim an output folder, to record what a run does, and to go on after a stop.

Whoever writes a folder of results does so within :func:`claim`. ``request.json`` in the folder holds what
decides on the results, and is written when the work begins; ``run.json`` says what was run, and is written
last. So a folder with both is finished, one with a request alone is that of a run that was stopped, and the
same request goes on with it: each file is written whole or not at all, so what is there counts as done.
"""

from __future__ import annotations

import functools
import glob
import hashlib
import json
import os
import platform
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from posewarper.errors import OutputError, PosewarperWarning, few_of, what_stands_at
from posewarper.files import leftovers, naming, patiently, sha256_of, write_json
from posewarper.model.hub import MODEL_FILES, find_model, is_address, is_model, read_address, revision_of
from posewarper.processes import is_connected, is_first, machine_name, of_first, wait_for_all

if TYPE_CHECKING:  # numpy would slow `posewarper --help` down
    from posewarper.structures import Progress

LOCK, REQUEST, RECORDS, FACTS = ".lock", "request.json", "parts", "run.json"
_FIX = "name another output folder"
_STATE = b'{"state":'
# A folder that several machines share may show a file to the others so late (NFS keeps what it knows).
_SEEN_WITHIN = 90.0  # seconds
# On Windows nobody else can read what is locked: a byte is, far behind all that the file holds.
_LOCKED_BYTE = 2**30
PathLike = str | os.PathLike[str]


class DoneBefore(OutputError):
    """The folder holds the results of a finished run with the same settings and inputs."""


class InUse(OutputError):
    """Another process writes into the folder."""


class Run:
    """A folder that :func:`claim` has claimed; with ``anew`` results that are there are removed."""

    def __init__(
        self, folder: Path, request: Any, results: Sequence[str], *, anew: bool, inputs: Sequence[PathLike]
    ) -> None:
        self.folder, self._request, self._results, self.anew = folder, request, results, anew
        self._used = {os.path.realpath(path) for path in inputs}
        self._has_begun = False

    @property
    def written(self) -> list[str]:
        """The names of the results that are there; inputs are none."""
        there = _found(self.folder, self._results)
        return [name for name in there if os.path.realpath(self.folder / name) not in self._used]

    def begin(self) -> None:
        """Note the request and remove what is of no use; called once the input is known to be usable.

        Raises:
            OutputError: if something cannot be removed or the folder cannot be written.
        """
        if self._has_begun:
            return
        try:
            # The request goes first: results without one are never taken for those of another.
            for path in self._leftovers():
                patiently(functools.partial(_remove, path))
        except OSError as error:
            what = "the results of an earlier run cannot be removed"
            fix = f"close what has it open, or {_FIX}" if isinstance(error, PermissionError) else _FIX
            raise OutputError(what, path=error.filename, got=error.strerror, fix=fix) from error
        write_json(self.folder / REQUEST, self._request)
        self._has_begun = True

    def _leftovers(self) -> Iterator[Path]:
        """Yield earlier results if the run begins anew, and what a killed run had not finished to write."""
        if self.anew:
            yield from (self.folder / name for name in (REQUEST, *self.written))
        for name in (REQUEST, *self._results):
            yield from leftovers(self.folder, name)
            yield from leftovers(self.folder, f"{name}/*")

    def beginning(self, progress: Progress) -> Progress:
        """Return a progress that begins the run at its first call: by then the input has proved usable."""

        def tell(what: str, done: int, total: int) -> None:
            self.begin()
            progress(what, done, total)

        return tell

    def forget(self) -> None:
        """Remove the request: what is there now is no run to go on with."""
        (self.folder / REQUEST).unlink(missing_ok=True)

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Write ``run.json``, by which the run is finished."""
        write_json(self.folder / FACTS, facts)


@contextmanager
def claim(
    folder: PathLike,
    request: Mapping[str, Any],
    results: Sequence[str],
    *,
    overwrite: bool | None = False,
    again: bool = False,
    resume: bool = True,
    adopt: bool = False,
    last: Collection[str] = (FACTS,),
    source: PathLike | None = None,
    inputs: Sequence[PathLike] = (),
    hint: str = "",
) -> Iterator[Run]:
    """Claim a folder for a run: a new one, or one that the same request has written to and not finished.

    Other processes are kept out while the block runs (:func:`sole_writer`). Files that are no results stay.
    What is there is removed by :meth:`Run.begin`, not before; a run that writes no result leaves no trace.

    Args:
        folder: made if it is not there.
        request: plain values that decide on the results.
        results: names of the files and folders that a run writes, besides ``run.json``, or patterns of them.
        overwrite: begin anew, whatever is there; None does so only where results of another request are.
        again: go over a finished run of the same request once more, instead of refusing it.
        resume: go on with an unfinished run of the same request; otherwise it is begun anew.
        adopt: take results without a request, as older versions left them, for those of this one.
        last: the results of which any says that a run is finished.
        source: video or folder that is read, whose place the results must not take.
        inputs: other files that are read, which may lie among the results.
        hint: is added to the fix of a refusal.

    Raises:
        DoneBefore: if a run of the same request is finished.
        OutputError: if the folder holds results of another request or of nobody knows what, if another
            process writes there, or if it cannot be written.
    """
    place, wanted = Path(folder), json.loads(json.dumps(request))
    check_place(place, results, source)
    with sole_writer(place):
        known = None
        with suppress(OSError, ValueError):
            known = json.loads((place / REQUEST).read_text(encoding="utf-8"))
        same = known == wanted or (adopt and known is None)
        anew = bool(overwrite) or not (same and resume)
        run = Run(place, wanted, (*results, FACTS), anew=anew, inputs=inputs)
        there = run.written
        finished = not again and any(name in there for name in last)
        if overwrite is False and there and (finished or not same):
            other = isinstance(known, dict) and not same
            raise (DoneBefore if same else OutputError)(
                "this folder holds results already" + (", of other settings or inputs" if other else ""),
                path=place,
                got=differences(known, wanted) if other else few_of(there),
                fix=f"name another folder, or allow them to be replaced with --overwrite{hint}",
            )
        try:
            yield run
        finally:
            if not run.written:
                run.forget()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _found(folder: Path, patterns: Iterable[str]) -> list[str]:
    return [name for pattern in patterns for name in sorted(glob.glob(pattern, root_dir=folder))]


def check_place(folder: PathLike, results: Sequence[str] = (), source: PathLike | None = None) -> None:
    """Refuse a folder that cannot be written, before the work and not after, and one that holds the input.

    Raises:
        OutputError: if it or a folder on the way to it is a file, may not be written or cannot be named so,
            or if the results would lie among the frames of ``source`` or take its place.
    """
    place = Path(folder)
    try:
        # A link to nowhere counts as there, since no folder can be made in its place.
        there = next(p for p in (place.absolute(), *place.absolute().parents) if p.exists() or p.is_symlink())
    except OSError as error:
        raise OutputError("this cannot be the name of a folder", path=place, got=error, fix=_FIX) from error
    if not there.is_dir():
        raise OutputError("this is a file, not a folder", path=there, fix=_FIX)
    if not os.access(there, os.W_OK):
        raise OutputError("this folder may not be written", path=there, fix=_FIX)
    taken = [path for path in (place, *(place / name for name in _found(place, results))) if path.exists()]
    if source is not None and os.path.exists(source) and any(path.samefile(source) for path in taken):
        what = "the results would take the place of the input, or lie among its files"
        raise OutputError(what, path=place, fix=_FIX)


def differences(old: Any, new: Any, place: str = "") -> str:
    """Return in words where two settings of plain values differ: ``window was 2, is 1``."""
    if isinstance(old, dict) and isinstance(new, dict):
        return "; ".join(
            differences(old.get(key), new.get(key), f"{place}.{key}".removeprefix("."))
            for key in sorted({*old, *new})
            if old.get(key) != new.get(key)
        )
    was, now = (text if len(text) <= 80 else f"{text[:20]}..." for text in (str(old), str(new)))
    return f"{place} was {was}, is {now}"


@contextmanager
def sole_writer(folder: PathLike) -> Iterator[None]:
    """Keep other processes that ask for it too out of a folder while the block runs.

    The folder is made if it is not there; it goes again if nothing is written to it. On a file system that
    knows no locks nobody is kept out.

    Raises:
        OutputError: if another process writes there, or the folder cannot be written.
    """
    place = Path(folder)
    is_new = not os.path.exists(place)
    held = _take(place)
    try:
        yield
    finally:
        _release(held, place / LOCK)
        if is_new:
            with suppress(OSError):  # not empty, as is usual
                place.rmdir()


def _take(place: Path) -> BinaryIO:
    check_place(place)
    path = place / LOCK
    while True:
        try:
            place.mkdir(parents=True, exist_ok=True)
            held = patiently(lambda: path.open("ab"))  # Windows refuses while it is being removed
        except OSError as error:
            raise OutputError("this folder cannot be written", path=place, got=error, fix=_FIX) from error
        try:
            _lock(held)
            # Whoever held it before has removed its file, perhaps after we opened that; not on Windows, where
            # nobody removes what is open.
            with suppress(FileNotFoundError):
                if sys.platform == "win32" or os.path.samestat(os.fstat(held.fileno()), path.stat()):
                    with suppress(OSError):  # a full disk shows where more is written
                        held.truncate(0)
                        held.write(f"{machine_name()}, process {os.getpid()}, {time.time_ns()}\n".encode())
                        held.flush()
                    return held
        except BlockingIOError as error:
            held.close()
            fix = "wait until it has ended, or name another output folder"
            raise InUse("another run is writing here", path=place, got=_holder(place), fix=fix) from error
        held.close()


def _holder(place: Path) -> str | None:
    """Return what the process that holds a folder says of itself, None where that is not to be had."""
    try:
        return (place / LOCK).read_text(encoding="utf-8").rpartition(",")[0] or None
    except (OSError, ValueError):
        return None


def _lock(file: BinaryIO) -> bool:
    """Lock a file for this process; returns whether its file system knows locks.

    Raises:
        BlockingIOError: if another process has locked it.
    """
    if sys.platform == "win32":
        import msvcrt

        try:
            os.lseek(file.fileno(), _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(error.errno, error.strerror) from error
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def is_in_use(folder: PathLike) -> bool:
    """Return whether a process holds a folder (:func:`sole_writer`), on this machine or another."""
    try:
        with open(Path(folder) / LOCK, "r+b") as file:
            _lock(file)
    except BlockingIOError:
        return True
    except OSError:  # it is not there, as is usual
        pass
    return False


def knows_locks(folder: PathLike) -> bool:
    """Return whether the file system of a folder, which is made if need be, keeps other processes out."""
    place = Path(folder)
    path = place / f".locks.{machine_name()}-{os.getpid()}"
    try:
        place.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            return _lock(file)
    except OSError:
        return False
    finally:
        with suppress(OSError):
            path.unlink()


@contextmanager
def held_by_first(
    folder: PathLike, claimed: AbstractContextManager[Run], *, begins: bool = False
) -> Iterator[Run | None]:
    """Let the first of several connected processes hold a folder for all while the block runs.

    Nobody enters before it is held, and it is held until all have left; the processes that are not the first
    get None. Whether they see the same folder is checked.

    Args:
        folder: of the claim.
        claimed: as :func:`claim` returns it; only the first process enters it.
        begins: whether the run begins (:meth:`Run.begin`) at once.

    Raises:
        OutputError: on all processes if the folder cannot be claimed, and on those that do not share it.

    Warns:
        PosewarperWarning: if the file system keeps no processes of other machines out.
    """
    with ExitStack() as held:
        run: Run | None = None

        def enter() -> str | None:
            nonlocal run
            run = held.enter_context(claimed)
            if begins:
                run.begin()
            return _token(folder)

        token = of_first(enter)
        if not is_first() and is_connected() and token is not None:
            _check_shared(Path(folder), token)
        yield run
        wait_for_all()


def _token(folder: PathLike) -> str | None:
    with suppress(OSError, ValueError):
        return (Path(folder) / LOCK).read_text(encoding="utf-8") or None
    return None


def _check_shared(folder: Path, token: str) -> None:
    if not seen_in_time(lambda: _token(folder) == token):
        raise OutputError(
            "this folder is not the one that the first process writes to",
            path=folder.absolute(),
            expected="a folder that all machines share, under the same path",
            got=f"another folder on {machine_name()}",
            fix="name a folder on a file system that all machines see (NFS, Lustre, ...)",
        )
    if not token.startswith(f"{machine_name()}, ") and not is_in_use(folder):
        text = (
            f"{folder}: locks of one machine do not hold on another here; two runs would not see each other"
        )
        warnings.warn(text, PosewarperWarning, stacklevel=4)


def seen_in_time(there: Callable[[], bool]) -> bool:
    """Wait until something that another machine has written is there to be seen; returns whether it is."""
    end = time.monotonic() + _SEEN_WITHIN
    while not there():
        if time.monotonic() > end:
            return False
        time.sleep(0.5)
    return True


def _release(file: BinaryIO, path: Path) -> None:
    if sys.platform == "win32":
        import msvcrt

        with suppress(OSError):
            os.lseek(file.fileno(), _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
        # What is open cannot be removed; what another process has opened since is its own.
        file.close()
        with suppress(PermissionError):
            path.unlink(missing_ok=True)
    else:
        path.unlink(missing_ok=True)
        file.close()


def duration(seconds: float) -> str:
    """Return a time in words: 1 h 5 min, 2 min 3 s, 9 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def counter(progress: Progress, what: str, before: int, total: int) -> Callable[[int], None]:
    """Return a function that adds to a count and tells the progress."""
    done = before

    def advance(n: int) -> None:
        nonlocal done
        done += n
        progress(what, done, total)

    return advance


class RecordLog:
    """A file of JSON lines in a folder of its own, made if need be, to which records are added.

    Every record is handed to the system at once, so that others may read along. :meth:`keep` adds the state
    of whoever makes them. What a killed run wrote after its last state is cut off when the log is opened
    again, so that nothing is lost and nothing comes twice.

    Raises:
        OutputError: if another process writes to it.
    """

    def __init__(self, folder: PathLike) -> None:
        self._path = Path(folder) / "records.jsonl"
        self.state: Mapping[str, Any] | None = None
        with ExitStack() as held:
            held.enter_context(sole_writer(folder))
            self._handle = held.enter_context(self._path.open("a+b"))
            self._handle.seek(0)
            size = whole = 0
            for line in self._handle:
                size += len(line)
                if line.startswith(_STATE) and line.endswith(b"}\n"):
                    with suppress(ValueError):
                        whole, self.state = size, json.loads(line)["state"]
            self._handle.truncate(whole)
            self._held = held.pop_all()

    def damaged(self, what: object) -> OutputError:
        """Return the error that says that the run cannot go on with these records."""
        return OutputError(
            "the records of the run that is to go on are damaged",
            path=self._path,
            got=what,
            fix="begin anew with --overwrite",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._held.close()

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record of plain values."""
        with naming(self._path):
            self._handle.write(json.dumps(record, allow_nan=False, separators=(",", ":")).encode() + b"\n")
            self._handle.flush()

    def keep(self, state: Mapping[str, Any]) -> None:
        """Keep all records so far, and the state of plain values that belongs to them."""
        self.append({"state": dict(state)})
        os.fsync(self._handle.fileno())
        self.state = state

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield all records in their order.

        Raises:
            OutputError: if a line is none.
        """
        with self._path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    if not line.startswith(_STATE):
                        yield json.loads(line)
                except ValueError as error:
                    raise self.damaged(f"line {number}: {error}") from error


def describe_inputs(**paths: str | os.PathLike[str] | None) -> dict[str, Any]:
    """Return path and hash of each input by its name, None for those not given.

    What cannot be read has None for a hash: whoever goes on to read it says what is wrong. Of a model on
    Hugging Face, which is downloaded now, there is the commit as well.

    Raises:
        ModelError: if such a model cannot be had.
    """
    described: dict[str, Any] = {}
    for name, path in paths.items():
        if path is None:
            described[name] = None
        elif is_address(path):
            place = find_model(path)
            described[name] = {"path": str(read_address(path)), "sha256": _digest(place)}
            described[name]["revision"] = revision_of(place)
        else:
            described[name] = {"path": str(path), "sha256": _digest(Path(path))}
    return described


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


def peak_memory() -> int:
    """Return the most bytes of memory that this process has held."""
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def _digest(path: Path) -> str | None:
    if what_stands_at(path):  # a pipe, on which one would wait for ever
        return None
    try:
        if path.is_dir():  # of a folder of frames, or of a model: over names and contents
            of_model = MODEL_FILES if is_model(path) else None
            files = (p for p in sorted(path.iterdir()) if of_model is None or p.name in of_model)
            parts = [f"{p.name} {_digest(p)}" for p in files if p.is_file()]
            return hashlib.sha256("\n".join(parts).encode()).hexdigest()
        facts = path.stat()
        return _digest_of_file(path.absolute(), facts.st_ino, facts.st_size, facts.st_mtime_ns)
    except (OSError, ValueError):
        return None


@functools.lru_cache(1024)  # of many videos the model is the same
def _digest_of_file(path: Path, *facts: int) -> str:
    return sha256_of(path)
