"""What the figure wears and shows: clothes, head with face and hair, neck, forearms and hands, at rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter

from posewarper.demo.bones import BONES, FOREARM, REST, SHOULDER_HALF, SHOULDER_UP, UPPER_ARM
from posewarper.demo.gait import (
    HIP_HALF,
)
from posewarper.demo.surfaces import Paint, Surface, Tube, chain, cover, plain, tube
from posewarper.structures import Floats

_SIDED = ("arm", "forearm", "hand", "thigh", "shank", "foot")
PARTS = (
    *("trunk", "pelvis", "neck", "head", "rucksack"),
    *(f"{side}_{part}" for side in ("right", "left") for part in _SIDED),
)

_KNEE_UP = REST["right_shank"][1]
_ELBOW_UP = SHOULDER_UP - UPPER_ARM


def part_at(*limits: tuple[float, str]) -> Callable[[Floats], NDArray[np.int64]]:
    """Return which part lies at positions along a tube: each given part begins at its position, rising."""
    edges = np.array([limit[0] for limit in limits[1:]])
    parts = np.array([PARTS.index(limit[1]) for limit in limits])
    return lambda along: parts[np.searchsorted(edges, along)]


def mix(first: ArrayLike, second: ArrayLike, share: Floats) -> Floats:
    """Mix colours (m, 3) or (3,) by the share (m,) of the second."""
    share = np.asarray(share, np.float64)[:, None]
    return np.asarray(np.asarray(first) * (1 - share) + np.asarray(second) * share)


def step(value: Floats, edge: float, softness: float = 0.003) -> Floats:
    """Return 0 below an edge and 1 above it, softly."""
    return np.asarray(np.clip((value - edge) / softness + 0.5, 0, 1))


def band(value: Floats, low: float, high: float, softness: float = 0.003) -> Floats:
    """Return 1 between two edges and 0 outside, softly."""
    return np.asarray(step(value, low, softness) * (1 - step(value, high, softness)))


_RED, _INK, _CREAM = (0.66, 0.085, 0.075), (0.07, 0.07, 0.12), (0.93, 0.88, 0.78)


def checks(across: Floats, along: Floats) -> Floats:
    """Return the colours (m, 3) of checked flannel at places (m,) across and along the cloth, in metres."""
    period = 0.078
    u, v = across / period % 1.0, along / period % 1.0
    wide_u, wide_v = band(u, 0.0, 0.46, 0.03), band(v, 0.0, 0.46, 0.03)
    dark = 0.5 * (wide_u + wide_v)
    colour = mix(_RED, _INK, 0.9 * dark)
    for place in (u, v):
        thin = band(place, 0.685, 0.765, 0.03)
        colour = mix(colour, _CREAM, 0.62 * thin)
    return colour


def _shirt_paint(points: Floats, angles: Floats) -> Floats:
    x, y, z = points.T
    front = step(x, -0.01, 0.01)
    # Along the body's girth; the seam is at the side.
    girth = 0.155 * np.where(np.sin(angles) >= 0, 1.0, -1.0) * np.minimum(angles, 2 * np.pi - angles)
    colour = checks(girth + 0.018, y + 0.02)
    # A row of buttons on a placket, a pocket, and the collar.
    placket = band(np.abs(z), -1.0, 0.017) * front * step(1.475 - y, 0.0)
    colour = mix(colour, np.asarray(colour) * 0.86, placket)
    edge = band(np.abs(z), 0.016, 0.020, 0.002) * front * step(1.475 - y, 0.0)
    colour = mix(colour, np.asarray(_INK), 0.5 * edge)
    button = (np.hypot(z, (y - 0.93) % 0.095 - 0.0475) < 0.0045) * front * (y < 1.44)
    colour = mix(colour, _CREAM, 0.7 * button)
    pocket = band(z, -0.118, -0.045) * band(y, 1.225, 1.315) * front
    rim = pocket - band(z, -0.114, -0.049) * band(y, 1.229, 1.303) * front
    colour = mix(colour, _INK, 0.55 * np.clip(rim, 0, 1))
    colour = mix(colour, _INK, 0.55 * band(y, 0.853, 0.863))
    return _straps(colour, x, y, z)


_PACK, _PACK_DARK, _LEATHER = (0.10, 0.30, 0.29), (0.055, 0.17, 0.17), (0.52, 0.30, 0.14)


def _straps(colour: Floats, x: Floats, y: Floats, z: Floats) -> Floats:
    middle = 0.088 - 0.22 * np.maximum(y - 1.36, 0)
    strap = band(np.abs(z) - middle, -0.021, 0.021) * band(y, 1.13, 1.478)
    stitched = band(np.abs(np.abs(z) - middle), 0.014, 0.0175, 0.002)
    colour = mix(colour, _PACK, strap)
    return mix(colour, _CREAM, 0.45 * strap * stitched)


def make_shirt(rng: np.random.Generator) -> list[Surface]:
    """Return trunk and sleeves, the sleeves turned up below the elbow."""
    trunk = tube(
        [
            *((0.850, 0.118, 0.116, 0.166, 0.166), (0.857, 0.125, 0.123, 0.173, 0.173)),
            *((0.90, 0.126, 0.121, 0.175, 0.175), (0.98, 0.120, 0.110, 0.165, 0.165)),
            *((1.06, 0.113, 0.102, 0.151, 0.151), (1.14, 0.116, 0.104, 0.154, 0.154)),
            *((1.22, 0.122, 0.112, 0.161, 0.161), (1.30, 0.122, 0.121, 0.170, 0.170)),
            *((1.36, 0.114, 0.122, 0.174, 0.174), (1.41, 0.097, 0.112, 0.172, 0.172)),
            *((1.443, 0.079, 0.096, 0.156, 0.156), (1.465, 0.067, 0.085, 0.124, 0.124)),
            *((1.478, 0.063, 0.075, 0.090, 0.090), (1.485, 0.066, 0.072, 0.072, 0.072)),
            *((1.510, 0.067, 0.070, 0.066, 0.066), (1.515, 0.058, 0.061, 0.058, 0.058)),
        ],
        centre=(-0.01, 0.0, 0.0),
        tile=0.0130,
        square=2.3,
    )
    trunk = trunk.crease(rng, 0.0016, (2.0, 4.5)).crease(rng, 0.0014, (6.0, 2.5))
    carry = chain((0.96, "pelvis"), (1.08, "waist"), (1.22, "chest"), (1.45, "chest"), (1.53, "neck"))
    return [
        _hang(cover(trunk, carry, _shirt_paint, part_at((0.0, "trunk")))),
        *(_make_sleeve(side, sign, rng) for side, sign in (("right", 1.0), ("left", -1.0))),
    ]


def _hang(trunk: Surface) -> Surface:
    """Let the shirt's tails hang on the thighs a little, so that these do not come through."""
    _, y, z = trunk.vertices.T
    tail = y < 0.96
    bones, weights = trunk.bones.copy(), trunk.weights.copy()
    bones[tail, 0] = BONES.index("pelvis")
    bones[tail, 1] = np.where(z[tail] > 0, BONES.index("right_thigh"), BONES.index("left_thigh"))
    weights[tail] = 0.65 * ((0.96 - y[tail]) / 0.11) * np.clip(np.abs(z[tail]) / 0.06, 0, 1)
    return replace(trunk, bones=bones, weights=weights)


