"""Many videos by one command: which they are, whose turn each is, and what to do when one fails."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from posewarper.cli.common import is_of_machine
from posewarper.errors import ConfigError, OutputError, PosewarperError

_LISTS = (".csv", ".tsv", ".txt")
_VIDEOS = (
    *(
        ".mp4",
        ".mov",
        ".avi",
        ".mkv",
        ".webm",
        ".m4v",
        ".mpg",
        ".mpeg",
        ".ts",
        ".mts",
        ".m2ts",
        ".wmv",
        ".flv",
    ),
    *(".ogv", ".3gp", ".mjpeg"),
)
_COLUMNS = ("video", "labels", "boxes")


@dataclass(frozen=True)
class VideoJob:
    """One video of many, with the files that belong to it."""

    video: str
    labels: Path | None = None
    boxes: Path | None = None


class DoneBefore(OutputError):
    """The folder holds the results of a finished run with the same settings and inputs."""


class VideoWork(Protocol):
    """What is done with each video."""

    def __call__(self, job: VideoJob, place: Path, *, quietly: bool) -> None:
        """Work on a video and write into a folder.

        Raises:
            DoneBefore: if that was done before, and is not to be done again.
        """


def list_videos(name: str) -> list[VideoJob] | None:
    """Return the videos of a list or of a folder of videos; None where the name is that of one video.

    A list is a .csv or .tsv file with the columns ``video`` and, if need be, ``labels`` and ``boxes``, or a
    .txt file with a video a line; paths begin at its folder. A folder is one of videos if it holds no images
    but files that are videos by their suffix, or folders of frames.

    Raises:
        ConfigError: if a list cannot be read or names nothing.
    """
    place = Path(name)
    if place.suffix.lower() in _LISTS and place.is_file():
        jobs = _read_list(place)
    elif place.is_dir():
        found = _videos_in(place)
        if found is None:
            return None
        jobs = [VideoJob(str(path)) for path in found]
    else:
        return None
    stems = [Path(job.video).stem for job in jobs]
    doubles = sorted({stem for stem in stems if stems.count(stem) > 1})
    if doubles or not jobs:
        raise ConfigError(
            "two videos would be written to one folder" if doubles else "this names no video",
            path=place,
            expected="videos with names of their own",
            got=", ".join(doubles[:5]) or "none",
            mend="rename them, or split the list" if doubles else "name some",
        )
    return jobs


def _videos_in(folder: Path) -> list[Path] | None:
    from posewarper.io.images import IMAGE_SUFFIXES

    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    if any(path.suffix.lower() in IMAGE_SUFFIXES for path in entries if path.is_file()):
        return None

    def is_video(path: Path) -> bool:
        if path.is_file():
            return path.suffix.lower() in _VIDEOS
        return any(inner.suffix.lower() in IMAGE_SUFFIXES for inner in path.iterdir())

    return [path for path in entries if is_video(path)] or None


def _read_list(place: Path) -> list[VideoJob]:
    import csv

    try:
        lines = place.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "cannot read this list of videos", path=place, got=error, mend="check it"
        ) from error
    if place.suffix.lower() == ".txt":
        rows: list[dict[str, str]] = [{"video": line.strip()} for line in lines if line.strip()]
    else:
        delimiter = "," if place.suffix.lower() == ".csv" else "\t"
        reader = csv.DictReader(lines, delimiter=delimiter, skipinitialspace=True, restkey="more")
        rows = [dict(row) for row in reader]
    jobs = []
    for number, row in enumerate(rows, start=1):
        values = {
            key: value.strip() for key, value in row.items() if isinstance(value, str) and value.strip()
        }
        strangers = [str(key) for key in row if key not in _COLUMNS]
        if strangers or "video" not in values:
            raise ConfigError(
                f"row {number} of this list cannot be used",
                path=place,
                expected="columns video, labels and boxes",
                got=f"unknown {', '.join(strangers)}" if strangers else "no video",
                mend="correct the row",
            )
        paths = {key: place.parent / value for key, value in values.items()}
        jobs.append(VideoJob(str(paths["video"]), paths.get("labels"), paths.get("boxes")))
    return jobs


def share_videos(jobs: Sequence[VideoJob], out: Path, work: VideoWork, *, quiet: bool) -> None:
    """Work on the videos whose turn it is in this process; one that fails is told of and left out.

    Of N processes that ``torchrun`` started each takes every N-th video. Results of a video lie in
    ``out/<its name>``; one that is done is skipped.

    Raises:
        SystemExit: with 2 if a video failed.
    """
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    failed: list[str] = []
    mine = list(jobs)[rank::world]
    for number, job in enumerate(mine, start=1):
        place = out / Path(job.video).stem
        print(f"[{number}/{len(mine)}] {job.video}", flush=True)
        try:
            work(job, place, quietly=quiet or world > 1)
        except DoneBefore:
            print("done before", flush=True)
        except Exception as error:
            if is_of_machine(error):  # which would spoil the others too
                raise
            failed.append(job.video)
            if not isinstance(error, PosewarperError):
                traceback.print_exc()
            print(f"error: {error}\nleft out: {job.video}", file=sys.stderr, flush=True)
    if failed:
        print(f"{len(failed)} of {len(mine)} videos failed: {', '.join(failed[:10])}", file=sys.stderr)
        raise SystemExit(2)
