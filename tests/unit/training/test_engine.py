"""The training loop: rate, batches, batch norms, what is trained, and going on exactly where it stopped."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import pytest
import torch
from dotted_people import words

from posewarper.errors import ConfigError, Interrupted, ModelError, OutputError, VideoError
from posewarper.model.checkpoint import load_model, parameters_sha256, save_model
from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.options import TrainSettings
from posewarper.runs import sole_writer
from posewarper.skeletons import Skeleton
from posewarper.training import engine as engine_module
from posewarper.training import run
from posewarper.training.batches import TrainingSet
from posewarper.training.engine import (
    BEST,
    FINAL,
    LAST,
    global_batch,
    learning_rate,
    load_state,
    make_accelerator,
)
from posewarper.training.recipes import read_recipe
from posewarper.training.run import run_recipe

NORMS = ("running_mean", "running_var", "num_batches_tracked")


def settings(**values) -> TrainSettings:
    return TrainSettings(**({"global_batch": 8} | values))


# --- schedule and batches ---------------------------------------------------------------------------------


def test_the_rate_falls_an_epoch_early_as_in_the_original():
    paper = settings(epochs=20, drops=(10, 15), learning_rate=1e-4)
    rates = [learning_rate(paper, epoch) for epoch in range(20)]
    assert rates == pytest.approx([1e-4] * 9 + [1e-5] * 5 + [1e-6] * 6)
    late = settings(epochs=20, drops=(10, 15), learning_rate=1e-4, early_drops=False)
    assert [learning_rate(late, epoch) for epoch in range(20)] == pytest.approx(
        [1e-4] * 10 + [1e-5] * 5 + [1e-6] * 5
    )
    assert learning_rate(settings(drops=()), 99) == 1e-4


@pytest.mark.parametrize(
    ("values", "world", "expected"),
    [
        ({"global_batch": None, "batch_per_device": 8}, 8, 64),
        ({"global_batch": None, "batch_per_device": 8, "accumulate": 2}, 4, 64),
        ({"global_batch": 24}, 1, 24),
        ({"global_batch": 24, "accumulate": 3}, 4, 24),
    ],
)
def test_the_global_batch_is_that_of_all_processes(values, world, expected):
    assert global_batch(settings(**values), world) == expected


def test_a_global_batch_that_cannot_be_split_is_explained():
    with pytest.raises(ConfigError, match="multiple of 4 processes x 2") as caught:
        global_batch(settings(global_batch=12, accumulate=2), 4)
    assert "12" in str(caught.value)


def test_a_device_that_is_not_there_is_said_before_the_training():
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="does not have the device"):
            make_accelerator("cuda")
    assert make_accelerator("cpu").device.type == "cpu"


# --- runs -------------------------------------------------------------------------------------------------


@pytest.fixture
def train(dots, tmp_path, small_trunk):
    """Run tiny.yaml on the dots with the smallest network; options of run_recipe come as ``_name``."""

    def train(stage: str = "pose", out: str | Path = "run", **changes):
        options = {name[1:]: changes.pop(name) for name in list(changes) if name.startswith("_")}
        recipe = read_recipe("tiny.yaml", words(dots, stage, **changes))
        return run_recipe(recipe, tmp_path / out, device="cpu", **options)

    return train


@pytest.fixture
def pose(train, tmp_path) -> Path:
    """A pose network that the warper may start from."""
    train(out="pose", **{"train.epochs": 1})
    return tmp_path / "pose" / FINAL


def changed(before, after) -> set[str]:
    old, new = before.state_dict(), after.state_dict()
    return {name for name in old if not torch.equal(old[name], new[name])}


def lines_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_run_leaves_what_it_promises(train, tmp_path):
    told, steps = [], []
    result = train(**{"_tell": told.append, "_progress": lambda *what: steps.append(what)})
    folder = tmp_path / "run"
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {FINAL, BEST, LAST, "log.jsonl", "recipe.yaml"} <= found
    assert any(name.startswith("tensorboard/events") for name in found)
    assert not any(".partial" in name for name in found)
    # The end of the training, and what was best by validation.
    final, best = load_model(folder / FINAL), load_model(folder / BEST)
    assert parameters_sha256(final) == parameters_sha256(result.model)
    assert final.spec.trained == {"pose": 6} and result.best_epoch in (1, 2)
    assert best.spec.trained == {"pose": 3 * result.best_epoch} and result.best >= (result.figure or 0)
    # Both told, both logged.
    assert [line.split(":")[0] for line in told] == ["epoch 1/2", "epoch 2/2"] and "left" in told[0]
    assert [done for _, done, _ in steps] == [1, 2, 3, 4, 5, 6] and steps[0][2] == 6
    assert "samples/s" in steps[0][0] and steps[0][0].startswith("training\tloss ")
    lines = lines_of(folder)
    assert [line["step"] for line in lines] == [3, 3, 6, 6]
    assert lines[1]["validation"] >= 0 and lines[0]["learning_rate"] == 1e-2
    # The recipe that lies beside the model is the one that was run.
    assert read_recipe(folder / "recipe.yaml").train.epochs == 2


def test_accumulated_batches_are_one_batch(train, pose):
    for stage, start in (("pose", {}), ("warper", {"model.start": pose})):
        own = {"train.batch_norm": "evaluation", "train.epochs": 1, "data.validation": "null", **start}
        whole = train(stage, "whole" + stage, **own).model.state_dict()
        halves = train(stage, "halves" + stage, **own, **{"train.accumulate": 2}).model.state_dict()
        for name, value in whole.items():
            torch.testing.assert_close(halves[name], value, rtol=0, atol=1e-6)
        # With batch statistics they are not: each half is normalised by itself.
        own["train.batch_norm"] = "paper"
        whole = train(stage, "all" + stage, **own).model.state_dict()
        halves = train(stage, "parts" + stage, **own, **{"train.accumulate": 2}).model.state_dict()
        assert max((halves[n] - v).abs().max() for n, v in whole.items() if v.is_floating_point()) > 1e-4


def test_the_pose_stage_trains_all_but_the_warp_head(train, pose):
    before = load_model(pose)
    own = {"model.start": pose, "data.validation": "null"}
    after = train(**own).model
    assert changed(before, after) == {n for n in before.state_dict() if not n.startswith("warp_head.")}
    after = train(out="still", **own, **{"train.batch_norm": "evaluation"}).model
    moved = changed(before, after)
    assert moved == {n for n, _ in before.named_parameters() if not n.startswith("warp_head.")}


@pytest.mark.parametrize("batch_norm", ["paper", "frozen_backbone", "evaluation"])
def test_what_the_warper_stage_changes(train, pose, batch_norm):
    before = load_model(pose)
    own = {"model.start": pose, "data.validation": "null", "train.batch_norm": batch_norm}
    after = train("warper", **own).model
    moved = changed(before, after)
    head = {name for name in before.state_dict() if name.startswith("warp_head.")}
    statistics = {n for n in before.state_dict() if n.rsplit(".")[-1] in NORMS}
    expected = {
        "paper": head | statistics,  # the frozen backbone's too
        "frozen_backbone": head,
        "evaluation": head - statistics,
    }[batch_norm]
    assert moved == expected
    assert not any(p.grad is not None for n, p in after.named_parameters() if n not in head)
    # Said in the checkpoint, with the frames that a batch norm sees: both of every pair.
    assert (
        after.spec.batch_norm.startswith(f"{batch_norm}: ") and "12 crops a device" in after.spec.batch_norm
    )
    assert after.spec.trained == {"pose": 3, "warp": 6}


def test_the_checkpoint_says_how_it_was_made(train, tmp_path):
    own = {"train.accumulate": 2, "train.epochs": 1, "data.validation": "null"}
    train(**own)
    spec = load_model(tmp_path / "run" / FINAL).spec
    assert spec.batch_norm.startswith("paper: batch statistics") and "3 crops a device" in spec.batch_norm
    assert (spec.provenance["processes"], spec.provenance["global_batch"]) == (1, 6)
    assert spec.provenance["recipe"]["train"]["accumulate"] == 2


def test_the_warper_needs_a_trained_pose_network(train, tmp_path):
    with pytest.raises(ModelError, match="trained pose network"):
        train("warper")
    assert not (tmp_path / "run" / FINAL).exists()


def test_the_warper_begins_with_offsets_of_zero_also_from_a_warper(train, pose, tmp_path):
    model = load_model(pose)
    torch.nn.init.ones_(model.warp_head.offsets[1].weight)
    torch.nn.init.ones_(model.warp_head.residual_stack[0].conv2.weight)
    model.record("warp", 9)
    save_model(tmp_path / "warper.pt", model)
    own = {"model.start": tmp_path / "warper.pt", "train.learning_rate": 1e-9, "data.validation": "null"}
    begun = train("warper", **own).model
    assert all(offsets.weight.abs().max() < 1e-6 for offsets in begun.warp_head.offsets)
    # The rest of its head is taken over, and so is the pose network.
    assert begun.warp_head.residual_stack[0].conv2.weight.min() > 0.99
    torch.testing.assert_close(begun.final_layer.weight, model.final_layer.weight)


def test_a_start_of_another_network_is_refused(train, tmp_path):
    save_model(tmp_path / "other.pt", PoseWarper(ModelSpec("any", Skeleton(("nose", "tail")), (64, 64), 1.0)))
    with pytest.raises(ModelError, match="another network") as caught:
        train(**{"model.start": tmp_path / "other.pt"})
    assert "with 17 keypoints" in str(caught.value) and "with 2 keypoints" in str(caught.value)


def test_bfloat16_trains_and_may_follow_float32(train, pose):
    own = {"train.precision": "bfloat16", "train.epochs": 1, "data.validation": "null"}
    exact = train("warper", "exact", **(own | {"model.start": pose, "train.precision": "float32"})).model
    for stage, start in (("pose", {}), ("warper", {"model.start": pose})):
        rough = train(stage, "rough" + stage, **own, **start).model
        assert all(v.dtype == torch.float32 for v in rough.state_dict().values() if v.is_floating_point())
    assert changed(exact, rough)


def test_debug_pictures_change_nothing(train, tmp_path):
    plain = train(out="plain").model
    drawn = train(out="drawn", _debug_images=2).model
    assert parameters_sha256(plain) == parameters_sha256(drawn)
    pictures = sorted(path.name for path in (tmp_path / "drawn" / "debug").iterdir())
    assert pictures == [f"epoch{e:03}_step{s:05}.png" for e in (1, 2) for s in (0, 1)]
    assert not (tmp_path / "plain" / "debug").exists()


# --- stopped, and gone on ---------------------------------------------------------------------------------


@pytest.fixture
def stop_after(monkeypatch):
    """Let the training be stopped after so many steps, as by Ctrl-C."""
    usual = engine_module.Run._learn

    def stop_after(steps: int | None) -> None:
        left = [steps]

        def learn(self, batches):
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] = None if left[0] is None else left[0] - 1
            return usual(self, batches)

        monkeypatch.setattr(engine_module.Run, "_learn", learn)

    return stop_after


@pytest.mark.parametrize("stage", ["pose", "warper"])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(train, pose, stop_after, tmp_path, stage):
    own = {"train.epochs": 3, "train.checkpoint_steps": 2, "train.drops": "[2]", "train.global_batch": 4}
    own |= {"model.start": pose} if stage == "warper" else {}
    whole = train(stage, "whole", **own)
    for steps in (0, 3, 4):  # of 15: within the first epoch, within the second, within the third
        stop_after(steps)
        with pytest.raises(Interrupted) as caught:
            train(stage, "parts", **own, _resume=True)
        assert "--resume resumes there" in caught.value.kept
    kept, _ = load_state(tmp_path / "parts" / LAST)
    assert caught.value.kept.startswith(f"{kept.epoch} of 3 epochs and {kept.step} steps are kept")
    assert (kept.epoch, kept.step) == (1, 0)
    stop_after(None)
    told = []
    parts = train(stage, "parts", **own, _resume=True, _tell=told.append)
    assert told[0] == "resuming after 1 of 3 epochs and 0 steps"
    assert parameters_sha256(parts.model) == parameters_sha256(whole.model)
    assert (parts.best, parts.best_epoch, parts.figure) == (whole.best, whole.best_epoch, whole.figure)
    for name in (FINAL, BEST):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    # Of three epochs the drop after the second takes effect an epoch early.
    rates = {line["epoch"]: line["learning_rate"] for line in lines_of(tmp_path / "whole") if "loss" in line}
    assert list(rates.values()) == pytest.approx([1e-2, 1e-3, 1e-3])
    # The journal of both says the same, times apart: what was done twice stands there once.
    logs = [
        [{**line, "samples_per_second": 0} for line in lines_of(tmp_path / n)] for n in ("parts", "whole")
    ]
    assert logs[0] == logs[1]


def test_lines_of_lost_work_are_taken_back(train, stop_after, tmp_path, monkeypatch):
    monkeypatch.setattr(engine_module, "_LOG_STEPS", 1)
    stop_after(5)
    with pytest.raises(Interrupted):
        train(**{"train.checkpoint_steps": 100})
    log = tmp_path / "run" / "log.jsonl"
    assert [line["step"] for line in lines_of(tmp_path / "run")] == [1, 2, 3, 3, 4, 5]
    log.write_text(log.read_text(encoding="utf-8") + '{"step": 6, "ep', encoding="utf-8")
    stop_after(1)
    with pytest.raises(Interrupted):
        train(**{"train.checkpoint_steps": 100}, _resume=True)
    assert [line["step"] for line in lines_of(tmp_path / "run")] == [1, 2, 3, 3, 4]


def test_a_finished_run_rests(train, tmp_path):
    first = train()
    before = (tmp_path / "run" / FINAL).read_bytes()
    steps = []
    again = train(_resume=True, _progress=lambda *what: steps.append(what))
    assert not steps and (tmp_path / "run" / FINAL).read_bytes() == before
    assert (again.figure, again.best, again.best_epoch) == (first.figure, first.best, first.best_epoch)


def test_another_recipe_does_not_go_on(train, tmp_path, monkeypatch):
    train(**{"train.epochs": 1})
    kept = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(OutputError, match=r"train.learning_rate was 0.01, is 0.02") as caught:
        train(**{"train.learning_rate": 0.02, "train.epochs": 1}, _resume=True)
    assert "other settings" in str(caught.value)
    usual = run.samples_of_dataset
    monkeypatch.setattr(
        run, "samples_of_dataset", lambda *a, **b: (found := usual(*a, **b)).take(found.video_of == 0)
    )
    with pytest.raises(OutputError, match="samples was 18, is 9"):
        train(**{"train.epochs": 1}, _resume=True)
    monkeypatch.setattr(run, "samples_of_dataset", usual)
    assert {path: path.read_bytes() for path in kept} == kept  # among them recipe.yaml
    # What does not change the result may change.
    train(**{"train.epochs": 1, "train.workers": 1, "train.checkpoint_steps": 1}, _resume=True)


def test_a_run_is_not_overwritten_unasked(train, tmp_path):
    first = train(**{"train.epochs": 1}, _debug_images=1)
    with pytest.raises(OutputError, match="--resume"):
        train(**{"train.epochs": 1})
    # Bad input loses nothing either.
    with pytest.raises(ModelError):
        train("warper", _overwrite=True)
    assert (tmp_path / "run" / FINAL).is_file() and (tmp_path / "run" / "debug").is_dir()
    partial = tmp_path / "run" / "checkpoints" / ".last.1.partial.pt"
    partial.touch()
    again = train(**{"train.epochs": 1, "train.seed": 1}, _overwrite=True)
    assert parameters_sha256(again.model) != parameters_sha256(first.model)
    assert not partial.exists() and not list((tmp_path / "run" / "debug").iterdir())
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 1
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="not a folder"):
        train(out="file")


def test_two_processes_do_not_train_into_one_folder(train, tmp_path):
    with sole_writer(tmp_path / "run"):
        with pytest.raises(OutputError, match="another run is writing here"):
            train(_overwrite=True)
        assert os.listdir(tmp_path / "run") == [".lock"]


@pytest.mark.parametrize("known", [True, False])
def test_a_run_of_an_older_version_goes_on(train, stop_after, tmp_path, known):
    whole = train(out="whole")
    stop_after(4)
    with pytest.raises(Interrupted):
        train()
    stop_after(None)
    (tmp_path / "run" / "request.json").unlink()  # older versions wrote none
    if known:
        assert parameters_sha256(train(_resume=True).model) == parameters_sha256(whole.model)
    else:
        with pytest.raises(OutputError, match=r"train.learning_rate was 0.01, is 0.02"):
            train(**{"train.learning_rate": 0.02}, _resume=True)


def test_ctrl_c_before_the_first_step_says_how_to_go_on(train, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "build_data", stop)
    with pytest.raises(Interrupted, match="--resume resumes there"):
        train()


# --- workers ----------------------------------------------------------------------------------------------


def test_workers_change_nothing_and_end_with_the_run(train):
    own = {"data.validation": "null"}
    alone = train(out="alone", **own).model
    helped = train(out="helped", **own, **{"train.workers": 2}).model
    assert parameters_sha256(alone) == parameters_sha256(helped)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_a_worker_keeps_its_kind_and_leaves_no_process(train, monkeypatch, workers):
    usual = TrainingSet.__getitem__

    def broken(self, key):
        if key[1] == 7:
            raise VideoError("cannot read this frame", path="some/frame.jpg", got="nothing", fix="look")
        return usual(self, key)

    monkeypatch.setattr(TrainingSet, "__getitem__", broken)
    with pytest.raises(VideoError) as caught:
        train(**{"train.workers": workers})
    assert str(caught.value).splitlines()[0] == "some/frame.jpg: cannot read this frame"
    assert "got:      nothing" in str(caught.value) and "Traceback" not in str(caught.value)
    assert not multiprocessing.active_children()


def test_a_state_that_is_none_is_refused(tmp_path):
    (tmp_path / "last.pt").write_bytes(b"no state")
    with pytest.raises(ModelError, match="training state"):
        load_state(tmp_path / "last.pt")
    torch.save({"format": "something else"}, tmp_path / "last.pt")
    with pytest.raises(ModelError, match="no training state"):
        load_state(tmp_path / "last.pt")


def test_a_backbone_starts_from_weights_of_its_own(train, pose, monkeypatch):
    asked = []

    class Weights:
        source, sha256 = "hf:timm/some.weights", "abc"
        mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)

        def load_into(self, backbone):
            with torch.no_grad():
                for parameter in backbone.parameters():
                    parameter.fill_(0.25)

    def read(network):
        asked.append((network.backbone, network.backbone_weights, network.crop_size, network.neck))
        return Weights()

    monkeypatch.setattr(run, "read_backbone_weights", read)
    own = {"model.backbone_weights": Weights.source, "train.learning_rate": 1e-9, "data.validation": "null"}
    begun = train(**own).model
    spec = load_model(pose).spec
    assert asked == [(spec.backbone, Weights.source, spec.crop_size, "upsampling")]
    assert all((p - 0.25).abs().max() < 1e-6 for p in begun.backbone.parameters())
    assert (begun.spec.mean, begun.spec.std) == (Weights.mean, Weights.std)
    assert begun.spec.provenance["backbone_weights"] == {"source": Weights.source, "sha256": "abc"}
    with pytest.raises(ConfigError, match="not from both"):
        train(out="both", **own, **{"model.start": pose})
