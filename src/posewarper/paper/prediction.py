"""The paper's inference over a prepared dataset: poses and official result files, video after video."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from posewarper.crops import Image, crop_image, normalise
from posewarper.errors import ConfigError, Interrupted, LabelsError, ModelError, PosewarperWarning
from posewarper.evaluation.oks import similarity, usual_sigmas
from posewarper.geometry import CropTransform, paper_crop_transform
from posewarper.model.checkpoint import parameters_sha256
from posewarper.model.export import check_warper
from posewarper.model.heatmap_runner import InstanceCrops
from posewarper.model.network import PoseModel
from posewarper.options import Settings
from posewarper.posetrack.boxes import BoxList, boxes_of_frames, boxes_without_frame, read_boxes
from posewarper.posetrack.dataset import Dataset, DatasetVideo
from posewarper.posetrack.points import apply_neck_rule
from posewarper.posetrack.posetrack18 import read_posetrack18, write_posetrack18
from posewarper.posetrack.results import paper_scores, write_results, write_submission
from posewarper.posetrack.samples import Samples, samples_from_boxes, samples_from_labels, support_numbers
from posewarper.prediction.tracker import suppress_doubles
from posewarper.prediction.windows import WINDOWS, Window, named_window, predict_heatmaps
from posewarper.runs import claim_folder, counter
from posewarper.skeletons import POSETRACK
from posewarper.structures import Floats, InstanceTable, Ints, Progress, silent
from posewarper.version import __version__
from posewarper.video.images import read_image
from posewarper.video.source import Video

_THREADS = 4
# Frames that may be read and cut before they are needed.
_AHEAD = 8


@dataclass(frozen=True)
class CropJob:
    """What is cut around one present frame.

    Args:
        numbers: F frame numbers, the present one first; every box is cut from each of them.
        weights: (F,) of the sum of their heatmaps.
        transforms: n, one an instance.
        instances: (n,) which instances these are, for whoever asked.
    """

    numbers: tuple[int, ...]
    weights: NDArray[np.float64]
    transforms: Sequence[CropTransform]
    instances: NDArray[np.int64]


def _cut(images: Sequence[Future[Image]], transforms: Sequence[CropTransform]) -> NDArray[np.uint8]:
    opened = [image.result() for image in images]
    return np.stack([[crop_image(image, transform) for transform in transforms] for image in opened])


def read_crops(
    jobs: Iterable[CropJob], read: Callable[[int], Image]
) -> Iterator[tuple[CropJob, NDArray[np.uint8]]]:
    """Yield each job with its crops (F, n, h, w, 3) uint8 RGB, in the order of the jobs.

    A frame is read once as long as the jobs that need it follow each other. Memory does not grow with the
    number of jobs.

    Args:
        jobs: in order of time.
        read: frame number -> image (H, W, 3); called from several threads.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        waiting: deque[tuple[CropJob, Future[NDArray[np.uint8]]]] = deque()
        images: dict[int, Future[Image]] = {}
        try:
            for job in jobs:
                # What the last job did not need is let go. Reading is queued before cutting, so that no
                # thread waits for an image whose turn has not come.
                images = {n: images[n] if n in images else pool.submit(read, n) for n in job.numbers}
                futures = [images[n] for n in job.numbers]
                waiting.append((job, pool.submit(_cut, futures, job.transforms)))
                if len(waiting) > _AHEAD:
                    first, crops = waiting.popleft()
                    yield first, crops.result()
            while waiting:
                first, crops = waiting.popleft()
                yield first, crops.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


ENDS = ("clip", "renormalise")
# Samples in one pass of the network, of one to five frames each.
_CPU_BATCH, _GPU_BATCH = 4, 16


@dataclass(frozen=True)
class FrameSource:
    """The frames of a video by their numbers.

    Args:
        read: number -> image (H, W, 3) uint8 RGB; called from several threads.
        first: number of the first frame.
        n_frames: number of frames.
        missing: numbers that cannot be read.
    """

    read: Callable[[int], Image]
    first: int
    n_frames: int
    missing: frozenset[int] = frozenset()

    def has(self, number: int) -> bool:
        """Return whether there is such a frame and it can be read."""
        return self.first <= number < self.first + self.n_frames and number not in self.missing


def dataset_frames(dataset: Dataset, video: DatasetVideo) -> FrameSource:
    """Return the frames of a video of a prepared dataset, not turned by EXIF, as the original reads them."""

    def read(number: int) -> Image:
        return read_image(dataset.frame_path(video, number), upright=False)

    return FrameSource(read, video.first, video.n_frames, video.missing)


