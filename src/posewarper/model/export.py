"""Trained models for other runtimes: ONNX, and the programs of ``torch.export``.

A model becomes two files, each a plain graph from tensors to a tensor: the pose network at the path that is
asked for, and the warper beside it (:func:`~posewarper.model.export.warper_path`). One graph of both
would compute both whenever one is wanted, since runtimes neither leave out inputs nor parts of a graph.

============  ==============================================  ===========================
file          inputs, float32                                 output, float32
============  ==============================================  ===========================
pose network  ``crops`` (B, 3, H, W), normalised              ``heatmaps`` (B, K, h, w)
warper        ``values``, ``source``, ``target`` (B, K, h, w) ``warped`` (B, K, h, w)
============  ==============================================  ===========================

B is free; H, W, the mean and the deviation of the normalisation stand in the file's description.
"""

from __future__ import annotations

import importlib.util
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from posewarper.errors import ConfigError, ModelError, PosewarperError
from posewarper.model.checkpoint import load_model
from posewarper.model.network import ModelSpec, PoseModel
from posewarper.model.runtime import resolve_device
from posewarper.version import __version__

if TYPE_CHECKING:  # an extra
    from onnxruntime import InferenceSession
import copy
from collections.abc import Callable
from contextlib import ExitStack

import numpy as np
from torch import nn
from torch.export import Dim, ExportedProgram

from posewarper.files import replacing
from posewarper.heatmaps import encode
from posewarper.model.network import PoseWarper
from posewarper.model.warping import WarpHead
from posewarper.structures import Progress, silent

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
            fix="export a checkpoint with `posewarper export`",
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
            fix="export the checkpoint again",
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
        raise ModelError("there is no such exported model", path=path, fix="check the path") from error
    except (OSError, zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise ModelError(
            "cannot read this exported model",
            path=path,
            got=str(error)[:200],
            fix="export the checkpoint again; this file is damaged or no program of torch.export",
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
            fix="give the file without `.warper` in its name; both must lie in one folder",
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
            fix="predict each frame alone (--aggregate none), or train the warper and export again",
        )
    beside = warper_path(path)
    if not beside.is_file():
        raise ModelError(
            "the warper of this exported model is missing",
            path=path,
            expected=f"{beside.name} in the same folder",
            fix="put it there, export the checkpoint again, or predict each frame alone (--aggregate none)",
        )
    warper, theirs = _open(beside)
    if (theirs.part, theirs.fingerprint) != (WARPER, facts.fingerprint):
        raise ModelError(
            "this is not the warper that was exported with the pose network",
            path=beside,
            expected=f"a warper of the model {facts.fingerprint[:12]}",
            got=f"a {theirs.part} of the model {theirs.fingerprint[:12]}",
            fix="put the right file there, or export the checkpoint again",
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
            fix="give the checkpoint that was exported, or export it to .onnx with `posewarper export`",
        )
    if suffix != ONNX_SUFFIX:
        return load_model(path).to(resolve_device(device)).eval()
    if device not in ("auto", "cpu"):
        raise ConfigError(
            "exported models run on the CPU",
            expected="auto or cpu",
            got=device,
            fix="leave the device out, or give the checkpoint that was exported",
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
            fix='pip install "posewarper[export]", or give the checkpoint that was exported',
        ) from error
    if not Path(path).is_file():
        raise ModelError("there is no such exported model", path=path, fix="check the path")
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
            fix="export the checkpoint again; this file is damaged or no ONNX",
        ) from error


