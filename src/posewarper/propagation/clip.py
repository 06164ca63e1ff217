"""A video with labels, made ready for propagation: when tracks are there, and labels carried by flow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from posewarper.motion.flow import FlowChain, blend_both, carry_labels, label_distances
from posewarper.propagation.best_path import Limbs, measure_limbs
from posewarper.propagation.trajectory import Sighting
from posewarper.structures import Floats, Ints, Labels, Progress, Track, silent
from posewarper.video.source import Video
from posewarper.video.track_crops import instance_boxes, track_boxes, without_strays


def present_frames(labels: Labels, track_id: int, n_frames: int, *, extend: bool = False) -> Ints:
    """Return the frames on which a track is taken to be there, as rising indices.

    That is from one gap before its first label to one gap after its last, and between two labels unless a
    labelled frame in between lacks the track: then all frames between the two are left out. Nor does the
    track reach to or past a labelled frame that lacks it before its first or after its last label. A gap is
    the median spacing of the clip's labelled frames; with one labelled frame it is the whole clip.

    Args:
        labels: labels of the clip; instances on frames that are not in ``labelled_frames`` do not count.
        track_id: the track.
        n_frames: frames of the clip.
        extend: return every frame of the clip instead (none if the track has no label).

    Raises:
        LabelsError: if there is no such track.
    """
    track = labels.only_track(track_id).tracks[track_id]
    own = np.intersect1d(track.frames, labels.labelled_frames)
    if not own.size:
        return np.zeros(0, np.int64)
    if extend:
        return np.arange(n_frames, dtype=np.int64)
    spacing = np.diff(labels.labelled_frames)
    gap = int(np.median(spacing)) if spacing.size else n_frames
    lacking = np.setdiff1d(labels.labelled_frames, own)
    split = np.searchsorted(lacking, own)
    start = max(own[0] - gap, lacking[split[0] - 1] + 1 if split[0] > 0 else 0)
    last = min(own[-1] + gap, lacking[split[-1]] - 1 if split[-1] < lacking.size else n_frames - 1)
    there = np.zeros(n_frames, bool)
    there[start : last + 1] = True
    for left_out in np.flatnonzero(np.diff(split)):
        there[own[left_out] + 1 : own[left_out + 1]] = False
    return np.flatnonzero(there).astype(np.int64)


# One standard deviation as a share of the subject's size, for each frame that labels are carried, and as a
# share of the forward-backward inconsistency on the way.
_SIGMA, _GROWTH, _INCONSISTENCY = 0.0105, 0.0028, 0.7
# The median distance from a label that was left out, in such deviations: what most clips have, and by how
# many labels it counts against what a clip shows.
_USUAL, _USUAL_COUNTS = 0.45, 20
# Less than the least is not believed: medians say nothing of limbs that are lost altogether.
_LEAST, _MOST = 0.8, 4.0


def carried_sigma(distance: Floats, error: Floats, size: Floats) -> Floats:
    """Return how far off labels carried by flow usually are: one standard deviation in pixels.

    Args:
        distance: frames that they were carried.
        error: forward-backward inconsistency in pixels, summed along the way; NaN where none arrived.
        size: of the subject in pixels.
    """
    return (_SIGMA + _GROWTH * distance) * size + _INCONSISTENCY * np.nan_to_num(error, nan=np.inf)


def measure_flow_error(labels: Labels, chains: Mapping[int, FlowChain]) -> float:
    """Return how far off labels carried by flow are in this clip, as a multiple of what is usual.

    Each label is left out in turn and compared with where its neighbours' labels arrive. With few labels the
    answer stays near 1, and without any to compare it is 1.
    """
    errors = np.concatenate(
        [np.zeros(0), *(_left_out_errors(labels.tracks[i], c) for i, c in chains.items())]
    )
    if not len(errors):
        return 1.0
    share = len(errors) / (len(errors) + _USUAL_COUNTS)
    return float(np.clip((np.median(errors) / _USUAL) ** share, _LEAST, _MOST))


def _left_out_errors(track: Track, chain: FlowChain) -> Floats:
    """Return the distances of visible labels from where their neighbours arrive, in standard deviations."""
    there = chain.left_out
    if there is None:
        return np.zeros(0)
    size = instance_boxes(track.keypoints, track.boxes)[:, 2:].max(1)
    rows = np.searchsorted(there.frames, track.frames)
    inside = np.isin(track.frames, there.frames)
    sides = (there.forward, there.forward_error), (there.backward, there.backward_error)
    errors = []
    for k in range(track.keypoints.shape[1]):
        for pair in pairwise(np.flatnonzero(track.visibility[:, k] > 0)):
            distance = float(track.frames[pair[1]] - track.frames[pair[0]])
            # The later label is where the earlier one arrives forward, the earlier one where the later does.
            for own, (points, error) in zip(reversed(pair), sides, strict=True):
                if track.visibility[own, k] == 2 and inside[own]:
                    off = np.linalg.norm(points[rows[own], k] - track.keypoints[own, k])
                    errors.append(off / carried_sigma(np.array(distance), error[rows[own], k], size[own]))
    found = np.array(errors, float)
    return found[np.isfinite(found)]


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
