"""Predict the poses of a video, or of frames as they come, with a trained model."""

from __future__ import annotations

import itertools
import os
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from posewarper.crops import Image
from posewarper.errors import ConfigError, Interrupted, LabelsError, PosewarperWarning, wrong_type
from posewarper.evaluation.oks import usual_sigmas
from posewarper.formats.boxes import read_video_boxes
from posewarper.formats.labels import check_image_size, given_labels, labels_on, read_labels
from posewarper.model.export import open_model
from posewarper.model.heatmap_runner import HeatmapEngine
from posewarper.model.network import PoseModel
from posewarper.options import ClipPredictionConfig
from posewarper.prediction.boxes import (
    DEFAULT_DETECTOR,
    BoxSource,
    boxes_of_arrays,
    boxes_of_labels,
    detect,
    load_detector,
)
from posewarper.prediction.search import find_instance
from posewarper.prediction.stream import CropKeeper, FramePoses, PoseStream
from posewarper.prediction.tracker import Tracker, single_poses
from posewarper.prediction.windows import WINDOWS, Window, check_window, make_window
from posewarper.runs import RecordLog
from posewarper.skeletons import Skeleton
from posewarper.structures import NO_TRACK, Floats, Labels, Poses, Progress, RunResult, Track, silent
from posewarper.video.source import (
    Frames,
    LiveVideo,
    Openable,
    Video,
    ahead,
    check_span,
    is_live,
    open_video,
    refuse_part_of_live,
)

PathLike = str | os.PathLike[str]

# Frames come once and in order: what the decoder keeps would only be memory that grows with the video.
_CACHE_BYTES = 32 * 2**20
_NO_HEAD = (
    "the warp head of this model was never trained: each frame is predicted by itself (--aggregate none)"
)
_KEPT_EVERY = 50  # frames; a run that resumes does at most so many again
_CHUNK = 8  # frames together, where boxes do not depend on poses
# Distances are counted by range, 2 percent wide, so that what is kept does not grow with the video.
_ERROR_EDGES = np.geomspace(1e-3, 1e4, 701)
_SEARCHED_EVERY = 10  # frames: a search of the frame for somebody small takes as long as a hundred poses
_AUDITED_EVERY = 61  # frames: held crops are compared with exact ones on so few that it costs little


