"""Crops of dataset frames and their neighbours, read ahead of the network by a few threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posewarper.crops import Image, crop_image
from posewarper.geometry import CropTransform

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
