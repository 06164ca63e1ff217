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
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

from posewarper.errors import OutputError, PosewarperError, few_of
from posewarper.processes import machine_name

_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EROFS)
_LEAST_BYTES = 2**16  # a disk with less counts as full
_ABANDONED = 86400  # seconds after which what another machine has not gone on to write is taken for left


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
            with temporary.open("rb") as handle:
                os.fsync(handle.fileno())
        os.replace(temporary, target)
    except (IsADirectoryError, PermissionError) as error:
        raise OutputError(
            "cannot write this file", path=target, got=error, fix="name another place"
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
        temporary.unlink(missing_ok=True)


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
    if sys.platform == "win32":  # where asking would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return True


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text as UTF-8, whole or not at all; file names that are no UTF-8 are escaped.

    Raises:
        OutputError: if the place cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


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
            os.replace(target, old)
        os.replace(temporary, target)
    except (FileExistsError, FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise OutputError(
            "cannot write this folder", path=target, got=error, fix="name another place"
        ) from error
    finally:
        if old.exists() and not target.exists():
            os.replace(old, target)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
