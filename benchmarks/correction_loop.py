"""How many corrections a result needs, beside labelling more frames from the start.

    python benchmarks/correction_loop.py --clip VIDEO --labels DENSE.json [--every 31] [--goal 5]
        [--most 60] [--json FILE]

Every frame of the clip is labelled; the labels play the user. *Correct and go again*: labels on every 31st
frame are propagated as the labelling page does it (effort fast). The user then goes to the frame whose
expected error is the highest, puts each keypoint in its place that is more than 3 percent of the subject's
size off, accepts the others, and waits for the poses around it, again and again, until 95 percent of the
keypoints of all frames are within the goal (percent of the size), labelled ones among them. *From the start*:
labels on every k-th frame, k getting smaller, until the same holds. Told: how many frames were looked at, how
many keypoints were placed, and the error in the end, also after the final run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from go_again import Watch, errors, mean_error, run
from posewarper import propagate
from posewarper.evaluation.clips import keep_every
from posewarper.formats.labels import read_labels, read_poses, write_labels
from posewarper.review.session import Session
from posewarper.structures import Floats, Labels

SEEN = 0.03  # share of the size from which a person sees that a keypoint is off
GAPS = (31, 26, 22, 19, 16, 14, 12, 10, 9, 8, 7, 6, 5, 4, 3)


def p95(found: dict[int, Floats]) -> float:
    """Return the 95th percentile in percent."""
    return round(
        float(np.nanpercentile(np.concatenate([each.ravel() for each in found.values()]), 95)) * 100, 2
    )


def count_keypoints(labels: Labels) -> int:
    """Return how many keypoints are labelled."""
    return int(sum((track.visibility > 0).sum() for track in labels.tracks.values()))


def worst_frame(session: Session, seen: set[int]) -> int | None:
    """Return the frame that nobody has looked at with the highest expected error."""
    total: dict[int, float] = {}
    for track in session.shown.tracks.values():
        with np.errstate(invalid="ignore"):
            own = np.nanmean(np.where(track.labelled, 0.0, track.expected_error), axis=1)
        for frame, error in zip(track.frames.tolist(), own.tolist(), strict=True):
            if frame not in seen and np.isfinite(error):
                total[frame] = max(total.get(frame, 0.0), error)
    return max(total, key=lambda frame: total[frame]) if total else None


def look_at(session: Session, watch: Watch, truth: Labels, frame: int) -> int:
    """Correct a frame; returns how many keypoints were placed."""
    found = errors(session.shown.tracks, truth)
    operations: list[dict[str, Any]] = []
    placed = 0
    for i, true in truth.tracks.items():
        row = int(np.searchsorted(true.frames, frame))
        if row == len(true.frames) or true.frames[row] != frame:
            continue
        for keypoint in np.flatnonzero(np.nan_to_num(found[i][row]) > SEEN).tolist():
            xy = true.keypoints[row, keypoint].tolist()
            operations.append({"op": "place", "track": i, "frame": frame, "keypoint": keypoint, "xy": xy})
            placed += 1
        if session.shown.at(i, frame):
            operations.append({"op": "accept", "track": i, "frame": frame})
    if operations:
        before = len(watch.solved)
        session.edit(operations, "", session.history.revision)
        watch.until(lambda: len(watch.solved) > before)
    return placed


def correct_until(
    clip: Path, truth: Labels, every: int, goal: float, most: int, folder: Path
) -> dict[str, Any]:
    """Correct and go again until the goal is reached."""
    few = keep_every(truth, every)
    write_labels(folder / "few.json", few)
    session = Session(clip, folder / "out", labels=folder / "few.json")
    watch = Watch(session)
    seen, placed, waited, steps = set(few.labelled_frames.tolist()), 0, 0.0, []
    try:
        run(session, watch, "fast")
        now = errors(session.shown.tracks, truth)
        steps.append([0, 0, mean_error(now), p95(now)])
        while p95(now) > goal and len(steps) <= most:
            frame = worst_frame(session, seen)
            if frame is None:
                break
            seen.add(frame)
            begun = time.perf_counter()
            placed += look_at(session, watch, truth, frame)
            waited += time.perf_counter() - begun
            now = errors(session.shown.tracks, truth)
            steps.append([len(steps), placed, mean_error(now), p95(now)])
        run(session, watch, "fast")
        final = errors(dict(read_poses(folder / "out" / "poses.json").tracks), truth)
    finally:
        session.close()
    return {
        "frames": len(few.labelled_frames) + len(steps) - 1,
        "keypoints": count_keypoints(few) + placed,
        "corrected_frames": len(steps) - 1,
        "corrected_keypoints": placed,
        "seconds_a_frame": round(waited / max(1, len(steps) - 1), 2),
        "reached": p95(now) <= goal,
        "steps": steps,
        "final": [mean_error(final), p95(final)],
    }


def label_until(clip: Path, truth: Labels, goal: float) -> dict[str, Any]:
    """Label every k-th frame until the goal is reached."""
    steps = []
    for every in GAPS:
        few = keep_every(truth, every)
        found = errors(dict(propagate(clip, few, effort="fast").poses.tracks), truth)
        steps.append([every, len(few.labelled_frames), count_keypoints(few), mean_error(found), p95(found)])
        if p95(found) <= goal:
            break
    every, frames, keypoints, mean, most = steps[-1]
    return {
        "every": every,
        "frames": frames,
        "keypoints": keypoints,
        "reached": most <= goal,
        "steps": steps,
        "final": [mean, most],
    }


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--every", type=int, default=31)
    parser.add_argument("--goal", type=float, default=5.0, help="percent of the subject's size")
    parser.add_argument("--most", type=int, default=60, help="frames that are corrected at most")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    truth = read_labels(asked.labels, video=asked.clip)
    with tempfile.TemporaryDirectory() as scratch:
        corrected = correct_until(asked.clip, truth, asked.every, asked.goal, asked.most, Path(scratch))
    figures = {"clip": asked.clip.name, "goal": asked.goal, "correct and go again": corrected}
    print(json.dumps(figures), flush=True)
    figures["from the start"] = label_until(asked.clip, truth, asked.goal)
    print(json.dumps(figures["from the start"]))
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
