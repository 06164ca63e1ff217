"""Which frames count as labelled and what is filled from them; drawn subsets and the original's files."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from posewarper.errors import ConfigError, LabelsError
from posewarper.posetrack.dataset import Dataset, DatasetVideo
from posewarper.posetrack.samples import support_numbers
from posewarper.posetrack.selection import (
    draw_frames,
    draw_videos,
    find_frames,
    find_selection,
    labelled_numbers,
    longest_run,
    propagation_plan,
    read_selection,
)
from posewarper.skeletons import POSETRACK

NAMES = tuple(f"{n:06d}_bonn_train" for n in range(40))
VIDEO = DatasetVideo("bonn/000001", "train", "000001", "bonn/000001", 1, 9, 8, (48, 64))


def test_the_longest_run_is_the_first_on_a_tie():
    assert longest_run([9, 3, 4, 5, 20, 21, 10, 11]).tolist() == [3, 4, 5]
    assert longest_run([1, 2, 2, 5, 6, 7]).tolist() == [5, 6, 7]
    assert longest_run([]).tolist() == []


def test_every_seventh_frame_and_the_last_one_if_it_is_far():
    assert labelled_numbers(range(0, 4)) == [3]
    assert labelled_numbers(range(0, 7)) == [3]  # frame 6 lies three after
    assert labelled_numbers(range(0, 8)) == [3, 7]
    assert labelled_numbers(range(0, 11)) == [3, 10]
    assert labelled_numbers(range(0, 14)) == [3, 10]


@pytest.mark.parametrize("run", [[], [4], [4, 5, 6]])
def test_a_run_that_is_too_short(run):
    with pytest.raises(LabelsError, match="too short"):
        labelled_numbers(run)


def test_a_plan_stays_within_the_run_and_takes_the_nearer():
    # 16 lies in reach of the labelled frame 14, but in another run.
    plan = propagation_plan([7, 8, 9, 10, 11, 12, 13, 14, 16])
    assert [step.number for step in plan] == [10, 7, 8, 9, 11, 12, 13, 14]
    assert {step.number: step.labelled for step in plan} == {
        **dict.fromkeys((7, 8, 9, 10, 11, 12), 10),  # 12 lies two from both: the earlier
        **dict.fromkeys((13, 14), 14),
    }
    assert [step.delta for step in plan] == [0, -3, -2, -1, 1, 2, -1, 0]


def test_support_frames_at_the_ends_and_where_files_are_missing():
    assert support_numbers(5, (-3, 0, 3), first=0, n_frames=7) == [2, 5, 6]
    assert support_numbers(5, (-3, 0, 3), first=1, n_frames=7) == [2, 5, 7]
    assert support_numbers(0, (-2, 1), first=0, n_frames=1) == [0, 0]
    # The last frame of the video is missing: not the one before it, but the frame itself.
    assert support_numbers(5, (1, 2), first=0, n_frames=7, exists=lambda n: n < 6) == [5, 5]


def dataset(tmp_path, *videos, **values):
    return Dataset(tmp_path, "posetrack17", tmp_path / "images", videos or (VIDEO,), **values)


def test_videos_are_nested_and_drawn_by_the_seed():
    drawn = [draw_videos(NAMES, count, 3) for count in (5, 12, 40)]
    assert [len(d) for d in drawn] == [5, 12, 40] and drawn[2] == NAMES
    assert set(drawn[0]) < set(drawn[1]) and list(drawn[1]) == sorted(drawn[1])
    assert draw_videos(NAMES, 12, 3) == drawn[1] != draw_videos(NAMES, 12, 4)
    # A video's chance does not hang on its place, nor on which others there are.
    assert set(draw_videos(NAMES[::-1], 12, 3)) == set(drawn[1])
    drawn = [set(draw_videos(NAMES, 10, seed)) for seed in range(200)]
    often = np.mean([[name in one for name in NAMES] for one in drawn], axis=0)
    assert often.mean() == 0.25 and often.min() > 0.1 and often.max() < 0.42
    with pytest.raises(ConfigError, match=r"at most 40[\s\S]*got: +41"):
        draw_videos(NAMES, 41, 0)


def test_frames_are_nested_and_spread():
    numbers = np.arange(35, 65)
    starts = set()
    for seed in range(30):
        drawn = [draw_frames(numbers, count, seed, "a") for count in (1, 2, 4, 7, 30, 99)]
        assert [len(d) for d in drawn] == [1, 2, 4, 7, 30, 30]
        for few, more in itertools.pairwise(drawn):
            assert set(few.tolist()) <= set(more.tolist()) <= set(numbers.tolist())
            assert (np.diff(more) > 0).all()
        # 30 frames in a ring: four of them leave no gap of 15, and are never neighbours.
        gaps = np.diff([*drawn[2], drawn[2][0] + 30])
        assert gaps.max() < 15 and gaps.min() >= 4
        starts.add(int(drawn[0][0]))
    assert len(starts) > 15 and not np.array_equal(
        draw_frames(numbers, 4, 0, "a"), draw_frames(numbers, 4, 0, "b")
    )
    assert draw_frames([7, 3], 1, 0, "a").tolist() in ([3], [7])


def test_the_original_s_file_is_found_by_its_numbers(tmp_path):
    stems = (
        "posetrack_train_N1_per_video_V1_videos",
        "posetrack_train_N5_per_video",
        "posetrack_val_consecutive",
    )
    videos = VIDEO, replace(VIDEO, name="b", file_stem="b", folder="bonn/b")
    of = dataset(tmp_path, *videos, selections={stem: tmp_path / f"{stem}.json" for stem in stems})
    assert find_selection(of, "train", 1, 1) == stems[0]
    assert find_selection(of, "train", None, 5) == find_selection(of, "train", 2, 5) == stems[1]
    for split, v, n in (("train", 1, 5), ("train", None, 1), ("train", 1, None), ("val", 1, 1)):
        assert find_selection(of, split, v, n) is None


def write_selection(path, image=None, **changes):
    points = [0.0] * 51
    points[:6], points[9:12] = [10, 20, 1, 30, 40, 2], [5, 5, 0]
    annotation = {"id": 1, "image_id": 7, "bbox": [-4, 8, 40, 30], "area": 9, "keypoints": points}
    annotation |= {"category_id": 1, **changes}
    frame = {"id": 7, "file_name": "images/bonn/000001/00000003.jpg", "height": 48, "width": 64}
    content = {"images": [frame | (image or {})], "annotations": [annotation]}
    names = {"keypoints": list(POSETRACK.names)}
    content["categories"] = [{"id": 1, "name": "person", **names}, {"id": 2, "name": "dog", **names}]
    path.write_text(json.dumps(content))
    return path


def test_a_file_of_the_original_is_read(tmp_path):
    path = write_selection(tmp_path / "few.json")
    of = dataset(tmp_path, selections={"few": path})
    for name in ("few", path):
        labels = read_selection(of, name)
        assert labels.frame_names == ("bonn/000001/00000003.jpg",)
        # Moved in, a pixel less each way, cut: x from 0 to 39, y from 8 to 37.
        np.testing.assert_array_equal(labels.boxes, [[0, 8, 39, 29]])
        np.testing.assert_array_equal(labels.keypoints[0, :2], [[10, 20], [30, 40]])
        assert np.isnan(labels.keypoints[0, 2:]).all()


@pytest.mark.parametrize(
    "changes",
    [{"iscrowd": 1}, {"area": 0}, {"category_id": 2}, {"keypoints": [0] * 51}, {"bbox": [100, 2, 9, 9]}],
)
def test_what_the_original_does_not_train_on_is_left_out(tmp_path, changes):
    labels = read_selection(dataset(tmp_path), write_selection(tmp_path / "few.json", **changes))
    assert labels.frame_names == () and labels.keypoints.shape == (0, 17, 2) and labels.boxes.shape == (0, 4)


def test_what_is_no_such_file_is_explained(tmp_path):
    of = dataset(tmp_path, selections={"few": tmp_path / "few.json"})
    with pytest.raises(LabelsError, match=r"no such selection[\s\S]*expected: few[\s\S]*got: +many"):
        read_selection(of, "many")
    write_selection(tmp_path / "few.json", {"height": "?"})
    with pytest.raises(LabelsError, match=r"few\.json: images\[0\].*height is wrong"):
        read_selection(of, "few")


def test_frames_are_found_by_regular_names_and_by_those_of_the_download(tmp_path):
    files = ("0013_crop.jpg", "0014_crop.jpg")
    odd = replace(VIDEO, name="bonn/b", file_stem="b", folder="bonn/b", n_frames=2, files=files)
    of = dataset(tmp_path, VIDEO, odd)
    base = ("00000001", "00000009", "00000010", "-0000001", "0014_crop")
    names = [f"bonn/{folder}/{stem}.jpg" for folder in ("000001", "b") for stem in base]
    found = find_frames(of, of.videos, [*names, "mpii/000001/00000001.jpg"])
    assert found == [(0, 1), (0, 9), None, None, None, (1, 1), None, None, None, (1, 2), None]
