"""One writer a folder: a lock that the system frees when its holder ends, in whatever way."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from posewarper.errors import OutputError

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
    path, mend = place / LOCK, "name another output folder"
    while True:
        try:
            above = next(p for p in (place.absolute(), *place.absolute().parents) if p.exists())
            if not above.is_dir():
                raise OutputError("this is a file, not a folder", path=above, mend=mend)
            place.mkdir(parents=True, exist_ok=True)
            if sys.platform == "win32":
                return None
            held = path.open("ab")
        except OSError as error:
            raise OutputError("this folder cannot be written", path=place, got=error, mend=mend) from error
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
                mend="wait until it has ended, or name another output folder",
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
