"""The paper's prediction of a prepared dataset: poses and official result files, video after video.

A video goes through the same stream as one of ``predict VIDEO``, with given boxes, the original's ends and no
cuts.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from posewarper.crops import Image
from posewarper.errors import (
    Interrupted,
    LabelsError,
    ModelError,
    OutputError,
    PosewarperWarning,
    unknown_name,
)
from posewarper.evaluation.oks import similarity, usual_sigmas
from posewarper.files import sha256_of
from posewarper.formats.boxes import BoxList, boxes_of_frames, boxes_without_frame, read_boxes
from posewarper.model.checkpoint import parameters_sha256
from posewarper.model.heatmap_runner import HeatmapEngine
from posewarper.model.network import PoseModel
from posewarper.options import PredictionConfig
from posewarper.posetrack.dataset import Dataset, DatasetVideo
from posewarper.posetrack.points import apply_neck_rule
from posewarper.posetrack.posetrack18 import read_posetrack18, write_posetrack18
from posewarper.posetrack.results import paper_scores, write_results, write_submission
from posewarper.posetrack.samples import Samples, samples_from_boxes, samples_from_labels
from posewarper.prediction.stream import CropKeeper, PoseStream
from posewarper.prediction.tracker import suppress_doubles
from posewarper.prediction.windows import WINDOWS, Window, check_window, named_window
from posewarper.processes import machine_name, of_first, own_share, wait_for_all
from posewarper.runs import claim, counter, held_by_first, seen_in_time
from posewarper.skeletons import POSETRACK
from posewarper.structures import InstanceTable, Ints, Progress, silent
from posewarper.version import __version__
from posewarper.video.images import read_image
from posewarper.video.source import FrameSource, Video, ahead

ENDS = ("clip", "renormalise")
_CHUNK = 4  # frames together
_NOBODY: Ints = np.zeros(0, np.int64)


def dataset_frames(dataset: Dataset, video: DatasetVideo) -> FrameSource:
    """Return the frames of a video of a prepared dataset, not turned by EXIF, as the original reads them."""

    def read(number: int) -> Image:
        return read_image(dataset.frame_path(video, number), upright=False)

    return FrameSource(read, video.first, video.n_frames, video.missing)


def predict_video(
    model: PoseModel,
    table: InstanceTable,
    samples: Samples,
    source: FrameSource | Video,
    *,
    window: Window = WINDOWS["paper"],
    ends: str = "clip",
    batch: int | None = None,
    advance: Callable[[int], None] = lambda n: None,
) -> InstanceTable:
    """Predict a pose for every sample of a video; nothing is suppressed or thresholded here.

    Args:
        model: in evaluation mode, on its device.
        table: lists the frames of the video; its instances are not looked at.
        samples: the boxes, in any order; each cuts all frames of its window from ``source``.
        window: the frames that are summed; one frame alone is the pose network without the warper.
        ends: ``clip`` repeats the first or last frame where the window leaves the video, and takes the
            present frame for one that is missing, as the original; ``renormalise`` leaves both out, and the
            other weights grow so that they sum up to what all did.
        batch: crops at a time; None for what suits the device.
        advance: is told how many samples were done.

    Returns:
        The frames of ``table`` with one instance a sample, in their order: keypoints (n, K, 2) in image
        pixels, ``keypoint_scores`` the maxima of the heatmaps, ``scores`` and ``boxes`` the samples'.

    Raises:
        ConfigError: if ``ends`` is unknown.
    """
    if ends not in ENDS:
        raise unknown_name("unknown rule for the ends of a video", ends, ENDS)
    k, n = len(model.spec.skeleton), len(samples)
    keypoints, maxima = np.full((n, k, 2), np.nan), np.zeros((n, k))
    numbers = table.frame_numbers[samples.rows]
    own = {int(number): np.flatnonzero(numbers == number) for number in np.unique(numbers)}
    first, last = source.first, source.first + source.n_frames - 1
    around = {min(max(number + offset, first), last) for number in own for offset in window.offsets}
    needed = sorted(number for number in around if number in own or source.has(number))

    stream = PoseStream(
        HeatmapEngine(model, precision="float32", batch=batch),
        window,
        CropKeeper(model.spec.crop_size[1] / model.spec.crop_size[0]),
        lambda number, image, new_scene: samples.boxes[own.get(number, _NOBODY)],
        chunk=_CHUNK,
        scenes=False,
        bounds=(first, last) if ends == "clip" else None,
    )
    with closing(ahead(source.frames(needed))) as frames:
        for poses in stream.run(frames):
            which = own.get(poses.frame, _NOBODY)
            keypoints[which], maxima[which] = poses.keypoints, poses.keypoint_scores
            if len(which):
                advance(len(which))
    return replace(
        table,
        rows=samples.rows,
        keypoints=keypoints,
        keypoint_scores=maxima,
        scores=samples.box_scores,
        tracks=None,
        boxes=samples.boxes,
        head_boxes=None,
        is_person=None,
        ignore_regions={},
        skeleton=model.spec.skeleton,
    )


def make_or_read(
    folder: Path,
    sizes: Mapping[str, int],
    make: Callable[[str, Callable[[int], None]], InstanceTable],
    what: str,
    progress: Progress,
) -> tuple[dict[str, InstanceTable], int]:
    """Make the poses of each video, or read those that an interrupted run has made.

    Several connected processes share the videos, and all return the same.

    Args:
        folder: where each video has a PoseTrack18 file.
        sizes: file stem -> how much there is to do.
        make: (file stem, what is told how much was done) -> poses.
        what: the name of the work, for ``progress``.

    Returns:
        The poses by file stem, and how many videos were there already.

    Raises:
        Interrupted: on Ctrl-C; the next run skips the videos that are done.
        OutputError: if what another process has made is not to be seen here.
    """
    tables: dict[str, InstanceTable] = {}
    files = {stem: folder / f"{stem}.json" for stem in sizes}
    # All go by what the first process sees, as another machine may see it later.
    reused = of_first(lambda: {stem for stem in files if files[stem].is_file()})
    missing = own_share([stem for stem in files if stem not in reused])
    done = sum(sizes[stem] for stem in reused)
    total = done + sum(sizes[stem] for stem in missing)
    try:
        for stem in missing:
            progress(what, done, total)
            tables[stem] = make(stem, counter(progress, what, done, total))
            write_posetrack18(files[stem], tables[stem])
            done += sizes[stem]
        wait_for_all()
    except KeyboardInterrupt:
        n_done = sum(path.is_file() for path in files.values())
        kept = f"{n_done} of {len(sizes)} videos are done in {folder}"
        raise Interrupted(f"{kept}; the same command resumes there") from None
    for stem, path in files.items():
        if stem not in tables and not seen_in_time(path.is_file):
            raise OutputError(
                "what another process has made is not to be seen here",
                path=path,
                expected="a folder that all machines share",
                got=f"no such file on {machine_name()}",
                fix="name a folder on a file system that all machines see",
            )
    progress(what, total, total)
    return {stem: tables.get(stem) or read_posetrack18(files[stem]) for stem in sizes}, len(reused)


def describe_request(dataset: Dataset, split: str, model: PoseModel | None, **own: object) -> dict[str, Any]:
    """Return what decides on poses; a run with the same request may take over another's videos."""
    return {
        "posewarper": __version__,
        "dataset": sha256_of(dataset.root / "dataset.json"),
        "split": split,
        "model": None if model is None else parameters_sha256(model),
        **own,
    }


