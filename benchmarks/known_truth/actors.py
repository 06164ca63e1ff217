"""Who is filmed: people and a dog, whose joints are turned by angles, in the demo's figure and its tiles.

Figures stand and move as in :mod:`posewarper.demo.gait`: x ahead, y up, z to the right, in metres. A positive
turn about z swings a limb that hangs down forward.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from posewarper.demo.bones import BONES, FLESH, REST, Figure, pose_figure
from posewarper.demo.figure import (
    PARTS,
    band,
    make_arms,
    make_head,
    make_rucksack,
    make_shirt,
    make_shoes,
    make_trousers,
    mix,
    part_at,
    step,
)
from posewarper.demo.gait import ANKLE_HEIGHT, Route, about_x, about_y, about_z, plan_walk, turn
from posewarper.demo.surfaces import Surface, Tube, chain, cover, join, tube
from posewarper.skeletons import COCO, Skeleton
from posewarper.structures import Floats

Pose = Callable[[Floats], Figure]
_SIDES = (("right", 1.0), ("left", -1.0))


@dataclass(frozen=True)
class Actor:
    """Somebody who is filmed.

    Args:
        skeleton: the K keypoints.
        surface: the tiles.
        pose: times (n,) in seconds -> the figure.
        keypoints: figure at n moments -> (n, K, 3) in metres of the world.
        flesh: (K,) metres of the figure that may lie before a keypoint while it is seen.
    """

    skeleton: Skeleton
    surface: Surface
    pose: Pose
    keypoints: Callable[[Figure], Floats]
    flesh: Floats


@dataclass(frozen=True)
class Course:
    """Where a body goes: ground (n, 2) xz below it, heading (n,), and how far its lowest sole is up (n,)."""

    ground: Floats
    heading: Floats
    above: Floats


# People

_CLOTHES = ("trunk", "pelvis", "rucksack", "right_arm", "left_arm", "right_thigh", "left_thigh")
_CLOTHES += ("right_shank", "left_shank")
DYES = {
    "red": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "green": ((0.1, 0.9, 0.0), (0.75, 0.2, 0.05), (0.0, 0.1, 0.8)),
    "blue": ((0.0, 0.2, 0.8), (0.2, 0.5, 0.3), (0.8, 0.1, 0.1)),
    "grey": ((0.4, 0.4, 0.2), (0.4, 0.4, 0.2), (0.3, 0.4, 0.3)),
}


def dress(seed: int, dye: str, *, rucksack: bool = False) -> Surface:
    """Return the demo's figure with folds of its own, its clothes dyed in one of :data:`DYES`."""
    rng = np.random.default_rng([seed, 5])
    parts = [*make_shirt(rng), *make_trousers(rng), *make_shoes(), *make_head(rng), *make_arms()]
    surface = join([*parts, *(make_rucksack() if rucksack else ())])
    clothes = np.isin(surface.parts, [PARTS.index(name) for name in _CLOTHES])
    colours = surface.colours.copy()
    colours[clothes] = np.clip(colours[clothes] @ np.array(DYES[dye]).T, 0, 1)
    return replace(surface, colours=colours)


def make_person(surface: Surface, pose: Pose) -> Actor:
    """Return a person with COCO's keypoints."""
    return Actor(COCO, surface, pose, Figure.keypoints, FLESH)


def walk_along(route: Route, seconds: float) -> Pose:
    """Return the demo's walk along a route."""
    walk = plan_walk(seconds, route)
    return lambda times: pose_figure(walk, times)


