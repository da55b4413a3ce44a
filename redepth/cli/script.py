"""Run the function of a script as a command."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from redepth.cli import console
from redepth.errors import RedepthError


def run(function: Callable[..., None]) -> None:
    """Call a function with the arguments of the command line, read as typer reads them.

    Its docstring is what ``--help`` prints. A `RedepthError` is one line on stderr and exit code 2, as for
    the commands of redepth; any other error is a mistake in the script and has its traceback.
    """
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(function)
    try:
        app()
    except RedepthError as error:
        console.complain(str(error))
        sys.exit(console.EXIT_ERROR)
