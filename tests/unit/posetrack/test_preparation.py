from __future__ import annotations

import json
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from posewarper.demo.posetrack_tree import write_posetrack_tree
from posewarper.errors import Interrupted, LabelsError, OutputError, PosewarperWarning
from posewarper.posetrack.dataset import Dataset, open_dataset
from posewarper.posetrack.posetrack18 import posetrack18_document
from posewarper.posetrack.preparation import LABELLED, NEIGHBOUR, OTHER, prepare_dataset
from posewarper.posetrack.tables import read_tables

KINDS = ("posetrack17", "posetrack18", "posetrack21")
SIZE = (48, 64)


@pytest.fixture(scope="session")
def trees(tmp_path_factory) -> Path:
    """A tree of each kind: two videos of train, one of val and one of test, eight frames each."""
    top = tmp_path_factory.mktemp("trees")
    for kind in KINDS:
        write_posetrack_tree(top / kind, kind, n_videos=(2, 1, 1), n_frames=8, size=SIZE, n_people=(2, 2))
    return top


def copy_of(trees: Path, kind: str, place: Path) -> Path:
    shutil.copytree(trees / kind, place / "download")
    return place / "download"


def written(root: Path) -> dict[str, int]:
    """When each label file of a dataset was written."""
    return {file.name: file.stat().st_mtime_ns for file in (root / "annotations").glob("*/*.json")}


def first_of(dataset: Dataset, split: str):
    return dataset.of_split(split)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_everything_in_the_labels_comes_through(trees, tmp_path, kind):
    dataset, summary = prepare_dataset(kind, trees / kind, tmp_path / "out")
    assert [len(dataset.of_split(split)) for split in ("train", "val", "test")] == [2, 1, 1]
    folder = trees / kind / ("posetrack_data" if kind == "posetrack21" else "annotations")
    for video in dataset.videos:
        given = next(iter(read_tables(folder / video.split / f"{video.file_stem}.json").values()))
        table = dataset.table(video)
        assert table.frame_names == given.frame_names and table.video
        np.testing.assert_array_equal(table.keypoints, given.keypoints)
        np.testing.assert_array_equal(table.head_boxes, given.head_boxes)
        np.testing.assert_array_equal(table.tracks, given.tracks)
        np.testing.assert_array_equal(table.is_labelled, given.is_labelled)
        assert table.ignore_regions.keys() == given.ignore_regions.keys()
        for row, polygons in given.ignore_regions.items():
            np.testing.assert_array_equal(table.ignore_regions[row], polygons)
        assert table.n_frames == video.n_frames == 8 and table.image_size == video.image_size == SIZE
        assert video.first == (1 if kind == "posetrack17" else 0)
        assert [dataset.frame_path(video, n).is_file() for n in range(video.first - 1, video.first + 9)] == [
            False, *[True] * 8, False,
        ]  # fmt: skip
        assert [dataset.images / name for name in table.frame_names] == [
            dataset.frame_path(video, number) for number in table.frame_numbers
        ]
    assert summary.never_labelled == ("left_ear", "right_ear")
    assert summary.splits["val"] | {"instances": 0} == {
        **{"videos": 1, "n_frames": 8, "labelled_frames": 3, "empty_frames": 1},
        **{"instances": 0, "ignore_regions": 1, "missing": 0},
    }
    assert dataset.table(first_of(dataset, "test")).n_instances == 0
    assert not dataset.table(first_of(dataset, "test")).is_labelled.any()
    assert dataset.box_files["val"].is_file()


def test_no_frame_is_copied(trees, tmp_path):
    out = tmp_path / "out"
    prepare_dataset("posetrack18", trees / "posetrack18", out)
    assert os.readlink(out / "images") == str(trees / "posetrack18" / "images")
    content = sorted(p.name for p in out.iterdir())
    assert content == ["annotations", "dataset.json", "images", "request.json"]
    assert not [p for p in (out / "annotations").rglob("*") if p.is_file() and p.suffix != ".json"]


