"""The paper's three experiments (section 4): stages, trained in a workshop, and tables of their figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import yaml

from posewarper.errors import ConfigError, Interrupted, ModelError, OutputError, PosewarperWarning, few_of
from posewarper.evaluation.protocols import evaluate
from posewarper.files import write_json, write_text
from posewarper.model.checkpoint import load_model
from posewarper.model.network import PoseWarper
from posewarper.model.runtime import resolve_device
from posewarper.options import MIN_SCORE, STAGES, ExperimentSettings, Recipe
from posewarper.paper.carrying import Rules
from posewarper.paper.prediction import PredictionConfig, predict_dataset
from posewarper.paper.propagation import Plan, plan_dataset, propagate_dataset, score_propagation
from posewarper.posetrack.dataset import Dataset
from posewarper.posetrack.selection import Step
from posewarper.processes import of_first, world
from posewarper.runs import seen_in_time
from posewarper.structures import Progress, silent
from posewarper.training.engine import FINAL, make_accelerator
from posewarper.training.recipes import read_recipe
from posewarper.training.run import RECIPE, run_recipe
from posewarper.training.samples import labelled_frames, samples_of_dataset

GROUPS = ("head", "shoulder", "elbow", "wrist", "hip", "knee", "ankle", "total")
Row = tuple[float | None, ...]
Figures = dict[str, float | None]

# (dataset, experiment) -> name of our row -> what was published, by GROUPS.
PUBLISHED: dict[tuple[str, str], dict[str, Row]] = {
    ("posetrack17", "propagation"): {
        "per-frame pseudo-labels": (79.1, 86.5, 81.4, 74.7, 81.4, 79.4, 72.3, 79.3),
        "optical flow (FlowNet2)": (82.7, 91.0, 83.8, 78.4, 89.7, 83.6, 78.1, 83.8),
        "PoseWarper": (86.0, 92.7, 89.5, 86.0, 91.5, 89.1, 86.6, 88.7),
    },
    ("posetrack17", "aggregation"): {
        "per-frame": (*[None] * 7, 80.9),
        "PoseWarper": (81.4, 88.3, 83.9, 78.0, 82.4, 80.5, 73.6, 81.2),
    },
    ("posetrack18", "aggregation"): {
        "per-frame": (*[None] * 7, 79.4),
        "PoseWarper": (79.9, 86.3, 82.4, 77.5, 79.8, 78.8, 73.2, 79.7),
    },
}
NOTES = {
    "aggregation": "published: PoseWarper by its authors, per-frame by others who ran it; detected boxes",
    "propagation": "published: labelled frames themselves count, as in ours",
    "augmentation": "the paper's figures of these sweeps are not known here",
}


def published_rows(dataset: str, experiment: str) -> dict[str, Row]:
    """Return the published rows of an experiment by the name of our row; none where none is known."""
    return PUBLISHED.get((dataset, experiment), {})


# Folders of the original's helper scripts, by our stage.
ORIGINAL_FOLDERS = {
    "sparse_pose": "baseline",
    "sparse_warper": "PoseWarper",
    "retraining": "baseline_wPoseWarperDataAug",
}


@dataclass(frozen=True)
class Workshop:
    """Where and with what the experiments run.

    ``original`` is the folder ``posetrack17_experiments`` of the original, whose weights are used where it
    has some; with more than one of ``processes``, torchrun starts so many for each training.
    """

    dataset: Dataset  # prepared
    out: Path  # folder for everything
    settings: ExperimentSettings
    start: Path | None = None  # checkpoint that pose networks start from; None for random weights
    original: Path | None = None
    boxes: Path | None = None  # a detector's box file for prediction; None for the labels' boxes
    device: str = "auto"
    processes: int = 1
    progress: Progress = silent
    tell: Callable[[str], None] = field(default=lambda line: None)  # is given lines of text

    def check_recipes(self) -> None:
        """Read the recipes of all stages, so that none fails after hours of work on others.

        Raises:
            ConfigError: if a setting is unknown or has an impossible value.
        """
        for stage in STAGES:
            self._recipe(stage)

    def weights(
        self,
        stage: str,
        *,
        subset: tuple[int, int] | None = None,
        start: Path | None = None,
        pseudo_labels: Path | None = None,
    ) -> Path:
        """Return the checkpoint of a stage, trained now unless it is there.

        Args:
            stage: one of ``posewarper.options.STAGES``.
            subset: (V, N) of the stages on sparse labels.
            start: checkpoint to start from; the workshop's if left out.
            pseudo_labels: folder of propagated poses that join the labels.
        """
        name = f"V{subset[0]}_N{subset[1]}" if subset else ""
        title = f"{stage} {name}".strip()
        part = Path(ORIGINAL_FOLDERS.get(stage, stage), name)
        if self.original is not None and stage in ORIGINAL_FOLDERS and subset:
            found = _original_weights(self.original / part)
            if found is not None:
                self.tell(f"{title}: {found}")
                return found
        folder = self.out / part
        recipe = self._recipe(stage, subset, start or self.start, pseudo_labels)
        done = folder / FINAL

        def is_done() -> bool:
            if not done.is_file():
                return False
            noted = folder / RECIPE
            theirs = yaml.safe_load(noted.read_text(encoding="utf-8")) if noted.is_file() else None
            if theirs != recipe.model_dump(mode="json"):
                raise OutputError(
                    "this stage was trained with other settings",
                    path=folder,
                    fix="give the same settings, or another --out",
                )
            return True

        if of_first(is_done):
            self.tell(f"{title}: done")
            return done
        self.tell(f"{title}: training")
        if self.processes > 1:
            self._train_elsewhere(recipe, folder)
        else:
            run_recipe(
                recipe, folder, resume=True, device=self.device, progress=self.progress, tell=self.tell
            )
        return done

    def _recipe(
        self,
        stage: str,
        subset: tuple[int, int] | None = None,
        start: Path | None = None,
        pseudo_labels: Path | None = None,
    ) -> Recipe:
        # PoseTrack21 has PoseTrack18's videos, and no recipe of its own is known.
        family = "posetrack17" if self.dataset.kind == "posetrack17" else "posetrack18"
        name = stage if stage in ORIGINAL_FOLDERS else f"{family}_{stage}"
        recipe = read_recipe(f"{name}.yaml", self.settings.stages.get(stage, ()))
        data = {"dataset": str(self.dataset.root)}
        if subset is not None:
            data |= {"videos": subset[0], "labelled_frames": subset[1]}
        if pseudo_labels is not None:
            data["pseudo_labels"] = str(pseudo_labels)
        model = recipe.model.model_copy(update={"start": None if start is None else str(start)})
        return recipe.model_copy(update={"data": recipe.data.model_copy(update=data), "model": model})

    def _train_elsewhere(self, recipe: Recipe, folder: Path) -> None:
        """Train by torchrun, one process a device."""
        path = folder / "requested.yaml"
        write_text(path, yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(self.processes), "-m", "posewarper", "train", str(path)]
        command += ["--out", str(folder), "--resume", "--device", self.device]
        environment = {**os.environ, **({"ACCELERATE_USE_CPU": "true"} if self.device == "cpu" else {})}
        with subprocess.Popen(command, env=environment) as processes:
            try:
                code = processes.wait()
            except KeyboardInterrupt:
                # torchrun's processes do not hear Ctrl-C: it ends them itself, if it is given the time.
                processes.terminate()
                processes.wait()
                raise
        if code or not (folder / FINAL).is_file():
            raise ModelError(
                "the training of this stage ended early", path=folder, got=f"exit code {code}",
                fix="read its messages above; the same command resumes there",
            )  # fmt: skip

    def model(self, path: Path) -> PoseWarper:
        """Load a checkpoint for use on the workshop's device."""
        seen_in_time(path.is_file)
        return load_model(path).to(resolve_device(self.device)).eval()

    def predict(self, path: Path, folder: str, *, aggregate: str) -> Figures:
        """Predict the labelled frames of val and return the official AP by group."""
        place = self.out / "predictions" / folder
        predict_dataset(
            self.dataset,
            self.model(path),
            place,
            split="val",
            boxes=self.boxes,
            config=PredictionConfig(aggregate=aggregate),  # type: ignore[arg-type]
            progress=self.progress,
        )
        truth = self.dataset.root / "annotations" / "val"
        return of_first(lambda: _ap(lambda: evaluate(truth, place / "results").to_dict()))

    def propagate(
        self, path: Path, folder: str, *, split: str, method: str, plan: Plan, pseudo: bool
    ) -> Path:
        """Propagate labels by a method and return the folder of poses."""
        return propagate_dataset(
            self.dataset,
            self.model(path),
            self.out / "propagated" / folder,
            split=split,
            method=method,
            plan=plan,
            rules=Rules(min_score=MIN_SCORE if pseudo else None),
            progress=self.progress,
        ).folder

    def score_propagated(self, folder: Path, plan: Plan) -> Figures:
        """Return the official AP of propagated poses on val by group, labelled frames among them."""
        score = partial(score_propagation, self.dataset, folder, split="val", plan=plan)
        return of_first(lambda: _ap(lambda: score().to_dict()))

    def validation_plan(self) -> dict[str, list[Step]]:
        """Return the steps of the propagation experiment."""
        return plan_dataset(self.dataset, "val", "consecutive")

    def training_plan(self, subset: tuple[int, int]) -> dict[str, list[Step]]:
        """Return the steps from the labelled frames of a subset of train to their neighbours."""
        samples = samples_of_dataset(self.dataset, self._recipe("sparse_pose", subset).data, 1.0)
        chosen = labelled_frames(samples, self.dataset)
        return plan_dataset(self.dataset, "train", "neighbours", selection=chosen)


