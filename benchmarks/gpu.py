"""All that is claimed about GPUs, or will be once it was measured, on one GPU in under 9 minutes.

    python benchmarks/gpu.py --json gpu.json [--only NAME,NAME...] [--commit HASH]
    python benchmarks/gpu.py --json tiny.json --tiny

Each part runs in a process of its own with a time limit of its own: one that crashes, hangs or is not
possible becomes a row with an error, and the others go on. The file is written anew after every part, so
that a stop loses nothing that is finished. Nothing is downloaded: the package, which need not be installed,
renders the clip, `propagate` starts from the weights that its dependencies bring along, and networks that are
only timed have random ones.

`--tiny` runs every part on the CPU at tiny sizes, in one to two minutes, as a test of this script; parts that
need a GPU are skipped by name. `--commit` names the commit where the copy that runs has no git history.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests" / "unit" / "model")]

SECONDS = 525  # for all parts together
EVERY = 15  # one label in this many frames of the clip is kept
TINY = 12, 5  # frames of a tiny clip, and the same
EQUAL = 1e-4  # of the largest value


@dataclass(frozen=True)
class Place:
    """Where and how large the parts run; ``folder`` holds the clip and what parts leave for later ones."""

    folder: Path
    tiny: bool

    @property
    def device(self) -> str:
        """The name that commands and torch take."""
        return "cpu" if self.tiny else "cuda"

    @property
    def clip(self) -> Path:
        """The rendered video."""
        return self.folder / "clip.mp4"

    @property
    def labels(self) -> Path:
        """The labels that are kept."""
        return self.folder / "labels.json"

    @property
    def truth(self) -> Path:
        """The labels of all frames."""
        return self.folder / "truth.json"


def describe_machine(place: Place) -> dict[str, Any]:
    """Return what ran: the device, the versions."""
    import importlib.util

    import torch
    import torchvision

    facts: dict[str, Any] = {"torch": torch.__version__, "torchvision": torchvision.__version__}
    facts |= {"python": platform.python_version(), "cores": os.cpu_count()}
    if importlib.util.find_spec("triton") is not None:
        import triton

        facts["triton"] = triton.__version__
    if place.tiny:
        return {"device": f"cpu, {platform.processor() or platform.machine()}", **facts}
    if not torch.cuda.is_available():
        raise RuntimeError("torch sees no GPU")
    own = torch.cuda.get_device_properties(0)
    facts |= {"memory_gib": round(own.total_memory / 2**30, 1), "processors": own.multi_processor_count}
    facts |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return {"device": own.name, "capability": f"{own.major}.{own.minor}", **facts}


def render_clip(place: Place) -> dict[str, Any]:
    """Write the demo's clip, the labels that are kept and those of all frames."""
    from posewarper.demo.clip import N_FRAMES, render_scene
    from posewarper.demo.filming import FPS
    from posewarper.evaluation.clips import keep_every
    from posewarper.formats.labels import write_labels
    from posewarper.video.writing import write_video

    n_frames, every = TINY if place.tiny else (N_FRAMES, EVERY)
    frames, dense = render_scene(n_frames)
    write_video(place.clip, frames, fps=FPS)
    write_labels(place.truth, dense)
    kept = keep_every(dense, every)
    write_labels(place.labels, kept)
    return {"frames": n_frames, "labelled_frames": kept.labelled_frames.tolist()}


def compare_kernels(place: Place) -> dict[str, Any]:
    """Compare the Triton kernels with torchvision in output and gradients, also at the paper's size."""
    import torch
    import triton_cases as cases

    from warp_op import DILATIONS, HEIGHT, KEYPOINTS, WIDTH

    found = cases.compare_all(place.device)
    for d in DILATIONS:
        values = torch.rand(4, KEYPOINTS, HEIGHT, WIDTH)
        offsets = torch.randn(4, KEYPOINTS * 18, HEIGHT, WIDTH) * 2
        weight = torch.randn(KEYPOINTS, KEYPOINTS, 3, 3)
        found[f"paper's size, dilation {d}"] = cases.compare(values, offsets, weight, d)
    largest = max(difference for case in found.values() for difference in case.values())
    return {"equal": largest < EQUAL, "largest_difference": largest, "cases": found}


