"""Frames as the page asks for them: by index from our own decoder, as JPEG or PNG, whole or a part."""

from __future__ import annotations

import os
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from posewarper.errors import VideoError
from posewarper.formats.clips import VideoFacts
from posewarper.video.source import Video, open_video

_QUALITY = 92
_LONGEST_SHOWN = 1600  # of the longer side, where the page does not ask for every pixel
_KEPT_BYTES = 96 * 2**20  # of encoded frames
KINDS = {"jpg": "image/jpeg", "png": "image/png"}


@dataclass(frozen=True)
class FrameRequest:
    """What is asked for; it serves as the key of what is kept.

    Args:
        index: of the frame.
        kind: ``jpg`` or ``png``.
        full: every pixel, also of large frames.
        crop: (x, y, width, height) in pixels of the frame, None for all of it.
    """

    index: int
    kind: str = "jpg"
    full: bool = False
    crop: tuple[int, int, int, int] | None = None


class Frames:
    """The frames of a video, decoded and encoded in one thread of their own.

    Raises:
        VideoError: if the video cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="frames")
        self._kept: OrderedDict[FrameRequest, bytes] = OrderedDict()
        self._bytes = 0
        self._path = path
        self._video: Video = self._pool.submit(open_video, path).result()
        self.facts: VideoFacts = self._video
        height, width = self.image_size = self._video.image_size
        scale = min(1.0, _LONGEST_SHOWN / max(height, width))
        self.shown_size = max(1, round(height * scale)), max(1, round(width * scale))
        self.n_frames, self.fps, self.name = self._video.n_frames, self._video.fps, self._video.name

    def close(self) -> None:
        """Close the video."""
        self._pool.submit(self._video.close)
        self._pool.shutdown()

    def read(self, request: FrameRequest) -> Future[bytes]:
        """Begin to read a frame; the future gives the bytes of the file.

        It raises VideoError if the video has gone, and IndexError if there is no such frame or part.
        """
        return self._pool.submit(self._read, request)

    def _read(self, request: FrameRequest) -> bytes:
        if request in self._kept:
            self._kept.move_to_end(request)
            return self._kept[request]
        if not self._video.has(request.index):
            raise IndexError(f"there is no frame {request.index}")
        if not os.path.exists(self._path):
            raise VideoError("the video is not there any more", path=self._path, fix="put it back")
        whole = request.full or request.crop is not None or request.kind == "png"
        image = self._video[request.index] if whole else self._video.shrunk(request.index, self.shown_size)
        if request.crop is not None:
            x, y, width, height = request.crop
            image = image[y : y + height, x : x + width]
            if not image.size:
                raise IndexError("this part lies outside of the frame")
        how = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY] if request.kind == "jpg" else []
        done, data = cv2.imencode(f".{request.kind}", np.ascontiguousarray(image[..., ::-1]), how)
        assert done
        self._kept[request] = encoded = data.tobytes()
        self._bytes += len(encoded)
        while self._bytes > _KEPT_BYTES and len(self._kept) > 1:
            self._bytes -= len(self._kept.popitem(last=False)[1])
        return encoded
