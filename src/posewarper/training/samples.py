"""Frames of video files as image files: what training reads at random is decoded once, in order."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from posewarper.crops import Image
from posewarper.errors import ConfigError, LabelsError, PosewarperWarning
from posewarper.files import replacing
from posewarper.formats.labels import read_annotations, read_labels
from posewarper.geometry import paper_center_scale
from posewarper.paper.carrying import MIN_SCORE
from posewarper.posetrack.dataset import Dataset, DatasetVideo
from posewarper.posetrack.samples import samples_from_labels, support_numbers
from posewarper.posetrack.selection import (
    draw_frames,
    draw_videos,
    find_frames,
    find_selection,
    read_selection,
)
from posewarper.posetrack.tables import read_tables
from posewarper.skeletons import POSETRACK, Skeleton
from posewarper.structures import Floats, InstanceTable, Ints, Labels, Progress, Track, is_there, silent
from posewarper.video.images import FrameCache, read_image
from posewarper.video.source import Video, open_video
from posewarper.video.track_crops import instance_boxes, without_strays

CACHE_BYTES = 256 * 2**20
"""Most bytes of decoded frames of video files that one process keeps."""

_OPEN_VIDEOS = 8
# What a video keeps itself: a few frames around the last one read, since neighbours are asked for next.
_OWN_CACHE_BYTES = 32 * 2**20
_LEFT_BY_PARENTS: list[object] = []


@dataclass(frozen=True)
class VideoFrames:
    """How the frames of one video are read; plain values that travel to other processes.

    Args:
        path: the folder of ``files``; without files a video file or folder that ``open_video`` opens.
        first: number of the first frame.
        n_frames: frames of the video, with those that are missing.
        files: name of each frame's file, for images that are not turned as EXIF says (PoseTrack's); empty
            for what ``open_video`` opens.
        missing: numbers of frames without a file.
    """

    path: str
    first: int
    n_frames: int
    files: tuple[str, ...] = ()
    missing: frozenset[int] = frozenset()

    def exists(self, number: int) -> bool:
        """Whether there is a frame of this number."""
        return self.first <= number < self.first + self.n_frames and number not in self.missing

    def neighbour(self, number: int, offset: int) -> int:
        """Return the frame that is read ``offset`` frames from ``number``, by the original's rules."""
        return support_numbers(
            number, (offset,), first=self.first, n_frames=self.n_frames, exists=self.exists
        )[0]


class FrameReader:
    """Reads frames of several videos.

    Image files are read anew each time: there are too many for a cache to hit. Of video files the last few
    are kept open and the frames read last are kept decoded, by each process for itself.

    Args:
        videos: how each is read.
        cache_bytes: most bytes of decoded frames of video files to keep.
    """

    def __init__(self, videos: Sequence[VideoFrames], *, cache_bytes: int = CACHE_BYTES) -> None:
        self._videos = tuple(videos)
        self._cache_bytes = cache_bytes
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._opened: OrderedDict[int, Video] = OrderedDict()
        self._cache: FrameCache[Image] = FrameCache(self._cache_bytes)

    def __getstate__(self) -> dict[str, Any]:
        return {"_videos": self._videos, "_cache_bytes": self._cache_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def read(self, video: int, number: int) -> Image:
        """Return a frame (H, W, 3) uint8 RGB, not to be drawn upon.

        Args:
            video: position among the videos.
            number: of the frame, from the video's ``first`` on.

        Raises:
            VideoError: if it cannot be read.
        """
        frames = self._videos[video]
        place = number - frames.first
        if frames.files:
            return read_image(Path(frames.path, frames.files[place]), upright=False)
        if self._process != os.getpid():
            # After a fork a file opened by the parent would be read at the parent's place. It is not closed
            # either: that would wait for its decoder's threads, which stayed behind.
            _LEFT_BY_PARENTS.append(self._opened)
            self._reset()
        key = video << 32 | place
        image = self._cache.get(key)
        if image is None:
            image = self._open(video)[place]
            self._cache.put(key, image, image.nbytes)
        return image

    def _open(self, video: int) -> Video:
        opened = self._opened.pop(video, None)
        if opened is None:
            opened = open_video(self._videos[video].path, cache_bytes=_OWN_CACHE_BYTES)
        self._opened[video] = opened
        if len(self._opened) > _OPEN_VIDEOS:
            self._opened.popitem(last=False)[1].close()
        return opened


_PER_SAMPLE = ("video_of", "numbers", "keypoints", "centers", "scales", "is_pseudo")


@dataclass(frozen=True)
class TrainingSamples:
    """All instances that are learned from, n in number; plain values that travel to other processes.

    Args:
        videos: how the frames of each video are read.
        video_of: (n,) the position of the sample's video.
        numbers: (n,) the number of its frame.
        keypoints: (n, K, 2) xy in pixels of the frame, NaN where there is none.
        centers: (n, 2) float32 xy of the crop's centre in pixels.
        scales: (n, 2) float32 width and height of the crop in units of 200 pixels, padding included.
        is_pseudo: (n,) whether the keypoints were propagated rather than labelled.
        skeleton: the K keypoints.
        source: in words, which labels these are.
    """

    videos: tuple[VideoFrames, ...]
    video_of: Ints
    numbers: Ints
    keypoints: Floats
    centers: NDArray[np.float32]
    scales: NDArray[np.float32]
    is_pseudo: NDArray[np.bool_]
    skeleton: Skeleton
    source: str = ""

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def n_frames(self) -> int:
        """Number of frames in which there is a sample that is not propagated."""
        real = ~self.is_pseudo
        return len(set(zip(self.video_of[real].tolist(), self.numbers[real].tolist(), strict=True)))

    def take(self, samples: NDArray[np.bool_] | Ints) -> TrainingSamples:
        """Return some of the samples, (n,) booleans or positions; all videos stay."""
        return replace(self, **{name: getattr(self, name)[samples] for name in _PER_SAMPLE})


def join_samples(parts: Sequence[TrainingSamples]) -> TrainingSamples:
    """Return the samples of all parts; what is not of a single sample is the last part's."""
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _PER_SAMPLE}
    return replace(parts[-1], **columns)


