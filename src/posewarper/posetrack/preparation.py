"""From a download of PoseTrack to a prepared dataset: one video at a time, resumable, no frame copied."""

from __future__ import annotations

import os
import warnings
import zlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from posewarper.errors import Interrupted, LabelsError, PosewarperWarning
from posewarper.instances import InstanceTable
from posewarper.io.posetrack18 import write_posetrack18
from posewarper.posetrack.dataset import Dataset, labels_path, open_dataset
from posewarper.posetrack.frame_files import FrameFiles, base_of, list_images, number_frames, to_ranges
from posewarper.posetrack.label_sources import (
    VideoLabels,
    folder_of,
    list_unlabelled,
    list_videos,
    sample_folders,
    source_of,
)
from posewarper.posetrack.layouts import SPLITS, Layout, SplitLabels, find_images, find_layout
from posewarper.posetrack.progress_file import Records, finish, start
from posewarper.posetrack.summary import Summary, summarise, write_missing
from posewarper.structures import Progress, silent

_Record = dict[str, Any]


def prepare_dataset(
    kind: str,
    download: Path,
    out: Path,
    *,
    images: Path | None = None,
    splits: Collection[str] = (),
    check_images: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
) -> tuple[Dataset, Summary]:
    """Read the labels of a download, check its frames, and write an index of both.

    One video is read at a time. What an earlier run into the same folder has done is kept where neither the
    video's labels nor the names of its frames have changed, so that a run which was stopped goes on.

    Args:
        kind: "posetrack17", "posetrack18" or "posetrack21".
        download: the folder with labels, and mostly frames.
        out: the folder to write.
        images: where the frames are, if they are elsewhere.
        splits: the splits to take; empty for all that are found.
        check_images: open every image, not only one of each video.
        overwrite: forget what an earlier run has done, also one from another download.
        progress: told of the videos done.

    Returns:
        The dataset, and what was found.

    Raises:
        LabelsError: if labels or frames are not found, or are of another dataset.
        OutputError: if ``out`` holds other files, or a dataset from another download.
        Interrupted: on Ctrl-C; the next run goes on.

    Warns:
        PosewarperWarning: if frames are missing, or their number is another than the labels say.
    """
    layout = find_layout(kind, Path(download), splits)
    out = Path(os.path.abspath(out))
    with start(out, layout, overwrite) as records:
        chosen, folder, n_kept = _prepare_videos(layout, images, splits, out, records, check_images, progress)
        _check_splits(splits, chosen, layout)
        _name_uniquely(kind, chosen)
        summary = summarise(chosen, n_kept)
        if summary.n_usable == 0:
            raise LabelsError(
                "not one frame of the videos is there",
                path=folder,
                expected=summary.first_missing[0] if summary.first_missing else "frames",
                mend="unpack the frames, or say with --images where they are",
            )
        write_missing(out / "missing.txt", chosen)
        finish(out, layout, folder, chosen, summary)
    _warn(summary, out)
    return open_dataset(out), summary


def _prepare_videos(
    layout: Layout,
    images: Path | None,
    splits: Collection[str],
    out: Path,
    records: Records,
    check_images: bool,
    progress: Progress,
) -> tuple[list[_Record], Path, int]:
    """Prepare all videos; return the record of each, the folder of frames, and how many were done before."""
    chosen: list[_Record] = []
    n_kept, folder = 0, None
    for labels in layout.labels:
        listed = list_videos(labels, _known(records, labels))
        folder = folder or find_images(layout.download, _folders(layout, listed, records), images)
        n_kept += _prepare_split(layout.kind, listed, folder, out, records, check_images, progress)
        chosen += [records.done[labels.split, video.stem] for video in listed]
    assert folder is not None  # a layout has labels
    if _has_bare_test(layout, splits):
        listed = list_unlabelled(folder, "test")
        n_kept += _prepare_split(layout.kind, listed, folder, out, records, check_images, progress)
        chosen += [records.done["test", video.stem] for video in listed]
    return chosen, folder, n_kept


def _has_bare_test(layout: Layout, splits: Collection[str]) -> bool:
    """Return whether test videos are to be looked for that have frames and no label files.

    PoseTrack18 and 21 keep frames of a split in a folder of its name; in 17 nothing tells test videos.
    """
    labelled = any(labels.split == "test" for labels in layout.labels)
    return layout.kind != "posetrack17" and not labelled and (not splits or "test" in splits)


