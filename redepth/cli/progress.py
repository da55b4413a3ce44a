"""Progress on stderr: a bar on a terminal; elsewhere, such as in a log, one plain line now and then.

Which lines are printed depends on the steps and tasks that are done, never on the clock.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.text import Text

from redepth.cli import console
from redepth.runtime import signals

# Imports of torch, for types alone.
if TYPE_CHECKING:
    from redepth.adaptation.record import Event, OnEvent
    from redepth.batch import Photo, Refined
    from redepth.clips.outputs import FrameRow
    from redepth.optim.outcome import StepReport
    from redepth.priors.prompts import Prompt
    from redepth.runtime.executors import Done, Resources

OnStep = Callable[["StepReport"], None]
OnDone = Callable[[Any, int, int], None]
OnFrame = Callable[["FrameRow", int, int], None]

LINES = 10
"""How many lines a photo has at most after its first step."""


class PhotoDisplay:
    """Shows the progress of a batch of photos, as `redepth.batch.Display` describes.

    Args:
        read_every: steps between two that read their losses for the bar.
    """

    def __init__(self, read_every: int) -> None:
        self.read_every = read_every

    def activity(self, what: str) -> AbstractContextManager[None]:
        """Show what is done, and what is downloaded for it."""
        return console.status(what)

    def steps(self, photo: Photo) -> AbstractContextManager[OnStep | None]:
        """Show the steps of a photo that this process refines."""
        return steps(photo.path.name, self.read_every)

    def caption(self, photo: Photo, prompt: Prompt) -> None:
        """Print a caption."""
        console.note(Text(f"{photo.path}: {prompt.text} ({prompt.origin['from']})"))


# --- the steps of a photo -------------------------------------------------------------------------


def steps(name: str, read_every: int) -> AbstractContextManager[OnStep | None]:
    """Show the steps of one photo: members, loss, time left.

    Args:
        name: of the photo.
        read_every: steps between two that read their losses for the bar; other steps show the last loss.
    """
    if console.is_quiet():
        return nullcontext()
    return _step_bar(name, read_every) if console.is_live() else nullcontext(_StepLines(name))


@contextmanager
def _step_bar(name: str, read_every: int) -> Iterator[OnStep]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=10),
        TextColumn("{task.fields[detail]}", markup=False),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=console.err) as progress:
        task, loss = progress.add_task(name, total=None, detail=""), 0.0

        def on_step(report: StepReport) -> None:
            nonlocal loss
            done, total = _done(report)
            if report.step == 1 or report.step % read_every == 0:
                loss = float(report.losses["total"].mean())
            # Short enough for a terminal of 80 columns.
            who = f"members {report.members.start + 1}-{report.members.stop}/{report.of_members}"
            detail = f"step {report.step}/{report.steps} {who} loss {loss:.3g}"
            progress.update(task, total=total, completed=done, detail=detail)

        yield on_step


class _StepLines:
    """Prints a line at the first step, and whenever another tenth of all steps is done."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._printed = -1
        self._time = _TimeLeft()

    def __call__(self, report: StepReport) -> None:
        done, total = _done(report)
        left = self._time.left(done, total)
        if LINES * done // total <= self._printed:
            return
        self._printed = LINES * done // total
        # Only here, because reading a loss waits for the GPU.
        loss = float(report.losses["total"].mean())
        members = report.members
        who = f"members {members.start + 1}-{members.stop} of {report.of_members}"
        if len(members) == report.of_members:
            who = f"{report.of_members} members" if len(members) > 1 else "1 member"
        _line(f"{self.name}: step {report.step}/{report.steps}, {who}, loss {loss:.3g}{left}")


def _done(report: StepReport) -> tuple[int, int]:
    """Return how many steps of members are done, and of how many.

    Within a time or memory limit the total is known only after the first steps.
    """
    done = report.members.start * report.steps + report.step * len(report.members)
    return done, report.steps * report.of_members


# --- photos and tasks -----------------------------------------------------------------------------


def photos(
    outcomes: Iterator[Done[Photo, Refined]], total: int, resources: Resources
) -> Iterator[Done[Photo, Refined]]:
    """Show how many photos are done. Work in this process shows the steps of each photo instead."""
    if resources.kind == "inline":
        yield from outcomes
        return
    with _tasks(total, _photo) as show:
        for ended, done in enumerate(outcomes, 1):
            show(done, ended, total)
            yield done


@contextmanager
def clip_frames(total: int) -> Iterator[OnFrame]:
    """Show how many frames of a clip are done, the last one's flicker, and the time left."""
    from redepth.runtime.executors import Done

    with _tasks(total, _frame) as show:

        def on_frame(row: FrameRow, ended: int, of: int) -> None:
            show(Done(ended - 1, row, result=row), ended, of)

        yield on_frame


def _frame(done: Any) -> str:
    """Describe a frame that is done."""
    row = done.result
    if row.flicker_initial is None or row.flicker_refined is None:
        return f"{row.source}: {row.reason or 'no flicker is known'}"
    return f"{row.source}: flicker {row.flicker_initial:.3g} -> {row.flicker_refined:.3g}"


