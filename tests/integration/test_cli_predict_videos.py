"""``posewarper predict VIDEO``: tracks of a small clip, runs that go on, many videos, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from moving_clip import (
    N_FRAMES,
    SKELETON,
    command,
    true_keypoints,
    write_clip,
    write_frames,
    write_some_labels,
)

from posewarper.io.labels import read_poses
from posewarper.model.checkpoint import save_model
from posewarper.model.network import ModelSpec, PoseWarper


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A model that was not trained, whose heatmaps are high enough to begin tracks."""
    torch.manual_seed(0)
    spec = ModelSpec(
        "hrnet_w18_small", SKELETON, (64, 64), 1.0, head_width=4, head_blocks=1, head_dilations=(1, 2),
        trained={"pose": 1, "warp": 1}, targets="exact",
    )  # fmt: skip
    made = PoseWarper(spec)
    torch.nn.init.constant_(made.final_layer.bias, 0.9)
    path = tmp_path_factory.mktemp("model") / "model.pt"
    save_model(path, made)
    return path


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    write_clip(tmp_path)
    write_some_labels(tmp_path)
    boxes = [
        {"frame": n, "bbox": [*(true_keypoints([n])[0].min(0) - 4), 44, 36], "score": 0.9}
        for n in range(N_FRAMES)
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("where", [["--boxes", "boxes.json"], ["--labels", "labels.json"], ["--whole-frame"]])
def test_a_video(capsys, place, model, where) -> None:
    code, out, err = command(capsys, "predict", "clip.mp4", "--model", model, *where, "--quiet")
    assert code == 0, err
    poses = read_poses(place / "clip_predicted" / "poses.json")
    assert poses.n_frames == N_FRAMES
    if where[0] == "--boxes":  # what a network that has learned nothing says cannot be followed
        assert list(poses.tracks) == [1] and len(poses.tracks[1].frames) == N_FRAMES
    assert sum(len(track.frames) for track in poses.tracks.values()) >= N_FRAMES - 4
    names = {path.name for path in (place / "clip_predicted").iterdir()}
    assert {"poses.json", "overlay.mp4", "sheet.jpg", "report.html", "run.json", "request.json"} == names
    facts = json.loads((place / "clip_predicted" / "run.json").read_text())
    assert facts["config"]["reused"] == 0 and facts["config"]["frames"] == N_FRAMES
    assert f"on {N_FRAMES} frames" in out
    code, _, err = command(capsys, "predict", "clip.mp4", "--model", model, *where, "--quiet")
    assert code == 2 and "holds results already" in err


def test_held_crops_and_no_overlay(capsys, place, model) -> None:
    arguments = ["predict", "clip.mp4", "--model", model, "--boxes", "boxes.json", "--crops", "held"]
    code, out, err = command(capsys, *arguments, "--hold", "0.3", "--no-overlay", "--out", "o", "--quiet")
    assert code == 0, err
    assert "crops were held" in out and not (place / "o" / "overlay.mp4").exists()
    facts = json.loads((place / "o" / "run.json").read_text())
    assert facts["config"]["reused"] > 0.5 and len(facts["config"]["held_error"]) == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "where are the instances"),
        (["--boxes", "boxes.json", "--whole-frame"], "more than one"),
        (["--boxes", "absent.json"], "absent.json"),
        (["--whole-frame", "--split", "test"], "belongs to prepared datasets"),
        (["--whole-frame", "--aggregate", "mean"], "aggregate"),
        (["--whole-frame", "--crops", "kept"], "crops"),
        (["--detector", "yolo"], "yolo"),
    ],
)
def test_what_cannot_be_done(capsys, place, model, arguments, says) -> None:
    code, _, err = command(capsys, "predict", "clip.mp4", "--model", model, *arguments, "--quiet")
    assert code == 2 and says in err and "Traceback" not in err
    assert not (place / "clip_predicted" / "poses.json").exists()


