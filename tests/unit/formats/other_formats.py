"""Files of formats that sleap-io alone reads, made by sleap-io itself or by hand."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

POINTS = np.array([[3.0, 4.0], [10.0, 7.0], [20.0, 30.0]])
ALPHATRACKER = """\
[{"filename": "img0004.png", "class": "image", "annotations": [
  {"class": "Face", "x": 1, "y": 2, "width": 30, "height": 20},
  {"class": "point", "x": 3.5, "y": 4.25}, {"class": "point", "x": 10, "y": 7.5}]},
 {"filename": "img0009.png", "class": "image", "annotations": [
  {"class": "Face", "x": 1, "y": 2, "width": 30, "height": 20},
  {"class": "point", "x": 5.5, "y": 6.25}, {"class": "point", "x": 12, "y": 9.5}]}]
"""


def moved(frame: int, count: int = 3) -> np.ndarray:
    """Where the keypoints are: they go right by a pixel a frame."""
    return np.resize(POINTS, (count, 2)) + np.array([frame, 0])


def write_analysis(folder: Path) -> Path:
    """An analysis file of SLEAP with three frames of one animal, which sleap-io writes."""
    sleap_io = pytest.importorskip("sleap_io")
    skeleton = sleap_io.Skeleton(["nose", "left_ear", "right_ear"])
    facts = {"type": "MediaVideo", "shape": [5, 48, 64, 3], "filename": "clip.mp4", "grayscale": False}
    video = sleap_io.Video("clip.mp4", open_backend=False, backend_metadata=facts)
    track, frames = sleap_io.Track("1"), []
    for frame in range(3):
        instance = sleap_io.PredictedInstance.from_numpy(
            moved(frame), point_scores=np.full(3, 0.5), score=0.5, skeleton=skeleton, track=track
        )
        frames.append(sleap_io.LabeledFrame(video=video, frame_idx=frame, instances=[instance]))
    labels = sleap_io.Labels(frames, videos=[video], skeletons=[skeleton], tracks=[track])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sleap_io.save_analysis_h5(labels, str(folder / "clip.analysis.h5"))
    return folder / "clip.analysis.h5"


def write_jabs(folder: Path) -> Path:
    """Poses of JABS, version 3: twelve keypoints of one mouse, y before x, in three frames."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "clip_pose_est_v3.h5", "w") as file:
        poses = file.create_group("poseest")
        poses.attrs["version"] = np.array([3, 0], np.uint16)
        points = np.stack([moved(frame, 12)[None, :, ::-1] for frame in range(3)])
        poses["points"] = points.astype(np.uint16)
        poses["confidence"] = np.full((3, 1, 12), 0.5, np.float32)
        poses["instance_count"] = np.ones(3, np.uint8)
        poses["instance_track_id"] = np.ones((3, 1), np.uint32)
    return folder / "clip_pose_est_v3.h5"
