"""Errors on later frames of a clip that a model was fitted to, clean and spoiled: one frame or five.

    python benchmarks/spoiled_frames.py CLIP.mp4 DENSE.json [--frames N] [--json FILE]

Every 15th label of the clip's first two thirds is kept, a model is fitted to it (`posewarper.fit`, effort
normal), and the last third is predicted with the boxes of the dense labels: each frame alone, five frames
with the paper's weights, and five with weights by confidence. Clean, and with every third frame spoiled:
blurred along its rows, noisy, or with a grey bar over part of each box. Errors in percent of the longer
side of the label's box, on the spoiled frames (of the clean clip: on the same frames). Beside it how far
keypoints move in bfloat16, in pixels of the crop.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from posewarper import fit, open_video, read_labels
from posewarper.geometry import pad_box
from posewarper.inference.aggregation import WINDOWS
from posewarper.inference.box_sources import boxes_of_labels
from posewarper.inference.heatmap_engine import HeatmapEngine
from posewarper.inference.held_crops import CropKeeper
from posewarper.inference.streaming import FramePoses, PoseStream

EVERY, SPOILED_EVERY = 15, 3
WAYS = ("none", "paper", "confidence")


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


def predict_frames(model: Any, frames: list, boxes: dict, aggregate: str, precision: str) -> list[FramePoses]:
    """Return the poses of frames [(index, image)] in the boxes given."""
    weighting = "confidence" if aggregate == "confidence" else "paper"
    stream = PoseStream(
        HeatmapEngine(model, weighting=weighting, precision=precision),
        WINDOWS["none" if aggregate == "none" else "paper"],
        CropKeeper("exact", model.spec.crop_size[1] / model.spec.crop_size[0]),
        lambda frame, image, cut: boxes[frame],
        chunk=8,
    )
    return list(stream.run(frames, frames[0][0]))


def main() -> None:
    """Fit, predict, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clip", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--frames", type=int, default=45, help="of the last third, at most")
    parser.add_argument("--effort", default="normal")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, help="keep the fitted model here, or use it if it is there")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with open_video(options.clip) as video:
        dense = read_labels(options.labels, video=video)
        first = 2 * video.n_frames // 3
        model = fitted(video, dense, first, options)
        wanted = [int(n) for n in dense.labelled_frames if n >= first][: options.frames]
        images = [(n, video[n]) for n in range(wanted[0], wanted[-1] + 1)]
    boxes = boxes_of_labels(dense)
    missing = [n for n, _ in images if n not in boxes]
    if missing:
        raise SystemExit(f"frames without labels: {missing[:5]}")
    rows, rng = [], np.random.default_rng(0)
    for kind, spoil in SPOILERS.items():
        frames = [
            (n, spoil(image, boxes[n].boxes, rng) if n % SPOILED_EVERY == 0 else image) for n, image in images
        ]
        for way in WAYS:
            found = predict_frames(model, frames, boxes, way, "float32")
            scored = [poses for poses in found if poses.frame % SPOILED_EVERY == 0]
            errors = np.concatenate([errors_of(poses, dense) for poses in scored])
            row: dict[str, Any] = {"frames": kind, "aggregate": way, "mean": round(float(errors.mean()), 2)}
            row |= {
                "median": round(float(np.median(errors)), 2),
                "pck05": round(100 * float((errors < 5).mean()), 1),
            }
            rows.append(row)
            told = f"mean {row['mean']:6.2f}  median {row['median']:6.2f}  within 5 % {row['pck05']:5.1f}"
            print(f"{kind:8} {way:11} {told}", flush=True)
    apart = precision_gap(model, images, boxes)
    share = float((apart < 0.5).mean())
    print(
        f"bfloat16: {100 * share:.1f} percent of {apart.size} keypoints within 0.5 crop pixels, "
        f"99th percentile {np.percentile(apart, 99):.2f}"
    )
    if options.json is not None:
        report = {"clip": options.clip.name, "rows": rows, "bfloat16_within_half": share}
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def fitted(video: Any, dense: Any, first: int, options: argparse.Namespace) -> Any:
    """Return the model, fitted to every 15th label before frame ``first``."""
    from posewarper import load_model
    from posewarper.model.checkpoint import save_model

    if options.model is not None and options.model.is_file():
        return load_model(options.model).eval()
    kept = dense.at([n for n in range(EVERY // 2, first, EVERY)])
    model = fit(video, kept, effort=options.effort, seed=options.seed)
    if options.model is not None:
        save_model(options.model, model)
    return model.eval()


def errors_of(poses: FramePoses, dense: Any) -> np.ndarray:
    """Return the errors in percent of all labelled and visible keypoints of a frame."""
    found = []
    tracks = [track for track in dense.tracks.values() if poses.frame in track.frames]
    for n, track in enumerate(tracks):
        at = int(np.searchsorted(track.frames, poses.frame))
        seen = track.visibility[at] == 2
        apart = np.linalg.norm(poses.keypoints[n] - track.keypoints[at], axis=-1)[seen]
        found.append(100 * apart / poses.boxes[n, 2:].max())
    return np.concatenate(found) if found else np.zeros(0)


def precision_gap(model: Any, images: list, boxes: dict) -> np.ndarray:
    """Return how far keypoints lie apart in float32 and in bfloat16, in crop pixels."""
    one, other = (predict_frames(model, images, boxes, "paper", kind) for kind in ("float32", "bfloat16"))
    height, width = model.spec.crop_size
    gaps = []
    for a, b in zip(one, other, strict=True):
        scale = width / pad_box(a.boxes, aspect_ratio=width / height)[:, 2]
        gaps.append((np.linalg.norm(a.keypoints - b.keypoints, axis=-1) * scale[:, None]).ravel())
    return np.concatenate(gaps)


if __name__ == "__main__":
    main()
