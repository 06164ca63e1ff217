"""``posewarper label``: the labelling page, in a browser on the same machine."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posewarper.cli import common
from posewarper.errors import ConfigError, LabelsError, PosewarperError, VideoError

if TYPE_CHECKING:
    from posewarper.skeletons import Skeleton


def run(
    clip: Annotated[Path, typer.Argument(help="A video file or a folder of frames.")],
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Labels to begin with, in any format; the file is never changed."),
    ] = None,
    skeleton: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="The keypoints, where there are no labels yet: a preset (coco, mouse, fly, ap10k, ...), or "
            "a file with a skeleton or labels. Without it the page asks.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for labels and results; <clip>_poses if left out."),
    ] = None,
    frame: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Begin on this frame, not on the first labelled one."),
    ] = None,
    labels_of: common.LabelsOf = None,
    frame_number: common.FrameNumber = None,
    unlabelled: common.UnlabelledAs = common.Unlabelled.UNKNOWN,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")] = 0,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in the usual browser.")
    ] = True,
    quiet: common.Quiet = False,
    device: common.Device = common.DeviceName.AUTO,
    seed: common.UnusedSeed = 0,
    overwrite: common.UnusedOverwrite = False,
) -> None:
    """Label a video in a browser, propagate the labels, look, correct, and go again.

    Opens a page on this machine alone; its address stands on the first line of the output. Everything that
    is labelled is on disk within a second, in DIR/label: the command can be stopped at any moment, and given
    again it goes on there. The page's Propagate is `posewarper propagate`, and writes the same files to DIR.
    """
    common.check_there(clip, "a video file or a folder of frames", VideoError)
    common.check_there(labels, "labels of some of its frames", LabelsError)
    place = out or Path(f"{clip.stem}_poses")
    from posewarper.formats.records import LabelFile
    from posewarper.review.server import bind, serve
    from posewarper.review.session import Session

    chosen = None if skeleton is None else _read_skeleton(skeleton)
    file = None if labels is None else LabelFile(labels, labels_of, frame_number, unlabelled=unlabelled.value)
    with bind(port) as listener:
        session = Session(clip, place, labels=file, skeleton=chosen, device=device.value)

        def ready(address: str) -> None:
            common.print_line(address)
            if not quiet:
                common.print_line(
                    f"labels go to {session.labels_path}; Ctrl-C ends the page", file=sys.stderr
                )
            if browser and _has_screen():
                import webbrowser

                webbrowser.open(address)

        # Whoever ends it, and however: what is labelled is written, and a run is stopped.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            if frame is not None and frame >= session.frames.n_frames:
                raise ConfigError(
                    "the clip does not have this frame",
                    path=clip,
                    expected=f"--frame from 0 to {session.frames.n_frames - 1}",
                    got=frame,
                    fix="name another frame, or leave --frame out",
                )
            with suppress(KeyboardInterrupt):
                serve(session, listener, ready, frame=frame)
        finally:
            session.close()
            signal.signal(signal.SIGTERM, before)


def _has_screen() -> bool:
    """Return whether a browser would open a window: over SSH one would take over the terminal."""
    wanted = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    return not sys.platform.startswith("linux") or any(os.environ.get(name) for name in wanted)


def _read_skeleton(name: str) -> Skeleton:
    """Return a preset by its name, or the skeleton of a file.

    Raises:
        LabelsError: if there is neither.
    """
    from posewarper.formats.labels import read_annotations
    from posewarper.formats.records import read_json
    from posewarper.review.edits import check_skeleton
    from posewarper.review.labelling import skeleton_from_json
    from posewarper.review.server import STARTS
    from posewarper.skeletons import named_skeleton

    if name in STARTS:
        return STARTS[name]
    path = Path(name)
    if not path.exists():
        return named_skeleton(name)  # says which there are
    values = read_json(path) if path.suffix.lower() == ".json" and path.is_file() else {}
    try:
        found = skeleton_from_json(dict(values)) if "names" in values else read_annotations(path).skeleton
        assert found is not None
        check_skeleton(found)
    except PosewarperError as error:
        raise type(error)(
            error.what, path=error.path or path, expected=error.expected, got=error.got, fix=error.fix
        ) from error
    except ValueError as error:
        expected = '{"names": [...], "edges": [[0, 1], ...], "flip_pairs": [...]}'
        raise LabelsError(
            "this file holds no skeleton that can be used",
            path=path,
            expected=expected,
            got=error,
            fix="correct it",
        ) from error
    return found
