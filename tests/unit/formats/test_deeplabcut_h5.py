"""DeepLabCut's HDF5 tables and tables of predictions: as pandas writes them, as we do, and damaged ones."""

from __future__ import annotations

import builtins
import pickle
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import tables
from label_documents import FakeVideo
from label_samples import (
    NAN,
    assert_held,
    convert,
    labels_alone,
    mixed_labels,
    predictions_alone,
    run_command,
)

from posewarper.errors import LabelsError, PosewarperWarning
from posewarper.formats.catalogue import detect_format
from posewarper.formats.labels import read_annotations, read_labels, write_labels
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Track

POINTS = np.array([[1.5, 2.25, 100.123456789012, 7], [3, 4, NAN, NAN], [NAN, NAN, NAN, NAN]])
IMAGES = [
    "labeled-data/mouse/img0004.png",
    "labeled-data/mouse/img0012.png",
    "labeled-data/mouse/img0030.png",
]
ONE = pd.MultiIndex.from_product(
    [["Ann"], ["snout", "tail"], ["x", "y"]], names=["scorer", "bodyparts", "coords"]
)


def save(path: Path, cells, columns, index, *, format="fixed") -> Path:
    frame = pd.DataFrame(cells, columns=columns, index=index)
    frame.to_hdf(path, key="df_with_missing", mode="w", format=format)
    return path


@pytest.mark.parametrize(("format", "levels"), [("fixed", 1), ("fixed", 3), ("table", 1)])
def test_one_animal_as_pandas_writes_it(tmp_path, format, levels):
    index = IMAGES if levels == 1 else pd.MultiIndex.from_tuples([tuple(i.split("/")) for i in IMAGES])
    path = save(tmp_path / "CollectedData_Ann.h5", POINTS, ONE, index, format=format)
    assert detect_format(path) == "deeplabcut"
    labels = read_labels(path)
    assert labels.skeleton.names == ("snout", "tail")
    assert labels.labelled_frames.tolist() == [4, 12]
    assert (labels.video, labels.image_size, labels.n_frames, labels.track_names) == ("mouse", None, None, {})
    assert labels.frame_names[30] == "labeled-data/mouse/img0030.png"
    np.testing.assert_array_equal(labels.tracks[0].visibility, [[2, 2], [2, 0]])
    np.testing.assert_array_equal(labels.tracks[0].keypoints[0], [[1.5, 2.25], [100.123456789012, 7]])


def test_several_animals_with_keypoints_of_their_own(tmp_path):
    owners = [("m1", "snout"), ("m2", "snout"), ("single", "corner")]
    columns = [("Ann", *owner, coord) for owner in owners for coord in "xy"]
    columns = pd.MultiIndex.from_tuples(columns, names=["scorer", "individuals", "bodyparts", "coords"])
    path = save(
        tmp_path / "CollectedData_Ann.h5",
        [[1, 2, 3, 4, 5, 6], [NAN, NAN, 7, 8, NAN, NAN]],
        columns,
        IMAGES[:2],
    )
    labels = read_labels(path)
    assert labels.skeleton.names == ("snout", "corner")
    assert labels.track_names == {0: "m1", 1: "m2", 2: "single"}
    assert {i: track.frames.tolist() for i, track in labels.tracks.items()} == {0: [4], 1: [4, 12], 2: [4]}
    np.testing.assert_array_equal(labels.tracks[1].keypoints[1], [[7, 8], [NAN, NAN]])
    np.testing.assert_array_equal(labels.tracks[2].keypoints[0], [[NAN, NAN], [5, 6]])
    # And back: DeepLabCut itself has no column for the corner of m1.
    write_labels(tmp_path / "CollectedData_Ann.csv", labels)
    rows = (tmp_path / "CollectedData_Ann.csv").read_text().splitlines()
    assert rows[1] == "individuals,m1,m1,m2,m2,single,single"
    assert rows[2] == "bodyparts,snout,snout,snout,snout,corner,corner"
    assert rows[4] == "labeled-data/mouse/img0004.png,1.0,2.0,3.0,4.0,5.0,6.0"


