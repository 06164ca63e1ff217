"""Whole networks: checkpoints with the original's and mmpose's names, from files, and what they compute.

The weights are made by the formula of the parity page. The names and shapes come from the lists there, not
from our network.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from formula_weights import HEAD, made_up, mmpose_name, original_name, read_names, shape_of
from largest_errors import record
from torch import Tensor

from posewarper.model.checkpoint import load_model
from posewarper.model.heatmap_runner import HeatmapEngine
from posewarper.model.network import ModelSpec, PoseWarper, count_parameters
from posewarper.prediction.windows import PAPER_WEIGHTS
from posewarper.skeletons import COCO, POSETRACK, Skeleton
from window_sum import aggregate_heatmaps

pytestmark = pytest.mark.slow
Measures = Callable[[str], Callable[..., float]]
PAIRS, WINDOWS = "posewarper_full_w48.npz", "poseagg_full_w48.npz"
_KINDS = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-6)], ids=["float32", "float64"]
)

# That both files fill the same network with the same numbers is tested too; float64 runs one of them.
_FROM_FILES = pytest.mark.parametrize(
    ("kind", "dtype", "tolerance"),
    [
        ("original", torch.float32, 1e-4),
        ("original", torch.float64, 1e-6),
        ("mmpose", torch.float32, 1e-4),
    ],
    ids=["original-float32", "original-float64", "mmpose-float32"],
)


@pytest.fixture(scope="module")
def weights(parity_dir: Path) -> dict[str, Tensor]:
    """All 2,010 tensors of the original's PoseWarper by their names."""
    salt = str(np.load(parity_dir / PAIRS)["salt"])
    rows = read_names(parity_dir / "state_dict_names_posewarper_w48.csv")
    return {name: made_up(name, shape_of(row), salt) for name, row in rows.items()}


def load_saved(content: object, place: Path, *, legacy: bool = False, **given: Skeleton | None) -> PoseWarper:
    """What is read from a file with this content; the file is large and goes away."""
    torch.save(content, place, _use_new_zipfile_serialization=not legacy)
    try:
        return load_model(place, **given)
    finally:
        place.unlink()


@pytest.fixture(scope="module")
def models(weights, tmp_path_factory) -> dict[str, PoseWarper]:
    renamed = {mmpose_name(name): value for name, value in weights.items()}
    meta = {"mmpose_version": "0.x", "hook_msgs": {"best_score": np.float64(0.8)}}
    place = tmp_path_factory.mktemp("released") / "weights.pth"
    return {
        "original": load_saved(weights, place),
        "mmpose": load_saved({"meta": meta, "state_dict": renamed}, place),
    }


def is_head(name: str) -> bool:
    return name.startswith(HEAD)


def assert_holds(model: PoseWarper, weights: dict[str, Tensor]) -> None:
    """The model holds exactly these weights, each at the place that the other mapping gives it."""
    state = {original_name(name): value for name, value in model.state_dict().items()}
    assert weights.keys() <= state.keys()
    assert all(torch.equal(state[name], value) for name, value in weights.items())


def tensors(recorded, *names: str, dtype: torch.dtype) -> list[Tensor]:
    return [torch.from_numpy(recorded[name]).to(dtype) for name in names]


# --- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["posewarper", "poseagg"])
def test_all_names_and_shapes_map_one_to_one(parity_dir, stage):
    rows = read_names(parity_dir / f"state_dict_names_{stage}_w48.csv")
    with torch.device("meta"):
        model = PoseWarper(ModelSpec("hrnet_w48", POSETRACK, (384, 288), 3.0))
    parameters = dict(model.named_parameters())
    ours = {
        original_name(name): (
            tuple(value.shape),
            str(value.dtype).removeprefix("torch."),
            "parameter" if name in parameters else "buffer",
        )
        for name, value in model.state_dict().items()
    }
    assert len(ours) == len(model.state_dict()) == len(rows) == 2010
    assert ours == {name: (shape_of(row), row["dtype"], row["kind"]) for name, row in rows.items()}
    assert sum(not is_head(name) for name in ours) == 1754
    record(f"state_dict_names_{stage}_w48.csv", 0.0, "exact")


def test_what_the_warper_s_training_trains(parity_dir):
    rows = read_names(parity_dir / "state_dict_names_posewarper_w48.csv")
    theirs = {name for name, row in rows.items() if row["trained_in_posewarper_stage"] == "1"}
    model = PoseWarper(ModelSpec("hrnet_w48", POSETRACK, (128, 96), 3.0))
    # A training step as it is: only what the head owns gets a gradient, and all of it does.
    crops = torch.rand(2, 2, 3, 64, 64)
    with torch.no_grad():
        target, source = model.heatmaps(crops[0]), model.heatmaps(crops[1])
    model.warp(source, source=source, target=target).square().mean().backward()
    ours = {original_name(name): p for name, p in model.named_parameters() if p.grad is not None}
    assert ours.keys() == theirs
    assert len(ours) == 133
    assert sum(p.numel() for p in ours.values()) == 7_558_605
    assert count_parameters(model) == 71_154_350


# --- the backbone -----------------------------------------------------------------------------------------


