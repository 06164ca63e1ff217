"""Runs over many videos that go on where they were: a folder knows the request that it was made by."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from posewarper.errors import OutputError
from posewarper.files import replacing
from posewarper.io.folder_lock import LOCK
from posewarper.structures import Progress

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
        raise OutputError("this is a file, not a folder", path=above, mend="name another output folder")
    if not overwrite:
        if is_claimed(place, request):
            return
        # A run that failed before its first result leaves nothing but its request.
        if place.is_dir() and any(path.name not in (_REQUEST, LOCK) for path in place.iterdir()):
            raise OutputError(
                "this folder holds other files, or a run with other settings",
                path=place,
                mend="name another folder, or allow results to be replaced with --overwrite",
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
            mend="name another output folder",
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
