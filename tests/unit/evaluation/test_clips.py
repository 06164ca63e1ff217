"""Scoring on a clip: what is scored, against what, and the figures by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from posewarper.errors import ConfigError, LabelsError
from posewarper.evaluation.clips import keep_every, score_clip, withhold
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Poses, Track

SKELETON = Skeleton(("nose", "tail"))
BOX = (0.0, 0.0, 50.0, 200.0)  # the longer side is 200: 2 pixels are 1 percent


def track_of(n_frames: int, visibility: np.ndarray | None = None, boxes: bool = True) -> Track:
    """A nose at (frame, 0) and a tail at (frame, 100)."""
    keypoints = np.zeros((n_frames, 2, 2))
    keypoints[..., 0] = np.arange(n_frames)[:, None]
    keypoints[:, 1, 1] = 100
    shown = np.full((n_frames, 2), 2) if visibility is None else visibility
    return Track(
        np.arange(n_frames), keypoints, visibility=shown, boxes=np.tile(BOX, (n_frames, 1)) if boxes else None
    )


def labels_of(*tracks: Track) -> Labels:
    return Labels(SKELETON, dict(enumerate(tracks)), image_size=(300, 300))


def poses_of(*tracks: Track, shift: np.ndarray | float = 0.0) -> Poses:
    """The labels as predictions, moved along y by ``shift``, which may differ by frame and keypoint."""
    made = {}
    for i, track in enumerate(tracks):
        keypoints = track.keypoints.copy()
        keypoints[..., 1] += shift
        made[i] = Track(track.frames, keypoints, keypoint_scores=np.ones(keypoints.shape[:2]))
    return Poses(SKELETON, made, (300, 300), n_frames=len(tracks[0].frames) if tracks else 0)


def test_keep_every():
    labels = labels_of(track_of(20))
    assert keep_every(labels, 7).labelled_frames.tolist() == [3, 10, 17]
    assert keep_every(labels, 7).tracks[0].frames.tolist() == [3, 10, 17]
    assert keep_every(labels, 4).labelled_frames.tolist() == [2, 6, 10, 14, 18]
    assert keep_every(labels, 1).labelled_frames.tolist() == list(range(20))
    sparse = labels.at([0, 3, 4, 17])
    assert keep_every(sparse, 7).labelled_frames.tolist() == [3, 17]
    # Frames that somebody has gone through and found empty stay known as such.
    empty = replace(labels.at([3]), labelled_frames=np.array([3, 10, 11]))
    assert keep_every(empty, 7).labelled_frames.tolist() == [3, 10]
    with pytest.raises(ConfigError):
        keep_every(labels, 0)


def test_withheld_keypoints_are_drawn_of_each_instance_and_scored():
    dense = labels_of(track_of(20), track_of(20))
    kept = keep_every(dense, 4)
    half = withhold(kept, 0.5, seed=3)
    for i, track in half.tracks.items():
        assert track.labelled.sum(1).tolist() == [1] * 5
        assert track.not_looked_at.sum(1).tolist() == [1] * 5
        assert (track.keypoints[track.placed] == kept.tracks[i].keypoints[track.placed]).all()
    drawn = [track.labelled.tolist() for track in half.tracks.values()]
    assert drawn[0] != drawn[1]
    assert withhold(kept, 0.5, seed=3).fingerprint() == half.fingerprint()
    assert withhold(kept, 0.5, seed=4).fingerprint() != half.fingerprint()
    assert withhold(kept, 0.4).fingerprint() == withhold(kept, 0.0).fingerprint() == kept.fingerprint()
    for share in (-0.1, 1.0):
        with pytest.raises(ConfigError, match="share"):
            withhold(kept, share)
    # Both tracks have 15 other frames, and 5 keypoints that were withheld, if each was labelled somewhere.
    poses = poses_of(*dense.tracks.values(), shift=3.0)
    assert score_clip(poses, dense, kept).n == 2 * 15 * 2
    assert score_clip(poses, dense, half).n == 2 * (15 * 2 + 5)


def test_perfect_poses():
    dense = labels_of(track_of(20))
    score = score_clip(poses_of(track_of(20)), dense, keep_every(dense, 7))
    assert (score.mean, score.median, score.p95) == (0, 0, 0)
    assert (score.pck05, score.pck10, score.coverage) == (100, 100, 100)
    assert score.n == 2 * 17
    # Frames 4 to 9 and 11 to 16 lie between the labels 3, 10, 17; 0 to 2, 18 and 19 beyond.
    assert (score.between.n, score.beyond.n) == (24, 10)


def test_figures_by_hand():
    dense = labels_of(track_of(6))
    kept = dense.at([1, 4])
    # Scored: frames 0, 2, 3, 5. The nose is off by 2, 4, 6, 8 pixels (1, 2, 3, 4 percent), the tail by 10
    # times as much on frame 0 alone (10 percent) and by 24 on frame 5 (12 percent).
    shift = np.zeros((6, 2))
    shift[[0, 2, 3, 5], 0] = [2, 4, 6, 8]
    shift[0, 1], shift[5, 1] = 20, -24
    score = score_clip(poses_of(track_of(6), shift=shift), dense, kept)
    errors = [1, 2, 3, 4, 10, 0, 0, 12]
    assert score.mean == pytest.approx(4.0)
    assert score.median == pytest.approx(2.5)
    assert score.p95 == pytest.approx(10 + 0.65 * 2)  # position 0.95 * 7 = 6.65 of the sorted errors
    assert score.pck05 == pytest.approx(100 * 6 / 8)
    assert score.pck10 == pytest.approx(100 * 7 / 8)
    assert score.n == len(errors)
    assert score.between.mean == pytest.approx((2 + 3 + 0 + 0) / 4)
    assert score.beyond.mean == pytest.approx((1 + 4 + 10 + 12) / 4)
    assert score.per_keypoint == pytest.approx({"nose": 2.5, "tail": 5.5})
    assert score.per_keypoint_pck05 == {"nose": 100, "tail": 50}


def test_missing_predictions_count_as_100_and_large_errors_more():
    dense = labels_of(track_of(4))
    kept = dense.at([0])
    keypoints = dense.tracks[0].keypoints[:3].copy()
    keypoints[1, 0] = np.nan  # the nose of frame 1
    keypoints[2, 0] += (0, 300)  # 150 percent
    poses = Poses(
        SKELETON, {0: Track(np.arange(3), keypoints, keypoint_scores=np.ones((3, 2)))}, (300, 300), 4
    )
    # Frame 3 has no row. Scored are 6 keypoints: nose 100, 150, 100; tail 0, 0, 100.
    score = score_clip(poses, dense, kept)
    assert score.mean == pytest.approx((100 + 150 + 100 + 0 + 0 + 100) / 6)
    assert score.coverage == pytest.approx(50)
    assert score.per_keypoint == pytest.approx({"nose": 350 / 3, "tail": 100 / 3})
    nobody = Poses(SKELETON, {}, (300, 300), 4)
    nothing = score_clip(nobody, dense, kept)
    assert (nothing.mean, nothing.median, nothing.coverage, nothing.pck10) == (100, 100, 0, 0)


def test_hidden_keypoints_are_not_scored():
    visibility = np.full((6, 2), 2)
    visibility[2] = (1, 0)
    dense = labels_of(track_of(6, visibility))
    shift = np.zeros((6, 2))
    shift[2] = 50
    score = score_clip(poses_of(track_of(6), shift=shift), dense, dense.at([0]))
    assert score.n == 8 and score.mean == 0


def test_kept_frames_are_not_scored():
    dense = labels_of(track_of(6))
    shift = np.zeros((6, 2))
    shift[[1, 4]] = 50
    assert score_clip(poses_of(track_of(6), shift=shift), dense, dense.at([1, 4])).mean == 0
    # A kept frame on which this track has no label is a kept frame all the same.
    lacking = Labels(SKELETON, {0: track_of(6).at([1])}, labelled_frames=np.array([1, 4]))
    assert score_clip(poses_of(track_of(6), shift=shift), dense, lacking).mean == 0


def test_keypoints_and_tracks_without_a_kept_label_are_not_scored():
    visibility = np.full((6, 2), 2)
    visibility[[1, 4], 1] = 0
    dense = labels_of(track_of(6, visibility))
    shift = np.array([0.0, 50.0])
    score = score_clip(poses_of(track_of(6), shift=shift), dense, dense.at([1, 4]))
    assert score.n == 4 and score.mean == 0
    assert np.isnan(score.per_keypoint["tail"]) and score.to_dict()["per_keypoint"]["tail"] is None
    # A hidden label is a label.
    visibility[1, 1] = 1
    dense = labels_of(track_of(6, visibility))
    assert score_clip(poses_of(track_of(6), shift=shift), dense, dense.at([1, 4])).mean == 12.5
    # Labelled in one track is not labelled in the other, and a track that was never labelled does not count.
    two = labels_of(track_of(6), track_of(6))
    score = score_clip(poses_of(track_of(6)), two, replace(two, tracks={0: two.tracks[0].at([1])}).at([1]))
    assert score.n == 10 and score.mean == 0


def test_every_track_has_its_own_first_and_last_label():
    dense = labels_of(track_of(6), track_of(6))
    kept = Labels(SKELETON, {0: track_of(6).at([0, 5]), 1: track_of(6).at([0])}, np.array([0, 5]))
    score = score_clip(poses_of(track_of(6), track_of(6)), dense, kept)
    assert (score.between.n, score.beyond.n) == (8, 8)


def test_box_from_the_keypoints_where_the_labels_give_none():
    dense = labels_of(track_of(4, boxes=False))
    # 100 pixels between nose and tail, with 10 percent on each side: 6 pixels are 5 percent of 120.
    score = score_clip(poses_of(track_of(4), shift=6.0), dense, dense.at([0]))
    assert score.mean == pytest.approx(5)
    # Where one keypoint alone is labelled the track's median side takes the place.
    visibility = np.full((4, 2), 2)
    visibility[2, 1] = 0
    dense = labels_of(track_of(4, visibility, boxes=False))
    score = score_clip(poses_of(track_of(4), shift=6.0), dense, dense.at([0]))
    assert score.mean == pytest.approx(5) and score.n == 5


def test_no_box_has_a_size():
    visibility = np.tile([2, 0], (4, 1))
    dense = labels_of(track_of(4, visibility, boxes=False))
    with pytest.raises(LabelsError, match="no size"):
        score_clip(poses_of(track_of(4)), dense, dense.at([0]))


def test_predictions_in_the_dense_file_are_not_scored():
    dense = replace(labels_of(track_of(6)), labelled_frames=np.array([0, 1, 2]))
    assert score_clip(poses_of(track_of(6)), dense, dense.at([1])).n == 4


def test_nothing_scored_is_nan_and_null():
    dense = labels_of(track_of(3))
    score = score_clip(poses_of(track_of(3)), dense, dense)
    assert score.n == 0 and np.isnan(score.mean)
    plain = json.loads(json.dumps(score.to_dict(), allow_nan=False))
    assert plain["mean"] is None and plain["between"]["p95"] is None and plain["n"] == 0


def test_other_keypoints_are_refused():
    dense = labels_of(track_of(3))
    poses = replace(poses_of(track_of(3)), skeleton=Skeleton(("nose", "paw")))
    with pytest.raises(LabelsError, match="other keypoints"):
        score_clip(poses, dense, dense.at([0]))