def clip_frames(video: Video) -> FrameSource:
    """Return the frames of a video of one's own, by their index; it is read by one thread at a time."""
    lock = Lock()

    def read(number: int) -> Image:
        with lock:
            return video[number]

    return FrameSource(read, 0, video.n_frames)


def frames_to_sum(
    number: int, window: Window, ends: str, source: FrameSource
) -> tuple[tuple[int, ...], Floats]:
    """Return which frames are summed for the frame ``number``, and their weights.

    Args:
        number: of the present frame.
        window: the frames wanted.
        ends: ``clip`` repeats the first or last frame where the window leaves the video, and takes the
            present frame for one that is missing, as the original; ``renormalise`` leaves both out, and the
            other weights grow so that they sum up to what all did.
        source: the frames there are.

    Returns:
        F numbers, the present frame first, and (F,) weights; where one is left out its weight is 0 and its
        number is the present frame's.

    Raises:
        ConfigError: if ``ends`` is unknown.
    """
    weights = np.array(window.weights)
    if ends == "clip":
        numbers = support_numbers(
            number, window.offsets, first=source.first, n_frames=source.n_frames, exists=source.has
        )
        return tuple(numbers), weights
    if ends != "renormalise":
        raise ConfigError(
            "unknown rule for the ends of a video",
            expected=", ".join(ENDS),
            got=ends,
            fix="use one of the names expected",
        )
    there = np.array([offset == 0 or source.has(number + offset) for offset in window.offsets])
    numbers = [number + offset if has else number for offset, has in zip(window.offsets, there, strict=True)]
    kept = np.where(there, weights, 0.0)
    return tuple(numbers), kept * (weights.sum() / kept.sum())


def predict_video(
    model: PoseModel,
    table: InstanceTable,
    samples: Samples,
    source: FrameSource,
    *,
    window: Window = WINDOWS["paper"],
    ends: str = "clip",
    batch: int | None = None,
    advance: Callable[[int], None] = lambda n: None,
) -> InstanceTable:
    """Predict a pose for every sample of a video.

    Crops are the original's (``paper_...``), and so are decoding and the way back to the image, unless the
    model was trained on exact targets; all frames of a sample are cut with the present frame's box. Nothing
    is suppressed or thresholded here.

    Args:
        model: in evaluation mode, on its device.
        table: lists the frames of the video; its instances are not looked at.
        samples: the boxes, in order of time or not.
        source: the frames.
        window: the frames that are summed; one frame alone is the pose network without the warper.
        ends: see :func:`frames_to_sum`.
        batch: samples at a time; None for what suits the device.
        advance: is told how many samples were done.

    Returns:
        The frames of ``table`` with one instance a sample, in the order of the samples: keypoints (n, K, 2)
        in image pixels, ``keypoint_scores`` the maxima of the heatmaps, ``scores`` and ``boxes`` the
        samples'.
    """
    k = len(model.spec.skeleton)
    n = len(samples.rows)
    keypoints, maxima = np.full((n, k, 2), np.nan), np.zeros((n, k))
    batch = batch or (_CPU_BATCH if model.device.type == "cpu" else _GPU_BATCH)
    jobs = _jobs(table, samples, source, window, ends, model.spec.crop_size)
    for crops, weights, instances in _batches(read_crops(jobs, source.read), batch):
        where = InstanceCrops(model.spec, samples.centers[instances], samples.scales[instances])
        keypoints[instances], maxima[instances] = where.find(_heatmaps(model, crops, weights))
        advance(len(instances))
    return replace(
        table,
        rows=samples.rows,
        keypoints=keypoints,
        keypoint_scores=maxima,
        scores=samples.box_scores,
        tracks=None,
        boxes=samples.boxes,
        head_boxes=None,
        is_person=None,
        ignore_regions={},
        skeleton=model.spec.skeleton,
    )


def _heatmaps(model: PoseModel, crops: NDArray[np.uint8], weights: Floats) -> NDArray[np.floating]:
    place = {"device": model.device, "dtype": model.dtype}
    images = normalise(crops.reshape(-1, *crops.shape[2:]), model.spec.mean, model.spec.std)
    tensor = torch.from_numpy(images).to(**place).unflatten(0, crops.shape[:2])
    with torch.inference_mode():
        return predict_heatmaps(model, tensor, torch.from_numpy(weights).to(**place)).cpu().numpy()


