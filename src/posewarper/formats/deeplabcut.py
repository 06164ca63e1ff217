"""DeepLabCut: tables of labels, tables of predictions (CSV and HDF5), and projects. Reading and writing.

The individuals become tracks 0, 1, ... in the order of the columns, and keep their names. Keypoints that
only some of them have (those of ``single``) join the skeleton, and stay without label in the others. A
label is always visible here (visibility 2), an empty cell is no label, and a row without any label is a
frame that nobody has labelled. Coordinates are taken as they are: the centre of a pixel is a whole number,
as everywhere here.

HDF5 tables are pandas' own format, which PyTables reads and which may hold pickles. They are copied first,
without anything that could run code. A project may set a crop for a video; the size of the labelled images
tells whether they were cut out of their frames.
"""

from __future__ import annotations

import io
import itertools
import pickle
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from posewarper.errors import LabelsError, few_of
from posewarper.files import replacing
from posewarper.formats.clips import (
    Clip,
    Instance,
    VideoFacts,
    frames_to_write,
    has_one_nameless_track,
    join_loose,
    name_all_tracks,
)
from posewarper.formats.frame_names import (
    base_name,
    choose_video,
    find_frame_indices,
    folder_name,
    is_telling,
    or_train_on,
    stem_of,
    video_stem,
    videos_of_images,
    warn_of_numbers,
)
from posewarper.formats.records import (
    LARGEST_COORDINATE,
    LARGEST_INDEX,
    SIGNATURE,
    LabelFile,
    PathLike,
    import_extra,
    load_yaml,
    open_hdf5,
    quiet,
    read_bytes,
    read_csv,
    read_numbers,
    read_text,
    reading,
    warn,
    write_csv,
)
from posewarper.skeletons import Skeleton
from posewarper.structures import Floats, Labels, is_there
from posewarper.video.images import stored_size

_ONE_ANIMAL = ("scorer", "bodyparts", "coords")
_SEVERAL_ANIMALS = ("scorer", "individuals", "bodyparts", "coords")
_COORDS = ("x", "y", "likelihood")
_FIX = "give the table that DeepLabCut wrote, unchanged"
_FIX_HDF5 = "give the .csv of the same name beside it, or let DeepLabCut write it again"
_FIX_PROJECT = "give the config.yaml that DeepLabCut wrote, or one of its CollectedData tables alone"
_NOT_OURS = "the header is not DeepLabCut's"
# The individual that holds the keypoints which no animal has, in projects of several animals.
_SINGLE = "single"
_DEEPEST = 20  # groups in groups of an HDF5 file; pandas makes two
_CONFIG, _IMAGES = "config.yaml", "labeled-data"
_KEYS = ("video_sets", "bodyparts", "multianimalbodyparts")


def is_csv(text: str) -> bool:
    """Return whether a text looks like DeepLabCut's table."""
    try:
        _, first = next(read_csv(text, ""), ("", [""]))
    except LabelsError:
        return False
    return len(first) > 1 and first[0].strip() == "scorer"


def is_config(text: str) -> bool:
    """Return whether a text looks like the beginning of a project's configuration."""
    starts = ("Task:", *(f"{key}:" for key in _KEYS))
    return any(line.startswith(starts) for line in text.splitlines())


def is_project(path: PathLike) -> bool:
    """Return whether a path is the folder of a project, DeepLabCut's or Lightning Pose's."""
    return Path(path).is_dir() and ((Path(path) / _CONFIG).is_file() or bool(_tables_at_top(Path(path))))


def _tables_at_top(folder: Path) -> list[Path]:
    """Return the tables of a Lightning Pose project, which lie beside ``labeled-data``, one for each view."""
    return sorted(folder.glob("CollectedData*.csv")) if (folder / _IMAGES).is_dir() else []


