"""The walk: feet that stay where they stand, knees and hips as people move them, the turn."""

from __future__ import annotations

import numpy as np
import pytest

from posewarper.demo.bones import REST, pose_figure
from posewarper.demo.gait import (
    BALL_AHEAD,
    HEEL_BACK,
    HIP_FLEXION,
    KNEE_FLEXION,
    SHANK,
    THIGH,
    TOE_OFF,
    Route,
    body_at,
    fourier_curve,
    plan_walk,
)

SECONDS = 4.5
TIMES = np.arange(0, SECONDS, 1 / 240)
STRAIGHT = TIMES < 1.5
SIDES = ("right", "left")


@pytest.fixture(scope="module")
def walk():
    return plan_walk(SECONDS)


@pytest.fixture(scope="module")
def body(walk):
    return body_at(walk, TIMES)


@pytest.fixture(scope="module")
def figure(walk):
    return pose_figure(walk, TIMES)


def runs(phase, low, high):
    """Stretches of moments between two phases, whole ones alone."""
    inside = (phase > low) & (phase < high)
    edges = np.flatnonzero(np.diff(inside.astype(int))) + 1
    pieces = np.split(np.arange(len(phase)), edges)
    return [p for p in pieces if inside[p[0]] and p[0] > 0 and p[-1] < len(phase) - 1]


def sole(figure, side, ahead):
    """Places (n, 3) of a point of a sole that is ``ahead`` of the ankle."""
    return figure.carry(f"{side}_foot", (ahead, 0.0, REST[f"{side}_foot"][2]))


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize(
    ("low", "high", "ahead"), [(0.005, 0.085, -HEEL_BACK), (0.095, 0.375, 0.0), (0.385, 0.615, BALL_AHEAD)]
)
def test_what_stands_on_the_ground_does_not_slide(body, figure, side, low, high, ahead):
    points = sole(figure, SIDES[side], ahead)
    stretches = runs(body.phases[side], low, high)
    assert len(stretches) >= 3
    for stretch in stretches:
        assert np.ptp(points[stretch], axis=0).max() < 1e-9
        assert abs(points[stretch, 1]).max() < 1e-9


@pytest.mark.parametrize("side", [0, 1])
def test_a_swinging_foot_is_above_the_ground_and_moves_without_a_jump(body, figure, side):
    swings = (body.phases[side] > TOE_OFF + 0.02) & (body.phases[side] < 0.98)
    for ahead in (-HEEL_BACK, BALL_AHEAD):
        assert sole(figure, SIDES[side], ahead)[swings, 1].min() > 0.004
    ankle = body.ankles[side]
    # Four metres a second is what an ankle does at this speed; a jump would be much more.
    assert 3.0 < np.linalg.norm(np.diff(ankle, axis=0), axis=1).max() * 240 < 5.5
    assert ankle[:, 1].max() < 0.32


def test_steps_carry_the_body_as_far_as_it_goes(walk):
    """From one print to the next of the same foot the path below the pelvis is as long as the stride."""
    cycle_times = np.interp(np.arange(1, 3) + 0.25, walk.cycles, walk.times)
    way = np.linalg.norm(np.diff(walk.at(walk.ground, cycle_times), axis=0))
    row = 1 - walk.first[0]
    stride = np.linalg.norm(np.diff(walk.prints[0][row : row + 2, :2], axis=0))
    assert stride == pytest.approx(way, abs=0.005)
    assert stride == pytest.approx(1.25, abs=0.03)  # metres, for somebody of 1.75 metres at 1.25 m/s
    assert way / np.diff(cycle_times)[0] == pytest.approx(Route().speed, rel=1e-3)


def knees(figure):
    """Flexion of the knees (2, n) in degrees, from the bones as they are."""
    angles = []
    for side in SIDES:
        thigh = figure.carry(f"{side}_thigh", REST[f"{side}_shank"]) - figure.carry(
            f"{side}_thigh", REST[f"{side}_thigh"]
        )
        shank = figure.carry(f"{side}_shank", REST[f"{side}_foot"]) - figure.carry(
            f"{side}_shank", REST[f"{side}_shank"]
        )
        angles.append(np.arccos(np.clip((thigh * shank).sum(1) / (THIGH * SHANK), -1, 1)))
    return np.rad2deg(angles)


def test_knees_bend_in_the_swing_and_are_nearly_straight_under_load(body, figure):
    bent = knees(figure)
    for side in (0, 1):
        phase = body.phases[side]
        swing = bent[side][STRAIGHT & (phase > TOE_OFF) & (phase < 0.9)]
        assert 50 < swing.max() < 72
        assert bent[side][STRAIGHT & (phase > 0.1) & (phase < 0.42)].max() < 25
        # As textbooks have it, within the differences between people.
        expected = np.rad2deg(fourier_curve(KNEE_FLEXION, phase[STRAIGHT]))
        assert abs(bent[side][STRAIGHT] - expected).mean() < 8


@pytest.mark.parametrize(("knots", "softness"), [(HIP_FLEXION, 2.0), (KNEE_FLEXION, 4.0)])
def test_few_fourier_terms_come_close_to_the_textbook(knots, softness):
    phase = np.array(list(knots)) / 100
    curve = np.rad2deg(fourier_curve(knots, phase))
    assert abs(curve - list(knots.values())).max() < softness
    np.testing.assert_allclose(fourier_curve(knots, phase + 1), np.deg2rad(curve), atol=1e-12)


def test_the_pelvis_bobs_twice_a_cycle_and_the_legs_reach_the_ground(body, walk):
    height = body.pelvis[STRAIGHT, 1]
    assert 0.015 < np.ptp(height) < 0.05
    assert 0.84 < height.mean() < 0.92
    # Highest over the standing leg: two tops in one cycle.
    one = (walk.at(walk.cycles, TIMES) >= 1) & (walk.at(walk.cycles, TIMES) < 2)
    rises = np.diff(np.sign(np.diff(body.pelvis[one, 1])))
    assert (rises < 0).sum() == 2


def test_the_walk_turns_past_the_camera_and_goes_back(body):
    degrees = np.rad2deg(body.heading)
    assert degrees[0] == pytest.approx(-4)
    assert degrees[-1] == pytest.approx(-174)
    assert (np.diff(degrees) <= 1e-9).all()
    x = body.pelvis[:, 0]
    assert x[0] < -2
    assert x.max() > 0.5
    assert x[-1] < -1
    # The head looks where the walk goes before the body does.
    turning = (degrees < -30) & (degrees > -120)
    assert (body.looks_at - body.heading)[turning].max() < -0.2


def test_arms_swing_against_the_legs(figure, walk):
    moments = np.interp([1.0, 1.5], walk.cycles, walk.times)  # the right heel strikes, then the left
    posed = pose_figure(walk, moments)
    hands = {side: posed.carry(f"{side}_hand", REST[f"{side}_hand"])[:, 0] for side in SIDES}
    feet = {side: posed.carry(f"{side}_foot", REST[f"{side}_foot"])[:, 0] for side in SIDES}
    assert feet["right"][0] > feet["left"][0] + 0.4
    assert hands["right"][0] < hands["left"][0] - 0.2
    assert hands["right"][1] > hands["left"][1] + 0.2
