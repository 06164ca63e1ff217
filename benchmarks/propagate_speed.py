"""Speed, memory and error of `posewarper propagate --effort fast` on long video, by stage.

    python benchmarks/propagate_speed.py [--walks 20] [--every 60] [--against SRC] [--quick] [--out DIR]

One person walks through 1080p video whose true keypoints are known: the clip of `posewarper demo`, enlarged
and played to and fro, again and again; 20 walks are 5360 frames, 3 minutes. `propagate` runs in a process of
its own, from every 60th label. Told: seconds by stage, those of the processors in total, the most memory,
and the error. With --against (the `src` folder of another commit) both run in turn on the same clip. --quick
takes 2 walks and ends in under 5 minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from posewarper.demo.clip import N_FRAMES, render_scene
from posewarper.evaluation.clips import keep_every, score_clip
from posewarper.formats.labels import read_labels, read_poses, write_labels
from posewarper.structures import Labels, Track
from posewarper.video.writing import write_video

SIZE, FPS = (1080, 1920), 30
WALK = 2 * N_FRAMES - 2  # frames there and back
MAIN = [sys.executable, "-m", "posewarper"]


def make_clip(folder: Path, walks: int, n_frames: int | None = None) -> tuple[Path, Path]:
    """Write the video (``n_frames`` of one walk, or several walks) and its true labels, unless they exist."""
    name = f"walks_{walks}" if n_frames is None else f"walk_of_{n_frames}"
    video, truth = folder / f"{name}.mp4", folder / f"{name}.json"
    if truth.is_file():
        return video, truth
    pictures, labels = render_scene()
    walk = [*range(N_FRAMES), *range(N_FRAMES - 2, 0, -1)][:n_frames]
    one = folder / "walk.mp4" if n_frames is None else video
    if not one.is_file():
        shown = [cv2.resize(picture, SIZE[::-1], interpolation=cv2.INTER_CUBIC) for picture in pictures]
        write_video(one, [np.asarray(shown[n], np.uint8) for n in walk], fps=FPS)
    if n_frames is None:
        repeat_packets(one, video, walks)
    order = np.tile(walk, walks if n_frames is None else 1)
    track, (height, width) = labels.tracks[0], labels.image_size or SIZE
    keypoints = (track.keypoints[order] + 0.5) * (SIZE[1] / width, SIZE[0] / height) - 0.5
    long = Track(np.arange(len(order)), keypoints, visibility=track.visibility[order])
    write_labels(truth, Labels(labels.skeleton, {0: long}, None, SIZE, len(order), video.stem))
    return video, truth


def repeat_packets(one: Path, many: Path, times: int) -> None:
    """Write a video that shows another one several times, without encoding it anew."""
    with av.open(str(many), "w") as out:
        stream, shift = None, 0
        for _ in range(times):
            with av.open(str(one)) as source:
                inside = source.streams.video[0]
                stream = stream or out.add_stream_from_template(inside)
                for packet in source.demux(inside):
                    if packet.dts is None or packet.pts is None:
                        continue
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                    out.mux(packet)
                shift += inside.duration or 0


def run(
    name: str, source: str | None, video: Path, labels: Path, out: Path, options: list[str]
) -> dict[str, Any]:
    """Propagate in a process of its own; return its seconds, by stage and of processors, and its memory."""
    environment = {**os.environ, **({"PYTHONPATH": source} if source else {})}
    command = [
        *MAIN,
        "propagate",
        str(video),
        "--labels",
        str(labels),
        "--out",
        str(out),
        "--quiet",
        *options,
    ]
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([*command, "--overwrite"], check=True, env=environment, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    facts = json.loads((out / "run.json").read_text())
    stages = {stage: round(seconds, 1) for stage, seconds in facts["seconds"].items() if stage != "total"}
    return {
        "run": name,
        "wall": round(time.perf_counter() - begun, 1),
        "processors": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "stages": stages,
        "memory_mb": round(facts["peak_memory_bytes"] / 2**20),
    }


def main() -> None:
    """Make the clip, run, and tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--walks", type=int, default=20)
    parser.add_argument("--every", type=int, default=60)
    parser.add_argument("--against", help="the src folder of another commit, which runs first")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/propagate_speed"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    video, truth = make_clip(options.out, 2 if options.quick else options.walks)
    dense = read_labels(truth)
    kept = keep_every(dense, options.every)
    labels = options.out / "kept.json"
    write_labels(labels, kept)
    rows = []
    for name, source in [*([("against", options.against)] if options.against else []), ("here", None)]:
        out = options.out / name
        row = run(name, source, video, labels, out, ["--effort", "fast"])
        score = score_clip(read_poses(out / "poses.json"), dense, kept).to_row()
        row |= {key: score[key] for key in ("mean", "p95", "coverage")}
        row["ms_a_frame"] = round(1000 * row["wall"] / dense.n_frames, 1)
        rows.append(row)
        print(json.dumps(row), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
