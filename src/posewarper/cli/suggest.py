"""``posewarper suggest``: which frames of a video to label next, and why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posewarper.cli import common
from posewarper.errors import LabelsError, VideoError
from posewarper.files import write_json

if TYPE_CHECKING:
    from posewarper.propagation.suggestion import Suggestion
    from posewarper.structures import Poses
    from posewarper.video.source import Video


def run(
    video: Annotated[Path, typer.Argument(help="A video file or a folder of frames.")],
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What is labelled so far; with --result what is labelled by now, if that is more.",
        ),
    ] = None,
    result: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A result of `posewarper propagate`, whose expected error counts."),
    ] = None,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="How many frames.")] = 10,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="looks|gaps|error",
            help="Choose by looks and motion, by the widest gaps between labels, or by expected error.",
        ),
    ] = None,
    labels_of: common.LabelsOf = None,
    frame_number: common.FrameNumber = None,
    unlabelled: common.UnlabelledAs = common.Unlabelled.UNKNOWN,
    picture: Annotated[
        Path | None,
        typer.Option(metavar="SHEET.jpg", help="Draw the frames side by side, in the order of the table."),
    ] = None,
    json_file: common.JsonFile = None,
    overwrite: common.Overwrite = False,
    quiet: common.Quiet = False,
    device: common.UnusedDevice = common.DeviceName.AUTO,
    seed: common.UnusedSeed = 0,
) -> None:
    """Say which frames of a video to label next, the most useful first.

    Before any label these are frames that stand for those around them by their looks, more where something
    moves. With labels alone they halve the widest gaps. With a result of `posewarper propagate` they are
    those whose labels would take most of the expected error away: it is summed over the stretch between the
    labels beside them, and counted anew as if each had been labelled.
    """
    common.check_there(video, "a video file or a folder of frames", VideoError)
    common.check_there(labels, "labels of some of its frames", LabelsError)
    common.check_there(result, "a folder that posewarper propagate has written", LabelsError)
    for place in (json_file, picture):
        if place is not None:
            common.refuse_existing(place, overwrite)
    if picture is not None:
        from posewarper.reporting.overlay import check_picture_name

        check_picture_name(picture)
    from posewarper.formats.labels import read_labels
    from posewarper.formats.records import LabelFile
    from posewarper.propagation.suggestion import choose_order, read_result, suggest_frames
    from posewarper.video.source import open_video

    poses = None if result is None else read_result(result)
    file = None if labels is None else LabelFile(labels, labels_of, frame_number, unlabelled=unlabelled.value)
    with open_video(video) as opened, common.progress_bar(quiet) as progress:
        known = None if file is None else read_labels(file, video=opened)
        by = by or choose_order(known, poses)
        found = suggest_frames(opened, known, poses, count=count, by=by, progress=progress)
        rows = [_describe(each, opened, known or poses) for each in found]
        if picture is not None and found:
            _draw(picture, opened, poses, found)
    _show(rows)
    if json_file is not None:
        given = {name: path and str(path) for name, path in (("labels", labels), ("result", result))}
        write_json(json_file, {"video": str(video), **given, "by": by, "suggestions": rows})


def _describe(each: Suggestion, video: Video, known: Any) -> dict[str, Any]:
    """Return a suggestion as plain values, with the names of the image and of the keypoint."""
    name = None if each.keypoint is None else known.skeleton.names[each.keypoint]
    return {
        "frame": each.frame,
        "seconds": None if video.frame_names else round(float(video.times[each.frame]), 3),
        "file": video.frame_names[each.frame] if video.frame_names else None,
        "track": each.track,
        "keypoint": name,
        "gain": round(each.gain, 4),
        "reason": each.reason,
    }


def _draw(path: Path, video: Video, poses: Poses | None, found: Sequence[Suggestion]) -> None:
    from posewarper.reporting.overlay import write_sheet
    from posewarper.skeletons import Skeleton
    from posewarper.structures import Poses

    shown = poses or Poses(Skeleton(("none",)), {}, video.image_size, video.n_frames)
    write_sheet(path, video, shown, [each.frame for each in found])


def _show(rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        common.print_line("no frame is left whose label would be of use")
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("frame", justify="right", no_wrap=True)
    by_file = rows[0]["file"] is not None
    table.add_column("file" if by_file else "time", justify="left" if by_file else "right", overflow="fold")
    table.add_column("why", overflow="fold")
    for row in rows:
        when = row["file"] if by_file else f"{row['seconds']:.2f} s"
        table.add_row(str(row["frame"]), common.as_cell(when), common.as_cell(row["reason"]))
    Console().print(table)
