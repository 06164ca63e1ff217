"""Differences of the Triton kernels from torchvision, by case and by output or gradient, as JSON.

``test_triton_deformable.py`` runs it in Triton's interpreter, ``benchmarks/gpu.py`` on a GPU.
"""

from __future__ import annotations

import json

import torch
from torch import Tensor
from torchvision.ops import deform_conv2d

from posewarper.model.deformable import triton_form
from posewarper.model.triton_deformable import TritonConv, warp_backward, warp_forward

NAMES = ("output", "values", "offsets", "weight")


def reference(values: Tensor, offsets: Tensor, weight: Tensor, dilation: int) -> Tensor:
    return deform_conv2d(values, offsets, weight, padding=dilation, dilation=dilation)


def compare(values: Tensor, offsets: Tensor, weight: Tensor, dilation: int = 3) -> dict[str, float]:
    """Largest differences of output and gradients as shares of the largest number."""
    results = []
    above = torch.randn(len(values), len(weight), *values.shape[2:])
    for operation in (TritonConv.apply, reference):
        inputs = [t.clone().requires_grad_() for t in (values, offsets, weight)]
        output = operation(*inputs, dilation)
        output.backward(above)
        results.append([output.detach(), *(t.grad for t in inputs)])
    return {
        name: float((ours - theirs).abs().max() / theirs.abs().max())
        for name, ours, theirs in zip(NAMES, *results, strict=True)
    }


def offsets_of(kind: str, shape: tuple[int, ...]) -> Tensor:
    if kind == "zero":
        return torch.zeros(shape)
    if kind == "whole":
        return torch.randint(-5, 6, shape).float()
    if kind == "border":  # whole and half pixels within one and a half of the border
        return torch.randint(-1, 2, shape) * 4.5 + torch.randint(-3, 4, shape) / 2
    offsets = torch.randn(shape) * {"anywhere": 3, "far": 20}[kind]
    if kind == "far":
        offsets[:, ::7] *= 1e30
    return offsets


def compare_all(device: str) -> dict[str, dict[str, float]]:
    """Largest differences, by case and by output or gradient."""
    torch.set_default_device(device)  # of a process that does nothing else
    torch.manual_seed(0)
    cases = {}
    values, weight = torch.randn(2, 3, 9, 5), torch.randn(3, 3, 3, 3)
    for kind in ("zero", "whole", "border", "anywhere", "far"):
        cases[kind] = compare(values, offsets_of(kind, (2, 54, 9, 5)), weight)
    cases["more outputs"] = compare(
        torch.randn(1, 2, 8, 8), torch.randn(1, 36, 8, 8), torch.randn(20, 2, 3, 3)
    )
    cases["paper's width"] = compare(
        torch.randn(1, 17, 4, 5), torch.randn(1, 306, 4, 5) * 2, torch.randn(17, 17, 3, 3), 2
    )
    offsets = torch.randn(2, 54, 9, 5) * 2
    cases["channels last"] = compare(values, offsets.to(memory_format=torch.channels_last), weight)
    same = offsets[:1].expand(2, -1, -1, -1)
    difference = warp_forward(values, same, weight, 3) - reference(values, same, weight, 3)
    cases["expanded"] = {"output": float(difference.abs().max())}
    above = torch.randn(2, 3, 9, 5)
    all_three = warp_backward(values, offsets, weight, 3, above)
    cases["one at a time"] = {}
    for n, name in enumerate(NAMES[1:]):
        wanted = (n == 0, n == 1, n == 2)
        single = warp_backward(values, offsets, weight, 3, above, wanted)
        assert [t is not None for t in single] == list(wanted)
        cases["one at a time"][name] = float((single[n] - all_three[n]).abs().max())
    assert warp_forward(values[:0], offsets[:0], weight, 3).shape == (0, 3, 9, 5)
    # What is tried before the kernels are used on a GPU.
    assert triton_form(torch.device(device)) is not None
    return cases


if __name__ == "__main__":
    print(json.dumps(compare_all("cpu")))
