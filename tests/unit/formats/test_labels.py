"""The border: formats, checks against video and skeleton, and round trips of labels and poses."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from posewarper.errors import ConfigError, LabelsError, OutputError, PosewarperWarning
from posewarper.formats.catalogue import detect_format
from posewarper.formats.labels import (
    read_annotations,
    read_labels,
    read_poses,
    write_labels,
    write_poses,
)
from posewarper.formats.records import LabelFile
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Poses, Track

SKELETON = Skeleton(("nose", "left_ear", "right_ear"), ((0, 1), (0, 2)))


@dataclass
class FakeVideo:
    n_frames: int = 50
    image_size: tuple[int, int] = (120, 160)
    frame_names: tuple[str, ...] = ()
    path: str = "clip.mp4"


def some_labels() -> Labels:
    """Two tracks; frame 5 is labelled and empty, frame 9 holds a prediction."""
    first = Track(
        [0, 3, 9],
        np.arange(18.0).reshape(3, 3, 2) + 0.1,
        visibility=[[2, 2, 1], [2, 0, 0], [2, 2, 2]],
        boxes=[[0.5, 1.5, 20, 30], [np.nan] * 4, [np.nan] * 4],
        head_boxes=[[1, 2, 3, 4], [np.nan] * 4, [np.nan] * 4],
    )
    second = Track([3], np.full((1, 3, 2), 1 / 3), visibility=[[2, 2, 2]])
    return Labels(
        SKELETON,
        {0: first, 7: second},
        labelled_frames=[0, 3, 5],
        image_size=(120, 160),
        n_frames=50,
        video="clip.mp4",
        frame_names={0: "images/first.jpg"},
        ignore_regions={3: (np.array([[0, 0], [5, 0], [5, 5.5]]),)},
    )


def assert_same_tracks(a: Labels, b: Labels) -> None:
    assert list(a.tracks) == list(b.tracks)
    for n, track in a.tracks.items():
        for name in ("frames", "keypoints", "visibility"):
            np.testing.assert_array_equal(getattr(track, name), getattr(b.tracks[n], name))


def test_native_labels_come_back_with_everything(tmp_path):
    labels, path = some_labels(), tmp_path / "labels.json"
    write_labels(path, labels)
    assert detect_format(path) == "posetrack"
    again = read_annotations(path)
    assert_same_tracks(labels, again)
    assert again.skeleton == labels.skeleton
    assert again.labelled_frames.tolist() == [0, 3, 5]
    assert (again.image_size, again.n_frames, again.video) == ((120, 160), 50, "clip.mp4")
    assert again.frame_names == {
        0: "images/first.jpg", 3: "clip/000003.jpg", 5: "clip/000005.jpg", 9: "clip/000009.jpg"
    }  # fmt: skip
    np.testing.assert_array_equal(again.tracks[0].boxes[0], [0.5, 1.5, 20, 30])
    np.testing.assert_array_equal(again.tracks[0].head_boxes, labels.tracks[0].head_boxes)
    np.testing.assert_array_equal(again.ignore_regions[3][0], labels.ignore_regions[3][0])
    second = tmp_path / "second.json"
    write_labels(second, again)
    write_labels(path, again)
    assert path.read_bytes() == second.read_bytes()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    keypoints=arrays(np.float64, (2, 3, 2), elements=st.floats(-1e6, 1e6)),
    visibility=arrays(np.uint8, (2, 3), elements=st.integers(0, 2)),
    form=st.sampled_from(["posetrack", "coco"]),
)
def test_coordinates_come_back_bit_by_bit(tmp_path, keypoints, visibility, form):
    visibility[:, 0] = 2  # an instance has at least one keypoint, and plain COCO one that is visible
    labels = Labels(SKELETON, {0: Track([0, 8], keypoints, visibility=visibility)})
    write_labels(tmp_path / "labels.json", labels, format=form)
    again = read_annotations(tmp_path / "labels.json")
    assert_same_tracks(labels, again)
    there = labels.tracks[0].visibility > 0
    written, read = labels.tracks[0].keypoints[there], again.tracks[0].keypoints[there]
    assert written.tobytes() == read.tobytes()  # also the sign of zero


def test_plain_coco_keeps_tracks_and_labelled_frames_but_no_posetrack_fields(tmp_path):
    labels, path = replace(some_labels(), frame_names={}), tmp_path / "labels.json"
    with pytest.warns(PosewarperWarning, match="cannot hold: the number of frames$"):
        write_labels(path, labels, format="coco")
    assert detect_format(path) == "coco"
    assert not {"vid_id", "frame_id", "nframes"} & set(json.loads(path.read_text())["images"][0])
    again = read_annotations(path)
    assert_same_tracks(labels, again)
    assert again.labelled_frames.tolist() == [0, 3, 5]


def test_box_of_a_label_without_one_surrounds_it_within_the_image(tmp_path):
    track = Track([0], [[[10, 20], [60, 40], [158, 40]]], visibility=[[2, 2, 2]])
    labels = Labels(SKELETON, {0: track}, image_size=(120, 160))
    write_labels(tmp_path / "labels.json", labels)
    annotation = json.loads((tmp_path / "labels.json").read_text())["annotations"][0]
    assert annotation["bbox"] == [0, 18, 160, 24]
    assert annotation["area"] == 160 * 24
    assert annotation["num_keypoints"] == 3


def test_mirror_pairs_that_the_names_do_not_tell_are_kept(tmp_path):
    skeleton = Skeleton(("a", "b", "c"), flip_pairs=((0, 2),))
    labels = Labels(skeleton, {0: Track([1], np.ones((1, 3, 2)), visibility=[[2, 2, 2]])})
    write_labels(tmp_path / "labels.json", labels)
    assert read_labels(tmp_path / "labels.json").skeleton.flip_pairs == ((0, 2),)


def test_skeleton_must_agree(tmp_path):
    path = tmp_path / "labels.json"
    write_labels(path, some_labels())
    with_edges = Skeleton(SKELETON.names, ((1, 2),))
    assert read_labels(path, skeleton=with_edges).skeleton == with_edges
    with pytest.raises(LabelsError, match="missing: tail; extra: left_ear, right_ear"):
        read_labels(path, skeleton=Skeleton(("nose", "tail")))
    with pytest.raises(LabelsError, match="another order: nose, left_ear, right_ear"):
        read_labels(path, skeleton=Skeleton(("left_ear", "nose", "right_ear")))


def test_skeleton_stands_in_for_missing_names(tmp_path):
    path = tmp_path / "labels.json"
    write_labels(path, some_labels())
    document = json.loads(path.read_text())
    del document["categories"]
    path.write_text(json.dumps(document))
    assert_same_tracks(read_annotations(path, skeleton=SKELETON), some_labels())


def test_video_must_agree(tmp_path):
    path = tmp_path / "labels.json"
    write_labels(path, some_labels())
    assert read_labels(path, video=FakeVideo()).n_frames == 50
    with pytest.raises(LabelsError, match="another size") as error:
        read_labels(path, video=FakeVideo(image_size=(120, 161)))
    assert "161 x 120" in str(error.value) and "160 x 120" in str(error.value)
    assert "resized" in str(error.value)
    with pytest.raises(LabelsError, match="rotated"):
        read_labels(path, video=FakeVideo(image_size=(160, 120)))
    with (
        pytest.raises(LabelsError, match="beyond the last frame") as error,
        pytest.warns(PosewarperWarning, match="50 frames, this one has 4"),
    ):
        read_labels(path, video=FakeVideo(4))
    assert "from 0 to 3" in str(error.value) and "frame 9" in str(error.value)


def test_frame_offset_is_added_before_the_checks(tmp_path):
    path = tmp_path / "labels.json"
    labels = some_labels()
    write_labels(path, replace(labels, n_frames=None))
    assert read_annotations(path, frame_offset=2).labelled_frames.tolist() == [2, 5, 7]
    shifted = read_annotations(path, frame_offset=1, video=FakeVideo(11))
    assert shifted.tracks[0].frames.tolist() == [1, 4, 10]
    assert shifted.ignore_regions.keys() == {4}
    assert not shifted.frame_names
    with pytest.raises(LabelsError, match="beyond the last frame"):
        read_annotations(path, frame_offset=1, video=FakeVideo(10))
    with pytest.raises(LabelsError, match="before the first frame"):
        read_annotations(path, frame_offset=-1)


def test_formats_by_name_and_suffix(tmp_path):
    labels = some_labels()
    with pytest.raises(LabelsError, match="posetrack, coco, deeplabcut"):
        write_labels(tmp_path / "labels.json", labels, format="yaml")
    with pytest.raises(LabelsError, match="suffix"):
        write_labels(tmp_path / "labels.txt", labels)
    write_labels(tmp_path / "labels.json", labels)
    with pytest.raises(LabelsError, match="posetrack, coco, deeplabcut"):
        read_labels(tmp_path / "labels.json", format="yaml")
    with pytest.raises(LabelsError, match="header is not DeepLabCut's"):
        read_labels(tmp_path / "labels.json", format="deeplabcut")
    with pytest.raises(LabelsError, match=r"this folder holds no labels\n.*_keypoints.json.*\n.*labels.json"):
        read_labels(tmp_path)
    for missing in (tmp_path / "none.json", tmp_path / "labels.json" / "x", "bad\0name"):
        with pytest.raises(LabelsError, match="cannot read this label file"):
            read_labels(missing)
    with pytest.raises(OutputError):
        write_labels(tmp_path / "labels.json" / "inner.json", labels)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["labels.json"]


@pytest.mark.parametrize("name", ["poses.json", "label/labels.json"])
def test_a_folder_of_results_is_told_from_labels_and_its_labels_are_named(tmp_path, name):
    (tmp_path / "label").mkdir()
    (tmp_path / "poses.json").write_text("{}")
    (tmp_path / name).write_text("{}")
    with pytest.raises(LabelsError, match=rf"folder of results(?s:.*)name .*{name}; .*--out"):
        read_labels(tmp_path)


def some_poses() -> Poses:
    keypoints = np.arange(18.0).reshape(3, 3, 2) + 1 / 3
    keypoints[1, 2] = np.nan
    first = Track(
        [1, 2, 3],
        keypoints,
        keypoint_scores=[[1, 1, 1], [0.123456, 0.5, 0.9], [0.5, 0.5, 0.5]],
        visibility=[[2, 1, 2], [2, 2, 0], [2, 2, 2]],
        expected_error=[[0, 0, 0], [1.5, np.nan, np.nan], [3, 4, 5]],
    )
    second = Track(
        [3, 4], np.full((2, 3, 2), [[[np.nan] * 2] * 3, [[-0.0001, 7]] * 3]), keypoint_scores=np.ones((2, 3))
    )
    return Poses(SKELETON, {0: first, 5: second}, (120, 160), 6, [1], "clip.mp4", {2: "images/second.jpg"})


def test_poses_come_back_with_scores_and_labels_exactly(tmp_path):
    poses, path = some_poses(), tmp_path / "poses.json"
    write_poses(path, poses)
    again = read_poses(path)
    assert (again.image_size, again.n_frames, again.video) == ((120, 160), 6, "clip.mp4")
    assert again.labelled_frames.tolist() == [1]
    assert again.frame_names[2] == "images/second.jpg" and again.frame_names[5] == "clip/000005.jpg"
    first, second = again.tracks[0], again.tracks[5]
    np.testing.assert_array_equal(first.frames, [1, 2, 3])
    np.testing.assert_array_equal(first.keypoints[0], poses.tracks[0].keypoints[0])
    np.testing.assert_array_equal(first.keypoints[1:], np.round(poses.tracks[0].keypoints[1:], 3))
    np.testing.assert_array_equal(first.visibility, poses.tracks[0].visibility)
    np.testing.assert_array_equal(first.keypoint_scores[1], [0.1235, 0.5, 0])
    np.testing.assert_array_equal(first.expected_error, poses.tracks[0].expected_error)
    np.testing.assert_array_equal(second.frames, [4])  # nothing is there in frame 3
    assert first.knows_error and not second.knows_error
    assert "-0.0" not in path.read_text()


def test_poses_file_lists_every_frame_and_is_read_as_labels_without_predictions(tmp_path):
    path = tmp_path / "poses.json"
    write_poses(path, some_poses())
    first = path.read_bytes()
    write_poses(path, some_poses())
    assert path.read_bytes() == first
    document = json.loads(first)
    assert [image["frame_id"] for image in document["images"]] == list(range(6))
    assert [image["is_labeled"] for image in document["images"]] == [False, True, False, False, False, False]
    assert {"id", "file_name", "vid_id", "nframes", "width", "height"} < set(document["images"][0])
    assert [a["track_id"] for a in document["annotations"]] == [0, 0, 0, 5]
    assert {
        "id",
        "image_id",
        "category_id",
        "bbox",
        "area",
        "iscrowd",
        "num_keypoints",
        "score",
        "scores",
    } < set(document["annotations"][0])
    assert document["annotations"][1]["keypoints"][-3:] == [0, 0, 0]
    assert document["annotations"][1]["expected_error"] == [1.5, None, None]
    labels = read_labels(path)
    assert labels.tracks.keys() == {0}
    assert labels.tracks[0].frames.tolist() == [1]
    assert labels.tracks[0].visibility.tolist() == [[2, 1, 2]]


def all_states() -> Labels:
    """Labels with every state of a keypoint; on frame 3 one track is not looked at, and one is gone."""
    nan = np.nan
    points = np.arange(18.0).reshape(3, 3, 2) / 7
    points[0, 1:] = nan
    first = Track(
        [0, 3, 9],
        points,
        visibility=[[2, 0, 0], [1, 2, 2], [2, 2, 2]],
        labelled=[[True, True, False], [True, True, False], [False] * 3],
        expected_error=[[nan] * 3, [nan, nan, 2.5], [1.5] * 3],
    )
    second = Track([0, 3], [points[2], [[nan, nan]] * 3], labelled=[[True] * 3, [False] * 3])
    third = Track([0, 3], [points[2], [[nan, nan]] * 3], labelled=[[True] * 3, [True] * 3])
    return Labels(
        SKELETON,
        {0: first, 4: second, 7: third},
        labelled_frames=[0, 3, 5],
        image_size=(120, 160),
        n_frames=50,
        video="clip.mp4",
    )


@pytest.mark.parametrize("form", ["posetrack", "coco"])
def test_json_holds_every_state_of_a_keypoint(tmp_path, form):
    labels = replace(all_states(), n_frames=None)
    write_labels(tmp_path / "a.json", labels, format=form)
    again = read_annotations(tmp_path / "a.json", format=form)
    assert list(again.tracks) == [0, 4, 7]
    for one, other in zip(labels.tracks.values(), again.tracks.values(), strict=True):
        for name in ("frames", "keypoints", "visibility", "labelled", "expected_error"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)
    write_labels(tmp_path / "b.json", again, format=form)
    first, second = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    assert first["annotations"] == second["annotations"]
    assert [a.get("labelled") for a in first["annotations"]] == [
        [1, 1, 0], None, None, [1, 1, 0], None, [1, 1, 1], None
    ]  # fmt: skip
    # What is predicted on a labelled frame is no label.
    alone = read_labels(tmp_path / "a.json", format=form)
    assert alone.tracks[0].not_looked_at.tolist() == [[False, False, True]] * 2
    assert alone.tracks[4].not_looked_at.tolist() == [[False] * 3, [True] * 3]
    assert alone.tracks[7].is_gone.tolist() == [False, True]


def test_what_is_not_labelled_may_be_absent(tmp_path):
    write_labels(tmp_path / "a.json", all_states())
    read = {kind: LabelFile(tmp_path / "a.json", unlabelled=kind) for kind in ("unknown", "absent")}
    for reads in (read_labels, read_annotations):
        one, other = reads(read["unknown"]), reads(read["absent"])
        assert one.fingerprint() == reads(tmp_path / "a.json").fingerprint()
        assert other.fingerprint() == one.with_unlabelled_absent().fingerprint()
    tracks = read_labels(read["absent"]).tracks
    assert tracks[0].placed.tolist() == [[True, False, False], [True, True, False]]
    assert tracks[0].absent.tolist() == [[False, True, True], [False, False, True]]
    assert tracks[4].frames.tolist() == tracks[7].frames.tolist() == [0]
    with pytest.raises(ConfigError, match="did you mean absent"):
        LabelFile("a.json", unlabelled="absnet")


def test_poses_hold_every_state_and_round_predictions_alone(tmp_path):
    labels = all_states()
    poses = Poses(labels.skeleton, labels.tracks, (120, 160), 50, labels.labelled_frames, "clip.mp4")
    write_poses(tmp_path / "poses.json", poses)
    again = read_poses(tmp_path / "poses.json").tracks
    for one, other in zip(poses.tracks.values(), again.values(), strict=True):
        np.testing.assert_array_equal(one.frames, other.frames)
        np.testing.assert_array_equal(one.labelled, other.labelled)
        np.testing.assert_array_equal(one.visibility, other.visibility)
        np.testing.assert_array_equal(one.keypoints[one.placed], other.keypoints[one.placed])
        np.testing.assert_array_equal(
            np.round(one.keypoints[one.predicted], 3), other.keypoints[one.predicted]
        )
    assert np.flatnonzero(again[0].expected_error[1] == 2.5).tolist() == [2]


def test_poses_need_an_image_size(tmp_path):
    path = tmp_path / "labels.json"
    write_labels(path, replace(some_labels(), image_size=None, n_frames=None))
    with pytest.raises(LabelsError, match="size of the images"):
        read_poses(path)
    write_labels(path, replace(some_labels(), n_frames=None))
    poses = read_poses(path)
    assert poses.n_frames == 10
    np.testing.assert_array_equal(poses.tracks[7].keypoint_scores, [[1, 1, 1]])


@pytest.mark.filterwarnings("ignore:.*never labelled", "ignore:.*outside of the image")
def test_shared_files_are_read(shared_data):
    flies = read_labels(shared_data / "flies" / "flies.json")
    assert {i: len(track.frames) for i, track in flies.tracks.items()} == {0: 300, 1: 295}
    assert (3, 4) in flies.skeleton.flip_pairs  # wingL, wingR
    cam = read_labels(shared_data / "balancing" / "cam01.json")
    assert cam.labelled_frames.tolist() == list(range(1, 100))
    official = shared_data / "posetrack18_sample" / "annotations"
    labels = read_labels(official / "val" / "012834_mpii_test.json")
    assert labels.labelled_frames.tolist() == [0]
    assert len(labels.tracks) == 11
    assert set(np.unique(labels.tracks[0].visibility)) == {0, 2}
    assert len(labels.ignore_regions[0]) == 4
    np.testing.assert_array_equal(labels.tracks[0].head_boxes, [[378, 503, 44, 53]])
    with pytest.raises(LabelsError, match="2 videos"):
        read_labels(official / "posetrack18_val.json")
    video = FakeVideo(101, (1080, 1920), ("000000.jpg",), "images/val/009473_mpii_test")
    assert len(read_labels(official / "posetrack18_val.json", video=video).tracks) == 2
