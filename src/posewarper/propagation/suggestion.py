"""Which frames to label next: by looks and motion, in the widest gaps, or where labels would help most.

Three orders, by name in :data:`ORDERS`. ``looks`` needs nothing but the video. ``gaps`` halves the widest gap
between labels again and again. ``error`` needs poses with their expected error, and takes the frame whose
label would take most of it away, as if that label had been made, and so on.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from posewarper.errors import ConfigError, LabelsError, no_such_file, unknown_name, wrong_type
from posewarper.formats.labels import check_image_size, given_labels, read_labels, read_poses
from posewarper.reporting.checking import subject_size
from posewarper.structures import Floats, Ints, Labels, Poses, Progress, RunResult, Track, is_there, silent
from posewarper.video.source import Openable, Video, open_video

ORDERS: dict[str, str] = {
    "looks": "frames that stand for those around them by their looks, more where something moves",
    "gaps": "the middle of the widest gap between labels, again and again",
    "error": "where a label would take most of the expected error away",
}
POSES = "poses.json"

# Frames of the video that ``looks`` reads at most, the longer side of what it sees of them, and in how many
# numbers it describes each.
_MOST_FRAMES, _SMALL, _NUMBERS = 1000, 64, 32
_TIME = 10.0  # weight of the time beside the looks, both with the same spread
# Time runs quicker where something moves: this share of it is motion, of which the stillest frames have none.
_MOTION, _STILL = 0.3, 0.02
_LACKING = 95  # percentile of a keypoint's expected error that counts for frames without a pose
_MOST_PLACES = 256  # frames of a gap at which a label is tried


@dataclass(frozen=True)
class Suggestion:
    """A frame to label, and why."""

    frame: int
    reason: str  # one sentence
    gain: float  # 0 to 1: share of the expected error that goes away, or of the clip that it stands for
    track: int | None = None  # id of the track that has most to gain, None where the whole frame counts
    keypoint: int | None = None  # index of its keypoint that has most to gain


def suggest(
    video: Video | Openable,
    labels: Labels | Poses | str | os.PathLike[str] | None = None,
    *,
    result: Poses | RunResult | str | os.PathLike[str] | None = None,
    count: int = 10,
    by: str | None = None,
    progress: Progress = silent,
) -> list[Suggestion]:
    """Say which frames of a video to label next, and why.

    Args:
        video: a video file, a folder of frames, frames in memory, or an opened video.
        labels: a label file or labels, None before the first label. With a ``result`` they are the labels as
            they are now, which may be more than those that it came from.
        result: the folder of ``propagate``, its ``poses.json``, poses, or what ``propagate`` returns.
        count: how many frames.
        by: one of :data:`ORDERS`; left out, it follows from what is given, see :func:`choose_order`.
        progress: is called as ``progress(stage, done, total)``.

    Returns:
        The most useful frame first, and fewer than ``count`` where a clip has no more of use.

    Raises:
        PosewarperError: if the input cannot be used.

    Example:
        >>> suggest("clip.mp4", "labels.json", count=3)[0].frame
        6
    """
    if count < 1:
        raise ConfigError("no frames to suggest", expected="1 or more", got=count, fix="raise the number")
    if result is not None and not isinstance(result, Poses | RunResult | str | os.PathLike):
        raise wrong_type("the result", result, "a folder of propagate, poses, or what propagate returns")
    if isinstance(result, str | os.PathLike):
        poses: Poses | None = read_result(result)
    else:
        poses = result.poses if isinstance(result, RunResult) else result
    with nullcontext(video) if isinstance(video, Video) else open_video(video) as opened:
        if isinstance(labels, str | os.PathLike):
            known: Labels | None = read_labels(labels, video=opened)
        else:
            known = None if labels is None else given_labels(labels).only_labelled()
        return suggest_frames(opened, known, poses, count=count, by=by, progress=progress)


def read_result(place: str | os.PathLike[str]) -> Poses:
    """Read the poses of a folder of ``propagate``, or of its ``poses.json``.

    Raises:
        LabelsError: if there are none, or they cannot be used.
    """
    path = Path(place)
    path = path / POSES if path.is_dir() else path
    if not path.exists():
        expected = f"a folder with {POSES} in it, as posewarper propagate writes it"
        fix = "name such a folder, or give --labels FILE alone"
        raise no_such_file(path, expected, error=LabelsError, fix=fix)
    return read_poses(path)


def choose_order(labels: Labels | None, poses: Poses | None) -> str:
    """Return ``error`` where that is known, ``gaps`` with labels alone, and ``looks`` before any label."""
    if poses is not None and any(track.knows_error for track in poses.tracks.values()):
        return "error"
    known = labels if labels is not None or poses is None else poses.as_labels().only_labelled()
    return "looks" if known is None or not len(known.labelled_frames) else "gaps"


def suggest_frames(
    video: Video,
    labels: Labels | None = None,
    poses: Poses | None = None,
    *,
    count: int = 10,
    by: str | None = None,
    progress: Progress = silent,
) -> list[Suggestion]:
    """Return the frames to label next, as :func:`suggest` does, of what is opened and read already.

    Args:
        video: the clip; only ``looks`` reads its frames.
        labels: what is labelled now; left out, what the poses came from.
        poses: those of the last run.
        count, by, progress: as :func:`suggest` takes them.

    Raises:
        ConfigError: if there is no such order, or the poses do not tell their expected error.
        LabelsError: if the labels or the poses belong to another video.
    """
    by = choose_order(labels, poses) if by is None else by
    if by not in ORDERS:
        raise unknown_name("unknown order of suggestions", by, ORDERS)
    for what, given in (("labels", labels), ("poses", poses)):
        if given is not None:
            _check(what, given, video)
    if labels is None and poses is not None:
        labels = poses.as_labels().only_labelled()
    if by == "looks":
        return _by_looks(video, labels, count, progress)
    if by == "gaps":
        return _by_gaps(_gap_threads(labels, video.n_frames), video.n_frames, count)
    if poses is None or not any(track.knows_error for track in poses.tracks.values()):
        raise ConfigError(
            "nobody knows the expected error of these poses" if poses else "there are no poses yet",
            path=video.path,
            expected="poses of posewarper propagate with the method default",
            got="none" if poses is None else "poses without it",
            fix="run posewarper propagate first, or take the order gaps",
        )
    return _by_error(labels, poses, video.n_frames, count)


def _check(what: str, given: Labels | Poses, video: Video) -> None:
    check_image_size(given.image_size, video.image_size, what=what, path=video.path)
    frames = [given.labelled_frames, *(track.frames for track in given.tracks.values())]
    last = max(int(own.max(initial=-1)) for own in frames)
    if last >= video.n_frames:
        raise LabelsError(
            f"the {what} belong to another video",
            path=video.path,
            expected=f"frame indices from 0 to {video.n_frames - 1}",
            got=f"frame {last}",
            fix="give the video that they were made on",
        )


def _apart(n_frames: int, count: int) -> int:
    """Return how many frames lie between two suggestions at least."""
    return max(2, n_frames // (4 * count))


# --- what is labelled -------------------------------------------------------------------------------------


@dataclass
class _Thread:
    """Keypoints of one track that are labelled on the same frames, and what lies between these labels."""

    track: int | None
    keypoints: Ints  # (k,) their indices
    anchors: list[int]  # the rising frames on which they are labelled, or the track is known not to be there
    gone: frozenset[int] = frozenset()  # of these, where the track is not there

    def gap_at(self, frame: int) -> tuple[int, int]:
        """Return the labels (before, after) around a frame without one, -1 and beyond the end for none."""
        at = int(np.searchsorted(self.anchors, frame))
        before = self.anchors[at - 1] if at else -1
        return before, self.anchors[at] if at < len(self.anchors) else -1

    def gaps(self, n_frames: int) -> Iterator[tuple[int, int]]:
        """Yield the first and the last frame of each gap in which the track may be there."""
        edges = [-1, *self.anchors, n_frames]
        for before, after in pairwise(edges):
            if after - before > 1 and not (before in self.gone and after in self.gone):
                yield before + 1, after - 1

    def bind(self, frame: int) -> None:
        """Take a frame as labelled."""
        at = int(np.searchsorted(self.anchors, frame))
        if at == len(self.anchors) or self.anchors[at] != frame:
            self.anchors.insert(at, frame)


def _said(labels: Labels, track_id: int, n_frames: int) -> tuple[NDArray[np.bool_], frozenset[int]]:
    """Return (T, K) what is said of a track on each frame, and the frames on which it is not there."""
    track = labels.tracks[track_id]
    on_label = np.isin(track.frames, labels.labelled_frames)
    said = np.zeros((n_frames, track.keypoints.shape[1]), bool)
    lacking = np.setdiff1d(labels.labelled_frames, track.frames)
    said[lacking] = True
    said[track.frames[on_label]] = track.labelled[on_label]
    return said, frozenset([*lacking.tolist(), *track.frames[on_label & track.is_gone].tolist()])


def _gap_threads(labels: Labels | None, n_frames: int) -> list[_Thread]:
    """Return where each track is labelled: where at least half of its keypoints are.

    A frame on which one keypoint was corrected leaves its gap open.
    """
    threads = []
    if labels is None:
        return [_Thread(None, np.zeros(0, np.int64), [])]
    for i, track in labels.tracks.items():
        said, gone = _said(labels, i, n_frames)
        known = np.flatnonzero(track.placed.any(0))
        if len(known):
            half = said[:, known].mean(1) >= 0.5
            threads.append(_Thread(i, known, np.flatnonzero(half).tolist(), gone))
    return threads or [_Thread(None, np.zeros(0, np.int64), [])]


def _alike(said: NDArray[np.bool_], known: Ints) -> list[Ints]:
    """Return the known keypoints in groups of those that are labelled on the same frames."""
    if not len(known):
        return []
    _, which = np.unique(said[:, known], axis=1, return_inverse=True)
    which = which.reshape(-1)
    return [known[which == n] for n in range(which.max() + 1)]


# --- looks and motion -------------------------------------------------------------------------------------


def _by_looks(video: Video, labels: Labels | None, count: int, progress: Progress) -> list[Suggestion]:
    """Return frames from groups of frames that look alike, of those where something moves."""
    n_frames, apart = video.n_frames, _apart(video.n_frames, count)
    frames, looks, motion = _look(video, progress)
    free = np.ones(n_frames, bool)

    def take(frame: int) -> None:
        free[max(frame - apart + 1, 0) : frame + apart] = False

    taken = [] if labels is None else labels.labelled_frames.tolist()
    for frame in taken:
        take(frame)
    rows = np.flatnonzero(free[frames])
    chosen: list[Suggestion] = []
    if len(rows):
        lively = np.maximum(motion - np.quantile(motion, _STILL), 0.0)
        lively /= max(float(lively.sum()), 1e-9)
        share = (1 - _MOTION) / len(frames) + _MOTION * lively
        share /= share.sum()
        numbers = _in_few_numbers(looks[rows], (np.cumsum(share) - share / 2)[rows])
        groups = [(rows[own], numbers[own]) for own in _group(numbers, count)]
        # The group that stands for most of the clip comes first.
        for own, place in sorted(groups, key=lambda group: (-round(share[group[0]].sum(), 9), group[0][0])):
            away = np.linalg.norm(place - place.mean(0), axis=1)
            for row in own[np.argsort(away, kind="stable")]:
                if free[frame := int(frames[row])]:
                    alike = f"frames {frames[own[0]]} to {frames[own[-1]]}, which look alike and have"
                    reason = f"Stands for {alike} {_percent(float(lively[own].sum()))} of the clip's motion."
                    chosen.append(Suggestion(frame, reason, float(share[own].sum())))
                    take(frame)
                    break
    # Where groups lie too close, what is left comes from the widest gaps.
    thread = _Thread(None, np.zeros(0, np.int64), sorted({*taken, *(each.frame for each in chosen)}))
    return chosen + _by_gaps([thread], n_frames, count - len(chosen))


def _look(video: Video, progress: Progress) -> tuple[Ints, Floats, Floats]:
    """Return frames from all over the clip (n,), how they look (n, d), and how much moves there (n,)."""
    n_frames = video.n_frames
    frames = np.unique(np.linspace(0, n_frames - 1, min(n_frames, _MOST_FRAMES)).round().astype(np.int64))
    height, width = video.image_size
    factor = min(1.0, _SMALL / max(height, width))
    size = max(1, round(height * factor)), max(1, round(width * factor))

    def small(frame: int) -> Floats:
        return video.shrunk(frame, size).astype(float).ravel() / 255

    looks, motion, last, before = [], [], -2, np.zeros(0)
    for n, frame in enumerate(frames.tolist()):
        if frame and last != frame - 1:
            before = small(frame - 1)
        here = small(frame)
        looks.append(here)
        motion.append(float(np.abs(here - before).mean()) if frame else np.nan)
        last, before = frame, here
        progress("looking at the video", n + 1, len(frames))
    # What moves on the first frame, the second one tells.
    motion[0] = motion[1] if len(motion) > 1 else 0.0
    return frames, np.stack(looks), np.array(motion)


def _in_few_numbers(looks: Floats, time: Floats) -> Floats:
    """Return numbers (n, at most 33) that are alike for frames that look alike (n, d) and lie close (n,).

    They are the main components of the looks, and the time, which counts most: labels that leave long gaps
    are worse than random ones, whatever the frames look like.
    """
    centred = looks - looks.mean(0)
    strength, axes = np.linalg.eigh(centred @ centred.T)
    most = min(_NUMBERS, len(looks))
    numbers = axes[:, ::-1][:, :most] * np.sqrt(np.maximum(strength[::-1][:most], 0.0))
    time = (time - time.mean())[:, None]
    spreads = [max(float(np.sqrt((part**2).sum(1).mean())), 1e-9) for part in (numbers, time)]
    return np.concatenate([numbers / spreads[0], _TIME * time / spreads[1]], 1)


def _group(numbers: Floats, count: int) -> list[Ints]:
    """Return the rows (n, d) in at most ``count`` groups of similar ones, found by k-means.

    Its centres begin at the row nearest the mean and at rows as far as can be from those before, so that
    nothing is left to chance.
    """
    from scipy.cluster.vq import kmeans2  # not needed by most who import this

    away = np.linalg.norm(numbers - numbers.mean(0), axis=1)
    rows = [int(away.argmin())]
    nearest = np.linalg.norm(numbers - numbers[rows[0]], axis=1)
    while len(rows) < count and nearest.max() > 0:
        rows.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(numbers - numbers[rows[-1]], axis=1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an empty group is left out below
        _, which = kmeans2(numbers, numbers[rows], minit="matrix")
    groups = [np.flatnonzero(which == n) for n in range(len(rows))]
    return [group for group in groups if len(group)]


# --- the widest gap ---------------------------------------------------------------------------------------


def _by_gaps(threads: Sequence[_Thread], n_frames: int, count: int) -> list[Suggestion]:
    chosen: list[Suggestion] = []
    several = len({thread.track for thread in threads}) > 1
    while len(chosen) < count:
        gaps = [
            (last - first + 1, -first, -n)
            for n, thread in enumerate(threads)
            for first, last in thread.gaps(n_frames)
        ]
        if not gaps:
            break
        width, start, at = max(gaps)
        first, last, thread = -start, -start + width - 1, threads[-at]
        frame = (first + last) // 2
        reason = _say_gap(first, last, n_frames, thread.track if several else None)
        chosen.append(Suggestion(frame, reason, width / n_frames, thread.track))
        for each in threads:
            each.bind(frame)
    return chosen


def _say_gap(first: int, last: int, n_frames: int, track: int | None) -> str:
    whose = "" if track is None else f" of track {track}"
    if (first, last) == (0, n_frames - 1):
        return f"The middle of the clip, of which nothing{whose} is labelled."
    return f"The middle of the widest gap: no label{whose} on frames {first} to {last}."


# --- expected error ---------------------------------------------------------------------------------------


class _Doubt(NamedTuple):
    """A thread with the expected error of its keypoints, as shares of the subject's size."""

    thread: _Thread
    error: Floats  # (T, k), 0 where nothing is known, or nothing is to be found
    lacking: NDArray[np.bool_]  # (T,) where there is no pose although the track may be there
    size: float  # of the subject in pixels
    gains: Floats  # (T,) what a label on each frame takes away


