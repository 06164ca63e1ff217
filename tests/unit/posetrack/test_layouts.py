from __future__ import annotations

from pathlib import Path

import pytest

from posewarper.errors import LabelsError
from posewarper.posetrack.layouts import find_images, find_layout


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    return folder


def found(layout) -> dict[str, list[str]]:
    return {labels.split: [file.name for file in labels.files] for labels in layout.labels}


@pytest.mark.parametrize(
    "top", ["annotations", "posetrack_data/annotations", "posetrack_data", "deep/er", ""]
)
def test_label_folders_are_found_wherever_they_are(tmp_path, top):
    touch(tmp_path / top, "train/b.json", "train/a.json", "val/c.json")
    touch(tmp_path, "images/train/a/000000.jpg", "readme.txt")
    layout = find_layout("posetrack18", tmp_path)
    assert found(layout) == {"train": ["a.json", "b.json"], "val": ["c.json"]}
    assert layout.name == "official" and layout.labels[0].combined is None


def test_json_comes_before_mat_of_the_same_video(tmp_path):
    touch(tmp_path, "annotations/val/a.mat", "annotations/val/b.mat", "annotations/val/b.json")
    assert found(find_layout("posetrack17", tmp_path)) == {"val": ["a.mat", "b.json"]}


def test_other_tasks_results_and_prepared_datasets_are_passed_over(tmp_path):
    touch(tmp_path, "posetrack_data/val/a.json", "posetrack_mot/val/m.json", "a_run/val/r.json")
    touch(tmp_path, "a_dataset/dataset.json", "a_dataset/annotations/val/d.json")
    touch(tmp_path, "b_dataset/request.json", "b_dataset/annotations/val/e.json")
    assert found(find_layout("posetrack21", tmp_path)) == {"val": ["a.json"]}


def test_one_file_with_all_videos(tmp_path):
    touch(tmp_path, "annotations/posetrack18_train.json", "annotations/posetrack18_val.json")
    touch(tmp_path, "annotations/val/a.json")
    layout = find_layout("posetrack18", tmp_path)
    assert found(layout) == {"train": [], "val": ["a.json"]}
    # Where there is a file a video, the one of all is not needed.
    assert [labels.combined and labels.combined.name for labels in layout.labels] == [
        "posetrack18_train.json",
        None,
    ]


def test_what_came_with_the_original(tmp_path):
    stems = ("train", "val", "val_consecutive", "train_N1_per_video_V50_videos")
    touch(tmp_path, *(f"posetrack17_json_files/posetrack_{stem}.json" for stem in stems))
    dirs = "posetrack17_annotation_dirs"
    touch(tmp_path, f"{dirs}/val_withJson/val/a.json", f"{dirs}/val_withJson_consecutive/val/c.json")
    touch(tmp_path, "posetrack17_precomputed_boxes/val_boxes.json")
    touch(tmp_path, "posetrack18_json_files/posetrack_val.json", "posetrack18_annotation_dirs/val/x.json")
    layout = find_layout("posetrack17", tmp_path)
    assert layout.name == "original"
    assert found(layout) == {"train": [], "val": ["a.json"]}
    assert all(labels.combined is not None for labels in layout.labels)
    assert set(layout.selections) == {"posetrack_val_consecutive", "posetrack_train_N1_per_video_V50_videos"}
    assert layout.box_files == {"val": tmp_path / "posetrack17_precomputed_boxes" / "val_boxes.json"}
    assert found(find_layout("posetrack18", tmp_path)) == {"val": ["x.json"]}


def test_some_splits_alone(tmp_path):
    touch(tmp_path, "annotations/train/a.json", "annotations/val/b.json")
    assert found(find_layout("posetrack18", tmp_path, ["val"])) == {"val": ["b.json"]}
    with pytest.raises(LabelsError, match=r"unknown split[\s\S]*validation"):
        find_layout("posetrack18", tmp_path, ["validation"])
    with pytest.raises(LabelsError, match=r"no labels of posetrack18 were found \(test\)"):
        find_layout("posetrack18", tmp_path, ["test"])


def test_wrong_folders_are_explained(tmp_path):
    with pytest.raises(LabelsError, match="no such folder"):
        find_layout("posetrack18", tmp_path / "absent")
    touch(tmp_path, "a.zip", "photos/x.jpg")
    with pytest.raises(LabelsError, match=r"is no folder[\s\S]*unpacked"):
        find_layout("posetrack18", tmp_path / "a.zip")
    with pytest.raises(LabelsError, match=r"annotations/val/[\s\S]*a.zip, photos/"):
        find_layout("posetrack18", tmp_path)
    touch(tmp_path, "dataset.json")
    with pytest.raises(LabelsError, match="prepared already"):
        find_layout("posetrack18", tmp_path)


@pytest.mark.parametrize(
    "place", ["", "images", "images_renamed", "posetrack_data/images", "frames", "x/images"]
)
def test_frames_are_found_by_the_folders_that_labels_name(tmp_path, place):
    touch(tmp_path / place, "val/a/000000.jpg", "val/b/000000.jpg")
    touch(tmp_path, "aaa/val/a/000000.jpg")  # fewer of them
    assert find_images(tmp_path, ["val/a", "val/b", "val/c"]) == tmp_path / place


def test_frames_elsewhere(tmp_path):
    touch(tmp_path, "here/annotations/val/a.json", "there/images/val/a/000000.jpg")
    with pytest.raises(LabelsError, match=r"not found[\s\S]*val/a/[\s\S]*--images"):
        find_images(tmp_path / "here", ["val/a"])
    expected = tmp_path / "there" / "images"
    for given in ("there", "there/images", "there/images/val"):
        assert find_images(tmp_path / "here", ["val/a"], tmp_path / given) == expected
    with pytest.raises(LabelsError, match="annotations/"):
        find_images(tmp_path / "there", ["val/a"], tmp_path / "here")
    with pytest.raises(LabelsError, match="no such folder"):
        find_images(tmp_path / "there", ["val/a"], tmp_path / "absent" / "absent")
