"""Tracks, frame after frame: which instance continues which earlier track.

Each track has a pose, which moves on with the smoothed velocity of the whole body. The instances of a new
frame go to the tracks at the greatest total similarity (Hungarian assignment): object keypoint similarity
over the keypoints that both show, and where these are few, the overlap of the boxes. Only the present and
the past enter, and the state can be saved and restored exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from posewarper.errors import ConfigError
from posewarper.options import TrackSettings
from posewarper.structures import NO_TRACK, Floats, Ints, is_there
from posewarper.video.track_crops import instance_boxes


def confident(keypoints: Floats, scores: Floats, threshold: float) -> NDArray[np.bool_]:
    """Return (n, K) which keypoints (n, K, 2) are there with a score of at least the threshold."""
    with np.errstate(invalid="ignore"):
        return is_there(keypoints) & (scores >= threshold)


def shared_similarity(
    first: Floats, first_boxes: Floats, second: Floats, second_boxes: Floats, sigmas: Floats
) -> tuple[Floats, Ints]:
    """Return the object keypoint similarity over the keypoints that both have, and their number.

    Args:
        first: (A, K, 2) xy in pixels, NaN where there is none.
        first_boxes: (A, 4) xywh; the area of a pair is the mean of its two boxes.
        second: (B, K, 2).
        second_boxes: (B, 4).
        sigmas: (K,) how far keypoints scatter, as a share of the square root of the area.

    Returns:
        (A, B) mean over shared keypoints of exp(-distance^2 / (2 area (2 sigma)^2)), 0 where none is shared,
        and (A, B) how many are shared.
    """
    shared = is_there(first)[:, None] & is_there(second)[None]
    step = np.where(shared[..., None], first[:, None] - second[None], 0.0)
    area = (first_boxes[:, None, 2:].prod(-1) + second_boxes[None, :, 2:].prod(-1)) / 2
    spread = 2 * (area[..., None] + np.spacing(1)) * (2 * sigmas) ** 2
    alike = np.where(shared, np.exp(-(step**2).sum(-1) / spread), 0.0).sum(-1)
    n_shared = shared.sum(-1)
    return alike / np.maximum(n_shared, 1), n_shared


def box_overlap(first: Floats, second: Floats) -> Floats:
    """Return the intersection over union (A, B) of boxes (A, 4) and (B, 4) xywh; 0 for boxes of no size."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum((first[:, :2] + first[:, 2:])[:, None], (second[:, :2] + second[:, 2:])[None])
    common = np.maximum(high - low, 0).prod(-1)
    union = first[:, 2:].prod(-1)[:, None] + second[:, 2:].prod(-1)[None] - common
    return common / np.maximum(union, np.spacing(1))


def suppress_doubles(similarity: Floats, scores: Floats, threshold: float) -> NDArray[np.bool_]:
    """Return which instances stay when each, best first, removes those more similar than the threshold.

    A row of ``similarity`` (n, n) says how similar the others are to the instance, 1 where equal. Of equal
    scores (n,) the earlier instance goes first.
    """
    stays = np.ones(len(scores), bool)
    for best in np.argsort(-scores, kind="stable"):
        if stays[best]:
            doubles = similarity[best] > threshold
            doubles[best] = False
            stays &= ~doubles
    return stays


