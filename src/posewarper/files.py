"""Writing so that nothing is ever half-written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from posewarper.errors import OutputError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success it takes its place, on any failure it goes away.

    The temporary name keeps the suffix, by which libraries tell the format. A missing parent folder is made.

    Raises:
        OutputError: if the place cannot be written. A full disk stays an ``OSError``.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "note.txt"
        >>> with replacing(target) as temporary:
        ...     _ = temporary.write_text("done")
        >>> target.read_text()
        'done'
    """
    target = Path(path)
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.partial{target.suffix}")
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
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: str | os.PathLike[str], is_ours: Callable[[Path], bool]) -> Iterator[Path]:
    """Give a new, empty folder beside ``path``; on success it takes its place, on any failure it goes away.

    Args:
        path: the folder to write; one that is there already is replaced with all that it holds.
        is_ours: whether something in a folder that is there may be lost. A folder that holds anything else
            is not replaced.

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
            got=", ".join(strangers[:5]) + (f" and {len(strangers) - 5} more" if len(strangers) > 5 else ""),
            fix="name a new folder",
        )
    temporary = target.with_name(f".{target.name}.{os.getpid()}.partial")
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
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