_POSES, _RESULTS, SUBMISSION = "poses", "results", "submission.zip"


@dataclass(frozen=True)
class DatasetResult:
    """How much a run over a dataset came to."""

    videos: int
    frames: int  # with a pose
    instances: int
    reused: int  # videos that an interrupted run had done already


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
    original writes, ``out/submission.zip`` what a test server takes. The next run after an interrupted one
    predicts only the videos that are not done. Several connected processes share the videos.

    Args:
        dataset: made by ``posewarper prepare``.
        model: in evaluation mode, on its device; its keypoints are PoseTrack's.
        out: the folder to write.
        split: ``train``, ``val`` or ``test``.
        boxes: file of a detector's boxes; None for the labels' own.
        batch: crops at a time; None for what suits the device.
        overwrite: replace results of another run.

    Raises:
        ModelError: if the model has other keypoints, or its warp head is needed and untrained.
        LabelsError: if there are no boxes, or they belong to other frames.
        OutputError: if ``out`` holds results of another run.
    """
    config = config or PredictionConfig()
    if model.spec.skeleton.names != POSETRACK.names:
        raise ModelError(
            "this model has other keypoints than PoseTrack's, which result files are made of",
            expected=", ".join(POSETRACK.names),
            got=", ".join(model.spec.skeleton.names),
            fix="give a model with these 17 keypoints",
        )
    window = named_window(config.aggregate)
    check_window(model, window)
    videos = {video.file_stem: video for video in dataset.require_split(split)}
    labels = {stem: dataset.table(video) for stem, video in videos.items()}
    samples = {
        stem: _on_frames_there(dataset, videos[stem], labels[stem], own, config)
        for stem, own in _all_samples(dataset, split, labels, boxes, config, model).items()
    }
    place = Path(out)
    given = None if boxes is None else sha256_of(boxes)
    request = describe_request(dataset, split, model, boxes=given, config=config.model_dump())

    def make(stem: str, advance: Callable[[int], None]) -> InstanceTable:
        poses = predict_video(
            model,
            labels[stem],
            samples[stem],
            dataset_frames(dataset, videos[stem]),
            window=window,
            ends=config.ends,
            batch=batch,
            advance=advance,
        )
        return poses if config.nms_oks is None else _without_doubles(poses, config.nms_oks)

    sizes = {stem: len(samples[stem]) for stem in videos}

    def write(predicted: Mapping[str, InstanceTable]) -> None:
        results = {stem: paper_scores(apply_neck_rule(own, config.neck)) for stem, own in predicted.items()}
        write_results(place / _RESULTS, results, ground_truth=labels)
        write_submission(place / SUBMISSION, results, kind=dataset.kind, ground_truth=labels)

    claimed = claim(place, request, (_POSES, _RESULTS, SUBMISSION), overwrite=overwrite, again=True)
    with held_by_first(place, claimed, begins=True):
        predicted, reused = make_or_read(place / _POSES, sizes, make, "poses", progress)
        of_first(lambda: write(predicted))
    return DatasetResult(
        videos=len(videos),
        frames=sum(len(np.unique(table.rows)) for table in predicted.values()),
        instances=sum(table.n_instances for table in predicted.values()),
        reused=reused,
    )


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
            fix="give the boxes of a detector with --boxes",
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
    found = read_boxes(boxes)
    found = found.take(found.category_ids == 1)  # the first category of COCO's and PoseTrack's files: people
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
    gone = np.isin(numbers, list(video.missing))
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
            fix="put them there and run `posewarper prepare` again, or leave them out with --skip-missing",
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
            fix="give the boxes of this dataset and split",
        )
    if strangers:
        text = f"{path}: {strangers} of {len(boxes)} boxes are on frames that these videos do not have"
        warnings.warn(text, PosewarperWarning, stacklevel=2)


def _without_doubles(poses: InstanceTable, threshold: float) -> InstanceTable:
    """Return the poses without those that are more similar than allowed to a better one in their frame."""
    stays, sigmas = np.ones(poses.n_instances, bool), np.array(usual_sigmas(poses.skeleton))
    scores = paper_scores(poses).keypoint_scores.mean(axis=1)
    for row in np.unique(poses.rows):
        own = np.flatnonzero(poses.rows == row)
        alike = similarity(poses.keypoints[own], poses.boxes[own], poses.keypoints[own], sigmas)
        stays[own] = suppress_doubles(alike, scores[own], threshold)
    return poses.take(stays)
