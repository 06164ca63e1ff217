"""A recipe, run: the folder of a run, its data and model, the loop, and what is written."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import accelerate
import numpy as np
import torch
import yaml
from accelerate.utils import gather_object

from posewarper.demo.posetrack_tree import write_posetrack_tree
from posewarper.errors import ConfigError, Interrupted, LabelsError, ModelError
from posewarper.files import write_text
from posewarper.model.checkpoint import load_model, parameters_sha256
from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.model.pretrained import NONE, BackboneWeights, read_backbone_weights
from posewarper.model.runtime import keep_memory, repeatable
from posewarper.model.warping import WarpHead
from posewarper.options import (
    MIN_SCORE,
    MadeUpSettings,
    ModelSettings,
    NetworkConfig,
    PseudoSettings,
    Recipe,
)
from posewarper.paper.carrying import Rules
from posewarper.posetrack.dataset import open_dataset
from posewarper.posetrack.preparation import prepare_dataset
from posewarper.processes import machine_name, of_first
from posewarper.runs import Run as Claimed
from posewarper.runs import claim, describe_process, held_by_first, peak_memory, seen_in_time
from posewarper.skeletons import Skeleton, named_skeleton
from posewarper.structures import InstanceTable, Progress, silent
from posewarper.training.batches import TrainingSet
from posewarper.training.engine import (
    BEST,
    FINAL,
    LAST,
    Run,
    TrainingResult,
    global_batch,
    make_accelerator,
    request_of,
)
from posewarper.training.loose_images import samples_of_images
from posewarper.training.pseudo_labels import load_warper, propagate_clips, propagate_samples
from posewarper.training.recipes import choose_clips, label_file
from posewarper.training.samples import TrainingSamples, samples_of_clips, samples_of_dataset, unpack_videos
from posewarper.training.steps import BATCH_NORMS
from posewarper.training.validation import (
    ValidationVideo,
    official_score,
    pck_score,
    predict_labelled,
    videos_of_clips,
    videos_of_dataset,
)

_Made = TypeVar("_Made")
RECIPE = "recipe.yaml"
_RESULTS = (LAST, BEST, FINAL, "log.jsonl", "tensorboard/events.*", "debug/epoch*_step*.png")


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
) -> tuple[TrainingSamples, list[ValidationVideo]]:
    """Find the samples and the videos to validate on; poses that are to join are propagated first.

    Raises:
        ConfigError: if the recipe names no data, or a video both to learn from and to validate on.
        LabelsError: if the data cannot be used.
        ModelError: if the model that is to propagate cannot be used.
    """
    data, (height, width) = recipe.data, recipe.model.crop_size
    if (made_up := data.made_up) is not None:
        of_first(lambda: make_up_dataset(made_up, out / "data"))
        seen_in_time((out / "data" / "prepared" / "dataset.json").is_file)
    folder = data.dataset if data.made_up is None else out / "data" / "prepared"
    min_score = MIN_SCORE if data.pseudo is None else data.pseudo.min_score
    if folder is not None:
        dataset = open_dataset(folder)
        samples = samples_of_dataset(dataset, data, width / height)
        if data.pseudo is not None:
            make = partial(propagate_samples, dataset, data.split, samples)
            poses = _propagate(data.pseudo, make, out, engine, progress)
            samples = samples_of_dataset(
                dataset, data, width / height, pseudo_labels=poses, min_score=min_score
            )
        return samples, [] if data.validation in (None, "none") else videos_of_dataset(
            dataset, data.validation
        )
    if data.images:
        if recipe.train.stage == "warper" or data.pseudo is not None:
            raise ConfigError(
                "separate images have no neighbours in time, from which a warper learns",
                expected="train.stage=pose, without data.pseudo",
                got=f"train.stage={recipe.train.stage}",
                fix="train the pose network on them, and the warper on videos (data.clips)",
            )
        return samples_of_images(data.images, width / height, held_out=data.held_out, seed=data.subset_seed)
    chosen, held_out = choose_clips(data)
    if not chosen:
        raise ConfigError(
            "the recipe names nothing to learn from",
            expected="data.dataset, data.clips, data.clips_file, data.images or data.made_up",
            fix="add data.dataset=FOLDER, a folder that `posewarper prepare` made, or videos of your own: "
            "data.clips='[{video: a.mp4, labels: a.json}]'",
        )
    clips, others = ([(clip.video, label_file(clip)) for clip in own] for own in (chosen, held_out))
    files: Sequence[str | Path | None] = [clip.pseudo_labels for clip in chosen]
    if data.pseudo is not None:
        files = _propagate(data.pseudo, partial(propagate_clips, clips), out, engine, progress)
    samples = samples_of_clips(clips, width / height, pseudo_labels=files, min_score=min_score)
    reach = recipe.augmentation.reach if recipe.train.stage == "warper" else 0
    unpacked = unpack_videos(samples, out / "data" / "frames", reach, progress)
    return unpacked, videos_of_clips(others)


def _propagate(
    settings: PseudoSettings,
    make: Callable[..., _Made],
    out: Path,
    engine: accelerate.Accelerator,
    progress: Progress,
) -> _Made:
    """Propagate poses with the settings' warper; the processes share the videos, and all return the same."""
    model = load_warper(settings.model).to(engine.device).eval()
    rules = Rules(settings.min_score, settings.max_cycle)
    return make(model, out / "data" / "pseudo", reach=settings.reach, rules=rules, progress=progress)


