"""Made-up subjects: rigid pieces that move over a still ground, drawn to a fraction of a pixel.

A subject is posed in its own frame, whose unit is its size: x points ahead, y to its right (down, for one
that heads to the right of the picture), and (0, 0) is its middle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from posewarper.demo.surfaces import fractal_noise, lawn, pave
from posewarper.skeletons import COCO, Skeleton
from posewarper.structures import Floats

MOTIONS = ("still", "steady", "turning", "stop and go")
SPEEDS = {"slow": 0.25, "fast": 1.25}  # sizes from one label to the next
_NOISE = 2.0  # deviation of the sensor's noise, of 255
_REST, _GO = 11, 6  # frames of stop and go


@dataclass(frozen=True)
class Piece:
    """A rigid capsule between two points of a subject; both are the same for a disc.

    Args:
        ends: indices of the points.
        radius: in sizes.
        tone: RGB from 0 to 255.
    """

    ends: tuple[int, int]
    radius: float
    tone: tuple[float, float, float]


@dataclass(frozen=True)
class Subject:
    """What moves.

    Args:
        skeleton: its K keypoints.
        pose: maps how far it has walked in sizes (n,) and its stride in sizes to points (n, P, 2) in its own
            frame, of which the first K are the keypoints.
        pieces: what is drawn, the farthest first.
        turns: whether it heads where it goes; otherwise it stays upright.
    """

    skeleton: Skeleton
    pose: Callable[[Floats, float], Floats]
    pieces: tuple[Piece, ...]
    turns: bool = True


def _bar(*points: tuple[float, float]) -> Callable[[Floats, float], Floats]:
    return lambda walked, stride: np.broadcast_to(np.array(points), (len(walked), len(points), 2))


def _fish(walked: Floats, stride: float) -> Floats:
    """Return nose, left fin, right fin and tail, then the middle, the root of the tail and the gills."""
    wave = 2 * np.pi * walked / stride
    points = np.zeros((len(walked), 7, 2))
    points[:, 0] = 0.42, 0
    for row, side in ((1, -1), (2, 1)):
        angle = np.deg2rad(110 + 15 * np.sin(wave + row))
        points[:, row] = np.stack([0.12 + 0.3 * np.cos(angle), side * 0.3 * np.sin(angle)], -1)
    wag = np.deg2rad(28) * np.sin(wave)
    points[:, 3] = np.stack([-0.10 - 0.36 * np.cos(wag), 0.36 * np.sin(wag)], -1)
    points[:, 4], points[:, 5], points[:, 6] = (0.05, 0), (-0.10, 0), (0.12, 0)
    return points


_K = {name: k for k, name in enumerate(COCO.names)}
_NECK, _SEAT, _HEAD = len(COCO), len(COCO) + 1, len(COCO) + 2


def _person(walked: Floats, stride: float) -> Floats:
    """Return COCO's keypoints of an upright person of height 1, then neck, seat and middle of the head."""
    wave = 2 * np.pi * walked / stride
    points = np.zeros((len(walked), len(COCO) + 3, 2))
    points[:, _NECK], points[:, _SEAT], points[:, _HEAD] = (0, -0.31), (0, 0.0), (0, -0.43)
    for name, x, y in (("nose", 0.0, -0.425), ("eye", 0.025, -0.445), ("ear", 0.058, -0.435)):
        for side, sign in (("", 1), ("left_", 1), ("right_", -1)):
            if side + name in _K:
                points[:, _K[side + name]] = sign * x, y
    for side, sign in (("left", 1), ("right", -1)):
        legs, arms = sign * np.sin(wave), -sign * np.sin(wave)
        thigh = np.deg2rad(26) * legs + sign * 0.04
        shin = thigh - np.deg2rad(22) * (1 - np.cos(wave + (sign < 0) * np.pi)) / 2
        upper = np.deg2rad(30) * arms + sign * 0.15
        lower = upper + np.deg2rad(25) * (1 + arms) / 2
        hip, shoulder = np.array([sign * 0.055, 0.0]), np.array([sign * 0.10, -0.30])
        for start, parts in (
            (hip, (("hip", None, 0.0), ("knee", thigh, 0.245), ("ankle", shin, 0.235))),
            (shoulder, (("shoulder", None, 0.0), ("elbow", upper, 0.165), ("wrist", lower, 0.15))),
        ):
            at = np.broadcast_to(start, (len(walked), 2))
            for part, angle, length in parts:
                if angle is not None:
                    at = at + length * np.stack([np.sin(angle), np.cos(angle)], -1)
                points[:, _K[f"{side}_{part}"]] = at
    return points


