"""Writes predictions of PoseTrack as result files, one for each video.

The files have the form of the original, or the form that PoseTrack's test server takes.

All functions take predictions as they stand: callers first apply the rule of the neck (``apply_neck_rule``)
and the product of scores (``paper_scores``).
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from posewarper.errors import ConfigError, LabelsError, few_of, unknown_name
from posewarper.files import allowed_name, replacing, replacing_folder
from posewarper.formats.records import PathLike
from posewarper.posetrack.annolist import annolist_document, point_lists, require_posetrack
from posewarper.posetrack.posetrack18 import posetrack18_document
from posewarper.structures import NO_TRACK, InstanceTable, Ints, is_there

LARGEST_TRACK = 999
KINDS = ("paper", "posetrack17", "posetrack18", "posetrack21")


def paper_scores(table: InstanceTable) -> InstanceTable:
    """Return predictions whose keypoint scores are heatmap maximum times box score, as in the original.

    An instance without score counts as 1, as the original's annotated boxes do.
    """
    scores = np.where(np.isfinite(table.scores), table.scores, 1.0)
    return replace(table, scores=scores, keypoint_scores=table.keypoint_scores * scores[:, None])


def result_document(table: InstanceTable, ground_truth: InstanceTable | None = None) -> dict[str, Any]:
    """Return the content of the original's result file for one video.

    Every frame of the ground truth (by default of the predictions) is listed, labelled or not, under its
    number there; predictions on other frames are dropped. Every track id is 1; a frame in which nobody was
    found holds one instance of a single point with score -100.

    Raises:
        LabelsError: if the keypoints are not PoseTrack's, or all predictions are on frames that the ground
            truth does not have.
    """
    require_posetrack(table)
    table = table if ground_truth is None else on_frames(table, ground_truth)
    people: list[list[dict[str, Any]]] = [[] for _ in table.frame_names]
    scores = np.where(np.isfinite(table.scores), table.scores, 1.0).tolist()
    for row, points, score in zip(table.rows.tolist(), point_lists(table), scores, strict=True):
        if points:
            people[row].append({"annopoints": [{"point": points}], "score": [score], "track_id": [1]})
    points = [{"id": [0], "x": [0], "y": [0], "score": [-100.0]}]
    nobody = {"annopoints": [{"point": points}], "score": [0], "track_id": [0]}
    frames = [
        {"image": {"name": name}, "imgnum": [number], "annorect": found or [nobody]}
        for name, number, found in zip(table.frame_names, table.frame_numbers.tolist(), people, strict=True)
    ]
    return {"annolist": frames}


def on_frames(table: InstanceTable, frames: InstanceTable) -> InstanceTable:
    """Return the people of ``table`` on the frames of ``frames``, matched by name; others are left out.

    Raises:
        LabelsError: if there are instances, but none in a frame of the other table.
    """
    place = {name: row for row, name in enumerate(frames.frame_names)}
    new_rows = np.array([place.get(name, -1) for name in table.frame_names], np.int64)[table.rows]
    kept = np.flatnonzero(new_rows >= 0)
    if table.n_instances and not len(kept):
        raise LabelsError(
            f"no frame with predictions of video {table.video} is in the ground truth",
            expected=f"image names like {frames.frame_names[0]}" if frames.frame_names else "frames",
            got=f"image names like {table.frame_names[table.rows[0]]}",
            fix="predict on the frames that the ground truth names",
        )
    names = ("is_labelled", "image_ids", "ignore_regions", "n_frames", "image_size")
    return replace(
        table.take(kept),
        frame_names=frames.frame_names,
        frame_numbers=frames.frame_numbers,
        rows=new_rows[kept],
        **{name: getattr(frames, name) for name in names},
    )


def write_results(
    folder: PathLike,
    tables: Mapping[str, InstanceTable],
    *,
    kind: str = "paper",
    ground_truth: Mapping[str, InstanceTable] | None = None,
) -> None:
    """Write predictions as a folder of JSON files, one a video; the whole folder or nothing.

    Args:
        folder: a new one, or one that holds files of these names and nothing else.
        tables: name of the file without suffix -> predictions of the video.
        kind: ``paper`` as the original (:func:`result_document`), ``posetrack17`` (annolist),
            ``posetrack18`` or ``posetrack21`` (PoseTrack18's JSON).
        ground_truth: the same names -> annotations, whose frames the files list. A video without
            predictions gets a file without anybody.

    Raises:
        ConfigError: if there is no such kind.
        LabelsError: if a name is no file name, or the predictions cannot be written in this form.
        OutputError: if the folder holds other files, or cannot be written.
    """
    texts = _result_texts(tables, kind, ground_truth)
    with replacing_folder(folder, lambda path: path.name in texts) as temporary:
        for name, text in texts.items():
            (temporary / name).write_text(text, encoding="utf-8")


def write_submission(
    path: PathLike,
    tables: Mapping[str, InstanceTable],
    *,
    kind: str,
    ground_truth: Mapping[str, InstanceTable] | None = None,
) -> None:
    """Write the zip file that a test server takes, always with the same bytes; see :func:`write_results`.

    Raises:
        ConfigError: if there is no such kind, or it is ``paper``.
        LabelsError: if a name is no file name, a keypoint has no score, or an instance cannot get a track id
            from 0 to 999 that is its own in its frame.
        OutputError: if the place cannot be written.
    """
    if kind == "paper":
        raise ConfigError(
            "test servers do not take the original's result files",
            expected="posetrack17, posetrack18 or posetrack21",
            got=kind,
            fix="name the data set that the predictions are for",
        )
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, text in sorted(_result_texts(tables, kind, ground_truth).items()):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system, entry.external_attr = 3, 0o644 << 16  # the same on every system
            archive.writestr(entry, text)
    with replacing(path) as temporary:
        temporary.write_bytes(data.getvalue())


def _result_texts(
    tables: Mapping[str, InstanceTable], kind: str, ground_truth: Mapping[str, InstanceTable] | None
) -> dict[str, str]:
    """Return file name -> JSON text."""
    if kind not in KINDS:
        raise unknown_name("unknown kind of result files", kind, KINDS)
    if ground_truth is not None:
        strangers = sorted(set(tables) - set(ground_truth))
        if strangers:
            raise LabelsError(
                "there are predictions of videos that the ground truth does not have",
                expected=few_of(sorted(ground_truth)),
                got=few_of(strangers),
                fix="name predictions as the files of the ground truth are named",
            )
        tables = {
            name: on_frames(tables[name], frames) if name in tables else frames.take([])
            for name, frames in ground_truth.items()
        }
    texts = {}
    for name, table in tables.items():
        if not name or name.startswith(".") or set(name) & set("/\\\0") or allowed_name(name) != name:
            raise LabelsError(
                "a video's name is no file name",
                expected="a name that this system allows, without / and not beginning with a dot",
                got=repr(name),
                fix="rename the video",
            )
        document = result_document(table) if kind == "paper" else _submission_document(table, kind)
        texts[f"{name}.json"] = json.dumps(document, allow_nan=False, separators=(",", ":"))
    return texts


def _submission_document(table: InstanceTable, kind: str) -> dict[str, Any]:
    """Return the content of a file for a test server: with track ids, without boxes and ignore regions."""
    require_posetrack(table)
    bare = is_there(table.keypoints) & ~np.isfinite(table.keypoint_scores)
    if bare.any():
        i, k = np.argwhere(bare)[0]
        raise LabelsError(
            f"a prediction in frame {table.frame_names[table.rows[i]]} has no score",
            expected="a score for each keypoint",
            got=f"{table.skeleton.names[k]} without a score",
            fix="predict again, or give the file with the scores",
        )
    none, tracks = np.full((table.n_instances, 4), np.nan), submission_tracks(table)
    table = replace(table, tracks=tracks, boxes=none, head_boxes=none, ignore_regions={})
    if kind == "posetrack17":
        return {"annolist": annolist_document(replace(table, image_ids=None))["annolist"]}
    return posetrack18_document(table)


def submission_tracks(table: InstanceTable) -> Ints:
    """Return (n,) track ids from 0 to 999, each at most once in a frame.

    Where nobody has a track, instances are numbered within their frame. Otherwise tracks keep their ids if
    all fit and are renumbered if not, and an instance without one gets a track of its own.

    Raises:
        LabelsError: if a track is twice in a frame, or there are more than 1000.
    """
    tracks, rows = table.tracks.copy(), table.rows
    alone = tracks == NO_TRACK
    if alone.all():
        order = np.argsort(rows, kind="stable")
        first = np.searchsorted(rows[order], rows[order])
        tracks[order] = np.arange(len(rows)) - first
    else:
        tracks[alone] = tracks.max() + 1 + np.arange(alone.sum())
    pairs, counts = np.unique(np.stack([rows, tracks], axis=1), axis=0, return_counts=True)
    if (counts > 1).any():
        row, track = pairs[counts > 1][0]
        raise LabelsError(
            f"track {track} is twice in frame {table.frame_names[row]} of video {table.video}",
            expected="each track once in a frame",
            got=f"{counts.max()} instances of one track",
            fix="give each instance of a frame a track id of its own, or none at all",
        )
    if len(tracks) and not 0 <= tracks.min() <= tracks.max() <= LARGEST_TRACK:
        names, tracks = np.unique(tracks, return_inverse=True)
        if len(names) > LARGEST_TRACK + 1:
            raise LabelsError(
                f"video {table.video} has too many tracks for a test server",
                expected=f"track ids from 0 to {LARGEST_TRACK}",
                got=f"{len(names)} tracks or instances in a frame",
                fix="raise the score threshold, or drop short tracks",
            )
    return tracks.reshape(-1).astype(np.int64)
