"""Errors on later frames of a clip that a model was fitted to, clean and spoiled: one frame or five.

    python benchmarks/spoiled_frames.py CLIP.mp4 DENSE.json --out DIR [--frames N]

Every 15th label of the clip's first two thirds is kept, and a model is fitted to it (`posewarper.fit`, effort
normal). On its pose network two more warp heads are trained with `posewarper train`: one of the paper's size
(128 channels, 20 blocks, five dilations) on the same labels, and a light one (32 channels, 6 blocks) that
matches it. The last third is predicted with the boxes of the dense labels: each frame alone, and five frames
with each head. Clean, and with every third frame spoiled: blurred along its rows, noisy, or with a grey bar
over part of each box. Errors in percent of the longer side of the label's box, on the spoiled frames (of the
clean clip: on the same frames). Beside it how far keypoints (in pixels of the crop) and summed heatmaps (in
percent of their peak) move in bfloat16.

Models stay in DIR and are used again; a training that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posewarper import fit, load_model, open_video, read_labels
from posewarper.formats.labels import write_labels
from posewarper.geometry import pad_box
from posewarper.model.checkpoint import save_model
from posewarper.model.heatmap_runner import HeatmapEngine
from posewarper.prediction.boxes import boxes_of_labels
from posewarper.prediction.stream import CropKeeper, FramePoses, PoseStream
from posewarper.prediction.windows import WINDOWS

EVERY, SPOILED_EVERY = 15, 3
PAPER_HEAD = ("model.head_width=128", "model.head_blocks=20", "model.head_dilations=[3,6,12,18,24]")
LIGHT_HEAD = ("model.head_width=32", "model.head_blocks=6", "model.head_dilations=[3,6,12,18,24]")
WAYS = (  # what is summed, which head warps
    ("none", "fitted"),
    ("paper", "fitted"),
    ("paper", "paper's"),
    ("paper", "light"),
)


def blur(image: np.ndarray, boxes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur along the rows by a tenth of the largest box."""
    length = max(3, int(0.1 * boxes[:, 2:].max()) | 1)
    return cv2.blur(image, (length, 1))