def compare_network(place: Place) -> dict[str, Any]:
    """Compare heatmaps and warps of the GPU with those of the CPU, in shares of the largest value."""
    import numpy as np
    import torch

    from posewarper.model.heatmap_runner import HeatmapEngine
    from predict_speed import make_model

    model = make_model()
    crops = np.random.default_rng(0).integers(0, 255, (8, *model.spec.crop_size, 3)).astype(np.uint8)
    engines = {"cpu": HeatmapEngine(model, precision="float32", eager=True)}
    on_gpu = make_model().to(place.device)
    engines |= {kind: HeatmapEngine(on_gpu, precision=kind) for kind in ("float32", "bfloat16")}
    found: dict[str, list[torch.Tensor]] = {}
    for name, engine in engines.items():
        seen = engine.heatmaps(crops)
        # All are warped by the same offsets, else the differences of heatmaps would count again.
        given = found["cpu"][0].to(seen.device) if found else seen
        found[name] = [seen, engine.warp(given, source=given, target=given.roll(1, 0))]
    rows = []
    for name in ("float32", "bfloat16"):
        row: dict[str, Any] = {"name": name}
        for what, own, wanted in zip(("heatmaps", "warped"), found[name], found["cpu"], strict=True):
            row[what] = float((own.cpu().float() - wanted).abs().max() / wanted.abs().max())
        rows.append(row)
    return {"allow_tf32": torch.backends.cudnn.allow_tf32, "rows": rows}


def time_warp(place: Place) -> dict[str, Any]:
    """Time the warp operator beside torchvision's and ``grid_sample``."""
    import torch

    import warp_op

    rounds, batch = (1, 1) if place.tiny else (30, warp_op.BATCH)
    return {"rows": warp_op.measure(torch.device(place.device), rounds, batch)["rows"]}


def time_aggregation(place: Place) -> dict[str, Any]:
    """Time five-frame aggregation beside the original's way."""
    import aggregation

    tiny: dict[str, Any] = {"backbone": "hrnet_w18_small", "crop": (64, 64), "matrix": 64}
    tiny |= {"head_width": 16, "head_blocks": 2}
    return aggregation.measure(place.device, 1 if place.tiny else 9, **(tiny if place.tiny else {}))


def time_paper_training(place: Place) -> dict[str, Any]:
    """Time the pair stage of the paper's recipe, its frames read by workers or there already."""
    import training_speed
    from input_pipeline import make_frames

    workers = 0 if place.tiny else min(16, os.cpu_count() or 1)
    batch, rows = training_speed.SETTINGS[place.device]["train"]["batch_per_device"], []
    images = place.folder / "images"
    images.mkdir()
    video = make_frames(images, 6 if place.tiny else 300)["JPEG files"]
    for source in (None, workers):
        rate = training_speed.measure(
            "warper", place.device, source, video, batch * (1 if place.tiny else 25)
        )
        name = "samples there already" if source is None else f"{source} workers"
        rows.append({"name": name, "samples_per_second": rate, "steps_per_second": round(rate / batch, 3)})
    return {**training_speed.SETTINGS[place.device]["model"], "batch": batch, "rows": rows}


