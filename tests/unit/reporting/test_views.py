"""Views lie around their subjects, inside of the image, and show each keypoint where it is."""

from __future__ import annotations

import base64

import cv2
import numpy as np
import pytest

from posewarper.reporting.views import (
    draw_rings,
    draw_view,
    encode_picture,
    join_boxes,
    pad_boxes,
    tight_boxes,
    usual_aspect,
    view_size,
    whole_image,
)
from posewarper.skeletons import Skeleton
from posewarper.structures import Poses, Track

SIZE = (400, 600)


def test_boxes_leave_out_what_is_outside_or_astray() -> None:
    points = np.array([[[100, 100], [120, 150], [110, 130]], [[np.nan, np.nan]] * 3], float)
    assert tight_boxes(points, SIZE)[0].tolist() == [100, 100, 20, 50]
    assert np.isnan(tight_boxes(points, SIZE)[1]).all()
    points[0, 2] = (700, 130)
    assert tight_boxes(points, SIZE)[0].tolist() == [100, 100, 20, 50]
    points[0, 2] = (500, 130)
    assert tight_boxes(points, SIZE)[0].tolist() == [100, 100, 400, 50]
    assert tight_boxes(points, SIZE, most=100)[0].tolist() == [100, 100, 20, 50]


def test_boxes_of_several_tracks_are_joined_frame_by_frame() -> None:
    first, second = np.array([[10.0, 20, 30, 40]]), np.array([[0.0, 50, 20, 20], [1, 2, 3, 4]])
    joined = join_boxes([first, second], [np.array([2]), np.array([2, 3])], 5)
    assert joined[2].tolist() == [0, 20, 40, 50] and joined[3].tolist() == [1, 2, 3, 4]
    assert np.isnan(joined[[0, 1, 4]]).all()


def test_padded_boxes_have_one_aspect_and_stay_inside() -> None:
    tight = np.array([[250.0, 150, 40, 80], [0, 0, 40, 60], [570, 350, 30, 50], [np.nan] * 4])
    aspect = usual_aspect(tight)
    assert aspect == pytest.approx(0.62)  # taller than what is shown
    boxes = pad_boxes(tight, aspect, SIZE)
    assert np.isnan(boxes[3]).all()
    np.testing.assert_allclose(boxes[:3, 2] / boxes[:3, 3], aspect)
    assert (boxes[:3, :2] >= -0.5).all()
    assert (boxes[:3, :2] + boxes[:3, 2:] <= np.array([599.5, 399.5]) + 1e-9).all()
    np.testing.assert_allclose(boxes[0, :2] + boxes[0, 2:] / 2, [270, 190])
    assert (boxes[:3, 2:] >= 1.3 * tight[:3, 2:]).all()


def test_large_subjects_are_seen_in_the_whole_image_and_lone_keypoints_in_a_quarter() -> None:
    large = np.array([[50.0, 20, 300, 350]])
    np.testing.assert_array_equal(pad_boxes(large, usual_aspect(large), SIZE), [whole_image(SIZE)])
    lone = np.array([[300.0, 200, 0, 0]])
    assert usual_aspect(lone) == 1
    assert pad_boxes(lone, 1.0, SIZE)[0].tolist() == [225, 125, 150, 150]


def poses() -> Poses:
    skeleton = Skeleton(("nose", "tail"), ((0, 1),))
    track = Track(np.array([4]), np.array([[[100.0, 50.0], [140.0, 50.0]]]), keypoint_scores=np.ones((1, 2)))
    return Poses(skeleton, {0: track}, SIZE, 9)


def test_a_view_shows_the_keypoints_where_they_are() -> None:
    image = np.full((*SIZE, 3), 100, np.uint8)
    box = (79.5, 19.5, 80, 60)  # pixels 80 to 159 and 20 to 79
    assert view_size(box, 320) == (240, 320)
    view = draw_view(image, box, 320, poses(), 4)
    assert view.shape == (240, 320, 3)
    # Four times as large: pixel 100 is the 21st of the view, its middle lies at 4 * 20.5 - 0.5.
    drawn = np.argwhere((view != 100).any(-1))
    middle = (drawn.min(0) + drawn.max(0)) / 2
    np.testing.assert_allclose(middle[::-1], [4 * 40.5 - 0.5, 4 * 30.5 - 0.5], atol=0.6)
    np.testing.assert_array_equal(draw_view(image, box, 320, poses(), 5), 100)
    ringed = draw_view(image, box, 320, poses(), 4, rings=(0, [1]))
    changed = np.argwhere((ringed != view).any(-1))[:, ::-1]
    np.testing.assert_allclose((changed.min(0) + changed.max(0)) / 2, [4 * 60.5 - 0.5, 121.5], atol=1)
    assert (draw_view(image, box, 320, poses(), 4, tags=True) != view).any()


def test_rings_far_away_or_nowhere_do_no_harm() -> None:
    image = np.full((50, 60, 3), 100, np.uint8)
    draw_rings(image, np.array([[np.nan, np.nan], [1e12, -1e12]]))
    assert (image == 100).all()


def test_pictures_keep_to_their_bytes() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    for most in (200_000, 60_000):
        data = base64.b64decode(encode_picture(noise, most).removeprefix("data:image/jpeg;base64,"))
        assert most / 3 < len(data) <= most
        assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == noise.shape
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 200
    data = base64.b64decode(encode_picture(red, 9999).partition(",")[2])
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[8, 8, 2] > 180  # BGR
