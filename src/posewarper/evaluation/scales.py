"""Which points count as found: lengths and boxes to measure by, matched people, regions that are ignored."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from posewarper.errors import ConfigError
from posewarper.geometry import keypoint_boxes
from posewarper.structures import Floats, InstanceTable, is_there

THRESHOLD = 0.5  # of the reference length, within which a point matches, the border included


class FrameMatch(NamedTuple):
    """P predicted people beside G annotated ones, with K points each."""

    hits: NDArray[np.bool_]  # (P, K) predicted points that count as found
    distances: Floats  # (G, P, K) between points, in reference lengths; NaN where they do not match


def head_sizes(head_boxes: Floats) -> Floats:
    """Return the reference lengths (n,) in pixels of head boxes (n, 4) xywh: 0.6 times the diagonal."""
    width, height = head_boxes[:, 2], head_boxes[:, 3]
    return 0.6 * np.sqrt(width * width + height * height)


def match_people(truth: Floats, sizes: Floats, predicted: Floats) -> FrameMatch:
    """Tie each prediction to the person of whose points it has the largest share; a person keeps the best.

    Points of predictions that are tied to nobody are no hits. On a tie the first person, and the first
    prediction, is taken.

    Args:
        truth: (G, K, 2) annotated points in pixels, NaN where there is none.
        sizes: (G,) reference lengths in pixels.
        predicted: (P, K, 2) predicted points in pixels, NaN where there is none.
    """
    n_truth, n_predicted = len(truth), len(predicted)
    hits = np.zeros(predicted.shape[:2], bool)
    if n_truth == 0 or n_predicted == 0:
        return FrameMatch(hits, np.full((n_truth, n_predicted, predicted.shape[1]), np.nan))
    step = truth[:, None] - predicted[None]
    with np.errstate(divide="ignore", invalid="ignore"):
        distances = np.sqrt(step[..., 0] ** 2 + step[..., 1] ** 2) / sizes[:, None, None]
        near = distances <= THRESHOLD
    share = near.sum(-1) / np.maximum(is_there(truth).sum(-1), 1)[:, None]
    tied = share.argmax(0)
    share = np.where(np.arange(n_truth)[:, None] == tied, share, 0.0)
    person = np.flatnonzero(share.max(1) > 0)
    best = share[person].argmax(1)
    hits[best] = near[person, best]
    return FrameMatch(hits, np.where(near, distances, np.nan))


def is_inside(points: Floats, polygon: Floats) -> NDArray[np.bool_]:
    """Return which points (..., 2) lie inside of a polygon (m, 2), (...); its border is not inside.

    The polygon closes by itself. A polygon that crosses itself is inside where an odd number of its edges
    lies to the right; NaN points and polygons of fewer than three corners are inside of nothing.
    """
    points = np.asarray(points, np.float64)
    inside = np.zeros(points.shape[:-1], bool)
    if len(polygon) < 3:
        return inside
    start = np.asarray(polygon, np.float64)
    end = np.roll(start, -1, axis=0)
    x, y = points[..., 0, None], points[..., 1, None]
    (x0, y0), (x1, y1) = start.T, end.T
    side = _side(x0, y0, x1, y1, x, y)
    in_reach = (np.minimum(x0, x1) <= x) & (x <= np.maximum(x0, x1))
    in_reach &= (np.minimum(y0, y1) <= y) & (y <= np.maximum(y0, y1))
    on_border = ((side == 0) & in_reach).any(-1)
    crosses = (y0 > y) != (y1 > y)
    to_the_right = np.where(y1 > y0, side > 0, side < 0)
    return ((crosses & to_the_right).sum(-1) % 2 == 1) & ~on_border


def _side(x0: Floats, y0: Floats, x1: Floats, y1: Floats, x: Floats, y: Floats) -> Floats:
    """Return twice the area of the triangle of edge and point: 0 for a point in line with the edge.

    Where rounding could decide, the sign is that of exact arithmetic, as in the reference's library.
    """
    first, second = (x1 - x0) * (y - y0), (y1 - y0) * (x - x0)
    side = first - second
    for place in np.argwhere(np.abs(side) <= 1e-14 * (np.abs(first) + np.abs(second))):
        edge = place[-1]
        ax, ay, bx, by = (Fraction(float(v[edge])) for v in (x0, y0, x1, y1))
        px, py = (Fraction(float(v[(*place[:-1], 0)])) for v in (x, y))
        exact = (bx - ax) * (py - ay) - (by - ay) * (px - ax)
        side[tuple(place)] = (exact > 0) - (exact < 0)
    return side


def is_ignored(points: Floats, regions: Sequence[Floats]) -> NDArray[np.bool_]:
    """Return which points (..., 2) lie inside of any of the polygons, (...)."""
    ignored = np.zeros(np.shape(points)[:-1], bool)
    for polygon in regions:
        ignored |= is_inside(points, polygon)
    return ignored


BOX_MARGIN = 0.1  # a side, of boxes that are made from keypoints


def boxes_or_extents(keypoints: Floats, boxes: Floats) -> Floats:
    """Return boxes (n, 4) xywh in pixels: those given, or else made from the keypoints (n, K, 2).

    A box of no size, or NaN, becomes the extent of the keypoints (NaN where there is none) with 10 percent
    more on each side. An instance without keypoints keeps what it has.
    """
    tight = keypoint_boxes(keypoints)
    seen, size = np.isfinite(tight[:, 0]), tight[:, 2:]
    extents = np.concatenate([tight[:, :2] - BOX_MARGIN * size, size * (1 + 2 * BOX_MARGIN)], axis=1)
    given = (boxes[:, 2:].max(-1, initial=0) > 0) | ~seen
    return np.where(given[:, None], boxes, extents)


def reference_lengths(table: InstanceTable, normaliser: str) -> Floats:
    """Return the length (n,) in pixels that distances to each instance are divided by; NaN where unknown.

    Args:
        table: labelled instances.
        normaliser: ``head`` (0.6 times the diagonal of the head box, as PoseTrack and PCKh), ``box`` (the
            longer side of the box), ``pixels`` (1), or two keypoints with a comma in between, such as
            ``left_shoulder,right_hip`` (the distance between the two).

    Raises:
        ConfigError: if there is no such normaliser.
    """
    if normaliser == "pixels":
        return np.ones(table.n_instances)
    if normaliser == "head":
        lengths = head_sizes(table.head_boxes)
    elif normaliser == "box":
        lengths = boxes_or_extents(table.keypoints, table.boxes)[:, 2:].max(-1)
    else:
        names, known = [name.strip() for name in normaliser.split(",")], table.skeleton.names
        if len(names) != 2 or not set(names) <= set(known):
            raise ConfigError(
                "unknown normaliser",
                expected="head, box, pixels, or two different keypoints with a comma in between, out of "
                + ", ".join(known),
                got=normaliser,
                fix="use one of these",
            )
        first, second = (table.keypoints[:, known.index(name)] for name in names)
        lengths = np.hypot(*(first - second).T)
    return np.where(lengths > 0, lengths, np.nan)
