"""COCO keypoints JSON: our own files, official PoseTrack18 files, and plain COCO. Reading.

Our own files are COCO plus ``vid_id``, ``frame_id`` (0-based), ``nframes``, ``track_id`` and ``is_labeled``;
visibility is 2 for labelled and visible, 1 for labelled but hidden, 0 for none. In official PoseTrack files
``frame_id`` is the image id and visibility is never 2: the frame's index then comes from ``file_name``, and
1 means labelled. Plain COCO has no ``frame_id``: the index comes from ``file_name``, and frames without
annotations count as not labelled, because many tools list every frame of a video. What CVAT and Label Studio
do besides is in ``coco_exports.py``.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from posewarper.errors import LabelsError, PosewarperWarning
from posewarper.io import coco_exports
from posewarper.io.categories import read_skeleton
from posewarper.io.clips import Clip, Instance, VideoFacts
from posewarper.io.frame_names import choose_video, find_frame_indices, folder_name
from posewarper.io.records import (
    LARGEST_COORDINATE,
    LARGEST_INDEX,
    PathLike,
    Record,
    as_numbers,
    records_of,
    shown,
)
from posewarper.skeletons import Skeleton
from posewarper.structures import Floats


def is_native(document: Mapping[str, Any]) -> bool:
    """Return whether a COCO file has the video fields of PoseTrack18."""
    images = document.get("images")
    images = images if isinstance(images, list) else []
    return any(isinstance(image, dict) and ("frame_id" in image or "vid_id" in image) for image in images)


def read_clip(
    document: Mapping[str, Any],
    path: PathLike,
    *,
    native: bool,
    video: VideoFacts | None = None,
    skeleton: Skeleton | None = None,
) -> Clip:
    """Return what a COCO file says about one video.

    Args:
        document: the parsed file.
        path: its path, for messages.
        native: read it as PoseTrack18-style; otherwise ``frame_id`` is ignored.
        video: the opened video; picks one of several, and knows the frames' names.
        skeleton: stands in for categories that the file does not have.

    Raises:
        LabelsError: if anything in the file is not as it should be.
    """
    images = _read_images(document, path)
    annotations = records_of(document, "annotations", path)
    skeleton, annotations = read_skeleton(document, annotations, path, skeleton)
    annotations, image_ids = _refer(annotations, images, path)
    mend = coco_exports.mend_keypoints(document)
    keypoints, visibility = _read_keypoints(annotations, len(skeleton), path, mend)
    if native:
        official = _is_official(list(images.values()), visibility)
    else:
        official = not (visibility == 2).any() and (visibility == 1).any()
        if official:
            _warn(path, "no keypoint has visibility 2; keypoints with visibility 1 are read as visible")
    if official:
        visibility = np.where(visibility > 0, 2, 0)

    chosen, name = _choose_images(document, images, path, video)
    frames = _read_frames(list(chosen.values()), path, video, native=native, official=official)
    frame_of = dict(zip(chosen, frames, strict=True))
    found = [
        (record, _read_instance(record, frame_of[image_id], points, seen))
        for record, image_id, points, seen in zip(annotations, image_ids, keypoints, visibility, strict=True)
        if image_id in frame_of and seen.any()
    ]
    instances = [instance for _, instance in found]
    interpolated = coco_exports.find_interpolated([record for record, _ in found], instances, path)
    with_label = {instance.frame for instance in instances} - interpolated
    sides = _read_sides(list(chosen.values()))
    counts = [image.whole("nframes", low=1) for image in chosen.values()]
    return Clip(
        skeleton,
        instances,
        labelled_frames=_labelled_frames(chosen, frame_of, with_label, native=native),
        image_size=sides,
        n_frames=max((n for n in counts if n is not None), default=None),
        video=name,
        frame_names={
            frame_of[i]: image.values["file_name"] for i, image in chosen.items() if image.text("file_name")
        },
        ignore_regions={
            frame_of[i]: regions for i, image in chosen.items() if (regions := _read_regions(image))
        },
        track_names=_read_track_names(document, path),
    )


def _warn(path: PathLike, text: str) -> None:
    warnings.warn(f"{path}: {text}", PosewarperWarning, stacklevel=2)


def _read_images(document: Mapping[str, Any], path: PathLike) -> dict[int | str, Record]:
    images: dict[int | str, Record] = {}
    for record in records_of(document, "images", path):
        name = record.identifier("id")
        if name is None:
            raise record.missing("id", "a whole number that no other image has")
        if name in images:
            raise record.problem(
                "two images have the same id",
                expected="an id a frame",
                got=f"id {name} at {images[name].where} and {record.where}",
                mend="number the images anew, or remove one of the two",
            )
        images[name] = record
    if not images:
        raise LabelsError("the file has no images", path=path, mend="label some frames and export again")
    return images


# --- annotations ------------------------------------------------------------------------------------------


def _refer(
    annotations: Sequence[Record], images: Mapping[int | str, Record], path: PathLike
) -> tuple[list[Record], list[int | str]]:
    """Return the annotations that hold keypoints, and the image id of each."""
    kept, image_ids = [], []
    seen: dict[int | str, Record] = {}
    for record in annotations:
        name = record.identifier("id")
        if name is not None and name in seen:
            raise record.problem(
                "two annotations have the same id",
                got=f"id {name} at {seen[name].where} and {record.where}",
                mend="number the annotations anew, or remove one of the two",
            )
        if name is not None:
            seen[name] = record
        image = record.identifier("image_id")
        if image is None:
            raise record.missing("image_id", "the id of an image")
        if image not in images:
            raise record.problem(
                "image_id points to no image",
                expected="the id of one of the images",
                got=image,
                mend="correct image_id, add the image, or remove the annotation",
            )
        is_empty = record.values.get("keypoints", []) == [] and record.whole("num_keypoints") == 0
        if "keypoints" not in record.values and not is_empty:
            raise record.missing("keypoints", "x, y, visibility of each keypoint")
        if not is_empty:
            kept.append(record)
            image_ids.append(image)
    return kept, image_ids


def _read_keypoints(
    annotations: Sequence[Record], k: int, path: PathLike, mend: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return (n, K, 2) xy, NaN where nothing is labelled, and (n, K) visibility of all annotations."""
    rows = np.zeros((len(annotations), 3 * k))
    for row, record in zip(rows, annotations, strict=True):
        values = record.values["keypoints"]
        array = as_numbers(values, gaps=True) if isinstance(values, list) else None
        if array is None or len(array) != 3 * k:
            expected = f"a list of {3 * k} numbers: x, y, visibility of {k} keypoints"
            raise record.problem("keypoints is wrong", expected=expected, got=shown(values), mend=mend)
        row[:] = array
    triples = rows.reshape(-1, k, 3)
    xy, visibility = triples[..., :2].copy(), triples[..., 2]

    def complain(bad: np.ndarray, expected: str) -> None:
        if bad.any():
            i, j = np.argwhere(bad)[0]
            got = ", ".join(f"{number:g}" for number in triples[i, j])
            mend = "correct it, or give it visibility 0"
            what = f"keypoint {j + 1} of {k} is wrong"
            raise annotations[i].problem(what, expected=expected, got=got, mend=mend)

    complain(~np.isin(visibility, (0, 1, 2)), "a visibility of 0, 1 or 2")
    there = visibility > 0
    complain((np.abs(xy) > LARGEST_COORDINATE).any(-1) & there, "coordinates in pixels")
    gone = np.isnan(xy).any(-1) & there
    if gone.any():
        first = annotations[np.argwhere(gone)[0][0]].where
        _warn(
            path, f"{gone.sum()} keypoints without coordinates are read as not labelled, the first in {first}"
        )
    xy[~there | gone] = np.nan
    return xy, np.where(gone, 0, visibility).astype(np.uint8)


