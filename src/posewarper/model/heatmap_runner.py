"""Crops to heatmaps, and neighbours' heatmaps summed at the present frame, in batches."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torch.fx.proxy import TraceError

from posewarper.crops import normalise
from posewarper.errors import ConfigError
from posewarper.geometry import paper_crop_transform, paper_points_to_image
from posewarper.heatmaps import (
    crop_to_heatmap,
    decode,
    encode,
    flip_heatmaps,
    heatmap_to_crop,
    paper_decode,
    paper_encode,
)
from posewarper.model.backbone import STRIDE
from posewarper.model.network import ModelSpec, PoseModel, PoseWarper
from posewarper.model.runtime import half_precision
from posewarper.structures import Floats, is_there

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


def draw_points(
    spec: ModelSpec,
    keypoints: Floats,
    centers: NDArray[np.float32],
    scales: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Return the heatmaps of keypoints as targets of the model's kind.

    Args:
        spec: of the model.
        keypoints: (n, K, 2) xy in image pixels, NaN where there is none.
        centers: (n, 2) xy of each crop's centre in image pixels.
        scales: (n, 2) width and height of each crop in units of 200 pixels.

    Returns:
        (n, K, h, w), zero where there is no keypoint or it lies far outside of the crop.
    """
    height, width = spec.crop_size
    size = height // STRIDE, width // STRIDE
    maps = []
    for points, center, scale in zip(keypoints, centers, scales, strict=True):
        own = paper_crop_transform(center, scale, 0.0, (width, height)).to_crop(points)
        if spec.targets == "exact":
            maps.append(encode(crop_to_heatmap(own, STRIDE), size, spec.sigma))
        else:
            sigma = max(1, round(spec.sigma))
            maps.append(paper_encode(own, is_there(own), (width, height), size[::-1], sigma)[0])
    return np.stack(maps)


def find_points(
    spec: ModelSpec,
    heatmaps: NDArray[np.floating],
    centers: NDArray[np.float32],
    scales: NDArray[np.float32],
) -> tuple[Floats, Floats]:
    """Return where the peaks of heatmaps lie in the image, decoded as the model's kind of targets asks for.

    Args:
        spec: of the model.
        heatmaps: (n, K, h, w).
        centers: (n, 2) xy of each crop's centre in image pixels.
        scales: (n, 2) width and height of each crop in units of 200 pixels.

    Returns:
        Points (n, K, 2) xy in image pixels, and the maxima (n, K).
    """
    exact = spec.targets == "exact"
    points, scores = decode(heatmaps) if exact else paper_decode(heatmaps)
    height, width = spec.crop_size
    found = np.empty(points.shape, np.float64)
    for n, (own, center, scale) in enumerate(zip(points, centers, scales, strict=True)):
        if exact:
            transform = paper_crop_transform(center, scale, 0.0, (width, height))
            found[n] = transform.to_image(heatmap_to_crop(own, STRIDE))
        else:
            found[n] = paper_points_to_image(own, center, scale, heatmaps.shape[:-3:-1])
    return found, np.asarray(scores, np.float64)


WEIGHTINGS = ("paper", "confidence")
PRECISIONS = ("auto", "float32", "bfloat16")
_CPU_BATCH, _GPU_BATCH = 4, 32
_LEAST_CONFIDENCE = 1e-3
_SHARPNESS = 2.0  # the power of a peak by which frames are weighed


