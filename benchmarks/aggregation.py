"""Seconds of five-frame aggregation, as the original does it and as videos are predicted here.

    python benchmarks/aggregation.py [--quick] [--device auto|cpu|cuda] [--json FILE]

HRNet-W48 at 384 x 288, one person, every frame of a stream of frames. `reference` is a plain version of the
original's inference: for each frame five backbone passes and five heads, torchvision's deformable
convolutions, float32 eager. The other rows are the engine of `posewarper predict` on crops that are there
already: `exact` cuts the neighbours with each frame's own box (5 backbone passes, 4 heads and the self-
warp, whose offsets are constants), `held` sees each frame once (1 backbone pass, 4 heads), `light` has a
head of 32 channels and 6 blocks in place of the paper's 128 and 20. Weights are random: they do not change
the time. Rows alternate, and medians are told; `speedup` is against `reference` in the same run. What the
rows with the paper's head give is compared with the reference's output (in bfloat16 that says little: no
trained network has such heatmaps).

Beside it the roofline: the arithmetic of each row over the rate at which this machine multiplies matrices.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

OFFSETS, WEIGHTS = (0, -1, -2, 1, 2), (0.3, 0.25, 0.1, 0.25, 0.1)
LIGHT = {"head_width": 32, "head_blocks": 6}
ROWS = ("reference", "exact-float32", "held-float32", "held-bfloat16", "light-bfloat16")
CROP = (384, 288)


def build(device: str, backbone: str, crop: tuple[int, int], **head: int) -> Any:
    """Return a model with random weights whose warp moves things by a pixel or two."""
    import torch

    from posewarper.model.network import ModelSpec, PoseWarper
    from posewarper.skeletons import POSETRACK

    torch.manual_seed(0)
    model = PoseWarper(ModelSpec(backbone, POSETRACK, crop, 3.0, trained={"pose": 1, "warp": 1}, **head))
    for offsets in model.warp_head.offsets:
        torch.nn.init.normal_(offsets.weight, std=0.002)
    return model.eval().to(device)


def reference(model: Any, crops: Any) -> Any:
    """Return the sum of five warped frames; crops (5, 3, H, W), the present one first."""
    import torch
    from torchvision.ops import deform_conv2d

    head = model.warp_head
    heatmaps = [model.heatmaps(crop[None]) for crop in crops]
    total = torch.zeros_like(heatmaps[0])
    for source, weight in zip(heatmaps, WEIGHTS, strict=True):
        features = head.residual_stack(heatmaps[0] - source)
        moved = [
            deform_conv2d(source, offsets(features), kernel, padding=d, dilation=d)
            for offsets, kernel, d in zip(head.offsets, head.kernels, head.dilations, strict=True)
        ]
        total += weight * torch.stack(moved).mean(0)
    return total


class Stream:
    """The engine on the crops of a stream of frames, in the order of `predict`."""

    def __init__(self, model: Any, images: Any, precision: str, *, held: bool) -> None:
        from posewarper.model.heatmap_runner import HeatmapEngine

        self.engine = HeatmapEngine(model, precision=precision, batch=5)
        self.images, self.held = images, held
        self.seen: list[Any] = []

    def step(self, n: int) -> Any:
        """Return the heatmaps of frame n from those of n - 2 to n + 2."""
        import torch

        if self.held:
            wanted = [n + 2] if self.seen else range(n - 2, n + 3)
            self.seen = [*self.seen, *(self.engine.heatmaps(self.images[i][None])[0] for i in wanted)][-5:]
            frames = {n - 2 + i: maps for i, maps in enumerate(self.seen)}
        else:
            found = self.engine.heatmaps(self.images[n - 2 : n + 3])
            frames = {n - 2 + i: maps for i, maps in enumerate(found)}
        sources = torch.stack([frames[n + o] for o in OFFSETS[1:]])
        return self.engine.aggregate(frames[n][None], [WEIGHTS[0]], sources, [0] * 4, WEIGHTS[1:])


def count_gflop(model: Any) -> dict[str, float]:
    """Return the arithmetic of one backbone pass and of one head, two operations a multiplication."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    place = next(model.parameters()).device
    crop = model.spec.crop_size
    maps = torch.zeros(1, 17, crop[0] // 4, crop[1] // 4, device=place)
    counts = {}
    jobs = {
        "backbone": lambda: model.heatmaps(torch.zeros(1, 3, *crop, device=place)),
        "head": lambda: [
            branch(model.warp_head.residual_stack(maps)) for branch in (*model.warp_head.offsets,)[:1]
        ],
    }
    for name, job in jobs.items():
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            job()
        counts[name] = counter.get_total_flops() / 1e9
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        features = torch.zeros(1, model.spec.head_width, *maps.shape[2:], device=place)
        for branch in model.warp_head.offsets[1:]:
            branch(features)
    counts["head"] += counter.get_total_flops() / 1e9
    return counts


def matrix_rate(device: str, kind: Any, size: int) -> float:
    """Return how many GFLOP a second this machine does in one product of matrices of ``size`` rows."""
    import torch

    a = torch.randn(size, size, device=device, dtype=kind)
    seconds = [timed(lambda: a @ a, device) for _ in range(6)][1:]
    return 2 * size**3 / min(seconds) / 1e9


def timed(work: Callable[[], Any], device: str) -> float:
    """Return the seconds that some work takes."""
    import torch

    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(
    device: str,
    rounds: int,
    backbone: str = "hrnet_w48",
    crop: tuple[int, int] = CROP,
    matrix: int = 2048,
    **head: int,
) -> dict[str, Any]:
    """Measure, print and return the table; sizes of network, crops, matrices and head may be others."""
    import numpy as np
    import torch

    from posewarper.crops import normalise

    images = np.random.default_rng(0).integers(0, 255, (rounds + 6, *crop, 3)).astype(np.uint8)
    model, light = (build(device, backbone, crop, **own) for own in (head, LIGHT))
    streams = {
        "exact-float32": Stream(model, images, "float32", held=False),
        "held-float32": Stream(model, images, "float32", held=True),
        "held-bfloat16": Stream(model, images, "bfloat16", held=True),
        "light-bfloat16": Stream(light, images, "bfloat16", held=True),
    }
    normalised = torch.from_numpy(normalise(images)).to(device)
    seconds: dict[str, list[float]] = {name: [] for name in ROWS}
    apart: dict[str, float] = {}
    with torch.inference_mode():
        for n in range(2, rounds + 3):  # the first round warms up, and fills what is held
            found: dict[str, Any] = {}

            def plainly(n: int = n, found: dict[str, Any] = found) -> None:
                found["reference"] = reference(model, normalised[[n + o for o in OFFSETS]])

            order = ROWS if n % 2 else ROWS[::-1]
            for name in order:
                if name == "reference":
                    took = timed(plainly, device)
                else:
                    took = timed(
                        lambda name=name, n=n, found=found: found.update({name: streams[name].step(n)}),
                        device,
                    )
                if n > 2:
                    seconds[name].append(took)
            peak = float(found["reference"].abs().max())
            for name in ROWS[1:4]:
                difference = float((found[name] - found["reference"]).abs().max()) / peak
                apart[name] = max(apart.get(name, 0.0), difference)
    gflop = {"paper": count_gflop(model), "light": count_gflop(light)}
    return report(seconds, apart, gflop, device, matrix)


def report(
    seconds: dict[str, list[float]],
    apart: dict[str, float],
    gflop: dict[str, dict[str, float]],
    device: str,
    matrix: int,
) -> dict[str, Any]:
    """Print the table and return it."""
    import torch

    paper, light = gflop["paper"], gflop["light"]
    work = {
        "reference": 5 * paper["backbone"] + 5 * paper["head"],
        "exact-float32": 5 * paper["backbone"] + 4 * paper["head"],
        "held-float32": paper["backbone"] + 4 * paper["head"],
        "held-bfloat16": paper["backbone"] + 4 * paper["head"],
        "light-bfloat16": light["backbone"] + 4 * light["head"],
    }
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    rates = {name: matrix_rate(device, kind, matrix) for name, kind in kinds.items()}
    base = statistics.median(seconds["reference"])
    rows = []
    for name, own in seconds.items():
        median = statistics.median(own)
        rate = rates["bfloat16" if name.endswith("bfloat16") else "float32"]
        row: dict[str, Any] = {
            "name": name,
            "median_seconds": round(median, 4),
            "speedup": round(base / median, 2),
        }
        row |= {"gflop": round(work[name], 1), "least_seconds": round(work[name] / rate, 4)}
        if name in apart:
            row["largest_difference"] = float(f"{apart[name]:.2g}")
        rows.append(row)
        difference = f"  differs by {apart[name]:.1e} of the peak" if name in apart else ""
        print(
            f"{name:16} {median:8.3f} s  {base / median:6.2f} x   {work[name]:6.0f} GFLOP, "
            f"at least {work[name] / rate:6.3f} s{difference}"
        )
    print(f"backbone {paper['backbone']:.1f} GFLOP, head {paper['head']:.1f}, light head {light['head']:.1f}")
    print(f"matrix products: {rates['float32']:.0f} GFLOP/s in float32, {rates['bfloat16']:.0f} in bfloat16")
    where = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    print(f"{where}, {os.cpu_count()} cores, torch {torch.__version__}")
    return {"device": where, "rows": rows, "gflop_per_second": {k: round(v) for k, v in rates.items()}}


def main() -> None:
    """Parse, measure, write if that is asked for."""
    import torch

    from posewarper.model.runtime import keep_memory

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    on_gpu = options.device != "cpu" and torch.cuda.is_available()
    keep_memory()
    content = measure("cuda" if on_gpu else "cpu", 3 if options.quick else 7)
    if options.json is not None:
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
