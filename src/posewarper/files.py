"""Writing so that nothing is ever half-written."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import re
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import Any, TypeVar

from posewarper.errors import OutputError, PosewarperError, few_of
from posewarper.processes import machine_name

_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EROFS)
_LEAST_BYTES = 2**16  # a disk with less counts as full
_ABANDONED = 86400  # seconds after which what another machine has not gone on to write is taken for left
# Of Windows: what no file's name may hold, names that stand for devices, and the letters of a usual path.
_NOT_IN_NAMES = re.compile(r'[<>:"/\\|?*\x00-\x1f]|[. ]+$')
_DEVICES = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9¹²³])(\.|$)", re.IGNORECASE)
_LONGEST_PATH = 259
_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)  # seconds

_T = TypeVar("_T")


def patiently(action: Callable[[], _T]) -> _T:
    """Return what an action returns, which moves or removes files.

    Windows refuses that while another program has one of them open. As virus scanners and indexers do so with
    every new file for a moment, it is tried again there for a second and a half.

    Raises:
        PermissionError: if it is refused all the same.
    """
    for pause in _PAUSES if sys.platform == "win32" else ():
        try:
            return action()
        except PermissionError:
            time.sleep(pause)
    return action()


def allowed_name(name: str) -> str:
    """Return a file's name as this system allows it: on Windows with _ in place of what is refused there."""
    if sys.platform != "win32":
        return name
    allowed = _NOT_IN_NAMES.sub(lambda found: "_" * len(found[0]), name)
    return f"_{allowed}" if _DEVICES.match(allowed) else allowed


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success it takes its place, on any failure it goes away.

    The temporary name keeps the suffix, by which libraries tell the format. A missing parent folder is made.

    Raises:
        OutputError: if the place cannot be written. A full disk stays an ``OSError``, which names ``path``.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.stem}.{_writer()}.partial{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise OutputError(
            "cannot make this folder", path=target.parent, got=error, fix="name another output folder"
        ) from error
    try:
        yield temporary
        if temporary.is_file():
            with temporary.open("r+b") as handle:  # Windows writes out only what may be written to
                os.fsync(handle.fileno())
        patiently(lambda: os.replace(temporary, target))
    except (IsADirectoryError, PermissionError) as error:
        raise OutputError("cannot write this file", path=target, got=error, fix=_elsewhere()) from error
    except FileNotFoundError as error:
        if sys.platform != "win32" or len(str(temporary.absolute())) <= _LONGEST_PATH:
            raise
        raise OutputError(
            "this path is too long for Windows",
            path=target,
            expected=f"at most {_LONGEST_PATH} letters, with those of its name while it is written",
            got=len(str(temporary.absolute())),
            fix="name a place with a shorter path, or switch long paths on in Windows",
        ) from error
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        # Other libraries say in their own ways that a disk is full.
        if not isinstance(error, PosewarperError) and shutil.disk_usage(target.parent).free < _LEAST_BYTES:
            number = errno.ENOSPC
        if number not in _OF_DISKS:
            raise
        raise OSError(number, os.strerror(number), os.fspath(target)) from error
    finally:
        with suppress(OSError):  # what went wrong before is what is to be told
            patiently(lambda: temporary.unlink(missing_ok=True))


def _elsewhere() -> str:
    if sys.platform == "win32":
        return "close the program that has it open, or name another place"
    return "name another place"


def _writer() -> str:
    """Return what no other process has that may write here: machines that share a folder repeat numbers."""
    return f"{machine_name()}-{os.getpid()}"


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Let what fails while a file is written to, as on a full disk, bear its name."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, error.filename or os.fspath(path)) from error


def leftovers(folder: Path, name: str = "*") -> list[Path]:
    """Return what killed processes had not finished to write; ``name`` of the file, or a pattern of names."""
    place = PurePath(name)
    ends = (".partial*", ".old")
    return [path for end in ends for path in folder.glob(str(place.with_name(f".{place.stem}.*{end}")))]


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove what killed processes had not finished to write in the place of a file or folder.

    Whether a process of another machine runs is not known here: what it writes is left for a day.
    """
    target = Path(path).absolute()
    for left in leftovers(target.parent, glob.escape(target.name)):
        writer = re.search(r"\.(?:([A-Za-z0-9-]+)-)?(\d+)\.(partial|old)", left.name)
        if writer and not _is_written(left, writer[1], int(writer[2])):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def _is_written(path: Path, machine: str | None, process: int) -> bool:
    if machine in (None, machine_name()):
        return _is_running(process)
    try:
        return time.time() - path.stat().st_mtime < _ABANDONED
    except OSError:  # it has just been finished
        return True


def _is_running(process: int) -> bool:
    import psutil

    try:
        return psutil.pid_exists(process)
    except (OSError, OverflowError):
        return True  # nobody knows


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text as UTF-8, whole or not at all, with the same bytes on every system.

    File names that are no UTF-8 are escaped.

    Raises:
        OutputError: if the place cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def tag_cache(folder: Path, what: str) -> None:
    """Write the file by which backup programs know a cache: https://bford.info/cachedir."""
    write_text(folder / "CACHEDIR.TAG", f"Signature: 8a477f597d28d172789f06886806bc55\n# {what}\n")


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write plain values as JSON that people can read, whole or not at all; NaN is refused.

    Raises:
        OutputError: if the place cannot be written.
    """
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def refuse_bomb(archive: zipfile.ZipFile) -> None:
    """Raise ValueError if a zip file unpacks to far more than it holds, as no sound one does."""
    size = sum(entry.file_size for entry in archive.infolist())
    packed = sum(entry.compress_size for entry in archive.infolist())
    if size > 2**28 + 100 * packed:
        raise ValueError(f"{packed} bytes that would unpack to {size}")


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal digits."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@contextmanager
def replacing_folder(path: str | os.PathLike[str], is_ours: Callable[[Path], bool]) -> Iterator[Path]:
    """Give a new, empty folder beside ``path``; on success it takes its place, on any failure it goes away.

    A folder that is there already is replaced with all that it holds, but only if ``is_ours`` accepts each
    file and folder in it.

    Raises:
        OutputError: if the place cannot be written or holds something else.
    """
    target = Path(path).absolute()
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise OutputError("this is no folder", path=target, fix="name another place")
    strangers = sorted(p.name for p in target.iterdir() if not is_ours(p)) if target.is_dir() else []
    if strangers:
        raise OutputError(
            "this folder holds other files, which would be lost",
            path=target,
            got=few_of(strangers),
            fix="name a new folder",
        )
    temporary = target.with_name(f".{target.name}.{_writer()}.partial")
    old = target.with_name(f".{target.name}.{_writer()}.old")
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed and had our number
        temporary.mkdir(parents=True)
        yield temporary
        if target.exists():
            patiently(lambda: os.replace(target, old))
        patiently(lambda: os.replace(temporary, target))
    except (FileExistsError, FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise OutputError("cannot write this folder", path=target, got=error, fix=_elsewhere()) from error
    finally:
        if old.exists() and not target.exists():
            patiently(lambda: os.replace(old, target))
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
