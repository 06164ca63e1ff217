"""From the coarse feature map of any network to a quarter of the crop, where heatmaps live."""

from __future__ import annotations

from torch import nn

WIDTH = 256


class UpsamplingHead(nn.Sequential):
    """(B, channels, h, w) -> (B, C, h * 2 ** doublings, w * 2 ** doublings), by transposed convolutions.

    Each doubling is followed by batch norm and ReLU, as in the heads of Simple Baselines and ViTPose.

    Args:
        channels: of the map that comes in.
        doublings: how many times it is doubled; with 0 the map leaves as it came.
        width: channels of every doubled map; ``self.channels``, C above, is this or, without doublings, what
            comes in.
    """

    def __init__(self, channels: int, doublings: int, width: int = WIDTH) -> None:
        layers: list[nn.Module] = []
        for index in range(doublings):
            layers += [
                nn.ConvTranspose2d(width if index else channels, width, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)
        self.channels = width if doublings else channels
