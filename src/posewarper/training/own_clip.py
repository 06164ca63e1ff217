"""Fitting a model to one clip: the pose network learns from labelled crops, the warp head from pairs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from posewarper.model.checkpoint import write_tensors
from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.model.pretrained import BackboneWeights
from posewarper.model.runtime import precision
from posewarper.options import FitConfig, NetworkConfig
from posewarper.propagation.clip import Clip
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Poses, Progress, Track, silent
from posewarper.training.batches import Batch, label_heatmaps
from posewarper.training.random_crops import Sample, cut_sample, draw, half_body_box, jitter
from posewarper.training.steps import PoseStep, WarperStep, training_steps
from posewarper.version import __version__
from posewarper.video.track_crops import Region, RegionRequest, read_regions


def _targets(samples: Sequence[Sample], crop_size: tuple[int, int], sigma: float) -> tuple[Tensor, Tensor]:
    there = np.stack([s.visibility for s in samples]) > 0
    keypoints = np.where(there[..., None], np.stack([s.keypoints for s in samples]), np.nan)
    heatmaps = label_heatmaps(keypoints, crop_size, sigma)
    return torch.from_numpy(heatmaps), torch.from_numpy(there.astype(np.float32))


def pose_batch(
    regions: Sequence[Region],
    skeleton: Skeleton,
    config: FitConfig,
    crop_size: tuple[int, int],
    rng: np.random.Generator,
) -> Batch:
    """Draw a batch of augmented labelled crops; every region comes about equally often.

    Returns:
        ``images`` (B, 1, h, w, 3) uint8 RGB, ``target`` (B, K, H, W) float32, zero where there is no label,
        and ``weights`` (B, K) float32, 1 where there is a label, else 0.
    """
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
    target, weights = _targets(samples, crop_size, config.sigma)
    images = torch.from_numpy(np.stack([s.image for s in samples])[:, None])
    return {"images": images, "target": target, "weights": weights}


def pair_batch(
    labelled: Sequence[Region],
    nearby: Mapping[int, Sequence[Region]],
    skeleton: Skeleton,
    config: FitConfig,
    crop_size: tuple[int, int],
    rng: np.random.Generator,
) -> Batch:
    """Draw a batch of pairs; heatmaps of the source are to be warped to the target.

    Args:
        labelled: regions with labels, those of one track in order of time.
        nearby: index into ``labelled`` -> unlabelled regions of the same track close in time.
        skeleton: for the mirror image.
        config: the settings.
        crop_size: (height, width) of the crops.
        rng: the source of chance.

    Returns:
        ``images`` (B, 2, h, w, 3) uint8 RGB, the target first, then the source; ``target`` (B, K, H, W)
        float32, the target's labelled heatmaps; ``weights`` (B, K) float32; ``labels`` (B, K, H, W) float32,
        the source's labelled heatmaps; ``moves_labels`` (B,) True where those are warped rather than the
        network's heatmaps of the source.
    """
    rows = [_draw_pair(labelled, nearby, rng) for _ in range(config.warp_batch)]
    sources, targets = [], []
    for source, target, strength in rows:
        base = draw(config, rng, 0.7)
        sources.append(cut_sample(source, base, skeleton, crop_size))
        targets.append(cut_sample(target, jitter(base, config, rng, strength), skeleton, crop_size))
    moves_labels = torch.tensor([bool((source.visibility > 0).any()) for source, _, _ in rows])
    labels, have = _targets(sources, crop_size, config.sigma)
    wanted, weights = _targets(targets, crop_size, config.sigma)
    # A label that the source lacks cannot be moved; what the network shows there can.
    weights = torch.where(moves_labels[:, None], weights * have, weights)
    images = np.stack([np.stack([t.image, s.image]) for t, s in zip(targets, sources, strict=True)])
    batch = {"images": torch.from_numpy(images), "target": wanted, "weights": weights}
    return {**batch, "labels": labels, "moves_labels": moves_labels}


def _draw_pair(
    labelled: Sequence[Region], nearby: Mapping[int, Sequence[Region]], rng: np.random.Generator
) -> tuple[Region, Region, float]:
    """Return source, target, and by which share of the settings their framings differ.

    A quarter are the paper's pairs (a labelled target, a nearby unlabelled source), 40 percent two labelled
    frames, the others one labelled frame under two different framings (made-up motion).
    """
    index = int(rng.integers(len(labelled)))
    target, chance = labelled[index], rng.random()
    if chance < 0.25 and nearby.get(index):
        choices = nearby[index]
    elif chance < 0.25 + 0.4:
        choices = [r for n, r in enumerate(labelled) if r.track == target.track and 0 < abs(n - index) <= 2]
    else:
        choices = []
    return (choices[int(rng.integers(len(choices)))], target, 0.25) if choices else (target, target, 0.7)


_POSE, PSEUDO, _WARPER = _STAGES = (
    "training the pose network",
    "training on propagated poses",
    "training the warper",
)
_KEPT_SECONDS = 60
# A region is this much larger than its crop, so that it holds rotated, shifted and zoomed crops.
_MARGIN = 1.5
# Unlabelled neighbours kept for each label, and regions kept in all (each about 0.25 MB).
_NEIGHBOURS, _REGIONS = 4, 600


def _requests(
    clip: Clip, track_id: int, track: Track, wanted: NDArray[np.bool_], crop_size: tuple[int, int]
) -> list[RegionRequest]:
    """Return the regions of those rows (t,) of a track that are wanted and show a keypoint."""
    rows = np.flatnonzero(wanted & (track.visibility > 0).any(1))
    boxes = clip.boxes(track_id, track.frames[rows], crop_size[1] / crop_size[0])
    return [
        RegionRequest(int(track.frames[n]), track_id, box, track.keypoints[n], track.visibility[n])
        for n, box in zip(rows, boxes, strict=True)
    ]


def read_training_regions(
    clip: Clip, crop_size: tuple[int, int], seed: int
) -> tuple[list[Region], dict[int, list[Region]]]:
    """Read the regions of all labels, and of a few unlabelled frames near each, up to half a gap away."""
    rng = np.random.default_rng([seed, 0])
    labelled = []
    for i, track in clip.labels.tracks.items():
        labelled += _requests(clip, i, track, np.isin(track.frames, clip.frames[i]), crop_size)
    if len(labelled) > _REGIONS:
        kept = np.sort(rng.permutation(len(labelled))[:_REGIONS])
        labelled = [labelled[n] for n in kept]
    numbers = clip.labels.labelled_frames
    reach = max(2, int(np.median(np.diff(numbers)) // 2) if len(numbers) > 1 else 5)
    nothing = np.full((len(clip.labels.skeleton), 2), np.nan)
    hidden = np.zeros(len(clip.labels.skeleton), np.uint8)
    rows = [(n, True, r) for n, r in enumerate(labelled)]
    for n in rng.permutation(len(labelled))[: max(0, (_REGIONS - len(labelled)) // _NEIGHBOURS)].tolist():
        own = labelled[n]
        frames = np.setdiff1d(clip.frames[own.track], clip.labels.tracks[own.track].frames)
        frames = np.sort(rng.permutation(frames[np.abs(frames - own.frame) <= reach])[:_NEIGHBOURS])
        boxes = clip.boxes(own.track, frames, crop_size[1] / crop_size[0])
        rows += [
            (n, False, RegionRequest(int(f), own.track, box, nothing, hidden))
            for f, box in zip(frames, boxes, strict=True)
        ]
    # One pass over the video, in order of time; the reader hands each frame's requests back in their order.
    rows.sort(key=lambda row: row[2].frame)
    regions: dict[int, Region] = {}
    around: dict[int, list[Region]] = {}
    read = read_regions(clip.video, [row[2] for row in rows], crop_size, _MARGIN)
    for (n, is_labelled, _), region in zip(rows, read, strict=True):
        if is_labelled:
            regions[n] = region
        else:
            around.setdefault(n, []).append(region)
    return [regions[n] for n in range(len(labelled))], around


def read_propagated_regions(clip: Clip, poses: Poses, crop_size: tuple[int, int], seed: int) -> list[Region]:
    """Read the regions of propagated poses, on unlabelled frames; at most 600, drawn at random."""
    requests = []
    for i, track in poses.tracks.items():
        unlabelled = ~np.isin(track.frames, clip.labels.tracks[i].frames)
        requests += _requests(clip, i, track, unlabelled, crop_size)
    chosen = np.random.default_rng([seed, 4]).permutation(len(requests))[:_REGIONS]
    ordered = sorted((requests[n] for n in chosen), key=lambda request: request.frame)
    return list(read_regions(clip.video, ordered, crop_size, _MARGIN))


def build_clip_model(
    labels: Labels, network: NetworkConfig, config: FitConfig, seed: int, start: BackboneWeights | None
) -> PoseWarper:
    """Build the untrained network for a clip's labels; it is the caller who seeds.

    The backbone starts from the weights ``start``, whose normalisation of crops is then taken, or from random
    ones. How it is going to be trained, ``config`` and ``seed``, goes into the provenance.
    """
    spec = ModelSpec(
        skeleton=labels.skeleton,
        sigma=config.sigma,
        targets="exact",
        batch_norm="batch statistics in training; evaluation mode in the pose network that the warper sees",
        provenance={
            "posewarper": __version__,
            "video": labels.video,
            "labelled_frames": len(labels.labelled_frames),
            "seed": seed,
            "config": config.model_dump(),
        },
        **network.model_dump(exclude={"backbone_weights"}),
    )
    if start is None:
        return PoseWarper(spec)
    begun = {**spec.provenance, "backbone_weights": {"source": start.source, "sha256": start.sha256}}
    model = PoseWarper(replace(spec, mean=start.mean, std=start.std, provenance=begun))
    start.load_into(model.backbone)
    return model


class KeptFit:
    """The state of a fit in a file, so that a fit that was stopped, also by a kill, resumes exactly.

    A state that is there is put into the model: the weights with which the stage began that was stopped.

    Args:
        model: is trained in place; it begins as it did before the stop.
        path: of the file; None keeps nothing.
    """

    def __init__(self, model: PoseWarper, path: Path | None) -> None:
        self._model, self._path = model, path
        self._content: dict[str, Any] = {}
        if path is not None and path.is_file():
            self._content = torch.load(path, map_location="cpu", weights_only=True)
            self._start = self._content["start"]
            model.eval().load_state_dict(self._start)
            model.spec = replace(model.spec, trained=self._content["trained"])

    def passed(self, stage: str) -> bool:
        """Return whether a stage was done before the stop."""
        return bool(self._content) and _STAGES.index(stage) < _STAGES.index(self._content["stage"])

    def begin(self, stage: str, optimiser: Optimizer) -> int:
        """Begin a stage, or resume it where it was stopped; returns the iterations that are done."""
        if self._path is None:
            return 0
        self._start = {name: value.detach().cpu().clone() for name, value in self._model.state_dict().items()}
        self._trained, self._saved = dict(self._model.spec.trained), -math.inf
        if self._content.get("stage") != stage:
            return 0
        self._model.load_state_dict(self._content["model"])
        optimiser.load_state_dict(self._content["optimiser"])
        return self._content["done"]

    def keep(self, stage: str, done: int, optimiser: Optimizer) -> None:
        """Write the state after a stage's first iteration, and then once a minute."""
        if self._path is None or time.monotonic() < self._saved + _KEPT_SECONDS:
            return
        content = {"stage": stage, "done": done, "trained": self._trained, "start": self._start}
        content |= {"model": self._model.state_dict(), "optimiser": optimiser.state_dict()}
        write_tensors(self._path, content)
        self._saved = time.monotonic()


