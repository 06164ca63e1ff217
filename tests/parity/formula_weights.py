"""Weights by the formula of the parity page, made from each tensor's name in the original's state dict."""

from __future__ import annotations

import csv
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

HEAD = ("offset_feats.", "offsets", "deform_conv")


def original_name(name: str) -> str:
    """The original's name of a tensor of our warp head, or of our whole network."""
    name = name.removeprefix("warp_head.").removeprefix("backbone.")
    name = name.replace("residual_stack.", "offset_feats.")
    name = re.sub(r"^offsets\.(\d)\.", lambda m: f"offsets{int(m[1]) + 1}.", name)
    return re.sub(r"^kernels\.(\d)$", lambda m: f"deform_conv{int(m[1]) + 1}.weight", name)


def mmpose_name(name: str) -> str:
    """The name in mmpose's second stage of a tensor of the original."""
    name = re.sub(r"^final_layer\.", "neck.trans_layer.", name)
    name = re.sub(r"^offset_feats\.", "neck.offset_feats.", name)
    name = re.sub(r"^offsets(\d)\.", lambda m: f"neck.offset_layers.{int(m[1]) - 1}.", name)
    name = re.sub(r"^deform_conv(\d)\.", lambda m: f"neck.deform_conv_layers.{int(m[1]) - 1}.", name)
    return name if name.startswith("neck.") else f"backbone.{name}"


def made_up(name: str, shape: Iterable[int], salt: str) -> Tensor:
    """The value that the formula gives for a tensor of the original."""
    shape = tuple(shape)
    if name.endswith(".num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    n = np.random.RandomState(zlib.crc32(f"{salt}:{name}".encode())).standard_normal(shape)
    centred = n - n.mean(axis=tuple(range(1, n.ndim)), keepdims=True) if n.ndim == 4 else n
    fan = np.sqrt(np.prod(n.shape[1:])) if n.ndim == 4 else 1.0
    if name.endswith(".running_mean") or name.endswith(".bias"):
        value = 0.1 * n
    elif name.endswith(".running_var"):
        value = 0.6 + 0.4 * np.abs(n)
    elif n.ndim == 1:
        value = 0.55 + 0.1 * n
    elif name.startswith("deform_conv"):
        value = n / fan
    elif name.startswith("offsets"):
        value = 3 * centred / fan
    elif name.startswith("final_layer"):
        value = 0.3 * centred / fan
    else:
        value = np.sqrt(2) * centred / fan
    return torch.from_numpy(value.astype(np.float32))


def read_names(path: Path) -> dict[str, dict[str, str]]:
    """The rows of a list of the original's tensors, by name."""
    with path.open(newline="") as handle:
        return {row["name"]: row for row in csv.DictReader(handle)}


def shape_of(row: Mapping[str, str]) -> tuple[int, ...]:
    return () if row["shape"] == "scalar" else tuple(int(n) for n in row["shape"].split("x"))