def read_clip(path: PathLike, video: VideoFacts | None = None, skeleton: Skeleton | None = None) -> Clip:
    """Return what a DeepLabCut table or project says about one video.

    The path is a table (.csv or .h5), a project's ``config.yaml``, or its folder. The opened video picks one
    of several, and knows the frames' names. ``skeleton`` is not used, since the table has its own.

    Raises:
        LabelsError: if anything in the file is not as it should be.

    Warns:
        PosewarperWarning: about coordinates that stand alone, and if nothing tells whether the labelled
            images of a project were cut out of their frames.
    """
    file = path if isinstance(path, LabelFile) else LabelFile(path)
    place = Path(path)
    if place.is_dir() and not (place / _CONFIG).is_file() and len(tables := _tables_at_top(place)) < 2:
        return _read_table(replace(file, path=(*tables, place / _CONFIG)[0]), video)
    if place.is_dir():
        return _read_project(replace(file, path=place / _CONFIG), video)
    return (_read_project if place.suffix.lower() in (".yaml", ".yml") else _read_table)(file, video)


# --- tables -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Header:
    """What the columns of a table hold; the one individual of a table without such a row is called "".

    ``places`` holds for each column (individual, keypoint, 0 for x, 1 for y, 2 for likelihood).
    """

    scorer: str
    individuals: tuple[str, ...]
    names: tuple[str, ...]
    places: tuple[tuple[int, int, int], ...]


# The header; of each row the path of the image, or the index of the frame, and the place in the file; and
# the cells (rows, columns), pixels and likelihoods, NaN for empty ones.
_Table = tuple[_Header, list[str | int], list[str], Floats]


def _read_table(path: LabelFile, video: VideoFacts | None, folder: str | None = None) -> Clip:
    """Return what a table says of a video, or, in a project, of that whose ``folder`` it lies in."""
    is_hdf5 = read_bytes(path, count=len(SIGNATURE)) == SIGNATURE
    header, images, where, cells = _read_hdf5(path) if is_hdf5 else _parse_csv(read_text(path), path)
    if not images:
        raise LabelsError("the table has no rows", path=path, fix="label some frames in DeepLabCut and save")
    wrong = np.argwhere(np.abs(cells) > LARGEST_COORDINATE)
    if len(wrong):
        row, column = wrong[0].tolist()
        raise _wrong_cell(path, where[row], header, column, cells[row, column])
    values = np.full((len(cells), len(header.individuals), len(header.names), 3), np.nan)
    individual, keypoint, coord = np.array(header.places).T
    values[:, individual, keypoint, coord] = cells
    points, scores = values[..., :2], values[..., 2] if (coord == 2).any() else None
    there = is_there(points)
    alone = np.argwhere(np.isfinite(points).any(-1) & ~there)
    if len(alone):
        row, _, k = alone[0]
        more = f" and {len(alone) - 1} more" if len(alone) > 1 else ""
        what = f"{header.names[k]} has only one of x and y, and counts as not labelled{more}"
        warn(path, f"{where[row]}: {what}")
    points[~there] = np.nan

    stated = _video_of(path, header.scorer)
    keep, chosen, another = list(range(len(images))), folder, None
    if not path.loose:
        files = [image if isinstance(image, str) else "" for image in images]
        keys, told = videos_of_images(path, files, video, by_folder=True, alike="" in files)
        if told.keys() == {_IMAGES} and path.video is None and not (video and video.frame_names):
            _refuse_loose(path, images[0], video)
        elif folder is None:
            if told.keys() == {""} and stated is not None:
                told[""] = {stated.rstrip("_")}
            chosen, another = choose_video(path, told, video, of_images=True)
        elif folder not in told:
            warn(path, f"the table lies in the folder {folder}, and names images of {few_of(list(told))}")
        if chosen in told:
            keep = [i for i, key in enumerate(keys) if key == chosen]
    images = [images[i] for i in keep]
    frames = find_frame_indices(
        path,
        [where[i] for i in keep],
        [image if isinstance(image, str) else None for image in images],
        [image if isinstance(image, int) else None for image in images],
        video,
    )
    instances = [
        Instance(
            frame,
            track,
            points[i, track],
            there[i, track].astype(np.uint8) * 2,
            where[i],
            scores=None if scores is None else scores[i, track],
        )
        for frame, i in zip(frames, keep, strict=True)
        for track in np.flatnonzero(there[i].any(-1)).tolist()
    ]
    # Predictions have a row for every frame of the video, labels only those images that were picked.
    is_whole = scores is not None and images == list(range(len(images)))
    names = enumerate(header.individuals)
    return Clip(
        Skeleton(header.names, name="animal"),
        instances,
        labelled_frames={instance.frame for instance in instances} if scores is None else set(),
        n_frames=len(images) if is_whole else None,
        video=chosen or stated,
        frame_names={f: image for f, image in zip(frames, images, strict=True) if isinstance(image, str)},
        track_names={n: name for n, name in names if name not in ("", _default_individual(n))},
        another_video=another,
    )


