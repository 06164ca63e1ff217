from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from posewarper.heatmaps import (
    crop_to_heatmap,
    decode,
    decode_peaks,
    encode,
    flip_heatmaps,
    heatmap_to_crop,
    paper_argmax,
    paper_decode,
    paper_encode,
)

SIZE = (24, 33)  # height and width differ, so that swapping them fails


def test_encode_is_the_gaussian_at_the_unrounded_place():
    heatmap = encode([[20.3, 7.6]], SIZE, 2.0)[0]
    assert heatmap.shape == SIZE and heatmap.dtype == np.float32
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    expected = np.exp(-((x - 20.3) ** 2 + (y - 7.6) ** 2) / 8)
    np.testing.assert_allclose(heatmap, expected, atol=1e-6)
    assert np.unravel_index(heatmap.argmax(), SIZE) == (8, 20)


def test_encode_leaves_out_what_is_not_there_or_far_outside():
    keypoints = [[np.nan, np.nan], [np.nan, 3.0], [-0.5 - 6.1, 5], [4, SIZE[0] - 0.5 + 6.1], [-0.5 - 5.9, 5]]
    heatmaps = encode(keypoints, SIZE, 2.0)
    assert not heatmaps[:4].any()
    assert heatmaps[4].any()


def test_encode_has_no_numbers_that_are_too_small_for_float32():
    """Gradients are products with them; whatever is subnormal there makes training crawl."""
    heatmaps = encode([[0.0, 0.0], [40.5, 30.2]], (96, 128), 2.0)
    there = heatmaps[heatmaps > 0]
    assert 1e-18 <= there.min() < 1e-15
    x, y = np.meshgrid(np.arange(128), np.arange(96))
    exact = np.exp(-((x - 40.5) ** 2 + (y - 30.2) ** 2) / 8)
    np.testing.assert_allclose(heatmaps[1], exact, rtol=1e-5, atol=1e-17)


def test_encode_takes_any_leading_axes():
    keypoints = np.random.default_rng(0).uniform(0, 20, (2, 3, 4, 2))
    heatmaps = encode(keypoints, SIZE, 1.5)
    assert heatmaps.shape == (2, 3, 4, *SIZE)
    np.testing.assert_array_equal(heatmaps[1, 2], encode(keypoints[1, 2], SIZE, 1.5))


@given(
    st.floats(-0.5, SIZE[1] - 0.5), st.floats(-0.5, SIZE[0] - 0.5), st.floats(1.0, 3.0), st.floats(0.05, 1)
)
def test_decode_undoes_encode_up_to_the_border(x, y, sigma, height):
    points, scores = decode(encode([[x, y]], SIZE, sigma) * np.float32(height))
    np.testing.assert_allclose(points, [[x, y]], atol=0.05)
    assert 0.75 * height < scores[0] <= height * 1.001


def test_decode_finds_the_peak_of_an_unequal_gaussian():
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    heatmap = np.exp(-((x - 11.3) ** 2) / 18 - (y - 9.8) ** 2 / 3)
    np.testing.assert_allclose(decode(heatmap[None])[0], [[11.3, 9.8]], atol=1e-6)


def test_decode_beats_the_quarter_shift_under_noise():
    rng = np.random.default_rng(3)
    points = rng.uniform(2, 20, (1, 200, 2))
    noisy = encode(points, SIZE, 2.0) + 0.03 * rng.standard_normal((1, 200, *SIZE)).astype(np.float32)
    ours = np.linalg.norm(decode(noisy)[0] - points, axis=-1)
    papers = np.linalg.norm(paper_decode(noisy)[0] - points, axis=-1)
    assert ours.mean() < 0.08 < papers.mean() / 2


@pytest.mark.parametrize("value", [0.0, -2.5, 0.7])
def test_decode_of_a_flat_map_is_its_first_pixel_and_its_value(value):
    points, scores = decode(np.full((2, 1, *SIZE), value, np.float32))
    np.testing.assert_array_equal(points, np.zeros((2, 1, 2)))
    np.testing.assert_allclose(scores, value)


