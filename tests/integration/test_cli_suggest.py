"""`posewarper suggest` on a small clip: before any label, with labels, and with a result."""

from __future__ import annotations

import json

import numpy as np
import pytest
from moving_clip import (
    HEIGHT,
    N_FRAMES,
    WIDTH,
    command,
    some_labels,
    write_clip,
    write_frames,
    write_some_labels,
)
from PIL import Image

import posewarper
from posewarper.formats.labels import write_labels, write_poses
from posewarper.structures import Labels, Poses, Track


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip"))


def doubtful_poses(labels: Labels) -> Poses:
    """Poses that are sure of everything but the left paw on frame 13 and the tail on frame 6."""
    track = labels.tracks[0]
    frames = np.arange(N_FRAMES)
    points = np.stack(
        [
            np.stack([np.interp(frames, track.frames, track.keypoints[:, k, axis]) for axis in (0, 1)], -1)
            for k in range(4)
        ],
        1,
    )
    error = np.zeros((N_FRAMES, 4))
    error[13, 1], error[6, 3] = 4.0, 9.0
    said = np.isin(frames, track.frames)[:, None] & np.ones((1, 4), bool)
    poses = Track(frames, points, labelled=said, keypoint_scores=np.ones((N_FRAMES, 4)), expected_error=error)
    return Poses(labels.skeleton, {0: poses}, (HEIGHT, WIDTH), N_FRAMES, track.frames, "clip")


def test_before_any_label(clip, tmp_path, capsys):
    figures, sheet = tmp_path / "next.json", tmp_path / "next.jpg"
    code, out, err = command(
        capsys, "suggest", clip, "-n", "4", "--json", figures, "--picture", sheet, "--quiet"
    )
    assert (code, err) == (0, "")
    told = json.loads(figures.read_text())
    assert told["by"] == "looks" and told["labels"] is None
    frames = [row["frame"] for row in told["suggestions"]]
    assert len(set(frames)) == 4 and min(np.diff(sorted(frames))) >= 2
    for row in told["suggestions"]:
        assert row["seconds"] == pytest.approx(row["frame"] / 25, abs=0.001)
        assert f"{row['seconds']:.2f} s" in out
    with Image.open(sheet) as picture:
        assert max(picture.size) <= 1600
    code, again, _ = command(capsys, "suggest", clip, "-n", "4", "--quiet")
    assert (code, again) == (0, out)
    code, _, err = command(capsys, "suggest", clip, "-n", "4", "--json", figures)
    assert code == 2 and "this file exists already" in err


def test_labels_alone_halve_the_widest_gaps(clip, tmp_path, capsys):
    labels = write_some_labels(tmp_path)
    figures = tmp_path / "next.json"
    code, out, _ = command(capsys, "suggest", clip, "--labels", labels, "-n", "3", "--json", figures)
    assert code == 0
    told = json.loads(figures.read_text())
    assert told["by"] == "gaps"
    assert [row["frame"] for row in told["suggestions"]] == [6, 13, 1]
    assert "no label on frames 4 to 9" in " ".join(out.split())
    assert [each.frame for each in posewarper.suggest(clip, labels, count=3)] == [6, 13, 1]


def test_a_result_tells_where_labels_help_most(clip, tmp_path, capsys):
    write_poses(tmp_path / "poses.json", doubtful_poses(some_labels()))
    figures, sheet = tmp_path / "next.json", tmp_path / "next.png"
    code, out, _ = command(
        capsys, "suggest", clip, "--result", tmp_path, "--json", figures, "--picture", sheet, "--by", "error"
    )
    assert code == 0
    rows = json.loads(figures.read_text())["suggestions"]
    assert [(row["frame"], row["track"], row["keypoint"]) for row in rows] == [
        (6, 0, "tail"),
        (13, 0, "left_paw"),
    ]
    assert [row["gain"] for row in rows] == pytest.approx([9 / 13, 4 / 13], abs=1e-3)
    assert "tail is expected to be off by up to 9 pixels on frames 4 to 9" in " ".join(out.split())
    assert sheet.stat().st_size > 1000
    # Labels that were made since count as made.
    write_labels(tmp_path / "more.json", some_labels((3, 6, 10, 16)))
    found = posewarper.suggest(clip, tmp_path / "more.json", result=tmp_path, by="error")
    assert [each.frame for each in found] == [13]
    # And as many as there are: nothing is left.
    write_labels(tmp_path / "all.json", some_labels(tuple(range(N_FRAMES))))
    code, out, _ = command(capsys, "suggest", clip, "--labels", tmp_path / "all.json")
    assert (code, out) == (0, "no frame is left whose label would be of use\n")


def test_a_real_result_and_a_folder_of_frames(tmp_path, capsys):
    frames, labels = write_frames(tmp_path / "frames"), write_some_labels(tmp_path, (3, 16))
    out = tmp_path / "out"
    run = ("propagate", frames, "--labels", labels, "--effort", "fast", "--extend", "--out", out, "--quiet")
    assert command(capsys, *run)[0] == 0
    code, shown, _ = command(capsys, "suggest", frames, "--result", out, "-n", "2", "--by", "error")
    assert code == 0
    found = posewarper.suggest(frames, result=out / "poses.json", count=2, by="error")
    assert len(found) == 2 and not {3, 16} & {each.frame for each in found}
    assert 0 < found[1].gain <= found[0].gain < 1
    assert f"img{10 + 2 * found[0].frame:03}.png" in shown


WRONG = {
    "no such file": (("nowhere.mp4",), "nowhere.mp4: there is no such file"),
    "an unknown order": (("CLIP", "--by", "looking"), "unknown order of suggestions"),
    "no result": (("CLIP", "--result", "."), "a folder with poses.json in it"),
    "no expected error": (("CLIP", "--by", "error"), "there are no poses yet"),
    "none": (("CLIP", "-n", "0"), "Invalid value"),
    "no picture": (("CLIP", "--picture", "sheet.txt"), "cannot write this kind of picture"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_done_is_said(name, clip, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words, message = WRONG[name]
    code, _, err = command(capsys, "suggest", *(clip if word == "CLIP" else word for word in words))
    assert code == 2
    assert message in err
    assert list(tmp_path.iterdir()) == []
