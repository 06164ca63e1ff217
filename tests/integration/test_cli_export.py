"""``posewarper export``, and ``info`` on what it has written."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from moving_clip import SKELETON, command

from posewarper.model.checkpoint import parameters_sha256, save_model
from posewarper.model.export import open_model
from posewarper.model.network import ModelSpec, PoseWarper


def write_checkpoint(path: Path, **trained: int) -> PoseWarper:
    torch.manual_seed(0)
    head = {"head_width": 4, "head_blocks": 1, "head_dilations": (1,)}
    model = PoseWarper(ModelSpec("test_resnet", SKELETON, (64, 96), 2.0, **head, trained=trained))
    save_model(path, model)
    return model


def test_a_checkpoint_becomes_onnx_and_says_what_it_is(capsys, tmp_path):
    model = write_checkpoint(tmp_path / "model.pt", pose=1, warp=1)
    out, facts = tmp_path / "results" / "model.onnx", tmp_path / "facts.json"
    code, said, err = command(
        capsys, "export", tmp_path / "model.pt", out, "--quiet", "--device", "cpu", "--seed", 1
    )
    assert (code, err) == (0, "")
    assert f"wrote {out} (" in said and "crops of 64 x 96 to heatmaps of 4 x 16 x 24" in said
    assert f"wrote {out.with_name('model.warper.onnx')} (" in said
    assert said.count("differs from PyTorch by at most ") == 2
    assert sorted(each.name for each in out.parent.iterdir()) == ["model.onnx", "model.warper.onnx"]
    assert parameters_sha256(open_model(out)) == parameters_sha256(model)

    code, said, err = command(capsys, "info", out, "--json", facts)
    assert (code, err) == (0, "")
    assert "left_paw" in said and "crops (batch, 3, 64, 96)" in said
    told = json.loads(facts.read_text())["exported model"]
    assert told["crop_size"] == [64, 96] and told["parameters_sha256"] == parameters_sha256(model)

    code, said, err = command(capsys, "export", tmp_path / "model.pt", out)
    assert (code, said) == (2, "") and "--overwrite" in err
    out.unlink()  # the warper alone is in the way, too
    code, said, err = command(capsys, "export", tmp_path / "model.pt", out)
    assert (code, said) == (2, "") and "model.warper.onnx" in err


def test_an_untrained_head_is_left_out_with_a_word(capsys, tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "model.pt", pose=1)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    code, said, err = command(capsys, "export", tmp_path / "model.pt", tmp_path / "model.onnx")
    assert code == 0 and "export (1) ..." in err
    assert "never trained" in said and "not compared with PyTorch" in said
    assert not (tmp_path / "model.warper.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("export", "model.pt", "model.trt"), "ends in .onnx"),
        (("export", "model.pt", "model.pt2"), "name it model.onnx"),
        (("export", "absent.pt", "model.onnx"), "a checkpoint of posewarper"),
        (("export", "other.onnx", "model.onnx"), "an exported model can only predict"),
        (("info", "other.onnx"), "cannot read this exported model"),
        (("info", "absent.onnx"), "there is no such file"),
        (("info", "other.onnx", "--offsets"), "name a checkpoint"),
        (("info", "other.onnx", "--picture", "a.png"), "no video"),
    ],
)
def test_what_cannot_be_exported_or_shown_is_told(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "model.pt", pose=1)
    Path("other.onnx").write_text("no network")
    code, said, err = command(capsys, *arguments)
    assert (code, said) == (2, "") and message in err and "fix:" in err
    assert sorted(each.name for each in tmp_path.iterdir()) == ["model.pt", "other.onnx"]


def test_onnxruntime_that_is_missing_is_told_with_what_to_install(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (tmp_path / "model.onnx").write_text("anything")
    code, said, err = command(capsys, "info", tmp_path / "model.onnx")
    assert (code, said) == (2, "") and "pip install onnxruntime" in err
