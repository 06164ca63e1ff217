"""``posewarper evaluate`` as a script sees it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from moving_clip import command, some_labels

from posewarper.formats.labels import write_labels


@pytest.fixture(scope="module")
def case(parity_dir: Path) -> Path:
    return parity_dir / "poseval" / "small_edge"


def run(capsys, truth: Path, predictions: Path, *more: object) -> tuple[int, str, str]:
    return command(capsys, "evaluate", "--ground-truth", truth, "--predictions", predictions, *more)


@pytest.mark.parametrize("year", [17, 18])
def test_the_table_and_the_file(case: Path, tmp_path: Path, capsys, year: int) -> None:
    file = tmp_path / "figures.json"
    sides = case / f"gt{year}", case / f"pred{year}"
    code, stdout, stderr = run(capsys, *sides, "--json", file, "--seed", 1, "--device", "cpu", "--quiet")
    assert (code, stderr) == (0, "")
    lines = stdout.splitlines()
    assert " ".join(lines[0].split()) == "8 frames Head Shoulder Elbow Wrist Hip Knee Ankle Mean"
    assert lines[1].split() == ["AP", "51.9", "43.3", "49.5", "52.8", "-", "53.4", "46.7", "49.9"]
    assert lines[6].split() == ["MOTA", "14.0", "18.2", "27.3", "27.3", "-536.4", "27.3", "-18.8", "-57.9"]
    assert lines[-1] == f"wrote {file}" and max(map(len, lines[:-1])) <= 80
    written, expected = json.loads(file.read_text()), json.loads((case / "expected.json").read_text())
    assert written["metric"] == "posetrack" and written["neck"] == "head_bottom"
    assert set(written["ap"]) == set(expected["ap"]) == {"per_joint", "precision", "recall", "groups"}
    assert set(written["mot"]) == set(expected["mot"])
    assert written["ap"]["groups"]["hip"] is None
    assert written["ap"]["per_joint"] == pytest.approx(expected["ap"]["per_joint"])
    assert written["mot"]["groups"] == pytest.approx(expected["mot"]["groups"])


def test_a_file_that_is_there_is_not_replaced_unless_asked(case: Path, tmp_path: Path, capsys) -> None:
    file = tmp_path / "figures.json"
    file.write_text("mine")
    code, stdout, stderr = run(capsys, case / "gt17", case / "pred17", "--json", file)
    assert code == 2 and not stdout and "--overwrite" in stderr and file.read_text() == "mine"
    code, _, _ = run(capsys, case / "gt17", case / "pred17", "--json", file, "--overwrite")
    assert code == 0 and json.loads(file.read_text())["n_frames_evaluated"] == 8
    assert [p.name for p in tmp_path.iterdir()] == ["figures.json"]


def test_no_tracking_figures_are_null_with_a_warning(parity_dir: Path, tmp_path: Path, capsys) -> None:
    case = parity_dir / "poseval" / "constant_id"
    file = tmp_path / "figures.json"
    code, stdout, stderr = run(capsys, case / "gt18", case / "pred18", "--json", file)
    assert code == 0 and "MOTA" not in stdout
    assert stderr.startswith("warning: no tracking figures: ") and "same track id" in stderr
    assert json.loads(file.read_text())["mot"] is None


def test_a_clip_of_ones_own(tmp_path: Path, capsys) -> None:
    write_labels(tmp_path / "dense.json", some_labels())
    code, stdout, stderr = run(
        capsys, tmp_path / "dense.json", tmp_path / "dense.json", "--metric", "pck", "--thresholds", "0.1,0.2"
    )
    assert (code, stderr) == (0, "")
    assert stdout.splitlines()[0].split() == ["keypoint", "labels", "PCK@0.1", "PCK@0.2"]
    assert stdout.splitlines()[5].split() == ["mean", "12", "100.0", "100.0"]
    file = tmp_path / "oks.json"
    code, stdout, _ = run(
        *(capsys, tmp_path / "dense.json", tmp_path / "dense.json"),
        *("--metric", "oks", "--sigmas", "0.05", "--json", file),
    )
    assert code == 0 and json.loads(file.read_text())["oks"]["AP"] == pytest.approx(100)


@pytest.mark.parametrize(
    ("predictions", "more", "message"),
    [
        ("nowhere", (), "nowhere"),
        ("gt17/000101_bonn_test.json", (), "there are no predictions for 1 of 2 videos"),
        ("pred17", ("--metric", "mAP"), "unknown metric"),
        ("pred17", ("--neck", "throat"), "unknown rule for the neck"),
        ("pred17", ("--metric", "pck", "--thresholds", "0.1;0.2"), "numbers with commas in between"),
        ("pred17", ("--metric", "pck", "--normaliser", "knee,elbow"), "unknown normaliser"),
    ],
)
def test_bad_input_ends_with_one_message(case: Path, capsys, predictions, more, message) -> None:
    code, stdout, stderr = run(capsys, case / "gt17", case / predictions, *more)
    assert code == 2 and not stdout
    assert stderr.startswith("error: ") and message in stderr and "fix:" in stderr
    assert "Traceback" not in stderr