@_KINDS
@pytest.mark.parametrize("backbone", ["hrnet_w32", "hrnet_w48"])
def test_the_pose_network_and_its_stages(parity_dir, parity_error: Measures, backbone, dtype, tolerance):
    recorded, error = np.load(parity_dir / f"{backbone}.npz"), parity_error(f"{backbone}.npz")
    model = PoseWarper(ModelSpec(backbone, POSETRACK, (128, 96), 3.0, head_blocks=1)).eval()
    salt, state = str(recorded["salt"]), model.state_dict()
    seen = {name: original_name(name) for name in state if not name.startswith("warp_head.")}
    state.update({name: made_up(theirs, state[name].shape, salt) for name, theirs in seen.items()})
    model.load_state_dict(state)
    taps: dict[str, Tensor] = {}

    def keep(stage: str) -> Callable[..., None]:
        return lambda _, __, branches: taps.update({f"{stage}_b{n}": b for n, b in enumerate(branches)})

    for stage in ("stage2", "stage3", "stage4"):
        model.backbone.get_submodule(stage).register_forward_hook(keep(stage))
    layer1 = model.backbone.get_submodule("layer1")
    layer1.register_forward_hook(lambda _, __, output: taps.update(layer1=output))
    with torch.inference_mode():
        output = model.to(dtype).heatmaps(*tensors(recorded, "input", dtype=dtype))
    assert error(output, recorded["output"]) < tolerance
    names = {key.removeprefix("tap_") for key in recorded if key.startswith("tap_")}
    assert names == taps.keys() and len(names) == 7
    for name, tap in taps.items():
        assert error(tap[:, :8, ::4, ::4], recorded[f"tap_{name}"]) < tolerance
        assert error(torch.stack([tap.mean(), tap.std()]), recorded[f"tapstat_{name}"]) < tolerance


# --- from files -------------------------------------------------------------------------------------------


@_FROM_FILES
def test_a_pair_of_frames(models, parity_dir, parity_error: Measures, kind, dtype, tolerance):
    recorded, error = np.load(parity_dir / PAIRS), parity_error(PAIRS)
    model = copy.deepcopy(models[kind]).to(dtype)
    images, truth = tensors(recorded, "input", "gt_heatmaps", dtype=dtype)
    with torch.inference_mode():
        reference, support = (model.heatmaps(images[:, n : n + 3]) for n in (0, 3))
        output = model.warp(support, source=support, target=reference)
        propagated = model.warp(truth, source=reference, target=support)
        (whole,) = model(images[:, :3], [images[:, 3:]])
    assert error(reference, recorded["backbone_heatmaps_ref"]) < tolerance
    assert error(support, recorded["backbone_heatmaps_sup"]) < tolerance
    assert error(output, recorded["output"]) < tolerance
    assert error(whole, recorded["output"]) < tolerance
    assert error(propagated, recorded["reverse_with_gt_output"]) < tolerance


@_FROM_FILES
def test_five_frames(models, parity_dir, parity_error: Measures, kind, dtype, tolerance):
    recorded, error = np.load(parity_dir / WINDOWS), parity_error(WINDOWS)
    model = copy.deepcopy(models[kind]).to(dtype)
    frames = tensors(recorded, "input", dtype=dtype)[0].unflatten(1, (5, 3)).transpose(0, 1)
    with torch.inference_mode():
        heatmaps = torch.stack([model.heatmaps(frame) for frame in frames])
        output = aggregate_heatmaps(model, heatmaps, PAPER_WEIGHTS)
    n = frames.shape[1]
    shares = np.repeat(PAPER_WEIGHTS[1:], n).tolist()
    streamed = HeatmapEngine(model, precision="float32").aggregate(
        heatmaps[0], [PAPER_WEIGHTS[0]] * n, heatmaps[1:].flatten(0, 1), [*range(n)] * 4, shares
    )
    assert error(streamed, recorded["output"]) < tolerance
    assert error(heatmaps, recorded["backbone_heatmaps"]) < tolerance
    assert error(output, recorded["output"]) < tolerance


def test_every_weight_has_its_place(weights, models):
    for kind, title in (("original", "of the original"), ("mmpose", "of mmpose 0.x, stage 2")):
        assert_holds(models[kind], weights)
        spec = models[kind].spec
        assert (spec.backbone, spec.skeleton) == ("hrnet_w48", POSETRACK)
        assert (spec.crop_size, spec.sigma) == ((384, 288), 3.0)
        assert (spec.head_width, spec.head_blocks, spec.head_dilations) == (128, 20, (3, 6, 12, 18, 24))
        assert spec.trained.keys() == {"pose", "warp"} and spec.provenance["weights"].endswith(title)


@pytest.mark.parametrize("form", ["plain", "module", "legacy", "wrapped", "mmpose"])
def test_pose_networks_alone(weights, tmp_path, form):
    pose = {name: value for name, value in weights.items() if not is_head(name)}
    assert len(pose) == 1754
    first = {f"backbone.{n}" if "final" not in n else f"keypoint_head.{n}": v for n, v in pose.items()}
    content = {
        "module": {f"module.{name}": value for name, value in pose.items()},
        "wrapped": {"epoch": 20, "state_dict": pose, "optimizer": {"state": {}}},
        "mmpose": {"meta": {"epoch": 10}, "state_dict": first},
    }.get(form, pose)
    skeleton = COCO if form == "plain" else None
    model = load_saved(content, tmp_path / "pose.pth", legacy=form == "legacy", skeleton=skeleton)
    assert_holds(model, pose)
    assert model.spec.trained == {"pose": 1}
    assert model.spec.skeleton == (COCO if form == "plain" else POSETRACK)
    # The head is the paper's start: it returns heatmaps as they are.
    values, source, target = torch.rand(3, 1, 17, 16, 12)
    with torch.inference_mode():
        torch.testing.assert_close(model.warp(values, source=source, target=target), values)


def test_the_whole_with_the_prefix(weights, tmp_path):
    content = {f"module.{name}": value for name, value in weights.items()}
    assert_holds(load_saved(content, tmp_path / "model.pth"), weights)
