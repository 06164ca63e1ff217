"""Whole samples: where a bright dot and its keypoint end up."""

from __future__ import annotations

import numpy as np
import pytest

from posewarper.crops import normalise
from posewarper.skeletons import POSETRACK
from posewarper.training.random_crops import Framing, TargetSpec, cut_paper_sample

SPEC = TargetSpec(crop_size=(128, 96), heatmap_size=(32, 24), sigma=2)
SHOULDER, OTHER, WRIST = (
    POSETRACK.names.index(name) for name in ("left_shoulder", "right_shoulder", "left_wrist")
)


def dotted(x: int, y: int) -> np.ndarray:
    image = np.zeros((90, 120, 3), np.uint8)
    image[y - 1 : y + 2, x - 1 : x + 2] = (200, 40, 0)
    return image


def brightest(inputs: np.ndarray) -> tuple[float, float]:
    red = inputs[0] - inputs[0].min()
    y, x = np.indices(red.shape)
    return float((x * red).sum() / red.sum()), float((y * red).sum() / red.sum())


@pytest.mark.parametrize("rotation", [0.0, 30.0])
@pytest.mark.parametrize("flip", [False, True])
def test_picture_keypoint_and_target_agree(flip, rotation):
    keypoints = np.full((17, 2), np.nan)
    keypoints[SHOULDER] = 61, 38
    x = 120 - 1 - 55 if flip else 55
    framing = Framing(np.array([x, 40], np.float32), np.array([0.24, 0.32], np.float32), rotation, flip)
    sample = cut_paper_sample([dotted(61, 38), dotted(50, 47)], keypoints, framing, SPEC)
    assert sample.inputs.shape == (2, 3, 128, 96) and sample.inputs.dtype == np.float32
    k = OTHER if flip else SHOULDER  # left and right change places
    assert np.flatnonzero(np.isfinite(sample.keypoints[:, 0])).tolist() == [k]
    np.testing.assert_allclose(brightest(sample.inputs[0]), sample.keypoints[k], atol=0.3)
    # 48 pixels across are 96 in the crop: six right and two up of the centre are twelve and four.
    if not rotation:
        np.testing.assert_allclose(sample.keypoints[k], [48 + (-12 if flip else 12), 64 - 4], atol=1e-4)
        np.testing.assert_allclose(brightest(sample.inputs[1]), [48 + (10 if flip else -10), 78], atol=0.3)
    assert np.flatnonzero(sample.weights).tolist() == [k] and sample.weights[k] == 1
    assert np.flatnonzero(sample.target.any((1, 2))).tolist() == [k]
    y, x = np.unravel_index(sample.target[k].argmax(), (32, 24))
    np.testing.assert_array_equal([x, y], np.floor(sample.keypoints[k] / 4 + 0.5))


def test_colours_are_normalised_in_their_order():
    image = np.empty((90, 120, 3), np.uint8)
    image[:] = 255, 128, 0
    framing = Framing(np.array([60, 45], np.float32), np.array([0.12, 0.16], np.float32))
    spec = TargetSpec((64, 48), (16, 12), 1, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.2))
    sample = cut_paper_sample([image], np.full((17, 2), np.nan), framing, spec)
    expected = [(1 - 0.1) / 0.5, (128 / 255 - 0.2) / 0.25, -0.3 / 0.2]
    np.testing.assert_allclose(sample.inputs[0, :, 32, 24], expected, rtol=1e-5)
    assert not sample.weights.any() and not sample.target.any()
    plain = normalise(image[None, :64, :48], spec.mean, spec.std)
    np.testing.assert_allclose(sample.inputs, plain, rtol=1e-5)


def test_weights_of_keypoints():
    keypoints = np.full((17, 2), np.nan)
    keypoints[[SHOULDER, WRIST]] = [(60, 40), (5000, 40)]
    framing = Framing(np.array([55, 40], np.float32), np.array([0.24, 0.32], np.float32))
    factors = tuple(1.5 if n.endswith("wrist") else 0.75 for n in POSETRACK.names)
    spec = TargetSpec((128, 96), (32, 24), 2, keypoint_weights=factors)
    sample = cut_paper_sample([dotted(60, 40)], keypoints, framing, spec)
    assert sample.weights[SHOULDER] == 0.75
    # Far outside: a keypoint, but no weight.
    assert np.isfinite(sample.keypoints[WRIST]).all() and sample.weights[WRIST] == 0
