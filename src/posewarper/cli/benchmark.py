"""``posewarper benchmark``: methods side by side on a clip whose frames are all labelled."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posewarper.cli import common
from posewarper.errors import ConfigError
from posewarper.files import write_json
from posewarper.version import __version__

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


Row = dict[str, Any]

# Heading, key in a row, and which of a column's values is the best (None: none is).
_COLUMNS = (
    ("mean", "mean", min),
    ("med", "median", min),
    ("p95", "p95", min),
    ("pck5", "pck05", max),
    ("pck10", "pck10", max),
    ("cov", "coverage", None),
    ("btw", "between_mean", min),
    ("byd", "beyond_mean", min),
    ("s", "seconds", None),
)
_LEGEND = (
    "mean, med, p95: error in percent of the box's longer side (mean, median, 95th percentile); pck5, pck10: "
    "percent of keypoints within 5 and 10; cov: percent with a prediction (without one the error counts as "
    "100); btw, byd: mean error between a track's labels and beyond them; s: seconds without fitting."
)
_NOISE = "Where networks made the labels of a clip, differences below 1 percent are noise."


def run(
    video: Annotated[Path, typer.Argument(help="A video file or a folder of frames.")],
    labels: Annotated[
        Path, typer.Option(metavar="DENSE.json", help="Labels of all or most frames of the video.")
    ],
    every: Annotated[
        str,
        typer.Option(
            metavar="K,K,...",
            help="Gaps: keep the labels on frames k//2, k//2 + k, ... and score on the others.",
        ),
    ],
    methods: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Methods, with commas in between; all of them if left out."),
    ] = None,
    withhold: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            min=0.0,
            help="Leave this share of the keypoints out of each kept label, 0.5 for half of them; they are "
            "scored as well.",
        ),
    ] = 0.0,
    labels_of: common.LabelsOf = None,
    frame_number: common.FrameNumber = None,
    unlabelled: common.UnlabelledAs = common.Unlabelled.UNKNOWN,
    track: Annotated[int | None, typer.Option(metavar="ID", help="Use one track alone.")] = None,
    json_file: common.JsonFile = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where finished parts are kept, so that an interrupted run resumes there."
        ),
    ] = None,
    effort: common.Effort = "normal",
    backbone_weights: common.BackboneWeights = None,
    overwrite: common.Overwrite = False,
    quiet: common.Quiet = False,
    device: common.Device = common.DeviceName.AUTO,
    seed: common.Seed = 0,
) -> None:
    """Compare methods on a densely labelled clip: hide most labels, propagate, score on the hidden ones.

    Visible keypoints are scored whose labels were not used. Finished parts are cached: after Ctrl-C
    the same command resumes there, and a run with more methods or gaps computes only the new ones.
    """
    gaps = parse_gaps(every)
    if json_file is not None:
        common.refuse_existing(json_file, overwrite)

    from rich.console import Console

    from posewarper.benchmark import compare, describe_machine, usable_methods
    from posewarper.formats.labels import read_labels
    from posewarper.formats.records import LabelFile
    from posewarper.options import NetworkConfig
    from posewarper.video.source import open_video

    names = usable_methods(effort) if methods is None else common.read_names(methods)
    with open_video(video) as opened:
        file = LabelFile(labels, labels_of, frame_number, unlabelled=unlabelled.value)
        dense = read_labels(file, video=opened)
    if track is not None:
        dense = dense.only_track(track)
    with common.progress_bar(quiet) as progress:
        rows = compare(
            video,
            dense,
            every=gaps,
            methods=names,
            withheld=withhold,
            seed=seed,
            effort=effort,
            network=None if backbone_weights is None else NetworkConfig(backbone_weights=backbone_weights),
            device=device.value,
            cache=cache or default_cache(),
            progress=progress,
        )
    console = Console()
    show_rows(console, rows)
    console.print(_NOISE, style="dim", highlight=False)
    if json_file is not None:
        given = {"video": str(video), "labels": str(labels), "track": track, "effort": effort, "seed": seed}
        given |= {"withhold": withhold} if withhold else {}
        given |= {} if backbone_weights is None else {"backbone_weights": backbone_weights}
        head = {"clip": rows[0]["clip"], "version": __version__, **given}
        write_json(json_file, {**head, "machine": describe_machine(device.value), "rows": rows})
        common.print_line(f"wrote {json_file}")


def parse_gaps(text: str) -> list[int]:
    """Return the gaps in a text like ``7,15,31``.

    Raises:
        ConfigError: if one is not a positive whole number.
    """
    parts = common.read_names(text)
    if not parts or not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise ConfigError(
            "--every takes positive whole numbers with commas in between",
            expected="for example 7,15,31",
            got=repr(text),
            fix="name the gaps between kept labels, in frames",
        )
    return [int(part) for part in parts]


def default_cache() -> Path:
    """Return the folder in the user's cache for finished parts."""
    home = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG rules: a relative path, as also an empty one, does not count.
    return (home if home.is_absolute() else Path.home() / ".cache") / "posewarper" / "benchmark"


def show_rows(console: Console, rows: Sequence[Row]) -> None:
    """Print one table a gap, the best of each column in bold, and what the columns mean."""
    width = max(len(row["method"]) for row in rows)
    for gap in dict.fromkeys(row["every"] for row in rows):
        of_gap = [row for row in rows if row["every"] == gap]
        console.print(_make_table(of_gap, width))
        fitted = max(row["fit_seconds"] for row in of_gap)
        if fitted:
            users = ", ".join(row["method"] for row in of_gap if row["fit_seconds"])
            console.print(f"fitting: {fitted:.0f} s, once for {users}", highlight=False)
        console.print()
    console.print(_LEGEND, style="dim", highlight=False)


def _make_table(rows: Sequence[Row], width: int) -> Table:
    from rich import box
    from rich.table import Table

    first = rows[0]
    partly = f" without {100 * first['withheld']:.0f} % of their keypoints" if first["withheld"] else ""
    table = Table(
        title=f"{common.as_cell(first['clip'])}, every {first['every']}: "
        f"{first['n_labels']} labelled frames kept{partly}, {first['n']} keypoints scored",
        title_justify="left",
        title_style="",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=0,  # all columns in 80 characters
    )
    table.add_column("method", min_width=width, no_wrap=True)
    columns = []
    for heading, key, best_of in _COLUMNS:
        table.add_column(heading, justify="right", min_width=5, no_wrap=True)
        # What is shown alike is equally good.
        known = [round(row[key], 1) for row in rows if row[key] is not None]
        best = best_of(known) if best_of and known else None
        texts = ["-" if row[key] is None else f"{row[key]:.1f}" for row in rows]
        shown = None if best is None else f"{best:.1f}"
        columns.append([f"[bold]{text}[/bold]" if text == shown else text for text in texts])
    for row, *cells in zip(rows, *columns, strict=True):
        table.add_row(row["method"], *cells)
    return table
