"""HDF5 files of other tools: the packages that read them, who wrote one, and errors that name the file."""

from __future__ import annotations

import errno
import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from posewarper.errors import LabelsError, PosewarperError
from posewarper.io.records import PathLike

SIGNATURE = b"\x89HDF\r\n\x1a\n"
INSTALL = 'pip install "posewarper[formats]"'


def import_extra(name: str, path: PathLike, *, instead: str = "") -> Any:
    """Return a package of the extra ``formats``.

    Args:
        name: the package, as it is imported.
        path: the file that asks for it, for the message.
        instead: what can be done without it.

    Raises:
        LabelsError: if it is not installed.
    """
    try:
        with quiet():
            return importlib.import_module(name)
    except ImportError as error:
        raise LabelsError(
            "this format needs packages that are not installed",
            path=path,
            expected=f"the package {name.partition('.')[0]}",
            got=error,
            mend=INSTALL + instead,
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the warnings of other packages from the user's terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def reading(path: PathLike, what: str, mend: str) -> Iterator[None]:
    """Turn whatever goes wrong inside of another package into an error that names the file.

    Args:
        path: the file.
        what: what it should be, with its article.
        mend: what the user can do.

    Raises:
        LabelsError: in place of any other exception. A failing disk stays an ``OSError``.
    """
    try:
        with quiet():
            yield
    except PosewarperError as error:
        if error.path is not None:
            raise
        raise LabelsError(
            error.what, path=path, expected=error.expected, got=error.got, mend=error.mend
        ) from error
    # Which exceptions a damaged file leads to, no package says: HDF5 files have been seen to end in
    # KeyError, ValueError, TypeError, RuntimeError, OSError, struct.error and AssertionError, and in a
    # MemoryError where a damaged size asks for a petabyte.
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.EIO:
            raise
        first_line = (str(error).strip().splitlines() or [""])[0]
        got = f"{type(error).__name__}: {first_line}"[:200]
        raise LabelsError(f"this cannot be read as {what}", path=path, got=got, mend=mend) from error


@contextmanager
def open_hdf5(path: PathLike, what: str, mend: str) -> Iterator[Any]:
    """Give an HDF5 file opened for reading, an ``h5py.File``.

    Raises:
        LabelsError: if it cannot be opened, or anything goes wrong while it is read.
    """
    h5py = import_extra("h5py", path)
    with reading(path, what, mend), h5py.File(path, "r") as file:
        yield file


def tell_format(path: PathLike) -> str:
    """Return which of the formats of labels an HDF5 file has: "sleap", "nwb" or "deeplabcut".

    Raises:
        LabelsError: if it has none of them, cannot be opened, or h5py is not installed.
    """
    mend = "copy it again from where it was made; a file that breaks off was not written completely"
    with open_hdf5(path, "an HDF5 file", mend) as file:
        if "nwb_version" in file.attrs:
            return "nwb"
        if "frames" in file and "videos_json" in file:
            return "sleap"
        # Data frames that pandas wrote are groups with this attribute; DeepLabCut's tables are such.
        if any("pandas_type" in getattr(file.get(name), "attrs", ()) for name in file):
            return "deeplabcut"
        holds = ", ".join(file)[:80]
    raise LabelsError(
        "this HDF5 file is in no known format",
        path=path,
        expected="a SLEAP project (.slp), an NWB file, or a DeepLabCut table (.h5)",
        got=f"a file that holds {holds or 'nothing'}",
        mend="export the labels in one of these formats",
    )
