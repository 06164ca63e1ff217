"""Frames of many videos by their numbers, read by whichever process asks for them."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posewarper.crops import Image
from posewarper.io.caching import FrameCache
from posewarper.io.images import read_image
from posewarper.io.video import Video, open_video
from posewarper.posetrack.support_frames import support_numbers

CACHE_BYTES = 256 * 2**20
"""Most bytes of decoded frames of video files that one process keeps."""

_OPEN_VIDEOS = 8
# What a video keeps itself: a few frames around the last one read, since neighbours are asked for next.
_OWN_CACHE_BYTES = 32 * 2**20
_LEFT_BY_PARENTS: list[object] = []


@dataclass(frozen=True)
class VideoFrames:
    """How the frames of one video are read; plain values that travel to other processes.

    Args:
        path: the folder of ``files``; without files a video file or folder that ``open_video`` opens.
        first: number of the first frame.
        n_frames: frames of the video, with those that are missing.
        files: name of each frame's file, for images that are not turned as EXIF says (PoseTrack's); empty
            for what ``open_video`` opens.
        missing: numbers of frames without a file.
    """

    path: str
    first: int
    n_frames: int
    files: tuple[str, ...] = ()
    missing: frozenset[int] = frozenset()

    def exists(self, number: int) -> bool:
        """Whether there is a frame of this number."""
        return self.first <= number < self.first + self.n_frames and number not in self.missing

    def neighbour(self, number: int, offset: int) -> int:
        """Return the frame that is read ``offset`` frames from ``number``, by the original's rules."""
        return support_numbers(
            number, (offset,), first=self.first, n_frames=self.n_frames, exists=self.exists
        )[0]


class FrameReader:
    """Reads frames of several videos.

    Image files are read anew each time: there are too many for a cache to hit. Of video files the last few
    are kept open and the frames read last are kept decoded, by each process for itself.

    Args:
        videos: how each is read.
        cache_bytes: most bytes of decoded frames of video files to keep.
    """

    def __init__(self, videos: Sequence[VideoFrames], *, cache_bytes: int = CACHE_BYTES) -> None:
        self._videos = tuple(videos)
        self._cache_bytes = cache_bytes
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._opened: OrderedDict[int, Video] = OrderedDict()
        self._cache: FrameCache[Image] = FrameCache(self._cache_bytes)

    def __getstate__(self) -> dict[str, Any]:
        return {"_videos": self._videos, "_cache_bytes": self._cache_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def read(self, video: int, number: int) -> Image:
        """Return a frame (H, W, 3) uint8 RGB, not to be drawn upon.

        Args:
            video: position among the videos.
            number: of the frame, from the video's ``first`` on.

        Raises:
            VideoError: if it cannot be read.
        """
        frames = self._videos[video]
        place = number - frames.first
        if frames.files:
            return read_image(Path(frames.path, frames.files[place]), upright=False)
        if self._process != os.getpid():
            # After a fork a file opened by the parent would be read at the parent's place. It is not closed
            # either: that would wait for its decoder's threads, which stayed behind.
            _LEFT_BY_PARENTS.append(self._opened)
            self._reset()
        key = video << 32 | place
        image = self._cache.get(key)
        if image is None:
            image = self._open(video)[place]
            self._cache.put(key, image, image.nbytes)
        return image

    def _open(self, video: int) -> Video:
        opened = self._opened.pop(video, None)
        if opened is None:
            opened = open_video(self._videos[video].path, cache_bytes=_OWN_CACHE_BYTES)
        self._opened[video] = opened
        if len(self._opened) > _OPEN_VIDEOS:
            self._opened.popitem(last=False)[1].close()
        return opened