def make_subject(keypoints: int, rng: np.random.Generator) -> Subject:
    """Return a subject with 1, 2, 4 or 17 keypoints: a ball, a body with two ends, a fish, a person."""

    def tone(low: float = 0.3, high: float = 1.0) -> tuple[float, float, float]:
        hue = np.array([rng.uniform(0, 179), rng.uniform(90, 200), 255 * rng.uniform(low, high)])
        rgb = cv2.cvtColor(np.rint(hue).astype(np.uint8)[None, None], cv2.COLOR_HSV2RGB)[0, 0]
        return float(rgb[0]), float(rgb[1]), float(rgb[2])

    if keypoints == 1:
        return Subject(Skeleton(("ball",), name="ball"), _bar((0.0, 0.0)), (Piece((0, 0), 0.5, tone(0.7)),))
    if keypoints == 2:
        body = tone()
        pieces = (
            Piece((0, 1), 0.12, body),
            Piece((1, 1), 0.18, tone(0.7)),
            Piece((0, 0), 0.18, tone(0.7)),
        )
        skeleton = Skeleton(("head", "tail"), ((0, 1),), name="animal")
        return Subject(skeleton, _bar((0.32, 0.0), (-0.32, 0.0)), pieces)
    if keypoints == 4:
        body, fin = tone(), tone()
        names = ("nose", "left_fin", "right_fin", "tail")
        pieces = (
            *(Piece((6, row), 0.05, fin) for row in (1, 2)),
            Piece((5, 3), 0.06, tone()),
            Piece((4, 5), 0.15, body),
            Piece((0, 4), 0.08, body),
        )
        return Subject(Skeleton(names, ((0, 1), (0, 2), (0, 3)), name="fish"), _fish, pieces)
    trousers, shirt, skin, shoes = tone(0.25, 0.7), tone(), (205.0, 160.0, 130.0), tone()

    def limb(side: str, one: str, other: str, radius: float, colour: tuple[float, float, float]) -> Piece:
        # The far side lies in the shade, a little.
        shade = 1.0 if side == "left" else 0.85
        r, g, b = (shade * value for value in colour)
        return Piece((_K[f"{side}_{one}"], _K[f"{side}_{other}"]), radius, (r, g, b))

    def leg(side: str) -> list[Piece]:
        thigh = limb(side, "hip", "knee", 0.048, trousers)
        return [
            thigh,
            limb(side, "knee", "ankle", 0.036, trousers),
            limb(side, "ankle", "ankle", 0.03, shoes),
        ]

    def arm(side: str) -> list[Piece]:
        return [limb(side, "shoulder", "elbow", 0.034, shirt), limb(side, "elbow", "wrist", 0.027, skin)]

    head = Piece((_HEAD, _HEAD), 0.068, skin)
    face = Piece((_K["nose"], _K["nose"]), 0.014, (150.0, 80.0, 70.0))
    eyes = [Piece((k, k), 0.009, (40.0, 35.0, 30.0)) for k in (_K["left_eye"], _K["right_eye"])]
    trunk = Piece((_NECK, _SEAT), 0.085, shirt)
    pieces = (*arm("right"), *leg("right"), *leg("left"), trunk, head, face, *eyes, *arm("left"))
    return Subject(COCO, _person, pieces, turns=False)


