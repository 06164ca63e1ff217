"""Where labels, frames and box files lie in each form in which PoseTrack is passed on.

What counts is content and not the name of the topmost folder: folders ``train``, ``val``, ``test`` that hold
label files, one a video, as in the official downloads; or one file with all videos of a split, as in the
files that come with the original PoseWarper.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from posewarper.errors import LabelsError

KINDS = ("posetrack17", "posetrack18", "posetrack21")
SPLITS = ("train", "val", "test")

# How deep below the folder that was named label folders may lie, and what is not looked into: frames, and
# what PoseTrack21 has for other tasks.
_DEPTH = 3
_SKIPPED = {"images", "images_renamed", "renamed_images", "videos", "mask", "masks"}
_OTHER_TASKS = {"posetrack_mot", "posetrack_person_search", "mot"}
# Of the original's folders of labels for its evaluation this one is a selection of another.
_SELECTIONS = {"val_withJson_consecutive"}
# What preparation writes at its end, and while it is under way.
PREPARED = ("dataset.json", "preparation.jsonl")
_IMAGE_FOLDERS = ("", "images", "images_renamed", "renamed_images", "posetrack_data/images")


@dataclass(frozen=True)
class SplitLabels:
    """The label files of one split.

    Args:
        split: "train", "val" or "test".
        files: one file a video, sorted by name.
        combined: one file with all videos, or None. Where both are given, instances come from this one, and
            the file names and ignore regions from ``files``.
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
        box_files: detected boxes of a split, where such a file comes along.
        selections: the original's files of selected frames and videos, by the stem of their names.
    """

    kind: str
    name: str
    download: Path
    labels: tuple[SplitLabels, ...]
    box_files: Mapping[str, Path]
    selections: Mapping[str, Path]


def find_layout(kind: str, download: Path, splits: Collection[str] = ()) -> Layout:
    """Find the labels in a download.

    Args:
        kind: "posetrack17", "posetrack18" or "posetrack21".
        download: the folder with labels, and mostly frames.
        splits: the splits to take; empty for all that are found.

    Raises:
        LabelsError: if the folder holds no labels in a form that is known.
    """
    download = Path(os.path.abspath(download))
    if not download.is_dir():
        raise LabelsError(
            "no such folder" if not download.exists() else "this is no folder",
            path=download,
            expected="the folder into which PoseTrack was unpacked",
            mend="name that folder; archives are to be unpacked first",
        )
    if (download / PREPARED[0]).is_file():
        raise LabelsError(
            "this is a dataset that was prepared already",
            path=download,
            expected="the folder into which PoseTrack was unpacked",
            mend="use it as it is, or name the download that it was made from",
        )
    unknown = sorted(set(splits) - set(SPLITS))
    if unknown:
        raise LabelsError(
            "unknown split", expected=", ".join(SPLITS), got=", ".join(unknown), mend="name splits that exist"
        )
    original = _supplement(kind, download)
    folders = _label_folders(kind, download)
    labels = []
    for split in SPLITS:
        combined = original.get(f"posetrack_{split}") or _combined_file(kind, download, split)
        files = tuple(_label_files(folders[split])) if split in folders else ()
        if files and f"posetrack_{split}" not in original:
            combined = None
        if (files or combined) and (not splits or split in splits):
            labels.append(SplitLabels(split, files, combined))
    if not labels:
        raise _nothing_found(kind, download, splits)
    boxes = {split: path for split in SPLITS if (path := _box_file(kind, download, split)) is not None}
    whole = {f"posetrack_{split}" for split in SPLITS}
    selections = {stem: path for stem, path in original.items() if stem not in whole}
    return Layout(kind, "original" if original else "official", download, tuple(labels), boxes, selections)


def _supplement(kind: str, download: Path) -> dict[str, Path]:
    """Return the label files of the original by their stems, none if there are none."""
    folder = download if download.name == f"{kind}_json_files" else download / f"{kind}_json_files"
    return {file.stem: file for file in sorted(folder.glob("posetrack_*.json"))}


def _combined_file(kind: str, download: Path, split: str) -> Path | None:
    names = (f"{kind}_{split}.json", f"posetrack_{split}.json")
    places = [folder / name for folder in (download / "annotations", download) for name in names]
    return next((place for place in places if place.is_file()), None)


def _box_file(kind: str, download: Path, split: str) -> Path | None:
    file = download / f"{kind}_precomputed_boxes" / f"{split}_boxes.json"
    return file if file.is_file() else None


def _label_folders(kind: str, download: Path) -> dict[str, Path]:
    """Return the folder of label files of each split, of several the likeliest."""
    found: dict[str, list[Path]] = {split: [] for split in SPLITS}
    others = {f"{other}_annotation_dirs" for other in KINDS if other != kind}
    for folder in _walk(download, _DEPTH, _SKIPPED | _OTHER_TASKS | _SELECTIONS | others):
        if folder.name in SPLITS and next(iter(_label_files(folder)), None) is not None:
            found[folder.name].append(folder)
    return {split: min(places, key=_rank) for split, places in found.items() if places}


def _rank(folder: Path) -> tuple[bool, bool, int, str]:
    """Return a key by which the likeliest of several label folders comes first."""
    known = folder.parent.name in ("annotations", "posetrack_data")
    as_json = any(file.suffix == ".json" for file in _label_files(folder))
    return not known, not as_json, len(folder.parts), str(folder)


def _walk(folder: Path, depth: int, skipped: Collection[str]) -> Iterator[Path]:
    """Yield a folder and those below, but neither folders of frames nor what was prepared before."""
    if any((folder / name).is_file() for name in PREPARED):
        return
    yield folder
    if depth == 0:
        return
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir())
    except PermissionError:
        return
    for name in names:
        if name not in skipped and not name.startswith("."):
            yield from _walk(folder / name, depth - 1, skipped)


def _label_files(folder: Path) -> list[Path]:
    """Return the label files of a folder, sorted; a .json comes before the .mat of the same name."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    files: dict[str, str] = {}
    for suffix in (".mat", ".json"):
        files |= {name.removesuffix(suffix): name for name in names if name.endswith(suffix)}
    return [folder / files[stem] for stem in sorted(files)]


