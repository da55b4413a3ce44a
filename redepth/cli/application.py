"""The application: all commands, the options before them, and what happens on an error.

Heavy modules are imported inside the commands: ``redepth --help`` imports no torch.
"""

from __future__ import annotations

import logging
import sys
import warnings
from io import TextIOWrapper
from typing import Annotated, Any

import typer
import typer.core

from redepth import __version__
from redepth.cli import (
    adapt,
    bench,
    compare,
    console,
    doctor,
    download,
    experiment,
    listing,
    new,
    refine,
    terminal,
    view,
    web_app,
)
from redepth.cli.options import Imports, Quiet, StrictCommand
from redepth.errors import RedepthError
from redepth.runtime import signals


class _Commands(typer.core.TyperGroup):
    """The commands. Ctrl-C, terminate or hang-up ends any of them with one line and the shell's exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            console.complain("interrupted")
            raise typer.Exit(signals.exit_code()) from None


app = typer.Typer(
    cls=_Commands,
    name="redepth",
    help="Refine the depth of a photo at test time: re-light it and score it with a 2D diffusion prior.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def main() -> None:
    """Run the command line; a user's error is one line on stderr and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A name that the terminal's encoding lacks must not end the program.
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(handlers=[terminal.log_handler()], level=logging.WARNING)
    # The plan for a time or memory limit is one line at level INFO; it is shown without --verbose.
    logging.getLogger("redepth.optim.planning").setLevel(logging.INFO)
    console.show_renamed_options()
    # What Pillow thinks of a file is no line for a user: a file is read, or refused with a reason.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        with signals.caught():
            app()
    except Exception as error:
        if signals.received():
            # A library has made an error of the interruption, while it loaded weights or built a schema.
            console.complain("interrupted")
            sys.exit(signals.exit_code())
        if not isinstance(error, RedepthError):
            raise
        console.complain(str(error))
        sys.exit(console.EXIT_ERROR)
    except KeyboardInterrupt:
        # Before a command began, or after it ended.
        console.complain("interrupted")
        sys.exit(signals.exit_code())
    except SystemExit as end:
        # Typer has its own codes for an interruption: 1 while it reads options, 130 after a command.
        if end.code in (1, 130) and signals.received():
            sys.exit(signals.exit_code())
        raise


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Print the debug log, with the traceback of each failed photo."),
    ] = False,
    quiet: Quiet = False,
    imports: Imports = None,
) -> None:
    """Handle the options that precede a command."""
    # A command may set it after this; another call in this process starts without it.
    console.set_quiet(quiet)
    logging.getLogger("redepth").setLevel(logging.DEBUG if verbose else logging.NOTSET)
    if version:
        console.out.print(__version__)
        raise typer.Exit


app.command(cls=StrictCommand)(refine.refine)
app.command(cls=StrictCommand)(compare.compare)
app.command(cls=StrictCommand)(adapt.adapt)
app.add_typer(bench.app, name="bench")
app.command(cls=StrictCommand)(experiment.experiment)
app.command("list", cls=StrictCommand)(listing.list_families)
app.command(cls=StrictCommand)(listing.show)
app.command(cls=StrictCommand)(view.view)
app.command(cls=StrictCommand)(doctor.doctor)
app.command(cls=StrictCommand)(download.download)
app.command(cls=StrictCommand)(new.new)
app.command(cls=StrictCommand)(web_app.app)
