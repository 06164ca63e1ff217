"""The paper's inference on one video: which frames are cut, with which weights, and the way back."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from posewarper.crops import crop_image, normalise
from posewarper.errors import ConfigError, VideoError
from posewarper.geometry import paper_crop_transform, paper_points_to_image
from posewarper.heatmaps import paper_decode
from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.paper.prediction import predict_video
from posewarper.posetrack.samples import samples_from_boxes
from posewarper.prediction.windows import WINDOWS, frames_to_sum
from posewarper.skeletons import POSETRACK
from posewarper.structures import InstanceTable
from posewarper.video.source import FrameSource
from window_sum import predict_heatmaps

CROP = (64, 32)
N_FRAMES, FIRST = 6, 1


def image(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 255, (50, 70, 3)).astype(np.uint8)


def source(missing=()) -> FrameSource:
    return FrameSource(image, FIRST, N_FRAMES, frozenset(missing))


def table() -> InstanceTable:
    names = tuple(f"v/{n:08}.jpg" for n in range(FIRST, FIRST + N_FRAMES))
    return InstanceTable("v", names, range(FIRST, FIRST + N_FRAMES), rows=[], keypoints=np.zeros((0, 17, 2)))


@pytest.fixture(scope="module")
def model() -> PoseWarper:
    torch.manual_seed(0)
    spec = ModelSpec(
        "hrnet_w18_small", POSETRACK, CROP, 1.0, head_width=4, head_blocks=1, head_dilations=(1, 2)
    )
    made = PoseWarper(spec).eval().double()
    with torch.no_grad():
        made.final_layer.weight.normal_(std=0.1)
        for offsets in made.warp_head.offsets:
            offsets.weight.normal_(std=0.1)
        for parameter in made.warp_head.residual_stack.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return made


def some_samples():
    """Three boxes on two frames, not in order of time."""
    boxes = [(20, 5, 20, 40), (3, 2, 15, 30), (30, 10, 12, 30)]
    return samples_from_boxes(table(), boxes, [0.9, 0.8, 0.7], [3, 0, 3], CROP[1] / CROP[0], 0.2)


BOUNDS = (FIRST, FIRST + N_FRAMES - 1)


@pytest.mark.parametrize(
    ("number", "bounds", "missing", "shares"),
    [
        (3, BOUNDS, (), {3: 0.3, 2: 0.25, 1: 0.1, 4: 0.25, 5: 0.1}),
        (1, BOUNDS, (), {1: 0.65, 2: 0.25, 3: 0.1}),
        (2, BOUNDS, (), {2: 0.3, 1: 0.35, 3: 0.25, 4: 0.1}),
        (6, BOUNDS, (5,), {6: 0.9, 4: 0.1}),
        (1, None, (), {1: 0.3 / 0.65, 2: 0.25 / 0.65, 3: 0.1 / 0.65}),
        (6, None, (5,), {6: 0.75, 4: 0.25}),
    ],
)
def test_which_frames_are_summed(number, bounds, missing, shares) -> None:
    found, weights = frames_to_sum(number, WINDOWS["paper"], source(missing).has, bounds=bounds)
    assert found == list(shares)
    np.testing.assert_allclose(weights, list(shares.values()))


def test_an_unknown_rule_for_ends(model) -> None:
    with pytest.raises(ConfigError, match="clip, renormalise"):
        predict_video(model, table(), some_samples(), source(), ends="wrap")


@pytest.mark.parametrize("batch", [1, 2, 16])
@pytest.mark.parametrize("window", ["paper", "none"])
def test_each_sample_is_what_it_would_be_alone(model, batch, window) -> None:
    samples = some_samples()
    done = []
    result = predict_video(
        model, table(), samples, source(), window=WINDOWS[window], batch=batch, advance=done.append
    )
    assert sum(done) == 3 and result.n_instances == 3
    np.testing.assert_array_equal(result.rows, samples.rows)
    np.testing.assert_array_equal(result.scores, [0.9, 0.8, 0.7])
    for n, row in enumerate(samples.rows):
        numbers, weights = frames_to_sum(int(row) + FIRST, WINDOWS[window], source().has, bounds=BOUNDS)
        transform = paper_crop_transform(samples.centers[n], samples.scales[n], 0.0, CROP[::-1])
        crops = normalise(np.stack([crop_image(image(k), transform) for k in numbers]))
        tensor = torch.from_numpy(crops).double()[:, None]
        with torch.no_grad():
            heatmaps = predict_heatmaps(model, tensor, torch.from_numpy(weights)[:, None]).numpy()
        points, scores = paper_decode(heatmaps)
        wanted = paper_points_to_image(points[0], samples.centers[n], samples.scales[n], (8, 16))
        np.testing.assert_allclose(result.keypoints[n], wanted, atol=1e-6)
        np.testing.assert_allclose(result.keypoint_scores[n], scores[0], rtol=1e-6)


def test_neighbours_matter_and_ends_too(model) -> None:
    def scores(**options) -> np.ndarray:
        return predict_video(model, table(), some_samples(), source(), **options).keypoint_scores

    five, one, kept = scores(), scores(window=WINDOWS["none"]), scores(ends="renormalise")
    assert np.abs(five - one).max() > 1e-3
    np.testing.assert_allclose(five[[0, 2]], kept[[0, 2]])  # frame 4 of 6: all neighbours there
    assert np.abs(five[1] - kept[1]).max() > 1e-3  # frame 1


def test_no_samples_give_no_poses(model) -> None:
    nobody = samples_from_boxes(table(), np.zeros((0, 4)), [], [], 0.5, 0.2)
    assert predict_video(model, table(), nobody, source()).n_instances == 0


def test_only_what_is_needed_is_read_and_once(model) -> None:
    read: list[int] = []
    lock = threading.Lock()

    def counted(number: int) -> np.ndarray:
        with lock:
            read.append(number)
        return image(number)

    samples = some_samples()
    predict_video(model, table(), samples.take(samples.rows == 0), FrameSource(counted, FIRST, N_FRAMES))
    assert sorted(read) == [1, 2, 3]


def test_images_are_read_ahead_but_not_far() -> None:
    read: list[int] = []
    frames = FrameSource(lambda n: read.append(n) or image(n), 0, 60).frames(range(60))
    next(frames)
    assert len(read) < 20
    assert [number for number, _ in frames] == list(range(1, 60)) and sorted(read) == list(range(60))


def test_a_frame_that_cannot_be_read_is_an_error_and_no_thread_hangs(model) -> None:
    def broken(number: int) -> np.ndarray:
        raise VideoError("this image cannot be read", fix="replace it")

    with pytest.raises(VideoError, match="cannot be read"):
        predict_video(model, table(), some_samples(), FrameSource(broken, FIRST, N_FRAMES))
