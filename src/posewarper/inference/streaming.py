"""Poses of a video as its frames come: each is decoded once, and seen by the network as seldom as can be.

A frame's poses are there as soon as the window's later frames are; with a causal window that is at once. What
is kept are the frames of one window and their heatmaps, however long the video is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posewarper.crops import Image, crop_image, smooth_crop
from posewarper.geometry import paper_center_scale, paper_crop_transform
from posewarper.inference.aggregation import Window
from posewarper.inference.cuts import CutFinder
from posewarper.inference.heatmap_engine import HeatmapEngine
from posewarper.inference.heatmap_points import find_points
from posewarper.inference.held_crops import Crop, CropKeeper
from posewarper.structures import Floats

_THREADS = 4


class FrameBoxes(NamedTuple):
    """What is looked at in a frame: tight boxes (n, 4) xywh in pixels, and their scores (n,)."""

    boxes: Floats
    scores: Floats


@dataclass(frozen=True)
class FramePoses:
    """The poses of one frame.

    Args:
        frame: its index.
        keypoints: (n, K, 2) xy in image pixels.
        keypoint_scores: (n, K), the maxima of the heatmaps.
        boxes: (n, 4) xywh that were looked at.
        scores: (n,) of the boxes.
        new_scene: whether a cut lies before this frame.
        held_error: (n, K) how far keypoints lie from those of crops of their own, in pixels; None where that
            was not looked at.
    """

    frame: int
    keypoints: Floats
    keypoint_scores: Floats
    boxes: Floats
    scores: Floats
    new_scene: bool
    held_error: Floats | None = None


@dataclass
class StreamCounts:
    """How often heatmaps were asked for, and how often they had to be computed."""

    asked: int = 0
    computed: int = 0

    @property
    def reuse(self) -> float:
        """Share of the heatmaps that were there already; NaN before the first."""
        return 1 - self.computed / self.asked if self.asked else float("nan")


@dataclass
class PoseStream:
    """Turns frames into poses, one after another.

    Args:
        engine: the network.
        window: the frames that are summed.
        keeper: which crop each instance is looked at in.
        find_boxes: (frame, image, whether a scene begins) -> boxes; called for each frame in order, after the
            poses of the frames before it were taken.
        chunk: frames that go through the network together; more than 1 only if ``find_boxes`` does not need
            the poses of the frame before.
        audit: every so many frames poses are also found with crops of their own; 0 for never.
        counts: what was done.
    """

    engine: HeatmapEngine
    window: Window
    keeper: CropKeeper
    find_boxes: Callable[[int, Image, bool], FrameBoxes]
    chunk: int = 1
    audit: int = 0
    counts: StreamCounts = field(default_factory=StreamCounts)

    def __post_init__(self) -> None:
        self._before, self._after = -min(self.window.offsets), max(self.window.offsets)
        self._images: dict[int, Image] = {}
        self._scenes: dict[int, int] = {}
        self._heatmaps: dict[tuple[int, int], Tensor] = {}
        self._n_own = 0
        self.looked_at = -1  # the last frame whose crops were chosen
        self._pool = ThreadPoolExecutor(_THREADS)

    @property
    def looks_back(self) -> int:
        """How many frames before the first one wanted have to be given, so that it is treated like others."""
        return self._before + CutFinder.LOOKS_BACK

    def run(self, frames: Iterable[tuple[int, Image]], start: int = 0) -> Iterator[FramePoses]:
        """Yield the poses of every frame from ``start`` on.

        Args:
            frames: (index, image), indices rising by 1; they begin :attr:`looks_back` frames before
                ``start``, or at 0.
            start: the first frame whose poses are wanted.
        """
        cuts, scene, waiting = CutFinder(), 0, []
        with self._pool:
            for index, image in frames:
                scene += cuts.begins_scene(image)
                self._images[index], self._scenes[index] = image, scene
                ready = index - self._after
                if ready >= start:
                    waiting.append(ready)
                if len(waiting) >= self.chunk:
                    yield from self._work(waiting)
                    waiting = []
            last = max(self._images, default=-1)
            # The end of the video: the last frames have fewer neighbours.
            waiting += [n for n in range(max(last - self._after + 1, start), last + 1) if n in self._images]
            for first in range(0, len(waiting), self.chunk):
                yield from self._work(waiting[first : first + self.chunk])

    def glance(self, image: Image, box: Floats) -> tuple[Floats, Floats]:
        """Return keypoints (K, 2) and maxima (K,) of what is in one box (4,) of one image, by it alone."""
        x, y, w, h = (float(value) for value in box)
        crop = Crop(0, (x, y, w, h))
        points, maxima = self._decode(self.engine.heatmaps(self._cut(image, crop)[None]), [crop])
        return points[0], maxima[0]

    def _work(self, numbers: list[int]) -> Iterator[FramePoses]:
        """Yield the poses of frames that follow each other, and let go of what is not needed any more."""
        if not numbers:
            return
        looked = [self._look(number) for number in numbers]
        yield from self._poses(looked)
        oldest = numbers[-1] + 1 - self._before
        self._images = {n: image for n, image in self._images.items() if n >= oldest}
        self._scenes = {n: scene for n, scene in self._scenes.items() if n >= oldest - 1}
        held = self.keeper.held
        self._heatmaps = {
            key: maps for key, maps in self._heatmaps.items() if key[0] >= oldest and key[1] in held
        }

    def _look(self, number: int) -> _Looked:
        cut = self._scenes.get(number - 1, self._scenes[number]) != self._scenes[number]
        if cut:
            self.keeper.forget()
        boxes, scores = self.find_boxes(number, self._images[number], cut)
        crops = self.keeper.place(boxes)
        self.looked_at = number
        is_checked = self.audit > 0 and number % self.audit == 0 and len(crops) > 0
        own = [self._own_crop(box) for box in boxes.tolist()] if is_checked else []
        return _Looked(number, boxes, scores, cut, crops, own)

    def _own_crop(self, box: list[float]) -> Crop:
        self._n_own += 1
        return Crop(-self._n_own, (box[0], box[1], box[2], box[3]))  # those that may be held count up

    def _poses(self, looked: list[_Looked]) -> Iterator[FramePoses]:
        wanted = [(look.number, crop) for look in looked for crop in (*look.crops, *look.own)]
        keypoints, maxima = self._find(wanted)
        at = 0
        for look in looked:
            n, m = len(look.crops), len(look.own)
            found, seen = keypoints[at : at + n], maxima[at : at + n]
            error = np.linalg.norm(keypoints[at + n : at + n + m] - found, axis=-1) if m else None
            at += n + m
            yield FramePoses(look.number, found, seen, look.boxes, look.scores, look.cut, error)

    def _find(self, wanted: list[tuple[int, Crop]]) -> tuple[Floats, Floats]:
        """Return the keypoints (n, K, 2) in image pixels and the maxima (n, K) of n instances."""
        spec = self.engine.spec
        k = len(spec.skeleton)
        if not wanted:
            return np.zeros((0, k, 2)), np.zeros((0, k))
        windows = [self._neighbours(number) for number, _ in wanted]
        self._compute([(n, crop) for (_, crop), (ns, _) in zip(wanted, windows, strict=True) for n in ns])
        present = torch.stack([self._heatmaps[number, crop.number] for number, crop in wanted])
        if len(self.window.offsets) > 1:
            present = self._sum(present, wanted, windows)
        return self._decode(present, [crop for _, crop in wanted])

    def _decode(self, heatmaps: Tensor, crops: list[Crop]) -> tuple[Floats, Floats]:
        spec = self.engine.spec
        aspect = spec.crop_size[1] / spec.crop_size[0]
        centers, scales = paper_center_scale([crop.box for crop in crops], aspect)
        return find_points(spec, heatmaps.cpu().numpy(), centers, scales)

    def _sum(
        self, present: Tensor, wanted: list[tuple[int, Crop]], windows: list[tuple[list[int], Floats]]
    ) -> Tensor:
        sources, targets, shares = [], [], []
        for n, ((_, crop), (numbers, weights)) in enumerate(zip(wanted, windows, strict=True)):
            sources += [self._heatmaps[number, crop.number] for number in numbers[1:]]
            targets += [n] * (len(numbers) - 1)
            shares += weights[1:].tolist()
        own = [float(weights[0]) for _, weights in windows]
        stacked = torch.stack(sources) if sources else present[:0]
        return self.engine.aggregate(present, own, stacked, targets, shares)

    def _neighbours(self, number: int) -> tuple[list[int], Floats]:
        """Return the frames that are summed, the present one first, and their weights.

        Frames beyond a cut or an end of the video are left out, and the weights of the others grow.
        """
        weights = np.array(self.window.weights)
        scene = self._scenes[number]
        there = np.array(
            [
                self._scenes.get(number + o) == scene and number + o in self._images
                for o in self.window.offsets
            ]
        )
        numbers = [number + o for o, has in zip(self.window.offsets, there, strict=True) if has]
        return numbers, weights[there] * (weights.sum() / weights[there].sum())

    def _compute(self, asked: list[tuple[int, Crop]]) -> None:
        """Make sure that the heatmaps of these frames and crops are there."""
        missing = {
            (number, crop.number): (number, crop)
            for number, crop in asked
            if (number, crop.number) not in self._heatmaps
        }
        self.counts.asked += len(asked)
        self.counts.computed += len(missing)
        if missing:
            places = ((self._images[number], crop) for number, crop in missing.values())
            cut = np.stack(list(self._pool.map(lambda place: self._cut(*place), places)))
            self._heatmaps.update(zip(missing, self.engine.heatmaps(cut), strict=True))

    def _cut(self, image: Image, crop: Crop) -> NDArray[np.uint8]:
        spec = self.engine.spec
        height, width = spec.crop_size
        center, scale = paper_center_scale(crop.box, width / height)
        transform = paper_crop_transform(center, scale, 0.0, (width, height))
        # The paper picks single pixels where a crop is smaller than its box; models of our own average them.
        cut = crop_image if spec.targets == "paper" else smooth_crop
        return cut(image, transform)


class _Looked(NamedTuple):
    number: int
    boxes: Floats
    scores: Floats
    cut: bool
    crops: list[Crop]
    own: list[Crop]
