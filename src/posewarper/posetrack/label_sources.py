"""The videos of each split of a download, and how the labels of each are read."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from posewarper.errors import LabelsError
from posewarper.instances import InstanceTable
from posewarper.io.tables import read_tables
from posewarper.posetrack.frame_files import base_of, leading_number, list_images
from posewarper.posetrack.layouts import SPLITS, SplitLabels

Source = list[Any]  # path, bytes and time of change of a file
_SAMPLED = 5  # videos by which the folder of frames is found


@dataclass(frozen=True)
class VideoLabels:
    """The labels of one video, not read yet.

    Args:
        split: "train", "val" or "test".
        stem: of the official label file.
        sources: the files that the labels come from, as :func:`source_of` gives them.
        read: reads the labels, with names of frames as in the download.
        renamed: whether the frames bear the names that the original gave them, not those of the download.
    """

    split: str
    stem: str
    sources: tuple[Source, ...]
    read: Callable[[], InstanceTable]
    renamed: bool = False


def source_of(path: Path) -> Source:
    """Return what tells whether a file has changed: its path, size and time of change."""
    state = path.stat()
    return [str(path), state.st_size, state.st_mtime_ns]


def folder_of(table: InstanceTable, path: str | Path) -> str:
    """Return the folder of a video's frames, relative to that of all images.

    Raises:
        LabelsError: if there is no frame, or they lie in several folders.
    """
    folders = sorted({name.rsplit("/", 1)[0] if "/" in name else "" for name in table.frame_names})
    if len(folders) != 1 or not folders[0]:
        raise LabelsError(
            "the frames of a video do not lie in one folder",
            path=path,
            expected="names of frames like images/val/000001_mpii_test/000000.jpg",
            got=", ".join(folders[:3]) or "frames without a folder" if folders else "no frames",
            mend="check that this is a label file of PoseTrack",
        )
    return folders[0]


def list_videos(labels: SplitLabels, known: Sequence[VideoLabels] = ()) -> list[VideoLabels]:
    """List the videos of a split; label files of one video are not read here, one of all videos is.

    Args:
        labels: where the labels are.
        known: the videos of an earlier, complete run from the same combined file, which then is not read.
    """
    if labels.combined is None:
        return [
            VideoLabels(labels.split, path.stem, (source_of(path),), partial(read_video, path))
            for path in labels.files
        ]
    if known:
        return list(known)
    return _list_combined(labels, read_tables(labels.combined))


def read_video(path: Path) -> InstanceTable:
    """Read a label file of one video.

    Raises:
        LabelsError: if it cannot be read or holds several videos.
    """
    tables = list(read_tables(path).values())
    if len(tables) != 1:
        raise LabelsError(
            "this label file should hold one video",
            path=path,
            got=f"{len(tables)} videos",
            mend="take the file out of the folder, if it does not belong to the download",
        )
    return tables[0]


def _list_combined(labels: SplitLabels, tables: Mapping[str, InstanceTable]) -> list[VideoLabels]:
    assert labels.combined is not None
    official = {folder_of(read_video(path), path): path for path in labels.files}
    folders = {key: folder_of(table, labels.combined) for key, table in tables.items()}
    last = [base_of(folder) for folder in folders.values()]
    videos = []
    for key, table in tables.items():
        folder = folders[key]
        path = official.get(folder)
        stem = base_of(folder) if last.count(base_of(folder)) == 1 else folder.replace("/", "_")
        sources = [source_of(p) for p in (labels.combined, path) if p is not None]
        read = partial(_with_regions, table, path)
        videos.append(
            VideoLabels(labels.split, path.stem if path else stem, tuple(sources), read, renamed=True)
        )
    return sorted(videos, key=lambda video: video.stem)


def _with_regions(table: InstanceTable, official: Path | None) -> InstanceTable:
    """Return a table with the ignore regions of the official file where it has none itself."""
    if official is None or table.ignore_regions:
        return table
    other = read_video(official)
    rows = {leading_number(base_of(name)): row for row, name in enumerate(table.frame_names)}
    names = {row: leading_number(base_of(name)) for row, name in enumerate(other.frame_names)}
    regions = {rows[names[r]]: polygons for r, polygons in other.ignore_regions.items() if names[r] in rows}
    return replace(table, ignore_regions=regions)


def list_unlabelled(images: Path, split: str) -> list[VideoLabels]:
    """List the videos of a split of which only frames are there: folders in ``images/split``."""
    try:
        with os.scandir(images / split) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    folders = [f"{split}/{name}" for name in names if list_images(images / split / name)]
    return [VideoLabels(split, base_of(f), (), partial(_table_of_folder, images, f)) for f in folders]


def _table_of_folder(images: Path, folder: str) -> InstanceTable:
    """Return a table of the frames in a folder, with nobody in them and not labelled."""
    names = [name for name in list_images(images / folder) if leading_number(name) is not None]
    return InstanceTable(
        video=base_of(folder),
        frame_names=tuple(f"{folder}/{name}" for name in names),
        frame_numbers=np.array([leading_number(name) for name in names], np.int64),
        rows=np.zeros(0, np.int64),
        keypoints=np.zeros((0, 17, 2)),
        is_labelled=np.zeros(len(names), bool),
    )


def sample_folders(kind: str, videos: Sequence[VideoLabels]) -> list[str]:
    """Return the frame folders of the first few videos.

    Raises:
        LabelsError: if they are of another PoseTrack than ``kind``.
    """
    folders = []
    for video in videos[:_SAMPLED]:
        table, path = video.read(), video.sources[0][0]
        folders.append(folder_of(table, path))
        _check_kind(kind, table, folders[-1], path)
    return folders


def _check_kind(kind: str, table: InstanceTable, folder: str, path: str) -> None:
    """Raise LabelsError if labels are of PoseTrack17 where 18 or 21 was named, or the other way round."""
    digits = len(base_of(table.frame_names[0]).rsplit(".", 1)[0])
    by_split = folder.split("/", 1)[0] in SPLITS
    wrong = (by_split and digits == 6) if kind == "posetrack17" else (not by_split and digits == 8)
    if wrong:
        raise LabelsError(
            f"these are not labels of {kind}",
            path=path,
            expected="frames like bonn/000001/00000001.jpg"
            if kind == "posetrack17"
            else "frames like images/val/000001_mpii_test/000000.jpg",
            got=table.frame_names[0],
            mend=f"name {'posetrack18 or posetrack21' if kind == 'posetrack17' else 'posetrack17'} instead, "
            "or the right folder",
        )