def _by_error(labels: Labels | None, poses: Poses, n_frames: int, count: int) -> list[Suggestion]:
    began = poses.as_labels().only_labelled()
    doubts = [doubt for i in poses.tracks for doubt in _doubts_of(began, poses, i, n_frames)]
    total = sum(float(doubt.error.sum()) for doubt in doubts)
    now = began if labels is None else labels
    for doubt in doubts:
        track = doubt.thread.track
        assert track is not None
        if track in now.tracks:
            # What was labelled since the poses were found.
            said, _ = _said(now, track, n_frames)
            new = np.flatnonzero(said[:, doubt.thread.keypoints].all(1))
            for frame in np.setdiff1d(new, doubt.thread.anchors).tolist():
                _bind(doubt, frame)
        doubt.gains[:] = 0.0
        for first, last in doubt.thread.gaps(n_frames):
            _weigh(doubt, first, last)
    free = np.ones(n_frames, bool)
    chosen: list[Suggestion] = []
    apart = _apart(n_frames, count)
    while len(chosen) < count:
        gains = np.where(free, sum((doubt.gains for doubt in doubts), np.zeros(n_frames)), 0.0)
        frame = int(gains.argmax())
        if gains[frame] <= 1e-9 * max(total, 1e-9):
            break
        best = max(doubts, key=lambda doubt: doubt.gains[frame])
        chosen.append(_explain(best, frame, float(gains[frame]) / total, poses))
        free[max(frame - apart + 1, 0) : frame + apart] = False
        for doubt in doubts:
            if doubt.gains[frame] > 0:
                first, last = _bind(doubt, frame)
                for part in ((first, frame - 1), (frame + 1, last)):
                    _weigh(doubt, *part)
    return chosen


