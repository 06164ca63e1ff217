"""Whether dense labels lie some frames too early or too late: their motion beside that of the video."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from posewarper.crops import smooth_crop
from posewarper.geometry import crop_transform
from posewarper.motion.flow import Flow, dense_flow, sample_flow
from posewarper.structures import Floats, Labels, Track, is_there
from posewarper.video.source import Video

_SHIFTS = np.arange(-2, 3)
_MOST = int(_SHIFTS[-1])
# Labels are carried over this many frames, or the next more that are labelled. Over more than five the
# optical flow's own errors decide, and the answer is no longer reliable.
_SPAN, _LONGEST_SPAN = 2, 5
_BATCH, _BATCHES, _FEWEST = 12, 4, 6
_MOST_CANDIDATES = 3000  # of a track, so that a long clip does not take long
_CROP, _SMALLEST_CROP, _MARGIN = 256, 64, 1.4
_LEAST_MOTION = 0.005  # of the subject's size, over the span


@dataclass(frozen=True)
class LabelShift:
    """By how many frames labels should be moved to fit the video best, as far as optical flow can tell."""

    frames: float  # positive where the labels come too early; from -2 to 2, where the ends stand for more
    low: float  # it lies between ``low`` and ``high`` with a probability of 98 percent
    high: float
    places: int  # how many places of the clip were compared

    @property
    def is_clear(self) -> bool:
        """Whether the labels fit better elsewhere than where they are, beyond doubt."""
        return self.low > 0.5 or self.high < -0.5

    @property
    def is_none(self) -> bool:
        """Whether the labels fit best where they are, beyond doubt."""
        return self.low > -0.5 and self.high < 0.5


@dataclass(frozen=True)
class _Place:
    """A track between two labelled frames: keypoints (n, 2) that are visible on both."""

    first: int
    last: int
    start: Floats
    end: Floats
    motion: float


def measure_shift(video: Video, labels: Labels) -> LabelShift | None:
    """Measure by how many frames labels should be moved to fit the video best.

    Where labels move most, optical flow carries the keypoints of one labelled frame to another (at most five
    frames away) and back, as if they lay some frames earlier or later in the video; the shift at which they
    arrive best is the answer. Reading stops as soon as it is clear. None where labels are too sparse or move
    too little to tell.
    """
    found = [place for track in labels.only_labelled().tracks.values() for place in _places_of(track)]
    inside = [p for p in found if p.first >= _MOST and p.last + _MOST < video.n_frames]
    places = sorted(inside, key=lambda p: -p.motion)[: _BATCH * _BATCHES]
    errors: list[Floats] = []
    for batch in range(_BATCHES):
        # Each batch holds slow and fast places alike, read in order of time.
        errors += [_compare(video, p) for p in sorted(places[batch::_BATCHES], key=lambda p: p.first)]
        if len(errors) >= _FEWEST:
            shift = _estimate(np.array(errors))
            if shift.is_clear or shift.is_none:
                return shift
    return _estimate(np.array(errors)) if len(errors) >= _FEWEST else None


def _places_of(track: Track) -> list[_Place]:
    """Return where the labels of a track move; the places do not overlap."""
    places, row = [], 0
    clear = is_there(track.keypoints) & (track.visibility == 2)
    while row < len(track.frames) - 1:
        after = int(np.searchsorted(track.frames, track.frames[row] + _SPAN))
        if after == len(track.frames) or track.frames[after] - track.frames[row] > _LONGEST_SPAN:
            row += 1
            continue
        both = clear[row] & clear[after]
        start, end = track.keypoints[row, both], track.keypoints[after, both]
        if len(start) > 1:
            step = float(np.linalg.norm(end - start, axis=-1).mean())
            motion = step / max(float(np.ptp(start, axis=0).max()), 1.0)
            if motion > _LEAST_MOTION:
                places.append(_Place(int(track.frames[row]), int(track.frames[after]), start, end, motion))
        row = max(after, row + len(track.frames) // _MOST_CANDIDATES)
    return places


def _compare(video: Video, place: _Place) -> Floats:
    """Return (shifts,) how far off the carried keypoints arrive, as a mean logarithm of crop pixels."""
    points = np.concatenate([place.start, place.end])
    low, high = points.min(0), points.max(0)
    side = max(float((high - low).max()) * _MARGIN, 40.0)
    pixels = int(np.clip(side, _SMALLEST_CROP, _CROP))
    transform = crop_transform((*((low + high - side) / 2), side, side), (pixels, pixels))
    frames = range(place.first - _MOST, place.last + _MOST + 1)
    crops = (smooth_crop(image, transform) for _, image in video.frames(frames))
    greys = [cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY) for crop in crops]
    there = [dense_flow(a, b) for a, b in pairwise(greys)]  # type: ignore[arg-type]
    back = [dense_flow(b, a) for a, b in pairwise(greys)]  # type: ignore[arg-type]
    start, end = transform.to_crop(place.start), transform.to_crop(place.end)
    step = np.linalg.norm(end - start, axis=-1)
    fast = step >= np.median(step)
    span, errors = place.last - place.first, []
    for shift in _SHIFTS:
        flows = slice(shift + _MOST, shift + _MOST + span)
        forth = np.linalg.norm(_carry(start[fast], there[flows]) - end[fast], axis=-1)
        # Both ways, for flow lags behind: each way alone gives an answer a little to one side.
        return_ = np.linalg.norm(_carry(end[fast], back[flows][::-1]) - start[fast], axis=-1)
        errors.append(np.log(np.concatenate([forth, return_]) + 0.25).mean())
    return np.array(errors)


def _carry(points: Floats, flows: list[Flow]) -> Floats:
    for flow in flows:
        points = points + sample_flow(flow, points)
    return points


def _estimate(errors: Floats) -> LabelShift:
    """Return the lowest point of the mean of the curves (places, shifts), its range found by resampling."""
    n, random = len(errors), np.random.default_rng(0)
    drawn = [_lowest(errors[random.integers(0, n, n)].mean(0)) for _ in range(500)]
    low, high = np.percentile(drawn, (1.0, 99.0))
    return LabelShift(_lowest(errors.mean(0)), float(low), float(high), n)


def _lowest(curve: Floats) -> float:
    """Return where a curve over the shifts is lowest: the vertex of the parabola through the lowest three."""
    at = int(np.clip(curve.argmin(), 1, len(curve) - 2))
    before, here, after = curve[at - 1 : at + 2]
    bend = before - 2 * here + after
    if bend <= 0:  # no valley: one of the ends
        return float(_SHIFTS[curve.argmin()])
    return float(np.clip(_SHIFTS[at] + (before - after) / (2 * bend), _SHIFTS[0], _SHIFTS[-1]))
