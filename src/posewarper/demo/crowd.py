"""Quick small clips of people who walk across each other, whose keypoints are known exactly.

They stand in for PoseTrack in tests and small experiments: every part of a body has a colour of its own, left
and right differ, and all parts carry a texture, so that a tiny network learns them in a minute and optical
flow finds something to follow. With varied clothes, colours tell neither a part nor its side: then a network
needs many people to learn from, as with real ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from posewarper.skeletons import POSETRACK
from posewarper.structures import Floats

Image = NDArray[np.uint8]
Clothes = Literal["alike", "varied"]
_Colour = tuple[int, int, int]
_K = {name: k for k, name in enumerate(POSETRACK.names)}

# Drawn at twice the size and averaged, for smooth edges; polygons take coordinates in 1/16 pixels.
_SCALE, _SHIFT = 2, 4

# Limbs in the order in which they are drawn: both ends, half width in body heights, and RGB. The left side of
# a body is light, the right one dark.
_LIMBS = (
    ("right_hip", "right_knee", 0.048, (30, 60, 130)),
    ("right_knee", "right_ankle", 0.036, (20, 120, 120)),
    ("left_hip", "left_knee", 0.048, (120, 160, 245)),
    ("left_knee", "left_ankle", 0.036, (120, 240, 235)),
    ("torso_top", "torso_bottom", 0.085, (0, 0, 0)),  # in the person's own colour
    ("right_shoulder", "right_elbow", 0.034, (135, 60, 20)),
    ("right_elbow", "right_wrist", 0.026, (110, 20, 110)),
    ("left_shoulder", "left_elbow", 0.034, (250, 165, 90)),
    ("left_elbow", "left_wrist", 0.026, (245, 130, 245)),
)
_SHIRTS = ((205, 40, 45), (40, 165, 60), (235, 205, 40), (235, 235, 235), (150, 110, 60), (70, 70, 75))
_TORSO = 4  # of the limbs

# Where keypoints of a standing body lie, in body heights from the middle of the hips; y points down.
_HIP, _SHOULDER, _THIGH, _SHIN, _UPPER_ARM, _FOREARM = 0.075, 0.105, 0.235, 0.225, 0.165, 0.155
_SHOULDER_Y, _NECK_Y, _HEAD_BOTTOM_Y, _NOSE_Y, _HEAD_TOP_Y = -0.30, -0.335, -0.35, -0.41, -0.50
_HEAD = (0.058, 0.075)  # half width and half height


@dataclass(frozen=True)
class _Colours:
    """RGB of a person's parts; ``limbs`` in the order of ``_LIMBS``."""

    limbs: tuple[_Colour, ...]
    skin: _Colour = (240, 200, 165)
    hair: _Colour = (60, 40, 25)
    nose: _Colour = (190, 30, 30)


@dataclass(frozen=True)
class _Person:
    """How one person looks and moves; lengths in pixels, angles in radians, rates a frame."""

    height: float
    centre: tuple[float, float]  # about which the middle of the hips sways
    sway: float
    sway_rate: float
    sway_phase: float
    step_rate: float
    step_phase: float
    swing: float
    arms: tuple[float, float]  # left and right arm, away from the body
    arm_swing: float
    colours: _Colours
    texture: Image  # (h, w) 0 to 255, moves with the body


@dataclass(frozen=True)
class Crowd:
    """A staged clip.

    Args:
        size: (height, width).
        people: the people, those in front last.
        ground: (height, width + margins, 3) backdrop, across which the camera pans.
        pan: (start, amplitude, rate a frame) of the camera in pixels.
    """

    size: tuple[int, int]
    people: tuple[_Person, ...]
    ground: Image
    pan: tuple[float, float, float]


@dataclass(frozen=True)
class CrowdFrame:
    """What is true of one frame, n people.

    Args:
        tracks: (n,) who they are.
        keypoints: (n, 17, 2) xy of PoseTrack's keypoints; NaN for the ears and beyond the frame's edges.
        visible: (n, 17) whether a keypoint is in the frame and nobody stands before it.
        boxes: (n, 4) xywh of the body with all its width, cut to the frame.
        head_boxes: (n, 4) xywh of the head, not cut.
    """

    tracks: NDArray[np.int64]
    keypoints: Floats
    visible: NDArray[np.bool_]
    boxes: Floats
    head_boxes: Floats


