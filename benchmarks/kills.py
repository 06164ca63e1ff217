"""Kills at random moments over every command that writes, at the efforts fast and normal.

    python benchmarks/kills.py [--kills 100] [--seed 0] [--folder DIR] [--only NAME] [--json FILE]

Each command first runs undisturbed. Then it is killed (SIGKILL, its whole process group) at moments drawn
evenly from its time, and run again: whatever lies in the folder after a kill must be whole, and the run after
the last kill must end with 0 and with the results of the undisturbed run, bit for bit, times apart, with
nothing left over. The networks are tiny and trained for a few iterations, so that a run takes seconds; the
clips are 64 x 48. The commands are forked from this process, which has imported everything.

The kills that are done are kept in DIR/kills.json, so that the same command resumes there. Ends with exit
code 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import timm  # noqa: F401
import torch

from posewarper import fitting
from posewarper.cli import app
from posewarper.demo import clip as demo_clip
from posewarper.demo.posetrack_tree import write_posetrack_tree
from posewarper.formats.labels import write_labels
from posewarper.options import EFFORTS, FitConfig, NetworkConfig
from posewarper.posetrack.preparation import prepare_dataset
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Track
from posewarper.training import own_clip
from posewarper.video.writing import write_video

TINY_FIT = FitConfig(pose_iterations=6, pseudo_iterations=4, warp_iterations=4, pose_batch=2, warp_batch=2)
TINY_NETWORK = NetworkConfig(
    backbone="hrnet_w18_small",
    backbone_weights="none",
    crop_size=(64, 64),
    head_width=8,
    head_blocks=1,
    head_dilations=(1, 2),
)
TRAINING = {
    "model.crop_size": "[64, 64]", "model.head_width": 8, "model.head_blocks": 1,
    "model.head_dilations": "[1, 2]",
    "train.epochs": 2, "train.global_batch": 4, "train.checkpoint_steps": 1, "train.drops": "[]",
    "data.made_up.videos": "[2, 1]", "data.made_up.frames": 8, "data.made_up.size": "[48, 64]",
}  # fmt: skip
_N_FRAMES, _HEIGHT, _WIDTH = 24, 48, 64
# What differs from run to run: times, memory, and what was resumed.
_VOLATILE = {"seconds", "fit_seconds", "peak_memory_bytes", "samples_per_second", "machine"}
_RESUMED = {"log.jsonl", "last.pt"}  # what goes on in them is compared by the parameters in the end


def write_inputs(folder: Path) -> None:
    """Write two clips of a patch that moves, their labels, a list, a download of PoseTrack, a model."""
    texture = np.random.default_rng(0).integers(0, 255, (16, 20, 3), np.uint8)
    frames = []
    for n in range(_N_FRAMES):
        frame = np.full((_HEIGHT, _WIDTH, 3), 90, np.uint8)
        frame[10 + n // 2 : 26 + n // 2, 8 + n : 28 + n] = texture
        frames.append(frame)
    for name in ("a", "b"):
        write_video(folder / f"{name}.mp4", iter(frames), fps=25)
    skeleton, size = Skeleton(("nose", "back", "tail"), ((0, 1), (1, 2))), (_HEIGHT, _WIDTH)
    for name, numbers in {"labels": np.array([2, 10, 18, 22]), "dense": np.arange(_N_FRAMES)}.items():
        corners = np.stack([8.0 + numbers, 10.0 + numbers // 2], -1)[:, None]
        track = Track(numbers, corners + np.array([[2.0, 8.0], [10.0, 3.0], [17.0, 8.0]]))
        labels = Labels(skeleton, {0: track}, image_size=size, n_frames=_N_FRAMES)
        write_labels(folder / f"{name}.json", labels)
    (folder / "list.csv").write_text("video,labels\na.mp4,labels.json\nb.mp4,labels.json\n")
    write_posetrack_tree(folder / "download", n_videos=(3, 2), n_frames=8, size=size, seed=1)
    prepare_dataset("posetrack18", folder / "download", folder / "data")


def jobs(folder: Path) -> dict[str, list[str]]:
    """Return the words of every command, by a name; each writes into the folder ``out``."""
    a, labels, model = str(folder / "a.mp4"), ["--labels", str(folder / "labels.json")], str(folder / "m.pt")
    listed, out = str(folder / "list.csv"), str(folder / "out")
    found: dict[str, list[str]] = {}
    for effort in ("fast", "normal"):
        how = ["--effort", effort, "--out", out]
        found[f"propagate {effort}"] = ["propagate", a, *labels, *how]
        found[f"propagate list {effort}"] = ["propagate", listed, *how]
        methods = "linear,flow" if effort == "fast" else "flow,default"
        given = [a, "--labels", str(folder / "dense.json"), "--every", "6,9", "--methods", methods]
        kept = ["--cache", f"{out}/cache", "--json", f"{out}/rows.json", "--overwrite", "--effort", effort]
        found[f"benchmark {effort}"] = ["benchmark", *given, *kept]
        found[f"demo {effort}"] = ["demo", *how]
    found["propagate extend, model"] = ["propagate", a, *labels, "--model", model, "--extend", "--out", out]
    found["predict"] = ["predict", a, "--model", model, *labels, "--out", out]
    found["predict list"] = ["predict", listed, "--model", model, "--out", out]
    found["train"] = [
        "train",
        "tiny.yaml",
        *(f"{k}={v}" for k, v in TRAINING.items()),
        "--out",
        out,
        "--resume",
    ]
    found["prepare"] = ["prepare", "posetrack18", str(folder / "download"), "--out", out]
    for name in ("labels.csv", "labels.slp", "labels.nwb"):
        found[f"convert {name}"] = ["convert", labels[1], f"{out}/{name}", "--overwrite"]
    found["export"] = ["export", model, f"{out}/model.onnx", "--overwrite"]
    for name, words in found.items():
        words += ["--seed", "1"] if not name.startswith("train") else []
        words += ["--quiet", "--device", "cpu"]
    return found


def start(words: list[str], said: Path) -> int:
    """Fork the command, in a process group of its own; returns its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        torch.set_num_threads(1)
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os.dup2(1, 2)
        app.app(words, prog_name="posewarper")
        code = 0
    except SystemExit as left:
        code = int(left.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def finish(words: list[str], said: Path) -> float:
    """Run the command to its end; returns the seconds."""
    begun = time.monotonic()
    code = os.waitstatus_to_exitcode(os.waitpid(start(words, said), 0)[1])
    if code:
        raise AssertionError(f"exit code {code}: {' '.join(words)}\n{said.read_text()[-2000:]}")
    return time.monotonic() - begun


def kill_after(words: list[str], said: Path, seconds: float) -> bool:
    """Start the command and kill it after a while; returns whether it was still running."""
    child = start(words, said)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.002)
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:  # it has not yet got a group of its own
        os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(v) for key, v in value.items() if key not in _VOLATILE}
    return [_without_times(v) for v in value] if isinstance(value, list) else value


