"""How soon `posewarper` answers: help, a missing file, the first line of progress.

    python benchmarks/start_up.py [--rounds 5] [--json FILE]

Medians of several new processes: seconds by the clock, and of processors, which other work on the machine
does not lengthen. The first line of progress of `propagate` is that of a clip rendered here.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from posewarper.video.writing import write_video

LABELS = {
    "images": [{"id": 1, "file_name": "clip/000000.jpg", "frame_id": 0, "width": 128, "height": 96}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "keypoints": [30, 40, 2], "bbox": [20, 30, 20, 20]}
    ],
    "categories": [{"id": 1, "name": "thing", "keypoints": ["nose"], "skeleton": []}],
}
COMMANDS = {
    "--help": "--help",
    "propagate --help": "propagate --help",
    "a missing video": "propagate absent.mp4 --labels labels.json",
    "missing labels": "propagate clip.mp4 --labels absent.json",
    "first progress of propagate": "propagate clip.mp4 --labels labels.json --effort fast --overwrite",
}


def time_one(words: list[str], *, until_progress: bool) -> tuple[float, float]:
    """Return seconds by the clock and of processors, until the end or the first line of progress."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "posewarper", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    if until_progress:
        process.stderr.readline()
        took, ticks = time.perf_counter() - begun, os.sysconf("SC_CLK_TCK")
        stat = Path(f"/proc/{process.pid}/stat")
        fields = stat.read_text().rsplit(")", 1)[1].split() if stat.exists() else None
        process.kill()
        process.communicate()
        return took, float("nan") if fields is None else (int(fields[11]) + int(fields[12])) / ticks
    process.stderr.read()
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0
    return time.perf_counter() - begun, usage.ru_utime + usage.ru_stime


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_video(Path("clip.mp4"), iter([np.zeros((96, 128, 3), np.uint8)] * 10), fps=10)
        Path("labels.json").write_text(json.dumps(LABELS))
        for name, command in COMMANDS.items():
            first = name.startswith("first")
            times = [time_one(command.split(), until_progress=first) for _ in range(options.rounds)]
            wall, work = (statistics.median(column) for column in zip(*times, strict=True))
            rows.append({"name": name, "seconds": round(wall, 3), "cpu_seconds": round(work, 3)})
            print(f"{name:28} {wall:6.2f} s, {work:5.2f} s of processors", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