def run_around(radius: tuple[float, float], centre: tuple[float, float], speed: float, start: float) -> Pose:
    """Return a run along an ellipse with radii and centre (x, z) in metres, from an angle in radians on."""

    def pose(times: Floats) -> Figure:
        course = _ellipse(times, radius, centre, speed, start)
        cycles = times * speed / 2.1
        wave = 2 * np.pi * cycles
        angles = {"lean": np.full_like(times, np.deg2rad(9)), "twist": np.deg2rad(-10) * np.cos(wave)}
        for name, sign in _SIDES:
            own = cycles + 0.25 * (1 - sign)
            ahead, phase = np.cos(2 * np.pi * own), own % 1
            folded = np.exp(-(((phase - 0.70) / 0.14) ** 2)) + np.exp(-(((phase + 0.30) / 0.14) ** 2))
            angles[f"{name}_thigh"] = np.deg2rad(14 + 36 * ahead)
            angles[f"{name}_knee"] = np.deg2rad(18 + 82 * folded)
            angles[f"{name}_ankle"] = np.deg2rad(-10 + 18 * np.cos(2 * np.pi * own + 0.6))
            angles[f"{name}_swing"] = np.deg2rad(-4 - 38 * ahead)
            angles[f"{name}_elbow"] = np.deg2rad(88 - 16 * ahead)
        above = 0.05 * (1 - np.cos(2 * wave + 0.5)) / 2
        return pose_person(replace(course, above=above), angles)

    return pose


def dance(centre: tuple[float, float], seed: int) -> Pose:
    """Return a dance on the spot: jumps with legs apart, arms thrown up and across the body, turns."""
    rng = np.random.default_rng([seed, 6])
    rates, phases = rng.uniform(0.55, 1.15, 12), rng.uniform(0, 2 * np.pi, 12)

    def pose(times: Floats) -> Figure:
        wave = np.sin(2 * np.pi * rates[:, None] * times + phases[:, None])
        jump = (times / 1.1) % 1.0  # the first half in the air
        above = np.where(jump < 0.45, 0.30 * 4 * (jump / 0.45) * (1 - jump / 0.45), 0.0)
        air = above / 0.30
        crouch = np.exp(-(((jump - 0.88) / 0.09) ** 2)) + np.exp(-(((jump - 0.55) / 0.08) ** 2))
        ground = np.stack([centre[0] + 0.25 * wave[0], np.full_like(times, centre[1])], -1)
        heading = np.deg2rad(-90 + 55 * wave[1] + 25 * wave[2])
        angles = {
            "lean": np.deg2rad(6 + 6 * wave[3] + 14 * crouch),
            "twist": np.deg2rad(24) * wave[4],
            "tilt": np.deg2rad(8) * wave[5],
            "looks": np.deg2rad(30) * wave[6],
        }
        for row, (name, sign) in enumerate(_SIDES):
            lift = np.clip(wave[7 + row], 0, 1) * (1 - air)
            angles[f"{name}_thigh"] = np.deg2rad(6 + 50 * lift + 42 * crouch + 10 * air)
            angles[f"{name}_splay"] = np.deg2rad(5 + 24 * air)
            angles[f"{name}_knee"] = np.deg2rad(10 + 62 * lift + 80 * crouch + 22 * air)
            angles[f"{name}_ankle"] = np.deg2rad(8 * lift + 34 * crouch - 22 * air)
            angles[f"{name}_swing"] = np.deg2rad(24 + 42 * wave[9 + row])
            angles[f"{name}_aside"] = np.deg2rad(46 + 52 * sign * wave[11 - row] + 30 * air)
            angles[f"{name}_elbow"] = np.deg2rad(62 + 44 * wave[3 + row])
        return pose_person(Course(ground, heading, above), angles)

    return pose


def spin(centre: tuple[float, float], turns: float, seconds: float) -> Pose:
    """Return somebody who turns about themselves, stops twice, and holds their arms before the body."""

    def pose(times: Floats) -> Figure:
        share = times / seconds
        heading = 2 * np.pi * turns * (share - 0.9 * np.sin(4 * np.pi * share) / (4 * np.pi)) - 1.2
        wave = 2 * np.pi * 1.6 * times
        sway = 0.06 * np.sin(2 * np.pi * 0.4 * times)
        ground = np.stack([centre[0] + sway, centre[1] + 0.5 * sway], -1)
        angles = {"lean": np.full_like(times, np.deg2rad(3)), "twist": np.deg2rad(8) * np.sin(wave / 2)}
        for name, sign in _SIDES:
            lift = np.clip(sign * np.sin(wave), 0, 1)
            angles[f"{name}_thigh"] = np.deg2rad(3 + 24 * lift)
            angles[f"{name}_splay"] = np.full_like(times, np.deg2rad(4))
            angles[f"{name}_knee"] = np.deg2rad(6 + 46 * lift)
            angles[f"{name}_swing"] = np.deg2rad(22 + 16 * np.sin(wave / 3 + sign))
            angles[f"{name}_aside"] = np.deg2rad(14 + 8 * np.sin(wave / 4))
            angles[f"{name}_elbow"] = np.deg2rad(64 + 30 * np.sin(wave / 3 + 2 * sign))
        return pose_person(Course(ground, heading, np.zeros_like(times)), angles)

    return pose


