"""The bones: of one length, turned without being bent, left where left is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from posewarper.demo.bones import BONES, FOREARM, REST, UPPER_ARM, pose_figure
from posewarper.demo.camera import aim_camera
from posewarper.demo.gait import HIP_HALF, SHANK, THIGH, plan_walk
from posewarper.skeletons import COCO

TIMES = np.arange(0, 4.5, 1 / 60)


@pytest.fixture(scope="module")
def figure():
    return pose_figure(plan_walk(4.5), TIMES)


def lengths(figure, a, b):
    points = figure.keypoints()
    gap = points[:, COCO.names.index(a)] - points[:, COCO.names.index(b)]
    return np.linalg.norm(gap, axis=1)


@pytest.mark.parametrize(
    ("a", "b", "metres"),
    [
        *((f"{s}_hip", f"{s}_knee", THIGH) for s in ("left", "right")),
        *((f"{s}_knee", f"{s}_ankle", SHANK) for s in ("left", "right")),
        *((f"{s}_shoulder", f"{s}_elbow", UPPER_ARM) for s in ("left", "right")),
        *((f"{s}_elbow", f"{s}_wrist", FOREARM) for s in ("left", "right")),
        ("left_hip", "right_hip", 2 * HIP_HALF),
        ("left_shoulder", "right_shoulder", 0.36),
        ("left_eye", "right_eye", 0.064),
    ],
)
def test_bones_keep_their_length(figure, a, b, metres):
    np.testing.assert_allclose(lengths(figure, a, b), metres, atol=1e-9)


def test_a_face_keeps_its_shape(figure):
    for a, b in itertools.combinations(COCO.names[:5], 2):
        assert np.ptp(lengths(figure, a, b)) < 1e-9


def test_bones_are_turned_and_not_bent(figure):
    products = figure.turns @ np.swapaxes(figure.turns, -1, -2)
    np.testing.assert_allclose(products, np.broadcast_to(np.eye(3), products.shape), atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(figure.turns), 1, atol=1e-9)


def test_a_bone_begins_where_the_one_above_ends(figure):
    for upper, lower in (
        ("right_thigh", "right_shank"),
        ("left_shank", "left_foot"),
        ("left_arm", "left_forearm"),
        ("right_forearm", "right_hand"),
        ("waist", "chest"),
    ):
        ends = figure.carry(upper, REST[lower])
        np.testing.assert_allclose(ends, figure.places[:, BONES.index(lower)], atol=1e-9)


def test_left_is_on_the_left_of_the_figure(figure):
    """Facing the camera, the figure's own left is on the right of the picture."""
    facing = np.argmin(abs(figure.turns[:, BONES.index("chest")][:, 2, 0] - 1))
    assert 1.9 < TIMES[facing] < 3.0
    xy, _ = aim_camera((0.0, 1.05, 5.3), 0.1, 0.0).project(figure.keypoints()[facing])
    at = dict(zip(COCO.names, xy, strict=True))
    for part in ("eye", "ear", "shoulder", "hip", "elbow", "wrist"):
        assert at[f"left_{part}"][0] > at[f"right_{part}"][0]
    assert at["right_ear"][0] < at["nose"][0] < at["left_ear"][0]
    # And upright: rows grow downwards.
    order = ("left_eye", "left_shoulder", "left_elbow", "left_hip", "left_knee", "left_ankle")
    assert np.all(np.diff([at[name][1] for name in order]) > 0)


def test_walking_to_the_right_the_nose_is_ahead_and_the_right_side_is_near(figure):
    points = dict(zip(COCO.names, np.swapaxes(figure.keypoints(), 0, 1), strict=True))
    away = TIMES < 1.4
    assert (points["nose"] - points["left_ear"])[away, 0].min() > 0.08
    for part in ("shoulder", "hip", "ear"):
        assert (points[f"right_{part}"] - points[f"left_{part}"])[away, 2].min() > 0.1
    # Knees bend forwards: they lie before the line from hip to ankle.
    for side in ("left", "right"):
        middle = (points[f"{side}_hip"] + points[f"{side}_ankle"]) / 2
        assert (points[f"{side}_knee"] - middle)[away, 0].min() > 0.0
