"""COCO keypoints JSON: our own files with PoseTrack18's video fields, and plain ones. Reading and writing.

An image's frame is its ``frame_id``, in plain files the number in its file name. Official PoseTrack18 files
give the image id as ``frame_id`` and visibility 1 for every label; our own image ids never equal the frame,
which tells the two apart. A keypoint with visibility 0 is one that nobody has looked at; where the labeller
says that it is absent, or a keypoint of a labelled frame is predicted, our annotations have ``labelled``,
which is 1 or 0 for each keypoint. An annotation of a labelled frame without keypoints is a track that nobody
has looked at there, if others of its ``track_id`` have keypoints. CVAT puts track ids and keyframe flags into
``attributes``, and Label Studio needs ``model_index`` to order the keypoints. What is written depends on the
content alone, byte for byte.
"""

from __future__ import annotations

import heapq
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from posewarper.errors import LabelsError, few_of, repeated
from posewarper.files import replacing
from posewarper.formats.clips import Clip, Instance, VideoFacts, choose_skeleton, doubt_tracks, read_edges
from posewarper.formats.frame_names import (
    base_name,
    choose_video,
    find_frame_indices,
    is_telling,
    video_stem,
    videos_of_images,
    warn_of_numbers,
)
from posewarper.formats.records import (
    LARGEST_COORDINATE,
    LARGEST_INDEX,
    LabelFile,
    PathLike,
    Record,
    as_numbers,
    read_json,
    records_of,
    shown,
    warn,
)
from posewarper.skeletons import PRESETS, Skeleton, presets_of
from posewarper.structures import Floats, Labels, Poses, Track

_Key = int | str | None
_Entry = dict[str, Any]
# Share of a pose's extent that its box has on each side beyond it, where the labels give no box.
_BOX_MARGIN = 0.1
_OURS = "Keypoints by posewarper"  # the description of the files that this program writes


def read_skeleton(
    document: Mapping[str, Any], annotations: Sequence[Record], path: PathLike, given: Skeleton | str | None
) -> tuple[Skeleton, list[Record]]:
    """Return the skeleton of a COCO file, and those of its annotations that have it.

    An annotation without a category has the only one; where no category names keypoints, ``given`` counts,
    and where several have different ones, it chooses.

    Raises:
        LabelsError: if there is no skeleton or more than one, or an annotation's category does not exist.
    """
    needed = "categories" in document or not isinstance(given, Skeleton)
    records = records_of(document, "categories", path) if needed else []
    categories: dict[_Key, Record] = {}
    for record in records:
        _add_by_id(categories, record, "categories")
    # What one category shows of how edges are counted holds for all of them.
    from_0 = [
        r for r in categories.values() if re.search(r"\[0,|, 0\]", json.dumps(r.values.get("skeleton")))
    ]
    first = 0 if from_0 and len(categories) > 1 else 1
    if first == 0:
        warn(path, f"{from_0[0].where}: the edges of the skeletons are counted from 0, and are read so")
    skeletons = {key: _read_category(r, first) for key, r in categories.items() if r.items("keypoints")}
    if not skeletons and isinstance(given, Skeleton):
        return given, [record for record in annotations if "keypoints" in record.values]
    if not skeletons:
        counts = {
            len(points) // 3 for r in annotations if isinstance(points := r.values.get("keypoints"), list)
        }
        known = presets_of(max(counts, default=0)) if len(counts - {0}) == 1 else []
        if len(known) == 1:
            warn(path, f"no category names keypoints; {max(counts)} are taken for those of {known[0]}")
            return PRESETS[known[0]], [record for record in annotations if "keypoints" in record.values]
        raise LabelsError(
            "no category names keypoints",
            path=path,
            expected='categories like [{"id": 1, "name": "person", "keypoints": ["nose", ...]}]',
            got=f"{max(counts)} keypoints, as {', '.join(known)} have" if known else None,
            fix="export with keypoint names, or say which skeleton it is (--skeleton)",
        )
    used: list[_Key] = []
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
        used.append(key)
    in_use = {key for key, record in zip(used, annotations, strict=True) if record.values.get("keypoints")}
    candidates = {key: s for key, s in skeletons.items() if key in in_use} or skeletons
    chosen = choose_skeleton(path, list(candidates.values()), given)
    own = {key for key, skeleton in candidates.items() if skeleton.names == chosen.names}
    return chosen, [record for record, key in zip(annotations, used, strict=True) if key in own]


