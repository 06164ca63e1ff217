"""``posewarper evaluate``: how good predictions are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from posewarper.cli import common
from posewarper.errors import ConfigError
from posewarper.files import write_json
from posewarper.version import __version__


def run(
    ground_truth: Annotated[
        Path,
        typer.Option(
            metavar="PATH", help="Labels: PoseTrack's files or folders, or a label file (pck, oks)."
        ),
    ],
    predictions: Annotated[
        Path, typer.Option(metavar="PATH", help="Predictions: files of the same names, or a poses.json.")
    ],
    metric: Annotated[
        str, typer.Option(metavar="posetrack|pck|oks", help="PoseTrack's AP and MOTA, PCK, or COCO's OKS AP.")
    ] = "posetrack",
    neck: Annotated[
        str,
        typer.Option(
            metavar="shoulders|head_bottom",
            help="Where the predicted neck is: between the predicted shoulders, or as the file has it.",
        ),
    ] = "head_bottom",
    normaliser: Annotated[
        str | None,
        typer.Option(
            metavar="head|box|pixels|A,B",
            help="pck: what distances are measured by; A,B is the distance between two keypoints. "
            "Left out: the head box, or without one the box.",
        ),
    ] = None,
    thresholds: Annotated[
        str | None,
        typer.Option(metavar="T,T,...", help="pck: the largest distances, in units of the normaliser."),
    ] = None,
    sigmas: Annotated[
        str | None, typer.Option(metavar="S,S,...", help="oks: one for each keypoint, or one for all.")
    ] = None,
    labels_of: common.LabelsOf = None,
    frame_number: common.FrameNumber = None,
    json_file: common.JsonFile = None,
    overwrite: common.Overwrite = False,
    quiet: common.UnusedQuiet = False,
    device: common.UnusedDevice = common.DeviceName.AUTO,
    seed: common.UnusedSeed = 0,
) -> None:
    """Compare predictions with labels: PoseTrack's official figures, PCK, or COCO's OKS AP.

    Videos belong together by the names of their files, frames by the names of their images.

    All figures are in percent. PoseTrack's tracking figures leave out the last frame of each video.
    """
    if json_file is not None:
        common.refuse_existing(json_file, overwrite)

    from posewarper.evaluation.protocols import evaluate, format_score
    from posewarper.formats.records import LabelFile

    score = evaluate(
        LabelFile(ground_truth, labels_of, frame_number),
        predictions,
        metric=metric,
        neck=neck,
        normaliser=normaliser,
        thresholds=_parse_numbers("--thresholds", thresholds),
        sigmas=_parse_numbers("--sigmas", sigmas),
    )
    common.print_line(format_score(score))
    if json_file is not None:
        given = {"ground_truth": str(ground_truth), "predictions": str(predictions), "metric": metric}
        write_json(json_file, {"version": __version__, **given, "neck": neck, **score.to_dict()})
        common.print_line(f"wrote {json_file}")


def _parse_numbers(option: str, text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in common.read_names(text)]
    except ValueError:
        raise ConfigError(
            f"{option} takes numbers with commas in between",
            expected="for example 0.05,0.1,0.2",
            got=repr(text),
            fix="write numbers with a decimal point",
        ) from None