def build_model(
    recipe: Recipe, skeleton: Skeleton, engine: accelerate.Accelerator
) -> tuple[PoseWarper, WarpHead | None]:
    """Build the network, with random weights by the recipe's seed or those it is to start from.

    The warp head's offsets are zero at the start of its training, also if it comes from a checkpoint, as in
    the original.

    Returns:
        The network, and the trained head that the recipe's warper is to match, that of ``model.start``.

    Raises:
        ModelError: if the weights to start from do not fit, or lack a head to match.
        ConfigError: if there are two of them.
    """
    settings, train, world = recipe.model, recipe.train, engine.num_processes
    batch = global_batch(train, world)
    crops = batch // (world * train.accumulate) * (2 if train.stage == "warper" else 1)
    spec = ModelSpec(
        skeleton=skeleton,
        targets=train.targets,
        batch_norm=f"{train.batch_norm}: {BATCH_NORMS[train.batch_norm]}; {crops} crops a device",
        provenance={"recipe": recipe.model_dump(mode="json"), "global_batch": batch, "processes": world},
        **settings.model_dump(exclude={"skeleton", "start", "backbone_weights"}),
    )
    weights = _read_weights(settings)
    torch.manual_seed(train.seed)
    if weights is None:
        model = PoseWarper(spec)
    else:
        begun = {"backbone_weights": {"source": weights.source, "sha256": weights.sha256}}
        model = PoseWarper(
            replace(spec, mean=weights.mean, std=weights.std, provenance={**spec.provenance, **begun})
        )
        weights.load_into(model.backbone)
    known = None if settings.start is None else load_model(settings.start)
    if known is not None:
        _start_from(model, known, settings.start, train.stage)
    for offsets in model.warp_head.offsets:
        torch.nn.init.zeros_(offsets.weight)  # type: ignore[arg-type]
    if train.stage == "warper" and "pose" not in model.spec.trained:
        raise ModelError(
            "the warper learns from the heatmaps of a trained pose network",
            expected="model.start=CHECKPOINT of a pose network",
            got=settings.start or "random weights",
            fix="train one first (train.stage=pose) and start from its model.pt",
        )
    if not train.match_head:
        return model, None
    if known is None or "warp" not in known.spec.trained:
        raise ModelError(
            "there is no trained warp head to match",
            path=settings.start,
            expected="model.start=CHECKPOINT of a trained warper",
            got="random weights" if known is None else "a pose network alone",
            fix="train the paper's warper first and start from its model.pt",
        )
    return model, known.warp_head


def _read_weights(settings: ModelSettings) -> BackboneWeights | None:
    """Return what the backbone starts from, None for random weights or those of ``model.start``."""
    if settings.backbone_weights == NONE:
        return None
    if settings.start is not None:
        raise ConfigError(
            "the backbone starts from its own weights or from those of a whole model, not from both",
            expected="model.start or model.backbone_weights",
            got="both",
            fix="leave one of them out",
        )
    network = {
        name: getattr(settings, name) for name in ("backbone", "backbone_weights", "crop_size", "neck")
    }
    return read_backbone_weights(NetworkConfig(**network))


