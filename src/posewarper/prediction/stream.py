"""Predicts the poses of a video while its frames come, and computes each heatmap only once where it can.

A frame's poses are there as soon as the window's later frames are; with a causal window that is at once. What
is kept are the frames of one window and their heatmaps, however long the video is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from posewarper.crops import Image
from posewarper.geometry import pad_box
from posewarper.model.heatmap_runner import HeatmapEngine, InstanceCrops
from posewarper.prediction.windows import Window, frames_to_sum
from posewarper.structures import Floats

_SIDE = 32  # pixels of the small picture that frames are compared by
_SAMPLED = 4  # pixels and more, each way, for one of the small picture's
_BINS = 8  # of each colour's histogram
# A cut changes both what is where and which colours there are: panning changes the first alone, and a lamp
# that is switched on the second less.
_LEAST_CHANGE, _LEAST_RECOLOURED = 22.0, 0.25
_TIMES_BEFORE = 3.0  # and more than the frames before, which a shaking camera changes too


class CutFinder:
    """Tells frame by frame whether a new scene begins, from the frame and the two before it."""

    LOOKS_BACK = 2

    def __init__(self) -> None:
        self._previous: NDArray[np.float32] | None = None
        self._last_change = 0.0

    def begins_scene(self, image: Image) -> bool:
        """Return whether ``image`` (H, W, 3) shows another scene than the one before; the first does not."""
        # Of large pictures a part of the pixels will do: averaging all takes longer than reading the frame.
        every = max(1, min(image.shape[:2]) // (_SAMPLED * _SIDE))
        some = np.ascontiguousarray(image[::every, ::every])
        small = cv2.resize(some, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
        previous, self._previous = self._previous, small
        if previous is None:
            return False
        change = float(np.abs(small - previous).mean())
        usual, self._last_change = self._last_change, change
        if change <= max(_LEAST_CHANGE, _TIMES_BEFORE * usual):
            return False
        before, after = (
            np.stack([np.histogram(picture[..., c], _BINS, (0, 256))[0] for c in range(3)])
            for picture in (previous, small)
        )
        # The share of the pixels whose colour has to change to make one picture's colours the other's.
        recoloured = np.abs(before - after).sum() / (2 * 3 * _SIDE**2)
        return bool(recoloured > _LEAST_RECOLOURED)


_FAR = 1.0  # a box that is farther off than its own size belongs to somebody else
# A new crop lies where its box will be so many frames later, but no more off than this share of what is held.
_LEAD, _MOST_LEAD = 4, 0.6


@dataclass(frozen=True)
class Crop:
    """One cut-out, for one frame or for many."""

    number: int  # tells it from others of the run
    box: tuple[float, float, float, float]  # tight xywh in image pixels, not yet padded


class CropKeeper:
    """Gives every box of a frame its crop, frame after frame.

    A crop that takes the place of one that its box has left lies a little ahead, and so serves for longer.

    Args:
        aspect_ratio: width divided by height of crops.
        hold: a crop is kept until its box has moved by more than this share of its padded size, or has grown
            or shrunk by more. With a padding of 1.25 the tight box reaches the crop's edge at 0.1. None gives
            each box a crop of its own.
    """

    def __init__(self, aspect_ratio: float, hold: float | None = None) -> None:
        self._aspect, self._hold = aspect_ratio, hold
        self._crops: list[Crop] = []
        self._boxes = np.zeros((0, 4))  # of the frame before, one for each crop
        self._count = 0

    def place(self, boxes: Floats) -> list[Crop]:
        """Return the crop of each of the boxes (n, 4) xywh of the next frame."""
        kept, ahead = {}, np.zeros((len(boxes), 2))
        if self._hold is not None and len(boxes) and self._crops:
            kept, ahead = self._match(boxes, self._hold)
        crops = []
        for n, (x, y, w, h) in enumerate(boxes.tolist()):
            self._count += n not in kept
            dx, dy = ahead[n].tolist()
            crops.append(kept.get(n) or Crop(self._count, (x + dx, y + dy, w, h)))
        self._crops, self._boxes = crops, np.array(boxes, np.float64)
        return crops

    @property
    def held(self) -> frozenset[int]:
        """Numbers of the crops that the next frame may be looked at in as well."""
        return frozenset(crop.number for crop in self._crops if self._hold is not None)

    def forget(self) -> None:
        """Hold nothing over: another scene begins."""
        self._crops = []

    def _match(self, boxes: Floats, hold: float) -> tuple[dict[int, Crop], Floats]:
        """Return which boxes (n, 4) keep which crop, and how many pixels (n, 2) ahead others get theirs."""
        held = pad_box([crop.box for crop in self._crops], aspect_ratio=self._aspect)
        new = pad_box(boxes, aspect_ratio=self._aspect)
        size = held[None, :, 2:]
        moved = new[:, None, :2] + new[:, None, 2:] / 2 - held[None, :, :2] - size / 2
        distance = np.abs(moved / size).max(-1)
        grown = np.abs(np.log(new[:, None, 2] / held[None, :, 2]))
        apart = np.minimum(distance + grown, _FAR)
        rows, columns = linear_sum_assignment(apart)
        # What is still inside of the crop may be left out by growth on one side and by a move on the other.
        reach = distance + (np.exp(grown) - 1) / 2
        kept, ahead = {}, np.zeros((len(boxes), 2))
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            if reach[row, column] <= hold:
                kept[row] = self._crops[column]
            elif apart[row, column] < _FAR:
                most = _MOST_LEAD * hold * new[row, 2:]
                before = self._boxes[column]
                step = boxes[row, :2] + boxes[row, 2:] / 2 - before[:2] - before[2:] / 2
                ahead[row] = np.clip(_LEAD * step, -most, most)
        return kept, ahead

    def state_dict(self) -> dict[str, object]:
        """Return plain values that :meth:`load_state_dict` takes back."""
        crops = [[crop.number, list(crop.box)] for crop in self._crops]
        return {"count": self._count, "crops": crops, "boxes": self._boxes.tolist()}

    def load_state_dict(self, state: dict) -> None:
        """Take up a state."""
        self._count = state["count"]
        self._crops = [Crop(number, tuple(box)) for number, box in state["crops"]]
        self._boxes = np.array(state["boxes"], np.float64).reshape(-1, 4)


_THREADS = 4


@dataclass(frozen=True)
class FramePoses:
    """The poses of one frame."""

    frame: int
    keypoints: Floats  # (n, K, 2) xy in image pixels
    keypoint_scores: Floats  # (n, K), the maxima of the heatmaps
    boxes: Floats  # (n, 4) xywh that were looked at
    new_scene: bool  # whether a cut lies before this frame
    held_error: Floats | None = None  # (n, K) pixels from keypoints in crops of their own, if looked at


class _Looked(NamedTuple):
    number: int
    boxes: Floats
    cut: bool
    crops: list[Crop]
    own: list[Crop]  # crops of their own, where held ones are checked


@dataclass
class PoseStream:
    """Turns frames into poses, one after another.

    Args:
        engine: the network.
        window: the frames that are summed.
        keeper: which crop each instance is looked at in.
        find_boxes: (frame, image, whether a scene begins) -> tight boxes (n, 4) xywh in pixels; called for
            each frame in order, after the poses of the frames before it were taken.
        chunk: frames that go through the network together; more than 1 only if ``find_boxes`` does not need
            the poses of the frame before.
        audit: every so many frames, from the first one on, poses are also found with crops of their own; 0
            for never.
        first: number of the first frame.
        scenes: look for cuts, across which nothing is summed.
        bounds: see :func:`posewarper.prediction.windows.frames_to_sum`.
    """

    engine: HeatmapEngine
    window: Window
    keeper: CropKeeper
    find_boxes: Callable[[int, Image, bool], Floats]
    chunk: int = 1
    audit: int = 0
    first: int = 0
    scenes: bool = True
    bounds: tuple[int, int] | None = None
    asked: int = field(default=0, init=False)  # heatmaps that sums were made of
    computed: int = field(default=0, init=False)  # heatmaps that were not there already
    looked_at: int = field(default=-1, init=False)  # the last frame whose crops were chosen

    def __post_init__(self) -> None:
        self._before, self._after = -min(self.window.offsets), max(self.window.offsets)
        self._images: dict[int, Image] = {}
        self._scene_of: dict[int, int] = {}
        self._heatmaps: dict[tuple[int, int], Tensor] = {}
        self._n_own = 0
        self._pool = ThreadPoolExecutor(_THREADS)

    @property
    def looks_back(self) -> int:
        """How many frames before the first one wanted have to be given, so that it is treated like others."""
        return self._before + CutFinder.LOOKS_BACK

    def run(self, frames: Iterable[tuple[int, Image]], start: int = 0) -> Iterator[FramePoses]:
        """Yield the poses of every frame from ``start`` on.

        The indices of ``frames`` (index, image) rise and begin :attr:`looks_back` frames before ``start``, or
        at the first frame. Frames that are neither wanted nor summed may be left out.
        """
        cuts, scene, waiting = CutFinder(), 0, []
        with self._pool:
            for index, image in frames:
                scene += self.scenes and cuts.begins_scene(image)
                self._images[index], self._scene_of[index] = image, scene
                if index >= start:
                    waiting.append(index)
                n_ready = sum(n + self._after <= index for n in waiting)
                if n_ready >= self.chunk:
                    yield from self._work(waiting[:n_ready])
                    waiting = waiting[n_ready:]
            # The end of the video: the last frames have fewer neighbours.
            for first in range(0, len(waiting), self.chunk):
                yield from self._work(waiting[first : first + self.chunk])

    def glance(self, image: Image, boxes: Floats) -> tuple[Floats, Floats]:
        """Return keypoints (n, K, 2) and maxima (n, K) of what is in boxes (n, 4) of one image alone."""
        where = InstanceCrops.around(self.engine.spec, boxes)
        return where.find(self.engine.heatmaps(where.cut(image)).cpu().numpy())

    def _work(self, numbers: list[int]) -> Iterator[FramePoses]:
        """Yield the poses of frames that follow each other, and let go of what is not needed any more."""
        looked = [self._look(number) for number in numbers]
        wanted = [(look.number, crop) for look in looked for crop in (*look.crops, *look.own)]
        keypoints, maxima = self._find(wanted)
        at = 0
        for look in looked:
            n, m = len(look.crops), len(look.own)
            found, seen = keypoints[at : at + n], maxima[at : at + n]
            error = np.linalg.norm(keypoints[at + n : at + n + m] - found, axis=-1) if m else None
            at += n + m
            yield FramePoses(look.number, found, seen, look.boxes, look.cut, error)
        oldest = numbers[-1] + 1 - self._before
        self._images = {n: image for n, image in self._images.items() if n >= oldest}
        self._scene_of = {n: scene for n, scene in self._scene_of.items() if n >= oldest - 1}
        held = self.keeper.held
        still = [key for key in self._heatmaps if key[0] >= oldest and key[1] in held]
        self._heatmaps = {key: self._heatmaps[key] for key in still}

    def _look(self, number: int) -> _Looked:
        cut = self._scene_of.get(number - 1, self._scene_of[number]) != self._scene_of[number]
        if cut:
            self.keeper.forget()
        boxes = self.find_boxes(number, self._images[number], cut)
        crops, own = self.keeper.place(boxes), []
        self.looked_at = number
        if self.audit > 0 and (number - self.first) % self.audit == 0:
            # Numbers of crops that may be held count up, those of others down.
            own = [Crop(-self._n_own - n, tuple(box)) for n, box in enumerate(boxes.tolist(), 1)]
            self._n_own += len(own)
        return _Looked(number, boxes, cut, crops, own)

    def _find(self, wanted: list[tuple[int, Crop]]) -> tuple[Floats, Floats]:
        """Return the keypoints (n, K, 2) in image pixels and the maxima (n, K) of n instances."""
        spec = self.engine.spec
        k = len(spec.skeleton)
        if not wanted:
            return np.zeros((0, k, 2)), np.zeros((0, k))
        windows = {}
        for number in {number for number, _ in wanted}:
            scene = self._scene_of[number]
            there = {n for n in self._images if self._scene_of[n] == scene}
            windows[number] = frames_to_sum(number, self.window, there.__contains__, bounds=self.bounds)
        self._compute([(near, crop) for number, crop in wanted for near in windows[number][0]])
        present = torch.stack([self._heatmaps[number, crop.number] for number, crop in wanted])
        if len(self.window.offsets) > 1:
            sources, targets, shares = [], [], []
            for n, (number, crop) in enumerate(wanted):
                numbers, weights = windows[number]
                sources += [self._heatmaps[near, crop.number] for near in numbers[1:]]
                targets += [n] * (len(numbers) - 1)
                shares += weights[1:].tolist()
            own = [float(windows[number][1][0]) for number, _ in wanted]
            stacked = torch.stack(sources) if sources else present[:0]
            present = self.engine.aggregate(present, own, stacked, targets, shares)
        where = InstanceCrops.around(spec, [crop.box for _, crop in wanted])
        return where.find(present.cpu().numpy())

    def _compute(self, asked: list[tuple[int, Crop]]) -> None:
        """Make sure that the heatmaps of these frames and crops are there."""
        places = {(number, crop.number): (number, crop) for number, crop in asked}
        missing = {key: place for key, place in places.items() if key not in self._heatmaps}
        self.asked += len(asked)
        self.computed += len(missing)
        if missing:
            cut = np.stack(list(self._pool.map(self._cut, missing.values())))
            self._heatmaps.update(zip(missing, self.engine.heatmaps(cut), strict=True))

    def _cut(self, place: tuple[int, Crop]) -> NDArray[np.uint8]:
        number, crop = place
        return InstanceCrops.around(self.engine.spec, [crop.box]).cut(self._images[number])[0]
