from __future__ import annotations

import pytest

from posewarper.posetrack.dataset import (
    from_ranges,
    list_images,
    number_frames,
    to_ranges,
)


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
