"""Folding batch norms into convolutions leaves the function as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from posewarper.model.heatmap_runner import fold
from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.skeletons import Skeleton

THREE = Skeleton(("head", "tail", "fin"))


def small_model(backbone: str = "hrnet_w18_small") -> PoseWarper:
    """Return a network whose batch norms do something."""
    torch.manual_seed(0)
    spec = ModelSpec(backbone, THREE, (64, 64), 2.0, head_width=8, head_blocks=2, head_dilations=(1, 3))
    model = PoseWarper(spec).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.bias, std=0.3)
    nn.init.normal_(model.final_layer.weight, std=0.3)
    for conv in model.warp_head.modules():
        if isinstance(conv, nn.Conv2d):
            nn.init.normal_(conv.weight, std=0.05)
    return model


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the largest difference as a share of the largest value."""
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("backbone", ["hrnet_w18_small", "resnet18", "vit_tiny_patch16_224", "convnext_atto"])
def test_heatmaps_and_warps_stay(backbone) -> None:
    model = small_model(backbone)
    before = model.fingerprint()
    folded = fold(model)
    crops, maps = torch.randn(2, 3, 64, 64), torch.rand(2, 2, 3, 16, 16)
    with torch.inference_mode():
        assert apart(folded.heatmaps(crops), model.heatmaps(crops)) < 1e-5
        told, known = (net.warp(maps[0], source=maps[0], target=maps[1]) for net in (folded, model))
        assert apart(told, known) < 1e-5 and apart(known, maps[0]) > 0.1
    assert model.fingerprint() == before


def test_no_batch_norm_is_left_in_an_hrnet() -> None:
    model = small_model()
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fold(model).modules())


def test_halved_kernels_are_as_good_as_those_that_autocast_rounds() -> None:
    model = small_model()
    crops = torch.randn(4, 3, 64, 64)
    with torch.inference_mode():
        exact = model.heatmaps(crops)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            plain, folded = (net.heatmaps(crops).float() for net in (model, fold(model, halved=True)))
    assert float((folded - exact).std()) < 1.3 * float((plain - exact).std())
    head = fold(model, halved=True).warp_head
    assert all(layer.weight.dtype == torch.float32 for layer in head.offsets)


def test_what_cannot_be_traced_stays_as_it_is() -> None:
    class Moody(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, 4, 1), nn.BatchNorm2d(4))

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [self.layers(x if x.sum() > 0 else -x)]

    model = small_model()
    model.backbone, model.final_layer = Moody().eval(), nn.Conv2d(4, 3, 1)
    crops = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(fold(model).heatmaps(crops), model.heatmaps(crops))


def test_training_mode_is_refused() -> None:
    with pytest.raises(RuntimeError, match="eval"):
        fold(small_model().train())
