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

from posewarper.model.deformable import TAPS, deform_conv

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
        self.residual_stack = nn.Sequential(
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

    def branch(self, index: int, values: Tensor, features: Tensor) -> Tensor:
        """Return (B, K, H, W): ``values`` moved by the offsets of one dilation."""
        # Offsets are sums over many channels and then coordinates: both stay out of bfloat16.
        kind = values.dtype if values.dtype == torch.float64 else torch.float32
        with torch.autocast(values.device.type, enabled=False):
            offsets = self.offsets[index](features.to(kind))
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
