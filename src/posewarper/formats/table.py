"""A long table of labels as CSV or TSV: one row for each keypoint of each instance. Reading and writing.

The columns go by many names in tables of others (see ``_SYNONYMS``), the separator may be a comma, a
semicolon or a tab, and with the last two numbers may have decimal commas. A row without a keypoint marks a
frame that shows nobody. Where only the time is given, a row belongs to the frame of the video whose own
time is nearest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posewarper.errors import LabelsError
from posewarper.formats.clips import Clip, Instance, VideoFacts, each_instance
from posewarper.formats.records import (
    LARGEST_COORDINATE,
    LARGEST_INDEX,
    PathLike,
    read_csv,
    read_text,
    warn,
    write_csv,
)
from posewarper.skeletons import Skeleton
from posewarper.structures import Floats, Labels

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
_FIX = "correct the cell, or write the table again"
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
        _, header = next(read_csv(text.lstrip(), "", _find_separator(text)), ("", []))
    except LabelsError:
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


def read_clip(path: PathLike, video: VideoFacts | None = None, skeleton: Skeleton | None = None) -> Clip:
    """Return what a table says.

    Args:
        path: the file.
        video: the opened video, which is needed where only the time is given.
        skeleton: gives the order of the keypoints, which is that of their first rows otherwise.

    Raises:
        LabelsError: if anything in the table is not as it should be.

    Warns:
        PosewarperWarning: about columns that are not used, and times between the frames.
    """
    text = read_text(path)
    separator = _find_separator(text)
    rows = _read_rows(text, path, separator)
    if not rows:
        raise LabelsError("the table has no rows", path=path, fix="label some frames and export again")
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
        raise LabelsError("the table has no keypoints", path=path, fix="label at least one frame")
    ids, track_names = _identify(lines, rows, path)
    instances = _gather(lines, names, ids, path)
    return Clip(Skeleton(names), instances, labelled_frames=labelled, track_names=track_names)


def _read_rows(text: str, path: PathLike, separator: str) -> list[tuple[str, _Row]]:
    """Return (place, column -> cell) of each row that is not empty."""
    rows: list[tuple[str, _Row]] = []
    table = read_csv(text.lstrip(), path, separator)
    columns = _read_header(next(table)[1], path)
    for where, cells in table:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(columns):
            expected = f"{len(columns)} cells"
            raise _problem(path, f"{where}: the row has another length than the header", expected, len(cells))
        rows.append((where, {c: cell.strip() for c, cell in zip(columns, cells, strict=True) if c}))
    return rows


def _problem(path: PathLike, what: str, expected: object, got: object) -> LabelsError:
    return LabelsError(what, path=path, expected=expected, got=got, fix=_FIX)


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
            fix=f"name the columns that are {', '.join(missing)}",
        )
    repeated = sorted({column for column in known if known.count(column) > 1})
    if repeated:
        got = ", ".join(repeated)
        raise LabelsError("line 1: columns are there twice", path=path, got=got, fix="remove one of them")
    unused = [cell.strip()[:40] for cell, column in zip(cells, columns, strict=True) if column is None]
    if unused:
        warn(path, f"columns that are not used: {', '.join(unused)[:200]}")
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
        raise _problem(path, f"{where}: {column} is wrong", "a number", cell[:40])
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
        return _find_frames(times, places, path, video)
    wrong = ~((frames >= 0) & (frames == np.floor(frames)))
    if wrong.any():
        i = int(np.argmax(wrong))
        what = f"{places[i]}: frame is wrong"
        raise _problem(path, what, "a whole number from 0", rows[i][1]["frame"][:40])
    _check_times(times, frames.astype(np.int64), path, video)
    return frames.astype(np.int64).tolist()


def _read_flags(rows: Sequence[tuple[str, _Row]], frames: Sequence[int], path: PathLike) -> set[int]:
    """Return the frames that are labelled: all, unless the column ``labelled`` says otherwise."""
    flags: dict[int, bool] = {}
    for (where, row), frame in zip(rows, frames, strict=True):
        cell = row.get("labelled", "").lower()
        if cell not in ("", "0", "1", "true", "false", "0.0", "1.0"):
            raise _problem(path, f"{where}: labelled is wrong", "1 or 0", cell[:40])
        flag = cell not in ("0", "false", "0.0")
        if flags.setdefault(frame, flag) != flag:
            raise LabelsError(
                f"{where}: frame {frame} is marked as labelled in one row and as not labelled in another",
                path=path,
                fix="give all rows of a frame the same value",
            )
    return {frame for frame, flag in flags.items() if flag}


def _read_line(row: _Row, where: str, frame: int, path: PathLike, separator: str) -> _Line:
    if not row["keypoint"]:
        raise LabelsError(f"{where}: keypoint is empty", path=path, fix="name the keypoint")
    x, y = (_number(row, c, where, path, separator, LARGEST_COORDINATE) for c in "xy")
    if np.isnan(x) != np.isnan(y):
        warn(path, f"{where}: only one of x and y is there; the keypoint counts as not labelled")
    visibility = _number(row, "visibility", where, path, separator, 2)
    visibility = 2 if np.isnan(visibility) else visibility
    if visibility not in (0, 1, 2):
        expected = "2 (visible), 1 (hidden) or 0 (not labelled)"
        raise _problem(path, f"{where}: visibility is wrong", expected, row["visibility"][:40])
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
        fix = "give every row a track, or none"
        raise LabelsError(f"{where}: track is empty, while others have one", path=path, fix=fix)
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
                fix="name the instances in a column track, or remove one of the rows",
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


# --- times ------------------------------------------------------------------------------------------------


def _find_frames(times: Floats, places: Sequence[str], path: PathLike, video: VideoFacts | None) -> list[int]:
    """Return for each time (n,), in seconds, the index of the frame whose own time is nearest.

    The frames of the video need not be evenly spaced. A time within the video that is further than half a
    frame from any frame is warned of.
    """
    if np.isnan(times).any():
        where = places[int(np.argmax(np.isnan(times)))]
        fix = "give every row a frame or a time"
        raise LabelsError(f"{where}: neither frame nor time is there", path=path, fix=fix)
    if video is None or video.frame_names:
        got = (
            "no video" if video is None else f"{Path(video.path).name}, a folder, whose images have no times"
        )
        raise LabelsError(
            "the table gives times alone, which do not tell the frames without the video file",
            path=path,
            expected="the video (--video), or a column frame",
            got=got,
            fix="give the video that the labels were made on",
        )
    known = np.asarray(video.times, np.float64)
    nearest = _find_nearest(known, times)
    distance = np.abs(times - known[nearest])
    half = 0.5 * float(np.median(np.diff(known))) if len(known) > 1 else 0.5
    # A hair more, so that times which were rounded do not warn.
    far = distance > half * 1.001
    outside = far & ((times < known[0]) | (times > known[-1]))
    if outside.any():
        i = int(np.argmax(outside))
        raise LabelsError(
            f"{places[i]}: this time is not within the video",
            path=path,
            expected=f"seconds from 0 to {known[-1]:.3f}",
            got=f"{times[i]:g}",
            fix="check that the table belongs to this video, and counts seconds from its first frame",
        )
    _check_alike(times, nearest, len(known), half, places, path)
    if far.any():
        i = int(np.argmax(far))
        warn(
            path,
            f"times further than half a frame from any frame: {far.sum()}, the first in {places[i]} "
            f"({times[i]:g} s, the nearest frame {nearest[i]} is at {known[nearest[i]]:g} s)",
        )
    return nearest.astype(np.int64).tolist()


def _check_alike(
    times: Floats, nearest: np.ndarray, count: int, half: float, places: Sequence[str], path: PathLike
) -> None:
    """Raise an error if unlike times belong to the same of ``count`` frames."""
    least, most = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(least, nearest, times)
    np.maximum.at(most, nearest, times)
    unlike = most - least > 0.5 * half
    if unlike.any():
        frame = int(np.argmax(unlike))
        i = int(np.argmax((nearest == frame) & (times == most[frame])))
        raise LabelsError(
            f"{places[i]}: two times belong to the same frame of the video",
            path=path,
            expected="times of the frames of this video",
            got=f"{least[frame]:g} and {most[frame]:g}, both nearest to frame {frame}",
            fix="check that the table belongs to this video, and was not made at a higher frame rate",
        )


def _check_times(times: Floats, frames: np.ndarray, path: PathLike, video: VideoFacts | None) -> None:
    """Warn if times, where they are given beside the frames, are those of other frames of the video."""
    given = np.isfinite(times)
    if video is None or video.frame_names or not given.any():
        return
    nearest = _find_nearest(np.asarray(video.times, np.float64), times[given])
    other = int((nearest != frames[given]).sum())
    if other:
        text = f"times of other frames of the video than the column frame says: {other}"
        warn(path, f"{text}; the column frame counts")


def _find_nearest(known: Floats, times: Floats) -> np.ndarray:
    """Return for each time the index of the nearest of those known, which rise."""
    right = np.clip(np.searchsorted(known, times), 0, len(known) - 1)
    left = np.maximum(right - 1, 0)
    return np.where(np.abs(times - known[left]) <= np.abs(known[right] - times), left, right)


# --- writing ----------------------------------------------------------------------------------------------


def write_labels(path: PathLike, labels: Labels, video: VideoFacts | None = None) -> list[str]:
    """Write labels as a long table, the coordinates exactly as given.

    There is a column ``time`` if the video is given and its frames have times; columns that would be empty
    are left out.

    Raises:
        OutputError: if the file cannot be written.
    """
    frames = np.union1d(labels.labelled_frames, labels.instance_frames)
    times: dict[int, float] = {}
    # The frames of a video file alone have times.
    if not (video is None or video.frame_names or (frames.size and frames[-1] >= video.n_frames)):
        times = dict(zip(frames.tolist(), np.asarray(video.times)[frames].tolist(), strict=True))
    labelled = set(labels.labelled_frames.tolist())
    rows: dict[int, list[dict[str, object]]] = {frame: [] for frame in frames.tolist()}
    for frame, track_id, track, i in each_instance(labels):
        for k, name in enumerate(labels.skeleton.names):
            numbers = (*track.keypoints[i, k], track.keypoint_scores[i, k], track.expected_error[i, k])
            x, y, score, error = (repr(float(n)) if np.isfinite(n) else "" for n in numbers)
            row: dict[str, object] = {
                "track": track_id,
                "track_name": labels.track_names.get(track_id, ""),
                "keypoint": name,
            }
            row |= {"x": x, "y": y, "visibility": int(track.visibility[i, k])}
            rows[frame].append(row | {"score": score, "expected_error": error})
    table = [
        {"frame": frame, "time": times.get(frame, ""), "labelled": int(frame in labelled)} | row
        for frame, found in rows.items()
        for row in found or ([{}] if frame in labelled else [])
    ]
    columns = ["frame", "time", "track", "track_name", "keypoint", "x", "y", "visibility", "score"]
    columns += ["expected_error", "labelled"]
    maybe = {"time", "track_name", "score", "expected_error"}
    columns = [c for c in columns if c not in maybe or any(row.get(c, "") != "" for row in table)]
    write_csv(path, [columns, *([row.get(column, "") for column in columns] for row in table)])
    return []
