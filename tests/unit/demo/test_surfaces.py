"""Tubes of tiles: their size, which way they face, how they bend and are painted."""

from __future__ import annotations

import numpy as np
import pytest

from posewarper.demo.bones import BONES, REST, Figure
from posewarper.demo.figure import PARTS, make_shirt, make_shoes, make_trousers, part_at
from posewarper.demo.gait import about_z
from posewarper.demo.surfaces import chain, cover, join, plain, tube

RINGS = [(0.2, 0.05, 0.03, 0.02, 0.04), (0.5, 0.05, 0.03, 0.02, 0.04), (0.8, 0.05, 0.03, 0.02, 0.04)]
HEAD = chain((0.5, "head"))


def surface(axis="y", **more):
    return cover(tube(RINGS, axis=axis, **more), HEAD, plain((0.2, 0.4, 0.6)), part_at((0.0, "head")))


def still_figure(**turns):
    """The standing body, some bones turned about where they begin."""
    matrices = np.stack([turns.get(name, np.eye(3)) for name in BONES])
    return Figure(np.array([list(REST.values())]), matrices[None])


def normals(made):
    corners = made.vertices[made.tiles]
    return np.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])


def test_walls_are_as_far_as_the_rings_say():
    made = surface(centre=(1.0, 0.1, 2.0))
    low, high = made.vertices.min(0), made.vertices.max(0)
    np.testing.assert_allclose(low, [0.97, 0.3, 1.96], atol=0.002)
    np.testing.assert_allclose(high, [1.05, 0.9, 2.02], atol=0.002)


@pytest.mark.parametrize("axis", ["x", "y"])
def test_tiles_face_outwards(axis):
    made = surface(axis)
    middle = made.vertices[made.tiles].mean(1)
    outward = middle.copy()
    outward[:, 0 if axis == "x" else 1] = 0
    assert ((normals(made) * outward).sum(1) > 0).all()
    blocks = made.vertices[made.blocks]
    assert len(blocks) < 0.4 * len(made.tiles)
    across = np.cross(blocks[:, 2] - blocks[:, 0], blocks[:, 3] - blocks[:, 1])
    outward = blocks.mean(1)
    outward[:, 0 if axis == "x" else 1] = 0
    assert ((across * outward).sum(1) > 0).all()


def test_a_figure_at_rest_leaves_the_vertices_where_they_are():
    made = join([*make_shirt(np.random.default_rng(0)), *make_trousers(np.random.default_rng(0))])
    np.testing.assert_allclose(made.bend(still_figure(), 0), made.vertices, atol=1e-12)


def test_a_bent_elbow_lifts_what_is_below_it_alone():
    made = make_shirt(np.random.default_rng(0))[1]  # the right sleeve
    bent = made.bend(still_figure(right_forearm=about_z(np.pi / 2)), 0)
    elbow = np.array(REST["right_forearm"])
    above, below = made.vertices[:, 1] > elbow[1] + 0.06, made.vertices[:, 1] < elbow[1] - 0.05
    np.testing.assert_allclose(bent[above], made.vertices[above], atol=1e-12)
    offset = made.vertices[below] - elbow
    turned = np.stack([-offset[:, 1], offset[:, 0], offset[:, 2]], -1)
    np.testing.assert_allclose(bent[below], elbow + turned, atol=1e-9)


def test_weights_go_smoothly_from_bone_to_bone():
    bones, weights = chain((0.2, "chest"), (0.4, "neck"), (0.6, "head"))(np.array([0.1, 0.2, 0.3, 0.5, 0.7]))
    mixed = [
        {BONES[a]: 1 - w, BONES[b]: w} for (a, b), w in zip(bones.tolist(), weights.tolist(), strict=True)
    ]
    assert mixed[0]["chest"] == pytest.approx(1)
    assert mixed[1]["chest"] == pytest.approx(1)
    assert mixed[2] == {"chest": pytest.approx(0.5), "neck": pytest.approx(0.5)}
    assert mixed[3] == {"neck": pytest.approx(0.5), "head": pytest.approx(0.5)}
    assert mixed[4]["head"] == pytest.approx(1)


def test_creases_are_small_and_depend_on_the_generator_alone():
    shape = tube(RINGS)
    one, same, other = (shape.crease(np.random.default_rng(n), 0.001, (2, 3)) for n in (5, 5, 6))
    np.testing.assert_array_equal(one.points, same.points)
    assert not np.array_equal(one.points, other.points)
    moved = np.linalg.norm(one.points - shape.points, axis=-1)
    assert 0.0005 < np.sqrt((moved**2).mean()) < 0.0011


def test_paint_and_parts_follow_the_place():
    shape = tube([(0.0, 0.1, 0.1, 0.1, 0.1), (1.0, 0.1, 0.1, 0.1, 0.1)], tile=0.02)
    parts = part_at((-1.0, "left_shank"), (0.5, "left_thigh"))

    def paint(points, angles):
        return np.stack([points[:, 1], angles / (2 * np.pi), np.zeros(len(points))], -1)

    made = cover(shape, HEAD, paint, parts)
    middle = made.vertices[made.tiles].mean(1)
    np.testing.assert_allclose(made.colours[:, 0], middle[:, 1], atol=0.002)
    angle = np.arctan2(middle[:, 2], middle[:, 0]) % (2 * np.pi)
    np.testing.assert_allclose(made.colours[:, 1], angle / (2 * np.pi), atol=0.002)
    expected = np.where(middle[:, 1] > 0.5, PARTS.index("left_thigh"), PARTS.index("left_shank"))
    np.testing.assert_array_equal(made.parts, expected)


def test_shoes_stand_on_the_ground():
    made = join(make_shoes())
    assert made.vertices[:, 1].min() == pytest.approx(0, abs=1e-6)
