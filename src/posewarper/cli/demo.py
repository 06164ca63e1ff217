"""``posewarper demo``: the main job on a clip that we have drawn, so that the truth is known."""

from __future__ import annotations

import shlex
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posewarper.cli import common, propagate
from posewarper.cli.benchmark import Row, show_rows
from posewarper.cli.videos import RESULTS
from posewarper.runs import RECORDS, claim, describe_inputs
from posewarper.version import __version__

if TYPE_CHECKING:
    from posewarper.structures import Labels, Progress, RunResult


_EVERY = 15  # one label in this many frames is kept
_SIMPLE = ("nearest", "linear", "pchip", "flow", "flow2")


def run(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the clip and the results.")] = Path(
        "posewarper_demo"
    ),
    effort: common.Effort = "normal",
    overwrite: common.Overwrite = False,
    quiet: common.Quiet = False,
    device: common.Device = common.DeviceName.AUTO,
    seed: common.Seed = 0,
) -> None:
    """Show what this does: keep one label in 15 of a clip, propagate, and compare with the truth.

    Writes clip.mp4 (a drawn person who walks, turns and passes behind a lamp post), labels.json (the labels
    kept), truth.json (those of all frames), and what `propagate` writes.
    """
    from rich.console import Console

    from posewarper.model.runtime import resolve_device
    from posewarper.options import effort_config

    # What cannot work is refused before the work.
    effort_config(effort)
    resolve_device(device.value)
    started, files = time.perf_counter(), ("clip.mp4", "labels.json", "truth.json")
    settings = {"method": "default", "effort": effort, "extend": False, "seed": seed}
    request = {"demo": __version__, **settings}
    plan = propagate.plan(settings, trains=True)
    results = (*files, *RESULTS, propagate.MODEL, RECORDS)
    with (
        claim(out, request, results, overwrite=overwrite) as claimed,
        common.progress_bar(quiet, plan) as progress,
    ):
        claimed.begin()
        clip, labels, truth = (out / name for name in files)
        dense = _bring_clip(clip, labels, truth)
        options = {"labels": labels, "out": out, "effort": effort, "device": device.value, "seed": seed}
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        common.print_line(shlex.join(["posewarper", "propagate", str(clip), *words, "--overwrite"]))

        def score(result: RunResult) -> list[Row]:
            rows = _score(result, clip, out / RECORDS, dense, seed, progress)
            common.print_line("")
            show_rows(Console(), rows)
            return rows

        inputs = describe_inputs(video=clip, labels=labels)
        propagate.write_results(
            claimed, clip, labels, settings, inputs, device.value, progress, started, score=score
        )


def _bring_clip(clip: Path, labels: Path, truth: Path) -> Labels:
    """Copy the clip and the labels of all its frames, which are returned, and write those that are kept."""
    from posewarper.demo.clip import DRAWN
    from posewarper.evaluation.clips import keep_every
    from posewarper.files import replacing
    from posewarper.formats.labels import read_labels, write_labels

    for source, place in ((DRAWN, clip), (DRAWN.with_suffix(".json"), truth)):
        with replacing(place) as temporary:
            shutil.copyfile(source, temporary)
    dense = read_labels(truth)
    write_labels(labels, keep_every(dense, _EVERY))
    return dense


def _score(
    result: RunResult, clip: Path, parts: Path, dense: Labels, seed: int, progress: Progress
) -> list[Row]:
    """Return the rows of the simple methods, by the optical flow of the run, and of what was propagated."""
    from posewarper.benchmark import compare
    from posewarper.evaluation.clips import score_clip
    from posewarper.fitting import read_parts
    from posewarper.video.source import open_video

    seconds = result.seconds
    with open_video(clip) as video:
        known = {_EVERY: (read_parts(parts, video, result.labels), seconds["optical flow"])}
        shared = {"seed": seed, "known": known, "progress": progress}
        rows = compare(clip, dense, every=[_EVERY], methods=_SIMPLE, **shared)
    ours = {
        "method": "default",
        **score_clip(result.poses, dense, result.labels).to_row(),
        "seconds": seconds["optical flow"] + seconds["propagation"],
        "fit_seconds": seconds.get("training", 0.0),
    }
    return [*rows, {**rows[-1], **ours}]
