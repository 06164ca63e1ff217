"""Labelled frames of the propagation experiment against those that the original chose."""

from __future__ import annotations

import json

import pytest
from largest_errors import record
from original_rules import paper_rows

from posewarper.errors import LabelsError
from posewarper.posetrack.selection import labelled_numbers, propagation_plan


@pytest.fixture(scope="module")
def recorded(parity_dir):
    return json.loads((parity_dir / "frame_selection.json").read_text())


def test_which_rows_are_filled_from_what(recorded):
    cases = [case for case in recorded["cases"] if "error" not in case["expected"]]
    assert cases
    for case in cases:
        frames, n_rows = paper_rows(case["coco"])
        ours = {
            name: {
                "labeled_file": frame.labelled_file,
                "delta": frame.delta,
                "out_rows": list(frame.rows),
                "source_annotation_ids": list(frame.annotation_ids),
            }
            for name, frame in frames.items()
        }
        expected = case["expected"]
        assert ours == expected["frames"], case["description"]
        assert n_rows == expected["n_rows"]
        filled = [row for frame in frames.values() for row in frame.rows]
        assert filled == list(range(expected["n_rows_filled"]))
    record("frame_selection.json", 0.0, "exact")


def test_where_the_original_stops_ours_explains(recorded):
    cases = [case for case in recorded["cases"] if "error" in case["expected"]]
    reasons = {"NameError": "too short", "KeyError": "nobody has a keypoint", "IndexError": "more people"}
    assert {case["expected"]["error"].split(":")[0] for case in cases} == set(reasons)
    for case in cases:
        with pytest.raises(LabelsError, match=reasons[case["expected"]["error"].split(":")[0]]):
            paper_rows(case["coco"])


def test_schedules(recorded):
    assert len(recorded["schedules"]) > 30
    for schedule in recorded["schedules"]:
        first, last = schedule["run"]
        run = range(first, last + 1)
        assert labelled_numbers(run) == schedule["labeled"]
        plan = propagation_plan(run)
        assert {str(step.number): step.delta for step in plan} == schedule["delta_of_frame"]
        assert all(step.number - step.delta == step.labelled for step in plan)
