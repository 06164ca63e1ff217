"""Figures as text, no wider than 80 characters; a figure that does not exist is a dash."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from posewarper.evaluation.oks import OksScore
from posewarper.evaluation.pck import PckScore
from posewarper.evaluation.posetrack_protocol import GROUPS, PoseTrackScore, by_group, total_of
from posewarper.io.posetrack_points import POINT_KEYPOINTS
from posewarper.skeletons import POSETRACK
from posewarper.structures import Floats

_HEADINGS = (*(group.capitalize() for group in GROUPS), "Mean")
# A column is as wide as its heading and a blank, or as -1100.0 and a blank.
_FIRST, _LEAST = 13, 8
_WIDTHS = [max(_LEAST, len(heading) + 1) for heading in _HEADINGS]


def format_score(score: PoseTrackScore | PckScore | OksScore) -> str:
    """Return the figures of any metric as lines of text."""
    if isinstance(score, PoseTrackScore):
        return _format_posetrack(score)
    return _format_pck(score) if isinstance(score, PckScore) else _format_oks(score)


def _format_posetrack(score: PoseTrackScore) -> str:
    found, tracked = score.detection, score.tracking
    lines = [
        _line(f"{score.n_frames} frames", _HEADINGS),
        _points_line("AP", found.ap),
        _points_line("precision", found.precision),
        _points_line("recall", found.recall),
    ]
    if tracked is not None:
        lines += [
            "",
            _line("tracking", _HEADINGS),
            _points_line("MOTA", tracked.mota),
            _points_line("MOTP", tracked.motp),
            _points_line("precision", tracked.precision),
            _points_line("recall", tracked.recall),
        ]
    return "\n".join(lines)


def _format_pck(score: PckScore) -> str:
    heads = [f"PCK@{threshold:g}" for threshold in score.thresholds]
    lines = []
    if score.keypoints == POSETRACK.names:
        lines.append(_line(f"{score.n_instances} people", _HEADINGS))
        lines += [_points_line(h, row[POINT_KEYPOINTS]) for h, row in zip(heads, score.pck, strict=True)]
    else:
        width = max(_FIRST, *(len(name) for name in score.keypoints))
        columns = [max(_LEAST, len(head) + 1) for head in ("labels", *heads)]
        lines.append(_line("keypoint", ["labels", *heads], columns, width))
        for k, name in enumerate(score.keypoints):
            cells = [str(int(score.counts[k])), *(_cell(value) for value in score.pck[:, k])]
            lines.append(_line(name, cells, columns, width))
        cells = [str(int(score.counts.sum())), *(_cell(value) for value in score.mean)]
        lines.append(_line("mean", cells, columns, width))
    matched = f"{score.n_instances - score.n_unmatched} of {score.n_instances}"
    return "\n".join(
        [
            *lines,
            "",
            f"thresholds in {_unit_of(score.normaliser)}",
            f"instances matched by {score.matched_by}: {matched}",
            f"labelled keypoints with a prediction: {score.coverage:.1f} %",
        ]
    )


def _unit_of(normaliser: str) -> str:
    known = {
        "head": "units of 0.6 times the diagonal of the head box",
        "box": "units of the longer side of the box",
        "pixels": "pixels",
    }
    return known.get(normaliser) or f"units of the distance from {' to '.join(normaliser.split(','))}"


def _format_oks(score: OksScore) -> str:
    names, widths = list(score.figures), [7] * len(score.figures)
    return "\n".join(
        [
            _line("", names, widths, 0),
            _line("", [_cell(score.figures[name]) for name in names], widths, 0),
            "",
            f"{score.n_instances} labelled and {score.n_predictions} predicted instances",
        ]
    )


def _points_line(name: str, values: Floats) -> str:
    return _line(name, [*(_cell(v) for v in by_group(values).values()), _cell(total_of(values))])


def _line(
    first: str, cells: Sequence[str], widths: Sequence[int] = _WIDTHS, first_width: int = _FIRST
) -> str:
    return first.ljust(first_width) + "".join(cell.rjust(w) for cell, w in zip(cells, widths, strict=True))


def _cell(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.1f}"
