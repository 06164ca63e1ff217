"""What the annotations of a PoseTrack18-style file say, as columns of an instance table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from posewarper.instances import NO_TRACK
from posewarper.io.annolist import single_number
from posewarper.io.records import LARGEST_COORDINATE, Record, as_numbers, shown
from posewarper.skeletons import POSETRACK, Skeleton
from posewarper.structures import Floats, is_there

_HEAD_BOXES = ("bbox_head", "head_box")
_LARGEST_TRACK = 2**62


def read_columns(
    annotations: Sequence[Record], skeleton: Skeleton, category: int | str | None
) -> tuple[dict[str, Any], Skeleton]:
    """Return the columns of all annotations, without their frames, and their skeleton.

    Keypoints that are all PoseTrack's are put into PoseTrack's order.

    Args:
        annotations: the file's.
        skeleton: of the file.
        category: id of the category of people, None if the file has no categories.

    Raises:
        LabelsError: if a value is not as it should be.
    """
    n, k = len(annotations), len(skeleton)
    triples = _read_triples(annotations, k)
    keypoints, third = triples[..., :2], triples[..., 2]
    scores = np.full((n, k), np.nan)
    stated = np.zeros(n, bool)
    for i, record in enumerate(annotations):
        given = record.numbers("scores", k, gaps=True)
        if given is not None:
            scores[i], stated[i] = given, True
    # Some write the score in place of the visibility, which is then no 0, 1 or 2.
    if not np.isin(third, (0, 1, 2)).all():
        scores = np.where(stated[:, None], scores, third)
    keypoints[~(third > 0)] = np.nan
    columns = {
        "keypoints": keypoints,
        "keypoint_scores": np.where(is_there(keypoints), scores, np.nan),
        "scores": np.array([single_number(record, "score") for record in annotations], np.float64),
        "tracks": np.array([_track(record) for record in annotations], np.int64),
        "boxes": _read_boxes(annotations, ("bbox",)),
        "head_boxes": _read_boxes(annotations, _HEAD_BOXES),
        "is_person": np.array([_is_person(record, category) for record in annotations], bool),
    }
    return columns, _arrange(columns, skeleton)


def _read_triples(annotations: Sequence[Record], k: int) -> Floats:
    """Return x, y and the third number of each keypoint (n, K, 3)."""
    triples = np.zeros((len(annotations), 3 * k))
    for i, record in enumerate(annotations):
        values = record.values.get("keypoints")
        if not values:  # a person with a box alone
            continue
        array = as_numbers(values, gaps=True) if isinstance(values, list) else None
        if array is None or len(array) != 3 * k:
            expected = f"a list of {3 * k} numbers: x, y, visibility of {k} keypoints"
            mend = "correct it, or export again"
            raise record.problem("keypoints is wrong", expected=expected, got=shown(values), mend=mend)
        triples[i] = array
    triples = triples.reshape(-1, k, 3)
    # The third number may be a score, but none that is infinite.
    bad = (np.abs(triples) > LARGEST_COORDINATE).any(-1) & (triples[..., 2] > 0)
    if bad.any():
        i, j = np.argwhere(bad)[0]
        raise annotations[i].problem(
            f"keypoint {j + 1} of {k} is wrong",
            expected="x and y in pixels, and visibility or score",
            got=", ".join(f"{number:g}" for number in triples[i, j]),
            mend="correct it, or give it visibility 0",
        )
    return triples


def _read_boxes(annotations: Sequence[Record], keys: Sequence[str]) -> Floats:
    boxes = np.full((len(annotations), 4), np.nan)
    for i, record in enumerate(annotations):
        for key in keys:
            box = record.numbers(key, 4)
            if box is not None:
                boxes[i] = box
                break
    return boxes


def _is_person(record: Record, category: int | str | None) -> bool:
    area = single_number(record, "area")
    own = record.identifier("category_id")
    return not record.values.get("iscrowd") and not area <= 0 and (own is None or own == category)


def _track(record: Record) -> int:
    track = record.whole("track_id", low=-_LARGEST_TRACK, high=_LARGEST_TRACK)
    return NO_TRACK if track is None else track


def _arrange(columns: dict[str, Any], skeleton: Skeleton) -> Skeleton:
    """Put keypoints that are PoseTrack's into its order, and return the skeleton that they then have."""
    if not set(skeleton.names) <= set(POSETRACK.names):
        return skeleton
    if skeleton.names != POSETRACK.names:
        places = [POSETRACK.names.index(name) for name in skeleton.names]
        for key in ("keypoints", "keypoint_scores"):
            old = columns[key]
            columns[key] = np.full((len(old), len(POSETRACK), *old.shape[2:]), np.nan)
            columns[key][:, places] = old
    return POSETRACK
