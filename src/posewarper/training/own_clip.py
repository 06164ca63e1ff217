"""Fitting a model to one clip: the pose network learns from labelled crops, the warp head from pairs."""

from __future__ import annotations

import copy
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from posewarper.model.backbone import PyramidBackbone, lower_stages
from posewarper.model.checkpoint import parameters_sha256, write_tensors
from posewarper.model.heatmap_runner import HeatmapEngine
from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.model.onnx_graph import accelerate, like_crops
from posewarper.model.pretrained import BackboneWeights
from posewarper.model.runtime import half_precision, precision
from posewarper.options import FitConfig, NetworkConfig
from posewarper.propagation.clip import Clip
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Poses, Progress, Track, silent
from posewarper.training.batches import Batch, label_heatmaps
from posewarper.training.random_crops import Sample, cut_sample, draw, half_body_box, jitter
from posewarper.training.steps import PoseStep, WarperStep, heatmap_loss, training_steps
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
    clip: Clip, crop_size: tuple[int, int], seed: int, *, nearby: bool = True
) -> tuple[list[Region], dict[int, list[Region]]]:
    """Read the regions of all labels, and of a few unlabelled frames near each, up to half a gap away.

    Without ``nearby`` only the first.
    """
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
    most = max(0, (_REGIONS - len(labelled)) // _NEIGHBOURS) if nearby else 0
    for n in rng.permutation(len(labelled))[:most].tolist():
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
        provenance=_provenance(labels, config, seed),
        **network.model_dump(exclude={"backbone_weights"}),
    )
    if start is None:
        return PoseWarper(spec)
    begun = {**spec.provenance, "backbone_weights": {"source": start.source, "sha256": start.sha256}}
    model = PoseWarper(replace(spec, mean=start.mean, std=start.std, provenance=begun))
    start.load_into(model.backbone)
    return model


def continue_clip_model(begun: PoseWarper, labels: Labels, config: FitConfig, seed: int) -> PoseWarper:
    """Return a copy of a trained model that is to learn further from a clip's labels, which says so."""
    model = copy.deepcopy(begun)
    old = {name: value for name, value in begun.spec.provenance.items() if name != "stopped"}
    new = {**_provenance(labels, config, seed), "learned_further_from": parameters_sha256(begun)}
    model.spec = replace(begun.spec, provenance={**old, **new})
    return model


def _provenance(labels: Labels, config: FitConfig, seed: int) -> dict[str, Any]:
    return {
        "posewarper": __version__,
        "video": labels.video,
        "labelled_frames": len(labels.labelled_frames),
        "seed": seed,
        "config": config.model_dump(),
    }


