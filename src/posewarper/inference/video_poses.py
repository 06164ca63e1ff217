"""The second job: a trained model on a video, or on frames as they come."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np

from posewarper.crops import Image
from posewarper.errors import ConfigError, LabelsError, PosewarperWarning
from posewarper.inference.box_sources import BoxSource, boxes_of_labels
from posewarper.inference.clip_prediction import (
    ClipPrediction,
    ClipPredictionConfig,
    FrameFeed,
    check_aggregation,
    feed_of_video,
    predict_clip,
)
from posewarper.inference.detection import DEFAULT_DETECTOR, detect, load_detector
from posewarper.inference.streaming import FrameBoxes
from posewarper.io.labels import read_labels
from posewarper.io.live import LiveVideo, is_live
from posewarper.io.video import Video, open_video
from posewarper.io.video_boxes import read_video_boxes
from posewarper.model.network import PoseModel
from posewarper.model.onnx_model import open_model
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Progress, RunResult, silent

PathLike = str | os.PathLike[str]

# Frames come once and in order: what the decoder keeps would only be memory that grows with the video.
_CACHE_BYTES = 32 * 2**20


class _Whereabouts(NamedTuple):
    """Where instances are looked for; see :func:`predict`."""

    boxes: PathLike | None
    labels: Labels | PathLike | None
    detector: str | None
    whole_frame: bool
    detector_weights: PathLike | None
    category: str
    detect_every: int


def predict(
    video: Video | PathLike,
    model: PoseModel | PathLike,
    *,
    boxes: PathLike | None = None,
    labels: Labels | PathLike | None = None,
    detector: str | None = None,
    whole_frame: bool = False,
    detector_weights: PathLike | None = None,
    category: str = "person",
    detect_every: int = 1,
    config: ClipPredictionConfig | None = None,
    device: str = "auto",
    batch: int | None = None,
    log: PathLike | None = None,
    progress: Progress = silent,
) -> RunResult:
    """Predict the poses of all instances of a video, frame after frame, and who is who over time.

    One of ``boxes``, ``labels``, ``detector`` and ``whole_frame`` says where to look.

    Args:
        video: a video file, a folder of frames, an opened video; or ``-`` (standard input), a camera or a
            URL, whose frames come once.
        model: a trained model's file (a checkpoint, an exported .onnx), or a model that is ready for use.
        boxes: a file of boxes, see :func:`posewarper.io.video_boxes.read_video_boxes`; on frames without any
            there is nobody.
        labels: of some frames: tracks begin at the labelled instances and are followed by their own poses
            from there. They only say where to look: poses are predicted on those frames too, and ids count
            anew. Of labels with other keypoints than the model's only the boxes are used.
        detector: of torchvision, by its name, or ``default``.
        whole_frame: look for the one instance in the whole frame, then follow it.
        detector_weights: file; torchvision's own download if left out.
        category: what the detector looks for, as COCO calls it.
        detect_every: frames from one detection to the next; tracks are followed between.
        config: settings; the paper's window and weights if left out.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``, for a model from a file.
        batch: crops at a time; None for what suits the device.
        log: folder for records; a run that finds some of its own there goes on after them.
        progress: is called as ``progress(stage, done, total)``.

    Returns:
        The poses, with timings and notes, but no labels; ``config`` holds also the share of heatmaps that
        were ``reused`` and for held crops the distance of keypoints from exact crops (``held_error``: median
        and 95th percentile, pixels).

    Raises:
        PosewarperError: if the input cannot be used.
        Interrupted: on Ctrl-C; the records are kept.

    Example:
        >>> result = predict("clip.mp4", "model.pt", labels="labels.json")
        >>> result.poses.n_frames
        20
    """
    config = config or ClipPredictionConfig()
    where = _Whereabouts(boxes, labels, detector, whole_frame, detector_weights, category, detect_every)
    network = open_model(model, device) if isinstance(model, str | os.PathLike) else model
    check_aggregation(network, config)
    with _feed(video) as (feed, opened):
        source = _find_source(where, feed, opened, network)
        found = predict_clip(feed, network, source, config=config, log=log, batch=batch, progress=progress)
    none = Labels(network.spec.skeleton, {})
    far = None if found.held_error is None else [round(value, 3) for value in found.held_error]
    facts = {"reused": round(found.reuse, 4), "held_error": far, "frames": found.frames}
    settings: dict[str, Any] = {**config.model_dump(), **facts}
    return RunResult(
        found.poses, none, "predict", {"prediction": found.seconds}, tuple(_notes(found, source)), settings
    )


def _find_source(where: _Whereabouts, feed: FrameFeed, video: Video | None, model: PoseModel) -> BoxSource:
    """Return where to look for instances; ``video`` is None where frames come once.

    Raises:
        ConfigError: unless exactly one source is given.
        LabelsError: if boxes or labels cannot be used.
        ModelError: if the detector cannot be had.
    """
    given = [where.boxes is not None, where.labels is not None, where.detector is not None, where.whole_frame]
    if sum(given) != 1:
        raise ConfigError(
            "where are the instances to be looked for?",
            expected="one of: boxes from a file, labels of some frames, a detector, or the whole frame",
            got="nothing" if not any(given) else "more than one of them",
            mend="give --boxes FILE, --labels FILE, --detector default or --whole-frame",
        )
    if where.boxes is not None:
        return BoxSource(_boxes_of_file(where.boxes, video))
    if where.labels is not None:
        return BoxSource(_boxes_of_labels(where.labels, feed, video, model.spec.skeleton), follows=True)
    if where.detector is None:
        return BoxSource(follows=True, whole_frame=True)
    name = DEFAULT_DETECTOR if where.detector == "default" else where.detector
    detector = load_detector(name, where.detector_weights, model.device)

    def find(image: Image) -> FrameBoxes:
        return FrameBoxes(*detect(detector, image, where.category))

    return BoxSource(detect=find, detect_every=where.detect_every, follows=where.detect_every > 1)


def _boxes_of_file(path: PathLike, video: Video | None) -> Mapping[int, FrameBoxes]:
    found = read_video_boxes(path, n_frames=None if video is None else video.n_frames)
    return {frame: FrameBoxes(own.boxes, own.scores) for frame, own in found.items()}


def _boxes_of_labels(
    given: Labels | PathLike, feed: FrameFeed, video: Video | None, skeleton: Skeleton
) -> Mapping[int, FrameBoxes]:
    """Return the boxes around labels, or those that a file gives, if its keypoints are not the model's."""
    path = None if isinstance(given, Labels) else given
    labels = given if isinstance(given, Labels) else read_labels(given, video=video)
    labels = labels.only_labelled()
    if labels.image_size is not None and labels.image_size != feed.image_size:
        (height, width), (own_height, own_width) = feed.image_size, labels.image_size
        raise LabelsError(
            "the labels were made on frames of another size than the video has",
            path=path,
            expected=f"{width} x {height} pixels (width x height)",
            got=f"{own_width} x {own_height} pixels",
            mend="give labels that were made on this video, or scale them to its size",
        )
    if set(labels.skeleton.names) == set(skeleton.names):
        return boxes_of_labels(labels)
    theirs, ours = (", ".join(names) for names in (labels.skeleton.names, skeleton.names))
    if not all(np.isfinite(track.boxes).all() for track in labels.tracks.values()):
        raise LabelsError(
            "the labels have other keypoints than the model, and not all of them have a box",
            path=path,
            expected=ours,
            got=theirs,
            mend="give labels of the model's keypoints, or boxes around the whole subjects with --boxes",
        )
    text = f"the labels have other keypoints ({theirs}) than the model ({ours})"
    warnings.warn(
        f"{'' if path is None else f'{os.fspath(path)}: '}{text}; only their boxes are used, which may be "
        "smaller than the subject that the model knows",
        PosewarperWarning,
        stacklevel=4,
    )
    return boxes_of_labels(labels, around_keypoints=False)


