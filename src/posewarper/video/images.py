"""Frames from a folder of images, and the cache that every source of frames uses."""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar

import cv2
import numpy as np
import PIL.Image

from posewarper.crops import Image
from posewarper.errors import VideoError, few_of

T = TypeVar("T")


class FrameCache(Generic[T]):
    """Keeps the frames used last, up to a number of bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._items: OrderedDict[int, tuple[T, int]] = OrderedDict()
        self.n_bytes = 0

    def get(self, frame: int) -> T | None:
        """Return what is kept for a frame, or None."""
        if frame not in self._items:
            return None
        self._items.move_to_end(frame)
        return self._items[frame][0]

    def put(self, frame: int, item: T, n_bytes: int) -> None:
        """Keep an item; those not used for longest go when there are too many bytes."""
        if frame in self._items:
            self.n_bytes -= self._items.pop(frame)[1]
        self._items[frame] = (item, n_bytes)
        self.n_bytes += n_bytes
        while self.n_bytes > self._max_bytes:
            self.n_bytes -= self._items.popitem(last=False)[1][1]

    def clear(self) -> None:
        """Forget everything."""
        self._items.clear()
        self.n_bytes = 0


IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
_ORIENTATION = 274  # the EXIF tag


def read_image(path: str | os.PathLike[str], *, upright: bool = True) -> Image:
    """Read an image of any kind as (H, W, 3) uint8 RGB.

    ``upright`` turns it as its EXIF orientation says; PoseTrack's labels are on images that are not turned.

    Raises:
        VideoError: if the file is missing or no image.
    """
    flags = cv2.IMREAD_COLOR if upright else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        # Read by numpy: OpenCV cannot open names outside the code page on Windows.
        data = np.fromfile(path, np.uint8)
        if not data.size:
            raise ValueError("an empty file")
        image = cv2.imdecode(data, flags)
        if image is None:
            raise ValueError("another format, or a damaged file")
    except (OSError, ValueError, cv2.error) as error:
        raise VideoError(
            "this image cannot be read",
            path=path,
            expected=f"an image: {', '.join(IMAGE_SUFFIXES)}",
            got=error,
            fix="replace the file or take it away",
        ) from error
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


class FolderFrames:
    """The frames of a folder of images, in natural order of the names (frame2 before frame10).

    The folder may be a single image. Hidden files, other files than images and folders inside are skipped; at
    most ``cache_bytes`` of images are kept.

    Raises:
        VideoError: if there is no image, one cannot be read, or sizes differ.
    """

    def __init__(self, folder: str, cache_bytes: int, fps: float) -> None:
        self._cache: FrameCache[Image] = FrameCache(cache_bytes)
        self._files = [Path(folder)] if os.path.isfile(folder) else _images_in(folder)
        self.fps = fps
        self.times = np.arange(len(self._files)) / fps
        self.frame_names = tuple(file.name for file in self._files)
        expected = _upright_size(self._files[0])
        for file in self._files[1:]:
            self._check_size(file, expected, _upright_size(file))
        height, width = read_image(self._files[0]).shape[:2]
        self.image_size: tuple[int, int] = (height, width)

    def __len__(self) -> int:
        return len(self._files)

    def read(self, i: int) -> Image:
        """Return image i as (H, W, 3) uint8 RGB, upright.

        Raises:
            VideoError: if the image cannot be read any more, or its size has changed.
        """
        image = self._cache.get(i)
        if image is None:
            image = read_image(self._files[i])
            self._check_size(self._files[i], self.image_size, image.shape[:2])
            self._cache.put(i, image, image.nbytes)
        return image.copy()

    def close(self) -> None:
        """Forget the images kept."""
        self._cache.clear()

    def _check_size(self, file: Path, expected: tuple[int, ...], got: tuple[int, ...]) -> None:
        if got != expected:
            raise VideoError(
                "this frame has another size than the first",
                path=file,
                expected=f"{expected[0]} x {expected[1]} (height x width), as {self.frame_names[0]}",
                got=f"{got[0]} x {got[1]}",
                fix="put frames of one size into the folder, and nothing else",
            )


class ArrayFrames:
    """Frames that are in memory already: an array (F, H, W, 3), one image (H, W, 3), or a list of images.

    Raises:
        VideoError: unless they are RGB images of uint8 in one size.
    """

    frame_names: tuple[str, ...] = ()

    def __init__(self, frames: np.ndarray | Sequence[np.ndarray], fps: float) -> None:
        one = isinstance(frames, np.ndarray) and frames.ndim == 3 and frames.shape[-1] == 3
        self._frames = [frames] if one else list(frames)
        kinds = sorted({f"{np.shape(f)} {getattr(f, 'dtype', type(f).__name__)}" for f in self._frames})
        first = self._frames[0] if self._frames else None
        is_image = isinstance(first, np.ndarray) and first.ndim == 3 and first.shape[-1] == 3 and first.size
        if len(kinds) != 1 or not is_image or first.dtype != np.uint8:
            raise VideoError(
                "these arrays are no frames",
                expected="(F, H, W, 3) uint8 in RGB, or a list of such images, all of one size",
                got=few_of(kinds) or "no frame",
                fix="stack the frames in one size, as uint8 from 0 to 255; repeat a grey channel three times",
            )
        self.fps = fps
        self.times = np.arange(len(self._frames)) / fps
        self.image_size: tuple[int, int] = first.shape[:2]

    def __len__(self) -> int:
        return len(self._frames)

    def read(self, i: int) -> Image:
        """Return frame i as (H, W, 3) uint8 RGB, a copy."""
        return np.array(self._frames[i], order="C")

    def close(self) -> None:
        """Forget the frames."""
        self._frames = []


def _images_in(folder: str) -> list[Path]:
    entries = [entry for entry in Path(folder).iterdir() if not entry.name.startswith(".")]
    images = [entry for entry in entries if entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file()]
    if not images:
        raise VideoError(
            "the folder holds no images",
            path=folder,
            expected=f"frames as files: {', '.join(IMAGE_SUFFIXES)}",
            got=f"{len(entries)} other files and folders",
            fix="name a video file, or the folder that holds the frames themselves",
        )

    def natural(file: Path) -> tuple[list[str | int], str]:
        parts = re.split(r"([0-9]+)", file.name.lower())
        return [int(part) if part.isdigit() else part for part in parts], file.name

    return sorted(images, key=natural)


def _upright_size(file: Path) -> tuple[int, int]:
    """Return (height, width) from the header of an image, which is quick."""
    try:
        with PIL.Image.open(file) as image:
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8) and image.format != "TIFF"
            return (width, height) if turned else (height, width)
    except (OSError, ValueError, SyntaxError):
        height, width = read_image(file).shape[:2]
        return height, width
