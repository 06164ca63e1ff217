"""Stages of the experiments: the original's weights read in place, what is done skipped, the rest trained."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from posewarper import experiments as workshop_module
from posewarper.errors import ConfigError, ModelError, OutputError
from posewarper.experiments import Workshop
from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.skeletons import POSETRACK
from posewarper.training.recipes import read_experiment


@pytest.fixture
def trained(monkeypatch):
    """Trainings, noted instead of made: (recipe, folder)."""
    found = []

    def note(recipe, folder, **options):
        assert options["resume"]
        found.append((recipe, folder))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")), encoding="utf-8")
        (folder / "model.pt").touch()

    monkeypatch.setattr(workshop_module, "run_recipe", note)
    return found


def make(tmp_path: Path, words: tuple[str, ...] = (), **options) -> Workshop:
    dataset = SimpleNamespace(root=tmp_path / "data", kind=options.pop("kind", "posetrack17"))
    settings = read_experiment("posetrack_experiments.yaml", words)
    return Workshop(dataset, tmp_path / "out", settings, **options)  # type: ignore[arg-type]


def write_original(path: Path) -> Path:
    """A pose network as the original's scripts leave it: HRNet-W32, with the names of its code."""
    with torch.device("meta"):
        model = PoseWarper(ModelSpec("hrnet_w32", POSETRACK, (384, 288), 3.0))
    state = {
        f"module.{name.removeprefix('backbone.')}": torch.zeros((), dtype=value.dtype).expand(value.shape)
        for name, value in model.state_dict().items()
        if not name.startswith("warp_head.")
    }
    state["module.final_layer.bias"] = torch.arange(17.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)
    return path


def test_weights_of_the_original_are_read_in_place(tmp_path, trained):
    original = tmp_path / "posetrack17_experiments"
    path = write_original(original / "baseline" / "V2_N1" / "a" / "b" / "final_state.pth")
    told = []
    workshop = make(tmp_path, original=original, tell=told.append)
    assert workshop.weights("sparse_pose", subset=(2, 1)) == path and not trained
    assert str(path) in told[0] and not (tmp_path / "out").exists()
    model = workshop.model(path)
    assert model.spec.backbone == "hrnet_w32" and model.final_layer.bias[16] == 16
    # The folder of each stage, and of each V and N; what is not there is trained, starting from what is.
    warper = workshop.weights("sparse_warper", subset=(2, 1), start=path)
    assert warper == tmp_path / "out" / "PoseWarper" / "V2_N1" / "model.pt"
    assert workshop.weights("sparse_pose", subset=(2, 2)).parent.name == "V2_N2"
    assert [recipe.model.start for recipe, _ in trained] == [str(path), None]
    for stage, folder in (("sparse_warper", "PoseWarper"), ("retraining", "baseline_wPoseWarperDataAug")):
        other = original / folder / "V7_N1" / "last.pth"
        other.parent.mkdir(parents=True)
        other.touch()
        assert workshop.weights(stage, subset=(7, 1)) == other
    assert len(trained) == 2


def test_of_several_checkpoints_the_final_one_counts(tmp_path, trained):
    folder = tmp_path / "original" / "baseline" / "V2_N1"
    folder.mkdir(parents=True)
    for name in ("checkpoint.pth", "model_best.pth"):
        (folder / name).touch()
    workshop = make(tmp_path, original=tmp_path / "original")
    with pytest.raises(OutputError, match="several checkpoints"):
        workshop.weights("sparse_pose", subset=(2, 1))
    (folder / "final_state.pth").touch()
    assert workshop.weights("sparse_pose", subset=(2, 1)) == folder / "final_state.pth" and not trained


