"""The formats of labels: what each is, how it is told, read and written, and what it cannot hold.

A new format is one line here and one file beside, whose ``read_clip`` gives a :class:`Clip` and whose
``write_labels`` takes :class:`Labels`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from posewarper.errors import LabelsError
from posewarper.io import coco, coco_output, deeplabcut
from posewarper.io.clips import Clip, VideoFacts
from posewarper.io.losses import warn_of_losses
from posewarper.io.records import PathLike, read_json, read_text
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels

# (path, video, skeleton) -> what the file says. Only formats that don't name keypoints use the skeleton.
Reader = Callable[[PathLike, VideoFacts | None, Skeleton | None], Clip]


@dataclass(frozen=True)
class LabelFormat:
    """What one format is.

    Args:
        what: what it is, with its article, as in "a DeepLabCut table".
        reads: what kind of file or folder is read.
        suffix: the suffix of files that are written in this format when no format is named, None if none is.
        read: gives what a file says.
        write: writes labels; None where writing makes no sense.
        cannot_hold: which of :data:`posewarper.io.losses.PIECES` it has no place for.
    """

    what: str
    reads: str
    suffix: str | None
    read: Reader
    write: Callable[[PathLike, Labels], None] | None
    cannot_hold: frozenset[str] = frozenset()


FORMATS: dict[str, LabelFormat] = {
    "posetrack": LabelFormat(
        what="COCO keypoints JSON with PoseTrack18's video fields",
        reads="a .json file: ours, or an official PoseTrack18 file",
        suffix=".json",
        read=lambda path, video, skeleton: coco.read_clip(
            read_json(path), path, native=True, video=video, skeleton=skeleton
        ),
        write=coco_output.write_native,
    ),
    "coco": LabelFormat(
        what="plain COCO keypoints JSON",
        reads="a .json file",
        suffix=None,
        read=lambda path, video, skeleton: coco.read_clip(
            read_json(path), path, native=False, video=video, skeleton=skeleton
        ),
        write=coco_output.write_plain,
        cannot_hold=frozenset({"the number of frames"}),
    ),
    "deeplabcut": LabelFormat(
        what="a DeepLabCut table",
        reads="CollectedData_*.csv, of one or of several animals",
        suffix=".csv",
        read=lambda path, video, skeleton: deeplabcut.read_clip(read_text(path), path, video=video),
        write=deeplabcut.write_labels,
        cannot_hold=deeplabcut.CANNOT_HOLD,
    ),
}


def detect_format(path: PathLike) -> str:
    """Return which of :data:`FORMATS` a label file has, by its content.

    Raises:
        LabelsError: if it cannot be read, or has none of them.
    """
    head = _read_head(path)
    text = head.decode("utf-8-sig", "replace").lstrip()
    if deeplabcut.is_csv(text):
        return "deeplabcut"
    if text.startswith(("{", "[")):
        return "posetrack" if coco.is_native(read_json(path)) else "coco"
    read_text(path)  # says so if it is empty, or no text at all
    raise LabelsError(
        "this is no label file in a known format",
        path=path,
        expected=f"one of {', '.join(FORMATS)}",
        got=f"a file that begins with {text[:20]!r}",
        mend="export the labels as COCO keypoints JSON, or name the format (--from)",
    )


def _read_head(path: PathLike, count: int = 4096) -> bytes:
    try:
        with Path(path).open("rb") as handle:
            return handle.read(count)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.EIO:
            raise
        mend = "name an existing file that you may read"
        raise LabelsError("cannot read this label file", path=path, got=error, mend=mend) from error


def read_clip(
    path: PathLike, format: str | None, video: VideoFacts | None, skeleton: Skeleton | None
) -> Clip:
    """Return what a file says, in the format named or in the one that its content tells.

    Raises:
        LabelsError: if anything in it is not as it should be, or the format is unknown.
    """
    name = detect_format(path) if format is None else known_format(path, format)
    return FORMATS[name].read(path, video, skeleton)


def write_in_format(path: PathLike, labels: Labels, format: str) -> None:
    """Write labels in a format by name, and warn of what it cannot hold.

    Raises:
        LabelsError: if the format is unknown or is only read.
        OutputError: if the file cannot be written.
    """
    chosen = FORMATS[known_format(path, format)]
    if chosen.write is None:
        writable = ", ".join(name for name, f in FORMATS.items() if f.write is not None)
        mend = "name one of these"
        raise LabelsError("this format is only read", path=path, expected=writable, got=format, mend=mend)
    chosen.write(path, labels)
    warn_of_losses(path, chosen.what, labels, chosen.cannot_hold)


def known_format(path: PathLike, format: str) -> str:
    """Return the name of a format if there is such a one.

    Raises:
        LabelsError: if there is none.
    """
    if format not in FORMATS:
        expected = ", ".join(FORMATS)
        mend = "name one of these, or leave the format out"
        raise LabelsError("unknown label format", path=path, expected=expected, got=format, mend=mend)
    return format


def format_to_write(path: PathLike, format: str | None = None) -> str:
    """Return the format in which labels are written to a path: the one asked for, or that of the suffix.

    Raises:
        LabelsError: if neither tells a format.
    """
    if format is not None:
        return known_format(path, format)
    by_suffix = {f.suffix: name for name, f in FORMATS.items() if f.suffix is not None}
    suffix = Path(path).suffix.lower()
    if suffix not in by_suffix:
        raise LabelsError(
            "the suffix does not tell a format of labels",
            path=path,
            expected=f"{', '.join(by_suffix)}, or a format by name (--to)",
            got=suffix or "no suffix",
            mend="name the file .json (COCO with PoseTrack fields) or .csv (DeepLabCut)",
        )
    return by_suffix[suffix]
