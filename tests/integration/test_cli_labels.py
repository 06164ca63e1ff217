"""``posewarper convert`` and ``posewarper info`` as a user runs them, and how the command line fails."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import typer

from posewarper import __version__
from posewarper.cli import app as command_line
from posewarper.cli import common, convert
from posewarper.cli.common import progress_bar, refuse_existing
from posewarper.errors import Interrupted, LabelsError, OutputError, PosewarperWarning
from posewarper.formats.labels import read_annotations, read_labels, write_labels
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Track


@pytest.fixture
def run(capsys):
    """Run the command line in this process; returns (exit code, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            command_line.app([str(a) for a in arguments], prog_name="posewarper")
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return call


@pytest.fixture
def labels_file(tmp_path) -> Path:
    frames = np.arange(1, 30)
    rng = np.random.default_rng(0)
    tracks = {
        n: Track(frames, rng.uniform(0, 90, (29, 2, 2)), visibility=np.full((29, 2), 2 - n)) for n in range(2)
    }
    labels = Labels(
        Skeleton(("nose", "tail"), ((0, 1),), name="fly"),
        tracks,
        image_size=(100, 120),
        n_frames=40,
        video="clip.mp4",
    )
    write_labels(tmp_path / "labels.json", labels)
    return tmp_path / "labels.json"


def test_help_version_and_startup_without_heavy_imports(run):
    code, out, _ = run("--help")
    assert code == 0 and "convert" in out and "info" in out
    assert run("--version")[:2] == (0, f"posewarper {__version__}\n")
    heavy = "{'torch', 'cv2', 'av', 'numpy', 'scipy', 'pydantic'}"
    script = f"import sys; import posewarper.cli.app; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_convert_keeps_every_kth_frame_of_one_track(run, labels_file, tmp_path):
    code, out, err = run("convert", labels_file, tmp_path / "out.json", "--every", 10, "--track", 1)
    assert (code, err) == (0, "")
    assert out == f"wrote {tmp_path / 'out.json'}: 3 labelled frames, 1 track, 2 keypoints (posetrack)\n"
    kept = read_labels(tmp_path / "out.json")
    assert kept.tracks.keys() == {1}
    assert kept.tracks[1].frames.tolist() == kept.labelled_frames.tolist() == [5, 15, 25]
    code, _, err = run("convert", labels_file, tmp_path / "none.json", "--every", 200)
    assert code == 2 and "no labels are left" in err


def test_convert_between_formats_and_with_an_offset(run, labels_file, tmp_path):
    table = tmp_path / "table.csv"
    code, out, err = run("convert", labels_file, table)
    assert code == 0 and "(deeplabcut)" in out
    assert err.startswith("warning: ") and "hidden; edges" not in err and err.count("warning") == 1
    code, _, _ = run("convert", table, tmp_path / "back.json", "--frame-offset", "-1", "--to", "coco")
    assert code == 0
    first, back = read_annotations(labels_file), read_annotations(tmp_path / "back.json")
    np.testing.assert_array_equal(back.tracks[0].frames, first.tracks[0].frames - 1)
    np.testing.assert_array_equal(back.tracks[0].keypoints, first.tracks[0].keypoints)
    code, _, err = run("convert", labels_file, tmp_path / "x.json", "--frame-offset", "-2")
    assert code == 2 and "offset of at least -1" in err


def test_convert_refuses_what_exists_and_what_is_wrong(run, labels_file, tmp_path):
    out = tmp_path / "out.json"
    out.write_text("precious")
    code, _, err = run("convert", labels_file, out)
    assert code == 2 and "--overwrite" in err and "Traceback" not in err
    assert out.read_text() == "precious"
    assert run("convert", labels_file, out, "--overwrite", "--quiet")[0] == 0
    for arguments, message in (
        ((labels_file, tmp_path / "out.txt"), "suffix"),
        ((labels_file, tmp_path / "new.json", "--to", "yaml"), "posetrack, coco, deeplabcut"),
        ((labels_file, tmp_path / "new.json", "--from", "deeplabcut"), "header"),
        ((labels_file, tmp_path / "new.json", "--skeleton", "dog"), "unknown skeleton"),
        ((labels_file, tmp_path / "new.json", "--skeleton", "coco"), "extra: tail"),
        ((labels_file, tmp_path / "new.json", "--track", 9), "no track 9"),
        ((labels_file, tmp_path / "new.json", "--every", 0), "--every"),
        ((tmp_path / "none.json", tmp_path / "new.json"), "cannot read"),
        ((labels_file,), "OUT"),
    ):
        code, _, err = run("convert", *arguments)
        assert code == 2 and message in err, err
    assert not (tmp_path / "new.json").exists()


def test_info_of_labels(run, labels_file, tmp_path):
    code, out, _ = run("info", labels_file, "--json", tmp_path / "facts.json")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "1-29" in out and "nose-tail" in out
    facts = json.loads((tmp_path / "facts.json").read_text())["labels"]
    assert (facts["format"], facts["width"], facts["height"], facts["frames"]) == ("posetrack", 120, 100, 40)
    assert facts["tracks"][1] == {
        "track": 1, "first frame": 1, "last frame": 29, "labels": 29, "predictions": 0
    }  # fmt: skip
    whole = {"absent %": 0.0, "not looked at %": 0.0}
    assert facts["keypoints"][0] == {"keypoint": "nose", "labelled": 58, "hidden %": 50.0, **whole}
    assert run("info", "--labels", labels_file, "--json", tmp_path / "facts.json")[0] == 2


def test_info_of_a_video_with_its_labels(run, shared_data, tmp_path):
    walking = shared_data / "walking"
    code, out, _ = run("info", walking / "walking.mp4", "--labels", walking / "walking.json")
    assert code == 0
    for fact in ("130", "1540", "544", "30.0", "h264", "left_knee"):
        assert fact in out
    code, _, err = run("info", walking / "walking.mp4", "--labels", shared_data / "flies" / "flies.json")
    assert code == 2 and "of another video" in err and "--labels-of flies.mp4" in err
    assert run("info", tmp_path / "none.mp4")[0] == 2


def collected_data(folder: Path, videos: dict[str, int]) -> str:
    """A table of Lightning Pose: two keypoints on some images of several videos."""
    rows = ["scorer,me,me,me,me", "bodyparts,nose,nose,tail,tail", "coords,x,y,x,y"]
    for video, count in videos.items():
        (folder / "labeled-data" / video).mkdir(parents=True, exist_ok=True)
        rows += [f"labeled-data/{video}/img{5 * n:03}.png,{n},1,2,3" for n in range(count)]
    return "\n".join(rows) + "\n"


@pytest.mark.parametrize("named", ["folder", "table"])
def test_info_of_several_videos_is_a_table(run, tmp_path, named):
    table = tmp_path / "CollectedData.csv"
    table.write_text(collected_data(tmp_path, {"run_a": 3, "run_b": 5}))
    path = tmp_path if named == "folder" else table
    code, out, err = run("info", path, "--json", tmp_path / "facts.json")
    assert code == 0, err
    rows = [line.split() for line in out.splitlines()]
    assert ["run_a", "3", "1", "2"] in rows and ["run_b", "5", "1", "2"] in rows
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert next(iter(facts.values()))["labels of videos"] == 2
    code, out, _ = run("info", path, "--labels-of", "run_b")
    assert code == 0 and "labelled frames 5" in " ".join(out.split())


def test_info_of_a_project_of_several_videos_is_a_table(run, tmp_path):
    (tmp_path / "config.yaml").write_text(
        "Task: t\nscorer: me\nbodyparts: [nose, tail]\nskeleton: []\n"
        "video_sets: {videos/run_a.mp4: {crop: '0, 64, 0, 48'}, videos/run_b.mp4: {crop: '0, 64, 0, 48'}}\n"
    )
    for video, count in {"run_a": 2, "run_b": 4}.items():
        text = collected_data(tmp_path, {video: count})
        (tmp_path / "labeled-data" / video / "CollectedData_me.csv").write_text(text)
    code, out, err = run("info", tmp_path)
    assert code == 0, err
    rows = [line.split() for line in out.splitlines()]
    assert ["run_a", "2", "1", "2"] in rows and ["run_b", "4", "1", "2"] in rows


def test_info_of_this_machine(run, tmp_path):
    code, out, _ = run("info", "--json", tmp_path / "facts.json")
    assert code == 0 and "torchvision" in out
    facts = json.loads((tmp_path / "facts.json").read_text())["environment"]
    assert facts["versions"]["posewarper"] == __version__
    assert facts["devices"][0] == "cpu" and facts["CPU threads"] >= 1


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        (LabelsError("no good", fix="do better"), 2, "error: no good\n  fix:      do better\n"),
        (
            Interrupted("12 of 40 frames are kept in out"),
            130,
            "interrupted: 12 of 40 frames are kept in out\n",
        ),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (
            OSError(errno.ENOSPC, "x", "out/poses.json"),
            1,
            "error: out/poses.json: No space left on device\n  fix:      make room, and run this again\n",
        ),
    ],
)
def test_failures_end_in_one_message_and_their_exit_code(capsys, raised, code, message):
    def fail() -> None:
        raise raised

    app = typer.Typer(cls=command_line._Commands)
    app.callback()(lambda: None)
    app.command("fail")(fail)
    with pytest.raises(SystemExit) as left:
        app(["fail"])
    assert left.value.code == code
    assert capsys.readouterr().err == message


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (KeyError("odd"), "KeyError: 'odd', in test_cli_labels.py:"),
        (RecursionError(), "RecursionError"),
        (MemoryError(), "more memory than there is"),
        (OSError(errno.ELOOP, "odd", "loop/data"), "loop/data: "),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed"), "surrogates"),
    ],
)
@pytest.mark.parametrize("place", [None, 0, 1, 3])
def test_what_nobody_has_foreseen_is_a_message_with_the_input(
    monkeypatch, capsys, labels_file, tmp_path, error, says, place
):
    def fail(number: int, what: str) -> str:
        raise error

    monkeypatch.setattr(convert, "count_of", fail)
    words = ["convert", str(labels_file), str(tmp_path / "out.json")]
    if place is not None:
        words.insert(place, "--debug")
    with pytest.raises(SystemExit) as left:
        command_line.app(words)
    err = capsys.readouterr().err
    assert left.value.code == 2 and says in err and "\n  fix:" in err
    assert str(labels_file) in err or "loop" in err
    assert err.startswith("error: ") is (place is None) and ("Traceback" in err) is (place is not None)


