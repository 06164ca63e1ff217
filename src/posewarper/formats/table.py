"""A long table of labels as CSV: one row for each keypoint of each instance. Writing."""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posewarper.errors import LabelsError, PosewarperWarning
from posewarper.files import replacing
from posewarper.formats.clips import Clip, Instance, VideoFacts
from posewarper.formats.records import LARGEST_COORDINATE, LARGEST_INDEX, PathLike
from posewarper.skeletons import Skeleton
from posewarper.structures import Floats, Labels, Track


def times_of(video: VideoFacts | None, frames: np.ndarray) -> dict[int, float]:
    """Return frame -> its time in seconds; nothing without a video file, whose frames alone have times."""
    if video is None or video.frame_names or (frames.size and frames[-1] >= video.n_frames):
        return {}
    return dict(zip(frames.tolist(), np.asarray(video.times)[frames].tolist(), strict=True))


def find_frames(times: Floats, places: Sequence[str], path: PathLike, video: VideoFacts | None) -> list[int]:
    """Return for each time the index of the frame whose own time is nearest.

    Args:
        times: (n,) seconds from the first frame.
        places: where each stands, for messages.
        path: the label file.
        video: the opened video; its frames need not be evenly spaced.

    Raises:
        LabelsError: if there is no video file to tell the frames by, or a time is not within the video.

    Warns:
        PosewarperWarning: if a time is further than half a frame from any frame.
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
        warnings.warn(
            f"{path}: times further than half a frame from any frame: {far.sum()}, the first in "
            f"{places[i]} ({times[i]:g} s, the nearest frame {nearest[i]} is at {known[nearest[i]]:g} s)",
            PosewarperWarning,
            stacklevel=2,
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


def check_times(times: Floats, frames: np.ndarray, path: PathLike, video: VideoFacts | None) -> None:
    """Warn if times, where they are given beside the frames, are those of other frames of the video."""
    given = np.isfinite(times)
    if video is None or video.frame_names or not given.any():
        return
    nearest = _find_nearest(np.asarray(video.times, np.float64), times[given])
    other = int((nearest != frames[given]).sum())
    if other:
        warnings.warn(
            f"{path}: times of other frames of the video than the column frame says: {other}; "
            "the column frame counts",
            PosewarperWarning,
            stacklevel=2,
        )


def _find_nearest(known: Floats, times: Floats) -> np.ndarray:
    """Return for each time the index of the nearest of those known, which rise."""
    right = np.clip(np.searchsorted(known, times), 0, len(known) - 1)
    left = np.maximum(right - 1, 0)
    return np.where(np.abs(times - known[left]) <= np.abs(known[right] - times), left, right)


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
                    fix=_FIX,
                )
            rows.append((where, {c: cell.strip() for c, cell in zip(columns, cells, strict=True) if c}))
    except csv.Error as error:
        fix = "save it as CSV, and check the quotation marks"
        what = f"line {reader.line_num}: the file is no valid CSV"
        raise LabelsError(what, path=path, got=error, fix=fix) from error
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
            fix=f"name the columns that are {', '.join(missing)}",
        )
    repeated = sorted({column for column in known if known.count(column) > 1})
    if repeated:
        got = ", ".join(repeated)
        raise LabelsError("line 1: columns are there twice", path=path, got=got, fix="remove one of them")
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
            f"{where}: {column} is wrong", path=path, expected="a number", got=cell[:40], fix=_FIX
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
        raise LabelsError(f"{places[i]}: frame is wrong", path=path, expected=expected, got=got, fix=_FIX)
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
            raise LabelsError(f"{where}: labelled is wrong", path=path, expected=expected, got=got, fix=_FIX)
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
        _warn(path, f"{where}: only one of x and y is there; the keypoint counts as not labelled")
    visibility = _number(row, "visibility", where, path, separator, 2)
    visibility = 2 if np.isnan(visibility) else visibility
    if visibility not in (0, 1, 2):
        expected = "2 (visible), 1 (hidden) or 0 (not labelled)"
        got = row["visibility"][:40]
        raise LabelsError(f"{where}: visibility is wrong", path=path, expected=expected, got=got, fix=_FIX)
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


def _warn(path: PathLike, text: str) -> None:
    warnings.warn(f"{path}: {text}", PosewarperWarning, stacklevel=2)


CANNOT_HOLD = frozenset(
    {
        *("what an instance is called", "boxes", "head boxes", "edges", "mirror pairs", "ignore regions"),
        *("the image size", "the number of frames", "the video's name", "the names of the frames' files"),
    }
)


def write_labels(path: PathLike, labels: Labels, video: VideoFacts | None = None) -> None:
    """Write labels as a long table, the coordinates exactly as given.

    There is a column ``time`` if the video is given and its frames have times; columns that would be empty
    are left out.

    Raises:
        OutputError: if the file cannot be written.
    """
    frames = np.union1d(labels.labelled_frames, labels.instance_frames)
    times = times_of(video, frames)
    tracks = labels.tracks.values()
    columns = [
        "frame",
        *(["time"] if times else []),
        "track",
        *(["track_name"] if labels.track_names else []),
    ]
    columns += ["keypoint", "x", "y", "visibility"]
    columns += ["score"] if any(np.isfinite(t.keypoint_scores).any() for t in tracks) else []
    columns += ["expected_error"] if any(np.isfinite(t.expected_error).any() for t in tracks) else []
    columns += ["labelled"]
    rows = _list_rows(labels, frames, times)
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as handle,
    ):
        writer = csv.DictWriter(handle, columns, extrasaction="ignore", restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _list_rows(labels: Labels, frames: np.ndarray, times: Mapping[int, float]) -> list[dict[str, object]]:
    labelled = set(labels.labelled_frames.tolist())
    rows: dict[int, list[dict[str, object]]] = {frame: [] for frame in frames.tolist()}
    for track_id, track in labels.tracks.items():
        shared = {"track": track_id, "track_name": labels.track_names.get(track_id, "")}
        for i, frame in enumerate(track.frames.tolist()):
            if track.visibility[i].any():
                rows[frame] += [shared | row for row in _list_keypoints(labels.skeleton.names, track, i)]
    return [
        {"frame": frame, "time": times.get(frame, ""), "labelled": int(frame in labelled)} | row
        for frame, found in rows.items()
        for row in found or [{}]
        if found or frame in labelled
    ]


def _list_keypoints(names: Sequence[str], track: Track, i: int) -> list[dict[str, object]]:
    def cell(value: float) -> str:
        return repr(float(value)) if np.isfinite(value) else ""

    return [
        {
            "keypoint": name,
            "x": cell(x),
            "y": cell(y),
            "visibility": int(v),
            "score": cell(score),
            "expected_error": cell(error),
        }
        for name, (x, y), v, score, error in zip(
            names,
            track.keypoints[i],
            track.visibility[i],
            track.keypoint_scores[i],
            track.expected_error[i],
            strict=True,
        )
    ]
