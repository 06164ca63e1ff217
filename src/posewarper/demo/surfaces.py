"""Surfaces made of small four-sided tiles: tubes around the bones, bent with them, painted tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter

from posewarper.demo.bones import BONES, REST, Figure
from posewarper.structures import Floats

Canvas = NDArray[np.float32]  # (h, w, 4): RGB multiplied by the cover, and the cover, from 0 to 255
Colour = tuple[float, float, float]  # RGB from 0 to 255


def fractal_noise(
    rng: np.random.Generator, shape: tuple[int, int], size: tuple[float, float], octaves: int = 4
) -> Floats:
    """Return noise (h, w) of mean 0 and deviation 1.

    Args:
        rng: where it comes from.
        shape: (height, width) in pixels.
        size: (height, width) in pixels of the coarsest lumps.
        octaves: how often finer lumps of half the size and 0.55 of the strength are added.
    """
    noise = np.zeros(shape)
    for octave in range(octaves):
        lumps = [
            max(2, int(np.ceil(n / max(s / 2**octave, 1.0))) + 1) for n, s in zip(shape, size, strict=True)
        ]
        coarse = rng.standard_normal(lumps).astype(np.float32)
        noise += 0.55**octave * cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return np.asarray((noise - noise.mean()) / noise.std())


def filled(shape: tuple[int, int], colour: ArrayLike) -> Canvas:
    """Return a canvas (h, w) covered by a colour."""
    canvas = np.full((*shape, 4), 255, np.float32)
    canvas[..., :3] = colour
    return canvas


def empty(shape: tuple[int, int]) -> Canvas:
    """Return a canvas (h, w) that covers nothing."""
    return np.zeros((*shape, 4), np.float32)


def shrink(canvas: Canvas, factor: int) -> Canvas:
    """Return the canvas at 1 / ``factor`` of its size, with soft edges."""
    height, width = canvas.shape[:2]
    size = width // factor, height // factor
    return np.asarray(cv2.resize(canvas, size, interpolation=cv2.INTER_AREA), np.float32)


def lay_over(below: Canvas, above: Canvas, row: int = 0, column: int = 0) -> None:
    """Lay one canvas over another in place, its corner at (row, column); what juts out is cut off."""
    top, left = max(row, 0), max(column, 0)
    bottom, right = min(row + above.shape[0], below.shape[0]), min(column + above.shape[1], below.shape[1])
    if bottom <= top or right <= left:
        return
    part = above[top - row : bottom - row, left - column : right - column]
    target = below[top:bottom, left:right]
    target *= 1 - part[..., 3:] / 255
    target += part


def tint(canvas: Canvas, factor: Floats) -> None:
    """Multiply the colours (not the cover) in place by (h, w) or (h, w, 3)."""
    canvas[..., :3] *= factor if factor.ndim == 3 else factor[..., None]
    np.clip(canvas[..., :3], 0, 255, out=canvas[..., :3])


def pave(
    rng: np.random.Generator, shape: tuple[int, int], slab: tuple[float, float], colour: Colour
) -> Canvas:
    """Return paving: slabs of ``slab`` (height, width) pixels in running bond, each of its own tone."""
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(np.float64)
    course = np.floor(rows / slab[0])
    across = columns / slab[1] + 0.5 * (course % 2) + 0.13 * np.sin(course * 5.1)
    number = np.floor(across)
    tone = rng.normal(1.0, 0.055, 4096)[((course * 57 + number * 131) % 4096).astype(int)]
    warm = rng.normal(0.0, 0.02, 4096)[((course * 91 + number * 17) % 4096).astype(int)]
    # How far from the nearest joint, in pixels.
    joint = np.minimum(
        slab[0] * np.minimum(rows / slab[0] % 1, 1 - rows / slab[0] % 1),
        slab[1] * np.minimum(across % 1, 1 - across % 1),
    )
    groove = np.clip(1 - joint / 2.2, 0, 1)
    speckle = fractal_noise(rng, shape, (5, 5), 2) * 0.035 + fractal_noise(rng, shape, (150, 200), 4) * 0.045
    canvas = filled(shape, colour)
    light = (tone + speckle) * (1 - 0.42 * groove)
    tint(canvas, np.stack([light * (1 + warm), light, light * (1 - warm)], -1))
    return canvas


def lawn(rng: np.random.Generator, shape: tuple[int, int]) -> Canvas:
    """Return grass with patches of other greens, mown in stripes, with daisies."""
    canvas = filled(shape, (104.0, 138.0, 58.0))
    fine = fractal_noise(rng, shape, (3, 2), 2)
    patches = fractal_noise(rng, shape, (160, 240), 4)
    tint(canvas, 1 + 0.13 * fine + 0.10 * patches)
    canvas[..., 0] *= 1 + 0.06 * patches
    for _ in range(260):
        spot = int(rng.integers(shape[1])), int(rng.integers(shape[0]))
        white = rng.random() < 0.7
        colour = (238, 236, 226, 255) if white else (226, 190, 60, 255)
        cv2.circle(canvas, spot, int(rng.integers(1, 3)), colour, -1, cv2.LINE_AA)
    return canvas


_LEVELS = (0.0, 1.0, 2.0, 4.0, 8.0)


def soften_by_distance(canvas: Canvas, deviations: Floats) -> Canvas:
    """Blur a canvas along its columns, each row by its own deviation (h,) of at most 8 pixels."""
    level = np.interp(deviations, _LEVELS, np.arange(len(_LEVELS)))
    softened = np.zeros_like(canvas)
    for n, deviation in enumerate(_LEVELS):
        # Each row is a mixture of the two levels that its deviation lies between.
        share = np.clip(1 - np.abs(level - n), 0, 1).astype(np.float32)
        rows = np.flatnonzero(share)
        if rows.size:
            part = slice(rows[0], rows[-1] + 1)
            blurred = canvas if deviation == 0 else cv2.sepFilter2D(canvas, -1, np.ones(1), _bell(deviation))
            softened[part] += share[part, None, None] * blurred[part]
    return softened


def _bell(deviation: float) -> Floats:
    reach = int(np.ceil(3 * deviation))
    bell = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    return np.asarray(bell / bell.sum())


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
