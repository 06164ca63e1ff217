"""Every block of the README and of the docs is run, in a folder with the files that they speak of.

A block of ``bash`` is run line by line: what begins with ``posewarper`` as a command in this process, with a
network of next to nothing. Blocks that set up an environment are run by ``.ci/run`` instead, word for word.
"""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import shlex
import subprocess
import warnings
import webbrowser
from pathlib import Path

import pytest
import timm
import torch
import yaml
from moving_clip import N_FRAMES, TINY_FIT, TINY_NETWORK, command, some_labels, write_clip

import posewarper
from posewarper import fitting
from posewarper.demo.posetrack_tree import write_posetrack_tree
from posewarper.errors import PosewarperWarning
from posewarper.formats.labels import write_labels
from posewarper.model import released
from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.model.released import ORIGINAL_WHOLE
from posewarper.options import EFFORTS
from posewarper.review import server
from posewarper.skeletons import POSETRACK
from posewarper.training import recipes

ROOT = Path(__file__).resolve().parents[2]
# conventions.md has a test of its own; the Docker block needs a daemon, see below.
DOCUMENTS = sorted({ROOT / "README.md", *(ROOT / "docs").glob("*.md")} - {ROOT / "docs" / "conventions.md"})
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_DATA = {"json", "text", "yaml", "csv", "console"}
_PROJECT = """\
Task: demo
scorer: ann
date: Nov22
multianimalproject: false
video_sets:
  /somewhere/else/clip.mp4:
    crop: 0, 128, 0, 96
bodyparts:
- nose
- left_paw
- right_paw
- tail
skeleton:
- - nose
  - tail
"""


def blocks_of(path: Path) -> list[tuple[str, str]]:
    """(language, content) of each fenced block."""
    return [(match[1], match[2]) for match in _FENCE.finditer(path.read_text(encoding="utf-8"))]


def lines_of(block: str) -> list[str]:
    """The command lines of a block; a backslash joins two."""
    joined = block.replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def sets_up(block: str) -> bool:
    return "-m venv" in block


@pytest.fixture
def sample(tmp_path, monkeypatch) -> Path:
    """A folder with clip.mp4, frames, labels.json, dense.json and my-project, as the documents call them."""
    monkeypatch.setitem(EFFORTS, "normal", TINY_FIT)
    monkeypatch.setitem(EFFORTS, "best", TINY_FIT)
    monkeypatch.setattr(fitting, "NetworkConfig", lambda: TINY_NETWORK)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # The labelling page has tests of its own; here nobody would end it.
    monkeypatch.setattr(server, "serve", lambda session, listener, ready, **more: ready("http://127.0.0.1"))
    monkeypatch.setattr(webbrowser, "open", lambda address: True)
    folder = tmp_path / "sample"
    (folder / "my-project" / "labeled-data" / "clip").mkdir(parents=True)
    write_clip(folder)
    write_labels(folder / "labels.json", some_labels())
    write_labels(folder / "dense.json", some_labels(range(N_FRAMES)))
    (folder / "my-project" / "config.yaml").write_text(_PROJECT)
    plain = some_labels(n_frames=None, image_size=None, skeleton=type(some_labels().skeleton)(NAMES))
    write_labels(folder / "my-project" / "labeled-data" / "clip" / "CollectedData_ann.csv", plain)
    shrink_recipes(tmp_path / "recipes", monkeypatch)
    monkeypatch.chdir(folder)
    return folder


def shrink_recipes(folder: Path, monkeypatch) -> None:
    """Put recipes of next to nothing in place of the shipped ones."""
    folder.mkdir()
    for path in recipes.FOLDER.glob("*.yaml"):
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        if "train" in values:
            head = {"head_width": 4, "head_blocks": 1, "head_dilations": [1]}
            values["model"] |= {"crop_size": [64, 64], **head}
            values["train"] |= {"epochs": 1, "drops": [], "workers": 0, "validate_epochs": 1}
            values["train"] |= {"min_epoch_steps": 1}
        if values.get("data", {}).get("made_up"):
            values["data"]["made_up"] = {"videos": [1, 1], "frames": 8, "size": [48, 64], "people": [1, 1]}
        (folder / path.name).write_text(yaml.safe_dump(values), encoding="utf-8")
    monkeypatch.setattr(recipes, "FOLDER", folder)


NAMES = some_labels().skeleton.names


def add_posetrack(folder: Path) -> None:
    """Add PoseTrack18, val_boxes.json, and released.pth in the original's form."""
    write_posetrack_tree(folder / "PoseTrack18", "posetrack18", n_videos=(1, 1), n_frames=6, size=(48, 64))
    boxes = folder / "PoseTrack18" / "posetrack18_precomputed_boxes" / "val_boxes.json"
    (folder / "val_boxes.json").write_bytes(boxes.read_bytes())
    torch.manual_seed(0)
    whole = PoseWarper(ModelSpec("hrnet_w32", POSETRACK, (64, 64), sigma=3.0)).state_dict()
    torch.save({ORIGINAL_WHOLE.theirs(name): value for name, value in whole.items()}, folder / "released.pth")


