"""``posewarper propagate`` on bad input, Ctrl-C and a full disk: one message, and nothing half-written."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from moving_clip import (
    N_FRAMES,
    SKELETON,
    TINY_FIT,
    TINY_NETWORK,
    command,
    picture,
    some_labels,
    write_clip,
    write_frames,
    write_some_labels,
)

from posewarper import fitting
from posewarper.files import sha256_of
from posewarper.formats.labels import write_labels
from posewarper.model import pretrained
from posewarper.model.checkpoint import load_model, save_model
from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.options import EFFORTS
from posewarper.propagation import clip as clip_room
from posewarper.skeletons import Skeleton
from posewarper.training import own_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def propagate(capsys, clip, tmp_path):
    """Run the command on the clip and three labels, unless told otherwise."""

    def run(*options: object, video: Path = clip, labels: Path | None = None, out: str = "out"):
        labels = labels or write_some_labels(tmp_path)
        where = ("--labels", labels, "--out", tmp_path / out, "--device", "cpu")
        return command(capsys, "propagate", video, *where, *options)

    return run


@pytest.fixture
def tiny(monkeypatch) -> None:
    """Train a network of next to nothing."""
    monkeypatch.setitem(EFFORTS, "normal", TINY_FIT)
    monkeypatch.setattr(fitting, "NetworkConfig", lambda: TINY_NETWORK)


@pytest.fixture
def refused(propagate, tmp_path):
    """Run, and expect exit code 2, one message with a fix, no traceback and no output."""

    def run(message: str, *options: object, **more) -> str:
        code, stdout, err = propagate(*options, **more)
        assert (code, stdout) == (2, ""), err
        assert message in err
        assert err.count("error: ") == 1
        assert "fix:" in err
        assert "Traceback" not in err
        assert not (tmp_path / "out").exists()
        return err

    return run


def a_model(path: Path, names: tuple[str, ...] = SKELETON.names) -> Path:
    spec = ModelSpec(
        *("hrnet_w18_small", Skeleton(names), (64, 64), 2.0),
        head_width=8,
        head_blocks=1,
        head_dilations=(1, 2),
    )
    save_model(path, PoseWarper(spec))
    return path


def changed_labels(tmp_path: Path, change) -> Path:
    path = write_some_labels(tmp_path)
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return path


def test_a_video_that_is_not_one(refused, tmp_path):
    assert "check the path" in refused("no such file", video=tmp_path / "none.mp4")
    (tmp_path / "text.mp4").write_text("this is no video\n" * 50)
    refused(str(tmp_path / "text.mp4"), video=tmp_path / "text.mp4")
    (tmp_path / "empty.mp4").write_bytes(b"")
    refused(str(tmp_path / "empty.mp4"), video=tmp_path / "empty.mp4")
    (tmp_path / "folder").mkdir()
    refused("no images", video=tmp_path / "folder")


def test_a_folder_with_frames_of_two_sizes(refused, tmp_path):
    folder = write_frames(tmp_path / "frames", 4)
    cv2.imwrite(str(folder / "img999.png"), np.zeros((10, 12, 3), np.uint8))
    refused("img999.png", video=folder)


def test_labels_that_are_none(refused, tmp_path):
    refused("no such file", labels=tmp_path / "none.json")
    for content in ("", "no labels here", "{", "[1, 2]", '{"images": []}', "\x00\x01"):
        (tmp_path / "odd.json").write_text(content)
        refused(str(tmp_path / "odd.json"), labels=tmp_path / "odd.json")
    (tmp_path / "binary.json").write_bytes(bytes(range(256)))
    refused(str(tmp_path / "binary.json"), labels=tmp_path / "binary.json")
    refused("this folder holds no labels", labels=tmp_path)


def test_labels_that_do_not_fit_the_video(refused, tmp_path):
    err = refused("beyond the last frame", labels=write_some_labels(tmp_path, (3, 20), n_frames=None))
    assert "0 to 19" in err and "frame 20" in err
    err = refused("another size", labels=write_some_labels(tmp_path, image_size=(128, 96)))
    assert "128 x 96" in err and "96 x 128" in err and "rotated" in err


def test_labels_without_a_label(refused, tmp_path):
    refused("no frame is labelled", labels=changed_labels(tmp_path, lambda d: d["annotations"].clear()))

    def unmark(document):
        for image in document["images"]:
            image["is_labeled"] = False

    refused("no frame is labelled", labels=changed_labels(tmp_path, unmark))


def test_a_track_twice_in_a_frame(refused, tmp_path):
    def repeat(document):
        document["annotations"].append({**document["annotations"][0], "id": 99})

    err = refused("twice", labels=changed_labels(tmp_path, repeat))
    assert "track 0" in err and "frame 3" in err


@pytest.mark.parametrize("names", [("nose", "tail"), ("tail", "left_paw", "right_paw", "nose")])
def test_a_model_for_another_skeleton(refused, tmp_path, names):
    err = refused("skeleton", "--model", a_model(tmp_path / "model.pt", names))
    assert ", ".join(names) in err and ", ".join(SKELETON.names) in err


def test_a_model_that_is_none(refused, tmp_path):
    refused("a checkpoint of posewarper", "--model", tmp_path / "none.pt")
    refused("cannot read", "--model", write_some_labels(tmp_path))
    refused("this folder holds no model", "--model", tmp_path)


@pytest.mark.parametrize("method", ["default", "linear"])
def test_an_unknown_effort(refused, method):
    refused("fast, normal, best", "--effort", "medium", "--method", method)


def test_other_options_that_do_not_exist(refused, propagate):
    refused("nearest, linear", "--method", "magic")
    refused("no iterations", "--method", "warper", "--effort", "fast")
    for options in (("--device", "tpu"), ("--seed", "-1"), ("--seed", "many"), ("--colour", "red")):
        code, _, err = propagate(*options)
        assert (code, "Traceback" in err) == (2, False)
        assert options[0] in err


def interrupted(*_, **__):
    raise KeyboardInterrupt


def stop_at(monkeypatch, name: str, call: int, calls: list[str] | None = None) -> None:
    """Press Ctrl-C when a batch of training is drawn for the n-th time."""
    usual, calls = getattr(own_clip, name), [] if calls is None else calls

    def draw(*arguments):
        calls.append(name)
        if len(calls) == call:
            raise KeyboardInterrupt
        return usual(*arguments)

    monkeypatch.setattr(own_clip, name, draw)


@pytest.mark.parametrize(
    ("batch", "call", "trained", "stopped"),
    [
        ("pose_batch", 2, {"pose": 1}, "iteration 1 of 3 (training the pose network)"),
        ("pose_batch", 5, {"pose": 4}, "iteration 1 of 2 (training on propagated poses)"),
        ("pair_batch", 2, {"pose": 5, "warp": 1}, "iteration 1 of 2 (training the warper)"),
    ],
)
def test_ctrl_c_in_training_keeps_the_model_and_the_run_goes_on(
    propagate, tiny, tmp_path, monkeypatch, capsys, batch, call, trained, stopped
):
    monkeypatch.setitem(EFFORTS, "normal", TINY_FIT.model_copy(update={"pseudo_iterations": 2}))
    out, whole = tmp_path / "out", tmp_path / "whole"
    assert propagate(out=whole)[0] == 0
    with pytest.MonkeyPatch.context() as pressed:
        stop_at(pressed, batch, call)
        code, stdout, err = propagate()
    assert code == 130
    assert "Traceback" not in err
    assert f"kept in {out / 'model.pt'}; the same command resumes there" in err
    # Once the poses stand they are written, whatever becomes of the training for new videos.
    stand = trained != {"pose": 1}
    assert ("training goes on" in stdout, "the poses stand" in err) == (stand, stand)
    written = {"poses.json", "overlay.mp4", "sheet.jpg", "report.html"} if stand else set()
    assert set(os.listdir(out)) == written | {"model.pt", "parts", "request.json"}
    assert load_model(out / "model.pt").spec.trained == trained
    # The model says that it is not finished, wherever it is used.
    code, said, _ = command(capsys, "info", out / "model.pt")
    assert code == 0 and f"stopped at {stopped}" in " ".join(said.split())
    code, _, err = propagate("--model", out / "model.pt", out=tmp_path / "other")
    assert code == 0 and f"warning: the training of this model was stopped at {stopped}" in err
    assert stopped in (tmp_path / "other" / "report.html").read_text()
    how = (
        "--model",
        out / "model.pt",
        "--whole-frame",
        "--aggregate",
        "none",
        "--out",
        tmp_path / "predicted",
    )
    code, _, err = command(capsys, "predict", write_clip(tmp_path), *how)
    assert code == 0 and f"stopped at {stopped}" in err
    # It resumes exactly, and neither flow nor iterations are computed twice.
    monkeypatch.setattr(clip_room, "carry_labels", None)
    with pytest.MonkeyPatch.context() as counted:
        stop_at(counted, batch, 99, calls := [])
        code, _, err = propagate("--resume", "--overwrite")
        assert code == 2 and "exclude each other" in err
        assert propagate("--resume")[0] == 0
        code, _, err = propagate("--resume")
        assert code == 2 and "no stopped run to resume" in err
    assert len(calls) == {("pose_batch", 2): 4, ("pose_batch", 5): 1, ("pair_batch", 2): 1}[batch, call]
    for name in ("model.pt", "poses.json"):
        assert sha256_of(out / name) == sha256_of(whole / name), name
    assert "parts" not in os.listdir(out)
    assert not load_model(out / "model.pt").spec.stopped


def test_flow_of_other_labels_is_not_taken(propagate, tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "propagate_clip", interrupted)
    assert propagate("--effort", "fast")[0] == 130
    assert set(os.listdir(tmp_path / "out" / "parts")) == {"flow.npz", "flow.bin", "request.json"}
    kept = {"parts": tmp_path / "out" / "parts", "device": "cpu"}
    monkeypatch.setattr(clip_room, "carry_labels", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fitting.propagate(write_clip(tmp_path), some_labels((3, 12)), effort="fast", **kept)
    assert not os.listdir(tmp_path / "out" / "parts")


def test_ctrl_c_before_training_leaves_nothing(propagate, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "prepare_clip", interrupted)
    code, _, err = propagate()
    assert (code, "Traceback" in err, "interrupted" in err) == (130, False, True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name", ["poses.json", "overlay.mp4", "sheet.jpg", "report.html", "run.json", "model.pt"]
)
def test_a_full_disk(propagate, tiny, tmp_path, monkeypatch, name):
    usual = os.replace

    def replace(source, target):
        if Path(target).name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source))
        usual(source, target)

    monkeypatch.setattr(os, "replace", replace)
    code, _, err = propagate(*(() if name == "model.pt" else ("--method", "nearest")))
    assert code == 1
    assert os.strerror(errno.ENOSPC) in err
    assert (err.count("error: "), "Traceback" in err) == (1, False)
    order = ["poses.json", "overlay.mp4", "sheet.jpg", "report.html", "run.json"]
    whole = set(order[: order.index(name)]) if name in order else set()
    if whole:
        assert set(os.listdir(tmp_path / "out")) == whole | {"request.json"}
    elif name == "model.pt":
        assert set(os.listdir(tmp_path / "out")) == {"parts", "request.json"}
    else:
        assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    assert propagate("--method", "nearest", "--overwrite")[0] == 0


def test_labels_of_a_video_among_others(refused, tmp_path):
    """Two videos in one file: the one with this video's name is taken, and none of that name is refused."""
    first, second = some_labels((3,), video="other"), some_labels((5,), video="another")
    write_labels(tmp_path / "a.json", first)
    write_labels(tmp_path / "b.json", second)
    one, two = (json.loads((tmp_path / n).read_text()) for n in ("a.json", "b.json"))
    for image in two["images"]:
        image["id"] += 1000
    for entry in two["annotations"]:
        entry["id"], entry["image_id"] = entry["id"] + 1000, entry["image_id"] + 1000
    both = {**one, "images": one["images"] + two["images"]}
    both["annotations"] = one["annotations"] + two["annotations"]
    (tmp_path / "both.json").write_text(json.dumps(both))
    err = refused("labels of 2 videos", labels=tmp_path / "both.json")
    assert "clip.mp4" in err