def _refuse_loose(path: PathLike, image: object, video: VideoFacts | None) -> None:
    """Refuse the images of many videos as labels of one, and warn where no video is opened."""
    what = f"the images lie in {_IMAGES} itself, not in the folder of a video"
    if video is None:
        return warn(path, f"{what}: separate images, whose numbers may be no frames of a video")
    raise LabelsError(
        what,
        path=path,
        expected=f"images like {_IMAGES}/{Path(video.path).stem}/img0012.png",
        got=image,
        fix=f"if all are frames of this video, say so with --labels-of {_IMAGES}{or_train_on(path)}",
    )


def _problem(path: PathLike, where: str, what: str, expected: object, got: object) -> LabelsError:
    return LabelsError(f"{where}: {what}", path=path, expected=expected, got=got, fix=_FIX)


def _wrong_cell(path: PathLike, where: str, header: _Header, column: int, got: object) -> LabelsError:
    what = f"a coordinate of {header.names[header.places[column][1]]} is wrong"
    return _problem(path, where, what, "a number of pixels, or an empty cell", got)


def _read_header(path: PathLike, where: str, levels: Sequence[Sequence[str]]) -> _Header:
    """Return what the columns hold, by the cells of the header's rows without their titles."""
    scorers, parts, coords = levels[0], levels[-2], levels[-1]
    owners = levels[1] if len(levels) == len(_SEVERAL_ANIMALS) else [""] * len(parts)
    individuals, names = tuple(dict.fromkeys(owners)), tuple(dict.fromkeys(parts))
    if unknown := sorted(set(coords) - set(_COORDS)):
        got = ", ".join(map(repr, unknown))[:80]
        raise _problem(path, where, "the header is wrong", "coords x, y and likelihood", got)
    if len(set(scorers)) > 1:
        got = ", ".join(dict.fromkeys(scorers))[:80]
        raise _problem(path, where, "the table mixes several scorers", "the columns of one scorer", got)
    owner_of, part_of = ({name: n for n, name in enumerate(each)} for each in (individuals, names))
    places = [
        (owner_of[owner], part_of[part], _COORDS.index(coord))
        for owner, part, coord in zip(owners, parts, coords, strict=True)
    ]
    known = set(places)
    is_alone = any(not {(n, k, 0), (n, k, 1)} <= known for n, k, _ in places)
    if is_alone or len(known) < len(places) or "" in names or not places:
        predicted = ", in a table of predictions" if "likelihood" in coords else ""
        got = f"a column twice, without a name, or x without y{predicted}"
        raise _problem(path, where, "the columns do not pair", "x and y of each keypoint", got)
    return _Header(scorers[0], individuals, names, tuple(places))


def _video_of(path: PathLike, scorer: str) -> str | None:
    """Return the video that a table is about, whose rows do not say so.

    In the name of a file of predictions the scorer's name follows, which begins with DLC as a rule; Lightning
    Pose's have the name of the video alone. Labels lie in the folder of the video.
    """
    place = Path(path)
    if place.parent.parent.name == _IMAGES:
        return place.parent.name
    for begin in (scorer, "DLC_"):
        video, found, _ = place.stem.partition(begin) if begin else ("", "", "")
        if found and video:
            return video
    # Its networks are called heatmap_tracker, heatmap_mhcrnn_tracker, ...
    return place.stem if scorer.endswith("_tracker") and is_telling(place.stem) else None


def _default_individual(n: int) -> str:
    """Return what the n-th individual is called whose track has no name."""
    return f"ind{n + 1}"


def _frame_or_path(label: str) -> str | int:
    """Return what stands before a row, as the index of a frame if it is a whole number."""
    is_number = label.isascii() and label.isdigit() and len(label) <= 10 and int(label) <= LARGEST_INDEX
    return int(label) if is_number else label.replace("\\", "/")


