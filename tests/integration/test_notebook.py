"""The notebooks in examples/ run from the first cell to the last, and show what their text says."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from moving_clip import some_labels, write_clip
from nbclient import NotebookClient

from posewarper.formats.labels import read_annotations, write_labels

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


COLAB = NOTEBOOK.with_name("colab.ipynb")
# What Colab brings along: its dialogs for files.
_FILES = """\
def upload():
    return {"my clip.mp4": b"", "labels.json": b""}


def download(path):
    print("downloads", path)
"""


@pytest.mark.slow
def test_the_notebook_for_colab_runs_on_files_that_were_chosen(tmp_path: Path) -> None:
    notebook = nbformat.read(COLAB, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "keep the notebook without outputs"
    tags = [cell.metadata.get("tags", []) for cell in notebook.cells]
    install, propagate = tags.index(["install"]), tags.index(["propagate"])
    # What it installs is here, and a network would take minutes.
    assert "pip install" in notebook.cells[install].source
    assert 'EFFORT = "normal"' in notebook.cells[propagate].source
    notebook.cells[propagate].source = notebook.cells[propagate].source.replace('"normal"', '"fast"')
    del notebook.cells[install]
    (tmp_path / "google" / "colab").mkdir(parents=True)
    (tmp_path / "google" / "colab" / "__init__.py").write_text("")
    (tmp_path / "google" / "colab" / "files.py").write_text(_FILES)
    notebook.cells.insert(0, nbformat.v4.new_code_cell("import google; google.__path__.append('google')"))
    write_clip(tmp_path).rename(tmp_path / "my clip.mp4")
    write_labels(tmp_path / "labels.json", some_labels(video=None))
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    said = "\n".join(output_of(cell) for cell in code)
    assert "20 frames, 3 labelled" in said and "downloads" in said
    assert sum("image/jpeg" in o.get("data", {}) for cell in code for o in cell["outputs"]) == 1
    poses = read_annotations(tmp_path / "colab_results" / "result" / "poses.json")
    assert len(poses.tracks[0].frames) == 20
    assert (tmp_path / "colab_results" / "result.zip").stat().st_size > 10_000
