"""Optical flow that outlasts its run, so that the next one on the same video need not compute it again.

It lies in the user's folder for caches, or in that of the environment variable ``POSEWARPER_CACHE``, which
switches this off where it is empty. What was used longest ago goes when all together exceeds two gigabytes.
Only flow of the very same window between the very same frames is used again, so that results do not depend on
what is kept.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
import zipfile
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
from platformdirs import user_cache_path

from posewarper.errors import OutputError
from posewarper.files import tag_cache
from posewarper.motion.flow import FlowStore

VARIABLE = "POSEWARPER_CACHE"
_MOST_BYTES = 2 * 2**30
_LIST = "places.npz"
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


def cache_folder() -> Path | None:
    """Return the folder in which flow is kept, None where that is switched off."""
    named = os.environ.get(VARIABLE)
    if named is not None:
        return Path(named) / "flow" if named.strip() else None
    return user_cache_path("posewarper", appauthor=False) / "flow"


def find_flow(video: str | None) -> FlowStore | None:
    """Return the flow that is kept of a video, by the SHA-256 of its contents; None if there is none."""
    place = None if video is None else _place_of(video)
    if place is None:
        return None
    with suppress(*_UNREADABLE), np.load(place / _LIST) as found:
        data, size = place / str(found["data"]), int(found["size"])
        if data.stat().st_size != size:
            return None
        os.utime(place)  # was used last
        return FlowStore(float(found["factor"]), data, found["places"])
    return None


def keep_flow(video: str, store: FlowStore, data: Path) -> None:
    """Move the file with the flow of a run that is over to where :func:`find_flow` looks for it.

    Flow that was kept of the video before is replaced. What cannot be kept is left where it is: nobody
    depends on it.

    Args:
        video: SHA-256 of the video's contents.
        store: what knows the flow; it is closed.
        data: its file.
    """
    store.close()
    place = _place_of(video)
    if place is None:
        return
    # Under a name of its own, so that a list never stands beside the data of another one.
    name = f"{uuid.uuid4().hex}.bin"
    try:
        size = data.stat().st_size
        if not 0 < size <= _MOST_BYTES:
            return
        place.mkdir(parents=True, exist_ok=True)
        tag_cache(place.parent, "Optical flow, kept by posewarper for the next run.")
        shutil.move(data, place / name)
        temporary = place / f"{name}.npz"
        np.savez(temporary, data=name, size=size, factor=store.factor, places=store.places)
        os.replace(temporary, place / _LIST)
        for other in place.iterdir():
            if other.name not in (name, _LIST):
                with suppress(OSError):  # another process reads it
                    other.unlink()
        os.utime(place)
        _make_room(place.parent)
    except (OSError, OutputError):  # a full disk, say
        for half in place.glob(f"{name}*"):
            with suppress(OSError):
                half.unlink()


def _place_of(video: str) -> Path | None:
    """Return the folder of a video's flow, which another version of OpenCV would compute otherwise."""
    folder, name = cache_folder(), hashlib.sha256(f"{video} {cv2.__version__}".encode()).hexdigest()
    return None if folder is None else folder / name


def _make_room(folder: Path) -> None:
    """Remove what was used longest ago until all that is kept has two gigabytes at most."""
    kept = sorted((p for p in folder.iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime, reverse=True)
    total = 0
    for place in kept:
        total += sum(file.stat().st_size for file in place.iterdir())
        if total > _MOST_BYTES:
            shutil.rmtree(place, ignore_errors=True)
