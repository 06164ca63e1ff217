"""``posewarper propagate``: the main job, from a few labelled frames to every frame."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posewarper.cli import common
from posewarper.cli.videos import (
    RESULTS,
    VideoJob,
    check_rerun,
    describe_gaps,
    describe_result,
    frames_to_show,
    list_videos,
    work_on,
    write_pictures,
)
from posewarper.errors import ConfigError, LabelsError, ModelError, VideoError
from posewarper.runs import RECORDS, Run, claim, describe_inputs

if TYPE_CHECKING:
    from posewarper.structures import Progress, RunResult

MODEL = "model.pt"


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
    learn: Annotated[
        bool, typer.Option("--learn", help="Train that model further on these labels, for a short while.")
    ] = False,
    labels_of: common.LabelsOf = None,
    frame_number: common.FrameNumber = None,
    unlabelled: common.UnlabelledAs = common.Unlabelled.UNKNOWN,
    effort: common.Effort = "normal",
    method: Annotated[
        str, typer.Option(metavar="NAME", help="Method; `posewarper benchmark` compares them.")
    ] = "default",
    extend: Annotated[
        bool, typer.Option("--extend", help="Give every track a pose on every frame of the clip.")
    ] = False,
    frames: common.FrameSpan = None,
    backbone_weights: common.BackboneWeights = None,
    keep_training: Annotated[
        bool,
        typer.Option(
            "--keep-training/--no-keep-training",
            help="Go on to train model.pt for new videos when the poses are written.",
        ),
    ] = True,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the results; <video>_poses if left out.")
    ] = None,
    rerun: common.RerunFile = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Resume a run in DIR that was stopped; unlike the same command alone, never begin anew.",
        ),
    ] = False,
    overwrite: common.Overwrite = False,
    quiet: common.Quiet = False,
    device: common.Device = common.DeviceName.AUTO,
    seed: common.Seed = 0,
) -> None:
    """Turn a few labelled frames of a video into poses for every frame.

    Writes poses.json (every frame), report.html (frames worth checking, scores, what was run), overlay.mp4
    and sheet.jpg (to look at), model.pt (if one was trained) and run.json (what was run). Labelled frames are
    kept exactly. When the poses are written, the training goes on to make model.pt better for new videos;
    Ctrl-C then keeps both. After a stop at any moment, also in training, the same command resumes there.

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
        settings |= {} if backbone_weights is None else {"backbone_weights": backbone_weights}
        settings |= {} if keep_training else {"keep_training": False}
        settings |= {"learn": True} if learn else {}
        settings |= {} if frames is None else {"frames": frames}
        settings |= {} if unlabelled is common.Unlabelled.UNKNOWN else {"unlabelled": unlabelled.value}
        choice = {"labels_of": job.labels_of or labels_of, "frame_number": frame_number}
        settings |= {name: value for name, value in choice.items() if value is not None}
        _propagate_one(
            Path(job.video),
            own,
            model,
            place,
            settings,
            device.value,
            overwrite=overwrite,
            quiet=quietly,
            recording=rerun,
        )

    if learn and model is None:
        raise ConfigError(
            "there is no model to train further", expected="--model CKPT with --learn", fix="add --model"
        )
    jobs = None if video.is_dir() else list_videos(str(video))
    folder = out or Path(f"{video.stem}_poses")
    check_rerun(rerun, jobs, folder, overwrite)
    if resume and (overwrite or (jobs is None and not (folder / RECORDS).is_dir())):
        raise ConfigError(
            "--resume and --overwrite exclude each other"
            if overwrite
            else "there is no stopped run to resume",
            path=folder,
            fix="leave --overwrite out"
            if overwrite
            else "leave --resume out, or name the folder of that run",
        )
    work_on(jobs, str(video), folder, work, quiet=quiet, overwrite=overwrite)


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
    recording: Path | None,
) -> None:
    started = time.perf_counter()
    common.check_there(video, "a video file or a folder of frames", VideoError)
    common.check_there(labels, "labels of a few of its frames", LabelsError)
    common.check_there(model, "a checkpoint of posewarper", ModelError)
    if "learn" in settings and model is not None and model.resolve() == (out / MODEL).resolve():
        raise ConfigError(
            "the model that has learned further would replace the one that it learned from",
            path=model,
            fix="name another folder with --out",
        )
    inputs = describe_inputs(video=video, labels=labels, model=model)
    weights = settings.get("backbone_weights")
    if weights is not None and os.path.isfile(weights):
        inputs |= describe_inputs(backbone_weights=Path(weights))
    request = {**settings, **{name: facts and facts["sha256"] for name, facts in inputs.items()}}
    names = (*RESULTS, MODEL, RECORDS)
    used = [path for path in (labels, model, weights) if path is not None]
    first = claim(out, request, names, overwrite=overwrite, source=video, inputs=used)
    stages = plan(settings, trains=model is None or "learn" in settings)
    with first as claimed, common.progress_bar(quiet, stages) as progress:
        write_results(
            claimed,
            video,
            labels,
            settings,
            inputs,
            device,
            progress,
            started,
            model=model,
            recording=recording,
        )


