"""What the parity tests share: one measure of error, and the table of the largest ones."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from largest_errors import measure, write_report


@pytest.fixture(scope="session")
def parity_error() -> Callable[[str], Callable[[Any, Any], float]]:
    """``parity_error("decode.npz")(ours, theirs)``: the relative error, noted for the report."""
    return lambda file: partial(measure, file)


def pytest_sessionfinish() -> None:
    if place := os.environ.get("POSEWARPER_PARITY_REPORT"):
        write_report(Path(place))
