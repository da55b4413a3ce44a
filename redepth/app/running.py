"""One refinement in a thread of its own, which reports its progress and can be ended."""

from __future__ import annotations

import queue
import threading
import traceback
from collections.abc import Callable, Iterator

from redepth.app.progress import Pace, Progress
from redepth.errors import RedepthError
from redepth.optim.outcome import OnStep, StepReport
from redepth.refinement import Refinement

Update = Progress | str
"""A step that is shown, or what the run does before its first step."""

Say = Callable[[str], None]
Work = Callable[[OnStep, Say], Refinement]
"""Refines a photo; it is given the two functions that it reports to."""

CANCELLED = "cancelled"


class _End:
    """Stands behind the last update of a run."""


class CancelledError(RedepthError):
    """A run was ended before its first step, so that it has no result."""

    def __init__(self) -> None:
        super().__init__("cancelled before the first step: there is no result")


class Run:
    """A refinement in a thread. It starts with `updates`.

    A run that is ended after its first step has a result all the same, marked partial: an interruption that
    is raised in `on_step` ends the loop, and what is done is kept (`Refiner.run`).

    Args:
        work: the refinement.
        slots: as many runs go on at the same time as it has permits.
        stop: ends the run once it is set.
        pace: chooses the steps that are shown.
    """

    def __init__(
        self, work: Work, slots: threading.Semaphore, stop: threading.Event, pace: Pace | None = None
    ) -> None:
        self._work, self._slots, self._stop = work, slots, stop
        self._pace = pace or Pace()
        self._updates: queue.SimpleQueue[Update | _End] = queue.SimpleQueue()
        self._result: Refinement | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="redepth-run", daemon=True)

    def updates(self, patience: float = 1.0) -> Iterator[Update | None]:
        """Start the run, and yield its updates until it ends; None if there was none for some seconds.

        A caller that leaves early ends the run.

        Args:
            patience: seconds without an update after which None is yielded.
        """
        self._thread.start()
        try:
            while not isinstance(update := self._next(patience), _End):
                yield update
        finally:
            self._stop.set()

    def result(self) -> Refinement:
        """Return the result of a run that has ended.

        An error is raised once: the run forgets it, for its traceback leads back to the run.

        Raises:
            RedepthError: it failed, or was ended before its first step.
        """
        self._thread.join()
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
            assert self._result is not None
            return self._result
        finally:
            del error

    def is_over(self, patience: float = 0.0) -> bool:
        """Wait for the thread for some seconds, and return whether it has ended, or was never started."""
        if self._thread.ident is not None:
            self._thread.join(patience)
        return not self._thread.is_alive()

    def _next(self, patience: float) -> Update | _End | None:
        """Return the newest update; None if there is none yet."""
        try:
            update = self._updates.get(timeout=patience)
        except queue.Empty:
            return None
        # A browser that is slow sees the newest picture, not all that it missed.
        while not isinstance(update, _End) and not self._updates.empty():
            update = self._updates.get()
        return update

    def _run(self) -> None:
        try:
            self._wait_for_slot()
            try:
                self._result = self._work(self._on_step, self._updates.put)
            finally:
                self._slots.release()
        except KeyboardInterrupt:
            self._error = CancelledError()
        except BaseException as error:  # it is raised again where the result is asked for
            forget_locals(error)
            self._error = error
        finally:
            self._updates.put(_End())

    def _wait_for_slot(self) -> None:
        while not self._slots.acquire(timeout=0.1):
            self._end_if_stopped()
        if self._stop.is_set():
            self._slots.release()
            raise KeyboardInterrupt(CANCELLED)

    def _end_if_stopped(self) -> None:
        if self._stop.is_set():
            raise KeyboardInterrupt(CANCELLED)

    def _on_step(self, report: StepReport) -> None:
        self._end_if_stopped()
        progress = self._pace.progress(report)
        if progress is not None:
            self._updates.put(progress)


def forget_locals(error: BaseException | None) -> None:
    """Clear the local variables that the traceback of an error holds: models and tensors are among them."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
