"""Which samples make which batch: the same global batches on any number of processes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from posewarper.errors import ConfigError
from posewarper.structures import Ints


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
            raise ConfigError("there are no samples to learn from", mend="name data with labels")
        if global_batch < 1 or global_batch % (world * accumulate):
            raise ConfigError(
                "the global batch cannot be split evenly",
                expected=f"a multiple of {world} processes times {accumulate} accumulated batches",
                got=global_batch,
                mend="change the global batch, the number of processes or how many batches are accumulated",
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