def _start_from(model: PoseWarper, known: PoseWarper, path: str | None, stage: str) -> None:
    if "udp" in (of := (known.spec.targets, model.spec.targets)) and of[0] != of[1]:
        raise ModelError(
            "the heatmaps of the weights to start from lie in their crops in another way",
            path=path,
            expected=f"train.targets={of[0]}",
            got=f"train.targets={of[1]}",
            fix=f"set train.targets={of[0]}",
        )
    # A pose network may start from one of other keypoints (COCO's), as it learns its own.
    if stage == "warper" and known.spec.skeleton.names != model.spec.skeleton.names:
        raise ModelError(
            "the pose network has other keypoints than the labels",
            path=path,
            expected=", ".join(model.spec.skeleton.names),
            got=", ".join(known.spec.skeleton.names),
            fix="start from a pose network that was trained on these labels",
        )
    ours = model.state_dict()
    taken = {
        name: value
        for name, value in known.state_dict().items()
        if ("warp" in known.spec.trained or not name.startswith("warp_head."))
        and name in ours
        and value.shape == ours[name].shape
    }
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
    recipe: Recipe, videos: Sequence[ValidationVideo], engine: accelerate.Accelerator
) -> Callable[[PoseWarper], float] | None:
    """Return the function that validates a model, by the official AP on PoseTrack and by PCK elsewhere.

    The videos are shared among the processes.
    """
    if not videos:
        return None
    is_dataset = recipe.data.dataset is not None or recipe.data.made_up is not None
    aggregate = "paper" if recipe.train.stage == "warper" else "none"

    def validate(model: PoseWarper) -> float:
        own = videos[engine.process_index :: engine.num_processes]
        predicted: dict[str, InstanceTable] = {}
        for part in gather_object([predict_labelled(model, own, aggregate=aggregate)]):
            predicted |= part
        return (official_score if is_dataset else pck_score)(videos, predicted)

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
    ``run.json``, and ``debug/`` with pictures if they are asked for.

    Args:
        recipe: the settings.
        out: folder of the run.
        resume: resume a run that stopped in this folder; begin if there is none.
        overwrite: begin anew in a folder that holds a run.
        debug_images: pictures of so many batches of each epoch.
        device: ``auto`` or ``cpu``.
        progress: is told after every step.
        tell: is given a line after every epoch.

    Raises:
        OutputError: if the folder holds a run and neither ``resume`` nor ``overwrite`` is given, if that run
            has other settings, or if another process writes there.
        ConfigError: if a setting does not fit the data.
        LabelsError: if the data cannot be used.
        ModelError: if the weights to start from do not fit.
        Interrupted: on Ctrl-C; what was done is kept.
    """
    place, started = Path(out), time.perf_counter()
    engine = make_accelerator(device)
    request = request_of(recipe, global_batch(recipe.train, engine.num_processes))
    first = claim(
        place,
        request,
        _RESULTS,
        overwrite=overwrite and not resume,
        again=resume,
        resume=resume,
        adopt=resume,
        last=(LAST, FINAL),
        hint="" if resume else "; a run with the same settings goes on with --resume",
    )
    keep_memory()
    with held_by_first(place, first) as claimed, repeatable(recipe.train.seed):
        try:
            run = _build_run(recipe, place, engine, debug_images, progress, tell)
            if resume:
                run.restore()
            of_first(partial(_begin, claimed, recipe))
            result = run.train()
        except Interrupted:
            raise
        except KeyboardInterrupt:
            raise Interrupted("what is done is kept; the same command with --resume resumes there") from None
        if claimed is not None:
            claimed.finish(_describe(recipe, result, time.perf_counter() - started))
    return result


def _begin(claimed: Claimed | None, recipe: Recipe) -> None:
    assert claimed is not None  # by the first process
    # What is there is lost only now, when nothing is wrong with what takes its place.
    claimed.begin()
    write_text(claimed.folder / RECIPE, yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False))


def _describe(recipe: Recipe, result: TrainingResult, seconds: float) -> dict[str, Any]:
    return {
        **describe_process(str(next(result.model.parameters()).device.type)),
        "recipe": recipe.model_dump(mode="json"),
        "validation": {"last": result.figure, "best": result.best, "best_epoch": result.best_epoch},
        "parameters_sha256": parameters_sha256(result.model),
        "seconds": {"this_part": round(seconds, 2), "total": round(result.seconds, 2)},
        "peak_memory_bytes": peak_memory(),
    }


def _build_run(
    recipe: Recipe,
    place: Path,
    engine: accelerate.Accelerator,
    debug_images: int,
    progress: Progress,
    tell: Callable[[str], None],
) -> Run:
    settings, name = recipe.train, recipe.model.skeleton
    samples, validation = build_data(recipe, place, engine, progress)
    digest = hashlib.sha256()
    for values in (samples.video_of, samples.numbers, samples.keypoints):
        digest.update(values.tobytes())
    if of_first(digest.hexdigest) != digest.hexdigest():
        raise LabelsError(
            "this process has other samples to learn from than the first one",
            path=recipe.data.dataset,
            expected="the same videos and labels on all machines",
            got=f"{len(samples)} samples on {machine_name()}",
            fix="name data on a file system that all machines see",
        )
    skeleton = samples.skeleton if name == "labels" else named_skeleton(name)
    if skeleton.names != samples.skeleton.names:
        raise ConfigError(
            "the recipe's skeleton is not that of the labels",
            expected=", ".join(samples.skeleton.names),
            got=name,
            fix="set model.skeleton=labels",
        )
    model, teacher = build_model(recipe, skeleton, engine)
    # With few samples an epoch takes each several times, with random crops of its own.
    batch, n = global_batch(settings, engine.num_processes), len(samples)
    times = -(-((settings.min_epoch_steps - 1) * batch + 1) // n)
    training_set = TrainingSet(
        samples.take(np.tile(np.arange(n), times)),
        crop_size=model.spec.crop_size,
        sigma=model.spec.sigma,
        augmentation=recipe.augmentation,
        pairs=settings.stage == "warper",
        targets=settings.targets,
        seed=settings.seed,
    )
    return Run(
        recipe,
        model,
        training_set,
        place,
        engine,
        teacher=teacher,
        validate=build_validation(recipe, validation, engine),
        debug_images=debug_images,
        progress=progress,
        tell=tell if engine.is_main_process else lambda line: None,
    )
