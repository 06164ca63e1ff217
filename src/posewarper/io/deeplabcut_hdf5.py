"""DeepLabCut's tables as HDF5, which pandas and PyTables write and read.

PyTables stores Python objects as pickles and unpickles them as soon as it opens a node, and a pickle may run
any code; and a damaged file may crash it, and Python with it. Every file is therefore read with h5py first,
which does neither, and what PyTables gets to see is a copy that was written anew. Pickles of plain data, in
which pandas keeps the names of columns, are let through; a file with any other, or with a link out of itself,
is refused.
"""

from __future__ import annotations

import io
import pickle
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from posewarper.errors import LabelsError
from posewarper.files import replacing
from posewarper.io.deeplabcut_table import (
    ONE_ANIMAL,
    SEVERAL_ANIMALS,
    Table,
    frame_or_path,
    problem,
    read_header,
)
from posewarper.io.hdf5 import import_extra, open_hdf5, quiet, reading
from posewarper.io.records import PathLike

_WHAT = "a DeepLabCut table"
_MEND = "give the .csv of the same name beside it, or let DeepLabCut write it again"
_INSTEAD = ", or give the .csv of the same name beside it"
# What DeepLabCut itself calls the table inside of the file.
_KEY = "df_with_missing"
_DEEPEST = 20  # groups in groups; pandas makes two


def read_hdf5(path: PathLike) -> Table:
    """Return the table that an HDF5 file holds.

    Raises:
        LabelsError: if anything in it is not as it should be, it could run code, or packages are missing.
    """
    pandas = _import_pandas(path)
    with tempfile.TemporaryDirectory() as folder, reading(path, _WHAT, _MEND):
        copy = Path(folder) / "copy.h5"
        _copy_plain(path, copy)
        frame = pandas.read_hdf(copy, mode="r")
        levels = [list(map(str, frame.columns.get_level_values(i))) for i in range(frame.columns.nlevels)]
        titles = tuple(frame.columns.names)
        index = [_label(label) for label in frame.index]
        cells = frame.to_numpy(dtype=np.float64, na_value=np.nan)
    if titles not in (ONE_ANIMAL, SEVERAL_ANIMALS):
        expected = f"rows {', '.join(ONE_ANIMAL)}"
        raise problem(path, "the header", "the header is not DeepLabCut's", expected, titles)
    header = read_header(path, "the header", levels)
    return Table(header, tuple(index), tuple(f"row {i + 1}" for i in range(len(index))), cells)


def write_hdf5(path: PathLike, table: Table, titles: Sequence[str], levels: Sequence[Sequence[str]]) -> None:
    """Write a table as DeepLabCut does: pandas' fixed format, images as three levels of the index.

    Args:
        path: the file.
        table: what to write.
        titles: :data:`ONE_ANIMAL` or :data:`SEVERAL_ANIMALS`.
        levels: the cells of these rows.

    Raises:
        LabelsError: if packages are missing.
        OutputError: if the file cannot be written.
    """
    pandas = _import_pandas(path)
    columns = pandas.MultiIndex.from_arrays(list(map(list, levels)), names=list(titles))
    parts = [tuple(image.split("/")) for image in table.images if isinstance(image, str)]
    index = pandas.MultiIndex.from_tuples(parts) if parts else list(table.images)
    frame = pandas.DataFrame(table.cells, columns=columns, index=index)
    with replacing(path) as temporary, quiet():
        frame.to_hdf(temporary, key=_KEY, mode="w", format="fixed")


def _import_pandas(path: PathLike) -> Any:
    import_extra("tables", path, instead=_INSTEAD)
    return import_extra("pandas", path, instead=_INSTEAD)


def _label(label: Any) -> str | int:
    """Return what stands before a row: the parts of a path, a path, or the index of a frame."""
    if isinstance(label, tuple):
        return "/".join(map(str, label)).replace("\\", "/")
    return frame_or_path(str(label))


class _PlainUnpickler(pickle.Unpickler):
    """Reads numbers, texts, lists, tuples and dicts; whatever else a pickle asks for is an error."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        raise _NotPlainError(f"{module_name}.{global_name}")


class _NotPlainError(Exception):
    """A pickle that holds more than plain data."""


def _copy_plain(path: PathLike, copy: Path) -> None:
    """Write what an HDF5 file holds into a new one, and refuse what PyTables would run as code.

    Raises:
        LabelsError: if there is such a thing in it.
    """
    h5py = import_extra("h5py", path, instead=_INSTEAD)
    with open_hdf5(path, _WHAT, _MEND) as file, h5py.File(copy, "w") as new:
        try:
            _copy_group(h5py, file, new)
        except _NotPlainError as error:
            raise LabelsError(
                "this file holds Python objects, which could run code when they are read",
                path=path,
                expected="numbers and texts alone, as DeepLabCut writes them",
                got=error,
                mend=_MEND,
            ) from error


def _copy_group(h5py: Any, old: Any, new: Any, depth: int = 0) -> None:
    if depth > _DEEPEST:
        raise ValueError("groups in groups without end")
    _copy_attributes(old, new)
    for name in old:
        _check_name(name)
        if isinstance(old.get(name, getlink=True), h5py.ExternalLink):
            raise _NotPlainError(f"{name} is a link to another file")
        node = old[name]
        if isinstance(node, h5py.Group):
            _copy_group(h5py, node, new.create_group(name), depth + 1)
        elif isinstance(node, h5py.Dataset):
            if _holds_objects(h5py, node.dtype):
                raise _NotPlainError(f"{name} holds Python objects")
            # PyTables knows its kinds of arrays by whether they are chunked and can grow.
            same = {"dtype": node.dtype, "chunks": node.chunks, "maxshape": node.maxshape}
            _copy_attributes(node, new.create_dataset(name, data=node[()], **same))


def _check_name(name: str) -> None:
    # One that is no text (h5py gives it as surrogates) crashes PyTables.
    name.encode("utf-8")


def _holds_objects(h5py: Any, dtype: Any) -> bool:
    return dtype.kind == "O" and h5py.check_string_dtype(dtype) is None


def _copy_attributes(old: Any, new: Any) -> None:
    for key, held in old.attrs.items():
        _check_name(key)
        for value in np.ravel(np.asarray(held)).tolist():
            if isinstance(value, bytes):
                _check_pickle(value)
            elif isinstance(value, str):
                _check_pickle(value.encode("utf-8", "surrogateescape"))
        # The type says whether a text is bytes or UTF-8, which PyTables tells apart.
        new.attrs.create(key, held, dtype=old.attrs.get_id(key).dtype)


def _check_pickle(value: bytes) -> None:
    """Raise if a text of a file is a pickle with more than plain data; most are no pickles at all."""
    for encoding in ("ASCII", "latin1", "bytes"):  # PyTables tries them in this order
        try:
            _PlainUnpickler(io.BytesIO(value), encoding=encoding).load()
        except _NotPlainError:
            raise
        except Exception:  # no pickle, or a broken one, which ends in the same way for PyTables
            continue
