"""What is kept to solve again at once, and the solving: flow, crops, and what the network has seen.

The stretches that a label touches are solved with the very solver of :mod:`posewarper.propagation`; only what
a new label would change a little and all over is left as it was (crops, and how far the network is trusted),
and the trained warp is left out, which takes longer than all else. So the poses are provisional: a run makes
them final.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posewarper.model.checkpoint import load_model
from posewarper.model.heatmap_runner import HeatmapEngine
from posewarper.model.runtime import resolve_device
from posewarper.propagation.clip import Clip, prepare_again
from posewarper.propagation.methods import propagate_again
from posewarper.propagation.sides import learn_trust
from posewarper.propagation.trust import Trust, measure_again
from posewarper.structures import Floats, Ints, Labels, Track
from posewarper.video.track_crops import TrackCrops

# A crop may lie so far from where it would be now, and be so much larger or smaller, as shares of its size.
_CROP_MOVES, _CROP_GROWS = 0.1, 0.12
# Crops at which the network looks ahead at a time, crops in memory, and bytes of heatmaps.
_AT_A_TIME, _CROPS, _HEATMAPS = 8, 1500, 768 * 2**20


@dataclass(frozen=True)
class Solved:
    """What was solved anew of a track: poses on some frames, and the frames on which it is no more."""

    track: int
    poses: Track
    gone: Ints
    seconds: float


class _Heatmaps(HeatmapEngine):
    """An engine that remembers the heatmaps of crops that it has seen."""

    def __init__(self, model: Any) -> None:
        super().__init__(model, flip=True)
        # Without the warp; see above.
        self.spec = replace(self.spec, trained={"pose": self.spec.trained.get("pose", 0)})
        self._seen: OrderedDict[bytes, Tensor] = OrderedDict()
        self._bytes = 0

    def heatmaps(self, crops: NDArray[np.uint8]) -> Tensor:
        """Return the heatmaps (n, K, H / 4, W / 4) of crops (n, H, W, 3) uint8 RGB."""
        keys = [hashlib.blake2b(crop.tobytes(), digest_size=16).digest() for crop in crops]
        new = [n for n, key in enumerate(keys) if key not in self._seen]
        if new:
            for n, found in zip(new, super().heatmaps(crops[new]), strict=True):
                self._seen[keys[n]] = found.clone()
                self._bytes += found.nbytes
        together = torch.stack([self._seen[key] for key in keys])
        for key in keys:
            self._seen.move_to_end(key)
        while self._bytes > _HEATMAPS and self._seen:
            self._bytes -= self._seen.popitem(last=False)[1].nbytes
        return together


@dataclass(frozen=True)
class _SteadyClip(Clip):
    """A clip whose crops stay where they were unless a subject has left them, so that they are cut once."""

    places: dict[tuple[int, int], Floats] = field(default_factory=dict)
    crops: OrderedDict[tuple[int, int], tuple[bytes, NDArray[np.uint8], Any]] = field(
        default_factory=OrderedDict
    )

    def boxes(self, track_id: int, frames: Ints, aspect_ratio: float = 1.0) -> Floats:
        """Return the padded boxes (t, 4) of a track's crops on some of its frames."""
        wanted = super().boxes(track_id, frames, aspect_ratio)
        for n, frame in enumerate(frames.tolist()):
            old = self.places.setdefault((track_id, frame), wanted[n])
            size = old[2:].max()
            moved = np.abs(old[:2] + old[2:] / 2 - wanted[n, :2] - wanted[n, 2:] / 2).max() / size
            grown = np.abs(np.log(wanted[n, 2:] / old[2:])).max()
            if moved <= _CROP_MOVES and grown <= _CROP_GROWS:
                wanted[n] = old
            else:
                self.places[track_id, frame] = wanted[n].copy()
        return wanted

    def cut(self, track_id: int, frames: Ints, boxes: Floats, size: tuple[int, int]) -> TrackCrops:
        """Return a track's crops on some of its frames, cut once."""
        keys = [box.tobytes() for box in boxes]
        at = [(track_id, frame) for frame in frames.tolist()]
        new = [n for n, key in enumerate(keys) if self.crops.get(at[n], (b"",))[0] != key]
        if new:
            cut = super().cut(track_id, frames[new], boxes[new], size)
            for n, image, transform in zip(new, cut.images, cut.transforms, strict=True):
                self.crops[at[n]] = keys[n], image, transform
        own = [self.crops[place] for place in at]
        while len(self.crops) > max(_CROPS, len(at)):
            self.crops.popitem(last=False)
        return TrackCrops(frames, np.stack([each[1] for each in own]), tuple(each[2] for each in own))


class Kept:
    """What is kept to solve again: the clip with its flow, the network, and how far both are trusted.

    Args:
        clip: with its flow; the video must have been opened in the thread that uses this.
        model: a trained network's file, None to do without.
        extend: as the run had it.
        device: where the network runs.
    """

    def __init__(
        self,
        clip: Clip,
        model: str | os.PathLike[str] | None,
        *,
        extend: bool = False,
        device: str = "auto",
    ) -> None:
        self.clip = _SteadyClip(**vars(clip))
        self.network = (
            None if model is None else _Heatmaps(load_model(model).to(resolve_device(device)).eval())
        )
        self.trust: Trust = learn_trust(self.clip, self.network)
        self._extend = extend

    def solve(self, labels: Labels, touched: Mapping[int, Ints], poses: Mapping[int, Track]) -> list[Solved]:
        """Take labels that have changed, and solve anew what they touch.

        Args:
            labels: what is labelled now.
            touched: track id -> rising frames on which labels have changed.
            poses: track id -> the poses so far.
        """
        old = self.clip
        store = next(iter(old.chains.values())).flow
        assert store is not None
        clip = prepare_again(old.video, labels, store.store, old, extend=self._extend)
        self.clip = _SteadyClip(**vars(clip), places=old.places, crops=old.crops)
        self.trust = measure_again(self.trust, clip)
        solved = []
        for i, track in labels.tracks.items():
            begun = time.perf_counter()
            frames, before = self.clip.frames[i], old.frames.get(i, np.zeros(0, np.int64))
            new = np.setdiff1d(frames, before)
            changed = np.union1d(touched.get(i, np.zeros(0, np.int64)), new).astype(np.int64)
            gone = np.setdiff1d(before, frames)
            start = poses.get(i, Track(np.zeros(0, np.int64), np.zeros((0, *track.keypoints.shape[1:]))))
            if not len(changed) and not len(gone):
                continue
            found = start.at([])
            if len(changed) and len(frames):
                found = propagate_again(self.clip, i, changed, self.network, self.trust, start)
            solved.append(Solved(i, found, gone, time.perf_counter() - begun))
        return solved

    def close(self) -> None:
        """Close the file of the flow; nothing can be solved any more."""
        for chain in self.clip.chains.values():
            if chain.flow is not None:
                chain.flow.store.close()

    def look_ahead(self) -> Iterator[None]:
        """Let the network look at all frames of all tracks, a few at a time, so that it need not later."""
        if self.network is None:
            return
        size = self.network.spec.crop_size
        pieces = [
            (i, few)
            for i, frames in self.clip.frames.items()
            for few in np.array_split(frames, max(1, -(-len(frames) // _AT_A_TIME)))
            if len(few)
        ]
        for i, few in islice(pieces, _CROPS // _AT_A_TIME):
            boxes = self.clip.boxes(i, few, size[1] / size[0])
            self.network.heatmaps(self.clip.cut(i, few, boxes, size).images)
            yield
