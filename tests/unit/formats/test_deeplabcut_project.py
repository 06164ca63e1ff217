"""DeepLabCut projects: keypoints and edges of the configuration, several videos, crops, and damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from label_documents import FakeVideo
from label_samples import run_command
from PIL import Image

from posewarper.errors import LabelsError, PosewarperWarning
from posewarper.formats.catalogue import detect_format
from posewarper.formats.labels import read_annotations, read_labels

CONFIG = """\
# Project definitions (do not edit)
Task: reach
scorer: Ann
multianimalproject: false
cropping: false
x1: 0

video_sets:
  /elsewhere/mouse.avi:
    crop: 0, 640, 0, 480
  ? C:\\Users\\Ann\\rat.mp4
  : crop: 0, 640, 0, 480
bodyparts:
- snout
- tail
- no
skeleton:
- - snout
  - tail
- - tail
  - no
"""
TABLE = """\
scorer,Ann,Ann,Ann,Ann
bodyparts,tail,tail,snout,snout
coords,x,y,x,y
labeled-data/{0}/img0004.png,1.5,2.25,100.125,7
labeled-data/{0}/img0012.png,3,4,,
"""


def make_project(folder: Path, *, config: str = CONFIG, videos: tuple[str, ...] = ("mouse",)) -> Path:
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    for video in videos:
        (folder / "labeled-data" / video).mkdir(parents=True)
        table = folder / "labeled-data" / video / "CollectedData_Ann.csv"
        table.write_text(TABLE.format(video), encoding="utf-8")
    return folder / "config.yaml"


def save_images(config: Path, size: tuple[int, int], names: tuple[str, ...] = ("img0004", "img0012")) -> None:
    for name in names:
        Image.new("L", size).save(config.parent / "labeled-data" / "mouse" / f"{name}.png")


def read(path: Path, **arguments):
    with pytest.warns(PosewarperWarning, match="never labelled stay empty: no"):
        return read_labels(path, **arguments)


@pytest.mark.parametrize("name", ["", "config.yaml"])
def test_order_edges_and_names_come_from_the_configuration(tmp_path, name):
    make_project(tmp_path)
    path = tmp_path / name
    assert detect_format(path) == "deeplabcut"
    labels = read(path)
    assert labels.skeleton.names == ("snout", "tail", "no")
    assert labels.skeleton.edges == ((0, 1), (1, 2))
    assert (labels.video, labels.track_names) == ("mouse.avi", {})
    assert labels.labelled_frames.tolist() == [4, 12]
    nan = np.nan
    expected = [[[100.125, 7], [1.5, 2.25], [nan, nan]], [[nan, nan], [3, 4], [nan, nan]]]
    np.testing.assert_array_equal(labels.tracks[0].keypoints, expected)
    assert labels.tracks[0].visibility.tolist() == [[2, 2, 0], [0, 2, 0]]


def test_the_opened_video_picks_one_of_several(tmp_path):
    config = make_project(tmp_path, videos=("mouse", "rat"))
    assert read(config, video=FakeVideo(path="rat.mp4")).video == "rat.mp4"
    assert read(config, video=FakeVideo(path="/other/mouse.mp4")).video == "mouse.avi"
    with pytest.raises(LabelsError, match="labels of 2 videos"):
        read_labels(config)


def test_a_video_of_the_project_without_labels_is_no_other(tmp_path):
    config = make_project(tmp_path)
    with pytest.raises(LabelsError, match="this video of the project has no labels") as error:
        read_labels(config, video=FakeVideo(path="rat.mp4"))
    assert "labels of mouse" in str(error.value)
    assert read(config, video=FakeVideo(path="renamed.mp4")).video == "mouse.avi"


def test_several_animals_with_keypoints_of_their_own(tmp_path):
    config = CONFIG.replace(
        "bodyparts:\n- snout\n- tail\n- no\n",
        "bodyparts: MULTI!\nindividuals:\n- m1\n- m2\nmultianimalbodyparts:\n- snout\n- tail\n"
        "uniquebodyparts:\n- no\n",
    )
    path = make_project(tmp_path, config=config)
    owners = [("m1", "snout"), ("m1", "tail"), ("m2", "snout"), ("m2", "tail"), ("single", "no")]
    columns = pd.MultiIndex.from_tuples(
        [("Ann", *owner, coord) for owner in owners for coord in "xy"],
        names=["scorer", "individuals", "bodyparts", "coords"],
    )
    index = pd.MultiIndex.from_tuples([("labeled-data", "mouse", "img0004.png")])
    folder = tmp_path / "labeled-data" / "mouse"
    (folder / "CollectedData_Ann.csv").unlink()
    frame = pd.DataFrame([np.arange(10.0)], columns=columns, index=index)
    frame.to_hdf(folder / "CollectedData_Ann.h5", key="df_with_missing", mode="w")
    labels = read_labels(path)
    assert labels.skeleton.names == ("snout", "tail", "no")
    assert labels.skeleton.edges == ((0, 1), (1, 2))
    assert labels.track_names == {0: "m1", 1: "m2", 2: "single"}
    np.testing.assert_array_equal(labels.tracks[1].keypoints[0, :2], [[4, 5], [6, 7]])
    np.testing.assert_array_equal(labels.tracks[2].keypoints[0, 2], [8, 9])
    assert labels.tracks[2].visibility.tolist() == [[0, 0, 2]]


# --- crops ------------------------------------------------------------------------------------------------

CROPPED = CONFIG.replace("crop: 0, 640, 0, 480", "crop: 100, 400, 30, 200", 1)
MOVED = [[200.125, 37], [101.5, 32.25]]
IN_PLACE = [[100.125, 7], [1.5, 2.25]]


def check(labels, expected) -> None:
    np.testing.assert_array_equal(labels.tracks[0].keypoints[0, :2], expected)


@pytest.mark.parametrize("video", [None, FakeVideo(path="mouse.avi")])
def test_images_of_the_crops_size_are_moved_back(tmp_path, video):
    config = make_project(tmp_path, config=CROPPED)
    save_images(config, (300, 170))
    labels = read(config, video=video)
    check(labels, MOVED)
    np.testing.assert_array_equal(labels.tracks[0].keypoints[1, 1], [103, 34])
    assert labels.image_size == (None if video is None else (480, 640))


@pytest.mark.parametrize("video", [None, FakeVideo(path="mouse.avi")])
def test_images_of_the_whole_frame_stay_whatever_the_configuration_says(tmp_path, video):
    config = make_project(tmp_path, config=CROPPED.replace("cropping: false", "cropping: true"))
    save_images(config, (640, 480))
    labels = read(config, video=video)
    check(labels, IN_PLACE)
    assert labels.image_size == (480, 640)


def test_without_images_the_crop_is_taken_as_applied_and_said(tmp_path):
    config = make_project(tmp_path, config=CROPPED)
    with pytest.warns(PosewarperWarning, match=r"300 x 170 pixels at \(100, 30\) .* moved to it"):
        labels = read_annotations(config)
    check(labels, MOVED)


def test_each_image_counts_for_itself(tmp_path):
    config = make_project(tmp_path, config=CROPPED)
    save_images(config, (640, 480), ("img0004",))
    save_images(config, (300, 170), ("img0012",))
    labels = read(config)
    check(labels, IN_PLACE)
    np.testing.assert_array_equal(labels.tracks[0].keypoints[1, 1], [103, 34])
    (tmp_path / "labeled-data" / "mouse" / "img0012.png").unlink()
    with pytest.warns(PosewarperWarning, match="left where they are"):
        labels = read_annotations(config)
    np.testing.assert_array_equal(labels.tracks[0].keypoints[1, 1], [3, 4])


def test_a_crop_at_the_first_pixel_moves_nothing(tmp_path):
    config = make_project(tmp_path)
    check(read(config), IN_PLACE)
    save_images(config, (640, 480))
    assert read(config).image_size == (480, 640)
    # Images of the crop's size in a larger video: cut, and so no statement about the video's size.
    labels = read(config, video=FakeVideo(image_size=(960, 1280), path="mouse.avi"))
    assert labels.image_size == (960, 1280)
    check(labels, IN_PLACE)


def test_other_sizes_are_refused(tmp_path):
    config = make_project(tmp_path, config=CROPPED)
    save_images(config, (301, 170))
    with pytest.raises(LabelsError, match="neither the size") as error:
        read_labels(config)
    assert "300 x 170" in str(error.value) and "301 x 170" in str(error.value)
    with pytest.raises(LabelsError, match="smaller than the part"):
        read_labels(config, video=FakeVideo(image_size=(199, 640), path="mouse.avi"))


# --- damage -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("video_sets:", "video_sets: [", "not valid YAML"),
        (CONFIG, "Task: reach\n", "no DeepLabCut project"),
        (CONFIG, "video_sets: 3\n", "video_sets is wrong"),
        (CONFIG, "- Task\n- video_sets\n", "no DeepLabCut project"),
        ("- snout\n- tail\n- no\n", "  snout: 1\n", "bodyparts is wrong"),
        ("- snout\n- tail\n- no\n", "- - snout\n", "bodyparts is wrong"),
        ("  - tail\n", "  - tail\n  - no\n", "skeleton is wrong"),
        ("- - snout\n  - tail\n- - tail\n  - no\n", "  snout\n", "skeleton is wrong"),
        ("crop: 0, 640, 0, 480", "crop: 0, 640", "crop of mouse.avi is wrong"),
        ("crop: 0, 640, 0, 480", "crop: 0, x, 0, 480", "crop of mouse.avi is wrong"),
        ("crop: 0, 640, 0, 480", "crop: 9, 9, 0, 480", "crop of mouse.avi is wrong"),
        ("crop: 0, 640, 0, 480", "crop: 0, .inf, 0, 480", "crop of mouse.avi is wrong"),
        (CONFIG, "!!python/object/apply:os.mkdir [trace]\n", "no DeepLabCut project"),
    ],
)
def test_damage_is_named(tmp_path, monkeypatch, old, new, message):
    monkeypatch.chdir(tmp_path)
    assert old in CONFIG
    config = make_project(tmp_path, config=CONFIG.replace(old, new, 1))
    with pytest.raises(LabelsError, match=message) as error:
        read_labels(config, format="deeplabcut")
    assert str(config) in str(error.value)
    assert not (tmp_path / "trace").exists()


def test_edges_of_unknown_keypoints_are_left_out(tmp_path):
    config = make_project(tmp_path, config=CONFIG.replace("- - tail\n", "- - objectA\n"))
    with pytest.warns(PosewarperWarning, match="left out: objectA"):
        labels = read_annotations(config)
    assert labels.skeleton.edges == ((0, 1),)


def test_missing_parts_are_named(tmp_path):
    config = make_project(tmp_path, videos=())
    with pytest.raises(LabelsError, match="no video of the project has labels"):
        read_labels(config)
    config.unlink()
    with pytest.raises(LabelsError):
        read_labels(tmp_path)
    with pytest.raises(LabelsError, match="cannot read"):
        read_labels(config, format="deeplabcut")


def test_the_projects_scorer_comes_first(tmp_path):
    config = make_project(tmp_path)
    folder = tmp_path / "labeled-data" / "mouse"
    (folder / "CollectedData_Bob.csv").write_text(TABLE.format("mouse").replace("100.125", "50"))
    check(read(config), IN_PLACE)
    config.write_text(CONFIG.replace("scorer: Ann", "scorer: Eve"))
    with pytest.raises(LabelsError, match="several scorers"):
        read_labels(config)


def test_the_command_line_converts_a_project(tmp_path, capsys):
    config = make_project(tmp_path, config=CROPPED)
    save_images(config, (300, 170))
    assert run_command("convert", tmp_path, tmp_path / "labels.json") == 0
    assert "2 labelled frames, 1 track, 3 keypoints (posetrack)" in capsys.readouterr().out
    labels = read_annotations(tmp_path / "labels.json")
    check(labels, MOVED)
    assert labels.skeleton.edges == ((0, 1), (1, 2))
    broken = tmp_path / "config.yaml"
    broken.write_text("video_sets: [")
    assert run_command("convert", broken, tmp_path / "more.json") == 2
    assert "not valid YAML" in capsys.readouterr().err
