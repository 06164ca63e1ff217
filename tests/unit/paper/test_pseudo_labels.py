"""Propagated poses as labels, on a file small enough to write out."""

from __future__ import annotations

import pytest

from posewarper.errors import LabelsError
from posewarper.paper.pseudo_labels import paper_pseudo_labels


def document():
    return {
        "info": "kept",
        "images": [
            {"id": 1, "file_name": "v/00000002.jpg", "frame_id": 2, "nframes": 9, "is_labeled": True},
            {"id": 5, "file_name": "v/00000004.jpg", "frame_id": 4, "nframes": 9, "is_labeled": True},
        ],
        "annotations": [
            {
                "id": 3,
                "image_id": 1,
                "bbox": [1, 2, 3, 4],
                "head_box": [1, 1, 1, 1],
                "keypoints": [7, 7, 1, 0, 0, 0],
            },
            {"id": 4, "image_id": 1, "keypoints": [0] * 6},
            {"id": 9, "image_id": 5, "track_id": 6, "keypoints": [1, 2, 1, 8, 9, 1]},
        ],
    }


LOW, GOOD = [5.5, 6.5, 0.2], [5.5, 6.5, 0.21]


def test_people_are_written_again_with_their_propagated_keypoints():
    poses = {-1: [[LOW, GOOD], [[0, 6, 1], [6, 0, 1]]], 1: [[GOOD, GOOD], [[-1, 6, 1], GOOD]]}
    result = paper_pseudo_labels(document(), poses)
    assert result["info"] == "kept"
    assert result["images"][:2] == document()["images"]
    assert result["annotations"][:3] == document()["annotations"]
    # Frame 3 lies between the two labelled frames and is one image.
    new = [(i["id"], i["file_name"], i["frame_id"], i["nframes"]) for i in result["images"][2:]]
    assert new == [(6, "v/00000001.jpg", 1, 9), (7, "v/00000003.jpg", 3, 9), (8, "v/00000005.jpg", 5, 9)]
    added = result["annotations"][3:]
    assert [(a["id"], a["image_id"]) for a in added] == [(10, 6), (11, 7), (12, 7), (13, 8)]
    assert added[0] == {
        "id": 10,
        "image_id": 6,
        "bbox": [1, 2, 3, 4],
        "head_box": [],
        "keypoints": [0.0, 0.0, 0.0, 5.5, 6.5, 2.0],
    }
    # Nobody is left out, not even without keypoints; what was not there is not made up.
    assert added[1]["keypoints"] == [0.0] * 6 and "head_box" not in added[1] and added[1]["track_id"] == 6
    assert added[3]["keypoints"] == [0.0, 0.0, 0.0, 5.5, 6.5, 2.0]


def test_frames_past_the_ends_and_under_a_labelled_name():
    poses = [[GOOD, GOOD], [GOOD, GOOD]]
    names = [i["file_name"] for i in paper_pseudo_labels(document(), {-3: poses, 2: poses})["images"][2:]]
    assert names == ["v/-0000001.jpg", "v/00000001.jpg", "v/00000004.jpg", "v/00000006.jpg"]


def test_names_keep_their_width_and_their_place():
    source = document()
    for image in source["images"]:
        image["file_name"] = f"images/val/v/{image['frame_id']:06d}.jpg"
        image["original_file_name"] = f"{image['frame_id']:04d}.png"
    added = paper_pseudo_labels(source, {3: [[GOOD, GOOD]] * 2})["images"][2:]
    assert added[0]["file_name"] == "images/val/v/000005.jpg" and added[0]["original_file_name"] == "0005.png"


@pytest.mark.parametrize("poses", [[[GOOD, GOOD]], [[GOOD]] * 2, [[GOOD, GOOD]] * 3])
def test_poses_that_do_not_fit(poses):
    with pytest.raises(LabelsError, match="propagated by 2 frames"):
        paper_pseudo_labels(document(), {2: poses})


def test_files_that_cannot_be_moved():
    source = document()
    source["images"][0]["file_name"] = "v/first.jpg"
    with pytest.raises(LabelsError, match="no frame number"):
        paper_pseudo_labels(source, {1: [[GOOD, GOOD]] * 2})
    source = document()
    source["annotations"][2]["image_id"] = 77
    with pytest.raises(LabelsError, match="annotation 9 belongs to no image"):
        paper_pseudo_labels(source, {1: [[GOOD, GOOD]] * 2})


def test_nobody_labelled():
    source = {"images": document()["images"], "annotations": []}
    assert paper_pseudo_labels(source, {1: []}) == source
