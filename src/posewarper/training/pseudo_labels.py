"""Pseudo-labels: labels that a trained warper carries to the frames around them, kept where they are sure."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from posewarper.errors import ConfigError, ModelError, PosewarperWarning
from posewarper.evaluation.pairing import table_of_labels
from posewarper.formats.labels import read_labels, write_labels
from posewarper.model.checkpoint import load_model, parameters_sha256
from posewarper.model.network import PoseWarper
from posewarper.motion.interpolation import fill_in
from posewarper.paper.carrying import Rules, propagate_video
from posewarper.paper.propagation import neighbour_steps, plan_dataset, propagate_dataset
from posewarper.posetrack.dataset import Dataset
from posewarper.processes import own_share, wait_for_all
from posewarper.runs import claim, held_by_first, seen_in_time
from posewarper.structures import Labels, Progress, Track, is_there, silent
from posewarper.training.samples import PathLike, TrainingSamples, labelled_frames
from posewarper.version import __version__
from posewarper.video.source import Video, open_video
from posewarper.video.track_crops import instance_boxes, without_strays

_WORK = "propagating labels"


def load_warper(path: str | None) -> PoseWarper:
    """Load the model that makes pseudo-labels, on the CPU.

    Raises:
        ConfigError: if none is named.
        ModelError: if it cannot be used or has no trained warp head.
    """
    if path is None:
        raise ConfigError(
            "labels are propagated by a warper, and none is named",
            expected="data.pseudo.model=CHECKPOINT",
            fix="train one first (train.stage=warper) and name its model.pt",
        )
    model = load_model(path)
    if "warp" not in model.spec.trained:
        raise ModelError(
            "the warp head of this model was never trained, and would leave labels where they are",
            path=path,
            expected="the model.pt of a run with train.stage=warper",
            got=f"trained: {', '.join(model.spec.trained) or 'nothing'}",
            fix="train a warper on top of it first",
        )
    return model


def propagate_clips(
    clips: Sequence[tuple[PathLike, PathLike]],
    model: PoseWarper,
    folder: Path,
    *,
    reach: int,
    rules: Rules,
    progress: Progress = silent,
) -> list[Path | None]:
    """Propagate the labels of clips and write one file of poses a clip; what is done already is kept.

    Several connected processes share the clips, and all return the same.

    Args:
        clips: (video, labels) each.
        model: a trained warper, in evaluation mode, on its device.
        folder: gets ``<n>_<name of the video>.json``, and a note of what they were made from. Results of
            other settings are removed.
        reach: how many frames to either side of a labelled one are filled.
        rules: which keypoints are kept.

    Returns:
        The files, None for clips of which no keypoint was kept, which are warned of.

    Raises:
        LabelsError, VideoError: if labels or a video cannot be used.
        ModelError: if the model has other keypoints.
        OutputError: if the folder cannot be written.
    """
    files = [folder / f"{n}_{Path(video).stem}.json" for n, (video, _) in enumerate(clips)]
    request = {
        "posewarper": __version__,
        "model": parameters_sha256(model),
        "reach": reach,
        "rules": asdict(rules),
        # Videos are large: their size stands for their bytes.
        "clips": [
            [(Path(video).name, os.path.getsize(video) if os.path.isfile(video) else None), _sha256(labels)]
            for video, labels in clips
        ],
    }
    found: list[Path | None] = []
    claimed = claim(folder, request, ("[0-9]*_*.json",), overwrite=None)
    with held_by_first(folder, claimed, begins=True):
        for n in own_share(range(len(clips))):
            (video_path, labels_path), path = clips[n], files[n]
            progress(_WORK, n, len(clips))
            if not path.is_file():
                with open_video(video_path) as video:
                    labels = read_labels(labels_path, video=video)
                    write_labels(path, propagate_labels(model, video, labels, reach=reach, rules=rules))
        wait_for_all()
        for (_, labels_path), path in zip(clips, files, strict=True):
            seen_in_time(path.is_file)
            if json.loads(path.read_text(encoding="utf-8"))["annotations"]:
                found.append(path)
            else:
                found.append(None)
                text = f"{labels_path}: no propagated keypoint was sure enough to be learned from"
                warnings.warn(f"{text}; the warper may need more training", PosewarperWarning, stacklevel=2)
    progress(_WORK, len(clips), len(clips))
    return found


def propagate_labels(model: PoseWarper, video: Video, labels: Labels, *, reach: int, rules: Rules) -> Labels:
    """Carry labels to the frames around them, in the crops that a network for one's own clips is trained on.

    Labels outside of the image are not carried; a frame that two labelled ones reach is filled from the
    nearer. Arguments are those of :func:`propagate_clips`. Returns predictions with scores on frames that
    carry no label, with the boxes of the labels they come from.

    Raises:
        ModelError: if the model has other keypoints.
    """
    given = {}
    for i, whole in labels.tracks.items():
        track = without_strays(whole, video.image_size)
        given[i] = replace(track, boxes=instance_boxes(fill_in(track).keypoints, track.boxes))
    table = table_of_labels(replace(labels, tracks=given), only_visible=False, n_frames=video.n_frames)
    table = replace(table, image_size=video.image_size)
    steps = neighbour_steps(table, reach=reach)
    moved = propagate_video(model, table, steps, video, method="warper", rules=rules)
    frames, tracks = moved.frame_numbers[moved.rows], {}
    for track in np.unique(moved.tracks).tolist():
        own = np.flatnonzero(moved.tracks == track)
        own = own[np.argsort(frames[own], kind="stable")]
        tracks[track] = Track(
            frames[own],
            moved.keypoints[own],
            visibility=np.where(is_there(moved.keypoints[own]), 2, 0).astype(np.uint8),
            boxes=moved.boxes[own],
            keypoint_scores=moved.keypoint_scores[own],
        )
    names = dict(enumerate(video.frame_names)) or dict(labels.frame_names)
    return replace(labels, tracks=tracks, labelled_frames=np.zeros(0, np.int64), frame_names=names)


def propagate_samples(
    dataset: Dataset,
    split: str,
    samples: TrainingSamples,
    model: PoseWarper,
    folder: Path,
    *,
    reach: int,
    rules: Rules,
    progress: Progress = silent,
) -> Path:
    """Propagate those labels of a prepared dataset that are learned from; returns the folder of poses.

    The labels are ``samples``, of :func:`posewarper.training.samples.samples_of_dataset`; other arguments as
    :func:`propagate_clips`, errors as :func:`posewarper.paper.propagation.propagate_dataset`.
    """
    chosen = labelled_frames(samples, dataset)
    plan = plan_dataset(dataset, split, "neighbours", selection=chosen, reach=reach)
    return propagate_dataset(
        dataset,
        model,
        folder,
        split=split,
        method="warper",
        plan=plan,
        rules=rules,
        overwrite=None,
        progress=progress,
    ).folder


def _sha256(path: PathLike) -> str:
    # What is missing is reported by whoever reads it.
    digest, place = hashlib.sha256(), Path(path)
    for file in sorted(p for p in (place, *place.rglob("*")) if p.is_file()):
        digest.update(file.relative_to(place).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()
