"""Seconds of the official evaluation on a made-up set of the size of PoseTrack18 val, on one core.

    python benchmarks/posetrack_evaluation.py [--quick] [--rounds N] [--json FILE]

170 videos, about 8,000 labelled frames, 4 people each, and predictions that miss some people and change
tracks; written as files of PoseTrack18 and of PoseTrack17. Medians over rounds of reading both sides and of
scoring (AP and tracking).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from posewarper.evaluation.posetrack import score_posetrack
from posewarper.posetrack.annolist import write_annolist
from posewarper.posetrack.points import POINT_KEYPOINTS
from posewarper.posetrack.posetrack18 import write_posetrack18
from posewarper.posetrack.tables import read_tables
from posewarper.structures import InstanceTable

N_VIDEOS, N_FRAMES, N_PEOPLE = 170, 47, 4
WRITERS = {"posetrack18": write_posetrack18, "posetrack17": write_annolist}


def make_video(name: str, n_frames: int, rng: np.random.Generator) -> tuple[InstanceTable, InstanceTable]:
    """Return the ground truth and the predictions of one video."""
    n = n_frames * N_PEOPLE
    rows, tracks = np.repeat(np.arange(n_frames), N_PEOPLE), np.tile(np.arange(N_PEOPLE), n_frames)
    start, step = rng.uniform(100, 1500, (N_PEOPLE, 2)), rng.normal(0, 8, (N_PEOPLE, 2))
    centre = start[tracks] + step[tracks] * rows[:, None]
    body = np.full((n, 17, 2), np.nan)
    body[:, POINT_KEYPOINTS] = centre[:, None] + rng.normal(0, 80, (N_PEOPLE, 15, 2))[tracks]
    seen = rng.random((n, 17)) < 0.85
    frames = {
        "frame_names": tuple(f"val/{name}/{frame:06}.jpg" for frame in range(n_frames)),
        "frame_numbers": np.arange(n_frames),
        "image_ids": np.arange(n_frames) + 10_000,
    }
    truth = InstanceTable(
        name,
        rows=rows,
        keypoints=np.where(seen[..., None], body, np.nan),
        tracks=tracks,
        head_boxes=np.concatenate([centre, np.full((n, 2), 45.0)], 1),
        **frames,
    )
    kept = rng.random(n) < 0.95
    guess = body + rng.normal(0, 9, body.shape)
    switched = (tracks + (rng.random(n) < 0.02).cumsum()) % 900 + 4 * tracks
    predictions = InstanceTable(
        name,
        rows=rows[kept],
        keypoints=guess[kept],
        keypoint_scores=rng.random((n, 17))[kept],
        scores=rng.random(n)[kept],
        tracks=_unique_in_frames(rows[kept], switched[kept]),
        **frames,
    )
    return truth, predictions


def _unique_in_frames(rows: np.ndarray, tracks: np.ndarray) -> np.ndarray:
    taken: set[tuple[int, int]] = set()
    unique = []
    for row, track in zip(rows.tolist(), tracks.tolist(), strict=True):
        while (row, track) in taken:
            track += 1
        taken.add((row, track))
        unique.append(track)
    return np.array(unique)


def measure(folder: Path, rounds: int) -> dict[str, float]:
    """Return median seconds of reading and of scoring what lies in a folder."""
    reading, scoring = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        truth, predictions = read_tables(folder / "truth"), read_tables(folder / "predictions")
        middle = time.perf_counter()
        score = score_posetrack(truth, predictions)
        scoring.append(time.perf_counter() - middle)
        reading.append(middle - start)
        assert score.tracking is not None
    both = [a + b for a, b in zip(reading, scoring, strict=True)]
    medians = {"read": statistics.median(reading), "score": statistics.median(scoring)}
    return {**medians, "all": statistics.median(both), "frames": score.n_frames}


def main() -> None:
    """Measure, print a row a format, and write the rows if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the videos, one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    n_videos, rounds = (N_VIDEOS // 10, 1) if arguments.quick else (N_VIDEOS, arguments.rounds)
    if hasattr(os, "sched_setaffinity"):  # one core, whatever the libraries would take
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rows = []
    for name, write in WRITERS.items():
        rng = np.random.default_rng(0)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            for n in range(n_videos):
                sides = make_video(f"{n:06}_mpii_test", N_FRAMES, rng)
                for side, table in zip(("truth", "predictions"), sides, strict=True):
                    write(folder / side / f"{n:06}_mpii_test.json", table)
            rows.append({"files": name, "videos": n_videos, **measure(folder, rounds)})
        row = rows[-1]
        print(
            f"{name}: {n_videos} videos, {row['frames']} frames: read {row['read']:.2f} s, "
            f"score {row['score']:.2f} s, together {row['all']:.2f} s"
        )
    if arguments.json:
        report = {"machine": platform.processor() or platform.machine(), "rounds": rounds, "rows": rows}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
