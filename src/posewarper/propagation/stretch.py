"""A stretch of one track between two labels: its crops, its evidence, and the trajectory that fits it all."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from torch import Tensor

from posewarper.geometry import BOX_PADDING
from posewarper.model.network import PoseWarper
from posewarper.motion.interpolation import pchip
from posewarper.propagation.best_path import PathEvidence, Peaks, choose_paths
from posewarper.propagation.clip import Clip
from posewarper.propagation.evidence import (
    LabelledCrop,
    Seen,
    Warped,
    find_all_peaks,
    find_peaks,
    labelled_crop,
    measure_motion,
    see_heatmaps,
    see_views,
    warp_from_both,
)
from posewarper.propagation.expected_error import Signs, expected_error
from posewarper.propagation.trajectory import Sighting, Steps, Trajectory, label_sighting, solve_trajectory
from posewarper.structures import Floats, Ints, is_there
from posewarper.video.track_crops import cut_track

# What the default can be made to do without, to see what each adds.
PARTS = ("flow", "frame", "warper", "limbs", "paths")
# Crops in memory at a time; a longer stretch between labels is solved in pieces that overlap.
_LONGEST, _OVERLAP = 256, 32
# Side of the crops in which motion is measured where no network sets their size.
_CROP_SIZE = (192, 192)
# A peak of height h is trusted to sigma * h ** -fall, as a share of the subject's size.
_PEAKS, _PEAK_SIGMA, _PEAK_FALL = 4, 0.02, 1.0
_WARP_SIGMA, _WARP_FALL = 0.04, 1.0
# The chosen path is trusted a little everywhere; evidence further from it belongs to something else.
_PATH_SIGMA, _NEAR_PATH = 0.04, 0.1
# A keypoint that is uncertain by this share of the subject's size scores one half.
_SCORE_SIGMA = 0.05


class Estimate(NamedTuple):
    """What was found for some frames of a track.

    Args:
        points: (t, K, 2) xy in image pixels, NaN where nothing is known.
        scores: (t, K) from 0 to 1.
        expected_error: (t, K) in pixels, NaN where it is not known.
    """

    points: Floats
    scores: Floats
    expected_error: Floats


def without_errors(points: Floats, scores: Floats) -> Estimate:
    """Return an estimate of which nobody knows how far it is off."""
    return Estimate(points, scores, np.full(scores.shape, np.nan))


def split_stretches(frames: Ints, labelled: Ints) -> list[tuple[int, int, int]]:
    """Cut a track's frames into stretches that can be solved one by one.

    A stretch runs from one label to the next, both included, since a label is a hard end; before the first
    and after the last label it runs to the end of the track. Stretches longer than 256 frames are cut, and
    look 32 frames further than what is kept of them.

    Args:
        frames: rising frames on which the track is there.
        labelled: rising frames with a label.

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
        pairs = list(pairwise(ends)) or [(start, start)]
        for first, last in pairs:
            # The last row of a stretch is the first one of the next, which keeps it.
            stop_keep = last + 1 if last == stop - 1 else last
            while last - first > _LONGEST:
                stretches.append((first, first + _LONGEST, first + _LONGEST - _OVERLAP))
                first += _LONGEST - _OVERLAP
            stretches.append((first, last, stop_keep))
    return stretches


class _Evidence(NamedTuple):
    """What is known of a stretch.

    Args:
        seen: peaks of the pose network, None without one.
        warped: peaks of the labels warped here, None without a warper.
        carried: the labels carried here by flow, from each side.
        rough: (t, K, 2) where to start from.
        steps: reads the motion.
    """

    seen: Peaks | None
    warped: Warped | None
    carried: list[Sighting]
    rough: Floats
    steps: Steps


