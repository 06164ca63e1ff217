"""The street behind and before the figure: flat layers at their distances, seen by the moving camera."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from posewarper.demo.camera import HEIGHT, WIDTH, Camera
from posewarper.demo.surfaces import (
    Canvas,
    Colour,
    empty,
    filled,
    fractal_noise,
    lawn,
    lay_over,
    pave,
    shrink,
    soften_by_distance,
    tint,
)
from posewarper.structures import Floats

_FINE = 2
_WALLS: tuple[Colour, ...] = (
    *((214, 178, 128), (196, 120, 92), (226, 212, 184), (164, 178, 170), (206, 148, 104), (184, 164, 190)),
    *((222, 194, 150), (150, 92, 74)),
)
_ROOFS: tuple[Colour, ...] = ((142, 78, 60), (96, 86, 84), (122, 70, 58), (84, 80, 88))
_SHUTTERS: tuple[Colour, ...] = ((62, 92, 84), (92, 60, 52), (52, 74, 104), (110, 118, 98))
_AWNINGS: tuple[Colour, ...] = ((176, 52, 48), (44, 92, 84), (202, 140, 52), (56, 78, 124))
_TRIM: Colour = (236, 228, 212)


class _Facade:
    """One house on its own canvas, drawn in metres from its lower left corner, y up."""

    def __init__(self, width: float, height: float, scale: float) -> None:
        self.scale = scale * _FINE
        self.canvas = empty((int(height * self.scale), int(width * self.scale)))

    def box(self, x: float, y: float, width: float, height: float, colour: Colour, tone: float = 1.0) -> None:
        """Draw a rectangle."""
        self.shape(((x, y), (x + width, y), (x + width, y + height), (x, y + height)), colour, tone)

    def shape(self, corners: tuple[tuple[float, float], ...], colour: Colour, tone: float = 1.0) -> None:
        """Draw a convex shape."""
        points = np.array(corners) * self.scale
        points[:, 1] = self.canvas.shape[0] - points[:, 1]
        shade = [min(255.0, c * tone) for c in colour]
        fixed = np.rint(points * 16).astype(np.int32)
        cv2.fillConvexPoly(self.canvas, fixed, (*shade, 255), cv2.LINE_AA, 4)


def house_row(rng: np.random.Generator, length: float, scale: float) -> Canvas:
    """Return houses side by side over ``length`` metres, at ``scale`` pixels to a metre."""
    row = empty((int(13 * scale), int(length * scale)))
    x, previous = 0.0, -1
    while x < length:
        width = float(rng.uniform(5.2, 7.6))
        wall = int(rng.integers(len(_WALLS)))
        wall = (wall + 1) % len(_WALLS) if wall == previous else wall
        house = _house(rng, width, wall, scale)
        lay_over(row, house, row.shape[0] - house.shape[0], int(x * scale))
        x, previous = x + width, wall
    return row


def _house(rng: np.random.Generator, width: float, wall: int, scale: float) -> Canvas:
    floors = int(rng.integers(2, 4))
    storey = float(rng.uniform(2.75, 3.05))
    eaves = floors * storey + 0.35
    roof_height = float(rng.uniform(1.5, 2.4))
    facade = _Facade(width, eaves + roof_height + 0.9, scale)
    facade.box(0, 0, width, eaves, _WALLS[wall])
    _texture_wall(facade, rng, brick=_WALLS[wall][0] < 200 and _WALLS[wall][2] < 100)
    _roof(facade, rng, width, eaves, roof_height)
    facade.box(0, 0, width, 0.5, _WALLS[wall], 0.62)
    facade.box(0, storey - 0.12, width, 0.12, _TRIM, 0.86)
    shop = rng.random() < 0.55
    shutters = None if rng.random() < 0.4 else _SHUTTERS[int(rng.integers(len(_SHUTTERS)))]
    n = 2 if width < 6 else 3
    for floor in range(1 if shop else 0, floors):
        for i in range(n):
            middle = width * (i + 0.5) / n
            if floor == 0 and i == n - 1:
                _door(facade, rng, middle)
            else:
                _window(facade, rng, middle, floor * storey + 0.95, shutters)
    if shop:
        _shop(facade, rng, width)
    if rng.random() < 0.3:  # this house stands a little behind its neighbour, in whose shadow its edge lies
        facade.box(0, 0, 0.07, eaves, (0, 0, 0))
    return shrink(facade.canvas, _FINE)


def _texture_wall(facade: _Facade, rng: np.random.Generator, *, brick: bool) -> None:
    height, width = facade.canvas.shape[:2]
    stain = 1 + 0.05 * fractal_noise(rng, (height, width), (120, 60), 4)
    if brick:
        rows, columns = np.mgrid[:height, :width]
        course = rows // 7
        joint = (rows % 7 == 0) | ((columns + 9 * (course % 2)) % 18 == 0)
        tone = rng.normal(1, 0.10, 997)[(course * 31 + (columns + 9 * (course % 2)) // 18 * 7) % 997]
        stain = stain * np.where(joint, 1.16, tone)
    tint(facade.canvas, stain)


def _roof(facade: _Facade, rng: np.random.Generator, width: float, eaves: float, height: float) -> None:
    colour = _ROOFS[int(rng.integers(len(_ROOFS)))]
    if rng.random() < 0.3:
        # A gable to the street.
        facade.shape(((-0.1, eaves), (width + 0.1, eaves), (width / 2, eaves + height)), colour, 0.8)
        facade.shape(((0.3, eaves), (width - 0.3, eaves), (width / 2, eaves + height - 0.35)), _TRIM, 0.82)
        _window(facade, rng, width / 2, eaves + 0.2, None, small=True)
    else:
        slope = 0.35
        facade.shape(
            ((0, eaves), (width, eaves), (width - slope, eaves + height), (slope, eaves + height)), colour
        )
        for course in np.arange(0.16, height, 0.24):
            facade.box(0.1, eaves + course, width - 0.2, 0.045, colour, 0.8)
        if rng.random() < 0.6:
            facade.box(width * 0.36, eaves + 0.25, 1.25, 1.15, _TRIM, 0.8)
            facade.box(width * 0.36 - 0.1, eaves + 1.35, 1.45, 0.16, colour, 0.72)
            _window(facade, rng, width * 0.36 + 0.625, eaves + 0.4, None, small=True)
    chimney = float(rng.uniform(0.12, 0.8)) * width
    facade.box(chimney, eaves + height - 0.6, 0.5, 1.2, (136, 84, 68))
    facade.box(chimney + 0.3, eaves + height - 0.6, 0.2, 1.2, (136, 84, 68), 0.7)
    facade.box(0, eaves - 0.32, width, 0.22, (60, 48, 44), 1.0)
    facade.box(0, eaves - 0.14, width, 0.2, _TRIM)


def _window(
    facade: _Facade,
    rng: np.random.Generator,
    middle: float,
    sill: float,
    shutters: Colour | None,
    *,
    small: bool = False,
) -> None:
    width, height = (0.7, 0.8) if small else (1.0, 1.45)
    left = middle - width / 2
    facade.box(left - 0.10, sill - 0.08, width + 0.20, height + 0.18, _TRIM)
    facade.box(left, sill, width, height, (58, 72, 86))
    # The sky in the upper panes, curtains in some, a dark room below.
    bright = float(rng.uniform(0.8, 1.25))
    facade.shape(
        (
            (left, sill + height * 0.45),
            (left + width, sill + height * 0.7),
            (left + width, sill + height),
            (left, sill + height),
        ),
        (128, 152, 172),
        bright,
    )
    if rng.random() < 0.5:
        facade.box(left, sill, width * 0.24, height, (222, 214, 198), 0.85)
        facade.box(left + width * 0.76, sill, width * 0.24, height, (222, 214, 198), 0.75)
    facade.box(middle - 0.035, sill, 0.07, height, _TRIM, 0.95)
    facade.box(left, sill + height * 0.62, width, 0.06, _TRIM, 0.95)
    facade.box(left, sill + height - 0.09, width, 0.09, (40, 44, 52))
    facade.box(left - 0.16, sill - 0.16, width + 0.32, 0.10, _TRIM, 0.92)
    facade.box(left - 0.14, sill - 0.24, width + 0.32, 0.08, (70, 58, 52))
    if shutters is not None:
        for x, tone in ((left - 0.56, 1.0), (left + width + 0.12, 0.88)):
            facade.box(x, sill - 0.04, 0.44, height + 0.08, shutters, tone)
            for slat in np.arange(0.1, height, 0.14):
                facade.box(x + 0.05, sill + slat, 0.34, 0.05, shutters, tone * 0.74)
    elif rng.random() < 0.35:
        facade.box(left - 0.05, sill - 0.10, width + 0.1, 0.16, (104, 70, 52))
        for x in np.linspace(left, left + width, 9):
            bloom = ((206, 66, 70), (226, 120, 140), (84, 116, 50))[int(rng.integers(3))]
            facade.box(float(x) - 0.06, sill + float(rng.uniform(0.02, 0.12)), 0.13, 0.13, bloom)


def _door(facade: _Facade, rng: np.random.Generator, middle: float) -> None:
    colour = _SHUTTERS[int(rng.integers(len(_SHUTTERS)))]
    facade.box(middle - 0.65, 0, 1.3, 2.45, _TRIM)
    facade.box(middle - 0.5, 0, 1.0, 2.3, colour)
    facade.box(middle - 0.4, 1.75, 0.8, 0.42, (110, 130, 146))
    for x in (-0.38, 0.06):
        facade.box(middle + x, 0.3, 0.32, 1.2, colour, 0.8)


def _shop(facade: _Facade, rng: np.random.Generator, width: float) -> None:
    colour = _AWNINGS[int(rng.integers(len(_AWNINGS)))]
    facade.box(0.25, 0, width - 0.5, 2.7, (70, 58, 52))
    facade.box(0.45, 0.55, width - 1.9, 1.75, (92, 108, 116))
    for x in np.arange(0.6, width - 1.7, 0.42):
        goods = ((206, 160, 84), (170, 70, 60), (96, 130, 92), (220, 210, 190))[int(rng.integers(4))]
        facade.box(float(x), 0.6, 0.3, float(rng.uniform(0.3, 1.0)), goods, 0.85)
    facade.box(width - 1.3, 0.0, 0.95, 2.3, (120, 132, 136))
    facade.box(width - 1.22, 0.1, 0.8, 2.1, (60, 70, 78))
    stripes = int((width - 0.3) / 0.4)
    for i in range(stripes):
        a, b = 0.15 + i * (width - 0.3) / stripes, 0.15 + (i + 1) * (width - 0.3) / stripes
        shade = colour if i % 2 == 0 else (238, 232, 218)
        facade.shape(((a - 0.06, 2.05), (b - 0.06, 2.05), (b, 2.8), (a, 2.8)), shade)
        facade.box(a - 0.06, 1.92, b - a, 0.14, shade, 0.78)


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


_HOUSES_AT, _TREES_AT, _HEDGE_AT = -38.0, -14.0, -6.4  # z in metres
POST_X, POST_Z, _POST_WIDTH = -0.52, 1.75, 0.115
_GROUND = (-9.0, 9.0, -6.6, 3.2)  # x from, to; z from, to
_GROUND_SCALE = 112  # pixels to a metre
_PAVEMENT_FROM = -1.9  # z
_BLUR_MARGIN = 12  # pixels around what stands in front, into which its motion blur may reach


@dataclass(frozen=True)
class Layer:
    """A flat picture in the world.

    Args:
        canvas: (h, w, 4).
        origin: (3,) where the centre of its first pixel is.
        right: (3,) metres from column to column.
        down: (3,) metres from row to row.
    """

    canvas: Canvas
    origin: Floats
    right: Floats
    down: Floats

    def window(self, camera: Camera, margin: int = 0) -> tuple[int, int, int, int]:
        """Return x, y, x, y of the pixels that the layer may cover; of no size where it is not seen."""
        height, width = self.canvas.shape[:2]
        corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1.0]])
        seen = corners @ camera.plane_matrix(self.origin, self.right, self.down).T
        if (seen[:, 2] <= 0).any():  # it reaches behind the camera: then it may be anywhere
            return 0, 0, WIDTH, HEIGHT
        xy = seen[:, :2] / seen[:, 2:]
        low = np.clip(np.floor(xy.min(0)).astype(int) - margin, 0, (WIDTH, HEIGHT))
        high = np.clip(np.ceil(xy.max(0)).astype(int) + margin + 1, low, (WIDTH, HEIGHT))
        return int(low[0]), int(low[1]), int(high[0]), int(high[1])

    def seen_by(self, camera: Camera, window: tuple[int, int, int, int]) -> Canvas:
        """Return what a window (x, y, x, y) of the picture shows of the layer, (h, w, 4)."""
        x, y = window[:2]
        size = window[2] - x, window[3] - y
        to_window = np.array([[1.0, 0, -x], [0, 1, -y], [0, 0, 1]])
        matrix = to_window @ camera.plane_matrix(self.origin, self.right, self.down)
        return np.asarray(cv2.warpPerspective(self.canvas, matrix, size, flags=cv2.INTER_LINEAR), np.float32)


@dataclass(frozen=True)
class Backdrop:
    """All layers: the ground and what stands on it behind the figure, and what stands before it."""

    far: Layer
    trees: Layer
    ground: Layer
    hedge: Layer
    front: tuple[Layer, ...]

    def behind(self, camera: Camera) -> NDArray[np.float32]:
        """Return (H, W, 3) RGB from 0 to 255 of everything behind the figure."""
        picture = empty((HEIGHT, WIDTH))
        for layer in (self.far, self.trees, self.ground, self.hedge):
            _look(picture, layer, camera, (0, 0, WIDTH, HEIGHT), 0)
        return picture[..., :3]

    def before(self, camera: Camera) -> tuple[Canvas, tuple[int, int, int, int]]:
        """Return what stands before the figure, and the window x, y, x, y of the picture that it lies in."""
        windows = np.array([layer.window(camera, _BLUR_MARGIN) for layer in self.front])
        x0, y0, x1, y1 = (int(n) for n in (*windows[:, :2].min(0), *windows[:, 2:].max(0)))
        picture = empty((y1 - y0, x1 - x0))
        for layer in self.front:
            _look(picture, layer, camera, (x0, y0, x1, y1), _BLUR_MARGIN)
        return picture, (x0, y0, x1, y1)


def _look(
    picture: Canvas, layer: Layer, camera: Camera, window: tuple[int, int, int, int], margin: int
) -> None:
    """Lay in place what the camera sees of a layer over a picture of a window."""
    part = layer.window(camera, margin)
    if part[2] > part[0] and part[3] > part[1]:
        lay_over(picture, layer.seen_by(camera, part), part[1] - window[1], part[0] - window[0])


def _standing(canvas: Canvas, left: float, top: float, z: float, scale: float) -> Layer:
    """Return a layer that stands upright; its upper left corner is at (left, top, z)."""
    one = 1 / scale
    return Layer(
        np.ascontiguousarray(canvas),
        np.array([left + one / 2, top - one / 2, z]),
        np.array([one, 0.0, 0.0]),
        np.array([0.0, -one, 0.0]),
    )


def paint_backdrop(seed: int) -> Backdrop:
    """Paint all layers; the same seed gives the same street."""
    rng = np.random.default_rng([seed, 1])
    return Backdrop(_far(rng), _trees(rng), _ground(rng), _hedge(rng), (_lamp_post(rng), _bush(rng)))


def _far(rng: np.random.Generator) -> Layer:
    scale, length, height = 26.0, 78.0, 17.0
    shape = int(height * scale), int(length * scale)
    rows = np.linspace(0, 1, shape[0])[:, None, None]
    sky = (1 - rows) * np.array([112.0, 158, 206]) + rows * np.array([228.0, 226, 214])
    canvas = filled(shape, np.broadcast_to(sky, (*shape, 3)))
    clouds = fractal_noise(rng, shape, (90, 330), 5) - 0.25
    cover = np.clip(clouds * 0.9, 0, 0.92)[..., None].astype(np.float32)
    shade = np.clip(1.02 - 0.07 * clouds, 0.85, 1.0)[..., None]
    canvas[..., :3] = canvas[..., :3] * (1 - cover) + cover * shade * np.array([252, 250, 246.0])
    # A wood on the hills behind.
    ridge = shape[0] - (5.4 + 1.3 * fractal_noise(rng, (1, shape[1]), (1, 420), 4)[0]) * scale
    wood = np.clip(np.arange(shape[0])[:, None] - ridge[None], 0, 1)[..., None].astype(np.float32)
    tone = 1 + 0.07 * fractal_noise(rng, shape, (14, 20), 3)[..., None]
    canvas[..., :3] = canvas[..., :3] * (1 - wood) + wood * tone * np.array([116, 140, 124.0])
    houses = house_row(rng, length, scale)
    lay_over(canvas, houses, shape[0] - houses.shape[0], 0)
    # Air makes what is far pale; the lens does not hold it sharp.
    canvas[..., :3] = 0.86 * canvas[..., :3] + 0.14 * np.array([206, 218, 226.0])
    canvas = np.asarray(cv2.GaussianBlur(canvas, (0, 0), 0.8), np.float32)
    return _standing(canvas, -length / 2, height, _HOUSES_AT, scale)


def _trees(rng: np.random.Generator) -> Layer:
    scale, length, height = 54.0, 34.0, 6.6
    canvas = empty((int(height * scale), int(length * scale)))
    for x in (-13.2, -8.9, -4.4, 1.0, 5.3, 10.4, 14.1):
        drawn, foot = tree(rng, scale, float(rng.uniform(6.2, 7.4)), float(rng.uniform(1.5, 2.1)))
        column = int((x + rng.uniform(-0.5, 0.5) + length / 2) * scale - foot)
        lay_over(canvas, drawn, canvas.shape[0] - drawn.shape[0], column)
    canvas[..., :3] = 0.95 * canvas[..., :3] + 0.05 * canvas[..., 3:] / 255 * np.array([206, 218, 226.0])
    canvas = np.asarray(cv2.GaussianBlur(canvas, (0, 0), 0.8), np.float32)
    return _standing(canvas, -length / 2, height, _TREES_AT, scale)


def _hedge(rng: np.random.Generator) -> Layer:
    scale, length, height = 88.0, 20.0, 1.15
    shape = int(height * scale), int(length * scale)
    canvas = hedge(rng, shape, top=int(0.22 * scale), flowers=int(0.98 * scale))
    for x in (-2.9, 3.4):
        bench = _bench(scale)
        lay_over(canvas, bench, shape[0] - bench.shape[0], int((x + length / 2) * scale))
    canvas = np.asarray(cv2.GaussianBlur(canvas, (0, 0), 0.7), np.float32)
    return _standing(canvas, -length / 2, height, _HEDGE_AT, scale)


def _bench(scale: float) -> Canvas:
    fine = 2
    s = scale * fine
    canvas = empty((int(0.92 * s), int(1.75 * s)))
    bottom = canvas.shape[0]
    for x in (0.10, 1.55):
        for lean in (0.0, 0.09):
            corners = ((x + lean, 0.0), (x + lean, 0.46), (x, 0.85))[: 3 if lean == 0 else 2]
            points = np.array([(cx * s, bottom - cy * s) for cx, cy in corners])
            cv2.polylines(canvas, [points.astype(np.int32)], False, (42, 46, 50, 255), int(0.05 * s))
    for y, tone in ((0.80, 1.12), (0.69, 1.0), (0.58, 0.92), (0.455, 1.2), (0.425, 0.62)):
        wood = [c * tone for c in (150.0, 98.0, 58.0)]
        top = int(bottom - y * s)
        cv2.rectangle(canvas, (0, top), (canvas.shape[1], top + int(0.075 * s)), (*wood, 255), -1)
    return shrink(canvas, fine)


def _ground(rng: np.random.Generator) -> Layer:
    scale = _GROUND_SCALE
    x0, x1, z0, z1 = _GROUND
    shape = int((z1 - z0) * scale), int((x1 - x0) * scale)
    canvas = lawn(rng, shape)
    edge = int((_PAVEMENT_FROM - z0) * scale)
    stones = pave(rng, (shape[0] - edge, shape[1]), (0.62 * scale, 0.92 * scale), (190.0, 178, 160))
    lay_over(canvas, stones, edge)
    kerb = pave(rng, (int(0.16 * scale), shape[1]), (0.16 * scale, 1.0 * scale), (206.0, 200, 188))
    lay_over(canvas, kerb, edge - kerb.shape[0])
    tint(canvas[edge : edge + 8], np.full((8, shape[1]), 0.72))
    _scatter_fallen_leaves(canvas, rng, edge)
    tint(canvas, _sun_on_ground(rng, shape))
    # Rows far away are pressed together in the picture, so they are blurred beforehand.
    distance = 5.3 - (z0 + np.arange(shape[0]) / scale)
    canvas = soften_by_distance(canvas, 0.32 * distance**2 / 1.05 / 960 * scale)
    one = 1 / scale
    origin = np.array([x0 + one / 2, 0.0, z0 + one / 2])
    return Layer(canvas, origin, np.array([one, 0, 0]), np.array([0, 0, one]))


def _scatter_fallen_leaves(canvas: Canvas, rng: np.random.Generator, edge: int) -> None:
    height, width = canvas.shape[:2]
    for _ in range(420):
        at = int(rng.integers(width)), int(rng.integers(max(edge - 300, 0), height))
        axes = int(rng.integers(3, 6)), int(rng.integers(1, 4))
        tone = np.array(((176, 122, 46), (148, 84, 40), (196, 156, 66), (120, 112, 48))[int(rng.integers(4))])
        colour = (*(tone * rng.uniform(0.8, 1.1)).tolist(), 255)
        cv2.ellipse(canvas, at, axes, float(rng.uniform(0, 180)), 0, 360, colour, -1)


def _sun_on_ground(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Return the light (h, w, 3) that the trees behind the camera let through, bluer in the shade."""
    dapple = fractal_noise(rng, shape, (190, 330), 4)
    sun = np.clip((dapple + 0.75) * 1.8, 0, 1)
    sun = cv2.GaussianBlur(sun, (0, 0), 5.0)[..., None]
    return np.asarray(sun * 1.06 + (1 - sun) * np.array([0.66, 0.70, 0.80]), np.float64)


