"""Labelled poses of a dataset video, carried to the frames around them (paper, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.models.optical_flow import RAFT

from posewarper.crops import Image
from posewarper.errors import ConfigError, LabelsError, ModelError
from posewarper.geometry import paper_crop_transform
from posewarper.heatmaps import decode
from posewarper.model.heatmap_runner import InstanceCrops, see_crops
from posewarper.model.network import PoseWarper
from posewarper.motion.flow import Flow, dense_flow, raft_flow, sample_flow, to_grey, working_scale
from posewarper.paper.prediction import CropJob, FrameSource, read_crops
from posewarper.posetrack.samples import Samples, samples_from_labels
from posewarper.posetrack.selection import Step
from posewarper.structures import Floats, InstanceTable, Ints, is_there

# Crops or pairs in one pass of the network.
_CPU_BATCH, _GPU_BATCH = 16, 64


@dataclass(frozen=True)
class Carried:
    """Keypoints of n instances on m frames.

    Args:
        points: (m, n, K, 2) xy in image pixels, NaN where there is none.
        scores: (m, n, K), NaN where there is none.
        cycle: (m, n, K) how far off a keypoint comes back to its label, in shares of the crop's longer side;
            None where that was not asked for.
    """

    points: Floats
    scores: Floats
    cycle: Floats | None = None


def carry_by_warping(
    model: PoseWarper,
    heatmaps: Tensor,
    keypoints: Floats,
    where: InstanceCrops,
    *,
    cycle: bool = False,
    batch: int | None = None,
) -> Carried:
    """Warp the labels of a frame to other frames: the paper's propagation.

    Args:
        model: its head warps, from the labelled frame as source to each other frame as target.
        heatmaps: (1 + m, n, K, h, w) seen by the network, the labelled frame first.
        keypoints: (n, K, 2) labels in image pixels.
        where: the crops that the heatmaps are of.
        cycle: also warp back, see :func:`cycle_error`.
        batch: pairs at a time; None for what suits the device.

    Returns:
        Keypoints with the warped maximum as score. A keypoint without label, or whose target leaves no
        trace in the crop, is absent.
    """
    values = torch.from_numpy(where.draw(keypoints)).to(model.device, model.dtype)
    m = len(heatmaps) - 1
    pairs = [
        tensor.flatten(0, 1)
        for tensor in (values.expand(m, *values.shape), heatmaps[:1].expand_as(heatmaps[1:]), heatmaps[1:])
    ]
    moved, errors = [], []
    for value, source, target in zip(*(pair.split(_size(model, batch)) for pair in pairs), strict=True):
        with torch.inference_mode():
            warped = model.warp(value, source=source, target=target)
        moved.append(warped.cpu().numpy())
        if cycle:
            errors.append(cycle_error(model, value, warped, source=source, target=target))
    has = (values.amax(dim=(-2, -1)) > 0).cpu().numpy()
    found = _decode(model, np.concatenate(moved).reshape(m, *values.shape), where, has)
    shares = (
        np.concatenate(errors).reshape(found.scores.shape) / max(model.spec.heatmap_size) if cycle else None
    )
    return Carried(found.points, found.scores, shares)


@torch.inference_mode()
def cycle_error(
    model: PoseWarper, values: Tensor, warped: Tensor | None = None, *, source: Tensor, target: Tensor
) -> Floats:
    """Warp labelled heatmaps from the source frame to the target and back, and measure what is lost.

    Args:
        model: its head warps.
        values: (B, K, h, w) labelled heatmaps of the source frame.
        warped: ``values`` as they are in the target frame, where that is known already.
        source: (B, K, h, w) what the network sees in the source frame.
        target: (B, K, h, w) what it sees in the target frame.

    Returns:
        (B, K) distances in heatmap pixels between the peaks of ``values`` and of what came back, to a
        fraction of a pixel; meaningless where a map of ``values`` is empty.
    """
    there = model.warp(values, source=source, target=target) if warped is None else warped
    back = model.warp(there, source=target, target=source)
    (start, _), (end, _) = (decode(maps.cpu().numpy()) for maps in (values, back))
    return np.linalg.norm(end - start, axis=-1)


def find_anew(model: PoseWarper, heatmaps: Tensor, keypoints: Floats, where: InstanceCrops) -> Carried:
    """Return what the network itself says of other frames, in the crops of the labelled one.

    Args:
        model: that made them.
        heatmaps: (m, n, K, h, w) of the other frames.
        keypoints: (n, K, 2) labels; keypoints without one are absent on the other frames, too.
        where: the crops that the heatmaps are of.

    Returns:
        Keypoints with the heatmaps' maxima as scores.
    """
    return _decode(model, heatmaps.cpu().numpy(), where, is_there(keypoints))


def _decode(
    model: PoseWarper, heatmaps: NDArray[np.floating], where: InstanceCrops, has: NDArray[np.bool_]
) -> Carried:
    """Decode heatmaps (m, n, K, h, w) into image pixels; of the keypoints only ``has`` (n, K) are kept."""
    centers, scales = (np.tile(column, (len(heatmaps), 1)) for column in (where.centers, where.scales))
    tiled = InstanceCrops(model.spec, centers, scales)
    points, scores = tiled.find(heatmaps.reshape(-1, *heatmaps.shape[2:]))
    points, scores = points.reshape(*heatmaps.shape[:3], 2), scores.reshape(heatmaps.shape[:3])
    return Carried(np.where(has[..., None], points, np.nan), np.where(has, scores, np.nan))


def _size(model: PoseWarper, batch: int | None) -> int:
    return batch or (_CPU_BATCH if model.device.type == "cpu" else _GPU_BATCH)


# RAFT compares every place with every other: its memory grows with the fourth power of the side.
_RAFT_LONGEST_SIDE = 960


def carry_by_copying(keypoints: Floats, n_frames: int) -> Carried:
    """Return labels (n, K, 2) where they are, on ``n_frames`` frames, with score 1."""
    points = np.repeat(keypoints[None], n_frames, axis=0)
    return Carried(points, _ones(points))


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
    """Carry labels along the flow from their frame directly to each other frame.

    Args:
        labelled: (H, W, 3) uint8 RGB.
        others: m images of the same size.
        keypoints: (n, K, 2) labels in image pixels.
        sides: (n,) longer side of each crop in pixels, the unit of the cycle.
        subject: longer side of a typical instance in pixels, which sets the resolution of the flow.
        raft: computes the flow; dense inverse search (DIS) if left out.
        cycle: also carry back, along the flow from the other frame.

    Returns:
        Points, with score 1.
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


