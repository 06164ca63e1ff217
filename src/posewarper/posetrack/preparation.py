"""From a download of PoseTrack to a prepared dataset: one video at a time, resumable, no frame copied."""

from __future__ import annotations

import functools
import json
import os
import shutil
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from posewarper.errors import Interrupted, LabelsError, OutputError, PosewarperWarning, few_of
from posewarper.files import write_text
from posewarper.formats.frame_names import base_name
from posewarper.posetrack.dataset import (
    FORMAT,
    FORMAT_VERSION,
    INDEX_NAME,
    Dataset,
    from_ranges,
    labels_path,
    list_images,
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
from posewarper.posetrack.selection import REACH
from posewarper.runs import LOCK, RECORDS, REQUEST, RecordLog, claim, differences
from posewarper.skeletons import POSETRACK
from posewarper.structures import Progress, silent
from posewarper.version import __version__
from posewarper.video.images import stored_size

Record = dict[str, Any]  # what the index of a dataset says of one video

# Kinds of missing frames, the worst first.
LABELLED, NEIGHBOUR, OTHER = "labelled", f"within {REACH} frames of a labelled one", "other"
_MISSING_NAME = "missing.txt"
_N_SHOWN = 5  # missing frames that the summary names


@dataclass(frozen=True)
class Summary:
    """What a preparation found."""

    # For each split its number of ``videos``, ``n_frames``, ``labelled_frames``, ``empty_frames`` (labelled,
    # and nobody in them), ``instances``, ``ignore_regions`` (polygons), ``missing`` frames.
    splits: Mapping[str, Mapping[str, int]]
    missing: Mapping[str, int]  # number of each kind: labelled, near a labelled one, others
    first_missing: tuple[str, ...]  # paths relative to the images, the labelled before the others
    never_labelled: tuple[str, ...]  # keypoints that no instance has; PoseTrack's ears are never annotated
    notes: tuple[str, ...]  # what is odd about single videos
    n_kept: int  # videos that an earlier run had prepared and that are unchanged


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
    """Read the labels of a download, check its frames, write an index of both, and return what was found.

    Videos that an earlier run into the same folder has prepared are kept where neither their labels nor the
    names of their frames have changed, so that a stopped run resumes.

    Args:
        kind: "posetrack17", "posetrack18" or "posetrack21".
        download: the folder with labels, and mostly frames.
        out: the folder to write.
        images: where the frames are, if they are elsewhere.
        splits: the splits to take; empty for all that are found.
        check_images: open every image, not only one of each video.
        overwrite: discard what an earlier run has written, also one from another download.

    Raises:
        LabelsError: if labels or frames are not found, or are of another dataset.
        OutputError: if ``out`` holds other files, or a dataset from another download.
        Interrupted: on Ctrl-C; the next run resumes.

    Warns:
        PosewarperWarning: if frames are missing, or their number is another than the labels say.
    """
    layout = find_layout(kind, Path(download), splits)
    out = Path(os.path.abspath(out))
    with _resuming(out, layout, overwrite) as (earlier, is_complete, note):
        records: list[Record] = []
        n_kept, folder = 0, None
        for labels in (*layout.labels, *_bare_splits(layout, splits)):
            if folder is not None and labels.combined is None and not labels.files:
                videos = list_unlabelled(folder, labels.split)
            else:
                videos = _known(earlier, labels) if is_complete else []
                videos = videos or list_videos(labels)
            if folder is None:
                known = [record["folder"] for record in earlier.values() if record["sources"]]
                folder = find_images(layout.download, known or sample_folders(kind, videos), images)
            for i, video in enumerate(videos):
                progress(f"preparing {labels.split}", i, len(videos))
                record = earlier.get((video.split, video.stem), {})
                if (
                    not check_images
                    and record.get("sources") == list(video.sources)
                    and record["listing"] == _fingerprint(folder / record["folder"])
                    and labels_path(out, video.split, video.stem).is_file()
                ):
                    n_kept += 1
                else:
                    record = _prepare_video(kind, video, folder, out, check_images)
                    note(record)
                records.append(record)
            if videos:
                progress(f"preparing {labels.split}", len(videos), len(videos))
        assert folder is not None  # a layout has labels
        found = {record["split"] for record in records}
        absent = [split for split in splits if split not in found]
        if absent:
            raise LabelsError(
                f"nothing of {', '.join(absent)} was found",
                path=layout.download,
                expected=", ".join(splits),
                got=", ".join(split for split in SPLITS if split in found),
                fix="name only splits that are there with --splits",
            )
        # A video is named by its folder: in full in PoseTrack17, else by its last part where that is unique.
        last = Counter(base_name(record["folder"]) for record in records)
        for record in records:
            base = base_name(record["folder"])
            record["name"] = base if kind != "posetrack17" and last[base] == 1 else record["folder"]
        missing = list(_missing_frames(records))
        summary = _summarise(records, missing, n_kept)
        if sum(record["n_frames"] for record in records) == len(missing):
            raise LabelsError(
                "not one frame of the videos is there",
                path=folder,
                expected=summary.first_missing[0] if missing else "frames",
                fix="unpack the frames, or say with --images where they are",
            )
        _finish(out, layout, folder, records, summary, missing)
    _warn(summary, out)
    return open_dataset(out), summary


@contextmanager
def _resuming(
    out: Path, layout: Layout, overwrite: bool
) -> Iterator[tuple[Mapping[tuple[str, str], Record], bool, Callable[[Record], None]]]:
    """Give what earlier runs into the same folder have prepared, and note in a file what this one does.

    Gives the record of each finished video by its split and stem, whether the last run reached its end, and a
    function that adds a record whose labels have been written.
    """
    is_ours = any((out / name).is_file() for name in (INDEX_NAME, REQUEST))
    if out.is_dir() and not is_ours and {p.name for p in out.iterdir()} - {LOCK}:
        raise OutputError("this folder holds other files", path=out, fix="name a new folder")
    request = {"format": FORMAT, "format_version": FORMAT_VERSION}
    request |= {"kind": layout.kind, "source": str(layout.download)}
    # The link to the frames stays: in its place there may be a folder of frames.
    results = (INDEX_NAME, RECORDS, _MISSING_NAME, "annotations", "annotations/*")
    how = {"overwrite": overwrite, "again": True, "adopt": True, "source": layout.download}
    with claim(out, request, results, **how) as claimed:
        stopped = (out / RECORDS).exists()
        known = [] if overwrite else _read_complete(out, request)
        claimed.begin()
        records: dict[tuple[str, str], Record] = {}
        is_over = False
        try:
            with RecordLog(out / RECORDS) as log:
                records |= {(r["split"], r["file_stem"]): r for r in (*known, *log.records())}

                def note(record: Record) -> None:
                    records[record["split"], record["file_stem"]] = record
                    log.append(record)
                    log.keep({})

                yield records, bool(known) and not stopped, note
            is_over = True
        except KeyboardInterrupt:
            kept = f"{len(records)} videos are prepared in {out}; the same command resumes from there"
            raise Interrupted(kept) from None
        finally:
            if is_over or not records:
                shutil.rmtree(out / RECORDS, ignore_errors=True)


def _read_complete(out: Path, request: Record) -> list[Record]:
    """Return the records of the index that a complete run has written, if there is one.

    Raises:
        OutputError: if it is damaged, or (older versions wrote no request) of another download.
    """
    if not (out / INDEX_NAME).is_file():
        return []
    try:
        index = read_index(out)
    except LabelsError as error:
        fix = "prepare it again with --overwrite"
        raise OutputError(error.what, path=out, expected=error.expected, got=error.got, fix=fix) from error
    theirs = {key: index.get(key) for key in request}
    if theirs != request:
        raise OutputError(
            "this folder holds a dataset that was prepared from something else",
            path=out,
            got=differences(theirs, request),
            fix="name another folder, or prepare it again with --overwrite",
        )
    return index["videos"]


def _known(earlier: Mapping[tuple[str, str], Record], labels: SplitLabels) -> list[VideoLabels]:
    """Return the videos of a combined file as an earlier complete run found them, if it has not changed.

    Such a file is large, so it is read again only if the frames of a video have changed.
    """
    found = [record for record in earlier.values() if record["split"] == labels.split]
    sources = {source[0]: source for record in found for source in record["sources"]}
    if labels.combined is None or str(labels.combined) not in sources:
        return []
    if not all(os.path.isfile(p) and source_of(Path(p)) == source for p, source in sources.items()):
        return []

    again = functools.cache(lambda: {video.stem: video for video in list_videos(labels)})

    def known(stem: str, sources: Sequence[list[Any]]) -> VideoLabels:
        return VideoLabels(labels.split, stem, tuple(sources), lambda: again()[stem].read(), renamed=True)

    return [known(record["file_stem"], record["sources"]) for record in found]


def _bare_splits(layout: Layout, splits: Collection[str]) -> list[SplitLabels]:
    """Return the split of test videos if they may have frames and no label files: never in PoseTrack17."""
    labelled = any(labels.split == "test" for labels in layout.labels)
    is_bare = layout.kind != "posetrack17" and not labelled and (not splits or "test" in splits)
    return [SplitLabels("test", ())] if is_bare else []


def _fingerprint(folder: Path) -> int:
    return zlib.crc32("\n".join(list_images(folder)).encode())


def _prepare_video(kind: str, video: VideoLabels, images: Path, out: Path, check_images: bool) -> Record:
    """Write the labels of a video, and return what the index says of it."""
    table = video.read()
    path = video.sources[0][0] if video.sources else images
    folder = folder_of(table, path)
    found = list_images(images / folder)
    sizes = {name: stored_size(images / folder / name) for name in found} if check_images else {}
    usual = Counter(size for size in sizes.values() if size is not None).most_common(1)
    damaged = [name for name, size in sizes.items() if not usual or size != usual[0][0]]
    there = [name for name in found if name not in damaged]
    listed = [base_name(name) for name in table.frame_names]
    frames = number_frames(kind, listed, there, table.n_frames, renamed=video.renamed)
    seen: dict[int, str] = {}
    for number, name in zip(frames.numbers_of(listed, renamed=video.renamed), table.frame_names, strict=True):
        if number is None or number in seen:
            raise LabelsError(
                "the number of a frame cannot be told from its file name",
                path=path,
                expected="names like 000012.jpg, each number once",
                got=name if number is None else f"{seen[number]} and {name}",
                fix="check that this is a label file of PoseTrack",
            )
        seen[number] = name
    read = (stored_size(images / folder / name) for name in there)
    size = next((size for size in read if size is not None), table.image_size)
    table = replace(table, frame_numbers=list(seen), n_frames=frames.n_frames, image_size=size)
    write_posetrack18(labels_path(out, video.split, video.stem), table)
    labelled = table.frame_numbers[table.is_labelled].tolist()
    n_peopled = int(np.count_nonzero(table.is_labelled[np.unique(table.rows)]))
    notes = [frames.note] if frames.note else []
    if damaged:
        notes.append(f"damaged or of another size: {few_of(damaged, 3)}")
    return {
        "name": base_name(folder),
        "split": video.split,
        "file_stem": video.stem,
        "folder": folder,
        **asdict(frames),
        "image_size": list(table.image_size) if table.image_size else None,
        "labelled_frames": len(labelled),
        "empty_frames": len(labelled) - n_peopled,
        "instances": table.n_instances,
        "ignore_regions": sum(len(regions) for regions in table.ignore_regions.values()),
        "keypoints": np.isfinite(table.keypoints).all(-1).sum(0).tolist(),
        "labelled": to_ranges(labelled),
        "missing": to_ranges(frames.missing),
        "note": "; ".join(notes),
        "sources": list(video.sources),
        "listing": _fingerprint(images / folder),
    }


def _missing_frames(records: Iterable[Record]) -> Iterator[tuple[str, str]]:
    """Yield the kind and the path, relative to the images, of each missing frame."""
    for record in records:
        labelled = set(from_ranges(record["labelled"]))
        for number in from_ranges(record["missing"]):
            near = any(number + step in labelled for step in range(-REACH, REACH + 1))
            kind = LABELLED if number in labelled else NEIGHBOUR if near else OTHER
            names = record["files"]
            name = f"{number:0{record['digits']}d}{record['suffix']}"
            yield kind, f"{record['folder']}/{names[number - record['first']] if names else name}"


def _summarise(records: Sequence[Record], missing: Sequence[tuple[str, str]], n_kept: int) -> Summary:
    splits: dict[str, dict[str, int]] = {}
    for split in SPLITS:
        chosen = [record for record in records if record["split"] == split]
        if chosen:
            counts = ("n_frames", "labelled_frames", "empty_frames", "instances", "ignore_regions")
            splits[split] = {"videos": len(chosen)} | {c: sum(r[c] for r in chosen) for c in counts}
            splits[split]["missing"] = sum(len(from_ranges(r["missing"])) for r in chosen)
    kinds = (LABELLED, NEIGHBOUR, OTHER)
    worst_first = sorted(missing, key=lambda frame: kinds.index(frame[0]))
    labelled = [sum(counts) for counts in zip(*(r["keypoints"] for r in records), strict=True)]
    return Summary(
        splits=splits,
        missing={kind: sum(k == kind for k, _ in missing) for kind in kinds},
        first_missing=tuple(path for _, path in worst_first[:_N_SHOWN]),
        never_labelled=tuple(n for n, count in zip(POSETRACK.names, labelled, strict=True) if not count),
        notes=tuple(f"{r['name']}: {r['note']}" for r in records if r["note"]),
        n_kept=n_kept,
    )


def _finish(
    out: Path,
    layout: Layout,
    images: Path,
    records: Sequence[Record],
    summary: Summary,
    missing: Sequence[tuple[str, str]],
) -> None:
    """Write the index, link the frames, and remove files that only a preparation under way needs."""
    if missing:
        write_text(out / _MISSING_NAME, "".join(f"{path}\t{kind}\n" for kind, path in missing))
    else:
        (out / _MISSING_NAME).unlink(missing_ok=True)
    link = out / "images"
    with suppress(OSError, NotImplementedError):  # without a link the path in the index is used
        if link.is_symlink():
            link.unlink()
        link.symlink_to(images, target_is_directory=True)
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
        "videos": [],
    }
    # A line for each video.
    videos = ",\n".join("  " + json.dumps(record, separators=(",", ":")) for record in records)
    head = json.dumps(index, indent=1)
    write_text(out / INDEX_NAME, head.replace('"videos": []', f'"videos": [\n{videos}\n ]') + "\n")
    kept = {labels_path(out, record["split"], record["file_stem"]) for record in records}
    for file in (out / "annotations").glob("*/*.json"):
        if file not in kept:
            file.unlink()


def _warn(summary: Summary, out: Path) -> None:
    total = sum(summary.missing.values())
    texts = list(summary.notes[:3])
    if len(summary.notes) > 3:
        texts.append(f"{len(summary.notes) - 3} more videos have such notes; see {out / INDEX_NAME}")
    if total:
        kinds = ", ".join(f"{number} {kind}" for kind, number in summary.missing.items() if number)
        frames = "1 frame is" if total == 1 else f"{total} frames are"
        more = f", ...; {out / _MISSING_NAME} lists all" if total > _N_SHOWN else ""
        texts.insert(0, f"{frames} missing ({kinds}): {', '.join(summary.first_missing)}{more}")
    for text in texts:
        warnings.warn(text, PosewarperWarning, stacklevel=3)
