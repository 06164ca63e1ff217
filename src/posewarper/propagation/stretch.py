"""A stretch of one track between two labels: its crops, its evidence, and the trajectory that fits it all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from torch import Tensor

from posewarper.geometry import BOX_PADDING
from posewarper.model.heatmap_runner import HeatmapEngine
from posewarper.motion.flow import label_distances
from posewarper.motion.interpolation import fill_in, interpolate, measure_guesses
from posewarper.propagation.best_path import choose_paths, measure_limbs
from posewarper.propagation.clip import Clip, settled_frames, usual_gap
from posewarper.propagation.evidence import (
    Evidence,
    Seen,
    Warped,
    as_seen,
    find_all_peaks,
    find_peaks,
    labelled_crop,
    warp_from_both,
)
from posewarper.propagation.expected_error import expected_error, read_signs
from posewarper.propagation.trajectory import Sighting, label_sighting, solve_trajectory
from posewarper.propagation.trust import Trust, carried_sigma, reach_of_lines
from posewarper.structures import Floats, Ints, is_there
from posewarper.video.track_crops import TrackCrops

# Crops in memory at a time; a longer stretch between labels is solved in pieces that overlap.
_LONGEST, _OVERLAP = 256, 32
# A peak of height h is trusted to sigma / h, as a share of the subject's size.
_PEAKS, _PEAK_SIGMA, _WARP_SIGMA, _LOWEST = 4, 0.015, 0.04, 0.02
# Labels of a keypoint are far apart if by so many times the usual gap. What the subject's shape then tells of
# it is trusted to so many times its median error, and no more than to a share of the size.
_FAR, _GUESS, _LEAST_GUESS = 1.5, 2.0, 0.05
# Lines are off in the same way for many frames in a row, so that each counts for less than it seems to. Their
# least deviation is a share of the size. Exact are those off by such a share for each frame of room.
_LINES, _LEAST_LINE, _EXACT = 2.0, 0.002, 0.0005
# Where lines are this many times as far off as flow, flow is all there is, however bad. Beside a network they
# have a say where they are off by this share of it, and flow counts as no worse than so many times the usual.
_FLOW_ALONE, _HEARD, _MOST_FLOW_ERROR = 1.0, 0.3, 4.0
# The chosen path is trusted a little everywhere; evidence further from it belongs to something else. A path
# that a network has helped to choose is the better one. Without one flow has chosen it, so that it is trusted
# less where flow is bad, and what lies within so many deviations of it still counts.
_PATH_SIGMA, _PATH_SIGMA_SEEN = 0.04, 0.03
_NEAR_PATH, _NEAR_PATH_SEEN, _NEAR_SIGMAS = 0.1, 0.08, 2.0
# What ties a piece of a long stretch to the piece before it, and to labels beyond its ends.
_JOINT_SIGMA, _ROUGH_SIGMA = 0.005, 0.05
# A keypoint that is uncertain by this share of the subject's size scores one half.
_SCORE_SIGMA = 0.05


class Estimate(NamedTuple):
    """What was found for some frames of a track; NaN where nothing is known."""

    points: Floats  # (t, K, 2) xy in image pixels
    scores: Floats  # (t, K) from 0 to 1
    expected_error: Floats  # (t, K) in pixels


def without_errors(points: Floats, scores: Floats) -> Estimate:
    """Return an estimate of which nobody knows how far it is off."""
    return Estimate(points, scores, np.full(scores.shape, np.nan))


def estimate_track(
    clip: Clip,
    track_id: int,
    method: str,
    network: HeatmapEngine | None,
    trust: Trust | None,
    advance: Callable[[int], None],
    *,
    start: Floats | None = None,
    stretches: Sequence[tuple[int, int, int]] | None = None,
) -> Estimate:
    """Estimate a track stretch by stretch, by the method ``default``, ``frame`` or ``warper``.

    ``default`` needs ``trust`` and does without a network; ``advance`` is told the frames that
    each stretch has done. With ``stretches``, some of :func:`split_stretches`, the others keep the points
    ``start`` (t, K, 2).
    """
    track, frames = clip.labels.tracks[track_id], clip.frames[track_id]
    points = np.full((len(frames), *track.keypoints.shape[1:]), np.nan) if start is None else start.copy()
    found = without_errors(points, np.zeros(points.shape[:2]))
    if stretches is None:
        stretches = split_stretches(frames, settled_frames(track))
    for first, last, keep in stretches:
        stretch = Stretch(clip, track_id, frames[first : last + 1], points[first], network)
        own = stretch.solve(trust) if trust is not None else stretch.look(method)
        # Also what lies beyond ``keep``: the next stretch starts from it, and then puts its own in place.
        for whole, part in zip(found, own, strict=True):
            whole[first : last + 1] = part
        advance(keep - first)
    return found


def split_stretches(frames: Ints, labelled: Ints) -> list[tuple[int, int, int]]:
    """Cut a track's rising frames into stretches that can be solved one by one.

    A stretch runs from one label to the next, both included, since a label of all keypoints is a hard end;
    frames on which only some are labelled lie within. Before the first and after the last label it runs to
    the end of the track. Stretches longer than 256 frames are cut, and look 32 frames further than what is
    kept of them.

    Returns:
        (first row, last row, first row that is not kept) of each stretch, in order; what is kept covers all
        rows.
    """
    label_rows = np.flatnonzero(np.isin(frames, labelled))
    cuts = {0, len(frames)} | {int(n) + 1 for n in np.flatnonzero(np.diff(frames) > 1)}
    stretches = []
    for start, stop in pairwise(sorted(cuts)):
        anchors = label_rows[(label_rows >= start) & (label_rows < stop)]
        ends = sorted({start, stop - 1, *anchors.tolist()})
        for first, last in list(pairwise(ends)) or [(start, start)]:
            # The last row of a stretch is the first one of the next, which keeps it.
            stop_keep = last + 1 if last == stop - 1 else last
            while last - first > _LONGEST:
                stretches.append((first, first + _LONGEST, first + _LONGEST - _OVERLAP))
                first += _LONGEST - _OVERLAP
            stretches.append((first, last, stop_keep))
    return stretches


class Stretch:
    """A stretch of one track, on consecutive frames (t,), cut out and looked at.

    ``before`` (K, 2) is where the stretch before it arrived on the first frame, NaN where nowhere.
    """

    def __init__(
        self, clip: Clip, track_id: int, frames: Ints, before: Floats, network: HeatmapEngine | None
    ) -> None:
        self.clip, self.track_id, self.frames, self.before = clip, track_id, frames, before
        self.network = network
        self.track = clip.labels.tracks[track_id]
        self.known = np.any(self.track.visibility > 0, axis=0)
        size = (1, 1) if network is None else network.spec.crop_size
        boxes = clip.boxes(track_id, frames, size[1] / size[0])
        self.boxes = boxes
        self.size = boxes[:, 2:].max(1) / BOX_PADDING
        self.origin = boxes[:, :2]
        t, k = len(frames), self.track.keypoints.shape[1]
        self.keypoints, self.visibility = np.full((t, k, 2), np.nan), np.zeros((t, k), np.uint8)
        rows = np.flatnonzero(np.isin(frames, self.track.frames))
        own = np.searchsorted(self.track.frames, frames[rows])
        self.keypoints[rows] = self.track.keypoints[own]
        self.visibility[rows] = self.track.visibility[own]
        self.settled_rows = np.flatnonzero(np.isin(frames, settled_frames(self.track)))

    @property
    def visible(self) -> Floats:
        """Labels (t, K, 2) of keypoints that can be seen, NaN elsewhere."""
        return np.where((self.visibility >= 2)[..., None], self.keypoints, np.nan)

    @cached_property
    def crops(self) -> TrackCrops:
        """What the network looks at."""
        assert self.network is not None
        spec = self.network.spec
        return as_seen(self.clip.cut(self.track_id, self.frames, self.boxes, spec.crop_size), spec)

    def look(self, method: str) -> Estimate:
        """Return what the networks see: ``frame`` on each frame by itself, ``warper`` from the labels."""
        assert self.network is not None
        heatmaps = self.network.heatmaps(self.crops.images)
        if method == "warper":
            seen = self._warp(self.network, heatmaps).blended
            return without_errors(seen.points, np.clip(seen.scores, 0, 1))
        seen = find_peaks(heatmaps, self.crops.transforms)
        points = np.where(self.known[:, None], seen.points, np.nan)
        return without_errors(points, np.clip(seen.scores, 0, 1) * self.known)

    def solve(self, trust: Trust) -> Estimate:
        """Return the trajectory that fits all evidence: method ``default``."""
        size = self.size[:, None]
        evidence = self.gather(trust)
        skeleton, limbs = self.clip.labels.skeleton, measure_limbs(self.clip.labels)
        path = choose_paths(evidence, skeleton.flip_order, limbs, np.flatnonzero(self.known))
        sightings = [*evidence.carried, evidence.interpolated]
        if evidence.seen is not None:
            seen = evidence.seen.nearest(path).without_bias(self.visible, self.size)
            sightings.append(_trusted(seen, _PEAK_SIGMA / trust.network, size))
        if evidence.warped is not None:
            sightings.append(_trusted(evidence.warped.blended, _WARP_SIGMA, size))
        if evidence.seen is None:
            near, sigmas, guided = _NEAR_PATH, _NEAR_SIGMAS, _PATH_SIGMA * max(1.0, trust.flow_error)
        else:
            near, sigmas, guided = _NEAR_PATH_SEEN, 0.0, _PATH_SIGMA_SEEN
        sightings = [_within(sighting, path, near * size, sigmas) for sighting in sightings]
        if self._is_piece():
            # It lacks the label at one or both of its ends. It begins where the piece before it arrived, and
            # is drawn loosely to the labels that flow carries from both sides, which know the far label.
            joint = np.full(path.shape, np.nan)
            joint[0] = self._joint()
            for points, sigma in ((joint, _JOINT_SIGMA), (evidence.rough, _ROUGH_SIGMA)):
                sightings.append(Sighting(points, np.full(path.shape[:2], sigma) * size))
        labels = label_sighting(self.keypoints, self.visibility, self.size)
        guide = Sighting(path, np.broadcast_to(guided * size, path.shape[:2]))
        heard = is_there(evidence.interpolated.points).any(0)
        how = {"trust_in_flow": np.where(heard, evidence.trust_in_flow, 1.0), "guide": guide}
        solved = solve_trajectory(path, labels, sightings, evidence.steps, self.size, **how)
        scores = 1 / (1 + solved.sigma / (_SCORE_SIGMA * size))
        return Estimate(solved.points, scores, size * expected_error(read_signs(solved, evidence)))

    def gather(self, trust: Trust) -> Evidence:
        """Return all evidence of the stretch."""
        seen, warped = None, None
        if self.network is not None and self.network.spec.trained.get("pose"):
            heatmaps = self.network.heatmaps(self.crops.images)
            seen = find_all_peaks(heatmaps, self.crops.transforms, _PEAKS)
            if self.network.spec.trained.get("warp"):
                warped = self._warp(self.network, heatmaps)
        anchors = self.visible
        if self._is_piece():
            joint = self._joint()
            anchors[0] = np.where(is_there(joint)[:, None], joint, anchors[0])
        carried = self._carry(trust)
        interpolated, trust_in_flow = self._interpolate(trust, carried)
        return Evidence(
            anchors=anchors,
            rough=self.clip.rough(self.track_id, self.frames),
            seen=seen,
            warped=warped,
            carried=carried,
            interpolated=interpolated,
            steps=self.clip.motion(self.track_id, self.frames).steps,
            size=self.size,
            origin=self.origin,
            trust_in_seen=trust.network,
            trust_in_flow=trust_in_flow,
            mirrored=trust.mirrored,
        )

    def _joint(self) -> Floats:
        """Return (K, 2) where the stretch before arrived on the first frame, NaN where that is labelled."""
        if 0 in self.settled_rows:
            return np.full_like(self.before, np.nan)
        return np.where((self.visibility[0] > 0)[:, None], np.nan, self.before)

    def _warp(self, network: HeatmapEngine, heatmaps: Tensor) -> Warped:
        labels = [
            labelled_crop(row, self.keypoints[row], self.visibility[row], self.crops.transforms[row], network)
            for row in np.flatnonzero((self.visibility > 0).any(1)).tolist()
        ]
        return warp_from_both(network, labels, heatmaps, self.crops)

    def _carry(self, trust: Trust) -> list[Sighting]:
        """Return the labels carried here by flow, from the side before and from the side after.

        With them, where labels are not whole, what :meth:`_guess` gives.
        """
        chain = self.clip.chains[self.track_id].at(self.frames)
        distances = label_distances(chain, self.track)
        found = []
        for (points, error), distance in zip(chain.sides, distances, strict=True):
            sigma = self._flow_error(trust) * carried_sigma(distance, error, self.size[:, None])
            found.append(Sighting(np.where(np.isfinite(sigma)[..., None], points, np.nan), sigma))
        return found + self._guess(*distances)

    def _interpolate(self, trust: Trust, carried: Sequence[Sighting]) -> tuple[Sighting, Floats]:
        """Return the lines between labels, and (K,) what optical flow counts for beside them.

        Lines are trusted as far as left-out labels say, and as far as flow does, within its own deviation,
        which tells of what happens from one label to the next. Beside a network they say nothing, unless they
        are much better than flow. Flow counts for less where labels say that it is bad, unless lines are
        worse.
        """
        lines, size = trust.lines[self.track_id], self.size[:, None]
        before, after = label_distances(self.clip.chains[self.track_id].at(self.frames), self.track)
        points = interpolate(self.track.frames, self.track.keypoints, self.frames, lines.method)
        room = reach_of_lines(before, after) * size
        rate = np.where(np.isfinite(before + after), lines.rate, lines.held)
        sides = carried[:2]
        # Flow that left-out labels show to be bad says little of lines that they show to be exact.
        heard = np.clip(lines.rate / _EXACT, min(1.0, 1 / self._flow_error(trust)), 1.0)
        ways = (before, after, 1), (after, before, -1)
        strays = heard * np.max(
            [_strays(points, room, *both) for both in zip(sides, ways, strict=True)], axis=0
        )
        sigma = _LINES * np.sqrt(rate**2 + strays**2) * room + _LEAST_LINE * size
        interpolated = Sighting(np.where(np.isfinite(sigma)[..., None], points, np.nan), sigma)

        times = _beside_flow(_LINES * rate * room, sides)
        weight = np.full(points.shape[1], min(1.0, self._flow_error(trust) ** -2))
        if self.network is None:
            weight = np.minimum(1.0, np.maximum(weight, (times / _FLOW_ALONE) ** 2))
        else:
            interpolated.points[:, times > _HEARD] = np.nan
        return interpolated, weight

    def _flow_error(self, trust: Trust) -> float:
        """Return how far off flow is to be taken to be, as a multiple of what is usual."""
        return trust.flow_error if self.network is None else min(trust.flow_error, _MOST_FLOW_ERROR)

    def _guess(self, before: Floats, after: Floats) -> list[Sighting]:
        """Return where keypoints may be whose own labels are further away (t, K) than those of the others.

        Flow may lose them on so long a way, while the others tell where the subject is: the pose that is
        filled in on the labelled frames is carried along with the crop. Nothing where labels are whole.
        """
        track, frames = self.track, self.frames
        if not (track.not_looked_at & self.known).any():
            return []
        gap = usual_gap(self.clip.labels, self.clip.video.n_frames)
        lone = np.minimum(before, after) > gap
        far = np.where(np.isfinite(before + after), before + after > _FAR * gap, lone) & self.known
        if not far.any():
            return []
        filled = fill_in(track).at(self.clip.frames[self.track_id])
        crops = self.clip.boxes(self.track_id, filled.frames), self.boxes
        middles = [(boxes[:, :2] + boxes[:, 2:] / 2)[:, None] for boxes in crops]
        shape = interpolate(filled.frames, filled.keypoints - middles[0], frames)
        points = np.where(far[..., None], shape + middles[1], np.nan)
        sigma = np.maximum(_LEAST_GUESS * self.size, _GUESS * measure_guesses(track))
        return [Sighting(points, np.repeat(sigma[:, None], points.shape[1], axis=1))]

    def _is_piece(self) -> bool:
        """Tell whether this is part of a stretch that was too long to be solved at once."""
        return len(self.size) > _LONGEST - _OVERLAP and len(self.settled_rows) < 2


def _trusted(seen: Seen, sigma: float | Floats, size: Floats) -> Sighting:
    return Sighting(seen.points, sigma * np.clip(seen.scores, _LOWEST, 1.0) ** -1.0 * size)


def _beside_flow(sigma: Floats, sides: Sequence[Sighting]) -> Floats:
    """Return (K,) how many times as far off as flow something usually is, given its deviations (t, K)."""
    flow = np.min([np.nan_to_num(side.sigma, nan=np.inf) for side in sides], axis=0)
    there = np.isfinite(sigma) & np.isfinite(flow) & (flow > 0)
    found = [
        np.median((own / other)[some]) if some.any() else 0.0
        for own, other, some in zip(sigma.T, flow.T, there.T, strict=True)
    ]
    return np.array(found)


def _strays(points: Floats, room: Floats, side: Sighting, way: tuple[Floats, Floats, int]) -> Floats:
    """Return (K,) by how much of their room (t, K) lines (t, K, 2) stray from flow, beyond its deviation.

    Flow that is drawn to the ground strays from its label on, evenly, and misses the next label by as much.
    That says nothing of the lines: what is left without it counts double, and no more than all of it.

    Args:
        points, room: of the lines.
        side: labels carried by flow.
        way: (t, K) frames from the label that is carried, and to the next one, and in which direction.
    """
    off = side.points - points
    there = is_there(off) & np.isfinite(room) & (room > 0)
    weight = np.where(there, side.sigma**-2.0, 0.0)

    def beyond(away: Floats) -> Floats:
        squares = np.maximum((away**2).sum(-1) / 2 - side.sigma**2, 0.0)
        return (weight * np.where(there, squares, 0.0)).sum(0)

    most = (weight * np.where(there, room**2, 0.0)).sum(0)
    total = np.minimum(beyond(off), 2 * beyond(off - _even_drift(off, *way)))
    return np.sqrt(total / np.where(most > 0, most, 1.0))


def _even_drift(off: Floats, away: Floats, ahead: Floats, step: int) -> Floats:
    """Return what of ``off`` (t, K, 2) grows evenly up to the frame before the next label.

    ``away`` and ``ahead`` (t, K) are the frames from the last label and to the next one, which comes in the
    direction ``step``; nothing where there is none.
    """
    between = np.isfinite(away + ahead) & (away > 0) & (ahead > 0)
    frames = np.where(between, ahead - 1, 0.0)
    last = np.arange(len(off))[:, None] + step * frames.astype(int)
    between &= (last >= 0) & (last < len(off))
    end = np.take_along_axis(off, np.where(between, last, 0)[..., None], axis=0)
    share = np.where(between, away, 0.0) / np.where(between, away + frames, 1.0)
    return share[..., None] * np.nan_to_num(end)


def _within(sighting: Sighting, path: Floats, near: Floats, sigmas: float) -> Sighting:
    """Return what a sighting says near (t, 1) the path or within some deviations, and nothing elsewhere."""
    with np.errstate(invalid="ignore"):
        reached = np.linalg.norm(sighting.points - path, axis=-1) <= np.fmax(near, sigmas * sighting.sigma)
    return Sighting(np.where(reached[..., None], sighting.points, np.nan), sighting.sigma)
