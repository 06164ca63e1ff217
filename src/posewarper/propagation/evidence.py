"""What is seen of a stretch of a track: motion between its crops, the network's peaks, and warped labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posewarper.geometry import CropTransform
from posewarper.heatmaps import crop_to_heatmap, crop_to_udp, decode, decode_peaks, encode, heatmap_to_crop
from posewarper.model.backbone import STRIDE
from posewarper.model.heatmap_runner import HeatmapEngine
from posewarper.model.network import ModelSpec
from posewarper.motion.interpolation import interpolate
from posewarper.propagation.trajectory import Sighting, Steps
from posewarper.structures import Floats, Ints, is_there
from posewarper.video.track_crops import TrackCrops

_WARPED_PEAKS = 2
# Of what peaks are off at labels this share is taken away from those between them. A peak that is further off
# than a share of the size belongs to something else.
_BIAS, _MOST_BIAS = 0.7, 0.08


@dataclass(frozen=True)
class Seen:
    """One peak of each heatmap: points (t, K, 2) xy in image pixels, and their heights, scores (t, K)."""

    points: Floats
    scores: Floats

    def without_bias(self, labels: Floats, size: Floats) -> Seen:
        """Return the peaks without most of what they are off at labels (t, K, 2), NaN where there are none.

        A network is off in the same way for many frames in a row: this is interpolated between labels.
        ``size`` (t,) is that of the subject in pixels.
        """
        off, rows = self.points - labels, np.arange(len(labels))
        with np.errstate(invalid="ignore"):
            of_label = np.linalg.norm(off, axis=-1) < _MOST_BIAS * size[:, None]
        share = np.where(of_label[..., None], off, np.nan) / size[:, None, None]
        usual = np.nan_to_num(interpolate(rows, share, rows)) * size[:, None, None]
        return Seen(self.points - _BIAS * usual, self.scores)


@dataclass(frozen=True)
class Peaks:
    """Several peaks of each heatmap, the higher ones first; NaN where there are fewer.

    Points are (t, K, n, 2) xy in image pixels, heights (t, K, n).
    """

    points: Floats
    heights: Floats

    def nearest(self, path: Floats) -> Seen:
        """Return of each keypoint's peaks the one that is nearest to its path (t, K, 2)."""
        away = np.linalg.norm(self.points - path[:, :, None], axis=-1)
        best = np.where(np.isfinite(away), away, np.inf).argmin(-1)[..., None]
        points = np.take_along_axis(self.points, best[..., None], 2)[:, :, 0]
        return Seen(points, np.nan_to_num(np.take_along_axis(self.heights, best, 2)[..., 0]))


@dataclass(frozen=True)
class Warped:
    """Labels warped to a stretch from both sides.

    Args:
        blended: peaks of the sum of all, in which the nearer label weighs more.
        single: the peaks of each side alone.
    """

    blended: Seen
    single: tuple[Peaks, ...]


@dataclass(frozen=True)
class Evidence:
    """All that is known of a stretch of consecutive frames.

    Args:
        anchors: (t, K, 2) where keypoints are for certain, NaN elsewhere.
        rough: (t, K, 2) places to fall back on, NaN where there are none.
        seen: peaks of the pose network, None without one.
        warped: labels warped here, None without a warper.
        carried: labels carried here by optical flow, for each side.
        interpolated: lines between labels.
        steps: reads the motion.
        size: (t,) of the subject in pixels.
        origin: (t, 2) a place that moves with the subject.
        trust_in_seen: (K,) the weight of what the pose network shows; 1 where it is as exact as usual.
        mirrored: what a peak of the mirror keypoint counts; 1 where the network cannot tell left from right.
        trust_in_flow: (K,) the weight of optical flow; 1 where it is as good as in most clips.
    """

    anchors: Floats
    rough: Floats
    seen: Peaks | None
    warped: Warped | None
    carried: Sequence[Sighting]
    interpolated: Sighting
    steps: Steps
    size: Floats
    origin: Floats
    trust_in_seen: Floats
    trust_in_flow: Floats
    mirrored: float = 1.0


def as_seen(crops: TrackCrops, spec: ModelSpec) -> TrackCrops:
    """Return crops whose maps suit how a model's heatmaps lie in them.

    The functions below take a heatmap's pixel for STRIDE of the crop's, edges on edges. Where a model has
    corner pixels on corner pixels (``udp``), the maps take up the difference, about a sixtieth.
    """
    if spec.targets != "udp":
        return crops
    shares = STRIDE * crop_to_udp(np.ones(2), spec.heatmap_size, spec.crop_size)
    moved = []
    for each in crops.transforms:
        matrix = each.matrix * shares[:, None]
        matrix[:, 2] += (STRIDE - 1) / 2
        moved.append(CropTransform(matrix, each.size))
    return replace(crops, transforms=tuple(moved))


def to_image(points: Floats, transforms: Sequence[CropTransform]) -> Floats:
    """Carry points (t, K, 2) from heatmap pixels into the image."""
    crops = heatmap_to_crop(points, STRIDE)
    return np.stack([t.to_image(p) for t, p in zip(transforms, crops, strict=True)])