def run_session(session: InferenceSession, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return the one output of a network for inputs of any float type and layout, in float32."""
    arrays = {name: value.detach().float().cpu().contiguous().numpy() for name, value in inputs.items()}
    return torch.from_numpy(session.run(None, arrays)[0])


def _open(path: str | os.PathLike[str]) -> tuple[InferenceSession, ExportedFacts]:
    session = open_session(path)
    return session, read_facts(session.get_modelmeta().custom_metadata_map.get(FACTS_KEY), path)


TOLERANCE = 1e-4
"""How far an exported network may be from the original, as a share of the highest value (at least 1)."""
# Of the batch that a network is traced with, and of the one that it is compared with afterwards.
_TRACED, _COMPARED = 2, 3


@dataclass(frozen=True)
class ExportedFile:
    """A file that was written.

    Args:
        path: where it is.
        size: in bytes.
        part: ``pose network`` or ``warper``.
        difference: the largest difference between an output of the file and one of the model, on a batch
            that is not the traced one; None if it could not be measured since onnxruntime is missing.
    """

    path: Path
    size: int
    part: str
    difference: float | None


class _PoseNetwork(nn.Module):
    def __init__(self, model: PoseWarper) -> None:
        super().__init__()
        self.model = model

    def forward(self, crops: Tensor) -> Tensor:
        return self.model.heatmaps(crops)


class _Warper(nn.Module):
    def __init__(self, head: WarpHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, values: Tensor, source: Tensor, target: Tensor) -> Tensor:
        return self.head(values, source=source, target=target)


@dataclass(frozen=True)
class _Part:
    name: str
    path: Path
    network: nn.Module
    inputs: dict[str, Tensor]  # a batch to compare with; the first ones are traced
    output: str


_Write = Callable[[_Part, ExportedProgram, str, Path], None]
_Run = Callable[[_Part, Path], Tensor | None]


def export_onnx(
    model: PoseWarper, path: str | os.PathLike[str], *, progress: Progress = silent
) -> list[ExportedFile]:
    """Write a model as ONNX, look whether onnxruntime computes the same, and only then keep the files.

    Args:
        model: on any device; it is left as it is.
        path: of the pose network; the warper goes beside it. A head that was never trained is left out.
        progress: is told of each file.

    Returns:
        The files: the pose network, and the warper if there is one.

    Raises:
        ModelError: if the network cannot be exported, computes something else afterwards, or onnxscript is
            not installed.
        OutputError: if the place cannot be written.
    """
    try:
        import onnxscript  # noqa: F401  (torch needs it)
    except ImportError as error:
        raise ModelError(
            "models cannot be exported to ONNX here",
            got="onnxscript is not installed",
            fix='pip install "posewarper[export]", or export to a .pt2 file, which needs nothing more',
        ) from error
    return _export(model, Path(path), _write_onnx, _run_onnx, progress)


def export_program(
    model: PoseWarper, path: str | os.PathLike[str], *, progress: Progress = silent
) -> list[ExportedFile]:
    """Write a model by ``torch.export``, for PyTorch without posewarper (or compiled ahead of time).

    Otherwise as :func:`export_onnx`; the description lies in the file as ``posewarper.json``.
    """
    return _export(model, Path(path), _write_program, _run_program, progress)


def _export(
    model: PoseWarper, path: Path, write: _Write, run: _Run, progress: Progress
) -> list[ExportedFile]:
    fingerprint = model.fingerprint()
    own = copy.deepcopy(model).float().cpu().to(memory_format=torch.contiguous_format).eval()
    parts = _parts(own, path)
    written = []
    # The pose network is entered first and so replaced last: while it is the old one, so is all that counts.
    with ExitStack() as stack, torch.no_grad():
        for number, part in enumerate(parts):
            progress("export", number, len(parts))
            temporary = stack.enter_context(replacing(part.path))
            facts = ExportedFacts(part.name, model.spec, fingerprint, len(parts) > 1)
            write(part, _trace(part), facts.to_json(), temporary)
            difference = _compare(part, run(part, temporary))
            written.append(ExportedFile(part.path, temporary.stat().st_size, part.name, difference))
        progress("export", len(parts), len(parts))
    if len(parts) == 1:  # of a model that was exported here before
        warper_path(path).unlink(missing_ok=True)
    return written


def _parts(model: PoseWarper, path: Path) -> list[_Part]:
    """Return what is to be exported, with inputs like those to come."""
    spec, k = model.spec, len(model.spec.skeleton)
    chance = np.random.default_rng(0)
    crops = torch.from_numpy(chance.standard_normal((_COMPARED, 3, *spec.crop_size), np.float32))
    parts = [_Part(POSE, path, _PoseNetwork(model), {"crops": crops}, "heatmaps")]
    if "warp" in spec.trained:
        height, width = model.heatmap_size
        places = chance.uniform((-1, -1), (width, height), (3, _COMPARED, k, 2))
        maps = torch.from_numpy(encode(places, model.heatmap_size, spec.sigma))
        inputs = {"values": maps[0], "source": maps[1], "target": maps[2]}
        parts.append(_Part(WARPER, warper_path(path), _Warper(model.warp_head), inputs, "warped"))
    return parts


def _trace(part: _Part) -> ExportedProgram:
    batch = Dim("batch", min=1)
    try:
        program = torch.export.export(
            part.network,
            # Of a view torch would take the sizes of its base for open as well.
            tuple(value[:_TRACED].clone() for value in part.inputs.values()),
            dynamic_shapes=tuple({0: batch} for _ in part.inputs),
        )
        # Takes the blocks of autocast along, which other readers of the file need not know.
        program = program.run_decompositions({})
    except Exception as error:  # torch refuses what it cannot trace in many ways
        raise _not_exportable(part, error) from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    return program


def _not_exportable(part: _Part, error: Exception) -> ModelError:
    said = str(error).strip().split("\n")[0][:200] or type(error).__name__
    return ModelError(
        f"the {part.name} cannot be exported",
        path=part.path,
        got=said,
        fix="export to the other format (.onnx or .pt2), or take a model with another backbone",
    )


def _compare(part: _Part, got: Tensor | None) -> float | None:
    """Return the largest difference from the network itself; refuse one that matters."""
    if got is None:
        return None
    expected = part.network(*part.inputs.values())
    same_shape = got.shape == expected.shape
    difference = float((got - expected).abs().max()) if same_shape else float("nan")
    limit = TOLERANCE * max(1.0, float(expected.abs().max()))
    if not difference <= limit:
        raise ModelError(
            f"the exported {part.name} computes something else than the checkpoint",
            path=part.path,
            expected=f"{part.output} of shape {tuple(expected.shape)} that differ by at most {limit:.1e}",
            got=f"a difference of {difference:.1e}" if same_shape else f"shape {tuple(got.shape)}",
            fix="nothing was written; install the newest torch, onnxscript and onnxruntime and export again",
        )
    return difference


def _write_onnx(part: _Part, program: ExportedProgram, facts: str, path: Path) -> None:
    # All inputs share the batch, so that it is named at the first alone.
    names = ({0: "batch"}, *[None] * (len(part.inputs) - 1))
    try:
        exported = torch.onnx.export(
            program,
            input_names=list(part.inputs),
            output_names=[part.output],
            dynamic_shapes=names,
            dynamo=True,
            verbose=False,
        )
        assert exported is not None
        content = exported.model_proto
    except Exception as error:  # as in tracing
        raise _not_exportable(part, error) from error
    # How the graph came about, with paths of this machine: nothing that a runtime needs.
    graph = content.graph
    for described in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del described.metadata_props[:]
    entry = content.metadata_props.add()
    entry.key, entry.value = FACTS_KEY, facts
    path.write_bytes(content.SerializeToString(deterministic=True))


def _run_onnx(part: _Part, path: Path) -> Tensor | None:
    return run_session(open_session(path), part.inputs) if has_onnxruntime() else None


def _write_program(part: _Part, program: ExportedProgram, facts: str, path: Path) -> None:
    torch.export.save(program, path, extra_files={FACTS_FILE: facts})


def _run_program(part: _Part, path: Path) -> Tensor:
    return torch.export.load(path).module()(*part.inputs.values())
