"""The structures that hold poses: what every part of the package takes and returns.

A :class:`Track` is one instance over time. :class:`Labels` and :class:`Poses` hold the tracks of one video;
``Track.labelled`` says which keypoints on their ``labelled_frames`` a labeller has set, all others are
predictions. An :class:`InstanceTable` holds a video of PoseTrack as its files list it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posewarper.errors import LabelsError, wrong_type
from posewarper.skeletons import POSETRACK, Skeleton

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# progress(what, done, total): called by long work; total is 0 when it is not known. What follows a tab in
# ``what`` is a note that may change (the loss), not the name of the work.
Progress = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """Report progress to nobody: the default wherever a :data:`Progress` is taken."""


def is_there(points: Floats) -> NDArray[np.bool_]:
    """Return for points (..., 2) whether both coordinates are finite, (...)."""
    return np.asarray(np.isfinite(points).all(axis=-1))


# What ``visibility`` says of a keypoint. Together with ``labelled`` it is one of five states, which the
# properties of :class:`Track` tell apart; whoever adds a state adds it here and there.
#
# | visibility | labelled            | not labelled                                               |
# |------------|---------------------|------------------------------------------------------------|
# | 2          | visible, placed     | predicted                                                  |
# | 1          | hidden, a guess     | predicted                                                  |
# | 0          | absent: not there   | not looked at, on a labelled frame; else no prediction     |
ABSENT, HIDDEN, VISIBLE = 0, 1, 2


def _array(
    value: ArrayLike | None, dtype: Any, shape: tuple[int, ...], what: str, empty: float = np.nan
) -> Any:
    """Return a read-only copy, since a frozen dataclass must not change; None gives an array of ``empty``."""
    array = np.full(shape, empty, dtype) if value is None else np.array(value, dtype=dtype)
    if array.size == 0 and 0 in shape:
        array = array.reshape(shape)
    if array.shape != shape:
        raise LabelsError(
            f"{what} has another shape than the frames and the keypoints require",
            expected=shape,
            got=array.shape,
            fix="give one row for each instance (or frame) and one column for each keypoint",
        )
    array.setflags(write=False)
    return array


def _frame_array(frames: ArrayLike, what: str) -> Ints:
    array = np.array(frames, dtype=np.int64).reshape(-1)
    if array.size and (array[0] < 0 or np.any(np.diff(array) <= 0)):
        raise LabelsError(
            f"{what}: frame indices must count from 0 and rise, each at most once",
            got=array.tolist()[:10],
            fix="sort the frames and give each frame one instance a track",
        )
    array.setflags(write=False)
    return array


def _set(instance: object, **values: object) -> None:
    for name, value in values.items():
        object.__setattr__(instance, name, value)


@dataclass(frozen=True)
class Track:
    """One instance over time: its labels, its predicted poses, or both.

    Args:
        frames: (t,) frame indices, rising.
        keypoints: (t, K, 2) xy in pixels, NaN where there is no keypoint.
        visibility: (t, K): 2 visible, 1 hidden (a labeller's guess, not scored), 0 no keypoint. Predicted
            keypoints are visible. Left out: 2 for every keypoint.
        labelled: (t, K) True where a labeller has said something of a keypoint: placed it, or said that it is
            not there (visibility 0). False where nobody has looked at it, or it is predicted. Left out: where
            there is a keypoint. :class:`Labels` and :class:`Poses` clear it beyond their labelled frames.
        boxes: (t, 4) xywh in pixels as given by the file, NaN where it gives none.
        head_boxes: (t, 4) xywh in pixels (PoseTrack), NaN where there is none.
        keypoint_scores: (t, K) that a network gave, NaN where it is not known, and 0 rather than a given
            score where there is no keypoint.
        expected_error: (t, K) in pixels, NaN where it is not known.

    Raises:
        LabelsError: if shapes disagree or frames repeat.

    Example:
        >>> track = Track([1], [[[3.0, 4.0]]], keypoint_scores=[[0.9]])
        >>> track.visibility.tolist(), track.instance_scores.tolist(), track.knows_error
        ([[2]], [0.9], False)
        >>> gone = [np.nan, np.nan]
        >>> track = Track([1], [[[3.0, 4.0], gone, gone]], labelled=[[True, True, False]])
        >>> track.placed.tolist(), track.absent.tolist(), track.not_looked_at.tolist()
        ([[True, False, False]], [[False, True, False]], [[False, False, True]])
    """

    frames: Ints
    keypoints: Floats
    visibility: NDArray[np.uint8] = field(default=None, kw_only=True)  # type: ignore[assignment]
    labelled: NDArray[np.bool_] = field(default=None, kw_only=True)  # type: ignore[assignment]
    boxes: Floats = field(default=None, kw_only=True)  # type: ignore[assignment]
    head_boxes: Floats = field(default=None, kw_only=True)  # type: ignore[assignment]
    keypoint_scores: Floats = field(default=None, kw_only=True)  # type: ignore[assignment]
    expected_error: Floats = field(default=None, kw_only=True)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        frames = _frame_array(self.frames, "a track")
        t = len(frames)
        k = np.asarray(self.keypoints).shape[1] if np.ndim(self.keypoints) == 3 else 0
        keypoints = _array(self.keypoints, np.float64, (t, k, 2), "keypoints")
        visibility = _array(self.visibility, np.uint8, (t, k), "visibility", VISIBLE)
        there = is_there(keypoints) & (visibility != ABSENT)
        keypoints = np.where(there[..., None], keypoints, np.nan)
        visibility = np.where(there, np.minimum(visibility, VISIBLE), ABSENT)
        scores = _array(self.keypoint_scores, np.float64, (t, k), "keypoint scores")
        scores = np.where(there | np.isnan(scores), scores, 0.0)
        labelled = there if self.labelled is None else self.labelled
        _set(
            self,
            frames=frames,
            keypoints=_array(keypoints, np.float64, (t, k, 2), "keypoints"),
            visibility=_array(visibility, np.uint8, (t, k), "visibility"),
            labelled=_array(labelled, np.bool_, (t, k), "labelled"),
            boxes=_array(self.boxes, np.float64, (t, 4), "boxes"),
            head_boxes=_array(self.head_boxes, np.float64, (t, 4), "head boxes"),
            keypoint_scores=_array(scores, np.float64, (t, k), "keypoint scores"),
            expected_error=_array(self.expected_error, np.float64, (t, k), "expected error"),
        )

    def at(self, frames: Iterable[int]) -> Track:
        """Return the part of the track that lies on the given frames."""
        keep = np.isin(self.frames, np.fromiter(frames, dtype=np.int64))
        return Track(**{each.name: getattr(self, each.name)[keep] for each in fields(self)})

    @property
    def placed(self) -> NDArray[np.bool_]:
        """(t, K) where a labeller has placed a keypoint, visible or hidden: its place is kept exactly."""
        return self.labelled & (self.visibility != ABSENT)

    @property
    def absent(self) -> NDArray[np.bool_]:
        """(t, K) where a labeller says that a keypoint is not there: it gets none."""
        return self.labelled & (self.visibility == ABSENT)

    @property
    def predicted(self) -> NDArray[np.bool_]:
        """(t, K) where a keypoint is that no labeller has placed."""
        return ~self.labelled & (self.visibility != ABSENT)

    @property
    def not_looked_at(self) -> NDArray[np.bool_]:
        """(t, K) where nothing is known: on labelled frames no labeller has looked at the keypoint."""
        return ~self.labelled & (self.visibility == ABSENT)

    @property
    def is_gone(self) -> NDArray[np.bool_]:
        """(t,) where a labeller says of every keypoint that it is not there: as a frame without the track."""
        return np.asarray(self.absent.all(-1))

    def without_predictions(self, rows: NDArray[np.bool_]) -> Track:
        """Return the track without what no labeller has placed in some ``rows`` (t,); the rows stay."""
        dropped = self.predicted & rows[:, None]
        if not dropped.any():
            return self
        return replace(
            self,
            visibility=np.where(dropped, ABSENT, self.visibility),
            keypoint_scores=np.where(dropped, np.nan, self.keypoint_scores),
            expected_error=np.where(dropped, np.nan, self.expected_error),
        )

    @property
    def instance_scores(self) -> Floats:
        """(t,) mean of the known scores of its keypoints; NaN where none is known, 0 without keypoints."""
        there = self.visibility != ABSENT
        known = there & np.isfinite(self.keypoint_scores)
        mean = np.where(known, self.keypoint_scores, 0.0).sum(-1) / np.maximum(known.sum(-1), 1)
        return np.asarray(np.where(known.any(-1) | ~there.any(-1), mean, np.nan))

    @property
    def knows_error(self) -> bool:
        """Whether the expected error of any keypoint is known."""
        return bool(np.isfinite(self.expected_error).any())


def _settle(video: Labels | Poses, labelled: ArrayLike | None) -> None:
    """Sort tracks and labelled frames of a video, and check that they fit its skeleton and its length.

    None for ``labelled`` stands for every frame with an instance.
    """
    if not isinstance(video.skeleton, Skeleton):
        raise wrong_type("the skeleton", video.skeleton, "a posewarper.Skeleton")
    if not isinstance(video.tracks, Mapping) or not all(isinstance(t, Track) for t in video.tracks.values()):
        raise wrong_type("the tracks", video.tracks, "a dict: track id -> Track(frames, keypoints)")
    tracks = {int(i): video.tracks[i] for i in sorted(video.tracks)}
    if labelled is None:
        labelled = np.concatenate([np.zeros(0, np.int64), *(track.frames for track in tracks.values())])
    _set(video, tracks=tracks, labelled_frames=_frame_array(np.unique(labelled), "labelled frames"))
    for track_id, track in tracks.items():
        beyond = ~np.isin(track.frames, video.labelled_frames)[:, None]
        if (track.labelled & beyond).any():
            tracks[track_id] = replace(track, labelled=track.labelled & ~beyond)
        if track.keypoints.shape[1] != len(video.skeleton):
            raise LabelsError(
                f"track {track_id} does not fit the skeleton",
                expected=f"{len(video.skeleton)} keypoints",
                got=f"{track.keypoints.shape[1]} keypoints",
                fix="give every instance the keypoints of the skeleton, in its order",
            )
    frames = [video.labelled_frames, *(track.frames for track in tracks.values())]
    last = max(int(own.max(initial=-1)) for own in frames)
    if video.n_frames is not None and last >= video.n_frames:
        raise LabelsError(
            "a label lies beyond the last frame",
            expected=f"frame indices from 0 to {video.n_frames - 1}",
            got=f"frame {last}",
            fix="check that the labels belong to this video and count frames from 0",
        )


@dataclass(frozen=True)
class Labels:
    """Labels of one video: any skeleton, any number of tracks, any frames.

    Args:
        skeleton: the keypoints' names, edges and mirror pairs.
        tracks: track id -> :class:`Track`.
        labelled_frames: (m,) rising indices of the frames that a labeller has gone through, also those
            where nobody is; frames that hold instances but are missing here hold predictions. Left out:
            every frame with an instance. A track without a row on one of them is not there; a row in which
            nothing is labelled says that the labeller has not looked at this track.
        image_size: (height, width) of the frames that the labels were made on, None if unknown.
        n_frames: frames of the video, None if unknown.
        video: name of the video, as the file gives it.
        frame_names: frame index -> image file name as the file gives it.
        ignore_regions: frame index -> polygons, each (n, 2) xy, in which nothing is scored (PoseTrack).
        track_names: track id -> name, where the file names its tracks ("mouse1").

    Raises:
        LabelsError: if a track has another number of keypoints than the skeleton, or a frame lies beyond
            ``n_frames``.

    Example:
        >>> track = Track([0, 8], [[[1.0, 2.0]], [[5.0, 6.0]]])
        >>> labels = Labels(Skeleton(("nose",)), {0: track}, image_size=(48, 64), n_frames=10)
        >>> labels.at([8]).tracks[0].keypoints.tolist()
        [[[5.0, 6.0]]]
    """

    skeleton: Skeleton
    tracks: Mapping[int, Track]
    labelled_frames: Ints = field(default=None)  # type: ignore[assignment]
    image_size: tuple[int, int] | None = None
    n_frames: int | None = None
    video: str | None = None
    frame_names: Mapping[int, str] = field(default_factory=dict)
    ignore_regions: Mapping[int, tuple[Floats, ...]] = field(default_factory=dict)
    track_names: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _settle(self, self.labelled_frames)

    @property
    def instance_frames(self) -> Ints:
        """Rising indices of the frames that hold at least one instance."""
        frames = [track.frames for track in self.tracks.values()]
        return np.unique(np.concatenate(frames)) if frames else np.zeros(0, np.int64)

    @property
    def labelled_keypoints(self) -> NDArray[np.bool_]:
        """(K,) True for keypoints that are labelled at least once, in any track."""
        seen = np.zeros(len(self.skeleton), bool)
        for track in self.tracks.values():
            seen |= (track.visibility > 0).any(0)
        return seen

    def at(self, frames: Iterable[int]) -> Labels:
        """Return the labels of the given frames alone; tracks without any of them are left out."""
        wanted = np.unique(np.fromiter(frames, dtype=np.int64))
        tracks = {i: track.at(wanted) for i, track in self.tracks.items()}
        return replace(
            self,
            tracks={i: track for i, track in tracks.items() if len(track.frames)},
            labelled_frames=np.intersect1d(self.labelled_frames, wanted),
        )

    def fingerprint(self) -> str:
        """Return a hash over keypoints, boxes, frames and skeleton, the same for equal labels."""
        skeleton, digest = self.skeleton, hashlib.sha256()
        size = None if self.image_size is None else [int(n) for n in self.image_size]
        head = [skeleton.names, skeleton.edges, skeleton.flip_pairs, size, self.n_frames]
        digest.update(json.dumps([*head, self.labelled_frames.tolist()]).encode())
        for track_id, track in self.tracks.items():
            digest.update(f"track {track_id}, {len(track.frames)} labels\n".encode())
            places = track.keypoints, track.visibility, track.labelled
            for array in (track.frames, *places, track.boxes, track.head_boxes):
                digest.update(array.tobytes())
        for frame in sorted(self.ignore_regions):
            regions = [region.tolist() for region in self.ignore_regions[frame]]
            digest.update(json.dumps([int(frame), regions]).encode())
        return digest.hexdigest()

    def only_labelled(self) -> Labels:
        """Return the labels alone, without predictions on frames that nobody has labelled.

        Keypoints of labelled frames that are predicted become such as nobody has looked at.
        """
        return self.at(self.labelled_frames).without_mixed_frames()

    def without_mixed_frames(self) -> Labels:
        """Return the labels without predicted keypoints on labelled frames; those of other frames stay."""
        return replace(
            self,
            tracks={
                i: track.without_predictions(np.isin(track.frames, self.labelled_frames))
                for i, track in self.tracks.items()
            },
        )

    def with_unlabelled_absent(self) -> Labels:
        """Return the labels with everything on labelled frames that is not labelled as absent.

        That is what keypoints without a label mean in files of labellers who always look at all of them. A
        track in whose row nothing is labelled is then not there on that frame.
        """
        tracks = {}
        for track_id, track in self.tracks.items():
            of_labels = np.isin(track.frames, self.labelled_frames)
            whole = replace(track, labelled=track.labelled | (track.not_looked_at & of_labels[:, None]))
            tracks[track_id] = whole.at(track.frames[~whole.is_gone])
        return replace(self, tracks={i: track for i, track in tracks.items() if len(track.frames)})

    def only_track(self, track_id: int) -> Labels:
        """Return one track.

        Raises:
            LabelsError: if there is no such track.
        """
        if track_id not in self.tracks:
            raise LabelsError(
                f"there is no track {track_id}",
                expected=f"one of {list(self.tracks)}",
                got=track_id,
                fix="name a track that the labels hold",
            )
        return replace(self, tracks={track_id: self.tracks[track_id]})


@dataclass(frozen=True)
class Poses:
    """Poses of one video, stored per track.

    Args:
        skeleton: the keypoints' names, edges and mirror pairs.
        tracks: track id -> :class:`Track`.
        image_size: (height, width) of the frames.
        n_frames: frames of the video.
        labelled_frames: (m,) rising indices of the frames that hold labels, kept exactly; which of their
            keypoints are labels, ``Track.labelled`` says.
        video: name of the video.
        frame_names: frame index -> image file name, where the labels gave one.

    Example:
        >>> track = Track([1], [[[3.0, 4.0]]], keypoint_scores=[[0.9]])
        >>> poses = Poses(Skeleton(("nose",)), {0: track}, image_size=(10, 10), n_frames=3)
        >>> poses.tracks[0].instance_scores.tolist()
        [0.9]
    """

    skeleton: Skeleton
    tracks: Mapping[int, Track]
    image_size: tuple[int, int]
    n_frames: int
    labelled_frames: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    video: str | None = None
    frame_names: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if np.shape(self.image_size) != (2,):
            raise wrong_type("the image size", self.image_size, "(height, width) in pixels")
        _settle(self, self.labelled_frames)

    def as_labels(self) -> Labels:
        """Return the poses as labels and predictions, as a file holds them: without empty predictions."""
        kept = {
            i: track.at(track.frames[track.visibility.any(-1) | np.isin(track.frames, self.labelled_frames)])
            for i, track in self.tracks.items()
        }
        some = {i: track for i, track in kept.items() if len(track.frames)}
        facts: dict[str, Any] = vars(self) | {"tracks": some}  # the fields of poses are fields of labels, too
        return Labels(**facts)

    def to_table(self) -> dict[str, NDArray[Any]]:
        """Return the poses as columns with a row for each keypoint, by frame, then track, then keypoint.

        Returns:
            ``frame``, ``track``, ``keypoint`` (its name), ``x``, ``y``, ``visibility``, ``score``,
            ``expected_error`` (pixels) and ``labelled`` (whether a labeller set it): arrays of equal length,
            NaN where nothing is known. ``pandas.DataFrame(poses.to_table())`` makes a data frame.

        Example:
            >>> track = Track([1], [[[3.0, 4.0]]], keypoint_scores=[[0.9]])
            >>> table = Poses(Skeleton(("nose",)), {0: track}, (10, 10), n_frames=3).to_table()
            >>> table["frame"].tolist(), table["keypoint"].tolist(), table["x"].tolist()
            ([1], ['nose'], [3.0])
        """
        k, tracks = len(self.skeleton), self.tracks
        frames = np.concatenate([np.zeros(0, np.int64), *(track.frames for track in tracks.values())])
        ids = np.repeat(np.array(list(tracks), np.int64), [len(track.frames) for track in tracks.values()])
        order = np.lexsort((ids, frames))

        def column(name: str, shape: tuple[int, ...] = ()) -> NDArray[Any]:
            rows = [np.zeros((0, k, *shape)), *(getattr(track, name) for track in tracks.values())]
            return np.concatenate(rows)[order].reshape(-1, *shape)

        xy = column("keypoints", (2,))
        return {
            "frame": np.repeat(frames[order], k),
            "track": np.repeat(ids[order], k),
            "keypoint": np.tile(np.array(self.skeleton.names), len(frames)),
            "x": xy[:, 0],
            "y": xy[:, 1],
            "visibility": column("visibility").astype(np.uint8),
            "score": column("keypoint_scores"),
            "expected_error": column("expected_error"),
            "labelled": column("labelled").astype(bool),
        }

    def dense(self) -> Floats:
        """Return the poses as one array (n_frames, N tracks in order of their ids, K, 2), NaN = not there.

        Example:
            >>> skeleton = Skeleton(("nose",))
            >>> track = Track([1], [[[3.0, 4.0]]], keypoint_scores=[[1.0]])
            >>> Poses(skeleton, {0: track}, (10, 10), n_frames=3).dense()[1, 0]
            array([[3., 4.]])
        """
        dense = np.full((self.n_frames, len(self.tracks), len(self.skeleton), 2), np.nan)
        for n, track in enumerate(self.tracks.values()):
            dense[track.frames, n] = track.keypoints
        return dense


@dataclass(frozen=True)
class RunResult:
    """What one run of ``propagate`` made, for reports and for whoever calls it from Python.

    Args:
        poses: a pose for every frame on which a track is there.
        labels: the labels it came from.
        method: name of the propagation method.
        seconds: stage -> seconds.
        notes: warnings in plain words (keypoints never labelled, tracks that left their crop, ...).
        config: every setting of the run.
        trains_on: whether a model is still being trained, for new videos.
    """

    poses: Poses
    labels: Labels
    method: str
    seconds: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    trains_on: bool = False


NO_TRACK = -1
_COLUMNS = ("rows", "keypoints", "keypoint_scores", "scores", "tracks", "boxes", "head_boxes", "is_person")


@dataclass(frozen=True)
class InstanceTable:
    """Frames and instances of one video, F and n in number.

    Raises:
        LabelsError: if shapes disagree or a row points to no frame.
    """

    video: str
    frame_names: tuple[str, ...]  # F, in the order of the file, "/" between folders, no leading "images/"
    frame_numbers: Ints  # (F,) the dataset's own: PoseTrack17 counts from 1, PoseTrack18 from 0
    rows: Ints  # (n,) for each instance the position of its frame among the F
    keypoints: Floats  # (n, K, 2) xy in pixels, NaN where there is none, as in the other columns of numbers
    keypoint_scores: Floats = field(default=None)  # type: ignore[assignment]  # (n, K)
    scores: Floats = field(default=None)  # type: ignore[assignment]  # (n,) of the instance (its box)
    tracks: Ints = field(default=None)  # type: ignore[assignment]  # (n,) id, NO_TRACK where there is none
    boxes: Floats = field(default=None)  # type: ignore[assignment]  # (n, 4) xywh in pixels
    head_boxes: Floats = field(default=None)  # type: ignore[assignment]  # (n, 4) xywh in pixels
    # (n,) False for what the paper makes no samples of: crowds, instances of another category, annotations
    # without area; None for all.
    is_person: NDArray[np.bool_] = field(default=None)  # type: ignore[assignment]
    # (F,) whether a labeller has gone through the frame; None for all.
    is_labelled: NDArray[np.bool_] = field(default=None)  # type: ignore[assignment]
    image_ids: Ints | None = None  # (F,) ids of the file, None where it has none
    # Position among the F -> polygons, each (m, 2) xy, in which nothing is scored.
    ignore_regions: Mapping[int, tuple[Floats, ...]] = field(default_factory=dict)
    n_frames: int | None = None  # of the whole video, None if unknown
    image_size: tuple[int, int] | None = None  # (height, width), None if unknown
    # The K keypoints; PoseTrack's 17 have the ears that nobody labels.
    skeleton: Skeleton = POSETRACK

    def __post_init__(self) -> None:
        f, k = len(self.frame_names), len(self.skeleton)
        n = len(np.atleast_1d(np.asarray(self.rows)))
        keypoints = np.array(self.keypoints, np.float64)
        if keypoints.shape == (n, k, 2):
            keypoints[~is_there(keypoints)] = np.nan
        columns = {
            "frame_numbers": (np.int64, (f,), 0),
            "rows": (np.int64, (n,), 0),
            "keypoint_scores": (np.float64, (n, k), np.nan),
            "scores": (np.float64, (n,), np.nan),
            "tracks": (np.int64, (n,), NO_TRACK),
            "boxes": (np.float64, (n, 4), np.nan),
            "head_boxes": (np.float64, (n, 4), np.nan),
            "is_person": (bool, (n,), True),
            "is_labelled": (bool, (f,), True),
        }
        values = {name: _array(getattr(self, name), d, s, name, e) for name, (d, s, e) in columns.items()}
        if self.image_ids is not None:
            values["image_ids"] = _array(self.image_ids, np.int64, (f,), "image_ids")
        values["keypoints"] = _array(keypoints, np.float64, (n, k, 2), "keypoints")
        _set(self, **values, frame_names=tuple(str(name) for name in self.frame_names))
        if n and (self.rows.min() < 0 or self.rows.max() >= f):
            raise LabelsError(
                "an instance of a table belongs to no frame of it",
                expected=f"rows from 0 to {f - 1}",
                got=(int(self.rows.min()), int(self.rows.max())),
                fix="list the frame among frame_names",
            )

    @property
    def n_instances(self) -> int:
        """Number of instances in all frames together."""
        return len(self.rows)

    def take(self, instances: ArrayLike) -> InstanceTable:
        """Return some of the instances, by position or (n,) booleans, in the order given; all frames stay."""
        kept = np.arange(self.n_instances)[np.asarray(instances, None if np.size(instances) else np.int64)]
        return replace(self, **{name: getattr(self, name)[kept] for name in _COLUMNS})

    def of_frame(self, row: int) -> InstanceTable:
        """Return the table with the instances of one frame only."""
        return self.take(np.flatnonzero(self.rows == row))
