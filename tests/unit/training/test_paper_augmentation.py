"""The distributions of the paper's random crops, and half bodies by hand."""

from __future__ import annotations

import numpy as np
import pytest

from posewarper.options import AugmentationSettings
from posewarper.skeletons import POSETRACK
from posewarper.training.random_crops import draw_framing, half_body, sample_generator

CENTER, SCALE, WIDTH = (40.0, 30.0), (0.3, 0.4), 100


def person(*names: str) -> np.ndarray:
    keypoints = np.full((17, 2), np.nan)
    for n, name in enumerate(names):
        keypoints[POSETRACK.names.index(name)] = 10 + 10 * n, 20 + 5 * n
    return keypoints


UPPER = ("nose", "left_shoulder", "right_elbow")
LOWER = ("left_hip", "right_knee", "left_ankle")


def test_the_upper_body_needs_a_low_draw_and_three_keypoints():
    both = person(*UPPER, *LOWER)
    center, scale = half_body(both, 0.49, aspect_ratio=0.75)
    assert center.tolist() == [20, 25]
    # 20 wide and 10 high: the height grows to 20 / 0.75; padded by 1.5.
    np.testing.assert_allclose(scale * 200, [30, 40], rtol=1e-6)
    center, _ = half_body(both, 0.5, aspect_ratio=0.75)
    assert center.tolist() == [50, 40]
    center, scale = half_body(person(*UPPER[:2], *LOWER), -3.0, aspect_ratio=4.0)
    assert center.tolist() == [40, 35]
    np.testing.assert_allclose(scale * 200, [60, 15], rtol=1e-6)


def test_without_enough_of_the_lower_body_the_upper_one_is_taken():
    center, _ = half_body(person(*UPPER[:2], *LOWER[:2]), 2.0, aspect_ratio=1.0)
    assert center.tolist() == [15, 22.5]
    assert half_body(person("nose", *LOWER[:2]), 0.0, aspect_ratio=1.0) is None
    assert half_body(person(), 0.0, aspect_ratio=1.0) is None


def draws(keypoints, settings, n=4000):
    return [
        draw_framing(keypoints, CENTER, SCALE, 0.75, WIDTH, settings, sample_generator(3, 0, i))
        for i in range(n)
    ]


def test_the_distributions():
    framings = draws(
        person(*UPPER), AugmentationSettings(half_body=1.0)
    )  # three keypoints: never half of them
    angles = np.array([f.rotation for f in framings])
    assert (angles != 0).mean() == pytest.approx(0.6, abs=0.03)
    turned = angles[angles != 0]
    assert np.abs(turned).max() == 90 and (np.abs(turned) == 90).mean() == pytest.approx(0.0455, abs=0.015)
    assert turned.mean() == pytest.approx(0, abs=3)
    factors = np.array([f.scale[0] / SCALE[0] for f in framings])
    assert factors.min() == pytest.approx(0.65) and factors.max() == pytest.approx(1.35)
    # A third lies beyond one standard deviation, where it is held.
    assert (np.abs(factors - 1) > 0.3499).mean() == pytest.approx(0.317, abs=0.03)
    np.testing.assert_allclose([f.scale[1] / f.scale[0] for f in framings], 4 / 3, rtol=1e-6)
    flips = np.array([f.flip for f in framings])
    assert flips.mean() == pytest.approx(0.5, abs=0.03)
    assert {tuple(f.center) for f in framings if f.flip} == {(59.0, 30.0)}
    assert {tuple(f.center) for f in framings if not f.flip} == {CENTER}
    offsets, counts = np.unique([f.offset for f in framings], return_counts=True)
    assert offsets.tolist() == [-2, -1, 0, 1, 2]
    assert (np.abs(counts / len(framings) - 0.2) < 0.03).all()
    # One choice tells nothing of another.
    assert (
        np.abs(np.corrcoef([angles != 0, factors, flips, [f.offset for f in framings]]) - np.eye(4)).max()
        < 0.06
    )


def test_half_bodies_come_before_scale_and_mirror():
    names = [name for name in POSETRACK.names if not name.endswith("_ear")]
    steady = AugmentationSettings(scale=0.0, rotated=0.0, flipped=0.0)
    framings = draws(person(*names), steady, n=2000)
    plain = np.array([tuple(f.center) == CENTER for f in framings])
    assert (~plain).mean() == pytest.approx(0.3, abs=0.03)
    upper, _ = half_body(person(*names), 0.0, 0.75)
    lower, _ = half_body(person(*names), 1.0, 0.75)
    centers = [tuple(f.center) for f in framings if tuple(f.center) != CENTER]
    assert set(centers) == {tuple(upper), tuple(lower)}
    assert centers.count(tuple(upper)) / len(centers) == pytest.approx(0.69, abs=0.05)
    mirrored = draws(person(*names), steady.model_copy(update={"flipped": 1.0, "half_body": 1.0}), n=50)
    xs = sorted({float(f.center[0]) for f in mirrored})
    assert xs == pytest.approx(sorted([WIDTH - 1 - upper[0], WIDTH - 1 - lower[0]]))
    # Eight visible keypoints are not enough.
    few = draws(person(*names[:8]), steady.model_copy(update={"half_body": 1.0}), n=20)
    assert {tuple(f.center) for f in few} == {CENTER}


def test_samples_of_an_epoch_do_not_depend_on_each_other():
    one = sample_generator(1, 2, 3).random(4)
    assert (sample_generator(1, 2, 3).random(4) == one).all()
    for other in ((1, 3, 2), (2, 2, 3), (1, 2, 4), (1, 3, 3)):
        assert (sample_generator(*other).random(4) != one).all()
