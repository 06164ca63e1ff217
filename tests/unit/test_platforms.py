"""What Windows and macOS do otherwise, with stand-ins for them: the tests themselves run anywhere."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import psutil
import pytest

from posewarper import files, runs
from posewarper.cli import common, videos
from posewarper.errors import ConfigError, LabelsError, OutputError
from posewarper.files import allowed_name, patiently, replacing, replacing_folder, write_text
from posewarper.formats import openpose
from posewarper.posetrack import results
from posewarper.review import job, server, solver
from posewarper.runs import sole_writer
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Track

posix_only = pytest.mark.skipif(os.name != "posix", reason="stands in for Windows")


def windows(monkeypatch, *modules: ModuleType) -> None:
    """Let modules of ours believe that they run on Windows, and nothing else."""
    for module in modules:
        monkeypatch.setattr(module, "sys", SimpleNamespace(platform="win32", executable=sys.executable))


@pytest.fixture
def naps(monkeypatch) -> list[float]:
    """How long one waited for other programs, without waiting."""
    waited: list[float] = []
    monkeypatch.setattr(files.time, "sleep", waited.append)
    return waited


@pytest.fixture
def in_use(monkeypatch):
    """Windows, where nobody removes or moves what is open; this process is all that opens files here."""

    def refuse(act):
        def careful(path, *others, **options):
            if os.path.realpath(path) in {file.path for file in psutil.Process().open_files()}:
                raise PermissionError(errno.EACCES, "it is being used by another process", str(path))
            return act(path, *others, **options)

        return careful

    monkeypatch.setattr(Path, "unlink", refuse(Path.unlink))
    monkeypatch.setattr(os, "replace", refuse(os.replace))


@posix_only
def test_a_file_is_written_out_by_a_handle_that_may_write(tmp_path, monkeypatch):
    import fcntl

    written = []

    def fsync(handle: int) -> None:
        # As Windows does with one that may only read.
        if not fcntl.fcntl(handle, fcntl.F_GETFL) & (os.O_RDWR | os.O_WRONLY):
            raise OSError(errno.EBADF, "Bad file descriptor")
        written.append(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(tmp_path / "a.json", "{}\n")
    assert written and (tmp_path / "a.json").read_bytes() == b"{}\n"


def test_what_another_program_has_open_for_a_moment_is_replaced_all_the_same(tmp_path, monkeypatch, naps):
    (tmp_path / "a.txt").write_text("old")
    replace, refusals = os.replace, [2]

    def busy(*paths):
        if refusals[0]:
            refusals[0] -= 1
            raise PermissionError(errno.EACCES, "it is being used by another process")
        replace(*paths)

    monkeypatch.setattr(os, "replace", busy)
    monkeypatch.setattr(files, "sys", SimpleNamespace(platform="linux"))
    with pytest.raises(OutputError, match=r"fix: +name another place"):
        write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old" and naps == []
    windows(monkeypatch, files)
    refusals[0] = 2
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new" and naps == [0.05, 0.1]
    # A player that shows the old overlay keeps it open.
    refusals[0] = 99
    with pytest.raises(OutputError, match="close the program that has it open"):
        write_text(tmp_path / "a.txt", "newer")
    assert (tmp_path / "a.txt").read_text() == "new" and os.listdir(tmp_path) == ["a.txt"]
    refusals[0] = 1
    with replacing_folder(tmp_path / "json", lambda path: True) as folder:
        (folder / "b.json").write_text("b")
    assert os.listdir(tmp_path / "json") == ["b.json"]


def test_what_fails_otherwise_is_not_tried_again(monkeypatch, naps):
    windows(monkeypatch, files)
    tried = []

    def full() -> None:
        tried.append(1)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        patiently(full)
    assert (len(tried), naps) == (1, [])


@posix_only
def test_what_cannot_be_removed_hides_no_error(tmp_path, monkeypatch, naps, in_use):
    windows(monkeypatch, files)
    with pytest.raises(ValueError, match="the real reason"), replacing(tmp_path / "a.h5") as temporary:
        handle = temporary.open("wb")  # a library that leaves it open
        raise ValueError("the real reason")
    handle.close()


def test_a_path_that_is_too_long_for_windows_says_so(tmp_path, monkeypatch):
    place = tmp_path / ("n" * 250)

    def write() -> None:
        with replacing(place / "poses.json"):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    with pytest.raises(FileNotFoundError):
        write()
    windows(monkeypatch, files)
    with pytest.raises(OutputError, match=r"too long for Windows(.|\n)*at most 259"):
        write()


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("clip 2", "clip 2"),
        ("cam:1 <left>?", "cam_1 _left__"),
        ('a"b|c*d\\e/f', "a_b_c_d_e_f"),
        ("ends with. ", "ends with__"),
        ("line\nend", "line_end"),
        ("Aux", "_Aux"),
        ("com1.part", "_com1.part"),
        ("conference", "conference"),
        ("Bär", "Bär"),
    ],
)
def test_names_that_windows_refuses(monkeypatch, name, allowed):
    monkeypatch.setattr(files, "sys", SimpleNamespace(platform="linux"))
    assert allowed_name(name) == name
    windows(monkeypatch, files)
    assert allowed_name(name) == allowed == allowed_name(allowed)


def test_files_named_after_a_video_have_names_that_windows_takes(tmp_path, monkeypatch):
    windows(monkeypatch, files)
    track = Track(np.array([0]), np.array([[[1.0, 2.0]]]))
    labels = Labels(Skeleton(("nose",)), {0: track}, image_size=(8, 8), n_frames=1, video="cam:1.mp4")
    openpose.write_labels(tmp_path / "json", labels)
    assert os.listdir(tmp_path / "json") == ["cam_1_000000000000_keypoints.json"]
    with pytest.raises(LabelsError, match="a name that this system allows"):
        results.write_results(tmp_path / "val", {"cam:1": None}, kind="paper")  # type: ignore[dict-item]


class FakeLocks(ModuleType):
    """Windows' module of that name: locks of bytes, which belong to a handle, and end with it."""

    LK_NBLCK, LK_UNLCK = 2, 0

    def __init__(self) -> None:
        super().__init__("msvcrt")
        self.held: dict[tuple[int, int], int] = {}

    def locking(self, handle: int, mode: int, n_bytes: int) -> None:
        # What is locked nobody else may read there: no byte of what the file holds.
        assert n_bytes == 1 and os.lseek(handle, 0, os.SEEK_CUR) > os.fstat(handle).st_size + 1000
        facts = os.fstat(handle)
        key = facts.st_dev, facts.st_ino
        if mode == self.LK_UNLCK:
            if self.held.pop(key, None) != handle:
                raise PermissionError(errno.EACCES, "Permission denied")
        elif self.held.setdefault(key, handle) != handle:
            raise PermissionError(errno.EACCES, "Permission denied")


