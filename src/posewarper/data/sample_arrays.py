"""Training samples as plain arrays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from posewarper.data.frame_readers import VideoFrames
from posewarper.errors import LabelsError
from posewarper.skeletons import Skeleton
from posewarper.structures import Floats, Ints

_PER_SAMPLE = ("video_of", "numbers", "keypoints", "centers", "scales", "is_pseudo")


@dataclass(frozen=True)
class TrainingSamples:
    """All instances that are learned from, n in number; plain values that travel to other processes.

    Args:
        videos: how the frames of each video are read.
        video_of: (n,) the position of the sample's video.
        numbers: (n,) the number of its frame.
        keypoints: (n, K, 2) xy in pixels of the frame, NaN where there is none.
        centers: (n, 2) float32 xy of the crop's centre in pixels.
        scales: (n, 2) float32 width and height of the crop in units of 200 pixels, padding included.
        is_pseudo: (n,) whether the keypoints were propagated rather than labelled.
        skeleton: the K keypoints.
        source: in words, which labels these are.
    """

    videos: tuple[VideoFrames, ...]
    video_of: Ints
    numbers: Ints
    keypoints: Floats
    centers: NDArray[np.float32]
    scales: NDArray[np.float32]
    is_pseudo: NDArray[np.bool_]
    skeleton: Skeleton
    source: str = ""

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def n_frames(self) -> int:
        """Number of frames in which there is a sample that is not propagated."""
        real = ~self.is_pseudo
        return len(set(zip(self.video_of[real].tolist(), self.numbers[real].tolist(), strict=True)))

    def take(self, samples: NDArray[np.bool_] | Ints) -> TrainingSamples:
        """Return some of the samples, (n,) booleans or positions; all videos stay."""
        return replace(self, **{name: getattr(self, name)[samples] for name in _PER_SAMPLE})


def join_samples(parts: Sequence[TrainingSamples]) -> TrainingSamples:
    """Return the samples of all parts; what is not of a single sample is the last part's."""
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _PER_SAMPLE}
    return replace(parts[-1], **columns)


def not_empty(samples: TrainingSamples, path: str | os.PathLike[str]) -> TrainingSamples:
    """Return the samples.

    Raises:
        LabelsError: if there are none; ``path`` says where they should be.
    """
    if not len(samples):
        raise LabelsError(
            "there is nothing to learn from",
            path=path,
            expected="at least one labelled instance with a keypoint in the image",
            mend="check the split, the subset and the labels",
        )
    return samples
