"""COCO keypoints JSON, our own and plain. Writing, with bytes that depend on the content alone."""

from __future__ import annotations

import heapq
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from posewarper.errors import LabelsError, PosewarperWarning
from posewarper.files import replacing
from posewarper.formats.clips import Clip, Instance, VideoFacts
from posewarper.formats.frame_names import choose_video, find_frame_indices, folder_name, number_in, stem_of
from posewarper.formats.records import (
    LARGEST_COORDINATE,
    LARGEST_INDEX,
    PathLike,
    Record,
    as_numbers,
    records_of,
    shown,
)
from posewarper.skeletons import Skeleton
from posewarper.structures import Floats, Labels, Poses, Track

_Key = int | str | None


def read_skeleton(
    document: Mapping[str, Any], annotations: Sequence[Record], path: PathLike, given: Skeleton | None
) -> tuple[Skeleton, list[Record]]:
    """Return the skeleton of a COCO file, and those of its annotations that have it.

    Args:
        document: the parsed file.
        annotations: all its annotations.
        path: its path, for messages.
        given: stands in where no category names keypoints.

    Raises:
        LabelsError: if there is no skeleton or more than one, or an annotation's category does not exist.
    """
    records = records_of(document, "categories", path) if "categories" in document or given is None else []
    categories: dict[_Key, Record] = {}
    for record in records:
        key = record.identifier("id")
        if key in categories:
            raise record.problem("two categories have the same id", got=key, fix="number the categories anew")
        categories[key] = record
    skeletons = {key: _read_category(r) for key, r in categories.items() if r.items("keypoints")}
    if skeletons:
        return _choose(skeletons, _used_categories(annotations, categories), annotations, path)
    if given is not None:
        return given, [record for record in annotations if "keypoints" in record.values]
    raise LabelsError(
        "no category names keypoints",
        path=path,
        expected='categories like [{"id": 1, "name": "person", "keypoints": ["nose", ...]}]',
        fix="export with keypoint names, or say which skeleton it is (--skeleton)",
    )


def _used_categories(annotations: Sequence[Record], categories: Mapping[_Key, Record]) -> list[_Key]:
    """Return the category of each annotation; one that names none has the only one."""
    keys = []
    for record in annotations:
        key = record.identifier("category_id")
        if key is None and len(categories) == 1:
            key = next(iter(categories))
        if key not in categories:
            raise record.problem(
                "category_id points to no category",
                expected=f"one of {', '.join(map(str, categories))}"[:200],
                got=key if key is not None else "no category_id",
                fix="correct category_id or add the category",
            )
        keys.append(key)
    return keys


def _choose(
    skeletons: Mapping[_Key, Skeleton], used: Sequence[_Key], annotations: Sequence[Record], path: PathLike
) -> tuple[Skeleton, list[Record]]:
    candidates = {key: s for key, s in skeletons.items() if key in set(used)} or skeletons
    chosen = next(iter(candidates.values()))
    if any(s.names != chosen.names for s in candidates.values()):
        raise LabelsError(
            "the file has labels of several skeletons",
            path=path,
            expected="one category with keypoints, or several with the same keypoints",
            got=", ".join(f"{s.name} ({len(s)} keypoints)" for s in candidates.values())[:200],
            fix="keep one category in a file",
        )
    return chosen, [record for record, key in zip(annotations, used, strict=True) if key in candidates]


def _read_category(record: Record) -> Skeleton:
    names = record.items("keypoints") or []
    if not all(isinstance(name, str) and name for name in names):
        raise record.problem(
            "keypoints is wrong",
            expected="a list of names",
            got=str(names[:10])[:80],
            fix="name each keypoint with a text",
        )
    if len(set(names)) < len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise record.problem(
            "keypoints are named twice", got=", ".join(repeated)[:200], fix="make the names unique"
        )
    mirrored = record.items("flip_pairs")
    stated = record.values.get("flip_pairs") is not None  # an empty list says that there are none
    flip_pairs = _read_pairs(mirrored or [], len(names)) if stated else None
    if flip_pairs is not None and len(flip_pairs) < len(mirrored or []):
        raise record.wrong("flip_pairs", f"pairs of keypoint numbers from 1 to {len(names)}")
    return Skeleton(
        tuple(names),
        _read_edges(record, len(names)),
        flip_pairs,  # type: ignore[arg-type]
        record.text("name") or "person",
    )


