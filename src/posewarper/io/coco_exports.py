"""What labelling tools do in their COCO exports that COCO itself does not say.

CVAT ("COCO Keypoints 1.0") gives each annotation ``attributes``: the ``track_id`` of an object that was
labelled as a track, and ``keyframe``, false where the pose was not set by a person but interpolated between
keyframes. Label Studio writes whole pixels, one annotation an image with the keypoints of all, and names the
keypoints in the order of its labels, while their values follow ``model_index``.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from posewarper.errors import PosewarperWarning
from posewarper.io.clips import Instance
from posewarper.io.records import PathLike, Record


def read_track(record: Record) -> int | None:
    """Return the track of an annotation: its own ``track_id``, or that of its attributes."""
    own = record.whole("track_id", low=-(2**63), high=2**63 - 1)
    attributes = _attributes(record) if own is None else None
    return own if attributes is None else attributes.whole("track_id", low=-(2**63), high=2**63 - 1)


def _attributes(record: Record) -> Record | None:
    values = record.values.get("attributes")
    if values is None:
        return None
    if not isinstance(values, dict):
        raise record.wrong("attributes", "an object")
    return Record(record.path, f"{record.where}: attributes", values)


def _is_keyframe(record: Record) -> bool:
    attributes = _attributes(record)
    return attributes is None or attributes.flag("keyframe") is not False


def find_interpolated(records: Sequence[Record], instances: Sequence[Instance], path: PathLike) -> set[int]:
    """Return the frames all of whose instances CVAT interpolated between keyframes.

    Args:
        records: the annotations.
        instances: what was read from each.
        path: the file, for the warning.

    Warns:
        PosewarperWarning: if there are such frames.
    """
    is_key = [_is_keyframe(record) for record in records]
    if all(is_key) or not _are_flags_right(instances, is_key):
        return set()
    labelled = {instance.frame for instance, key in zip(instances, is_key, strict=True) if key}
    frames = {instance.frame for instance in instances} - labelled
    if frames:
        warnings.warn(
            f"{path}: frames with nothing but poses that CVAT interpolated (keyframe false): {len(frames)}; "
            "they count as predictions. Make them keyframes there if they are right.",
            PosewarperWarning,
            stacklevel=2,
        )
    return frames


def _are_flags_right(instances: Sequence[Instance], is_key: Sequence[bool]) -> bool:
    """Return whether poses move only because of keyframes.

    CVAT's versions of 2023 and before marked the first pose of a track alone as a keyframe.
    """
    tracks: dict[int | None, list[tuple[Instance, bool]]] = {}
    for instance, key in sorted(zip(instances, is_key, strict=True), key=lambda pair: pair[0].frame):
        tracks.setdefault(instance.track, []).append((instance, key))
    for (first, _), *others in tracks.values():
        held = all(np.array_equal(first.keypoints, i.keypoints, equal_nan=True) for i, _ in others)
        if not held and not any(key for _, key in others):
            return False
    return True


def mend_keypoints(document: Mapping[str, Any]) -> str:
    """Return what to do about annotations with another number of keypoints than their category."""
    info = document.get("info")
    if isinstance(info, dict) and info.get("contributor") == "Label Studio":
        return "give every label of KeyPointLabels a model_index in Label Studio, 0, 1, 2, ... from the top"
    return "correct keypoints or export again"
