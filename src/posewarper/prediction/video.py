"""The second job: a trained model on a video, or on frames as they come."""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from posewarper.crops import Image
from posewarper.errors import ConfigError, Interrupted, LabelsError, ModelError, PosewarperWarning
from posewarper.evaluation.oks import usual_sigmas
from posewarper.formats.boxes import read_video_boxes
from posewarper.formats.labels import read_labels
from posewarper.model.export import check_warper, open_model
from posewarper.model.heatmap_runner import HeatmapEngine
from posewarper.model.network import PoseModel
from posewarper.options import Settings
from posewarper.prediction.boxes import (
    DEFAULT_DETECTOR,
    NOBODY,
    BoxSource,
    boxes_of_labels,
    detect,
    load_detector,
)
from posewarper.prediction.stream import CropKeeper, FrameBoxes, FramePoses, PoseStream
from posewarper.prediction.tracker import Tracker, single_poses
from posewarper.prediction.windows import WINDOWS, make_window
from posewarper.runs import PoseLog
from posewarper.skeletons import Skeleton
from posewarper.structures import NO_TRACK, Labels, Poses, Progress, RunResult, Track, silent
from posewarper.video.source import LiveVideo, Video, is_live, open_video
from posewarper.video.track_crops import instance_boxes

_KEPT_EVERY = 50  # frames; so many are done again by a run that goes on
_CHUNK = 8  # frames together, where boxes do not depend on poses
# Distances are counted by range, 2 percent wide, so that what is kept does not grow with the video.
_ERROR_EDGES = np.geomspace(1e-3, 1e4, 701)
_AUDITED_EVERY = 61  # frames: held crops are compared with exact ones on so few that it costs little


class ClipPredictionConfig(Settings):
    """Settings of the inference on one's own videos."""

    aggregate: Literal["paper", "none"] = "paper"
    window: int = Field(default=2, ge=0, description="frames on either side that are summed")
    causal: bool = Field(default=False, description="earlier frames only, for live use")
    crops: Literal["exact", "held"] = "exact"
    hold: float = Field(
        default=0.08, ge=0, le=0.5, description="share of its size by which a held crop may be off"
    )
    flip: bool = Field(default=False, description="also look at each crop's mirror image")
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    nms_oks: float | None = Field(
        default=0.9, ge=0, le=1, description="poses more similar to a better one are left out"
    )
    patience: int = Field(default=30, ge=0, description="frames for which a lost track is waited for")
    start_score: float = Field(default=0.3, ge=0, le=1, description="mean keypoint score that begins a track")


@dataclass(frozen=True)
class ClipPrediction:
    """What a run over one video came to.

    Args:
        poses: the tracks.
        frames: number of frames that were looked at.
        reuse: share of the heatmaps that did not have to be computed again; NaN if none was asked for.
        held_error: (median, 95th percentile) distance in pixels between keypoints of held crops and of crops
            of their own, where both were looked at; None for exact crops.
        seconds: of work in this process.
    """

    poses: Poses
    frames: int
    reuse: float
    held_error: tuple[float, float] | None
    seconds: float


@dataclass(frozen=True)
class FrameFeed:
    """The frames of a video in their order.

    Args:
        read: first index -> iterator of (index, image), indices rising by 1.
        image_size: (height, width).
        n_frames: their number, None where that is not known (a camera, a pipe).
        name: of the video.
        frame_names: index -> file name, of a folder of frames.
    """

    read: Callable[[int], Iterable[tuple[int, Image]]]
    image_size: tuple[int, int]
    n_frames: int | None
    name: str
    frame_names: dict[int, str]


def feed_of_video(video: Video) -> FrameFeed:
    """Return the frames of an opened video; another thread reads it while it is predicted."""
    names = dict(enumerate(video.frame_names))
    return FrameFeed(
        lambda first: video.frames(range(first, video.n_frames)),
        video.image_size,
        video.n_frames,
        video.path,
        names,
    )


