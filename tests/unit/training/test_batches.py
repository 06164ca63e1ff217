"""Batches: pictures, targets and weights belong together, and pairs never mix tracks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from dotted_regions import SKELETON, dotted_region, find_dot

from posewarper.heatmaps import decode, heatmap_to_crop
from posewarper.options import FitConfig
from posewarper.skeletons import COCO, Skeleton
from posewarper.training.batches import label_heatmaps
from posewarper.training.own_clip import pair_batch, pose_batch

SIZE = (64, 80)
# Small enough to keep every dot within every crop.
CONFIG = FitConfig(
    pose_batch=12, warp_batch=24, rotation=20, scale=0.1, shift=0.03, half_body=0, flip=0.5, sigma=1.5
)
A = [(60.3, 48.8), (82.6, 66.2), (92.1, 52.5)]
B = [(66.0, 44.0), (75.5, 70.0), (88.0, 60.5)]


def drawn(make, *arguments) -> dict[str, np.ndarray]:
    """A batch as arrays; the pictures of pairs apart, as ``sources`` and ``targets``."""
    batch = {name: value.numpy() for name, value in make(*arguments).items()}
    images = batch.pop("images")
    if "labels" not in batch:
        return {**batch, "images": images[:, 0]}
    return {**batch, "targets": images[:, 0], "sources": images[:, 1]}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def peaks(heatmaps: np.ndarray) -> np.ndarray:
    """(..., K, 2) positions in crop pixels, NaN where a map is empty."""
    points, heights = decode(heatmaps)
    return np.where(heights[..., None] > 0.5, heatmap_to_crop(points, 4), np.nan)


def assert_dots_are_at(images: np.ndarray, heatmaps: np.ndarray) -> None:
    """Each heatmap has its peak on the dot of its own colour, or all on the swapped ones (mirrored)."""
    for image, found in zip(images, peaks(heatmaps), strict=True):
        dots = np.array([find_dot(image, channel) for channel in range(3)])
        off = [
            np.nanmax(np.linalg.norm(found - dots[list(order)], axis=1)) for order in ((0, 1, 2), (0, 2, 1))
        ]
        assert min(off) < 1


def test_label_heatmaps_peak_at_the_labels_and_are_empty_without():
    keypoints = np.array([[10.0, 20], [np.nan, np.nan], [np.nan, 8]])
    maps = label_heatmaps(keypoints, SIZE, 2.0)
    assert maps.shape == (3, 16, 20)
    assert (maps[1:] == 0).all()
    np.testing.assert_allclose(peaks(maps)[0], (10, 20), atol=0.05)


def test_pose_batches_show_what_their_targets_say():
    batch = drawn(pose_batch, [dotted_region(A), dotted_region(B)], SKELETON, CONFIG, SIZE, rng())
    assert batch["images"].shape == (12, *SIZE, 3)
    assert batch["target"].shape == (12, 3, 16, 20)
    assert batch["target"].dtype == batch["weights"].dtype == np.float32
    assert (batch["weights"] == 1).all()
    assert_dots_are_at(batch["images"], batch["target"])
    assert np.ptp(peaks(batch["target"])[:, 0], axis=0).min() > 2


def test_batches_depend_on_the_seed_alone():
    regions, nearby = [dotted_region(A), dotted_region(B)], {0: [dotted_region(B, (0, 0, 0))]}
    for make in (
        lambda seed: drawn(pose_batch, regions, SKELETON, CONFIG, SIZE, rng(seed)),
        lambda seed: drawn(pair_batch, regions, nearby, SKELETON, CONFIG, SIZE, rng(seed)),
    ):
        first, again, other = (make(seed) for seed in (1, 1, 2))
        for name, value in first.items():
            np.testing.assert_array_equal(value, again[name])
        assert not all(np.array_equal(value, other[name]) for name, value in first.items())


def test_every_region_comes_about_equally_often():
    names = Skeleton(tuple("abcde"))
    # Region n is known by its only label, that of keypoint n.
    regions = [
        replace(dotted_region(A), keypoints=np.where(own[:, None], (60.0, 60.0), np.nan), visibility=2 * own)
        for own in np.eye(5, dtype=np.uint8)
    ]
    for size, low, high in ((12, 2, 3), (5, 1, 1), (3, 0, 1)):
        config = CONFIG.model_copy(update={"pose_batch": size})
        counts = drawn(pose_batch, regions, names, config, SIZE, rng())["weights"].sum(0)
        assert counts.sum() == size
        assert low <= counts.min() <= counts.max() <= high


def test_unlabelled_keypoints_have_no_weight_and_no_nan_reaches_a_target():
    regions = [dotted_region(A, (2, 0, 2)), dotted_region(B, (0, 1, 0))]
    batch = drawn(pose_batch, regions, SKELETON, CONFIG, SIZE, rng())
    assert np.isfinite(batch["target"]).all()
    np.testing.assert_array_equal(batch["target"].max((2, 3)) > 0, batch["weights"] > 0)
    assert set(batch["weights"].sum(1).tolist()) == {1, 2}
    pairs = drawn(pair_batch, regions, {1: [dotted_region(A, (0, 0, 0))]}, SKELETON, CONFIG, SIZE, rng())
    for value in (pairs["labels"], pairs["target"], pairs["weights"]):
        assert np.isfinite(value).all()


def test_half_bodies_are_shown_larger():
    points = np.array(rng(1).uniform((50, 25), (100, 55), (17, 2)))
    points[11:, 1] += 40
    person = replace(dotted_region(A), keypoints=points, visibility=np.full(17, 2, np.uint8))
    still = CONFIG.model_copy(update={"rotation": 0.0, "scale": 0.0, "shift": 0.0, "flip": 0.0})

    def extents(half_body: float) -> np.ndarray:
        config = still.model_copy(update={"half_body": half_body})
        batch = drawn(pose_batch, [person], COCO, config, SIZE, rng())
        # Of the arms or of the legs, whichever the crop shows.
        parts = (slice(5, 11), slice(11, 17))
        return np.array([[np.ptp(p[part, 0]) for part in parts] for p in peaks(batch["target"])])

    whole, half = extents(0.0), extents(1.0)
    np.testing.assert_allclose(whole, whole[:1].repeat(len(whole), 0), atol=0.1)
    ratio = half / whole
    assert (np.isfinite(ratio).sum(1) == 1).all()
    assert np.isfinite(ratio).any(0).all()
    assert np.nanmin(ratio) > 1.2


def test_pairs_of_two_labelled_frames_move_labels_that_both_have():
    regions = [dotted_region(A, (2, 2, 0), frame=0), dotted_region(B, (2, 0, 2), frame=9)]
    config = CONFIG.model_copy(update={"flip": 0.0, "warp_batch": 40})
    batch = drawn(pair_batch, regions, {}, SKELETON, config, SIZE, rng())
    assert batch["moves_labels"].all()
    assert_dots_are_at(batch["sources"], batch["labels"])
    assert_dots_are_at(batch["targets"], batch["target"])
    source, target = batch["labels"].max((2, 3)) > 0, batch["target"].max((2, 3)) > 0
    np.testing.assert_array_equal(batch["weights"], source & target)
    kinds = {(tuple(s), tuple(t)) for s, t in zip(source.tolist(), target.tolist(), strict=True)}
    assert len(kinds) == 4  # one frame under two framings, or the two frames either way


def test_pairs_share_the_mirror():
    regions = [dotted_region(A, frame=0), dotted_region(B, frame=9)]
    batch = drawn(pair_batch, regions, {}, SKELETON, CONFIG, SIZE, rng())
    flipped = []
    for images, maps in ((batch["sources"], batch["labels"]), (batch["targets"], batch["target"])):
        greens = np.array([find_dot(image, 1) for image in images])
        flipped.append(np.linalg.norm(peaks(maps)[:, 2] - greens, axis=1) < 1)
    np.testing.assert_array_equal(*flipped)
    assert 0 < flipped[0].mean() < 1


def test_unlabelled_sources_move_what_is_predicted_there():
    near = dotted_region(B, (0, 0, 0))
    regions = [dotted_region(A, (2, 0, 1))]
    config = CONFIG.model_copy(update={"flip": 0.0})
    batch = drawn(pair_batch, regions, {0: [near]}, SKELETON, config, SIZE, rng())
    predicted = ~batch["moves_labels"]
    assert 0 < predicted.mean() < 1
    assert (batch["labels"][predicted] == 0).all()
    assert (batch["weights"] == (1, 0, 1)).all()
    for image, moves in zip(batch["sources"], batch["moves_labels"], strict=True):
        assert np.isfinite(find_dot(image, 0)).all() == moves
    assert_dots_are_at(batch["targets"], batch["target"])


def test_one_labelled_frame_makes_pairs_with_made_up_motion():
    batch = drawn(pair_batch, [dotted_region(A)], {}, SKELETON, CONFIG, SIZE, rng())
    assert batch["moves_labels"].all()
    assert (batch["weights"] == 1).all()
    moved = np.linalg.norm(peaks(batch["labels"]) - peaks(batch["target"]), axis=-1)
    assert (moved.max(1) > 0.5).mean() > 0.8
    assert_dots_are_at(batch["sources"], batch["labels"])
    assert_dots_are_at(batch["targets"], batch["target"])


@pytest.mark.parametrize("order", [(0, 1, 0, 1), (0, 0, 1, 1)])
def test_pairs_never_mix_tracks(order):
    visible = {0: (2, 0, 0), 1: (0, 0, 2)}  # track 0 is red, track 1 blue
    regions = [dotted_region(A, visible[t], frame=n, track=t) for n, t in enumerate(order)]
    nearby = {n: [dotted_region(B, visible[t], track=t)] for n, t in enumerate(order)}
    batch = drawn(pair_batch, regions, nearby, SKELETON, CONFIG, SIZE, rng())
    for source, target in zip(batch["sources"], batch["targets"], strict=True):
        reds = [np.isfinite(find_dot(image, 0)).all() for image in (source, target)]
        assert reds[0] == reds[1]
    assert (batch["weights"].sum(1) == 1).all()
    assert 0 < batch["weights"][:, 0].mean() < 1
