"""Poses in NWB files (ndx-pose). Reading, straight from the HDF5 file.

``PoseTraining`` holds labels, ``PoseEstimation`` predictions with their confidence; those on labelled frames
are left out. sleap-io reads such files too, but not the tracks, and not which frames the predictions are on.

A label tells its frame's index; predictions tell times alone. A time is looked up among those of the linked
video, where there is one. Otherwise whole numbers are indices (sleap-io knows no rate, and writes one second
a frame), and of other times the n-th is the n-th frame, as ndx-pose has one row for each frame.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from posewarper.errors import LabelsError, PosewarperWarning
from posewarper.io.clips import Clip, Instance, VideoFacts
from posewarper.io.frame_names import base_name, stem_of
from posewarper.io.hdf5 import open_hdf5
from posewarper.io.nwb_content import MEND, TRACK, Estimation, Movie, read_content, safe_name
from posewarper.io.projects import choose_labelled, identify_tracks, need_all_tracks
from posewarper.io.records import LARGEST_COORDINATE, LARGEST_INDEX, PathLike
from posewarper.skeletons import Skeleton
from posewarper.structures import Floats, Ints, is_there

_WHAT = "an NWB file with poses"


def read_clip(path: PathLike, video: VideoFacts | None = None) -> Clip:
    """Return what an NWB file says about one video.

    Args:
        path: the file.
        video: the opened video; picks one of several.

    Raises:
        LabelsError: if the file is damaged or holds no poses, or h5py is not installed.

    Warns:
        PosewarperWarning: if the times of predictions have gaps, or only some instances have tracks.
    """
    with open_hdf5(path, _WHAT, MEND) as file:
        content = read_content(file)
    keys = {key for key, _ in content.frames} | {estimation.movie for estimation in content.estimations}
    names = {key: {base_name(key), stem_of(key)} - {""} for key in content.movies}
    chosen = choose_labelled(path, names, keys, video)
    movie = content.movies[chosen]
    estimations = [e for e in content.estimations if e.movie == chosen]
    own = [(skeleton, instance) for key, skeleton, instance in content.instances if key == chosen]
    skeleton = _agree([*(s for s, _ in own), *(e.skeleton for e in estimations)], path)
    labelled = {frame for key, frame in content.frames if key == chosen}
    instances = [instance for _, instance in own]

    tracks, track_names = _name_tracks(content.subjects, [e.name for e in estimations], bool(instances))
    for instance in instances:
        known = instance.track is not None and instance.track < len(content.subjects)
        instance.track = tracks[instance.track] if known and instance.track is not None else None
    frames = _find_frames(estimations, movie, path)
    for estimation, found, track in zip(estimations, frames, tracks[len(content.subjects) :], strict=True):
        predicted = _arrange(estimation, found, len(skeleton))
        instances += [
            _predict(frame, track, *pose) for frame, pose in predicted.items() if frame not in labelled
        ]
    instances = [instance for instance in instances if instance.visibility.any()]
    _check(instances, path)
    need_all_tracks(instances, path)
    used = {instance.track for instance in instances}
    return Clip(
        skeleton,
        instances,
        labelled,
        _upright(movie.size, video),
        movie.n_frames,
        base_name(movie.name) or None,
        track_names={i: name for i, name in track_names.items() if i in used},
    )


# --- predictions ------------------------------------------------------------------------------------------


def _find_frames(estimations: Sequence[Estimation], movie: Movie, path: PathLike) -> list[list[Ints]]:
    """Return for each keypoint of each estimation the frame indices of its rows."""
    every = [times for estimation in estimations for _, times, _, _ in estimation.series]
    known = np.unique(np.concatenate(every)) if every else np.zeros(0)
    if movie.times is not None:
        middles = (movie.times[1:] + movie.times[:-1]) / 2
        frames = np.searchsorted(middles, known)
    elif movie.rate is not None:
        frames = np.round((known - movie.start) * movie.rate)
    elif (known == np.round(known)).all():
        frames = known
    else:
        steps = np.diff(known)
        frames = np.arange(len(known))
        if steps.max(initial=0) > 1.5 * np.median(steps):
            frames = np.round((known - known[0]) / np.median(steps))
            warnings.warn(
                f"{path}: the times of the predictions have gaps; frames were counted from the first time, "
                f"{np.median(steps):.4g} s each",
                PosewarperWarning,
                stacklevel=2,
            )
    if known.size and (
        frames.min() < 0 or frames.max() > LARGEST_INDEX or len(np.unique(frames)) < len(known)
    ):
        raise LabelsError(
            "the times of the predictions do not tell the frames",
            path=path,
            expected="a time of its own for each frame, in seconds from the first",
            got=f"{len(known)} times from {known[0]:g} to {known[-1]:g} s",
            mend="export it again with the times of the video's frames",
        )
    index = frames.astype(np.int64)
    return [
        [index[np.searchsorted(known, times)] for _, times, _, _ in estimation.series]
        for estimation in estimations
    ]


def _arrange(estimation: Estimation, frames: Sequence[Ints], k: int) -> dict[int, tuple[Floats, Floats]]:
    """Return frame -> points (K, 2) and scores (K,)."""
    every = np.unique(np.concatenate(frames)) if frames else np.zeros(0, np.int64)
    points, scores = np.full((len(every), k, 2), np.nan), np.full((len(every), k), np.nan)
    for (node, _, xy, confidence), rows in zip(estimation.series, frames, strict=True):
        place = np.searchsorted(every, rows), estimation.skeleton.names.index(node)
        points[place], scores[place] = xy, confidence
    return dict(zip(every.tolist(), zip(points, scores, strict=True), strict=True))


def _predict(frame: int, track: int | None, points: Floats, scores: Floats) -> Instance:
    there = is_there(points)
    xy = np.where(there[:, None], points, np.nan)
    return Instance(frame, track, xy, there.astype(np.uint8) * 2, f"frame {frame}", scores=scores)


# --- both -------------------------------------------------------------------------------------------------


def _agree(skeletons: Sequence[Skeleton], path: PathLike) -> Skeleton:
    """Return the skeleton that all have."""
    if not skeletons:
        raise LabelsError("no frame of this video shows anybody", path=path, mend="label at least one frame")
    other = next((s for s in skeletons if s.names != skeletons[0].names), None)
    if other is not None:
        raise LabelsError(
            "the instances of this video have several skeletons",
            path=path,
            expected=", ".join(skeletons[0].names)[:200],
            got=", ".join(other.names)[:200],
            mend="keep the instances of one skeleton in a file",
        )
    return skeletons[0]


def _name_tracks(
    subjects: Sequence[str], estimations: Sequence[str], has_labels: bool
) -> tuple[list[int | None], Mapping[int, str]]:
    """Return the track of each subject and of each estimation, and the names of those that have one."""
    names = [name.removeprefix(TRACK) for name in estimations]
    if not subjects and len(names) == 1:
        # One instance need not be told from others, unless it has a name.
        unnamed = has_labels or names[0] in (estimations[0], "untracked")
        if unnamed:
            return [None], {}
    place = {safe_name(subject): i for i, subject in enumerate(subjects)}
    every = [*subjects, *(name for name in names if name not in place)]
    ids, track_names = identify_tracks(every)
    index = {name: i for name, i in zip(every, ids, strict=True)} | {n: ids[i] for n, i in place.items()}
    return [*ids[: len(subjects)], *(index[name] for name in names)], track_names


def _upright(size: tuple[int, int] | None, video: VideoFacts | None) -> tuple[int, int] | None:
    """Return (height, width); some programs write the sides of a video the other way round."""
    if size is not None and video is not None and size[::-1] == tuple(video.image_size):
        return size[1], size[0]
    return size


def _check(instances: Sequence[Instance], path: PathLike) -> None:
    for instance in instances:
        if instance.frame > LARGEST_INDEX or (np.abs(instance.keypoints) > LARGEST_COORDINATE).any():
            raise LabelsError(
                f"{instance.where}: a coordinate is wrong",
                path=path,
                expected="coordinates in pixels",
                got=f"{np.nanmax(np.abs(instance.keypoints)):g}",
                mend=MEND,
            )
