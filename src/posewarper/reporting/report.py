"""One HTML page about a run, which opens from disk anywhere.

It plays the clip and shows how far off each keypoint may be over time, the frames to check first, what to do
next, sample frames, errors where they are known, and what was run with which settings.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from posewarper.errors import LabelsError, few_of
from posewarper.files import replacing
from posewarper.formats.labels import check_image_size
from posewarper.motion.interpolation import fill_in
from posewarper.reporting import views
from posewarper.reporting.checking import Doubt, frames_to_check, subject_size
from posewarper.structures import Floats, Ints, RunResult, Track, is_there
from posewarper.video.source import Video

LEVELS = (0.35, 0.5, 0.65, 0.8)
"""Scores at which the next level begins; level 0 is the lowest."""
ERRORS = (0.1, 0.05, 0.02, 0.01)
"""Expected errors, in shares of the subject's size, up to which the next level reaches; 0 is the worst."""

_COLUMNS = 60, 320  # of a strip: fewest (of a clip that long) and most
_MOST_MARKS = 200
_ROW = 0.86  # height of a row's bar; the rest parts it from the next


@dataclass(frozen=True)
class Strip:
    """Scores of one track as bars, to be drawn in a box of ``columns`` x ``rows``."""

    columns: int  # width of the box; a column is one frame, or several of a long clip
    rows: int  # height of the box, one a keypoint
    paths: tuple[str, ...]  # for each level an SVG path of the bars at that level


def score_strip(track: Track, n_frames: int, most_columns: int = _COLUMNS[1]) -> Strip:
    """Return a track's scores over the whole clip; of frames that share a column the lowest score counts."""
    scores = np.where(is_there(track.keypoints), track.keypoint_scores, np.inf)
    return _strip(scores, LEVELS, track.frames, n_frames, most_columns)


def error_strip(track: Track, size: float, n_frames: int, most_columns: int = _COLUMNS[1]) -> Strip:
    """Return a track's expected errors over the whole clip; of frames that share a column the largest counts.

    ``size`` is that of the subject in pixels.
    """
    known = is_there(track.keypoints) & np.isfinite(track.expected_error)
    good = np.where(known, -track.expected_error / size, np.inf)
    return _strip(good, [-error for error in ERRORS], track.frames, n_frames, most_columns)


