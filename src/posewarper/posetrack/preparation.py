"""From a download of PoseTrack to a prepared dataset: one video at a time, resumable, no frame copied."""

from __future__ import annotations

import json
import os
import shutil
import warnings
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import PIL.Image

from posewarper.errors import Interrupted, LabelsError, OutputError, PosewarperWarning
from posewarper.files import replacing
from posewarper.posetrack.dataset import (
    FORMAT,
    FORMAT_VERSION,
    INDEX_NAME,
    NEIGHBOURS,
    PREPARED,
    Dataset,
    FrameFiles,
    base_of,
    from_ranges,
    labels_path,
    list_images,
    near_labels,
    number_frames,
    open_dataset,
    read_index,
    to_ranges,
)
from posewarper.posetrack.layouts import (
    SPLITS,
    Layout,
    SplitLabels,
    VideoLabels,
    find_images,
    find_layout,
    folder_of,
    list_unlabelled,
    list_videos,
    sample_folders,
    source_of,
)
from posewarper.posetrack.posetrack18 import write_posetrack18
from posewarper.skeletons import POSETRACK
from posewarper.structures import InstanceTable, Progress, silent
from posewarper.version import __version__

Record = Mapping[str, Any]  # what the index of a dataset says of one video

# Kinds of missing frames, the worst first.
LABELLED, NEIGHBOUR, OTHER = "labelled", f"within {NEIGHBOURS} frames of a labelled one", "other"
_COUNTS = ("n_frames", "labelled_frames", "empty_frames", "instances", "ignore_regions")


@dataclass(frozen=True)
class Summary:
    """What a preparation found.

    Args:
        splits: for each split its number of ``videos``, ``n_frames``, ``labelled_frames``, ``empty_frames``
            (labelled, and nobody in them), ``instances``, ``ignore_regions`` (polygons), ``missing`` frames.
        missing: number of missing frames of each kind: labelled, near a labelled one, others.
        first_missing: paths of the first few, the labelled before the others, relative to the images.
        never_labelled: keypoints that no instance has; PoseTrack's ears are never annotated.
        notes: what is odd about single videos.
        n_kept: videos that an earlier run had prepared and that are unchanged.
    """

    splits: Mapping[str, Mapping[str, int]]
    missing: Mapping[str, int]
    first_missing: tuple[str, ...]
    never_labelled: tuple[str, ...]
    notes: tuple[str, ...]
    n_kept: int

    @property
    def n_usable(self) -> int:
        """Number of frames that are there."""
        return sum(counts["n_frames"] - counts["missing"] for counts in self.splits.values())


def summarise(records: Sequence[Record], n_kept: int, n_shown: int = 5) -> Summary:
    """Count over the records of all videos."""
    splits: dict[str, dict[str, int]] = {}
    for split in SPLITS:
        chosen = [record for record in records if record["split"] == split]
        if chosen:
            splits[split] = {"videos": len(chosen)} | {c: sum(r[c] for r in chosen) for c in _COUNTS}
            splits[split]["missing"] = sum(len(from_ranges(r["missing"])) for r in chosen)
    missing = dict.fromkeys((LABELLED, NEIGHBOUR, OTHER), 0)
    first: dict[str, list[str]] = {kind: [] for kind in missing}
    for kind, path in missing_frames(records):
        missing[kind] += 1
        if len(first[kind]) < n_shown:
            first[kind].append(path)
    labelled = [sum(counts) for counts in zip(*(r["keypoints"] for r in records), strict=True)]
    return Summary(
        splits=splits,
        missing=missing,
        first_missing=tuple(path for kind in missing for path in first[kind])[:n_shown],
        never_labelled=tuple(n for n, count in zip(POSETRACK.names, labelled, strict=True) if not count),
        notes=tuple(f"{r['name']}: {r['note']}" for r in records if r["note"]),
        n_kept=n_kept,
    )


def missing_frames(records: Iterable[Record]) -> Iterator[tuple[str, str]]:
    """Yield the kind and the path, relative to the images, of each missing frame."""
    for record in records:
        if not record["missing"]:
            continue
        labelled = set(from_ranges(record["labelled"]))
        near = near_labels(labelled, record["first"], record["n_frames"])
        for number in from_ranges(record["missing"]):
            kind = LABELLED if number in labelled else NEIGHBOUR if number in near else OTHER
            names = record["files"]
            name = f"{number:0{record['digits']}d}{record['suffix']}"
            yield kind, f"{record['folder']}/{names[number - record['first']] if names else name}"


