"""``posewarper experiment``: the paper's experiments, end to end."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posewarper.cli import common
from posewarper.model.hub import is_address
from posewarper.processes import is_first

if TYPE_CHECKING:
    from posewarper.experiments import ResultTable


_HEADINGS = ("Head", "Shou", "Elb", "Wri", "Hip", "Knee", "Ank", "Mean")


class DatasetKind(StrEnum):
    """Whose recipes and published figures."""

    POSETRACK17 = "posetrack17"
    POSETRACK18 = "posetrack18"


class ExperimentName(StrEnum):
    """The paper's experiments."""

    PROPAGATION = "propagation"
    AUGMENTATION = "augmentation"
    AGGREGATION = "aggregation"
    ALL = "all"


def run(
    kind: Annotated[DatasetKind, typer.Argument(metavar="posetrack17|posetrack18")],
    name: Annotated[ExperimentName, typer.Argument(metavar="propagation|augmentation|aggregation|all")],
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="The dataset: a folder that `posewarper prepare` has made.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for all stages; it may be run again.")],
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[key=value ...]", help="Settings to change in the recipes of all stages."),
    ] = None,
    config: Annotated[
        str,
        typer.Option(metavar="FILE.yaml", help="Sizes of the experiments: a file, or tiny_experiments.yaml."),
    ] = "posetrack_experiments.yaml",
    start: Annotated[
        Path | None, typer.Option(metavar="CKPT", help="Weights that pose networks start from (COCO's).")
    ] = None,
    original: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="posetrack17_experiments of the original, whose weights are used."),
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A detector's boxes of val; the labels' boxes if not given."),
    ] = None,
    processes: Annotated[
        int, typer.Option(metavar="N", min=1, help="Train with N processes (GPUs) on this machine.")
    ] = 1,
    overwrite: common.UnusedOverwrite = False,
    quiet: common.Quiet = False,
    device: common.Device = common.DeviceName.AUTO,
    seed: common.UnusedSeed = 0,
) -> None:
    """Run the paper's experiments: train, propagate, retrain, aggregate, and print the paper's tables.

    Stages that are done are skipped, so that the same command resumes after an interruption. DIR gets a
    folder for each stage (baseline, PoseWarper, baseline_wPoseWarperDataAug, as the original names them) and
    figures.json.

    On many machines: torchrun --nnodes 2 --nproc-per-node 8 ... -m posewarper experiment ...
    """
    from posewarper.errors import ConfigError
    from posewarper.experiments import EXPERIMENTS, Workshop, run_experiments
    from posewarper.posetrack.dataset import open_dataset
    from posewarper.training.recipes import read_experiment

    dataset = open_dataset(data)
    if dataset.kind != kind.value:
        raise ConfigError(
            "the dataset is of another kind", path=data, expected=kind.value, got=dataset.kind,
            fix="name the dataset's own kind",
        )  # fmt: skip
    names = EXPERIMENTS if name == ExperimentName.ALL else (name.value,)
    first = is_first()
    with common.progress_bar(quiet or not first) as progress:
        workshop = Workshop(
            dataset,
            out.absolute(),
            read_experiment(config, changes or ()),
            start=start if start is None or is_address(start) else start.absolute(),
            original=original,
            boxes=boxes,
            device=device.value,
            processes=processes,
            progress=progress,
            tell=(lambda line: None) if quiet or not first else common.print_line,
        )
        tables = run_experiments(workshop, names)
    if not first:
        return
    for table in tables:
        _show(table, kind.value)
    common.print_line(f"wrote {out / 'figures.json'}")


def _show(table: ResultTable, kind: str) -> None:
    """Print a table with the published rows beside ours."""
    from posewarper.experiments import GROUPS, NOTES, published_rows

    known = published_rows(kind, table.experiment)
    common.print_line(f"\n{table.experiment} ({kind}), official AP")
    common.print_line(" " * 31 + "".join(f"{heading:>6}" for heading in _HEADINGS))
    for row in dict.fromkeys([*table.rows, *known]):
        figures = table.rows.get(row, {})
        common.print_line(_line(row, [figures.get(group) for group in GROUPS]))
        if row in known:
            common.print_line(_line("  published", known[row]))
    for note in (*table.notes, NOTES[table.experiment]):
        common.print_line(textwrap.fill(note, 79, initial_indent="  ", subsequent_indent="  "))


def _line(name: str, values: Iterable[float | None]) -> str:
    return f"{name:31.31}" + "".join("     -" if value is None else f"{value:6.1f}" for value in values)
