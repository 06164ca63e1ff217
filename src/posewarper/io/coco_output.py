"""COCO keypoints JSON, our own and plain. Writing, with bytes that depend on the content alone."""

from __future__ import annotations

import heapq
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from posewarper.errors import PosewarperWarning
from posewarper.files import replacing
from posewarper.io.frame_names import number_in, stem_of
from posewarper.io.records import PathLike
from posewarper.skeletons import Skeleton
from posewarper.structures import Floats, Labels, Poses, PoseTrack

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
    _write(path, labels, _iterate_images(labels, _frames_of(labels)), _list_labels(labels))


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
    annotations = _list_labels(labels)
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
    _write(path, poses, _iterate_images(poses, range(poses.n_frames)), _iterate_poses(poses))


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


def _list_labels(labels: Labels) -> list[_Entry]:
    annotations = []
    for track_id, track in labels.tracks.items():
        for i, frame in enumerate(track.frames.tolist()):
            if not track.visibility[i].any():
                continue
            box = track.boxes[i] if np.isfinite(track.boxes[i]).all() else None
            entry = _describe(
                frame, track_id, track.keypoints[i], track.visibility[i], box, labels.image_size
            )
            if np.isfinite(track.head_boxes[i]).all():
                entry["bbox_head"] = track.head_boxes[i].tolist()
            scores, error = track.keypoint_scores[i], track.expected_error[i]
            if np.isfinite(scores).any():
                entry["score"] = float(np.nanmean(scores))
                entry["scores"] = _or_null(scores)
            if np.isfinite(error).any():
                entry["expected_error"] = _or_null(error)
            annotations.append(entry)
    return sorted(annotations, key=_order)


def _iterate_poses(poses: Poses) -> Iterator[_Entry]:
    """Yield the annotations frame by frame: those of a long video are too many to be held at once."""
    labelled = set(poses.labelled_frames.tolist())
    tracks = [_iterate_track(poses, i, track, labelled) for i, track in poses.tracks.items()]
    return heapq.merge(*tracks, key=_order)


def _iterate_track(poses: Poses, track_id: int, track: PoseTrack, labelled: set[int]) -> Iterator[_Entry]:
    scores = track.instance_scores
    for i, frame in enumerate(track.frames.tolist()):
        visibility = np.where(np.isfinite(track.keypoints[i]).all(-1), track.visibility[i], 0)
        if not visibility.any():
            continue
        # Adding 0 turns the -0.0 that rounding may leave into 0.0.
        xy = track.keypoints[i] if frame in labelled else np.round(track.keypoints[i], 3) + 0.0
        entry = _describe(frame, track_id, xy, visibility, None, poses.image_size)
        entry["score"] = _rounded(scores[i : i + 1], 4)[0]
        entry["scores"] = _rounded(np.where(visibility > 0, track.keypoint_scores[i], 0.0), 4)
        if track.expected_error is not None:
            entry["expected_error"] = _rounded(track.expected_error[i], 3)
        yield entry


def _order(entry: _Entry) -> tuple[int, int]:
    return entry["image_id"], entry["track_id"]


def _describe(
    frame: int,
    track_id: int,
    keypoints: Floats,
    visibility: np.ndarray,
    box: Floats | None,
    image_size: tuple[int, int] | None,
) -> _Entry:
    """Return an annotation without its id; the caller adds what labels or poses have besides."""
    triples: list[float] = []
    for (x, y), v in zip(keypoints.tolist(), visibility.tolist(), strict=True):
        triples += [x, y, v] if v else [0, 0, 0]
    bbox = _surround(keypoints[visibility > 0], image_size) if box is None else box.tolist()
    return {
        "image_id": _image_id(frame),
        "category_id": 1,
        "track_id": track_id,
        "bbox": bbox,
        "area": round(bbox[2] * bbox[3], 2),
        "iscrowd": 0,
        "num_keypoints": int((visibility > 0).sum()),
        "keypoints": triples,
    }


def _surround(keypoints: Floats, image_size: tuple[int, int] | None) -> list[float]:
    """Return the box xywh around (n, 2) keypoints, with a margin, clipped to the image."""
    low, high = keypoints.min(0), keypoints.max(0)
    margin = _BOX_MARGIN * (high - low)
    low, high = low - margin, high + margin
    if image_size is not None:
        edge = np.array(image_size[::-1], np.float64)
        low, high = np.clip(low, 0, edge), np.clip(high, 0, edge)
    return np.round([*low, *(high - low)], 2).tolist()


def _or_null(values: Floats) -> list[float | None]:
    """Return numbers for JSON, null for those not known."""
    return [v if np.isfinite(v) else None for v in values.tolist()]


def _rounded(values: Floats, digits: int) -> list[float | None]:
    return _or_null(np.round(values, digits))


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
