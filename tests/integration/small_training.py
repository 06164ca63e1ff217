"""A made-up PoseTrack of a few small frames, and settings of a training on it that takes seconds."""

from __future__ import annotations

from pathlib import Path

from posewarper.demo.posetrack_tree import write_posetrack_tree
from posewarper.posetrack.preparation import prepare_dataset

SMALL = {
    "model.crop_size": "[64, 64]", "model.sigma": "1.5", "model.head_width": "8", "model.head_blocks": "1",
    "model.head_dilations": "[1, 2]", "train.epochs": "1", "train.global_batch": "4", "train.workers": "0",
}  # fmt: skip


def prepare_small(folder: Path, videos: tuple[int, int] = (2, 1), n_frames: int = 8) -> Path:
    """Draw and prepare a dataset of small frames; returns its folder."""
    write_posetrack_tree(
        folder / "download", n_videos=videos, n_frames=n_frames, size=(48, 64), n_people=(1, 2), seed=1
    )
    prepare_dataset("posetrack18", folder / "download", folder / "data")
    return folder / "data"


def small_words(**changes: object) -> list[str]:
    """``key=value`` words of a small training; those given replace the usual ones."""
    return [f"{key}={value}" for key, value in (SMALL | changes).items()]