def _make_sleeve(side: str, sign: float, rng: np.random.Generator) -> Surface:
    # Down from the shoulder: how far the wall is in front, behind, outside and inside.
    rows = (
        *((-0.036, 0.008, 0.008, -0.014, 0.034), (-0.032, 0.030, 0.030, 0.006, 0.050)),
        *((-0.018, 0.047, 0.047, 0.032, 0.056), (0.008, 0.057, 0.058, 0.050, 0.055)),
        *((0.05, 0.060, 0.060, 0.056, 0.052), (0.10, 0.057, 0.058, 0.054, 0.050)),
        *((0.20, 0.051, 0.053, 0.050, 0.048), (0.285, 0.046, 0.052, 0.048, 0.047)),
        *((0.335, 0.048, 0.048, 0.047, 0.047), (0.347, 0.053, 0.052, 0.051, 0.051)),
        *((0.385, 0.050, 0.050, 0.048, 0.048), (0.392, 0.038, 0.038, 0.036, 0.036)),
    )
    rings = [(SHOULDER_UP - d, f, b, o if sign > 0 else i, i if sign > 0 else o) for d, f, b, o, i in rows]
    place = (REST[f"{side}_arm"][0], 0.0, sign * SHOULDER_HALF)
    shape = tube(rings, centre=place, tile=0.0130).crease(rng, 0.0016, (2.2, 4.0))

    def paint(points: Floats, angles: Floats) -> Floats:
        down = SHOULDER_UP - points[:, 1]
        colour = checks(0.05 * angles, down)
        cuff = step(down, 0.343)
        return (
            mix(colour, checks(0.05 * angles + 0.03, -down), cuff)
            * (1 - 0.35 * band(down, 0.338, 0.347))[:, None]
        )

    carry = chain(
        *((SHOULDER_UP + 0.03, "chest"), (SHOULDER_UP - 0.05, f"{side}_arm")),
        *((_ELBOW_UP + 0.05, f"{side}_arm"), (_ELBOW_UP - 0.045, f"{side}_forearm")),
    )
    return cover(shape, carry, paint, part_at((0.0, f"{side}_forearm"), (_ELBOW_UP, f"{side}_arm")))


