"""Films actors in the demo's street, and tells where their keypoints are and which of them are seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from known_truth.actors import Actor
from posewarper.demo.backdrop import POST_X, POST_Z, Backdrop, paint_backdrop
from posewarper.demo.camera import HEIGHT, WIDTH, Camera, aim_camera
from posewarper.demo.filming import FPS, SHUTTER, cast_shadow, lay_on, smear
from posewarper.demo.rendering import SKY, SUN, blur_figure, draw_tiles, light_from, shade_tiles, window_of
from posewarper.demo.surfaces import Surface, join
from posewarper.structures import Floats, Labels, Track

_LEVEL = 1.05
_GRAIN = 1.6
_FAST = 5.0  # pixels in one exposure, above which motion needs more moments
_SUN_SHADE, _SKY_SHADE = np.array([0.46, 0.42, 0.34]), np.array([0.30, 0.29, 0.26])


@dataclass(frozen=True)
class Stage:
    """What is filmed, by whom.

    Args:
        actors: who is there.
        camera: time in seconds -> the view.
        backdrop: the street.
        grain: (h, w) larger than the picture, of which each frame shows another part.
    """

    actors: tuple[Actor, ...]
    camera: Callable[[float], Camera]
    backdrop: Backdrop
    grain: NDArray[np.float32]


def set_stage(actors: Sequence[Actor], camera: Callable[[float], Camera], seed: int) -> Stage:
    """Return a stage with a street and a grain of the seed."""
    rng = np.random.default_rng([seed, 7])
    grain = rng.normal(0, _GRAIN, (HEIGHT + 64, WIDTH + 64)).astype(np.float32)
    return Stage(tuple(actors), camera, paint_backdrop(seed), grain)


def hold_camera(
    seed: int,
    *,
    distance: float = 5.3,
    height: float = _LEVEL,
    yaw: Callable[[float], float] = lambda time: 0.0,
    aside: Callable[[float], float] = lambda time: 0.0,
    pitch: float = 0.0,
    shake: float = 1.0,
) -> Callable[[float], Camera]:
    """Return a camera in somebody's hand.

    Args:
        seed: of the hand's trembling.
        distance, height: of the camera in metres.
        yaw, pitch: where it looks, in radians to the right and up.
        aside: metres to the right at a time.
        shake: strength of the trembling; 1 is a steady hand.
    """
    rng = np.random.default_rng([seed, 8])
    rates, phases = rng.uniform(0.7, 1.6, 3), rng.uniform(0, 2 * np.pi, 3)
    quick, late = rng.uniform(2.2, 4.5, 3), rng.uniform(0, 2 * np.pi, 3)

    def view(time: float) -> Camera:
        waves = np.sin(2 * np.pi * rates * time + phases) + 0.35 * np.sin(2 * np.pi * quick * time + late)
        waves = waves * shake
        place = (aside(time) + 0.003 * waves[2], height + 0.004 * waves[1], distance)
        turns = yaw(time) + 0.0022 * waves[0], pitch + 0.0018 * waves[1], 0.0016 * waves[2]
        return aim_camera(place, *turns)

    return view


def film_stage(stage: Stage, n_frames: int) -> tuple[Iterator[NDArray[np.uint8]], Labels]:
    """Return frames (480, 854, 3) uint8 RGB at 30 a second, made as they are asked for, and all labels.

    Visibility is 2 where a keypoint is seen, 1 where a body or the street hides it. Each exposure is centred
    on the moment of its labels.
    """
    frames = (_film(stage, i) for i in range(n_frames))
    found = [_see(stage, i / FPS) for i in range(n_frames)]
    tracks = {}
    for row, _ in enumerate(stage.actors):
        keypoints = np.stack([moment[row][0] for moment in found])
        visibility = np.stack([moment[row][1] for moment in found])
        tracks[row] = Track(np.arange(n_frames), keypoints, visibility=visibility)
    size = (HEIGHT, WIDTH)
    return frames, Labels(stage.actors[0].skeleton, tracks, image_size=size, n_frames=n_frames, video="clip")


def _see(stage: Stage, time: float) -> list[tuple[Floats, NDArray[np.uint8]]]:
    """Return of each actor the keypoints (K, 2) in pixels and their visibility (K,)."""
    camera = stage.camera(time)
    figures = [actor.pose(np.array([time])) for actor in stage.actors]
    vertices = [actor.surface.bend(f, 0) for actor, f in zip(stage.actors, figures, strict=True)]
    everybody = join([actor.surface for actor in stage.actors])
    corners, distance = camera.project(np.concatenate(vertices))
    seen = draw_tiles(corners, distance, everybody.blocks, (HEIGHT, WIDTH))
    cover = np.zeros((HEIGHT, WIDTH), np.float32)
    before, (x0, y0, x1, y1) = stage.backdrop.before(camera)
    cover[y0:y1, x0:x1] = before[..., 3]
    found = []
    for actor, figure in zip(stage.actors, figures, strict=True):
        xy, depth = camera.project(actor.keypoints(figure)[0])
        column, row = np.rint(xy).astype(int).T
        inside = (column >= 0) & (column < WIDTH) & (row >= 0) & (row < HEIGHT)
        column, row = np.clip(column, 0, WIDTH - 1), np.clip(row, 0, HEIGHT - 1)
        hidden = seen.depth[seen.index[row, column]] < depth - actor.flesh
        hidden |= cover[row, column] > 127
        found.append((xy, np.where(inside, np.where(hidden, 1, 2), 0).astype(np.uint8)))
    return found


def _film(stage: Stage, i: int) -> NDArray[np.uint8]:
    time = i / FPS
    camera = stage.camera(time)
    times = _moments(stage, time)
    views = [stage.camera(t) for t in times]
    picture = stage.backdrop.behind(camera)
    meshes, tables = [], []
    for actor in stage.actors:
        figure = actor.pose(times)
        own = [actor.surface.bend(figure, n) for n in range(len(times))]
        middle = own[len(times) // 2]
        sun, sky = (light_from(direction, actor.surface, middle) for direction in (SUN, SKY))
        cast_shadow(picture, camera, sun, _SUN_SHADE, 2.2)
        cast_shadow(picture, camera, sky, _SKY_SHADE, 9.0)
        tables.append(shade_tiles(actor.surface, middle, camera, sun, sky))
        meshes.append(own)
    picture = smear(picture, _drift(stage, time, (0.0, _LEVEL, 0.0)))
    # All are drawn together, the farthest tiles first, so that one hides the other where they cross.
    everybody: Surface = join([actor.surface for actor in stage.actors])
    together = [np.concatenate([own[n] for own in meshes]) for n in range(len(times))]
    table = np.concatenate([tables[0], *(t[1:] for t in tables[1:])])
    x0, y0, x1, y1 = window = window_of(camera, np.concatenate([together[0], together[-1]]))
    if x1 > x0 and y1 > y0:
        figures = blur_figure(everybody, list(zip(together, views, strict=True)), table, window)
        lay_on(picture[y0:y1, x0:x1], figures)
    before, (x0, y0, x1, y1) = stage.backdrop.before(camera)
    lay_on(picture[y0:y1, x0:x1], smear(before, _drift(stage, time, (POST_X, _LEVEL, POST_Z))))
    x, y = (i * 37) % 64, (i * 23) % 64
    picture = picture + stage.grain[y : y + HEIGHT, x : x + WIDTH, None]
    return np.asarray(np.clip(np.rint(picture), 0, 255), np.uint8)


def _moments(stage: Stage, time: float) -> Floats:
    """Return the moments (n,) of an exposure about its middle: more for faster motion."""
    ends = np.array([time - SHUTTER / 2, time + SHUTTER / 2])
    way = 0.0
    for actor in stage.actors:
        bones = actor.keypoints(actor.pose(ends))
        seen = [stage.camera(float(t)).project(b)[0] for t, b in zip(ends, bones, strict=True)]
        way = max(way, float(np.linalg.norm(seen[1] - seen[0], axis=1).max()))
    n = 3 if way <= _FAST else 5 if way <= 3 * _FAST else 9
    return np.asarray(time + SHUTTER * ((np.arange(n) + 0.5) / n - 0.5))


def _drift(stage: Stage, time: float, point: tuple[float, float, float]) -> Floats:
    """Return by how many pixels xy (2,) a still point of the world moves in the picture in one exposure."""
    seen = [stage.camera(time + s * SHUTTER).project(point)[0] for s in (-0.5, 0.5)]
    return np.asarray(seen[1] - seen[0])


def draw_sheet(
    frames: Sequence[NDArray[np.uint8]], labels: Labels, indices: Sequence[int], columns: int = 3
) -> NDArray[np.uint8]:
    """Return a contact sheet with labels: left is blue, right orange, others white, hidden ones hollow."""
    tiles = []
    for i in indices:
        image = cv2.resize(frames[i], None, fx=1.0, fy=1.0)
        for track in labels.tracks.values():
            row = int(np.searchsorted(track.frames, i))
            for name, xy, seen in zip(
                labels.skeleton.names, track.keypoints[row], track.visibility[row], strict=True
            ):
                if seen:
                    colour = (
                        (40, 120, 255)
                        if "left" in name
                        else (255, 150, 30)
                        if "right" in name
                        else (255,) * 3
                    )
                    at = round(float(xy[0])), round(float(xy[1]))
                    cv2.circle(image, at, 4, (0, 0, 0), -1 if seen == 2 else 2, cv2.LINE_AA)
                    cv2.circle(image, at, 3, colour, -1 if seen == 2 else 1, cv2.LINE_AA)
        tiles.append(np.asarray(image, np.uint8))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    return np.vstack([np.hstack(tiles[n : n + columns]) for n in range(0, len(tiles), columns)])