def _add_by_id(known: dict[_Key, Record], record: Record, what: str) -> None:
    """Add one of a file's categories, images or annotations, no two of which have the same id."""
    key = record.identifier("id")
    if key in known:
        raise record.problem(
            f"two {what} have the same id",
            expected="different ids",
            got=f"id {key} at {known[key].where} and {record.where}",
            fix=f"number the {what} anew, or remove one of the two",
        )
    known[key] = record


def _read_category(record: Record, first: int) -> Skeleton:
    names = record.items("keypoints") or []
    if not all(isinstance(name, str) and name for name in names):
        raise record.problem(
            "keypoints is wrong",
            expected="a list of names",
            got=str(names[:10])[:80],
            fix="name each keypoint with a text",
        )
    if twice := repeated(names):
        raise record.problem("keypoints are named twice", got=few_of(twice), fix="make the names unique")
    mirrored = record.items("flip_pairs") or []
    stated = record.values.get("flip_pairs") is not None  # an empty list says that there are none
    flip_pairs = _read_pairs(mirrored, len(names)) if stated else None
    if flip_pairs is not None and len(flip_pairs) < len(mirrored):
        raise record.wrong("flip_pairs", f"pairs of keypoint numbers from 1 to {len(names)}")
    pairs = record.values.get("skeleton") or []
    pairs = pairs if isinstance(pairs, list) else [pairs]
    edges = read_edges(pairs, names, first, record.path, record.where)
    return Skeleton(tuple(names), edges, flip_pairs, record.text("name") or "person")  # type: ignore[arg-type]


def _read_pairs(values: list[Any], count: int) -> tuple[tuple[int, int], ...]:
    """Return pairs of indices from 0 for pairs of numbers from 1, without what is no such pair."""
    pairs = [value for value in values if isinstance(value, list) and len(value) == 2]
    good = [(a, b) for a, b in pairs if type(a) is int and type(b) is int]
    return tuple((a - 1, b - 1) for a, b in good if 1 <= a <= count and 1 <= b <= count)


def _attributes(record: Record) -> Record | None:
    values = record.values.get("attributes")
    if values is not None and not isinstance(values, dict):
        raise record.wrong("attributes", "an object")
    return None if values is None else Record(record.path, f"{record.where}: attributes", values)


def _find_interpolated(records: Sequence[Record], instances: Sequence[Instance], path: PathLike) -> set[int]:
    """Return the frames all of whose instances CVAT interpolated between keyframes, with a warning.

    CVAT's versions of 2023 and before marked the first pose of a track alone as a keyframe, so the flags are
    used only if poses move because of keyframes alone.
    """
    attributes = [_attributes(record) for record in records]
    is_key = [values is None or values.flag("keyframe") is not False for values in attributes]
    if all(is_key):
        return set()
    tracks: dict[int | None, list[tuple[Instance, bool]]] = {}
    for instance, key in sorted(zip(instances, is_key, strict=True), key=lambda pair: pair[0].frame):
        tracks.setdefault(instance.track, []).append((instance, key))
    for (first, _), *others in tracks.values():
        held = all(np.array_equal(first.keypoints, i.keypoints, equal_nan=True) for i, _ in others)
        if not held and not any(key for _, key in others):
            return set()
    keyframes = {instance.frame for instance, key in zip(instances, is_key, strict=True) if key}
    frames = {instance.frame for instance in instances} - keyframes
    if frames:
        warn(
            path,
            f"frames with nothing but poses that CVAT interpolated (keyframe false): {len(frames)}; they "
            "count as predictions. Make them keyframes there if they are right.",
        )
    return frames


def is_native(document: Mapping[str, Any]) -> bool:
    """Return whether a COCO file has the video fields of PoseTrack18."""
    images = document.get("images")
    images = images if isinstance(images, list) else []
    return any(isinstance(image, dict) and ("frame_id" in image or "vid_id" in image) for image in images)


def read_clip(
    path: PathLike, video: VideoFacts | None = None, skeleton: Skeleton | str | None = None, *, native: bool
) -> Clip:
    """Return what a COCO file says about one video.

    ``video`` picks one of several and knows the names of frames, ``skeleton`` stands in for categories
    without keypoints, and ``native`` means PoseTrack18's style; otherwise ``frame_id`` is ignored.

    Raises:
        LabelsError: if anything in the file is not as it should be.
    """
    return read_document(read_json(path), path, video, skeleton, native=native)


