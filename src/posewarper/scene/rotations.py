"""Rotations in a right-handed frame, many at a time. Angles are radians, matrices turn column vectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from posewarper.structures import Floats


def about_x(angle: ArrayLike) -> Floats:
    """Return rotations (..., 3, 3) about x by angles (...), counter-clockwise from its tip."""
    return _about(angle, 1, 2)


def about_y(angle: ArrayLike) -> Floats:
    """Return rotations (..., 3, 3) about y by angles (...), counter-clockwise from its tip."""
    return _about(angle, 2, 0)


def about_z(angle: ArrayLike) -> Floats:
    """Return rotations (..., 3, 3) about z by angles (...), counter-clockwise from its tip."""
    return _about(angle, 0, 1)


def _about(angle: ArrayLike, a: int, b: int) -> Floats:
    """Return rotations that turn axis ``a`` towards axis ``b``."""
    angle = np.asarray(angle, np.float64)
    matrix = np.zeros((*angle.shape, 3, 3))
    matrix[..., range(3), range(3)] = 1.0
    matrix[..., a, a] = matrix[..., b, b] = np.cos(angle)
    matrix[..., b, a] = np.sin(angle)
    matrix[..., a, b] = -np.sin(angle)
    return matrix


def turn(matrix: Floats, vector: ArrayLike) -> Floats:
    """Turn vectors (..., 3) by matrices (..., 3, 3)."""
    return np.asarray((matrix @ np.asarray(vector, np.float64)[..., None])[..., 0])


def unit(vector: Floats) -> Floats:
    """Return vectors (..., 3) at length 1."""
    return np.asarray(vector / np.linalg.norm(vector, axis=-1, keepdims=True))