def test_decode_of_a_negative_map_is_its_highest_pixel():
    heatmap = np.full(SIZE, -1.0, np.float32)
    heatmap[7, 19] = -0.25
    points, scores = decode(heatmap[None])
    np.testing.assert_array_equal(points, [[19, 7]])
    assert scores[0] == -0.25


def test_decode_of_a_single_bright_pixel_is_that_pixel():
    heatmap = np.zeros(SIZE, np.float32)
    heatmap[5, 30] = 3.0
    np.testing.assert_allclose(decode(heatmap[None])[0], [[30, 5]], atol=1e-6)


def test_decode_stays_within_a_pixel_of_the_highest_one_on_rough_maps():
    maps = np.random.default_rng(1).standard_normal((50, 4, 7, 5)).astype(np.float32)
    maps[::3] = np.round(maps[::3])
    points, scores = decode(maps)
    flat = maps.reshape(50, 4, -1)
    peaks = np.stack([flat.argmax(-1) % 5, flat.argmax(-1) // 5], -1)
    assert np.isfinite(points).all()
    assert np.abs(points - peaks).max() <= 1
    np.testing.assert_array_equal(scores, flat.max(-1))


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (4, 3)])
def test_decode_takes_maps_smaller_than_its_window(size):
    heatmap = encode([[size[1] - 1, size[0] - 1]], size, 1.0)
    np.testing.assert_allclose(decode(heatmap)[0], [[size[1] - 1, size[0] - 1]], atol=1e-4)


def test_decode_of_a_diverged_network_does_not_fail():
    points, scores = decode(np.full((1, *SIZE), np.nan, np.float32))
    assert np.isfinite(points).all() and np.isnan(scores).all()


def test_several_peaks_are_found_each_where_decode_finds_it_alone():
    spots = np.array([[6.3, 5.8], [20.6, 9.2], [12.4, 17.3]])
    heights = np.array([0.5, 0.9, 0.3])
    alone = encode(spots[:, None], SIZE, 1.5)[:, 0] * heights[:, None, None].astype(np.float32)
    points, scores = decode_peaks(alone.max(0)[None], 5)
    best = [1, 0, 2]  # the higher ones first
    np.testing.assert_allclose(points[0, :3], spots[best], atol=0.02)
    np.testing.assert_allclose(points[0, :3], decode(alone)[0][best], atol=1e-4)
    np.testing.assert_allclose(scores[0, :3], heights[best], rtol=0.15)
    assert np.isnan(points[0, 3:]).all() and np.isnan(scores[0, 3:]).all()
    np.testing.assert_array_equal(decode_peaks(alone.max(0)[None], 1)[0], points[:, :1])
    assert np.isfinite(decode_peaks(alone.max(0)[None], 5, least=0.4)[1]).sum() == 2


def test_peaks_of_maps_without_any():
    points, scores = decode_peaks(np.zeros((2, 3, *SIZE), np.float32), 4)
    assert points.shape == (2, 3, 4, 2) and np.isnan(points).all() and np.isnan(scores).all()
    assert decode_peaks(np.zeros((2, 0, *SIZE), np.float32), 4)[0].shape == (2, 0, 4, 2)
    points, scores = decode_peaks(np.ones((1, 1, 2), np.float32), 3)  # fewer pixels than peaks
    assert np.isfinite(scores).sum() == 2


def test_crop_and_heatmap_pixels_share_their_edges():
    np.testing.assert_allclose(crop_to_heatmap([-0.5, 191.5], 4), [-0.5, 47.5])
    np.testing.assert_allclose(crop_to_heatmap([1.5, 5.5], 4), [0, 1])
    points = np.random.default_rng(0).uniform(-5, 200, (7, 2))
    np.testing.assert_allclose(heatmap_to_crop(crop_to_heatmap(points, 3.5), 3.5), points)


