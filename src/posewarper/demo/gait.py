"""How a person walks: a path with a turn, footprints that stay where they are, and angles over the cycle.

The world is right-handed, in metres: x to the right of the picture, y up, z towards the camera. A heading of
0 faces +x and -90 degrees faces the camera. A cycle goes from one strike of a heel (phase 0) to the next of
the same foot; the left foot is half a cycle behind the right one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter1d, maximum_filter1d, uniform_filter1d

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


THIGH, SHANK = 0.425, 0.415
HIP_HALF = 0.09  # half of the distance between the hips
# The sole, seen from the ankle: forward and up.
ANKLE_HEIGHT, HEEL_BACK, BALL_AHEAD, TOE_AHEAD = 0.08, 0.05, 0.13, 0.20
TOE_OFF = 0.62  # phase at which the foot leaves the ground
UNDER_HIP = 0.25  # phase at which the standing foot lies below its hip

# Degrees at percents of the cycle, as textbooks of biomechanics plot them for walking at ease: the hip swings
# between 30 forward and 10 back, the knee gives a little under load and bends by 60 in the swing.
HIP_FLEXION = {0: 30, 10: 26, 20: 17, 30: 8, 40: -1, 50: -9, 56: -9, 62: -2, 70: 13, 80: 27, 88: 32, 95: 31}
KNEE_FLEXION = {
    0: 5,
    8: 14,
    14: 18,
    22: 15,
    30: 9,
    40: 5,
    50: 11,
    60: 36,
    68: 56,
    73: 60,
    80: 50,
    90: 19,
    96: 6,
}
# Of the sole against the ground: the heel comes first, the toes leave last. Not by Fourier terms, for a foot
# that stands must stand still.
_SOLE = (
    *((0.0, 21), (0.04, 10), (0.09, 0), (0.20, 0), (0.38, 0), (0.45, -4), (0.51, -13), (0.57, -34)),
    *((0.62, -57), (0.68, -64), (0.74, -43), (0.80, -17), (0.86, 1), (0.93, 16), (0.97, 21), (1.0, 21)),
)
_HARMONICS = 5
_STEPS = 600  # of the plan, a second
_WARM_UP = 2.0  # seconds planned before the clip begins and after it ends, for whole steps at its ends


@dataclass(frozen=True)
class Route:
    """Where somebody walks to: straight, a turn, and straight on.

    Args:
        start: (x, z) below the pelvis at time 0, in metres.
        headings: before and after the turn, in degrees.
        turn_at: seconds at which the turn begins.
        turn_for: seconds that it takes.
        speed: metres a second on the straights.
        turn_speed: metres a second in the middle of the turn.
    """

    start: tuple[float, float] = (-2.15, -0.35)
    headings: tuple[float, float] = (-4.0, -174.0)
    turn_at: float = 1.65
    turn_for: float = 1.75
    speed: float = 1.25
    turn_speed: float = 0.72


@dataclass(frozen=True)
class Body:
    """Where the parts of the body are at n moments; sides are (right, left).

    Args:
        pelvis: (n, 3) the middle between the hips.
        pelvis_turn: (n, 3, 3) from the frame of the body (forward, up, right) to the world.
        heading: (n,) radians.
        looks_at: (n,) radians, the heading of the head, which turns first.
        ankles: (2, n, 3).
        foot_turns: (2, n, 3, 3).
        toe_bends: (2, n) radians by which the toes are bent up.
        phases: (2, n) of the cycle, from 0 to 1.
        vigour: (n,) speed as a share of that on the straights, which the arms follow.
    """

    pelvis: Floats
    pelvis_turn: Floats
    heading: Floats
    looks_at: Floats
    ankles: Floats
    foot_turns: Floats
    toe_bends: Floats
    phases: Floats
    vigour: Floats


@dataclass(frozen=True)
class Walk:
    """A planned walk, from which :func:`body_at` reads any moment.

    Args:
        times: (m,) evenly spaced seconds.
        ground: (m, 2) xz below the pelvis.
        heading: (m,) radians.
        vigour: (m,) speed as a share of that on the straights.
        cycles: (m,) cycles of the right foot done, rising.
        height: (m,) of the pelvis.
        prints: for each side (k, 3): x and z below the ankle and yaw of each footprint.
        first: for each side the number of the cycle in which its first footprint is made.
    """

    times: Floats
    ground: Floats
    heading: Floats
    vigour: Floats
    cycles: Floats
    height: Floats
    prints: tuple[Floats, Floats]
    first: tuple[int, int]

    def at(self, values: Floats, times: ArrayLike) -> Floats:
        """Interpolate something planned, (m,) or (m, c), at times (n,)."""
        times = np.asarray(times, np.float64)
        columns = values.reshape(len(values), -1)
        read = np.stack([np.interp(times, self.times, column) for column in columns.T], -1)
        return read.reshape(*times.shape, *values.shape[1:])


def fourier_curve(knots: Mapping[int, float], phase: ArrayLike) -> Floats:
    """Return the angle in radians at phases (...) of few Fourier terms through degrees at percents."""
    terms = _fourier_terms(tuple(knots.items()))
    return np.asarray(_basis(np.asarray(phase, np.float64)) @ terms)


@cache
def _fourier_terms(knots: tuple[tuple[int, float], ...]) -> Floats:
    at, degrees = np.array(knots, np.float64).T
    return np.asarray(np.linalg.lstsq(_basis(at / 100), np.deg2rad(degrees), rcond=None)[0])


def _basis(phase: Floats) -> Floats:
    angles = 2 * np.pi * phase[..., None] * np.arange(1, _HARMONICS + 1)
    return np.concatenate([np.ones((*phase.shape, 1)), np.cos(angles), np.sin(angles)], -1)


def plan_walk(seconds: float, route: Route | None = None) -> Walk:
    """Plan a walk: the path first, then footprints along it, then how high the pelvis can be above them."""
    route = route or Route()
    times = np.arange(-_WARM_UP, seconds + _WARM_UP, 1 / _STEPS)
    share = np.clip((times - route.turn_at) / route.turn_for, 0, 1)
    eased = share**3 * (10 - 15 * share + 6 * share**2)
    before, after = np.deg2rad(route.headings)
    heading = before + (after - before) * eased
    speed = route.speed + (route.turn_speed - route.speed) * np.sin(np.pi * eased) ** 2
    steps = speed[:, None] * np.stack([np.cos(heading), -np.sin(heading)], -1) / _STEPS
    ground = np.cumsum(steps, 0)
    ground += route.start - ground[np.searchsorted(times, 0.0)]
    # Who walks slower takes shorter steps, and fewer.
    cycles = np.cumsum(speed / (0.56 + 0.55 * speed)) / _STEPS
    cycles += 0.85 - cycles[np.searchsorted(times, 0.0)]
    vigour = speed / route.speed
    prints, first = _place_prints(times, ground, heading, cycles, vigour)
    walk = Walk(times, ground, heading, vigour, cycles, np.zeros(len(times)), prints, first)
    return replace(walk, height=_pelvis_height(walk))


def _side_cycles(cycles: Floats, side: int) -> Floats:
    return cycles + 0.5 * side


def _place_prints(
    times: Floats, ground: Floats, heading: Floats, cycles: Floats, vigour: Floats
) -> tuple[tuple[Floats, Floats], tuple[int, int]]:
    """Put each footprint below where its hip is when it passes over the foot, toes turned out a little.

    Who is slow, as in a turn, stands wider.
    """
    prints, first = [], []
    for side, sign in enumerate((1, -1)):
        done = _side_cycles(cycles, side)
        numbers = np.arange(np.ceil(done[0] - UNDER_HIP), np.floor(done[-1] - UNDER_HIP) + 1)
        moments = np.interp(numbers + UNDER_HIP, done, times)
        x, z, yaw, pace = (np.interp(moments, times, v) for v in (*ground.T, heading, vigour))
        aside = sign * (0.075 + 0.10 * (1 - pace))
        x, z = x + aside * np.sin(yaw), z + aside * np.cos(yaw)
        prints.append(np.stack([x, z, yaw - sign * np.deg2rad(6)], -1))
        first.append(int(numbers[0]))
    return (prints[0], prints[1]), (first[0], first[1])


_sole_pitch = PchipInterpolator(*np.array(_SOLE, np.float64).T)


def _foot(walk: Walk, side: int, cycles: Floats) -> tuple[Floats, Floats, Floats]:
    """Return ankle (n, 3), turn of the foot (n, 3, 3) and bend of the toes (n,)."""
    number = np.floor(cycles).astype(int)
    phase = cycles - number
    pitch = np.deg2rad(_sole_pitch(phase))
    row = np.clip(number - walk.first[side], 0, len(walk.prints[side]) - 2)
    here, there = walk.prints[side][row], walk.prints[side][row + 1]
    swing = np.clip((phase - TOE_OFF) / (1 - TOE_OFF), 0, 1)
    yaw = here[:, 2] + (there[:, 2] - here[:, 2]) * swing**2 * (3 - 2 * swing)
    standing = _standing_ankle(here, pitch)
    left = _standing_ankle(here, np.full_like(pitch, np.deg2rad(_sole_pitch(TOE_OFF))))
    lands = _standing_ankle(there, np.full_like(pitch, np.deg2rad(_sole_pitch(1.0))))
    progress, lift = _swing_shape(phase)
    swinging = left + (lands - left) * progress[:, None]
    swinging[:, 1] = left[:, 1] + (lands[:, 1] - left[:, 1]) * swing + lift
    ankle = np.where((phase < TOE_OFF)[:, None], standing, swinging)
    relax = np.clip((phase - TOE_OFF) / 0.12, 0, 1)
    bend = np.minimum(np.maximum(-pitch, 0), np.deg2rad(50)) * (1 - relax * relax * (3 - 2 * relax))
    return ankle, about_y(yaw) @ about_z(pitch), bend


def _standing_ankle(prints: Floats, pitch: Floats) -> Floats:
    """Return the ankles (n, 3) of feet on their prints (n, 3) that roll over heel or ball by pitch (n,)."""
    pivot = np.where(pitch > 0, -HEEL_BACK, BALL_AHEAD)
    ahead = pivot - pivot * np.cos(pitch) - ANKLE_HEIGHT * np.sin(pitch)
    up = ANKLE_HEIGHT * np.cos(pitch) - pivot * np.sin(pitch)
    yaw = prints[:, 2]
    return np.stack([prints[:, 0] + ahead * np.cos(yaw), up, prints[:, 1] - ahead * np.sin(yaw)], -1)


def _swing_shape(phase: Floats) -> tuple[Floats, Floats]:
    """Return how far an ankle has swung, from 0 to 1, and how high above the straight line it is, in metres.

    Both follow from the angles of hip and knee as they are in walking straight at a stride of 1.25 metres.
    """

    def ankle(phase: Floats) -> tuple[Floats, Floats]:
        hip, shank = (
            fourier_curve(HIP_FLEXION, phase),
            fourier_curve(HIP_FLEXION, phase) - fourier_curve(KNEE_FLEXION, phase),
        )
        ahead = THIGH * np.sin(hip) + SHANK * np.sin(shank) + 1.25 * phase
        return ahead, -THIGH * np.cos(hip) - SHANK * np.cos(shank)

    ends = ankle(np.array([TOE_OFF, 1.0]))
    phase = np.clip(phase, TOE_OFF, 1.0)
    share = (phase - TOE_OFF) / (1 - TOE_OFF)
    ahead, up = ankle(phase)
    progress = (ahead - ends[0][0]) / (ends[0][1] - ends[0][0])
    line = ends[1][0] + (ends[1][1] - ends[1][0]) * share
    # A little more than the curves give, for a foot in a shoe.
    return progress, up - line + 0.04 * np.sin(np.pi * share**0.8) ** 2


def _pelvis_height(walk: Walk) -> Floats:
    """Return the height (m,) of the pelvis: as the legs carry it when nearly straight, smoothed."""
    body = body_at(walk, walk.times)
    highest = np.full((2, len(walk.times)), np.inf)
    for side, sign in enumerate((1, -1)):
        hip = body.pelvis + turn(body.pelvis_turn, (0.0, 0.0, sign * HIP_HALF))
        apart = np.linalg.norm((hip - body.ankles[side])[:, [0, 2]], axis=-1)
        above = body.ankles[side][:, 1] - (hip - body.pelvis)[:, 1]
        for row, share in enumerate((0.996, 0.9985)):
            reach = share * (THIGH + SHANK)
            height = above + np.sqrt(np.maximum(reach**2 - apart**2, 0.0))
            highest[row] = np.minimum(highest[row], height)
    smooth = gaussian_filter1d(highest[0], 0.05 * _STEPS, mode="nearest")
    # What is beyond reach is taken off, smoothed over less than it is widened before, so that it is enough.
    wide, window = int(0.16 * _STEPS), int(0.08 * _STEPS)
    beyond = maximum_filter1d(np.maximum(smooth - highest[1], 0), wide)
    return np.asarray(smooth - uniform_filter1d(uniform_filter1d(beyond, window), window))


def body_at(walk: Walk, times: ArrayLike) -> Body:
    """Return where pelvis, feet and headings are at times (n,) in seconds."""
    times = np.asarray(times, np.float64)
    cycles, heading, vigour = (walk.at(v, times) for v in (walk.cycles, walk.heading, walk.vigour))
    phases = np.stack([_side_cycles(cycles, side) % 1.0 for side in (0, 1)])
    wave = 2 * np.pi * phases[0]
    # The hip of the leg in front is ahead, that of the swinging leg lower, the weight over the standing one.
    yaw = np.deg2rad(6.0) * np.cos(wave) * vigour
    tilt = np.deg2rad(3.5) * np.sin(wave + 0.35)
    sway = 0.018 * np.sin(wave - 0.3)
    ground = walk.at(walk.ground, times)
    pelvis = np.stack([ground[:, 0], walk.at(walk.height, times), ground[:, 1]], -1)
    pelvis[:, 0] += sway * np.sin(heading)
    pelvis[:, 2] += sway * np.cos(heading)
    pelvis_turn = about_y(heading + yaw) @ about_x(-tilt) @ about_z(np.full_like(yaw, np.deg2rad(-5.0)))
    feet = [_foot(walk, side, _side_cycles(cycles, side)) for side in (0, 1)]
    ahead = walk.at(walk.heading, times + 0.22)
    return Body(
        pelvis,
        pelvis_turn,
        heading,
        heading + np.clip(ahead - heading, -0.55, 0.55),
        np.stack([foot[0] for foot in feet]),
        np.stack([foot[1] for foot in feet]),
        np.stack([foot[2] for foot in feet]),
        phases,
        vigour,
    )
