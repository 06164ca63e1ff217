"""Leaves by the thousand: hedges, bushes and trees, dark inside and light where the sun falls."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike

from posewarper.scene.textures import Canvas, Colour, empty, fractal_noise, lay_over, shrink
from posewarper.structures import Floats

_FINE = 2  # leaves are drawn larger, for soft edges


def scatter_leaves(
    canvas: Canvas,
    rng: np.random.Generator,
    places: Floats,
    size: float,
    colours: ArrayLike,
    light: Floats,
) -> None:
    """Draw leaves in place.

    Args:
        canvas: where to draw.
        rng: gives their directions, sizes and tones.
        places: (n, 2) xy in pixels; later ones lie over earlier ones.
        size: length of a leaf in pixels, about.
        colours: (m, 3) RGB to choose from.
        light: (n,) factor on the colour.
    """
    palette = np.asarray(colours, np.float64)
    n = len(places)
    chosen = palette[rng.integers(len(palette), size=n)] * (light * rng.normal(1, 0.10, n))[:, None]
    chosen = np.clip(chosen, 0, 255)
    angles = rng.uniform(0, 180, n)
    lengths = size * rng.uniform(0.6, 1.25, n)
    widths = lengths * rng.uniform(0.35, 0.6, n)
    fixed = np.rint(places * 16).astype(int)
    axes = np.maximum(np.rint(np.stack([lengths, widths], -1) * 8).astype(int), 4)
    for at, axis, angle, colour in zip(
        fixed.tolist(), axes.tolist(), angles.tolist(), chosen.tolist(), strict=True
    ):
        cv2.ellipse(canvas, at, axis, angle, 0, 360, (*colour, 255), -1, cv2.LINE_8, 4)


_GREENS = ((70, 104, 38), (86, 122, 44), (60, 96, 46), (104, 134, 52))
_WARM_GREENS = ((112, 130, 44), (92, 116, 40), (136, 142, 52), (76, 104, 38))


def crown(
    rng: np.random.Generator, shape: tuple[int, int], blobs: Floats, size: float, n: int, *, warm: bool
) -> Canvas:
    """Return leaves gathered in blobs.

    Args:
        rng: where chance comes from.
        shape: (height, width) of the canvas.
        blobs: (b, 3) x, y and radius in pixels.
        size: length of a leaf in pixels.
        n: how many leaves.
        warm: of a yellower green.
    """
    big = empty((shape[0] * _FINE, shape[1] * _FINE))
    blobs = np.asarray(blobs, np.float64) * _FINE
    weights = blobs[:, 2] ** 2
    which = rng.choice(len(blobs), n, p=weights / weights.sum())
    angle, radius = rng.uniform(0, 2 * np.pi, n), np.sqrt(rng.uniform(0, 1, n))
    offset = np.stack([np.cos(angle), 0.85 * np.sin(angle)], -1) * radius[:, None]
    places = blobs[which, :2] + offset * blobs[which, 2:]
    # Light comes from the upper left; leaves that face it lie on top.
    towards = -0.55 * offset[:, 0] - 0.75 * offset[:, 1] + rng.normal(0, 0.35, n)
    height = (places[:, 1] - blobs[:, 1].min()) / max(np.ptp(blobs[:, 1]) + 1, 1)
    order = np.argsort(towards)
    light = 0.74 + 0.42 * np.clip(towards, -1, 1.1) - 0.18 * np.clip(height, 0, 1)
    palette = _WARM_GREENS if warm else _GREENS
    scatter_leaves(big, rng, places[order], size * _FINE, palette, light[order])
    return shrink(big, _FINE)


def tree(rng: np.random.Generator, scale: float, height: float, spread: float) -> tuple[Canvas, float]:
    """Return a tree and the column of its foot; ``scale`` is pixels to a metre, the rest metres."""
    shape = int(height * scale), int((2 * spread + 1) * scale)
    middle = shape[1] / 2
    wood = empty((shape[0] * _FINE, shape[1] * _FINE))
    foot = np.array([middle, shape[0]]) * _FINE
    fork = foot - np.array([rng.normal(0, 0.12), 2.3]) * scale * _FINE
    _limb(wood, foot, fork, 0.40 * scale * _FINE, 0.26 * scale * _FINE)
    for lean in (-0.75, -0.25, 0.3, 0.8):
        tip = fork + np.array([lean * spread, -0.30 * height]) * scale * _FINE
        _limb(wood, fork, tip, 0.17 * scale * _FINE, 0.05 * scale * _FINE)
    bark = fractal_noise(rng, wood.shape[:2], (26, 5), 3)
    wood[..., :3] *= np.clip(1 + 0.16 * bark, 0.5, 1.5)[..., None]
    canvas = shrink(wood, _FINE)
    blobs = []
    for _ in range(26):
        angle, r = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform(0, 1))
        x = middle + np.cos(angle) * r * spread * scale
        y = (0.30 * height + np.sin(angle) * r * 0.32 * height) * scale
        blobs.append((x, y, rng.uniform(0.35, 0.62) * scale))
    leaves = crown(
        rng, shape, np.array(blobs), 0.13 * scale, int(2600 * spread), warm=bool(rng.random() < 0.5)
    )
    lay_over(canvas, leaves)
    return canvas, middle


def _limb(canvas: Canvas, a: Floats, b: Floats, thick: float, thin: float) -> None:
    """Draw a tapering limb, lit from the left."""
    along = (b - a) / np.linalg.norm(b - a)
    across = np.array([along[1], -along[0]])
    if across[0] > 0:
        across = -across
    for share, tone in ((1.0, 0.62), (0.62, 0.85), (0.25, 1.08)):
        left = 0.5, 0.5 - share
        corners = [
            a + across * thick * left[0],
            b + across * thin * left[0],
            b + across * thin * left[1],
            a + across * thick * left[1],
        ]
        colour = tuple(float(c) * tone for c in (112, 92, 72))
        cv2.fillConvexPoly(canvas, np.rint(np.array(corners) * 16).astype(np.int32), (*colour, 255), shift=4)


def hedge(rng: np.random.Generator, shape: tuple[int, int], top: int, flowers: int) -> Canvas:
    """Return a clipped hedge with a bed of flowers before it.

    Args:
        rng: where chance comes from.
        shape: (height, width) in pixels.
        top: row at which the hedge begins.
        flowers: row at which the flowers begin.
    """
    height, width = shape[0] * _FINE, shape[1] * _FINE
    big = empty((height, width))
    edge = top * _FINE + 3 * fractal_noise(rng, (1, width), (1, 60), 3)[0] * _FINE
    n = width * (shape[0] - top) // 9
    places = np.stack([rng.uniform(0, width, n), rng.uniform(0, 1, n)], -1)
    down = places[:, 1] ** 0.9
    line = edge[np.clip(places[:, 0].astype(int), 0, width - 1)]
    places[:, 1] = line + down * (height - line)
    lumps = fractal_noise(rng, (1, width), (1, 150), 2)[0][np.clip(places[:, 0].astype(int), 0, width - 1)]
    sunny = np.exp(-down / 0.16)
    light = 0.60 + 0.55 * sunny - 0.16 * down + 0.05 * lumps
    order = np.argsort(rng.normal(0, 0.3, n) - down)
    cv2.rectangle(big, (0, int(top + 8) * _FINE), (width, height), (38, 58, 26, 255), -1)
    scatter_leaves(big, rng, places[order], 5.0 * _FINE, _GREENS, light[order])
    _plant_flowers(big, rng, flowers * _FINE, width, height)
    return shrink(big, _FINE)


_BLOOMS: tuple[Colour, ...] = (
    (214, 62, 70),
    (236, 178, 46),
    (228, 120, 150),
    (240, 236, 228),
    (150, 84, 170),
)


def _plant_flowers(big: Canvas, rng: np.random.Generator, top: int, width: int, height: int) -> None:
    n = width * (height - top) // 60
    places = np.stack([rng.uniform(0, width, n), top + (height - top) * rng.uniform(-0.15, 1, n)], -1)
    scatter_leaves(big, rng, places, 6.0 * _FINE, _GREENS, np.full(n, 0.85))
    beds = fractal_noise(rng, (1, width), (1, 120), 1)[0]
    for x, y in places[::3]:
        kind = int(np.clip((beds[int(x) % width] + 1.6) / 3.2 * len(_BLOOMS), 0, len(_BLOOMS) - 1))
        colour = np.clip(np.array(_BLOOMS[kind]) * rng.normal(0.95, 0.08), 0, 255).tolist()
        cv2.circle(
            big, (int(x), int(y)), int(rng.integers(2, 4)) * _FINE // 2, (*colour, 255), -1, cv2.LINE_AA
        )
