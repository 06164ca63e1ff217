"""OKS AP: average precision over whole instances by object keypoint similarity, as COCO defines it.

The area of an instance is that of its box. COCO's own annotations give that of the person's outline, about
half of it, with which the same error is a lower similarity.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from posewarper.errors import ConfigError, PosewarperWarning
from posewarper.evaluation.clips import without_nan
from posewarper.evaluation.pairing import VideoPair, pair_videos
from posewarper.evaluation.scales import boxes_or_extents, is_ignored
from posewarper.skeletons import COCO, Skeleton
from posewarper.structures import Floats, InstanceTable, is_there

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MAX_PREDICTIONS = 20  # of a frame, the best first
AREAS = {"all": (0.0, 1e10), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}

_COCO_SIGMAS = (
    *(0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072),
    *(0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
)
# What is usual for PoseTrack: COCO's by position, so that head_bottom and head_top have those of the eyes.
SIGMAS = dict(zip(COCO.names, _COCO_SIGMAS, strict=True)) | {"head_bottom": 0.025, "head_top": 0.025}


@dataclass(frozen=True)
class OksScore:
    """COCO's figures in percent; NaN where there is nothing to find.

    Args:
        figures: ``AP`` (mean over similarities of 0.50 to 0.95), ``AP50``, ``AP75``, ``APM`` and ``APL``
            (medium and large instances), and the recalls ``AR``, ``AR50``, ``AR75``, ``ARM``, ``ARL``.
        sigmas: keypoint -> how far labellers differ, as a share of the square root of the area.
        n_instances: labelled instances with keypoints.
        n_predictions: predicted instances on the scored frames.
    """

    figures: Mapping[str, float]
    sigmas: Mapping[str, float]
    n_instances: int
    n_predictions: int

    def to_dict(self) -> dict[str, Any]:
        """Return nested dicts that JSON can hold: NaN becomes None."""
        figures = asdict(self)
        return without_nan({"oks": figures.pop("figures"), **figures})


def usual_sigmas(skeleton: Skeleton) -> tuple[float, ...]:
    """Return the sigmas of COCO's and PoseTrack's keypoints; 0.1 for all of any other skeleton."""
    if set(skeleton.names) <= set(SIGMAS):
        return tuple(SIGMAS[name] for name in skeleton.names)
    return (0.1,) * len(skeleton)


def score_oks(
    truth: Mapping[str, InstanceTable],
    predictions: Mapping[str, InstanceTable],
    *,
    sigmas: Sequence[float] | None = None,
) -> OksScore:
    """Compare predicted with labelled instances as COCO does, video after video.

    Args:
        truth: stem of a file -> labels of one video, whose labelled frames are scored. What lies in an
            ignore region does not count on either side.
        predictions: stem of a file -> what was predicted. An instance without a score has the mean of its
            keypoints' scores.
        sigmas: (K,) one for each keypoint; :func:`usual_sigmas` when left out.

    Raises:
        LabelsError: if a video or a frame has no predictions.
        ConfigError: if the sigmas do not fit the skeleton.

    Warns:
        PosewarperWarning: if predicted instances have no score.
    """
    pairs = pair_videos(truth, predictions)
    scores = [_instance_scores(pair.predictions) for pair in pairs]
    lacking = sum(int(np.isnan(part).sum()) for part in scores)
    if lacking:
        warnings.warn(
            f"{lacking} of {sum(map(len, scores))} predicted instances have no score and get 1; "
            "the AP of predictions without scores says little",
            PosewarperWarning,
            stacklevel=2,
        )
    skeleton = pairs[0].truth.skeleton
    chosen = usual_sigmas(skeleton) if sigmas is None else tuple(float(s) for s in sigmas)
    if len(chosen) != len(skeleton) or not all(s > 0 for s in chosen):
        raise ConfigError(
            "the sigmas do not fit the skeleton",
            expected=f"{len(skeleton)} positive numbers",
            got=chosen,
            fix="give one for each keypoint, in the order of the skeleton",
        )
    given = zip(pairs, scores, strict=True)
    frames = [f for pair, own in given for f in _compare(pair, np.nan_to_num(own, nan=1.0), np.array(chosen))]
    return OksScore(
        _figures(frames),
        dict(zip(skeleton.names, chosen, strict=True)),
        sum(int((~frame.without_keypoints).sum()) for frame in frames),
        sum(len(frame.scores) for frame in frames),
    )


def similarity(truth: Floats, boxes: Floats, predicted: Floats, sigmas: Floats) -> Floats:
    """Return the object keypoint similarity (G, P) of labelled and predicted instances.

    Args:
        truth: (G, K, 2), NaN where nothing is labelled. An instance without any keypoint is as similar as
            the prediction is near to its box.
        boxes: (G, 4) xywh, whose areas are the instances' areas.
        predicted: (P, K, 2), NaN where nothing is predicted, which counts as infinitely far.
        sigmas: (K,).
    """
    labelled = is_there(truth)
    step = truth[:, None] - predicted[None]
    low, high = boxes[:, :2] - boxes[:, 2:], boxes[:, :2] + 2 * boxes[:, 2:]
    beyond = np.maximum(low[:, None, None] - predicted, 0) + np.maximum(predicted - high[:, None, None], 0)
    empty = np.asarray(~np.any(labelled, axis=1))
    step = np.where(empty[:, None, None, None], beyond, step)
    area = boxes[:, 2] * boxes[:, 3] + np.spacing(1)
    error = (step**2).sum(-1) / (2 * sigmas) ** 2 / area[:, None, None] / 2
    counted = labelled | empty[:, None]
    alike = np.where(np.isnan(error), 0.0, np.exp(-error))
    return np.where(counted[:, None], alike, 0.0).sum(-1) / np.maximum(counted.sum(-1), 1)[:, None]


class _Frame(NamedTuple):
    """A frame's predictions, the best first, beside its labelled instances."""

    scores: Floats  # (P,)
    areas: Floats  # (P,) of the predictions, in square pixels
    true_areas: Floats  # (G,)
    without_keypoints: NDArray[np.bool_]  # (G,)
    similarity: Floats  # (G, P)