def _doubts_of(labels: Labels, poses: Poses, track_id: int, n_frames: int) -> list[_Doubt]:
    """Return the expected error of a track; frames without a pose count like its worst ones."""
    track = poses.tracks[track_id]
    if track_id not in labels.tracks or not len(track.frames):
        return []
    size = subject_size(labels.tracks[track_id].keypoints, track.keypoints, poses.image_size)
    said, gone = _said(labels, track_id, n_frames)
    known = np.flatnonzero(is_there(track.keypoints).any(0))
    error = np.zeros(said.shape)
    error[track.frames] = np.nan_to_num(track.expected_error) / size
    error[said] = 0.0
    doubts = []
    for keypoints in _alike(said, known):
        anchors = np.flatnonzero(said[:, keypoints[0]])
        if not len(anchors):
            continue
        thread = _Thread(track_id, keypoints, anchors.tolist(), gone)
        lacking = _lacking(thread, track, n_frames)
        own = error[:, keypoints]
        for k in range(own.shape[1]):
            some = own[own[:, k] > 0, k]
            own[lacking, k] = np.percentile(some, _LACKING) if len(some) else 0.0
        doubts.append(_Doubt(thread, own, lacking, size, np.zeros(n_frames)))
    return doubts


def _lacking(thread: _Thread, track: Track, n_frames: int) -> NDArray[np.bool_]:
    """Return (T,) where there is no pose, and no label beside it says that the track is not there."""
    lacking = np.ones(n_frames, bool)
    lacking[track.frames] = False
    lacking[thread.anchors] = False
    edges = [-1, *thread.anchors, n_frames]
    for before, after in pairwise(edges):
        if before in thread.gone or after in thread.gone:
            lacking[before + 1 : after] = False
    return lacking


