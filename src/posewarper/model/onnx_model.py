"""Exported models in use: onnxruntime in the place of PyTorch, on the CPU."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from posewarper.errors import ConfigError, ModelError
from posewarper.model.checkpoint import load_model
from posewarper.model.exported_facts import (
    FACTS_KEY,
    POSE,
    WARPER,
    ExportedFacts,
    read_facts,
    warper_path,
)
from posewarper.model.network import ModelSpec, PoseModel
from posewarper.model.runtime import resolve_device

if TYPE_CHECKING:  # an extra
    from onnxruntime import InferenceSession

ONNX_SUFFIX, PROGRAM_SUFFIX = ".onnx", ".pt2"
_QUIET = 3  # errors alone


class OnnxPoseWarper:
    """An exported model, which gives heatmaps and warps them as a ``PoseWarper`` does, on the CPU.

    Args:
        facts: what the pose network's file says of itself.
        pose: the pose network.
        path: its file, beside which the warper lies; that is read when it is first needed.
    """

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, facts: ExportedFacts, pose: InferenceSession, path: str | os.PathLike[str]) -> None:
        self._facts, self._pose, self._path = facts, pose, path
        self._warper: InferenceSession | None = None

    @property
    def spec(self) -> ModelSpec:
        """What the model is: keypoints, size of the crops, normalisation, what was trained."""
        return self._facts.spec

    @property
    def heatmap_size(self) -> tuple[int, int]:
        """(height, width) of the heatmaps: a quarter of the crop's."""
        return self.spec.heatmap_size

    def fingerprint(self) -> str:
        """Return the hash of the parameters of the model that was exported."""
        return self._facts.fingerprint

    def heatmaps(self, crops: Tensor) -> Tensor:
        """Map normalised crops (B, 3, H, W) to heatmaps (B, K, H / 4, W / 4)."""
        return run_session(self._pose, {"crops": crops})

    def warp(self, values: Tensor, *, source: Tensor, target: Tensor) -> Tensor:
        """Move heatmaps (B, K, h, w) from the source frame to the target frame.

        Raises:
            ModelError: as :meth:`open_warper`.
        """
        return run_session(self.open_warper(), {"values": values, "source": source, "target": target})

    def open_warper(self) -> InferenceSession:
        """Return the warper, read from its file the first time.

        Raises:
            ModelError: if the warper was left out of the export, or its file is missing, damaged or that of
                another model.
        """
        if self._warper is None:
            self._warper = _open_warper(self._path, self._facts)
        return self._warper


def load_onnx(path: str | os.PathLike[str]) -> OnnxPoseWarper:
    """Read a model that ``posewarper export`` has written; of the warper beside it, see ``open_warper``.

    Raises:
        ModelError: if the file is missing, damaged or not ours, or if onnxruntime is not installed.
    """
    pose, facts = _open(path)
    if facts.part != POSE:
        raise ModelError(
            f"this file holds the {facts.part} of an exported model, without the pose network",
            path=path,
            mend="give the file without `.warper` in its name; both must lie in one folder",
        )
    return OnnxPoseWarper(facts, pose, path)


def check_warper(model: PoseModel) -> None:
    """Refuse an exported model whose warper cannot be used, before work begins that needs it.

    Raises:
        ModelError: as :meth:`OnnxPoseWarper.open_warper`.
    """
    if isinstance(model, OnnxPoseWarper):
        model.open_warper()


def _open_warper(path: str | os.PathLike[str], facts: ExportedFacts) -> InferenceSession:
    if not facts.has_warper:
        raise ModelError(
            "this exported model has no warper: its head had not been trained",
            path=path,
            mend="predict each frame alone (--aggregate none), or train the warper and export again",
        )
    beside = warper_path(path)
    if not beside.is_file():
        raise ModelError(
            "the warper of this exported model is missing",
            path=path,
            expected=f"{beside.name} in the same folder",
            mend="put it there, export the checkpoint again, or predict each frame alone (--aggregate none)",
        )
    warper, theirs = _open(beside)
    if (theirs.part, theirs.fingerprint) != (WARPER, facts.fingerprint):
        raise ModelError(
            "this is not the warper that was exported with the pose network",
            path=beside,
            expected=f"a warper of the model {facts.fingerprint[:12]}",
            got=f"a {theirs.part} of the model {theirs.fingerprint[:12]}",
            mend="put the right file there, or export the checkpoint again",
        )
    return warper


def open_model(path: str | os.PathLike[str], device: str = "auto") -> PoseModel:
    """Open whatever can predict: a checkpoint, or a model exported to ONNX.

    Args:
        path: a file that ``load_model`` reads, or one that ends in ``.onnx``.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``. An exported model runs on the CPU alone.

    Returns:
        The model in evaluation mode on its device.

    Raises:
        ModelError: as :func:`~posewarper.model.checkpoint.load_model` and :func:`load_onnx`.
        ConfigError: if the device is not to be had.
    """
    suffix = Path(path).suffix.lower()
    if suffix == PROGRAM_SUFFIX:
        raise ModelError(
            "programs of torch.export are for use without posewarper",
            path=path,
            expected="a checkpoint, or a model exported to .onnx",
            mend="give the checkpoint that was exported, or export it to .onnx with `posewarper export`",
        )
    if suffix != ONNX_SUFFIX:
        return load_model(path).to(resolve_device(device)).eval()
    if device not in ("auto", "cpu"):
        raise ConfigError(
            "exported models run on the CPU",
            expected="auto or cpu",
            got=device,
            mend="leave the device out, or give the checkpoint that was exported",
        )
    return load_onnx(path)


def describe_onnx(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what an exported file says of itself, as plain values.

    Raises:
        ModelError: if it is missing, damaged or not ours, or if onnxruntime is not installed.
    """
    session, facts = _open(path)
    return {
        **facts.describe(),
        "inputs": [_describe_tensor(each) for each in session.get_inputs()],
        "outputs": [_describe_tensor(each) for each in session.get_outputs()],
        "bytes": Path(path).stat().st_size,
    }


def _describe_tensor(tensor: Any) -> str:
    return f"{tensor.name} ({', '.join(map(str, tensor.shape))})"


# --- sessions ---------------------------------------------------------------------------------------------


def has_onnxruntime() -> bool:
    """Return whether onnxruntime is installed."""
    return importlib.util.find_spec("onnxruntime") is not None


def open_session(path: str | os.PathLike[str]) -> InferenceSession:
    """Return a session of onnxruntime on the CPU with as many threads as PyTorch has.

    Raises:
        ModelError: if onnxruntime is not installed, or there is no such file or it cannot be read.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError(
            "exported models need onnxruntime, which is not installed",
            path=path,
            mend='pip install "posewarper[export]", or give the checkpoint that was exported',
        ) from error
    if not Path(path).is_file():
        raise ModelError("there is no such exported model", path=path, mend="check the path")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = _QUIET
    try:
        return onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # what is damaged fails in any way
        raise ModelError(
            "cannot read this exported model",
            path=path,
            got=str(error).strip().split("\n")[0][:200],
            mend="export the checkpoint again; this file is damaged or no ONNX",
        ) from error


def run_session(session: InferenceSession, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return the one output of a network for inputs of any float type and layout, in float32."""
    arrays = {name: value.detach().float().cpu().contiguous().numpy() for name, value in inputs.items()}
    return torch.from_numpy(session.run(None, arrays)[0])


def _open(path: str | os.PathLike[str]) -> tuple[InferenceSession, ExportedFacts]:
    session = open_session(path)
    return session, read_facts(session.get_modelmeta().custom_metadata_map.get(FACTS_KEY), path)