def single_poses(
    keypoints: Floats,
    keypoint_scores: Floats,
    boxes: Floats,
    scores: Floats,
    sigmas: ArrayLike,
    *,
    threshold: float,
    keypoint_threshold: float,
) -> NDArray[np.bool_]:
    """Return which poses (n,) of one frame stay when doubles of better ones are removed.

    Each pose, best first, removes those whose object keypoint similarity to it, over all of their own
    confident keypoints, is above the threshold. A keypoint that it lacks counts as 0, so that a part of a
    body does not remove the whole, and somebody half behind another stays. A pose without any confident
    keypoint is judged by the overlap of its box (intersection over union) with the same threshold.

    Args:
        keypoints: (n, K, 2) xy in pixels, NaN where there is none.
        keypoint_scores: (n, K).
        boxes: (n, 4) xywh in pixels, from which the areas are taken.
        scores: (n,) of the instances; of equal scores the earlier instance is the better.
        sigmas: (K,) how far keypoints scatter, as a share of the square root of the area
            (:func:`posewarper.evaluation.oks.usual_sigmas`).
        threshold: similarity above which a pose is a double. At 0.9 all keypoints lie within about one
            labeller's deviation of each other, which two people who cross do not come to.
        keypoint_threshold: score from which a keypoint is confident.
    """
    sure = confident(keypoints, keypoint_scores, keypoint_threshold)
    shown = np.where(sure[..., None], keypoints, np.nan)
    alike, n_shared = shared_similarity(shown, boxes, shown, boxes, np.asarray(sigmas, np.float64))
    n_sure = sure.sum(-1)
    explained = alike * n_shared / np.maximum(n_sure, 1)
    similarity = np.where(n_sure > 0, explained, box_overlap(boxes, boxes))
    return suppress_doubles(similarity, np.asarray(scores, np.float64), threshold)


_NEVER = -1
# From this share of the keypoints on, the pose alone decides; below it, boxes fill in.
_ENOUGH_KEYPOINTS = 0.5


@dataclass(frozen=True)
class _Tracks:
    """The m live tracks, as they are expected in the frame that was looked at last."""

    ids: Ints  # (m,)
    keypoints: Floats  # (m, K, 2), NaN for those never seen; what is hidden now moves along with the body
    seen: Ints  # (m, K) frame in which a keypoint was last seen, _NEVER
    velocities: Floats  # (m, 2) of the whole body, pixels a frame
    moving: NDArray[np.bool_]  # (m,) whether the velocity has been measured
    boxes: Floats  # (m, 4) xywh
    good: Ints  # (m,) frame of the last good pose

    def take(self, which: ArrayLike) -> _Tracks:
        return _Tracks(*(column[which] for column in vars(self).values()))

    def join(self, others: _Tracks) -> _Tracks:
        pairs = zip(vars(self).values(), vars(others).values(), strict=True)
        return _Tracks(*(np.concatenate(pair) for pair in pairs))


