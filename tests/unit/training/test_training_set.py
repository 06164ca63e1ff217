"""Items: the paper's samples, decided by their key alone, both frames of a pair under one transform."""

from __future__ import annotations

import itertools
import os
import pickle
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from posewarper.crops import crop_image, flip_keypoints, normalise
from posewarper.errors import ConfigError
from posewarper.geometry import crop_transform, paper_crop_transform
from posewarper.heatmaps import decode, heatmap_to_crop, paper_encode
from posewarper.options import AugmentationSettings
from posewarper.skeletons import POSETRACK
from posewarper.training.batches import BatchLoader, EpochSampler, TrainingSet, images_to_tensor
from posewarper.training.random_crops import draw_framing, sample_generator
from posewarper.training.samples import FrameReader, TrainingSamples, VideoFrames
from posewarper.video.images import read_image
from posewarper.video.source import open_video
from posewarper.video.writing import write_video

SIZES = {"crop_size": (64, 48), "sigma": 1.0}
STILL = AugmentationSettings(scale=0, rotation=0, flipped=0, half_body=0)
N_FRAMES = 9


@pytest.fixture(scope="module")
def frames(tmp_path_factory, picture):
    """A dataset's video: frames 3 to 11 of which 6 is missing."""
    folder = tmp_path_factory.mktemp("video")
    files = tuple(f"{n + 3:06d}.png" for n in range(N_FRAMES))
    for n, name in enumerate(files):
        image = picture.image(n)
        image[..., 0] = 20 * n  # each frame is told by its red
        assert cv2.imwrite(str(folder / name), image[..., ::-1])
    (folder / files[3]).unlink()
    return VideoFrames(str(folder), 3, N_FRAMES, files, frozenset({6}))


def make_samples(video, n=8, skeleton=POSETRACK):
    rng = np.random.default_rng(1)
    keypoints = rng.uniform([20, 10], [90, 65], (n, len(skeleton), 2))
    keypoints[:, 3:5] = np.nan
    numbers = np.resize([number for number in range(3, 12) if number != 6], n)
    centers = np.full((n, 2), [55, 36], np.float32)
    scales = np.full((n, 2), [0.3, 0.4], np.float32)
    zeros = np.zeros(n, np.int64)
    return TrainingSamples((video,), zeros, numbers, keypoints, centers, scales, zeros > 0, skeleton)


def make_set(frames, augmentation=None, pairs=True, seed=3, samples=None, **options):
    samples = samples or make_samples(frames)
    augmentation = augmentation or AugmentationSettings()
    return TrainingSet(samples, augmentation=augmentation, pairs=pairs, seed=seed, **(SIZES | options))


