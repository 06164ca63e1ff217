"""COCO keypoints JSON: what is read, what is refused, what is written."""

from __future__ import annotations

import json
import warnings
from contextlib import nullcontext

import numpy as np
import pytest
from label_documents import NAMES, FakeVideo, a_document, plain, save, two_videos

from posewarper.errors import LabelsError, PosewarperWarning
from posewarper.formats.catalogue import detect_format
from posewarper.formats.labels import read_annotations, read_labels, write_labels
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Track


def test_native_file_is_read(tmp_path):
    labels = read_labels(save(tmp_path, a_document()))
    assert labels.skeleton.names == tuple(NAMES)
    assert labels.skeleton.edges == ((0, 1), (0, 2))
    assert labels.labelled_frames.tolist() == [3, 10]
    assert (labels.image_size, labels.n_frames, labels.video) == ((480, 640), 100, "clip.mp4")
    assert labels.frame_names[10] == "clip/000010.jpg"
    assert list(labels.tracks) == [0, 1]
    track = labels.tracks[1]
    np.testing.assert_array_equal(track.visibility, [[2, 1, 0], [2, 1, 2]])
    np.testing.assert_array_equal(track.keypoints[0], [[100.1 * 2 + 3, 50.25], [110, 45.7], [np.nan, np.nan]])
    np.testing.assert_array_equal(track.boxes[1], [10, 20, 50, 60])
    assert np.isnan(track.head_boxes).all()


def test_frame_without_people_is_labelled_and_unlabelled_frame_holds_predictions(tmp_path):
    document = a_document()
    document["images"] += [{**document["images"][0], "id": 7, "frame_id": 30, "file_name": "clip/000030.jpg"}]
    document["annotations"] += [{**document["annotations"][0], "id": 5, "image_id": 1020}]
    path = save(tmp_path, document)
    everything, labels = read_annotations(path), read_labels(path)
    assert everything.labelled_frames.tolist() == labels.labelled_frames.tolist() == [3, 10, 30]
    assert everything.tracks[0].frames.tolist() == [3, 10, 20]
    assert labels.tracks[0].frames.tolist() == [3, 10]


def test_native_file_without_a_visible_keypoint_keeps_them_hidden(tmp_path):
    document = a_document()
    for annotation in document["annotations"]:
        annotation["keypoints"][2::3] = [1, 1, 1]
    assert (read_labels(save(tmp_path, document)).tracks[0].visibility == 1).all()


def test_official_posetrack_counts_by_file_name_and_reads_1_as_visible(tmp_path):
    document = a_document()
    for image in document["images"]:
        image["id"] = image["frame_id"] = 10000010000 + image["frame_id"]
        image |= {"ignore_regions_x": [[0, 5, 5]], "ignore_regions_y": [[0, 0, 9.5]]}
    for annotation in document["annotations"]:
        annotation["image_id"] += 10000010000 - 1000
        annotation["keypoints"][2::3] = [1, 1, 1]
        annotation["bbox_head"] = [1, 2, 3, 4]
    labels = read_labels(save(tmp_path, document))
    assert labels.labelled_frames.tolist() == [3, 10]
    assert (labels.tracks[0].visibility == 2).all()
    np.testing.assert_array_equal(labels.tracks[0].head_boxes[0], [1, 2, 3, 4])
    np.testing.assert_array_equal(labels.ignore_regions[3][0], [[0, 0], [5, 0], [5, 9.5]])


def test_posetrack_numbering_with_visibility_2_still_counts_by_file_name(tmp_path):
    document = a_document()
    for image in document["images"]:
        image["id"] = image["frame_id"] = 10000010000 + image["frame_id"]
    for annotation in document["annotations"]:
        annotation["image_id"] += 10000010000 - 1000
    labels = read_labels(save(tmp_path, document))
    assert labels.labelled_frames.tolist() == [3, 10]
    assert labels.tracks[0].visibility[0].tolist() == [2, 1, 0]


def test_plain_coco_counts_by_file_name_and_frames_without_people_are_not_labelled(tmp_path):
    document = plain(a_document(tracks=(0,)))
    path = save(tmp_path, document)
    assert detect_format(path) == "coco"
    labels = read_labels(path)
    assert labels.labelled_frames.tolist() == [3, 10]
    assert list(labels.tracks) == [0]
    assert labels.n_frames is None