def find_peaks(heatmaps: Tensor, transforms: Sequence[CropTransform]) -> Seen:
    """Decode the highest peak of each of the heatmaps (t, K, H, W) into image coordinates."""
    points, scores = decode(heatmaps.cpu().numpy())
    return Seen(to_image(points, transforms), scores)


def find_all_peaks(heatmaps: Tensor, transforms: Sequence[CropTransform], n: int) -> Peaks:
    """Decode up to ``n`` peaks of each of the heatmaps (t, K, H, W) into image coordinates."""
    points, heights = decode_peaks(heatmaps.cpu().numpy(), n)
    return Peaks(to_image(points, transforms), heights)


@dataclass(frozen=True)
class LabelledCrop:
    """A labelled frame as a source of warps: its row, heatmaps (K, H, W), and (K,) where it has a label."""

    row: int
    values: Tensor
    has: NDArray[np.bool_]


def labelled_crop(
    row: int,
    keypoints: Floats,
    visibility: NDArray[np.uint8],
    transform: CropTransform,
    network: HeatmapEngine,
) -> LabelledCrop:
    """Draw the heatmaps of a label (K, 2) in its crop."""
    points = crop_to_heatmap(transform.to_crop(keypoints), STRIDE)
    points = np.where((visibility > 0)[:, None], points, np.nan)
    values = torch.from_numpy(encode(points, network.spec.heatmap_size, network.spec.sigma))
    return LabelledCrop(row, values.to(network.device), is_there(points))


def warp_label(
    network: HeatmapEngine, label: LabelledCrop, heatmaps: Tensor, rows: NDArray[np.int64]
) -> Tensor:
    """Warp one label's heatmaps to some rows of its stretch.

    The network sees ``heatmaps`` (t, K, H, W) in the whole stretch; the result is (len(rows), K, H, W).
    """
    target = heatmaps[torch.from_numpy(rows)]
    if not len(target):
        return target
    values, source = (maps.expand_as(target) for maps in (label.values, heatmaps[label.row]))
    return network.warp(values, source=source, target=target)


def warp_from_both(
    network: HeatmapEngine, labels: Sequence[LabelledCrop], heatmaps: Tensor, crops: TrackCrops
) -> Warped:
    """Warp labels of a stretch to its frames, and add those from both sides: the nearer weighs more.

    On each side the nearest label that has the keypoint counts; where there is none, nothing is known. The
    network sees ``heatmaps`` (t, K, H, W) in the ``crops`` of the stretch.
    """
    t, k = heatmaps.shape[:2]
    rows = np.arange(t)
    sides = _nearest_labels(labels, t, k)
    summed = torch.zeros_like(heatmaps)
    share = np.zeros((len(sides), t, k))
    for side, nearest in zip(share, sides, strict=True):
        source = np.array([label.row for label in labels])[np.maximum(nearest, 0)]
        distance = np.abs(crops.frames[:, None] - crops.frames[source]) + 0.5
        side[nearest >= 0] = (1 / distance)[nearest >= 0]
    total = share.sum(0)
    share = share / np.where(total > 0, total, 1.0)
    single = [
        Peaks(np.full((t, k, _WARPED_PEAKS, 2), np.nan), np.full((t, k, _WARPED_PEAKS), np.nan))
        for _ in sides
    ]
    for n, label in enumerate(labels):
        wanted = [nearest == n for nearest in sides]
        own = rows[np.any(wanted, axis=(0, 2))]
        if not len(own):
            continue
        weight = np.where(wanted, share, 0.0).sum(0)[own].astype(np.float32)
        warped = warp_label(network, label, heatmaps, own)
        summed[torch.from_numpy(own)] += warped * torch.from_numpy(weight).to(summed.device)[..., None, None]
        # Only what has a label is decoded; the other keypoints stay NaN.
        known = find_all_peaks(
            warped[:, torch.from_numpy(label.has)], [crops.transforms[row] for row in own], _WARPED_PEAKS
        )
        found = np.full((t, k, _WARPED_PEAKS, 2), np.nan), np.full((t, k, _WARPED_PEAKS), np.nan)
        for whole, part in zip(found, (known.points, known.heights), strict=True):
            whole[np.ix_(own, label.has)] = part
        for peaks, where in zip(single, wanted, strict=True):
            peaks.points[where], peaks.heights[where] = found[0][where], found[1][where]
    seen = find_peaks(summed, crops.transforms)
    there = total > 0
    blended = Seen(np.where(there[..., None], seen.points, np.nan), np.where(there, seen.scores, 0.0))
    return Warped(blended, tuple(single))


def _nearest_labels(labels: Sequence[LabelledCrop], t: int, k: int) -> list[Ints]:
    """Return for each side (t, k): which label of a keypoint is the nearest to a row, -1 where there is none.

    The first side is that of the rows before, and the labelled row itself; on the last row it is the second.
    Sides without any label are left out.
    """
    sides = np.full((2, t, k), -1)
    for n, label in enumerate(labels):  # by rising row
        sides[0, label.row if label.row < t - 1 else t :, label.has] = n
    for n, label in reversed(list(enumerate(labels))):
        sides[1, : label.row if label.row < t - 1 else t, label.has] = n
    return [side for side in sides if (side >= 0).any()]
