"""Boxes of people that a detector found: the original's files, keyed by image name, and COCO results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from posewarper.errors import LabelsError
from posewarper.formats.records import PathLike, Record, read_text, records_of, shown
from posewarper.posetrack.points import frame_name
from posewarper.structures import Floats, InstanceTable, Ints

_LARGEST_ID = 2**62


@dataclass(frozen=True)
class BoxList:
    """Boxes of many videos, in the order of their file.

    Args:
        boxes: (n, 4) xywh in pixels.
        scores: (n,); 1 where the file gives none.
        category_ids: (n,); 1, which is a person, where the file gives none.
        image_names: n image names as tables have them, without a leading ``images/``; None where the file
            has ids alone.
        image_ids: (n,) image ids; None where the file has names alone.
    """

    boxes: Floats
    scores: Floats
    category_ids: Ints
    image_names: tuple[str, ...] | None = None
    image_ids: Ints | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def take(self, positions: Sequence[int] | np.ndarray) -> BoxList:
        """Return some of the boxes, by position or (n,) booleans, in the order given."""
        kept = np.arange(len(self))[np.asarray(positions, None if len(positions) else np.int64)]
        names, ids = self.image_names, self.image_ids
        return BoxList(
            self.boxes[kept],
            self.scores[kept],
            self.category_ids[kept],
            None if names is None else tuple(names[i] for i in kept),
            None if ids is None else ids[kept],
        )

    @cached_property
    def places(self) -> dict[str | int, list[int]]:
        """Image name, or image id where there are no names, -> positions of its boxes."""
        found: dict[str | int, list[int]] = {}
        ids = [] if self.image_ids is None else self.image_ids.tolist()
        for i, key in enumerate(ids if self.image_names is None else self.image_names):
            found.setdefault(key, []).append(i)
        return found


def boxes_of_frames(boxes: BoxList, table: InstanceTable) -> dict[int, Ints]:
    """Return the positions of the boxes of each frame of a table that has any.

    Frames are found by image name, or by image id where the boxes have no names.

    Returns:
        Position of the frame in the table -> (m,) positions in the list, in its order.

    Raises:
        LabelsError: if the boxes have ids alone and the table has none.
    """
    return {
        row: np.array(boxes.places[key], np.int64)
        for row, key in enumerate(_keys(boxes, table))
        if key in boxes.places
    }


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
            "the boxes know their frames by image_id, but these annotations have no ids",
            expected="boxes with image_name",
            got=f"video {table.video} without image ids",
            fix="give boxes with image names, or annotations in PoseTrack18's form",
        )
    return table.image_ids.tolist()


def read_boxes(path: PathLike) -> BoxList:
    """Return the boxes of a JSON file of detections, whatever their score and category.

    The file is a list of records with ``bbox`` (xywh), ``score``, ``category_id`` and ``image_name`` (the
    original's) or ``image_id`` (COCO results), or a COCO file with ``images`` and ``annotations``.

    Raises:
        LabelsError: if the file cannot be read or something in it is not as it should be.
    """
    content = _read_list(path)
    names_of: dict[int, str] = {}
    if isinstance(content, dict):
        for record in records_of(content, "images", path) if "images" in content else []:
            identifier, name = record.whole("id", high=_LARGEST_ID), record.text("file_name")
            if identifier is not None and name is not None:
                names_of[identifier] = frame_name(name)
        content = content["annotations"]
    records = [_record(path, f"[{i}]", value) for i, value in enumerate(content)]
    names, ids = [], []
    for record in records:
        identifier, name = record.whole("image_id", high=_LARGEST_ID), record.text("image_name")
        if name is None and identifier is None:
            raise record.missing("image_name", "the image's name, or its id as image_id")
        names.append(frame_name(name) if name is not None else names_of.get(identifier))  # type: ignore[arg-type]
        ids.append(identifier)
    named = None not in names
    if not named and None in ids:
        raise records[ids.index(None)].problem(
            "some records know their image by name, others by id",
            expected="image_name everywhere, or image_id everywhere",
            got=shown(dict(records[ids.index(None)].values)),
            fix="write the boxes with one of the two",
        )
    return BoxList(
        np.array([_box(record) for record in records], np.float64).reshape(-1, 4),
        np.array([_score(record) for record in records], np.float64),
        np.array([_category(record) for record in records], np.int64),
        tuple(names) if named else None,
        None if None in ids else np.array(ids, np.int64),
    )


def _read_list(path: PathLike) -> Any:
    """Return the list of records of a file, or its object if it is a COCO file."""
    text = read_text(path, "boxes")
    expected = "a list of records with bbox, score and image_name or image_id"
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LabelsError(
            "the file is no valid JSON",
            path=path,
            expected=expected,
            got=error,
            fix="write the boxes again; a file that breaks off at its end was not written completely",
        ) from error
    records = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(records, list):
        raise LabelsError(
            "the file does not hold boxes",
            path=path,
            expected=expected,
            got=shown(content),
            fix="name a file of detections",
        )
    return content


def _record(path: PathLike, where: str, value: Any) -> Record:
    if not isinstance(value, Mapping):
        raise LabelsError(
            f"{where} is wrong", path=path, expected="an object", got=shown(value), fix="export again"
        )
    return Record(path, where, value)


def _box(record: Record) -> np.ndarray:
    box = record.numbers("bbox", 4)
    if box is None:
        raise record.missing("bbox", "left, top, width and height in pixels")
    if box[2] < 0 or box[3] < 0:
        raise record.wrong("bbox", "left, top, width and height in pixels, with sizes not below 0")
    return box


def _score(record: Record) -> float:
    value = record.values.get("score")
    if value is None:
        return 1.0
    if type(value) not in (int, float) or not -1e9 < value < 1e9:
        raise record.wrong("score", "a number")
    return float(value)


def _category(record: Record) -> int:
    category = record.whole("category_id")
    return 1 if category is None else category
