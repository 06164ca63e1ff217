"""A recipe, run: the folder of a run, its data and model, the loop, and what is written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import accelerate
import yaml
from torch import Tensor

from posewarper.errors import Interrupted, ModelError, OutputError
from posewarper.files import replacing
from posewarper.model.runtime import keep_memory, repeatable
from posewarper.recipes.settings import Recipe
from posewarper.reporting.debug_pictures import write_debug_picture
from posewarper.structures import Progress, silent
from posewarper.training.building import (
    build_data,
    build_model,
    build_set,
    build_validation,
    choose_skeleton,
    load_teacher,
)
from posewarper.training.engine import BEST, FINAL, LAST, Run, TrainingResult, make_accelerator
from posewarper.training.loading import Batch

RECIPE = "recipe.yaml"


def run_recipe(
    recipe: Recipe,
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    overwrite: bool = False,
    debug_images: int = 0,
    device: str = "auto",
    progress: Progress = silent,
    tell: Callable[[str], None] = lambda line: None,
) -> TrainingResult:
    """Train what a recipe says; the same on one process as on each of many that ``torchrun`` started.

    ``out`` gets ``model.pt`` (the end of the training), ``checkpoints/best.pt`` (by validation),
    ``checkpoints/last.pt`` (from which ``resume`` goes on), ``log.jsonl``, ``tensorboard/``, ``recipe.yaml``,
    and ``debug/`` with pictures if they are asked for.

    Args:
        recipe: the settings.
        out: folder of the run.
        resume: go on where a run in this folder stopped; begin if there is none.
        overwrite: begin anew in a folder that holds a run.
        debug_images: pictures of so many batches of each epoch.
        device: ``auto`` or ``cpu``.
        progress: is told after every step.
        tell: is given a line after every epoch.

    Raises:
        OutputError: if the folder holds a run and neither ``resume`` nor ``overwrite`` is given.
        ConfigError: if a setting does not fit the data, or the run that is to go on.
        LabelsError: if the data cannot be used.
        ModelError: if the weights to start from do not fit.
        Interrupted: on Ctrl-C; what was done is kept.
    """
    place = Path(out)
    engine = make_accelerator(device)
    # Every process looks before the first one writes.
    _check_place(place, resume=resume, overwrite=overwrite)
    engine.wait_for_everyone()
    if engine.is_main_process:
        _remove_partial(place)
    engine.wait_for_everyone()
    keep_memory()
    try:
        with repeatable(recipe.train.seed):
            run = _build_run(recipe, place, engine, debug_images, progress, tell)
            resumed = resume and run.restore()
            if engine.is_main_process:
                # What is there is lost only now, when nothing is wrong with what takes its place.
                if not resume:
                    _clear(place)
                with replacing(place / RECIPE) as temporary:
                    settings = recipe.model_dump(mode="json")
                    temporary.write_text(yaml.safe_dump(settings, sort_keys=False), "utf-8")
                if resumed:
                    done = f"{run.state.epoch} of {recipe.train.epochs} epochs and {run.state.step} steps"
                    tell(f"going on after {done}")
            engine.wait_for_everyone()
            return run.train()
    except Interrupted:
        raise
    except KeyboardInterrupt:
        raise Interrupted("what was done is kept; the same command with --resume goes on") from None


def _build_run(
    recipe: Recipe,
    place: Path,
    engine: accelerate.Accelerator,
    debug_images: int,
    progress: Progress,
    tell: Callable[[str], None],
) -> Run:
    data = build_data(recipe, place, engine, progress)
    skeleton = choose_skeleton(recipe.model, data)
    model = build_model(recipe, skeleton, engine)
    if recipe.train.stage == "warper" and "pose" not in model.spec.trained:
        raise ModelError(
            "the warper learns from the heatmaps of a trained pose network",
            expected="model.start=CHECKPOINT of a pose network",
            got="random weights" if recipe.model.start is None else recipe.model.start,
            mend="train one first (train.stage=pose) and start from its model.pt",
        )

    def draw(epoch: int, step: int, batch: Batch, predicted: Tensor) -> None:
        path = place / "debug" / f"epoch{epoch + 1:03}_step{step:05}.png"
        parts = (batch["images"], batch["target"], predicted, batch["weights"])
        images, target, seen, weights = (part.cpu().numpy() for part in parts)
        write_debug_picture(path, images, target, seen, weights, skeleton)

    return Run(
        recipe,
        model,
        build_set(recipe, model, data.samples, engine.num_processes),
        place,
        engine,
        teacher=load_teacher(recipe),
        validate=build_validation(recipe, data, engine),
        debug=draw if debug_images else None,
        debug_steps=debug_images,
        progress=progress,
        tell=tell if engine.is_main_process else lambda line: None,
    )


def _check_place(place: Path, *, resume: bool, overwrite: bool) -> None:
    if place.exists() and not place.is_dir():
        raise OutputError("this is a file, not a folder", path=place, mend="name another --out")
    taken = [name for name in (LAST, FINAL) if (place / name).exists()]
    if taken and not resume and not overwrite:
        raise OutputError(
            "this folder holds a training run",
            path=place,
            got=", ".join(taken),
            mend="go on with it by --resume, name another --out, or begin anew with --overwrite",
        )


def _remove_partial(place: Path) -> None:
    """Remove what a run that was killed had not finished to write."""
    for folder in (place, place / "checkpoints", place / "debug"):
        for path in folder.glob(".*.partial*"):
            path.unlink()


def _clear(place: Path) -> None:
    """Remove what an earlier run has written."""
    for name in (LAST, BEST, FINAL, "log.jsonl", "run.json"):
        (place / name).unlink(missing_ok=True)
    for path in [*place.glob("tensorboard/events.*"), *place.glob("debug/epoch*_step*.png")]:
        path.unlink()


def is_first_process() -> bool:
    """Return whether this is the only process, or the first of those that ``torchrun`` started."""
    return int(os.environ.get("RANK", "0")) == 0