def _read_edges(record: Record, count: int) -> tuple[tuple[int, int], ...]:
    """Return the edges; wrong ones are left out with a warning, since they are only for drawing."""
    value = record.values.get("skeleton") or []
    edges = _read_pairs(value, count) if isinstance(value, list) else ()
    if not isinstance(value, list) or len(edges) < len(value):
        warnings.warn(
            f"{record.path}: {record.where}: edges of the skeleton are left out that are no pairs of "
            f"keypoint numbers from 1 to {count}",
            PosewarperWarning,
            stacklevel=2,
        )
    return edges


def _read_pairs(values: list[Any], count: int) -> tuple[tuple[int, int], ...]:
    """Return pairs of indices from 0 for pairs of numbers from 1, without what is no such pair."""
    pairs = [value for value in values if isinstance(value, list) and len(value) == 2]
    good = [(a, b) for a, b in pairs if type(a) is int and type(b) is int]
    return tuple((a - 1, b - 1) for a, b in good if 1 <= a <= count and 1 <= b <= count)


def read_track(record: Record) -> int | None:
    """Return the track of an annotation: its own ``track_id``, or that of its attributes."""
    own = record.whole("track_id", low=-(2**63), high=2**63 - 1)
    attributes = _attributes(record) if own is None else None
    return own if attributes is None else attributes.whole("track_id", low=-(2**63), high=2**63 - 1)


def _attributes(record: Record) -> Record | None:
    values = record.values.get("attributes")
    if values is None:
        return None
    if not isinstance(values, dict):
        raise record.wrong("attributes", "an object")
    return Record(record.path, f"{record.where}: attributes", values)


def _is_keyframe(record: Record) -> bool:
    attributes = _attributes(record)
    return attributes is None or attributes.flag("keyframe") is not False


def find_interpolated(records: Sequence[Record], instances: Sequence[Instance], path: PathLike) -> set[int]:
    """Return the frames all of whose instances CVAT interpolated between keyframes.

    Args:
        records: the annotations.
        instances: what was read from each.
        path: the file, for the warning.

    Warns:
        PosewarperWarning: if there are such frames.
    """
    is_key = [_is_keyframe(record) for record in records]
    if all(is_key) or not _are_flags_right(instances, is_key):
        return set()
    labelled = {instance.frame for instance, key in zip(instances, is_key, strict=True) if key}
    frames = {instance.frame for instance in instances} - labelled
    if frames:
        warnings.warn(
            f"{path}: frames with nothing but poses that CVAT interpolated (keyframe false): {len(frames)}; "
            "they count as predictions. Make them keyframes there if they are right.",
            PosewarperWarning,
            stacklevel=2,
        )
    return frames


def _are_flags_right(instances: Sequence[Instance], is_key: Sequence[bool]) -> bool:
    """Return whether poses move only because of keyframes.

    CVAT's versions of 2023 and before marked the first pose of a track alone as a keyframe.
    """
    tracks: dict[int | None, list[tuple[Instance, bool]]] = {}
    for instance, key in sorted(zip(instances, is_key, strict=True), key=lambda pair: pair[0].frame):
        tracks.setdefault(instance.track, []).append((instance, key))
    for (first, _), *others in tracks.values():
        held = all(np.array_equal(first.keypoints, i.keypoints, equal_nan=True) for i, _ in others)
        if not held and not any(key for _, key in others):
            return False
    return True


def fix_keypoints(document: Mapping[str, Any]) -> str:
    """Return what to do about annotations with another number of keypoints than their category."""
    info = document.get("info")
    if isinstance(info, dict) and info.get("contributor") == "Label Studio":
        return "give every label of KeyPointLabels a model_index in Label Studio, 0, 1, 2, ... from the top"
    return "correct keypoints or export again"


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
    fix = fix_keypoints(document)
    keypoints, visibility = _read_keypoints(annotations, len(skeleton), path, fix)
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
    interpolated = find_interpolated([record for record, _ in found], instances, path)
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
                fix="number the images anew, or remove one of the two",
            )
        images[name] = record
    if not images:
        raise LabelsError("the file has no images", path=path, fix="label some frames and export again")
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
                fix="number the annotations anew, or remove one of the two",
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
                fix="correct image_id, add the image, or remove the annotation",
            )
        is_empty = record.values.get("keypoints", []) == [] and record.whole("num_keypoints") == 0
        if "keypoints" not in record.values and not is_empty:
            raise record.missing("keypoints", "x, y, visibility of each keypoint")
        if not is_empty:
            kept.append(record)
            image_ids.append(image)
    return kept, image_ids


