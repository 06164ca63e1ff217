"""``posewarper propagate``: the main job, from a few labelled frames to every frame."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posewarper.cli.common import (
    BackboneWeights,
    Device,
    DeviceName,
    DoneBefore,
    Overwrite,
    Quiet,
    Seed,
    VideoJob,
    count_of,
    list_videos,
    progress_bar,
    share_videos,
)
from posewarper.files import write_json
from posewarper.runs import describe_inputs, describe_process, peak_memory

if TYPE_CHECKING:
    from posewarper.structures import Poses, RunResult
    from posewarper.video.source import Video


_RESULTS = ("poses.json", "overlay.mp4", "sheet.jpg", "report.html", "run.json", "model.pt")
_SHEET_FRAMES = 8


def run(
    video: Annotated[
        Path,
        typer.Argument(
            help="A video file or a folder of frames; or a list: a .csv with the columns video and labels."
        ),
    ],
    labels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Labels of a few of its frames; a list names its own.")
    ] = None,
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
    backbone_weights: BackboneWeights = "none",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the results; <video>_poses if left out.")
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    device: Device = DeviceName.AUTO,
    seed: Seed = 0,
) -> None:
    """Turn a few labelled frames of a video into poses for every frame.

    Writes poses.json (every frame), report.html (frames worth checking, scores, what was run), overlay.mp4
    and sheet.jpg (to look at), model.pt (if one was trained) and run.json (what was run). Labelled frames are
    kept exactly.

    Of a list each video gets a folder of its own in DIR; one that fails is told of and left out, one that is
    done with the same settings is skipped, and processes of torchrun --nproc-per-node N -m posewarper
    propagate ... share the list.
    """
    out = out or Path(f"{video.stem}_poses")

    def work(job: VideoJob, place: Path, *, quietly: bool) -> None:
        own = _labels_of(job, labels)
        options = {"model": model, "effort": effort, "method": method, "extend": extend, "seed": seed}
        options |= {"backbone_weights": backbone_weights, "device": device.value}
        propagate_one(Path(job.video), own, place, overwrite=overwrite, quiet=quietly, **options)

    jobs = None if video.is_dir() else list_videos(str(video))
    if jobs is None:
        work(VideoJob(str(video)), out, quietly=quiet)
    else:
        share_videos(jobs, out, work, quiet=quiet)


def _labels_of(job: VideoJob, given: Path | None) -> Path:
    from posewarper.errors import ConfigError

    labels = job.labels or given
    if labels is None:
        raise ConfigError(
            "there are no labels to propagate",
            path=job.video,
            expected="labels of a few frames",
            fix="give --labels FILE, or a column labels in the list",
        )
    return labels


def propagate_one(
    video: Path,
    labels: Path,
    out: Path,
    *,
    model: Path | None,
    effort: str,
    method: str,
    extend: bool,
    backbone_weights: str,
    overwrite: bool,
    quiet: bool,
    device: str,
    seed: int,
) -> None:
    """Propagate the labels of one video and write the results; the arguments are those of :func:`run`."""
    inputs = describe_inputs(video=video, labels=labels, model=model)
    start = {} if backbone_weights == "none" else {"backbone_weights": backbone_weights}
    if start and os.path.isfile(backbone_weights) and backbone_weights != "imagenet":
        inputs |= describe_inputs(backbone_weights=Path(backbone_weights))
    asked = {
        **start,
        **{name: facts and facts["sha256"] for name, facts in inputs.items()},
        **{"method": method, "effort": effort, "extend": extend, "seed": seed},
    }
    refuse_results(out, model, overwrite, asked)
    refuse_place(out, video)

    from posewarper.fitting import propagate
    from posewarper.model.checkpoint import load_model
    from posewarper.options import NetworkConfig
    from posewarper.reporting.report import write_report
    from posewarper.video.source import open_video

    started = time.perf_counter()
    with progress_bar(quiet) as progress, open_video(video) as opened:
        network = None if model is None else load_model(model)
        result = propagate(
            opened,
            labels,
            method=method,
            model=network,
            effort=effort,
            network=NetworkConfig(backbone_weights=backbone_weights) if start else None,
            extend=extend,
            seed=seed,
            device=device,
            checkpoint=out / "model.pt",
            progress=progress,
        )
        written = write_results(out, opened, result, progress)
        request = {"inputs": inputs, "effort": effort, "seed": seed, "device": device, "asked": asked}
        facts = describe_run(request, result, time.perf_counter() - started)
        write_report(out / "report.html", opened, result, facts)
    write_json(out / "run.json", facts)
    written |= {"report.html", "run.json"}
    _remove_stale(out, written, model, trained="training" in result.seconds)
    _tell(out, opened.n_frames, result, facts)


def refuse_results(
    out: Path, model: Path | None, overwrite: bool, asked: Mapping[str, Any] | None = None
) -> None:
    """Refuse a folder that holds results of an earlier run; the model to be used may lie in it.

    Raises:
        DoneBefore: if they are those of a finished run that was asked for the same.
        OutputError: if there are other results and they may not be overwritten.
    """
    from posewarper.errors import OutputError

    used = model.resolve() if model is not None else None
    there = [n for n in _RESULTS if os.path.exists(out / n) and (out / n).resolve() != used]
    if there and not overwrite:
        hint = f" (to go on from a model that was kept, add --model {out / 'model.pt'})"
        done = asked is not None and _asked_before(out) == asked
        raise (DoneBefore if done else OutputError)(
            "this folder holds results already",
            path=out,
            got=", ".join(there),
            fix="name another folder, or allow them to be replaced with --overwrite"
            + (hint if there == ["model.pt"] else ""),
        )


def _asked_before(out: Path) -> Any:
    try:
        return json.loads((out / "run.json").read_text(encoding="utf-8")).get("asked")
    except (OSError, ValueError, AttributeError):
        return None


def refuse_place(out: Path, video: Path) -> None:
    """Refuse a folder that cannot be written, before the work and not after, and one that holds the input.

    Raises:
        OutputError: if ``out`` or a folder on the way to it is a file, may not be written or cannot be named
            so, or if the results would lie among the frames or take the video's place.
    """
    from posewarper.errors import OutputError

    fix = "name another output folder"
    try:
        # A link to nowhere counts as there, since no folder can be made in its place.
        there = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists() or p.is_symlink())
    except OSError as error:
        raise OutputError("this cannot be the name of a folder", path=out, got=error, fix=fix) from error
    if not there.is_dir():
        raise OutputError("this is a file, not a folder", path=there, fix=fix)
    if not os.access(there, os.W_OK):
        raise OutputError("this folder may not be written", path=there, fix=fix)
    places = [place for place in (out, *(out / name for name in _RESULTS)) if place.exists()]
    if os.path.exists(video) and any(video.samefile(place) for place in places):
        raise OutputError(
            "the results would take the place of the video, or lie among its frames", path=out, fix=fix
        )


def write_results(out: Path, video: Video, result: RunResult, progress: Any) -> set[str]:
    """Write poses, overlay and sheet; returns the names of the files."""
    from posewarper.formats.labels import write_poses
    from posewarper.reporting.overlay import write_overlay, write_sheet

    write_poses(out / "poses.json", result.poses)
    write_overlay(out / "overlay.mp4", video, result.poses, progress=progress)
    write_sheet(out / "sheet.jpg", video, result.poses, sheet_frames(result.poses))
    return {"poses.json", "overlay.mp4", "sheet.jpg"}


def rewrite_report(out: Path, video: Path, labels: Path, scores: Sequence[Mapping[str, Any]]) -> None:
    """Write the report of a run that is done once more, with rows of errors that became known since."""
    from posewarper.formats.labels import read_labels, read_poses
    from posewarper.reporting.report import write_report
    from posewarper.structures import RunResult
    from posewarper.video.source import open_video

    facts = json.loads((out / "run.json").read_text(encoding="utf-8"))
    with open_video(video) as opened:
        result = RunResult(
            read_poses(out / "poses.json"),
            read_labels(labels, video=opened),
            facts["method"],
            {stage: seconds for stage, seconds in facts["seconds"].items() if stage != "total"},
            tuple(facts["notes"]),
            facts["config"],
        )
        write_report(out / "report.html", opened, result, facts, scores=scores)


def sheet_frames(poses: Poses) -> list[int]:
    """Choose frames for the sheet: spread over the clip, those farthest from labels among them."""
    import numpy as np

    frames = np.unique(np.concatenate([t.frames for t in poses.tracks.values()]))
    picks = np.linspace(0, len(frames) - 1, min(_SHEET_FRAMES, len(frames)))
    return sorted({int(frames[round(p)]) for p in picks})


def describe_run(request: dict[str, Any], result: RunResult, seconds: float) -> dict[str, Any]:
    """Return what was run, as plain values: inputs with hashes, versions, settings, timings, notes."""
    tracks = result.poses.tracks
    return {
        **describe_process(request["device"]),
        **request,
        "method": result.method,
        "config": dict(result.config),
        "labelled_frames": result.poses.labelled_frames.tolist(),
        "tracks": {str(i): {"frames": len(t.frames)} for i, t in tracks.items()},
        "notes": list(result.notes),
        "seconds": {**{k: round(v, 2) for k, v in result.seconds.items()}, "total": round(seconds, 2)},
        "peak_memory_bytes": peak_memory(),
    }


def _remove_stale(out: Path, written: set[str], model: Path | None, *, trained: bool) -> None:
    """Remove what an overwritten run left and this one did not make, so that the folder tells one story."""
    kept = {*written, *(["model.pt"] if trained else [])}
    for name in _RESULTS:
        place = out / name
        if name not in kept and place.exists() and (model is None or place.resolve() != model.resolve()):
            os.remove(place)


def _tell(out: Path, n_frames: int, result: RunResult, facts: dict[str, Any]) -> None:
    poses = result.poses
    posed = sum(len(t.frames) for t in poses.tracks.values())
    labelled, tracks = len(poses.labelled_frames), len(poses.tracks)
    print(
        f"{count_of(labelled, 'labelled frame')} -> {count_of(posed, 'pose')} of {count_of(tracks, 'track')} "
        f"on {count_of(n_frames, 'frame')}"
    )
    print(", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in facts["seconds"].items()))
    print(f"wrote {out / 'poses.json'}; look at {out / 'report.html'} and {out / 'overlay.mp4'}")
