"""PoseTrack17's annotation files as MATLAB writes them, in the forms that its structs can take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat
from table_samples import assert_same, sample_table

from posewarper.errors import LabelsError
from posewarper.posetrack.annolist import read_annolist_mat, write_annolist_mat
from posewarper.skeletons import POSETRACK
from posewarper.structures import NO_TRACK

EMPTY = np.zeros((0, 0))


def _structs(*values: dict[str, Any]) -> np.ndarray:
    """A struct array: every element has every field, empty where it has no value."""
    names = list(dict.fromkeys(key for value in values for key in value))
    array = np.empty((1, len(values)), dtype=[(name, object) for name in names])
    for i, value in enumerate(values):
        for name in names:
            array[0, i][name] = value.get(name, EMPTY)
    return array


def _read(folder: Path, **variables: Any):
    path = folder / "000342_mpii.mat"
    savemat(path, variables)
    return read_annolist_mat(path)


def _point(number: float, x: float, y: float, **more: Any) -> dict[str, Any]:
    return {"id": number, "x": x, "y": y} | more


def test_matlabs_own_form_is_read_value_by_value(tmp_path: Path) -> None:
    people = _structs(
        {
            "x1": 100.0,
            "y1": 50.0,
            "x2": 130.0,
            "y2": 90.5,
            "track_id": 3.0,
            "annopoints": _structs(
                {"point": _structs(_point(0, 11.5, 12, is_visible=1.0), _point(12, 13, 14))}
            ),
        },
        {"x1": 1.0, "y1": 2.0, "x2": 3.0, "y2": 5.0},  # nobody has marked a point
    )
    corners = _structs({"x": 1.0, "y": 2.0}, {"x": 30.0, "y": 4.0}, {"x": 5.0, "y": 60.5})
    frames = _structs(
        {
            "image": _structs({"name": "images/bonn_5sec/000342_mpii/00000041.jpg"}),
            "imgnum": 41.0,
            "is_labeled": True,
            "annorect": people,
            "ignore_regions": _structs({"point": corners}),
        },
        {"image": _structs({"name": "images/bonn_5sec/000342_mpii/00000042.jpg"}), "is_labeled": False},
        {"image": _structs({"name": "images/bonn_5sec/000342_mpii/00000043.jpg"}), "annorect": EMPTY},
    )
    table = _read(tmp_path, annolist=frames)
    assert table.video == "000342_mpii"
    assert table.frame_numbers.tolist() == [41, 42, 43]
    assert table.is_labelled.tolist() == [True, False, False]
    assert table.rows.tolist() == [0, 0] and table.tracks.tolist() == [3, NO_TRACK]
    assert table.keypoints[0, POSETRACK.names.index("right_ankle")].tolist() == [11.5, 12]
    assert table.keypoints[0, POSETRACK.names.index("head_bottom")].tolist() == [13, 14]
    assert np.isfinite(table.keypoints[..., 0]).sum() == 2
    assert table.head_boxes.tolist() == [[100, 50, 30, 40.5], [1, 2, 2, 3]]
    assert table.ignore_regions[0][0].tolist() == [[1, 2], [30, 4], [5, 60.5]]


def test_one_frame_one_person_one_point(tmp_path: Path) -> None:
    """What has one element only comes out of its array."""
    person = {"track_id": np.uint8(9), "annopoints": {"point": _point(14, 5, 6)}}
    frame = {"image": {"name": "images/a/7.jpg"}, "annorect": person}
    table = _read(tmp_path, annolist=frame)
    assert table.frame_names == ("a/7.jpg",) and table.frame_numbers.tolist() == [7]
    assert table.keypoints[0, POSETRACK.names.index("head_top")].tolist() == [5, 6]
    assert table.tracks.tolist() == [9]


def test_cells_of_structs(tmp_path: Path) -> None:
    cells = np.empty(2, object)
    cells[:] = [{"image": {"name": "a/1.jpg"}}, {"image": {"name": "a/2.jpg"}, "annorect": {"x1": 4.0}}]
    table = _read(tmp_path, annolist=cells)
    assert table.frame_numbers.tolist() == [1, 2] and table.n_instances == 1


def test_all_that_a_table_holds_comes_back(tmp_path: Path) -> None:
    one_frame = sample_table().of_frame(0)
    for table in (
        sample_table(),
        sample_table().take([]),
        one_frame,
        sample_table(video="other", n_frames=None),
    ):
        write_annolist_mat(tmp_path / "x.mat", table)
        assert_same(read_annolist_mat(tmp_path / "x.mat"), table)


def test_other_files_are_explained(tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match=r"expected: the struct annolist\n  got:      boxes"):
        _read(tmp_path, boxes=np.ones(3))
    path = tmp_path / "broken.mat"
    whole = (tmp_path / "000342_mpii.mat").read_bytes()
    for content in (
        b"",
        b"no matlab",
        whole[:150],
        b"MATLAB 7.3 MAT-file" + b" " * 105 + b"\0\2IM" + b"\0" * 400,
    ):
        path.write_bytes(content)
        with pytest.raises(LabelsError, match=r"broken\.mat"):
            read_annolist_mat(path)
    with pytest.raises(LabelsError, match="cannot read"):
        read_annolist_mat(tmp_path / "absent.mat")
    with pytest.raises(LabelsError, match=r"version 7\.3"):
        read_annolist_mat(path)
