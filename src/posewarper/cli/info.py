"""``posewarper info``: what is installed here, and what is in a video, a label file or a checkpoint."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posewarper.cli import common
from posewarper.cli.convert import is_checkpoint
from posewarper.errors import ConfigError, LabelsError, PosewarperWarning
from posewarper.files import write_text

if TYPE_CHECKING:
    from torch import Tensor

    from posewarper.formats.records import LabelFile
    from posewarper.model.network import PoseWarper
    from posewarper.structures import Labels
    from posewarper.video.source import Video

Facts = dict[str, Any]
_PACKAGES = ("torch", "torchvision", "timm", "onnxruntime", "av", "opencv-python-headless", "numpy")
_LABEL_SUFFIXES = (".json", ".csv", ".tsv", ".yaml", ".yml", ".h5", ".hdf5", ".slp", ".nwb", ".nc")
_LIGHTNING = "CollectedData*.csv"
_MOST_VIDEOS = 100  # of a file with several that are read, each anew
_OFFSETS = "posewarper info CKPT --offsets [--video VIDEO --frames A,B] [--picture OUT.png]"


def run(
    path: Annotated[
        Path | None,
        typer.Argument(
            help="A video, a folder of frames, labels, a checkpoint (.pt, .pth), or an exported model."
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A label file, checked against the video where one is given."),
    ] = None,
    labels_of: common.LabelsOf = None,
    frame_number: common.FrameNumber = None,
    unlabelled: common.UnlabelledAs = common.Unlabelled.UNKNOWN,
    picture: Annotated[
        Path | None, typer.Option(metavar="OUT.png", help="Draw the labels on their frames, or the offsets.")
    ] = None,
    offsets: Annotated[
        bool,
        typer.Option("--offsets", help="For a checkpoint: show where its warp head reads from, by keypoint."),
    ] = False,
    video: Annotated[
        Path | None, typer.Option(metavar="VIDEO", help="With --offsets: look at two frames of this video.")
    ] = None,
    frames: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="With --offsets and --video: the source and the target frame."),
    ] = None,
    json_file: common.JsonFile = None,
    overwrite: common.Overwrite = False,
    quiet: common.UnusedQuiet = False,
    device: common.UnusedDevice = common.DeviceName.AUTO,
    seed: common.UnusedSeed = 0,
) -> None:
    """Show versions and devices, or what is in a video, a label file, a dataset or a checkpoint.

    With a video and labels it also measures whether labels that lie close in time come too early or too
    late; --picture draws the labels, so that a wrong skeleton, rotation or frame shift shows.

    For a checkpoint, --offsets shows whether its warp head follows motion: on made-up heatmaps, or on two
    frames of a --video (around the --labels, where they are given).
    """
    for place in (json_file, picture):
        if place is not None:
            common.refuse_existing(place, overwrite)
    if picture is not None:
        from posewarper.reporting.overlay import check_picture_name

        check_picture_name(picture)
    _check_options(path, offsets, video, frames)
    if offsets and path is not None:
        facts = {"offsets": _describe_offsets(path, video, frames, labels, picture)}
    else:
        choice = {"video": labels_of, "frame_number": frame_number, "unlabelled": unlabelled.value}
        facts = _gather(path, labels, picture, choice)
    for title, values in facts.items():
        _show(title, values)
    if json_file is not None:
        write_text(json_file, json.dumps(facts, indent=1, default=str) + "\n")


def _check_options(path: Path | None, offsets: bool, video: Path | None, frames: str | None) -> None:
    """Refuse offsets of anything but a checkpoint, and options that belong to them without them."""
    if offsets and (path is None or not is_checkpoint(path)):
        what, got = "--offsets shows the warp head of a checkpoint", "no path" if path is None else path.name
        fix = "name a checkpoint (.pt, .pth)"
    elif not offsets and (video is not None or frames is not None):
        what, got = "--video and --frames belong to --offsets", None
        fix = "add --offsets; a video to be described is named without --video"
    elif (video is None) != (frames is None):
        what = "--video and --frames belong together"
        got = f"--{'video' if frames is None else 'frames'} alone"
        fix = "give both, or neither to see made-up heatmaps moved"
    else:
        return
    raise ConfigError(what, expected=_OFFSETS, got=got, fix=fix)


def _describe_offsets(
    path: Path, video: Path | None, frames: str | None, labels: Path | None, picture: Path | None
) -> Facts:
    """Return the offsets of a checkpoint's head by keypoint and dilation, and draw them if asked."""
    from posewarper.model.checkpoint import load_model
    from posewarper.reporting import network_pictures as pictures

    model = load_model(path)
    pictures.check_head(model, path)
    if video is None or frames is None:
        source, target = pictures.made_up_pair(model)
        step = f"{pictures.MADE_UP_STEP:g} heatmap pixels"
        looked_at = f"made-up heatmaps, each moved by {step} in its own direction"
    else:
        source, target = _see_frames(model, video, frames, labels)
        looked_at = f"{video}, source and target frame {frames}"
    probe = pictures.probe_offsets(model, source, target)
    facts = {"looked at": looked_at, "unit": "heatmap pixels, x right and y down"}
    if picture is not None:
        pictures.write_offset_picture(picture, probe)
        facts["picture"] = str(picture)
    return facts | {"offsets": pictures.tabulate_offsets(probe)}


