"""The main job: fit a model to a clip with a few labels, and propagate the labels to every frame."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from posewarper.errors import (
    ConfigError,
    Interrupted,
    LabelsError,
    ModelError,
    PosewarperWarning,
    wrong_type,
)
from posewarper.formats.labels import check_image_size, given_labels, labels_on, read_labels
from posewarper.model.checkpoint import load_model, parameters_sha256, save_model
from posewarper.model.network import PoseWarper
from posewarper.model.pretrained import BackboneWeights, read_backbone_weights
from posewarper.model.runtime import keep_memory, release_memory, repeatable, resolve_device
from posewarper.motion.flow import read_chains, write_chains
from posewarper.motion.interpolation import INTERPOLATIONS
from posewarper.motion.kept_flow import find_flow, keep_flow
from posewarper.options import FitConfig, NetworkConfig, Settings, effort_config
from posewarper.propagation.clip import Clip, prepare_clip
from posewarper.propagation.methods import METHODS, check_method, propagate_clip
from posewarper.runs import claim, describe_inputs
from posewarper.structures import Labels, Poses, Progress, RunResult, silent
from posewarper.training.own_clip import (
    PSEUDO,
    KeptFit,
    build_clip_model,
    continue_clip_model,
    gentler,
    read_propagated_regions,
    read_training_regions,
    train_pose,
    train_pose_on_propagated,
    train_warper,
)
from posewarper.version import __version__
from posewarper.video.source import Openable, Video, check_span, open_video
from posewarper.video.track_crops import Region

__all__ = ["METHODS", "fit", "needs_model", "propagate"]

VideoLike = Video | Openable
LabelsLike = Labels | Poses | str | os.PathLike[str]
FLOW, FLOW_DATA, _TRAINING = "flow.npz", "flow.bin", "training.pt"
_NEED_WARPER = ("warper", "paper")


def needs_model(method: str, effort: str) -> bool:
    """Tell whether a method needs a trained network at this effort."""
    check_method(method)
    if method == "default":
        return effort_config(effort).pose_iterations > 0
    return method in ("frame", *_NEED_WARPER)


def needs_all_stages(method: str, config: FitConfig) -> bool:
    """Tell whether a method waits for the whole training, or only for the pose network's on the labels."""
    return method in _NEED_WARPER or not config.estimate_first


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
        video: as for :func:`propagate`.
        labels: as for :func:`propagate`; any skeleton, any number of tracks.
        effort: ``normal`` or ``best``, which set the budget in iterations.
        config: settings in place of the effort's.
        network: the architecture, and the weights that it starts from; EfficientNet-lite0 with a feature
            pyramid on 192-pixel crops by default, from ImageNet weights where they are at hand.
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
    _check_settings(config, network)
    resolve_device(device)
    start = read_backbone_weights(network)  # what is wrong with them shows before the work
    how = {"start": start, "seed": seed, "device": device, "checkpoint": checkpoint, "progress": progress}
    with _opened(video, labels) as (opened, usable):
        return fit_clip(prepare_clip(opened, usable, progress=progress), config, network, **how)


