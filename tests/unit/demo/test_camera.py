"""The camera: points and flat pictures by hand."""

from __future__ import annotations

import numpy as np

from posewarper.demo.camera import FOCAL, WIDTH, aim_camera
from posewarper.demo.gait import about_x, about_y, about_z, turn


def test_a_point_ahead_is_in_the_middle_and_others_by_similar_triangles():
    camera = aim_camera((0.5, 1.0, 4.0), 0.0, 0.0)
    xy, ahead = camera.project([[0.5, 1.0, 0.0], [1.5, 1.0, 0.0], [0.5, 1.5, -4.0]])
    np.testing.assert_allclose(ahead, [4, 4, 8])
    middle = np.array([(WIDTH - 1) / 2, xy[0, 1]])
    np.testing.assert_allclose(xy[0], middle)
    np.testing.assert_allclose(xy[1] - middle, [FOCAL / 4, 0])
    np.testing.assert_allclose(xy[2] - middle, [0, -FOCAL * 0.5 / 8])


def test_turning_right_moves_the_picture_left_and_up_moves_it_down():
    point = [[0.0, 1.0, 0.0]]
    still = aim_camera((0.0, 1.0, 4.0), 0.0, 0.0).project(point)[0][0]
    right = aim_camera((0.0, 1.0, 4.0), 0.1, 0.0).project(point)[0][0]
    up = aim_camera((0.0, 1.0, 4.0), 0.0, 0.1).project(point)[0][0]
    np.testing.assert_allclose(right - still, [-FOCAL * np.tan(0.1), 0], atol=1e-9)
    np.testing.assert_allclose(up - still, [0, FOCAL * np.tan(0.1)], atol=1e-9)
    # Turned clockwise, what was above the middle goes to the left.
    above = [[0.0, 1.5, 0.0]]
    rolled = aim_camera((0.0, 1.0, 4.0), 0.0, 0.0, 0.1).project(above)[0][0]
    assert rolled[0] < still[0] - 5
    assert rolled[1] > aim_camera((0.0, 1.0, 4.0), 0.0, 0.0).project(above)[0][0][1]


def test_a_flat_picture_lies_where_its_points_are():
    camera = aim_camera((0.3, 1.1, 5.0), -0.2, 0.05, 0.02)
    origin, right, down = np.array([-1.0, 0.0, -2.0]), np.array([0.01, 0, 0]), np.array([0, 0, 0.02])
    matrix = camera.plane_matrix(origin, right, down)
    for column, row in ((0, 0), (120, 0), (37, 81)):
        seen = matrix @ [column, row, 1]
        xy, ahead = camera.project(origin + column * right + row * down)
        np.testing.assert_allclose(seen[:2] / seen[2], xy)
        np.testing.assert_allclose(seen[2], ahead)


def test_rotations_go_round_as_they_say():
    quarter = np.pi / 2
    np.testing.assert_allclose(turn(about_x(quarter), (0, 1, 0)), (0, 0, 1), atol=1e-12)
    np.testing.assert_allclose(turn(about_y(quarter), (0, 0, 1)), (1, 0, 0), atol=1e-12)
    np.testing.assert_allclose(turn(about_z(quarter), (1, 0, 0)), (0, 1, 0), atol=1e-12)
    assert about_x(np.zeros((2, 3))).shape == (2, 3, 3, 3)