def _see_frames(model: PoseWarper, path: Path, frames: str, labels: Path | None) -> tuple[Tensor, Tensor]:
    """Return the heatmaps (1, K, h, w) that the network sees in two frames, in one crop around the labels."""
    import numpy as np
    import torch

    from posewarper.crops import normalise, smooth_crop
    from posewarper.formats.labels import read_annotations
    from posewarper.geometry import crop_transform, keypoint_boxes, pad_box
    from posewarper.video.source import open_video

    video = open_video(path)
    indices = [int(part) for part in common.read_names(frames) if part.isdecimal()]
    if len(indices) != 2 or len(frames.split(",")) != 2 or max(indices) >= video.n_frames:
        raise ConfigError(
            "cannot look at these frames",
            expected=f"two frame indices from 0 to {video.n_frames - 1}, such as --frames 10,12",
            got=frames,
            fix="name the source and the target frame",
        )
    height, width = model.spec.crop_size
    boxes = np.array([[-0.5, -0.5, video.image_size[1], video.image_size[0]]])
    if labels is not None:
        track = next(iter(read_annotations(labels, video=video).tracks.values()))
        near = np.abs(track.frames - indices[0]).argmin()
        boxes = keypoint_boxes(track.keypoints[[near]])
    transform = crop_transform(pad_box(boxes, aspect_ratio=width / height)[0], (height, width))
    crops = np.stack([smooth_crop(video[index], transform) for index in indices])
    with torch.inference_mode():
        heatmaps = model.heatmaps(torch.from_numpy(normalise(crops, model.spec.mean, model.spec.std)))
    source, target = heatmaps.split(1)
    return source, target


def _gather(path: Path | None, labels: Path | None, picture: Path | None, choice: Mapping[str, Any]) -> Facts:
    """Return the facts to show by their title; ``choice`` says what label files do not."""
    from posewarper.formats.records import LabelFile

    facts: Facts = {}
    video = None
    is_label_file = path is not None and _is_labels(path)
    is_model = path is not None and (is_checkpoint(path) or path.suffix.lower() == ".onnx")
    is_dataset = path is not None and (path / "dataset.json").is_file()
    is_video = path is not None and not is_label_file and not is_model and not is_dataset
    if picture is not None and (not is_video or labels is None):
        raise ConfigError(
            "--picture draws labels on the frames of a video, and needs both",
            expected="posewarper info VIDEO --labels FILE --picture OUT.png",
            got="no labels" if is_video else "no video",
            fix="name the labels with --labels" if is_video else "name the video that was labelled",
        )
    if path is not None and is_dataset:
        facts["dataset"] = _describe_dataset(path)
    elif path is not None and is_label_file:
        # A folder of Lightning Pose has tables of its own.
        for table in sorted(path.glob(_LIGHTNING)) or [path]:
            title = "labels" if table == path else table.name
            facts[title] = _describe_labels(LabelFile(table, **choice), None)
    elif path is not None and is_checkpoint(path):
        from posewarper.model.checkpoint import describe_checkpoint

        facts["checkpoint"] = describe_checkpoint(path)
    elif path is not None and is_model:
        from posewarper.model.export import describe_onnx

        facts["exported model"] = describe_onnx(path)
    elif path is not None:
        from posewarper.video.source import open_video

        video = open_video(path)
        facts["video"] = _describe_video(video)
    if labels is not None:
        # A label file named twice, as PATH and as --labels, is described once more.
        file = LabelFile(labels, **choice)
        facts["labels"] = _describe_labels(file, video)
        if video is not None:
            facts["labels"] |= _describe_fit(file, video, picture)
    return facts or {"environment": _describe_environment()}


