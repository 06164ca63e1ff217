"""The main job: fit a model to a clip with a few labels, and propagate the labels to every frame."""

from __future__ import annotations

import copy
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from posewarper.errors import ConfigError, Interrupted, LabelsError, ModelError, PosewarperWarning
from posewarper.formats.labels import read_labels
from posewarper.model.checkpoint import save_model
from posewarper.model.network import PoseWarper
from posewarper.model.pretrained import BackboneWeights, read_backbone_weights
from posewarper.model.runtime import keep_memory, release_memory, repeatable, resolve_device
from posewarper.model.seeing_heads import SEEING_HEADS
from posewarper.model.warping import WarpHead
from posewarper.options import FitConfig, NetworkConfig, effort_config
from posewarper.propagation.clip import Clip, prepare_clip
from posewarper.propagation.methods import (
    ABLATIONS,
    INTERPOLATIONS,
    METHODS,
    VARIANTS,
    carry_poses,
    check_method,
    estimate_poses,
    interpolate_labels,
    warp_the_paper_s_way,
)
from posewarper.structures import Labels, Poses, Progress, RunResult, silent
from posewarper.training.own_clip import (
    build_clip_model,
    read_propagated_regions,
    read_training_regions,
    train_pose,
    train_pose_on_propagated,
    train_warper,
)
from posewarper.video.source import Video, open_video
from posewarper.video.track_crops import Region

__all__ = ["ABLATIONS", "METHODS", "VARIANTS", "fit", "needs_model", "propagate"]

VideoLike = Video | str | os.PathLike[str]
LabelsLike = Labels | str | os.PathLike[str]

_MODEL_METHODS = ("frame", "warper-untrained", "warper", "paper", *VARIANTS)


def needs_model(method: str, effort: str) -> bool:
    """Tell whether a method needs a trained network at this effort."""
    check_method(method)
    if method == "default" or method in ABLATIONS:
        return effort_config(effort).pose_iterations > 0
    return method in _MODEL_METHODS


@contextmanager
def _opened(video: VideoLike, labels: LabelsLike) -> Iterator[tuple[Video, Labels]]:
    with ExitStack() as stack:
        if not isinstance(video, Video):
            video = stack.enter_context(open_video(video))
        given = labels if isinstance(labels, Labels) else read_labels(labels, video=video)
        usable = check_labels(video, given.only_labelled())
        if given is labels:  # reading them from a file warns already
            _warn_of_the_never_labelled(usable)
        yield video, usable


def check_labels(video: Video, labels: Labels) -> Labels:
    """Return the labels if they fit the video.

    Raises:
        LabelsError: if there are none, they lie beyond the video, or belong to another image size.
    """
    if not any((track.visibility > 0).any() for track in labels.tracks.values()):
        raise LabelsError(
            "there are no labels", path=labels.video, fix="label at least one frame with one keypoint"
        )
    last = int(labels.labelled_frames[-1])
    if last >= video.n_frames:
        raise LabelsError(
            "a label lies beyond the last frame",
            path=video.path,
            expected=f"frame indices from 0 to {video.n_frames - 1}",
            got=f"frame {last}",
            fix="check that the labels belong to this video and count frames from 0",
        )
    if labels.image_size is not None and tuple(labels.image_size) != tuple(video.image_size):
        raise LabelsError(
            "the labels were made on images of another size",
            path=video.path,
            expected=f"height x width {video.image_size[0]} x {video.image_size[1]}, as in the video",
            got=f"{labels.image_size[0]} x {labels.image_size[1]}",
            fix="label this very video, or scale the labels to its size",
        )
    return labels


def _check_budget(config: FitConfig) -> None:
    if not config.pose_iterations:
        raise ConfigError(
            "no iterations to train a network with",
            expected="at least 1 for pose_iterations",
            got=config.pose_iterations,
            fix="take the effort normal or best",
        )


def _check_variant(method: str, config: FitConfig) -> None:
    if method in VARIANTS and not config.warp_iterations:
        raise ConfigError(
            f"no iterations to train the head of {method} with",
            expected="at least 1 for warp_iterations",
            got=config.warp_iterations,
            fix="take the effort normal or best",
        )


