"""Sparse labels in, a pose for every frame out; each method by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from posewarper.errors import ConfigError
from posewarper.frames import cut_track, instance_boxes, track_boxes, without_strays
from posewarper.geometry import BOX_PADDING
from posewarper.inference.best_path import Limbs, PathEvidence, Peaks, choose_paths, measure_limbs
from posewarper.inference.evidence import (
    LabelledCrop,
    Seen,
    Warped,
    find_all_peaks,
    find_peaks,
    labelled_crop,
    see_heatmaps,
    warp_from_both,
)
from posewarper.inference.fixed_crops import warp_in_fixed_crops
from posewarper.inference.flow_trust import carried_sigma, measure_flow_error
from posewarper.inference.motion_field import measure_motion
from posewarper.inference.presence import present_frames
from posewarper.inference.trajectory import Sighting, Steps, label_sighting, solve_trajectory
from posewarper.io.video import Video
from posewarper.model.network import PoseWarper
from posewarper.motion import interpolation
from posewarper.motion.flow import FlowChain, blend_both, blend_nearest, carry_labels, label_distances
from posewarper.structures import (
    Floats,
    Ints,
    Labels,
    LabelTrack,
    Poses,
    PoseTrack,
    Progress,
    is_there,
    silent,
)

METHODS: dict[str, str] = {
    "nearest": "copy of the nearest label",
    "linear": "straight lines between labels",
    "pchip": "monotone cubics between labels",
    "flow": "optical flow (DIS) from the nearest label",
    "flow2": "optical flow (DIS) from both sides, blended by distance",
    "frame": "the pose network on each frame by itself",
    "warper-untrained": "the warp head before training: the label's place in the moving crop",
    "warper": "labelled heatmaps warped from both sides by the trained head",
    "paper": "the paper's way: the labelled frame's crop, its nearest label, the trained head alone",
    "default": "one robust trajectory from labels, flow and networks",
}
INTERPOLATIONS: Mapping[str, Callable[[LabelTrack, Ints], Floats]] = {
    "nearest": interpolation.nearest,
    "linear": interpolation.linear,
    "pchip": interpolation.pchip,
}
_FLOWS: Mapping[str, Callable[[FlowChain, LabelTrack], Floats]] = {
    "flow": blend_nearest,
    "flow2": blend_both,
}
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


def check_method(method: str) -> None:
    """Refuse an unknown method.

    Raises:
        ConfigError: with the names there are.
    """
    if method not in METHODS:
        raise ConfigError(
            "unknown method", expected=", ".join(METHODS), got=method, mend="use one of the names expected"
        )


@dataclass(frozen=True)
class Clip:
    """A video and its labels, made ready for propagation.

    Args:
        video: the clip.
        labels: its labels.
        frames: track id -> rising frames on which the track is there.
        chains: track id -> its labels carried by optical flow.
        flow_error: how far labels carried by flow are off in this clip, as a multiple of what is usual.
    """

    video: Video
    labels: Labels
    frames: Mapping[int, Ints]
    chains: Mapping[int, FlowChain]
    flow_error: float = 1.0

    def limbs(self) -> Limbs:
        """Return how long limbs are at most, by the labels of all tracks."""
        found = [track.keypoints for track in self.labels.tracks.values()]
        boxes = [instance_boxes(track.keypoints, track.boxes) for track in self.labels.tracks.values()]
        size = np.concatenate(boxes)[:, 2:].max(1)
        return measure_limbs(np.concatenate(found), size, self.labels.skeleton)

    def carried(self, track_id: int, frames: Ints, size: Floats) -> list[Sighting]:
        """Return a track's labels carried by flow, from the side before and from the side after.

        Args:
            track_id: the track.
            frames: (t,) some of its frames.
            size: (t,) of the subject in pixels.
        """
        chain = self._chain(track_id, frames)
        away = label_distances(chain, self.labels.tracks[track_id])
        sides = (chain.forward, chain.forward_error), (chain.backward, chain.backward_error)
        found = []
        for (points, error), distance in zip(sides, away, strict=True):
            sigma = self.flow_error * carried_sigma(distance, error, size[:, None])
            found.append(Sighting(np.where(np.isfinite(sigma)[..., None], points, np.nan), sigma))
        return found

    def boxes(self, track_id: int, frames: Ints, aspect_ratio: float = 1.0) -> Floats:
        """Return the padded boxes (t, 4) of a track's crops on some of its frames."""
        track = without_strays(self.labels.tracks[track_id], self.video.image_size)
        return track_boxes(track, frames, self.rough(track_id, frames), aspect_ratio)

    def rough(self, track_id: int, frames: Ints) -> Floats:
        """Return (t, K, 2): a track's labels carried by flow from both sides to some of its frames."""
        return blend_both(self._chain(track_id, frames), self.labels.tracks[track_id])

    def _chain(self, track_id: int, frames: Ints) -> FlowChain:
        chain = self.chains[track_id]
        rows = np.searchsorted(chain.frames, frames)
        # Only these rows are blended: a long track has many stretches, and each asks for its own.
        return FlowChain(
            chain.frames[rows],
            chain.forward[rows],
            chain.backward[rows],
            chain.forward_error[rows],
            chain.backward_error[rows],
        )