class Stretch:
    """A stretch of one track, cut out and looked at.

    Args:
        clip: what it is part of.
        track_id: the track.
        frames: (t,) consecutive frames.
        before: (K, 2) where the stretch before it arrived on the first frame, NaN where nowhere.
        model: the networks, or None.
        trust: (K,) in the pose network, 1 for the usual; see :func:`~.network_trust.measure_network_trust`.
    """

    def __init__(
        self,
        clip: Clip,
        track_id: int,
        frames: Ints,
        before: Floats,
        model: PoseWarper | None,
        trust: Floats,
    ) -> None:
        self.clip, self.track_id, self.frames, self.model = clip, track_id, frames, model
        self.track = clip.labels.tracks[track_id]
        size = _CROP_SIZE if model is None else model.spec.crop_size
        boxes = clip.boxes(track_id, frames, size[1] / size[0])
        self.crops = cut_track(clip.video, frames, boxes, size)
        self.size = boxes[:, 2:].max(1) / BOX_PADDING
        self.origin = boxes[:, :2]
        self.before, self.trust = before, trust
        t, k = len(frames), self.track.keypoints.shape[1]
        self.keypoints, self.visibility = np.full((t, k, 2), np.nan), np.zeros((t, k), np.uint8)
        rows = np.flatnonzero(np.isin(frames, self.track.frames))
        own = np.searchsorted(self.track.frames, frames[rows])
        self.keypoints[rows], self.visibility[rows] = self.track.keypoints[own], self.track.visibility[own]
        self.label_rows = rows

    def estimate(self, method: str, without: str | None = None) -> Estimate:
        """Return what a method finds: ``default``, ``frame`` or ``warper``.

        Args:
            method: its name.
            without: one of :data:`PARTS` that the default does without.
        """
        if method == "default":
            return self._trajectory(without)
        assert self.model is not None
        heatmaps = see_heatmaps(self.model, self.crops.images)
        if method == "frame":
            seen = find_peaks(heatmaps, self.crops.transforms)
            known = np.any(self.track.visibility > 0, axis=0)
            points = np.where(known[:, None], seen.points, np.nan)
            return without_errors(points, np.clip(seen.scores, 0, 1) * known)
        seen = self._warped(heatmaps).blended
        return without_errors(seen.points, np.clip(seen.scores, 0, 1))

    def _warped(self, heatmaps: Tensor) -> Warped:
        assert self.model is not None
        sources: list[LabelledCrop] = [
            labelled_crop(
                int(row), self.keypoints[row], self.visibility[row], self.crops.transforms[row], self.model
            )
            for row in self.label_rows
        ]
        if not sources:
            nothing = np.full(self.keypoints.shape, np.nan)
            return Warped(Seen(nothing, np.zeros(nothing.shape[:2])), ())
        views = see_views(self.model, self.crops.images, heatmaps)
        return warp_from_both(self.model, sources, views, self.crops)

    def _trajectory(self, without: str | None) -> Estimate:
        size = self.size[:, None]
        labels = label_sighting(self.keypoints, self.visibility, self.size)
        found = self._look(without)
        path = self._path(found, without)
        if without == "paths":
            sightings, guide = self._sightings(found, None), None
        else:
            near = self._sightings(found, path)
            sightings = [_within(sighting, path, _NEAR_PATH * size) for sighting in near]
            guide = Sighting(path, np.broadcast_to(_PATH_SIGMA * size, path.shape[:2]))
        sightings += self._ends_of_a_piece(found.rough)
        solved = solve_trajectory(path, labels, sightings, found.steps, self.size, guide=guide)
        scores = 1 / (1 + solved.sigma / (_SCORE_SIGMA * size))
        return Estimate(solved.points, scores, size * expected_error(self._signs(solved, found)))

    def _look(self, without: str | None) -> _Evidence:
        trained = {} if self.model is None else self.model.spec.trained
        seen, warped = None, None
        if self.model is not None and trained.get("pose"):
            heatmaps = see_heatmaps(self.model, self.crops.images)
            if without != "frame":
                seen = find_all_peaks(heatmaps, self.crops.transforms, _PEAKS)
            if trained.get("warp") and without != "warper":
                warped = self._warped(heatmaps)
        if without == "flow":
            # The crops still follow it.
            return _Evidence(seen, warped, [], pchip(self.track, self.frames), _unknown_motion)
        steps = measure_motion(self.crops).steps
        carried = self.clip.carried(self.track_id, self.frames, self.size)
        return _Evidence(seen, warped, carried, self.clip.rough(self.track_id, self.frames), steps)

    def _sightings(self, found: _Evidence, path: Floats | None) -> list[Sighting]:
        """Return what each source says; of several peaks the one nearest to the path, or the highest."""
        size = self.size[:, None]
        sightings = list(found.carried)
        if found.seen is not None:
            seen = _highest(found.seen) if path is None else _nearest(found.seen, path)
            sightings.append(_trusted(seen, _PEAK_SIGMA / self.trust, _PEAK_FALL, size))
        if found.warped is not None:
            sightings.append(_trusted(found.warped.blended, _WARP_SIGMA, _WARP_FALL, size))
        return sightings

    def _path(self, found: _Evidence, without: str | None) -> Floats:
        known = np.any(self.track.visibility > 0, axis=0)
        if without == "paths":
            start = found.rough
            if found.seen is not None:
                start = np.where(is_there(start)[..., None], start, _highest(found.seen).points)
            return np.where(known[:, None], start, np.nan)
        anchors = np.where((self.visibility >= 2)[..., None], self.keypoints, np.nan)
        if self._is_piece() and 0 not in self.label_rows:
            anchors[0] = self.before
        evidence = PathEvidence(
            anchors=anchors,
            rough=found.rough,
            seen=found.seen,
            warped=() if found.warped is None else found.warped.single,
            carried=found.carried,
            size=self.size,
            origin=self.origin,
            # Without a network there is nothing else to trust.
            trust_in_flow=1.0 if found.seen is None else min(1.0, self.clip.flow_error**-2),
            trust_in_seen=self.trust,
        )
        limbs = {} if without == "limbs" else self.clip.limbs()
        skeleton = self.clip.labels.skeleton
        return choose_paths(evidence, found.steps, skeleton.flip_order, limbs, np.flatnonzero(known))

    def _signs(self, solved: Trajectory, found: _Evidence) -> Signs:
        size = self.size[:, None]

        def away(points: Floats) -> Floats:
            return np.linalg.norm(points - solved.points, axis=-1) / size

        spread, from_flow = solved.sigma / size, away(found.rough)
        if found.seen is None:
            return Signs(spread, from_flow)
        height = _nearest(found.seen, solved.points).scores
        from_warped = None if found.warped is None else away(found.warped.blended.points)
        return Signs(spread, from_flow, away(_highest(found.seen).points), height, from_warped)

    def _is_piece(self) -> bool:
        """Tell whether this is part of a stretch that was too long to be solved at once."""
        return len(self.size) > _LONGEST - _OVERLAP and len(self.label_rows) < 2

    def _ends_of_a_piece(self, rough: Floats) -> list[Sighting]:
        """Return what ties a piece of a long stretch to its neighbours: nothing for a stretch that is whole.

        A piece lacks the label at one or both of its ends. It begins where the piece before it arrived, and
        all along it is drawn loosely to the labels carried by flow from both sides, which know the far label.
        """
        (t, k), size = self.keypoints.shape[:2], self.size[:, None]
        if not self._is_piece():
            return []
        first = np.full((t, k, 2), np.nan)
        if 0 not in self.label_rows:
            first[0] = self.before
        return [
            Sighting(first, np.full((t, k), 0.005) * size),
            Sighting(rough, np.full((t, k), 0.05) * size),
        ]


