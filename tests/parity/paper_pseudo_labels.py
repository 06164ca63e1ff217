"""Propagated poses as labels: an annotation file, joined by the neighbours of its labelled frames."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from original_rules import has_keypoints

from posewarper.errors import LabelsError
from posewarper.options import MIN_SCORE
from posewarper.structures import Floats


def paper_pseudo_labels(
    document: Mapping[str, Any], predictions: Mapping[int, ArrayLike], *, min_score: float = MIN_SCORE
) -> dict[str, Any]:
    """Return an annotation file joined by the poses propagated from its frames, as the original writes it.

    A person of a labelled frame is written again for each neighbour: box, area, track id and the number of
    keypoints are copied as they are, the head box is emptied, and the keypoints are the propagated ones. A
    keypoint with x > 0, y > 0 and a score above ``min_score`` gets visibility 2; the others become 0, 0, 0,
    and a person may be left with none. New images are told apart by their file name: neighbours of two
    labelled frames may share one, while one that has the name of a labelled frame is a new image all the
    same. Frames before the first or after the last of the video are written, too, under the number that they
    would have.

    Args:
        document: COCO ``images`` and ``annotations``, and whatever else the file holds.
        predictions: offset in frames -> (n, K, 3) x, y and score, one row for each annotation that has any
            keypoint, in the order of the file.
        min_score: see above.

    Raises:
        LabelsError: if the predictions do not fit the annotations, an annotation points to no image, or a
            file name tells no frame number.
    """
    people = [annotation for annotation in document["annotations"] if has_keypoints(annotation)]
    images = {image["id"]: image for image in document["images"]}
    result = copy.deepcopy(dict(document))
    image_ids = itertools.count(max(images, default=0) + 1)
    ids = itertools.count(max((a["id"] for a in document["annotations"]), default=0) + 1)
    added: dict[str, dict[str, Any]] = {}
    for delta, poses in predictions.items():
        for person, pose in zip(people, _checked(poses, people, delta), strict=True):
            source = images.get(person["image_id"])
            if source is None:
                raise LabelsError(
                    f"annotation {person['id']} belongs to no image of the file",
                    got=f"image_id {person['image_id']}",
                    fix="list the image, or remove the annotation",
                )
            moved = _moved_image(source, int(delta))
            image = added.get(moved["file_name"])
            if image is None:
                image = added[moved["file_name"]] = {**moved, "id": next(image_ids)}
                result["images"].append(image)
            labels = {"id": next(ids), "image_id": image["id"], "keypoints": _as_labels(pose, min_score)}
            emptied: dict[str, Any] = {"head_box": []} if "head_box" in person else {}
            result["annotations"].append({**copy.deepcopy(person), **labels, **emptied})
    return result


def _checked(poses: ArrayLike, people: list[dict[str, Any]], delta: int) -> Floats:
    poses = np.asarray(poses, np.float64)
    n_keypoints = {len(person["keypoints"]) // 3 for person in people}
    if len(poses) != len(people) or any(poses.shape != (len(people), k, 3) for k in n_keypoints):
        raise LabelsError(
            f"the poses propagated by {delta} frames do not fit the annotations",
            expected=f"{len(people)} rows of {sorted(n_keypoints)} keypoints x, y, score",
            got=poses.shape,
            fix="give the poses of this very file, one row for each annotation that has any keypoint",
        )
    return poses


def _moved_image(image: Mapping[str, Any], delta: int) -> dict[str, Any]:
    moved = copy.deepcopy(dict(image))
    for key in ("file_name", "original_file_name"):
        if key in image:
            moved[key] = _moved_name(image[key], delta)
    if "frame_id" in image:
        moved["frame_id"] = image["frame_id"] + delta
    return moved


def _moved_name(name: str, delta: int) -> str:
    # The number keeps the width of the source's, so that 2 less 3 becomes -0000001.
    folder, slash, base = name.rpartition("/")
    number, dot, suffix = base.partition(".")
    if not number.isdecimal():
        raise LabelsError(
            "a file name tells no frame number",
            expected="a name such as bonn/000001/00000004.jpg",
            got=name,
            fix="name the frames by their numbers alone",
        )
    return f"{folder}{slash}{int(number) + delta:0{len(number)}d}{dot}{suffix}"


def _as_labels(pose: Floats, min_score: float) -> list[float]:
    # (K, 3) x, y, score -> 3 K numbers x, y, visibility.
    kept = (pose[:, 0] > 0) & (pose[:, 1] > 0) & (pose[:, 2] > min_score)
    labels = np.column_stack([pose[:, :2], np.full(len(pose), 2.0)])
    return np.where(kept[:, None], labels, 0.0).ravel().tolist()
