"""Where a track's crops lie, and that they show the right place."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from posewarper.geometry import CropTransform
from posewarper.structures import Track
from posewarper.video.source import open_video
from posewarper.video.track_crops import (
    RegionRequest,
    cut_track,
    instance_boxes,
    read_regions,
    track_boxes,
    without_strays,
)

NAN = np.nan
CORNERS = np.array([[10.0, 20.0], [50.0, 40.0], [30.0, 30.0]])  # a box of 40 by 20 around (30, 30)


def track_of(frames, keypoints, boxes=None) -> Track:
    keypoints = np.array(keypoints, float)
    return Track(np.array(frames), keypoints, visibility=np.isfinite(keypoints).all(-1) * 2, boxes=boxes)


def centre_and_size(boxes) -> tuple[np.ndarray, np.ndarray]:
    return boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]


def unknown(n, k=3) -> np.ndarray:
    return np.full((n, k, 2), NAN)


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
    track = Track(np.array([0, 4, 8]), keypoints, visibility=np.array([[2, 2], [2, 0], [2, 2]]))
    boxes = track_boxes(track, np.arange(9), np.full((9, 2, 2), np.nan), 1.0)
    np.testing.assert_allclose(boxes, np.repeat(boxes[:1], 9, axis=0))


def test_the_crop_follows_a_subject_that_moves_far_beyond_its_last_label() -> None:
    keypoints = np.array([[[10.0, 20.0], [30.0, 60.0]]])
    track = Track(np.array([0]), keypoints)
    rough = keypoints + np.arange(21)[:, None, None] * np.array([15.0, 0.0])
    boxes = track_boxes(track, np.arange(21), rough, 1.0)
    np.testing.assert_allclose(np.diff(boxes[:, 0]), 15.0)
