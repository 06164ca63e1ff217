"""Frames that come once, through standard input."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from clip_files import encode_clip, turned
from posewarper.errors import VideoError
from posewarper.video.decoding import UprightConverter
from posewarper.video.source import LiveVideo, is_live, open_video


def make_clip(path: Path) -> Path:
    pictures = np.random.default_rng(0).integers(0, 255, (5, 3, 4, 3)).astype(np.uint8)
    return encode_clip(path, [np.kron(picture, np.ones((16, 16, 1), np.uint8)) for picture in pictures])


@pytest.mark.parametrize("matrix", [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, 1)])
def test_frames_of_a_pipe_are_those_of_the_file(tmp_path: Path, monkeypatch, matrix) -> None:
    path = turned(make_clip(tmp_path / "clip.mp4"), matrix)
    with open_video(path) as video, path.open("rb") as source:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=source))
        with LiveVideo("-") as live:
            assert live.image_size == video.image_size == ((64, 48) if matrix[0] == 0 else (48, 64))
            found = list(live.frames())
        assert [index for index, _ in found] == [*range(5)]
        for index, image in found:
            np.testing.assert_array_equal(image, video[index])


def test_closed_standard_input_is_told(monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)  # as Python starts under `<&-`
    with pytest.raises(VideoError, match="standard input is closed"):
        LiveVideo("-")


def test_converted_frames_go_without_the_garbage_collector(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mp4")
    convert = UprightConverter("clip.mp4").convert
    gc.collect()
    gc.disable()
    try:
        with av.open(path) as container:
            for frame in container.decode(video=0):
                convert(frame)
        del frame
        left = [thing for thing in gc.get_objects() if type(thing) is av.VideoFrame]
    finally:
        gc.enable()
    assert len(left) <= 1  # the first, whose display matrix was read


@pytest.mark.skipif(sys.platform != "linux", reason="cameras have other names there")
@pytest.mark.parametrize(("name", "place"), [("0", "/dev/video0"), ("/dev/video77", "/dev/video77")])
def test_a_camera_that_is_not_there(monkeypatch, tmp_path, name, place):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    assert is_live(name)
    with pytest.raises(VideoError, match=f"{place}: there is no such camera") as caught:
        LiveVideo(name)
    assert "fix:" in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="cameras have other names there")
def test_a_number_is_a_camera_unless_it_is_a_file(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    opened = []

    def keep(*what, **how):
        opened.append((what, how))
        raise OSError("no frames")

    monkeypatch.setattr(av, "open", keep)
    monkeypatch.setattr(os.path, "exists", lambda path: path == "/dev/video1")
    with pytest.raises(VideoError, match="no frames"):
        LiveVideo("1")
    assert opened == [(("/dev/video1", "r"), {"format": "v4l2"})]
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "1").mkdir()
    assert not is_live("1") and not is_live("1.mp4") and is_live("2")
