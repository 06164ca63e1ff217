"""Regions of a frame in which nothing is scored: crowds that nobody labelled, people behind a window."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from posewarper.structures import Floats


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
