"""ViTPose's weights: the heatmaps, crops and points of transformers, and nothing that does not fit.

The figures below were recorded with transformers 5.24.0 (4.57.6 gives the same) on the tiny networks that
:func:`write_vitpose` writes. Where transformers is installed, it is asked once more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from posewarper.crops import normalise
from posewarper.errors import ModelError
from posewarper.heatmaps import crop_to_udp, encode, udp_to_crop
from posewarper.model.backbone import VITPOSE
from posewarper.model.checkpoint import load_model, parameters_sha256, save_model
from posewarper.model.folder import write_folder
from posewarper.model.heatmap_runner import HeatmapEngine, InstanceCrops
from posewarper.propagation.evidence import as_seen, find_peaks, labelled_crop
from posewarper.skeletons import COCO, Skeleton
from posewarper.training.batches import label_heatmaps
from posewarper.video.track_crops import TrackCrops
from vitpose_files import DEPTH, HEADS, WIDTH, weights_of, write_vitpose

KINDS = ("simple", "classic", "plus")


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setitem(VITPOSE, "vitpose_small", (WIDTH, DEPTH, HEADS))


def an_image() -> np.ndarray:
    noise = np.random.default_rng(1).integers(0, 256, (150, 200, 3)).astype(np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2)


BOXES = np.array([[20.0, 15.0, 60.0, 100.0], [90.0, 40.5, 70.25, 30.0]])
# What transformers makes of BOXES in that image: positions (channel, y, x) in the second crop, mean of both.
PIXELS = ((0, 0, 0), (1, 100, 20), (2, 255, 191), (0, 128, 96))
RECORDED_PIXELS = (-2.117904, 0.012605, 0.496209, 0.228187, 0.281485)
# Positions (keypoint, y, x) in the second one's heatmaps of made-up crops, and the mean of all magnitudes.
PLACES = ((0, 0, 0), (3, 31, 20), (9, 63, 47), (16, 10, 33))
RECORDED: Mapping[str, tuple[float, ...]] = {
    "simple": (0.984394, 0.204909, -0.052682, 3.620709, 1.095760),
    "classic": (0.128629, 0.790507, -1.469653, 1.190677, 0.786260),
    "plus": (0.719591, -1.823961, -0.239380, -0.329693, 0.781980),
}
RECORDED_POINTS = ((137.09599, 51.37040), (152.86549, 26.70250), (147.96240, 50.81630))


def made_up_crops() -> Tensor:
    noise = np.random.default_rng(3).normal(0, 1, (2, 256, 192, 3)).astype(np.float32)
    smooth = np.stack([cv2.GaussianBlur(each, (0, 0), 4) * 8 for each in noise])
    return torch.from_numpy(smooth.transpose(0, 3, 1, 2).copy())


def told(values: Tensor, places: Any) -> list[float]:
    return [float(values[1][place]) for place in places] + [float(values.abs().mean())]


def crops_of(model: Any) -> np.ndarray:
    return InstanceCrops.around(model.spec, BOXES).cut(an_image())


@pytest.mark.parametrize("kind", KINDS)
def test_heatmaps_are_those_that_transformers_computes(kind, tmp_path):
    model = load_model(write_vitpose(tmp_path / kind, kind))
    assert (model.spec.backbone, model.spec.targets) == ("vitpose_small", "udp")
    assert model.spec.neck == ("bilinear" if kind == "simple" else "upsampling")
    assert model.spec.skeleton == COCO
    assert set(model.spec.trained) == {"pose"}
    with torch.inference_mode():
        heatmaps = model.heatmaps(made_up_crops())
        assert heatmaps.shape == (2, 17, 64, 48)
        np.testing.assert_allclose(told(heatmaps, PLACES), RECORDED[kind], atol=1e-4)
        plain = model.heatmaps(torch.from_numpy(normalise(crops_of(model))))
    engine = HeatmapEngine(model, precision="float32").heatmaps(crops_of(model))
    assert float((engine - plain).abs().max()) < 1e-4


def test_crops_are_those_that_transformers_cuts(tmp_path):
    model = load_model(write_vitpose(tmp_path / "vitpose"))
    pixels = torch.from_numpy(normalise(crops_of(model), model.spec.mean, model.spec.std))
    # OpenCV rounds to whole levels of 256, 0.0175 here, and transformers does not.
    np.testing.assert_allclose(told(pixels, PIXELS), RECORDED_PIXELS, atol=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_itself_computes_the_same(kind, tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    folder, crops = write_vitpose(tmp_path / kind, kind), made_up_crops()
    theirs, ours = transformers.VitPoseForPoseEstimation.from_pretrained(folder).eval(), load_model(folder)
    index = {"dataset_index": torch.zeros(2, dtype=torch.int64)} if kind == "plus" else {}
    with torch.inference_mode():
        expected, heatmaps = theirs(crops, **index), ours.heatmaps(crops)
    assert float((expected.heatmaps - heatmaps).abs().max()) < 1e-4
    np.testing.assert_allclose(told(expected.heatmaps, PLACES), RECORDED[kind], atol=1e-4)

    processor, boxes = transformers.VitPoseImageProcessor(), [BOXES.tolist()]
    pixels = processor(an_image(), boxes=boxes, return_tensors="pt").pixel_values
    assert float((pixels - torch.from_numpy(normalise(crops_of(ours)))).abs().max()) < 0.02
    np.testing.assert_allclose(told(pixels, PIXELS), RECORDED_PIXELS, atol=1e-4)
    expected.heatmaps = torch.from_numpy(made_up_heatmaps())
    results = processor.post_process_pose_estimation(expected, boxes=boxes)[0]
    points = np.stack([result["keypoints"].numpy() for result in results])
    found, _ = InstanceCrops.around(ours.spec, BOXES).find(made_up_heatmaps())
    assert np.abs(points - found).max() < 1e-3
    np.testing.assert_allclose(points[1, ::8], RECORDED_POINTS, atol=1e-3)


def made_up_heatmaps() -> np.ndarray:
    chance = np.random.default_rng(2)
    places = np.stack([chance.uniform(6, 41, (2, 17)), chance.uniform(6, 57, (2, 17))], -1)
    return encode(places, (64, 48), 2.0)


def test_points_are_read_where_transformers_reads_them(tmp_path):
    spec = load_model(write_vitpose(tmp_path / "vitpose")).spec
    crops = InstanceCrops.around(spec, BOXES)
    found, scores = crops.find(made_up_heatmaps())
    np.testing.assert_allclose(found[1, ::8], RECORDED_POINTS, atol=1e-3)
    assert scores.min() > 0.9
    # What is drawn is found again, and the corners of the padded box are the corner pixels of the map.
    np.testing.assert_allclose(crops.find(crops.draw(found))[0], found, atol=0.02)
    box = np.array([20 + 30 - 46.875, 15 + 50 - 62.5, 93.75, 125.0])  # 100 * 3 / 4 by 100, times 1.25
    corner = encode(np.full((2, 17, 2), (47.0, 63.0)), (64, 48), 2.0)
    np.testing.assert_allclose(crops.find(corner)[0][0, 0], box[:2] + box[2:], atol=1e-3)
    points = np.array([[0.0, 0.0], [191.0, 255.0], [95.5, 127.5]])
    inside = crop_to_udp(points, (64, 48), (256, 192))
    np.testing.assert_allclose(inside, [[0, 0], [47, 63], [23.5, 31.5]])
    np.testing.assert_allclose(udp_to_crop(inside, (64, 48), (256, 192)), points)


def test_labels_and_peaks_of_propagation_lie_where_the_heatmaps_have_them(tmp_path):
    model = load_model(write_vitpose(tmp_path / "vitpose"))
    crops, keypoints = InstanceCrops.around(model.spec, BOXES), np.full((2, 17, 2), np.nan)
    keypoints[:, 3] = [[30.0, 101.0], [150.5, 33.25]]
    here = TrackCrops(np.arange(2), crops.cut(an_image()), tuple(crops.transforms()))
    seen = as_seen(here, model.spec)
    drawn = crops.draw(keypoints)
    found = find_peaks(torch.from_numpy(drawn), seen.transforms)
    np.testing.assert_allclose(found.points[:, 3], keypoints[:, 3], atol=0.02)
    visibility = np.full(17, 2, np.uint8)
    label = labelled_crop(0, keypoints[1], visibility, seen.transforms[1], HeatmapEngine(model))
    np.testing.assert_allclose(label.values.numpy(), drawn[1], atol=1e-5)
    # The labels of a recipe, in crops as for own clips.
    inside = crops.transforms()[1].to_crop(keypoints[1])
    np.testing.assert_allclose(label_heatmaps(inside, (256, 192), 2.0, "udp"), drawn[1], atol=1e-5)
    assert as_seen(here, replace(model.spec, targets="exact")) is here


def test_it_becomes_a_checkpoint_and_a_folder_of_ours(tmp_path):
    model = load_model(write_vitpose(tmp_path / "vitpose"))
    assert parameters_sha256(load_model(tmp_path / "vitpose")) == parameters_sha256(model)
    save_model(tmp_path / "model.pt", model)
    write_folder(tmp_path / "ours", model)
    for place in ("model.pt", "ours"):
        back = load_model(tmp_path / place)
        assert parameters_sha256(back) == parameters_sha256(model)
        assert (back.spec.targets, back.spec.neck) == ("udp", "bilinear")
    assert "simple decoder" in (tmp_path / "ours" / "README.md").read_text()


def test_other_keypoints_have_the_names_that_the_configuration_gives(tmp_path):
    names = {str(n): f"{'L' if n % 2 else 'R'}_Part{n // 2}" for n in range(17)}
    read = load_model(write_vitpose(tmp_path / "named", id2label=names, edges=[[0, 2]])).spec.skeleton
    assert read.names[:3] == ("right_part0", "left_part0", "right_part1")
    assert read.edges == ((0, 2),) and (0, 1) in read.flip_pairs
    plain = {str(n): f"LABEL_{n}" for n in range(17)}
    folder = write_vitpose(tmp_path / "plain", id2label=plain)
    assert load_model(folder).spec.skeleton == COCO
    mine = Skeleton(tuple(f"k{n}" for n in range(17)))
    assert load_model(folder, skeleton=mine).spec.skeleton == mine
    state = load_file(folder / "model.safetensors")
    state |= {name: state[name][:5].clone() for name in ("head.conv.weight", "head.conv.bias")}
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ModelError, match="5 keypoints, whose names"):
        load_model(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "vit"}, "neither a model of posewarper nor one of ViTPose"),
        ({"backbone_config": None}, "neither a model of posewarper nor one of ViTPose"),
        ({"scale_factor": 8}, "scale_factor 8, not 4"),
        ({"backbone": {"hidden_size": 17}}, "hidden_size"),
        ({"backbone": {"mlp_ratio": 3}}, "mlp_ratio 3, not 4"),
        ({"backbone": {"hidden_act": "relu"}}, "hidden_act relu"),
        ({"backbone": {"out_indices": [1]}}, "not the last block, 2"),
        ({"backbone": {"image_size": 256}}, "image_size"),
        ({"use_simple_decoder": False}, "12 missing"),
        ({"backbone": {"num_experts": 3}}, "4 missing"),
    ],
)
def test_a_configuration_of_another_network_is_refused(tmp_path, changes, message):
    folder = write_vitpose(tmp_path / "vitpose", **changes)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(folder)
    assert str(folder) in str(caught.value) and caught.value.fix


def test_tensors_that_do_not_fit_are_named(tmp_path):
    folder = write_vitpose(tmp_path / "vitpose", "plus")
    state = load_file(folder / "model.safetensors")
    layer = "backbone.encoder.layer.1"
    gone = state.pop(f"{layer}.mlp.experts.0.weight")
    save_file({**state, "extra": gone.clone()}, folder / "model.safetensors")
    with pytest.raises(
        ModelError, match=r"1 missing: backbone\S+1\.mlp\.fc2\.weight; \d left over: \S*"
    ) as caught:
        load_model(folder)
    assert "extra" in str(caught.value)
    bad = {**weights_of("plus"), f"{layer}.layernorm_after.bias": torch.zeros(3)}
    save_file(bad, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"1 misshapen: backbone\S+norm2\.bias \(3,\), not \(16,\)"):
        load_model(folder)
    bad = {**weights_of("plus"), "head.conv.bias": torch.full((17,), torch.nan)}
    save_file(bad, folder / "model.safetensors")
    with pytest.raises(ModelError, match="not numbers"):
        load_model(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot read the configuration"):
        load_model(folder)
