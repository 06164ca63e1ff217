"""How the tensors of our model are named in the original's checkpoints and in those of mmpose 0.x."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

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
