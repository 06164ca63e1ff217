"""Poses of the instances of a dataset video, the paper's way: given boxes, one frame or five (section 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from posewarper.crops import Image, normalise
from posewarper.errors import ConfigError
from posewarper.geometry import paper_crop_transform
from posewarper.inference.aggregation import WINDOWS, Window, predict_heatmaps
from posewarper.inference.frame_crops import CropJob, read_crops
from posewarper.inference.heatmap_points import find_points
from posewarper.instances import InstanceTable
from posewarper.io.images import read_image
from posewarper.io.video import Video
from posewarper.model.network import PoseModel
from posewarper.posetrack.dataset import Dataset, DatasetVideo
from posewarper.posetrack.samples import Samples
from posewarper.posetrack.support_frames import support_numbers
from posewarper.structures import Floats, Ints

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

    return FrameSource(read, video.first, video.n_frames, dataset.missing(video))


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
            mend="use one of the names expected",
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
        keypoints[instances], maxima[instances] = find_points(
            model.spec,
            _heatmaps(model, crops, weights),
            samples.centers[instances],
            samples.scales[instances],
        )
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
