"""COCO as CVAT and Label Studio export it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from export_documents import cvat_export, label_studio_export
from label_documents import FakeVideo, save

from posewarper.errors import LabelsError, PosewarperWarning
from posewarper.formats.catalogue import detect_format
from posewarper.formats.frame_names import number_in
from posewarper.formats.labels import read_annotations, read_labels, write_labels


def test_cvat_tracks_frames_and_visibility(tmp_path):
    path = save(tmp_path, cvat_export())
    assert detect_format(path) == "coco"
    with pytest.warns(PosewarperWarning, match=r"poses that CVAT interpolated \(keyframe false\): 1;"):
        labels = read_annotations(path)
    assert labels.skeleton.names == ("nose", "left_ear", "tail")
    assert labels.skeleton.edges == ((0, 1), (0, 2)) and labels.skeleton.name == "mouse"
    assert (labels.image_size, labels.n_frames) == ((240, 320), None)
    assert list(labels.tracks) == [4, 7]
    # Frames 14 and 15 are listed, but nobody has labelled them; on 11 one of two is a keyframe.
    assert labels.labelled_frames.tolist() == [10, 11, 13]
    assert labels.tracks[4].frames.tolist() == [10, 11, 12, 13]
    np.testing.assert_array_equal(labels.tracks[4].visibility[0], [2, 1, 2])
    np.testing.assert_array_equal(
        labels.tracks[7].keypoints[0], [[110.5, 20.25], [130, 40], [np.nan, np.nan]]
    )
    np.testing.assert_array_equal(labels.tracks[4].boxes[0], [10.5, 20.25, 39.5, 39.75])


def test_cvat_flags_that_cannot_be_right_are_not_used(tmp_path):
    """Versions of 2023 and before mark only the first pose of a track as a keyframe."""
    document = cvat_export()
    for annotation in document["annotations"]:
        annotation["attributes"]["keyframe"] = annotation["image_id"] == 11
    assert read_labels(save(tmp_path, document)).labelled_frames.tolist() == [10, 11, 12, 13]
    # A pose that is held, though, was interpolated: there is one keyframe alone.
    for annotation in document["annotations"]:
        annotation["keypoints"] = [9 + annotation["attributes"]["track_id"], 20, 2, 3, 4, 2, 5, 6, 2]
    with pytest.warns(PosewarperWarning, match=r"keyframe false\): 3;"):
        assert read_labels(save(tmp_path, document)).labelled_frames.tolist() == [10]


def test_cvat_shapes_have_no_track_and_old_tracks_no_keypoints(tmp_path):
    document = cvat_export()
    for annotation in document["annotations"]:
        annotation["attributes"] = {"occluded": False}
    with pytest.warns(PosewarperWarning, match="linked over time"):
        labels = read_labels(save(tmp_path, document))
    assert [track.frames.tolist() for track in labels.tracks.values()] == [[10, 11, 12, 13]] * 2
    # https://github.com/cvat-ai/cvat/issues/7021: tracks came out without their points.
    document["annotations"][0] |= {"keypoints": [], "num_keypoints": 0, "bbox": [0, 0, 0, 0], "area": 0}
    with pytest.warns(PosewarperWarning, match="linked over time"):
        assert sum(len(t.frames) for t in read_labels(save(tmp_path, document)).tracks.values()) == 7
    document["images"] = [image | {"width": 0, "height": 0} for image in document["images"]]
    with pytest.warns(PosewarperWarning, match="linked over time"):
        assert read_labels(save(tmp_path, document)).image_size is None


def test_cvat_attributes_that_are_wrong_are_named(tmp_path):
    document = cvat_export()
    for value, message in (
        ({"track_id": "a"}, r"annotations\[0\] \(id 1\): attributes: track_id is wrong"),
        ({"track_id": 4, "keyframe": "no"}, "attributes: keyframe is wrong"),
        ([], "attributes is wrong"),
    ):
        document["annotations"][0]["attributes"] = value
        with pytest.raises(LabelsError, match=message):
            read_labels(save(tmp_path, document))


@pytest.mark.filterwarnings("ignore:.*cannot hold")
def test_tracks_go_back_in_the_way_of_cvat(tmp_path):
    with pytest.warns(PosewarperWarning, match="interpolated"):
        labels = read_annotations(save(tmp_path, cvat_export()))
    write_labels(tmp_path / "back.json", labels, format="coco")
    text = (tmp_path / "back.json").read_text()
    assert '"attributes": {"occluded": false, "track_id": 7, "keyframe": true}' in text
    assert "frame_000010.PNG" in text
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_annotations(tmp_path / "back.json").labelled_frames.tolist() == [10, 11, 13]


def test_label_studio(tmp_path):
    path = save(tmp_path, label_studio_export())
    labels = read_labels(path)
    assert labels.labelled_frames.tolist() == [7, 12]
    assert labels.skeleton.names == ("nose", "left_ear", "tail")
    np.testing.assert_array_equal(labels.tracks[0].keypoints[1], [[12, 21], [np.nan, np.nan], [51, 61]])
    # With the folder of frames that were uploaded, or the same frames in another format.
    for suffix in ("png", "jpg"):
        names = tuple(f"frame_{n:04d}.{suffix}" for n in (7, 9, 12, 30))
        video = FakeVideo(4, (240, 320), names)
        assert read_labels(path, video=video).labelled_frames.tolist() == [0, 2]


def test_label_studio_without_the_order_of_the_keypoints(tmp_path):
    document = label_studio_export()
    document["annotations"][2]["keypoints"] = [12, 21, 2]
    with pytest.raises(LabelsError, match="model_index"):
        read_labels(save(tmp_path, document))


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("/data/upload/3/1a2b3c4d-frame_0012.png", 12),
        ("images\\1a2b3c4d-0012.png", 12),
        ("/data/local-files/?d=1a2b3c4d-frame_0012.png", 12),
        ("1a2b3c4d-nose.png", None),  # the number is of the upload, not of the frame
        ("12345678.png", 12345678),
        ("frame_000012.PNG", 12),
        ("2024-03-05-0007.png", 7),
    ],
)
def test_uploads_do_not_disturb_the_number(name, number):
    assert number_in(name) == number