def _parse_csv(text: str, path: PathLike) -> _Table:
    if not is_csv(text):
        raise _problem(path, "line 1", _NOT_OURS, "a first cell 'scorer'", text.lstrip()[:20])
    rows = list(read_csv(text, path))
    titles = [row[0].strip() if row else "" for _, row in rows[: len(_SEVERAL_ANIMALS)]]
    wanted = _SEVERAL_ANIMALS if "individuals" in titles else _ONE_ANIMAL
    if tuple(titles[: len(wanted)]) != wanted:
        got = ", ".join(title[:20] or "(empty)" for title in titles)
        raise _problem(path, "line 1", _NOT_OURS, f"rows {', '.join(wanted)}", got)
    top = [row for _, row in rows[: len(wanted)]]
    # Excel fills up all rows with empty cells.
    width = max((n for n, cell in enumerate(top[-1], start=1) if cell.strip()), default=0)
    top = [row[:width] if not any(row[width:]) else row for row in top]
    if any(len(row) != width for row in top):
        lengths = ", ".join(str(len(row)) for row in top)
        what = "the header's rows have different lengths"
        raise _problem(path, "line 1", what, f"{width} cells each", lengths)
    indent = next((i for i, cell in enumerate(top[0]) if i and cell.strip()), width)
    if indent not in (1, 3) or indent == width:
        expected = "1 or 3 columns for the image, then the coordinates"
        raise _problem(path, "line 1", _NOT_OURS, expected, f"{indent} of {width}")
    levels = [[cell.strip() for cell in row[indent:]] for row in top]
    header = _read_header(path, f"line {len(wanted)}", levels)

    body = [(where, row) for where, row in rows[len(wanted) :] if any(row)]
    body = [(where, row[:width] if not any(row[width:]) else row) for where, row in body]
    cells = np.full((len(body), width - indent), np.nan)
    to_number = read_numbers(cell.strip() for _, row in body for cell in row[indent:])
    for values, (where, row) in zip(cells, body, strict=True):
        if len(row) != width:
            what, expected = "the row has another length than the header", f"{width} cells, as the header has"
            raise _problem(path, where, what, expected, len(row))
        for column, cell in enumerate(row[indent:]):
            try:
                values[column] = to_number(cell.strip())
            except ValueError as error:
                raise _wrong_cell(path, where, header, column, cell[:40]) from error
    images = [_frame_or_path("/".join(row[:indent])) for _, row in body]
    return header, images, [where for where, _ in body], cells


# --- HDF5 -------------------------------------------------------------------------------------------------


def _import(name: str, path: PathLike) -> Any:
    return import_extra(name, path, instead=", or give the .csv of the same name beside it")


def _read_hdf5(path: PathLike) -> _Table:
    _import("tables", path)
    pandas, h5py, what = _import("pandas", path), _import("h5py", path), "a DeepLabCut table"
    with tempfile.TemporaryDirectory() as folder, reading(path, what, _FIX_HDF5):
        copy = Path(folder) / "copy.h5"
        with open_hdf5(path, what, _FIX_HDF5) as file, h5py.File(copy, "w") as new:
            _copy_group(h5py, file, new)
        frame = pandas.read_hdf(copy, mode="r")
        levels = [list(map(str, frame.columns.get_level_values(i))) for i in range(frame.columns.nlevels)]
        titles = tuple(frame.columns.names)
        # Before a row stand the parts of a path, a path, or the index of a frame.
        labels = [
            "/".join(map(str, label)) if isinstance(label, tuple) else str(label) for label in frame.index
        ]
        cells = frame.to_numpy(dtype=np.float64, na_value=np.nan)
    if titles not in (_ONE_ANIMAL, _SEVERAL_ANIMALS):
        raise _problem(path, "the header", _NOT_OURS, f"rows {', '.join(_ONE_ANIMAL)}", titles)
    header = _read_header(path, "the header", levels)
    return header, list(map(_frame_or_path, labels)), [f"row {i + 1}" for i in range(len(labels))], cells


def _not_plain(got: str) -> LabelsError:
    """Return the error for what PyTables would run as code."""
    return LabelsError(
        "this file holds Python objects, which could run code when they are read",
        expected="numbers and texts alone, as DeepLabCut writes them",
        got=got,
        fix=_FIX_HDF5,
    )


