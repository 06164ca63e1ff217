"""A video with labels, made ready for propagation: when tracks are there, where their crops lie, and flow."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from posewarper.geometry import pad_box
from posewarper.motion.flow import (
    FlowChain,
    FlowField,
    FlowStore,
    blend_both,
    carry_again,
    carry_labels,
)
from posewarper.motion.interpolation import fill_in, interpolate
from posewarper.structures import Floats, Ints, Labels, Progress, Track, is_there, silent
from posewarper.video.source import Video
from posewarper.video.track_crops import (
    SMALLEST_BOX,
    TrackCrops,
    cut_track,
    instance_boxes,
    instance_sizes,
    without_strays,
)


def present_frames(labels: Labels, track_id: int, n_frames: int, *, extend: bool = False) -> Ints:
    """Return the frames on which a track is taken to be there, as rising indices.

    That is from one gap before its first label to one gap after its last. A labelled frame on which the track
    is not ends it there, and leaves out all frames between two of its labels; one on which nobody has looked
    at the track says nothing. A gap is the spacing of the clip's labelled frames in which half of the frames
    between them lie, so that labels added close together do not cut the ends; with one labelled frame it is
    the whole clip. Frames on which less than half of the keypoints are labelled, as where some were
    corrected, do not count for it, if there are others.

    Args:
        labels: labels of the clip; instances on frames that are not in ``labelled_frames`` do not count.
        track_id: the track.
        n_frames: frames of the clip.
        extend: return every frame of the clip instead (none if the track has no label).

    Raises:
        LabelsError: if there is no such track.
    """
    track = labels.only_track(track_id).tracks[track_id]
    own = np.intersect1d(track.frames[track.placed.any(1)], labels.labelled_frames)
    if not own.size:
        return np.zeros(0, np.int64)
    if extend:
        return np.arange(n_frames, dtype=np.int64)
    gap = usual_gap(labels, n_frames)
    lacking = np.setdiff1d(labels.labelled_frames, track.frames[~track.is_gone])
    split = np.searchsorted(lacking, own)
    start = max(own[0] - gap, lacking[split[0] - 1] + 1 if split[0] > 0 else 0)
    last = min(own[-1] + gap, lacking[split[-1]] - 1 if split[-1] < lacking.size else n_frames - 1)
    there = np.zeros(n_frames, bool)
    there[start : last + 1] = True
    for left_out in np.flatnonzero(np.diff(split)):
        there[own[left_out] + 1 : own[left_out + 1]] = False
    return np.flatnonzero(there).astype(np.int64)


def usual_gap(labels: Labels, otherwise: int) -> int:
    """Return the usual spacing of the labelled frames, as :func:`present_frames` counts it.

    Where only one frame is labelled, that is ``otherwise``.
    """
    spacing = np.sort(np.diff(_whole_frames(labels)))
    if not spacing.size:
        return otherwise
    # A median by length: of two labels in a row and a long gap, the gap is what is usual.
    return int(spacing[np.searchsorted(np.cumsum(spacing), spacing.sum() / 2)])


def _whole_frames(labels: Labels) -> Ints:
    """Return the labelled frames, without those where less than half of every track there is labelled."""
    most = np.zeros(len(labels.labelled_frames))
    shown = np.zeros(len(labels.labelled_frames), bool)
    for track in labels.only_labelled().tracks.values():
        known = np.maximum(track.placed.any(0).sum(), 1)
        rows = np.searchsorted(labels.labelled_frames, track.frames)
        most[rows] = np.maximum(most[rows], track.labelled.sum(1) / known)
        shown[rows] = True
    whole = labels.labelled_frames[(most >= 0.5) | ~shown]
    return whole if len(whole) else labels.labelled_frames


def settled_frames(track: Track) -> Ints:
    """Return the frames on which a labeller has looked at every keypoint that the track has anywhere."""
    known = track.placed.any(0)
    return track.frames[(track.labelled | ~known).all(1)]


@dataclass(frozen=True)
class Clip:
    """A video and its labels, made ready for propagation.

    Args:
        video: the clip.
        labels: its labels.
        frames: track id -> rising frames on which the track is there.
        chains: track id -> its labels carried by optical flow.
    """

    video: Video
    labels: Labels
    frames: Mapping[int, Ints]
    chains: Mapping[int, FlowChain]

    def boxes(self, track_id: int, frames: Ints, aspect_ratio: float = 1.0) -> Floats:
        """Return the padded boxes (t, 4) of a track's crops on some of its frames."""
        track = without_strays(self.labels.tracks[track_id], self.video.image_size)
        return track_boxes(track, frames, self.rough(track_id, frames), aspect_ratio)

    def cut(self, track_id: int, frames: Ints, boxes: Floats, size: tuple[int, int]) -> TrackCrops:
        """Return a track's crops (height, width) = ``size`` on some of its frames, in boxes from above."""
        return cut_track(self.video, frames, boxes, size)

    def rough(self, track_id: int, frames: Ints) -> Floats:
        """Return (t, K, 2): a track's labels carried by flow from both sides to some of its frames."""
        return blend_both(self.chains[track_id].at(frames), self.labels.tracks[track_id])

    def motion(self, track_id: int, frames: Ints) -> FlowField:
        """Return the flow around a track between consecutive frames."""
        flow = self.chains[track_id].flow
        assert flow is not None
        return flow.between(frames[:-1])


