"""What recipes learn from: labelled instances of a dataset or of clips, and how their frames are read."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from posewarper.crops import Image
from posewarper.errors import ConfigError, LabelsError, PosewarperWarning
from posewarper.files import replacing
from posewarper.formats.clips import need_same_keypoints
from posewarper.formats.labels import read_annotations, read_labels
from posewarper.geometry import paper_center_scale
from posewarper.motion.interpolation import fill_in
from posewarper.options import MIN_SCORE, DataSettings
from posewarper.posetrack.annolist import require_posetrack
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
from posewarper.processes import of_first, own_share, wait_for_all
from posewarper.skeletons import POSETRACK, Skeleton
from posewarper.structures import Floats, InstanceTable, Ints, Labels, Progress, is_there, silent
from posewarper.video.images import FrameCache, read_image
from posewarper.video.source import CACHE_BYTES, Video, open_video
from posewarper.video.track_crops import instance_boxes, without_strays

# Videos that are kept open, each with a few frames around the last one read: neighbours are asked for next.
_OPEN_VIDEOS, _OWN_CACHE_BYTES = 8, 32 * 2**20
_LEFT_BY_PARENTS: list[object] = []
PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class VideoFrames:
    """How the frames of one video are read; plain values that travel to other processes.

    ``path`` is the folder of ``files``, images that are turned as EXIF says only if ``upright``, unlike
    PoseTrack's; without files it is a video file or folder that ``open_video`` opens.
    """

    path: str
    first: int  # number of the first frame
    n_frames: int  # frames of the video, with those that are missing
    files: tuple[str, ...] = ()
    missing: frozenset[int] = frozenset()  # numbers of frames without a file
    upright: bool = False

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
    are kept open, and at most ``cache_bytes`` of the frames read last decoded, by each process for itself.
    """

    def __init__(self, videos: Sequence[VideoFrames], *, cache_bytes: int = CACHE_BYTES) -> None:
        self._videos, self._cache_bytes = tuple(videos), cache_bytes
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._opened: OrderedDict[int, Video] = OrderedDict()
        self._cache: FrameCache[Image] = FrameCache(self._cache_bytes)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(FrameReader, cache_bytes=self._cache_bytes), (self._videos,)

    def read(self, video: int, number: int) -> Image:
        """Return a frame (H, W, 3) uint8 RGB, not to be drawn upon, by the video's position and its number.

        Raises:
            VideoError: if it cannot be read.
        """
        frames = self._videos[video]
        place = number - frames.first
        if frames.files:
            return read_image(Path(frames.path, frames.files[place]), upright=frames.upright)
        if self._process != os.getpid():
            # After a fork a file opened by the parent would be read at the parent's place. It is not closed
            # either: that would wait for its decoder's threads, which stayed behind.
            _LEFT_BY_PARENTS.append(self._opened)
            self._begin()
        key = video << 32 | place
        image = self._cache.get(key)
        if image is None:
            opened = self._opened.pop(video, None)
            if opened is None:
                opened = open_video(frames.path, cache_bytes=_OWN_CACHE_BYTES)
            self._opened[video] = opened
            if len(self._opened) > _OPEN_VIDEOS:
                self._opened.popitem(last=False)[1].close()
            image = opened[place]
            self._cache.put(key, image, image.nbytes)
        return image


_PER_SAMPLE = ("video_of", "numbers", "keypoints", "centers", "scales", "is_pseudo")


@dataclass(frozen=True)
class TrainingSamples:
    """All instances that are learned from, n in number; plain values that travel to other processes."""

    videos: tuple[VideoFrames, ...]  # how the frames of each video are read
    video_of: Ints  # (n,) the position of the sample's video
    numbers: Ints  # (n,) the number of its frame
    keypoints: Floats  # (n, K, 2) xy in pixels of the frame, NaN where there is none
    centers: NDArray[np.float32]  # (n, 2) xy of the crop's centre in pixels
    scales: NDArray[np.float32]  # (n, 2) width and height of the crop in units of 200 pixels, padded
    is_pseudo: NDArray[np.bool_]  # (n,) whether the keypoints were propagated rather than labelled
    skeleton: Skeleton  # the K keypoints

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, samples: NDArray[np.bool_] | Ints) -> TrainingSamples:
        """Return some of the samples, (n,) booleans or positions; all videos stay."""
        return replace(self, **{name: getattr(self, name)[samples] for name in _PER_SAMPLE})