def not_empty(samples: TrainingSamples, path: str | os.PathLike[str]) -> TrainingSamples:
    """Return the samples.

    Raises:
        LabelsError: if there are none; ``path`` says where they should be.
    """
    if not len(samples):
        raise LabelsError(
            "there is nothing to learn from",
            path=path,
            expected="at least one labelled instance with a keypoint in the image",
            fix="check the split, the subset and the labels",
        )
    return samples


PathLike = str | os.PathLike[str]


def samples_of_dataset(
    dataset: Dataset,
    split: str,
    aspect_ratio: float,
    *,
    selection: PathLike | None = None,
    videos: int | None = None,
    labelled_frames: int | None = None,
    subset_seed: int = 0,
    pseudo_labels: PathLike | None = None,
    min_score: float = MIN_SCORE,
) -> TrainingSamples:
    """Return the samples of a split of a prepared dataset, or of some of its frames.

    Without ``selection``, ``videos`` and ``labelled_frames`` these are all labelled instances. With seed 0
    the original's file for V and N is taken where the dataset comes with it; any other seed draws.

    Args:
        dataset: made by ``posewarper prepare``.
        split: "train" or "val".
        aspect_ratio: width divided by height of the crop.
        selection: the original's file of labelled frames and their instances, its stem or path.
        videos: V, learn from this many videos; None for all.
        labelled_frames: N, learn from this many labelled frames of each video; None for all.
        subset_seed: of the draw of V and N.
        pseudo_labels: file or folder of propagated poses (PoseTrack18 JSON). Their instances join on frames
            that carry no label of the selection.
        min_score: propagated keypoints that score no more are left out.

    Raises:
        LabelsError: if a file is missing or of another kind, it is of other videos, or there are no samples.
        ConfigError: if both a file and numbers are given, or there are fewer videos.

    Warns:
        PosewarperWarning: if some labels are on frames that are not there; they are left out.
    """
    of_split = dataset.require_split(split)
    drawing = videos is not None or labelled_frames is not None
    if selection is not None and drawing:
        raise ConfigError(
            "a selection of labelled frames says already how many videos and frames there are",
            got=f"selection {os.fspath(selection)}, {videos} videos, {labelled_frames} labelled frames",
            fix="leave out either the selection or the numbers",
        )
    if drawing and subset_seed == 0:
        selection = find_selection(dataset, split, videos, labelled_frames)
    if selection is not None:
        samples = _selected(dataset, of_split, aspect_ratio, selection)
    else:
        samples = _labelled(dataset, of_split, aspect_ratio)
    samples = _with_files(samples, f"{dataset.root}: {samples.source}")
    if selection is None and drawing:
        samples = _drawn(samples, of_split, videos, labelled_frames, subset_seed)
    if pseudo_labels is not None:
        propagated = _propagated(dataset, of_split, aspect_ratio, pseudo_labels, samples, min_score)
        samples = join_samples([samples, _with_files(propagated, os.fspath(pseudo_labels))])
    return _without_unused_videos(not_empty(samples, dataset.root))


