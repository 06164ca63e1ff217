"""A recipe, run: the folder of a run, its data and model, the loop, and what is written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import accelerate
import numpy as np
import torch
import yaml
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

from posewarper.demo.posetrack_tree import write_posetrack_tree
from posewarper.errors import ConfigError, Interrupted, ModelError, OutputError
from posewarper.files import leftovers, write_text
from posewarper.model.checkpoint import load_model
from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.model.runtime import keep_memory, repeatable
from posewarper.model.warping import WarpHead
from posewarper.options import MadeUpSettings, PseudoSettings, Recipe
from posewarper.paper.carrying import Rules
from posewarper.posetrack.dataset import open_dataset
from posewarper.posetrack.preparation import prepare_dataset
from posewarper.reporting.network_pictures import write_debug_picture
from posewarper.skeletons import POSETRACK, Skeleton, named_skeleton
from posewarper.structures import InstanceTable, Progress, silent
from posewarper.training.batches import Batch, TrainingSet
from posewarper.training.engine import (
    BEST,
    FINAL,
    LAST,
    Run,
    TrainingResult,
    describe_batch_norm,
    global_batch,
    make_accelerator,
)
from posewarper.training.pseudo_labels import load_warper, propagate_clips, propagate_samples
from posewarper.training.recipes import choose_clips
from posewarper.training.samples import TrainingSamples, samples_of_clips, samples_of_dataset, unpack_videos
from posewarper.training.validation import (
    ValidationVideo,
    official_score,
    pck_score,
    predict_labelled,
    videos_of_clips,
    videos_of_dataset,
)

_Made = TypeVar("_Made")
PSEUDO = Path("data", "pseudo")
"""The folder of the poses that a run has propagated itself."""
_FRAMES = Path("data", "frames")
RECIPE = "recipe.yaml"


@dataclass(frozen=True)
class RunData:
    """What is learned from, and what is validated on.

    Args:
        samples: to learn from.
        validation: videos, none for no validation.
        is_official: validate by the official AP; otherwise by PCK.
    """

    samples: TrainingSamples
    validation: Sequence[ValidationVideo]
    is_official: bool


def make_up_dataset(settings: MadeUpSettings, folder: Path) -> None:
    """Draw a made-up PoseTrack18 and prepare it, unless that has been done with these settings."""
    prepared, noted = folder / "prepared", folder / "made_up.json"
    wanted = settings.model_dump_json()
    known = noted.read_text(encoding="utf-8") if noted.is_file() else None
    if (prepared / "dataset.json").is_file() and known == wanted:
        return
    shutil.rmtree(folder, ignore_errors=True)
    write_text(noted, wanted)
    download = write_posetrack_tree(
        folder / "download",
        "posetrack18",
        n_videos=settings.videos,
        n_frames=settings.frames,
        size=settings.size,
        n_people=settings.people,
        seed=settings.seed,
    )
    prepare_dataset("posetrack18", download, prepared)


def build_data(
    recipe: Recipe, out: Path, engine: accelerate.Accelerator, progress: Progress = silent
) -> RunData:
    """Find the samples and the videos to validate on; poses that are to join are propagated first.

    Raises:
        ConfigError: if the recipe names no data, or a video both to learn from and to validate on.
        LabelsError: if the data cannot be used.
        ModelError: if the model that is to propagate cannot be used.
    """
    data, (height, width) = recipe.data, recipe.model.crop_size
    if data.made_up is not None and engine.is_main_process:
        make_up_dataset(data.made_up, out / "data")
    engine.wait_for_everyone()
    folder = data.dataset if data.made_up is None else out / "data" / "prepared"
    if folder is not None:
        dataset = open_dataset(folder)
        samples = samples_of_dataset(dataset, data, width / height)
        if data.pseudo is not None:
            make = partial(propagate_samples, dataset, data.split, samples)
            poses = _propagate(data.pseudo, make, out, engine, progress)
            samples = samples_of_dataset(
                dataset, data, width / height, pseudo_labels=poses, min_score=data.pseudo.min_score
            )
        wanted = [] if data.validation in (None, "none") else videos_of_dataset(dataset, data.validation)
        return RunData(samples, wanted, is_official=True)
    chosen, held_out = choose_clips(data)
    if not chosen:
        raise ConfigError(
            "the recipe names nothing to learn from",
            expected="data.dataset, data.clips, data.clips_file or data.made_up",
            fix="add data.dataset=FOLDER, a folder that `posewarper prepare` made, or videos of your own: "
            "data.clips='[{video: a.mp4, labels: a.json}]'",
        )
    clips = [(clip.video, clip.labels) for clip in chosen]
    if data.pseudo is None:
        samples = samples_of_clips(
            clips, width / height, pseudo_labels=[clip.pseudo_labels for clip in chosen]
        )
    else:
        poses = _propagate(data.pseudo, partial(propagate_clips, clips), out, engine, progress)
        samples = samples_of_clips(
            clips, width / height, pseudo_labels=poses, min_score=data.pseudo.min_score
        )
    reach = recipe.augmentation.reach if recipe.train.stage == "warper" else 0
    unpack = partial(unpack_videos, samples, out / _FRAMES, reach)
    if engine.is_local_main_process:
        unpack(progress)
    engine.wait_for_everyone()
    wanted = videos_of_clips([(clip.video, clip.labels) for clip in held_out])
    # By now all frames are there: the others write none.
    return RunData(unpack(), wanted, is_official=False)


def _propagate(
    settings: PseudoSettings,
    make: Callable[..., _Made],
    out: Path,
    engine: accelerate.Accelerator,
    progress: Progress,
) -> _Made:
    """Let the main process propagate poses with the settings' warper, and tell all what it made."""
    made: list[Any] = [None]
    if engine.is_main_process:
        model = load_warper(settings.model).to(engine.device).eval()
        rules = Rules(settings.min_score, settings.max_cycle)
        made = [make(model, out / PSEUDO, reach=settings.reach, rules=rules, progress=progress)]
    return broadcast_object_list(made)[0]