def _read_instance(record: Record, frame: int, keypoints: Floats, visibility: np.ndarray) -> Instance:
    k = len(keypoints)
    boxes = {key: record.numbers(key, 4) for key in ("bbox", "bbox_head")}
    for key, box in boxes.items():
        if box is not None and (box[2:] < 0).any():
            raise record.wrong(key, "x, y, width, height, with sizes not below 0")
    scores = record.numbers("scores", k, gaps=True)
    whole = record.values.get("score")
    if whole is not None and (type(whole) not in (int, float) or not abs(whole) <= LARGEST_COORDINATE):
        raise record.wrong("score", "a finite number")
    if scores is None and whole is not None:
        scores = np.full(k, float(whole))
    return Instance(
        frame,
        coco_exports.read_track(record),
        keypoints,
        visibility,
        record.where,
        boxes["bbox"],
        boxes["bbox_head"],
        scores,
        record.numbers("expected_error", k, gaps=True),
    )


def _read_track_names(document: Mapping[str, Any], path: PathLike) -> dict[int, str]:
    """Return the names of the tracks, which our own files list where there are any."""
    names = {}
    for record in records_of(document, "tracks", path) if "tracks" in document else []:
        track, name = record.whole("id", low=-(2**63), high=2**63 - 1), record.text("name")
        if track is not None and name is not None:
            names[track] = name
    return names


