"""Separate labelled images of several videos and sizes: train a pose network on them, and predict a video."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from moving_clip import SKELETON, command, picture, true_keypoints, write_clip

from posewarper.errors import PosewarperWarning
from posewarper.options import DataSettings, ImageSettings
from posewarper.training.loose_images import samples_of_images

TINY = (
    *("model.crop_size=[64,96]", "model.head_width=4", "model.head_blocks=1", "model.head_dilations=[1,2]"),
    *("train.epochs=1", "train.min_epoch_steps=2", "train.global_batch=4", "train.workers=0"),
)


def save(path: Path, frame: int, scale: float = 1.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = picture(frame)[..., ::-1]
    assert cv2.imwrite(str(path), cv2.resize(image, None, fx=scale, fy=scale))


def write_table(path: Path, images: Mapping[str, int], scale: float = 1.0) -> Path:
    """Write CollectedData with these images (name -> frame of the clip)."""
    names = [name for name in SKELETON.names for _ in "xy"]
    rows = [["scorer", *["Ann"] * 8], ["bodyparts", *names], ["coords", *"xyxyxyxy"]]
    rows += [[n, *(true_keypoints([f])[0] * scale + (scale - 1) / 2).ravel()] for n, f in images.items()]
    path.write_text("\n".join(",".join(map(str, row)) for row in rows) + "\n")
    return path


def deeplabcut(root: Path) -> Path:
    """A project as DeepLabCut's demo, with two videos of two sizes."""
    for video, frames, scale in (("m3v1mp4", (0, 4, 8), 1.0), ("m4s1", (2, 6), 1.5)):
        images = {f"labeled-data/{video}/img{frame:04d}.png": frame for frame in frames}
        for name, frame in images.items():
            save(root / name, frame, scale)
        write_table(root / "labeled-data" / video / "CollectedData_Ann.csv", images, scale)
    text = "Task: openfield\nscorer: Ann\nvideo_sets:\n  WILL BE UPDATED BY DEMO:\n    crop: 0, 640, 0, 480\n"
    (root / "config.yaml").write_text(text + f"bodyparts: [{', '.join(SKELETON.names)}]\n")
    return root / "config.yaml"


def lightning_pose(root: Path) -> Path:
    """A project as Lightning Pose's demo, whose images lie in one folder, numbered from 1."""
    images = {f"labeled-data/img{n + 1:02d}.png": frame for n, frame in enumerate((9, 0, 5, 3))}
    for name, frame in images.items():
        save(root / name, frame)
    return write_table(root / "CollectedData.csv", images)


def coco(root: Path, names: Sequence[str] = ("train/a.png", "train/b7.png", "val/a.png")) -> Path:
    """A COCO file beside the folder of its images, in two sizes."""
    images, annotations = [], []
    for n, name in enumerate(names):
        scale = 1.0 + 0.5 * (n % 2)
        save(root / "images" / name, n, scale)
        images.append({"id": n, "file_name": name, "width": round(128 * scale), "height": round(96 * scale)})
        points = np.column_stack([true_keypoints([n])[0] * scale + (scale - 1) / 2, np.full(4, 2)])
        annotations.append({"id": n, "image_id": n, "category_id": 1, "keypoints": points.ravel().tolist()})
    category = {"id": 1, "name": "mouse", "keypoints": list(SKELETON.names)}
    (root / "annotations").mkdir()
    path = root / "annotations" / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": [category]}))
    return path


@pytest.mark.parametrize(
    ("make", "count"), [(deeplabcut, 5), (lightning_pose, 4), (coco, 3)], ids=lambda value: str(value)
)
def test_every_image_is_a_sample_and_has_its_own_size(tmp_path: Path, make, count: int) -> None:
    samples, held_out = samples_of_images([ImageSettings(labels=str(make(tmp_path)))], 1.0)
    assert len(samples) == count and not held_out and samples.skeleton.names == SKELETON.names
    for frame, keypoints in zip(samples.numbers.tolist(), samples.keypoints, strict=True):
        file = samples.videos[0].files[frame]
        scale = cv2.imread(file).shape[1] / 128
        # The patch's own keypoints, in the image's size: nothing was moved or mixed up.
        shape = (keypoints - (scale - 1) / 2) / scale - keypoints[0] / scale
        assert np.allclose(np.diff(shape, axis=0), np.diff(true_keypoints([0])[0], axis=0), atol=1e-6), file


def test_some_images_are_held_out_and_missing_ones_are_named(tmp_path: Path) -> None:
    path = deeplabcut(tmp_path)
    (tmp_path / "labeled-data/m3v1mp4/img0004.png").unlink()
    with pytest.warns(PosewarperWarning, match=r"1 of 5 labelled images .*m3v1mp4/img0004\.png"):
        samples, held_out = samples_of_images([ImageSettings(labels=str(path))], 1.0, held_out=0.25)
    assert len(samples) == 3 and sum(int(video.truth.is_labelled.sum()) for video in held_out) == 1
    with pytest.warns(PosewarperWarning, match="1 of 5"):
        samples, held_out = samples_of_images([ImageSettings(labels=str(path))], 1.0, held_out=0.5)
    # Of two videos one.
    assert len({Path(samples.videos[0].files[n]).parent for n in samples.numbers}) == 1


def test_a_name_alone_is_enough_in_a_recipe() -> None:
    assert DataSettings(images="a/config.yaml").images == (ImageSettings(labels="a/config.yaml"),)
    assert [one.labels for one in DataSettings(images=["a.csv", {"labels": "b.json"}]).images] == [
        "a.csv",
        "b.json",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("make", [deeplabcut, lightning_pose], ids=["deeplabcut", "lightning_pose"])
def test_images_are_trained_on_and_a_video_is_predicted(capsys, tmp_path: Path, make) -> None:
    path, clip = make(tmp_path), write_clip(tmp_path)
    code, _, error = command(capsys, "propagate", clip, "--labels", path, "--out", tmp_path / "poses")
    assert code == 2 and f"train loose_images.yaml data.images='{path}'" in error
    words = (f"data.images={path}", "--device", "cpu", "--quiet", *TINY)
    code, out, error = command(capsys, "train", "loose_images.yaml", *words, "--out", tmp_path / "run")
    assert code == 0 and "best validation" in out, error
    words = ("--model", tmp_path / "run/model.pt", "--whole-frame", "--device", "cpu", "--no-overlay")
    code, out, error = command(capsys, "predict", clip, *words, "--out", tmp_path / "predicted")
    assert code == 0 and "each frame is predicted by itself" in out, error
    assert (tmp_path / "predicted/poses.json").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train.stage=warper",), "no neighbours in time"),
        (("data.images=[{labels: LABELS, folder: nowhere}]",), "none of the labelled images is there"),
        (("data.images=poses.csv",), "cannot read"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(capsys, tmp_path: Path, words, said: str) -> None:
    path = lightning_pose(tmp_path)
    words = (f"data.images={path}", *(word.replace("LABELS", str(path)) for word in words))
    code, _, error = command(
        capsys, "train", "loose_images.yaml", *words, "--out", tmp_path / "run", "--device", "cpu"
    )
    assert code == 2 and said in error and "fix:" in error
