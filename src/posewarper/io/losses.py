"""What labels hold, piece by piece, and a warning about the pieces that a format cannot hold."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping

import numpy as np

from posewarper.errors import OutputError, PosewarperWarning
from posewarper.io.records import PathLike
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, LabelTrack

_MOST_FRAMES = 10_000_000


def _in_a_track(test: Callable[[LabelTrack], np.ndarray]) -> Callable[[Labels], bool]:
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
            mend="correct the frame indices, or write a format that lists labelled frames alone",
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