def _lamp_post(rng: np.random.Generator) -> Layer:
    scale, height = 300.0, 2.3
    width = 0.30
    shape = int(height * scale), int(width * scale)
    canvas = empty(shape)
    up = height - (np.arange(shape[0]) + 0.5) / scale
    radius = np.full(shape[0], _POST_WIDTH / 2)
    for at, tall, wide in (
        (0.62, 0.10, 0.026),
        (0.56, 0.03, 0.036),
        (0.68, 0.03, 0.034),
        (1.62, 0.05, 0.022),
    ):
        radius += wide * np.exp(-(((up - at) / (tall / 2)) ** 4))
    radius += 0.018 * (up < 0.56)
    across = (np.arange(shape[1]) + 0.5) / scale - width / 2
    share = across[None] / radius[:, None]
    inside = np.clip((1 - np.abs(share)) * radius[:, None] * scale + 0.5, 0, 1)
    turned = np.arcsin(np.clip(share, -1, 1))
    # A fluted column of painted iron, lit from the left, with a highlight.
    light = 0.32 + 0.75 * np.clip(np.cos(turned + 0.85), 0, 1) + 0.10 * np.cos(turned * 16)
    light += 0.9 * np.exp(-(((turned + 0.62) / 0.16) ** 2))
    light *= 1 + 0.05 * fractal_noise(rng, shape, (60, 10), 3)
    edges = np.array([0.51, 0.605, 0.645, 0.73, 1.58, 1.66])
    rings = 1 - 0.35 * np.exp(-(((up[:, None] - edges) / 0.008) ** 2)).sum(1)
    colour = np.array([44.0, 74, 66]) * (light * rings[:, None])[..., None]
    canvas[..., 3] = 255 * inside
    canvas[..., :3] = np.clip(colour, 0, 255) * inside[..., None]
    _stick_bill(canvas, scale, height)
    canvas = np.asarray(cv2.GaussianBlur(canvas, (0, 0), 1.3), np.float32)
    return _standing(canvas, POST_X - width / 2, height, POST_Z, scale)