def _jobs(
    table: InstanceTable,
    samples: Samples,
    source: FrameSource,
    window: Window,
    ends: str,
    crop_size: tuple[int, int],
) -> Iterator[CropJob]:
    height, width = crop_size
    order = np.argsort(table.frame_numbers[samples.rows], kind="stable")
    rows = samples.rows[order]
    for instances in np.split(order, np.flatnonzero(np.diff(rows)) + 1) if len(rows) else []:
        number = int(table.frame_numbers[samples.rows[instances[0]]])
        numbers, weights = frames_to_sum(number, window, ends, source)
        transforms = [
            paper_crop_transform(samples.centers[i], samples.scales[i], 0.0, (width, height))
            for i in instances
        ]
        yield CropJob(numbers, weights, transforms, instances)


class _Batch(NamedTuple):
    crops: NDArray[np.uint8]  # (F, b, h, w, 3)
    weights: Floats  # (F, b)
    instances: Ints  # (b,)

    def part(self, first: int, last: int | None) -> _Batch:
        return _Batch(self.crops[:, first:last], self.weights[:, first:last], self.instances[first:last])


def _batches(cut: Iterable[tuple[CropJob, NDArray[np.uint8]]], size: int) -> Iterator[_Batch]:
    """Yield batches of ``size`` samples, the last one smaller."""
    held: list[_Batch] = []
    count = 0
    for job, crops in cut:
        weights = np.repeat(job.weights[:, None], len(job.instances), axis=1)
        held.append(_Batch(crops, weights, job.instances))
        count += len(job.instances)
        while count >= size:
            joined = _join(held)
            yield joined.part(0, size)
            held, count = [joined.part(size, None)], count - size
    if count:
        yield _join(held)


def _join(held: Sequence[_Batch]) -> _Batch:
    return _Batch(
        np.concatenate([one.crops for one in held], axis=1),
        np.concatenate([one.weights for one in held], axis=1),
        np.concatenate([one.instances for one in held]),
    )


_POSES, _RESULTS = "poses", "results"
SUBMISSION = "submission.zip"
_NOBODY: Ints = np.zeros(0, np.int64)


class PredictionConfig(Settings):
    """Settings of the paper's inference; the defaults are those of its recipes."""

    aggregate: Literal["paper", "none"] = "paper"
    ends: Literal["clip", "renormalise"] = "clip"
    box_threshold: float = Field(default=0.2, description="lower boxes of a detector are left out")
    neck: Literal["shoulders", "head_bottom"] = "shoulders"
    nms_oks: float | None = Field(default=None, ge=0, le=1, description="None: no suppression, as the paper")
    skip_missing: bool = Field(default=False, description="leave out frames whose image is missing")
    all_frames: bool = Field(default=False, description="also frames of train and val without labels")


@dataclass(frozen=True)
class DatasetResult:
    """What a run over a dataset came to.

    Args:
        videos: number of videos.
        frames: number of frames with a pose.
        instances: number of poses.
        reused: number of videos that an interrupted run had done already.
    """

    videos: int
    frames: int
    instances: int
    reused: int


