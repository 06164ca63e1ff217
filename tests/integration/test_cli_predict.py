"""From a download to figures: prepare, predict and evaluate, on people whose keypoints are coloured dots."""

from __future__ import annotations

import colorsys
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from moving_clip import command

from posewarper.model.checkpoint import save_model
from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.paper import prediction
from posewarper.posetrack.annolist import write_annolist
from posewarper.posetrack.posetrack18 import read_posetrack18, write_posetrack18
from posewarper.posetrack.tables import read_tables
from posewarper.skeletons import POSETRACK, Skeleton
from posewarper.structures import InstanceTable

SIZE, N_FRAMES, LABELLED = (200, 320), 6, (1, 2, 4)
COLOURS = np.array([colorsys.hsv_to_rgb(k / 17, 1, 1) for k in range(17)]) * 255
# A standing person, in shares of its height; the neck lies between the shoulders.
_BODY = [
    *((0.5, 0.1), (0.5, 0.2), (0.5, 0.0), (0.45, 0.08), (0.55, 0.08), (0.62, 0.2), (0.38, 0.2)),
    *((0.72, 0.36), (0.28, 0.36), (0.8, 0.5), (0.2, 0.5), (0.6, 0.52), (0.4, 0.52)),
    *((0.62, 0.75), (0.38, 0.75), (0.63, 1.0), (0.37, 1.0)),
]
_EARS = [3, 4]


def truth_of(video: str, first: int) -> InstanceTable:
    """Two people, who walk two pixels a frame; all frames are listed, three of them labelled."""
    rows, points, tracks = [], [], []
    for row in LABELLED:
        for person in range(2):
            x = 20 + 150 * person + 2 * row
            rows.append(row)
            points.append(np.array(_BODY) * 120 + (x, 30 + 10 * person))
            tracks.append(person)
    keypoints = np.array(points)
    keypoints[:, _EARS] = np.nan
    low, high = np.nanmin(keypoints, axis=1), np.nanmax(keypoints, axis=1)
    margin = 0.15 * (high - low)
    head = keypoints[:, 2] - (12, 0)
    digits = 8 if first else 6
    return InstanceTable(
        video=video.split("/")[-1],
        frame_names=tuple(f"{video}/{n:0{digits}}.jpg" for n in range(first, first + N_FRAMES)),
        frame_numbers=np.arange(first, first + N_FRAMES),
        rows=rows,
        keypoints=keypoints,
        tracks=tracks,
        boxes=np.concatenate([low - margin, high - low + 2 * margin], axis=1),
        head_boxes=np.concatenate([head, np.full((len(head), 2), 24.0)], axis=1),
        is_labelled=[row in LABELLED for row in range(N_FRAMES)],
        n_frames=N_FRAMES,
        image_size=SIZE,
    )


def draw(table: InstanceTable, row: int) -> np.ndarray:
    image = np.zeros((*SIZE, 3), np.uint8)
    for points in table.keypoints[table.rows == row]:
        for k in np.flatnonzero(np.isfinite(points[:, 0])):
            cv2.circle(image, tuple(int(v) for v in points[k].round()), 3, COLOURS[k].tolist(), -1)
    return image


def download(folder: Path, kind: str) -> dict[str, InstanceTable]:
    """A download in the official form, and its truth by file stem."""
    first = 1 if kind == "posetrack17" else 0
    tables = {}
    for n in (7, 8):
        video = f"bonn_5sec/{n:06}_bonn" if first else f"val/{n:06}_mpii_test"
        table = truth_of(video, first)
        tables[table.video] = table
        for row, name in enumerate(table.frame_names):
            place = folder / "images" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            image = cv2.cvtColor(draw(table, row), cv2.COLOR_RGB2BGR)
            cv2.imwrite(str(place), image, [cv2.IMWRITE_JPEG_QUALITY, 100])
        write = write_annolist if first else write_posetrack18
        (folder / "annotations" / "val").mkdir(parents=True, exist_ok=True)
        write(folder / "annotations" / "val" / f"{table.video}.json", table)
    return tables


