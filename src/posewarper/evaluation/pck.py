"""PCK: the share of keypoints that are predicted close enough, for any skeleton and any measure of close."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from posewarper.errors import ConfigError, LabelsError, PosewarperWarning
from posewarper.evaluation.clips import without_nan
from posewarper.evaluation.pairing import FramePair, VideoPair, pair_videos
from posewarper.evaluation.scales import reference_lengths
from posewarper.structures import NO_TRACK, Floats, InstanceTable, Ints, is_there

BY_TRACK, BY_DISTANCE = "track id", "least distance"
# By normaliser: 0.5 of the head is PCKh; a distance between two keypoints is usually that of the torso.
DEFAULT_THRESHOLDS = {"head": (0.5,), "box": (0.05, 0.1, 0.2), "pixels": (5.0, 10.0, 20.0)}
TORSO_THRESHOLDS = (0.2,)


@dataclass(frozen=True)
class PckScore:
    """Shares of keypoints in percent; NaN for a keypoint that is never labelled.

    Args:
        keypoints: K names.
        thresholds: T thresholds, in reference lengths.
        normaliser: what the reference length is.
        pck: (T, K) shares of the labelled keypoints within each threshold; one without a prediction is not.
        coverage: share of the labelled keypoints that have a prediction.
        counts: (K,) labelled keypoints.
        n_instances: labelled instances that were scored.
        n_unmatched: those among them without any predicted instance.
        matched_by: how predicted instances were found: ``track id``, or ``least distance`` to each.
    """

    keypoints: tuple[str, ...]
    thresholds: tuple[float, ...]
    normaliser: str
    pck: Floats
    coverage: float
    counts: Ints
    n_instances: int
    n_unmatched: int
    matched_by: str

    @property
    def mean(self) -> Floats:
        """(T,) mean over the keypoints that are labelled."""
        return self.pck[:, self.counts > 0].mean(1)

    def to_dict(self) -> dict[str, Any]:
        """Return nested dicts that JSON can hold: NaN becomes None."""
        rows = zip(self.thresholds, self.pck.tolist(), self.mean.tolist(), strict=True)
        figures = {
            "pck": {
                f"{threshold:g}": {**dict(zip(self.keypoints, row, strict=True)), "total": mean}
                for threshold, row, mean in rows
            },
            "normaliser": self.normaliser,
            "matched_by": self.matched_by,
            "coverage": self.coverage,
            "counts": dict(zip(self.keypoints, self.counts.tolist(), strict=True)),
            "n_instances": self.n_instances,
            "n_unmatched": self.n_unmatched,
        }
        return without_nan(figures)


def score_pck(
    truth: Mapping[str, InstanceTable],
    predictions: Mapping[str, InstanceTable],
    *,
    normaliser: str,
    thresholds: Sequence[float],
    trust_tracks: bool,
) -> PckScore:
    """Measure which keypoints are predicted within a distance of the labelled ones.

    Args:
        truth: stem of a file -> labels of one video, whose labelled frames are scored.
        predictions: stem of a file -> what was predicted.
        normaliser: what distances are divided by, see
            :func:`~posewarper.evaluation.scales.reference_lengths`.
        thresholds: in reference lengths; the border counts as within.
        trust_tracks: match instances by track id in videos where both sides have the same ids. Otherwise, and
            where they have not, a frame's instances are matched at the least total of mean distances.

    Raises:
        LabelsError: if a video or a frame has no predictions, or nothing can be scored.
        ConfigError: if there is no such normaliser, or a threshold is not positive.

    Warns:
        PosewarperWarning: about instances without a reference length, which are left out.
    """
    if not thresholds or not all(np.isfinite(t) and t > 0 for t in thresholds):
        raise ConfigError(
            "thresholds of PCK are positive numbers",
            expected="for example 0.05, 0.1, 0.2",
            got=tuple(thresholds),
            fix="correct the thresholds",
        )
    pairs = pair_videos(truth, predictions)
    by_track = [trust_tracks and have_same_tracks(pair) for pair in pairs]
    parts = [_measure(pair, normaliser, same) for pair, same in zip(pairs, by_track, strict=True)]
    errors, unmatched, without_length = zip(*parts, strict=True)
    error = np.concatenate(errors)
    lacking = sum(without_length)
    if not len(error):
        other = "name another normaliser: head, box, pixels, or two keypoints"
        raise LabelsError(
            "no labelled instance can be scored",
            expected=f"instances with visible keypoints and with what normaliser {normaliser!r} measures",
            got=f"{lacking} instances without the latter" if lacking else "no visible keypoint",
            fix=other if lacking else "use ground truth with labelled keypoints",
        )
    if lacking:
        warnings.warn(
            f"{lacking} of {len(error) + lacking} labelled instances are left out, as they lack what "
            f"normaliser {normaliser!r} measures",
            PosewarperWarning,
            stacklevel=2,
        )
    counts = (~np.isnan(error)).sum(0)
    if not counts.any():
        raise LabelsError("no labelled keypoint can be scored", fix="use ground truth with visible keypoints")
    with np.errstate(invalid="ignore"):
        pck = 100.0 * np.stack([(error <= threshold).sum(0) / counts for threshold in thresholds])
    return PckScore(
        keypoints=pairs[0].truth.skeleton.names,
        thresholds=tuple(float(t) for t in thresholds),
        normaliser=normaliser,
        pck=pck,
        coverage=100.0 * int(np.isfinite(error).sum()) / int(counts.sum()),
        counts=counts,
        n_instances=len(error),
        n_unmatched=sum(unmatched),
        matched_by=" or ".join([BY_TRACK] * any(by_track) + [BY_DISTANCE] * (not all(by_track))),
    )


def have_same_tracks(pair: VideoPair) -> bool:
    """Return whether both sides of a video have the same track ids, each at most once in a frame."""
    ids = []
    for tracks, side in (pair.truth.tracks, "truth"), (pair.predictions.tracks, "predictions"):
        frames = [tracks[getattr(frame, side)].tolist() for frame in pair.frames]
        if any(NO_TRACK in frame or len(set(frame)) < len(frame) for frame in frames):
            return False
        ids.append({track for frame in frames for track in frame})
    return ids[0] == ids[1]


def _measure(pair: VideoPair, normaliser: str, by_track: bool) -> tuple[Floats, int, int]:
    """Return what one video adds.

    Returns:
        Errors (n, K) in reference lengths, NaN without a label and inf without a prediction; the number of
        instances without any prediction; and that of instances without a reference length.
    """
    truth, predictions = pair.truth, pair.predictions
    lengths = reference_lengths(truth, normaliser)
    match = _match_tracks if by_track else _match_nearest
    nobody = np.zeros(0, np.int64)
    row = np.concatenate([nobody, *(frame.truth for frame in pair.frames)])
    partner = np.concatenate([nobody, *(match(pair, frame) for frame in pair.frames)])
    scored = np.any(is_there(truth.keypoints[row]), axis=1)
    known = scored & ~np.isnan(lengths[row])
    row, partner = row[known], partner[known]
    keypoints = np.full((len(row), len(truth.skeleton), 2), np.nan)
    keypoints[partner >= 0] = predictions.keypoints[partner[partner >= 0]]
    labelled = is_there(truth.keypoints[row])
    error = np.linalg.norm(keypoints - truth.keypoints[row], axis=-1) / lengths[row, None]
    error = np.where(labelled & np.isnan(error), np.inf, error)
    return error, int((partner < 0).sum()), int(scored.sum() - known.sum())


def _match_tracks(pair: VideoPair, frame: FramePair) -> Ints:
    """Return for each labelled instance of a frame the prediction of the same track, -1 if there is none."""
    tracks = pair.predictions.tracks[frame.predictions].tolist()
    place = dict(zip(tracks, frame.predictions.tolist(), strict=True))
    return np.array([place.get(track, -1) for track in pair.truth.tracks[frame.truth].tolist()], np.int64)


def _match_nearest(pair: VideoPair, frame: FramePair) -> Ints:
    """Return for each labelled instance of a frame its prediction at the least total of mean distances."""
    partner = np.full(len(frame.truth), -1)
    if not len(frame.truth) or not len(frame.predictions):
        return partner
    step = pair.truth.keypoints[frame.truth][:, None] - pair.predictions.keypoints[frame.predictions][None]
    distance = np.hypot(step[..., 0], step[..., 1])
    common = ~np.isnan(distance)
    total = np.where(common, distance, 0.0).sum(-1)
    mean = total / np.maximum(common.sum(-1), 1)
    comparable = np.asarray(np.any(common, axis=-1))
    # Without a keypoint in common two instances say nothing about each other.
    far = mean.sum() + 1.0
    rows, columns = linear_sum_assignment(np.where(comparable, mean, far))
    paired = comparable[rows, columns]
    partner[rows[paired]] = frame.predictions[columns[paired]]
    return partner