def read_document(
    document: Mapping[str, Any],
    path: PathLike,
    video: VideoFacts | None = None,
    skeleton: Skeleton | str | None = None,
    *,
    native: bool,
) -> Clip:
    """Return what the content of a COCO file says about one video; arguments and errors as of read_clip.

    Formats that hold the same in other files are read by way of it.
    """
    images = read_images(document, path)
    if not images:
        raise LabelsError("the file has no images", path=path, fix="label some frames and export again")
    annotations = records_of(document, "annotations", path)
    skeleton, annotations = read_skeleton(document, annotations, path, skeleton)
    annotations, image_ids = _refer(annotations, images, path)
    info = document.get("info")
    info = info if isinstance(info, dict) else {}
    fix = "correct keypoints or export again"
    if info.get("contributor") == "Label Studio":
        fix = "give every label of KeyPointLabels a model_index in Label Studio, 0, 1, 2, ... from the top"
    keypoints, visibility = _read_keypoints(annotations, len(skeleton), path, fix)
    if native:
        # A file of PoseTrack18 itself, with visibility 1 for labelled.
        ids = [(i.identifier("id"), i.whole("frame_id", high=2**63 - 1)) for i in images.values()]
        official = all(name == frame for name, frame in ids) and not (visibility == 2).any()
    else:
        official = not (visibility == 2).any() and (visibility == 1).any()
        if official:
            warn(path, "no keypoint has visibility 2; keypoints with visibility 1 are read as visible")
    if official:
        visibility = np.where(visibility > 0, 2, 0)

    chosen, name, another = choose_images(images, info.get("video"), path, video)
    frame_of = read_frames(chosen, path, video, by_id=native and not official)
    read = [
        (record, _read_instance(record, frame_of[image_id], points, seen))
        for record, image_id, points, seen in zip(annotations, image_ids, keypoints, visibility, strict=True)
        if image_id in frame_of
    ]
    kept = [(record, instance) for record, instance in read if instance.visibility.any()]
    instances = [instance for _, instance in kept]
    predicted = _find_interpolated([record for record, _ in kept], instances, path)
    shown_frames = {instance.frame for instance in instances} - predicted
    flags = {frame_of[i]: image.flag("is_labeled") for i, image in chosen.items()}
    counts = [image.whole("nframes", low=1) for image in chosen.values()]
    track_names = {}
    for record in records_of(document, "tracks", path) if "tracks" in document else []:
        track, track_name = record.whole("id", low=-(2**63), high=2**63 - 1), record.text("name")
        if track is not None and track_name is not None:
            track_names[track] = track_name
    clip = Clip(
        skeleton,
        instances,
        {f for f, flag in flags.items() if (native or f in shown_frames if flag is None else flag)},
        _read_sides(list(chosen.values()), isinstance(path, LabelFile) and path.loose),
        max((n for n in counts if n is not None), default=None),
        name,
        {frame_of[i]: file for i, image in chosen.items() if (file := image.text("file_name"))},
        {frame_of[i]: regions for i, image in chosen.items() if (regions := read_regions(image))},
        track_names,
        another,
    )
    if info.get("description") != _OURS:
        doubt_tracks(clip, path, forget=not track_names)
    clip.instances += _find_empty([instance for _, instance in read], clip)
    return clip


def _find_empty(read: Sequence[Instance], clip: Clip) -> list[Instance]:
    """Return the instances without keypoints that say something of a labelled frame.

    That is what a labeller says of each keypoint, or that nobody has looked at a track that is elsewhere.
    """
    tracks = {instance.track for instance in clip.instances}
    if None in tracks:
        return []
    return [
        instance
        for instance in read
        if not instance.visibility.any()
        and instance.frame in clip.labelled_frames
        and instance.track is not None
        and (instance.track in tracks or instance.labelled is not None)
    ]


def read_images(document: Mapping[str, Any], path: PathLike) -> dict[int | str, Record]:
    """Return the images of a COCO file by id.

    Raises:
        LabelsError: if one has no id, or two have the same.
    """
    images: dict[Any, Record] = {}
    for record in records_of(document, "images", path):
        if record.identifier("id") is None:
            raise record.missing("id", "a whole number that no other image has")
        _add_by_id(images, record, "images")
    return images


