"""Which frames a video file shows, and from where each can be decoded.

A frame is known by the number of the packet that holds it, counted in decoding order. Packets are given
this number in place of their timestamp before they are decoded, and the decoder hands it on to the frame:
so a frame is never taken for another one, whatever the timestamps of the file are worth.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from posewarper.errors import PosewarperWarning, VideoError
from posewarper.structures import Floats, Ints
from posewarper.video.images import MOST_PIXELS, too_large

NO_TIME = int(np.iinfo(np.int64).min)
DEFAULT_FPS = 25.0
# Decoders hold back 16 frames at most; a packet further from its place in time has a wrong timestamp.
_MOST_REORDERED = 32
# A damaged file ends in an error; and PyAV raises IndexError at the end of one whose streams grow in number.
_END = (FFmpegError, IndexError)
# Texts in a file that are no UTF-8 are no reason not to read it. From 19 on PyAV knows no other way.
_LENIENT: dict[str, Any] = (
    {"metadata_errors": "surrogateescape"} if int(av.__version__.split(".")[0]) < 19 else {}
)
# What FFmpeg reads as a video although it only names others, which may lie anywhere.
_PLAYLISTS = ("hls", "concat", "sdp", "dash", "imf")
_FIX_LIST = "name the video itself; FFmpeg joins several: ffmpeg -f concat -i LIST -c copy OUT.mp4"
_FIX = "check that the file plays to its end; writing it anew helps: ffmpeg -i IN -c:v libx264 OUT.mp4"


@dataclass(frozen=True)
class Packets:
    """What a pass over a file shows without decoding; arrays have one entry a packet, in decoding order."""

    pts: Ints  # in units of ``time_base``, ``NO_TIME`` where there is none; so is ``dts``
    dts: Ints
    key: NDArray[np.bool_]  # where decoding may start
    hidden: NDArray[np.bool_]  # where the container says that the frame is not to be shown (edit lists)
    corrupt: NDArray[np.bool_]  # where the container knows of damage
    time_base: float  # seconds
    rate: float  # frames a second that the container states, 0 if it does not
    truncated: bool  # the file ends before what its header announces
    joined: bool  # the stream is of a kind that may begin anywhere, also where nothing can be decoded yet

    @property
    def sound(self) -> bool:
        """Whether the timestamps give the order of presentation."""
        pts = self.pts[~self.hidden]
        if not pts.size or np.any(pts == NO_TIME) or len(np.unique(pts)) < len(pts):
            return False
        return bool(np.abs(_ranks(pts) - np.arange(len(pts))).max() <= _MOST_REORDERED)

    @property
    def seekable(self) -> bool:
        """Whether each packet can be recognised by its timestamp after a seek."""
        return bool(np.all(self.pts != NO_TIME)) and len(np.unique(self.pts)) == len(self.pts)


@dataclass(frozen=True)
class FrameIndex:
    """The T frames of a video in order of presentation, and the places where decoding can start."""

    packets: Packets
    numbers: Ints  # (T,) number of the packet that holds the frame
    times: Floats  # (T,) seconds since the first frame
    shown: Ints  # (T,) the frame to show: itself or, for one that is damaged, the nearest that is not
    verified: bool = False  # every frame has been decoded once to make this index
    one_thread: bool = False  # decode in one thread; with several, a bad packet can swallow sound frames
    counted: bool = False  # packet numbers cannot be trusted; frames are counted from the start of the file

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def fps(self) -> float:
        """Frames a second on average; the container's own figure where the times agree with it."""
        span, rate = float(self.times[-1] - self.times[0]), self.packets.rate
        average = (len(self) - 1) / span if span > 0 else 0.0
        if average > 0 and abs(rate / average - 1) > 0.01:
            return average
        return rate or DEFAULT_FPS

    def frame_of_packet(self) -> Ints:
        """Return (P,) the frame that each packet holds, -1 for none."""
        frames = np.full(len(self.packets.pts), -1, np.int64)
        if not self.counted:
            # Backwards, so that the first of several frames from one packet counts.
            frames[self.numbers[::-1]] = np.arange(len(self))[::-1]
        return frames

    def resized(self, n: int) -> FrameIndex:
        """Return the index cut to n frames, or filled up to n with the last frame."""
        more = max(0, n - len(self))
        times = np.append(self.times, self.times[-1] + np.arange(1, more + 1) / self.fps)
        numbers, shown = (np.pad(values, (0, more), mode="edge")[:n] for values in (self.numbers, self.shown))
        return replace(self, numbers=numbers, times=times[:n], shown=np.minimum(shown, n - 1))

    def starts(self) -> tuple[Ints, Ints]:
        """Return where decoding can start: (S,) packet numbers, and (S,) the first frame right from there on.

        After a start inside the stream, frames shown before the key frame but decoded after it (open GOP)
        lack what they refer to; so a start serves frames from its key frame on.
        """
        frames = self.frame_of_packet()
        keys = np.flatnonzero(self.packets.key & (frames >= 0))
        keys = keys[(keys > 0) & (not self.counted)]
        first = np.maximum.accumulate(frames[keys]) if keys.size else keys
        return np.concatenate([[0], keys]), np.concatenate([[0], first])


