"""The head that doubles feature maps: sizes, channels, and that nothing is shifted."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from posewarper.model.backbone import WIDTH, UpsamplingHead


@pytest.mark.parametrize("doublings", [1, 2, 3])
def test_each_doubling_doubles_both_sides(doublings):
    head = UpsamplingHead(5, doublings, width=7)
    out = head(torch.rand(2, 5, 3, 4))
    assert out.shape == (2, head.channels, 3 * 2**doublings, 4 * 2**doublings)
    assert head.channels == 7
    assert out.min() >= 0


def test_without_doublings_the_map_leaves_as_it_came():
    head = UpsamplingHead(5, 0)
    features = torch.randn(2, 5, 3, 4)
    assert head.channels == 5
    assert torch.equal(head(features), features)
    assert UpsamplingHead(5, 1).channels == WIDTH == 256


def test_what_is_around_a_pixel_lies_evenly_around_it_when_doubled():
    head = UpsamplingHead(1, 2, width=1).eval()
    for layer in head:
        if isinstance(layer, nn.ConvTranspose2d):
            nn.init.ones_(layer.weight)
    features = torch.zeros(1, 1, 6, 8)
    features[0, 0, 2, 5] = 1
    with torch.inference_mode():
        out = head(features)[0, 0]
    # The centre of pixel i is at 4 i + 1.5 in a map of four times the size.
    rows, columns = torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing="ij")
    assert (out * rows).sum() / out.sum() == pytest.approx(2 * 4 + 1.5, abs=1e-5)
    assert (out * columns).sum() / out.sum() == pytest.approx(5 * 4 + 1.5, abs=1e-5)
    assert out[0].sum() == 0


def test_every_parameter_gets_a_gradient_and_the_norms_count_batches():
    head = UpsamplingHead(4, 2, width=6)
    head(torch.rand(2, 4, 3, 4)).square().sum().backward()
    assert [n for n, p in head.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert {int(v) for n, v in head.named_buffers() if n.endswith("num_batches_tracked")} == {1}
