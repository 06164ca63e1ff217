"""The command line: one file a command, registered here."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from posewarper.cli import (
    compare_methods,
    convert_labels,
    export_model,
    information,
    predict_poses,
    prepare_dataset,
    propagate_labels,
    run_demo,
    run_experiments,
    score_predictions,
    train_model,
)
from posewarper.cli.common import reported_errors
from posewarper.version import __version__


class _Commands(TyperGroup):
    """The commands, each with our handling of errors around it."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        # Inside of typer's own handling, which would swallow what Ctrl-C has to say.
        with reported_errors():
            return super().invoke(ctx)


app = typer.Typer(
    name="posewarper",
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="From a few labelled frames of a video to poses for every frame.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"posewarper {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and leave.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    pass


# The main job, and how well it does.
app.command("demo")(run_demo.run)
app.command("propagate")(propagate_labels.run)
app.command("benchmark")(compare_methods.run)

# The paper on its own data.
app.command("prepare")(prepare_dataset.run)
app.command("predict")(predict_poses.run)
app.command("evaluate")(score_predictions.run)
app.command("train")(train_model.run)
app.command("experiment")(run_experiments.run)

# Files in and out.
app.command("convert")(convert_labels.run)
app.command("export")(export_model.run)
app.command("info")(information.run)


def main() -> None:
    """Run the command line; the entry point of ``posewarper``."""
    app(prog_name="posewarper")
