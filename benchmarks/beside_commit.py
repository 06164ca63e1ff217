"""This commit beside an older one: whole commands in turn, on this processor and on an ordinary one.

    python benchmarks/beside_commit.py [--commit 5a4566d] [--rows demo,fast] [--quick] [--out DIR]

Both run from their sources (the older one from a worktree in --out) with the packages that are installed, in
processes of their own and without kept flow. Told: seconds by the clock until the poses stand and until the
command ends, those of the processors, and the mean error and 95th percentile in percent of the subject's
size. Every row is written to beside.json in --out as soon as it stands, and is not measured again: stop it
and go on later. A command that takes longer than --limit minutes is stopped, and its row says so. --quick
leaves out the rows in which the older commit trains; it ends in 5 minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from posewarper.evaluation.clips import keep_every, score_clip
from posewarper.formats.labels import read_labels, read_poses, write_labels
from predict_speed import ORDINARY
from propagate_speed import make_clip

HERE = Path(__file__).resolve().parents[1]
KINDS = {"AVX2": ORDINARY, "as it is": {}}
SLOW = ("demo", "normal", "one frame", "five frames")  # the older commit trains for these


def prepare(folder: Path, name: str, *, walks: int, every: int, n_frames: int | None = None) -> list[str]:
    """Make a clip and its kept labels; return video, labels and truth."""
    video, truth = make_clip(folder, walks, n_frames)
    dense, kept = read_labels(truth), folder / f"{name}_kept.json"
    write_labels(kept, keep_every(dense, every))
    return [str(video), str(kept), str(truth)]


def rows_of(folder: Path, walks: int) -> dict[str, tuple[list[str], tuple[str, str] | None]]:
    """Return, by row, the words of its command, and its kept labels and truth if it has an error."""
    video, kept, truth = prepare(folder, "normal", walks=1, every=15, n_frames=100)
    long, long_kept, long_truth = prepare(folder, "fast", walks=walks, every=60)
    shown, shown_kept, _ = prepare(folder, "predict", walks=1, every=15)
    predict = ["predict", shown, "--labels", shown_kept, "--no-overlay", "--model", "DEMO/model.pt"]
    return {
        "demo": (["demo"], ("DEMO/labels.json", "DEMO/truth.json")),
        "normal": (["propagate", video, "--labels", kept], (kept, truth)),
        "fast": (["propagate", long, "--labels", long_kept, "--effort", "fast"], (long_kept, long_truth)),
        "one frame": ([*predict, "--aggregate", "none"], None),
        "five frames": ([*predict, "--crops", "held"], None),
    }


def measure(
    words: list[str],
    scored: tuple[str, str] | None,
    sources: Path,
    out: Path,
    kind: dict[str, str],
    limit: float,
) -> dict[str, Any]:
    """Run one command from ``sources``, for ``limit`` seconds at most, and return its row."""
    demo = str(out.parent / "demo")
    if "DEMO/model.pt" in words and not Path(demo, "model.pt").is_file():
        return {"left_out": "the row demo has left no model"}
    command = [sys.executable, "-m", "posewarper", *(word.replace("DEMO", demo) for word in words)]
    # An older commit does not know the cache; ours is not to profit from it.
    environment = {**os.environ, **kind, "PYTHONPATH": str(sources / "src"), "POSEWARPER_CACHE": ""}
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    ending = ["--out", str(out), "--overwrite", "--quiet"]
    how = {"check": True, "env": environment, "stdout": subprocess.DEVNULL, "timeout": limit}
    try:
        subprocess.run([*command, *ending], **how)
    except subprocess.TimeoutExpired:
        return {"stopped_after": limit}
    took, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    stages = json.loads((out / "run.json").read_text())["seconds"]
    # The seconds of run.json count from when torch is loaded; what lies before and after belongs to both.
    first = took - stages["total"] + stages.get("first_result", stages["total"])
    row: dict[str, Any] = {"first": round(first, 1), "end": round(took, 1)}
    row["processors"] = round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1)
    if scored is not None:
        kept, truth = (read_labels(path.replace("DEMO", demo)) for path in scored)
        score = score_clip(read_poses(out / "poses.json"), truth, kept).to_row()
        row |= {key: round(score[key], 2) for key in ("mean", "p95")}
    else:
        row["frames_a_second"] = round(read_poses(out / "poses.json").n_frames / took, 1)
    return row


def main() -> None:
    """Measure what is missing, and tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--commit", default="5a4566d")
    parser.add_argument("--rows", help="demo, normal, fast, one frame, five frames; with commas")
    parser.add_argument("--kinds", default=",".join(KINDS), help="AVX2, as it is; with commas")
    parser.add_argument("--walks", type=int, default=4, help="length of the row fast; 20 are 3 minutes")
    parser.add_argument("--limit", type=float, default=20.0, help="minutes")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/beside_commit"))
    options = parser.parse_args()
    folder = options.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    older, results = folder / options.commit, folder / "beside.json"
    if not older.is_dir():
        subprocess.run(
            ["git", "-C", str(HERE), "worktree", "add", "--detach", str(older), options.commit], check=True
        )
    rows = rows_of(folder, options.walks)
    chosen = (
        options.rows.split(",") if options.rows else [n for n in rows if not options.quick or n not in SLOW]
    )
    done = json.loads(results.read_text()) if results.is_file() else {}
    for kind in options.kinds.split(","):
        for name in chosen:
            for commit, sources in (("here", HERE), (options.commit, older)):
                key = f"{name}, {kind}, {commit}"
                if key not in done:
                    out = folder / f"{kind}, {commit}".replace(" ", "_") / name.replace(" ", "_")
                    row = measure(*rows[name], sources, out, KINDS[kind], 60 * options.limit)
                    if "left_out" in row:  # it can be measured once the demo has left a model
                        print(f"{key:32} {row}", flush=True)
                        continue
                    done[key] = row
                    results.write_text(json.dumps(done, indent=1) + "\n")
                print(f"{key:32} {done[key]}", flush=True)


if __name__ == "__main__":
    main()
