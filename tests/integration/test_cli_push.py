"""``posewarper push``, and the commands that take a model on what it writes, with and without a network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from moving_clip import N_FRAMES, command, some_labels, write_clip
from test_cli_export import write_checkpoint

from hub_stand_in import TOKEN, serving
from posewarper.formats.labels import write_labels
from posewarper.model.checkpoint import load_model, parameters_sha256, save_model


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    write_clip(tmp_path)
    write_labels(tmp_path / "labels.json", some_labels())
    model = write_checkpoint(tmp_path / "model.pt", pose=1, warp=1)
    with torch.no_grad():  # a network that sees something everywhere
        model.final_layer.weight.normal_(0, 0.05)
        model.final_layer.bias += 0.6
    save_model(tmp_path / "model.pt", model)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def poses_of(folder: str) -> bytes:
    content = Path(folder, "poses.json").read_bytes()
    assert len(json.loads(content)["annotations"]) >= N_FRAMES // 2
    return content


def test_a_folder_is_a_model_for_every_command(capsys, place):
    code, said, err = command(
        capsys, "push", "model.pt", "--to-folder", "mouse", "--licence", "mit", "--quiet", "--device", "cpu"
    )
    assert (code, err) == (0, "")
    assert "model.safetensors: " in said and "--model mouse" in said
    where = ("clip.mp4", "--labels", "labels.json", "--device", "cpu", "--quiet")
    for model, out in (("model.pt", "one"), ("mouse", "two")):
        code, _, err = command(capsys, "predict", *where, "--model", model, "--no-overlay", "--out", out)
        assert (code, err) == (0, "")
        propagated = (*where, "--model", model, "--method", "frame", "--out", f"{out}_propagated")
        assert command(capsys, "propagate", *propagated)[0] == 0
    assert poses_of("one") == poses_of("two")
    assert poses_of("one_propagated") == poses_of("two_propagated")
    facts = [json.loads(Path(out, "run.json").read_text())["inputs"]["model"] for out in ("one", "two")]
    assert facts[1]["path"] == "mouse" and facts[1]["sha256"] not in (None, facts[0]["sha256"])
    # The same once more is done already, also with another card.
    Path("mouse", "README.md").write_text("my words")
    code, _, err = command(capsys, "predict", *where, "--model", "mouse", "--no-overlay", "--out", "two")
    assert code == 2 and "holds results already" in err and "of other settings" not in err

    code, said, _ = command(capsys, "info", "mouse", "--json", "facts.json")
    assert code == 0
    told = json.loads(Path("facts.json").read_text())["checkpoint"]
    assert told["parameters_sha256"] == parameters_sha256(load_model("model.pt"))
    assert command(capsys, "convert", "mouse", "back.pt")[0] == 0
    assert parameters_sha256(load_model("back.pt")) == told["parameters_sha256"]
    assert command(capsys, "push", "mouse", "--to-folder", "again")[0] == 0
    weights = [Path(folder, "model.safetensors").read_bytes() for folder in ("mouse", "again")]
    assert weights[0] == weights[1]


def test_a_dry_run_shows_the_card_and_writes_nothing(capsys, place):
    before = sorted(place.iterdir())
    code, said, err = command(capsys, "push", "model.pt", "hf:ann/mouse", "--dry-run")
    assert (code, err) == (0, "")
    assert "# mouse\n" in said and "--model hf:ann/mouse" in said and "nothing was uploaded" in said
    assert sorted(place.iterdir()) == before


def test_figures_of_this_very_model_come_with_it(capsys, place):
    ours = parameters_sha256(load_model("model.pt"))
    facts = {"validation": {"last": 71.25}, "recipe": {"data": {"clips": [{}]}}}
    for sha256, shown in (("other", False), (ours, True)):
        Path("run.json").write_text(json.dumps({**facts, "parameters_sha256": sha256}))
        _, said, _ = command(capsys, "push", "model.pt", "--dry-run")
        assert ("in percent: 71.25" in said) == shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("model.pt",), "nothing says where"),
        (("model.pt", "ann/mouse"), "no address of a model"),
        (("model.pt", "hf:mouse"), "no address of a model"),
        (("absent.pt", "hf:ann/mouse"), "a checkpoint of posewarper"),
        (("model.pt", "--dry-run", "--to-folder", "there"), "leave one of them out"),
        (("model.pt", "--to-folder", "."), "holds files already"),
        (("clip.mp4", "--dry-run"), "cannot read this file"),
    ],
)
def test_what_cannot_be_pushed_is_told(capsys, place, words, message):
    before = sorted(place.iterdir())
    code, _, err = command(capsys, "push", *words)
    assert code == 2 and message in err and "fix:" in err
    assert sorted(place.iterdir()) == before


def run(commands: list[list[str]], **environment: str) -> subprocess.CompletedProcess[str]:
    # In one process: each command would import torch anew.
    script = str(Path(__file__).with_name("several_commands.py"))
    words = [sys.executable, script, json.dumps(commands)]
    known = {**os.environ, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", **environment}
    return subprocess.run(words, env=known, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_a_model_goes_to_the_hub_and_comes_back_with_and_without_a_network(capsys, place):
    options = ["--labels", "labels.json", "--device", "cpu", "--quiet", "--no-overlay"]
    predict = ["predict", "clip.mp4", *options, "--model"]
    with serving() as hub:
        home = {"HF_ENDPOINT": hub.url, "HF_HOME": str(place / "home")}
        push = ["push", "model.pt", "hf:ann/mouse", "--licence", "mit", "--private"]
        online = run([push, [*predict, "hf:ann/mouse", "--out", "online"]], **home, HF_TOKEN=TOKEN)
        assert online.returncode == 0, online.stderr
        assert "posewarper predict clip.mp4 --model hf:ann/mouse" in online.stdout
        assert hub.private == {"ann/mouse"}
        commit, files = hub.find("ann/mouse", "main")
        assert set(files) == {".gitattributes", "README.md", "model.safetensors", "posewarper.json"}
        assert TOKEN not in str(files)
    asked = len(hub.requests)
    # The server is gone.
    offline = run([[*predict, "hf:ann/mouse", "--out", "offline"]], **home, HF_HUB_OFFLINE="1")
    assert offline.returncode == 0 and offline.stderr == ""
    absent = run([[*predict, "hf:ann/rat", "--out", "absent"]], **home, HF_HUB_OFFLINE="1")
    assert absent.returncode == 2 and "HF_HUB_OFFLINE forbids" in absent.stderr
    assert not Path("absent").exists() and len(hub.requests) == asked
    assert command(capsys, *predict, "model.pt", "--out", "plain")[0] == 0
    assert poses_of("plain") == poses_of("online") == poses_of("offline")
    facts = json.loads(Path("offline", "run.json").read_text())["inputs"]["model"]
    assert (facts["path"], facts["revision"]) == ("hf:ann/mouse", commit)