def test_a_single_one_with_all_keypoints_gets_a_column_for_each(tmp_path):
    track = Track([1], [[[1, 2], [3, 4]]], visibility=[[2, 2]])
    labels = Labels(Skeleton(("a", "b")), {0: track, 1: track}, track_names={0: "m1", 1: "single"})
    again, _ = convert(tmp_path / "out.h5", labels, "deeplabcut")
    np.testing.assert_array_equal(again.tracks[1].keypoints, track.keypoints)


@pytest.mark.parametrize("suffix", [".csv", ".h5"])
@pytest.mark.parametrize("names", [{0: "Ann", 1: "Bob"}, {}, {1: "Bob"}])
def test_labels_come_back_from_both_kinds_of_table(tmp_path, suffix, names):
    labels = labels_alone(track_names=names, video="clip")
    again, said = convert(tmp_path / f"CollectedData_Eve{suffix}", labels, "deeplabcut")
    frames = {"the names of the frames' files"}  # made up where there are none
    assert_held(again, labels, "deeplabcut", but=frames)
    for lost in ("nobody", "edges", "mirror pairs", "image size", "number of frames", "what an instance"):
        assert lost in said
    assert "names" not in said
    assert again.frame_names[2] == "labeled-data/clip/img0002.png"


def test_pandas_finds_what_deeplabcut_writes(tmp_path):
    path = tmp_path / "CollectedData_Eve.h5"
    convert(path, labels_alone(), "deeplabcut")
    frame = pd.read_hdf(path, "df_with_missing")
    assert frame.columns.names == ["scorer", "individuals", "bodyparts", "coords"]
    assert frame.index[0] == ("labeled-data", "clip", "img0002.png")
    x = labels_alone().tracks[0].keypoints[0, 0, 0]
    assert frame.loc[frame.index[0], ("Eve", "Ann", "nose", "x")] == x


def test_a_single_named_track_keeps_its_name(tmp_path):
    labels = labels_alone().only_track(0)
    again, _ = convert(tmp_path / "out.csv", labels, "deeplabcut")
    assert (list(again.tracks), again.track_names) == ([0], {0: "Ann"})
    convert(tmp_path / "plain.csv", labels_alone(track_names={}).only_track(0), "deeplabcut")
    assert "individuals" not in (tmp_path / "plain.csv").read_text()


def test_two_tracks_of_one_name_stay_two(tmp_path):
    again, _ = convert(tmp_path / "out.h5", labels_alone(track_names={0: "ind2", 1: "ind2"}), "deeplabcut")
    assert len(again.tracks) == 2
    assert again.track_names == {0: "ind2", 1: "ind2_"}


# --- predictions ------------------------------------------------------------------------------------------

SCORER = "DLC_resnet50_projJan1shuffle1_50000"
PREDICTED = pd.MultiIndex.from_product(
    [[SCORER], ["snout", "tail"], ["x", "y", "likelihood"]], names=["scorer", "bodyparts", "coords"]
)
GUESSES = np.array([[1.5, 2, 0.9, 3, 4, 0.01], [2.5, 2, 0.8, NAN, NAN, NAN], [3.5, 2, 0.7, 3, 4, 0.5]])


@pytest.mark.parametrize("suffix", [".csv", ".h5"])
def test_predictions_as_deeplabcut_writes_them(tmp_path, suffix):
    path = tmp_path / f"my clip{SCORER}_filtered{suffix}"
    if suffix == ".csv":
        pd.DataFrame(GUESSES, columns=PREDICTED, index=range(3)).to_csv(path)
    else:
        save(path, GUESSES, PREDICTED, range(3))
    assert detect_format(path) == "deeplabcut"
    labels = read_annotations(path)
    assert (labels.video, labels.n_frames, labels.labelled_frames.size) == ("my clip", 3, 0)
    np.testing.assert_array_equal(labels.tracks[0].frames, [0, 1, 2])
    np.testing.assert_array_equal(labels.tracks[0].keypoints[:, 0, 0], [1.5, 2.5, 3.5])
    np.testing.assert_array_equal(labels.tracks[0].keypoint_scores[1], [0.8, NAN])
    assert labels.tracks[0].visibility.tolist() == [[2, 2], [2, 0], [2, 2]]
    with pytest.raises(LabelsError, match="no frame is labelled"):
        read_labels(path)


