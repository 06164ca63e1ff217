"""Pose networks for own clips side by side: error against processor time, on a clip that is labelled densely.

    python benchmarks/pose_networks.py CLIP --labels FILE --every K [--networks A:WEIGHTS:NECK,...]
        [--iterations 60,120,240] [--enough 0.2] [--seeds 0,1] [--track ID] [--json FILE]

Each network learns from every K-th label, as `posewarper propagate` lets it, and is scored on the labels left
out: `frame` is the network alone, `default` the estimate that uses it. NECK is pyramid or upsampling, WEIGHTS
as for --backbone-weights. Without --enough each budget is used up; with it training ends when the labels are
learned, at the latest with the budget. Optical flow is computed once and is not in the seconds. Rows are
printed, and written to FILE, as they are done; those that are in FILE already are not done again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from posewarper.benchmark import describe_machine
from posewarper.evaluation.clips import keep_every, score_clip
from posewarper.files import write_json
from posewarper.fitting import fit_clip
from posewarper.formats.labels import read_labels
from posewarper.model.pretrained import read_backbone_weights
from posewarper.options import FitConfig, NetworkConfig
from posewarper.propagation.clip import prepare_clip
from posewarper.propagation.methods import propagate_clip
from posewarper.video.source import open_video

NETWORKS = (
    "tf_efficientnet_lite0:auto:pyramid,tf_efficientnet_lite0:none:pyramid,hrnet_w18_small:none:upsampling"
)


def numbers(text: str) -> list[int]:
    """Return the whole numbers of a text like ``60,120``."""
    return [int(part) for part in text.split(",")]


def main() -> None:
    """Read the command line, fit and score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--every", type=int, required=True)
    parser.add_argument("--networks", default=NETWORKS)
    parser.add_argument("--iterations", type=numbers, default=[60, 120, 240])
    parser.add_argument("--enough", type=float, default=0.0)
    parser.add_argument("--seeds", type=numbers, default=[0])
    parser.add_argument("--track", type=int)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    rows: list[dict[str, Any]] = []
    if options.json is not None and options.json.is_file():
        rows = json.loads(options.json.read_text("utf-8"))["rows"]
    with open_video(options.clip) as video:
        dense = read_labels(options.labels, video=video).only_labelled()
        dense = dense if options.track is None else dense.only_track(options.track)
        kept = keep_every(dense, options.every)
        clip = prepare_clip(video, kept)
        for name in options.networks.split(","):
            backbone, weights, neck = name.split(":")
            network = NetworkConfig(backbone=backbone, backbone_weights=weights, neck=neck)  # type: ignore[arg-type]
            start = read_backbone_weights(network)
            for seed in options.seeds:
                for budget in options.iterations:
                    what = {"clip": options.clip.stem, "every": options.every, "network": name, "seed": seed}
                    what |= {"budget": budget, "enough": options.enough}
                    if any(what.items() <= row.items() for row in rows):
                        continue
                    config = FitConfig(pose_iterations=budget, enough=options.enough or 1e-9)
                    begun = time.process_time()
                    how: dict[str, Any] = {"start": start, "seed": seed, "device": "cpu", "further": False}
                    model = fit_clip(clip, config, network, **how)
                    row = {**what, "iterations": model.spec.trained["pose"]}
                    row["processor_seconds"] = round(time.process_time() - begun, 1)
                    for method in ("frame", "default"):
                        score = score_clip(propagate_clip(clip, method, model), dense, kept)
                        row[method] = [round(score.mean, 3), round(score.p95, 2)]
                    rows.append(row)
                    print(json.dumps(row), flush=True)
                    if options.json is not None:
                        write_json(options.json, {"machine": describe_machine("cpu"), "rows": rows})


if __name__ == "__main__":
    main()