# --- images -----------------------------------------------------------------------------------------------


def _choose_images(
    document: Mapping[str, Any],
    images: Mapping[int | str, Record],
    path: PathLike,
    video: VideoFacts | None,
) -> tuple[dict[int | str, Record], str | None]:
    """Return the images of the video that is meant, and the video's name."""
    groups: dict[str, dict[int | str, Record]] = {}
    names: dict[str, set[str]] = {}
    for name, image in images.items():
        folder = folder_name(image.text("file_name") or "") or ""
        vid = image.identifier("vid_id")
        key = folder if vid is None else str(vid)
        groups.setdefault(key, {})[name] = image
        names.setdefault(key, set()).update({folder} - {""})
    key = choose_video(path, names, video)
    info = document.get("info")
    stated = info.get("video") if isinstance(info, dict) and len(groups) == 1 else None
    if isinstance(stated, str) and stated:
        return groups[key], stated
    return groups[key], min(names[key], default=None) or key or None


def _is_official(images: Sequence[Record], visibility: np.ndarray) -> bool:
    """Return whether this is a file of PoseTrack18 itself, with visibility 1 for labelled."""
    ids = [(image.identifier("id"), image.whole("frame_id", high=2**63 - 1)) for image in images]
    return all(name == frame for name, frame in ids) and not (visibility == 2).any()


def _read_frames(
    images: Sequence[Record], path: PathLike, video: VideoFacts | None, *, native: bool, official: bool
) -> list[int]:
    """Return the frame index of each image."""
    given: list[int | None] = [None] * len(images)
    if native and not official:
        given = [image.whole("frame_id", high=2**63 - 1) for image in images]
        for i, (image, frame) in enumerate(zip(images, given, strict=True)):
            if frame is None or frame <= LARGEST_INDEX:
                continue
            if frame != image.identifier("id"):
                raise image.wrong("frame_id", "the 0-based index of the frame in the video")
            given[i] = None  # PoseTrack's own numbering
    return find_frame_indices(
        path, [image.where for image in images], [image.text("file_name") for image in images], given, video
    )


def _labelled_frames(
    images: Mapping[int | str, Record],
    frame_of: Mapping[int | str, int],
    with_label: set[int],
    *,
    native: bool,
) -> set[int]:
    labelled = set()
    for name, image in images.items():
        flag = image.flag("is_labeled")
        if (native or frame_of[name] in with_label) if flag is None else flag:
            labelled.add(frame_of[name])
    return labelled


def _read_sides(images: Sequence[Record]) -> tuple[int, int] | None:
    """Return (height, width), the same for all images; None where the file does not tell."""
    first: tuple[Record, tuple[int, int]] | None = None
    for image in images:
        height, width = image.whole("height"), image.whole("width")
        if not height or not width:  # CVAT writes 0 where it does not know
            continue
        if first is None:
            first = image, (height, width)
        elif first[1] != (height, width):
            raise image.problem(
                "the images have different sizes",
                expected=f"{first[1][1]} x {first[1][0]}, as {first[0].where}",
                got=f"{width} x {height}",
                mend="keep the frames of one video in a file, all of one size",
            )
    return None if first is None else first[1]


def _read_regions(image: Record) -> tuple[Floats, ...]:
    """Return the polygons of an image, each (n, 2) xy, in which nothing is scored."""
    columns: list[list[Any]] = [image.items(f"ignore_regions_{axis}") or [] for axis in "xy"]
    polygons = []
    if len(columns[0]) != len(columns[1]):
        raise image.wrong("ignore_regions_y", f"{len(columns[0])} lists of numbers, as ignore_regions_x has")
    for xs, ys in zip(*columns, strict=True):
        sides = [as_numbers(side, gaps=False) if isinstance(side, list) else None for side in (xs, ys)]
        x, y = sides
        if x is None or y is None or len(x) != len(y) or not (np.abs([x, y]) < LARGEST_COORDINATE).all():
            raise image.wrong(
                "ignore_regions_x", "one list of numbers a region, as long as in ignore_regions_y"
            )
        if len(x):
            polygons.append(np.stack([x, y], axis=-1))
    return tuple(polygons)
