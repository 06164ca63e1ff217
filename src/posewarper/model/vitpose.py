"""ViTPose's released weights, as transformers keeps them: a ``config.json`` and a ``model.safetensors``.

Reading is strict: the configuration must be that of one of ViTPose's networks, and each tensor of the file
finds its place in ours. Both decoders are known, and the networks of ViTPose++ with their experts: each block
of those has one expert for every data set of its training, of which the one for COCO is taken; with one
expert chosen it is an ordinary layer.

Source: Xu et al., "ViTPose: Simple Vision Transformer Baselines for Human Pose Estimation", NeurIPS 2022, and
"ViTPose++", 2023; crops and heatmaps as in Huang et al., "The Devil is in the Details: Delving into Unbiased
Data Processing for Human Pose Estimation", CVPR 2020. The layout of the files is that of transformers'
``VitPoseForPoseEstimation``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posewarper.errors import ModelError, few_of
from posewarper.files import sha256_of
from posewarper.model.backbone import VITPOSE
from posewarper.model.hub import CONFIG, WEIGHTS
from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.model.pretrained import read_file
from posewarper.skeletons import COCO, Skeleton

PathLike = str | os.PathLike[str]
_FIX = "take one of ViTPose as it was released, for example hf:usyd-community/vitpose-base-simple"
_SIGMA = 2.0  # of its targets, in heatmap pixels
_COCO_EXPERT = 0
# What all of ViTPose's networks have in common, and ours is built for.
_COMMON = {
    "patch_size": [16, 16],
    "num_channels": 3,
    "mlp_ratio": 4,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "qkv_bias": True,
}
_LAYER = {
    "layernorm_before": "norm1",
    "attention.output.dense": "attn.proj",
    "layernorm_after": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_EMBEDDINGS = "backbone.embeddings"
_POSITIONS = f"{_EMBEDDINGS}.position_embeddings"
_CLASSIC = {"deconv1": "0", "batchnorm1": "1", "deconv2": "3", "batchnorm2": "4"}


def build_vitpose(folder: Path, path: PathLike, skeleton: Skeleton | None = None) -> PoseWarper:
    """Build a model from a folder with a network of ViTPose; its warp head is new and leaves maps unmoved.

    Args:
        folder: where the files are.
        path: what the user calls it, for messages.
        skeleton: the keypoints, where the configuration does not name them; COCO's if there are 17.

    Raises:
        ModelError: if the configuration is of another network, or the tensors do not fit it.
    """
    config = _read_config(folder / CONFIG, path)
    state = dict(read_file(folder / WEIGHTS, "weights of ViTPose", _FIX))
    backbone, crop_size, experts = _read_architecture(config, path)
    bias = state.get("head.conv.bias")
    keypoints = len(bias) if isinstance(bias, Tensor) and bias.ndim else 0
    simple = config.get("use_simple_decoder") is True
    spec = ModelSpec(
        backbone,
        _read_skeleton(config, keypoints, path) if skeleton is None else skeleton,
        crop_size,
        _SIGMA,
        targets="udp",
        neck="bilinear" if simple else "upsampling",
        batch_norm="not told by the file; running statistics in use",
        trained={"pose": 1},
        provenance={
            "weights": f"ViTPose ({backbone}, {'simple' if simple else 'classic'} decoder"
            + (f", the expert {_COCO_EXPERT} of {experts}, that of COCO)" if experts > 1 else ")"),
            "file": WEIGHTS,
            "sha256": sha256_of(folder / WEIGHTS),
            "source": os.fspath(path),
            "assumed": ["head_dilations", "sigma", "mean", "std"],
        },
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # for the head, which the file has not: a file always gives the same model
        model = PoseWarper(spec)
    own = model.state_dict()
    found = _translate(state, _places(VITPOSE[backbone][1], experts, simple))
    other_experts = re.compile(r"backbone\.encoder\.layer\.\d+\.mlp\.experts\.[1-9]\d*\.(weight|bias)")
    left = [name for name in state if not (experts > 1 and other_experts.fullmatch(name))]
    wanted = {name: tuple(value.shape) for name, value in own.items() if not name.startswith("warp_head.")}
    got = {name: tuple(value.shape) for name, value in found.items()}
    if got != wanted or left:
        wrong = [name for name, shape in got.items() if shape != wanted.get(name)]
        problems = {
            "missing": sorted(wanted.keys() - got.keys()),
            "left over": sorted(left),
            "misshapen": [f"{name} {got[name]}, not {wanted.get(name)}" for name in wrong],
        }
        decoder = "simple" if simple else "classic"
        raise ModelError(
            "these weights do not fit the configuration beside them",
            path=path,
            expected=f"{backbone} with {len(spec.skeleton)} keypoints and the {decoder} decoder",
            got="; ".join(f"{len(n)} {kind}: {few_of(n)}" for kind, n in problems.items() if n),
            fix=_FIX,
        )
    model.load_state_dict({**own, **found})
    return model


def _read_config(place: Path, path: PathLike) -> Mapping[str, Any]:
    try:
        config = json.loads(place.read_text(encoding="utf-8"))
        kind = config.get("model_type") if isinstance(config, dict) else None
    except (OSError, ValueError, RecursionError) as error:
        what, got = "cannot read the configuration of this model", str(error)[:200]
        raise ModelError(what, path=place, expected="JSON", got=got, fix=_FIX) from error
    if kind != "vitpose" or not isinstance(config.get("backbone_config"), dict):
        raise ModelError(
            "this is neither a model of posewarper nor one of ViTPose",
            path=path,
            expected="posewarper.json, or a config.json with the model_type 'vitpose'",
            got=f"a config.json with the model_type {kind!r}",
            fix=_FIX,
        )
    return config


def _read_architecture(config: Mapping[str, Any], path: PathLike) -> tuple[str, tuple[int, int], int]:
    """Return the backbone's name, the crop's size and the number of experts; refuse what ours is not."""
    known = {"num_experts": 1, "image_size": [256, 192], **_COMMON, **config["backbone_config"]}
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads")
    size = tuple(known.get(n, own) for n, own in zip(names, VITPOSE["vitpose_base"], strict=True))
    backbone = next((name for name, own in VITPOSE.items() if own == size), None)
    image, depth = known["image_size"], size[1]
    wrong = [f"{n} {known[n]}, not {v}" for n, v in _COMMON.items() if known[n] != v]
    if backbone is None:
        wrong.append(f"{', '.join(names)} {size}, not one of {', '.join(map(str, VITPOSE.values()))}")
    if not (isinstance(image, list) and len(image) == 2 and all(type(n) is int and n > 0 for n in image)):
        wrong.append(f"image_size {image}, not a height and a width")
    if type(known["num_experts"]) is not int or known["num_experts"] < 1:
        wrong.append(f"num_experts {known['num_experts']}")
    if config.get("scale_factor", 4) != 4:
        wrong.append(f"scale_factor {config['scale_factor']}, not 4")
    if known.get("out_indices", [depth]) not in ([depth], [-1]):
        wrong.append(f"out_indices {known['out_indices']}, not the last block, {depth}")
    if wrong or backbone is None:
        raise ModelError("this network is not one of ViTPose's", path=path, got=few_of(wrong), fix=_FIX)
    return backbone, (image[0], image[1]), known["num_experts"]


def _read_skeleton(config: Mapping[str, Any], keypoints: int, path: PathLike) -> Skeleton:
    """Return the keypoints that the configuration names (``L_Eye``), COCO's where it names none of 17."""
    labels = config.get("id2label")
    names = [str(labels.get(str(n), "")) for n in range(keypoints)] if isinstance(labels, dict) else []
    sides = {"l": "left", "r": "right"}
    parts = [name.lower().split("_") for name in names]
    plain = tuple("_".join([sides.get(first, first), *rest]) for first, *rest in parts)
    unnamed = not names or all(re.fullmatch(r"LABEL_\d+|", name) for name in names)
    if plain == COCO.names or (unnamed and keypoints == len(COCO)):
        return COCO
    if unnamed or len(set(plain)) != keypoints:
        raise ModelError(
            f"this model has {keypoints} keypoints, whose names its configuration does not tell",
            path=path,
            expected=f"a name for each in id2label, or the {len(COCO)} of COCO",
            got=few_of(names) or "no names",
            fix="name the skeleton: `posewarper convert FOLDER OUT.pt --skeleton NAME`, or in Python "
            "load_model(path, skeleton=Skeleton(names=...))",
        )
    edges = config.get("edges") or ()
    return Skeleton(plain, tuple(tuple(edge) for edge in edges))