def track_boxes(track: Track, frames: Ints, rough: Floats, aspect_ratio: float) -> Floats:
    """Return the padded boxes of a track on every frame asked for.

    Size and centre are the labels', interpolated in time. The centre is moved by the median over keypoints of
    how far ``rough`` lies from the interpolated keypoints, so that a few keypoints that optical flow has lost
    do not move the crop.

    Args:
        track: its labels.
        frames: (t,) rising frame indices.
        rough: (t, K, 2) rough positions, NaN where unknown.
        aspect_ratio: width divided by height of the crop.

    Returns:
        (t, 4) xywh in pixels, grown to the aspect ratio and padded by 1.25.
    """
    # A keypoint that one label lacks does not shrink the crop there: it is filled in from the others.
    track = fill_in(track)
    filled = interpolate(track.frames, track.keypoints, track.frames)
    boxes = instance_boxes(np.where(np.isnan(track.keypoints), filled, track.keypoints), track.boxes)
    framing = np.stack([boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]], axis=1)
    middle, size = np.moveaxis(interpolate(track.frames, framing, frames), 1, 0)
    middle, size = np.nan_to_num(middle), np.nan_to_num(size, nan=SMALLEST_BOX)
    off = rough - interpolate(track.frames, track.keypoints, frames)
    some = is_there(off).any(-1)
    drift = np.zeros_like(middle)
    drift[some] = np.nanmedian(off[some], axis=1)
    middle = middle + drift
    return pad_box(np.concatenate([middle - size / 2, size], axis=1), aspect_ratio=aspect_ratio)


def subject_size(labels: Labels) -> float:
    """Return the median longer side of the labelled instances in pixels."""
    sizes = [instance_sizes(fill_in(track))[track.placed.any(1)] for track in labels.tracks.values()]
    return float(np.nanmedian(np.concatenate(sizes)))


def prepare_clip(
    video: Video,
    labels: Labels,
    *,
    span: range | None = None,
    extend: bool = False,
    flow: bool = True,
    kept: str | os.PathLike[str] | None = None,
    known: FlowStore | None = None,
    narrow: bool = False,
    progress: Progress = silent,
) -> Clip:
    """Decide on which frames the tracks are there, and carry the labels through the clip by optical flow.

    Without ``flow`` the clip has no chains, and only the methods that do not look at the video can use it.
    With a ``span`` no track is there on frames beyond it, where there must be no labels. ``kept`` is the file
    in which the flow is kept; left out, it lasts as long as the clip. ``known`` is flow of an earlier run on
    the same video, and ``narrow`` leaves out flow further around the keypoints, where no network looks.
    """
    frames = {i: present_frames(labels, i, video.n_frames, extend=extend) for i in labels.tracks}
    if span is not None:
        frames = {i: own[(own >= span.start) & (own < span.stop)] for i, own in frames.items()}
    chains = {}
    if flow:
        how = {"subject": subject_size(labels), "kept": kept, "known": known, "narrow": narrow}
        chains = carry_labels(video, labels.tracks, frames, **how, progress=progress)
    return Clip(video, labels, frames, chains)


def prepare_again(
    video: Video, labels: Labels, store: FlowStore, before: Clip | None = None, *, extend: bool = False
) -> Clip:
    """Make a clip of labels that have changed, with the optical flow that was computed for others.

    Args:
        video, labels, extend: as :func:`prepare_clip` takes them.
        store: the flow; what lacks is added.
        before: the clip as it was: what no change touches is taken over.
    """
    frames = {i: present_frames(labels, i, video.n_frames, extend=extend) for i in labels.tracks}
    old = {} if before is None else {i: (before.labels.tracks[i], before.chains[i]) for i in before.chains}
    chains = carry_again(video, labels.tracks, frames, store, subject=subject_size(labels), before=old)
    return Clip(video, labels, frames, chains)
