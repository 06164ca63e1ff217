"""``posewarper train``: a recipe, run on this machine or started by torchrun on many."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from posewarper.cli.common import Device, DeviceName, Overwrite, Quiet, print_line, progress_bar
from posewarper.processes import is_first


def run(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE.yaml", help="A recipe: a file, or the name of a shipped one.")
    ],
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[key=value ...]", help="Settings to change, such as train.epochs=3."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the run; runs/<recipe> if not given.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume where the run in DIR stopped; begin if there is none.")
    ] = False,
    debug_images: Annotated[
        int, typer.Option(metavar="N", min=0, help="Draw N batches of each epoch: crops, labels, heatmaps.")
    ] = 0,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    device: Device = DeviceName.AUTO,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Seed of everything random; else the recipe's.")
    ] = None,
) -> None:
    """Train a recipe: a pose network, or a warper on top of one.

    Writes DIR/model.pt (the end), DIR/checkpoints (best and last), log.jsonl and tensorboard. Killed at any
    moment, the same command with --resume ends with the same parameters as if it had not been.

    On many GPUs: torchrun --nproc-per-node 8 -m posewarper train RECIPE.yaml ... (on many machines, too)
    """
    from posewarper.training.recipes import read_recipe
    from posewarper.training.run import run_recipe

    words = [*(changes or []), *([] if seed is None else [f"train.seed={seed}"])]
    settings = read_recipe(recipe, words)
    place = out or Path("runs") / Path(recipe).stem
    with progress_bar(quiet or not is_first()) as progress:
        result = run_recipe(
            settings,
            place,
            resume=resume,
            overwrite=overwrite,
            debug_images=debug_images,
            device=device.value,
            progress=progress,
            tell=(lambda line: None) if quiet else print_line,
        )
    if is_first():
        score, epoch = result.best, result.best_epoch
        best = "" if score is None else f"; best validation {score:.1f} after epoch {epoch}"
        print_line(f"wrote {place / 'model.pt'}{best}")