def write_missing(path: Path, records: Iterable[Record]) -> None:
    """Write a line for each missing frame, path and kind with a tab between; no file if none is missing."""
    lines = [f"{place}\t{kind}\n" for kind, place in missing_frames(records)]
    if not lines:
        path.unlink(missing_ok=True)
        return
    with replacing(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


PROGRESS_NAME = PREPARED[1]
_Record = dict[str, Any]


@dataclass
class Records:
    """The videos done, by split and stem, and the file to which each is appended when it is done.

    Args:
        done: what the index says of each video.
        complete: whether they are of a run that came to its end.
    """

    done: dict[tuple[str, str], _Record] = field(default_factory=dict)
    complete: bool = False
    _file: TextIO | None = field(default=None, repr=False)

    def add(self, record: _Record) -> None:
        """Note that a video is done; its labels have been written."""
        self.done[record["split"], record["file_stem"]] = record
        if self._file is not None:
            self._file.write(json.dumps(record, separators=(",", ":")) + "\n")
            self._file.flush()


@contextmanager
def start(out: Path, layout: Layout, overwrite: bool) -> Iterator[Records]:
    """Give what earlier runs into the same folder have done.

    Raises:
        OutputError: if the folder holds other files, or a dataset from another download.
    """
    index, journal = out / INDEX_NAME, out / PROGRESS_NAME
    is_ours = index.is_file() or journal.is_file()
    if out.exists() and not is_ours and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(
            "this folder holds other files" if out.is_dir() else "this is no folder",
            path=out,
            fix="name a new folder",
        )
    if is_ours and overwrite:
        _clear(out)
    records = Records()
    header = {"format": FORMAT, "format_version": FORMAT_VERSION}
    header |= {"kind": layout.kind, "source": str(layout.download)}
    if index.is_file():
        found = _readable_index(out)
        _check_same(header, found, out)
        records.complete = True
        records.done = {(r["split"], r["file_stem"]): r for r in found["videos"]}
    lines = _read_lines(journal)
    if lines:
        _check_same(header, lines[0], out)
        records.done |= {(r["split"], r["file_stem"]): r for r in lines[1:]}
        records.complete = False
    is_new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        records._file = journal.open("a" if lines else "w", encoding="utf-8")
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise OutputError("cannot write into this folder", path=out, got=error, fix="name another") from error
    try:
        with records._file:
            # To go on, a line of its own: the last one may have been cut off.
            records._file.write(json.dumps(header) + "\n" if not lines else "\n")
            yield records
    finally:
        if is_new and os.listdir(out) == [PROGRESS_NAME] and not records.done:  # failed before it began
            journal.unlink()
            out.rmdir()


def _readable_index(out: Path) -> dict[str, Any]:
    """Return the index of an earlier run.

    Raises:
        OutputError: if it is damaged or of another version.
    """
    try:
        return read_index(out)
    except LabelsError as error:
        fix = "prepare it anew with --overwrite"
        raise OutputError(error.what, path=out, expected=error.expected, got=error.got, fix=fix) from error


def _read_lines(journal: Path) -> list[dict[str, Any]]:
    """Return what a stopped run has noted; a line that was cut off does not count."""
    if not journal.is_file():
        return []
    lines = []
    for line in journal.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines if lines and lines[0].get("format") == FORMAT else []


def _check_same(wanted: dict[str, Any], found: dict[str, Any], out: Path) -> None:
    """Raise OutputError if a folder holds a dataset of another kind, from another place or version."""
    for key, value in wanted.items():
        if found.get(key) != value:
            raise OutputError(
                "this folder holds a dataset that was prepared from something else",
                path=out,
                expected=f"{key} {value}",
                got=f"{key} {found.get(key)}",
                fix="name another folder, or prepare it anew with --overwrite",
            )


def finish(out: Path, layout: Layout, images: Path, records: Sequence[_Record], summary: Summary) -> None:
    """Write the index, link the frames, and take away what belongs to a run that is under way."""
    _link(out / "images", images)
    index = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "posewarper": __version__,
        "kind": layout.kind,
        "layout": layout.name,
        "source": str(layout.download),
        "images": str(images),
        "box_files": {split: str(path) for split, path in layout.box_files.items()},
        "selections": {stem: str(path) for stem, path in layout.selections.items()},
        "summary": {key: value for key, value in asdict(summary).items() if key != "n_kept"},
        "videos": list(records),
    }
    with replacing(out / INDEX_NAME) as temporary:
        temporary.write_text(_dumps(index), encoding="utf-8")
    kept = {labels_path(out, record["split"], record["file_stem"]) for record in records}
    for file in (out / "annotations").glob("*/*.json"):
        if file not in kept:
            file.unlink()
    (out / PROGRESS_NAME).unlink()


def _dumps(index: dict[str, Any]) -> str:
    """Return JSON with a line for each video."""
    videos = ",\n".join("  " + json.dumps(video, separators=(",", ":")) for video in index["videos"])
    head = json.dumps(index | {"videos": []}, indent=1)
    return head.replace('"videos": []', f'"videos": [\n{videos}\n ]') + "\n"


def _link(link: Path, images: Path) -> None:
    """Make a link to the frames; where the system cannot, the path in the index has to do."""
    if link.is_symlink():
        if os.readlink(link) == str(images):
            return
        link.unlink()
    try:
        link.symlink_to(images, target_is_directory=True)
    except (OSError, NotImplementedError):
        return


def _clear(out: Path) -> None:
    """Take away what preparation writes, and nothing else."""
    for name in (INDEX_NAME, PROGRESS_NAME, "missing.txt"):
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / "annotations", ignore_errors=True)
    if (out / "images").is_symlink():
        (out / "images").unlink()


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
                fix="unpack the frames, or say with --images where they are",
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
            fix="name with --splits what is there",
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
                fix="check that this is a label file of PoseTrack",
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