def predict(
    video: Video | Openable,
    model: PoseModel | PathLike,
    *,
    boxes: PathLike | Mapping[int, ArrayLike] | Sequence[ArrayLike] | Floats | None = None,
    labels: Labels | Poses | PathLike | None = None,
    detector: str | None = None,
    whole_frame: bool = False,
    detector_weights: PathLike | None = None,
    category: str = "person",
    detect_every: int = 1,
    span: range | None = None,
    config: ClipPredictionConfig | None = None,
    device: str = "auto",
    batch: int | None = None,
    log: PathLike | None = None,
    progress: Progress = silent,
) -> RunResult:
    """Predict the poses of all instances of a video, frame after frame, and who is who over time.

    One of ``boxes``, ``labels``, ``detector`` and ``whole_frame`` says where to look.

    Args:
        video: a video file, a folder of frames, an array of frames (F, H, W, 3) uint8 RGB, an opened video;
            or ``-`` (standard input), a camera or a URL, whose frames come once.
        model: a trained model's file (a checkpoint, an exported .onnx), or a model that is ready for use.
        boxes: a file of boxes, see :func:`posewarper.formats.boxes.read_video_boxes`; or the boxes themselves
            in pixels: frame index -> (n, 4) xywh, or a list with the boxes of every frame, (n, 4) or (4,). On
            frames without any there is nobody.
        labels: of some frames: tracks begin at the labelled instances and are followed by their own poses
            from there. They only say where to look: poses are predicted on those frames too, and ids count
            anew. Of labels with other keypoints than the model's only the boxes are used.
        detector: of torchvision, by its name, or ``default``.
        whole_frame: look for the one instance in the whole frame, then follow it.
        detector_weights: file; torchvision's own download if left out.
        category: what the detector looks for, as COCO calls it.
        detect_every: frames from one detection to the next; tracks are followed between.
        span: predict these frames alone, as if the video had no others, with the labels on them; not of a
            pipe, a camera or a URL.
        config: settings; the paper's window and weights if left out.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``, for a model from a file.
        batch: crops at a time; None for what suits the device.
        log: folder for records; a run that finds some of its own there resumes after them.
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
    network = open_model(model, device) if isinstance(model, str | os.PathLike) else model
    if not hasattr(network, "spec"):
        raise wrong_type("the model", model, "a model's file, or what fit and load_model return")
    falls_back = config.aggregate != "none" and config.window > 0 and "warp" not in network.spec.trained
    if falls_back:
        config = config.model_copy(update={"aggregate": "none"})
        warnings.warn(_NO_HEAD, PosewarperWarning, stacklevel=2)
    check_window(network, _window(config))
    given = [boxes is not None, labels is not None, detector is not None, whole_frame]
    if sum(given) != 1:
        raise ConfigError(
            "exactly one option must say where to look for instances",
            expected="boxes from a file, labels of some frames, a detector, or the whole frame",
            got="nothing" if not any(given) else "more than one of them",
            fix="give --boxes FILE, --labels FILE, --detector default or --whole-frame",
        )
    with _opened(video, span) as frames:
        if boxes is not None:
            if isinstance(boxes, str | os.PathLike):
                found = read_video_boxes(boxes, n_frames=frames.n_frames)
                source = BoxSource({n: own.boxes for n, own in found.items()})
            else:
                source = BoxSource(boxes_of_arrays(boxes, frames.n_frames))
        elif labels is not None:
            source = BoxSource(_boxes_of(labels, frames, network.spec.skeleton, span), follows=True)
        elif detector is None:
            source = BoxSource(follows=True, whole_frame=True)
        else:
            name = DEFAULT_DETECTOR if detector == "default" else detector
            finder = load_detector(name, detector_weights, network.device)
            source = BoxSource(
                detect=lambda image: detect(finder, image, category)[0],
                detect_every=detect_every,
                first=0 if span is None else span.start,
                follows=detect_every > 1,
            )
        how: dict[str, Any] = {"span": span, "config": config, "log": log, "batch": batch}
        result = predict_clip(frames, network, source, **how, progress=progress)
        return replace(result, notes=(_NO_HEAD, *result.notes)) if falls_back else result


def predict_clip(
    frames: Frames,
    model: PoseModel,
    source: BoxSource,
    *,
    span: range | None = None,
    config: ClipPredictionConfig | None = None,
    log: PathLike | None = None,
    batch: int | None = None,
    progress: Progress = silent,
) -> RunResult:
    """Predict a video that is open, by a model that is ready, with boxes from a source; see :func:`predict`.

    ``progress`` is told before the records are opened, when nothing is written yet and the input is known to
    be usable, and after every frame.

    Raises:
        OutputError: if the records that are there are damaged, or another process is writing some.
        ModelError: if neighbours are to be warped and the warp head was never trained.
        Interrupted: on Ctrl-C; the records are kept.
    """
    config = config or ClipPredictionConfig()
    check_window(model, _window(config))
    begun = time.monotonic()
    n_frames = frames.n_frames if span is None else len(span)
    progress("poses", 0, n_frames or 0)
    temporary = tempfile.TemporaryDirectory() if log is None else nullcontext(log)
    with temporary as folder, RecordLog(folder) as records:
        run = _Run(frames, model, source, span, config, records, batch)
        try:
            for done in run.work():
                progress("poses", done, n_frames or 0)
        except KeyboardInterrupt:
            where = (
                f"; {run.done} frames are kept in {os.fspath(log)}, the same command goes on" if log else ""
            )
            if frames.n_frames is not None:
                raise Interrupted(f"stopped after {run.done} frames{where}") from None
            # Of a camera or a pipe this is the usual end.
            warnings.warn(f"stopped after {run.done} frames", PosewarperWarning, stacklevel=2)
        poses = _collect_poses(records, model.spec.skeleton, frames, run.done)
    reused, error = run.reused, run.held_error
    return RunResult(
        poses,
        Labels(model.spec.skeleton, {}),
        "predict",
        {"prediction": time.monotonic() - begun},
        _notes(poses, source, reused, error, model.spec.stopped),
        {
            **config.model_dump(),
            "reused": round(reused, 4),
            "held_error": None if error is None else [round(value, 3) for value in error],
            "frames": run.done,
        },
    )


def _window(config: ClipPredictionConfig) -> Window:
    if config.aggregate == "none":
        return WINDOWS["none"]
    return make_window(config.window, causal=config.causal)


class _Run:
    """One run over a video, or over a span of its frames: the stream, the tracks and the records."""

    def __init__(
        self,
        frames: Frames,
        model: PoseModel,
        source: BoxSource,
        span: range | None,
        config: ClipPredictionConfig,
        records: RecordLog,
        batch: int | None,
    ) -> None:
        self.frames, self.source, self.records, self.config = frames, source, records, config
        # There is no stop where frames come until they end.
        self.first, self.stop = (0, frames.n_frames) if span is None else (span.start, span.stop)
        spec = model.spec
        self.sigmas = np.array(usual_sigmas(spec.skeleton))
        self.tracker = Tracker(self.sigmas, config)
        held = config.crops == "held"
        self.stream = PoseStream(
            HeatmapEngine(model, precision=config.precision, flip=config.flip, batch=batch),
            _window(config),
            CropKeeper(spec.crop_size[1] / spec.crop_size[0], config.hold if held else None),
            self._find_boxes,
            chunk=1 if source.follows or frames.n_frames is None else _CHUNK,
            audit=_AUDITED_EVERY if held else 0,
            first=self.first,
        )
        self.done = 0  # frames, from the first on
        self._errors = np.zeros(len(_ERROR_EDGES) + 1, np.int64)  # how many lie in each range
        if records.state is not None:
            self._resume(records.state)

    def _resume(self, state: Any) -> None:
        self.done = state["done"]
        done = range(self.first, self.first + self.done)
        if [record["frame"] for record in self.records.records()] != list(done):
            raise self.records.damaged(f"not one record of each of the first {self.done} frames, in order")
        self.tracker.load_state_dict(state["tracker"])
        self.stream.keeper.load_state_dict(state["crops"])
        self.stream.asked, self.stream.computed = state["heatmaps"]
        self._errors = np.array(state["errors"], np.int64)

    def _state(self) -> dict[str, Any]:
        return {
            "done": self.done,
            "tracker": self.tracker.state_dict(),
            "crops": self.stream.keeper.state_dict(),
            "heatmaps": [self.stream.asked, self.stream.computed],
            "errors": self._errors.tolist(),
        }

    @property
    def reused(self) -> float:
        """Share of the heatmaps that were there already; NaN if the run needed none."""
        return 1 - self.stream.computed / self.stream.asked if self.stream.asked else float("nan")

    @property
    def held_error(self) -> tuple[float, float] | None:
        """Median and 95th percentile of how far held crops are off, in pixels; None where all are exact."""
        if not self._errors.any():
            return None
        shares = np.cumsum(self._errors) / self._errors.sum()
        median, far = _ERROR_EDGES[np.minimum(np.searchsorted(shares, [0.5, 0.95]), len(_ERROR_EDGES) - 1)]
        return float(median), float(far)

    def work(self) -> Iterator[int]:
        """Write the records of the frames that are left; yields how many are done after each."""
        kept, start = self.done, self.first + self.done
        first = max(start - self.stream.looks_back, self.first)
        indices = itertools.count(first) if self.stop is None else range(first, self.stop)
        with closing(ahead(self.frames.frames(indices))) as frames:
            for poses in self.stream.run(frames, start):
                self.records.append(self._record(poses))
                self.done = poses.frame + 1 - self.first
                # Not where crops of later frames are chosen already, which the state would hold.
                if self.done >= kept + _KEPT_EVERY and self.stream.looked_at <= poses.frame:
                    self.records.keep(self._state())
                    kept = self.done
                yield self.done
        self.records.keep(self._state())

    def _find_boxes(self, frame: int, image: Image, new_scene: bool) -> Floats:
        if new_scene:
            self.tracker.forget()
        found = self.source.find(frame, image, new_scene, self.tracker)
        if len(found) or not self.source.whole_frame:
            return found
        height, width = self.stream.engine.spec.crop_size
        return find_instance(
            partial(self.stream.glance, image),
            image.shape[:2],
            width / height,
            keypoint_score=self.config.keypoint_score,
            thorough=new_scene or (frame - self.first) % _SEARCHED_EVERY == 0,
        )

    def _record(self, poses: FramePoses) -> dict[str, Any]:
        stays = np.ones(len(poses.boxes), bool)
        quality = poses.keypoint_scores.mean(1) if len(stays) else np.zeros(0)
        if self.config.nms_oks is not None and len(stays) > 1:
            stays = single_poses(
                *(poses.keypoints, poses.keypoint_scores, poses.boxes, quality, self.sigmas),
                threshold=self.config.nms_oks,
                keypoint_threshold=self.config.keypoint_score,
            )
        if poses.held_error is not None:
            own = poses.held_error[stays]
            places = np.searchsorted(_ERROR_EDGES, own[np.isfinite(own)])
            self._errors += np.bincount(places, minlength=len(self._errors))
        keypoints, scores = poses.keypoints[stays], poses.keypoint_scores[stays]
        ids = self.tracker.update(poses.frame, keypoints, scores, poses.boxes[stays], quality[stays])
        kept = ids != NO_TRACK
        return {
            "frame": poses.frame,
            "tracks": ids[kept].tolist(),
            "keypoints": np.round(keypoints[kept], 3).tolist(),
            "scores": np.round(np.clip(scores[kept], 0, 1), 4).tolist(),
        }


def _collect_poses(records: RecordLog, skeleton: Skeleton, frames: Frames, n_frames: int) -> Poses:
    """Return the poses of all records of a run."""
    rows: dict[int, list[tuple[int, Any, Any]]] = {}
    for record in records.records():
        for i, points, scores in zip(record["tracks"], record["keypoints"], record["scores"], strict=True):
            rows.setdefault(i, []).append((record["frame"], np.array(points), np.array(scores)))
    tracks = {}
    for i, own in rows.items():
        numbers, points, scores = (np.stack(column) for column in zip(*own, strict=True))
        tracks[i] = Track(numbers, points, keypoint_scores=scores)
    return Poses(
        skeleton,
        tracks,
        frames.image_size,
        frames.n_frames or n_frames,
        video=frames.name,
        frame_names=dict(enumerate(frames.frame_names)),
    )


@contextmanager
def _opened(video: Video | Openable, span: range | None) -> Iterator[Frames]:
    """Open what is not yet open, and check that it has the frames of a span."""
    if isinstance(video, str) and is_live(video):
        if span is not None:
            refuse_part_of_live(video)
        with LiveVideo(video) as opened:
            yield opened
        return
    # Who gave an opened video closes it.
    is_open = isinstance(video, Video)
    with nullcontext(video) if is_open else open_video(video, cache_bytes=_CACHE_BYTES) as opened:
        if span is not None:
            check_span(span, opened)
        yield opened


def _boxes_of(
    given: Labels | Poses | PathLike, frames: Frames, skeleton: Skeleton, span: range | None
) -> Mapping[int, Floats]:
    """Return the boxes around labels, or those that a file gives, if its keypoints are not the model's."""
    video = frames if isinstance(frames, Video) else None
    path = given if isinstance(given, str | os.PathLike) else None
    labels = given_labels(given) if path is None else read_labels(path, video=video)
    labels = labels.only_labelled()
    check_image_size(labels.image_size, frames.image_size, path=path)
    if span is not None:
        labels = labels_on(span, labels)
    if set(labels.skeleton.names) == set(skeleton.names):
        return boxes_of_labels(labels)
    theirs, ours = ", ".join(labels.skeleton.names), ", ".join(skeleton.names)
    if not all(np.isfinite(track.boxes).all() for track in labels.tracks.values()):
        raise LabelsError(
            "the labels have other keypoints than the model, and not all of them have a box",
            path=path,
            expected=ours,
            got=theirs,
            fix="give labels of the model's keypoints, or boxes around the whole subjects with --boxes",
        )
    text = "" if path is None else f"{os.fspath(path)}: "
    text += f"the labels have other keypoints ({theirs}) than the model ({ours}); only their boxes are used, "
    text += "which may be smaller than the subject that the model knows"
    warnings.warn(text, PosewarperWarning, stacklevel=3)
    return boxes_of_labels(labels, around_keypoints=False)


def _notes(
    poses: Poses,
    source: BoxSource,
    reused: float,
    error: tuple[float, float] | None,
    stopped: str,
) -> tuple[str, ...]:
    notes, odd, n_frames = [], [], poses.n_frames
    if stopped:
        odd.append(
            f"the training of this model was stopped at {stopped}; the command that trained it resumes with "
            "--resume"
        )
    beyond = [frame for frame, own in source.known.items() if frame >= n_frames and len(own)]
    if beyond:
        whose = "frame has" if len(beyond) == 1 else "frames have"
        odd.append(
            f"{len(beyond)} {whose} boxes or labels but did not come (the first: frame {min(beyond)} of "
            f"{n_frames}): check that they belong to this video, which was not cut short"
        )
    if error is not None:
        notes.append(
            f"crops were held: {reused:.0%} of the heatmaps were there already; keypoints lie {error[0]:.2f} "
            f"pixels from those of crops of their own (median; 95 percent at most {error[1]:.2f})"
        )
    if not poses.tracks:
        odd.append(
            "nobody was found in this video: check the boxes, and whether the model knows such a scene"
        )
    for text in odd:
        warnings.warn(text, PosewarperWarning, stacklevel=4)
    return tuple(notes + odd)
