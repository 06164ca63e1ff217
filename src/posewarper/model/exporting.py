"""Trained models for other runtimes: ONNX, and the programs of ``torch.export``.

A model becomes two files, each a plain graph from tensors to a tensor: the pose network at the path that is
asked for, and the warper beside it (:func:`~posewarper.model.exported_facts.warper_path`). One graph of both
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

import copy
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from posewarper.errors import ModelError
from posewarper.files import replacing
from posewarper.heatmaps import encode
from posewarper.model.exported_facts import FACTS_FILE, FACTS_KEY, POSE, WARPER, ExportedFacts, warper_path
from posewarper.model.network import PoseWarper
from posewarper.model.onnx_model import has_onnxruntime, open_session, run_session
from posewarper.model.warping import WarpHead
from posewarper.structures import Progress, silent

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
            mend='pip install "posewarper[export]", or export to a .pt2 file, which needs nothing more',
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
        mend="export to the other format (.onnx or .pt2), or take a model with another backbone",
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
            mend="nothing was written; install the newest torch, onnxscript and onnxruntime and export again",
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
