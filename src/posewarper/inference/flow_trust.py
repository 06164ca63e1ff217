"""How far labels carried by optical flow are to be trusted, learned from labels that are left out."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from posewarper.frames import instance_boxes
from posewarper.motion.flow import FlowChain
from posewarper.structures import Floats, Labels, LabelTrack

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


def _left_out_errors(track: LabelTrack, chain: FlowChain) -> Floats:
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