@posix_only
def test_an_output_folder_has_one_writer_on_windows_too(tmp_path, monkeypatch, in_use):
    locks = FakeLocks()
    monkeypatch.setitem(sys.modules, "msvcrt", locks)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    windows(monkeypatch, runs)
    with sole_writer(tmp_path / "out"):
        assert os.listdir(tmp_path / "out") == [".lock"] and len(locks.held) == 1
        who = rf"another run is writing here(.|\n)*process {os.getpid()}"
        with pytest.raises(OutputError, match=who), sole_writer(tmp_path / "out"):
            pass
        assert len(locks.held) == 1
        assert runs.is_in_use(tmp_path / "out") and not runs.is_in_use(tmp_path)
    assert locks.held == {} and os.listdir(tmp_path) == []
    with sole_writer(tmp_path / "out"):
        # Somebody else opens the file just before it goes: it is theirs then, and stays.
        theirs = (tmp_path / "out" / ".lock").open("ab")
    theirs.close()
    assert os.listdir(tmp_path / "out") == [".lock"]
    assert not runs.is_in_use(tmp_path / "out") and runs.knows_locks(tmp_path / "out")


def test_a_file_system_without_locks_keeps_nobody_out(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    # Neither as POSIX nor as Windows has them.
    locks = SimpleNamespace(LK_NBLCK=2, LK_UNLCK=0, locking=refuse, LOCK_EX=2, LOCK_NB=4, flock=refuse)
    for name in ("msvcrt", "fcntl"):
        monkeypatch.setitem(sys.modules, name, locks)
    for platform in ("linux", "win32"):
        monkeypatch.setattr(runs, "sys", SimpleNamespace(platform=platform))
        with sole_writer(tmp_path), sole_writer(tmp_path):
            (tmp_path / "a").touch()
        assert not runs.knows_locks(tmp_path)


def test_the_peak_of_memory_is_told_on_windows(monkeypatch):
    assert runs.peak_memory() > 2**20
    windows(monkeypatch, runs)
    facts = SimpleNamespace(rss=1, peak_wset=123456)
    monkeypatch.setattr(psutil.Process, "memory_info", lambda self: facts)
    assert runs.peak_memory() == 123456


@posix_only
def test_a_port_is_ours_alone_on_windows(monkeypatch):
    # The option has no number here: one that is harmless stands in for it.
    monkeypatch.setattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_KEEPALIVE, raising=False)
    windows(monkeypatch, server)
    with server.bind(0) as listener:
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert not listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)