@contextmanager
def _feed(video: Video | PathLike) -> Iterator[tuple[FrameFeed, Video | None]]:
    with ExitStack() as stack:
        if isinstance(video, Video):
            yield feed_of_video(video), video
        elif is_live(os.fspath(video)):
            live = stack.enter_context(LiveVideo(os.fspath(video)))
            name = "live" if os.fspath(video) == "-" else os.fspath(video)
            yield FrameFeed(lambda first: live.frames(), live.image_size, None, name, {}), None
        else:
            opened = stack.enter_context(open_video(video, cache_bytes=_CACHE_BYTES))
            yield feed_of_video(opened), opened


def _notes(found: ClipPrediction, source: BoxSource) -> list[str]:
    notes, odd = [], []
    beyond = [frame for frame, own in source.known.items() if frame >= found.frames and len(own.boxes)]
    if beyond:
        whose = "frame has" if len(beyond) == 1 else "frames have"
        odd.append(
            f"{len(beyond)} {whose} boxes or labels but did not come (the first: frame {min(beyond)} of "
            f"{found.frames}): check that they belong to this video, which was not cut short"
        )
    if found.held_error is not None:
        median, far = found.held_error
        notes.append(
            f"crops were held: {found.reuse:.0%} of the heatmaps were there already; keypoints lie "
            f"{median:.2f} pixels from those of crops of their own (median; 95 percent at most {far:.2f})"
        )
    if not found.poses.tracks:
        odd.append(
            "nobody was found in this video: check the boxes, and whether the model knows such a scene"
        )
    for text in odd:
        warnings.warn(text, PosewarperWarning, stacklevel=3)
    return notes + odd