def predict_dataset(
    dataset: Dataset,
    model: PoseModel,
    out: str | os.PathLike[str],
    *,
    split: str = "val",
    boxes: str | os.PathLike[str] | None = None,
    config: PredictionConfig | None = None,
    batch: int | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> DatasetResult:
    """Predict every video of a split and write the results.

    ``out/poses`` gets PoseTrack18 files with all that the network said, ``out/results`` the files that the
    original writes, ``out/submission.zip`` what a test server takes. A run that was interrupted goes on with
    the videos that are not done; of one that is done nothing is predicted again.

    Args:
        dataset: made by ``posewarper prepare``.
        model: in evaluation mode, on its device; its keypoints are PoseTrack's.
        out: the folder to write.
        split: ``train``, ``val`` or ``test``.
        boxes: file of a detector's boxes; None for the labels' own.
        config: settings.
        batch: samples at a time; None for what suits the device.
        overwrite: replace results of another run.
        progress: is told after every batch.

    Raises:
        ModelError: if the model has other keypoints, or its warp head is needed and untrained.
        LabelsError: if there are no boxes, or they belong to other frames.
        OutputError: if ``out`` holds results of another run.
    """
    config = config or PredictionConfig()
    _check_model(model, config)
    videos = dataset.require_split(split)
    labels = {video.file_stem: dataset.table(video) for video in videos}
    samples = _all_samples(dataset, split, labels, boxes, config, model)
    for video in videos:
        samples[video.file_stem] = _on_frames_there(
            dataset, video, labels[video.file_stem], samples[video.file_stem], config
        )
    place = Path(out)
    request = _request(dataset, model, split, boxes, config)
    claim_folder(place, request, (_POSES, _RESULTS, SUBMISSION, "run.json"), overwrite=overwrite)
    predicted: dict[str, InstanceTable] = {}
    total, reused = sum(len(own) for own in samples.values()), 0
    done = 0
    try:
        for video in videos:
            stem = video.file_stem
            path = place / _POSES / f"{stem}.json"
            progress("poses", done, total)
            if path.is_file():
                predicted[stem] = read_posetrack18(path)
                reused += 1
            else:
                poses = predict_video(
                    model,
                    labels[stem],
                    samples[stem],
                    dataset_frames(dataset, video),
                    window=named_window(config.aggregate),
                    ends=config.ends,
                    batch=batch,
                    advance=counter(progress, "poses", done, total),
                )
                predicted[stem] = _without_doubles(poses, config.nms_oks)
                write_posetrack18(path, predicted[stem])
            done += len(samples[stem])
    except KeyboardInterrupt:
        kept = f"{len(predicted)} of {len(videos)} videos are done in {place / _POSES}"
        raise Interrupted(f"{kept}; the same command goes on from there") from None
    progress("poses", total, total)
    _write_results(place, dataset.kind, predicted, labels, config.neck)
    return DatasetResult(
        videos=len(videos),
        frames=sum(len(np.unique(table.rows)) for table in predicted.values()),
        instances=sum(table.n_instances for table in predicted.values()),
        reused=reused,
    )


def _check_model(model: PoseModel, config: PredictionConfig) -> None:
    if model.spec.skeleton.names != POSETRACK.names:
        raise ModelError(
            "this model has other keypoints than PoseTrack's, which result files are made of",
            expected=", ".join(POSETRACK.names),
            got=", ".join(model.spec.skeleton.names),
            fix="give a model with these 17 keypoints",
        )
    if config.aggregate == "none":
        return
    if "warp" not in model.spec.trained:
        raise ModelError(
            "the warp head of this model was never trained: neighbours would not be moved",
            expected="weights of a PoseWarper",
            got="weights of a pose network alone",
            fix="give other weights, or predict each frame alone with --aggregate none",
        )
    check_warper(model)


def _all_samples(
    dataset: Dataset,
    split: str,
    labels: Mapping[str, InstanceTable],
    boxes: str | os.PathLike[str] | None,
    config: PredictionConfig,
    model: PoseModel,
) -> dict[str, Samples]:
    """Return the boxes to look at in each video, by file stem."""
    height, width = model.spec.crop_size
    if boxes is None and split == "test":
        raise LabelsError(
            "test videos have no labels to take boxes from",
            path=dataset.root,
            fix="give the boxes of a detector with --boxes",
        )
    every = config.all_frames or split == "test"
    wanted = {
        stem: np.arange(len(table.frame_names)) if every else np.flatnonzero(table.is_labelled)
        for stem, table in labels.items()
    }
    if boxes is None:
        return {
            stem: samples_from_labels(table.take(np.isin(table.rows, wanted[stem])), width / height)
            for stem, table in labels.items()
        }
    found = _people(read_boxes(boxes))
    named = _as_boxes_call_them(found, {video.file_stem: video for video in dataset.of_split(split)}, labels)
    _check_boxes(found, named, boxes)
    samples = {}
    for stem, table in named.items():
        own = set(wanted[stem].tolist())
        at = {row: which for row, which in boxes_of_frames(found, table).items() if row in own}
        rows = np.concatenate([np.full(len(n), row) for row, n in at.items()]) if at else _NOBODY
        which = np.concatenate(list(at.values())) if at else _NOBODY
        samples[stem] = samples_from_boxes(
            table, found.boxes[which], found.scores[which], rows, width / height, config.box_threshold
        )
    _tell_of_gaps(samples, wanted, boxes)
    return samples


def _tell_of_gaps(samples: Mapping[str, Samples], wanted: Mapping[str, Ints], path: object) -> None:
    """Warn of frames that are to be predicted and have no box: results of a part look like those of all."""
    bare = {stem: len(set(wanted[stem].tolist()) - set(own.rows.tolist())) for stem, own in samples.items()}
    total, none = sum(map(len, wanted.values())), [stem for stem, own in samples.items() if not len(own)]
    if sum(bare.values()):
        videos = f", none at all in {len(none)} videos ({', '.join(none[:3])})" if none else ""
        text = f"{path}: no box above the threshold on {sum(bare.values())} of {total} frames{videos}"
        warnings.warn(text, PosewarperWarning, stacklevel=2)


def _on_frames_there(
    dataset: Dataset, video: DatasetVideo, table: InstanceTable, samples: Samples, config: PredictionConfig
) -> Samples:
    """Return the samples whose own frame can be read; without ``skip_missing`` all must be."""
    numbers = table.frame_numbers[samples.rows]
    gone = np.isin(numbers, list(video.missing))
    if not gone.any():
        return samples
    frames = np.unique(numbers[gone]).tolist()
    what = f"{len(frames)} frames of video {video.name} that are to be predicted are missing"
    if not config.skip_missing:
        raise LabelsError(
            what,
            path=dataset.images,
            expected="an image for every labelled frame",
            got=", ".join(video.frame_name(n) for n in frames[:5]),
            fix="put them there and run `posewarper prepare` again, or leave them out with --skip-missing",
        )
    warnings.warn(f"{what}; they are left out", PosewarperWarning, stacklevel=2)
    return samples.take(~gone)


def _as_boxes_call_them(
    boxes: BoxList, videos: Mapping[str, DatasetVideo], labels: Mapping[str, InstanceTable]
) -> dict[str, InstanceTable]:
    """Return the tables with frame names as in the box file: the original's differ from the download's."""
    named = {}
    for stem, table in labels.items():
        regular = replace(
            table, frame_names=tuple(videos[stem].frame_name(n) for n in table.frame_numbers.tolist())
        )
        # Of equal counts the download's own names win.
        named[stem] = max(table, regular, key=lambda one: len(boxes_of_frames(boxes, one)))
    return named


def _people(boxes: BoxList) -> BoxList:
    # The first category of COCO's and PoseTrack's files is the person.
    return boxes.take(boxes.category_ids == 1)


def _check_boxes(boxes: BoxList, labels: Mapping[str, InstanceTable], path: object) -> None:
    strangers = len(boxes_without_frame(boxes, labels.values()))
    if strangers == len(boxes):
        names, ids = boxes.image_names, boxes.image_ids
        known = next(iter(labels.values()))
        raise LabelsError(
            "none of the boxes is on a frame of these videos",
            path=str(path),
            expected=f"images like {known.frame_names[0] if names else known.image_ids}",
            got="no boxes of people" if not len(boxes) else f"images like {names[0] if names else ids}",
            fix="give the boxes of this dataset and split",
        )
    if strangers:
        text = f"{path}: {strangers} of {len(boxes)} boxes are on frames that these videos do not have"
        warnings.warn(text, PosewarperWarning, stacklevel=2)


def _without_doubles(poses: InstanceTable, threshold: float | None) -> InstanceTable:
    """Return the poses without those that are more similar than allowed to a better one in their frame."""
    if threshold is None:
        return poses
    stays, sigmas = np.ones(poses.n_instances, bool), np.array(usual_sigmas(poses.skeleton))
    scores = paper_scores(poses).keypoint_scores.mean(axis=1)
    for row in np.unique(poses.rows):
        own = np.flatnonzero(poses.rows == row)
        alike = similarity(poses.keypoints[own], poses.boxes[own], poses.keypoints[own], sigmas)
        stays[own] = suppress_doubles(alike, scores[own], threshold)
    return poses.take(stays)


def _write_results(
    place: Path,
    kind: str,
    predicted: Mapping[str, InstanceTable],
    labels: Mapping[str, InstanceTable],
    neck: str,
) -> None:
    results = {stem: paper_scores(apply_neck_rule(table, neck)) for stem, table in predicted.items()}
    write_results(place / _RESULTS, results, ground_truth=labels)
    write_submission(place / SUBMISSION, results, kind=kind, ground_truth=labels)


# --- a run that goes on where it was ----------------------------------------------------------------------


def _request(
    dataset: Dataset,
    model: PoseModel,
    split: str,
    boxes: str | os.PathLike[str] | None,
    config: PredictionConfig,
) -> dict[str, Any]:
    """Return what decides on the poses; a run with the same request may go on with another's videos."""
    index = (dataset.root / "dataset.json").read_bytes()
    return {
        "posewarper": __version__,
        "dataset": hashlib.sha256(index).hexdigest(),
        "split": split,
        "model": parameters_sha256(model),
        "boxes": None if boxes is None else hashlib.sha256(Path(boxes).read_bytes()).hexdigest(),
        "config": config.model_dump(),
    }
