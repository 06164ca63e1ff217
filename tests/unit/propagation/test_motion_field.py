"""Motion read inside moving crops, in pixels of the image."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_allclose

from posewarper.geometry import crop_transform
from posewarper.propagation.evidence import MotionField, measure_motion
from posewarper.video.track_crops import cut_track

SIZE = (48, 64)  # of crops, height and width
POINTS = np.array([[50.0, 32.0], [61.5, 40.25], [np.nan, np.nan]])


def constant(*steps) -> np.ndarray:
    """Flows in crop pixels, each the same everywhere."""
    return np.broadcast_to(np.array(steps, float)[:, None, None], (len(steps), *SIZE, 2)).astype(np.float16)


def test_a_still_picture_in_a_crop_that_moves_and_grows():
    # Nothing moves inside the crops, so things move as the crops do: by (4, -2), then apart.
    boxes = np.array([[20, 10, 64, 48], [24, 8, 64, 48], [-8, -16, 128, 96]], float)
    field = MotionField(
        constant((0, 0), (0, 0)), constant((0, 0), (0, 0)), tuple(crop_transform(b, SIZE) for b in boxes)
    )
    centre = boxes[1, :2] + boxes[1, 2:] / 2
    second = POINTS + np.array([4, -2])
    third = centre + (second - centre) * 2
    forward, backward = field.steps(np.stack([POINTS, second, third]))
    assert_allclose(forward, [second - POINTS, third - second])
    assert_allclose(backward, forward)
    # Read where the guess is: a guess that is off gets the motion of another place.
    forward, backward = field.steps(np.stack([POINTS, second + 1, third]))
    assert_allclose(forward[1], third + 2 - (second + 1))
    assert_allclose(backward[1], third - second)


def test_flow_inside_the_crop_counts_in_image_pixels():
    # Crops at half the image's size: a pixel in the crop is two in the image. Back is not simply minus there.
    transforms = (crop_transform((0, 0, 128, 96), SIZE), crop_transform((10, -6, 128, 96), SIZE))
    field = MotionField(constant((3, -1)), constant((-2, 2)), transforms)
    guess = np.stack([POINTS, POINTS + 7])
    forward, backward = field.steps(guess)
    assert forward.shape == backward.shape == (1, 3, 2)
    assert_allclose(forward[0, :2], [(10 + 6, -6 - 2)] * 2)
    assert_allclose(backward[0, :2], [(10 + 4, -6 - 4)] * 2)
    assert np.isnan(forward[:, 2]).all() and np.isnan(backward[:, 2]).all()


def test_flow_is_read_between_pixels_at_either_end():
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    there = np.stack([0.25 * x, 0 * y], -1)[None].astype(np.float16)
    back = np.stack([0 * x, -0.5 * y], -1)[None].astype(np.float16)
    same = crop_transform((-0.5, -0.5, 64, 48), SIZE)
    forward, backward = MotionField(there, back, (same, same)).steps(
        np.array([[[10.5, 8.0]], [[12.0, 20.5]]])
    )
    assert_allclose(forward[0, 0], [0.25 * 10.5, 0])
    assert_allclose(backward[0, 0], [0, 0.5 * 20.5])


def test_one_frame_has_no_motion():
    none = constant((0, 0))[:0]
    field = MotionField(none, none, (crop_transform((0, 0, 64, 48), SIZE),))
    forward, backward = field.steps(POINTS[None])
    assert forward.shape == backward.shape == (0, 3, 2)


def test_measured_in_crops_that_move_otherwise_than_the_picture(picture, moving_video):
    frames = np.arange(2, 9)
    start = np.array([[45.0, 36.0], [60.25, 30.5]])
    points = picture.keypoints(start, frames)
    # The crops go their own way, and show the picture at one and a half times its size.
    n = np.arange(len(frames))
    boxes = np.stack([30 + 2.5 * n, 12 + 0.5 * n, 48 + 0 * n, 36 + 0 * n], 1)
    crops = cut_track(moving_video, frames, boxes, (54, 72))
    field = measure_motion(crops)
    assert field.there.shape == field.back.shape == (6, 54, 72, 2)
    forward, backward = field.steps(points)
    expected = np.broadcast_to(picture.velocity, forward.shape)
    assert_allclose(forward, expected, atol=0.25)
    assert_allclose(backward, expected, atol=0.25)
    single = measure_motion(cut_track(moving_video, frames[:1], boxes[:1], (54, 72)))
    assert single.there.shape == single.back.shape == (0, 54, 72, 2)
