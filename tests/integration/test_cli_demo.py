"""``posewarper demo`` on the first frames of its clip, with a network of next to nothing."""

from __future__ import annotations

import json
import os
import shlex

import numpy as np
import pytest
from moving_clip import TINY_FIT, TINY_NETWORK, command

from posewarper import fitting
from posewarper.demo import clip
from posewarper.evaluation.clips import score_clip
from posewarper.formats.labels import read_labels, read_poses
from posewarper.motion.interpolation import interpolate
from posewarper.options import EFFORTS
from posewarper.structures import Poses, Track
from posewarper.video.source import open_video

N_FRAMES = 24
RESULTS = {"poses.json", "overlay.mp4", "sheet.jpg", "report.html", "run.json", "request.json", "model.pt"}
METHODS = ["nearest", "linear", "pchip", "flow", "flow2", "default"]


@pytest.fixture
def tiny(monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(EFFORTS, "normal", TINY_FIT)
    monkeypatch.setattr(fitting, "NetworkConfig", lambda: TINY_NETWORK)
    clip.write_clip(tmp_path / "short.mp4", N_FRAMES)
    monkeypatch.setattr(clip, "DRAWN", tmp_path / "short.mp4")


def read_table(text: str) -> dict[str, list[float]]:
    """Method -> the figures of its row."""
    rows = [line.split() for line in text.splitlines()]
    return {
        row[0]: [float(v) for v in row[1:]] for row in rows if row and row[0] in METHODS and len(row) == 10
    }


@pytest.mark.slow
def test_the_demo_propagates_and_compares(capsys, tiny, tmp_path):
    out = tmp_path / "out"
    code, stdout, stderr = command(capsys, "demo", "--out", out, "--device", "cpu", "--seed", 2)
    assert code == 0, stderr
    assert set(os.listdir(out)) == RESULTS | {"clip.mp4", "labels.json", "truth.json"}
    assert stderr.count("optical flow (") == 1  # the simple methods take that of the run

    truth, labels = (read_labels(out / name) for name in ("truth.json", "labels.json"))
    assert truth.labelled_frames.tolist() == list(range(N_FRAMES))
    assert labels.labelled_frames.tolist() == [7, 22]
    np.testing.assert_array_equal(labels.tracks[0].keypoints, truth.tracks[0].keypoints[[7, 22]])
    np.testing.assert_array_equal(labels.tracks[0].visibility, truth.tracks[0].visibility[[7, 22]])
    with open_video(out / "clip.mp4") as video:
        assert (video.n_frames, video.image_size, video.fps) == (N_FRAMES, truth.image_size, clip.FPS)

    # The figures are those of what lies in the folder, against the truth that lies beside it.
    table = read_table(stdout)
    assert list(table) == METHODS
    poses = read_poses(out / "poses.json")
    assert table["default"][0] == pytest.approx(score_clip(poses, truth, labels).mean, abs=0.051)
    frames = np.arange(N_FRAMES)
    own = labels.tracks[0]
    held = interpolate(own.frames, own.keypoints, frames, "nearest")
    track = Track(frames, held, keypoint_scores=np.ones(held.shape[:2]))
    plain = Poses(truth.skeleton, {0: track}, truth.image_size, N_FRAMES)
    score = score_clip(plain, truth, labels)
    assert table["nearest"][:2] == pytest.approx([score.mean, score.median], abs=0.051)
    assert table["nearest"][0] > table["linear"][0] > 0.1
    report = json.loads((out / "run.json").read_text())
    assert (report["seed"], report["effort"]) == (2, "normal")
    assert report["labelled_frames"] == [7, 22]

    _, errors = (out / "report.html").read_text().split('id="errors">')
    assert all(f">{method}<" in errors for method in METHODS)

    # The command that it names does the same again.
    line = next(text for text in stdout.splitlines() if "posewarper propagate" in text)
    words = shlex.split(line)[1:]
    before = (out / "poses.json").read_bytes()
    (out / "poses.json").unlink()
    assert command(capsys, *words, "--quiet")[0] == 0
    assert (out / "poses.json").read_bytes() == before


def test_results_are_not_overwritten_and_an_unknown_effort_is_refused_at_once(capsys, tmp_path):
    out = tmp_path / "out"
    code, _, err = command(capsys, "demo", "--out", out, "--effort", "fastest")
    assert (code, out.exists()) == (2, False)
    assert "fast, normal, best" in err
    out.mkdir()
    for name in ("truth.json", "overlay.mp4"):
        (out / name).write_text("mine")
        code, _, err = command(capsys, "demo", "--out", out)
        assert code == 2
        assert "--overwrite" in err
        assert (out / name).read_text() == "mine"
        assert os.listdir(out) == [name]
        (out / name).unlink()
    file = tmp_path / "file"
    file.write_text("")
    assert command(capsys, "demo", "--out", file)[0] == 2
