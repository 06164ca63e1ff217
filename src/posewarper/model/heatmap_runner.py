"""Crops to heatmaps, heatmaps to points in the image, and a window's heatmaps to one sum.

Whatever shows crops to a trained network, or warps heatmaps by it, goes through :class:`HeatmapEngine`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torch.fx.proxy import TraceError

from posewarper.crops import Image, cut_instance, instance_transform, normalise
from posewarper.errors import unknown_name
from posewarper.geometry import CropTransform, pad_box, paper_center_scale, paper_points_to_image
from posewarper.heatmaps import (
    crop_to_heatmap,
    crop_to_udp,
    decode,
    encode,
    flip_heatmaps,
    heatmap_to_crop,
    paper_decode,
    paper_encode,
    udp_to_crop,
)
from posewarper.model.backbone import STRIDE
from posewarper.model.network import ModelSpec, PoseModel, PoseWarper
from posewarper.model.onnx_graph import Network, accelerate, like_crops
from posewarper.model.runtime import half_precision, precision
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
        folded.eval()  # a head that is being trained stays in training mode, though its model is not
        folded.backbone = _fold(folded.backbone)
        folded.warp_head.residual_stack = _fold(folded.warp_head.residual_stack)
        if halved:
            for part in (folded.backbone, folded.final_layer, folded.warp_head.residual_stack):
                for module in part.modules():
                    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                        module.to(torch.bfloat16)
    return folded


def _fold(network: nn.Module) -> nn.Module:
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return network
    try:
        return fuse(network)
    except _UNTRACEABLE:
        return network


@dataclass(frozen=True)
class InstanceCrops:
    """The crops of n instances, cut and read as the model's kind of targets asks for.

    Models of ``exact`` targets have crops that their boxes fill from edge to edge, cut without aliasing, and
    heatmaps that keep fractions of pixels. Those of the ``paper`` follow the original in all of it, and those
    of ``udp`` unbiased data processing, as ViTPose does: the box's edges lie on the centres of the crop's
    outer pixels, and those on the heatmap's. This is the one place that tells them apart.

    Args:
        spec: of the model.
        centers: (n, 2) xy of each crop's centre in image pixels.
        scales: (n, 2) width and height of each crop, padding included, in units of 200 pixels.
    """

    spec: ModelSpec
    centers: NDArray[np.floating]
    scales: NDArray[np.floating]

    @classmethod
    def around(cls, spec: ModelSpec, boxes: ArrayLike) -> InstanceCrops:
        """Return the crops around tight boxes (n, 4) xywh in image pixels."""
        aspect = spec.crop_size[1] / spec.crop_size[0]
        if spec.targets == "paper":
            return cls(spec, *paper_center_scale(boxes, aspect))
        padded = pad_box(boxes, aspect_ratio=aspect)
        return cls(spec, padded[:, :2] + padded[:, 2:] / 2, padded[:, 2:] / 200.0)

    def transforms(self) -> list[CropTransform]:
        """Return the n maps from image to crop pixels."""
        exact, scales = self.spec.targets != "paper", self.scales
        if self.spec.targets == "udp":
            # A box that lies half a pixel farther out, so that its own edges meet the outer pixels' centres.
            size = np.array(self.spec.crop_size[::-1], np.float64)
            scales = np.asarray(scales, np.float64) * size / (size - 1)
        return [
            instance_transform(center, scale, self.spec.crop_size, exact=exact)
            for center, scale in zip(self.centers, scales, strict=True)
        ]

    def cut(self, image: Image) -> NDArray[np.uint8]:
        """Return the crops (n, h, w, 3) uint8 RGB of one image (H, W, 3)."""
        exact = self.spec.targets == "exact"
        return np.stack([cut_instance(image, transform, exact=exact) for transform in self.transforms()])

    def draw(self, keypoints: Floats) -> NDArray[np.float32]:
        """Return the heatmaps (n, K, h, w) of keypoints (n, K, 2) in image pixels, as targets of training.

        A map is zero where its keypoint is NaN or lies far outside of the crop.
        """
        height, width = self.spec.crop_size
        size, maps = self.spec.heatmap_size, []
        for points, transform in zip(keypoints, self.transforms(), strict=True):
            own = transform.to_crop(points)
            if self.spec.targets == "exact":
                maps.append(encode(crop_to_heatmap(own, STRIDE), size, self.spec.sigma))
            elif self.spec.targets == "udp":
                maps.append(encode(crop_to_udp(own, size, self.spec.crop_size), size, self.spec.sigma))
            else:
                sigma = max(1, round(self.spec.sigma))
                maps.append(paper_encode(own, is_there(own), (width, height), size[::-1], sigma)[0])
        return np.stack(maps)

    def find(self, heatmaps: NDArray[np.floating]) -> tuple[Floats, Floats]:
        """Return the peaks of heatmaps (n, K, h, w): points (n, K, 2) xy in the image, and maxima (n, K)."""
        targets, crop = self.spec.targets, self.spec.crop_size
        points, scores = paper_decode(heatmaps) if targets == "paper" else decode(heatmaps)
        found = np.empty(points.shape, np.float64)
        if targets != "paper":
            inner = heatmaps.shape[-2], heatmaps.shape[-1]
            for n, (own, transform) in enumerate(zip(points, self.transforms(), strict=True)):
                own = heatmap_to_crop(own, STRIDE) if targets == "exact" else udp_to_crop(own, inner, crop)
                found[n] = transform.to_image(own)
        else:
            size = heatmaps.shape[:-3:-1]
            for n, own in enumerate(points):
                found[n] = paper_points_to_image(own, self.centers[n], self.scales[n], size)
        return found, np.asarray(scores, np.float64)


PRECISIONS = ("auto", "float32", "bfloat16")
_CPU_BATCH, _GPU_BATCH = 4, 32


def batches(n: int, device: torch.device, size: int | None = None) -> Iterator[slice]:
    """Yield slices of n crops or pairs of frames; ``size`` is None for what suits the device."""
    size = size or (_CPU_BATCH if device.type == "cpu" else _GPU_BATCH)
    for first in range(0, n, size):
        yield slice(first, min(first + size, n))


class HeatmapEngine:
    """The network as inference uses it: no gradients, the fastest exact way that the device has.

    On a CPU onnxruntime computes it where it can (:func:`posewarper.model.onnx_graph.accelerate`), which
    gives the same within 1e-4 of the highest value. Elsewhere, and in bfloat16, PyTorch does, with batch
    norms folded. Warping positions stay in float32 whatever the precision.

    Args:
        model: in evaluation mode, on its device. What counts are its parameters when it is first used.
        precision: ``float32``, ``bfloat16``, or ``auto`` for bfloat16 where it is faster.
        flip: mean of each crop's heatmaps and those of its mirror image (the paper does without).
        batch: crops, or pairs of frames, at a time; None for what suits the device.
        eager: leave everything to PyTorch, the reference.

    Raises:
        ConfigError: if the precision is unknown.
    """

    def __init__(
        self,
        model: PoseModel,
        *,
        precision: str = "auto",
        flip: bool = False,
        batch: int | None = None,
        eager: bool = False,
    ) -> None:
        if precision not in PRECISIONS:
            raise unknown_name("unknown precision of the network", precision, PRECISIONS)
        self.spec, self.device = model.spec, model.device
        is_faster = precision == "auto" and half_precision(model.device, model)
        self.halved = is_faster or precision == "bfloat16"
        self._given, self._flip, self._batch = model, flip, batch
        self._still: dict[tuple[int, ...], list[Tensor]] = {}  # of the last size of heatmaps
        self._accelerates = (
            isinstance(model, PoseWarper)
            and not (eager or self.halved)
            and (model.device.type, model.dtype) == ("cpu", torch.float32)
        )

    @cached_property
    def _folded(self) -> PoseModel:
        given = self._given
        return fold(given, halved=self.halved) if isinstance(given, PoseWarper) else given

    @cached_property
    def _pose(self) -> Network | None:
        """Crops (B, 3, H, W) to a list of their heatmaps, by onnxruntime."""
        if not self._accelerates:
            return None
        examples = like_crops((2, 3, *self.spec.crop_size))
        return accelerate(lambda crops: [self._given.heatmaps(crops)], {"crops": examples})

    @cached_property
    def _offsets(self) -> Network | None:
        """Two frames' heatmaps (B, K, h, w) to the offsets of each dilation, by onnxruntime."""
        if not self._accelerates:
            return None
        head = self._given.warp_head  # pyright: ignore[reportAttributeAccessIssue]
        examples = torch.relu(like_crops((4, len(self.spec.skeleton), *self.spec.heatmap_size)))
        source, target = (part.clone() for part in examples.chunk(2))
        return accelerate(head.read_offsets, {"source": source, "target": target})

    @torch.inference_mode()
    def heatmaps(self, crops: NDArray[np.uint8]) -> Tensor:
        """Return the heatmaps (n, K, H / 4, W / 4), on the device, of crops (n, H, W, 3) uint8 RGB."""
        parts = []
        for part in batches(len(crops), self.device, self._batch):
            images = torch.from_numpy(normalise(crops[part], self.spec.mean, self.spec.std))
            if self._flip:
                images = torch.cat([images, images.flip(-1)])
            found = self.see(images)
            if self._flip:
                plain, mirrored = found.chunk(2)
                found = (plain + flip_heatmaps(mirrored, self.spec.skeleton.flip_order)) / 2
            parts.append(found)
        return torch.cat(parts).contiguous()

    def see(self, images: Tensor) -> Tensor:
        """Return the heatmaps (n, K, H / 4, W / 4) of normalised crops (n, 3, H, W), all at once."""
        # A graph is made for one size; crops of another are for PyTorch.
        if images.shape[2:] == self.spec.crop_size and self._pose is not None:
            return self._pose(images)[0]
        images = images.to(self.device, self._given.dtype, memory_format=torch.channels_last)
        with precision(self.device, halved=self.halved):
            return self._folded.heatmaps(images).to(self._given.dtype)

    @torch.inference_mode()
    def warp(self, values: Tensor, *, source: Tensor, target: Tensor) -> Tensor:
        """Move heatmaps (n, K, h, w) from the source frames to the target frames, at least one.

        Args:
            values: that belong to the source frames.
            source: that the network sees in the source frames.
            target: that it sees in the target frames.
        """
        parts = batches(len(values), values.device, self._batch)
        return torch.cat([self._warp(values[part], source[part], target[part]) for part in parts])

    def _warp(self, values: Tensor, source: Tensor, target: Tensor) -> Tensor:
        if self._offsets is not None and source.shape[2:] == self.spec.heatmap_size:
            offsets = self._offsets(source, target)
            return self._given.warp_head.move(values, offsets)  # pyright: ignore[reportAttributeAccessIssue]
        with precision(values.device, halved=self.halved):
            return self._folded.warp(values, source=source, target=target).to(values.dtype)

    @torch.inference_mode()
    def aggregate(
        self,
        present: Tensor,
        own_shares: Sequence[float],
        sources: Tensor,
        targets: Sequence[int],
        shares: Sequence[float],
    ) -> Tensor:
        """Return the weighted sums (n, K, h, w) of each present frame's heatmaps and its neighbours', warped.

        The present frame goes through the warp too, with a difference of zero, as in the paper.

        Args:
            present: (n, K, h, w) heatmaps of the present frames.
            own_shares: n weights of these themselves.
            sources: (m, K, h, w) heatmaps of neighbours, cut with the present frame's crop.
            targets: m positions in ``present``, whose neighbours these are.
            shares: m weights.
        """
        place = {"device": present.device, "dtype": present.dtype}
        at = torch.tensor(targets, device=present.device, dtype=torch.int64)
        own, weights = torch.tensor(own_shares, **place), torch.tensor(shares, **place)
        parts = batches(len(present), present.device, self._batch)
        summed = torch.cat([self._warp_still(present[part]) for part in parts])
        summed *= own[:, None, None, None]
        for part in batches(len(sources), present.device, self._batch):
            warped = self._warp(sources[part], sources[part], present[at[part]])
            summed.index_add_(0, at[part], warped * weights[part, None, None, None])
        return summed

    def _warp_still(self, present: Tensor) -> Tensor:
        """Return what warping frames to themselves gives; its offsets are the same for all."""
        if not isinstance(self._given, PoseWarper):
            return self._warp(present, present, present)
        head = self._given.warp_head  # in full precision
        size = present.shape[2:]
        if size not in self._still:
            self._still = {size: head.still_offsets(*size)}
        return head.move(present, self._still[size]).to(present.dtype)
