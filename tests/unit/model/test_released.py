"""Released weights: every tensor has its place, what does not fit is refused by name, and nothing is run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from posewarper.errors import ConfigError, ModelError
from posewarper.model.checkpoint import describe_checkpoint, load_model, parameters_sha256, save_model
from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.model.released import MMPOSE_FIRST, MMPOSE_SECOND, ORIGINAL_WHOLE, build_released
from posewarper.skeletons import COCO, POSETRACK, Skeleton

BLOCKS, WIDTH = 2, 8
State = dict[str, Tensor]


@pytest.fixture(autouse=True)
def _no_large_files_stay(tmp_path: Path) -> Iterator[None]:
    yield
    for path in tmp_path.glob("*.pt*"):
        path.unlink()


@pytest.fixture(scope="module")
def model() -> PoseWarper:
    """A network like the released ones, with a small head."""
    torch.manual_seed(0)
    spec = ModelSpec("hrnet_w32", POSETRACK, (384, 288), 3.0, head_blocks=BLOCKS, head_width=WIDTH)
    return PoseWarper(spec).eval()


@pytest.fixture(scope="module")
def whole(model: PoseWarper) -> State:
    return {ORIGINAL_WHOLE.theirs(name): value for name, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def pose(model: PoseWarper) -> State:
    state = model.state_dict()
    return {
        ORIGINAL_WHOLE.theirs(name): value
        for name, value in state.items()
        if not name.startswith("warp_head.")
    }


@pytest.fixture(scope="module")
def second(model: PoseWarper) -> State:
    return {MMPOSE_SECOND.theirs(name): value for name, value in model.state_dict().items()}


def build(content, **given) -> PoseWarper:
    return build_released(content, "folder/weights.pth", "0123", **given)


def refusal(content, **given) -> str:
    with pytest.raises(ModelError) as caught:
        build(content, **given)
    assert "folder/weights.pth" in str(caught.value) and caught.value.fix
    return str(caught.value)


def same_weights(a: PoseWarper, b: PoseWarper) -> bool:
    first, other = a.state_dict(), b.state_dict()
    return first.keys() == other.keys() and all(torch.equal(first[n], other[n]) for n in first)


# --- names ------------------------------------------------------------------------------------------------


def test_names_of_the_original(whole):
    assert {"conv1.weight", "stage4.2.fuse_layers.0.3.1.running_var", "final_layer.bias"} <= whole.keys()
    assert {"offset_feats.0.downsample.1.bias", "offset_feats.1.bn2.num_batches_tracked"} <= whole.keys()
    assert {f"offsets{n}.weight" for n in range(1, 6)} <= whole.keys()
    assert {f"deform_conv{n}.weight" for n in range(1, 6)} <= whole.keys()


def test_names_of_mmpose(model, second):
    assert {"backbone.conv1.weight", "neck.trans_layer.weight", "neck.trans_layer.bias"} <= second.keys()
    assert {"neck.offset_feats.0.downsample.0.weight", "neck.offset_layers.0.weight"} <= second.keys()
    assert {f"neck.deform_conv_layers.{n}.weight" for n in range(5)} <= second.keys()
    assert all(name.startswith(("backbone.", "neck.")) for name in second)
    assert MMPOSE_FIRST.theirs("final_layer.weight") == "keypoint_head.final_layer.weight"
    assert MMPOSE_FIRST.theirs("backbone.bn1.bias") == "backbone.bn1.bias"


# --- what is read -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["original", "module", "wrapped", "mmpose"])
def test_a_whole_network_comes_back(model, whole, second, form):
    content = {
        "original": whole,
        "module": {f"module.{name}": value for name, value in whole.items()},
        "wrapped": {"state_dict": {f"module.{name}": value for name, value in whole.items()}, "epoch": 3},
        "mmpose": {"meta": {"epoch": 3}, "state_dict": second, "optimizer": {}},
    }[form]
    read = build(content)
    assert same_weights(read, model)
    spec = read.spec
    assert (spec.backbone, spec.skeleton, spec.crop_size) == ("hrnet_w32", POSETRACK, (384, 288))
    assert (spec.head_blocks, spec.head_width, spec.head_dilations) == (BLOCKS, WIDTH, (3, 6, 12, 18, 24))
    assert spec.trained.keys() == {"pose", "warp"}
    assert ("mmpose" in spec.provenance["weights"]) == (form == "mmpose")
    assert spec.provenance["file"] == "weights.pth" and spec.provenance["sha256"] == "0123"
    assert spec.provenance["assumed"] == ["skeleton", "crop_size", "head_dilations", "sigma", "mean", "std"]
    unused = {"wrapped": ["epoch"], "mmpose": ["meta", "optimizer"]}.get(form, [])
    assert spec.provenance["unused"] == [f"{name}: lies beside the weights" for name in unused]


def test_a_pose_network_alone_gets_the_paper_s_head_always_the_same(model, pose):
    torch.manual_seed(7)
    state, chance = torch.random.get_rng_state(), build(pose)
    assert torch.equal(torch.random.get_rng_state(), state)  # nobody else's chance is touched
    again = build({f"backbone.{n}" if "final" not in n else f"keypoint_head.{n}": v for n, v in pose.items()})
    assert parameters_sha256(chance) == parameters_sha256(again)
    spec = chance.spec
    assert (spec.head_blocks, spec.head_width) == (20, 128)
    assert spec.trained.keys() == {"pose"}
    assert torch.equal(chance.final_layer.weight, model.final_layer.weight)
    assert chance.warp_head.offsets[3].weight.abs().max() == 0
    assert chance.warp_head.residual_stack[4].conv1.weight.std().item() == pytest.approx(0.001, rel=0.05)


def test_how_long_a_stage_was_trained_is_read_from_its_batch_norms(whole):
    counted = {**whole, "bn1.num_batches_tracked": torch.tensor(900)}
    counted["offset_feats.0.bn1.num_batches_tracked"] = torch.tensor(70)
    assert build(counted).spec.trained == {"pose": 900, "warp": 70}


def test_what_the_file_does_not_say_may_be_given(pose):
    spec = build(pose, skeleton=COCO, crop_size=(256, 192)).spec
    assert (spec.skeleton, spec.crop_size) == (COCO, (256, 192))
    assert spec.provenance["assumed"] == ["sigma", "mean", "std"]
    with pytest.raises(ConfigError, match="multiples of 32"):
        build(pose, crop_size=(250, 192))


def test_other_numbers_of_keypoints_need_their_names(pose):
    four = {**pose, "final_layer.weight": torch.rand(4, 32, 1, 1), "final_layer.bias": torch.rand(4)}
    assert "have 4 keypoints" in refusal(four)
    assert "one with 17" in refusal(four, skeleton=COCO)
    mouse = Skeleton(("nose", "left_paw", "right_paw", "tail"))
    assert build(four, skeleton=mouse).spec.skeleton == mouse


def test_layers_that_nothing_reads_are_named_with_the_reason(model, pose):
    more = {
        **pose,
        "incre_modules.0.0.conv1.weight": torch.zeros(2),
        "classifier.bias": torch.zeros(1000),
        "stage4.2.fuse_layers.3.0.0.0.weight": torch.zeros(3),
    }
    read = build({f"module.{name}": value for name, value in more.items()})
    assert read.spec.provenance["unused"] == [
        "module.incre_modules.0.0.conv1.weight: part of an image classifier",
        "module.classifier.bias: part of an image classifier",
        "module.stage4.2.fuse_layers.3.0.0.0.weight: feeds a coarser branch that nothing reads",
    ]
    # Those of an earlier module of the last stage do count.
    assert "stage4.1.fuse_layers.3.9.weight" in refusal(
        {**pose, "stage4.1.fuse_layers.3.9.weight": torch.zeros(3)}
    )


# --- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("stage2.0.branches.0.0.conv1.weight", "final_layer.weight", "final_layer.bias"),
        *("offset_feats.1.conv1.weight", "offset_feats.1.bn2.num_batches_tracked", "deform_conv5.weight"),
    ],
)
def test_a_missing_and_a_misshapen_tensor_are_refused_by_name(whole, name):
    less = {f"module.{n}": value for n, value in whole.items() if n != name}
    assert f"1 missing: module.{name}\n" in refusal(less)
    wrong = torch.zeros(*whole[name].shape, 2)
    assert f"1 misshapen: {name} (" in refusal({**whole, name: wrong})


@pytest.mark.parametrize(
    "name",
    [
        *("conv3.weight", "offsets6.weight", "deform_conv0.weight", "final_layer.0.weight"),
        *("offset_feats.2.conv1.weight", "module.conv1.weight"),
    ],
)
def test_a_tensor_too_many_is_refused_by_name(whole, name):
    assert f"1 left over: {name}\n" in refusal({**whole, name: torch.zeros(2)})


def test_mmpose_s_are_refused_by_their_own_names(second):
    less = {n: value for n, value in second.items() if n != "neck.trans_layer.bias"}
    assert "1 missing: neck.trans_layer.bias" in refusal({"state_dict": less})
    more = {**second, "keypoint_head.final_layer.bias": torch.zeros(17)}
    assert "1 left over: keypoint_head.final_layer.bias" in refusal({"meta": {}, "state_dict": more})


def test_a_channel_too_few_is_told_with_both_shapes(pose):
    wrong = {**pose, "final_layer.weight": pose["final_layer.weight"][:16]}
    assert "1 misshapen: final_layer.weight (16x32x1x1, not 17x32x1x1)" in refusal(wrong)


def test_many_are_counted_and_the_first_are_named(whole):
    some = {name: value for name, value in whole.items() if not name.startswith("stage3.")}
    text = refusal(some)
    assert "missing: stage3.0.branches.0.0.conv1.weight, " in text and " more" in text
    assert len(text) < 1500


def test_other_networks_are_refused(pose):
    assert "not a checkpoint of posewarper" in refusal({"layer1.0.conv1.weight": torch.zeros(2)})
    assert "not a checkpoint of posewarper" in refusal({1: torch.zeros(2)})
    assert "not a checkpoint of posewarper" in refusal({})
    wide = {
        n: torch.zeros(18, 18, 3, 3) if ".branches.0." in n and "conv" in n else v for n, v in pose.items()
    }
    assert "18 channels" in refusal(wide) and "HRNet-W32 or HRNet-W48" in refusal(wide)


# --- files ------------------------------------------------------------------------------------------------


class Bomb:
    """Unpickled it makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("legacy", [False, True])
