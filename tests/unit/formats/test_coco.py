"""COCO keypoints JSON: what is read, what is refused, what is written."""

from __future__ import annotations

import json

import numpy as np
import pytest
from label_documents import NAMES, FakeVideo, a_document, plain, save, two_videos

from posewarper.errors import LabelsError, PosewarperWarning
from posewarper.formats.catalogue import detect_format
from posewarper.formats.labels import read_annotations, read_labels


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
    assert "person (3 keypoints), dog (1 keypoints)" in str(error.value)


def test_wrong_edges_are_left_out_with_a_warning(tmp_path):
    document = a_document()
    document["categories"][0]["skeleton"] = [[0, 1], [1, 2], [3, 4], "ab"]
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
