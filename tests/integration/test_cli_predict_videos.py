"""``posewarper predict VIDEO``: tracks of a small clip, runs that go on, many videos, and what is refused."""

from __future__ import annotations

import errno
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

from posewarper.formats.labels import read_poses
from posewarper.model.checkpoint import save_model
from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.reporting import overlay
from posewarper.runs import sole_writer
from posewarper.video.source import open_video


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
        ([], "where to look for instances"),
        (["--boxes", "boxes.json", "--whole-frame"], "more than one"),
        (["--boxes", "absent.json"], "absent.json"),
        (["--whole-frame", "--split", "test"], "belongs to prepared datasets"),
        (["--whole-frame", "--aggregate", "mean"], "aggregate"),
        (["--whole-frame", "--crops", "kept"], "crops"),
        (["--detector", "yolo"], "yolo"),
        (["--detector", "default", "--detector-weights", "nothere.pth"], "nothere.pth"),
        (["--whole-frame", "--detector-weights", "nothere.pth"], "but no detector"),
        (["--whole-frame", "--frames", "5"], "first and the last"),
        (["--whole-frame", "--frames", "9-5"], "first and the last"),
        (["--whole-frame", "--frames", "5-20"], "frames from 0 to 19"),
        (["--labels", "labels.json", "--frames", "11-14"], "no labels on the frames 11 to 14"),
    ],
)
def test_what_cannot_be_done(capsys, place, model, arguments, says) -> None:
    code, _, err = command(capsys, "predict", "clip.mp4", "--model", model, *arguments, "--quiet")
    assert code == 2 and says in err and "Traceback" not in err
    assert not (place / "clip_predicted").exists()


@pytest.mark.parametrize("live", ["-", "0", "rtsp://camera/stream"])
def test_live_video_has_no_parts(capsys, place, model, live) -> None:
    how = ["--model", model, "--whole-frame", "--frames", "2-5"]
    code, _, err = command(capsys, "predict", live, *how, "--out", "o")
    assert code == 2 and "frames come once" in err and "--frames" in err and not (place / "o").exists()


def test_a_part_of_a_clip(capsys, place, model) -> None:
    code, out, err = run_on_boxes(capsys, model, "--frames", "8-17")
    assert code == 0, err
    assert "10 poses of 1 track on 10 frames" in out and "no pose" not in out
    poses = read_poses(place / "o" / "poses.json")
    assert poses.n_frames == N_FRAMES and poses.tracks[1].frames.tolist() == list(range(8, 18))
    with open_video(place / "o" / "overlay.mp4") as pictures:
        assert pictures.n_frames == 10
    facts = json.loads((place / "o" / "run.json").read_text())
    assert facts["frames"] == "8-17" and facts["config"]["frames"] == 10
    # Another part is another run.
    code, _, err = run_on_boxes(capsys, model, "--frames", "8-16")
    assert code == 2 and "holds results already" in err


def run_on_boxes(capsys, model: Path, *arguments: object) -> tuple[int, str, str]:
    where = ["--boxes", "boxes.json", "--out", "o", "--quiet"]
    return command(capsys, "predict", "clip.mp4", "--model", model, *where, *arguments)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_stopped_while_views_are_written_it_goes_on(capsys, place, model, monkeypatch) -> None:
    def fill_the_disk(*arguments: object, **more: object) -> None:
        (place / "o" / ".overlay.1.partial.mp4").touch()  # what a kill leaves
        raise OSError(errno.ENOSPC, "disk full")

    with monkeypatch.context() as patch:
        patch.setattr(overlay, "write_overlay", fill_the_disk)
        code, _, err = run_on_boxes(capsys, model)
    assert code == 1, err
    before = (place / "o" / "poses.json").read_bytes()
    code, _, err = run_on_boxes(capsys, model, "--window", "1")
    assert code == 2 and "other settings" in err
    monkeypatch.setattr(PoseWarper, "heatmaps", None)  # nothing is computed again
    code, _, err = run_on_boxes(capsys, model)
    assert code == 0, err
    assert (place / "o" / "poses.json").read_bytes() == before
    names = {"poses.json", "overlay.mp4", "sheet.jpg", "report.html", "run.json", "request.json"}
    assert set(contents(place / "o")) == names


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is locked there")
def test_two_runs_do_not_share_a_folder(capsys, place, model) -> None:
    with sole_writer("o"):
        code, _, err = run_on_boxes(capsys, model, "--overwrite")
        assert code == 2 and "another run is writing here" in err
        assert set(contents(place / "o")) == {".lock"}


def test_results_stay_until_the_input_is_known_to_be_usable(capsys, place, model, monkeypatch) -> None:
    code, _, err = run_on_boxes(capsys, model)
    assert code == 0, err
    before = contents(place / "o")
    write_some_labels(place, image_size=(200, 300))
    for where in ([], ["--labels", "labels.json"], ["--boxes", "absent.json"]):
        again = ["--out", "o", "--overwrite", "--quiet"]
        code, _, err = command(capsys, "predict", "clip.mp4", "--model", model, *where, *again)
        assert code == 2 and contents(place / "o") == before, err

    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(PoseWarper, "heatmaps", stop)
    code, _, err = run_on_boxes(capsys, model, "--overwrite")
    assert code == 130 and {path.name for path in (place / "o").iterdir()} == {"request.json", "parts"}


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
    assert code == 2 and "skipped: " in err and "broken.mp4" in err and "1 of 3 videos failed" in err
    one, other = (read_poses(place / "all" / name / "poses.json") for name in ("clip", "frames"))
    np.testing.assert_array_equal(one.tracks[1].frames, other.tracks[1].frames)
    (place / "list.csv").write_text("video,boxes\nclip.mp4,boxes.json\nframes,boxes.json\n")
    code, out, err = command(
        capsys, "predict", "list.csv", "--model", model, "--out", "all", "--quiet", "--no-overlay"
    )
    assert code == 0 and out.count("is done already") == 2
    (place / "list.csv").write_text("video,boxes\nclip.mp4,boxes.json\n")
    again = ["predict", "list.csv", "--model", model, "--out", "all", "--quiet", "--window", "1"]
    code, out, err = command(capsys, *again, "--no-overlay")
    assert code == 2 and "other settings" in err and "skipped: " in err and "is done already" not in out
    code, out, err = command(capsys, *again, "--no-overlay", "--overwrite")
    assert code == 0 and "is done already" not in out
    assert json.loads((place / "all" / "clip" / "run.json").read_text())["config"]["window"] == 1


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
    (place / "list.csv").write_text("video,labels\nframes,labels.json\n")
    code, out, _ = command(capsys, "propagate", "list.csv", *arguments)
    assert code == 0 and "is done already" in out
    code, out, err = command(capsys, "propagate", "list.csv", *arguments, "--extend")
    assert code == 2 and "holds results already" in err and "is done already" not in out
    code, out, err = command(capsys, "propagate", "list.csv", *arguments, "--overwrite")
    assert code == 0 and "is done already" not in out and "on 20 frames" in out
    code, _, err = command(capsys, "propagate", "clip.mp4", "--quiet")
    assert code == 2 and "no labels to propagate" in err
