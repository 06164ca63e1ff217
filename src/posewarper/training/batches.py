"""The batches of a run from its workers, whose errors keep their kind and their text."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from posewarper.crops import Image, crop_image, flip_keypoints
from posewarper.errors import ConfigError, PosewarperError
from posewarper.geometry import CropTransform, paper_crop_transform
from posewarper.heatmaps import crop_to_heatmap, encode, paper_encode
from posewarper.structures import Floats, Ints, is_there
from posewarper.training.random_crops import Framing, PaperAugmentation, draw_framing, sample_generator
from posewarper.training.samples import FrameReader, TrainingSamples


def epoch_order(n_samples: int, seed: int, epoch: int) -> Ints:
    """Return the order (n_samples,) in which the samples of an epoch are gone through."""
    return np.random.default_rng((seed, epoch)).permutation(n_samples).astype(np.int64)


class EpochSampler(Sampler[list[tuple[int, int]]]):
    """Batches of ``(epoch, index)`` for one process of many, to be given as ``batch_sampler``.

    A step learns from one global batch, the next ``global_batch`` samples of the epoch's order. It is cut
    into ``accumulate * world`` equal pieces in that order: the first ``world`` of them are what the processes
    see first, one each, and so on. So all processes together see the same batches in the same steps whatever
    their number. The last batch of an epoch is filled up from the beginning of the epoch's order, so that all
    batches are whole and all processes have as many: up to ``global_batch - 1`` samples come twice.

    Args:
        n_samples: samples of the data set.
        global_batch: samples of one step, over all processes.
        rank: number of this process, from 0.
        world: number of processes.
        seed: of the order.
        accumulate: batches of this process in one step.

    Raises:
        ConfigError: if there are no samples, or the batch cannot be split evenly.

    Example:
        >>> sampler = EpochSampler(5, 4, rank=1, world=2, seed=0)
        >>> sampler.set_epoch(3)
        >>> len(sampler), [len(batch) for batch in sampler], next(iter(sampler))[0][0]
        (2, [2, 2], 3)
    """

    def __init__(
        self, n_samples: int, global_batch: int, *, rank: int, world: int, seed: int, accumulate: int = 1
    ) -> None:
        if n_samples < 1:
            raise ConfigError("there are no samples to learn from", fix="name data with labels")
        if global_batch < 1 or global_batch % (world * accumulate):
            raise ConfigError(
                "the global batch cannot be split evenly",
                expected=f"a multiple of {world} processes times {accumulate} accumulated batches",
                got=global_batch,
                fix="change the global batch, the number of processes or how many batches are accumulated",
            )
        self._n_samples, self._global_batch = n_samples, global_batch
        self._rank, self._world, self._seed, self._accumulate = rank, world, seed, accumulate
        self._epoch = self._start_step = 0

    @property
    def steps(self) -> int:
        """Steps of a whole epoch."""
        return -(-self._n_samples // self._global_batch)

    def set_epoch(self, epoch: int, start_step: int = 0) -> None:
        """Choose the epoch, and the step of it to begin with."""
        self._epoch, self._start_step = epoch, start_step

    def __len__(self) -> int:
        return max(self.steps - self._start_step, 0) * self._accumulate

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = epoch_order(self._n_samples, self._seed, self._epoch)
        share = self._global_batch // (self._world * self._accumulate)
        # np.resize goes round as often as it takes.
        whole = np.resize(order, (self.steps, self._accumulate, self._world, share))
        for step in whole[self._start_step :, :, self._rank]:
            for batch in step.tolist():
                yield [(self._epoch, index) for index in batch]


_PREFETCHED = 4  # batches that each worker makes ahead


class TrainingSet(Dataset[dict[str, Tensor]]):
    """Augmented crops and targets of training samples.

    An item's key is ``(epoch, index)``, as :class:`~posewarper.training.batches.EpochSampler` gives them, and
    decides with the seed on all that is random in it: it does not matter which process makes it, nor when.
    An item holds:

    - ``images`` (F, h, w, 3) uint8 RGB: the crop of the labelled frame; of pairs also that of its neighbour,
      under the same transform;
    - ``target`` (K, H, W) float32, zero where there is no keypoint;
    - ``weights`` (K,) float32, 0 where there is no keypoint or it lies far outside of the crop;
    - ``index`` () int64.

    Args:
        samples: the instances.
        crop_size: (height, width) of the crops in pixels.
        heatmap_size: (height, width) of the targets in heatmap pixels.
        sigma: of the targets' Gaussians, in heatmap pixels; a whole number for the paper's targets.
        augmentation: the random crops, and how far the neighbour of a pair may be.
        pairs: whether items are pairs of frames (the warper) or single ones (the pose network).
        exact_targets: Gaussians at the keypoints themselves, in place of the paper's on whole heatmap pixels.
        seed: of the augmentation.

    Raises:
        ConfigError: if the paper's targets are asked for with a sigma that is no whole number.
    """

    def __init__(
        self,
        samples: TrainingSamples,
        *,
        crop_size: tuple[int, int],
        heatmap_size: tuple[int, int],
        sigma: float,
        augmentation: PaperAugmentation,
        pairs: bool,
        exact_targets: bool = False,
        seed: int = 0,
    ) -> None:
        if not exact_targets and sigma != int(sigma):
            raise ConfigError(
                "the paper's targets have a sigma of whole heatmap pixels",
                expected="a whole number",
                got=sigma,
                fix="round it, or take exact targets",
            )
        self.samples = samples
        self._crop_size, self._heatmap_size, self._sigma = crop_size, heatmap_size, sigma
        self._augmentation, self._pairs, self._exact, self._seed = augmentation, pairs, exact_targets, seed
        self._reader = FrameReader(samples.videos)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        epoch, index = key
        samples, (height, width) = self.samples, self._crop_size
        video, number = int(samples.video_of[index]), int(samples.numbers[index])
        frame = self._reader.read(video, number)
        framing = draw_framing(
            samples.keypoints[index],
            samples.centers[index],
            samples.scales[index],
            width / height,
            frame.shape[1],
            self._augmentation,
            sample_generator(self._seed, epoch, index),
            samples.skeleton,
        )
        transform = paper_crop_transform(framing.center, framing.scale, framing.rotation, (width, height))
        crops = [_cut(frame, framing, transform)]
        if self._pairs:
            other = samples.videos[video].neighbour(number, framing.offset)
            same = other == number
            crops.append(crops[0] if same else _cut(self._reader.read(video, other), framing, transform))
        target, weights = self._target(samples.keypoints[index], framing, transform, frame.shape[1])
        return {
            "images": torch.from_numpy(np.stack(crops)),
            "target": torch.from_numpy(target),
            "weights": torch.from_numpy(weights),
            "index": torch.tensor(index),
        }

    def _target(
        self, keypoints: Floats, framing: Framing, transform: CropTransform, image_width: int
    ) -> tuple[np.ndarray, np.ndarray]:
        if framing.flip:
            keypoints, _ = flip_keypoints(keypoints, is_there(keypoints), self.samples.skeleton, image_width)
        points, (height, width) = transform.to_crop(keypoints), self._crop_size
        if self._exact:
            target = encode(
                crop_to_heatmap(points, height / self._heatmap_size[0]), self._heatmap_size, self._sigma
            )
            return target, np.asarray(target.any((1, 2)), np.float32)
        sizes = (width, height), self._heatmap_size[::-1]
        target, weights = paper_encode(points, is_there(points), *sizes, int(self._sigma))
        return target, weights[:, 0]


def _cut(frame: Image, framing: Framing, transform: CropTransform) -> Image:
    # The mirroring first and the cut after, as the original: the other way round differs in single levels.
    return crop_image(np.asarray(cv2.flip(frame, 1), np.uint8) if framing.flip else frame, transform)


def load_batches(
    dataset: TrainingSet, sampler: EpochSampler, *, workers: int, pin_memory: bool = False
) -> DataLoader[dict[str, Tensor]]:
    """Return a loader of the sampler's batches, each a dict of stacked items.

    The loader may be gone through once for each ``sampler.set_epoch``; workers stay alive in between.

    Args:
        dataset: the items.
        sampler: says which make a batch.
        workers: processes that read and cut; 0 for this one.
        pin_memory: of the batches, for quick copies to a GPU.
    """
    gc.collect()  # see _start_worker
    return DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_sampler=sampler,  # type: ignore[arg-type]
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=_start_worker,
        persistent_workers=workers > 0,
        prefetch_factor=_PREFETCHED if workers else None,
    )


def _start_worker(worker: int) -> None:
    # Videos that the parent let go of may still wait for the garbage collector. Closed in a fork they would
    # wait for ever for the threads of their decoders, which stayed behind.
    gc.freeze()
    # OpenCV on one thread: there are as many workers as one wants busy. 0 says so; 1 would first end the
    # threads of its pool, and wait for those that stayed behind.
    cv2.setNumThreads(0)


def images_to_tensor(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Turn crops into network input on their device, as :func:`posewarper.crops.normalise` does.

    Args:
        images: (..., h, w, 3) uint8 RGB, on any device.
        mean: (3,) in units of 255.
        std: (3,) in units of 255.

    Returns:
        (..., 3, h, w) float32, ``(crop / 255 - mean) / std``; channels lie last in memory.
    """
    factor, offset = (
        torch.tensor(values, dtype=torch.float64).to(torch.float32).to(images.device)
        for values in (
            1 / (255 * np.asarray(std, np.float64)),
            np.asarray(mean, np.float64) / np.asarray(std),
        )
    )
    return (images.to(torch.float32) * factor - offset).movedim(-1, -3)


Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class _Trouble:
    """An error on its way from a worker: what torch makes of it would be a RuntimeError with a traceback."""

    kind: type[PosewarperError]
    told: Mapping[str, Any]