_FOLDS = ((0.13, 0.07, 0.0040), (0.50, 0.07, 0.0024), (0.86, 0.06, 0.0024))  # where, how far, how deep
_DENIM, _WORN, _SEAM = (0.105, 0.165, 0.300), (0.33, 0.42, 0.56), (0.62, 0.42, 0.20)


def make_trousers(rng: np.random.Generator) -> list[Surface]:
    """Return the seat and two legs."""
    seat = tube(
        [
            *((0.80, 0.03, 0.03, 0.03, 0.03), (0.812, 0.066, 0.07, 0.06, 0.06)),
            *((0.84, 0.090, 0.106, 0.105, 0.105), (0.88, 0.106, 0.119, 0.152, 0.152)),
            *((0.94, 0.109, 0.112, 0.160, 0.160), (1.0, 0.104, 0.102, 0.152, 0.152)),
        ],
        tile=0.016,
        square=2.2,
    )
    cloth = rng.uniform(-1, 1, 4096)

    def paint(points: Floats, angles: Floats) -> Floats:
        x, y, z = points.T
        weave = cloth[(np.abs(x * 911 + y * 1733 + z * 577) * 10).astype(int) % len(cloth)]
        worn = np.exp(-(((y - 0.70) / 0.12) ** 2)) + 0.8 * np.exp(-(((y - _KNEE_UP) / 0.06) ** 2))
        worn = 0.5 * worn * step(x, 0.02, 0.05) + 0.09 * weave
        colour = mix(_DENIM, _WORN, np.clip(worn + 0.1, 0, 1))
        # The outer seam, and the hem.
        outer = np.abs(np.abs(np.abs(angles - np.pi) - np.pi / 2)) * 0.07
        colour = mix(colour, np.asarray(_DENIM) * 0.6, 0.7 * band(outer, -1, 0.005))
        return mix(colour, _SEAM, 0.5 * band(y, 0.098, 0.103) + 0.25 * band(y, 0.089, 0.092))

    legs = []
    for side, sign in (("right", 1.0), ("left", -1.0)):
        leg = tube(
            [
                *((0.985, 0.062, 0.078, 0.050, 0.06), (0.94, 0.082, 0.102, 0.072, 0.080)),
                *((0.88, 0.091, 0.108, 0.082, 0.088), (0.81, 0.091, 0.102, 0.085, 0.086)),
                *((0.74, 0.087, 0.093, 0.082, 0.080), (0.62, 0.075, 0.079, 0.070, 0.069)),
                *((0.53, 0.067, 0.066, 0.061, 0.061), (0.48, 0.065, 0.062, 0.059, 0.059)),
                *((0.40, 0.058, 0.069, 0.058, 0.057), (0.32, 0.056, 0.072, 0.057, 0.056)),
                *((0.22, 0.054, 0.063, 0.053, 0.053), (0.12, 0.057, 0.062, 0.053, 0.053)),
                *((0.078, 0.060, 0.064, 0.055, 0.055), (0.072, 0.056, 0.060, 0.051, 0.051)),
            ],
            centre=(0.0, 0.0, sign * HIP_HALF),
            tile=0.0180,
        )
        # Folds gather at the knee, at the ankle and below the hip.
        at, wide, deep = np.array(_FOLDS).T
        gathered = 0.0012 + np.exp(-(((leg.along[:, None] - at) / wide) ** 2)) @ deep
        leg = leg.crease(rng, gathered[:, None], (1.6, 4.0)).crease(rng, 0.0016, (6.0, 2.5))
        carry = chain(
            *((0.985, "pelvis"), (0.86, f"{side}_thigh")),
            *((_KNEE_UP + 0.06, f"{side}_thigh"), (_KNEE_UP - 0.06, f"{side}_shank")),
        )
        parts = part_at((0.0, f"{side}_shank"), (_KNEE_UP, f"{side}_thigh"))
        legs.append(cover(leg, carry, paint, parts))
    return [cover(seat, chain((0.9, "pelvis")), paint, part_at((0.0, "pelvis"))), *legs]