def _nothing_found(kind: str, download: Path, splits: Collection[str]) -> LabelsError:
    inside = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in os.scandir(download))
    wanted = ", ".join(splits) if splits else ", ".join(SPLITS)
    return LabelsError(
        f"no labels of {kind} were found ({wanted})",
        path=download,
        expected="folders train, val or test with .json or .mat files, not more than "
        f"{_DEPTH} folders below (annotations/val/), or {kind}_json_files/posetrack_val.json",
        got=", ".join(inside[:8]) + (f" and {len(inside) - 8} more" if len(inside) > 8 else "")
        if inside
        else "an empty folder",
        mend="name the folder into which the download was unpacked",
    )


def find_images(download: Path, folders: Sequence[str], images: Path | None = None) -> Path:
    """Find the folder below which the frame folders of videos lie.

    Args:
        download: the folder that was named.
        folders: frame folders of some videos as the labels name them, without a leading ``images/``.
        images: where the user says the frames are.

    Raises:
        LabelsError: if none of the frame folders is anywhere.
    """
    if images is not None:
        base = Path(os.path.abspath(images))
        places = [base, base / "images", base.parent]
    else:
        base = download
        below = [Path(entry.path) for entry in os.scandir(base) if entry.is_dir()]
        tops = [base, *sorted(below), base.parent]
        places = [top / name if name else top for top in tops for name in _IMAGE_FOLDERS]
    counts = {place: sum((place / folder).is_dir() for folder in folders) for place in places}
    best = max(counts, key=lambda place: counts[place])  # the first of several
    if counts[best] == 0:
        shown = f"{folders[0]}/" if folders else "frames"
        raise LabelsError(
            "the frames that the labels name were not found",
            path=base,
            expected=f"a folder {shown} in one of: "
            + ", ".join(str(p) for p in places[: len(_IMAGE_FOLDERS)]),
            got=_content(base),
            mend="say with --images where the frames are: the folder that holds the one named above",
        )
    return best


def _content(folder: Path) -> str:
    if not folder.is_dir():
        return "no such folder"
    names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in os.scandir(folder))
    return (
        ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") or "an empty folder"
    )