def equal(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("index", range(8))
def test_an_item_is_the_paper_s_sample(frames, index):
    samples = make_samples(frames)
    item = make_set(frames)[2, index]
    rng = sample_generator(3, 2, index)
    row = samples.keypoints[index], samples.centers[index], samples.scales[index]
    framing = draw_framing(*row, 0.75, 112, AugmentationSettings(), rng)
    number = int(samples.numbers[index])
    other = min(max(number + framing.offset, 3), 11)
    other = number if other == 6 else other
    images = [read_image(f"{frames.path}/{n:06d}.png") for n in (number, other)]
    # The mirroring first, then one transform for both crops and the keypoints.
    points = samples.keypoints[index]
    visible = np.isfinite(points[:, 0])
    if framing.flip:
        images = [np.ascontiguousarray(image[:, ::-1]) for image in images]
        points, visible = flip_keypoints(points, visible, POSETRACK, 112)
    transform = paper_crop_transform(framing.center, framing.scale, framing.rotation, (48, 64))
    np.testing.assert_array_equal(item["images"], [crop_image(image, transform) for image in images])
    target, weights = paper_encode(transform.to_crop(points), visible, (48, 64), (12, 16), 1)
    np.testing.assert_array_equal(item["target"].numpy(), target)
    np.testing.assert_array_equal(item["weights"].numpy(), weights[:, 0])
    assert item["images"].dtype == torch.uint8 and item["images"].shape == (2, 64, 48, 3)
    assert item["target"].dtype == item["weights"].dtype == torch.float32 and item["index"] == index


def test_a_pose_item_is_the_first_frame_of_the_pair(frames):
    pair, single = make_set(frames)[1, 5], make_set(frames, pairs=False)[1, 5]
    assert single["images"].shape == (1, 64, 48, 3)
    assert equal({**pair, "images": pair["images"][:1]}, single)


def test_key_and_seed_alone_decide(frames):
    items = make_set(frames)
    first = items[0, 4]
    for key in ((1, 4), (0, 3)):
        assert not torch.equal(items[key]["images"], first["images"])
    assert not torch.equal(make_set(frames, seed=4)[0, 4]["images"], first["images"])
    assert equal(items[0, 4], first) and equal(pickle.loads(pickle.dumps(items))[0, 4], first)


def test_frames_of_a_pair_share_the_transform(frames, tmp_path, picture):
    files = tuple(f"{n + 3:06d}.png" for n in range(N_FRAMES))
    for name in files:  # nothing moves
        assert cv2.imwrite(str(tmp_path / name), picture.image(0))
    still = replace(frames, path=str(tmp_path), missing=frozenset())
    items, seen = make_set(still), []
    for index in range(8):
        images = items[7, index]["images"].numpy()
        np.testing.assert_array_equal(images[0], images[1])
        seen.append(images[0])
    assert not any(np.array_equal(a, b) for a, b in itertools.pairwise(seen))


def test_neighbours_lie_within_reach_and_follow_the_original_s_rules(frames):
    samples = make_samples(frames, n=3)
    samples = replace(samples, numbers=np.array([3, 5, 11]))
    items = make_set(frames, STILL, samples=samples)
    seen = [set(), set(), set()]
    for epoch in range(60):
        for index in range(3):
            images = items[epoch, index]["images"][:, 32, 24, 0]
            own, other = (3 + int(red) // 20 for red in images)
            assert own == samples.numbers[index]
            seen[index].add(other)
    # 1 and 2 are 3; 6 is missing, so that 5 stands in; 12 and 13 are 11.
    assert seen == [{3, 4, 5}, {3, 4, 5, 7}, {9, 10, 11}]
    no_reach = make_set(frames, STILL.model_copy(update={"reach": 0}), samples=samples)[0, 1]["images"]
    assert torch.equal(no_reach[0], no_reach[1])


def test_exact_targets_lie_at_the_keypoints(frames):
    samples = make_samples(frames)
    items = make_set(frames, STILL, pairs=False, targets="exact", sigma=1.5)
    item = items[0, 2]
    transform = crop_transform((*(55 - 30, 36 - 40), 60, 80), (64, 48))
    points, _ = decode(item["target"].numpy())
    wanted = transform.to_crop(samples.keypoints[2])
    inside = ((wanted > 4) & (wanted < (44, 60))).all(1)
    assert inside.sum() > 5
    np.testing.assert_allclose(heatmap_to_crop(points, 4)[inside], wanted[inside], atol=0.05)
    assert item["weights"][3:5].tolist() == [0, 0] and item["weights"][np.flatnonzero(inside)].all()
    with pytest.raises(ConfigError, match=r"whole heatmap pixels[\s\S]*got: +1\.5"):
        make_set(frames, sigma=1.5)


@pytest.mark.parametrize("world", [1, 2])
def test_workers_and_processes_make_the_same_items(frames, world):
    alone = make_set(frames)
    expected = {index: alone[6, index] for index in range(8)}
    shown = []
    for rank in range(world):
        sampler = EpochSampler(8, 4, rank=rank, world=world, seed=0)
        loader = BatchLoader(make_set(frames), sampler, workers=2)
        for epoch in (5, 6):  # the workers live on
            sampler.set_epoch(epoch)
            batches = list(loader)
        for batch in batches:
            assert batch["images"].shape == (4 // world, 2, 64, 48, 3)
            for n, index in enumerate(batch["index"].tolist()):
                assert equal({name: values[n] for name, values in batch.items()}, expected[index])
                shown.append(index)
    assert sorted(shown) == list(range(8))


def test_frames_of_a_video_are_read_in_each_process(moving_folder, monkeypatch):
    videos = [VideoFrames(str(moving_folder), 0, 16)] * 12
    reader = FrameReader(videos, cache_bytes=3 * 72 * 112 * 3)
    with open_video(moving_folder) as video:
        for v, number in ((0, 5), (11, 5), (0, 6), (3, 15), (0, 5)):
            np.testing.assert_array_equal(reader.read(v, number), video[number])
    for v in range(12):
        reader.read(v, 1)
    assert len(reader._opened) == 8 and reader._cache.n_bytes <= 3 * 72 * 112 * 3
    assert len(pickle.dumps(reader)) < 2000
    # As after a fork: nothing of the parent's is used on.
    monkeypatch.setattr(os, "getpid", lambda: -1)
    before = set(map(id, reader._opened.values()))
    assert np.array_equal(reader.read(11, 3), pickle.loads(pickle.dumps(reader)).read(11, 3))
    assert len(reader._opened) == 1 and not before & set(map(id, reader._opened.values()))


def test_workers_do_not_wait_for_threads_of_the_parent(frames, tmp_path, picture):
    """A fork has the parent's decoders and OpenCV's pool, but not their threads."""
    write_video(tmp_path / "clip.mp4", (picture.image(n % 16) for n in range(40)), fps=25)
    video = VideoFrames(str(tmp_path / "clip.mp4"), 0, 40)
    items = make_set(video)
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(4)
        for _ in range(3):  # so that the pool has its threads
            cv2.warpAffine(np.ones((1000, 1000, 3), np.float32), np.eye(2, 3), (900, 900))
        expected = [items[0, index] for index in range(8)]
        cycle: list[object] = [open_video(tmp_path / "clip.mp4")]
        cycle.append(cycle)
        del cycle  # from now on garbage that a collector will close some day
        sampler = EpochSampler(8, 8, rank=0, world=1, seed=0)
        loader = BatchLoader(items, sampler, workers=1, timeout=30)
        batch = next(iter(loader))
    finally:
        cv2.setNumThreads(threads)
    for n, index in enumerate(batch["index"].tolist()):
        assert equal({name: values[n] for name, values in batch.items()}, expected[index])


def test_normalising_on_the_device_is_the_same():
    images = torch.randint(0, 256, (3, 2, 8, 6, 3), dtype=torch.uint8)
    mean, std = (0.485, 0.4, 0.1), (0.2, 0.25, 0.3)
    tensor = images_to_tensor(images, mean, std)
    assert tensor.shape == (3, 2, 3, 8, 6)
    expected = normalise(images.flatten(0, 1).numpy(), mean, std)
    np.testing.assert_array_equal(tensor.flatten(0, 1).numpy(), expected)
    assert tensor.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
