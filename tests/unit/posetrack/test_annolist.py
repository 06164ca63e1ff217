"""PoseTrack17's annotation files: values worked out by hand, odd forms, round trips, damage."""

from __future__ import annotations

import contextlib
import copy
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import damage_once, places_in
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from table_samples import EARS, assert_same, sample_table

from posewarper.errors import LabelsError, PosewarperError, PosewarperWarning
from posewarper.formats.records import read_json
from posewarper.posetrack.annolist import annolist_document, table_of_annolist, write_annolist
from posewarper.posetrack.points import POINT_KEYPOINTS, POINTS, apply_neck_rule
from posewarper.posetrack.posetrack18 import read_posetrack18
from posewarper.skeletons import COCO, POSETRACK

OFFICIAL: dict[str, Any] = {
    "annolist": [
        {
            "image": [{"name": "images/bonn_5sec/000342_mpii/00000041.jpg"}],
            "imgnum": [41],
            "is_labeled": [1],
            "ignore_regions": [
                {"point": [{"x": [1], "y": [2]}, {"x": [30], "y": [4]}, {"x": [5], "y": [60]}]}
            ],
            "annorect": [
                {
                    "x1": [100],
                    "y1": [50],
                    "x2": [130],
                    "y2": [90.5],
                    "score": [0.75],
                    "track_id": [3],
                    "annopoints": [
                        {
                            "point": [
                                {"id": [0], "x": [11], "y": [12], "is_visible": [1], "score": [0.5]},
                                {"id": [12], "x": [13.5], "y": [14], "is_visible": [0]},
                                {"id": [14], "x": [15], "y": [16], "is_visible": []},
                            ]
                        }
                    ],
                },
                {"track_id": [0], "x1": [1], "y1": [2], "x2": [3], "y2": [5]},
            ],
        },
        {"image": [{"name": "images/bonn_5sec/000342_mpii/00000042.jpg"}], "is_labeled": [0], "annorect": []},
    ]
}
POINT = ("annolist", 0, "annorect", 0, "annopoints", 0, "point", 1)


def read_annolist(path: Path):
    return table_of_annolist(read_json(path), path)


def _read(folder: Path, document: Any):
    path = folder / "000342_mpii.json"
    path.write_text(json.dumps(document))
    return read_annolist(path)


def _edited(*way: Any, value: Any) -> dict[str, Any]:
    document = copy.deepcopy(OFFICIAL)
    holder: Any = document
    for step in way[:-1]:
        holder = holder[step]
    holder[way[-1]] = value
    return document


def test_the_official_form_is_read_value_by_value(tmp_path: Path) -> None:
    table = _read(tmp_path, OFFICIAL)
    assert table.video == "000342_mpii"
    assert table.frame_names == (
        "bonn_5sec/000342_mpii/00000041.jpg",
        "bonn_5sec/000342_mpii/00000042.jpg",
    )
    assert table.frame_numbers.tolist() == [41, 42]  # the second from the file name
    assert table.is_labelled.tolist() == [True, False]
    assert table.rows.tolist() == [0, 0] and table.tracks.tolist() == [3, 0]
    names = POSETRACK.names
    points = {name: table.keypoints[0, names.index(name)].tolist() for name in names}
    assert points["right_ankle"] == [11, 12]
    assert points["head_bottom"] == [13.5, 14]  # is_visible 0 is a label nevertheless
    assert points["head_top"] == [15, 16]
    assert np.isfinite(table.keypoints[0, :, 0]).sum() == 3 and np.isnan(table.keypoints[1]).all()
    assert table.keypoint_scores[0, names.index("right_ankle")] == 0.5
    assert np.isfinite(table.keypoint_scores).sum() == 1
    assert table.scores[0] == 0.75 and np.isnan(table.scores[1])
    assert table.head_boxes.tolist() == [[100, 50, 30, 40.5], [1, 2, 2, 3]]
    assert np.isnan(table.boxes).all()
    assert table.ignore_regions.keys() == {0}
    assert table.ignore_regions[0][0].tolist() == [[1, 2], [30, 4], [5, 60]]
    assert table.image_ids is None and table.n_frames is None and table.image_size is None


def test_the_15_points_have_their_keypoints() -> None:
    named = {point: POSETRACK.names[k] for point, k in zip(POINTS, POINT_KEYPOINTS, strict=True)}
    assert named.pop("neck") == "head_bottom"
    assert all(point == name for point, name in named.items())
    assert POINTS[0] == "right_ankle" and POINTS[12] == "neck" and POINTS[14] == "head_top"


def _bare(value: Any) -> Any:
    """A document without its lists of one."""
    if isinstance(value, dict):
        return {key: _bare(item) for key, item in value.items()}
    if isinstance(value, list):
        return _bare(value[0]) if len(value) == 1 else [_bare(item) for item in value]
    return value


