"""What the tests share: the folders of real clips, parity vectors and cases, where they exist."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Networks of tests are tiny: threads that wait for each other cost more than they save. Read by torch when it
# is first imported, and by the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Flow that is kept of one test must not serve another: tests of it name a folder.
os.environ["POSEWARPER_CACHE"] = ""

_SHARED = Path(__file__).resolve().parents[2] / "shared"


def _folder(variable: str, name: str) -> Path:
    folder = Path(os.environ.get(variable, _SHARED / name))
    if folder.is_dir():
        return folder
    message = f"{folder} is absent; set {variable} to the folder of {name}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def parity_dir() -> Path:
    """The recorded inputs and outputs of the original implementation."""
    return _folder("POSEWARPER_PARITY", "parity")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real clips with dense labels."""
    return _folder("POSEWARPER_DATA", "data")


@pytest.fixture(scope="session")
def cases_dir() -> Path:
    """The scripts that make odd input and say whether it is taken rightly."""
    return _folder("POSEWARPER_CASES", "cases")
