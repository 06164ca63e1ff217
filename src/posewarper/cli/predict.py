"""``posewarper predict``: poses by a trained model, of videos of one's own or of a prepared dataset."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posewarper.cli.common import count_of, progress_bar

if TYPE_CHECKING:
    from posewarper.paper.prediction import DatasetResult
from collections.abc import Callable
from contextlib import suppress

from posewarper.cli.common import DoneBefore, VideoJob, list_videos, share_videos

if TYPE_CHECKING:
    from posewarper.model.network import PoseModel
    from posewarper.structures import Progress, RunResult
from typing import Annotated

import typer

from posewarper.cli.common import Device, DeviceName, Overwrite, Quiet, UnusedSeed


def predict_prepared(
    dataset: Path,
    *,
    settings: dict[str, Any],
    split: str,
    model: Path,
    boxes: Path | None,
    batch: int | None,
    out: Path | None,
    overwrite: bool,
    quiet: bool,
    device: str,
) -> None:
    """Predict the poses of a prepared dataset the way the paper does: given boxes, one frame or five.

    Args:
        dataset: a folder that ``posewarper prepare`` has made.
        settings: of :class:`posewarper.paper.prediction.PredictionConfig`.
        split: the videos to go through.
        model: a checkpoint.
        boxes: of a detector; the labels' own if None.
        batch: instances at a time.
        out: folder for the results; named after the dataset if None.
        overwrite: replace results.
        quiet: show no progress.
        device: where the network runs.
    """
    out = out or Path(f"{dataset.resolve().name}_{split}")

    from posewarper.errors import OutputError
    from posewarper.files import write_json
    from posewarper.model.export import open_model
    from posewarper.paper.prediction import SUBMISSION, PredictionConfig, predict_dataset
    from posewarper.posetrack.dataset import open_dataset
    from posewarper.runs import describe_inputs, describe_process, peak_memory

    started = time.perf_counter()
    config = PredictionConfig.read(settings)
    if not overwrite and (out / SUBMISSION).exists():
        raise OutputError(
            "this folder holds results of a run that is done",
            path=out,
            fix="name another folder, or allow them to be replaced with --overwrite",
        )
    opened = open_dataset(dataset)
    with progress_bar(quiet) as progress:
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
    write_json(out / "run.json", facts)
    _tell(out, dataset, split, result, has_boxes=boxes is not None)


def _tell(out: Path, dataset: Path, split: str, result: DatasetResult, *, has_boxes: bool) -> None:
    again = f", {result.reused} of them done before" if result.reused else ""
    print(
        f"{count_of(result.instances, 'pose')} on {count_of(result.frames, 'frame')} of "
        f"{count_of(result.videos, 'video')}{again}"
    )
    if not has_boxes:
        print("boxes of the labels were used: figures are not comparable with published ones")
    print(f"wrote {out / 'results'}, {out / 'poses'} and {out / 'submission.zip'}")
    if split != "test":
        truth = dataset / "annotations" / split
        print(f"figures: posewarper evaluate --ground-truth {truth} --predictions {out / 'results'}")


_LOG = "parts"
_RESULTS = ("poses.json", "overlay.mp4", "sheet.jpg", "report.html", "run.json", _LOG)


def predict_videos(
    video: str,
    *,
    settings: dict[str, Any],
    where: dict[str, Any],
    model: Path,
    overlay: bool,
    batch: int | None,
    out: Path | None,
    overwrite: bool,
    quiet: bool,
    device: str,
) -> None:
    """Predict one video, or each of a folder or list of videos into a folder of its own.

    Args:
        video: as the user named it.
        settings: of :class:`posewarper.prediction.video.ClipPredictionConfig`.
        where: to look for instances, as :func:`posewarper.prediction.video.predict` takes it.
        model: a checkpoint or an exported model.
        overlay: whether to draw the poses on the video.
        batch: crops at a time.
        out: folder for the results.
        overwrite: replace results.
        quiet: show no progress.
        device: where the network runs.
    """
    from posewarper.model.export import open_model
    from posewarper.prediction.video import ClipPredictionConfig
    from posewarper.runs import sole_writer

    config = ClipPredictionConfig.read(settings)
    _check_detector(where)
    jobs = list_videos(video)
    if jobs is None:
        _refuse_empty_folder(Path(video))
    network = open_model(model, device)

    def work(job: VideoJob, place: Path, *, quietly: bool) -> None:
        own = {"boxes": job.boxes or where["boxes"], "labels": job.labels or where["labels"]}
        options = {"where": {**where, **own}, "config": config, "batch": batch}
        with sole_writer(place):
            _predict_one(job.video, network, model, place, options, overwrite, overlay, quietly)

    if jobs is None:
        stem = "live" if video == "-" else Path(video).stem
        work(VideoJob(video), out or Path(f"{stem}_predicted"), quietly=quiet)
    else:
        share_videos(jobs, out or Path(f"{Path(video).stem}_predicted"), work, quiet=quiet)


def _refuse_empty_folder(place: Path) -> None:
    """Refuse a folder in which there is nothing to predict; it may have been meant as a dataset."""
    from posewarper.errors import VideoError
    from posewarper.video.images import IMAGE_SUFFIXES

    if place.is_dir() and not any(path.suffix.lower() in IMAGE_SUFFIXES for path in place.iterdir()):
        raise VideoError(
            "this folder holds neither frames nor videos, and is not a prepared dataset",
            path=place,
            expected="images, videos, or what `posewarper prepare` writes",
            fix="name another folder, or prepare the dataset first",
        )


def _predict_one(
    video: str,
    network: PoseModel,
    model: Path,
    out: Path,
    options: dict[str, Any],
    overwrite: bool,
    overlay: bool,
    quiet: bool,
) -> None:
    from posewarper.files import write_json
    from posewarper.formats.labels import write_poses
    from posewarper.prediction.video import predict
    from posewarper.runs import claim_folder, describe_inputs, is_claimed
    from posewarper.video.source import is_live

    started = time.perf_counter()
    live = is_live(video)
    where, config = options.pop("where"), options["config"]
    paths = {"model": model, **{name: where[name] for name in ("boxes", "labels", "detector_weights")}}
    inputs = describe_inputs(**paths, **({} if live else {"video": Path(video)}))
    request = {
        "video": video if live else Path(video).name,
        "inputs": {name: facts and facts["sha256"] for name, facts in inputs.items()},
        "where": {name: value for name, value in where.items() if name not in paths},
        "config": config.model_dump(),
    }
    if not overwrite:
        _refuse_done(out, request, live=live)

    def claim() -> None:
        _remove_unfinished(out)
        # Frames that come once cannot be gone on with.
        anew = overwrite or (live and is_claimed(out, request))
        claim_folder(out, request, _RESULTS, overwrite=anew)

    with progress_bar(quiet) as progress:
        result = predict(video, network, log=out / _LOG, progress=_after(claim, progress), **where, **options)
        write_poses(out / "poses.json", result.poses)
        facts = _describe(result, inputs, str(network.device), time.perf_counter() - started)
        written = (
            []
            if live or not result.poses.tracks
            else _write_views(out, video, result, facts, overlay, progress)
        )
    write_json(out / "run.json", facts)
    _remove_log(out / _LOG)
    _tell_of_video_predictions(out, result, written)


def _check_detector(where: dict[str, Any]) -> None:
    from posewarper.errors import ConfigError

    weights = where["detector_weights"]
    if weights is not None and where["detector"] is None:
        raise ConfigError(
            "these are weights of a detector, and none is to be used",
            path=weights,
            fix="name the detector with --detector, or leave --detector-weights out",
        )


def _refuse_done(out: Path, request: dict[str, Any], *, live: bool) -> None:
    """Refuse a folder with a finished run, which ``run.json`` tells of.

    A live run that has written its poses cannot be gone on with, nor can it be done again.

    Raises:
        DoneBefore: if it is a run of this request.
        OutputError: if it is another.
    """
    from posewarper.errors import OutputError
    from posewarper.runs import is_claimed

    last = "poses.json" if live else "run.json"
    if (out / last).exists():
        same = is_claimed(out, request)
        raise (DoneBefore if same else OutputError)(
            "this folder holds results already" + ("" if same else ", of other settings or inputs"),
            path=out,
            got=last,
            fix="name another folder, or allow them to be replaced with --overwrite",
        )


def _after(claim: Callable[[], None], progress: Progress) -> Progress:
    """Return a progress that first claims the folder: it is told when the input is known to be usable."""
    is_claimed = False

    def tell(what: str, done: int, total: int) -> None:
        nonlocal is_claimed
        if not is_claimed:
            claim()
            is_claimed = True
        progress(what, done, total)

    return tell


def _remove_unfinished(out: Path) -> None:
    """Remove what a killed run was writing; the folder is ours alone."""
    for name in (*_RESULTS, "request.json"):
        for path in out.glob(f".{Path(name).stem}.*.partial*"):
            with suppress(PermissionError):
                path.unlink()


def _describe(result: RunResult, inputs: dict[str, Any], device: str, seconds: float) -> dict[str, Any]:
    from posewarper.runs import describe_process, peak_memory

    tracks = result.poses.tracks
    return {
        **describe_process(device),
        "inputs": inputs,
        "method": result.method,
        "config": {name: None if value != value else value for name, value in result.config.items()},
        "tracks": {str(i): {"frames": len(t.frames)} for i, t in tracks.items()},
        "notes": list(result.notes),
        "seconds": {**{k: round(v, 2) for k, v in result.seconds.items()}, "total": round(seconds, 2)},
        "peak_memory_bytes": peak_memory(),
    }


def _write_views(
    out: Path, video: str, result: RunResult, facts: dict[str, Any], overlay: bool, progress: Any
) -> list[str]:
    """Write the pictures and the report; returns their names."""
    from posewarper.cli.propagate import sheet_frames
    from posewarper.reporting.overlay import write_overlay, write_sheet
    from posewarper.reporting.report import write_report
    from posewarper.video.source import open_video

    with open_video(video) as opened:
        if overlay:
            write_overlay(out / "overlay.mp4", opened, result.poses, progress=progress)
        write_sheet(out / "sheet.jpg", opened, result.poses, sheet_frames(result.poses))
        write_report(out / "report.html", opened, result, facts)
    return ["report.html", *(["overlay.mp4"] if overlay else ["sheet.jpg"])]


def _remove_log(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def _tell_of_video_predictions(out: Path, result: RunResult, written: list[str]) -> None:
    poses = result.poses
    posed = sum(len(t.frames) for t in poses.tracks.values())
    print(
        f"{count_of(posed, 'pose')} of {count_of(len(poses.tracks), 'track')} on "
        f"{count_of(poses.n_frames, 'frame')}, {result.seconds['prediction']:.0f} s"
    )
    for note in result.notes:
        print(note)
    looks = " and ".join(str(out / name) for name in written)
    print(f"wrote {out / 'poses.json'}" + (f"; look at {looks}" if looks else ""))


_OF_DATASETS = {
    "split": "val",
    "ends": "clip",
    "box_threshold": 0.2,
    "neck": "shoulders",
    "all_frames": False,
    "skip_missing": False,
}
_OF_VIDEOS = {
    "labels": None,
    "detector": None,
    "detector_weights": None,
    "category": "person",
    "detect_every": 1,
    "whole_frame": False,
    "window": 2,
    "causal": False,
    "crops": "exact",
    "hold": 0.08,
    "flip": False,
    "precision": "auto",
    "patience": 30,
    "no_overlay": False,
}


def run(
    video: Annotated[
        str,
        typer.Argument(
            metavar="VIDEO",
            help="A video, a folder of frames, - for standard input, a camera or URL; a folder or list of "
            "videos; or a dataset that `posewarper prepare` has made.",
        ),
    ],
    model: Annotated[
        Path,
        typer.Option(
            metavar="CKPT", help="model.pt, an exported .onnx, or a .pth of the original or of mmpose."
        ),
    ],
    boxes: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Boxes of a detector. Of a dataset: the labels' own if left out."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Labels of some frames, at which tracks begin."),
    ] = None,
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
        int,
        typer.Option(metavar="N", min=1, help="Frames from one detection to the next; tracks lead between."),
    ] = 1,
    whole_frame: Annotated[
        bool,
        typer.Option("--whole-frame", help="Look for the one instance in the whole frame, then follow it."),
    ] = False,
    aggregate: Annotated[
        str,
        typer.Option(
            metavar="paper|none",
            help="Sum neighbouring frames with the paper's weights, or take each frame alone.",
        ),
    ] = "paper",
    window: Annotated[
        int, typer.Option(metavar="N", min=0, help="Frames on either side that are summed.")
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
        float, typer.Option(metavar="S", help="Share of its size by which a held crop may be off.")
    ] = 0.08,
    flip: Annotated[bool, typer.Option("--flip", help="Look at each crop's mirror image too.")] = False,
    precision: Annotated[
        str, typer.Option(metavar="auto|float32|bfloat16", help="Of the network; auto takes the faster.")
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
        int, typer.Option(metavar="N", min=0, help="Frames for which a lost track is waited for.")
    ] = 30,
    no_overlay: Annotated[
        bool, typer.Option("--no-overlay", help="Write no overlay video, which takes a second pass.")
    ] = False,
    split: Annotated[
        str, typer.Option(metavar="train|val|test", help="Of a dataset: the videos to go through.")
    ] = "val",
    ends: Annotated[
        str,
        typer.Option(
            metavar="clip|renormalise",
            help="Of a dataset: beyond the video's ends repeat them (the original), or leave frames out.",
        ),
    ] = "clip",
    box_threshold: Annotated[
        float, typer.Option(metavar="S", help="Of a dataset: leave out boxes with a score below S.")
    ] = 0.2,
    neck: Annotated[
        str,
        typer.Option(
            metavar="shoulders|head_bottom",
            help="Of a dataset: the neck in result files, between the shoulders (the original) or as found.",
        ),
    ] = "shoulders",
    all_frames: Annotated[
        bool, typer.Option("--all-frames", help="Of a dataset: also frames that nobody has labelled.")
    ] = False,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Of a dataset: leave out frames whose image is missing.")
    ] = False,
    batch: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Crops at a time; what suits the device if left out."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for the results; <video>_predicted or <dataset>_<split>."),
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    device: Device = DeviceName.AUTO,
    seed: UnusedSeed = 0,
) -> None:
    """Predict poses by a trained model: on a new video with tracks, or on a prepared dataset as the paper.

    Of a video it writes poses.json (every frame), overlay.mp4, report.html and run.json; of a dataset
    results/ (which `posewarper evaluate` reads), poses/ and submission.zip. Stopped at any moment, the same
    command goes on where it was.

    Many videos: give a folder of them, or a list (.csv with the columns video and labels or boxes). With
    torchrun --nproc-per-node N -m posewarper predict ... they are shared out over processes.
    """
    given = dict(locals())

    from posewarper.cli import predict

    is_dataset = (Path(video) / "dataset.json").is_file()
    _refuse_strangers(given, _OF_VIDEOS if is_dataset else _OF_DATASETS, is_dataset=is_dataset)
    common: dict[str, Any] = {
        "model": model,
        "boxes": boxes,
        "batch": batch,
        "out": out,
        "overwrite": overwrite,
        "quiet": quiet,
        "device": device.value,
    }
    if is_dataset:
        settings = {"aggregate": aggregate, "nms_oks": nms_oks, **_chosen(given, _OF_DATASETS, "split")}
        predict.predict_prepared(Path(video), settings=settings, split=split, **common)
        return
    places = ("labels", "detector", "detector_weights", "category", "detect_every", "whole_frame")
    own = _chosen(given, _OF_VIDEOS, *places, "no_overlay")
    settings = {"aggregate": aggregate, "nms_oks": 0.9 if nms_oks is None else nms_oks, **own}
    where = {name: given[name] for name in ("boxes", *places)}
    del common["boxes"]
    predict.predict_videos(video, settings=settings, where=where, overlay=not no_overlay, **common)


def _chosen(given: dict[str, Any], names: dict[str, Any], *but: str) -> dict[str, Any]:
    return {name: given[name] for name in names if name not in but}


def _refuse_strangers(given: dict[str, Any], strangers: dict[str, Any], *, is_dataset: bool) -> None:
    """Refuse options that would do nothing."""
    from posewarper.errors import ConfigError

    set_ones = [name for name, default in strangers.items() if given[name] != default]
    if set_ones:
        raise ConfigError(
            f"this option belongs to {'videos' if is_dataset else 'prepared datasets'}",
            path=given["video"],
            got=", ".join("--" + name.replace("_", "-") for name in set_ones),
            fix="leave it out",
        )