class _PlainUnpickler(pickle.Unpickler):
    """Reads numbers, texts, lists, tuples and dicts; whatever else a pickle asks for is an error."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        raise _not_plain(f"{module_name}.{global_name}")


def _copy_group(h5py: Any, old: Any, new: Any, depth: int = 0) -> None:
    """Copy what a group of an HDF5 file holds, and refuse what PyTables would run as code."""
    if depth > _DEEPEST:
        raise ValueError("its groups are nested too deeply")
    _copy_attributes(old, new)
    for name in old:
        name.encode("utf-8")  # fails for a name that is no text, which would crash PyTables
        node = old[name]
        if isinstance(node, h5py.Group):
            _copy_group(h5py, node, new.create_group(name), depth + 1)
        elif isinstance(node, h5py.Dataset):
            if node.dtype.kind == "O" and h5py.check_string_dtype(node.dtype) is None:
                raise _not_plain(f"{name} holds Python objects")
            # PyTables knows its kinds of arrays by whether they are chunked and can grow.
            same = {"dtype": node.dtype, "chunks": node.chunks, "maxshape": node.maxshape}
            _copy_attributes(node, new.create_dataset(name, data=node[()], **same))


def _copy_attributes(old: Any, new: Any) -> None:
    for key, held in old.attrs.items():
        key.encode("utf-8")
        for value in np.ravel(np.asarray(held)).tolist():
            if isinstance(value, bytes | str):
                _check_pickle(value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape"))
        # The type says whether a text is bytes or UTF-8, which PyTables tells apart.
        new.attrs.create(key, held, dtype=old.attrs.get_id(key).dtype)


def _check_pickle(value: bytes) -> None:
    """Raise if a text of a file is a pickle with more than plain data; most are no pickles at all."""
    for encoding in ("ASCII", "latin1", "bytes"):  # PyTables tries them in this order
        try:
            _PlainUnpickler(io.BytesIO(value), encoding=encoding).load()
        except LabelsError:
            raise
        except Exception:  # no pickle, or a broken one, which ends in the same way for PyTables
            continue


# --- projects ---------------------------------------------------------------------------------------------


def _read_project(file: LabelFile, video: VideoFacts | None) -> Clip:
    path = Path(file)
    # The loader of plain texts, lists and dicts: names such as "no" or "1e3" stay what they are.
    config = load_yaml(read_text(path, "project"), path, "project", yaml.BaseLoader)
    if not isinstance(config, dict) or not any(key in config for key in _KEYS):
        raise LabelsError(
            "this is no DeepLabCut project",
            path=path,
            expected=f"one of the settings {', '.join(_KEYS)}",
            got=", ".join(map(str, config))[:80] if isinstance(config, dict) else type(config).__name__,
            fix=_FIX_PROJECT,
        )
    crops: dict[str, Any] = {}  # path of a video -> its crop as it stands there, or None
    # The original videos are set aside where the project was cut into tiles.
    for key in ("video_sets_original", "video_sets"):
        entries = config.get(key) or {}
        if not isinstance(entries, dict):
            raise _wrong(path, key, "a path and its settings for each video", entries)
        for name, settings in entries.items():
            crops[name] = crops.get(name) or (settings.get("crop") if isinstance(settings, dict) else None)
    tables = _find_tables(path, config.get("scorer"))
    if file.loose:
        clips = [_read_table(replace(file, path=table), None) for table in tables.values()]
        for clip in clips:
            _take_skeleton(clip, config, path)
        return join_loose(clips, path)
    names = {folder: {folder, *(v for v in crops if stem_of(v) == folder)} for folder in tables}
    names |= {stem_of(v): {v} for v in crops if stem_of(v) not in names}
    folder, another = choose_video(replace(file, path=path), names, video, tables, of_images=True)
    clip = _read_table(replace(file, path=tables[folder], video=None), video, folder)

    _take_skeleton(clip, config, path)
    entry = next((name for name in crops if stem_of(name) == folder), None)
    clip.video, clip.another_video = base_name(entry) if entry is not None else folder, another
    if entry is not None and crops[entry] is not None:
        _undo_crop(clip, crops[entry], tables[folder], path, video)
    return clip


def _wrong(path: Path, key: str, expected: str, got: object) -> LabelsError:
    return LabelsError(f"{key} is wrong", path=path, expected=expected, got=str(got)[:80], fix=_FIX_PROJECT)


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _take_skeleton(clip: Clip, config: Mapping[str, Any], path: Path) -> None:
    """Give the clip the project's order of keypoints and its edges."""
    found, stated = clip.skeleton.names, []
    for key in ("multianimalbodyparts", "uniquebodyparts", "bodyparts"):
        values = config.get(key) or []
        if key == "bodyparts" and values == "MULTI!":  # which stands there in projects of several animals
            continue
        if not _are_texts(values) or not all(values):
            raise _wrong(path, key, "a list of names", values)
        stated += values
    names = list(dict.fromkeys([*stated, *found]))
    index = {name: k for k, name in enumerate(names)}
    pairs = config.get("skeleton") or []
    wrong = [p for p in pairs if not _are_texts(p) or len(p) != 2] if isinstance(pairs, list) else [pairs]
    if wrong:
        raise _wrong(path, "skeleton", "a list of pairs of keypoints", wrong[0])
    edges = tuple((index[a], index[b]) for a, b in pairs if {a, b} <= index.keys())
    strangers = {name for pair in pairs for name in pair} - index.keys()
    if strangers:
        listed = ", ".join(sorted(strangers)[:10])
        warn(path, f"skeleton: edges of keypoints that the project does not have are left out: {listed}")
    clip.skeleton = Skeleton(tuple(names), edges, name=clip.skeleton.name)
    place = [index[name] for name in found]
    for instance in clip.instances:
        keypoints, visibility = instance.keypoints, instance.visibility
        instance.keypoints = np.full((len(names), 2), np.nan)
        instance.visibility = np.zeros(len(names), np.uint8)
        instance.keypoints[place], instance.visibility[place] = keypoints, visibility
        if instance.scores is not None:
            scores, instance.scores = instance.scores, np.full(len(names), np.nan)
            instance.scores[place] = scores


