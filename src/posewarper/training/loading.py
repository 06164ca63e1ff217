"""The batches of a run from its workers, whose errors keep their kind and their text."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset, default_collate

from posewarper.data.sampling import EpochSampler
from posewarper.data.training_set import TrainingSet, load_batches
from posewarper.errors import PosewarperError

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
            return _Trouble(type(error), {"what": error.what, "mend": error.mend, "path": path, **words})


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