class _Guarded(Dataset[Any]):
    def __init__(self, items: TrainingSet) -> None:
        self._items = items

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor] | _Trouble:
        try:
            return self._items[key]
        except PosewarperError as error:
            told = {name: getattr(error, name) for name in ("expected", "got")}
            words = {name: None if value is None else str(value) for name, value in told.items()}
            path = None if error.path is None else os.fspath(error.path)
            return _Trouble(type(error), {"what": error.what, "fix": error.fix, "path": path, **words})


def _collate(items: Sequence[Any]) -> Any:
    return next((item for item in items if isinstance(item, _Trouble)), None) or default_collate(list(items))


class BatchLoader:
    """Batches of a training set, read and cut by worker processes that stay alive between epochs.

    Args:
        items: the samples.
        sampler: says which make a batch.
        workers: processes; 0 for this one.
        pin_memory: for quick copies to a GPU.
    """

    def __init__(
        self, items: TrainingSet, sampler: EpochSampler, *, workers: int, pin_memory: bool = False
    ) -> None:
        self._loader = load_batches(
            _Guarded(items),  # type: ignore[arg-type]
            sampler,
            workers=workers,
            pin_memory=pin_memory,
        )
        self._loader.collate_fn = _collate

    def __iter__(self) -> Iterator[Batch]:
        """Give the batches of the sampler's epoch.

        Raises:
            PosewarperError: if a sample cannot be read.
        """
        for batch in self._loader:
            if isinstance(batch, _Trouble):
                raise batch.kind(**batch.told)
            yield batch

    def close(self) -> None:
        """End the workers. They would else live as long as the traceback of an error that ended the run."""
        running = getattr(self._loader, "_iterator", None)
        if running is not None:
            running._shutdown_workers()
            self._loader._iterator = None
