"""Two machines with a folder in common, under torchrun: the same results, also when one of them dies."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from moving_clip import N_FRAMES, SKELETON, command, true_keypoints, write_clip
from small_training import prepare_small, small_words
from two_machines import FIRST, HANGING, SEVERAL, torchrun, two_machines, wait_until, why_not

from posewarper.formats.labels import read_poses
from posewarper.model.checkpoint import load_model, parameters_sha256, save_model
from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.training.engine import LAST, load_state

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(why_not() is not None, reason=f"no two machines can be made here: {why_not()}"),
]

SCRIPT = Path(__file__).parents[2] / "examples" / "slurm.sh"
# Adding up the gradients of two processes rounds otherwise than one process does.
ROUNDING = 1e-5
KILLED_AT = 3  # steps: in the middle of the second epoch


def largest_difference(one: PoseWarper, other: PoseWarper) -> float:
    theirs = other.state_dict()
    floats = {name: value for name, value in one.state_dict().items() if value.is_floating_point()}
    return max(float((value - theirs[name]).abs().max()) for name, value in floats.items())


def test_training_on_two_machines_one_of_which_dies(tmp_path, capsys):
    data = prepare_small(tmp_path)
    settings = {"data.dataset": data, "data.validation": "null", "train.batch_norm": "evaluation"}
    settings |= {"train.epochs": 2, "train.checkpoint_steps": 1}
    words = ["tiny.yaml", *small_words(**settings), "--quiet", "--resume", "--out"]
    alone = tmp_path / "alone"
    code, _, err = command(capsys, "train", *words, alone, "--device", "cpu")
    assert code == 0, err

    killed, reached, said = tmp_path / "killed", tmp_path / "reached", [tmp_path / f"{n}.txt" for n in (1, 2)]
    with two_machines() as (one, two):
        train = ["train", *words, str(killed)]
        hangs = [str(HANGING), "posewarper.training.engine:Run._save", str(KILLED_AT), str(reached), *train]
        first = one.start(torchrun(["-m", "posewarper", *train], run="killed"), said[0])
        two.start(torchrun(hangs, run="killed"), said[1])
        wait_until(reached.exists, "the step in which the second machine dies")
        two.die()
        assert first.wait(600) != 0
        report = said[0].read_text()
        assert "error: another process of this run has ended" in report
        assert "[10.77.0.2]" in report.partition("error:")[2].partition("fix:")[0]
    state, _ = load_state(killed / LAST)
    assert (state.epoch, state.step) == (1, 1)
    assert not (killed / "model.pt").exists()
    resumed_alone = shutil.copytree(killed, tmp_path / "resumed_alone")

    # The machine is back: the run goes on, and beside it a whole one that nothing happens to.
    whole, jobs = (
        tmp_path / "whole",
        [["train", *words, str(killed)], ["train", *words, str(tmp_path / "whole")]],
    )
    with two_machines() as machines:
        again = torchrun([str(SEVERAL), json.dumps(jobs)], run="again")
        started = [machine.start(again, path) for machine, path in zip(machines, said, strict=True)]
        for process, path in zip(started, said, strict=True):
            assert process.wait(600) == 0, path.read_text()
    code, _, err = command(capsys, "train", *words, resumed_alone, "--device", "cpu")
    assert code == 0, err

    models = {place.name: load_model(place / "model.pt") for place in (alone, whole, killed, resumed_alone)}
    assert [model.spec.provenance["processes"] for model in models.values()] == [1, 2, 2, 1]
    # As many processes: the same to the last bit. Another number of them: the same to rounding.
    assert parameters_sha256(models["killed"]) == parameters_sha256(models["whole"])
    assert largest_difference(models["whole"], models["alone"]) < ROUNDING
    assert largest_difference(models["resumed_alone"], models["alone"]) < ROUNDING
    start = load_state(killed / LAST)[1]["model"]
    assert start.keys() == models["alone"].state_dict().keys()
    # And something was learned, by far more than rounding.
    torch.manual_seed(0)
    assert largest_difference(PoseWarper(models["alone"].spec), models["alone"]) > 1e-3
    steps = [json.loads(line)["step"] for line in (killed / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))


def test_a_list_on_two_machines_one_of_which_dies(tmp_path, capsys, monkeypatch):
    names = [f"clip{n}" for n in range(5)]
    for name in names:
        (tmp_path / name).mkdir()
        write_clip(tmp_path / name).rename(tmp_path / f"{name}.mp4")
    corners = (true_keypoints(range(N_FRAMES)).min(1) - 4).tolist()
    boxes = [{"frame": n, "bbox": [*corner, 44, 36], "score": 0.9} for n, corner in enumerate(corners)]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    rows = "".join(f"{name}.mp4,boxes.json\n" for name in names)
    (tmp_path / "list.csv").write_text(f"video,boxes\n{rows}")
    torch.manual_seed(0)
    sizes = {"head_width": 4, "head_blocks": 1, "head_dilations": (1, 2)}
    spec = ModelSpec("hrnet_w18_small", SKELETON, (64, 64), 1.0, trained={"pose": 1, "warp": 1}, **sizes)
    model = PoseWarper(spec)
    torch.nn.init.constant_(model.final_layer.bias, 0.9)  # high enough for poses
    save_model(tmp_path / "model.pt", model)
    monkeypatch.chdir(tmp_path)
    words = ["predict", "list.csv", "--model", "model.pt", "--device", "cpu", "--quiet", "--no-overlay"]
    words.append("--out")
    code, _, err = command(capsys, *words, "alone")
    assert code == 0, err

    reached, said = tmp_path / "reached", [tmp_path / f"{n}.txt" for n in (1, 2)]
    # What SLURM's programs do on the first machine.
    (tmp_path / "srun").write_text('#!/bin/sh\nexec "$@"\n')
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\nprintf '{FIRST}\\nmachine-2\\n'\n")
    for program in ("srun", "scontrol"):
        (tmp_path / program).chmod(0o755)
    job = {"SLURM_JOB_ID": "777", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "machine-[1-2]"}
    job |= {"PYTHON": sys.executable, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with two_machines() as (one, two):
        # The second machine dies over its first video, clip1, of which some frames are kept.
        hangs = [str(HANGING), "posewarper.runs:RecordLog.append", "8", str(reached), *words, "shared"]
        two.start(torchrun(hangs, run="777-0", port=20777), said[1])
        one.start([str(SCRIPT), *words, "shared"], said[0], **job)
        wait_until(reached.exists, "the video over which the second machine dies")
        waits = "waiting for videos that other processes are working on: clip1.mp4"
        wait_until(lambda: waits in said[0].read_text(), "the first machine's turn to wait")
        assert not (tmp_path / "shared" / "clip1" / "run.json").exists()
        two.die()
        done = "wrote shared/clip1/poses.json"
        wait_until(lambda: done in said[0].read_text(), "the video that was taken over")
    report = said[0].read_text()
    assert "taken over: clip1.mp4" in report and "taken over: clip3.mp4" in report
    assert report.count("wrote shared") == len(names) and "wrote" not in said[1].read_text()

    code, out, err = command(capsys, *words, "shared")
    assert code == 0 and out.count("is done already") == len(names), err
    places = [sorted((tmp_path / run / name).iterdir()) for run in ("shared", "alone") for name in names]
    assert {tuple(path.name for path in place) for place in places} == {
        ("poses.json", "report.html", "request.json", "run.json", "sheet.jpg")
    }
    for name in names:
        one, other = (tmp_path / run / name / "poses.json" for run in ("shared", "alone"))
        assert one.read_bytes() == other.read_bytes()
        assert read_poses(one).n_frames == N_FRAMES