def test_lists_of_one_may_be_left_away(tmp_path: Path) -> None:
    expected = _read(tmp_path, OFFICIAL)
    assert_same(_read(tmp_path, _bare(OFFICIAL)), expected)
    as_dict = _edited("annolist", 0, "image", value={"name": "bonn_5sec/000342_mpii/00000041.jpg"})
    assert_same(_read(tmp_path, as_dict), expected)


@pytest.mark.parametrize("empty", [{}, [], {"x1": [], "annopoints": [], "track_id": []}, {"annopoints": []}])
def test_who_has_nothing_is_nobody(tmp_path: Path, empty: Any) -> None:
    table = _read(tmp_path, _edited("annolist", 1, "annorect", value=[empty]))
    assert table.rows.tolist() == [0, 0]


def test_an_empty_point_is_none(tmp_path: Path) -> None:
    empty = {"id": [], "x": [], "y": [], "is_visible": []}
    assert_same(_read(tmp_path, _edited(*POINT, value=empty)), _read(tmp_path, _without_point()))


def _without_point() -> dict[str, Any]:
    document = copy.deepcopy(OFFICIAL)
    del document["annolist"][0]["annorect"][0]["annopoints"][0]["point"][1]
    return document


def test_frames_without_a_word_on_labels(tmp_path: Path) -> None:
    document = copy.deepcopy(OFFICIAL)
    for frame in document["annolist"]:
        del frame["is_labeled"]
    assert _read(tmp_path, document).is_labelled.tolist() == [True, True]
    document["annolist"].append({"image": [{"name": "a/3.jpg"}], "is_labeled": [1]})
    assert _read(tmp_path, document).is_labelled.tolist() == [True, False, True]


def test_a_point_given_twice_is_told(tmp_path: Path) -> None:
    points = [{"id": [0], "x": [1], "y": [2]}, {"id": [0], "x": [3], "y": [4]}]
    document = _edited("annolist", 0, "annorect", 0, "annopoints", 0, "point", value=points)
    with pytest.warns(PosewarperWarning, match="given twice for the same person"):
        table = _read(tmp_path, document)
    assert table.keypoints[0, 16].tolist() == [3, 4]


