"""PoseTrack's official evaluation: average precision of the points, and how well they are tracked.

The figures are those of the evaluation code that the original PoseWarper bundles (poseval, with motmetrics
1.0.2), its oddities among them:

* Frames without an annotated person are dropped together with what is predicted there.
* A frame with people but no prediction (or the other way round, once the ignore regions have swallowed
  points) counts, for every point, one object, one miss and one false positive in the tracking.
* The tracking leaves out the last frame of each video.
* A point that is predicted and never annotated has no AP: the mean over all points passes over it, that of
  its group does not exist. A point that is never predicted has an AP of 0.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from posewarper.errors import LabelsError, PosewarperWarning
from posewarper.evaluation.clips import without_nan
from posewarper.evaluation.pairing import VideoPair, check_keypoints, pair_videos
from posewarper.evaluation.scales import head_sizes, is_ignored, match_people
from posewarper.posetrack.points import POINT_KEYPOINTS, POINTS, apply_neck_rule
from posewarper.skeletons import POSETRACK
from posewarper.structures import NO_TRACK, Floats, InstanceTable, Ints, is_there


class PrecisionRecall(NamedTuple):
    """Shares from 0 to 1; ``ap`` and ``recall`` are NaN where there are predictions and nothing to find."""

    ap: float
    precision: float
    recall: float


def score_detections(scores: Floats, hits: NDArray[np.bool_], n_labelled: int) -> PrecisionRecall:
    """Return average precision, and precision and recall with all predictions together.

    The average precision is the area under the envelope of the precision, which falls with the recall.
    Without any prediction all three are 0, also where there is nothing to find.

    Args:
        scores: (n,) of the predicted points.
        hits: (n,) which of them are right.
        n_labelled: number of annotated points.
    """
    if not len(scores):
        return PrecisionRecall(0.0, 0.0, 0.0)
    # The reference turns numpy's default order round, which is not stable. Where of equal scores some are
    # right and some are wrong the figure hangs on it: only the same call gives the same figure.
    order = np.argsort(scores)[::-1]
    found = np.cumsum(hits[order])
    precision = found / np.arange(1, len(found) + 1)
    if n_labelled == 0:
        return PrecisionRecall(np.nan, float(precision[-1]), np.nan)
    recall = found / n_labelled
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.diff(recall, prepend=0.0)
    return PrecisionRecall(float((steps * envelope).sum()), float(precision[-1]), float(recall[-1]))


@dataclass(frozen=True)
class TrackedFrame:
    """G objects and P predictions of a frame, with K points each."""

    objects: Ints  # (G,) track ids of the objects
    tracks: Ints  # (P,) track ids of the predictions, each once
    labelled: NDArray[np.bool_]  # (G, K) points that the objects have
    predicted: NDArray[np.bool_]  # (P, K) points that the predictions have
    distances: Floats  # (G, P, K), NaN where two points cannot be the same


@dataclass(frozen=True)
class TrackingCounts:
    """Events of each of K points, (K,) each."""

    misses: Ints  # objects without a prediction
    switches: Ints  # matches with another track than before
    false_positives: Ints  # predictions without an object
    objects: Ints
    detections: Ints  # matches, switches among them
    distance: Floats  # sum of the distances of the matches


def count_events(frames: Sequence[TrackedFrame], n_points: int) -> TrackingCounts:
    """Follow the objects of one video, with ``n_points`` points each, through its frames in order of time."""
    none = np.zeros(0, np.int64)
    ids = np.unique(np.concatenate([none, *(frame.objects for frame in frames)]))
    tracks = np.unique(np.concatenate([none, *(frame.tracks for frame in frames)]))
    last = np.full((len(ids), n_points), -1)  # the track that each object had, -1 for none
    switches, n_objects, n_predicted, detections = np.zeros((4, n_points), np.int64)
    distance = np.zeros(n_points)
    for frame in frames:
        objects, own = np.searchsorted(ids, frame.objects), np.searchsorted(tracks, frame.tracks)
        within_reach = np.isfinite(frame.distances)
        kept = within_reach & (own[None, :, None] == last[objects][:, None, :])
        # Two objects may remember the same track: the first one in the file has it.
        kept &= np.cumsum(kept, axis=0) == 1
        assigned = _assign(frame, within_reach & ~kept.any(1)[:, None] & ~kept.any(0)[None])
        for row, which in enumerate(objects):
            new = assigned[row].any(0)
            if new.any():
                track = own[assigned[row].argmax(0)]
                switches += new & (last[which] != -1) & (last[which] != track)
                last[which] = np.where(new, track, last[which])
        matched = kept | assigned
        detections += matched.sum((0, 1))
        n_objects += frame.labelled.sum(0)
        n_predicted += frame.predicted.sum(0)
        distance += np.where(matched, frame.distances, 0.0).sum((0, 1))
    misses, false_positives = n_objects - detections, n_predicted - detections
    return TrackingCounts(misses, switches, false_positives, n_objects, detections, distance)


def _assign(frame: TrackedFrame, left: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which of the pairs that are left (G, P, K) are matched, at the least total distance."""
    contested = (left.sum(0) > 1).any(0) | (left.sum(1) > 1).any(0)
    assigned = left.copy()
    for point in np.flatnonzero(contested):
        rows, columns = np.flatnonzero(frame.labelled[:, point]), np.flatnonzero(frame.predicted[:, point])
        pairs = np.ix_(rows, columns)
        distances = frame.distances[..., point][pairs]
        # As motmetrics 1.0.2: a pair out of reach costs a little more than two pairs within.
        cost = np.where(left[..., point][pairs], distances, 2 * np.nanmax(distances) + 1)
        chosen = np.zeros_like(assigned[..., point])
        row, column = linear_sum_assignment(cost)
        chosen[rows[row], columns[column]] = True
        assigned[..., point] &= chosen
    return assigned


