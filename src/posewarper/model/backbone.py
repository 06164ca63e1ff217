"""The per-frame network's trunk: any network of timm's whose features can reach a quarter of the crop's size.

An HRNet gets there by itself: it is cut down to its finest branch. Of all others (EfficientNet, ResNet,
ConvNeXt, ViT, Swin) the neck makes one map: ``upsampling`` takes the deepest feature map, ``pyramid`` those
of every stride, as a feature pyramid does (Lin et al., 2017), and ``bilinear`` enlarges the deepest one
without learning anything, for a final layer of 3 x 3 (the simple decoder of ViTPose). All start with random
weights; :mod:`posewarper.model.pretrained` loads trained ones. ViTPose's transformers, which differ from
timm's in small ways, are ``vitpose_base`` and so on; :mod:`posewarper.model.vitpose` reads their weights.
timm is imported where it is used, since that takes seconds, which runs without a network would wait.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from posewarper.errors import ConfigError, ModelError, first_sentence, unknown_name

STRIDE = 4
"""Pixels of the crop a pixel of the heatmaps."""
WIDTH = 256
PYRAMID_WIDTH = 64
NECKS = ("upsampling", "pyramid", "bilinear")
VITPOSE = {
    "vitpose_small": (384, 12, 12),
    "vitpose_base": (768, 12, 12),
    "vitpose_large": (1024, 24, 16),
    "vitpose_huge": (1280, 32, 16),
}
"""ViTPose's transformers: width, blocks, attention heads (Xu et al., NeurIPS 2022, and what is released)."""
_VITPOSE_PATCH = 16
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

    def __init__(self, trunk: nn.Module, upsampling: nn.Module) -> None:
        super().__init__()
        self.trunk, self.upsampling = trunk, upsampling

    def forward(self, crops: Tensor) -> list[Tensor]:
        """Map crops (B, 3, H, W) to one map in a list, as HRNet: [(B, C, H / 4, W / 4)]."""
        return [self.upsampling(_feature_maps(self.trunk, crops)[-1])]


class BilinearHead(nn.Module):
    """(B, C, h, w) -> (B, C, h * 2 ** doublings, w * 2 ** doublings): what is positive, enlarged."""

    def __init__(self, channels: int, doublings: int) -> None:
        super().__init__()
        self.channels, self._factor = channels, 2.0**doublings

    def forward(self, features: Tensor) -> Tensor:
        """Enlarge a map."""
        return interpolate(
            torch.relu(features), scale_factor=self._factor, mode="bilinear", align_corners=False
        )


class VitPoseTrunk(nn.Module):
    """The transformer of ViTPose: patches that overlap the border by two pixels, no class token.

    Otherwise it is timm's, with its names of parameters; the last block's output is normalised.
    """

    def __init__(self, name: str, crop_size: tuple[int, int]) -> None:
        from timm.models.vision_transformer import VisionTransformer

        super().__init__()
        self.width, depth, heads = VITPOSE[name]
        self.vit = VisionTransformer(
            img_size=crop_size,
            patch_size=_VITPOSE_PATCH,
            num_classes=0,
            global_pool="",
            embed_dim=self.width,
            depth=depth,
            num_heads=heads,
            class_token=False,
            norm_layer=partial(nn.LayerNorm, eps=1e-12),  # type: ignore[arg-type]
        )
        self.vit.patch_embed.proj.padding = (2, 2)  # as many patches as without: the rest is cut off
        self._size = crop_size[0] // _VITPOSE_PATCH, crop_size[1] // _VITPOSE_PATCH

    def forward(self, crops: Tensor) -> list[Tensor]:
        """Map crops (B, 3, H, W) to one map in a list: [(B, C, H / 16, W / 16)]."""
        tokens = self.vit.forward_features(crops)
        return [tokens.transpose(1, 2).unflatten(2, self._size)]


