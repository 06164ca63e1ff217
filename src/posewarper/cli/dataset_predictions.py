"""``posewarper predict DATASET``: poses by a trained model, the paper's way, on a prepared dataset."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posewarper.cli.common import count_of, progress_bar

if TYPE_CHECKING:
    from posewarper.inference.dataset_prediction import DatasetResult


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
        settings: of :class:`posewarper.inference.dataset_prediction.PredictionConfig`.
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

    from posewarper.cli.run_facts import describe_inputs, describe_process, peak_memory, write_json
    from posewarper.errors import OutputError
    from posewarper.inference.dataset_prediction import SUBMISSION, PredictionConfig, predict_dataset
    from posewarper.model.onnx_model import open_model
    from posewarper.posetrack.dataset import open_dataset

    started = time.perf_counter()
    config = PredictionConfig.read(settings)
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
