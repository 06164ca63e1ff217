"""Optical flow by RAFT (Teed and Deng, 2020) with trained weights, one of the paper's baselines."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad
from torchvision.models.optical_flow import RAFT, Raft_Large_Weights, raft_large, raft_small

from posewarper.crops import Image
from posewarper.model.pretrained import load_torchvision

# The network works at an eighth of the picture, and halves that three times.
_MULTIPLE, _SMALLEST = 8, 128


def load_raft(weights: str | os.PathLike[str] | None = None, device: torch.device | str = "cpu") -> RAFT:
    """Return RAFT with trained weights, in evaluation mode.

    Args:
        weights: a ``.pth`` file of torchvision's ``raft_large`` or ``raft_small``, told apart by content.
            Left out: torchvision's ``C_T_SKHT_V2`` of ``raft_large``, see
            :func:`~posewarper.model.pretrained.load_torchvision`.
        device: where it is to run.

    Raises:
        ModelError: if the file is missing or holds other weights, or the download fails.
    """

    def build(state: Mapping[str, object]) -> RAFT:
        # Only the large network learns how to enlarge its flow.
        large = any(str(name).startswith("mask_predictor.") for name in state)
        return (raft_large if large else raft_small)(weights=None)

    own, otherwise = Raft_Large_Weights.C_T_SKHT_V2, "give its path; or use the method dis, without weights"
    model = load_torchvision(build, own, weights, what="torchvision's RAFT", otherwise=otherwise)
    return model.to(device).eval()


def raft_flow(model: RAFT, source: Image, target: Image) -> NDArray[np.float32]:
    """Return (H, W, 2) xy displacements in pixels from source to target, both (H, W, 3) uint8 RGB."""
    height, width = source.shape[:2]
    place = next(model.parameters()).device
    with torch.inference_mode():
        flow = model(_as_input(source).to(place), _as_input(target).to(place))[-1]
    return flow[0, :, :height, :width].permute(1, 2, 0).float().cpu().numpy()


def _as_input(image: Image) -> Tensor:
    """Return (1, 3, H', W') from -1 to 1, the last row and column repeated up to a size that RAFT takes."""
    tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 127.5 - 1
    missing = [max(-(-n // _MULTIPLE) * _MULTIPLE, _SMALLEST) - n for n in image.shape[:2]]
    return pad(tensor, (0, missing[1], 0, missing[0]), mode="replicate")
