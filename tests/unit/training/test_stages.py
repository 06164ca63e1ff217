"""The two stages: what learns, what stays as it is, and that the seed decides everything."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from posewarper.model.checkpoint import parameters_sha256
from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.options import FitConfig
from posewarper.skeletons import Skeleton
from posewarper.training import own_clip, steps
from posewarper.training.batches import images_to_tensor
from posewarper.training.own_clip import (
    train_pose,
    train_pose_on_propagated,
    train_warper,
)
from posewarper.video.track_crops import Region

SKELETON = Skeleton(("nose", "left_eye", "right_eye"))
CONFIG = FitConfig(
    pose_iterations=2, warp_iterations=2, pose_batch=2, warp_batch=3, sigma=1.5, rotation=10, scale=0.1
)


def a_model(seed: int = 0) -> PoseWarper:
    torch.manual_seed(seed)
    spec = ModelSpec(
        *("hrnet_w18_small", SKELETON, (64, 64), CONFIG.sigma),
        head_width=8,
        head_blocks=1,
        head_dilations=(1, 2),
    )
    return PoseWarper(spec)


def a_region(frame: int, visibility: int = 2) -> Region:
    """A picture with a bright square of its own colour around each keypoint."""
    rng = np.random.default_rng(frame)
    image = rng.integers(0, 60, (96, 96, 3), np.uint8)
    points = rng.uniform((30, 30), (66, 66), (3, 2))
    for channel, (x, y) in enumerate(points.astype(int)):
        image[y - 3 : y + 4, x - 3 : x + 4, channel] = 255
    shown = np.full(3, visibility, np.uint8)
    points[shown == 0] = np.nan
    return Region(frame, 0, np.array([15.5, 15.5, 64, 64]), points, shown, image)


LABELLED = [a_region(0), a_region(5)]
NEARBY = {0: [a_region(1, 0)], 1: [a_region(4, 0), a_region(6, 0)]}


def learn_pose(model: PoseWarper, **more) -> bool:
    return train_pose(model, LABELLED, CONFIG, **{"seed": 0, **more})


def learn_warp(model: PoseWarper, **more) -> bool:
    return train_warper(model, LABELLED, NEARBY, CONFIG, **{"seed": 0, **more})


def changed(model: PoseWarper, before: dict[str, torch.Tensor]) -> set[str]:
    """The parts of the model of which any parameter or buffer has changed."""
    now = model.state_dict()
    return {name.split(".")[0] for name, value in before.items() if not torch.equal(value, now[name])}


def copied(model: PoseWarper) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_pose_training_lowers_the_loss_and_leaves_the_warper_alone(monkeypatch):
    losses, model = [], a_model()
    before, usual = copied(model), steps.heatmap_loss

    def watched(*arguments):
        loss = usual(*arguments)
        losses.append(loss.item())
        return loss

    monkeypatch.setattr(steps, "heatmap_loss", watched)
    config = CONFIG.model_copy(
        update={"pose_iterations": 16, "pose_batch": 4, "pose_learning_rate": 3e-3, "half_body": 0.0}
    )
    assert train_pose(model, LABELLED, config, seed=0) is False
    assert len(losses) == 16
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])
    assert changed(model, before) == {"backbone", "final_layer"}
    assert not model.training
    assert model.spec.trained == {"pose": 16}


def test_propagated_poses_are_learned_beside_labels_that_count_a_third(monkeypatch):
    model, drawn = a_model(), []
    learn_pose(model)
    usual = own_clip.pose_batch

    def draw(regions, *rest):
        drawn.append(regions)
        return usual(regions, *rest)

    monkeypatch.setattr(own_clip, "pose_batch", draw)
    propagated = LABELLED[:1] * (4 * len(LABELLED))
    config = CONFIG.model_copy(update={"pseudo_iterations": 3})
    before = copied(model)
    assert train_pose_on_propagated(model, LABELLED, propagated, config, seed=0) is False
    assert model.spec.trained == {"pose": CONFIG.pose_iterations + 3}
    assert changed(model, before) == {"backbone", "final_layer"} and not model.training
    assert len(drawn) == 3
    assert list(drawn[0]) == [*propagated, *LABELLED, *LABELLED]
    # Without anything propagated there is nothing to do.
    assert train_pose_on_propagated(model, LABELLED, [], config, seed=0) is False
    assert len(drawn) == 3


def test_warp_training_touches_no_parameter_or_buffer_of_the_pose_network():
    model = a_model()
    before = copied(model)
    assert learn_warp(model) is False
    assert changed(model, before) == {"warp_head"}
    assert not any(module.training for module in model.modules())
    assert model.spec.trained == {"warp": 2}
    # Its own batch norms did see batches.
    assert any("running_mean" in n and not torch.equal(b, before[n]) for n, b in model.named_buffers())


@pytest.mark.parametrize("learn", [learn_pose, learn_warp])
def test_the_seed_decides_everything(learn: Callable[..., bool]):
    def weights(seed: int, elsewhere: int) -> str:
        model = a_model()
        torch.manual_seed(elsewhere)
        np.random.seed(elsewhere)
        learn(model, seed=seed)
        return parameters_sha256(model)

    assert weights(1, 5) == weights(1, 6)
    assert weights(1, 5) != weights(2, 5)


@pytest.mark.parametrize(("learn", "stage"), [(learn_pose, "pose"), (learn_warp, "warp")])
def test_ctrl_c_keeps_what_was_learned(learn: Callable[..., bool], stage: str):
    def stop(what: str, done: int, total: int) -> None:
        assert total == 2
        raise KeyboardInterrupt

    model = a_model()
    before = copied(model)
    assert learn(model, progress=stop) is True
    assert model.spec.trained == {stage: 1}
    assert changed(model, before)
    assert not model.training


def test_the_warper_gets_source_target_and_values_in_their_places(monkeypatch):
    model, drawn, moved = a_model(), [], []
    torch.nn.init.normal_(model.final_layer.weight)  # so that heatmaps differ clearly
    usual_batch, usual_warp = own_clip.pair_batch, model.warp

    def draw(*arguments):
        drawn.append(usual_batch(*arguments))
        return drawn[-1]

    def warp(values, *, source, target):
        moved.append((values, source, target))
        return usual_warp(values, source=source, target=target)

    monkeypatch.setattr(own_clip, "pair_batch", draw)
    monkeypatch.setattr(model, "warp", warp)
    config = CONFIG.model_copy(update={"warp_batch": 16, "warp_iterations": 1})
    train_warper(model, LABELLED, NEARBY, config, seed=0)
    batch, (values, source, target) = drawn[0], moved[0]
    with torch.no_grad():
        expected_target, expected_source = (
            model.heatmaps(images_to_tensor(batch["images"][:, n], model.spec.mean, model.spec.std))
            for n in (0, 1)
        )

    def off(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a - b).abs().mean() / b.abs().mean())

    assert off(source, expected_source) < 0.05  # bfloat16 on some machines
    assert off(target, expected_target) < 0.05
    assert off(target, expected_source) > 0.1
    moves = batch["moves_labels"]
    assert 0 < moves.float().mean() < 1
    assert torch.equal(values[moves], batch["labels"][moves])
    assert torch.equal(values[~moves], source[~moves])
