"""A made-up instance table in which no two values are the same, and a comparison of tables."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np

from posewarper.skeletons import POSETRACK
from posewarper.structures import NO_TRACK, InstanceTable

EARS = [POSETRACK.names.index("left_ear"), POSETRACK.names.index("right_ear")]


def sample_table(**changes: Any) -> InstanceTable:
    """Four frames, two without people, three people; one keypoint, one track, one box are missing."""
    keypoints = np.arange(3 * 17 * 2, dtype=float).reshape(3, 17, 2) + 0.1
    keypoints[:, EARS] = np.nan
    keypoints[1, 0] = np.nan
    scores = np.where(np.isnan(keypoints[..., 0]), np.nan, np.arange(3 * 17).reshape(3, 17) / 64)
    table = InstanceTable(
        video="000342_mpii_test",
        frame_names=tuple(f"val/000342_mpii_test/{i:06}.jpg" for i in range(4)),
        frame_numbers=[0, 1, 2, 3],  # type: ignore[arg-type]
        rows=[0, 2, 2],  # type: ignore[arg-type]
        keypoints=keypoints,
        keypoint_scores=scores,
        scores=[0.5, 0.25, np.nan],  # type: ignore[arg-type]
        tracks=[7, NO_TRACK, 3],  # type: ignore[arg-type]
        boxes=[[1, 2, 30, 40], [5, 6, 70, 81], [np.nan] * 4],  # type: ignore[arg-type]
        head_boxes=[[10, 20, 3, 4], [np.nan] * 4, [-5, 6, 7, 9]],  # type: ignore[arg-type]
        is_labelled=[True, False, True, False],  # type: ignore[arg-type]
        image_ids=np.array([10003420000, 10003420001, 10003420002, 10003420003]),
        ignore_regions={
            1: (np.array([[0.5, 1], [20, 2], [30.25, 40]]), np.array([[5.0, 6], [7, 8], [9, 1], [2, 3]]))
        },
        n_frames=90,
        image_size=(720, 1280),
    )
    # Another number of people has its own crowds, or none.
    if "rows" in changes:
        changes = {"is_person": None, **changes}
    return replace(table, **changes)


def assert_same(ours: InstanceTable, theirs: InstanceTable, *, but: tuple[str, ...] = ()) -> None:
    """Compare all that two tables hold, except some of it by name."""
    for name in {field.name for field in fields(InstanceTable)} - {*but}:
        a, b = getattr(ours, name), getattr(theirs, name)
        if name == "ignore_regions":
            assert a.keys() == b.keys(), name
            for row in a:
                assert len(a[row]) == len(b[row])
                for p, q in zip(a[row], b[row], strict=True):
                    np.testing.assert_array_equal(p, q)
        elif isinstance(a, np.ndarray):
            np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-13, err_msg=name)
        else:
            assert a == b, name