def train(
    parameters: Iterable[nn.Parameter],
    loss_at: Callable[[int], Tensor],
    *,
    iterations: int,
    learning_rate: float,
    stage: str,
    progress: Progress,
    kept: KeptFit | None = None,
) -> tuple[int, bool]:
    """Minimise a loss with AdamW under a cosine schedule with a short warm-up to ``learning_rate``.

    ``loss_at`` gives the loss of an iteration's batch; iterations that ``kept`` knows are not done again.
    Returns how many iterations were done, and whether Ctrl-C ended them early.
    """
    optimiser = torch.optim.AdamW([p for p in parameters if p.requires_grad], weight_decay=1e-4)
    warm_up = max(1, min(20, iterations // 10))

    def rate(step: int) -> float:
        if step < warm_up:
            return learning_rate * ((step + 1) / warm_up)
        share = (step - warm_up) / max(1, iterations - warm_up)
        return learning_rate * (0.5 * (1 + math.cos(math.pi * share)))

    def learn(step: int) -> Tensor:
        loss = loss_at(step)
        loss.backward()
        return loss

    done = first = 0 if kept is None else kept.begin(stage, optimiser)
    losses = (partial(learn, step) for step in range(first, iterations))
    try:
        # A single odd batch must not undo what was learned.
        for done, _ in training_steps(optimiser, losses, rate, first=first, largest_gradient=1.0):
            if kept is not None:
                kept.keep(stage, done, optimiser)
            progress(stage, done, iterations)
    except KeyboardInterrupt:
        return done, True
    return done, False


def _fit(
    step: PoseStep | WarperStep,
    draw_batch: Callable[..., Batch],
    config: FitConfig,
    seed: tuple[int, int],
    iterations: int,
    rate: float,
    stage: str,
    progress: Progress,
    kept: KeptFit | None,
) -> bool:
    """Train by a step on batches that are drawn; returns whether Ctrl-C ended it early."""
    model, spec = step.model, step.model.spec
    step.set_mode()

    def loss_at(n: int) -> Tensor:
        batch = draw_batch(spec.skeleton, config, spec.crop_size, np.random.default_rng([*seed, n]))
        return step({name: value.to(model.device) for name, value in batch.items()})

    done, interrupted = train(
        step.parameters(),
        loss_at,
        iterations=iterations,
        learning_rate=rate,
        stage=stage,
        progress=progress,
        kept=kept,
    )
    model.requires_grad_(True)
    model.eval()
    model.record("pose" if isinstance(step, PoseStep) else "warp", done)
    return interrupted


def train_pose(
    model: PoseWarper,
    regions: Sequence[Region],
    config: FitConfig,
    *,
    seed: int,
    progress: Progress = silent,
    kept: KeptFit | None = None,
) -> bool:
    """Train backbone and final layer on labelled regions; returns whether Ctrl-C ended it early.

    Args:
        model: is changed in place.
        regions: labelled regions.
        config: the settings.
        seed: of the batches; the same seed, regions and thread count give the same weights.
        progress: is told after every iteration.
        kept: where the state is kept.
    """
    if kept is not None and kept.passed(_POSE):
        return False
    step = PoseStep(model, "paper", precision(model.device))
    draw_batch, budget = partial(pose_batch, regions), (config.pose_iterations, config.pose_learning_rate)
    return _fit(step, draw_batch, config, (seed, 1), *budget, _POSE, progress, kept)


def train_pose_on_propagated(
    model: PoseWarper,
    labelled: Sequence[Region],
    propagated: Sequence[Region],
    config: FitConfig,
    *,
    seed: int,
    progress: Progress = silent,
    kept: KeptFit | None = None,
) -> bool:
    """Train the pose network further, on labels and on propagated poses; arguments as :func:`train_pose`.

    This is the paper's use of propagated poses (section 3, data augmentation), on a single clip.
    """
    if not labelled or not propagated:
        return False
    # More gently than from labels, which make up at least a third of the samples.
    times = max(1, len(propagated) // (2 * len(labelled)))
    before = model.spec.trained.get("pose", 0)
    step = PoseStep(model, "paper", precision(model.device))
    draw_batch = partial(pose_batch, [*propagated, *list(labelled) * times])
    budget = config.pseudo_iterations, 0.5 * config.pose_learning_rate
    interrupted = _fit(step, draw_batch, config, (seed, 3), *budget, PSEUDO, progress, kept)
    model.record("pose", before + model.spec.trained["pose"])
    return interrupted


def train_warper(
    model: PoseWarper,
    labelled: Sequence[Region],
    nearby: Mapping[int, Sequence[Region]],
    config: FitConfig,
    *,
    seed: int,
    progress: Progress = silent,
    kept: KeptFit | None = None,
) -> bool:
    """Train the warp head on pairs, the pose network frozen; returns whether Ctrl-C ended it early.

    The frozen network runs in evaluation mode. The original leaves its batch norms in training mode, so that
    its frozen backbone still drifts; with a handful of labels that drift does harm. Arguments as
    :func:`pair_batch` and :func:`train_pose`.
    """
    step = WarperStep(model, "frozen_backbone", precision(model.device))
    draw_batch, budget = (
        partial(pair_batch, labelled, nearby),
        (config.warp_iterations, config.warp_learning_rate),
    )
    return _fit(step, draw_batch, config, (seed, 2), *budget, _WARPER, progress, kept)
