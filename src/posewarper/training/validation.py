"""Validation during training: the paper's inference on labelled frames, and the metric of the data."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from posewarper.errors import PosewarperWarning
from posewarper.evaluation.pairing import table_of_labels
from posewarper.evaluation.pck import score_pck
from posewarper.evaluation.posetrack import score_posetrack
from posewarper.formats.labels import read_labels
from posewarper.formats.records import PathLike
from posewarper.model.network import PoseWarper
from posewarper.paper.prediction import dataset_frames, predict_video
from posewarper.posetrack.dataset import Dataset
from posewarper.posetrack.points import apply_neck_rule
from posewarper.posetrack.results import paper_scores
from posewarper.posetrack.samples import samples_from_labels
from posewarper.prediction.windows import named_window
from posewarper.structures import InstanceTable
from posewarper.video.source import FrameSource, Video, open_video


@dataclass(frozen=True)
class ValidationVideo:
    """One video to validate on: its name, its labels and its frames; labelled frames are predicted."""

    stem: str
    truth: InstanceTable
    source: FrameSource | Video


def videos_of_dataset(dataset: Dataset, split: str) -> list[ValidationVideo]:
    """Return the videos of a split."""
    return [
        ValidationVideo(video.file_stem, dataset.table(video), dataset_frames(dataset, video))
        for video in dataset.of_split(split)
    ]


def videos_of_clips(clips: Sequence[tuple[PathLike, PathLike]]) -> list[ValidationVideo]:
    """Return clips of one's own, (video, labels) each; labels marked as hidden are not scored."""
    found = []
    for n, (path, labels) in enumerate(clips):
        video = open_video(path)
        given = read_labels(labels, video=video)
        truth = table_of_labels(given, only_visible=True, n_frames=video.n_frames)
        truth = replace(truth, image_size=video.image_size)
        found.append(ValidationVideo(f"{n}_{Path(path).stem}", truth, video))
    return found


def predict_labelled(
    model: PoseWarper, videos: Sequence[ValidationVideo], *, aggregate: str
) -> dict[str, InstanceTable]:
    """Predict every labelled instance from its own box; by stem.

    The model is in evaluation mode; ``aggregate`` is ``none`` for the pose network alone, ``paper`` for five
    frames.
    """
    height, width = model.spec.crop_size
    found = {}
    for video in videos:
        own = video.truth.take(video.truth.is_labelled[video.truth.rows])
        samples = samples_from_labels(own, width / height)
        window = named_window(aggregate)
        found[video.stem] = predict_video(model, video.truth, samples, video.source, window=window)
    return found


def official_score(videos: Sequence[ValidationVideo], predicted: Mapping[str, InstanceTable]) -> float:
    """Return the mean AP of the official evaluation in percent, the neck as the paper wrote it."""
    results = {stem: paper_scores(apply_neck_rule(table, "shoulders")) for stem, table in predicted.items()}
    truth = {video.stem: video.truth for video in videos}
    with warnings.catch_warnings():
        # There are no tracks, and so no tracking figures.
        warnings.simplefilter("ignore", PosewarperWarning)
        score = score_posetrack(truth, results, neck="head_bottom")
    return float(score.to_dict()["ap"]["groups"]["total"] or 0.0)


def pck_score(videos: Sequence[ValidationVideo], predicted: Mapping[str, InstanceTable]) -> float:
    """Return the share of keypoints within a tenth of the box's longer side, in percent."""
    truth = {video.stem: video.truth for video in videos}
    score = score_pck(truth, predicted, normaliser="box", thresholds=(0.1,), trust_tracks=False)
    return float(score.mean[0])