def _places(depth: int, experts: int, simple: bool) -> dict[str, tuple[str, ...]]:
    """Return our names of tensors, each with those of the file's that make it up, one after the other."""
    vit, places = "backbone.trunk.vit", {}
    places[f"{vit}.pos_embed"] = (_POSITIONS,)
    for kind in ("weight", "bias"):
        places[f"{vit}.patch_embed.proj.{kind}"] = (
            f"backbone.embeddings.patch_embeddings.projection.{kind}",
        )
        places[f"{vit}.norm.{kind}"] = (f"backbone.layernorm.{kind}",)
        places[f"final_layer.{kind}"] = (f"head.conv.{kind}",)
        for n in range(depth):
            theirs, ours = f"backbone.encoder.layer.{n}", f"{vit}.blocks.{n}"
            parts = (f"{theirs}.attention.attention.{part}.{kind}" for part in ("query", "key", "value"))
            places[f"{ours}.attn.qkv.{kind}"] = tuple(parts)
            places |= {f"{ours}.{own}.{kind}": (f"{theirs}.{name}.{kind}",) for name, own in _LAYER.items()}
            if experts > 1:
                expert = f"{theirs}.mlp.experts.{_COCO_EXPERT}.{kind}"
                places[f"{ours}.mlp.fc2.{kind}"] = (f"{theirs}.mlp.fc2.{kind}", expert)
    for name, own in () if simple else _CLASSIC.items():
        norm = ("bias", "running_mean", "running_var", "num_batches_tracked") if "norm" in name else ()
        for kind in ("weight", *norm):
            places[f"backbone.upsampling.{own}.{kind}"] = (f"head.{name}.{kind}",)
    return places


def _translate(state: dict[str, Any], places: Mapping[str, tuple[str, ...]]) -> dict[str, Tensor]:
    """Return the tensors by our names, as far as they are there; they are taken out of ``state``."""
    found: dict[str, Tensor] = {}
    for ours, theirs in places.items():
        if not all(isinstance(state.get(name), Tensor) for name in theirs):
            continue
        values = [state.pop(name) for name in theirs]
        value = torch.cat(values) if len(values) > 1 else values[0]
        value = value.float() if value.is_floating_point() else value
        # Each patch is given the embedding of the class token, which is not there, as well.
        found[ours] = value[:, 1:] + value[:, :1] if theirs == (_POSITIONS,) else value
    return found
