"""One frame of the clip: camera, exposure, shadows on the ground, what is behind and before, grain."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter1d

from posewarper.demo.backdrop import POST_X, POST_Z, Backdrop, paint_backdrop
from posewarper.demo.bones import FLESH, pose_figure
from posewarper.demo.camera import HEIGHT, WIDTH, Camera, aim_camera
from posewarper.demo.figure import make_arms, make_head, make_rucksack, make_shirt, make_shoes, make_trousers
from posewarper.demo.gait import Walk, plan_walk
from posewarper.demo.rendering import (
    SKY,
    SUN,
    Light,
    blur_figure,
    draw_tiles,
    light_from,
    shade_tiles,
    window_of,
)
from posewarper.demo.surfaces import Surface, join
from posewarper.structures import Floats

FPS = 30.0
SHUTTER = 0.5 / FPS  # seconds of exposure: 180 degrees
_DISTANCE = 5.3  # of the camera from the origin, in metres
_LEVEL = 1.05  # height of the camera
_FOLLOWS = 0.45  # share of the figure's direction by which the camera turns
_FAST = 5.0  # pixels in one exposure, above which motion needs more moments
_GRAIN = 1.6  # deviation of the film's grain, of 255


@dataclass(frozen=True)
class Scene:
    """Everything that is filmed.

    Args:
        walk: the plan of the walk.
        surface: the figure.
        backdrop: the street.
        aim: (m,) direction in radians that the camera follows, at the times of the walk's plan.
        tremble: (3, 2) frequencies (Hz) and phases of the hand that holds the camera.
        grain: (h, w) larger than the picture, of which each frame shows another part.
        vignette: (H, W, 1) factor that darkens the corners.
    """

    walk: Walk
    surface: Surface
    backdrop: Backdrop
    aim: Floats
    tremble: Floats
    grain: NDArray[np.float32]
    vignette: NDArray[np.float32]


def stage_scene(seconds: float, seed: int) -> Scene:
    """Make everything ready for a clip of some seconds; the same seed gives the same scene."""
    rng = np.random.default_rng([seed, 0])
    parts = [*make_shirt(rng), *make_trousers(rng), *make_shoes(), *make_rucksack(), *make_head(rng)]
    walk = plan_walk(seconds)
    step = walk.times[1] - walk.times[0]
    direction = np.arctan2(walk.ground[:, 0], _DISTANCE - walk.ground[:, 1])
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    from_middle = np.hypot(columns - WIDTH / 2, rows - HEIGHT / 2) / np.hypot(WIDTH / 2, HEIGHT / 2)
    return Scene(
        walk,
        join([*parts, *make_arms()]),
        paint_backdrop(seed),
        gaussian_filter1d(direction, 0.40 / step, mode="nearest"),
        np.stack([rng.uniform(0.7, 1.6, 3), rng.uniform(0, 2 * np.pi, 3)], -1),
        rng.normal(0, _GRAIN, (HEIGHT + 64, WIDTH + 64)).astype(np.float32),
        (1 - 0.20 * from_middle**2.4)[..., None].astype(np.float32),
    )


def camera_at(scene: Scene, time: float) -> Camera:
    """Return the camera at a time in seconds."""
    waves = np.sin(2 * np.pi * scene.tremble[:, 0] * time + scene.tremble[:, 1])
    yaw = _FOLLOWS * float(scene.walk.at(scene.aim, [time])[0]) + 0.0022 * waves[0]
    aside = -0.22 + 0.10 * time
    place = (aside, _LEVEL + 0.004 * waves[1], _DISTANCE)
    return aim_camera(place, yaw, 0.0018 * waves[1], 0.0016 * waves[2])


def vertices_at(scene: Scene, times: ArrayLike) -> list[Floats]:
    """Return the vertices (V, 3) of the figure at each time."""
    figure = pose_figure(scene.walk, times)
    return [scene.surface.bend(figure, i) for i in range(len(figure.places))]


def keypoints_at(scene: Scene, time: float) -> tuple[Floats, NDArray[np.uint8]]:
    """Return the keypoints (17, 2) in pixels at a time, and their visibility (17,).

    Visibility is 2 where nothing lies before a keypoint but the part it belongs to, 1 where something else of
    the figure or of the street does, and 0 outside of the picture.
    """
    camera = camera_at(scene, time)
    figure = pose_figure(scene.walk, [time])
    xy, depth = camera.project(figure.keypoints()[0])
    column, row = np.rint(xy).astype(int).T
    inside = (column >= 0) & (column < WIDTH) & (row >= 0) & (row < HEIGHT)
    column, row = np.clip(column, 0, WIDTH - 1), np.clip(row, 0, HEIGHT - 1)
    corners, distance = camera.project(scene.surface.bend(figure, 0))
    seen = draw_tiles(corners, distance, scene.surface.blocks, (HEIGHT, WIDTH))
    behind_body = seen.depth[seen.index[row, column]] < depth - FLESH
    behind_street = _front_cover(scene, camera)[row, column] > 127
    visibility = np.where(inside, np.where(behind_body | behind_street, 1, 2), 0)
    return xy, visibility.astype(np.uint8)


def film_frame(scene: Scene, i: int) -> NDArray[np.uint8]:
    """Return frame ``i``, (H, W, 3) uint8 RGB; its exposure is centred on ``i / FPS`` seconds."""
    time = i / FPS
    camera = camera_at(scene, time)
    times = exposure_moments(scene, time)
    meshes = vertices_at(scene, times)
    middle = meshes[len(times) // 2]
    sun, sky = (light_from(direction, scene.surface, middle) for direction in (SUN, SKY))
    picture = scene.backdrop.behind(camera)
    cast_shadow(picture, camera, sun, np.array([0.46, 0.42, 0.34]), 2.2)
    cast_shadow(picture, camera, sky, np.array([0.30, 0.29, 0.26]), 9.0)
    picture = smear(picture, _drift(scene, time, (0.0, _LEVEL, 0.0)))
    x0, y0, x1, y1 = window = window_of(camera, np.concatenate([meshes[0], meshes[-1]]))
    if x1 > x0 and y1 > y0:
        table = shade_tiles(scene.surface, middle, camera, sun, sky)
        views = [camera_at(scene, t) for t in times]
        figure = blur_figure(scene.surface, list(zip(meshes, views, strict=True)), table, window)
        lay_on(picture[y0:y1, x0:x1], figure)
    before, (x0, y0, x1, y1) = scene.backdrop.before(camera)
    lay_on(picture[y0:y1, x0:x1], smear(before, _drift(scene, time, (POST_X, _LEVEL, POST_Z))))
    return _develop(scene, picture, i)


def exposure_moments(scene: Scene, time: float) -> Floats:
    """Return the moments (n,) of an exposure about its middle, an odd number: more for faster motion."""
    bones = pose_figure(scene.walk, (time - SHUTTER / 2, time + SHUTTER / 2)).places
    opens, closes = (
        camera_at(scene, time + s * SHUTTER).project(b)[0] for s, b in zip((-0.5, 0.5), bones, strict=True)
    )
    n = 5 if np.linalg.norm(closes - opens, axis=1).max() > _FAST else 3
    return np.asarray(time + SHUTTER * ((np.arange(n) + 0.5) / n - 0.5))


def _front_cover(scene: Scene, camera: Camera) -> NDArray[np.float32]:
    """Return (H, W): how far each pixel is covered by what stands before the figure, from 0 to 255."""
    cover = np.zeros((HEIGHT, WIDTH), np.float32)
    before, (x0, y0, x1, y1) = scene.backdrop.before(camera)
    cover[y0:y1, x0:x1] = before[..., 3]
    return cover


def lay_on(picture: NDArray[np.float32], above: NDArray[np.float32]) -> None:
    """Lay colours multiplied by their cover, and the cover, (h, w, 4), on a picture (h, w, 3) in place."""
    picture *= 1 - above[..., 3:] / 255
    picture += above[..., :3]


def cast_shadow(
    picture: NDArray[np.float32], camera: Camera, light: Light, strength: Floats, softness: float
) -> None:
    """Darken the ground in place where the figure stands between it and a light.

    Args:
        picture: (H, W, 3).
        camera: the view.
        light: what the light sees of the figure.
        strength: (3,) share of each colour that is taken away.
        softness: deviation of the shadow's edge, in pixels of the light's map.
    """
    mask = (light.seen.index > 0).astype(np.float32)
    mask = cv2.GaussianBlur(mask, (0, 0), softness)
    # From the ground (x, z) to the light's map, and from the ground to the picture.
    to_map = np.vstack([light.matrix[:, [0, 2, 3]], [0.0, 0, 1]])
    to_picture = camera.plane_matrix((0.0, 0, 0), (1.0, 0, 0), (0.0, 0, 1))
    matrix = to_picture @ np.linalg.inv(to_map)
    top = HEIGHT // 2
    moved = np.array([[1.0, 0, 0], [0, 1, -top], [0, 0, 1]]) @ matrix
    shade = cv2.warpPerspective(mask, moved, (WIDTH, HEIGHT - top), flags=cv2.INTER_LINEAR)
    picture[top:] *= 1 - shade[..., None] * strength.astype(np.float32)


def _drift(scene: Scene, time: float, point: ArrayLike) -> Floats:
    """Return by how many pixels xy (2,) a still point of the world moves in the picture in one exposure."""
    seen = [camera_at(scene, time + s * SHUTTER).project(point)[0] for s in (-0.5, 0.5)]
    return np.asarray(seen[1] - seen[0])


def smear(picture: NDArray[np.float32], drift: Floats) -> NDArray[np.float32]:
    """Blur a picture along a way in pixels, its centre kept in place."""
    reach = np.ceil(np.abs(drift) / 2).astype(int)
    if not reach.any() or not picture.size:
        return picture
    kernel = np.zeros((2 * reach[1] + 3, 2 * reach[0] + 3))
    n = 4 * int(reach.max()) + 1
    for share in (np.arange(n) + 0.5) / n - 0.5:
        x, y = share * drift + reach + 1
        left, top = int(x), int(y)
        across, down = np.array([1 - x + left, x - left]), np.array([1 - y + top, y - top])
        kernel[top : top + 2, left : left + 2] += down[:, None] * across / n
    return np.asarray(cv2.filter2D(picture, -1, kernel, borderType=cv2.BORDER_REPLICATE), np.float32)


def _develop(scene: Scene, picture: NDArray[np.float32], i: int) -> NDArray[np.uint8]:
    """Darken the corners, add the grain of frame ``i``, and round."""
    x, y = (i * 37) % 64, (i * 23) % 64
    picture = picture * scene.vignette + scene.grain[y : y + HEIGHT, x : x + WIDTH, None]
    return np.asarray(np.clip(np.rint(picture), 0, 255), np.uint8)
