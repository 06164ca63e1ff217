"""Labelled frames, and which frame is filled from which."""

from __future__ import annotations

import pytest

from posewarper.errors import LabelsError
from posewarper.posetrack.samples import support_numbers
from posewarper.posetrack.selection import labelled_numbers, longest_run, paper_rows, propagation_plan


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


def document(people, numbers=range(1, 6), name="a/{:06d}.jpg"):
    images = [{"id": 10 + n, "file_name": name.format(n)} for n in numbers]
    annotations = [
        {"id": 100 * n + i, "image_id": 10 + n, "keypoints": [1, 1, 1]}
        for n, count in people.items()
        for i in range(count)
    ]
    return {"images": images, "annotations": annotations}


def test_rows_are_handed_out_in_the_order_of_the_plan():
    frames, n_rows = paper_rows(document({1: 3, 2: 3, 3: 2, 4: 2, 5: 1}))
    assert n_rows == 11
    assert list(frames) == [f"a/{n:06d}.jpg" for n in (4, 1, 2, 3, 5)]
    assert frames["a/000005.jpg"].rows == (8, 9) and frames["a/000005.jpg"].annotation_ids == (400, 401)
    assert frames["a/000005.jpg"].labelled_file == "a/000004.jpg" and frames["a/000005.jpg"].delta == 1


def test_errors_name_the_place():
    with pytest.raises(LabelsError, match=r"a: .*too short"):
        paper_rows(document({1: 1}, numbers=[1, 2, 3, 5]))
    with pytest.raises(LabelsError, match=r"a/000004\.jpg"):
        paper_rows(document({1: 1}))
    with pytest.raises(LabelsError, match="more people") as caught:
        paper_rows(document({4: 2}))
    assert caught.value.got == 10
    with pytest.raises(LabelsError, match="no frame number"):
        paper_rows(document({}, numbers=[1], name="a/first.jpg"))


def test_support_frames_at_the_ends_and_where_files_are_missing():
    assert support_numbers(5, (-3, 0, 3), first=0, n_frames=7) == [2, 5, 6]
    assert support_numbers(5, (-3, 0, 3), first=1, n_frames=7) == [2, 5, 7]
    assert support_numbers(0, (-2, 1), first=0, n_frames=1) == [0, 0]
    # The last frame of the video is missing: not the one before it, but the frame itself.
    assert support_numbers(5, (1, 2), first=0, n_frames=7, exists=lambda n: n < 6) == [5, 5]