def pose_person(course: Course, angles: Mapping[str, Floats]) -> Figure:
    """Return a person at n moments.

    Args:
        course: where the body is; the lowest sole stands ``above`` the ground.
        angles: radians (n,), 0 where left out: ``lean`` (forward), ``twist`` (of the chest), ``tilt``
            (to the left), ``looks``; of each side ``thigh``, ``splay``, ``knee``, ``ankle``, ``swing``,
            ``aside`` and ``elbow``.
    """
    n = len(course.heading)

    def of(name: str) -> Floats:
        return np.broadcast_to(angles.get(name, 0.0), (n,))

    heading, lean, twist = course.heading, of("lean"), of("twist")
    turns: dict[str, Floats] = {"pelvis": about_y(heading - 0.3 * twist) @ about_z(-0.4 * lean)}
    turns["waist"] = about_y(heading + 0.4 * twist) @ about_x(0.5 * of("tilt")) @ about_z(-0.8 * lean)
    turns["chest"] = about_y(heading + twist) @ about_x(of("tilt")) @ about_z(-lean)
    looks = heading + 0.5 * twist + of("looks")
    turns["neck"] = about_y(0.5 * (heading + twist + looks)) @ about_z(-0.5 * lean - np.deg2rad(10))
    turns["head"] = about_y(looks) @ about_x(0.4 * of("tilt")) @ about_z(np.full(n, np.deg2rad(-6)))
    places: dict[str, Floats] = {"pelvis": np.zeros((n, 3))}
    _hang(places, turns, ("pelvis", "waist", "chest", "neck", "head"), REST)
    for name, sign in _SIDES:
        arm = turns["chest"] @ about_x(-sign * (of(f"{name}_aside") + np.deg2rad(8)))
        turns[f"{name}_arm"] = arm = arm @ about_z(of(f"{name}_swing"))
        lower = arm @ about_z(of(f"{name}_elbow")) @ about_y(np.full(n, sign * np.deg2rad(25)))
        turns[f"{name}_forearm"] = lower
        turns[f"{name}_hand"] = lower @ about_z(np.full(n, np.deg2rad(8)))
        thigh = turns["pelvis"] @ about_x(-sign * of(f"{name}_splay")) @ about_z(of(f"{name}_thigh"))
        turns[f"{name}_thigh"] = thigh
        turns[f"{name}_shank"] = shank = thigh @ about_z(-of(f"{name}_knee"))
        turns[f"{name}_foot"] = turns[f"{name}_toes"] = shank @ about_z(of(f"{name}_ankle"))
        _hang(places, turns, ("chest", f"{name}_arm", f"{name}_forearm", f"{name}_hand"), REST)
        leg = (f"{name}_thigh", f"{name}_shank", f"{name}_foot", f"{name}_toes")
        _hang(places, turns, ("pelvis", *leg), REST)
    soles = [
        places[f"{name}_foot"][:, 1] + turn(turns[f"{name}_foot"], (x, -ANKLE_HEIGHT, 0.0))[:, 1]
        for name, _ in _SIDES
        for x in (-0.05, 0.20)
    ]
    return _set_down(places, turns, course, np.min(soles, axis=0), REST)