def time_own_training(place: Place) -> dict[str, Any]:
    """Time the stages of training on the clip, as ``propagate`` trains, beside the CPU."""
    from posewarper.fitting import fit
    from posewarper.options import FitConfig, NetworkConfig

    rows, network = [], NetworkConfig(crop_size=(64, 64)) if place.tiny else NetworkConfig()
    for device, steps in [("cpu", 2)] if place.tiny else [("cuda", 80), ("cpu", 10)]:
        times: dict[str, list[float]] = {}

        def note(stage: str, done: int, total: int, times: dict[str, list[float]] = times) -> None:
            times.setdefault(stage, []).append(time.perf_counter())

        config = FitConfig(pose_iterations=steps, pseudo_iterations=0, warp_iterations=steps)
        checkpoint = place.folder / "tiny.pt" if place.tiny else None
        how: dict[str, Any] = {"config": config, "network": network, "checkpoint": checkpoint}
        fit(place.clip, place.labels, device=device, progress=note, **how)
        for stage, own in times.items():
            if stage.startswith("training"):
                own = own[len(own) // 5 :]  # the first steps hold what is done once
                rate = (len(own) - 1) / (own[-1] - own[0]) if len(own) > 1 else None
                rows.append({"name": f"{stage}, {device}", "steps_per_second": rate})
    batch = {"pose_batch": FitConfig().pose_batch, "warp_batch": FitConfig().warp_batch}
    return {**network.model_dump(), **batch, "rows": rows}


def run_command(place: Place, command: str, out: str, *words: object) -> dict[str, Any]:
    """Run ``posewarper`` on the clip; return seconds, and the mean error of the poses it wrote."""
    from dataclasses import replace

    from posewarper.evaluation.clips import score_clip
    from posewarper.formats.labels import read_labels, read_poses

    folder = place.folder / out
    given = [place.clip, "--labels", place.labels, "--out", folder, "--quiet", *words]
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "posewarper", command, *map(str, given)], capture_output=True, text=True
    )
    took = time.perf_counter() - begun
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    facts = json.loads((folder / "run.json").read_text())
    row = {"seconds": round(took, 2), "stages": facts["seconds"], "ran_on": facts["ran_on"]}
    poses, dense = read_poses(folder / "poses.json"), read_labels(place.truth)
    if poses.tracks:  # predict counts its tracks anew
        longest = max(poses.tracks.values(), key=lambda track: len(track.frames))
        poses = replace(poses, tracks={next(iter(dense.tracks)): longest})
        score = score_clip(poses, dense, read_labels(place.labels)).to_row()
        row |= {name: score[name] for name in ("mean", "p95", "coverage") if name in score}
    return {**row, "warnings": [line for line in done.stderr.splitlines() if line.startswith("warning")]}


def run_propagate(place: Place) -> dict[str, Any]:
    """Run the main job from start to end on the clip."""
    effort = "fast" if place.tiny else "normal"
    return run_command(place, "propagate", "propagated", "--device", place.device, "--effort", effort)


def run_predict(place: Place) -> dict[str, Any]:
    """Run the prediction of the clip from start to end, and time it in a process that is warm."""
    import predict_speed
    from posewarper.model.checkpoint import load_model

    path = place.folder / ("tiny.pt" if place.tiny else "propagated/model.pt")
    if not path.is_file():
        raise RuntimeError(
            f"{path.name} is missing, which {'own training' if place.tiny else 'propagate'} makes"
        )
    rows = []
    for way, settings in list(predict_speed.WAYS.items())[: 1 if place.tiny else None]:
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        words += ["--model", path, "--device", place.device]
        rows.append(
            {"name": f"the command, {way}", **run_command(place, "predict", way.replace(" ", "_"), *words)}
        )
    for device in [place.device] if place.tiny else ["cuda", "cpu"]:
        model = load_model(path).eval().to(device)
        given: dict[str, Any] = {"video": place.clip, "labels": place.labels, "engines": ("auto",)}
        for row in predict_speed.measure(model, rounds=1 if place.tiny else 2, **given):
            del row["possible_fps"]
            rows.append({**row, "name": f"in a warm process, {row['name']}, {device}"})
    return {"rows": rows}


@dataclass(frozen=True)
class Part:
    """One part: what it does, the seconds it may take, and whether it makes sense without a GPU."""

    work: Callable[[Place], dict[str, Any]]
    seconds: float
    needs_gpu: bool = False


