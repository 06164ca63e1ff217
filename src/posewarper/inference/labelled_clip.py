"""A video with labels, made ready for propagation: when tracks are there, and labels carried by flow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from posewarper.frames import instance_boxes, track_boxes, without_strays
from posewarper.inference.best_path import Limbs, measure_limbs
from posewarper.inference.flow_trust import carried_sigma, measure_flow_error
from posewarper.inference.presence import present_frames
from posewarper.inference.trajectory import Sighting
from posewarper.io.video import Video
from posewarper.motion.flow import FlowChain, blend_both, carry_labels, label_distances
from posewarper.structures import Floats, Ints, Labels, Progress, silent


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