def _refer(
    annotations: Sequence[Record], images: Mapping[int | str, Record], path: PathLike
) -> tuple[list[Record], list[int | str]]:
    """Return the annotations that hold keypoints, and the image id of each."""
    kept, image_ids, lacking = [], [], []
    seen: dict[_Key, Record] = {}
    for record in annotations:
        if record.identifier("id") is not None:
            _add_by_id(seen, record, "annotations")
        image = record.identifier("image_id")
        if image is None:
            raise record.missing("image_id", "the id of an image")
        if image not in images:
            raise record.no_image("correct image_id, add the image, or remove the annotation")
        if record.values.get("keypoints") not in (None, []):
            kept.append(record)
            image_ids.append(image)
        elif record.whole("num_keypoints") != 0:
            lacking.append(record)
    if lacking and (not kept or any(record.values.get("num_keypoints") for record in lacking)):
        first = next((record for record in lacking if record.values.get("num_keypoints")), lacking[0])
        raise first.missing("keypoints", "x, y, visibility of each keypoint")
    if lacking:
        what = f"annotations without keypoints, such as boxes alone, are left out: {len(lacking)}"
        warn(path, f"{what}, the first is {lacking[0].where}")
    return kept, image_ids


def read_triples(annotations: Sequence[Record], k: int, fix: str, *, may_lack: bool = False) -> Floats:
    """Return the three numbers of each of k keypoints (n, K, 3): x, y and visibility (or score).

    Annotations that ``may_lack`` keypoints, as those with only a box, have zeros.

    Raises:
        LabelsError: if an annotation has anything else; ``fix`` is for a wrong number of them.
    """
    rows = np.zeros((len(annotations), 3 * k))
    for row, record in zip(rows, annotations, strict=True):
        values = record.values.get("keypoints")
        if may_lack and not values:
            continue
        array = as_numbers(values, gaps=True) if isinstance(values, list) else None
        if array is None or len(array) != 3 * k:
            expected = f"a list of {3 * k} numbers: x, y, visibility of {k} keypoints"
            raise record.problem("keypoints is wrong", expected=expected, got=shown(values), fix=fix)
        row[:] = array
    return rows.reshape(-1, k, 3)


