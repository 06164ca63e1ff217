"""Checkpoints: writing and reading our own, which describe themselves, and reading released ones.

Whatever takes a model takes a file, a folder or an address on Hugging Face, and reads it here.

Reading never runs code from the file.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from posewarper.errors import ModelError, PosewarperError, few_of, need_path
from posewarper.files import replacing, sha256_of
from posewarper.model.folder import read_folder
from posewarper.model.hub import CONFIG, DESCRIPTION, WEIGHTS, find_model
from posewarper.model.network import ModelSpec, PoseModel, PoseWarper, count_parameters
from posewarper.model.pretrained import read_file, refuse_nan
from posewarper.model.released import FIX, build_released
from posewarper.model.vitpose import build_vitpose
from posewarper.model.warping import count_head
from posewarper.skeletons import Skeleton
from posewarper.version import __version__

_FORMAT = "posewarper model"


def parameters_sha256(model: PoseModel) -> str:
    """Return a hash over names and bytes of every parameter and buffer, the same for equal models."""
    return model.fingerprint()


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
    write_tensors(path, content)


def write_tensors(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write tensors and plain values, whole or not at all.

    Raises:
        OutputError: if the place cannot be written.
    """
    # Through memory: into a file torch writes the file's own (temporary) name, so that equal models would
    # differ, and it reports a full disk as a RuntimeError.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


class _Ignored:
    """Takes the place of NumPy's values that lie beside released weights (a best score): none are kept."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


# What these names stand for is never called.
_NUMPY = [
    (_Ignored, f"numpy.{name}")
    for core in ("core.multiarray", "_core.multiarray")
    for name in ("dtype", "ndarray", f"{core}.scalar", f"{core}._reconstruct")
]


def load_model(
    path: str | os.PathLike[str],
    *,
    skeleton: Skeleton | None = None,
    crop_size: tuple[int, int] | None = None,
) -> PoseWarper:
    """Read a checkpoint into a model in evaluation mode, on the CPU.

    A model is a file, a folder that ``posewarper push --to-folder`` has written, or an address on Hugging
    Face, ``hf:owner/name`` or ``hf:owner/name@revision``, which is downloaded once.

    Beside our own this reads released weights: the original's pose networks and PoseWarpers, HRNet-W32 and
    W48, with or without ``module.`` before each name, both stages of mmpose 0.x's PoseWarper, and ViTPose in
    the layout of transformers (a folder or an address: ``hf:usyd-community/vitpose-base-simple``). A pose
    network alone gets a new warp head, which returns heatmaps unmoved; ``spec.trained`` then lacks ``warp``.

    Only tensors and plain values are read; code in the file is refused.

    Args:
        path: the file, folder or address.
        skeleton: the keypoints of released weights, which do not name them; PoseTrack's if there are 17 and
            this is left out.
        crop_size: (height, width) in pixels of the crops for released weights; 384 x 288 if left out.

    Raises:
        ModelError: if the file is missing, damaged or unknown, if its tensors do not fit its description or
            a known network, or if our own checkpoint has another skeleton or crop size.
        ConfigError: if the crop's size does not fit the network.

    Example:
        >>> model = load_model("model.pt")
        >>> model.spec.skeleton.names
        ('nose', 'left_paw', 'right_paw', 'tail')
    """
    return read_checkpoint(need_path(path, "the model"), skeleton, crop_size)[0]


def describe_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the description of a checkpoint, ours or a released one, as plain values.

    Raises:
        ModelError: as :func:`load_model`.
    """
    model, version = read_checkpoint(path)
    trained = bool(model.spec.trained.get("warp"))
    return {
        "version": version,
        **model.spec.describe(),
        "training": f"stopped at {model.spec.stopped}" if model.spec.stopped else None,
        "warp_head": "trained" if trained else "not trained: it returns heatmaps as they are, unmoved",
        "parameters": count_parameters(model),
        "parameters_sha256": parameters_sha256(model),
    }


