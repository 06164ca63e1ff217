"""Frames from a folder of images, and the cache that every source of frames uses."""

from __future__ import annotations

import os
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps

from posewarper.crops import Image
from posewarper.errors import PosewarperWarning, VideoError, few_of, first_sentence

T = TypeVar("T")


class FrameCache(Generic[T]):
    """Keeps the frames used last, up to a number of bytes, and as many again of those that are awaited."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._items: OrderedDict[int, tuple[T, int]] = OrderedDict()
        self._awaited: set[int] = set()
        self._held: dict[int, T] = {}
        self._held_bytes = 0
        self.n_bytes = 0

    def wait_for(self, frames: Iterable[int]) -> None:
        """Hold on to these frames, once they come, until others are awaited."""
        self._awaited, self._held, self._held_bytes = set(frames), {}, 0

    def get(self, frame: int) -> T | None:
        """Return what is kept for a frame, or None."""
        if frame in self._held:
            return self._held[frame]
        if frame not in self._items:
            return None
        self._items.move_to_end(frame)
        return self._items[frame][0]

    def put(self, frame: int, item: T, n_bytes: int) -> None:
        """Keep an item; those not used for longest make room for it, so there never are too many bytes."""
        new = frame in self._awaited and frame not in self._held
        if new and self._held_bytes + n_bytes <= self._max_bytes:
            self._held[frame] = item
            self._held_bytes += n_bytes
        if frame in self._items:
            self.n_bytes -= self._items.pop(frame)[1]
        while self._items and self.n_bytes + n_bytes > self._max_bytes:
            self.n_bytes -= self._items.popitem(last=False)[1][1]
        if n_bytes <= self._max_bytes:
            self._items[frame] = (item, n_bytes)
            self.n_bytes += n_bytes

    def clear(self) -> None:
        """Forget everything."""
        self._items.clear()
        self.n_bytes = 0
        self.wait_for(())


MOST_PIXELS = 2**27
"""Most pixels of a frame. A larger one takes gigabytes, and a damaged or hostile header claims any number."""
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
_ORIENTATION, _REDUCED, _DESCRIPTION = 274, 254, 270  # EXIF and TIFF tags
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how such files begin
_STACKS = ("TIFF", "PNG", "WEBP")  # formats that may hold several images, as Pillow calls them
SAMPLES = 24  # images of a clip that tell which value is white


def is_image_file(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is an image, or several, by its suffix or its first bytes; a GIF is a video."""
    with open(path, "rb") as file:
        head = file.read(12)
    is_other = head.startswith(b"\x89PNG") or (head[:4] == b"RIFF" and head[8:] == b"WEBP")
    return head[:4] in _TIFF or is_other or os.fspath(path).lower().endswith(IMAGE_SUFFIXES)


def _decode(path: str | os.PathLike[str], page: int, *, upright: bool) -> np.ndarray:
    """Return a page of an image as RGB (H, W, 3) of the type that it is stored in.

    Raises:
        ValueError: if it cannot be decoded.
    """
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION)
    # Read by numpy: OpenCV cannot open names outside the code page on Windows.
    data = np.fromfile(path, np.uint8) if page == 0 else np.memmap(path, np.uint8, "r")
    if not data.size:
        raise ValueError("an empty file")
    stored_size(path)  # refuses what would fill the memory
    if data[:4].tobytes() in _TIFF:
        try:
            with warnings.catch_warnings(action="ignore"), _opened(path) as opened:
                if opened.mode in ("F", "I"):  # grey numbers of 32 bits
                    flags = cv2.IMREAD_UNCHANGED
        except Exception:  # another kind, or damage, of which OpenCV will say more
            pass
    if page:
        found, pages = cv2.imdecodemulti(data, flags, range=(page, page + 1))
        image = pages[0] if found else None
    else:
        image = cv2.imdecode(data, flags)
    if image is None:
        raise ValueError("another format, or a damaged file")
    return image[..., None].repeat(3, -1) if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def white_of(images: Sequence[np.ndarray]) -> float:
    """Return which value of images that hold more than 8 bits is to be shown as white, one for all of them.

    Whole numbers have 8, 10, 12, 14 or 16 bits, by the largest; fractions go up to 1, a half, a quarter, ...

    Raises:
        ValueError: if the values are no brightness.
    """
    finite = [np.where(np.isfinite(image), image, 0) for image in images]
    least, most = min(float(i.min()) for i in finite), max(float(i.max()) for i in finite)
    is_fraction = images[0].dtype.kind == "f" and any((image % 1 != 0).any() for image in finite)
    # Filters overshoot a little.
    if not (least >= -0.05 * most and most < 2**16) or (is_fraction and 1.5 < most < 16):
        raise ValueError(
            f"values from {least:g} to {most:g}, where brightness goes from 0 to 1, 255 or 65535"
        )
    if images[0].dtype.kind == "f" and most <= 1.5:
        return float(2.0 ** min(np.ceil(np.log2(most)), 0)) if most > 0 else 1.0
    return float(2 ** next(bits for bits in (8, 10, 12, 14, 16) if most < 2**bits) - 1)