def stage_crowd(
    n_people: int, size: tuple[int, int] = (120, 160), seed: int = 0, clothes: Clothes = "alike"
) -> Crowd:
    """Stage a clip.

    Args:
        n_people: number of people; two neighbours sway against each other, so that they cross.
        size: (height, width) of the frames in pixels.
        seed: of everything: places, speeds, clothes and backdrop.
        clothes: "alike" gives everybody the same colours, a different one to each limb, but for the torso;
            "varied" dresses each person anew, the same on both sides.
    """
    rng = np.random.default_rng(seed)
    height, width = size
    people = []
    heights = np.sort(rng.uniform(0.5, 0.82, n_people)) * height
    columns = rng.permutation((np.arange(n_people) + 0.5) / n_people)
    for i in range(n_people):
        tall = float(heights[i])
        noise = cv2.GaussianBlur(rng.normal(0, 1, (int(tall * 1.4) + 8,) * 2), (0, 0), max(tall / 60, 0.8))
        people.append(
            _Person(
                height=tall,
                centre=(float(columns[i] * width), float(rng.uniform(0.5, 0.6) * height)),
                sway=float(rng.uniform(0.12, 0.3) * width),
                sway_rate=float(rng.uniform(0.06, 0.12)) * (-1) ** i,
                sway_phase=float(rng.uniform(0, 2 * np.pi)),
                step_rate=float(rng.uniform(0.22, 0.4)),
                step_phase=float(rng.uniform(0, 2 * np.pi)),
                swing=float(rng.uniform(0.25, 0.45)),
                arms=(float(rng.uniform(0.2, 0.9)), float(rng.uniform(0.2, 0.9))),
                arm_swing=float(rng.uniform(0.2, 0.6)),
                colours=_dress(i) if clothes == "alike" else _dress_anew(rng),
                texture=np.clip(128 + 42 * noise / noise.std(), 0, 255).astype(np.uint8),
            )
        )
    margin = max(8, width // 16)
    pan = (float(margin), float(rng.uniform(0.3, 0.9) * margin), float(rng.uniform(0.03, 0.08)))
    return Crowd(size, tuple(people), _paint_ground(rng, height, width + 2 * margin), pan)


def _dress(place: int) -> _Colours:
    """Return the colours that everybody has, with a shirt by a person's place in the crowd."""
    limbs = [colour for *_, colour in _LIMBS]
    limbs[_TORSO] = _SHIRTS[place % len(_SHIRTS)]
    return _Colours(tuple(limbs))


def _dress_anew(rng: np.random.Generator) -> _Colours:
    """Return drawn colours: long or short trousers and sleeves, alike on both sides."""
    skin = np.array([240, 195, 160]) * rng.uniform(0.35, 1.0)
    shirt, trousers = rng.uniform(20, 245, (2, 3))
    shin = trousers if rng.uniform() < 0.6 else skin
    upper_arm = shirt if rng.uniform() < 0.8 else skin
    forearm = upper_arm if rng.uniform() < 0.5 else skin
    limbs = (trousers, shin, trousers, shin, shirt, upper_arm, forearm, upper_arm, forearm)
    hair = rng.uniform(10, 200) * np.array([1.0, rng.uniform(0.6, 0.9), rng.uniform(0.3, 0.7)])
    return _Colours(tuple(map(_rgb, limbs)), skin=_rgb(skin), hair=_rgb(hair), nose=_rgb(0.7 * skin))


def _rgb(colour: Floats) -> _Colour:
    red, green, blue = np.round(colour).astype(int).tolist()
    return red, green, blue


def _paint_ground(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return a backdrop (height, width, 3): dull blotches, some boxes, and fine grain."""
    coarse = rng.uniform(0, 1, (max(height // 12, 2), max(width // 12, 2), 3)).astype(np.float32)
    image = 75 + 70 * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(10):
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        w, h = int(rng.integers(width // 20, width // 6)), int(rng.integers(height // 20, height // 4))
        shade = int(rng.integers(60, 190))
        cv2.rectangle(image, (x, y), (x + w, y + h), (shade, shade + 8, shade - 6), -1)
    grain = rng.normal(0, 9, (height, width, 1)).astype(np.float32)
    return np.clip(image + grain, 0, 255).astype(np.uint8)


def _pose(person: _Person, t: float, pan: float) -> dict[str, Floats]:
    """Return xy of a person's keypoints, and of the ends of the torso, in pixels of the frame."""
    tall = person.height
    step = np.sin(person.step_rate * t + person.step_phase)
    turn = person.sway_rate * t + person.sway_phase
    lean = 0.12 * np.cos(turn) * np.sign(person.sway_rate)
    bob = 0.012 * np.cos(2 * (person.step_rate * t + person.step_phase))
    root = np.array([person.centre[0] + person.sway * np.sin(turn) - pan, person.centre[1] + bob * tall])
    across, along = np.array([np.cos(lean), np.sin(lean)]), np.array([-np.sin(lean), np.cos(lean)])

    def at(x: float, y: float) -> Floats:
        return root + tall * (x * across + y * along)

    def reach(start: Floats, angle: float, length: float) -> Floats:
        # Angles from straight down, positive towards the right of the picture.
        return start + tall * length * np.array([np.sin(angle), np.cos(angle)])

    points = {"nose": at(0.1 * lean, _NOSE_Y), "head_bottom": at(0, _HEAD_BOTTOM_Y)}
    points |= {"head_top": at(0, _HEAD_TOP_Y), "head_middle": at(0, (_HEAD_BOTTOM_Y + _HEAD_TOP_Y) / 2)}
    points |= {"torso_top": at(0, _SHOULDER_Y + 0.03), "torso_bottom": at(0, -0.03)}
    # People face the camera, so that their left is on the right of the picture.
    for side, sign, arm in (("left", 1, person.arms[0]), ("right", -1, person.arms[1])):
        hip, shoulder = at(sign * _HIP, 0), at(sign * _SHOULDER, _SHOULDER_Y)
        leg = sign * step * person.swing
        knee = reach(hip, leg + 0.05 * sign, _THIGH)
        upper = sign * arm - step * person.arm_swing * 0.5 - lean
        elbow = reach(shoulder, upper, _UPPER_ARM)
        points |= {f"{side}_hip": hip, f"{side}_shoulder": shoulder, f"{side}_knee": knee}
        points[f"{side}_ankle"] = reach(knee, leg - 0.35 * person.swing * (1 - sign * step), _SHIN)
        points[f"{side}_elbow"] = elbow
        points[f"{side}_wrist"] = reach(elbow, upper + sign * (0.5 + 0.5 * step), _FOREARM)
    return points


def _poses_at(crowd: Crowd, t: float) -> tuple[float, list[dict[str, Floats]]]:
    """Return how far the camera has panned, and the poses of all people."""
    start, amplitude, rate = crowd.pan
    pan = start + amplitude * np.sin(rate * t)
    return pan, [_pose(person, t, pan - start) for person in crowd.people]


def tell_crowd(crowd: Crowd, t: float) -> CrowdFrame:
    """Tell what is true of a frame without drawing it: nobody is taken to hide anybody.

    Args:
        crowd: the staged clip.
        t: time in frames.
    """
    return _truth(crowd, _poses_at(crowd, t)[1], None)


def film_crowd(crowd: Crowd, t: float) -> tuple[Image, CrowdFrame]:
    """Draw one frame, and tell what is true of it.

    Args:
        crowd: the staged clip.
        t: time in frames; fractions are fine.

    Returns:
        The frame (height, width, 3) uint8 RGB, and its truth.
    """
    height, width = crowd.size
    pan, poses = _poses_at(crowd, t)
    # Centres of pixels are at whole numbers, in the frame and in the larger drawing.
    shift = np.array([[_SCALE, 0, 0], [0, _SCALE, 0]], float)
    shift[:, 2] = (_SCALE - 1) / 2
    shift[0, 2] -= _SCALE * pan
    size = (width * _SCALE, height * _SCALE)
    canvas = np.asarray(cv2.warpAffine(crowd.ground, shift, size, borderMode=cv2.BORDER_REFLECT), np.uint8)
    owner = np.zeros(canvas.shape[:2], np.uint8)
    for i, (person, pose) in enumerate(zip(crowd.people, poses, strict=True)):
        _draw_person(canvas, owner, i + 1, person, pose)
    image = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    return image.astype(np.uint8), _truth(crowd, poses, owner)


def _to_canvas(points: Floats) -> Floats:
    return points * _SCALE + (_SCALE - 1) / 2


def _draw_person(canvas: Image, owner: Image, label: int, person: _Person, pose: dict[str, Floats]) -> None:
    """Draw a person over what is there, and set ``owner`` to ``label`` wherever they are."""
    mask = np.zeros(owner.shape, np.uint8)
    colours = person.colours
    for (a, b, half_width, _), colour in zip(_LIMBS, colours.limbs, strict=True):
        _draw_limb(canvas, mask, (pose[a], pose[b]), half_width * person.height, colour)
    axes = tuple(round(half * person.height * _SCALE * 2**_SHIFT) for half in _HEAD)
    angle = np.degrees(np.arctan2(*(pose["head_bottom"] - pose["head_top"])))
    middle = _fixed(_to_canvas(pose["head_middle"]))
    for target, colour, hair in ((canvas, colours.skin, colours.hair), (mask, 1, 1)):
        cv2.ellipse(target, middle, axes, -angle, 0, 360, colour, -1, cv2.LINE_8, _SHIFT)
        cv2.ellipse(target, middle, axes, -angle, 180, 360, hair, -1, cv2.LINE_8, _SHIFT)
    nose = round(0.017 * person.height * _SCALE * 2**_SHIFT)
    cv2.circle(canvas, _fixed(_to_canvas(pose["nose"])), nose, colours.nose, -1, cv2.LINE_8, _SHIFT)
    owner[mask > 0] = label
    _add_texture(canvas, mask, person, pose)


def _add_texture(canvas: Image, mask: Image, person: _Person, pose: dict[str, Floats]) -> None:
    """Lay a person's texture, which moves with the hips, over where they are drawn."""
    x, y, w, h = cv2.boundingRect(mask)
    if w == 0:
        return
    size = person.texture.shape[0]
    # The offset is wrapped, so that arms beyond the texture's edge find its other side.
    left, top = size / 2 - (_to_canvas(pose["torso_bottom"]) - (x, y)) / _SCALE
    turn = np.array([[1 / _SCALE, 0, left], [0, 1 / _SCALE, top]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    grain = cv2.warpAffine(person.texture, turn, (w, h), flags=flags, borderMode=cv2.BORDER_WRAP)
    part = canvas[y : y + h, x : x + w]
    lit = part + (grain.astype(np.int16)[..., None] - 128) // 3
    np.copyto(part, np.clip(lit, 0, 255).astype(np.uint8), where=mask[y : y + h, x : x + w, None] > 0)


def _fixed(point: Floats) -> tuple[int, int]:
    x, y = np.round(point * 2**_SHIFT).astype(int).tolist()
    return x, y


def _draw_limb(
    canvas: Image,
    mask: Image,
    ends: tuple[Floats, Floats],
    half_width: float,
    colour: tuple[int, int, int],
) -> None:
    """Draw a limb with round ends and two bands across, all to fractions of a pixel."""
    a, b, half = _to_canvas(ends[0]), _to_canvas(ends[1]), half_width * _SCALE
    along = (b - a) / max(float(np.hypot(*(b - a))), 1e-9)
    across = np.array([-along[1], along[0]]) * half

    def quad(start: Floats, end: Floats) -> NDArray[np.int32]:
        corners = np.array([start + across, end + across, end - across, start - across])
        return np.round(corners * 2**_SHIFT).astype(np.int32)

    for target, value in ((canvas, colour), (mask, 1)):
        cv2.fillConvexPoly(target, quad(a, b), value, cv2.LINE_8, _SHIFT)
        for end in (a, b):
            cv2.circle(target, _fixed(end), int(half * 2**_SHIFT), value, -1, cv2.LINE_8, _SHIFT)
    dark = tuple(int(c * 0.55) for c in colour)
    for share in (0.3, 0.65):
        band = quad(a + (b - a) * share, a + (b - a) * (share + 0.1))
        cv2.fillConvexPoly(canvas, band, dark, cv2.LINE_8, _SHIFT)


def _truth(crowd: Crowd, poses: list[dict[str, Floats]], owner: Image | None) -> CrowdFrame:
    """Return what is true of a frame, for the people of whom anything is in it.

    ``owner`` is who is seen at each pixel of the drawing, counted from 1.
    """
    height, width = crowd.size
    n = len(poses)
    keypoints, visible = np.full((n, len(_K), 2), np.nan), np.zeros((n, len(_K)), bool)
    boxes, heads = np.zeros((n, 4)), np.zeros((n, 4))
    for i, (person, pose) in enumerate(zip(crowd.people, poses, strict=True)):
        xy = np.array([pose.get(name, (np.nan, np.nan)) for name in POSETRACK.names])
        low, high = np.nanmin(xy, axis=0) - 0.03 * person.height, np.nanmax(xy, axis=0) + 0.03 * person.height
        low, high = np.maximum(low, -0.5), np.minimum(high, [width - 0.5, height - 0.5])
        boxes[i] = *low, *(high - low)
        half = np.array(_HEAD) * person.height
        heads[i] = *(pose["head_middle"] - half), *(2 * half)
        inside = np.all((xy >= -0.5) & (xy < (width - 0.5, height - 0.5)), axis=-1)
        keypoints[i, inside] = xy[inside]
        visible[i] = inside
        if owner is not None:
            x, y = np.round(_to_canvas(xy[inside])).astype(int).T
            visible[i, inside] = owner[y.clip(0, len(owner) - 1), x.clip(0, owner.shape[1] - 1)] == i + 1
    there = np.flatnonzero(np.isfinite(keypoints).all(-1).any(-1) & np.all(boxes[:, 2:] > 1, axis=-1))
    return CrowdFrame(there, keypoints[there], visible[there], boxes[there], heads[there])
