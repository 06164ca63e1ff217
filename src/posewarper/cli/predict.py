"""``posewarper predict``: poses by a trained model, of videos of one's own or of a prepared dataset."""

from __future__ import annotations

import inspect
import shutil
import time
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
from posewarper.files import write_json
from posewarper.processes import is_first, of_first, world
from posewarper.runs import FACTS, RECORDS, claim, describe_inputs, describe_process, peak_memory

if TYPE_CHECKING:
    from posewarper.model.network import PoseModel

# The options that say where to look for instances.
_WHERE = ("labels", "detector", "detector_weights", "category", "detect_every", "whole_frame")


def run(
    video: Annotated[
        str,
        typer.Argument(
            metavar="VIDEO",
            help="A video, a folder of frames, - for standard input, a camera (0) or URL; a folder or list "
            "of videos; or a dataset that `posewarper prepare` has made.",
        ),
    ],
    model: Annotated[
        Path,
        typer.Option(
            metavar="CKPT",
            help="model.pt, an exported .onnx, a .pth of the original or of mmpose, a folder that "
            "`posewarper push` wrote, or hf:OWNER/NAME on Hugging Face.",
        ),
    ],
    boxes: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Boxes of a detector; for datasets the labels' boxes by default."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Labels of some frames, at which tracks begin.")
    ] = None,
    labels_of: common.LabelsOf = None,
    frame_number: common.FrameNumber = None,
    unlabelled: common.UnlabelledAs = common.Unlabelled.UNKNOWN,
    detector: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Find boxes by a detector of torchvision; 'default' takes a quick one."
        ),
    ] = None,
    detector_weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Weights of the detector; downloaded if left out.")
    ] = None,
    category: Annotated[
        str, typer.Option(metavar="NAME", help="What the detector looks for, as COCO calls it.")
    ] = "person",
    detect_every: Annotated[
        int, typer.Option(metavar="N", min=1, help="Detect on every Nth frame and follow tracks in between.")
    ] = 1,
    whole_frame: Annotated[
        bool,
        typer.Option("--whole-frame", help="Look for the one instance in the whole frame, then follow it."),
    ] = False,
    frames: common.FrameSpan = None,
    aggregate: Annotated[
        str,
        typer.Option(
            metavar="paper|none",
            help="Sum neighbouring frames with the paper's weights, or take each frame alone.",
        ),
    ] = "paper",
    window: Annotated[
        int, typer.Option(metavar="N", min=0, help="Number of frames to sum on either side.")
    ] = 2,
    causal: Annotated[
        bool, typer.Option("--causal", help="Look at earlier frames only, for live use.")
    ] = False,
    crops: Annotated[
        str,
        typer.Option(
            metavar="exact|held",
            help="Cut each frame's window with its own box (the paper), or hold crops and reuse heatmaps.",
        ),
    ] = "exact",
    hold: Annotated[
        float, typer.Option(metavar="S", help="How far a held crop may be off, as a share of its size.")
    ] = 0.08,
    flip: Annotated[bool, typer.Option("--flip", help="Look at each crop's mirror image too.")] = False,
    precision: Annotated[
        str,
        typer.Option(
            metavar="auto|float32|bfloat16", help="Precision of the network; auto picks the faster."
        ),
    ] = "auto",
    nms_oks: Annotated[
        float | None,
        typer.Option(
            metavar="T",
            min=0,
            max=1,
            help="Remove poses more similar than T to a better one: 0.9 for videos, none for datasets.",
        ),
    ] = None,
    patience: Annotated[
        int, typer.Option(metavar="N", min=1, help="Number of frames to wait for a lost track.")
    ] = 30,
    no_overlay: Annotated[
        bool, typer.Option("--no-overlay", help="Write no overlay video, which takes a second pass.")
    ] = False,
    rerun: common.RerunFile = None,
    split: Annotated[
        str, typer.Option(metavar="train|val|test", help="Datasets only: the videos to predict.")
    ] = "val",
    ends: Annotated[
        str,
        typer.Option(
            metavar="clip|renormalise",
            help="Datasets only: repeat a video's last frame at its ends (the original), or leave it out.",
        ),
    ] = "clip",
    box_threshold: Annotated[
        float, typer.Option(metavar="S", help="Datasets only: leave out boxes with a score below S.")
    ] = 0.2,
    neck: Annotated[
        str,
        typer.Option(
            metavar="shoulders|head_bottom",
            help="Datasets only: the neck in result files, between the shoulders (the original) or as found.",
        ),
    ] = "shoulders",
    all_frames: Annotated[
        bool, typer.Option("--all-frames", help="Datasets only: predict unlabelled frames too.")
    ] = False,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Datasets only: skip frames whose image is missing.")
    ] = False,
    batch: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Crops at a time; the default suits the device.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for the results; <video>_predicted or <dataset>_<split>."),
    ] = None,
    overwrite: common.Overwrite = False,
    quiet: common.Quiet = False,
    device: common.Device = common.DeviceName.AUTO,
    seed: common.UnusedSeed = 0,
) -> None:
    """Predict poses by a trained model: on a new video with tracks, or on a prepared dataset as the paper.

    Of a video it writes poses.json (every frame), overlay.mp4, report.html and run.json; of a dataset
    results/ (which `posewarper evaluate` reads), poses/ and submission.zip. After a stop at any moment the
    same command resumes there.

    Many videos: give a folder of them, or a list (.csv with the columns video and labels or boxes). Failures
    are reported and skipped. Processes of torchrun --nproc-per-node N -m posewarper predict ... share the
    videos, also those of a dataset, and on many machines.
    """
    given = dict(locals())
    is_dataset = (Path(video) / "dataset.json").is_file()
    strangers = _OF_VIDEOS if is_dataset else _OF_DATASETS
    set_ones = [name for name, default in strangers.items() if given[name] != default]
    if set_ones:
        raise ConfigError(
            f"this option belongs to {'videos' if is_dataset else 'prepared datasets'}",
            path=video,
            got=", ".join("--" + name.replace("_", "-") for name in set_ones),
            fix="leave it out",
        )
    settings = {name: given[name] for name in (_OF_DATASETS if is_dataset else _OF_VIDEOS)}
    settings |= {"aggregate": aggregate, "nms_oks": nms_oks}
    options = {"batch": batch, "overwrite": overwrite, "quiet": quiet, "device": device.value}
    if is_dataset:
        _predict_dataset(Path(video), model, boxes, out, settings, **options)
    else:
        _predict_videos(video, model, boxes, out, settings, **options)


