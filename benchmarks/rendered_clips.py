"""Rendered people and a dog whose keypoints are known exactly: the default beside simple methods.

    python benchmarks/rendered_clips.py --clips DIR --out FIGURES.json [--network] [--only REGEX] [--sheets]

Seven clips of 854 x 480 pixels in the demo's street, with textured clothes that are alike on both sides,
shadows, motion blur, grain and H.264: the demo's walker; a runner on an ellipse; somebody who dances and
jumps; somebody who turns about themselves; two people who cross, dressed alike; a spotted dog that trots on
an ellipse; a walker before a camera that sways, turns and shakes. They are rendered into DIR once (some
minutes) and used again. No label is noise, so that every error is an error.

One label in 7, 15 and 31 is kept. For each clip and gap: mean and 95th percentile of the error of linear,
pchip, flow, flow2 and the default, in percent of the longer side of the label's box and in pixels, of
keypoints that are seen, at effort `fast` (with `--network` at `normal`: 60 to 180 seconds of training). With
`--sheets` a contact sheet of each clip with its labels is written into DIR. A stopped run goes on.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from known_truth.actors import dance, dress, make_dog, make_person, run_around, spin, trot, walk_along
from known_truth.scoring import Cell, KnownClip, judge, run_cells
from known_truth.stage import draw_sheet, film_stage, hold_camera, set_stage
from posewarper.demo.clip import render_scene
from posewarper.demo.filming import FPS
from posewarper.demo.gait import Route
from posewarper.evaluation.clips import keep_every
from posewarper.evaluation.scales import boxes_or_extents
from posewarper.formats.labels import read_labels, write_labels
from posewarper.structures import Labels
from posewarper.video.source import open_video
from posewarper.video.writing import write_video

N_FRAMES = 110
GAPS = (7, 15, 31)
Filmed = tuple[Iterator[NDArray[np.uint8]], Labels]


def _walker() -> Filmed:
    return render_scene(N_FRAMES, seed=3)


def _runner() -> Filmed:
    pose = run_around((1.45, 0.75), (0.0, -0.5), 3.0, np.pi * 0.9)
    actor = make_person(dress(11, "blue"), pose)
    camera = hold_camera(11, yaw=lambda t: 0.05 * np.sin(1.7 * t))
    return film_stage(set_stage([actor], camera, 11), N_FRAMES)


def _dancer() -> Filmed:
    actor = make_person(dress(12, "green"), dance((0.1, 0.1), 12))
    return film_stage(set_stage([actor], hold_camera(12), 12), N_FRAMES)


def _spinner() -> Filmed:
    actor = make_person(dress(13, "grey"), spin((0.2, 0.2), 2.5, N_FRAMES / FPS))
    return film_stage(set_stage([actor], hold_camera(13), 13), N_FRAMES)


def _crossing() -> Filmed:
    seconds = N_FRAMES / FPS
    straight = {"turn_at": 1.0, "turn_for": 1.0, "speed": 1.15, "turn_speed": 1.15}
    there = Route(start=(-2.1, 0.0), headings=(0.0, 0.0), **straight)
    back = Route(start=(2.05, -0.75), headings=(180.0, 180.0), **straight)
    actors = [
        make_person(dress(14, "red"), walk_along(there, seconds)),
        make_person(dress(15, "red", rucksack=True), walk_along(back, seconds)),
    ]
    return film_stage(set_stage(actors, hold_camera(14), 14), N_FRAMES)


def _dog() -> Filmed:
    actor = make_dog(trot((1.15, 0.55), (0.0, 0.3), 1.5, np.pi))
    camera = hold_camera(16, distance=4.4, height=0.95, pitch=-0.09, yaw=lambda t: 0.03 * np.sin(2 * t))
    return film_stage(set_stage([actor], camera, 16), N_FRAMES)


def _shaken() -> Filmed:
    seconds = N_FRAMES / FPS
    route = Route(start=(-1.7, -0.5), headings=(-10.0, -150.0), turn_at=1.4, turn_for=1.5)
    actor = make_person(dress(17, "blue", rucksack=True), walk_along(route, seconds))
    camera = hold_camera(
        17,
        yaw=lambda t: 0.16 * np.sin(2.3 * t) - 0.03,
        aside=lambda t: 0.45 * np.sin(1.5 * t + 1),
        shake=6.0,
    )
    return film_stage(set_stage([actor], camera, 17), N_FRAMES)


CLIPS: dict[str, Callable[[], Filmed]] = {
    "walker": _walker,
    "runner": _runner,
    "dancer": _dancer,
    "spinner": _spinner,
    "crossing": _crossing,
    "dog": _dog,
    "shaken": _shaken,
}


def render(name: str, folder: Path, *, sheet: bool) -> tuple[Path, Path]:
    """Return video and labels of a clip; they are made where they are not there."""
    video, labels, picture = (folder / f"{name}{end}" for end in (".mp4", ".json", ".png"))
    if not (video.is_file() and labels.is_file()):
        print(f"rendering {name}", flush=True)
        frames, truth = CLIPS[name]()
        write_labels(labels, replace(truth, video=name))
        write_video(video, frames, fps=FPS)  # last, as it appears when it is complete
    if sheet and not picture.is_file():
        with open_video(video) as opened:
            shown = [opened[i] for i in range(opened.n_frames)]
            truth = read_labels(labels, video=opened)
        indices = np.linspace(4, len(shown) - 1, 12).astype(int).tolist()
        cv2.imwrite(str(picture), draw_sheet(shown, truth, indices)[..., ::-1])
    return video, labels


def make(name: str, gap: int, folder: Path) -> KnownClip:
    """Return a clip with one label in ``gap`` kept."""
    video, labels = render(name, folder, sheet=False)
    with open_video(video) as opened:
        truth = read_labels(labels, video=opened)
    sizes = {i: boxes_or_extents(t.keypoints, t.boxes)[:, 2:].max(1) for i, t in truth.tracks.items()}
    return KnownClip(video, truth, keep_every(truth, gap), sizes)


HEAD = (
    "| clip, gap | linear | pchip | flow | flow2 | default | px: best simple | default | |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def write_row(name: str, cell: Cell) -> str:
    """Return a line of the table: mean / 95th percentile, in percent, then in pixels."""
    methods = cell["methods"]
    cells = [name, *(f"{m['mean']:.2f} / {m['p95']:.1f}" for m in methods.values())]
    mean, p95 = judge(cell, "mean_px"), judge(cell, "p95_px")
    cells += [f"{mean[1]:.1f} / {p95[1]:.1f}", f"{mean[2]:.1f} / {p95[2]:.1f}"]
    worse = [what for what, judged in (("mean", mean), ("95th", p95)) if judged[3]]
    cells.append(f"worse: {', '.join(worse)}" if worse else "")
    return f"| {' | '.join(cells)} |"


def write_summary(cells: Mapping[str, Cell]) -> list[str]:
    """Return the mean over clips of each gap, of the default and of the best simple method of each cell."""
    lines = []
    for gap in GAPS:
        own = [cell for name, cell in cells.items() if name.endswith(f"gap {gap}")]
        if own:
            told = []
            for figure in ("mean", "p95"):
                simple = [min(m[figure] for n, m in c["methods"].items() if n != "default") for c in own]
                ours = [c["methods"]["default"][figure] for c in own]
                told.append(f"{figure} {np.mean(ours):.2f}, best simple {np.mean(simple):.2f}")
            lines.append(f"gap {gap}, {len(own)} clips: {'; '.join(told)} (percent)")
    return lines


def main() -> None:
    """Read the command line, render, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=Path, required=True, metavar="DIR", help="where the clips are kept")
    parser.add_argument("--out", type=Path, metavar="FIGURES.json", help="left out: only render")
    parser.add_argument(
        "--network", action="store_true", help="effort normal: trains a network for each cell"
    )
    parser.add_argument("--only", metavar="REGEX", help="cells whose names fit, such as 'dog|runner, gap 31'")
    parser.add_argument("--sheets", action="store_true", help="write contact sheets with labels")
    parser.add_argument("--seed", type=int, default=0, help="of the training")
    options = parser.parse_args()
    names = [f"{name}, gap {gap}" for name in CLIPS for gap in GAPS]
    names = [n for n in names if not options.only or re.search(options.only, n)]
    if not names:
        raise SystemExit("there is no such cell; without --only all are measured")
    options.clips.mkdir(parents=True, exist_ok=True)
    if options.sheets or options.out is None:
        for clip in dict.fromkeys(name.partition(",")[0] for name in names):
            render(clip, options.clips, sheet=options.sheets)
    if options.out is None:
        return
    jobs = {}
    for name in names:
        clip, _, gap = name.partition(", gap ")
        jobs[name] = partial(make, clip, int(gap), options.clips)
    print(HEAD, flush=True)
    effort = "normal" if options.network else "fast"
    cells = run_cells(jobs, options.out, effort=effort, seed=options.seed, tell=_print_row)
    print("", *write_summary(cells), sep="\n")


def _print_row(name: str, cell: Cell) -> None:
    print(write_row(name, cell), flush=True)


if __name__ == "__main__":
    main()