@posix_only
def test_a_run_of_the_page_is_stopped_by_the_end_of_its_input_on_windows(tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text(
        f"#!{sys.executable}\n"
        "import sys\n"
        "print('begun', flush=True)\n"
        "sys.stdin.read()\n"  # no signal comes
        "print('bär stopped', sys.stdout.encoding)\n"
        "sys.exit(130)\n",
        encoding="utf-8",
    )
    program.chmod(0o700)
    windows(monkeypatch, job)
    monkeypatch.setattr(job.sys, "executable", str(program))
    monkeypatch.setenv("PYTHONIOENCODING", "cp1252")  # as a console there
    ended, done = [], threading.Event()
    started = job.Job([], lambda *_: None, lambda how: (ended.append(how), done.set()))
    started.cancel()
    assert done.wait(60)
    assert ended == [job.Ended(130, "begun\nbär stopped utf-8")]
    started.close()


@pytest.mark.parametrize("error", [BrokenPipeError(errno.EPIPE, "closed"), OSError(errno.EINVAL, "no pipe")])
def test_the_end_of_a_pipe_is_looked_for_and_not_waited_for_on_windows(monkeypatch, error):
    asked, naps = [], []

    def peek(handle: int) -> tuple[int, int]:
        asked.append(handle)
        if len(asked) == 3:
            raise error
        return 0, 0

    monkeypatch.setitem(sys.modules, "_winapi", SimpleNamespace(PeekNamedPipe=peek))
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(get_osfhandle=lambda file: file + 40))
    windows(monkeypatch, common)
    monkeypatch.setattr(common.time, "sleep", naps.append)
    common._wait_for_end_of_pipe()
    assert asked == [40] * 3 and naps == [0.2] * 2


@posix_only
def test_the_page_copies_the_flow_of_a_run_on_windows(tmp_path, monkeypatch):
    source = tmp_path / "flow.bin"
    source.write_bytes(b"flow")
    solver._link(source, tmp_path / "linked.bin")
    assert source.samefile(tmp_path / "linked.bin")
    windows(monkeypatch, solver)
    solver._link(source, tmp_path / "copied.bin")
    assert not source.samefile(tmp_path / "copied.bin")
    assert (tmp_path / "copied.bin").read_bytes() == b"flow"


@pytest.mark.parametrize("platform", ["win32", "darwin", "linux"])
def test_two_videos_do_not_share_a_folder_whose_name_differs_in_case(tmp_path, monkeypatch, platform):
    monkeypatch.setattr(videos, "sys", SimpleNamespace(platform=platform))
    (tmp_path / "list.txt").write_text("a/Clip.mp4\nb/clip.mp4\n")
    if platform == "linux":
        assert videos.list_videos(str(tmp_path / "list.txt")) is not None
        return
    with pytest.raises(ConfigError, match="two videos would be written to one folder"):
        videos.list_videos(str(tmp_path / "list.txt"))


_SAYS = """
from posewarper.cli.common import print_line, take_words
take_words([])
print_line("Bär \u2192 \u2500 10 \u00b5m")
from posewarper.cli.app import main
main()
"""


@pytest.mark.parametrize("words", [["--help"], ["propagate", "--help"]])
def test_a_console_that_is_not_utf_8_shows_what_it_can(words):
    known = {**os.environ, "PYTHONIOENCODING": "cp1252:strict", "COLUMNS": "100"}
    told = subprocess.run(
        [sys.executable, "-c", _SAYS, *words], capture_output=True, env=known, timeout=120, check=False
    )
    assert told.returncode == 0, told.stderr
    first, *rest = told.stdout.decode("cp1252").splitlines()
    assert first == r"Bär \u2192 \u2500 10 µm"
    assert any("Usage" in line for line in rest) and "\\u" not in "\n".join(rest)
