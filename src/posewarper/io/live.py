"""Frames that come once and in order: a pipe, a camera, a network stream."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Self

import av
from av.error import FFmpegError

from posewarper.errors import VideoError
from posewarper.io.decoding import Image, UprightConverter

PIPE = "-"
_SCHEMES = ("rtsp://", "rtmp://", "http://", "https://", "udp://", "tcp://")


def is_live(name: str) -> bool:
    """Return whether a name is that of standard input, a camera (``/dev/video0``) or a network stream."""
    return name == PIPE or name.startswith(("/dev/video", *_SCHEMES))


class LiveVideo:
    """Frames as they come, each once, upright and in the size of the first one.

    Args:
        name: ``-`` for standard input, a device, or a URL that FFmpeg knows.

    Raises:
        VideoError: if nothing can be read there.
    """

    def __init__(self, name: str) -> None:
        self.path = name
        if name == PIPE and sys.stdin is None:
            raise VideoError(
                "standard input is closed: no frames can come from it",
                mend="send a video to it (ffmpeg ... - | posewarper predict - ...), or name a file or camera",
            )
        source = sys.stdin.buffer if name == PIPE else name
        self._upright = UprightConverter()
        camera = "v4l2" if name.startswith("/dev/video") else None
        try:
            self._container = av.open(source, "r", format=camera)
            self._frames = self._container.decode(video=0)
            first = next(self._frames)
            self._raw_size = (first.height, first.width)
            self._first = self._convert(first)
        except (FFmpegError, OSError, IndexError, StopIteration) as error:
            raise VideoError(
                "no frames come from here",
                path="standard input" if name == PIPE else name,
                expected="a stream that FFmpeg reads without going back, such as MPEG-TS or Matroska",
                got=error,
                mend="check what is sent",
            ) from error
        self.image_size = (self._first.shape[0], self._first.shape[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._container.close()

    def frames(self) -> Iterator[tuple[int, Image]]:
        """Yield (index, frame (H, W, 3) uint8 RGB) until the stream ends; may be gone through once."""
        yield 0, self._first
        try:
            for index, frame in enumerate(self._frames, start=1):
                yield index, self._convert(frame)
        except FFmpegError:
            return  # a stream that breaks off has ended

    def _convert(self, frame: av.VideoFrame) -> Image:
        return self._upright.convert(frame, self._raw_size)
