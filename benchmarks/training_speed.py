"""Samples per second of training, its frames read and cut by workers or in the main process.

    python benchmarks/training_speed.py [--quick] [--device auto|cpu|cuda] [--workers N] [--json FILE]

The training loop itself (`posewarper train`), two epochs on JPEG frames of 1280 x 720; the figure is the one
that it writes into log.jsonl, without the first epoch, in which workers start. Rows alternate, and medians
over rounds are told. Beside them the same loop on samples that are there already, which is as fast as the
network alone can learn. On a GPU the paper's network is trained (HRNet-W48, crops 384 x 288, bfloat16),
on a CPU a small one (hrnet_w18_small, crops 128 x 96). `speedup` is against the main process of the run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from input_pipeline import draw_samples, make_frames

if TYPE_CHECKING:
    from posewarper.structures import Progress
    from posewarper.training.engine import Run
    from posewarper.training.samples import VideoFrames

STAGES = ("pose", "warper")
SETTINGS = {
    "cuda": {
        "model": {"backbone": "hrnet_w48", "crop_size": (384, 288), "sigma": 3},
        "train": {"batch_per_device": 16, "precision": "bfloat16"},
    },
    "cpu": {
        "model": {
            "backbone": "hrnet_w18_small",
            "crop_size": (128, 96),
            "sigma": 2,
            "head_width": 32,
            "head_blocks": 4,
            "head_dilations": (1, 3, 6),
        },
        "train": {"batch_per_device": 16},
    },
}


def build(
    stage: str,
    device: str,
    workers: int | None,
    video: VideoFrames,
    n_samples: int,
    folder: Path,
    progress: Progress = lambda what, done, total: None,
) -> Run:
    """Return a training of two epochs; ``workers`` None for samples that are made once, in the first."""
    from posewarper.model.network import ModelSpec, PoseWarper
    from posewarper.model.runtime import keep_memory
    from posewarper.options import Recipe
    from posewarper.skeletons import POSETRACK
    from posewarper.training.batches import TrainingSet
    from posewarper.training.engine import Run, make_accelerator

    class Made(TrainingSet):
        """Each sample is made once."""

        @cache  # noqa: B019 - as long as the set
        def _made(self, index: int) -> dict[str, Any]:
            return super().__getitem__((0, index))

        def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
            return self._made(key[1])

    settings = SETTINGS[device]
    train = {"stage": stage, "epochs": 2, "workers": workers or 0, "targets": "paper", **settings["train"]}
    recipe = Recipe.read({"model": settings["model"], "train": train})
    model = PoseWarper(
        ModelSpec(skeleton=POSETRACK, **settings["model"], trained={"pose": 1})  # type: ignore[arg-type]
    )
    kind = Made if workers is None else TrainingSet
    training_set = kind(
        draw_samples(video, video.n_frames, n_samples),
        crop_size=model.spec.crop_size,
        sigma=model.spec.sigma,
        augmentation=recipe.augmentation,
        pairs=stage == "warper",
    )
    keep_memory()
    return Run(recipe, model, training_set, folder, make_accelerator(device), progress=progress)


def measure(stage: str, device: str, workers: int | None, video: VideoFrames, n_samples: int) -> float:
    """Return samples per second of the second epoch; ``workers`` None for samples that are there already."""
    with tempfile.TemporaryDirectory() as folder:
        build(stage, device, workers, video, n_samples, Path(folder)).train()
        lines = [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines()]
    return next(line["samples_per_second"] for line in reversed(lines) if "samples_per_second" in line)


def main() -> None:
    """Make the frames, train, print a table."""
    import torch

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer samples and rounds")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    on_gpu = options.device != "cpu" and torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    rounds, n_samples = (1, 64) if options.quick else (3, 1600 if on_gpu else 320)
    cases = [(stage, workers) for stage in STAGES for workers in (0, options.workers, None)]
    found: dict[tuple[str, int | None], list[float]] = {case: [] for case in cases}
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        video = make_frames(Path(temporary), 300)["JPEG files"]
        for n in range(rounds):
            for stage, workers in cases if n % 2 == 0 else cases[::-1]:
                found[stage, workers].append(measure(stage, device, workers, video, n_samples))
    rows = []
    for (stage, workers), rates in found.items():
        median, base = statistics.median(rates), statistics.median(found[stage, 0])
        source = {None: "samples there already", 0: "main process"}.get(workers, f"{workers} workers")
        name = f"{stage}, {source}"
        rows.append({"name": name, "median": median, "unit": "samples per second"})
        rows[-1] |= {"lowest": min(rates), "highest": max(rates), "speedup": round(median / base, 2)}
        print(f"{median:9.1f} samples/s  {median / base:6.2f} x  {name}")
    where = torch.cuda.get_device_name() if on_gpu else platform.processor() or platform.machine()
    print(f"{where}, {os.cpu_count()} cores, torch {torch.__version__}")
    if options.json is not None:
        report = {"device": where, "cores": os.cpu_count(), "rows": rows}
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