def _find_tables(config: Path, scorer: Any) -> dict[str, Path]:
    """Return folder of a video -> its table: the project's scorer's, and as CSV, where there are several."""
    tables: dict[str, Path] = {}
    scorer = scorer if isinstance(scorer, str) else ""
    for folder in sorted(path for path in (config.parent / _IMAGES).glob("*") if path.is_dir()):
        found = sorted(path for path in folder.glob("CollectedData_*") if path.suffix in (".csv", ".h5"))
        own = [path for path in found if path.stem == f"CollectedData_{scorer}"] or found
        if len({path.stem for path in own}) > 1:
            raise LabelsError(
                "several scorers have labelled the same video",
                path=folder,
                expected=f"a table CollectedData_{scorer}" if scorer else "the setting scorer in config.yaml",
                got=", ".join(path.name for path in own)[:200],
                fix="name the scorer in config.yaml, or give one of the tables alone",
            )
        if own:
            tables[folder.name] = own[0]
    return tables


def _undo_crop(clip: Clip, stated: Any, table: Path, config: Path, video: VideoFacts | None) -> None:
    """Move the labels of images that were cut out of their frames back to the frames, in place."""
    try:
        parts = stated.split(",") if isinstance(stated, str) else stated
        x1, x2, y1, y2 = (int(float(part)) for part in parts)
    except (TypeError, ValueError, OverflowError):
        x1 = x2 = y1 = y2 = 0
    name = base_name(str(clip.video))
    if not (0 <= x1 < x2 and 0 <= y1 < y2):
        raise _wrong(config, f"crop of {name}", "x1, x2, y1, y2 in pixels", stated)
    whole = None if video is None else (video.image_size[0], video.image_size[1])
    if whole is not None and (y2 > whole[0] or x2 > whole[1]):
        raise LabelsError(
            "the video is smaller than the part of it that the project cuts out",
            path=config,
            expected=f"a video of at least {x2} x {y2} pixels (width x height)",
            got=f"{whole[1]} x {whole[0]} pixels",
            fix="use the video that the labels were made on",
        )
    sizes = {frame: stored_size(table.parent / base_name(image)) for frame, image in clip.frame_names.items()}
    known = {size for size in sizes.values() if size is not None}
    cut = {size: _is_cut(size, (x1, x2, y1, y2), whole, table) for size in known}
    guess = all(cut.values())
    if (x1, y1) != (0, 0) and None in sizes.values():
        warn(
            config,
            f"a crop of {x2 - x1} x {y2 - y1} pixels at ({x1}, {y1}) is set for {name}, and labelled images, "
            "whose size would tell whether it was applied, are not there; their labels are "
            f"{'moved to it' if guess else 'left where they are'}",
        )
    for instance in clip.instances:
        size = sizes.get(instance.frame)
        if guess if size is None else cut[size]:
            instance.keypoints = instance.keypoints + np.array([x1, y1], np.float64)
    # A crop that begins at the first pixel is as a rule the whole frame, DeepLabCut's default.
    full = [size for size, is_cut in cut.items() if not is_cut or (whole is None and (x1, y1) == (0, 0))]
    clip.image_size = full[0] if len(full) == 1 else None