@contextmanager
def resumable_tasks(folder: Path, total: int) -> Iterator[OnDone]:
    """Show how many tasks are done, the last one's numbers, and the time left.

    After Ctrl-C, terminate or hang-up the command ends with the signal's exit code, and says what is kept.
    """
    ended = 0

    def count(done: Any, of_total: int, total: int) -> None:
        nonlocal ended
        ended = of_total
        show(done, of_total, total)

    try:
        with _tasks(total, _task) as show:
            yield count
    except KeyboardInterrupt:
        tasks = f"{ended} of {total} tasks have ended; " if ended else ""
        console.complain(
            f"interrupted; {tasks}finished tasks are kept in {folder}, and the same command resumes the run"
        )
        raise typer.Exit(signals.exit_code()) from None


def _photo(done: Any) -> str:
    """Describe a photo that has ended."""
    return f"{done.item.path.name}{' failed' if done.result is None else ''}"


def _task(done: Any) -> str:
    """Describe a task that has ended by its last numbers."""
    variant, image = done.item
    if done.result is None:
        return f"{variant}: {image} failed: {done.error}"
    silog = done.result.silog
    if silog is None:
        return f"{variant}: {image} changed by {100 * done.result.change:.1f} %"
    before, after = silog
    # A benchmark of predictions has no number after a refinement.
    return f"{variant}: {image} SI-log {before:.2f}{'' if math.isnan(after) else f' -> {after:.2f}'}"


def _tasks(total: int, describe: Callable[[Any], str]) -> AbstractContextManager[OnDone]:
    if console.is_quiet():
        return nullcontext(lambda done, ended, of: None)
    return _task_bar(total, describe) if console.is_live() else nullcontext(_TaskLines(describe))


@contextmanager
def _task_bar(total: int, describe: Callable[[Any], str]) -> Iterator[OnDone]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=console.err) as progress:
        task = progress.add_task("", total=total)

        def on_done(done: Any, ended: int, of: int) -> None:
            if done.result is None:
                progress.console.print(Text(describe(done), "red"))
            progress.update(task, completed=ended, total=of, description=describe(done))

        yield on_done


class _TaskLines:
    """Prints a line for each task."""

    def __init__(self, describe: Callable[[Any], str]) -> None:
        self.describe = describe
        self._time = _TimeLeft()
        self._time.left(0, 1)
        self._before: int | None = None

    def __call__(self, done: Any, ended: int, total: int) -> None:
        if self._before is None:
            # Tasks of an earlier call took no time of this one.
            self._before = ended - 1
        left = self._time.left(ended - self._before, total - self._before)
        _line(f"{ended}/{total}: {self.describe(done)}{left}")


# --- the stages of an adaptation ------------------------------------------------------------------


def stages() -> AbstractContextManager[OnEvent]:
    """Show the stages of an adaptation one after the other: what is done of each, and the time left."""
    if console.is_quiet():
        return nullcontext(_complain_of_failures)
    return _stage_bars() if console.is_live() else nullcontext(_StageLines())


def _complain_of_failures(event: Event) -> None:
    if event.failed:
        console.complain(event.text)


@contextmanager
def _stage_bars() -> Iterator[OnEvent]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.fields[stage]:>6}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=console.err) as progress:
        tasks: dict[str, Any] = {}

        def on_event(event: Event) -> None:
            if event.stage not in tasks:
                tasks[event.stage] = progress.add_task("", total=event.total, stage=event.stage)
            if event.failed:
                progress.console.print(Text(event.text, "red"))
            progress.update(
                tasks[event.stage], completed=event.done, total=event.total, description=event.text
            )

        yield on_event


def adaptations() -> Callable[[str, Event], None]:
    """Show the stages of several adaptations by name; they may run in other processes, so it is picklable."""
    return _complain_of_failures_in if console.is_quiet() else _AdaptationLines()


def _complain_of_failures_in(name: str, event: Event) -> None:
    _complain_of_failures(event)


class _AdaptationLines:
    """Prints the lines of each adaptation after its name."""

    def __init__(self) -> None:
        self._lines: dict[str, _StageLines] = {}

    def __call__(self, name: str, event: Event) -> None:
        self._lines.setdefault(name, _StageLines(f"{name}: "))(event)


class _StageLines:
    """Prints a line for each photo that is refined; of other stages one at every tenth.

    Args:
        title: before each line.
    """

    def __init__(self, title: str = "") -> None:
        self._title = title
        self._stage = ""
        self._printed = -1
        self._time = _TimeLeft()

    def __call__(self, event: Event) -> None:
        if event.stage != self._stage:
            self._stage, self._printed, self._time = event.stage, -1, _TimeLeft()
        left = self._time.left(event.done, event.total)
        if event.failed:
            console.complain(event.text)
            return
        tenth = LINES * event.done // max(event.total, 1)
        if event.stage != "refine" and tenth <= self._printed:
            return
        self._printed = tenth
        text = f": {event.text}" if event.text else ""
        _line(f"{self._title}{event.stage} {event.done}/{event.total}{text}{left}")


class _TimeLeft:
    """Estimates the time that is left from the pace since the first call."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None

    def left(self, done: int, total: int) -> str:
        """Return the time left as `, 6 s left`; empty at the first call and at the end."""
        now = time.monotonic()
        if self._first is None:
            self._first = (now, done)
        start, at_start = self._first
        if done <= at_start or done >= total:
            return ""
        from redepth.config.units import duration

        seconds = (now - start) / (done - at_start) * (total - done)
        return f", {duration(seconds)} left"


def _line(text: str) -> None:
    console.err.print(" ".join(text.split()), markup=False, highlight=False, soft_wrap=True)