@dataclass(frozen=True)
class Motion:
    """Where the middle of a subject is, (n, 2) in pixels, its heading (n,) and how far it has gone (n,)."""

    middle: Floats
    heading: Floats
    walked: Floats


def plan_motion(
    kind: str, step: float, size: float, picture: tuple[int, int], n: int, rng: np.random.Generator
) -> Motion | None:
    """Return a motion that keeps the subject in the picture, None where none does.

    Args:
        kind: one of :data:`MOTIONS`.
        step: pixels a frame, on average.
        size: of the subject in pixels.
        picture: (height, width).
        n: frames.
        rng: of the direction and the start.
    """
    walked = step * np.arange(n)
    if kind == "stop and go":
        within = (np.arange(n * 8) / 8 + rng.uniform(0, _REST + _GO)) % (_REST + _GO)
        pace = np.where(within < _GO, np.sin(np.pi * within / _GO) ** 2, 0.0)
        walked = np.concatenate([[0.0], np.cumsum(pace)])[: n * 8 : 8]
        walked *= step * (n - 1) / walked[-1]
    centre = np.array(picture[::-1]) / 2 - 0.5 + rng.uniform(-0.5, 0.5, 2)
    if kind == "still":
        walked = np.zeros(n)
        middle, heading = np.broadcast_to(centre, (n, 2)), np.full(n, rng.uniform(0, 2 * np.pi))
    elif kind == "turning":
        # The widest circle that fits, but of no more than half the size: it shall turn.
        radius = min(0.5 * size, min(picture) / 2 - 0.55 * size - 2)
        if radius < 0.1 * size or (step * 12 > size and radius < 0.25 * size):
            return None
        angle = rng.uniform(0, 2 * np.pi) + rng.choice([-1, 1]) * walked / radius
        middle = centre + radius * np.stack([np.cos(angle), np.sin(angle)], -1)
        ahead = np.gradient(middle, axis=0)
        heading = np.arctan2(ahead[:, 1], ahead[:, 0])
    else:
        direction = np.deg2rad(rng.uniform(-20, 20)) + rng.choice([0, np.pi])
        ahead = np.array([np.cos(direction), np.sin(direction)])
        middle = centre + (walked - walked[-1] / 2)[:, None] * ahead
        heading = np.full(n, direction)
    edge = 0.5 * size + 1
    if (middle < edge).any() or (middle > np.array(picture[::-1]) - 1 - edge).any():
        return None
    return Motion(np.asarray(middle), np.asarray(heading), np.asarray(walked, np.float64))


def place_points(subject: Subject, motion: Motion, size: float, stride: float) -> Floats:
    """Return the subject's points (n, P, 2) in pixels of the picture."""
    points = subject.pose(motion.walked / size, stride)
    if subject.turns:
        cos, sin = np.cos(motion.heading), np.sin(motion.heading)
        turn = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], 1)
        points = np.einsum("nij,npj->npi", turn, points)
    return np.asarray(motion.middle[:, None] + size * points)


def film(
    subject: Subject,
    points: Floats,
    heading: Floats,
    size: float,
    picture: tuple[int, int],
    *,
    textured: bool,
    rng: np.random.Generator,
) -> list[NDArray[np.uint8]]:
    """Return frames (H, W, 3) uint8 RGB of a subject at points (n, P, 2) with a heading (n,).

    The ground is textured and still, and the sensor noisy. A textured subject carries a pattern that moves
    with each of its pieces; a plain one has flat colours.
    """
    # A small picture is a large one seen from farther away.
    whole = max(480, picture[0]), max(640, picture[1])
    grass = rng.random() < 0.5
    ground = lawn(rng, whole) if grass else pave(rng, whole, (26.0, 44.0), (158.0, 148.0, 136.0))
    ground = cv2.resize(np.clip(ground[..., :3], 0, 255), picture[::-1], interpolation=cv2.INTER_AREA)
    ground = np.asarray(ground, np.float64)
    fine = 4 if size <= 40 else 3 if size <= 80 else 2
    pieces = [_draw_piece(piece, points[0], size, fine, textured, rng) for piece in subject.pieces]
    frames = []
    for at, towards in zip(points, heading, strict=True):
        image = ground.copy()
        for piece, drawing in zip(subject.pieces, pieces, strict=True):
            _lay_piece(image, drawing, at[piece.ends[0]], at[piece.ends[1]], towards, fine)
        # Brightness is noisier than colour, as a camera's own smoothing leaves it.
        noise = rng.normal(0, _NOISE, (*picture, 1)) + rng.normal(0, _NOISE / 2, (*picture, 3))
        frames.append(np.clip(np.rint(image + noise), 0, 255).astype(np.uint8))
    return frames


