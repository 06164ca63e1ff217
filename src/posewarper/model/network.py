"""The whole network: crops -> heatmaps, and heatmaps of one frame -> heatmaps as seen from another."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from posewarper.crops import IMAGENET_MEAN, IMAGENET_STD
from posewarper.model.backbone import STRIDE, build_backbone, final_kernel
from posewarper.model.warping import PAPER_BLOCKS, PAPER_DILATIONS, PAPER_WIDTH, WarpHead
from posewarper.skeletons import Skeleton

_LARGEST = 8192  # side of a crop, width of a head, ...: more is damage


@dataclass(frozen=True)
class ModelSpec:
    """What a checkpoint must say of itself, so that it can be used without asking anyone.

    Args:
        backbone: timm name, see :func:`posewarper.model.backbone.build_backbone`.
        skeleton: the keypoints, in the order of the heatmaps.
        crop_size: (height, width) of the crops in pixels.
        sigma: of the target Gaussians, in heatmap pixels.
        mean: of RGB from 0 to 1, taken from the crops.
        std: of RGB, by which the crops are divided.
        head_width: channels of the warp head's residual stack.
        head_blocks: its residual blocks.
        head_dilations: its dilations in heatmap pixels.
        batch_norm: what the batch norms did in training.
        trained: stage -> iterations done; a stage that is missing was not trained. Of released weights all
            that is known are the batches that the stage's first batch norm has counted; 1 where it has none.
        provenance: where the weights come from: version, video, labels, seed.
        targets: ``paper`` if it was trained on Gaussians on whole heatmap pixels, ``exact`` if on unrounded
            ones, ``udp`` if on unrounded ones of unbiased data processing (Huang et al., CVPR 2020), where
            the corner pixels of heatmap and crop lie on each other; crops and heatmaps are read accordingly.
        neck: how the backbone's feature maps become one, see
            :func:`~posewarper.model.backbone.build_backbone`.
    """

    backbone: str
    skeleton: Skeleton
    crop_size: tuple[int, int]
    sigma: float
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    head_width: int = PAPER_WIDTH
    head_blocks: int = PAPER_BLOCKS
    head_dilations: tuple[int, ...] = PAPER_DILATIONS
    batch_norm: str = "batch statistics in training, running statistics in use"
    trained: dict[str, int] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    targets: str = "paper"
    neck: str = "upsampling"

    @property
    def heatmap_size(self) -> tuple[int, int]:
        """(height, width) of the heatmaps: a quarter of the crop's."""
        return self.crop_size[0] // STRIDE, self.crop_size[1] // STRIDE

    @property
    def stopped(self) -> str:
        """Where its training on a clip was stopped: "iteration 1 of 240 (...)"; else empty."""
        return str(self.provenance.get("stopped", ""))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values (numbers, strings, lists, dicts) that :meth:`from_dict` takes back."""
        return asdict(self)

    def describe(self) -> dict[str, Any]:
        """Return what a user wants to know of it, as plain values."""
        described = self.to_dict()
        skeleton = described.pop("skeleton")
        return {**described, "keypoints": skeleton["names"], "heatmap_size": self.heatmap_size}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelSpec:
        """Build the specification from the values of :meth:`to_dict`.

        Raises:
            ValueError, TypeError, KeyError, LabelsError: if a value is missing or none that a model can have.
        """
        if not is_small(values):
            raise ValueError("a description with other things than a few thousand plain values")
        known = dict(values)
        skeleton = known.pop("skeleton")
        tuples = {n: tuple(known[n]) for n in ("crop_size", "mean", "std", "head_dilations")}
        spec = cls(skeleton=Skeleton(**skeleton), **{**known, **tuples})
        whole = (spec.head_width, *spec.crop_size, *spec.head_dilations, spec.head_blocks + 1)
        sound = {
            "crop_size": len(spec.crop_size) == 2,
            "sizes and blocks": all(type(n) is int and 1 <= n <= _LARGEST for n in whole),
            "head_dilations": 1 <= len(spec.head_dilations) <= 100,
            "mean": len(spec.mean) == 3 and all(map(math.isfinite, spec.mean)),
            "std": len(spec.std) == 3 and all(0 < n < math.inf for n in spec.std),
            "sigma": 0 < spec.sigma < _LARGEST,
            "targets": spec.targets in ("paper", "exact", "udp"),
            "trained": all(type(n) is int for n in spec.trained.values()),
            "provenance": isinstance(spec.provenance, Mapping),
        }
        if wrong := [name for name, good in sound.items() if not good]:
            raise ValueError(f"an impossible {', '.join(wrong)}")
        return spec


def is_small(value: object, most: int = 20_000) -> bool:
    """Return whether a value holds plain values alone and not too many: a pickle can repeat one endlessly."""
    left, count = [value], 0
    while left and count <= most:
        item, count = left.pop(), count + 1
        if isinstance(item, Mapping):
            left += [*item, *item.values()]
        elif isinstance(item, list | tuple):
            left += item
        elif not isinstance(item, str | int | float | None):
            return False
    return not left and count <= most


class PoseModel(Protocol):
    """What inference asks of a model: a :class:`PoseWarper`, or one that was exported and read again."""

    @property
    def spec(self) -> ModelSpec:
        """What the model is: keypoints, size of the crops, normalisation, what was trained."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it wants its inputs and leaves its outputs."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Which numbers it wants."""
        ...

    def fingerprint(self) -> str:
        """Return a hash over all parameters, the same for equal models."""
        ...

    def heatmaps(self, crops: Tensor) -> Tensor:
        """Map normalised crops (B, 3, H, W) to heatmaps (B, K, H / 4, W / 4)."""
        ...

    def warp(self, values: Tensor, *, source: Tensor, target: Tensor) -> Tensor:
        """Move heatmaps (B, K, h, w) from the source frame to the target frame."""
        ...


class PoseWarper(nn.Module):
    """Pose network and warp head together, as a specification describes them."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        keypoints = len(spec.skeleton)
        self.backbone, channels = build_backbone(spec.backbone, spec.crop_size, spec.neck)
        kernel = final_kernel(spec.neck)
        self.final_layer = nn.Conv2d(channels, keypoints, kernel, padding=kernel // 2)
        nn.init.normal_(self.final_layer.weight, std=0.001)
        assert self.final_layer.bias is not None
        nn.init.zeros_(self.final_layer.bias)
        self.warp_head = WarpHead(keypoints, spec.head_width, spec.head_blocks, spec.head_dilations)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.final_layer.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the parameters."""
        return self.final_layer.weight.dtype

    def fingerprint(self) -> str:
        """Return a hash over names and bytes of every parameter and buffer, the same for equal models."""
        digest = hashlib.sha256()
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def heatmaps(self, crops: Tensor) -> Tensor:
        """Map normalised crops (B, 3, H, W) to heatmaps (B, K, H / 4, W / 4)."""
        return self.final_layer(self.backbone(crops)[0])

    def warp(self, values: Tensor, *, source: Tensor, target: Tensor) -> Tensor:
        """Move heatmaps from the source frame to the target frame; see :class:`WarpHead`."""
        return self.warp_head(values, source=source, target=target)

    def record(self, stage: str, iterations: int) -> None:
        """Note in the specification how far a stage was trained."""
        self.spec = replace(self.spec, trained={**self.spec.trained, stage: iterations})

    def note(self, **facts: Any) -> None:
        """Add to the specification where the weights come from."""
        self.spec = replace(self.spec, provenance={**self.spec.provenance, **facts})

    def forward(self, target: Tensor, supports: Sequence[Tensor]) -> list[Tensor]:
        """Return the heatmaps of each support crop (B, 3, H, W), warped to the target crop's frame."""
        here = self.heatmaps(target)
        there = [self.heatmaps(support) for support in supports]
        return [self.warp(h, source=h, target=here) for h in there]


def count_parameters(module: nn.Module) -> int:
    """Return how many numbers a module learns."""
    return sum(p.numel() for p in module.parameters())