def samples_of_clips(
    clips: Sequence[tuple[PathLike, PathLike]],
    aspect_ratio: float,
    *,
    pseudo_labels: Sequence[PathLike | None] = (),
    min_score: float = MIN_SCORE,
) -> TrainingSamples:
    """Return the samples of one's own videos.

    A crop lies around the labelled keypoints, or the box given where there are fewer than two of them. That
    of a propagated pose is the box given, as some of its keypoints may be missing.

    Args:
        clips: pairs of a video (file or folder of frames) and its label file, of one skeleton.
        aspect_ratio: width divided by height of the crop.
        pseudo_labels: for each clip its propagated poses, as ``propagate`` writes them, or None. They join on
            frames without labels.
        min_score: propagated keypoints that score no more are left out.

    Raises:
        VideoError: if a video cannot be read.
        LabelsError: if labels cannot be used, skeletons differ, or nothing is labelled.
    """
    parts: list[TrainingSamples] = []
    for n, (path, labels_path) in enumerate(clips):
        with open_video(path) as video:
            labels = read_labels(labels_path, video=video)
            if parts and labels.skeleton.names != parts[0].skeleton.names:
                raise LabelsError(
                    "the labels have other keypoints than those of the first video",
                    path=labels_path,
                    expected=", ".join(parts[0].skeleton.names),
                    got=", ".join(labels.skeleton.names),
                    fix="train on videos of one skeleton, with its keypoints in one order",
                )
            extra = pseudo_labels[n] if n < len(pseudo_labels) else None
            parts.append(_of_clip(video, labels, aspect_ratio, extra, min_score, n))
    if not parts:
        raise LabelsError("there are no videos to learn from", fix="list videos and their labels")
    videos = tuple(part.videos[0] for part in parts)
    # The first labels' edges stand for all: only names were compared.
    first = parts[0].skeleton
    together = replace(join_samples(parts), videos=videos, skeleton=first, source="labels of own videos")
    return not_empty(together, clips[0][1])


# --- a prepared dataset -----------------------------------------------------------------------------------


def _frames_of(dataset: Dataset, video: DatasetVideo) -> VideoFrames:
    files = tuple(dataset.frame_path(video, number).name for number in video.numbers)
    folder = str(dataset.images / video.folder)
    return VideoFrames(folder, video.first, video.n_frames, files, video.missing)


def _labelled(dataset: Dataset, videos: Sequence[DatasetVideo], aspect_ratio: float) -> TrainingSamples:
    """Return the samples of all labelled frames."""
    parts = []
    for v, video in enumerate(videos):
        table = dataset.table(video)
        labelled = table.take(table.is_labelled[table.rows])
        parts.append(_of_table(labelled, video, v, aspect_ratio, is_pseudo=False))
    frames = tuple(_frames_of(dataset, video) for video in videos)
    return replace(join_samples(parts), videos=frames, source=f"all labels of {videos[0].split}")


def _of_table(
    table: InstanceTable, video: DatasetVideo, v: int, aspect_ratio: float, *, is_pseudo: bool
) -> TrainingSamples:
    if table.skeleton.names != POSETRACK.names:
        raise LabelsError(
            f"the instances of {table.video} have other keypoints than PoseTrack's",
            expected=", ".join(POSETRACK.names),
            got=", ".join(table.skeleton.names),
            fix="give labels and propagated poses of this dataset",
        )
    table = replace(table, image_size=table.image_size or video.image_size)
    found = samples_from_labels(table, aspect_ratio)
    return TrainingSamples(
        videos=(),
        video_of=np.full(len(found), v, np.int64),
        numbers=table.frame_numbers[found.rows],
        keypoints=table.keypoints[found.instances],
        centers=found.centers,
        scales=found.scales,
        is_pseudo=np.full(len(found), is_pseudo),
        skeleton=POSETRACK,
    )


def _selected(
    dataset: Dataset, videos: Sequence[DatasetVideo], aspect_ratio: float, selection: PathLike
) -> TrainingSamples:
    """Return the samples of a file of the original."""
    labels = read_selection(dataset, selection)
    places = find_frames(dataset, videos, labels.frame_names)
    kept = _check_places(places, labels.frame_names, videos, selection)
    centers, scales = paper_center_scale(labels.boxes[kept], aspect_ratio)
    return TrainingSamples(
        videos=tuple(_frames_of(dataset, video) for video in videos),
        video_of=np.array([places[n][0] for n in kept], np.int64),  # type: ignore[index]
        numbers=np.array([places[n][1] for n in kept], np.int64),  # type: ignore[index]
        keypoints=labels.keypoints[kept],
        centers=centers,
        scales=scales,
        is_pseudo=np.zeros(len(kept), bool),
        skeleton=POSETRACK,
        source=f"selection {os.fspath(selection)}",
    )


