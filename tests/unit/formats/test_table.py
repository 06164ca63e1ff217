"""Long tables: names of columns, separators, times, tracks, what is refused and what is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from posewarper.errors import LabelsError, PosewarperWarning
from posewarper.formats.catalogue import detect_format
from posewarper.formats.labels import read_annotations, read_labels, write_labels
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Track

# Frames of a clip whose rate changes: 0.04 s, then 0.1 s apart.
TIMES = np.array([0, 0.04, 0.08, 0.12, 0.22, 0.32, 0.42])


@dataclass
class FakeVideo:
    n_frames: int = 7
    image_size: tuple[int, int] = (480, 640)
    frame_names: tuple[str, ...] = ()
    path: str = "clip.mp4"
    times: np.ndarray = field(default_factory=lambda: TIMES)


BOTH = """\
frame,track,keypoint,x,y,visibility,score,expected_error,labelled
3,0,nose,1.5,2.25,2,0.5,0.125,1
3,0,tail,3,4,1,,,1
3,7,nose,,,0,,,1
3,7,tail,7,8,2,,,1
5,,,,,,,,1
9,0,tail,9,10,2,0.75,2,0
"""


def save(folder: Path, text: str, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_every_column(tmp_path):
    path = save(tmp_path, BOTH)
    assert detect_format(path) == "csv"
    labels = read_annotations(path)
    assert labels.skeleton.names == ("nose", "tail")
    assert labels.labelled_frames.tolist() == [3, 5]
    assert {i: track.frames.tolist() for i, track in labels.tracks.items()} == {0: [3, 9], 7: [3]}
    first = labels.tracks[0]
    np.testing.assert_array_equal(first.keypoints, [[[1.5, 2.25], [3, 4]], [[np.nan, np.nan], [9, 10]]])
    np.testing.assert_array_equal(first.visibility, [[2, 1], [0, 2]])
    np.testing.assert_array_equal(first.keypoint_scores, [[0.5, np.nan], [np.nan, 0.75]])
    np.testing.assert_array_equal(first.expected_error, [[0.125, np.nan], [np.nan, 2]])
    np.testing.assert_array_equal(labels.tracks[7].visibility, [[0, 2]])
    assert read_labels(path).tracks[0].frames.tolist() == [3]


@pytest.mark.parametrize(
    "text",
    [
        "Frame,Individual,BodyPart,X,Y,Likelihood\n3,m1,nose,1.5,2,0.9\n3,m2,nose,7.5,8,0.25\n",
        "frame_idx;id;node;x;y;confidence\n3;m1;nose;1,5;2;0,9\n3;m2;nose;7,5;8;0,25\n",
        "\ufeffframe\tanimal\tjoint\tx\ty\tscore\r\n3\tm1\tnose\t1,5\t2\t0.9\r\n\r\n3\tm2\tnose\t7.5\t8\t0.25\r\n",
        "\n score , y,x,keypoint,track,frame\n0.9,2,1.5,nose,m1,3.0\n0.25,8,7.5,nose,m2,3.0\n",
    ],
)
def test_names_of_columns_separators_and_decimal_commas(tmp_path, text):
    path = save(tmp_path, text)
    assert detect_format(path) == "csv"
    labels = read_labels(path)
    assert labels.track_names == {0: "m1", 1: "m2"}
    np.testing.assert_array_equal(labels.tracks[0].keypoints, [[[1.5, 2]]])
    np.testing.assert_array_equal(labels.tracks[1].keypoints, [[[7.5, 8]]])
    np.testing.assert_array_equal(labels.tracks[1].keypoint_scores, [[0.25]])
    assert (labels.tracks[1].visibility == 2).all()


def test_without_tracks_and_with_columns_of_others(tmp_path):
    text = "id,frame,individual,keypoint,x,y,z\n1,3,5,nose,1,2,0\n2,3,5,tail,3,4,0\n"
    with pytest.warns(PosewarperWarning, match="not used: id, z"):
        assert list(read_labels(save(tmp_path, text)).tracks) == [5]
    labels = read_labels(
        save(tmp_path, "frame,keypoint,x,y\n3,nose,1,2\n3,tail,3,4\n9,nose,3,4\n9,tail,1,1\n")
    )
    assert list(labels.tracks) == [0] and labels.tracks[0].frames.tolist() == [3, 9]


def test_the_skeleton_gives_the_order(tmp_path):
    order = Skeleton(("tail", "ear", "nose"), ((0, 2),))
    with pytest.warns(PosewarperWarning, match="never labelled stay empty: ear"):
        labels = read_labels(save(tmp_path, BOTH), skeleton=order)
    assert labels.skeleton == order
    np.testing.assert_array_equal(labels.tracks[0].keypoints[0], [[3, 4], [np.nan, np.nan], [1.5, 2.25]])
    with pytest.raises(LabelsError, match="missing: ear; extra: tail"):
        read_labels(save(tmp_path, BOTH), skeleton=Skeleton(("nose", "ear")))


def times_table(*times: object) -> str:
    return "time_s,keypoint,x,y\n" + "".join(f"{t},nose,{n},2\n" for n, t in enumerate(times))


def test_times_belong_to_the_nearest_frame(tmp_path):
    path = save(tmp_path, times_table(0.0, 0.0801, 0.14, 0.31, 0.42))
    labels = read_labels(path, video=FakeVideo())
    assert labels.tracks[0].frames.tolist() == [0, 2, 3, 5, 6]
    with pytest.raises(LabelsError, match="times alone") as error:
        read_labels(path)
    assert "--video" in str(error.value)
    folder = FakeVideo(frame_names=tuple(f"{n}.png" for n in range(7)), path="frames")
    with pytest.raises(LabelsError, match="frames, a folder, whose images have no times"):
        read_labels(path, video=folder)


def test_times_that_do_not_fit_the_video(tmp_path):
    # Half of the middle step, 0.07 s, is 0.035 s; between 0.12 and 0.22 is 0.165.
    with pytest.warns(
        PosewarperWarning, match=r"half a frame from any frame: 1, the first in line 3 \(0.165 s"
    ):
        labels = read_labels(save(tmp_path, times_table(0.0, 0.165)), video=FakeVideo())
    assert labels.tracks[0].frames.tolist() == [0, 3]
    for times, message in (
        ((0.0, 3.5), r"line 3: this time is not within the video"),
        ((-0.2, 0.0), r"line 2: this time is not within the video"),
        ((0.21, 0.25), "line 3: two times belong to the same frame"),
        ((0.04, ""), "line 3: the row has neither a frame nor a time"),
        ((0.04, "x"), "line 3: time is wrong"),
    ):
        with pytest.raises(LabelsError, match=message):
            read_labels(save(tmp_path, times_table(*times)), video=FakeVideo())


def test_the_frame_counts_before_the_time(tmp_path):
    path = save(tmp_path, "frame,time,keypoint,x,y\n0,0,nose,1,2\n4,0.12,nose,3,4\n")
    assert read_labels(path).tracks[0].frames.tolist() == [0, 4]
    with pytest.warns(PosewarperWarning, match="times of other frames of the video .*: 1;"):
        assert read_labels(path, video=FakeVideo()).tracks[0].frames.tolist() == [0, 4]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("keypoint,", "place,", "line 1: the header lacks columns"),
        ("frame,", "number,", "name the columns that are frame"),
        ("visibility", "x", "line 1: some columns appear twice"),
        ("3,0,nose,1.5,2.25,2,", "3,0,nose,1.5,2.25,", "line 2: the row has another length"),
        ("3,0,nose", "3.5,0,nose", "line 2: frame is wrong"),
        ("3,0,nose", ",0,nose", "line 2: frame is wrong"),
        ("3,0,nose", "-3,0,nose", "line 2: frame is wrong"),
        ("3,0,nose", "9999999999,0,nose", "line 2: frame is wrong"),
        ("3,0,nose", "3,,nose", "line 2: track is empty, while others have one"),
        ("3,0,nose", "3,0,", "line 2: keypoint is empty"),
        ("3,0,tail", "3,0,nose", "line 3: nose is in frame 3 twice"),
        ("1.5", "1e9", "line 2: x is wrong"),
        ("1.5", "1,5", "line 2: the row has another length"),
        ("2.25,2", "2.25,3", "line 2: visibility is wrong"),
        ("2.25,2", "2.25,1.5", "line 2: visibility is wrong"),
        ("0.5", "much", "line 2: score is wrong"),
        ("0.125,1", "0.125,yes", "line 2: labelled is wrong"),
        ("1.5", '"1.5', "no valid CSV"),
        (BOTH[BOTH.index("3,0") :], "", "the table has no rows"),
        (BOTH[BOTH.index("3,0") :], "5,,,,,,,,1\n", "the table has no keypoints"),
    ],
)
def test_damage_is_named(tmp_path, old, new, message):
    assert old in BOTH
    path = save(tmp_path, BOTH.replace(old, new, 1))
    with pytest.raises(LabelsError, match=message) as error:
        read_annotations(path, format="csv")
    assert str(path) in str(error.value) and "fix:" in str(error.value)


def test_one_coordinate_alone_is_no_label(tmp_path):
    with pytest.warns(PosewarperWarning, match="line 2: only one of x and y"):
        labels = read_annotations(save(tmp_path, BOTH.replace("2.25", "")))
    assert labels.tracks[0].visibility[0].tolist() == [0, 1]


def test_states_of_keypoints_are_told_by_two_columns(tmp_path):
    path = save(
        tmp_path,
        "frame,track,keypoint,x,y,visibility,labelled\n"
        "3,0,nose,1,2,2,1\n3,0,tail,,,0,1\n3,0,ear,4,5,2,0\n3,0,paw,,,0,0\n"
        "3,1,nose,,,0,0\n3,2,nose,,,,1\n3,3,nose,,,0,1\n",
    )
    tracks = read_annotations(path).tracks
    told = [tracks[0].placed, tracks[0].absent, tracks[0].predicted, tracks[0].not_looked_at]
    assert [np.flatnonzero(state).tolist() for state in told] == [[0], [1], [2], [3]]
    # Nobody has looked at track 1; an empty cell without a word for it says nothing of track 2.
    assert list(tracks) == [0, 1, 3]
    assert tracks[1].not_looked_at.all() and tracks[3].absent[0].tolist() == [True, False, False, False]


def some_labels() -> Labels:
    track = Track([2, 4], [[[1 / 3, 2], [3, 4]], [[5, 6], [np.nan, np.nan]]], visibility=[[2, 1], [2, 0]])
    return Labels(
        Skeleton(("nose", "tail")), {5: track}, [2, 3], video="clip.mp4", track_names={5: "Ann, B."}
    )


@pytest.mark.filterwarnings("ignore:.*cannot hold")
def test_what_is_written(tmp_path):
    path = tmp_path / "out.csv"
    write_labels(path, some_labels(), format="csv")
    assert path.read_text().splitlines() == [
        "frame,track,track_name,keypoint,x,y,visibility,labelled",
        '2,5,"Ann, B.",nose,0.3333333333333333,2.0,2,1',
        '2,5,"Ann, B.",tail,3.0,4.0,1,1',
        "3,,,,,,,1",
        '4,5,"Ann, B.",nose,5.0,6.0,2,0',
        '4,5,"Ann, B.",tail,,,0,0',
    ]
    assert read_annotations(path).track_names == {5: "Ann, B."}


@pytest.mark.filterwarnings("ignore:.*cannot hold")
def test_times_are_written_if_the_video_is_known(tmp_path):
    path = tmp_path / "out.csv"
    write_labels(path, some_labels(), format="csv", video=FakeVideo())
    assert path.read_text().startswith("frame,time,track,")
    assert "\n4,0.22," in path.read_text() and "\n3,0.12,,," in path.read_text()
    again = read_annotations(path, video=FakeVideo())
    assert again.labelled_frames.tolist() == [2, 3] and again.tracks[5].frames.tolist() == [2, 4]
    for video in (FakeVideo(n_frames=4), FakeVideo(frame_names=("a.png",))):
        write_labels(path, some_labels(), format="csv", video=video)
        assert path.read_text().startswith("frame,track,")


def numbered(column: str, number, animals: int = 1) -> str:
    """A table of head and tail on three frames, whose column numbers something: number(frame, n, k)."""
    rows = [
        f"{frame},{number(frame, n, k)},{name},{30 + 90 * n + frame + 4 * k},{20 + k}"
        for frame in (2, 10, 18)
        for n in range(animals)
        for k, name in enumerate(("head", "tail"))
    ]
    return "\n".join([f"frame,{column},bodypart,x,y", *rows]) + "\n"


@pytest.mark.parametrize(
    ("column", "number", "animals", "said"),
    [
        ("id", lambda f, n, k: 10 * f + k, 1, "numbers the rows"),
        ("track", lambda f, n, k: f"row{10 * f + k}", 1, "numbers the rows"),
        ("id", lambda f, n, k: k, 1, "numbers the rows"),  # anew in each frame
        ("instance", lambda f, n, k: f, 1, "single instance each"),
        ("track_id", lambda f, n, k: 100 + f, 1, "single instance each"),
        ("id", lambda f, n, k: 10 * f + n, 2, "single instance each"),
    ],
)
def test_numbers_of_rows_and_detections_are_no_tracks(tmp_path, column, number, animals, said):
    path = save(tmp_path, numbered(column, number, animals))
    with pytest.warns(PosewarperWarning) as caught:
        labels = read_labels(path)
    assert any(said in str(warning.message) for warning in caught)
    assert {i: track.frames.tolist() for i, track in labels.tracks.items()} == {
        n: [2, 10, 18] for n in range(animals)
    }


def test_rows_of_two_animals_that_are_numbered_are_refused(tmp_path):
    path = save(tmp_path, numbered("id", lambda f, n, k: 10 * f + 2 * n + k, 2))
    with (
        pytest.raises(LabelsError, match="head is in frame 2 twice"),
        pytest.warns(PosewarperWarning, match="numbers the rows"),
    ):
        read_labels(path)


@pytest.mark.parametrize(
    ("column", "number"),
    [
        ("id", lambda f, n, k: 7 + n),
        ("individual", lambda f, n, k: "ab"[n]),
        ("individual", lambda f, n, k: {2: "ann", 10: "bob", 18: "eve"}[f] + "xy"[n]),  # each seen once
    ],
)
def test_tracks_that_individuals_have_stay(tmp_path, column, number):
    path = save(tmp_path, numbered(column, number, 2))
    assert len(read_labels(path).tracks) == len({number(f, n, 0) for f in (2, 10, 18) for n in (0, 1)})


def test_names_that_are_numbered_stay_with_a_warning(tmp_path):
    path = save(tmp_path, numbered("individual", lambda f, n, k: f"mouse{f}"))
    with pytest.warns(PosewarperWarning, match="3 tracks on 3 frames.*the tracks are kept"):
        assert len(read_labels(path).tracks) == 3


def test_one_instance_a_frame_that_cannot_be_one_individual_is_said(tmp_path):
    text = "frame,keypoint,x,y\n" + "".join(
        f"{frame},{name},{x + k},20\n"
        for frame, x in ((0, 10), (1, 500), (2, 12))
        for k, name in ((0, "head"), (9, "tail"))
    )
    with pytest.warns(PosewarperWarning, match="frames 0 and 1 are far apart"):
        assert len(read_labels(save(tmp_path, text)).tracks) == 1


def test_points_without_a_size_are_linked(tmp_path):
    rows = [f"{f},dot,{x},{y + 3 * f}" for f in (0, 8) for x, y in ((10, 5), (300, 200))]
    text = "frame,id,keypoint,x,y\n" + "".join(f"{r.replace(',', f',{n},', 1)}\n" for n, r in enumerate(rows))
    with pytest.warns(PosewarperWarning, match="single instance each|linked over time"):
        assert {i: len(t.frames) for i, t in read_labels(save(tmp_path, text)).tracks.items()} == {0: 2, 1: 2}


def test_thousands_are_refused_and_decimal_commas_are_not(tmp_path):
    head = "frame;keypoint;x;y\n"
    with pytest.raises(LabelsError, match="line 2: x is wrong"):
        read_labels(save(tmp_path, head + "0;nose;1,024;600\n1;nose;700;2,000\n"))
    labels = read_labels(save(tmp_path, head + "0;nose;1,024;60,500\n1;nose;7,125;2,000\n"))
    np.testing.assert_array_equal(labels.tracks[0].keypoints[:, 0], [[1.024, 60.5], [7.125, 2]])
