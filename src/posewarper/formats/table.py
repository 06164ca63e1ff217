"""A long table of labels as CSV or TSV: one row for each keypoint of each instance. Reading and writing.

The columns go by many names in tables of others (see ``_SYNONYMS``), the separator may be a comma, a
semicolon or a tab, and with the last two numbers may have decimal commas. A row without a keypoint marks a
labelled frame. A keypoint with visibility 0 that is labelled is absent; one that is not labelled, on a frame
where others are, is predicted or was not looked at. Where only the time is given, a row belongs to the frame
of the video whose own time is nearest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from posewarper.errors import LabelsError, few_of, repeated
from posewarper.formats.clips import Clip, Instance, VideoFacts, doubt_tracks, each_instance
from posewarper.formats.frame_names import base_name, choose_video
from posewarper.formats.records import (
    LARGEST_COORDINATE,
    LARGEST_INDEX,
    PathLike,
    read_csv,
    read_numbers,
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
    "video": (
        "video_name",
        "video_file",
        "video_path",
        "video_id",
        "source_video",
        "movie",
        "clip",
        "recording",
    ),
    "keypoint": ("keypoints", "bodypart", "bodyparts", "body_part", "node", "joint", "landmark", "marker"),
    "x": ("x_px", "x (px)", "x [px]"),
    "y": ("y_px", "y (px)", "y [px]"),
    "visibility": ("v",),
    "score": ("likelihood", "confidence", "p", "prob", "probability"),
    "expected_error": ("expected_error_px",),
    "labelled": ("labeled", "is_labeled", "is_labelled"),
}
_OURS = {"track", "visibility", "labelled"}  # columns by which a table of this program is told
_FIX = "correct the cell, or write the table again"
_COLUMNS = {name: (column, n) for column, o in _SYNONYMS.items() for n, name in enumerate((column, *o))}


@dataclass(frozen=True)
class _Row:
    """One row: column -> cell, and ``where`` it stands in the file."""

    path: PathLike
    where: str
    cells: Mapping[str, str]
    to_number: Callable[[str], float]

    def problem(self, what: str, fix: str, expected: object = None, got: object = None) -> LabelsError:
        """Return the error that names this row."""
        return LabelsError(f"{self.where}: {what}", path=self.path, expected=expected, got=got, fix=fix)

    def wrong(self, column: str, expected: str) -> LabelsError:
        """Return the error for a cell that does not hold what was expected."""
        got = self.cells[column][:40]
        return self.problem(f"{column} is wrong", _FIX, expected, got)

    def flag(self, column: str) -> bool | None:
        """Return whether a cell says yes or no, None if it is empty."""
        cell = self.cells.get(column, "").lower()
        if cell not in ("", "0", "1", "true", "false", "0.0", "1.0"):
            raise self.wrong(column, "1 or 0")
        return None if not cell else cell not in ("0", "false", "0.0")

    def number(self, column: str, largest: float = LARGEST_COORDINATE) -> float:
        """Return the number in a cell, NaN if the cell is empty."""
        try:
            number = self.to_number(self.cells.get(column, ""))
        except ValueError:
            number = np.inf
        if abs(number) > largest:
            raise self.wrong(column, "a number")
        return number


def is_table(text: str) -> bool:
    """Return whether a text begins with a header of such a table."""
    try:
        _, header = next(read_csv(text, ""), ("", []))
    except LabelsError:
        return False
    columns = set(_name_columns(header))
    return {"keypoint", "x", "y"} <= columns and bool(columns & {"frame", "time"})


def _name_columns(header: Sequence[str]) -> list[str | None]:
    """Return which column each cell of the header names, None for others."""
    found = [_COLUMNS.get(" ".join(cell.split()).lower(), (None, 0)) for cell in header]
    best = {column: min(n for c, n in found if c == column) for column, _ in found}
    return [column if n == best[column] else None for column, n in found]


# --- reading ----------------------------------------------------------------------------------------------


def read_clip(path: PathLike, video: VideoFacts | None = None, skeleton: Skeleton | None = None) -> Clip:
    """Return what a table says.

    The opened video is needed where only the time is given. ``skeleton`` gives the order of the keypoints,
    which is that of their first rows otherwise.

    Raises:
        LabelsError: if anything in the table is not as it should be.

    Warns:
        PosewarperWarning: about columns that are not used, and times between the frames.
    """
    rows = _read_rows(read_text(path), path)
    if not rows:
        raise LabelsError("the table has no rows", path=path, fix="label some frames and export again")
    videos = [row.cells.get("video", "") for row in rows]
    chosen, another = choose_video(path, {name: {name} - {""} for name in videos}, video)
    rows = [row for row, name in zip(rows, videos, strict=True) if name == chosen]
    frames = _frames_of(rows, path, video)
    labelled = _read_flags(rows, frames)
    filled = [
        (row, frame)
        for row, frame in zip(rows, frames, strict=True)
        if any(row.cells.get(column) for column in ("track", "keypoint", "x", "y"))
    ]
    for row, _ in filled:
        if not row.cells["keypoint"]:
            raise row.problem("keypoint is empty", fix="name the keypoint")
    names = tuple(dict.fromkeys(row.cells["keypoint"] for row, _ in filled))
    if skeleton is not None and set(names) <= set(skeleton.names):
        names = skeleton.names
    if not names:
        raise LabelsError("the table has no keypoints", path=path, fix="label at least one frame")
    filled = _without_row_numbers(filled, path)
    ids, track_names = _identify([row for row, _ in filled])
    instances = _gather(filled, names, ids, labelled)
    clip = Clip(
        Skeleton(names),
        instances,
        labelled,
        video=base_name(chosen) or None,
        track_names=track_names,
        another_video=another,
    )
    if not rows[0].cells.keys() >= _OURS:
        doubt_tracks(clip, path, forget=not track_names)
    return clip


def _without_row_numbers(rows: list[tuple[_Row, int]], path: PathLike) -> list[tuple[_Row, int]]:
    """Return rows (with their frames) without their track, where it numbers the rows instead of instances.

    It does if no two rows share it, or if it is a number that stands for one and the same keypoint.
    """
    tracks = [row.cells.get("track", "") for row, _ in rows]
    keypoints = {(track, row.cells["keypoint"]) for track, (row, _) in zip(tracks, rows, strict=True)}
    n_names, n_tracks = len({name for _, name in keypoints}), len(set(tracks))
    owned = {(frame, track) for track, (_, frame) in zip(tracks, rows, strict=True)}
    numbers = n_tracks == len(rows) or (n_tracks == len(keypoints) and None not in map(_as_id, tracks))
    if "" in tracks or n_tracks == 1 or n_names == 1 or len(owned) < len(rows) or not numbers:
        return rows
    warn(path, "the column of the track numbers the rows, not the individuals, and is not used")
    return [(replace(row, cells={**row.cells, "track": ""}), frame) for row, frame in rows]


def _read_rows(text: str, path: PathLike) -> list[_Row]:
    """Return the rows that are not empty."""
    table = read_csv(text, path)
    header = next(table, ("", []))[1]
    columns = _name_columns(header)
    known = [column for column in columns if column is not None]
    missing = [column for column in ("keypoint", "x", "y") if column not in known]
    missing += [] if {"frame", "time"} & set(known) else ["frame"]
    if missing:
        raise LabelsError(
            "line 1: the header lacks columns",
            path=path,
            expected="frame or time, keypoint, x, y",
            got=", ".join(header)[:80],
            fix=f"name the columns that are {', '.join(missing)}",
        )
    if twice := repeated(known):
        got = few_of(twice)
        raise LabelsError("line 1: some columns appear twice", path=path, got=got, fix="remove one of them")
    unused = [cell.strip()[:40] for cell, column in zip(header, columns, strict=True) if column is None]
    if unused:
        warn(path, f"columns that are not used: {', '.join(unused)[:200]}")
    rows = []
    filled = [(where, cells) for where, cells in table if any(cell.strip() for cell in cells)]
    axes = [i for i, column in enumerate(columns) if column in ("x", "y")]
    to_number = read_numbers(cells[i].strip() for _, cells in filled for i in axes if i < len(cells))
    for where, cells in filled:
        named = {c: cell.strip() for c, cell in zip(columns, cells, strict=False) if c}
        rows.append(_Row(path, where, named, to_number))
        if len(cells) != len(columns):
            what, expected = "the row has another length than the header", f"{len(columns)} cells"
            raise rows[-1].problem(what, _FIX, expected, len(cells))
    return rows


def _frames_of(rows: Sequence[_Row], path: PathLike, video: VideoFacts | None) -> list[int]:
    """Return the frame of each row."""
    frames = np.array([row.number("frame", LARGEST_INDEX) for row in rows])
    times = np.array([row.number("time", 1e9) for row in rows])
    if np.isnan(frames).all():
        return _find_frames(times, rows, path, video)
    wrong = ~((frames >= 0) & (frames == np.floor(frames)))
    if wrong.any():
        raise rows[int(np.argmax(wrong))].wrong("frame", "a whole number from 0")
    frames, given = frames.astype(np.int64), np.isfinite(times)
    if not (video is None or video.frame_names) and given.any():
        nearest = _find_nearest(np.asarray(video.times, np.float64), times[given])
        other = int((nearest != frames[given]).sum())
        if other:
            text = f"times of other frames of the video than the column frame says: {other}"
            warn(path, f"{text}; the column frame counts")
    return frames.tolist()


def _find_frames(times: Floats, rows: Sequence[_Row], path: PathLike, video: VideoFacts | None) -> list[int]:
    """Return for each time (n,), in seconds, the index of the frame whose own time is nearest.

    The frames of the video need not be evenly spaced. A time within the video that is further than half a
    frame from any frame is warned of.
    """
    if np.isnan(times).any():
        row = rows[int(np.argmax(np.isnan(times)))]
        raise row.problem("the row has neither a frame nor a time", fix="give every row a frame or a time")
    if video is None or video.frame_names:
        folder = "" if video is None else f"{Path(video.path).name}, a folder, whose images have no times"
        raise LabelsError(
            "the table gives times alone, which do not tell the frames without the video file",
            path=path,
            expected="the video (--video), or a column frame",
            got=folder or "no video",
            fix="give the video that the labels were made on",
        )
    known = np.asarray(video.times, np.float64)
    nearest = _find_nearest(known, times)
    half = 0.5 * float(np.median(np.diff(known))) if len(known) > 1 else 0.5
    # A hair more, so that times which were rounded do not warn.
    far = np.abs(times - known[nearest]) > half * 1.001
    outside = far & ((times < known[0]) | (times > known[-1]))
    if outside.any():
        i = int(np.argmax(outside))
        raise rows[i].problem(
            "this time is not within the video",
            expected=f"seconds from 0 to {known[-1]:.3f}",
            got=f"{times[i]:g}",
            fix="check that the table belongs to this video, and counts seconds from its first frame",
        )
    least, most = np.full(len(known), np.inf), np.full(len(known), -np.inf)
    np.minimum.at(least, nearest, times)
    np.maximum.at(most, nearest, times)
    unlike = most - least > 0.5 * half
    if unlike.any():
        frame = int(np.argmax(unlike))
        raise rows[int(np.argmax((nearest == frame) & (times == most[frame])))].problem(
            "two times belong to the same frame of the video",
            expected="times of the frames of this video",
            got=f"{least[frame]:g} and {most[frame]:g}, both nearest to frame {frame}",
            fix="check that the table belongs to this video, and was not made at a higher frame rate",
        )
    if far.any():
        i = int(np.argmax(far))
        warn(
            path,
            f"times further than half a frame from any frame: {far.sum()}, the first in {rows[i].where} "
            f"({times[i]:g} s, the nearest frame {nearest[i]} is at {known[nearest[i]]:g} s)",
        )
    return nearest.astype(np.int64).tolist()


def _find_nearest(known: Floats, times: Floats) -> np.ndarray:
    """Return for each time the index of the nearest of those known, which rise."""
    right = np.clip(np.searchsorted(known, times), 0, len(known) - 1)
    left = np.maximum(right - 1, 0)
    return np.where(np.abs(times - known[left]) <= np.abs(known[right] - times), left, right)


def _read_flags(rows: Sequence[_Row], frames: Sequence[int]) -> set[int]:
    """Return the frames that are labelled: all, unless each of their rows says otherwise."""
    return {frame for row, frame in zip(rows, frames, strict=True) if row.flag("labelled") is not False}


def _identify(rows: Sequence[_Row]) -> tuple[dict[str, int | None], dict[int, str]]:
    """Return the id of each track as it stands in the table, and the names of the tracks by id."""
    tracks = list(dict.fromkeys(row.cells.get("track", "") for row in rows))
    if tracks == [""]:
        return {"": None}, {}
    if "" in tracks:
        row = next(row for row in rows if not row.cells["track"])
        raise row.problem("track is empty, while others have one", fix="give every row a track, or none")
    numbers = {track: _as_id(track) for track in tracks}
    if None in numbers.values():  # names
        return {track: i for i, track in enumerate(tracks)}, dict(enumerate(tracks))
    named = [row.cells for row in rows if row.cells.get("track_name")]
    names = {numbers[cells["track"]]: cells["track_name"] for cells in named}
    return numbers, {i: name for i, name in names.items() if i is not None}


def _as_id(track: str) -> int | None:
    """Return the number that a track is called by, None for a name."""
    if not re.fullmatch(r"[+-]?[0-9]{1,20}(\.0)?", track):
        return None
    number = int(track.removesuffix(".0"))
    return number if -(2**63) <= number < 2**63 else None


def _gather(
    rows: Sequence[tuple[_Row, int]],
    names: Sequence[str],
    ids: Mapping[str, int | None],
    labelled_frames: Collection[int],
) -> list[Instance]:
    """Return the instances that rows (with their frames) make up, without those of which nothing is there.

    On labelled frames those stay of which a row says that it is absent or was not looked at.
    """
    stated: set[tuple[int, str]] = set()
    place = {name: k for k, name in enumerate(names)}
    seen: dict[tuple[int, str, str], str] = {}
    found: dict[tuple[int, str], Instance] = {}
    for row, frame in rows:
        track, name = row.cells.get("track", ""), row.cells["keypoint"]
        if (frame, track, name) in seen:
            raise row.problem(
                f"{name} is in frame {frame} twice",
                expected="one row for each keypoint of a track in a frame",
                got=f"{seen[frame, track, name]} and {row.where}",
                fix="name the instances in a column track, or remove one of the rows",
            )
        seen[frame, track, name] = row.where
        if (frame, track) not in found:
            points, unseen = np.full((len(names), 2), np.nan), np.zeros(len(names), np.uint8)
            instance = Instance(frame, ids[track], points, unseen, row.where)
            instance.scores, instance.expected_error = np.full((2, len(names)), np.nan)
            instance.labelled = np.zeros(len(names), bool)
            found[frame, track] = instance
        instance, k = found[frame, track], place[name]
        xy = row.number("x"), row.number("y")
        if np.isnan(xy).sum() == 1:
            warn(row.path, f"{row.where}: only one of x and y is there; the keypoint counts as not labelled")
        visibility = row.number("visibility", 2)
        if visibility not in (0, 1, 2) and not np.isnan(visibility):
            raise row.wrong("visibility", "2 (visible), 1 (hidden) or 0 (not labelled)")
        if visibility != 0 and not np.isnan(xy).any():
            instance.keypoints[k] = xy
            instance.visibility[k] = 2 if np.isnan(visibility) else visibility
        assert instance.scores is not None and instance.expected_error is not None
        assert instance.labelled is not None
        flag = row.flag("labelled")
        # An empty cell says nothing of a keypoint that is not there; a 0 for its visibility does.
        is_absent = flag is True and visibility == 0 and bool(row.cells.get("visibility"))
        instance.labelled[k] = is_absent or (flag is not False and instance.visibility[k] > 0)
        if is_absent or flag is False:
            stated.add((frame, track))
        instance.scores[k], instance.expected_error[k] = row.number("score"), row.number("expected_error")
    return [
        instance
        for (frame, track), instance in found.items()
        if instance.visibility.any() or (frame in labelled_frames and (frame, track) in stated)
    ]


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
    for frame, track_id, track, i in each_instance(labels, empty=True):
        for k, name in enumerate(labels.skeleton.names):
            numbers = (*track.keypoints[i, k], track.keypoint_scores[i, k], track.expected_error[i, k])
            x, y, score, error = (repr(float(n)) if np.isfinite(n) else "" for n in numbers)
            row: dict[str, object] = {
                "track": track_id,
                "track_name": labels.track_names.get(track_id, ""),
                "keypoint": name,
            }
            row |= {"x": x, "y": y, "visibility": int(track.visibility[i, k])}
            row |= {"score": score, "expected_error": error, "labelled": int(track.labelled[i, k])}
            rows[frame].append(row)
    for frame in labelled:
        if not any(row["labelled"] for row in rows[frame]):
            rows[frame].insert(0, {"labelled": 1})
    table = [
        {"frame": frame, "time": times.get(frame, "")} | row for frame, found in rows.items() for row in found
    ]
    columns = ["frame", "time", "track", "track_name", "keypoint", "x", "y", "visibility", "score"]
    columns += ["expected_error", "labelled"]
    maybe = {"time", "track_name", "score", "expected_error"}
    columns = [c for c in columns if c not in maybe or any(row.get(c, "") != "" for row in table)]
    write_csv(path, [columns, *([row.get(column, "") for column in columns] for row in table)])
    return []
