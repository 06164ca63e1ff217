"""Labelled poses of a dataset video, carried to the frames around them (paper, section 3).

An instance is carried by the warp head, as in the paper, or by what the paper compares it with: as it is,
found anew by the network, or along optical flow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.models.optical_flow import RAFT

from posewarper.crops import Image
from posewarper.errors import ConfigError, LabelsError, ModelError, unknown_name
from posewarper.heatmaps import decode
from posewarper.model.heatmap_runner import HeatmapEngine, InstanceCrops
from posewarper.model.network import PoseWarper
from posewarper.motion.flow import Flow, dense_flow, sample_flow, to_grey, working_scale
from posewarper.motion.raft import raft_flow
from posewarper.posetrack.samples import Samples, samples_from_labels
from posewarper.posetrack.selection import Step
from posewarper.structures import Floats, InstanceTable, Ints, is_there
from posewarper.video.source import FrameSource, Video, ahead

METHODS = ("copy", "frame", "dis", "raft", "warper")
"""How a pose gets to another frame: as it is; found anew by the network in the same crop; along optical flow,
by DIS or by RAFT; by the warp head."""
_WITH_MODEL, _WITH_CYCLE = ("frame", "warper"), ("dis", "raft", "warper")
_PAPER_ASPECT = 288 / 384
# RAFT compares every place with every other: its memory grows with the fourth power of the side.
_RAFT_LONGEST_SIDE = 960


@dataclass(frozen=True)
class Rules:
    """Which propagated keypoints are kept; labels themselves always are."""

    # A keypoint must score more and lie at x > 0 and y > 0, as in the original's pseudo-labels (0.2); None
    # keeps all, as its propagation experiment does.
    min_score: float | None = None
    # A keypoint that is carried back must not arrive farther from its label than this share of the crop's
    # longer side; None does not look, as the paper. Not for ``copy`` and ``frame``, which carry nothing.
    max_cycle: float | None = None


@dataclass(frozen=True)
class Carried:
    """Keypoints of n instances on m frames, NaN where there is none."""

    points: Floats  # (m, n, K, 2) xy in image pixels
    scores: Floats  # (m, n, K)
    cycle: Floats | None = None  # (m, n, K) how far off each comes back, in shares of the crop's longer side


@dataclass(frozen=True)
class _Job:
    """A labelled frame, the frames to fill from it, and its instances as places among the samples."""

    labelled: int
    numbers: tuple[int, ...]
    places: Ints
    n_steps: int


@dataclass(frozen=True)
class _Filled:
    """A frame and its n instances."""

    number: int
    instances: Ints  # their places in the table
    points: Floats  # (n, K, 2)
    scores: Floats  # (n, K)
    is_label: bool


def propagate_video(
    model: PoseWarper | None,
    table: InstanceTable,
    steps: Sequence[Step],
    source: FrameSource | Video,
    *,
    method: str,
    rules: Rules | None = None,
    raft: RAFT | None = None,
    frame_name: Callable[[int], str] | None = None,
    batch: int | None = None,
    advance: Callable[[int], None] = lambda n: None,
) -> InstanceTable:
    """Carry labelled poses to other frames of a video.

    Every instance of which the paper makes a sample is carried to each frame that its labelled frame stands
    for, seen in the crop of the labelled frame: who leaves it is lost. Optical flow goes directly from one
    frame to the other. A step with a delta of 0 keeps the label. Only labelled keypoints are carried.

    Args:
        model: in evaluation mode, on its device; needed for ``frame`` and ``warper``.
        table: labels and frames of the video, with the image size.
        steps: what is filled from what; left out where either frame is missing from ``source``.
        method: one of ``METHODS``; ``raft`` needs the network of this name.
        rules: which keypoints are kept; all if left out.
        frame_name: names the frames that ``table`` does not list; needed where steps lead to such frames.
        batch: crops or pairs at a time; None for what suits the device.
        advance: is told how many steps were done.

    Returns:
        The frames of ``table`` and those filled, in order of their numbers if any is new; ``is_labelled``
        says which were filled. Instances are in order of frames, with boxes and tracks of their labels, and
        head boxes for a delta of 0 only. ``keypoint_scores`` are heatmap maxima, and 1 for labels, optical
        flow and copies; ``scores`` are 1. An instance without keypoints is dropped (the original writes it).

    Raises:
        ConfigError: if the method is unknown, or cannot be carried back.
        ModelError: if the method needs a model that is not given, or keypoints differ.
        LabelsError: if the image size is unknown, or steps lead from or to frames without a name.
        VideoError: if a frame that is not known to be missing cannot be read.
    """
    rules = rules or Rules()
    check_method(method, model, rules, raft)
    if model is not None and model.spec.skeleton.names != table.skeleton.names:
        raise ModelError(
            f"this model has other keypoints than the labels of {table.video}",
            expected=", ".join(table.skeleton.names),
            got=", ".join(model.spec.skeleton.names),
            fix="give a model that was trained for these keypoints",
        )
    aspect = _PAPER_ASPECT if model is None else model.spec.crop_size[1] / model.spec.crop_size[0]
    samples = samples_from_labels(table, aspect)
    jobs = _jobs(table, samples, steps, source)
    subject = float(np.median(samples.boxes[:, 2:].max(axis=1))) if len(samples) else 0.0
    cycle = rules.max_cycle is not None
    filled = []
    for number in {step.labelled: None for step in steps if step.delta == 0}:
        own = np.flatnonzero(table.frame_numbers[table.rows] == number)
        points = table.keypoints[own]
        filled.append(_Filled(number, own, points, _ones(points), True))

    engine = None if model is None else HeatmapEngine(model, precision="float32", batch=batch)

    def carry(job: _Job, images: Sequence[Image]) -> Carried:
        labels = table.keypoints[samples.instances[job.places]]
        centers, scales = samples.centers[job.places], samples.scales[job.places]
        if method == "copy":
            points = np.repeat(labels[None], len(job.numbers), axis=0)
            return Carried(points, _ones(points))
        if engine is not None and method in _WITH_MODEL:
            where = InstanceCrops(engine.spec, centers, scales)
            crops = np.concatenate([where.cut(image) for image in images])
            heatmaps = engine.heatmaps(crops).unflatten(0, (len(images), len(labels)))
            if method == "frame":
                return _decode(heatmaps[1:].cpu().numpy(), where, is_there(labels))
            return carry_by_warping(engine, heatmaps, labels, where, cycle=cycle)
        network = raft if method == "raft" else None
        sides = 200.0 * scales.max(axis=-1)
        return carry_by_flow(images[0], images[1:], labels, sides, subject=subject, raft=network, cycle=cycle)

    busy = [job for job in jobs if job.numbers and len(job.places)]
    for job, images in ahead((job, _images(job, source, method)) for job in busy):
        found = carry(job, images)
        points = _keep_sure(found, rules)
        for number, own, scores in zip(job.numbers, points, found.scores, strict=True):
            filled.append(_Filled(number, samples.instances[job.places], own, scores, False))
        advance(job.n_steps)
    idle = [job for job in jobs if not (job.numbers and len(job.places))]
    advance(sum(job.n_steps for job in idle))
    empty = [number for job in idle for number in job.numbers]
    frames = _with_frames(table, [one.number for one in filled] + empty, frame_name)
    return _fill(frames, table, filled, samples)


def _images(job: _Job, source: FrameSource | Video, method: str) -> list[Image]:
    """Return the labelled frame and those to fill; none for a method that does not look at them."""
    if method == "copy":
        return []
    images = dict(source.frames(sorted({job.labelled, *job.numbers})))
    return [images[number] for number in (job.labelled, *job.numbers)]


def _jobs(
    table: InstanceTable, samples: Samples, steps: Sequence[Step], source: FrameSource | Video
) -> list[_Job]:
    of_labelled: dict[int, list[Step]] = {}
    for step in steps:
        of_labelled.setdefault(step.labelled, []).append(step)
    strangers = sorted(set(of_labelled) - set(table.frame_numbers.tolist()))
    if strangers:
        raise LabelsError(
            f"the labels of {table.video} do not list frames that poses are to be carried from",
            expected="numbers of frames in the labels",
            got=strangers[:10],
            fix="plan steps from labelled frames",
        )
    jobs = []
    for labelled, own in of_labelled.items():
        numbers = sorted(step.number for step in own if step.delta != 0 and source.has(step.number))
        places = np.flatnonzero(table.frame_numbers[samples.rows] == labelled)
        jobs.append(_Job(labelled, tuple(numbers) if source.has(labelled) else (), places, len(own)))
    return jobs


def _keep_sure(found: Carried, rules: Rules) -> Floats:
    """Return the points (m, n, K, 2) that the rules leave, NaN for the others."""
    kept = is_there(found.points)
    if rules.min_score is not None:
        kept = kept & (found.points > 0).all(axis=-1) & (found.scores > rules.min_score)
    if rules.max_cycle is not None and found.cycle is not None:
        kept = kept & (found.cycle <= rules.max_cycle)
    return np.where(kept[..., None], found.points, np.nan)


def check_method(method: str, model: PoseWarper | None, rules: Rules, raft: RAFT | None) -> None:
    """Raise ConfigError or ModelError where a method does not exist or lacks what it needs."""
    if method not in METHODS:
        raise unknown_name("unknown method of propagation", method, METHODS)
    if rules.max_cycle is not None and method not in _WITH_CYCLE:
        raise ConfigError(
            "this method carries nothing back, so that there is no cycle to look at",
            expected=f"max_cycle with {', '.join(_WITH_CYCLE)} only",
            got=method,
            fix="leave max_cycle out, or choose another method",
        )
    if (method in _WITH_MODEL and model is None) or (method == "raft" and raft is None):
        raise ModelError(
            f"propagation by {method} needs a network",
            expected="trained weights of RAFT" if method == "raft" else "a model",
            fix="give one, or choose the method dis, which needs none",
        )


def _with_frames(
    table: InstanceTable, filled: Sequence[int], frame_name: Callable[[int], str] | None
) -> InstanceTable:
    """Return the table's frames with those that were filled beside them; all that were are labelled."""
    added = sorted(set(filled) - set(table.frame_numbers.tolist()))
    if added and frame_name is None:
        raise LabelsError(
            f"the labels of {table.video} do not list frames that are to be filled",
            expected="a name for each",
            got=added[:10],
            fix="list them, or say how they are named",
        )
    numbers = np.concatenate([table.frame_numbers, np.array(added, np.int64)])
    names = [*table.frame_names, *(frame_name(number) for number in added if frame_name)]
    order = np.argsort(numbers, kind="stable") if added else np.arange(len(numbers))
    return replace(
        table.take(np.zeros(0, np.int64)),
        frame_names=tuple(names[i] for i in order),
        frame_numbers=numbers[order],
        is_labelled=np.isin(numbers[order], list(filled)),
        # The numbers of a file's images say nothing of frames that it does not list.
        image_ids=None if added else table.image_ids,
        ignore_regions={},
    )