def propagate(
    video: VideoLike,
    labels: LabelsLike,
    *,
    method: str = "default",
    model: PoseWarper | str | os.PathLike[str] | None = None,
    learn: bool = False,
    effort: str = "normal",
    network: NetworkConfig | None = None,
    extend: bool = False,
    span: range | None = None,
    seed: int = 0,
    device: str = "auto",
    checkpoint: str | os.PathLike[str] | None = None,
    parts: str | os.PathLike[str] | None = None,
    keep_training: bool = True,
    on_result: Callable[[RunResult], None] | None = None,
    progress: Progress = silent,
) -> RunResult:
    """Turn a few labelled frames into poses for every frame.

    A model that is fitted here learns from the labels until the poses are as good as more training would make
    them. With a ``checkpoint`` it then goes on to learn for new videos; the poses stay as they are.

    Args:
        video: a video file, a folder of frames, frames in memory, or an opened video, see
            :func:`~posewarper.open_video`.
        labels: a label file, labels, or poses, whose labelled frames count.
        method: one of :data:`METHODS`.
        model: a model for these keypoints, or its file; without one the methods that need it fit one first.
        learn: train a copy of the model further on these labels, for an eighth of the iterations at most.
        effort: ``fast`` (trains nothing), ``normal`` or ``best``.
        network: what is fitted, as for :func:`fit`, where no model is given.
        extend: give every track a pose on every frame, also far from its labels.
        span: work on these frames alone, with the labels on them.
        seed: the same seed and thread count give the same poses.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        checkpoint: where to write a model that is fitted here.
        parts: folder in which optical flow and the state of the training are kept; the same call resumes from
            there after a stop. Whoever calls removes it in the end.
        keep_training: go on to train the model for new videos after the poses stand.
        on_result: is called with the result as soon as the poses stand, before that.
        progress: is called as ``progress(stage, done, total)``.

    Returns:
        The poses (labelled frames exactly as labelled), with timings and notes.

    Raises:
        PosewarperError: if the input cannot be used.
        Interrupted: on Ctrl-C in training, after the checkpoint is written; once the poses stand, they have
            been given to ``on_result``.

    Example:
        >>> result = propagate("clip.mp4", "labels.json", effort="fast")
        >>> result.poses.dense().shape  # (frames, tracks, keypoints, xy)
        (20, 1, 4, 2)
    """
    # What cannot work is refused here, before minutes of work.
    if learn and model is None:
        what = "there is no model to train further"
        raise ConfigError(what, expected="a model, with learn", fix="name a model, or leave learn out")
    train = (model is None or learn) and needs_model(method, effort)
    config, place = effort_config(effort), resolve_device(device)
    network = network or NetworkConfig()
    _check_settings(config, network, trains=train)
    looks, settings, seconds = method not in INTERPOLATIONS, {"extend": extend}, {}
    with ExitStack() as held:
        notes = held.enter_context(_noting())
        start = read_backbone_weights(network, trains=train and not learn)
        model = _load_given(model)
        opened, usable = held.enter_context(_opened(video, labels, span))
        if model is not None:
            model = _check_model(model, usable, learn=learn).to(place).eval()
        narrow = model is None and not needs_model("default", effort)
        how_far = {"span": span, "extend": extend, "narrow": narrow}
        with _timed(seconds, "optical flow") if looks else nullcontext():
            if parts is None or not looks:
                clip = prepare_clip(opened, usable, **how_far, flow=looks, progress=progress)
            else:
                given = [config.model_dump(), network.model_dump(), start and start.sha256, seed]
                given += [parameters_sha256(model)] if learn and model is not None else []
                clip = _resume_flow(held, Path(parts), opened, usable, how_far, given, progress)
        if looks:
            settings |= config.model_dump()
        if start is not None:
            settings |= {"backbone_weights": start.source}
        results: list[RunResult] = []
        comes_last = needs_all_stages(method, config)
        trains_on = train and not comes_last and keep_training and checkpoint is not None

        def estimate(trained: PoseWarper | None) -> Poses:
            with _timed(seconds, "propagation"):
                poses = propagate_clip(clip, method, trained, progress=progress)
            done = dict(seconds), tuple(notes), settings
            results.append(RunResult(poses, usable, method, *done, trains_on=trains_on))
            if on_result is not None:
                on_result(results[0])
            return poses

        if train:
            model = fit_clip(
                clip,
                config,
                network,
                start=start,
                begun=model,
                seed=seed,
                device=device,
                checkpoint=checkpoint,
                parts=parts,
                first=None if comes_last else estimate,
                further=comes_last or trains_on,
                seconds=seconds,
                progress=progress,
            )
        if not results:
            estimate(model)
    return replace(results[0], seconds=seconds, trains_on=False)


def _load_given(model: PoseWarper | str | os.PathLike[str] | None) -> PoseWarper | None:
    """Return a model that was given, read from its file if need be."""
    if model is None or isinstance(model, PoseWarper):
        return model
    if isinstance(model, str | os.PathLike):
        return load_model(model)
    raise wrong_type("the model", model, "a model's file, or what fit and load_model return")