def test_plain_coco_with_several_instances_is_linked_with_a_warning(tmp_path):
    document = plain(a_document(frames=(3, 10, 17)))
    # Shuffled in one frame, so that order in the file cannot be what links them.
    document["annotations"][2:4] = document["annotations"][3:1:-1]
    with pytest.warns(PosewarperWarning, match="no track_id; instances were linked"):
        labels = read_labels(save(tmp_path, document))
    assert list(labels.tracks) == [0, 1]
    for n, track in labels.tracks.items():
        np.testing.assert_allclose(track.keypoints[:, 0, 0], 100.1 * (n + 1) + np.array([3, 10, 17]))


def test_an_instance_far_from_all_others_is_a_new_track(tmp_path):
    document = plain(a_document())
    moved = document["annotations"][2]["keypoints"]
    moved[0::3] = [x + 400 for x in moved[0::3]]
    with pytest.warns(PosewarperWarning, match="3 tracks"):
        labels = read_labels(save(tmp_path, document))
    assert {i: track.frames.tolist() for i, track in labels.tracks.items()} == {0: [3], 1: [3, 10], 2: [10]}


def test_plain_coco_without_visibility_2_is_read_as_visible(tmp_path):
    document = plain(a_document(tracks=(0,)))
    for annotation in document["annotations"]:
        annotation["keypoints"][2::3] = [1, 1, 1]
    with pytest.warns(PosewarperWarning, match="no keypoint has visibility 2"):
        labels = read_labels(save(tmp_path, document))
    assert (labels.tracks[0].visibility == 2).all()


def test_folder_of_frames_gives_the_index_by_name(tmp_path):
    document = plain(a_document(tracks=(0,)))
    names = tuple(f"{i:06d}.png" for i in range(1, 60))
    labels = read_labels(save(tmp_path, document), video=FakeVideo(59, frame_names=names))
    assert labels.labelled_frames.tolist() == [2, 9]
    with pytest.raises(LabelsError, match="not in the folder of frames"):
        read_labels(save(tmp_path, document), video=FakeVideo(5, frame_names=names[:5]))


def test_folder_of_frames_counts_before_frame_id_with_a_warning(tmp_path):
    names = tuple(f"{i:06d}.jpg" for i in range(1, 101))
    with pytest.warns(PosewarperWarning, match="frame_id differs"):
        labels = read_labels(save(tmp_path, a_document()), video=FakeVideo(frame_names=names))
    assert labels.labelled_frames.tolist() == [2, 9]
    other = tuple(f"{i:06d}.jpg" for i in range(10, 110))  # has frame 10 and 20, but not 3
    labels = read_labels(save(tmp_path, a_document()), video=FakeVideo(frame_names=other))
    assert labels.labelled_frames.tolist() == [3, 10]


@pytest.mark.filterwarnings("ignore:.*never labelled")
def test_the_opened_video_picks_one_of_several(tmp_path):
    path = save(tmp_path, two_videos())
    assert list(read_labels(path, video=FakeVideo(path="x/other.mp4")).tracks) == [5]
    assert list(read_labels(path, video=FakeVideo(path="x/clip")).tracks) == [0, 1]
    assert list(read_labels(path, video=FakeVideo(path="2.mp4")).tracks) == [5]
    for video in (None, FakeVideo(path="third.mp4")):
        with pytest.raises(LabelsError, match="labels of 2 videos") as error:
            read_labels(path, video=video)
        assert "1/clip" in str(error.value) and "2/other" in str(error.value)


def test_the_category_with_keypoints_counts(tmp_path):
    document = a_document()
    document["categories"].insert(0, {"id": 5, "name": "ball"})
    document["annotations"].append({"id": 77, "image_id": 1003, "category_id": 5, "bbox": [1, 2, 3, 4]})
    with pytest.raises(LabelsError, match="keypoints is missing"):
        read_labels(
            save(tmp_path, {**document, "annotations": [{"id": 1, "image_id": 1003, "category_id": 1}]})
        )
    assert len(read_labels(save(tmp_path, document)).tracks) == 2
    document["categories"].append({"id": 6, "name": "dog", "keypoints": ["tail"]})
    assert len(read_labels(save(tmp_path, document)).tracks) == 2  # nobody uses it
    document["annotations"].append(
        {"id": 78, "image_id": 1003, "category_id": 6, "track_id": 3, "keypoints": [1, 2, 2]}
    )
    with pytest.raises(LabelsError, match="several skeletons") as error:
        read_labels(save(tmp_path, document))
    assert "1: person (3 keypoints), 2: dog (1 keypoints)" in str(error.value)
    path = tmp_path / "labels.json"
    assert len(read_labels(path, skeleton="person").tracks) == 2
    for choice in ("dog", "2"):
        assert read_labels(path, skeleton=choice).skeleton.names == ("tail",)


