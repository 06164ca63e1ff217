"""The command line: every command has a file of its own and is registered here."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from posewarper.cli import (
    benchmark,
    convert,
    demo,
    evaluate,
    experiment,
    export,
    info,
    label,
    predict,
    prepare,
    propagate,
    push,
    suggest,
    train,
)
from posewarper.cli.common import DEBUG, print_line, reported_errors, take_words
from posewarper.version import __version__


class _Commands(TyperGroup):
    """The commands, each with our handling of errors around it."""

    def main(self, args: Sequence[str] | None = None, *more: Any, **others: Any) -> Any:
        """Run the command line, with ``--debug`` anywhere in it."""
        if args is None:
            sys.argv[1:] = take_words(sys.argv[1:])
        return super().main(None if args is None else take_words(args), *more, **others)

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
        print_line(f"posewarper {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and leave.", callback=_show_version, is_eager=True),
    ] = False,
    debug: Annotated[
        bool, typer.Option(DEBUG, help="Show the traceback of an error; anywhere in the command.")
    ] = False,
) -> None:
    pass


# The main job, and how well it does.
app.command("demo")(demo.run)
app.command("label")(label.run)
app.command("suggest")(suggest.run)
app.command("propagate")(propagate.run)
app.command("benchmark")(benchmark.run)

# The paper on its own data.
app.command("prepare")(prepare.run)
app.command("predict")(predict.run)
app.command("evaluate")(evaluate.run)
app.command("train")(train.run)
app.command("experiment")(experiment.run)

# Files in and out.
app.command("convert")(convert.run)
app.command("export")(export.run)
app.command("push")(push.run)
app.command("info")(info.run)


def main() -> None:
    """Run the command line; the entry point of ``posewarper``."""
    if DEBUG not in sys.argv:
        sys.unraisablehook = _tell_unraisable
    app(prog_name="posewarper")


def _tell_unraisable(unraisable: Any) -> None:
    # h5py complains of damaged files also while Python lets go of them, when nothing can be caught.
    if "h5py" not in repr(unraisable.object):
        sys.__unraisablehook__(unraisable)