class HeatmapEngine:
    """The network as inference uses it: no gradients, channels last, batch norms folded, bfloat16 on request.

    Warping positions stay in float32 whatever the precision.

    Args:
        model: in evaluation mode, on its device. What counts are its parameters as they are now.
        weighting: ``paper`` sums frames with the window's weights; ``confidence`` multiplies these, keypoint
            by keypoint, by how high the network's peak is in that frame.
        precision: ``float32``, ``bfloat16``, or ``auto`` for bfloat16 where it is faster.
        flip: mean of each crop's heatmaps and those of its mirror image (the paper does without).
        batch: crops, or pairs of frames, at a time; None for what suits the device.

    Raises:
        ConfigError: if a name is unknown.
    """

    def __init__(
        self,
        model: PoseModel,
        *,
        weighting: str = "paper",
        precision: str = "auto",
        flip: bool = False,
        batch: int | None = None,
    ) -> None:
        for name, known in ((weighting, WEIGHTINGS), (precision, PRECISIONS)):
            if name not in known:
                raise ConfigError(
                    "unknown setting of the network",
                    expected=", ".join(known),
                    got=name,
                    fix="use one of the names expected",
                )
        self.spec = model.spec
        self._device, self._kind = model.device, model.dtype
        self._by_confidence, self._flip = weighting == "confidence", flip
        self.halved = half_precision(self._device) if precision == "auto" else precision == "bfloat16"
        self._given = model
        self.model = fold(model, halved=self.halved) if isinstance(model, PoseWarper) else model
        self._still: tuple[Tensor, ...] | None = None
        self._batch = batch or (_CPU_BATCH if self._device.type == "cpu" else _GPU_BATCH)

    def _precision(self) -> AbstractContextManager[object]:
        if not self.halved:
            return nullcontext()
        return torch.autocast(self._device.type, dtype=torch.bfloat16)

    @torch.inference_mode()
    def heatmaps(self, crops: NDArray[np.uint8]) -> Tensor:
        """Return the heatmaps (n, K, H / 4, W / 4), on the device, of crops (n, H, W, 3) uint8 RGB."""
        parts = []
        for part in _parts(len(crops), self._batch):
            images = torch.from_numpy(normalise(crops[part], self.spec.mean, self.spec.std))
            tensor = images.to(self._device, self._kind).contiguous(memory_format=torch.channels_last)
            with self._precision():
                found = self.model.heatmaps(tensor).to(self._kind)
                if self._flip:
                    mirrored = self.model.heatmaps(tensor.flip(-1)).to(self._kind)
                    found = (found + flip_heatmaps(mirrored, self.spec.skeleton.flip_order)) / 2
            parts.append(found.contiguous())
        return torch.cat(parts)

    @torch.inference_mode()
    def aggregate(
        self,
        present: Tensor,
        own_shares: Sequence[float],
        sources: Tensor,
        targets: Sequence[int],
        shares: Sequence[float],
    ) -> Tensor:
        """Return the weighted sum of the heatmaps of each present frame and of its neighbours, warped to it.

        The present frame goes through the warp too, with a difference of zero, as in the paper.

        Args:
            present: (n, K, h, w) heatmaps of the present frames.
            own_shares: n weights of these themselves.
            sources: (m, K, h, w) heatmaps of neighbours, cut with the present frame's crop.
            targets: m positions in ``present``, whose neighbours these are.
            shares: m weights.

        Returns:
            (n, K, h, w).
        """
        if not len(targets):
            return present
        at = torch.tensor(targets, device=self._device)
        own = self._weigh(own_shares, present)
        weights = self._weigh(shares, sources)
        if self._by_confidence:  # what each keypoint's weights sum up to stays as it was
            wanted = self._tensor(own_shares).index_add(0, at, self._tensor(shares))
            total = own.index_add(0, at, weights)
            factor = wanted[:, None] / total
            own, weights = own * factor, weights * factor[at]
        summed = torch.cat([self._warp_still(present[part]) for part in self._chunks(len(present))])
        summed *= own[:, :, None, None]
        for part in self._chunks(len(sources)):
            warped = self._warp(sources[part], present[at[part]])
            summed.index_add_(0, at[part], warped * weights[part, :, None, None])
        return summed

    def _warp(self, source: Tensor, target: Tensor) -> Tensor:
        with self._precision():
            return self.model.warp(source, source=source, target=target).to(self._kind)

    def _warp_still(self, present: Tensor) -> Tensor:
        """Return what warping frames to themselves gives; its offsets are the same for all."""
        if not isinstance(self._given, PoseWarper):
            return self._warp(present, present)
        head = self._given.warp_head  # in full precision
        if self._still is None:
            self._still = head.still_offsets(*present.shape[2:])
        return head.warp_still(present, self._still).to(self._kind)

    def _tensor(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, device=self._device, dtype=self._kind)

    def _weigh(self, shares: Sequence[float], heatmaps: Tensor) -> Tensor:
        """Return (n, K) weights of n frames' heatmaps."""
        weights = self._tensor(shares)[:, None].expand(heatmaps.shape[:2])
        if not self._by_confidence:
            return weights
        return weights * heatmaps.amax((2, 3)).clamp_min(_LEAST_CONFIDENCE) ** _SHARPNESS

    def _chunks(self, n: int) -> Iterator[slice]:
        return _parts(n, self._batch)


def _parts(n: int, size: int) -> Iterator[slice]:
    for first in range(0, n, size):
        yield slice(first, min(first + size, n))