def _ones(points: Floats) -> Floats:
    return np.where(is_there(points), 1.0, np.nan)


METHODS = ("copy", "frame", "dis", "raft", "warper")
"""How a pose gets to another frame: as it is; found anew by the network in the same crop; along optical flow,
by DIS or by RAFT; by the warp head."""
_WITH_MODEL, _WITH_CYCLE = ("frame", "warper"), ("dis", "raft", "warper")
_PAPER_ASPECT = 288 / 384


@dataclass(frozen=True)
class Rules:
    """Which propagated keypoints are kept; labels themselves always are.

    Args:
        min_score: a keypoint must score more and lie at x > 0 and y > 0, as in the original's pseudo-labels
            (0.2); None keeps all, as its propagation experiment does.
        max_cycle: a keypoint that is carried back to its labelled frame must not arrive farther from its
            label than this share of the crop's longer side; None does not look, as the paper. Not for
            ``copy`` and ``frame``, which carry nothing.
    """

    min_score: float | None = None
    max_cycle: float | None = None


@dataclass(frozen=True)
class _Job:
    """A labelled frame, the frames to fill from it, and its instances as places among the samples."""

    labelled: int
    row: int
    keeps_itself: bool
    numbers: tuple[int, ...]
    places: Ints
    n_steps: int


@dataclass(frozen=True)
class _Filled:
    """A frame and its n instances: their places in the table, keypoints (n, K, 2), scores (n, K)."""

    number: int
    instances: Ints
    points: Floats
    scores: Floats
    is_label: bool


