"""A network of ViTPose, of next to no size, for every command that takes a model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from moving_clip import HEIGHT, N_FRAMES, WIDTH, command, write_clip

from posewarper.formats.labels import write_labels
from posewarper.model.backbone import VITPOSE
from posewarper.model.checkpoint import load_model
from posewarper.skeletons import COCO
from posewarper.structures import Labels, Track
from vitpose_files import DEPTH, HEADS, write_vitpose
from vitpose_files import WIDTH as CHANNELS


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.setitem(VITPOSE, "vitpose_small", (CHANNELS, DEPTH, HEADS))
    write_clip(tmp_path)
    write_vitpose(tmp_path / "vitpose")
    keypoints = np.random.default_rng(0).uniform((20, 20), (100, 80), (2, 17, 2))
    labels = Labels(
        COCO,
        {0: Track(np.array([4, 12]), keypoints)},
        image_size=(HEIGHT, WIDTH),
        n_frames=N_FRAMES,
        video="clip",
    )
    write_labels(tmp_path / "labels.json", labels)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_predicts_and_propagates_as_it_is(capsys, place):
    where = ("clip.mp4", "--labels", "labels.json", "--device", "cpu", "--quiet", "--model", "vitpose")
    code, said, err = command(capsys, "predict", *where, "--no-overlay", "--out", "poses")
    assert code == 0 and "never trained" in err
    assert len(json.loads(Path("poses", "poses.json").read_text())["annotations"]) >= N_FRAMES // 2
    for method in ("frame", "default"):
        code, _, err = command(capsys, "propagate", *where, "--method", method, "--out", method)
        assert (code, err) == (0, "")
    code, _, err = command(capsys, "propagate", *where, "--learn", "--out", "learned")
    assert code == 2 and "cannot learn further" in err and "train.targets=udp" in err
    code, said, _ = command(capsys, "info", "vitpose")
    assert code == 0 and "vitpose_small" in said and "simple decoder" in said
    assert command(capsys, "push", "vitpose", "--to-folder", "ours", "--quiet")[0] == 0
    assert load_model("ours").fingerprint() == load_model("vitpose").fingerprint()


def test_a_warper_is_trained_on_top_of_it(capsys, place):
    clips = "data.clips=[{video: clip.mp4, labels: labels.json}]"
    network = ("model.backbone=vitpose_small", "model.neck=bilinear", "model.skeleton=coco")
    sizes = (
        "model.crop_size=[256, 192]",
        "model.head_width=4",
        "model.head_blocks=1",
        "model.head_dilations=[1]",
    )
    steps = ("train.epochs=1", "train.min_epoch_steps=1", "train.global_batch=2", "train.workers=0")
    words = ("train", "own_clips_warper.yaml", clips, *network, *sizes, *steps, "model.start=vitpose")
    code, _, err = command(capsys, *words, "--out", "wrong", "--quiet", "--device", "cpu")
    assert code == 2 and "set train.targets=udp" in err
    code, _, err = command(capsys, *words, "train.targets=udp", "--out", "run", "--quiet", "--device", "cpu")
    assert code == 0, err
    begun, trained = load_model("vitpose"), load_model("run/model.pt")
    assert (trained.spec.targets, set(trained.spec.trained)) == ("udp", {"pose", "warp"})
    old, new = begun.state_dict(), trained.state_dict()
    assert all(bool((old[n] == new[n]).all()) for n in old if not n.startswith("warp_head."))
    assert not all(bool((w == 0).all()) for n, w in new.items() if "warp_head.offsets" in n and "weight" in n)