def _describe_dataset(path: Path) -> Facts:
    """Return what a dataset that `prepare` made holds, split by split."""
    from posewarper.posetrack.dataset import open_dataset, read_index

    dataset, summary = open_dataset(path), read_index(path)["summary"]
    return {
        "path": str(path),
        "kind": dataset.kind,
        "frames from": str(dataset.images.resolve()),
        "boxes of": {split: str(file) for split, file in dataset.box_files.items()},
        "never labelled": summary["never_labelled"],
        "splits": [
            {"split": split, **{name.replace("n_", "").replace("_", " "): n for name, n in counts.items()}}
            for split, counts in summary["splits"].items()
        ],
    }


def _is_labels(path: Path) -> bool:
    """Return whether a path is a label file, or a folder that holds labels rather than frames."""
    if not path.is_dir():
        return path.is_file() and path.suffix.lower() in _LABEL_SUFFIXES
    from posewarper.formats.catalogue import is_label_folder

    return is_label_folder(path) or any(path.glob(_LIGHTNING))


def _describe_environment() -> Facts:
    """Return versions, devices, CPU threads and whether bfloat16 is used."""
    import os
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from posewarper.model.runtime import half_precision, resolve_device
    from posewarper.version import __version__

    versions = {"posewarper": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    gpus = [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    device = resolve_device("auto")
    return {
        "versions": versions,
        "system": platform.platform(),
        "devices": ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])],
        "device taken by auto": str(device),
        "CPU cores": os.cpu_count(),
        "CPU threads": torch.get_num_threads(),
        "bfloat16": half_precision(device),
    }


def _describe_video(video: Video) -> Facts:
    """Return length and size of a video; of a file also speed and codec, of a folder which files."""
    from contextlib import suppress

    import av
    import numpy as np
    from av.error import FFmpegError

    from posewarper.video.images import is_image_file
    from posewarper.video.indexing import open_stream

    height, width = video.image_size
    facts: Facts = {"path": str(video.path), "frames": video.n_frames, "width": width, "height": height}
    if video.frame_names:  # image files have no times
        return facts | {"files": f"{video.frame_names[0]} to {video.frame_names[-1]}"}
    steps = np.diff(video.times)
    facts |= {
        "fps": round(float(video.fps), 4),
        "seconds": round(float(video.times[-1] - video.times[0]) + 1 / float(video.fps), 3),
        # Timestamps are rounded by the container, to 1 ms in the coarsest one that is common.
        "steady frame rate": bool(steps.size == 0 or np.ptp(steps) < 0.0025),
    }
    if Path(video.path).is_dir() or is_image_file(video.path):
        return facts | {"container": "an image file with several images"}
    container, stream = open_stream(video.path)
    with container:
        frame = None
        with suppress(FFmpegError):  # the first frame is damaged
            frame = next(container.decode(stream), None)
        stored = {
            "container": container.format.name,
            "codec": stream.codec_context.name,
            "pixel format": frame.format.name if isinstance(frame, av.VideoFrame) else None,
            "rotation": getattr(frame, "rotation", None),  # the one that players apply
        }
    return facts | {name: value for name, value in stored.items() if value is not None}


def _describe_labels(path: LabelFile, video: Video | None) -> Facts:
    """Return format, skeleton, tracks and keypoints of a label file."""
    import numpy as np

    from posewarper.formats.catalogue import detect_format
    from posewarper.formats.frame_names import SeveralVideos
    from posewarper.formats.labels import read_annotations

    try:
        labels = read_annotations(path, video=video)
    except SeveralVideos as several:
        if video is not None:
            raise
        rows = [_describe_one(replace(path, video=name)) for name in several.videos[:_MOST_VIDEOS]]
        count = len(several.videos)
        return {"path": str(path), "format": detect_format(path), "labels of videos": count, "videos": rows}
    skeleton, names = labels.skeleton, labels.skeleton.names
    frames = labels.labelled_frames.tolist()
    height, width = (None, None) if labels.image_size is None else labels.image_size
    # Rising frames in short: 0-99, 7, 22, 37.
    runs = np.split(frames, np.flatnonzero(np.diff(frames) > 1) + 1) if frames else []
    return {
        "path": str(path),
        "format": detect_format(path),
        "video": labels.video,
        "frames": labels.n_frames,
        "width": width,
        "height": height,
        "labelled frames": len(frames),
        "labelled": ", ".join(f"{own[0]}-{own[-1]}" if len(own) > 1 else str(own[0]) for own in runs),
        "predicted frames": len(set(labels.instance_frames.tolist()) - set(frames)),
        "skeleton": {
            "name": skeleton.name,
            "keypoints": list(names),
            "edges": [f"{names[a]}-{names[b]}" for a, b in skeleton.edges],
            "flip pairs": [f"{names[a]}-{names[b]}" for a, b in skeleton.flip_pairs],
        },
        "tracks": _describe_tracks(labels),
        "keypoints": _describe_keypoints(labels),
    }


