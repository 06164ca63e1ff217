"""Exact random access to the frames of a video file."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from itertools import dropwhile
from typing import Any

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from posewarper.crops import Image
from posewarper.errors import PosewarperWarning, VideoError
from posewarper.video.images import SAMPLES, FrameCache, as_8_bits, white_of
from posewarper.video.indexing import (
    NO_TIME,
    FrameIndex,
    decode,
    index_by_decoding,
    index_by_time,
    open_stream,
    read_packets,
    scan_packets,
)

_CHECKED_AT_START = 16  # frames decoded on opening, to see whether the index is right
_LATE = 16  # a frame that is overtaken by more than this many will not come
_WORTH_SEEKING = 8  # up to this many frames ahead, decoding on is quicker than a seek
# The colour matrices that FFmpeg's scaler takes, by FFmpeg's numbers; others count as unspecified.
_KNOWN_MATRICES, _UNSPECIFIED = (0, 1, 2, 4, 5, 6, 7, 9), 2
_DEEP = "rgb48le"
# Of pictures at least so large the eye sees no difference whether they are shrunk before their colours, which
# the file has for every second pixel alone, are computed, or after that.
_COLOURS_LATER = 240
# Formats of 8 bits whose first plane is the brightness of every pixel.
_BRIGHTNESS_FIRST = frozenset(
    ("gray", "nv12", *(f"yuv{full}{kind}p" for full in ("", "j") for kind in ("420", "422", "444")))
)
# Other videos than those of full range say black by 16 and white by 235.
_FROM_LIMITED = np.clip(np.rint((np.arange(256) - 16) * 255 / 219), 0, 255).astype(np.uint8)
_STEP_BACK = 5.0  # seconds, where a seek has landed too late


class FileFrames:
    """The frames of a video file, of which at most ``cache_bytes`` are kept.

    The cache holds frames as the decoder gives them (half the bytes of RGB); they are converted on access.
    The index comes from timestamps where these are sound. As soon as the decoder contradicts it, the file is
    decoded once from end to end for a new index.

    Raises:
        VideoError: if the file holds no frame that can be decoded.
    """

    frame_names: tuple[str, ...] = ()

    def __init__(self, path: str, cache_bytes: int) -> None:
        self._path = path
        self._cache: FrameCache[VideoFrame] = FrameCache(cache_bytes)
        self._upright = UprightConverter(path)
        self._opened: tuple[InputContainer, VideoStream] | None = None
        packets = scan_packets(path)
        doubtful = packets.truncated or bool(packets.corrupt.any()) or not packets.sound
        self._use(index_by_decoding(path, packets) if doubtful else index_by_time(packets))
        if not self.index.verified:
            self._begin(0)
            start = range(min(_CHECKED_AT_START, len(self.index)))
            if any(self._next()[0] != i for i in start):
                self._use(index_by_decoding(path, packets))
        first = self._frame(0)
        if first.format.components[0].bits == 16:  # which may hold 10, 12 or 14 bits
            some = np.unique(np.linspace(0, len(self.index) - 1, SAMPLES, dtype=int)).tolist()
            found = [self._frame(i).reformat(format=_DEEP).to_ndarray() for i in some]
            self._upright.white = white_of(found)
        height, width = self.read(0).shape[:2]
        self.image_size: tuple[int, int] = (height, width)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def times(self) -> NDArray[np.float64]:
        """(T,) seconds since the first frame."""
        return self.index.times

    @property
    def fps(self) -> float:
        """Frames a second on average."""
        return self.index.fps

    def read(self, i: int, size: tuple[int, int] | None = None) -> Image:
        """Return frame i, which must exist, as (H, W, 3) uint8 RGB, upright, shrunk to ``size`` if given."""
        return self._upright.convert(self._frame(i), size)

    def read_grey(self, i: int) -> NDArray[np.uint8]:
        """Return the brightness of frame i, which must exist, as (H, W) uint8, upright."""
        return self._upright.convert_grey(self._frame(i))

    def wait_for(self, frames: Iterable[int]) -> None:
        """Keep these frames, once they are read, until others are awaited, as far as the cache is large."""
        self._cache.wait_for(self.index.shown[list(frames)].tolist())

    def close(self) -> None:
        """Close the file and forget the frames kept."""
        self._run: Iterator[tuple[int, VideoFrame]] = iter(())
        self._last = -1  # the frame that the run has brought last
        if self._opened is not None:
            self._opened[0].close()
        self._opened = None
        self._cache.clear()

    def _use(self, index: FrameIndex) -> None:
        self.close()
        self.index = index
        self._frame_of_packet = index.frame_of_packet()
        self._starts, self._first_right = index.starts()
        pts = index.packets.pts.tolist() if index.packets.seekable else []
        self._number_of_pts: dict[int, int] = {time: number for number, time in enumerate(pts)}
        self._contradicted = False

    def _frame(self, i: int) -> VideoFrame:
        while (frame := self._find(int(self.index.shown[i]))) is None:
            self._relearn(i)
        return frame

    def _relearn(self, i: int) -> None:
        """Frame i did not come: make a better index or, if there is none, give up seeking."""
        if not self.index.verified:
            promised, index = len(self.index), index_by_decoding(self._path, self.index.packets)
            if len(index) != promised:
                text = f"of {promised} frames promised {len(index)} can be decoded; the last is repeated"
                warnings.warn(f"{self._path}: {text}", PosewarperWarning, stacklevel=2)
            # The number of frames stays: callers have made room for so many.
            self._use(index.resized(promised))
        elif self._number_of_pts:
            self._number_of_pts = {}
        else:
            what = f"frame {i} cannot be decoded any more"
            raise VideoError(what, path=self._path, fix="check that nothing has changed the file meanwhile")

    def _find(self, i: int) -> VideoFrame | None:
        frame = self._cache.get(i)
        if frame is not None:
            return frame
        nearest = int(np.searchsorted(self._first_right, i, side="right")) - 1
        if self._last < i and (i - self._last <= _WORTH_SEEKING or self._first_right[nearest] <= self._last):
            frame = self._advance_to(i)
        # A decoder that starts at a key frame may hold frames back until it has recovered: so step back.
        for start in dict.fromkeys((nearest, max(nearest - 1, 0), 0)):
            if frame is None and not self._contradicted:
                self._begin(start)
                frame = self._advance_to(i)
        return frame

    def _advance_to(self, i: int) -> VideoFrame | None:
        overtaken = 0
        while overtaken <= _LATE:
            position, frame = self._next()
            if position is None or position == i:
                return frame
            overtaken += position > i
        return None

    def _next(self) -> tuple[int, VideoFrame] | tuple[None, None]:
        position, frame = next(self._run, (None, None))
        if position is None or frame is None:
            return None, None
        self._last = position
        self._cache.put(position, frame, sum(plane.buffer_size for plane in frame.planes))
        return position, frame

    def _begin(self, start: int) -> None:
        """Start a run of decoding at one of the places where that is possible."""
        first_right = int(self._first_right[start])
        stream, numbered = self._packets_from(int(self._starts[start]))
        self._run = self._place(decode(stream, numbered, []), first_right)
        self._last = first_right - 1

    def _place(self, frames: Iterator[VideoFrame], first_right: int) -> Iterator[tuple[int, VideoFrame]]:
        previous = -1
        for n, frame in enumerate(frames):
            position = n if self.index.counted else -1
            if not self.index.counted and frame.pts is not None:
                position = int(self._frame_of_packet[frame.pts])
            if not self.index.verified and (position < 0 or -1 < previous != position - 1):
                self._contradicted = True  # a frame too many, or one too few
                return
            if position >= first_right:
                yield position, frame
                previous = position

    def _packets_from(self, start: int) -> tuple[VideoStream, Iterator[tuple[int, av.Packet]]]:
        """Return the stream and its packets from number ``start`` on, each with its number."""
        self._run = iter(())
        fresh = self._opened is None
        container, stream = self._opened or open_stream(self._path, one_thread=self.index.one_thread)
        self._opened = container, stream
        times = self._seek_times(start) if start or not fresh else []
        for time in times:
            try:
                container.seek(time, stream=stream)
            except FFmpegError:
                continue
            packets = read_packets(container, stream, len(self.index.packets.pts))
            for packet in packets:
                number = self._number_of_pts.get(NO_TIME if packet.pts is None else packet.pts, -1)
                if number == start:
                    return stream, self._in_step(packet, packets, start)
                if number > start:
                    break
        if times or not fresh:
            container.close()
            container, stream = self._opened = open_stream(self._path, one_thread=self.index.one_thread)
        packets = read_packets(container, stream, len(self.index.packets.pts))
        return stream, dropwhile(lambda pair: pair[0] < start, enumerate(packets))

    def _seek_times(self, start: int) -> list[int]:
        if not self._number_of_pts:
            return []
        packets = self.index.packets
        pts, dts = int(packets.pts[start]), int(packets.dts[start])
        earliest = pts if dts == NO_TIME else min(pts, dts)
        return [pts, earliest, earliest - round(_STEP_BACK / packets.time_base)]

    def _in_step(
        self, packet: av.Packet, packets: Iterator[av.Packet], start: int
    ) -> Iterator[tuple[int, av.Packet]]:
        yield start, packet
        pts = self.index.packets.pts
        for number, packet in enumerate(packets, start + 1):
            if number == len(pts) or packet.pts != pts[number]:
                self._number_of_pts = {}  # other packets than the first time: seeking is no use here
                return
            yield number, packet


class UprightConverter:
    """Converts the frames of one video to RGB in the size of the first one, turned by display matrix."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.white: float | None = None  # what is shown as 255, for frames of 16 bits
        self._size: tuple[int, int] | None = None
        self._warned_of_size = False
        self._reformatter, self._shrinker = VideoReformatter(), VideoReformatter()  # each keeps its tables
        self._matrices: dict[int, NDArray[np.int32] | None] = {}

    def convert(self, frame: VideoFrame, shown: tuple[int, int] | None = None) -> Image:
        """Return a frame, as the decoder gives it, as RGB (H, W, 3) of its own memory.

        With ``shown`` it is shrunk to that (height, width), upright, in the same step.

        Warns:
            PosewarperWarning: of the first frame that has another size than those before.
        """
        size = (frame.height, frame.width)
        self._size = self._size or size
        if size != self._size and not self._warned_of_size:
            text = f"the picture size changes from {self._size} to {size}; frames are rescaled"
            warnings.warn(f"{self._path}: {text}", PosewarperWarning, stacklevel=2)
            self._warned_of_size = True
        if frame.colorspace not in _KNOWN_MATRICES:
            frame.colorspace = _UNSPECIFIED
        height, width = self._size
        if shown is not None:
            height, width = shown[::-1] if self._lies(frame) else shown
        form = "rgb24" if self.white is None else _DEEP
        how: dict[str, Any] = {"width": width, "height": height}
        if shown is not None:
            how["interpolation"] = Interpolation.AREA
        given = frame
        if shown is not None and min(shown) >= _COLOURS_LATER and frame.format.name in _BRIGHTNESS_FIRST:
            # Shrunk first, there are fewer pixels whose colours are computed.
            given = self._shrinker.reformat(frame, **how, format=frame.format.name)
            how = {}
        converted = self._reformatter.reformat(given, **how, format=form)
        image = converted.to_ndarray()
        image = np.asarray(image if self.white is None else as_8_bits(image, self.white), np.uint8)
        image = self._turn(image, frame)
        # A frame that needed no conversion may be kept: it must not be handed out to be drawn upon.
        return image.copy(order="C") if converted is frame else np.ascontiguousarray(image)

    def convert_grey(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """Return the brightness of a frame as (H, W) uint8 of its own memory, upright, from black to white.

        Where the decoder gives it, nothing is converted; else it is that of the colours.
        """
        known = frame.format.name in _BRIGHTNESS_FIRST and (frame.height, frame.width) == self._size
        if not known:
            return np.asarray(cv2.cvtColor(self.convert(frame), cv2.COLOR_RGB2GRAY), np.uint8)
        plane = frame.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
        grey = self._turn(rows[:, : plane.width], frame)
        if frame.color_range == ColorRange.JPEG or frame.format.name.startswith(("gray", "yuvj")):
            return grey.copy(order="C")
        return np.asarray(cv2.LUT(np.ascontiguousarray(grey), _FROM_LIMITED), np.uint8)

    def _turn(self, image: NDArray[np.uint8], frame: VideoFrame) -> NDArray[np.uint8]:
        """Return a view of an image (H, W) or (H, W, 3) that is upright by the frame's display matrix."""
        matrix = self._matrix_of(frame)
        if matrix is not None:
            # (a, b, u, c, d, v, ...) takes x to (a, b) and y to (c, d), y down.
            a, b, c, d = (int(matrix[k]) for k in (0, 1, 3, 4))
            if self._lies(frame):
                image, a, d = image.swapaxes(0, 1), c, b
            image = image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
        return image

    def _lies(self, frame: VideoFrame) -> bool:
        """Tell whether rows of the file become columns."""
        matrix = self._matrix_of(frame)
        return matrix is not None and bool(abs(matrix[[1, 3]]).sum() > abs(matrix[[0, 4]]).sum())

    def _matrix_of(self, frame: VideoFrame) -> NDArray[np.int32] | None:
        # Reading a frame's side data keeps the frame in memory until the garbage collector comes, since PyAV
        # ties the two to each other. So they are read once for each angle, which PyAV gives without them.
        angle = frame.rotation
        if angle not in self._matrices:
            data = frame.side_data.get("DISPLAYMATRIX")
            self._matrices[angle] = None if data is None else np.array(np.frombuffer(data, np.int32))
        return self._matrices[angle]
