"""Small and large, slow and fast subjects whose truth is known: the default beside simple methods.

    python benchmarks/subject_sizes.py --out FIGURES.json [--quick] [--only REGEX] [--network]

Made-up clips with known truth: subjects of 10 to 500 pixels with 1, 2, 4 and 17 keypoints, textured and
plain, over a textured ground with a sensor's noise, every 12th frame labelled, the first and the last too.
They stand still, go straight on, turn on a circle, or stop and go; slow is a quarter of the subject's size
from one label to the next, fast one and a quarter. What does not fit into the picture is left out and named.
Then the real clips with dense labels (POSEWARPER_DATA) shrunk to 160 pixels of width, one label in 7, 15 and
31; their labels are made by networks, so that about 1 percent of the size is noise.

For each cell the mean error and its 95th percentile, in pixels and in percent of the size: of linear, pchip,
flow, flow2 and the default at effort `fast` (with `--network` at `normal`). A cell is worse if the default is
worse than the best of these simple methods, chosen by that very figure, by more than 0.3 pixels and by more
than 5 percent of its figure. Cells that are in the file already, made by the same source code, are not
measured again; a stopped run goes on with the same command.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from known_truth.made_up import MOTIONS, SPEEDS, Motion, film, make_subject, place_points, plan_motion
from known_truth.scoring import SIMPLE, Cell, KnownClip, compare_with, judge, run_cells
from posewarper.evaluation.clips import keep_every
from posewarper.evaluation.scales import boxes_or_extents
from posewarper.formats.labels import read_labels
from posewarper.structures import Labels, Track
from posewarper.video.source import open_video
from posewarper.video.writing import write_video

# Pixels of the subject -> (height, width) of its picture.
PICTURES = {
    **dict.fromkeys((10, 20), (120, 160)),
    40: (240, 320),
    **dict.fromkeys((80, 160), (480, 640)),
    320: (640, 640),
    500: (800, 800),
}
KEYPOINTS = (1, 2, 4, 17)
GAP = 12  # frames from one label to the next
MOST_GAPS, LEAST_GAPS = 5, 2
REAL = (
    "balancing/cam01@0",
    "balancing/cam02@0",
    "balancing/cam03",
    "juggling/juggling",
    "walking/walking",
    "flies/flies",
)
REAL_WIDTH = 160
REAL_GAPS = (7, 15, 31)


def made_up_jobs(seed: int, folder: Path) -> Iterator[tuple[str, Callable[[], KnownClip] | None]]:
    """Yield the name of each cell and what makes its clip, None where it does not fit into the picture."""
    for size in PICTURES:
        for keypoints in KEYPOINTS:
            for motion in MOTIONS:
                for speed in ("",) if motion == "still" else tuple(SPEEDS):
                    for look in ("plain", "textured"):
                        # One codec for all; the other for some, to see whether it matters.
                        for codec in (
                            ("h264", "lossless") if keypoints == 2 and size in (20, 160) else ("h264",)
                        ):
                            moves = f"{motion}, {speed}" if speed else motion
                            name = (
                                f"size {size}, keypoints {keypoints}, {moves}, {look}, {codec}, seed {seed}"
                            )
                            make = partial(
                                _make_up, name, size, keypoints, motion, speed, look, codec, folder
                            )
                            yield name, make if _plan(name, size, motion, speed) else None


def _rng(name: str) -> np.random.Generator:
    # Codec and look have no say, so that cells which differ in them alone show the same motion.
    shown = re.sub(r", (plain|textured), (h264|lossless)", "", name)
    return np.random.default_rng(zlib.crc32(shown.encode()))


def _plan(name: str, size: int, motion: str, speed: str) -> Motion | None:
    """Return the longest motion that fits, or None."""
    step = SPEEDS.get(speed, 0.0) * size / GAP
    for gaps in range(MOST_GAPS, LEAST_GAPS - 1, -1):
        planned = plan_motion(motion, step, size, PICTURES[size], gaps * GAP + 1, _rng(name))
        if planned is not None:
            return planned
    return None


def _make_up(
    name: str, size: int, keypoints: int, motion: str, speed: str, look: str, codec: str, folder: Path
) -> KnownClip:
    moves, rng = _plan(name, size, motion, speed), _rng(name + " of the subject")
    assert moves is not None  # or it were no job
    subject = make_subject(keypoints, rng)
    # One stride, or beat of the tail: who is fast takes longer ones.
    stride = 1.6 if speed == "fast" else 0.8
    points = place_points(subject, moves, size, stride)
    picture = PICTURES[size]
    frames = film(subject, points, moves.heading, size, picture, textured=look == "textured", rng=rng)
    video: Path | list = frames
    if codec == "h264":
        video = folder / "clip.mp4"
        video.unlink(missing_ok=True)
        write_video(video, frames, fps=30)
    n = len(frames)
    track = Track(np.arange(n), points[:, :keypoints])
    truth = Labels(subject.skeleton, {0: track}, image_size=picture, n_frames=n, video="clip")
    return KnownClip(video, truth, truth.at(range(0, n, GAP)), {0: np.full(n, float(size))})


def real_jobs(data: Path | None) -> Iterator[tuple[str, Callable[[], KnownClip] | None]]:
    """Yield the cells of the real clips that are there."""
    for clip in REAL:
        clip, _, track = clip.partition("@")
        there = data is not None and (data / f"{clip}.mp4").is_file()
        for gap in REAL_GAPS:
            name = f"{Path(clip).name}, {REAL_WIDTH} wide, gap {gap}"
            yield name, partial(_shrink, data / clip, track, gap) if there and data is not None else None


def _shrink(clip: Path, track: str, gap: int) -> KnownClip:
    with open_video(clip.with_suffix(".mp4")) as video:
        dense = read_labels(clip.with_suffix(".json"), video=video).only_labelled()
        dense = dense.only_track(int(track)) if track else dense
        height, width = video.image_size
        small = round(height * REAL_WIDTH / width), REAL_WIDTH
        frames = [
            cv2.resize(image, small[::-1], interpolation=cv2.INTER_AREA)
            for _, image in video.frames(range(video.n_frames))
        ]
    scale = np.array([small[1] / width, small[0] / height])
    tracks, sizes = {}, {}
    for i, own in dense.tracks.items():
        points = (own.keypoints + 0.5) * scale - 0.5
        boxes = own.boxes * np.tile(scale, 2)
        tracks[i] = Track(own.frames, points, visibility=own.visibility, labelled=own.labelled, boxes=boxes)
        sizes[i] = boxes_or_extents(points, boxes)[:, 2:].max(1)
    truth = Labels(dense.skeleton, tracks, dense.labelled_frames, small, len(frames), dense.video)
    return KnownClip(
        [np.ascontiguousarray(f, np.uint8) for f in frames], truth, keep_every(truth, gap), sizes
    )


def is_quick(name: str) -> bool:
    """Tell whether a cell is one of the few of a quick run."""
    made_up = re.match(r"size (20|80|320), keypoints (2|17), .*plain, h264", name)
    return bool(made_up or re.match(r"(walking|flies), .* gap 15", name))


def write_row(name: str, cell: Cell) -> str:
    """Return a line of the table."""
    cells = [name]
    for figure in ("mean", "p95"):
        best, simple, own, worse = judge(cell, f"{figure}_px")
        percent = cell["methods"]["default"][figure]
        cells += [f"{simple:.2f} ({best})", f"{own:.2f}", f"{percent:.1f}", "worse" if worse else ""]
    return f"| {' | '.join(cells)} |"


HEAD = (
    "| cell | mean px: best simple | default | percent | | 95th: best simple | default | percent | |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def write_summary(cells: Mapping[str, Cell]) -> list[str]:
    """Return how many cells are worse, by each part of their names."""
    groups: dict[str, list[str]] = {"all": list(cells)}
    for name in cells:
        parts = name.split(", ")
        own = ["real clips"]
        if parts[0].startswith("size"):
            moves = ", ".join(parts[2:-3])
            own = [parts[0], parts[1], moves, parts[-3], parts[-2]]
        for part in own:
            groups.setdefault(part, []).append(name)
    lines = [
        "| cells | n | mean: worse | 95th: worse | mean of default, percent | best simple |",
        "|---|---|---|---|---|---|",
    ]
    for part, names in groups.items():
        worse = [sum(judge(cells[n], f"{f}_px")[3] for n in names) for f in ("mean", "p95")]
        own = np.mean([cells[n]["methods"]["default"]["mean"] for n in names])
        simple = np.mean([min(cells[n]["methods"][m]["mean"] for m in SIMPLE) for n in names])
        lines.append(f"| {part} | {len(names)} | {worse[0]} | {worse[1]} | {own:.2f} | {simple:.2f} |")
    return lines


def write_worst(cells: Mapping[str, Cell], n: int = 20) -> list[str]:
    """Return the table of the worse cells, those first whose mean is worse by the most of their size."""
    found = []
    for name, cell in cells.items():
        best, _, _, worse = judge(cell, "mean_px")
        if worse:
            methods = cell["methods"]
            found.append((methods["default"]["mean"] - methods[best]["mean"], write_row(name, cell)))
    found.sort(key=lambda pair: -pair[0])
    return [
        f"the {min(n, len(found))} worst of {len(found)} cells whose mean is worse:",
        HEAD,
        *(r for _, r in found[:n]),
    ]


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FIGURES.json")
    parser.add_argument("--quick", action="store_true", help="a few cells of each kind, some five minutes")
    parser.add_argument("--only", metavar="REGEX", help="cells whose names fit, such as 'size 20, .*steady'")
    parser.add_argument(
        "--network", action="store_true", help="effort normal: trains a network for each cell"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--against", type=Path, metavar="OLD.json", help="tell which cells have moved since")
    options = parser.parse_args()
    effort = "normal" if options.network else "fast"
    data = os.environ.get("POSEWARPER_DATA")
    with tempfile.TemporaryDirectory() as folder:
        found = dict(made_up_jobs(options.seed, Path(folder)))
        found |= real_jobs(Path(data) if data else None)
        wanted = [n for n in found if not options.only or re.search(options.only, n)]
        wanted = [n for n in wanted if not options.quick or is_quick(n)]
        jobs = {name: make for name in wanted if (make := found[name]) is not None}
        for name in wanted:
            if found[name] is None:
                made_up = name.startswith("size")
                why = "it does not fit into its picture" if made_up else "POSEWARPER_DATA has no such clip"
                print(f"left out: {name}: {why}")
        if not jobs:
            raise SystemExit("there is no such cell; without --only all are measured")
        print(HEAD, flush=True)
        cells = run_cells(
            jobs,
            options.out,
            effort=effort,
            seed=options.seed,
            tell=lambda name, cell: print(write_row(name, cell), flush=True),
        )
    print("", *write_summary(cells), "", *write_worst(cells), "", sep="\n")
    if options.against:
        print(*compare_with(cells, options.against, effort), sep="\n")


if __name__ == "__main__":
    main()
