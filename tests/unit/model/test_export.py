"""Exported models compute what the checkpoint does, on any batch, and what does not belong is refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F

from posewarper.errors import ConfigError, ModelError
from posewarper.model import export
from posewarper.model.checkpoint import load_model, parameters_sha256, save_model
from posewarper.model.export import (
    OnnxPoseWarper,
    check_warper,
    describe_onnx,
    export_onnx,
    open_model,
    warper_path,
)
from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.prediction.windows import PAPER_WEIGHTS, WINDOWS, check_window
from posewarper.skeletons import Skeleton
from window_sum import predict_heatmaps

SKELETON = Skeleton(("nose", "left_eye", "right_eye"), ((0, 1),), name="fly")
SIZE = (64, 96)  # of crops: neither square nor, for the heatmaps of 16 x 24, a power of two


def a_model(backbone: str = "hrnet_w18_small", **more) -> PoseWarper:
    """A network whose warper moves things by several pixels, and mixes the keypoints."""
    torch.manual_seed(0)
    head = {"head_width": 8, "head_blocks": 1, "head_dilations": (1, 6)}
    spec = ModelSpec(
        *(backbone, SKELETON, SIZE, 1.5),
        **{
            "trained": {"pose": 3, "warp": 4},
            "provenance": {"seed": 4},
            "mean": (0.1, 0.2, 0.3),
            **head,
            **more,
        },
    )
    model = PoseWarper(spec).eval()
    torch.nn.init.normal_(model.final_layer.weight, std=0.005)
    for part in model.warp_head.residual_stack.modules():
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.normal_(part.weight, std=0.2)
    for part in model.warp_head.offsets:
        torch.nn.init.normal_(part.weight, std=1.0)
    for kernel in model.warp_head.kernels:
        torch.nn.init.normal_(kernel, std=0.3)
    return model


@pytest.fixture(scope="module")
def model() -> PoseWarper:
    return a_model()


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    written = export_onnx(model, path)
    assert [file.path for file in written] == [path, path.with_name("model.warper.onnx")]
    assert all(file.difference is not None and file.difference < 1e-4 for file in written)
    return path


@pytest.fixture
def copied(exported, tmp_path) -> Path:
    """The two files, to be damaged."""
    for path in (exported, warper_path(exported)):
        shutil.copy(path, tmp_path)
    return tmp_path / exported.name


def maps(batch: int, seed: int = 1) -> tuple[torch.Tensor, ...]:
    """Values, source and target, not zero at the borders."""
    return tuple(torch.rand((3, batch, 3, 16, 24), generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_onnxruntime_computes_what_pytorch_does_on_any_batch(model, exported, batch):
    other = OnnxPoseWarper(exported)
    crops = torch.randn(batch, 3, *SIZE)
    values, source, target = maps(batch)
    with torch.inference_mode():
        seen, expected = model.heatmaps(crops), model.warp(values, source=source, target=target)
        offsets = model.warp_head.offsets[1](model.warp_head.features(source, target))
        torch.testing.assert_close(other.heatmaps(crops), seen, rtol=0, atol=1e-4)
        torch.testing.assert_close(
            other.warp(values, source=source, target=target), expected, rtol=0, atol=1e-4
        )
    assert seen.std() > 0.1 and offsets.abs().mean() > 2  # else nothing was compared


def test_whole_number_offsets_and_borders_are_those_of_a_plain_convolution(model, exported):
    # Where the frames do not differ all offsets are zero, so each branch is a dilated convolution.
    values, same, _ = maps(2, seed=2)
    got = OnnxPoseWarper(exported).warp(values, source=same, target=same)
    with torch.inference_mode():
        plain = [
            F.conv2d(values, kernel, padding=d, dilation=d)
            for kernel, d in zip(model.warp_head.kernels, model.spec.head_dilations, strict=True)
        ]
    torch.testing.assert_close(got, torch.stack(plain).mean(0), rtol=0, atol=1e-5)


def test_an_exported_model_stands_in_for_the_checkpoint(model, exported, tmp_path):
    other = OnnxPoseWarper(exported)
    assert other.spec == model.spec
    assert other.spec.heatmap_size == (16, 24)
    assert (other.device, other.dtype) == (model.device, model.dtype)
    assert parameters_sha256(other) == parameters_sha256(model)
    crops, weights = torch.randn(5, 2, 3, *SIZE), torch.tensor(PAPER_WEIGHTS)[:, None].expand(5, 2)
    with torch.inference_mode():
        expected = predict_heatmaps(model, crops, weights)
        torch.testing.assert_close(predict_heatmaps(other, crops, weights), expected, rtol=0, atol=1e-4)
    save_model(tmp_path / "model.pt", model)
    assert isinstance(open_model(exported), OnnxPoseWarper)
    assert isinstance(open_model(tmp_path / "model.pt", "cpu"), PoseWarper)
    with pytest.raises(ConfigError, match="run on the CPU"):
        open_model(exported, "cuda")
    with pytest.raises(ModelError, match="can only predict"):
        load_model(exported)


def test_what_is_written_are_plain_graphs_with_a_description(exported):
    wanted = (("crops",), "heatmaps"), (("values", "source", "target"), "warped")
    for path, (inputs, output) in zip((exported, warper_path(exported)), wanted, strict=True):
        content = onnx.load(path)
        onnx.checker.check_model(content, full_check=True)
        assert {each.domain for each in content.opset_import} == {""} and not content.functions
        assert [each.name for each in content.graph.input] == list(inputs)
        assert [each.name for each in content.graph.output] == [output]
        for each in (*content.graph.input, *content.graph.output):
            assert each.type.tensor_type.shape.dim[0].dim_param == "batch"
        assert __file__.encode() not in path.read_bytes() and b".py" not in path.read_bytes()
        facts = json.loads(
            onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map["posewarper"]
        )
        assert (
            facts["spec"]["skeleton"]["names"] == list(SKELETON.names)
            and len(facts["parameters_sha256"]) == 64
        )
    described = describe_onnx(exported)
    assert described["inputs"] == ["crops (batch, 3, 64, 96)"] and described["mean"] == (0.1, 0.2, 0.3)
    assert described["warp_head"] == "exported beside the pose network"


def test_a_model_is_left_as_it_was_and_an_untrained_head_is_left_out(tmp_path):
    model = a_model("test_resnet", trained={"pose": 3}).train().to(memory_format=torch.channels_last)
    before = parameters_sha256(model)
    path = tmp_path / "model.onnx"
    warper_path(path).write_bytes(b"of another model")
    assert [file.path for file in export_onnx(model, path)] == [path]
    assert model.training and parameters_sha256(model) == before
    assert [each.name for each in tmp_path.iterdir()] == ["model.onnx"]
    other = OnnxPoseWarper(path)
    with pytest.raises(ModelError, match="has no warper"):
        other.warp(*maps(1)[:1], source=maps(1)[1], target=maps(1)[2])
    assert describe_onnx(path)["warp_head"] == "left out: not trained"


def test_files_that_differ_from_the_checkpoint_are_not_kept(tmp_path, monkeypatch):
    model, run = a_model("test_resnet"), export._run
    (tmp_path / "model.onnx").write_bytes(b"older")
    for change, message in (
        (lambda output: output + 2e-4, r"something else(.|\n)*2\.0e-04"),
        (lambda output: output * float("nan"), r"something else(.|\n)*nan"),
        (lambda output: torch.zeros(1), r"shape \(1,\)"),
    ):
        monkeypatch.setattr(export, "_run", lambda *given, change=change: change(run(*given)))
        with pytest.raises(ModelError, match=message) as caught:
            export_onnx(model, tmp_path / "model.onnx")
        assert caught.value.path == tmp_path / "model.onnx"
    assert [each.name for each in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_bytes() == b"older"


def test_a_network_that_cannot_be_traced_is_told(tmp_path, monkeypatch):
    def twisted(self, crops):
        return crops if crops.sum() > 0 else crops * 2

    model = a_model("test_resnet")
    monkeypatch.setattr(PoseWarper, "heatmaps", twisted)
    with pytest.raises(ModelError, match="pose network cannot be exported"):
        export_onnx(model, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_other_backbones_are_exported_as_well(tmp_path):
    model = a_model("test_vit", trained={"pose": 1})
    export_onnx(model, tmp_path / "model.onnx")
    crops = torch.randn(1, 3, *SIZE)
    with torch.inference_mode():
        got = OnnxPoseWarper(tmp_path / "model.onnx").heatmaps(crops)
        torch.testing.assert_close(got, model.heatmaps(crops), rtol=0, atol=1e-4)


# --- files that are no good -------------------------------------------------------------------------------


def change_facts(path: Path, change) -> None:
    content = onnx.load(path)
    for entry in content.metadata_props:
        entry.value = change(entry.value)
    onnx.save(content, path)


def test_the_two_files_must_be_there_and_belong_together(copied):
    beside = warper_path(copied)
    with pytest.raises(ModelError, match="without the pose network"):
        OnnxPoseWarper(beside)
    change_facts(beside, lambda text: json.dumps(json.loads(text) | {"parameters_sha256": "0" * 64}))
    with pytest.raises(ModelError, match=r"not the warper(.|\n)*000000"):
        check_warper(OnnxPoseWarper(copied))
    shutil.copy(copied, beside)
    with pytest.raises(ModelError, match=r"not the warper(.|\n)*a pose network of"):
        check_warper(OnnxPoseWarper(copied))
    beside.unlink()
    alone = OnnxPoseWarper(copied)  # which predicts each frame alone
    assert alone.heatmaps(torch.zeros(1, 3, *SIZE)).shape[2:] == alone.spec.heatmap_size
    check_window(alone, WINDOWS["none"])
    with pytest.raises(ModelError, match=r"missing(.|\n)*model\.warper\.onnx(.|\n)*--aggregate none"):
        check_window(alone, WINDOWS["paper"])
    copied.unlink()
    with pytest.raises(ModelError, match=r"no such file(.|\n)*an exported model"):
        OnnxPoseWarper(copied)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "{", "damaged"),
        (lambda text: "[]", "damaged"),
        (lambda text: '{"format": "something"}', "damaged"),
        (lambda text: text.replace('"sigma"', '"width"'), "damaged"),
        (lambda text: text.replace('"left_eye"', '"nose"'), "names keypoints twice"),
    ],
)
def test_a_damaged_description_is_told(copied, change, message):
    change_facts(copied, change)
    with pytest.raises(ModelError, match=message) as caught:
        OnnxPoseWarper(copied)
    assert copied.name in str(caught.value)


def test_damaged_files_and_those_of_others_are_told(copied):
    content = copied.read_bytes()
    for broken in (b"", content[: len(content) // 2], b"<html>", bytes(range(256)) * 9):
        copied.write_bytes(broken)
        with pytest.raises(ModelError, match=r"cannot read this exported model|did not write"):
            OnnxPoseWarper(copied)
    copied.write_bytes(content)
    stranger = onnx.load(copied)
    del stranger.metadata_props[:]
    onnx.save(stranger, copied)
    with pytest.raises(ModelError, match="posewarper did not write this file"):
        OnnxPoseWarper(copied)


def test_missing_libraries_are_told_with_what_to_install(model, exported, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelError, match="pip install onnxruntime"):
        OnnxPoseWarper(exported)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ModelError, match=r'pip install "posewarper\[export\]"'):
        export_onnx(model, tmp_path / "model.onnx")


def test_any_float_and_layout_is_taken(exported):
    other = OnnxPoseWarper(exported)
    crops = torch.randn(2, 3, *SIZE)
    expected = other.heatmaps(crops)
    assert expected.dtype == torch.float32
    torch.testing.assert_close(other.heatmaps(crops.to(memory_format=torch.channels_last)), expected)
    torch.testing.assert_close(other.heatmaps(crops.double().requires_grad_()), expected)
    assert np.isfinite(expected.numpy()).all()
