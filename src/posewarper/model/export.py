"""Export a model to ONNX, and predict with what was exported.

A model becomes two files, each a plain graph from tensors to one tensor: the pose network at the path that
the user gives, and the warper beside it (:func:`warper_path`). One graph of both would compute both whenever
one is wanted, since runtimes do not skip inputs or parts of a graph.

============  ==============================================  ===========================
file          inputs, float32                                 output, float32
============  ==============================================  ===========================
pose network  ``crops`` (B, 3, H, W), normalised              ``heatmaps`` (B, K, h, w)
warper        ``values``, ``source``, ``target`` (B, K, h, w) ``warped`` (B, K, h, w)
============  ==============================================  ===========================

B is free. H, W, and the mean and deviation of the normalisation are in the description that each file holds.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from posewarper.errors import ConfigError, ModelError, PosewarperError, first_sentence, no_such_file
from posewarper.files import replacing
from posewarper.heatmaps import encode
from posewarper.model.checkpoint import load_model
from posewarper.model.network import ModelSpec, PoseModel, PoseWarper
from posewarper.model.onnx_graph import TOLERANCE, open_session
from posewarper.model.runtime import resolve_device
from posewarper.structures import Progress, silent
from posewarper.version import __version__

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

ONNX_SUFFIX = ".onnx"
POSE, WARPER = "pose network", "warper"
# The description's key in the metadata of an ONNX file, and the format that it names.
_KEY, _FORMAT = "posewarper", "posewarper export"
# Sizes of the batch that a network is traced with, and of the one that it is compared with afterwards.
_TRACED, _COMPARED = 2, 3


def warper_path(path: str | os.PathLike[str]) -> Path:
    """Return where the warper of an exported pose network lies: ``model.warper.onnx`` by ``model.onnx``."""
    place = Path(path)
    return place.with_name(f"{place.stem}.warper{place.suffix}")


# --- reading ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ExportedFacts:
    """The description that an exported file holds."""

    version: str  # of posewarper that wrote the file
    part: str  # ``pose network`` or ``warper``; each has a file of its own
    has_warper: bool  # whether a warper was exported beside the pose network
    parameters_sha256: str  # of the whole model, the same in both of its files
    spec: ModelSpec


class OnnxPoseWarper:
    """An exported model, which gives heatmaps and warps them as a ``PoseWarper`` does, on the CPU.

    Args:
        path: the pose network's file. The warper beside it is read when it is first needed.

    Raises:
        ModelError: if the file is missing, damaged or not ours, or if onnxruntime is not installed.
    """

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path
        self._pose, self._facts = _open(path)
        self._warper: InferenceSession | None = None
        self.spec = self._facts.spec
        if self._facts.part != POSE:
            raise ModelError(
                f"this file holds the {self._facts.part} of an exported model, without the pose network",
                path=path,
                fix="give the file without `.warper` in its name; both must lie in one folder",
            )

    def fingerprint(self) -> str:
        """Return the hash of the parameters of the model that was exported."""
        return self._facts.parameters_sha256

    def heatmaps(self, crops: Tensor) -> Tensor:
        """Map normalised crops (B, 3, H, W) to heatmaps (B, K, H / 4, W / 4)."""
        return _run(self._pose, {"crops": crops})

    def warp(self, values: Tensor, *, source: Tensor, target: Tensor) -> Tensor:
        """Move heatmaps (B, K, h, w) from the source frame to the target frame; see :meth:`open_warper`."""
        return _run(self.open_warper(), {"values": values, "source": source, "target": target})

    def open_warper(self) -> InferenceSession:
        """Return the warper, read from its file the first time.

        Raises:
            ModelError: if it was not exported, or its file is missing, damaged or of another model.
        """
        if self._warper is not None:
            return self._warper
        if not self._facts.has_warper:
            raise ModelError(
                "this exported model has no warper, because its warp head was never trained",
                path=self._path,
                fix="predict each frame alone (--aggregate none), or train the warper and export again",
            )
        beside = warper_path(self._path)
        if not beside.is_file():
            raise ModelError(
                "the warper of this exported model is missing",
                path=self._path,
                expected=f"{beside.name} in the same folder",
                fix="put it there, export the checkpoint again, or predict each frame alone "
                "(--aggregate none)",
            )
        warper, facts = _open(beside)
        if (facts.part, facts.parameters_sha256) != (WARPER, self.fingerprint()):
            raise ModelError(
                "this is not the warper that was exported with the pose network",
                path=beside,
                expected=f"a warper of the model {self.fingerprint()[:12]}",
                got=f"a {facts.part} of the model {facts.parameters_sha256[:12]}",
                fix="put the right file there, or export the checkpoint again",
            )
        self._warper = warper
        return warper


def open_model(path: str | os.PathLike[str], device: str = "auto") -> PoseModel:
    """Open whatever can predict: a checkpoint, or a model exported to ONNX.

    Args:
        path: a file that ``load_model`` reads, or one that ends in ``.onnx``.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``, where the model is put, in evaluation mode. An
            exported model runs on the CPU alone.

    Raises:
        ModelError: as :func:`~posewarper.model.checkpoint.load_model` and :class:`OnnxPoseWarper`.
        ConfigError: if this machine lacks the device.
    """
    if Path(path).suffix.lower() != ONNX_SUFFIX:
        return load_model(path).to(resolve_device(device)).eval()
    if device not in ("auto", "cpu"):
        raise ConfigError(
            "exported models run on the CPU",
            expected="auto or cpu",
            got=device,
            fix="leave the device out, or give the checkpoint that was exported",
        )
    return OnnxPoseWarper(path)


def check_warper(model: PoseModel) -> None:
    """Raise ModelError if a model's exported warper cannot be used, before work begins that needs it."""
    if isinstance(model, OnnxPoseWarper):
        model.open_warper()


