"""Files are replaced as a whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import av
import pytest

from posewarper.errors import OutputError
from posewarper.files import remove_leftovers, replacing, replacing_folder


def test_the_new_content_takes_the_old_one_s_place(tmp_path):
    target = tmp_path / "deep" / "down" / "poses.json"
    for text in ("one", "two"):
        with replacing(target) as temporary:
            temporary.write_text(text)
            assert temporary.parent == target.parent
            assert temporary.suffix == ".json"
            assert temporary.name.startswith(".")
        assert target.read_text() == text
    assert os.listdir(target.parent) == ["poses.json"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError(errno.ENOSPC, "full")])
def test_a_failure_leaves_the_old_content_and_nothing_else(tmp_path, error):
    target = tmp_path / "model.pt"
    target.write_text("old")
    with (
        pytest.raises(error if isinstance(error, type) else type(error)) as caught,
        replacing(target) as temporary,
    ):
        temporary.write_text("half")
        raise error
    assert not isinstance(caught.value, OutputError)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["model.pt"]


def test_a_full_disk_on_replacing_stays_an_oserror(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space") as caught, replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("text")
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == []


def test_a_failure_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="early"), replacing(tmp_path / "a.txt"):
        raise ValueError("early")
    assert os.listdir(tmp_path) == []


def test_places_that_cannot_be_written_are_refused(tmp_path):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    for place in (tmp_path / "file" / "a.txt", tmp_path / "file" / "b" / "a.txt", tmp_path / "folder"):
        with pytest.raises(OutputError) as caught, replacing(place) as temporary:
            temporary.write_text("text")
        assert str(place.parent) in str(caught.value)
    assert (tmp_path / "file").read_text() == "kept"
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="cannot write"), replacing(tmp_path / "a.txt") as temporary:
            temporary.write_text("text")
    finally:
        tmp_path.chmod(0o700)


def test_a_folder_takes_the_place_of_one_whose_files_may_be_lost(tmp_path):
    target = tmp_path / "deep" / "json"
    for names in (("a.json", "b.json"), ("c.json",)):
        with replacing_folder(target, lambda path: path.suffix == ".json") as temporary:
            assert temporary.parent == target.parent and not list(temporary.iterdir())
            for name in names:
                (temporary / name).write_text(name)
        assert sorted(os.listdir(target)) == list(names)
    assert os.listdir(target.parent) == ["json"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_folder_and_nothing_else(tmp_path, error):
    target = tmp_path / "json"
    target.mkdir()
    (target / "a.json").write_text("old")
    with pytest.raises(error), replacing_folder(target, lambda path: True) as temporary:
        (temporary / "a.json").write_text("half")
        raise error
    assert (target / "a.json").read_text() == "old"
    assert os.listdir(tmp_path) == ["json"]


def test_a_folder_with_other_files_and_what_is_no_folder_are_kept(tmp_path):
    (tmp_path / "notes.txt").write_text("precious")
    for target, message in ((tmp_path, "other files"), (tmp_path / "notes.txt", "no folder")):
        with pytest.raises(OutputError, match=message), replacing_folder(target, lambda path: False):
            pass
    with (
        pytest.raises(OutputError, match="cannot write this folder"),
        replacing_folder(tmp_path / "notes.txt" / "json", lambda path: True),
    ):
        pass
    assert (tmp_path / "notes.txt").read_text() == "precious"
    assert os.listdir(tmp_path) == ["notes.txt"]


@pytest.mark.parametrize("name", ["a.b.json", "folder"])
def test_what_a_killed_process_left_is_removed_and_not_what_a_running_one_writes(tmp_path, name):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    stem, suffix = Path(name).stem, Path(name).suffix
    killed = tmp_path / f".{stem}.{dead.pid}.partial{suffix}"
    alive = tmp_path / f".{stem}.{os.getpid()}.partial{suffix}"
    other = tmp_path / f".other.{dead.pid}.partial.json"
    old = tmp_path / f".{stem}.{dead.pid}.old"
    old.mkdir()
    for path in (killed, alive, other):
        path.touch() if suffix else path.mkdir()
    remove_leftovers(tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == {alive.name, other.name}


def test_what_another_machine_writes_is_left_whatever_runs_here_under_its_number(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    new, old = (tmp_path / f".a.another-{n}-{dead.pid}.partial.json" for n in (1, 2))
    for path in (new, old):
        path.touch()
    os.utime(old, (time.time() - 90000,) * 2)
    remove_leftovers(tmp_path / "a.json")
    assert [path.name for path in tmp_path.iterdir()] == [new.name]


def test_two_machines_do_not_write_to_one_temporary_file(tmp_path, monkeypatch):
    with replacing(tmp_path / "a.json") as one:
        monkeypatch.setattr("posewarper.files.machine_name", lambda: "another")
        with replacing(tmp_path / "a.json") as other:
            assert one != other
            one.write_text("one")
            other.write_text("other")
        assert (tmp_path / "a.json").read_text() == "other"
    assert (tmp_path / "a.json").read_text() == "one" and os.listdir(tmp_path) == ["a.json"]


def test_a_full_disk_names_the_file_whatever_the_library_says(tmp_path, monkeypatch):
    def full(path, error):
        with replacing(path):
            raise error

    with pytest.raises(OSError, match="No space left") as caught:
        full(tmp_path / "a.json", OSError(errno.ENOSPC, "No space left on device"))
    assert caught.value.filename == str(tmp_path / "a.json")
    with pytest.raises(RuntimeError, match="cannot flush"):
        full(tmp_path / "a.h5", RuntimeError("cannot flush"))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    of_av = av.error.OSError(errno.ENOSPC, "No space left on device", "a.partial.h5")
    for error in (RuntimeError("cannot flush"), OSError("Can't write data"), of_av):
        with pytest.raises(OSError, match="No space left") as caught:
            full(tmp_path / "a.h5", error)
        assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "a.h5"))
    with pytest.raises(OutputError, match="other"):
        full(tmp_path / "a.h5", OutputError("other", fix="none"))
