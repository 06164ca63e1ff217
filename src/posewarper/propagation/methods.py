"""Sparse labels in, a pose for every frame out; each method by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from posewarper.errors import ConfigError
from posewarper.geometry import pad_box
from posewarper.model.network import PoseWarper
from posewarper.motion import interpolation
from posewarper.motion.flow import FlowChain, blend_both, blend_nearest
from posewarper.propagation.clip import Clip
from posewarper.propagation.evidence import find_peaks, labelled_crop, see_heatmaps, warp_label
from posewarper.propagation.stretch import Estimate, Stretch, split_stretches, without_errors
from posewarper.propagation.trust import measure_network_trust
from posewarper.structures import Floats, Ints, Labels, Poses, Progress, Track, is_there, silent
from posewarper.video.source import Video
from posewarper.video.track_crops import cut_track, instance_boxes, without_strays

# Crops in memory at a time.
_LONGEST = 256


def nearest_labels(frames: Ints, labelled: Ints) -> Ints:
    """Return for each frame the position in ``labelled`` (rising) of the nearest, the earlier on a tie."""
    return np.abs(frames[:, None] - labelled[None]).argmin(axis=1).astype(np.int64)


def warp_in_fixed_crops(
    video: Video, track: Track, frames: Ints, model: PoseWarper, advance: Callable[[int], None]
) -> tuple[Floats, Floats]:
    """Warp each frame's nearest label to it, both seen in the crop of the labelled frame (paper, section 3).

    A subject that has left that crop is lost; the peak is then low.

    Args:
        video: the clip.
        track: the labels.
        frames: (t,) rising frames.
        model: its head warps.
        advance: is told how many frames were done.

    Returns:
        Points (t, K, 2) in image pixels, NaN where the label has no such keypoint, and scores (t, K).
    """
    size = model.spec.crop_size
    points = np.full((len(frames), *track.keypoints.shape[1:]), np.nan)
    scores = np.zeros(points.shape[:2])
    framed = without_strays(track, video.image_size)
    usable = np.flatnonzero(np.any(framed.visibility > 0, axis=1))
    if not len(usable):
        return points, scores
    boxes = pad_box(instance_boxes(framed.keypoints, framed.boxes), aspect_ratio=size[1] / size[0])
    nearest = usable[nearest_labels(frames, track.frames[usable])]
    for label in np.unique(nearest):
        own = np.flatnonzero(nearest == label)
        for rows in np.array_split(own, -(-len(own) // _LONGEST)):
            # The labelled frame comes first: it is the source of every warp.
            wanted = np.concatenate([[track.frames[label]], frames[rows]])
            crops = cut_track(video, wanted, np.repeat(boxes[label][None], len(wanted), axis=0), size)
            heatmaps = see_heatmaps(model, crops.images)
            source = labelled_crop(
                0, track.keypoints[label], track.visibility[label], crops.transforms[0], model
            )
            warped = warp_label(model, source, heatmaps, np.arange(1, len(wanted)))
            seen = find_peaks(warped, crops.transforms[1:])
            points[rows] = np.where(source.has[:, None], seen.points, np.nan)
            scores[rows] = np.clip(seen.scores, 0, 1) * source.has
            advance(len(rows))
    return points, scores


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
# To see what each part adds.
ABLATIONS: dict[str, str] = {
    "without-flow": "the default without optical flow, which only the crops follow",
    "without-frame": "the default without the pose network on each frame",
    "without-warper": "the default without warped labels",
    "without-limbs": "the default without limb lengths",
    "without-paths": "the default from optical flow and each heatmap's highest peak alone",
}
# Heads that see more of the frames; each trains its own on the pose network that it is given.
VARIANTS: dict[str, str] = {
    "warper-image": "the warper, whose head also sees how the images differ",
    "warper-correlation": "the warper, whose head also sees where the frames look alike",
}
INTERPOLATIONS: Mapping[str, Callable[[Track, Ints], Floats]] = {
    "nearest": interpolation.nearest,
    "linear": interpolation.linear,
    "pchip": interpolation.pchip,
}
_FLOWS: Mapping[str, Callable[[FlowChain, Track], Floats]] = {
    "flow": blend_nearest,
    "flow2": blend_both,
}


def check_method(method: str) -> None:
    """Refuse an unknown method.

    Raises:
        ConfigError: with the names there are.
    """
    known = {**METHODS, **ABLATIONS, **VARIANTS}
    if method not in known:
        raise ConfigError(
            "unknown method",
            expected=", ".join(known),
            got=method,
            fix="use one of the names expected",
        )


def interpolate_labels(clip: Clip, method: str) -> Poses:
    """Propagate without looking at the video: ``nearest``, ``linear`` or ``pchip``."""
    found = {}
    for i, track in clip.labels.tracks.items():
        points = INTERPOLATIONS[method](track, clip.frames[i])
        found[i] = without_errors(points, _nearness(clip.labels, clip.frames[i], points))
    return _to_poses(clip, found)


def carry_poses(clip: Clip, method: str) -> Poses:
    """Propagate by optical flow alone: ``flow`` or ``flow2``."""
    found = {}
    for i, track in clip.labels.tracks.items():
        points = _FLOWS[method](clip.chains[i], track)
        found[i] = without_errors(points, _nearness(clip.labels, clip.frames[i], points))
    return _to_poses(clip, found)


def estimate_poses(
    clip: Clip, method: str, model: PoseWarper | None, *, progress: Progress = silent
) -> Poses:
    """Propagate stretch by stretch: ``frame``, ``warper``, ``default`` and the ablations.

    Args:
        clip: from :func:`prepare_clip`.
        method: name of the method.
        model: the network; may be None for ``default`` and the ablations.
        progress: is told after every stretch.
    """
    found: dict[int, Estimate] = {}
    name, without = ("default", method.removeprefix("without-")) if method in ABLATIONS else (method, None)
    total, done = sum(len(f) for f in clip.frames.values()), 0
    trust = np.ones(len(clip.labels.skeleton))
    if name == "default" and without != "frame" and model is not None and model.spec.trained.get("pose"):
        trust = measure_network_trust(clip, model)
    for i, track in clip.labels.tracks.items():
        frames = clip.frames[i]
        points = np.full((len(frames), *track.keypoints.shape[1:]), np.nan)
        own = without_errors(points, np.zeros(points.shape[:2]))
        for first, last, keep in split_stretches(frames, track.frames):
            rows = np.arange(first, last + 1)
            stretch = Stretch(clip, i, frames[rows], points[first], model, trust)
            # Also what lies beyond ``keep``: the next stretch starts from it, and then puts its own in place.
            for whole, part in zip(own, stretch.estimate(name, without), strict=True):
                whole[first : last + 1] = part
            done += keep - first
            progress(f"propagating ({method})", min(done, total), total)
        found[i] = own
    return _to_poses(clip, found)


def warp_the_paper_s_way(clip: Clip, model: PoseWarper, *, progress: Progress = silent) -> Poses:
    """Propagate as the paper does: method ``paper``."""
    total, done = sum(len(f) for f in clip.frames.values()), 0

    def advance(frames: int) -> None:
        nonlocal done
        done += frames
        progress("propagating (paper)", done, total)

    found = {
        i: without_errors(*warp_in_fixed_crops(clip.video, track, clip.frames[i], model, advance))
        for i, track in clip.labels.tracks.items()
    }
    return _to_poses(clip, found)


def _nearness(labels: Labels, frames: Ints, points: Floats) -> Floats:
    """Return (t, K) scores that fall with the distance to the nearest labelled frame of the clip."""
    labelled = labels.labelled_frames
    spacing = float(np.median(np.diff(labelled))) if len(labelled) > 1 else 1.0
    after = np.searchsorted(labelled, frames)
    sides = labelled[np.maximum(after - 1, 0)], labelled[np.minimum(after, len(labelled) - 1)]
    away = np.minimum(np.abs(frames - sides[0]), np.abs(frames - sides[1]))
    return np.repeat((1 / (1 + away / spacing))[:, None], points.shape[1], axis=1)


def _to_poses(clip: Clip, found: Mapping[int, Estimate]) -> Poses:
    """Put the labels in place of what was found on labelled frames, exactly, and wrap everything up."""
    video, labels, frames = clip.video, clip.labels, clip.frames
    tracks = {}
    for i, track in labels.tracks.items():
        points, scores, error = (np.array(a) for a in found[i])
        visibility = is_there(points).astype(np.uint8) * 2
        rows = np.flatnonzero(np.isin(frames[i], track.frames))
        own = np.searchsorted(track.frames, frames[i][rows])
        points[rows], visibility[rows] = track.keypoints[own], track.visibility[own]
        scores[rows] = (track.visibility[own] > 0).astype(float)
        error[rows] = np.where(track.visibility[own] == 2, 0.0, error[rows])
        error[~is_there(points)] = np.nan
        scores[visibility == 0] = 0.0
        if not np.isfinite(error[~np.isin(frames[i], track.frames)]).any():
            error[:] = np.nan
        tracks[i] = Track(
            frames[i], points, visibility=visibility, keypoint_scores=scores, expected_error=error
        )
    return Poses(
        labels.skeleton,
        tracks,
        video.image_size,
        video.n_frames,
        labels.labelled_frames,
        labels.video or Path(video.path).stem,
        dict(enumerate(video.frame_names)) or labels.frame_names,
    )