def test_wrong_edges_are_left_out_with_a_warning(tmp_path):
    document = a_document()
    document["categories"][0]["skeleton"] = [[1, 2], [3, 4], [2, 2], "ab"]
    with pytest.warns(PosewarperWarning, match="edges of the skeleton are left out"):
        labels = read_labels(save(tmp_path, document))
    assert labels.skeleton.edges == ((0, 1),)


def test_odd_but_usable_labels_warn(tmp_path):
    document = a_document()
    document["annotations"][0]["keypoints"][0] = float("nan")
    with pytest.warns(
        PosewarperWarning, match=r"1 keypoints without coordinates .*annotations\[0\] \(id 30\)"
    ):
        labels = read_labels(save(tmp_path, document))
    assert labels.tracks[0].visibility[0].tolist() == [0, 1, 0]

    document = a_document()
    document["annotations"][3]["keypoints"][1] = 479.75
    with pytest.warns(PosewarperWarning, match=r"1 labelled keypoints lie outside .*annotations\[3\]"):
        labels = read_labels(save(tmp_path, document))
    assert labels.tracks[1].keypoints[1, 0, 1] == 479.75

    document = a_document(frames=(3,))
    with pytest.warns(PosewarperWarning, match="never labelled stay empty: right_eye"):
        read_labels(save(tmp_path, document))

    with pytest.warns(PosewarperWarning, match="made on a video of 100 frames, this one has 90"):
        read_labels(save(tmp_path, a_document()), video=FakeVideo(90))


def test_a_byte_order_mark_is_no_harm(tmp_path):
    path = tmp_path / "labels.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(a_document()).encode())
    assert len(read_labels(path).tracks) == 2


def test_ten_thousand_annotations_are_read(tmp_path):
    document = a_document(frames=tuple(range(21, 5021)))
    for image in document["images"]:
        image["nframes"] = 6000
    for annotation in document["annotations"]:
        annotation["keypoints"] = [100.25, 50.5, 2] * 17
    document["categories"][0]["keypoints"] = [f"point{k}" for k in range(17)]
    path = save(tmp_path, document)
    labels = read_labels(path)
    assert len(labels.tracks[0].frames) == 5000


@pytest.mark.parametrize(
    ("edges", "expected", "said"),
    [
        ([[0, 1], [1, 2]], ((0, 1), (1, 2)), "counted from 0"),
        ([[1, 0], [0, 2], [2, 9]], ((1, 0), (0, 2)), "counted from 0|left out"),
        ([[1, 2], [2, 3]], ((0, 1), (1, 2)), None),
        ([[1, 2]], ((0, 1),), None),  # either way: COCO counts from 1
        ([[0, 1], [2, 3]], (), "left out"),  # neither way
        ([["nose", "left_eye"]], ((0, 1),), None),
        ([[1, 2], [2, 2], [7, 1], "ab"], ((0, 1),), "left out"),
    ],
)
def test_edges_are_counted_as_the_file_shows(tmp_path, edges, expected, said):
    document = a_document()
    document["categories"][0]["skeleton"] = edges
    path = save(tmp_path, document)
    with pytest.warns(PosewarperWarning, match=said) if said else nullcontext():
        assert read_labels(path).skeleton.edges == expected


def test_edges_from_0_are_told_by_left_and_right(tmp_path):
    names = ["tip", "left_a", "right_a", "left_b", "right_b", "end"]
    document = a_document()
    document["categories"][0] |= {"keypoints": names, "skeleton": [[1, 3], [2, 4], [1, 2], [3, 4]]}
    for annotation in document["annotations"]:
        annotation["keypoints"] *= 2
    with pytest.warns(PosewarperWarning, match="counted from 0"):
        labels = read_labels(save(tmp_path, document))
    assert labels.skeleton.edges == ((1, 3), (2, 4), (1, 2), (3, 4))
    document["categories"][0]["skeleton"] = [[2, 4], [3, 5], [2, 3], [4, 5]]
    assert read_labels(save(tmp_path, document)).skeleton.edges == labels.skeleton.edges


def test_one_category_shows_how_the_edges_of_all_are_counted(tmp_path):
    document = a_document()
    document["categories"][0]["skeleton"] = [[1, 2]]
    document["categories"].append({"id": 2, "name": "dog", "keypoints": ["a", "b"], "skeleton": [[0, 1]]})
    with pytest.warns(PosewarperWarning, match=r"categories\[1\] \(id 2\): the edges of the skeletons"):
        assert read_labels(save(tmp_path, document)).skeleton.edges == ((1, 2),)