def predict_clip(
    feed: FrameFeed,
    model: PoseModel,
    source: BoxSource,
    *,
    config: ClipPredictionConfig | None = None,
    log: str | os.PathLike[str] | None = None,
    batch: int | None = None,
    progress: Progress = silent,
) -> ClipPrediction:
    """Predict the poses of all instances on every frame, and who is who over time.

    Args:
        feed: the frames.
        model: in evaluation mode, on its device.
        source: where instances are looked for.
        config: settings.
        log: folder of the records; a run that finds one goes on after it. None keeps none.
        batch: crops at a time; None for what suits the device.
        progress: is told before the records are opened, when nothing is written yet and the input is known
            to be usable, and after every frame.

    Raises:
        OutputError: if the records that are there are damaged, or another process is writing some.
        ModelError: if neighbours are to be warped and the warp head was never trained.
        Interrupted: on Ctrl-C; the records are kept.
    """
    config = config or ClipPredictionConfig()
    check_aggregation(model, config)
    begun = time.monotonic()
    progress("poses", 0, feed.n_frames or 0)
    temporary = tempfile.TemporaryDirectory() if log is None else nullcontext(log)
    with temporary as folder, PoseLog(folder) as records:
        work = _Work(feed, model, source, config, records, batch)
        try:
            for done in work.run():
                progress("poses", done, feed.n_frames or 0)
        except KeyboardInterrupt:
            where = (
                ""
                if log is None
                else f"; {work.done} frames are kept in {os.fspath(log)}, the same command goes on"
            )
            if feed.n_frames is not None:
                raise Interrupted(f"stopped after {work.done} frames{where}") from None
            # Of a camera or a pipe this is the usual end.
            warnings.warn(f"stopped after {work.done} frames", PosewarperWarning, stacklevel=2)
        poses = collect_poses(records, model.spec.skeleton, feed, work.done)
        return ClipPrediction(poses, work.done, work.reuse, work.held_error, time.monotonic() - begun)


def check_aggregation(model: PoseModel, config: ClipPredictionConfig) -> None:
    """Refuse to warp by a head that was never trained, or is missing from an exported model.

    Raises:
        ModelError: if that is asked for.
    """
    if config.aggregate == "none" or config.window == 0:
        return
    if "warp" not in model.spec.trained:
        raise ModelError(
            "the warp head of this model was never trained: neighbours would not be moved",
            expected="a model with a trained warper",
            got="a pose network alone",
            fix="train its warper, or predict each frame alone with --aggregate none",
        )
    check_warper(model)


