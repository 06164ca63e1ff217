"""Which samples there are: of a prepared dataset with its subsets and pseudo-labels, and of own clips."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from posewarper.demo.posetrack_tree import write_posetrack_tree
from posewarper.errors import ConfigError, LabelsError, PosewarperWarning
from posewarper.formats.labels import write_labels
from posewarper.formats.records import LabelFile
from posewarper.geometry import paper_center_scale
from posewarper.options import DataSettings
from posewarper.posetrack.dataset import open_dataset
from posewarper.posetrack.posetrack18 import posetrack18_document, write_posetrack18
from posewarper.posetrack.preparation import prepare_dataset
from posewarper.posetrack.samples import samples_from_labels
from posewarper.skeletons import POSETRACK, Skeleton
from posewarper.structures import Labels, Track
from posewarper.training import samples as samples_module
from posewarper.training.samples import samples_of_clips

RATIO = 0.75


def samples_of_dataset(dataset, split, aspect_ratio, **data):
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in data.items()}
    return samples_module.samples_of_dataset(dataset, DataSettings(split=split, **settings), aspect_ratio)


@pytest.fixture(scope="module", params=["posetrack17", "posetrack18"])
def dataset(tmp_path_factory, request):
    top = tmp_path_factory.mktemp("samples")
    write_posetrack_tree(
        top / "d", request.param, n_videos=(3, 1), n_frames=15, size=(48, 64), n_people=(2, 2)
    )
    prepare_dataset(request.param, top / "d", top / "out")
    return open_dataset(top / "out")


def n_frames(samples):
    """Return the number of frames in which there is a sample that is not propagated."""
    real = samples.take(~samples.is_pseudo)
    return len(set(zip(real.video_of.tolist(), real.numbers.tolist(), strict=True)))


def frames_of(samples):
    """Frames as (folder, number); videos that have no samples are not kept."""
    assert set(samples.video_of.tolist()) == set(range(len(samples.videos)))
    return [(samples.videos[v].path, int(n)) for v, n in zip(samples.video_of, samples.numbers, strict=True)]


def test_all_labels_of_a_split(dataset):
    samples = samples_of_dataset(dataset, "train", RATIO)
    tables = [dataset.table(video) for video in dataset.of_split("train")]
    expected = [samples_from_labels(replace(t, image_size=(48, 64)), RATIO) for t in tables]
    np.testing.assert_array_equal(samples.centers, np.concatenate([e.centers for e in expected]))
    np.testing.assert_array_equal(samples.scales, np.concatenate([e.scales for e in expected]))
    keypoints = [t.keypoints[e.instances] for t, e in zip(tables, expected, strict=True)]
    np.testing.assert_array_equal(samples.keypoints, np.concatenate(keypoints))
    numbers = [t.frame_numbers[e.rows] for t, e in zip(tables, expected, strict=True)]
    np.testing.assert_array_equal(samples.numbers, np.concatenate(numbers))
    assert samples.skeleton == POSETRACK and not samples.is_pseudo.any() and n_frames(samples) > 9
    video, first = samples.videos[1], dataset.of_split("train")[1]
    assert (video.first, video.n_frames) == (first.first, 15)
    assert f"{video.path}/{video.files[4]}" == str(dataset.frame_path(first, first.first + 4))
    assert len(pickle.dumps(samples)) < 50_000
    with pytest.raises(LabelsError, match=r"no videos of the split 'test'[\s\S]*train, val"):
        samples_of_dataset(dataset, "test", RATIO)


def test_subsets_are_nested(dataset):
    every = set(frames_of(samples_of_dataset(dataset, "train", RATIO)))
    sizes = {}
    for v, n in ((1, 1), (2, 1), (2, 2), (None, 2), (2, None)):
        samples = samples_of_dataset(dataset, "train", RATIO, videos=v, labelled_frames=n, subset_seed=4)
        frames = set(frames_of(samples))
        assert frames < every and n_frames(samples) == len(frames)
        assert len(samples.videos) == (v or 3)
        if n is not None:
            assert len(frames) == n * (v or 3)
        sizes[v, n] = frames
    assert sizes[1, 1] < sizes[2, 1] < sizes[2, 2] < sizes[None, 2] and sizes[2, 2] < sizes[2, None]
    # All people of a frame that was drawn are there.
    samples = samples_of_dataset(dataset, "train", RATIO, videos=1, labelled_frames=1, subset_seed=4)
    assert len(samples) == len(
        [f for f in frames_of(samples_of_dataset(dataset, "train", RATIO)) if f in sizes[1, 1]]
    )


def selection_of(dataset, path, rows=((0, 5), (2, 6))):
    """Write a file like the original's of everybody in some rows of some training videos."""
    document = {"images": [], "annotations": [], "categories": [{"id": 1}]}
    for v, row in rows:
        video = dataset.of_split("train")[v]
        table = replace(dataset.table(video), image_size=(48, 64))
        one = posetrack18_document(table.of_frame(row))
        image = {**one["images"][row], "id": 100 * v + row}
        image["file_name"] = video.frame_name(int(table.frame_numbers[row]))
        document["images"].append(image)
        for n, annotation in enumerate(one["annotations"]):
            number = 1000 * v + 10 * row + n
            annotation |= {"id": number, "image_id": image["id"], "bbox": [3, 4, 30, 40], "area": 1}
            document["annotations"].append(annotation)
    path.write_text(json.dumps(document))
    return document


