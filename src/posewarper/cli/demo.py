"""``posewarper demo``: the main job on a clip that is rendered here, so that the truth is known."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posewarper.cli import common, propagate
from posewarper.cli.benchmark import Row, show_rows
from posewarper.cli.videos import RESULTS
from posewarper.runs import FACTS, check_place

if TYPE_CHECKING:
    import numpy as np

    from posewarper.structures import Labels, Progress


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
    """Show what this does: render a clip, keep one label in 15, propagate, and compare with the truth.

    Writes clip.mp4 (a person who walks, turns and passes behind a lamp post), labels.json (the labels kept),
    truth.json (those of all frames), and what `propagate` writes.
    """
    from posewarper.model.runtime import resolve_device
    from posewarper.options import effort_config

    # What cannot work is refused before the work.
    effort_config(effort)
    resolve_device(device.value)
    clip, labels, truth = (out / name for name in ("clip.mp4", "labels.json", "truth.json"))
    for name in ("clip.mp4", "labels.json", "truth.json", *RESULTS, "model.pt", FACTS):
        common.refuse_existing(out / name, overwrite)
    check_place(out)

    with common.progress_bar(quiet) as progress:
        dense = _write_clip(clip, labels, truth, seed, progress)
    options = {"labels": labels, "out": out, "effort": effort, "device": device.value, "seed": seed}
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    print(shlex.join(["posewarper", "propagate", str(clip), *words, "--overwrite"]))
    propagate.run(clip, labels, effort=effort, out=out, overwrite=True, quiet=quiet, device=device, seed=seed)

    from rich.console import Console

    with common.progress_bar(quiet) as progress:
        rows = _score(out, clip, labels, dense, seed, progress)
    add_errors_to_report(out, clip, labels, rows)
    print()
    show_rows(Console(), rows)


def _write_clip(clip: Path, labels: Path, truth: Path, seed: int, progress: Progress) -> Labels:
    """Render the clip, write it and the labels; returns the labels of all frames."""
    from posewarper.demo import clip as scene
    from posewarper.evaluation.clips import keep_every
    from posewarper.formats.labels import write_labels
    from posewarper.video.writing import write_video

    frames, dense = scene.render_scene(seed=seed)
    total = len(dense.labelled_frames)

    def counted() -> Iterator[np.ndarray[Any, Any]]:
        for done, frame in enumerate(frames):
            progress("rendering", done, total)
            yield frame
        progress("rendering", total, total)

    write_video(clip, counted(), fps=scene.FPS)
    write_labels(truth, dense)
    write_labels(labels, keep_every(dense, _EVERY))
    return dense


def _score(out: Path, clip: Path, labels: Path, dense: Labels, seed: int, progress: Progress) -> list[Row]:
    """Return the rows of the simple methods, and of what was written by ``propagate``."""
    from posewarper.benchmark import compare
    from posewarper.evaluation.clips import score_clip
    from posewarper.formats.labels import read_labels, read_poses

    rows = compare(clip, dense, every=[_EVERY], methods=_SIMPLE, seed=seed, progress=progress)
    score = score_clip(read_poses(out / "poses.json"), dense, read_labels(labels))
    seconds = json.loads((out / "run.json").read_text())["seconds"]
    ours = {
        "method": "default",
        **score.to_row(),
        "seconds": seconds["optical flow"] + seconds["propagation"],
        "fit_seconds": seconds.get("training", 0.0),
    }
    return [*rows, {**rows[-1], **ours}]


def add_errors_to_report(out: Path, video: Path, labels: Path, scores: Sequence[Mapping[str, Any]]) -> None:
    """Write the report of a finished run once more, with rows of errors that became known since."""
    from posewarper.formats.labels import read_labels, read_poses
    from posewarper.reporting.report import write_report
    from posewarper.structures import RunResult
    from posewarper.video.source import open_video

    facts = json.loads((out / FACTS).read_text(encoding="utf-8"))
    seconds = {stage: seconds for stage, seconds in facts["seconds"].items() if stage != "total"}
    with open_video(video) as opened:
        result = RunResult(
            read_poses(out / "poses.json"),
            read_labels(labels, video=opened),
            facts["method"],
            seconds,
            tuple(facts["notes"]),
            facts["config"],
        )
        write_report(out / "report.html", opened, result, facts, scores=scores)