def test_the_picture_is_what_the_clip_shows(clip):
    """The synthetic clip itself: the patch moves by (2, 1) pixels a frame."""
    first, second = picture(3), picture(4)
    assert np.array_equal(first[25:55, 22:60], second[26:56, 24:62])
    assert not np.array_equal(first, second)


def test_weights_to_start_from_that_are_no_use_are_refused(refused, tmp_path, monkeypatch, capsys) -> None:
    absent = tmp_path / "absent.pth"
    for options in (("--effort", "fast"), ("--method", "linear"), ("--model", a_model(tmp_path / "m.pt"))):
        err = refused("no network is trained", "--backbone-weights", absent, *options)
        assert "optical flow" not in err
    assert "optical flow" not in refused("expected: weights of the backbone", "--backbone-weights", absent)

    def fails(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(pretrained, "hf_hub_download", fails)
    monkeypatch.setattr(pretrained, "try_to_load_from_cache", lambda *_, **__: None)
    err = refused("cannot be downloaded", "--backbone-weights", "imagenet")
    assert "optical flow" not in err and "https://huggingface.co/timm/" in err
    where = (
        "--labels",
        write_some_labels(tmp_path, range(N_FRAMES)),
        "--every",
        5,
        "--backbone-weights",
        "imagenet",
    )
    code, _, err = command(capsys, "benchmark", write_clip(tmp_path), *where, "--effort", "fast")
    assert code == 2 and "no network is trained" in err