def build_model(recipe: Recipe, skeleton: Skeleton, engine: accelerate.Accelerator) -> PoseWarper:
    """Build the network, with random weights by the recipe's seed or those it is to start from.

    The warp head's offsets are zero at the start of its training, also if it comes from a checkpoint, as in
    the original.

    Raises:
        ModelError: if the checkpoint to start from does not fit.
    """
    settings, world = recipe.model, engine.num_processes
    batch = global_batch(recipe.train, world)
    spec = ModelSpec(
        settings.backbone,
        skeleton,
        settings.crop_size,
        settings.sigma,
        head_width=settings.head_width,
        head_blocks=settings.head_blocks,
        head_dilations=settings.head_dilations,
        targets=recipe.train.targets,
        batch_norm=describe_batch_norm(recipe.train, batch, world),
        provenance={"recipe": recipe.model_dump(mode="json"), "global_batch": batch, "processes": world},
    )
    torch.manual_seed(recipe.train.seed)
    model = PoseWarper(spec)
    if settings.start is not None:
        _start_from(model, settings.start, recipe.train.stage)
    for offsets in model.warp_head.offsets:
        torch.nn.init.zeros_(offsets.weight)  # type: ignore[arg-type]
    return model


def load_teacher(recipe: Recipe) -> WarpHead | None:
    """Return the head that the recipe's warper is to match, that of ``model.start``, or None.

    Raises:
        ModelError: if that checkpoint has no trained head.
    """
    if not recipe.train.match_head:
        return None
    path = recipe.model.start
    known = None if path is None else load_model(path)
    if known is None or "warp" not in known.spec.trained:
        raise ModelError(
            "there is no trained warp head to match",
            path=path,
            expected="model.start=CHECKPOINT of a trained warper",
            got="random weights" if path is None else "a pose network alone",
            fix="train the paper's warper first and start from its model.pt",
        )
    return known.warp_head


def _start_from(model: PoseWarper, path: str, aim: str) -> None:
    known = load_model(path)
    # A pose network may start from one of other keypoints (COCO's), as it learns its own.
    if aim == "warper" and known.spec.skeleton.names != model.spec.skeleton.names:
        raise ModelError(
            "the pose network has other keypoints than the labels",
            path=path,
            expected=", ".join(model.spec.skeleton.names),
            got=", ".join(known.spec.skeleton.names),
            fix="start from a pose network that was trained on these labels",
        )
    theirs, ours = known.state_dict(), model.state_dict()
    if "warp" not in known.spec.trained:
        theirs = {name: value for name, value in theirs.items() if not name.startswith("warp_head.")}
    taken = {n: v for n, v in theirs.items() if n in ours and v.shape == ours[n].shape}
    if any(name not in taken and not name.startswith("warp_head.") for name in ours):
        raise ModelError(
            "the weights to start from are of another network",
            path=path,
            expected=f"{model.spec.backbone} with {len(model.spec.skeleton)} keypoints",
            got=f"{known.spec.backbone} with {len(known.spec.skeleton)} keypoints",
            fix="change model.backbone or model.start",
        )
    model.load_state_dict({**ours, **taken})
    if "pose" in known.spec.trained:
        model.record("pose", known.spec.trained["pose"])