class FeaturePyramid(nn.Module):
    """Maps of n strides, each half as large as the one before, to one of the first one's size.

    From the deepest map on, each sum is enlarged twice, joined by the next map, and smoothed.
    """

    def __init__(self, channels: Sequence[int], width: int = PYRAMID_WIDTH) -> None:
        super().__init__()

        def convolution(incoming: int, size: int) -> nn.Sequential:
            layer = nn.Conv2d(incoming, width, size, padding=size // 2, bias=False)
            return nn.Sequential(layer, nn.BatchNorm2d(width))

        self.lateral = nn.ModuleList(convolution(n, 1) for n in channels)
        self.smooth = nn.ModuleList(convolution(width, 3) for _ in channels[1:])
        self.channels = width

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Join maps [(B, channels[i], h / 2 ** i, w / 2 ** i)] to one (B, width, h, w)."""
        joined = torch.relu(self.lateral[-1](maps[-1]))
        for level in range(len(maps) - 2, -1, -1):
            enlarged = interpolate(joined, scale_factor=2.0, mode="bilinear", align_corners=False)
            joined = torch.relu(enlarged + self.lateral[level](maps[level]))
            joined = torch.relu(self.smooth[level](joined))
        return joined


class PyramidBackbone(nn.Module):
    """The feature maps of a timm network from a quarter of the crop on, joined to one.

    Networks that were ported from Tensorflow pad at the right and at the bottom, where others pad on all
    sides, and most engines are slow at that. On crops turned by 180 degrees, with kernels turned alike, both
    are the same where sides are even: so such a trunk keeps its kernels turned and sees turned crops.
    """

    def __init__(self, trunk: nn.Module, pyramid: FeaturePyramid) -> None:
        super().__init__()
        self.trunk, self.pyramid = trunk, pyramid
        self.turned = _pad_all_sides(trunk)
        self.see_lower: Callable[[Tensor], Sequence[Tensor]] | None = None
        """What computes :meth:`lower` in its place, while its layers stay as they are."""

    def forward(self, crops: Tensor) -> list[Tensor]:
        """Map crops (B, 3, H, W) to one map in a list, as HRNet: [(B, C, H / 4, W / 4)]."""
        crops = crops.flip(2, 3) if self.turned else crops
        if self.see_lower is None:
            maps = _feature_maps(self.trunk, crops)
        else:
            lower = list(self.see_lower(crops))
            maps = lower + self._through(lower[-1], len(self.lower_blocks), None)
        joined = self.pyramid(maps)
        return [joined.flip(2, 3) if self.turned else joined]

    @property
    def lower_blocks(self) -> Sequence[nn.Module]:
        """The blocks of the lower stages, see :func:`lower_stages`; none where a trunk is built otherwise."""
        blocks = getattr(self.trunk, "blocks", ())
        kind, _, last = _end_of_lower_stages(self.trunk).partition(".")
        return blocks[: int(last) + 1] if kind == "blocks" and last.isdigit() else ()

    def lower(self, crops: Tensor) -> list[Tensor]:
        """Return what the lower stages make of crops (B, 3, H, W), turned if the trunk is: their maps.

        Only for trunks with :attr:`lower_blocks`.
        """
        trunk: Any = self.trunk
        return self._through(trunk.bn1(trunk.conv_stem(crops)), 0, len(self.lower_blocks))

    def _through(self, features: Tensor, first: int, end: int | None) -> list[Tensor]:
        """Return the feature maps that come of some of the trunk's blocks."""
        trunk: Any = self.trunk
        wanted, maps = set(trunk.feature_info.module_name()), []
        for n, block in enumerate(trunk.blocks[first:end], start=first):
            features = block(features)
            if f"blocks.{n}" in wanted:
                maps.append(features)
        return maps


def _pad_all_sides(module: nn.Module) -> bool:
    """Replace convolutions that pad as Tensorflow does; returns whether there were any."""
    from timm.layers.conv2d_same import Conv2dSame

    found = False
    for name, child in module.named_children():
        if isinstance(child, Conv2dSame):
            old: Any = child
            padding = tuple(size // 2 for size in old.kernel_size)
            shape = old.in_channels, old.out_channels, old.kernel_size, old.stride, padding
            plain = nn.Conv2d(*shape, groups=old.groups, bias=old.bias is not None)
            plain.weight, plain.bias = old.weight, old.bias
            setattr(module, name, plain)
            found = True
        else:
            found |= _pad_all_sides(child)
    return found


def build_backbone(
    name: str, crop_size: tuple[int, int] = (256, 192), neck: str = "upsampling"
) -> tuple[nn.Module, int]:
    """Build a network by its timm name, with random weights.

    Of an HRNet's last stage only the finest branch is kept: the output stays the same, and the parameters are
    those of the original's checkpoints. Other networks give their deepest feature map of a stride of at most
    32 to an :class:`UpsamplingHead`; a ViT the output of its last block, not normalised. With the neck
    ``pyramid`` those with maps of the strides 4, 8, 16, ... give them all to a :class:`FeaturePyramid`.
    Parameters that feed nothing there become buffers.

    Args:
        name: ``hrnet_w18_small``, ``resnet50``, ``convnext_tiny``, ``vit_base_patch16_224``, ..., or one of
            :data:`VITPOSE`. Of the numbers in the name of a ViT the patch size matters (4, 8, 16 or 32), the
            image size does not.
        crop_size: (height, width) in pixels of the crops, multiples of the deepest map's stride. ViTs and
            their kind accept no other size later; HRNets and convolutional networks do.
        neck: ``upsampling``, ``pyramid`` or ``bilinear``. An HRNet needs none, and networks without maps of
            several strides, such as ViTs, are upsampled in place of the second.

    Returns:
        The network, (B, 3, H, W) -> [(B, C, H / 4, W / 4)], and C.

    Raises:
        ModelError: if timm has no such network, none of its feature maps can be brought to that size, or the
            neck is unknown.
        ConfigError: if the crop's size does not fit the network.
    """
    import timm

    known = timm.list_models()
    if name not in known and name not in VITPOSE:
        near = difflib.get_close_matches(name, known, n=5)
        raise ModelError(
            "unknown backbone",
            expected="a network of timm's, by its name without a tag: hrnet_w48, resnet50, ...",
            got=name,
            fix=f"did you mean {', '.join(near)}?" if near else "choose from timm.list_models()",
        )
    if neck not in NECKS:
        raise unknown_name("unknown neck of the network", neck, NECKS, error=ModelError)
    crop_size = cast(tuple[int, int], tuple(crop_size))
    if name in VITPOSE:
        indices, stride = (-1,), _VITPOSE_PATCH
    else:
        indices, stride = ((0,), _HRNET_STRIDE) if _is_hrnet(name) else _find_maps(name, crop_size, neck)
    if len(crop_size) != 2 or min(crop_size) < stride or any(n % stride for n in crop_size):
        raise ConfigError(
            "the crop's size does not fit the network",
            expected=f"height x width, both multiples of {stride}, for {name}",
            got=" x ".join(map(str, crop_size)),
            fix="choose another crop size, as a rule multiples of 32: 384 x 288 or 256 x 192",
        )
    if _is_hrnet(name):
        network = timm.create_model(name, pretrained=False, **trunk_options(name, crop_size, neck))
        last = network.get_submodule("stage4")[-1]  # type: ignore[index]
        last.fuse_layers = last.fuse_layers[:1]
        return network, network.feature_info.channels()[0]  # type: ignore[union-attr, operator]
    if name in VITPOSE:
        trunk = VitPoseTrunk(name, crop_size)
        return _upsampled(trunk, trunk.width, _DOUBLINGS[stride], neck)
    channels, unused = _trace_maps(name, crop_size, indices, stride)
    trunk = _create(name, crop_size, out_indices=indices)
    for parameter in unused:  # a buffer of the same name awaits no gradient
        place, _, own = parameter.rpartition(".")
        module, value = trunk.get_submodule(place), trunk.get_parameter(parameter)
        delattr(module, own)
        module.register_buffer(own, value.detach())
    if len(indices) > 1:
        pyramid = FeaturePyramid(channels)
        return PyramidBackbone(trunk, pyramid), pyramid.channels
    return _upsampled(trunk, channels[-1], _DOUBLINGS[stride], neck)


def _upsampled(trunk: nn.Module, channels: int, doublings: int, neck: str) -> tuple[UpsampledBackbone, int]:
    head = (BilinearHead if neck == "bilinear" else UpsamplingHead)(channels, doublings)
    return UpsampledBackbone(trunk, head), head.channels


def final_kernel(neck: str) -> int:
    """Return the size of the kernels of the layer that makes heatmaps of the backbone's map."""
    return 3 if neck == "bilinear" else 1


def trunk_options(name: str, crop_size: tuple[int, int], neck: str) -> dict[str, Any]:
    """Return the options of ``timm.create_model`` for the network that :func:`build_backbone` builds on."""
    if _is_hrnet(name):
        return {"features_only": True, "feature_location": "", "out_indices": (1,)}
    indices, _ = _find_maps(name, crop_size, neck)
    return {"features_only": True, "out_indices": indices, **_size_options(name, crop_size)}


def trunk_of(backbone: nn.Module) -> nn.Module:
    """Return the part of a backbone that is timm's; its parameters have timm's names."""
    return backbone.trunk if isinstance(backbone, UpsampledBackbone | PyramidBackbone) else backbone


def load_trunk(backbone: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Set all that is timm's in a backbone to the values that timm's own network would have."""
    if isinstance(backbone, PyramidBackbone) and backbone.turned:
        state = {name: v.flip(2, 3) if v.ndim == 4 else v for name, v in state.items()}
    trunk_of(backbone).load_state_dict(dict(state))


def lower_stages(backbone: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of a pyramid's trunk up to the feature map of an eighth of the crop's size.

    They see edges and textures, which a network that was trained on photographs knows already.
    """
    if not isinstance(backbone, PyramidBackbone):
        return []
    place = _end_of_lower_stages(backbone.trunk)
    named = list(backbone.trunk.named_parameters())  # in the order in which they are passed
    inside = f"{place}.", f"{place.replace('.', '_')}."
    last = max((n for n, (name, _) in enumerate(named) if name.startswith(inside)), default=-1)
    return [parameter for _, parameter in named[: last + 1]]


def _end_of_lower_stages(trunk: nn.Module) -> str:
    """Return the name of the module whose output is the feature map of an eighth of the crop's size."""
    info: Any = trunk.feature_info
    return [p for p, own in zip(info.module_name(), info.reduction(), strict=True) if own <= 2 * STRIDE][-1]


def _is_hrnet(name: str) -> bool:
    import timm

    return name in timm.list_models("hrnet*")


def _feature_maps(trunk: nn.Module, crops: Tensor) -> list[Tensor]:
    last = getattr(trunk, "output_fmt", "NCHW") == "NHWC"
    return [features.permute(0, 3, 1, 2) if last else features for features in trunk(crops)]


def _size_options(name: str, crop_size: tuple[int, int]) -> dict[str, Any]:
    # Networks with position embeddings or windows of a fixed size are built for the crop's size.
    import timm

    pretrained = timm.get_pretrained_cfg(name)
    fixed = pretrained is not None and pretrained.fixed_input_size
    return {"img_size": tuple(crop_size)} if fixed else {}


def _create(name: str, crop_size: tuple[int, int], **more: Any) -> nn.Module:
    import timm

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


@cache  # networks without numbers take their time, too
def _find_maps(name: str, crop_size: tuple[int, int], neck: str) -> tuple[tuple[int, ...], int]:
    """Return indices, from the end, of the feature maps that a neck takes, and the deepest one's stride."""
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
    usable = [n for n, stride in enumerate(fine) if stride >= STRIDE]
    several = [fine[n] for n in usable] == [STRIDE * 2**n for n in range(len(usable))]
    chosen = usable if neck == "pyramid" and several else usable[-1:]
    return tuple(n - len(strides) for n in chosen), fine[-1]


@cache
def _trace_maps(
    name: str, crop_size: tuple[int, int], indices: tuple[int, ...], stride: int
) -> tuple[list[int], list[str]]:
    """Return the channels of feature maps and the names of the parameters that none of them depends on."""
    # The caller may have switched gradients off, but only they show what feeds what.
    with torch.device("meta"), torch.inference_mode(False), torch.enable_grad():
        trunk = _create(name, crop_size, out_indices=indices).eval()
        try:
            maps = _feature_maps(trunk, torch.zeros(1, 3, *crop_size))
        except Exception as error:
            raise _unusable(name, crop_size, error) from error
    height, width = maps[-1].shape[2:]
    if (height * stride, width * stride) != tuple(crop_size):
        # Networks without padding, say.
        raise _unusable(name, crop_size, ValueError(f"a feature map of {height} x {width}"))
    used, seen, left = set(), set(), [features.grad_fn for features in maps]
    while left:
        step = left.pop()
        if step is None or step in seen:
            continue
        seen.add(step)
        used.add(id(getattr(step, "variable", None)))
        left += [before for before, _ in step.next_functions]
    unused = [n for n, value in trunk.named_parameters() if id(value) not in used]
    return [features.shape[1] for features in maps], unused
