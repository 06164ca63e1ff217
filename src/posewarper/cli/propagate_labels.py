"""``posewarper propagate``: the main job, from a few labelled frames to every frame."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posewarper.cli.common import Device, DeviceName, Overwrite, Quiet, Seed, progress_bar

if TYPE_CHECKING:
    from posewarper.io.video import Video
    from posewarper.structures import Poses, RunResult

_RESULTS = ("poses.json", "overlay.mp4", "sheet.jpg", "run.json", "model.pt")
_SHEET_FRAMES = 8


def run(
    video: Annotated[Path, typer.Argument(help="A video file or a folder of frames.")],
    labels: Annotated[Path, typer.Option(metavar="FILE", help="Labels of a few of its frames.")],
    model: Annotated[
        Path | None, typer.Option(metavar="CKPT", help="Use this model instead of training one.")
    ] = None,
    effort: Annotated[
        str, typer.Option(metavar="fast|normal|best", help="How long to train; fast trains nothing.")
    ] = "normal",
    method: Annotated[
        str, typer.Option(metavar="NAME", help="Method; `posewarper benchmark` compares them.")
    ] = "default",
    extend: Annotated[
        bool, typer.Option("--extend", help="Give every track a pose on every frame of the clip.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the results; <video>_poses if left out.")
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    device: Device = DeviceName.AUTO,
    seed: Seed = 0,
) -> None:
    """Turn a few labelled frames of a video into poses for every frame.

    Writes poses.json (every frame), overlay.mp4 and sheet.jpg (to look at), model.pt (if one was trained)
    and run.json (what was run). Labelled frames are kept exactly.
    """
    out = out or Path(f"{video.stem}_poses")
    refuse_results(out, model, overwrite)

    from posewarper.fitting import propagate
    from posewarper.io.labels import read_labels
    from posewarper.io.video import open_video
    from posewarper.model.checkpoint import load_model

    started = time.perf_counter()
    with progress_bar(quiet) as progress, open_video(video) as opened:
        given = read_labels(labels, video=opened)
        network = None if model is None else load_model(model)
        result = propagate(
            opened,
            given,
            method=method,
            model=network,
            effort=effort,
            extend=extend,
            seed=seed,
            device=device.value,
            checkpoint=out / "model.pt",
            progress=progress,
        )
        written = write_results(out, opened, result, progress)
    request = {"video": video, "labels": labels, "model": model, "effort": effort, "seed": seed}
    report = describe_run(request, result, time.perf_counter() - started, device.value)
    _write_json(out / "run.json", report)
    _remove_stale(out, {*written, "run.json"}, model, trained="training" in result.seconds)
    _tell(out, opened.n_frames, result, report)


def refuse_results(out: Path, model: Path | None, overwrite: bool) -> None:
    """Refuse a folder that holds results of an earlier run; the model to be used may lie in it.

    Raises:
        OutputError: if there are results and they may not be overwritten, or ``out`` is a file.
    """
    from posewarper.errors import OutputError

    if out.exists() and not out.is_dir():
        raise OutputError("this is a file, not a folder", path=out, mend="name another output folder")
    used = model.resolve() if model is not None else None
    there = [n for n in _RESULTS if (out / n).exists() and (out / n).resolve() != used]
    if there and not overwrite:
        hint = f" (to go on from a model that was kept, add --model {out / 'model.pt'})"
        raise OutputError(
            "this folder holds results already",
            path=out,
            got=", ".join(there),
            mend="name another folder, or allow them to be replaced with --overwrite"
            + (hint if there == ["model.pt"] else ""),
        )


def write_results(out: Path, video: Video, result: RunResult, progress: Any) -> set[str]:
    """Write poses, overlay and sheet; returns the names of the files."""
    from posewarper.io.labels import write_poses
    from posewarper.reporting.overlay import write_overlay, write_sheet

    write_poses(out / "poses.json", result.poses)
    write_overlay(out / "overlay.mp4", video, result.poses, progress=progress)
    write_sheet(out / "sheet.jpg", video, result.poses, sheet_frames(result.poses))
    return {"poses.json", "overlay.mp4", "sheet.jpg"}


def sheet_frames(poses: Poses) -> list[int]:
    """Choose frames for the sheet: spread over the clip, those farthest from labels among them."""
    import numpy as np

    frames = np.unique(np.concatenate([t.frames for t in poses.tracks.values()]))
    picks = np.linspace(0, len(frames) - 1, min(_SHEET_FRAMES, len(frames)))
    return sorted({int(frames[round(p)]) for p in picks})


def describe_run(request: dict[str, Any], result: RunResult, seconds: float, device: str) -> dict[str, Any]:
    """Return what was run, as plain values: inputs with hashes, versions, settings, timings, notes."""
    import torch

    from posewarper import __version__

    inputs = {
        name: None if path is None else {"path": str(path), "sha256": _digest(path)}
        for name, path in ((n, request[n]) for n in ("video", "labels", "model"))
    }
    tracks = result.poses.tracks
    return {
        "posewarper": __version__,
        "inputs": inputs,
        "method": result.method,
        "effort": request["effort"],
        "seed": request["seed"],
        "device": device,
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "command": sys.argv[1:],
        "config": dict(result.config),
        "labelled_frames": result.poses.labelled_frames.tolist(),
        "tracks": {str(i): {"frames": len(t.frames)} for i, t in tracks.items()},
        "notes": list(result.notes),
        "seconds": {**{k: round(v, 2) for k, v in result.seconds.items()}, "total": round(seconds, 2)},
        "peak_memory_bytes": _peak_memory(),
    }


def _digest(path: Path) -> str:
    if path.is_dir():  # of a folder of frames: over names and contents
        parts = [f"{p.name} {_digest(p)}" for p in sorted(path.iterdir()) if p.is_file()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _peak_memory() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    from posewarper.files import replacing

    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _remove_stale(out: Path, written: set[str], model: Path | None, *, trained: bool) -> None:
    """Remove what an overwritten run left and this one did not make, so that the folder tells one story."""
    kept = {*written, *(["model.pt"] if trained else [])}
    for name in _RESULTS:
        place = out / name
        if name not in kept and place.exists() and (model is None or place.resolve() != model.resolve()):
            os.remove(place)


def _tell(out: Path, n_frames: int, result: RunResult, report: dict[str, Any]) -> None:
    poses = result.poses
    posed = sum(len(t.frames) for t in poses.tracks.values())
    print(
        f"{len(poses.labelled_frames)} labelled frames -> {posed} poses of {len(poses.tracks)} "
        f"{'track' if len(poses.tracks) == 1 else 'tracks'} on {n_frames} frames"
    )
    print(", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in report["seconds"].items()))
    print(f"wrote {out / 'poses.json'}; look at {out / 'overlay.mp4'} and {out / 'sheet.jpg'}")