def _check_model(model: PoseWarper, labels: Labels, *, learn: bool) -> PoseWarper:
    """Return a model that was given, if it is one for the labels' keypoints, and can learn if it is to."""
    if learn and model.spec.targets == "udp":
        raise ModelError(
            "this model cannot learn further from a clip, since its heatmaps lie in its crops in another way",
            expected="a model of posewarper's own",
            got=f"{model.spec.backbone} with the targets {model.spec.targets}",
            fix="leave out --learn to use it as it is, or train on it by a recipe with train.targets=udp",
        )
    if model.spec.skeleton.names != labels.skeleton.names:
        raise ModelError(
            "the model's skeleton is not that of the labels",
            expected=", ".join(labels.skeleton.names),
            got=", ".join(model.spec.skeleton.names),
            fix="use a model that was trained on this skeleton, or leave --model out to train one",
        )
    if model.spec.stopped:
        what = f"the training of this model was stopped at {model.spec.stopped}"
        _warn(f"{what}; the command that trained it resumes with --resume")
    return model


def _resume_flow(
    held: ExitStack,
    parts: Path,
    video: Video,
    labels: Labels,
    how_far: Mapping[str, Any],
    given: Sequence[Any],
    progress: Progress,
) -> Clip:
    """Prepare a clip, with the optical flow of a stopped run if it is there; ``held`` keeps others out."""
    progress("optical flow", 0, video.n_frames)  # by now the input has proved usable
    facts = describe_inputs(video=Path(video.path))["video"]
    # Of frames that are no file nothing says whether they are the same.
    request = {"video": facts["sha256"] or time.time_ns(), "labels": labels.fingerprint(), "given": given}
    request |= {"posewarper": __version__, "how_far": repr(how_far)}
    held.enter_context(
        claim(parts, request, (FLOW, FLOW_DATA, _TRAINING), overwrite=None, again=True)
    ).begin()
    data, there = parts / FLOW_DATA, (parts / FLOW).is_file()
    known = None if there else find_flow(facts["sha256"])
    clip = prepare_clip(video, labels, **how_far, flow=not there, kept=data, known=known, progress=progress)
    if there:
        clip = replace(clip, chains=read_chains(parts / FLOW, data))
    else:
        write_chains(parts / FLOW, clip.chains)

    def leave(kind: type[BaseException] | None, *_: object) -> None:
        """Leave the flow of a run that is over to the next one on the same video."""
        stores = {chain.flow.store for chain in clip.chains.values() if chain.flow is not None}
        if kind is None and stores and facts["sha256"] is not None:
            (parts / FLOW).unlink(missing_ok=True)
            keep_flow(facts["sha256"], stores.pop(), data)

    held.push(leave)
    return clip


def read_parts(parts: str | os.PathLike[str], video: Video, labels: Labels) -> Clip:
    """Return the clip of a run of :func:`propagate` while it lasts, with the flow kept in ``parts``."""
    place = Path(parts)
    clip = prepare_clip(video, labels, flow=False)
    return replace(clip, chains=read_chains(place / FLOW, place / FLOW_DATA))


def fit_clip(
    clip: Clip,
    config: FitConfig,
    network: NetworkConfig,
    *,
    start: BackboneWeights | None,
    begun: PoseWarper | None = None,
    seed: int,
    device: str,
    checkpoint: str | os.PathLike[str] | None = None,
    parts: str | os.PathLike[str] | None = None,
    first: Callable[[PoseWarper], Poses] | None = None,
    further: bool = True,
    seconds: dict[str, float] | None = None,
    progress: Progress = silent,
) -> PoseWarper:
    """Fit a model to a prepared clip, starting from the weights ``start``; see :func:`fit`.

    The pose network learns from the labels. For new videos it then learns also from poses that are propagated
    with what it has learned so far, and the warper learns last.

    Args:
        clip, config, network, start, seed, device, checkpoint, parts, progress: as :func:`fit` and
            :func:`propagate` take them.
        begun: a model that is trained already, a copy of which learns further, more gently and for an eighth
            of the iterations at most; ``network`` and ``start`` do not count then.
        first: is called with the model that has learned from the labels, and returns the poses that it
            propagates; by default they are propagated here.
        further: learn for new videos, too.
        seconds: takes the time of the stages.
    """
    _check_settings(config, network)
    keep_memory()
    seconds = {} if seconds is None else seconds
    how: dict[str, Any] = {"seed": seed, "progress": progress}
    with repeatable(seed):
        with _timed(seconds, "training"):
            crop_size = network.crop_size if begun is None else begun.spec.crop_size
            labelled, nearby = read_training_regions(clip, crop_size, seed, nearby=further)
            if begun is None:
                model = build_clip_model(clip.labels, network, config, seed, start)
            else:
                model = continue_clip_model(begun, clip.labels, config, seed)
            model = model.to(resolve_device(device)).to(memory_format=torch.channels_last)
            how["kept"] = KeptFit(model, None if parts is None else Path(parts) / _TRAINING)
            interrupted = train_pose(model, labelled, config if begun is None else gentler(config), **how)
        release_memory()
        poses = None
        if not interrupted and first is not None:
            if checkpoint is not None:
                save_model(checkpoint, model)
            poses = first(model)
        if not interrupted and further:
            with _timed(seconds, "training" if first is None else "training for new videos"):
                interrupted = _train_further(clip, model, labelled, nearby, poses, config, how)
    if checkpoint is not None:
        save_model(checkpoint, model)
    if interrupted:
        done = ", ".join(f"{stage} {n}" for stage, n in model.spec.trained.items())
        where = f"kept in {os.fspath(checkpoint)}" if checkpoint is not None else "not written to a file"
        again = "" if parts is None else "; the same command resumes there"
        stands = "" if poses is None else "the poses stand; "
        raise Interrupted(f"{stands}what was learned so far (iterations: {done}) is {where}{again}")
    return model