def subject_size(labels: Labels) -> float:
    """Return the median longer side of the labelled instances in pixels."""
    boxes = [instance_boxes(track.keypoints, track.boxes) for track in labels.tracks.values()]
    return float(np.nanmedian(np.concatenate(boxes)[:, 2:].max(1)))


def prepare_clip(
    video: Video, labels: Labels, *, extend: bool = False, flow: bool = True, progress: Progress = silent
) -> Clip:
    """Decide on which frames the tracks are there, and carry the labels through the clip by optical flow.

    Without ``flow`` the clip has no chains, and only the methods that do not look at the video can use it.
    """
    frames = {i: present_frames(labels, i, video.n_frames, extend=extend) for i in labels.tracks}
    chains = {}
    if flow:
        chains = carry_labels(video, labels.tracks, frames, subject=subject_size(labels), progress=progress)
    return Clip(video, labels, frames, chains, measure_flow_error(labels, chains))


def interpolate_labels(clip: Clip, method: str) -> Poses:
    """Propagate without looking at the video: ``nearest``, ``linear`` or ``pchip``."""
    found = {}
    for i, track in clip.labels.tracks.items():
        points = INTERPOLATIONS[method](track, clip.frames[i])
        found[i] = points, _nearness(clip.labels, clip.frames[i], points)
    return _to_poses(clip, found)


def carry_poses(clip: Clip, method: str) -> Poses:
    """Propagate by optical flow alone: ``flow`` or ``flow2``."""
    found = {}
    for i, track in clip.labels.tracks.items():
        points = _FLOWS[method](clip.chains[i], track)
        found[i] = points, _nearness(clip.labels, clip.frames[i], points)
    return _to_poses(clip, found)


def estimate_poses(
    clip: Clip, method: str, model: PoseWarper | None, *, progress: Progress = silent
) -> Poses:
    """Propagate stretch by stretch: ``frame``, ``warper`` and ``default`` (which also works without a model).

    Args:
        clip: from :func:`prepare_clip`.
        method: name of the method.
        model: the network; may be None for ``default``.
        progress: is told after every stretch.
    """
    found: dict[int, tuple[Floats, Floats]] = {}
    total, done = sum(len(f) for f in clip.frames.values()), 0
    for i, track in clip.labels.tracks.items():
        frames = clip.frames[i]
        points = np.full((len(frames), *track.keypoints.shape[1:]), np.nan)
        scores = np.zeros(points.shape[:2])
        for first, last, keep in split_stretches(frames, track.frames):
            rows = np.arange(first, last + 1)
            stretch = _Stretch(clip, i, frames[rows], points[first], model)
            found_points, found_scores = stretch.estimate(method)
            # Also what lies beyond ``keep``: the next stretch starts from it, and then puts its own in place.
            points[first : last + 1], scores[first : last + 1] = found_points, found_scores
            done += keep - first
            progress(f"propagating ({method})", min(done, total), total)
        found[i] = points, scores
    return _to_poses(clip, found)


