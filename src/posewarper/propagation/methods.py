"""Sparse labels in, a pose for every frame out; each method by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from posewarper.errors import unknown_name
from posewarper.geometry import pad_box
from posewarper.model.heatmap_runner import HeatmapEngine
from posewarper.model.network import PoseWarper
from posewarper.motion.flow import BLENDS
from posewarper.motion.interpolation import INTERPOLATIONS, fill_in, interpolate
from posewarper.propagation.clip import Clip, settled_frames, usual_gap
from posewarper.propagation.evidence import as_seen, find_peaks, labelled_crop, warp_label
from posewarper.propagation.sides import learn_trust
from posewarper.propagation.stretch import Estimate, estimate_track, split_stretches, without_errors
from posewarper.propagation.trust import Trust
from posewarper.structures import Floats, Ints, Poses, Progress, Track, is_there, silent
from posewarper.video.source import Video
from posewarper.video.track_crops import cut_track, instance_boxes, without_strays

METHODS: dict[str, str] = {
    "nearest": "copy of the nearest label",
    "linear": "straight lines between labels",
    "pchip": "monotone cubics between labels",
    "flow": "optical flow (DIS) from the nearest label",
    "flow2": "optical flow (DIS) from both sides, blended by distance",
    "frame": "the pose network on each frame by itself",
    "warper": "labelled heatmaps warped from both sides by the trained head",
    "paper": "the paper's way: the labelled frame's crop, its nearest label, the trained head alone",
    "default": "one robust trajectory from labels, flow and networks",
}
# Crops in memory at a time.
_LONGEST = 256


def check_method(method: str) -> None:
    """Refuse an unknown method.

    Raises:
        ConfigError: with the names there are.
    """
    if method not in METHODS:
        raise unknown_name("unknown method", method, METHODS)


def propagate_clip(
    clip: Clip, method: str, model: PoseWarper | None = None, *, progress: Progress = silent
) -> Poses:
    """Propagate the labels of a clip to all of its frames.

    Args:
        clip: from :func:`~posewarper.propagation.clip.prepare_clip`; interpolation needs no optical flow.
        method: one of :data:`METHODS`.
        model: the trained networks; ``default`` does without where there are none.
        progress: is told how many frames the methods with networks and the trajectories have done.
    """
    total, done = sum(len(f) for f in clip.frames.values()), 0

    def advance(frames: int) -> None:
        nonlocal done
        done += frames
        progress(f"propagating ({method})", min(done, total), total)

    network = None if model is None else HeatmapEngine(model, flip=True)
    trust = learn_trust(clip, network) if method == "default" else None
    found = {}
    for i, track in clip.labels.tracks.items():
        frames = clip.frames[i]
        if method in INTERPOLATIONS:
            points = interpolate(track.frames, track.keypoints, frames, method)
            found[i] = without_errors(points, _nearness(clip, track, frames))
        elif method in BLENDS:
            points = BLENDS[method](clip.chains[i], track)
            found[i] = without_errors(points, _nearness(clip, track, frames))
        elif method == "paper":
            assert network is not None
            found[i] = without_errors(*warp_in_fixed_crops(clip.video, track, frames, network, advance))
        else:
            found[i] = estimate_track(clip, i, method, network, trust, advance)
    return _to_poses(clip, found)


def _nearness(clip: Clip, track: Track, frames: Ints) -> Floats:
    """Return (t, K) scores that fall with the distance to the nearest labelled frame of the clip.

    Frames on which nobody has looked at a keypoint do not count for it.
    """
    every = clip.labels.labelled_frames
    spacing = usual_gap(clip.labels, 1)
    scores = np.zeros((len(frames), track.keypoints.shape[1]))
    for k, passed_over in enumerate(track.not_looked_at.T):
        labelled = np.setdiff1d(every, track.frames[passed_over])
        if len(labelled):
            after = np.searchsorted(labelled, frames)
            sides = labelled[np.maximum(after - 1, 0)], labelled[np.minimum(after, len(labelled) - 1)]
            away = np.minimum(np.abs(frames - sides[0]), np.abs(frames - sides[1]))
            scores[:, k] = 1 / (1 + away / spacing)
    return scores


def warp_in_fixed_crops(
    video: Video, track: Track, frames: Ints, network: HeatmapEngine, advance: Callable[[int], None]
) -> tuple[Floats, Floats]:
    """Warp each frame's nearest label to it, both seen in the crop of the labelled frame (paper, section 3).

    Of each keypoint that is the nearest label whose labeller has looked at it. A subject that has left that
    crop is lost; the peak is then low. ``advance`` is told how many of the ``frames`` (t,), which rise, were
    done.

    Returns:
        Points (t, K, 2) in image pixels, NaN where the label has no such keypoint, and scores (t, K).
    """
    size = network.spec.crop_size
    points = np.full((len(frames), *track.keypoints.shape[1:]), np.nan)
    scores = np.zeros(points.shape[:2])
    framed = without_strays(track, video.image_size)
    usable = np.any(framed.visibility > 0, axis=1)
    boxes = instance_boxes(fill_in(framed).keypoints, framed.boxes)
    boxes = pad_box(boxes, aspect_ratio=size[1] / size[0])
    nearest = np.full(scores.shape, -1)
    for k, looked_at in enumerate(track.labelled.T):
        if len(rows := np.flatnonzero(usable & looked_at)):
            # Of two labels that are equally near the earlier one counts.
            nearest[:, k] = rows[np.abs(frames[:, None] - track.frames[rows]).argmin(axis=1)]
    for label in np.unique(nearest[nearest >= 0]):
        own = np.flatnonzero((nearest == label).any(1))
        for rows in np.array_split(own, -(-len(own) // _LONGEST)):
            # The labelled frame comes first: it is the source of every warp.
            needed = np.concatenate([[track.frames[label]], frames[rows]])
            around = np.repeat(boxes[label][None], len(needed), axis=0)
            crops = as_seen(cut_track(video, needed, around, size), network.spec)
            heatmaps = network.heatmaps(crops.images)
            label_here = track.keypoints[label], track.visibility[label], crops.transforms[0]
            source = labelled_crop(0, *label_here, network)
            warped = warp_label(network, source, heatmaps, np.arange(1, len(needed)))
            seen = find_peaks(warped, crops.transforms[1:])
            wanted = (nearest[rows] == label) & source.has
            points[rows] = np.where(wanted[..., None], seen.points, points[rows])
            scores[rows] = np.where(wanted, np.clip(seen.scores, 0, 1), scores[rows])
            advance(int((nearest[rows].max(1) == label).sum()))
    return points, scores


def _to_poses(clip: Clip, found: Mapping[int, Estimate]) -> Poses:
    """Put the labels in place of what was found on labelled frames, exactly, and wrap everything up.

    Keypoints that nobody has looked at there keep what was found.
    """
    video, labels = clip.video, clip.labels
    tracks = {i: _to_track(clip, i, estimate) for i, estimate in found.items()}
    return Poses(
        labels.skeleton,
        tracks,
        video.image_size,
        video.n_frames,
        labels.labelled_frames,
        labels.video or Path(video.path).stem,
        dict(enumerate(video.frame_names)) or labels.frame_names,
    )


def _to_track(clip: Clip, track_id: int, found: Estimate) -> Track:
    track, frames, (points, scores, error) = clip.labels.tracks[track_id], clip.frames[track_id], found
    visibility = is_there(points).astype(np.uint8) * 2
    labelled = np.zeros(visibility.shape, bool)
    on_label = np.isin(frames, track.frames)
    own = np.searchsorted(track.frames, frames[on_label])
    labelled[on_label] = said = track.labelled[own]
    points[labelled], visibility[labelled] = track.keypoints[own][said], track.visibility[own][said]
    scores[labelled] = (visibility[labelled] > 0).astype(float)
    error[labelled & (visibility == 2)] = 0.0
    error[~is_there(points)] = np.nan
    scores[visibility == 0] = 0.0
    if not np.isfinite(error[~labelled]).any():
        error[:] = np.nan
    return Track(
        frames,
        points,
        visibility=visibility,
        labelled=labelled,
        keypoint_scores=scores,
        expected_error=error,
    )


def propagate_again(
    clip: Clip, track_id: int, touched: Ints, network: HeatmapEngine | None, trust: Trust, start: Track
) -> Track:
    """Solve the stretches of a track anew that hold some frames, by the method ``default``.

    Args:
        clip: with the labels as they are now.
        track_id: the track.
        touched: rising frames on which labels have changed, or on which the track is only now.
        network: what looks, None for none.
        trust: from :func:`~posewarper.propagation.sides.learn_trust`.
        start: the poses so far.

    Returns:
        The poses on the frames of these stretches alone.
    """
    frames = clip.frames[track_id]
    points = np.full((len(frames), *start.keypoints.shape[1:]), np.nan)
    _, rows, theirs = np.intersect1d(frames, start.frames, return_indices=True)
    points[rows] = start.keypoints[theirs]
    # A label on a frame where the track is not counts on the nearest frame where it is.
    held = frames[np.clip(np.searchsorted(frames, touched), 0, len(frames) - 1)] if len(frames) else frames
    split = split_stretches(frames, settled_frames(clip.labels.tracks[track_id]))
    stretches = [part for part in split if np.isin(frames[part[0] : part[1] + 1], held).any()]
    if not stretches:
        return start.at([])
    solve = {"start": points, "stretches": stretches}
    found = estimate_track(clip, track_id, "default", network, trust, lambda done: None, **solve)
    solved = np.concatenate([frames[first:keep] for first, _, keep in stretches])
    return _to_track(clip, track_id, found).at(solved)
