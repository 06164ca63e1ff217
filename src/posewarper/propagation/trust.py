"""How far the pose network is to be trusted with each keypoint, learned from the labelled frames."""

from __future__ import annotations

import numpy as np

from posewarper.geometry import BOX_PADDING
from posewarper.model.network import PoseWarper
from posewarper.propagation.clip import Clip
from posewarper.propagation.evidence import find_all_peaks, see_heatmaps
from posewarper.structures import Floats
from posewarper.video.track_crops import cut_track

# Peaks that are lower than this share of the highest one are not what the network shows.
_PEAKS, _HIGH = 4, 0.5
# Lengths are shares of the subject's size: what is missed by less counts twice, by more half.
_EXACT, _BESIDE, _STEEPNESS = 0.01, 0.05, 4
_FURTHEST = 0.2  # how far off one label counts at most
_MOST = 64  # labelled frames of a track that are looked at


def measure_network_trust(clip: Clip, model: PoseWarper) -> Floats:
    """Return (K,) from 0 to 2: what the pose network's peaks count for, as a share of what they usually do.

    A network that does not show a keypoint even where it was told the place does not show it elsewhere; one
    that shows it more exactly than most counts for more. Left and right that change places do not count
    against it: motion tells them apart.

    Args:
        clip: its visible labels are what the peaks are compared with.
        model: its pose network is trained, on this clip or on others.
    """
    missed = np.concatenate([_misses(clip, i, model) for i in clip.labels.tracks])
    compared = ~np.isnan(missed)
    total = np.where(compared, np.minimum(missed, _FURTHEST), 0.0).sum(0)
    mean = total / np.maximum(compared.sum(0), 1)
    trust = (1 + np.exp(-((mean / _EXACT) ** 2))) / (1 + (mean / _BESIDE) ** _STEEPNESS)
    return np.where(compared.any(0), trust, 1.0)


def _misses(clip: Clip, track_id: int, model: PoseWarper) -> Floats:
    """Return (n, K): how far labels are from the nearest high peak, as shares of the size; else NaN."""
    track = clip.labels.tracks[track_id]
    rows = np.flatnonzero(np.isin(track.frames, clip.frames[track_id]))
    if not len(rows):
        return np.empty((0, track.keypoints.shape[1]))
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), _MOST)).astype(int)]
    frames, size = track.frames[rows], model.spec.crop_size
    boxes = clip.boxes(track_id, frames, size[1] / size[0])
    crops = cut_track(clip.video, frames, boxes, size)
    peaks = find_all_peaks(see_heatmaps(model, crops.images), crops.transforms, _PEAKS)
    order = list(model.spec.skeleton.flip_order)
    points = np.concatenate([peaks.points, peaks.points[:, order]], axis=2)
    heights = np.nan_to_num(np.concatenate([peaks.heights, peaks.heights[:, order]], axis=2))
    away = np.linalg.norm(points - track.keypoints[rows, :, None], axis=-1)
    high = (heights > 0) & (heights >= _HIGH * heights.max(-1, keepdims=True))
    nearest = np.where(high, away, np.inf).min(-1)
    share = nearest * BOX_PADDING / boxes[:, 2:].max(1)[:, None]
    return np.where(track.visibility[rows] == 2, share, np.nan)
