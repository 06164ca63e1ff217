"""Propagation: stretches, labels kept to the bit, and every method on a clip whose motion is known."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from posewarper.errors import ConfigError
from posewarper.geometry import crop_transform
from posewarper.model.heatmap_runner import HeatmapEngine
from posewarper.propagation import stretch, trust
from posewarper.propagation.clip import Clip, prepare_clip, subject_size
from posewarper.propagation.methods import METHODS, check_method, propagate_clip
from posewarper.propagation.stretch import split_stretches
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Track
from posewarper.video.source import open_video

NAN = np.nan
NAMES = ("left_paw", "right_paw", "back", "tail")
# Stay 15 pixels inside for 16 frames; the last two lie in the middle, so that the box does without them.
START = np.array([[38.0, 42.0], [62.5, 30.25], [50.0, 35.0], [52.25, 37.5]])


def labels_of(picture, frames, missing=(), names=NAMES, labelled=None) -> Labels:
    """Exact labels: track id -> its labelled frames; ``missing`` are (track, frame, keypoint)."""
    tracks = {}
    for i, own in frames.items():
        visibility = np.full((len(own), len(names)), 2)
        for track, frame, k in missing:
            if track == i:
                visibility[[f in (frame, None) for f in own] if frame is not None else slice(None), k] = 0
        tracks[i] = Track(np.array(own), picture.keypoints(START[: len(names)], own), visibility=visibility)
    return Labels(Skeleton(names), tracks, labelled)


def off(picture, track, k=slice(None)) -> np.ndarray:
    truth = picture.keypoints(START[: track.keypoints.shape[1]], track.frames)
    return np.linalg.norm(track.keypoints - truth, axis=-1)[:, k]


# Stretches


def test_stretches_by_hand():
    frames = np.arange(10, 22)
    # From the start of the track to a label, between labels, on to the end; the next one keeps a shared row.
    assert split_stretches(frames, np.array([12, 17])) == [(0, 2, 2), (2, 7, 7), (7, 11, 12)]
    assert split_stretches(frames, np.array([10, 21])) == [(0, 11, 12)]
    assert split_stretches(frames, np.array([10, 11])) == [(0, 1, 1), (1, 11, 12)]
    assert split_stretches(np.array([4]), np.array([4])) == [(0, 0, 1)]
    assert split_stretches(np.array([3, 4, 8, 9, 10]), np.array([4, 8])) == [(0, 1, 2), (2, 4, 5)]
    assert split_stretches(np.zeros(0, int), np.array([4])) == []


def test_stretches_cover_every_row_once(monkeypatch):
    monkeypatch.setattr(stretch, "_LONGEST", 16)
    monkeypatch.setattr(stretch, "_OVERLAP", 4)
    rng = np.random.default_rng(0)
    for _ in range(60):
        frames = (
            np.sort(rng.permutation(150)[: rng.integers(1, 150)]) if rng.random() < 0.5 else np.arange(90)
        )
        labelled = np.sort(rng.permutation(frames)[: rng.integers(1, 8)])
        label_rows = np.flatnonzero(np.isin(frames, labelled))
        kept = 0
        for first, last, keep in split_stretches(frames, labelled):
            assert first == kept < keep <= last + 1 and last - first <= 16
            assert frames[last] - frames[first] == last - first  # no jump in time within
            assert not np.any((label_rows > first) & (label_rows < last))  # labels are ends
            ends = keep > last or last in label_rows or frames[keep] != frames[keep - 1] + 1
            assert ends or last - keep >= 3  # a cut looks further than what is kept
            kept = keep
        assert kept == len(frames)


# Every method


@pytest.fixture(scope="module")
def odd_poses(picture, moving_folder):
    """Propagate by a method, from two tracks that come and go; keypoints lack some of their labels or all."""
    labels = labels_of(
        picture,
        {3: [1, 6, 11], 8: [6]},
        missing=[(3, 6, 2), (3, None, 3), (8, None, 2)],
        labelled=np.array([1, 6, 11]),
    )
    with open_video(moving_folder) as video:
        clip = prepare_clip(video, labels)
        yield labels, lambda method, model: propagate_clip(clip, method, model)


@pytest.mark.parametrize("method", METHODS)
def test_labels_are_kept_to_the_bit_by_every_method(method, odd_poses, picture, make_model):
    labels, run = odd_poses
    model = make_model(NAMES) if method in ("frame", "warper", "paper") else None
    poses = run(method, model)
    assert list(poses.tracks) == [3, 8] and poses.image_size == picture.size and poses.n_frames == 16
    assert_array_equal(poses.labelled_frames, labels.labelled_frames)
    assert_array_equal(poses.tracks[3].frames, np.arange(16))
    # Frames 1 and 11 are labelled and lack the second track, which therefore lives between them.
    assert_array_equal(poses.tracks[8].frames, np.arange(2, 11))
    for i, track in labels.tracks.items():
        found = poses.tracks[i]
        rows, said = np.isin(found.frames, track.frames), track.labelled
        assert_array_equal(found.labelled[rows], said)
        assert not found.labelled[~rows].any()
        assert_array_equal(found.keypoints[rows][said], track.keypoints[said])
        assert_array_equal(found.visibility[rows][said], track.visibility[said])
        assert_array_equal(found.keypoint_scores[rows][said], track.visibility[said] > 0)
        assert ((found.keypoint_scores >= 0) & (found.keypoint_scores <= 1)).all()
        error = found.expected_error
        assert found.knows_error == (method == "default")
        if method == "default":
            assert_array_equal(np.isfinite(error), found.visibility > 0)
            assert_array_equal(error[rows][track.visibility == 2], 0)
            assert (error[found.predicted] > 0).all()
        there = np.isfinite(found.keypoints).all(-1)
        assert_array_equal(found.visibility[~found.labelled], there[~found.labelled] * 2)
        assert (found.keypoint_scores[~there] == 0).all()
        seen = (track.visibility > 0).any(0)
        assert np.isnan(found.keypoints[:, ~seen]).all()
        # Also keypoints that nobody has looked at on a labelled frame.
        assert there[:, seen].all()


@pytest.mark.parametrize(
    ("method", "limit"), [("linear", 1e-9), ("flow", 0.5), ("flow2", 0.5), ("default", 0.5)]
)
def test_methods_without_a_network_follow_the_motion(method, limit, odd_poses, picture):
    _, run = odd_poses
    for i, known in ((3, [0, 1, 2]), (8, [0, 1, 3])):
        track = run(method, None).tracks[i]
        inner = (track.frames >= 1) & (track.frames <= 11) if method == "linear" else slice(None)
        wrong = off(picture, track, known)[inner]
        if i == 3 or method != "linear":  # straight lines need two labels
            assert np.nanmax(wrong) < limit


def test_default_without_labels_on_one_side_is_surer_near_them(picture, moving_video):
    poses = propagate_clip(prepare_clip(moving_video, labels_of(picture, {0: [5]})), "default", None)
    scores = poses.tracks[0].keypoint_scores
    assert (np.diff(scores[5:], axis=0) < 0).all() and (np.diff(scores[:6], axis=0) > 0).all()
    assert off(picture, poses.tracks[0]).max() < 0.6


def test_scores_without_a_network_fall_with_the_distance_to_labels(picture, moving_video):
    clip = prepare_clip(moving_video, labels_of(picture, {0: [3, 9]}), flow=False)
    assert clip.chains == {}
    scores = propagate_clip(clip, "nearest").tracks[0].keypoint_scores[:, 0]
    assert_allclose(scores[3:10], scores[3:10][::-1])
    assert (np.diff(scores[3:7]) < 0).all() and (np.diff(scores[9:]) < 0).all() and scores.min() > 0


# With a network


def test_a_head_before_training_keeps_the_label_in_its_place_in_the_crop(picture, moving_video, make_model):
    model = make_model(NAMES, crop_size=(64, 96))
    clip = prepare_clip(moving_video, labels_of(picture, {0: [6]}))
    track = propagate_clip(clip, "warper", model).tracks[0]
    transforms = [crop_transform(box, (64, 96)) for box in clip.boxes(0, track.frames, 96 / 64)]
    inside = transforms[6].to_crop(clip.labels.tracks[0].keypoints[0])
    expected = np.stack([t.to_image(inside) for t in transforms])
    one = clip.boxes(0, track.frames, 96 / 64)[0, 2] / 24  # a heatmap pixel
    assert_allclose(track.keypoints, expected, atol=0.06 * one)
    assert (track.keypoint_scores > 0.9).all()
    # The crop follows the motion, and the label with it.
    assert off(picture, track).max() < 0.6


@pytest.fixture(scope="module")
def spots(picture, write_frames):
    """A clip in which the keypoints are spots: one is red, the other is green; the ground is blue."""
    large = replace(picture, size=(90, 128), n_frames=12)
    y, x = np.mgrid[:90, :128]

    def image(n):
        frame = large.image(n)
        for k, (px, py) in enumerate(large.keypoints(START[:2], [n])[0]):
            frame[..., k] = np.round(255 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * 3.0**2)))
        return frame

    return large, write_frames(image(n) for n in range(12))


def see_colours(model, images) -> torch.Tensor:
    """Stands for the network: its heatmaps are red and green, averaged over 4 by 4 pixels of the crop."""
    t, height, width, _ = images.shape
    means = images[..., :2].reshape(t, height // 4, 4, width // 4, 4, 2).mean((2, 4)) / 255
    return torch.from_numpy(means.transpose(0, 3, 1, 2).astype(np.float32))


def show_colours(monkeypatch, see=see_colours) -> None:
    monkeypatch.setattr(HeatmapEngine, "heatmaps", see)


@pytest.mark.parametrize("crop_size", [(64, 96), (128, 64)])
def test_peaks_are_found_where_they_are_in_the_image(spots, make_model, monkeypatch, crop_size):
    show_colours(monkeypatch)
    clip_picture, folder = spots
    labels = labels_of(clip_picture, {0: [2, 9]}, names=("nose", "tail"))
    with open_video(folder) as video:
        poses = propagate_clip(prepare_clip(video, labels), "frame", make_model(("nose", "tail"), crop_size))
    assert off(clip_picture, poses.tracks[0]).max() < 0.15
    assert (poses.tracks[0].keypoint_scores > 0.7).all()


def test_default_listens_to_a_trained_network_alone(spots, make_model, monkeypatch):
    # The motion is unknown, so that only the labels and what the network sees are left.
    show_colours(monkeypatch)
    blind = SimpleNamespace(steps=lambda points: np.full((2, *points[1:].shape), NAN))
    monkeypatch.setattr(Clip, "motion", lambda *_: blind)
    clip_picture, folder = spots
    labels = labels_of(clip_picture, {0: [0]}, names=("nose", "tail"))
    model = make_model(("nose", "tail"), (64, 96))
    with open_video(folder) as video:
        clip = prepare_clip(video, labels)
        unseen = propagate_clip(clip, "default", model).tracks[0]
        model.record("pose", 1)
        seen = propagate_clip(clip, "default", model).tracks[0]
    assert off(clip_picture, seen)[1:-1].max() < 0.3
    # Labels are carried there too: not all of the certainty comes from the network.
    assert (seen.keypoint_scores[4:] > 1.05 * unseen.keypoint_scores[4:]).all()


def test_a_network_that_misses_the_labels_is_not_listened_to(spots, make_model, monkeypatch):
    def see_beside(model, images) -> torch.Tensor:
        return see_colours(model, images).roll(5, -1)

    blind = SimpleNamespace(steps=lambda points: np.full((2, *points[1:].shape), NAN))
    monkeypatch.setattr(Clip, "motion", lambda *_: blind)
    show_colours(monkeypatch, see_beside)
    clip_picture, folder = spots
    labels = labels_of(clip_picture, {0: [0]}, names=("nose", "tail"))
    model = make_model(("nose", "tail"), (64, 96))
    model.record("pose", 1)
    with open_video(folder) as video:
        clip = prepare_clip(video, labels)
        doubted = propagate_clip(clip, "default", model).tracks[0]
        monkeypatch.setattr(trust, "measure_network_trust", lambda clip, model: np.ones(2))
        believed = propagate_clip(clip, "default", model).tracks[0]
    assert off(clip_picture, doubted).max() < 0.5
    assert off(clip_picture, believed)[2:].min() > 5


# Long stretches


@pytest.mark.parametrize("labelled", [[0], [0, 15], [2, 14]])
def test_pieces_of_a_long_stretch_join(picture, moving_video, monkeypatch, labelled):
    clip = prepare_clip(moving_video, labels_of(picture, {0: labelled}), extend=True)
    whole = propagate_clip(clip, "default", None).tracks[0]
    monkeypatch.setattr(stretch, "_LONGEST", 6)
    monkeypatch.setattr(stretch, "_OVERLAP", 2)
    pieces = propagate_clip(clip, "default", None).tracks[0]
    assert np.abs(np.diff(pieces.keypoints, axis=0) - picture.velocity).max() < 0.5
    assert_allclose(pieces.keypoints, whole.keypoints, atol=0.6)
    first = slice(0, 4) if labelled[0] == 0 else slice(0, 2)
    assert_allclose(pieces.keypoints[first], whole.keypoints[first], atol=0.1)


def test_progress_counts_the_frames_of_all_tracks(picture, moving_video):
    clip = prepare_clip(moving_video, labels_of(picture, {0: [2, 8], 1: [2, 8]}), extend=True)
    told = []
    propagate_clip(clip, "default", None, progress=lambda *what: told.append(what))
    done = [n for _, n, _ in told]
    assert done == sorted(done) and done[-1] == 32 and {total for *_, total in told} == {32}


# Preparation


def test_boxes_of_a_clip_follow_the_flow(picture, moving_video):
    clip = prepare_clip(moving_video, labels_of(picture, {0: [0]}))
    boxes = clip.boxes(0, np.array([0, 5, 12]), 1.0)
    moved = np.array([[0], [5], [12]]) * np.array(picture.velocity)
    assert_allclose(boxes[:, :2] - boxes[0, :2], moved, atol=0.5)
    assert_allclose(boxes[:, 2:], boxes[:1, 2:].repeat(3, 0))


def test_subject_size_is_the_median_longer_side():
    keypoints = np.array(
        [[[0, 0], [40, 20]], [[0, 0], [10, 30]], [[5, 5], [NAN, NAN]], [[NAN, NAN], [NAN, NAN]]]
    )
    track = Track(np.arange(4), keypoints, labelled=np.ones((4, 2), bool))
    assert subject_size(Labels(Skeleton(("a", "b")), {0: track})) == 30
    # A label of a few keypoints is not that of a small subject, unless the others are absent.
    few = [[[0, 0], [40, 20]], *[[[5, 5], [NAN, NAN]]] * 3]
    for labelled, size in ((None, 40), (np.ones((4, 2), bool), 16)):
        track = Track(np.arange(4), few, labelled=labelled)  # type: ignore[arg-type]
        assert subject_size(Labels(Skeleton(("a", "b")), {0: track})) == pytest.approx(size, abs=0.1)


def test_unknown_methods_are_refused():
    with pytest.raises(ConfigError, match="nearest, linear"):
        check_method("warp")
    for method in METHODS:
        check_method(method)


def test_a_track_whose_labels_hold_no_keypoint(picture, moving_video, make_model):
    labels = labels_of(picture, {0: [2, 8], 1: [5]}, missing=[(1, None, k) for k in range(4)])
    clip = prepare_clip(moving_video, labels)
    model = make_model(NAMES)
    for method in ("pchip", "flow", "flow2", "frame", "warper", "paper", "default"):
        track = propagate_clip(clip, method, model).tracks[1]
        assert np.isnan(track.keypoints).all() and (track.keypoint_scores == 0).all()
