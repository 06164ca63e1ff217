"""Boxes of one video from a file: COCO-style JSON, our own poses among it, a list of records, or MOT text.

Which it is, the content tells:

* an object with ``annotations``, each with ``bbox``, and ``frame_id`` (from 0) or an ``image_id`` that points
  to one of ``images`` with ``frame_id`` or a numbered ``file_name``;
* a list of records with ``frame`` (from 0) and ``bbox``;
* lines ``frame, id, left, top, width, height, conf, ...`` of the MOT challenge, frames and pixels from 1.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from posewarper.errors import LabelsError, PosewarperWarning
from posewarper.formats.frame_names import choose_video, find_frame_indices, folder_name
from posewarper.formats.records import (
    LARGEST_COORDINATE,
    LARGEST_INDEX,
    PathLike,
    Record,
    read_text,
    records_of,
    shown,
)
from posewarper.structures import NO_TRACK, Floats, Ints

_MOT_COLUMNS = "frame, id, left, top, width, height, and maybe a score"
_EXPECTED = (
    f"JSON with annotations, a JSON list of records with frame and bbox, or lines of {_MOT_COLUMNS} (MOT)"
)


@dataclass(frozen=True)
class FrameBoxes:
    """The boxes of one frame, n in number, in the order of their file.

    Args:
        boxes: (n, 4) xywh in pixels.
        scores: (n,); 1 where the file gives none.
        tracks: (n,) track ids, ``NO_TRACK`` where the file gives none.
    """

    boxes: Floats
    scores: Floats
    tracks: Ints


class _Box(NamedTuple):
    where: str
    frame: int
    box: Floats
    score: float
    track: int
    category: object


def read_video_boxes(
    path: PathLike, n_frames: int | None = None, *, category_id: int | None = None
) -> dict[int, FrameBoxes]:
    """Return the boxes of a file by frame index, frames without boxes left out.

    Coordinates of JSON files are taken as they are; those of MOT text, which count pixels from 1, are moved
    by one pixel. Scores are taken as they are; MOT text in which all are -1 has none. The ``tracks`` of a
    frame are what the file says, and are not checked over time.

    Args:
        path: the file.
        n_frames: frames of the video, against which the frame indices are checked.
        category_id: keep the boxes of this category; None for all. MOT text has none.

    Returns:
        Frame index from 0, rising -> :class:`FrameBoxes`.

    Raises:
        LabelsError: if the file cannot be read, holds no boxes or more than one video, something in it is not
            as it should be, or a frame lies beyond the last one.

    Warns:
        PosewarperWarning: about boxes without area, which are left out, and about several categories.
    """
    text = read_text(path, "boxes")
    found = _read_json(text, path) if text.lstrip()[:1] in ("{", "[", '"') else _read_mot(text, path)
    if category_id is not None:
        found = [box for box in found if box.category in (None, category_id)]
    elif len({box.category for box in found} - {None}) > 1:
        names = ", ".join(sorted({str(box.category) for box in found} - {"None"}))
        _warn(path, f"boxes of several categories ({names}) are used alike")
    _check_frames(found, path, n_frames)
    kept = [box for box in found if (box.box[2:] > 0).all()]
    if len(kept) < len(found):
        _warn(path, f"{len(found) - len(kept)} of {len(found)} boxes have no area and are left out")
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
        frame: FrameBoxes(
            np.array([box.box for box in boxes]),
            np.array([box.score for box in boxes]),
            np.array([box.track for box in boxes], np.int64),
        )
        for frame, boxes in frames.items()
    }


def _warn(path: PathLike, text: str) -> None:
    warnings.warn(f"{path}: {text}", PosewarperWarning, stacklevel=3)


def _check_frames(found: Sequence[_Box], path: PathLike, n_frames: int | None) -> None:
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


# --- JSON -------------------------------------------------------------------------------------------------


def _read_json(text: str, path: PathLike) -> list[_Box]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LabelsError(
            "the file is no valid JSON",
            path=path,
            expected=_EXPECTED,
            got=error,
            fix="write the boxes again; a file that breaks off at its end was not written completely",
        ) from error
    if isinstance(content, list):
        records = records_of({"boxes": content}, "boxes", path)
        frames = [_frame_of_record(record) for record in records]
    elif isinstance(content, dict) and isinstance(content.get("annotations"), list):
        records, frames = _read_annotations(content, path)
    else:
        raise LabelsError(
            "the file does not hold boxes",
            path=path,
            expected=_EXPECTED,
            got=shown(content),
            fix="name a file of boxes",
        )
    return [_box_of(record, frame) for record, frame in zip(records, frames, strict=True)]


def _frame_of_record(record: Record) -> int:
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


def _read_annotations(content: Mapping[str, Any], path: PathLike) -> tuple[list[Record], list[int]]:
    """Return the annotations of a COCO-style file, and the frame of each."""
    records = records_of(content, "annotations", path)
    of_image = _frames_of_images(content, path)
    frames = []
    for record in records:
        frame, image = record.whole("frame_id"), record.identifier("image_id")
        if frame is None and image is None:
            raise record.missing("frame_id", "the index of the frame, from 0, or the image_id of an image")
        if frame is None and image not in of_image:
            raise record.problem(
                "image_id points to no image",
                expected="the id of one of the images",
                got=image,
                fix="correct image_id, add the image, or give frame_id",
            )
        frames.append(of_image[image] if frame is None else frame)  # type: ignore[index]
    return records, frames


def _frames_of_images(content: Mapping[str, Any], path: PathLike) -> dict[int | str, int]:
    """Return image id -> frame index of the images of a COCO-style file, which are of one video."""
    images = records_of(content, "images", path) if "images" in content else []
    ids: dict[int | str, None] = {}
    given, names = [], []
    videos: dict[str, set[str]] = {}
    for image in images:
        name = image.identifier("id")
        if name is None or name in ids:
            raise image.problem(
                "the image has no id of its own", expected="an id a frame", got=name, fix="number the images"
            )
        frame, file_name = image.whole("frame_id", high=2**63 - 1), image.text("file_name")
        # PoseTrack's own files give the image id for the frame.
        given.append(None if frame is not None and frame > LARGEST_INDEX else frame)
        ids[name] = None
        names.append(file_name)
        video = image.identifier("vid_id")
        folder = folder_name(file_name or "") or ""
        videos.setdefault(folder if video is None else str(video), set()).add(folder)
    if len(videos) > 1:
        choose_video(path, videos, None)
    frames = find_frame_indices(path, [image.where for image in images], names, given, None)
    return dict(zip(ids, frames, strict=True))


def _box_of(record: Record, frame: int) -> _Box:
    box = record.numbers("bbox", 4, limit=LARGEST_COORDINATE)
    if box is None:
        raise record.missing("bbox", "left, top, width and height in pixels")
    if (box[2:] < 0).any():
        raise record.wrong("bbox", "left, top, width and height in pixels, with sizes not below 0")
    score = record.values.get("score")
    if score is not None and (type(score) not in (int, float) or not abs(score) <= LARGEST_COORDINATE):
        raise record.wrong("score", "a number")
    track = record.whole("track_id", low=NO_TRACK)
    track = record.whole("track", low=NO_TRACK) if track is None else track
    category = record.identifier("category_id")
    return _Box(
        record.where,
        frame,
        box,
        1.0 if score is None else float(score),
        NO_TRACK if track is None else track,
        record.identifier("category") if category is None else category,
    )


# --- MOT --------------------------------------------------------------------------------------------------


def _read_mot(text: str, path: PathLike) -> list[_Box]:
    found = [
        _read_line(line, f"line {number}", path)
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip()
    ]
    if all(box.score == -1 for box in found):
        found = [box._replace(score=1.0) for box in found]
    return found


def _read_line(line: str, where: str, path: PathLike) -> _Box:
    columns = [column.strip() for column in (line.split(",") if "," in line else line.split())]

    def wrong(what: str, expected: str, got: object) -> LabelsError:
        fix = "correct the line, or write the boxes as JSON"
        return LabelsError(f"{where}: {what}", path=path, expected=expected, got=got, fix=fix)

    try:
        values = np.array([float(column) for column in columns[:7]])
    except ValueError:
        raise wrong("this is no line of boxes", _EXPECTED, line.strip()[:80]) from None
    if len(values) < 6:
        raise wrong("columns are missing", _MOT_COLUMNS, f"{len(values)} columns")
    if not (np.abs(values) <= LARGEST_INDEX).all() or (np.abs(values[2:6]) > LARGEST_COORDINATE).any():
        limits = f"{_MOT_COLUMNS}: pixels up to {LARGEST_COORDINATE:.0f}, others up to {LARGEST_INDEX}"
        raise wrong("a value is not a finite number in reach", limits, line.strip()[:80])
    if values[0] < 1 or values[0] % 1:
        raise wrong("the frame is wrong", "a whole number from 1", columns[0])
    if (values[4:6] < 0).any():
        raise wrong("the size is wrong", "a width and a height not below 0", f"{columns[4]} x {columns[5]}")
    if values[1] % 1:
        raise wrong("the id is wrong", "a whole number, -1 for none", columns[1])
    track = NO_TRACK if values[1] < 0 else int(values[1])
    score = float(values[6]) if len(values) > 6 else 1.0
    box = np.array([values[2] - 1, values[3] - 1, values[4], values[5]])
    return _Box(where, int(values[0]) - 1, box, score, track, None)
