"""``posewarper predict``: poses by a trained model, of videos of one's own or of a prepared dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from posewarper.cli.common import Device, DeviceName, Overwrite, Quiet, UnusedSeed

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
            metavar="paper|confidence|none",
            help="Sum neighbouring frames with the paper's weights, by confidence too, or each frame alone.",
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

    from posewarper.cli import dataset_predictions, video_predictions

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
        dataset_predictions.predict_prepared(Path(video), settings=settings, split=split, **common)
        return
    places = ("labels", "detector", "detector_weights", "category", "detect_every", "whole_frame")
    own = _chosen(given, _OF_VIDEOS, *places, "no_overlay")
    settings = {"aggregate": aggregate, "nms_oks": 0.9 if nms_oks is None else nms_oks, **own}
    where = {name: given[name] for name in ("boxes", *places)}
    del common["boxes"]
    video_predictions.predict_videos(video, settings=settings, where=where, overlay=not no_overlay, **common)


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
            mend="leave it out",
        )
