"""The three metrics of ``evaluate``: read both sides, score them, and lay out the figures as text."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from posewarper.errors import ConfigError, PosewarperWarning, unknown_name, wrong_type
from posewarper.evaluation.oks import OksScore, score_oks
from posewarper.evaluation.pairing import count_frames, table_of_labels
from posewarper.evaluation.pck import DEFAULT_THRESHOLDS, TORSO_THRESHOLDS, PckScore, score_pck
from posewarper.evaluation.posetrack import GROUPS, PoseTrackScore, by_group, score_posetrack, total_of
from posewarper.formats.catalogue import is_label_folder
from posewarper.formats.labels import read_annotations, read_labels
from posewarper.formats.records import PathLike, read_json
from posewarper.posetrack.points import POINT_KEYPOINTS, apply_neck_rule
from posewarper.posetrack.tables import read_tables
from posewarper.skeletons import POSETRACK
from posewarper.structures import Floats, InstanceTable, Labels, Poses

_HEADINGS = (*(group.capitalize() for group in GROUPS), "Mean")
# A column is as wide as its heading and a blank, or as -1100.0 and a blank.
_FIRST, _LEAST = 13, 8
_WIDTHS = [max(_LEAST, len(heading) + 1) for heading in _HEADINGS]


def format_score(score: PoseTrackScore | PckScore | OksScore) -> str:
    """Return the figures of any metric as lines of text."""
    if isinstance(score, PckScore):
        lines = _format_pck(score)
    elif isinstance(score, OksScore):
        names, widths = list(score.figures), [7] * len(score.figures)
        lines = [
            _line("", names, widths, 0),
            _line("", [_cell(score.figures[name]) for name in names], widths, 0),
            "",
            f"{score.n_instances} labelled and {score.n_predictions} predicted instances",
        ]
    else:

        def table(title: str, figures: object, names: Sequence[str]) -> list[str]:
            return [_line(title, _HEADINGS), *(_points_line(n, getattr(figures, n.lower())) for n in names)]

        lines = table(f"{score.n_frames} frames", score.detection, ("AP", "precision", "recall"))
        if score.tracking is not None:
            lines += ["", *table("tracking", score.tracking, ("MOTA", "MOTP", "precision", "recall"))]
    return "\n".join(lines)


def _format_pck(score: PckScore) -> list[str]:
    heads = [f"PCK@{threshold:g}" for threshold in score.thresholds]
    lines = []
    if score.keypoints == POSETRACK.names:
        lines.append(_line(f"{score.n_instances} people", _HEADINGS))
        lines += [_points_line(h, row[POINT_KEYPOINTS]) for h, row in zip(heads, score.pck, strict=True)]
    else:
        width = max(_FIRST, *(len(name) for name in score.keypoints))
        columns = [max(_LEAST, len(head) + 1) for head in ("labels", *heads)]
        lines.append(_line("keypoint", ["labels", *heads], columns, width))
        rows = [*zip(score.keypoints, score.counts, score.pck.T, strict=True)]
        for name, count, values in (*rows, ("mean", score.counts.sum(), score.mean)):
            lines.append(_line(name, [str(count), *map(_cell, values)], columns, width))
    units = {
        "head": "units of 0.6 times the diagonal of the head box",
        "box": "units of the longer side of the box",
        "pixels": "pixels",
    }
    between = score.normaliser.replace(",", " to ")
    unit = units.get(score.normaliser, f"units of the distance from {between}")
    matched = f"{score.n_instances - score.n_unmatched} of {score.n_instances}"
    return [
        *lines,
        "",
        f"thresholds in {unit}",
        f"instances matched by {score.matched_by}: {matched}",
        f"labelled keypoints with a prediction: {score.coverage:.1f} %",
    ]


def _points_line(name: str, values: Floats) -> str:
    return _line(name, [*(_cell(v) for v in by_group(values).values()), _cell(total_of(values))])


def _line(
    first: str, cells: Sequence[str], widths: Sequence[int] = _WIDTHS, first_width: int = _FIRST
) -> str:
    return first.ljust(first_width) + "".join(cell.rjust(w) for cell, w in zip(cells, widths, strict=True))


def _cell(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.1f}"


METRICS = ("posetrack", "pck", "oks")
Score = PoseTrackScore | PckScore | OksScore
_Tables = Mapping[str, InstanceTable]


def evaluate(
    ground_truth: PathLike | Labels,
    predictions: PathLike | Labels | Poses,
    *,
    metric: str = "posetrack",
    neck: str = "head_bottom",
    normaliser: str | None = None,
    thresholds: Sequence[float] | None = None,
    sigmas: Sequence[float] | None = None,
) -> Score:
    """Compare predicted poses with labelled ones.

    Args:
        ground_truth: PoseTrack's annotations, a file or a folder of files (annolist ``.json`` or ``.mat``,
            PoseTrack18 JSON); for ``pck`` and ``oks`` also any label file of one video, or labels.
        predictions: files of the same kind; beside labels of one video a ``poses.json`` or any other label
            file, or poses.
        metric: ``posetrack`` (the official AP, and MOTA where there are tracks), ``pck`` or ``oks``.
        neck: ``head_bottom`` takes the predicted neck as it is; ``shoulders`` puts it between the predicted
            shoulders (PoseTrack's keypoints only).
        normaliser: what ``pck`` measures distances by: ``head``, ``box``, ``pixels`` or two keypoints
            (``left_shoulder,right_hip``). Left out: the head box where there are some, else the longer side
            of the box.
        thresholds: of ``pck``, in units of the normaliser. Left out: 0.5 of the head; 0.05, 0.1 and 0.2 of
            the box; 5, 10 and 20 pixels; 0.2 of a distance between keypoints.
        sigmas: of ``oks``, one for each keypoint, or one for all. Left out: COCO's for the keypoints of COCO
            and PoseTrack, 0.1 for others.

    Returns:
        PoseTrackScore | PckScore | OksScore: figures in percent, NaN where there are none; ``to_dict()``
        gives what ``posewarper evaluate --json`` writes.

    Raises:
        ConfigError: if a setting does not exist or has an impossible value.
        LabelsError: if a file cannot be read, or predictions are missing for a video or a frame.

    Warns:
        PosewarperWarning: about what is odd but usable, such as predictions without scores.

    Example:
        >>> score = evaluate("dense.json", "dense.json", metric="pck")
        >>> score.thresholds, score.mean.tolist()
        ((0.05, 0.1, 0.2), [100.0, 100.0, 100.0])
    """
    for what, given in (("the ground truth", ground_truth), ("the predictions", predictions)):
        if not isinstance(given, str | os.PathLike | Labels | Poses):
            raise wrong_type(what, given, "a file, a folder, posewarper.Labels or posewarper.Poses")
    if metric not in METRICS:
        raise unknown_name("unknown metric", metric, METRICS)
    settings = {"normaliser": normaliser, "thresholds": thresholds, "sigmas": sigmas}
    for name, value in settings.items():
        owner = "oks" if name == "sigmas" else "pck"
        if value is not None and owner != metric:
            raise ConfigError(
                f"metric {metric} has no {name}",
                expected=f"{name} with metric {owner} only",
                got=value,
                fix=f"leave {name} out, or choose metric {owner}",
            )
    truth, predicted, is_clip = _read_both(ground_truth, predictions, metric)
    if metric == "posetrack":
        return score_posetrack(truth, predicted, neck=neck)
    if neck != "head_bottom":
        predicted = {name: apply_neck_rule(table, neck) for name, table in predicted.items()}
    if metric == "oks":
        if sigmas is not None and len(sigmas) == 1 and truth:
            sigmas = tuple(sigmas) * len(next(iter(truth.values())).skeleton)
        return score_oks(truth, predicted, sigmas=sigmas)
    has_heads = any((~np.isnan(table.head_boxes)).any() for table in truth.values())
    chosen = normaliser or ("head" if has_heads else "box")
    return score_pck(
        truth,
        predicted,
        normaliser=chosen,
        thresholds=DEFAULT_THRESHOLDS.get(chosen, TORSO_THRESHOLDS) if thresholds is None else thresholds,
        # PoseTrack's files are about trackers, whose ids are their own.
        trust_tracks=is_clip,
    )


def _read_both(ground_truth: Any, predictions: Any, metric: str) -> tuple[_Tables, _Tables, bool]:
    """Return both sides, and whether they are one video's labels rather than PoseTrack's files."""
    are_paths = all(isinstance(side, str | os.PathLike) for side in (ground_truth, predictions))
    if are_paths and (metric == "posetrack" or _is_posetrack(ground_truth)):
        return read_tables(ground_truth), read_tables(predictions), False
    labels = ground_truth if isinstance(ground_truth, Labels) else read_labels(ground_truth)
    found = predictions.as_labels() if isinstance(predictions, Poses) else predictions
    found = found if isinstance(found, Labels) else read_annotations(found)
    truth = table_of_labels(labels.only_labelled(), only_visible=True, n_frames=count_frames(found))
    predicted = table_of_labels(found, only_visible=False, n_frames=count_frames(labels))
    both = min(len(truth.is_labelled), len(predicted.is_labelled))
    scored = truth.is_labelled[:both]
    given = int((scored & predicted.is_labelled[:both]).sum())
    # A file in which all are labelled does not tell labels from predictions.
    if given and not predicted.is_labelled[predicted.rows].all():
        warnings.warn(
            f"{given} of the {int(scored.sum())} scored frames hold labels on the side of the predictions; "
            "they count too ('posewarper benchmark' leaves them out)",
            PosewarperWarning,
            stacklevel=2,
        )
    name = labels.video or (Path(ground_truth).stem if not isinstance(ground_truth, Labels) else "the video")
    return {name: truth}, {name: predicted}, True


def _is_posetrack(path: PathLike) -> bool:
    """Return whether these are PoseTrack's own files, rather than labels in one of the other formats."""
    place = Path(path)
    if place.is_dir():
        return not is_label_folder(place)
    if place.suffix.lower() != ".json":
        return place.suffix.lower() in (".mat", ".zip")
    document = read_json(place)
    if "annolist" in document:
        return True
    categories, annotations = document.get("categories"), document.get("annotations")
    if not isinstance(categories, list) or not isinstance(annotations, list):
        return False
    names = [category.get("keypoints") for category in categories if isinstance(category, Mapping)]
    # In PoseTrack's files 1 means labelled; a 2 is only in ours.
    triples = [record.get("keypoints") for record in annotations if isinstance(record, Mapping)]
    visible = any(isinstance(values, list) and 2 in values[2::3] for values in triples)
    return names == [list(POSETRACK.names)] and not visible
