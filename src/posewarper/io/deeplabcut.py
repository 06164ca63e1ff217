"""DeepLabCut's ``CollectedData_<scorer>.csv``, of one and of several animals. Reading and writing.

Header rows ``scorer``, ``individuals`` (several animals only), ``bodyparts``, ``coords``; then one row for
each image, which stands in one column (``labeled-data/<video>/img0012.png``) or, in newer versions, in three.
The individuals become tracks 0, 1, ... in the order of the columns. Keypoints that only some of them have
(those of ``single``) join the skeleton, and stay without label in the others. A label is always visible here
(visibility 2), an empty cell is no label, and a row without any label is a frame that nobody has labelled.
Coordinates are taken as they are: the centre of a pixel is a whole number, as everywhere here.
"""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posewarper.errors import LabelsError, PosewarperWarning
from posewarper.files import replacing
from posewarper.io.clips import Clip, Instance, VideoFacts
from posewarper.io.frame_names import (
    base_name,
    choose_video,
    find_frame_indices,
    folder_name,
    number_in,
    stem_of,
)
from posewarper.io.records import LARGEST_COORDINATE, PathLike
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels

CANNOT_HOLD = frozenset(
    {
        *("which keypoints are hidden", "boxes", "head boxes", "scores", "expected errors"),
        *("which poses are predictions", "labelled frames that show nobody", "track ids", "edges"),
        *("mirror pairs", "ignore regions", "the image size", "the number of frames"),
    }
)
_MEND = "give the CollectedData_*.csv that DeepLabCut wrote, unchanged"


@dataclass(frozen=True)
class _Header:
    index_columns: int
    body_start: int
    individuals: tuple[str, ...]
    names: tuple[str, ...]
    # For the i-th data column: (individual, keypoint, 0 for x or 1 for y).
    places: tuple[tuple[int, int, int], ...]


def is_csv(text: str) -> bool:
    """Return whether a text looks like DeepLabCut's table."""
    return text.lstrip().startswith("scorer,")


def read_clip(text: str, path: PathLike, *, video: VideoFacts | None = None) -> Clip:
    """Return what a DeepLabCut table says about one video.

    Args:
        text: the content of the file.
        path: its path, for messages.
        video: the opened video; picks one of several, and knows the frames' names.

    Raises:
        LabelsError: if anything in the file is not as it should be.
    """
    rows = _split(text, path)
    header = _read_header(rows, path)
    body = [(line, row) for line, row in rows[header.body_start :] if any(row)]
    names, values, lines = [], [], []
    for line, row in body:
        if len(row) != header.index_columns + len(header.places):
            expected = f"{header.index_columns + len(header.places)} cells, as the header has"
            raise _problem(path, line, "the row has another length than the header", expected, len(row))
        names.append("/".join(row[: header.index_columns]).replace("\\", "/"))
        values.append(_read_row(row, header, path, line))
        lines.append(f"line {line}")
    if not names:
        raise LabelsError("the table has no rows", path=path, mend="label some frames in DeepLabCut and save")
    folders = [folder_name(name) or "" for name in names]
    chosen = choose_video(path, {folder: () for folder in folders}, video)
    keep = [i for i, folder in enumerate(folders) if folder == chosen]
    frames = find_frame_indices(
        path, [lines[i] for i in keep], [names[i] for i in keep], [None] * len(keep), video
    )
    instances = [
        Instance(frame, track, xy[track], there[track].astype(np.uint8) * 2, lines[i])
        for frame, i in zip(frames, keep, strict=True)
        for xy, there in [(values[i], np.isfinite(values[i]).all(-1))]
        for track in range(len(header.individuals))
        if there[track].any()
    ]
    return Clip(
        Skeleton(header.names, name="animal"),
        instances,
        labelled_frames={instance.frame for instance in instances},
        video=chosen or None,
        frame_names={frame: names[i] for frame, i in zip(frames, keep, strict=True)},
    )


def _problem(path: PathLike, line: int, what: str, expected: object, got: object) -> LabelsError:
    return LabelsError(f"line {line}: {what}", path=path, expected=expected, got=got, mend=_MEND)