def join_samples(parts: Sequence[TrainingSamples]) -> TrainingSamples:
    """Return the samples of all parts; what is not of a single sample is the last part's."""
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _PER_SAMPLE}
    return replace(parts[-1], **columns)


def whole(samples: TrainingSamples, path: PathLike) -> TrainingSamples:
    """Return the samples without videos that have none; LabelsError, with ``path``, if there are none."""
    if not len(samples):
        raise LabelsError(
            "there is nothing to learn from",
            path=path,
            expected="at least one labelled instance with a keypoint in the image",
            fix="check the split, the subset and the labels",
        )
    used, video_of = np.unique(samples.video_of, return_inverse=True)
    return replace(samples, videos=tuple(samples.videos[v] for v in used), video_of=video_of.astype(np.int64))


def _samples(
    skeleton: Skeleton,
    video: int | Ints,
    numbers: Ints,
    keypoints: Floats,
    framing: tuple[NDArray[np.float32], NDArray[np.float32]],
    is_pseudo: bool,
) -> TrainingSamples:
    """Return samples of one video or of several; the videos themselves are still to be added."""
    n = len(numbers)
    video_of = np.broadcast_to(np.asarray(video, np.int64), n)
    return TrainingSamples((), video_of, numbers, keypoints, *framing, np.full(n, is_pseudo), skeleton)


def samples_of_dataset(
    dataset: Dataset,
    data: DataSettings,
    aspect_ratio: float,
    *,
    pseudo_labels: PathLike | None = None,
    min_score: float = MIN_SCORE,
) -> TrainingSamples:
    """Return the samples of a split of a prepared dataset, or of some of its frames.

    Without ``selection``, ``videos`` and ``labelled_frames`` these are all labelled instances. With seed 0
    the original's file for V and N is taken where the dataset comes with it; any other seed draws.

    Labels on frames that are not there are left out with a warning.

    Args:
        dataset: made by ``posewarper prepare``.
        data: the split, and which of its frames are learned from.
        aspect_ratio: width divided by height of the crop.
        pseudo_labels: file or folder of propagated poses (PoseTrack18 JSON) in place of those of ``data``;
            they join on frames that carry no label of the selection.
        min_score: propagated keypoints that score no more are left out.

    Raises:
        LabelsError: if a file is missing, of another kind or of other videos, or there are no samples.
        ConfigError: if both a file and numbers are given, or there are fewer videos.
    """
    videos, selection = dataset.require_split(data.split), data.selection
    drawing = data.videos is not None or data.labelled_frames is not None
    if selection is not None and drawing:
        raise ConfigError(
            "a selection of labelled frames says already how many videos and frames there are",
            got=f"selection {selection}, {data.videos} videos, {data.labelled_frames} labelled frames",
            fix="leave out either the selection or the numbers",
        )
    if drawing and data.subset_seed == 0:
        selection = find_selection(dataset, data.split, data.videos, data.labelled_frames)
    if selection is not None:
        parts, source = [_selected(dataset, videos, aspect_ratio, selection)], f"selection {selection}"
    else:
        parts, source = [], f"all labels of {data.split}"
        for v, video in enumerate(videos):
            table = dataset.table(video)
            labelled = table.take(table.is_labelled[table.rows])
            parts.append(_of_table(labelled, video, v, aspect_ratio, is_pseudo=False))
    frames = tuple(
        VideoFrames(
            str(dataset.images / video.folder),
            video.first,
            video.n_frames,
            tuple(dataset.frame_path(video, number).name for number in video.numbers),
            video.missing,
        )
        for video in videos
    )
    samples = _with_files(join_samples(parts), frames, f"{dataset.root}: {source}")
    if selection is None and drawing:
        samples = _drawn(samples, videos, data)
    path = pseudo_labels or data.pseudo_labels
    if path is not None:
        propagated = _propagated(videos, aspect_ratio, path, samples, min_score)
        samples = join_samples([samples, _with_files(propagated, frames, path)])
    return whole(samples, dataset.root)


def labelled_frames(samples: TrainingSamples, dataset: Dataset) -> dict[str, set[int]]:
    """Return file stem of a video -> numbers of its frames that have samples."""
    stems = {str(dataset.images / video.folder): video.file_stem for video in dataset.videos}
    chosen: dict[str, set[int]] = {}
    for place, number in zip(samples.video_of.tolist(), samples.numbers.tolist(), strict=True):
        chosen.setdefault(stems[samples.videos[place].path], set()).add(number)
    return chosen


