"""Which frames to look at first, and why: what scores, motion, limbs and other tracks give away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from posewarper.errors import few_of
from posewarper.motion.interpolation import fill_in
from posewarper.skeletons import Skeleton
from posewarper.structures import Floats, Ints, Labels, Poses, Track, is_there

# Strengths are measured so that 1 is worth a look. Lengths count as shares of the subject's size.
# A low score is below 0.65, below 3/4 of the track's usual one, and 0.15 below the keypoint's usual one.
_LOW_SCORE, _LOW_SHARE, _LOW_MARGIN = 0.65, 0.75, 0.15
_LARGE_ERROR = 0.05
_JUMP, _JUMP_DEVIATIONS = 0.04, 8.0
_LIMB_SLACK = 0.03
_PAIR_SHARE, _PAIR_APART = 0.2, 0.06
_SAME_PLACE = 0.15
_FAR, _USUAL_GAP = 0.9, 15  # in gaps between labels; frames of a gap where only one frame is labelled
_OUTSIDE = 0.02
_NAMED = 4  # keypoints named in a sentence


@dataclass(frozen=True)
class Doubt:
    """A frame that is worth checking."""

    frame: int
    track: int  # id of the track that looks wrong there
    keypoints: tuple[int, ...]  # indices of those concerned; empty where it is the whole instance
    reasons: tuple[str, ...]  # why, a sentence each, the strongest first
    severity: float  # above 0; the greater, the more worth a look


@dataclass(frozen=True)
class _Finding:
    """One kind of reason along a track."""

    strength: Floats  # (t, K), from 1 on worth a look; 0 or NaN where there is nothing
    sentence: Callable[[int, Sequence[int]], str]  # of a row and the keypoints found, the strongest first
    weight: float = 1.0  # how much this kind of reason tells, compared with a low score
    whole: bool = False  # it is about the whole instance; all keypoints have the same strength

    @property
    def weights(self) -> Floats:
        """(t, K) 0 where nothing is found, else squeezed so that no kind drowns the others by its scale."""
        strength = np.clip(np.nan_to_num(self.strength, nan=0.0, posinf=1e6), 0.0, 1e6)
        return np.where(strength >= 1, self.weight * 2 * strength / (1 + strength), 0.0)


@dataclass(frozen=True)
class _Look:
    """A track and what is needed to judge it; ``size`` is that of the subject in pixels."""

    track: Track
    label: Track
    skeleton: Skeleton
    size: float
    image_size: tuple[int, int]
    others: dict[int, Track]

    @property
    def points(self) -> Floats:
        return self.track.keypoints

    def name(self, keypoints: Sequence[int]) -> str:
        return few_of([self.skeleton.names[k] for k in keypoints], _NAMED)


def frames_to_check(poses: Poses, labels: Labels, *, count: int = 8) -> list[Doubt]:
    """Return the frames most worth checking, the most suspicious first, spread over the clip.

    Labelled frames are suggested for keypoints alone that nobody has labelled there. A clean clip gives fewer
    than ``count``, or none. The labels are those that the poses came from.
    """
    covered = {int(f) for track in poses.tracks.values() for f in track.frames}
    apart = max(2, len(covered) // (2 * max(count, 1)))
    found = [s for i in poses.tracks for s in _judge_track(poses, labels, i, apart)]
    found.sort(key=lambda s: (-s.severity, s.frame, s.track))
    chosen: list[Doubt] = []
    # How often a track's keypoint was the main concern.
    seen: Counter[tuple[int, tuple[int, ...]]] = Counter()
    while found and len(chosen) < count:
        # A keypoint that was suggested before tells less than another one.
        best = max(found, key=lambda s: s.severity / (1 + seen[s.track, s.keypoints[:1]]))
        chosen.append(best)
        seen[best.track, best.keypoints[:1]] += 1
        found = [s for s in found if abs(s.frame - best.frame) >= apart]
    return chosen


def subject_size(labels: Floats | None, poses: Floats, image_size: tuple[int, int]) -> float:
    """Return the median longer side of an instance in pixels, for a lone keypoint a quarter of the image's.

    Its labels (m, K, 2) come first, where there are any, then its poses (t, K, 2).
    """
    for keypoints in (poses[:0] if labels is None else labels, poses):
        some = keypoints[is_there(keypoints).sum(-1) > 1]
        if len(some):
            return max(1.0, float(np.median(np.nanmax(np.nanmax(some, 1) - np.nanmin(some, 1), -1))))
    return max(image_size) / 4


def _judge_track(poses: Poses, labels: Labels, track_id: int, apart: int) -> list[Doubt]:
    """Return what is worth checking in a track; a frame less than ``apart`` from a worse one is left out."""
    track = poses.tracks[track_id]
    k = track.keypoints.shape[1]
    given = labels.tracks.get(track_id, Track(np.zeros(0, np.int64), np.zeros((0, k, 2))))
    label, partly = given.at(given.frames[given.placed.any(1)]), given.frames[given.not_looked_at.any(1)]
    others = {i: other for i, other in poses.tracks.items() if i != track_id}
    size = subject_size(fill_in(label).keypoints, track.keypoints, poses.image_size)
    look = _Look(track, label, poses.skeleton, size, poses.image_size, others)
    findings = [find(look) for find in _REASONS]
    weights = np.stack([finding.weights for finding in findings])  # (reasons, t, K)
    weights = np.where(track.labelled, 0.0, weights)
    whole = np.array([finding.whole for finding in findings])
    # Several reasons for one keypoint add a little; several keypoints add up; a whole instance counts as one.
    single = weights[~whole]
    by_keypoint = single.max(0) + 0.2 * (single.sum(0) - single.max(0))
    severity = np.sqrt((by_keypoint**2).sum(-1) + (weights[whole].max(-1) ** 2).sum(0))
    doubts = []
    # On other labelled frames the labeller has looked, also where a track is not there.
    severity[np.isin(track.frames, poses.labelled_frames) & ~np.isin(track.frames, partly)] = 0.0
    for row in _peaks(severity, track.frames, apart):
        strongest = weights[:, row].max(-1)
        order = [n for n in np.argsort(-strongest, kind="stable") if strongest[n] > 0]
        reasons = [findings[n].sentence(int(row), _descending(weights[n, row])) for n in order]
        frame, keypoints = int(track.frames[row]), tuple(_descending(by_keypoint[row]))
        doubts.append(Doubt(frame, track_id, keypoints, tuple(reasons), float(severity[row])))
    return doubts


def _peaks(values: Floats, frames: Ints, apart: int) -> list[int]:
    """Return rows with values above 0, the largest first, whose frames lie so far apart."""
    rows, left = [], values.copy()
    while len(left) and left.max() > 0:
        rows.append(int(left.argmax()))
        left[np.abs(frames - frames[rows[-1]]) < apart] = 0.0
    return rows


def _descending(values: Floats) -> list[int]:
    """Return the indices of the values above 0, the largest first."""
    return [int(n) for n in np.argsort(-values, kind="stable") if values[n] > 0]


# --- reasons ----------------------------------------------------------------------------------------------


def _low_scores(look: _Look) -> _Finding:
    score = np.where(is_there(look.points), look.track.keypoint_scores, np.nan)
    open_scores = np.where(look.track.labelled, np.nan, score)
    known = np.isfinite(open_scores)
    usual = float(np.median(open_scores[known])) if known.any() else 1.0
    # A keypoint that is uncertain all along is no news on any one frame: it has to be below its own usual.
    limit = np.minimum(min(_LOW_SCORE, _LOW_SHARE * usual), _median_of(open_scores) - _LOW_MARGIN)
    with np.errstate(divide="ignore"):  # scores are 1 / (1 + uncertainty)
        strength = np.where(limit > 0, (1 / score - 1) / (1 / np.maximum(limit, 1e-6) - 1), 0.0)

    def sentence(row: int, keypoints: Sequence[int]) -> str:
        named = few_of([f"{look.skeleton.names[k]} ({score[row, k]:.2f})" for k in keypoints], _NAMED)
        return f"Low score: {named}; {usual:.2f} is usual for this track."

    return _Finding(strength, sentence)


def _expected_errors(look: _Look) -> _Finding:
    error = look.track.expected_error

    def sentence(row: int, keypoints: Sequence[int]) -> str:
        return f"Expected to be off by {error[row, keypoints[0]]:.0f} pixels: {look.name(keypoints)}."

    return _Finding(error / (_LARGE_ERROR * look.size), sentence)


def _jumps(look: _Look) -> _Finding:
    """Acceleration far beyond what the keypoint usually has."""
    points, frames = look.points, look.track.frames
    off = np.full(points.shape[:2], np.nan)
    if len(frames) > 2:
        steady = (np.diff(frames)[:-1] == 1) & (np.diff(frames)[1:] == 1)
        middle = (points[:-2] + points[2:]) / 2
        off[1:-1] = np.where(steady[:, None], np.linalg.norm(points[1:-1] - middle, axis=-1), np.nan)
    usual, spread = _median_of(off), _median_of(np.abs(off - _median_of(off)))
    limit = np.maximum(usual + _JUMP_DEVIATIONS * 1.4826 * spread, _JUMP * look.size)
    strength = np.nan_to_num(off / limit)
    # A jump onto a label shows on the frames beside it, since labels are not suggested.
    onto = np.where(look.track.labelled, strength, 0.0)
    near = strength.copy()
    near[1:] = np.maximum(near[1:], onto[:-1])
    near[:-1] = np.maximum(near[:-1], onto[1:])

    def sentence(row: int, keypoints: Sequence[int]) -> str:
        k, rows = keypoints[0], slice(max(row - 1, 0), row + 2)
        usually = f"{usual[k]:.0f}" if usual[k] >= 0.95 else "less than 1"
        verb, most = "jumps" if len(keypoints) == 1 else "jump", float(np.nanmax(off[rows, k]))
        return (
            f"{look.name(keypoints)} {verb}: {most:.0f} pixels off the line from the frame before to the "
            f"frame after, usually {usually}."
        )

    return _Finding(near, sentence, weight=0.8)


def _median_of(values: Floats) -> Floats:
    """Return the median over rows, 0 for columns without a value."""
    return np.array([np.median(c[np.isfinite(c)]) if np.isfinite(c).any() else 0.0 for c in values.T])


def _limbs(look: _Look) -> _Finding:
    """Limbs that are longer or shorter than the labels show them."""
    strength = np.zeros(look.points.shape[:2])
    said: dict[tuple[int, int], str] = {}
    for a, b in look.skeleton.edges:
        known = np.linalg.norm(look.label.keypoints[:, a] - look.label.keypoints[:, b], axis=-1)
        known = known[np.isfinite(known)]
        if not len(known):
            continue
        # The fewer the labels, the less of the range they show.
        slack, least = 1 + 0.5 / np.sqrt(len(known)), _LIMB_SLACK * look.size
        longest, shortest = known.max() * slack + least, known.min() / slack - least
        length = np.linalg.norm(look.points[:, a] - look.points[:, b], axis=-1)
        with np.errstate(invalid="ignore", divide="ignore"):
            unlike = np.fmax(length / longest, shortest / np.maximum(length, 1e-6))
        for row in np.flatnonzero(unlike >= 1):
            if unlike[row] <= strength[row, [a, b]].max():
                continue
            shown = f"{known.min():.0f} to {known.max():.0f}" if len(known) > 1 else f"{known[0]:.0f}"
            limb = f"{look.skeleton.names[a]} to {look.skeleton.names[b]}"
            text = f"{limb} is {length[row]:.0f} pixels long, but {shown} where it is labelled"
            said[int(row), a] = said[int(row), b] = text
            strength[row, [a, b]] = np.maximum(strength[row, [a, b]], unlike[row])

    def sentence(row: int, keypoints: Sequence[int]) -> str:
        return "; ".join(list(dict.fromkeys(said[row, k] for k in keypoints))[:2]) + "."

    return _Finding(strength, sentence, weight=0.9)


def _pairs(look: _Look) -> _Finding:
    """Mirror pairs that come much closer than they usually are."""
    strength, gaps = np.zeros(look.points.shape[:2]), {}
    for a, b in look.skeleton.flip_pairs:
        usual = np.linalg.norm(look.label.keypoints[:, a] - look.label.keypoints[:, b], axis=-1)
        usual = usual[np.isfinite(usual)]
        if not len(usual) or np.median(usual) < _PAIR_APART * look.size:
            continue
        gap = np.linalg.norm(look.points[:, a] - look.points[:, b], axis=-1)
        limit = _PAIR_SHARE * float(np.median(usual))
        with np.errstate(invalid="ignore"):
            close = np.where(gap < limit, 2 - gap / limit, 0.0)
        strength[:, [a, b]], gaps[a], gaps[b] = close[:, None], (b, gap), (a, gap)

    def sentence(row: int, keypoints: Sequence[int]) -> str:
        pairs = list(dict.fromkeys(tuple(sorted((k, gaps[k][0]))) for k in keypoints))
        named = [" and ".join(look.skeleton.names[k] for k in pair) for pair in pairs[:2]]
        pixels = [f"{gaps[pair[0]][1][row]:.0f}" for pair in pairs[:2]]
        apart = f"{', '.join(named)} come within {' and '.join(pixels)} pixels of each other"
        return f"{apart}: they may have changed places."

    return _Finding(strength, sentence, weight=0.6)


def _far_from_labels(look: _Look) -> _Finding:
    frames, knots = look.track.frames, look.label.frames
    away = np.zeros(len(frames), int)
    if len(knots):
        after = np.searchsorted(knots, frames)
        sides = knots[np.maximum(after - 1, 0)], knots[np.minimum(after, len(knots) - 1)]
        away = np.minimum(np.abs(frames - sides[0]), np.abs(frames - sides[1]))
    usual = float(np.median(np.diff(knots))) if len(knots) > 1 else _USUAL_GAP
    strength = np.repeat((away / (_FAR * usual))[:, None], look.points.shape[1], axis=1)

    def sentence(row: int, keypoints: Sequence[int]) -> str:
        if frames[row] > knots[-1]:
            return f"{away[row]} frames after this track's last label, and none follows."
        if frames[row] < knots[0]:
            return f"{away[row]} frames before this track's first label, and none comes earlier."
        return f"{away[row]} frames from the nearest label; labels are usually {usual:.0f} frames apart."

    return _Finding(strength, sentence, weight=0.7, whole=True)


def _outside(look: _Look) -> _Finding:
    limits = np.array([look.image_size[1], look.image_size[0]]) - 0.5
    beyond = np.maximum(np.maximum(-0.5 - look.points, look.points - limits), 0.0).max(-1)
    strength = np.where(beyond > 0, beyond / (_OUTSIDE * look.size), 0.0)

    def sentence(row: int, keypoints: Sequence[int]) -> str:
        verb = "lies" if len(keypoints) == 1 else "lie"
        return f"Up to {beyond[row].max():.0f} pixels outside of the image {verb} {look.name(keypoints)}."

    return _Finding(strength, sentence, weight=0.8)


def _same_place(look: _Look) -> _Finding:
    """Another track whose keypoints lie where this one's do."""
    strength = np.zeros(look.points.shape[:2])
    nearest, apart = np.zeros(len(strength), int), np.full(len(strength), np.inf)
    for i, other in look.others.items():
        _, rows, theirs = np.intersect1d(look.track.frames, other.frames, return_indices=True)
        gap = np.linalg.norm(look.points[rows] - other.keypoints[theirs], axis=-1)
        both = np.isfinite(gap)
        mean = np.where(both, gap, 0).sum(-1) / np.maximum(both.sum(-1), 1)
        mean[~both.any(-1)] = np.inf
        closer = mean < apart[rows]
        apart[rows[closer]], nearest[rows[closer]] = mean[closer], i
    strength[:] = (_SAME_PLACE * look.size / np.maximum(apart, 1e-6))[:, None]

    def sentence(row: int, keypoints: Sequence[int]) -> str:
        return (
            f"Lies on top of track {nearest[row]}, {apart[row]:.0f} pixels apart on average: "
            "the two may have become one."
        )

    return _Finding(strength, sentence, whole=True)


_REASONS = (_low_scores, _expected_errors, _jumps, _limbs, _pairs, _far_from_labels, _outside, _same_place)
