"""A trained network as inference runs it: fewer passes over its feature maps, the same function."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.fx.experimental.optimization import fuse
from torch.fx.proxy import TraceError

from posewarper.model.network import PoseWarper

# What tracing refuses: control flow that depends on values, and calls that leave no trace.
_UNTRACEABLE = (TraceError, TypeError, NotImplementedError, AttributeError)


def fold(model: PoseWarper, *, halved: bool = False) -> PoseWarper:
    """Return a copy whose batch norms are part of the convolutions before them.

    In evaluation mode a batch norm multiplies and shifts each channel by constants, which a convolution's
    kernels and bias can do as well: the function stays the same up to rounding (1e-5 of the largest value is
    tested), and a pass over every feature map is saved. Parts that cannot be traced stay as they are.

    Args:
        model: in evaluation mode; it is left alone, and later changes to it do not reach the copy.
        halved: keep kernels in bfloat16, for use under autocast, which else rounds them anew in every pass.
            Those that yield offsets of the warp stay in full precision.

    Raises:
        RuntimeError: if the model is in training mode.
    """
    if model.training:
        raise RuntimeError("batch norms are constants in evaluation mode only: call eval()")
    with torch.inference_mode(False), torch.no_grad():
        folded = copy.deepcopy(model).requires_grad_(False)
        folded.backbone = _fold(folded.backbone)
        folded.warp_head.residual_stack = _fold(folded.warp_head.residual_stack)
        if halved:
            for part in (folded.backbone, folded.final_layer, folded.warp_head.residual_stack):
                _halve(part)
    return folded


def _fold(network: nn.Module) -> nn.Module:
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return network
    try:
        return fuse(network)
    except _UNTRACEABLE:
        return network


def _halve(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            module.to(torch.bfloat16)
