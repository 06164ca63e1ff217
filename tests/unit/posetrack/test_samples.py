"""From boxes to samples, with boxes worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from posewarper.errors import LabelsError
from posewarper.posetrack.samples import (
    NO_INSTANCE,
    label_boxes,
    samples_from_boxes,
    samples_from_labels,
)
from posewarper.skeletons import Skeleton
from posewarper.structures import InstanceTable

PAIR = Skeleton(("head", "tail"))
NAN = np.nan


def table(rows, boxes, keypoints=None, image_size=(60, 100)) -> InstanceTable:
    if keypoints is None:
        keypoints = np.full((len(rows), 2, 2), 5.0)
    return InstanceTable(
        "clip",
        ("clip/0.jpg", "clip/1.jpg", "clip/2.jpg"),
        [0, 1, 2],
        rows=rows,
        keypoints=keypoints,
        boxes=boxes,
        image_size=image_size,
        skeleton=PAIR,
    )


def test_labelled_boxes_are_cut_to_the_image():
    boxes, inside = label_boxes(
        [
            (10, 20, 30, 15),  # loses a pixel in width and height
            (-5, -8, 30, 15),  # moved in, at its whole size
            (90, 50, 30, 30),  # cut at the last pixel, 99 and 59
            (10, 20, 0, 0),  # of no area, as it was
            (100, 20, 5, 5),  # begins right of the last pixel
            (10, 60, 5, 5),  # begins below it
            (99, 59, 5, 5),  # begins on it
        ],
        image_size=(60, 100),
    )
    assert boxes[:4].tolist() == [[10, 20, 29, 14], [0, 0, 29, 14], [90, 50, 9, 9], [10, 20, 0, 0]]
    assert inside.tolist() == [True, True, True, True, False, False, True]


def test_samples_of_labels_go_frame_by_frame():
    boxes = [(10, 10, 21, 41), (0, 0, 11, 11), (20, 5, 31, 11), (200, 0, 9, 9)]
    keypoints = np.full((4, 2, 2), 5.0)
    keypoints[1] = NAN
    samples = samples_from_labels(table([2, 1, 0, 0], boxes, keypoints), aspect_ratio=0.5)
    # Without the instance that has no keypoint and the one outside of the image.
    assert samples.instances.tolist() == [2, 0] and samples.rows.tolist() == [0, 2] and len(samples) == 2
    assert samples.boxes.tolist() == [[20, 5, 30, 10], [10, 10, 20, 40]]
    assert samples.centers.tolist() == [[35, 10], [20, 30]]
    # 30 wide makes 60 high, 40 high makes 20 wide; padded by 1.25, in units of 200.
    np.testing.assert_allclose(samples.scales * 200, [[37.5, 75], [25, 50]], rtol=1e-6)
    assert samples.box_scores.tolist() == [1, 1]
    assert samples.centers.dtype == samples.scales.dtype == np.float32


def test_an_instance_without_a_box_takes_the_one_around_its_keypoints():
    keypoints = [[(10, 20), (31, 41)]]
    samples = samples_from_labels(table([1], [[NAN] * 4], keypoints), aspect_ratio=1.0)
    # 15 percent of 21 is 3.15 on each side; width and height lose the pixel that the original takes.
    np.testing.assert_allclose(samples.boxes, [[6.85, 16.85, 26.3, 26.3]])


def test_crowds_are_no_samples():
    people = replace(table([0, 1], [(1, 1, 9, 9)] * 2), is_person=[False, True])
    assert samples_from_labels(people, aspect_ratio=1.0).instances.tolist() == [1]


def test_nothing_labelled():
    samples = samples_from_labels(table([], np.zeros((0, 4)), np.zeros((0, 2, 2))), aspect_ratio=1.0)
    assert len(samples) == 0 and samples.centers.shape == samples.scales.shape == (0, 2)


def test_the_image_size_is_needed():
    with pytest.raises(LabelsError, match="size of the images of clip is unknown"):
        samples_from_labels(table([0], [(1, 1, 2, 2)], image_size=None), aspect_ratio=1.0)


def test_boxes_of_a_detector_are_used_as_they_are():
    boxes = [(-10, -20, 40, 10), (0, 0, 5, 5), (90, 50, 20, 40)]
    samples = samples_from_boxes(
        table([], np.zeros((0, 4)), np.zeros((0, 2, 2))), boxes, [0.2, 0.19, 1], [2, 1, 0], 0.5, 0.2
    )
    assert samples.rows.tolist() == [2, 0] and samples.box_scores.tolist() == [0.2, 1]
    assert samples.instances.tolist() == [NO_INSTANCE] * 2
    assert samples.boxes.tolist() == [[-10, -20, 40, 10], [90, 50, 20, 40]]
    assert samples.centers.tolist() == [[10, -15], [100, 70]]
    np.testing.assert_allclose(samples.scales * 200, [[50, 100], [25, 50]], rtol=1e-6)


@pytest.mark.parametrize(("scores", "rows"), [([1], [0, 1]), ([1, 1], [0, 3]), ([1, 1], [-1, 0])])
def test_boxes_that_do_not_fit_the_frames(scores, rows):
    empty = table([], np.zeros((0, 4)), np.zeros((0, 2, 2)))
    with pytest.raises(LabelsError):
        samples_from_boxes(empty, [(0, 0, 5, 5)] * 2, scores, rows, 1.0, 0.0)