def see_colours(model: PoseWarper, crops: torch.Tensor) -> torch.Tensor:
    """A pose network that knows the dots by their colours."""
    mean, std = (
        torch.tensor(v, dtype=crops.dtype).view(1, 3, 1, 1) for v in (model.spec.mean, model.spec.std)
    )
    rgb = (crops * std + mean) * 255
    colours = torch.tensor(COLOURS, dtype=crops.dtype).view(1, 17, 3, 1, 1)
    match = torch.exp(-((rgb[:, None] - colours) ** 2).sum(2) / (2 * 30**2))
    return torch.nn.functional.avg_pool2d(match, 4)


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    torch.manual_seed(0)
    spec = ModelSpec(
        "hrnet_w18_small", POSETRACK, (256, 192), 2.0, head_width=4, head_blocks=1, head_dilations=(3,)
    )
    model = PoseWarper(spec)
    model.record("warp", 1)
    save_model(tmp_path / "model.pt", model)
    return tmp_path / "model.pt"


def run(capsys, *words) -> str:
    code, stdout, stderr = command(capsys, *(str(word) for word in words))
    assert code == 0, stderr
    return stdout


def refused(capsys, *words) -> str:
    code, _, stderr = command(capsys, *(str(word) for word in words))
    assert code == 2 and "Traceback" not in stderr
    return stderr


@pytest.fixture(params=["posetrack17", "posetrack18"])
def prepared(request, tmp_path, capsys) -> tuple[Path, dict[str, InstanceTable], str]:
    tables = download(tmp_path / "download", request.param)
    run(capsys, "prepare", request.param, tmp_path / "download", "--out", tmp_path / "data")
    return tmp_path / "data", tables, request.param


@pytest.mark.parametrize("aggregate", ["none", "paper"])
def test_dots_are_found_again(prepared, checkpoint, capsys, monkeypatch, aggregate) -> None:
    data, tables, kind = prepared
    monkeypatch.setattr(PoseWarper, "heatmaps", see_colours)
    out, figures = data.parent / "out", data.parent / "figures.json"
    said = run(
        capsys, "predict", data, "--model", checkpoint, "--aggregate", aggregate, "--out", out,
        *(["--ends", "renormalise"] if aggregate == "paper" else []),
    )  # fmt: skip
    assert "12 poses on 6 frames of 2 videos" in said
    run(
        capsys, "evaluate", "--ground-truth", data / "annotations" / "val",
        "--predictions", out / "results", "--json", figures,
    )  # fmt: skip
    assert json.loads(figures.read_text())["ap"]["per_joint"]["total"] == pytest.approx(100)
    for stem, truth in tables.items():
        poses = read_posetrack18(out / "poses" / f"{stem}.json")
        assert poses.frame_names == truth.frame_names
        np.testing.assert_array_equal(poses.rows, truth.rows)
        error = np.linalg.norm(poses.keypoints - truth.keypoints, axis=-1)
        # A heatmap pixel is about 3 image pixels; what neighbours see is off by two pixels a frame.
        assert np.nanmax(error) < (3 if aggregate == "none" else 5)
        assert (poses.keypoint_scores[:, [0, 5, 16]] > 0.1).all()
    with zipfile.ZipFile(out / "submission.zip") as archive:
        assert sorted(archive.namelist()) == sorted(f"{stem}.json" for stem in tables)
        document = json.loads(archive.read(archive.namelist()[0]))
    assert ("annolist" in document) == (kind == "posetrack17")
    facts = json.loads((out / "run.json").read_text())
    assert facts["instances"] == 12 and facts["config"]["neck"] == "shoulders"
    assert len(facts["inputs"]["model"]["sha256"]) == 64