def _check_places(
    places: Sequence[object], names: Sequence[str], videos: Sequence[DatasetVideo], path: PathLike
) -> Ints:
    """Return which places are there.

    Raises:
        LabelsError: if none is.
    """
    kept = np.array([n for n, place in enumerate(places) if place is not None], np.int64)
    if not len(kept):
        raise LabelsError(
            f"none of these labels is on a frame of {videos[0].split}",
            path=path,
            expected=f"frames like {videos[0].frame_name(videos[0].first)}",
            got=names[0] if names else "no labels",
            fix="give labels of this dataset and split",
        )
    if len(kept) < len(places):
        stranger = next(name for name, place in zip(names, places, strict=True) if place is None)
        text = f"{path}: {len(places) - len(kept)} of {len(places)} labels are on frames that the videos do "
        warnings.warn(
            f"{text}not have, such as {stranger}; they are left out", PosewarperWarning, stacklevel=4
        )
    return kept


def _drawn(
    samples: TrainingSamples,
    videos: Sequence[DatasetVideo],
    count: int | None,
    labelled_frames: int | None,
    seed: int,
) -> TrainingSamples:
    """Return the samples of V videos and N labelled frames of each."""
    peopled = [videos[v].name for v in np.unique(samples.video_of)]
    names = set(peopled if count is None else draw_videos(peopled, count, seed))
    kept = np.zeros(len(samples), bool)
    for v, video in enumerate(videos):
        own = samples.video_of == v
        if video.name not in names:
            continue
        if labelled_frames is not None:
            frames = draw_frames(samples.numbers[own], labelled_frames, seed, video.name)
            own &= np.isin(samples.numbers, frames)
        kept |= own
    drawn = f"{'all' if count is None else count} videos, {labelled_frames or 'all'} labelled frames of each"
    return replace(samples.take(kept), source=f"{drawn}, drawn by seed {seed}")


def _propagated(
    dataset: Dataset,
    videos: Sequence[DatasetVideo],
    aspect_ratio: float,
    path: PathLike,
    real: TrainingSamples,
    min_score: float,
) -> TrainingSamples:
    """Return the samples of propagated poses, without those on frames of real ones."""
    tables = list(read_tables(path).values())
    names = [table.frame_names[0] for table in tables]
    folders = {video.folder: v for v, video in enumerate(videos)}
    of_video = [folders.get(name.rpartition("/")[0]) for name in names]
    parts = []
    for n in _check_places(of_video, names, videos, path).tolist():
        v = of_video[n]
        assert v is not None
        surely = _sure(tables[n], min_score)
        taken = real.numbers[real.video_of == v]
        free = surely.take(~np.isin(surely.frame_numbers[surely.rows], taken))
        parts.append(_of_table(free, videos[v], v, aspect_ratio, is_pseudo=True))
    source = f"{real.source}, joined by propagated poses"
    return replace(join_samples(parts), videos=real.videos, source=source)


def _sure(table: InstanceTable, min_score: float) -> InstanceTable:
    """Return the instances without the keypoints that score too little to learn from."""
    low = table.keypoint_scores <= min_score
    return replace(table, keypoints=np.where(low[..., None], np.nan, table.keypoints))


def _with_files(samples: TrainingSamples, path: PathLike) -> TrainingSamples:
    """Return the samples whose frames are there."""
    numbered = zip(samples.video_of.tolist(), samples.numbers.tolist(), strict=True)
    there = np.array([samples.videos[v].exists(number) for v, number in numbered], bool)
    if not there.all():
        text = f"{path}: {int((~there).sum())} of {len(there)} instances are left out, as their frames are "
        warnings.warn(f"{text}missing", PosewarperWarning, stacklevel=3)
    return samples.take(there)


def _without_unused_videos(samples: TrainingSamples) -> TrainingSamples:
    used, video_of = np.unique(samples.video_of, return_inverse=True)
    return replace(samples, videos=tuple(samples.videos[v] for v in used), video_of=video_of.astype(np.int64))


# --- one's own videos -------------------------------------------------------------------------------------


def _of_clip(
    video: Video,
    labels: Labels,
    aspect_ratio: float,
    pseudo_labels: PathLike | None,
    min_score: float,
    v: int,
) -> TrainingSamples:
    every = range(video.n_frames)
    parts = [_of_tracks(video, labels, labels.labelled_frames.tolist(), aspect_ratio, v)]
    if pseudo_labels is not None:
        poses = read_annotations(pseudo_labels, video=video, skeleton=labels.skeleton)
        free = np.setdiff1d(every, labels.labelled_frames).tolist()
        sure = replace(poses, tracks={i: _sure_track(t, min_score) for i, t in poses.tracks.items()})
        parts.append(_of_tracks(video, sure, free, aspect_ratio, v, is_pseudo=True))
    frames = VideoFrames(os.path.abspath(video.path), 0, video.n_frames)
    return replace(join_samples(parts), videos=(frames,))