def _check_splits(splits: Collection[str], records: Sequence[_Record], layout: Layout) -> None:
    """Raise LabelsError if a split that was asked for was not found."""
    found = {record["split"] for record in records}
    absent = [split for split in splits if split not in found]
    if absent:
        raise LabelsError(
            f"nothing of {', '.join(absent)} was found",
            path=layout.download,
            expected=", ".join(splits),
            got=", ".join(split for split in SPLITS if split in found),
            mend="name with --splits what is there",
        )


def _known(records: Records, labels: SplitLabels) -> list[VideoLabels]:
    """Return the videos of a combined file as an earlier complete run found them, if it has not changed."""
    if labels.combined is None or not records.complete:
        return []
    found = [record for (split, _), record in records.done.items() if split == labels.split]
    sources = {path: rest for record in found for path, *rest in record["sources"]}
    if str(labels.combined) not in sources or any(
        not os.path.isfile(path) or source_of(Path(path)) != [path, *rest] for path, rest in sources.items()
    ):
        return []
    again: dict[str, VideoLabels] = {}

    def read(stem: str) -> InstanceTable:
        if not again:  # the whole file, if the frames of one video have changed
            again.update({video.stem: video for video in list_videos(labels)})
        return again[stem].read()

    return [
        VideoLabels(
            labels.split, r["file_stem"], tuple(r["sources"]), partial(read, r["file_stem"]), renamed=True
        )
        for r in found
    ]


def _folders(layout: Layout, videos: Sequence[VideoLabels], records: Records) -> list[str]:
    """Return frame folders of some videos: those known from an earlier run, else of the first few labels."""
    known = [record["folder"] for record in records.done.values() if record["sources"]]
    return known or sample_folders(layout.kind, videos)


def _prepare_split(
    kind: str,
    videos: Sequence[VideoLabels],
    images: Path,
    out: Path,
    records: Records,
    check_images: bool,
    progress: Progress,
) -> int:
    """Prepare the videos of a split; return how many were done before."""
    if not videos:
        return 0
    n_kept, what = 0, f"preparing {videos[0].split}"
    try:
        for i, video in enumerate(videos):
            progress(what, i, len(videos))
            old = records.done.get((video.split, video.stem))
            if old is not None and not check_images and _is_unchanged(old, video, images, out):
                n_kept += 1
            else:
                records.add(_prepare_video(kind, video, images, out, check_images))
        progress(what, len(videos), len(videos))
    except KeyboardInterrupt:
        kept = f"{len(records.done)} videos are prepared in {out}; the same command goes on from there"
        raise Interrupted(kept) from None
    return n_kept


def _is_unchanged(record: _Record, video: VideoLabels, images: Path, out: Path) -> bool:
    return (
        record["sources"] == [list(source) for source in video.sources]
        and record["listing"] == _fingerprint(list_images(images / record["folder"]))
        and labels_path(out, video.split, video.stem).is_file()
    )


def _fingerprint(names: Sequence[str]) -> int:
    return zlib.crc32("\n".join(names).encode())


def _prepare_video(kind: str, video: VideoLabels, images: Path, out: Path, check_images: bool) -> _Record:
    """Write the labels of a video, and return what the index says of it."""
    table = video.read()
    path = video.sources[0][0] if video.sources else images
    folder = folder_of(table, path)
    found = list_images(images / folder)
    damaged = _find_damaged(images / folder, found) if check_images else []
    listed = [base_of(name) for name in table.frame_names]
    there = [name for name in found if name not in damaged]
    frames = number_frames(kind, listed, there, table.n_frames, renamed=video.renamed)
    numbers = _numbers(table, frames, path, renamed=video.renamed)
    size = _size_of_one(images / folder, there)
    table = replace(
        table, frame_numbers=numbers, n_frames=frames.n_frames, image_size=size or table.image_size
    )
    write_posetrack18(labels_path(out, video.split, video.stem), table)
    return _record(video, folder, table, frames, _fingerprint(found), damaged)


