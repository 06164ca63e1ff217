"""Augmented crops: keypoints move with the picture, mirror images swap names, half bodies hold the half."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from dotted_regions import SKELETON, dotted_region, find_dot

from posewarper.crops import crop_image
from posewarper.geometry import crop_transform
from posewarper.options import FitConfig
from posewarper.skeletons import COCO
from posewarper.training.random_crops import Draw, cut_sample, draw, half_body_box, jitter

SIZE = (64, 80)
POINTS = [(50.3, 41.8), (82.6, 66.2), (97.1, 48.5)]
STILL = FitConfig(rotation=0, scale=0, shift=0, flip=0, half_body=0)
DRAWS = {
    "nothing": Draw(),
    "rotation": Draw(rotation=37.0),
    "rotation backwards": Draw(rotation=-21.0),
    "larger box": Draw(scale=1.3),
    "smaller box": Draw(scale=0.9),
    "shift": Draw(shift=(0.11, -0.07)),
    "mirror": Draw(flip=True),
    "all": Draw(rotation=-28.0, scale=1.2, shift=(-0.05, 0.09), flip=True),
}


@pytest.mark.parametrize("name", DRAWS)
def test_keypoints_move_with_the_picture(name):
    choice = DRAWS[name]
    sample = cut_sample(dotted_region(POINTS), choice, SKELETON, SIZE)
    assert sample.image.shape == (*SIZE, 3)
    assert sample.image.dtype == np.uint8
    # In a mirror image the left eye is where the dot of the right eye is.
    colours = (0, 2, 1) if choice.flip else (0, 1, 2)
    for k, colour in enumerate(colours):
        np.testing.assert_allclose(sample.keypoints[k], find_dot(sample.image, colour), atol=0.5)


def test_the_draws_do_what_they_are_called():
    region = dotted_region(POINTS)
    plain = cut_sample(region, Draw(), SKELETON, SIZE).keypoints
    centre = np.array([SIZE[1] - 1, SIZE[0] - 1]) / 2

    def cut(**choice):
        return cut_sample(region, Draw(**choice), SKELETON, SIZE).keypoints

    # Half as large a box shows everything twice as large.
    np.testing.assert_allclose(cut(scale=0.5) - centre, 2 * (plain - centre))
    # A box moved right by a tenth of its width moves its content left.
    np.testing.assert_allclose(cut(shift=(0.1, 0.0)), plain - (0.1 * SIZE[1], 0))
    # Counter-clockwise as seen: what lies right of the centre goes up.
    right = dotted_region([(94.5, 59.5)] * 3)
    turned = cut_sample(right, Draw(rotation=90), SKELETON, SIZE).keypoints[0]
    assert turned[0] == pytest.approx(centre[0])
    assert turned[1] < centre[1] - 5
    np.testing.assert_allclose(cut(flip=True)[[0, 2, 1]], plain * (-1, 1) + (SIZE[1] - 1, 0))


def test_names_swap_in_a_mirror_image_with_their_visibility():
    region = dotted_region(POINTS, visibility=(0, 1, 2))
    sample = cut_sample(region, Draw(flip=True), SKELETON, SIZE)
    assert sample.visibility.tolist() == [0, 2, 1]
    assert np.isnan(sample.keypoints[0]).all()
    assert region.visibility.tolist() == [0, 1, 2]


def test_without_a_draw_the_crop_is_the_box():
    region = dotted_region(POINTS)
    sample = cut_sample(region, Draw(), SKELETON, SIZE)
    transform = crop_transform(region.box, SIZE)
    np.testing.assert_array_equal(sample.image, crop_image(region.image, transform))
    np.testing.assert_allclose(sample.keypoints, transform.to_crop(POINTS))


def test_colours_change_by_channel_and_stay_in_range():
    region = dotted_region(POINTS)
    plain = cut_sample(region, Draw(), SKELETON, SIZE).image.astype(float)
    sample = cut_sample(region, Draw(gain=(2.0, 1.0, 0.5), lift=30.0), SKELETON, SIZE).image
    expected = np.clip(plain * (2.0, 1.0, 0.5) + 30, 0, 255)
    np.testing.assert_allclose(sample, expected, atol=1)
    assert expected.max() == 255
    dark = cut_sample(region, Draw(lift=-255.0), SKELETON, SIZE).image
    assert dark.max() == 0


def test_draws_stay_within_the_settings_and_use_their_range():
    config = FitConfig(rotation=40, scale=0.2, shift=0.1, flip=0.5)
    rng = np.random.default_rng(0)
    draws = [draw(config, rng) for _ in range(400)]
    rotations = np.array([d.rotation for d in draws])
    assert 30 < np.abs(rotations).max() <= 40
    assert 0 < (rotations == 0).mean() < 1
    scales = np.array([d.scale for d in draws])
    assert 0.8 <= scales.min() < 0.85
    assert 1.15 < scales.max() <= 1.2
    shifts = np.array([d.shift for d in draws])
    assert 0.08 < np.abs(shifts).max() <= 0.1
    assert 0.4 < np.mean([d.flip for d in draws]) < 0.6
    assert np.abs([draw(config, rng, 0.5).rotation for _ in range(200)]).max() <= 20


def test_draws_depend_on_the_seed_alone():
    config = FitConfig()
    first, again, other = (draw(config, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first == again
    assert first != other
    still = draw(STILL, np.random.default_rng(0))
    assert replace(still, gain=(1.0, 1.0, 1.0), lift=0.0) == Draw()


def test_jitter_keeps_the_mirror_and_adds_to_the_framing():
    base = Draw(rotation=10, scale=1.1, shift=(0.2, -0.1), flip=True, lift=7)
    config = FitConfig(rotation=40, scale=0.2, shift=0.1, flip=0.0)
    for seed in range(30):
        moved = jitter(base, config, np.random.default_rng(seed), 0.5)
        assert moved.flip
        assert abs(moved.rotation - 10) <= 20
        assert abs(moved.scale / 1.1 - 1) <= 0.1
        assert np.abs(np.subtract(moved.shift, base.shift)).max() <= 0.05
    still = jitter(base, config, np.random.default_rng(0), 0.0)
    assert (still.rotation, still.scale, still.shift) == (base.rotation, base.scale, base.shift)


def a_person(visible: list[str]):
    """A region with a whole person of 17 keypoints, of which some are labelled."""
    rng = np.random.default_rng(5)
    points = rng.uniform((40, 20), (110, 70), (17, 2))
    points[11:, 1] += 40
    shown = np.array([2 if any(v in name for v in visible) else 0 for name in COCO.names], np.uint8)
    region = dotted_region(POINTS, box=(14.5, 9.5, 120, 100))
    return replace(region, keypoints=np.where(shown[:, None] > 0, points, np.nan), visibility=shown)


def test_a_half_body_box_holds_one_half():
    region = a_person(["nose", "_"])
    seen = set()
    for seed in range(20):
        box = half_body_box(region, COCO, np.random.default_rng(seed))
        assert box is not None
        assert box[2] / box[3] == pytest.approx(region.box[2] / region.box[3])
        inside = ((region.keypoints >= box[:2]) & (region.keypoints <= box[:2] + box[2:])).all(1)
        halves = [h for h in (0, 1) if inside[list(COCO.halves[h])].all()]
        assert len(halves) == 1
        seen.add(halves[0])
    assert seen == {0, 1}


def test_a_half_with_few_labels_is_not_shown_alone():
    region = a_person(["shoulder", "elbow", "knee"])
    upper, lower = COCO.halves
    assert [(region.visibility[list(half)] > 0).sum() for half in (upper, lower)] == [4, 2]
    for seed in range(10):
        box = half_body_box(region, COCO, np.random.default_rng(seed))
        assert box is not None
        points = region.keypoints[[5, 6, 7, 8]]
        assert ((points >= box[:2]) & (points <= box[:2] + box[2:])).all()
        assert half_body_box(a_person(["hip", "nose"]), COCO, np.random.default_rng(seed)) is None


def test_a_half_on_one_spot_still_gets_a_box_with_an_area():
    region = a_person(["shoulder", "elbow"])
    spot = replace(region, keypoints=np.where(np.isfinite(region.keypoints), 50.0, np.nan))
    box = half_body_box(spot, COCO, np.random.default_rng(0))
    assert box is not None
    assert (box[2:] > 10).all()
    np.testing.assert_allclose(box[:2] + box[2:] / 2, 50)
    sample = cut_sample(region, Draw(), COCO, SIZE, box)
    assert sample.image.shape == (*SIZE, 3)