def _hang(
    places: dict[str, Floats],
    turns: Mapping[str, Floats],
    bones: tuple[str, ...],
    rest: Mapping[str, tuple[float, float, float]],
) -> None:
    """Put each bone where the one before it carries it."""
    for parent, child in pairwise(bones):
        places[child] = places[parent] + turn(turns[parent], np.subtract(rest[child], rest[parent]))


def _set_down(
    places: Mapping[str, Floats],
    turns: Mapping[str, Floats],
    course: Course,
    lowest: Floats,
    rest: Mapping[str, tuple[float, float, float]],
) -> Figure:
    """Move a body whose lowest point (n,) is known to where it goes, as a figure of the demo's bones."""
    x, z = course.ground.T
    moved = np.stack([x, course.above - lowest, z], -1)
    # Tiles are carried relative to the place of the person's bone at rest.
    off = {b: turn(turns[b], np.subtract(REST[b], rest[b])) for b in BONES}
    return Figure(
        np.stack([places[b] + moved + off[b] for b in BONES], 1), np.stack([turns[b] for b in BONES], 1)
    )


def _ellipse(
    times: Floats, radius: tuple[float, float], centre: tuple[float, float], speed: float, start: float
) -> Course:
    """Return a course along an ellipse, seen from above clockwise, at an even speed."""
    fine = np.linspace(start, start + 8 * np.pi, 4001)
    x, z = centre[0] + radius[0] * np.cos(fine), centre[1] + radius[1] * np.sin(fine)
    way = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(z)))])
    # A moment before the beginning belongs to the first exposure.
    angle = np.interp(times * speed, way, fine) + np.minimum(times, 0) * speed / radius[0]
    ground = np.stack([centre[0] + radius[0] * np.cos(angle), centre[1] + radius[1] * np.sin(angle)], -1)
    ahead = np.stack([-radius[0] * np.sin(angle), radius[1] * np.cos(angle)], -1)
    return Course(ground, np.arctan2(-ahead[:, 1], ahead[:, 0]), np.zeros_like(times))


# A dog, whose bones bear the names of those of a person: arms are its front legs, toes its tail.

_DOG: dict[str, tuple[float, float, float]] = {
    "pelvis": (-0.28, 0.56, 0.0),
    "waist": (-0.06, 0.57, 0.0),
    "chest": (0.14, 0.56, 0.0),
    "neck": (0.26, 0.62, 0.0),
    "head": (0.44, 0.80, 0.0),
    "right_toes": (-0.33, 0.61, 0.0),
    "left_toes": (-0.52, 0.61, 0.0),
}
for _name, _sign in _SIDES:
    _DOG |= {
        f"{_name}_arm": (0.20, 0.52, _sign * 0.095),
        f"{_name}_forearm": (0.20, 0.33, _sign * 0.095),
        f"{_name}_hand": (0.20, 0.14, _sign * 0.095),
        f"{_name}_thigh": (-0.27, 0.55, _sign * 0.09),
        f"{_name}_shank": (-0.27, 0.34, _sign * 0.09),
        f"{_name}_foot": (-0.27, 0.15, _sign * 0.09),
    }

# Keypoint -> the bone that carries it, its place in the standing dog, and the flesh before it.
_DOG_KEYPOINTS: dict[str, tuple[str, tuple[float, float, float], float]] = {
    "left_eye": ("head", (0.52, 0.845, -0.045), 0.025),
    "right_eye": ("head", (0.52, 0.845, 0.045), 0.025),
    "nose": ("head", (0.675, 0.79, 0.0), 0.03),
    "neck": ("neck", (0.26, 0.64, 0.0), 0.13),
    "tail_base": ("pelvis", (-0.34, 0.615, 0.0), 0.10),
}
for _name in ("left", "right"):
    for _part, _bone, _end, _flesh in (
        ("shoulder", "arm", "arm", 0.11),
        ("elbow", "forearm", "forearm", 0.07),
        ("front_paw", "hand", None, 0.055),
        ("hip", "thigh", "thigh", 0.12),
        ("knee", "shank", "shank", 0.08),
        ("back_paw", "foot", None, 0.055),
    ):
        _x, _y, _z = _DOG[f"{_name}_{_bone}"]
        _place = (_x, _y, _z) if _end else (_x + 0.03, 0.035, _z)
        _DOG_KEYPOINTS[f"{_name}_{_part}"] = f"{_name}_{_bone}", _place, _flesh

