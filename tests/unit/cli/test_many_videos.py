"""One of many videos that fails does not end the others."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from posewarper.cli import videos
from posewarper.cli.videos import VideoJob, work_on
from posewarper.errors import LabelsError
from posewarper.files import write_json
from posewarper.runs import DoneBefore, claim, sole_writer


def test_whatever_goes_wrong_with_one_video_the_others_are_done(tmp_path, capsys) -> None:
    done: list[Path] = []

    def work(job: VideoJob, place: Path, *, quietly: bool) -> None:
        if job.video == "odd.mp4":
            raise ValueError("nobody thought of this")
        if job.video == "old.mp4":
            raise DoneBefore("results already", fix="none is needed")
        done.append(place)

    jobs = [VideoJob(name) for name in ("odd.mp4", "old.mp4", "good.mp4")]
    with pytest.raises(SystemExit) as left:
        work_on(jobs, "list.csv", tmp_path, work, quiet=True)
    said, err = capsys.readouterr()
    assert left.value.code == 2 and done == [tmp_path / "good"] and said.count("is done already") == 1
    assert "error: odd.mp4: " in err and "ValueError: nobody thought of this" in err and "fix:" in err
    assert "skipped: odd.mp4" in err and "1 of 3 videos failed" in err and "Traceback" not in err


def test_a_list_tells_how_long_the_rest_takes(tmp_path, capsys, monkeypatch) -> None:
    now = [0.0]
    monkeypatch.setattr(videos.time, "monotonic", lambda: now[0])

    def work(job: VideoJob, place: Path, *, quietly: bool) -> None:
        now[0] += 60

    jobs = [VideoJob(name) for name in ("a.mp4", "b.mp4", "c.mp4")]
    work_on(jobs, "list.csv", tmp_path, work, quiet=True)
    assert capsys.readouterr().out.splitlines() == [
        "[1/3] a.mp4",
        "[2/3] b.mp4, about 2 min 0 s left for all",
        "[3/3] c.mp4, about 1 min 0 s left for all",
    ]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "disk full"), KeyboardInterrupt()])
def test_what_would_spoil_every_video_ends_the_list(tmp_path, error) -> None:
    def work(job: VideoJob, place: Path, *, quietly: bool) -> None:
        raise error

    with pytest.raises(type(error)):
        work_on([VideoJob("a.mp4"), VideoJob("b.mp4")], "list.csv", tmp_path, work, quiet=True)


NAMES = ("a.mp4", "b.mp4", "c.mp4", "d.mp4", "e.mp4")


class Works:
    """Writes what the commands write, under the same claim; notes the videos in the order of their turns."""

    def __init__(self, before=lambda job: None) -> None:
        self.done: list[str] = []
        self._before = before

    def __call__(self, job: VideoJob, place: Path, *, quietly: bool) -> None:
        with claim(place, {"video": job.video}, ["poses.json"]) as run:
            run.begin()
            self._before(job)
            write_json(place / "poses.json", {})
            run.finish({})
        self.done.append(job.video)


def as_process(monkeypatch, rank: int, world: int = 2) -> None:
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(world))
    monkeypatch.setattr(videos, "_POLL", 0.01)


def test_a_process_does_its_own_videos_and_then_what_others_leave(tmp_path, monkeypatch, capsys) -> None:
    as_process(monkeypatch, 1, 3)
    work = Works()
    work_on([VideoJob(name) for name in NAMES], "list.csv", tmp_path, work, quiet=True)
    # Of the others' the last ones first: those that come next after its own.
    assert work.done == ["b.mp4", "e.mp4", "d.mp4", "c.mp4", "a.mp4"]
    as_process(monkeypatch, 0, 3)
    late = Works()
    work_on([VideoJob(name) for name in NAMES], "list.csv", tmp_path, late, quiet=True)
    assert late.done == [] and capsys.readouterr().out.count("done already") == 2


def test_with_overwrite_or_without_locks_each_keeps_to_its_own(tmp_path, monkeypatch) -> None:
    as_process(monkeypatch, 0)
    jobs, work = [VideoJob(name) for name in NAMES], Works()
    work_on(jobs, "list.csv", tmp_path / "a", work, quiet=True, overwrite=True)
    monkeypatch.setattr(videos, "knows_locks", lambda folder: False)
    work_on(jobs, "list.csv", tmp_path / "b", work, quiet=True)
    assert work.done == ["a.mp4", "c.mp4", "e.mp4"] * 2


def test_nobody_leaves_while_another_works_and_a_dead_ones_video_is_taken_over(tmp_path, monkeypatch, capsys):
    as_process(monkeypatch, 0)
    # The other process holds its video, and dies before it is done.
    held = sole_writer(tmp_path / "b")
    held.__enter__()
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            held.__exit__(None, None, None)

    monkeypatch.setattr(videos.time, "sleep", sleep)
    work = Works()
    work_on([VideoJob(name) for name in NAMES[:2]], "list.csv", tmp_path, work, quiet=True)
    assert len(slept) == 3 and work.done == ["a.mp4", "b.mp4"]
    out = capsys.readouterr().out
    assert out.count("waiting for videos that other processes are working on: b.mp4") == 1
    assert out.count("taken over: b.mp4") == 1


def test_a_video_of_ones_own_that_another_has_is_waited_for(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(videos, "_POLL", 0.01)
    held = sole_writer(tmp_path / "a")
    held.__enter__()
    monkeypatch.setattr(videos.time, "sleep", lambda seconds: held.__exit__(None, None, None))
    work = Works()
    work_on([VideoJob(name) for name in NAMES[:2]], "list.csv", tmp_path, work, quiet=True)
    assert work.done == ["b.mp4", "a.mp4"]


def test_a_failure_is_noted_and_no_other_process_tries_again(tmp_path, monkeypatch, capsys) -> None:
    def fail(job: VideoJob) -> None:
        if job.video == "b.mp4":
            raise LabelsError("no labels", path="b.json", fix="make some")

    jobs, work = [VideoJob(name) for name in NAMES[:4]], Works(fail)
    as_process(monkeypatch, 1)
    with pytest.raises(SystemExit) as left:
        work_on(jobs, "list.csv", tmp_path, work, quiet=True)
    assert left.value.code == 2 and work.done == ["d.mp4", "c.mp4", "a.mp4"]
    note = tmp_path / "b.error.txt"
    assert "b.json: no labels" in note.read_text() and not (tmp_path / "b").exists()
    as_process(monkeypatch, 0)
    work_on(jobs, "list.csv", tmp_path, work, quiet=True)
    assert work.done == ["d.mp4", "c.mp4", "a.mp4"]
    # A run that was started anew tries again.
    monkeypatch.setenv("MASTER_PORT", "29501")
    again = Works()
    work_on(jobs, "list.csv", tmp_path, again, quiet=True)
    assert again.done == ["b.mp4"]
    as_process(monkeypatch, 1)
    work_on(jobs, "list.csv", tmp_path, again, quiet=True)
    assert not note.exists()


def test_one_video_is_worked_on_by_the_first_process(tmp_path, monkeypatch) -> None:
    work = Works()
    for rank in (1, 0):
        as_process(monkeypatch, rank)
        work_on(None, "a.mp4", tmp_path / "out", work, quiet=True)
        assert work.done == ["a.mp4"] * (rank == 0)
