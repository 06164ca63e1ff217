"""The figure's bare parts: head with face and hair, neck, forearms and hands, as they are at rest."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter

from posewarper.scene.figure import FOREARM, REST, SHOULDER_HALF, SHOULDER_UP, UPPER_ARM
from posewarper.scene.surfaces import Surface, Tube, chain, cover, tube
from posewarper.scene.wardrobe import band, mix, part_at, step
from posewarper.structures import Floats

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
