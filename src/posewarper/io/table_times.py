"""Seconds to frames and back, for tables whose rows tell the time."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from posewarper.errors import LabelsError, PosewarperWarning
from posewarper.io.clips import VideoFacts
from posewarper.io.records import PathLike
from posewarper.structures import Floats


def times_of(video: VideoFacts | None, frames: np.ndarray) -> dict[int, float]:
    """Return frame -> its time in seconds; nothing without a video file, whose frames alone have times."""
    if video is None or video.frame_names or (frames.size and frames[-1] >= video.n_frames):
        return {}
    return dict(zip(frames.tolist(), np.asarray(video.times)[frames].tolist(), strict=True))


def find_frames(times: Floats, places: Sequence[str], path: PathLike, video: VideoFacts | None) -> list[int]:
    """Return for each time the index of the frame whose own time is nearest.

    Args:
        times: (n,) seconds from the first frame.
        places: where each stands, for messages.
        path: the label file.
        video: the opened video; its frames need not be evenly spaced.

    Raises:
        LabelsError: if there is no video file to tell the frames by, or a time is not within the video.

    Warns:
        PosewarperWarning: if a time is further than half a frame from any frame.
    """
    if np.isnan(times).any():
        where = places[int(np.argmax(np.isnan(times)))]
        mend = "give every row a frame or a time"
        raise LabelsError(f"{where}: neither frame nor time is there", path=path, mend=mend)
    if video is None or video.frame_names:
        got = (
            "no video" if video is None else f"{Path(video.path).name}, a folder, whose images have no times"
        )
        raise LabelsError(
            "the table gives times alone, which do not tell the frames without the video file",
            path=path,
            expected="the video (--video), or a column frame",
            got=got,
            mend="give the video that the labels were made on",
        )
    known = np.asarray(video.times, np.float64)
    nearest = _find_nearest(known, times)
    distance = np.abs(times - known[nearest])
    half = 0.5 * float(np.median(np.diff(known))) if len(known) > 1 else 0.5
    # A hair more, so that times which were rounded do not warn.
    far = distance > half * 1.001
    outside = far & ((times < known[0]) | (times > known[-1]))
    if outside.any():
        i = int(np.argmax(outside))
        raise LabelsError(
            f"{places[i]}: this time is not within the video",
            path=path,
            expected=f"seconds from 0 to {known[-1]:.3f}",
            got=f"{times[i]:g}",
            mend="check that the table belongs to this video, and counts seconds from its first frame",
        )
    _check_alike(times, nearest, len(known), half, places, path)
    if far.any():
        i = int(np.argmax(far))
        warnings.warn(
            f"{path}: times further than half a frame from any frame: {far.sum()}, the first in "
            f"{places[i]} ({times[i]:g} s, the nearest frame {nearest[i]} is at {known[nearest[i]]:g} s)",
            PosewarperWarning,
            stacklevel=2,
        )
    return nearest.astype(np.int64).tolist()


def _check_alike(
    times: Floats, nearest: np.ndarray, count: int, half: float, places: Sequence[str], path: PathLike
) -> None:
    """Raise an error if unlike times belong to the same of ``count`` frames."""
    least, most = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(least, nearest, times)
    np.maximum.at(most, nearest, times)
    unlike = most - least > 0.5 * half
    if unlike.any():
        frame = int(np.argmax(unlike))
        i = int(np.argmax((nearest == frame) & (times == most[frame])))
        raise LabelsError(
            f"{places[i]}: two times belong to the same frame of the video",
            path=path,
            expected="times of the frames of this video",
            got=f"{least[frame]:g} and {most[frame]:g}, both nearest to frame {frame}",
            mend="check that the table belongs to this video, and was not made at a higher frame rate",
        )


def check_times(times: Floats, frames: np.ndarray, path: PathLike, video: VideoFacts | None) -> None:
    """Warn if times, where they are given beside the frames, are those of other frames of the video."""
    given = np.isfinite(times)
    if video is None or video.frame_names or not given.any():
        return
    nearest = _find_nearest(np.asarray(video.times, np.float64), times[given])
    other = int((nearest != frames[given]).sum())
    if other:
        warnings.warn(
            f"{path}: times of other frames of the video than the column frame says: {other}; "
            "the column frame counts",
            PosewarperWarning,
            stacklevel=2,
        )


def _find_nearest(known: Floats, times: Floats) -> np.ndarray:
    """Return for each time the index of the nearest of those known, which rise."""
    right = np.clip(np.searchsorted(known, times), 0, len(known) - 1)
    left = np.maximum(right - 1, 0)
    return np.where(np.abs(times - known[left]) <= np.abs(known[right] - times), left, right)