def add_files(sample: Path, path: Path) -> None:
    """Add what a document speaks of and does not make itself."""
    if path.name == "posetrack.md":  # which does not say how this came about
        (sample / "result").mkdir()
        write_labels(sample / "result" / "poses.json", some_labels(range(N_FRAMES)))
    if path.name == "own_video.md":  # which says what these are
        weights = timm.create_model("tf_efficientnet_lite0").state_dict()
        torch.save(weights, sample / "tf_efficientnet_lite0.pth")
    if path.name == "from_sleap.md":
        write_labels(sample / "project.slp", some_labels())
    if path.name == "from_lightning_pose.md":
        (sample / "lp-project" / "labeled-data" / "clip").mkdir(parents=True)
        plain = some_labels(n_frames=None, image_size=None, skeleton=type(some_labels().skeleton)(NAMES))
        write_labels(sample / "lp-project" / "CollectedData.csv", plain)
    if path.name == "python.md":
        (sample / "new.mp4").write_bytes((sample / "clip.mp4").read_bytes())
    if path.name == "own_training.md":
        (sample / "other.mp4").write_bytes((sample / "clip.mp4").read_bytes())
        write_labels(sample / "other.json", some_labels((0, 9), video="other.mp4"))
        (sample / "clips.csv").write_text(dict(blocks_of(path))["csv"], encoding="utf-8")


@pytest.mark.filterwarnings("ignore::posewarper.errors.PosewarperWarning")
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_block_runs(sample, capsys, monkeypatch, path: Path) -> None:
    if "PoseTrack18 " in path.read_text(encoding="utf-8"):
        add_posetrack(sample)
        monkeypatch.setattr(released, "PAPER_CROP", (64, 64))
    add_files(sample, path)
    for language, block in blocks_of(path):
        if language == "python":
            exec(compile(block, str(path), "exec"), {"__name__": "snippet"})
        elif language == "bash" and not sets_up(block):
            for line in lines_of(block):
                words = shlex.split(line, comments=True)
                if words[:2] == ["docker", "build"]:
                    continue
                if words[:2] == ["docker", "run"] or words[0] == "ssh":  # what it runs there is run here
                    words = words[words.index("posewarper") :]
                assert words[0] == "posewarper", f"{path.name}: no test runs {line!r}"
                code, _, stderr = command(capsys, *words[1:])
                assert code == 0, f"{path.name}: {line}\n{stderr}"
        else:
            assert language in {*_DATA, "bash"} or not language, f"{path.name}: a block of {language}"


def test_setting_up_is_run_by_ci_word_for_word() -> None:
    # In .ci/run they are taken out of the README by the comment in their first line.
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    found = [block for _, block in blocks_of(ROOT / "README.md") if sets_up(block)]
    assert len(found) == 2
    for block in found:
        title, *commands = block.splitlines()
        assert title.startswith("# ") and len(commands) == 1
        assert f'readme_block "{title[2:]}"' in script
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)


def test_what_the_dockerfile_copies_is_there() -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [name for line in lines if line.startswith("COPY") for name in line.split()[1:-1]]
    allowed = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert copied
    for name in copied:
        assert (ROOT / name).exists() and f"!{name}" in allowed
    assert 'ENTRYPOINT ["posewarper"]' in lines and any("-c constraints.txt" in line for line in lines)


def modules_with_examples() -> list[str]:
    names = [m.name for m in pkgutil.walk_packages(posewarper.__path__, "posewarper.")]
    finder = doctest.DocTestFinder(exclude_empty=True)
    return [n for n in names if any(t.examples for t in finder.find(importlib.import_module(n)))]


@pytest.mark.parametrize("name", modules_with_examples())
def test_the_examples_in_docstrings_run(sample, name: str) -> None:
    if name.endswith(("checkpoint", "prediction.video")):
        posewarper.fit("clip.mp4", "labels.json", checkpoint="model.pt")
    with warnings.catch_warnings():
        # What was fitted in three steps finds nobody.
        warnings.filterwarnings("ignore", message="nobody was found", category=PosewarperWarning)
        found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0 and found.failed == 0


@pytest.mark.parametrize("name", sorted(set(posewarper.__all__) - {"__version__"}))
def test_every_public_name_has_an_example(name: str) -> None:
    value = getattr(posewarper, name)
    assert doctest.DocTestParser().get_examples(value.__doc__), f"{name} has no example in its docstring"
