"""What the commands on videos share: one video or many, and what is written of each."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from posewarper import processes
from posewarper.cli.common import count_of, is_of_machine, print_line, report
from posewarper.errors import ConfigError, few_of, repeated
from posewarper.files import write_text
from posewarper.runs import (
    FACTS,
    RECORDS,
    DoneBefore,
    InUse,
    describe_process,
    duration,
    is_in_use,
    knows_locks,
    peak_memory,
)

if TYPE_CHECKING:  # importing these would slow `posewarper --help` down
    from posewarper.structures import Poses, Progress, RunResult
    from posewarper.video.source import Video

RESULTS = ("poses.json", "overlay.mp4", "sheet.jpg", "report.html")
_LISTS = (".csv", ".tsv", ".txt")
_SHEET_FRAMES = 8
_POLL = 2.0  # seconds between two looks at what other processes do


@dataclass(frozen=True)
class VideoJob:
    """One video, with the files that belong to it."""

    video: str
    labels: Path | None = None
    boxes: Path | None = None
    labels_of: str | None = None


class VideoWork(Protocol):
    """What is done with each video."""

    def __call__(self, job: VideoJob, place: Path, *, quietly: bool) -> None:
        """Work on a video and write into a folder.

        Raises:
            DoneBefore: if that was done before, and is not to be done again.
        """


def list_videos(name: str) -> list[VideoJob] | None:
    """Return the videos of a list or of a folder of videos; None where the name is that of one video.

    A list is a .csv or .tsv file with the columns ``video`` and, if need be, ``labels``, ``labels_of`` and
    ``boxes``, or a .txt file with a video a line; paths begin at its folder. A folder is one of videos if it
    holds no images but files that are videos by their suffix, or folders of frames.

    Raises:
        ConfigError: if a list cannot be read or names nothing.
    """
    place = Path(name)
    if place.suffix.lower() in _LISTS and place.is_file():
        from posewarper.formats.lists import read_list

        jobs = []
        for _, row in read_list(place, ("video", "labels", "boxes", "labels_of")):
            labels_of = row.pop("labels_of", None)
            paths = {key: place.parent / value for key, value in row.items()}
            own = paths.get("labels"), paths.get("boxes"), labels_of
            jobs.append(VideoJob(str(paths["video"]), *own))
    elif place.is_dir():
        jobs = [VideoJob(str(path)) for path in _videos_in(place)]
        if not jobs:
            return None
    else:
        return None
    stems = [Path(job.video).stem for job in jobs]
    if sys.platform in ("win32", "darwin"):  # where A and a are one folder
        stems = [stem.casefold() for stem in stems]
    doubles = repeated(stems)
    if doubles or not jobs:
        raise ConfigError(
            "two videos would be written to one folder" if doubles else "this names no video",
            path=place,
            expected="videos with names of their own",
            got=few_of(doubles) or "none",
            fix="rename them, or split the list" if doubles else "name some",
        )
    return jobs


def _videos_in(folder: Path) -> list[Path]:
    """Return the videos and folders of frames in a folder; none if it holds images itself."""
    from posewarper.formats.records import VIDEO_SUFFIXES
    from posewarper.video.images import IMAGE_SUFFIXES

    def has_images(place: Path) -> bool:
        return any(path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES for path in place.iterdir())

    if has_images(folder):
        return []
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    return [p for p in entries if (has_images(p) if p.is_dir() else p.suffix.lower() in VIDEO_SUFFIXES)]


def work_on(
    jobs: Sequence[VideoJob] | None,
    video: str,
    out: Path,
    work: VideoWork,
    *,
    quiet: bool,
    overwrite: bool = False,
) -> None:
    """Work on one video, or on those of many whose turn it is; failures are reported and skipped.

    Of N processes that ``torchrun`` started each takes every N-th video, and then those of others that are
    neither done nor being worked on: of slower processes, and of those that have died. Nobody leaves before
    every video is done or has failed, since ``torchrun`` ends all processes with the first that fails. Where
    the file system knows no locks, and with ``overwrite``, each keeps to its own.

    Results of one of many videos lie in ``out/<its name>``; one that is done is skipped; what went wrong with
    it is written to ``out/<its name>.error.txt``. Without ``jobs`` (see :func:`list_videos`) there is one
    ``video``, whose results lie in ``out`` itself and which one process works on.

    Raises:
        SystemExit: with 2 if one of many videos failed in this process.
    """
    if jobs is None:
        if processes.is_first():
            work(VideoJob(video), out, quietly=quiet)
        return
    failed = _SharedList(jobs, out, work, quiet=quiet, overwrite=overwrite).run()
    if failed:
        print_line(f"{len(failed)} of {len(jobs)} videos failed: {few_of(failed, 10)}", file=sys.stderr)
        raise SystemExit(2)


class _SharedList:
    """The videos of a list, as one process of several goes through them."""

    def __init__(
        self, jobs: Sequence[VideoJob], out: Path, work: VideoWork, *, quiet: bool, overwrite: bool
    ) -> None:
        rank, world = processes.rank(), processes.world()
        self._out, self._work, self._quiet = out, work, quiet or world > 1
        self._own = list(jobs)[rank::world]
        others = [
            (n // world, (n % world - rank) % world, job) for n, job in enumerate(jobs) if n % world != rank
        ]
        # Their owners come last to the videos at the end.
        others.sort(key=lambda one: (-one[0], one[1]))
        helps = world > 1 and not overwrite and knows_locks(out)
        self._others = [job for *_, job in others] if helps else []
        self._failed: list[str] = []
        # Of another run that was started together each process would count its own failures as news.
        self._run = processes.run_name() if world > 1 else ""

    def run(self) -> list[str]:
        """Work until every video is done or has failed; returns those that failed in this process."""
        for job in self._own:
            self._note(job).unlink(missing_ok=True)
        begun, n_done, left = time.monotonic(), 0, []
        for number, job in enumerate(self._own, start=1):
            rest = (time.monotonic() - begun) * (len(self._own) - number + 1) / max(n_done, 1)
            about = f", about {duration(rest)} left for all" if n_done else ""
            print_line(f"[{number}/{len(self._own)}] {job.video}{about}")
            done = self._attempt(job)
            n_done += bool(done)
            if done is None:
                left.append(job)
        self._finish([*left, *self._others])
        return self._failed

    def _finish(self, left: list[VideoJob]) -> None:
        """Take what other processes leave undone, and wait for what they are working on."""
        told = False
        while left:
            still, attempted = [], False
            for job in left:
                if job not in self._own and self._is_settled(job):
                    continue
                if not is_in_use(self._place(job)):
                    print_line(f"taken over: {job.video}")
                    attempted = True
                    if self._attempt(job) is not None:
                        continue
                still.append(job)
            left = still
            if left and not attempted:
                if not told:
                    names = few_of([job.video for job in left])
                    print_line(f"waiting for videos that other processes are working on: {names}")
                told = True
                time.sleep(_POLL)

    def _place(self, job: VideoJob) -> Path:
        return self._out / Path(job.video).stem

    def _note(self, job: VideoJob) -> Path:
        return self._out / f"{Path(job.video).stem}.error.txt"

    def _is_settled(self, job: VideoJob) -> bool:
        """Whether a video of another process is done or has failed in this run."""
        if (self._place(job) / FACTS).is_file():
            return True
        try:
            return self._note(job).read_text(encoding="utf-8").rpartition("\nrun: ")[2].strip() == self._run
        except (OSError, ValueError):
            return False

    def _attempt(self, job: VideoJob) -> bool | None:
        """Work on a video; returns whether it was done now, None if another process is working on it."""
        try:
            self._work(job, self._place(job), quietly=self._quiet)
        except DoneBefore:
            print_line("skipped: this video is done already")
            return False
        except InUse:
            return None
        except Exception as error:
            if is_of_machine(error):  # which would spoil the others too
                raise
            self._failed.append(job.video)
            said = report(error, job.video)
            print_line(f"skipped: {job.video}", file=sys.stderr)
            write_text(self._note(job), f"{said}\nrun: {self._run}\n")
            return False
        return True


def check_rerun(recording: Path | None, jobs: list[VideoJob] | None, out: Path, overwrite: bool) -> None:
    """Check before the work that the recording which was asked for can be written.

    Raises:
        ConfigError: if there are many videos for one file, or what it needs is not installed.
        OutputError: if it is there already.
    """
    if recording is None:
        return
    if jobs is not None:
        raise ConfigError(
            "many videos do not go into one recording",
            path=recording,
            fix="leave --rerun out, or give one video",
        )
    from posewarper.reporting.rerun import check_recording

    # What a stopped run has written is written again when it is resumed.
    check_recording(recording, overwrite or (out / RECORDS).is_dir())


def describe_gaps(poses: Poses, span: range | None = None) -> str:
    """Say on how many frames there is no pose, and which tracks lack on some; empty where none does."""
    n = poses.n_frames if span is None else len(span)
    lacking = {i: n - len(track.frames) for i, track in poses.tracks.items() if len(track.frames) < n}
    if not lacking:
        return ""
    empty = n - len({frame for track in poses.tracks.values() for frame in track.frames.tolist()})
    some = [f"track {i} has none on {count_of(number, 'frame')}" for i, number in lacking.items()]
    return f"{empty} of {n} frames have no pose" + (f"; {few_of(some)}" if len(poses.tracks) > 1 else "")


def describe_result(
    result: RunResult, inputs: Mapping[str, Any], ran_on: str, seconds: float, **more: Any
) -> dict[str, Any]:
    """Return what was run, as plain values: inputs with hashes, versions, settings, timings, notes."""
    return {
        **describe_process(ran_on),
        "inputs": inputs,
        **more,
        "method": result.method,
        "config": {name: None if value != value else value for name, value in result.config.items()},
        "tracks": {str(i): {"frames": len(track.frames)} for i, track in result.poses.tracks.items()},
        "notes": list(result.notes),
        "seconds": {**{k: round(v, 2) for k, v in result.seconds.items()}, "total": round(seconds, 2)},
        "peak_memory_bytes": peak_memory(),
    }


def frames_to_show(result: RunResult) -> list[int]:
    """Return which frames the sheet and the report will show."""
    from posewarper.reporting.report import frames_in_report

    return sorted({*_sheet_frames(result), *frames_in_report(result)})


def _sheet_frames(result: RunResult) -> list[int]:
    import numpy as np

    frames = np.unique(np.concatenate([t.frames for t in result.poses.tracks.values()]))
    picks = np.linspace(0, len(frames) - 1, min(_SHEET_FRAMES, len(frames)))
    return sorted({int(frames[round(p)]) for p in picks})


def write_pictures(
    out: Path,
    video: Video,
    result: RunResult,
    progress: Progress,
    *,
    overlay: bool = True,
    span: range | None = None,
    recording: Path | None = None,
) -> None:
    """Write ``sheet.jpg``, with frames spread over the clip, if asked for ``overlay.mp4`` and a recording."""
    from posewarper.reporting.overlay import write_overlay, write_sheet

    if overlay:
        write_overlay(out / "overlay.mp4", video, result.poses, span=span, progress=progress)
    if recording is not None:
        from posewarper.reporting.rerun import write_recording

        write_recording(recording, video, result.poses, span=span, progress=progress)
    write_sheet(out / "sheet.jpg", video, result.poses, _sheet_frames(result))
