"""SLEAP projects: as sleap-io writes them, as we do, and damaged ones."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import sleap_io
from label_documents import FakeVideo
from label_samples import (
    NAN,
    assert_held,
    assert_same,
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

SKELETON = sleap_io.Skeleton(
    ["nose", "paw1", "paw2"],
    edges=[("nose", "paw2"), ("nose", "paw1")],
    symmetries=[("paw1", "paw2")],
    name="rat",
)
POINTS = np.array([[1.25, 2], [3, 4.5], [NAN, NAN]])


def a_video(name: str = "/data/clip.mp4", shape=(50, 480, 640, 3)):
    facts = {"type": "MediaVideo", "filename": name, "grayscale": False, "shape": shape}
    return sleap_io.Video(filename=name, open_backend=False, backend_metadata=facts)


def user(points=POINTS, track=None):
    return sleap_io.Instance.from_numpy(np.asarray(points, float), skeleton=SKELETON, track=track)


def guess(points=POINTS, track=None, scores=(0.5, 0.25, 0.125)):
    return sleap_io.PredictedInstance.from_numpy(
        np.asarray(points, float), point_scores=np.array(scores), score=0.5, skeleton=SKELETON, track=track
    )


def save(path: Path, frames, **arguments) -> Path:
    sleap_io.save_slp(sleap_io.Labels(frames, **arguments), str(path), embed=False, verbose=False)
    return path


def frame(video, index, *instances, **arguments):
    return sleap_io.LabeledFrame(video=video, frame_idx=index, instances=list(instances), **arguments)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    video, tracks = a_video(), [sleap_io.Track("Ann"), sleap_io.Track("Bob")]
    frames = [
        frame(video, 12, user(track=tracks[1]), user(POINTS + 7, tracks[0])),
        frame(video, 3, user(track=tracks[1])),
        frame(video, 20, guess(POINTS + 1, tracks[0])),
        frame(video, 30, is_negative=True),
        frame(video, 40),
    ]
    return save(tmp_path / "labels.slp", frames)


def test_labels_predictions_tracks_and_skeleton(project):
    assert detect_format(project) == "sleap"
    labels = read_annotations(project)
    assert labels.skeleton.names == ("nose", "paw1", "paw2")
    assert labels.skeleton.edges == ((0, 2), (0, 1))
    assert (labels.skeleton.flip_pairs, labels.skeleton.name) == (((1, 2),), "rat")
    assert labels.labelled_frames.tolist() == [3, 12, 30]
    assert (labels.image_size, labels.n_frames, labels.video) == ((480, 640), 50, "clip.mp4")
    names = {name: i for i, name in labels.track_names.items()}
    bob, ann = labels.tracks[names["Bob"]], labels.tracks[names["Ann"]]
    assert (bob.frames.tolist(), ann.frames.tolist()) == ([3, 12], [12, 20])
    np.testing.assert_array_equal(bob.keypoints[0], POINTS)
    np.testing.assert_array_equal(ann.keypoints, [POINTS + 7, POINTS + 1])
    assert ann.visibility.tolist() == [[2, 2, 0], [2, 2, 0]]
    np.testing.assert_array_equal(ann.keypoint_scores, [[NAN] * 3, [0.5, 0.25, NAN]])
    with pytest.warns(PosewarperWarning, match="paw2"):
        assert read_labels(project).instance_frames.tolist() == [3, 12]


def test_points_marked_as_not_visible_are_no_labels(tmp_path):
    instance = user([[1, 2], [3, 4], [5, 6]])
    instance.points["visible"][1] = False
    labels = read_annotations(save(tmp_path / "a.slp", [frame(a_video(), 0, instance)]))
    np.testing.assert_array_equal(labels.tracks[0].keypoints[0], [[1, 2], [NAN, NAN], [5, 6]])
    assert labels.tracks[0].visibility.tolist() == [[2, 0, 2]]
    assert labels.tracks[0].not_looked_at.tolist() == [[False, True, False]]


def test_predicted_keypoints_of_labelled_frames_do_not_become_labels(tmp_path):
    states = [[True, False, False], [False] * 3]
    track = Track([4, 9], np.arange(12.0).reshape(2, 3, 2), labelled=states)
    labels = Labels(Skeleton(("nose", "paw1", "paw2")), {0: track}, [4], n_frames=20)
    with pytest.warns(PosewarperWarning, match="which keypoints of labelled frames are predictions"):
        write_labels(tmp_path / "a.slp", labels)
    again = read_annotations(tmp_path / "a.slp").tracks[0]
    assert again.visibility.tolist() == [[2, 0, 0], [2, 2, 2]]
    assert again.placed.tolist() == states


def test_pixels_are_corners_before_format_1_1(project):
    with h5py.File(project, "a") as file:
        file["metadata"].attrs["format_id"] = 1.0
    labels = read_annotations(project)
    np.testing.assert_array_equal(labels.tracks[0].keypoints[0], POINTS - 0.5)
    with h5py.File(project, "a") as file:
        file["metadata"].attrs["format_id"] = 1.1
    np.testing.assert_array_equal(read_annotations(project).tracks[0].keypoints[0], POINTS)


def test_predictions_beside_labels_are_left_out(tmp_path):
    tracks = [sleap_io.Track("Ann"), sleap_io.Track("Bob")]
    old = guess(POINTS + 2)
    mine = user()
    mine.from_predicted = old
    replaced = [frame(a_video(), 0, old, mine, guess(POINTS, None))]
    with pytest.warns(PosewarperWarning, match="1 predictions beside labels"):
        labels = read_annotations(save(tmp_path / "a.slp", replaced))
    np.testing.assert_array_equal(labels.tracks[0].keypoints, [POINTS])
    assert np.isnan(labels.tracks[0].keypoint_scores).all()
    same_track = [frame(a_video(), 0, user(track=tracks[0]), guess(track=tracks[0]))]
    assert len(read_annotations(save(tmp_path / "b.slp", same_track)).tracks) == 1  # nothing to say


def test_several_videos(tmp_path):
    one, two, three = a_video("a/one.mp4"), a_video("b/two.avi", (9, 20, 30, 1)), a_video("three.mp4")
    frames = [frame(one, 1, user()), frame(two, 2, user(POINTS + 1)), frame(two, 5, user()), frame(three, 7)]
    path = save(tmp_path / "a.slp", frames)
    with pytest.raises(LabelsError, match="labels of 2 videos"):
        read_annotations(path)
    labels = read_annotations(path, video=FakeVideo(n_frames=9, image_size=(20, 30), path="/x/two.avi"))
    assert (labels.video, labels.labelled_frames.tolist()) == ("two.avi", [2, 5])
    np.testing.assert_array_equal(labels.tracks[0].keypoints[0], POINTS + 1)
    assert read_annotations(path, video=FakeVideo(50, path="one.mkv")).labelled_frames.tolist() == [1]
    with pytest.raises(LabelsError, match="this video of the project has no labels"):
        read_annotations(path, video=FakeVideo(path="three.mp4"))
    with pytest.raises(LabelsError, match="another size"):
        read_annotations(path, video=FakeVideo(path="two.avi"))


def test_videos_of_packages_keep_their_numbers(tmp_path):
    """Where SLEAP packs images, the table of frames names a video by the number of its group of images."""
    source = {"filename": "/data/two.mp4", "backend": {"type": "MediaVideo", "filename": "/data/two.mp4"}}
    frames = [frame(a_video("one.mp4"), 1, user()), frame(a_video("two.mp4"), 2, user(POINTS + 1))]
    path = save(tmp_path / "a.pkg.slp", frames)
    with h5py.File(path, "a") as file:
        packed = []
        for number, shape in ((4, [1, 480, 640, 3]), (15, [1, 20, 30, 1])):
            backend = {
                "type": "HDF5Video",
                "filename": ".",
                "dataset": f"video{number}/video",
                "shape": shape,
            }
            packed.append(json.dumps({"filename": ".", "backend": backend | {"has_embedded_images": True}}))
            file[f"video{number}/video"] = np.zeros(3, np.uint8)
        file["video15"].create_group("source_video").attrs["json"] = json.dumps(source)
        del file["videos_json"]
        file["videos_json"] = np.array(packed, dtype="S")
        rows = file["frames"][()]
        rows["video"] = [4, 15]
        file["frames"][...] = rows
    labels = read_annotations(path, video=FakeVideo(image_size=(20, 30), path="two.mp4"))
    assert (labels.video, labels.labelled_frames.tolist()) == ("two.mp4", [2])
    np.testing.assert_array_equal(labels.tracks[0].keypoints[0], POINTS + 1)
    assert labels.image_size == (20, 30)
    assert labels.n_frames == 100  # of the opened video: the package holds one image


def test_a_crop_is_undone(tmp_path):
    video = a_video()
    video.backend_metadata |= {"crop": [100, 30, 400, 200], "source_shape": [50, 480, 640, 3]}
    video.backend_metadata["shape"] = [50, 170, 300, 3]
    labels = read_annotations(save(tmp_path / "a.slp", [frame(video, 1, user())]))
    np.testing.assert_array_equal(labels.tracks[0].keypoints[0], POINTS + np.array([100, 30]))
    assert labels.image_size == (480, 640)


def test_a_folder_of_images(tmp_path):
    names = [f"mouse/img{n}.png" for n in (5, 6, 9)]
    facts = {"type": "ImageVideo", "filename": names[0], "filenames": names, "shape": [3, 20, 30, 1]}
    video = sleap_io.Video(filename=names, open_backend=False, backend_metadata=facts)
    path = save(tmp_path / "a.slp", [frame(video, 2, user()), frame(video, 0, guess())])
    labels = read_annotations(path)
    assert (labels.video, labels.n_frames, labels.frame_names[2]) == ("mouse", 3, "mouse/img9.png")
    opened = FakeVideo(4, (20, 30), ("img4.png", "img5.png", "img6.png", "img9.png"), "mouse")
    with pytest.warns(PosewarperWarning, match="the place counts"):
        labels = read_annotations(path, video=opened)
    assert (labels.labelled_frames.tolist(), labels.instance_frames.tolist()) == ([3], [1, 3])
    assert labels.frame_names == {1: "mouse/img5.png", 3: "mouse/img9.png"}


def test_instances_with_and_without_tracks_are_linked(tmp_path):
    track = sleap_io.Track("Ann")
    frames = [frame(video := a_video(), 1, user()), frame(video, 2, guess(track=track))]
    path = save(tmp_path / "a.slp", frames)
    with pytest.warns(PosewarperWarning, match="1 of 2 instances have no track"):
        labels = read_annotations(path)
    assert (list(labels.tracks), labels.track_names) == ([0], {})


def test_the_trackers_own_names_are_ids(tmp_path):
    tracks = [sleap_io.Track("track_3"), sleap_io.Track("track_0")]
    labels = read_annotations(
        save(tmp_path / "a.slp", [frame(a_video(), 1, user(track=tracks[0]), user(POINTS + 9, tracks[1]))])
    )
    assert (list(labels.tracks), labels.track_names) == ([0, 3], {})
    np.testing.assert_array_equal(labels.tracks[3].keypoints[0], POINTS)


# --- writing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [mixed_labels, labels_alone, predictions_alone])
def test_everything_comes_back(tmp_path, build):
    again, said = convert(tmp_path / "out.slp", build(), "sleap")
    assert_same(again, build())
    assert said == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"track_names": {}},
        {"image_size": None, "n_frames": None},
        {"n_frames": None},
        {"skeleton": Skeleton(("nose", "a", "b"))},
    ],
)
def test_less_comes_back_as_well(tmp_path, changes):
    again, said = convert(tmp_path / "out.slp", mixed_labels(**changes), "sleap")
    assert_same(again, mixed_labels(**changes))
    assert said == ""


def test_ids_of_tracks_without_names_come_back(tmp_path):
    tracks = mixed_labels().tracks
    labels = mixed_labels(tracks={4: tracks[0], 7: tracks[1]}, track_names={})
    again, said = convert(tmp_path / "out.slp", labels, "sleap")
    assert_same(again, labels)
    single = mixed_labels(tracks={0: tracks[0]}, track_names={})
    again, more = convert(tmp_path / "single.slp", single, "sleap")
    assert_same(again, single)
    assert said + more == ""
    assert sleap_io.load_slp(str(tmp_path / "single.slp")).tracks == []


def test_names_of_all_images_come_back(tmp_path):
    labels = mixed_labels(video="mouse", frame_names={n: f"mouse/img{n:02d}.png" for n in range(12)})
    again, said = convert(tmp_path / "out.slp", labels, "sleap")
    assert_same(again, labels)
    assert said == ""


def test_what_is_lost_is_named(tmp_path):
    tracks = mixed_labels().tracks
    frames = tracks[1].frames
    scored = Track(
        frames, tracks[1].keypoints, visibility=[[1, 2, 2], [2, 2, 2]], keypoint_scores=np.ones((2, 3))
    )
    labels = mixed_labels(
        tracks={4: tracks[0], 7: scored},
        track_names={4: "x", 7: "x"},
        image_size=None,
        frame_names={2: "a.png"},
        skeleton=Skeleton(("nose", "ear_l", "ear_r"), flip_pairs=()),
    )
    again, said = convert(tmp_path / "out.slp", labels, "sleap")
    for lost in ("hidden", "track ids", "track names", "scores of labels", "number of", "files", "mirror"):
        assert lost in said
    but = {"track ids", "track names", "scores", "the number of frames", "mirror pairs"}
    assert_held(again, labels, "sleap", but={*but, "the names of the frames' files"})


def test_sleap_io_finds_what_it_expects_without_the_video(tmp_path):
    path = tmp_path / "out.slp"
    convert(path, mixed_labels(), "sleap")
    project = sleap_io.load_slp(str(path))
    assert [f.frame_idx for f in project] == [2, 5, 7, 9, 10]
    assert [f.is_negative for f in project] == [False, True, False, False, False]
    assert [len(f.user_instances) for f in project] == [1, 0, 2, 0, 0]
    assert [len(f.predicted_instances) for f in project] == [0, 0, 0, 2, 1]
    assert project.video.filename == "clip.mp4"
    assert [track.name for track in project.tracks] == ["Ann", "Bob"]
    np.testing.assert_array_equal(project[0][0].numpy(), mixed_labels().tracks[0].keypoints[0])
    assert str(tmp_path) not in path.read_bytes().decode("latin1")


# --- damage -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:8] + bytes(range(256)) * 40,
        lambda data: data[:700] + b"\xff" * 2000 + data[2700:],
    ],
)
def test_damage_is_named_and_nothing_is_printed(project, damage, capfd):
    project.write_bytes(damage(project.read_bytes()))
    for format in (None, "sleap"):
        with pytest.raises(LabelsError) as error:
            read_annotations(project, format=format)
        assert str(project) in str(error.value) and "fix:" in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_bits_that_fell_over_never_end_in_another_error(project):
    data = project.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(25):
        broken = bytearray(data)
        for place in rng.integers(0, len(data), 30):
            broken[place] = rng.integers(256)
        project.write_bytes(bytes(broken))
        try:
            read_annotations(project)
        except (LabelsError, PosewarperWarning):
            continue


def change(path: Path, table: str, column: str, value: float) -> None:
    with h5py.File(path, "a") as file:
        rows = file[table][()]
        rows[column][0] = value
        file[table][...] = rows


@pytest.mark.parametrize(
    ("table", "column", "value", "message"),
    [
        ("points", "x", 1e9, "a coordinate is wrong"),
        ("instances", "point_id_end", 2, "has 2 points"),
        ("instances", "track", 9, "cannot be read"),
        ("instances", "skeleton", 9, "cannot be read"),
        ("frames", "instance_id_end", 99, "cannot be read"),
        ("frames", "frame_idx", 2**40, "out of reach"),
        ("frames", "video", 3, "cannot be read"),
    ],
)
def test_wrong_numbers_are_named(project, table, column, value, message):
    change(project, table, column, value)
    with pytest.raises(LabelsError, match=message) as error:
        read_annotations(project)
    assert str(project) in str(error.value)


def test_a_keypoint_in_two_mirror_pairs_names_the_file(tmp_path):
    skeleton = sleap_io.Skeleton(["a", "b", "c"], symmetries=[("a", "b"), ("b", "c")])
    instance = sleap_io.Instance.from_numpy(POINTS, skeleton=skeleton)
    path = save(tmp_path / "a.slp", [frame(a_video(), 1, instance)])
    with pytest.raises(LabelsError, match="two mirror pairs") as error:
        read_annotations(path)
    assert str(path) in str(error.value)


def test_an_empty_project_is_named(tmp_path):
    with pytest.raises(LabelsError, match="no video of the project has labels"):
        read_annotations(save(tmp_path / "a.slp", [frame(a_video(), 1)]))


def test_other_files_are_told(tmp_path):
    path = tmp_path / "labels.slp"
    with h5py.File(path, "w") as file:
        file["numbers"] = [1, 2, 3]
    with pytest.raises(LabelsError, match="cannot be read as a SLEAP project"):
        read_annotations(path, format="sleap")
    with pytest.raises(LabelsError, match="cannot be read"):
        read_annotations(tmp_path / "absent.slp", format="sleap")


def test_the_missing_package_is_named(project, monkeypatch):
    monkeypatch.setitem(sys.modules, "sleap_io", None)
    with pytest.raises(LabelsError, match=r'pip install "posewarper\[formats\]"'):
        read_annotations(project)
    with pytest.raises(LabelsError, match=r'pip install "posewarper\[formats\]"'):
        write_labels(project, Labels(Skeleton(("a",)), {}), format="sleap")


def test_the_command_line_converts_there_and_back(project, tmp_path, capsys):
    assert run_command("convert", project, tmp_path / "labels.json") == 0
    assert run_command("convert", tmp_path / "labels.json", tmp_path / "again.slp") == 0
    out, err = capsys.readouterr()
    assert "3 labelled frames, 1 predicted, 2 tracks, 3 keypoints (sleap)" in out
    assert all("cannot hold" in line for line in err.splitlines())  # nothing of other packages
    assert_same(
        read_annotations(tmp_path / "again.slp"),
        read_annotations(project),
        but={"the names of the frames' files"},
    )
    project.write_bytes(project.read_bytes()[:3000])
    assert run_command("convert", project, tmp_path / "more.json") == 2
    assert "fix:" in capsys.readouterr().err


def test_one_of_several_skeletons_is_chosen(tmp_path):
    fly = sleap_io.Skeleton(["head", "wing"], edges=[("wing", "head")], name="fly")
    other = sleap_io.Instance.from_numpy(np.array([[5.0, 6], [7, 8]]), skeleton=fly)
    video = a_video()
    path = save(tmp_path / "a.slp", [frame(video, 4, user()), frame(video, 9, other, user())])
    with pytest.raises(LabelsError, match=r"several skeletons(.|\n)*1: rat \(3 keypoints\), 2: fly \(2 key"):
        read_labels(path)
    for choice in ("fly", "2"):
        labels = read_labels(path, skeleton=choice)
        assert (labels.skeleton.names, labels.skeleton.edges) == (("head", "wing"), ((1, 0),))
        assert labels.labelled_frames.tolist() == [9]
    with pytest.warns(PosewarperWarning, match="never labelled"):
        assert read_labels(path, skeleton="rat").labelled_frames.tolist() == [4, 9]
    with pytest.raises(LabelsError, match="unknown skeleton"):
        read_labels(path, skeleton="mouse")
