"""The loss that each stage has to have, on people whose keypoints are dots: what is wrong leaves the band.

The unit is the loss of a network that sees nothing, known from the Gaussians' mass. A network that knows the
dots by their colours has next to no loss where crops, targets, frames and weights belong together.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from dotted_people import N_FRAMES, see_dots, truth_of, words

from posewarper.errors import ConfigError, ModelError
from posewarper.model.checkpoint import load_model, save_model
from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.posetrack.posetrack18 import write_posetrack18
from posewarper.skeletons import POSETRACK
from posewarper.training.recipes import read_recipe
from posewarper.training.run import run_recipe
from posewarper.training.steps import WarperStep

# Half the mean over 17 maps of 16 x 16 pixels, of which 15 hold a Gaussian of sigma 1 (no ears).
BLANK = 0.5 * 15 / 17 * math.pi / 256
STILL = {"train.learning_rate": 1e-9, "train.epochs": 1}
RANDOM_CROPS = {"augmentation.rotation": 40, "augmentation.scale": 0.3}


@pytest.fixture
def knows_dots(monkeypatch, small_trunk):
    monkeypatch.setattr(PoseWarper, "heatmaps", see_dots)


@pytest.fixture
def start(knows_dots, tmp_path):
    """A checkpoint of the network that knows the dots, for the warper."""
    spec = ModelSpec("any", POSETRACK, (64, 64), 1.0, head_width=8, head_blocks=1, head_dilations=(1, 2))
    model = PoseWarper(spec)
    model.record("pose", 1)
    save_model(tmp_path / "pose.pt", model)
    return tmp_path / "pose.pt"


@pytest.fixture
def losses(dots, tmp_path):
    """Run a recipe on the dots; returns the mean loss of each epoch, in units of BLANK."""

    def run(stage: str = "pose", dataset=dots, **changes: object) -> list[float]:
        # Colours do not change sides when a picture is mirrored; exact targets have no rounding.
        own = {"augmentation.flipped": 0, "train.targets": "exact", "data.validation": "null"}
        told: list[str] = []
        recipe = read_recipe("tiny.yaml", words(dataset, stage, **(own | changes)))
        run_recipe(recipe, tmp_path / "run", overwrite=True, tell=told.append)
        lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
        assert all(math.isfinite(line["loss"]) for line in lines)
        return [float(line.split("loss ")[1].split(",")[0]) / BLANK for line in told if "loss" in line]

    return run


def test_pose_crops_and_targets_belong_together(knows_dots, losses):
    assert losses(**STILL)[0] < 0.2
    assert losses(**STILL, **RANDOM_CROPS)[0] < 0.25
    assert 0.1 < losses(**STILL, **{"train.targets": "paper"})[0] < 0.4  # rounded to whole pixels
    # Dots of the other side are as wrong as can be.
    assert losses(**STILL, **{"augmentation.flipped": 1})[0] > 1.2


def test_the_pose_stage_learns_the_dots(small_trunk, losses):
    found = losses(**{"train.epochs": 20, "train.learning_rate": 2e-2}, **RANDOM_CROPS)
    assert found[0] == pytest.approx(1, abs=0.3)
    assert 0.5 < np.mean(found[-3:]) < 0.81  # targets of another sample, or mirrored: 0.86 and more


def test_the_warper_s_loss_is_that_of_the_neighbour_warped_to_the_label(start, losses, monkeypatch):
    own = {"model.start": start, "augmentation.reach": 2}
    before = losses("warper", **own, **STILL)[0]
    assert 0.35 < before < 1.5  # a new head moves nothing
    assert losses("warper", **(own | {"augmentation.reach": 0}), **STILL)[0] < 0.2
    learned = losses("warper", **own, **{"train.epochs": 12, "train.learning_rate": 1e-2})
    assert 0.005 < np.mean(learned[-4:]) < 0.3

    def labelled_frame(self, batch):
        swapped = dict(batch) | {"images": batch["images"].flip(1)}
        return usual(self, swapped)

    usual = WarperStep._warp
    monkeypatch.setattr(WarperStep, "_warp", labelled_frame)
    assert losses("warper", **own, **STILL)[0] < 0.2  # the labelled frame's own maps: outside of the band


def test_the_warper_sees_target_less_source_and_moves_the_source(start):
    torch.manual_seed(1)
    model = PoseWarper(
        ModelSpec("any", POSETRACK, (64, 64), 1.0, head_width=8, head_blocks=1, head_dilations=(1,))
    )
    for offsets in model.warp_head.offsets:
        torch.nn.init.normal_(offsets.weight, std=0.5)
    step = WarperStep(model, "evaluation")
    step.set_mode()
    images = torch.zeros(1, 2, 64, 64, 3, dtype=torch.uint8)
    images[0, 0, 10:15, 10:15, 0] = images[0, 1, 30:35, 22:27, 0] = 255  # the nose: its colour is red
    labelled, neighbour = (see_dots(model, _normalised(model, images[:, n])).detach() for n in (0, 1))
    expected = model.warp(neighbour, source=neighbour, target=labelled)
    found = step.predict({"images": images})
    torch.testing.assert_close(found, expected)
    assert (found - model.warp(labelled, source=labelled, target=neighbour)).abs().max() > 0.1
    assert (found - model.warp(neighbour, source=labelled, target=neighbour)).abs().max() > 1e-3


def _normalised(model, images):
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (model.spec.mean, model.spec.std))
    return (images.permute(0, 3, 1, 2) / 255 - mean) / std


def test_retraining_joins_pseudo_labels_to_their_own_frames(knows_dots, losses, tmp_path):
    every = tuple(range(N_FRAMES))

    def write(shift: int) -> str:
        folder = tmp_path / f"poses{shift}"
        folder.mkdir()
        for number in (1, 2):
            table = truth_of("train", number, every)
            scores = np.full(table.keypoints.shape[:2], 0.9)
            scores[:, 9] = 0.1  # a wrist that is somewhere else, and scores too little to be learned from
            points = np.roll(table.keypoints, shift, axis=0)
            points[:, 9] += (-30, 10)
            write_posetrack18(
                folder / f"{table.video}.json", replace(table, keypoints=points, keypoint_scores=scores)
            )
        return str(folder)

    own = {"data.labelled_frames": 1, "data.subset_seed": 1, **STILL}
    alone = losses(**own)[0]
    joined = losses(**own, **{"data.pseudo_labels": write(0)})[0]
    assert alone < 0.2 and joined < 0.2
    request = torch.load(tmp_path / "run/checkpoints/last.pt", weights_only=True)["recipe"]
    assert request["samples"] == 2 * N_FRAMES
    assert losses(**own, **{"data.pseudo_labels": write(2)})[0] > 0.6


# --- a light head -----------------------------------------------------------------------------------------


@pytest.fixture
def shifting_teacher(start, tmp_path):
    """A checkpoint whose head moves everything far away."""
    model = load_model(start)
    for offsets in model.warp_head.offsets:
        torch.nn.init.constant_(offsets.weight, 1e3)  # type: ignore[arg-type]
    model.record("warp", 1)
    save_model(tmp_path / "teacher.pt", model)
    return tmp_path / "teacher.pt"


def test_a_light_head_learns_from_the_head_of_its_start(losses, shifting_teacher) -> None:
    small = {"model.start": shifting_teacher, "model.head_width": 4, **STILL}
    alone = losses("warper", **small)[0]
    matched = losses("warper", **small, **{"train.match_head": "true"})[0]
    # The new head moves nothing, and what the teacher wants is empty: the loss of having seen the dots.
    assert matched == pytest.approx(alone + 1, abs=0.35)
    learning = {"train.match_head": "true", "train.epochs": 3, "train.learning_rate": 0.02}
    again = losses("warper", **(small | learning))
    assert again[-1] < matched


def test_a_head_to_match_has_to_be_trained(losses, start) -> None:
    with pytest.raises(ModelError, match="no trained warp head"):
        losses("warper", **{"model.start": start, "train.match_head": "true"})
    with pytest.raises(ConfigError, match="match_head belongs to the stage warper"):
        losses("pose", **{"train.match_head": "true"})
