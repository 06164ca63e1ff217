"""``posewarper label`` as it is started: what it says, what it refuses, and what a kill leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from label_page import ADDRESS, Page
from moving_clip import command, write_clip, write_some_labels

from posewarper.formats.labels import read_labels


@pytest.fixture
def pages():
    started: list[Page] = []
    yield lambda *arguments: started.append(Page(*arguments)) or started[-1]
    for page in started:
        page.process.kill()
        page.process.communicate()


def place(frame: int, x: float):
    return {"op": "place", "track": 0, "frame": frame, "keypoint": 0, "xy": [x, 5]}


def test_it_says_its_address_and_ends_by_ctrl_c(pages, tmp_path):
    page = pages(write_clip(tmp_path), "--out", tmp_path / "out", "--skeleton", "coco")
    told = page.read("/api/session")
    assert told["n_frames"] == 20 and told["skeleton"]["names"][0] == "nose"
    assert page.ask("/").read().startswith(b"<!doctype html>")
    page.edit(place(4, 3.5))
    code, err = page.end(signal.SIGINT)
    assert code == 0 and "Traceback" not in err
    assert "labels.json" in err and (tmp_path / "out" / "label" / "labels.json").is_file()


def test_the_frame_to_begin_on_is_in_the_address(pages, tmp_path, capsys):
    clip = write_clip(tmp_path)
    page = pages(clip, "--out", tmp_path / "out", "--skeleton", "coco", "--frame", "19")
    assert page.address.endswith("&frame=19")
    page.end(signal.SIGTERM)
    code, out, err = command(
        capsys, "label", clip, "--out", tmp_path / "other", "--frame", "20", "--no-browser"
    )
    assert (code, out) == (2, "")
    assert "the clip does not have this frame" in err and "--frame from 0 to 19" in err


def test_after_a_kill_all_is_there(pages, tmp_path):
    clip, labels = write_clip(tmp_path), write_some_labels(tmp_path)
    page = pages(clip, "--out", tmp_path / "out", "--labels", labels)
    for frame in range(5, 9):
        page.edit(place(frame, 10 + frame))
    page.edit({"op": "undo"})
    page.end(signal.SIGKILL)
    again = pages(clip, "--out", tmp_path / "out")
    told = again.read("/api/session")
    assert told["labelled"] == [3, 5, 6, 7, 10, 16]
    assert told["redo"] == "place nose on frame 8"
    again.edit({"op": "redo"})
    again.end(signal.SIGTERM)
    written = json.loads((tmp_path / "out" / "label" / "labels.json").read_text())
    assert [i["frame_id"] for i in written["images"]] == [3, 5, 6, 7, 8, 10, 16]


def test_two_pages_on_one_folder(pages, tmp_path, capsys):
    clip = write_clip(tmp_path)
    pages(clip, "--out", tmp_path / "out")
    code, out, err = command(capsys, "label", clip, "--out", tmp_path / "out", "--no-browser")
    assert code == 2 and out == ""
    assert "another page is labelling in this folder" in err


def test_a_run_from_the_page_is_that_of_the_command_line(pages, tmp_path, capsys):
    clip, labels = write_clip(tmp_path), write_some_labels(tmp_path)
    out = tmp_path / "out"
    page = pages(clip, "--out", out, "--labels", labels)
    page.edit(place(5, 30.25))
    assert page.read("/api/run", {"effort": "fast"})["state"] == "running"
    stages = set()
    for line in page.ask("/api/events"):
        text = line.decode()
        if text.startswith("data: "):
            told = json.loads(text[6:])
            told = told.get("run", told)
            stages.add(told.get("stage"))
            if told.get("state") in ("done", "failed"):
                break
    assert told["state"] == "done", told
    assert {"optical flow", "propagating (default)", "overlay"} <= stages
    assert page.read("/api/session")["has_poses"]
    code, _, _ = command(
        capsys, "propagate", clip, "--labels", out / "label" / "labels.json", "--effort", "fast", "--out",
        tmp_path / "line", "--quiet",
    )  # fmt: skip
    assert code == 0
    assert (out / "poses.json").read_bytes() == (tmp_path / "line" / "poses.json").read_bytes()
    # Going again with another label takes the place of the results, and of nothing else.
    page.edit(place(12, 44))
    assert page.read("/api/run", {"effort": "fast"})["state"] == "running"
    with pytest.raises(urllib.error.HTTPError, match="422"):
        page.read("/api/run", {"effort": "fast"})
    page.read("/api/cancel", {})
    page.end(signal.SIGTERM)
    assert (out / "label" / "edits.jsonl").is_file()


def test_a_run_ends_with_the_page_that_started_it(pages, tmp_path):
    clip, labels = write_clip(tmp_path), write_some_labels(tmp_path)
    page = pages(clip, "--out", tmp_path / "out", "--labels", labels)
    page.read("/api/run", {"effort": "best"})
    page.end(signal.SIGKILL)
    again = pages(clip, "--out", tmp_path / "out")
    again.read("/api/run", {"effort": "fast"})
    for line in again.ask("/api/events"):
        if line.startswith(b"data: "):
            told = json.loads(line[6:])
            told = told.get("run", told)
            if told.get("state") in ("done", "failed"):
                break
    # The first run may take a moment to notice; then the folder is free.
    assert told["state"] == "done" or "another run is writing here" in told["said"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--skeleton", "no_such"], "unknown skeleton"),
        (["--labels", "nowhere.json"], "there is no such file"),
        (["--port", "99999"], "65535"),
    ],
)
def test_bad_input_is_refused_in_words(tmp_path, capsys, arguments, said):
    code, out, err = command(
        capsys, "label", write_clip(tmp_path), "--out", tmp_path / "out", "--no-browser", *arguments
    )
    assert code == 2 and out == "" and said in err
    assert not (tmp_path / "out").exists()


def test_a_skeleton_comes_from_a_file(pages, tmp_path, capsys):
    own = tmp_path / "bones.json"
    own.write_text(json.dumps({"names": ["head", "tail"], "edges": [["head", "tail"]]}))
    page = pages(write_clip(tmp_path), "--out", tmp_path / "out", "--skeleton", own)
    assert page.read("/api/session")["skeleton"]["edges"] == [[0, 1]]
    labels = write_some_labels(tmp_path)
    other = pages(tmp_path / "clip.mp4", "--out", tmp_path / "other", "--skeleton", labels)
    assert other.read("/api/session")["skeleton"]["names"][-1] == "tail"
    own.write_text('{"names": []}')
    code, _, err = command(capsys, "label", tmp_path / "clip.mp4", "--skeleton", own, "--no-browser")
    assert code == 2 and "no keypoints" in err


@pytest.mark.parametrize(
    ("bones", "said"),
    [
        ({"names": [["a"]]}, "the name of a keypoint is a text"),
        ({"names": ["a", "b"], "edges": [[0, 0.5]]}, "indices from 0, or names"),
        ({"names": ["a", "b"], "edges": [[0, 5]]}, "indices from 0 to 1"),
        ({"names": [f"k{n}" for n in range(1001)]}, "1 to 1000 keypoints"),
        ({"names": ["k" * 201]}, "at most 200 letters"),
    ],
)
def test_a_wrong_skeleton_is_refused_with_the_name_of_its_file(tmp_path, capsys, bones, said):
    own = tmp_path / "bones.json"
    own.write_text(json.dumps(bones))
    words = ("label", write_clip(tmp_path), "--out", tmp_path / "out", "--skeleton", own, "--no-browser")
    code, _, err = command(capsys, *words)
    assert code == 2 and err.startswith(f"error: {own}: ") and said in err and "--debug" not in err
    assert not (tmp_path / "out").exists()


def test_labels_are_read_as_the_other_commands_read_them(pages, tmp_path, capsys):
    labels = write_some_labels(tmp_path, video="elsewhere")
    document = json.loads(labels.read_text())
    document["annotations"][0]["keypoints"][-3:] = [0, 0, 0]
    labels.write_text(json.dumps(document))
    clip, out = write_clip(tmp_path), tmp_path / "out"
    words = ("label", clip, "--labels", labels, "--out", out, "--no-browser")
    code, _, err = command(capsys, *words, "--labels-of", "nowhere")
    assert code == 2 and "nowhere" in err and not out.exists()
    page = pages(*words[1:-1], "--labels-of", "elsewhere", "--unlabelled", "absent")
    page.end(signal.SIGTERM)
    track = read_labels(out / "label" / "labels.json").tracks[0]
    assert track.labelled.all() and track.visibility[0].tolist() == [2, 2, 2, 0]


def test_it_has_no_need_of_a_terminal_or_a_browser(tmp_path):
    """As over SSH or in a container; the address is printed at once even into a pipe."""
    words = [
        sys.executable,
        "-m",
        "posewarper",
        "label",
        str(write_clip(tmp_path)),
        "--out",
        str(tmp_path / "o"),
    ]
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "BROWSER")}
    environment["PATH"] = str(Path(sys.executable).parent)
    process = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env=environment,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert ADDRESS.fullmatch(process.stdout.readline())
    finally:
        process.terminate()
        process.communicate(timeout=30)
