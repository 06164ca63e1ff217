"""Where frames come from: a video by index, a stream whose frames come once, images by number.

:class:`Video`, :class:`LiveVideo` and :class:`FrameSource` all yield (index, frame) pairs from ``frames``;
whatever predicts needs no more than that.
"""

from __future__ import annotations

import glob
import operator
import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn, Self, TypeVar, cast

import av
import cv2
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from posewarper.crops import Image
from posewarper.errors import ConfigError, VideoError, few_of, no_such_file, wrong_type
from posewarper.video.decoding import FileFrames, UprightConverter
from posewarper.video.images import ArrayFrames, FolderFrames, is_image_file

CACHE_BYTES = 256 * 2**20
FOLDER_FPS = 25.0
_THREADS, _AHEAD = 4, 8  # of reading images by number: threads, and images read before they are needed
_LABEL_SUFFIXES = (".json", ".csv", ".tsv", ".yaml", ".yml", ".h5", ".slp", ".nwb", ".nc")


@dataclass(frozen=True)
class FrameSource:
    """The frames of a video that lie in files of their own, by their numbers."""

    read: Callable[[int], Image]  # number -> (H, W, 3) uint8 RGB; called from several threads
    first: int
    n_frames: int  # with those that are missing
    missing: frozenset[int] = frozenset()  # numbers that cannot be read

    def has(self, number: int) -> bool:
        """Return whether there is such a frame and it can be read."""
        return self.first <= number < self.first + self.n_frames and number not in self.missing

    def frames(self, numbers: Iterable[int]) -> Iterator[tuple[int, Image]]:
        """Yield (number, frame) in the order given; a few are read ahead."""
        with ThreadPoolExecutor(_THREADS) as pool:
            waiting: deque[tuple[int, Future[Image]]] = deque()
            try:
                for number in numbers:
                    waiting.append((number, pool.submit(self.read, number)))
                    if len(waiting) > _AHEAD:
                        first, image = waiting.popleft()
                        yield first, image.result()
                for first, image in waiting:
                    yield first, image.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


_T = TypeVar("_T")


def ahead(items: Iterable[_T]) -> Generator[_T]:
    """Yield items while another thread prepares the next one."""
    source, end = iter(items), object()
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, source, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, source, end)
            yield cast(_T, item)