def describe_onnx(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the description that an exported file holds, its inputs and outputs, as plain values.

    Raises:
        ModelError: if it is missing, damaged or not ours, or if onnxruntime is not installed.
    """
    session, facts = _open(path)
    tensors = {"inputs": session.get_inputs(), "outputs": session.get_outputs()}
    return {
        "version": facts.version,
        "part": facts.part,
        **facts.spec.describe(),
        "warp_head": "exported beside the pose network" if facts.has_warper else "left out: not trained",
        "parameters_sha256": facts.parameters_sha256,
        **{kind: [f"{t.name} ({', '.join(map(str, t.shape))})" for t in ts] for kind, ts in tensors.items()},
        "bytes": Path(path).stat().st_size,
    }


def _open(path: str | os.PathLike[str]) -> tuple[InferenceSession, ExportedFacts]:
    """Return a session of onnxruntime for a file, and the file's description."""
    if not Path(path).is_file():
        raise no_such_file(path, "an exported model", error=ModelError)
    try:
        session = open_session(os.fspath(path))
    except ImportError as error:
        raise ModelError(
            "exported models need onnxruntime, which is not installed",
            path=path,
            fix="pip install onnxruntime, or give the checkpoint that was exported",
        ) from error
    except Exception as error:  # damaged files fail in any way
        raise ModelError(
            "cannot read this exported model",
            path=path,
            got=first_sentence(error),
            fix="export the checkpoint again; this file is damaged or no ONNX",
        ) from error
    text = session.get_modelmeta().custom_metadata_map.get(_KEY)
    if text is None:
        raise ModelError(
            "posewarper did not write this file",
            path=path,
            expected="a file by `posewarper export`, which says what it holds",
            fix="export a checkpoint with `posewarper export`",
        )
    try:
        content = json.loads(text)
        if content.pop("format") != _FORMAT:
            raise ValueError("another format")
        spec = ModelSpec.from_dict(content.pop("spec"))
        return session, ExportedFacts(spec=spec, **content)
    except (PosewarperError, ValueError, KeyError, TypeError, AttributeError) as error:
        got = error.what if isinstance(error, PosewarperError) else f"{type(error).__name__}: {error}"[:200]
        raise ModelError(
            "the description of this exported model is damaged, or of another version",
            path=path,
            got=got,
            fix="export the checkpoint again",
        ) from error


def _run(session: InferenceSession, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return the one output of a network for inputs of any float type and layout, in float32."""
    arrays = {name: value.detach().float().cpu().contiguous().numpy() for name, value in inputs.items()}
    return torch.from_numpy(session.run(None, arrays)[0])


# --- writing ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ExportedFile:
    """A file that was written."""

    path: Path
    part: str  # ``pose network`` or ``warper``
    # The largest one between outputs of the file and of the model; None without onnxruntime.
    difference: float | None


class _Graph(nn.Module):
    """One part of a model as a network of its own, whose inputs have names."""

    def __init__(self, name: str, part: nn.Module, inputs: Mapping[str, Tensor], output: str) -> None:
        super().__init__()
        self.name, self.part = name, part
        self.inputs, self.output = dict(inputs), output  # a batch to compare with; its first ones are traced

    def forward(self, *inputs: Tensor) -> Tensor:
        if isinstance(self.part, PoseWarper):
            return self.part.heatmaps(*inputs)
        values, source, target = inputs
        return self.part(values, source=source, target=target)


def export_onnx(
    model: PoseWarper, path: str | os.PathLike[str], *, progress: Progress = silent
) -> list[ExportedFile]:
    """Write a model as ONNX, check that onnxruntime computes the same, and only then keep the files.

    Args:
        model: on any device; it is left as it is.
        path: of the pose network; the warper goes beside it. A head that was never trained is left out.

    Raises:
        ModelError: if the network cannot be exported, computes something else afterwards, or onnxscript is
            not installed.
        OutputError: if the place cannot be written.
    """
    if importlib.util.find_spec("onnxscript") is None:  # torch needs it
        raise ModelError(
            "models cannot be exported to ONNX here",
            got="onnxscript is not installed",
            fix='pip install "posewarper[export]"',
        )
    own = copy.deepcopy(model).float().cpu().to(memory_format=torch.contiguous_format).eval()
    graphs = _graphs(own, Path(path))
    has_warper = len(graphs) > 1
    written: list[ExportedFile] = []
    # The pose network is entered first and so replaced last: until then the old pair stays in use.
    with ExitStack() as stack, torch.no_grad():
        for place, graph in graphs.items():
            progress("export", len(written), len(graphs))
            facts = ExportedFacts(__version__, graph.name, has_warper, model.fingerprint(), model.spec)
            temporary = stack.enter_context(replacing(place))
            content = _convert(graph, place)
            entry = content.metadata_props.add()
            entry.key, entry.value = _KEY, json.dumps({"format": _FORMAT, **asdict(facts)}, default=str)
            temporary.write_bytes(content.SerializeToString(deterministic=True))
            written.append(ExportedFile(place, graph.name, _compare(graph, temporary, place)))
        progress("export", len(graphs), len(graphs))
    if not has_warper:  # remove that of a model that was exported here before
        warper_path(path).unlink(missing_ok=True)
    return written


def _graphs(model: PoseWarper, path: Path) -> dict[Path, _Graph]:
    """Return the parts to export by the file of each, with inputs like those to come."""
    spec, chance = model.spec, np.random.default_rng(0)
    crops = torch.from_numpy(chance.standard_normal((_COMPARED, 3, *spec.crop_size), np.float32))
    graphs = {path: _Graph(POSE, model, {"crops": crops}, "heatmaps")}
    if "warp" in spec.trained:
        height, width = spec.heatmap_size
        places = chance.uniform((-1, -1), (width, height), (3, _COMPARED, len(spec.skeleton), 2))
        values, source, target = torch.from_numpy(encode(places, spec.heatmap_size, spec.sigma))
        inputs = {"values": values, "source": source, "target": target}
        graphs[warper_path(path)] = _Graph(WARPER, model.warp_head, inputs, "warped")
    return graphs


def _convert(graph: _Graph, path: Path) -> Any:
    """Return a graph as the content of an ONNX file; ``path`` is for messages."""
    batch = Dim("batch", min=1)
    try:
        program = torch.export.export(
            graph,
            # Of a view torch would take the sizes of its base as free, too.
            tuple(value[:_TRACED].clone() for value in graph.inputs.values()),
            dynamic_shapes=(tuple({0: batch} for _ in graph.inputs),),
        )
        exported = torch.onnx.export(
            # Without blocks of autocast, which other readers of the file need not know.
            program.run_decompositions({}),
            input_names=list(graph.inputs),
            output_names=[graph.output],
            # All inputs share the batch, so only the first names it.
            dynamic_shapes=(({0: "batch"}, *[None] * (len(graph.inputs) - 1)),),
            dynamo=True,
            verbose=False,
        )
        assert exported is not None
    except Exception as error:  # torch refuses what it cannot trace in many ways
        raise ModelError(
            f"the {graph.name} cannot be exported",
            path=path,
            got=first_sentence(error),
            fix="take a model with another backbone",
        ) from error
    content: Any = exported.model_proto
    # How the graph came about, with paths of this machine: nothing that a runtime needs.
    whole = content.graph
    for described in (whole, *whole.node, *whole.input, *whole.output, *whole.value_info, *whole.initializer):
        del described.metadata_props[:]
    return content


def _compare(graph: _Graph, written: Path, path: Path) -> float | None:
    """Return the largest difference of the written file from the network itself; refuse one that matters."""
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    got, expected = _run(_open(written)[0], graph.inputs), graph(*graph.inputs.values())
    same_shape = got.shape == expected.shape
    difference = float((got - expected).abs().max()) if same_shape else float("nan")
    limit = TOLERANCE * max(1.0, float(expected.abs().max()))
    if not difference <= limit:
        raise ModelError(
            f"the exported {graph.name} computes something else than the checkpoint",
            path=path,
            expected=f"{graph.output} of shape {tuple(expected.shape)} that differ by at most {limit:.1e}",
            got=f"a difference of {difference:.1e}" if same_shape else f"shape {tuple(got.shape)}",
            fix="install the newest torch, onnxscript and onnxruntime and export again; nothing was written",
        )
    return difference