def content_of(path: Path) -> Any:
    """Return what a whole file holds, times apart; raises where it is not whole."""
    if path.suffix == ".json":
        text = path.read_text()
        if path.name == "dataset.json":  # it holds the times of the files that it was made from, in ns
            text = re.sub(r"\b[0-9]{19}\b", "0", text)
        return _without_times(json.loads(text))
    if path.suffix == ".html":
        text = path.read_text()
        assert text.rstrip().endswith("</html>"), "cut off"
        return re.sub(r"\d+(\.\d+)?", "", text)  # it is full of seconds; the poses hold the other numbers
    if path.suffix == ".mp4":
        with av.open(str(path)) as video:
            return [frame.to_ndarray(format="rgb24").tobytes() for frame in video.decode(video=0)]
    if path.suffix == ".pt":
        torch.load(path, weights_only=True, map_location="cpu")
    if path.suffix in (".slp", ".nwb"):  # HDF5 and NWB hold the time of writing
        import h5py

        names: list[str] = []
        with h5py.File(path) as file:
            file.visit(names.append)
        return names
    return path.read_bytes()


def files_of(out: Path) -> dict[str, Path]:
    """Return the files by their names; the events of TensorBoard bear the time."""
    files = (p for p in sorted(out.rglob("*")) if p.is_file() and "tensorboard" not in p.parts)
    return {str(path.relative_to(out)): path for path in files}


def is_ready(name: str) -> bool:
    """Tell whether a file of a run that was stopped must be as in the end; not what is written on."""
    parts = Path(name).parts
    return parts[0] != "parts" and parts[-1] not in _RESUMED and not Path(name).name.startswith(".")