def _spread(at: Floats, before: int, after: int, *, n_frames: int) -> Floats:
    """Return how uncertain places ``at`` (t,) are between labels, up to a factor.

    That is the standard deviation of a random walk that begins at one label and ends at the other; of a walk
    without an end, where only one is there (``before`` is -1, ``after`` is ``n_frames``).
    """
    since, until = at - before, after - at
    if before < 0:
        return np.sqrt(until)
    if after >= n_frames:
        return np.sqrt(since)
    return np.sqrt(since * until / (after - before))


def _left(first: int, last: int, frame: int, n_frames: int) -> Floats:
    """Return (last - first + 1,) the share of its error that a gap's frames keep once ``frame`` is labelled.

    The gap runs from ``first`` to ``last``, both without a label; beyond them are labels or the clip's ends.
    """
    at = np.arange(first, last + 1, dtype=float)
    old = _spread(at, first - 1, last + 1, n_frames=n_frames)
    new = np.where(
        at < frame,
        _spread(np.minimum(at, frame), first - 1, frame, n_frames=n_frames),
        _spread(np.maximum(at, frame), frame, last + 1, n_frames=n_frames),
    )
    return new / old


def _gap_around(thread: _Thread, frame: int, n_frames: int) -> tuple[int, int]:
    before, after = thread.gap_at(frame)
    return before + 1, (n_frames if after < 0 else after) - 1