def _is_cut(
    size: tuple[int, int], crop: tuple[int, int, int, int], whole: tuple[int, int] | None, table: Path
) -> bool:
    """Return whether an image (height, width) is the crop rather than the whole frame."""
    x1, x2, y1, y2 = crop
    if size in (whole, (y2 - y1, x2 - x1)):
        return size != whole
    if whole is None and size[0] >= y2 and size[1] >= x2:
        return False
    frame = f" or {whole[1]} x {whole[0]}, the video's" if whole is not None else ""
    raise LabelsError(
        "the labelled images have neither the size of the frames nor that of the crop",
        path=table,
        expected=f"{x2 - x1} x {y2 - y1}, the crop's in config.yaml{frame} (width x height)",
        got=f"{size[1]} x {size[0]} pixels",
        fix="use the video that the labels were made on, and set the crop with which frames were extracted",
    )


# --- writing ----------------------------------------------------------------------------------------------


def write_labels(path: PathLike, labels: Labels, video: VideoFacts | None = None) -> list[str]:
    """Write labels as DeepLabCut's table, exactly as given: as HDF5 if the suffix is .h5, else as CSV.

    The scorer is that of a file name like ``CollectedData_Ann.csv``, else "posewarper". Where a track is
    called ``single``, keypoints that it alone has are written for it alone, as DeepLabCut does. Returns what
    the table has a place for, but cannot hold in this case.

    Raises:
        LabelsError: if packages are missing.
        OutputError: if the file cannot be written.

    Warns:
        PosewarperWarning: if the frames' indices can be told only with the folder of frames.
    """
    stem = Path(path).stem
    scorer = stem.removeprefix("CollectedData_") if stem.startswith("CollectedData_") else "posewarper"
    frames = np.union1d(labels.instance_frames, labels.labelled_frames).tolist()
    own = {frame: labels.frame_names[frame] for frame in frames if frame in labels.frame_names}
    folders = filter(None, map(folder_name, own.values()))
    folder = video_stem(labels.video) if labels.video else next(folders, "video")
    digits = max(4, len(str(labels.n_frames or 0)))
    names = _name_all({frame: base_name(name) for frame, name in own.items()}, frames, digits)
    images = {frame: f"labeled-data/{folder}/{name}" for frame, name in names.items()}
    _write(path, labels, scorer, images, _COORDS[:2])
    warn_of_numbers(path, images)
    if any(base_name(name) != names.get(frame) for frame, name in own.items()):
        return ["the names of the frames' files, since other frames have none"]
    is_lost = labels.frame_names.keys() - images.keys()
    return ["the names of the frames' files where nobody is"] if is_lost else []


def _name_all(names: Mapping[int, str], frames: Sequence[int], digits: int) -> dict[int, str]:
    """Return a name for the image of each frame, all after one scheme: that of the names given, if it shows.

    Otherwise the images are named as DeepLabCut names them.
    """
    if len(names) == len(frames) > 0:
        return dict(names)
    for frame, name in names.items():
        if (parts := re.fullmatch(r"(.*?)([0-9]+)([^0-9]*)", name)) is None:
            break
        offset, width = int(parts[2]) - frame, len(parts[2])
        every = {f: f"{parts[1]}{f + offset:0{width}d}{parts[3]}" for f in frames}
        if frames[0] + offset >= 0 and all(every[f] == own for f, own in names.items()):
            return every
        break
    return {frame: f"img{frame:0{digits}d}.png" for frame in frames}


