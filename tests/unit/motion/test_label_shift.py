"""Labels that were moved in time are found out, and labels that were not are left alone."""

from __future__ import annotations

import numpy as np
import pytest

from posewarper.motion.label_shift import LabelShift, measure_shift
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Track
from posewarper.video.source import open_video

N_FRAMES = 44
SKELETON = Skeleton(("a", "b", "c", "d"))
START = np.array([[30.0, 20.0], [70.0, 24.0], [40.0, 50.0], [78.0, 46.0]])
SWAY = 7 * np.sin(np.arange(N_FRAMES) / 1.7) + 4 * np.sin(np.arange(N_FRAMES) / 0.9)


@pytest.fixture(scope="module")
def swaying(picture, write_frames):
    """A clip that sways to and fro by more than 10 pixels."""
    return write_frames(picture.image(sway) for sway in SWAY)


def labels(picture, shift: int = 0, every: int = 1, motion=SWAY, visible: int = 2) -> Labels:
    """Labels of the swaying clip, put on frames that come ``shift`` frames too late."""
    frames = np.arange(4, N_FRAMES - 4, every)
    keypoints = picture.keypoints(START, motion)[frames]
    track = Track(frames + shift, keypoints, visibility=np.full(keypoints.shape[:2], visible))
    return Labels(SKELETON, {0: track}, n_frames=N_FRAMES)


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("shift", [-1, 0, 1])
def test_moved_labels_are_found_out(picture, swaying, shift: int, every: int) -> None:
    with open_video(swaying) as video:
        found = measure_shift(video, labels(picture, shift, every))
    assert found is not None
    assert found.frames == pytest.approx(-shift, abs=0.25)
    assert found.low <= found.frames <= found.high
    assert (found.is_clear, found.is_none) == (shift != 0, shift == 0)


def test_larger_shifts_are_at_the_end_of_the_range(picture, swaying) -> None:
    with open_video(swaying) as video:
        found = measure_shift(video, labels(picture, 2))
    assert found is not None and found.is_clear and found.frames < -1.7


def test_steady_motion_tells_nothing(picture, write_frames) -> None:
    steady = np.arange(N_FRAMES) * 1.5
    with open_video(write_frames(picture.image(p) for p in steady)) as video:
        found = measure_shift(video, labels(picture, 1, motion=steady))
    assert found is None or not found.is_clear


def test_labels_that_cannot_tell_are_not_compared(picture, swaying) -> None:
    with open_video(swaying) as video:
        assert measure_shift(video, labels(picture, every=6)) is None
        assert measure_shift(video, labels(picture, visible=1)) is None
        assert measure_shift(video, labels(picture, motion=np.zeros(N_FRAMES))) is None
        assert measure_shift(video, labels(picture).at(range(4, 9))) is None
        # Predictions are no labels.
        dense = labels(picture, 1)
        sparse = Labels(SKELETON, dense.tracks, dense.labelled_frames[::10], n_frames=N_FRAMES)
        assert measure_shift(video, sparse) is None


def test_what_is_clear() -> None:
    assert LabelShift(1.0, 0.6, 1.4, 12).is_clear and LabelShift(-1.0, -1.4, -0.6, 12).is_clear
    assert not LabelShift(1.0, 0.4, 1.4, 12).is_clear
    assert LabelShift(0.1, -0.3, 0.4, 12).is_none and not LabelShift(0.1, -0.3, 0.6, 12).is_none
