"""``posewarper info VIDEO --labels FILE``: labels drawn on their frames, or beside them in time."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from moving_clip import command

from posewarper.formats.labels import write_labels
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Track
from posewarper.video.images import read_image

N_FRAMES, SIZE = 40, (140, 220)
SKELETON = Skeleton(("nose", "left_paw", "right_paw", "tail"), ((0, 3), (0, 1), (0, 2)), name="mouse")
OFFSETS = np.array([[12.0, 30.0], [30.0, 12.0], [30.0, 46.0], [62.0, 30.0]])


def corner(frame: int) -> np.ndarray:
    """Where a textured patch that runs to and fro has its left upper corner."""
    return np.rint([70 + 40 * np.sin(frame / 2.3), 40 + 14 * np.sin(frame / 1.4)])


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mouse")
    noise = np.random.default_rng(0).uniform(0, 255, (*SIZE, 3)).astype(np.float32)
    texture = np.clip((cv2.GaussianBlur(noise, (0, 0), 1.5) - 128) * 3 + 128, 0, 255).astype(np.uint8)
    for n in range(N_FRAMES):
        x, y = corner(n).astype(int)
        frame = texture // 2
        frame[y : y + 60, x : x + 76] = texture[60:120, 100:176]
        assert cv2.imwrite(str(folder / f"{n:03}.png"), frame)
    return folder


@pytest.fixture
def info(capsys, clip, tmp_path):
    """Run the command with labels that come ``shift`` frames too late, on every ``every``-th frame."""

    def run(*options: object, shift: int = 0, every: int = 1):
        frames = np.arange(3, N_FRAMES - 3, every)
        keypoints = np.stack([corner(n) for n in frames])[:, None] + OFFSETS
        track = Track(frames + shift, keypoints)
        labels = Labels(SKELETON, {0: track}, image_size=SIZE, n_frames=N_FRAMES)
        write_labels(tmp_path / "labels.json", labels)
        return command(capsys, "info", clip, "--labels", tmp_path / "labels.json", *options)

    return run


def test_labels_are_drawn_into_a_picture(info, tmp_path):
    picture = tmp_path / "sheet.png"
    code, out, err = info("--picture", picture, "--json", tmp_path / "facts.json", every=8)
    assert (code, err) == (0, "")
    assert "sheet.png" in out and "in time" not in out  # too sparse to tell
    assert read_image(picture).shape[1] == 1600
    assert json.loads((tmp_path / "facts.json").read_text())["labels"]["picture"] == str(picture)
    picture.write_bytes(b"precious")
    code, _, err = info("--picture", picture)
    assert code == 2 and "--overwrite" in err and picture.read_bytes() == b"precious"
    assert info("--picture", picture, "--overwrite")[0] == 0
    assert read_image(picture).shape[1] == 1600


@pytest.mark.parametrize(("shift", "verdict"), [(0, "yes"), (1, "no"), (-1, "no")])
def test_labels_that_lie_beside_the_video_are_warned_of(info, tmp_path, shift, verdict):
    code, out, err = info("--json", tmp_path / "facts.json", shift=shift)
    assert code == 0
    facts = json.loads((tmp_path / "facts.json").read_text())["labels"]
    assert facts["in time"] == verdict and facts["fits best moved by"] == pytest.approx(-shift, abs=0.3)
    assert facts["frames, between"][0] <= facts["fits best moved by"] <= facts["frames, between"][1]
    assert f"in time              {verdict}" in out
    if shift:
        assert f"better when moved by {-shift:+d} frame (" in err
        assert f"--frame-offset {-shift}`" in err and err.count("warning") == 1
    else:
        assert err == ""


def test_a_picture_needs_a_video_and_labels(info, capsys, clip, tmp_path):
    info()
    labels, picture = tmp_path / "labels.json", tmp_path / "sheet.png"
    for arguments, got in (
        ((clip,), "no labels"),
        ((labels,), "no video"),
        ((labels, "--labels", labels), "no video"),
        (("--labels", labels), "no video"),
        ((tmp_path / "model.pt", "--labels", labels), "no video"),
    ):
        code, out, err = command(capsys, "info", *arguments, "--picture", picture)
        assert (code, out) == (2, "") and got in err and "fix:" in err, err
    code, _, err = command(capsys, "info", clip, "--labels", labels, "--picture", tmp_path / "sheet.txt")
    assert code == 2 and ".png or .jpg" in err
    assert not picture.exists()