@pytest.mark.parametrize("name", ["\x1b[31mred", "a\x07\x9b2J", "\u202egpj", "\rerror: forged"])
def test_names_cannot_steer_the_terminal(capsys, tmp_path, name):
    document = {
        "images": [{"id": 1, "file_name": "0.jpg", "width": 9, "height": 8}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "keypoints": [1, 2, 2, 3, 4, 0]}],
        "categories": [{"id": 1, "name": name, "keypoints": ["nose", name], "skeleton": []}],
    }
    path = tmp_path / "l.json"
    for document["categories"][0]["keypoints"] in (["nose", name], [name, name]):
        path.write_text(json.dumps(document))
        with pytest.raises(SystemExit):
            command_line.app(["info", str(path)])
        said = "".join(capsys.readouterr())
        assert name not in said and "\\" in said and not set("\x1b\x07\x9b\u202e\r") & set(said)


def test_each_warning_is_shown_once(capsys):
    def warn() -> None:
        for text in ("odd labels", "odd labels", "other labels"):
            warnings.warn(text, PosewarperWarning, stacklevel=1)

    app = typer.Typer(cls=command_line._Commands)
    app.callback()(lambda: None)
    app.command("warn")(warn)
    with pytest.raises(SystemExit) as left:
        app(["warn"])
    assert not left.value.code
    assert capsys.readouterr().err == "warning: odd labels\nwarning: other labels\n"


