"""Weights that others have released: the original's and those of mmpose 0.x.

Reading is strict: each tensor of a file either finds its place in our network or is named as not used.

What these files do not say is taken from the original's setup: crops of 384 x 288, sigma 3, colours
normalised as for ImageNet, and PoseTrack's keypoints where there are 17.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from posewarper.errors import ModelError, few_of
from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.model.warping import PAPER_BLOCKS, PAPER_DILATIONS, PAPER_WIDTH
from posewarper.skeletons import POSETRACK, Skeleton

FIX = "give a model.pt that posewarper wrote, or weights (.pth) of the original or of mmpose 0.x"
PAPER_CROP, PAPER_SIGMA = (384, 288), 3.0
_KEYPOINTS, _WIDTHS = 17, (48, 32)
# Layers that some files hold and that no heatmap depends on, by our names, with the reason.
_UNUSED = (
    (re.compile(r"backbone\.(incre_modules|downsamp_modules|classifier)\."), "part of an image classifier"),
    (re.compile(r"backbone\.stage4\.2\.fuse_layers\.[123]\."), "feeds a coarser branch that nothing reads"),
)
_BLOCK_TENSORS = 12  # of a residual block without a projection: two convolutions, two batch norms of five


@dataclass(frozen=True)
class Layout:
    """A way in which released checkpoints name their tensors."""

    title: str  # for messages
    prefixes: Mapping[str, str]  # how our names begin, and how theirs begin instead; others are the same
    has_head: bool = False  # beside the pose network
    # What the batch norms did in training.
    batch_norm: str = "not told by the file; running statistics in use"

    def theirs(self, ours: str) -> str:
        """Return the name there of one of our tensors, or of the beginning of one."""
        ours_begins = next((prefix for prefix in self.prefixes if ours.startswith(prefix)), "")
        return self.prefixes.get(ours_begins, "") + ours.removeprefix(ours_begins)


_BRANCHES = range(len(PAPER_DILATIONS))
_ORIGINAL_NAMES = {
    "backbone.": "",
    "warp_head.residual_stack.": "offset_feats.",
    **{f"warp_head.offsets.{n}": f"offsets{n + 1}" for n in _BRANCHES},
    **{f"warp_head.kernels.{n}": f"deform_conv{n + 1}.weight" for n in _BRANCHES},
}
ORIGINAL_POSE = Layout(
    "pose network of the original",
    _ORIGINAL_NAMES,
    batch_norm="batch statistics in training, running statistics in use",
)
ORIGINAL_WHOLE = Layout(
    "PoseWarper of the original",
    _ORIGINAL_NAMES,
    has_head=True,
    batch_norm="batch statistics in training, in the frozen pose network too; running statistics in use",
)
MMPOSE_FIRST = Layout("PoseWarper of mmpose 0.x, stage 1", {"final_layer.": "keypoint_head.final_layer."})
MMPOSE_SECOND = Layout(
    "PoseWarper of mmpose 0.x, stage 2",
    {
        "final_layer.": "neck.trans_layer.",
        "warp_head.residual_stack.": "neck.offset_feats.",
        "warp_head.offsets.": "neck.offset_layers.",
        **{f"warp_head.kernels.{n}": f"neck.deform_conv_layers.{n}.weight" for n in _BRANCHES},
    },
    has_head=True,
)
# By tensors that only this layout has; the first that is found counts.
_MARKS = (
    (re.compile(r"neck\."), MMPOSE_SECOND),
    (re.compile(r"backbone\.stage[234]\."), MMPOSE_FIRST),
    (re.compile(r"offset_feats\.|offsets\d|deform_conv\d"), ORIGINAL_WHOLE),
    (re.compile(r"stage[234]\."), ORIGINAL_POSE),
)


@dataclass(frozen=True)
class _Weights:
    """The tensors of a file by their names there, less the prefix that all of them may have."""

    path: str | os.PathLike[str]
    tensors: Mapping[str, Any]
    prefix: str
    layout: Layout

    def size(self, names: Iterable[str], usual: int) -> int:
        """Return the first dimension that most of our tensors with these names have; the usual in a tie."""
        values = [self.tensors.get(self.layout.theirs(name)) for name in names]
        found = Counter(len(value) for value in values if isinstance(value, Tensor) and value.ndim)
        return max(found, key=lambda size: (found[size], size == usual), default=usual)

    def places(self, model: PoseWarper) -> dict[str, Tensor]:
        """Return the tensors of a model that this file has to fill, by our names."""
        state = model.state_dict()
        return {n: v for n, v in state.items() if self.layout.has_head or not n.startswith("warp_head.")}


def build_released(
    content: Mapping[str, Any],
    path: str | os.PathLike[str],
    sha256: str,
    *,
    skeleton: Skeleton | None = None,
    crop_size: tuple[int, int] | None = None,
) -> PoseWarper:
    """Build a model from what a released checkpoint holds.

    For a pose network alone, and what is assumed where ``skeleton`` or ``crop_size`` is left out, see
    :func:`posewarper.model.checkpoint.load_model`.

    Args:
        content: the tensors by name, or ``{"state_dict": ...}``; names with or without ``module.``.
        path: where it comes from, for messages and, with its ``sha256``, the provenance.

    Raises:
        ModelError: if a tensor is missing, left over or misshapen, or nothing here is known.
        ConfigError: if the crop's size does not fit an HRNet.
    """
    weights, beside = _find_weights(content, path)
    spec = _read_spec(weights, skeleton, crop_size or PAPER_CROP)
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
    filled = {name: weights.tensors[weights.layout.theirs(name)] for name in weights.places(model)}
    model.load_state_dict({**model.state_dict(), **filled})
    return model


def _find_weights(content: Mapping[str, Any], path: str | os.PathLike[str]) -> tuple[_Weights, list[str]]:
    """Return the tensors of a file, and what lies beside them, with the reason why it is not used."""
    tensors, beside = content, []
    if isinstance(content.get("state_dict"), dict):
        tensors = content["state_dict"]
        beside = [f"{name}: lies beside the weights" for name in content if name != "state_dict"]
    named = bool(tensors) and all(isinstance(name, str) for name in tensors)
    prefix = "module." if named and all(name.startswith("module.") for name in tensors) else ""
    bare = {name.removeprefix(prefix): value for name, value in tensors.items()} if named else {}
    layout = next((each for mark, each in _MARKS if any(map(mark.match, bare))), None)
    if layout is None:
        raise ModelError(
            "this is not a checkpoint of posewarper, nor released weights of an HRNet or a PoseWarper",
            path=path,
            got=few_of(list(tensors)) or "nothing",
            fix=FIX,
        )
    return _Weights(path, bare, prefix, layout), beside


def _read_spec(weights: _Weights, skeleton: Skeleton | None, crop_size: tuple[int, int]) -> ModelSpec:
    """Infer the architecture from the shapes; it must be one that we know, with the skeleton's keypoints."""
    path, layout = weights.path, weights.layout
    branch = [f"backbone.stage2.0.branches.0.{n}.conv{i}.weight" for n in range(4) for i in (1, 2)]
    channels = weights.size(branch, _WIDTHS[0])
    if channels not in _WIDTHS:
        raise ModelError(
            "this backbone is not known",
            path=path,
            expected=" or ".join(f"HRNet-W{n}" for n in sorted(_WIDTHS)),
            got=f"a finest branch of {channels} channels",
            fix="take weights of one of these",
        )
    kernels = [f"warp_head.kernels.{n}" for n in _BRANCHES]
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
    norms = {"pose": "backbone.bn1"}
    if layout.has_head:
        pattern = re.compile(re.escape(layout.theirs("warp_head.residual_stack.")) + r"(\d+)\.")
        counts = Counter(int(match[1]) for match in map(pattern.match, weights.tensors) if match)
        # A block that lacks a few of its tensors still counts, so that those are reported as missing.
        blocks = [n for n, count in counts.items() if 2 * count > _BLOCK_TENSORS]
        n_blocks = 1 + max(blocks, default=PAPER_BLOCKS - 1)
        convolutions = [f"warp_head.residual_stack.{n}.conv2.weight" for n in range(n_blocks)]
        head = {"head_blocks": n_blocks, "head_width": weights.size(convolutions, PAPER_WIDTH)}
        norms["warp"] = "warp_head.residual_stack.0.bn1"
    trained = {}
    for stage, norm in norms.items():
        # The only trace of how long a stage was trained; some files have it set to 0.
        count = weights.tensors.get(layout.theirs(f"{norm}.num_batches_tracked"))
        trained[stage] = max(int(count), 1) if isinstance(count, Tensor) and count.numel() == 1 else 1
    return ModelSpec(
        *(f"hrnet_w{channels}", skeleton, crop_size, PAPER_SIGMA),
        **head,
        batch_norm=layout.batch_norm,
        trained=trained,
    )