def as_8_bits(image: np.ndarray, white: float) -> Image:
    """Return an image as uint8, ``white`` as 255; numbers that are not finite are black."""
    scaled = np.nan_to_num(image.astype(np.float32), posinf=0, neginf=0) * np.float32(255 / white)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def read_image(
    path: str | os.PathLike[str], *, upright: bool = True, page: int = 0, white: float | None = None
) -> Image:
    """Read an image of any kind as (H, W, 3) uint8 RGB.

    ``upright`` turns it as its EXIF orientation says; PoseTrack's labels are on images that are not turned.
    ``page`` picks one of the images that a TIFF holds. Of more than 8 bits ``white`` is shown as 255, by
    default what :func:`white_of` says of this image.

    Raises:
        VideoError: if the file is missing or no image, or its values are no brightness.
    """
    try:
        image = _decode(path, page, upright=upright)
        if image.dtype != np.uint8:
            image = as_8_bits(image, white_of([image]) if white is None else white)
    except (OSError, ValueError, cv2.error) as error:
        raise _unreadable(path, error) from error
    return np.asarray(image, np.uint8)


def _unreadable(path: str | os.PathLike[str], error: Exception) -> VideoError:
    return VideoError(
        "this image cannot be read",
        path=path,
        expected=f"an image: {', '.join(IMAGE_SUFFIXES)}",
        got=error,
        fix="replace the file, for instance by one of 8 bits a colour, or take it away",
    )


