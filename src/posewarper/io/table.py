"""A long table of labels as CSV: one row for each keypoint of each instance. Reading.

Columns are told by their names, in any order: ``frame`` (from 0) or ``time`` (seconds from the first frame)
or both, of which the frame counts; ``track``; ``keypoint``; ``x``; ``y``; and where there are such
``visibility`` (2, 1 or 0 as everywhere here), ``score``, ``expected_error``, ``labelled`` (0 where the frame
holds predictions) and ``track_name``. A track may be a number or a name. A keypoint without x and y is not
there. A row without track and keypoint is a labelled frame that shows nobody. Commas, semicolons or tabs
separate; with the latter two a comma may stand in numbers.
"""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from posewarper.errors import LabelsError, PosewarperWarning
from posewarper.io.clips import Clip, Instance, VideoFacts
from posewarper.io.records import LARGEST_COORDINATE, LARGEST_INDEX, PathLike
from posewarper.io.table_times import check_times, find_frames
from posewarper.skeletons import Skeleton

# Column -> other names that it goes by in tables of others, in small letters. If a table has several of
# them, the first of these counts.
_SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "frame": ("frame_index", "frame_idx", "frame_id", "frame_number", "image_index"),
    "time": ("t", "seconds", "time_s", "time_sec", "time (s)", "time [s]", "timestamp", "sec"),
    "track": ("track_id", "individual", "individuals", "id", "animal", "person", "instance", "subject"),
    "track_name": ("individual_name",),
    "keypoint": ("keypoints", "bodypart", "bodyparts", "body_part", "node", "joint", "landmark", "marker"),
    "x": ("x_px", "x (px)", "x [px]"),
    "y": ("y_px", "y (px)", "y [px]"),
    "visibility": ("v",),
    "score": ("likelihood", "confidence", "p", "prob", "probability"),
    "expected_error": ("expected_error_px",),
    "labelled": ("labeled", "is_labeled", "is_labelled"),
}
_COLUMNS = {name: (column, n) for column, o in _SYNONYMS.items() for n, name in enumerate((column, *o))}
_MEND = "correct the cell, or write the table again"
_Row = dict[str, str]


@dataclass
class _Line:
    """One row that is about a keypoint, with numbers checked; ``where`` names its place in the file."""

    where: str
    frame: int
    track: str
    keypoint: str
    xy: tuple[float, float]
    visibility: int
    score: float
    expected_error: float


def is_table(text: str) -> bool:
    """Return whether a text begins with a header of such a table."""
    try:
        header = next(csv.reader(io.StringIO(text.lstrip(), newline=""), delimiter=_find_separator(text)), [])
    except csv.Error:
        return False
    columns = set(_name_columns(header))
    return {"keypoint", "x", "y"} <= columns and bool(columns & {"frame", "time"})


def _find_separator(text: str) -> str:
    header = next(iter(text.lstrip().splitlines()), "")
    return max((",", ";", "\t"), key=header.count)


def _name_columns(header: Sequence[str]) -> list[str | None]:
    """Return which column each cell of the header names, None for others."""
    found = [_COLUMNS.get(" ".join(cell.split()).lower(), (None, 0)) for cell in header]
    best = {column: min(n for c, n in found if c == column) for column, _ in found}
    return [column if n == best[column] else None for column, n in found]


# --- reading ----------------------------------------------------------------------------------------------


def read_clip(
    text: str, path: PathLike, video: VideoFacts | None = None, skeleton: Skeleton | None = None
) -> Clip:
    """Return what a table says.

    Args:
        text: the content of the file.
        path: its path, for messages.
        video: the opened video, which is needed where only the time is given: each row belongs to the frame
            whose time is nearest.
        skeleton: gives the order of the keypoints, which is that of their first rows otherwise.

    Raises:
        LabelsError: if anything in the table is not as it should be.

    Warns:
        PosewarperWarning: about columns that are not used, and times between the frames.
    """
    separator, rows = _split(text, path)
    if not rows:
        raise LabelsError("the table has no rows", path=path, mend="label some frames and export again")
    frames = _frames_of(rows, path, video, separator)
    labelled = _read_flags(rows, frames, path)
    empty = {where for where, row in rows if not any(row.get(c) for c in ("track", "keypoint", "x", "y"))}
    lines = [
        _read_line(row, where, frame, path, separator)
        for (where, row), frame in zip(rows, frames, strict=True)
        if where not in empty
    ]
    names = tuple(dict.fromkeys(line.keypoint for line in lines))
    if skeleton is not None and set(names) <= set(skeleton.names):
        names = skeleton.names
    if not names:
        raise LabelsError("the table has no keypoints", path=path, mend="label at least one frame")
    ids, track_names = _identify(lines, rows, path)
    instances = _gather(lines, names, ids, path)
    return Clip(Skeleton(names), instances, labelled_frames=labelled, track_names=track_names)


