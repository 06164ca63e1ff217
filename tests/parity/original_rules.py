"""The original's rules for a whole COCO document: its array of propagated poses, and what it trains on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from posewarper.errors import LabelsError
from posewarper.formats.frame_names import number_in
from posewarper.posetrack.samples import label_boxes
from posewarper.posetrack.selection import Step, propagation_plan


@dataclass(frozen=True)
class FilledFrame:
    """One frame of the propagated result.

    Args:
        labelled_file: file name of its labelled frame.
        delta: its number less that of its labelled frame.
        rows: the rows of the result that it fills, one a person of the labelled frame.
        annotation_ids: the labelled annotations of those people.
    """

    labelled_file: str
    delta: int
    rows: tuple[int, ...]
    annotation_ids: tuple[int, ...]


def paper_rows(document: Mapping[str, Any]) -> tuple[dict[str, FilledFrame], int]:
    """Lay out the original's array of propagated poses for a whole COCO document.

    People are the annotations that have any keypoint. The array has as many rows as there are people in all
    frames; frames are filled video by video, and what is left over stays zero.

    Args:
        document: ``images`` and ``annotations``; a video is a folder of the file names.

    Returns:
        File name -> what the frame is filled with, in the order of rows; and the number of rows.

    Raises:
        LabelsError: where the original stops: a video with no run of more than three frames, a labelled frame
            without people, and more people to fill in than the array has rows; or a file name without a
            number.
    """
    people: dict[Any, list[int]] = {}
    for annotation in document["annotations"]:
        if has_keypoints(annotation):
            people.setdefault(annotation["image_id"], []).append(annotation["id"])
    n_rows = sum(len(ids) for ids in people.values())
    frames: dict[str, FilledFrame] = {}
    used = 0
    for video, images in _videos(document["images"]).items():
        for step in _plan_of(video, images):
            labelled = images[step.labelled]
            ids = people.get(labelled["id"], [])
            if not ids:
                raise LabelsError(
                    f"nobody has a keypoint in {labelled['file_name']}, which is to count as labelled",
                    expected="at least one person in each labelled frame",
                    fix="label somebody there, or leave the video out",
                )
            rows = tuple(range(used, used + len(ids)))
            used += len(ids)
            frames[images[step.number]["file_name"]] = FilledFrame(
                labelled["file_name"], step.delta, rows, tuple(ids)
            )
    if used > n_rows:
        raise LabelsError(
            "the labelled frames hold more people than the frames that they stand for, so the original's "
            "array has too few rows",
            expected=f"{n_rows} people to fill in at most, as many as are annotated",
            got=used,
            fix="propagate video by video with propagation_plan, which knows no such limit",
        )
    return frames, n_rows


def _videos(images: Iterable[Mapping[str, Any]]) -> dict[str, dict[int, Mapping[str, Any]]]:
    # Folder -> frame number -> image, in the order of the file.
    videos: dict[str, dict[int, Mapping[str, Any]]] = {}
    for image in images:
        folder, _, base = str(image["file_name"]).rpartition("/")
        number = number_in(base)
        if number is None:
            raise LabelsError(
                "a file name tells no frame number",
                expected="a name such as bonn/000001/00000004.jpg",
                got=image["file_name"],
                fix="name the frames by their numbers",
            )
        videos.setdefault(folder, {})[number] = image
    return videos


def _plan_of(video: str, images: Mapping[int, Any]) -> list[Step]:
    try:
        return propagation_plan(list(images))
    except LabelsError as error:
        raise LabelsError(
            f"{video}: {error.what}", expected=error.expected, got=error.got, fix=error.fix
        ) from error


def paper_annotations(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return those annotations of a COCO document of which the original makes samples, image by image.

    It makes none of crowds, categories other than the first, annotations without area or without keypoints,
    and those whose box lies outside of the image. Our own files go through :func:`samples_from_labels`
    instead, as they have no areas, crowds and categories.

    Raises:
        LabelsError: if an annotation points to no image, or has no box.
    """
    person = next((category["id"] for category in document.get("categories", [])), 1)
    of_image: dict[Any, list[dict[str, Any]]] = {image["id"]: [] for image in document["images"]}
    sizes = {image["id"]: (image["height"], image["width"]) for image in document["images"]}
    for annotation in document["annotations"]:
        image, box = annotation["image_id"], annotation.get("bbox")
        if image not in of_image or not box:
            raise LabelsError(
                f"annotation {annotation.get('id')} has no box, or its image is not in the file",
                got={"image_id": image, "bbox": box},
                fix="give it a bbox and the id of an image of the file",
            )
        wanted = annotation.get("category_id", person) == person and not annotation.get("iscrowd", 0)
        shown = annotation.get("area", 1) > 0 and label_boxes(box, sizes[image])[1][0]
        if wanted and shown and has_keypoints(annotation):
            of_image[image].append(annotation)
    return [annotation for annotations in of_image.values() for annotation in annotations]


def has_keypoints(annotation: Mapping[str, Any]) -> bool:
    """Whether an annotation of a COCO document has any keypoint, as the original tells: a number above 0."""
    return max(annotation.get("keypoints") or [0]) > 0
