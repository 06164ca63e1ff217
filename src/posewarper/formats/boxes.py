"""Files of boxes: of the frames of one video, or of the images of a whole data set.

The content tells which form a file has:

* JSON, a list of records with ``bbox`` (left, top, width, height), and in a video ``frame`` (from 0), in a
  data set ``image_name`` (the original's files) or ``image_id`` (COCO results);
* JSON, an object with ``annotations`` of that kind, and ``images`` with ``file_name`` or ``frame_id`` to
  which ``image_id`` points: COCO files, our own poses among them;
* for a video, lines ``frame, id, left, top, width, height, conf, ...`` of the MOT challenge, which count
  frames and pixels from 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from posewarper.errors import LabelsError
from posewarper.formats import coco
from posewarper.formats.frame_names import frame_name
from posewarper.formats.records import (
    LARGEST_COORDINATE,
    LARGEST_INDEX,
    PathLike,
    Record,
    load_json,
    read_csv,
    read_numbers,
    read_text,
    records_of,
    shown,
    warn,
)
from posewarper.structures import NO_TRACK, Floats, InstanceTable, Ints

_MOT_COLUMNS = "frame, id, left, top, width, height, and maybe a score"
_EXPECTED = (
    f"JSON with annotations, a JSON list of records with frame and bbox, or lines of {_MOT_COLUMNS} (MOT)"
)
_LARGEST_ID = 2**62


@dataclass(frozen=True)
class BoxList:
    """Boxes in the order of their file, n in number.

    Args:
        boxes: (n, 4) xywh in pixels.
        scores: (n,); 1 where the file gives none.
        tracks: (n,) track ids, ``NO_TRACK`` where the file gives none; None for a data set.
        category_ids: (n,), 1, which is a person, where the file gives none; None for a video.
        image_names: n image names as tables have them, without a leading ``images/``; None where the file
            has ids alone, and for a video.
        image_ids: (n,) image ids; None where the file has names alone, and for a video.
    """

    boxes: Floats
    scores: Floats
    tracks: Ints | None = None
    category_ids: Ints | None = None
    image_names: tuple[str, ...] | None = None
    image_ids: Ints | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def take(self, positions: Sequence[int] | np.ndarray) -> BoxList:
        """Return some of the boxes, by position or (n,) booleans, in the order given."""
        kept = np.arange(len(self))[np.asarray(positions, None if len(positions) else np.int64)]
        arrays = ("boxes", "scores", "tracks", "category_ids", "image_ids")
        given = {name: column for name in arrays if (column := getattr(self, name)) is not None}
        names = None if self.image_names is None else tuple(self.image_names[i] for i in kept)
        return replace(self, image_names=names, **{name: column[kept] for name, column in given.items()})

    @cached_property
    def places(self) -> dict[str | int, list[int]]:
        """Image name, or image id where there are no names, -> positions of its boxes."""
        found: dict[str | int, list[int]] = {}
        ids = [] if self.image_ids is None else self.image_ids.tolist()
        for i, key in enumerate(ids if self.image_names is None else self.image_names):
            found.setdefault(key, []).append(i)
        return found


# --- one video --------------------------------------------------------------------------------------------


class _Box(NamedTuple):
    where: str
    frame: int
    box: Floats
    score: float
    track: int
    category: object = None


def read_video_boxes(
    path: PathLike, n_frames: int | None = None, *, category_id: int | None = None
) -> dict[int, BoxList]:
    """Return the boxes of a file by frame index from 0, rising; frames without boxes are left out.

    Coordinates of JSON files are taken as they are; those of MOT text, which count pixels from 1, are moved
    by one pixel. Scores are taken as they are; MOT text in which all are -1 has none. The ``tracks`` of a
    frame are what the file says, and are not checked over time.

    Args:
        path: the file.
        n_frames: frames of the video, against which the frame indices are checked.
        category_id: keep the boxes of this category; None for all. MOT text has none.

    Raises:
        LabelsError: if the file cannot be read, holds no boxes or more than one video, something in it is
            wrong, or a frame lies beyond the last one.

    Warns:
        PosewarperWarning: about boxes without area, which are left out, and about several categories.
    """
    text = read_text(path, "boxes")
    is_table = text.lstrip()[:1] not in ("{", "[", '"') or re.match(r'\s*"([^"]*"[,;\t|]|sep=)', text)
    found = _read_lines(text, path) if is_table else _read_json(text, path)
    ids = [box.track for box in found if box.track != NO_TRACK]
    if len({box.frame for box in found}) > 1 and len(found) == len(ids) == len(set(ids)):
        warn(path, "every box has an id of its own: the ids number the boxes, and are not used as tracks")
        found = [box._replace(track=NO_TRACK) for box in found]
    if category_id is not None:
        found = [box for box in found if box.category in (None, category_id)]
    elif len(categories := {box.category for box in found} - {None}) > 1:
        warn(path, f"boxes of several categories ({', '.join(sorted(map(str, categories)))}) are all used")
    beyond = [] if n_frames is None else [box for box in found if box.frame >= n_frames]
    if beyond:
        more = f" and {len(beyond) - 1} more boxes" if len(beyond) > 1 else ""
        raise LabelsError(
            f"{beyond[0].where}: this box lies beyond the last frame of the video",
            path=path,
            expected=f"frames up to the {n_frames}th of the video",
            got=f"frame index {beyond[0].frame} (from 0){more}",
            fix="check that they belong together, and that frames count from 0 (in MOT text from 1)",
        )
    kept = [box for box in found if (box.box[2:] > 0).all()]
    if len(kept) < len(found):
        warn(path, f"{len(found) - len(kept)} of {len(found)} boxes have no area and are left out")
    if not kept:
        raise LabelsError(
            "the file has no boxes" + ("" if category_id is None else f" of category {category_id}"),
            path=path,
            expected=_EXPECTED,
            fix="give a file with boxes, or leave the boxes out",
        )
    frames: dict[int, list[_Box]] = {}
    for box in sorted(kept, key=lambda box: box.frame):
        frames.setdefault(box.frame, []).append(box)
    return {
        frame: BoxList(
            np.array([box.box for box in boxes]),
            np.array([box.score for box in boxes]),
            np.array([box.track for box in boxes], np.int64),
        )
        for frame, boxes in frames.items()
    }


def _read_json(text: str, path: PathLike) -> list[_Box]:
    records, document = _parse(text, path)
    frames = [_frame_of(r) for r in records] if document is None else _frames_of(records, document, path)
    found = []
    for record, frame in zip(records, frames, strict=True):
        box, score = _read_box(record)
        track = record.whole("track_id", low=NO_TRACK)
        track = record.whole("track", low=NO_TRACK) if track is None else track
        category = record.identifier("category_id")
        category = record.identifier("category") if category is None else category
        found.append(_Box(record.where, frame, box, score, NO_TRACK if track is None else track, category))
    return found


def _frame_of(record: Record) -> int:
    for key in ("frame", "frame_id"):
        frame = record.whole(key)
        if frame is not None:
            return frame
    if "image_id" in record.values or "image_name" in record.values:
        raise record.problem(
            "this record names an image, not a frame of the video",
            expected="frame, the index from 0",
            got=shown(dict(record.values)),
            fix="add frame to each record; boxes by image name belong to a dataset, not to one video",
        )
    raise record.missing("frame", "the index of the frame, from 0")


def _frames_of(records: Sequence[Record], document: Mapping[str, Any], path: PathLike) -> list[int]:
    """Return the frame of each annotation of a COCO-style file, which is about one video."""
    images = coco.read_images(document, path) if "images" in document else {}
    of_image: Mapping[Any, int] = {}
    if images:
        chosen, _, _ = coco.choose_images(images, None, path, None)
        of_image = coco.read_frames(chosen, path, None, by_id=True)
    frames = []
    for record in records:
        frame, image = record.whole("frame_id"), record.identifier("image_id")
        if frame is None and image is None:
            raise record.missing("frame_id", "the index of the frame, from 0, or the image_id of an image")
        if frame is None and image not in of_image:
            raise record.no_image("correct image_id, add the image, or give frame_id")
        frames.append(of_image[image] if frame is None else frame)
    return frames


def _read_lines(text: str, path: PathLike) -> list[_Box]:
    """Return the boxes of MOT text, a table with separators or blanks between the columns."""
    if re.search(r"[,;\t|]", text.lstrip().partition("\n")[0]):
        rows = [(where, [cell.strip() for cell in row]) for where, row in read_csv(text, path) if any(row)]
    else:
        lines = enumerate(text.splitlines(), start=1)
        rows = [(f"line {number}", line.split()) for number, line in lines if line.strip()]
    to_number = read_numbers(cell for _, row in rows for cell in row[2:6])
    found = [_read_line(row, where, path, to_number) for where, row in rows]
    if all(box.score == -1 for box in found):
        found = [box._replace(score=1.0) for box in found]
    return found


def _read_line(columns: list[str], where: str, path: PathLike, to_number: Callable[[str], float]) -> _Box:
    line = ", ".join(columns)

    def wrong(what: str, expected: str, got: object) -> LabelsError:
        fix = "correct the line, or write the boxes as JSON"
        return LabelsError(f"{where}: {what}", path=path, expected=expected, got=got, fix=fix)

    try:
        values = np.array([to_number(column) for column in columns[:7]])
    except ValueError:
        raise wrong("this is no line of boxes", _EXPECTED, line[:80]) from None
    if len(values) < 6:
        raise wrong("columns are missing", _MOT_COLUMNS, f"{len(values)} columns")
    if not (np.abs(values) <= LARGEST_INDEX).all() or (np.abs(values[2:6]) > LARGEST_COORDINATE).any():
        limits = f"{_MOT_COLUMNS}: pixels up to {LARGEST_COORDINATE:.0f}, others up to {LARGEST_INDEX}"
        raise wrong("a value is not a finite number in reach", limits, line[:80])
    if values[0] < 1 or values[0] % 1:
        raise wrong("the frame is wrong", "a whole number from 1", columns[0])
    if (values[4:6] < 0).any():
        raise wrong("the size is wrong", "a width and a height not below 0", f"{columns[4]} x {columns[5]}")
    if values[1] % 1:
        raise wrong("the id is wrong", "a whole number, -1 for none", columns[1])
    track = NO_TRACK if values[1] < 0 else int(values[1])
    score = float(values[6]) if len(values) > 6 else 1.0
    box = np.array([values[2] - 1, values[3] - 1, values[4], values[5]])
    return _Box(where, int(values[0]) - 1, box, score, track)


# --- a data set -------------------------------------------------------------------------------------------


def read_boxes(path: PathLike) -> BoxList:
    """Return the boxes of a JSON file of detections in a data set, whatever their score and category.

    The file is a list of records with ``bbox`` (xywh), ``score``, ``category_id`` and ``image_name`` (the
    original's) or ``image_id`` (COCO results), or a COCO file with ``images`` and ``annotations``.

    Raises:
        LabelsError: if the file cannot be read or something in it is not as it should be.
    """
    records, document = _parse(read_text(path, "boxes"), path)
    names_of: dict[int | None, str] = {}
    for image in records_of(document, "images", path) if document and "images" in document else []:
        identifier, name = image.whole("id", high=_LARGEST_ID), image.text("file_name")
        if identifier is not None and name is not None:
            names_of[identifier] = frame_name(name)
    names, ids = [], []
    for record in records:
        identifier, name = record.whole("image_id", high=_LARGEST_ID), record.text("image_name")
        if name is None and identifier is None:
            raise record.missing("image_name", "the image's name, or its id as image_id")
        names.append(frame_name(name) if name is not None else names_of.get(identifier))
        ids.append(identifier)
    named = None not in names
    if not named and None in ids:
        record = records[ids.index(None)]
        raise record.problem(
            "some records know their image by name, others by id",
            expected="image_name everywhere, or image_id everywhere",
            got=shown(dict(record.values)),
            fix="write the boxes with one of the two",
        )
    found = [_read_box(record) for record in records]
    categories = [record.whole("category_id") for record in records]
    return BoxList(
        np.array([box for box, _ in found], np.float64).reshape(-1, 4),
        np.array([score for _, score in found], np.float64),
        category_ids=np.array([1 if category is None else category for category in categories], np.int64),
        image_names=tuple(names) if named else None,
        image_ids=None if None in ids else np.array(ids, np.int64),
    )


def boxes_of_frames(boxes: BoxList, table: InstanceTable) -> dict[int, Ints]:
    """Return position of a frame in the table -> (m,) positions of its boxes in the list, where it has any.

    Frames are found by image name, or by image id where the boxes have no names.

    Raises:
        LabelsError: if the boxes have ids alone and the table has none.
    """
    places, keys = boxes.places, _keys(boxes, table)
    return {row: np.array(places[key], np.int64) for row, key in enumerate(keys) if key in places}


def boxes_without_frame(boxes: BoxList, tables: Iterable[InstanceTable]) -> Ints:
    """Return the positions of the boxes whose image is no frame of any of the tables, rising.

    Raises:
        LabelsError: as for :func:`boxes_of_frames`.
    """
    known = {key for table in tables for key in _keys(boxes, table)}
    return np.array(sorted(i for key, at in boxes.places.items() if key not in known for i in at), np.int64)


def _keys(boxes: BoxList, table: InstanceTable) -> Sequence[str | int]:
    """Return for each frame of a table what the boxes know it by."""
    if boxes.image_names is not None:
        return table.frame_names
    if table.image_ids is None:
        raise LabelsError(
            "the boxes name their frames by image_id, but these annotations have no image ids",
            expected="boxes with image_name",
            got=f"video {table.video} without image ids",
            fix="give boxes with image names, or annotations in PoseTrack18's form",
        )
    return table.image_ids.tolist()


def _parse(text: str, path: PathLike) -> tuple[list[Record], Mapping[str, Any] | None]:
    """Return the records of a JSON file, and its object unless it is a bare list."""
    content = load_json(text, path, "boxes")
    if isinstance(content, list):
        return records_of({"boxes": content}, "boxes", path), None
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        return records_of(content, "annotations", path), content
    raise LabelsError(
        "the file does not hold boxes",
        path=path,
        expected=_EXPECTED,
        got=shown(content),
        fix="name a file of boxes",
    )


def _read_box(record: Record) -> tuple[Floats, float]:
    box, score = record.box("bbox", LARGEST_COORDINATE), record.number("score")
    if box is None:
        raise record.missing("bbox", "left, top, width and height in pixels")
    return box, 1.0 if score is None else score
