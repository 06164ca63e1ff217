"""What PoseTrack's files have in common: the 15 points, the rules for the neck, and how values are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posewarper.errors import LabelsError, unknown_name
from posewarper.formats.records import LARGEST_COORDINATE, Record
from posewarper.skeletons import POSETRACK
from posewarper.structures import InstanceTable, Ints

# In the order of their ids, which count from 0.
POINTS = (
    *("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle"),
    *("right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist"),
    *("neck", "nose", "head_top"),
)
# (15,) where each point stands among the keypoints of POSETRACK; its neck is called head_bottom there.
POINT_KEYPOINTS: Ints = np.array(
    [POSETRACK.names.index("head_bottom" if name == "neck" else name) for name in POINTS], np.int64
)
POINT_KEYPOINTS.setflags(write=False)
NECK_RULES = ("shoulders", "head_bottom")


def apply_neck_rule(table: InstanceTable, rule: str) -> InstanceTable:
    """Return the instances with the neck that a rule asks for.

    Args:
        table: instances with the keypoints head_bottom, left_shoulder and right_shoulder.
        rule: ``head_bottom`` leaves the keypoint of that name as it is. ``shoulders`` puts it half-way
            between the shoulders, with the mean of their scores, as the original wrote its results; where a
            shoulder is missing there is no neck.

    Raises:
        ConfigError: if there is no such rule.
        LabelsError: if the skeleton lacks one of the three keypoints.
    """
    if rule not in NECK_RULES:
        raise unknown_name("unknown rule for the neck", rule, NECK_RULES)
    names = table.skeleton.names
    absent = sorted({"head_bottom", "left_shoulder", "right_shoulder"} - set(names))
    if absent:
        raise LabelsError(
            "the skeleton has no neck to find",
            expected="PoseTrack's keypoints",
            got=f"keypoints without {', '.join(absent)}",
            fix="use labels or predictions with PoseTrack's keypoints",
        )
    if rule == "head_bottom":
        return table
    neck, left, right = (names.index(n) for n in ("head_bottom", "left_shoulder", "right_shoulder"))
    keypoints, scores = table.keypoints.copy(), table.keypoint_scores.copy()
    keypoints[:, neck] = (keypoints[:, left] + keypoints[:, right]) / 2
    scores[:, neck] = (scores[:, left] + scores[:, right]) / 2
    return replace(table, keypoints=keypoints, keypoint_scores=scores)


def check_names(names: Sequence[str], frames: Sequence[Record]) -> None:
    """Raise LabelsError if two frames of a file have the same name."""
    if len(set(names)) < len(names):
        i = next(i for i, name in enumerate(names) if name in names[:i])
        got = f"{names[i]}, also at {frames[names.index(names[i])].where}"
        raise frames[i].problem("two frames have the same file name", got=got, fix="keep one of the two")


def labelled_flags(flags: Sequence[bool | None], rows: Iterable[int]) -> NDArray[np.bool_]:
    """Return which frames are labelled (F,): all if the file does not say, and those not told if peopled."""
    if all(flag is None for flag in flags):
        return np.ones(len(flags), bool)
    peopled = {int(row) for row in rows}
    return np.array([row in peopled if flag is None else flag for row, flag in enumerate(flags)], bool)


def single(value: Any) -> Any:
    """Return a value out of the lists of one around it; None for an empty list."""
    while type(value) is list and len(value) < 2:
        value = value[0] if value else None
    return value


def single_number(record: Record, key: str) -> float:
    """Return a number that may stand in a list of one; NaN when it is absent, null or empty.

    Raises:
        LabelsError: if it is anything else.
    """
    value = single(record.values.get(key))
    if value is None:
        return np.nan
    if type(value) not in (int, float) or abs(value) > LARGEST_COORDINATE * 1e6:
        raise record.wrong(key, "a number")
    return float(value)


def whole(record: Record, key: str) -> int | None:
    """Return an id or another whole number of any size that fits 64 bits; None when it is absent or null."""
    return record.whole(key, low=-(2**62), high=2**62)


def without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that a file writes: those that are not None."""
    return {key: value for key, value in values.items() if value is not None}
