"""Seconds and memory of `posewarper prepare` on a made-up set of the official size.

    python benchmarks/preparation.py [--videos 170] [--frames 120] [--kind posetrack18] [--json FILE]

The labels are made up; all frames are links to one tiny image. Measured, each in a process of its own: the
first run, a second one into the same folder, and one after a tenth of the label files has changed. Memory is
the peak of the process less its peak after the imports (Linux alone tells it).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_MAX_LINKS = 10_000  # to one file; file systems allow some ten thousand


def make_download(folder: Path, kind: str, n_videos: int, n_frames: int) -> None:
    """Write labels of four people a video, and links for frames."""
    import numpy as np
    import PIL.Image

    from posewarper.demo.posetrack_tree import write_posetrack_tree
    from posewarper.posetrack.tables import read_tables

    write_posetrack_tree(
        folder, kind, n_videos=(0, n_videos), n_frames=n_frames, size=(720, 1280), n_people=(4, 4),
        with_frames=False,
    )  # fmt: skip
    n_links = 0
    for file in sorted((folder / ("posetrack_data" if kind == "posetrack21" else "annotations")).glob("*/*")):
        for name in next(iter(read_tables(file).values())).frame_names:
            image, place = folder / f"frame{n_links // _MAX_LINKS}.jpg", folder / "images" / name
            if not image.exists():
                PIL.Image.fromarray(np.zeros((720, 1280, 3), np.uint8)).save(image)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(image, place)
            n_links += 1


def peak_megabytes() -> float:
    """Return the peak of this process's memory; that of ``resource`` would include the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def measure(kind: str, download: Path, out: Path) -> dict[str, float]:
    """Prepare in this process; return seconds, megabytes, and what was found."""
    from posewarper.posetrack.preparation import prepare_dataset

    before = peak_megabytes()
    begin = time.perf_counter()
    _, summary = prepare_dataset(kind, download, out)
    seconds = time.perf_counter() - begin
    megabytes = round(peak_megabytes() - before, 1)
    counts = {key: sum(c[key] for c in summary.splits.values()) for key in summary.splits["val"]}
    figures = {"seconds": round(seconds, 2), "megabytes": megabytes}
    return figures | {"kept": summary.n_kept} | counts


def measure_apart(kind: str, download: Path, out: Path) -> dict[str, float]:
    """As :func:`measure`, in a process of its own."""
    command = [sys.executable, __file__, "--one", kind, str(download), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    """Make the set, measure, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--kind", default="posetrack18", choices=("posetrack17", "posetrack18", "posetrack21")
    )
    parser.add_argument("--videos", type=int, default=170)
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one[0], Path(options.one[1]), Path(options.one[2]))))
        return
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        download, out = Path(temporary) / "download", Path(temporary) / "out"
        make_download(download, options.kind, options.videos, options.frames)
        rows["first run"] = measure_apart(options.kind, download, out)
        rows["second run"] = measure_apart(options.kind, download, out)
        for file in sorted(download.glob("*/val/*.*"))[::10]:
            os.utime(file)
        rows["a tenth changed"] = measure_apart(options.kind, download, out)
    print(f"{options.kind}, {platform.processor() or platform.machine()}, Python {platform.python_version()}")
    for name, row in rows.items():
        print(f"{name:16}" + "  ".join(f"{key} {value}" for key, value in row.items()))
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
