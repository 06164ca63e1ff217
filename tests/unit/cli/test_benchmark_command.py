"""``posewarper benchmark``: options, table and JSON, on a clip of tiny frames."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from posewarper.cli import benchmark
from posewarper.cli.benchmark import default_cache, parse_gaps, show_rows
from posewarper.errors import ConfigError, LabelsError, OutputError
from posewarper.formats.labels import write_labels
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Track

N_FRAMES = 12


@pytest.fixture
def clip(tmp_path) -> tuple[Path, Path]:
    """Frames of 64 x 48 pixels and labels on all: two tracks, whose keypoints move by 2 pixels a frame."""
    folder = tmp_path / "clip"
    folder.mkdir()
    for frame in range(N_FRAMES):
        cv2.imwrite(str(folder / f"{frame:03}.png"), np.full((48, 64, 3), frame, np.uint8))
    keypoints = np.tile([[10.0, 4.0], [10.0, 24.0]], (N_FRAMES, 1, 1))
    keypoints[..., 0] += 2 * np.arange(N_FRAMES)[:, None]
    track = Track(
        np.arange(N_FRAMES),
        keypoints,
        boxes=np.tile((0, 0, 40, 20), (12, 1)),
    )
    labels = Labels(Skeleton(("nose", "tail")), {0: track, 1: track}, image_size=(48, 64), n_frames=N_FRAMES)
    write_labels(tmp_path / "dense.json", labels)
    return folder, tmp_path / "dense.json"


@pytest.fixture
def run(clip, tmp_path):
    def call(every="4", methods="nearest,linear", **more):
        more = {"cache": tmp_path / "cache", "quiet": True, "json_file": tmp_path / "out.json", **more}
        benchmark.run(*clip, every, methods, **more)
        return json.loads((tmp_path / "out.json").read_text())

    return call


def test_table_and_json(run, capsys):
    report = run(every="4, 5")
    assert report["clip"] == "clip" and report["machine"]["cpus"] and report["version"]
    rows = {(row["every"], row["method"]): row for row in report["rows"]}
    assert list(rows) == [(k, m) for k in (4, 5) for m in ("nearest", "linear")]
    # Kept are frames 2, 6, 10. A frame away is 2 of 40 pixels, 5 percent; beyond are frames 0, 1 and 11.
    assert rows[4, "linear"]["between_mean"] == pytest.approx(0, abs=1e-9)
    assert rows[4, "linear"]["beyond_mean"] == pytest.approx((10 + 5 + 5) / 3)
    assert rows[4, "nearest"]["between_mean"] == pytest.approx((5 + 10 + 5) / 3)
    assert rows[4, "linear"]["n"] == 2 * 2 * 9
    shown = capsys.readouterr().out
    assert "clip, every 4: 3 labelled frames kept, 36 keypoints scored" in shown
    assert "below 1 percent are noise" in " ".join(shown.split())
    linear = next(line for line in shown.splitlines() if line.split()[:1] == ["linear"])
    assert linear.split()[1:9] == ["2.2", "0.0", "10.0", "88.9", "100.0", "100.0", "0.0", "6.7"]


def test_one_track(run):
    report = run(track=1)
    assert report["track"] == 1 and report["rows"][0]["n"] == 2 * 9


def test_an_existing_file_is_kept(run, tmp_path):
    (tmp_path / "out.json").write_text("mine")
    with pytest.raises(OutputError, match="--overwrite"):
        run()
    assert (tmp_path / "out.json").read_text() == "mine"
    assert run(overwrite=True)["clip"] == "clip"


def test_bad_options(run):
    with pytest.raises(ConfigError, match="nearest, linear, pchip") as caught:
        run(methods="nearest,neerest")
    assert "neerest" in str(caught.value)
    for text in ("", "7,x", "0", "-3", "7;9", "1.5"):
        with pytest.raises(ConfigError, match="positive whole numbers"):
            run(every=text)
    with pytest.raises(ConfigError, match="from 1 to 11"):
        run(every="12")
    with pytest.raises(LabelsError, match="no track 7"):
        run(track=7)
    with pytest.raises(ConfigError, match="trains none"):
        run(methods="frame", effort="fast")
    with pytest.raises(ConfigError, match="unknown effort"):
        run(effort="more")


def test_parse_gaps():
    assert parse_gaps("7,15, 31,") == [7, 15, 31]


def test_default_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "posewarper" / "benchmark"
    monkeypatch.setenv("HOME", str(tmp_path))
    for useless in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", useless)
        assert default_cache() == tmp_path / ".cache" / "posewarper" / "benchmark"


def test_best_in_bold_and_fitting_named(tmp_path):
    figures = {"median": 1.0, "p95": 9.0, "pck05": 80.0, "pck10": 90.0, "coverage": 100.0, "seconds": 12345.6}
    shared = {"clip": "clip", "every": 7, "n_labels": 3, "withheld": 0.5, "n": 40, **figures}
    shared["between_mean"] = 2.0
    rows = [
        {**shared, "method": "linear", "mean": 3.04, "beyond_mean": None, "fit_seconds": 0.0},
        {**shared, "method": "warper", "mean": 2.96, "beyond_mean": None, "fit_seconds": 63.2},
        {**shared, "method": "default", "mean": 3.2, "pck05": 85.0, "beyond_mean": None, "fit_seconds": 63.2},
    ]
    console = Console(record=True, width=80, force_terminal=True, file=(tmp_path / "shown").open("w"))
    show_rows(console, rows)
    lines = console.export_text(styles=True).splitlines()
    bold = "\x1b[1m{}\x1b[0m".format
    linear, untrained, default = (next(x for x in lines if x.split()[:1] == [row["method"]]) for row in rows)
    assert bold("3.0") in linear and bold("3.0") in untrained and bold("3.2") not in default
    assert bold("85.0") in default and bold("80.0") not in linear
    assert "…" not in "".join(lines) and " - " in linear and "12345.6" in linear
    title = " ".join(" ".join(lines[:3]).split())
    assert "3 labelled frames kept without 50 % of their keypoints, 40 keypoints scored" in title
    assert any("fitting: 63 s, once for warper, default" in line for line in lines)


def test_the_name_of_a_clip_cannot_steer_the_terminal(tmp_path):
    figures = {"mean": 1.0, "median": 1.0, "p95": 9.0, "pck05": 80.0, "pck10": 90.0, "coverage": 100.0}
    row = {
        "clip": "a\x1b]0;evil\x07[bold]",
        "every": 7,
        "n_labels": 3,
        "withheld": 0.0,
        "n": 40,
        "method": "linear",
        **figures,
    }
    row |= {"between_mean": None, "beyond_mean": None, "seconds": 1.0, "fit_seconds": 0.0}
    console = Console(record=True, width=80, file=(tmp_path / "shown").open("w"))
    show_rows(console, [row])
    said = console.export_text()
    assert "a\\x1b]0;evil\\x07[bold], every 7" in said and not set("\x1b\x07") & set(said)
