"""One process and two, started by torchrun on the CPU, with the same global batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from moving_clip import command
from small_training import prepare_small, small_words

from posewarper.cli.app import app
from posewarper.model.checkpoint import load_model

RUNS = {(stage, norm): f"{stage}_{norm}" for stage in ("pose", "warper") for norm in ("evaluation", "paper")}


def words_of(stage: str, norm: str, data: Path, start: Path) -> list[str]:
    changes = {
        "data.dataset": data,
        "train.stage": stage,
        "train.batch_norm": norm,
        "data.validation": "null",
    }
    if (stage, norm) == ("pose", "evaluation"):
        # One video for two processes: the second has none.
        changes["data.validation"] = "val"
    changes |= {"model.start": start} if stage == "warper" else {}
    return ["tiny.yaml", *small_words(**changes), "--quiet"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """All runs with one process, in the folder one, and with two, in the folder two."""
    top = tmp_path_factory.mktemp("distributed")
    data = prepare_small(top)
    start = top / "one" / RUNS["pose", "evaluation"] / "model.pt"
    jobs = {folder: words_of(*key, data, start) for key, folder in RUNS.items()}
    one, two = (
        [[*words, "--out", str(top / place / folder)] for folder, words in jobs.items()]
        for place in ("one", "two")
    )
    for words in one:
        with pytest.raises(SystemExit) as left:
            app(["train", *words, "--device", "cpu"], prog_name="posewarper")
        assert not left.value.code
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = str(Path(__file__).with_name("train_several.py"))
    done = subprocess.run(
        [*torchrun, script, json.dumps(two)],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return top


def pair(folders: Path, *key: str):
    return [load_model(folders / place / RUNS[key] / "model.pt") for place in ("one", "two")]


def largest_difference(one, two) -> float:
    theirs = two.state_dict()
    floats = {name: value for name, value in one.state_dict().items() if value.is_floating_point()}
    return max(float((value - theirs[name]).abs().max()) for name, value in floats.items())


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["pose", "warper"])
def test_two_processes_learn_what_one_does(folders, stage):
    one, two = pair(folders, stage, "evaluation")
    assert (one.spec.provenance["processes"], two.spec.provenance["processes"]) == (1, 2)
    assert one.spec.provenance["global_batch"] == two.spec.provenance["global_batch"] == 4
    assert largest_difference(one, two) < 1e-5
    # And something was learned.
    start = pair(folders, "pose", "evaluation")[0] if stage == "warper" else None
    learned = [p for n, p in one.named_parameters() if n.startswith("warp_head.") == (stage == "warper")]
    assert all(torch.isfinite(p).all() for p in learned)
    if start is not None:
        assert largest_difference(one, start) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["pose", "warper"])
def test_with_batch_statistics_they_differ_and_the_checkpoint_says_why(folders, stage):
    one, two = pair(folders, stage, "paper")
    assert two.spec.provenance["processes"] == 2
    assert largest_difference(one, two) > 1e-4
    crops = {"pose": (4, 2), "warper": (8, 4)}[stage]
    for model, seen in zip((one, two), crops, strict=True):
        assert f"{seen} crops a device" in model.spec.batch_norm


@pytest.mark.slow
def test_the_first_of_two_processes_writes_and_both_validate(folders, capsys):
    place = folders / "two" / RUNS["pose", "evaluation"]
    facts = json.loads((place / "run.json").read_text())
    alone = json.loads((folders / "one" / RUNS["pose", "evaluation"] / "run.json").read_text())
    assert facts["validation"]["last"] == pytest.approx(alone["validation"]["last"], abs=1)
    lines = (place / "log.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == sorted(steps) and len(set(lines)) == len(lines)
    code, *_ = command(capsys, "info", place / "model.pt", "--json", folders / "info.json")
    assert code == 0
    told = json.loads((folders / "info.json").read_text())["checkpoint"]
    assert told["parameters_sha256"] == facts["parameters_sha256"]