_ROW = {name: k for k, name in enumerate(_DOG_KEYPOINTS)}
_LEGS = (("shoulder", "elbow", "front_paw"), ("hip", "knee", "back_paw"))
DOG = Skeleton(
    tuple(_DOG_KEYPOINTS),
    tuple(
        (_ROW[a], _ROW[b])
        for a, b in (
            *(("nose", "left_eye"), ("nose", "right_eye"), ("nose", "neck"), ("neck", "tail_base")),
            *(
                (f"{side}_{one}", f"{side}_{other}")
                for side in ("left", "right")
                for leg in _LEGS
                for one, other in pairwise(leg)
            ),
            *(("neck", "left_shoulder"), ("neck", "right_shoulder")),
            *(("tail_base", "left_hip"), ("tail_base", "right_hip")),
        )
    ),
    name="dog",
)


def make_dog(pose: Pose) -> Actor:
    """Return a spotted dog with 17 keypoints."""

    def keypoints(figure: Figure) -> Floats:
        return np.stack([figure.carry(bone, place) for bone, place, _ in _DOG_KEYPOINTS.values()], 1)

    flesh = np.array([thick for _, _, thick in _DOG_KEYPOINTS.values()])
    return Actor(DOG, _dog_surface(), pose, keypoints, flesh)


def trot(radius: tuple[float, float], centre: tuple[float, float], speed: float, start: float) -> Pose:
    """Return a trot along an ellipse: front and back legs of opposite sides go together."""

    def pose(times: Floats) -> Figure:
        course = _ellipse(times, radius, centre, speed, start)
        n = len(times)
        cycles = times * speed / 0.85
        wave = 2 * np.pi * cycles
        deg = np.deg2rad
        turns = {
            "pelvis": about_y(course.heading - deg(4) * np.cos(wave)) @ about_z(deg(2) * np.sin(2 * wave)),
            "waist": about_y(course.heading),
            "chest": about_y(course.heading + deg(4) * np.cos(wave)) @ about_z(deg(-2) * np.sin(2 * wave)),
            "neck": about_y(course.heading) @ about_z(deg(3) * np.sin(2 * wave + 0.8)),
        }
        looks = course.heading + deg(18) * np.sin(2 * np.pi * 0.7 * times)
        turns["head"] = about_y(looks) @ about_z(deg(-8 + 4 * np.sin(2 * wave + 0.4)))
        wag = deg(34) * np.sin(2 * np.pi * 2.3 * times)
        turns["right_toes"] = turns["pelvis"] @ about_z(np.full(n, deg(-28))) @ about_y(0.5 * wag)
        turns["left_toes"] = turns["right_toes"] @ about_z(np.full(n, deg(-22))) @ about_y(wag)
        places: dict[str, Floats] = {"pelvis": np.zeros((n, 3))}
        _hang(places, turns, ("pelvis", "waist", "chest", "neck", "head"), _DOG)
        _hang(places, turns, ("pelvis", "right_toes", "left_toes"), _DOG)
        paws = []
        for name, sign in _SIDES:
            for front in (True, False):
                own = cycles + 0.25 * (1 - (sign if front else -sign))
                ahead = np.cos(2 * np.pi * own)
                folded = np.clip(np.sin(2 * np.pi * own + np.pi), 0, 1) ** 1.5
                bones = [f"{name}_{b}" for b in (_FRONT if front else _BACK)]
                upper = deg(-22 + 26 * ahead) if front else deg(26 + 24 * ahead)
                middle = deg(24 + 62 * folded) if front else deg(-52 - 46 * folded)
                lower = deg(-4 - 60 * folded) if front else deg(32 + 34 * folded)
                root = "chest" if front else "pelvis"
                turns[bones[0]] = turns[root] @ about_z(upper)
                turns[bones[1]] = turns[bones[0]] @ about_z(middle)
                turns[bones[2]] = turns[bones[1]] @ about_z(lower)
                _hang(places, turns, (root, *bones), _DOG)
                paw = np.subtract((_DOG[bones[2]][0], 0.0, _DOG[bones[2]][2]), _DOG[bones[2]])
                paws.append(places[bones[2]][:, 1] + turn(turns[bones[2]], paw)[:, 1])
        return _set_down(places, turns, course, np.min(paws, axis=0), _DOG)

    return pose