# Options that belong to one of the two uses alone, with their defaults.
_DEFAULTS = {name: option.default for name, option in inspect.signature(run).parameters.items()}
_OF_DATASETS = {
    name: _DEFAULTS[name] for name in ("split", "ends", "box_threshold", "neck", "all_frames", "skip_missing")
}
_FOR_VIDEOS = ("window", "causal", "crops", "hold", "flip", "precision", "patience", "no_overlay", "rerun")
_CHOICE = ("labels_of", "frame_number", "unlabelled", "frames")
_OF_VIDEOS = {name: _DEFAULTS[name] for name in (*_WHERE, *_CHOICE, *_FOR_VIDEOS)}


def _predict_dataset(
    dataset: Path,
    model: Path,
    boxes: Path | None,
    out: Path | None,
    settings: dict[str, Any],
    *,
    batch: int | None,
    overwrite: bool,
    quiet: bool,
    device: str,
) -> None:
    """Predict the poses of a prepared dataset the way the paper does: given boxes, one frame or five."""
    from posewarper.model.export import open_model
    from posewarper.paper.prediction import PredictionConfig, predict_dataset
    from posewarper.posetrack.dataset import open_dataset

    started, split = time.perf_counter(), settings.pop("split")
    out = out or Path(f"{dataset.resolve().name}_{split}")
    config = PredictionConfig.read(settings)
    if world() > 1:
        from posewarper.training.engine import make_accelerator

        make_accelerator(device)  # connects the processes, which share the videos
    of_first(lambda: common.refuse_existing(out / FACTS, overwrite))
    opened = open_dataset(dataset)
    with common.progress_bar(quiet or not is_first()) as progress:
        result = predict_dataset(
            opened,
            open_model(model, device),
            out,
            split=split,
            boxes=boxes,
            config=config,
            batch=batch,
            overwrite=overwrite,
            progress=progress,
        )
    if not is_first():
        return
    facts = {
        **describe_process(device),
        "inputs": {
            **describe_inputs(model=model, boxes=boxes),
            "dataset": {"path": str(dataset), "kind": opened.kind},
        },
        "split": split,
        "config": config.model_dump(),
        "videos": result.videos,
        "frames": result.frames,
        "instances": result.instances,
        "seconds": {"total": round(time.perf_counter() - started, 2)},
        "peak_memory_bytes": peak_memory(),
    }
    write_json(out / FACTS, facts)
    again = f", {result.reused} of them done before" if result.reused else ""
    common.print_line(
        f"{common.count_of(result.instances, 'pose')} on {common.count_of(result.frames, 'frame')} of "
        f"{common.count_of(result.videos, 'video')}{again}"
    )
    if boxes is None:
        common.print_line("boxes of the labels were used: figures are not comparable with published ones")
    common.print_line(f"wrote {out / 'results'}, {out / 'poses'} and {out / 'submission.zip'}")
    if split != "test":
        truth = dataset / "annotations" / split
        common.print_line(
            f"figures: posewarper evaluate --ground-truth {truth} --predictions {out / 'results'}"
        )


