"""The scripts in the folder of cases: each makes its input from nothing and ends with 0 if all is right."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("POSEWARPER_CASES", Path(__file__).resolve().parents[3] / "shared" / "cases"))
# Seconds to a minute: networks, kills, many frames or an import of torch for each of many files.
SLOW = ("03-recipe", "04-recipe", "07-recipe", "12-train", "14-", "16-", "17-", "18-", "22-", "30-")
NAMES = sorted(p.name for p in FOLDER.glob("[0-9]*") if p.suffix in (".sh", ".py")) if FOLDER.is_dir() else []


def _case(name: str):
    marks = [pytest.mark.slow] if name.startswith(SLOW) else []
    return pytest.param(name, marks=marks, id=name)


def test_the_cases_are_there(cases_dir):
    assert NAMES, f"{cases_dir} holds no script"


@pytest.mark.parametrize("name", list(map(_case, NAMES)))
def test_case(name: str, cases_dir):
    # Some ask for the exit code of the first command of a pipe.
    words = [sys.executable] if name.endswith(".py") else ["bash", "-o", "pipefail"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "LIMIT7": "60"}
    case = subprocess.run(
        [*words, cases_dir / name], env=environment, capture_output=True, text=True, timeout=900
    )
    assert case.returncode == 0, case.stdout[-2000:] + case.stderr[-2000:]
