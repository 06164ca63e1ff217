"""Multiple object tracking (CLEAR MOT), for all points of a skeleton side by side.

An object keeps the track that it had when it was last matched, as long as the two are within reach; what is
left is assigned at the least total distance, and an object that gets another track than before is a switch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from posewarper.structures import Floats, Ints

_NOBODY = -1


@dataclass(frozen=True)
class TrackedFrame:
    """G objects and P predictions of a frame, with K points each.

    Args:
        objects: (G,) track ids of the objects.
        tracks: (P,) track ids of the predictions, each once.
        labelled: (G, K) points that the objects have.
        predicted: (P, K) points that the predictions have.
        distances: (G, P, K), NaN where two points cannot be the same.
    """

    objects: Ints
    tracks: Ints
    labelled: NDArray[np.bool_]
    predicted: NDArray[np.bool_]
    distances: Floats


@dataclass(frozen=True)
class TrackingCounts:
    """Events of each of K points; ``detections`` are the matches, switches among them.

    Args:
        misses: (K,) objects without a prediction.
        switches: (K,) matches with another track than before.
        false_positives: (K,) predictions without an object.
        objects: (K,) objects.
        detections: (K,) matches.
        distance: (K,) sum of the distances of the matches.
    """

    misses: Ints
    switches: Ints
    false_positives: Ints
    objects: Ints
    detections: Ints
    distance: Floats

    def __add__(self, other: TrackingCounts) -> TrackingCounts:
        """Return the events of both."""
        mine, theirs = vars(self), vars(other)
        return TrackingCounts(**{name: mine[name] + theirs[name] for name in mine})


def no_counts(n_points: int) -> TrackingCounts:
    """Return the counts of no frame at all."""
    none = np.zeros(n_points, np.int64)
    return TrackingCounts(none, none, none, none, none, np.zeros(n_points))


def count_events(frames: Sequence[TrackedFrame], n_points: int) -> TrackingCounts:
    """Follow the objects of one video through its frames.

    Args:
        frames: in the order of time.
        n_points: K.
    """
    ids = np.unique(np.concatenate([np.zeros(0, np.int64), *(frame.objects for frame in frames)]))
    tracks = np.unique(np.concatenate([np.zeros(0, np.int64), *(frame.tracks for frame in frames)]))
    last = np.full((len(ids), n_points), _NOBODY)  # the track that each object had
    counts = no_counts(n_points)
    for frame in frames:
        counts = counts + _count_frame(
            frame, last, np.searchsorted(ids, frame.objects), np.searchsorted(tracks, frame.tracks)
        )
    return counts


def _count_frame(frame: TrackedFrame, last: Ints, objects: Ints, tracks: Ints) -> TrackingCounts:
    """Return the events of one frame, and note in ``last`` who was matched with whom."""
    within_reach = np.isfinite(frame.distances)
    before = last[objects]
    kept = within_reach & (tracks[None, :, None] == before[:, None, :])
    # Two objects may remember the same track: the first one in the file has it.
    kept &= np.cumsum(kept, axis=0) == 1
    left = within_reach & ~kept.any(1)[:, None] & ~kept.any(0)[None]
    assigned = _assign(frame, left)
    switches = np.zeros(last.shape[1], np.int64)
    for row, which in enumerate(objects):
        new = assigned[row].any(0)
        if new.any():
            track = tracks[assigned[row].argmax(0)]
            switches += new & (last[which] != _NOBODY) & (last[which] != track)
            last[which] = np.where(new, track, last[which])
    matched = kept | assigned
    detections = matched.sum((0, 1))
    n_objects, n_predicted = frame.labelled.sum(0), frame.predicted.sum(0)
    distance = np.where(matched, frame.distances, 0.0).sum((0, 1))
    return TrackingCounts(
        n_objects - detections, switches, n_predicted - detections, n_objects, detections, distance
    )


def _assign(frame: TrackedFrame, left: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which of the pairs that are left (G, P, K) are matched, at the least total distance."""
    contested = ((left.sum(0) > 1).any(0)) | ((left.sum(1) > 1).any(0))
    assigned = left.copy()
    for point in np.flatnonzero(contested):
        rows, columns = np.flatnonzero(frame.labelled[:, point]), np.flatnonzero(frame.predicted[:, point])
        distances = frame.distances[np.ix_(rows, columns, [point])][..., 0]
        # As motmetrics 1.0.2: a pair out of reach costs a little more than two pairs within.
        cost = np.where(left[np.ix_(rows, columns, [point])][..., 0], distances, 2 * np.nanmax(distances) + 1)
        chosen = np.zeros_like(assigned[..., point])
        pairs = linear_sum_assignment(cost)
        chosen[rows[pairs[0]], columns[pairs[1]]] = True
        assigned[..., point] &= chosen
    return assigned
