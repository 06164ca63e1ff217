"""``posewarper propagate`` as a user runs it: what it writes, keeps, warns of and says."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from moving_clip import (
    HEIGHT,
    N_FRAMES,
    SKELETON,
    TINY_FIT,
    TINY_NETWORK,
    WIDTH,
    command,
    some_labels,
    true_keypoints,
    write_clip,
    write_frames,
    write_some_labels,
)

from posewarper import __version__, fitting
from posewarper.cli.propagate import plan
from posewarper.errors import PosewarperWarning
from posewarper.formats.labels import read_labels, read_poses, write_labels
from posewarper.model.checkpoint import load_model, parameters_sha256
from posewarper.motion import flow
from posewarper.options import EFFORTS
from posewarper.structures import Labels, Track
from posewarper.video.images import read_image
from posewarper.video.source import open_video

RESULTS = {"poses.json", "overlay.mp4", "sheet.jpg", "report.html", "run.json", "request.json"}


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


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run_json(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def test_every_frame_gets_a_pose_and_labels_are_kept_to_the_bit(propagate, clip, tmp_path):
    code, stdout, stderr = propagate("--effort", "fast", "--seed", 3)
    out, labels = tmp_path / "out", tmp_path / "labels.json"
    assert (code, set(os.listdir(out))) == (0, RESULTS)
    assert "3 labelled frames -> 20 poses of 1 track on 20 frames" in stdout
    assert "optical flow" in stderr
    document = json.loads((out / "poses.json").read_text())
    assert [image["frame_id"] for image in document["images"]] == list(range(N_FRAMES))
    assert {(image["height"], image["width"]) for image in document["images"]} == {(HEIGHT, WIDTH)}
    assert [image["frame_id"] for image in document["images"] if image["is_labeled"]] == [3, 10, 16]
    assert len(document["annotations"]) == N_FRAMES
    for entry in document["annotations"]:
        assert 0 < entry["score"] <= 1
        assert len(entry["scores"]) == 4
    # Read back as labels they are the labels, and all frames lie where the patch was.
    given, kept = read_labels(labels), read_labels(out / "poses.json")
    np.testing.assert_array_equal(kept.tracks[0].keypoints, given.tracks[0].keypoints)
    assert kept.skeleton == SKELETON
    dense = read_poses(out / "poses.json").dense()[:, 0]
    assert np.linalg.norm(dense - true_keypoints(range(N_FRAMES)), axis=-1).max() < 1.5
    with open_video(out / "overlay.mp4") as overlay, open_video(clip) as plain:
        assert (overlay.n_frames, overlay.image_size) == (N_FRAMES, (HEIGHT, WIDTH))
        assert np.abs(overlay[5].astype(int) - plain[5]).max() > 60
    assert read_image(out / "sheet.jpg").std() > 0
    assert "3 labelled frames gave" in (out / "report.html").read_text()
    report = run_json(out)
    assert report["inputs"]["video"] == {"path": str(clip), "sha256": digest(clip)}
    assert report["inputs"]["labels"] == {"path": str(labels), "sha256": digest(labels)}
    assert report["inputs"]["model"] is None
    assert (report["posewarper"], report["method"], report["effort"]) == (__version__, "default", "fast")
    assert (report["seed"], report["device"], report["notes"]) == (3, "cpu", [])
    assert report["labelled_frames"] == [3, 10, 16]
    assert report["tracks"] == {"0": {"frames": N_FRAMES}}
    assert report["config"]["extend"] is False
    assert report["config"]["pose_iterations"] == 0
    assert set(report["seconds"]) == {"optical flow", "propagation", "first_result", "total"}
    assert report["seconds"]["total"] >= report["seconds"]["optical flow"]
    assert report["threads"] >= 1
    assert {"python", "torch"} <= set(report["versions"])


def test_a_trained_run_repeats_itself_byte_by_byte(propagate, tiny, tmp_path):
    for out, seed in (("one", 4), ("two", 4), ("three", 5)):
        assert propagate("--seed", seed, out=out)[0] == 0
    one, two, three = (tmp_path / out for out in ("one", "two", "three"))
    assert set(os.listdir(one)) == RESULTS | {"model.pt"}
    for name in ("poses.json", "overlay.mp4", "sheet.jpg", "model.pt"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    assert digest(one / "model.pt") != digest(three / "model.pt")
    model = load_model(one / "model.pt")
    assert model.spec.trained == {"pose": 4, "warp": 2}
    assert model.spec.provenance["seed"] == 4
    report = run_json(one)
    assert report["config"]["pose_iterations"] == 3
    assert "training" in report["seconds"]


def test_a_model_is_trained_further_in_another_folder(propagate, tiny, tmp_path):
    assert propagate("--no-keep-training", out="one")[0] == 0
    model = tmp_path / "one" / "model.pt"
    before = digest(model)
    assert propagate("--model", model, "--learn", "--no-keep-training", out="two")[0] == 0
    learned = load_model(tmp_path / "two" / "model.pt")
    assert learned.spec.trained == {"pose": load_model(model).spec.trained["pose"] + 1}
    assert digest(model) == before
    facts = run_json(tmp_path / "two")
    assert facts["inputs"]["model"]["sha256"] == before and "training" in facts["seconds"]
    code, _, err = propagate("--model", model, "--learn", "--overwrite", out="one")
    assert code == 2 and "--out" in err and digest(model) == before
    code, _, err = propagate("--learn", out="three")
    assert code == 2 and "--model" in err


def test_a_model_may_be_used_again_and_stays_as_it_is(propagate, tiny, tmp_path):
    assert propagate(out="one")[0] == 0
    model = tmp_path / "one" / "model.pt"
    before = digest(model)
    code, _, _ = propagate("--model", model, out="two")
    assert (code, set(os.listdir(tmp_path / "two"))) == (0, RESULTS)
    assert run_json(tmp_path / "two")["inputs"]["model"] == {"path": str(model), "sha256": before}
    # The folder that the model lies in holds other results too: those must be allowed to go, the model stays.
    assert propagate("--model", model, out="one")[0] == 2
    assert propagate("--model", model, "--overwrite", out="one")[0] == 0
    assert (set(os.listdir(tmp_path / "one")), digest(model)) == (RESULTS | {"model.pt"}, before)
    assert parameters_sha256(load_model(model))


def test_extend_fills_the_clip(propagate, tmp_path):
    labels = write_some_labels(tmp_path, (8, 11))
    assert propagate("--method", "linear", labels=labels, out="short")[0] == 0
    assert propagate("--method", "linear", "--extend", labels=labels, out="long")[0] == 0
    short, long = (read_poses(tmp_path / out / "poses.json") for out in ("short", "long"))
    assert short.tracks[0].frames.tolist() == list(range(5, 15))
    assert long.tracks[0].frames.tolist() == list(range(N_FRAMES))
    assert short.n_frames == long.n_frames == N_FRAMES
    assert run_json(tmp_path / "long")["config"]["extend"] is True


def test_a_folder_of_frames_with_labels_by_file_name(propagate, tmp_path):
    frames = write_frames(tmp_path / "frames")
    names = {3: "img016.png", 10: "img030.png", 16: "img042.png"}
    labels = some_labels(frame_names=names, n_frames=None)
    with pytest.warns(PosewarperWarning, match="read it with the folder of frames"):
        write_labels(tmp_path / "by_name.json", labels, format="coco")
    assert "frame_id" not in (tmp_path / "by_name.json").read_text()
    code, _, _ = propagate("--effort", "fast", video=frames, labels=tmp_path / "by_name.json")
    assert code == 0
    document = json.loads((tmp_path / "out" / "poses.json").read_text())
    names = {image["frame_id"]: Path(image["file_name"]).name for image in document["images"]}
    assert names == {n: f"img{10 + 2 * n:03}.png" for n in range(N_FRAMES)}
    assert [image["frame_id"] for image in document["images"] if image["is_labeled"]] == [3, 10, 16]
    dense = read_poses(tmp_path / "out" / "poses.json").dense()[:, 0]
    assert np.linalg.norm(dense - true_keypoints(range(N_FRAMES)), axis=-1).max() < 1.5
    assert len(run_json(tmp_path / "out")["inputs"]["video"]["sha256"]) == 64


def test_the_results_lie_beside_you_if_no_folder_is_named(capsys, clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labels = write_some_labels(tmp_path)
    code, out, _ = command(capsys, "propagate", clip, "--labels", labels, "--method", "nearest", "--quiet")
    assert code == 0
    assert set(os.listdir(tmp_path / "clip_poses")) == RESULTS
    assert "clip_poses" in out


def test_quiet_shows_warnings_alone(propagate, tmp_path):
    assert propagate("--method", "linear", "--quiet")[2] == ""
    code, _, err = propagate("--method", "flow", "--quiet", labels=write_some_labels(tmp_path, (4,)), out="b")
    assert code == 0
    assert err.startswith("warning: only frame 4 is labelled")
    assert err.count("warning") == 1


def odd_labels(tmp_path: Path, change) -> Path:
    """Labels after ``change`` to keypoints (3, 4, 2) and visibility (3, 4)."""
    track = some_labels().tracks[0]
    keypoints, visibility = np.array(track.keypoints), np.array(track.visibility)
    change(keypoints, visibility)
    odd = {0: Track(track.frames, keypoints, visibility=visibility)}
    labels = Labels(SKELETON, odd, image_size=(HEIGHT, WIDTH), n_frames=N_FRAMES, video="clip")
    write_labels(tmp_path / "odd.json", labels)
    return tmp_path / "odd.json"


def test_keypoints_outside_of_the_image_are_warned_of_and_kept(propagate, tmp_path):
    def move(keypoints, visibility):
        keypoints[1, 3] = (WIDTH + 7.25, 40.5)

    code, _, err = propagate("--effort", "fast", labels=odd_labels(tmp_path, move))
    assert code == 0
    assert "1 labelled keypoints lie outside of the image" in err
    dense = read_poses(tmp_path / "out" / "poses.json").dense()[:, 0]
    assert dense[10, 3].tolist() == [WIDTH + 7.25, 40.5]
    off = np.linalg.norm(dense - true_keypoints(range(N_FRAMES)), axis=-1)
    assert off[:, :3].max() < 1.5
    assert np.isfinite(dense).all()


def test_keypoints_that_are_never_labelled_are_reported_and_stay_empty(propagate, tmp_path):
    def hide(keypoints, visibility):
        visibility[:, 2] = 0

    code, _, err = propagate("--effort", "fast", labels=odd_labels(tmp_path, hide))
    assert code == 0
    assert "right_paw" in err
    dense = read_poses(tmp_path / "out" / "poses.json").dense()[:, 0]
    assert np.isnan(dense[:, 2]).all()
    assert np.isfinite(dense[:, [0, 1, 3]]).all()
    assert any("right_paw" in note for note in run_json(tmp_path / "out")["notes"])


def test_a_keypoint_without_a_label_in_one_frame_is_predicted_there_or_absent(propagate, tmp_path):
    def hide(keypoints, visibility):
        keypoints[1, 1], visibility[1, 1] = np.nan, 0
        visibility[2, 0] = 1

    labels = odd_labels(tmp_path, hide)
    for reading, without in (("unknown", []), ("absent", [[10, 1]])):
        code, _, err = propagate(
            "--effort", "fast", "--unlabelled", reading, "--overwrite", labels=labels, out=reading
        )
        assert (code, "warning" in err) == (0, False)
        poses = read_poses(tmp_path / reading / "poses.json")
        missing = np.isnan(poses.dense()[:, 0]).any(-1)
        assert np.argwhere(missing).tolist() == without
        assert poses.tracks[0].visibility[16].tolist() == [1, 2, 2, 2]
        off = np.linalg.norm(poses.dense()[:, 0] - true_keypoints(range(N_FRAMES)), axis=-1)
        assert np.nanmax(off) < 1.5
    assert not read_poses(tmp_path / "unknown" / "poses.json").tracks[0].labelled[10, 1]


def test_two_tracks_come_out_as_two(propagate, tmp_path):
    one = some_labels().tracks[0]
    other = Track(one.frames[1:], one.keypoints[1:] + np.array([3.0, 5.0]), visibility=one.visibility[1:])
    labels = Labels(SKELETON, {2: one, 7: other}, image_size=(HEIGHT, WIDTH), video="clip")
    write_labels(tmp_path / "two.json", labels)
    code, stdout, _ = propagate("--effort", "fast", labels=tmp_path / "two.json")
    assert code == 0
    assert "2 tracks" in stdout
    poses = read_poses(tmp_path / "out" / "poses.json")
    # Frame 3 is labelled without track 7, which therefore begins after it.
    assert {i: (t.frames[0], t.frames[-1]) for i, t in poses.tracks.items()} == {2: (0, 19), 7: (4, 19)}
    for i, shift in ((2, (0, 0)), (7, (3, 5))):
        track = poses.tracks[i]
        assert np.linalg.norm(track.keypoints - shift - true_keypoints(track.frames), axis=-1).max() < 1.5


def test_frames_without_a_pose_are_counted(propagate, tmp_path):
    labels = write_some_labels(tmp_path, (3, 5, 7))
    code, said, _ = propagate("--method", "linear", labels=labels)
    note = "11 of 20 frames have no pose; --extend gives every track a pose on every frame"
    assert code == 0 and note in said and run_json(tmp_path / "out")["notes"] == [note]
    assert note in (tmp_path / "out" / "report.html").read_text()
    code, said, _ = propagate("--method", "linear", "--extend", "--overwrite", labels=labels)
    assert code == 0 and "no pose" not in said


@pytest.mark.parametrize("method", ["linear", "default"])
def test_a_part_of_a_clip(propagate, clip, tmp_path, method):
    labels = write_some_labels(tmp_path, (3, 10, 16))
    how = ("--method", method, "--effort", "fast", "--frames", "8-17")
    code, said, _ = propagate(*how, "--extend", labels=labels)
    out = tmp_path / "out"
    poses = read_poses(out / "poses.json")
    assert code == 0 and "2 labelled frames -> 10 poses of 1 track on 10 frames" in said
    assert poses.n_frames == 20 and poses.labelled_frames.tolist() == [10, 16]
    assert poses.tracks[0].frames.tolist() == list(range(8, 18))
    np.testing.assert_allclose(poses.tracks[0].at([10]).keypoints, true_keypoints([10]))
    assert np.abs(poses.tracks[0].keypoints - true_keypoints(range(8, 18))).max() < 4.5
    with open_video(out / "overlay.mp4") as overlay:
        assert overlay.n_frames == 10
    code, said, _ = propagate(
        "--method", method, "--effort", "fast", "--frames", "5-12", out="short", labels=labels
    )
    assert code == 0 and "no pose" not in said


@pytest.mark.parametrize(
    ("frames", "message"),
    [("5", "first and the last"), ("9-5", "first and the last"), ("a-b", "first and the last"),
     ("10-20", "frames from 0 to 19"), ("4-9", "no labels on the frames 4 to 9")],
)  # fmt: skip
def test_parts_that_are_none(propagate, tmp_path, frames, message):
    code, _, err = propagate("--frames", frames, "--effort", "fast")
    assert code == 2 and message in err and "fix:" in err and not (tmp_path / "out").exists()


def test_the_plan_names_every_stage(clip, tmp_path, tiny):
    """Without it the time left in a log would be that of a stage."""
    told: list[str] = []
    labels = some_labels()
    checkpoint = tmp_path / "model.pt"
    fitting.propagate(
        clip, labels, device="cpu", checkpoint=checkpoint, progress=lambda what, *_: told.append(what)
    )
    stages = [name for name, _, _ in plan({"effort": "normal", "method": "default"}, trains=True)]
    assert list(dict.fromkeys(told)) == [name for name in dict.fromkeys(stages) if name != "overlay"]


def test_overwriting_leaves_one_story(propagate, tiny, tmp_path):
    assert propagate()[0] == 0
    (tmp_path / "out" / "notes.txt").write_text("mine")
    code, _, err = propagate("--method", "linear")
    assert code == 2
    assert "--overwrite" in err
    assert propagate("--method", "linear", "--overwrite")[0] == 0
    # The model of the run before is gone, and what is not ours is left alone.
    assert set(os.listdir(tmp_path / "out")) == RESULTS | {"notes.txt"}
    assert run_json(tmp_path / "out")["method"] == "linear"


def test_what_is_odd_in_the_label_file_is_noted_once(propagate, tmp_path):
    labels = some_labels()
    hidden = labels.tracks[0].visibility * np.array([2, 1, 1, 0], np.uint8)
    odd = Labels(SKELETON, {0: Track(labels.tracks[0].frames, labels.tracks[0].keypoints, visibility=hidden)})
    write_labels(tmp_path / "odd.json", odd)
    code, _, err = propagate("--method", "linear", labels=tmp_path / "odd.json")
    assert code == 0
    (note,) = run_json(tmp_path / "out")["notes"]
    assert "never labelled" in note and note.endswith("tail")
    assert err.count("never labelled") == 1


def test_another_run_on_the_video_computes_no_flow_twice(propagate, tmp_path, monkeypatch):
    monkeypatch.setenv("POSEWARPER_CACHE", str(tmp_path / "cache"))
    assert propagate("--effort", "fast")[0] == 0
    poses = (tmp_path / "out" / "poses.json").read_bytes()
    assert list((tmp_path / "cache" / "flow").rglob("*.bin"))
    monkeypatch.setattr(flow, "dense_flow", lambda *_: pytest.fail("computed again"))
    assert propagate("--effort", "fast", out="again")[0] == 0
    assert (tmp_path / "again" / "poses.json").read_bytes() == poses
    assert {path.name for path in (tmp_path / "again").iterdir()} == RESULTS