@pytest.mark.parametrize("lacking", [{}, {"keypoints": None}, {"keypoints": [], "num_keypoints": None}])
def test_boxes_beside_keypoints_are_left_out_with_a_warning(tmp_path, lacking):
    document = a_document()
    box = {"id": 77, "image_id": 1003, "category_id": 1, "bbox": [1, 2, 3, 4]} | lacking
    document["annotations"].insert(0, box)
    with pytest.warns(PosewarperWarning, match=r"left out: 1, the first is annotations\[0\] \(id 77\)"):
        labels = read_labels(save(tmp_path, document))
    assert {i: t.frames.tolist() for i, t in labels.tracks.items()} == {0: [3, 10], 1: [3, 10]}
    box["num_keypoints"] = 3  # keypoints that have got lost
    with pytest.raises(LabelsError, match="keypoints is missing"):
        read_labels(save(tmp_path, document))


def test_track_ids_that_number_the_annotations_are_not_used(tmp_path):
    document = a_document(frames=(3, 10, 17))
    for n, annotation in enumerate(document["annotations"]):
        annotation["track_id"] = n
    with pytest.warns(PosewarperWarning, match="6 tracks on 3 frames|linked over time"):
        labels = read_labels(save(tmp_path, document))
    assert [track.frames.tolist() for track in labels.tracks.values()] == [[3, 10, 17]] * 2


def test_tracks_that_this_program_wrote_stay_as_they_are(tmp_path):
    point = [[[9.0, 8.0]]]
    labels = Labels(Skeleton(("nose",)), {4: Track([3], point), 6: Track([10], point)})
    for format in ("posetrack", "coco", "csv"):
        path = tmp_path / f"labels.{'csv' if format == 'csv' else 'json'}"
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*cannot hold")
            write_labels(path, labels, format=format)
        assert list(read_labels(path).tracks) == [4, 6]


def test_keypoints_without_names_are_those_of_the_only_preset_of_their_number(tmp_path):
    document = a_document(tracks=(0,))
    del document["categories"][0]["keypoints"], document["categories"][0]["skeleton"]
    for count, names in ((26, ("head", "neck", "hip")), (17, None)):
        for annotation in document["annotations"]:
            annotation["keypoints"] = [20.0, 30.0, 2] * count
        path = save(tmp_path, document)
        if names is None:
            with pytest.raises(LabelsError, match="17 keypoints, as coco, posetrack, h36m"):
                read_labels(path)
        else:
            with pytest.warns(PosewarperWarning, match="26 are taken for those of halpe_26"):
                assert read_labels(path).skeleton.names[17:20] == names
    assert read_labels(path, skeleton="h36m").skeleton.names[0] == "root"


def test_a_keypoint_without_visibility_is_one_that_nobody_has_looked_at(tmp_path):
    document = a_document()
    # Track 1 has a box on frame 10, and no keypoint: it was not looked at there. Track 5 has none anywhere.
    document["annotations"][3]["keypoints"] = [0, 0, 0] * 3
    document["annotations"].append({**document["annotations"][3], "id": 999, "track_id": 5})
    labels = read_labels(save(tmp_path, document))
    assert list(labels.tracks) == [0, 1]
    assert labels.tracks[0].not_looked_at.tolist() == [[False, False, True], [False] * 3]
    assert labels.tracks[1].frames.tolist() == [3, 10]
    assert labels.tracks[1].not_looked_at[1].all()
    np.testing.assert_array_equal(labels.tracks[1].boxes[1], [10, 20, 50, 60])


def test_an_annotation_without_keypoints_says_nothing_where_tracks_are_not_told(tmp_path):
    document = plain(a_document(tracks=(0,)))
    document["annotations"].append({**document["annotations"][0], "id": 999, "keypoints": [0, 0, 0] * 3})
    labels = read_labels(save(tmp_path, document))
    assert list(labels.tracks) == [0] and labels.tracks[0].frames.tolist() == [3, 10]


@pytest.mark.parametrize(
    ("stated", "got"), [([1, 2, 0], "1, 2, 0"), ([1, 0], "1, 0"), ([1, None, 0], "null")]
)
def test_what_is_labelled_must_be_said_of_each_keypoint(tmp_path, stated, got):
    document = a_document()
    document["annotations"][1]["labelled"] = stated
    with pytest.raises(LabelsError, match=rf"annotations\[1\].*labelled is wrong[^$]*{got}"):
        read_labels(save(tmp_path, document))