def gentler(config: FitConfig) -> FitConfig:
    """Return the settings by which a model that is trained already learns from more labels."""
    iterations, rate = max(1, config.pose_iterations // 8), config.pose_learning_rate / 2
    return config.model_copy(update={"pose_iterations": iterations, "pose_learning_rate": rate})


class KeptFit:
    """The state of a fit in a file, so that a fit that was stopped, also by a kill, resumes exactly.

    If the pose network had learned from the labels before the stop, its weights at that point are put into
    the model, so that the same poses are propagated again.

    Args:
        model: is trained in place; it begins as it did before the stop.
        path: of the file; None keeps nothing.
    """

    def __init__(self, model: PoseWarper, path: Path | None) -> None:
        self._model, self._path = model, path
        self._content: dict[str, Any] = {}
        if path is not None and path.is_file():
            self._content = torch.load(path, map_location="cpu", weights_only=True)
            if self._content["first"]:
                model.eval().load_state_dict(self._content["first"])
            model.spec = replace(model.spec, trained=self._content["trained"])
        self._first: Mapping[str, Tensor] = self._content.get("first", {})

    def passed(self, stage: str) -> bool:
        """Return whether a stage was done before the stop."""
        return bool(self._content) and _STAGES.index(stage) < _STAGES.index(self._content["stage"])

    def begin(self, stage: str, optimiser: Optimizer) -> tuple[int, int | None]:
        """Begin a stage, or resume it where it was stopped.

        Returns:
            The iterations that are done, and the one at which the learning rate began to fall, None if it
            had not yet.
        """
        if self._path is None:
            return 0, None
        if stage != _POSE and not self._first:
            state = self._model.state_dict().items()
            self._first = {name: value.detach().cpu().clone() for name, value in state}
        self._trained, self._saved = dict(self._model.spec.trained), -math.inf
        if self._content.get("stage") != stage:
            return 0, None
        self._model.load_state_dict(self._content["model"])
        optimiser.load_state_dict(self._content["optimiser"])
        return self._content["done"], self._content["falls"]

    def keep(self, stage: str, done: int, falls: int | None, optimiser: Optimizer) -> None:
        """Write the state after a stage's first iteration, and then once a minute."""
        if self._path is None or time.monotonic() < self._saved + _KEPT_SECONDS:
            return
        content = {"stage": stage, "done": done, "falls": falls, "trained": self._trained}
        content |= {"first": self._first, "model": self._model.state_dict()}
        write_tensors(self._path, {**content, "optimiser": optimiser.state_dict()})
        self._saved = time.monotonic()


@dataclass(frozen=True)
class Schedule:
    """How long a stage is trained, and at which rate: a warm-up, a plateau, and a fall along a cosine.

    Args:
        iterations: at most.
        learning_rate: of the plateau.
        enough: the plateau ends when the loss falls below this share of what a network that shows nothing
            would have, and in time for the fall; None goes without a plateau.
    """

    iterations: int
    learning_rate: float
    enough: float | None = None

    @property
    def warm_up(self) -> int:
        """Iterations until the full rate."""
        return max(1, min(20, self.iterations // 10))

    def fall(self, begin: int) -> int:
        """Return how many iterations the fall takes that begins after so many."""
        return self.iterations - begin if self.enough is None else min(begin // 2, self.iterations - begin)

    def begin_of_fall(self, done: int, shares: Sequence[float]) -> int | None:
        """Return ``done`` if the rate is to fall from here on, None if not yet.

        ``shares`` are those of the last :data:`_LOOKED_AT` iterations.
        """
        if self.enough is None:
            return done if done >= self.warm_up else None
        is_enough = len(shares) == _LOOKED_AT and sum(shares) < self.enough * _LOOKED_AT
        return done if is_enough or done + done // 2 >= self.iterations else None

    def rate(self, step: int, begin: int | None) -> float:
        """Return the learning rate of a step, from 0; ``begin`` is the first step of the fall."""
        if begin is None or step < begin:
            return self.learning_rate * min(1.0, (step + 1) / self.warm_up)
        share = (step - begin) / max(1, self.fall(begin))
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


_LOOKED_AT = 10


def train(
    parameters: Iterable[nn.Parameter],
    loss_at: Callable[[int], tuple[Tensor, float]],
    schedule: Schedule,
    *,
    stage: str,
    progress: Progress,
    kept: KeptFit | None = None,
) -> tuple[int, int, bool]:
    """Minimise a loss with AdamW.

    ``loss_at`` gives the loss of an iteration's batch, and its share of the loss of a network that shows
    nothing; iterations that ``kept`` knows are not done again.

    Returns:
        How many iterations were done, how many were to be, and whether Ctrl-C ended them.
    """
    optimiser = torch.optim.AdamW([p for p in parameters if p.requires_grad], weight_decay=1e-4)
    shares: deque[float] = deque(maxlen=_LOOKED_AT)

    def learn(step: int) -> Tensor:
        loss, share = loss_at(step)
        loss.backward()
        shares.append(share)
        return loss

    done, begin = (0, None) if kept is None else kept.begin(stage, optimiser)
    total = schedule.iterations if begin is None else begin + schedule.fall(begin)
    losses = (partial(learn, step) for step in count(done))
    try:
        # A single odd batch must not undo what was learned.
        steps = training_steps(
            optimiser, losses, lambda step: schedule.rate(step, begin), first=done, largest_gradient=1.0
        )
        while done < total:
            done, _ = next(steps)
            if begin is None:
                begin = schedule.begin_of_fall(done, shares)
                total = schedule.iterations if begin is None else begin + schedule.fall(begin)
            if kept is not None:
                kept.keep(stage, done, begin, optimiser)
            progress(stage, done, total)
    except KeyboardInterrupt:
        return done, total, True
    return done, total, False


# Batches that give the norms of frozen layers their statistics.
_SETTLING = 4


def _freeze(step: PoseStep, frozen: Sequence[nn.Parameter], batches: Sequence[Batch]) -> None:
    """Freeze parameters of the pose network, and the batch norms among them, in place.

    These get the statistics of the batches, where there are any, so that their layers are a function of the
    crop alone, which the fastest engine at hand computes where it can.
    """
    model, own = step.model, {id(parameter) for parameter in frozen}
    if not own:
        return
    for parameter in frozen:
        parameter.requires_grad_(False)
    norms = [m for m in model.backbone.modules() if isinstance(m, nn.BatchNorm2d) and id(m.weight) in own]
    others = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d) and id(m.weight) not in own]
    for norm in others:
        norm.eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms if batches else ():
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
    with torch.no_grad():
        for batch in batches:
            step.predict(batch)
    step.set_mode()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
    backbone = model.backbone
    if not (isinstance(backbone, PyramidBackbone) and len(backbone.lower_blocks)):
        return
    see: Callable[[Tensor], Sequence[Tensor]] = backbone.lower
    if model.device.type == "cpu" and not half_precision(model.device, model):
        see = accelerate(backbone.lower, {"crops": like_crops((2, 3, *model.spec.crop_size))}) or see
    backbone.see_lower = see


def _fit(
    step: PoseStep | WarperStep,
    draw_batch: Callable[..., Batch],
    config: FitConfig,
    seed: tuple[int, int],
    schedule: Schedule,
    stage: str,
    progress: Progress,
    kept: KeptFit | None,
    frozen: Sequence[nn.Parameter] = (),
) -> bool:
    """Train by a step on batches that are drawn; returns whether Ctrl-C ended it early."""
    model, spec = step.model, step.model.spec

    def draw_nth(*n: int) -> Batch:
        batch = draw_batch(spec.skeleton, config, spec.crop_size, np.random.default_rng([*seed, *n]))
        return {name: value.to(model.device) for name, value in batch.items()}

    step.set_mode()
    if isinstance(step, PoseStep):
        _freeze(step, frozen, [draw_nth(n, 1) for n in range(_SETTLING if stage == _POSE and frozen else 0)])

    def loss_at(n: int) -> tuple[Tensor, float]:
        batch = draw_nth(n)
        loss = step(batch)
        nothing = heatmap_loss(torch.zeros_like(batch["target"]), batch["target"], batch["weights"])
        return loss, float(loss.detach() / nothing.clamp(min=1e-12))

    done, total, interrupted = train(
        step.parameters(), loss_at, schedule, stage=stage, progress=progress, kept=kept
    )
    model.requires_grad_(True)
    model.eval()
    if isinstance(model.backbone, PyramidBackbone):
        model.backbone.see_lower = None
    own = "pose" if isinstance(step, PoseStep) else "warp"
    model.record(own, done + model.spec.trained.get(own, 0))
    if done < total:
        model.note(stopped=f"iteration {done} of {total} ({stage})")
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

    It ends when the labels are learned well enough, or after ``config.pose_iterations``. A backbone that
    starts from trained weights keeps those of its lower stages.

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
    schedule = Schedule(config.pose_iterations, config.pose_learning_rate, config.enough)
    return _train_pose(model, regions, config, (seed, 1), schedule, _POSE, progress, kept)


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
    schedule = Schedule(config.pseudo_iterations, 0.5 * config.pose_learning_rate)
    regions = [*propagated, *list(labelled) * times]
    return _train_pose(model, regions, config, (seed, 3), schedule, PSEUDO, progress, kept)


def _precision(model: PoseWarper) -> AbstractContextManager[object]:
    return precision(model.device, halved=half_precision(model.device, model))


def _train_pose(
    model: PoseWarper,
    regions: Sequence[Region],
    config: FitConfig,
    seed: tuple[int, int],
    schedule: Schedule,
    stage: str,
    progress: Progress,
    kept: KeptFit | None,
) -> bool:
    step = PoseStep(model, "paper", _precision(model))
    frozen = lower_stages(model.backbone) if "backbone_weights" in model.spec.provenance else ()
    return _fit(step, partial(pose_batch, regions), config, seed, schedule, stage, progress, kept, frozen)


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
    engine = HeatmapEngine(model.eval())
    step = WarperStep(model, "frozen_backbone", _precision(model), engine=engine)
    schedule = Schedule(config.warp_iterations, config.warp_learning_rate)
    draw_batch = partial(pair_batch, labelled, nearby)
    return _fit(step, draw_batch, config, (seed, 2), schedule, _WARPER, progress, kept)
