"""The paper's loss: squared differences between heatmaps, weighted by keypoint."""

from __future__ import annotations

from torch import Tensor


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


def hard_keypoint_loss(predicted: Tensor, target: Tensor, weights: Tensor, hardest: int = 8) -> Tensor:
    """Return the loss of each sample's hardest keypoints only (online hard keypoint mining).

    Each keypoint of each sample has the loss of :func:`heatmap_loss` over its own map; the mean runs over the
    ``hardest`` largest of each sample.

    Args:
        predicted: (B, K, H, W).
        target: (B, K, H, W), finite also where the weight is 0.
        weights: (B, K), 0 for keypoints without a label.
        hardest: how many keypoints of a sample count; all, if it has no more.

    Returns:
        A scalar.
    """
    factor = weights[..., None, None]
    losses = 0.5 * ((predicted * factor - target * factor) ** 2).mean(dim=(2, 3))
    return losses.topk(min(hardest, losses.shape[1]), dim=1).values.mean()
