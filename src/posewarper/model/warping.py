"""The paper in one file: heatmaps of one frame, warped to another (Bertasius et al. 2019, section 3).

    warp(values, *, source, target)
        features = residual_stack(target - source)
        out      = mean over dilations d of deform_conv_d(values, offsets_d(features))

There are no modes. Who calls decides which frame is source and which is target, and what is moved:

=============  ==================  ===============  ==========================================
use            source              target           values
=============  ==================  ===============  ==========================================
training       unlabelled frame B  labelled frame A heatmaps of B, compared with A's label
propagation    labelled frame A    unlabelled B     A's ground-truth heatmaps
aggregation    each neighbour      present frame    the neighbour's heatmaps
=============  ==================  ===============  ==========================================
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from posewarper.model.deformable import TAPS, deform_conv, full_precision

PAPER_WIDTH, PAPER_BLOCKS, PAPER_DILATIONS = 128, 20, (3, 6, 12, 18, 24)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm around a skip; a 1x1 projection where the width changes."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = (
            nn.Sequential(nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width))
            if inputs != width
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, width, H, W)."""
        skip = x if self.downsample is None else self.downsample(x)
        x = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(x)) + skip)


def count_head(keypoints: int, width: int, blocks: int, dilations: int) -> int:
    """Return how many numbers the convolutions of a :class:`WarpHead` have, at least."""
    stack = 2 * 9 * width**2 * max(blocks - 1, 0)
    return stack + dilations * 9 * keypoints * (TAPS * 2 * width + keypoints)


class WarpHead(nn.Module):
    """Warps K heatmaps from a source frame to a target frame.

    At the start offsets are zero and kernels are the identity, so that the head returns its ``values``
    unchanged.

    Args:
        keypoints: K, the number of heatmaps.
        width: channels of the residual stack.
        blocks: number of residual blocks.
        dilations: one offset branch and one deformable convolution each, in heatmap pixels.
    """

    def __init__(
        self,
        keypoints: int,
        width: int = PAPER_WIDTH,
        blocks: int = PAPER_BLOCKS,
        dilations: Sequence[int] = PAPER_DILATIONS,
    ) -> None:
        super().__init__()
        self.dilations = tuple(dilations)
        self.residual_stack: nn.Module = nn.Sequential(
            *(ResidualBlock(width if n else keypoints, width) for n in range(blocks))
        )
        self.offsets = nn.ModuleList(
            nn.Conv2d(width, keypoints * TAPS * 2, 3, padding=d, dilation=d, bias=False) for d in dilations
        )
        identity = torch.zeros(keypoints, keypoints, 3, 3)
        identity[:, :, 1, 1] = torch.eye(keypoints)
        self.kernels = nn.ParameterList(nn.Parameter(identity.clone()) for _ in dilations)
        self.reset()

    def reset(self) -> None:
        """Set the start of the original: small normal weights, zero offsets (kernels stay as they are)."""
        for module in self.residual_stack.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.001)
        for parameter in self.offsets.parameters():
            nn.init.zeros_(parameter)

    def features(self, source: Tensor, target: Tensor) -> Tensor:
        """Return (B, width, H, W): what the difference of the two frames' heatmaps says of the motion."""
        return self.residual_stack(target - source)

    def branch_offsets(self, index: int, features: Tensor) -> Tensor:
        """Return (B, K * 18, H, W), in heatmap pixels: how far off its taps one dilation reads."""
        # Sums over many channels that become coordinates: they stay out of bfloat16.
        with full_precision(features.device.type):
            return self.offsets[index](features)

    def branch(self, index: int, values: Tensor, features: Tensor) -> Tensor:
        """Return (B, K, H, W): ``values`` moved by the offsets of one dilation."""
        kind = values.dtype if values.dtype == torch.float64 else torch.float32
        offsets = self.branch_offsets(index, features.to(kind))
        return deform_conv(values, offsets, self.kernels[index], self.dilations[index])

    def forward(self, values: Tensor, *, source: Tensor, target: Tensor) -> Tensor:
        """Move ``values`` from the source frame to the target frame.

        Args:
            values: (B, K, H, W) heatmaps that belong to the source frame.
            source: (B, K, H, W) heatmaps that the network sees in the source frame.
            target: (B, K, H, W) heatmaps that the network sees in the target frame.

        Returns:
            (B, K, H, W) heatmaps as seen from the target frame, in float32 (float64 for float64 values).
        """
        features = self.features(source, target)
        moved = [self.branch(n, values, features) for n in range(len(self.dilations))]
        return torch.stack(moved).mean(0)

    def read_offsets(self, source: Tensor, target: Tensor) -> list[Tensor]:
        """Return the offsets (B, K * 18, H, W) of each dilation, for :meth:`move`; arguments as above."""
        features = self.features(source, target)
        return [self.branch_offsets(n, features) for n in range(len(self.dilations))]

    def still_offsets(self, height: int, width: int) -> list[Tensor]:
        """Return the offsets of a frame warped to itself: the same for every frame of this size.

        Source and target are equal there, so that features and offsets depend on parameters and size alone.
        They are constants of the parameters as they are now: compute them anew when those change. In full
        precision whatever autocast says, without gradients.

        Args:
            height: H of the heatmaps.
            width: W of the heatmaps.

        Returns:
            (1, K * 18, H, W) for each dilation, for :meth:`move`.

        Raises:
            RuntimeError: if the head is in training mode, where batch norms depend on the whole batch.
        """
        if self.training:
            raise RuntimeError(
                "the offsets of a still frame are constants in evaluation mode only: call eval()"
            )
        like = self.kernels[0]
        nothing = like.new_zeros(1, like.shape[1], height, width)
        with torch.no_grad(), full_precision(like.device.type):
            return self.read_offsets(nothing, nothing)

    def move(self, values: Tensor, offsets: Sequence[Tensor]) -> Tensor:
        """Return what :meth:`forward` returns for values and the offsets of each dilation.

        Args:
            values: (B, K, H, W).
            offsets: (B or 1, K * 18, H, W) for each dilation, from :meth:`read_offsets` or, where source and
                target are the same heatmaps, from :meth:`still_offsets`.

        Returns:
            (B, K, H, W) in float32 (float64 for float64 values).
        """
        moved = [
            deform_conv(values, o.expand(len(values), -1, -1, -1), kernel, d)
            for o, kernel, d in zip(offsets, self.kernels, self.dilations, strict=True)
        ]
        return torch.stack(moved).mean(0)