def _read_keypoints(
    annotations: Sequence[Record], k: int, path: PathLike, fix: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return (n, K, 2) xy, NaN where nothing is labelled, and (n, K) visibility of all annotations."""
    triples = read_triples(annotations, k, fix)
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
        warn(
            path, f"{gone.sum()} keypoints without coordinates are read as not labelled, the first in {first}"
        )
    xy[~there | gone] = np.nan
    return xy, np.where(gone, 0, visibility).astype(np.uint8)


def _read_instance(record: Record, frame: int, keypoints: Floats, visibility: np.ndarray) -> Instance:
    k = len(keypoints)
    track = record.whole("track_id", low=-(2**63), high=2**63 - 1)
    if track is None and (attributes := _attributes(record)) is not None:
        track = attributes.whole("track_id", low=-(2**63), high=2**63 - 1)
    scores, whole = record.numbers("scores", k, gaps=True), record.number("score")
    if scores is None and whole is not None:
        scores = np.full(k, whole)
    box, head_box = record.box("bbox"), record.box("bbox_head")
    if box is not None and not visibility.any() and not box[2:].any():
        box = None  # as we write it around nothing
    error = record.numbers("expected_error", k, gaps=True)
    labelled = record.numbers("labelled", k)
    if labelled is not None and not np.isin(labelled, (0, 1)).all():
        raise record.wrong("labelled", "1 (labelled) or 0 for each keypoint")
    said = None if labelled is None else labelled.astype(bool)
    return Instance(frame, track, keypoints, visibility, record.where, box, head_box, scores, error, said)


def choose_images(
    images: Mapping[int | str, Record], stated: object, path: PathLike, video: VideoFacts | None
) -> tuple[dict[int | str, Record], str | None, str | None]:
    """Return those of a file's images that are of the video that is meant, and the video's name.

    The third is that name if the opened video is called otherwise. ``stated`` is the name as the file states
    it beside the images; the opened video picks one of several.

    Raises:
        LabelsError: if there are several videos and none is picked.
    """
    if isinstance(path, LabelFile) and path.loose:
        return dict(images), None, None
    files = [image.text("file_name") or "" for image in images.values()]
    is_numbered = any("frame_id" in image.values for image in images.values())
    keys, told = videos_of_images(path, files, video, alike=is_numbered)
    groups: dict[str, dict[int | str, Record]] = {}
    names: dict[str, set[str]] = {}
    for (name, image), folder in zip(images.items(), keys, strict=True):
        vid = image.identifier("vid_id")
        key = folder if vid is None else str(vid)
        groups.setdefault(key, {})[name] = image
        names.setdefault(key, set()).update(told[folder])
    if isinstance(stated, str) and stated and len(groups) == 1:
        _, another = choose_video(path, {stated: {stated} if is_telling(stated) else ()}, video)
        return next(iter(groups.values())), stated, another
    key, another = choose_video(path, names, video, of_images=True)
    silent = [other or "those without a folder" for other in names if other != key and not names[other]]
    if silent:
        warn(path, f"images that do not tell their video are left out: {few_of(silent)}")
    name = min(map(base_name, names[key]), default=None) or base_name(key) or None
    return groups[key], name, another


def read_frames(
    images: Mapping[int | str, Record], path: PathLike, video: VideoFacts | None, *, by_id: bool
) -> dict[Any, int]:
    """Return the frame index of each image of one video, by image id.

    The names of a folder of frames tell it, then ``frame_id`` if ``by_id``, then the image's name.

    Raises:
        LabelsError: if the frame of an image cannot be told, or two images are of the same frame.
    """
    given: list[int | None] = []
    for name, image in images.items():
        frame = image.whole("frame_id", high=2**63 - 1) if by_id else None
        if frame is not None and frame > LARGEST_INDEX:
            if frame != name:
                raise image.wrong("frame_id", "the 0-based index of the frame in the video")
            frame = None  # PoseTrack's own numbering
        given.append(frame)
    records = images.values()
    names = [image.text("file_name") for image in records]
    frames = find_frame_indices(path, [image.where for image in records], names, given, video)
    return dict(zip(images, frames, strict=True))


def _read_sides(images: Sequence[Record], may_differ: bool) -> tuple[int, int] | None:
    """Return (height, width), the same for all images; None where the file does not tell."""
    first: tuple[Record, tuple[int, int]] | None = None
    for image in images if not may_differ else ():
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


def read_regions(image: Record) -> tuple[Floats, ...]:
    """Return the polygons of an image, each (n, 2) xy, in which nothing is scored.

    Raises:
        LabelsError: if they are not lists of x and of y of the same length.
    """
    sides: list[list[Any]] = []
    for axis in "xy":
        values: list[Any] = image.items(f"ignore_regions_{axis}") or []
        # One region may come without the list around it.
        sides.append([values] if values and not isinstance(values[0], list) else values)
    if len(sides[0]) != len(sides[1]):
        raise image.wrong("ignore_regions_y", f"{len(sides[0])} lists of numbers, as ignore_regions_x has")
    polygons = []
    for xs, ys in zip(*sides, strict=True):
        x, y = (as_numbers(side, gaps=False) if isinstance(side, list) else None for side in (xs, ys))
        if x is None or y is None or len(x) != len(y) or not (np.abs([x, y]) <= LARGEST_COORDINATE).all():
            raise image.wrong("ignore_regions_x", "a list of numbers a region, as long as ignore_regions_y")
        if len(x):
            polygons.append(np.stack([x, y], axis=-1))
    return tuple(polygons)


def write_native(path: PathLike, labels: Labels, video: VideoFacts | None = None) -> list[str]:
    """Write labels as our own COCO keypoints JSON, the coordinates exactly as given.

    Frames without labels are not listed. Where labels have no box, ``bbox`` is the extent of the keypoints
    and 10 % on each side.

    Raises:
        OutputError: if the file cannot be written.
    """
    _write(path, labels)
    return []


def write_plain(path: PathLike, labels: Labels, video: VideoFacts | None = None) -> list[str]:
    """Write labels as plain COCO keypoints JSON: the frame's index is in ``file_name`` alone.

    The tracks are named in the way of CVAT as well, so that it can take them over.

    Raises:
        OutputError: if the file cannot be written.

    Warns:
        PosewarperWarning: if the frames' indices can be told only with the folder of frames.
    """
    warn_of_numbers(path, {image["frame_id"]: image["file_name"] for image in _iterate_images(labels)})
    _write(path, labels, plain=True)
    return []


def write_poses(path: PathLike, poses: Poses) -> None:
    """Write poses as our own COCO keypoints JSON, with every frame and with scores.

    Predicted coordinates are rounded to 0.001 pixels; labelled ones are written exactly.

    Raises:
        OutputError: if the file cannot be written.
    """
    _write(path, poses)


def _iterate_images(source: Labels | Poses) -> Iterator[_Entry]:
    """Yield the images: those with labels, or every frame of poses."""
    labelled = set(source.labelled_frames.tolist())
    if isinstance(source, Labels):
        regions = source.ignore_regions
        frames: Iterable[int] = np.union1d(source.labelled_frames, source.instance_frames).tolist()
    else:
        regions, frames = {}, range(source.n_frames)
    stem = video_stem(source.video)
    for frame in frames:
        image: _Entry = {
            "id": frame + 1,  # not the frame's index, by which official PoseTrack files are told
            "file_name": source.frame_names.get(frame) or f"{stem}/{frame:06d}.jpg",
            "vid_id": stem,
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


def _iterate_track(
    source: Labels | Poses, track_id: int, track: Track, labelled: set[int]
) -> Iterator[_Entry]:
    rounded = isinstance(source, Poses)
    whole_scores = track.instance_scores
    for i, frame in enumerate(track.frames.tolist()):
        xy, visibility, said = track.keypoints[i], track.visibility[i], track.labelled[i]
        if not visibility.any() and frame not in labelled:
            continue
        if rounded:
            # Adding 0 turns the -0.0 that rounding may leave into 0.0.
            xy = np.where(said[:, None], xy, np.round(xy, 3) + 0.0)
        triples: list[float] = []
        for (x, y), v in zip(xy.tolist(), visibility.tolist(), strict=True):
            triples += [x, y, v] if v else [0, 0, 0]
        has_box = np.isfinite(track.boxes[i]).all()
        bbox = track.boxes[i].tolist() if has_box else surround(xy[visibility > 0], source.image_size)
        entry: _Entry = {
            "image_id": frame + 1,
            "category_id": 1,
            "track_id": track_id,
            "bbox": bbox,
            "area": round(bbox[2] * bbox[3], 2),
            "iscrowd": 0,
            "num_keypoints": int((visibility > 0).sum()),
            "keypoints": triples,
        }
        if frame in labelled and not np.array_equal(said, visibility > 0):
            entry["labelled"] = said.astype(int).tolist()
        if np.isfinite(track.head_boxes[i]).all():
            entry["bbox_head"] = track.head_boxes[i].tolist()
        scores, error = track.keypoint_scores[i], track.expected_error[i]
        if np.isfinite(scores).any():
            entry["score"] = _numbers(whole_scores[i : i + 1], 4 if rounded else None)[0]
            entry["scores"] = _numbers(scores, 4 if rounded else None)
        if track.knows_error if rounded else np.isfinite(error).any():
            entry["expected_error"] = _numbers(error, 3 if rounded else None)
        yield entry


def surround(keypoints: Floats, image_size: tuple[int, int] | None) -> list[float]:
    """Return the box xywh around (n, 2) keypoints, with a margin, clipped to the image; zeros for none."""
    if not len(keypoints):
        return [0.0] * 4
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


def category_of(skeleton: Skeleton) -> _Entry:
    """Return a skeleton as the category of a COCO file."""
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


def _write(path: PathLike, source: Labels | Poses, *, plain: bool = False) -> None:
    """Write a document, image by image and annotation by annotation: those of a long video are too many."""
    images = _iterate_images(source)
    labelled = set(source.labelled_frames.tolist())
    annotations = heapq.merge(
        *(_iterate_track(source, i, track, labelled) for i, track in source.tracks.items()),
        key=lambda entry: (entry["image_id"], entry["track_id"]),
    )
    if plain:
        native = ("vid_id", "frame_id", "nframes")
        images = ({key: v for key, v in image.items() if key not in native} for image in images)
        annotations = (
            {**entry, "attributes": {"occluded": False, "track_id": entry["track_id"], "keyframe": True}}
            for entry in annotations
        )
    document: _Entry = {
        "info": {"description": _OURS},
        "images": images,
        "annotations": ({"id": i + 1, **entry} for i, entry in enumerate(annotations)),
        "categories": iter([category_of(source.skeleton)]),
    }
    if source.video is not None:
        document["info"]["video"] = source.video
    if isinstance(source, Labels) and source.track_names:
        document["tracks"] = iter([{"id": i, "name": n} for i, n in sorted(source.track_names.items())])
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as handle:
        for n, (key, value) in enumerate(document.items()):
            handle.write(f"{',' if n else '{'}\n{json.dumps(key)}: ")
            if isinstance(value, Iterator):
                # One image, annotation or category a line: small, and readable in a diff.
                handle.write("[")
                for k, entry in enumerate(value):
                    handle.write(f"{',' if k else ''}\n{json.dumps(entry, allow_nan=False)}")
                handle.write("\n]")
            else:
                handle.write(json.dumps(value, allow_nan=False))
        handle.write("\n}\n")