def test_predictions_of_several_animals_on_images(tmp_path):
    columns = pd.MultiIndex.from_product(
        [["net"], ["m1", "m2"], ["snout"], ["x", "y", "likelihood"]],
        names=["scorer", "individuals", "bodyparts", "coords"],
    )
    path = save(
        tmp_path / "out.h5", [[1, 2, 0.5, NAN, NAN, NAN], [3, 4, 0.6, 5, 6, 0.7]], columns, IMAGES[:2]
    )
    labels = read_annotations(path)
    assert (labels.labelled_frames.size, labels.video, labels.n_frames) == (0, "mouse", None)
    assert {i: track.frames.tolist() for i, track in labels.tracks.items()} == {0: [4, 12], 1: [12]}
    assert labels.tracks[1].keypoint_scores.tolist() == [[0.7]]


@pytest.mark.parametrize("suffix", [".csv", ".h5"])
def test_predictions_come_back(tmp_path, suffix):
    labels = predictions_alone(video="clip")
    path = tmp_path / f"clipDLC_net{suffix}"
    again, said = convert(path, labels, "deeplabcut-predictions")
    assert_held(again, labels, "deeplabcut-predictions")
    assert "which poses" not in said and "video" not in said
    # Labels are predictions of likelihood 1 there, and that is said.
    again, said = convert(path, mixed_labels(video="clip"), "deeplabcut-predictions")
    assert "which poses are predictions" in said and "which keypoints have no score" in said
    assert again.labelled_frames.size == 0
    np.testing.assert_array_equal(again.tracks[0].keypoint_scores[1], [1, 1, NAN])
    _, said = convert(tmp_path / f"else{suffix}", labels, "deeplabcut-predictions")
    assert "the video's name" in said


# --- damage -----------------------------------------------------------------------------------------------


class Evil:
    """Leaves a trace when it is unpickled."""

    trace: str = ""

    def __reduce__(self):
        return open, (self.trace, "w")


def add_attribute(path: Path, value: object) -> None:
    with h5py.File(path, "a") as file:
        file["df_with_missing"].attrs["extra"] = value


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return save(tmp_path / "CollectedData_Ann.h5", POINTS, ONE, IMAGES)


@pytest.mark.parametrize("place", ["attribute", "text", "root", "objects"])
def test_a_file_that_could_run_code_is_refused(tmp_path, table, place):
    evil = Evil()
    Evil.trace = evil.trace = str(tmp_path / "trace")
    pickled = pickle.dumps(evil, protocol=0)
    if place == "attribute":
        add_attribute(table, np.bytes_(pickled))
    elif place == "text":
        add_attribute(table, pickled.decode("ascii"))
    elif place == "root":
        with h5py.File(table, "a") as file:
            file.attrs["extra"] = np.bytes_(pickled)
    else:
        with tables.open_file(str(table), "a") as file:
            array = file.create_vlarray("/df_with_missing", "extra", tables.ObjectAtom())
            array.append(evil)
    with pytest.raises(LabelsError, match="could run code") as error:
        read_annotations(table)
    assert str(table) in str(error.value) and ".csv" in str(error.value)
    assert not Path(evil.trace).exists()