def test_files_in_both_formats_and_what_lies_beside_the_weights(model, second, tmp_path, legacy):
    path = tmp_path / "stage2.pth"
    meta = {"best": np.float64(0.5), "step": np.int64(3), "kind": np.dtype("f4"), "lr": np.array([1.0, 2.0])}
    content = {"meta": meta, "state_dict": second}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    read = load_model(path)
    assert same_weights(read, model) and not read.training
    assert len(read.spec.provenance["sha256"]) == 64
    described = describe_checkpoint(path)
    assert described["version"] is None and described["warp_head"] == "trained"
    assert described["provenance"]["weights"] == "PoseWarper of mmpose 0.x, stage 2"
    # Ours describes itself, and says where it comes from.
    save_model(tmp_path / "model.pt", read)
    again = load_model(tmp_path / "model.pt")
    assert same_weights(again, model) and again.spec == read.spec


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("place", ["beside", "among", "instead"])
def test_code_in_a_file_does_not_run(pose, tmp_path, legacy, place):
    marker, path = tmp_path / "marker", tmp_path / "pose.pth"
    pose = {name: value for name, value in pose.items() if name.startswith(("stage2.", "final_layer."))}
    content = {
        "beside": {"meta": {"hook": Bomb(marker)}, "state_dict": pose},
        "among": {**pose, "final_layer.bias": Bomb(marker)},
        "instead": Bomb(marker),
    }[place]
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ModelError, match="cannot read"):
        load_model(path)
    assert not marker.exists()


def test_numpy_s_objects_cannot_take_the_place_of_weights(pose, tmp_path):
    torch.save({**pose, "final_layer.bias": np.float64(1.0)}, tmp_path / "pose.pth")
    with pytest.raises(ModelError, match=r"final_layer\.bias \(no tensor\)"):
        load_model(tmp_path / "pose.pth")


def test_our_own_checkpoint_takes_no_other_skeleton(tmp_path):
    mouse = Skeleton(("nose", "tail"))
    small = {"head_width": 8, "head_blocks": 1, "head_dilations": (1,)}
    save_model(tmp_path / "model.pt", PoseWarper(ModelSpec("hrnet_w18_small", mouse, (64, 96), 2.0, **small)))
    assert load_model(tmp_path / "model.pt", skeleton=mouse, crop_size=(64, 96)).spec.skeleton == mouse
    with pytest.raises(ModelError, match="another skeleton"):
        load_model(tmp_path / "model.pt", skeleton=COCO)
    with pytest.raises(ModelError, match="another crop size"):
        load_model(tmp_path / "model.pt", crop_size=(96, 64))