def propagate_video(
    model: PoseWarper | None,
    table: InstanceTable,
    steps: Sequence[Step],
    source: FrameSource,
    *,
    method: str,
    rules: Rules | None = None,
    raft: RAFT | None = None,
    frame_name: Callable[[int], str] | None = None,
    batch: int | None = None,
    advance: Callable[[int], None] = lambda n: None,
) -> InstanceTable:
    """Carry labelled poses to other frames of a video.

    Every instance of a labelled frame of which the paper makes a sample is carried to each frame that the
    labelled one stands for. All are seen in the crop of the labelled frame; who leaves it is lost. Optical
    flow goes directly from the labelled frame to the other, not by way of those between. A step with a delta
    of 0 keeps the label itself, with score 1. Only labelled keypoints are carried.

    Args:
        model: in evaluation mode, on its device; needed for ``frame`` and ``warper``.
        table: labels and frames of the video, with the image size.
        steps: what is filled from what.
        source: the frames. A step to or from a frame that is missing is left out.
        method: one of ``METHODS``.
        rules: which keypoints are kept; all if left out.
        raft: the network, for ``raft``.
        frame_name: names the frames that ``table`` does not list; needed where steps lead to such frames.
        batch: crops or pairs at a time; None for what suits the device.
        advance: is told how many steps were done.

    Returns:
        The frames of ``table`` with those that were filled beside them, in order of their numbers if there
        are such; ``is_labelled`` says which were filled. Instances are in order of frames, with boxes and
        tracks of their labels; head boxes are kept for a delta of 0 only. ``keypoint_scores`` are heatmap
        maxima, and 1 for optical flow and copies; ``scores`` are 1. An instance that is left without any
        keypoint is dropped (the original writes it).

    Raises:
        ConfigError: if the method is unknown, or cannot be carried back.
        ModelError: if the method needs a model that is not given, or keypoints differ.
        LabelsError: if the image size is unknown, or steps lead from or to frames without a name.
        VideoError: if a frame that is not known to be missing cannot be read.
    """
    rules = rules or Rules()
    check_method(method, model, rules, raft)
    _check_skeleton(model, table)
    samples = samples_from_labels(table, _PAPER_ASPECT if model is None else _aspect(model))
    jobs = _jobs(table, samples, steps, source)
    filled = [_keep_label(table, job) for job in jobs if job.keeps_itself]
    busy = [job for job in jobs if job.numbers and len(job.places)]
    if method in _WITH_MODEL:
        assert model is not None
        carried = _carry_in_crops(model, table, samples, busy, source, method, rules, batch)
    elif method == "copy":
        carried = (carry_by_copying(table.keypoints[_own(samples, job)], len(job.numbers)) for job in busy)
    else:
        carried = _carry_in_images(table, samples, busy, source, rules, raft if method == "raft" else None)
    for job, found in zip(busy, carried, strict=True):
        points = _keep_sure(found, rules)
        for number, own, scores in zip(job.numbers, points, found.scores, strict=True):
            filled.append(_Filled(number, _own(samples, job), own, scores, False))
        advance(job.n_steps)
    idle = [job for job in jobs if not (job.numbers and len(job.places))]
    advance(sum(job.n_steps for job in idle))
    empty = [number for job in idle for number in job.numbers]
    frames = _with_frames(table, [one.number for one in filled] + empty, frame_name)
    return _fill(frames, table, filled, samples)


def check_method(method: str, model: PoseWarper | None, rules: Rules, raft: RAFT | None) -> None:
    """Raise ConfigError or ModelError where a method does not exist or lacks what it needs."""
    if method not in METHODS:
        raise ConfigError(
            "unknown method of propagation",
            expected=", ".join(METHODS),
            got=method,
            fix="use one of the names expected",
        )
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


def _check_skeleton(model: PoseWarper | None, table: InstanceTable) -> None:
    if model is not None and model.spec.skeleton.names != table.skeleton.names:
        raise ModelError(
            f"this model has other keypoints than the labels of {table.video}",
            expected=", ".join(table.skeleton.names),
            got=", ".join(model.spec.skeleton.names),
            fix="give a model that was trained for these keypoints",
        )


def _aspect(model: PoseWarper) -> float:
    height, width = model.spec.crop_size
    return width / height