def test_boxes_of_a_detector(prepared, checkpoint, capsys, monkeypatch) -> None:
    data, tables, _ = prepared
    monkeypatch.setattr(PoseWarper, "heatmaps", see_colours)
    stem, truth = next(iter(tables.items()))
    found = [
        {"image_name": name, "bbox": truth.boxes[n].tolist(), "score": score, "category_id": category}
        for n, name, score, category in [
            (0, truth.frame_names[1], 0.5, 1),
            (1, truth.frame_names[1], 0.1, 1),  # below the threshold
            (1, truth.frame_names[1], 0.9, 2),  # no person
            (2, truth.frame_names[0], 0.9, 1),  # nobody has labelled this frame
        ]
    ]
    boxes = data.parent / "boxes.json"
    boxes.write_text(json.dumps(found))
    out = data.parent / "out"
    words = ["predict", data, "--model", checkpoint, "--boxes", boxes, "--aggregate", "none", "--out", out]
    run(capsys, *words)
    poses = read_posetrack18(out / "poses" / f"{stem}.json")
    assert poses.rows.tolist() == [1] and poses.scores.tolist() == [0.5]
    written = read_tables(out / "results")[stem]
    own = written.take(written.rows == 1)
    # The score of a point is the heatmap's maximum times the box score.
    np.testing.assert_allclose(own.keypoint_scores[0, 0], poses.keypoint_scores[0, 0] * 0.5)
    run(capsys, *words, "--all-frames", "--overwrite")
    assert read_posetrack18(out / "poses" / f"{stem}.json").rows.tolist() == [0, 1]


def test_doubles_are_removed_if_asked_for(prepared, checkpoint, capsys, monkeypatch) -> None:
    data, tables, _ = prepared
    monkeypatch.setattr(PoseWarper, "heatmaps", see_colours)
    stem, truth = next(iter(tables.items()))
    twice = [
        {"image_name": truth.frame_names[1], "bbox": (truth.boxes[0] + move).tolist(), "score": score}
        for move, score in ((0, 0.6), (1, 0.8))
    ]
    other = {"image_name": truth.frame_names[1], "bbox": truth.boxes[1].tolist(), "score": 0.7}
    boxes = data.parent / "boxes.json"
    boxes.write_text(json.dumps([*twice, other]))
    out = data.parent / "out"
    words = ["predict", data, "--model", checkpoint, "--boxes", boxes, "--aggregate", "none", "--out", out]
    run(capsys, *words)
    assert read_posetrack18(out / "poses" / f"{stem}.json").n_instances == 3
    run(capsys, *words, "--nms-oks", "0.9", "--overwrite")
    assert read_posetrack18(out / "poses" / f"{stem}.json").scores.tolist() == [0.8, 0.7]