def _describe_one(path: LabelFile) -> Facts:
    """Return what a file says of one of its videos, in a line."""
    from posewarper.formats.labels import read_annotations

    facts: Facts = {"video": path.video}
    try:
        labels = read_annotations(path)
    except LabelsError as error:
        return {**facts, "labelled frames": f"cannot be read: {error.what}", "tracks": "-", "keypoints": "-"}
    found = {"labelled frames": len(labels.labelled_frames), "tracks": len(labels.tracks)}
    return {**facts, **found, "keypoints": len(labels.skeleton)}


def _describe_fit(path: LabelFile, video: Video, picture: Path | None) -> Facts:
    """Return by how many frames the labels should be moved, where that can be told, and draw them if asked.

    Warns:
        PosewarperWarning: if they fit better elsewhere beyond doubt.
    """
    from posewarper.formats.labels import read_annotations
    from posewarper.motion.label_shift import measure_shift
    from posewarper.reporting.label_sheet import write_label_sheet

    labels = read_annotations(path, video=video)
    facts: Facts = {}
    if picture is not None:
        # Of a file without any label its predictions are shown.
        write_label_sheet(picture, video, labels.only_labelled() if labels.labelled_frames.size else labels)
        facts["picture"] = str(picture)
    shift = measure_shift(video, labels)
    if shift is None:
        return facts
    if shift.is_clear:
        frames = round(shift.frames) or (1 if shift.frames > 0 else -1)
        count = f"{frames:+d} frame{'' if abs(frames) == 1 else 's or more'}"
        warnings.warn(
            f"{path}: the labels fit the video better when moved by {count} ({shift.low:+.1f} to "
            f"{shift.high:+.1f}, by optical flow at {shift.places} places): look at them with --picture, and "
            f"move them with `posewarper convert --frame-offset {frames}`",
            PosewarperWarning,
            stacklevel=2,
        )
    return facts | {
        "in time": "no" if shift.is_clear else "yes" if shift.is_none else "cannot tell",
        "fits best moved by": round(shift.frames, 2),
        "frames, between": [round(shift.low, 2), round(shift.high, 2)],
    }


def _describe_tracks(labels: Labels) -> list[Facts]:
    marked = labels.at(labels.labelled_frames).tracks
    counts = {i: len(marked[i].frames) if i in marked else 0 for i in labels.tracks}
    return [
        {
            "track": i,
            "first frame": int(track.frames[0]),
            "last frame": int(track.frames[-1]),
            "labels": counts[i],
            "predictions": len(track.frames) - counts[i],
        }
        for i, track in labels.tracks.items()
    ]


def _describe_keypoints(labels: Labels) -> list[Facts]:
    """Return for each keypoint how often it is labelled, and the shares of labels in the other states."""
    import numpy as np

    tracks = labels.only_labelled().tracks.values()
    total = max(sum(len(track.frames) for track in tracks), 1)

    def shares(states: list[np.ndarray]) -> list[float]:
        counts = sum((state.sum(0) for state in states), np.zeros(len(labels.skeleton)))
        return [round(100 * float(count) / total, 1) for count in counts]

    placed = sum((track.placed.sum(0) for track in tracks), np.zeros(len(labels.skeleton), np.int64))
    columns = {
        "keypoint": labels.skeleton.names,
        "labelled": placed.tolist(),
        "hidden %": shares([track.visibility == 1 for track in tracks]),
        "absent %": shares([track.absent for track in tracks]),
        "not looked at %": shares([track.not_looked_at for track in tracks]),
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _show(title: str, facts: Mapping[str, Any]) -> None:
    """Print facts as a table of names and values; lists of facts become tables of their own."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(box=box.SIMPLE, show_header=False, title=_as_text(title), title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    lists = []
    for name, value in _flatten(facts):
        if isinstance(value, list) and value and isinstance(value[0], dict):
            lists.append(value)
        elif value is not None:
            table.add_row(_as_text(name), _as_text(value))
    console.print(table)
    for rows in lists:
        inner = Table(box=box.SIMPLE)
        for i, column in enumerate(rows[0]):
            inner.add_column(_as_text(column), justify="right" if i else "left")
        for row in rows:
            inner.add_row(*[_as_text(value) for value in row.values()])
        console.print(inner)


def _flatten(facts: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flatten(value)
        else:
            yield name, value


def _as_text(value: object) -> str:
    """Return a value for a table cell, without what a terminal or rich would choke on."""
    if isinstance(value, bool):
        text = "yes" if value else "no"
    else:
        text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return common.as_cell(text)
