"""The street behind and before the figure: flat layers at their distances, seen by the moving camera."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from posewarper.scene.buildings import house_row
from posewarper.scene.camera import HEIGHT, WIDTH, Camera
from posewarper.scene.plants import crown, hedge, tree
from posewarper.scene.textures import (
    Canvas,
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