def _jobs(table: InstanceTable, samples: Samples, steps: Sequence[Step], source: FrameSource) -> list[_Job]:
    of_labelled: dict[int, list[Step]] = {}
    for step in steps:
        of_labelled.setdefault(step.labelled, []).append(step)
    row_of = {number: row for row, number in enumerate(table.frame_numbers.tolist())}
    strangers = sorted(set(of_labelled) - set(row_of))
    if strangers:
        raise LabelsError(
            f"the labels of {table.video} do not list frames that poses are to be carried from",
            expected="numbers of frames in the labels",
            got=strangers[:10],
            fix="plan steps from labelled frames",
        )
    jobs = []
    for labelled, own in of_labelled.items():
        # Sorted by time, so that decoders of videos go forward.
        numbers = sorted(step.number for step in own if step.delta != 0 and source.has(step.number))
        jobs.append(
            _Job(
                labelled,
                row_of[labelled],
                any(step.delta == 0 for step in own),
                tuple(numbers) if source.has(labelled) else (),
                np.flatnonzero(samples.rows == row_of[labelled]),
                len(own),
            )
        )
    return jobs


def _own(samples: Samples, job: _Job) -> Ints:
    return samples.instances[job.places]


def _keep_label(table: InstanceTable, job: _Job) -> _Filled:
    own = np.flatnonzero(table.rows == job.row)
    points = table.keypoints[own]
    return _Filled(job.labelled, own, points, np.where(is_there(points), 1.0, np.nan), True)


def _carry_in_crops(
    model: PoseWarper,
    table: InstanceTable,
    samples: Samples,
    jobs: Sequence[_Job],
    source: FrameSource,
    method: str,
    rules: Rules,
    batch: int | None,
) -> Iterator[Carried]:
    """Yield what the network makes of each job, seen in the crops of the labelled frame."""
    height, width = model.spec.crop_size
    crop_jobs = (
        CropJob(
            (job.labelled, *job.numbers),
            np.ones(1 + len(job.numbers)),
            [
                paper_crop_transform(samples.centers[i], samples.scales[i], 0.0, (width, height))
                for i in job.places
            ],
            job.places,
        )
        for job in jobs
    )
    for cut, crops in read_crops(crop_jobs, source.read):
        labels = table.keypoints[samples.instances[cut.instances]]
        where = InstanceCrops(model.spec, samples.centers[cut.instances], samples.scales[cut.instances])
        images = crops.reshape(-1, *crops.shape[2:])
        if method == "frame":
            seen = see_crops(model, images[len(labels) :], batch=batch).unflatten(0, (-1, len(labels)))
            yield find_anew(model, seen, labels, where)
        else:
            heatmaps = see_crops(model, images, batch=batch).unflatten(0, crops.shape[:2])
            cycle = rules.max_cycle is not None
            yield carry_by_warping(model, heatmaps, labels, where, cycle=cycle, batch=batch)


def _carry_in_images(
    table: InstanceTable,
    samples: Samples,
    jobs: Sequence[_Job],
    source: FrameSource,
    rules: Rules,
    raft: RAFT | None,
) -> Iterator[Carried]:
    """Yield where optical flow between whole images takes the labels of each job."""
    subject = float(np.median(samples.boxes[:, 2:].max(axis=1))) if len(samples) else 0.0
    for job in jobs:
        yield carry_by_flow(
            source.read(job.labelled),
            (source.read(number) for number in job.numbers),
            table.keypoints[_own(samples, job)],
            200.0 * samples.scales[job.places].max(axis=-1),
            subject=subject,
            raft=raft,
            cycle=rules.max_cycle is not None,
        )


def _keep_sure(found: Carried, rules: Rules) -> Floats:
    """Return the points (m, n, K, 2) that the rules leave, NaN for the others."""
    kept = is_there(found.points)
    if rules.min_score is not None:
        kept = kept & (found.points > 0).all(axis=-1) & (found.scores > rules.min_score)
    if rules.max_cycle is not None and found.cycle is not None:
        kept = kept & (found.cycle <= rules.max_cycle)
    return np.where(kept[..., None], found.points, np.nan)


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
    boxes = _boxes(table, samples)
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


def _boxes(table: InstanceTable, samples: Samples) -> Floats:
    """Return the boxes of all labels; where there is none, one from which the same crop is made."""
    boxes = np.array(table.boxes)
    bare = ~np.isfinite(boxes[samples.instances]).all(axis=1)
    # The original takes a pixel off the sides of a labelled box.
    boxes[samples.instances[bare]] = samples.boxes[bare] + (0, 0, 1, 1)
    return boxes
