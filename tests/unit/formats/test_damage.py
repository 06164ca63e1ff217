"""Damaged files of every format, through the command line: no traceback, and every message names the file."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from damage import damage
from export_documents import cvat_export, label_studio_export
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from label_samples import mixed_labels
from label_sets import file_name
from other_formats import ALPHATRACKER, write_analysis, write_jabs

from posewarper.cli import app as command_line
from posewarper.errors import PosewarperWarning
from posewarper.formats.catalogue import FORMATS
from posewarper.formats.labels import write_labels

TABLE = """\
Frame;Individual;Bodypart;X;Y;Likelihood;note
3;m1;nose;1,5;2;0,9;a
3;m1;tail;4;5;0,25;
3;m2;nose;7;8;1;
9;m1;nose;10;11;;
"""
PROJECT = """\
Task: mice
scorer: Ann
video_sets:
  /data/mouse.mp4:
    crop: 0, 64, 0, 48
bodyparts:
- snout
- tail
skeleton:
- - snout
  - tail
"""
LABELLED = """\
scorer,Ann,Ann,Ann,Ann
bodyparts,snout,snout,tail,tail
coords,x,y,x,y
labeled-data/mouse/img0004.png,1.5,2.25,10.125,7
labeled-data/mouse/img0012.png,3,4,,
"""


def _written(form: str, name: str | None = None) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / (name or file_name(form))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PosewarperWarning)
            write_labels(path, mixed_labels(), format=form)
        return path

    return write


def _document(document: dict[str, Any]) -> Callable[[Path], Path]:
    return lambda folder: _text(json.dumps(document), "instances.json")(folder)


def _text(text: str, name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_text(text, encoding="utf-8")
        return folder / name

    return write


def _project(folder: Path) -> Path:
    videos = folder / "project" / "labeled-data" / "mouse"
    videos.mkdir(parents=True)
    _text(PROJECT, "config.yaml")(folder / "project")
    _text(LABELLED, "CollectedData_Ann.csv")(videos)
    return folder / "project"


def _yolo(folder: Path) -> Path:
    for kind in ("images", "labels"):
        (folder / "set" / kind / "train").mkdir(parents=True)
    config = "kpt_shape: [2, 3]\nflip_idx: [0, 1]\nnames: {0: mouse}\nkpt_names: {0: [snout, tail]}\n"
    _text(f"train: images/train\nval: images/train\n{config}", "data.yaml")(folder / "set")
    for frame in (4, 12):
        cv2.imwrite(str(folder / f"set/images/train/clip_{frame:04d}.png"), np.zeros((48, 64, 3), np.uint8))
        _text("0 0.5 0.5 0.5 0.5 0.25 0.5 2 0.75 0.5 1\n", f"clip_{frame:04d}.txt")(
            folder / "set/labels/train"
        )
    return folder / "set"


# What is damaged -> how it is made. Every readable format is among them (a test below).
SOUND: dict[str, Callable[[Path], Path]] = {
    **{n: _written(n) for n, form in FORMATS.items() if form.write is not None and not form.holds_images},
    "yolo": _yolo,
    "sleap-analysis": write_analysis,
    "jabs": write_jabs,
    "alphatracker": _text(ALPHATRACKER, "alpha.json"),
    "deeplabcut in HDF5": _written("deeplabcut", "labels.h5"),
    "deeplabcut project": _project,
    "coco of CVAT": _document(cvat_export()),
    "coco of Label Studio": _document(label_studio_export()),
    "csv of others": _text(TABLE, "others.csv"),
}
# Slow to open.
FEW = ("nwb", "sleap", "deeplabcut in HDF5", "sleap-analysis", "jabs", "alphatracker")
TARGETS = ["posetrack", "coco", "csv", "deeplabcut", "deeplabcut-predictions", "openpose"]


def count_examples() -> dict[str, int]:
    few = {name: 12 for name in SOUND if name in FEW}
    rest = [name for name in SOUND if name not in FEW]
    return few | {name: -(-(300 - sum(few.values())) // len(rest)) for name in rest}


def test_every_format_is_damaged_and_300_files_in_all():
    assert {name.split(" ")[0] for name in SOUND} == FORMATS.keys()
    assert sum(count_examples().values()) >= 300


@dataclass
class Outcome:
    code: int
    out: str
    err: str


def run(*arguments: object) -> Outcome:
    """Run the command line in this process; anything but its own leaving is a failure of the test."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            command_line.app([str(argument) for argument in arguments], prog_name="posewarper")
            code = 0
        except SystemExit as left:
            code = int(left.code or 0)
    return Outcome(code, out.getvalue(), err.getvalue())


def check(outcome: Outcome, *paths: Path) -> None:
    assert outcome.code in (0, 2), outcome.err
    assert "Traceback" not in outcome.err
    # Those of numpy and of other packages are nothing that a user could fix.
    assert "Warning:" not in outcome.err, outcome.err
    if outcome.code == 2:
        message = outcome.err[outcome.err.index("error: ") :]
        assert any(str(path) in message for path in paths) and "fix:" in message, message


def need_extras(name: str) -> None:
    for package in ("h5py", "pandas", "tables", "sleap_io", "pynwb", "ndx_pose") if name in FEW else ():
        pytest.importorskip(package)


@pytest.mark.parametrize("name", SOUND)
def test_sound_files_are_read(tmp_path, name):
    need_extras(name)
    path = SOUND[name](tmp_path)
    for arguments in (("info", path), ("convert", path, tmp_path / "out.json")):
        outcome = run(*arguments)
        assert outcome.code == 0, outcome.err
        check(outcome, path)


@pytest.mark.parametrize("name", SOUND)
def test_damaged_files_end_in_a_message_that_names_them(tmp_path, name):
    need_extras(name)
    (tmp_path / "sound").mkdir()
    sound = SOUND[name](tmp_path / "sound")
    place = tmp_path / "damaged"

    @settings(
        max_examples=count_examples()[name],
        derandomize=True,  # a heap of HDF5 that is damaged in the one wrong place makes its library loop
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[
            Phase.explicit,
            Phase.reuse,
            Phase.generate,
        ],  # shrinking takes long, and the message is enough
    )
    @given(data=st.data())
    def damage_and_run(data: st.DataObject) -> None:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(tmp_path / "sound", place)
        path = place / sound.name
        damage(path, data)
        check(run("info", path), path)
        target = data.draw(st.sampled_from(TARGETS))
        out = place / "out" / file_name(target)
        named = ["--from", name.split(" ")[0]] if data.draw(st.booleans()) else []
        outcome = run("convert", path, out, "--to", target, *named)
        check(outcome, path, out)
        assert out.exists() == (outcome.code == 0)
        assert not [p for p in place.rglob(".*")], "half-written"

    damage_and_run()
