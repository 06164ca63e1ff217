"""Reads PoseTrack's annotations or predictions into tables, from a file, a folder or a zip file."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from posewarper.errors import LabelsError, PosewarperWarning, few_of, first_sentence
from posewarper.files import refuse_bomb
from posewarper.formats.records import PathLike, parse_json, read_bytes, read_json, shown
from posewarper.posetrack.annolist import read_annolist_mat, table_of_annolist
from posewarper.posetrack.posetrack18 import only_video, tables_of_coco
from posewarper.structures import InstanceTable

_EXPECTED = "annolist .json or .mat (PoseTrack17), or .json with images and annotations (PoseTrack18 and 21)"


def read_tables(path: PathLike) -> dict[str, InstanceTable]:
    """Return all videos of a file, a folder of files or a zip file of files, told apart by their content.

    Files are annolist JSON or ``.mat`` (PoseTrack17), PoseTrack18's JSON (also PoseTrack21's), or one COCO
    JSON file of many videos. The key is the name of the file without suffix, or the video's name where a file
    holds several. Where a folder has the same video as ``.mat`` and ``.json``, the JSON is read, with a
    warning. Hidden files are passed over.

    Raises:
        LabelsError: if there is nothing at this place, it holds other files, or a file cannot be read.
    """
    place = Path(path)
    if place.is_dir():
        return _merge((file, _read_file(file)) for file in _find_files(place))
    if place.is_file() and zipfile.is_zipfile(place):
        return _read_zip(place)
    return _read_file(place)


def read_table(path: PathLike) -> InstanceTable:
    """Return the only video of a file in any of the forms; an error if it holds several."""
    return only_video(read_tables(path), path)


def _read_file(path: Path) -> dict[str, InstanceTable]:
    start = read_bytes(path, count=6)
    if path.suffix.lower() == ".mat" or start == b"MATLAB":
        return {path.stem: read_annolist_mat(path)}
    return _tables_of(read_json(path), path)


def _tables_of(document: Mapping[str, Any], path: Path) -> dict[str, InstanceTable]:
    if "annolist" in document:
        return {path.stem: table_of_annolist(document, path)}
    if "images" not in document:
        raise LabelsError(
            "these are no annotations or predictions of PoseTrack",
            path=path,
            expected=_EXPECTED,
            got=shown(dict(document)),
            fix="name a file or folder in one of these forms",
        )
    tables = tables_of_coco(document, path)
    return tables if len(tables) > 1 else {path.stem: next(iter(tables.values()))}


def _find_files(folder: Path) -> list[Path]:
    """Return the files to read, sorted by name."""
    content = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    files = [p for p in content if p.suffix.lower() in (".json", ".mat") and p.is_file()]
    if len(files) < len(content) or not files:
        strangers = [p.name + ("/" if p.is_dir() else "") for p in content if p not in files]
        raise LabelsError(
            "the folder holds more than files of PoseTrack" if files else "no files of PoseTrack here",
            path=folder,
            expected=f"a folder of nothing but {_EXPECTED}",
            got=few_of(strangers) or "an empty folder",
            fix="name the folder that the files are in" + (", or move the others away" if files else ""),
        )
    as_json = {p.stem for p in files if p.suffix.lower() == ".json"}
    twice = [p for p in files if p.suffix.lower() == ".mat" and p.stem in as_json]
    if twice:
        warnings.warn(
            f"{folder}: {len(twice)} videos are there as .mat and as .json, the first being {twice[0].stem}; "
            "the .json files are read",
            PosewarperWarning,
            stacklevel=3,
        )
    return [p for p in files if p not in set(twice)]


def _read_zip(path: Path) -> dict[str, InstanceTable]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(n for n in archive.namelist() if not PurePosixPath(n).name.startswith("."))
            names = [n for n in names if n.lower().endswith(".json") and not n.startswith("__MACOSX/")]
            refuse_bomb(archive)
            texts = {name: archive.read(name).decode("utf-8-sig") for name in names}
    except Exception as error:  # damaged, encrypted and oddly packed files fail in any way
        fix, got = "make the zip file again, or unpack it", first_sentence(error)
        raise LabelsError("cannot read this zip file", path=path, got=got, fix=fix) from error
    if not texts:
        raise LabelsError(
            "the zip file holds no .json files", path=path, expected=_EXPECTED, fix="name another file"
        )
    files = ((path / name, text) for name, text in texts.items())
    return _merge((file, _tables_of(parse_json(text, file), file)) for file, text in files)


def _merge(parts: Iterable[tuple[Path, dict[str, InstanceTable]]]) -> dict[str, InstanceTable]:
    tables: dict[str, InstanceTable] = {}
    sources: dict[str, Path] = {}
    for source, found in parts:
        for name, table in found.items():
            if name in tables:
                raise LabelsError(
                    f"two files hold video {name}",
                    path=source,
                    got=f"{sources[name].name} and {source.name}",
                    fix="keep one of the two",
                )
            tables[name], sources[name] = table, source
    return tables
