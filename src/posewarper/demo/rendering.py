"""The figure as pixels: which tile is seen where, in sunlight with shadows, blurred by its motion.

Tiles are drawn from the farthest to the nearest into maps of tile numbers; colour, part and depth of a pixel
are those of its tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from posewarper.demo.camera import HEIGHT, WIDTH, Camera
from posewarper.demo.gait import unit
from posewarper.demo.surfaces import Surface
from posewarper.structures import Floats

FINE = 2  # pixels of the maps to one of the picture, in x and in y
SUN = unit(np.array([-0.52, 0.62, 0.50]))  # where it stands
SKY = unit(np.array([0.08, 1.0, 0.35]))  # where most of the open sky is
_SUNLIGHT, _SKYLIGHT, _GROUNDLIGHT = (
    np.array([1.04, 0.93, 0.76]),
    np.array([0.40, 0.47, 0.60]),
    np.array([0.22, 0.20, 0.165]),
)
_SHIFT = 4  # cv2 takes corners in sixteenths of a pixel
_GAMMA = 2.2
_SHADOW_PIXELS = 110  # of a shadow map, to a metre
_SHADOW_SIZE = (300, 300)
_SHADOW_SLACK = 0.022  # metres by which a tile may lie behind another and still be in the sun


@dataclass(frozen=True)
class TileMap:
    """Which tile is seen at each pixel of a window.

    Args:
        index: (h, w) number of the tile plus 1; 0 where there is none.
        corner: (x, y) of the picture's pixel that the window begins at.
        depth: (Q + 1,) distance of each tile ahead of the camera in metres; the first is infinity.
    """

    index: NDArray[np.int32]
    corner: tuple[int, int]
    depth: Floats


def draw_tiles(xy: Floats, depth: Floats, tiles: NDArray[np.int64], shape: tuple[int, int]) -> TileMap:
    """Draw the tiles that face the viewer.

    Args:
        xy: (V, 2) vertices in pixels of the map, y down.
        depth: (V,) their distance.
        tiles: (Q, 4) vertices of tiles, counter-clockwise seen from outside.
        shape: (height, width) of the map.
    """
    corners = xy[tiles]
    a, b = corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]
    facing = np.flatnonzero(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0] < 0)
    distance = depth[tiles].mean(1)
    order = facing[np.argsort(-distance[facing], kind="stable")]
    polygons = np.rint(corners[order] * (1 << _SHIFT)).astype(np.int32)
    index = np.zeros(shape, np.int32)
    fill = cv2.fillConvexPoly
    for number, polygon in zip((order + 1).tolist(), polygons, strict=True):
        fill(index, polygon, number, cv2.LINE_8, _SHIFT)
    return TileMap(index, (0, 0), np.concatenate([[np.inf], distance]))


def window_of(camera: Camera, points: Floats, margin: int = 12) -> tuple[int, int, int, int]:
    """Return x, y, x, y of the picture's pixels in which points (n, 3) are seen; of no size if in none."""
    xy, _ = camera.project(points)
    low = np.clip(np.floor(xy.min(0)).astype(int) - margin, 0, (WIDTH, HEIGHT))
    high = np.clip(np.ceil(xy.max(0)).astype(int) + margin + 1, 0, (WIDTH, HEIGHT))
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def map_tiles(
    surface: Surface,
    vertices: Floats,
    camera: Camera,
    window: tuple[int, int, int, int],
    *,
    fine: int = FINE,
    offset: tuple[float, float] = (0.0, 0.0),
) -> TileMap:
    """Return which tile is seen where.

    Args:
        surface: the tiles.
        vertices: (V, 3) where they are in the world.
        camera: the view.
        window: x, y, x, y of the picture's pixels to draw.
        fine: pixels of the map to one of the picture.
        offset: (x, y) by which the picture is moved, in its pixels.
    """
    xy, depth = camera.project(vertices)
    # The centre of a pixel lies at whole numbers in both, so half a pixel comes off before scaling.
    in_map = (xy - (window[0], window[1]) + offset + 0.5) * fine - 0.5
    shape = (window[3] - window[1]) * fine, (window[2] - window[0]) * fine
    drawn = draw_tiles(in_map, depth, surface.tiles, shape)
    return TileMap(drawn.index, (window[0], window[1]), drawn.depth)


@dataclass(frozen=True)
class Light:
    """What the sun sees of the figure: whatever it does not see lies in the shadow.

    Args:
        seen: the tiles from where the sun is, without perspective.
        matrix: (2, 4) from the world to pixels of that map.
        ahead: (4,) from the world to the distance from the sun.
    """

    seen: TileMap
    matrix: Floats
    ahead: Floats


