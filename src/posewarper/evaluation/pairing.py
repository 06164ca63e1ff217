"""Labels and poses of one video as instance tables, so that every metric takes them.

Frames are named by their index, so that a frame of one file is the same in another.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from posewarper.errors import LabelsError, PosewarperWarning
from posewarper.evaluation.scales import boxes_or_extents
from posewarper.structures import Floats, InstanceTable, Ints, Labels, Poses


@dataclass(frozen=True)
class FramePair:
    """The instances of one frame.

    Args:
        row: position of the frame among those of the ground truth.
        truth: positions of the labelled instances in the table of the ground truth, in its order.
        predictions: positions of the predicted ones in theirs.
    """

    row: int
    truth: Ints
    predictions: Ints


@dataclass(frozen=True)
class VideoPair:
    """A video's ground truth and predictions, and the frames on which they are compared.

    Args:
        name: by which the two were found.
        truth: the ground truth.
        predictions: what was predicted.
        frames: the frames that are scored, in the order of the ground truth.
    """

    name: str
    truth: InstanceTable
    predictions: InstanceTable
    frames: tuple[FramePair, ...]


def pair_videos(
    truth: Mapping[str, InstanceTable],
    predictions: Mapping[str, InstanceTable],
    is_scored: Callable[[InstanceTable], Ints],
) -> list[VideoPair]:
    """Return the videos of the ground truth in the order of their names, each with its predictions.

    A video is found by its key (the stem of its file), or else by the name that its table gives it; where
    both sides hold one video alone, the two belong together. Frames are found by the name of their image,
    whole or without folders and suffix.

    Args:
        truth: stem of a file -> its table.
        predictions: the same for the predictions.
        is_scored: gives for a table of the ground truth the positions of the frames that are scored.

    Raises:
        LabelsError: if a video or a scored frame has no predictions, or the keypoints differ.

    Warns:
        PosewarperWarning: about predictions that belong to no video or no frame of the ground truth.
    """
    if not truth:
        raise LabelsError("the ground truth holds no video", fix="name a file or folder with annotations")
    chosen = _find_videos(truth, predictions)
    left_out = sorted(set(predictions) - set(chosen.values()))
    if left_out:
        _warn(f"predictions of videos without ground truth are left out: {_some(left_out)}")
    pairs = []
    for name in sorted(truth):
        true, predicted = truth[name], predictions[chosen[name]]
        _check_skeletons(name, true, predicted)
        pairs.append(VideoPair(name, true, predicted, tuple(_pair_frames(name, true, predicted, is_scored))))
    _warn_of_extra(pairs)
    if not any(pair.frames for pair in pairs):
        raise LabelsError(
            "no frame of the ground truth can be scored",
            expected="at least one frame with an annotated person",
            got=f"{len(pairs)} videos without any",
            fix="use annotations of training or validation videos; those of test videos are not public",
        )
    return pairs


def labelled_frames(table: InstanceTable) -> Ints:
    """Return the positions of the frames that a labeller has gone through."""
    return np.flatnonzero(table.is_labelled)


def _find_videos(truth: Mapping[str, object], predictions: Mapping[str, InstanceTable]) -> dict[str, str]:
    """Return for each key of the ground truth the key of its predictions."""
    by_name = _unique({table.video: key for key, table in predictions.items()}, predictions)
    if len(truth) == len(predictions) == 1 and not set(truth) & set(predictions):
        (name, ours), theirs = next(iter(truth.items())), next(iter(predictions))
        _check_same_video(ours, predictions[theirs])
        return {name: theirs}
    chosen = {}
    for key, table in truth.items():
        if key in predictions:
            chosen[key] = key
        elif isinstance(table, InstanceTable) and table.video in by_name:
            chosen[key] = by_name[table.video]
    missing = sorted(set(truth) - set(chosen))
    if missing:
        raise LabelsError(
            f"there are no predictions for {len(missing)} of {len(truth)} videos",
            expected=f"files named as those of the ground truth: {_some(missing)}",
            got=_some(sorted(predictions)) or "no predictions at all",
            fix="predict these videos too, and name each file as its annotations; "
            "a video without anybody has frames and no people",
        )
    return chosen


def _check_same_video(truth: object, predictions: InstanceTable) -> None:
    """Refuse, or warn of, two single files whose frames are those of different videos."""
    if not isinstance(truth, InstanceTable) or truth.video == predictions.video:
        return
    if not truth.video or not predictions.video:
        return
    said = f"the labels are of video {truth.video}, the predictions of video {predictions.video}"
    if all("/" in name for table in (truth, predictions) for name in table.frame_names):
        raise LabelsError(
            "labels and predictions are of different videos",
            expected=f"predictions of {truth.video}",
            got=f"predictions of {predictions.video}",
            fix="name the predictions of the same video, or correct the folders in the image names",
        )
    _warn(f"{said}; they are compared all the same")


def _unique(by_name: dict[str, str], tables: Mapping[str, InstanceTable]) -> dict[str, str]:
    names = [table.video for table in tables.values()]
    return {name: key for name, key in by_name.items() if name and names.count(name) == 1}


def _check_skeletons(name: str, truth: InstanceTable, predictions: InstanceTable) -> None:
    if truth.skeleton.names != predictions.skeleton.names:
        raise LabelsError(
            f"predictions of {name}: they have other keypoints than the ground truth",
            expected=", ".join(truth.skeleton.names),
            got=", ".join(predictions.skeleton.names),
            fix="compare files of the same skeleton, with its keypoints in the same order",
        )


def _pair_frames(
    name: str, truth: InstanceTable, predictions: InstanceTable, is_scored: Callable[[InstanceTable], Ints]
) -> Iterator[FramePair]:
    scored = is_scored(truth)
    partners = _find_frames(name, truth, predictions, scored)
    of_truth, of_predictions = instances_by_frame(truth), instances_by_frame(predictions)
    for row, partner in zip(scored.tolist(), partners.tolist(), strict=True):
        yield FramePair(row, of_truth[row], of_predictions[partner])


def instances_by_frame(table: InstanceTable) -> list[Ints]:
    """Return for each frame the positions of its instances, in the order of the table."""
    order = np.argsort(table.rows, kind="stable")
    ends = np.cumsum(np.bincount(table.rows, minlength=len(table.frame_names)))
    return np.split(order, ends[:-1]) if len(ends) else []


def _find_frames(name: str, truth: InstanceTable, predictions: InstanceTable, scored: Ints) -> Ints:
    """Return for each scored frame its position among the frames of the predictions."""
    best: list[int | None] = []
    for shorten in (_whole, _stem):
        wanted = [shorten(truth.frame_names[row]) for row in scored]
        there = [shorten(frame) for frame in predictions.frame_names]
        position = {frame: row for row, frame in enumerate(there)}
        if len(position) < len(there) or len(set(wanted)) < len(wanted):
            _check_repeated(name, shorten is _whole, there)
            continue
        found = [position.get(frame) for frame in wanted]
        if None not in found:
            return np.array(found, np.int64)
        if sum(f is not None for f in found) > sum(f is not None for f in best) or not best:
            best = found
    lacking = [truth.frame_names[row] for row, f in zip(scored, best, strict=True) if f is None]
    raise LabelsError(
        f"predictions of {name}: {len(lacking)} of {len(scored)} annotated frames are missing"
        if len(lacking) < len(scored)
        else f"predictions of {name}: the names of the frames are not those of the ground truth",
        expected=_some(lacking),
        got=f"{len(predictions.frame_names)} frames: {_some(predictions.frame_names)}",
        fix="list every frame under the name that the annotations give it, also those without a person",
    )


def _whole(frame: str) -> str:
    return frame


def _stem(frame: str) -> str:
    return frame.rpartition("/")[2].rpartition(".")[0] or frame


def _check_repeated(name: str, whole: bool, frames: Sequence[str]) -> None:
    if whole and len(set(frames)) < len(frames):
        twice = next(frame for frame in frames if frames.count(frame) > 1)
        raise LabelsError(
            f"predictions of {name}: a frame is listed twice",
            got=twice,
            fix="list each frame once, with all its people",
        )


def _warn_of_extra(pairs: Sequence[VideoPair]) -> None:
    extra = []
    for pair in pairs:
        known = {_stem(frame) for frame in pair.truth.frame_names}
        with_people = np.unique(pair.predictions.rows).tolist()
        names = (pair.predictions.frame_names[row] for row in with_people)
        extra += [frame for frame in names if _stem(frame) not in known]
    if extra:
        _warn(f"{len(extra)} predicted frames without ground truth are left out: {_some(extra)}")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _warn(text: str) -> None:
    warnings.warn(text, PosewarperWarning, stacklevel=2)


def table_of_labels(labels: Labels, *, only_visible: bool, n_frames: int | None = None) -> InstanceTable:
    """Return labels, and predictions that a label file holds, as a table.

    Args:
        labels: of one video.
        only_visible: leave out keypoints of visibility 1 (hidden, a guess), which are not scored. Boxes that
            are made from keypoints include them.
        n_frames: number of frames to list at least, if the labels do not know how many there are.
    """
    count = labels.n_frames or max(count_frames(labels), n_frames or 0)
    parts = []
    for track_id, track in labels.tracks.items():
        shown = track.visibility >= (2 if only_visible else 1)
        parts.append(
            {
                "tracks": np.full(len(track.frames), track_id),
                "rows": track.frames,
                "keypoints": np.where(shown[..., None], track.keypoints, np.nan),
                "keypoint_scores": track.keypoint_scores,
                "boxes": boxes_or_extents(track.keypoints, track.boxes),
                "head_boxes": track.head_boxes,
            }
        )
    regions = {frame: polygons for frame, polygons in labels.ignore_regions.items() if frame < count}
    return _build(labels, parts, count, labels.labelled_frames, regions)


def count_frames(source: Labels | Poses) -> int:
    """Return the number of frames of the video, or, where labels do not know it, as many as they reach."""
    if source.n_frames is not None:
        return source.n_frames
    return int(max(source.instance_frames.max(initial=-1), source.labelled_frames.max(initial=-1))) + 1


def table_of_poses(poses: Poses) -> InstanceTable:
    """Return poses as a table of all frames of the video; frames whose poses are labels count as labelled."""
    parts = [
        {
            "tracks": np.full(len(track.frames), track_id),
            "rows": track.frames,
            "keypoints": track.keypoints,
            "keypoint_scores": track.keypoint_scores,
            "scores": track.instance_scores,
        }
        for track_id, track in poses.tracks.items()
    ]
    return _build(poses, parts, poses.n_frames, poses.labelled_frames, {})


def _build(
    source: Labels | Poses,
    parts: Sequence[Mapping[str, Any]],
    n_frames: int,
    labelled_frames: Ints,
    regions: Mapping[int, tuple[Floats, ...]],
) -> InstanceTable:
    is_labelled = np.zeros(n_frames, bool)
    is_labelled[labelled_frames] = True
    columns: dict[str, Any] = {
        "rows": np.zeros(0, np.int64),
        "keypoints": np.zeros((0, len(source.skeleton), 2)),
    }
    if parts:
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(columns["rows"], kind="stable")
    return InstanceTable(
        source.video or "",
        tuple(str(frame) for frame in range(n_frames)),
        np.arange(n_frames),
        **{name: column[order] for name, column in columns.items()},
        is_labelled=is_labelled,
        ignore_regions=regions,
        n_frames=n_frames,
        image_size=source.image_size,
        skeleton=source.skeleton,
    )
