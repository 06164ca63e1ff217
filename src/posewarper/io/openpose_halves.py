"""People whom OpenPose found in two parts, as two people: the parts are put together again."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from posewarper.errors import PosewarperWarning
from posewarper.io.clips import Instance
from posewarper.io.records import PathLike

# The parts of a person lie where the person is in the frame before or after, to this share of the size.
_CLOSE = 0.2
# Most of the keypoints of the smaller part that the other part may have as well.
_MOST_SHARED = 0.25


def join_halves(instances: Sequence[Instance], path: PathLike) -> list[Instance]:
    """Return the instances, with two of a frame as one where they are the parts of one person.

    They are, if they share next to no keypoint, the frame before or after has fewer people, and both lie
    where one and the same person is there. Of a keypoint that both have, the one nearer to that person's
    counts.

    Args:
        instances: people without ids.
        path: the folder, for the warning.

    Warns:
        PosewarperWarning: if some were joined.
    """
    frames: dict[int, list[Instance]] = {}
    for instance in instances:
        frames.setdefault(instance.frame, []).append(instance)
    joined = 0
    for frame, people in frames.items():
        beside = [frames.get(frame + step, []) for step in (-1, 1)]
        wholes = [person for others in beside if len(others) < len(people) for person in others]
        for a, b in combinations(list(people), 2):
            if any(a is p for p in people) and any(b is p for p in people) and _share_little(a, b):
                whole = next((p for p in wholes if _is_part(a, b, p) and _is_part(b, a, p)), None)
                if whole is not None:
                    people[:] = [p for p in people if p is not a and p is not b] + [_join(a, b, whole)]
                    joined += 1
    if joined:
        warnings.warn(
            f"{path}: people whom OpenPose found in two parts were joined: {joined}",
            PosewarperWarning,
            stacklevel=2,
        )
    return [instance for people in frames.values() for instance in people]


def _share_little(a: Instance, b: Instance) -> bool:
    there = np.stack([a.visibility, b.visibility]) > 0
    return bool(there.all(0).sum() <= _MOST_SHARED * there.sum(1).min())


def _distances(part: Instance, whole: Instance) -> np.ndarray:
    """Return (K,) pixels from each keypoint to that of the whole person, infinity where one is not there."""
    away = np.linalg.norm(part.keypoints - whole.keypoints, axis=-1)
    return np.where(np.isfinite(away), away, np.inf)


def _is_part(part: Instance, other: Instance, whole: Instance) -> bool:
    """Return whether what a part has and the other has not lies on a person."""
    away = _distances(part, whole)[other.visibility == 0]
    away = away[np.isfinite(away)]
    size = np.ptp(whole.keypoints[whole.visibility > 0], axis=0).max()
    return bool(away.size and away.mean() < _CLOSE * size)


def _join(a: Instance, b: Instance, whole: Instance) -> Instance:
    of_a = (a.visibility > 0) & ((b.visibility == 0) | (_distances(a, whole) <= _distances(b, whole)))
    scores = [np.full(len(of_a), np.nan) if i.scores is None else i.scores for i in (a, b)]
    return Instance(
        a.frame,
        None,
        np.where(of_a[:, None], a.keypoints, b.keypoints),
        np.where(of_a, a.visibility, b.visibility),
        f"{a.where} and {b.where.rpartition(' ')[2]}",
        scores=np.where(of_a, *scores),
    )
