"""Checkpoints that describe themselves; loading one never runs code from the file."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from typing import Any

import torch

from posewarper.errors import ModelError, PosewarperError
from posewarper.files import replacing
from posewarper.model.network import ModelSpec, PoseWarper, count_parameters
from posewarper.version import __version__

_FORMAT = "posewarper model"


def parameters_sha256(model: PoseWarper) -> str:
    """Return a hash over names and bytes of every parameter and buffer, the same for equal models."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_model(path: str | os.PathLike[str], model: PoseWarper) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        OutputError: if the place cannot be written.
    """
    content = {
        "format": _FORMAT,
        "version": __version__,
        "spec": model.spec.to_dict(),
        "state": {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()},
    }
    # By way of memory: into a file torch writes the file's own (temporary) name, so that equal models would
    # differ, and a full disk it reports as a RuntimeError.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def _check_sums(path: str | os.PathLike[str]) -> None:
    # torch writes check sums and does not look at them; a flipped bit would load as another weight.
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"the check sum of {damaged} is wrong")


def _read(path: str | os.PathLike[str]) -> dict[str, Any]:
    mend = "give a model.pt that posewarper wrote"
    try:
        _check_sums(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError("there is no such checkpoint", path=path, mend="check the path") from error
    except Exception as error:  # what is damaged fails in any way: KeyError, IndexError, AssertionError, ...
        # Only the first sentence: what torch adds is advice to read the file unsafely.
        first = str(error).strip().split("\n")[0].split(". ")[0][:200]
        raise ModelError("cannot read this checkpoint", path=path, got=first, mend=mend) from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ModelError("this is not a checkpoint of posewarper", path=path, mend=mend)
    return content


def load_model(path: str | os.PathLike[str]) -> PoseWarper:
    """Read a checkpoint into a model in evaluation mode, on the CPU.

    Only tensors and plain values are read; code in the file is refused.

    Raises:
        ModelError: if the file is missing, damaged, not ours, or its tensors do not fit its description.

    Example:
        >>> model = load_model("model.pt")
        >>> model.spec.skeleton.names
        ('nose', 'left_paw', 'right_paw', 'tail')
    """
    content = _read(path)
    try:
        model = PoseWarper(ModelSpec.from_dict(content["spec"]))
        model.load_state_dict(content["state"])
    except (PosewarperError, KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ModelError(
            "the checkpoint's tensors do not fit its description",
            path=path,
            got=error.what if isinstance(error, PosewarperError) else str(error)[:500],
            mend="write the checkpoint again; it was made by another version or is damaged",
        ) from error
    return model.eval()


def describe_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what a checkpoint says of itself, as plain values.

    Raises:
        ModelError: as :func:`load_model`.
    """
    model = load_model(path)
    described = model.spec.to_dict()
    skeleton = described.pop("skeleton")
    return {
        "version": _read(path).get("version"),
        **described,
        "keypoints": skeleton["names"],
        "heatmap_size": model.heatmap_size,
        "parameters": count_parameters(model),
        "parameters_sha256": parameters_sha256(model),
    }
