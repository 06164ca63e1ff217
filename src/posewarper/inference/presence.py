"""On which frames a track is there."""

from __future__ import annotations

import numpy as np

from posewarper.structures import Ints, Labels


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
