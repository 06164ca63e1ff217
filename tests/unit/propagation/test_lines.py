"""What lines between labels are worth, and that the estimate weighs them so."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from posewarper.evaluation.clips import keep_every
from posewarper.motion.interpolation import interpolate
from posewarper.propagation.clip import prepare_clip
from posewarper.propagation.methods import propagate_clip
from posewarper.propagation.trust import measure_lines, reach_of_lines
from posewarper.skeletons import Skeleton
from posewarper.structures import ABSENT, Labels, Track
from posewarper.video.source import open_video

SIZE = 20.0  # the two keypoints lie that far apart


def labelled(points: np.ndarray, frames: np.ndarray) -> Track:
    return Track(frames, points, boxes=np.tile([0.0, 0, SIZE, SIZE], (len(frames), 1)))


def moving(x, every: int = 10, n: int = 9) -> Track:
    """Two keypoints whose x is a function of time, labelled on every tenth frame."""
    frames = np.arange(n) * every
    points = np.stack([np.stack([x(frames) + 20 * k, np.full(n, 30.0)], 1) for k in (0, 1)], 1)
    return labelled(points, frames)


def test_the_room_beside_a_line_is_none_on_labels_and_the_gap_in_the_middle() -> None:
    before = np.array([0.0, 5.0, 1.0, 10.0, 3.0])
    after = np.array([10.0, 5.0, 9.0, 0.0, np.inf])
    assert_allclose(reach_of_lines(before, after), [0, 10, 3.6, 0, 12])


def test_steady_motion_makes_lines_exact_and_a_swing_does_not() -> None:
    steady, swing = (measure_lines(moving(x)) for x in (lambda t: 2.0 * t, lambda t: 30 * np.sin(t / 7)))
    assert (steady.rate * 10 * SIZE < 0.2).all()
    assert (swing.rate * 10 * SIZE > 5).all()
    # Whoever stays where the label was is off by all of the way, in either case.
    assert_allclose(steady.held * 4, 2.0 / SIZE, rtol=1e-6)


def test_the_rate_is_that_of_labels_that_are_left_out() -> None:
    """A zigzag of 8 pixels: each label lies 16 pixels beside the line through its neighbours."""
    track = moving(lambda t: 8.0 * (-1.0) ** (t // 10), n=33)
    lines = measure_lines(track)
    assert_allclose(lines.rate * 20 * SIZE, 16, rtol=0.1)


def test_curves_are_taken_where_labels_lie_on_them() -> None:
    bend = measure_lines(moving(lambda t: 0.02 * t.astype(float) ** 2))
    assert bend.method == "pchip"
    assert measure_lines(moving(lambda t: 8.0 * (-1.0) ** (t // 10))).method == "linear"


@pytest.mark.parametrize("n", [1, 2])
def test_with_too_few_labels_to_leave_one_out_a_share_of_the_way_is_expected(n: int) -> None:
    lines = measure_lines(moving(lambda t: 2.0 * t, n=n))
    assert lines.method == "linear"
    assert_allclose(lines.rate, 0.25 * 2.0 / SIZE if n > 1 else 1e-4, rtol=1e-6)


def test_keypoints_without_labels_do_not_spoil_the_others() -> None:
    track = moving(lambda t: 2.0 * t)
    visibility = track.visibility.copy()
    visibility[:, 1] = ABSENT
    points = np.where((visibility > 0)[..., None], track.keypoints, np.nan)
    lines = measure_lines(Track(track.frames, points, visibility=visibility, boxes=track.boxes))
    assert np.isfinite(lines.rate).all() and np.isfinite(lines.held).all()
    assert_allclose(lines.rate[0], measure_lines(track).rate[0], rtol=0.5)


def test_thousands_of_labels_cost_no_more_than_dozens(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = []

    def counted(frames, *more):
        lengths.append(len(frames))
        return interpolate(frames, *more)

    monkeypatch.setattr("posewarper.propagation.trust.interpolate", counted)
    measure_lines(moving(lambda t: 2.0 * t, n=3000))
    assert len(lengths) <= 64 and max(lengths) <= 6


def small_steady_subject() -> tuple[list[np.ndarray], Labels]:
    """A plain disc of eleven pixels, on which flow sees little, that goes over texture."""
    rng, n = np.random.default_rng(0), 33
    coarse = rng.integers(60, 200, (30, 40, 3)).astype(np.uint8)
    ground = np.kron(coarse, np.ones((4, 4, 1), np.uint8))
    y, x = np.mgrid[:120, :160]
    points = np.stack([16.0 + 4 * np.arange(n), np.full(n, 60.0)], 1)
    points = np.stack([points, points + np.array([0.0, 6.0])], 1)
    frames = []
    for (cx, cy), _ in points:
        frame = ground.copy()
        frame[(x - cx) ** 2 + (y - cy - 3) ** 2 < 5.5**2] = (220, 40, 40)
        frames.append(frame)
    track = Track(np.arange(n), points)
    return frames, Labels(Skeleton(("top", "bottom")), {0: track}, image_size=(120, 160), n_frames=n)


def test_a_small_subject_that_goes_straight_on_is_followed_as_well_as_by_lines() -> None:
    frames, truth = small_steady_subject()
    with open_video(frames) as video:
        kept = keep_every(truth, 8)
        found = propagate_clip(prepare_clip(video, kept), "default").tracks[0]
    between = (found.frames >= 4) & (found.frames <= 28)
    off = np.linalg.norm(found.keypoints - truth.tracks[0].keypoints[found.frames], axis=-1)[between]
    assert off.mean() < 0.3 and off.max() < 1


def test_a_plain_disc_on_which_flow_is_drawn_to_the_ground_is_followed_as_by_lines() -> None:
    rng, n, gap = np.random.default_rng(0), 49, 12
    coarse = rng.integers(60, 200, (36, 40, 3)).astype(np.uint8)
    ground = np.kron(coarse, np.ones((4, 4, 1), np.uint8))
    y, x = np.mgrid[:144, :160]
    points = np.stack([50.0 + np.arange(n), np.full(n, 72.0)], 1)
    frames = []
    for cx, cy in points:
        frames.append(ground.copy())
        frames[-1][(x - cx) ** 2 + (y - cy) ** 2 < 20**2] = (220, 40, 40)
    track = Track(np.arange(n), points[:, None])
    truth = Labels(Skeleton(("centre",)), {0: track}, image_size=(144, 160), n_frames=n)
    with open_video(frames) as video:
        kept = keep_every(truth, gap)
        clip = prepare_clip(video, kept)
        by_flow, found = (propagate_clip(clip, method).tracks[0] for method in ("flow", "default"))
    first, last = kept.labelled_frames[[0, -1]]
    between = (found.frames >= first) & (found.frames <= last)
    off, off_by_flow = (
        np.linalg.norm(poses.keypoints - points[poses.frames, None], axis=-1)[between]
        for poses in (found, by_flow)
    )
    assert off_by_flow.max() > 2 and off.max() < 0.1
