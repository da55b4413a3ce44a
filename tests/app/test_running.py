"""Runs of the real optimisation loop on tiny components."""

import gc
import threading
import weakref
from typing import Any

import pytest

from redepth.app.progress import Pace, Progress
from redepth.app.running import CancelledError, Run, Work
from redepth.errors import RedepthError
from redepth.optim.outcome import OnStep, StepReport
from tests.support.helpers import make_refiner, photo


def refining(steps: int = 3, members: int = 2, **optim: Any) -> Work:
    """The work of a run; its result is an outcome, which no test here looks into further."""

    def work(on_step: OnStep, say: Any) -> Any:
        say("refining")
        refiner = make_refiner(steps=steps, members=members, **optim)
        return refiner.run(photo(), on_step=on_step)

    return work


def run_of(work: Work, *, stop: threading.Event | None = None, slots: int = 1, every: float = 0.0) -> Run:
    return Run(work, threading.Semaphore(slots), stop or threading.Event(), Pace(every=every))


def test_a_run_reports_its_steps_and_has_a_result() -> None:
    run = run_of(refining())
    updates = [update for update in run.updates() if update is not None]
    # Updates that nobody waited for are left out, but not the last one.
    assert isinstance(updates[-1], Progress)
    assert (updates[-1].step, updates[-1].steps, updates[-1].share) == (3, 3, 1.0)
    assert not run.result().partial


def test_a_cancelled_run_keeps_its_steps() -> None:
    stop = threading.Event()
    run = run_of(refining(steps=500), stop=stop)
    for update in run.updates():
        if isinstance(update, Progress):
            stop.set()
    outcome: Any = run.result()
    assert outcome.partial
    assert outcome.reason == "cancelled"
    assert 1 <= max(outcome.steps_done) < 500


def test_who_leaves_early_ends_the_run() -> None:
    run = run_of(refining(steps=500))
    updates = run.updates()
    next(updates)
    updates.close()
    try:
        outcome: Any = run.result()
    except CancelledError:
        return  # it had not taken a step yet
    assert outcome.partial


def test_a_run_that_is_cancelled_while_it_waits_never_begins() -> None:
    stop = threading.Event()

    def work(on_step: OnStep, say: Any) -> Any:
        raise AssertionError("it began")

    run = run_of(work, stop=stop, slots=0)
    for _ in run.updates(patience=0.01):
        stop.set()
    with pytest.raises(CancelledError, match="before the first step"):
        run.result()


def test_a_run_waits_for_the_one_before_it() -> None:
    slots, order = threading.Semaphore(1), []
    first_goes_on = threading.Event()

    def first(on_step: OnStep, say: Any) -> Any:
        say("began")
        first_goes_on.wait(10)
        order.append("first")

    def second(on_step: OnStep, say: Any) -> Any:
        order.append("second")
        return "result"

    runs = [Run(work, slots, threading.Event()) for work in (first, second)]
    one = runs[0].updates()
    assert next(one) == "began"
    two = runs[1].updates(patience=0.01)
    assert next(two) is None
    first_goes_on.set()
    assert list(filter(None, two)) == []
    assert order == ["first", "second"]
    assert runs[1].result() == "result"
    one.close()


def test_an_error_is_raised_where_the_result_is_asked_for() -> None:
    slots = threading.Semaphore(1)

    def work(on_step: OnStep, say: Any) -> Any:
        raise RedepthError("no")

    run = Run(work, slots, threading.Event())
    assert list(run.updates()) == []
    with pytest.raises(RedepthError, match="no"):
        run.result()
    assert slots.acquire(blocking=False), "the slot is not free again"


class Model:
    """Stands for what takes memory."""


def test_an_error_keeps_nothing_of_its_run_alive() -> None:
    models: list[weakref.ref[Model]] = []

    def fill(model: Model) -> None:
        raise MemoryError("out of memory")

    def work(on_step: OnStep, say: Any) -> Any:
        model = Model()
        models.append(weakref.ref(model))
        try:
            fill(model)
        except MemoryError as error:
            raise RedepthError("no room") from error

    run = run_of(work)
    gc.disable()  # it might free by chance what is asked for here
    try:
        assert list(run.updates()) == []
        with pytest.raises(RedepthError, match="no room") as raised:
            run.result()
        assert raised.value.__traceback__ is not None
        assert models[0]() is None
        ended = weakref.ref(run)
        del run, raised
        assert ended() is None, "a cycle keeps the run"
    finally:
        gc.enable()


# --- which steps are shown ------------------------------------------------------------------------


def reports(**optim: Any) -> list[StepReport]:
    found: list[StepReport] = []
    make_refiner(**optim).run(photo(), on_step=found.append)
    return found


def shown(found: list[StepReport], seconds_per_step: float, every: float) -> list[Progress]:
    now = 0.0

    def clock() -> float:
        return now

    pace, result = Pace(clock, every), []
    for report in found:
        now += seconds_per_step
        progress = pace.progress(report)
        if progress is not None:
            result.append(progress)
    return result


def test_fast_steps_are_thinned() -> None:
    result = shown(reports(steps=10, members=1), seconds_per_step=0.25, every=1.0)
    assert [progress.step for progress in result] == [1, 5, 9, 10]


def test_slow_steps_are_all_shown() -> None:
    result = shown(reports(steps=4, members=1), seconds_per_step=3.0, every=1.0)
    assert [progress.step for progress in result] == [1, 2, 3, 4]
    assert [progress.seconds_left for progress in result] == [None, 6.0, 3.0, 0.0]


def test_the_share_counts_the_groups_of_members() -> None:
    result = shown(reports(steps=2, members=3, members_per_batch=2), seconds_per_step=1.0, every=0.0)
    assert [progress.members for progress in result] == [(1, 2), (1, 2), (3, 3), (3, 3)]
    assert [round(6 * progress.share) for progress in result] == [2, 4, 5, 6]
    assert "members 3 to 3 of 3" in result[-1].line


def test_the_pictures_show_the_surface() -> None:
    (report, *_) = reports(steps=1, members=2)
    (progress,) = shown([report], 1.0, 0.0)
    height, width = report.depth.shape[-2:]
    assert progress.normals.shape == progress.relit.shape == (height, width, 3)
    # Normals face the viewer: z > 0.
    assert progress.normals[..., 2].min() >= 127
    assert progress.relit.std() > 0
