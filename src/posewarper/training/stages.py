"""The two stages of fitting a model to a clip: the pose network on labelled frames, the warper on pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posewarper.config import FitConfig
from posewarper.crops import normalise
from posewarper.data.batches import pair_batch, pose_batch
from posewarper.frames import Region
from posewarper.model.network import PoseWarper
from posewarper.model.runtime import precision
from posewarper.structures import Progress, silent
from posewarper.training.loop import train
from posewarper.training.losses import heatmap_loss

_POSE, _WARP = "training the pose network", "training the warper"
_PSEUDO = "training on propagated poses"
# Propagated poses are learned from more gently than labels, which make up at least a third of the samples.
_PSEUDO_RATE, _PSEUDO_PER_LABEL = 0.5, 2


def crops_to_tensor(images: NDArray[np.uint8], model: PoseWarper) -> Tensor:
    """Return (B, 3, h, w) normalised crops on the model's device, channels last."""
    tensor = torch.from_numpy(normalise(images, model.spec.mean, model.spec.std))
    return tensor.to(model.final_layer.weight.device, memory_format=torch.channels_last)


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
            predicted = model.heatmaps(crops_to_tensor(batch.images, model))
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
            crops = crops_to_tensor(np.concatenate([batch.sources, batch.targets]), model)
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
