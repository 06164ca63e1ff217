"""``posewarper prepare``, as a user runs it."""

from __future__ import annotations

import json
import shutil

import pytest
from moving_clip import command

from posewarper.demo.posetrack_tree import write_posetrack_tree
from posewarper.posetrack.dataset import open_dataset


@pytest.mark.parametrize(("kind", "form"), [("posetrack17", "mat"), ("posetrack18", "json")])
def test_one_command_prepares_a_download(capsys, tmp_path, kind, form):
    tree = write_posetrack_tree(
        tmp_path / "tree", kind, n_videos=(1, 1), n_frames=6, size=(48, 64), form=form
    )
    out = tmp_path / "out"
    code, said, err = command(capsys, "prepare", kind, tree, "--out", out, "--quiet")
    assert (code, err) == (0, "")
    assert ["val", "1", "6", "0", "4", "1"] in [line.split()[:6] for line in said.splitlines()]
    assert "never labelled: left_ear, right_ear" in said
    assert f"frames: {tree / 'images'}" in said and f"wrote {out}: 2 videos ({kind})" in said
    code, said, err = command(capsys, "prepare", kind, tree, "--out", out, "--quiet")
    assert (code, err) == (0, "") and "unchanged since the last run: 2 videos" in said
    assert len(open_dataset(out).videos) == 2


def test_missing_frames_warn_and_the_rest_is_usable(capsys, tmp_path):
    tree = write_posetrack_tree(tmp_path / "tree", n_videos=(1, 1), n_frames=6, size=(48, 64))
    (tree / "images" / "val" / "000002_mpii_test" / "000002.jpg").unlink()
    code, said, err = command(
        capsys, "prepare", "posetrack18", tree, "--out", tmp_path / "out", "--splits", "val"
    )
    assert code == 0 and "warning: 1 frame is missing (1 labelled)" in err and "preparing val (1)" in err
    assert "train" not in said
    shutil.rmtree(tree / "images")
    code, said, err = command(capsys, "prepare", "posetrack18", tree, "--out", tmp_path / "new")
    assert code == 2 and "--images" in err and not (tmp_path / "new").exists()


def test_bad_input_is_explained(capsys, tmp_path):
    (tmp_path / "photos").mkdir()
    code, _, err = command(capsys, "prepare", "posetrack18", tmp_path / "photos", "--out", tmp_path / "out")
    assert code == 2 and "no labels of posetrack18" in err and "annotations/val/" in err
    code, _, err = command(capsys, "prepare", "posetrack19", tmp_path, "--out", tmp_path / "out")
    assert code == 2 and "posetrack18" in err


def test_info_shows_a_prepared_dataset_split_by_split(capsys, tmp_path):
    tree = write_posetrack_tree(tmp_path / "tree", n_videos=(2, 1), n_frames=6, size=(48, 64))
    assert command(capsys, "prepare", "posetrack18", tree, "--out", tmp_path / "out", "--quiet")[0] == 0
    code, said, err = command(capsys, "info", tmp_path / "out", "--json", tmp_path / "facts.json")
    assert (code, err) == (0, "")
    rows = [line.split() for line in said.splitlines()]
    assert ["train", "2", "12"] in [row[:3] for row in rows] and ["val", "1", "6"] in [
        row[:3] for row in rows
    ]
    facts = json.loads((tmp_path / "facts.json").read_text())["dataset"]
    assert facts["kind"] == "posetrack18" and facts["splits"][1]["labelled frames"] == 4