def test_a_log_is_told_from_time_to_time_how_long_the_whole_run_takes(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(common.time, "monotonic", lambda: now[0])
    plan = [("flow", None, 0.1), ("train", 100, 0.5), ("never", 0, 9.0), ("overlay", None, 0.1)]
    with progress_bar(False, plan) as progress:
        for n in range(1, 21):  # twice as slow as usual: 4 s, of the whole 2 * (2 + 50 + 2) s
            now[0] += 0.2
            progress("flow", n, 20)
        for n in range(1, 101):
            now[0] += 1.0
            progress("train\tloss 3", n, 100)
        for n in range(1, 21):
            now[0] += 0.2
            progress("overlay", n, 20)
    told = capsys.readouterr().err.splitlines()
    assert told[:2] == ["flow (20) ...", "train (100) ..."] and told[-1] == "overlay (20) ..."
    assert told[2:-1] == [
        "train: 6 of 100, about 1 min 38 s left",
        "train: 36 of 100, about 1 min 8 s left",
        "train: 66 of 100, about 38 s left",
        "train: 96 of 100, about 8 s left",
    ]


def test_without_a_plan_a_log_is_told_of_the_stage_alone(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(common.time, "monotonic", lambda: now[0])
    with progress_bar(False) as progress:
        for n in (1, 2, 3):
            now[0] += 20
            progress("poses", n, 0)
        for n in (4, 5, 6, 10):  # the first step tells nothing: it may hold work that the others do not
            now[0] += 31
            progress("work", n, 10)
    told = capsys.readouterr().err.splitlines()
    steps = ["work: 5 of 10", "work: 6 of 10, about 2 min 4 s left"]
    assert told == ["poses ...", "poses: 2", "work (10) ...", *steps]


def test_progress_is_a_line_a_stage_in_a_log_and_nothing_when_quiet(capsys):
    for quiet, expected in ((False, "train (3) ...\nwrite ...\n"), (True, "")):
        with progress_bar(quiet) as progress:
            for i in range(3):
                progress("train", i, 3)
            progress("write", 0, 0)
        assert capsys.readouterr().err == expected


def test_existing_results_are_refused(tmp_path):
    refuse_existing(tmp_path, False)  # empty
    refuse_existing(tmp_path / "new", False)
    (tmp_path / "file").write_text("x")
    for place in (tmp_path, tmp_path / "file"):
        with pytest.raises(OutputError, match="already"):
            refuse_existing(place, False)
        refuse_existing(place, True)
