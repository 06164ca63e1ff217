"""Tiles as pixels: what is near hides what is far, shadows fall, and motion blurs about its middle."""

from __future__ import annotations

import numpy as np
import pytest

from posewarper.demo.camera import aim_camera
from posewarper.demo.rendering import (
    SKY,
    SUN,
    blur_figure,
    draw_tiles,
    light_from,
    map_tiles,
    shade_tiles,
    window_of,
)
from posewarper.demo.surfaces import Surface

CAMERA = aim_camera((0.0, 1.0, 4.0), 0.0, 0.0)


def plates(*corners, colour=(0.8, 0.5, 0.3)):
    """A surface of separate tiles, each given by its four corners."""
    vertices = np.concatenate([np.asarray(c, float) for c in corners])
    n = len(corners)
    tiles = np.arange(4 * n).reshape(n, 4)
    none = np.zeros((4 * n, 2), np.int64)
    return Surface(
        vertices,
        none,
        np.zeros(4 * n),
        tiles,
        tiles,
        np.tile(colour, (n, 1)),
        np.arange(n),
        np.zeros(n),
    )


def upright(x, y, z, half):
    """A square that faces the camera, its middle at (x, y, z)."""
    return [
        (x - half, y - half, z),
        (x + half, y - half, z),
        (x + half, y + half, z),
        (x - half, y + half, z),
    ]


def lying(x, y, z, half):
    """A square that faces up."""
    return [
        (x - half, y, z + half),
        (x + half, y, z + half),
        (x + half, y, z - half),
        (x - half, y, z - half),
    ]


def test_the_nearer_tile_is_seen_whatever_the_order():
    far = [(2, 17), (17, 17), (17, 2), (2, 2)]
    near = [(8, 23), (23, 23), (23, 8), (8, 8)]
    for order in ((0, 1), (1, 0)):
        xy = np.array([far, near], float)[list(order)].reshape(-1, 2)
        depth = np.array([5.0, 3.0])[list(order)].repeat(4)
        seen = draw_tiles(xy, depth, np.arange(8).reshape(2, 4), (26, 30))
        names = np.array(["", *np.array(["far", "near"])[list(order)]])[seen.index]
        assert (names[12, 12], names[4, 4], names[20, 20], names[1, 1]) == ("near", "far", "near", "")
        assert seen.depth[seen.index[12, 12]] == 3
        assert seen.depth[seen.index[1, 1]] == np.inf


def test_a_tile_that_faces_away_is_not_drawn():
    xy = np.array([(2, 2), (17, 2), (17, 17), (2, 17)], float)
    assert not draw_tiles(xy, np.ones(4), np.arange(4)[None], (20, 20)).index.any()


def test_pixels_are_where_the_projection_says():
    """The middle of what is drawn is the projected middle, at one and at two pixels of the map a pixel."""
    made = plates(upright(0.31, 1.17, -0.4, 0.05))
    xy, _ = CAMERA.project([0.31, 1.17, -0.4])
    window = window_of(CAMERA, made.vertices)
    for fine in (1, 2, 4):
        seen = map_tiles(made, made.vertices, CAMERA, window, fine=fine)
        row, column = np.argwhere(seen.index > 0).mean(0)
        middle = (np.array([column, row]) + 0.5) / fine - 0.5 + seen.corner
        np.testing.assert_allclose(middle, xy, atol=0.5 / fine)


def test_the_blur_of_a_moving_tile_is_about_its_place_in_the_middle():
    made = plates(upright(0.0, 1.0, 0.0, 0.02))
    steps = np.linspace(-0.02, 0.02, 5)
    moments = [(made.vertices + np.array([step, 0.5 * step, 0]), CAMERA) for step in steps]
    window = window_of(CAMERA, np.concatenate([m[0] for m in moments]))
    table = np.array([[0, 0, 0, 0], [200, 100, 50, 255]], np.uint8)
    blurred = blur_figure(made, moments, table, window)
    cover = blurred[..., 3] / 255
    rows, columns = np.mgrid[: cover.shape[0], : cover.shape[1]]
    middle = np.array([(cover * columns).sum(), (cover * rows).sum()]) / cover.sum() + window[:2]
    np.testing.assert_allclose(middle, CAMERA.project([0, 1, 0])[0], atol=0.1)
    # It is spread over its way, and as much in all as a tile that keeps still.
    still = blur_figure(made, [(made.vertices, CAMERA)] * 5, table, window)
    assert (cover > 0).sum() > 1.5 * (still[..., 3] > 0).sum()
    assert cover.sum() == pytest.approx(still[..., 3].sum() / 255, rel=0.02)
    # Colours are multiplied by the cover.
    np.testing.assert_allclose(blurred[..., 0], 200 * cover, atol=1.5)


def shades(made):
    sun, sky = (light_from(direction, made, made.vertices) for direction in (SUN, SKY))
    return shade_tiles(made, made.vertices, CAMERA, sun, sky)[1:, :3].astype(int)


def test_what_lies_in_a_shadow_is_darker():
    lone = shades(plates(lying(0.0, 0.4, 0.0, 0.15)))[0]
    up = 0.5 * SUN / SUN[1]
    shadowed = shades(plates(lying(0.0, 0.4, 0.0, 0.15), lying(*(np.array([0, 0.4, 0]) + up), 0.4)))[0]
    aside = shades(plates(lying(0.0, 0.4, 0.0, 0.15), lying(0.9, 0.9, 0.0, 0.3)))[0]
    assert (shadowed < 0.9 * lone).all()
    np.testing.assert_allclose(aside, lone, atol=2)
    # In the shade the light of the sky is left, which is bluer than the sun.
    assert shadowed[0] / lone[0] < 0.7 < shadowed[2] / lone[2]


def test_what_faces_the_sun_is_brighter():
    left = [(0.0, 0.5, 0.5), (0.0, 0.5, 0.7), (0.0, 0.7, 0.7), (0.0, 0.7, 0.5)]
    right = [left[i] for i in (1, 0, 3, 2)]
    assert SUN[0] < 0
    lit, shaded = shades(plates(left))[0], shades(plates(right))[0]
    assert (lit > 1.1 * shaded).all()
    assert lit[0] > 1.4 * shaded[0]