GROUPS: dict[str, tuple[str, ...]] = {
    "head": ("head_top", "neck", "nose"),
    **{
        part: (f"right_{part}", f"left_{part}")
        for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    },
}
_N_POINTS = len(POINTS)


@dataclass(frozen=True)
class DetectionFigures:
    """How well points are found, in percent, (15,) each; NaN where a figure does not exist."""

    ap: Floats
    precision: Floats
    recall: Floats

    def to_dict(self) -> dict[str, Any]:
        """Return figures by point, with the total, and the AP by group."""
        return {
            "per_joint": by_point(self.ap),
            "precision": by_point(self.precision),
            "recall": by_point(self.recall),
            "groups": {**by_group(self.ap), "total": total_of(self.ap)},
        }


@dataclass(frozen=True)
class TrackingFigures:
    """How well points are tracked, in percent, (15,) each; NaN where a figure does not exist."""

    mota: Floats
    motp: Floats
    precision: Floats
    recall: Floats
    counts: TrackingCounts

    def to_dict(self) -> dict[str, Any]:
        """Return figures and raw counts by point, and those that PoseTrack's table prints."""
        names = ("misses", "switches", "false_positives", "objects", "detections")
        counts = vars(self.counts)
        return {
            "mota": by_point(self.mota),
            "motp": by_point(self.motp),
            "pre": by_point(self.precision),
            "rec": by_point(self.recall),
            "counts": {
                point: {f"num_{name}": int(counts[name][k]) for name in names}
                for k, point in enumerate(POINTS)
            },
            "sum_distance_of_matches": dict(zip(POINTS, self.counts.distance.tolist(), strict=True)),
            "groups": {
                **{f"mota_{group}": value for group, value in by_group(self.mota).items()},
                "mota_total": total_of(self.mota),
                "motp_total": total_of(self.motp),
                "precision_total": total_of(self.precision),
                "recall_total": total_of(self.recall),
            },
        }


@dataclass(frozen=True)
class PoseTrackScore:
    """The figures of PoseTrack's evaluation.

    Args:
        n_frames: frames that were evaluated.
        detection: how well the points are found.
        tracking: how well they are tracked; None where the files do not tell.
    """

    n_frames: int
    detection: DetectionFigures
    tracking: TrackingFigures | None

    def to_dict(self) -> dict[str, Any]:
        """Return nested dicts that JSON can hold: NaN becomes None."""
        ap, mot = self.detection.to_dict(), self.tracking and self.tracking.to_dict()
        return without_nan({"n_frames_evaluated": self.n_frames, "ap": ap, "mot": mot})


