from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from posewarper.demo.posetrack_tree import write_posetrack_tree
from posewarper.errors import LabelsError
from posewarper.posetrack.dataset import (
    DatasetVideo,
    from_ranges,
    labels_path,
    list_images,
    number_frames,
    open_dataset,
    to_ranges,
)
from posewarper.posetrack.preparation import prepare_dataset


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A prepared dataset of two videos, whose download lies beside it."""
    top = tmp_path_factory.mktemp("prepared")
    write_posetrack_tree(top / "download", "posetrack18", n_videos=(1, 1), n_frames=6, size=(48, 64))
    prepare_dataset("posetrack18", top / "download", top / "out")
    return top / "out"


def test_a_video_knows_its_numbers_and_names():
    video = DatasetVideo("bonn/01", "val", "01", "bonn/01", 1, 5, 8, None)
    assert list(video.numbers) == [1, 2, 3, 4, 5]
    assert video.frame_name(3) == "bonn/01/00000003.jpg"


def test_opening_gives_what_preparing_gave(prepared):
    dataset = open_dataset(str(prepared))
    assert dataset.kind == "posetrack18" and dataset.root == prepared
    assert [v.name for v in dataset.videos] == ["000001_bonn_train", "000002_mpii_test"]
    assert dataset.of_split("test") == ()
    video = dataset.of_split("val")[0]
    assert video == DatasetVideo(
        name="000002_mpii_test",
        split="val",
        file_stem="000002_mpii_test",
        folder="val/000002_mpii_test",
        first=0,
        n_frames=6,
        digits=6,
        image_size=(48, 64),
    )
    assert labels_path(prepared, "val", video.file_stem).is_file()
    assert dataset.frame_path(video, 99).name == "000099.jpg"


def test_what_is_no_dataset_is_explained(prepared, tmp_path):
    with pytest.raises(LabelsError, match=r"not a prepared dataset[\s\S]*posewarper prepare"):
        open_dataset(tmp_path)
    with pytest.raises(LabelsError, match="no such folder"):
        open_dataset(tmp_path / "absent")
    index = tmp_path / "dataset.json"
    for text, said in (("{", "damaged"), ("[]", "not the index"), ('{"format": "other"}', "'other'|other")):
        index.write_text(text)
        with pytest.raises(LabelsError, match=said):
            open_dataset(tmp_path)
    content = json.loads((prepared / "dataset.json").read_text())
    index.write_text(json.dumps(content | {"format_version": 99}))
    with pytest.raises(LabelsError, match=r"another version[\s\S]*99"):
        open_dataset(tmp_path)


def test_frames_may_move_if_the_link_follows(prepared, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(prepared, out, symlinks=True)
    index = json.loads((out / "dataset.json").read_text())
    (out / "dataset.json").write_text(json.dumps(index | {"images": str(tmp_path / "gone")}))
    assert open_dataset(out).images == out / "images"
    (out / "images").unlink()
    with pytest.raises(LabelsError, match=r"not there any more[\s\S]*gone"):
        open_dataset(out)
    shutil.copytree(prepared / "images", out / "images")  # real frames, to take the folder elsewhere
    dataset = open_dataset(out)
    assert dataset.frame_path(dataset.videos[0], 0).is_file()


# --- which file is which frame ---------------------------------------------------------


def names(numbers, digits=6, suffix=".jpg"):
    return [f"{number:0{digits}d}{suffix}" for number in numbers]


def test_posetrack18_counts_from_0_and_the_labels_tell_how_far():
    frames = number_frames("posetrack18", names([4, 5]), names([0, 1, 2, 4, 5, 7]), 9, renamed=False)
    assert (frames.first, frames.n_frames, frames.digits, frames.suffix) == (0, 9, 6, ".jpg")
    assert frames.missing == (3, 6, 8) and frames.files == () and frames.note == ""


def test_without_a_length_the_last_frame_named_or_found_is_the_end():
    assert number_frames("posetrack18", names([9]), names(range(5)), None, renamed=False).n_frames == 10
    assert number_frames("posetrack18", names([2]), names(range(5)), None, renamed=False).n_frames == 5
    frames = number_frames("posetrack17", names([3], 8), names(range(1, 8), 8), None, renamed=False)
    assert (frames.first, frames.n_frames, frames.digits, frames.missing) == (1, 7, 8, ())


def test_more_files_than_the_labels_say_are_noted():
    frames = number_frames("posetrack18", names([1]), names(range(7)), 5, renamed=False)
    assert frames.n_frames == 5 and frames.missing == ()
    assert "5 frames" in frames.note and "frame 6" in frames.note


def test_labels_beyond_the_length_make_the_video_longer():
    frames = number_frames("posetrack18", names([1, 7]), names(range(8)), 5, renamed=False)
    assert frames.n_frames == 8 and "5 frames" in frames.note


def test_no_files_at_all():
    frames = number_frames("posetrack17", names([2, 3], 8), [], 4, renamed=False)
    assert frames.missing == (1, 2, 3, 4) and frames.digits == 8


def test_other_suffixes_and_digits_are_taken_from_the_files():
    frames = number_frames("posetrack18", names([0, 1]), names(range(3), 5, ".png"), 3, renamed=False)
    assert (frames.digits, frames.suffix, frames.missing) == (5, ".png", ())


def test_odd_names_of_posetrack17_are_counted_from_1_in_the_order_of_their_numbers():
    listed = ["0010_crop.jpg", "0011_crop.jpg", "0101_crop.jpg", "0102_crop.jpg"]
    frames = number_frames(
        "posetrack17", listed, [n for n in listed if n != "0011_crop.jpg"], None, renamed=False
    )
    assert frames.files == tuple(listed) and frames.n_frames == 4 and frames.first == 1
    assert frames.missing == (2,) and "0010_crop.jpg to 0102_crop.jpg" in frames.note
    assert frames.numbers_of(["0101_crop.jpg"], renamed=False) == [3]


def test_a_video_of_posetrack17_may_begin_elsewhere():
    files = names(range(61, 66), 8)
    frames = number_frames("posetrack17", files, files, None, renamed=False)
    assert frames.numbers_of(files, renamed=False) == [1, 2, 3, 4, 5] and frames.missing == ()


def test_a_gap_in_posetrack17_is_a_gap_where_the_names_count_from_1():
    frames = number_frames("posetrack17", names([4], 8), names([1, 2, 5], 8), None, renamed=False)
    assert frames.files == () and frames.missing == (3, 4)


def test_renamed_labels_find_the_files_of_the_download_in_their_order():
    # Labels count from 1, files from 0: frame 3 is the third file, not that with a 3 in its name.
    files = names(range(5), 8)
    frames = number_frames("posetrack17", names([3], 8), files, 5, renamed=True)
    assert frames.files[3 - frames.first] == "00000002.jpg"
    assert frames.numbers_of(["00000003.jpg"], renamed=True) == [3]
    # With a file too few nobody can tell which; names then mean what they say.
    frames = number_frames("posetrack17", names([3], 8), files[:-1], 5, renamed=True)
    assert frames.files == () and frames.missing == (4, 5)


@pytest.mark.parametrize(("numbers", "runs"), [([], []), ([3, 1, 2, 9], [[1, 3], [9, 9]])])
def test_ranges_there_and_back(numbers, runs):
    assert to_ranges(numbers) == runs
    assert from_ranges(runs) == sorted(numbers)


def test_only_images_are_listed(tmp_path):
    for name in ("b.jpg", "a.PNG", "._b.jpg", "note.txt"):
        (tmp_path / name).touch()
    assert list_images(tmp_path) == ["a.PNG", "b.jpg"]
    assert list_images(tmp_path / "absent") == []
