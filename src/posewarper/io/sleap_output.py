"""SLEAP projects (``.slp``). Writing, through sleap-io and without the video."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from posewarper.errors import PosewarperWarning
from posewarper.files import replacing
from posewarper.io.frame_names import folder_name
from posewarper.io.hdf5 import import_extra, quiet
from posewarper.io.projects import losses_of_names, name_all_tracks
from posewarper.io.records import PathLike
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, LabelTrack

CANNOT_HOLD = frozenset(
    {"which keypoints are hidden", "boxes", "head boxes", "expected errors", "ignore regions"}
)


def write_labels(path: PathLike, labels: Labels) -> None:
    """Write labels as a SLEAP project of one video, which it names but does not hold.

    Labels become instances of the user, predictions predicted ones with their scores. Hidden keypoints are
    written as visible, because SLEAP does not use those that are marked as not visible. Frames that show
    nobody are marked as negative. A single track without a name is written without tracks.

    Raises:
        LabelsError: if sleap-io is not installed.
        OutputError: if the file cannot be written.

    Warns:
        PosewarperWarning: about what SLEAP has a place for, but not in this case.
    """
    sleap_io = import_extra("sleap_io", path)
    skeleton = _build_skeleton(sleap_io, labels.skeleton)
    video = sleap_io.Video(open_backend=False, **_describe_video(labels))
    tracks = {}
    if list(labels.tracks) != [0] or 0 in labels.track_names:
        tracks = {i: sleap_io.Track(name) for i, name in name_all_tracks(labels).items()}
    frames: dict[int, list[Any]] = {
        frame: [] for frame in np.union1d(labels.labelled_frames, labels.instance_frames).tolist()
    }
    labelled = set(labels.labelled_frames.tolist())
    for i, track in labels.tracks.items():
        for row, frame in enumerate(track.frames.tolist()):
            if track.visibility[row].any():
                build = _build_label if frame in labelled else _build_prediction
                frames[frame].append(build(sleap_io, track, row, skeleton, tracks.get(i)))
    project = sleap_io.Labels(
        [
            sleap_io.LabeledFrame(
                video=video,
                frame_idx=frame,
                instances=instances,
                is_negative=frame in labelled and not instances,
            )
            for frame, instances in frames.items()
            if instances or frame in labelled
        ],
        videos=[video],
        skeletons=[skeleton],
        tracks=list(tracks.values()),
    )
    with replacing(path) as temporary, quiet():
        sleap_io.save_slp(project, str(temporary), embed=False, verbose=False)
    _warn_of_losses(path, labels)


def _build_skeleton(sleap_io: Any, skeleton: Skeleton) -> Any:
    return sleap_io.Skeleton(
        nodes=list(skeleton.names),
        edges=[(skeleton.names[a], skeleton.names[b]) for a, b in skeleton.edges],
        symmetries=[(skeleton.names[a], skeleton.names[b]) for a, b in skeleton.flip_pairs],
        name=skeleton.name,
    )


def _build_label(sleap_io: Any, track: LabelTrack, row: int, skeleton: Any, owner: Any) -> Any:
    return sleap_io.Instance.from_numpy(track.keypoints[row], skeleton=skeleton, track=owner)


def _build_prediction(sleap_io: Any, track: LabelTrack, row: int, skeleton: Any, owner: Any) -> Any:
    scores = track.keypoint_scores[row]
    known = scores[np.isfinite(scores)]
    return sleap_io.PredictedInstance.from_numpy(
        track.keypoints[row],
        skeleton=skeleton,
        track=owner,
        point_scores=scores,
        score=float(known.mean()) if known.size else 0.0,
    )


def _describe_video(labels: Labels) -> dict[str, Any]:
    """Return what sleap-io asks of a video: its file, or its images where all of them have names."""
    images = _list_images(labels)
    name = images or labels.video or "video"
    facts: dict[str, Any] = {
        "type": "ImageVideo" if images else "MediaVideo",
        "filename": images[0] if images else name,
        "grayscale": False,
    }
    if labels.image_size is not None:
        facts["shape"] = [labels.n_frames or 0, *labels.image_size, 3]
    if images:
        facts["filenames"] = images
    return {"filename": name, "backend_metadata": facts}


def _list_images(labels: Labels) -> list[str]:
    """Return the names of the files of all frames; none if some are unknown or they bear another name."""
    count = labels.n_frames or 0
    # The lengths first: a number of frames that is wrong may be too large for a set.
    if not 0 < count <= len(labels.frame_names) or not labels.frame_names.keys() >= set(range(count)):
        return []
    images = [labels.frame_names[frame] for frame in range(count)]
    folders = {folder_name(image) for image in images}
    return images if folders == {labels.video} else []


def _warn_of_losses(path: PathLike, labels: Labels) -> None:
    lost = losses_of_names(labels)
    images = _list_images(labels)
    if any(
        np.isfinite(track.at(labels.labelled_frames).keypoint_scores).any()
        for track in labels.tracks.values()
    ):
        lost.append("scores of labels")
    if labels.n_frames is not None and labels.image_size is None and not images:
        lost.append("the number of frames where the image size is not known")
    if labels.frame_names and not images:
        lost.append(
            "the names of the frames' files, unless all are known and in a folder of the video's name"
        )
    if not labels.skeleton.flip_pairs and Skeleton(labels.skeleton.names).flip_pairs:
        lost.append("mirror pairs: that there are none")
    if lost:
        text = f"{path}: a SLEAP project cannot hold: {'; '.join(lost)}"
        warnings.warn(text, PosewarperWarning, stacklevel=5)