_SOLE, _SHOE, _LACE = (0.90, 0.88, 0.83), (0.80, 0.80, 0.79), (0.16, 0.18, 0.22)


def make_shoes() -> list[Surface]:
    """Return two trainers whose toes bend."""

    def paint(points: Floats, angles: Floats) -> Floats:
        x, y, z = points.T
        aside = np.abs(np.abs(z) - HIP_HALF)
        colour = mix(_SHOE, _LACE, band(x, -0.07, -0.03, 0.006) * step(y, 0.045))
        swoosh = band(y - 0.35 * (x - 0.0), 0.028, 0.046, 0.005) * band(x, -0.035, 0.095, 0.01)
        colour = mix(colour, (0.70, 0.12, 0.10), 0.9 * swoosh * step(aside, 0.022, 0.004))
        tongue = band(aside, -1, 0.018, 0.004) * band(x, 0.02, 0.135, 0.006) * step(y, 0.05)
        colour = mix(colour, _LACE, tongue)
        laces = band(x % 0.021, 0.006, 0.014, 0.003) * tongue
        colour = mix(colour, _SOLE, 0.95 * laces)
        colour = mix(colour, _SOLE, 1 - step(y, 0.026))
        return mix(colour, _LACE, 0.85 * band(y, 0.0235, 0.0275, 0.002) + 0.6 * (1 - step(y, 0.006)))

    # From the heel to the toes: top, sole, and half of the width.
    rows = np.array(
        [
            *((-0.084, 0.050, 0.030, 0.006), (-0.079, 0.080, 0.008, 0.022), (-0.06, 0.100, 0.0, 0.034)),
            *((-0.02, 0.110, 0.0, 0.039), (0.03, 0.104, 0.0, 0.041), (0.07, 0.088, 0.0, 0.044)),
            *((0.12, 0.068, 0.0, 0.048), (0.16, 0.057, 0.001, 0.046), (0.19, 0.049, 0.004, 0.036)),
            *((0.207, 0.040, 0.010, 0.021), (0.213, 0.030, 0.018, 0.006)),
        ]
    )
    level = 0.03
    rings = np.column_stack([rows[:, 0], rows[:, 1] - level, level - rows[:, 2], rows[:, 3], rows[:, 3]])
    shoes = []
    for side, sign in (("right", 1.0), ("left", -1.0)):
        shape = tube(rings, axis="x", centre=(0.0, level, sign * HIP_HALF), tile=0.0115, square=2.7)
        carry = chain((0.10, f"{side}_foot"), (0.15, f"{side}_toes"))
        shoes.append(cover(shape, carry, paint, part_at((-1.0, f"{side}_foot")), gloss=0.12))
    return shoes


