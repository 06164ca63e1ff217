"""What is compared with what: videos and frames of the ground truth, each with its predictions.

Every metric takes instance tables. Labels and poses of one video become such tables here, with frames named
by their index.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from posewarper.errors import LabelsError, PosewarperWarning, few_of
from posewarper.evaluation.scales import boxes_or_extents
from posewarper.skeletons import Skeleton
from posewarper.structures import ABSENT, HIDDEN, VISIBLE, InstanceTable, Ints, Labels


@dataclass(frozen=True)
class FramePair:
    """The instances of one frame."""

    row: int  # position of the frame among those of the ground truth
    truth: Ints  # positions of the labelled instances in the table of the ground truth, in its order
    predictions: Ints  # positions of the predicted ones in theirs


@dataclass(frozen=True)
class VideoPair:
    """A video's ground truth and predictions, and the scored frames in the order of the ground truth."""

    name: str
    truth: InstanceTable
    predictions: InstanceTable
    frames: tuple[FramePair, ...]


def pair_videos(
    truth: Mapping[str, InstanceTable],
    predictions: Mapping[str, InstanceTable],
    is_scored: Callable[[InstanceTable], Ints] = lambda table: np.flatnonzero(table.is_labelled),
) -> list[VideoPair]:
    """Return the videos of the ground truth in the order of their names, each with its predictions.

    A video is found by its key (the stem of its file), or else by the name that its table gives it; where
    both sides hold one video alone, the two belong together. Frames are found by the name of their image,
    whole or without folders and suffix.

    Args:
        truth: stem of a file -> its table.
        predictions: the same for the predictions.
        is_scored: gives the positions of the scored frames of a true table; by default its labelled ones.

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
        _warn(f"predictions of videos without ground truth are left out: {few_of(left_out, 3)}")
    pairs, extra = [], []
    for name in sorted(truth):
        true, predicted = truth[name], predictions[chosen[name]]
        what = f"predictions of {name}: they have other keypoints than the ground truth"
        fix = "compare files of the same skeleton, with its keypoints in the same order"
        check_keypoints(what, predicted.skeleton, true.skeleton, fix=fix)
        scored = is_scored(true)
        partners = _find_frames(name, true, predicted, scored)
        people, found = instances_by_frame(true), instances_by_frame(predicted)
        rows = zip(scored.tolist(), partners.tolist(), strict=True)
        frames = tuple(FramePair(row, people[row], found[partner]) for row, partner in rows)
        pairs.append(VideoPair(name, true, predicted, frames))
        known = {_stem(frame) for frame in true.frame_names}
        peopled = [predicted.frame_names[row] for row in np.unique(predicted.rows).tolist()]
        extra += [frame for frame in peopled if _stem(frame) not in known]
    if extra:
        _warn(f"{len(extra)} predicted frames without ground truth are left out: {few_of(extra, 3)}")
    if not any(pair.frames for pair in pairs):
        raise LabelsError(
            "no frame of the ground truth can be scored",
            expected="at least one frame with an annotated person",
            got=f"{len(pairs)} videos without any",
            fix="use annotations of training or validation videos; those of test videos are not public",
        )
    return pairs


def check_keypoints(what: str, found: Skeleton, wanted: Skeleton, *, fix: str) -> None:
    """Raise LabelsError, whose first line is ``what``, unless two skeletons have the same keypoints."""
    if found.names != wanted.names:
        raise LabelsError(what, expected=", ".join(wanted.names), got=", ".join(found.names), fix=fix)


def _find_videos(
    truth: Mapping[str, InstanceTable], predictions: Mapping[str, InstanceTable]
) -> dict[str, str]:
    """Return for each key of the ground truth the key of its predictions."""
    if len(truth) == len(predictions) == 1 and not set(truth) & set(predictions):
        (name, ours), (key, theirs) = *truth.items(), *predictions.items()
        if ours.video and theirs.video and ours.video != theirs.video:
            # Folders in all image names are sure, other names may only be written in another way.
            if all("/" in frame for frame in (*ours.frame_names, *theirs.frame_names)):
                raise LabelsError(
                    "labels and predictions are of different videos",
                    expected=f"predictions of {ours.video}",
                    got=f"predictions of {theirs.video}",
                    fix="name the predictions of the same video, or correct the folders in the image names",
                )
            said = f"the labels are of video {ours.video}, the predictions of video {theirs.video}"
            _warn(f"{said}; they are compared all the same")
        return {name: key}
    names = [table.video for table in predictions.values()]
    by_name = {n: key for n, key in zip(names, predictions, strict=True) if n and names.count(n) == 1}
    chosen = {key: key if key in predictions else by_name.get(table.video) for key, table in truth.items()}
    found = {key: theirs for key, theirs in chosen.items() if theirs is not None}
    missing = sorted(set(truth) - set(found))
    if missing:
        raise LabelsError(
            f"there are no predictions for {len(missing)} of {len(truth)} videos",
            expected=f"files named as those of the ground truth: {few_of(missing, 3)}",
            got=few_of(sorted(predictions), 3) or "no predictions at all",
            fix="predict these videos too, and name each file as its annotations; "
            "a video without anybody has frames and no people",
        )
    return found


def instances_by_frame(table: InstanceTable) -> list[Ints]:
    """Return for each frame the positions of its instances, in the order of the table."""
    order = np.argsort(table.rows, kind="stable")
    ends = np.cumsum(np.bincount(table.rows, minlength=len(table.frame_names)))
    return np.split(order, ends[:-1]) if len(ends) else []


def _find_frames(name: str, truth: InstanceTable, predictions: InstanceTable, scored: Ints) -> Ints:
    """Return for each scored frame its position among the frames of the predictions."""
    names = predictions.frame_names
    if len(set(names)) < len(names):
        raise LabelsError(
            f"predictions of {name}: a frame is listed twice",
            got=next(frame for frame in names if names.count(frame) > 1),
            fix="list each frame once, with all its people",
        )
    best: list[int | None] = []
    for shorten in (str, _stem):
        wanted = [shorten(truth.frame_names[row]) for row in scored]
        position = {shorten(frame): row for row, frame in enumerate(names)}
        if len(position) < len(names) or len(set(wanted)) < len(wanted):
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
        expected=few_of(lacking, 3),
        got=f"{len(names)} frames: {few_of(names, 3)}",
        fix="list every frame under the name that the annotations give it, also those without a person",
    )


def _stem(frame: str) -> str:
    return frame.rpartition("/")[2].rpartition(".")[0] or frame


def _warn(text: str) -> None:
    warnings.warn(text, PosewarperWarning, stacklevel=2)


def table_of_labels(labels: Labels, *, only_visible: bool, n_frames: int | None = None) -> InstanceTable:
    """Return the labels of a video, and predictions that the labels hold, as a table: what shows something.

    Args:
        labels: of one video.
        only_visible: leave out keypoints of visibility 1 (hidden, a guess), which are not scored, but count
            in boxes that are made from keypoints.
        n_frames: number of frames to list at least, if the labels do not know how many there are.
    """
    count = labels.n_frames or max(count_frames(labels), n_frames or 0)
    is_labelled = np.zeros(count, bool)
    is_labelled[labels.labelled_frames] = True
    columns: dict[str, Any] = {"rows": np.zeros(0, int), "keypoints": np.zeros((0, len(labels.skeleton), 2))}
    least = VISIBLE if only_visible else HIDDEN
    parts = [
        {
            "tracks": np.full(len(track.frames), track_id),
            "rows": track.frames,
            "keypoints": np.where((track.visibility >= least)[..., None], track.keypoints, np.nan),
            "keypoint_scores": track.keypoint_scores,
            "boxes": boxes_or_extents(track.keypoints, track.boxes),
            "head_boxes": track.head_boxes,
        }
        for track_id, whole in labels.tracks.items()
        for track in [whole.at(whole.frames[(whole.visibility != ABSENT).any(1)])]
    ]
    if parts:
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(columns["rows"], kind="stable")
    return InstanceTable(
        labels.video or "",
        tuple(str(frame) for frame in range(count)),
        np.arange(count),
        **{name: column[order] for name, column in columns.items()},
        is_labelled=is_labelled,
        ignore_regions={frame: regions for frame, regions in labels.ignore_regions.items() if frame < count},
        n_frames=count,
        image_size=labels.image_size,
        skeleton=labels.skeleton,
    )


def count_frames(labels: Labels) -> int:
    """Return the number of frames of the video, or, where labels do not know it, as many as they reach."""
    if labels.n_frames is not None:
        return labels.n_frames
    return int(max(labels.instance_frames.max(initial=-1), labels.labelled_frames.max(initial=-1))) + 1