class _Work:
    """One run: the stream, the tracks and the records."""

    def __init__(
        self,
        feed: FrameFeed,
        model: PoseModel,
        source: BoxSource,
        config: ClipPredictionConfig,
        records: PoseLog,
        batch: int | None,
    ) -> None:
        self.feed, self.source, self.records, self.config = feed, source, records, config
        spec = model.spec
        self.sigmas = np.array(usual_sigmas(spec.skeleton))
        self.tracker = Tracker(self.sigmas, patience=config.patience, start_score=config.start_score)
        alone = config.aggregate == "none" or config.window == 0
        self.stream = PoseStream(
            HeatmapEngine(
                model,
                precision=config.precision,
                flip=config.flip,
                batch=batch,
            ),
            WINDOWS["none"] if alone else make_window(config.window, causal=config.causal),
            CropKeeper(config.crops, spec.crop_size[1] / spec.crop_size[0], config.hold),
            self._find_boxes,
            chunk=1 if source.follows or feed.n_frames is None else _CHUNK,
            audit=_AUDITED_EVERY if config.crops == "held" else 0,
        )
        self.done = 0
        self._errors = np.zeros(len(_ERROR_EDGES) + 1, np.int64)  # how many lie in each range
        self._before = (0, 0)  # heatmaps asked for and computed before this process
        if records.state is not None:
            self._take_up(records.state)

    def _take_up(self, state: Any) -> None:
        self.done = state["done"]
        if [record["frame"] for record in self.records.records()] != list(range(self.done)):
            raise self.records.damaged(f"not one record of each of the first {self.done} frames, in order")
        self.tracker.load_state_dict(state["tracker"])
        self.stream.keeper.load_state_dict(state["crops"])
        self._before, self._errors = tuple(state["heatmaps"]), np.array(state["errors"], np.int64)

    def _state(self) -> dict[str, Any]:
        return {
            "done": self.done,
            "tracker": self.tracker.state_dict(),
            "crops": self.stream.keeper.state_dict(),
            "heatmaps": [self._asked, self._computed],
            "errors": self._errors.tolist(),
        }

    @property
    def _asked(self) -> int:
        return self._before[0] + self.stream.counts.asked

    @property
    def _computed(self) -> int:
        return self._before[1] + self.stream.counts.computed

    @property
    def reuse(self) -> float:
        return 1 - self._computed / self._asked if self._asked else float("nan")

    @property
    def held_error(self) -> tuple[float, float] | None:
        if not self._errors.any():
            return None
        shares = np.cumsum(self._errors) / self._errors.sum()
        median, far = _ERROR_EDGES[np.minimum(np.searchsorted(shares, [0.5, 0.95]), len(_ERROR_EDGES) - 1)]
        return float(median), float(far)

    def run(self) -> Iterator[int]:
        """Write the records of the frames that are left; yields how many are done after each."""
        kept, first = self.done, max(self.done - self.stream.looks_back, 0)
        with closing(_ahead(self.feed.read(first))) as frames:
            for poses in self.stream.run(frames, self.done):
                self.records.append(self._record(poses))
                self.done = poses.frame + 1
                # Not where crops of later frames are chosen already, which the state would hold.
                if self.done >= kept + _KEPT_EVERY and self.stream.looked_at < self.done:
                    self.records.keep(self._state())
                    kept = self.done
                yield self.done
        self.records.keep(self._state())

    def _find_boxes(self, frame: int, image: Image, new_scene: bool) -> FrameBoxes:
        if new_scene:
            self.tracker.forget()
        found = self.source.find(frame, image, new_scene, self.tracker)
        if self.source.whole_frame and not len(found.boxes):
            return self._look_everywhere(image)
        return found

    def _look_everywhere(self, image: Image) -> FrameBoxes:
        """Return a box around what the network takes the one instance for, which it sees better closer by."""
        height, width = image.shape[:2]
        keypoints, scores = self.stream.glance(image, np.array([-0.5, -0.5, width, height]))
        sure = scores >= max(self.tracker.keypoint_score, 0.5 * scores.max())
        box = instance_boxes(np.where(sure[:, None], keypoints, np.nan)[None])
        return FrameBoxes(box, np.ones(1)) if np.isfinite(box).all() else NOBODY

    def _record(self, poses: FramePoses) -> dict[str, Any]:
        stays = np.ones(len(poses.boxes), bool)
        quality = poses.keypoint_scores.mean(1) if len(stays) else np.zeros(0)
        if self.config.nms_oks is not None and len(stays) > 1:
            stays = single_poses(
                poses.keypoints,
                poses.keypoint_scores,
                poses.boxes,
                quality,
                self.sigmas,
                threshold=self.config.nms_oks,
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


def _ahead(frames: Iterable[tuple[int, Image]]) -> Generator[tuple[int, Image]]:
    """Yield what another thread decodes meanwhile."""
    source = iter(frames)
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, source, None)
        while (frame := coming.result()) is not None:
            coming = pool.submit(next, source, None)
            yield frame


def collect_poses(records: PoseLog, skeleton: Skeleton, feed: FrameFeed, n_frames: int) -> Poses:
    """Return the poses of all records of a run."""
    frames: dict[int, list[int]] = {}
    keypoints: dict[int, list[Any]] = {}
    scores: dict[int, list[Any]] = {}
    for record in records.records():
        for i, points, own in zip(record["tracks"], record["keypoints"], record["scores"], strict=True):
            frames.setdefault(i, []).append(record["frame"])
            keypoints.setdefault(i, []).append(np.array(points))
            scores.setdefault(i, []).append(np.array(own))
    tracks = {
        i: Track(np.array(own), np.stack(keypoints[i]), keypoint_scores=np.stack(scores[i]))
        for i, own in frames.items()
    }
    return Poses(
        skeleton,
        tracks,
        feed.image_size,
        feed.n_frames or n_frames,
        video=Path(feed.name).name,
        frame_names=feed.frame_names,
    )


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
        boxes: a file of boxes, see :func:`posewarper.formats.boxes.read_video_boxes`; on frames without any
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
            fix="give --boxes FILE, --labels FILE, --detector default or --whole-frame",
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
            fix="give labels that were made on this video, or scale them to its size",
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
            fix="give labels of the model's keypoints, or boxes around the whole subjects with --boxes",
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