def test_an_exported_model_predicts_the_same(capsys, place, model) -> None:
    pytest.importorskip("onnxruntime")
    code, _, err = command(capsys, "export", model, "model.onnx", "--quiet")
    assert code == 0, err
    where = ["--boxes", "boxes.json", "--precision", "float32", "--no-overlay", "--quiet"]
    found = []
    for name in (model, "model.onnx"):
        code, _, err = command(
            capsys, "predict", "clip.mp4", "--model", name, *where, "--out", Path(name).suffix[1:]
        )
        assert code == 0, err
        found.append(read_poses(place / Path(name).suffix[1:] / "poses.json").tracks[1])
    np.testing.assert_array_equal(found[0].frames, found[1].frames)
    apart = np.linalg.norm(found[0].keypoints - found[1].keypoints, axis=-1)
    assert np.quantile(apart, 0.95) < 0.1  # of heatmaps without a peak, two pixels may be equally high


def test_frames_from_a_pipe(place, model) -> None:
    stream = place / "stream.mkv"
    stream.write_bytes(b"")
    import av

    with av.open("clip.mp4") as source, av.open(str(stream), "w") as target:
        taken = source.streams.video[0]
        copy = target.add_stream_from_template(taken)
        for packet in source.demux(taken):
            if packet.dts is not None:
                packet.stream = copy
                target.mux(packet)
    arguments = [
        sys.executable,
        "-m",
        "posewarper",
        "predict",
        "-",
        "--model",
        str(model),
        "--boxes",
        "boxes.json",
    ]
    with stream.open("rb") as frames:
        done = subprocess.run(
            [*arguments, "--causal", "--quiet"], stdin=frames, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    poses = read_poses(place / "live_predicted" / "poses.json")
    assert poses.n_frames == N_FRAMES and len(poses.tracks[1].frames) == N_FRAMES


def test_many_videos_one_of_which_is_none(capsys, place, model) -> None:
    write_frames(place / "frames")
    (place / "broken.mp4").write_bytes(b"no video")
    (place / "list.csv").write_text(
        "video,boxes\nclip.mp4,boxes.json\nbroken.mp4,boxes.json\nframes,boxes.json\n"
    )
    code, out, err = command(
        capsys, "predict", "list.csv", "--model", model, "--out", "all", "--quiet", "--no-overlay"
    )
    assert code == 2 and "left out: " in err and "broken.mp4" in err and "1 of 3 videos failed" in err
    one, other = (read_poses(place / "all" / name / "poses.json") for name in ("clip", "frames"))
    np.testing.assert_array_equal(one.tracks[1].frames, other.tracks[1].frames)
    (place / "list.csv").write_text("video,boxes\nclip.mp4,boxes.json\nframes,boxes.json\n")
    code, out, err = command(
        capsys, "predict", "list.csv", "--model", model, "--out", "all", "--quiet", "--no-overlay"
    )
    assert code == 0 and out.count("done before") == 2


def test_processes_share_a_list(capsys, place, model, monkeypatch) -> None:
    write_frames(place / "frames")
    (place / "list.txt").write_text("clip.mp4\nframes\n")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, name in enumerate(("clip", "frames")):
        monkeypatch.setenv("RANK", str(rank))
        arguments = ["--boxes", "boxes.json", "--out", "all", "--quiet", "--no-overlay"]
        code, out, err = command(capsys, "predict", "list.txt", "--model", model, *arguments)
        assert code == 0, err
        assert "[1/1]" in out and (place / "all" / name / "poses.json").is_file()
    assert len(list((place / "all").iterdir())) == 2


def test_propagate_over_a_list(capsys, place) -> None:
    write_frames(place / "frames")
    (place / "list.csv").write_text(
        "video,labels\nclip.mp4,labels.json\nabsent.mp4,labels.json\nframes,labels.json\n"
    )
    arguments = ["--effort", "fast", "--out", "all", "--quiet"]
    code, _, err = command(capsys, "propagate", "list.csv", *arguments)
    assert code == 2 and "absent.mp4" in err and "1 of 3 videos failed" in err
    for name in ("clip", "frames"):
        assert len(read_poses(place / "all" / name / "poses.json").tracks[0].frames) == N_FRAMES
    code, _, err = command(capsys, "propagate", "clip.mp4", "--quiet")
    assert code == 2 and "no labels to propagate" in err
