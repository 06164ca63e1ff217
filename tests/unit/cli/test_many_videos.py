"""One of many videos that fails does not end the others."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from posewarper.cli import videos
from posewarper.cli.videos import VideoJob, work_on
from posewarper.runs import DoneBefore


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
