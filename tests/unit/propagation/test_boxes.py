"""Where a track's crops lie: they follow its labels and the flow."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from posewarper.propagation.clip import track_boxes
from posewarper.structures import Track
from posewarper.video.track_crops import without_strays

NAN = np.nan
CORNERS = np.array([[10.0, 20.0], [50.0, 40.0], [30.0, 30.0]])  # a box of 40 by 20 around (30, 30)


def track_of(frames, keypoints, boxes=None) -> Track:
    keypoints = np.array(keypoints, float)
    return Track(np.array(frames), keypoints, boxes=boxes)


def centre_and_size(boxes) -> tuple[np.ndarray, np.ndarray]:
    return boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]


def unknown(n, k=3) -> np.ndarray:
    return np.full((n, k, 2), NAN)


@pytest.mark.parametrize(
    ("aspect_ratio", "size"), [(1.0, (50, 50)), (0.5, (50, 100)), (4.0, (100, 25)), (2.0, (50, 25))]
)
def test_boxes_are_grown_to_the_aspect_ratio_and_padded_by_a_quarter(aspect_ratio, size):
    track = track_of([3], [CORNERS])
    frames = np.array([1, 3, 8])
    centre, sizes = centre_and_size(track_boxes(track, frames, unknown(3), aspect_ratio))
    assert_allclose(centre, [[30, 30]] * 3)
    assert_allclose(sizes, [size] * 3)


def test_boxes_between_labels_are_interpolated_and_held_beyond():
    track = track_of([2, 6], [CORNERS, CORNERS * 2])
    centre, size = centre_and_size(track_boxes(track, np.arange(9), unknown(9), 1.0))
    assert_allclose(centre[:, 0], [30, 30, 30, 37.5, 45, 52.5, 60, 60, 60])
    assert_allclose(centre[:, 1], centre[:, 0])
    assert_allclose(size[:, 0] / 1.25, [40, 40, 40, 50, 60, 70, 80, 80, 80])


def test_boxes_follow_the_motion():
    frames = np.arange(6)
    track = track_of([1, 4], [CORNERS, CORNERS + np.array([9, 0])])
    # Straight on in x, and a bow in y that no label shows; the last frame goes on in x.
    bow = np.array([[-3, 0], [0, 0], [3, 10], [6, 10], [9, 0], [12, -4]], float)
    rough = CORNERS[None] + bow[:, None]
    centre, size = centre_and_size(track_boxes(track, frames, rough, 1.0))
    assert_allclose(centre, bow + 30)
    assert_allclose(size, 50)
    lost = rough.copy()
    lost[2, 0] += 500  # a keypoint that flow has lost
    lost[3, 1:] = NAN  # where only one is known, it is followed
    assert_allclose(track_boxes(track, frames, lost, 1.0), track_boxes(track, frames, rough, 1.0))
    lost[2] = NAN  # nothing is known: straight on
    centre, _ = centre_and_size(track_boxes(track, frames, lost, 1.0))
    assert_allclose(centre[2], [33, 30])


def test_a_lone_keypoint_has_a_crop_that_follows_it():
    track = track_of([0, 4], [[[20.0, 30.0]], [[28.0, 30.0]]])
    rough = np.array([[[20.0, 30.0]], [[22.0, 35.0]], [[24.0, 35.0]], [[26.0, 35.0]], [[28.0, 30.0]]])
    centre, size = centre_and_size(track_boxes(track, np.arange(5), rough, 1.0))
    assert_allclose(centre, rough[:, 0])
    assert_allclose(size, 20)


def test_labels_without_keypoints_take_their_box_from_the_others_or_from_the_file():
    nothing = np.full((3, 2), NAN)
    track = track_of([0, 2, 4], [CORNERS, nothing, CORNERS + 8])
    centre, _ = centre_and_size(track_boxes(track, np.arange(5), unknown(5), 1.0))
    assert_allclose(centre[:, 0], [30, 32, 34, 36, 38])
    given = track_of([2], [nothing], np.array([[0, 10, 20, 40]]))
    assert_allclose(track_boxes(given, np.array([2, 3]), unknown(2), 1.0), [[-15, 5, 50, 50]] * 2)
    assert np.isfinite(track_boxes(track_of([2], [nothing]), np.array([2, 3]), unknown(2), 1.0)).all()


def test_labels_outside_of_the_image_do_not_blow_up_the_crop() -> None:
    inside = np.array([[[10.0, 20.0], [30.0, 60.0]]] * 2)
    stray = inside.copy()
    stray[1, 0] = (-4000.0, 20.0)
    track = Track(np.array([0, 4]), stray)
    framed = without_strays(track, (80, 100))
    assert framed.visibility.tolist() == [[2, 2], [0, 2]]
    boxes = track_boxes(framed, np.arange(5), np.full((5, 2, 2), np.nan), 1.0)
    assert boxes[:, 2:].max() <= 50.0 + 1e-9
    assert without_strays(track, (80, 100)).keypoints[0].tolist() == inside[0].tolist()


def test_a_keypoint_that_one_label_lacks_does_not_shrink_the_crop_there() -> None:
    keypoints = np.array(
        [[[10.0, 20.0], [37.0, 20.0]], [[10.0, 20.0], [np.nan, np.nan]], [[10.0, 20.0], [37.0, 20.0]]]
    )
    track = Track(np.array([0, 4, 8]), keypoints)
    boxes = track_boxes(track, np.arange(9), np.full((9, 2, 2), np.nan), 1.0)
    np.testing.assert_allclose(boxes, np.repeat(boxes[:1], 9, axis=0))


def test_the_crop_follows_a_subject_that_moves_far_beyond_its_last_label() -> None:
    keypoints = np.array([[[10.0, 20.0], [30.0, 60.0]]])
    track = Track(np.array([0]), keypoints)
    rough = keypoints + np.arange(21)[:, None, None] * np.array([15.0, 0.0])
    boxes = track_boxes(track, np.arange(21), rough, 1.0)
    np.testing.assert_allclose(np.diff(boxes[:, 0]), 15.0)
