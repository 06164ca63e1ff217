"""PoseTrack18's files, which PoseTrack21 shares: COCO keypoints JSON with video fields, as instance tables.

In official files ``frame_id`` is the image id, so that a frame's number comes from its file name; elsewhere
``frame_id`` is the number. Visibility above 0 means that a keypoint is there. Predictions have ``scores``, a
number a keypoint, or ``score``, or put the score in place of the visibility.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from posewarper.errors import LabelsError, few_of
from posewarper.files import write_text
from posewarper.formats.coco import category_of, read_regions, read_skeleton, read_triples
from posewarper.formats.frame_names import base_name, folder_name, frame_name, number_in
from posewarper.formats.records import (
    LARGEST_COORDINATE,
    LARGEST_INDEX,
    PathLike,
    Record,
    read_json,
    records_of,
)
from posewarper.posetrack.points import check_names, labelled_flags, single_number, whole, without_none
from posewarper.skeletons import POSETRACK, Skeleton
from posewarper.structures import NO_TRACK, Floats, InstanceTable, is_there


def read_posetrack18(path: PathLike) -> InstanceTable:
    """Return the instances of a PoseTrack18-style file of one video, ground truth or predictions.

    Raises:
        LabelsError: if the file cannot be read, something in it is not as it should be, or it is about
            several videos.
    """
    return only_video(tables_of_coco(read_json(path), path), path)


def only_video(tables: Mapping[str, InstanceTable], path: PathLike) -> InstanceTable:
    """Return the one video of a file; raise LabelsError if there are several."""
    if len(tables) > 1:
        raise LabelsError(
            f"the file is about {len(tables)} videos",
            path=path,
            expected="one video in a file",
            got=few_of(list(tables)),
            fix="name a file of one video, or take it out of the folder of label files",
        )
    return next(iter(tables.values()))


def tables_of_coco(document: Mapping[str, Any], path: PathLike) -> dict[str, InstanceTable]:
    """Return the instances of each video of a parsed PoseTrack18-style file, in the order of the file.

    A video is named after the folder of its images (with the folders above it where two would have the same
    name), or after ``vid_id`` where there is none. Keypoints that are all PoseTrack's come in its order.

    Raises:
        LabelsError: if something in the file is not as it should be.
    """
    images = records_of(document, "images", path)
    if not images:
        raise LabelsError("the file has no images", path=path, fix="export it again")
    ids = [_id(image, "id", "a whole number that no other image has") for image in images]
    place = {identifier: i for i, identifier in enumerate(ids)}
    if len(place) < len(ids):
        repeated = next(i for i, identifier in enumerate(ids) if place[identifier] != i)
        raise images[repeated].problem(
            "two images have the same id", got=f"id {ids[repeated]}", fix="number the images anew"
        )
    annotations = records_of(document, "annotations", path) if "annotations" in document else []
    skeleton, annotations = read_skeleton(document, annotations, path, POSETRACK)
    owners = np.zeros(len(annotations), np.int64)
    for i, record in enumerate(annotations):
        image = _id(record, "image_id", "the id of an image")
        if image not in place:
            raise record.no_image("correct image_id, add the image, or remove the annotation")
        owners[i] = place[image]
    categories = records_of(document, "categories", path) if document.get("categories") else []
    # As the original: the first category is the person.
    person = categories[0].identifier("id") if categories else None
    columns, skeleton = _read_columns(annotations, skeleton, person)

    videos = _group(images, document, path)
    tables = {}
    row_of, video_of = np.zeros(len(images), np.int64), np.zeros(len(images), np.int64)
    for v, members in enumerate(videos.values()):
        row_of[members], video_of[members] = np.arange(len(members)), v
    of_video = video_of[owners]
    order = np.argsort(of_video, kind="stable")
    ends = np.searchsorted(of_video[order], np.arange(len(videos) + 1))
    for v, (name, members) in enumerate(videos.items()):
        chosen = order[ends[v] : ends[v + 1]]
        rows = row_of[owners[chosen]]
        tables[name] = InstanceTable(
            video=name,
            image_ids=np.array([ids[i] for i in members]),
            rows=rows,
            skeleton=skeleton,
            **{key: column[chosen] for key, column in columns.items()},
            **_read_frames([images[i] for i in members], rows),
        )
    return tables


def _id(record: Record, key: str, expected: str) -> int:
    value = whole(record, key)
    if value is None:
        raise record.missing(key, expected)
    return value


def _read_columns(
    annotations: Sequence[Record], skeleton: Skeleton, category: int | str | None
) -> tuple[dict[str, Any], Skeleton]:
    """Return the columns of all annotations, without their frames, and their skeleton.

    ``category`` is the id of the category of people, None if the file has no categories.
    """
    n, k = len(annotations), len(skeleton)
    triples = _read_triples(annotations, k)
    keypoints, third = triples[..., :2], triples[..., 2]
    scores = np.full((n, k), np.nan)
    stated = np.zeros(n, bool)
    boxes, head_boxes = np.full((n, 4), np.nan), np.full((n, 4), np.nan)
    for i, record in enumerate(annotations):
        given = record.numbers("scores", k, gaps=True)
        if given is not None:
            scores[i], stated[i] = given, True
        for column, keys in ((boxes, ("bbox",)), (head_boxes, ("bbox_head", "head_box"))):
            box = next((b for key in keys if (b := record.numbers(key, 4)) is not None), None)
            column[i] = np.nan if box is None else box
    # Some write the score in place of the visibility, which is then no 0, 1 or 2.
    if not np.isin(third, (0, 1, 2)).all():
        scores = np.where(stated[:, None], scores, third)
    keypoints[~(third > 0)] = np.nan
    scores[~is_there(keypoints)] = np.nan
    if set(skeleton.names) <= set(POSETRACK.names):
        places = [POSETRACK.names.index(name) for name in skeleton.names]
        found, their_scores = keypoints, scores
        keypoints, scores = np.full((n, len(POSETRACK), 2), np.nan), np.full((n, len(POSETRACK)), np.nan)
        keypoints[:, places], scores[:, places] = found, their_scores
        skeleton = POSETRACK
    tracks = [whole(record, "track_id") for record in annotations]
    columns = {
        "keypoints": keypoints,
        "keypoint_scores": scores,
        "scores": np.array([single_number(record, "score") for record in annotations], np.float64),
        "tracks": np.array([NO_TRACK if track is None else track for track in tracks], np.int64),
        "boxes": boxes,
        "head_boxes": head_boxes,
        "is_person": np.array([_is_person(record, category) for record in annotations], bool),
    }
    return columns, skeleton


def _read_triples(annotations: Sequence[Record], k: int) -> Floats:
    """Return x, y and the third number of each keypoint (n, K, 3)."""
    triples = read_triples(annotations, k, "correct it, or export again", may_lack=True)
    # The third number may be a score, but none that is infinite.
    bad = (np.abs(triples) > LARGEST_COORDINATE).any(-1) & (triples[..., 2] > 0)
    if bad.any():
        i, j = np.argwhere(bad)[0]
        raise annotations[i].problem(
            f"keypoint {j + 1} of {k} is wrong",
            expected="x and y in pixels, and visibility or score",
            got=", ".join(f"{number:g}" for number in triples[i, j]),
            fix="correct it, or give it visibility 0",
        )
    return triples


def _is_person(record: Record, category: int | str | None) -> bool:
    area = single_number(record, "area")
    own = record.identifier("category_id")
    return not record.values.get("iscrowd") and not area <= 0 and (own is None or own == category)


def _group(images: Sequence[Record], document: Mapping[str, Any], path: PathLike) -> dict[str, list[int]]:
    """Return for each video, by name, the positions of its images."""
    groups: dict[str, list[int]] = {}
    for i, image in enumerate(images):
        folder = _file_name(image).rpartition("/")[0]
        video = image.identifier("vid_id")
        groups.setdefault(folder or ("" if video is None else str(video)), []).append(i)
    info = document.get("info")
    stated = info.get("video") if isinstance(info, dict) and len(groups) == 1 else None
    if isinstance(stated, str) and stated:
        return {stated: next(iter(groups.values()))}
    short = [base_name(key) for key in groups]
    names = [base if short.count(base) == 1 else key for base, key in zip(short, groups, strict=True)]
    return {name or Path(path).stem: group for name, group in zip(names, groups.values(), strict=True)}


def _file_name(image: Record) -> str:
    name = image.text("file_name")
    if name is None:
        raise image.missing("file_name", "the file name of the frame")
    return frame_name(name)


def _read_frames(images: Sequence[Record], rows: np.ndarray) -> dict[str, Any]:
    """Return what the table of one video says about its frames."""
    names = [_file_name(image) for image in images]
    check_names(names, images)
    counts = [n for image in images if (n := image.whole("nframes")) is not None]
    sizes = {(image.whole("height"), image.whole("width")) for image in images} - {(None, None), (0, 0)}
    height, width = sizes.pop() if len(sizes) == 1 else (None, None)
    return {
        "frame_names": tuple(names),
        "frame_numbers": [_frame_number(image, name) for image, name in zip(images, names, strict=True)],
        "is_labelled": labelled_flags([image.flag("is_labeled") for image in images], rows),
        "ignore_regions": {row: found for row, image in enumerate(images) if (found := read_regions(image))},
        "n_frames": max(counts, default=None),
        "image_size": (height, width) if height and width else None,
    }


def _frame_number(image: Record, name: str) -> int:
    stated = whole(image, "frame_id")
    if stated is not None and abs(stated) > LARGEST_INDEX:
        stated = None
    in_name = number_in(name)
    # In official files frame_id is the image id.
    official = stated is None or stated == image.values["id"]
    number = stated if in_name is None or not official else in_name
    if number is None:
        raise image.problem(
            "cannot tell the number of this frame",
            expected="a file name with the number, like 000012.jpg",
            got=name,
            fix="number the file names, or give frame_id",
        )
    return number


def write_posetrack18(path: PathLike, table: InstanceTable) -> None:
    """Write a table as a PoseTrack18 JSON file, from which all of it can be read again.

    Raises:
        OutputError: if the place cannot be written.
    """
    write_text(path, json.dumps(posetrack18_document(table), allow_nan=False, separators=(",", ":")))


def posetrack18_document(table: InstanceTable) -> dict[str, Any]:
    """Return a table as the content of a PoseTrack18 file.

    A frame's name gets ``images/`` in front. Frames without ids get them in the official form,
    ``1VVVVVVFFFF`` for video V and frame F, where the names allow it.
    """
    numbers, digits = table.frame_numbers, re.match(r"\d+", table.video)
    if table.image_ids is not None:
        ids = table.image_ids.tolist()
    else:
        if len(np.unique(numbers)) < len(numbers) or ((numbers < 0) | (numbers > 9999)).any():
            numbers = np.arange(len(numbers))
        video = int(digits.group()) if digits and len(digits.group()) <= 6 else 0
        ids = [10**10 + video * 10**4 + number for number in numbers.tolist()]
    height, width = table.image_size or (None, None)
    images = []
    for row, name in enumerate(table.frame_names):
        number = int(table.frame_numbers[row])
        regions = [np.asarray(region, float).T.tolist() for region in table.ignore_regions.get(row, ())]
        image = {
            "file_name": f"images/{name}",
            "id": ids[row],
            "frame_id": ids[row] if number_in(name) == number else number,
            "vid_id": digits.group() if digits else table.video,
            "is_labeled": bool(table.is_labelled[row]),
            "nframes": table.n_frames,
            "height": height,
            "width": width,
            "ignore_regions_x": [x for x, _ in regions] or None,
            "ignore_regions_y": [y for _, y in regions] or None,
        }
        images.append(without_none(image))
    document: dict[str, Any] = {"images": images, "annotations": _annotations(table, ids)}
    document["categories"] = [category_of(table.skeleton)]
    if {folder_name(name) for name in table.frame_names} != {table.video}:
        document["info"] = {"video": table.video}
    return document


def _annotations(table: InstanceTable, ids: list[int]) -> list[dict[str, Any]]:
    there = is_there(table.keypoints)
    triples = np.zeros((*there.shape, 3))
    triples[there, :2], triples[there, 2] = table.keypoints[there], 1
    scores = np.where(there, table.keypoint_scores, 0)
    scored = np.asarray(np.any(np.isfinite(table.keypoint_scores) & there, axis=1))
    counts = [0] * len(ids)
    # Two digits of an id count the people of a frame.
    crowded = np.bincount(table.rows).max(initial=0) > 100
    annotations = []
    for i, row in enumerate(table.rows.tolist()):
        box, head = table.boxes[i], table.head_boxes[i]
        annotation = {
            "id": i + 1 if crowded else ids[row] * 100 + counts[row],
            "image_id": ids[row],
            "category_id": 1,
            "keypoints": [number for x, y, v in triples[i].tolist() for number in (x, y, int(v))],
            "iscrowd": None if table.is_person[i] else 1,
            "track_id": int(table.tracks[i]) if table.tracks[i] != NO_TRACK else None,
            "bbox": box.tolist() if np.isfinite(box).all() else None,
            "bbox_head": head.tolist() if np.isfinite(head).all() else None,
            "score": float(table.scores[i]) if np.isfinite(table.scores[i]) else None,
            "scores": [s if np.isfinite(s) else None for s in scores[i].tolist()] if scored[i] else None,
        }
        counts[row] += 1
        annotations.append(without_none(annotation))
    return annotations
