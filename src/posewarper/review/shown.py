"""The poses that the page shows: those of the last run, and in their place what was solved anew since."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posewarper.review.labelling import GONE, Labelling, is_placed
from posewarper.structures import ABSENT, HIDDEN, VISIBLE, Ints, Poses, Track, is_there

# What the last column of a block says of a keypoint.
NOTHING, PREDICTED, PLACED, GUESSED, MISSING = 0, 1, 2, 3, 4
COLUMNS = 7
"""x, y, score, expected error, x and y in the last run where that is elsewhere, state."""

_CODES = {VISIBLE: PLACED, HIDDEN: GUESSED}


class ShownPoses:
    """Poses on every frame where there are any, by track.

    Args:
        poses: those of the last run, None before the first.
    """

    def __init__(self, poses: Poses | None = None) -> None:
        self.run = poses
        self._tracks: dict[int, Track] = {} if poses is None else dict(poses.tracks)
        self.provisional: dict[int, set[int]] = {}

    @property
    def tracks(self) -> dict[int, Track]:
        """Track id -> poses."""
        return self._tracks

    def at(self, track: int, frame: int) -> list[tuple[float, float] | None]:
        """Return the place of each keypoint, None where it has none; empty where there is no pose."""
        own = self._tracks.get(track)
        row = -1 if own is None else _row_of(own.frames, frame)
        if own is None or row < 0:
            return []
        # As exact as the file of poses is.
        return [
            (round(x, 3) + 0.0, round(y, 3) + 0.0) if x == x and y == y else None
            for x, y in own.keypoints[row].tolist()
        ]

    def put(self, track: int, solved: Track, gone: Ints) -> None:
        """Put poses that were solved anew in the place of those that are shown on their frames.

        On the frames ``gone`` (n,) the track is no more.
        """
        mine = self.provisional.setdefault(track, set())
        mine |= {*solved.frames.tolist(), *gone.tolist()}
        old = self._tracks.get(track)
        if old is None:
            self._tracks[track] = solved
            return
        kept = ~np.isin(old.frames, np.union1d(solved.frames, gone))
        frames = np.concatenate([old.frames[kept], solved.frames])
        order = np.argsort(frames)

        def merged(name: str) -> Any:
            return np.concatenate([getattr(old, name)[kept], getattr(solved, name)])[order]

        names = ("keypoints", "visibility", "labelled", "keypoint_scores", "expected_error")
        self._tracks[track] = Track(frames[order], **{name: merged(name) for name in names})

    def drop(self, track: int) -> None:
        """Show nothing of a track any more."""
        self._tracks.pop(track, None)
        self.provisional.pop(track, None)

    def block(
        self, labelling: Labelling, tracks: Sequence[int], first: int, last: int
    ) -> NDArray[np.float32]:
        """Return (frames, tracks, K, 7) what is shown on the frames from ``first`` to ``last``, with both.

        Labels come before predictions. The columns are :data:`COLUMNS`; what is not there is NaN.
        """
        k = len(labelling.skeleton or ())
        block = np.full((last - first + 1, len(tracks), k, COLUMNS), np.nan, np.float32)
        block[..., -1] = NOTHING
        for n, i in enumerate(tracks):
            own = self._tracks.get(i)
            if own is not None and own.keypoints.shape[1] == k:
                rows = np.flatnonzero((own.frames >= first) & (own.frames <= last))
                at = own.frames[rows] - first
                points = own.keypoints[rows]
                block[at, n, :, :2] = points
                block[at, n, :, 2], block[at, n, :, 3] = own.keypoint_scores[rows], own.expected_error[rows]
                block[at, n, :, -1] = np.where(is_there(points), PREDICTED, NOTHING)
                self._add_old(block, n, i, first, last)
            for frame, row in labelling.rows.get(i, {}).items():
                if first <= frame <= last:
                    self._add_row(block[frame - first, n], row)
        return block

    def _add_old(self, block: NDArray[np.float32], n: int, i: int, first: int, last: int) -> None:
        """Add where the last run had put what was solved anew since."""
        moved = [f for f in self.provisional.get(i, ()) if first <= f <= last]
        old = None if self.run is None else self.run.tracks.get(i)
        if not moved or old is None:
            return
        rows = np.flatnonzero(np.isin(old.frames, moved))
        at = old.frames[rows] - first
        apart = np.linalg.norm(block[at, n, :, :2] - old.keypoints[rows], axis=-1) > 0.1
        block[at, n, :, 4:6] = np.where(apart[..., None], old.keypoints[rows], np.nan)

    def _add_row(self, shown: NDArray[np.float32], row: Any) -> None:
        if row == GONE:
            shown[:, :4], shown[:, -1] = np.nan, MISSING
            return
        for k, mark in enumerate(row):
            if isinstance(mark, tuple):
                shown[k, :2], shown[k, -1] = mark[:2], _CODES[mark[2]]
                shown[k, 2:4] = np.nan
            elif mark == ABSENT and mark is not None:
                shown[k, :4], shown[k, -1] = np.nan, MISSING

    def summary(self, labelling: Labelling, tracks: Sequence[int], n_frames: int) -> dict[str, Any]:
        """Return what the timeline shows, by track.

        Returns:
            ``errors``: (N, F) the mean expected error of the keypoints in pixels, NaN where nothing is known,
            and -1 where there is no pose; ``labels``: for each track its labelled frames; ``provisional``:
            for each track the frames that were solved anew.
        """
        errors = np.full((len(tracks), n_frames), -1.0, np.float32)
        labels, solved = [], []
        for n, i in enumerate(tracks):
            own = self._tracks.get(i)
            if own is not None:
                frames = own.frames[is_there(own.keypoints).any(-1)]
                error = own.expected_error[np.isin(own.frames, frames)]
                known = np.isfinite(error)
                mean = np.where(known, error, 0).sum(-1) / np.maximum(known.sum(-1), 1)
                errors[n, frames] = np.where(known.any(-1), mean, np.nan)
            rows = labelling.rows.get(i, {})
            labels.append(sorted(rows))
            for frame, row in rows.items():
                if row == GONE:
                    errors[n, frame] = -1
                elif isinstance(row, tuple) and all(is_placed(mark) or mark == ABSENT for mark in row):
                    errors[n, frame] = 0
            solved.append(sorted(self.provisional.get(i, ())))
        return {"errors": errors, "labels": labels, "provisional": solved}


def _row_of(frames: Ints, frame: int) -> int:
    row = int(np.searchsorted(frames, frame))
    return row if row < len(frames) and frames[row] == frame else -1
