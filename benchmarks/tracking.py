"""How well tracks hold where people cross: the official MOTA and the switches, against simpler ways.

    python benchmarks/tracking.py [--quick] [--seeds 10] [--json FILE]

Made-up crowds (`posewarper.demo.posetrack_tree`): noise on keypoints and boxes, people hidden by others,
people missed, instances invented, all in an order that says nothing. The same instances go to three trackers:

* `nearest box`: greedy, the nearest pairs of box centres first; no motion, no poses; patience as below.
* `OKS`: our tracker without motion.
* `OKS and motion`: our tracker with its own settings.

Instances without a track are left out, as they are from a submission. Switches are those of the evaluation,
a point's mean, summed over the seeds. Milliseconds are medians of `update` for one frame.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from posewarper.demo.crowd import Crowd, CrowdFrame, stage_crowd
from posewarper.demo.posetrack_tree import Sightings, sight_crowd
from posewarper.evaluation.oks import usual_sigmas
from posewarper.evaluation.posetrack import score_posetrack, total_of
from posewarper.options import TrackSettings
from posewarper.prediction.tracker import Tracker
from posewarper.skeletons import POSETRACK
from posewarper.structures import NO_TRACK, InstanceTable

SIGMAS = np.array(usual_sigmas(POSETRACK))
SIZE = (240, 320)
# Name -> people, frames, time from frame to frame, noise.
SCENES = {
    "four people": (4, 150, 1.0, 0.02),
    "six people": (6, 100, 1.0, 0.02),
    "four, twice as fast": (4, 100, 2.0, 0.02),
    "four, noisy": (4, 100, 1.0, 0.035),
    "five, from side to side": (5, 100, 1.5, 0.02),
}
STRIDING = "five, from side to side"
Frames = Sequence[tuple[CrowdFrame, Sightings]]


class NearestBox:
    """Greedy: the nearest pairs of box centres first; boxes stay for `patience` frames where they were."""

    def __init__(self, patience: int = 30, start_score: float = 0.5) -> None:
        self.patience, self.start_score = patience, start_score
        self.centres: dict[int, np.ndarray] = {}
        self.heights: dict[int, float] = {}
        self.seen: dict[int, int] = {}
        self.last = 0

    def update(self, frame: int, keypoints, keypoint_scores, boxes, scores) -> np.ndarray:
        """Return the ids (n,) of the instances; the arguments are those of `Tracker.update`."""
        ids = np.full(len(boxes), NO_TRACK)
        centres = boxes[:, :2] + boxes[:, 2:] / 2
        live = [i for i, seen in self.seen.items() if frame - seen <= self.patience]
        pairs = [(float(np.hypot(*(self.centres[i] - c))), i, j) for i in live for j, c in enumerate(centres)]
        taken: set[int] = set()
        for distance, i, j in sorted(pairs):
            if i not in taken and ids[j] == NO_TRACK and distance <= self.heights[i]:
                ids[j] = i
                taken.add(i)
        for j in np.flatnonzero((ids == NO_TRACK) & (scores >= self.start_score)):
            self.last += 1
            ids[j] = self.last
        for j in np.flatnonzero(ids != NO_TRACK):
            i = int(ids[j])
            self.centres[i], self.heights[i], self.seen[i] = centres[j], float(boxes[j, 3]), frame
        return ids


WAYS: dict[str, Callable[[], Tracker | NearestBox]] = {
    "nearest box": NearestBox,
    "OKS": lambda: Tracker(SIGMAS, TrackSettings(start_score=0.5, smoothing=0.0)),
    "OKS and motion": lambda: Tracker(SIGMAS, TrackSettings(start_score=0.5)),
}


def follow(frames: Frames, tracker: Tracker | NearestBox) -> tuple[list[np.ndarray], list[float]]:
    """Return the ids of each frame's instances, and the seconds that each frame took."""
    ids, seconds = [], []
    for n, (_, found) in enumerate(frames):
        start = time.perf_counter()
        ids.append(
            tracker.update(n, found.keypoints, found.keypoint_scores, found.boxes, found.scores).copy()
        )
        seconds.append(time.perf_counter() - start)
    return ids, seconds


def score(frames: Frames, ids: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the official MOTA in percent, and a point's mean number of switches."""
    names = tuple(f"clip/{n:06}.jpg" for n in range(len(frames)))
    numbers = np.arange(len(frames))
    truths, founds = [truth for truth, _ in frames], [found for _, found in frames]
    kept = np.concatenate(ids) != NO_TRACK

    def join(column: str, parts: Sequence[object]) -> np.ndarray:
        return np.concatenate([getattr(part, column) for part in parts])

    truth = InstanceTable(
        "clip",
        names,
        numbers,
        rows=np.repeat(numbers, [len(t.tracks) for t in truths]),
        keypoints=join("keypoints", truths),
        tracks=join("tracks", truths),
        boxes=join("boxes", truths),
        head_boxes=join("head_boxes", truths),
    )
    predicted = InstanceTable(
        "clip",
        names,
        numbers,
        rows=np.repeat(numbers, [len(f.people) for f in founds])[kept],
        keypoints=join("keypoints", founds)[kept],
        keypoint_scores=join("keypoint_scores", founds)[kept],
        tracks=np.concatenate(ids)[kept],
        boxes=join("boxes", founds)[kept],
    )
    figures = score_posetrack({"clip": truth}, {"clip": predicted}).tracking
    assert figures is not None
    return total_of(figures.mota), float(figures.counts.switches.mean())


def stage(scene: str, seed: int) -> Crowd:
    """Return the crowd of a scene: people who sway against each other, or stride across the whole picture."""
    crowd = stage_crowd(SCENES[scene][0], SIZE, seed)
    if scene != STRIDING:
        return crowd
    width = crowd.size[1]
    people = (
        replace(p, centre=(width / 2, p.centre[1]), sway=0.42 * width, sway_rate=0.35 * p.sway_rate)
        for p in crowd.people
    )
    return replace(crowd, people=tuple(people))


def measure(scene: str, seeds: int) -> list[dict[str, object]]:
    """Return a row for each way of tracking."""
    _, n_frames, step, noise = SCENES[scene]
    times = step * np.arange(n_frames, dtype=np.float64)
    clips = [list(sight_crowd(stage(scene, seed), times, seed=seed, noise=noise)) for seed in range(seeds)]
    rows = []
    for way, make in WAYS.items():
        mota, switches, seconds = [], 0.0, []
        for clip in clips:
            ids, took = follow(clip, make())
            value, switched = score(clip, ids)
            mota.append(value)
            switches += switched
            seconds += took
        rows.append(
            {
                "name": f"{scene}: {way}",
                "mota": round(statistics.mean(mota), 2),
                "switches": round(switches, 1),
                "median_seconds": statistics.median(seconds),
            }
        )
    return rows


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two seeds")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    rows = []
    for scene in SCENES:
        for row in measure(scene, 2 if options.quick else options.seeds):
            rows.append(row)
            took = f"{row['median_seconds']:.5f} s a frame"
            print(f"{row['name']:40s} MOTA {row['mota']:6}  switches {row['switches']:6}  {took}", flush=True)
    if options.json:
        report = {"device": platform.processor() or platform.machine(), "rows": rows}
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