def _predict_videos(
    video: str,
    model: Path,
    boxes: Path | None,
    out: Path | None,
    settings: dict[str, Any],
    *,
    batch: int | None,
    overwrite: bool,
    quiet: bool,
    device: str,
) -> None:
    """Predict one video, or each of a folder or list of videos into a folder of its own."""
    from posewarper.video.source import is_live, refuse_part_of_live

    labels_of, frame_number, unlabelled, frames = (settings.pop(name) for name in _CHOICE)
    span = None if frames is None else common.read_span(frames)
    if is_live(video) and span is not None:
        refuse_part_of_live(video)
    if not is_live(video):
        common.check_there(video, "a video file or a folder of frames", VideoError)
    common.check_there(model, "a checkpoint of posewarper, or an exported model", ModelError)
    common.check_there(boxes, "boxes of a detector")
    common.check_there(settings["labels"], "labels of some frames", LabelsError)

    from posewarper.formats.records import LabelFile
    from posewarper.model.export import open_model
    from posewarper.prediction.video import ClipPredictionConfig
    from posewarper.video.images import IMAGE_SUFFIXES

    overlay, recording = not settings.pop("no_overlay"), settings.pop("rerun")
    if is_live(video) and recording is not None:
        raise ConfigError(
            "frames that come once cannot be written into a recording afterwards",
            path=video,
            fix="leave --rerun out, or save the video to a file first",
        )
    where = {"boxes": boxes, **{name: settings.pop(name) for name in _WHERE}}
    if settings["nms_oks"] is None:
        del settings["nms_oks"]
    config = ClipPredictionConfig.read(settings)
    weights = where["detector_weights"]
    if weights is not None and where["detector"] is None:
        raise ConfigError(
            "detector weights are given, but no detector",
            path=weights,
            fix="name the detector with --detector, or leave --detector-weights out",
        )
    jobs, place = list_videos(video), Path(video)
    out = out or Path(f"{'live' if video == '-' else place.stem}_predicted")
    check_rerun(recording, jobs, out, overwrite)
    has_images = place.is_dir() and any(p.suffix.lower() in IMAGE_SUFFIXES for p in place.iterdir())
    if jobs is None and place.is_dir() and not has_images:
        raise VideoError(
            "this folder holds neither frames nor videos, and is not a prepared dataset",
            path=place,
            expected="images, videos, or what `posewarper prepare` writes",
            fix="name another folder, or prepare the dataset first",
        )
    network = open_model(model, device)

    def work(job: VideoJob, place: Path, *, quietly: bool) -> None:
        labels = job.labels or where["labels"]
        if labels is not None:
            of_job = job.labels_of or labels_of
            labels = LabelFile(labels, of_job, frame_number, unlabelled=unlabelled.value)
        own = {**where, "boxes": job.boxes or where["boxes"], "labels": labels}
        options = {"where": own, "span": span, "config": config, "batch": batch}
        pictures = {"overlay": overlay, "recording": recording}
        _predict_one(job.video, network, model, place, options, overwrite, pictures, quietly)

    work_on(jobs, video, out, work, quiet=quiet, overwrite=overwrite)


