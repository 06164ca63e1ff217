"""Which pieces of which frames a model is trained on: the labels, and a few unlabelled frames near each."""

from __future__ import annotations

import numpy as np

from posewarper.frames import Region, RegionRequest, read_regions
from posewarper.inference.labelled_clip import Clip
from posewarper.structures import Ints, Poses

# A region is this much larger than its crop, so that it holds rotated, shifted and zoomed crops.
_MARGIN = 1.5
# Unlabelled neighbours kept for each label, and regions kept in all (each about 0.25 MB).
_NEIGHBOURS, _REGIONS = 4, 600


def _labelled_requests(clip: Clip, aspect_ratio: float) -> list[RegionRequest]:
    requests = []
    for i, track in clip.labels.tracks.items():
        rows = np.flatnonzero(np.isin(track.frames, clip.frames[i]) & (track.visibility > 0).any(1))
        boxes = clip.boxes(i, track.frames[rows], aspect_ratio)
        requests += [
            RegionRequest(int(track.frames[n]), i, box, track.keypoints[n], track.visibility[n])
            for n, box in zip(rows, boxes, strict=True)
        ]
    return requests


def _neighbour_frames(clip: Clip, track_id: int, frame: int, rng: np.random.Generator) -> Ints:
    """Draw unlabelled frames of a track up to half a gap away from one of its labels."""
    labelled = clip.labels.labelled_frames
    reach = int(np.median(np.diff(labelled)) // 2) if len(labelled) > 1 else 5
    frames = np.setdiff1d(clip.frames[track_id], clip.labels.tracks[track_id].frames)
    near = frames[np.abs(frames - frame) <= max(2, reach)]
    return np.sort(rng.permutation(near)[:_NEIGHBOURS])


def read_training_regions(
    clip: Clip, crop_size: tuple[int, int], seed: int
) -> tuple[list[Region], dict[int, list[Region]]]:
    """Read the regions of all labels, and of a few unlabelled frames near each."""
    aspect_ratio = crop_size[1] / crop_size[0]
    rng = np.random.default_rng([seed, 0])
    labelled = _labelled_requests(clip, aspect_ratio)
    if len(labelled) > _REGIONS:
        kept = np.sort(rng.permutation(len(labelled))[:_REGIONS])
        labelled = [labelled[n] for n in kept]
    nearby: list[tuple[int, RegionRequest]] = []
    nothing = np.full((len(clip.labels.skeleton), 2), np.nan)
    hidden = np.zeros(len(clip.labels.skeleton), np.uint8)
    for n in rng.permutation(len(labelled))[: max(0, (_REGIONS - len(labelled)) // _NEIGHBOURS)]:
        own = labelled[n]
        frames = _neighbour_frames(clip, own.track, own.frame, rng)
        boxes = clip.boxes(own.track, frames, aspect_ratio)
        nearby += [
            (int(n), RegionRequest(int(f), own.track, box, nothing, hidden))
            for f, box in zip(frames, boxes, strict=True)
        ]
    # One pass over the video, in order of time; the reader hands each frame's requests back in their order.
    rows = [(r.frame, n, -1, r) for n, r in enumerate(labelled)] + [(r.frame, n, 0, r) for n, r in nearby]
    rows.sort(key=lambda row: row[0])
    read = read_regions(clip.video, [row[3] for row in rows], crop_size, _MARGIN)
    regions: list[Region | None] = [None] * len(labelled)
    around: dict[int, list[Region]] = {}
    for (_, n, kind, _), region in zip(rows, read, strict=True):
        if kind < 0:
            regions[n] = region
        else:
            around.setdefault(n, []).append(region)
    return [r for r in regions if r is not None], around


def read_propagated_regions(clip: Clip, poses: Poses, crop_size: tuple[int, int], seed: int) -> list[Region]:
    """Read the regions of propagated poses, on unlabelled frames; at most 600, drawn at random."""
    aspect_ratio = crop_size[1] / crop_size[0]
    requests = []
    for i, track in poses.tracks.items():
        rows = np.flatnonzero(
            ~np.isin(track.frames, clip.labels.tracks[i].frames) & (track.visibility > 0).any(1)
        )
        boxes = clip.boxes(i, track.frames[rows], aspect_ratio)
        requests += [
            RegionRequest(int(track.frames[n]), i, box, track.keypoints[n], track.visibility[n])
            for n, box in zip(rows, boxes, strict=True)
        ]
    chosen = np.random.default_rng([seed, 4]).permutation(len(requests))[:_REGIONS]
    ordered = sorted((requests[n] for n in chosen), key=lambda request: request.frame)
    return list(read_regions(clip.video, ordered, crop_size, _MARGIN))
