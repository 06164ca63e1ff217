"""PoseTrack18's files as instance tables, and folders and zip files of any of PoseTrack's forms."""

from __future__ import annotations

import contextlib
import copy
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import damage_once, places_in
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from table_samples import assert_same, sample_table

from posewarper.errors import LabelsError, PosewarperError, PosewarperWarning
from posewarper.posetrack.annolist import write_annolist, write_annolist_mat
from posewarper.posetrack.posetrack18 import (
    posetrack18_document,
    read_posetrack18,
    tables_of_coco,
    write_posetrack18,
)
from posewarper.posetrack.tables import read_tables
from posewarper.skeletons import COCO, POSETRACK
from posewarper.structures import NO_TRACK, InstanceTable

_NOBODY = [0] * 51
OFFICIAL: dict[str, Any] = {
    "images": [
        {
            "id": 10003420000,
            "frame_id": 10003420000,
            "vid_id": "000342",
            "nframes": 90,
            "file_name": "images/val/000342_mpii_test/000000.jpg",
            "is_labeled": False,
            "width": 64,
            "height": 48,
        },
        {
            "id": 10003420012,
            "frame_id": 10003420012,
            "vid_id": "000342",
            "nframes": 90,
            "file_name": "images/val/000342_mpii_test/000012.jpg",
            "is_labeled": True,
            "width": 64,
            "height": 48,
            "ignore_regions_x": [[1, 2, 3], [4, 5, 6.5]],
            "ignore_regions_y": [[7, 8, 9], [10, 11, 12]],
        },
    ],
    "annotations": [
        {
            "id": 1,
            "image_id": 10003420012,
            "category_id": 1,
            "track_id": 5,
            "bbox": [1, 2, 3, 4],
            "bbox_head": [5, 6, 7, 8],
            "keypoints": [11, 12, 1, 13.5, 14, 1, 99, 99, 0, *_NOBODY[9:]],
            "scores": [],
        },
        {"id": 2, "image_id": 10003420012, "category_id": 1, "track_id": 6, "keypoints": _NOBODY, "bbox": []},
        {"id": 3, "image_id": 10003420000, "category_id": 1, "bbox": [2, 2, 9, 9]},
    ],
    "categories": [{"id": 1, "name": "person", "keypoints": list(POSETRACK.names)}],
}


def _write(folder: Path, document: Any) -> Path:
    path = folder / "000342_mpii_test.json"
    path.write_text(json.dumps(document))
    return path


def _read_videos(path: Path) -> dict[str, InstanceTable]:
    return tables_of_coco(json.loads(path.read_text()), path)


def test_the_official_form_is_read_value_by_value(tmp_path: Path) -> None:
    table = read_posetrack18(_write(tmp_path, OFFICIAL))
    assert table.video == "000342_mpii_test"
    assert table.frame_names == ("val/000342_mpii_test/000000.jpg", "val/000342_mpii_test/000012.jpg")
    assert table.frame_numbers.tolist() == [0, 12]
    assert table.image_ids is not None and table.image_ids.tolist() == [10003420000, 10003420012]
    assert table.is_labelled.tolist() == [False, True]
    assert table.n_frames == 90 and table.image_size == (48, 64)
    assert table.rows.tolist() == [1, 1, 0] and table.tracks.tolist() == [5, 6, NO_TRACK]
    assert table.keypoints[0, :2].tolist() == [[11, 12], [13.5, 14]]
    assert np.isnan(table.keypoints[0, 2:]).all() and np.isnan(table.keypoints[1:]).all()
    assert np.isnan(table.keypoint_scores).all() and np.isnan(table.scores).all()
    assert table.boxes[0].tolist() == [1, 2, 3, 4] and table.head_boxes[0].tolist() == [5, 6, 7, 8]
    assert np.isnan(table.boxes[1]).all() and np.isnan(table.head_boxes[1:]).all()
    regions = [polygon.tolist() for polygon in table.ignore_regions[1]]
    assert regions == [[[1, 7], [2, 8], [3, 9]], [[4, 10], [5, 11], [6.5, 12]]]
    assert table.ignore_regions.keys() == {1}