def write_predictions(path: PathLike, labels: Labels, video: VideoFacts | None = None) -> list[str]:
    """Write every pose as DeepLabCut's table of predictions: a row for each frame, and a likelihood.

    The likelihood is the score, and 1 for labels that have none. The scorer is what stands behind the video's
    name in the file's name, from ``DLC`` on, else "DLC_posewarper". Returns what the table has a place for,
    but cannot hold in this case.

    Raises:
        LabelsError: if packages are missing.
        OutputError: if the file cannot be written.
    """
    stem = Path(path).stem
    scorer = stem[stem.index("DLC") :] if "DLC" in stem else "DLC_posewarper"
    room = 3 * len(labels.tracks) * len(labels.skeleton)
    _write(path, labels, scorer, {f: f for f in range(frames_to_write(path, labels, "rows", room))}, _COORDS)
    labels_alone = labels.only_labelled()
    lost = ["which poses are predictions, and which labels"] if labels_alone.tracks else []
    if any((np.isnan(t.keypoint_scores) & t.placed).any() for t in labels_alone.tracks.values()):
        lost.append("which keypoints have no score: labels get a likelihood of 1")
    if labels.video is not None and _video_of(path, scorer) != stem_of(labels.video):
        lost.append("the video's name, unless the file is called <video>DLC_<anything>")
    return lost


def _write(
    path: PathLike, labels: Labels, scorer: str, images: Mapping[int, str | int], coords: Sequence[str]
) -> None:
    """Write a table with a row for each frame (frame -> what stands before the row)."""
    values = np.full((len(images), len(labels.tracks), len(labels.skeleton), 3), np.nan)
    row_of = {frame: row for row, frame in enumerate(images)}
    for n, track in enumerate(labels.tracks.values()):
        rows = [row_of[frame] for frame in track.frames.tolist()]
        scores = np.where(track.placed & np.isnan(track.keypoint_scores), 1.0, track.keypoint_scores)
        values[rows, n] = np.concatenate([track.keypoints, scores[..., None]], -1)
    order = {track: n for n, track in enumerate(labels.tracks)}
    individuals = tuple(name_all_tracks(labels, lambda track: _default_individual(order[track])).values())
    columns = [(n, k, c) for n, k in _choose_columns(labels, individuals) for c in range(len(coords))]
    levels = {
        "scorer": [scorer] * len(columns),
        "individuals": [individuals[n] for n, _, _ in columns],
        "bodyparts": [labels.skeleton.names[k] for _, k, _ in columns],
        "coords": [coords[c] for _, _, c in columns],
    }
    if has_one_nameless_track(labels):
        del levels["individuals"]
    n, k, c = np.array(columns, np.int64).reshape(-1, 3).T
    cells = values[:, n, k, c]
    if Path(path).suffix.lower() not in (".h5", ".hdf5", ".hdf"):
        top = [[title, *level] for title, level in levels.items()]
        rows = (["" if value != value else repr(value) for value in row.tolist()] for row in cells)
        body = ([image, *row] for image, row in zip(images.values(), rows, strict=True))
        write_csv(path, itertools.chain(top, body))
        return
    # As DeepLabCut does: pandas' fixed format, images as three levels of the index.
    _import("tables", path)
    pandas = _import("pandas", path)
    header = pandas.MultiIndex.from_arrays(list(levels.values()), names=list(levels))
    parts = [tuple(image.split("/")) for image in images.values() if isinstance(image, str)]
    index = pandas.MultiIndex.from_tuples(parts) if parts else list(images)
    frame = pandas.DataFrame(cells, columns=header, index=index)
    with replacing(path) as temporary, quiet():
        frame.to_hdf(temporary, key="df_with_missing", mode="w", format="fixed")  # DeepLabCut's own key


def _choose_columns(labels: Labels, individuals: tuple[str, ...]) -> list[tuple[int, int]]:
    """Return the pairs (individual, keypoint) that get columns, in order."""
    count = len(labels.skeleton)
    every = [(n, k) for n in range(len(individuals)) for k in range(count)]
    if _SINGLE not in individuals:
        return every
    single = individuals.index(_SINGLE)
    seen = np.array([(track.visibility > 0).any(0) for track in labels.tracks.values()])
    alone = seen[single] & ~np.delete(seen, single, axis=0).any(0)
    some = [(n, k) for n, k in every if alone[k] == (n == single)]
    # The keypoints are read back in the order of the columns, and must not change it.
    keeps = list(dict.fromkeys(k for _, k in some)) == list(range(count)) and not seen[single][~alone].any()
    return some if keeps else every
