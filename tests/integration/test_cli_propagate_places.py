"""Where ``posewarper propagate`` writes: what is refused before the work, and that no input is lost."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from moving_clip import command, write_clip, write_frames, write_some_labels

from posewarper.formats.labels import read_poses


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def propagate(capsys, clip, tmp_path):
    """Run the quickest method that looks at the video on the clip and three labels."""

    def run(*options: object, video: Path = clip, labels: Path | None = None, out: object = "out"):
        labels = labels or write_some_labels(tmp_path)
        where = ("--labels", labels, "--out", tmp_path / str(out), "--device", "cpu")
        return command(capsys, "propagate", video, *where, "--method", "flow", *options)

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def refused(propagate, tmp_path):
    """Run, and expect exit code 2 and one message, before any work was begun."""

    def run(message: str, *options: object, **more) -> str:
        code, stdout, err = propagate(*options, **more)
        assert (code, stdout) == (2, "")
        assert message in err
        assert (err.count("error: "), "Traceback" in err, "optical flow" in err) == (1, False, False)
        return err

    return run


def test_files_in_the_way(refused, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for out in ("file", "file/inside", "file/deep/inside", "link", "link/inside"):
        refused("this is a file, not a folder", out=out)
    assert (tmp_path / "file").read_text() == "mine"


def test_names_that_cannot_be(refused):
    refused("cannot be the name of a folder", out="x" * 300)


@pytest.mark.skipif(os.name != "posix", reason="/proc")
def test_folders_that_may_not_be_written(refused, tmp_path, monkeypatch):
    usual = os.access
    monkeypatch.setattr(os, "access", lambda place, mode: Path(place) != tmp_path and usual(place, mode))
    assert str(tmp_path) in refused("may not be written", out="out")


def test_results_of_an_earlier_run(propagate, refused, tmp_path):
    (tmp_path / "out").mkdir()
    assert propagate()[0] == 0  # an empty folder is as good as none
    before = contents(tmp_path / "out")
    err = refused("holds results already")
    assert "poses.json" in err and "--overwrite" in err
    assert propagate("--overwrite", labels=tmp_path / "none.json")[0] == 2
    assert contents(tmp_path / "out") == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    assert propagate(out="other")[0] == 0
    assert (tmp_path / "other" / "notes.txt").read_text() == "mine"


def test_results_do_not_lie_among_the_frames(refused, tmp_path):
    frames = write_frames(tmp_path / "frames")
    before = contents(frames)
    refused("among its files", video=frames, out="frames")
    refused("among its files", "--overwrite", video=frames, out=tmp_path / "frames" / ".." / "frames")
    assert contents(frames) == before


def test_the_video_is_not_replaced_by_its_overlay(refused, clip, tmp_path):
    (tmp_path / "out").mkdir()
    video = shutil.copy(clip, tmp_path / "out" / "overlay.mp4")
    before = contents(tmp_path / "out")
    refused("place of the input", "--overwrite", video=video)
    assert contents(tmp_path / "out") == before


def test_results_may_be_the_labels_of_the_next_run(propagate, tmp_path):
    assert propagate()[0] == 0
    poses = tmp_path / "out" / "poses.json"
    given = hashlib.sha256(poses.read_bytes()).hexdigest()
    assert propagate("--extend", "--overwrite", labels=poses)[0] == 0
    report = json.loads((tmp_path / "out" / "run.json").read_text())
    assert report["inputs"]["labels"]["sha256"] == given  # of what was read, not of what was written
    assert report["labelled_frames"] == read_poses(poses).labelled_frames.tolist() == [3, 10, 16]
