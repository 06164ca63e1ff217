"""``posewarper prepare``: a download of PoseTrack, checked and made ready for the other commands."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posewarper.cli import common

if TYPE_CHECKING:
    from posewarper.posetrack.dataset import Dataset
    from posewarper.posetrack.preparation import Summary


class Kind(StrEnum):
    """Which PoseTrack."""

    POSETRACK17 = "posetrack17"
    POSETRACK18 = "posetrack18"
    POSETRACK21 = "posetrack21"


def run(
    kind: Annotated[Kind, typer.Argument(metavar="posetrack17|posetrack18|posetrack21")],
    download: Annotated[
        Path, typer.Argument(metavar="DOWNLOAD", help="The folder into which PoseTrack was unpacked.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to write.")],
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The folder of the frames, if they are not in DOWNLOAD."),
    ] = None,
    splits: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Take these splits alone, as in train,val; all if left out."),
    ] = None,
    check_images: Annotated[
        bool, typer.Option("--check-images", help="Open every image, not only one of each video.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Begin anew, also where DIR was made from another download.")
    ] = False,
    quiet: common.Quiet = False,
    device: common.UnusedDevice = common.DeviceName.AUTO,
    seed: common.UnusedSeed = 0,
) -> None:
    """Check a download of PoseTrack and make it ready for predict and train.

    The content tells what DOWNLOAD is: the official folders (annotations/val and
    images, or posetrack_data), or the files that came with the original
    PoseWarper (posetrack17_json_files, posetrack17_annotation_dirs), mostly
    with --images.

    DIR gets dataset.json, annotations/SPLIT/VIDEO.json (all in the form of
    PoseTrack18) and a link to the frames, which are never copied. The command
    names missing frames, and missing.txt lists all of them; the rest is usable.

    The same command resumes where it was stopped, and takes up what has
    changed in DOWNLOAD since.
    """
    from posewarper.posetrack.preparation import prepare_dataset

    with common.progress_bar(quiet) as progress:
        dataset, summary = prepare_dataset(
            kind.value,
            download,
            out,
            images=images,
            splits=common.read_names(splits or ""),
            check_images=check_images,
            overwrite=overwrite,
            progress=progress,
        )
    _show(dataset, summary)


def _show(dataset: Dataset, summary: Summary) -> None:
    columns = (
        "videos",
        "n_frames",
        "missing",
        "labelled_frames",
        "empty_frames",
        "instances",
        "ignore_regions",
    )
    titles = ("split", "videos", "frames", "missing", "labelled", "empty", "instances", "ignore regions")
    rows = [(split, *(str(counts[c]) for c in columns)) for split, counts in summary.splits.items()]
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    for row in (titles, *rows):
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        common.print_line("  ".join(cells))
    common.print_line(f"frames: {dataset.images.resolve()}")
    if summary.never_labelled:
        common.print_line(f"never labelled: {', '.join(summary.never_labelled)}")
    for split, path in dataset.box_files.items():
        common.print_line(f"boxes of {split}: {path}")
    if summary.n_kept:
        common.print_line(f"unchanged since the last run: {common.count_of(summary.n_kept, 'video')}")
    common.print_line(
        f"wrote {dataset.root}: {common.count_of(len(dataset.videos), 'video')} ({dataset.kind})"
    )