def _record(
    video: VideoLabels,
    folder: str,
    table: InstanceTable,
    frames: FrameFiles,
    listing: int,
    damaged: Sequence[str],
) -> _Record:
    """Return what the index says of a video."""
    labelled = table.frame_numbers[table.is_labelled].tolist()
    note = frames.note
    if damaged:
        note += ("; " if note else "") + f"damaged or of another size: {', '.join(damaged[:3])}"
        note += f" and {len(damaged) - 3} more" if len(damaged) > 3 else ""
    peopled = np.unique(table.rows)
    return {
        "name": base_of(folder),
        "split": video.split,
        "file_stem": video.stem,
        "folder": folder,
        "first": frames.first,
        "n_frames": frames.n_frames,
        "digits": frames.digits,
        "suffix": frames.suffix,
        "image_size": list(table.image_size) if table.image_size else None,
        "labelled_frames": len(labelled),
        "empty_frames": int(
            np.count_nonzero(table.is_labelled) - np.count_nonzero(table.is_labelled[peopled])
        ),
        "instances": table.n_instances,
        "ignore_regions": sum(len(regions) for regions in table.ignore_regions.values()),
        "keypoints": np.isfinite(table.keypoints).all(-1).sum(0).tolist(),
        "labelled": to_ranges(labelled),
        "missing": to_ranges(frames.missing),
        "files": list(frames.files),
        "note": note,
        "sources": [list(source) for source in video.sources],
        "listing": listing,
    }


def _numbers(table: InstanceTable, frames: FrameFiles, path: object, *, renamed: bool) -> list[int]:
    """Return the number of each frame of a table.

    Raises:
        LabelsError: if a name has no number, or two have the same.
    """
    bases = [base_of(name) for name in table.frame_names]
    numbers = frames.numbers_of(bases, renamed=renamed)
    seen: dict[int | None, str] = {}
    for number, name in zip(numbers, table.frame_names, strict=True):
        if number is None or number in seen:
            raise LabelsError(
                "the number of a frame cannot be told from its file name",
                path=str(path),
                expected="names like 000012.jpg, each number once",
                got=name if number is None else f"{seen[number]} and {name}",
                mend="check that this is a label file of PoseTrack",
            )
        seen[number] = name
    return [number for number in numbers if number is not None]


def _size_of_one(folder: Path, names: Sequence[str]) -> tuple[int, int] | None:
    """Return (height, width) of the first image that can be read, None if there is none."""
    return next((size for name in names if (size := _size_of(folder / name)) is not None), None)


def _size_of(path: Path) -> tuple[int, int] | None:
    """Return (height, width) by an image's header, not turned as EXIF says; None if it is damaged."""
    try:
        with PIL.Image.open(path) as image:
            return image.size[1], image.size[0]
    except (OSError, ValueError, SyntaxError):
        return None


def _find_damaged(folder: Path, names: Sequence[str]) -> list[str]:
    """Return the images whose header cannot be read, or whose size is not that of most."""
    sizes = {name: _size_of(folder / name) for name in names}
    usual = Counter(size for size in sizes.values() if size is not None).most_common(1)
    return [name for name, size in sizes.items() if not usual or size != usual[0][0]]


def _name_uniquely(kind: str, records: Sequence[_Record]) -> None:
    """Name each video by its folder: in full in PoseTrack17, else by its last part where that is unique."""
    last = Counter(base_of(record["folder"]) for record in records)
    for record in records:
        base = base_of(record["folder"])
        record["name"] = base if kind != "posetrack17" and last[base] == 1 else record["folder"]


def _warn(summary: Summary, out: Path) -> None:
    missing = sum(summary.missing.values())
    if missing:
        parts = [f"{number} {kind}" for kind, number in summary.missing.items() if number]
        shown = ", ".join(summary.first_missing)
        what = "1 frame is" if missing == 1 else f"{missing} frames are"
        text = f"{what} missing ({', '.join(parts)}): {shown}"
        text += (
            f", ...; all are listed in {out / 'missing.txt'}" if missing > len(summary.first_missing) else ""
        )
        warnings.warn(text, PosewarperWarning, stacklevel=3)
    for note in summary.notes[:3]:
        warnings.warn(note, PosewarperWarning, stacklevel=3)
    if len(summary.notes) > 3:
        text = f"{len(summary.notes) - 3} more videos have such notes; see {out / 'dataset.json'}"
        warnings.warn(text, PosewarperWarning, stacklevel=3)
