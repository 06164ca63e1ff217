"""The accuracy printed in training, on peaks put by hand."""

from __future__ import annotations

import numpy as np

from posewarper.training.steps import paper_heatmap_accuracy


def peaks(points, height=60, width=20) -> np.ndarray:
    maps = np.zeros((len(points), len(points[0]), height, width), np.float32)
    for b, row in enumerate(points):
        for k, point in enumerate(row):
            if point is not None:
                maps[b, k, point[1], point[0]] = 1
    return maps


def test_x_is_measured_in_tenths_of_the_height():
    # A tenth of the height is 6, of the width 2: 2 pixels in x are a third, 1 pixel in y is a half.
    target = peaks([[(9, 9), (9, 9), (9, 9), (9, 9)]])
    output = peaks([[(11, 9), (12, 9), (9, 10), (9, 9)]])
    accuracy = paper_heatmap_accuracy(output, target)
    assert accuracy.per_keypoint.tolist() == [1, 0, 0, 1]
    assert accuracy.mean == 0.5 and accuracy.count == 4
    assert accuracy.predictions.tolist() == [[[11, 9], [12, 9], [9, 10], [9, 9]]]


def test_targets_at_the_first_two_rows_and_columns_do_not_count():
    target = peaks([[(1, 9), (9, 1), (2, 2), None], [(9, 9), (1, 1), (9, 9), (0, 0)]])
    output = peaks([[(1, 9), (9, 1), (2, 2), (0, 0)], [(9, 9), (1, 1), (2, 2), (0, 0)]])
    accuracy = paper_heatmap_accuracy(output, target)
    np.testing.assert_array_equal(accuracy.per_keypoint, [1, np.nan, 0.5, np.nan])
    assert accuracy.mean == 0.75 and accuracy.count == 2


def test_nothing_to_compare():
    nothing = np.zeros((2, 3, 8, 8))
    accuracy = paper_heatmap_accuracy(nothing, nothing)
    assert np.isnan(accuracy.per_keypoint).all() and accuracy.mean == 0 and accuracy.count == 0
