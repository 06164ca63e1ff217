"""PoseTrack17's annotation files as MATLAB writes them: a struct ``annolist`` with the fields of the JSON."""

from __future__ import annotations

import errno
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat, savemat

from posewarper.errors import LabelsError
from posewarper.files import replacing
from posewarper.instances import InstanceTable
from posewarper.io.annolist import annolist_document, table_of_annolist
from posewarper.io.records import PathLike


def read_annolist_mat(path: PathLike) -> InstanceTable:
    """Return the instances of a video from an annolist ``.mat`` file, as ``read_annolist`` does from JSON.

    Raises:
        LabelsError: if the file cannot be read or something in it is not as it should be.
    """
    mend = "use a .mat file of PoseTrack17, or the .json file of the same name"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scipy's remarks about MATLAB's own objects
            content = loadmat(path, simplify_cells=True, appendmat=False)
    except NotImplementedError as error:
        raise LabelsError(
            "the file is of MATLAB's version 7.3, which is not read here",
            path=path,
            mend="save it in MATLAB with save(..., '-v7'), or use the .json file of the same name",
        ) from error
    except Exception as error:  # scipy raises whatever a damaged byte leads to
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.EIO):
            raise
        raise LabelsError("cannot read this .mat file", path=path, got=error, mend=mend) from error
    if "annolist" not in content:
        names = [name for name in content if not name.startswith("__")]
        raise LabelsError(
            "the file does not hold annotations of PoseTrack17",
            path=path,
            expected="the struct annolist",
            got=", ".join(names)[:200] or "no variables",
            mend=mend,
        )
    document = {"annolist": _plain(content["annolist"])}
    for name in ("video", "nframes", "height", "width"):
        if name in content:
            document[name] = _plain(content[name])
    return table_of_annolist(document, path)


def _plain(value: Any) -> Any:
    """Return structs and arrays as objects, lists, numbers and texts, as they stand in the JSON files."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        # Arrays of a cell are what ``simplify_cells`` leaves of nested ones; their shape says nothing.
        return [_plain(item) for item in value.reshape(-1)] if value.dtype == object else value.tolist()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def write_annolist_mat(path: PathLike, table: InstanceTable) -> None:
    """Write a table as an annolist ``.mat`` file, for made-up downloads of PoseTrack17.

    Raises:
        LabelsError: if the table has another skeleton than PoseTrack's.
        OutputError: if the place cannot be written.
    """
    document = annolist_document(table)
    content = {key: value for key, value in document.items() if key != "annolist"}
    content["annolist"] = _structs(document["annolist"])
    with replacing(Path(path)) as temporary:
        savemat(temporary, content, appendmat=False, do_compression=True, long_field_names=True)


def _structs(values: list[Any]) -> Any:
    """Return a list of objects as a MATLAB struct array, in which all have the fields of any of them."""
    if not values:
        return np.zeros((0, 0))
    if not isinstance(values[0], dict):
        return np.array(values, np.float64)
    fields = list(dict.fromkeys(key for value in values for key in value))
    structs = np.empty((1, len(values)), dtype=[(name, object) for name in fields])
    for i, value in enumerate(values):
        for name in fields:
            item = value.get(name, [])
            structs[0, i][name] = _structs(item) if isinstance(item, list) else item
    return structs
