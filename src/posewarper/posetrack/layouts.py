"""What a download of PoseTrack holds: the label files of each split, the frames, and each video's labels."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from posewarper.errors import LabelsError, few_of, repeated, unknown_name
from posewarper.formats.frame_names import base_name, leads_out
from posewarper.posetrack.dataset import INDEX_NAME, leading_number, list_images
from posewarper.posetrack.tables import read_table, read_tables
from posewarper.runs import REQUEST
from posewarper.structures import InstanceTable

KINDS = ("posetrack17", "posetrack18", "posetrack21")
SPLITS = ("train", "val", "test")

_DEPTH = 3  # how many folders below the one that was named label folders are searched
# Not searched: frames, what PoseTrack21 has for other tasks, and a selection of the original's label files.
_SKIPPED = {
    *("images", "images_renamed", "renamed_images", "videos", "mask", "masks"),
    *("posetrack_mot", "posetrack_person_search", "mot", "val_withJson_consecutive"),
}
# Where below the download the folders of frames may begin.
_IMAGE_FOLDERS = ("", "images", "images_renamed", "renamed_images", "posetrack_data/images")


@dataclass(frozen=True)
class SplitLabels:
    """The label files of one split: one a video in ``files``, sorted by name, or a ``combined`` one of all.

    Where both are given, instances come from the combined file, and the file names and ignore regions from
    ``files``.
    """

    split: str
    files: tuple[Path, ...]
    combined: Path | None = None


@dataclass(frozen=True)
class Layout:
    """Where things lie in a download.

    Args:
        kind: "posetrack17", "posetrack18" or "posetrack21".
        name: "official", or "original" for the files that come with the original PoseWarper.
        download: the folder that was named.
        labels: label files of each split that was found, in the order train, val, test.
        box_files: split -> detected boxes, where such a file comes along.
        selections: stem -> the original's file of selected frames and videos.
    """

    kind: str
    name: str
    download: Path
    labels: tuple[SplitLabels, ...]
    box_files: Mapping[str, Path]
    selections: Mapping[str, Path]


def find_layout(kind: str, download: Path, splits: Collection[str] = ()) -> Layout:
    """Find the labels in a download of the named kind; empty ``splits`` stand for all that are found.

    Raises:
        LabelsError: if the folder holds no labels in a form that is known.
    """
    download = Path(os.path.abspath(download))
    prepared = (download / INDEX_NAME).is_file()
    if prepared or not download.is_dir():
        missing = "this is no folder" if download.exists() else "no such folder"
        raise LabelsError(
            "this is a dataset that was prepared already" if prepared else missing,
            path=download,
            expected="the folder into which PoseTrack was unpacked",
            fix="use it as it is, or name the download that it was made from"
            if prepared
            else "name that folder; unpack archives first",
        )
    unknown = sorted(set(splits) - set(SPLITS))
    if unknown:
        raise unknown_name("unknown split", ", ".join(unknown), SPLITS, error=LabelsError)
    top = download if download.name == f"{kind}_json_files" else download / f"{kind}_json_files"
    original = {file.stem: file for file in sorted(top.glob("posetrack_*.json"))}
    name = "original" if original else "official"
    folders = _label_folders(kind, download)
    labels = []
    for split in SPLITS:
        files = tuple(_label_files(folders[split])) if split in folders else ()
        combined = original.pop(f"posetrack_{split}", None)
        if combined is None and not files:
            names = (f"{kind}_{split}.json", f"posetrack_{split}.json")
            places = [folder / name for folder in (download / "annotations", download) for name in names]
            combined = next((place for place in places if place.is_file()), None)
        if (files or combined) and (not splits or split in splits):
            labels.append(SplitLabels(split, files, combined))
    if not labels:
        raise LabelsError(
            f"no labels of {kind} were found ({', '.join(splits or SPLITS)})",
            path=download,
            expected="folders train, val or test with .json or .mat files, not more than "
            f"{_DEPTH} folders below (annotations/val/), or {kind}_json_files/posetrack_val.json",
            got=_content(download),
            fix="name the folder into which the download was unpacked",
        )
    boxes = {split: download / f"{kind}_precomputed_boxes" / f"{split}_boxes.json" for split in SPLITS}
    boxes = {split: file for split, file in boxes.items() if file.is_file()}
    return Layout(kind, name, download, tuple(labels), boxes, original)


def _label_folders(kind: str, download: Path) -> dict[str, Path]:
    """Return the folder of label files of each split, of several the likeliest."""

    def rank(folder: Path) -> tuple[bool, bool, int, str]:
        known = folder.parent.name in ("annotations", "posetrack_data")
        as_json = any(file.suffix == ".json" for file in _label_files(folder))
        return not known, not as_json, len(folder.parts), str(folder)

    found: dict[str, list[Path]] = {split: [] for split in SPLITS}
    skipped = _SKIPPED | {f"{other}_annotation_dirs" for other in KINDS if other != kind}
    for top, names, files in os.walk(download, followlinks=True):
        folder = Path(top)
        is_prepared = INDEX_NAME in files or REQUEST in files
        is_deepest = len(folder.relative_to(download).parts) == _DEPTH
        names[:] = [n for n in names if n not in skipped and not n.startswith(".")]
        if is_prepared or is_deepest:
            names.clear()
        if folder.name in SPLITS and not is_prepared and _label_files(folder):
            found[folder.name].append(folder)
    return {split: min(places, key=rank) for split, places in found.items() if places}


def _folders_in(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def _label_files(folder: Path) -> list[Path]:
    """Return the label files of a folder, sorted; a .json comes before the .mat of the same name."""
    names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    files: dict[str, str] = {}
    for suffix in (".mat", ".json"):
        files |= {name.removesuffix(suffix): name for name in names if name.endswith(suffix)}
    return [folder / files[stem] for stem in sorted(files)]


def find_images(download: Path, folders: Sequence[str], images: Path | None = None) -> Path:
    """Return the folder below which the frame folders of videos lie, in the download or in ``images``.

    ``folders`` are those of some videos, as the labels name them, without a leading ``images/``.

    Raises:
        LabelsError: if none of the frame folders is anywhere.
    """
    if images is not None:
        base = Path(os.path.abspath(images))
        places = [base, base / "images", base.parent]
    else:
        base = download
        tops = [base, *(base / name for name in _folders_in(base)), base.parent]
        places = [top / name for top in tops for name in _IMAGE_FOLDERS]
    counts = {place: sum((place / folder).is_dir() for folder in folders) for place in places}
    best = max(counts, key=lambda place: counts[place])  # the first of several
    if counts[best] == 0:
        shown, some = f"{folders[0]}/" if folders else "frames", places[: len(_IMAGE_FOLDERS)]
        raise LabelsError(
            "the frames that the labels name were not found",
            path=base,
            expected=f"a folder {shown} in one of: {', '.join(map(str, some))}",
            got=_content(base),
            fix="say with --images where the frames are: the folder that holds the one named above",
        )
    return best


def _content(folder: Path) -> str:
    if not folder.is_dir():
        return "no such folder"
    names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in folder.iterdir())
    return few_of(names, 8) or "an empty folder"


@dataclass(frozen=True)
class VideoLabels:
    """The labels of one video, not read yet."""

    split: str
    stem: str  # of the official label file
    sources: tuple[list[Any], ...]  # path, bytes and time of change of each file that the labels come from
    read: Callable[[], InstanceTable]  # gives the labels, with names of frames as in the download
    renamed: bool = False  # whether frames bear the names that the original gave them, not the download's


def source_of(path: Path) -> list[Any]:
    """Return what tells whether a file has changed: its path, size and time of change."""
    state = path.stat()
    return [str(path), state.st_size, state.st_mtime_ns]


def folder_of(table: InstanceTable, path: str | Path) -> str:
    """Return the folder of a video's frames, relative to that of all images.

    Raises:
        LabelsError: if there is no frame, or they lie in several folders or outside of that of all images.
    """
    folders = sorted({name.rpartition("/")[0] for name in table.frame_names})
    if len(folders) != 1 or not folders[0]:
        raise LabelsError(
            "the frames of a video do not lie in one folder",
            path=path,
            expected="names of frames like images/val/000001_mpii_test/000000.jpg",
            got=", ".join(folders[:3]) or "frames without a folder" if folders else "no frames",
            fix="check that this is a label file of PoseTrack",
        )
    if leads_out(folders[0]):
        raise LabelsError(
            "the frames of a video lie outside of the download",
            path=path,
            expected="names of frames below the folder of images",
            got=folders[0],
            fix="correct file_name, or move the frames into the download",
        )
    return folders[0]


def list_videos(labels: SplitLabels) -> list[VideoLabels]:
    """List the videos of a split; label files of one video are not read here, one of all videos is."""
    combined = labels.combined
    if combined is None:
        return [
            VideoLabels(labels.split, path.stem, (source_of(path),), partial(read_table, path))
            for path in labels.files
        ]
    tables = read_tables(combined).values()
    official = {folder_of(read_table(path), path): path for path in labels.files}
    folders = [folder_of(table, combined) for table in tables]
    last = [base_name(folder) for folder in folders]
    twice = set(repeated(last))
    videos = []
    for table, folder, base in zip(tables, folders, last, strict=True):
        path = official.get(folder)
        stem = path.stem if path else base if base not in twice else folder.replace("/", "_")
        sources = tuple(source_of(p) for p in (combined, path) if p is not None)
        videos.append(VideoLabels(labels.split, stem, sources, partial(_with_regions, table, path), True))
    return sorted(videos, key=lambda video: video.stem)


def _with_regions(table: InstanceTable, official: Path | None) -> InstanceTable:
    """Return a table with the ignore regions of the official file where it has none itself."""
    if official is None or table.ignore_regions:
        return table
    other = read_table(official)
    rows = {leading_number(base_name(name)): row for row, name in enumerate(table.frame_names)}
    numbers = [leading_number(base_name(name)) for name in other.frame_names]
    regions = {
        rows[numbers[r]]: polygons for r, polygons in other.ignore_regions.items() if numbers[r] in rows
    }
    return replace(table, ignore_regions=regions)


def list_unlabelled(images: Path, split: str) -> list[VideoLabels]:
    """List the videos of a split of which only frames are there: folders in ``images/split``."""
    try:
        names = _folders_in(images / split)
    except (FileNotFoundError, NotADirectoryError):
        return []
    folders = {name: f"{split}/{name}" for name in names if list_images(images / split / name)}
    return [VideoLabels(split, n, (), partial(_table_of_folder, images, f)) for n, f in folders.items()]


def _table_of_folder(images: Path, folder: str) -> InstanceTable:
    """Return a table of the frames in a folder, with nobody in them and not labelled."""
    names = [name for name in list_images(images / folder) if leading_number(name) is not None]
    return InstanceTable(
        video=base_name(folder),
        frame_names=tuple(f"{folder}/{name}" for name in names),
        frame_numbers=np.array([leading_number(name) for name in names], np.int64),
        rows=np.zeros(0, np.int64),
        keypoints=np.zeros((0, 17, 2)),
        is_labelled=np.zeros(len(names), bool),
    )


def sample_folders(kind: str, videos: Sequence[VideoLabels]) -> list[str]:
    """Return the frame folders of the first five videos.

    Raises:
        LabelsError: if they are of another PoseTrack than ``kind``.
    """
    folders = []
    for video in videos[:5]:
        table, path = video.read(), video.sources[0][0]
        folder = folder_of(table, path)
        digits = len(base_name(table.frame_names[0]).rsplit(".", 1)[0])
        by_split = folder.split("/", 1)[0] in SPLITS
        wrong, others = not by_split and digits == 8, "posetrack17"
        form = "images/val/000001_mpii_test/000000.jpg"
        if kind == "posetrack17":
            wrong, form = by_split and digits == 6, "bonn/000001/00000001.jpg"
            others = "posetrack18 or posetrack21"
        if wrong:
            raise LabelsError(
                f"these are not labels of {kind}",
                path=path,
                expected=f"frames like {form}",
                got=table.frame_names[0],
                fix=f"name {others} instead, or the right folder",
            )
        folders.append(folder)
    return folders
