"""Files of detected boxes, and which frames they are of."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from table_samples import sample_table

from posewarper.errors import LabelsError
from posewarper.formats.boxes import boxes_of_frames, boxes_without_frame, read_boxes

BY_NAME = [
    {
        "bbox": [1, 2.5, 3, 4],
        "score": 0.9,
        "category_id": 1,
        "image_name": "images/val/000342_mpii_test/000002.jpg",
        "nframes": 90,
        "frame_id": 2,
    },
    {"bbox": [5, 6, 7, 8], "score": 0.25, "category_id": 2, "image_name": "val/000342_mpii_test/000000.jpg"},
    {"bbox": [9, 10, 11, 12], "image_name": "val/000342_mpii_test/000002.jpg"},
    {"bbox": [0, 0, 1, 1], "score": 1, "category_id": 1, "image_name": "val/000001_mpii_test/000002.jpg"},
]


def _write(folder: Path, content: Any) -> Path:
    path = folder / "val_boxes.json"
    path.write_text(json.dumps(content))
    return path


def test_the_originals_boxes_are_found_by_name(tmp_path: Path) -> None:
    boxes = read_boxes(_write(tmp_path, BY_NAME))
    assert boxes.boxes.tolist() == [[1, 2.5, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [0, 0, 1, 1]]
    assert boxes.scores.tolist() == [0.9, 0.25, 1, 1] and boxes.category_ids.tolist() == [1, 2, 1, 1]
    assert boxes.image_names is not None and boxes.image_names[0] == "val/000342_mpii_test/000002.jpg"
    assert boxes.image_ids is None and len(boxes) == 4
    table = sample_table()
    found = boxes_of_frames(boxes, table)
    assert {row: at.tolist() for row, at in found.items()} == {0: [1], 2: [0, 2]}
    assert boxes_without_frame(boxes, [table]).tolist() == [3]
    people = boxes.take(boxes.category_ids == 1)
    assert {row: at.tolist() for row, at in boxes_of_frames(people, table).items()} == {2: [0, 1]}
    assert people.boxes[1].tolist() == [9, 10, 11, 12]


def test_coco_results_are_found_by_id(tmp_path: Path) -> None:
    records = [
        {"bbox": [1, 2, 3, 4], "score": 0.5, "category_id": 1, "image_id": 10003420003},
        {"bbox": [5, 6, 7, 8], "score": 0.75, "category_id": 1, "image_id": 17},
    ]
    boxes = read_boxes(_write(tmp_path, records))
    assert boxes.image_names is None and boxes.image_ids is not None
    assert boxes.image_ids.tolist() == [10003420003, 17]
    assert {row: at.tolist() for row, at in boxes_of_frames(boxes, sample_table()).items()} == {3: [0]}
    assert boxes_without_frame(boxes, [sample_table()]).tolist() == [1]
    assert boxes_without_frame(boxes.take([1, 0]), [sample_table()]).tolist() == [0]
    with pytest.raises(LabelsError, match="have no image ids"):
        boxes_of_frames(boxes, sample_table(image_ids=None))


def test_a_coco_file_names_its_images(tmp_path: Path) -> None:
    document = {
        "images": [{"id": 4, "file_name": "images/val/000342_mpii_test/000003.jpg"}],
        "annotations": [{"bbox": [1, 2, 3, 4], "image_id": 4, "category_id": 1}],
    }
    boxes = read_boxes(_write(tmp_path, document))
    assert boxes.scores.tolist() == [1]
    assert {row: at.tolist() for row, at in boxes_of_frames(boxes, sample_table()).items()} == {3: [0]}


def test_no_boxes_at_all(tmp_path: Path) -> None:
    boxes = read_boxes(_write(tmp_path, []))
    assert boxes.boxes.shape == (0, 4) and len(boxes.take(np.zeros(0, bool))) == 0
    assert boxes_of_frames(boxes, sample_table()) == {}
    assert boxes_without_frame(boxes, [sample_table()]).tolist() == []


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("bbox", None, r"\[1\]: bbox is missing"),
        ("bbox", [1, 2, 3], "bbox is wrong"),
        ("bbox", [1, 2, -3, 4], "sizes not below 0"),
        ("score", "0.5", "score is wrong"),
        ("score", float("nan"), "score is wrong"),
        ("image_name", None, "image_name is missing"),
        ("image_name", 5, "image_name is wrong"),
        ("category_id", "person", "category_id is wrong"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, key: str, value: Any, text: str) -> None:
    records: list[Any] = copy.deepcopy(BY_NAME)
    records[1][key] = value
    with pytest.raises(LabelsError, match=text) as caught:
        read_boxes(_write(tmp_path, records))
    assert "val_boxes.json" in str(caught.value) and "fix:" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"a": 1}, "does not hold boxes"),
        ("boxes", "does not hold boxes"),
        ([1], r"\[0\] is wrong"),
        ({"images": 3, "annotations": []}, "images is wrong"),
        ([{"image_id": 1, "bbox": [1, 1, 1, 1]}, BY_NAME[0]], "some records know their image by name"),
    ],
)
def test_other_content_is_explained(tmp_path: Path, content: Any, text: str) -> None:
    with pytest.raises(LabelsError, match=text):
        read_boxes(_write(tmp_path, content))
    (tmp_path / "broken.json").write_text('[{"bbox": [1,')
    with pytest.raises(LabelsError, match="no valid JSON"):
        read_boxes(tmp_path / "broken.json")


def test_the_official_samples_detections(shared_data: Path) -> None:
    path = shared_data / "posetrack18_sample" / "annotations" / "posetrack18_val_human_detections.json"
    boxes = read_boxes(path)
    assert len(boxes) == 178 and boxes.image_ids is not None
    assert boxes.scores.min() > 0 and boxes.image_ids[0] == 10128340000
