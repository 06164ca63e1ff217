"""Pseudo-labels of one's own clips. An untrained warp head leaves labels where they are, so all is known."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from posewarper.demo.posetrack_tree import write_posetrack_tree
from posewarper.errors import ConfigError, ModelError, PosewarperWarning
from posewarper.formats.labels import read_annotations, write_labels
from posewarper.model.checkpoint import save_model
from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.options import DataSettings
from posewarper.paper.carrying import Rules
from posewarper.posetrack.preparation import prepare_dataset
from posewarper.posetrack.tables import read_tables
from posewarper.skeletons import POSETRACK, Skeleton
from posewarper.structures import Labels, Track
from posewarper.training import pseudo_labels
from posewarper.training.pseudo_labels import (
    load_warper,
    propagate_clips,
    propagate_labels,
    propagate_samples,
)
from posewarper.training.samples import samples_of_clips, samples_of_dataset
from posewarper.video.source import open_video

FLY = Skeleton(("head", "left", "right"), name="fly")
ALL = Rules(min_score=0.2, max_cycle=0.05)
POINTS = [[30.0, 20.0], [42.0, 26.0], [36.0, 50.0]]


def make_model(skeleton=FLY, trained=("pose", "warp")) -> PoseWarper:
    torch.manual_seed(0)
    spec = ModelSpec(
        "hrnet_w18_small", skeleton, (64, 64), sigma=2.0, head_width=8, head_blocks=1, head_dilations=(1,)
    )
    model = PoseWarper(spec).eval()
    for stage in trained:
        model.record(stage, 1)
    return model


@pytest.fixture(scope="module")
def model():
    return make_model()


def make_labels() -> Labels:
    first = np.array([POINTS, np.add(POINTS, 4), np.add(POINTS, 9)])
    first[1, 2] = np.nan
    second = np.array([np.add(POINTS, [40, 6])])
    tracks = {
        3: Track(np.array([0, 5, 15]), first),
        8: Track(np.array([5]), second),
    }
    return Labels(FLY, tracks, image_size=(72, 112), n_frames=16, video="clip")


def test_labels_are_carried_to_the_frames_around_them(model, moving_video):
    found = propagate_labels(model, moving_video, make_labels(), reach=3, rules=ALL)
    # 1 and 2 are nearer to 0, 3 and 4 to 5; no labelled frame is filled, and none beyond the video.
    assert found.tracks[3].frames.tolist() == [1, 2, 3, 4, 6, 7, 8, 12, 13, 14]
    assert found.tracks[8].frames.tolist() == [3, 4, 6, 7, 8]
    assert found.labelled_frames.tolist() == [] and found.skeleton is FLY
    track = found.tracks[3]
    # On whole pixels of heatmaps of which one is up to four pixels of the image wide.
    np.testing.assert_allclose(track.keypoints[0], POINTS, atol=1.5)
    np.testing.assert_allclose(track.keypoints[-1], np.add(POINTS, 9), atol=1.5)
    assert np.isnan(track.keypoints[2:7, 2]).all() and (track.visibility[2:7, 2] == 0).all()
    np.testing.assert_allclose(track.boxes[0], [28, 20, 16, 30])  # 12 wide: grown to 16
    np.testing.assert_allclose(found.tracks[8].boxes, [[68, 26, 16, 30]] * 5)
    there = track.visibility > 0
    assert (track.keypoint_scores[there] > 0.9).all() and np.isnan(track.keypoint_scores[~there]).all()


def test_a_tie_goes_to_the_earlier_and_the_reach_is_kept(model, moving_video):
    found = propagate_labels(model, moving_video, make_labels().at([0, 5]), reach=1, rules=ALL)
    assert found.tracks[3].frames.tolist() == [1, 4, 6]


def test_what_is_not_sure_is_left_out(moving_video):
    model = make_model()
    labels = make_labels()
    assert propagate_labels(model, moving_video, labels, reach=1, rules=Rules(1.01)).tracks == {}
    # A kernel that reads from the right moves labels to the left, and on rather than back.
    with torch.no_grad():
        model.warp_head.kernels[0].zero_()[:, :, 1, 2] = torch.eye(3)
    moved = propagate_labels(model, moving_video, labels, reach=1, rules=Rules(0.2))
    np.testing.assert_allclose(moved.tracks[3].keypoints[0] - POINTS, [[-2.3, 0]] * 3, atol=1.5)
    assert (moved.tracks[3].keypoints[0] - POINTS)[:, 0].mean() < -1
    assert propagate_labels(model, moving_video, labels, reach=1, rules=ALL).tracks == {}


def test_labels_outside_of_the_image_are_not_carried(model, moving_video):
    labels = make_labels().at([0])
    points = labels.tracks[3].keypoints.copy()
    points[0, 1] = [400, 30]
    strays = replace(labels, tracks={3: replace(labels.tracks[3], keypoints=points)})
    found = propagate_labels(model, moving_video, strays, reach=1, rules=ALL)
    assert np.isnan(found.tracks[3].keypoints[0, 1]).all()
    # The head and what is right of it alone make the box.
    np.testing.assert_allclose(found.tracks[3].boxes[0], [25, 20, 16, 30])


def test_other_keypoints_are_refused(moving_video):
    with pytest.raises(ModelError, match="other keypoints"):
        propagate_labels(make_model(POSETRACK), moving_video, make_labels(), reach=1, rules=ALL)


# --- files ------------------------------------------------------------------------------------------------


@pytest.fixture
def clips(tmp_path, moving_folder):
    write_labels(tmp_path / "a.json", make_labels())
    write_labels(tmp_path / "b.json", make_labels().at([15]))
    return [(moving_folder, tmp_path / "a.json"), (moving_folder, tmp_path / "b.json")]


def test_files_are_made_once(model, clips, tmp_path, monkeypatch):
    folder = tmp_path / "pseudo"
    clips[0] = clips[0][0], tmp_path / "c.json"
    write_labels(clips[0][1], make_labels().at([0]))
    files = propagate_clips(clips, model, folder, reach=2, rules=ALL)
    name = clips[0][0].name
    assert files == [folder / f"0_{name}.json", folder / f"1_{name}.json"]
    with open_video(clips[0][0]) as video:
        found = read_annotations(files[1], video=video, skeleton=FLY)
    assert found.tracks[3].frames.tolist() == [13, 14] and found.labelled_frames.tolist() == []
    written = [path.read_bytes() for path in files]  # type: ignore[union-attr]

    def refuse(*_, **__):
        raise AssertionError("it is done already")

    with monkeypatch.context() as patch:
        patch.setattr(pseudo_labels, "propagate_labels", refuse)
        assert propagate_clips(clips, model, folder, reach=2, rules=ALL) == files
    # One that is missing (the run was killed) is made again, the other kept.
    assert files[0] is not None
    files[0].unlink()
    assert propagate_clips(clips, model, folder, reach=2, rules=ALL) == files
    assert [path.read_bytes() for path in files] == written  # type: ignore[union-attr]
    # With other settings, labels or weights all are made anew.
    propagate_clips(clips, model, folder, reach=1, rules=ALL)
    assert [path.read_bytes() for path in files] != written  # type: ignore[union-attr]
    write_labels(clips[1][1], make_labels().at([0]))
    propagate_clips(clips, model, folder, reach=1, rules=ALL)
    with open_video(clips[0][0]) as video:
        found = read_annotations(folder / f"1_{name}.json", video=video, skeleton=FLY)
    assert found.tracks[3].frames.tolist() == [1]


def test_they_join_the_labels(model, clips, tmp_path):
    files = propagate_clips(clips[:1], model, tmp_path / "pseudo", reach=1, rules=ALL)
    samples = samples_of_clips(clips[:1], 1.0, pseudo_labels=files, min_score=0.2)
    pseudo = samples.take(samples.is_pseudo)
    assert sorted(pseudo.numbers.tolist()) == [1, 4, 4, 6, 6, 14]
    real = samples.take(~samples.is_pseudo)
    # Their crops are the labels', whatever is left of their keypoints.
    np.testing.assert_allclose(pseudo.centers[0], real.centers[0], atol=1e-4)
    np.testing.assert_allclose(pseudo.scales[0], real.scales[0], atol=1e-5)
    none = samples_of_clips(clips[:1], 1.0, pseudo_labels=files, min_score=1.01)
    assert not none.is_pseudo.any()


def test_a_clip_of_which_nothing_is_kept(model, clips, tmp_path):
    with pytest.warns(PosewarperWarning, match="no propagated keypoint was sure enough"):
        files = propagate_clips(clips[:1], model, tmp_path / "pseudo", reach=1, rules=Rules(1.01))
    assert files == [None]


def test_a_warper_is_needed(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.pseudo\.model"):
        load_warper(None)
    save_model(tmp_path / "model.pt", make_model(trained=["pose"]))
    with pytest.raises(ModelError, match="never trained"):
        load_warper(str(tmp_path / "model.pt"))


def test_labels_of_a_dataset(tmp_path):
    write_posetrack_tree(tmp_path / "tree", "posetrack18", n_videos=(2, 1), n_frames=8, size=(48, 64))
    dataset, _ = prepare_dataset("posetrack18", tmp_path / "tree", tmp_path / "prepared")
    samples = samples_of_dataset(dataset, DataSettings(videos=1, labelled_frames=1, subset_seed=1), 1.0)
    model = make_model(POSETRACK)
    make = {"reach": 2, "rules": ALL}
    folder = propagate_samples(dataset, "train", samples, model, tmp_path / "pseudo", **make)
    (table,) = read_tables(folder).values()
    filled = table.frame_numbers[table.is_labelled]
    distance = np.abs(filled - samples.numbers[0])
    assert len(filled) >= 2 and ((distance > 0) & (distance <= 2)).all()
    (path,) = folder.glob("*.json")
    before = path.stat().st_mtime_ns
    assert propagate_samples(dataset, "train", samples, model, tmp_path / "pseudo", **make) == folder
    assert path.stat().st_mtime_ns == before
    propagate_samples(dataset, "train", samples, model, tmp_path / "pseudo", reach=1, rules=ALL)
    assert len(json.loads(path.read_text())["images"]) and path.stat().st_mtime_ns != before
