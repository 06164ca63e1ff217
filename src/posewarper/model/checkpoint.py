"""Checkpoints, ours and released ones; ours describe themselves. Loading never runs code from the file."""

from __future__ import annotations

import codecs
import hashlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from posewarper.errors import ModelError, PosewarperError
from posewarper.files import replacing
from posewarper.model.network import ModelSpec, PoseModel, PoseWarper, count_parameters
from posewarper.model.pretrained import check_sums
from posewarper.model.released import build_released
from posewarper.skeletons import Skeleton
from posewarper.version import __version__

_FORMAT = "posewarper model"
_EXPORTED = (".onnx", ".pt2")


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
    # By way of memory: into a file torch writes the file's own (temporary) name, so that equal models would
    # differ, and a full disk it reports as a RuntimeError.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


class _Ignored:
    """Takes the place of NumPy's values that lie beside released weights: nothing of them is kept."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


# A best score, say. What their names stand for is never called.
_NUMPY: list[Any] = [
    (_Ignored, name)
    for name in (
        *("numpy.dtype", "numpy.ndarray", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
        *("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
    )
]


def _read(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    fix = "give a model.pt that posewarper wrote, or weights (.pth) of the original or of mmpose 0.x"
    if Path(path).suffix.lower() in _EXPORTED:
        raise ModelError(
            "an exported model can only predict",
            path=path,
            expected="a checkpoint",
            fix="give the checkpoint that was exported",
        )
    try:
        check_sums(path)
        with torch.serialization.safe_globals(_NUMPY):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError("there is no such checkpoint", path=path, fix="check the path") from error
    except Exception as error:  # what is damaged fails in any way: KeyError, IndexError, AssertionError, ...
        got = _unreadable(path, error)
        raise ModelError("cannot read this checkpoint", path=path, got=got, fix=fix) from error
    if not isinstance(content, Mapping):
        got = f"a {type(content).__name__}"
        raise ModelError("this is not a checkpoint of posewarper", path=path, got=got, fix=fix)
    return content


def _unreadable(path: str | os.PathLike[str], error: Exception) -> str:
    """Say what a file is that cannot be read as a checkpoint."""
    if os.path.isdir(path):
        return "a folder; the checkpoint is a file in it"
    try:
        with open(path, "rb") as handle:
            begin = handle.read(64)
    except OSError:
        begin = b"?"
    if not begin:
        return "an empty file"
    if begin.lstrip()[:1] == b"<":
        return "a web page or XML, perhaps that of a download that needs a login"
    # torch says the same of what is no pickle at all, and that begins neither as a pickle nor as a zip.
    if "Weights only" in str(error) and begin.startswith((b"\x80", b"PK")):
        return "a file that would run code when loaded (a whole pickled model, say), which is not done"
    if _is_text(begin):
        return "a text file"
    if "Weights only" in str(error):
        return "a file of another kind: a video or a picture, perhaps"
    # Only the first sentence: what torch adds is advice to read the file unsafely.
    return str(error).strip().split("\n")[0].split(". ")[0][:200]


def _is_text(begin: bytes) -> bool:
    try:
        # Which takes a last letter that is cut off.
        text = codecs.getincrementaldecoder("utf-8")().decode(begin)
    except UnicodeDecodeError:
        return False
    return all(letter in "\t\r\n" or letter.isprintable() for letter in text)


def _check_numbers(state: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Refuse weights that are no numbers, with which every prediction would be nothing."""
    broken = [n for n, v in state.items() if v.is_floating_point() and not torch.isfinite(v).all()]
    if broken:
        raise ModelError(
            f"{len(broken)} tensors hold values that are no numbers (NaN or infinite)",
            path=path,
            got=", ".join(broken[:5]),
            fix="take another checkpoint; the training that wrote this one has failed",
        )


def _file_sha256(path: str | os.PathLike[str]) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def load_model(
    path: str | os.PathLike[str],
    *,
    skeleton: Skeleton | None = None,
    crop_size: tuple[int, int] | None = None,
) -> PoseWarper:
    """Read a checkpoint into a model in evaluation mode, on the CPU.

    Beside our own this reads released weights: the original's pose networks and PoseWarpers, HRNet-W32 and
    W48, with or without ``module.`` before each name, and both stages of mmpose 0.x's PoseWarper. A pose
    network alone gets a new warp head, which returns heatmaps unmoved; ``spec.trained`` then lacks ``warp``.

    Only tensors and plain values are read; code in the file is refused.

    Args:
        path: the file.
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
    return _build(_read(path), path, skeleton, crop_size)


def _build(
    content: Mapping[str, Any],
    path: str | os.PathLike[str],
    skeleton: Skeleton | None = None,
    crop_size: tuple[int, int] | None = None,
) -> PoseWarper:
    if content.get("format") == _FORMAT:
        model = _build_ours(content, path, skeleton, crop_size)
    else:
        model = build_released(content, path, _file_sha256(path), skeleton=skeleton, crop_size=crop_size)
    _check_numbers(model.state_dict(), path)
    return model.eval()


def _build_ours(
    content: Mapping[str, Any],
    path: str | os.PathLike[str],
    skeleton: Skeleton | None,
    crop_size: tuple[int, int] | None,
) -> PoseWarper:
    try:
        model = PoseWarper(ModelSpec.from_dict(content["spec"]))
        model.load_state_dict(content["state"])
    except (PosewarperError, KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ModelError(
            "the checkpoint's tensors do not fit its description",
            path=path,
            got=error.what if isinstance(error, PosewarperError) else str(error)[:500],
            fix="write the checkpoint again; it was made by another version or is damaged",
        ) from error
    spec, fix = model.spec, "leave it out: this checkpoint describes itself"
    if skeleton is not None and skeleton.names != spec.skeleton.names:
        got, expected = ", ".join(skeleton.names), ", ".join(spec.skeleton.names)
        raise ModelError(
            "the checkpoint has another skeleton", path=path, expected=expected, got=got, fix=fix
        )
    if crop_size is not None and tuple(crop_size) != spec.crop_size:
        expected, got = (" x ".join(map(str, size)) for size in (spec.crop_size, crop_size))
        raise ModelError(
            "the checkpoint has another crop size", path=path, expected=expected, got=got, fix=fix
        )
    return model


def describe_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what a checkpoint, ours or a released one, says of itself, as plain values.

    Raises:
        ModelError: as :func:`load_model`.
    """
    content = _read(path)
    model = _build(content, path)
    described = model.spec.to_dict()
    skeleton = described.pop("skeleton")
    trained = bool(model.spec.trained.get("warp"))
    return {
        "version": content.get("version"),
        **described,
        "keypoints": skeleton["names"],
        "heatmap_size": model.heatmap_size,
        "warp_head": "trained" if trained else "not trained: it returns heatmaps as they are, unmoved",
        "parameters": count_parameters(model),
        "parameters_sha256": parameters_sha256(model),
    }
