"""Surfaces made of small four-sided tiles: tubes around the bones, bent with them, painted tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter

from posewarper.scene.figure import BONES, REST, Figure
from posewarper.structures import Floats

# paint(points (m, 3) of the standing body, angles (m,) around the tube) -> (m, 3) RGB from 0 to 1.
Paint = Callable[[Floats, Floats], Floats]
_SUBTILES = (-0.25, 0.25)


@dataclass(frozen=True)
class Surface:
    """Tiles of one part or of many.

    Args:
        vertices: (V, 3) places in the standing body.
        bones: (V, 2) indices of the two bones that carry each vertex.
        weights: (V,) share of the second bone.
        tiles: (Q, 4) vertices of each tile, counter-clockwise seen from outside.
        blocks: (B, 4) the same with fewer and larger tiles, for shadows and for what hides what.
        colours: (Q, 3) RGB from 0 to 1 in full light.
        parts: (Q,) index of the part in ``wardrobe.PARTS``.
        gloss: (Q,) strength of the highlight.
    """

    vertices: Floats
    bones: NDArray[np.int64]
    weights: Floats
    tiles: NDArray[np.int64]
    blocks: NDArray[np.int64]
    colours: Floats
    parts: NDArray[np.int64]
    gloss: Floats

    def bend(self, figure: Figure, i: int) -> Floats:
        """Return the vertices (V, 3) in the world at moment ``i`` of the figure."""
        turns, places = figure.turns[i], figure.places[i]
        offsets = places - np.einsum("bij,bj->bi", turns, _REST)
        # Matrices are mixed before they are applied, which comes to the same and is quicker.
        matrices = np.concatenate([turns, offsets[..., None]], -1)
        second = self.weights[:, None, None]
        mixed = (1 - second) * matrices[self.bones[:, 0]] + second * matrices[self.bones[:, 1]]
        return np.asarray((mixed[..., :3] @ self.vertices[..., None])[..., 0] + mixed[..., 3])


_REST = np.array([REST[b] for b in BONES])


def join(surfaces: Sequence[Surface]) -> Surface:
    """Return several surfaces as one."""
    starts = np.cumsum([0, *(len(s.vertices) for s in surfaces)])
    return Surface(
        np.concatenate([s.vertices for s in surfaces]),
        np.concatenate([s.bones for s in surfaces]),
        np.concatenate([s.weights for s in surfaces]),
        np.concatenate([s.tiles + start for s, start in zip(surfaces, starts, strict=False)]),
        np.concatenate([s.blocks + start for s, start in zip(surfaces, starts, strict=False)]),
        np.concatenate([s.colours for s in surfaces]),
        np.concatenate([s.parts for s in surfaces]),
        np.concatenate([s.gloss for s in surfaces]),
    )


def chain(*stations: tuple[float, str]) -> Callable[[Floats], tuple[NDArray[np.int64], Floats]]:
    """Return which bones carry what lies at positions along a tube.

    Args:
        stations: (position, bone), positions falling or rising; between two stations the weight goes
            smoothly from the one bone to the other, beyond the ends it stays.
    """
    positions = np.array([s[0] for s in stations])
    bones = np.array([BONES.index(s[1]) for s in stations])
    order = np.argsort(positions)
    positions, bones = positions[order], bones[order]

    def carry(at: Floats) -> tuple[NDArray[np.int64], Floats]:
        row = np.clip(np.searchsorted(positions, at) - 1, 0, max(len(positions) - 2, 0))
        upper = np.minimum(row + 1, len(positions) - 1)
        share = np.clip((at - positions[row]) / np.maximum(positions[upper] - positions[row], 1e-9), 0, 1)
        return np.stack([bones[row], bones[upper]], -1), share * share * (3 - 2 * share)

    return carry


@dataclass(frozen=True)
class Tube:
    """A tube along one axis: rings at vertices of a grid (rows, columns), closed around.

    Args:
        points: (rows, columns, 3) in the standing body.
        along: (rows,) positions along the axis.
        angles: (columns,) radians around it; 0 is the first cross direction.
        outward: whether columns, then rows go counter-clockwise seen from outside.
    """

    points: Floats
    along: Floats
    angles: Floats
    outward: bool

    def swell(self, by: Floats) -> Tube:
        """Move the vertices (rows, columns) metres along their normals."""
        points = self.points
        d_row = np.gradient(points, axis=0)
        d_column = np.roll(points, -1, 1) - np.roll(points, 1, 1)
        normal = np.cross(d_column, d_row) if self.outward else np.cross(d_row, d_column)
        normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
        return replace(self, points=points + normal * by[..., None])

    def crease(self, rng: np.random.Generator, depth: ArrayLike, size: tuple[float, float]) -> Tube:
        """Fold the cloth at random: ``depth`` metres deep, one or (rows, 1), folds of ``size`` vertices."""
        noise = rng.standard_normal(self.points.shape[:2])
        noise = gaussian_filter(noise, size, mode="wrap")
        return self.swell(np.asarray(depth) * noise / noise.std())


def tube(
    rings: ArrayLike,
    *,
    axis: str = "y",
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0),
    tile: float = 0.012,
    square: float = 2.0,
) -> Tube:
    """Return a tube with smooth walls through rings.

    Args:
        rings: (r, 5): position along the axis, then how far the wall is in the first cross direction and
            against it, in the second and against it. Across y these are x and z, across x they are y and z.
            All relative to ``centre``.
        axis: ``y`` or ``x``.
        centre: of the tube.
        tile: side of a tile in metres, about.
        square: exponent of the rings; 2 is an ellipse, more is squarer.
    """
    table = np.asarray(rings, np.float64)
    table = table[np.argsort(table[:, 0])]
    # Ends are rounded, so rows are spaced by the length of the wall and not along the axis.
    steps = np.linalg.norm(np.diff(table[:, [0, 1, 3]], axis=0), axis=1)
    arc = np.concatenate([[0.0], np.cumsum(steps)])
    rows = max(3, round(float(arc[-1]) / tile) + 1)
    read = PchipInterpolator(arc, table)(np.linspace(0, arc[-1], rows))
    around = np.pi * (read[:, 1:3].sum(1).max() + read[:, 3:5].sum(1).max()) / 2
    columns = max(8, round(float(around) / tile))
    angles = 2 * np.pi * np.arange(columns) / columns
    cos, sin = np.cos(angles), np.sin(angles)
    first = np.abs(cos) ** (2 / square) * np.sign(cos)
    second = np.abs(sin) ** (2 / square) * np.sign(sin)
    a = np.where(first > 0, read[:, 1:2], read[:, 2:3]) * first
    b = np.where(second > 0, read[:, 3:4], read[:, 4:5]) * second
    level = np.broadcast_to(read[:, :1], a.shape)
    grid = np.stack([a, level, b] if axis == "y" else [level, a, b], -1) + centre
    return Tube(grid, read[:, 0] + centre[1 if axis == "y" else 0], angles, axis == "x")


def cover(
    shape: Tube,
    carry: Callable[[Floats], tuple[NDArray[np.int64], Floats]],
    paint: Paint,
    part_of: Callable[[Floats], NDArray[np.int64]],
    *,
    gloss: float = 0.0,
    keep: Callable[[Floats], NDArray[np.bool_]] | None = None,
) -> Surface:
    """Make a surface of a tube.

    Args:
        shape: the tube.
        carry: positions along the tube -> bones and weights; see :func:`chain`.
        paint: gives the colours.
        part_of: positions (m,) along the tube -> index of the part.
        gloss: strength of the highlight.
        keep: (m, 3) centres of tiles -> which tiles there are; all if left out.
    """
    rows, columns = shape.points.shape[:2]
    index = np.arange(rows * columns).reshape(rows, columns)
    tiles = _tile_grid(index, shape.outward)
    coarse = index[np.unique([*range(0, rows, 2), rows - 1])][:, ::2]
    vertices = shape.points.reshape(-1, 3)
    bones, weights = carry(np.repeat(shape.along, columns))
    middle = np.repeat((shape.along[:-1] + shape.along[1:]) / 2, columns)
    colours = _paint_tiles(shape, paint)
    parts = part_of(middle)
    there = np.ones(len(tiles), bool) if keep is None else keep(vertices[tiles].mean(1))
    tiles, colours, parts = tiles[there], colours[there], parts[there]
    blocks = _tile_grid(coarse, shape.outward) if keep is None else tiles
    return Surface(vertices, bones, weights, tiles, blocks, colours, parts, np.full(len(tiles), gloss))


def _tile_grid(index: NDArray[np.int64], outward: bool) -> NDArray[np.int64]:
    """Return tiles (Q, 4) between the vertices of a grid that is closed around, row by row."""
    right = np.roll(index, -1, 1)
    corners = [index[:-1], right[:-1], right[1:], index[1:]]
    return np.stack(corners if outward else corners[::-1], -1).reshape(-1, 4)


def _paint_tiles(shape: Tube, paint: Paint) -> Floats:
    """Return (Q, 3): each tile's mean colour over four points of it, so that edges of patterns are soft."""
    p = shape.points
    right = np.roll(p, -1, 1)
    step = 2 * np.pi / len(shape.angles)
    total = np.zeros(((p.shape[0] - 1) * p.shape[1], 3))
    for s in _SUBTILES:
        for t in _SUBTILES:
            across = p + (right - p) * (0.5 + s)
            points = across[:-1] + (across[1:] - across[:-1]) * (0.5 + t)
            angles = np.broadcast_to(shape.angles + step * (0.5 + s), points.shape[:2])
            total += paint(points.reshape(-1, 3), angles.reshape(-1))
    return np.asarray(np.clip(total / len(_SUBTILES) ** 2, 0, 1))


def plain(colour: ArrayLike) -> Paint:
    """Return a paint of one colour, RGB from 0 to 1."""
    return lambda points, angles: np.broadcast_to(np.asarray(colour, np.float64), (len(points), 3))
