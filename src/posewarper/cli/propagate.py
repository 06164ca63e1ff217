"""``posewarper propagate``: the main job, from a few labelled frames to every frame."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from posewarper.cli import common
from posewarper.cli.videos import RESULTS, VideoJob, describe_result, list_videos, work_on, write_pictures
from posewarper.errors import ConfigError, Interrupted
from posewarper.runs import claim, describe_inputs

_MODEL = "model.pt"


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
    effort: common.Effort = "normal",
    method: Annotated[
        str, typer.Option(metavar="NAME", help="Method; `posewarper benchmark` compares them.")
    ] = "default",
    extend: Annotated[
        bool, typer.Option("--extend", help="Give every track a pose on every frame of the clip.")
    ] = False,
    backbone_weights: common.BackboneWeights = "none",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the results; <video>_poses if left out.")
    ] = None,
    overwrite: common.Overwrite = False,
    quiet: common.Quiet = False,
    device: common.Device = common.DeviceName.AUTO,
    seed: common.Seed = 0,
) -> None:
    """Turn a few labelled frames of a video into poses for every frame.

    Writes poses.json (every frame), report.html (frames worth checking, scores, what was run), overlay.mp4
    and sheet.jpg (to look at), model.pt (if one was trained) and run.json (what was run). Labelled frames are
    kept exactly.

    Of a list each video gets a folder of its own in DIR. Failures are reported and skipped, and so are videos
    that are done with the same settings. Processes of torchrun --nproc-per-node N -m posewarper propagate ...
    share the list.
    """

    def work(job: VideoJob, place: Path, *, quietly: bool) -> None:
        own = job.labels or labels
        if own is None:
            raise ConfigError(
                "there are no labels to propagate",
                path=job.video,
                expected="labels of a few frames",
                fix="give --labels FILE, or a column labels in the list",
            )
        settings: dict[str, Any] = {"method": method, "effort": effort, "extend": extend, "seed": seed}
        settings |= {} if backbone_weights == "none" else {"backbone_weights": backbone_weights}
        _propagate_one(
            Path(job.video), own, model, place, settings, device.value, overwrite=overwrite, quiet=quietly
        )

    jobs = None if video.is_dir() else list_videos(str(video))
    work_on(jobs, str(video), out or Path(f"{video.stem}_poses"), work, quiet=quiet)


def _propagate_one(
    video: Path,
    labels: Path,
    model: Path | None,
    out: Path,
    settings: dict[str, Any],
    device: str,
    *,
    overwrite: bool,
    quiet: bool,
) -> None:
    started = time.perf_counter()
    inputs = describe_inputs(video=video, labels=labels, model=model)
    weights = settings.get("backbone_weights")
    if weights not in (None, "imagenet") and os.path.isfile(weights):
        inputs |= describe_inputs(backbone_weights=Path(weights))
    request = {**settings, **{name: facts and facts["sha256"] for name, facts in inputs.items()}}
    names = (*RESULTS, _MODEL)
    kept = [name for name in names if os.path.exists(out / name)] == [_MODEL]
    hint = f" (to go on from the model that was kept, add --model {out / _MODEL})" if kept else ""
    used = [path for path in (labels, model, weights) if path is not None]
    with claim(out, request, names, overwrite=overwrite, source=video, inputs=used, hint=hint) as claimed:
        from posewarper.fitting import propagate
        from posewarper.formats.labels import write_poses
        from posewarper.model.checkpoint import load_model
        from posewarper.options import NetworkConfig
        from posewarper.reporting.report import write_report
        from posewarper.video.source import open_video

        with common.progress_bar(quiet) as progress, open_video(video) as opened:
            network = None if model is None else load_model(model)
            options = {name: settings[name] for name in ("method", "effort", "extend", "seed")}
            try:
                result = propagate(
                    opened,
                    labels,
                    model=network,
                    network=None if weights is None else NetworkConfig(backbone_weights=weights),
                    device=device,
                    checkpoint=out / _MODEL,
                    progress=claimed.beginning(progress),
                    **options,
                )
            except Interrupted:  # which keeps a model that is not trained to its end
                claimed.forget()
                raise
            claimed.begin()
            write_poses(out / "poses.json", result.poses)
            write_pictures(out, opened, result, progress)
            asked = {"effort": settings["effort"], "seed": settings["seed"], "device": device}
            labelled = {"labelled_frames": result.poses.labelled_frames.tolist()}
            seconds = time.perf_counter() - started
            facts = describe_result(result, inputs, device, seconds, **asked, **labelled)
            write_report(out / "report.html", opened, result, facts)
        claimed.finish(facts)
    poses, n_labelled = result.poses, len(result.poses.labelled_frames)
    posed = sum(len(track.frames) for track in poses.tracks.values())
    print(
        f"{common.count_of(n_labelled, 'labelled frame')} -> {common.count_of(posed, 'pose')} of "
        f"{common.count_of(len(poses.tracks), 'track')} on {common.count_of(opened.n_frames, 'frame')}"
    )
    print(", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in facts["seconds"].items()))
    print(f"wrote {out / 'poses.json'}; look at {out / 'report.html'} and {out / 'overlay.mp4'}")