def open_stream(path: str, *, one_thread: bool = False) -> tuple[InputContainer, VideoStream]:
    """Open a video file and choose its picture stream (cover art is none).

    Raises:
        VideoError: if FFmpeg cannot read the file, or finds no video that it can decode.
    """
    expected = "a video file that FFmpeg reads, or a folder of frames"
    try:
        # Absolute, for FFmpeg would take what stands before a colon in a relative name for a protocol.
        container = av.open(os.path.abspath(path), **_LENIENT)
    except (FFmpegError, OSError, ValueError) as error:
        what = "cannot be read as a video"
        raise VideoError(what, path=path, expected=expected, got=error, fix=_FIX) from error
    if container.format.name in _PLAYLISTS:
        container.close()
        what = "this is a list that names other files or addresses, not a video"
        raise VideoError(what, path=path, expected=expected, got=container.format.long_name, fix=_FIX_LIST)
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams or streams[0].codec_context is None:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "no streams"
        container.close()
        what = "holds a video that no decoder here can read" if streams else "holds no video"
        fix = "name another file, or convert it"
        raise VideoError(what, path=path, expected=expected, got=kinds, fix=fix)
    if streams[0].width * streams[0].height > MOST_PIXELS:
        container.close()
        raise too_large(path, f"{streams[0].width} x {streams[0].height}")
    best = container.streams.best("video")
    stream = next((s for s in streams if best is not None and s.index == best.index), streams[0])
    if one_thread:
        stream.codec_context.thread_count = 1
    else:
        stream.thread_type = "AUTO"
    return container, stream


def read_packets(container: InputContainer, stream: VideoStream, most: int) -> Iterator[av.Packet]:
    """Yield the packets of the stream from where the container stands; a broken end is an end."""
    try:
        # An empty packet would tell the decoder that the stream is over.
        yield from islice((packet for packet in container.demux(stream) if packet.size), most)
    except _END:
        return


def decode(
    stream: VideoStream, numbered: Iterable[tuple[int, av.Packet]], failures: list[int]
) -> Iterator[VideoFrame]:
    """Yield frames whose ``pts`` is the number of their packet; numbers that fail go to ``failures``."""
    number = 0
    for number, packet in numbered:
        packet.pts = number
        try:
            frames = stream.decode(packet)
        except FFmpegError:
            failures.append(number)
            continue
        yield from frames
    try:
        yield from stream.codec_context.decode(None)
    except FFmpegError:
        failures.append(number)


def scan_packets(path: str) -> Packets:
    """Read every packet of a video file once, without decoding.

    Raises:
        VideoError: if the file cannot be read, or its video stream is empty.
    """
    container, stream = open_stream(path)
    rows: list[tuple[int, int, bool, bool, bool]] = []
    ends = [0] * len(container.streams)
    n_packets, broken = -1, False  # the last packet is made up, to flush the decoder
    with container:
        try:
            for packet in container.demux():
                k, pts, dts = packet.stream_index, packet.pts, packet.dts
                ends[k] = max(ends[k], (pts or 0) + (packet.duration or 0))
                n_packets += k == stream.index
                if k == stream.index and packet.size:
                    stamps = (NO_TIME if pts is None else pts, NO_TIME if dts is None else dts)
                    rows.append((*stamps, packet.is_keyframe, packet.is_discard, packet.is_corrupt))
        except _END:
            broken = True
        if not rows:
            what = "holds no frame"
            raise VideoError(what, path=path, expected="a video stream with frames", got="none", fix=_FIX)
        end = max(float(t * (s.time_base or 0)) for t, s in zip(ends, container.streams, strict=True))
        times, flags = np.array([r[:2] for r in rows], np.int64), np.array([r[2:] for r in rows], bool)
        packets = Packets(
            *(times[:, 0], times[:, 1], flags[:, 0], flags[:, 1], flags[:, 2]),
            time_base=float(stream.time_base or 1 / DEFAULT_FPS),
            rate=float(stream.average_rate or stream.guessed_rate or 0),
            truncated=broken or bool(flags[-1, 2]),
            joined="mpeg" in container.format.name,
        )
        short = _is_short(container, stream, packets, n_packets, end)
    return replace(packets, truncated=packets.truncated or short)


def _is_short(
    container: InputContainer, stream: VideoStream, packets: Packets, n_packets: int, end: float
) -> bool:
    """Tell whether the file holds less than its header announces or, in streams without one, has a hole."""
    name = container.format.name
    if "mp4" in name:
        return n_packets < len(stream.index_entries)
    if "avi" in name:
        return n_packets < stream.frames
    if "matroska" in name or "flv" in name:
        lacking, frame = (container.duration or 0) / av.time_base - end, 1 / (packets.rate or DEFAULT_FPS)
        return lacking > 0.1 + 1.5 * frame or (lacking > 0.5 * frame and _has_hole(packets))
    return packets.joined and _has_hole(packets)