def test_where_links_cannot_be_made_the_index_tells_the_place(trees, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError("not here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    dataset, _ = prepare_dataset("posetrack18", trees / "posetrack18", tmp_path / "out")
    assert not (tmp_path / "out" / "images").exists()
    assert dataset.images == trees / "posetrack18" / "images"


def test_missing_frames_are_named_by_what_they_are_to_labels(trees, tmp_path):
    download = copy_of(trees, "posetrack18", tmp_path)
    video = download / "images" / "train" / "000001_bonn_train"  # frames 3 and 4 are labelled
    for number in (0, 3, 7):
        (video / f"{number:06d}.jpg").unlink()
    (download / "images" / "test" / "000004_mpii_test" / "000005.jpg").unlink()
    splits = ["train", "test"]
    with pytest.warns(PosewarperWarning, match="4 frames are missing.*1 labelled, 2 within 3.*, 1 other"):
        dataset, summary = prepare_dataset("posetrack18", download, tmp_path / "out", splits=splits)
    assert summary.missing == {LABELLED: 1, NEIGHBOUR: 2, OTHER: 1}
    assert summary.first_missing[0] == "train/000001_bonn_train/000003.jpg"
    assert dataset.videos[0].missing == {0, 3, 7} and dataset.videos[1].missing == set()
    lines = (tmp_path / "out" / "missing.txt").read_text().splitlines()
    assert lines[2:] == [
        f"train/000001_bonn_train/000007.jpg\t{NEIGHBOUR}",
        f"test/000004_mpii_test/000005.jpg\t{OTHER}",
    ]
    # The frames come: nothing is missing any more, without a word about --overwrite.
    shutil.copytree(trees / "posetrack18" / "images", download / "images", dirs_exist_ok=True)
    dataset, summary = prepare_dataset("posetrack18", download, tmp_path / "out", splits=splits)
    assert summary.n_kept == 1 and dataset.videos[0].missing == set()
    assert not (tmp_path / "out" / "missing.txt").exists()


def test_a_second_run_does_what_has_changed(trees, tmp_path):
    download, out = copy_of(trees, "posetrack18", tmp_path), tmp_path / "out"
    prepare_dataset("posetrack18", download, out)
    before = written(out)
    _, summary = prepare_dataset("posetrack18", download, out)
    assert summary.n_kept == 4 and written(out) == before
    label_file = download / "annotations" / "val" / "000003_mpii_test.json"
    document = json.loads(label_file.read_text())
    document["annotations"].pop()
    label_file.write_text(json.dumps(document))
    (out / "annotations" / "train" / "000002_bonn_train.json").unlink()
    dataset, summary = prepare_dataset("posetrack18", download, out)
    assert summary.n_kept == 2
    changed = {name for name, when in written(out).items() if when != before[name]}
    assert changed == {"000003_mpii_test.json", "000002_bonn_train.json"}
    assert dataset.table(first_of(dataset, "val")).n_instances == len(document["annotations"])


def test_splits_that_are_not_asked_for_any_more_go(trees, tmp_path):
    out = tmp_path / "out"
    prepare_dataset("posetrack18", trees / "posetrack18", out)
    dataset, summary = prepare_dataset("posetrack18", trees / "posetrack18", out, splits=["val"])
    assert summary.n_kept == 1 and [video.split for video in dataset.videos] == ["val"]
    assert set(written(out)) == {"000003_mpii_test.json"}


def test_a_stopped_run_goes_on(trees, tmp_path):
    out = tmp_path / "out"

    def stop(what, done, total):
        if what == "preparing val":
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="2 videos are prepared"):
        prepare_dataset("posetrack18", trees / "posetrack18", out, progress=stop)
    assert not (out / "dataset.json").exists()
    with pytest.raises(LabelsError, match="not a prepared dataset"):
        open_dataset(out)
    # Killed while it noted the second video: that one is done again.
    journal = out / "parts" / "records.jsonl"
    journal.write_text(journal.read_text()[:-40])
    before = written(out)
    _, summary = prepare_dataset("posetrack18", trees / "posetrack18", out)
    assert summary.n_kept == 1 and not journal.exists()
    assert written(out)["000001_bonn_train.json"] == before["000001_bonn_train.json"]
    assert not list(out.rglob("*partial*"))
    # What came out is what comes out of one go.
    prepare_dataset("posetrack18", trees / "posetrack18", tmp_path / "again")
    assert (out / "dataset.json").read_text() == (tmp_path / "again" / "dataset.json").read_text()


def test_a_run_that_fails_at_once_leaves_nothing(trees, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(LabelsError, match="not labels of posetrack18"):
        prepare_dataset("posetrack18", trees / "posetrack17", out)
    with pytest.raises(LabelsError, match=r"not labels of posetrack17[\s\S]*name posetrack18 or posetrack21"):
        prepare_dataset("posetrack17", trees / "posetrack18", out)
    with pytest.raises(LabelsError, match="frames that the labels name were not found"):
        prepare_dataset("posetrack18", trees / "posetrack18", out, images=trees / "posetrack17")
    with pytest.raises(LabelsError, match="nothing of test was found"):
        shutil.copytree(trees / "posetrack17", tmp_path / "d")
        shutil.rmtree(tmp_path / "d" / "annotations" / "test")
        prepare_dataset("posetrack17", tmp_path / "d", tmp_path / "other", splits=["test", "val"])
    assert not out.exists()


def test_a_damaged_label_file_is_named_and_the_run_goes_on_when_it_is_mended(trees, tmp_path):
    download, out = copy_of(trees, "posetrack18", tmp_path), tmp_path / "out"
    file = download / "annotations" / "train" / "000002_bonn_train.json"
    good = file.read_text()
    file.write_text(good[:200])
    with pytest.raises(LabelsError, match="000002_bonn_train"):
        prepare_dataset("posetrack18", download, out)
    file.write_text(good)
    prepare_dataset("posetrack18", download, out)


def test_folders_of_others_are_left_alone(trees, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").touch()
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="holds other files"):
            prepare_dataset("posetrack18", trees / "posetrack18", out, overwrite=overwrite)
    with pytest.raises(OutputError, match="holds other files"):
        prepare_dataset("posetrack18", trees / "posetrack18", trees / "posetrack18", overwrite=True)
    assert (trees / "posetrack18" / "annotations").is_dir()


def test_another_download_needs_overwrite(trees, tmp_path):
    out = tmp_path / "out"
    prepare_dataset("posetrack18", trees / "posetrack18", out)
    with pytest.raises(OutputError, match=r"other settings or inputs[\s\S]*posetrack21[\s\S]*--overwrite"):
        prepare_dataset("posetrack21", trees / "posetrack21", out)
    dataset, summary = prepare_dataset("posetrack21", trees / "posetrack21", out, overwrite=True)
    assert (dataset.kind, summary.n_kept) == ("posetrack21", 0)
    (out / "dataset.json").write_text("{")
    with pytest.raises(OutputError, match=r"damaged[\s\S]*--overwrite"):
        prepare_dataset("posetrack21", trees / "posetrack21", out)


def test_nothing_usable_is_an_error(trees, tmp_path):
    download = copy_of(trees, "posetrack17", tmp_path)
    for file in (download / "images").rglob("*.jpg"):
        file.unlink()
    with pytest.raises(LabelsError, match="not one frame"):
        prepare_dataset("posetrack17", download, tmp_path / "out")


def test_test_videos_need_no_labels(trees, tmp_path):
    download = copy_of(trees, "posetrack18", tmp_path)
    shutil.rmtree(download / "annotations" / "test")
    (download / "images" / "test" / "empty").mkdir()
    dataset, _ = prepare_dataset("posetrack18", download, tmp_path / "out")
    (video,) = dataset.of_split("test")
    assert (video.name, video.n_frames, video.file_stem) == ("000004_mpii_test", 8, "000004_mpii_test")
    table = dataset.table(video)
    assert table.frame_names[7] == "test/000004_mpii_test/000007.jpg"
    assert table.n_instances == 0 and not table.is_labelled.any()
    assert prepare_dataset("posetrack18", download, tmp_path / "out")[1].n_kept == 4


def test_only_check_images_opens_them_all(trees, tmp_path):
    download, out = copy_of(trees, "posetrack17", tmp_path), tmp_path / "out"
    (download / "images" / "bonn_5sec" / "000001_mpii" / "00000006.jpg").write_bytes(b"\xff\xd8 broken")
    assert prepare_dataset("posetrack17", download, out)[1].splits["train"]["missing"] == 0
    with pytest.warns(PosewarperWarning, match=r"00000006.jpg") as caught:
        dataset, summary = prepare_dataset("posetrack17", download, out, check_images=True)
    assert summary.n_kept == 0 and dataset.videos[0].missing == {6}
    assert any("damaged" in str(warning.message) for warning in caught)


def test_odd_names_of_posetrack17_are_indexed(trees, tmp_path):
    download = copy_of(trees, "posetrack17", tmp_path)
    folder = download / "images" / "bonn_5sec" / "000001_mpii"
    label_file = download / "annotations" / "train" / "000001_mpii.json"
    text = label_file.read_text()
    for number in range(1, 9):
        (folder / f"{number:08d}.jpg").rename(folder / f"{number + 60:04d}_crop.jpg")
        text = text.replace(f"000001_mpii/{number:08d}.jpg", f"000001_mpii/{number + 60:04d}_crop.jpg")
    label_file.write_text(text)
    (folder / "0065_crop.jpg").unlink()
    with pytest.warns(PosewarperWarning, match="counted as frames 1 to 8|missing"):
        dataset, _ = prepare_dataset("posetrack17", download, tmp_path / "out")
    video = dataset.videos[0]
    assert (video.first, video.n_frames, video.missing) == (1, 8, {5})
    assert dataset.frame_path(video, 2) == dataset.images / "bonn_5sec/000001_mpii/0062_crop.jpg"
    table = dataset.table(video)
    assert table.frame_numbers.tolist() == list(range(1, 9))
    assert table.frame_names[1] == "bonn_5sec/000001_mpii/0062_crop.jpg"


# --- the files that came with the original ---------------------------------------------


def write_supplement(trees: Path, place: Path) -> Path:
    """Write the tree of PoseTrack17 as the original passes it on: two files, and the official ones of val."""
    for split in ("train", "val"):
        document: dict = {"images": [], "annotations": [], "categories": []}
        for folder in (trees / "posetrack17" / "annotations" / split,):
            for file in sorted(folder.iterdir()):
                table = next(iter(read_tables(file).values()))
                part = posetrack18_document(table)
                shift = 100 * len(document["images"])
                for image in part["images"]:
                    number = image["id"] % 10**4
                    image |= {
                        "id": shift + number,
                        "frame_id": number,
                        "nframes": 8,
                        "width": 64,
                        "height": 48,
                    }
                    image["file_name"] = image["file_name"].removeprefix("images/")
                    image.pop("ignore_regions_x", None), image.pop("ignore_regions_y", None)
                for annotation in part["annotations"]:
                    annotation["image_id"] = shift + annotation["image_id"] % 10**4
                    annotation["id"] = len(document["annotations"]) + 1
                    annotation["bbox"] = [1, 2, 30, 40]
                    document["annotations"].append(annotation)
                document["images"] += part["images"]
                document["categories"] = part["categories"]
        target = place / "posetrack17_json_files" / f"posetrack_{split}.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(document))
    official = place / "posetrack17_annotation_dirs" / "val_withJson" / "val"
    shutil.copytree(trees / "posetrack17" / "annotations" / "val", official)
    (official / "000003_mpii.json").rename(official / "00003_official.json")
    return place


def test_the_files_of_the_original(trees, tmp_path):
    download, out = write_supplement(trees, tmp_path / "supplement"), tmp_path / "out"
    images = trees / "posetrack17" / "images"
    with pytest.raises(LabelsError, match="--images"):
        prepare_dataset("posetrack17", download, out)
    dataset, summary = prepare_dataset("posetrack17", download, out, images=images)
    assert json.loads((out / "dataset.json").read_text())["layout"] == "original"
    assert [v.name for v in dataset.videos] == [
        "bonn_5sec/000001_mpii", "mpii/000002_mpii", "mpii_5sec/000003_mpii",
    ]  # fmt: skip
    # Boxes come from the one file, the name of the result file and ignore regions from the official one.
    assert [v.file_stem for v in dataset.videos] == ["000001_mpii", "000002_mpii", "00003_official"]
    table = dataset.table(dataset.videos[2])
    assert (table.boxes == [1, 2, 30, 40]).all() and list(table.ignore_regions) == [0]
    assert table.frame_numbers.tolist() == list(range(1, 9))
    assert summary.splits["train"]["ignore_regions"] == 0
    # Again: nothing is read; then the frames of one video change, and it alone is done anew.
    before = written(out)
    assert prepare_dataset("posetrack17", download, out, images=images)[1].n_kept == 3
    shutil.copytree(images, tmp_path / "frames")
    (tmp_path / "frames" / "mpii" / "000002_mpii" / "00000008.jpg").unlink()
    with pytest.warns(PosewarperWarning, match="1 frame is missing"):
        _, summary = prepare_dataset("posetrack17", download, out, images=tmp_path / "frames")
    assert summary.n_kept == 2
    assert {n for n, when in written(out).items() if when != before[n]} == {"000002_mpii.json"}


def test_renamed_labels_and_frames_as_downloaded(trees, tmp_path):
    download = write_supplement(trees, tmp_path / "supplement")
    shutil.copytree(trees / "posetrack17" / "images", tmp_path / "images")
    folder = tmp_path / "images" / "mpii" / "000002_mpii"
    for number in range(1, 9):
        (folder / f"{number:08d}.jpg").rename(folder / f"{number - 1:08d}.jpg")
    with pytest.warns(PosewarperWarning, match="counted as frames 1 to 8"):
        dataset, _ = prepare_dataset("posetrack17", download, tmp_path / "out", images=tmp_path / "images")
    video = dataset.videos[1]
    assert dataset.table(video).frame_numbers.tolist() == list(range(1, 9))
    assert dataset.frame_path(video, 3) == dataset.images / "mpii" / "000002_mpii" / "00000002.jpg"
    assert not video.missing


def test_one_warning_however_many_videos(trees, tmp_path):
    download = copy_of(trees, "posetrack18", tmp_path)
    for folder in (download / "images").glob("*/*"):
        (folder / "000007.jpg").unlink()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        prepare_dataset("posetrack18", download, tmp_path / "out")
    assert len(caught) == 1 and "4 frames are missing" in str(caught[0].message)