@dataclass(frozen=True)
class _Drawing:
    """A piece in fine pixels, lying along x: (h, w, 4) RGB times cover, and cover; and where it begins."""

    canvas: NDArray[np.float32]
    origin: float


def _draw_piece(
    piece: Piece, points: Floats, size: float, fine: int, textured: bool, rng: np.random.Generator
) -> _Drawing:
    length = fine * float(np.linalg.norm(points[piece.ends[1]] - points[piece.ends[0]]))
    radius = fine * piece.radius * size
    margin = int(np.ceil(radius)) + 2
    shape = 2 * margin + 1, int(np.ceil(length)) + 2 * margin + 1
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float64) - margin
    away = np.hypot(x - np.clip(x, 0, length), y)
    cover = np.clip(radius - away + 0.5, 0, 1)
    # What is round is darker at its edge.
    light = 1 - 0.25 * np.clip(away / radius, 0, 1) ** 2
    if textured:
        lumps = max(0.06 * size * fine, 3.0)
        light = light * np.clip(1 + 0.38 * fractal_noise(rng, shape, (lumps, lumps), 3), 0.25, 1.8)
    colour = np.clip(light[..., None] * np.array(piece.tone), 0, 255)
    canvas = np.concatenate([colour * cover[..., None], 255 * cover[..., None]], -1)
    return _Drawing(canvas.astype(np.float32), float(margin))


def _lay_piece(
    image: Floats, drawing: _Drawing, one: Floats, other: Floats, heading: float, fine: int
) -> None:
    """Lay a piece over an image in place, from one end to the other; a disc is turned by the heading."""
    along = other - one
    angle = np.arctan2(along[1], along[0]) if np.hypot(*along) > 1e-6 else heading
    cos, sin = np.cos(angle), np.sin(angle)
    height, width = drawing.canvas.shape[:2]
    corners = np.array([(x, y) for x in (0, width - 1) for y in (0, height - 1)]) - drawing.origin
    corners = corners @ np.array([[cos, sin], [-sin, cos]]) / fine + one
    x0, y0 = np.maximum(np.floor(corners.min(0)).astype(int), 0)
    x1, y1 = np.minimum(np.ceil(corners.max(0)).astype(int) + 1, (image.shape[1], image.shape[0]))
    if x1 <= x0 or y1 <= y0:
        return
    # The centre of a pixel lies at whole numbers in both, so half a pixel comes off before scaling.
    place = (one - (x0, y0) + 0.5) * fine - 0.5
    matrix = np.array([[cos, -sin, 0.0], [sin, cos, 0.0]])
    matrix[:, 2] = place - matrix[:, :2] @ (drawing.origin, drawing.origin)
    window = (int(x1 - x0) * fine, int(y1 - y0) * fine)
    laid = cv2.warpAffine(drawing.canvas, matrix, window, flags=cv2.INTER_LINEAR)
    laid = cv2.resize(laid, (int(x1 - x0), int(y1 - y0)), interpolation=cv2.INTER_AREA)
    part = image[y0:y1, x0:x1]
    part *= 1 - laid[..., 3:] / 255
    part += laid[..., :3]
