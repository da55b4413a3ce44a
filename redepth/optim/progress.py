"""Show the steps of a run with a progress bar such as those of tqdm."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, cast

from redepth.config import Optim
from redepth.errors import ConfigError, brief
from redepth.optim.outcome import OnStep, Outcome, StepReport

with warnings.catch_warnings():
    # In a notebook without ipywidgets the bar is text. tqdm warns of that when it is first imported: here, or
    # else by transformers.
    warnings.filterwarnings("ignore", message="IProgress not found")
    from tqdm.auto import tqdm  # type: ignore[import-untyped]


class ProgressBar(Protocol):
    """What is called of a progress bar. Every bar of tqdm has it."""

    total: Any
    """Steps of the whole run."""

    def update(self, n: int) -> Any:
        """Go on by n steps; n is negative where steps are taken again."""

    def set_postfix_str(self, s: str, refresh: bool) -> Any:
        """Show a text after the bar, at once or with the next update."""

    def reset(self, total: int) -> Any:
        """Start again with another number of steps."""

    def refresh(self) -> Any:
        """Draw the bar."""

    def close(self) -> Any:
        """Draw the bar for the last time."""


Progress: TypeAlias = bool | Callable[..., ProgressBar]
"""Whether a bar is shown (``tqdm.auto``), or what makes it when it is called with ``total`` (steps x members,
or None where a limit decides them), ``desc`` and ``unit``: ``tqdm.tqdm``, ``tqdm.notebook.tqdm``,
``functools.partial(tqdm.tqdm, leave=False)``."""


def run_with_progress(
    run: Callable[[OnStep | None], Outcome],
    progress: Progress,
    *,
    optim: Optim,
    name: str,
    on_step: OnStep | None = None,
) -> Outcome:
    """Run, and show the steps with a bar. It is closed however the run ends.

    Args:
        run: takes what is to be called after each step.
        progress: the bar, if there is one.
        optim: settings of the run.
        name: before the bar.
        on_step: called after each step too, when the bar has moved.

    Raises:
        ConfigError: ``progress`` is neither a boolean nor can be called.
    """
    if progress is False:
        return run(on_step)
    bar = _StepBar(_maker(progress), optim, name)

    def both(report: StepReport) -> None:
        bar.step(report)
        if on_step is not None:
            on_step(report)

    try:
        outcome = run(both)
        bar.end(outcome)
    finally:
        bar.close()
    return outcome


def _maker(progress: Progress) -> Callable[..., ProgressBar]:
    if callable(progress):
        return progress
    if progress is not True:
        raise ConfigError(f"progress must be True, False or a class such as tqdm.tqdm, got {brief(progress)}")
    return cast(Callable[..., ProgressBar], tqdm)


class _StepBar:
    """The bar of one run: members x steps, and the loss where reading it does not make the device wait."""

    def __init__(self, make: Callable[..., ProgressBar], optim: Optim, name: str) -> None:
        limited = optim.budget is not None or optim.vram is not None
        # Within a limit the number of steps is known only when the first one is done.
        self._total = None if limited else optim.steps * optim.members
        self._read_every = optim.performance.read_losses_every
        self._done = 0
        self._bar = make(total=self._total, desc=name, unit="step")

    def step(self, report: StepReport) -> None:
        """Show a step."""
        total = report.steps * report.of_members
        if total != self._total:
            self._bar.reset(total=total)
            self._total, self._done = total, 0
        if report.step in (1, report.steps) or report.step % self._read_every == 0:
            loss = float(report.losses["total"].mean())
            self._bar.set_postfix_str(f"loss {loss:.3g}", refresh=False)
        done = report.members.start * report.steps + report.step * len(report.members)
        self._bar.update(done - self._done)
        self._done = done

    def end(self, outcome: Outcome) -> None:
        """Show that the run is complete, though an early stop or a time limit may have saved steps."""
        if not outcome.partial and self._done != self._total:
            self._bar.total = self._done
            self._bar.refresh()

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()
