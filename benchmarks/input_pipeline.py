"""Samples per second of the input pipeline alone: frames read and cut by workers, or in the main process.

    python benchmarks/input_pipeline.py [--quick] [--workers 1,2,4] [--json FILE]

Pairs of frames 1280 x 720 become crops 384 x 288 with targets, 8 pairs a batch, from JPEG files and from a
video file of one's own (H.264, a key frame every 250 frames, 40 labelled frames), read as it is or unpacked
into image files before. Rows alternate, and medians over rounds are told. A round is timed after an epoch in
which workers start and caches are filled. `speedup` is against the main process in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from posewarper.training.samples import TrainingSamples, VideoFrames

SIZE, BATCH = (720, 1280), 8


def make_frames(folder: Path, n_frames: int) -> dict[str, VideoFrames]:
    """Draw frames with the detail of a photograph, write them as JPEG files and as a video."""
    import cv2
    import numpy as np

    from posewarper.training.samples import VideoFrames
    from posewarper.video.writing import write_video

    rng = np.random.default_rng(0)
    noise = sum(
        cv2.resize(rng.normal(0, 6 * step**0.7, (SIZE[0] // step, SIZE[1] // step + 40, 3)), (1600, 720))
        for step in (1, 2, 4, 8, 16, 40)
    )
    scene = np.clip(np.asarray(noise) + 120, 0, 255).astype(np.uint8)
    names = tuple(f"{n:06d}.jpg" for n in range(n_frames))

    def film() -> Iterator[np.ndarray]:
        for n, name in enumerate(names):
            left = abs(3 * n % 640 - 320)  # to and fro
            image = np.ascontiguousarray(scene[:, left : left + SIZE[1]])
            cv2.imwrite(str(folder / name), image, [cv2.IMWRITE_JPEG_QUALITY, 85])
            yield image

    write_video(folder / "clip.mp4", film(), fps=30)
    return {
        "JPEG files": VideoFrames(str(folder), 0, n_frames, names),
        "a video file": VideoFrames(str(folder / "clip.mp4"), 0, n_frames),
        "a video file, unpacked": VideoFrames(str(folder / "clip.mp4"), 0, n_frames),
    }


def draw_samples(video: object, n_frames: int, n_samples: int) -> TrainingSamples:
    """Return samples on 40 frames of a video, with boxes and keypoints anywhere in them."""
    import numpy as np

    from posewarper.skeletons import POSETRACK
    from posewarper.training.samples import TrainingSamples

    rng = np.random.default_rng(0)
    centers = rng.uniform([300, 200], [980, 520], (n_samples, 2)).astype(np.float32)
    return TrainingSamples(
        videos=(video,),  # type: ignore[arg-type]
        video_of=np.zeros(n_samples, np.int64),
        numbers=np.resize(np.linspace(2, n_frames - 3, 40).astype(np.int64), n_samples),
        keypoints=centers[:, None].astype(np.float64) + rng.normal(0, 80, (n_samples, 17, 2)),
        centers=centers,
        scales=np.full((n_samples, 2), [1.5, 2.0], np.float32),
        is_pseudo=np.zeros(n_samples, bool),
        skeleton=POSETRACK,
    )


def load(video: object, n_frames: int, n_samples: int, workers: int, unpacked: Path | None) -> float:
    """Return samples per second of one epoch, after a first one that is not timed.

    ``unpacked`` is where the frames are unpacked to before, if they are.
    """
    from posewarper.options import AugmentationSettings
    from posewarper.training.batches import BatchLoader, EpochSampler, TrainingSet
    from posewarper.training.samples import unpack_videos

    samples = draw_samples(video, n_frames, n_samples)
    if unpacked is not None:
        samples = unpack_videos(samples, unpacked, 2)
    dataset = TrainingSet(
        samples, crop_size=(384, 288), sigma=3, augmentation=AugmentationSettings(), pairs=True
    )
    sampler = EpochSampler(n_samples, BATCH, rank=0, world=1, seed=0)
    loader = BatchLoader(dataset, sampler, workers=workers)
    for _ in loader:
        pass
    sampler.set_epoch(1)
    start = time.perf_counter()
    seen = sum(len(batch["index"]) for batch in loader)
    return seen / (time.perf_counter() - start)


def main() -> None:
    """Make the frames, measure, print a table."""
    import cv2

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer frames, samples and rounds")
    parser.add_argument("--workers", metavar="N,N,...", help="numbers of processes (1 up to the cores)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(1)  # what one process does on one core; workers do the same
    cores = os.cpu_count() or 1
    numbers = [n for n in (1, 2, 4, 8, 16) if n <= cores]
    if options.workers:
        numbers = [int(n) for n in options.workers.split(",")]
    rounds, n_samples, n_frames = (2, 40, 60) if options.quick else (3, 80, 300)
    with tempfile.TemporaryDirectory() as temporary:
        sources = make_frames(Path(temporary), n_frames)
        cases = [(source, workers) for source in sources for workers in (0, *numbers)]
        found: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
        for n in range(rounds):
            for case in cases if n % 2 == 0 else cases[::-1]:
                unpacked = Path(temporary) if case[0].endswith("unpacked") else None
                found[case].append(load(sources[case[0]], n_frames, n_samples, case[1], unpacked))
    rows = []
    for (source, workers), rates in found.items():
        median, base = statistics.median(rates), statistics.median(found[source, 0])
        who = f"{workers} workers" if workers else "main process"
        name = f"pairs 384 x 288 from {source}, {who}"
        rows.append(
            {
                "name": name,
                "median": round(median, 2),
                "unit": "samples per second",
                "lowest": round(min(rates), 2),
                "highest": round(max(rates), 2),
                "speedup": round(median / base, 2),
            }
        )
        print(f"{median:9.1f} pairs/s  {median / base:6.2f} x  {name}")
    print(f"{cores} cores, {platform.processor() or platform.machine()}, Python {platform.python_version()}")
    if options.json is not None:
        report = {"device": platform.processor() or platform.machine(), "cores": cores, "rows": rows}
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