_FRONT, _BACK = ("arm", "forearm", "hand"), ("thigh", "shank", "foot")
_TAN, _WHITE, _BLACK = (0.56, 0.34, 0.17), (0.86, 0.83, 0.78), (0.12, 0.10, 0.09)


def _fur(points: Floats, angles: Floats) -> Floats:
    """Return a coat of white, tan and black patches, not the same on both sides."""
    x, y, z = points.T
    side = 0.9 * np.sign(z)
    patches = np.sin(13 * x + side) + np.sin(17 * y - 9 * x + 2 * side) + 0.6 * np.sin(31 * x + 23 * y + side)
    hair = 0.5 + 0.5 * np.sin(410 * x + 37 * np.sin(90 * y)) * np.sin(530 * y + 31 * np.sin(70 * x) + 200 * z)
    colour = mix(_TAN, _BLACK, step(patches, 0.75, 0.25))
    colour = mix(colour, _WHITE, step(-patches, 0.95, 0.25))
    # Belly and feet are white.
    colour = mix(colour, _WHITE, np.maximum(band(y, -1, 0.09, 0.03), band(y, 0.40, 0.455, 0.02)))
    return colour * (0.86 + 0.2 * hair)[:, None]


def _rings(*rows: ArrayLike) -> Floats:
    """Return rings (r, 5) of rows of position, up, down and half of the width."""
    table = np.array(rows, np.float64)
    return table[:, [0, 1, 2, 3, 3]]


def _dog_surface() -> Surface:
    whole = part_at((-9.0, "trunk"))
    trunk = tube(
        _rings(
            *((-0.385, 0.01, 0.01, 0.01), (-0.375, 0.06, 0.06, 0.05), (-0.32, 0.085, 0.10, 0.095)),
            *((-0.20, 0.085, 0.105, 0.115), (-0.05, 0.085, 0.115, 0.11), (0.08, 0.09, 0.155, 0.12)),
            *((0.20, 0.095, 0.165, 0.115), (0.28, 0.085, 0.12, 0.09), (0.325, 0.05, 0.06, 0.05)),
            (0.335, 0.01, 0.01, 0.01),
        ),
        axis="x",
        centre=(0.0, 0.56, 0.0),
        tile=0.012,
    )
    spine = chain((-0.22, "pelvis"), (-0.06, "waist"), (0.10, "chest"))
    neck = tube(
        _rings(
            *((0.16, 0.085, 0.085, 0.075), (0.26, 0.08, 0.095, 0.07)),
            *((0.36, 0.065, 0.075, 0.055), (0.46, 0.06, 0.06, 0.05), (0.50, 0.03, 0.03, 0.03)),
        ),
        axis="x",
        centre=(0.0, 0.58, 0.0),
        tile=0.011,
    )
    rises = neck.points.copy()
    rises[..., 1] += 0.90 * (rises[..., 0] - 0.20)
    neck = Tube(rises, neck.along, neck.angles, neck.outward)
    head = tube(
        _rings(
            *((0.39, 0.01, 0.01, 0.01), (0.40, 0.045, 0.04, 0.045), (0.45, 0.068, 0.055, 0.066)),
            *((0.50, 0.062, 0.052, 0.062), (0.54, 0.032, 0.050, 0.044), (0.60, 0.022, 0.046, 0.034)),
            *((0.65, 0.018, 0.040, 0.030), (0.675, 0.010, 0.022, 0.020), (0.682, 0.002, 0.004, 0.004)),
        ),
        axis="x",
        centre=(0.0, 0.81, 0.0),
        tile=0.0085,
    )

    def face(points: Floats, angles: Floats) -> Floats:
        x, y, z = points.T
        colour = mix(_fur(points, angles), _WHITE, band(np.abs(z), -1, 0.014, 0.01) * step(x, 0.47, 0.02))
        eye = np.hypot(x - 0.52, y - 0.845) < 0.011
        colour = mix(colour, (0.04, 0.03, 0.03), eye * (np.abs(z) > 0.02))
        nose = step(x, 0.660, 0.004) * step(y, 0.775, 0.01)
        return mix(colour, (0.06, 0.05, 0.05), nose)

    tail = tube(
        _rings(
            *((-0.68, 0.004, 0.004, 0.004), (-0.66, 0.014, 0.014, 0.014)),
            *((-0.50, 0.024, 0.024, 0.024), (-0.33, 0.026, 0.026, 0.026)),
        ),
        axis="x",
        centre=(0.0, 0.61, 0.0),
        tile=0.010,
    )
    wags = chain((-0.66, "left_toes"), (-0.54, "left_toes"), (-0.46, "right_toes"), (-0.33, "pelvis"))
    parts = [
        cover(trunk, spine, _fur, whole),
        cover(neck, chain((0.20, "chest"), (0.30, "neck"), (0.46, "head")), _fur, whole),
        cover(head, chain((0.5, "head")), face, part_at((-9.0, "head")), gloss=0.05),
        cover(tail, wags, _fur, whole),
    ]
    for name, sign in _SIDES:
        parts += [*_dog_legs(name, sign), _dog_ear(sign)]
    return join(parts)