def _stick_bill(canvas: Canvas, scale: float, height: float) -> None:
    """Stick a small bill on the post."""
    middle = canvas.shape[1] // 2
    top, bottom = int((height - 1.36) * scale), int((height - 1.20) * scale)
    left, right = middle - int(0.036 * scale), middle + int(0.040 * scale)
    cv2.rectangle(canvas, (left, top), (right, bottom), (226, 204, 96, 255), -1)
    for n in range(4):
        y = top + int((0.03 + 0.03 * n) * scale)
        cv2.line(canvas, (left + 4, y), (right - 4 - 5 * (n % 2), y), (70, 60, 50, 255), 3)


def _bush(rng: np.random.Generator) -> Layer:
    scale, width, height = 270.0, 1.5, 0.72
    shape = int(height * scale), int(width * scale)
    blobs = []
    for _ in range(16):
        x = rng.uniform(0.24, 0.76)
        y = 0.95 - rng.uniform(0, 1) * 0.62 * (1 - (2 * x - 1) ** 2)
        blobs.append((x * shape[1], y * shape[0], rng.uniform(0.13, 0.20) * shape[0]))
    canvas = crown(rng, shape, np.array(blobs), 0.055 * scale, 2600, warm=False)
    ys, xs = np.nonzero(canvas[..., 3] > 250)
    picks = rng.choice(len(ys), 46, replace=False)
    for x, y in zip(xs[picks].tolist(), ys[picks].tolist(), strict=True):
        for petal in range(5):
            angle = 2 * np.pi * petal / 5
            at = int(x + 4.5 * np.cos(angle)), int(y + 4.5 * np.sin(angle))
            cv2.circle(canvas, at, 4, (232, 150 + 30 * (petal % 2), 172, 255), -1)
        cv2.circle(canvas, (x, y), 3, (240, 206, 96, 255), -1)
    canvas = np.asarray(cv2.GaussianBlur(canvas, (0, 0), 1.6), np.float32)
    return _standing(canvas, POST_X - 0.42 * width, height, POST_Z + 0.03, scale)
