"""A row of town houses with windows, doors, shops and roofs, seen from the front."""

from __future__ import annotations

import cv2
import numpy as np

from posewarper.scene.textures import Canvas, Colour, empty, fractal_noise, lay_over, shrink, tint

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
