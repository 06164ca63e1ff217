"""How far optical flow and the pose network are to be trusted in a clip, learned from its labelled frames."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from posewarper.geometry import BOX_PADDING
from posewarper.model.heatmap_runner import HeatmapEngine
from posewarper.motion.flow import FlowChain
from posewarper.motion.interpolation import fill_in
from posewarper.propagation.clip import Clip
from posewarper.propagation.evidence import find_all_peaks
from posewarper.structures import Floats, Labels, Track
from posewarper.video.track_crops import cut_track, instance_sizes


class Trust(NamedTuple):
    """How far the sources of evidence are to be trusted in a clip."""

    flow_error: float  # how far labels carried by flow are off, as a multiple of what is usual
    network: Floats  # (K,) from 0 to 1: what the pose network's peaks count for, 1 for the usual


def measure_trust(clip: Clip, network: HeatmapEngine | None) -> Trust:
    """Measure both on the labelled frames; a network that is not trained gets the usual trust."""
    trust = np.ones(len(clip.labels.skeleton))
    if network is not None and network.spec.trained.get("pose"):
        trust = measure_network_trust(clip, network)
    return Trust(measure_flow_error(clip.labels, clip.chains), trust)


# Optical flow. One standard deviation as a share of the subject's size, for each frame that labels are
# carried, and as a share of the forward-backward inconsistency on the way.
_SIGMA, _GROWTH, _INCONSISTENCY = 0.0105, 0.0028, 0.7
# The median distance from a label that was left out, in such deviations: what most clips have, and by how
# many labels it counts against what a clip shows.
_USUAL, _USUAL_COUNTS = 0.45, 20
# Less than the least is not believed: medians say nothing of limbs that are lost altogether.
_LEAST, _MOST = 0.8, 4.0


def carried_sigma(distance: Floats, error: Floats, size: Floats) -> Floats:
    """Return how far off labels carried over a distance in frames usually are: one deviation in pixels.

    ``error`` is the forward-backward inconsistency in pixels along the way, NaN where none arrived; ``size``
    is that of the subject in pixels.
    """
    return (_SIGMA + _GROWTH * distance) * size + _INCONSISTENCY * np.nan_to_num(error, nan=np.inf)


def measure_flow_error(labels: Labels, chains: Mapping[int, FlowChain]) -> float:
    """Return how far off labels carried by flow are in this clip, as a multiple of what is usual.

    Each label is left out in turn and compared with where its neighbours' labels arrive. With few labels the
    answer stays near 1, and without any to compare it is 1.
    """
    found = [_left_out_errors(labels.tracks[i], chain) for i, chain in chains.items()]
    errors = np.concatenate([np.zeros(0), *found])
    if not len(errors):
        return 1.0
    share = len(errors) / (len(errors) + _USUAL_COUNTS)
    return float(np.clip((np.median(errors) / _USUAL) ** share, _LEAST, _MOST))


def _left_out_errors(track: Track, chain: FlowChain) -> Floats:
    """Return the distances of visible labels from where their neighbours arrive, in standard deviations."""
    there = chain.left_out
    if there is None:
        return np.zeros(0)
    size = instance_sizes(fill_in(track))
    rows = np.searchsorted(there.frames, track.frames)
    inside = np.isin(track.frames, there.frames)
    errors = []
    for k in range(track.keypoints.shape[1]):
        for pair in pairwise(np.flatnonzero(track.visibility[:, k] > 0)):
            distance = float(track.frames[pair[1]] - track.frames[pair[0]])
            # The later label is where the earlier one arrives forward, the earlier one where the later does.
            for own, (points, error) in zip(reversed(pair), there.sides, strict=True):
                if track.visibility[own, k] == 2 and inside[own]:
                    off = np.linalg.norm(points[rows[own], k] - track.keypoints[own, k])
                    errors.append(off / carried_sigma(np.array(distance), error[rows[own], k], size[own]))
    found = np.array(errors, float)
    return found[np.isfinite(found)]


# The network. Peaks that are lower than this share of the highest one are not what it shows.
_PEAKS, _HIGH = 4, 0.5
# A share of the subject's size: what is missed by this much counts half.
_BESIDE, _STEEPNESS = 0.05, 4
_FURTHEST = 0.2  # how far off one label counts at most
_MOST_FRAMES = 64  # labelled frames of a track that are looked at


def measure_network_trust(clip: Clip, network: HeatmapEngine) -> Floats:
    """Return (K,) from 0 to 1: what the pose network's peaks count for, as a share of what they usually do.

    Peaks are compared with the clip's visible labels. A network that does not show a keypoint even where it
    was told the place does not show it elsewhere; that it shows what it was told says no more. Left and right
    that change places do not count against it: motion tells them apart.
    """
    missed = np.concatenate([_misses(clip, i, network) for i in clip.labels.tracks])
    compared = ~np.isnan(missed)
    total = np.where(compared, np.minimum(missed, _FURTHEST), 0.0).sum(0)
    mean = total / np.maximum(compared.sum(0), 1)
    trust = 1 / (1 + (mean / _BESIDE) ** _STEEPNESS)
    return np.where(compared.any(0), trust, 1.0)


def _misses(clip: Clip, track_id: int, network: HeatmapEngine) -> Floats:
    """Return (n, K): how far labels are from the nearest high peak, as shares of the size; else NaN."""
    track = clip.labels.tracks[track_id]
    rows = np.flatnonzero(np.isin(track.frames, clip.frames[track_id]) & track.placed.any(1))
    if not len(rows):
        return np.empty((0, track.keypoints.shape[1]))
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), _MOST_FRAMES)).astype(int)]
    frames, size = track.frames[rows], network.spec.crop_size
    boxes = clip.boxes(track_id, frames, size[1] / size[0])
    crops = cut_track(clip.video, frames, boxes, size)
    peaks = find_all_peaks(network.heatmaps(crops.images), crops.transforms, _PEAKS)
    order = list(network.spec.skeleton.flip_order)
    points = np.concatenate([peaks.points, peaks.points[:, order]], axis=2)
    heights = np.nan_to_num(np.concatenate([peaks.heights, peaks.heights[:, order]], axis=2))
    away = np.linalg.norm(points - track.keypoints[rows, :, None], axis=-1)
    high = (heights > 0) & (heights >= _HIGH * heights.max(-1, keepdims=True))
    nearest = np.where(high, away, np.inf).min(-1)
    share = nearest * BOX_PADDING / boxes[:, 2:].max(1)[:, None]
    return np.where(track.visibility[rows] == 2, share, np.nan)