def _match(weights: _Weights, spec: ModelSpec) -> list[str]:
    """Return the tensors that are not needed, each with the reason; refuse all others that do not fit."""
    layout, prefix = weights.layout, weights.prefix
    with torch.device("meta"):  # shapes alone
        places = weights.places(PoseWarper(spec))
    wanted = {layout.theirs(name): tuple(value.shape) for name, value in places.items()}
    reasons = {}
    for name in (n for n in weights.tensors if n not in wanted):
        ours = "backbone." + name.removeprefix(layout.theirs("backbone."))
        reasons[name] = next((reason for pattern, reason in _UNUSED if pattern.match(ours)), None)
    wrong = []
    for name, shape in wanted.items():
        value = weights.tensors.get(name)
        if isinstance(value, Tensor) and tuple(value.shape) != shape:
            wrong.append(f"{prefix}{name} ({_as_text(value.shape)}, not {_as_text(shape)})")
        elif name in weights.tensors and not isinstance(value, Tensor):
            wrong.append(f"{prefix}{name} (no tensor)")
        elif isinstance(value, Tensor) and value.is_floating_point() == name.endswith("num_batches_tracked"):
            wrong.append(f"{prefix}{name} ({value.dtype})")
    problems = {
        "missing": [prefix + name for name in wanted if name not in weights.tensors],
        "left over": [prefix + name for name, reason in reasons.items() if reason is None],
        "misshapen": wrong,
    }
    if any(problems.values()):
        head = f" and a head of {spec.head_blocks} blocks" if layout.has_head else ""
        raise ModelError(
            f"these weights do not fit the network that they look like ({layout.title})",
            path=weights.path,
            expected=f"{len(wanted)} tensors of {spec.backbone} with {len(spec.skeleton)} keypoints{head}",
            got="; ".join(f"{len(n)} {kind}: {few_of(n, 10)}" for kind, n in problems.items() if n),
            fix="take the file as it was released; it was changed, or belongs to another network",
        )
    return [f"{prefix}{name}: {reason}" for name, reason in reasons.items()]


def _as_text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"
