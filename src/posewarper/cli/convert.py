"""``posewarper convert``: labels from one format to another, and parts of them; weights to our checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posewarper.cli import common
from posewarper.cli.common import (
    DeviceName,
    Overwrite,
    UnusedDevice,
    UnusedQuiet,
    UnusedSeed,
    count_of,
    print_line,
    refuse_existing,
)
from posewarper.errors import ConfigError, LabelsError
from posewarper.model.hub import is_model
from posewarper.skeletons import PRESETS

if TYPE_CHECKING:
    from posewarper.structures import Labels


_CHECKPOINTS = (".pt", ".pth")


def is_checkpoint(path: Path) -> bool:
    """Tell by its name whether a file holds weights; so do folders of models and addresses of such."""
    return path.suffix.lower() in _CHECKPOINTS or is_model(path)


def run(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="The label file or folder, or the weights (.pth), to read.")
    ],
    out: Annotated[
        Path,
        typer.Argument(metavar="OUT", help="The label file or folder, or the checkpoint (.pt), to write."),
    ],
    from_format: Annotated[
        str | None,
        typer.Option("--from", metavar="FMT", help="Format of IN; detected from its content by default."),
    ] = None,
    to_format: Annotated[
        str | None, typer.Option("--to", metavar="FMT", help="Format of OUT; by its suffix if left out.")
    ] = None,
    video: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The video (or folder of frames), to check the labels against and to get times from.",
        ),
    ] = None,
    skeleton: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"The keypoints that IN has ({', '.join(PRESETS)}), "
            "or which of several skeletons in IN to take, by its name or number.",
        ),
    ] = None,
    labels_of: common.LabelsOf = None,
    frame_number: common.FrameNumber = None,
    unlabelled: common.UnlabelledAs = common.Unlabelled.UNKNOWN,
    every: Annotated[
        int | None,
        typer.Option(metavar="K", min=1, help="Keep the labels on frames k//2, k//2 + k, ... alone."),
    ] = None,
    labels_only: Annotated[
        bool,
        typer.Option("--labels-only", help="Keep the labels alone, without predictions on other frames."),
    ] = False,
    track: Annotated[int | None, typer.Option(metavar="ID", help="Keep one track alone.")] = None,
    frame_offset: Annotated[
        int, typer.Option(metavar="N", help="Add N to each frame index (-1 fixes labels that count from 1).")
    ] = 0,
    min_score: Annotated[
        float, typer.Option(metavar="S", help="Drop keypoints with a score below S (0 keeps all).")
    ] = 0.0,
    crop_size: Annotated[
        str | None,
        typer.Option(
            metavar="HxW", help="For weights: the crop size they were trained with, 384x288 by default."
        ),
    ] = None,
    overwrite: Overwrite = False,
    quiet: UnusedQuiet = False,
    device: UnusedDevice = DeviceName.AUTO,
    seed: UnusedSeed = 0,
) -> None:
    """Convert labels between formats, and parts of them; or released weights.

    The content of IN tells its format, the suffix of OUT the other: .json is
    posetrack, .csv deeplabcut, .slp sleap, .nwb nwb, .nc movement. Name any other with
    --to; docs/formats.md says what each reads, writes and cannot hold.

    posetrack: COCO keypoints JSON with the video fields of PoseTrack18, the
    format of this program; official PoseTrack18 files are read as well.

    coco: plain COCO keypoints JSON, also as CVAT and Label Studio export it.

    deeplabcut: CollectedData_*.csv or .h5, or a project; with
    deeplabcut-predictions the table that its analysis of a video makes.

    sleap: a .slp project. nwb: an .nwb file with poses (ndx-pose).

    movement: a .nc file (NetCDF) with every frame, scores, expected errors.

    openpose: a folder of *_keypoints.json, one for each frame.

    yolo: a folder with data.yaml, images and labels, as Ultralytics trains YOLO
    pose networks on; it holds the labelled frames, so --video is needed to write it.

    Read alone, by way of sleap-io: sleap-analysis (.h5), jabs (.h5), alphatracker
    (.json).

    csv: a long table, one row for each keypoint, with frame or time, track,
    keypoint, x, y; the column time is written if --video is given.

    Predictions on unlabelled frames are kept, and marked as such where OUT
    can do so; --labels-only leaves them out. What OUT cannot hold is named in a warning.

    IN.pth OUT.pt: weights of the original (pose network or PoseWarper) or of
    mmpose 0.x, to a checkpoint that describes itself. Those with 17 keypoints
    are taken as PoseTrack's; --skeleton coco says otherwise.
    """
    if is_checkpoint(source):
        foreign = {"--from": from_format, "--to": to_format, "--video": video, "--every": every}
        foreign |= {"--track": track is not None, "--frame-offset": frame_offset, "--min-score": min_score}
        foreign |= {"--labels-only": labels_only}
        foreign |= {"--labels-of": labels_of, "--frame-number": frame_number}
        foreign |= {"--unlabelled": unlabelled is not common.Unlabelled.UNKNOWN}
        _refuse_options(foreign, "weights")
        _convert_weights(source, out, skeleton, crop_size, overwrite)
        return
    _refuse_options({"--crop-size": crop_size}, "labels")
    from posewarper.formats.catalogue import format_to_write
    from posewarper.formats.labels import read_annotations, write_labels
    from posewarper.formats.records import LabelFile
    from posewarper.video.source import open_video

    to_format = format_to_write(out, to_format)
    refuse_existing(out, overwrite)
    opened = None if video is None else open_video(video)
    labels = read_annotations(
        LabelFile(source, labels_of, frame_number, unlabelled=unlabelled.value),
        format=from_format,
        video=opened,
        skeleton=skeleton,
        frame_offset=frame_offset,
    )
    if labels_only:
        if not labels.labelled_frames.size:
            raise LabelsError(
                "no frame is labelled",
                path=source,
                got=f"predictions on {len(labels.instance_frames)} frames",
                fix="leave --labels-only out",
            )
        labels = labels.only_labelled()
    if track is not None:
        labels = labels.only_track(track)
    if min_score > 0:
        labels = _drop_low_scores(labels, min_score, source)
    if every is not None:
        labels = _keep_every(labels, every, source)
    write_labels(out, labels, format=to_format, video=opened)
    predicted = len(set(labels.instance_frames.tolist()) - set(labels.labelled_frames.tolist()))
    parts = [
        count_of(len(labels.labelled_frames), "labelled frame"),
        *([f"{predicted} predicted"] if predicted else []),
        count_of(len(labels.tracks), "track"),
        count_of(len(labels.skeleton), "keypoint"),
    ]
    print_line(f"wrote {out}: {', '.join(parts)} ({to_format})")


def _convert_weights(
    source: Path, out: Path, skeleton: str | None, crop_size: str | None, overwrite: bool
) -> None:
    """Read weights of the original or of mmpose 0.x strictly, and write them as a checkpoint of ours."""
    if out.suffix.lower() not in _CHECKPOINTS:
        raise ConfigError(
            "weights can only be written as a checkpoint",
            expected="a name that ends in .pt",
            got=out.name,
            fix=f"name it {out.with_suffix('.pt').name}",
        )
    refuse_existing(out, overwrite)

    from posewarper.model.checkpoint import load_model, save_model
    from posewarper.skeletons import named_skeleton

    size = None
    if crop_size is not None:
        match = re.fullmatch(r"(\d+)\s*[xX]\s*(\d+)", crop_size.strip())
        if match is None:
            expected, fix = "HEIGHTxWIDTH, such as 384x288", "write it so"
            raise ConfigError("cannot read this size", expected=expected, got=crop_size, fix=fix)
        size = int(match[1]), int(match[2])
    model = load_model(source, skeleton=named_skeleton(skeleton) if skeleton else None, crop_size=size)
    save_model(out, model)
    spec, has_head = model.spec, bool(model.spec.trained.get("warp"))
    height, width = spec.crop_size
    print_line(
        f"wrote {out}: {spec.provenance.get('weights', 'checkpoint of posewarper')}, {spec.backbone}, "
        f"{len(spec.skeleton)} keypoints, crops of {height} x {width}, "
        f"{'with' if has_head else 'without'} a trained warp head"
    )
    if not has_head:
        print_line("its new head returns heatmaps as they are: train it before you aggregate or propagate")
    for line in spec.provenance.get("unused", ()):
        print_line(f"not used: {line}")
    if assumed := spec.provenance.get("assumed"):
        print_line(f"the file does not say, so taken from the original's setup: {', '.join(assumed)}")


def _refuse_options(given: Mapping[str, object], what: str) -> None:
    """Refuse options that say nothing about what is converted."""
    names = [name for name, value in given.items() if value]
    if names:
        fix = "leave it out" if len(names) == 1 else "leave them out"
        raise ConfigError(f"{', '.join(names)} cannot be used on {what}", fix=fix)


def _keep_every(labels: Labels, every: int, source: Path) -> Labels:
    """Return the labels of every k-th frame, beginning in the middle of the first k frames."""
    import numpy as np

    frames = np.union1d(labels.labelled_frames, labels.instance_frames)
    kept = labels.at(frames[frames % every == every // 2].tolist())
    if not kept.tracks:
        raise LabelsError(
            f"no labels are left on frames {every // 2}, {every // 2 + every}, ...",
            path=source,
            got=f"labels on {len(frames)} frames, the last is frame {frames[-1]}",
            fix="give a smaller --every",
        )
    return kept


def _drop_low_scores(labels: Labels, least: float, source: Path) -> Labels:
    """Return the labels without keypoints whose score is below ``least``; those without a score stay."""
    from dataclasses import replace

    import numpy as np

    tracks, best = {}, -np.inf
    for track_id, track in labels.tracks.items():
        low = track.keypoint_scores < least
        as_before = ~low.any(-1)
        best = max(best, track.keypoint_scores.max(initial=-np.inf, where=low))
        kept = replace(
            track,
            visibility=np.where(low, 0, track.visibility),
            labelled=track.labelled & ~low,
            keypoint_scores=np.where(low, np.nan, track.keypoint_scores),
            expected_error=np.where(low, np.nan, track.expected_error),
        )
        kept = kept.at(kept.frames[kept.visibility.any(-1) | as_before])
        if len(kept.frames):
            tracks[track_id] = kept
    if not tracks:
        fix, got = "give a smaller --min-score", f"{best:g}, the highest score"
        raise LabelsError(f"no keypoint has a score of {least:g}", path=source, got=got, fix=fix)
    return replace(labels, tracks=tracks)
