"""Skeletons: the names of the keypoints, the edges between them, and which are mirror images."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from posewarper.errors import LabelsError, few_of, repeated, unknown_name, wrong_type

# How names mark a side, each with what the other side would be called. The patterns look for whole words
# ("left_knee"), for one letter set off by a separator ("paw_l"), by a capital ("LKnee", "wingL") or by a
# number behind it ("forelegL4").
_SIDES = (
    (re.compile(r"left|right", re.IGNORECASE), {"left": "right", "right": "left"}),
    (re.compile(r"(?<![A-Za-z0-9])[lLrR](?![A-Za-z0-9])"), {"l": "r", "r": "l"}),
    (re.compile(r"^[LR](?=[A-Z])"), {"l": "r", "r": "l"}),
    (re.compile(r"(?<=[a-z])[LR](?=\d*$)"), {"l": "r", "r": "l"}),
)
_LOWER_BODY = re.compile(r"hip|knee|ankle|heel|toe|foot", re.IGNORECASE)


def _mirrored_name(name: str) -> str | None:
    """Return the name of the same keypoint on the other side, or None if it has no side."""
    for pattern, swap in _SIDES:
        match = pattern.search(name)
        if match is None:
            continue
        side = match.group()
        other = swap[side.lower()]
        other = other.upper() if side.isupper() else other.capitalize() if side[0].isupper() else other
        return name[: match.start()] + other + name[match.end() :]
    return None


@dataclass(frozen=True)
class Skeleton:
    """Keypoint names in order, edges and mirror pairs.

    Args:
        names: K keypoint names, unique, in the order of every array with a keypoint axis.
        edges: pairs of keypoint indices (from 0), or of names, to draw as limbs.
        flip_pairs: pairs of keypoint indices that change places in a mirror image. When left out they
            are read from the names (``left_knee``/``right_knee``, ``LKnee``/``RKnee``, ``wingL``/``wingR``).
        name: what one instance is called ("person", "fly").

    Raises:
        LabelsError: if names repeat, an index is out of range or a keypoint is in two flip pairs.

    Example:
        >>> Skeleton(names=("nose", "left_eye", "right_eye")).flip_pairs
        ((1, 2),)
    """

    names: tuple[str, ...]
    edges: tuple[tuple[int, int], ...] = ()
    flip_pairs: tuple[tuple[int, int], ...] = field(default=None)  # type: ignore[assignment]
    name: str = "person"

    def __post_init__(self) -> None:
        if isinstance(self.names, str):
            raise wrong_type("the keypoints' names", self.names, "a list of names, such as ['nose', 'tail']")
        object.__setattr__(self, "names", tuple(str(n) for n in self.names))
        object.__setattr__(self, "edges", self._pairs(self.edges))
        pairs = _flip_pairs_of(self.names) if self.flip_pairs is None else self.flip_pairs
        object.__setattr__(self, "flip_pairs", self._pairs(pairs))
        if not self.names:
            raise LabelsError("a skeleton has no keypoints", fix="name at least one keypoint")
        if twice := repeated(self.names):
            raise LabelsError(
                "a skeleton names keypoints twice", got=few_of(twice), fix="make the names unique"
            )
        for a, b in (*self.edges, *self.flip_pairs):
            if not (0 <= a < len(self.names) and 0 <= b < len(self.names)):
                raise LabelsError(
                    "a skeleton's edge or flip pair points to a keypoint that does not exist",
                    expected=f"indices from 0 to {len(self.names) - 1}",
                    got=(a, b),
                    fix="correct the index (edges count from 0 here, from 1 in COCO files)",
                )
        mirrored = [k for pair in self.flip_pairs for k in pair]
        if len(set(mirrored)) < len(mirrored):
            raise LabelsError(
                "a skeleton has a keypoint in two mirror pairs, or as its own mirror image",
                expected="each keypoint in one pair at most",
                got=self.flip_pairs,
                fix="correct the flip pairs; keypoints in the middle of the body are in none",
            )

    def _pairs(self, pairs: Iterable[Iterable[int | str]]) -> tuple[tuple[int, int], ...]:
        """Return pairs of indices, for which keypoints' names may stand."""
        index = {name: k for k, name in enumerate(self.names)}
        try:
            found = tuple((index.get(a, a), index.get(b, b)) for a, b in pairs)  # type: ignore[arg-type]
            if any(isinstance(k, float) and not k.is_integer() for pair in found for k in pair):
                raise ValueError("an index is a whole number")
            return tuple((int(a), int(b)) for a, b in found)
        except (TypeError, ValueError):
            expected = "pairs of keypoints: indices from 0, or names"
            raise LabelsError(
                "a skeleton's edges or flip pairs are wrong", expected=expected, got=pairs, fix="correct them"
            ) from None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def flip_order(self) -> tuple[int, ...]:
        """K indices: ``keypoints[flip_order]`` is what the mirror image shows at each name."""
        order = list(range(len(self)))
        for a, b in self.flip_pairs:
            order[a], order[b] = b, a
        return tuple(order)

    @property
    def halves(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Indices of the upper and of the lower body; the lower is empty when the names do not tell."""
        is_low = [bool(_LOWER_BODY.search(name)) for name in self.names]
        upper, lower = (tuple(k for k, low in enumerate(is_low) if low == wanted) for wanted in (False, True))
        return upper, lower


def _flip_pairs_of(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    index = {name: k for k, name in enumerate(names)}
    pairs = ((k, index.get(_mirrored_name(name) or "", -1)) for k, name in enumerate(names))
    return tuple((k, other) for k, other in pairs if k < other)


_COCO_NAMES = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder"),
    *("left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip"),
    *("left_knee", "right_knee", "left_ankle", "right_ankle"),
)
_LIMBS = (
    *((15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6)),
    *((5, 7), (6, 8), (7, 9), (8, 10)),
)

COCO = Skeleton(_COCO_NAMES, (*_LIMBS, (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)))
POSETRACK = Skeleton(
    ("nose", "head_bottom", "head_top", *_COCO_NAMES[3:]), (*_LIMBS, (0, 1), (0, 2), (1, 5), (1, 6))
)
_FEET = ("LBigToe", "LSmallToe", "LHeel", "RBigToe", "RSmallToe", "RHeel")
BODY_25B = Skeleton(
    (
        *("Nose", "LEye", "REye", "LEar", "REar", "LShoulder", "RShoulder", "LElbow", "RElbow"),
        *("LWrist", "RWrist", "LHip", "RHip", "LKnee", "RKnee", "LAnkle", "RAnkle", "UpperNeck"),
        *("HeadTop", *_FEET),
    ),
    (
        *_LIMBS,
        *((0, 1), (0, 2), (1, 3), (2, 4), (0, 17), (17, 18), (17, 5), (17, 6)),
        *((15, 19), (19, 20), (15, 21), (16, 22), (22, 23), (16, 24)),
    ),
)
# OpenPose's default model, and its older one with the names of COCO and a neck.
_NECK_AND_ARMS = ("Nose", "Neck", "RShoulder", "RElbow", "RWrist", "LShoulder", "LElbow", "LWrist")
_NECK_AND_ARMS_EDGES = ((1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7), (0, 1))
_LEGS = ("RHip", "RKnee", "RAnkle", "LHip", "LKnee", "LAnkle")
_FACE = ("REye", "LEye", "REar", "LEar")
BODY_25 = Skeleton(
    (*_NECK_AND_ARMS, "MidHip", *_LEGS, *_FACE, *_FEET),
    (
        *_NECK_AND_ARMS_EDGES,
        *((1, 8), (8, 9), (9, 10), (10, 11), (8, 12), (12, 13), (13, 14)),
        *((0, 15), (15, 17), (0, 16), (16, 18)),
        *((14, 19), (19, 20), (14, 21), (11, 22), (22, 23), (11, 24)),
    ),
)
COCO_18 = Skeleton(
    (*_NECK_AND_ARMS, *_LEGS, *_FACE),
    (
        *_NECK_AND_ARMS_EDGES,
        *((1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13)),
        *((0, 14), (14, 16), (0, 15), (15, 17)),
    ),
)
MPI_15 = Skeleton(
    ("Head", *_NECK_AND_ARMS[1:], *_LEGS, "Chest"),
    (
        *_NECK_AND_ARMS_EDGES,
        *((1, 14), (14, 8), (8, 9), (9, 10), (14, 11), (11, 12), (12, 13)),
    ),
)


# Sets of other data sets, in the order and with the edges that their authors published (as mmpose has them).
def _both(*parts: str) -> tuple[str, ...]:
    return tuple(f"{side}_{part}" for part in parts for side in ("left", "right"))


_FOOT = ("big_toe", "small_toe", "heel")
_ARMS_AND_LEGS = _both("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
_HEAD_EDGES = ((1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6))

HALPE_26 = Skeleton(
    (*_COCO_NAMES, "head", "neck", "hip", *_both(*_FOOT)),
    (
        *((15, 13), (13, 11), (11, 19), (16, 14), (14, 12), (12, 19), (17, 18), (18, 19)),
        *((18, 5), (5, 7), (7, 9), (18, 6), (6, 8), (8, 10), *_HEAD_EDGES),
        *((15, 20), (15, 22), (15, 24), (16, 21), (16, 23), (16, 25)),
    ),
)
CROWDPOSE = Skeleton(
    (*_ARMS_AND_LEGS, "top_head", "neck"),
    (
        *((10, 8), (8, 6), (11, 9), (9, 7), (6, 7), (0, 6), (1, 7), (0, 1)),
        *((0, 2), (1, 3), (2, 4), (3, 5), (12, 13), (1, 13), (0, 13)),
    ),
)
_RIGHT_THEN_LEFT = (
    *("right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist"),
    *("right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle"),
)
AIC = Skeleton(
    (*_RIGHT_THEN_LEFT, "head_top", "neck"),
    (
        *((2, 1), (1, 0), (0, 13), (13, 3), (3, 4), (4, 5), (8, 7), (7, 6), (6, 9), (9, 10), (10, 11)),
        *((12, 13), (0, 6), (3, 9)),
    ),
)
MPII = Skeleton(
    (
        *("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "pelvis"),
        *("thorax", "upper_neck", "head_top", "right_wrist", "right_elbow", "right_shoulder"),
        *("left_shoulder", "left_elbow", "left_wrist"),
    ),
    (
        *((0, 1), (1, 2), (2, 6), (6, 3), (3, 4), (4, 5), (6, 7), (7, 8), (8, 9)),
        *((8, 12), (12, 11), (11, 10), (8, 13), (13, 14), (14, 15)),
    ),
)
H36M = Skeleton(
    (
        *("root", "right_hip", "right_knee", "right_foot", "left_hip", "left_knee", "left_foot", "spine"),
        *("thorax", "neck_base", "head", "left_shoulder", "left_elbow", "left_wrist"),
        *("right_shoulder", "right_elbow", "right_wrist"),
    ),
    (
        *((0, 4), (4, 5), (5, 6), (0, 1), (1, 2), (2, 3), (0, 7), (7, 8), (8, 9), (9, 10)),
        *((8, 11), (11, 12), (12, 13), (8, 14), (14, 15), (15, 16)),
    ),
)
AP10K = Skeleton(
    (
        *("L_Eye", "R_Eye", "Nose", "Neck", "Root of tail", "L_Shoulder", "L_Elbow", "L_F_Paw"),
        *("R_Shoulder", "R_Elbow", "R_F_Paw", "L_Hip", "L_Knee", "L_B_Paw", "R_Hip", "R_Knee", "R_B_Paw"),
    ),
    (
        *((0, 1), (0, 2), (1, 2), (2, 3), (3, 4), (3, 5), (5, 6), (6, 7), (3, 8), (8, 9), (9, 10)),
        *((4, 11), (11, 12), (12, 13), (4, 14), (14, 15), (15, 16)),
    ),
    name="animal",
)
ANIMAL_POSE = Skeleton(
    (
        *("L_Eye", "R_Eye", "L_EarBase", "R_EarBase", "Nose", "Throat", "TailBase", "Withers"),
        *("L_F_Elbow", "R_F_Elbow", "L_B_Elbow", "R_B_Elbow", "L_F_Knee", "R_F_Knee", "L_B_Knee"),
        *("R_B_Knee", "L_F_Paw", "R_F_Paw", "L_B_Paw", "R_B_Paw"),
    ),
    (
        *((0, 1), (0, 2), (1, 3), (0, 4), (1, 4), (4, 5), (5, 7), (6, 7), (5, 8), (8, 12), (12, 16)),
        *((5, 9), (9, 13), (13, 17), (6, 10), (10, 14), (14, 18), (6, 11), (11, 15), (15, 19)),
    ),
    name="animal",
)
JRDB = Skeleton(
    (
        *("head", "right eye", "left eye", "right shoulder", "center shoulder", "left shoulder"),
        *("right elbow", "left elbow", "center hip", "right wrist", "right hip", "left hip", "left wrist"),
        *("right knee", "left knee", "right foot", "left foot"),
    ),
    (
        *((1, 2), (0, 4), (4, 3), (4, 5), (4, 8), (3, 6), (6, 9), (5, 7), (7, 12)),
        *((8, 10), (10, 13), (13, 15), (8, 11), (11, 14), (14, 16)),
    ),
)
# MediaPipe's, and the whole bodies with 68 keypoints in the face and 21 in each hand.
BLAZEPOSE = Skeleton(
    (
        *("nose", "left_eye_inner", "left_eye", "left_eye_outer", "right_eye_inner", "right_eye"),
        *("right_eye_outer", "left_ear", "right_ear", "mouth_left", "mouth_right", *_ARMS_AND_LEGS[:6]),
        *(*_both("pinky", "index", "thumb"), *_ARMS_AND_LEGS[6:], *_both("heel", "foot_index")),
    ),
    (
        *((0, 1), (1, 2), (2, 3), (3, 7), (0, 4), (4, 5), (5, 6), (6, 8), (9, 10), (11, 12), (11, 13)),
        *((13, 15), (15, 17), (15, 19), (15, 21), (17, 19), (12, 14), (14, 16), (16, 18), (16, 20)),
        *((16, 22), (18, 20), (11, 23), (12, 24), (23, 24), (23, 25), (24, 26), (25, 27), (26, 28)),
        *((27, 29), (28, 30), (29, 31), (30, 32), (27, 31), (28, 32)),
    ),
)
_FINGERS = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")


def _whole_body(body: Skeleton, wrists: tuple[int, int] | None) -> Skeleton:
    """Return a body with the face and the hands behind it; fingers begin at ``wrists`` or at the hands."""
    face = len(body)
    names, edges = [*body.names, *(f"face-{k}" for k in range(68))], list(body.edges)
    for n, side in enumerate(("left", "right")):
        root = len(names)
        names += [f"{side}_hand_root", *(f"{side}_{finger}{k}" for finger in _FINGERS for k in range(1, 5))]
        for finger in range(5):
            first = root + 1 + 4 * finger
            edges += [(wrists[n] if wrists else root, first), *((k, k + 1) for k in range(first, first + 3))]
    pairs = [*((k, 16 - k) for k in range(8)), *((k, 43 - k) for k in range(17, 22)), (31, 35), (32, 34)]
    pairs += [(36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46), (48, 54), (49, 53), (50, 52)]
    pairs += [(55, 59), (56, 58), (60, 64), (61, 63), (65, 67)]
    sides = Skeleton(tuple(names)).flip_pairs
    return Skeleton(tuple(names), tuple(edges), (*sides, *((face + a, face + b) for a, b in pairs)))


COCO_WHOLEBODY = _whole_body(
    Skeleton(
        (*_COCO_NAMES, *(f"{side}_{part}" for side in ("left", "right") for part in _FOOT)),
        (*COCO.edges, (15, 17), (15, 18), (15, 19), (16, 20), (16, 21), (16, 22)),
    ),
    None,
)
HALPE_136 = _whole_body(HALPE_26, (9, 10))
PRESETS: dict[str, Skeleton] = {
    "coco": COCO,
    "posetrack": POSETRACK,
    "body_25b": BODY_25B,
    "body_25": BODY_25,
    "coco_18": COCO_18,
    "mpi_15": MPI_15,
    "halpe_26": HALPE_26,
    "halpe_136": HALPE_136,
    "coco_wholebody": COCO_WHOLEBODY,
    "crowdpose": CROWDPOSE,
    "aic": AIC,
    "mpii": MPII,
    "h36m": H36M,
    "jrdb": JRDB,
    "blazepose": BLAZEPOSE,
    "ap10k": AP10K,
    "animal_pose": ANIMAL_POSE,
}


def presets_of(count: int) -> list[str]:
    """Return the names of the presets that have so many keypoints."""
    return [name for name, skeleton in PRESETS.items() if len(skeleton) == count]


def named_skeleton(name: str) -> Skeleton:
    """Return a preset skeleton by name.

    Raises:
        LabelsError: if there is no such preset.
    """
    if name not in PRESETS:
        raise unknown_name("unknown skeleton", name, PRESETS, error=LabelsError)
    return PRESETS[name]