def _has_hole(packets: Packets) -> bool:
    """Tell whether a frame is missing among the last ones, which are not stored in order."""
    if not packets.sound:
        return False
    numbers = index_by_time(packets).numbers
    return _complete(packets, numbers) < len(numbers)


def _ranks(values: Ints) -> Ints:
    ranks = np.empty(len(values), np.int64)
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values))
    return ranks


def index_by_time(packets: Packets) -> FrameIndex:
    """Make the index from sound timestamps alone: quick, but to be checked while decoding."""
    numbers = np.flatnonzero(~packets.hidden)
    return _timed_index(packets, numbers[np.argsort(packets.pts[numbers], kind="stable")])


def _timed_index(packets: Packets, numbers: Ints) -> FrameIndex:
    pts = packets.pts[numbers]
    rising = not np.any(pts == NO_TIME) and bool(np.all(np.diff(pts) > 0))
    frame = np.arange(len(numbers))
    times = (pts - pts[0]) * packets.time_base if rising else frame / (packets.rate or DEFAULT_FPS)
    return FrameIndex(packets, numbers, times, shown=frame)


def index_by_decoding(path: str, packets: Packets) -> FrameIndex:
    """Make the index by decoding the whole file once, in bounded memory.

    Raises:
        VideoError: if no frame can be decoded.

    Warns:
        PosewarperWarning: if the file is cut off, or frames in its middle are damaged.
    """
    came: list[int | None] = []
    failures: list[int] = []
    one_thread = False
    for one_thread in (False, True):
        container, stream = open_stream(path, one_thread=one_thread)
        with container:
            failures = []
            numbered = enumerate(read_packets(container, stream, len(packets.pts)))
            came = [frame.pts for frame in decode(stream, numbered, failures)]
        if not failures and len(came) == np.count_nonzero(~packets.hidden):
            break
    if not came:
        what = "holds no frame that can be decoded"
        raise VideoError(what, path=path, expected="at least one", got="none", fix=_FIX)
    if None in came or len(set(came)) < len(came):
        frame = np.arange(len(came))
        times = frame / (packets.rate or DEFAULT_FPS)
        index = FrameIndex(packets, frame, times, frame, verified=True, one_thread=one_thread, counted=True)
    else:
        index = _index_of_decoded(packets, np.array(came, np.int64), failures, one_thread=one_thread)
    if packets.truncated:
        warnings.warn(f"{path}: the file is cut off; {len(index)} frames can be read", PosewarperWarning, 2)
    damaged = int(np.count_nonzero(index.shown != np.arange(len(index))))
    if damaged:
        text = f"{path}: {damaged} damaged frames cannot be decoded; the frame before is shown in their place"
        warnings.warn(text, PosewarperWarning, 2)
    return index


def _index_of_decoded(packets: Packets, came: Ints, failures: list[int], *, one_thread: bool) -> FrameIndex:
    """Order the frames that came out of the decoder, and keep the places of damaged ones between them."""
    if not packets.sound:
        return replace(_timed_index(packets, came), verified=True, one_thread=one_thread)
    every = np.arange(len(packets.pts))
    good = np.isin(every, came)
    # What fails to come before any damage holds no frame to show. What fails to come at the start because
    # there is no key frame yet cannot be decoded by anyone, and the end of a cut-off file is missing.
    damage = np.append(failures, np.flatnonzero(packets.corrupt))
    first = int(damage.min()) if damage.size else len(every)
    if packets.joined and packets.key.any():
        first = max(first, int(np.argmax(packets.key)))
    numbers = np.flatnonzero(good | (~packets.hidden & (every >= first)))
    numbers = numbers[np.argsort(packets.pts[numbers], kind="stable")]
    if packets.truncated:
        numbers = numbers[: np.flatnonzero(good[numbers])[-1] + 1]
        numbers = numbers[: _complete(packets, numbers)]
    frame = np.arange(len(numbers))
    source = np.where(good[numbers], frame, -1)
    shown = np.maximum.accumulate(source)
    shown[shown < 0] = np.flatnonzero(source >= 0)[0]
    return replace(_timed_index(packets, numbers), shown=shown, verified=True, one_thread=one_thread)


def _complete(packets: Packets, numbers: Ints) -> int:
    """Count the frames of a cut-off file up to the first hole that the cut has made.

    Frames are stored out of order: of those shown last some may be missing. Up to the last decoding time
    nothing can be missing, for no frame is shown before it is decoded; after it a gap in time is a hole.
    """
    pts = packets.pts[numbers]
    gaps = np.diff(pts)
    certain = max(np.searchsorted(pts, packets.dts.max(), side="right"), len(pts) - _MOST_REORDERED)
    holes = np.flatnonzero(gaps > 1.5 * np.median(gaps)) + 1 if gaps.size else gaps
    holes = holes[holes >= certain]
    return int(holes[0]) if holes.size else len(numbers)
