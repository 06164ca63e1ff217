"""What PoseTrack's files have in common: the 15 points, the two rules for the neck, the names of frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from posewarper.errors import ConfigError, LabelsError
from posewarper.skeletons import POSETRACK
from posewarper.structures import Floats, InstanceTable, Ints

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

    Example:
        >>> table = InstanceTable("clip", ("clip/0.jpg",), [0], [0], np.full((1, 17, 2), 4.0))
        >>> apply_neck_rule(table, "shoulders").keypoints[0, 1].tolist()
        [4.0, 4.0]
    """
    if rule not in NECK_RULES:
        raise ConfigError(
            "unknown rule for the neck",
            expected=" or ".join(NECK_RULES),
            got=rule,
            fix="use one of the names expected",
        )
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


def frame_name(name: str) -> str:
    """Return the name of an image as tables hold it: ``/`` between folders, no leading ``images/``.

    Example:
        >>> frame_name("images/bonn_5sec/000342_mpii/00000001.jpg")
        'bonn_5sec/000342_mpii/00000001.jpg'
    """
    return name.replace("\\", "/").removeprefix("./").removeprefix("images/")


def corner_boxes(boxes: Floats) -> Floats:
    """Return xywh boxes (n, 4) as left, top, right, bottom."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