class Tracker:
    """Gives the instances of a video, frame after frame, the ids of their tracks.

    Args:
        sigmas: (K,) how far keypoints scatter, as a share of the square root of the box's area
            (:func:`posewarper.evaluation.oks.usual_sigmas`).
        settings: see :class:`posewarper.options.TrackSettings`. A poor pose gets the id of the track that it
            continues, but begins none and does not keep one alive.

    Raises:
        ConfigError: if the sigmas are not one positive number a keypoint.
    """

    def __init__(self, sigmas: ArrayLike, settings: TrackSettings | None = None) -> None:
        self.sigmas: Floats = np.array(sigmas, np.float64)
        self.settings = settings or TrackSettings()
        if self.sigmas.ndim != 1 or not len(self.sigmas) or not (self.sigmas > 0).all():
            raise ConfigError(
                "the sigmas of the tracks are impossible",
                expected="one positive number for each keypoint",
                got=self.sigmas.tolist(),
                fix="give how far each keypoint scatters, as a share of the square root of the area",
            )
        self._frame: int | None = None
        self._last_id = 0
        self._tracks = _no_tracks(len(self.sigmas))

    def update(
        self, frame: int, keypoints: Floats, keypoint_scores: Floats, boxes: Floats, scores: Floats
    ) -> Ints:
        """Take in the instances of the next frame and return the ids (n,) of their tracks.

        Ids count from 1 and are never used again; ``NO_TRACK`` (-1) is the id of an instance that continues
        no track and is not good enough to begin one.

        Args:
            frame: index of the frame; frames may be left out.
            keypoints: (n, K, 2) xy in pixels, NaN where there is none. Doubles should have been removed.
            keypoint_scores: (n, K) from 0 to 1.
            boxes: (n, 4) xywh in pixels, tight and finite.
            scores: (n,) from 0 to 1.

        Raises:
            ValueError: if the frame is not later than the one before, or shapes disagree.
        """
        n, k = len(keypoints), len(self.sigmas)
        shapes = [np.shape(a) for a in (keypoints, keypoint_scores, boxes, scores)]
        if shapes != [(n, k, 2), (n, k), (n, 4), (n,)]:
            raise ValueError(f"expected (n, {k}, 2), (n, {k}), (n, 4) and (n,), got {shapes}")
        tracks = self._tracks_at(frame)
        sure = confident(keypoints, keypoint_scores, self.settings.keypoint_score)
        shown = np.where(sure[..., None], keypoints, np.nan)
        good = np.nan_to_num(keypoint_scores).mean(1) >= self.settings.pose_score
        mine, theirs = self._assign(tracks, shown, boxes)
        ids = np.full(n, NO_TRACK, np.int64)
        ids[theirs] = tracks.ids[mine]
        tracks = self._follow(tracks, mine, frame, shown[theirs], boxes[theirs], good[theirs])
        fresh = np.flatnonzero((ids == NO_TRACK) & good & (scores >= self.settings.start_score))
        ids[fresh] = self._last_id + 1 + np.arange(len(fresh))
        begun = _begin(ids[fresh], frame, shown[fresh], boxes[fresh])
        self._frame, self._last_id = frame, self._last_id + len(fresh)
        self._tracks = tracks.join(begun)
        return ids

    def forget(self) -> None:
        """End all tracks: another scene begins. Their ids are not used again."""
        self._tracks = _no_tracks(len(self.sigmas))

    def expected_boxes(self, frame: int) -> tuple[Ints, Floats]:
        """Return the ids (m,) of the live tracks and where they are expected in a later frame.

        Returns:
            Ids, rising, and (m, 4) boxes xywh in pixels: the extent of the keypoints, moved on, at least 16
            pixels a side and without other padding. Keypoints that have been hidden for more than
            ``patience`` frames do not count; where fewer than two are left, it is the last box, moved on.

        Raises:
            ValueError: if the frame is not later than the one before.
        """
        tracks = self._tracks_at(frame)
        recent = (tracks.seen != _NEVER) & (frame - tracks.seen <= self.settings.patience + 1)
        return tracks.ids, instance_boxes(np.where(recent[..., None], tracks.keypoints, np.nan), tracks.boxes)

    def state_dict(self) -> dict[str, Any]:
        """Return the state, without the settings, in values that JSON holds exactly; NaN is None."""
        columns = {name: _or_none(column.tolist()) for name, column in vars(self._tracks).items()}
        return {"frame": self._frame, "last_id": self._last_id, "tracks": columns}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a state that :meth:`state_dict` returned.

        Raises:
            ConfigError: if it is the state of a tracker with another number of keypoints.
        """
        k, columns = len(self.sigmas), state["tracks"]
        if any(len(row) != k for row in columns["seen"]):
            raise ConfigError(
                "the saved tracks have another number of keypoints",
                expected=k,
                got=len(columns["seen"][0]),
                fix="resume with the model that they were made with, or begin anew",
            )
        empty = vars(_no_tracks(k)).items()
        loaded = {n: np.array(columns[n], old.dtype).reshape(-1, *old.shape[1:]) for n, old in empty}
        self._tracks = _Tracks(**loaded)
        self._frame, self._last_id = state["frame"], state["last_id"]

    def _tracks_at(self, frame: int) -> _Tracks:
        """Return the tracks that are live in a later frame, moved on to it by their velocities."""
        if self._frame is None:
            return self._tracks
        if frame <= self._frame:
            raise ValueError(f"frame {frame} comes after frame {self._frame}; frames must rise")
        tracks = self._tracks.take(frame - self._tracks.good <= self.settings.patience + 1)
        move = tracks.velocities * (frame - self._frame)
        boxes = tracks.boxes + np.pad(move, ((0, 0), (0, 2)))
        return replace(tracks, keypoints=tracks.keypoints + move[:, None], boxes=boxes)

    def _assign(self, tracks: _Tracks, shown: Floats, boxes: Floats) -> tuple[Ints, Ints]:
        """Return positions of the tracks and of the instances that belong together."""
        alike, n_shared = shared_similarity(tracks.keypoints, tracks.boxes, shown, boxes, self.sigmas)
        weight = np.minimum(n_shared / (_ENOUGH_KEYPOINTS * len(self.sigmas)), 1.0)
        similarity = weight * alike + (1 - weight) * box_overlap(tracks.boxes, boxes)
        # What is out of reach gains nothing, so that it does not bend the other pairs.
        similarity = np.where(similarity >= self.settings.least_similarity, similarity, 0.0)
        mine, theirs = linear_sum_assignment(similarity, maximize=True)
        within = similarity[mine, theirs] > 0
        return mine[within].astype(np.int64), theirs[within].astype(np.int64)

    def _follow(
        self, tracks: _Tracks, mine: Ints, frame: int, shown: Floats, boxes: Floats, good: NDArray[np.bool_]
    ) -> _Tracks:
        """Return the tracks with the poses (c, K, 2) and boxes (c, 4) that some of them (c,) go on with."""
        columns = {name: column.copy() for name, column in vars(tracks).items()}
        step = shown - tracks.keypoints[mine]
        shared = is_there(step)
        moved = np.asarray(shared.any(1))
        # Without a keypoint to go by, the pose moves as the box does.
        shift = (boxes - tracks.boxes[mine])[:, :2] + (boxes - tracks.boxes[mine])[:, 2:] / 2
        if moved.any():
            gap = (frame - tracks.seen[mine])[moved, :, None]
            shift[moved] = np.nanmedian(step[moved], axis=1)
            pace = np.nanmedian(step[moved] / gap, axis=1)
            gap = np.nanmedian(np.where(shared[moved], gap[..., 0], np.nan), axis=1)
            known, smoothing = tracks.moving[mine[moved]], self.settings.smoothing
            gain = np.where(known, 1 - (1 - smoothing) ** gap, float(smoothing > 0))
            columns["velocities"][mine[moved]] += gain[:, None] * pace
            columns["moving"][mine[moved]] = True
        there = is_there(shown)
        hidden = tracks.keypoints[mine] + shift[:, None]
        columns["keypoints"][mine] = np.where(there[..., None], shown, hidden)
        columns["seen"][mine] = np.where(there, frame, tracks.seen[mine])
        columns["boxes"][mine] = boxes
        columns["good"][mine[good]] = frame
        lost = columns["good"] != frame
        columns["velocities"][lost] *= self.settings.fading
        return _Tracks(**columns)


def _no_tracks(k: int) -> _Tracks:
    none = np.zeros(0, np.int64)
    return _begin(none, 0, np.zeros((0, k, 2)), np.zeros((0, 4)))


def _begin(ids: Ints, frame: int, shown: Floats, boxes: Floats) -> _Tracks:
    n = len(ids)
    return _Tracks(
        ids=ids,
        keypoints=np.asarray(shown, np.float64),
        seen=np.where(is_there(shown), frame, _NEVER).astype(np.int64),
        velocities=np.zeros((n, 2)),
        moving=np.zeros(n, bool),
        boxes=np.asarray(boxes, np.float64),
        good=np.full(n, frame, np.int64),
    )


def _or_none(value: Any) -> Any:
    """Return nested lists with None in the place of NaN."""
    if isinstance(value, list):
        return [_or_none(item) for item in value]
    return None if value != value else value