def _fill(
    frames: InstanceTable, table: InstanceTable, filled: Sequence[_Filled], samples: Samples
) -> InstanceTable:
    """Return the frames with the instances that fill them, which come from those of ``table``."""
    row_of = {number: row for row, number in enumerate(frames.frame_numbers.tolist())}
    filled = sorted(filled, key=lambda one: row_of[one.number])
    sizes = [len(one.instances) for one in filled]
    k = len(table.skeleton)
    points = np.concatenate([np.zeros((0, k, 2)), *(one.points for one in filled)])
    scores = np.concatenate([np.zeros((0, k)), *(one.scores for one in filled)])
    own = np.concatenate([np.zeros(0, np.int64), *(one.instances for one in filled)])
    is_label = np.repeat(np.array([one.is_label for one in filled], bool), sizes)
    boxes = np.array(table.boxes)
    bare = ~np.isfinite(boxes[samples.instances]).all(axis=1)
    # A label without a box gets one from which the same crop is made; the original takes a pixel off it.
    boxes[samples.instances[bare]] = samples.boxes[bare] + (0, 0, 1, 1)
    whole = replace(
        frames,
        rows=np.repeat(np.array([row_of[one.number] for one in filled], np.int64), sizes),
        keypoints=points,
        keypoint_scores=np.where(is_there(points), scores, np.nan),
        scores=np.ones(len(own)),
        tracks=table.tracks[own],
        boxes=boxes[own],
        head_boxes=np.where(is_label[:, None], table.head_boxes[own], np.nan),
        is_person=table.is_person[own],
    )
    return whole.take(np.asarray(is_there(points).any(axis=1)))