def _unknown_motion(points: Floats) -> tuple[Floats, Floats]:
    nothing = np.full(points[1:].shape, np.nan)
    return nothing, nothing


def _trusted(seen: Seen, sigma: float | Floats, fall: float, size: Floats) -> Sighting:
    return Sighting(seen.points, sigma * np.clip(seen.scores, 0.02, 1.0) ** (-fall) * size)


def _highest(peaks: Peaks) -> Seen:
    return Seen(peaks.points[:, :, 0], np.nan_to_num(peaks.heights[:, :, 0]))


def _nearest(peaks: Peaks, path: Floats) -> Seen:
    """Return of each keypoint's peaks the one that is nearest to its path."""
    away = np.linalg.norm(peaks.points - path[:, :, None], axis=-1)
    best = np.where(np.isfinite(away), away, np.inf).argmin(-1)[..., None]
    points = np.take_along_axis(peaks.points, best[..., None], 2)[:, :, 0]
    return Seen(points, np.nan_to_num(np.take_along_axis(peaks.heights, best, 2)[..., 0]))


def _within(sighting: Sighting, path: Floats, reach: Floats) -> Sighting:
    """Return what a sighting says within reach (t, 1) of the path, and nothing elsewhere."""
    with np.errstate(invalid="ignore"):
        near = np.linalg.norm(sighting.points - path, axis=-1) <= reach
    return Sighting(np.where(near[..., None], sighting.points, np.nan), sighting.sigma)
