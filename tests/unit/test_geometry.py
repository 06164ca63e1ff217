from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posewarper.errors import LabelsError
from posewarper.geometry import (
    BOX_PADDING,
    CropTransform,
    crop_transform,
    keypoint_boxes,
    pad_box,
    paper_center_scale,
    paper_crop_transform,
    paper_matrix,
    paper_points_to_image,
)

POINTS = np.array([[0.0, 0.0], [3.0, 11.0], [17.25, 5.5]])


def test_the_box_of_the_whole_image_gives_the_identity():
    transform = crop_transform((-0.5, -0.5, 30, 20), (20, 30))
    np.testing.assert_allclose(transform.matrix, [[1, 0, 0], [0, 1, 0]], atol=1e-12)
    assert transform.size == (20, 30)


def test_a_box_on_pixel_edges_shifts_by_whole_pixels():
    transform = crop_transform((6.5, 1.5, 8, 16), (16, 8))
    np.testing.assert_allclose(transform.to_crop([7.0, 2.0]), [0, 0], atol=1e-12)
    np.testing.assert_allclose(transform.to_crop([14.0, 17.0]), [7, 15], atol=1e-12)


def test_the_box_fills_the_crop_from_edge_to_edge():
    transform = crop_transform((10, 20, 40, 30), (60, 120))
    edges = transform.to_crop([[10, 20], [50, 50]])
    np.testing.assert_allclose(edges, [[-0.5, -0.5], [119.5, 59.5]], atol=1e-12)


def test_rotation_turns_the_picture_counter_clockwise():
    # Right of the centre goes above it. Image and crop have other widths than heights on purpose.
    transform = crop_transform((-0.5, -0.5, 21, 21), (21, 21), rotation=90)
    np.testing.assert_allclose(transform.to_crop([[10, 10], [15, 10], [10, 3]]), [[10, 10], [10, 5], [3, 10]])


def test_our_rotation_goes_the_way_of_the_papers():
    ours = crop_transform((10, 30, 40, 40), (80, 80), rotation=25)
    papers = paper_matrix((30, 50), (40 / 200, 40 / 200), 25, (80, 80))
    np.testing.assert_allclose(ours.matrix[:, :2], papers[:, :2], atol=1e-5)


def test_flip_mirrors_x_alone():
    box, size = (4.5, 1.5, 12, 10), (20, 24)
    plain, flipped = crop_transform(box, size), crop_transform(box, size, flip=True)
    expected = plain.to_crop(POINTS)
    expected[:, 0] = size[1] - 1 - expected[:, 0]
    np.testing.assert_allclose(flipped.to_crop(POINTS), expected, atol=1e-12)


def test_flip_comes_after_rotation():
    box, size = (4.5, 1.5, 12, 10), (20, 24)
    expected = crop_transform(box, size, rotation=30).to_crop(POINTS)
    expected[:, 0] = size[1] - 1 - expected[:, 0]
    both = crop_transform(box, size, rotation=30, flip=True)
    np.testing.assert_allclose(both.to_crop(POINTS), expected, atol=1e-12)


boxes = st.tuples(st.floats(-500, 2000), st.floats(-500, 2000), st.floats(4, 1000), st.floats(4, 1000))


@given(boxes, st.tuples(st.integers(8, 400), st.integers(8, 400)), st.floats(-180, 180), st.booleans())
def test_the_way_back_undoes_the_way_there(box, size, rotation, flip):
    transform = crop_transform(box, size, rotation=rotation, flip=flip)
    points = np.array([[-30.0, 7.5], [640.0, 480.0], [box[0], box[1]]])
    np.testing.assert_allclose(transform.to_image(transform.to_crop(points)), points, rtol=0, atol=1e-9)


def test_nan_passes_through_alone():
    crop = crop_transform((0, 0, 5, 5), (10, 10), rotation=10).to_crop([[[np.nan, np.nan]], [[1.0, 2.0]]])
    assert crop.shape == (2, 1, 2)
    assert np.isnan(crop[0]).all() and np.isfinite(crop[1]).all()


def test_a_transform_does_not_change_behind_its_owners_back():
    matrix = np.eye(3)[:2]
    transform = CropTransform(matrix, (4, 4))
    matrix[0, 2] = 9
    assert transform.matrix[0, 2] == 0
    with pytest.raises(ValueError, match="read-only"):
        transform.matrix[0, 0] = 2


