"""Variants of the warp head that see more of two frames than how their heatmaps differ.

They are trained for the methods ``warper-image`` and ``warper-correlation`` and not kept in checkpoints:
measured on clips with few labels they gain nothing (docs/experiments.md). Beyond the paper.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from posewarper.model.backbone import STRIDE
from posewarper.model.warping import WarpHead

# Local correlation: how far around each place it is looked, and at every how many heatmap pixels.
_REACH, _EVERY = 8, 2


class ImageWarpHead(WarpHead):
    """A warp head that also sees the difference of the two images, at the heatmaps' size.

    Args:
        keypoints: K, the number of heatmaps.
        width: channels of the residual stack.
        blocks: number of residual blocks.
        dilations: as in :class:`WarpHead`.
    """

    def __init__(self, keypoints: int, width: int, blocks: int, dilations: Sequence[int]) -> None:
        super().__init__(keypoints, width, blocks, dilations, inputs=keypoints + 3)

    def view(self, heatmaps: Tensor, crops: Tensor, backbone: nn.Module) -> Tensor:
        """Return (B, K + 3, h, w): the heatmaps, and the normalised crops averaged to their size."""
        return torch.cat([heatmaps, functional.avg_pool2d(crops, STRIDE)], 1)


class CorrelationWarpHead(WarpHead):
    """A warp head that also sees where around each place of the source the target looks alike.

    Looking alike is the cosine between the backbone's features, compared at 81 shifts of up to 8 heatmap
    pixels to each side. Arguments as for :class:`ImageWarpHead`.
    """

    def __init__(self, keypoints: int, width: int, blocks: int, dilations: Sequence[int]) -> None:
        shifts = (2 * _REACH // _EVERY + 1) ** 2
        super().__init__(keypoints, width, blocks, dilations, inputs=keypoints + shifts)
        self.keypoints = keypoints

    def view(self, heatmaps: Tensor, crops: Tensor, backbone: nn.Module) -> Tensor:
        """Return (B, K + C, h, w): the heatmaps and the backbone's C features, of length 1 at each place."""
        return torch.cat([heatmaps, functional.normalize(backbone(crops)[0].float(), dim=1)], 1)

    def features(self, source: Tensor, target: Tensor) -> Tensor:
        """Return (B, width, H, W): what the difference of heatmaps and the local correlation say."""
        k = self.keypoints
        alike = correlate(source[:, k:], target[:, k:], _REACH, _EVERY)
        return self.residual_stack(torch.cat([target[:, :k] - source[:, :k], alike], 1))


SEEING_HEADS = {"warper-image": ImageWarpHead, "warper-correlation": CorrelationWarpHead}
"""The head of each variant, by the name of its method."""


def correlate(source: Tensor, target: Tensor, reach: int, every: int) -> Tensor:
    """Compare features at each place of the source with those around the same place of the target.

    Args:
        source: (B, C, H, W).
        target: (B, C, H, W); outside of it all features are 0.
        reach: the largest shift to each side in pixels, a multiple of ``every``.
        every: the step between shifts.

    Returns:
        (B, S, H, W) inner products, S = (2 reach / every + 1) ** 2, the shifts of y and x both rising and x
        the faster one: the middle one is no shift.
    """
    height, width = source.shape[2:]
    padded = functional.pad(target, [reach] * 4)
    shifts = range(0, 2 * reach + 1, every)
    found = [(source * padded[..., y : y + height, x : x + width]).sum(1) for y in shifts for x in shifts]
    return torch.stack(found, 1)
