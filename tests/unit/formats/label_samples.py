"""Labels with a bit of everything, and the comparison of what went into a format with what came out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posewarper.cli import app as command_line
from posewarper.errors import PosewarperWarning
from posewarper.formats.catalogue import FORMATS
from posewarper.formats.labels import read_annotations, write_labels
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Track

NAN = np.nan


def mixed_labels(**changes: Any) -> Labels:
    """Two named tracks: labels on frames 2 and 7, nobody on frame 5, predictions on frames 9 and 10."""
    rng = np.random.default_rng(3)
    points = rng.uniform(0, 40, (4, 3, 2))
    points[1, 2] = NAN
    scores = np.full((4, 3), NAN)
    scores[2:] = [[0.5, 0.25, 0.125], [1.0, NAN, 0.0625]]
    seen = np.where(np.isnan(points[..., 0]), 0, 2)
    first = Track([2, 7, 9, 10], points, visibility=seen, keypoint_scores=scores)
    second = Track([7, 9], points[2:] + 5.5, keypoint_scores=scores[[0, 2]])
    values: dict[str, Any] = {
        "skeleton": Skeleton(("nose", "ear_l", "ear_r"), ((0, 1), (0, 2)), ((0, 2),), name="mouse"),
        "tracks": {0: first, 1: second},
        "labelled_frames": [2, 5, 7],
        "image_size": (48, 64),
        "n_frames": 12,
        "video": "clip.mp4",
        "track_names": {0: "Ann", 1: "Bob"},
    }
    return Labels(**(values | changes))


def labels_alone(**changes: Any) -> Labels:
    """The same without predictions."""
    return mixed_labels(**changes).only_labelled()


def predictions_alone(**changes: Any) -> Labels:
    """The same without labels."""
    labels = mixed_labels(**changes)
    predicted = labels.at([9, 10])
    return Labels(**{**vars(predicted), "labelled_frames": []})


def convert(path: Path, labels: Labels, format: str) -> tuple[Labels, str]:
    """Write and read labels; also all that was said meanwhile."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        write_labels(path, labels, format=format)
        again = read_annotations(path)
    assert all(issubclass(warning.category, PosewarperWarning) for warning in caught), caught
    return again, " ".join(str(warning.message) for warning in caught)


def run_command(*arguments: object) -> int:
    """Run the command line in this process; returns the exit code."""
    with pytest.raises(SystemExit) as left:
        command_line.app([str(argument) for argument in arguments], prog_name="posewarper")
    return int(left.value.code or 0)


# Piece -> what of it some labels hold, for comparison.
_HELD: dict[str, Callable[[Labels], Any]] = {
    "the keypoints' names": lambda labels: labels.skeleton.names,
    "what an instance is called": lambda labels: labels.skeleton.name,
    "edges": lambda labels: labels.skeleton.edges,
    "mirror pairs": lambda labels: labels.skeleton.flip_pairs,
    "which poses are predictions": lambda labels: np.setdiff1d(
        labels.instance_frames, labels.labelled_frames
    ).tolist(),
    "labelled frames that show nobody": lambda labels: labels.labelled_frames.tolist(),
    "track ids": lambda labels: list(labels.tracks),
    "track names": lambda labels: dict(labels.track_names),
    "the image size": lambda labels: labels.image_size,
    "the number of frames": lambda labels: labels.n_frames,
    "the video's name": lambda labels: labels.video,
    "the names of the frames' files": lambda labels: dict(labels.frame_names),
}


def assert_same(again: Labels, labels: Labels, *, but: Collection[str] = ()) -> None:
    """Compare every coordinate bit by bit, and every piece but some."""
    for piece, held in _HELD.items():
        if piece not in but:
            assert held(again) == held(labels), piece
    assert len(again.tracks) == len(labels.tracks)
    for mine, other in zip(again.tracks.values(), labels.tracks.values(), strict=True):
        np.testing.assert_array_equal(mine.frames, other.frames)
        np.testing.assert_array_equal(mine.keypoints, other.keypoints)
        if "which keypoints are hidden" not in but:
            np.testing.assert_array_equal(mine.visibility, other.visibility)
        if "scores" not in but:
            np.testing.assert_array_equal(mine.keypoint_scores, other.keypoint_scores)


def assert_held(again: Labels, labels: Labels, format: str, *, but: Collection[str] = ()) -> None:
    """Compare what went in with what came out, but for what the format says that it cannot hold."""
    assert_same(again, labels, but={*FORMATS[format].cannot_hold, *but})
