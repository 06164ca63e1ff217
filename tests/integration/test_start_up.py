"""What a command knows without PyTorch, it says before PyTorch is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

_RUN = """
import sys
from posewarper.cli.app import main
code = 0
try:
    main()
except SystemExit as ended:
    code = ended.code
heavy = sorted({"torch", "timm", "cv2", "scipy"} & set(sys.modules)) if code == 0 else "torch" in sys.modules
print(f"ended with {code}, imported {heavy}")
"""


def last_line(*words: object) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *map(str, words)], capture_output=True, text=True, timeout=300
    )
    return done.stdout.splitlines()[-1], done.stderr


@pytest.mark.parametrize("command", ["", "propagate", "predict"])
def test_help_imports_nothing_that_takes_long(command):
    assert last_line(*command.split(), "--help")[0] == "ended with 0, imported []"


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        ("propagate absent.mp4 --labels here", "absent.mp4"),
        ("propagate here --labels absent.json", "absent.json"),
        ("propagate here --labels here --model absent.pt", "absent.pt"),
        ("predict absent.mp4 --model here --whole-frame", "absent.mp4"),
        ("predict here --model absent.pt --whole-frame", "absent.pt"),
        ("predict here --model here --boxes absent.json", "absent.json"),
    ],
)
def test_missing_files_are_noticed_before_pytorch_is_imported(tmp_path, monkeypatch, words, missing):
    (tmp_path / "here").write_text("anything")
    monkeypatch.chdir(tmp_path)
    said, err = last_line(*words.split())
    assert said == "ended with 2, imported False"
    assert f"{missing}: there is no such file" in err and "expected:" in err and "fix:" in err


def test_prediction_with_given_boxes_does_without_torchvision():
    code = "import sys, posewarper.prediction.video; print('torchvision' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "False", done.stderr