@pytest.mark.parametrize("box", [(0, 0, 0, 5), (0, 0, 5, -1), (0, np.nan, 5, 5)])
def test_a_box_without_area_is_refused(box):
    with pytest.raises(LabelsError, match="without area"):
        crop_transform(box, (10, 10))


def test_padding_is_exactly_a_quarter_more():
    assert BOX_PADDING == 1.25
    np.testing.assert_array_equal(pad_box((10, 20, 40, 80), aspect_ratio=0.5), [5, 10, 50, 100])


@pytest.mark.parametrize(
    ("box", "ratio", "expected"),
    [
        ((0, 0, 30, 10), 0.75, (0, -15, 30, 40)),  # wide: grows in height
        ((0, 0, 10, 40), 0.75, (-10, 0, 30, 40)),  # tall: grows in width
    ],
)
def test_boxes_grow_to_the_aspect_ratio_about_their_centre(box, ratio, expected):
    np.testing.assert_allclose(pad_box(box, aspect_ratio=ratio, padding=1.0), expected)


def test_pad_box_takes_many_boxes_and_nan():
    padded = pad_box([[[0, 0, 4, 2], [np.nan] * 4]], aspect_ratio=1.0)
    np.testing.assert_allclose(padded, [[[-0.5, -1.5, 5, 5], [np.nan] * 4]])


def test_keypoint_boxes_leave_out_what_is_not_there():
    nan = [np.nan, np.nan]
    keypoints = [[[3, 9], nan, [1, 4], [2, 20]], [nan, nan, nan, nan], [nan, [5, 6], nan, nan]]
    np.testing.assert_array_equal(keypoint_boxes(keypoints), [[1, 4, 2, 16], [np.nan] * 4, [5, 6, 0, 0]])


def test_paper_scale_counts_200_pixels_and_the_padding():
    center, scale = paper_center_scale([10, 20, 100, 200], 0.75)
    np.testing.assert_array_equal(center, [60, 120])
    np.testing.assert_allclose(scale, [150 / 200 * 1.25, 200 / 200 * 1.25])


def test_the_papers_center_at_minus_one_goes_unpadded():
    _, scale = paper_center_scale([[-11, 20, 20, 20], [-10, 20, 20, 20]], 1.0)
    np.testing.assert_allclose(scale[:, 0], [0.1, 0.125])


def test_paper_matrix_maps_the_boxs_corner_to_zero():
    # A box of 100 x 200 around (70, 130), and only the first entry of scale counts.
    matrix = paper_matrix((70, 130), (0.5, 9.9), 0.0, (50, 100))
    np.testing.assert_allclose(matrix, [[0.5, 0, -10], [0, 0.5, -15]], atol=1e-6)


def test_paper_shift_moves_by_parts_of_the_box():
    plain = paper_matrix((70, 130), (0.5, 1.0), 0.0, (50, 100))
    shifted = paper_matrix((70, 130), (0.5, 1.0), 0.0, (50, 100), shift=(0.1, 0.2))
    np.testing.assert_allclose(shifted - plain, [[0, 0, -0.1 * 50], [0, 0, -0.2 * 100]], atol=1e-5)


def test_paper_crop_transform_and_points_to_image_undo_each_other():
    transform = paper_crop_transform((70, 130), (0.5, 1.0), 0.0, (48, 64))
    assert transform.size == (64, 48)
    points = np.array([[60.0, 90.0], [100.0, 141.0]])
    back = paper_points_to_image(transform.to_crop(points), (70, 130), (0.5, 1.0), (48, 64))
    np.testing.assert_allclose(back, points, atol=1e-4)


def test_an_empty_box_has_only_a_way_back_in_the_papers_code():
    np.testing.assert_array_equal(paper_matrix((70, 130), (0, 0), 0.0, (48, 64)), np.zeros((2, 3)))
    points = paper_points_to_image([[3, 4], [40, 50]], (70, 130), (0, 0), (48, 64))
    np.testing.assert_allclose(points, [[70, 130], [70, 130]])
    with pytest.raises(LabelsError, match="without area"):
        paper_crop_transform((70, 130), (0, 0), 0.0, (48, 64)).to_image([1, 1])
