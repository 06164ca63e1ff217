"""What a labeller has said so far: one row for each track and frame, and the labels that they make.

A row is None where nobody has looked at the track, :data:`GONE` where the labeller says that the track is
not there, and otherwise holds a mark for each keypoint: None where nobody has looked at the keypoint,
``ABSENT`` where the labeller says that it is not there, and ``(x, y, state)`` where it is placed, with the
state ``VISIBLE`` or ``HIDDEN``. As JSON a row is null, ``"gone"``, or a list of null, 0 and
``[x, y, state]``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from posewarper.skeletons import Skeleton
from posewarper.structures import ABSENT, HIDDEN, VISIBLE, Labels, Track

Mark = tuple[float, float, int] | int | None
Row = tuple[Mark, ...] | str | None
GONE = "gone"


def is_placed(mark: Mark) -> bool:
    """Return whether a mark says where its keypoint is."""
    return isinstance(mark, tuple)


def tidy(row: Row) -> Row:
    """Return a row, None where it says nothing."""
    return None if isinstance(row, tuple) and all(mark is None for mark in row) else row


def row_from_json(value: Any, n_keypoints: int) -> Row:
    """Return a row that was written as JSON.

    Raises:
        ValueError: if it is none for so many keypoints.
    """
    if value is None or value == GONE:
        return value
    if not isinstance(value, list) or len(value) != n_keypoints:
        raise ValueError(f"a row is no list of {n_keypoints} keypoints")
    return tidy(tuple(_mark_from_json(mark) for mark in value))


def _mark_from_json(value: Any) -> Mark:
    if value is None or (value == ABSENT and isinstance(value, int)):
        return value
    if isinstance(value, list) and len(value) == 3 and value[2] in (HIDDEN, VISIBLE):
        x, y = (float(number) for number in value[:2])
        if math.isfinite(x) and math.isfinite(y):
            return x, y, int(value[2])
    raise ValueError(f"no keypoint of a row: {value!r:.80}")


def skeleton_to_json(skeleton: Skeleton | None) -> dict[str, Any] | None:
    """Return a skeleton as plain values, with indices from 0."""
    if skeleton is None:
        return None
    pairs = {"edges": skeleton.edges, "flip_pairs": skeleton.flip_pairs}
    lists = {name: [list(pair) for pair in value] for name, value in pairs.items()}
    return {"name": skeleton.name, "names": list(skeleton.names), **lists}


def skeleton_from_json(value: Any) -> Skeleton | None:
    """Return a skeleton from plain values; without ``flip_pairs`` these are read from the names.

    Raises:
        LabelsError: if the skeleton is impossible.
        ValueError: if the values are none of a skeleton.
    """
    if value is None:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("names"), list):
        raise ValueError("a skeleton needs a list of names")
    if unknown := set(value) - {"name", "names", "edges", "flip_pairs"}:
        raise ValueError(f"a skeleton has no {', '.join(sorted(unknown))}")
    if not all(isinstance(name, str) for name in value["names"]):
        raise ValueError("the name of a keypoint is a text")
    names = tuple(" ".join(name.split()) for name in value["names"])
    if not all(names):
        raise ValueError("a keypoint has no name")
    kind = str(value.get("name") or "animal")
    pairs: Any = value.get("flip_pairs")
    return Skeleton(names, value.get("edges") or (), pairs, kind)


@dataclass
class Labelling:
    """All that was said of one video; changed by :mod:`posewarper.review.edits` alone.

    Args:
        skeleton: None until somebody has chosen one.
        rows: track id -> frame -> row, without those that say nothing.
        names: track id -> name; also of tracks without any row.
    """

    skeleton: Skeleton | None = None
    rows: dict[int, dict[int, Row]] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, labels: Labels) -> Labelling:
        """Return what labels say; a track without a row on a labelled frame is not there."""
        rows: dict[int, dict[int, Row]] = {}
        for i, track in labels.tracks.items():
            own: dict[int, Row] = {int(frame): GONE for frame in labels.labelled_frames}
            for n, frame in enumerate(track.frames.tolist()):
                if frame not in own:
                    continue
                marks = zip(
                    track.keypoints[n].tolist(),
                    track.visibility[n].tolist(),
                    track.labelled[n].tolist(),
                    strict=True,
                )
                own[frame] = tidy(tuple(_mark_of(xy, state, said) for xy, state, said in marks))
            rows[i] = {frame: row for frame, row in own.items() if row is not None}
        names = {i: labels.track_names.get(i, "") for i in labels.tracks}
        return cls(labels.skeleton, rows, names)

    def row(self, track: int, frame: int) -> Row:
        """Return the row of a track on a frame."""
        return self.rows.get(track, {}).get(frame)

    def marks(self, track: int, frame: int) -> tuple[Mark, ...]:
        """Return a mark for each keypoint; none is known of a track that is not there."""
        row = self.row(track, frame)
        return row if isinstance(row, tuple) else (None,) * len(self.skeleton or ())

    def put(self, track: int, frame: int, row: Row) -> None:
        """Set a row."""
        own = self.rows.setdefault(track, {})
        if row is None:
            own.pop(frame, None)
        else:
            own[frame] = row

    def placed(self) -> Iterator[tuple[int, int]]:
        """Yield (track, frame) of rows on which at least one keypoint is placed."""
        for track, own in self.rows.items():
            for frame, row in own.items():
                if isinstance(row, tuple) and any(is_placed(mark) for mark in row):
                    yield track, frame

    @property
    def labelled_frames(self) -> list[int]:
        """The rising frames of which something is said."""
        return sorted({frame for own in self.rows.values() for frame in own})

    def to_labels(
        self,
        given: Labels | None,
        image_size: tuple[int, int],
        n_frames: int,
        video: str,
        frame_names: Sequence[str] = (),
    ) -> Labels | None:
        """Return the labels; None where no keypoint is placed yet.

        Tracks of which no keypoint is placed anywhere are left out. On labelled frames where nobody has
        looked at a track it has a row of which nothing is labelled: a track without a row is not there.

        Args:
            given: the labels with which the labelling began, which know more: boxes of instances that are as
                they were, regions to ignore, names of images.
            image_size: (height, width) of the frames.
            n_frames: frames of the video.
            video: its name.
            frame_names: of the files in a folder of frames.
        """
        known = {track for track, _ in self.placed()}
        if self.skeleton is None or not known:
            return None
        frames = self.labelled_frames
        tracks = {i: self._track(i, frames, given) for i in sorted(known)}
        more: dict[str, Any] = {"frame_names": dict(enumerate(frame_names))}
        if given is not None:
            more["frame_names"] = more["frame_names"] or given.frame_names
            more["ignore_regions"] = given.ignore_regions
            video = given.video or video
        names = {i: name for i, name in self.names.items() if name and i in known}
        return Labels(
            self.skeleton, tracks, np.array(frames), image_size, n_frames, video, track_names=names, **more
        )

    def _track(self, i: int, frames: Sequence[int], given: Labels | None) -> Track:
        rows = {frame: self.row(i, frame) for frame in frames}
        there = [frame for frame in frames if rows[frame] != GONE]
        shape = len(there), len(self.skeleton or ())
        keypoints, visibility = np.full((*shape, 2), np.nan), np.zeros(shape, np.uint8)
        labelled = np.zeros(shape, bool)
        for n, frame in enumerate(there):
            for k, mark in enumerate(self.marks(i, frame)):
                labelled[n, k] = mark is not None
                if isinstance(mark, tuple):
                    keypoints[n, k], visibility[n, k] = mark[:2], mark[2]
        boxes, head_boxes = np.full((2, len(there), 4), np.nan)
        if given is not None and i in given.tracks:
            place = {frame: n for n, frame in enumerate(there)}
            old = given.tracks[i]
            begun = Labelling.of(given.only_track(i))
            for n, frame in enumerate(old.frames.tolist()):
                if frame in place and rows[frame] == begun.row(i, frame):
                    boxes[place[frame]], head_boxes[place[frame]] = old.boxes[n], old.head_boxes[n]
        return Track(
            np.array(there, np.int64),
            keypoints,
            visibility=visibility,
            labelled=labelled,
            boxes=boxes,
            head_boxes=head_boxes,
        )


def _mark_of(xy: Sequence[float], state: int, said: bool) -> Mark:
    if not said:
        return None
    return ABSENT if state == ABSENT else (float(xy[0]), float(xy[1]), int(state))
