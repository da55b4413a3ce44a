"""What the command line prints: results on stdout; errors, warnings and progress on stderr."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import typer
from rich.text import Text

from redepth.cli.tables import Table
from redepth.cli.terminal import TerminalConsole
from redepth.errors import RedepthError, RenamedOptionWarning
from redepth.runtime import signals

# Imports of torch, for types alone.
if TYPE_CHECKING:
    from redepth.batch import Photo
    from redepth.optim.outcome import StepReport
    from redepth.priors.prompts import Prompt

EXIT_ERROR = 2

log = logging.getLogger("redepth")

out = TerminalConsole()
err = TerminalConsole(stderr=True)


# --- lines and tables -----------------------------------------------------------------------------


def complain(message: str) -> None:
    """Print an error as one line."""
    _line("[bold red]error:[/] ", message)


def warn(message: str) -> None:
    """Print a warning as one line."""
    _line("[bold yellow]warning:[/] ", message)


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

    A terminal shows how much of a file has arrived. Elsewhere there is a line for each repository.
    """
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


@contextmanager
def step_progress(name: str, read_every: int) -> Iterator[Callable[[StepReport], None]]:
    """Show the steps of one photo on stderr: members, loss, time left.

    Args:
        name: of the photo.
        read_every: steps between two that read their losses; other steps show the last loss.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=10),
        TextColumn("{task.fields[detail]}", markup=False),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=err) as progress:
        task, loss = progress.add_task(name, total=None, detail=""), 0.0

        def on_step(report: StepReport) -> None:
            nonlocal loss
            # Within a time or memory limit the total is known only after the first steps.
            total = report.steps * report.of_members
            done = report.members.start * report.steps + report.step * len(report.members)
            if report.step == 1 or report.step % read_every == 0:
                loss = float(report.losses["total"].mean())
            # Short enough for a terminal of 80 columns.
            who = f"members {report.members.start + 1}-{report.members.stop}/{report.of_members}"
            detail = f"step {report.step}/{report.steps} {who} loss {loss:.3g}"
            progress.update(task, total=total, completed=done, detail=detail)

        yield on_step


class PhotoDisplay:
    """Shows the progress of a batch of photos, as `redepth.batch.Display` describes.

    Args:
        read_every: steps between two that read their losses.
    """

    def __init__(self, read_every: int) -> None:
        self.read_every = read_every

    def activity(self, what: str) -> AbstractContextManager[None]:
        """Show what is done, and what is downloaded for it."""
        return status(what)

    def steps(self, photo: Photo) -> AbstractContextManager[Callable[[StepReport], None]]:
        """Show the steps of a photo that this process refines."""
        return step_progress(photo.path.name, self.read_every)

    def caption(self, photo: Photo, prompt: Prompt) -> None:
        """Print a caption."""
        out.print(f"{photo.path}: {prompt.text} ({prompt.origin['from']})", markup=False, highlight=False)


@contextmanager
def resumable_tasks(folder: Path, total: int) -> Iterator[Callable[[Any, int, int], None]]:
    """Show on stderr how many tasks are done, the last one's SI-log before and after, and the time left.

    After Ctrl-C, terminate or hang-up the command ends with the signal's exit code, and says what is kept.
    """
    ended = 0

    def count(done: Any, of_total: int, total: int) -> None:
        nonlocal ended
        ended = of_total
        show(done, of_total, total)

    try:
        with _task_progress(total) as show:
            yield count
    except KeyboardInterrupt:
        tasks = f"{ended} of {total} tasks have ended; " if ended else ""
        complain(
            f"interrupted; {tasks}finished tasks are kept in {folder}, and the same command resumes the run"
        )
        raise typer.Exit(signals.exit_code()) from None


@contextmanager
def _task_progress(total: int) -> Iterator[Callable[[Any, int, int], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=err) as progress:
        task = progress.add_task("", total=total)

        def on_done(done: Any, ended: int, of: int) -> None:
            variant, image = done.item
            if done.result is None:
                progress.console.print(Text(f"{image} ({variant}): {done.error}", "red"))
                description = f"{image} failed"
            else:
                before, after = done.result.silog
                description = f"{variant}: {image} SI-log {before:.2f} -> {after:.2f}"
            progress.update(task, completed=ended, total=of, description=description)

        yield on_done
