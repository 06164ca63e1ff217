"""The deformable convolution and the warp head against the original's recorded numbers."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from posewarper.model.deformable import deform_conv
from posewarper.model.warping import WarpHead
from posewarper.training.losses import heatmap_loss

# In float32 a few sampling positions fall on the other side of a whole number, where the slope jumps, so the
# gradients behind the offsets differ from the float64 ones by up to 9e-3, with torchvision's own operator
# (in float32 or float64) in our place just the same. What lies before them keeps the full tolerance.
_FLOAT32_STACK_GRADIENTS = 2e-2
_KINDS = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-6)], ids=["float32", "float64"]
)


def error(ours: torch.Tensor, theirs: np.ndarray) -> float:
    theirs = np.asarray(theirs, np.float64)
    ours = ours.detach().double().numpy()
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def original_name(name: str) -> str:
    """Our parameter's name in the original's state dict."""
    name = name.replace("residual_stack.", "offset_feats.")
    name = re.sub(r"^offsets\.(\d)\.", lambda m: f"offsets{int(m[1]) + 1}.", name)
    return re.sub(r"^kernels\.(\d)$", lambda m: f"deform_conv{int(m[1]) + 1}.weight", name)


def made_up(name: str, shape: torch.Size, salt: str) -> torch.Tensor:
    """The value that the parity page's formula gives for a tensor of the original's head."""
    rng = np.random.RandomState(zlib.crc32(f"{salt}:{name}".encode()))
    if name.endswith(".num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    n = rng.standard_normal(tuple(shape))
    centred = n - n.mean(axis=tuple(range(1, n.ndim)), keepdims=True) if n.ndim == 4 else n
    fan = np.sqrt(np.prod(n.shape[1:])) if n.ndim == 4 else 1.0
    if name.endswith(".running_mean") or name.endswith(".bias"):
        value = 0.1 * n
    elif name.endswith(".running_var"):
        value = 0.6 + 0.4 * np.abs(n)
    elif n.ndim == 1:
        value = 0.55 + 0.1 * n
    elif name.startswith("deform_conv"):
        value = n / fan
    elif name.startswith("offsets"):
        value = 3 * centred / fan
    else:
        value = np.sqrt(2) * centred / fan
    return torch.from_numpy(value.astype(np.float32))


def made_up_head(keypoints: int, salt: str, dtype: torch.dtype) -> WarpHead:
    head = WarpHead(keypoints)
    state = {n: made_up(original_name(n), v.shape, salt) for n, v in head.state_dict().items()}
    head.load_state_dict(state)
    return head.to(dtype)


def test_the_formula_gives_the_check_values() -> None:
    first = made_up("offsets3.weight", torch.Size((306, 128, 3, 3)), "A").flatten()[:3]
    np.testing.assert_allclose(first, [0.002788759, 0.223195, -0.1097193], rtol=1e-6)
    first = made_up("deform_conv1.weight", torch.Size((17, 17, 3, 3)), "A").flatten()[:3]
    np.testing.assert_allclose(first, [0.01059455, -0.1069671, 0.02684107], rtol=1e-6)


@_KINDS
def test_deformable_convolution(parity_dir: Path, dtype: torch.dtype, tolerance: float) -> None:
    recorded = np.load(parity_dir / "deform_conv.npz")
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
def test_warp_head(parity_dir: Path, dtype: torch.dtype, tolerance: float) -> None:
    recorded = np.load(parity_dir / "warp_head.npz")
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
    parity_dir: Path, dtype: torch.dtype, tolerance: float
) -> None:
    recorded = np.load(parity_dir / "warp_reverse.npz")
    reference = torch.from_numpy(recorded["ref_heatmaps"]).to(dtype)
    support = torch.from_numpy(recorded["sup_heatmaps"]).to(dtype)
    truth = torch.from_numpy(recorded["gt_heatmaps"]).to(dtype)
    head = made_up_head(reference.shape[1], str(recorded["salt"]), dtype).eval()
    with torch.inference_mode():
        from_labels = head(truth, source=reference, target=support)
        from_predictions = head(reference, source=reference, target=support)
    assert error(from_labels, recorded["with_gt_output"]) < tolerance
    assert error(from_predictions, recorded["without_gt_output"]) < tolerance


@_KINDS
def test_a_training_step(parity_dir: Path, dtype: torch.dtype, tolerance: float) -> None:
    recorded = np.load(parity_dir / "warp_head_train_step.npz")
    target, source = (torch.from_numpy(recorded[n]).to(dtype) for n in ("ref_heatmaps", "sup_heatmaps"))
    head = made_up_head(target.shape[1], str(recorded["salt"]), dtype).train()
    output = head(source, source=source, target=target)
    assert error(output, recorded["output"]) < tolerance
    wanted = torch.from_numpy(recorded["target"]).to(dtype)
    weights = torch.from_numpy(recorded["target_weight"]).to(dtype)[..., 0]
    loss = heatmap_loss(output, wanted, weights)
    assert abs(loss.item() / float(recorded["loss_f64"]) - 1) < tolerance
    loss.backward()
    gradients = {original_name(n): p.grad for n, p in head.named_parameters()}
    names = [str(n) for n in recorded["grad_names"]]
    assert sorted(names) == sorted(gradients)
    behind = tolerance if dtype == torch.float64 else _FLOAT32_STACK_GRADIENTS
    norms = torch.stack([gradients[n].double().norm() for n in names])
    assert error(norms, recorded["grad_norms_f64"]) < (tolerance if dtype == torch.float64 else 2 * tolerance)
    for key in recorded:
        if key.startswith("grad:"):
            assert error(gradients[key.removeprefix("grad:")], recorded[key]) < tolerance, key
        elif key.startswith("grad_part:"):
            gradient = gradients[key.removeprefix("grad_part:")]
            corner = gradient[tuple(slice(n) for n in recorded[key].shape)]
            assert error(corner, recorded[key]) < (behind if "offset_feats" in key else tolerance), key
        elif key.startswith("after:"):
            ours = {original_name(n): b for n, b in head.named_buffers()}[key.removeprefix("after:")]
            assert error(ours, recorded[key]) < tolerance, key
