"""Lengths and boxes by which distances between keypoints are measured."""

from __future__ import annotations

import numpy as np

from posewarper.errors import ConfigError
from posewarper.evaluation.matching import head_sizes
from posewarper.instances import InstanceTable
from posewarper.skeletons import Skeleton
from posewarper.structures import Floats, is_there

BOX_MARGIN = 0.1  # a side, of boxes that are made from keypoints


def boxes_or_extents(keypoints: Floats, boxes: Floats) -> Floats:
    """Return boxes (n, 4) xywh in pixels: the given ones, or else the extent of the keypoints and a margin.

    Args:
        keypoints: (n, K, 2), NaN where there is none.
        boxes: (n, 4) xywh; those of no size, or NaN, are made from the keypoints, with 10 percent more on
            each side. An instance without keypoints keeps what it has.
    """
    there = is_there(keypoints)[..., None]
    lowest = np.where(there, keypoints, np.inf).min(1, initial=np.inf)
    highest = np.where(there, keypoints, -np.inf).max(1, initial=-np.inf)
    seen = there.any((1, 2))
    lowest[~seen], highest[~seen] = np.nan, np.nan
    size = highest - lowest
    extents = np.concatenate([lowest - BOX_MARGIN * size, size * (1 + 2 * BOX_MARGIN)], axis=1)
    given = (boxes[:, 2:].max(-1, initial=0) > 0) | ~seen
    return np.where(given[:, None], boxes, extents)


def reference_lengths(table: InstanceTable, normaliser: str) -> Floats:
    """Return the length (n,) in pixels that distances to each instance are divided by; NaN where unknown.

    Args:
        table: labelled instances.
        normaliser: ``head`` (0.6 times the diagonal of the head box, as PoseTrack and PCKh), ``box`` (the
            longer side of the box), ``pixels`` (1), or two keypoints with a comma in between, such as
            ``left_shoulder,right_hip`` (the distance between the two).

    Raises:
        ConfigError: if there is no such normaliser.
    """
    if normaliser == "pixels":
        return np.ones(table.n_instances)
    if normaliser == "head":
        lengths = head_sizes(table.head_boxes)
    elif normaliser == "box":
        lengths = boxes_or_extents(table.keypoints, table.boxes)[:, 2:].max(-1)
    else:
        first, second = _two_keypoints(normaliser, table.skeleton)
        step = table.keypoints[:, first] - table.keypoints[:, second]
        lengths = np.hypot(step[:, 0], step[:, 1])
    return np.where(lengths > 0, lengths, np.nan)


def _two_keypoints(normaliser: str, skeleton: Skeleton) -> tuple[int, int]:
    names = [name.strip() for name in normaliser.split(",")]
    if len(names) != 2 or not set(names) <= set(skeleton.names):
        raise ConfigError(
            "unknown normaliser",
            expected="head, box, pixels, or two different keypoints with a comma in between, out of "
            + ", ".join(skeleton.names),
            got=normaliser,
            mend="use one of these",
        )
    first, second = (skeleton.names.index(name) for name in names)
    return first, second