def _train_further(
    clip: Clip,
    model: PoseWarper,
    labelled: Sequence[Region],
    nearby: Mapping[int, Sequence[Region]],
    poses: Poses | None,
    config: FitConfig,
    how: Mapping[str, Any],
) -> bool:
    """Train on propagated poses and then the warper; returns whether Ctrl-C ended it early."""
    if config.pseudo_iterations and not how["kept"].passed(PSEUDO):
        try:
            if poses is None:
                poses = propagate_clip(clip, "default", model, progress=how["progress"])
            propagated = read_propagated_regions(clip, poses, model.spec.crop_size, how["seed"])
        except KeyboardInterrupt:
            model.note(stopped=f"the beginning of {PSEUDO}")
            return True
        if train_pose_on_propagated(model, labelled, propagated, config, **how):
            return True
        release_memory()
    interrupted = train_warper(model, labelled, nearby, config, **how)
    release_memory()
    return interrupted


@contextmanager
def _opened(
    video: VideoLike, labels: LabelsLike, span: range | None = None
) -> Iterator[tuple[Video, Labels]]:
    """Open and read what is not yet, and check that labels and video belong together, within a span."""
    with nullcontext(video) if isinstance(video, Video) else open_video(video) as opened:
        is_file = isinstance(labels, str | os.PathLike)
        given = read_labels(labels, video=opened) if is_file else given_labels(labels)
        usable = check_labels(opened, given.only_labelled())
        if not is_file:  # reading them from a file warns already
            names = zip(usable.skeleton.names, usable.labelled_keypoints, strict=True)
            never = [name for name, seen in names if not seen]
            if never:
                _warn(f"never labelled, so never predicted: {', '.join(never)}")
        if span is not None:
            check_span(span, opened)
            usable = labels_on(span, usable)
        if len(usable.labelled_frames) == 1:
            lone = f"only frame {usable.labelled_frames[0]} is labelled: poses far from it rest on little"
            _warn(f"{lone}; label a few more frames")
        yield opened, usable


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
    check_image_size(labels.image_size, video.image_size, path=video.path)
    return labels


def _check_settings(config: FitConfig, network: NetworkConfig, *, trains: bool = True) -> None:
    for value, kind in ((config, "FitConfig"), (network, "NetworkConfig")):
        if not isinstance(value, Settings):
            raise wrong_type("the settings", value, f"a posewarper.options.{kind}")
    if trains and not config.pose_iterations:
        raise ConfigError(
            "no iterations to train a network with",
            expected="at least 1 for pose_iterations",
            got=config.pose_iterations,
            fix="take the effort normal or best",
        )


def _warn(message: str) -> None:
    warnings.warn(message, PosewarperWarning, stacklevel=3)


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
        if ("error", PosewarperWarning) not in {(action, kind) for action, _, kind, *_ in warnings.filters}:
            warnings.simplefilter("always", PosewarperWarning)
        warnings.showwarning = note
        yield notes


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - start
