"""Seconds of the warp operator, forward and backward, beside torchvision's deformable convolution.

`grid-sample` is the form of ordinary operations on the whole batch, which runs on any device.

    python benchmarks/warp_op.py [--quick] [--json FILE] [--device cuda]

Five dilations over 17 heatmaps of 96x72, batch 16, float32: five calls of each. Gradients are those of
values, offsets and weights. Rows alternate, the order turning round every time; medians over rounds. The
`speedup` is against the reference row of the same kind in the same run. `--quick`: three rounds, not seven.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import deform_conv2d

from posewarper.model.deformable import deform_conv, plain_deform_conv

BATCH, KEYPOINTS, HEIGHT, WIDTH = 16, 17, 96, 72
DILATIONS = (3, 6, 12, 18, 24)
KINDS = ("forward", "forward-backward")


def reference(values: Tensor, offsets: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """Torchvision's operator with the arguments of ours."""
    return deform_conv2d(values, offsets, weight, padding=dilation, dilation=dilation)


FORMS: dict[str, Callable[..., Tensor]] = {
    "reference-": reference,
    "grid-sample-": plain_deform_conv,
    "": deform_conv,
}


def device_name(device: torch.device) -> str:
    """Return the processor's name, and the threads used where it is a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{(names or [platform.processor() or platform.machine()])[0]}, {torch.get_num_threads()} threads"


def seconds(operation: Callable[..., Tensor], kind: str, inputs: list[list[Tensor]], above: Tensor) -> float:
    """Return the time of five calls, one for each dilation, with their gradients or without."""
    device = above.device
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    with torch.set_grad_enabled(kind != "forward"):
        outputs = [operation(*some, d) for some, d in zip(inputs, DILATIONS, strict=True)]
        if kind != "forward":
            leaves = [inputs[0][0], *(t for some in inputs for t in some[1:])]
            torch.autograd.grad(outputs, leaves, [above] * len(outputs))
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def bytes_moved() -> dict[str, tuple[float, float]]:
    """Return what our kernels read from and write to a GPU's memory, and the least possible, for each kind.

    Least: each input is read and each result written once. Ours read the values once a dilation, and leave,
    backward, shares of the kernels' gradients that are added up, and a gradient of the values a dilation.
    """
    from posewarper.model.triton_deformable import backward_programs

    size, n = 4, len(DILATIONS)
    maps = BATCH * KEYPOINTS * HEIGHT * WIDTH * size
    offsets, weight = maps * 18, KEYPOINTS**2 * 9 * size
    forward = n * (offsets + weight + maps)
    # Read: offsets, weights, the gradient from above (and values, below); written: gradients.
    backward = n * (2 * offsets + 2 * weight + maps)
    shares = 2 * weight * BATCH * backward_programs(HEIGHT, WIDTH)
    return {
        "forward": (forward + n * maps, forward + maps),
        # The gradient of the values is set to zero, added to and read to be summed over dilations.
        "forward-backward": (
            forward + n * maps + backward + n * (maps + shares) + n * 4 * maps,
            forward + maps + backward + 2 * maps,
        ),
    }


def measure(device: torch.device, rounds: int, batch: int = BATCH) -> dict[str, Any]:
    """Return the device's name and a row with median and speed-up for each operation and kind."""
    torch.manual_seed(0)
    values = torch.rand(batch, KEYPOINTS, HEIGHT, WIDTH, device=device).requires_grad_()
    shape = (batch, KEYPOINTS * 18, HEIGHT, WIDTH)
    inputs = [
        [
            values,
            (torch.randn(shape, device=device) * 2).requires_grad_(),
            torch.randn(KEYPOINTS, KEYPOINTS, 3, 3, device=device).requires_grad_(),
        ]
        for _ in DILATIONS
    ]
    above = torch.randn_like(values)
    rows = {f"{prefix}{kind}": (form, kind) for kind in KINDS for prefix, form in FORMS.items()}
    times: dict[str, list[float]] = {name: [] for name in rows}
    for n in range(rounds + 1):
        for name in list(rows)[:: 1 if n % 2 else -1]:
            # The first round only warms up; on a CPU torchvision's backward, which takes longest, needs none.
            if n or device.type == "cuda" or name != "reference-forward-backward":
                taken = seconds(*rows[name], inputs, above)
                times[name] += [taken] if n else []
    medians = {name: statistics.median(t) for name, t in times.items()}
    return {
        "device": device_name(device),
        "rows": [
            {
                "name": name,
                "median_seconds": float(f"{medians[name]:.4g}"),
                "speedup": round(medians[f"reference-{kind}"] / medians[name], 2),
            }
            for name, (_, kind) in rows.items()
        ],
    }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three rounds: within 5 minutes on 2 cores")
    parser.add_argument("--json", metavar="FILE", help="write device and rows")
    parser.add_argument("--device", default="cpu", help="cpu or cuda; cpu unless told")
    options = parser.parse_args()
    device = torch.device(options.device)
    report = measure(device, 3 if options.quick else 7)
    print(report["device"])
    for row in report["rows"]:
        print(f"{row['median_seconds']:10.4f} s {row['speedup']:7.2f} x  {row['name']}")
    if device.type == "cuda":
        medians = {row["name"]: row["median_seconds"] for row in report["rows"]}
        for kind, (ours, least) in bytes_moved().items():
            rate = ours / medians[kind] / 1e9
            print(f"{kind}: {ours / 1e6:.0f} MB moved, least possible {least / 1e6:.0f} MB, {rate:.0f} GB/s")
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