def test_a_selection_says_which_frames(dataset, tmp_path):
    path = tmp_path / "posetrack_train_N1_per_video_V2_videos.json"
    document = selection_of(dataset, path)
    known = replace(dataset, selections={path.stem: path})
    samples = samples_of_dataset(known, "train", RATIO, selection=path.stem)
    assert len(samples) == len(document["annotations"]) and n_frames(samples) == 2
    videos = dataset.of_split("train")
    assert set(frames_of(samples)) == {
        (str(dataset.images / videos[v].folder), videos[v].first + row) for v, row in ((0, 5), (2, 6))
    }
    centers, scales = paper_center_scale([[3, 4, 29, 39]], RATIO)
    np.testing.assert_array_equal(samples.centers, np.repeat(centers, len(samples), 0))
    np.testing.assert_array_equal(samples.scales, np.repeat(scales, len(samples), 0))
    # By its numbers with seed 0, and only then.
    same = samples_of_dataset(known, "train", RATIO, videos=2, labelled_frames=1)
    np.testing.assert_array_equal(same.keypoints, samples.keypoints)
    other = samples_of_dataset(known, "train", RATIO, videos=2, labelled_frames=1, subset_seed=1)
    assert len(other.videos) == n_frames(other) == 2
    assert not np.array_equal(other.keypoints, samples.keypoints)
    with pytest.raises(ConfigError, match="says already"):
        samples_of_dataset(known, "train", RATIO, selection=path.stem, videos=2)
    document["images"][0]["file_name"] = "mpii/9/00000001.jpg"
    path.write_text(json.dumps(document))
    with pytest.warns(PosewarperWarning, match=r"labels are on frames.*mpii/9"):
        assert n_frames(samples_of_dataset(known, "train", RATIO, selection=path)) == 1
    with pytest.raises(LabelsError, match=r"none of these labels is on a frame of val"):
        samples_of_dataset(known, "val", RATIO, selection=path)


def test_propagated_poses_join_where_there_is_no_label(dataset, tmp_path):
    video = dataset.of_split("train")[1]
    table = replace(dataset.table(video), image_size=(48, 64))
    seed = 2
    few = samples_of_dataset(dataset, "train", RATIO, labelled_frames=1, subset_seed=seed)
    own = int(np.flatnonzero([str(dataset.images / video.folder) == v.path for v in few.videos])[0])
    labelled = int(few.numbers[few.video_of == own][0])
    row = int(np.flatnonzero(table.frame_numbers == labelled)[0])
    other = int(table.rows[table.rows != row][0])
    people = table.take(np.isin(table.rows, [row, other]))
    scores = np.where(np.arange(17) % 2, 0.9, 0.2) * np.ones((people.n_instances, 1))
    write_posetrack18(tmp_path / "poses" / "any.json", replace(people, keypoint_scores=scores))
    both = samples_of_dataset(
        dataset, "train", RATIO, labelled_frames=1, subset_seed=seed, pseudo_labels=tmp_path / "poses"
    )
    new = both.take(both.is_pseudo)
    np.testing.assert_array_equal(both.take(~both.is_pseudo).keypoints, few.keypoints)
    assert n_frames(both) == n_frames(few) and len(new) == np.sum(people.rows == other) > 0
    assert set(new.numbers) == {table.frame_numbers[other]} and set(new.video_of) == {own}
    # What scores no more than 0.2 is no label.
    true = people.keypoints[people.rows == other]
    np.testing.assert_allclose(new.keypoints[:, 1::2], true[:, 1::2], atol=1e-3)
    assert np.isnan(new.keypoints[:, ::2]).all()
    with pytest.raises(LabelsError, match="none of these labels is on a frame of val"):
        samples_of_dataset(dataset, "val", RATIO, pseudo_labels=tmp_path / "poses")