def _bind(doubt: _Doubt, frame: int) -> tuple[int, int]:
    """Take a frame as labelled; returns the first and the last frame of the gap that it has parted."""
    n_frames = len(doubt.error)
    first, last = _gap_around(doubt.thread, frame, n_frames)
    doubt.error[first : last + 1] *= _left(first, last, frame, n_frames)[:, None]
    doubt.thread.bind(frame)
    doubt.gains[first : last + 1] = 0.0
    return first, last


def _weigh(doubt: _Doubt, first: int, last: int) -> None:
    """Write down what a label on each doubtful frame of a gap takes away, of a long gap on some of them."""
    if last < first:
        return
    n_frames, error = len(doubt.error), doubt.error[first : last + 1].sum(1)
    doubtful = np.flatnonzero(error > 0)
    for at in doubtful[:: -(-len(doubtful) // _MOST_PLACES) or 1].tolist():
        kept = _left(first, last, first + at, n_frames)
        doubt.gains[first + at] = float(error @ (1 - kept))


def _explain(doubt: _Doubt, frame: int, gain: float, poses: Poses) -> Suggestion:
    thread, n_frames = doubt.thread, len(doubt.error)
    first, last = _gap_around(thread, frame, n_frames)
    error = doubt.error[first : last + 1]
    taken = (1 - _left(first, last, frame, n_frames)) @ error
    k = int(taken.argmax())
    keypoint, pixels = int(thread.keypoints[k]), float(error[:, k].max()) * doubt.size
    name, track = poses.skeleton.names[keypoint], thread.track
    whose = f" of track {track}" if len(poses.tracks) > 1 else ""
    where = f"on frames {first} to {last}" if last > first else f"on frame {first}"
    helps = f"a label here takes away {_percent(gain)} of the clip's expected error"
    if doubt.lacking[frame]:
        rows = np.flatnonzero(doubt.lacking[first : last + 1]) + first
        reason = f"No pose of track {track} on frames {rows[0]} to {rows[-1]}"
        return Suggestion(frame, f"{reason}: label it, or say that it is not there.", gain, track)
    reason = f"{name}{whose} is expected to be off by up to {pixels:.0f} pixels {where}; {helps}."
    return Suggestion(frame, reason, gain, track, keypoint)


def _percent(share: float) -> str:
    if share <= 0:
        return "none"
    return "less than 1 percent" if share < 0.005 else f"{100 * share:.0f} percent"
