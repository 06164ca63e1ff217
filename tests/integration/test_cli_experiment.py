"""``posewarper experiment``: the paper's three experiments on a made-up PoseTrack of a few frames."""

from __future__ import annotations

import json

import pytest
from moving_clip import command
from small_training import prepare_small, small_words

from posewarper.training import engine

CONFIG = "propagation: {videos: 2, labelled_frames: 1}\nsweeps: [[1, 1]]\nchanges:\n"


@pytest.fixture
def config(tmp_path):
    words = small_words(
        **{"train.validate_epochs": 99, "model.sigma": 2, "model.backbone": "hrnet_w18_small"}
    )
    lines = "".join(f"  - {json.dumps(word)}\n" for word in words)
    (tmp_path / "quick.yaml").write_text(CONFIG + lines, encoding="utf-8")
    return tmp_path / "quick.yaml"


@pytest.mark.slow
def test_all_three_and_again(capsys, tmp_path, config, monkeypatch):
    data = prepare_small(tmp_path, n_frames=12)
    words = ["experiment", "posetrack18", "all", "--data", data, "--out", tmp_path / "run"]
    words += ["--config", config, "--device", "cpu"]
    code, said, err = command(capsys, *words)
    assert code == 0, err
    figures = json.loads((tmp_path / "run" / "figures.json").read_text(encoding="utf-8"))
    assert list(figures) == ["propagation", "augmentation", "aggregation"]
    # RAFT is left out where its weights are not to be had, and that is said.
    raft = "optical flow (RAFT)"
    methods = {"per-frame pseudo-labels", "optical flow (DIS)", "PoseWarper"}
    assert set(figures["propagation"]["rows"]) - {raft} == methods
    assert (raft in figures["propagation"]["rows"]) != any(raft in n for n in figures["propagation"]["notes"])
    assert list(figures["augmentation"]["rows"]) == ["V=1 N=1: labels alone", "V=1 N=1: and propagated poses"]
    assert all(row.keys() >= {"head", "total"} for part in figures.values() for row in part["rows"].values())
    published = [line for line in said.splitlines() if line.startswith("  published")]
    assert any(line.endswith("79.7") for line in published) and any(
        line.endswith("79.4") for line in published
    )
    assert max(len(line) for line in said.splitlines() if line[:1] in (" ", "P", "p", "o", "V")) < 80
    stages = ("pose", "warper", "baseline/V2_N1", "PoseWarper/V2_N1", "baseline_wPoseWarperDataAug/V1_N1")
    for stage in stages:
        assert (tmp_path / "run" / stage / "model.pt").is_file()
    # Once more: nothing is trained, and the figures are the same.
    monkeypatch.setattr(engine.Run, "train", lambda self: pytest.fail("trained again"))
    code, again, err = command(capsys, *words)
    assert code == 0, err
    assert again.count(": done") == 7
    assert json.loads((tmp_path / "run" / "figures.json").read_text(encoding="utf-8")) == figures
    code, _, err = command(capsys, *words, "train.epochs=2")
    assert code == 2 and "other settings" in err


def test_what_is_refused(capsys, tmp_path, config):
    data = prepare_small(tmp_path, videos=(1, 1))
    out = ["--data", data, "--out", tmp_path / "run", "--config", config]
    code, _, err = command(capsys, "experiment", "posetrack17", "all", *out)
    assert code == 2 and "another kind" in err
    code, _, err = command(capsys, "experiment", "posetrack18", "aggregation", "train.epoch=3", *out)
    assert code == 2 and "did you mean train.epochs?" in err
    code, _, err = command(capsys, "experiment", "posetrack18", "propagate", *out)
    assert code == 2 and "augmentation" in err
    code, _, err = command(capsys, "experiment", "posetrack18", "propagation", *out)
    assert code == 2 and "videos" in err  # two are asked for, there is one
    assert not list((tmp_path / "run").rglob("*.pt"))
