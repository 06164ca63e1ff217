"""Whether the frames that `posewarper suggest` names are better to label than others.

    python benchmarks/suggest.py CLIP --labels DENSE.json --out FIGURES.jsonl [--every 31] [--add 5,10,20]
        [--begin 5,10] [--track ID]

The dense labels play the user. One label in 31 is kept, and then labels are added: those that `suggest` names
by expected error (after each step the labels are propagated again, and it names the next ones), those that
halve the widest gap, and random ones (three seeds). And 5 and 10 frames are the first to be labelled: those
that `suggest` names by looks, those that halve the clip again and again, evenly spaced ones, and random ones.

The labels are propagated with the effort `fast`, that is without a network, and with `--extend`, so that no
choice loses frames by where its last label lies. Each step adds one line to FIGURES.jsonl; what is there is
not run again. A keypoint that the dense labels lack on a frame is one of which the user says that it is not
there; a frame that they lack, or on which they lack a track, stands for the nearest that they have.

Told are the mean and the 95th percentile, in percent of the subject's size. Where labels are added they are
taken over all frames that were not labelled in the beginning: those that are labelled by now count as 0, so
that all choices are measured on the same keypoints. `held_out_mean` and `held_out_p95` leave them out, as do
the figures of the first labels.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from posewarper.evaluation.clips import keep_every, score_clip
from posewarper.formats.labels import read_labels
from posewarper.formats.records import LabelFile
from posewarper.propagation.clip import Clip, prepare_again, prepare_clip
from posewarper.propagation.methods import propagate_clip
from posewarper.propagation.suggestion import suggest_frames
from posewarper.structures import Labels, Poses
from posewarper.video.source import Video, open_video

SEEDS = (0, 1, 2)


class Loop:
    """A clip whose labels become more; the optical flow is computed once, and added to.

    Args:
        video: the clip.
        dense: the labels that play the user.
        start: those of the beginning.
        scratch: file in which the flow is kept.
    """

    def __init__(self, video: Video, dense: Labels, start: Labels, scratch: Path) -> None:
        self.video, self.dense, self.start, self._scratch = video, dense, start, scratch
        self._clip: Clip | None = None
        whole = [set(track.frames.tolist()) for track in dense.tracks.values()]
        self.can_be_labelled = np.array(sorted(set.intersection(*whole)))

    def propagate(self, labels: Labels) -> Poses:
        """Return the poses that labels give, without a network."""
        if self._clip is None:
            self._clip = prepare_clip(self.video, self.start, extend=True, kept=self._scratch)
        flow = next(iter(self._clip.chains.values())).flow
        assert flow is not None
        return propagate_clip(prepare_again(self.video, labels, flow.store, extend=True), "default")

    def nearest(self, wanted: int, taken: set[int]) -> int:
        """Return the frame to be labelled in the place of one that is suggested."""
        free = self.can_be_labelled[~np.isin(self.can_be_labelled, list(taken))]
        return int(free[np.abs(free - wanted).argmin()])

    def more(self, by: str, taken: list[int], count: int, poses: Poses | None) -> list[int]:
        """Return the labelled frames with ``count`` more."""
        if by.startswith("random"):
            free = np.setdiff1d(self.can_be_labelled, taken)
            rng = np.random.default_rng([int(by.removeprefix("random ")), len(taken)])
            return taken + sorted(rng.choice(free, count, replace=False).tolist())
        labels = self.dense.at(taken)
        order = {"suggest": "error", "bisection": "gaps"}[by]
        found = suggest_frames(self.video, labels, poses, count=count, by=order)
        for each in found:
            taken = [*taken, self.nearest(each.frame, set(taken))]
        return taken


class Figures:
    """What was measured, a line each in a file; what is there is not measured again.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def find(self, same: dict[str, Any]) -> dict[str, Any] | None:
        """Return the line of some settings, None if they were not measured yet."""
        return next((row for row in self._rows if same.items() <= row.items()), None)

    def add(self, row: dict[str, Any]) -> None:
        """Write a line, at once, and show it."""
        self._rows.append(row)
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        print({name: value for name, value in row.items() if name != "frames"}, flush=True)


def add_labels(loop: Loop, figures: Figures, head: dict[str, Any], steps: Sequence[int]) -> None:
    """Add labels to those of the beginning, in steps, by each choice."""
    for by in ("suggest", "bisection", *(f"random {seed}" for seed in SEEDS)):
        taken, poses = loop.start.labelled_frames.tolist(), None
        for before, added in zip([0, 0, *steps], [0, *steps], strict=False):
            same = {**head, "by": by if added else "start", "added": added}
            known = figures.find(same)
            if known is not None:
                taken, poses = known["frames"], None
                continue
            if added:
                if by == "suggest" and poses is None:
                    poses = loop.propagate(loop.dense.at(taken))
                taken = loop.more(by, taken, added - before, poses)
            begun = time.perf_counter()
            poses = loop.propagate(loop.dense.at(taken))
            every = score_clip(poses, loop.dense, loop.start)
            row = {**same, "frames": [int(frame) for frame in taken]}
            row |= {"mean": round(every.mean, 3), "p95": round(every.p95, 2)}
            row |= held_out(poses, loop.dense, taken)
            figures.add(row | {"seconds": round(time.perf_counter() - begun, 1)})


def begin(loop: Loop, figures: Figures, head: dict[str, Any], counts: Sequence[int]) -> None:
    """Take the first frames to be labelled by each choice."""
    n_frames = loop.video.n_frames
    for count in counts:
        for by in ("looks", "bisection", "evenly", *(f"random {seed}" for seed in SEEDS)):
            same = {**head, "by": by, "begin": count}
            if figures.find(same) is not None:
                continue
            if by.startswith("random"):
                wanted = np.random.default_rng(int(by[-1])).choice(loop.can_be_labelled, count, replace=False)
            elif by == "evenly":
                wanted = (2 * np.arange(count) + 1) * n_frames // (2 * count)
            else:
                order = {"looks": "looks", "bisection": "gaps"}[by]
                wanted = [each.frame for each in suggest_frames(loop.video, count=count, by=order)]
            taken: list[int] = []
            for frame in wanted:
                taken.append(loop.nearest(int(frame), set(taken)))
            poses = loop.propagate(loop.dense.at(taken))
            figures.add({**same, "frames": taken, **held_out(poses, loop.dense, taken)})


def held_out(poses: Poses, dense: Labels, taken: Sequence[int]) -> dict[str, Any]:
    """Return the figures on the frames that are not labelled."""
    score = score_clip(poses, dense, dense.at(taken))
    return {"held_out_mean": round(score.mean, 3), "held_out_p95": round(score.p95, 2)}


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--every", type=int, default=31)
    parser.add_argument("--add", default="5,10,20")
    parser.add_argument("--begin", default="5,10")
    parser.add_argument("--track", type=int)
    asked = parser.parse_args()
    figures = Figures(asked.out)
    with open_video(asked.clip) as video, tempfile.TemporaryDirectory() as scratch:
        dense = read_labels(LabelFile(asked.labels, unlabelled="absent"), video=video)
        dense = dense if asked.track is None else dense.only_track(asked.track)
        start = keep_every(dense, asked.every)
        loop = Loop(video, dense, start, Path(scratch) / "flow")
        name = asked.clip.stem
        begin(loop, figures, {"clip": name}, [int(part) for part in asked.begin.split(",")])
        steps = [int(part) for part in asked.add.split(",")]
        add_labels(loop, figures, {"clip": name, "every": asked.every}, steps)


if __name__ == "__main__":
    main()
