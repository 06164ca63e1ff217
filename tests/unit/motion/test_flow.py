"""Optical flow: reading it between pixels, and carrying labels along a clip whose motion is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from posewarper.motion import flow
from posewarper.motion.flow import (
    FlowChain,
    blend_both,
    blend_nearest,
    carry_again,
    carry_labels,
    dense_flow,
    read_chains,
    sample_flow,
    to_grey,
    working_scale,
    write_chains,
)
from posewarper.structures import Track

NAN = np.nan
START = np.array([[40.0, 40.0], [62.5, 30.25]])  # stays 15 pixels away from the border for 16 frames


def track_on(picture, frames, missing=()) -> Track:
    """Exact labels of two keypoints; ``missing`` are (frame, keypoint)."""
    keypoints, visibility = picture.keypoints(START, frames), np.full((len(frames), 2), 2)
    for frame, k in missing:
        visibility[list(frames).index(frame), k] = 0
    return Track(np.array(frames), keypoints, visibility=visibility)


def off(picture, points, frames, k=slice(None)) -> np.ndarray:
    return np.linalg.norm(points - picture.keypoints(START, frames), axis=-1)[:, k]


# sample_flow


def test_sampling_is_bilinear():
    values = np.zeros((3, 4, 2))
    values[1, 2] = 8.0, -4.0  # row 1, column 2
    assert_allclose(sample_flow(values, np.array([2.0, 1.0])), [8, -4])
    assert_allclose(sample_flow(values, np.array([2.25, 0.5])), np.array([8, -4]) * 0.75 * 0.5)
    assert_allclose(sample_flow(values, np.array([1.5, 1.75])), np.array([8, -4]) * 0.5 * 0.25)
    assert_allclose(sample_flow(values, np.array([1.0, 2.0])), 0)  # x and y are not swapped
    y, x = np.mgrid[:5, :7].astype(float)
    slope = np.stack([2 * x + 3 * y, x - y], -1).astype(np.float16)
    points = np.random.default_rng(0).uniform(0, 4, (3, 2, 2))
    px, py = np.moveaxis(points, -1, 0)
    assert_allclose(sample_flow(slope, points), np.stack([2 * px + 3 * py, px - py], -1))


def test_sampling_outside_holds_the_border_and_nan_stays_nan():
    values = np.random.default_rng(0).normal(size=(4, 6, 2))
    outside = np.array([[-3.0, 1.5], [9.0, 1.5], [2.5, -1.0], [2.5, 3.2], [100, 100]])
    border = np.array([[0.0, 1.5], [5.0, 1.5], [2.5, 0.0], [2.5, 3.0], [5, 3]])
    assert_allclose(sample_flow(values, outside), sample_flow(values, border))
    assert_allclose(sample_flow(values, outside)[-1], values[3, 5])
    assert np.isnan(sample_flow(values, np.array([[NAN, NAN], [1.0, NAN], [NAN, 1.0], [np.inf, 1.0]]))).all()
    assert sample_flow(values, np.zeros((0, 2))).shape == (0, 2)
    single = np.ones((1, 1, 2))
    assert_allclose(sample_flow(single, np.array([[0.0, 0.0], [3.0, 2.0]])), 1)


# Pictures


def test_dense_flow_points_from_the_source_to_the_target(picture):
    moved = dense_flow(picture.image(2)[..., 0], picture.image(3)[..., 0])
    inner = moved[12:-12, 12:-12]
    assert moved.shape == (*picture.size, 2) and np.abs(inner - picture.velocity).max() < 0.25


def test_grey():
    red = np.zeros((40, 60, 3), np.uint8)
    red[..., 0] = 255
    grey = to_grey(red, 1.0)
    assert grey.shape == (40, 60) and grey.dtype == np.uint8 and (grey == 76).all()  # RGB, not BGR
    assert to_grey(red, 0.5).shape == (20, 30)
    assert to_grey(red, 0.1).shape == (16, 16)  # dense inverse search takes no less


def test_working_scale_never_enlarges_and_shrinks_large_subjects():
    assert working_scale((480, 640), 10.0) == 1 and working_scale((480, 640), 0.0) == 1
    sizes = [working_scale((2160, 3840), subject) for subject in (10.0, 500.0, 1000.0, 1500.0, 4000.0)]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > sizes[-1]
    assert 3840 * sizes[0] == pytest.approx(flow._LONGEST_SIDE)
    assert 3840 * sizes[-1] == pytest.approx(flow._SHORTEST_LONG_SIDE)


# carry_labels


def test_labels_are_carried_both_ways(picture, moving_video):
    frames = np.arange(2, 15)
    track = track_on(picture, [4, 11])
    told = []
    chain = carry_labels(
        moving_video, {3: track}, {3: frames}, subject=60.0, progress=lambda *what: told.append(what)
    )[3]
    assert_array_equal(chain.frames, frames)
    labelled = np.isin(frames, track.frames)
    for points, errors in ((chain.forward, chain.forward_error), (chain.backward, chain.backward_error)):
        assert_array_equal(points[labelled], track.keypoints)  # to the bit
        assert_array_equal(errors[labelled], 0)
        assert_array_equal(np.isnan(points[..., 0]), np.isnan(errors))
    assert np.isnan(chain.forward[:2]).all() and np.isnan(chain.backward[-3:]).all()
    assert off(picture, chain.forward[2:], frames[2:]).max() < 0.5
    assert off(picture, chain.backward[:-3], frames[:-3]).max() < 0.5
    # Doubt adds up along the way, and is small in an easy picture.
    assert (np.diff(chain.forward_error[2:9], axis=0) > 0).all()
    assert (np.diff(chain.backward_error[3:10], axis=0) < 0).all()
    assert chain.forward_error[2:].max() < 1
    assert told[-1] == ("optical flow", len(frames), len(frames)) and len(told) == len(frames)


def test_two_tracks_labelled_on_different_frames(picture, moving_video):
    tracks = {0: track_on(picture, [1, 9]), 7: track_on(picture, [4, 12])}
    frames = {0: np.arange(0, 11), 7: np.arange(3, 15)}
    chains = carry_labels(moving_video, tracks, frames, subject=60.0)
    for i, track in tracks.items():
        chain, first, last = chains[i], track.frames[0], track.frames[-1]
        assert_array_equal(np.isfinite(chain.forward).all((1, 2)), frames[i] >= first)
        assert_array_equal(np.isfinite(chain.backward).all((1, 2)), frames[i] <= last)
        assert np.nanmax(off(picture, chain.forward, frames[i])) < 0.5
        assert np.nanmax(off(picture, chain.backward, frames[i])) < 0.5
        # Each is the same as if it were alone.
        alone = carry_labels(moving_video, {i: track}, {i: frames[i]}, subject=60.0)[i]
        assert_allclose(alone.backward, chain.backward, atol=0.02)
        assert_array_equal(alone.forward, chain.forward)


def test_a_keypoint_missing_in_one_label_is_carried_past_it(picture, moving_video):
    frames = np.arange(0, 14)
    track = track_on(picture, [2, 6, 10], missing=[(6, 1)])
    chain = carry_labels(moving_video, {0: track}, {0: frames}, subject=60.0)[0]
    assert_array_equal(chain.forward[6, 0], track.keypoints[1, 0])
    assert chain.forward_error[6, 0] == 0 < chain.forward_error[6, 1]
    assert off(picture, chain.forward[2:], frames[2:]).max() < 0.5
    first = track_on(picture, [2, 6, 10], missing=[(2, 1), (6, 1)])
    chain = carry_labels(moving_video, {0: first}, {0: frames}, subject=60.0)[0]
    assert np.isnan(chain.forward[:10, 1]).all() and off(picture, chain.forward[10:], frames[10:]).max() < 0.5
    assert off(picture, chain.backward[:11], frames[:11]).max() < 0.5  # from frame 10, through both labels
    assert (np.diff(chain.backward_error[:11, 1]) < 0).all()


def test_a_keypoint_never_labelled_stays_nan(picture, moving_video):
    track = track_on(picture, [2, 6], missing=[(2, 1), (6, 1)])
    chain = carry_labels(moving_video, {0: track}, {0: np.arange(9)}, subject=60.0)[0]
    for array in (chain.forward, chain.backward, chain.forward_error, chain.backward_error):
        assert np.isnan(array[:, 1]).all() and np.isfinite(array[2:7, 0]).all()


def test_nothing_is_carried_across_frames_without_the_track(picture, moving_video):
    frames = np.array([0, 1, 2, 3, 8, 9, 10, 11, 12])
    tracks = {0: track_on(picture, [2, 10]), 1: track_on(picture, [5])}
    chains = carry_labels(moving_video, tracks, {0: frames, 1: np.arange(13)}, subject=60.0)
    chain = chains[0]
    assert_array_equal(np.isfinite(chain.forward).all((1, 2)), [0, 0, 1, 1, 0, 0, 1, 1, 1])
    assert_array_equal(np.isfinite(chain.backward).all((1, 2)), [1, 1, 1, 0, 1, 1, 1, 0, 0])
    assert np.nanmax(off(picture, chain.backward, frames)) < 0.5
    assert np.nanmax(off(picture, chains[1].forward, np.arange(13))) < 0.5
    alone = carry_labels(moving_video, {0: tracks[0]}, {0: frames}, subject=60.0)[0]
    assert_array_equal(alone.forward, chain.forward)


def test_pictures_that_wait_for_a_label_are_bounded(picture, moving_video, monkeypatch):
    monkeypatch.setattr(flow, "_WAITING_BYTES", 4 * np.prod(picture.size) + 10)
    tracks = {0: track_on(picture, [12]), 1: track_on(picture, [5, 8])}
    chains = carry_labels(moving_video, tracks, {0: np.arange(14), 1: np.arange(14)}, subject=60.0)
    assert_array_equal(np.isfinite(chains[0].backward).all((1, 2)), np.isin(np.arange(14), [9, 10, 11, 12]))
    reached = [2, 3, 4, 5, 6, 7, 8]
    assert_array_equal(np.isfinite(chains[1].backward).all((1, 2)), np.isin(np.arange(14), reached))
    assert np.isfinite(chains[0].forward[12:]).all() and np.isfinite(chains[1].forward[5:]).all()


def test_no_track_and_a_single_frame(picture, moving_video):
    assert carry_labels(moving_video, {}, {}, subject=60.0) == {}
    track = track_on(picture, [3])
    chain = carry_labels(moving_video, {0: track}, {0: np.array([3])}, subject=60.0)[0]
    assert_array_equal(chain.forward, track.keypoints)
    assert_array_equal(chain.backward, track.keypoints)


def test_labels_are_left_out_in_turn_where_their_neighbours_arrive(moving_video, picture):
    labelled, frames = [0, 4, 8], np.arange(9)
    wrong = track_on(picture, labelled)
    # The middle label is 5 pixels off: its neighbours tell, and where it arrives at them tells too.
    points = wrong.keypoints.copy()
    points[1, :, 0] += 5
    track = Track(wrong.frames, points, visibility=wrong.visibility)
    chain = carry_labels(moving_video, {0: track}, {0: frames}, subject=60.0)[0]
    left_out = chain.left_out
    assert left_out is not None
    assert_array_equal(left_out.frames, labelled)
    exact = picture.keypoints(START, labelled)
    assert np.isnan(left_out.forward[0]).all() and np.isnan(left_out.backward[-1]).all()
    assert_allclose(left_out.forward[1], exact[1], atol=0.5)
    assert_allclose(left_out.backward[1], exact[1], atol=0.5)
    assert_allclose(left_out.forward[2, :, 0], exact[2, :, 0] + 5, atol=0.7)
    assert_allclose(left_out.backward[0, :, 0], exact[0, :, 0] + 5, atol=0.7)
    assert_array_equal(chain.forward[4], points[1])  # the label itself is where it was put


# Blending


def chain_of(frames, forward, backward) -> FlowChain:
    """One list of x a keypoint; y is minus x."""
    pair = [np.stack([np.array(x, float).T, -np.array(x, float).T], -1) for x in (forward, backward)]
    return FlowChain(np.array(frames), *pair, *(np.zeros(p.shape[:2]) for p in pair))


def label_on(frames, *visibility) -> Track:
    shown = np.array(visibility).T
    return Track(np.array(frames), np.zeros((*shown.shape, 2)), visibility=shown)


def test_the_nearest_side_is_taken_and_the_earlier_on_a_tie():
    chain = chain_of(range(2, 9), [[NAN, 0, 1, 2, 3, 10, 11]], [[-1, 0, 7, 8, 9, 10, NAN]])
    result = blend_nearest(chain, label_on([3, 7], [2, 1]))[:, 0]
    assert_allclose(result[:, 0], [-1, 0, 1, 2, 9, 10, 11])
    assert_allclose(result[:, 1], -result[:, 0])


def test_both_sides_are_weighted_by_the_distance_to_the_other():
    chain = chain_of(range(2, 9), [[NAN, 0, 0, 0, 0, 8, 11]], [[-1, 0, 8, 8, 8, 8, NAN]])
    result = blend_both(chain, label_on([3, 7], [2, 2]))[:, 0]
    assert_allclose(result[:, 0], [-1, 0, 2, 4, 6, 8, 11])
    assert_allclose(result[:, 1], -result[:, 0])


@pytest.mark.parametrize("blend", [blend_nearest, blend_both])
def test_a_side_that_is_missing_is_replaced_by_the_other(blend):
    # Frames 5 and 6: the next label is nearer, but too far for its flow; the track is away on frame 4.
    chain = chain_of([3, 5, 6, 7], [[0, NAN, NAN, 10]], [[0, 8, 9, 10]])
    assert_allclose(blend(chain, label_on([3, 7], [2, 2]))[:, 0, 0], [0, 8, 9, 10])
    chain = chain_of([3, 4, 5, 6], [[0, 1, 2, 3]], [[0, NAN, NAN, 3]])
    assert_allclose(blend(chain, label_on([3, 6], [2, 2]))[:, 0, 0], [0, 1, 2, 3])
    chain = chain_of([3, 4], [[0, NAN]], [[0, NAN]])
    assert_allclose(blend(chain, label_on([3], [2]))[:, 0, 0], [0, NAN])


@pytest.mark.parametrize("blend", [blend_nearest, blend_both])
def test_every_keypoint_has_its_own_distances(blend):
    # The second keypoint is not labelled on frame 2; the third never.
    forward = [[0, 1, 10, 11, 20], [0, 1, 2, 3, 20], [NAN] * 5]
    backward = [[0, 9, 10, 19, 20], [0, 17, 18, 19, 20], [NAN] * 5]
    track = label_on([0, 2, 4], [2, 2, 2], [2, 0, 2], [0, 0, 0])
    result = blend(chain_of(range(5), forward, backward), track)
    assert np.isnan(result[:, 2]).all()
    nearest = {0: [0, 1, 10, 11, 20], 1: [0, 1, 2, 19, 20]}
    both = {0: [0, 5, 10, 15, 20], 1: [0, 5, 10, 15, 20]}
    for k, expected in (nearest if blend is blend_nearest else both).items():
        assert_allclose(result[:, k, 0], expected)


# carry_again


def assert_same(one, other):
    for (points, errors), (others, other_errors) in zip(one.sides, other.sides, strict=True):
        assert_array_equal(points, others)
        assert_array_equal(errors, other_errors)


def test_the_same_labels_are_carried_alike_by_flow_that_is_there(picture, moving_video, monkeypatch):
    frames = {0: np.arange(0, 14)}
    tracks = {0: track_on(picture, [2, 6, 10], missing=[(6, 1)])}
    first = carry_labels(moving_video, tracks, frames, subject=60.0)
    store = first[0].flow.store
    monkeypatch.setattr(flow, "dense_flow", None)  # nothing lacks
    again = carry_again(moving_video, tracks, frames, store, subject=60.0)
    assert_same(first[0], again[0])
    assert_same(first[0].left_out, again[0].left_out)
    monkeypatch.setattr(flow._Carrier, "carry", None)  # and nothing has changed
    taken = carry_again(moving_video, tracks, frames, store, subject=60.0, before={0: (tracks[0], first[0])})
    assert_same(first[0], taken[0])


@pytest.mark.parametrize(
    ("labelled", "missing"),
    [
        ([2, 6, 8, 10], []),
        ([2, 10], []),
        ([2, 6, 10], [(6, 0), (6, 1)]),
        ([2, 6, 10, 13], [(10, 0)]),
        ([6], []),
    ],
)
def test_what_has_changed_is_carried_anew_and_all_else_is_taken_over(
    picture, moving_video, labelled, missing
):
    frames = {0: np.arange(0, 12)}
    old = track_on(picture, [2, 6, 10], missing=[(6, 1)])
    first = carry_labels(moving_video, {0: old}, frames, subject=60.0)
    store = first[0].flow.store
    longer = {0: np.arange(1, 15)}
    new = track_on(picture, labelled, missing=missing)
    again = carry_again(moving_video, {0: new}, longer, store, subject=60.0, before={0: (old, first[0])})[0]
    anew = carry_again(moving_video, {0: new}, longer, store, subject=60.0)[0]
    for (points, errors), (others, other_errors) in zip(again.sides, anew.sides, strict=True):
        assert_allclose(points, others, atol=0.05)
        assert_allclose(errors, other_errors, atol=0.1)
        assert np.nanmax(off(picture, points, longer[0])) < 0.5
    here = np.isin(again.frames, new.frames)
    placed = (new.visibility[np.isin(new.frames, again.frames)] > 0)[..., None]
    given = new.keypoints[np.isin(new.frames, again.frames)]
    assert_array_equal(np.where(placed, again.forward[here], 0), np.where(placed, given, 0))


def test_a_new_track_gets_flow_of_its_own(picture, moving_video):
    frames = np.arange(0, 12)
    first = carry_labels(moving_video, {0: track_on(picture, [2, 6])}, {0: frames}, subject=60.0)
    tracks = {0: track_on(picture, [2, 6]), 1: track_on(picture, [9])}
    both = {0: frames, 1: frames}
    again = carry_again(moving_video, tracks, both, first[0].flow.store, subject=60.0)
    assert_same(first[0], again[0])
    assert np.nanmax(off(picture, again[1].backward[:10], frames[:10])) < 0.5


def test_flow_in_a_file_is_added_to(picture, moving_video, tmp_path):
    frames = {0: np.arange(0, 8)}
    tracks = {0: track_on(picture, [2, 6])}
    kept = tmp_path / "flow.bin"
    first = carry_labels(moving_video, tracks, frames, subject=60.0, kept=kept)
    write_chains(tmp_path / "flow.npz", first)
    size = kept.stat().st_size
    read = read_chains(tmp_path / "flow.npz", kept)
    more = {**tracks, 1: track_on(picture, [9])}
    store = read[0].flow.store
    again = carry_again(moving_video, more, {**frames, 1: np.arange(14)}, store, subject=60.0)
    store.flush()
    assert kept.stat().st_size > size
    assert_same(first[0], again[0])


def test_a_track_in_the_place_of_another_borrows_its_flow(picture, moving_video, monkeypatch):
    frames = np.arange(0, 12)
    first = carry_labels(moving_video, {0: track_on(picture, [2, 6])}, {0: frames}, subject=60.0)
    store = first[0].flow.store
    monkeypatch.setattr(flow, "dense_flow", None)
    tracks = {0: track_on(picture, [2]), 1: track_on(picture, [6])}
    again = carry_again(moving_video, tracks, {0: frames, 1: frames}, store, subject=60.0)
    assert np.nanmax(off(picture, again[1].backward[:7], frames[:7])) < 0.5
    assert np.nanmax(off(picture, again[1].forward[6:], frames[6:])) < 0.5
