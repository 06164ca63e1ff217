"""What one training step computes, as modules that a distributed wrapper can take: batch in, loss out."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from posewarper.data.training_set import images_to_tensor
from posewarper.model.network import PoseWarper
from posewarper.model.warping import WarpHead
from posewarper.training.losses import heatmap_loss

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