def carry_by_warping(
    engine: HeatmapEngine, heatmaps: Tensor, keypoints: Floats, where: InstanceCrops, *, cycle: bool = False
) -> Carried:
    """Warp the labels of a frame to other frames: the paper's propagation.

    Args:
        engine: its head warps, from the labelled frame as source to each other frame as target.
        heatmaps: (1 + m, n, K, h, w) seen by the network in the crops ``where``, the labelled frame first.
        keypoints: (n, K, 2) labels in image pixels.
        cycle: also warp back, see :func:`cycle_error`.

    Returns:
        Keypoints with the warped maximum as score. A keypoint without label, or whose target leaves no
        trace in the crop, is absent.
    """
    values = torch.from_numpy(where.draw(keypoints)).to(heatmaps)
    m = len(heatmaps) - 1
    value, source, target = (
        tensor.flatten(0, 1)
        for tensor in (values.expand(m, *values.shape), heatmaps[:1].expand_as(heatmaps[1:]), heatmaps[1:])
    )
    warped = engine.warp(value, source=source, target=target)
    has = (values.amax(dim=(-2, -1)) > 0).cpu().numpy()
    found = _decode(warped.cpu().numpy().reshape(m, *values.shape), where, has)
    shares = None
    if cycle:
        error = cycle_error(engine, value, warped, source=source, target=target)
        shares = error.reshape(found.scores.shape) / max(engine.spec.heatmap_size)
    return Carried(found.points, found.scores, shares)


