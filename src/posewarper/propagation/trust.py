"""How far flow, lines between labels and the network are to be trusted, learned from a clip's labels."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from posewarper.geometry import BOX_PADDING
from posewarper.model.heatmap_runner import HeatmapEngine
from posewarper.motion.flow import FlowChain
from posewarper.motion.interpolation import fill_in, interpolate
from posewarper.propagation.clip import Clip
from posewarper.propagation.evidence import as_seen, find_all_peaks
from posewarper.structures import VISIBLE, Floats, Labels, Track, is_there
from posewarper.video.track_crops import cut_track, instance_sizes


class Lines(NamedTuple):
    """How the labels of a track are best interpolated, and how far off that is."""

    method: str  # of :func:`~posewarper.motion.interpolation.interpolate`
    rate: Floats  # (K,) one deviation as a share of the size, for each frame of :func:`reach_of_lines`
    held: Floats  # (K,) the same before the first and after the last label, where the label is held


class Trust(NamedTuple):
    """How far the sources of evidence are to be trusted in a clip."""

    flow_error: float  # how far labels carried by flow are off, as a multiple of what is usual
    network: Floats  # (K,) from 0 to 1: what the pose network's peaks count for, 1 for the usual
    lines: Mapping[int, Lines]  # track id -> what lines between its labels are worth
    mirrored: float = 1.0  # what a peak of the mirror keypoint counts


def measure_trust(clip: Clip, network: HeatmapEngine | None) -> Trust:
    """Measure both on the labelled frames; a network that is not trained gets the usual trust."""
    trust = np.ones(len(clip.labels.skeleton))
    if network is not None and network.spec.trained.get("pose"):
        trust = measure_network_trust(clip, network)
    return measure_again(Trust(1.0, trust, {}), clip)


def measure_again(trust: Trust, clip: Clip) -> Trust:
    """Measure anew what hangs on the labels alone, and keep what the network is to be trusted."""
    lines = {i: measure_lines(track) for i, track in clip.labels.tracks.items()}
    return trust._replace(flow_error=measure_flow_error(clip.labels, clip.chains), lines=lines)


# Optical flow. One standard deviation as a share of the subject's size, for each frame that labels are
# carried, and as a share of the forward-backward inconsistency on the way.
_SIGMA, _GROWTH, _INCONSISTENCY = 0.0105, 0.0028, 0.7
# The median distance from a label that was left out, in such deviations: what most clips have, and by how
# many labels it counts against what a clip shows.
_USUAL, _USUAL_COUNTS = 0.45, 8
# Less than the least is not believed: medians say nothing of limbs that are lost altogether.
_LEAST, _MOST = 0.8, 100.0


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
    crops = as_seen(cut_track(clip.video, frames, boxes, size), network.spec)
    peaks = find_all_peaks(network.heatmaps(crops.images), crops.transforms, _PEAKS)
    order = list(network.spec.skeleton.flip_order)
    points = np.concatenate([peaks.points, peaks.points[:, order]], axis=2)
    heights = np.nan_to_num(np.concatenate([peaks.heights, peaks.heights[:, order]], axis=2))
    away = np.linalg.norm(points - track.keypoints[rows, :, None], axis=-1)
    high = (heights > 0) & (heights >= _HIGH * heights.max(-1, keepdims=True))
    nearest = np.where(high, away, np.inf).min(-1)
    share = nearest * BOX_PADDING / boxes[:, 2:].max(1)[:, None]
    return np.where(track.visibility[rows] == 2, share, np.nan)


# Lines between labels. What is not known is taken to be a share of the way from label to label, and gives way
# to what is off as if it were this many labels.
_OF_THE_WAY, _COUNTS = 0.25, 1.0
_LEAST_RATE = 1e-4
_CURVES = ("linear", "pchip")
# Of a track, labelled frames that are left out; and labels on either side of one.
_MOST_LEFT_OUT, _AROUND = 32, 3


def reach_of_lines(before: Floats, after: Floats) -> Floats:
    """Return in frames how much room there is to stray from a line: none on a label, the gap in its middle.

    It grows with the distance (t, K) from a label, as where the velocity differs from that of the line, and
    without end before the first and after the last label, where the other distance is infinite.
    """
    both = before + after
    with np.errstate(invalid="ignore"):
        between = 4 * before * after / np.where(both > 0, both, 1.0)
    return np.where(np.isfinite(both), between, 4 * np.minimum(before, after))


def measure_lines(track: Track) -> Lines:
    """Leave labels out in turn, and compare them with the lines between their neighbours.

    Where few can be left out, some of what keypoints move from label to label is taken to be the error; what
    all keypoints show counts for each of them.
    """
    size = instance_sizes(fill_in(track))
    off = {method: _left_out_of_lines(track, size, method) for method in _CURVES}
    method = min(_CURVES, key=lambda name: float(np.nansum(off[name])))
    squares, count = np.nansum(off[method], axis=0), np.isfinite(off[method]).sum(0)
    way, ways = _ways(track, size)
    usual = np.sqrt(way.sum() / max(ways.sum(), 1))
    every = _blend(_OF_THE_WAY * usual, squares.sum(), count.sum())
    # What stays where its label was is off by all of the way.
    return Lines(method, _blend(every, squares, count), _blend(usual, way, ways) / 4)


def _blend(expected: Floats, squares: Floats, count: Floats) -> Floats:
    """Return the root of the mean square of ``count`` errors, drawn to what was expected."""
    share = count / (count + _COUNTS)
    found = np.sqrt(squares / np.maximum(count, 1))
    return np.maximum(expected, _LEAST_RATE) ** (1 - share) * np.maximum(found, _LEAST_RATE) ** share


def _left_out_of_lines(track: Track, size: Floats, method: str) -> Floats:
    """Return (n, K): squares of how far labels that are left out are from lines, as shares of their room."""
    rows = np.arange(len(track.frames))
    inner = rows[1:-1]
    if not len(inner):
        return np.full((0, track.keypoints.shape[1]), np.nan)
    found = []
    for row in inner[np.linspace(0, len(inner) - 1, min(len(inner), _MOST_LEFT_OUT)).astype(int)]:
        others = rows[max(0, row - _AROUND) : row + _AROUND + 1]
        others = others[others != row]
        points, frame = track.keypoints[others], track.frames[row]
        ahead = np.where(is_there(points), (track.frames[others] - frame)[:, None], np.nan)
        before = np.where(ahead < 0, -ahead, np.inf).min(0)
        after = np.where(ahead > 0, ahead, np.inf).min(0)
        there = interpolate(track.frames[others], points, [frame], method)[0]
        away = np.linalg.norm(there - track.keypoints[row], axis=-1)
        room = np.where(np.isfinite(before + after), reach_of_lines(before, after), np.nan) * size[row]
        found.append(np.where(track.visibility[row] == VISIBLE, (away / room) ** 2, np.nan))
    return np.stack(found)


def _ways(track: Track, size: Floats) -> tuple[Floats, Floats]:
    """Return (K,) sums of squared velocities from label to label, as shares of the size, and their number."""
    sums, count = np.zeros(track.keypoints.shape[1]), np.zeros(track.keypoints.shape[1])
    for k, there in enumerate(is_there(track.keypoints).T):
        rows = np.flatnonzero(there)
        step = np.linalg.norm(np.diff(track.keypoints[rows, k], axis=0), axis=-1)
        speed = step / np.diff(track.frames[rows]) / size[rows[1:]]
        sums[k], count[k] = np.nansum(speed**2), np.isfinite(speed).sum()
    return sums, count