def warp_the_paper_s_way(clip: Clip, model: PoseWarper, *, progress: Progress = silent) -> Poses:
    """Propagate as the paper does: method ``paper``."""
    total, done = sum(len(f) for f in clip.frames.values()), 0

    def advance(frames: int) -> None:
        nonlocal done
        done += frames
        progress("propagating (paper)", done, total)

    found = {
        i: warp_in_fixed_crops(clip.video, track, clip.frames[i], model, advance)
        for i, track in clip.labels.tracks.items()
    }
    return _to_poses(clip, found)


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


class _Stretch:
    """A stretch of one track, cut out and looked at."""

    def __init__(
        self, clip: Clip, track_id: int, frames: Ints, before: Floats, model: PoseWarper | None
    ) -> None:
        self.track, self.model = clip.labels.tracks[track_id], model
        size = _CROP_SIZE if model is None else model.spec.crop_size
        boxes = clip.boxes(track_id, frames, size[1] / size[0])
        self.crops = cut_track(clip.video, frames, boxes, size)
        self.size = boxes[:, 2:].max(1) / BOX_PADDING
        self.origin = boxes[:, :2]
        self.rough = clip.rough(track_id, frames)
        self.carried = clip.carried(track_id, frames, self.size)
        self.flow_error = clip.flow_error
        self.limbs, self.flip_order = clip.limbs(), clip.labels.skeleton.flip_order
        self.before = before
        t, k = len(frames), self.track.keypoints.shape[1]
        self.keypoints, self.visibility = np.full((t, k, 2), np.nan), np.zeros((t, k), np.uint8)
        rows = np.flatnonzero(np.isin(frames, self.track.frames))
        own = np.searchsorted(self.track.frames, frames[rows])
        self.keypoints[rows], self.visibility[rows] = self.track.keypoints[own], self.track.visibility[own]
        self.label_rows = rows

    def estimate(self, method: str) -> tuple[Floats, Floats]:
        """Return points (t, K, 2) and scores (t, K)."""
        if method == "default":
            return self._trajectory()
        assert self.model is not None
        heatmaps = see_heatmaps(self.model, self.crops.images)
        if method == "frame":
            seen = find_peaks(heatmaps, self.crops.transforms)
            known = np.isin(
                np.arange(seen.points.shape[1]), np.flatnonzero((self.track.visibility > 0).any(0))
            )
            return np.where(known[:, None], seen.points, np.nan), np.clip(seen.scores, 0, 1) * known
        seen = self._warped(heatmaps).blended
        return seen.points, np.clip(seen.scores, 0, 1)

    def _warped(self, heatmaps: Tensor) -> Warped:
        assert self.model is not None
        sources: list[LabelledCrop] = [
            labelled_crop(
                int(row), self.keypoints[row], self.visibility[row], self.crops.transforms[row], self.model
            )
            for row in self.label_rows
        ]
        if not sources:
            nothing = np.full(self.rough.shape, np.nan)
            return Warped(Seen(nothing, np.zeros(nothing.shape[:2])), ())
        return warp_from_both(self.model, sources, heatmaps, self.crops)

    def _trajectory(self) -> tuple[Floats, Floats]:
        size = self.size[:, None]
        labels = label_sighting(self.keypoints, self.visibility, self.size)
        known = np.any(self.track.visibility > 0, axis=0)
        trained = {} if self.model is None else self.model.spec.trained
        seen, warped = None, None
        if self.model is not None and trained.get("pose"):
            heatmaps = see_heatmaps(self.model, self.crops.images)
            seen = find_all_peaks(heatmaps, self.crops.transforms, _PEAKS)
            warped = self._warped(heatmaps) if trained.get("warp") else None
        field = measure_motion(self.crops)
        path = self._path(seen, warped, field.steps, known)
        sightings = list(self.carried)
        if seen is not None:
            sightings.append(_trusted(_nearest(seen, path), _PEAK_SIGMA, _PEAK_FALL, size))
        if warped is not None:
            sightings.append(_trusted(warped.blended, _WARP_SIGMA, _WARP_FALL, size))
        near = [_within(sighting, path, _NEAR_PATH * size) for sighting in sightings]
        guide = Sighting(path, np.broadcast_to(_PATH_SIGMA * size, path.shape[:2]))
        ends = self._ends_of_a_piece(size)
        solved = solve_trajectory(path, labels, [*near, *ends], field.steps, self.size, guide=guide)
        return solved.points, 1 / (1 + solved.sigma / (_SCORE_SIGMA * size))

    def _path(
        self, seen: Peaks | None, warped: Warped | None, steps: Steps, known: NDArray[np.bool_]
    ) -> Floats:
        anchors = np.where((self.visibility >= 2)[..., None], self.keypoints, np.nan)
        if self._is_piece() and 0 not in self.label_rows:
            anchors[0] = self.before
        evidence = PathEvidence(
            anchors=anchors,
            rough=self.rough,
            seen=seen,
            warped=() if warped is None else warped.single,
            carried=self.carried,
            size=self.size,
            origin=self.origin,
            # Without a network there is nothing else to trust.
            trust_in_flow=1.0 if seen is None else min(1.0, self.flow_error**-2),
        )
        return choose_paths(evidence, steps, self.flip_order, self.limbs, np.flatnonzero(known))

    def _is_piece(self) -> bool:
        """Tell whether this is part of a stretch that was too long to be solved at once."""
        return len(self.size) > _LONGEST - _OVERLAP and len(self.label_rows) < 2

    def _ends_of_a_piece(self, size: Floats) -> list[Sighting]:
        """Return what ties a piece of a long stretch to its neighbours: nothing for a stretch that is whole.

        A piece lacks the label at one or both of its ends. It begins where the piece before it arrived, and
        all along it is drawn loosely to the labels carried by flow from both sides, which know the far label.
        """
        t, k = self.keypoints.shape[:2]
        if not self._is_piece():
            return []
        first = np.full((t, k, 2), np.nan)
        if 0 not in self.label_rows:
            first[0] = self.before
        return [
            Sighting(first, np.full((t, k), 0.005) * size),
            Sighting(self.rough, np.full((t, k), 0.05) * size),
        ]


