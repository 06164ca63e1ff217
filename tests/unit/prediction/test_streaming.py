"""Poses as frames come: the same as frame by frame, each frame seen by the network as seldom as can be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from posewarper.errors import ConfigError
from posewarper.model.heatmap_runner import HeatmapEngine
from posewarper.model.network import ModelSpec
from posewarper.model.warping import WarpHead
from posewarper.paper.prediction import predict_video
from posewarper.posetrack.samples import samples_from_boxes
from posewarper.prediction.stream import CropKeeper, PoseStream
from posewarper.prediction.windows import PAPER_OFFSETS, PAPER_WEIGHTS, WINDOWS, make_window
from posewarper.skeletons import POSETRACK
from posewarper.structures import InstanceTable
from posewarper.video.source import FrameSource

CROP = (64, 32)
ASPECT = CROP[1] / CROP[0]
N_FRAMES, HOLD = 7, 0.08


def image(number: int) -> np.ndarray:
    coarse = np.random.default_rng(number).integers(60, 180, (10, 14, 3))
    return np.kron(coarse, np.ones((5, 5, 1))).astype(np.uint8)


def frames(first: int = 0, n: int = N_FRAMES):
    return ((number, image(number)) for number in range(first, n))


class Quick(torch.nn.Module):
    """Stands in for a PoseWarper whose backbone is one convolution."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.spec = ModelSpec("none", POSETRACK, CROP, 1.0)
        self.final_layer = torch.nn.Conv2d(3, 17, 7, stride=4, padding=2)
        self.warp_head = WarpHead(17, width=4, blocks=1, dilations=(1, 2))
        for parameter in self.warp_head.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 0.1)

    @property
    def device(self) -> torch.device:
        return self.final_layer.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.final_layer.weight.dtype

    def heatmaps(self, crops: torch.Tensor) -> torch.Tensor:
        return self.final_layer(crops)

    def warp(self, values, *, source, target):
        return self.warp_head(values, source=source, target=target)


@pytest.fixture(scope="module")
def model() -> Quick:
    return Quick().eval().double()


def moving(frame: int) -> np.ndarray:
    return np.array([[10.0 + 3 * frame, 5, 20, 40], [30, 2.0 + frame, 15, 30]])


def still(frame: int) -> np.ndarray:
    return np.array([[12.0, 5, 20, 40]])


def stream(model, boxes=moving, *, crops="exact", window=WINDOWS["paper"], chunk=1, audit=0, **options):
    engine = HeatmapEngine(model, precision="float32", **options)
    keeper = CropKeeper(ASPECT, HOLD if crops == "held" else None)
    return PoseStream(engine, window, keeper, lambda frame, image, cut: boxes(frame), chunk, audit)


def keypoints_of(made: PoseStream, start: int = 0) -> np.ndarray:
    found = list(made.run(frames(max(start - made.looks_back, 0)), start))
    assert [poses.frame for poses in found] == list(range(start, N_FRAMES))
    return np.stack([poses.keypoints for poses in found])


def frame_by_frame(model, window) -> np.ndarray:
    """Return what the paper's inference finds, sample by sample."""
    names = tuple(f"v/{n:06}.jpg" for n in range(N_FRAMES))
    table = InstanceTable("v", names, range(N_FRAMES), rows=[], keypoints=np.zeros((0, 17, 2)))
    boxes = np.concatenate([moving(n) for n in range(N_FRAMES)])
    rows = np.repeat(np.arange(N_FRAMES), 2)
    samples = samples_from_boxes(table, boxes, np.ones(len(boxes)), rows, ASPECT, 0.2)
    source = FrameSource(image, 0, N_FRAMES)
    found = predict_video(model, table, samples, source, window=window, ends="renormalise")
    return found.keypoints.reshape(N_FRAMES, 2, 17, 2)


@pytest.mark.parametrize("chunk", [1, 3, 10])
@pytest.mark.parametrize("window", [WINDOWS["paper"], WINDOWS["none"]])
def test_exact_boxes_give_what_the_paper_s_inference_gives(model, window, chunk) -> None:
    found = keypoints_of(stream(model, window=window, chunk=chunk))
    np.testing.assert_allclose(found, frame_by_frame(model, window), atol=1e-6)


def test_a_still_box_is_seen_once_a_frame(model) -> None:
    exact, held = stream(model, still), stream(model, still, crops="held")
    np.testing.assert_allclose(keypoints_of(held), keypoints_of(exact), atol=1e-9)
    assert held.computed == N_FRAMES
    assert exact.computed == exact.asked == held.asked == 5 * N_FRAMES - 6


def test_a_held_crop_is_given_up_when_its_box_has_moved_too_far() -> None:
    keeper = CropKeeper(ASPECT, HOLD)
    box = np.array([[0.0, 0, 20, 40]])  # padded 25 by 50
    first = keeper.place(box)[0]
    assert keeper.place(box + np.array([1.9, 0, 0, 0]))[0] == first  # 0.076 of the width
    assert keeper.place(box + np.array([0, 3.9, 0, 0]))[0] == first  # 0.078 of the height
    keeper.place(box + np.array([1.9, 0, 0, 0]))
    second = keeper.place(box + np.array([2.1, 0, 0, 0]))[0]
    # It has moved by 0.2 since the frame before: four times that, it is ahead.
    assert second.number != first.number and second.box == pytest.approx((2.9, 0, 20, 40))
    assert keeper.place(box + np.array([2.1, 0, 0, 2]))[0] == second
    assert keeper.place(box + np.array([2.1, 0, 0, 8]))[0] != second  # a fifth larger
    keeper.forget()
    last = keeper.place(box + np.array([2.1, 0, 0, 8]))[0]
    assert last.number == 4 and last.box == (2.1, 0, 20, 48)


