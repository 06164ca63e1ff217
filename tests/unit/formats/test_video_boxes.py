"""Boxes for one video, in the three forms that are read."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posewarper.errors import LabelsError, PosewarperWarning
from posewarper.formats.boxes import read_video_boxes
from posewarper.formats.labels import write_poses
from posewarper.skeletons import Skeleton
from posewarper.structures import Poses, Track

RECORDS = [
    {"frame": 7, "bbox": [1, 2.5, 3, 4], "score": 0.25, "track_id": 3},
    {"frame": 0, "bbox": [-5, 6, 7, 8]},
    {"frame": 7, "bbox": [9, 10, 11, 12], "score": 2, "track": None},
]
COCO = {
    "images": [{"id": 11, "file_name": "clip/frame_000004.png"}, {"id": 12, "file_name": "clip/frame_2.png"}],
    "annotations": [
        {"image_id": 12, "bbox": [1, 2, 3, 4], "category_id": 1},
        {"image_id": 11, "bbox": [5, 6, 7, 8], "category_id": 1, "score": 0.5},
        {"frame_id": 9, "bbox": [9, 10, 11, 12], "category_id": 18},
    ],
}


def _write(folder: Path, content: Any, name: str = "boxes.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_list_of_records(tmp_path: Path) -> None:
    found = read_video_boxes(_write(tmp_path, RECORDS), n_frames=8)
    assert list(found) == [0, 7]
    assert found[0].boxes.tolist() == [[-5, 6, 7, 8]] and found[0].scores.tolist() == [1.0]
    assert found[7].boxes.tolist() == [[1, 2.5, 3, 4], [9, 10, 11, 12]]
    assert found[7].scores.tolist() == [0.25, 2.0] and found[7].tracks.tolist() == [3, -1]


def test_our_own_poses(tmp_path: Path) -> None:
    keypoints = np.array([[[10.0, 20.0], [30.0, 60.0]], [[12.0, 21.0], [33.0, 61.0]]])
    track = Track([1, 3], keypoints, keypoint_scores=np.full((2, 2), 0.75))
    write_poses(tmp_path / "poses.json", Poses(Skeleton(("head", "tail")), {4: track}, (100, 80), n_frames=5))
    found = read_video_boxes(tmp_path / "poses.json", n_frames=5)
    assert list(found) == [1, 3]
    # The extent of the keypoints and a tenth of it on each side.
    np.testing.assert_allclose(found[1].boxes, [[8, 16, 24, 48]])
    assert found[3].tracks.tolist() == [4] and found[3].scores.tolist() == [0.75]


def test_coco_files_and_categories(tmp_path: Path) -> None:
    path = _write(tmp_path, COCO)
    with pytest.warns(PosewarperWarning, match="several categories \\(1, 18\\)"):
        found = read_video_boxes(path)
    assert list(found) == [2, 4, 9]
    assert list(read_video_boxes(path, category_id=1)) == [2, 4]
    assert read_video_boxes(path, category_id=18)[9].boxes.tolist() == [[9, 10, 11, 12]]
    with pytest.raises(LabelsError, match="no boxes of category 3"):
        read_video_boxes(path, category_id=3)


def test_posetracks_frames_are_told_by_their_names(tmp_path: Path) -> None:
    image = {"id": 10003420003, "frame_id": 10003420003, "file_name": "images/val/000342/000003.jpg"}
    document = {"images": [image], "annotations": [{"image_id": 10003420003, "bbox": [1, 2, 3, 4]}]}
    assert list(read_video_boxes(_write(tmp_path, document))) == [3]
    other = {"id": 5, "file_name": "images/val/000999/000003.jpg"}
    with pytest.raises(LabelsError, match="2 videos"):
        read_video_boxes(_write(tmp_path, {**document, "images": [image, other]}))


MOT = (
    "1,-1,794.27,247.59,71.245,174.88,4.56\n\n1, 2, 1, 1, 10.5, 20, -0.5, -1, -1, -1\n3,2,2,3,10,20,0,1,0.5\n"
)


def test_mot_text_counts_from_one(tmp_path: Path) -> None:
    found = read_video_boxes(_write(tmp_path, MOT, "det.txt"), n_frames=3)
    assert list(found) == [0, 2]
    np.testing.assert_allclose(found[0].boxes, [[793.27, 246.59, 71.245, 174.88], [0, 0, 10.5, 20]])
    assert found[0].scores.tolist() == [4.56, -0.5] and found[0].tracks.tolist() == [-1, 2]
    assert found[2].scores.tolist() == [0.0] and found[2].tracks.tolist() == [2]


@pytest.mark.parametrize("end", ["", ",-1", ",-1,-1,-1,-1"])
def test_mot_text_without_scores(tmp_path: Path, end: str) -> None:
    path = _write(tmp_path, f"1 2 3 4 5 6{end.replace(',', ' ')}\n2 2 3 4 5 6{end.replace(',', ' ')}\n")
    assert [boxes.scores.tolist() for boxes in read_video_boxes(path).values()] == [[1.0], [1.0]]


def test_boxes_without_area_are_left_out(tmp_path: Path) -> None:
    records = copy.deepcopy(RECORDS)
    records[0]["bbox"] = [1, 2, 0, 4]
    with pytest.warns(PosewarperWarning, match="1 of 3 boxes have no area"):
        found = read_video_boxes(_write(tmp_path, records))
    assert found[7].boxes.tolist() == [[9, 10, 11, 12]]


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("bbox", None, r"boxes\[1\]: bbox is missing"),
        ("bbox", [1, 2, 3], r"bbox is wrong[\s\S]*\[1, 2, 3\]"),
        ("bbox", [1, 2, 3e6, 4], r"from -1000000 to 1000000[\s\S]*3000000\.0"),
        ("bbox", [1, 2, -3, 4], "sizes not below 0"),
        ("bbox", [1, 2, float("nan"), 4], "bbox is wrong"),
        ("score", "0.5", "score is wrong"),
        ("score", True, "score is wrong"),
        ("score", float("nan"), "score is wrong"),
        ("frame", None, "frame is missing"),
        ("frame", -1, "frame is wrong"),
        ("frame", 1.5, "frame is wrong"),
        ("frame", 8, r"boxes\[1\]: this box lies beyond the last frame"),
        ("track_id", "a", "track_id is wrong"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, key: str, value: Any, text: str) -> None:
    records: list[Any] = copy.deepcopy(RECORDS)
    records[1][key] = value
    with pytest.raises(LabelsError, match=text) as caught:
        read_video_boxes(_write(tmp_path, records), n_frames=8)
    assert "boxes.json" in str(caught.value) and "fix:" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", "empty"),
        ("[{", "no valid JSON"),
        ('"boxes"', "does not hold boxes"),
        ({"a": 1}, "does not hold boxes"),
        ([], "no boxes"),
        ([3], r"boxes\[0\] is wrong"),
        ([{"image_name": "a/1.jpg", "bbox": [1, 1, 1, 1]}], "names an image"),
        ({"images": [], "annotations": [{"image_id": 4, "bbox": [1, 1, 1, 1]}]}, "points to no image"),
        ({"annotations": [{"bbox": [1, 1, 1, 1]}]}, "frame_id is missing"),
        ({"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": []}, "cannot tell which frame"),
        ("frame,id,left,top,width,height\n", "line 1: this is no line of boxes"),
        ("1,2,3,4,5\n", "columns are missing"),
        ("1,2,3,4,5,6\n0,2,3,4,5,6\n", "line 2: the frame is wrong"),
        ("1,2,3,4,-5,6\n", "the size is wrong"),
        ("1,2.5,3,4,5,6\n", "the id is wrong"),
        ("1,2,nan,4,5,6\n", "not a finite number"),
        ("1,2,3e6,4,5,6\n", "pixels up to 1000000"),
        ("9,2,3,4,5,6\n", r"line 1: this box lies beyond[\s\S]*frame index 8"),
    ],
)
def test_other_content_is_explained(tmp_path: Path, content: Any, text: str) -> None:
    with pytest.raises(LabelsError, match=text) as caught:
        read_video_boxes(_write(tmp_path, content), n_frames=8)
    assert "boxes.json" in str(caught.value) and "fix:" in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match="cannot read this box file"):
        read_video_boxes(tmp_path / "none.txt")


def test_errors_of_files_that_are_not_text_speak_of_boxes(tmp_path: Path) -> None:
    for name, said in (("boxes.json", "write the boxes as JSON"), ("clip.mp4", "the box file as boxes")):
        (tmp_path / name).write_bytes(b"\x80\x81")
        with pytest.raises(LabelsError, match=said) as caught:
            read_video_boxes(tmp_path / name)
        assert "label" not in str(caught.value)


def test_ids_that_number_the_boxes_are_no_tracks(tmp_path: Path) -> None:
    path = _write(tmp_path, "1,7,1,2,3,4\n2,8,1,2,3,4\n2,9,5,6,3,4\n", "det.txt")
    with pytest.warns(PosewarperWarning, match="every box has an id of its own"):
        assert [boxes.tracks.tolist() for boxes in read_video_boxes(path).values()] == [[-1], [-1, -1]]


@pytest.mark.parametrize(
    "data",
    [
        b"3,1,10.5,20,30,40,0.5\n1,-1,1,2,3,4,1\n",
        b"3 1 10.5 20 30 40 0.5\n1 -1 1 2 3 4 1\n",
        b"3;1;10,5;20;30;40;0,5\r\n1;-1;1;2;3;4;1\r\n",
        b'"3","1","10.5","20","30","40","0.5"\n"1","-1","1","2","3","4","1"\n',
        b"sep=;\n3;1;10.5;20;30;40;0.5\n1;-1;1;2;3;4;1\n",
        "3\t1\t10.5\t20\t30\t40\t0.5\n1\t-1\t1\t2\t3\t4\t1\n".encode("utf-16"),
    ],
)
def test_lines_with_any_separator(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "det.txt"
    path.write_bytes(data)
    found = read_video_boxes(path)
    assert found[2].boxes.tolist() == [[9.5, 19, 30, 40]] and found[2].scores.tolist() == [0.5]
    assert found[0].tracks.tolist() == [-1] and found[2].tracks.tolist() == [1]