def _dog_legs(name: str, sign: float) -> list[Surface]:
    """Return the front and the back leg of a side."""
    legs = []
    for front in (True, False):
        bones = [f"{name}_{b}" for b in (_FRONT if front else _BACK)]
        (x, top, z), (_, knee, _), (_, hock, _) = (_DOG[b] for b in bones)
        thick = 0.058 if front else 0.085
        rows = (
            *((top + 0.06, 0.4 * thick, 0.4 * thick, 0.02), (top + 0.02, thick, thick, 0.042)),
            *((0.5 * (top + knee), 0.85 * thick, 0.9 * thick, 0.044), (knee, 0.040, 0.045, 0.034)),
            *((0.5 * (knee + hock), 0.030, 0.034, 0.027), (hock, 0.024, 0.027, 0.021)),
            *((0.5 * hock + 0.02, 0.020, 0.021, 0.018), (0.05, 0.028, 0.024, 0.024)),
            *((0.03, 0.058, 0.027, 0.030), (0.008, 0.062, 0.027, 0.031), (0.0, 0.045, 0.02, 0.02)),
        )
        shape = tube(_rings(*rows), centre=(x, 0.0, z), tile=0.0105)
        carry = chain(
            *((top + 0.05, "chest" if front else "pelvis"), (top - 0.03, bones[0])),
            *((knee + 0.035, bones[0]), (knee - 0.035, bones[1])),
            *((hock + 0.025, bones[1]), (hock - 0.025, bones[2])),
        )
        legs.append(cover(shape, carry, _fur, part_at((-9.0, f"{name}_{'arm' if front else 'thigh'}"))))
    return legs


def _dog_ear(sign: float) -> Surface:
    """Return an ear that hangs beside the head."""
    rows = (
        *((0.865, 0.006, 0.006, 0.004), (0.858, 0.022, 0.022, 0.010), (0.82, 0.030, 0.034, 0.010)),
        *((0.77, 0.026, 0.028, 0.008), (0.742, 0.006, 0.006, 0.004)),
    )
    shape = tube(_rings(*rows), centre=(0.438, 0.0, sign * 0.074), tile=0.009)
    dark = (0.30, 0.18, 0.10) if sign > 0 else (0.20, 0.13, 0.09)

    def paint(points: Floats, angles: Floats) -> Floats:
        return mix(_fur(points, angles), dark, np.full(len(points), 0.75))

    return cover(shape, chain((0.8, "head")), paint, part_at((-9.0, "head")))
