"""The application: all commands, the options before them, and what happens on an error.

Heavy modules are imported inside the commands: ``redepth --help`` imports no torch.
"""

from __future__ import annotations

import logging
import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from redepth import __version__
from redepth.cli import bench, console, doctor, experiment, listing, refine
from redepth.errors import RedepthError

app = typer.Typer(
    name="redepth",
    help="Refine the depth of a photo at test time: re-light it and score it with a 2D diffusion prior.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line; a user's error is one line on stderr and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A name that the terminal's encoding lacks must not end the program.
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    # The plan for a time or memory limit is one line at level INFO; it is shown without --verbose.
    logging.getLogger("redepth.optim.planning").setLevel(logging.INFO)
    console.show_renamed_options()
    try:
        app()
    except RedepthError as error:
        console.complain(str(error))
        sys.exit(console.EXIT_ERROR)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Print the debug log, with the traceback of each failed photo."),
    ] = False,
) -> None:
    """Handle the options that precede a command."""
    logging.getLogger("redepth").setLevel(logging.DEBUG if verbose else logging.NOTSET)
    if version:
        console.out.print(__version__)
        raise typer.Exit


app.command()(refine.refine)
app.add_typer(bench.app, name="bench")
app.command()(experiment.experiment)
app.command("list")(listing.list_families)
app.command()(listing.show)
app.command()(doctor.doctor)
