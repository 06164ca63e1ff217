"""``posewarper predict``: poses by a trained model, the paper's way, on a prepared dataset."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posewarper.cli.common import (
    Device,
    DeviceName,
    Overwrite,
    Quiet,
    UnusedSeed,
    count_of,
    progress_bar,
)

if TYPE_CHECKING:
    from posewarper.inference.dataset_prediction import DatasetResult


def run(
    dataset: Annotated[
        Path, typer.Argument(metavar="DATASET", help="A folder that `posewarper prepare` has made.")
    ],
    model: Annotated[
        Path, typer.Option(metavar="CKPT", help="A checkpoint: model.pt, or the original's or mmpose's .pth.")
    ],
    split: Annotated[str, typer.Option(metavar="train|val|test", help="The videos to go through.")] = "val",
    boxes: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Boxes of a detector (JSON); the labels' own boxes if left out."),
    ] = None,
    aggregate: Annotated[
        str,
        typer.Option(
            metavar="paper|none", help="Sum five frames with the paper's weights, or each frame alone."
        ),
    ] = "paper",
    ends: Annotated[
        str,
        typer.Option(
            metavar="clip|renormalise",
            help="Where five frames leave the video: repeat its end (the original), or leave frames out.",
        ),
    ] = "clip",
    box_threshold: Annotated[
        float, typer.Option(metavar="S", help="Leave out boxes with a score below S.")
    ] = 0.2,
    neck: Annotated[
        str,
        typer.Option(
            metavar="shoulders|head_bottom",
            help="The neck in result files: between the shoulders (as the original), or as predicted.",
        ),
    ] = "shoulders",
    nms_oks: Annotated[
        float | None,
        typer.Option(
            metavar="T",
            min=0,
            max=1,
            help="Remove poses more similar than T to a better one; the paper does not.",
        ),
    ] = None,
    all_frames: Annotated[
        bool, typer.Option("--all-frames", help="Also frames of train and val that nobody has labelled.")
    ] = False,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Leave out frames whose image is missing.")
    ] = False,
    batch: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Instances at a time; 4 on a CPU, 16 on a GPU.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for the results; <dataset>_<split> if not given."),
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    device: Device = DeviceName.AUTO,
    seed: UnusedSeed = 0,
) -> None:
    """Predict the poses of a prepared dataset the way the paper does: given boxes, one frame or five.

    Writes results/ (one file a video as the original writes it, which `posewarper evaluate` reads), poses/
    (PoseTrack18 files with all that the network said), submission.zip (for the test server) and run.json.
    Stopped at any moment, the same command goes on where it was.
    """
    out = out or Path(f"{dataset.resolve().name}_{split}")

    from posewarper.cli.run_facts import describe_inputs, describe_process, peak_memory, write_json
    from posewarper.errors import OutputError
    from posewarper.inference.dataset_prediction import SUBMISSION, PredictionConfig, predict_dataset
    from posewarper.model.checkpoint import load_model
    from posewarper.model.runtime import resolve_device
    from posewarper.posetrack.dataset import open_dataset

    started = time.perf_counter()
    config = PredictionConfig.read(
        {
            "aggregate": aggregate,
            "ends": ends,
            "box_threshold": box_threshold,
            "neck": neck,
            "nms_oks": nms_oks,
            "all_frames": all_frames,
            "skip_missing": skip_missing,
        }
    )
    if not overwrite and (out / SUBMISSION).exists():
        raise OutputError(
            "this folder holds results of a run that is done",
            path=out,
            mend="name another folder, or allow them to be replaced with --overwrite",
        )
    opened = open_dataset(dataset)
    with progress_bar(quiet) as progress:
        result = predict_dataset(
            opened,
            load_model(model).to(resolve_device(device.value)),
            out,
            split=split,
            boxes=boxes,
            config=config,
            batch=batch,
            overwrite=overwrite,
            progress=progress,
        )
    facts = {
        **describe_process(device.value),
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
