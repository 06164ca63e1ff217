"""Samples as batches: their order, their crops and targets, and the worker processes that make them."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from posewarper.errors import ConfigError, PosewarperError
from posewarper.heatmaps import crop_to_heatmap, crop_to_udp, encode, paper_encode
from posewarper.model.backbone import STRIDE
from posewarper.options import AugmentationSettings
from posewarper.structures import Floats, Ints, is_there
from posewarper.training.random_crops import Sample, draw_framing, sample_generator
from posewarper.training.samples import FrameReader, TrainingSamples


def epoch_order(n_samples: int, seed: int, epoch: int) -> Ints:
    """Return the order (n_samples,) in which the samples of an epoch are gone through."""
    return np.random.default_rng((seed, epoch)).permutation(n_samples).astype(np.int64)


class EpochSampler(Sampler[list[tuple[int, int]]]):
    """Batches of ``(epoch, index)`` for one process of many, to be given as ``batch_sampler``.

    A step learns from the next ``global_batch`` samples of the epoch's order, cut into ``accumulate * world``
    equal pieces in that order: the first ``world`` of them are what the processes see first, one each, and so
    on. So all processes together see the same batches in the same steps whatever their number. The last batch
    of an epoch is filled up from the beginning of its order, so that all batches are whole and all processes
    have as many: up to ``global_batch - 1`` samples come twice.

    Args:
        n_samples: samples of the data set.
        global_batch: samples of one step, over all processes: a multiple of ``world * accumulate``.
        rank: number of this process, from 0.
        world: number of processes.
        seed: of the order.
        accumulate: batches of this process in one step.

    Raises:
        ConfigError: if there are no samples.
    """

    def __init__(
        self, n_samples: int, global_batch: int, *, rank: int, world: int, seed: int, accumulate: int = 1
    ) -> None:
        if n_samples < 1:
            raise ConfigError("there are no samples to learn from", fix="name data with labels")
        assert global_batch >= 1 and global_batch % (world * accumulate) == 0
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


class TrainingSet(Dataset[dict[str, Tensor]]):
    """Augmented crops and targets of training samples.

    An item's key ``(epoch, index)``, as :class:`EpochSampler` gives it, decides with the seed on all that is
    random in it: it does not matter which process makes it, nor when. An item holds:

    - ``images`` (F, h, w, 3) uint8 RGB: the crop of the labelled frame; of pairs also that of its neighbour,
      under the same transform;
    - ``target`` (K, H, W) float32, zero where there is no keypoint;
    - ``weights`` (K,) float32, 0 where there is no keypoint or it lies far outside of the crop;
    - ``index`` () int64.

    Args:
        samples: the instances.
        crop_size: (height, width) of the crops in pixels; the targets are a quarter as large.
        sigma: of the targets' Gaussians, in heatmap pixels; a whole number for the paper's targets.
        augmentation: the random crops, and how far the neighbour of a pair may be.
        pairs: whether items are pairs of frames (the warper) or single ones (the pose network).
        targets: as in :class:`~posewarper.model.network.ModelSpec`; those that are not the paper's go with
            crops as for own clips.
        seed: of the augmentation.

    Raises:
        ConfigError: if the paper's targets have a sigma that is no whole number.
    """

    def __init__(
        self,
        samples: TrainingSamples,
        *,
        crop_size: tuple[int, int],
        sigma: float,
        augmentation: AugmentationSettings,
        pairs: bool,
        targets: str = "paper",
        seed: int = 0,
    ) -> None:
        if targets == "paper" and sigma != int(sigma):
            raise ConfigError(
                "the paper's targets have a sigma of whole heatmap pixels",
                expected="a whole number",
                got=sigma,
                fix="round it, or take exact targets",
            )
        self.samples = samples
        self._crop_size, self._sigma = crop_size, sigma
        self._augmentation, self._pairs, self._targets, self._seed = augmentation, pairs, targets, seed
        self._reader = FrameReader(samples.videos)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        epoch, index = key
        samples, (height, width) = self.samples, self._crop_size
        video, number = int(samples.video_of[index]), int(samples.numbers[index])
        keypoints = samples.keypoints[index]
        frame = Sample(self._reader.read(video, number), keypoints, is_there(keypoints).astype(np.uint8))
        framing = draw_framing(
            keypoints,
            samples.centers[index],
            samples.scales[index],
            width / height,
            frame.image.shape[1],
            self._augmentation,
            sample_generator(self._seed, epoch, index),
            samples.skeleton,
        )

        def cut(frame: Sample) -> Sample:
            return framing.cut(frame, self._crop_size, samples.skeleton, paper=self._targets == "paper")

        own = cut(frame)
        crops = [own.image]
        if self._pairs:
            other = samples.videos[video].neighbour(number, framing.offset)
            if other == number:
                crops.append(own.image)
            else:
                crops.append(cut(frame._replace(image=self._reader.read(video, other))).image)
        size = width // STRIDE, height // STRIDE
        if self._targets != "paper":
            target = label_heatmaps(own.keypoints, self._crop_size, self._sigma, self._targets)
            weights = np.asarray(target.any((1, 2)), np.float32)
        else:
            target, weights = paper_encode(
                own.keypoints, own.visibility, (width, height), size, int(self._sigma)
            )
        return {
            "images": torch.from_numpy(np.stack(crops)),
            "target": torch.from_numpy(target),
            "weights": torch.from_numpy(weights).reshape(-1),
            "index": torch.tensor(index),
        }


def label_heatmaps(
    keypoints: Floats, crop_size: tuple[int, int], sigma: float, targets: str = "exact"
) -> NDArray[np.float32]:
    """Return the heatmaps (..., K, H, W) of keypoints (..., K, 2) in crop pixels; zero where they are NaN.

    ``targets``, ``exact`` or ``udp``, says how heatmaps lie in crops.
    """
    size = crop_size[0] // STRIDE, crop_size[1] // STRIDE
    inside = (
        crop_to_udp(keypoints, size, crop_size) if targets == "udp" else crop_to_heatmap(keypoints, STRIDE)
    )
    return encode(inside, size, sigma)


def images_to_tensor(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Turn crops into network input on their device, as :func:`posewarper.crops.normalise` does.

    Args:
        images: (..., h, w, 3) uint8 RGB, on any device.
        mean: (3,) in units of 255, as ``std``.
        std: (3,)

    Returns:
        (..., 3, h, w) float32, ``(crop / 255 - mean) / std``; channels lie last in memory.
    """
    deviation = np.asarray(std, np.float64)
    factor, offset = (
        torch.tensor(values, dtype=torch.float32, device=images.device)
        for values in (1 / (255 * deviation), np.asarray(mean, np.float64) / deviation)
    )
    return (images.to(torch.float32) * factor - offset).movedim(-1, -3)


