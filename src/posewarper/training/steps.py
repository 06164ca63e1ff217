"""What one training step computes, as modules that a distributed wrapper can take: batch in, loss out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from posewarper.heatmaps import paper_argmax
from posewarper.model.network import PoseWarper
from posewarper.model.warping import WarpHead
from posewarper.structures import Floats
from posewarper.training.batches import images_to_tensor


def heatmap_loss(predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Return half the mean squared difference over all pixels, keypoints and samples (paper, section 3).

    As in the original the weight multiplies both heatmaps, so it enters squared, and the mean runs also over
    what has weight 0.

    Args:
        predicted: (B, K, H, W).
        target: (B, K, H, W), finite also where the weight is 0.
        weights: (B, K), 0 for keypoints without a label.

    Returns:
        A scalar.
    """
    factor = weights[..., None, None]
    return 0.5 * ((predicted * factor - target * factor) ** 2).mean()


def hard_keypoint_loss(predicted: Tensor, target: Tensor, weights: Tensor, hardest: int = 8) -> Tensor:
    """Return the loss of each sample's hardest keypoints only (online hard keypoint mining).

    Each keypoint of each sample has the loss of :func:`heatmap_loss` over its own map; the mean runs over the
    ``hardest`` largest of each sample.

    Args:
        predicted: (B, K, H, W).
        target: (B, K, H, W), finite also where the weight is 0.
        weights: (B, K), 0 for keypoints without a label.
        hardest: how many keypoints of a sample count; all, if it has no more.

    Returns:
        A scalar.
    """
    factor = weights[..., None, None]
    losses = 0.5 * ((predicted * factor - target * factor) ** 2).mean(dim=(2, 3))
    return losses.topk(min(hardest, losses.shape[1]), dim=1).values.mean()


_THRESHOLD = 0.5


@dataclass(frozen=True)
class HeatmapAccuracy:
    """Share of keypoints whose highest pixels agree.

    Args:
        per_keypoint: (K,), NaN for a keypoint without a usable target (the original says -1).
        mean: over the keypoints that have one; 0 if none has.
        count: how many keypoints have one.
        predictions: (B, K, 2) xy of the predicted maps' highest pixels.
    """

    per_keypoint: Floats
    mean: float
    count: int
    predictions: Floats


def paper_heatmap_accuracy(output: NDArray[np.floating], target: NDArray[np.floating]) -> HeatmapAccuracy:
    """Compare the highest pixels of predicted maps and targets, as the original does for its log.

    A keypoint agrees within half of a tenth of the map, where, by an oversight of the original that is kept
    here, x is measured in tenths of the map's *height* and y in tenths of its *width*. A target counts if its
    highest pixel has x > 1 and y > 1.

    Args:
        output: (B, K, h, w).
        target: (B, K, h, w).
    """
    height, width = output.shape[-2:]
    predictions, truth = paper_argmax(output)[0], paper_argmax(target)[0]
    usable = (truth > 1).all(-1)
    tenths = np.array([height, width]) / 10
    distances = np.linalg.norm(predictions / tenths - truth / tenths, axis=-1)
    agreeing = (usable & (distances < _THRESHOLD)).sum(0)
    counts = usable.sum(0)
    per_keypoint = np.where(counts > 0, agreeing / np.maximum(counts, 1), np.nan)
    known = per_keypoint[counts > 0]
    mean = float(known.mean()) if len(known) else 0.0
    return HeatmapAccuracy(per_keypoint, mean, len(known), predictions)


BATCH_NORMS = {
    "paper": "batch statistics of each device, also in a frozen backbone, whose running ones go on moving",
    "frozen_backbone": "batch statistics of each device; a frozen backbone in evaluation mode",
    "evaluation": "running statistics throughout; none is changed",
}


class PoseStep(nn.Module):
    """The pose network's loss on labelled crops.

    Args:
        model: its warp head is left alone.
        batch_norm: a key of :data:`BATCH_NORMS`.
    """

    def __init__(self, model: PoseWarper, batch_norm: str) -> None:
        super().__init__()
        self.model, self.batch_norm = model, batch_norm
        model.requires_grad_(True)
        model.warp_head.requires_grad_(False)

    def set_mode(self) -> None:
        """Put every layer into the mode in which it is trained."""
        self.train()
        self.model.train(self.batch_norm != "evaluation")

    def predict(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the heatmaps (B, K, h, w) of a batch of labelled crops."""
        return self.model.heatmaps(_crops(batch["images"][:, 0], self.model))

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the loss."""
        return heatmap_loss(self.predict(batch).float(), batch["target"], batch["weights"])


class WarperStep(nn.Module):
    """The warp head's loss on pairs: the neighbour's heatmaps, warped to the labelled frame (section 3).

    The pose network is frozen: no gradient reaches it. What its batch norms do is said by ``batch_norm``; the
    original leaves them in training mode, so that they see both frames of all pairs of a device as one batch.

    Args:
        model: its warp head is trained.
        batch_norm: a key of :data:`BATCH_NORMS`.
        teacher: a trained head on the same pose network, whose warped heatmaps are learned beside the labels
            (not in the paper): for a head with fewer channels and blocks.
    """

    def __init__(self, model: PoseWarper, batch_norm: str, teacher: WarpHead | None = None) -> None:
        super().__init__()
        self.model, self.batch_norm = model, batch_norm
        self.teacher = None if teacher is None else teacher.requires_grad_(False)
        model.requires_grad_(False)
        model.warp_head.requires_grad_(True)

    def set_mode(self) -> None:
        """Put every layer into the mode in which it is trained."""
        self.train()
        self.model.train(self.batch_norm == "paper")
        self.model.warp_head.train(self.batch_norm != "evaluation")
        if self.teacher is not None:
            self.teacher.eval()

    def predict(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the warped heatmaps (B, K, h, w) of a batch of pairs."""
        labelled, neighbour = self._look(batch)
        return self.model.warp(neighbour, source=neighbour, target=labelled)

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the loss."""
        if self.teacher is None:
            return heatmap_loss(self.predict(batch).float(), batch["target"], batch["weights"])
        labelled, neighbour = self._look(batch)
        warped = self.model.warp(neighbour, source=neighbour, target=labelled).float()
        with torch.no_grad():
            wanted = self.teacher(neighbour, source=neighbour, target=labelled).float()
        # The teacher also says where keypoints are that nobody has labelled.
        matching = heatmap_loss(warped, wanted, torch.ones_like(batch["weights"]))
        return heatmap_loss(warped, batch["target"], batch["weights"]) + matching

    def _look(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the pose network's heatmaps of the labelled frames and of their neighbours."""
        images = batch["images"]
        with torch.no_grad():
            both = self.model.heatmaps(_crops(torch.cat([images[:, 0], images[:, 1]]), self.model))
        labelled, neighbour = both.float().chunk(2)
        return labelled, neighbour


def _crops(images: Tensor, model: PoseWarper) -> Tensor:
    tensor = images_to_tensor(images, model.spec.mean, model.spec.std)
    return tensor.contiguous(memory_format=torch.channels_last)


def make_step(
    stage: str, model: PoseWarper, batch_norm: str, teacher: WarpHead | None = None
) -> PoseStep | WarperStep:
    """Return the step of a stage, ``pose`` or ``warper``."""
    return PoseStep(model, batch_norm) if stage == "pose" else WarperStep(model, batch_norm, teacher)
