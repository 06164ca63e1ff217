"""Files of tiny networks of ViTPose, with the names that transformers gives to their tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

WIDTH, DEPTH, HEADS = 16, 2, 2
EXPERTS, PART = 3, 4
COCO_LABELS = [
    "Nose",
    *(f"{s}_{p}" for p in ("Eye", "Ear", "Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle") for s in "LR"),
]


def shapes_of(kind: str) -> dict[str, tuple[int, ...]]:
    """The tensors of a file of ViTPose by the names of transformers."""
    d, shared = WIDTH, WIDTH - (PART if kind == "plus" else 0)
    embeddings = "backbone.embeddings"
    shapes: dict[str, tuple[int, ...]] = {
        f"{embeddings}.patch_embeddings.projection.weight": (d, 3, 16, 16),
        f"{embeddings}.patch_embeddings.projection.bias": (d,),
        f"{embeddings}.position_embeddings": (1, 16 * 12 + 1, d),
        "backbone.layernorm.weight": (d,),
        "backbone.layernorm.bias": (d,),
        "head.conv.weight": (17, d, 3, 3) if kind == "simple" else (17, 256, 1, 1),
        "head.conv.bias": (17,),
    }
    for n in range(DEPTH):
        linear = {f"attention.attention.{part}": (d, d) for part in ("query", "key", "value")}
        linear |= {"attention.output.dense": (d, d), "mlp.fc1": (4 * d, d), "mlp.fc2": (shared, 4 * d)}
        linear |= {f"mlp.experts.{e}": (PART, 4 * d) for e in range(EXPERTS if kind == "plus" else 0)}
        for name, shape in linear.items():
            shapes[f"backbone.encoder.layer.{n}.{name}.weight"] = shape
            shapes[f"backbone.encoder.layer.{n}.{name}.bias"] = shape[:1]
        for norm in ("before", "after"):
            for part in ("weight", "bias"):
                shapes[f"backbone.encoder.layer.{n}.layernorm_{norm}.{part}"] = (d,)
    for n in (1, 2) if kind != "simple" else ():
        shapes[f"head.deconv{n}.weight"] = (d if n == 1 else 256, 256, 4, 4)
        shapes |= {
            f"head.batchnorm{n}.{p}": (256,) for p in ("weight", "bias", "running_mean", "running_var")
        }
        shapes[f"head.batchnorm{n}.num_batches_tracked"] = ()
    return shapes


def weights_of(kind: str) -> dict[str, Tensor]:
    chance, weights = np.random.default_rng(0), {}
    for name, shape in sorted(shapes_of(kind).items()):
        value = chance.normal(0, 0.2, shape)
        if name.endswith("num_batches_tracked"):
            value = np.int64(7)
        elif "running_var" in name or ("norm" in name and name.endswith("weight")):
            value = 1 + np.abs(value)
        elif "deconv" in name:
            value = value / 8
        weights[name] = torch.tensor(value, dtype=torch.int64 if shape == () else torch.float32)
    return weights


def config_of(kind: str, **changes: Any) -> dict[str, Any]:
    backbone = {
        "model_type": "vitpose_backbone",
        "hidden_size": WIDTH,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": HEADS,
        "image_size": [256, 192],
        "out_indices": [DEPTH],
        "out_features": [f"stage{DEPTH}"],
        **({"num_experts": EXPERTS, "part_features": PART} if kind == "plus" else {}),
        **changes.pop("backbone", {}),
    }
    labels = {str(n): name for n, name in enumerate(COCO_LABELS)}
    return {
        "architectures": ["VitPoseForPoseEstimation"],
        "model_type": "vitpose",
        "backbone_config": backbone,
        "use_simple_decoder": kind == "simple",
        "scale_factor": 4,
        "id2label": labels,
        "label2id": {name: n for n, name in labels.items()},
        **changes,
    }


def write_vitpose(folder: Path, kind: str = "simple", **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config_of(kind, **changes)))
    save_file(weights_of(kind), folder / "model.safetensors", metadata={"format": "pt"})
    return folder