PARTS = {
    "machine": Part(describe_machine, 60),
    "clip": Part(render_clip, 60),
    "kernels": Part(compare_kernels, 75, needs_gpu=True),
    "warp operator": Part(time_warp, 60),
    "aggregation": Part(time_aggregation, 90),
    "paper training": Part(time_paper_training, 100),
    "propagate": Part(run_propagate, 150),
    "own training": Part(time_own_training, 60),
    "predict": Part(run_predict, 90),
    "network": Part(compare_network, 60, needs_gpu=True),
}


def work_apart(name: str, place: Place, limit: float) -> dict[str, Any]:
    """Return the row of a part that runs in a process of its own for at most ``limit`` seconds."""
    answer = place.folder / "answer.json"
    answer.unlink(missing_ok=True)
    words = [sys.executable, __file__, "--part", name, "--folder", str(place.folder)]
    # The commands that the part runs find the package as this script does.
    paths = [str(ROOT / "src"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    begun = time.perf_counter()
    with (place.folder / "said.txt").open("w+", encoding="utf-8", errors="replace") as said:
        process = subprocess.Popen(
            [*words, *(["--tiny"] if place.tiny else [])],
            stdout=said,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        error = None
        try:
            if code := process.wait(timeout=limit):
                said.seek(0)
                error = f"ended with {code}: {said.read().strip()[-1500:]}"
        except subprocess.TimeoutExpired:
            error = f"stopped after {limit:.0f} seconds"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    took = round(time.perf_counter() - begun, 1)
    found = json.loads(answer.read_text()) if answer.is_file() else {}
    return {"part": name, "took": took, **found, **({} if error is None else {"error": error})}


def name_commit() -> str:
    """Return the commit of this copy, and whether files differ from it."""
    git = ["git", "-C", str(ROOT)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.strip() + (", changed" if changed.strip() else "")


def write_report(path: Path, report: Mapping[str, Any]) -> None:
    """Replace the file as a whole."""
    half = path.with_name(path.name + ".half")
    half.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    half.replace(path)


def main() -> None:
    """Run one part, or all of them one after another."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the report is written")
    parser.add_argument("--tiny", action="store_true", help="test this script on the CPU")
    parser.add_argument("--only", metavar="NAME,NAME...", help=f"some of: {', '.join(PARTS)}")
    parser.add_argument("--commit", metavar="HASH", help="which commit this is, without git")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        found = PARTS[options.part].work(Place(options.folder, options.tiny))
        (options.folder / "answer.json").write_text(json.dumps(found), encoding="utf-8")
        return
    if options.json is None:
        parser.error("--json FILE is missing")
    wanted = [*PARTS] if options.only is None else ["machine", *options.only.split(",")]
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"--only: there is no {', '.join(unknown)}; there are {', '.join(PARTS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what runs is ended too
    begun = time.perf_counter()
    report: dict[str, Any] = {"commit": options.commit or name_commit(), "tiny": options.tiny, "rows": []}
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder), options.tiny)
        for name in dict.fromkeys(wanted):
            part, left = PARTS[name], SECONDS - (time.perf_counter() - begun)
            if part.needs_gpu and options.tiny:
                row = {"part": name, "skipped": "needs a GPU"}
            elif left < 5:
                row = {"part": name, "error": f"no time is left of {SECONDS} seconds"}
            else:
                row = work_apart(name, place, min(part.seconds, left))
            if name == "machine" and "error" not in row:
                report = {**row, **report}
                del report["part"]
            else:
                report["rows"].append(row)
            report["seconds"] = round(time.perf_counter() - begun, 1)
            write_report(options.json, report)
            print(json.dumps(row), flush=True)
            if name == "machine" and "error" in row:
                break
    if any("error" in row for row in report["rows"]):
        sys.exit(1)


if __name__ == "__main__":
    main()