def _original_weights(folder: Path) -> Path | None:
    """Return the checkpoint in a folder of the original, None where there is none."""
    found = sorted(folder.rglob("*.pth"))
    final = [path for path in found if "final" in path.name]
    if len(final or found) > 1:
        raise OutputError(
            "this folder of the original holds several checkpoints",
            path=folder,
            expected="one .pth file, or one with 'final' in its name",
            got=few_of([path.name for path in found]),
            fix="leave the one that counts",
        )
    return (final or found or [None])[0]


def _ap(score: Callable[[], dict]) -> Figures:
    with warnings.catch_warnings():
        # Every person has the same track id in the original's result files: there are no tracking figures.
        warnings.filterwarnings("ignore", message="no tracking figures", category=PosewarperWarning)
        return dict(score()["ap"]["groups"])


@dataclass(frozen=True)
class ResultTable:
    """An experiment: the name of a row -> AP by group in percent, and what could not be done, and why."""

    experiment: str
    rows: dict[str, Figures]
    notes: tuple[str, ...] = ()


def run_propagation(workshop: Workshop) -> ResultTable:
    """Carry sparse labels through the videos of val, by four methods; labelled frames themselves count."""
    own = workshop.settings.propagation
    subset = own.videos, own.labelled_frames
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
        folder = f"val_{method}"
        try:
            poses = workshop.propagate(weights, folder, split="val", method=method, plan=plan, pseudo=False)
        except ModelError as error:
            if method != "raft":  # whose weights may not be to be had
                raise
            notes.append(f"{row} was left out: {error.what}. {error.fix}")
            continue
        rows[row] = workshop.score_propagated(poses, plan)
    return ResultTable("propagation", rows, tuple(notes))


