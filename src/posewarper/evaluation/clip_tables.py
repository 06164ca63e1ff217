"""Labels and poses of one video as instance tables, so that every metric takes them.

Frames are named by their index, so that a frame of one file is the same in another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from posewarper.evaluation.scales import boxes_or_extents
from posewarper.instances import InstanceTable
from posewarper.structures import Floats, Ints, Labels, Poses


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