@pytest.mark.parametrize(
    ("way", "value", "text"),
    [
        ((*POINT, "id"), [15], r"annorect\[0\]: point 1 is wrong"),
        ((*POINT, "id"), [], "an id from 0 to 14"),
        ((*POINT, "x"), ["7"], r'x "7"'),
        ((*POINT, "y"), [1e9], "y 1000000000.0"),
        ((*POINT, "score"), [True], "score true"),
        ((*POINT, "score"), [float("inf")], "point 1 is wrong"),
        ((*POINT, "x"), [1, 2], r"x \[1, 2\]"),
        ((*POINT, "x"), [1] * 9, "a list of 9 values"),
        (POINT, "here", "objects with id, x and y"),
        (("annolist", 1, "image"), [{}], r"annolist\[1\]: image is wrong"),
        (
            ("annolist", 1, "image", 0, "name"),
            "images/bonn_5sec/000342_mpii/00000041.jpg",
            "same file name",
        ),
        (("annolist", 1, "image", 0, "name"), "frame.jpg", "imgnum is missing"),
        (("annolist", 0, "annorect", 0, "x1"), ["a"], "x1 is wrong"),
        (("annolist", 0, "annorect", 0, "track_id"), [1.5], "track_id is wrong"),
        (("annolist", 0, "annorect"), 5, "annorect is wrong"),
        (("annolist", 0, "is_labeled"), ["yes"], "is_labeled is wrong"),
        (("annolist", 0, "ignore_regions", 0, "point", 0, "x"), [], "point is wrong"),
        (("annolist",), [], "annolist is missing"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, way: tuple[Any, ...], value: Any, text: str) -> None:
    with pytest.raises(LabelsError, match=text) as caught:
        _read(tmp_path, _edited(*way, value=value))
    assert "000342_mpii.json" in str(caught.value) and "fix:" in str(caught.value)


def test_scores_of_any_size_are_taken(tmp_path: Path) -> None:
    table = _read(tmp_path, _edited(*POINT, "score", value=[2e9]))
    assert table.keypoint_scores is not None and np.nanmax(table.keypoint_scores) == 2e9


def test_all_that_a_table_holds_comes_back(tmp_path: Path) -> None:
    for table in (
        sample_table(),
        sample_table(video="another", image_ids=None, n_frames=None, image_size=None),
    ):
        write_annolist(tmp_path / "x.json", table)
        assert_same(read_annolist(tmp_path / "x.json"), table)


def test_the_written_form_is_the_official_one() -> None:
    frame = annolist_document(sample_table())["annolist"][0]
    assert frame["image"][0]["name"] == "images/val/000342_mpii_test/000000.jpg"
    assert frame["imgnum"] == [0] and frame["is_labeled"] == [1]
    person = frame["annorect"][0]
    assert [person[key] for key in ("x1", "y1", "x2", "y2")] == [[10.0], [20.0], [13.0], [24.0]]
    assert person["track_id"] == [7] and person["score"] == [0.5]
    points = person["annopoints"][0]["point"]
    assert [point["id"] for point in points] == [[i] for i in range(15)]
    assert points[13] == {"id": [13], "x": [0.1], "y": [1.1], "score": [0.0]}
    json.dumps(annolist_document(sample_table()), allow_nan=False)


def test_ears_and_other_skeletons_have_no_place(tmp_path: Path) -> None:
    keypoints = sample_table().keypoints.copy()
    keypoints[:, EARS] = 5.0
    write_annolist(tmp_path / "x.json", sample_table(keypoints=keypoints))
    assert_same(read_annolist(tmp_path / "x.json"), sample_table())
    with pytest.raises(LabelsError, match="not PoseTrack's keypoints"):
        write_annolist(tmp_path / "y.json", sample_table(skeleton=COCO))
    assert not (tmp_path / "y.json").exists()


@pytest.mark.parametrize("name", ["small_basic", "small_edge", "small_ignore", "constant_id", "medium"])
@pytest.mark.parametrize("side", ["gt", "pred"])
def test_both_layouts_of_the_evaluation_sets_agree(parity_dir: Path, name: str, side: str) -> None:
    files = sorted((parity_dir / "poseval" / name / f"{side}17").glob("*.json"))
    assert files
    for file in files:
        ours = read_annolist(file)
        theirs = read_posetrack18(file.parent.with_name(f"{side}18") / file.name)
        assert ours.video == theirs.video == file.stem
        # The sets name their frames differently, and count them from 1 and from 0; predictions in the older
        # form know of no labelled frames, in the newer one of no scores of people.
        other = {"frame_names", "frame_numbers", "image_ids", "n_frames"}
        other |= {"is_labelled", "scores"} if side == "pred" else set()
        assert_same(ours, theirs, but=tuple(other))
        assert (ours.frame_numbers == theirs.frame_numbers + 1).all()
        assert len(ours.frame_names) == theirs.n_frames


def test_the_neck() -> None:
    table = sample_table()
    assert apply_neck_rule(table, "head_bottom") is table
    moved = apply_neck_rule(table, "shoulders")
    left, right = (POSETRACK.names.index(f"{side}_shoulder") for side in ("left", "right"))
    neck = POSETRACK.names.index("head_bottom")
    for k, (a, b) in enumerate(zip(table.keypoints[:, left], table.keypoints[:, right], strict=True)):
        assert moved.keypoints[k, neck].tolist() == [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2]
    expected = (table.keypoint_scores[:, left] + table.keypoint_scores[:, right]) / 2
    assert moved.keypoint_scores[:, neck].tolist() == expected.tolist()
    others = [k for k in range(17) if k != neck]
    np.testing.assert_array_equal(moved.keypoints[:, others], table.keypoints[:, others])

    keypoints = table.keypoints.copy()
    keypoints[1, left] = np.nan
    without = apply_neck_rule(sample_table(keypoints=keypoints), "shoulders")
    assert np.isnan(without.keypoints[1, neck]).all() and np.isfinite(without.keypoints[0, neck]).all()
    with pytest.raises(PosewarperError, match="shoulders, head_bottom"):
        apply_neck_rule(table, "chin")
    with pytest.raises(LabelsError, match="without head_bottom"):
        apply_neck_rule(sample_table(skeleton=COCO), "shoulders")


@given(data=st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_ends_in_a_message(tmp_path: Path, data: st.DataObject) -> None:
    document = copy.deepcopy(OFFICIAL)
    damage_once(document, data, places_in(OFFICIAL))
    with warnings.catch_warnings(), contextlib.suppress(PosewarperError):
        warnings.simplefilter("ignore", PosewarperWarning)
        table = _read(tmp_path, document)
        write_annolist(tmp_path / "again.json", table)
        assert_same(read_annolist(tmp_path / "again.json"), table, but=("head_boxes",))


def test_a_coordinate_that_is_no_number_is_refused(tmp_path: Path) -> None:
    person = {"annopoints": [{"point": [{"id": [0], "x": [float("nan")], "y": [3.0]}]}]}
    frame = {"image": [{"name": "images/v/1.jpg"}], "imgnum": [1], "annorect": [person]}
    path = tmp_path / "v.json"
    path.write_text(json.dumps({"annolist": [frame]}))
    with pytest.raises(LabelsError, match="point 0 is wrong"):
        read_annolist(path)
