"""A long table of labels as CSV: one row for each keypoint of each instance. Writing."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence

import numpy as np

from posewarper.files import replacing
from posewarper.io.clips import VideoFacts
from posewarper.io.records import PathLike
from posewarper.io.table_times import times_of
from posewarper.structures import Labels, LabelTrack

CANNOT_HOLD = frozenset(
    {
        *("what an instance is called", "boxes", "head boxes", "edges", "mirror pairs", "ignore regions"),
        *("the image size", "the number of frames", "the video's name", "the names of the frames' files"),
    }
)


def write_labels(path: PathLike, labels: Labels, video: VideoFacts | None = None) -> None:
    """Write labels as a long table, the coordinates exactly as given.

    There is a column ``time`` if the video is given and its frames have times; columns that would be empty
    are left out.

    Raises:
        OutputError: if the file cannot be written.
    """
    frames = np.union1d(labels.labelled_frames, labels.instance_frames)
    times = times_of(video, frames)
    tracks = labels.tracks.values()
    columns = [
        "frame",
        *(["time"] if times else []),
        "track",
        *(["track_name"] if labels.track_names else []),
    ]
    columns += ["keypoint", "x", "y", "visibility"]
    columns += ["score"] if any(np.isfinite(t.keypoint_scores).any() for t in tracks) else []
    columns += ["expected_error"] if any(np.isfinite(t.expected_error).any() for t in tracks) else []
    columns += ["labelled"]
    rows = _list_rows(labels, frames, times)
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as handle,
    ):
        writer = csv.DictWriter(handle, columns, extrasaction="ignore", restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _list_rows(labels: Labels, frames: np.ndarray, times: Mapping[int, float]) -> list[dict[str, object]]:
    labelled = set(labels.labelled_frames.tolist())
    rows: dict[int, list[dict[str, object]]] = {frame: [] for frame in frames.tolist()}
    for track_id, track in labels.tracks.items():
        shared = {"track": track_id, "track_name": labels.track_names.get(track_id, "")}
        for i, frame in enumerate(track.frames.tolist()):
            if track.visibility[i].any():
                rows[frame] += [shared | row for row in _list_keypoints(labels.skeleton.names, track, i)]
    return [
        {"frame": frame, "time": times.get(frame, ""), "labelled": int(frame in labelled)} | row
        for frame, found in rows.items()
        for row in found or [{}]
        if found or frame in labelled
    ]


def _list_keypoints(names: Sequence[str], track: LabelTrack, i: int) -> list[dict[str, object]]:
    def cell(value: float) -> str:
        return repr(float(value)) if np.isfinite(value) else ""

    return [
        {
            "keypoint": name,
            "x": cell(x),
            "y": cell(y),
            "visibility": int(v),
            "score": cell(score),
            "expected_error": cell(error),
        }
        for name, (x, y), v, score, error in zip(
            names,
            track.keypoints[i],
            track.visibility[i],
            track.keypoint_scores[i],
            track.expected_error[i],
            strict=True,
        )
    ]
