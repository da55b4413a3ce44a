"""Call the command line as on a terminal of some width, in this process."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from pathlib import Path
from unittest import mock

from redepth import cli
from redepth.cli import console
from redepth.cli.terminal import TerminalConsole

_STYLE = re.compile(r"\x1b\[[\d;]*m")


def terminal(columns: int, file: io.StringIO) -> TerminalConsole:
    """Return a console that takes a file for a terminal of this width."""
    return TerminalConsole(file=file, width=columns, force_terminal=True)


def on_terminal(*args: str | Path, columns: int) -> str:
    """Run ``redepth ARGS`` and return what a terminal of this width gets of stdout, without its styles.

    A line that is longer than the terminal stays one line, which the terminal itself continues.
    """
    out = io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["redepth", *map(str, args)]),
        mock.patch.object(console, "out", terminal(columns, out)),
        contextlib.suppress(SystemExit),
    ):
        cli.main()
    return _STYLE.sub("", out.getvalue())
