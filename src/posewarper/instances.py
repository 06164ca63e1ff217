"""Everybody in every frame of one video, a row an instance: what PoseTrack's files hold.

Unlike :class:`posewarper.structures.Labels` this keeps the frames as a file lists them, allows the same track
id twice in a frame, and instances without one; official evaluation, box files and result files need that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posewarper.errors import LabelsError
from posewarper.skeletons import POSETRACK, Skeleton
from posewarper.structures import Floats, Ints, is_there

NO_TRACK = -1
_COLUMNS = ("rows", "keypoints", "keypoint_scores", "scores", "tracks", "boxes", "head_boxes", "is_person")


def _column(value: ArrayLike | None, dtype: Any, shape: tuple[int, ...], empty: float, what: str) -> Any:
    array = np.full(shape, empty, dtype) if value is None else np.array(value, dtype=dtype)
    if array.size == 0 and 0 in shape:
        array = array.reshape(shape)
    if array.shape != shape:
        raise LabelsError(
            f"{what} of an instance table has a wrong shape",
            expected=shape,
            got=array.shape,
            mend="give one row an instance, and for frames one row a frame",
        )
    array.setflags(write=False)
    return array


@dataclass(frozen=True)
class InstanceTable:
    """Frames and instances of one video, F and n in number.

    Args:
        video: name of the video.
        frame_names: F image names in the order of the file, with ``/`` between folders and without a leading
            ``images/``.
        frame_numbers: (F,) the number that the dataset gives each frame (PoseTrack17 counts from 1,
            PoseTrack18 from 0).
        rows: (n,) for each instance the position of its frame among the F.
        keypoints: (n, K, 2) xy in pixels, NaN where there is none.
        keypoint_scores: (n, K), NaN where there is none.
        scores: (n,) score of the instance (its box), NaN where there is none.
        tracks: (n,) track id, ``NO_TRACK`` where there is none.
        boxes: (n, 4) xywh in pixels, NaN where there is none.
        head_boxes: (n, 4) xywh in pixels, NaN where there is none.
        is_person: (n,) False for what the paper makes no samples of: crowds, instances of another category,
            annotations without area; None for all.
        is_labelled: (F,) whether a labeller has gone through the frame; None for all.
        image_ids: (F,) ids of the file, None where it has none.
        ignore_regions: position among the F -> polygons, each (m, 2) xy, in which nothing is scored.
        n_frames: frames of the whole video, None if unknown.
        image_size: (height, width), None if unknown.
        skeleton: the K keypoints; PoseTrack's 17 with the ears that nobody labels, unless it says otherwise.

    Raises:
        LabelsError: if shapes disagree or a row points to no frame.

    Example:
        >>> table = InstanceTable("clip", ("clip/000000.jpg",), [0], rows=[0], keypoints=np.zeros((1, 17, 2)))
        >>> table.n_instances, table.of_frame(0).n_instances
        (1, 1)
    """

    video: str
    frame_names: tuple[str, ...]
    frame_numbers: Ints
    rows: Ints
    keypoints: Floats
    keypoint_scores: Floats = field(default=None)  # type: ignore[assignment]
    scores: Floats = field(default=None)  # type: ignore[assignment]
    tracks: Ints = field(default=None)  # type: ignore[assignment]
    boxes: Floats = field(default=None)  # type: ignore[assignment]
    head_boxes: Floats = field(default=None)  # type: ignore[assignment]
    is_person: NDArray[np.bool_] = field(default=None)  # type: ignore[assignment]
    is_labelled: NDArray[np.bool_] = field(default=None)  # type: ignore[assignment]
    image_ids: Ints | None = None
    ignore_regions: Mapping[int, tuple[Floats, ...]] = field(default_factory=dict)
    n_frames: int | None = None
    image_size: tuple[int, int] | None = None
    skeleton: Skeleton = POSETRACK

    def __post_init__(self) -> None:
        f, k = len(self.frame_names), len(self.skeleton)
        n = len(np.atleast_1d(np.asarray(self.rows)))
        keypoints = np.array(self.keypoints, np.float64)
        if keypoints.shape == (n, k, 2):
            keypoints[~is_there(keypoints)] = np.nan
        ids = None if self.image_ids is None else _column(self.image_ids, np.int64, (f,), 0, "image_ids")
        values = {
            "frame_names": tuple(str(name) for name in self.frame_names),
            "frame_numbers": _column(self.frame_numbers, np.int64, (f,), 0, "frame_numbers"),
            "rows": _column(self.rows, np.int64, (n,), 0, "rows"),
            "keypoints": _column(keypoints, np.float64, (n, k, 2), np.nan, "keypoints"),
            "keypoint_scores": _column(self.keypoint_scores, np.float64, (n, k), np.nan, "keypoint_scores"),
            "scores": _column(self.scores, np.float64, (n,), np.nan, "scores"),
            "tracks": _column(self.tracks, np.int64, (n,), NO_TRACK, "tracks"),
            "boxes": _column(self.boxes, np.float64, (n, 4), np.nan, "boxes"),
            "head_boxes": _column(self.head_boxes, np.float64, (n, 4), np.nan, "head_boxes"),
            "is_person": _column(self.is_person, bool, (n,), True, "is_person"),
            "is_labelled": _column(self.is_labelled, bool, (f,), True, "is_labelled"),
            "image_ids": ids,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        if n and (self.rows.min() < 0 or self.rows.max() >= f):
            raise LabelsError(
                "an instance of a table belongs to no frame of it",
                expected=f"rows from 0 to {f - 1}",
                got=(int(self.rows.min()), int(self.rows.max())),
                mend="list the frame among frame_names",
            )

    @property
    def n_instances(self) -> int:
        """Number of instances in all frames together."""
        return len(self.rows)

    def take(self, instances: ArrayLike) -> InstanceTable:
        """Return the table with some of its instances only, in the order given; all frames stay.

        Args:
            instances: positions, or (n,) booleans.
        """
        kept = np.arange(self.n_instances)[np.asarray(instances, None if np.size(instances) else np.int64)]
        return replace(self, **{name: getattr(self, name)[kept] for name in _COLUMNS})

    def of_frame(self, row: int) -> InstanceTable:
        """Return the table with the instances of one frame only."""
        return self.take(np.flatnonzero(self.rows == row))
