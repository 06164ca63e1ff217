"""Released weights, of the original and of mmpose 0.x, read strictly: every tensor has its place or a reason.

What a file of theirs does not say is taken from the original's setup: crops of 384 x 288, sigma 3, colours
normalised as for ImageNet, and PoseTrack's keypoints where there are 17.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from posewarper.errors import ConfigError, ModelError
from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.model.warping import PAPER_BLOCKS, PAPER_DILATIONS, PAPER_WIDTH
from posewarper.skeletons import POSETRACK, Skeleton

# Layers that some files hold and that no heatmap depends on, by our names, with the reason.
_UNUSED = (
    (re.compile(r"backbone\.(incre_modules|downsamp_modules|classifier)\."), "part of an image classifier"),
    (re.compile(r"backbone\.stage4\.2\.fuse_layers\.[123]\."), "feeds a coarser branch that nothing reads"),
)


@dataclass(frozen=True)
class Layout:
    """A way in which released checkpoints name their tensors.

    Args:
        title: what to call it in messages.
        theirs: from our name of a tensor, or the beginning of one, to its name there.
        has_head: whether a warp head is there beside the pose network.
        batch_norm: what the batch norms did in training.
    """

    title: str
    theirs: Callable[[str], str]
    has_head: bool
    batch_norm: str

    def reason_unused(self, name: str) -> str | None:
        """Return why the model has no place for a tensor with this name; None if that is not known."""
        backbone = self.theirs("backbone.")
        ours = "backbone." + name.removeprefix(backbone)
        return next((reason for pattern, reason in _UNUSED if pattern.match(ours)), None)


def original_name(ours: str) -> str:
    """Return the original's name of one of our tensors.

    Example:
        >>> original_name("backbone.conv1.weight"), original_name("warp_head.kernels.0")
        ('conv1.weight', 'deform_conv1.weight')
    """
    name = ours.removeprefix("backbone.").replace("warp_head.residual_stack.", "offset_feats.")
    name = re.sub(r"^warp_head\.offsets\.(\d+)", lambda m: f"offsets{int(m[1]) + 1}", name)
    return re.sub(r"^warp_head\.kernels\.(\d+)", lambda m: f"deform_conv{int(m[1]) + 1}.weight", name)


def mmpose_first_name(ours: str) -> str:
    """Return the name of one of our tensors in the first stage of mmpose 0.x, the pose network.

    Example:
        >>> mmpose_first_name("final_layer.bias")
        'keypoint_head.final_layer.bias'
    """
    return re.sub(r"^final_layer\.", "keypoint_head.final_layer.", ours)


def mmpose_second_name(ours: str) -> str:
    """Return the name of one of our tensors in the second stage of mmpose 0.x, the whole.

    Example:
        >>> mmpose_second_name("warp_head.offsets.4.weight"), mmpose_second_name("final_layer.bias")
        ('neck.offset_layers.4.weight', 'neck.trans_layer.bias')
    """
    name = re.sub(r"^final_layer\.", "neck.trans_layer.", ours)
    name = name.replace("warp_head.residual_stack.", "neck.offset_feats.")
    name = name.replace("warp_head.offsets.", "neck.offset_layers.")
    return re.sub(r"^warp_head\.kernels\.(\d+)", r"neck.deform_conv_layers.\1.weight", name)


_USUAL = "batch statistics in training, running statistics in use"
_UNTOLD = "not told by the file; running statistics in use"
_ORIGINAL_POSE = Layout("pose network of the original", original_name, False, _USUAL)
_ORIGINAL_WHOLE = Layout(
    "PoseWarper of the original",
    original_name,
    True,
    "batch statistics in training, in the frozen pose network too; running statistics in use",
)
_MMPOSE_FIRST = Layout("PoseWarper of mmpose 0.x, stage 1", mmpose_first_name, False, _UNTOLD)
_MMPOSE_SECOND = Layout("PoseWarper of mmpose 0.x, stage 2", mmpose_second_name, True, _UNTOLD)


def recognised_layout(names: Iterable[str]) -> Layout | None:
    """Return the layout to which tensors with these names belong, or None if they are not of an HRNet."""
    names = list(names)

    def some(pattern: str) -> bool:
        return any(re.match(pattern, name) for name in names)

    if some(r"neck\."):
        return _MMPOSE_SECOND
    if some(r"backbone\.stage[234]\."):
        return _MMPOSE_FIRST
    if some(r"offset_feats\.|offsets\d|deform_conv\d"):
        return _ORIGINAL_WHOLE
    return _ORIGINAL_POSE if some(r"stage[234]\.") else None


PAPER_CROP, PAPER_SIGMA = (384, 288), 3.0
_KEYPOINTS, _WIDTHS = 17, (48, 32)
_MOST_NAMES = 10
_BLOCK_PARTS = tuple(
    f"{layer}.{part}"
    for n in (1, 2)
    for layer, part in (
        (f"conv{n}", "weight"),
        *((f"bn{n}", p) for p in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
    )
)


@dataclass(frozen=True)
class _Weights:
    """The tensors of a file by their names there, less the prefix that all of them may have."""

    path: str | os.PathLike[str]
    tensors: Mapping[str, Any]
    prefix: str
    layout: Layout

    def shape(self, ours: str) -> tuple[int, ...]:
        """Return the shape of the tensor that has this name with us, empty if it is absent."""
        value = self.tensors.get(self.layout.theirs(ours))
        return tuple(value.shape) if isinstance(value, Tensor) else ()

    def size(self, names: Iterable[str], usual: int) -> int:
        """Return the first dimension that most of our tensors with these names have; the usual in a tie."""
        found = Counter(shape[0] for name in names if (shape := self.shape(name)))
        return max(found, key=lambda size: (found[size], size == usual), default=usual)


def build_released(
    content: Mapping[str, Any],
    path: str | os.PathLike[str],
    sha256: str,
    *,
    skeleton: Skeleton | None = None,
    crop_size: tuple[int, int] | None = None,
) -> PoseWarper:
    """Build a model from what a released checkpoint holds.

    A pose network alone gets the warp head that the paper's training starts from, which returns heatmaps
    unmoved; ``spec.trained`` then has no entry ``warp``.

    Args:
        content: the tensors by name, or ``{"state_dict": ...}``; names with or without ``module.``.
        path: where it comes from, for messages and the provenance.
        sha256: of the file.
        skeleton: the keypoints; PoseTrack's if there are 17 and this is left out.
        crop_size: (height, width) of the crops in pixels; 384 x 288 if left out.

    Raises:
        ModelError: if a tensor is missing, left over or misshapen, or nothing here is known.
        ConfigError: if the crop's size does not fit an HRNet.
    """
    weights, beside = _find_weights(content, path)
    spec = _read_spec(weights, skeleton, _checked_crop(crop_size or PAPER_CROP))
    unused = beside + _match(weights, spec)
    told = {"skeleton": skeleton, "crop_size": crop_size, "head_dilations": not weights.layout.has_head}
    provenance = {
        "weights": weights.layout.title,
        "file": os.path.basename(os.fspath(path)),
        "sha256": sha256,
        "unused": unused,
        "assumed": [name for name, value in told.items() if not value] + ["sigma", "mean", "std"],
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # for the head, where the file has none: a file always gives the same model
        model = PoseWarper(replace(spec, provenance=provenance))
    theirs = weights.layout.theirs
    filled = {name: weights.tensors[theirs(name)] for name in _places(model, weights.layout)}
    model.load_state_dict({**model.state_dict(), **filled})
    return model


def _find_weights(content: Mapping[str, Any], path: str | os.PathLike[str]) -> tuple[_Weights, list[str]]:
    """Return the tensors of a file, and what lies beside them, with the reason why it is not used."""
    wrapped = isinstance(content.get("state_dict"), dict)
    tensors = content["state_dict"] if wrapped else content
    beside = (
        [f"{name}: lies beside the weights" for name in content if name != "state_dict"] if wrapped else []
    )
    named = bool(tensors) and all(isinstance(name, str) for name in tensors)
    prefix = "module." if named and all(name.startswith("module.") for name in tensors) else ""
    layout = recognised_layout(name.removeprefix(prefix) for name in tensors) if named else None
    if layout is None:
        raise ModelError(
            "this is not a checkpoint of posewarper, nor released weights of an HRNet or a PoseWarper",
            path=path,
            got=_listed(map(str, tensors)) or "nothing",
            fix="give a model.pt that posewarper wrote, or weights (.pth) of the original or of mmpose 0.x",
        )
    bare = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return _Weights(path, bare, prefix, layout), beside


def _checked_crop(size: tuple[int, int]) -> tuple[int, int]:
    if len(size) != 2 or min(size) < 32 or any(n % 32 for n in size):
        raise ConfigError(
            "this network cannot see crops of such a size",
            expected="height and width in multiples of 32",
            got=" x ".join(map(str, size)),
            fix="give another size; the original's is 384 x 288",
        )
    return size


def _read_spec(weights: _Weights, skeleton: Skeleton | None, crop_size: tuple[int, int]) -> ModelSpec:
    """Tell the architecture by the shapes.

    Raises:
        ModelError: if it is not one that we know, or has not as many keypoints as the skeleton.
    """
    path, layout = weights.path, weights.layout
    branch = [f"backbone.stage2.0.branches.0.{n}.conv{i}.weight" for n in range(4) for i in (1, 2)]
    channels = weights.size(branch, _WIDTHS[0])
    if channels not in _WIDTHS:
        expected = " or ".join(f"HRNet-W{n}" for n in sorted(_WIDTHS))
        fix = "take weights of one of these"
        got = f"a finest branch of {channels} channels"
        raise ModelError("this backbone is not known", path=path, expected=expected, got=got, fix=fix)
    kernels = [f"warp_head.kernels.{n}" for n in range(len(PAPER_DILATIONS))]
    keypoints = weights.size(("final_layer.weight", "final_layer.bias", *kernels), _KEYPOINTS)
    if skeleton is None and keypoints == len(POSETRACK):
        skeleton = POSETRACK
    if skeleton is None or len(skeleton) != keypoints:
        raise ModelError(
            f"these weights have {keypoints} keypoints, whose names the file does not tell",
            path=path,
            expected="a skeleton with as many keypoints",
            got="none" if skeleton is None else f"one with {len(skeleton)}",
            fix="name the skeleton: `posewarper convert IN.pth OUT.pt --skeleton NAME`, or in Python "
            "load_model(path, skeleton=Skeleton(names=...))",
        )
    head: dict[str, Any] = {}
    if layout.has_head:
        blocks = _count_blocks(weights)
        firsts = [f"warp_head.residual_stack.{n}.conv2.weight" for n in range(blocks)]
        head = {"head_blocks": blocks, "head_width": weights.size(firsts, PAPER_WIDTH)}
    counts = {"pose": "backbone.bn1", **({"warp": "warp_head.residual_stack.0.bn1"} if head else {})}
    return ModelSpec(
        *(f"hrnet_w{channels}", skeleton, crop_size, PAPER_SIGMA),
        **head,
        batch_norm=layout.batch_norm,
        trained={stage: _count_batches(weights, name) for stage, name in counts.items()},
    )


def _count_blocks(weights: _Weights) -> int:
    """Return the number of residual blocks, of which one that lacks a few of its tensors still counts."""
    theirs = weights.layout.theirs("warp_head.residual_stack.")
    numbers = {name.removeprefix(theirs).split(".")[0] for name in weights.tensors if name.startswith(theirs)}

    def is_block(n: str) -> bool:
        there = sum(f"{theirs}{n}.{part}" in weights.tensors for part in _BLOCK_PARTS)
        return n.isdecimal() and 2 * there > len(_BLOCK_PARTS)

    return 1 + max((int(n) for n in numbers if is_block(n)), default=PAPER_BLOCKS - 1)


def _count_batches(weights: _Weights, norm: str) -> int:
    # The only trace of how long a stage was trained; some files have it set to 0.
    counted = weights.tensors.get(weights.layout.theirs(f"{norm}.num_batches_tracked"))
    return max(int(counted), 1) if isinstance(counted, Tensor) and counted.numel() == 1 else 1


def _places(model: PoseWarper, layout: Layout) -> dict[str, Tensor]:
    """Return the tensors of a model that a file of this layout has to fill, by our names."""
    state = model.state_dict()
    return {n: v for n, v in state.items() if layout.has_head or not n.startswith("warp_head.")}


def _match(weights: _Weights, spec: ModelSpec) -> list[str]:
    """Return the tensors that are not needed, each with the reason.

    Raises:
        ModelError: if any other is left over, or one is missing or misshapen.
    """
    with torch.device("meta"):  # shapes alone
        places = _places(PoseWarper(spec), weights.layout)
    wanted = {weights.layout.theirs(name): tuple(value.shape) for name, value in places.items()}
    reasons = {n: weights.layout.reason_unused(n) for n in weights.tensors if n not in wanted}
    wrong = []
    for name, shape in wanted.items():
        value = weights.tensors.get(name)
        if isinstance(value, Tensor) and tuple(value.shape) != shape:
            wrong.append(f"{weights.prefix}{name} ({_as_text(value.shape)}, not {_as_text(shape)})")
        elif name in weights.tensors and not isinstance(value, Tensor):
            wrong.append(f"{weights.prefix}{name} (no tensor)")
        elif isinstance(value, Tensor) and value.is_floating_point() == name.endswith("num_batches_tracked"):
            wrong.append(f"{weights.prefix}{name} ({value.dtype})")
    problems = {
        "missing": [weights.prefix + name for name in wanted if name not in weights.tensors],
        "left over": [weights.prefix + name for name, reason in reasons.items() if reason is None],
        "misshapen": wrong,
    }
    if any(problems.values()):
        head = f" and a head of {spec.head_blocks} blocks" if weights.layout.has_head else ""
        raise ModelError(
            f"these weights do not fit the network that they look like ({weights.layout.title})",
            path=weights.path,
            expected=f"{len(wanted)} tensors of {spec.backbone} with {len(spec.skeleton)} keypoints{head}",
            got="; ".join(f"{len(n)} {kind}: {_listed(n)}" for kind, n in problems.items() if n),
            fix="take the file as it was released; it was changed, or belongs to another network",
        )
    return [f"{weights.prefix}{name}: {reason}" for name, reason in reasons.items()]


def _as_text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more
