"""How long the labelling page takes to show what a correction changes, and how good that is.

    python benchmarks/go_again.py [--clip VIDEO --labels DENSE.json] [--effort fast|normal] [--every 30]
        [--corrections 10] [--frames 300] [--json FILE]

Without --clip that is the clip of `posewarper demo`, enlarged to 1280 x 720 and played to and fro. Its labels
are thinned out to every 30th frame and propagated as the page does it. Then somebody who knows the truth goes
to the worst keypoint of all frames and puts it where it is, again and again. Told: the seconds from each drop
until the poses that it changes are there, of how many frames they are, the mean error in percent of the
subject's size before and after all corrections, and how far, in percent of that size, what the page shows is
then from what `posewarper propagate` makes of the same labels. With --effort normal there is a network, which
takes minutes to train.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from posewarper.demo.clip import N_FRAMES, render_scene
from posewarper.evaluation.clips import keep_every
from posewarper.formats.labels import read_labels, read_poses, write_labels
from posewarper.review.session import Session
from posewarper.structures import Floats, Labels, Track
from posewarper.video.writing import write_video

SIZE, FPS = (720, 1280), 30
LONGEST = 900.0  # seconds to wait for anything


def make_clip(folder: Path, n_frames: int) -> tuple[Path, Path]:
    """Write the video and its true labels."""
    pictures, labels = render_scene(processes=2)
    order = np.resize([*range(N_FRAMES), *range(N_FRAMES - 2, 0, -1)], n_frames)
    shown = [cv2.resize(picture, SIZE[::-1], interpolation=cv2.INTER_CUBIC) for picture in pictures]
    write_video(folder / "clip.mp4", (np.asarray(shown[n], np.uint8) for n in order), fps=FPS)
    track, (height, width) = labels.tracks[0], labels.image_size or SIZE
    keypoints = (track.keypoints[order] + 0.5) * (SIZE[1] / width, SIZE[0] / height) - 0.5
    long = Track(np.arange(n_frames), keypoints, visibility=track.visibility[order])
    truth = Labels(labels.skeleton, {0: long}, None, SIZE, n_frames, "clip")
    write_labels(folder / "truth.json", truth)
    return folder / "clip.mp4", folder / "truth.json"


class Watch:
    """Waits for what a session tells."""

    def __init__(self, session: Session) -> None:
        self.session, self.told = session, threading.Condition()
        self.solved: list[dict[str, Any]] = []
        session.listen(self._hear)

    def _hear(self, event: str, values: Any) -> None:
        with self.told:
            if event == "solved":
                self.solved.append(dict(values))
            self.told.notify_all()

    def until(self, holds: Any) -> None:
        """Wait until something holds."""
        end = time.monotonic() + LONGEST
        with self.told:
            while not holds():
                if time.monotonic() > end:
                    raise SystemExit(f"nothing came: {self.session.run_state}, {self.session.ready}")
                self.told.wait(0.05)


def errors(tracks: dict[int, Track], truth: Labels) -> dict[int, Floats]:
    """Return track -> (F, K) distances in shares of the subject's size; NaN where there is no true place."""
    found = {}
    for i, true in truth.tracks.items():
        points = np.full(true.keypoints.shape, np.nan)
        rows = np.searchsorted(true.frames, tracks[i].frames)
        points[rows] = tracks[i].keypoints
        size = np.nanmedian(np.nanmax(np.nanmax(true.keypoints, 1) - np.nanmin(true.keypoints, 1), -1))
        away = np.linalg.norm(points - true.keypoints, axis=-1) / size
        found[i] = np.where(true.visibility == 2, np.nan_to_num(away, nan=1.0), np.nan)
    return found


def mean_error(found: dict[int, Floats]) -> float:
    """Return the mean in percent."""
    return round(float(np.nanmean(np.concatenate([each.ravel() for each in found.values()]))) * 100, 2)


def correct(session: Session, watch: Watch, truth: Labels) -> tuple[float, int]:
    """Put the worst keypoint where it is; returns seconds until its poses are there, and how many."""
    found = errors(session.shown.tracks, truth)
    track = max(found, key=lambda i: np.nanmax(found[i]))
    row, keypoint = np.unravel_index(int(np.nanargmax(found[track])), found[track].shape)
    frame = int(truth.tracks[track].frames[row])
    xy = truth.tracks[track].keypoints[row, keypoint].tolist()
    place = {"op": "place", "track": track, "frame": frame, "keypoint": int(keypoint), "xy": xy}
    before, begun = len(watch.solved), time.perf_counter()
    session.edit([place], "", session.history.revision)
    watch.until(lambda: len(watch.solved) > before)
    return time.perf_counter() - begun, len(watch.solved[-1]["frames"])


def run(session: Session, watch: Watch, effort: str) -> None:
    """Propagate; ends when the poses stand and all is ready to go again."""
    before = session.shown
    session.run(effort)
    watch.until(lambda: session.shown is not before or session.run_state["state"] == "failed")
    if session.run_state["state"] == "running" and effort != "fast":
        session.cancel()  # training for new videos would go on for minutes
    watch.until(lambda: session.run_state["state"] not in ("running", "stopping"))
    if session.run_state["state"] == "failed":
        raise SystemExit(session.run_state["said"])
    watch.until(lambda: session.solver.kept is not None and session.solver.rests)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--effort", default="fast", choices=("fast", "normal"))
    parser.add_argument("--every", type=int, default=30)
    parser.add_argument("--corrections", type=int, default=10)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        clip, dense = asked.clip, asked.labels
        if clip is None:
            clip, dense = make_clip(folder, asked.frames)
        truth = read_labels(dense, video=clip)
        write_labels(folder / "few.json", keep_every(truth, asked.every))
        session = Session(clip, folder / "out", labels=folder / "few.json")
        watch = Watch(session)
        try:
            run(session, watch, asked.effort)
            begun = mean_error(errors(session.shown.tracks, truth))
            took = [correct(session, watch, truth) for _ in range(asked.corrections)]
            shown = dict(session.shown.tracks)
            after = mean_error(errors(shown, truth))
            run(session, watch, asked.effort)
            final = dict(read_poses(folder / "out" / "poses.json").tracks)
            final_error = mean_error(errors(final, truth))
            pretend = Labels(truth.skeleton, {i: track for i, track in final.items()}, image_size=None)
            apart = errors(shown, pretend)
        finally:
            session.close()
    seconds = [round(each, 3) for each, _ in took]
    figures = {
        "clip": f"{truth.n_frames} frames of {truth.image_size}, a label in {asked.every}",
        "effort": asked.effort,
        "seconds": seconds,
        "seconds_median": round(statistics.median(seconds), 3),
        "seconds_most": max(seconds),
        "frames": [count for _, count in took],
        "error_before": begun,
        "error_shown": after,
        "error_final": final_error,
        "shown_from_final_mean": mean_error(apart),
        "shown_from_final_p95": round(
            float(np.nanpercentile(np.concatenate([each.ravel() for each in apart.values()]), 95)) * 100, 2
        ),
    }
    print(json.dumps(figures, indent=1))
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
