"""The two stages of fitting a model to a clip: the pose network on labelled frames, the warper on pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from posewarper.heatmaps import crop_to_heatmap, encode
from posewarper.model.backbone import STRIDE
from posewarper.model.heatmap_runner import to_input
from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.model.pretrained import BackboneWeights
from posewarper.model.runtime import precision
from posewarper.options import FitConfig, NetworkConfig
from posewarper.propagation.clip import Clip
from posewarper.skeletons import Skeleton
from posewarper.structures import Floats, Ints, Labels, Poses, Progress, silent
from posewarper.training.random_crops import Sample, cut_sample, draw, half_body_box, jitter
from posewarper.training.steps import heatmap_loss
from posewarper.version import __version__
from posewarper.video.track_crops import Region, RegionRequest, read_regions

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


# A region is this much larger than its crop, so that it holds rotated, shifted and zoomed crops.
_MARGIN = 1.5
# Unlabelled neighbours kept for each label, and regions kept in all (each about 0.25 MB).
_NEIGHBOURS, _REGIONS = 4, 600


def _labelled_requests(clip: Clip, aspect_ratio: float) -> list[RegionRequest]:
    requests = []
    for i, track in clip.labels.tracks.items():
        rows = np.flatnonzero(np.isin(track.frames, clip.frames[i]) & (track.visibility > 0).any(1))
        boxes = clip.boxes(i, track.frames[rows], aspect_ratio)
        requests += [
            RegionRequest(int(track.frames[n]), i, box, track.keypoints[n], track.visibility[n])
            for n, box in zip(rows, boxes, strict=True)
        ]
    return requests


def _neighbour_frames(clip: Clip, track_id: int, frame: int, rng: np.random.Generator) -> Ints:
    """Draw unlabelled frames of a track up to half a gap away from one of its labels."""
    labelled = clip.labels.labelled_frames
    reach = int(np.median(np.diff(labelled)) // 2) if len(labelled) > 1 else 5
    frames = np.setdiff1d(clip.frames[track_id], clip.labels.tracks[track_id].frames)
    near = frames[np.abs(frames - frame) <= max(2, reach)]
    return np.sort(rng.permutation(near)[:_NEIGHBOURS])


def read_training_regions(
    clip: Clip, crop_size: tuple[int, int], seed: int
) -> tuple[list[Region], dict[int, list[Region]]]:
    """Read the regions of all labels, and of a few unlabelled frames near each."""
    aspect_ratio = crop_size[1] / crop_size[0]
    rng = np.random.default_rng([seed, 0])
    labelled = _labelled_requests(clip, aspect_ratio)
    if len(labelled) > _REGIONS:
        kept = np.sort(rng.permutation(len(labelled))[:_REGIONS])
        labelled = [labelled[n] for n in kept]
    nearby: list[tuple[int, RegionRequest]] = []
    nothing = np.full((len(clip.labels.skeleton), 2), np.nan)
    hidden = np.zeros(len(clip.labels.skeleton), np.uint8)
    for n in rng.permutation(len(labelled))[: max(0, (_REGIONS - len(labelled)) // _NEIGHBOURS)]:
        own = labelled[n]
        frames = _neighbour_frames(clip, own.track, own.frame, rng)
        boxes = clip.boxes(own.track, frames, aspect_ratio)
        nearby += [
            (int(n), RegionRequest(int(f), own.track, box, nothing, hidden))
            for f, box in zip(frames, boxes, strict=True)
        ]
    # One pass over the video, in order of time; the reader hands each frame's requests back in their order.
    rows = [(r.frame, n, -1, r) for n, r in enumerate(labelled)] + [(r.frame, n, 0, r) for n, r in nearby]
    rows.sort(key=lambda row: row[0])
    read = read_regions(clip.video, [row[3] for row in rows], crop_size, _MARGIN)
    regions: list[Region | None] = [None] * len(labelled)
    around: dict[int, list[Region]] = {}
    for (_, n, kind, _), region in zip(rows, read, strict=True):
        if kind < 0:
            regions[n] = region
        else:
            around.setdefault(n, []).append(region)
    return [r for r in regions if r is not None], around


def read_propagated_regions(clip: Clip, poses: Poses, crop_size: tuple[int, int], seed: int) -> list[Region]:
    """Read the regions of propagated poses, on unlabelled frames; at most 600, drawn at random."""
    aspect_ratio = crop_size[1] / crop_size[0]
    requests = []
    for i, track in poses.tracks.items():
        rows = np.flatnonzero(
            ~np.isin(track.frames, clip.labels.tracks[i].frames) & (track.visibility > 0).any(1)
        )
        boxes = clip.boxes(i, track.frames[rows], aspect_ratio)
        requests += [
            RegionRequest(int(track.frames[n]), i, box, track.keypoints[n], track.visibility[n])
            for n, box in zip(rows, boxes, strict=True)
        ]
    chosen = np.random.default_rng([seed, 4]).permutation(len(requests))[:_REGIONS]
    ordered = sorted((requests[n] for n in chosen), key=lambda request: request.frame)
    return list(read_regions(clip.video, ordered, crop_size, _MARGIN))


def build_clip_model(
    labels: Labels,
    network: NetworkConfig,
    config: FitConfig,
    seed: int,
    start: BackboneWeights | None,
) -> PoseWarper:
    """Build the network that a clip's labels ask for, untrained.

    Args:
        labels: name the keypoints.
        network: the architecture.
        config: how it is going to be trained, for the provenance.
        seed: likewise; it is the caller who seeds.
        start: weights that the backbone starts from; None for random ones. Crops are then normalised as they
            were for these.
    """
    spec = ModelSpec(
        backbone=network.backbone,
        skeleton=labels.skeleton,
        crop_size=network.crop_size,
        sigma=config.sigma,
        head_width=network.head_width,
        head_blocks=network.head_blocks,
        head_dilations=network.head_dilations,
        targets="exact",
        batch_norm="batch statistics in training; evaluation mode in the pose network that the warper sees",
        provenance={
            "posewarper": __version__,
            "video": labels.video,
            "labelled_frames": len(labels.labelled_frames),
            "seed": seed,
            "config": config.model_dump(),
        },
    )
    if start is None:
        return PoseWarper(spec)
    begun = {**spec.provenance, "backbone_weights": {"source": start.source, "sha256": start.sha256}}
    model = PoseWarper(replace(spec, mean=start.mean, std=start.std, provenance=begun))
    start.load_into(model.backbone)
    return model


# Largest norm of the gradient; a single odd batch must not undo what was learned.
_CLIP = 1.0


def train(
    parameters: Iterable[nn.Parameter],
    loss_at: Callable[[int], Tensor],
    *,
    iterations: int,
    learning_rate: float,
    stage: str,
    progress: Progress,
) -> tuple[int, bool]:
    """Minimise a loss with AdamW under a cosine schedule with a short warm-up.

    Args:
        parameters: what is trained.
        loss_at: iteration -> the loss of that iteration's batch.
        iterations: the budget.
        learning_rate: the highest one.
        stage: name for the progress bar.
        progress: is told after every iteration.

    Returns:
        How many iterations were done, and whether Ctrl-C ended them early.
    """
    trained = [p for p in parameters if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=1e-4)
    warm_up = max(1, min(20, iterations // 10))

    def rate(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, iterations - warm_up)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    done = 0
    try:
        for step in range(iterations):
            loss = loss_at(step)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(trained, _CLIP)
            optimiser.step()
            schedule.step()
            done = step + 1
            progress(stage, done, iterations)
    except KeyboardInterrupt:
        return done, True
    return done, False


_POSE, _WARP = "training the pose network", "training the warper"
_PSEUDO = "training on propagated poses"
# Propagated poses are learned from more gently than labels, which make up at least a third of the samples.
_PSEUDO_RATE, _PSEUDO_PER_LABEL = 0.5, 2


def train_pose(
    model: PoseWarper,
    regions: Sequence[Region],
    config: FitConfig,
    *,
    seed: int,
    progress: Progress = silent,
) -> bool:
    """Train backbone and final layer on labelled regions; returns whether Ctrl-C ended it early.

    Args:
        model: is changed in place.
        regions: labelled regions.
        config: the settings.
        seed: of the batches; the same seed, regions and thread count give the same weights.
        progress: is told after every iteration.
    """
    budget = _Budget(config.pose_iterations, config.pose_learning_rate, _POSE, 1)
    return _train_pose(model, regions, config, budget, seed, progress)


def train_pose_on_propagated(
    model: PoseWarper,
    labelled: Sequence[Region],
    propagated: Sequence[Region],
    config: FitConfig,
    *,
    seed: int,
    progress: Progress = silent,
) -> bool:
    """Train the pose network further, on labels and on propagated poses; arguments as :func:`train_pose`.

    This is the paper's use of propagated poses (section 3, data augmentation), on a single clip.
    """
    if not labelled or not propagated:
        return False
    times = max(1, len(propagated) // (_PSEUDO_PER_LABEL * len(labelled)))
    regions = [*propagated, *list(labelled) * times]
    rate = _PSEUDO_RATE * config.pose_learning_rate
    before = model.spec.trained.get("pose", 0)
    budget = _Budget(config.pseudo_iterations, rate, _PSEUDO, 3)
    interrupted = _train_pose(model, regions, config, budget, seed, progress)
    model.record("pose", before + model.spec.trained["pose"])
    return interrupted


class _Budget(NamedTuple):
    iterations: int
    learning_rate: float
    stage: str
    stream: int  # of random numbers


def _train_pose(
    model: PoseWarper,
    regions: Sequence[Region],
    config: FitConfig,
    budget: _Budget,
    seed: int,
    progress: Progress,
) -> bool:
    device = model.final_layer.weight.device
    model.train()

    def loss_at(step: int) -> Tensor:
        rng = np.random.default_rng([seed, budget.stream, step])
        batch = pose_batch(regions, model.spec.skeleton, config, model.spec.crop_size, rng)
        with precision(device):
            predicted = model.heatmaps(to_input(model, batch.images))
        targets, weights = torch.from_numpy(batch.targets), torch.from_numpy(batch.weights)
        return heatmap_loss(predicted.float(), targets.to(device), weights.to(device))

    parameters = [*model.backbone.parameters(), *model.final_layer.parameters()]
    done, interrupted = train(
        parameters,
        loss_at,
        iterations=budget.iterations,
        learning_rate=budget.learning_rate,
        stage=budget.stage,
        progress=progress,
    )
    model.eval()
    model.record("pose", done)
    return interrupted


def train_warper(
    model: PoseWarper,
    labelled: Sequence[Region],
    nearby: Mapping[int, Sequence[Region]],
    config: FitConfig,
    *,
    seed: int,
    progress: Progress = silent,
) -> bool:
    """Train the warp head on pairs, the pose network frozen; returns whether Ctrl-C ended it early.

    The frozen network runs in evaluation mode. The original leaves its batch norms in training mode, so that
    its frozen backbone still drifts; with a handful of labels that drift does harm.

    Args:
        model: is changed in place.
        labelled: labelled regions, those of one track in order of time.
        nearby: index into ``labelled`` -> unlabelled regions of the same track close in time.
        config: the settings.
        seed: of the batches.
        progress: is told after every iteration.
    """
    device = model.final_layer.weight.device
    model.eval()
    model.warp_head.train()

    def loss_at(step: int) -> Tensor:
        rng = np.random.default_rng([seed, 2, step])
        batch = pair_batch(labelled, nearby, model.spec.skeleton, config, model.spec.crop_size, rng)
        with torch.no_grad(), precision(device):
            crops = to_input(model, np.concatenate([batch.sources, batch.targets]))
            seen = model.heatmaps(crops).float()
            source, target = model.view(seen, crops).chunk(2)
        moves_labels = torch.from_numpy(batch.moves_labels).to(device)[:, None, None, None]
        values = torch.where(moves_labels, torch.from_numpy(batch.labels).to(device), seen[: len(source)])
        warped = model.warp(values, source=source, target=target)
        wanted, weights = torch.from_numpy(batch.wanted), torch.from_numpy(batch.weights)
        return heatmap_loss(warped, wanted.to(device), weights.to(device))

    done, interrupted = train(
        model.warp_head.parameters(),
        loss_at,
        iterations=config.warp_iterations,
        learning_rate=config.warp_learning_rate,
        stage=_WARP,
        progress=progress,
    )
    model.eval()
    model.record("warp", done)
    return interrupted
