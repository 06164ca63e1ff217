"""Video files become image files, of the frames that are read alone, without loss."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from posewarper.skeletons import Skeleton
from posewarper.training.samples import FrameReader, TrainingSamples, VideoFrames, unpack_videos
from posewarper.video.writing import write_video


@pytest.fixture
def samples(tmp_path, moving_folder, picture):
    write_video(tmp_path / "clip.mp4", (picture.image(n) for n in range(16)), fps=25)
    videos = VideoFrames(str(moving_folder), 0, 16), VideoFrames(str(tmp_path / "clip.mp4"), 0, 16)
    n, zeros = 3, np.zeros((3, 2), np.float32)
    numbers, video_of = np.array([0, 14, 5]), np.array([1, 1, 0])
    skeleton = Skeleton(("nose",))
    return TrainingSamples(
        videos, video_of, numbers, np.zeros((3, 1, 2)), zeros, zeros, np.zeros(n, bool), skeleton
    )


def test_frames_are_the_same_and_no_more_than_are_read(samples, tmp_path):
    told = []
    unpacked = unpack_videos(samples, tmp_path / "frames", 2, lambda *step: told.append(step))
    assert unpacked.videos[0] == samples.videos[0]
    files = sorted(Path(unpacked.videos[1].path).iterdir())
    assert [int(file.stem) for file in files] == [0, 1, 2, 12, 13, 14, 15]
    assert told == [("frames", n + 1, 7) for n in range(7)]
    before, after = FrameReader(samples.videos), FrameReader(unpacked.videos)
    for number in (0, 13, 15):
        np.testing.assert_array_equal(after.read(1, number), before.read(1, number))
    assert unpacked.videos[1].neighbour(14, 2) == 15


def test_what_is_there_is_not_written_again_unless_the_video_changes(samples, tmp_path):
    first = unpack_videos(samples, tmp_path / "frames", 1)
    files = sorted(Path(first.videos[1].path).iterdir())
    files[0].unlink()
    times = [file.stat().st_mtime_ns for file in files[1:]]
    told = []
    again = unpack_videos(samples, tmp_path / "frames", 1, lambda *step: told.append(step))
    assert again.videos == first.videos
    assert told == [("frames", 5, 5)] and [file.stat().st_mtime_ns for file in files[1:]] == times
    os.utime(samples.videos[1].path, ns=(1, 1))
    assert unpack_videos(samples, tmp_path / "frames", 1).videos[1].path != first.videos[1].path
