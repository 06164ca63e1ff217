"""Ten kills at random moments of a training, each followed by --resume: do the parameters end up the same?

    python benchmarks/kill_and_resume.py [--kills 10] [--seed 0] [--recipe NAME] [--json FILE] [key=value]

The recipe is first trained without a break. Then it is trained again and killed (SIGKILL, the whole process
group, so that its workers end as well), as many times as asked for: at moments drawn evenly from its start,
that of Python included, so that they fall on imports, drawing, steps, checkpoints and validations.
Ends with exit code 1 if the hashes differ or a partial file is left.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# A part runs for at most this share of the whole run's time before it is killed.
_LONGEST = 0.35


def start(recipe: str, changes: list[str], out: Path) -> subprocess.Popen[bytes]:
    """Start the training in a process group of its own."""
    command = [sys.executable, "-m", "posewarper", "train", recipe, *changes, "--out", str(out)]
    command += ["--resume", "--quiet"]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)


def finish(recipe: str, changes: list[str], out: Path) -> float:
    """Train to the end; returns the seconds."""
    begun = time.monotonic()
    code = start(recipe, changes, out).wait()
    if code:
        raise SystemExit(f"the training ended with exit code {code}")
    return time.monotonic() - begun


def parameters_of(out: Path) -> str:
    """Return the hash of the parameters that a run has ended with."""
    return json.loads((out / "run.json").read_text(encoding="utf-8"))["parameters_sha256"]


def place_of(out: Path) -> str:
    """Return where a run stands by its journal."""
    log = out / "log.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    return f"step {json.loads(lines[-1])['step']}" if lines else "no step yet"


def main() -> None:
    """Train, kill, compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("changes", nargs="*", metavar="key=value", help="settings of the recipe to change")
    parser.add_argument("--recipe", default="tiny.yaml")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    kills = []
    with tempfile.TemporaryDirectory() as temporary:
        whole, parts = Path(temporary, "whole"), Path(temporary, "parts")
        seconds = finish(options.recipe, options.changes, whole)
        hashes = [parameters_of(whole)]
        print(f"without a break: {seconds:.0f} s, {hashes[0]}", flush=True)
        while len(kills) < options.kills:
            wait = rng.uniform(0, _LONGEST * seconds)
            process = start(options.recipe, options.changes, parts)
            time.sleep(wait)
            if process.poll() is not None:  # it came to its end: the kills that are left hit another
                hashes.append(parameters_of(parts))
                print(f"came to its end after {len(kills)} kills: {hashes[-1]}", flush=True)
                shutil.rmtree(parts)
                continue
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            partial = [path.name for path in parts.rglob(".*.partial*")]
            kills.append({"after_s": round(wait, 1), "at": place_of(parts), "partial_files": partial})
            half = ", ".join(partial) or "nothing"
            print(f"kill {len(kills)} after {wait:.1f} s: {place_of(parts)}, {half} half-written", flush=True)
        finish(options.recipe, options.changes, parts)
        hashes.append(parameters_of(parts))
        left = [str(path.relative_to(parts)) for path in parts.rglob("*.partial*")]
    same = len(set(hashes)) == 1
    print(f"after {len(kills)} kills: {hashes[-1]}, {'the same' if same else 'ANOTHER'}")
    print(f"partial files left: {', '.join(left) or 'none'}")
    if options.json is not None:
        content = {
            "recipe": options.recipe, "changes": options.changes, "machine": platform.machine(),
            "seconds_without_a_break": round(seconds, 1), "parameters_sha256": hashes,
            "same": same, "kills": kills, "partial_files_left": left,
        }  # fmt: skip
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if left or not same:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
