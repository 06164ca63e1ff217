"""The Triton kernels in Triton's interpreter, beside torchvision: no GPU is needed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from posewarper.errors import PosewarperWarning
from posewarper.model import deformable

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="triton is not installed (it comes with torch on Linux)",
)


@pytest.fixture(scope="module")
def errors() -> dict[str, dict[str, float]]:
    """Largest differences from torchvision, by case and by output or gradient."""
    # The interpreter must be chosen before triton is imported, which this process may have done.
    script = Path(__file__).with_name("triton_cases.py")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "case", ["zero", "whole", "border", "anywhere", "far", "more outputs", "paper's width", "channels last"]
)
def test_equals_torchvision_in_values_and_all_gradients(errors, case) -> None:
    assert set(errors[case]) == {"output", "values", "offsets", "weight"}
    assert max(errors[case].values()) < 1e-5


def test_expanded_offsets_and_single_gradients(errors) -> None:
    assert errors["expanded"]["output"] < 1e-5
    assert max(errors["one at a time"].values()) == 0


def test_kernels_that_fail_are_replaced_with_a_warning(monkeypatch) -> None:
    # Compiled kernels refuse tensors of the CPU, which stands in here for a GPU that they cannot run on.
    deformable.triton_form.cache_clear()
    with pytest.warns(PosewarperWarning, match="Triton kernels of the warp do not work on cpu"):
        assert deformable.triton_form(torch.device("cpu")) is None
    deformable.triton_form.cache_clear()


def test_without_triton_there_is_no_triton_form(monkeypatch) -> None:
    deformable.triton_form.cache_clear()
    monkeypatch.setitem(sys.modules, "posewarper.model.triton_deformable", None)
    assert deformable.triton_form(torch.device("cpu")) is None
    deformable.triton_form.cache_clear()
