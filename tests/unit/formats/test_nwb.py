"""Poses in NWB files: as sleap-io and ndx-pose write them, as we do, and damaged ones."""

from __future__ import annotations

import datetime
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import label_samples as samples
import ndx_pose
import numpy as np
import pynwb
import pytest
import sleap_io
from label_documents import FakeVideo
from label_samples import NAN, assert_held, assert_same, convert, mixed_labels, run_command
from sleap_io.io import nwb_annotations

from posewarper.errors import LabelsError, PosewarperWarning
from posewarper.formats.catalogue import detect_format
from posewarper.formats.labels import read_annotations, read_labels, write_labels
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Track

POINTS = np.array([[1.25, 2], [3, 4.5], [NAN, NAN]])


@dataclass
class TimedVideo(FakeVideo):
    n_frames: int = 12
    image_size: tuple[int, int] = (48, 64)
    times: np.ndarray = field(default_factory=lambda: np.array([0, *np.arange(1, 12) * 0.04 + 0.013]))


@pytest.fixture(autouse=True)
def silence():
    """What the libraries say while the tests write with them is no matter here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="(hdmf|pynwb|ndx|sleap_io|cv2).*")
        yield


# --- files of others --------------------------------------------------------------------------------------


def sleap_labels(*, predicted: bool = False):
    skeleton = sleap_io.Skeleton(["nose", "ear", "tail"], edges=[("nose", "tail")], name="rat")
    tracks = [sleap_io.Track("Ann"), sleap_io.Track("Bob")]
    video = sleap_io.Video.from_filename("clip.mp4")
    frames = []
    for index, shift in ((0, 0.5), (1, 1.5), (2, 2.5)) if predicted else ((20, 0.5), (3, 1.5)):
        instances = [
            sleap_io.PredictedInstance.from_numpy(
                POINTS + shift + n, skeleton=skeleton, track=track, point_scores=[0.5, 0.25, NAN], score=0.5
            )
            if predicted
            else sleap_io.Instance.from_numpy(POINTS + shift + n, skeleton=skeleton, track=track)
            for n, track in enumerate(tracks)
        ]
        frames.append(sleap_io.LabeledFrame(video=video, frame_idx=index, instances=instances))
    return sleap_io.Labels(frames)


def test_annotations_of_sleap_io_with_subjects(tmp_path):
    path = tmp_path / "a.nwb"
    nwb_annotations.save_labels(sleap_labels(), path, use_multisubjects=True)
    assert detect_format(path) == "nwb"
    with pytest.warns(PosewarperWarning, match="tail"):
        labels = read_labels(path)
    assert labels.skeleton.names == ("nose", "ear", "tail")
    assert (labels.skeleton.edges, labels.skeleton.name) == (((0, 2),), "rat")
    assert (labels.video, labels.n_frames, labels.image_size) == ("clip.mp4", None, None)
    assert labels.track_names == {0: "Ann", 1: "Bob"}
    assert labels.labelled_frames.tolist() == [3, 20]
    np.testing.assert_array_equal(labels.tracks[1].keypoints, [POINTS + 2.5, POINTS + 1.5])
    assert labels.tracks[1].visibility.tolist() == [[2, 2, 0], [2, 2, 0]]


def test_numbers_within_a_frame_are_no_tracks(tmp_path):
    path = tmp_path / "a.nwb"
    sleap_io.save_nwb(sleap_labels(), str(path))
    with pytest.warns(PosewarperWarning, match="linked over time"):
        labels = read_annotations(path)
    assert (len(labels.tracks), labels.track_names) == (2, {})


def test_predictions_of_sleap_io(tmp_path):
    path = tmp_path / "p.nwb"
    sleap_io.save_nwb(sleap_labels(predicted=True), str(path))
    labels = read_annotations(path)
    assert (labels.labelled_frames.size, labels.video) == (0, "clip.mp4")
    assert labels.track_names == {0: "Ann", 1: "Bob"}
    assert labels.tracks[0].frames.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(labels.tracks[1].keypoints[2], POINTS + 3.5)
    np.testing.assert_array_equal(labels.tracks[1].keypoint_scores[2], [0.5, 0.25, NAN])
    with pytest.raises(LabelsError, match="no frame is labelled"):
        read_labels(path)


def save_estimation(path: Path, data, names=("snout", "tail"), *, unit="pixels", movie=None, **clock) -> Path:
    nwb = pynwb.NWBFile(
        session_description="a test",
        identifier="test",
        session_start_time=datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
    )
    behavior = nwb.create_processing_module(name="behavior", description="poses")
    skeleton = ndx_pose.Skeleton(name="mouse", nodes=["snout", "tail"], edges=np.array([[0, 1]], np.uint8))
    behavior.add(ndx_pose.Skeletons(skeletons=[skeleton]))
    series = [
        ndx_pose.PoseEstimationSeries(
            name=name,
            description="a place",
            data=np.asarray(data, float) + n,
            unit=unit,
            reference_frame="top left",
            confidence=np.arange(len(data)) / 10,
            **clock,
        )
        for n, name in enumerate(names)
    ]
    more = {"original_videos": ["videos/clip.avi"], "dimensions": np.array([[64, 48]], np.uint16)}
    if movie is not None:
        more = {
            "source_video": pynwb.image.ImageSeries(name="movie", unit="n.a.", format="external", **movie)
        }
        nwb.add_acquisition(more["source_video"])
    estimation = ndx_pose.PoseEstimation(pose_estimation_series=series, skeleton=skeleton, **more)
    behavior.add(estimation)
    with pynwb.NWBHDF5IO(str(path), "w") as output:
        output.write(nwb)
    return path


ROWS = [[1, 2], [3, 4], [NAN, NAN], [7, 8]]


@pytest.mark.parametrize(
    "clock",
    [
        {"rate": 30.0, "starting_time": 2.0},
        {"timestamps": np.array([5.0, 5.034, 5.066, 5.1])},  # not quite even
        {"timestamps": np.array([0.0, 1, 2, 3])},
    ],
)
def test_one_row_a_frame(tmp_path, clock):
    labels = read_annotations(save_estimation(tmp_path / "e.nwb", ROWS, **clock))
    assert (labels.video, labels.image_size, labels.skeleton.name) == ("clip.avi", (48, 64), "mouse")
    track = labels.tracks[0]
    assert (track.frames.tolist(), labels.track_names) == ([0, 1, 3], {})
    np.testing.assert_array_equal(track.keypoints[:, 0], [[1, 2], [3, 4], [7, 8]])
    np.testing.assert_array_equal(track.keypoints[:, 1], [[2, 3], [4, 5], [8, 9]])
    np.testing.assert_array_equal(track.keypoint_scores[:, 1], [0, 0.1, 0.3])


def test_whole_numbers_are_frames(tmp_path):
    path = save_estimation(tmp_path / "e.nwb", ROWS, timestamps=np.array([4.0, 9, 10, 20]))
    assert read_annotations(path).tracks[0].frames.tolist() == [4, 9, 20]


def test_gaps_between_times_are_frames_and_said(tmp_path):
    path = save_estimation(tmp_path / "e.nwb", ROWS, timestamps=np.array([0.5, 0.54, 0.58, 0.7]))
    with pytest.warns(PosewarperWarning, match=r"have gaps; .* 0\.04 s each"):
        labels = read_annotations(path)
    assert labels.tracks[0].frames.tolist() == [0, 1, 5]


def test_the_linked_video_tells_the_frames(tmp_path):
    movie = {"external_file": ["clip.avi"], "starting_frame": [0], "dimension": [64, 48]}
    clock = {"timestamps": np.array([2.04, 2.08, 2.12, 2.2])}
    even = movie | {"rate": 25.0, "starting_time": 2.0, "num_samples": 40}
    labels = read_annotations(save_estimation(tmp_path / "a.nwb", ROWS, movie=even, **clock))
    assert (labels.tracks[0].frames.tolist(), labels.n_frames) == ([1, 2, 5], 40)
    uneven = movie | {"timestamps": np.array([1.9, 2.04, 2.05, 2.08, 2.12, 2.15, 2.2, 2.3])}
    labels = read_annotations(save_estimation(tmp_path / "b.nwb", ROWS, movie=uneven, **clock))
    assert (labels.tracks[0].frames.tolist(), labels.n_frames) == ([1, 3, 6], 8)
    late = movie | {"rate": 25.0, "starting_time": 2.1, "num_samples": 40}
    with pytest.raises(LabelsError, match="do not tell the frames"):
        read_annotations(save_estimation(tmp_path / "c.nwb", ROWS, movie=late, **clock))


def test_series_may_bear_the_animals_name_too(tmp_path):
    path = save_estimation(tmp_path / "e.nwb", ROWS, ("m1_tail", "m1_snout"), rate=30.0)
    labels = read_annotations(path)
    assert labels.skeleton.names == ("snout", "tail")
    np.testing.assert_array_equal(labels.tracks[0].keypoints[0], [[2, 3], [1, 2]])
    others = read_annotations(save_estimation(tmp_path / "f.nwb", ROWS, ("SeriesB", "SeriesA"), rate=30.0))
    assert (others.skeleton.names, others.skeleton.edges) == (("SeriesA", "SeriesB"), ())


def test_sides_the_other_way_round_are_told_by_the_video(tmp_path):
    path = save_estimation(tmp_path / "e.nwb", ROWS, rate=30.0)
    assert read_annotations(path, video=FakeVideo(9, (64, 48))).image_size == (64, 48)
    with pytest.raises(LabelsError, match="another size"):
        read_annotations(path, video=FakeVideo(9, (64, 49)))


def test_the_layout_of_old_versions(tmp_path):
    """Where the keypoints are listed in the PoseEstimation itself, as in files of ndx-pose 0.1."""
    path = save_estimation(tmp_path / "e.nwb", ROWS, rate=30.0)
    with h5py.File(path, "a") as file:
        group = file["processing/behavior/PoseEstimation"]
        del group["mouse"]
        group["nodes"], group["edges"] = ["tail", "snout"], np.array([[1, 0]], np.uint8)
    labels = read_annotations(path)
    assert (labels.skeleton.names, labels.skeleton.edges) == (("tail", "snout"), ((1, 0),))
    np.testing.assert_array_equal(labels.tracks[0].keypoints[0], [[2, 3], [1, 2]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"unit": "meters", "rate": 30.0}, "not in pixels"),
        ({"data": np.zeros((3, 3)), "rate": 30.0}, "not x and y"),
        ({"data": np.full((3, 2), 1e9), "rate": 30.0}, "a coordinate is wrong"),
        ({"timestamps": np.array([0, 1, NAN, 3])}, "does not have a time"),
        ({"timestamps": np.array([0, 1, -2.0, 3])}, "do not tell the frames"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, arguments, message):
    path = save_estimation(tmp_path / "e.nwb", **({"data": ROWS} | arguments))
    with pytest.raises(LabelsError, match=message) as error:
        read_annotations(path)
    assert str(path) in str(error.value)


# --- writing ----------------------------------------------------------------------------------------------

BUT = {"mirror pairs"}


@pytest.mark.parametrize("video", [None, TimedVideo()])
@pytest.mark.parametrize("build", [mixed_labels, samples.labels_alone, samples.predictions_alone])
def test_everything_comes_back(tmp_path, build, video):
    path = tmp_path / "out.nwb"
    with pytest.warns(PosewarperWarning, match="cannot hold: mirror pairs$"):
        write_labels(path, build(), video=video)
    again = read_annotations(path)
    assert_same(again, build(), but=BUT)
    assert again.skeleton.flip_pairs == ((1, 2),)  # as the names tell
    if video is not None and build is not samples.labels_alone:
        with h5py.File(path) as file:
            times = file["processing/SLEAP_VIDEO_000_clip/track=Ann/nose/timestamps"][()]
        np.testing.assert_array_equal(times, video.times[[9, 10]])


@pytest.mark.parametrize(
    "changes",
    [
        {"track_names": {}},
        {"image_size": None, "n_frames": None},
        {"track_names": {0: "a/b", 1: "c:d"}},
        {"skeleton": Skeleton(("no/se", "a:b", "c"), ((0, 1),))},
    ],
)
def test_other_labels_come_back_as_well(tmp_path, changes):
    again, said = convert(tmp_path / "out.nwb", mixed_labels(**changes), "nwb")
    assert_same(again, mixed_labels(**changes), but=BUT)
    kept = again.skeleton.flip_pairs == mixed_labels(**changes).skeleton.flip_pairs
    assert said == (
        "" if kept else f"{tmp_path / 'out.nwb'}: an NWB file with ndx-pose cannot hold: mirror pairs"
    )


def test_hidden_keypoints_and_ids_come_back(tmp_path):
    hidden = Track([2], [[[1, 2], [3, 4], [5, 6]]], visibility=[[1, 2, 0]])
    labels = mixed_labels(tracks={4: hidden, 7: mixed_labels().tracks[1]}, track_names={})
    again, _ = convert(tmp_path / "out.nwb", labels, "nwb")
    assert_same(again, labels, but=BUT)
    single = samples.labels_alone(tracks={0: hidden}, track_names={}, labelled_frames=[2])
    again, _ = convert(tmp_path / "single.nwb", single, "nwb")
    assert_same(again, single, but=BUT)
    with h5py.File(tmp_path / "single.nwb") as file:
        assert "SubjectsTable" not in file["general"]


def test_what_is_lost_is_named(tmp_path):
    tracks = mixed_labels().tracks
    scored = Track(
        [7, 9], tracks[1].keypoints, visibility=[[2] * 3, [1] * 3], keypoint_scores=np.ones((2, 3))
    )
    labels = mixed_labels(
        tracks={4: tracks[0], 7: scored},
        track_names={4: "x", 7: "x"},
        frame_names={2: "a.png"},
        skeleton=Skeleton(("nose", "b", "c"), name="a/b"),
    )
    again, said = convert(tmp_path / "out.nwb", labels, "nwb")
    for lost in ("track ids", "track names", "scores of labels", "hidden", "files", "colon"):
        assert lost in said
    but = {"track ids", "track names", "scores", "what an instance is called", "which keypoints are hidden"}
    assert_held(again, labels, "nwb", but=but)


def test_sleap_io_and_pynwb_read_what_is_written(tmp_path):
    path = tmp_path / "out.nwb"
    convert(path, mixed_labels(), "nwb")
    with pynwb.NWBHDF5IO(str(path), "r") as source:
        nwb = source.read()
        assert nwb.subjects_table["subject_id"][:].tolist() == ["Ann", "Bob"]
        estimation = nwb.processing["SLEAP_VIDEO_000_clip"]["track=Ann"]
        assert estimation.skeleton.nodes[:].tolist() == ["nose", "ear_l", "ear_r"]
        assert estimation["nose"].timestamps[:].tolist() == [9, 10]
    project = sleap_io.load_nwb(str(path))
    assert [frame.frame_idx for frame in project] == [2, 5, 7]
    np.testing.assert_array_equal(project[0][0].numpy(), mixed_labels().tracks[0].keypoints[0])
    convert(path, samples.predictions_alone(), "nwb")
    points = [instance.numpy() for frame in sleap_io.load_nwb(str(path)) for instance in frame]
    np.testing.assert_allclose(points[0], samples.predictions_alone().tracks[0].keypoints[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({}, ["PoseEstimation"]),
        ({0: "Ann"}, ["PoseEstimation"]),
        ({0: "Ann", 1: "Bob"}, ["track=Ann", "track=Bob"]),
    ],
)
def test_predictions_stand_where_movement_and_sleap_io_look_for_them(tmp_path, names, expected):
    tracks = {
        i: Track(np.arange(3), POINTS + np.arange(3)[:, None, None] + i) for i in range(len(names) or 1)
    }
    labels = Labels(
        Skeleton(("nose", "ear", "tail")), tracks, np.zeros(0), video="clip.mp4", track_names=names
    )
    write_labels(tmp_path / "poses.nwb", labels)
    with h5py.File(tmp_path / "poses.nwb") as file:
        behavior, linked = file["processing/behavior"], file["processing/SLEAP_VIDEO_000_clip"]
        assert [name for name in behavior if name != "Skeletons"] == list(linked) == expected
        assert all(behavior[name] == linked[name] for name in expected)
    found = sleap_io.load_file(str(tmp_path / "poses.nwb"))
    np.testing.assert_array_equal(found[1].instances[0].numpy(), POINTS + 1)
    assert read_annotations(tmp_path / "poses.nwb").track_names == names


def test_the_file_keeps_to_the_schema(tmp_path):
    """Of one track: pynwb cannot yet check files of several subjects."""
    convert(tmp_path / "out.nwb", mixed_labels(track_names={}).only_track(0), "nwb")
    assert pynwb.validate(path=str(tmp_path / "out.nwb")) == []


# --- damage -----------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    convert(tmp_path / "labels.nwb", mixed_labels(), "nwb")
    return tmp_path / "labels.nwb"


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:8] + bytes(range(256)) * 40,
        lambda data: data[:100] + b"\xff" * 3000 + data[3100:],
    ],
)
def test_damage_is_named_and_nothing_is_printed(file, damage, capfd):
    file.write_bytes(damage(file.read_bytes()))
    for format in (None, "nwb"):
        with pytest.raises(LabelsError) as error:
            read_annotations(file, format=format)
        assert str(file) in str(error.value) and "fix:" in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_bits_that_fell_over_never_end_in_another_error(file):
    data = file.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(20):
        broken = bytearray(data)
        for place in rng.integers(0, len(data), 300):
            broken[place] = rng.integers(256)
        file.write_bytes(bytes(broken))
        try:
            read_annotations(file)
        except (LabelsError, PosewarperWarning):
            continue


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("processing", "holds no poses"),
        (
            "processing/behavior/PoseTraining/training_frames/frame_0/source_video",
            "which frame of which video",
        ),
        ("processing/behavior/Skeletons/mouse/nodes", "cannot be read as an NWB file"),
        ("processing/SLEAP_VIDEO_000_clip/track=Ann/nose/data", "cannot be read as an NWB file"),
    ],
)
def test_missing_parts_are_named(file, gone, message):
    with h5py.File(file, "a") as document:
        del document[gone]
    with pytest.raises(LabelsError, match=message) as error:
        read_annotations(file)
    assert str(file) in str(error.value)


@pytest.mark.parametrize("package", ["pynwb", "ndx_pose", "ndx_multisubjects"])
def test_missing_packages_are_named(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(LabelsError, match=r'pip install "posewarper\[formats\]"'):
        write_labels(tmp_path / "out.nwb", Labels(Skeleton(("a",)), {}))
    assert not (tmp_path / "out.nwb").exists()


def test_the_command_line_converts_there_and_back(file, tmp_path, capsys):
    assert run_command("convert", file, tmp_path / "labels.json") == 0
    assert run_command("convert", tmp_path / "labels.json", tmp_path / "again.nwb") == 0
    out, err = capsys.readouterr()
    assert "3 labelled frames, 2 predicted, 2 tracks, 3 keypoints (nwb)" in out
    assert all("cannot hold" in line for line in err.splitlines())  # nothing of other packages
    assert_same(read_annotations(tmp_path / "again.nwb"), mixed_labels(), but=BUT)
    file.write_bytes(file.read_bytes()[:3000])
    assert run_command("convert", file, tmp_path / "more.json") == 2
    assert "fix:" in capsys.readouterr().err


def test_edges_from_1_and_several_skeletons(tmp_path):
    path = save_estimation(tmp_path / "e.nwb", np.ones((3, 2)), starting_time=0.0, rate=25.0)
    with h5py.File(path, "r+") as opened:
        places: list[str] = []
        opened.visititems(lambda name, node: places.append(name) if name.endswith("/edges") else None)
        for place in places:
            group, name = place.rsplit("/", 1)
            del opened[group][name]
            opened[group].create_dataset(name, data=np.array([[1, 2]], np.uint8))
    assert places
    with pytest.warns(PosewarperWarning, match="counted from 1"):
        assert read_annotations(path).skeleton.edges == ((0, 1),)