def fit_clip(
    clip: Clip,
    config: FitConfig,
    network: NetworkConfig,
    *,
    start: BackboneWeights | None,
    seed: int,
    device: str,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> PoseWarper:
    """Fit a model to a clip that is made ready already; ``start`` are its weights, read. See :func:`fit`."""
    _check_budget(config)
    keep_memory()
    with repeatable(seed):
        labelled, nearby = read_training_regions(clip, network.crop_size, seed)
        model = build_clip_model(clip.labels, network, config, seed, start).to(resolve_device(device))
        model = model.to(memory_format=torch.channels_last)
        interrupted = train_pose(model, labelled, config, seed=seed, progress=progress)
        release_memory()
        if not interrupted and config.pseudo_iterations:
            interrupted = _learn_from_propagated(clip, model, labelled, config, seed, progress)
            release_memory()
        if not interrupted:
            interrupted = train_warper(model, labelled, nearby, config, seed=seed, progress=progress)
            release_memory()
    if checkpoint is not None:
        save_model(checkpoint, model)
    if interrupted:
        done = ", ".join(f"{stage} {n}" for stage, n in model.spec.trained.items())
        where = f"kept in {os.fspath(checkpoint)}" if checkpoint is not None else "not written to a file"
        raise Interrupted(f"what was learned so far (iterations: {done}) is {where}")
    return model


def _learn_from_propagated(
    clip: Clip, model: PoseWarper, labelled: list[Region], config: FitConfig, seed: int, progress: Progress
) -> bool:
    """Propagate with what the pose network knows, and train it on that; tell whether Ctrl-C ended it."""
    try:
        poses = estimate_poses(clip, "default", model, progress=progress)
        propagated = read_propagated_regions(clip, poses, model.spec.crop_size, seed)
    except KeyboardInterrupt:
        return True
    return train_pose_on_propagated(model, labelled, propagated, config, seed=seed, progress=progress)


def fit(
    video: VideoLike,
    labels: LabelsLike,
    *,
    effort: str = "normal",
    config: FitConfig | None = None,
    network: NetworkConfig | None = None,
    seed: int = 0,
    device: str = "auto",
    checkpoint: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> PoseWarper:
    """Fit a pose network and a warper to a clip with a few labelled frames.

    Args:
        video: a video file, a folder of frames, or an opened video.
        labels: a label file or labels; any skeleton, any number of tracks.
        effort: ``normal`` or ``best``, which set the budget in iterations.
        config: settings in place of the effort's.
        network: the architecture, and the weights that it starts from; a small HRNet on 192-pixel crops with
            random weights by default.
        seed: the same seed and thread count give the same model.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        checkpoint: where to write the model, also after Ctrl-C.
        progress: is called as ``progress(stage, done, total)``.

    Returns:
        The model in evaluation mode.

    Raises:
        PosewarperError: if the video or the labels cannot be used.
        Interrupted: on Ctrl-C, after the checkpoint is written.

    Example:
        >>> model = fit("clip.mp4", "labels.json", checkpoint="model.pt")
        >>> sorted(model.spec.trained)
        ['pose', 'warp']
    """
    config, network = config or effort_config(effort), network or NetworkConfig()
    _check_budget(config)
    resolve_device(device)
    start = read_backbone_weights(network)  # what is wrong with them shows before the work
    with _opened(video, labels) as (opened, usable):
        clip = prepare_clip(opened, usable, progress=progress)
        return fit_clip(
            clip,
            config,
            network,
            start=start,
            seed=seed,
            device=device,
            checkpoint=checkpoint,
            progress=progress,
        )


def _fitting_model(model: PoseWarper, labels: Labels) -> PoseWarper:
    """Check that a given model can look for the keypoints of the labels.

    Raises:
        ModelError: if its keypoints have other names or another order.
    """
    if model.spec.skeleton.names != labels.skeleton.names:
        raise ModelError(
            "the model's skeleton is not that of the labels",
            expected=", ".join(labels.skeleton.names),
            got=", ".join(model.spec.skeleton.names),
            fix="use a model that was trained on this skeleton, or leave --model out to train one",
        )
    return model


def _untrained(model: PoseWarper) -> PoseWarper:
    spec = model.spec
    fresh = copy.deepcopy(model)
    fresh.warp_head = WarpHead(len(spec.skeleton), spec.head_width, spec.head_blocks, spec.head_dilations)
    return fresh.to(model.device).eval()


def _with_seeing_head(
    clip: Clip, model: PoseWarper, variant: str, config: FitConfig, seed: int, progress: Progress
) -> PoseWarper:
    """Return the model with another head, trained here on the pose network as it is."""
    spec, seeing = model.spec, copy.deepcopy(model)
    keep_memory()
    with repeatable(seed):
        head = SEEING_HEADS[variant](
            len(spec.skeleton), spec.head_width, spec.head_blocks, spec.head_dilations
        )
        seeing.warp_head = head.to(model.device, memory_format=torch.channels_last)
        labelled, nearby = read_training_regions(clip, spec.crop_size, seed)
        interrupted = train_warper(seeing, labelled, nearby, config, seed=seed, progress=progress)
        release_memory()
    if interrupted:
        raise Interrupted(f"the head of {variant} is not kept")
    return seeing


def propagate(
    video: VideoLike,
    labels: LabelsLike,
    *,
    method: str = "default",
    model: PoseWarper | None = None,
    effort: str = "normal",
    network: NetworkConfig | None = None,
    extend: bool = False,
    seed: int = 0,
    device: str = "auto",
    checkpoint: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> RunResult:
    """Turn a few labelled frames into poses for every frame.

    Args:
        video: a video file, a folder of frames, or an opened video.
        labels: a label file or labels.
        method: one of :data:`METHODS`, :data:`ABLATIONS` or :data:`VARIANTS`.
        model: a model for these keypoints; without one the methods that need it fit one first.
        effort: ``fast`` (trains nothing), ``normal`` or ``best``.
        network: what is fitted, as for :func:`fit`, where no model is given.
        extend: give every track a pose on every frame, also far from its labels.
        seed: the same seed and thread count give the same poses.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        checkpoint: where to write a model that is fitted here.
        progress: is called as ``progress(stage, done, total)``.

    Returns:
        The poses (labelled frames exactly as labelled), with timings and notes.

    Raises:
        PosewarperError: if the input cannot be used.
        Interrupted: on Ctrl-C in training, after the checkpoint is written.

    Example:
        >>> result = propagate("clip.mp4", "labels.json", effort="fast")
        >>> result.poses.dense().shape  # (frames, tracks, keypoints, xy)
        (20, 1, 4, 2)
    """
    # What cannot work is refused here, before minutes of work.
    train = model is None and needs_model(method, effort)
    config, place = effort_config(effort), resolve_device(device)
    network = network or NetworkConfig()
    if train:
        _check_budget(config)
    _check_variant(method, config)
    start = read_backbone_weights(network, trains=train)
    seconds: dict[str, float] = {}
    with _noting() as notes, _opened(video, labels) as (opened, usable):
        if model is not None:
            model = _fitting_model(model, usable).to(place).eval()
        _warn_of_a_lone_label(usable)
        if method in INTERPOLATIONS:
            clip = prepare_clip(opened, usable, extend=extend, flow=False)
            with _timed(seconds, "propagation"):
                poses = propagate_clip(clip, method)
            return RunResult(poses, usable, method, seconds, tuple(notes), {"extend": extend})
        with _timed(seconds, "optical flow"):
            clip = prepare_clip(opened, usable, extend=extend, progress=progress)
        if train:
            with _timed(seconds, "training"):
                model = fit_clip(
                    clip,
                    config,
                    network,
                    start=start,
                    seed=seed,
                    device=device,
                    checkpoint=checkpoint,
                    progress=progress,
                )
        with _timed(seconds, "propagation"):
            poses = propagate_clip(clip, method, model, config=config, seed=seed, progress=progress)
    settings = {"extend": extend, **config.model_dump()}
    if start is not None:
        settings["backbone_weights"] = start.source
    return RunResult(poses, usable, method, seconds, tuple(notes), settings)


def propagate_clip(
    clip: Clip,
    method: str,
    model: PoseWarper | None = None,
    *,
    config: FitConfig | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Poses:
    """Propagate in a clip that is made ready already, with a trained model where the method needs one.

    Variants train a head of their own first, for which there are ``config`` and ``seed``.
    """
    if method in INTERPOLATIONS:
        return interpolate_labels(clip, method)
    if method in ("flow", "flow2"):
        return carry_poses(clip, method)
    if method == "warper-untrained":
        assert model is not None
        return estimate_poses(clip, "warper", _untrained(model), progress=progress)
    if method in VARIANTS:
        assert model is not None
        config = config or effort_config("normal")
        seeing = _with_seeing_head(clip, model, method, config, seed, progress)
        return estimate_poses(clip, "warper", seeing, progress=progress)
    if method == "paper":
        assert model is not None
        return warp_the_paper_s_way(clip, model, progress=progress)
    return estimate_poses(clip, method, model, progress=progress)


def _warn_of_a_lone_label(labels: Labels) -> None:
    if len(labels.labelled_frames) == 1:
        warnings.warn(
            f"only frame {labels.labelled_frames[0]} is labelled: poses far from it rest on little; "
            "label a few more frames",
            PosewarperWarning,
            stacklevel=3,
        )


def _warn_of_the_never_labelled(labels: Labels) -> None:
    never = [n for n, seen in zip(labels.skeleton.names, labels.labelled_keypoints, strict=True) if not seen]
    if never:
        warnings.warn(
            f"never labelled, so never predicted: {', '.join(never)}", PosewarperWarning, stacklevel=3
        )


@contextmanager
def _noting() -> Iterator[list[str]]:
    """Collect our warnings as notes, and still show them."""
    notes: list[str] = []
    show = warnings.showwarning

    def note(message: Warning | str, category: type[Warning], *rest: Any, **named: Any) -> None:
        if issubclass(category, PosewarperWarning) and str(message) not in notes:
            notes.append(str(message))
        show(message, category, *rest, **named)

    # Python shows a warning once a place; a second run in one process has the same to note as the first.
    with warnings.catch_warnings():
        if not any(
            action == "error" and kind is PosewarperWarning for action, _, kind, *_ in warnings.filters
        ):
            warnings.simplefilter("always", PosewarperWarning)
        warnings.showwarning = note
        yield notes


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