def _compare(pair: VideoPair, scores: Floats, sigmas: Floats) -> Iterator[_Frame]:
    boxes = boxes_or_extents(pair.truth.keypoints, pair.truth.boxes)
    for frame in pair.frames:
        people, found = frame.truth, frame.predictions
        truth, predicted = pair.truth.keypoints[people], pair.predictions.keypoints[found]
        regions = pair.truth.ignore_regions.get(frame.row, ())
        if regions:
            truth = np.where(is_ignored(truth, regions)[..., None], np.nan, truth)
            predicted = np.where(is_ignored(predicted, regions)[..., None], np.nan, predicted)
        kept = np.flatnonzero(np.any(is_there(predicted), axis=1))
        kept = kept[np.argsort(-scores[found[kept]], kind="stable")[:MAX_PREDICTIONS]]
        found, predicted = found[kept], predicted[kept]
        span = np.nanmax(predicted, 1) - np.nanmin(predicted, 1) if len(predicted) else np.zeros((0, 2))
        yield _Frame(
            scores[found],
            span.prod(-1),
            boxes[people][:, 2:].prod(-1),
            np.asarray(~np.any(is_there(truth), axis=1)),
            similarity(truth, boxes[people], predicted, sigmas),
        )


def _instance_scores(table: InstanceTable) -> Floats:
    """Return the score (n,) of each instance, that of its box or the mean of its keypoints; NaN for none."""
    known = ~np.isnan(table.keypoint_scores)
    total = np.where(known, table.keypoint_scores, 0.0).sum(1)
    means = np.where(known.any(1), total / np.maximum(known.sum(1), 1), np.nan)
    return np.where(np.isnan(table.scores), means, table.scores)


def _figures(frames: Sequence[_Frame]) -> dict[str, float]:
    precision, recall = zip(*(_curves(frames, *limits) for limits in AREAS.values()), strict=True)
    figures = {}
    for kind, values in (("AP", [p.mean(1) for p in precision]), ("AR", recall)):
        every, medium, large = values
        figures[kind] = every.mean()
        figures[f"{kind}50"], figures[f"{kind}75"] = every[0], every[5]
        figures[f"{kind}M"], figures[f"{kind}L"] = medium.mean(), large.mean()
    return {name: 100.0 * float(value) for name, value in figures.items()}


def _curves(frames: Sequence[_Frame], least: float, most: float) -> tuple[Floats, Floats]:
    """Return for a range of areas the precisions (T, R) at the recalls, and the recalls reached (T,)."""
    scores = np.concatenate([np.zeros(0), *(frame.scores for frame in frames)])
    none = np.zeros((len(THRESHOLDS), 0), bool)
    matches = [(none, none, 0), *(_match(frame, least, most) for frame in frames)]
    matched, ignored = (np.concatenate([m[side] for m in matches], axis=1) for side in (0, 1))
    n_truth = sum(m[2] for m in matches)
    if n_truth == 0:
        return np.full((len(THRESHOLDS), len(RECALLS)), np.nan), np.full(len(THRESHOLDS), np.nan)
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum((matched & ~ignored)[:, order], axis=1)
    false = np.cumsum((~matched & ~ignored)[:, order], axis=1)
    recall = hits / n_truth
    precision = hits / (hits + false + np.spacing(1))
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    sampled = np.zeros((len(THRESHOLDS), len(RECALLS)))
    for t in range(len(THRESHOLDS)):
        place = np.searchsorted(recall[t], RECALLS, side="left")
        reached = place < recall.shape[1]
        sampled[t, reached] = envelope[t, place[reached]]
    return sampled, recall[:, -1] if len(scores) else np.zeros(len(THRESHOLDS))


def _match(frame: _Frame, least: float, most: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_], int]:
    """Return which predictions (T, P) find somebody, which do not count, and how many there are to find.

    Prediction after prediction takes the most similar instance that is free, the last one on a tie; one that
    does not count (no keypoints, or another size) only if no other is similar enough.
    """
    outside = (frame.true_areas < least) | (frame.true_areas > most) | frame.without_keypoints
    n_truth, n_predictions = frame.similarity.shape
    shape = (len(THRESHOLDS), n_predictions)
    matched, ignored = np.zeros(shape, bool), np.zeros(shape, bool)
    free = np.ones((len(THRESHOLDS), n_truth), bool)
    every = np.arange(len(THRESHOLDS))
    for p in range(n_predictions if n_truth else 0):
        alike = frame.similarity[:, p]
        usable = free & (alike >= THRESHOLDS[:, None])
        usable &= ~(outside & np.any(usable & ~outside, axis=1, keepdims=True))
        best = n_truth - 1 - np.where(usable, alike, -1.0)[:, ::-1].argmax(1)
        hit = np.asarray(np.any(usable, axis=1))
        matched[:, p], ignored[:, p] = hit, hit & outside[best]
        free[every[hit], best[hit]] = False
    out_of_range = (frame.areas < least) | (frame.areas > most)
    return matched, ignored | (~matched & out_of_range), int((~outside).sum())