def _of_tracks(
    video: Video,
    labels: Labels,
    frames: Iterable[int],
    aspect_ratio: float,
    v: int,
    *,
    is_pseudo: bool = False,
) -> TrainingSamples:
    wanted = labels.at(frames)
    tracks = [without_strays(track, video.image_size) for track in wanted.tracks.values()]
    k = len(labels.skeleton)
    numbers = np.concatenate([np.zeros(0, np.int64), *(track.frames for track in tracks)])
    keypoints = np.concatenate([np.zeros((0, k, 2)), *(track.keypoints for track in tracks)])
    boxes = np.concatenate([np.zeros((0, 4)), *(_crop_boxes(track, is_pseudo) for track in tracks)])
    order = np.argsort(numbers, kind="stable")
    order = order[is_there(keypoints[order]).any(axis=1)]
    centers, scales = paper_center_scale(boxes[order], aspect_ratio)
    return TrainingSamples(
        videos=(),
        video_of=np.full(len(order), v, np.int64),
        numbers=numbers[order],
        keypoints=keypoints[order],
        centers=centers,
        scales=scales,
        is_pseudo=np.full(len(order), is_pseudo),
        skeleton=labels.skeleton,
    )


def _crop_boxes(track: Track, is_pseudo: bool) -> Floats:
    tight = instance_boxes(track.keypoints, track.boxes)
    given = is_pseudo & np.asarray((track.boxes[:, 2:] > 0).all(axis=1))
    return np.where(given[:, None], track.boxes, tight)


def _sure_track(track: Track, min_score: float) -> Track:
    low = track.keypoint_scores <= min_score
    return replace(track, visibility=np.where(low, 0, track.visibility).astype(np.uint8))


def unpack_videos(
    samples: TrainingSamples, folder: str | os.PathLike[str], reach: int, progress: Progress = silent
) -> TrainingSamples:
    """Write the frames that training will read from video files as BMP files, without loss.

    To read one frame of a video file, all since the last key frame are decoded; that is too slow for frames
    in random order. BMP files are large (2.8 MB at 1280 x 720) and read in no time, unlike PNG files. Videos
    that are folders of images are left as they are. Frames that an earlier call has written are not written
    again, if the video file has not changed.

    Args:
        samples: of one's own videos or of a dataset.
        folder: where to write, a folder for each video.
        reach: frames around each labelled one that are read beside it.
        progress: is told after every frame.

    Returns:
        The same samples, whose frames are read from the image files.

    Raises:
        VideoError: if a video cannot be read.
        OutputError: if the folder cannot be written.
    """
    packed = [v for v, video in enumerate(samples.videos) if not video.files and os.path.isfile(video.path)]
    wanted = {v: _wanted(samples, v, reach) for v in packed}
    videos, done, total = list(samples.videos), 0, sum(map(len, wanted.values()))
    for v in packed:
        target = Path(folder) / _name(videos[v].path)
        names = tuple(f"{n:08d}.bmp" for n in range(videos[v].n_frames))
        missing = [n for n in wanted[v] if not (target / names[n]).is_file()]
        done += len(wanted[v]) - len(missing)
        if missing:
            with open_video(videos[v].path) as video:
                for n, image in video.frames(missing):
                    _, data = cv2.imencode(".bmp", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
                    with replacing(target / names[n]) as temporary:
                        temporary.write_bytes(data.tobytes())
                    done += 1
                    progress("frames", done, total)
        videos[v] = VideoFrames(str(target.absolute()), 0, videos[v].n_frames, names)
    return replace(samples, videos=tuple(videos))


def _wanted(samples: TrainingSamples, v: int, reach: int) -> list[int]:
    """Return the frames of a video that training reads, rising."""
    numbers = np.unique(samples.numbers[samples.video_of == v])
    video = samples.videos[v]
    around = {video.neighbour(int(n), offset) for n in numbers for offset in range(-reach, reach + 1)}
    return sorted(around)


def _name(path: str) -> str:
    """Return a folder's name that another video, or the same after a change, does not have."""
    state = os.stat(path)
    told = f"{os.path.abspath(path)} {state.st_size} {state.st_mtime_ns}"
    return f"{Path(path).stem}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"
