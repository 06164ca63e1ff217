"""What every label format is read into before it becomes :class:`Labels` or :class:`Poses`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from scipy.optimize import linear_sum_assignment

from posewarper.errors import LabelsError, OutputError, PosewarperWarning
from posewarper.formats.records import PathLike
from posewarper.skeletons import Skeleton
from posewarper.structures import Floats, Labels, Track

_MOST_FRAMES = 10_000_000


def _in_a_track(test: Callable[[Track], np.ndarray]) -> Callable[[Labels], bool]:
    return lambda labels: any(bool(test(track).any()) for track in labels.tracks.values())


def _unlabelled(labels: Labels) -> bool:
    """Return whether there are frames that nobody has labelled and that hold nothing."""
    frames = np.union1d(labels.labelled_frames, labels.instance_frames)
    count = labels.n_frames or (int(frames[-1]) + 1 if frames.size else 0)
    return len(frames) < count


# Piece -> whether some labels hold it. The names are the words of warnings and of the table of formats.
PIECES: Mapping[str, Callable[[Labels], bool]] = {
    "the keypoints' names": lambda labels: True,
    "what an instance is called": lambda labels: labels.skeleton.name not in ("person", "animal"),
    "which keypoints are hidden": _in_a_track(lambda track: track.visibility == 1),
    "boxes": _in_a_track(lambda track: np.isfinite(track.boxes)),
    "head boxes": _in_a_track(lambda track: np.isfinite(track.head_boxes)),
    "scores": _in_a_track(lambda track: np.isfinite(track.keypoint_scores)),
    "scores of 0 and below": _in_a_track(lambda track: (track.visibility > 0) & (track.keypoint_scores <= 0)),
    "which keypoints have no score": _in_a_track(
        lambda track: (track.visibility > 0) & np.isnan(track.keypoint_scores)
    ),
    "expected errors": _in_a_track(lambda track: np.isfinite(track.expected_error)),
    "which poses are predictions": lambda labels: bool(
        np.setdiff1d(labels.instance_frames, labels.labelled_frames).size
    ),
    "which frames nobody has labelled": _unlabelled,
    "labelled frames that show nobody": lambda labels: bool(
        np.setdiff1d(labels.labelled_frames, labels.instance_frames).size
    ),
    "track ids": lambda labels: list(labels.tracks) != list(range(len(labels.tracks))),
    "track names": lambda labels: bool(labels.track_names),
    "edges": lambda labels: bool(labels.skeleton.edges),
    "mirror pairs": lambda labels: labels.skeleton.flip_pairs != Skeleton(labels.skeleton.names).flip_pairs,
    "ignore regions": lambda labels: bool(labels.ignore_regions),
    "the image size": lambda labels: labels.image_size is not None,
    "the number of frames": lambda labels: labels.n_frames is not None,
    "the video's name": lambda labels: labels.video is not None,
    "the names of the frames' files": lambda labels: bool(labels.frame_names),
}


def refuse_too_many(path: PathLike, count: int, what: str) -> None:
    """Refuse to write something for each frame where a wrong frame index makes that endless.

    Raises:
        OutputError: if there are more frames than in days of video.
    """
    if count > _MOST_FRAMES:
        raise OutputError(
            f"too many {what}, one for each frame",
            path=path,
            expected=f"{_MOST_FRAMES} frames at most",
            got=f"{count}, by the number of frames or the last labelled one",
            fix="correct the frame indices, or write a format that lists labelled frames alone",
        )


def warn_of_losses(path: PathLike, what: str, labels: Labels, cannot_hold: Collection[str]) -> None:
    """Warn of what these labels hold and the file that is written cannot.

    Args:
        path: the file.
        what: the format, with its article.
        labels: what is written.
        cannot_hold: keys of :data:`PIECES`.
    """
    lost = [piece for piece, is_held in PIECES.items() if piece in cannot_hold and is_held(labels)]
    if lost:
        text = f"{path}: {what} cannot hold: {'; '.join(lost)}"
        warnings.warn(text, PosewarperWarning, stacklevel=4)


# Instances of two labelled frames are taken for the same one only if they lie closer than this many times
# their size: sparse labels are far apart in time, so a runner may have moved by more than its own length.
_FARTHEST_LINK = 1.5


class VideoFacts(Protocol):
    """What reading labels asks of an opened video; ``frame_names`` is empty unless it is a folder."""

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        ...

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        ...

    @property
    def frame_names(self) -> Sequence[str]:
        """File names of the frames of a folder, in order."""
        ...

    @property
    def path(self) -> str | os.PathLike[str]:
        """The video file or the folder."""
        ...

    @property
    def times(self) -> Floats:
        """(n_frames,) seconds from the first frame to each; of a folder they are made up."""
        ...


@dataclass
class Instance:
    """One annotation: keypoints (K, 2) xy in pixels, NaN where visibility (K,) is 0; boxes (4,) xywh."""

    frame: int
    track: int | None
    keypoints: Floats
    visibility: np.ndarray
    where: str
    box: Floats | None = None
    head_box: Floats | None = None
    scores: Floats | None = None
    expected_error: Floats | None = None


@dataclass
class Clip:
    """The content of a label file for one video. The fields are those of :class:`Labels`."""

    skeleton: Skeleton
    instances: list[Instance]
    labelled_frames: set[int]
    image_size: tuple[int, int] | None = None
    n_frames: int | None = None
    video: str | None = None
    frame_names: dict[int, str] = field(default_factory=dict)
    ignore_regions: dict[int, tuple[Floats, ...]] = field(default_factory=dict)
    track_names: dict[int, str] = field(default_factory=dict)


def group_by_track(instances: Sequence[Instance], path: PathLike) -> dict[int, list[Instance]]:
    """Return the instances of each track, by rising frame; missing track ids are made up by linking.

    Raises:
        LabelsError: if a track is in a frame twice, or only some instances name their track.
    """
    ordered = sorted(instances, key=lambda instance: instance.frame)
    nameless = [instance for instance in ordered if instance.track is None]
    if nameless and len(nameless) < len(ordered):
        raise LabelsError(
            f"{nameless[0].where}: track_id is missing, while others have one",
            path=path,
            fix="give every annotation a track_id, or none",
        )
    if nameless:
        _link(ordered, path)
    tracks: dict[int, list[Instance]] = {}
    for instance in ordered:
        assert instance.track is not None
        track = tracks.setdefault(instance.track, [])
        if track and track[-1].frame == instance.frame:
            raise LabelsError(
                f"{instance.where}: track {instance.track} is in frame {instance.frame} twice",
                path=path,
                expected="one instance of a track in a frame",
                got=f"{track[-1].where} and {instance.where}",
                fix="give the two instances different track ids, or remove one",
            )
        track.append(instance)
    return tracks


def _link(instances: Sequence[Instance], path: PathLike) -> None:
    """Set the track of instances that name none: nearest to nearest over the labelled frames, in place."""
    frames: dict[int, list[Instance]] = {}
    for instance in instances:
        frames.setdefault(instance.frame, []).append(instance)
    if max(len(group) for group in frames.values()) == 1:
        for instance in instances:
            instance.track = 0
        return
    last: list[Instance] = []  # of each track, its newest instance
    for group in frames.values():
        free = list(group)
        if last:
            # Capped, so that a pair out of reach does not bend the others.
            costs = np.array([[min(_distance(a, b), _FARTHEST_LINK) for b in group] for a in last])
            for i, j in zip(*linear_sum_assignment(costs), strict=True):
                if costs[i, j] < _FARTHEST_LINK:
                    group[j].track, last[i] = int(i), group[j]
                    free = [instance for instance in free if instance is not group[j]]
        for instance in free:
            instance.track = len(last)
            last.append(instance)
    warnings.warn(
        f"{path}: the annotations have no track_id; instances were linked over time by their distance "
        f"into {len(last)} tracks. Give track ids if that is wrong.",
        PosewarperWarning,
        stacklevel=2,
    )


def _distance(a: Instance, b: Instance) -> float:
    """Return the mean distance of the keypoints that both have, in sizes of the larger instance."""
    both = (a.visibility > 0) & (b.visibility > 0)
    spans = [np.ptp(i.keypoints[i.visibility > 0], axis=0).max() for i in (a, b)]
    size = max(*spans, 1.0)
    if both.any():
        return float(np.linalg.norm(a.keypoints[both] - b.keypoints[both], axis=-1).mean() / size)
    centres = [i.keypoints[i.visibility > 0].mean(0) for i in (a, b)]
    return float(np.linalg.norm(centres[0] - centres[1]) / size)
