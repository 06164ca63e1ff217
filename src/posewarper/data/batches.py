"""Batches for the two stages of training: labelled crops for the pose network, pairs for the warper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posewarper.config import FitConfig
from posewarper.data.augmentation import Sample, cut_sample, draw, half_body_box, jitter
from posewarper.frames import Region
from posewarper.heatmaps import crop_to_heatmap, encode
from posewarper.model.backbone import STRIDE
from posewarper.skeletons import Skeleton
from posewarper.structures import Floats

# How pairs are drawn: the paper's (a labelled target, a nearby unlabelled source), two labelled frames, one
# labelled frame under two different framings (made-up motion).
_NEARBY, _LABELLED = 0.25, 0.4
# Geometric strength of the difference between the framings of a pair, as a share of the settings.
_JITTER, _MADE_UP = 0.25, 0.7


@dataclass(frozen=True)
class PoseBatch:
    """Crops with targets.

    Args:
        images: (B, h, w, 3) uint8 RGB.
        targets: (B, K, H, W) float32, zero where there is no label.
        weights: (B, K) float32, 1 where there is a label, else 0.
    """

    images: NDArray[np.uint8]
    targets: NDArray[np.float32]
    weights: NDArray[np.float32]


@dataclass(frozen=True)
class PairBatch:
    """Pairs of crops; heatmaps of the source are to be warped to the target.

    Args:
        sources: (B, h, w, 3) uint8 RGB.
        targets: (B, h, w, 3) uint8 RGB.
        labels: (B, K, H, W) float32, the source's labelled heatmaps.
        moves_labels: (B,) True where those labels are what is warped; elsewhere the source's predictions are.
        wanted: (B, K, H, W) float32, the target's labelled heatmaps.
        weights: (B, K) float32.
    """

    sources: NDArray[np.uint8]
    targets: NDArray[np.uint8]
    labels: NDArray[np.float32]
    moves_labels: NDArray[np.bool_]
    wanted: NDArray[np.float32]
    weights: NDArray[np.float32]


def label_heatmaps(
    keypoints: Floats, visibility: NDArray[np.uint8], crop_size: tuple[int, int], sigma: float
):
    """Return the heatmaps (..., K, H, W) of labels given in crop pixels (..., K, 2); zero without a label."""
    there = (visibility > 0)[..., None]
    size = crop_size[0] // STRIDE, crop_size[1] // STRIDE
    return encode(crop_to_heatmap(np.where(there, keypoints, np.nan), STRIDE), size, sigma)


def _targets(
    samples: Sequence[Sample], crop_size: tuple[int, int], sigma: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    keypoints = np.stack([s.keypoints for s in samples])
    visibility = np.stack([s.visibility for s in samples])
    return label_heatmaps(keypoints, visibility, crop_size, sigma), (visibility > 0).astype(np.float32)


def pose_batch(
    regions: Sequence[Region],
    skeleton: Skeleton,
    config: FitConfig,
    crop_size: tuple[int, int],
    rng: np.random.Generator,
) -> PoseBatch:
    """Draw a batch of augmented labelled crops; every region comes about equally often."""
    order = np.concatenate(
        [rng.permutation(len(regions)) for _ in range(1 + config.pose_batch // len(regions))]
    )
    samples = []
    for index in order[: config.pose_batch]:
        region = regions[index]
        choice = draw(config, rng)
        half = bool(skeleton.halves[1]) and rng.random() < config.half_body
        box = half_body_box(region, skeleton, rng) if half else None
        samples.append(cut_sample(region, choice, skeleton, crop_size, box))
    targets, weights = _targets(samples, crop_size, config.sigma)
    return PoseBatch(np.stack([s.image for s in samples]), targets, weights)


def pair_batch(
    labelled: Sequence[Region],
    nearby: Mapping[int, Sequence[Region]],
    skeleton: Skeleton,
    config: FitConfig,
    crop_size: tuple[int, int],
    rng: np.random.Generator,
) -> PairBatch:
    """Draw a batch of pairs.

    Args:
        labelled: regions with labels, those of one track in order of time.
        nearby: index into ``labelled`` -> unlabelled regions of the same track close in time.
        skeleton: for the mirror image.
        config: the settings.
        crop_size: (height, width) of the crops.
        rng: the source of chance.
    """
    rows = [_draw_pair(labelled, nearby, rng) for _ in range(config.warp_batch)]
    sources, targets, moves = [], [], []
    for source, target, strength in rows:
        base = draw(config, rng, 0.7)
        sources.append(cut_sample(source, base, skeleton, crop_size))
        targets.append(cut_sample(target, jitter(base, config, rng, strength), skeleton, crop_size))
        moves.append(bool((source.visibility > 0).any()))
    labels, have = _targets(sources, crop_size, config.sigma)
    wanted, weights = _targets(targets, crop_size, config.sigma)
    moves_labels = np.array(moves)
    # A label that the source lacks cannot be moved; what is predicted there can.
    weights = np.where(moves_labels[:, None], weights * have, weights)
    return PairBatch(
        np.stack([s.image for s in sources]),
        np.stack([s.image for s in targets]),
        labels,
        moves_labels,
        wanted,
        weights.astype(np.float32),
    )


def _draw_pair(
    labelled: Sequence[Region], nearby: Mapping[int, Sequence[Region]], rng: np.random.Generator
) -> tuple[Region, Region, float]:
    index = int(rng.integers(len(labelled)))
    target, chance = labelled[index], rng.random()
    if chance < _NEARBY and nearby.get(index):
        choices = nearby[index]
        return choices[int(rng.integers(len(choices)))], target, _JITTER
    if chance < _NEARBY + _LABELLED:
        others = [r for n, r in enumerate(labelled) if r.track == target.track and 0 < abs(n - index) <= 2]
        if others:
            return others[int(rng.integers(len(others)))], target, _JITTER
    return target, target, _MADE_UP
