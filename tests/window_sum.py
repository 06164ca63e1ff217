"""The paper's sum over a window, written as its formula: one warp a frame, all weighted and added."""

from __future__ import annotations

import torch
from torch import Tensor


def aggregate_heatmaps(model, heatmaps: Tensor, weights) -> Tensor:
    """Warp each frame's heatmaps (F, B, K, h, w), the present frame first, to the present frame; sum them."""
    shares = torch.as_tensor(weights, dtype=heatmaps.dtype, device=heatmaps.device)
    shares = shares.reshape(len(heatmaps), -1, 1, 1, 1)
    warped = [
        share * model.warp(source, source=source, target=heatmaps[0])
        for share, source in zip(shares, heatmaps, strict=True)
    ]
    return torch.stack(warped).sum(0)


def predict_heatmaps(model, crops: Tensor, weights) -> Tensor:
    """Return the heatmaps (B, K, h, w) of normalised crops (F, B, 3, H, W), the present frame first."""
    f, b = crops.shape[:2]
    heatmaps = model.heatmaps(crops.flatten(0, 1)).unflatten(0, (f, b))
    return heatmaps[0] if f == 1 else aggregate_heatmaps(model, heatmaps, weights)
