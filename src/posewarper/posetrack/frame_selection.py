"""Which frames of a video count as labelled in the paper's propagation experiment, and what they stand for.

A video's longest run of consecutive frame numbers is used. Its fourth frame is labelled and every seventh
after it; the last one too, if it lies more than three after. A labelled frame stands for three to either
side.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from posewarper.errors import LabelsError
from posewarper.io.frame_names import number_in
from posewarper.posetrack.samples import has_keypoints
from posewarper.structures import Ints

REACH = 3
"""How many frames to either side a labelled frame stands for."""


class Step(NamedTuple):
    """One frame to be filled: its number, that of its labelled frame, and the first less the second."""

    number: int
    labelled: int
    delta: int


def longest_run(numbers: ArrayLike) -> Ints:
    """Return the longest stretch of consecutive numbers, rising; the first one on a tie.

    Example:
        >>> longest_run([7, 1, 2, 3, 8, 9]).tolist()
        [1, 2, 3]
    """
    numbers = np.unique(np.asarray(numbers, np.int64))
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return max(runs, key=len)


def labelled_numbers(run: ArrayLike) -> list[int]:
    """Return which frames of a run of consecutive numbers count as labelled.

    Raises:
        LabelsError: if the run is too short for one.

    Example:
        >>> labelled_numbers(range(10, 25))
        [13, 20, 24]
    """
    run = np.asarray(run, np.int64)
    if len(run) <= REACH:
        raise LabelsError(
            "a video's longest run of consecutive frames is too short to choose labelled frames from",
            expected=f"{REACH + 1} frames or more",
            got=run.tolist(),
            mend="leave the video out, or list more of its frames",
        )
    chosen = run[REACH :: 2 * REACH + 1].tolist()
    last = int(run[-1])
    return [*chosen, last] if last - chosen[-1] > REACH else chosen


def propagation_plan(numbers: ArrayLike) -> list[Step]:
    """Return how the frames of a video's longest run are filled from its labelled frames.

    A frame within reach of two labelled frames takes the nearer, and the earlier on a tie.

    Args:
        numbers: the frame numbers of the video, in any order.

    Returns:
        One step a frame, the labelled ones with a delta of 0, in the order in which the original goes through
        them: each labelled frame first, then its neighbours.

    Raises:
        LabelsError: if the longest run has three frames or fewer.

    Example:
        >>> [(step.number, step.delta) for step in propagation_plan(range(1, 9))]
        [(4, 0), (1, -3), (2, -2), (3, -1), (5, 1), (6, 2), (7, -1), (8, 0)]
    """
    run = longest_run(numbers)
    chosen = labelled_numbers(run)
    within = set(run.tolist())
    steps: dict[int, Step] = {}
    for labelled in chosen:
        for delta in (0, *range(-REACH, 0), *range(1, REACH + 1)):
            number = labelled + delta
            known = steps.get(number)
            if number in within and (known is None or abs(delta) < abs(known.delta)):
                steps[number] = Step(number, labelled, delta)
    return list(steps.values())


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
                    mend="label somebody there, or leave the video out",
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
            mend="propagate video by video with propagation_plan, which knows no such limit",
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
                mend="name the frames by their numbers",
            )
        videos.setdefault(folder, {})[number] = image
    return videos


def _plan_of(video: str, images: Mapping[int, Any]) -> list[Step]:
    try:
        return propagation_plan(list(images))
    except LabelsError as error:
        raise LabelsError(
            f"{video}: {error.what}", expected=error.expected, got=error.got, mend=error.mend
        ) from error
