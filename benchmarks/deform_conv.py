"""Seconds of the deformable convolution: torchvision's operator, ours, and ours with memory kept.

    python benchmarks/deform_conv.py [--quick] [--json FILE]

One process a row and round, in alternating order, since the allocator's thresholds belong to a process;
medians over rounds. `speedup` is against torchvision in the same run.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time

SIZES = {"clip": (8, 17, 48, 48), "paper": (16, 17, 96, 72)}
ROWS = ("torchvision", "posewarper", "posewarper, memory kept")
DILATIONS = (3, 6, 12, 18, 24)


def measure(row: str, size: tuple[int, int, int, int], repeats: int) -> dict[str, float]:
    """Return median seconds of forward and of backward over the five dilations, in this process."""
    import torch
    from torchvision.ops import deform_conv2d

    from posewarper.model.deformable import deform_conv
    from posewarper.model.runtime import keep_memory

    if row.endswith("memory kept"):
        keep_memory()
    torch.manual_seed(0)
    b, c, h, w = size
    values, weight = torch.rand(size), torch.randn(c, c, 3, 3).requires_grad_()
    offsets = [torch.randn(b, c * 18, h, w).requires_grad_() for _ in DILATIONS]

    def operation(offset: torch.Tensor, dilation: int) -> torch.Tensor:
        if row == "torchvision":
            return deform_conv2d(values, offset, weight, padding=dilation, dilation=dilation)
        return deform_conv(values, offset, weight, dilation)

    forward, backward = [], []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        loss = sum(operation(o, d).square().mean() for o, d in zip(offsets, DILATIONS, strict=True))
        middle = time.perf_counter()
        loss.backward()
        forward.append(middle - start)
        backward.append(time.perf_counter() - middle)
    return {"forward": statistics.median(forward[1:]), "backward": statistics.median(backward[1:])}


def run_all(rounds: int, repeats: int, sizes: list[str]) -> list[dict[str, object]]:
    """Return a row for each size, implementation and pass."""
    rows = []
    for size in sizes:
        times: dict[str, list[dict[str, float]]] = {row: [] for row in ROWS}
        for n in range(rounds):
            for row in ROWS if n % 2 == 0 else ROWS[::-1]:
                command = [sys.executable, __file__, "--one", row, "--size", size, "--repeats", str(repeats)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                times[row].append(json.loads(done.stdout))
        for part in ("forward", "backward", "both"):
            medians = {
                row: statistics.median(
                    t["forward"] + t["backward"] if part == "both" else t[part] for t in ts
                )
                for row, ts in times.items()
            }
            rows += [
                {
                    "name": f"{size} {SIZES[size]}, {part}: {row}",
                    "median_seconds": round(seconds, 4),
                    "speedup": round(medians["torchvision"] / seconds, 2),
                }
                for row, seconds in medians.items()
            ]
    return rows


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the small size alone, fewer rounds")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--one", choices=ROWS, help=argparse.SUPPRESS)
    parser.add_argument("--size", choices=SIZES, default="clip", help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, SIZES[options.size], options.repeats)))
        return
    rows = run_all(2, 2, ["clip"]) if options.quick else run_all(3, 3, list(SIZES))
    for row in rows:
        print(f"{row['median_seconds']:9.4f} s  {row['speedup']:6.2f} x  {row['name']}")
    if options.json:
        report = {"device": platform.processor() or platform.machine(), "rows": rows}
        with open(options.json, "w", encoding="utf-8") as handle:
            json.dump(report, handle, indent=1)


if __name__ == "__main__":
    main()
