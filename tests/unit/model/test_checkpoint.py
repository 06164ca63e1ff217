"""Checkpoints: they come back as they were, and what is no checkpoint is refused without running it."""

from __future__ import annotations

import errno
import os
import pickle
import random
from pathlib import Path

import pytest
import torch

from posewarper import __version__
from posewarper.errors import ModelError, OutputError
from posewarper.model.checkpoint import describe_checkpoint, load_model, parameters_sha256, save_model
from posewarper.model.network import ModelSpec, PoseWarper, count_parameters
from posewarper.skeletons import Skeleton

SKELETON = Skeleton(("nose", "left_eye", "right_eye"), ((0, 1),), name="fly")


def a_model(seed: int = 0) -> PoseWarper:
    torch.manual_seed(seed)
    spec = ModelSpec(
        *("hrnet_w18_small", SKELETON, (64, 96), 1.5),
        head_width=8,
        head_blocks=1,
        head_dilations=(1, 2),
        trained={"pose": 3},
        provenance={"seed": 4, "config": {"flip": 0.5, "none": None}},
    )
    return PoseWarper(spec)


@pytest.fixture(scope="module")
def model() -> PoseWarper:
    return a_model()


@pytest.fixture(scope="module")
def content(model: PoseWarper, tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("checkpoint") / "model.pt"
    save_model(path, model)
    return path.read_bytes()


@pytest.fixture
def saved(content: bytes, tmp_path) -> Path:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    return path


def test_a_model_comes_back_as_it_was(model, saved):
    back = load_model(saved)
    assert back.spec == model.spec
    state = back.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(module.training for module in back.modules())
    assert parameters_sha256(back) == parameters_sha256(model)


def test_equal_models_make_equal_files(model, content, tmp_path):
    save_model(tmp_path / "deep" / "other_name.pt", model)
    assert (tmp_path / "deep" / "other_name.pt").read_bytes() == content


def test_the_hash_tells_weights_and_buffers_apart_and_nothing_else(model):
    first = parameters_sha256(model)
    other = a_model()
    assert parameters_sha256(other) == first
    other = other.to(memory_format=torch.channels_last).eval()
    other.record("warp", 9)
    assert parameters_sha256(other) == first
    with torch.no_grad():
        other.final_layer.bias[1] += 1e-6
    assert parameters_sha256(other) != first
    buffers = a_model()
    next(buffers.buffers())[0] += 1
    assert parameters_sha256(buffers) != first
    assert parameters_sha256(a_model(1)) != first


def test_a_checkpoint_describes_itself(model, saved):
    described = describe_checkpoint(saved)
    assert described["version"] == __version__
    assert described["backbone"] == "hrnet_w18_small"
    assert described["keypoints"] == ("nose", "left_eye", "right_eye")
    assert described["heatmap_size"] == (16, 24)
    assert described["parameters"] == count_parameters(model)
    assert described["parameters_sha256"] == parameters_sha256(model)
    assert described["trained"] == {"pose": 3}


def refused(path: Path, message: str) -> None:
    for read in (load_model, describe_checkpoint):
        with pytest.raises(ModelError, match=message) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert caught.value.fix


def test_what_is_missing_or_no_checkpoint_is_refused(tmp_path):
    refused(tmp_path / "none.pt", r"no such file[\s\S]*a checkpoint of posewarper")
    refused(tmp_path, "this folder holds no model")
    foreign = tmp_path / "foreign.pt"
    for made in (b"", b"text\n", b"\x80\x02.", b"PK\x03\x04 not a zip", b"\x00" * 100):
        foreign.write_bytes(made)
        refused(foreign, "cannot read")
    for value in (torch.zeros(3), {"state_dict": {}}, {"format": "another"}, [1, 2]):
        torch.save(value, foreign)
        refused(foreign, r"not (hold )?a checkpoint of posewarper")


def test_noise_is_refused(tmp_path):
    # Short noise is sometimes a valid beginning of a pickle, which fails in many ways.
    chance = random.Random(0)
    for n in range(150):
        (tmp_path / "noise.pt").write_bytes(chance.randbytes(1 + n))
        with pytest.raises(ModelError):
            load_model(tmp_path / "noise.pt")


def test_damage_is_refused(saved, content):
    for end in (10, len(content) // 2, len(content) - 1):
        saved.write_bytes(content[:end])
        refused(saved, "cannot read")
    # One flipped bit among the weights, which torch itself would load.
    middle = len(content) // 2
    saved.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    refused(saved, "check sum")


class Malicious:
    """Unpickled it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_code_in_a_file_is_refused_and_does_not_run(tmp_path):
    marker, path = tmp_path / "marker", tmp_path / "model.pt"
    bad = {"format": "posewarper model", "spec": Malicious(marker), "state": {}}
    path.write_bytes(pickle.dumps(bad, protocol=2))
    refused(path, "cannot read")
    for zipped in (True, False):
        torch.save(bad, path, _use_new_zipfile_serialization=zipped)
        refused(path, "cannot read")
    assert not marker.exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["state"].pop("final_layer.bias"),
        lambda c: c["state"].update(extra=torch.zeros(1)),
        lambda c: c["state"].update({"final_layer.bias": torch.zeros(4)}),
        lambda c: c["spec"].pop("skeleton"),
        lambda c: c["spec"].update(skeleton={"names": ("a", "b")}),
        lambda c: c["spec"].update(skeleton={"names": ("a", "b", "a")}),
        lambda c: c["spec"].update(backbone="resnet50"),
        lambda c: c["spec"].update(head_width=16),
        lambda c: c["spec"].update(unknown=1),
        lambda c: c.pop("state"),
        lambda c: c.update(spec="hrnet"),
    ],
)
def test_tensors_that_do_not_fit_the_description_are_refused(saved, change):
    document = torch.load(saved, weights_only=True)
    change(document)
    torch.save(document, saved)
    refused(saved, "do not fit")


def test_saving_is_whole_or_not_at_all(model, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OutputError):
        save_model(tmp_path / "file" / "model.pt", model)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        save_model(tmp_path / "model.pt", model)
    assert os.listdir(tmp_path) == ["file"]


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    broken = a_model()
    with torch.no_grad():
        broken.final_layer.weight[0, 0] = float("nan")
    save_model(tmp_path / "nan.pt", broken)
    refused(tmp_path / "nan.pt", r"1 tensors hold values that are not numbers[\s\S]*final_layer.weight")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"hello there", "a text"),
        ('{"name": "L\u00e4ufer"}'.encode(), "a text"),
        (b"[1, 2]" + "\u00e4".encode() * 40, "a text"),
        (b"\0\0\0\x20ftypisom\0\0\2\0", "a file of another kind"),
    ],
)
def test_what_a_file_is_instead_is_told(tmp_path, content, said):
    (tmp_path / "model.pt").write_bytes(content)
    refused(tmp_path / "model.pt", said)
