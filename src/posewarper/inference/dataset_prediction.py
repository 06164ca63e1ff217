"""The paper's inference over a prepared dataset: poses and official result files, video after video."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from posewarper.config import Settings
from posewarper.errors import Interrupted, LabelsError, ModelError, PosewarperWarning
from posewarper.evaluation.oks import similarity, usual_sigmas
from posewarper.inference.aggregation import named_window
from posewarper.inference.resumption import claim_folder, counter
from posewarper.inference.suppression import suppress_doubles
from posewarper.inference.video_prediction import dataset_frames, predict_video
from posewarper.instances import InstanceTable
from posewarper.io.box_files import BoxList, boxes_of_frames, boxes_without_frame, read_boxes
from posewarper.io.posetrack18 import read_posetrack18, write_posetrack18
from posewarper.io.posetrack_points import apply_neck_rule
from posewarper.io.result_files import paper_scores, write_results, write_submission
from posewarper.model.checkpoint import parameters_sha256
from posewarper.model.network import PoseModel
from posewarper.model.onnx_model import check_warper
from posewarper.posetrack.dataset import Dataset, DatasetVideo
from posewarper.posetrack.samples import Samples, samples_from_boxes, samples_from_labels
from posewarper.skeletons import POSETRACK
from posewarper.structures import Ints, Progress, silent
from posewarper.version import __version__

_POSES, _RESULTS = "poses", "results"
SUBMISSION = "submission.zip"
_NOBODY: Ints = np.zeros(0, np.int64)


class PredictionConfig(Settings):
    """Settings of the paper's inference; the defaults are those of its recipes."""

    aggregate: Literal["paper", "none"] = "paper"
    ends: Literal["clip", "renormalise"] = "clip"
    box_threshold: float = Field(default=0.2, description="lower boxes of a detector are left out")
    neck: Literal["shoulders", "head_bottom"] = "shoulders"
    nms_oks: float | None = Field(default=None, ge=0, le=1, description="None: no suppression, as the paper")
    skip_missing: bool = Field(default=False, description="leave out frames whose image is missing")
    all_frames: bool = Field(default=False, description="also frames of train and val without labels")


@dataclass(frozen=True)
class DatasetResult:
    """What a run over a dataset came to.

    Args:
        videos: number of videos.
        frames: number of frames with a pose.
        instances: number of poses.
        reused: number of videos that an interrupted run had done already.
    """

    videos: int
    frames: int
    instances: int
    reused: int


