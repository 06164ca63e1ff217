"""The table of label formats: how each is recognised, read and written, and what it cannot hold.

A new format is an entry in ``FORMATS`` here, and a file in this folder with ``read_clip``, which returns a
:class:`Clip`, and ``write_labels``, which takes :class:`Labels`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from posewarper.errors import LabelsError, few_of, unknown_name
from posewarper.formats import coco, deeplabcut, movement, nwb, openpose, sleap, table, yolo
from posewarper.formats.clips import Clip, VideoFacts
from posewarper.formats.records import (
    SIGNATURE,
    PathLike,
    encoding_of,
    load_json,
    read_bytes,
    read_json,
    read_text,
    tell_format,
)
from posewarper.structures import Labels


@dataclass(frozen=True)
class LabelFormat:
    """What one format is.

    Args:
        what: what it is, with its article, as in "a DeepLabCut table".
        reads: what kind of file or folder is read.
        suffixes: what the names of files in this format end in; none for folders. A name that ends so is
            written in the first format of the table that has it, when no format is named.
        read: (path, video, skeleton) -> what the file says; the skeleton names keypoints that the file does
            not name. If ``chooses``, it may also be the name of one of the file's own.
        write: (path, labels, video, whose times may be written) -> what the file has a place for, but cannot
            hold in this case. None if the format is only read.
        cannot_hold: which of :data:`posewarper.formats.clips.PIECES` it has no place for.
        partly: which pieces it holds in some cases only; its writer says where it does not.
        told: by what a file or folder is told to be in this format, when no format is named.
        writes: what is written, where that is not the same as what is read.
        holds_images: whether what is written holds the labelled frames, for which it needs the video.
        extra: the extra of this package that has to be installed, None if none.
    """

    what: str
    reads: str
    suffixes: tuple[str, ...]
    read: Callable[[PathLike, VideoFacts | None, Any], Clip]
    write: Callable[[PathLike, Labels, VideoFacts | None], list[str]] | None
    cannot_hold: frozenset[str] = frozenset()
    partly: frozenset[str] = frozenset()
    told: str = ""
    writes: str | None = None
    extra: str | None = None
    chooses: bool = False
    holds_images: bool = False


def _pieces(*texts: str) -> frozenset[str]:
    return frozenset(piece for text in texts for piece in text.split(", "))


# Where a keypoint of a labelled frame is there or not, and nothing else.
_NO_STATES = (
    "which keypoints are absent, which keypoints of labelled frames are predictions, which tracks nobody has "
    "looked at"
)


def _by_sleap_io(what: str, *, reads: str, told: str, loader: str) -> LabelFormat:
    """Return a format that sleap-io alone reads, and nothing here writes."""
    return LabelFormat(
        what=what,
        reads=reads,
        told=told,
        suffixes=(),
        read=partial(sleap.read_other, loader=loader, what=what),
        chooses=True,
        write=None,
        extra="formats",
    )


FORMATS: dict[str, LabelFormat] = {
    "posetrack": LabelFormat(
        what="COCO keypoints JSON with PoseTrack18's video fields",
        reads="a .json file: ours, or an official PoseTrack18 file",
        writes="a .json file",
        told="JSON with frame_id or vid_id in an image",
        suffixes=(".json",),
        read=partial(coco.read_clip, native=True),
        chooses=True,
        write=coco.write_native,
    ),
    "coco": LabelFormat(
        what="plain COCO keypoints JSON",
        reads="a .json file",
        told="JSON with images, without frame_id and vid_id",
        suffixes=(".json",),
        read=partial(coco.read_clip, native=False),
        chooses=True,
        write=coco.write_plain,
        cannot_hold=_pieces("the number of frames"),
    ),
    "deeplabcut": LabelFormat(
        what="a DeepLabCut table",
        reads="a project (its folder or config.yaml), CollectedData_*.csv, or .h5 with the extra formats; "
        "also predictions",
        writes="a table, .csv or .h5",
        told="a header that begins with scorer; config.yaml in a folder; HDF5 of pandas",
        suffixes=(".csv", ".h5"),
        read=deeplabcut.read_clip,
        write=deeplabcut.write_labels,
        cannot_hold=_pieces(
            _NO_STATES,
            "which keypoints are hidden, boxes, head boxes, scores, expected errors, which poses are "
            "predictions, labelled frames that show nobody, track ids, edges, mirror pairs, ignore regions, "
            "the image size, the number of frames, what an instance is called",
        ),
        partly=_pieces("the names of the frames' files"),
    ),
    "deeplabcut-predictions": LabelFormat(
        what="a DeepLabCut table of predictions",
        reads="<video>DLC_*.csv or .h5",
        told="as deeplabcut, which reads it as well",
        suffixes=(".csv", ".h5"),
        read=deeplabcut.read_clip,
        write=deeplabcut.write_predictions,
        cannot_hold=_pieces(
            _NO_STATES,
            "which keypoints are hidden, boxes, head boxes, expected errors, labelled frames that show "
            "nobody, track ids, edges, mirror pairs, ignore regions, the image size, the names of the "
            "frames' files, what an instance is called",
        ),
        partly=_pieces("which poses are predictions, which keypoints have no score, the video's name"),
    ),
    "sleap": LabelFormat(
        what="a SLEAP project",
        reads="a .slp file, also one that holds images",
        writes="a .slp file that names the video",
        told="HDF5 with SLEAP's tables",
        suffixes=(".slp",),
        read=sleap.read_clip,
        chooses=True,
        write=sleap.write_labels,
        cannot_hold=_pieces(
            _NO_STATES, "which keypoints are hidden, boxes, head boxes, expected errors, ignore regions"
        ),
        partly=_pieces(
            "track ids, track names, scores, mirror pairs, the number of frames, "
            "the names of the frames' files"
        ),
        extra="formats",
    ),
    "nwb": LabelFormat(
        what="an NWB file with ndx-pose",
        reads="a .nwb file with labels (PoseTraining) or predictions (PoseEstimation)",
        writes="a .nwb file that names the video",
        told="HDF5 with NWB's version",
        suffixes=(".nwb",),
        read=nwb.read_clip,
        chooses=True,
        write=nwb.write_labels,
        cannot_hold=_pieces(
            _NO_STATES,
            "boxes, head boxes, expected errors, mirror pairs, ignore regions, the names of the frames' "
            "files",
        ),
        partly=_pieces(
            "track ids, track names, scores, which keypoints are hidden, what an instance is called"
        ),
        extra="formats",
    ),
    "movement": LabelFormat(
        what="a NetCDF file of movement",
        reads="a .nc file with poses",
        writes="a .nc file with every frame, also the expected errors",
        told="HDF5 with movement's position",
        suffixes=(".nc",),
        read=movement.read_clip,
        write=movement.write_labels,
        cannot_hold=_pieces(
            "what an instance is called, boxes, head boxes, track ids, mirror pairs, ignore regions, the "
            "names of the frames' files"
        ),
        extra="formats",
    ),
    "openpose": LabelFormat(
        what="a folder of OpenPose's JSON files",
        reads="a folder with a file for each frame, *_keypoints.json",
        told="a folder of JSON files with people",
        suffixes=(),
        read=openpose.read_clip,
        write=openpose.write_labels,
        cannot_hold=_pieces(
            _NO_STATES,
            "the keypoints' names, what an instance is called, which keypoints are hidden, boxes, head "
            "boxes, scores of 0 and below, which keypoints have no score, expected errors, which poses are "
            "predictions, which frames nobody has labelled, track names, edges, mirror pairs, ignore "
            "regions, the image size, the number of frames, the video's name, the names of the frames' files",
        ),
    ),
    "yolo": LabelFormat(
        what="a YOLO pose data set",
        reads="a folder with data.yaml, images and labels, or its data.yaml",
        writes="the same, with the labelled frames as images (needs the video)",
        told="kpt_shape in a .yaml file, or in one in the folder",
        suffixes=(),
        read=yolo.read_clip,
        chooses=True,
        write=yolo.write_labels,
        holds_images=True,
        cannot_hold=_pieces(
            _NO_STATES,
            "head boxes, scores, expected errors, which poses are predictions, track ids, track names, "
            "edges, ignore regions, the number of frames, the names of the frames' files",
        ),
        partly=_pieces("which keypoints are hidden"),
    ),
    "csv": LabelFormat(
        what="a long table",
        reads="a .csv file with a row for each keypoint: frame or time, track, keypoint, x, y, ...",
        told="a header that names these columns",
        suffixes=(".csv", ".tsv"),
        read=table.read_clip,
        write=table.write_labels,
        cannot_hold=_pieces(
            "what an instance is called, boxes, head boxes, edges, mirror pairs, ignore regions, the image "
            "size, the number of frames, the video's name, the names of the frames' files"
        ),
    ),
    "sleap-analysis": _by_sleap_io(
        "an analysis file of SLEAP",
        reads="an .h5 file that SLEAP exported for analysis",
        told="HDF5 with tracks and node_names",
        loader="load_analysis_h5",
    ),
    "jabs": _by_sleap_io(
        "poses of JABS",
        reads="an .h5 file, <video>_pose_est_v*.h5",
        told="HDF5 with poseest",
        loader="load_jabs",
    ),
    "alphatracker": _by_sleap_io(
        "labels of AlphaTracker",
        reads="a .json file with a list of images",
        told="a JSON list with filename and annotations",
        loader="load_alphatracker",
    ),
}


# What posewarper writes to a folder of results, or to `label` in it, the labels first.
_RESULTS = ("label/labels.json", "poses.json")


def is_label_folder(path: PathLike) -> bool:
    """Return whether a folder holds labels: a project, or a file for each frame."""
    return deeplabcut.is_project(path) or yolo.is_data_set(path) or openpose.is_folder(path)


def detect_format(path: PathLike) -> str:
    """Return which of :data:`FORMATS` a label file has, by its content.

    Raises:
        LabelsError: if it cannot be read, or has none of them.
    """
    if is_label_folder(path):
        is_yolo = not deeplabcut.is_project(path) and yolo.is_data_set(path)
        return "yolo" if is_yolo else "deeplabcut" if deeplabcut.is_project(path) else "openpose"
    if Path(path).is_dir():
        names = ("labels.json",) if (Path(path) / "edits.jsonl").is_file() else _RESULTS
        own = next((place for place in map(Path(path).joinpath, names) if place.is_file()), None)
        if own is not None:
            raise LabelsError(
                "this is a folder of results, and no label file",
                path=path,
                expected="one of the files in it",
                fix=f"name {own}; posewarper label goes on in the folder itself if it is given as --out",
            )
        raise LabelsError(
            "this folder holds no labels",
            path=path,
            expected="OpenPose's *_keypoints.json, config.yaml of a DeepLabCut project, or data.yaml of YOLO",
            got=few_of(sorted(p.name for p in Path(path).iterdir())) or "an empty folder",
            fix="name the folder or the file that holds the labels",
        )
    head = read_bytes(path, count=2**16)
    if head.startswith(SIGNATURE):
        return tell_format(path)
    text = head.decode(encoding_of(head), "replace").lstrip()
    if deeplabcut.is_csv(text) or deeplabcut.is_config(text):
        return "deeplabcut"
    if yolo.is_config(text):
        return "yolo"
    if table.is_table(text):
        return "csv"
    if text.startswith(("{", "[")):
        return _tell_json(path, is_list=text.startswith("["))
    read_text(path)  # says so if it is empty, or no text at all
    raise LabelsError(
        "this is no label file in a known format",
        path=path,
        expected=f"one of {', '.join(FORMATS)}",
        got=f"a file that begins with {text[:20]!r}",
        fix="export the labels as COCO keypoints JSON, or name the format (--from)",
    )


def _tell_json(path: PathLike, *, is_list: bool) -> str:
    if is_list and sleap.is_alphatracker(load_json(read_text(path), path)):
        return "alphatracker"
    document = read_json(path)
    if openpose.is_document(document):
        return "openpose"
    return "posetrack" if coco.is_native(document) else "coco"


def known_format(path: PathLike, format: str) -> str:
    """Return the name of a format if there is such a one.

    Raises:
        LabelsError: if there is none.
    """
    if format not in FORMATS:
        fix = "name one of these, or leave the format out"
        raise unknown_name("unknown label format", format, FORMATS, path=path, error=LabelsError, fix=fix)
    return format


def formats_by_suffix() -> dict[str, str]:
    """Return the format that is written for each suffix when no format is named."""
    names: dict[str, str] = {}
    for name, form in FORMATS.items():
        for suffix in form.suffixes:
            names.setdefault(suffix, name)
    return names


def format_to_write(path: PathLike, format: str | None = None) -> str:
    """Return the format in which labels are written to a path: the one asked for, or that of the suffix.

    Raises:
        LabelsError: if neither tells a format, or the name is not one that files of the format have.
    """
    suffix = Path(path).suffix.lower()
    if format is not None and FORMATS[known_format(path, format)].write is None:
        raise LabelsError(
            f"{FORMATS[format].what} can only be read",
            path=path,
            expected=f"one of {', '.join(name for name, form in FORMATS.items() if form.write)}",
            got=format,
            fix="name another format (--to)",
        )
    if format is not None:
        wanted = FORMATS[known_format(path, format)].suffixes
        if wanted and suffix not in wanted:
            raise LabelsError(
                f"this is no name for {FORMATS[format].what}",
                path=path,
                expected=f"a name that ends in {' or '.join(wanted)}",
                got=suffix or "no suffix",
                fix="name it so, so that other programs know it; whole projects are not written",
            )
        return format
    by_suffix = formats_by_suffix()
    if suffix not in by_suffix:
        raise LabelsError(
            "the suffix does not tell a format of labels",
            path=path,
            expected=f"{', '.join(by_suffix)}, or a format by name (--to)",
            got=suffix or "no suffix",
            fix="name the file .json (COCO with PoseTrack fields), .csv or .h5 (DeepLabCut), .slp (SLEAP), "
            ".nwb or .nc (movement), or name the format: --to openpose and --to yolo make a folder",
        )
    return by_suffix[suffix]
