"""What a page needs to draw scores over time: strips of a row a keypoint, in few levels, and an axis."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from posewarper.structures import Floats, Ints, PoseTrack, is_there

LEVELS = (0.35, 0.5, 0.65, 0.8)
"""Scores at which the next level begins; level 0 is the lowest."""

_COLUMNS = 60, 320  # of a strip: fewest (of a clip that long) and most
_MOST_MARKS = 200
_ROW = 0.86  # height of a row's bar; the rest parts it from the next


@dataclass(frozen=True)
class Strip:
    """Scores of one track as bars, to be drawn in a box of ``columns`` x ``rows``.

    Args:
        columns: width of the box; a column is one frame, or several of a long clip.
        rows: height of the box, one a keypoint.
        paths: for each level an SVG path of the bars at that level.
    """

    columns: int
    rows: int
    paths: tuple[str, ...]


def score_strip(track: PoseTrack, n_frames: int, most_columns: int = _COLUMNS[1]) -> Strip:
    """Return a track's scores over the whole clip; of frames that share a column the lowest score counts."""
    scores = np.where(is_there(track.keypoints), track.keypoint_scores, np.inf)
    columns = min(max(n_frames, 1), max(_COLUMNS[0], min(most_columns, _COLUMNS[1])))
    k = scores.shape[1]
    lowest = np.full((columns, k), np.inf)
    np.minimum.at(lowest, track.frames * columns // max(n_frames, 1), scores)
    levels = np.where(np.isfinite(lowest), np.digitize(lowest, LEVELS), -1)
    paths = [_bars(levels == level) for level in range(len(LEVELS) + 1)]
    return Strip(columns, k, tuple(paths))


def _bars(cells: NDArray[np.bool_]) -> str:
    """Return a path with one bar for each run of cells (columns, rows) that are set."""
    parts = []
    for row, line in enumerate(cells.T):
        edges = np.flatnonzero(np.diff(np.concatenate([[False], line, [False]]).astype(np.int8)))
        for start, stop in edges.reshape(-1, 2).tolist():
            width = stop - start
            parts.append(f"M{start} {row + (1 - _ROW) / 2:.2f}h{width}v{_ROW}h-{width}z")
    return "".join(parts)


def axis_ticks(n_frames: int, most: int = 8) -> list[int]:
    """Return round frame indices from 0 on, at most ``most`` of them."""
    step = 1
    while (n_frames - 1) // step + 1 > most:
        step = next(s for s in _round_steps() if s > step)
    return list(range(0, n_frames, step))


def _round_steps() -> Iterable[int]:
    power = 1
    while True:
        yield from (power, 2 * power, 5 * power)
        power *= 10


def place(frame: int, n_frames: int) -> float:
    """Return where the middle of a frame lies along the axis, in percent."""
    return round(100 * (frame + 0.5) / max(n_frames, 1), 3)


def marks(frames: Ints, n_frames: int) -> list[float]:
    """Return where to mark frames along the axis, in percent; frames that lie close share a mark."""
    if len(frames) <= _MOST_MARKS:
        return [place(int(frame), n_frames) for frame in frames]
    bins = np.unique(frames * _MOST_MARKS // n_frames)
    return [place(int(n), _MOST_MARKS) for n in bins]


def level_names() -> list[str]:
    """Return what each level stands for, the lowest first."""
    bounds = [f"{level:g}" for level in LEVELS]
    between = [f"{a} to {b}" for a, b in pairwise(bounds)]
    return [f"below {bounds[0]}", *between, f"{bounds[-1]} or more"]


def mean_and_lowest(track: PoseTrack, labelled: NDArray[np.bool_]) -> list[tuple[float, float, int] | None]:
    """Return for each keypoint the mean and the lowest score and its frame, over frames without a label.

    Args:
        track: the poses of a track.
        labelled: (t,) whether a frame is labelled.
    """
    there = is_there(track.keypoints) & ~labelled[:, None]
    rows: list[tuple[float, float, int] | None] = []
    for k in range(there.shape[1]):
        scores: Floats = track.keypoint_scores[there[:, k], k]
        if not len(scores):
            rows.append(None)
            continue
        at = int(np.flatnonzero(there[:, k])[np.argmin(scores)])
        rows.append((float(scores.mean()), float(scores.min()), int(track.frames[at])))
    return rows