def _trusted(seen: Seen, sigma: float, fall: float, size: Floats) -> Sighting:
    return Sighting(seen.points, sigma * np.clip(seen.scores, 0.02, 1.0) ** (-fall) * size)


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


def _nearness(labels: Labels, frames: Ints, points: Floats) -> Floats:
    """Return (t, K) scores that fall with the distance to the nearest labelled frame of the clip."""
    labelled = labels.labelled_frames
    spacing = float(np.median(np.diff(labelled))) if len(labelled) > 1 else 1.0
    after = np.searchsorted(labelled, frames)
    sides = labelled[np.maximum(after - 1, 0)], labelled[np.minimum(after, len(labelled) - 1)]
    away = np.minimum(np.abs(frames - sides[0]), np.abs(frames - sides[1]))
    return np.repeat((1 / (1 + away / spacing))[:, None], points.shape[1], axis=1)


def _to_poses(clip: Clip, found: Mapping[int, tuple[Floats, Floats]]) -> Poses:
    """Put the labels in place of what was found on labelled frames, exactly, and wrap everything up."""
    video, labels, frames = clip.video, clip.labels, clip.frames
    tracks = {}
    for i, track in labels.tracks.items():
        points, scores = (np.array(a) for a in found[i])
        visibility = is_there(points).astype(np.uint8) * 2
        rows = np.flatnonzero(np.isin(frames[i], track.frames))
        own = np.searchsorted(track.frames, frames[i][rows])
        points[rows], visibility[rows] = track.keypoints[own], track.visibility[own]
        scores[rows] = (track.visibility[own] > 0).astype(float)
        tracks[i] = PoseTrack(frames[i], points, np.where(visibility > 0, scores, 0.0), visibility)
    return Poses(
        labels.skeleton,
        tracks,
        video.image_size,
        video.n_frames,
        labels.labelled_frames,
        labels.video or Path(video.path).stem,
        dict(enumerate(video.frame_names)) or labels.frame_names,
    )