class FolderFrames:
    """The frames of a folder of images, in natural order of the names (frame2 before frame10).

    The folder may be a single image file, which may hold several: the pages of a TIFF, or an animated PNG or
    WebP. Hidden files, other files than images and folders inside are skipped; at most ``cache_bytes`` of
    images are kept. Images of more than 8 bits are brightened alike.

    Raises:
        VideoError: if there is no image, one cannot be read, or sizes differ.
    """

    def __init__(self, folder: str, cache_bytes: int, fps: float) -> None:
        self._cache: FrameCache[Image] = FrameCache(cache_bytes)
        files = [Path(folder)] if os.path.isfile(folder) else _images_in(folder)
        self._animation: PIL.Image.Image | None = None
        pages, expected, form = _look_at(files[0])
        self._places = [(files[0], page) for page in pages]
        for file in files[1:]:
            others, size, _ = _look_at(file)
            self._check_size(file, files[0], expected, size)
            self._places.append((file, 0))
            pages = max(pages, others, key=len)
        if len(files) > 1 and len(pages) > 1:
            raise VideoError(
                "an image of this folder holds several images",
                path=folder,
                expected="one frame a file",
                got=f"{len(pages)} in one of {len(files)} files",
                fix="name this file alone as the video, or write each of its images to a file",
            )
        self.fps, self.times = fps, np.arange(len(self._places)) / fps
        # What is several frames in one file is a video, whose frames have no names.
        self.frame_names = tuple(file.name for file in files) if len(pages) == 1 else ()
        self._depth, self._white = np.dtype(np.uint8), None
        if len(pages) > 1 and form != "TIFF":
            self._play(files[0], pages)
            height, width = self.read(0).shape[:2]
        else:
            height, width = self._find_white()
        self.image_size: tuple[int, int] = (height, width)

    def __len__(self) -> int:
        return len(self._places)

    def read(self, i: int) -> Image:
        """Return image i as (H, W, 3) uint8 RGB, upright.

        Raises:
            VideoError: if the image cannot be read any more, or its size or kind has changed.
        """
        image = self._cache.get(i)
        if image is None:
            file, page = self._places[i]
            if self._animation is not None:
                image = self._show(page)
            else:
                image = self._decode(i)
                self._check_size(file, self._places[0][0], self.image_size, image.shape[:2])
                if image.dtype != np.uint8:
                    image = as_8_bits(image, self._white or 255)
            self._cache.put(i, image, image.nbytes)
        return image.copy()

    def close(self) -> None:
        """Forget the images kept."""
        self._cache.clear()
        if self._animation is not None:
            self._animation.close()

    def _decode(self, i: int) -> np.ndarray:
        """Return image i as it is stored."""
        file, page = self._places[i]
        try:
            image = _decode(file, page, upright=True)
        except (OSError, ValueError, cv2.error) as error:
            raise _unreadable(file, error) from error
        if i and image.dtype != self._depth:
            raise VideoError(
                "this frame holds another kind of numbers than the first",
                path=file,
                expected=f"{self._depth}, as {self._places[0][0].name}",
                got=image.dtype,
                fix="put frames of one kind into the folder, such as 8 bits a colour",
            )
        return image

    def _find_white(self) -> tuple[int, int]:
        """Find out which value is white, and return (height, width) of the first image."""
        first = self._decode(0)
        self._depth = first.dtype
        if self._depth != np.uint8:
            last = len(self) - 1
            some = [
                first,
                *(self._decode(i) for i in np.unique(np.linspace(0, last, SAMPLES, dtype=int))[1:]),
            ]
            try:
                self._white = white_of(some)
            except ValueError as error:
                raise _unreadable(self._places[0][0], error) from error
        return first.shape[0], first.shape[1]

    def _play(self, file: Path, pages: Sequence[int]) -> None:
        """Open an animated image, and see when each of its images is shown."""
        self._animation = PIL.Image.open(file)
        steps = []
        for page in pages:
            self._show(page)
            steps.append(float(self._animation.info.get("duration") or 0))  # milliseconds
        if min(steps) > 0:
            self.times = np.concatenate([[0.0], np.cumsum(steps[:-1])]) / 1000
            self.fps = 1000 * len(steps) / sum(steps)

    def _show(self, page: int) -> Image:
        """Return an image of the animation."""
        assert self._animation is not None
        try:
            self._animation.seek(page)
            if self._animation.mode.startswith(("I", "F")):
                raise ValueError("an animation of more than 8 bits")
            return np.asarray(PIL.ImageOps.exif_transpose(self._animation).convert("RGB"), np.uint8)
        except (OSError, ValueError, EOFError, SyntaxError) as error:
            raise _unreadable(self._places[0][0], error) from error

    def _check_size(self, file: Path, first: Path, expected: tuple[int, ...], got: tuple[int, ...]) -> None:
        if got != expected:
            raise VideoError(
                "this frame has another size than the first",
                path=file,
                expected=f"{expected[0]} x {expected[1]} (height x width), as {first.name}",
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
        self._frames: list[np.ndarray] = [np.asarray(frames)] if one else list(frames)
        kinds = sorted({f"{np.shape(f)} {getattr(f, 'dtype', type(f).__name__)}" for f in self._frames})
        first = self._frames[0] if self._frames else None
        is_image = isinstance(first, np.ndarray) and first.ndim == 3 and first.shape[-1] == 3 and first.size
        if first is None or len(kinds) != 1 or not is_image or first.dtype != np.uint8:
            raise VideoError(
                "these arrays are no frames",
                expected="(F, H, W, 3) uint8 in RGB, or a list of such images, all of one size",
                got=few_of(kinds) or "no frame",
                fix="stack the frames in one size, as uint8 from 0 to 255; repeat a grey channel three times",
            )
        self.fps = fps
        self.times = np.arange(len(self._frames)) / fps
        self.image_size: tuple[int, int] = (first.shape[0], first.shape[1])

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


def upright_size(file: Path) -> tuple[int, int]:
    """Return (height, width) of an image, by its header where that tells it, which is quick."""
    return _look_at(file)[1]


def _look_at(file: Path) -> tuple[list[int], tuple[int, int], str]:
    """Return the numbers of the pages of an image, the first's (height, width), and its format as a name.

    The headers tell, which is quick. Previews among the pages are left out.
    """
    try:
        with warnings.catch_warnings(action="ignore"), _opened(file) as image:
            (width, height), form = image.size, image.format or ""
            turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8) and form != "TIFF"
            size = (width, height) if turned else (height, width)
            count = getattr(image, "n_frames", 1) if form in _STACKS else 1
            if form != "TIFF":
                # The cover of an animated PNG is none of its images.
                return (
                    list(range(int(bool(image.info.get("default_image")) and count > 1), count)),
                    size,
                    form,
                )
            text = str(getattr(image, "tag_v2", {}).get(_DESCRIPTION, ""))
            pages = [0]
            for page in range(1, count):
                image.seek(page)
                if getattr(image, "tag_v2", {}).get(_REDUCED, 0) & 5:  # a small copy, or a mask
                    continue
                if image.size[::-1] != size:
                    raise _odd_stack(file, "pages of one size", f"{size} and {image.size[::-1]}")
                pages.append(page)
    except VideoError:
        raise
    except Exception as error:  # Pillow does not know this kind, or fails at damage in a way of its own
        size, count = read_image(file).shape[:2], 1
        if file.read_bytes()[:4] in _TIFF:
            count = max(cv2.imcount(str(file)), 1)
            if not isinstance(error, PIL.UnidentifiedImageError):
                text = f"{file}: the file is damaged or cut off; {count} images can be read"
                warnings.warn(text, PosewarperWarning, stacklevel=2)
        return list(range(count)), (size[0], size[1]), "TIFF"
    stated = {
        key: int(value) for key, value in re.findall(r"^(images|channels)=([0-9]+)", text, re.MULTILINE)
    }
    if stated.get("images", len(pages)) > len(pages) or stated.get("channels", 1) > 1:
        got = ", ".join(f"{key}={value}" for key, value in stated.items())
        raise _odd_stack(file, "one page a frame", f"{len(pages)} pages of an ImageJ stack with {got}")
    return pages, size, form