def make_rucksack() -> list[Surface]:
    """Return a rucksack and the pocket on it."""

    def paint(points: Floats, angles: Floats) -> Floats:
        x, y, z = points.T
        colour = mix(_PACK, _PACK_DARK, step(1.14 - y, 0.0) * 0.8)
        colour = mix(colour, _LEATHER, band(np.abs(z), 0.035, 0.055) * step(-x, 0.2))
        colour = mix(colour, _PACK_DARK, band(y, 1.325, 1.335) + band(np.abs(z), 0.128, 0.133))
        return mix(colour, _LEATHER, band(y, 1.035, 1.06) * step(-x, 0.14))

    pocket_paint: Paint = plain(np.asarray(_PACK) * 0.82)
    body = tube(
        [
            *((1.015, 0.03, 0.03, 0.10, 0.10), (1.022, 0.06, 0.06, 0.13, 0.13)),
            *((1.06, 0.075, 0.078, 0.142, 0.142), (1.20, 0.075, 0.080, 0.142, 0.142)),
            *((1.32, 0.070, 0.070, 0.134, 0.134), (1.40, 0.055, 0.052, 0.115, 0.115)),
            *((1.432, 0.03, 0.03, 0.085, 0.085), (1.438, 0.01, 0.01, 0.05, 0.05)),
        ],
        centre=(-0.175, 0.0, 0.0),
        tile=0.021,
        square=3.4,
    )
    pocket = tube(
        [
            *((1.05, 0.02, 0.01, 0.07, 0.07), (1.058, 0.03, 0.03, 0.10, 0.10)),
            *((1.13, 0.03, 0.036, 0.104, 0.104), (1.205, 0.03, 0.03, 0.10, 0.10)),
            *((1.213, 0.02, 0.01, 0.07, 0.07),),
        ],
        centre=(-0.248, 0.0, 0.0),
        tile=0.024,
        square=3.4,
    )
    carry, part = chain((1.2, "chest")), part_at((0.0, "rucksack"))
    return [cover(body, carry, paint, part), cover(pocket, carry, pocket_paint, part)]


_SKIN, _BLUSH, _SHADE = (0.80, 0.575, 0.445), (0.78, 0.42, 0.33), (0.52, 0.34, 0.25)
_LIPS, _HAIR, _HAIR_LIGHT = (0.62, 0.29, 0.25), (0.115, 0.068, 0.042), (0.30, 0.185, 0.105)
_WRIST_UP = SHOULDER_UP - UPPER_ARM - FOREARM

# From chin to crown: how far the skull reaches in front, behind, and to either side.
_SKULL = np.array(
    [
        *((1.512, 0.040, 0.0, 0.012, 0.012), (1.516, 0.070, 0.012, 0.030, 0.030)),
        *((1.525, 0.086, 0.030, 0.043, 0.043), (1.545, 0.093, 0.050, 0.056, 0.056)),
        *((1.575, 0.095, 0.070, 0.064, 0.064), (1.605, 0.095, 0.084, 0.070, 0.070)),
        *((1.635, 0.093, 0.094, 0.0735, 0.0735), (1.660, 0.091, 0.099, 0.0755, 0.0755)),
        *((1.685, 0.094, 0.100, 0.0765, 0.0765), (1.710, 0.088, 0.096, 0.074, 0.074)),
        *((1.730, 0.074, 0.083, 0.066, 0.066), (1.745, 0.053, 0.062, 0.051, 0.051)),
        *((1.753, 0.030, 0.036, 0.030, 0.030), (1.755, 0.006, 0.008, 0.006, 0.006)),
    ]
)


