"""The figure's bones: where each is and how it is turned at any moment of a walk, and the COCO keypoints.

In the frame of the standing body x points forward, y up and z to the figure's right; the origin lies on the
ground between the feet. Each bone keeps that orientation while the figure stands at rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from posewarper.demo.gait import (
    ANKLE_HEIGHT,
    BALL_AHEAD,
    HIP_HALF,
    SHANK,
    THIGH,
    Walk,
    about_x,
    about_y,
    about_z,
    body_at,
    turn,
    unit,
)
from posewarper.skeletons import COCO
from posewarper.structures import Floats

_SIDES = (("right", 1.0), ("left", -1.0))
_HIP_UP = ANKLE_HEIGHT + SHANK + THIGH  # 0.92
UPPER_ARM, FOREARM = 0.285, 0.25
SHOULDER_UP, SHOULDER_HALF = 1.415, 0.18

# Bone -> where it begins in the standing body.
REST: dict[str, tuple[float, float, float]] = {
    "pelvis": (0.0, _HIP_UP, 0.0),
    "waist": (-0.01, 1.04, 0.0),
    "chest": (-0.015, 1.18, 0.0),
    "neck": (-0.02, 1.46, 0.0),
    "head": (-0.005, 1.55, 0.0),
}
for _name, _sign in _SIDES:
    REST |= {
        f"{_name}_arm": (-0.012, SHOULDER_UP, _sign * SHOULDER_HALF),
        f"{_name}_forearm": (-0.012, SHOULDER_UP - UPPER_ARM, _sign * SHOULDER_HALF),
        f"{_name}_hand": (-0.012, SHOULDER_UP - UPPER_ARM - FOREARM, _sign * SHOULDER_HALF),
        f"{_name}_thigh": (0.0, _HIP_UP, _sign * HIP_HALF),
        f"{_name}_shank": (0.0, _HIP_UP - THIGH, _sign * HIP_HALF),
        f"{_name}_foot": (0.0, ANKLE_HEIGHT, _sign * HIP_HALF),
        f"{_name}_toes": (BALL_AHEAD, 0.012, _sign * HIP_HALF),
    }
BONES = tuple(REST)

# The place of a keypoint on the head, or the bone that begins at it, and how many metres of the figure may
# lie before it: a keypoint inside a limb is seen while the limb is.
_FACE = {
    "nose": ((0.118, 1.628, 0.0), 0.02),
    "right_eye": ((0.080, 1.656, 0.032), 0.02),
    "left_eye": ((0.080, 1.656, -0.032), 0.02),
    "right_ear": ((-0.004, 1.640, 0.078), 0.025),
    "left_ear": ((-0.004, 1.640, -0.078), 0.025),
}
_LIMBS = {
    "shoulder": ("arm", 0.085),
    "elbow": ("forearm", 0.07),
    "wrist": ("hand", 0.05),
    "hip": ("thigh", 0.145),
    "knee": ("shank", 0.10),
    "ankle": ("foot", 0.085),
}
FLESH = np.array([_FACE[n][1] if n in _FACE else _LIMBS[n.partition("_")[2]][1] for n in COCO.names])


@dataclass(frozen=True)
class Figure:
    """All bones at n moments.

    Args:
        places: (n, B, 3) where the bones of :data:`BONES` begin, in metres of the world.
        turns: (n, B, 3, 3) from the frame of the standing body to the world.
    """

    places: Floats
    turns: Floats

    def keypoints(self) -> Floats:
        """Return the COCO keypoints (n, 17, 3) in metres of the world."""
        points = [self._keypoint(name) for name in COCO.names]
        return np.stack(points, 1)

    def _keypoint(self, name: str) -> Floats:
        if name in _FACE:
            return self.carry("head", _FACE[name][0])
        side, _, part = name.partition("_")
        return self.places[:, BONES.index(f"{side}_{_LIMBS[part][0]}")]

    def carry(self, bone: str, point: ArrayLike) -> Floats:
        """Return (n, 3): a point (3,) of the standing body, carried by a bone."""
        b = BONES.index(bone)
        return self.places[:, b] + turn(self.turns[:, b], np.subtract(point, REST[bone]))


def pose_figure(walk: Walk, times: ArrayLike) -> Figure:
    """Return the figure at times (n,) in seconds: trunk and arms by angles, legs by where the feet are."""
    body = body_at(walk, times)
    wave = 2 * np.pi * body.phases[0]
    n = len(wave)
    places: dict[str, Floats] = {"pelvis": body.pelvis}
    turns: dict[str, Floats] = {"pelvis": body.pelvis_turn}
    deg = np.deg2rad
    # The chest turns against the pelvis and leans a little; the head looks where the walk goes.
    lead = 0.45 * (body.looks_at - body.heading)
    chest_yaw = body.heading + lead - deg(5.5) * np.cos(wave) * body.vigour
    chest = about_y(chest_yaw) @ about_x(deg(1.8) * np.sin(wave + 0.35))
    chest = chest @ about_z(deg(-4.0) + deg(1.2) * np.cos(2 * wave + 0.6))
    waist_yaw = 0.5 * (body.heading + chest_yaw)
    turns["waist"] = about_y(waist_yaw) @ about_z(np.full(n, deg(-4.5)))
    turns["chest"] = chest
    nod = deg(-7.0) + deg(1.5) * np.cos(2 * wave + 0.9)
    turns["head"] = about_y(body.looks_at) @ about_x(deg(1.2) * np.sin(wave)) @ about_z(nod)
    turns["neck"] = about_y(0.5 * (chest_yaw + body.looks_at)) @ about_z(np.full(n, deg(-12.0)))
    for parent, child in (("pelvis", "waist"), ("waist", "chest"), ("chest", "neck"), ("neck", "head")):
        places[child] = places[parent] + turn(turns[parent], np.subtract(REST[child], REST[parent]))
    for side, (name, sign) in enumerate(_SIDES):
        phase = 2 * np.pi * body.phases[side]
        _pose_arm(places, turns, name, sign, phase, body.vigour)
        hip = places["pelvis"] + turn(body.pelvis_turn, (0.0, 0.0, sign * HIP_HALF))
        foot = body.foot_turns[side]
        _pose_leg(places, turns, name, hip, body.ankles[side], body.pelvis_turn, foot)
        turns[f"{name}_foot"], places[f"{name}_foot"] = foot, body.ankles[side]
        toes = np.subtract(REST[f"{name}_toes"], REST[f"{name}_foot"])
        places[f"{name}_toes"] = body.ankles[side] + turn(foot, toes)
        turns[f"{name}_toes"] = foot @ about_z(body.toe_bends[side])
    return Figure(np.stack([places[b] for b in BONES], 1), np.stack([turns[b] for b in BONES], 1))


def _pose_arm(
    places: dict[str, Floats],
    turns: dict[str, Floats],
    name: str,
    sign: float,
    phase: Floats,
    vigour: Floats,
) -> None:
    """Swing an arm against the leg of its side: back when its own heel strikes."""
    deg = np.deg2rad
    swing = deg(2.0) - deg(22.0) * np.cos(phase) * vigour
    bend = deg(24.0) - deg(13.0) * np.cos(phase - 0.45) * vigour
    aside = deg(8.0) + deg(5.0) * (1 - vigour)
    upper = turns["chest"] @ about_x(-sign * aside) @ about_z(swing + deg(4.0))
    # Forearms turn inwards as they come up.
    lower = upper @ about_z(bend) @ about_y(sign * deg(18.0))
    places[f"{name}_arm"] = places["chest"] + turn(
        turns["chest"], np.subtract(REST[f"{name}_arm"], REST["chest"])
    )
    places[f"{name}_forearm"] = places[f"{name}_arm"] + turn(upper, (0.0, -UPPER_ARM, 0.0))
    places[f"{name}_hand"] = places[f"{name}_forearm"] + turn(lower, (0.0, -FOREARM, 0.0))
    turns[f"{name}_arm"], turns[f"{name}_forearm"] = upper, lower
    turns[f"{name}_hand"] = lower @ about_x(sign * deg(4.0)) @ about_z(np.full_like(phase, deg(8.0)))


def _pose_leg(
    places: dict[str, Floats],
    turns: dict[str, Floats],
    name: str,
    hip: Floats,
    ankle: Floats,
    pelvis_turn: Floats,
    foot_turn: Floats,
) -> None:
    """Bend a leg so that it joins hip and ankle (n, 3), the knee pointing between pelvis and foot."""
    down = ankle - hip
    apart = np.linalg.norm(down, axis=-1, keepdims=True)
    reach = np.clip(apart, 0.2, THIGH + SHANK)
    along = (THIGH**2 - SHANK**2 + reach**2) / (2 * reach)
    forward = np.sqrt(np.maximum(THIGH**2 - along**2, 0.0))
    down = down / apart
    # The heading of the foot, without its pitch: across is the axis on which it rolls.
    across = pelvis_turn[..., 2] + foot_turn[..., 2]
    hinge = unit(across - (across * down).sum(-1, keepdims=True) * down)
    knee = hip + along * down + forward * np.cross(-down, hinge)
    places[f"{name}_thigh"], places[f"{name}_shank"] = hip, knee
    turns[f"{name}_thigh"] = _upright(hip - knee, hinge)
    turns[f"{name}_shank"] = _upright(knee - ankle, hinge)


def _upright(up: Floats, right: Floats) -> Floats:
    """Return turns (n, 3, 3) whose y axis is ``up`` (n, 3) and whose z axis is ``right``, at right angles."""
    y = unit(up)
    return np.stack([np.cross(y, right), y, right], -1)
