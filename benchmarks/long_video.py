"""Memory and continuation of `posewarper predict` on a long video: 20 minutes of a looped clip.

    python benchmarks/long_video.py [--minutes 20] [--fps 10] [--kills 2] [--out DIR]

A small clip is looped, a small network with random weights predicts it (held crops, given boxes), and is
killed by SIGKILL at random moments; the same command goes on. Told: resident memory after a tenth of the
frames and at the end, and whether every frame has its poses exactly once.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from posewarper.demo.crowd import film_crowd, stage_crowd
from posewarper.formats.labels import read_poses
from posewarper.model.checkpoint import save_model
from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.skeletons import POSETRACK
from posewarper.video.writing import write_video

LOOP = 60


def make_input(folder: Path, n_frames: int, fps: int) -> list[str]:
    """Write the video, its boxes and a model; return the options that name them."""
    crowd = stage_crowd(1, (96, 128), seed=1)
    shown = [film_crowd(crowd, t) for t in range(LOOP)]
    order = [abs((n + LOOP) % (2 * LOOP) - LOOP) % LOOP for n in range(n_frames)]  # to and fro

    def pictures() -> Iterator[np.ndarray]:
        for n in order:
            yield shown[n][0]

    write_video(folder / "long.mp4", pictures(), fps=fps)
    boxes = [{"frame": n, "bbox": shown[place][1].boxes[0].tolist()} for n, place in enumerate(order)]
    (folder / "boxes.json").write_text(json.dumps(boxes))
    torch.manual_seed(0)
    spec = ModelSpec(
        "hrnet_w18_small", POSETRACK, (64, 64), 1.0, head_width=8, head_blocks=1, head_dilations=(1, 3)
    )
    model = PoseWarper(spec)
    torch.nn.init.constant_(model.final_layer.bias, 0.9)  # type: ignore[arg-type]
    for stage in ("pose", "warp"):
        model.record(stage, 1)
    save_model(folder / "model.pt", model)
    return [
        str(folder / "long.mp4"),
        "--model",
        str(folder / "model.pt"),
        "--boxes",
        str(folder / "boxes.json"),
    ]


def memory_of(process: subprocess.Popen[bytes]) -> float:
    """Return the resident memory of a process in MB, 0 if it has ended."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return 0.0
    found = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(found[0].split()[1]) / 1024 if found else 0.0


def lines_of(parts: Path) -> int:
    """Return how many frames have a record."""
    return sum(path.read_bytes().count(b"\n") for path in parts.glob("*.jsonl"))


def main() -> None:
    """Run, kill, go on, and look at the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--fps", type=int, default=10)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/long_video"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    n_frames = round(options.minutes * 60 * options.fps)
    arguments = make_input(options.out, n_frames, options.fps)
    command = [
        sys.executable,
        "-m",
        "posewarper",
        "predict",
        *arguments,
        "--crops",
        "held",
        "--no-overlay",
        "--quiet",
    ]
    place = options.out / "poses"
    command += ["--out", str(place)]
    stops = sorted(random.Random(0).sample(range(n_frames // 10, n_frames), options.kills))
    seen: list[tuple[int, float]] = []
    begun = time.perf_counter()
    for stop in [*stops, None]:
        process = subprocess.Popen(command)
        while process.poll() is None:
            time.sleep(2)
            done = lines_of(place / "parts") if (place / "parts").is_dir() else 0
            seen.append((done, memory_of(process)))
            if stop is not None and done >= stop:
                process.kill()
                process.wait()
                print(f"killed after {done} of {n_frames} frames", flush=True)
        if stop is None and process.returncode:
            raise SystemExit(f"exit code {process.returncode}")
    poses = read_poses(place / "poses.json")
    frames = np.sort(np.concatenate([track.frames for track in poses.tracks.values()]))
    whole = np.array_equal(frames, np.arange(n_frames))
    early = [memory for done, memory in seen if n_frames // 20 < done <= n_frames // 5]
    late = [memory for done, memory in seen if 4 * n_frames // 5 < done < n_frames]
    print(
        f"{n_frames} frames in {time.perf_counter() - begun:.0f} s; every frame once: {whole}; "
        f"memory {np.median(early):.0f} MB early, {np.median(late):.0f} MB late, "
        f"{max(memory for _, memory in seen):.0f} MB at most (with the assembly at the end)"
    )


if __name__ == "__main__":
    main()
