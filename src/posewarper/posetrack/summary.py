"""What a preparation found and missed, counted over its videos."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posewarper.files import replacing
from posewarper.posetrack.frame_files import NEIGHBOURS, from_ranges, near_labels
from posewarper.posetrack.layouts import SPLITS
from posewarper.skeletons import POSETRACK

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