def light_from(direction: Floats, surface: Surface, vertices: Floats) -> Light:
    """Return what is seen of the surface from a direction, (3,) of length 1."""
    right = unit(np.cross((0.0, 1.0, 1e-3), direction))
    up = np.cross(direction, right)
    scale = _SHADOW_PIXELS
    linear = np.stack([right * scale, -up * scale])
    middle = (vertices.min(0) + vertices.max(0)) / 2
    centre = np.array([_SHADOW_SIZE[1] / 2, _SHADOW_SIZE[0] / 2])
    matrix = np.column_stack([linear, centre - linear @ middle])
    ahead = np.append(-direction, direction @ middle)
    xy = vertices @ matrix[:, :3].T + matrix[:, 3]
    depth = vertices @ ahead[:3] + ahead[3]
    return Light(draw_tiles(xy, depth, surface.blocks, _SHADOW_SIZE), matrix, ahead)


_TAPS = ((0, 0), (1.4, 0.5), (-0.5, 1.4), (-1.4, -0.5), (0.5, -1.4))


def _lit(light: Light, centres: Floats) -> Floats:
    """Return (Q,) from 0, in the shadow, to 1, in the light, for places (Q, 3)."""
    xy = centres @ light.matrix[:, :3].T + light.matrix[:, 3]
    depth = centres @ light.ahead[:3] + light.ahead[3] - _SHADOW_SLACK
    height, width = _SHADOW_SIZE
    lit = np.zeros(len(centres))
    for dx, dy in _TAPS:
        x = np.clip(np.rint(xy[:, 0] + dx).astype(int), 0, width - 1)
        y = np.clip(np.rint(xy[:, 1] + dy).astype(int), 0, height - 1)
        lit += depth <= light.seen.depth[light.seen.index[y, x]]
    return lit / len(_TAPS)


def shade_tiles(
    surface: Surface, vertices: Floats, camera: Camera, sun: Light, sky: Light
) -> NDArray[np.uint8]:
    """Return the colours (Q + 1, 4) RGBA of the tiles as the camera sees them; the first is nothing."""
    corners = vertices[surface.tiles]
    normal = np.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    centres = corners.mean(1)
    open_sky = 0.55 + 0.45 * _lit(sky, centres)
    facing = normal @ SUN
    bright = np.clip((facing + 0.06) / 1.06, 0, 1) * _lit(sun, centres)
    up = (0.5 + 0.5 * normal[:, 1]) * open_sky
    # Low down and between the legs little of the sky is seen.
    low = np.clip(0.62 + 0.5 * centres[:, 1], 0, 1)
    light = bright[:, None] * _SUNLIGHT
    light += (up * low)[:, None] * _SKYLIGHT
    light += ((1 - up) * low)[:, None] * _GROUNDLIGHT
    view = unit(camera.place - centres)
    shine = np.clip((normal * unit(view + SUN)).sum(1), 0, 1) ** 24 * surface.gloss * (bright > 0)
    # Against the sky behind, edges catch some of its light.
    rim = (1 - np.clip((normal * view).sum(1), 0, 1)) ** 3 * 0.10 * up
    linear = surface.colours**_GAMMA * light + (shine + rim)[:, None] * np.array([1.0, 0.97, 0.9])
    table = np.zeros((len(linear) + 1, 4), np.uint8)
    table[1:, :3] = np.rint(255 * np.clip(linear, 0, 1) ** (1 / _GAMMA))
    table[1:, 3] = 255
    return table


def blur_figure(
    surface: Surface,
    moments: Sequence[tuple[Floats, Camera]],
    table: NDArray[np.uint8],
    window: tuple[int, int, int, int],
) -> NDArray[np.float32]:
    """Return the mean picture of the figure over moments of one exposure.

    Args:
        surface: the tiles.
        moments: where the vertices (V, 3) are, and the camera, at each.
        table: (Q + 1, 4) colours of the tiles.
        window: x, y, x, y of the pixels to draw.

    Returns:
        (h, w, 4) RGB, multiplied by the cover, and the cover; from 0 to 255.
    """
    width, height = window[2] - window[0], window[3] - window[1]
    total = np.zeros((height, width, 4), np.float32)
    packed = table.view(np.uint32)[:, 0]
    for n, (vertices, camera) in enumerate(moments):
        # Each moment is moved by its own part of a pixel, all together by none: finer edges for nothing.
        shift = ((n + 0.5) / len(moments) - 0.5) / FINE
        seen = map_tiles(surface, vertices, camera, window, offset=(shift, -shift))
        pixels = packed[seen.index].view(np.uint8).reshape(*seen.index.shape, 4)
        cv2.accumulate(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), total)
    return np.asarray(total / len(moments), np.float32)