def build_validation(
    recipe: Recipe, data: RunData, engine: accelerate.Accelerator
) -> Callable[[PoseWarper], float] | None:
    """Return the function that validates a model, its videos shared among the processes."""
    if not data.validation:
        return None
    is_posetrack = data.is_official and data.samples.skeleton.names == POSETRACK.names
    aggregate = "paper" if recipe.train.stage == "warper" else "none"

    def validate(model: PoseWarper) -> float:
        own = data.validation[engine.process_index :: engine.num_processes]
        predicted: dict[str, InstanceTable] = {}
        for part in gather_object([predict_labelled(model, own, aggregate=aggregate)]):
            predicted |= part
        score = official_score if is_posetrack else pck_score
        return score(data.validation, predicted)

    return validate


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
        for folder in (place, place / "checkpoints", place / "debug"):
            for path in leftovers(folder):
                path.unlink()
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
                settings = recipe.model_dump(mode="json")
                write_text(place / RECIPE, yaml.safe_dump(settings, sort_keys=False))
                if resumed:
                    done = f"{run.state.epoch} of {recipe.train.epochs} epochs and {run.state.step} steps"
                    tell(f"resuming after {done}")
            engine.wait_for_everyone()
            return run.train()
    except Interrupted:
        raise
    except KeyboardInterrupt:
        raise Interrupted("what is done is kept; the same command with --resume resumes there") from None


def _build_run(
    recipe: Recipe,
    place: Path,
    engine: accelerate.Accelerator,
    debug_images: int,
    progress: Progress,
    tell: Callable[[str], None],
) -> Run:
    settings = recipe.train
    data = build_data(recipe, place, engine, progress)
    skeleton, name = data.samples.skeleton, recipe.model.skeleton
    if name != "labels":
        wanted = named_skeleton(name)
        if wanted.names != skeleton.names:
            raise ConfigError(
                "the recipe's skeleton is not that of the labels",
                expected=", ".join(skeleton.names),
                got=name,
                fix="set model.skeleton=labels",
            )
        skeleton = wanted
    model = build_model(recipe, skeleton, engine)
    if settings.stage == "warper" and "pose" not in model.spec.trained:
        raise ModelError(
            "the warper learns from the heatmaps of a trained pose network",
            expected="model.start=CHECKPOINT of a pose network",
            got="random weights" if recipe.model.start is None else recipe.model.start,
            fix="train one first (train.stage=pose) and start from its model.pt",
        )

    def draw(epoch: int, step: int, batch: Batch, predicted: Tensor) -> None:
        path = place / "debug" / f"epoch{epoch + 1:03}_step{step:05}.png"
        parts = (batch["images"], batch["target"], predicted, batch["weights"])
        images, target, seen, weights = (part.cpu().numpy() for part in parts)
        write_debug_picture(path, images, target, seen, weights, skeleton)

    # With few samples an epoch takes each several times, with random crops of its own.
    batch, n = global_batch(settings, engine.num_processes), len(data.samples)
    times = -(-((settings.min_epoch_steps - 1) * batch + 1) // n)
    training_set = TrainingSet(
        data.samples.take(np.tile(np.arange(n), times)),
        crop_size=model.spec.crop_size,
        sigma=model.spec.sigma,
        augmentation=recipe.augmentation,
        pairs=settings.stage == "warper",
        exact_targets=settings.targets == "exact",
        seed=settings.seed,
    )
    return Run(
        recipe,
        model,
        training_set,
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
        raise OutputError("this is a file, not a folder", path=place, fix="name another --out")
    taken = [name for name in (LAST, FINAL) if (place / name).exists()]
    if taken and not resume and not overwrite:
        raise OutputError(
            "this folder holds a training run",
            path=place,
            got=", ".join(taken),
            fix="go on with it by --resume, name another --out, or begin anew with --overwrite",
        )


def _clear(place: Path) -> None:
    """Remove what an earlier run has written."""
    for name in (LAST, BEST, FINAL, "log.jsonl", "run.json"):
        (place / name).unlink(missing_ok=True)
    for path in [*place.glob("tensorboard/events.*"), *place.glob("debug/epoch*_step*.png")]:
        path.unlink()


def is_first_process() -> bool:
    """Return whether this is the only process, or the first of those that ``torchrun`` started."""
    return int(os.environ.get("RANK", "0")) == 0
