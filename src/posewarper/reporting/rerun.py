"""Frames, skeletons and expected errors as a recording of Rerun (``.rrd``), which its viewer plays.

Paths in the recording: ``frame`` holds the pictures, ``frame/NAME`` the skeleton of each track, and
``expected_error/NAME`` (pixels) and ``score/NAME`` a line for each keypoint; ``labelled`` is 1 on labelled
frames. Timelines are ``frame`` (index, from 0) and ``time`` (seconds). Coordinates are pixels of the frame
with the centre of the first one at (0.5, 0.5), as Rerun has it.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from posewarper.errors import ConfigError, OutputError
from posewarper.files import replacing
from posewarper.formats.clips import name_all_tracks
from posewarper.formats.labels import check_image_size
from posewarper.reporting.overlay import instances_on
from posewarper.skeletons import Skeleton
from posewarper.structures import Poses, Progress, is_there, silent
from posewarper.video.source import Video, ahead

_QUALITY = 80  # of the pictures, as JPEG
_SUFFIX = ".rrd"


def check_recording(path: str | os.PathLike[str], overwrite: bool) -> None:
    """Check before the work that a recording can be written.

    Raises:
        ConfigError: if the name does not end in .rrd, or rerun-sdk is not installed.
        OutputError: if the file is there already and is not to be replaced.
    """
    place = Path(path)
    if place.suffix.lower() != _SUFFIX:
        raise ConfigError(
            "this is no name for a recording of Rerun",
            path=place,
            expected=f"a name that ends in {_SUFFIX}",
            got=place.name,
            fix=f"name it {place.with_suffix(_SUFFIX).name}",
        )
    if place.exists() and not overwrite:
        raise OutputError(
            "the recording is there already", path=place, fix="name another file, or add --overwrite"
        )
    _import_rerun()


def _import_rerun() -> Any:
    try:
        return importlib.import_module("rerun")
    except ImportError as error:
        raise ConfigError(
            "a recording of Rerun needs a package that is not installed",
            expected="the package rerun-sdk",
            got=error,
            fix='pip install "posewarper[rerun]"',
        ) from error


def write_recording(
    path: str | os.PathLike[str],
    video: Video,
    poses: Poses,
    *,
    span: range | None = None,
    progress: Progress = silent,
) -> None:
    """Write a recording with each frame, the poses on it and their expected errors and scores.

    Args:
        path: where to write, a name that ends in .rrd.
        video: the frames.
        poses: the poses, in pixels of the frames.
        span: the frames that are written; None for all.
        progress: is told of each frame.

    Raises:
        ConfigError: if rerun-sdk is not installed.
        LabelsError: if the poses belong to another image size.
        OutputError: if the place cannot be written.
    """
    rr = _import_rerun()
    check_image_size(poses.image_size, video.image_size, what="poses", path=video.path)
    names = name_all_tracks(poses.as_labels())
    wanted, times = span or range(video.n_frames), video.times
    with replacing(path) as temporary:
        recording = rr.RecordingStream("posewarper", recording_id=Path(path).stem)
        recording.set_log_time_enabled(False)
        recording.set_log_tick_enabled(False)
        recording.save(temporary)
        _describe(rr, recording, poses.skeleton, names)
        shown: set[int] = set()
        for n, (i, image) in enumerate(ahead((i, video[i]) for i in wanted), start=1):
            recording.set_time("frame", sequence=i)
            recording.set_time("time", duration=float(times[i]))
            data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
            recording.log("frame", rr.EncodedImage(contents=data.tobytes(), media_type="image/jpeg"))
            recording.log("labelled", rr.Scalars(float(i in poses.labelled_frames)))
            present = set()
            for track_id, track, row, colour in instances_on(poses, i):
                there = is_there(track.keypoints[row])
                present.add(track_id)
                points = rr.Points2D(
                    track.keypoints[row][there] + 0.5,
                    class_ids=0,
                    keypoint_ids=np.flatnonzero(there),
                    colors=colour,
                )
                recording.log(["frame", names[track_id]], points)
                lines = {"expected_error": track.expected_error, "score": track.keypoint_scores}
                for kind, values in lines.items():
                    if np.isfinite(values[row]).any():
                        recording.log([kind, names[track_id]], rr.Scalars(values[row]))
            for track_id in shown - present:
                recording.log(["frame", names[track_id]], rr.Clear(recursive=False))
            shown = present
            progress("recording", n, len(wanted))
        recording.flush()
        recording.disconnect()


def _describe(rr: Any, recording: Any, skeleton: Skeleton, names: Mapping[int, str]) -> None:
    """Log what does not change: the names of keypoints, the edges, and what each line is called."""
    keypoints = [rr.AnnotationInfo(id=k, label=name) for k, name in enumerate(skeleton.names)]
    description = rr.ClassDescription(
        info=rr.AnnotationInfo(id=0, label=skeleton.name),
        keypoint_annotations=keypoints,
        keypoint_connections=list(skeleton.edges),
    )
    recording.log("/", rr.AnnotationContext(description), static=True)
    for kind in ("expected_error", "score"):
        for name in names.values():
            recording.log([kind, name], rr.SeriesLines(names=list(skeleton.names)), static=True)