def _strip(values: Floats, cuts: Sequence[float], frames: Ints, n_frames: int, most_columns: int) -> Strip:
    """Return values (t, K), of which the lowest count, in levels from the ``cuts`` on; inf is nothing."""
    columns = min(max(n_frames, 1), max(_COLUMNS[0], min(most_columns, _COLUMNS[1])))
    k = values.shape[1]
    lowest = np.full((columns, k), np.inf)
    np.minimum.at(lowest, frames * columns // max(n_frames, 1), values)
    levels = np.where(np.isfinite(lowest), np.digitize(lowest, cuts), -1)
    paths = [_bars(levels == level) for level in range(len(cuts) + 1)]
    return Strip(columns, k, tuple(paths))


def _bars(cells: NDArray[np.bool_]) -> str:
    """Return a path with one bar for each run of cells (columns, rows) that are set."""
    parts = []
    for row, line in enumerate(cells.T):
        edges = np.flatnonzero(np.diff(np.concatenate([[False], line, [False]]).astype(np.int8)))
        for start, stop in edges.reshape(-1, 2).tolist():
            parts.append(f"M{start} {row + (1 - _ROW) / 2:.2f}h{stop - start}v{_ROW}h-{stop - start}z")
    return "".join(parts)


def axis_ticks(n_frames: int, most: int = 8) -> list[int]:
    """Return round frame indices from 0 on, at most ``most`` of them."""
    steps = (factor * 10**power for power in count() for factor in (1, 2, 5))
    step = next(step for step in steps if (n_frames - 1) // step + 1 <= most)
    return list(range(0, n_frames, step))


def place(frame: int, n_frames: int) -> float:
    """Return where the middle of a frame lies along the axis, in percent."""
    return round(100 * (frame + 0.5) / max(n_frames, 1), 3)


def marks(frames: Ints, n_frames: int) -> list[float]:
    """Return where to mark frames along the axis, in percent; frames that lie close share a mark."""
    if len(frames) <= _MOST_MARKS:
        return [place(int(frame), n_frames) for frame in frames]
    return [place(int(n), _MOST_MARKS) for n in np.unique(frames * _MOST_MARKS // n_frames)]


def level_names() -> list[str]:
    """Return what each level stands for, the lowest first."""
    between = [f"{a:g} to {b:g}" for a, b in pairwise(LEVELS)]
    return [f"below {LEVELS[0]:g}", *between, f"{LEVELS[-1]:g} or more"]


def error_names() -> list[str]:
    """Return what each level of expected errors stands for, the worst first."""
    between = [f"{100 * b:g} to {100 * a:g} %" for a, b in pairwise(ERRORS)]
    return [f"above {100 * ERRORS[0]:g} %", *between, f"up to {100 * ERRORS[-1]:g} %"]


def mean_and_lowest(track: Track) -> list[tuple[float, float, int] | None]:
    """Return for each keypoint the mean and the lowest score and its frame, where it is not labelled."""
    return _mean_and_extreme(track, track.keypoint_scores, np.argmin)


def mean_and_largest(track: Track) -> list[tuple[float, float, int] | None]:
    """Return for each keypoint the mean and the largest expected error and its frame, where it is known."""
    return _mean_and_extreme(track, track.expected_error, np.argmax)


def _mean_and_extreme(
    track: Track, values: Floats, extreme: Callable[[Floats], np.intp]
) -> list[tuple[float, float, int] | None]:
    there = is_there(track.keypoints) & ~track.labelled & np.isfinite(values)
    rows: list[tuple[float, float, int] | None] = []
    for k in range(there.shape[1]):
        own: Floats = values[there[:, k], k]
        if not len(own):
            rows.append(None)
            continue
        at = int(extreme(own))
        rows.append((float(own.mean()), float(own[at]), int(track.frames[there[:, k]][at])))
    return rows


_PICTURE, _OVERVIEW = 560, 1120  # pixels of the longer side
_PICTURE_BYTES, _OVERVIEW_BYTES = 75_000, 220_000
_CROWD, _CROWD_BYTES = 900, 120_000  # of more tracks than are shown one by one
_SAMPLES = {1: 8, 2: 4, 3: 3}  # pictures a frame -> frames
_FILM_FRAMES, _FILM_SIDE, _FILM_BYTES = 100, 480, 1_200_000  # of a clip that is played from pictures
_FAR = "more than one gap between labels"
_RINGS = 6  # keypoints with a ring in a picture
_ALL_COLUMNS = 6000  # of all tracks' strips together
_OPEN_TRACKS = 4  # tracks whose scores are shown without a click
_SCORE_COLUMNS = (
    *(("mean", "mean"), ("median", "median"), ("95 % below", "p95"), ("within 5 %", "pck05")),
    *(("within 10 %", "pck10"), ("coverage", "coverage"), ("seconds", "seconds")),
)

Values = dict[str, Any]


def write_report(
    path: str | os.PathLike[str],
    video: Video,
    result: RunResult,
    facts: Mapping[str, Any],
    *,
    scores: Sequence[Mapping[str, Any]] = (),
    overlay: str | None = None,
    span: range | None = None,
) -> None:
    """Write one HTML page about a run, which needs no network; all but the overlay is inside.

    Args:
        path: where to write, a name that ends in .html.
        video: the clip.
        result: what the run made.
        facts: what was run, as ``run.json`` holds it. The page leaves out what is missing.
        overlay: name of the video beside the page, of :func:`~posewarper.reporting.overlay.write_overlay`,
            that the page plays. Left out, a clip of at most 100 frames is played from pictures in the page.
        span: the frames that the run worked on, all by default.
        scores: rows with errors of several methods against known poses: ``method``, in percent ``mean``,
            ``median``, ``p95``, ``pck05``, ``pck10`` and ``coverage``, and ``seconds``; None is allowed.

    Raises:
        LabelsError: if the poses belong to another image size, or there are none.
        OutputError: if the place cannot be written.
    """
    poses = result.poses
    check_image_size(poses.image_size, video.image_size, what="poses", path=video.path)
    if not any(len(track.frames) for track in poses.tracks.values()):
        raise LabelsError("there are no poses to report on", fix="label at least one frame")
    doubts, n = frames_to_check(poses, result.labels), poses.n_frames
    ticks = [(f, place(f, n)) for f in axis_ticks(n)]
    # Every value is escaped, because names of files, keypoints and tracks may hold anything.
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    folder = files("posewarper.reporting")
    script = (folder / "report.js").read_text(encoding="utf-8")
    by_error, frames = any(track.knows_error for track in poses.tracks.values()), span or range(n)
    lacking = {i: frames_without_pose(result, i, frames) for i in poses.tracks}
    page = environment.from_string((folder / "report.html.j2").read_text(encoding="utf-8")).render(
        policy=_policy(script),
        script=Markup(script),
        head=_describe_head(video, result, facts),
        notes=list(result.notes),
        player=_describe_player(video, result, frames, overlay, doubts),
        pictures=_draw(video, result, doubts),
        chart={
            "n_frames": n,
            "ticks": ticks,
            "levels": error_names() if by_error else level_names(),
            "by_error": by_error,
            "what": "Expected error" if by_error else "Scores",
        },
        tracks=[_describe_track(result, i, doubts, by_error=by_error) for i in poses.tracks],
        lacking=[f"{_track_name(result, i)}: {text}" for i, own in lacking.items() for text in own],
        steps=_next_steps(
            Path(path).parent,
            result,
            facts,
            doubts[0].frame if doubts else frames.start,
            extends=any(lacking.values()),
        ),
        scores=_score_table(scores, result.method),
        run=_describe_run(facts),
    )
    with replacing(path) as temporary:
        # Names of files may hold bytes that are no text.
        temporary.write_bytes(page.encode("utf-8", "backslashreplace"))


def _policy(script: str) -> str:
    """Return what the page may load: its own script alone, pictures in it, and a video beside it."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    own = f"style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return f"default-src 'none'; img-src data:; media-src 'self' file:; {own}"


# --- the clip ---------------------------------------------------------------------------------------------


def _describe_player(
    video: Video, result: RunResult, frames: range, overlay: str | None, doubts: Sequence[Doubt]
) -> Values | None:
    """Return what plays: a video beside the page, or pictures of a short clip; None where nothing does."""
    if len(frames) < 2 or (overlay is None and len(frames) > _FILM_FRAMES):
        return None
    labelled = (frame for frame in result.poses.labelled_frames.tolist() if frame in frames)
    return {
        "video": overlay,
        "film": _film(video, result, frames) if overlay is None else [],
        "first": frames.start,
        "count": len(frames),
        "fps": f"{video.fps:.6g}",
        "labelled": " ".join(map(str, labelled)),
        "doubts": " ".join(str(each.frame) for each in doubts if each.frame in frames),
    }


def _film(video: Video, result: RunResult, frames: range) -> list[str]:
    size = video.image_size
    drawn = []
    for frame in frames:
        longest = min(_FILM_SIDE, max(size))
        view = views.draw_view(video[frame], views.whole_image(size), longest, result.poses, frame)
        drawn.append(views.encode_picture(view, _FILM_BYTES // len(frames)))
    return drawn


def frames_without_pose(result: RunResult, track_id: int, frames: range) -> list[str]:
    """Return on which frames of a run a track has no pose, and why, a sentence for each stretch of frames."""
    track, label = result.poses.tracks[track_id], result.labels.tracks.get(track_id)
    there = track.frames[is_there(track.keypoints).any(1)]
    lacking = np.setdiff1d(np.arange(frames.start, frames.stop), there)
    own = np.zeros(0, np.int64) if label is None else label.frames[label.placed.any(1)]
    gone = np.zeros(0, np.int64)
    if label is not None:
        gone = np.setdiff1d(result.labels.labelled_frames, label.frames[~label.is_gone])
    texts = []
    for run in np.split(lacking, np.flatnonzero(np.diff(lacking) > 1) + 1) if len(lacking) else []:
        first, last = int(run[0]), int(run[-1])
        inside = gone[(gone >= first) & (gone <= last)].tolist()
        if not len(own):
            why = "it was not found there"
        elif inside:
            why = f"it is not there on the labelled frame{'s' * (len(inside) > 1)} {few_of(inside)}"
        elif last < own[0]:
            why = f"{_FAR} before its first label, on frame {own[0]}"
        elif first > own[-1]:
            why = f"{_FAR} after its last label, on frame {own[-1]}"
        else:
            why = "nothing was found there"
        count = f"{len(run)} frame{'s' * (len(run) > 1)}"
        texts.append(f"no pose on {_ranges(run.tolist())} ({count}): {why}.")
    return texts


def _next_steps(
    folder: Path, result: RunResult, facts: Mapping[str, Any], frame: int, *, extends: bool
) -> list[Values]:
    """Return what to do next, each with a command; nothing if it is not known what was run on which video.

    One that ends with a ``frame`` is about the frame that the page shows, which is to be looked at first.
    """
    given = facts.get("inputs", {}).get("video")
    words = [str(word) for word in facts.get("command", ())]
    if not given or not words:
        return []
    video, place = str(given["path"]), os.fspath(folder)
    look = (
        "Correct these poses in the browser, from this frame on: what you place is kept, and what it changes "
    )
    steps = [(f"{look}is solved anew at once.", ["label", video, "--out", place, "--frame"])]
    if result.method != "predict":
        steps.append(
            (
                "See which frames to label next, where labels help most.",
                [
                    "suggest",
                    video,
                    "--result",
                    place,
                    "-n",
                    "10",
                    "--picture",
                    os.path.join(place, "next.jpg"),
                ],
            )
        )
    if extends and words[0] == "propagate" and "--extend" not in words:
        again = [word for word in words if word != "--overwrite"]
        steps.append(
            (
                "Give every track a pose on every frame, also far from its labels.",
                [*again, "--extend", "--overwrite"],
            )
        )
    return [
        {
            "text": text,
            "command": shlex.join(["posewarper", *command]),
            "frame": frame if command[-1] == "--frame" else None,
        }
        for text, command in steps
    ]


# --- pictures ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Shot:
    frame: int
    box: Floats
    longest: int = _PICTURE
    most_bytes: int = _PICTURE_BYTES
    track: int | None = None
    keypoints: tuple[int, ...] = ()


def frames_in_report(result: RunResult) -> list[int]:
    """Return of which frames the page shows pictures, besides those that it plays."""
    shots = _plan(result, frames_to_check(result.poses, result.labels))
    return sorted({shot.frame for group in shots.values() for shot in group})


def _draw(video: Video, result: RunResult, doubts: Sequence[Doubt]) -> Values:
    """Return the overview, the sample frames and the frames to check, each with its pictures."""
    poses = result.poses
    shots = _plan(result, doubts)
    every = [shot for group in shots.values() for shot in group]
    drawn: dict[int, str] = {}
    # Rising, and each frame once: a video is quickest to read that way.
    for frame in sorted({shot.frame for shot in every}):
        image = video[frame]
        for shot in (s for s in every if s.frame == frame):
            rings = None if shot.track is None else (shot.track, shot.keypoints)
            tags = shot.track is None and len(poses.tracks) > 1
            view = views.draw_view(image, shot.box, shot.longest, poses, frame, tags=tags, rings=rings)
            drawn[id(shot)] = views.encode_picture(view, shot.most_bytes)

    def describe(shot: _Shot) -> Values:
        whose = "" if shot.track is None else f", track {shot.track}"
        rings = ", ".join(poses.skeleton.names[k] for k in shot.keypoints)
        return {
            "source": drawn[id(shot)],
            "track": None if shot.track is None or len(poses.tracks) < 2 else _track_name(result, shot.track),
            "alt": f"Frame {shot.frame}{whose} with its skeleton"
            + (f", rings around {rings}" if rings else ""),
            "frame": shot.frame,
            "labelled": shot.frame in poses.labelled_frames,
            # For a folder of frames, the files' names say more than times.
            "time": None if video.frame_names else f"{video.times[shot.frame]:.2f} s",
            "file": video.frame_names[shot.frame] if video.frame_names else None,
        }

    checks = [
        {**describe(shot), "number": n, "reasons": s.reasons}
        for n, (s, shot) in enumerate(zip(doubts, shots["checks"], strict=True), start=1)
    ]
    height, width = poses.image_size
    _, _, wide, high = shots["samples"][0].box
    return {
        "overview": [describe(shot) for shot in shots["overview"]],
        "overview_width": round(min(60, 30 * width / height), 1),  # in rem
        "samples": [describe(shot) for shot in shots["samples"]],
        "checks": checks,
        # The least width of a picture, in rem.
        "card": 26 if len(poses.tracks) > max(_SAMPLES) else 11 if high > wide else 15,
    }


def _plan(result: RunResult, doubts: Sequence[Doubt]) -> dict[str, list[_Shot]]:
    """Choose what to show of which frame: a picture around everybody, or one a track where they are apart."""
    poses, size = result.poses, result.poses.image_size
    whole, frames = views.whole_image(size), [track.frames for track in poses.tracks.values()]
    tight = []
    for i, track in poses.tracks.items():
        label = result.labels.tracks.get(i)
        usual = subject_size(None if label is None else fill_in(label).keypoints, track.keypoints, size)
        tight.append(views.tight_boxes(track.keypoints, size, 1.2 * usual))
    joined = views.join_boxes(tight, frames, poses.n_frames)
    if not np.isfinite(joined).any():  # all keypoints lie outside of the image
        joined[np.concatenate(frames)] = whole
    together = views.pad_boxes(joined, views.usual_aspect(joined), size)
    aspect = views.usual_aspect(np.concatenate(tight))
    boxes = [views.pad_boxes(box, aspect, size) for box in tight]
    covered = np.flatnonzero(np.isfinite(together).all(-1))
    apart = len(boxes) <= max(_SAMPLES) and views.are_apart(together, boxes)

    def shoot(track_id: int, frame: int, keypoints: tuple[int, ...] = ()) -> _Shot:
        n = list(poses.tracks).index(track_id)
        box = boxes[n][np.searchsorted(frames[n], frame)]
        return _Shot(frame, box if np.isfinite(box).all() else whole, track=track_id, keypoints=keypoints)

    chosen = _spread(covered, poses.labelled_frames, _SAMPLES[len(boxes) if apart else 1])
    if apart:
        samples = [shoot(i, f) for f in chosen for i, track in poses.tracks.items() if f in track.frames]
    elif len(boxes) > max(_SAMPLES):
        samples = [_Shot(f, together[f], _CROWD, _CROWD_BYTES) for f in chosen]
    else:
        samples = [_Shot(f, together[f]) for f in chosen]
    overview = []
    if any(not np.array_equal(shot.box, whole) for shot in samples):
        present = np.bincount(np.concatenate(frames), minlength=poses.n_frames)
        fullest = np.flatnonzero(present == present.max())
        frame = int(fullest[len(fullest) // 2])
        overview.append(_Shot(frame, whole, min(_OVERVIEW, max(size)), _OVERVIEW_BYTES))
    checks = [shoot(s.track, s.frame, s.keypoints[:_RINGS]) for s in doubts]
    return {"overview": overview, "samples": samples, "checks": checks}


def _spread(frames: Ints, labelled: Ints, count: int) -> list[int]:
    """Choose frames spread evenly, every second one a labelled frame where one is near."""
    step = (len(frames) - 1) / max(count - 1, 1)
    chosen = [int(frames[round(n * step)]) for n in range(count)]
    near = labelled[np.isin(labelled, frames)]
    for n in range(1, count, 2):
        if len(near):
            closest = int(near[np.argmin(np.abs(near - chosen[n]))])
            chosen[n] = closest if abs(closest - chosen[n]) <= step / 2 else chosen[n]
    return sorted(set(chosen))


# --- scores -----------------------------------------------------------------------------------------------


def _track_name(result: RunResult, track_id: int) -> str:
    name = result.labels.track_names.get(track_id)
    return f"track {track_id}" if name is None else f"track {track_id} ({name})"


def _describe_track(result: RunResult, track_id: int, doubts: Sequence[Doubt], *, by_error: bool) -> Values:
    poses, names = result.poses, result.poses.skeleton.names
    track, label = poses.tracks[track_id], result.labels.tracks.get(track_id)
    own = np.zeros(0, np.int64) if label is None else label.frames[label.placed.any(1)]
    seen = np.zeros(len(names), int) if label is None else label.placed.sum(0)
    keypoints = []
    figures = zip(names, seen.tolist(), mean_and_lowest(track), mean_and_largest(track), strict=True)
    for name, times, of_scores, of_errors in figures:
        mean, lowest, frame = of_scores or (None, None, None)
        error, largest, where = of_errors or (None, None, None)
        row = {"name": name, "labels": times, "mean": mean, "lowest": lowest, "frame": frame}
        keypoints.append({**row, "error": error, "largest": largest, "error_frame": where})
    scored = [row["mean"] for row in keypoints if row["mean"] is not None]
    errors = [row["error"] for row in keypoints if row["error"] is not None]
    most_columns = _ALL_COLUMNS // len(poses.tracks)
    if by_error:
        known = None if label is None else fill_in(label).keypoints
        size = subject_size(known, track.keypoints, poses.image_size)
        strip = error_strip(track, size, poses.n_frames, most_columns)
    else:
        strip = score_strip(track, poses.n_frames, most_columns)
    return {
        "name": _track_name(result, track_id),
        "open": track_id in list(poses.tracks)[:_OPEN_TRACKS],
        "frames": len(track.frames),
        "covered": _ranges(track.frames.tolist()),
        "labels": len(own),
        "marks": marks(own, poses.n_frames),
        "mean": sum(scored) / len(scored) if scored else None,
        "error": sum(errors) / len(errors) if errors else None,
        "never": [row["name"] for row in keypoints if not row["labels"]],
        "keypoints": keypoints,
        "strip": strip,
        "doubts": [
            (n, s.frame, place(s.frame, poses.n_frames))
            for n, s in enumerate(doubts, start=1)
            if s.track == track_id
        ],
    }


def _ranges(frames: Sequence[int], most: int = 8) -> str:
    """Return rising numbers as text, runs in short: 0 to 99, 120, 131 to 140."""
    runs: list[list[int]] = []
    for frame in frames:
        if runs and frame == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], frame]
        else:
            runs.append([frame])
    more = ["..."] if len(runs) > most else []
    return ", ".join([" to ".join(map(str, run)) for run in runs[:most]] + more)


def _score_table(scores: Sequence[Mapping[str, Any]], method: str) -> Values:
    rows = [
        {
            "method": str(row.get("method", "")),
            "used": row.get("method") == method,
            "cells": ["–" if row.get(key) is None else f"{row[key]:.1f}" for _, key in _SCORE_COLUMNS],
        }
        for row in scores
    ]
    return {"columns": [title for title, _ in _SCORE_COLUMNS], "rows": rows}


# --- what was run -----------------------------------------------------------------------------------------


def _describe_head(video: Video, result: RunResult, facts: Mapping[str, Any]) -> Values:
    poses = result.poses
    total = facts.get("seconds", {}).get("total")
    return {
        "title": poses.video or Path(video.path).stem,
        "labelled": len(poses.labelled_frames),
        "poses": sum(len(track.frames) for track in poses.tracks.values()),
        "tracks": len(poses.tracks),
        "frames": video.n_frames,
        "keypoints": len(poses.skeleton),
        "size": f"{video.image_size[1]} x {video.image_size[0]}",
        "length": None if video.frame_names else f"{video.n_frames / video.fps:.1f} s at {video.fps:.4g} fps",
        "method": result.method,
        # Other methods train nothing unless it is told.
        "effort": facts.get("effort") if result.method == "default" or "training" in result.seconds else None,
        "time": None if total is None else _as_time(total),
        "colours": bool(poses.skeleton.flip_pairs),
    }


def _describe_run(facts: Mapping[str, Any]) -> Values:
    memory = facts.get("peak_memory_bytes")
    settings = {name: facts[name] for name in ("method", "effort", "seed", "threads") if name in facts}
    machine = {name: facts[name] for name in ("device", "ran_on", "system") if name in facts}
    seconds = dict(facts.get("seconds", {}))
    total = seconds.pop("total", None)
    whole = max(total or 0.0, sum(seconds.values()), 1e-9)
    if total is not None:
        seconds["reading and writing"] = max(total - sum(seconds.values()), 0.0)
    command = facts.get("command")
    return {
        "command": None if command is None else shlex.join(["posewarper", *map(str, command)]),
        "inputs": [
            {"name": name, **{key: str(given.get(key, "")) for key in ("path", "sha256")}}
            for name, given in facts.get("inputs", {}).items()
            if given
        ],
        "settings": _as_pairs({**settings, **facts.get("config", {})}),
        "versions": _as_pairs({"posewarper": facts.get("posewarper", ""), **facts.get("versions", {})}),
        "machine": _as_pairs(machine)
        + ([] if memory is None else [("peak memory", f"{memory / 1e9:.2f} GB")]),
        "stages": [(stage, _as_time(s), round(100 * s / whole, 1)) for stage, s in seconds.items()],
        "total": None if total is None else _as_time(total),
    }


def _as_pairs(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    def text(value: object) -> str:
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, Iterable) and not isinstance(value, str):
            return ", ".join(map(str, value))
        return str(value)

    return [(name.replace("_", " "), text(value)) for name, value in values.items() if value != ""]


def _as_time(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    return " ".join(f"{n} {unit}" for n, unit in parts if n) or "0 s"
