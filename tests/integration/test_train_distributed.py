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


def quick_experiments() -> str:
    """The paper's experiments, in seconds, with what does not depend on the number of processes."""
    changes = {"train.validate_epochs": 99, "model.sigma": 2, "model.backbone": "hrnet_w18_small"}
    words = small_words(**changes, **{"train.batch_norm": "evaluation"})
    lines = "".join(f"  - {json.dumps(word)}\n" for word in words)
    return f"propagation: {{videos: 2, labelled_frames: 1}}\nsweeps: [[1, 1]]\nchanges:\n{lines}"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """All runs with one process, in the folder one, and with two, in the folder two."""
    top = tmp_path_factory.mktemp("distributed")
    data = prepare_small(top, n_frames=12)  # the fewest that have a stretch to propagate over
    start = top / "one" / RUNS["pose", "evaluation"] / "model.pt"
    jobs = {folder: ["train", *words_of(*key, data, start)] for key, folder in RUNS.items()}
    warper = top / "one" / RUNS["warper", "evaluation"] / "model.pt"
    pseudo = {"data.dataset": data, "data.validation": "null", "data.pseudo.model": warper}
    pseudo |= {"train.batch_norm": "evaluation", "data.labelled_frames": 1}
    jobs["pseudo"] = ["train", "tiny.yaml", *small_words(**pseudo), "--quiet"]
    jobs["predicted"] = ["predict", str(data), "--model", str(warper), "--split", "train", "--quiet"]
    (top / "quick.yaml").write_text(quick_experiments(), encoding="utf-8")
    experiment = ["experiment", "posetrack18", "all", "--data", str(data), "--quiet"]
    jobs["experiment"] = [*experiment, "--config", str(top / "quick.yaml")]
    one, two = (
        [[*words, "--out", str(top / place / folder)] for folder, words in jobs.items()]
        for place in ("one", "two")
    )
    for words in one:
        with pytest.raises(SystemExit) as left:
            app([*words, "--device", "cpu"], prog_name="posewarper")
        assert not left.value.code
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = str(Path(__file__).with_name("several_commands.py"))
    done = subprocess.run(
        [*torchrun, script, json.dumps(two)],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return top


def pair(folders: Path, *key: str):
    return [load_model(folders / place / RUNS[key] / "model.pt") for place in ("one", "two")]


def largest_difference(one, two) -> float:
    theirs = two.state_dict()
    floats = {name: value for name, value in one.state_dict().items() if value.is_floating_point()}
    return max(float((value - theirs[name]).abs().max()) for name, value in floats.items())


def share_apart(one, two) -> float:
    """Return the share of all values that are not equal to 1e-5.

    Adam's first steps have the size of the rate however small a gradient is: where rounding decides on its
    sign, a few values are far apart after more than some steps.
    """
    theirs = two.state_dict()
    floats = {name: value for name, value in one.state_dict().items() if value.is_floating_point()}
    apart = torch.cat([((value - theirs[name]).abs() > 1e-5).flatten() for name, value in floats.items()])
    return float(apart.float().mean())


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["pose", "warper"])
def test_two_processes_learn_what_one_does(folders, stage):
    one, two = pair(folders, stage, "evaluation")
    assert (one.spec.provenance["processes"], two.spec.provenance["processes"]) == (1, 2)
    assert one.spec.provenance["global_batch"] == two.spec.provenance["global_batch"] == 4
    assert share_apart(one, two) < 1e-4 and largest_difference(one, two) < 2e-4
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
    assert largest_difference(one, two) > 1e-4 and share_apart(one, two) > 0.02
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


@pytest.mark.slow
def test_two_processes_share_a_dataset(folders):
    one, two = (folders / place / "predicted" for place in ("one", "two"))
    names = sorted(path.relative_to(one).as_posix() for path in one.rglob("*") if path.is_file())
    assert sum(name.startswith("poses/") for name in names) == 2
    assert names == sorted(path.relative_to(two).as_posix() for path in two.rglob("*") if path.is_file())
    for name in (name for name in names if name.endswith(".json") and name != "run.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    facts = [json.loads((place / "run.json").read_text()) for place in (one, two)]
    assert facts[0]["instances"] == facts[1]["instances"] > 0


@pytest.mark.slow
def test_two_processes_share_the_making_of_pseudo_labels(folders):
    one, two = (folders / place / "pseudo" for place in ("one", "two"))
    made = [sorted((place / "data" / "pseudo" / "poses").iterdir()) for place in (one, two)]
    assert len(made[0]) == len(made[1]) == 2
    for path, other in zip(*made, strict=True):
        assert path.read_bytes() == other.read_bytes()
    assert share_apart(load_model(one / "model.pt"), load_model(two / "model.pt")) < 0.02


@pytest.mark.slow
def test_two_processes_run_the_experiments_together(folders):
    one, two = (json.loads((folders / n / "experiment" / "figures.json").read_text()) for n in ("one", "two"))
    assert list(one) == list(two) == ["propagation", "augmentation", "aggregation"]
    for name, table in one.items():
        assert table["rows"].keys() == two[name]["rows"].keys()
        for row, figures in table["rows"].items():
            assert two[name]["rows"][row]["total"] == pytest.approx(figures["total"], abs=1)
    stages = ("pose", "warper", "baseline/V2_N1", "PoseWarper/V2_N1", "baseline_wPoseWarperDataAug/V1_N1")
    for stage in stages:
        models = [load_model(folders / n / "experiment" / stage / "model.pt") for n in ("one", "two")]
        assert models[1].spec.provenance["processes"] == 2 and share_apart(*models) < 0.02, stage
