"""Separate labelled images, of several videos and sizes: what a project holds without its videos."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from posewarper.errors import ConfigError, LabelsError, PosewarperWarning, few_of
from posewarper.evaluation.pairing import table_of_labels
from posewarper.formats.clips import need_same_keypoints
from posewarper.formats.frame_names import find_images, folder_name, folders_near
from posewarper.formats.labels import read_labels
from posewarper.formats.records import LabelFile
from posewarper.options import ImageSettings
from posewarper.structures import Labels
from posewarper.training.samples import (
    TrainingSamples,
    VideoFrames,
    join_samples,
    samples_of_tracks,
    whole,
)
from posewarper.training.validation import ValidationVideo
from posewarper.video.images import read_image, upright_size
from posewarper.video.source import FrameSource


def samples_of_images(
    images: Sequence[ImageSettings], aspect_ratio: float, *, held_out: float = 0.0, seed: int = 0
) -> tuple[TrainingSamples, list[ValidationVideo]]:
    """Return the samples of separate images, and those held out to validate on.

    A crop lies around the labelled keypoints, or is the given box where there are fewer than two. The images
    of whole videos (folders) are held out where there are enough of them, else single images.

    Args:
        images: label files that name images, of one skeleton.
        aspect_ratio: width divided by height of the crop.
        held_out: share to validate on; at least one image, if it is not 0.
        seed: by which they are drawn.

    Raises:
        LabelsError: if labels cannot be used, skeletons differ, or no image is there.

    Warns:
        PosewarperWarning: about images that are not there.
    """
    parts: list[TrainingSamples] = []
    videos: list[VideoFrames] = []
    validation: list[ValidationVideo] = []
    for v, given in enumerate(images):
        labels = read_labels(LabelFile(given.labels, loose=True))
        if parts:
            need_same_keypoints(parts[0].skeleton, labels.skeleton, given.labels)
        files = _find_files(labels, given)
        chosen = _draw(labels, list(files), held_out, np.random.default_rng([seed, v]))
        names = tuple(str(files.get(frame, "")) for frame in range(max(files) + 1))
        videos.append(VideoFrames("", 0, len(names), names, upright=True))
        by_size: dict[tuple[int, int], list[int]] = {}
        for frame, file in files.items():
            by_size.setdefault(upright_size(file), []).append(frame)
        for size, frames in by_size.items():
            learned = [frame for frame in frames if frame not in chosen]
            parts.append(samples_of_tracks(size, labels, learned, aspect_ratio, v))
            if own := sorted(chosen.intersection(frames)):
                truth = table_of_labels(labels.at(own), only_visible=True, n_frames=len(names))
                source = FrameSource(partial(_read, names), 0, len(names))
                stem = f"{v}_{size[1]}x{size[0]}"
                validation.append(ValidationVideo(stem, replace(truth, image_size=size), source))
    if not parts:
        raise ConfigError("there are no images to learn from", fix="list label files that name images")
    together = replace(join_samples(parts), videos=tuple(videos), skeleton=parts[0].skeleton)
    return whole(together, images[0].labels), validation


def _read(names: Sequence[str], number: int) -> np.ndarray:
    return read_image(names[number])


def _find_files(labels: Labels, given: ImageSettings) -> dict[int, Path]:
    """Return the file of each labelled image, by its frame, without those that are not there."""
    roots = folders_near(given.labels) if given.folder is None else [Path(given.folder)]
    frames = labels.labelled_frames.tolist()
    names = {frame: labels.frame_names.get(frame, "") for frame in frames}
    found = find_images(roots, names)
    missing = [
        names[frame] or f"an image without a name (number {frame + 1})"
        for frame in frames
        if frame not in found
    ]
    if not found:
        raise LabelsError(
            "none of the labelled images is there",
            path=given.labels,
            expected=f"images under {few_of(roots)}",
            got=few_of(missing),
            fix=f"say where they lie: data.images='[{{labels: {given.labels}, folder: FOLDER}}]'",
        )
    if missing:
        text = (
            f"{given.labels}: {len(missing)} of {len(frames)} labelled images are left out, as they are not "
        )
        warnings.warn(f"{text}there: {few_of(missing, 10)}", PosewarperWarning, stacklevel=3)
    return found


def _draw(labels: Labels, frames: list[int], share: float, rng: np.random.Generator) -> set[int]:
    """Return the frames that are held out."""
    folders = {frame: folder_name(labels.frame_names[frame]) or "" for frame in frames}
    units: list[list[int]] = [[frame] for frame in frames]
    if share * len(set(folders.values())) >= 1:
        units = [[f for f in frames if folders[f] == name] for name in sorted(set(folders.values()))]
    count = min(max(1, round(share * len(units))), len(units) - 1) if share else 0
    return {frame for n in rng.permutation(len(units))[:count].tolist() for frame in units[n]}