def add_noise(image: np.ndarray, boxes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add noise with a deviation of 40 levels."""
    return np.clip(image + rng.normal(0, 40, image.shape), 0, 255).astype(np.uint8)


def cover(image: np.ndarray, boxes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lay a grey bar over 30 percent of each box."""
    image = image.copy()
    for x, y, w, h in boxes:
        top = y + rng.uniform(0, 0.7) * h
        cv2.rectangle(image, (int(x), int(top)), (int(x + w), int(top + 0.3 * h)), (120, 120, 120), -1)
    return image


SPOILERS: dict[str, Callable[..., np.ndarray]] = {
    "clean": lambda image, boxes, rng: image,
    "blurred": blur,
    "noisy": add_noise,
    "covered": cover,
}


class RecordingEngine(HeatmapEngine):
    """Keeps the summed heatmaps, for comparison."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.summed: list[Tensor] = []

    def aggregate(
        self,
        present: Tensor,
        own_shares: Sequence[float],
        sources: Tensor,
        targets: Sequence[int],
        shares: Sequence[float],
    ) -> Tensor:
        """Return what the engine returns."""
        self.summed.append(super().aggregate(present, own_shares, sources, targets, shares))
        return self.summed[-1]


def predict_frames(engine: HeatmapEngine, frames: list, boxes: dict, aggregate: str) -> list[FramePoses]:
    """Return the poses of frames [(index, image)] in the boxes given."""
    spec = engine.spec
    stream = PoseStream(
        engine,
        WINDOWS["none" if aggregate == "none" else "paper"],
        CropKeeper(spec.crop_size[1] / spec.crop_size[0]),
        lambda frame, image, cut: boxes[frame],
        chunk=8,
    )
    return list(stream.run(frames, frames[0][0]))


def main() -> None:
    """Fit, train heads, predict, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clip", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="models, labels and results.json")
    parser.add_argument("--frames", type=int, default=45, help="of the last third, at most")
    parser.add_argument("--effort", default="normal")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with open_video(options.clip) as video:
        dense = read_labels(options.labels, video=video)
        first = 2 * video.n_frames // 3
        models = make_models(video, dense, first, options)
        wanted = [int(n) for n in dense.labelled_frames if n >= first][: options.frames]
        images = [(n, video[n]) for n in range(wanted[0], wanted[-1] + 1)]
    boxes = boxes_of_labels(dense)
    missing = [n for n, _ in images if n not in boxes]
    if missing:
        raise SystemExit(f"frames without labels: {missing[:5]}")
    rows, rng = [], np.random.default_rng(0)
    for kind, spoil in SPOILERS.items():
        frames = [
            (n, spoil(image, boxes[n], rng) if n % SPOILED_EVERY == 0 else image) for n, image in images
        ]
        for way, head in WAYS:
            engine = HeatmapEngine(models[head], precision="float32")
            found = predict_frames(engine, frames, boxes, way)
            scored = [poses for poses in found if poses.frame % SPOILED_EVERY == 0]
            errors = np.concatenate([errors_of(poses, dense) for poses in scored])
            row: dict[str, Any] = {"frames": kind, "weights": way, "head": head if way != "none" else ""}
            row |= {
                "keypoints": errors.size,
                "mean": round(float(errors.mean()), 2),
                "median": round(float(np.median(errors)), 2),
            }
            row["pck05"] = round(100 * float((errors < 5).mean()), 1)
            rows.append(row)
            told = f"mean {row['mean']:6.2f}  median {row['median']:6.2f}  within 5 % {row['pck05']:5.1f}"
            print(f"{kind:8} {way:11} {row['head']:8} {told}", flush=True)
    report: dict[str, Any] = {"clip": options.clip.name, "rows": rows}
    report["bfloat16"] = {
        head: precision_gap(model, images, boxes) for head, model in models.items() if head != "fitted"
    }
    for head, gap in report["bfloat16"].items():
        print(f"bfloat16, {head} head: {gap}")
    (options.out / "results.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def make_models(video: Any, dense: Any, first: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the models by the name of their head, trained on every 15th label before frame ``first``."""
    kept = dense.at([n for n in range(EVERY // 2, first, EVERY)])
    base, labels = options.out / "model.pt", options.out / "labels.json"
    if not base.is_file():
        save_model(base, fit(video, kept, effort=options.effort, seed=options.seed))
    write_labels(labels, kept)
    clips = json.dumps([{"video": str(options.clip), "labels": str(labels)}])
    spec = load_model(base).spec
    common = [
        f"data.clips={clips}",
        "data.validation=none",
        f"model.backbone={spec.backbone}",
        f"model.crop_size={list(spec.crop_size)}",
        f"model.sigma={spec.sigma}",
        f"train.seed={options.seed}",
        "train.global_batch=4",  # the paper's head takes some 3 seconds a step on 2 cores
    ]
    paper = options.out / "paper_head"
    light = options.out / "light_head"
    train(paper, [*common, f"model.start={base}", *PAPER_HEAD, "train.min_epoch_steps=10"])
    train(light, [*common, f"model.start={paper / 'model.pt'}", *LIGHT_HEAD, "train.match_head=true"])
    files = {"fitted": base, "paper's": paper / "model.pt", "light": light / "model.pt"}
    return {head: load_model(file).eval() for head, file in files.items()}


def train(out: Path, changes: Sequence[str]) -> None:
    """Train a warper of one's own clips, unless it is there."""
    if (out / "model.pt").is_file():
        return
    command = [sys.executable, "-m", "posewarper", "train", "own_clips_warper.yaml", *changes]
    subprocess.run([*command, "--out", str(out), "--resume"], check=True)


def errors_of(poses: FramePoses, dense: Any) -> NDArray[np.float64]:
    """Return the errors in percent of all labelled and visible keypoints of a frame."""
    found = []
    tracks = [track for track in dense.tracks.values() if poses.frame in track.frames]
    for n, track in enumerate(tracks):
        at = int(np.searchsorted(track.frames, poses.frame))
        seen = track.visibility[at] == 2
        apart = np.linalg.norm(poses.keypoints[n] - track.keypoints[at], axis=-1)[seen]
        found.append(100 * apart / poses.boxes[n, 2:].max())
    return np.concatenate(found) if found else np.zeros(0)


def precision_gap(model: Any, images: list, boxes: dict) -> dict[str, float]:
    """Return how far bfloat16 is from float32, with the paper's weights."""
    engines = [RecordingEngine(model, precision=kind) for kind in ("float32", "bfloat16")]
    one, other = (predict_frames(engine, images, boxes, "paper") for engine in engines)
    height, width = model.spec.crop_size
    gaps = []
    for a, b in zip(one, other, strict=True):
        scale = width / pad_box(a.boxes, aspect_ratio=width / height)[:, 2]
        gaps.append((np.linalg.norm(a.keypoints - b.keypoints, axis=-1) * scale[:, None]).ravel())
    apart = np.concatenate(gaps)
    exact, rounded = (torch.cat(engine.summed) for engine in engines)
    off = ((exact - rounded).abs().amax((2, 3)) / exact.amax((2, 3)).clamp_min(1e-6)).flatten().numpy()
    return {
        "keypoints": apart.size,
        "within_half_a_crop_pixel_percent": round(100 * float((apart < 0.5).mean()), 2),
        "keypoints_99th_percentile_crop_pixels": round(float(np.percentile(apart, 99)), 3),
        "heatmaps_within_2_percent_of_peak_percent": round(100 * float((off < 0.02).mean()), 2),
        "heatmaps_99th_percentile_percent_of_peak": round(100 * float(np.percentile(off, 99)), 2),
    }


if __name__ == "__main__":
    main()