def _odd_stack(file: Path, expected: str, got: str) -> VideoError:
    return VideoError(
        "the pages of this file are not the frames of a video",
        path=file,
        expected=expected,
        got=got,
        fix="save the frames as images of one size, one a file or a page",
    )


def stored_size(file: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Return (height, width) as an image is stored, not turned, by its header; None if that cannot be read.

    Raises:
        VideoError: if it has more than :data:`MOST_PIXELS`.
    """
    try:
        with _opened(file) as image:
            return image.size[1], image.size[0]
    except VideoError:
        raise
    except Exception:  # PIL's readers fail in any way on damaged files
        return None


@contextmanager
def _opened(file: str | os.PathLike[str]) -> Iterator[PIL.Image.Image]:
    """Open an image without reading its pixels; a VideoError says so if there are too many."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PIL's own, of many pixels
            image = PIL.Image.open(file)
    except PIL.Image.DecompressionBombError as error:
        raise too_large(file, first_sentence(error)) from error
    with image:
        if image.width * image.height > MOST_PIXELS:
            raise too_large(file, f"{image.width} x {image.height}")
        yield image


def too_large(path: str | os.PathLike[str], got: str) -> VideoError:
    """Return the error for frames of too many pixels."""
    what, expected = "the frames are too large", f"{MOST_PIXELS} pixels at most"
    fix = "make them smaller; if they are not that large, the file is damaged"
    return VideoError(what, path=path, expected=expected, got=got, fix=fix)