def _of_table(
    table: InstanceTable, video: DatasetVideo, v: int, aspect_ratio: float, *, is_pseudo: bool
) -> TrainingSamples:
    require_posetrack(table)
    found = samples_from_labels(replace(table, image_size=table.image_size or video.image_size), aspect_ratio)
    numbers, keypoints = table.frame_numbers[found.rows], table.keypoints[found.instances]
    return _samples(POSETRACK, v, numbers, keypoints, (found.centers, found.scales), is_pseudo)


def _selected(
    dataset: Dataset, videos: Sequence[DatasetVideo], aspect_ratio: float, selection: PathLike
) -> TrainingSamples:
    """Return the samples of a file of the original."""
    labels = read_selection(dataset, selection)
    places = find_frames(dataset, videos, labels.frame_names)
    kept = _check_places(places, labels.frame_names, videos, selection)
    known = np.array([places[n] for n in kept], np.int64)
    framing = paper_center_scale(labels.boxes[kept], aspect_ratio)
    return _samples(POSETRACK, known[:, 0], known[:, 1], labels.keypoints[kept], framing, False)


def _check_places(
    places: Sequence[object], names: Sequence[str], videos: Sequence[DatasetVideo], path: PathLike
) -> Ints:
    """Return which places are there; LabelsError if none is."""
    kept = np.array([n for n, place in enumerate(places) if place is not None], np.int64)
    if not len(kept):
        raise LabelsError(
            f"none of these labels is on a frame of {videos[0].split}",
            path=path,
            expected=f"frames like {videos[0].frame_name(videos[0].first)}",
            got=names[0] if names else "no labels",
            fix="give labels of this dataset and split",
        )
    strangers = [name for name, place in zip(names, places, strict=True) if place is None]
    if strangers:
        text = f"{path}: {len(strangers)} of {len(places)} labels are on frames that the videos do not have, "
        warnings.warn(f"{text}such as {strangers[0]}; they are left out", PosewarperWarning, stacklevel=4)
    return kept


def _drawn(samples: TrainingSamples, videos: Sequence[DatasetVideo], data: DataSettings) -> TrainingSamples:
    """Return the samples of V videos and N labelled frames of each."""
    seed = data.subset_seed
    names = [videos[v].name for v in np.unique(samples.video_of)]
    if data.videos is not None:
        names = draw_videos(names, data.videos, seed)
    kept = np.zeros(len(samples), bool)
    for v, video in enumerate(videos):
        if video.name in names:
            own = samples.video_of == v
            if data.labelled_frames is not None:
                frames = draw_frames(samples.numbers[own], data.labelled_frames, seed, video.name)
                own &= np.isin(samples.numbers, frames)
            kept |= own
    return samples.take(kept)


