from __future__ import annotations

import numpy as np
import pytest

from posewarper.crops import IMAGENET_MEAN, IMAGENET_STD, crop_image, flip_keypoints, normalise, smooth_crop
from posewarper.geometry import crop_transform
from posewarper.skeletons import POSETRACK, Skeleton

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)


def waves(x, y):
    """A smooth picture, other in x than in y, as a function of the place."""
    return np.stack(
        [127 + 100 * np.sin(x / 31), 127 + 100 * np.cos(y / 23), 127 + 50 * np.sin(x / 40 + y / 29)], -1
    )


def picture(height, width):
    y, x = np.mgrid[:height, :width]
    return np.round(waves(x, y)).astype(np.uint8)


def test_the_whole_image_is_itself():
    transform = crop_transform((-0.5, -0.5, 60, 40), (40, 60))
    np.testing.assert_array_equal(crop_image(NOISE, transform), NOISE)
    np.testing.assert_array_equal(smooth_crop(NOISE, transform), NOISE)


def test_a_box_on_pixel_edges_is_a_slice():
    transform = crop_transform((6.5, 1.5, 20, 30), (30, 20))
    np.testing.assert_array_equal(crop_image(NOISE, transform), NOISE[2:32, 7:27])


def test_a_flipped_box_is_the_mirrored_slice():
    transform = crop_transform((6.5, 1.5, 20, 30), (30, 20), flip=True)
    np.testing.assert_array_equal(crop_image(NOISE, transform), NOISE[2:32, 7:27][:, ::-1])


def test_a_quarter_turn_is_a_quarter_turn():
    transform = crop_transform((-0.5, -0.5, 40, 40), (40, 40), rotation=90)
    np.testing.assert_array_equal(crop_image(NOISE[:, :40], transform), np.rot90(NOISE[:, :40]))


def test_outside_the_image_is_black():
    crop = crop_image(NOISE, crop_transform((-10.5, -5.5, 30, 20), (20, 30)))
    assert not crop[:5].any() and not crop[:, :10].any()
    np.testing.assert_array_equal(crop[5:, 10:], NOISE[:15, :20])


@pytest.mark.parametrize("cut", [crop_image, smooth_crop])
@pytest.mark.parametrize(
    ("box", "size", "rotation"),
    [
        ((20.3, 11.7, 100, 80), (120, 150), 0),  # enlarged
        ((31.2, 22.9, 150, 120), (96, 120), 20),  # a little smaller
        ((11.4, 9.3, 270, 180), (48, 72), 0),  # 3.75 times smaller
        ((40.1, 30.6, 200, 150), (30, 40), -35),  # 5 times smaller, turned
    ],
)
def test_crops_show_the_place_that_the_transform_says(cut, box, size, rotation):
    transform = crop_transform(box, size, rotation=rotation)
    y, x = np.mgrid[: size[0], : size[1]]
    places = transform.to_image(np.stack([x, y], -1))
    expected = waves(places[..., 0], places[..., 1])
    difference = cut(picture(220, 310), transform) - expected
    inside = (places > 8).all(-1) & (places < (301, 211)).all(-1)
    assert inside.mean() > 0.6
    assert np.abs(difference[inside]).max() < 3
    # Half a pixel off would show here: the waves rise by up to 4 levels a pixel.
    assert np.abs(difference[inside].mean(0)).max() < 0.4


def test_smooth_crops_average_what_plain_crops_skip():
    stripes = np.zeros((200, 200, 3), np.uint8)
    stripes[:, ::2] = 200
    transform = crop_transform((-0.5, -0.5, 200, 200), (25, 25))
    smooth = smooth_crop(stripes, transform)
    np.testing.assert_allclose(smooth, 100, atol=1)
    noise = RNG.integers(0, 256, (200, 200, 3), dtype=np.uint8)
    assert smooth_crop(noise, transform).std() < 0.3 * crop_image(noise, transform).std()


def test_smooth_crops_over_the_border_fade_to_black():
    white = np.full((101, 99, 3), 255, np.uint8)  # not a whole number of blocks
    crop = smooth_crop(white, crop_transform((-200.5, -200.5, 500, 500), (100, 100)))
    assert (crop[41:59, 41:59] == 255).all()
    assert not crop[:38].any() and not crop[:, :38].any() and not crop[62:].any() and not crop[:, 62:].any()


def test_a_smooth_crop_beside_the_image_is_black():
    crop = smooth_crop(NOISE, crop_transform((1000, 1000, 500, 500), (20, 30)))
    assert crop.shape == (20, 30, 3) and not crop.any()


def test_normalise_by_hand():
    crops = np.zeros((2, 3, 4, 3), np.uint8)
    crops[1, 2, 3] = 51, 102, 255
    tensor = normalise(crops)
    assert tensor.shape == (2, 3, 3, 4) and tensor.dtype == np.float32
    expected = (np.array([0.2, 0.4, 1.0]) - IMAGENET_MEAN) / IMAGENET_STD
    np.testing.assert_allclose(tensor[1, :, 2, 3], expected, rtol=1e-5)
    np.testing.assert_allclose(normalise(crops, (0, 0, 0), (1, 1, 1))[1, :, 2, 3], [0.2, 0.4, 1], rtol=1e-6)


def test_flipped_keypoints_lie_on_the_flipped_image():
    skeleton = Skeleton(("nose", "left_eye", "right_eye"))
    keypoints, visibility = flip_keypoints([[7, 3], [12, 5], [np.nan, np.nan]], [2, 1, 0], skeleton, 60)
    np.testing.assert_array_equal(keypoints, [[52, 3], [np.nan, np.nan], [47, 5]])
    assert visibility.tolist() == [2, 0, 1]
    np.testing.assert_array_equal(NOISE[:, ::-1][5, 47], NOISE[5, 12])


def test_flipping_twice_changes_nothing():
    keypoints = RNG.uniform(0, 60, (4, 17, 2))
    keypoints[1, 3] = np.nan
    visibility = RNG.integers(0, 3, (4, 17))
    once = flip_keypoints(keypoints, visibility, POSETRACK, 60)
    twice = flip_keypoints(*once, POSETRACK, 60)
    np.testing.assert_allclose(twice[0], keypoints)
    np.testing.assert_array_equal(twice[1], visibility)
    assert not np.array_equal(once[1], visibility)
