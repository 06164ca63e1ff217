"""The notebook in examples/ runs from its first cell to its last, and shows what its text says."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "quick_start.ipynb"


def output_of(cell: dict) -> str:
    return "".join(o.get("text", "") for o in cell["outputs"] if o["output_type"] == "stream")


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "keep the notebook without outputs"
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    said = "\n".join(output_of(cell) for cell in code)
    assert "labelled: [7, 22, 37, 52]" in said and "(60, 1, 17, 2)" in said
    assert sum("image/png" in o.get("data", {}) for cell in code for o in cell["outputs"]) == 2
    means = {m[1]: float(m[2]) for m in re.finditer(r"(\w+) +mean +([\d.]+)", said)}
    assert means["default"] < min(means["linear"], means["flow2"])
    assert {path.name for path in (tmp_path / "notebook_results").iterdir()} == {
        *("clip.mp4", "labels.json", "poses.json", "CollectedData_me.csv")
    }
