"""Optical flow by dense inverse search (DIS): between two frames, and labels carried along a clip."""

from __future__ import annotations

import math
import os
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from typing import IO, Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from posewarper.files import replacing
from posewarper.motion.interpolation import fill_in, interpolate
from posewarper.structures import Floats, Ints, Progress, Track, is_there, silent
from posewarper.video.source import Video, ahead
from posewarper.video.track_crops import instance_sizes

Flow = NDArray[np.floating]

# Subjects are brought to about this many pixels before the flow is computed: finer costs time and gains
# nothing, coarser loses the limbs.
_SUBJECT_PIXELS, _SHORTEST_LONG_SIDE, _LONGEST_SIDE = 256, 720, 1280

_SMALLEST_SIDE = 16  # of a picture that dense inverse search takes
# It has a state of its own, which two threads must not share.
_OF_THREAD = threading.local()


def _dis() -> cv2.DISOpticalFlow:
    if not hasattr(_OF_THREAD, "dis"):
        _OF_THREAD.dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return _OF_THREAD.dis


def dense_flow(source: NDArray[np.uint8], target: NDArray[np.uint8]) -> Flow:
    """Return (H, W, 2) xy displacements in pixels from source to target, both (H, W) grey, >= 16 a side."""
    return _dis().calc(source, target, None)  # type: ignore[call-overload]


def sample_flow(flow: NDArray[np.floating], points: Floats) -> Floats:
    """Return displacements (..., 2), read bilinearly from a flow (H, W, 2) at points (..., 2) xy.

    Outside of the picture the nearest border counts; NaN gives NaN.
    """
    height, width = flow.shape[:2]
    there = is_there(points)
    shape = np.broadcast_to((height, width), points.shape)
    value = _bilinear(
        flow.reshape(-1, 2), np.zeros((), np.int64), shape, np.where(there[..., None], points, 0.0)
    )
    return np.where(there[..., None], value, np.nan)


def _bilinear(
    values: NDArray[np.floating], first: Ints, shape: NDArray[np.integer], points: Floats
) -> Floats:
    """Read several flows, one after the other in ``values`` (n, 2), at finite points (..., 2) xy.

    Each point is read in the flow that begins at ``first`` (...) and has the ``shape`` (..., 2), height and
    width; outside of it the nearest border counts.
    """
    height, width = shape[..., 0], shape[..., 1]
    x = np.minimum(np.maximum(points[..., 0], 0), width - 1)
    y = np.minimum(np.maximum(points[..., 1], 0), height - 1)
    left = np.minimum(x.astype(np.int64), np.maximum(width - 2, 0))
    top = np.minimum(y.astype(np.int64), np.maximum(height - 2, 0))
    fx, fy = (x - left)[..., None], (y - top)[..., None]
    right = np.minimum(left + 1, width - 1)
    row, below = first + top * width, first + np.minimum(top + 1, height - 1) * width
    return (1 - fy) * ((1 - fx) * values[row + left] + fx * values[row + right]) + fy * (
        (1 - fx) * values[below + left] + fx * values[below + right]
    )


