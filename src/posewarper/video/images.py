"""Frames from a folder of images."""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from pathlib import Path
from typing import Generic, TypeVar

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from posewarper.errors import VideoError

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


def read_image(path: str | os.PathLike[str], *, upright: bool = True) -> NDArray[np.uint8]:
    """Read an image as (H, W, 3) uint8 RGB; grey, palette, alpha and 16-bit images are converted.

    Args:
        path: the image file.
        upright: turn the image as its EXIF orientation says. PoseTrack's labels are on images not turned.

    Raises:
        VideoError: if the file is missing or no image.
    """
    flags = cv2.IMREAD_COLOR if upright else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        # Read by numpy: OpenCV cannot open names outside the code page on Windows.
        data = np.fromfile(path, np.uint8)
        image = cv2.imdecode(data, flags) if data.size else None
    except (OSError, cv2.error) as error:
        raise _unreadable(path, error) from error
    if image is None:
        raise _unreadable(path, "an empty file" if not data.size else "another format, or a damaged file")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def _unreadable(path: str | os.PathLike[str], got: object) -> VideoError:
    what, expected = "this image cannot be read", f"an image: {', '.join(IMAGE_SUFFIXES)}"
    return VideoError(what, path=path, expected=expected, got=got, fix="replace the file or take it away")


class FolderFrames:
    """The frames of a folder of images, in natural order of the names (frame2 before frame10).

    Hidden files and other files than images are left out; folders inside are not looked into.

    Args:
        folder: the folder, or a single image.
        cache_bytes: most bytes of images to keep.
        fps: frames a second to count the times with.

    Raises:
        VideoError: if there is no image, one cannot be read, or sizes differ.
    """

    def __init__(self, folder: str, cache_bytes: int, fps: float) -> None:
        self._path = folder
        self._cache: FrameCache[NDArray[np.uint8]] = FrameCache(cache_bytes)
        self._files = [Path(folder)] if os.path.isfile(folder) else _images_in(folder)
        self.fps = fps
        self.times = np.arange(len(self._files)) / fps
        self.frame_names = tuple(file.name for file in self._files)
        _check_sizes(self._files)
        height, width = read_image(self._files[0]).shape[:2]
        self.image_size: tuple[int, int] = (height, width)

    def __len__(self) -> int:
        return len(self._files)

    @property
    def cached_bytes(self) -> int:
        """Bytes of images that are kept now."""
        return self._cache.n_bytes

    def read(self, i: int) -> NDArray[np.uint8]:
        """Return image i as (H, W, 3) uint8 RGB, upright.

        Raises:
            VideoError: if the image cannot be read any more, or its size has changed.
        """
        image = self._cache.get(i)
        if image is None:
            image = read_image(self._files[i])
            if image.shape[:2] != self.image_size:
                raise _odd_size(self._files[i], self._files[0], self.image_size, image.shape[:2])
            self._cache.put(i, image, image.nbytes)
        return image.copy()

    def close(self) -> None:
        """Forget the images kept."""
        self._cache.clear()


def _natural_key(file: Path) -> tuple[list[str | int], str]:
    parts = re.split(r"([0-9]+)", file.name.lower())
    return [int(part) if part.isdigit() else part for part in parts], file.name


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
    return sorted(images, key=_natural_key)


def _check_sizes(files: list[Path]) -> None:
    """Compare the sizes of all images by their headers, which is quick."""
    first = _upright_size(files[0])
    for file in files[1:]:
        size = _upright_size(file)
        if size != first:
            raise _odd_size(file, files[0], first, size)


def _upright_size(file: Path) -> tuple[int, int]:
    try:
        with PIL.Image.open(file) as image:
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8) and image.format != "TIFF"
            return (width, height) if turned else (height, width)
    except (OSError, ValueError, SyntaxError):
        height, width = read_image(file).shape[:2]
        return height, width


def _odd_size(file: Path, first: Path, expected: tuple[int, ...], got: tuple[int, ...]) -> VideoError:
    return VideoError(
        "this frame has another size than the first",
        path=file,
        expected=f"{expected[0]} x {expected[1]} (height x width), as {first.name}",
        got=f"{got[0]} x {got[1]}",
        fix="put frames of one size into the folder, and nothing else",
    )