def test_labels_on_missing_frames_are_left_out(dataset):
    video = dataset.of_split("train")[0]
    every = samples_of_dataset(dataset, "train", RATIO)
    gone = int(every.numbers[0])
    shown = tuple(replace(v, missing=frozenset({gone})) if v is video else v for v in dataset.videos)
    lacking = replace(dataset, videos=shown)
    with pytest.warns(PosewarperWarning, match="frames are missing"):
        samples = samples_of_dataset(lacking, "train", RATIO)
    assert len(samples) == len(every) - np.sum((every.video_of == 0) & (every.numbers == gone))
    frames = samples.videos[0]
    assert [frames.neighbour(gone + 1, offset) for offset in (-1, 1)] == [gone + 1, gone + 2]
    assert frames.neighbour(frames.first, -2) == frames.first
    assert frames.neighbour(frames.first + 14, 2) == frames.first + 14


FLY = Skeleton(("head", "left_wing", "right_wing"), name="fly")


def write_clip(path, skeleton=FLY, frames=(2, 9), shift=0.0, labelled=None, scores=None):
    points = np.array([[[20, 30], [40, 50], [24, 36]], [[30, 40], [60, 44], [np.nan] * 2]]) + shift
    visibility = np.where(np.isfinite(points).all(-1), 2, 0)
    track = Track(frames, points, visibility=visibility, keypoint_scores=scores)
    labels = Labels(skeleton, {0: track}, labelled, image_size=(72, 112), n_frames=16)
    write_labels(path, labels)
    return path


def test_clips_of_one_s_own(moving_folder, tmp_path):
    paths = [write_clip(tmp_path / "a.json"), write_clip(tmp_path / "b.json", frames=(0, 5), shift=3)]
    clips = [(moving_folder, LabelFile(path, unlabelled="absent")) for path in paths]
    samples = samples_of_clips(clips, RATIO)
    assert samples.video_of.tolist() == [0, 0, 1, 1] and samples.numbers.tolist() == [2, 9, 0, 5]
    assert samples.skeleton.names == FLY.names and samples.skeleton.flip_pairs == ((1, 2),)
    assert [video.path for video in samples.videos] == [str(moving_folder)] * 2
    assert samples.videos[0].n_frames == 16 and samples.videos[0].first == 0
    # x 20 to 40, y 30 to 50; then 30 across and 4 down, which is grown to 16.
    centers, scales = paper_center_scale([[20, 30, 20, 20], [30, 34, 30, 16]], RATIO)
    np.testing.assert_array_equal(samples.centers, np.concatenate([centers, centers + 3]))
    np.testing.assert_array_equal(samples.scales, np.concatenate([scales, scales]))
    assert np.isnan(samples.keypoints[1, 2]).all()
    np.testing.assert_array_equal(samples.keypoints[2, 1], [43, 53])


def test_a_keypoint_that_nobody_has_looked_at_is_in_the_crop_but_is_not_learned(moving_folder, tmp_path):
    path = write_clip(tmp_path / "a.json")
    partial, absent = (
        samples_of_clips([(moving_folder, LabelFile(path, unlabelled=kind))], RATIO)
        for kind in ("unknown", "absent")
    )
    np.testing.assert_array_equal(partial.keypoints, absent.keypoints)
    assert np.isnan(partial.keypoints[1, 2]).all()
    # The right wing is 4 right of the head and 6 below: the box ends there, not at a least size.
    assert partial.scales[1, 1] == absent.scales[1, 1] and partial.centers[1, 1] < absent.centers[1, 1]


def test_propagated_poses_of_a_clip_join(moving_folder, tmp_path):
    scores = [[0.9, 0.1, 0.5], [0.1, 0.9, 0]]
    poses = write_clip(tmp_path / "poses.json", frames=(2, 7), labelled=[2], scores=scores)
    clips = [(moving_folder, write_clip(tmp_path / "a.json"))]
    samples = samples_of_clips(clips, RATIO, pseudo_labels=[poses])
    assert samples.numbers.tolist() == [2, 9, 7] and samples.is_pseudo.tolist() == [False, False, True]
    np.testing.assert_array_equal(samples.keypoints[2], [[np.nan] * 2, [60, 44], [np.nan] * 2])


def test_clips_of_two_skeletons_are_refused(moving_folder, tmp_path):
    bee = Skeleton(("head", "tail", "sting"))
    clips = [
        (moving_folder, write_clip(tmp_path / "a.json")),
        (moving_folder, write_clip(tmp_path / "b.json", skeleton=bee)),
    ]
    with pytest.raises(LabelsError, match=r"b\.json[\s\S]*left_wing[\s\S]*sting"):
        samples_of_clips(clips, RATIO)
    with pytest.raises(LabelsError, match="no videos"):
        samples_of_clips([], RATIO)
