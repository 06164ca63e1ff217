"""Frames a second of `posewarper predict`, one person at 720p: each frame alone, and five frames held.

    python benchmarks/predict_speed.py [--quick] [--ordinary] [--profile] [--json FILE]
    python benchmarks/predict_speed.py --video CLIP.mp4 --model model.pt --labels LABELS.json

The network is that of `propagate` (random weights and given boxes without --model, which cost the same, but
for following the person). `auto` is the engine that `predict` takes, `eager` the same in PyTorch. Everything
counts from the first frame decoded to the last pose written, without the start of Python and without the
overlay. Rows alternate, and medians are told: frames a second by the clock, milliseconds of all cores for a
frame, and frames a second that so much work would allow on all cores, which a busy machine does not spoil.

`--ordinary` runs everything as on a processor with AVX2 and without bfloat16: it sets
ONEDNN_MAX_CPU_ISA=AVX2 and ATEN_CPU_CAPABILITY=avx2 for PyTorch. onnxruntime has no such switch and goes on
with what the processor has; where that is AVX-512, its rows say nothing of ordinary processors.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

ORDINARY = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
SIZE = (720, 1280)
WAYS = {"one frame alone": {"aggregate": "none"}, "five frames held": {"crops": "held"}}
LOOP = 12  # pictures that are rendered


def make_video(path: Path, n_frames: int) -> list[Any]:
    """Write a video of one person and return the box (4,) of every frame."""
    import numpy as np

    from posewarper.demo.crowd import film_crowd, stage_crowd
    from posewarper.video.writing import write_video

    crowd = stage_crowd(1, SIZE, seed=1)
    shown = [film_crowd(crowd, float(t)) for t in range(LOOP)]
    order = [abs((n + LOOP) % (2 * LOOP) - LOOP) % LOOP for n in range(n_frames)]  # to and fro

    def pictures() -> Iterator[np.ndarray]:
        for n in order:
            yield shown[n][0]

    write_video(path, pictures(), fps=30)
    return [np.asarray(shown[n][1].boxes[:1], np.float64) for n in order]


def make_model() -> Any:
    """Return the network of `propagate` with random weights and a head that moves things."""
    import torch

    from posewarper.model.network import ModelSpec, PoseWarper
    from posewarper.options import NetworkConfig
    from posewarper.skeletons import COCO

    torch.manual_seed(0)
    own = NetworkConfig()
    head: dict[str, Any] = {"head_width": own.head_width, "head_blocks": own.head_blocks, "neck": own.neck}
    stages = {"pose": 1, "warp": 1}
    spec = ModelSpec(own.backbone, COCO, own.crop_size, 2.0, trained=stages, targets="exact", **head)
    model = PoseWarper(replace(spec, head_dilations=own.head_dilations))
    torch.nn.init.constant_(model.final_layer.bias, 0.9)  # type: ignore[arg-type]
    for offsets in model.warp_head.offsets:
        torch.nn.init.normal_(offsets.weight, std=0.02)
    return model.eval()


def measure(
    model: Any,
    *,
    n_frames: int = 120,
    rounds: int = 5,
    video: Path | None = None,
    labels: Path | None = None,
    engines: tuple[str, ...] = ("eager", "auto"),
    profiler: cProfile.Profile | None = None,
) -> list[dict[str, Any]]:
    """Return a row for each way to predict and engine; the profiler sees what is not ``eager``.

    Without a video one of ``n_frames`` is made.
    """
    import torch

    from posewarper.model.heatmap_runner import HeatmapEngine
    from posewarper.options import ClipPredictionConfig
    from posewarper.prediction import video as prediction

    seconds: dict[tuple[str, str], list[tuple[float, float]]] = {
        (way, engine): [] for way in WAYS for engine in engines
    }
    with tempfile.TemporaryDirectory() as folder:
        where: dict[str, Any] = {"labels": labels}
        if video is None:
            video = Path(folder) / "video.mp4"
            where = {"boxes": make_video(video, n_frames)}
        for n in range(rounds + 1):  # the first warms up
            for way, engine in seconds if n % 2 else reversed(seconds):
                prediction.HeatmapEngine = partial(HeatmapEngine, eager=engine == "eager")  # type: ignore[misc]
                config = ClipPredictionConfig.read(dict(WAYS[way]))
                seen = profiler if n and engine == "auto" else None
                begun, worked = time.perf_counter(), time.process_time()
                with seen or nullcontext():
                    poses = prediction.predict(str(video), model, config=config, **where).poses
                took, worked = time.perf_counter() - begun, time.process_time() - worked
                if n:
                    seconds[way, engine].append((took / poses.n_frames, worked / poses.n_frames))
    rows = []
    cores = min(os.cpu_count() or 1, torch.get_num_threads() + 1)  # the decoder has a thread of its own
    for (way, engine), own in seconds.items():
        took, worked = (statistics.median(column) for column in zip(*own, strict=True))
        row = {"name": f"{way}, {engine}", "fps": 1 / took, "cpu_ms": worked * 1e3}
        rows.append(row | {"possible_fps": cores / worked})
    return rows


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer frames and rounds")
    parser.add_argument("--ordinary", action="store_true", help="act as a processor without AVX-512")
    parser.add_argument("--profile", action="store_true", help="show where the time goes, by function")
    parser.add_argument("--video", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.ordinary and any(os.environ.get(name) != value for name, value in ORDINARY.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ORDINARY})
    import torch

    from posewarper.model.checkpoint import load_model
    from posewarper.model.runtime import half_precision

    model = make_model() if options.model is None else load_model(options.model).eval()
    profiler = cProfile.Profile() if options.profile else None
    n_frames, rounds = (48, 2) if options.quick else (120, 5)
    given = {"video": options.video, "labels": options.labels, "profiler": profiler}
    rows = measure(model, n_frames=n_frames, rounds=rounds, **given)
    for row in rows:
        print(
            f"{row['name']:32} {row['fps']:6.1f} frames a second, {row['cpu_ms']:6.1f} ms of work a frame "
            f"(at most {row['possible_fps']:5.1f} frames a second)"
        )
    machine = (
        f"{model.spec.backbone}, {torch.get_num_threads()} threads, {os.cpu_count()} cores, "
        f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, "
        f"bfloat16 {'on' if half_precision(torch.device('cpu'), model) else 'off'}"
    )
    print(machine)
    if options.ordinary and torch.cpu._is_avx512_supported():
        print("onnxruntime was not limited: this processor has AVX-512, and an ordinary one is slower there")
    if profiler is not None:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(25)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