def _split(text: str, path: PathLike) -> tuple[str, list[tuple[str, _Row]]]:
    """Return the separator, and (place, column -> cell) of each row that is not empty."""
    separator = _find_separator(text)
    reader = csv.reader(io.StringIO(text.lstrip(), newline=""), delimiter=separator, strict=True)
    rows: list[tuple[str, _Row]] = []
    try:
        columns = _read_header(next(reader), path)
        for cells in reader:
            where = f"line {reader.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(columns):
                raise LabelsError(
                    f"{where}: the row has another length than the header",
                    path=path,
                    expected=f"{len(columns)} cells",
                    got=len(cells),
                    mend=_MEND,
                )
            rows.append((where, {c: cell.strip() for c, cell in zip(columns, cells, strict=True) if c}))
    except csv.Error as error:
        mend = "save it as CSV, and check the quotation marks"
        what = f"line {reader.line_num}: the file is no valid CSV"
        raise LabelsError(what, path=path, got=error, mend=mend) from error
    return separator, rows


def _read_header(cells: Sequence[str], path: PathLike) -> list[str | None]:
    columns = _name_columns(cells)
    known = [column for column in columns if column is not None]
    missing = [column for column in ("keypoint", "x", "y") if column not in known]
    missing += [] if {"frame", "time"} & set(known) else ["frame"]
    if missing:
        raise LabelsError(
            "line 1: the header lacks columns",
            path=path,
            expected="frame or time, keypoint, x, y",
            got=", ".join(cells)[:80],
            mend=f"name the columns that are {', '.join(missing)}",
        )
    repeated = sorted({column for column in known if known.count(column) > 1})
    if repeated:
        got = ", ".join(repeated)
        raise LabelsError("line 1: columns are there twice", path=path, got=got, mend="remove one of them")
    unused = [cell.strip()[:40] for cell, column in zip(cells, columns, strict=True) if column is None]
    if unused:
        _warn(path, f"columns that are not used: {', '.join(unused)[:200]}")
    return columns


def _number(row: _Row, column: str, where: str, path: PathLike, separator: str, largest: float) -> float:
    """Return the number in a cell, NaN if the cell is empty."""
    cell = row.get(column, "")
    if not cell or cell.lower() in ("nan", "na", "none", "null"):
        return np.nan
    try:
        number = float(cell if separator == "," else cell.replace(",", "."))
    except ValueError:
        number = np.inf
    if not abs(number) <= largest:
        raise LabelsError(
            f"{where}: {column} is wrong", path=path, expected="a number", got=cell[:40], mend=_MEND
        )
    return number


def _frames_of(
    rows: Sequence[tuple[str, _Row]], path: PathLike, video: VideoFacts | None, separator: str
) -> list[int]:
    """Return the frame of each row."""
    found: dict[str, list[float]] = {}
    for column, largest in (("frame", LARGEST_INDEX), ("time", 1e9)):
        found[column] = [_number(row, column, where, path, separator, largest) for where, row in rows]
    frames, times = np.array(found["frame"]), np.array(found["time"])
    places = [where for where, _ in rows]
    if np.isnan(frames).all():
        return find_frames(times, places, path, video)
    wrong = ~((frames >= 0) & (frames == np.floor(frames)))
    if wrong.any():
        i = int(np.argmax(wrong))
        got, expected = rows[i][1]["frame"][:40], "a whole number from 0"
        raise LabelsError(f"{places[i]}: frame is wrong", path=path, expected=expected, got=got, mend=_MEND)
    check_times(times, frames.astype(np.int64), path, video)
    return frames.astype(np.int64).tolist()


def _read_flags(rows: Sequence[tuple[str, _Row]], frames: Sequence[int], path: PathLike) -> set[int]:
    """Return the frames that are labelled: all, unless the column ``labelled`` says otherwise."""
    flags: dict[int, bool] = {}
    for (where, row), frame in zip(rows, frames, strict=True):
        cell = row.get("labelled", "").lower()
        if cell not in ("", "0", "1", "true", "false", "0.0", "1.0"):
            expected = "1 or 0"
            got = cell[:40]
            raise LabelsError(
                f"{where}: labelled is wrong", path=path, expected=expected, got=got, mend=_MEND
            )
        flag = cell not in ("0", "false", "0.0")
        if flags.setdefault(frame, flag) != flag:
            raise LabelsError(
                f"{where}: frame {frame} is marked as labelled in one row and as not labelled in another",
                path=path,
                mend="give all rows of a frame the same value",
            )
    return {frame for frame, flag in flags.items() if flag}


