"""Networks in onnxruntime: what PyTorch computes, the same bytes every time, and PyTorch where it cannot."""

from __future__ import annotations

import logging
import sys

import numpy as np
import pytest
import timm
import torch
from torch import nn

from posewarper.model import onnx_graph
from posewarper.model.heatmap_runner import HeatmapEngine
from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.model.onnx_graph import NotRecordable, accelerate, record
from posewarper.skeletons import Skeleton

pytest.importorskip("onnxruntime")
SKELETON = Skeleton(("nose", "left", "right"), ((0, 1), (0, 2)), (("left", "right"),))


@pytest.fixture(scope="module", params=["hrnet_w18_small", "tf_efficientnet_lite0"])
def model(request) -> PoseWarper:
    torch.manual_seed(0)
    how = {"head_width": 8, "head_blocks": 2, "targets": "exact", "neck": "pyramid"}
    model = PoseWarper(ModelSpec(request.param, SKELETON, (64, 96), 1.0, **how))
    for part in (*model.warp_head.offsets, model.final_layer):
        nn.init.normal_(part.weight, std=0.05)  # type: ignore[arg-type]
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)  # type: ignore[arg-type]
    return model.eval()


def engine_of(model: PoseWarper, **more) -> HeatmapEngine:
    """Return an engine in float32, which is what onnxruntime computes, also where bfloat16 is faster."""
    return HeatmapEngine(model, precision="float32", **more)


def crops(n: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, 64, 96, 3), dtype=np.uint8)


def test_both_engines_agree_on_heatmaps_warps_and_sums(model):
    fast, reference = engine_of(model, flip=True), engine_of(model, flip=True, eager=True)
    for n in (1, 2, 7):
        seen, expected = (engine.heatmaps(crops(n)) for engine in (fast, reference))
        torch.testing.assert_close(seen, expected, rtol=0, atol=1e-4)
        assert expected.std() > 0.01
    values = torch.rand(7, 3, 16, 24)
    assert fast._pose is not None and reference._pose is None
    moved, told = (e.warp(values, source=expected, target=expected.flip(0)) for e in (fast, reference))
    torch.testing.assert_close(moved, told, rtol=0, atol=1e-4)
    assert fast._offsets is not None and reference._offsets is None
    assert (told - values).abs().max() > 0.05
    job = (expected[:3], [0.5, 1, 0.4], expected[3:], [0, 2, 2, 0], [0.2, 0.3, 0.3, 0.3])
    torch.testing.assert_close(fast.aggregate(*job), reference.aggregate(*job), rtol=0, atol=1e-4)


def test_other_sizes_than_the_models_are_taken_too(model):
    fast, reference = engine_of(model), engine_of(model, eager=True)
    images = np.random.default_rng(0).integers(0, 256, (2, 96, 64, 3), dtype=np.uint8)
    assert torch.equal(fast.heatmaps(images), reference.heatmaps(images))
    for height, width in ((24, 16), (16, 24)):  # one engine for both
        maps = torch.rand(2, 3, height, width)
        job = (maps[:1], [0.5], maps[1:], [0], [0.5])
        torch.testing.assert_close(fast.aggregate(*job), reference.aggregate(*job), rtol=0, atol=1e-4)


def test_an_engine_is_accelerated_wherever_it_is_first_used(model):
    with torch.inference_mode():
        assert engine_of(model)._pose is not None
    with torch.enable_grad():
        assert engine_of(model)._offsets is not None


@pytest.mark.parametrize("eager", [False, True])
def test_the_same_bytes_come_out_every_time(model, eager):
    first, second = engine_of(model, eager=eager), engine_of(model, eager=eager)
    for _ in range(3):
        seen = [engine.heatmaps(crops(3)) for engine in (first, second)]
        moved = [engine.warp(seen[0], source=seen[0], target=seen[0].flip(0)) for engine in (first, second)]
        for one, other in (seen, moved):
            assert one.numpy().tobytes() == other.numpy().tobytes()


def test_the_users_random_numbers_stay_theirs(model):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    engine_of(model).heatmaps(crops(1))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_pytorch_does_the_work_where_a_library_is_missing(model, monkeypatch, caplog, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with caplog.at_level(logging.DEBUG):
        engine = engine_of(model)
        seen = engine.heatmaps(crops(2))
    assert engine._pose is None and missing in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}
    assert torch.equal(seen, engine_of(model, eager=True).heatmaps(crops(2)))


def test_pytorch_does_the_work_where_bfloat16_is_wanted_or_values_differ(model, monkeypatch):
    assert HeatmapEngine(model, precision="bfloat16")._pose is None
    x = -torch.rand(2, 3, 4, 4)
    assert accelerate(lambda x: [torch.relu(x)], {"x": x}) is not None
    monkeypatch.setattr(onnx_graph, "_WRITERS", {"aten::relu": lambda to, given, _: "x"})  # a mistake
    assert accelerate(lambda x: [torch.relu(x)], {"x": x}) is None


UNKNOWN = {
    "reshaped": lambda x: [x.reshape(-1, 4)],
    "summed over the batch": lambda x: [x.mean(0, keepdim=True)],
    "a turned batch": lambda x: [x.flip(0)],
    "a longer batch": lambda x: [torch.cat([x, x])],
    "a constant": lambda x: [torch.ones(2, 3)],
    "batch statistics": lambda x: [nn.functional.batch_norm(x, None, None, training=True)],
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_a_graph_does_not_express_is_refused(name):
    x = torch.rand(2, 3, 4, 4)
    with pytest.raises(NotRecordable):
        record(UNKNOWN[name], {"x": x})
    assert accelerate(UNKNOWN[name], {"x": x}) is None


@pytest.mark.parametrize("backbone", ["tf_efficientnet_lite0", "mobilenetv3_small_100", "resnet18"])
def test_other_convolutional_networks_run_there_too(backbone):
    # Padding that depends on the size, squeeze and excitation, hard activations, pooling.
    network = timm.create_model(backbone, pretrained=False, features_only=True, out_indices=(1, 2)).eval()
    x = torch.randn(2, 3, 64, 64)
    fast = accelerate(network, {"x": x})
    assert fast is not None
    with torch.no_grad():
        for own, theirs in zip(fast(x[:1]), network(x[:1]), strict=True):
            torch.testing.assert_close(own, theirs, rtol=0, atol=1e-4 * max(1, float(theirs.abs().max())))
