"""The deformable convolution and the warp head against the original's recorded numbers."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from formula_weights import made_up, original_name

from posewarper.model.deformable import deform_conv
from posewarper.model.heatmap_runner import HeatmapEngine
from posewarper.model.warping import WarpHead
from posewarper.prediction.windows import PAPER_OFFSETS, PAPER_WEIGHTS
from posewarper.training.steps import heatmap_loss
from window_sum import aggregate_heatmaps

# In float32 a few sampling positions fall on the other side of a whole number, where the slope jumps, so the
# gradients behind the offsets differ from the float64 ones by up to 9e-3, with torchvision's own operator
# (in float32 or float64) in our place just the same. What lies before them keeps the full tolerance.
_FLOAT32_STACK_GRADIENTS = 2e-2
Measures = Callable[[str], Callable[..., float]]
_KINDS = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-6)], ids=["float32", "float64"]
)


def made_up_head(keypoints: int, salt: str, dtype: torch.dtype) -> WarpHead:
    head = WarpHead(keypoints)
    state = {n: made_up(original_name(n), v.shape, salt) for n, v in head.state_dict().items()}
    head.load_state_dict(state)
    return head.to(dtype)


def test_the_formula_gives_the_check_values() -> None:
    first = made_up("offsets3.weight", (306, 128, 3, 3), "A").flatten()[:3]
    np.testing.assert_allclose(first, [0.002788759, 0.223195, -0.1097193], rtol=1e-6)
    first = made_up("deform_conv1.weight", (17, 17, 3, 3), "A").flatten()[:3]
    np.testing.assert_allclose(first, [0.01059455, -0.1069671, 0.02684107], rtol=1e-6)
    first = made_up("conv1.weight", (64, 3, 3, 3), "A").flatten()[:3]
    np.testing.assert_allclose(first, [-0.2915068, 0.1406327, 0.1770169], rtol=1e-6)
    first = made_up("bn1.running_var", (64,), "A")[:3]
    np.testing.assert_allclose(first, [1.150682, 0.7605874, 1.474974], rtol=1e-6)


@_KINDS
def test_deformable_convolution(
    parity_dir: Path, parity_error: Measures, dtype: torch.dtype, tolerance: float
) -> None:
    recorded, error = np.load(parity_dir / "deform_conv.npz"), parity_error("deform_conv.npz")
    dilations = sorted({int(m[1]) for key in recorded if (m := re.match(r"d(\d+)_output$", key))})
    assert dilations
    for d in dilations:
        inputs = [recorded["input"], recorded[f"d{d}_offset"], recorded["weight"]]
        values, offsets, weight = (torch.from_numpy(a).to(dtype).requires_grad_() for a in inputs)
        output = deform_conv(values, offsets, weight, d)
        assert error(output, recorded[f"d{d}_output"]) < tolerance
        if f"d{d}_grad_output" not in recorded:
            continue
        output.backward(torch.from_numpy(recorded[f"d{d}_grad_output"]).to(dtype))
        assert error(values.grad, recorded[f"d{d}_grad_input"]) < tolerance
        assert error(offsets.grad, recorded[f"d{d}_grad_offset"]) < tolerance
        assert error(weight.grad, recorded[f"d{d}_grad_weight"]) < tolerance


@_KINDS
def test_warp_head(parity_dir: Path, parity_error: Measures, dtype: torch.dtype, tolerance: float) -> None:
    recorded, error = np.load(parity_dir / "warp_head.npz"), parity_error("warp_head.npz")
    target = torch.from_numpy(recorded["ref_heatmaps"]).to(dtype)
    source = torch.from_numpy(recorded["sup_heatmaps"]).to(dtype)
    head = made_up_head(target.shape[1], str(recorded["salt"]), dtype).eval()
    with torch.inference_mode():
        features = head.features(source, target)
        assert error(features, recorded["offset_feats"]) < tolerance
        for n in range(len(head.dilations)):
            part = recorded[f"offsets{n + 1}_part"]
            offsets = head.offsets[n](features)[: part.shape[0], : part.shape[1]]
            assert error(offsets, part) < tolerance
            assert error(head.branch(n, source, features), recorded[f"warped{n + 1}"]) < tolerance
        output = head(source, source=source, target=target)
    assert error(output, recorded["output"]) < tolerance


@_KINDS
def test_warp_head_in_the_direction_of_propagation(
    parity_dir: Path, parity_error: Measures, dtype: torch.dtype, tolerance: float
) -> None:
    recorded, error = np.load(parity_dir / "warp_reverse.npz"), parity_error("warp_reverse.npz")
    reference = torch.from_numpy(recorded["ref_heatmaps"]).to(dtype)
    support = torch.from_numpy(recorded["sup_heatmaps"]).to(dtype)
    truth = torch.from_numpy(recorded["gt_heatmaps"]).to(dtype)
    head = made_up_head(reference.shape[1], str(recorded["salt"]), dtype).eval()
    with torch.inference_mode():
        features = head.features(reference, support)
        assert error(features, recorded["offset_feats"]) < tolerance
        for name, values in (("with_gt", truth), ("without_gt", reference)):
            for n in range(len(head.dilations)):
                moved = head.branch(n, values, features)
                assert error(moved, recorded[f"{name}_warped{n + 1}"]) < tolerance
            output = head(values, source=reference, target=support)
            assert error(output, recorded[f"{name}_output"]) < tolerance


@_KINDS
def test_aggregation_of_five_frames(
    parity_dir: Path, parity_error: Measures, dtype: torch.dtype, tolerance: float
) -> None:
    recorded, error = np.load(parity_dir / "pose_agg_head.npz"), parity_error("pose_agg_head.npz")
    places = {0: "current", -1: "prev1", -2: "prev2", 1: "next1", 2: "next2"}
    names = [places[offset] for offset in PAPER_OFFSETS]
    heatmaps = torch.stack([torch.from_numpy(recorded[f"heatmaps_{n}"]) for n in names]).to(dtype)
    head = made_up_head(heatmaps.shape[2], str(recorded["salt"]), dtype).eval()
    with torch.inference_mode():
        for name, source in zip(names, heatmaps, strict=True):
            warped = head(source, source=source, target=heatmaps[0])
            assert error(warped, recorded[f"warped_{name}"]) < tolerance
        output = aggregate_heatmaps(SimpleNamespace(warp=head), heatmaps, PAPER_WEIGHTS)  # type: ignore[arg-type]
    assert error(output, recorded["output"]) < tolerance
    # And as videos are predicted: neighbours in one batch, whatever instance they belong to.
    model = SimpleNamespace(warp=head, device=heatmaps.device, dtype=dtype, spec=None)
    engine = HeatmapEngine(model, precision="float32", batch=3)  # type: ignore[arg-type]
    n = heatmaps.shape[1]
    targets, shares = [*range(n)] * 4, np.repeat(PAPER_WEIGHTS[1:], n).tolist()
    streamed = engine.aggregate(
        heatmaps[0], [PAPER_WEIGHTS[0]] * n, heatmaps[1:].flatten(0, 1), targets, shares
    )
    assert error(streamed, recorded["output"]) < tolerance


@_KINDS
def test_a_training_step(
    parity_dir: Path, parity_error: Measures, dtype: torch.dtype, tolerance: float
) -> None:
    recorded, name = np.load(parity_dir / "warp_head_train_step.npz"), "warp_head_train_step.npz"
    error, error_behind = parity_error(name), parity_error(f"{name}, gradients behind the offsets")
    target, source = (torch.from_numpy(recorded[n]).to(dtype) for n in ("ref_heatmaps", "sup_heatmaps"))
    head = made_up_head(target.shape[1], str(recorded["salt"]), dtype).train()
    output = head(source, source=source, target=target)
    assert error(output, recorded["output"]) < tolerance
    wanted = torch.from_numpy(recorded["target"]).to(dtype)
    weights = torch.from_numpy(recorded["target_weight"]).to(dtype)[..., 0]
    loss = heatmap_loss(output, wanted, weights)
    assert error(loss, recorded["loss_f64"]) < tolerance
    loss.backward()
    gradients = {original_name(n): p.grad for n, p in head.named_parameters()}
    names = [str(n) for n in recorded["grad_names"]]
    assert sorted(names) == sorted(gradients)
    behind = tolerance if dtype == torch.float64 else _FLOAT32_STACK_GRADIENTS
    norms = torch.stack([gradients[n].norm() for n in names])
    assert error_behind(norms, recorded["grad_norms_f64"]) < behind / 10
    for key in recorded:
        kind, _, name = key.partition(":")
        if kind == "grad":
            assert error(gradients[name], recorded[key]) < tolerance, key
        elif kind == "grad_part":
            corner = gradients[name][tuple(slice(n) for n in recorded[key].shape)]
            measure, limit = (error_behind, behind) if name.startswith("offset_feats") else (error, tolerance)
            assert measure(corner, recorded[key]) < limit, key
        elif kind == "after":
            ours = {original_name(n): b for n, b in head.named_buffers()}[name]
            assert error(ours, recorded[key]) < tolerance, key
