"""A folder has one writer, whatever becomes of it."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from posewarper.errors import OutputError
from posewarper.runs import sole_writer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="nothing is locked there")


def test_one_writer_at_a_time(tmp_path) -> None:
    out = tmp_path / "out"
    with sole_writer(out):
        with pytest.raises(OutputError, match="another run is writing here"), sole_writer(out):
            pass
        (out / "poses.json").touch()
    with sole_writer(out):
        pass
    assert [path.name for path in out.iterdir()] == ["poses.json"]


def test_a_folder_to_which_nothing_was_written_goes_again(tmp_path) -> None:
    with pytest.raises(ValueError), sole_writer(tmp_path / "out"):
        raise ValueError
    (tmp_path / "own").mkdir()
    with sole_writer(tmp_path / "own"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


def test_a_killed_writer_is_in_nobodys_way(tmp_path) -> None:
    child = os.fork()
    if child == 0:
        with sole_writer(tmp_path):
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert (tmp_path / ".lock").exists()
    with sole_writer(tmp_path):
        pass


def test_what_is_no_folder(tmp_path) -> None:
    (tmp_path / "file").touch()
    for name in ("file", "file/in", "n" * 300):
        with pytest.raises(OutputError, match="another output folder"), sole_writer(tmp_path / name):
            pass
