"""``convert`` and ``info`` on weights: released ones to a checkpoint of ours, and what is in either."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from moving_clip import SKELETON, command, write_clip, write_some_labels

from posewarper.model.checkpoint import load_model, parameters_sha256, save_model
from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.model.released import ORIGINAL_WHOLE
from posewarper.skeletons import COCO, POSETRACK
from posewarper.video.images import read_image


@pytest.fixture(autouse=True)
def _no_large_files_stay(tmp_path: Path) -> Iterator[None]:
    yield
    for path in tmp_path.glob("*.pt*"):
        path.unlink()


@pytest.fixture(scope="module")
def network() -> PoseWarper:
    torch.manual_seed(0)
    return PoseWarper(ModelSpec("hrnet_w32", POSETRACK, (384, 288), 3.0, head_blocks=1, head_width=8))


@pytest.fixture
def weights(network, tmp_path) -> Path:
    path = tmp_path / "final_state.pth"
    state = network.state_dict()
    torch.save({f"module.{ORIGINAL_WHOLE.theirs(name)}": value for name, value in state.items()}, path)
    return path


@pytest.fixture
def pose_weights(network, tmp_path) -> Path:
    path = tmp_path / "pretrained_coco_model.pth"
    state = {
        ORIGINAL_WHOLE.theirs(n): v for n, v in network.state_dict().items() if not n.startswith("warp_head.")
    }
    torch.save(state | {"classifier.weight": torch.zeros(3)}, path)
    return path


def test_released_weights_become_a_checkpoint_of_ours(capsys, network, weights, tmp_path):
    out = tmp_path / "model.pt"
    code, said, err = command(capsys, "convert", weights, out)
    assert (code, err) == (0, "")
    assert "PoseWarper of the original, hrnet_w32, 17 keypoints, crops of 384 x 288" in said
    assert "with a trained warp head" in said and "the file does not say" in said and "skeleton" in said
    model = load_model(out)
    assert parameters_sha256(model) == parameters_sha256(network)
    assert model.spec.provenance["file"] == "final_state.pth"
    code, _, err = command(capsys, "convert", weights, out)
    assert code == 2 and "--overwrite" in err


def test_a_pose_network_alone_is_said_to_have_an_untrained_head(capsys, pose_weights, tmp_path):
    out = tmp_path / "coco.pt"
    options = ("--skeleton", "coco", "--crop-size", "256x192")
    code, said, err = command(capsys, "convert", pose_weights, out, *options)
    assert (code, err) == (0, "")
    assert "without a trained warp head" in said and "returns heatmaps as they are" in said
    assert "not used: classifier.weight: part of an image classifier" in said
    spec = load_model(out).spec
    assert (spec.skeleton, spec.crop_size) == (COCO, (256, 192))
    for path in (pose_weights, out):
        code, said, err = command(capsys, "info", path, "--json", tmp_path / "facts.json", "--overwrite")
        assert (code, err) == (0, "") and "not trained" in said
        facts = json.loads((tmp_path / "facts.json").read_text())["checkpoint"]
        assert facts["provenance"]["weights"] == "pose network of the original"
        assert len(facts["provenance"]["sha256"]) == 64
        assert facts["backbone"] == "hrnet_w32" and facts["trained"] == {"pose": 1}
    code, said, err = command(capsys, "info", out, "--offsets")
    assert (code, said) == (2, "") and "was not trained" in err


def test_weights_that_do_not_fit_are_refused_by_name(capsys, weights, tmp_path):
    state = torch.load(weights, weights_only=True)
    state["module.extra.weight"] = state.pop("module.offsets3.weight")
    torch.save(state, weights)
    for arguments in (("convert", weights, tmp_path / "model.pt"), ("info", weights)):
        code, said, err = command(capsys, *arguments)
        assert (code, said) == (2, "")
        assert "1 missing: module.offsets3.weight" in err and "1 left over: module.extra.weight" in err
    assert not (tmp_path / "model.pt").exists()


@pytest.mark.parametrize(
    ("out", "options", "message"),
    [
        ("model.json", (), "ends in .pt"),
        ("model.pt", ("--every", 3), "--every cannot be used on weights"),
        ("model.pt", ("--track", 0, "--frame-offset", -1), "--track, --frame-offset cannot be used"),
        ("model.pt", ("--crop-size", "large"), "such as 384x288"),
        ("model.pt", ("--crop-size", "380x288"), "multiples of 32"),
        ("model.pt", ("--skeleton", "fish"), "unknown skeleton"),
        ("model.pt", ("--skeleton", "body_25"), "17 keypoints"),
    ],
)
def test_what_cannot_be_converted_so_is_told(capsys, weights, tmp_path, out, options, message):
    code, said, err = command(capsys, "convert", weights, tmp_path / out, *options)
    assert (code, said) == (2, "") and message in err and "fix:" in err
    assert not (tmp_path / out).exists()


def test_labels_have_no_crop_size(capsys, tmp_path):
    labels = write_some_labels(tmp_path)
    code, _, err = command(capsys, "convert", labels, tmp_path / "other.csv", "--crop-size", "64x64")
    assert code == 2 and "--crop-size cannot be used on labels" in err


@pytest.fixture
def trained(tmp_path) -> Path:
    torch.manual_seed(0)
    small = {"head_width": 8, "head_blocks": 1, "head_dilations": (1, 2)}
    trained = {"pose": 1, "warp": 1}
    save_model(
        tmp_path / "model.pt",
        PoseWarper(ModelSpec("hrnet_w18_small", SKELETON, (64, 96), 2.0, **small, trained=trained)),
    )
    return tmp_path / "model.pt"


def test_offsets_of_made_up_heatmaps_and_of_two_frames(capsys, trained, tmp_path):
    clip, labels = write_clip(tmp_path), write_some_labels(tmp_path)
    for n, options in enumerate(
        ((), ("--video", clip, "--frames", "2,5"), ("--video", clip, "--frames", "2,5", "--labels", labels))
    ):
        picture, facts = tmp_path / f"offsets{n}.png", tmp_path / f"facts{n}.json"
        code, said, err = command(
            capsys, "info", trained, "--offsets", "--picture", picture, "--json", facts, *options
        )
        assert (code, err) == (0, "")
        assert "left_paw" in said and "offset" in said
        rows = json.loads(facts.read_text())["offsets"]["offsets"]
        assert [row["keypoint"] for row in rows] == list(SKELETON.names)
        assert read_image(picture).shape == (34 + 4 * 138, 150 + 4 * 138, 3)
    code, _, err = command(capsys, "info", trained, "--offsets", "--picture", tmp_path / "offsets0.png")
    assert code == 2 and "--overwrite" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--offsets",), "no path"),
        (("clip.mp4", "--offsets"), "got:      clip.mp4"),
        (("model.pt", "--offsets", "--video", "clip.mp4"), "--video alone"),
        (("model.pt", "--offsets", "--frames", "1,2"), "--frames alone"),
        (("model.pt", "--video", "clip.mp4", "--frames", "1,2"), "add --offsets"),
        (("model.pt", "--offsets", "--picture", "picture.txt"), ".png or .jpg"),
        (("model.pt", "--offsets", "--video", "clip.mp4", "--frames", "1,99"), "from 0 to 19"),
        (("model.pt", "--offsets", "--video", "clip.mp4", "--frames", "1"), "got:      1"),
    ],
)
def test_offsets_that_cannot_be_shown(capsys, trained, tmp_path, monkeypatch, arguments, message):
    write_clip(tmp_path)
    monkeypatch.chdir(tmp_path)
    code, said, err = command(capsys, "info", *arguments)
    assert (code, said) == (2, "") and message in err and "fix:" in err