def to_grey(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    """Return the frame (H, W, 3) in grey, shrunk by ``scale``, and at least 16 pixels a side."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    size = max(16, round(grey.shape[1] * scale)), max(16, round(grey.shape[0] * scale))
    if size != grey.shape[::-1]:
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(grey, dtype=np.uint8)


def working_scale(image_size: tuple[int, int], subject: float) -> float:
    """Return by how much to shrink frames of ``image_size`` (h, w) with subjects of ``subject`` pixels."""
    longest = max(image_size)
    wanted = max(_SUBJECT_PIXELS / max(subject, 1.0), _SHORTEST_LONG_SIDE / longest)
    return min(1.0, wanted, _LONGEST_SIDE / longest)


# Flow is computed around each track: where its keypoints are, and a margin further, which is a share of its
# size, at least so many pixels, and at least so many times what its labels move a frame; in a window of at
# least so many. Corners lie on a grid, so that a small step does not change the window.
_MARGIN, _NARROW = (0.2, 48), (0.13, 32)
_STEPS, _LEAST_WINDOW, _GRID = 6.0, 96, 16
# Another's window serves, too, where so much of that lies around the keypoints.
_ROOM = 1 / 3
# Keypoints that are this share of the subject's size away from the middle of the others are lost.
_REACH = 0.7
# Dense inverse search computes every second pixel and fills in the others; those are not kept.
_KEPT = 2
# Small pictures wait for the next label; one further away than so many bytes is out of reach.
_MOST_ENLARGED = 4
_WAITING_BYTES = 192 * 2**20
# Flow of more bytes than this lies on disk.
_IN_MEMORY = 64 * 2**20


def working_factor(image_size: tuple[int, int], subject: float) -> float:
    """Return by what frames (h, w) are shrunk so that the subject has about 256 pixels.

    It is a whole number, or one divided by one: small subjects are enlarged, up to four times, since dense
    inverse search computes every second pixel alone.
    """
    ladder = [1 / n for n in range(_MOST_ENLARGED, 0, -1)] + [float(n) for n in range(2, 65)]
    fitting = [n for n in ladder if n <= max(1, min(image_size) // _SMALLEST_SIDE)]
    wanted = max(subject, 1.0) / _SUBJECT_PIXELS
    return min(fitting, key=lambda n: abs(np.log(n / wanted)))


def shrink(grey: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    """Average blocks of a picture (H, W), which becomes at least 16 pixels large a side by repetition.

    Where the factor enlarges it stays as it is: windows are enlarged when they are cut.
    """
    if factor > 1:
        block = round(factor)
        height, width = (n // block for n in grey.shape)
        whole = grey[: height * block, : width * block]
        grey = np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    missing = [max(0, _SMALLEST_SIDE - n) for n in grey.shape]
    return np.pad(grey, [(0, n) for n in missing], mode="edge") if any(missing) else grey


class Window(NamedTuple):
    """A part of a frame that is shrunk or enlarged by the working factor, in its pixels."""

    left: int
    top: int
    width: int
    height: int

    def cut(self, grey: NDArray[np.uint8], enlarged: int) -> NDArray[np.uint8]:
        """Return what lies inside, of a picture that is still to be enlarged so many times."""
        left, top, right, bottom = (
            n // enlarged for n in (self.left, self.top, self.left + self.width, self.top + self.height)
        )
        part = np.ascontiguousarray(grey[top:bottom, left:right])
        if enlarged > 1:
            size = (self.width, self.height)
            part = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_LINEAR), np.uint8)
        return part


def _window_around(
    points: Floats,
    size: float,
    shape: tuple[int, int],
    known: Sequence[Window] = (),
    *,
    margin: float,
    room: float = 0.0,
) -> Window | None:
    """Return a window around keypoints (K, 2): a known one if it will do; None where there are none.

    ``size`` is that of the subject and ``shape`` (h, w) that of the picture, in its pixels. Keypoints further
    than that from the middle of the others are lost and do not count. There is ``margin`` around the others,
    and in a known window ``room``, but for where the picture ends.
    """
    points = points[is_there(points)]
    if not len(points):
        return None
    ordered = np.sort(points, axis=0)
    middle = (ordered[(len(points) - 1) // 2] + ordered[len(points) // 2]) / 2
    away = np.abs(points - middle).max(-1)
    near = points[away <= max(_REACH * size, away.min())]
    low, high, limits = near.min(0).tolist(), near.max(0).tolist(), shape[::-1]
    for window in known:
        spans = zip(low, high, window[:2], window[2:], limits, strict=True)
        if all((a == 0 or a + room <= p) and (a + n == end or q + room < a + n) for p, q, a, n, end in spans):
            return window
    starts, extents = [], []
    for p, q, end in zip(low, high, limits, strict=True):
        # Also of a subject that has left the picture, a piece at its border is seen.
        start = min(max(math.floor((p - margin) / _GRID) * _GRID, 0), max(end - _LEAST_WINDOW, 0))
        stop = min(max(math.ceil((q + margin + 1) / _GRID) * _GRID, start + _LEAST_WINDOW), end)
        starts.append(start)
        extents.append(stop - start)
    return Window(*starts, *extents)


class FlowStore:
    """Flow between frames and the next ones, in windows, each both ways; what is many lies on disk.

    Args:
        factor: by which frames are shrunk, below 1 enlarged.
        path: the file that holds the flow, which is made anew, or gone on with if ``places`` are given;
            without one it lasts as long as the store.
        places: (n, 7) rows of track, earlier frame, left, top, width, height, and where its flow begins.
        known: flow of the same video that is there already, from which it is taken.
    """

    def __init__(
        self,
        factor: float,
        path: str | os.PathLike[str] | None = None,
        places: Ints | None = None,
        known: FlowStore | None = None,
    ) -> None:
        self.factor, self.enlarged = factor, max(1, round(1 / factor))
        self._known = known if known is not None and known.factor == factor else None
        rows = [] if self._known is None else self._known.places.tolist()
        self._known_at = {(frame, Window(*window)): first for _, frame, *window, first in rows}
        self._of_pair: dict[tuple[int, int], list[tuple[Window, int]]] = {}
        self._tracks: set[int] = set()
        for track, frame, *window, first in [] if places is None else places.tolist():
            self._note([track], frame, Window(*window), first)
        if path is None:
            self._file: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - see close
        else:
            self._file = open(path, "w+b" if places is None else "r+b")  # noqa: SIM115 - see close
        self._file.seek(0, os.SEEK_END)
        self._end = self._file.tell()
        # Closed with the store at the latest.
        self.close = weakref.finalize(self, self._file.close)

    @property
    def places(self) -> Ints:
        """What makes the same store again of its file."""
        rows = [(*key, *window, first) for key, pair in self._of_pair.items() for window, first in pair]
        return np.array(rows, np.int64).reshape(-1, 7)

    def shape_of(self, grey: NDArray[np.uint8]) -> tuple[int, int]:
        """Return how large a picture (h, w) that is shrunk, if need be, is for windows."""
        return grey.shape[0] * self.enlarged, grey.shape[1] * self.enlarged

    def flush(self) -> None:
        """Leave nothing unwritten."""
        self._file.flush()

    def windows(self, track: int, frame: int) -> list[Window]:
        """Return in which windows there is flow from a frame of a track to the next one, and back."""
        return [window for window, _ in self._of_pair.get((track, frame), [])]

    def borrow(self, track: int, frame: int, fits: Callable[[Sequence[Window]], Window | None]) -> bool:
        """Let a track use a window of another one, if any fits; returns whether one does."""
        others = {
            window: first
            for other in self._tracks - {track}
            for window, first in self._of_pair.get((other, frame), [])
        }
        window = fits(list(others)) if others else None
        if window is None or window not in others:
            return False
        self._of_pair.setdefault((track, frame), []).append((window, others[window]))
        return True

    def _note(self, tracks: Iterable[int], frame: int, window: Window, first: int) -> None:
        for track in tracks:
            self._of_pair.setdefault((track, frame), []).append((window, first))
            self._tracks.add(track)

    def take(self, tracks: Iterable[int], frame: int, window: Window) -> bool:
        """Take the flow of a window from what is known already; returns whether it is there."""
        first = self._known_at.get((frame, window))
        if self._known is None or first is None:
            return False
        data = self._known._read(first, window)
        self._note(tracks, frame, window, self._end)
        self._file.seek(self._end)
        self._end += self._file.write(data)
        return True

    def _read(self, first: int, window: Window) -> bytes:
        height, width = _kept_size(window)
        self._file.seek(first)
        return self._file.read(8 * height * width)

    def add(self, tracks: Iterable[int], frame: int, window: Window, there: Flow, back: Flow) -> None:
        """Keep the flow (h, w, 2) of a window from a frame to the next one, and back."""
        self._note(tracks, frame, window, self._end)
        self._file.seek(self._end)
        for flow in (there, back):
            size = _kept_size(window)
            small = (
                cv2.resize(flow, size[::-1], interpolation=cv2.INTER_AREA) if flow.shape[:2] != size else flow
            )
            self._end += self._file.write(np.ascontiguousarray(small, np.float16).tobytes())

    def read(self, track: int, frames: Ints) -> FlowField:
        """Return the flow from each of some frames (t,) of a track to the next one, and back."""
        pairs = [self._of_pair.get((track, frame), []) for frame in frames.tolist()]
        most = max((len(pair) for pair in pairs), default=0)
        windows = np.zeros((most, len(pairs), 4), np.int64)
        first = np.full((most, len(pairs)), -1)
        parts: list[NDArray[np.float16]] = []
        end = 0
        for n, pair in enumerate(pairs):
            for rank, (window, begins) in enumerate(pair):
                height, width = _kept_size(window)
                data = self._read(begins, window)
                parts.append(np.frombuffer(data, np.float16).reshape(2, height * width, 2))
                windows[rank, n], first[rank, n] = window, end
                end += height * width
        values = np.concatenate(parts, axis=1) if parts else np.zeros((2, 0, 2), np.float16)
        return FlowField(values, windows, first, self.factor)


def _kept_size(window: Window) -> tuple[int, int]:
    return max(1, window.height // _KEPT), max(1, window.width // _KEPT)


@dataclass(frozen=True)
class FlowField:
    """Flow between consecutive frames around a track, in up to ``m`` windows for each of ``t`` pairs.

    Args:
        values: (2, n, 2) flow there and back in all windows, one after the other, in shrunken pixels.
        windows: (m, t, 4) left, top, width and height in shrunken frames.
        first: (m, t) where the flow of a window begins in ``values``, -1 where there is no such window.
        factor: by which frames are shrunk.
    """

    values: NDArray[np.float16]
    windows: Ints
    first: Ints
    factor: float

    def steps(self, points: Floats) -> tuple[Floats, Floats]:
        """Read the motion at a guess of the trajectory, (t + 1, K, 2) xy in pixels; NaN gives NaN.

        Returns:
            ``(t, K, 2)`` displacements from each frame to the next, read at the earlier frame's points; and
            the same, read at the later frame's. Both agree where the guess lies on consistent flow.
        """
        return self.read(points[:-1], back=False), -self.read(points[1:], back=True)

    def read(self, points: Floats, *, back: bool) -> Floats:
        """Return displacements (t, K, 2) in pixels at points (t, K, 2), NaN where there is no flow.

        A point is read in the first window that it lies in; outside of all, the border of the first counts.
        """
        there = is_there(points)
        if len(self.first):
            there &= self.first[0, :, None] >= 0
        if not len(self.first) or not there.any():
            return np.full(points.shape, np.nan)
        small = (np.where(there[..., None], points, 0.0) + 0.5) / self.factor - 0.5
        rank = np.zeros(points.shape[:2], int)
        for n in reversed(range(len(self.first))):
            beside = small - self.windows[n, :, None, :2]
            inside = (beside >= 0).all(-1) & (beside <= self.windows[n, :, None, 2:] - 1).all(-1)
            rank[inside & (self.first[n, :, None] >= 0)] = n
        pair = np.arange(points.shape[1] and len(points))[:, None]
        window, first = self.windows[rank, pair], np.maximum(self.first[rank, pair], 0)
        shape = np.maximum(window[..., :1:-1] // _KEPT, 1)
        inside = (small - window[..., :2] + 0.5) / (np.maximum(window[..., 2:], 1) / shape[..., ::-1]) - 0.5
        value = _bilinear(self.values[int(back)], first, shape, inside) * self.factor
        return np.where(there[..., None], value, np.nan)


class TrackFlow(NamedTuple):
    """The flow around one track."""

    store: FlowStore
    track: int

    def between(self, frames: Ints) -> FlowField:
        """Return the flow from each of some frames (t,) to the next one, and back."""
        return self.store.read(self.track, frames)


@dataclass(frozen=True)
class FlowChain:
    """Keypoints carried by flow from the labels, on the frames where a track is there.

    Args:
        frames: (t,) frame indices.
        forward: (t, K, 2) carried from the last label before; NaN before the first label.
        backward: (t, K, 2) carried from the next label; NaN after the last label, or where it is too far.
        forward_error: (t, K) forward-backward inconsistency in pixels, summed along the way.
        backward_error: (t, K) the same for ``backward``.
        left_out: the same on the labelled frames alone, as if each had no label of its own.
        flow: what they were carried by, between any frame and the next one.
    """

    frames: Ints
    forward: Floats
    backward: Floats
    forward_error: Floats
    backward_error: Floats
    left_out: FlowChain | None = None
    flow: TrackFlow | None = None

    @property
    def sides(self) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
        """Points and errors carried forward, and those carried backward."""
        return (self.forward, self.forward_error), (self.backward, self.backward_error)

    def at(self, frames: Ints) -> FlowChain:
        """Return the part that lies on some of its frames."""
        rows = np.searchsorted(self.frames, frames)
        errors = self.forward_error[rows], self.backward_error[rows]
        return FlowChain(self.frames[rows], self.forward[rows], self.backward[rows], *errors, flow=self.flow)


def write_chains(path: str | os.PathLike[str], chains: Mapping[int, FlowChain]) -> None:
    """Write what :func:`carry_labels` returns, whole or not at all; the flow lies in a file of its own."""
    arrays = {}
    for i, chain in chains.items():
        if chain.flow is not None:
            chain.flow.store.flush()
            arrays |= {"factor": np.array(chain.flow.store.factor), "places": chain.flow.store.places}
        for n, part in enumerate((chain, chain.left_out)):
            arrays |= {f"{i} {n} {f.name}": getattr(part, f.name) for f in fields(FlowChain)[:5]}
    with replacing(path) as temporary:
        np.savez(temporary, **arrays)


def read_chains(path: str | os.PathLike[str], kept: str | os.PathLike[str]) -> dict[int, FlowChain]:
    """Read what :func:`write_chains` has written; ``kept`` is the file of the flow."""
    parts: dict[tuple[int, int], dict[str, Any]] = {}
    with np.load(path) as arrays:
        store = FlowStore(float(arrays["factor"]), kept, arrays["places"])
        for key in set(arrays) - {"factor", "places"}:
            i, n, name = key.split()
            parts.setdefault((int(i), int(n)), {})[name] = arrays[key]
    return {
        i: FlowChain(**own, left_out=FlowChain(**parts[i, 1]), flow=TrackFlow(store, i))
        for (i, n), own in parts.items()
        if not n
    }


def _empty_chain(
    frames: Ints,
    keypoints: int,
    left_out: FlowChain | None = None,
    flow: TrackFlow | None = None,
) -> FlowChain:
    forward, backward = np.full((2, len(frames), keypoints, 2), np.nan)
    errors = forward[..., 0].copy(), backward[..., 0].copy()
    return FlowChain(frames, forward, backward, *errors, left_out, flow)


def _label_steps(track: Track, frames: Ints) -> Floats:
    """Return (t,) pixels: how far half of the keypoints move a frame, from label to label."""
    if len(track.frames) < 2:
        return np.zeros(len(frames))
    points = interpolate(track.frames, track.keypoints, track.frames)
    points = points[:, is_there(points).all(0)]
    steps = np.linalg.norm(np.diff(points, axis=0), axis=-1) / np.diff(track.frames)[:, None]
    usual = np.median(steps, axis=1) if steps.size else np.zeros(len(steps))
    before = np.searchsorted(track.frames, frames, side="right") - 1
    return usual[np.clip(before, 0, len(usual) - 1)]


class _Carrier:
    """One track's keypoints on their way through the clip; its chain is filled in place."""

    def __init__(
        self,
        track_id: int,
        track: Track,
        frames: Ints,
        subject: float,
        image_size: tuple[int, int],
        store: FlowStore,
        margin: tuple[float, int] = _MARGIN,
    ) -> None:
        self.id, self.store, self.frames = track_id, store, frames
        self.row = {int(f): n for n, f in enumerate(frames)}
        labelled = np.intersect1d(track.frames, frames)
        self.label_row = {int(f): n for n, f in enumerate(labelled)}
        k = track.keypoints.shape[1]
        self.left_out = _empty_chain(labelled, k)
        self.chain = _empty_chain(frames, k, self.left_out, TrackFlow(store, track_id))
        rows, own = np.searchsorted(frames, labelled), np.searchsorted(track.frames, labelled)
        for points, errors in self.chain.sides:
            points[rows] = track.keypoints[own]
            errors[rows] = np.where(is_there(track.keypoints[own]), 0.0, np.nan)
        labelled_on = np.where(track.visibility > 0, track.frames[:, None], -1)
        self.last_label = labelled_on.max(0, initial=-1)
        size = instance_sizes(fill_in(track))
        known = np.isfinite(size)
        usual = (
            np.interp(frames, track.frames[known], size[known])
            if known.any()
            else np.full(len(frames), subject)
        )
        self.size = np.minimum(usual, max(image_size)) / store.factor
        moves = np.minimum(_STEPS * _label_steps(track, frames) / store.factor, _SUBJECT_PIXELS)
        self.margin, self.room = (
            np.maximum(np.maximum(margin[0] * self.size, margin[1]), moves),
            _ROOM * moves,
        )

    def waits(self, frame: int) -> bool:
        """Tell whether a label after ``frame`` has yet to be carried back to ``frame`` and beyond."""
        if frame not in self.row:
            return False
        missing = ~is_there(self.chain.backward[self.row[frame]])
        return bool((missing & (self.last_label > frame)).any())

    def window(
        self, frame: int, side: int, shape: tuple[int, int], known: Sequence[Window] = ()
    ) -> Window | None:
        """Return in which window flow is wanted that starts from the points of a frame, of one side."""
        row = self.row[frame]
        small = (self.chain.sides[side][0][row] + 0.5) / self.store.factor - 0.5
        around = {"margin": self.margin[row], "room": self.room[row]}
        return _window_around(small, self.size[row], shape, known, **around)

    def carry(self, a: int, b: int) -> None:
        """Carry the points of frame ``a`` to its neighbour ``b``; labels in ``b`` stay as they are."""
        side, backwards = int(a > b), a > b
        (points, errors), row = self.chain.sides[side], self.row[b]
        field, start = self.store.read(self.id, np.array([min(a, b)])), points[self.row[a]]
        step = field.read(start[None], back=backwards)[0]
        gap = np.linalg.norm(step + field.read((start + step)[None], back=not backwards)[0], axis=-1)
        arrived, error = start + step, errors[self.row[a]] + gap
        missing = ~is_there(points[row])
        points[row, missing], errors[row, missing] = arrived[missing], error[missing]
        if b in self.label_row:
            for whole, part in zip(self.left_out.sides[side], (arrived, error), strict=True):
                whole[self.label_row[b]] = part

    def go_back(self, frame: int, held: Mapping[int, NDArray[np.uint8]], compute: _Computing) -> None:
        """Carry the label of a frame back to the labels before it, as far as flow or pictures are held."""
        while (before := frame - 1) in self.row:
            backward = self.chain.backward
            missing = is_there(backward[self.row[frame]]) & ~is_there(backward[self.row[before]])
            if not missing.any() and before not in self.label_row:
                return
            known = self.store.windows(self.id, before)
            if before in held:
                window = self.window(frame, 1, self.store.shape_of(held[before]), known)
                if window is not None and window not in known:
                    compute({window: [self.id]}, before, held[before], held[frame])
            elif not known:
                return
            self.carry(frame, before)
            if not missing.any():
                return
            frame = before

    def take_over(self, track: Track, old: Track, chain: FlowChain) -> None:
        """Take over what was carried from labels that are still as they were in ``old``."""
        _, rows, theirs = np.intersect1d(self.frames, chain.frames, return_indices=True)
        keep = _untouched(self.frames, old, track)
        for (points, errors), other, same in zip(self.chain.sides, chain.sides, keep, strict=True):
            free = same[rows] & ~is_there(points[rows])
            points[rows] = np.where(free[..., None], other[0][theirs], points[rows])
            errors[rows] = np.where(free, other[1][theirs], errors[rows])
        if chain.left_out is not None:
            _, rows, theirs = np.intersect1d(self.left_out.frames, chain.left_out.frames, return_indices=True)
            for mine, other in zip(self.left_out.sides, chain.left_out.sides, strict=True):
                for whole, part in zip(mine, other, strict=True):
                    whole[rows] = part[theirs]

    def carry_all(self, step: int, pictures: _Pictures, compute: _Computing) -> None:
        """Carry what is there on to all frames where it is missing, forward (1) or backward (-1)."""
        side = int(step < 0)
        points = self.chain.sides[side][0]
        for frame in self.frames[::step].tolist():
            after = frame + step
            if after not in self.row:
                continue
            there = is_there(points[self.row[frame]])
            missing = there & ~is_there(points[self.row[after]])
            reached = (
                after in self.label_row
                and not is_there(self.left_out.sides[side][0][self.label_row[after]]).any()
            )
            if not missing.any() and not (reached and there.any()):
                continue
            first = min(frame, after)
            known = self.store.windows(self.id, first)
            fits = partial(self.window, frame, side, pictures.shape)
            window = fits(known)
            if window is not None and window not in known and not self.store.borrow(self.id, first, fits):
                compute({window: [self.id]}, first, pictures[first], pictures[first + 1])
            self.carry(frame, after)


_Computing = Callable[[Mapping[Window, Sequence[int]], int, NDArray[np.uint8], NDArray[np.uint8]], None]


def carry_labels(
    video: Video,
    tracks: Mapping[int, Track],
    frames: Mapping[int, Ints],
    *,
    subject: float,
    kept: str | os.PathLike[str] | None = None,
    known: FlowStore | None = None,
    narrow: bool = False,
    progress: Progress = silent,
) -> dict[int, FlowChain]:
    """Carry every track's labels through the clip by dense flow between consecutive frames, both ways.

    Flow is computed in windows that follow the labels on their way; those of labels that are carried back lie
    elsewhere where the two have parted. This passes over the video once, and holds the flow of a frame and
    small pictures since the last label.

    Args:
        video: the clip.
        tracks: track id -> its labels.
        frames: track id -> rising frames on which the track is there, and for which it gets its chain.
        subject: longer side of a typical instance in pixels, which sets the resolution of the flow.
        kept: the file in which the flow is kept; left out, it lasts as long as the chains.
        known: flow of an earlier run on the same video. Where its windows are the same it is used again.
        narrow: leave out what lies further around the keypoints, as will do where no network looks there.
        progress: is told how many frames are done.
    """
    store = FlowStore(working_factor(video.image_size, subject), kept, known=known)
    size, margin = video.image_size, _NARROW if narrow else _MARGIN
    carriers = [_Carrier(i, tracks[i], frames[i], subject, size, store, margin) for i in tracks]
    wanted = np.unique(np.concatenate([np.zeros(0, np.int64), *frames.values()]))
    done = 0
    with ThreadPoolExecutor(2) as pool:
        compute = partial(_compute, pool, store)
        for run in np.split(wanted, np.flatnonzero(np.diff(wanted) > 1) + 1):
            held: dict[int, NDArray[np.uint8]] = {}
            small = ((index, shrink(video.grey(index), store.factor)) for index in run.tolist())
            for index, grey in ahead(small):
                held[index] = grey
                _carry_on(carriers, index, held, compute)
                while len(held) > max(2, _WAITING_BYTES // grey.nbytes):
                    del held[next(iter(held))]
                for carrier in carriers:
                    if index in carrier.label_row:
                        carrier.go_back(index, held, compute)
                # Keypoints without a label here may still get one later, for which pictures wait.
                if not any(carrier.waits(index) for carrier in carriers):
                    held = {index: grey}
                done += 1
                progress("optical flow", done, len(wanted))
    return {carrier.id: carrier.chain for carrier in carriers}


def carry_again(
    video: Video,
    tracks: Mapping[int, Track],
    frames: Mapping[int, Ints],
    store: FlowStore,
    *,
    subject: float,
    before: Mapping[int, tuple[Track, FlowChain]] | None = None,
) -> dict[int, FlowChain]:
    """Carry labels by flow that is there already, as :func:`carry_labels` does; what lacks is computed.

    Args:
        video, tracks, frames, subject: as :func:`carry_labels` takes them.
        store: the flow, to which is added.
        before: track id -> its labels before they were changed, and their chain. What is carried from labels
            that are as they were is taken over.
    """
    carriers = [_Carrier(i, tracks[i], frames[i], subject, video.image_size, store) for i in tracks]
    pictures = _Pictures(video, store)
    with ThreadPoolExecutor(2) as pool:
        compute = partial(_compute, pool, store)
        for carrier in carriers:
            if before is not None and carrier.id in before:
                carrier.take_over(tracks[carrier.id], *before[carrier.id])
            for step in (1, -1):
                carrier.carry_all(step, pictures, compute)
    return {carrier.id: carrier.chain for carrier in carriers}


class _Pictures(dict[int, NDArray[np.uint8]]):
    """Small pictures of frames, read when somebody asks for them; only the last few are kept."""

    def __init__(self, video: Video, store: FlowStore) -> None:
        super().__init__()
        self._video, self._factor = video, store.factor
        self.shape = store.shape_of(shrink(np.zeros(video.image_size, np.uint8), store.factor))

    def __missing__(self, frame: int) -> NDArray[np.uint8]:
        while len(self) > 2:
            del self[next(iter(self))]
        self[frame] = shrink(self._video.grey(frame), self._factor)
        return self[frame]


def _untouched(frames: Ints, old: Track, new: Track) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return (t, K) whether what is carried forward, and backward, comes from the same labels in both."""
    k = new.keypoints.shape[1]
    keep = np.ones((2, len(frames), k), bool)
    either = np.union1d(old.frames, new.frames)

    def places(track: Track) -> Floats:
        points = np.full((len(either), k, 2), np.nan)
        points[np.searchsorted(either, track.frames)] = np.where(
            (track.visibility > 0)[..., None], track.keypoints, np.nan
        )
        return points

    was, now = places(old), places(new)
    for n in range(k):
        both = is_there(was[:, n]) | is_there(now[:, n])
        knots = either[both]
        for knot in either[both & ~np.all(was[:, n] == now[:, n], axis=-1)]:
            at = int(np.searchsorted(knots, knot))
            after = knots[at + 1] if at + 1 < len(knots) else np.inf
            earlier = knots[at - 1] if at else -np.inf
            keep[0, (frames >= knot) & (frames < after), n] = False
            keep[1, (frames <= knot) & (frames > earlier), n] = False
    return keep[0], keep[1]


def _compute(
    pool: ThreadPoolExecutor,
    store: FlowStore,
    windows: Mapping[Window, Sequence[int]],
    frame: int,
    a: NDArray[np.uint8],
    b: NDArray[np.uint8],
) -> None:
    """Compute the flow from a frame to the next one, and back, in windows, each for some tracks."""
    windows = {window: ids for window, ids in windows.items() if not store.take(ids, frame, window)}
    cut = [(window.cut(a, store.enlarged), window.cut(b, store.enlarged)) for window in windows]
    both = [(pool.submit(dense_flow, *ab), pool.submit(dense_flow, *ab[::-1])) for ab in cut]
    for (window, ids), (there, back) in zip(windows.items(), both, strict=True):
        store.add(ids, frame, window, there.result(), back.result())


def _carry_on(
    carriers: Sequence[_Carrier], frame: int, held: Mapping[int, NDArray[np.uint8]], compute: _Computing
) -> None:
    """Carry the points of the frame before to a frame, if it is held."""
    before = frame - 1
    here = [carrier for carrier in carriers if before in carrier.row and frame in carrier.row]
    if before not in held or not here:
        return
    shape = here[0].store.shape_of(held[before])
    compute(_share(here, before, shape), before, held[before], held[frame])
    for carrier in here:
        carrier.carry(before, frame)


def _share(carriers: Sequence[_Carrier], frame: int, shape: tuple[int, int]) -> dict[Window, list[int]]:
    """Return the windows in which points of a frame are carried on, each with its tracks.

    In a crowd they would cover the picture several times: then it is one window.
    """
    windows: dict[Window, list[int]] = {}
    for carrier in carriers:
        window = carrier.window(frame, 0, shape)
        if window is not None:
            windows.setdefault(window, []).append(carrier.id)
    if sum(window.width * window.height for window in windows) > shape[0] * shape[1]:
        return {Window(0, 0, shape[1], shape[0]): [i for ids in windows.values() for i in ids]}
    return windows


def blend_nearest(chain: FlowChain, track: Track) -> Floats:
    """Return (t, K, 2): each keypoint carried by flow from its nearest label (the earlier one on a tie)."""
    before, after = label_distances(chain, track)
    return _choose(chain, before <= after)


def blend_both(chain: FlowChain, track: Track) -> Floats:
    """Return (t, K, 2): both sides' carried keypoints, weighted by the distance to the other side's label."""
    before, after = label_distances(chain, track)
    both = is_there(chain.forward) & is_there(chain.backward)
    with np.errstate(invalid="ignore"):
        share = (after / (before + after))[..., None]
    blended = share * chain.forward + (1 - share) * chain.backward
    labelled = (before == 0) & (after == 0)
    return np.where((both & ~labelled)[..., None], blended, _choose(chain, np.ones_like(both)))


def _choose(chain: FlowChain, forward_first: NDArray[np.bool_]) -> Floats:
    first = np.where(forward_first[..., None], chain.forward, chain.backward)
    second = np.where(forward_first[..., None], chain.backward, chain.forward)
    return np.where(np.isfinite(first), first, second)


def label_distances(chain: FlowChain, track: Track) -> tuple[Floats, Floats]:
    """Return (t, K) frames since the last label and until the next one, infinite where there is none."""
    before, after = np.full((2, *chain.forward_error.shape), np.inf)
    for k in range(track.keypoints.shape[1]):
        knots = track.frames[track.visibility[:, k] > 0]
        place = np.searchsorted(knots, chain.frames, side="right")
        has = place > 0
        before[has, k] = chain.frames[has] - knots[place[has] - 1]
        place = np.searchsorted(knots, chain.frames, side="left")
        has = place < len(knots)
        after[has, k] = knots[place[has]] - chain.frames[has]
    return before, after


BLENDS: Mapping[str, Callable[[FlowChain, Track], Floats]] = {"flow": blend_nearest, "flow2": blend_both}
"""The methods that follow flow alone, by name."""