def test_scores_of_predictions(tmp_path: Path) -> None:
    """A number a keypoint, one a person, or in place of the visibility."""
    document = copy.deepcopy(OFFICIAL)
    person = document["annotations"][0]
    person["scores"] = [0.5, 0.25, 0.75, *[0.0] * 14]
    person["score"] = 0.125
    table = read_posetrack18(_write(tmp_path, document))
    assert table.keypoint_scores[0, :2].tolist() == [0.5, 0.25]
    assert np.isnan(table.keypoint_scores[0, 2:]).all()  # no score where there is no keypoint
    assert table.scores[0] == 0.125
    del person["scores"]
    person["keypoints"][2::3] = [0.875, 0.375, -0.1, *[0.0] * 14]
    table = read_posetrack18(_write(tmp_path, document))
    assert table.keypoint_scores[0, :2].tolist() == [0.875, 0.375]
    assert np.isfinite(table.keypoints[0, :, 0]).sum() == 2


def test_other_orders_and_skeletons(tmp_path: Path) -> None:
    document = copy.deepcopy(OFFICIAL)
    document["categories"][0]["keypoints"] = ["head_top", "nose"]
    document["annotations"] = [{"image_id": 10003420000, "keypoints": [1, 2, 1, 3, 4, 2]}]
    table = read_posetrack18(_write(tmp_path, document))
    assert table.skeleton is POSETRACK
    assert table.keypoints[0, POSETRACK.names.index("nose")].tolist() == [3, 4]
    assert table.keypoints[0, POSETRACK.names.index("head_top")].tolist() == [1, 2]
    assert np.isfinite(table.keypoints[..., 0]).sum() == 2
    document["categories"][0]["keypoints"] = ["snout", "tail"]
    table = read_posetrack18(_write(tmp_path, document))
    assert table.skeleton.names == ("snout", "tail") and table.keypoints.tolist() == [[[1, 2], [3, 4]]]


def test_the_originals_supplementary_form(tmp_path: Path) -> None:
    """Many videos in a file, frames from 1, small ids, no names of keypoints, and no leading images/."""
    names = ("bonn/000001/00000002.jpg", "bonn/000001/00000003.jpg", "mpii/000777/00000002.jpg")
    numbers = (2, 3, 2)
    images = [
        {"id": i + 1, "file_name": name, "frame_id": number, "nframes": 6, "width": 80, "height": 64}
        for i, (name, number) in enumerate(zip(names, numbers, strict=True))
    ]
    head = {"head_box": [1, 2, 3, 4]}
    people = [
        {"id": 9, "image_id": 3, "category_id": 1, "keypoints": [7, 8, 2, *_NOBODY[3:]], **head},
        {"id": 8, "image_id": 2, "category_id": 1, "keypoints": [5, 6, 1, *_NOBODY[3:]], "head_box": []},
    ]
    document = {"images": images, "annotations": people, "categories": [{"id": 1, "keypoints": []}]}
    tables = _read_videos(_write(tmp_path, document))
    assert list(tables) == ["000001", "000777"]
    one, other = tables.values()
    assert one.frame_numbers.tolist() == [2, 3] and other.frame_numbers.tolist() == [2]
    assert one.rows.tolist() == [1] and one.keypoints[0, 0].tolist() == [5, 6]
    assert other.rows.tolist() == [0] and other.keypoints[0, 0].tolist() == [7, 8]
    assert other.head_boxes.tolist() == [[1, 2, 3, 4]] and np.isnan(one.head_boxes).all()
    assert one.n_frames == 6 and one.image_size == (64, 80) and other.video == "000777"
    with pytest.raises(LabelsError, match=r"about 2 videos(.|\n)*000001, 000777"):
        read_posetrack18(tmp_path / "000342_mpii_test.json")
    images[2]["file_name"] = "mpii/000001/00000002.jpg"
    assert list(_read_videos(_write(tmp_path, document))) == ["bonn/000001", "mpii/000001"]


def _edited(*way: Any, value: Any) -> dict[str, Any]:
    document = copy.deepcopy(OFFICIAL)
    holder: Any = document
    for step in way[:-1]:
        holder = holder[step]
    holder[way[-1]] = value
    return document


