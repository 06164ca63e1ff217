"""A camera that follows by turning and by moving a little, and how it sees points and flat pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from posewarper.structures import Floats

HEIGHT, WIDTH = 480, 854
FOCAL = 960.0  # pixels
_MIDDLE = ((WIDTH - 1) / 2, 224.0)  # xy of the picture's centre; the horizon lies a little above the middle


@dataclass(frozen=True)
class Camera:
    """One view.

    Args:
        place: (3,) metres of the world.
        turn: (3, 3) from the world to the camera's own right, up and back.
    """

    place: Floats
    turn: Floats

    @property
    def matrix(self) -> Floats:
        """(3, 4) from the world to the picture, homogeneous; the last row gives the distance ahead."""
        lens = np.array([[FOCAL, 0, -_MIDDLE[0]], [0, -FOCAL, -_MIDDLE[1]], [0, 0, -1.0]])
        return lens @ np.column_stack([self.turn, -self.turn @ self.place])

    def project(self, points: ArrayLike) -> tuple[Floats, Floats]:
        """Return xy (..., 2) in pixels and the distance ahead (...) in metres of points (..., 3)."""
        seen = np.asarray(points, np.float64) @ self.matrix[:, :3].T + self.matrix[:, 3]
        return seen[..., :2] / seen[..., 2:], seen[..., 2]

    def plane_matrix(self, origin: ArrayLike, right: ArrayLike, down: ArrayLike) -> Floats:
        """Return the (3, 3) homography from pixels of a flat picture to pixels of the view.

        Args:
            origin: (3,) where the centre of its first pixel is in the world.
            right: (3,) metres from one of its columns to the next.
            down: (3,) metres from one of its rows to the next.
        """
        matrix = self.matrix
        columns = [matrix[:, :3] @ np.asarray(v, np.float64) for v in (right, down, origin)]
        columns[2] = columns[2] + matrix[:, 3]
        return np.stack(columns, -1)


def aim_camera(place: ArrayLike, yaw: float, pitch: float, roll: float = 0.0) -> Camera:
    """Return a camera turned by ``yaw`` to its right, up by ``pitch`` and clockwise by ``roll`` (radians)."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    right, back = np.array([cos, 0.0, sin]), np.array([-sin, 0.0, cos])
    up = np.array([0.0, 1.0, 0.0])
    back, up = np.cos(pitch) * back - np.sin(pitch) * up, np.cos(pitch) * up + np.sin(pitch) * back
    right, up = np.cos(roll) * right - np.sin(roll) * up, np.cos(roll) * up + np.sin(roll) * right
    return Camera(np.asarray(place, np.float64), np.stack([right, up, back]))
