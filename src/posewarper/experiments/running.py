"""The three experiments, each a few lines of stages (paper, section 4)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from posewarper.errors import Interrupted, ModelError
from posewarper.experiments.workshop import Figures, Workshop
from posewarper.files import replacing

EXPERIMENTS = ("propagation", "augmentation", "aggregation")


@dataclass(frozen=True)
class ResultTable:
    """One experiment's figures.

    Args:
        experiment: its name.
        rows: name of the row -> AP by group, in percent.
        notes: what could not be done, and why.
    """

    experiment: str
    rows: dict[str, Figures]
    notes: tuple[str, ...] = ()


def run_propagation(workshop: Workshop) -> ResultTable:
    """Carry sparse labels through the videos of val, by four methods; labelled frames themselves count."""
    own = workshop.settings.propagation
    subset = (own.videos, own.labelled_frames)
    plan = workshop.validation_plan()  # first: without frames to fill there is no need to train
    pose = workshop.weights("sparse_pose", subset=subset)
    warper = workshop.weights("sparse_warper", subset=subset, start=pose)
    rows, notes = {}, []
    for row, method, weights in (
        ("per-frame pseudo-labels", "frame", pose),
        ("optical flow (DIS)", "dis", pose),
        ("optical flow (RAFT)", "raft", pose),
        ("PoseWarper", "warper", warper),
    ):
        try:
            poses = workshop.propagate(
                weights, f"val_{method}", split="val", method=method, plan=plan, pseudo=False
            )
        except ModelError as error:
            if method != "raft":  # whose weights may not be to be had
                raise
            notes.append(f"{row} was left out: {error.what}. {error.mend}")
            continue
        rows[row] = workshop.score_propagated(poses, plan)
    return ResultTable("propagation", rows, tuple(notes))


def run_augmentation(workshop: Workshop) -> ResultTable:
    """Train on sparse labels, and again on sparse labels plus propagated poses, for each (V, N)."""
    rows: dict[str, Figures] = {}
    for subset in workshop.settings.sweeps:
        name = f"V{subset[0]}_N{subset[1]}"
        pose = workshop.weights("sparse_pose", subset=subset)
        warper = workshop.weights("sparse_warper", subset=subset, start=pose)
        plan = workshop.training_plan(subset)
        poses = workshop.propagate(
            warper, f"train_{name}", split="train", method="warper", plan=plan, pseudo=True
        )
        retrained = workshop.weights("retraining", subset=subset, pseudo_labels=poses)
        shown = f"V={subset[0]} N={subset[1]}"  # with what follows no wider than the printed table
        rows[f"{shown}: labels alone"] = workshop.predict(pose, f"baseline_{name}", aggregate="none")
        rows[f"{shown}: and propagated poses"] = workshop.predict(
            retrained, f"retrained_{name}", aggregate="none"
        )
    return ResultTable("augmentation", rows)


def run_aggregation(workshop: Workshop) -> ResultTable:
    """Train on all labels, and predict val from one frame and from five."""
    pose = workshop.weights("pose")
    warper = workshop.weights("warper", start=pose)
    rows = {
        "per-frame": workshop.predict(pose, "per_frame", aggregate="none"),
        "PoseWarper": workshop.predict(warper, "aggregated", aggregate="paper"),
    }
    return ResultTable("aggregation", rows)


RUNS = {"propagation": run_propagation, "augmentation": run_augmentation, "aggregation": run_aggregation}


def run_experiments(workshop: Workshop, names: tuple[str, ...]) -> list[ResultTable]:
    """Run experiments in order and keep their figures in ``figures.json``.

    Args:
        workshop: where and with what.
        names: of :data:`EXPERIMENTS`.

    Raises:
        ConfigError: if a stage's recipe cannot be used.
        Interrupted: on Ctrl-C; what was done is kept.
    """
    workshop.check_recipes()
    tables = []
    try:
        for name in names:
            workshop.tell(f"--- {name}")
            table = RUNS[name](workshop)
            tables.append(table)
            _keep(workshop, table)
    except KeyboardInterrupt:
        raise Interrupted("what was done is kept; the same command goes on") from None
    return tables


def _keep(workshop: Workshop, table: ResultTable) -> None:
    path = workshop.out / "figures.json"
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    known[table.experiment] = {"rows": table.rows, "notes": list(table.notes)}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