def by_point(values: Floats) -> dict[str, float]:
    """Return figures (15,) by the name of the point, and their ``total``."""
    return {**dict(zip(POINTS, values.tolist(), strict=True)), "total": total_of(values)}


def by_group(values: Floats) -> dict[str, float]:
    """Return the mean of each group of points; NaN if one of its points has no figure."""
    index = {point: k for k, point in enumerate(POINTS)}
    return {group: float(np.mean(values[[index[p] for p in points]])) for group, points in GROUPS.items()}


def total_of(values: Floats) -> float:
    """Return the mean of the figures that exist, NaN if none does."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def score_posetrack(
    truth: Mapping[str, InstanceTable],
    predictions: Mapping[str, InstanceTable],
    *,
    neck: str = "head_bottom",
) -> PoseTrackScore:
    """Compare predictions with annotations as PoseTrack does.

    Args:
        truth: stem of a file -> annotations of one video, with head boxes.
        predictions: stem of a file -> what was predicted, with a score for each point.
        neck: ``head_bottom`` takes the predicted neck as it is; ``shoulders`` puts it between the shoulders.

    Raises:
        LabelsError: if a video or a frame has no predictions, or an annotated person no head box.
        ConfigError: if there is no such rule for the neck.

    Warns:
        PosewarperWarning: if predicted points have no scores, or there can be no tracking figures.
    """
    for side, tables in (("ground truth", truth), ("predictions", predictions)):
        for name, table in tables.items():
            fix = "use another metric, which takes any skeleton (--metric pck or oks)"
            what = f"{side} of {name}: the keypoints are not PoseTrack's"
            check_keypoints(what, table.skeleton, POSETRACK, fix=fix)
    predictions = {name: apply_neck_rule(table, neck) for name, table in predictions.items()}
    # A person without points makes a frame count, although nothing of it is scored.
    pairs = pair_videos(truth, predictions, lambda table: np.unique(table.rows))
    there = [is_there(pair.predictions.keypoints) for pair in pairs]
    known = [~np.isnan(pair.predictions.keypoint_scores) for pair in pairs]
    points = sum(int(own.sum()) for own in there)
    lacking = sum(int((own & ~scored).sum()) for own, scored in zip(there, known, strict=True))
    if lacking:
        text = "the predicted points have no scores, so that all of them count as equally sure"
        if lacking < points:
            text = f"{lacking} of {points} predicted points have no score and rank below all others"
        text = f"{text}; the AP of such predictions says little"
        warnings.warn(text, PosewarperWarning, stacklevel=2)
    *columns, frames = zip(*map(_compare, pairs), strict=True)
    scores, predicted, hits, labelled = (np.concatenate(column) for column in columns)
    figures = [
        score_detections(scores[predicted[:, k], k], hits[predicted[:, k], k], int(labelled[:, k].sum()))
        for k in range(_N_POINTS)
    ]
    obstacle = _find_obstacle(pairs)
    if obstacle:
        warnings.warn(f"no tracking figures: {obstacle}", PosewarperWarning, stacklevel=2)
    return PoseTrackScore(
        sum(len(pair.frames) for pair in pairs),
        DetectionFigures(*(100.0 * np.array(column) for column in zip(*figures, strict=True))),
        None if obstacle else _score_tracking(frames),
    )


def _compare(
    pair: VideoPair,
) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_], list[TrackedFrame]]:
    """Compare the frames of a video in order.

    Returns:
        Of the predicted people (n, 15) scores, which points are there and which are right; of the labelled
        people (m, 15) which points are there; and the frames for the tracking.
    """
    truth, predictions = pair.truth, pair.predictions
    true_points, points = (table.keypoints[:, POINT_KEYPOINTS] for table in (truth, predictions))
    scores = predictions.keypoint_scores[:, POINT_KEYPOINTS]
    scores = np.where(np.isnan(scores), -9999.0, scores)  # a point without a score ranks below all others
    sizes = head_sizes(truth.head_boxes)
    lacking = np.flatnonzero(np.any(is_there(true_points), axis=1) & np.isnan(sizes))
    if lacking.size:
        first = truth.frame_names[truth.rows[lacking[0]]]
        raise LabelsError(
            f"ground truth of {pair.name}: a person has no head box, by which distances are measured",
            expected="x1, y1, x2, y2 (PoseTrack17) or bbox_head (PoseTrack18) for every person with points",
            got=f"{lacking.size} without, the first in {first}",
            fix="use the official annotations as ground truth, or another metric (--metric pck)",
        )
    empty = np.zeros((0, _N_POINTS))
    parts, frames = [(empty, empty > 0, empty > 0, empty > 0)], []
    for frame in pair.frames:
        regions = truth.ignore_regions.get(frame.row, ())
        people, their_points = _scored_people(truth, frame.truth, true_points, regions)
        found, found_points = _scored_people(predictions, frame.predictions, points, regions)
        match = match_people(their_points, sizes[people], found_points)
        labelled, predicted = is_there(their_points), is_there(found_points)
        parts.append((scores[found], predicted, match.hits, labelled))
        if len(people) and len(found):
            tracks = truth.tracks[people], predictions.tracks[found]
            frames.append(TrackedFrame(*tracks, labelled, predicted, match.distances))
        else:  # what stands in the tracking for a frame in which one side has nobody at all
            one, every = np.array([NO_TRACK]), np.ones((1, _N_POINTS), bool)
            frames.append(TrackedFrame(one, one, every, every, np.full((1, 1, _N_POINTS), np.nan)))
    every_score, there, hits, true = (np.concatenate(column) for column in zip(*parts, strict=True))
    return every_score, there, hits, true, frames


def _scored_people(
    table: InstanceTable, instances: Ints, points: Floats, regions: Sequence[Floats]
) -> tuple[Ints, Floats]:
    """Return the instances of a frame that take part, and their points outside of the ignore regions."""
    inside = points[instances]
    if regions:
        inside = np.where(is_ignored(inside, regions)[..., None], np.nan, inside)
    elif table.image_ids is not None:
        # A person without points is there all the same in PoseTrack18's files, and is not in PoseTrack17's.
        return instances, inside
    stays = np.any(is_there(inside), axis=1)
    return instances[stays], inside[stays]


def _score_tracking(videos: Sequence[Sequence[TrackedFrame]]) -> TrackingFigures:
    every = [vars(count_events(frames[:-1], _N_POINTS)).values() for frames in videos]
    counts = TrackingCounts(*(np.sum(events, axis=0) for events in zip(*every, strict=True)))
    errors = counts.misses + counts.switches + counts.false_positives
    n_predicted = counts.false_positives + counts.detections
    with np.errstate(invalid="ignore", divide="ignore"):
        objects = np.where(counts.objects > 0, counts.objects, np.nan)
        mota = 1.0 - errors / objects
        motp = np.where(counts.detections > 0, 1.0 - counts.distance / counts.detections, 0.0)
        precision = counts.detections / np.where(n_predicted > 0, n_predicted, np.nan)
        recall = counts.detections / objects
    return TrackingFigures(100.0 * mota, 100.0 * motp, 100.0 * precision, 100.0 * recall, counts)


def _find_obstacle(pairs: Sequence[VideoPair]) -> str | None:
    """Return why nothing can be said about the tracking, None if something can."""
    if all(len(pair.frames) < 2 for pair in pairs):
        return "no video has two annotated frames, of which the evaluation leaves out the last"
    for pair, frame in ((own, frame) for own in pairs for frame in own.frames):
        where = f"{pair.name} in {pair.truth.frame_names[frame.row]}"
        tracks = pair.predictions.tracks[frame.predictions]
        if (pair.truth.tracks[frame.truth] == NO_TRACK).any():
            return f"ground truth of {where}: a person has no track id"
        if (tracks == NO_TRACK).any():
            return f"predictions of {where}: a person has no track id"
        if len(set(tracks.tolist())) < len(tracks):
            return f"predictions of {where}: several people have the same track id"
    return None
