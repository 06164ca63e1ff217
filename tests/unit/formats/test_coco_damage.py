"""Damaged COCO files end in an error that names the place, and never in another one."""

from __future__ import annotations

import copy
import json
import warnings

import pytest
from damage import damage_once, places_in
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from label_documents import FakeVideo, a_document, plain, save, two_videos

from posewarper.errors import LabelsError, PosewarperError, PosewarperWarning
from posewarper.formats.labels import read_annotations, read_labels, read_poses, write_labels

# (what to do to the document, what the message must name)
DAMAGES = {
    "list": (lambda d: [d], "a list of 1 values"),
    "no images": (lambda d: d.pop("images"), "images is missing"),
    "image no object": (lambda d: d["images"].append(3), r"images\[3\] is wrong"),
    "no annotations": (lambda d: d.update(annotations=[]), "no keypoints|no frame is labelled"),
    "annotations text": (lambda d: d.update(annotations="x"), "annotations is wrong"),
    "no categories": (lambda d: d.pop("categories"), "categories is missing"),
    "no names": (lambda d: d["categories"][0].pop("keypoints"), "no category names keypoints"),
    "same names": (lambda d: d["categories"][0].update(keypoints=["a", "a", "b"]), "named twice"),
    "name number": (lambda d: d["categories"][0].update(keypoints=["a", 2, "b"]), "keypoints is wrong"),
    "flip pairs": (lambda d: d["categories"][0].update(flip_pairs=[[2, 4]]), "flip_pairs is wrong"),
    "image id": (lambda d: d["images"][1].update(id=1003), "two images have the same id"),
    "image id missing": (lambda d: d["images"][1].pop("id"), r"images\[1\]: id is missing"),
    "image id list": (lambda d: d["images"][1].update(id=[1]), r"images\[1\]: id is wrong"),
    "width": (lambda d: d["images"][0].update(width=True), r"images\[0\] \(id 1003\): width is wrong"),
    "two sizes": (lambda d: d["images"][1].update(width=641), "different sizes"),
    "frame_id": (lambda d: d["images"][0].update(frame_id=-1), "frame_id is wrong"),
    "frame_id huge": (lambda d: d["images"][0].update(frame_id=10**12), "0-based index"),
    "frame twice": (lambda d: d["images"][1].update(frame_id=3), r"frame 3 for images\[0\]"),
    "no index": (
        lambda d: [i.pop("frame_id") for i in d["images"]] and d["images"][0].update(file_name="a.jpg"),
        "cannot tell which frame",
    ),
    "is_labeled": (lambda d: d["images"][0].update(is_labeled="no"), "is_labeled is wrong"),
    "nframes": (lambda d: d["images"][0].update(nframes=float("inf")), "nframes is wrong"),
    "beyond nframes": (lambda d: [i.update(nframes=5) for i in d["images"]], "beyond the last frame"),
    "region lengths": (
        lambda d: d["images"][0].update(ignore_regions_x=[[1, 2]], ignore_regions_y=[[1]]),
        "ignore_regions_x is wrong",
    ),
    "annotation id": (lambda d: d["annotations"][1].update(id=30), "two annotations have the same id"),
    "unknown image": (lambda d: d["annotations"][1].update(image_id=5), "image_id points to no image"),
    "unknown category": (lambda d: d["annotations"][1].update(category_id=2), "points to no category"),
    "keypoints short": (lambda d: d["annotations"][0]["keypoints"].pop(), "list of 9 numbers"),
    "keypoints text": (lambda d: d["annotations"][0]["keypoints"].__setitem__(0, "1"), "keypoints is wrong"),
    "keypoints bool": (lambda d: d["annotations"][0]["keypoints"].__setitem__(2, True), "keypoints is wrong"),
    "keypoints list": (lambda d: d["annotations"][0]["keypoints"].__setitem__(2, [2]), "keypoints is wrong"),
    "infinity": (lambda d: d["annotations"][0]["keypoints"].__setitem__(3, float("inf")), "keypoint 2 of 3"),
    "huge": (lambda d: d["annotations"][0]["keypoints"].__setitem__(0, 1e300), "coordinates in pixels"),
    "huge whole": (lambda d: d["annotations"][0]["keypoints"].__setitem__(0, 10**400), "keypoints is wrong"),
    "visibility 3": (lambda d: d["annotations"][0]["keypoints"].__setitem__(2, 3), "visibility of 0, 1 or 2"),
    "visibility NaN": (lambda d: d["annotations"][0]["keypoints"].__setitem__(2, float("nan")), "0, 1 or 2"),
    "box length": (lambda d: d["annotations"][0].update(bbox=[1, 2, 3]), "bbox is wrong"),
    "box NaN": (lambda d: d["annotations"][0].update(bbox=[1, 2, 3, float("nan")]), "without NaN"),
    "box negative": (lambda d: d["annotations"][0].update(bbox=[1, 2, -3, 4]), "not below 0"),
    "track twice": (lambda d: d["annotations"][1].update(track_id=0), "track 0 is in frame 3 twice"),
    "track half": (lambda d: d["annotations"][1].pop("track_id"), "track_id is missing"),
    "track text": (lambda d: d["annotations"][1].update(track_id="a"), "track_id is wrong"),
    "scores": (lambda d: d["annotations"][1].update(scores=[1]), "scores is wrong"),
    "nothing labelled": (
        lambda d: [a.update(keypoints=[0] * 9) for a in d["annotations"]],
        "no keypoints|no frame is labelled",
    ),
    "only predictions": (
        lambda d: [i.update(is_labeled=False) for i in d["images"]],
        "4 annotations on frames",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_named(tmp_path, name):
    document = a_document()
    damage, message = DAMAGES[name]
    result = damage(document)
    path = save(tmp_path, result if name == "list" else document)
    with pytest.raises(LabelsError, match=message) as error:
        read_labels(path)
    assert str(path) in str(error.value)
    assert "fix:" in str(error.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"  \n", "the file is empty"),
        (b'{"images": [', "breaks off at its end"),
        ('{"images": "\u00e9"}'.encode("latin-1"), "not text in UTF-8"),
        ("{}".encode("utf-16"), "images is missing"),
        (b"[" * 100_000, "no valid JSON"),
        (b'{"images": [1' + b"0" * 5000 + b"]}", "no valid JSON"),
        (b"hello", "no label file in a known format"),
        (b"\x00\x01", "no label file in a known format"),
        (b"{}", "annotations is missing|images is missing"),
    ],
)
def test_files_that_are_no_labels(tmp_path, data, message):
    path = tmp_path / "labels.json"
    path.write_bytes(data)
    with pytest.raises(LabelsError, match=message):
        read_labels(path)


DOCUMENTS = [a_document(), plain(a_document()), two_videos()]
PLACES = [places_in(document) for document in DOCUMENTS]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_never_end_in_another_error(tmp_path, data):
    which = data.draw(st.integers(0, len(DOCUMENTS) - 1))
    document = copy.deepcopy(DOCUMENTS[which])
    for _ in range(data.draw(st.integers(1, 3))):
        damage_once(document, data, PLACES[which])
    text = json.dumps(document)
    if data.draw(st.integers(0, 9)) == 0:
        text = text[: data.draw(st.integers(0, len(text)))]
    path = save(tmp_path, text)
    video = data.draw(
        st.sampled_from([None, FakeVideo(), FakeVideo(frame_names=("000003.jpg", "000010.jpg"))])
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PosewarperWarning)
        for read in (lambda: read_labels(path, video=video), lambda: read_poses(path)):
            try:
                read()
            except PosewarperError as error:
                assert str(path) in str(error)
        try:
            labels = read_annotations(path)
        except PosewarperError:
            return
        for name in ("again.json", "again.csv"):
            write_labels(tmp_path / name, labels)