def make_head(rng: np.random.Generator) -> list[Surface]:
    """Return head, ears, hair and neck."""
    skull = tube(_SKULL, tile=0.0075, square=2.15)
    x, y, z = np.moveaxis(skull.points, -1, 0)
    front = step(x, 0.03, 0.02)
    # Nose, sockets, brows, lips and chin are bumps in the skull.
    ridge = PchipInterpolator((1.598, 1.610, 1.624, 1.640, 1.668), (0.0, 0.017, 0.026, 0.015, 0.0))
    width = PchipInterpolator((1.598, 1.620, 1.668), (0.017, 0.0155, 0.010))
    nose = np.where((y > 1.598) & (y < 1.668), ridge(np.clip(y, 1.598, 1.668)), 0.0)
    bumps = nose * np.exp(-((z / width(np.clip(y, 1.598, 1.668))) ** 2))
    bumps -= 0.007 * np.exp(-(((np.abs(z) - 0.032) / 0.015) ** 2) - ((y - 1.656) / 0.012) ** 2)
    bumps += 0.004 * np.exp(-(((np.abs(z) - 0.03) / 0.02) ** 2) - ((y - 1.679) / 0.007) ** 2)
    bumps += 0.004 * np.exp(-((z / 0.024) ** 2) - ((y - 1.574) / 0.008) ** 2)
    bumps += 0.003 * np.exp(-((z / 0.018) ** 2) - ((y - 1.591) / 0.007) ** 2)
    bumps += 0.004 * np.exp(-((z / 0.02) ** 2) - ((y - 1.535) / 0.012) ** 2)
    bumps += 0.003 * np.exp(-(((np.abs(z) - 0.047) / 0.016) ** 2) - ((y - 1.625) / 0.016) ** 2)
    head, carry = part_at((0.0, "head")), chain((1.6, "head"))
    return [
        cover(skull.swell(bumps * front), carry, _paint_face, head, gloss=0.10),
        *(_make_ear(sign) for sign in (1.0, -1.0)),
        _make_hair(rng),
        _make_neck(),
    ]


def _paint_face(points: Floats, angles: Floats) -> Floats:
    x, y, z = points.T
    front, side = step(x, 0.02, 0.02), np.abs(z)
    colour = mix(_SKIN, _BLUSH, 0.35 * np.exp(-(((side - 0.048) / 0.02) ** 2) - ((y - 1.615) / 0.02) ** 2))
    colour = mix(colour, _BLUSH, 0.35 * front * np.exp(-((z / 0.013) ** 2) - ((y - 1.622) / 0.012) ** 2))
    stubble = step(1.606 - y, 0.0, 0.02) * (1 - np.exp(-((z / 0.030) ** 2) - ((y - 1.577) / 0.012) ** 2))
    colour = mix(colour, _HAIR_LIGHT, 0.26 * stubble * step(x, -0.01, 0.05))
    # Eyes: a shadow in the socket, white, iris, the line of the lashes.
    socket = np.exp(-(((side - 0.031) / 0.018) ** 2) - ((y - 1.660) / 0.012) ** 2)
    colour = mix(colour, _SHADE, 0.5 * front * socket)
    in_eye = (((side - 0.032) / 0.0145) ** 2 + ((y - 1.6555) / 0.0062) ** 2 < 1) * front
    colour = mix(colour, (0.88, 0.86, 0.83), in_eye)
    iris = (np.hypot(side - 0.032, y - 1.656) < 0.0062) * in_eye
    colour = mix(colour, (0.10, 0.06, 0.04), iris)
    lash = band(y - 1.6615 + 4 * (side - 0.032) ** 2 / 0.1, -0.0022, 0.0018, 0.001)
    colour = mix(colour, (0.08, 0.05, 0.04), 0.85 * front * lash * band(side, 0.017, 0.047))
    brow = band(y - 1.6795 + 9 * (side - 0.028) ** 2, -0.0038, 0.0038, 0.002) * band(side, 0.013, 0.049)
    colour = mix(colour, _HAIR, 0.85 * front * brow)
    nostril = np.exp(-(((side - 0.009) / 0.005) ** 2) - ((y - 1.6035) / 0.0045) ** 2)
    colour = mix(colour, _SHADE, 0.5 * front * nostril)
    lips = band(y, 1.566, 1.583, 0.003) * band(side, -1, 0.027, 0.006)
    colour = mix(colour, _LIPS, 0.75 * front * lips)
    mouth = band(y, 1.5735, 1.577, 0.0015) * band(side, -1, 0.028, 0.004)
    return mix(colour, (0.25, 0.10, 0.09), 0.8 * front * mouth)