def run_augmentation(workshop: Workshop) -> ResultTable:
    """Train on sparse labels, and again on sparse labels plus propagated poses, for each (V, N)."""
    rows: dict[str, Figures] = {}
    for subset in workshop.settings.sweeps:
        name, shown = "V{}_N{}".format(*subset), "V={} N={}".format(*subset)
        pose = workshop.weights("sparse_pose", subset=subset)
        warper = workshop.weights("sparse_warper", subset=subset, start=pose)
        plan, folder = workshop.training_plan(subset), f"train_{name}"
        poses = workshop.propagate(warper, folder, split="train", method="warper", plan=plan, pseudo=True)
        retrained = workshop.weights("retraining", subset=subset, pseudo_labels=poses)
        # The rows' names are no wider than the printed table.
        rows[f"{shown}: labels alone"] = workshop.predict(pose, f"baseline_{name}", aggregate="none")
        figures = workshop.predict(retrained, f"retrained_{name}", aggregate="none")
        rows[f"{shown}: and propagated poses"] = figures
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
EXPERIMENTS = tuple(RUNS)


def _keep(table: ResultTable, path: Path) -> None:
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    write_json(path, {**known, table.experiment: {"rows": table.rows, "notes": list(table.notes)}})


def run_experiments(workshop: Workshop, names: tuple[str, ...]) -> list[ResultTable]:
    """Run experiments (of :data:`EXPERIMENTS`) in order and keep their figures in ``figures.json``.

    Processes that were started together, on one machine or many, train together and share the videos.

    Raises:
        ConfigError: if a stage's recipe cannot be used, or processes that were started together are to start
            others.
        Interrupted: on Ctrl-C; what was done is kept.
    """
    workshop.check_recipes()
    if world() > 1:
        if workshop.processes > 1:
            raise ConfigError(
                "these processes were started together, and each is to start more",
                expected=f"--processes 1 for each of {world()} processes that torchrun started",
                got=f"--processes {workshop.processes}",
                fix="leave --processes out",
            )
        make_accelerator(workshop.device)
    tables, kept = [], workshop.out / "figures.json"
    try:
        for name in names:
            workshop.tell(f"--- {name}")
            table = RUNS[name](workshop)
            tables.append(table)
            of_first(partial(_keep, table, kept))
    except KeyboardInterrupt:
        raise Interrupted("what is done is kept; the same command resumes there") from None
    return tables