@pytest.mark.parametrize("speed", [0.5, 1.5, -3.0])
def test_a_box_that_goes_on_keeps_its_crop_for_longer(speed) -> None:
    keeper = CropKeeper(ASPECT, HOLD)
    boxes = [np.array([[speed * n, 0.0, 20, 40]]) for n in range(60)]  # padded 25 wide
    placed = [keeper.place(box)[0] for box in boxes]
    off = np.array([(crop.box[0] - box[0, 0]) / 25 for crop, box in zip(placed, boxes, strict=True)])
    assert np.abs(off).max() <= HOLD
    assert off.min() < 0 < off.max()  # ahead at first, then behind
    without = 60 / (1 + np.floor(HOLD * 25 / abs(speed)))
    assert len({crop.number for crop in placed}) < 0.8 * without


def test_held_crops_stay_with_their_boxes_in_any_order() -> None:
    keeper = CropKeeper(ASPECT, HOLD)
    boxes = np.array([[0.0, 0, 20, 40], [30, 0, 20, 40]])
    one, two = keeper.place(boxes)
    assert keeper.place(boxes[::-1] + np.array([0.5, 0, 0, 0])) == [two, one]


def test_the_keeper_goes_on_from_its_state() -> None:
    boxes = [np.array([[0.9 * n, 0.3 * n * n, 20, 40]]) for n in range(12)]
    whole = CropKeeper(ASPECT, HOLD)
    expected = [whole.place(box) for box in boxes]
    first, second = CropKeeper(ASPECT, HOLD), CropKeeper(ASPECT, HOLD)
    found = [first.place(box) for box in boxes[:5]]
    second.load_state_dict(first.state_dict())
    assert found + [second.place(box) for box in boxes[5:]] == expected
    assert len({crops[0].number for crops in expected}) > 2


@pytest.mark.parametrize(("window", "ahead"), [(make_window(2), 2), (make_window(2, causal=True), 0)])
def test_poses_come_as_soon_as_the_window_is_there(model, window, ahead) -> None:
    taken = []

    def coming():
        for number, picture in frames():
            taken.append(number)
            yield number, picture

    for poses in stream(model, window=window).run(coming()):
        assert taken[-1] == min(poses.frame + ahead, N_FRAMES - 1)


def test_a_stream_can_begin_in_the_middle(model) -> None:
    whole = keypoints_of(stream(model))
    np.testing.assert_allclose(keypoints_of(stream(model), start=4), whole[4:], atol=1e-9)


def test_frames_are_let_go_of(model) -> None:
    made = stream(model, still, crops="held")
    sizes = [(len(made._images), len(made._heatmaps)) for _ in made.run(frames(n=30))]
    assert max(images for images, _ in sizes) <= 5 and max(maps for _, maps in sizes) <= 5


def test_nothing_is_summed_across_a_cut(model) -> None:
    dark, light = (
        np.full((50, 70, 3), (20, 40, 20), np.uint8),
        np.full((50, 70, 3), (240, 200, 230), np.uint8),
    )
    pictures = [dark, dark, dark, light, light, light]
    made = stream(model)
    found = list(made.run(enumerate(pictures)))
    assert [poses.new_scene for poses in found] == [False, False, False, True, False, False]
    apart = [
        *stream(model).run(enumerate(pictures[:3])),
        *stream(model, lambda n: moving(n + 3)).run(enumerate(pictures[3:])),
    ]
    for whole, alone in zip(found, apart, strict=True):
        np.testing.assert_allclose(whole.keypoints, alone.keypoints, atol=1e-9)


def test_held_crops_are_checked_against_exact_ones(model) -> None:
    found = list(stream(model, crops="held", audit=3).run(frames()))
    assert [poses.held_error is not None for poses in found] == [n % 3 == 0 for n in range(N_FRAMES)]
    exact = list(stream(model).run(frames()))
    for held, true in zip(found, exact, strict=True):
        if held.held_error is not None:
            apart = np.linalg.norm(held.keypoints - true.keypoints, axis=-1)
            np.testing.assert_allclose(held.held_error, apart, atol=1e-6)
    assert sum(poses.held_error.max() for poses in found if poses.held_error is not None) > 0


def test_the_mirror_image_counts_as_much(model) -> None:
    crops = np.random.default_rng(0).integers(0, 255, (2, *CROP, 3)).astype(np.uint8)
    both = HeatmapEngine(model, precision="float32", flip=True).heatmaps(crops)
    mirrored = HeatmapEngine(model, precision="float32", flip=True).heatmaps(crops[:, :, ::-1].copy())
    order = list(POSETRACK.flip_order)
    torch.testing.assert_close(mirrored[:, order].flip(-1), both)


def test_windows() -> None:
    assert make_window(2).offsets == PAPER_OFFSETS
    np.testing.assert_allclose(make_window(2).weights, PAPER_WEIGHTS)
    long = make_window(4)
    assert len(long.offsets) == 9 and sum(long.weights) == pytest.approx(1)
    ratio = np.array(long.weights)[[1, 2, 3]] / np.array(long.weights)[[2, 3, 4]]
    np.testing.assert_allclose(ratio, 2.5)
    with pytest.raises(ConfigError, match="0 or more"):
        make_window(-1)


def test_unknown_names(model) -> None:
    with pytest.raises(ConfigError, match="auto, float32, bfloat16"):
        HeatmapEngine(model, precision="half")
