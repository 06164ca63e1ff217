"""YOLO pose data sets: written, read as Ultralytics and Roboflow lay them out, and what cannot be used."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from label_samples import mixed_labels, run_command
from label_sets import label_sets, named_losses

from posewarper import LabelFile
from posewarper.errors import LabelsError, OutputError, PosewarperWarning, VideoError
from posewarper.formats import yolo
from posewarper.formats.catalogue import FORMATS, detect_format
from posewarper.formats.clips import PIECES, each_instance
from posewarper.formats.labels import read_annotations, write_labels
from posewarper.skeletons import PRESETS, Skeleton
from posewarper.structures import Labels, Track

HEIGHT, WIDTH = 48, 64


class Frames:
    """An opened video of grey frames, each as bright as its number."""

    def __init__(self, n_frames: int = 12, size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
        self.path, self.n_frames, self.image_size = "somewhere/clip.mp4", n_frames, size
        self.frame_names: tuple[str, ...] = ()
        self.times = np.arange(n_frames) / 25

    def frames(self, indices: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
        for index in indices:
            yield index, np.full((*self.image_size, 3), index, np.uint8)


def data_set(folder: Path, lines: dict[str, str | None], **changes: object) -> Path:
    """A data set with images (and labels beside them, unless None), of one class with three keypoints."""
    for name, text in lines.items():
        image = folder / name
        image.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(image), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
        if text is not None:
            place = folder / name.replace("images", "labels")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.with_suffix(".txt").write_text(text)
    config = {"train": "images/train", "val": "images/val", "kpt_shape": [3, 3], "flip_idx": [0, 2, 1]}
    config |= {"names": {0: "mouse"}, "kpt_names": {0: ["nose", "left_ear", "right_ear"]}} | changes
    (folder / "data.yaml").write_text(yaml.safe_dump({k: v for k, v in config.items() if v is not None}))
    return folder


LINE = "0 0.5 0.5 0.25 0.5 0.25 0.5 2 0.125 0.75 1 0 0 0\n"


def test_what_ultralytics_writes_is_read(tmp_path):
    lines = {
        "images/train/clip_0003.jpg": LINE,
        "images/train/clip_0005.jpg": "",
        "images/val/clip_0009.jpg": LINE.replace("0.25 0.5 2", "0.75 0.875 2"),
        "images/val/clip_0010.jpg": None,
    }
    folder = data_set(tmp_path / "set", lines)
    assert detect_format(folder) == detect_format(folder / "data.yaml") == "yolo"
    for path in (folder, folder / "data.yaml"):
        labels = read_annotations(path)
        assert labels.labelled_frames.tolist() == [3, 5, 9]  # an empty file says that nobody is there
        assert labels.skeleton.names == ("nose", "left_ear", "right_ear")
        assert labels.skeleton.flip_pairs == ((1, 2),) and labels.skeleton.name == "mouse"
        assert labels.image_size == (HEIGHT, WIDTH)
        track = labels.tracks[0]
        assert track.frames.tolist() == [3, 9]
        np.testing.assert_array_equal(track.keypoints[0, :2], [[16, 24], [8, 36]])
        np.testing.assert_array_equal(track.keypoints[1, 0], [48, 42])
        assert track.visibility[0].tolist() == [2, 1, 0]
        assert track.boxes[0].tolist() == [24, 12, 16, 24]


def test_roboflow_and_two_numbers_a_keypoint(tmp_path):
    name = "train/images/clip_mp4-0004_jpg.rf.0a1b2c3d4e5f60718293a4b5c6d7e8f9.jpg"
    coordinates = " ".join(["0.5 0.25"] + ["0 0"] + ["0.75 0.5"] * 15)
    changes = {"train": "../train/images", "val": None, "kpt_shape": [17, 2], "names": ["person"]}
    changes |= {"kpt_names": None, "nc": 1, "flip_idx": list(PRESETS["coco"].flip_order)}
    folder = data_set(tmp_path, {name: f"0 0.5 0.5 1 1 {coordinates}\n"}, **changes)
    with pytest.warns(PosewarperWarning, match="taken for those of coco"):
        labels = read_annotations(folder)
    assert labels.skeleton.names == PRESETS["coco"].names
    track = labels.tracks[0]
    assert track.frames.tolist() == [4]
    assert track.keypoints[0, 0].tolist() == [32, 12] and track.keypoints[0, 2].tolist() == [48, 24]
    assert track.visibility[0].tolist() == [2, 0] + [2] * 15


def test_keypoints_without_names_get_numbers_or_those_that_are_asked_for(tmp_path):
    folder = data_set(tmp_path, {"images/train/img0001.jpg": LINE}, kpt_names=None, val="images/train")
    with pytest.warns(PosewarperWarning, match="keypoint_0"):
        labels = read_annotations(folder)
    assert labels.skeleton.names == ("keypoint_0", "keypoint_1", "keypoint_2")
    assert labels.skeleton.flip_pairs == ((1, 2),)
    named = Skeleton(("a", "b", "c"))
    assert read_annotations(folder, skeleton=named).skeleton.names == named.names


def test_a_list_of_images_and_several_classes(tmp_path):
    names = {0: "mouse", 1: "rat"}
    kpt_names = {kind: ["nose", "left_ear", "right_ear"] for kind in names}
    two = LINE + LINE.replace("0 0.5", "1 0.5", 1).replace("0.25 0.5 2", "0.5 0.5 2")
    folder = data_set(
        tmp_path,
        {"images/a_1.jpg": two, "images/a_2.jpg": two},
        train="list.txt",
        val=None,
        names=names,
        kpt_names=kpt_names,
    )
    (folder / "list.txt").write_text("./images/a_1.jpg\nimages/a_2.jpg\n")
    with pytest.warns(PosewarperWarning) as said:
        labels = read_annotations(folder)
    assert any("several classes (mouse, rat)" in str(w.message) for w in said)
    assert len(labels.tracks) == 2 and labels.labelled_frames.tolist() == [1, 2]


def test_images_are_learned_from_one_by_one(tmp_path):
    folder = data_set(tmp_path, {"images/train/x.jpg": LINE, "images/val/y.jpg": LINE})
    labels = read_annotations(LabelFile(folder, loose=True))
    assert labels.labelled_frames.tolist() == [0, 1]
    assert list(labels.frame_names.values()) == ["images/train/x.jpg", "images/val/y.jpg"]


def test_an_image_that_cannot_be_read_is_named(tmp_path):
    folder = data_set(tmp_path, {"images/train/clip_0003.jpg": LINE}, val=None)
    (folder / "images/train/clip_0003.jpg").write_bytes(b"")
    with pytest.raises(VideoError, match=r"clip_0003\.jpg"):
        read_annotations(folder)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (LINE[:-3], "line 1 is wrong"),
        (LINE.replace("0.125", "x"), "line 1 is wrong"),
        (LINE.replace("0.125", "nan"), "shares of the image"),
        (LINE.replace("0.125", "1e30"), "shares of the image"),
        (LINE.replace("0 0.5", "7 0.5", 1), "the class is wrong"),
        (LINE.replace("0.75 1", "0.75 5"), "a visibility is wrong"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, said):
    folder = data_set(tmp_path, {"images/train/clip_0003.jpg": line}, val=None)
    with pytest.raises(LabelsError, match=said) as raised:
        read_annotations(folder)
    assert "clip_0003.txt" in str(raised.value) and "fix:" in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kpt_shape": [3]}, "kpt_shape is wrong"),
        ({"kpt_shape": [3, 4]}, "kpt_shape is wrong"),
        ({"names": None}, "names is wrong"),
        ({"flip_idx": [0, 2, 2]}, "flip_idx is wrong"),
        ({"flip_idx": [1, 2, 0]}, "flip_idx is wrong"),
        ({"kpt_names": {0: ["nose"]}}, "kpt_names of class 0 is wrong"),
        ({"train": "images/nowhere"}, "is not there"),
        ({"train": "../../etc"}, "is not there"),
        ({"train": "/etc"}, "is not there"),
        ({"train": None, "val": None}, "names no images"),
    ],
)
def test_a_wrong_description_is_named(tmp_path, changes, said):
    folder = data_set(tmp_path / "a" / "b", {"images/train/i_1.jpg": LINE}, **({"val": None} | changes))
    with pytest.raises(LabelsError, match=said) as raised:
        read_annotations(folder)
    assert "data.yaml" in str(raised.value) and "fix:" in str(raised.value)


def test_what_is_written_is_what_ultralytics_asks_for(tmp_path):
    out = tmp_path / "set"
    with pytest.warns(PosewarperWarning, match="which poses are predictions"):
        write_labels(out, mixed_labels(), format="yolo", video=Frames())
    files = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())
    frames = {"train": (2, 5, 7, 9), "val": (10,)}
    expected = [f"{s}/images/clip_frame_{f:06d}.jpg" for s, own in frames.items() for f in own]
    expected += [name.replace("images", "labels").replace("jpg", "txt") for name in expected]
    assert files == sorted([*expected, "data.yaml"])
    assert yaml.safe_load((out / "data.yaml").read_text()) == {
        "train": "train/images",
        "val": "val/images",
        "kpt_shape": [3, 3],
        "flip_idx": [2, 1, 0],
        "names": {0: "mouse"},
        "kpt_names": {0: ["nose", "ear_l", "ear_r"]},
        "video": "clip.mp4",
    }
    assert (out / "train/labels/clip_frame_000005.txt").read_text() == ""
    image = cv2.imread(str(out / "train/images/clip_frame_000009.jpg"))
    assert image is not None and image.shape == (HEIGHT, WIDTH, 3) and abs(int(image.mean()) - 9) <= 1
    for text in out.glob("*/labels/*.txt"):
        rows = [[float(cell) for cell in line.split()] for line in text.read_text().splitlines()]
        assert all(len(row) == 5 + 3 * 3 and row[0] == 0 for row in rows)
        shares = np.array([[*row[1:5], *row[5::3], *row[6::3]] for row in rows])
        assert (shares >= -0.01).all() and (shares <= 1.01).all()
    with pytest.warns(PosewarperWarning, match="no track_id"):
        again = read_annotations(out, video=Frames())
    assert again.video == "clip.mp4" and again.labelled_frames.tolist() == [2, 5, 7, 9, 10]


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(labels=label_sets())
def test_everything_in_the_image_comes_back_exactly(tmp_path, labels: Labels):
    size = (120, 160)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PosewarperWarning)
        write_labels(tmp_path / "set", labels, format="yolo", video=Frames(25, size))
        clip = yolo.read_clip(tmp_path / "set")
    said = [str(warning.message) for warning in caught]
    lost = {piece for piece in named_losses(said) if "score" not in piece}
    form = FORMATS["yolo"]
    assert lost <= form.cannot_hold | form.partly
    assert {p for p in form.cannot_hold if PIECES[p](labels) and "score" not in p} <= lost
    expected = []
    outside = 0
    for frame, _, track, row in each_instance(labels):
        shares = track.keypoints[row] / (size[1], size[0])
        near = ((shares > -0.0099) & (shares < 1.0099)).all(-1)
        outside += int((~near & (track.visibility[row] > 0)).sum())
        seen = np.where(near, track.visibility[row], 0)
        if seen.any():
            points = np.where(seen[:, None] > 0, track.keypoints[row], np.nan)
            expected.append((frame, seen.tolist(), points.tolist(), track.boxes[row]))
    assert (outside > 0) == any("keypoints outside of the image" in text for text in said)
    expected.sort(key=lambda row: row[0])
    hidden = "which keypoints are hidden" in lost or not any(2 in row[1] for row in expected)
    assert len(clip.instances) == len(expected)
    for instance, (frame, seen, points, box) in zip(clip.instances, expected, strict=True):
        assert instance.frame == frame
        assert (instance.visibility > 0).tolist() == [v > 0 for v in seen]
        assert hidden or instance.visibility.tolist() == seen
        np.testing.assert_array_equal(instance.keypoints, points)
        if np.isfinite(box).all():
            # Its corner is the difference of two numbers in the file.
            np.testing.assert_allclose(np.asarray(instance.box), box, rtol=1e-12, atol=1e-15)
    wanted = set(labels.labelled_frames.tolist()) | set(labels.instance_frames.tolist())
    assert clip.labelled_frames == wanted
    assert clip.skeleton.names == labels.skeleton.names
    assert clip.skeleton.flip_pairs == labels.skeleton.flip_pairs
    assert clip.skeleton.name == labels.skeleton.name and clip.image_size == size


def test_a_video_is_needed_and_has_to_have_the_frames(tmp_path):
    with pytest.raises(LabelsError, match="holds the images") as raised:
        write_labels(tmp_path / "set", mixed_labels(), format="yolo")
    assert "--video" in str(raised.value)
    with pytest.raises(LabelsError, match="no such frame"):
        write_labels(tmp_path / "set", mixed_labels(), format="yolo", video=Frames(10))
    assert not list(tmp_path.iterdir())


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="other files"):
        write_labels(tmp_path / "set", mixed_labels(), format="yolo", video=Frames())
    assert (tmp_path / "set" / "thesis.txt").read_text() == "mine"
    (tmp_path / "set" / "thesis.txt").unlink()
    (tmp_path / "set" / "train" / "labels").mkdir(parents=True)
    (tmp_path / "set" / "train" / "labels.cache").write_text("of Ultralytics")
    with pytest.warns(PosewarperWarning, match="cannot hold"):
        write_labels(tmp_path / "set", mixed_labels(), format="yolo", video=Frames())
    assert len(list((tmp_path / "set").rglob("*.jpg"))) == 5


def test_the_command_says_what_it_needs(tmp_path, capsys):
    track = Track([1], [[[1.5, 2.0], [3, 4]]])
    write_labels(tmp_path / "l.json", Labels(Skeleton(("a", "b")), {0: track}, [1], (HEIGHT, WIDTH)))
    assert run_command("convert", tmp_path / "l.json", tmp_path / "out", "--to", "yolo") == 2
    assert "--video" in capsys.readouterr().err