class Video:
    """Frames of a video by their index in order of presentation. Made by :func:`open_video`.

    ``video[i]`` is frame i as (H, W, 3) uint8 RGB, contiguous, upright, free to be drawn upon. One video
    belongs to one thread and one process.

    Attributes:
        path: the file or folder.
        first: the first index, which is 0.
        image_size: (height, width) of the upright frames.
        frame_names: the file names of a folder's frames; empty for a video file.
    """

    first = 0

    def __init__(self, path: str, frames: FileFrames | FolderFrames | ArrayFrames) -> None:
        self.path = path
        self.image_size = frames.image_size
        self.frame_names = frames.frame_names
        self._frames = frames
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; frames cannot be read any more."""
        self._frames.close()
        self._closed = True

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def name(self) -> str:
        """Name of the file or folder."""
        return os.path.basename(os.path.normpath(self.path))

    @property
    def n_frames(self) -> int:
        """Number of frames that can be read."""
        return len(self._frames)

    def has(self, index: int) -> bool:
        """Return whether there is such a frame."""
        return 0 <= index < len(self)

    @property
    def fps(self) -> float:
        """Frames a second on average."""
        return float(self._frames.fps)

    @property
    def times(self) -> NDArray[np.float64]:
        """(T,) seconds from the first frame to each."""
        return self._frames.times

    def __getitem__(self, i: int) -> Image:
        return self._frames.read(self._checked(i))

    def _checked(self, i: int) -> int:
        i = operator.index(i)
        if self._closed:
            raise ValueError(f"{self.path} is closed; open it again to read frames")
        if not 0 <= i < len(self):
            last = len(self) - 1
            raise IndexError(f"{self.path}: there is no frame {i}; the frames go from 0 to {last}")
        return i

    def shrunk(self, i: int, size: tuple[int, int]) -> Image:
        """Return frame i shrunk to (height, width), for which a video file is not converted in full."""
        i = self._checked(i)
        if size == self.image_size:
            return self._frames.read(i)
        if isinstance(self._frames, FileFrames):
            return self._frames.read(i, size)
        image = cv2.resize(self._frames.read(i), size[::-1], interpolation=cv2.INTER_AREA)
        return np.asarray(image, np.uint8)

    def grey(self, i: int) -> NDArray[np.uint8]:
        """Return the brightness of frame i as (H, W) uint8, which is quicker to have than its colours."""
        i = self._checked(i)
        if isinstance(self._frames, FileFrames):
            return self._frames.read_grey(i)
        return np.asarray(cv2.cvtColor(self._frames.read(i), cv2.COLOR_RGB2GRAY), np.uint8)

    @contextmanager
    def keeping(self, indices: Iterable[int]) -> Generator[None]:
        """Keep these frames within the block once they are read, so that later they need not be sought."""
        frames = self._frames
        if not isinstance(frames, FileFrames):
            yield
            return
        frames.wait_for(self._checked(i) for i in indices)
        try:
            yield
        finally:
            frames.wait_for(())

    def frames(self, indices: Iterable[int]) -> Iterator[tuple[int, Image]]:
        """Yield (index, frame) in the order given; quickest when the indices rise."""
        for i in indices:
            yield operator.index(i), self[i]


Openable = str | os.PathLike[str] | NDArray[np.uint8] | Sequence[NDArray[np.uint8]]
"""What can be opened: a file, a folder, or frames in memory."""


def open_video(path: Openable, *, cache_bytes: int = CACHE_BYTES, folder_fps: float = FOLDER_FPS) -> Video:
    """Open a video file, a folder of frames, a single image, or frames in memory.

    Frame indices count from 0 in order of presentation, and count what the decoder really shows. Frames that
    are damaged keep their place and show the frame before; where the picture size changes, frames are scaled
    to the size of the first. The display rotation is applied, and EXIF orientation for images; the aspect
    ratio of the pixels is not. Pictures of more than 8 bits a colour are shown in full brightness, all alike.

    Args:
        path: a file that FFmpeg reads; a folder of jpg, png, bmp, tif or webp images; one such image, each
            page or moving picture of which is a frame; or frames in memory: (F, H, W, 3) uint8 RGB, or a list
            of images (H, W, 3).
        cache_bytes: most bytes of decoded frames that are kept for the next access.
        folder_fps: frames a second of a folder of frames, or of frames in memory, from which its times come.

    Raises:
        VideoError: if there is nothing to read at ``path``, or no frame in it can be decoded.

    Warns:
        PosewarperWarning: if the file is cut off, or some of its frames are damaged.

    Example:
        >>> with open_video("clip.mp4") as video:
        ...     print(video.n_frames, video.image_size, video[5].shape)
        20 (96, 128) (96, 128, 3)
    """
    if isinstance(path, np.ndarray | list | tuple):
        return Video("frames in memory", ArrayFrames(path, folder_fps))
    if not isinstance(path, str | os.PathLike):
        raise wrong_type("the video", path, "a path, an array (F, H, W, 3), or what open_video returns")
    name = os.fspath(path)
    folder = os.path.isdir(name)
    if not folder and not os.path.isfile(name):
        raise no_such_file(name, "a video file or a folder of frames", error=VideoError)
    if not folder and name.lower().endswith(_LABEL_SUFFIXES):
        raise VideoError(
            "this looks like labels, not like a video",
            path=name,
            expected="a video file or a folder of frames",
            got=os.path.splitext(name)[1],
            fix="give the video as VIDEO, and this file as labels",
        )
    if folder or is_image_file(name):
        return Video(name, FolderFrames(name, cache_bytes, folder_fps))
    return Video(name, FileFrames(name, cache_bytes))


PIPE = "-"
_SCHEMES = ("rtsp://", "rtmp://", "http://", "https://", "udp://", "tcp://")


def check_span(span: range, video: Video) -> None:
    """Check that a span is a part of a video.

    Raises:
        ConfigError: if it is empty or reaches beyond the video.
    """
    if not 0 <= span.start < span.stop <= video.n_frames or span.step != 1:
        raise ConfigError(
            "the clip does not have these frames",
            path=video.path,
            expected=f"frames from 0 to {video.n_frames - 1}",
            got=f"{span.start}-{span.stop - 1}",
            fix="name the first and the last frame of the part",
        )


def is_live(name: str) -> bool:
    """Return whether a name is that of standard input, a camera (``0``, ``/dev/video0``) or a stream."""
    return name == PIPE or name.startswith(("/dev/video", *_SCHEMES)) or _is_number(name)


def refuse_part_of_live(name: str) -> NoReturn:
    """Raise the error that a part was asked for of what :func:`is_live`."""
    raise ConfigError(
        "no part can be chosen of a pipe, a camera or a URL, whose frames come once",
        path=name,
        expected="a video file or a folder of frames",
        fix="leave --frames out, or save the video to a file first",
    )


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal() and not os.path.exists(name)


def _find_camera(name: str) -> tuple[str, str | None]:
    """Return what FFmpeg opens for a camera's number or path, and by which of its formats; others unchanged.

    Raises:
        VideoError: if there is no such camera.
    """
    if _is_number(name) and sys.platform == "darwin":
        return name, "avfoundation"
    if _is_number(name) and sys.platform == "win32":
        raise VideoError(
            "cameras have no numbers on this system",
            path=name,
            fix="send its frames: ffmpeg -f dshow -i video=NAME -f matroska - | posewarper predict - ...",
        )
    place = f"/dev/video{name}" if _is_number(name) else name
    if not place.startswith("/dev/video"):
        return place, None
    if not os.path.exists(place):
        cameras = sorted(glob.glob("/dev/video*"))
        raise VideoError(
            "there is no such camera",
            path=place,
            expected=few_of(cameras) or "a camera /dev/video*, of which this machine has none",
            fix="connect it, name another, or name a video file",
        )
    return place, "v4l2"


class LiveVideo:
    """Frames as they come, each once, upright and in the size of the first one; their number is not known.

    Args:
        name: ``-`` for standard input, a camera's number or device, or a URL that FFmpeg knows.

    Raises:
        VideoError: if nothing can be read there.
    """

    def __init__(self, name: str) -> None:
        self.path = name
        self.name = "live" if name == PIPE else os.path.basename(name)
        self.n_frames: int | None = None
        self.frame_names: tuple[str, ...] = ()
        if name == PIPE and sys.stdin is None:
            raise VideoError(
                "standard input is closed: no frames can come from it",
                fix="send a video to it (ffmpeg ... - | posewarper predict - ...), or name a file or camera",
            )
        self._upright = UprightConverter(name)
        place, camera = _find_camera(name)
        try:
            self._container = av.open(sys.stdin.buffer if name == PIPE else place, "r", format=camera)
            self._frames = self._container.decode(video=0)
            self._first = self._upright.convert(next(self._frames))
        except (FFmpegError, OSError, IndexError, StopIteration) as error:
            raise VideoError(
                "no frames come from here",
                path="standard input" if name == PIPE else name,
                expected="a stream that FFmpeg reads without going back, such as MPEG-TS or Matroska",
                got=error,
                fix="check what is sent",
            ) from error
        self.image_size = (self._first.shape[0], self._first.shape[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._container.close()

    def frames(self, indices: Iterable[int] = ()) -> Iterator[tuple[int, Image]]:
        """Yield (index, frame (H, W, 3) uint8 RGB) until the stream ends, once.

        A stream cannot be wound: it yields every frame from the first on, whatever the indices.
        """
        yield 0, self._first
        try:
            for index, frame in enumerate(self._frames, start=1):
                yield index, self._upright.convert(frame)
        except FFmpegError:
            return  # a stream that breaks off has ended


Frames = Video | LiveVideo
"""What can be predicted: frames that can be read again, or frames that come once."""