def test_stages_get_the_recipe_of_their_own(tmp_path, trained):
    workshop = make(tmp_path, ("train.epochs=2",), start=tmp_path / "coco.pth")
    poses = tmp_path / "poses"
    workshop.weights("pose")
    workshop.weights("warper", start=tmp_path / "pose.pt")
    workshop.weights("sparse_pose", subset=(50, 4))
    workshop.weights("retraining", subset=(50, 4), pseudo_labels=poses)
    recipes = [recipe for recipe, _ in trained]
    assert [str(folder.relative_to(tmp_path / "out")) for _, folder in trained] == [
        *("pose", "warper", "baseline/V50_N4", "baseline_wPoseWarperDataAug/V50_N4")
    ]
    assert [r.train.stage for r in recipes] == ["pose", "warper", "pose", "pose"]
    assert [r.train.batch_per_device for r in recipes] == [16, 8, 8, 16]
    assert all(r.train.epochs == 2 and r.data.dataset == str(tmp_path / "data") for r in recipes)
    starts = [Path(r.model.start).name for r in recipes]
    assert starts == ["coco.pth", "pose.pt", "coco.pth", "coco.pth"]
    subsets = [(r.data.videos, r.data.labelled_frames) for r in recipes]
    assert subsets == [(None, None), (None, None), (50, 4), (50, 4)]
    assert [r.data.pseudo_labels for r in recipes] == [None, None, None, str(poses)]
    # PoseTrack17 and 18 differ in their epochs; 21 has 18's videos.
    for kind, epochs in (("posetrack17", 3), ("posetrack18", 10), ("posetrack21", 10)):
        make(tmp_path / kind, kind=kind).weights("pose")
        assert trained[-1][0].train.epochs == epochs


def test_what_is_done_is_skipped_unless_it_was_another(tmp_path, trained):
    told = []
    first = make(tmp_path).weights("sparse_pose", subset=(2, 1))
    again = make(tmp_path, tell=told.append).weights("sparse_pose", subset=(2, 1))
    assert first == again and len(trained) == 1 and told == ["sparse_pose V2_N1: done"]
    with pytest.raises(OutputError, match="other settings"):
        make(tmp_path, ("train.epochs=1",)).weights("sparse_pose", subset=(2, 1))
    with pytest.raises(OutputError, match="other settings"):
        make(tmp_path, start=tmp_path / "coco.pth").weights("sparse_pose", subset=(2, 1))


def test_settings_of_every_stage_are_looked_at_first(tmp_path):
    make(tmp_path).check_recipes()
    with pytest.raises(ConfigError, match=r"did you mean train\.epochs"):
        make(tmp_path, ("train.epoch=3",)).check_recipes()


def test_many_processes_are_started_by_torchrun(tmp_path, monkeypatch, trained):
    started = []

    class Processes:
        def __init__(self, command, env):
            started.append((command, env))
            self.ended = False

        def __enter__(self):
            return self

        def __exit__(self, *what):
            return None

        def wait(self):
            if len(started) == 3 and not self.ended:
                raise KeyboardInterrupt
            (tmp_path / "out" / "pose" / "model.pt").touch()
            return 1 if len(started) == 1 else 0

        def terminate(self):
            self.ended = True
            ended.append(self)

    ended = []
    monkeypatch.setattr(workshop_module.subprocess, "Popen", Processes)
    workshop = make(tmp_path, processes=4, device="cpu")
    with pytest.raises(ModelError, match="ended early"):
        workshop.weights("pose")
    (tmp_path / "out" / "pose" / "model.pt").unlink()
    assert workshop.weights("pose").is_file() and not trained
    command, environment = started[-1]
    assert command[command.index("--nproc-per-node") + 1] == "4" and command[-1] == "cpu"
    assert environment["ACCELERATE_USE_CPU"] == "true" and "--resume" in command
    asked = yaml.safe_load(Path(command[command.index("train") + 1]).read_text(encoding="utf-8"))
    assert asked["train"]["epochs"] == 3 and asked["data"]["dataset"] == str(tmp_path / "data")
    # On Ctrl-C torchrun is told to end its processes, and given the time.
    (tmp_path / "out" / "pose" / "model.pt").unlink()
    with pytest.raises(KeyboardInterrupt):
        workshop.weights("pose")
    assert len(ended) == 1
