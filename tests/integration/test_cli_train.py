"""``posewarper train``, as a user runs it: what it writes, going on after a kill, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from moving_clip import command
from small_training import prepare_small, small_words

from posewarper.model.checkpoint import load_model

# Drawn by the run itself: seconds rather than a minute.
DRAWN = {"data.made_up.videos": "[2, 1]", "data.made_up.frames": 8, "data.made_up.size": "[48, 64]"}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return prepare_small(tmp_path_factory.mktemp("small"))


def stopped(jobs: list[dict]) -> list[dict]:
    script = str(Path(__file__).with_name("stopped_runs.py"))
    done = subprocess.run(
        [sys.executable, script, json.dumps(jobs)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def sha_of(folder: Path) -> str:
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))["parameters_sha256"]


def test_a_shipped_recipe_by_name_and_what_it_writes(capsys, tmp_path):
    words = small_words(**DRAWN)
    code, said, err = command(capsys, "train", "tiny.yaml", *words, "--out", tmp_path / "run", "--seed", 3)
    assert code == 0, err
    assert "epoch 1/1: loss 0." in said and f"wrote {tmp_path / 'run' / 'model.pt'}; best validation" in said
    assert "training (" in err
    facts = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert facts["ran_on"] in ("cpu", "cuda", "mps") and facts["recipe"]["train"]["seed"] == 3
    assert set(facts["seconds"]) == {"this_part", "total"} and facts["validation"]["best_epoch"] == 1
    code, *_ = command(capsys, "info", tmp_path / "run" / "model.pt", "--json", tmp_path / "info.json")
    told = json.loads((tmp_path / "info.json").read_text(encoding="utf-8"))["checkpoint"]
    assert code == 0 and told["parameters_sha256"] == facts["parameters_sha256"]
    assert told["batch_norm"].startswith("paper: ") and told["trained"]["pose"] > 0
    # The same seed, the same parameters; other clips are drawn anew.
    words = small_words(**DRAWN | {"data.made_up.seed": 1})
    other = command(capsys, "train", "tiny.yaml", *words, "--out", tmp_path / "run", "--overwrite", "--quiet")
    assert (
        other[0] == 0
        and "training (" not in other[2]
        and sha_of(tmp_path / "run") != told["parameters_sha256"]
    )


def test_what_is_refused(capsys, tmp_path, data):
    def refused(*words: object) -> str:
        code, said, err = command(capsys, "train", *words, "--out", tmp_path / "run", "--quiet")
        assert code == 2 and not said and "Traceback" not in err and "fix:" in err
        return err

    small = [*small_words(**{"data.dataset": data, "data.validation": "null"}), "--device", "cpu"]
    assert "did you mean tiny.yaml" in refused("tinny.yaml")
    assert "did you mean train.epochs?" in refused("tiny.yaml", "train.epoch=3")
    assert "key=value" in refused("tiny.yaml", "epochs")
    assert "names nothing to learn from" in refused("posetrack18_pose.yaml")
    assert "names nothing to learn from" in refused("tiny.yaml", "data.made_up=null")
    assert "some/where" in refused("tiny.yaml", "data.dataset=some/where")
    assert "cannot be split evenly" in refused("tiny.yaml", *small, "train.accumulate=3")
    assert "unknown backbone" in refused("tiny.yaml", *small, "model.backbone=hrnet_w18_tiny")
    assert "trained pose network" in refused("tiny.yaml", *small, "train.stage=warper")
    assert "a checkpoint of posewarper" in refused("tiny.yaml", *small, "model.start=nothing.pt")
    assert not any((tmp_path / "run").glob("*.pt"))
    assert command(capsys, "train", "tiny.yaml", *small, "--out", tmp_path / "run")[0] == 0
    before = (tmp_path / "run" / "model.pt").read_bytes()
    assert "--resume" in refused("tiny.yaml", *small)
    assert "train.epochs was 1, is 2" in refused("tiny.yaml", *small, "train.epochs=2", "--resume")
    code, said, _ = command(capsys, "train", "tiny.yaml", *small, "--out", tmp_path / "run", "--resume")
    assert code == 0 and "resuming after 1 of 1 epochs" in said
    assert (tmp_path / "run" / "model.pt").read_bytes() == before


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_parameters(tmp_path):
    changes = DRAWN | {"data.made_up.frames": 20, "train.epochs": 2, "train.checkpoint_steps": 1}
    words = ["train", "tiny.yaml", *small_words(**changes), "--resume", "--device", "cpu"]
    whole = [*words, "--out", str(tmp_path / "whole")]
    parts = [*words, "--out", str(tmp_path / "parts")]
    jobs: list[dict] = [{"words": whole}]
    jobs += [{"words": parts, "signal": "SIGKILL", "after": share} for share in (0.2, 0.45, 0.6)]
    found = stopped([*jobs, {"words": parts}])
    assert [job["code"] for job in (found[0], found[-1])] == [0, 0], found
    assert [job["code"] for job in found[1:-1]].count(-9) >= 2, found
    assert sha_of(tmp_path / "parts") == sha_of(tmp_path / "whole")
    for name in ("model.pt", "checkpoints/best.pt"):
        one, two = (load_model(tmp_path / place / name).spec for place in ("whole", "parts"))
        assert one == two
    files = [
        {str(p.relative_to(tmp_path / n)) for p in (tmp_path / n).rglob("*")} for n in ("whole", "parts")
    ]
    assert not any(".partial" in name for name in files[1])
    assert {n for n in files[0] if "events" not in n} == {n for n in files[1] if "events" not in n}


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_done_and_leaves_no_process(tmp_path, data):
    changes = {"data.dataset": data, "train.epochs": 50, "train.workers": 2, "data.validation": "null"}
    words = ["train", "tiny.yaml", *small_words(**changes), "--out", str(tmp_path / "run"), "--device", "cpu"]
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    (found,) = stopped([{"words": words, "signal": "SIGINT", "when": str(last)}])
    assert found["code"] == 130 and "Traceback" not in found["stderr"]
    assert "of 50 epochs" in found["stderr"] and "--resume resumes there" in found["stderr"]
    assert last.is_file() and not (tmp_path / "run" / "model.pt").exists()
    assert not found["left"]


def test_a_frame_that_cannot_be_read_is_named(capsys, tmp_path):
    data = prepare_small(tmp_path)
    for broken in (tmp_path / "download" / "images" / "train").rglob("000004.jpg"):
        broken.write_bytes(broken.read_bytes()[:20])
    words = small_words(**{"data.dataset": data, "train.workers": 1, "data.validation": "null"})
    code, _, err = command(capsys, "train", "tiny.yaml", *words, "--out", tmp_path / "run", "--quiet")
    assert code == 2 and "000004.jpg" in err and "fix:" in err and "Traceback" not in err