@pytest.mark.parametrize(
    ("way", "value", "text"),
    [
        (("images",), [], "no images"),
        (("images", 1, "id"), 10003420000, "two images have the same id"),
        (("images", 1, "file_name"), "images/val/000342_mpii_test/000000.jpg", "the same file name"),
        (("images", 1, "file_name"), None, "file_name is missing"),
        (("images", 1, "file_name"), "a.jpg", "cannot tell the number"),
        (("images", 1, "is_labeled"), "no", "is_labeled is wrong"),
        (("images", 1, "ignore_regions_x"), [[1, 2, 3]], "1 lists of numbers"),
        (("images", 1, "ignore_regions_x"), [[1, 2], [3, 4, 5]], "ignore_regions_x is wrong"),
        (("annotations", 0, "image_id"), 5, "points to no image"),
        (("annotations", 0, "keypoints"), [1, 2, 3], "a list of 51 numbers"),
        (("annotations", 0, "keypoints", 0), 1e8, r"annotations\[0\].*keypoint 1 of 17 is wrong"),
        (("annotations", 0, "keypoints", 0), "1", "keypoints is wrong"),
        (("annotations", 0, "scores"), [0.5], "a list of 17 finite numbers"),
        (("annotations", 0, "score"), "high", "score is wrong"),
        (("annotations", 0, "bbox"), [1, 2, 3], "bbox is wrong"),
        (("annotations", 0, "track_id"), "a", "track_id is wrong"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, way: tuple[Any, ...], value: Any, text: str) -> None:
    with pytest.raises(LabelsError, match=text) as caught:
        read_posetrack18(_write(tmp_path, _edited(*way, value=value)))
    assert "000342_mpii_test.json" in str(caught.value) and "fix:" in str(caught.value)


@given(data=st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_ends_in_a_message(tmp_path: Path, data: st.DataObject) -> None:
    document = copy.deepcopy(OFFICIAL)
    damage_once(document, data, places_in(OFFICIAL))
    with contextlib.suppress(PosewarperError, PosewarperWarning):
        for table in _read_videos(_write(tmp_path, document)).values():
            write_posetrack18(tmp_path / "again.json", table)
            assert_same(read_posetrack18(tmp_path / "again.json"), table)


# --- writing ------------------------------------------------------------------------------------------------


def test_all_that_a_table_holds_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with_ears = sample_table(keypoints=np.arange(102.0).reshape(3, 17, 2), keypoint_scores=np.ones((3, 17)))
    crowd = sample_table().take(np.zeros(120, int))
    for table in (sample_table(), sample_table().take([]), with_ears, crowd, sample_table(video="other")):
        write_posetrack18(path, table)
        assert_same(read_posetrack18(path), table)
    in_no_folder = sample_table(
        frame_names=("a0.jpg", "a1.jpg", "a2.jpg", "a3.jpg"), frame_numbers=[5, 6, 7, 8]
    )
    for table in (in_no_folder, sample_table(skeleton=COCO)):
        write_posetrack18(path, table)
        assert_same(read_posetrack18(path), table)


def test_the_written_form_is_the_official_one() -> None:
    document = posetrack18_document(sample_table(image_ids=None))
    image = document["images"][1]
    assert image["id"] == image["frame_id"] == 10003420001 and image["vid_id"] == "000342"
    assert image["file_name"] == "images/val/000342_mpii_test/000001.jpg" and image["is_labeled"] is False
    assert image["ignore_regions_y"] == [[1, 2, 40], [6, 8, 1, 3]]
    people = document["annotations"]
    assert [p["id"] for p in people] == [1000342000000, 1000342000200, 1000342000201]
    assert set(people[0]["keypoints"][2::3]) == {0, 1}
    assert people[1]["keypoints"][:3] == [0, 0, 0] and people[1]["scores"][0] == 0
    assert "track_id" not in people[1] and people[2]["track_id"] == 3
    ids = [p["id"] for p in posetrack18_document(sample_table().take(np.zeros(120, int)))["annotations"]]
    assert len(set(ids)) == 120
    json.dumps(document, allow_nan=False)


def test_frames_that_are_not_numbered_as_named_keep_their_numbers(tmp_path: Path) -> None:
    table = sample_table(frame_numbers=[1, 2, 3, 4], image_ids=None)
    write_posetrack18(tmp_path / "x.json", table)
    assert_same(read_posetrack18(tmp_path / "x.json"), table, but=("image_ids",))


def test_the_official_sample(shared_data: Path) -> None:
    folder = shared_data / "posetrack18_sample" / "annotations"
    many = _read_videos(folder / "posetrack18_val.json")
    single = read_tables(folder / "val")
    assert many.keys() == single.keys() == {"009473_mpii_test", "012834_mpii_test"}
    for name, table in single.items():
        assert_same(many[name], table)
        assert table.frame_numbers.tolist() == [0] and np.isnan(table.keypoints[:, 3:5]).all()
    assert [table.n_instances for table in single.values()] == [2, 11]
    nose = single["012834_mpii_test"].keypoints[0, 0]
    assert nose.tolist() == [401, 530]


# --- folders and zip files ----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "set"
    write_annolist(place / "b.json", sample_table())
    write_annolist_mat(place / "a.mat", sample_table())
    write_posetrack18(place / "c.json", sample_table())
    return place


def test_a_folder_may_hold_every_form(folder: Path) -> None:
    (folder / ".DS_Store").write_text("hidden")
    tables = read_tables(folder)
    assert list(tables) == ["a", "b", "c"]
    for name in "abc":
        assert_same(tables[name], sample_table())
        suffix = ".mat" if name == "a" else ".json"
        assert_same(read_tables(folder / f"{name}{suffix}")[name], sample_table())


def test_a_zip_file_is_read(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        archive.write(folder / "b.json", "val/b.json")
        archive.write(folder / "c.json", "val/c.json")
        archive.writestr("__MACOSX/val/._b.json", "?")
    tables = read_tables(tmp_path / "s.zip")
    assert list(tables) == ["b", "c"]
    assert_same(tables["b"], sample_table())
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        archive.writestr("b.json", '{"a": 1}')
    with pytest.raises(LabelsError, match=r"s\.zip.b\.json: these are no annotations"):
        read_tables(tmp_path / "s.zip")


def test_of_json_and_mat_the_json_is_read(folder: Path) -> None:
    write_annolist_mat(folder / "b.mat", sample_table(n_frames=5))
    with pytest.warns(PosewarperWarning, match=r"1 videos .* the first being b"):
        tables = read_tables(folder)
    assert list(tables) == ["a", "b", "c"] and tables["b"].n_frames == 90


def test_foreign_files_are_named(folder: Path, tmp_path: Path) -> None:
    (folder / "notes.txt").write_text("?")
    (folder / "more").mkdir()
    with pytest.raises(LabelsError, match=r"holds more than files of PoseTrack(.|\n)*more/, notes\.txt"):
        read_tables(folder)
    shutil.rmtree(folder / "more")
    (folder / "notes.txt").rename(folder / "notes.json")
    with pytest.raises(LabelsError, match=r"notes\.json: the file is no valid JSON"):
        read_tables(folder)
    (folder / "notes.json").write_text('{"boxes": []}')
    with pytest.raises(LabelsError, match=r"notes\.json(.|\n)*an object with the keys boxes"):
        read_tables(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(LabelsError, match="an empty folder"):
        read_tables(tmp_path / "empty")
    with pytest.raises(LabelsError, match="absent"):
        read_tables(tmp_path / "absent")


def test_a_file_of_many_videos_has_their_names(tmp_path: Path) -> None:
    document = posetrack18_document(sample_table())
    other = copy.deepcopy(document)
    for image in other["images"]:
        image["id"] += 1000000
        image["frame_id"] += 1000000
        image["file_name"] = image["file_name"].replace("000342_mpii_test", "000343_mpii_test")
    document["images"] += other["images"]
    (tmp_path / "posetrack_val.json").write_text(json.dumps(document))
    tables = read_tables(tmp_path)
    assert list(tables) == ["000342_mpii_test", "000343_mpii_test"]
    assert_same(tables["000342_mpii_test"], sample_table())
    assert tables["000343_mpii_test"].n_instances == 0
    write_posetrack18(tmp_path / "000343_mpii_test.json", sample_table())
    with pytest.raises(LabelsError, match="two files hold video 000343_mpii_test"):
        read_tables(tmp_path)


def test_crowds_stay_crowds(tmp_path: Path) -> None:
    table = sample_table(is_person=[True, False, True])
    write_posetrack18(tmp_path / "a.json", table)
    assert read_posetrack18(tmp_path / "a.json").is_person.tolist() == [True, False, True]
