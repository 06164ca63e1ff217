"""OpenPose's folders: frames by name, models by length, people, confidences, and what is written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posewarper.errors import LabelsError, OutputError, PosewarperWarning
from posewarper.formats.catalogue import detect_format
from posewarper.formats.labels import read_annotations, read_labels, write_labels
from posewarper.skeletons import BODY_25, BODY_25B, COCO_18, Skeleton
from posewarper.structures import Labels, Track

THREE = Skeleton(("nose", "left_ear", "right_ear"))


@dataclass
class FakeVideo:
    n_frames: int = 100
    image_size: tuple[int, int] = (480, 640)
    frame_names: tuple[str, ...] = ()
    path: str = "clip.mp4"
    times: np.ndarray = None  # type: ignore[assignment]


def person(*triples: float, track: Any = -1, **more: Any) -> dict[str, Any]:
    return {"person_id": [track], "pose_keypoints_2d": list(triples), "face_keypoints_2d": [], **more}


def save(folder: Path, files: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, people in files.items():
        text = people if isinstance(people, str) else json.dumps({"version": 1.3, "people": people})
        (folder / name).write_text(text)
    return folder


def a_folder(folder: Path) -> Path:
    return save(
        folder / "json",
        {
            "clip_000000000003_keypoints.json": [person(10.5, 20, 0.5, 0, 0, 0, 30, 40, 0.25)],
            "clip_000000000012_keypoints.json": [person(11, 21, 1, 5, 5, 0.125, 31, 41, 0.75)],
            "clip_000000000020_keypoints.json": [],
        },
    )


def test_frames_people_and_confidences(tmp_path):
    folder = a_folder(tmp_path)
    assert detect_format(folder) == "openpose"
    labels = read_labels(folder, skeleton=THREE)
    assert labels.labelled_frames.tolist() == [3, 12, 20]  # nobody is on frame 20
    assert (labels.skeleton, labels.n_frames, labels.image_size) == (THREE, None, None)
    track = labels.tracks[0]
    assert track.frames.tolist() == [3, 12]
    np.testing.assert_array_equal(track.keypoints[0], [[10.5, 20], [np.nan, np.nan], [30, 40]])
    np.testing.assert_array_equal(track.visibility, [[2, 0, 2], [2, 2, 2]])
    np.testing.assert_array_equal(track.keypoint_scores, [[0.5, np.nan, 0.25], [1, 0.125, 0.75]])


def test_other_names_of_files(tmp_path):
    files = {"cam01.0000.json": [person(1, 2, 1)], "cam01.0001.json": [person(3, 4, 1)]}
    labels = read_labels(save(tmp_path / "json", files), skeleton=Skeleton(("nose",)))
    assert labels.tracks[0].frames.tolist() == [0, 1]
    # What is beside OpenPose's own files is not read.
    save(tmp_path / "json", {"a_000000000005_keypoints.json": [person(1, 2, 1)], "settings.json": "7"})
    labels = read_labels(tmp_path / "json", skeleton=Skeleton(("nose",)))
    assert labels.labelled_frames.tolist() == [5]


def test_a_folder_of_frames_gives_the_indices(tmp_path):
    names = tuple(f"clip_{n:012d}.png" for n in range(3, 40))
    labels = read_labels(a_folder(tmp_path), skeleton=THREE, video=FakeVideo(37, frame_names=names))
    assert labels.labelled_frames.tolist() == [0, 9, 17]


@pytest.mark.parametrize(
    ("count", "skeleton", "said"),
    [(25, BODY_25, "--skeleton body_25b"), (18, COCO_18, None), (2, None, "OpenPose with 2 keypoints")],
)
@pytest.mark.filterwarnings("ignore:.*never labelled")
def test_the_number_of_keypoints_tells_the_model(tmp_path, count, skeleton, said):
    folder = save(tmp_path / "json", {"a_000000000000_keypoints.json": [person(*range(1, 3 * count + 1))]})
    if said is None:
        assert read_labels(folder).skeleton == skeleton
        return
    with pytest.warns(PosewarperWarning, match=said):
        labels = read_labels(folder)
    assert labels.skeleton == (skeleton or Skeleton(("keypoint_0", "keypoint_1")))
    assert read_labels(folder, skeleton=BODY_25B).skeleton == BODY_25B if count == 25 else True


def test_people_are_linked_unless_they_have_ids(tmp_path):
    files = {
        "a_0_keypoints.json": [person(10, 10, 1, 30, 10, 1), person(200, 10, 1, 230, 10, 1)],
        "a_1_keypoints.json": [person(201, 10, 1, 231, 10, 1), person(11, 10, 1, 31, 10, 1)],
    }
    two = Skeleton(("a", "b"))
    with pytest.warns(PosewarperWarning, match="linked over time"):
        labels = read_labels(save(tmp_path / "json", files), skeleton=two)
    np.testing.assert_array_equal(labels.tracks[0].keypoints[:, 0, 0], [10, 11])
    for name, (first, second) in zip(files, ((4, 9), (9, 4)), strict=True):
        files[name] = [
            person_ | {"person_id": [i]} for person_, i in zip(files[name], (first, second), strict=True)
        ]
    labels = read_labels(save(tmp_path / "json", files), skeleton=two)
    np.testing.assert_array_equal(labels.tracks[9].keypoints[:, 0, 0], [200, 201])
    files["a_1_keypoints.json"][0]["person_id"] = [-1]
    with pytest.warns(PosewarperWarning, match=r"1 of 4 instances have no track|linked over time"):
        assert list(read_labels(save(tmp_path / "json", files), skeleton=two).tracks) == [0, 1]


def test_people_found_in_two_parts_are_joined(tmp_path):
    whole, other = person(10, 10, 1, 12, 60, 1, 14, 110, 1), person(300, 10, 1, 302, 60, 1, 304, 110, 1)
    upper, lower = person(11, 11, 0.5, 13, 61, 0.5, 0, 0, 0), person(0, 0, 0, 0, 0, 0, 15, 111, 0.25)
    stranger = person(0, 0, 0, 0, 0, 0, 200, 400, 1)
    files = {"a_0_keypoints.json": [whole, other], "a_1_keypoints.json": [lower, other, upper]}
    with pytest.warns(PosewarperWarning) as caught:
        labels = read_labels(save(tmp_path / "json", files), skeleton=THREE)
    said = [str(warning.message) for warning in caught]
    assert any("in two parts were joined: 1" in text for text in said)
    assert any("into 2 tracks" in text for text in said)
    np.testing.assert_array_equal(labels.tracks[0].keypoints[1], [[11, 11], [13, 61], [15, 111]])
    np.testing.assert_array_equal(labels.tracks[0].keypoint_scores[1], [0.5, 0.5, 0.25])
    # Not where the part lies elsewhere, or as many people were there before, or the parts share keypoints.
    for people, before in (
        ([upper, other, stranger], [whole, other]),
        ([upper, other, lower], [whole, other, stranger]),
        ([upper, other, whole], [whole, other]),
    ):
        files = {"a_0_keypoints.json": before, "a_1_keypoints.json": people}
        with pytest.warns(PosewarperWarning) as caught:
            labels = read_labels(save(tmp_path / "json", files), skeleton=THREE)
        assert not any("joined" in str(warning.message) for warning in caught)
        assert len(labels.at([1]).tracks) == 3


def test_faces_alone_and_old_files(tmp_path):
    old = {"pose_keypoints": [1, 2, 0.5]}
    face = person(face_keypoints_2d=[1, 2, 0.5])
    folder = save(tmp_path / "json", {"a_0_keypoints.json": [old, face]})
    labels = read_labels(folder, skeleton=Skeleton(("nose",)))
    assert list(labels.tracks) == [0]
    np.testing.assert_array_equal(labels.tracks[0].keypoints, [[[1, 2]]])


def test_coordinates_that_are_no_pixels_are_noticed(tmp_path):
    folder = save(tmp_path / "json", {"a_0_keypoints.json": [person(0.25, 0.5, 1)]})
    with pytest.warns(PosewarperWarning, match="--keypoint_scale 0"):
        read_labels(folder, skeleton=Skeleton(("nose",)))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a_1_keypoints.json", '{"version": 1.3}', "people is missing"),
        ("a_1_keypoints.json", '{"people": 3}', "people is wrong"),
        ("a_1_keypoints.json", '{"people": [3]}', "people is wrong"),
        ("a_1_keypoints.json", '{"people": [{}]}', r"people\[0\]: pose_keypoints_2d is missing"),
        ("a_1_keypoints.json", [person(1, 2)], r"people\[0\]: pose_keypoints_2d is wrong"),
        ("a_1_keypoints.json", [person(1, 2, float("nan"))], "pose_keypoints_2d is wrong"),
        ("a_1_keypoints.json", [person(1e9, 2, 1)], "coordinates in pixels"),
        ("a_1_keypoints.json", [person(1, 2, 1, track="x")], "person_id is wrong"),
        ("a_1_keypoints.json", [person(1, 2, 1), person(3, 4, 1, 5, 6, 1)], "different numbers of keypoints"),
        ("a_1_keypoints.json", '{"people": [', "no valid JSON"),
        ("a_keypoints.json", [person(1, 2, 1)], "cannot tell which frame"),
        ("b_0_keypoints.json", [person(1, 2, 1)], "labels of 2 videos"),
    ],
)
def test_damage_is_named(tmp_path, name, content, message):
    folder = save(tmp_path / "json", {"a_0_keypoints.json": [person(1, 2, 1)], name: content})
    with pytest.raises(LabelsError, match=message) as error:
        read_labels(folder, skeleton=Skeleton(("nose",)))
    assert str(folder) in str(error.value) and "fix:" in str(error.value)


def test_wrong_folders_and_skeletons(tmp_path):
    folder = a_folder(tmp_path)
    with pytest.raises(LabelsError, match="another number of keypoints") as error:
        read_labels(folder, skeleton=BODY_25)
    assert "25: Nose" in str(error.value) and "3" in str(error.value)
    with pytest.raises(LabelsError, match="single file") as error:
        read_labels(folder / "clip_000000000003_keypoints.json")
    assert f"give the folder: {folder}" in str(error.value)
    (tmp_path / "empty").mkdir()
    for place, message in ((tmp_path / "empty", "has no files"), (tmp_path / "none", "cannot read")):
        with pytest.raises(LabelsError, match=message):
            read_labels(place, format="openpose")


def some_labels(**more: Any) -> Labels:
    track = Track(
        [1, 3],
        [[[1 / 3, 2], [3, 4]], [[5, 6], [np.nan, np.nan]]],
        visibility=[[2, 1], [2, 0]],
        keypoint_scores=[[0.5, np.nan], [0, np.nan]],
    )
    return Labels(Skeleton(("nose", "tail"), name="fly"), {5: track}, n_frames=6, video="clip.mp4", **more)


def test_a_file_for_each_frame_is_written(tmp_path):
    out = tmp_path / "deep" / "json"
    with pytest.warns(PosewarperWarning) as caught:
        write_labels(out, some_labels(), format="openpose")
    said = " ".join(str(warning.message) for warning in caught)
    for lost in ("keypoints' names", "called", "hidden", "scores of 0", "no score", "nobody has labelled"):
        assert lost in said
    assert sorted(p.name for p in out.iterdir()) == [f"clip_{n:012d}_keypoints.json" for n in range(6)]
    assert [p.name for p in out.parent.iterdir()] == ["json"]
    found = json.loads((out / "clip_000000000001_keypoints.json").read_text())["people"]
    assert found[0]["person_id"] == [5]
    assert found[0]["pose_keypoints_2d"] == [1 / 3, 2, 0.5, 3, 4, 1]
    assert json.loads((out / "clip_000000000002_keypoints.json").read_text())["people"] == []
    again = read_annotations(out, skeleton=Skeleton(("nose", "tail")))
    assert again.labelled_frames.tolist() == list(range(6))
    np.testing.assert_array_equal(again.tracks[5].visibility, [[2, 2], [2, 0]])


@pytest.mark.filterwarnings("ignore:.*cannot hold")
def test_folders_are_replaced_as_a_whole_or_not_at_all(tmp_path):
    out = tmp_path / "json"
    write_labels(out, some_labels(), format="openpose")
    shorter = Labels(
        Skeleton(("nose",)), {0: Track([0], [[[1, 2]]], visibility=[[2]])}, n_frames=1, video="a"
    )
    write_labels(out, shorter, format="openpose")
    assert [p.name for p in out.iterdir()] == ["a_000000000000_keypoints.json"]
    (out / "notes.txt").write_text("precious")
    with pytest.raises(OutputError, match="other files") as error:
        write_labels(out, some_labels(), format="openpose")
    assert "notes.txt" in str(error.value)
    assert len(list(out.iterdir())) == 2 and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(OutputError, match="no folder"):
        write_labels(out / "notes.txt", some_labels(), format="openpose")


@pytest.mark.filterwarnings("ignore:.*cannot hold")
def test_frames_out_of_reach_and_the_track_that_means_none(tmp_path):
    track = Track([2**31 - 1], [[[1, 2]]], visibility=[[2]])
    with pytest.raises(OutputError, match="too many files"):
        write_labels(tmp_path / "json", Labels(Skeleton(("nose",)), {0: track}), format="openpose")
    assert not list(tmp_path.iterdir())
    tracks = {i: Track([0], [[[10 + i, 2]]], visibility=[[2]]) for i in (-1, 3)}
    with pytest.warns(PosewarperWarning, match="track -1 is written as 4"):
        write_labels(tmp_path / "json", Labels(Skeleton(("nose",)), tracks), format="openpose")
    assert list(read_annotations(tmp_path / "json", skeleton=Skeleton(("nose",))).tracks) == [3, 4]
