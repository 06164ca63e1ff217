"""The training loop, and what one step of it computes: modules, batch in and loss out, one for each stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from posewarper.model.heatmap_runner import HeatmapEngine
from posewarper.model.network import PoseWarper
from posewarper.model.warping import WarpHead
from posewarper.training.batches import Batch, images_to_tensor


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


def training_steps(
    optimiser: Optimizer,
    losses: Iterable[Callable[[], Tensor]],
    rate: Callable[[int], float],
    *,
    first: int = 0,
    largest_gradient: float | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Run the training loop: one step of the optimiser for each loss.

    Args:
        optimiser: of the parameters that are trained.
        losses: each is called once, with all gradients at zero, and returns a loss after ``backward``.
        rate: number of the step, from 0 -> its learning rate.
        first: number of the first step.
        largest_gradient: norm to which larger gradients are cut.

    Yields:
        How many steps are done, and the loss of the last one.
    """
    for step, loss_of in enumerate(losses, start=first):
        for group in optimiser.param_groups:
            group["lr"] = rate(step)
        optimiser.zero_grad(set_to_none=True)
        loss = loss_of()
        if largest_gradient is not None:
            for group in optimiser.param_groups:
                nn.utils.clip_grad_norm_(group["params"], largest_gradient)
        optimiser.step()
        yield step + 1, loss


BATCH_NORMS = {
    "paper": "batch statistics of each device, also in a frozen backbone, whose running ones go on moving",
    "frozen_backbone": "batch statistics of each device; a frozen backbone in evaluation mode",
    "evaluation": "running statistics throughout; none is changed",
}


class _Step(nn.Module):
    """What the stages share.

    Args:
        model: is trained in place, all but the warp head or that alone.
        batch_norm: a key of :data:`BATCH_NORMS`.
        precision: in which the pose network runs; None for that of the caller.
    """

    trains_head: bool

    def __init__(
        self, model: PoseWarper, batch_norm: str, precision: AbstractContextManager[object] | None = None
    ) -> None:
        super().__init__()
        self.model, self.batch_norm = model, batch_norm
        self._precision = nullcontext() if precision is None else precision
        model.requires_grad_(not self.trains_head)
        model.warp_head.requires_grad_(self.trains_head)

    def _heatmaps(self, images: Tensor) -> Tensor:
        with self._precision:
            return self.model.heatmaps(self._crops(images))

    def _crops(self, images: Tensor) -> Tensor:
        spec = self.model.spec
        return images_to_tensor(images, spec.mean, spec.std).contiguous(memory_format=torch.channels_last)


class PoseStep(_Step):
    """The pose network's loss on labelled crops."""

    trains_head = False

    def set_mode(self) -> None:
        """Put every layer into the mode in which it is trained."""
        self.train()
        self.model.train(self.batch_norm != "evaluation")

    def predict(self, batch: Batch) -> Tensor:
        """Return the heatmaps (B, K, h, w) of a batch of labelled crops."""
        return self._heatmaps(batch["images"][:, 0])

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss."""
        return heatmap_loss(self.predict(batch).float(), batch["target"], batch["weights"])


class WarperStep(_Step):
    """The warp head's loss on pairs: the neighbour's heatmaps, warped to the labelled frame (section 3).

    The pose network is frozen: no gradient reaches it. ``batch_norm`` says what its batch norms do; the
    original leaves them in training mode, so that they see both frames of all pairs of a device as one batch.
    A batch may say by ``moves_labels`` (B,) in which pairs the neighbour's ``labels`` (B, K, h, w) are warped
    in place of its heatmaps.

    Args:
        teacher: a trained head on the same pose network, whose warped heatmaps are learned beside the labels
            (not in the paper): for a head with fewer channels and blocks.
        engine: computes the frozen network's heatmaps; for ``batch_norm`` where that is in evaluation mode.
    """

    trains_head = True

    def __init__(
        self,
        model: PoseWarper,
        batch_norm: str,
        precision: AbstractContextManager[object] | None = None,
        teacher: WarpHead | None = None,
        engine: HeatmapEngine | None = None,
    ) -> None:
        super().__init__(model, batch_norm, precision)
        self._engine = engine
        self.teacher = None if teacher is None else teacher.requires_grad_(False)

    def set_mode(self) -> None:
        """Put every layer into the mode in which it is trained."""
        self.train()
        self.model.train(self.batch_norm == "paper")
        self.model.warp_head.train(self.batch_norm != "evaluation")
        if self.teacher is not None:
            self.teacher.eval()

    def predict(self, batch: Batch) -> Tensor:
        """Return the warped heatmaps (B, K, h, w) of a batch of pairs."""
        return self._warp(batch)[0]

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss."""
        warped, labelled, neighbour = self._warp(batch)
        loss = heatmap_loss(warped.float(), batch["target"], batch["weights"])
        if self.teacher is None:
            return loss
        with torch.no_grad():
            wanted = self.teacher(neighbour, source=neighbour, target=labelled).float()
        # The teacher also says where keypoints are that nobody has labelled.
        return loss + heatmap_loss(warped.float(), wanted, torch.ones_like(batch["weights"]))

    def _warp(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return the warped heatmaps, and the network's of the labelled frames and their neighbours."""
        images = batch["images"]
        with torch.no_grad():
            both = torch.cat([images[:, 0], images[:, 1]])
            both = self._heatmaps(both) if self._engine is None else self._engine.see(self._crops(both))
        labelled, neighbour = both.float().chunk(2)
        moved = neighbour
        if "moves_labels" in batch:
            moved = torch.where(batch["moves_labels"][:, None, None, None], batch["labels"], neighbour)
        return self.model.warp(moved, source=neighbour, target=labelled), labelled, neighbour
