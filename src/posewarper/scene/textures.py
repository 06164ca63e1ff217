"""Flat pictures with cover, noise, and the ground: what the street is made of."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

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