def _predict_one(
    video: str,
    network: PoseModel,
    model: Path,
    out: Path,
    options: dict[str, Any],
    overwrite: bool,
    pictures: dict[str, Any],
    quiet: bool,
) -> None:
    from posewarper.formats.labels import write_poses
    from posewarper.formats.records import LabelFile
    from posewarper.prediction.video import predict
    from posewarper.reporting.report import write_report
    from posewarper.video.source import is_live, open_video

    started, overlay = time.perf_counter(), pictures["overlay"]
    live = is_live(video)
    where, span, config = options.pop("where"), options["span"], options["config"]
    paths = {"model": model, **{name: where[name] for name in ("boxes", "labels", "detector_weights")}}
    inputs = describe_inputs(**paths, **({} if live else {"video": Path(video)}))
    request = {
        "video": video if live else Path(video).name,
        "inputs": {name: facts and facts["sha256"] for name, facts in inputs.items()},
        "where": {name: value for name, value in where.items() if name not in paths},
        "config": config.model_dump(),
    }
    if isinstance(labels := where["labels"], LabelFile) and (labels.video or labels.frame_number):
        request |= {"labels_of": labels.video, "frame_number": labels.frame_number}
    if isinstance(labels, LabelFile) and labels.unlabelled != common.Unlabelled.UNKNOWN.value:
        request |= {"unlabelled": labels.unlabelled}
    part = {} if span is None else {"frames": f"{span.start}-{span.stop - 1}"}
    request |= part
    with claim(
        out,
        request,
        (*RESULTS, RECORDS),
        overwrite=overwrite,
        # Frames that come once can neither be gone on with nor be predicted again.
        resume=not live,
        last=("poses.json",) if live else (FACTS,),
        source=None if live else video,
        inputs=[path for path in paths.values() if path is not None],
    ) as claimed:
        plan = [("poses", None, 0.2), *([("overlay", None, 0.05)] if overlay else [])]
        with common.progress_bar(quiet, plan) as progress:
            begins = claimed.beginning(progress)
            result = predict(video, network, log=out / RECORDS, progress=begins, **where, **options)
            write_poses(out / "poses.json", result.poses)
            seconds = time.perf_counter() - started
            facts = describe_result(result, inputs, str(network.device), seconds, **part)
            looks = []
            if not live and result.poses.tracks:
                with open_video(video) as opened, opened.keeping(frames_to_show(result)):
                    write_pictures(out, opened, result, progress, span=span, **pictures)
                    name = "overlay.mp4" if overlay else None
                    write_report(out / "report.html", opened, result, facts, overlay=name, span=span)
                looks = ["report.html", "overlay.mp4" if overlay else "sheet.jpg"]
        facts["seconds"]["total"] = round(time.perf_counter() - started, 2)  # with the pictures
        claimed.finish(facts)
        shutil.rmtree(out / RECORDS, ignore_errors=True)
    poses = result.poses
    posed = sum(len(track.frames) for track in poses.tracks.values())
    common.print_line(
        f"{common.count_of(posed, 'pose')} of {common.count_of(len(poses.tracks), 'track')} on "
        f"{common.count_of(poses.n_frames if span is None else len(span), 'frame')}"
    )
    if gaps := describe_gaps(poses, span):
        common.print_line(gaps)
    common.print_line(", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in facts["seconds"].items()))
    for note in result.notes:
        common.print_line(note)
    seen = " and ".join(str(out / name) for name in looks)
    common.print_line(f"wrote {out / 'poses.json'}" + (f"; look at {seen}" if seen else ""))