def test_an_interrupted_run_goes_on(prepared, checkpoint, capsys, monkeypatch) -> None:
    data, _, _ = prepared
    out, whole = data.parent / "out", data.parent / "whole"
    run(capsys, "predict", data, "--model", checkpoint, "--out", whole)
    usual, calls = prediction.predict_video, []

    def stops(*values, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return usual(*values, **options)

    monkeypatch.setattr(prediction, "predict_video", stops)
    code, _, stderr = command(capsys, "predict", str(data), "--model", str(checkpoint), "--out", str(out))
    assert code == 130 and "the same command resumes" in stderr
    assert len(list((out / "poses").iterdir())) == 1
    told = refused(capsys, "predict", data, "--model", checkpoint, "--out", out, "--neck", "head_bottom")
    assert "of other settings" in told and "config.neck was shoulders, is head_bottom" in told
    said = run(capsys, "predict", data, "--model", checkpoint, "--out", out)
    assert "1 of them done before" in said and len(calls) == 3
    for path in sorted(whole.rglob("*")):
        if path.is_file() and path.name != "run.json":
            assert (out / path.relative_to(whole)).read_bytes() == path.read_bytes(), path
    told = refused(capsys, "predict", data, "--model", checkpoint, "--out", out)
    assert "run.json: this file exists already" in told
    # Killed between the results and run.json, the same command ends the run.
    (out / "run.json").unlink()
    assert "2 of them done before" in run(capsys, "predict", data, "--model", checkpoint, "--out", out)


def test_what_cannot_work_is_said_before_the_work(prepared, checkpoint, capsys, tmp_path) -> None:
    data, _, _ = prepared
    words = ["predict", data, "--model", checkpoint, "--out", tmp_path / "out"]
    assert "no videos of the split 'train'" in refused(capsys, *words, "--split", "train")
    assert "unknown setting" not in refused(capsys, *words, "--aggregate", "mean")
    strangers = tmp_path / "boxes.json"
    strangers.write_text(json.dumps([{"image_name": "other/1.jpg", "bbox": [1, 2, 3, 4], "score": 1}]))
    assert "none of the boxes is on a frame" in refused(capsys, *words, "--boxes", strangers)
    assert "not a prepared dataset" in refused(capsys, "predict", tmp_path, "--model", checkpoint)
    fresh = PoseWarper(ModelSpec("hrnet_w18_small", POSETRACK, (64, 32), 2.0, head_width=4, head_blocks=1))
    save_model(tmp_path / "fresh.pt", fresh)
    words[3] = tmp_path / "fresh.pt"
    assert "was never trained" in refused(capsys, *words)
    fly = PoseWarper(ModelSpec("hrnet_w18_small", Skeleton(("head",)), (64, 32), 2.0, head_blocks=1))
    save_model(tmp_path / "fly.pt", fly)
    words[3] = tmp_path / "fly.pt"
    assert "other keypoints than PoseTrack's" in refused(capsys, *words)
    assert not (tmp_path / "out").exists()


def test_boxes_under_the_renamed_frames_of_the_original(tmp_path, checkpoint, capsys, monkeypatch) -> None:
    """The download's frames begin at 13; the original's helper files count them from 1."""
    tables = download(tmp_path / "download", "posetrack17")
    stem, truth = next(iter(tables.items()))
    names = tuple(f"{Path(name).parent}/{int(Path(name).stem) + 12:08}.jpg" for name in truth.frame_names)
    for old, new in reversed(list(zip(truth.frame_names, names, strict=True))):
        (tmp_path / "download" / "images" / old).rename(tmp_path / "download" / "images" / new)
    moved = replace(truth, frame_names=names, frame_numbers=truth.frame_numbers + 12)
    write_annolist(tmp_path / "download" / "annotations" / "val" / f"{stem}.json", moved)
    run(capsys, "prepare", "posetrack17", tmp_path / "download", "--out", tmp_path / "data")
    boxes = tmp_path / "boxes.json"
    found = {"image_name": truth.frame_names[1], "bbox": truth.boxes[0].tolist(), "score": 0.9}
    boxes.write_text(json.dumps([found]))
    monkeypatch.setattr(PoseWarper, "heatmaps", see_colours)
    words = ["--model", checkpoint, "--boxes", boxes, "--aggregate", "none", "--out", tmp_path / "out"]
    run(capsys, "predict", tmp_path / "data", *words)
    poses = read_posetrack18(tmp_path / "out" / "poses" / f"{stem}.json")
    assert poses.frame_names == names and poses.rows.tolist() == [1]
    assert np.nanmax(np.linalg.norm(poses.keypoints[0] - truth.keypoints[0], axis=-1)) < 3


def test_missing_frames_are_told_before_the_work_or_left_out(tmp_path, checkpoint, capsys) -> None:
    tables = download(tmp_path / "download", "posetrack18")
    stem, truth = next(iter(tables.items()))
    (tmp_path / "download" / "images" / truth.frame_names[1]).unlink()
    run(capsys, "prepare", "posetrack18", tmp_path / "download", "--out", tmp_path / "data")
    words = ["predict", tmp_path / "data", "--model", checkpoint, "--aggregate", "none"]
    words += ["--out", tmp_path / "out"]
    told = refused(capsys, *words)
    assert truth.frame_names[1] in told and "--skip-missing" in told
    assert not (tmp_path / "out").exists()
    code, _, stderr = command(capsys, *(str(word) for word in words), "--skip-missing")
    assert code == 0 and "they are left out" in stderr
    assert read_posetrack18(tmp_path / "out" / "poses" / f"{stem}.json").rows.tolist() == [2, 2, 4, 4]


def test_an_output_below_a_file_is_refused(prepared, checkpoint, capsys) -> None:
    told = refused(capsys, "predict", prepared[0], "--model", checkpoint, "--out", checkpoint / "below")
    assert "this is a file, not a folder" in told
