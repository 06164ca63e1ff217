"""A user's own videos end to end: train, propagate pseudo-labels, retrain, and use the model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from moving_clip import N_FRAMES, SKELETON, command, some_labels, write_clip

from posewarper.formats.labels import read_annotations, read_poses, write_labels
from posewarper.model.checkpoint import load_model
from posewarper.skeletons import Skeleton
from posewarper.video.source import open_video

TINY = (
    "model.crop_size=[64,96]",
    "model.head_width=4",
    "model.head_blocks=1",
    "model.head_dilations=[1,2]",
    "train.epochs=1",
    "train.min_epoch_steps=2",
    "train.global_batch=4",
    "train.workers=0",
)
# The head has learned next to nothing, so labels stay where they are and come back.
SURE = ("data.pseudo.reach=2", "data.pseudo.min_score=0.05", "data.pseudo.max_cycle=0.5")


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """A folder with clip.mp4 and other.mp4, their labels, and clips.csv."""
    folder = tmp_path_factory.mktemp("videos")
    write_clip(folder)
    shutil.copy(folder / "clip.mp4", folder / "other.mp4")
    write_labels(folder / "labels.json", some_labels())
    write_labels(folder / "other.json", some_labels((0, 12), video="other.mp4"))
    (folder / "clips.csv").write_text("video,labels,split\nclip.mp4,labels.json,\nother.mp4,other.json,val\n")
    return folder


@pytest.fixture
def train(capsys, videos, tmp_path):
    """Train a shipped recipe on the clips; returns the exit code and what was said on the error stream."""

    def run(stage: str, out: Path, *words: object) -> tuple[int, str]:
        where = (f"data.clips_file={videos / 'clips.csv'}", "--out", out, "--device", "cpu", "--quiet")
        code, _, error = command(capsys, "train", f"own_clips_{stage}.yaml", *where, *TINY, *words)
        return code, error

    return run


@pytest.fixture(scope="module")
def trained(videos, tmp_path_factory) -> Path:
    """A folder with pose/model.pt and warper/model.pt."""
    from posewarper.training.recipes import read_recipe
    from posewarper.training.run import run_recipe

    folder = tmp_path_factory.mktemp("trained")
    clips = f"data.clips_file={videos / 'clips.csv'}"
    run_recipe(read_recipe("own_clips_pose", [clips, *TINY]), folder / "pose", device="cpu")
    start = f"model.start={folder / 'pose' / 'model.pt'}"
    run_recipe(read_recipe("own_clips_warper", [clips, start, *TINY]), folder / "warper", device="cpu")
    return folder


def test_the_model_goes_to_propagate(capsys, videos, trained, tmp_path):
    model = load_model(trained / "warper" / "model.pt")
    spec = model.spec
    assert spec.trained == {"pose": 2, "warp": 2} and spec.skeleton.names == SKELETON.names
    assert (spec.crop_size, spec.sigma, spec.head_dilations) == ((64, 96), 2, (1, 2))
    assert spec.targets == "exact"
    assert spec.skeleton.flip_pairs == SKELETON.flip_pairs and spec.skeleton.edges == SKELETON.edges
    for stage, method in (("warper", "default"), ("warper", "warper"), ("pose", "frame")):
        out = tmp_path / f"{stage}_{method}"
        code, _, error = command(
            capsys, "propagate", videos / "clip.mp4", "--labels", videos / "labels.json",
            "--model", trained / stage / "model.pt", "--method", method, "--out", out, "--device", "cpu",
            "--quiet",
        )  # fmt: skip
        assert code == 0, error
        assert read_poses(out / "poses.json").tracks[0].frames.tolist() == list(range(N_FRAMES))
        assert not (out / "model.pt").exists()


def test_a_model_of_other_keypoints_is_refused(capsys, videos, trained, tmp_path):
    write_labels(tmp_path / "fish.json", some_labels(skeleton=Skeleton(("head", "fin", "fluke", "eye"))))
    code, _, error = command(
        capsys, "propagate", videos / "clip.mp4", "--labels", tmp_path / "fish.json",
        "--model", trained / "warper" / "model.pt", "--out", tmp_path / "out", "--device", "cpu",
    )  # fmt: skip
    assert code == 2 and "head, fin, fluke, eye" in error and "nose, left_paw" in error
    assert "leave --model out to train one" in error and not (tmp_path / "out").exists()


def test_retraining_makes_pseudo_labels_once(train, videos, trained, tmp_path):
    out, words = tmp_path / "out", (f"data.pseudo.model={trained / 'warper' / 'model.pt'}", *SURE)
    code, error = train("retraining", out, *words)
    assert code == 0, error
    path = out / "data" / "pseudo" / "0_clip.json"
    with open_video(videos / "clip.mp4") as video:
        poses = read_annotations(path, video=video, skeleton=SKELETON)
    assert set(poses.tracks[0].frames.tolist()) <= {1, 2, 4, 5, 8, 9, 11, 12, 14, 15, 17, 18}
    recipe = json.loads((out / "run.json").read_text())["recipe"]
    assert recipe["data"]["pseudo"]["reach"] == 2
    # Killed before the end: what was made is not made again.
    made = path.stat().st_mtime_ns
    sha = json.loads((out / "run.json").read_text())["parameters_sha256"]
    (out / "model.pt").unlink()
    assert train("retraining", out, *words, "--resume")[0] == 0
    assert path.stat().st_mtime_ns == made
    assert json.loads((out / "run.json").read_text())["parameters_sha256"] == sha
    # Anew with other rules: so are they.
    code, error = train("retraining", out, *words, "data.pseudo.reach=1", "--overwrite")
    assert code == 0, error
    assert path.stat().st_mtime_ns != made


def test_without_a_sure_keypoint_the_labels_remain(train, trained, tmp_path):
    words = (f"data.pseudo.model={trained / 'warper' / 'model.pt'}", "data.pseudo.min_score=5")
    code, error = train("retraining", tmp_path / "out", *words)
    assert code == 0 and "no propagated keypoint was sure enough" in " ".join(error.split()), error


CLIP = "data.clips=[{{video: {clip}, labels: {fish}}}]"


@pytest.mark.parametrize(
    ("stage", "words", "said"),
    [
        ("retraining", (), "data.pseudo.model=CHECKPOINT"),
        ("retraining", ("data.pseudo.model={pose}",), "never trained"),
        ("warper", (), "model.start=CHECKPOINT"),
        ("warper", (CLIP, "model.start={pose}"), "the pose network has other keypoints"),
        ("retraining", (CLIP, "data.pseudo.model={warper}"), "this model has other keypoints"),
        ("pose", (CLIP.replace("clips", "validation_clips"),), "in both lists"),
        ("pose", ("data.clips=[{{video: {clip}, labels: {labels}}}, {{video: {clip}, labels: {fish}}}]",),
         "other keypoints than those of the first video"),
        ("pose", ("data.clips_file=nowhere.csv",), "cannot read this list of videos"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(train, videos, trained, tmp_path, stage, words, said):
    write_labels(tmp_path / "fish.json", some_labels(skeleton=Skeleton(("head", "fin", "fluke", "eye"))))
    places = {
        "clip": videos / "clip.mp4",
        "labels": videos / "labels.json",
        "fish": tmp_path / "fish.json",
        "pose": trained / "pose" / "model.pt",
        "warper": trained / "warper" / "model.pt",
    }
    code, error = train(stage, tmp_path / "out", *(word.format(**places) for word in words))
    assert code == 2 and said in " ".join(error.split()), error
    assert not (tmp_path / "out" / "model.pt").exists()