def predict_dataset(
    dataset: Dataset,
    model: PoseModel,
    out: str | os.PathLike[str],
    *,
    split: str = "val",
    boxes: str | os.PathLike[str] | None = None,
    config: PredictionConfig | None = None,
    batch: int | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> DatasetResult:
    """Predict every video of a split and write the results.

    ``out/poses`` gets PoseTrack18 files with all that the network said, ``out/results`` the files that the
    original writes, ``out/submission.zip`` what a test server takes. A run that was interrupted goes on with
    the videos that are not done; of one that is done nothing is predicted again.

    Args:
        dataset: made by ``posewarper prepare``.
        model: in evaluation mode, on its device; its keypoints are PoseTrack's.
        out: the folder to write.
        split: ``train``, ``val`` or ``test``.
        boxes: file of a detector's boxes; None for the labels' own.
        config: settings.
        batch: samples at a time; None for what suits the device.
        overwrite: replace results of another run.
        progress: is told after every batch.

    Raises:
        ModelError: if the model has other keypoints, or its warp head is needed and untrained.
        LabelsError: if there are no boxes, or they belong to other frames.
        OutputError: if ``out`` holds results of another run.
    """
    config = config or PredictionConfig()
    _check_model(model, config)
    videos = dataset.require_split(split)
    labels = {video.file_stem: dataset.table(video) for video in videos}
    samples = _all_samples(dataset, split, labels, boxes, config, model)
    for video in videos:
        samples[video.file_stem] = _on_frames_there(
            dataset, video, labels[video.file_stem], samples[video.file_stem], config
        )
    place = Path(out)
    request = _request(dataset, model, split, boxes, config)
    claim_folder(place, request, (_POSES, _RESULTS, SUBMISSION, "run.json"), overwrite=overwrite)
    predicted: dict[str, InstanceTable] = {}
    total, reused = sum(len(own) for own in samples.values()), 0
    done = 0
    try:
        for video in videos:
            stem = video.file_stem
            path = place / _POSES / f"{stem}.json"
            progress("poses", done, total)
            if path.is_file():
                predicted[stem] = read_posetrack18(path)
                reused += 1
            else:
                poses = predict_video(
                    model,
                    labels[stem],
                    samples[stem],
                    dataset_frames(dataset, video),
                    window=named_window(config.aggregate),
                    ends=config.ends,
                    batch=batch,
                    advance=counter(progress, "poses", done, total),
                )
                predicted[stem] = _without_doubles(poses, config.nms_oks)
                write_posetrack18(path, predicted[stem])
            done += len(samples[stem])
    except KeyboardInterrupt:
        kept = f"{len(predicted)} of {len(videos)} videos are done in {place / _POSES}"
        raise Interrupted(f"{kept}; the same command goes on from there") from None
    progress("poses", total, total)
    _write_results(place, dataset.kind, predicted, labels, config.neck)
    return DatasetResult(
        videos=len(videos),
        frames=sum(len(np.unique(table.rows)) for table in predicted.values()),
        instances=sum(table.n_instances for table in predicted.values()),
        reused=reused,
    )


def _check_model(model: PoseModel, config: PredictionConfig) -> None:
    if model.spec.skeleton.names != POSETRACK.names:
        raise ModelError(
            "this model has other keypoints than PoseTrack's, which result files are made of",
            expected=", ".join(POSETRACK.names),
            got=", ".join(model.spec.skeleton.names),
            mend="give a model with these 17 keypoints",
        )
    if config.aggregate == "none":
        return
    if "warp" not in model.spec.trained:
        raise ModelError(
            "the warp head of this model was never trained: neighbours would not be moved",
            expected="weights of a PoseWarper",
            got="weights of a pose network alone",
            mend="give other weights, or predict each frame alone with --aggregate none",
        )
    check_warper(model)


def _all_samples(
    dataset: Dataset,
    split: str,
    labels: Mapping[str, InstanceTable],
    boxes: str | os.PathLike[str] | None,
    config: PredictionConfig,
    model: PoseModel,
) -> dict[str, Samples]:
    """Return the boxes to look at in each video, by file stem."""
    height, width = model.spec.crop_size
    if boxes is None and split == "test":
        raise LabelsError(
            "test videos have no labels to take boxes from",
            path=dataset.root,
            mend="give the boxes of a detector with --boxes",
        )
    every = config.all_frames or split == "test"
    wanted = {
        stem: np.arange(len(table.frame_names)) if every else np.flatnonzero(table.is_labelled)
        for stem, table in labels.items()
    }
    if boxes is None:
        return {
            stem: samples_from_labels(table.take(np.isin(table.rows, wanted[stem])), width / height)
            for stem, table in labels.items()
        }
    found = _people(read_boxes(boxes))
    named = _as_boxes_call_them(found, {video.file_stem: video for video in dataset.of_split(split)}, labels)
    _check_boxes(found, named, boxes)
    samples = {}
    for stem, table in named.items():
        own = set(wanted[stem].tolist())
        at = {row: which for row, which in boxes_of_frames(found, table).items() if row in own}
        rows = np.concatenate([np.full(len(n), row) for row, n in at.items()]) if at else _NOBODY
        which = np.concatenate(list(at.values())) if at else _NOBODY
        samples[stem] = samples_from_boxes(
            table, found.boxes[which], found.scores[which], rows, width / height, config.box_threshold
        )
    _tell_of_gaps(samples, wanted, boxes)
    return samples


def _tell_of_gaps(samples: Mapping[str, Samples], wanted: Mapping[str, Ints], path: object) -> None:
    """Warn of frames that are to be predicted and have no box: results of a part look like those of all."""
    bare = {stem: len(set(wanted[stem].tolist()) - set(own.rows.tolist())) for stem, own in samples.items()}
    total, none = sum(map(len, wanted.values())), [stem for stem, own in samples.items() if not len(own)]
    if sum(bare.values()):
        videos = f", none at all in {len(none)} videos ({', '.join(none[:3])})" if none else ""
        text = f"{path}: no box above the threshold on {sum(bare.values())} of {total} frames{videos}"
        warnings.warn(text, PosewarperWarning, stacklevel=2)


def _on_frames_there(
    dataset: Dataset, video: DatasetVideo, table: InstanceTable, samples: Samples, config: PredictionConfig
) -> Samples:
    """Return the samples whose own frame can be read; without ``skip_missing`` all must be."""
    numbers = table.frame_numbers[samples.rows]
    gone = np.isin(numbers, list(dataset.missing(video)))
    if not gone.any():
        return samples
    frames = np.unique(numbers[gone]).tolist()
    what = f"{len(frames)} frames of video {video.name} that are to be predicted are missing"
    if not config.skip_missing:
        raise LabelsError(
            what,
            path=dataset.images,
            expected="an image for every labelled frame",
            got=", ".join(video.frame_name(n) for n in frames[:5]),
            mend="put them there and run `posewarper prepare` again, or leave them out with --skip-missing",
        )
    warnings.warn(f"{what}; they are left out", PosewarperWarning, stacklevel=2)
    return samples.take(~gone)


def _as_boxes_call_them(
    boxes: BoxList, videos: Mapping[str, DatasetVideo], labels: Mapping[str, InstanceTable]
) -> dict[str, InstanceTable]:
    """Return the tables with frame names as in the box file: the original's differ from the download's."""
    named = {}
    for stem, table in labels.items():
        regular = replace(
            table, frame_names=tuple(videos[stem].frame_name(n) for n in table.frame_numbers.tolist())
        )
        # Of equal counts the download's own names win.
        named[stem] = max(table, regular, key=lambda one: len(boxes_of_frames(boxes, one)))
    return named


def _people(boxes: BoxList) -> BoxList:
    # The first category of COCO's and PoseTrack's files is the person.
    return boxes.take(boxes.category_ids == 1)


def _check_boxes(boxes: BoxList, labels: Mapping[str, InstanceTable], path: object) -> None:
    strangers = len(boxes_without_frame(boxes, labels.values()))
    if strangers == len(boxes):
        names, ids = boxes.image_names, boxes.image_ids
        known = next(iter(labels.values()))
        raise LabelsError(
            "none of the boxes is on a frame of these videos",
            path=str(path),
            expected=f"images like {known.frame_names[0] if names else known.image_ids}",
            got="no boxes of people" if not len(boxes) else f"images like {names[0] if names else ids}",
            mend="give the boxes of this dataset and split",
        )
    if strangers:
        text = f"{path}: {strangers} of {len(boxes)} boxes are on frames that these videos do not have"
        warnings.warn(text, PosewarperWarning, stacklevel=2)


def _without_doubles(poses: InstanceTable, threshold: float | None) -> InstanceTable:
    """Return the poses without those that are more similar than allowed to a better one in their frame."""
    if threshold is None:
        return poses
    stays, sigmas = np.ones(poses.n_instances, bool), np.array(usual_sigmas(poses.skeleton))
    scores = paper_scores(poses).keypoint_scores.mean(axis=1)
    for row in np.unique(poses.rows):
        own = np.flatnonzero(poses.rows == row)
        alike = similarity(poses.keypoints[own], poses.boxes[own], poses.keypoints[own], sigmas)
        stays[own] = suppress_doubles(alike, scores[own], threshold)
    return poses.take(stays)


def _write_results(
    place: Path,
    kind: str,
    predicted: Mapping[str, InstanceTable],
    labels: Mapping[str, InstanceTable],
    neck: str,
) -> None:
    results = {stem: paper_scores(apply_neck_rule(table, neck)) for stem, table in predicted.items()}
    write_results(place / _RESULTS, results, ground_truth=labels)
    write_submission(place / SUBMISSION, results, kind=kind, ground_truth=labels)


# --- a run that goes on where it was ----------------------------------------------------------------------


def _request(
    dataset: Dataset,
    model: PoseModel,
    split: str,
    boxes: str | os.PathLike[str] | None,
    config: PredictionConfig,
) -> dict[str, Any]:
    """Return what decides on the poses; a run with the same request may go on with another's videos."""
    index = (dataset.root / "dataset.json").read_bytes()
    return {
        "posewarper": __version__,
        "dataset": hashlib.sha256(index).hexdigest(),
        "split": split,
        "model": parameters_sha256(model),
        "boxes": None if boxes is None else hashlib.sha256(Path(boxes).read_bytes()).hexdigest(),
        "config": config.model_dump(),
    }