@torch.inference_mode()
def cycle_error(
    engine: HeatmapEngine, values: Tensor, warped: Tensor | None = None, *, source: Tensor, target: Tensor
) -> Floats:
    """Warp labelled heatmaps from the source frame to the target and back, and measure what is lost.

    Args:
        engine: its head warps.
        values: (B, K, h, w) labelled heatmaps of the source frame.
        warped: ``values`` as they are in the target frame, where that is known already.
        source: (B, K, h, w) what the network sees in the source frame; likewise ``target``.

    Returns:
        (B, K) distances in heatmap pixels between the peaks of ``values`` and of what came back, to a
        fraction of a pixel; meaningless where a map of ``values`` is empty.
    """
    there = engine.warp(values, source=source, target=target) if warped is None else warped
    back = engine.warp(there, source=target, target=source)
    (start, _), (end, _) = (decode(maps.cpu().numpy()) for maps in (values, back))
    return np.linalg.norm(end - start, axis=-1)


def _decode(heatmaps: NDArray[np.floating], where: InstanceCrops, has: NDArray[np.bool_]) -> Carried:
    """Decode heatmaps (m, n, K, h, w) into image pixels; of the keypoints only ``has`` (n, K) are kept."""
    m = len(heatmaps)
    tiled = InstanceCrops(where.spec, np.tile(where.centers, (m, 1)), np.tile(where.scales, (m, 1)))
    points, scores = tiled.find(heatmaps.reshape(-1, *heatmaps.shape[2:]))
    points, scores = points.reshape(*heatmaps.shape[:3], 2), scores.reshape(heatmaps.shape[:3])
    return Carried(np.where(has[..., None], points, np.nan), np.where(has, scores, np.nan))


def _ones(points: Floats) -> Floats:
    return np.where(is_there(points), 1.0, np.nan)


def carry_by_flow(
    labelled: Image,
    others: Iterable[Image],
    keypoints: Floats,
    sides: Floats,
    *,
    subject: float,
    raft: RAFT | None = None,
    cycle: bool = False,
) -> Carried:
    """Carry labels along the flow from their frame directly to each other frame; scores are 1.

    Args:
        labelled: (H, W, 3) uint8 RGB.
        others: m images of the same size.
        keypoints: (n, K, 2) labels in image pixels.
        sides: (n,) longer side of each crop in pixels, the unit of the cycle.
        subject: longer side of a typical instance in pixels, which sets the resolution of the flow.
        raft: computes the flow; dense inverse search (DIS) if left out.
        cycle: also carry back, along the flow from the other frame.
    """
    factor = working_scale(labelled.shape[:2], subject)
    if raft is None:
        shrink, flow_between = to_grey, dense_flow
    else:
        factor = min(factor, _RAFT_LONGEST_SIDE / max(labelled.shape[:2]))
        shrink, flow_between = _shrink, lambda a, b: raft_flow(raft, a, b)
    start = shrink(labelled, factor)
    points, shares = [], []
    for image in others:
        end = shrink(image, factor)
        points.append(_move(keypoints, flow_between(start, end), labelled.shape))
        if cycle:
            back = _move(points[-1], flow_between(end, start), labelled.shape)
            shares.append(np.linalg.norm(back - keypoints, axis=-1) / sides[:, None])
    moved = np.stack(points)
    return Carried(moved, _ones(moved), np.stack(shares) if cycle else None)


def _move(points: Floats, flow: Flow, shape: tuple[int, ...]) -> Floats:
    """Move points in pixels of an image of ``shape`` along a flow that may be smaller."""
    # Sizes are whole numbers, so the scale differs a little by axis. Pixel edges lie on pixel edges.
    scale = np.array([flow.shape[1] / shape[1], flow.shape[0] / shape[0]])
    return points + sample_flow(flow, (points + 0.5) * scale - 0.5) / scale


def _shrink(image: Image, factor: float) -> Image:
    size = round(image.shape[1] * factor), round(image.shape[0] * factor)
    if size == image.shape[1::-1]:
        return image
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
