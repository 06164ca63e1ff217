"""What an exported file says of itself: the same for ONNX and for torch.export, in one text of JSON."""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posewarper.errors import ModelError, PosewarperError
from posewarper.model.network import ModelSpec
from posewarper.version import __version__

FACTS_KEY = "posewarper"
"""Where it stands among the metadata of an ONNX file."""
FACTS_FILE = "posewarper.json"
"""Where it lies among the extra files of a program of ``torch.export``."""
POSE, WARPER = "pose network", "warper"
_FORMAT = "posewarper export"


@dataclass(frozen=True)
class ExportedFacts:
    """What an exported file says of itself.

    Args:
        part: ``pose network`` or ``warper``; each has a file of its own.
        spec: of the model that was exported.
        fingerprint: of the whole model, which both of its files share.
        has_warper: whether a warper was exported beside the pose network.
        version: of posewarper that wrote the file.
    """

    part: str
    spec: ModelSpec
    fingerprint: str
    has_warper: bool
    version: str = __version__

    def to_json(self) -> str:
        """Return a text that :func:`read_facts` takes back."""
        content = {
            "format": _FORMAT,
            "version": self.version,
            "part": self.part,
            "has_warper": self.has_warper,
            "parameters_sha256": self.fingerprint,
            "spec": self.spec.to_dict(),
        }
        return json.dumps(content, default=str)

    def describe(self) -> dict[str, Any]:
        """Return all of it as plain values, in the words of ``describe_checkpoint``."""
        described = self.spec.to_dict()
        skeleton = described.pop("skeleton")
        return {
            "version": self.version,
            "part": self.part,
            **described,
            "keypoints": skeleton["names"],
            "heatmap_size": self.spec.heatmap_size,
            "warp_head": "exported beside the pose network" if self.has_warper else "left out: not trained",
            "parameters_sha256": self.fingerprint,
        }


def read_facts(text: str | None, path: str | os.PathLike[str]) -> ExportedFacts:
    """Return what the file ``path`` says of itself in ``text``; None if it says nothing.

    Raises:
        ModelError: if it is not a file that posewarper exported, or its description is damaged.
    """
    if text is None:
        raise ModelError(
            "posewarper did not write this file",
            path=path,
            expected="a file by `posewarper export`, which says what it holds",
            mend="export a checkpoint with `posewarper export`",
        )
    try:
        content = json.loads(text)
        if content["format"] != _FORMAT:
            raise ValueError(f"format {content['format']}")
        return ExportedFacts(
            str(content["part"]),
            ModelSpec.from_dict(content["spec"]),
            str(content["parameters_sha256"]),
            bool(content["has_warper"]),
            str(content["version"]),
        )
    except (PosewarperError, ValueError, KeyError, TypeError, AttributeError) as error:
        got = error.what if isinstance(error, PosewarperError) else f"{type(error).__name__}: {error}"[:200]
        raise ModelError(
            "the description of this exported model is damaged, or of another version",
            path=path,
            got=got,
            mend="export the checkpoint again",
        ) from error


def describe_program(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what a program of ``torch.export`` says of itself, as plain values, without loading it.

    Raises:
        ModelError: if it is missing, damaged or not ours.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(f"/extra/{FACTS_FILE}")]
            text = archive.read(names[0]).decode() if names else None
    except FileNotFoundError as error:
        raise ModelError("there is no such exported model", path=path, mend="check the path") from error
    except (OSError, zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise ModelError(
            "cannot read this exported model",
            path=path,
            got=str(error)[:200],
            mend="export the checkpoint again; this file is damaged or no program of torch.export",
        ) from error
    return {**read_facts(text, path).describe(), "bytes": os.stat(path).st_size}


def warper_path(path: str | os.PathLike[str]) -> Path:
    """Return where the warper lies that belongs to an exported pose network.

    Example:
        >>> warper_path("results/model.onnx").name
        'model.warper.onnx'
    """
    place = Path(path)
    return place.with_name(f"{place.stem}.warper{place.suffix}")