def _read_keypoints(
    annotations: Sequence[Record], k: int, path: PathLike, fix: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return (n, K, 2) xy, NaN where nothing is labelled, and (n, K) visibility of all annotations."""
    rows = np.zeros((len(annotations), 3 * k))
    for row, record in zip(rows, annotations, strict=True):
        values = record.values["keypoints"]
        array = as_numbers(values, gaps=True) if isinstance(values, list) else None
        if array is None or len(array) != 3 * k:
            expected = f"a list of {3 * k} numbers: x, y, visibility of {k} keypoints"
            raise record.problem("keypoints is wrong", expected=expected, got=shown(values), fix=fix)
        row[:] = array
    triples = rows.reshape(-1, k, 3)
    xy, visibility = triples[..., :2].copy(), triples[..., 2]

    def complain(bad: np.ndarray, expected: str) -> None:
        if bad.any():
            i, j = np.argwhere(bad)[0]
            got = ", ".join(f"{number:g}" for number in triples[i, j])
            fix = "correct it, or give it visibility 0"
            what = f"keypoint {j + 1} of {k} is wrong"
            raise annotations[i].problem(what, expected=expected, got=got, fix=fix)

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
        read_track(record),
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
                fix="keep the frames of one video in a file, all of one size",
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


_Entry = dict[str, Any]
# Share of a pose's extent that its box has on each side beyond it, where the labels give no box.
_BOX_MARGIN = 0.1


def write_native(path: PathLike, labels: Labels) -> None:
    """Write labels as our own COCO keypoints JSON, the coordinates exactly as given.

    Frames without labels are not listed. Where labels have no box, ``bbox`` is the extent of the keypoints
    and 10 % on each side.

    Raises:
        OutputError: if the file cannot be written.
    """
    _write(path, labels, _iterate_images(labels, _frames_of(labels)), _iterate_annotations(labels))


def write_plain(path: PathLike, labels: Labels) -> None:
    """Write labels as plain COCO keypoints JSON: the frame's index is in ``file_name`` alone.

    The tracks are named in the way of CVAT as well, so that it can take them over.

    Raises:
        OutputError: if the file cannot be written.

    Warns:
        PosewarperWarning: if the frames' indices can be told only with the folder of frames.
    """
    images = list(_iterate_images(labels, _frames_of(labels)))
    if any(number_in(image["file_name"]) != image["frame_id"] for image in images):
        warnings.warn(
            f"{path}: the images are numbered otherwise than the frames; read it with the folder of frames",
            PosewarperWarning,
            stacklevel=4,
        )
    for image in images:
        for key in ("vid_id", "frame_id", "nframes"):
            image.pop(key, None)
    annotations = list(_iterate_annotations(labels))
    for annotation in annotations:
        annotation["attributes"] = {
            "occluded": False, "track_id": annotation["track_id"], "keyframe": True
        }  # fmt: skip
    _write(path, labels, images, annotations)


def write_poses(path: PathLike, poses: Poses) -> None:
    """Write poses as our own COCO keypoints JSON, with every frame and with scores.

    Predicted coordinates are rounded to 0.001 pixels; those on ``labelled_frames`` are written exactly.

    Raises:
        OutputError: if the file cannot be written.
    """
    _write(
        path, poses, _iterate_images(poses, range(poses.n_frames)), _iterate_annotations(poses, rounded=True)
    )


def default_name(video: str | None, frame: int) -> str:
    """Return the image file name of a frame whose labels give none."""
    return f"{_video_stem(video)}/{frame:06d}.jpg"


def _video_stem(video: str | None) -> str:
    return stem_of(video) if video else "video"


def _frames_of(labels: Labels) -> list[int]:
    return np.union1d(labels.labelled_frames, labels.instance_frames).tolist()


def _iterate_images(source: Labels | Poses, frames: Iterable[int]) -> Iterator[_Entry]:
    labelled = set(source.labelled_frames.tolist())
    regions = source.ignore_regions if isinstance(source, Labels) else {}
    for frame in frames:
        image: _Entry = {
            "id": _image_id(frame),
            "file_name": source.frame_names.get(frame) or default_name(source.video, frame),
            "vid_id": _video_stem(source.video),
            "frame_id": frame,
        }
        if source.n_frames is not None:
            image["nframes"] = int(source.n_frames)
        if source.image_size is not None:
            image["width"], image["height"] = int(source.image_size[1]), int(source.image_size[0])
        image["is_labeled"] = frame in labelled
        if frame in regions:
            for axis, name in enumerate("xy"):
                image[f"ignore_regions_{name}"] = [polygon[:, axis].tolist() for polygon in regions[frame]]
        yield image


def _image_id(frame: int) -> int:
    # Never equal to the frame's index: that is how official PoseTrack files are told.
    return frame + 1


def _iterate_annotations(source: Labels | Poses, *, rounded: bool = False) -> Iterator[_Entry]:
    """Yield the annotations frame by frame: those of a long video are too many to be held at once."""
    tracks = [_iterate_track(source, i, track, rounded) for i, track in source.tracks.items()]
    return heapq.merge(*tracks, key=lambda entry: (entry["image_id"], entry["track_id"]))


def _iterate_track(source: Labels | Poses, track_id: int, track: Track, rounded: bool) -> Iterator[_Entry]:
    labelled = set(source.labelled_frames.tolist())
    whole_scores = track.instance_scores
    for i, frame in enumerate(track.frames.tolist()):
        xy, visibility = track.keypoints[i], track.visibility[i]
        if not visibility.any():
            continue
        if rounded and frame not in labelled:
            xy = np.round(xy, 3) + 0.0  # adding 0 turns the -0.0 that rounding may leave into 0.0
        triples: list[float] = []
        for (x, y), v in zip(xy.tolist(), visibility.tolist(), strict=True):
            triples += [x, y, v] if v else [0, 0, 0]
        has_box = np.isfinite(track.boxes[i]).all()
        bbox = track.boxes[i].tolist() if has_box else _surround(xy[visibility > 0], source.image_size)
        entry: _Entry = {
            "image_id": _image_id(frame),
            "category_id": 1,
            "track_id": track_id,
            "bbox": bbox,
            "area": round(bbox[2] * bbox[3], 2),
            "iscrowd": 0,
            "num_keypoints": int((visibility > 0).sum()),
            "keypoints": triples,
        }
        if np.isfinite(track.head_boxes[i]).all():
            entry["bbox_head"] = track.head_boxes[i].tolist()
        scores, error = track.keypoint_scores[i], track.expected_error[i]
        if np.isfinite(scores).any():
            entry["score"] = _numbers(whole_scores[i : i + 1], 4 if rounded else None)[0]
            entry["scores"] = _numbers(scores, 4 if rounded else None)
        if track.knows_error if rounded else np.isfinite(error).any():
            entry["expected_error"] = _numbers(error, 3 if rounded else None)
        yield entry


def _surround(keypoints: Floats, image_size: tuple[int, int] | None) -> list[float]:
    """Return the box xywh around (n, 2) keypoints, with a margin, clipped to the image."""
    low, high = keypoints.min(0), keypoints.max(0)
    margin = _BOX_MARGIN * (high - low)
    low, high = low - margin, high + margin
    if image_size is not None:
        edge = np.array(image_size[::-1], np.float64)
        low, high = np.clip(low, 0, edge), np.clip(high, 0, edge)
    return np.round([*low, *(high - low)], 2).tolist()


def _numbers(values: Floats, digits: int | None = None) -> list[float | None]:
    """Return numbers for JSON, null for those not known."""
    exact = values if digits is None else np.round(values, digits)
    return [v if np.isfinite(v) else None for v in exact.tolist()]


def _category(skeleton: Skeleton) -> _Entry:
    category: _Entry = {
        "id": 1,
        "name": skeleton.name,
        "supercategory": skeleton.name,
        "keypoints": list(skeleton.names),
        "skeleton": [[a + 1, b + 1] for a, b in skeleton.edges],
    }
    if skeleton.flip_pairs != Skeleton(skeleton.names).flip_pairs:  # COCO leaves the reader to guess them
        category["flip_pairs"] = [[a + 1, b + 1] for a, b in skeleton.flip_pairs]
    return category


def _write(
    path: PathLike, source: Labels | Poses, images: Iterable[_Entry], annotations: Iterable[_Entry]
) -> None:
    """Write a document; images and annotations come in order, and are not held together."""
    info = {"description": "Keypoints by posewarper"}
    if source.video is not None:
        info["video"] = source.video
    document: _Entry = {
        "info": info,
        "images": iter(images),
        "annotations": ({"id": i + 1, **entry} for i, entry in enumerate(annotations)),
        "categories": iter([_category(source.skeleton)]),
    }
    if isinstance(source, Labels) and source.track_names:
        document["tracks"] = iter([{"id": i, "name": n} for i, n in sorted(source.track_names.items())])
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as handle:
        handle.writelines(_format(document))


def _format(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield pieces of JSON with one image, annotation or category a line: small, and readable in a diff."""
    for n, (key, value) in enumerate(document.items()):
        yield f"{',' if n else '{'}\n{json.dumps(key)}: "
        if isinstance(value, Iterator):
            yield "["
            for k, entry in enumerate(value):
                yield f"{',' if k else ''}\n{json.dumps(entry, allow_nan=False)}"
            yield "\n]"
        else:
            yield json.dumps(value, allow_nan=False)
    yield "\n}\n"
