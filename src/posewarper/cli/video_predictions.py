"""``posewarper predict VIDEO``: poses and tracks of one video or of many, by a trained model."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posewarper.cli.common import count_of, progress_bar
from posewarper.cli.many_videos import DoneBefore, VideoJob, list_videos, share_videos

if TYPE_CHECKING:
    from posewarper.model.network import PoseModel
    from posewarper.structures import Progress, RunResult

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
        settings: of :class:`posewarper.inference.clip_prediction.ClipPredictionConfig`.
        where: to look for instances, as :func:`posewarper.inference.video_poses.predict` takes it.
        model: a checkpoint or an exported model.
        overlay: whether to draw the poses on the video.
        batch: crops at a time.
        out: folder for the results.
        overwrite: replace results.
        quiet: show no progress.
        device: where the network runs.
    """
    from posewarper.inference.clip_prediction import ClipPredictionConfig
    from posewarper.io.folder_lock import sole_writer
    from posewarper.model.onnx_model import open_model

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
    from posewarper.io.images import IMAGE_SUFFIXES

    if place.is_dir() and not any(path.suffix.lower() in IMAGE_SUFFIXES for path in place.iterdir()):
        raise VideoError(
            "this folder holds neither frames nor videos, and is not a prepared dataset",
            path=place,
            expected="images, videos, or what `posewarper prepare` writes",
            mend="name another folder, or prepare the dataset first",
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
    from posewarper.cli.run_facts import describe_inputs, write_json
    from posewarper.inference.resumption import claim_folder, is_claimed
    from posewarper.inference.video_poses import predict
    from posewarper.io.labels import write_poses
    from posewarper.io.live import is_live

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
    _tell(out, result, written)


def _check_detector(where: dict[str, Any]) -> None:
    from posewarper.errors import ConfigError

    weights = where["detector_weights"]
    if weights is not None and where["detector"] is None:
        raise ConfigError(
            "these are weights of a detector, and none is to be used",
            path=weights,
            mend="name the detector with --detector, or leave --detector-weights out",
        )


def _refuse_done(out: Path, request: dict[str, Any], *, live: bool) -> None:
    """Refuse a folder with a finished run, which ``run.json`` tells of.

    A live run that has written its poses cannot be gone on with, nor can it be done again.

    Raises:
        DoneBefore: if it is a run of this request.
        OutputError: if it is another.
    """
    from posewarper.errors import OutputError
    from posewarper.inference.resumption import is_claimed

    last = "poses.json" if live else "run.json"
    if (out / last).exists():
        same = is_claimed(out, request)
        raise (DoneBefore if same else OutputError)(
            "this folder holds results already" + ("" if same else ", of other settings or inputs"),
            path=out,
            got=last,
            mend="name another folder, or allow them to be replaced with --overwrite",
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
    from posewarper.cli.run_facts import describe_process, peak_memory

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
    from posewarper.cli.propagate_labels import sheet_frames
    from posewarper.io.video import open_video
    from posewarper.reporting.overlay import write_overlay, write_sheet
    from posewarper.reporting.report import write_report

    with open_video(video) as opened:
        if overlay:
            write_overlay(out / "overlay.mp4", opened, result.poses, progress=progress)
        write_sheet(out / "sheet.jpg", opened, result.poses, sheet_frames(result.poses))
        write_report(out / "report.html", opened, result, facts)
    return ["report.html", *(["overlay.mp4"] if overlay else ["sheet.jpg"])]


def _remove_log(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def _tell(out: Path, result: RunResult, written: list[str]) -> None:
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