def plan(settings: Mapping[str, Any], trains: bool) -> list[common.Stage]:
    """Return the stages of a run, with the seconds that each step took on two cores: only ratios count."""
    from posewarper.options import effort_config

    config, method = effort_config(settings["effort"]), settings["method"]
    poses: list[common.Stage] = [(f"propagating ({method})", None, 0.15), ("overlay", None, 0.05)]
    if not (trains and config.pose_iterations):
        return [("optical flow", None, 0.12), *poses]
    start: list[common.Stage] = [
        ("optical flow", None, 0.12),
        ("training the pose network", config.pose_iterations, 0.25),
    ]
    further: list[common.Stage] = [
        ("training on propagated poses", config.pseudo_iterations, 0.25),
        ("training the warper", config.warp_iterations, 0.5),
    ]
    if not config.estimate_first:
        return [*start, ("propagating (default)", None, 0.15), *further, *poses]
    return [*start, *poses, *(further if settings.get("keep_training", True) else [])]


def write_results(
    claimed: Run,
    video: Path,
    labels: Path,
    settings: Mapping[str, Any],
    inputs: Mapping[str, Any],
    device: str,
    progress: Progress,
    started: float,
    *,
    model: Path | None = None,
    score: Callable[[RunResult], Sequence[Mapping[str, Any]]] = lambda result: (),
    recording: Path | None = None,
) -> None:
    """Propagate into a folder that is claimed, write all results, and say what was done.

    Args:
        claimed: the folder.
        video, labels, model: the files.
        settings: ``method``, ``effort``, ``extend``, ``seed``, and perhaps ``frames``, ``backbone_weights``,
            ``labels_of``, ``frame_number``, ``unlabelled``.
        inputs: what :func:`posewarper.runs.describe_inputs` says of the files.
        device: where the network runs.
        progress: is told of each stage.
        started: when the run began, by ``time.perf_counter``.
        score: result -> rows of errors for the report.
        recording: where a recording of Rerun is written, None for none.
    """
    progress("starting", 0, 0)  # importing takes seconds
    from posewarper.fitting import propagate
    from posewarper.formats.labels import write_poses
    from posewarper.formats.records import LabelFile
    from posewarper.model.checkpoint import load_model
    from posewarper.options import NetworkConfig
    from posewarper.reporting.report import write_report
    from posewarper.video.source import open_video

    progress("starting", 1, 1)
    out, weights = claimed.folder, settings.get("backbone_weights")
    if (out / RECORDS).is_dir() and not claimed.anew:
        common.print_line("resuming the run that was stopped here")
    span = common.read_span(settings["frames"]) if "frames" in settings else None
    facts: dict[str, Any] = {}
    with open_video(video) as opened:

        def write(result: RunResult) -> None:
            claimed.begin()
            gaps = describe_gaps(result.poses, span)
            if gaps:
                gaps += "; --extend gives every track a pose on every frame"
                result = replace(result, notes=(*result.notes, gaps))
            write_poses(out / "poses.json", result.poses)
            with opened.keeping(frames_to_show(result)):
                write_pictures(out, opened, result, progress, span=span, recording=recording)
                asked = {"effort": settings["effort"], "seed": settings["seed"], "device": device}
                labelled = {"labelled_frames": result.poses.labelled_frames.tolist()}
                seconds = time.perf_counter() - started
                facts.update(describe_result(result, inputs, device, seconds, **asked, **labelled))
                page = {"scores": score(result), "overlay": "overlay.mp4", "span": span}
                write_report(out / "report.html", opened, result, facts, **page)
            # With the report.
            facts["seconds"]["first_result"] = round(time.perf_counter() - started, 2)
            _tell(result, opened.n_frames if span is None else len(span), gaps)
            where = f"{out / 'poses.json'}; look at {out / 'report.html'} and {out / 'overlay.mp4'}"
            common.print_line(f"wrote {where}, after {facts['seconds']['first_result']:.0f} s")
            if result.trains_on:
                aim = f"to make {out / MODEL} better for new videos"
                common.print_line(f"training goes on, {aim}; Ctrl-C keeps what is there")

        result = propagate(
            opened,
            LabelFile(
                labels,
                settings.get("labels_of"),
                settings.get("frame_number"),
                unlabelled=settings.get("unlabelled", common.Unlabelled.UNKNOWN.value),
            ),
            model=None if model is None else load_model(model),
            learn=settings.get("learn", False),
            network=None if weights is None else NetworkConfig(backbone_weights=weights),
            device=device,
            checkpoint=out / MODEL,
            span=span,
            parts=out / RECORDS,
            keep_training=settings.get("keep_training", True),
            on_result=write,
            progress=claimed.beginning(progress),
            **{name: settings[name] for name in ("method", "effort", "extend", "seed")},
        )
    facts["seconds"] |= {name: round(value, 2) for name, value in result.seconds.items()}
    facts["seconds"]["total"] = round(time.perf_counter() - started, 2)
    claimed.finish(facts)
    shutil.rmtree(out / RECORDS, ignore_errors=True)
    stages = {name: value for name, value in facts["seconds"].items() if name != "first_result"}
    common.print_line(", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in stages.items()))


def _tell(result: RunResult, n_frames: int, gaps: str) -> None:
    poses, n_labelled = result.poses, len(result.poses.labelled_frames)
    posed = sum(len(track.frames) for track in poses.tracks.values())
    common.print_line(
        f"{common.count_of(n_labelled, 'labelled frame')} -> {common.count_of(posed, 'pose')} of "
        f"{common.count_of(len(poses.tracks), 'track')} on {common.count_of(n_frames, 'frame')}"
    )
    if gaps:
        common.print_line(gaps)
