"""Models as folders: what is written comes back to the last bit, and nothing else is taken for a model."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from posewarper import __version__
from posewarper.errors import ModelError, OutputError
from posewarper.model.checkpoint import describe_checkpoint, load_model, parameters_sha256, save_model
from posewarper.model.folder import write_folder
from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.options import NetworkConfig
from posewarper.skeletons import Skeleton

SKELETON = Skeleton(("nose", "left_eye", "right_eye"), ((0, 1),), name="fly")
PROVENANCE = {
    "video": "/home/ann/secret project/clip.mp4",
    "labelled_frames": 7,
    "config": {"flip": 0.5, "none": None, "best": math.inf},
    "recipe": {"data": {"dataset": "~/PoseTrack", "clips": [], "clips_file": "lists/mine.csv"}},
}


def a_model(network: NetworkConfig | None = None) -> PoseWarper:
    network = network or NetworkConfig(backbone="hrnet_w18_small", head_width=8, head_blocks=1)
    torch.manual_seed(0)
    spec = ModelSpec(
        skeleton=SKELETON,
        sigma=1.5,
        trained={"pose": 3, "warp": 2},
        provenance=PROVENANCE,
        targets="exact",
        **{
            **network.model_dump(exclude={"backbone_weights"}),
            "crop_size": (64, 96),
            "head_dilations": (1, 2),
        },
    )
    model = PoseWarper(spec)
    with torch.no_grad():
        for norm in (m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)):
            norm.running_mean.uniform_(-0.1, 0.1)
            norm.num_batches_tracked += 3
        for offsets in model.warp_head.offsets:
            offsets.weight.normal_(0, 0.1)
    return model.eval()


@pytest.fixture(scope="module")
def model() -> PoseWarper:
    return a_model()


@pytest.fixture
def folder(model, tmp_path) -> Path:
    write_folder(tmp_path / "fly", model, licence="cc-by-4.0", figures={"pck": 93.25}, address="hf:ann/fly")
    return tmp_path / "fly"


def described(folder: Path) -> dict:
    return json.loads((folder / "posewarper.json").read_text())


def rewrite(folder: Path, **changes) -> None:
    values = {**described(folder), **changes}
    (folder / "posewarper.json").write_text(json.dumps({n: v for n, v in values.items() if v != "gone"}))


@pytest.mark.parametrize(
    "network", [None, NetworkConfig(head_width=8, head_blocks=1)], ids=["hrnet", "lite0"]
)
def test_weights_and_predictions_come_back_to_the_last_bit(network, tmp_path):
    model = a_model(network)
    save_model(tmp_path / "model.pt", model)
    write_folder(tmp_path / "folder", load_model(tmp_path / "model.pt"))
    one, two = load_model(tmp_path / "model.pt"), load_model(tmp_path / "folder")
    assert [(n, v.dtype, v.shape) for n, v in one.state_dict().items()] == [
        (n, v.dtype, v.shape) for n, v in two.state_dict().items()
    ]
    assert all(torch.equal(v, two.state_dict()[n]) for n, v in one.state_dict().items())
    assert parameters_sha256(one) == parameters_sha256(two)
    # Where it comes from is told without the folders of whoever trained it; all else is as it was.
    assert replace(one.spec, provenance={}) == replace(two.spec, provenance={})
    crops = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        heatmaps = [each.heatmaps(crops) for each in (one, two)]
        assert torch.equal(*heatmaps) and heatmaps[0].std() > 0
        warped = [
            each.warp(h, source=h, target=h.flip(0)) for each, h in zip((one, two), heatmaps, strict=True)
        ]
    assert torch.equal(*warped) and not torch.equal(warped[0], heatmaps[0])


def test_the_description_says_what_the_model_is(folder, model):
    told = described(folder)
    assert set(told) == {
        *("format", "format_version", "posewarper", "packed_with", "licence", "figures", "weights", "spec")
    }
    assert (told["format_version"], told["posewarper"], told["licence"]) == (1, __version__, "cc-by-4.0")
    assert told["weights"]["parameters_sha256"] == parameters_sha256(model)
    assert told["weights"]["bytes"] == (folder / "model.safetensors").stat().st_size
    assert told["spec"]["skeleton"]["names"] == ["nose", "left_eye", "right_eye"]
    assert described(folder)["spec"]["crop_size"] == [64, 96]
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "model.safetensors",
        "posewarper.json",
    ]
    assert set(load_file(folder / "model.safetensors")) == set(model.state_dict())
    assert describe_checkpoint(folder)["parameters_sha256"] == parameters_sha256(model)
    assert describe_checkpoint(folder)["version"] == __version__


def test_no_folder_of_this_machine_is_told(folder):
    known = described(folder)["spec"]["provenance"]
    assert known["video"] == "clip.mp4"
    assert known["recipe"]["data"] == {"dataset": "PoseTrack", "clips": [], "clips_file": "lists/mine.csv"}
    assert known["config"] == {"flip": 0.5, "none": None, "best": None}
    for path in ("README.md", "posewarper.json"):
        assert "ann/secret" not in (folder / path).read_text()


def test_the_card_tells_people_what_they_need(folder, model, tmp_path):
    card = (folder / "README.md").read_text()
    _, front, text = card.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "license": "cc-by-4.0",
        "library_name": "posewarper",
        "pipeline_tag": "keypoint-detection",
        "tags": ["posewarper", "pose-estimation", "keypoint-detection", "video"],
    }
    assert text.startswith("# fly\n")
    for part in (
        "3: nose, left_eye, right_eye",
        "64 x 96",
        "pose: 3 iterations, warp: 2 iterations",
        "7 labelled frames of clip.mp4",
        "- pck: 93.25",
        "posewarper predict clip.mp4 --model hf:ann/fly",
        "Learning Temporal Pose Estimation from Sparsely-Labeled Videos",
        parameters_sha256(model),
    ):
        assert part in text.replace("`", ""), part
    write_folder(tmp_path / "other", model)
    other = (tmp_path / "other" / "README.md").read_text()
    assert "license:" not in other and "Not stated" in other and "None are recorded" in other
    assert "\n# other\n" in other


def test_a_place_that_is_taken_is_left_alone(folder, model):
    with pytest.raises(OutputError, match="holds files already"):
        write_folder(folder, model)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="other files"):
        write_folder(folder, model, overwrite=True)
    assert (folder / "notes.txt").read_text() == "mine"
    (folder / "notes.txt").unlink()
    write_folder(folder, model, overwrite=True)
    assert described(folder)["licence"] is None


def refused(folder: Path, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        load_model(folder)
    assert str(folder) in str(caught.value) and caught.value.fix


def test_weights_of_another_model_are_refused(folder, model):
    state = load_file(folder / "model.safetensors")
    first = next(iter(state))
    save_file({**state, first: state[first] + 1}, folder / "model.safetensors", metadata={"format": "pt"})
    refused(folder, "not the weights that the description")
    # The description follows, but the names do not.
    save_file({n: v for n, v in state.items() if n != first}, folder / "model.safetensors")
    weights = folder / "model.safetensors"
    told = {
        "bytes": weights.stat().st_size,
        "sha256": __import__("hashlib").sha256(weights.read_bytes()).hexdigest(),
    }
    rewrite(folder, weights=told)
    refused(folder, "do not fit its description")
    weights.unlink()
    refused(folder, "no such file")


def test_code_in_place_of_weights_is_not_run(folder, tmp_path):
    marker = tmp_path / "ran"

    class Malicious:
        def __reduce__(self):
            return Path.touch, (marker,)

    (folder / "model.safetensors").write_bytes(pickle.dumps({"a": Malicious()}))
    refused(folder, "cannot read this file")
    assert not marker.exists()


def test_a_description_that_is_none_of_ours_is_refused(folder):
    whole = (folder / "posewarper.json").read_text()
    for text in ("", "[1]", "{", '{"format": NaN}', "[" * 100_000, whole.replace("93.25", "Infinity")):
        (folder / "posewarper.json").write_text(text)
        refused(folder, "cannot read the description")
    (folder / "posewarper.json").write_text(whole)
    for changes, message in (
        ({"format_version": 2}, "newer posewarper"),
        ({"format": "another"}, "not the description of a model"),
        ({"licence": 3}, "not the description of a model"),
        ({"spec": "gone"}, "not the description of a model"),
        ({"code": "import os"}, "not the description of a model"),
        ({"spec": {**described(folder)["spec"], "head_width": 10**9}}, "do not fit its description"),
        ({"spec": {**described(folder)["spec"], "unheard": 1}}, "do not fit its description"),
    ):
        (folder / "posewarper.json").write_text(whole)
        rewrite(folder, **changes)
        refused(folder, message)


def test_a_folder_without_a_model_is_refused(tmp_path):
    refused(tmp_path, "holds no model")
