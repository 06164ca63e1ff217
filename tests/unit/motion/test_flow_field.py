"""Flow in windows: where they lie, how they are kept, and motion read in them in pixels of the image."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from posewarper.motion import flow
from posewarper.motion.flow import (
    FlowStore,
    Window,
    carry_labels,
    read_chains,
    shrink,
    working_factor,
    write_chains,
)
from posewarper.structures import Track
from posewarper.video.source import open_video

POINTS = np.array([[50.0, 32.0], [61.5, 40.25], [np.nan, np.nan]])


def constant(window: Window, step) -> np.ndarray:
    return np.broadcast_to(np.array(step, np.float32), (window.height, window.width, 2)).copy()


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_steps_count_in_image_pixels(factor: float):
    store, window = FlowStore(factor), Window(0, 0, 256, 192)
    store.add([4], 7, window, constant(window, (3, -1)), constant(window, (-2, 2)))
    forward, backward = store.read(4, np.array([7])).steps(np.stack([POINTS, POINTS + 7]))
    assert forward.shape == backward.shape == (1, 3, 2)
    assert_allclose(forward[0, :2], [(3 * factor, -factor)] * 2)
    assert_allclose(backward[0, :2], [(2 * factor, -2 * factor)] * 2)
    assert np.isnan(forward[:, 2]).all() and np.isnan(backward[:, 2]).all()


def test_flow_is_read_where_a_point_is_in_its_window():
    store, window = FlowStore(2.0), Window(16, 8, 64, 48)
    y, x = np.mgrid[:48, :64].astype(np.float32)
    slope = np.stack([(x + 16) / 8, (y + 8) / 4], -1)
    store.add([0], 0, window, slope, -slope)
    points = np.array([[[60.5, 40.0], [100.0, 70.25]], [[60.5, 40.0], [100.0, 70.25]]])
    small = (points[:1] + 0.5) / 2 - 0.5
    forward, backward = store.read(0, np.array([0])).steps(points)
    assert_allclose(forward, small / (8, 4) * 2, atol=0.01)
    assert_allclose(backward, forward)


def test_a_point_outside_of_the_first_window_is_read_in_the_second():
    store, first, second = FlowStore(1.0), Window(0, 0, 32, 32), Window(64, 0, 32, 32)
    store.add([0], 1, first, constant(first, (1, 0)), constant(first, (-1, 0)))
    store.add([0], 1, second, constant(second, (2, 0)), constant(second, (-2, 0)))
    store.add([0], 2, first, constant(first, (5, 0)), constant(first, (-5, 0)))
    points = np.array([[[10.0, 10.0], [70.0, 10.0], [200.0, 10.0]]] * 3)
    read = store.read(0, np.array([1, 2])).read(points[:2], back=False)[..., 0]
    assert_array_equal(read, [[1, 2, 1], [5, 5, 5]])  # outside of all, the border of the first counts
    assert np.isnan(store.read(0, np.array([1, 3])).read(points[:2], back=False)[1]).all()
    assert np.isnan(store.read(1, np.array([1])).read(points[:1], back=False)).all()
    assert store.read(0, np.zeros(0, int)).steps(points[:1])[0].shape == (0, 3, 2)


def test_subjects_are_brought_to_one_size():
    assert [working_factor((1080, 1920), s) for s in (0.0, 64.0, 120.0, 256.0, 600.0)] == [
        0.25,
        0.25,
        0.5,
        1,
        2,
    ]
    assert working_factor((64, 64), 4000.0) == 4  # dense inverse search takes no less than 16 pixels
    blocks = np.repeat(np.repeat(np.arange(64, dtype=np.uint8).reshape(8, 8), 4, 0), 4, 1)
    small = shrink(blocks, 4.0)
    assert_array_equal(small[:8, :8], np.arange(64).reshape(8, 8))
    assert small.shape == (16, 16) and small[15, 15] == 63
    assert_array_equal(shrink(blocks, 0.5), blocks)
    assert_array_equal(Window(8, 16, 16, 8).cut(blocks, 2), np.repeat(blocks[8:12, 4:12], 2, 0).repeat(2, 1))


def test_windows_hold_the_points_and_stay_while_they_do():
    points, shape = np.array([[300.0, 200.0], [340.0, 290.0], [990.0, 10.0], [np.nan, np.nan]]), (500, 1000)
    window = flow._window_around(points, 150.0, shape, margin=48)
    assert window is not None
    low, high = np.array(window[:2]), np.array(window[:2]) + window[2:]
    assert (low <= points[0] - 48).all() and (high >= points[1] + 48).all()
    assert high[0] < 900  # the point that is lost does not count
    assert flow._window_around(points + 5, 150.0, shape, [window], margin=48) == window
    assert flow._window_around(points + 90, 150.0, shape, [window], margin=48) != window
    assert flow._window_around(points, 150.0, shape, [window], margin=90, room=30) == window
    assert flow._window_around(points + 30, 150.0, shape, [window], margin=90, room=30) != window
    corner = Window(0, 0, 96, 96)  # the picture ends there: nothing can be seen beyond
    assert flow._window_around(points[:1] * 0.0, 100.0, shape, [corner], margin=90, room=30) == corner
    assert flow._window_around(points * np.nan, 100.0, shape, margin=48) is None
    left = flow._window_around(points[:1] - 5000, 100.0, shape, margin=48)
    assert left is not None and left.left == left.top == 0 and min(left.width, left.height) > 16


def test_a_single_keypoint_that_moves_fast_stays_in_sight():
    # It tells no size, so that only its labels tell how large a window its motion needs.
    rng = np.random.default_rng(0)
    ground, subject = (rng.integers(0, 255, (*n, 1)).repeat(3, 2) for n in ((40, 100), (20, 20)))
    ground, subject = (np.kron(p, np.ones((4, 4, 1))).astype(np.uint8) for p in (ground, subject))
    inside = np.hypot(*(np.mgrid[:80, :80] - 39.5)) < 36
    frames, keypoints = [], []
    for n in range(13):
        frame, left = ground.copy(), 40 + 9 * n
        frame[40:120, left : left + 80][inside] = subject[inside]
        frames.append(frame)
        keypoints.append([[left + 39.5, 79.5]])
    truth = np.array(keypoints)
    with open_video(frames) as video:
        for there in ([0, 12], [0, 4, 12]):
            track = Track(there, truth[there])
            chain = carry_labels(video, {0: track}, {0: np.arange(13)}, subject=16.0)[0]
            for points, _ in chain.sides:
                assert np.linalg.norm(points - truth, axis=-1).max() < 1.0


def test_labels_that_jump_do_not_ask_for_the_whole_picture():
    track = Track([0, 1], np.array([[[10.0, 10.0]], [[900.0, 10.0]]]))
    carrier = flow._Carrier(0, track, np.arange(2), 16.0, (1080, 1920), FlowStore(0.25))
    assert carrier.margin.max() == 256


def test_flow_that_is_kept_is_read_again(picture, moving_video, tmp_path):
    keypoints = picture.keypoints(np.array([[40.0, 40.0], [62.5, 30.25]]), [2, 9])
    how = {"subject": 60.0, "kept": tmp_path / "flow.bin"}
    chains = carry_labels(moving_video, {3: Track([2, 9], keypoints)}, {3: np.arange(12)}, **how)
    write_chains(tmp_path / "flow.npz", chains)
    again = read_chains(tmp_path / "flow.npz", tmp_path / "flow.bin")
    assert_array_equal(again[3].forward, chains[3].forward)
    frames = np.arange(3, 9)
    guess = picture.keypoints(keypoints[0] - 2 * np.array(picture.velocity), frames)
    flows = [chain[3].flow.between(frames[:-1]).steps(guess) for chain in (chains, again)]
    assert_array_equal(flows[0], flows[1])
    assert_allclose(flows[0][0], np.broadcast_to(picture.velocity, flows[0][0].shape), atol=0.25)
    assert_allclose(flows[0][1], flows[0][0], atol=0.25)
