"""One labelled frame's instances, carried to other frames: by the warp head, or seen anew by the network.

All frames are seen in the crops of the labelled frame; targets and decoding are of the model's kind.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posewarper.crops import normalise
from posewarper.heatmaps import decode
from posewarper.inference.heatmap_points import draw_points, find_points
from posewarper.model.network import PoseWarper
from posewarper.structures import Floats, is_there

# Crops or pairs in one pass of the network.
_CPU_BATCH, _GPU_BATCH = 16, 64


@dataclass(frozen=True)
class InstanceCrops:
    """The crops of n instances.

    Args:
        centers: (n, 2) xy of each crop's centre in image pixels.
        scales: (n, 2) width and height of each crop in units of 200 pixels.
    """

    centers: NDArray[np.float32]
    scales: NDArray[np.float32]


@dataclass(frozen=True)
class Carried:
    """Keypoints of n instances on m frames.

    Args:
        points: (m, n, K, 2) xy in image pixels, NaN where there is none.
        scores: (m, n, K), NaN where there is none.
        cycle: (m, n, K) how far off a keypoint comes back to its label, in shares of the crop's longer side;
            None where that was not asked for.
    """

    points: Floats
    scores: Floats
    cycle: Floats | None = None


@torch.inference_mode()
def see_crops(model: PoseWarper, crops: NDArray[np.uint8], batch: int | None = None) -> Tensor:
    """Return the heatmaps (F, n, K, h, w) of crops (F, n, H, W, 3) uint8 RGB."""
    images = crops.reshape(-1, *crops.shape[2:])
    parts = []
    for first in range(0, len(images), _size(model, batch)):
        own = normalise(images[first : first + _size(model, batch)], model.spec.mean, model.spec.std)
        parts.append(model.heatmaps(torch.from_numpy(own).to(model.device, model.dtype)))
    return torch.cat(parts).unflatten(0, crops.shape[:2])


def draw_labels(model: PoseWarper, keypoints: Floats, where: InstanceCrops) -> Tensor:
    """Return the targets (n, K, h, w) of labels (n, K, 2) in image pixels, zero where there is none."""
    maps = draw_points(model.spec, keypoints, where.centers, where.scales)
    return torch.from_numpy(maps).to(model.device, model.dtype)


def carry_by_warping(
    model: PoseWarper,
    heatmaps: Tensor,
    keypoints: Floats,
    where: InstanceCrops,
    *,
    cycle: bool = False,
    batch: int | None = None,
) -> Carried:
    """Warp the labels of a frame to other frames: the paper's propagation.

    Args:
        model: its head warps, from the labelled frame as source to each other frame as target.
        heatmaps: (1 + m, n, K, h, w) seen by the network, the labelled frame first.
        keypoints: (n, K, 2) labels in image pixels.
        where: the crops that the heatmaps are of.
        cycle: also warp back, see :func:`cycle_error`.
        batch: pairs at a time; None for what suits the device.

    Returns:
        Keypoints with the warped maximum as score. A keypoint without label, or whose target leaves no
        trace in the crop, is absent.
    """
    values = draw_labels(model, keypoints, where)
    m = len(heatmaps) - 1
    pairs = [
        tensor.flatten(0, 1)
        for tensor in (values.expand(m, *values.shape), heatmaps[:1].expand_as(heatmaps[1:]), heatmaps[1:])
    ]
    moved, errors = [], []
    for value, source, target in zip(*(pair.split(_size(model, batch)) for pair in pairs), strict=True):
        with torch.inference_mode():
            warped = model.warp(value, source=source, target=target)
        moved.append(warped.cpu().numpy())
        if cycle:
            errors.append(cycle_error(model, value, warped, source=source, target=target))
    has = (values.amax(dim=(-2, -1)) > 0).cpu().numpy()
    found = _decode(model, np.concatenate(moved).reshape(m, *values.shape), where, has)
    shares = np.concatenate(errors).reshape(found.scores.shape) / max(model.heatmap_size) if cycle else None
    return Carried(found.points, found.scores, shares)


@torch.inference_mode()
def cycle_error(
    model: PoseWarper, values: Tensor, warped: Tensor | None = None, *, source: Tensor, target: Tensor
) -> Floats:
    """Warp labelled heatmaps from the source frame to the target and back, and measure what is lost.

    Args:
        model: its head warps.
        values: (B, K, h, w) labelled heatmaps of the source frame.
        warped: ``values`` as they are in the target frame, where that is known already.
        source: (B, K, h, w) what the network sees in the source frame.
        target: (B, K, h, w) what it sees in the target frame.

    Returns:
        (B, K) distances in heatmap pixels between the peaks of ``values`` and of what came back, to a
        fraction of a pixel; meaningless where a map of ``values`` is empty.
    """
    there = model.warp(values, source=source, target=target) if warped is None else warped
    back = model.warp(there, source=target, target=source)
    (start, _), (end, _) = (decode(maps.cpu().numpy()) for maps in (values, back))
    return np.linalg.norm(end - start, axis=-1)


def find_anew(model: PoseWarper, heatmaps: Tensor, keypoints: Floats, where: InstanceCrops) -> Carried:
    """Return what the network itself says of other frames, in the crops of the labelled one.

    Args:
        model: that made them.
        heatmaps: (m, n, K, h, w) of the other frames.
        keypoints: (n, K, 2) labels; keypoints without one are absent on the other frames, too.
        where: the crops that the heatmaps are of.

    Returns:
        Keypoints with the heatmaps' maxima as scores.
    """
    return _decode(model, heatmaps.cpu().numpy(), where, is_there(keypoints))


def _decode(
    model: PoseWarper, heatmaps: NDArray[np.floating], where: InstanceCrops, has: NDArray[np.bool_]
) -> Carried:
    """Decode heatmaps (m, n, K, h, w) into image pixels; of the keypoints only ``has`` (n, K) are kept."""
    centers, scales = (np.tile(column, (len(heatmaps), 1)) for column in (where.centers, where.scales))
    points, scores = find_points(model.spec, heatmaps.reshape(-1, *heatmaps.shape[2:]), centers, scales)
    points, scores = points.reshape(*heatmaps.shape[:3], 2), scores.reshape(heatmaps.shape[:3])
    return Carried(np.where(has[..., None], points, np.nan), np.where(has, scores, np.nan))


def _size(model: PoseWarper, batch: int | None) -> int:
    return batch or (_CPU_BATCH if model.device.type == "cpu" else _GPU_BATCH)
