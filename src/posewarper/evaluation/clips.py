"""Scores of poses on a clip whose frames are all labelled, when only some of the labels were used.

Errors are in percent of the longer side of the dense label's box, so that clips can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posewarper.errors import ConfigError, LabelsError
from posewarper.evaluation.pairing import check_keypoints
from posewarper.evaluation.scales import boxes_or_extents
from posewarper.structures import ABSENT, Floats, Labels, Poses, Track


@dataclass(frozen=True)
class ErrorFigures:
    """Figures of a set of scored keypoints; all but ``n`` are in percent, and NaN when ``n`` is 0.

    Args:
        mean: mean error, a missing prediction counting as 100.
        median: median error.
        p95: error that 95 of 100 keypoints stay below.
        pck05: share of keypoints with an error of at most 5.
        pck10: share of keypoints with an error of at most 10.
        coverage: share of keypoints with a prediction.
        n: number of scored keypoints.
    """

    mean: float
    median: float
    p95: float
    pck05: float
    pck10: float
    coverage: float
    n: int


@dataclass(frozen=True)
class ClipScore(ErrorFigures):
    """The figures over all keypoints that :func:`score_clip` scored, and those of parts.

    Args:
        between: the same for frames between a track's first and last kept label.
        beyond: the same for frames before the first or after the last.
        per_keypoint: keypoint name -> mean error in percent, NaN where it was not scored.
        per_keypoint_pck05: keypoint name -> share with an error of at most 5 percent, NaN likewise.
    """

    between: ErrorFigures
    beyond: ErrorFigures
    per_keypoint: Mapping[str, float]
    per_keypoint_pck05: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return plain nested dicts that JSON can hold: NaN becomes None."""
        return without_nan(asdict(self))

    def to_row(self) -> dict[str, Any]:
        """Return the figures as :meth:`to_dict`, those of the parts as ``between_mean`` and the like."""
        row = self.to_dict()
        for part in ("between", "beyond"):
            row |= {f"{part}_{name}": value for name, value in row.pop(part).items()}
        return row


