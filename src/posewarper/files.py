"""Writing so that nothing is ever half-written."""

from __future__ import annotations

import os
from collections.abc import Iterator
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
            "cannot make this folder", path=target.parent, got=error, mend="name another output folder"
        ) from error
    try:
        yield temporary
        if temporary.is_file():
            with temporary.open("rb") as handle:
                os.fsync(handle.fileno())
        os.replace(temporary, target)
    except (IsADirectoryError, PermissionError) as error:
        raise OutputError(
            "cannot write this file", path=target, got=error, mend="name another place"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
