"""The wheel and the source archive as they are published: what they hold, and that the wheel works alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from label_page import Page
from moving_clip import write_clip, write_some_labels
from small_training import small_words

from posewarper.version import __version__

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
_UNKEPT = shutil.ignore_patterns("__pycache__", "*.egg-info", "node_modules", "build", "dist", ".*")
# Of the repository alone; whoever has the source archive has no use for them.
_OF_THE_REPOSITORY = (".github/", ".gitattributes", ".gitignore", ".pre-commit-config.yaml", ".dockerignore")


def in_tree(tree: Path) -> set[str]:
    return {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """What would be committed, and nothing that lies about, in a folder of its own."""
    place = tmp_path_factory.mktemp("tree") / "posewarper"
    if not (ROOT / ".git").exists():  # a source archive that has been unpacked
        return Path(shutil.copytree(ROOT, place, ignore=_UNKEPT))
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(words, cwd=ROOT, capture_output=True, check=True, timeout=60).stdout.decode()
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, place / name)
    return place


@pytest.fixture(scope="module")
def packages(tree, tmp_path_factory) -> tuple[Path, Path]:
    """The wheel, which is built from the source archive, and the source archive."""
    place = tmp_path_factory.mktemp("dist")
    words = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(place), str(tree)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (wheel,), (archive,) = place.glob("*.whl"), place.glob("*.tar.gz")
    return wheel, archive


@pytest.fixture(scope="module")
def metadata(packages) -> Message:
    with zipfile.ZipFile(packages[0]) as wheel:
        return Parser().parsestr(wheel.read(f"posewarper-{__version__}.dist-info/METADATA").decode())


def test_the_wheel_holds_the_package_and_nothing_else(packages, tree):
    with zipfile.ZipFile(packages[0]) as wheel:
        held = {name for name in wheel.namelist() if not name.endswith("/")}
    about = f"posewarper-{__version__}.dist-info/"
    names = ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt", "licenses/LICENSE")
    ours = {name for name in in_tree(tree / "src") if "egg-info" not in name}
    assert held == ours | {about + name for name in names}
    assert packages[0].name == f"posewarper-{__version__}-py3-none-any.whl"  # of any machine
    kinds = {Path(name).suffix for name in ours if not name.endswith("py.typed")}
    assert kinds == {".py", ".yaml", ".j2", ".js", ".html", ".css", ".svg", ".mp4", ".json"}


def test_the_source_archive_holds_what_is_committed(packages, tree):
    with tarfile.open(packages[1]) as archive:
        held = {m.name.partition("/")[2] for m in archive.getmembers() if m.isfile()}
    held = {name for name in held if "egg-info" not in name}
    committed = {
        name
        for name in in_tree(tree)
        if not name.startswith(_OF_THE_REPOSITORY) and "egg-info" not in name and name != "setup.cfg"
    }
    assert held == (committed - {"PKG-INFO"}) | {"PKG-INFO", "setup.cfg"}
    assert {"web/src/main.ts", "web/package-lock.json", "tests/conftest.py", "constraints.txt"} <= held


def test_the_packages_page(metadata):
    assert (metadata["Name"], metadata["Version"]) == ("posewarper", __version__)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Description-Content-Type"] == "text/markdown"
    page = str(metadata.get_payload())
    targets = re.findall(r"\]\(([^)]*)\)", page)
    assert len(targets) > 20
    assert [target for target in targets if not target.startswith("https://")] == []
    # Of this version; a picture as a picture, and anything else as a page to read.
    home = f"https://github.com/posewarper/posewarper/{{}}/v{__version__}/"
    assert home.format("raw") + "docs/pictures/demo.jpg" in targets
    assert home.format("blob") + "docs/formats.md" in targets
    for target in targets:
        if target.startswith("https://github.com/posewarper/posewarper/"):
            path = target.split(f"/v{__version__}/")[1].split("#")[0]
            assert (ROOT / path).is_file(), target


class Installed:
    """The wheel in an environment of its own, which borrows all other packages from that of the tests."""

    def __init__(self, wheel: Path, place: Path) -> None:
        self.away = place / "elsewhere"
        self.away.mkdir()
        venv.create(place / "venv", with_pip=False)
        scripts = place / "venv" / ("Scripts" if os.name == "nt" else "bin")
        self.python = scripts / ("python.exe" if os.name == "nt" else "python")
        words = ("--python", self.python, "install", "--quiet", "--no-index", "--no-deps", wheel)
        done = self.run(sys.executable, "-m", "pip", *words)
        assert done.returncode == 0, done.stderr
        (self.command,) = scripts.glob("posewarper*")
        # A folder that a .pth file names is looked into last, and its own .pth files are not read: what is
        # installed there in development mode, such as this checkout, stays unknown.
        self.folder = Path(self.say("import sysconfig; print(sysconfig.get_path('purelib'))"))
        borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        (self.folder / "borrowed.pth").write_text("\n".join(sorted(borrowed)) + "\n", encoding="utf-8")

    def run(self, *words: object) -> subprocess.CompletedProcess[str]:
        known = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        how = {"cwd": self.away, "env": known, "timeout": 900, "encoding": "utf-8"}
        return subprocess.run([str(word) for word in words], capture_output=True, **how)

    def say(self, code: str) -> str:
        done = self.run(self.python, "-c", code)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture(scope="module")
def installed(packages, tmp_path_factory) -> Installed:
    made = Installed(packages[0], tmp_path_factory.mktemp("alone"))
    imported = Path(made.say("import posewarper.fitting; print(posewarper.fitting.__file__)"))
    assert imported.is_relative_to(made.folder), "this checkout leaks into the environment"
    return made


def test_its_command_answers(installed):
    assert installed.run(installed.command, "--version").stdout == f"posewarper {__version__}\n"
    told = installed.run(installed.command, "--help")
    assert told.returncode == 0 and "propagate" in told.stdout and "label" in told.stdout
    known = "from importlib.metadata import version; print(version('posewarper'))"
    assert installed.say(known) == __version__
    # Type checkers read the types of a package that holds this file.
    assert (installed.folder / "posewarper" / "py.typed").is_file()


def test_it_propagates_and_reports(installed, tmp_path):
    clip, labels = write_clip(tmp_path), write_some_labels(tmp_path)
    words = ("propagate", clip, "--labels", labels, "--method", "flow", "--out", tmp_path / "out")
    done = installed.run(installed.command, *words)
    assert done.returncode == 0, done.stderr
    assert len(json.loads((tmp_path / "out" / "poses.json").read_text(encoding="utf-8"))["images"]) == 20
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    script = (ROOT / "src/posewarper/reporting/report.js").read_text(encoding="utf-8")
    assert script.strip()[:200] in report


def test_it_serves_the_labelling_page(installed, tmp_path, monkeypatch):
    monkeypatch.chdir(installed.away)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    words = (write_clip(tmp_path), "--out", tmp_path / "out", "--skeleton", "coco")
    page = Page(*words, python=installed.python)
    try:
        assert b"page.js" in page.ask("/").read()
        static = ROOT / "src/posewarper/review/static"
        for name in ("page.js", "page.css", "icon.svg"):
            assert page.ask(f"/{name}").read() == (static / name).read_bytes()
        assert page.read("/api/session")["n_frames"] == 20
    finally:
        page.process.kill()
        page.process.communicate()


def test_it_trains_a_shipped_recipe_by_its_name(installed, tmp_path):
    drawn = {"data.made_up.videos": "[2, 1]", "data.made_up.frames": 8, "data.made_up.size": "[48, 64]"}
    words = ("train", "tiny.yaml", *small_words(**drawn), "--out", tmp_path / "run", "--quiet")
    done = installed.run(installed.command, *words)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "model.pt").is_file()


def test_it_has_all_recipes(installed):
    shipped = {path.name for path in (ROOT / "src/posewarper/recipes").rglob("*.yaml")}
    code = "from posewarper.training.recipes import find_recipe\n"
    code += f"for name in {sorted(shipped)}: print(find_recipe(name))"
    found = [Path(line) for line in installed.say(code).splitlines()]
    assert {path.name for path in found} == shipped
    assert all(path.is_relative_to(installed.folder) for path in found)