def test_flip_exchanges_sides_and_mirrors_columns_alone():
    heatmaps = torch.arange(2 * 3 * 2 * 4.0).reshape(2, 3, 2, 4)
    flipped = flip_heatmaps(heatmaps, (0, 2, 1))
    assert flipped[1, 1, 0].tolist() == heatmaps[1, 2, 0].tolist()[::-1]
    assert flipped[0, 0, 1].tolist() == heatmaps[0, 0, 1].tolist()[::-1]
    assert torch.equal(flip_heatmaps(flipped, (0, 2, 1)), heatmaps)


def paper_target(x, y, visibility=1.0):
    target, weight = paper_encode([[x, y]], [visibility], (48, 32), (12, 8), 1)
    return target[0], float(weight[0, 0])


def test_paper_targets_round_half_up_and_stop_at_three_sigma():
    target, weight = paper_target(22.0, 9.9)  # 5.5 and 2.475 heatmap pixels
    assert weight == 1
    assert np.unravel_index(target.argmax(), target.shape) == (2, 6)
    assert target[2, 9] == pytest.approx(np.exp(-4.5)) and target[2, 10] == 0
    assert target[5, 9] == pytest.approx(np.exp(-9))


def test_paper_targets_truncate_slightly_negative_places_to_zero():
    assert paper_target(-5.9, 8.0)[0].argmax() == 2 * 12  # -1.475 + 0.5 truncates to 0
    assert paper_target(-6.0, 8.0)[0][2, 0] < 1  # -1.5 + 0.5 is -1


def test_a_paper_blob_that_just_misses_the_map_keeps_its_weight():
    target, weight = paper_target(-4 * 4 - 2.0, 8.0)  # centre -4: the window ends before column 0
    assert not target.any() and weight == 1
    assert paper_target(-5 * 4 - 2.0, 8.0)[1] == 0
    assert paper_target(14 * 4.0, 8.0)[1] == 1 and paper_target(15 * 4.0, 8.0)[1] == 0


@pytest.mark.parametrize(("x", "visibility"), [(20.0, 0.0), (np.nan, 1.0)])
def test_paper_targets_of_what_is_not_visible_are_zero(x, visibility):
    target, weight = paper_target(x, 8.0, visibility)
    assert not target.any() and weight == 0


def test_paper_weights_are_multiplied_by_the_keypoints_factors():
    _, weight = paper_encode([[4, 4], [4, 4]], [1, 0], (48, 32), (12, 8), 1, keypoint_weights=[1.5, 1.2])
    np.testing.assert_allclose(weight, [[1.5], [0]])


def test_paper_decode_moves_a_quarter_to_the_higher_neighbour():
    heatmap = np.zeros((1, 1, 8, 12), np.float32)
    heatmap[0, 0, 3, 5:7] = 1.0, 0.5
    heatmap[0, 0, 2, 5] = 0.1
    np.testing.assert_array_equal(paper_decode(heatmap)[0], [[[5.25, 2.75]]])
    np.testing.assert_array_equal(paper_argmax(heatmap)[0], [[[5, 3]]])


@pytest.mark.parametrize(
    ("x", "y", "moves"),
    [(1, 3, False), (2, 3, True), (10, 3, True), (11, 3, False), (5, 1, False), (5, 6, True)],
)
def test_paper_decode_moves_nothing_at_the_border(x, y, moves):
    heatmap = np.zeros((1, 1, 8, 12), np.float32)
    heatmap[0, 0, y, x] = 1.0
    heatmap[0, 0, y, x - 1] = 0.5
    np.testing.assert_array_equal(paper_decode(heatmap)[0], [[[x - 0.25 * moves, y]]])


def test_paper_decode_of_a_map_without_positive_values_is_the_corner():
    heatmap = np.full((1, 1, 8, 12), -3.0, np.float32)
    heatmap[0, 0, 3, 5] = -1.0
    points, scores = paper_decode(heatmap)
    np.testing.assert_array_equal(points, [[[0, 0]]])
    np.testing.assert_array_equal(scores, [[-1]])
