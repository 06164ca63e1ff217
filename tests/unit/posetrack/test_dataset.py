from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from posewarper.demo.posetrack_tree import write_posetrack_tree
from posewarper.errors import LabelsError
from posewarper.posetrack.dataset import DatasetVideo, labels_path, open_dataset
from posewarper.posetrack.preparation import prepare_dataset


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A prepared dataset of two videos, whose download lies beside it."""
    top = tmp_path_factory.mktemp("prepared")
    write_posetrack_tree(top / "download", "posetrack18", n_videos=(1, 1), n_frames=6, size=(48, 64))
    prepare_dataset("posetrack18", top / "download", top / "out")
    return top / "out"


def test_a_video_knows_its_numbers_and_names():
    video = DatasetVideo("bonn/01", "val", "01", "bonn/01", 1, 5, 8, None)
    assert list(video.numbers) == [1, 2, 3, 4, 5]
    assert video.frame_name(3) == "bonn/01/00000003.jpg"


def test_opening_gives_what_preparing_gave(prepared):
    dataset = open_dataset(str(prepared))
    assert dataset.kind == "posetrack18" and dataset.root == prepared
    assert [v.name for v in dataset.videos] == ["000001_bonn_train", "000002_mpii_test"]
    assert dataset.of_split("test") == ()
    video = dataset.of_split("val")[0]
    assert video == DatasetVideo(
        name="000002_mpii_test",
        split="val",
        file_stem="000002_mpii_test",
        folder="val/000002_mpii_test",
        first=0,
        n_frames=6,
        digits=6,
        image_size=(48, 64),
    )
    assert labels_path(prepared, "val", video.file_stem).is_file()
    assert dataset.frame_path(video, 99).name == "000099.jpg"


def test_what_is_no_dataset_is_explained(prepared, tmp_path):
    with pytest.raises(LabelsError, match=r"not a prepared dataset[\s\S]*posewarper prepare"):
        open_dataset(tmp_path)
    with pytest.raises(LabelsError, match="no such folder"):
        open_dataset(tmp_path / "absent")
    index = tmp_path / "dataset.json"
    for text, said in (("{", "damaged"), ("[]", "not the index"), ('{"format": "other"}', "'other'|other")):
        index.write_text(text)
        with pytest.raises(LabelsError, match=said):
            open_dataset(tmp_path)
    content = json.loads((prepared / "dataset.json").read_text())
    index.write_text(json.dumps(content | {"format_version": 99}))
    with pytest.raises(LabelsError, match=r"another version[\s\S]*99"):
        open_dataset(tmp_path)


def test_frames_may_move_if_the_link_follows(prepared, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(prepared, out, symlinks=True)
    index = json.loads((out / "dataset.json").read_text())
    (out / "dataset.json").write_text(json.dumps(index | {"images": str(tmp_path / "gone")}))
    assert open_dataset(out).images == out / "images"
    (out / "images").unlink()
    with pytest.raises(LabelsError, match=r"not there any more[\s\S]*gone"):
        open_dataset(out)
    shutil.copytree(prepared / "images", out / "images")  # real frames, to take the folder elsewhere
    dataset = open_dataset(out)
    assert dataset.frame_path(dataset.videos[0], 0).is_file()