def keep_every(labels: Labels, k: int) -> Labels:
    """Return the labels of frames k//2, k//2 + k, ... alone, of those frames that are labelled.

    Raises:
        ConfigError: if ``k`` is below 1.
    """
    if k < 1:
        what = "labels cannot be kept on every k-th frame"
        raise ConfigError(what, expected="k of at least 1", got=k, fix="raise k")
    frames = labels.labelled_frames
    return labels.at(frames[frames % k == k // 2])


def withhold(labels: Labels, share: float, seed: int = 0) -> Labels:
    """Return the labels without a share of the keypoints of each instance, as if nobody had looked at them.

    They are drawn at random, of each instance anew, and their number is rounded down: one at least stays.

    Raises:
        ConfigError: if the share is not from 0 up to, but not including, 1.
    """
    if not 0 <= share < 1:
        what = "such a share of the keypoints cannot be withheld"
        fix = "give 0.5 for half of them"
        raise ConfigError(what, expected="a share of at least 0 and below 1", got=share, fix=fix)
    if share == 0:
        return labels
    tracks = {}
    for track_id, track in labels.tracks.items():
        left_out = np.zeros(track.visibility.shape, bool)
        for row, frame in enumerate(track.frames.tolist()):
            placed = np.flatnonzero(track.placed[row])
            rng = np.random.default_rng([seed, track_id % 2**63, frame])
            left_out[row, rng.permutation(placed)[: int(share * len(placed))]] = True
        tracks[track_id] = replace(
            track,
            visibility=np.where(left_out, ABSENT, track.visibility),
            labelled=track.labelled & ~left_out,
        )
    return replace(labels, tracks=tracks)


def score_clip(poses: Poses, dense: Labels, kept: Labels) -> ClipScore:
    """Compare poses with dense labels that were not used.

    Scored are the keypoints of visibility 2 on labelled frames of ``dense`` that ``kept`` does not label, if
    it labels that keypoint of that track at least once (hidden or visible). The error is
    the distance in percent of the longer side of the label's box: the box that the labels give, else the
    extent of the instance's labelled keypoints with 10 percent more on each side. A keypoint without a
    prediction counts as 100 percent.

    Raises:
        LabelsError: if the three have different keypoints, or no box of a track has a size.
    """
    for what, other in (("the poses", poses), ("the kept labels", kept)):
        fix = "compare poses and labels of the same skeleton"
        what = f"{what} have other keypoints than the dense labels"
        check_keypoints(what, other.skeleton, dense.skeleton, fix=fix)
    dense, kept = dense.only_labelled(), kept.only_labelled()
    n_keypoints = len(dense.skeleton)
    # Of each scored keypoint: its error, whether it is predicted or lies between labels, and which it is.
    no = np.zeros(0, bool)
    parts = [(np.zeros(0), no, no, np.zeros(0, np.int64))]
    for track_id, track in dense.tracks.items():
        if track_id not in kept.tracks:
            continue
        known = kept.tracks[track_id]
        held_out = np.repeat(~np.isin(track.frames, kept.labelled_frames)[:, None], n_keypoints, axis=1)
        _, here, there = np.intersect1d(track.frames, known.frames, return_indices=True)
        held_out[here] |= ~known.labelled[there]
        scored = held_out & (track.visibility == 2) & known.placed.any(0)
        if not scored.any():
            continue
        error = _errors(track, poses.tracks.get(track_id), track_id)
        labelled = known.frames[known.placed.any(1)]
        inside = (track.frames > labelled[0]) & (track.frames < labelled[-1])
        between = np.broadcast_to(inside[:, None], scored.shape)[scored]
        filled = np.nan_to_num(error, nan=100.0)[scored]
        parts.append((filled, np.isfinite(error)[scored], between, np.nonzero(scored)[1]))
    error, found, inner, which = (np.concatenate(column) for column in zip(*parts, strict=True))
    count = np.bincount(which, minlength=n_keypoints)

    def by_keypoint(values: Floats) -> dict[str, float]:
        total = np.bincount(which, weights=values, minlength=n_keypoints)
        means = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        return dict(zip(dense.skeleton.names, means.tolist(), strict=True))

    return ClipScore(
        **asdict(_figures(error, found)),
        between=_figures(error[inner], found[inner]),
        beyond=_figures(error[~inner], found[~inner]),
        per_keypoint=by_keypoint(error),
        per_keypoint_pck05=by_keypoint(np.where(error <= 5, 100.0, 0.0)),
    )


def _errors(track: Track, predicted: Track | None, track_id: int) -> Floats:
    """Return (t, K) errors in percent of the box's longer side; NaN without a prediction or a label.

    An instance whose box has no size gets the median of its track.
    """
    sides = boxes_or_extents(track.keypoints, track.boxes)[:, 2:].max(-1)
    usable = sides > 0
    if not usable.any():
        raise LabelsError(
            f"the boxes of track {track_id} have no size, and errors are given in percent of it",
            expected="a bbox, or two labelled keypoints, on some frame",
            fix="give the instances of the dense labels a bbox",
        )
    sides = np.where(usable, sides, np.median(sides[usable]))
    keypoints = np.full_like(track.keypoints, np.nan)
    if predicted is not None:
        _, here, there = np.intersect1d(track.frames, predicted.frames, return_indices=True)
        keypoints[here] = predicted.keypoints[there]
    error = 100.0 * np.linalg.norm(keypoints - track.keypoints, axis=-1) / sides[:, None]
    return np.where(np.isfinite(error), error, np.nan)


def _figures(error: Floats, there: NDArray[np.bool_]) -> ErrorFigures:
    if not error.size:
        return ErrorFigures(*[float("nan")] * 6, n=0)
    return ErrorFigures(
        mean=float(error.mean()),
        median=float(np.median(error)),
        p95=float(np.percentile(error, 95)),
        pck05=float(100 * (error <= 5).mean()),
        pck10=float(100 * (error <= 10).mean()),
        coverage=float(100 * there.mean()),
        n=error.size,
    )


def without_nan(value: Any) -> Any:
    """Return nested dicts with None in place of every NaN, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: without_nan(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and np.isnan(value) else value
