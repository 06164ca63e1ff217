"""The per-frame network's trunk: any network of timm's that can be brought to a quarter of the crop's size.

HRNet gets there by itself: it is cut down to its finest branch. Of all others (ResNet, ConvNeXt, ViT, Swin)
the deepest feature map is taken and upsampled. All start with random weights; ``backbone_weights.py`` loads
trained ones.
"""

from __future__ import annotations

import difflib
from typing import Any

import timm
import torch
from torch import Tensor, nn

from posewarper.errors import ConfigError, ModelError

WIDTH = 256


class UpsamplingHead(nn.Sequential):
    """(B, channels, h, w) -> (B, C, h * 2 ** doublings, w * 2 ** doublings), by transposed convolutions.

    Each doubling is followed by batch norm and ReLU, as in the heads of Simple Baselines and ViTPose.

    Args:
        channels: of the map that comes in.
        doublings: how many times it is doubled; with 0 the map leaves as it came.
        width: channels of every doubled map; ``self.channels``, C above, is this or, without doublings, what
            comes in.
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


STRIDE = 4
_HRNET_STRIDE = 32
_DOUBLINGS = {4: 0, 8: 1, 16: 2, 32: 3}


def build_backbone(name: str, crop_size: tuple[int, int] = (256, 192)) -> tuple[nn.Module, int]:
    """Build a network by its timm name, with random weights.

    Of an HRNet only the finest branch leaves the last stage, so the layers that feed the other branches are
    dropped: the output stays the same, and the parameters are those of the original's checkpoints. Other
    networks give their deepest feature map whose stride is at most 32 to an :class:`UpsamplingHead`; a ViT
    the output of its last block, not normalised. Parameters that feed nothing there become buffers.

    Args:
        name: ``hrnet_w18_small``, ``resnet50``, ``convnext_tiny``, ``vit_base_patch16_224``, ... Of the
            numbers in the name of a ViT the patch size matters (4, 8, 16 or 32), the image size does not.
        crop_size: (height, width) in pixels of the crops to come, multiples of the deepest map's stride. ViTs
            and their kind take no others later; HRNets and convolutional networks do.

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
    if _is_hrnet(name):
        _check_crop(name, crop_size, _HRNET_STRIDE)
        return _build_hrnet(name)
    return _build_upsampled(name, crop_size)


def trunk_options(name: str, crop_size: tuple[int, int]) -> dict[str, Any]:
    """Return what ``timm.create_model`` is told to make the network that :func:`build_backbone` builds on.

    Args:
        name: a network that :func:`build_backbone` takes.
        crop_size: (height, width) in pixels of the crops to come.
    """
    if _is_hrnet(name):
        return {"features_only": True, "feature_location": "", "out_indices": (1,)}
    index, _ = _find_map(name, crop_size)
    return {"features_only": True, "out_indices": (index,), **_size_options(name, crop_size)}


def trunk_of(backbone: nn.Module) -> nn.Module:
    """Return the part of a backbone that is timm's; its parameters have timm's names."""
    return backbone.trunk if isinstance(backbone, UpsampledBackbone) else backbone


def _is_hrnet(name: str) -> bool:
    return name in timm.list_models("hrnet*")


def _check_crop(name: str, crop_size: tuple[int, int], stride: int) -> None:
    if len(crop_size) != 2 or min(crop_size) < stride or any(n % stride for n in crop_size):
        raise ConfigError(
            "the crop's size does not fit the network",
            expected=f"height x width, both multiples of {stride}, for {name}",
            got=" x ".join(map(str, crop_size)),
            fix="choose another crop size, as a rule multiples of 32: 384 x 288 or 256 x 192",
        )


def _build_hrnet(name: str) -> tuple[nn.Module, int]:
    network = timm.create_model(name, pretrained=False, **trunk_options(name, (_HRNET_STRIDE, _HRNET_STRIDE)))
    last = network.get_submodule("stage4")[-1]  # type: ignore[index]
    last.fuse_layers = last.fuse_layers[:1]
    return network, network.feature_info.channels()[0]  # type: ignore[union-attr, operator]


class UpsampledBackbone(nn.Module):
    """One feature map of a timm network, upsampled to a quarter of the crop.

    Args:
        trunk: (B, 3, H, W) -> [(B, c, H / s, W / s)], or with channels last if its ``output_fmt`` says so.
        upsampling: (B, c, h, w) -> (B, C, h * s / 4, w * s / 4).
    """

    def __init__(self, trunk: nn.Module, upsampling: UpsamplingHead) -> None:
        super().__init__()
        self.trunk = trunk
        self.upsampling = upsampling

    def forward(self, crops: Tensor) -> list[Tensor]:
        """Map crops (B, 3, H, W) to one map in a list, as HRNet: [(B, C, H / 4, W / 4)]."""
        return [self.upsampling(_deepest(self.trunk, crops))]


def _deepest(trunk: nn.Module, crops: Tensor) -> Tensor:
    features = trunk(crops)[-1]
    return features.permute(0, 3, 1, 2) if getattr(trunk, "output_fmt", "NCHW") == "NHWC" else features


def _build_upsampled(name: str, crop_size: tuple[int, int]) -> tuple[nn.Module, int]:
    index, stride = _find_map(name, crop_size)
    _check_crop(name, crop_size, stride)
    channels, unused = _trace_map(name, crop_size, index, stride)
    trunk = _create(name, crop_size, out_indices=(index,))
    for parameter in unused:
        _retire(trunk, parameter)
    head = UpsamplingHead(channels, _DOUBLINGS[stride])
    return UpsampledBackbone(trunk, head), head.channels


def _retire(network: nn.Module, name: str) -> None:
    """Make a buffer of a parameter: with the same name, which awaits no gradient."""
    place, _, own = name.rpartition(".")
    module, value = network.get_submodule(place), network.get_parameter(name)
    delattr(module, own)
    module.register_buffer(own, value.detach())


def _size_options(name: str, crop_size: tuple[int, int]) -> dict[str, Any]:
    # What has position embeddings or windows of a fixed size is built for the crop's size.
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
    said = str(error).strip().split("\n")[0][:200] or type(error).__name__
    return ModelError(
        f"{name} gives no feature maps for crops of {' x '.join(map(str, crop_size))}",
        expected="a network with feature maps of 1/4, 1/8, 1/16 or 1/32 of the crop's size",
        got=said,
        fix="try crops whose sides are multiples of 32, square crops, or another network",
    )


def _find_map(name: str, crop_size: tuple[int, int]) -> tuple[int, int]:
    """Return index, from the end, and stride of the deepest feature map that is not too coarse."""
    with torch.device("meta"):  # shapes alone, no numbers
        strides = _create(name, crop_size).feature_info.reduction()  # type: ignore[union-attr, operator]
    # Those deeper still, of a few networks, are too coarse for the crops that are usual here.
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
    # The caller may have gradients switched off; what feeds what is seen by them alone.
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
    used = _leaves(features)
    return features.shape[1], [n for n, value in trunk.named_parameters() if id(value) not in used]


def _leaves(result: Tensor) -> set[int]:
    """Return the ids of the parameters that a result was computed from."""
    leaves, seen, left = set(), set(), [result.grad_fn]
    while left:
        step = left.pop()
        if step is None or step in seen:
            continue
        seen.add(step)
        leaves.add(id(getattr(step, "variable", None)))
        left += [before for before, _ in step.next_functions]
    return leaves
