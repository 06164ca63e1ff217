"""The per-frame network's trunk: any network of timm's whose features can reach a quarter of the crop's size.

An HRNet gets there by itself: it is cut down to its finest branch. Of all others (ResNet, ConvNeXt, ViT,
Swin) the deepest feature map is taken and upsampled. All start with random weights;
:mod:`posewarper.model.pretrained` loads trained ones.
"""

from __future__ import annotations

import difflib
from typing import Any

import timm
import torch
from torch import Tensor, nn

from posewarper.errors import ConfigError, ModelError, first_sentence

STRIDE = 4
"""Pixels of the crop a pixel of the heatmaps."""
WIDTH = 256
_HRNET_STRIDE = 32
_DOUBLINGS = {4: 0, 8: 1, 16: 2, 32: 3}


class UpsamplingHead(nn.Sequential):
    """(B, channels, h, w) -> (B, C, h * 2 ** doublings, w * 2 ** doublings), by transposed convolutions.

    Each doubling is followed by batch norm and ReLU, as in the heads of Simple Baselines and ViTPose. C,
    ``self.channels``, is ``width`` or, without doublings, that of the incoming map, which leaves as it came.
    """

    def __init__(self, channels: int, doublings: int, width: int = WIDTH) -> None:
        layers: list[nn.Module] = []
        for index in range(doublings):
            layers += [
                nn.ConvTranspose2d(width if index else channels, width, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)
        self.channels = width if doublings else channels


class UpsampledBackbone(nn.Module):
    """One feature map of a timm network, upsampled to a quarter of the crop."""

    def __init__(self, trunk: nn.Module, upsampling: UpsamplingHead) -> None:
        super().__init__()
        self.trunk, self.upsampling = trunk, upsampling

    def forward(self, crops: Tensor) -> list[Tensor]:
        """Map crops (B, 3, H, W) to one map in a list, as HRNet: [(B, C, H / 4, W / 4)]."""
        return [self.upsampling(_deepest(self.trunk, crops))]


def build_backbone(name: str, crop_size: tuple[int, int] = (256, 192)) -> tuple[nn.Module, int]:
    """Build a network by its timm name, with random weights.

    Of an HRNet's last stage only the finest branch is kept: the output stays the same, and the parameters are
    those of the original's checkpoints. Other networks give their deepest feature map of a stride of at most
    32 to an :class:`UpsamplingHead`; a ViT the output of its last block, not normalised. Parameters that feed
    nothing there become buffers.

    Args:
        name: ``hrnet_w18_small``, ``resnet50``, ``convnext_tiny``, ``vit_base_patch16_224``, ... Of the
            numbers in the name of a ViT the patch size matters (4, 8, 16 or 32), the image size does not.
        crop_size: (height, width) in pixels of the crops, multiples of the deepest map's stride. ViTs and
            their kind accept no other size later; HRNets and convolutional networks do.

    Returns:
        The network, (B, 3, H, W) -> [(B, C, H / 4, W / 4)], and C.

    Raises:
        ModelError: if timm has no such network, or none of its feature maps can be brought to that size.
        ConfigError: if the crop's size does not fit the network.
    """
    known = timm.list_models()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=5)
        raise ModelError(
            "unknown backbone",
            expected="a network of timm's, by its name without a tag: hrnet_w48, resnet50, ...",
            got=name,
            fix=f"did you mean {', '.join(near)}?" if near else "choose from timm.list_models()",
        )
    index, stride = (0, _HRNET_STRIDE) if _is_hrnet(name) else _find_map(name, crop_size)
    if len(crop_size) != 2 or min(crop_size) < stride or any(n % stride for n in crop_size):
        raise ConfigError(
            "the crop's size does not fit the network",
            expected=f"height x width, both multiples of {stride}, for {name}",
            got=" x ".join(map(str, crop_size)),
            fix="choose another crop size, as a rule multiples of 32: 384 x 288 or 256 x 192",
        )
    if _is_hrnet(name):
        network = timm.create_model(name, pretrained=False, **trunk_options(name, crop_size))
        last = network.get_submodule("stage4")[-1]  # type: ignore[index]
        last.fuse_layers = last.fuse_layers[:1]
        return network, network.feature_info.channels()[0]  # type: ignore[union-attr, operator]
    channels, unused = _trace_map(name, crop_size, index, stride)
    trunk = _create(name, crop_size, out_indices=(index,))
    for parameter in unused:  # a buffer of the same name awaits no gradient
        place, _, own = parameter.rpartition(".")
        module, value = trunk.get_submodule(place), trunk.get_parameter(parameter)
        delattr(module, own)
        module.register_buffer(own, value.detach())
    head = UpsamplingHead(channels, _DOUBLINGS[stride])
    return UpsampledBackbone(trunk, head), head.channels


