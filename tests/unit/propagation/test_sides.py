"""Whether a network tells left from right, on a clip whose motion is known exactly."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from posewarper.heatmaps import crop_to_heatmap, encode
from posewarper.propagation import sides
from posewarper.propagation.best_path import side_odds
from posewarper.propagation.clip import prepare_clip
from posewarper.propagation.sides import learn_trust
from posewarper.propagation.stretch import Stretch
from posewarper.propagation.trust import Trust, measure_lines
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Track

NAMES = ("left_paw", "right_paw", "back", "tail")
START = np.array([[38.0, 42.0], [62.5, 30.25], [50.0, 35.0], [52.25, 37.5]])
SWAPPED = [1, 0, 2, 3]
CROP = (192, 192)


class Seer:
    """A network that shows every keypoint in its place, but now and then changes left and right."""

    def __init__(self, picture, wrong) -> None:
        self.spec = SimpleNamespace(crop_size=CROP, targets="exact", trained={"pose": 1, "warp": 0})
        self.picture, self.wrong, self.crops, self.looked = picture, wrong, None, 0

    def heatmaps(self, images) -> torch.Tensor:
        def places(frame):
            points = self.picture.keypoints(START, [frame])[0]
            return points[SWAPPED] if self.wrong(frame) else points

        frames = zip(self.crops.frames.tolist(), self.crops.transforms, strict=True)
        points = np.stack([transform.to_crop(places(frame)) for frame, transform in frames])
        self.looked += len(images)
        return torch.from_numpy(encode(crop_to_heatmap(points, 4), (48, 48), 2.0).astype(np.float32))


@pytest.fixture
def learn(picture, moving_video, monkeypatch):
    def run(wrong, skeleton=None, labelled=(0, 5, 10, 15)):
        skeleton = Skeleton(NAMES, flip_pairs=((0, 1),)) if skeleton is None else skeleton
        track = Track(np.array(labelled), picture.keypoints(START, labelled))
        clip = prepare_clip(moving_video, Labels(skeleton, {0: track}))
        seer = Seer(picture, wrong)
        cut = Stretch.crops.func

        def shown(self):
            seer.crops = cut(self)
            return seer.crops

        monkeypatch.setattr(Stretch, "crops", property(shown))
        # On labelled frames it is right in any case; what it is trusted else is not asked.
        otherwise = Trust(1.0, np.ones(4), {0: measure_lines(track)})
        monkeypatch.setattr(sides, "measure_trust", lambda clip, network: otherwise)
        return learn_trust(clip, seer).mirrored, seer

    return run


def test_a_network_that_agrees_with_motion_is_heard(learn) -> None:
    mirrored, seer = learn(lambda frame: False)
    assert_allclose(mirrored, 0.9)
    assert seer.looked == 18  # both ends of three stretches


def test_one_that_changes_sides_on_every_third_frame_is_not(learn) -> None:
    assert learn(lambda frame: frame % 3 == 1)[0] == 1.0


def test_labelled_frames_have_no_say(learn) -> None:
    """It is right there, since it was told."""
    assert learn(lambda frame: frame % 5 != 0)[0] == 1.0


def test_without_sides_nothing_is_looked_at(learn) -> None:
    mirrored, seer = learn(lambda frame: False, Skeleton(("nose", "neck", "back", "tail")))
    assert (mirrored, seer.looked) == (1.0, 0)


def test_a_few_stretches_are_enough(learn, monkeypatch) -> None:
    monkeypatch.setattr(sides, "_FRAMES", 8)
    mirrored, seer = learn(lambda frame: False)
    assert_allclose(mirrored, 0.9)
    assert seer.looked == 6


def test_odds_are_of_one_side_where_it_alone_is_seen_and_none_where_both_are() -> None:
    points = np.array([[[[10.0, 10]], [[40.0, 10]], [[70.0, 10]]]])
    seen = SimpleNamespace(points=points, heights=np.ones((1, 3, 1)))
    evidence = SimpleNamespace(seen=seen, size=np.array([100.0]))
    right_way = side_odds(evidence, points[:, :, 0], [1, 0, 2])
    assert (right_way[0, :2] > 1).all() and right_way[0, 2] == 0
    assert_allclose(side_odds(evidence, points[:, [1, 0, 2], 0], [1, 0, 2]), -right_way)
    between = np.array([[[25.0, 10], [25.0, 10], [70.0, 10]]])
    assert (side_odds(evidence, between, [1, 0, 2]) == 0).all()