def compare(out: Path, whole: dict[str, Any], *, finished: bool) -> list[str]:
    """Return what is wrong in a folder after a kill, or after the last run."""
    wrong = []
    found = files_of(out)
    if finished and found.keys() != whole.keys():
        wrong.append(f"files: {sorted(found.keys() ^ whole.keys())}")
    for name, path in found.items():
        if not finished and (not is_ready(name) or name.endswith(("request.json", "best.pt", "recipe.yaml"))):
            continue
        if finished and Path(name).name in _RESUMED:
            continue
        try:
            content = content_of(path)
        except Exception as error:  # whatever a file that is not whole raises
            wrong.append(f"{name}: {type(error).__name__} {error}")
            continue
        # The model of `propagate` is written twice: when the poses stand, and when it is trained further.
        if not finished and path.name == "model.pt":
            continue
        if not name.endswith(".partial") and name in whole and content != whole[name]:
            wrong.append(f"{name} differs")
    return wrong


def attempt(
    words: list[str], out: Path, whole: dict[str, Any], seconds: float, rng: random.Random
) -> dict[str, Any]:
    """Kill a command once or twice, run it to its end, and compare."""
    shutil.rmtree(out, ignore_errors=True)
    said, wrong, moments = out.with_name("said.txt"), [], []
    for _ in range(rng.choice((1, 1, 2))):
        moment = rng.uniform(0, 0.95 * seconds)
        if kill_after(words, said, moment):
            moments.append(round(moment, 3))
            wrong += compare(out, whole, finished=False)
    try:
        finish(words, said)
        wrong += compare(out, whole, finished=True)
    except AssertionError as error:
        # A run that was killed after its end says that it is done: as right as doing it again.
        if "holds results already" not in said.read_text() or compare(out, whole, finished=True):
            wrong.append(str(error))
    return {"killed_after_s": moments, "wrong": wrong}


def main() -> None:
    """Kill, run again, compare; print a line for each kill."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder if left out")
    parser.add_argument("--only", help="the commands whose name begins so")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    EFFORTS["normal"] = TINY_FIT
    fitting.NetworkConfig = lambda **given: TINY_NETWORK.model_copy(update=given)
    own_clip._KEPT_SECONDS = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        if not (folder / "m.pt").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            _prepare(folder)
        demo_clip.DRAWN = folder / "drawn.mp4"
        run(folder, options.kills, options.seed, options.only, options.json)


def _prepare(folder: Path) -> None:
    # In a process of its own: this one must not compute before it forks.
    child = os.fork()
    if not child:
        write_inputs(folder)
        demo_clip.write_clip(folder / "drawn.mp4", 24)
        os._exit(0)
    assert not os.waitpid(child, 0)[1]
    finish(jobs(folder)["propagate normal"], folder / "said.txt")
    os.replace(folder / "out" / "model.pt", folder / "m.pt")
    shutil.rmtree(folder / "out")


def run(folder: Path, kills: int, seed: int, only: str | None, report: Path | None) -> None:
    """Go over the commands in turn until there are so many kills."""
    out, noted = folder / "out", folder / "kills.json"
    done: list[dict[str, Any]] = json.loads(noted.read_text()) if noted.is_file() else []
    commands = {n: words for n, words in jobs(folder).items() if n.startswith(only or "")}
    whole: dict[str, tuple[dict[str, Any], float]] = {}
    while sum(len(own["killed_after_s"]) for own in done) < kills:
        name = list(commands)[len(done) % len(commands)]
        words = commands[name]
        if name not in whole:
            shutil.rmtree(out, ignore_errors=True)
            seconds = finish(words, folder / "said.txt")
            whole[name] = {n: content_of(p) for n, p in files_of(out).items()}, seconds
        rng = random.Random(f"{seed} {len(done)}")
        own = {"command": name, **attempt(words, out, *whole[name], rng)}
        done.append(own)
        noted.write_text(json.dumps(done, indent=1))
        print(
            f"{len(done)}: {name} killed after {own['killed_after_s']} s: {own['wrong'] or 'right'}",
            flush=True,
        )
    wrong = [own for own in done if own["wrong"]]
    print(f"{sum(len(own['killed_after_s']) for own in done)} kills in {len(done)} runs: {len(wrong)} wrong")
    if report is not None:
        report.write_text(json.dumps({"seed": seed, "runs": done}, indent=1))
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