def _read_line(row: _Row, where: str, frame: int, path: PathLike, separator: str) -> _Line:
    if not row["keypoint"]:
        raise LabelsError(f"{where}: keypoint is empty", path=path, mend="name the keypoint")
    x, y = (_number(row, c, where, path, separator, LARGEST_COORDINATE) for c in "xy")
    if np.isnan(x) != np.isnan(y):
        _warn(path, f"{where}: only one of x and y is there; the keypoint counts as not labelled")
    visibility = _number(row, "visibility", where, path, separator, 2)
    visibility = 2 if np.isnan(visibility) else visibility
    if visibility not in (0, 1, 2):
        expected = "2 (visible), 1 (hidden) or 0 (not labelled)"
        got = row["visibility"][:40]
        raise LabelsError(f"{where}: visibility is wrong", path=path, expected=expected, got=got, mend=_MEND)
    return _Line(
        where,
        frame,
        row.get("track", ""),
        row["keypoint"],
        (x, y),
        0 if np.isnan(x) or np.isnan(y) else int(visibility),
        _number(row, "score", where, path, separator, LARGEST_COORDINATE),
        _number(row, "expected_error", where, path, separator, LARGEST_COORDINATE),
    )


def _identify(
    lines: Sequence[_Line], rows: Sequence[tuple[str, _Row]], path: PathLike
) -> tuple[dict[str, int | None], dict[int, str]]:
    """Return the id of each track as it stands in the table, and the names of the tracks by id."""
    tracks = list(dict.fromkeys(line.track for line in lines))
    if tracks == [""]:
        return {"": None}, {}
    if "" in tracks:
        where = next(line.where for line in lines if not line.track)
        mend = "give every row a track, or none"
        raise LabelsError(f"{where}: track is empty, while others have one", path=path, mend=mend)
    numbers = {track: _as_id(track) for track in tracks}
    if None in numbers.values():  # names
        return {track: i for i, track in enumerate(tracks)}, dict(enumerate(tracks))
    names = {numbers[row["track"]]: row["track_name"] for _, row in rows if row.get("track_name")}
    return numbers, {i: name for i, name in names.items() if i is not None}


def _as_id(track: str) -> int | None:
    """Return the number that a track is called by, None for a name."""
    if not re.fullmatch(r"[+-]?[0-9]{1,20}(\.0)?", track):
        return None
    number = int(track.removesuffix(".0"))
    return number if -(2**63) <= number < 2**63 else None


def _gather(
    lines: Sequence[_Line], names: Sequence[str], ids: Mapping[str, int | None], path: PathLike
) -> list[Instance]:
    """Return the instances that the rows make up, without those of which nothing is there."""
    index = {name: k for k, name in enumerate(names)}
    seen: dict[tuple[int, str, str], str] = {}
    found: dict[tuple[int, str], Instance] = {}
    for line in lines:
        key = (line.frame, line.track, line.keypoint)
        if key in seen:
            raise LabelsError(
                f"{line.where}: {line.keypoint} is in frame {line.frame} twice",
                path=path,
                expected="one row for each keypoint of a track in a frame",
                got=f"{seen[key]} and {line.where}",
                mend="name the instances in a column track, or remove one of the rows",
            )
        seen[key] = line.where
        if key[:2] not in found:
            k = len(names)
            found[key[:2]] = Instance(
                line.frame,
                ids[line.track],
                np.full((k, 2), np.nan),
                np.zeros(k, np.uint8),
                line.where,
                scores=np.full(k, np.nan),
                expected_error=np.full(k, np.nan),
            )
        instance, i = found[key[:2]], index[line.keypoint]
        if line.visibility:
            instance.keypoints[i], instance.visibility[i] = line.xy, line.visibility
        assert instance.scores is not None and instance.expected_error is not None
        instance.scores[i], instance.expected_error[i] = line.score, line.expected_error
    return [instance for instance in found.values() if instance.visibility.any()]


def _warn(path: PathLike, text: str) -> None:
    warnings.warn(f"{path}: {text}", PosewarperWarning, stacklevel=2)