def test_the_trace_would_have_been_left(tmp_path, table):
    """The test above can fail: PyTables does unpickle attributes."""
    evil = Evil()
    Evil.trace = evil.trace = str(tmp_path / "trace")
    add_attribute(table, np.bytes_(pickle.dumps(evil, protocol=0)))
    pd.read_hdf(table)
    assert Path(evil.trace).exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:9],
        lambda data: data[:8] + bytes(range(256)) * 40,
        lambda data: data[:2000] + b"\xff" * 400 + data[2400:],
    ],
)
def test_damage_is_named_and_nothing_is_printed(tmp_path, table, damage, capfd):
    table.write_bytes(damage(table.read_bytes()))
    for format in (None, "deeplabcut"):
        with pytest.raises(LabelsError) as error:
            read_annotations(table, format=format)
        assert str(table) in str(error.value) and "fix:" in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_bits_that_fell_over_never_end_in_another_error(tmp_path, table):
    data = table.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(25):
        broken = bytearray(data)
        for place in rng.integers(0, len(data), 30):
            broken[place] = rng.integers(256)
        table.write_bytes(bytes(broken))
        try:
            read_annotations(table)
        except (LabelsError, PosewarperWarning):
            continue


def test_other_hdf5_files_are_told(tmp_path):
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file["numbers"] = [1, 2, 3]
    with pytest.raises(LabelsError, match="in no known format") as error:
        read_annotations(path)
    assert "numbers" in str(error.value)
    with pytest.raises(LabelsError, match="cannot be read as a DeepLabCut table"):
        read_annotations(path, format="deeplabcut")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (pd.Index(["a", "b", "c", "d"]), "header is not DeepLabCut's"),
        (ONE.set_names(["scorer", "parts", "coords"]), "header is not DeepLabCut's"),
        (ONE.set_levels(["x", "z"], level=2), "the header is wrong"),
        (
            pd.MultiIndex.from_tuples(
                [("A", "s", "x"), ("A", "s", "y"), ("B", "s", "x"), ("B", "s", "y")], names=ONE.names
            ),
            "several scorers",
        ),
    ],
)
def test_other_frames_of_pandas_are_told(tmp_path, columns, message):
    path = save(tmp_path / "frame.h5", POINTS, columns, IMAGES)
    with pytest.raises(LabelsError, match=message):
        read_annotations(path)


def test_wrong_numbers_are_named(tmp_path):
    path = save(tmp_path / "frame.h5", np.where(POINTS == 3, 1e9, POINTS), ONE, IMAGES)
    with pytest.raises(LabelsError, match="row 2: a coordinate of snout is wrong"):
        read_annotations(path)


@pytest.mark.parametrize("package", ["pandas", "tables", "h5py"])
def test_missing_packages_are_named(table, monkeypatch, package):
    found = builtins.__import__

    def fail(name, *args, **kwargs):
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {package!r}")
        return found(name, *args, **kwargs)

    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(LabelsError, match=r'pip install "posewarper\[formats\]"') as error:
        read_annotations(table, format="deeplabcut", video=FakeVideo())
    assert ".csv" in str(error.value) and str(table) in str(error.value)


def test_the_command_line_converts_there_and_back(tmp_path, table, capsys):
    assert run_command("convert", table, tmp_path / "labels.json") == 0
    made = tmp_path / "CollectedData_Eve.h5"
    assert run_command("convert", tmp_path / "labels.json", made, "--to", "deeplabcut") == 0
    out, err = capsys.readouterr()
    assert "2 labelled frames, 1 track, 2 keypoints (deeplabcut)" in out and "Traceback" not in err
    frame = pd.read_hdf(made)
    np.testing.assert_array_equal(frame.to_numpy(), POINTS[:2])
    assert frame.columns[0] == ("Eve", "snout", "x")
    path = save(tmp_path / f"clip{SCORER}.h5", GUESSES, PREDICTED, range(3))
    again = tmp_path / f"again{SCORER}.csv"
    assert run_command("convert", path, again, "--to", "deeplabcut-predictions") == 0
    table_again = pd.read_csv(again, header=[0, 1, 2], index_col=0)
    np.testing.assert_array_equal(table_again.to_numpy(), np.where(np.isnan(GUESSES), NAN, GUESSES))
