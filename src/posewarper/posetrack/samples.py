"""From boxes to samples: which instances the paper's pose network gets, with which crops and other frames.

The rules are the original's. Labelled boxes are cut to the image in its own way; boxes of a detector are used
as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posewarper.errors import LabelsError
from posewarper.geometry import keypoint_boxes, paper_center_scale
from posewarper.structures import Floats, InstanceTable, Ints, is_there


def support_numbers(
    number: int,
    offsets: Iterable[int],
    *,
    first: int,
    n_frames: int,
    exists: Callable[[int], bool] = lambda number: True,
) -> list[int]:
    """Return the numbers of the frames that the original reads beside frame ``number``.

    Beyond the ends of the video its first or last frame is read again, and the frame ``number`` itself where
    a file is missing.

    Args:
        number: the frame of the sample.
        offsets: frames to read, counted from ``number``; 0 is the frame itself.
        first: number of the video's first frame (1 in PoseTrack17, 0 in PoseTrack18).
        n_frames: frames of the whole video.
        exists: whether the file of a frame number is there.
    """
    numbers = [min(max(number + offset, first), first + n_frames - 1) for offset in offsets]
    return [near if near != number and exists(near) else number for near in numbers]


NO_INSTANCE = -1


@dataclass(frozen=True)
class Samples:
    """The n crops of one video."""

    rows: Ints  # (n,) the frame's position in the table
    instances: Ints  # (n,) the instance's position in the table, NO_INSTANCE for boxes from elsewhere
    centers: NDArray[np.float32]  # (n, 2) xy of the crop's centre in pixels
    scales: NDArray[np.float32]  # (n, 2) width and height of the crop in units of 200 pixels, with padding
    box_scores: Floats  # (n,) score of the box, 1 for labels
    boxes: Floats  # (n, 4) xywh in pixels, from which centre and scale were made

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, kept: NDArray[np.bool_]) -> Samples:
        """Return the samples for which ``kept`` (n,) is true."""
        return Samples(*(getattr(self, column.name)[kept] for column in fields(self)))


def label_boxes(boxes: ArrayLike, image_size: tuple[int, int]) -> tuple[Floats, NDArray[np.bool_]]:
    """Cut labelled boxes (n, 4) xywh to an image of size (height, width) as the original does.

    Width and height lose one pixel, and a box that starts left of the image or above it is moved in before it
    is cut. A box without area stays one.

    Returns:
        The boxes (n, 4) xywh, and (n,) whether the box begins inside the image; the original leaves out the
        others.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    limits = np.array([image_size[1] - 1, image_size[0] - 1], np.float64)
    low = np.maximum(boxes[:, :2], 0)
    high = np.minimum(limits, low + np.maximum(boxes[:, 2:] - 1, 0))
    return np.concatenate([low, high - low], axis=1), np.asarray((high >= low).all(axis=1))


def samples_from_labels(table: InstanceTable, aspect_ratio: float) -> Samples:
    """Return a sample for every labelled instance of a video, frame by frame.

    Crowds and other things than people (``is_person``), instances without any keypoint, and those whose box
    lies outside of the image get none. An instance without a box, as in PoseTrack17's files, takes the
    extent of its keypoints, grown by 15 percent of it on each side: so are the boxes in PoseTrack18's files.

    Args:
        table: the labels; its image size is needed.
        aspect_ratio: width divided by height of the crop.

    Raises:
        LabelsError: if the image size is unknown.
    """
    if table.image_size is None:
        raise LabelsError(
            f"the size of the images of {table.video} is unknown, so boxes cannot be cut to it",
            expected="(height, width)",
            fix="give the image size with the labels, or let it be read from a frame",
        )
    order = np.argsort(table.rows, kind="stable")
    order = order[is_there(table.keypoints[order]).any(axis=1) & table.is_person[order]]
    given, extent = table.boxes[order], keypoint_boxes(table.keypoints[order])
    margin = 0.15 * extent[:, 2:]
    grown = np.concatenate([extent[:, :2] - margin, extent[:, 2:] + 2 * margin], axis=1)
    bare = np.asarray(~np.isfinite(given).all(axis=1))
    boxes, inside = label_boxes(np.where(bare[:, None], grown, given), table.image_size)
    kept = order[inside]
    boxes, scores = boxes[inside], np.ones(len(kept))
    return Samples(table.rows[kept], kept, *paper_center_scale(boxes, aspect_ratio), scores, boxes)


def samples_from_boxes(
    table: InstanceTable,
    boxes: ArrayLike,
    scores: ArrayLike,
    rows: ArrayLike,
    aspect_ratio: float,
    threshold: float,
) -> Samples:
    """Return a sample for every box of a detector that scores at least ``threshold``, in the order given.

    Args:
        table: the video's frames.
        boxes: (n, 4) xywh in pixels; they are not cut to the image.
        scores: (n,).
        rows: (n,) the position of the box's frame in the table.
        aspect_ratio: width divided by height of the crop.
        threshold: boxes below it are left out.

    Raises:
        LabelsError: if the three disagree in number, or a box belongs to no frame of the table.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    scores, rows = np.asarray(scores, np.float64).reshape(-1), np.asarray(rows, np.int64).reshape(-1)
    n_frames = len(table.frame_names)
    outside = rows[(rows < 0) | (rows >= n_frames)]
    if not len(boxes) == len(scores) == len(rows) or len(outside):
        raise LabelsError(
            f"boxes, their scores and their frames in {table.video} do not fit together",
            expected=f"for each box a score and a frame from 0 to {n_frames - 1}",
            got=f"{len(boxes)} boxes, {len(scores)} scores, {len(rows)} frames, of these outside: {outside}",
            fix="give boxes of this video's frames only",
        )
    kept = scores >= threshold
    boxes, none = boxes[kept], np.full(int(kept.sum()), NO_INSTANCE, np.int64)
    return Samples(rows[kept], none, *paper_center_scale(boxes, aspect_ratio), scores[kept], boxes)
