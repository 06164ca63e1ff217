"""What networks say of a track: mirror images, peaks in image pixels, and what is warped where."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from posewarper.crops import normalise
from posewarper.geometry import crop_transform
from posewarper.heatmaps import encode
from posewarper.model.heatmap_runner import HeatmapEngine
from posewarper.propagation.evidence import (
    LabelledCrop,
    Seen,
    find_peaks,
    labelled_crop,
    to_image,
    warp_from_both,
    warp_label,
)
from posewarper.video.track_crops import TrackCrops

NAN = np.nan
# A crop of 64 by 96 pixels, and heatmaps of 16 by 24, of boxes in several sizes.
CROP_SIZE, MAP_SIZE = (64, 96), (16, 24)
BOXES = np.array([[10, 20, 96, 64], [-7.5, 3.25, 48, 32], [100, 40, 288, 192]])
TRANSFORMS = tuple(crop_transform(box, CROP_SIZE) for box in BOXES)


def place(box, x, y) -> np.ndarray:
    """Where heatmap pixels (x, y) lie in the image: a heatmap pixel is 1/24 by 1/16 of the box."""
    return box[:2] + (np.array([x, y]) + 0.5) / (24, 16) * box[2:]


# What the network sees


def channel_means(crops: torch.Tensor) -> torch.Tensor:
    """Heatmaps that follow the colours: red, green and blue averaged over 4 by 4 pixels."""
    return torch.nn.functional.avg_pool2d(crops, 4)


def random_crops(n) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, *CROP_SIZE, 3), dtype=np.uint8)


def pooled(images) -> np.ndarray:
    return normalise(images).reshape(len(images), 3, 16, 4, 24, 4).mean((3, 5))


def test_heatmaps_are_averaged_with_those_of_the_mirror_image(make_model, monkeypatch):
    model = make_model(crop_size=CROP_SIZE)
    monkeypatch.setattr(model, "heatmaps", channel_means)
    images = random_crops(3)
    expected = pooled(images)
    # In the mirror image the left paw is called the right one.
    expected[:, :2] = (expected[:, :2] + expected[:, 1::-1]) / 2
    seen = HeatmapEngine(model, flip=True).heatmaps(images).numpy()
    assert seen.shape == (3, 3, *MAP_SIZE)
    assert_allclose(seen, expected, atol=1e-5)


@pytest.mark.parametrize("n", [1, 16, 37])
def test_many_crops_come_back_in_order(make_model, monkeypatch, n):
    model, batches = make_model(names=("a", "b", "c"), crop_size=CROP_SIZE), []

    def heatmaps(crops):
        batches.append(len(crops))
        return channel_means(crops)

    monkeypatch.setattr(model, "heatmaps", heatmaps)
    images = random_crops(n)
    engine = HeatmapEngine(model, flip=True, batch=16, eager=True)
    assert_allclose(engine.heatmaps(images).numpy(), pooled(images), atol=1e-5)
    assert max(batches) <= 2 * 16 and sum(batches) == 2 * n


def test_a_real_network_sees_the_mirror_image_mirrored(make_model):
    model = make_model()
    image = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    plain = HeatmapEngine(model, flip=True).heatmaps(image)
    mirrored = HeatmapEngine(model, flip=True).heatmaps(image[:, :, ::-1])
    assert plain.shape == (2, 3, 16, 16) and plain.dtype == torch.float32 and not plain.requires_grad
    assert plain.std() > 0
    spread = float(plain.std())
    assert_allclose(mirrored, plain[:, [1, 0, 2]].flip(-1), atol=0.05 * spread)


# Peaks


def test_peaks_lie_at_the_right_place_of_the_image():
    # One row a crop, one column a keypoint; x and y never take each other's place.
    spots = np.array([[[5.0, 9.0], [17.3, 3.6]], [[12.5, 7.5], [20.0, 2.0]], [[3.25, 12.0], [8.0, 8.0]]])
    heatmaps = encode(spots, MAP_SIZE, 2.0)
    heatmaps[1, 1] *= 0.25
    seen = find_peaks(torch.from_numpy(heatmaps), TRANSFORMS)
    for points, crop, box in zip(seen.points, spots, BOXES, strict=True):
        assert_allclose(points, [place(box, *spot) for spot in crop], atol=0.05 * box[2] / 24)
    assert_allclose(seen.scores, [[1, 1], [1, 0.25], [1, 1]], atol=0.1)
    assert_allclose(to_image(spots, TRANSFORMS)[2, 1], place(BOXES[2], 8, 8))
    # Corners of the heatmaps are corners of the boxes.
    edge = to_image(np.array([[[-0.5, -0.5], [23.5, 15.5]]] * 3), TRANSFORMS)
    assert_allclose(edge[:, 0], BOXES[:, :2])
    assert_allclose(edge[:, 1], BOXES[:, :2] + BOXES[:, 2:])


def test_labelled_crops(make_model):
    model = make_model(crop_size=CROP_SIZE)
    keypoints = np.stack([place(BOXES[2], 6.25, 11.5), [NAN, NAN], place(BOXES[2], 15, 4)])
    label = labelled_crop(4, keypoints, np.array([2, 0, 1], np.uint8), TRANSFORMS[2], model)
    assert label.row == 4 and label.values.shape == (3, *MAP_SIZE) and label.values.dtype == torch.float32
    assert_array_equal(label.has, [True, False, True])  # a hidden label is a label
    assert (label.values[1] == 0).all()
    expected = encode(np.array([[6.25, 11.5], [15.0, 4.0]]), MAP_SIZE, model.spec.sigma)
    assert_allclose(label.values[[0, 2]], expected, atol=1e-6)
    none = labelled_crop(0, keypoints, np.zeros(3, np.uint8), TRANSFORMS[2], model)
    assert not none.has.any() and (none.values == 0).all()


# Warping


class Head:
    """Stands for the warp head: notes what it is given, and returns the values as they are."""

    def __init__(self) -> None:
        self.calls: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def warp(self, values, *, source, target):
        self.calls.append((values, source, target))
        return values


def test_the_label_is_the_source_and_the_other_frames_are_targets():
    head = Head()
    heatmaps = torch.randn(40, 3, *MAP_SIZE)
    label = LabelledCrop(7, torch.randn(3, *MAP_SIZE), np.ones(3, bool))
    rows = np.array([*range(5, 39), 2])
    warped = warp_label(head, label, heatmaps, rows)
    assert warped.shape == (35, 3, *MAP_SIZE)
    values, source, target = (torch.cat([call[n] for call in head.calls]) for n in range(3))
    assert torch.equal(target, heatmaps[rows])
    assert torch.equal(source, heatmaps[7].expand(35, -1, -1, -1))
    assert torch.equal(values, label.values.expand(35, -1, -1, -1))
    assert torch.equal(warped, values)
    assert warp_label(head, label, heatmaps, np.zeros(0, np.int64)).shape == (0, 3, *MAP_SIZE)


def stretch(frames) -> TrackCrops:
    """Crops whose boxes move to the right by 3 pixels a frame."""
    transforms = tuple(crop_transform((3.0 * f, 20, 96, 64), CROP_SIZE) for f in frames)
    return TrackCrops(np.array(frames), np.zeros((len(frames), *CROP_SIZE, 3), np.uint8), transforms)


def label_at(row, *spots) -> LabelledCrop:
    points = np.array(spots, float)
    return LabelledCrop(row, torch.from_numpy(encode(points, MAP_SIZE, 2.0)), np.isfinite(points).all(-1))


def test_labels_from_both_sides_weigh_more_the_nearer_they_are():
    head = Head()
    crops = stretch(range(10, 17))
    heatmaps = torch.zeros(7, 1, *MAP_SIZE)
    first, last = (10.0, 6.0), (12.0, 6.0)  # a standard deviation apart: together they make one peak
    warped = warp_from_both(head, [label_at(0, first), label_at(6, last)], heatmaps, crops)
    seen = warped.blended
    inside = (seen.points[:, 0, 0] - 3.0 * crops.frames) / 4 - 0.5  # x in heatmap pixels
    assert (np.diff(inside) > 0).all()
    assert_allclose(inside[3], 11, atol=0.02)
    assert_allclose(inside[0] - 10, 12 - inside[-1], atol=0.02)
    assert inside[0] < 10.3
    assert_allclose(seen.points[:, 0, 1], 20 + 4 * 6.5, atol=0.1)
    assert seen.scores.shape == (7, 1) and (seen.scores > 0.8).all() and (seen.scores <= 1).all()
    # Distance is in frames, not in rows.
    uneven = warp_from_both(
        head, [label_at(0, first), label_at(2, last)], torch.zeros(3, 1, *MAP_SIZE), stretch([10, 14, 16])
    )
    assert_allclose(uneven.blended.points[1], seen.points[4], atol=0.02)
    # Each label is also there alone.
    for alone, x in zip(warped.single, (10, 12), strict=True):
        assert_allclose(
            (alone.points[:, 0, 0, 0] - 3.0 * crops.frames) / 4 - 0.5, x + 0 * crops.frames, atol=0.02
        )
        assert_allclose(alone.heights[:, 0, 0], 1, atol=0.02)
        assert np.isnan(alone.points[:, 0, 1]).all()


def test_a_keypoint_comes_from_the_side_that_has_it():
    head = Head()
    crops = stretch(range(4))
    gone = (NAN, NAN)
    labels = [label_at(0, (5, 5), gone, gone), label_at(3, (5, 5), (9, 7), gone)]
    warped = warp_from_both(head, labels, torch.zeros(4, 3, *MAP_SIZE), crops)
    seen = warped.blended
    assert [np.isfinite(one.heights[0, :, 0]).tolist() for one in warped.single] == [
        [True, False, False],
        [True, True, False],
    ]
    assert_allclose(seen.scores, [[1, 1, 0]] * 4, atol=0.05)  # not halved by the side that lacks it
    assert np.isnan(seen.points[:, 2]).all()
    expected = [place(np.array([3.0 * f, 20, 96, 64]), 9, 7) for f in range(4)]
    assert_allclose(seen.points[:, 1], expected, atol=0.1)
    alone = warp_from_both(head, labels[1:], torch.zeros(4, 3, *MAP_SIZE), crops)
    assert_allclose(alone.blended.points[:, 1], seen.points[:, 1])


def test_of_several_labels_the_nearest_on_each_side_that_has_the_keypoint_counts():
    gone = (NAN, NAN)
    labels = [
        label_at(0, (5, 5), (5, 5)),
        label_at(2, (12, 5), gone),
        label_at(5, gone, (12, 5)),
        label_at(6, (20, 5), gone),
    ]
    head = Head()
    warped = warp_from_both(head, labels, torch.zeros(7, 2, *MAP_SIZE), stretch([0] * 7))
    x = [[(one.points[:, k, 0, 0]) / 4 - 0.5 for k in range(2)] for one in warped.single]
    assert_allclose(x[0][0], [5, 5, 12, 12, 12, 12, 12], atol=0.05)  # the row of a label is before
    assert_allclose(x[1][0], [12, 12, 20, 20, 20, 20, 20], atol=0.05)
    assert_allclose(x[0][1], [5, 5, 5, 5, 5, 12, 12], atol=0.05)
    assert_allclose(x[1][1], [12, 12, 12, 12, 12, NAN, NAN], atol=0.05)
    # Each is warped only to the rows where it counts.
    assert sum(len(call[0]) for call in head.calls) == 5 + 7 + 7 + 5


def test_what_peaks_are_off_at_labels_is_taken_away_from_those_between_them():
    labels = np.full((5, 3, 2), np.nan)
    labels[[0, 4]] = [[[10, 10], [10, 10], [10, 10]], [[50, 10], [50, 10], [50, 10]]]
    x = np.array([10.0, 20.0, 30.0, 40.0, 50.0])
    points = np.stack([x, np.full(5, 10.0)], -1)[:, None] + np.zeros((1, 3, 1))
    points[:, 0] += [2.0, 0.0]  # off by the same everywhere
    points[0, 1] += [2.0, 0.0]  # off at one of the labels
    points[:, 2] += [20.0, 0.0]  # another limb's peak
    size = np.full(5, 100.0)
    found = Seen(points, np.ones((5, 3))).without_bias(labels, size)
    assert_allclose(found.points[:, 0, 0] - x, 2.0 * 0.3)
    assert_allclose(found.points[1:, 1, 0] - x[1:], -2.0 * 0.7 * np.array([0.75, 0.5, 0.25, 0.0]))
    assert_array_equal(found.points[:, 2], points[:, 2])
    assert_array_equal(found.points[..., 1], points[..., 1])
    # Without a label nothing is known of it.
    unlabelled = Seen(points, np.ones((5, 3))).without_bias(np.full_like(labels, np.nan), size)
    assert_array_equal(unlabelled.points, points)