def read_checkpoint(
    path: str | os.PathLike[str], skeleton: Skeleton | None = None, crop_size: tuple[int, int] | None = None
) -> tuple[PoseWarper, str | None]:
    """Return the model, and the version of posewarper that wrote it (None for released weights).

    Arguments and errors are those of :func:`load_model`.
    """
    if Path(path).suffix.lower() == ".onnx":
        raise ModelError(
            "an exported model can only predict",
            path=path,
            expected="a checkpoint",
            fix="give the checkpoint that was exported",
        )
    place = find_model(path)
    if place.is_dir() and (place / CONFIG).is_file() and not (place / DESCRIPTION).is_file():
        model = build_vitpose(place, path, skeleton)
        _check_wishes(model.spec, path, None, crop_size)
        return _checked(model, path), None
    content = _read(place, path)
    if content.get("format") == _FORMAT:
        model = _build_ours(content, path)
        _check_wishes(model.spec, path, skeleton, crop_size)
    else:
        model = build_released(content, path, sha256_of(path), skeleton=skeleton, crop_size=crop_size)
    return _checked(model, path), str(content["version"])[:80] if content.get("version") else None


def _checked(model: PoseWarper, path: str | os.PathLike[str]) -> PoseWarper:
    fix = "take another checkpoint; the training that wrote this one has failed"
    refuse_nan(model.state_dict(), path, fix)
    return model.eval()


def _read(place: Path, path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """Return what a checkpoint of ours or a released one holds, be it a file or a folder."""
    if not place.is_dir():
        return read_file(place, "a checkpoint of posewarper", FIX, _NUMPY)
    if (place / DESCRIPTION).is_file():
        return {**read_folder(place), "format": _FORMAT}
    raise ModelError(
        "this folder holds no model",
        path=path,
        expected=f"{DESCRIPTION} and {WEIGHTS}, as `posewarper push --to-folder` writes them",
        got=few_of(sorted(inner.name for inner in place.iterdir())) or "an empty folder",
        fix=FIX,
    )


def _check_wishes(
    spec: ModelSpec,
    path: str | os.PathLike[str],
    skeleton: Skeleton | None,
    crop_size: tuple[int, int] | None,
) -> None:
    """Refuse another skeleton or crop size than a checkpoint that describes itself has."""
    fix = "leave it out: this checkpoint describes itself"
    if skeleton is not None and skeleton.names != spec.skeleton.names:
        expected, got = (", ".join(each.names) for each in (spec.skeleton, skeleton))
        what = "the checkpoint has another skeleton"
        raise ModelError(what, path=path, expected=expected, got=got, fix=fix)
    if crop_size is not None and tuple(crop_size) != spec.crop_size:
        expected, got = (" x ".join(map(str, size)) for size in (spec.crop_size, crop_size))
        what = "the checkpoint has another crop size"
        raise ModelError(what, path=path, expected=expected, got=got, fix=fix)


def _build_ours(content: Mapping[str, Any], path: str | os.PathLike[str]) -> PoseWarper:
    try:
        spec, state = ModelSpec.from_dict(content["spec"]), content["state"]
        # Before a head is built, which a wrong number would make fill the memory.
        stored = sum(min(value.numel(), value.untyped_storage().nbytes()) for value in state.values())
        if any(value.is_complex() for value in state.values()):
            raise ValueError("complex numbers")
        shape = len(spec.skeleton), spec.head_width, spec.head_blocks, len(spec.head_dilations)
        if count_head(*shape) > stored:
            raise ValueError(f"a warp head that is larger than the {stored} numbers in the file")
        model = PoseWarper(spec)
        # torch would do without the counters of batch norms.
        if missing := model.state_dict().keys() - state.keys():
            raise ValueError(f"no tensors {few_of(sorted(missing))}")
        model.load_state_dict(state)
    except (PosewarperError, KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ModelError(
            "the checkpoint's tensors do not fit its description",
            path=path,
            got=getattr(error, "what", None) or f"{type(error).__name__}: {error}"[:500],
            fix="write the checkpoint again; it was made by another version or is damaged",
        ) from error
    return model
