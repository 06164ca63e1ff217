"""posewarper: from a few labelled frames of a video to poses for every frame.

The names below are loaded when they are first used, so that ``import posewarper`` is quick and does not
import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from posewarper.version import __version__

_HOMES = {
    "LabelFile": "formats.records",
    "Labels": "structures",
    "Poses": "structures",
    "Skeleton": "skeletons",
    "evaluate": "evaluation.protocols",
    "fit": "fitting",
    "load_model": "model.checkpoint",
    "open_video": "video.source",
    "predict": "prediction.video",
    "propagate": "fitting",
    "read_labels": "formats.labels",
    "suggest": "propagation.suggestion",
    "write_labels": "formats.labels",
}

__all__ = [
    "LabelFile",
    "Labels",
    "Poses",
    "Skeleton",
    "__version__",
    "evaluate",
    "fit",
    "load_model",
    "open_video",
    "predict",
    "propagate",
    "read_labels",
    "suggest",
    "write_labels",
]

if TYPE_CHECKING:
    from posewarper.evaluation.protocols import evaluate
    from posewarper.fitting import fit, propagate
    from posewarper.formats.labels import read_labels, write_labels
    from posewarper.formats.records import LabelFile
    from posewarper.model.checkpoint import load_model
    from posewarper.prediction.video import predict
    from posewarper.propagation.suggestion import suggest
    from posewarper.skeletons import Skeleton
    from posewarper.structures import Labels, Poses
    from posewarper.video.source import open_video


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'posewarper' has no attribute {name!r}")
    value = getattr(import_module(f"posewarper.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