def trunk_options(name: str, crop_size: tuple[int, int]) -> dict[str, Any]:
    """Return the options of ``timm.create_model`` for the network that :func:`build_backbone` builds on."""
    if _is_hrnet(name):
        return {"features_only": True, "feature_location": "", "out_indices": (1,)}
    index, _ = _find_map(name, crop_size)
    return {"features_only": True, "out_indices": (index,), **_size_options(name, crop_size)}


def trunk_of(backbone: nn.Module) -> nn.Module:
    """Return the part of a backbone that is timm's; its parameters have timm's names."""
    return backbone.trunk if isinstance(backbone, UpsampledBackbone) else backbone


def _is_hrnet(name: str) -> bool:
    return name in timm.list_models("hrnet*")


def _deepest(trunk: nn.Module, crops: Tensor) -> Tensor:
    features = trunk(crops)[-1]
    return features.permute(0, 3, 1, 2) if getattr(trunk, "output_fmt", "NCHW") == "NHWC" else features


def _size_options(name: str, crop_size: tuple[int, int]) -> dict[str, Any]:
    # Networks with position embeddings or windows of a fixed size are built for the crop's size.
    pretrained = timm.get_pretrained_cfg(name)
    fixed = pretrained is not None and pretrained.fixed_input_size
    return {"img_size": tuple(crop_size)} if fixed else {}


def _create(name: str, crop_size: tuple[int, int], **more: Any) -> nn.Module:
    size = _size_options(name, crop_size)
    try:
        return timm.create_model(name, pretrained=False, features_only=True, **size, **more)
    except Exception as error:  # timm's networks refuse with AssertionError, TypeError, RuntimeError, ...
        raise _unusable(name, crop_size, error) from error


def _unusable(name: str, crop_size: tuple[int, int], error: Exception) -> ModelError:
    return ModelError(
        f"{name} gives no feature maps for crops of {' x '.join(map(str, crop_size))}",
        expected="a network with feature maps of 1/4, 1/8, 1/16 or 1/32 of the crop's size",
        got=first_sentence(error),
        fix="try crops whose sides are multiples of 32, square crops, or another network",
    )


def _find_map(name: str, crop_size: tuple[int, int]) -> tuple[int, int]:
    """Return index, from the end, and stride of the deepest feature map that is not too coarse."""
    with torch.device("meta"):  # shapes alone, no numbers
        strides = _create(name, crop_size).feature_info.reduction()  # type: ignore[union-attr, operator]
    # A few networks have still deeper maps, too coarse for the usual crops.
    fine = [stride for stride in strides if stride <= _HRNET_STRIDE]
    if not fine or fine[-1] not in _DOUBLINGS:
        raise ModelError(
            f"the feature maps of {name} cannot be doubled to a quarter of the crop",
            expected="a stride (the patch size of a ViT) of 4, 8, 16 or 32",
            got=f"strides of {', '.join(map(str, strides))}",
            fix="choose another network: of ViTs one with 'patch16' in its name",
        )
    return len(fine) - len(strides) - 1, fine[-1]


def _trace_map(name: str, crop_size: tuple[int, int], index: int, stride: int) -> tuple[int, list[str]]:
    """Return the channels of a feature map and the names of the parameters that it does not depend on."""
    # The caller may have switched gradients off, but only they show what feeds what.
    with torch.device("meta"), torch.inference_mode(False), torch.enable_grad():
        trunk = _create(name, crop_size, out_indices=(index,)).eval()
        try:
            features = _deepest(trunk, torch.zeros(1, 3, *crop_size))
        except Exception as error:
            raise _unusable(name, crop_size, error) from error
    height, width = features.shape[2:]
    if (height * stride, width * stride) != tuple(crop_size):
        # Networks without padding, say.
        raise _unusable(name, crop_size, ValueError(f"a feature map of {height} x {width}"))
    used, seen, left = set(), set(), [features.grad_fn]
    while left:
        step = left.pop()
        if step is None or step in seen:
            continue
        seen.add(step)
        used.add(id(getattr(step, "variable", None)))
        left += [before for before, _ in step.next_functions]
    return features.shape[1], [n for n, value in trunk.named_parameters() if id(value) not in used]
