"""Boxes of labels, and crops and regions that show the right place."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from posewarper.geometry import CropTransform
from posewarper.video.source import open_video
from posewarper.video.track_crops import (
    RegionRequest,
    cut_track,
    instance_boxes,
    read_regions,
)

NAN = np.nan
CORNERS = np.array([[10.0, 20.0], [50.0, 40.0], [30.0, 30.0]])  # a box of 40 by 20 around (30, 30)


# Boxes


def test_instance_boxes():
    keypoints = np.array([CORNERS, [[5.0, 7.0], [NAN, NAN], [NAN, NAN]], np.full((3, 2), NAN)])
    boxes = instance_boxes(keypoints)
    assert_allclose(boxes[0], [10, 20, 40, 20])
    assert_allclose(boxes[1], [5 - 8, 7 - 8, 16, 16])  # a lone keypoint has room around it
    assert np.isnan(boxes[2]).all()
    given = np.array([[0, 0, 100, 90], [1, 2, 30, 40], [3, 4, 50, 60]], float)
    assert_allclose(instance_boxes(keypoints, given)[1:], given[1:])
    given[1:, 2] = 0, NAN  # no area, no box
    assert_allclose(instance_boxes(keypoints, given), boxes)
    flat = instance_boxes(np.array([[[0.0, 5.0], [100.0, 5.0]]]))
    assert_allclose(flat, [[0, 5 - 8, 100, 16]])


# Pixels


@pytest.fixture(scope="module")
def slope_folder(write_frames):
    """Frames in which red is twice the column, green twice the row and blue ten times the frame's index."""
    y, x = np.mgrid[:60, :100]
    return write_frames(np.stack([2 * x, 2 * y, 0 * x + 10 * n], -1).astype(np.uint8) for n in range(5))


@pytest.fixture
def slope(slope_folder):
    with open_video(slope_folder) as video:
        yield video


def assert_shows(image, transform: CropTransform, frame: int) -> None:
    """Every pixel of a crop has the colour of the place in the frame that it stands for; black is outside."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    place = transform.to_image(np.stack([x, y], -1))
    inside = ((place >= 3) & (place <= (96, 56))).all(-1)
    assert inside.any()
    assert (
        np.abs(image[inside].astype(float) - np.dstack([2 * place, 0 * x + 10 * frame])[inside]).max() < 1.6
    )
    assert (image[((place < -4) | (place > (103, 63))).any(-1)] == 0).all()


def test_cut_track_shows_the_boxes(slope):
    frames = np.array([1, 2, 4])
    boxes = np.array([[39.5, 9.5, 20, 30], [-20, 20, 30, 45], [20, -10, 80, 120]], float)
    crops = cut_track(slope, frames, boxes, (30, 20))
    assert crops.images.shape == (3, 30, 20, 3) and crops.images.dtype == np.uint8
    assert_array_equal(crops.frames, frames)
    assert_array_equal(crops.images[0], slope[1][10:40, 40:60])  # pixel by pixel
    for image, transform, frame, box in zip(crops.images, crops.transforms, frames, boxes, strict=True):
        assert_shows(image, transform, frame)
        assert_allclose(transform.to_crop(box[:2]), [-0.5, -0.5], atol=1e-9)
        assert_allclose(transform.to_crop(box[:2] + box[2:]), [19.5, 29.5])


def test_cut_track_without_frames(slope):
    crops = cut_track(slope, np.zeros(0, int), np.zeros((0, 4)), (30, 20))
    assert crops.images.shape == (0, 30, 20, 3) and crops.transforms == ()


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_regions_are_larger_than_their_boxes_and_keep_the_keypoints_in_place(slope, scale):
    crop_size, margin = (30, 20), 1.5
    box = np.array([45 - 10 * scale, 28 - 15 * scale, 20 * scale, 30 * scale])
    keypoints = np.array([[45.0, 28.0], [50.25, 20.5], [NAN, NAN]])
    request = RegionRequest(2, 7, box, keypoints, np.array([2, 1, 0], np.uint8))
    (region,) = read_regions(slope, [request], crop_size, margin)
    assert region.image.shape == (45, 30, 3) and (region.frame, region.track) == (2, 7)
    assert_array_equal(region.visibility, [2, 1, 0])
    assert_allclose(region.box, [4.5, 7, 20, 30])  # a quarter of the crop on each side, less half a pixel
    # The region's box lies where the request's box lies, and so do keypoints and pixels.
    to_region = CropTransform(
        np.column_stack([np.eye(2) / scale, region.box[:2] - box[:2] / scale]), region.image.shape[:2]
    )
    assert_allclose(region.keypoints, to_region.to_crop(keypoints))
    assert_shows(region.image, to_region, 2)


def test_regions_come_in_the_order_of_their_requests(slope):
    requests = [
        RegionRequest(frame, track, np.array([40.0 + track, 20, 10, 10]), np.full((1, 2), 45.0), np.ones(1))
        for frame, track in [(0, 5), (0, 2), (0, 9), (3, 2), (4, 9), (4, 5)]
    ]
    regions = list(read_regions(slope, requests, (16, 16), 1.5))
    assert [(r.frame, r.track) for r in regions] == [(r.frame, r.track) for r in requests]
    for region, request in zip(regions, requests, strict=True):
        middle = region.image[11:13, 11:13].mean((0, 1))
        assert_allclose(middle, [2 * (45 + request.track), 50, 10 * request.frame], atol=1.5)
    assert list(read_regions(slope, [], (16, 16), 1.5)) == []
