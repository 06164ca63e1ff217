"""DeepLabCut's table: one animal and several, both layouts of the index, and damage."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posewarper.errors import LabelsError, PosewarperError, PosewarperWarning
from posewarper.formats.catalogue import detect_format
from posewarper.formats.labels import read_annotations, read_labels, write_labels
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Track

ONE = """\
scorer,Ann,Ann,Ann,Ann
bodyparts,snout,snout,tail,tail
coords,x,y,x,y
labeled-data/mouse/img0004.png,1.5,2.25,100.123456789012,7
labeled-data/mouse/img0012.png,3,4,,
labeled-data/mouse/img0030.png,,,,
"""
SEVERAL = """\
scorer,,,Ann,Ann,Ann,Ann,Ann,Ann
individuals,,,m1,m1,m2,m2,single,single
bodyparts,,,snout,snout,snout,snout,corner,corner
coords,,,x,y,x,y,x,y
labeled-data,mice,img0004.png,1,2,3,4,5,6
labeled-data,mice,img0012.png,,,7,8,,
"""


@dataclass
class FakeVideo:
    n_frames: int = 100
    image_size: tuple[int, int] = (480, 640)
    frame_names: tuple[str, ...] = ()
    path: str = "mouse.mp4"


def save(folder: Path, text: str) -> Path:
    path = folder / "CollectedData_Ann.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_one_animal(tmp_path):
    path = save(tmp_path, ONE)
    assert detect_format(path) == "deeplabcut"
    labels = read_labels(path)
    assert labels.skeleton.names == ("snout", "tail")
    assert labels.labelled_frames.tolist() == [4, 12]
    assert (labels.video, labels.image_size, labels.n_frames) == ("mouse", None, None)
    assert labels.frame_names[4] == "labeled-data/mouse/img0004.png"
    np.testing.assert_array_equal(labels.tracks[0].visibility, [[2, 2], [2, 0]])
    # An empty cell is a keypoint that nobody has looked at.
    np.testing.assert_array_equal(labels.tracks[0].not_looked_at, [[False, False], [False, True]])
    np.testing.assert_array_equal(labels.tracks[0].keypoints[0], [[1.5, 2.25], [100.123456789012, 7]])
    assert read_labels(path, video=FakeVideo()).image_size == (480, 640)


def test_several_animals_and_the_keypoints_of_single(tmp_path):
    labels = read_labels(save(tmp_path, SEVERAL))
    assert labels.skeleton.names == ("snout", "corner")
    assert labels.labelled_frames.tolist() == [4, 12]
    assert {i: track.frames.tolist() for i, track in labels.tracks.items()} == {0: [4], 1: [4, 12], 2: [4]}
    np.testing.assert_array_equal(labels.tracks[1].keypoints[1], [[7, 8], [np.nan, np.nan]])
    np.testing.assert_array_equal(labels.tracks[2].keypoints[0], [[np.nan, np.nan], [5, 6]])


def test_backslashes_and_folders_of_frames(tmp_path):
    path = save(tmp_path, ONE.replace("/", "\\"))
    assert read_labels(path).video == "mouse"
    names = ("img0001.png", "img0004.png", "img0012.png", "img0030.png")
    labels = read_labels(path, video=FakeVideo(4, frame_names=names))
    assert labels.labelled_frames.tolist() == [1, 2]


def test_the_opened_video_picks_one_of_several(tmp_path):
    path = save(tmp_path, ONE.replace("mouse/img0012", "rat/img0012"))
    with pytest.warns(PosewarperWarning, match="tail"):
        assert read_labels(path, video=FakeVideo(path="rat.avi")).labelled_frames.tolist() == [12]
    with pytest.raises(LabelsError, match="labels of 2 videos"):
        read_labels(path)


def test_one_coordinate_alone_is_no_label(tmp_path):
    with pytest.warns(PosewarperWarning, match="line 4: tail has only one of x and y"):
        labels = read_annotations(save(tmp_path, ONE.replace("100.123456789012", "")))
    assert labels.tracks[0].visibility.tolist() == [[2, 0], [2, 0]]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("coords,x,y,x,y\n", "", "header is not DeepLabCut's"),
        ("coords,x,y,x,y", "coords,x,y,x,likelihood", "table of predictions"),
        ("coords,x,y,x,y", "coords,x,y,x,x", "columns do not pair"),
        ("bodyparts,snout,snout,", "bodyparts,,,", "columns do not pair"),
        ("coords,x,y,x,y", "coords,x,y,x", "different lengths"),
        ("scorer,Ann,Ann,", "scorer,,Ann,", "1 or 3 columns"),
        ("1.5,2.25", "1.5", "line 4: the row has another length"),
        ("1.5", "abc", "line 4: a coordinate of snout is wrong"),
        ("1.5", "inf", "line 4: a coordinate of snout is wrong"),
        ("1.5", "1e200", "line 4: a coordinate of snout is wrong"),
        ("img0012", "img0004", "frame 4 for line 4 and line 5"),
        ("img0012", "img", "cannot tell which frame"),
        ("1.5", '"1.5', "no valid CSV"),
        (ONE[ONE.index("labeled") :], "", "the table has no rows"),
        (ONE[ONE.index("labeled") :], "labeled-data/mouse/img0030.png,,,,", "no frame is labelled"),
    ],
)
def test_damage_is_named(tmp_path, old, new, message):
    assert old in ONE
    path = save(tmp_path, ONE.replace(old, new))
    with pytest.raises(LabelsError, match=message) as error:
        read_labels(path)
    assert str(path) in str(error.value)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_tables_never_end_in_another_error(tmp_path, data):
    text = data.draw(st.sampled_from([ONE, SEVERAL]))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = start + data.draw(st.integers(0, 30))
        junk = data.draw(
            st.sampled_from(["", ",", "\n", "\r", '"', "nan", "inf", "x", "1e400", "\0", "\\", "é"])
        )
        text = text[:start] + junk + text[end:]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PosewarperWarning)
        try:
            labels = read_labels(save(tmp_path, text))
        except PosewarperError:
            return
        write_labels(tmp_path / "again.csv", labels)


def a_label_set(*, tracks: int) -> Labels:
    rng = np.random.default_rng(0)
    frames = np.array([2, 7, 12])
    keypoints = rng.uniform(0, 100, (tracks, 3, 2, 2))
    visibility = np.full((tracks, 3, 2), 2)
    visibility[0, 1, 1] = 0
    return Labels(
        Skeleton(("snout", "tail"), name="animal"),
        {n: Track(frames, keypoints[n], visibility=visibility[n]) for n in range(tracks)},
        video="mouse",
    )


@pytest.mark.parametrize("tracks", [1, 3])
def test_what_is_written_comes_back_bit_by_bit(tmp_path, tracks):
    labels = a_label_set(tracks=tracks)
    path = tmp_path / "CollectedData_Bob.csv"
    write_labels(path, labels)
    rows = path.read_text().splitlines()
    assert rows[0].startswith("scorer,Bob")
    assert rows[1].startswith("bodyparts,snout" if tracks == 1 else "individuals,ind1,ind1,ind1,ind1,ind2")
    assert rows[-1].startswith("labeled-data/mouse/img0012.png,")
    again = read_labels(path)
    assert again.skeleton == labels.skeleton
    assert again.video == "mouse"
    assert list(again.tracks) == list(labels.tracks)
    for n, track in labels.tracks.items():
        np.testing.assert_array_equal(again.tracks[n].frames, track.frames)
        np.testing.assert_array_equal(again.tracks[n].keypoints, track.keypoints)
        np.testing.assert_array_equal(again.tracks[n].visibility, track.visibility)
    second = tmp_path / "CollectedData_Bob2.csv"
    write_labels(second, again)
    assert second.read_text() == path.read_text().replace("Bob", "Bob2")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({2: "a_02.png"}, ["a_02.png", "a_07.png", "a_12.png"]),
        ({2: "v1/f9_2.jpg", 12: "v1/f9_12.jpg"}, ["f9_2.jpg", "f9_7.jpg", "f9_12.jpg"]),
        ({2: "odd.png"}, ["img0002.png", "img0007.png", "img0012.png"]),
        ({2: "a2.png", 7: "b7.png"}, ["img0002.png", "img0007.png", "img0012.png"]),
    ],
)
def test_all_images_are_named_after_one_scheme(tmp_path, names, expected):
    labels = replace(a_label_set(tracks=1), frame_names=names)
    told = (
        pytest.warns(PosewarperWarning, match="names of the frames' files")
        if "img" in expected[0]
        else nullcontext()
    )
    with told:
        write_labels(tmp_path / "t.csv", labels)
    rows = (tmp_path / "t.csv").read_text().splitlines()[3:]
    assert [row.split(",")[0] for row in rows] == [f"labeled-data/mouse/{name}" for name in expected]


def test_what_the_table_cannot_hold_is_named(tmp_path):
    track = Track([3], [[[1, 2], [3, 4]]], visibility=[[1, 2]], boxes=[[0, 0, 5, 5]])
    labels = Labels(
        Skeleton(("a", "b"), ((0, 1),)),
        {4: track},
        labelled_frames=[1],
        image_size=(20, 30),
        n_frames=9,
        frame_names={3: "clip/000004.jpg"},
    )
    with pytest.warns(PosewarperWarning) as caught:
        write_labels(tmp_path / "out.csv", labels)
    said = " ".join(str(warning.message) for warning in caught)
    for lost in ("hidden", "boxes", "edges", "image size", "number of frames", "track ids", "predictions"):
        assert lost in said
    assert "nobody" in said and "numbered otherwise" in said and "ignore" not in said
    assert "labeled-data/clip/000004.jpg,1.0,2.0,3.0,4.0" in (tmp_path / "out.csv").read_text()


def decimal_commas(text: str) -> str:
    """Commas in the numbers and semicolons between the cells."""
    top, rows = text.split("coords,x,y,x,y\n")
    rows = rows.replace(",", ";").replace("0.", "0,").replace("1.5", "1,5").replace("2.25", "2,25")
    return top.replace(",", ";") + "coords;x;y;x;y\n" + rows


@pytest.mark.parametrize(
    "data",
    [
        ONE.replace(",", ";").encode(),
        ONE.replace(",", "\t").replace("\n", "\r\n").encode("utf-8-sig"),
        ONE.replace(",", "|").replace("\n", "\r").encode(),
        decimal_commas(ONE).encode(),
        ("sep=;\r\n" + decimal_commas(ONE)).encode("utf-16"),
        b"\xef\xbb\xbf" + ('"SEP=,"\n' + ONE).encode(),
        ONE.encode("utf-16-le"),
        ONE.encode("utf-16-be"),
        "\n".join(",".join(f'"{cell}"' for cell in row.split(",")) for row in ONE.splitlines()).encode(),
        ONE.replace("\n", ",,\n").encode(),  # filled up by Excel
        ONE.replace(",,", ",NA,NA").replace("NA,,", "NA,NA,NA").encode(),
    ],
)
def test_tables_that_excel_and_r_have_saved(tmp_path, data):
    path = tmp_path / "CollectedData_Ann.csv"
    path.write_bytes(data)
    assert detect_format(path) == "deeplabcut"
    labels = read_labels(path)
    assert labels.labelled_frames.tolist() == [4, 12]
    assert labels.tracks[0].keypoints[0].tolist() == [[1.5, 2.25], [100.123456789012, 7]]
    assert labels.tracks[0].visibility.tolist() == [[2, 2], [2, 0]]