def _make_ear(sign: float) -> Surface:
    rings = [
        *((1.606, 0.004, 0.003, 0.003, 0.003), (1.612, 0.010, 0.009, 0.008, 0.008)),
        *((1.63, 0.013, 0.014, 0.010, 0.010), (1.65, 0.015, 0.021, 0.012, 0.012)),
        *((1.665, 0.013, 0.020, 0.012, 0.012), (1.675, 0.004, 0.008, 0.005, 0.005)),
    ]

    def paint(points: Floats, angles: Floats) -> Floats:
        x, y, _ = points.T
        hollow = np.exp(-(((x + 0.002) / 0.007) ** 2) - ((y - 1.643) / 0.013) ** 2)
        return mix(mix(_SKIN, _BLUSH, np.full(len(x), 0.35)), _SHADE, 0.75 * hollow)

    shape = tube(rings, centre=(-0.004, 0.0, sign * 0.079), tile=0.0065)
    return cover(shape, chain((1.6, "head")), paint, part_at((0.0, "head")), gloss=0.05)


def _hair_thickness(x: Floats, y: Floats) -> Floats:
    """Return metres of hair on the skull; below 0 there is none."""
    # The hairline falls from the forehead over the temple, runs around the ear and down the neck.
    line = np.interp(x, (-0.09, -0.055, -0.028, 0.022, 0.030, 0.055, 0.085), _HAIRLINE)
    over = y - line
    length = np.interp(y, (1.58, 1.64, 1.70, 1.75), (0.007, 0.012, 0.019, 0.024))
    return np.asarray(np.clip(over / 0.012, -1, 1) * length)


_HAIRLINE = (1.555, 1.575, 1.612, 1.622, 1.672, 1.700, 1.722)


def _make_hair(rng: np.random.Generator) -> Surface:
    shape = tube(_SKULL[4:], tile=0.0085, square=2.15)
    x, y, z = np.moveaxis(shape.points, -1, 0)
    uneven = 0.004 * np.sin(z * 130 + 0.7) + 0.003 * np.sin(z * 310)
    thick = _hair_thickness(x, y - uneven)
    noise = rng.standard_normal(shape.points.shape[:2])
    locks = gaussian_filter(noise, (3.5, 1.2), mode="wrap")
    locks /= locks.std()
    # Fuller to one side, where it is parted.
    quiff = 0.010 * np.exp(-(((x - 0.07) / 0.03) ** 2) - (((z - 0.018) / 0.035) ** 2)) * step(y, 1.70, 0.02)
    grown = shape.swell(np.where(thick > 0, thick + 0.0028 * locks + quiff, -0.004))
    strands = gaussian_filter(rng.standard_normal((64, 128)), (6.0, 0.8), mode="wrap")
    strands = strands / strands.std()

    def paint(points: Floats, angles: Floats) -> Floats:
        row = ((points[:, 1] - 1.5) * 240).astype(int) % 64
        light = strands[row, (angles / (2 * np.pi) * 128).astype(int) % 128]
        return mix(_HAIR, _HAIR_LIGHT, np.clip(0.32 + 0.28 * light, 0, 1))

    def keep(centres: Floats) -> np.ndarray:
        return _keep_hair(shape, thick, len(centres))

    return cover(grown, chain((1.6, "head")), paint, part_at((0.0, "head")), gloss=0.22, keep=keep)


def _keep_hair(shape: Tube, thick: Floats, n: int) -> np.ndarray:
    corners = [thick[:-1], np.roll(thick, -1, 1)[:-1], np.roll(thick, -1, 1)[1:], thick[1:]]
    return np.asarray(np.max(corners, axis=0).reshape(n) > 0)


def _make_neck() -> Surface:
    shape = tube(
        [
            *((1.42, 0.052, 0.058, 0.058, 0.058), (1.48, 0.050, 0.056, 0.055, 0.055)),
            *((1.53, 0.050, 0.056, 0.053, 0.053), (1.60, 0.052, 0.060, 0.056, 0.056)),
        ],
        centre=(-0.016, 0.0, 0.0),
        tile=0.011,
    )

    def paint(points: Floats, angles: Floats) -> Floats:
        nape = step(-points[:, 0], 0.05, 0.02) * step(points[:, 1], 1.55, 0.02)
        return mix(mix(_SKIN, _SHADE, np.full(len(points), 0.25)), _HAIR, 0.8 * nape)

    return cover(shape, chain((1.46, "neck"), (1.58, "head")), paint, part_at((0.0, "neck")))


