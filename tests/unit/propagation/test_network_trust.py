"""How far the pose network is trusted: networks that show each keypoint where the test puts it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from posewarper.geometry import BOX_PADDING
from posewarper.heatmaps import crop_to_heatmap, encode
from posewarper.propagation import trust
from posewarper.propagation.trust import measure_network_trust
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Track
from posewarper.video.track_crops import instance_boxes

NAMES, SIDE, N = ("left_paw", "right_paw", "tail"), 100.0, 12
SKELETON = Skeleton(NAMES)
CROP_SIZE = (192, 192)


class FlatVideo:
    """Frames of one colour, and which of them were asked for."""

    image_size = (200, 200)

    def __init__(self) -> None:
        self.asked = []

    def frames(self, indices):
        for n in indices:
            self.asked.append(n)
            yield n, np.zeros((*self.image_size, 3), np.uint8)


@pytest.fixture
def trust_in(monkeypatch):
    """Measure the trust in a network whose peaks are ``off`` percent of the size right of the labels."""

    def measure(off=(0, 0, 0), *, shown=(0, 1, 2), also=0.0, height=1.0, visibility=2, n=N):
        frames = np.arange(n) * 5
        points = np.random.default_rng(0).uniform(60, 140, (n, 3, 2))
        visible = np.broadcast_to(visibility, (n, 3)).copy()
        boxes = np.tile([50.0, 50, SIDE, SIDE], (n, 1))
        labels = Labels(SKELETON, {0: Track(frames, points, visibility=visible, boxes=boxes)})
        video = FlatVideo()
        padded = instance_boxes(points, boxes)
        centre, side = padded[:, :2] + padded[:, 2:] / 2, padded[:, 2:].max(1) * BOX_PADDING
        padded = np.concatenate([centre - side[:, None] / 2, side[:, None], side[:, None]], 1)
        clip = SimpleNamespace(labels=labels, frames={0: frames}, video=video)
        clip.boxes = lambda i, wanted, aspect: padded[np.searchsorted(frames, wanted)]

        def see(images) -> torch.Tensor:
            rows = np.searchsorted(frames, video.asked[-len(images) :])
            moved = points + np.stack([off, np.zeros(3)], 1) * side[:, None, None] / BOX_PADDING / 100
            share = (moved - padded[:, None, :2])[rows] / side[rows, None, None]
            maps = height * encode(crop_to_heatmap(share * 192 - 0.5, 4), (48, 48), 2.0)
            seen = np.maximum(maps[:, list(shown)], also * maps)
            return torch.from_numpy(seen.astype(np.float32))

        network = SimpleNamespace(
            spec=SimpleNamespace(crop_size=CROP_SIZE, skeleton=SKELETON, targets="exact"), heatmaps=see
        )
        return measure_network_trust(clip, network), video

    return measure


def test_a_network_that_shows_every_label_is_trusted_as_usual_and_no_more(trust_in):
    assert_allclose(trust_in()[0], 1, atol=0.001)
    assert_allclose(trust_in(off=(1, 1.5, 2))[0], 1, atol=0.05)


def test_the_further_it_is_off_the_less_it_is_trusted_keypoint_by_keypoint(trust_in):
    trust, _ = trust_in(off=(5, 0, 0), visibility=[2, 0, 2])
    assert_allclose(trust, [0.5, 1, 1], atol=0.06)
    trusts = [trust_in(off=(0, 0, x))[0][2] for x in (0.0, 0.8, 2.0, 4.0, 6.0, 10.0)]
    assert trusts == sorted(trusts, reverse=True) and trusts[-1] < 0.1


def test_left_and_right_that_change_places_do_not_count(trust_in):
    assert_allclose(trust_in(shown=(1, 0, 2))[0], 1, atol=0.02)


def test_second_peaks_count_where_they_are_high(trust_in):
    # Both paws' heatmaps show the left one; the right one's has a second peak where it should be.
    assert_allclose(trust_in(shown=(0, 0, 2), also=0.8)[0], 1, atol=0.02)
    low = trust_in(shown=(0, 0, 2), also=0.3)[0]
    assert low[0] > 0.99 and low[1] < 0.2


def test_no_peak_at_all_is_a_miss(trust_in):
    assert_allclose(trust_in(height=0.0)[0], 1 / (1 + 4**4), rtol=1e-6)


def test_hidden_labels_are_guesses_and_not_compared(trust_in):
    assert_allclose(trust_in(off=(20, 20, 20), visibility=1)[0], 1)


def test_a_track_without_labels_says_nothing(trust_in):
    assert_allclose(trust_in(n=0)[0], 1)


def test_of_many_labels_some_are_looked_at(trust_in):
    _, video = trust_in(n=500)
    assert len(video.asked) == trust._MOST_FRAMES and video.asked[0] == 0 and video.asked[-1] == 499 * 5
