"""Skeletons: the names of the keypoints, the edges between them, and which are mirror images."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from posewarper.errors import LabelsError, unknown_name, wrong_type

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
        repeated = sorted({n for n in self.names if self.names.count(n) > 1})
        if repeated:
            raise LabelsError(
                "a skeleton names keypoints twice", got=", ".join(repeated), fix="make the names unique"
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
            return tuple((int(index.get(a, a)), int(index.get(b, b))) for a, b in pairs)  # type: ignore[arg-type]
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
        lower = tuple(k for k, name in enumerate(self.names) if _LOWER_BODY.search(name))
        return tuple(k for k in range(len(self)) if k not in lower), lower


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
PRESETS: dict[str, Skeleton] = {
    "coco": COCO,
    "posetrack": POSETRACK,
    "body_25b": BODY_25B,
    "body_25": BODY_25,
    "coco_18": COCO_18,
}


def named_skeleton(name: str) -> Skeleton:
    """Return a preset skeleton by name.

    Raises:
        LabelsError: if there is no such preset.
    """
    if name not in PRESETS:
        raise unknown_name("unknown skeleton", name, PRESETS, error=LabelsError)
    return PRESETS[name]