def make_arms() -> list[Surface]:
    """Return forearms, hands and thumbs."""
    bare = []
    for side, sign in (("right", 1.0), ("left", -1.0)):
        place = (REST[f"{side}_hand"][0], 0.0, sign * SHOULDER_HALF)
        bare += [_make_forearm(side, place), _make_hand(side, sign, place), _make_thumb(side, sign, place)]
    return bare


def _paint_skin(points: Floats, angles: Floats) -> Floats:
    return mix(_SKIN, _BLUSH, np.full(len(points), 0.18))


def _make_forearm(side: str, place: tuple[float, float, float]) -> Surface:
    rows = (
        *((-0.17, 0.036, 0.038, 0.036, 0.036), (-0.10, 0.034, 0.034, 0.032, 0.032)),
        *((-0.04, 0.029, 0.028, 0.025, 0.025), (0.0, 0.0275, 0.026, 0.0215, 0.0215)),
        *((0.03, 0.027, 0.025, 0.019, 0.019),),
    )
    shape = tube([(_WRIST_UP - d, *r) for d, *r in rows], centre=place, tile=0.012)
    carry = chain((_WRIST_UP + 0.02, f"{side}_forearm"), (_WRIST_UP - 0.02, f"{side}_hand"))
    return cover(shape, carry, _paint_skin, part_at((0.0, f"{side}_forearm")), gloss=0.08)


def _make_hand(side: str, sign: float, place: tuple[float, float, float]) -> Surface:
    rows = (
        *((-0.005, 0.022, 0.020, 0.016, 0.016), (0.03, 0.034, 0.030, 0.0165, 0.0165)),
        *((0.065, 0.040, 0.037, 0.015, 0.016), (0.095, 0.040, 0.038, 0.013, 0.0145)),
        *((0.130, 0.034, 0.034, 0.012, 0.013), (0.160, 0.027, 0.028, 0.010, 0.011)),
        *((0.180, 0.017, 0.019, 0.008, 0.008), (0.186, 0.005, 0.006, 0.003, 0.003)),
    )
    shape = tube([(_WRIST_UP - d, *r) for d, *r in rows], centre=place, tile=0.0105, square=2.5)
    # Fingers curl towards the palm, which faces the thigh.
    down = np.maximum(_WRIST_UP - shape.points[..., 1] - 0.075, 0)
    points = shape.points.copy()
    points[..., 2] -= sign * 3.6 * down**2
    points[..., 1] += 1.6 * down**2
    shape = Tube(points, shape.along, shape.angles, shape.outward)

    def paint(points: Floats, angles: Floats) -> Floats:
        colour = _paint_skin(points, angles)
        across = (points[:, 0] - place[0] + 0.04) / 0.0195
        gap = band(across % 1.0, -0.13, 0.13, 0.1) + band(across % 1.0, 0.87, 1.13, 0.1)
        return mix(colour, _SHADE, 0.6 * gap * step(_WRIST_UP - points[:, 1], 0.085, 0.01))

    return cover(shape, chain((0.8, f"{side}_hand")), paint, part_at((0.0, f"{side}_hand")), gloss=0.08)


def _make_thumb(side: str, sign: float, place: tuple[float, float, float]) -> Surface:
    rows = (
        *((0.015, 0.006, 0.010, 0.006, 0.006), (0.035, 0.013, 0.014, 0.012, 0.012)),
        *((0.075, 0.011, 0.011, 0.0105, 0.0105), (0.100, 0.0085, 0.0085, 0.008, 0.008)),
        *((0.107, 0.003, 0.003, 0.003, 0.003),),
    )
    shape = tube([(_WRIST_UP - d, *r) for d, *r in rows], centre=place, tile=0.0085)
    points = shape.points.copy()
    down = _WRIST_UP - points[..., 1]
    points[..., 0] += 0.018 + 0.30 * down
    points[..., 2] -= sign * (0.004 + 0.10 * down)
    shape = Tube(points, shape.along, shape.angles, shape.outward)
    return cover(shape, chain((0.8, f"{side}_hand")), _paint_skin, part_at((0.0, f"{side}_hand")), gloss=0.08)