def _propagated(
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
        v, table = of_video[n], tables[n]
        assert v is not None
        low = table.keypoint_scores <= min_score
        table = replace(table, keypoints=np.where(low[..., None], np.nan, table.keypoints))
        free = ~np.isin(table.frame_numbers[table.rows], real.numbers[real.video_of == v])
        parts.append(_of_table(table.take(free), videos[v], v, aspect_ratio, is_pseudo=True))
    return join_samples(parts)


def _with_files(samples: TrainingSamples, videos: tuple[VideoFrames, ...], path: PathLike) -> TrainingSamples:
    """Return the samples of these videos whose frames are there."""
    numbered = zip(samples.video_of.tolist(), samples.numbers.tolist(), strict=True)
    there = np.array([videos[v].exists(number) for v, number in numbered], bool)
    if not there.all():
        text = f"{path}: {int((~there).sum())} of {len(there)} instances are left out, as their frames are "
        warnings.warn(f"{text}missing", PosewarperWarning, stacklevel=3)
    return replace(samples.take(there), videos=videos)


def samples_of_clips(
    clips: Sequence[tuple[PathLike, PathLike]],
    aspect_ratio: float,
    *,
    pseudo_labels: Sequence[PathLike | None] = (),
    min_score: float = MIN_SCORE,
) -> TrainingSamples:
    """Return the samples of one's own videos.

    A crop lies around the labelled keypoints, or is the given box where there are fewer than two. That of a
    propagated pose is the given box, as some of its keypoints may be missing.

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
    if not clips:
        raise LabelsError("there are no videos to learn from", fix="list videos and their labels")
    parts: list[TrainingSamples] = []
    videos: list[VideoFrames] = []
    for v, (path, labels_path) in enumerate(clips):
        with open_video(path) as video:
            labels = read_labels(labels_path, video=video)
            if parts:
                need_same_keypoints(parts[0].skeleton, labels.skeleton, labels_path)
            videos.append(VideoFrames(os.path.abspath(video.path), 0, video.n_frames))
            parts.append(samples_of_tracks(video.image_size, labels, labels.labelled_frames, aspect_ratio, v))
            extra = pseudo_labels[v] if v < len(pseudo_labels) else None
            if extra is not None:
                poses = read_annotations(extra, video=video, skeleton=labels.skeleton)
                free = np.setdiff1d(range(video.n_frames), labels.labelled_frames).tolist()
                parts.append(samples_of_tracks(video.image_size, poses, free, aspect_ratio, v, min_score))
    # The first labels' edges stand for all: only names were compared.
    together = replace(join_samples(parts), videos=tuple(videos), skeleton=parts[0].skeleton)
    return whole(together, clips[0][1])


def samples_of_tracks(
    image_size: tuple[int, int],
    labels: Labels,
    frames: Iterable[int] | Ints,
    aspect_ratio: float,
    v: int,
    min_score: float | None = None,
) -> TrainingSamples:
    """Return the samples of some frames (of ``(height, width)``); with ``min_score`` of propagated poses."""
    is_pseudo = min_score is not None
    parts = [(np.zeros(0, np.int64), np.zeros((0, len(labels.skeleton), 2)), np.zeros((0, 4)))]
    for track in labels.at(frames).tracks.values():
        track = without_strays(track, image_size)
        boxes = track.boxes
        if min_score is not None:
            low = track.keypoint_scores <= min_score
            track = replace(track, visibility=np.where(low, 0, track.visibility).astype(np.uint8))
        tight = instance_boxes(fill_in(track).keypoints, boxes)
        given = is_pseudo & np.asarray((boxes[:, 2:] > 0).all(axis=1))
        parts.append((track.frames, track.keypoints, np.where(given[:, None], boxes, tight)))
    numbers, keypoints, boxes = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(numbers, kind="stable")
    order = order[is_there(keypoints[order]).any(axis=1)]
    framing = paper_center_scale(boxes[order], aspect_ratio)
    return _samples(labels.skeleton, v, numbers[order], keypoints[order], framing, is_pseudo)


def unpack_videos(
    samples: TrainingSamples, folder: PathLike, reach: int, progress: Progress = silent
) -> TrainingSamples:
    """Write the frames that training reads from video files as BMP files; return samples that use them.

    To read one frame of a video file, all since the last key frame are decoded, too slow in random order. BMP
    files are large (2.8 MB at 1280 x 720) but read in no time, unlike PNG files. Folders of images are left
    as they are, and frames that are written already too, if the video file has not changed. Several connected
    processes share the videos and wait for each other.

    Args:
        samples: of one's own videos or of a dataset.
        folder: where to write, a folder for each video.
        reach: frames around each labelled one that are read beside it.

    Raises:
        VideoError: if a video cannot be read.
        OutputError: if the folder cannot be written.
    """
    wanted: dict[int, list[int]] = {}
    for v, video in enumerate(samples.videos):
        if not video.files and os.path.isfile(video.path):
            numbers = np.unique(samples.numbers[samples.video_of == v]).tolist()
            offsets = range(-reach, reach + 1)
            wanted[v] = sorted({video.neighbour(n, offset) for n in numbers for offset in offsets})
    videos, done, total = list(samples.videos), 0, sum(map(len, wanted.values()))

    def name_folders() -> dict[int, str]:
        """Name a folder for each video; another, or the same after a change, has another."""
        names = {}
        for v in wanted:
            path = videos[v].path
            state = os.stat(path)
            told = f"{os.path.abspath(path)} {state.st_size} {state.st_mtime_ns}"
            names[v] = f"{Path(path).stem}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"
        return names

    # Copies of a video on several machines may have other times.
    targets, own = of_first(name_folders), set(own_share(list(wanted)))
    for v, numbers in wanted.items():
        path, target = videos[v].path, Path(folder) / targets[v]
        names = tuple(f"{n:08d}.bmp" for n in range(videos[v].n_frames))
        missing = [n for n in numbers if v in own and not (target / names[n]).is_file()]
        done += len(numbers) - len(missing)
        if missing:
            with open_video(path) as video:
                for n, image in video.frames(missing):
                    _, data = cv2.imencode(".bmp", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
                    with replacing(target / names[n]) as temporary:
                        temporary.write_bytes(data.tobytes())
                    done += 1
                    progress("frames", done, total)
        videos[v] = VideoFrames(str(target.absolute()), 0, videos[v].n_frames, names)
    wait_for_all()
    return replace(samples, videos=tuple(videos))
