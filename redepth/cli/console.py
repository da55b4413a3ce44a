"""What the command line prints: results on stdout; errors, warnings and progress on stderr."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import typer
from rich.text import Text

from redepth.cli.tables import Table
from redepth.cli.terminal import TerminalConsole
from redepth.errors import RedepthError, RenamedOptionWarning

EXIT_ERROR = 2

log = logging.getLogger("redepth")

out = TerminalConsole()
err = TerminalConsole(stderr=True)

_quiet = False


def set_quiet(quiet: bool) -> None:
    """Set whether progress and summaries are left out, as ``--quiet`` asks for."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    """Return whether ``--quiet`` is given."""
    return _quiet


def is_live() -> bool:
    """Return whether stderr is a terminal that can redraw a line. ``FORCE_COLOR`` makes none of a pipe."""
    return err.file.isatty() and err.is_terminal and not err.is_dumb_terminal


# --- lines and tables -----------------------------------------------------------------------------


def complain(message: str) -> None:
    """Print an error as one line."""
    _line("[bold red]error:[/] ", message)


def warn(message: str) -> None:
    """Print a warning as one line."""
    _line("[bold yellow]warning:[/] ", message)


def note(*renderables: Table | Text | str) -> None:
    """Print what a run says besides its files, such as its summary, to stdout; nothing with ``--quiet``."""
    if is_quiet():
        return
    for renderable in renderables:
        if isinstance(renderable, Table):
            out.print(renderable)
        else:
            out.print(renderable, markup=False, highlight=False, soft_wrap=True)


def note_refined_again(photo: str, reason: str) -> None:
    """Print why the result that a photo has does not count."""
    note(Text(f"{photo}: refined again: {reason}"))


def show_renamed_options() -> None:
    """Print each warning about an option's former name once, as one line; Python hides or wraps them.

    Warnings of libraries go to the debug log: they would stand between the lines of redepth.
    """

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, RenamedOptionWarning):
            warn(str(message))
        else:
            log.debug("%s: %s", category.__name__, " ".join(str(message).split()))

    warnings.showwarning = show
    warnings.simplefilter("once", RenamedOptionWarning)


def _line(kind: str, message: str) -> None:
    err.print(kind, end="")
    err.print(" ".join(message.split()), markup=False, highlight=False, soft_wrap=True)


def about(path: Path, problem: str) -> str:
    """Put the photo's path in front of a problem, unless the problem starts with it."""
    return problem if problem.startswith(str(path)) else f"{path}: {problem}"


def table(title: str, *columns: str, prose: bool = False) -> Table:
    """Make a table of aligned columns, to be printed by ``out.print``.

    Args:
        title: a line above the table; empty for none.
        columns: the headings.
        prose: whether the last column is text that a terminal may break between words.
    """
    return Table(title, columns, prose=prose)


def write(text: str) -> None:
    """Write text to stdout as it is, such as a file to save.

    Raises:
        RedepthError: the output is closed, or cannot be written to.
    """
    if sys.stdout is None:
        raise RedepthError("the output is closed, so there is nothing to print to: redirect it to a file")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of a pipe has what it wanted: the command ends silently
        raise
    except (OSError, UnicodeEncodeError) as error:
        raise RedepthError(f"the output cannot be written to ({error}): redirect it to a file") from None


def write_json(value: Any) -> None:
    """Write a value to stdout as JSON; the output holds nothing else."""
    from redepth import io

    write(io.json_text(value))


def exit_if_failed(failed: int, total: int) -> None:
    """End with exit code 2 if some tasks failed."""
    if failed:
        complain(f"{failed} of {total} failed; the same command tries them again")
        raise typer.Exit(EXIT_ERROR)


# --- progress -------------------------------------------------------------------------------------


@contextmanager
def status(activity: str) -> Iterator[None]:
    """Show an activity on stderr, and the downloads that happen meanwhile.

    A terminal shows how much of a file has arrived. Elsewhere there is a line for each repository. With
    ``--quiet`` nothing is shown.
    """
    if is_quiet():
        yield
        return
    from redepth import checkpoints

    with err.status(activity) as shown:

        class Watcher(checkpoints.Watcher):
            def line(self, text: str) -> None:
                err.print(text, markup=False, highlight=False, soft_wrap=True)

            def bytes(self, name: str, done: int, size: int | None) -> None:
                of = "" if size is None else f" of {checkpoints.size_text(size)}"
                text = f"downloading {checkpoints.size_text(done)}{of}: {name}"
                # A narrow terminal cuts the name, not the figures.
                line = Text(text, no_wrap=True, overflow="ellipsis")
                shown.update(activity if done == size else line)

        with checkpoints.watched(Watcher()):
            yield
