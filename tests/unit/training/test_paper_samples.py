"""A drawn framing: where a bright dot and its keypoint end up, in the paper's crops and in our own."""

from __future__ import annotations

import numpy as np
import pytest

from posewarper.skeletons import POSETRACK
from posewarper.structures import is_there
from posewarper.training.random_crops import Framing, Sample

SHOULDER, OTHER = (POSETRACK.names.index(name) for name in ("left_shoulder", "right_shoulder"))


def dotted(x: int, y: int) -> Sample:
    image = np.zeros((90, 120, 3), np.uint8)
    image[y - 1 : y + 2, x - 1 : x + 2] = (200, 40, 0)
    keypoints = np.full((17, 2), np.nan)
    keypoints[SHOULDER] = x, y
    return Sample(image, keypoints, is_there(keypoints).astype(np.uint8))


def brightest(image: np.ndarray) -> tuple[float, float]:
    red = image[..., 0].astype(float)
    y, x = np.indices(red.shape)
    return float((x * red).sum() / red.sum()), float((y * red).sum() / red.sum())


@pytest.mark.parametrize("paper", [True, False])
@pytest.mark.parametrize("rotation", [0.0, 30.0])
@pytest.mark.parametrize("flip", [False, True])
def test_picture_and_keypoint_agree(flip, rotation, paper):
    x = 120 - 1 - 55 if flip else 55
    framing = Framing(np.array([x, 40], np.float32), np.array([0.24, 0.32], np.float32), rotation, flip)
    crop = framing.cut(dotted(61, 38), (128, 96), POSETRACK, paper=paper)
    assert crop.image.shape == (128, 96, 3) and crop.image.dtype == np.uint8
    k = OTHER if flip else SHOULDER  # left and right change places
    assert np.flatnonzero(crop.visibility).tolist() == [k]
    assert np.flatnonzero(np.isfinite(crop.keypoints[:, 0])).tolist() == [k]
    np.testing.assert_allclose(brightest(crop.image), crop.keypoints[k], atol=0.3)
    # 48 pixels across are 96 in the crop: six right and two up of the centre are twelve and four.
    if not rotation:
        centre = (48, 64) if paper else (47.5, 63.5)  # the paper puts corners on the centres of pixels
        expected = np.add(centre, (-12 if flip else 12, -4))
        np.testing.assert_allclose(crop.keypoints[k], expected, atol=1e-4)


def test_small_crops_of_own_clips_are_smooth_and_the_paper_s_are_not():
    image = np.zeros((96, 96, 3), np.uint8)
    image[np.arange(1, 97) % 4 < 2] = 255  # stripes half as wide as a pixel of the crop
    frame = Sample(image, np.full((17, 2), np.nan), np.zeros(17, np.uint8))
    framing = Framing(np.array([47.5, 47.5], np.float32), np.array([0.48, 0.48], np.float32))
    smooth, rough = (
        framing.cut(frame, (24, 24), POSETRACK, paper=paper).image[4:20, 4:20] for paper in (False, True)
    )
    assert np.abs(smooth.astype(int) - 127).max() <= 1
    assert np.abs(rough.astype(int) - 127).max() > 100


def test_half_of_a_body_on_one_spot_gets_a_crop():
    framing = Framing(np.array([61, 38], np.float32), np.zeros(2, np.float32))
    crop = framing.cut(dotted(61, 38), (128, 96), POSETRACK, paper=False)
    np.testing.assert_allclose(crop.keypoints[SHOULDER], (47.5, 63.5))
