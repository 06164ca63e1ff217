"""The trimmed backbone, the names of its parameters, and the description that a model carries."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import timm
import torch

from posewarper.model.backbone import build_backbone
from posewarper.model.network import ModelSpec, PoseWarper, count_parameters
from posewarper.skeletons import COCO, Skeleton

SKELETON = Skeleton(("nose", "left_eye", "right_eye"), ((0, 1), (0, 2)), name="fly")
SMALL = {"head_width": 8, "head_blocks": 1, "head_dilations": (1, 2)}


def a_model(size: tuple[int, int] = (64, 96)) -> PoseWarper:
    torch.manual_seed(0)
    return PoseWarper(ModelSpec("hrnet_w18_small", SKELETON, size, 2.0, **SMALL)).eval()


def test_the_trimmed_backbone_gives_the_same_as_the_whole():
    torch.manual_seed(0)
    trimmed, channels = build_backbone("hrnet_w18_small")
    whole = timm.create_model(
        "hrnet_w18_small", pretrained=False, features_only=True, feature_location="", out_indices=(1,)
    )
    loaded = whole.load_state_dict(trimmed.state_dict(), strict=False)
    assert not loaded.unexpected_keys
    assert loaded.missing_keys
    assert all(name.startswith("stage4.") and ".fuse_layers." in name for name in loaded.missing_keys)
    image = torch.rand(2, 3, 64, 96)
    with torch.inference_mode():
        ours, theirs = trimmed.eval()(image), whole.eval()(image)
    assert len(ours) == 1
    assert ours[0].shape == (2, channels, 16, 24)
    assert ours[0].std() > 0
    assert torch.equal(ours[0], theirs[0])


def test_every_parameter_of_the_backbone_gets_a_gradient():
    backbone, _ = build_backbone("hrnet_w18_small")
    # At 64 pixels the coarsest branch has several pixels, so its batch norms do not cancel everything.
    backbone.train()(torch.rand(2, 3, 64, 64))[0].square().sum().backward()
    assert [n for n, p in backbone.named_parameters() if p.grad is None] == []


def test_names_and_shapes_of_w48_are_those_of_the_released_checkpoints(parity_dir: Path):
    with open(parity_dir / "state_dict_names_posewarper_w48.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    theirs = {
        row["name"]: (row["shape"], row["kind"])
        for row in rows
        if not row["name"].startswith(("final_layer", "offset", "deform_conv"))
    }
    assert len(theirs) == 1752
    with torch.device("meta"):  # shapes alone, no numbers
        backbone, channels = build_backbone("hrnet_w48")
    parameters = dict(backbone.named_parameters())
    ours = {
        name: ("x".join(map(str, value.shape)), "parameter" if name in parameters else "buffer")
        for name, value in backbone.state_dict().items()
    }
    # A count of batches has no shape; how the page writes that does not matter.
    counts = {name for name in ours if name.endswith("num_batches_tracked")}
    assert ours.keys() == theirs.keys()
    assert {n: v for n, v in ours.items() if n not in counts} == {
        n: v for n, v in theirs.items() if n not in counts
    }
    final = {row["name"]: row["shape"] for row in rows if row["name"].startswith("final_layer")}
    assert final == {"final_layer.weight": f"17x{channels}x1x1", "final_layer.bias": "17"}


def test_heatmaps_are_a_quarter_of_the_crop():
    model = a_model()
    assert model.spec.heatmap_size == (16, 24)
    with torch.inference_mode():
        heatmaps = model.heatmaps(torch.rand(2, 3, 64, 96))
    assert heatmaps.shape == (2, 3, 16, 24)
    # A new network predicts next to nothing, as targets are mostly zero.
    assert heatmaps.abs().max() < 0.5


def test_a_new_model_returns_each_support_s_heatmaps_unwarped():
    model = a_model()
    target, first, second = torch.rand(3, 1, 3, 64, 96)
    with torch.inference_mode():
        warped = model(target, [first, second])
        seen = [model.heatmaps(image) for image in (first, second)]
    assert len(warped) == 2
    for ours, expected in zip(warped, seen, strict=True):
        torch.testing.assert_close(ours, expected)
    assert not torch.allclose(seen[0], seen[1])


def test_warping_takes_the_support_as_source():
    model = a_model()
    asked = []
    model.warp = lambda values, *, source, target: asked.append((values, source, target))  # type: ignore
    target, support = torch.rand(2, 1, 3, 64, 96)
    with torch.inference_mode():
        model(target, [support])
        here, there = model.heatmaps(target), model.heatmaps(support)
    values, source, seen_target = asked[0]
    assert torch.equal(values, there)
    assert torch.equal(source, there)
    assert torch.equal(seen_target, here)


@pytest.mark.parametrize("skeleton", [SKELETON, COCO, Skeleton(("left_a", "right_a"), flip_pairs=())])
def test_a_description_survives_the_way_through_json(skeleton):
    spec = ModelSpec(
        *("hrnet_w32", skeleton, (384, 288), 3.0, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)),
        **SMALL,
        trained={"pose": 7},
        provenance={"seed": 3, "config": {"flip": 0.5}},
    )
    back = ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert back == spec
    assert back.skeleton.flip_pairs == skeleton.flip_pairs


def test_the_default_head_is_the_paper_s():
    spec = ModelSpec("hrnet_w48", COCO, (384, 288), 3.0)
    assert (spec.head_width, spec.head_blocks, spec.head_dilations) == (128, 20, (3, 6, 12, 18, 24))


def test_what_was_trained_is_noted_stage_by_stage():
    model = a_model()
    first = model.spec
    model.record("pose", 5)
    model.record("warp", 2)
    model.record("pose", 9)
    assert model.spec.trained == {"pose": 9, "warp": 2}
    assert first.trained == {}


def test_parameters_are_counted_without_buffers():
    layer = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1), torch.nn.BatchNorm2d(3))
    assert count_parameters(layer) == 2 * 3 + 3 + 3 + 3
