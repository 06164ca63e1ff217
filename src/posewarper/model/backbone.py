"""The per-frame network's trunk: timm's HRNet, cut down to the branch at a quarter of the crop's size."""

from __future__ import annotations

import timm
from torch import nn

from posewarper.errors import ModelError

STRIDE = 4


def build_backbone(name: str) -> tuple[nn.Module, int]:
    """Build an HRNet by its timm name, with random weights.

    Only the finest branch leaves the last stage, so the layers that feed the other branches are dropped: the
    output stays the same, and the parameters are those of the original's checkpoints.

    Args:
        name: ``hrnet_w18_small``, ``hrnet_w32``, ``hrnet_w48``, ...

    Returns:
        The network, (B, 3, H, W) -> [(B, C, H / 4, W / 4)], and C.

    Raises:
        ModelError: if timm has no such HRNet.
    """
    known = timm.list_models("hrnet*")
    if name not in known:
        raise ModelError(
            "unknown backbone", expected=", ".join(known), got=name, mend="use one of the names expected"
        )
    network = timm.create_model(
        name, pretrained=False, features_only=True, feature_location="", out_indices=(1,)
    )
    last = network.get_submodule("stage4")[-1]  # type: ignore[index]
    last.fuse_layers = last.fuse_layers[:1]
    return network, network.feature_info.channels()[0]  # type: ignore[union-attr, operator]
