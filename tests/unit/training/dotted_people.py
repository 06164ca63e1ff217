"""A prepared PoseTrack18 of people who walk and whose keypoints are coloured dots, and networks for it."""

from __future__ import annotations

import colorsys
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from posewarper.posetrack.dataset import Dataset
from posewarper.posetrack.posetrack18 import write_posetrack18
from posewarper.posetrack.preparation import prepare_dataset
from posewarper.structures import InstanceTable

SIZE, N_FRAMES, SPEED = (96, 160), 9, 6
COLOURS = np.array([colorsys.hsv_to_rgb(k / 17, 1, 1) for k in range(17)]) * 255
# A standing person, in shares of its height; the neck lies between the shoulders.
_BODY = [
    *((0.5, 0.1), (0.5, 0.2), (0.5, 0.0), (0.45, 0.08), (0.55, 0.08), (0.62, 0.2), (0.38, 0.2)),
    *((0.72, 0.36), (0.28, 0.36), (0.8, 0.5), (0.2, 0.5), (0.6, 0.52), (0.4, 0.52)),
    *((0.62, 0.75), (0.38, 0.75), (0.63, 1.0), (0.37, 1.0)),
]
_EARS = [3, 4]


def truth_of(split: str, number: int, labelled: tuple[int, ...]) -> InstanceTable:
    """One person, who walks six pixels a frame, to the left in every other video; all frames are listed."""
    forward = number % 2 == 0
    steps = np.array(labelled) if forward else N_FRAMES - 1 - np.array(labelled)
    corner = np.stack([10 + SPEED * steps, np.full(len(steps), 12 + 2 * number)], axis=1)
    keypoints = np.array(_BODY) * 64 + corner[:, None]
    keypoints[:, _EARS] = np.nan
    low, high = np.nanmin(keypoints, axis=1), np.nanmax(keypoints, axis=1)
    stem = f"{number:06}_bonn_train" if split == "train" else f"{number:06}_mpii_test"
    return InstanceTable(
        video=stem,
        frame_names=tuple(f"{split}/{stem}/{n:06}.jpg" for n in range(N_FRAMES)),
        frame_numbers=np.arange(N_FRAMES),
        rows=labelled,
        keypoints=keypoints,
        tracks=[0] * len(labelled),
        boxes=np.concatenate([low - 3, high - low + 6], axis=1),
        head_boxes=np.concatenate([keypoints[:, 2] - (6, 0), np.full((len(labelled), 2), 12.0)], axis=1),
        is_labelled=[n in labelled for n in range(N_FRAMES)],
        n_frames=N_FRAMES,
        image_size=SIZE,
    )


def _draw(table: InstanceTable, row: int) -> np.ndarray:
    image = np.zeros((*SIZE, 3), np.uint8)
    for k in np.flatnonzero(np.isfinite(table.keypoints[row, :, 0])):
        place = tuple(int(v) for v in table.keypoints[row, k].round())
        cv2.circle(image, place, 2, COLOURS[k].tolist(), -1)
    return image


def prepare_dots(folder: Path) -> Dataset:
    """Two videos of train, labelled on all frames, and one of val, labelled on three."""
    download, every = folder / "download", tuple(range(N_FRAMES))
    for split, number, labelled in (("train", 1, every), ("train", 2, every), ("val", 3, (1, 3, 5))):
        everywhere = truth_of(split, number, every)
        for row, name in enumerate(everywhere.frame_names):
            place = download / "images" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            image = cv2.cvtColor(_draw(everywhere, row), cv2.COLOR_RGB2BGR)
            finest = [cv2.IMWRITE_JPEG_QUALITY, 100, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]
            assert cv2.imwrite(str(place), image, finest)
        place = download / "annotations" / split
        place.mkdir(parents=True, exist_ok=True)
        table = truth_of(split, number, labelled)
        write_posetrack18(place / f"{table.video}.json", table)
    return prepare_dataset("posetrack18", download, folder / "data")[0]


def words(dataset: Dataset, stage: str = "pose", **changes: object) -> list[str]:
    """Settings of a run of seconds on the dots, for ``read_recipe("tiny.yaml", ...)``."""
    settings = {
        "data.dataset": dataset.root, "model.crop_size": "[64, 64]", "model.sigma": 1, "model.head_width": 8,
        "model.head_blocks": 1, "model.head_dilations": "[1, 2]", "augmentation.rotation": 0,
        "augmentation.scale": 0.1, "train.stage": stage, "train.targets": "paper", "train.epochs": 2,
        "train.drops": "[]", "train.learning_rate": 1e-2, "train.global_batch": 6, "train.workers": 0,
        "train.validate_epochs": 1,
    }  # fmt: skip
    return [f"{key}={value}" for key, value in (settings | changes).items()]


class Trunk(nn.Module):
    """The smallest backbone that learns, with a batch norm: milliseconds a step."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 5, stride=4, padding=2, bias=False)
        self.bn1 = nn.BatchNorm2d(8)

    def forward(self, crops: torch.Tensor) -> list[torch.Tensor]:
        return [torch.relu(self.bn1(self.conv1(crops)))]


def see_dots(model, crops: torch.Tensor) -> torch.Tensor:
    """Heatmaps (B, 17, h, w) of a network that knows the dots by their colours, and misses none.

    The final layer's bias is added, zero at the start, so that there is something to learn.
    """
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (model.spec.mean, model.spec.std))
    colours = torch.tensor(COLOURS, dtype=torch.float32).view(1, 17, 3, 1, 1)
    match = torch.exp(-((((crops * std + mean) * 255)[:, None] - colours) ** 2).sum(2) / (2 * 35**2))
    match = match * (match > 0.1)
    mass = match.sum((2, 3), keepdim=True)
    height, width = model.spec.heatmap_size

    def gaussians(axis: int, size: int) -> torch.Tensor:
        pixels = torch.arange(4.0 * size)
        shape = (1, 1, -1, 1) if axis == 2 else (1, 1, 1, -1)
        centre = (match * pixels.view(shape)).sum((2, 3), keepdim=True) / mass.clamp(min=1e-6)
        there = (centre - 1.5) / 4  # of a crop's pixel on the heatmap
        return torch.exp(-((torch.arange(float(size)).view(shape) - there) ** 2) / (2 * model.spec.sigma**2))

    seen = gaussians(2, height) * gaussians(3, width) * (mass > 0.5)
    return seen + model.final_layer.bias.view(1, -1, 1, 1)