def _split(text: str, path: PathLike) -> list[tuple[int, list[str]]]:
    """Return (line number from 1, cells) of each row."""
    if not is_csv(text):
        raise _problem(path, 1, "the header is not DeepLabCut's", "a first cell 'scorer'", text.lstrip()[:20])
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        return [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise _problem(
            path, reader.line_num, "the file is no valid CSV", "a comma separated table", error
        ) from error


def _read_header(rows: Sequence[tuple[int, list[str]]], path: PathLike) -> _Header:
    titles = [row[0].strip() if row else "" for _, row in rows[:4]]
    several = "individuals" in titles
    wanted = (
        ["scorer", "individuals", "bodyparts", "coords"] if several else ["scorer", "bodyparts", "coords"]
    )
    if titles[: len(wanted)] != wanted:
        got = ", ".join(title[:20] or "(empty)" for title in titles)
        raise _problem(path, 1, "the header is not DeepLabCut's", f"rows {', '.join(wanted)}", got)
    header = [row for _, row in rows[: len(wanted)]]
    width = len(header[0])
    if any(len(row) != width for row in header):
        lengths = ", ".join(str(len(row)) for row in header)
        raise _problem(path, 1, "the header's rows have different lengths", f"{width} cells each", lengths)
    first = next((i for i, cell in enumerate(header[0]) if i and cell.strip()), width)
    if first not in (1, 3) or first == width:
        expected = "1 or 3 columns for the image, then the coordinates"
        raise _problem(path, 1, "the header is not DeepLabCut's", expected, f"{first} of {width}")
    cells = [row[first:] for row in header]
    owners = [cell.strip() for cell in cells[1]] if several else [""] * (width - first)
    parts, coords = ([cell.strip() for cell in row] for row in cells[-2:])
    individuals, names = tuple(dict.fromkeys(owners)), tuple(dict.fromkeys(parts))
    if not set(coords) <= {"x", "y"}:
        got = ", ".join(dict.fromkeys(coords))[:80] + (
            " (a table of predictions?)" if "likelihood" in coords else ""
        )
        raise _problem(path, len(wanted), "the header is not that of labels", "coords x and y", got)
    places = [
        (individuals.index(owner), names.index(part), "xy".index(coord))
        for owner, part, coord in zip(owners, parts, coords, strict=True)
    ]
    missing = [p for p in places if (*p[:2], 1 - p[2]) not in set(places)]
    if missing or len(set(places)) < len(places) or "" in names:
        got = "a column twice, without a name, or x without y"
        raise _problem(path, len(wanted), "the columns do not pair", "x and y of each keypoint", got)
    return _Header(first, len(wanted), individuals, names, tuple(places))


def _read_row(row: Sequence[str], header: _Header, path: PathLike, line: int) -> np.ndarray:
    """Return (individuals, K, 2) xy in pixels, NaN where there is no label."""
    values = np.full((len(header.individuals), len(header.names), 2), np.nan)
    for cell, place in zip(row[header.index_columns :], header.places, strict=True):
        if not cell.strip():
            continue
        try:
            number = float(cell)
        except ValueError:
            number = np.inf
        if abs(number) > LARGEST_COORDINATE:
            what = f"a coordinate of {header.names[place[1]]} is wrong"
            raise _problem(path, line, what, "a number of pixels, or an empty cell", cell[:40])
        values[place] = number
    alone = np.isfinite(values).any(-1) & ~np.isfinite(values).all(-1)
    if alone.any():
        warnings.warn(
            f"{path}: line {line}: {header.names[np.argwhere(alone)[0][1]]} has only one of x and y, "
            "and counts as not labelled",
            PosewarperWarning,
            stacklevel=2,
        )
        values[alone] = np.nan
    return values


def write_labels(path: PathLike, labels: Labels) -> None:
    """Write labels as DeepLabCut's table, the coordinates exactly as given.

    The scorer is that of a file name like ``CollectedData_Ann.csv``, else "posewarper".

    Raises:
        OutputError: if the file cannot be written.

    Warns:
        PosewarperWarning: if the frames' indices can be told only with the folder of frames.
    """
    stem = Path(path).stem
    scorer = stem.removeprefix("CollectedData_") if stem.startswith("CollectedData_") else "posewarper"
    names = labels.skeleton.names
    individuals = [f"ind{n + 1}" for n in range(len(labels.tracks))]
    several = list(labels.tracks) != [0]
    count = len(individuals) * len(names)
    rows: list[list[str]] = [["scorer", *[scorer] * (2 * count)]]
    if several:
        rows.append(["individuals", *[name for name in individuals for _ in range(2 * len(names))]])
    rows.append(["bodyparts", *[name for name in names for _ in "xy"] * len(individuals)])
    rows.append(["coords", *["x", "y"] * count])
    images = _name_images(labels)
    for frame in labels.instance_frames.tolist():
        cells = [images[frame]]
        for track in labels.tracks.values():
            xy = track.at([frame]).keypoints.ravel().tolist() or [np.nan] * (2 * len(names))
            cells += ["" if np.isnan(value) else repr(value) for value in xy]
        rows.append(cells)
    if any(number_in(name) != frame for frame, name in images.items()):
        warnings.warn(
            f"{path}: the images are numbered otherwise than the frames; read it with the folder of frames",
            PosewarperWarning,
            stacklevel=4,
        )
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as handle,
    ):
        csv.writer(handle, lineterminator="\n").writerows(rows)


def _name_images(labels: Labels) -> dict[int, str]:
    """Return the image name of each frame with an instance, as DeepLabCut has it."""
    frames = labels.instance_frames.tolist()
    folders = [folder_name(labels.frame_names[f]) for f in frames if f in labels.frame_names]
    folder = stem_of(labels.video) if labels.video else next(filter(None, folders), "video")
    digits = max(4, len(str(labels.n_frames or 0)))
    return {
        frame: f"labeled-data/{folder}/"
        + (
            base_name(labels.frame_names[frame])
            if frame in labels.frame_names
            else f"img{frame:0{digits}d}.png"
        )
        for frame in frames
    }