Batch = Mapping[str, Tensor]


class _Guarded(Dataset[Any]):
    """The same items, an error in place of one as what makes it: torch would make a RuntimeError of it."""

    def __init__(self, items: TrainingSet) -> None:
        self._items = items

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor] | PosewarperError:
        try:
            return self._items[key]
        except PosewarperError as error:
            return error.with_traceback(None)


def _collate(items: Sequence[Any]) -> Any:
    failed = (item for item in items if isinstance(item, PosewarperError))
    return next(failed, None) or default_collate(list(items))


def _start_worker(worker: int) -> None:
    # Videos that the parent let go of may still wait for the garbage collector. Closed in a fork they would
    # wait for ever for the threads of their decoders, which stayed behind.
    gc.freeze()
    # OpenCV on one thread. 0 says so; 1 would first end the threads of its pool, and wait for those that
    # stayed behind.
    cv2.setNumThreads(0)


class BatchLoader:
    """Batches of a training set, read and cut by worker processes that stay alive between epochs.

    Iterate once after each ``sampler.set_epoch``. Errors of workers keep their kind and their text.

    Args:
        items: the samples.
        sampler: says which make a batch.
        workers: processes that read and cut; 0 for this one.
        pin_memory: of the batches, for quick copies to a GPU.
        timeout: seconds after which a worker that gives nothing is an error; 0 to wait for ever.
    """

    def __init__(
        self,
        items: TrainingSet,
        sampler: EpochSampler,
        *,
        workers: int,
        pin_memory: bool = False,
        timeout: float = 0,
    ) -> None:
        gc.collect()  # see _start_worker
        self._loader: DataLoader[Any] = DataLoader(
            _Guarded(items),
            batch_sampler=sampler,  # type: ignore[arg-type]
            num_workers=workers,
            collate_fn=_collate,
            pin_memory=pin_memory,
            timeout=timeout,
            worker_init_fn=_start_worker,
            persistent_workers=workers > 0,
            prefetch_factor=4 if workers else None,
        )

    def __iter__(self) -> Iterator[Batch]:
        """Give the batches of the sampler's epoch, each a dict of stacked items.

        Raises:
            PosewarperError: if a sample cannot be read.
        """
        for batch in self._loader:
            if isinstance(batch, PosewarperError):
                raise batch
            yield batch

    def close(self) -> None:
        """End the workers. They would else live as long as the traceback of an error that ended the run."""
        running = getattr(self._loader, "_iterator", None)
        if running is not None:
            running._shutdown_workers()
            self._loader._iterator = None
