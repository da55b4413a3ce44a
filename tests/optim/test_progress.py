"""The progress bar of a run: its counts and its end, with a bar that writes down what it is told."""

from __future__ import annotations

import functools
import io
from typing import Any

import pytest
import tqdm

from redepth.config import Optim
from redepth.errors import ConfigError
from redepth.optim.outcome import OnStep, Outcome, StepReport
from redepth.optim.planning import run_within_limits
from redepth.optim.progress import Progress, run_with_progress
from tests.optim.test_planning import Costly
from tests.support.helpers import TargetPrior, make_refiner, photo


class Bar:
    """A bar that keeps its state."""

    made: list[Bar]

    def __init__(self, total: int | None, desc: str, unit: str) -> None:
        self.total, self.desc, self.unit = total, desc, unit
        self.n = 0
        self.closed = 0
        self.totals, self.counts, self.texts = [total], [0], list[str]()
        type(self).made.append(self)

    def update(self, n: int) -> None:
        self.n += n
        self.counts.append(self.n)

    def set_postfix_str(self, s: str, refresh: bool) -> None:
        self.texts.append(s)

    def reset(self, total: int) -> None:
        self.total, self.n = total, 0
        self.totals.append(total)

    def refresh(self) -> None:
        self.totals.append(self.total)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Bar]:
    made: list[Bar] = []
    monkeypatch.setattr(Bar, "made", made, raising=False)
    return made


def run(progress: Progress, prior: Any = None, on_step: OnStep | None = None, **settings: Any) -> Outcome:
    """Run three members of four steps of the tiny models, their losses read every other step."""
    settings = {
        "parameterization": "depth",
        "steps": 4,
        "members": 3,
        "performance": {"read_losses_every": 2},
        **settings,
    }
    prior = TargetPrior() if prior is None else prior
    refiner = make_refiner(prior, **settings)
    clock = {"clock": prior.clock} if isinstance(prior, Costly) else {}
    return run_with_progress(
        lambda each_step: run_within_limits(refiner, photo(), on_step=each_step, **clock),
        progress,
        optim=refiner.optim,
        name="a.png",
        on_step=on_step,
    )


def test_the_bar_counts_steps_of_members_and_is_closed(bars: list[Bar]) -> None:
    seen = []
    outcome = run(Bar, on_step=lambda report: seen.append((report.step, bars[0].n)))
    (bar,) = bars
    assert (bar.desc, bar.unit, bar.totals) == ("a.png", "step", [12])
    assert bar.counts == [0, 3, 6, 9, 12]
    assert seen == [(1, 3), (2, 6), (3, 9), (4, 12)]
    assert bar.closed == 1
    total = outcome.losses["total"].mean(axis=0)
    assert bar.texts == [f"loss {total[step - 1]:.3g}" for step in (1, 2, 4)]


def test_members_in_groups_count_on(bars: list[Bar]) -> None:
    run(Bar, members_per_batch=2)
    assert bars[0].counts == [0, 2, 4, 6, 8, 9, 10, 11, 12]


def test_an_early_stop_is_a_complete_run(bars: list[Bar]) -> None:
    rule = {"enabled": True, "window": 2, "min_improvement": 0.9}
    outcome = run(Bar, early_stop=rule, steps=40)
    assert max(outcome.steps_done) < 40
    (bar,) = bars
    assert bar.totals == [120, bar.n]
    assert 0 < bar.n < 120
    assert bar.closed == 1


def test_a_partial_run_does_not_look_complete(bars: list[Bar]) -> None:
    def on_step(report: StepReport) -> None:
        if report.step == 2:
            raise KeyboardInterrupt

    assert run(Bar, on_step=on_step).partial
    (bar,) = bars
    assert (bar.n, bar.total, bar.closed) == (6, 12, 1)


def test_an_exception_closes_the_bar(bars: list[Bar]) -> None:
    def on_step(report: StepReport) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(Bar, on_step=on_step)
    assert (bars[0].n, bars[0].closed) == (3, 1)


def test_the_total_of_a_limited_run_is_known_with_its_first_step(bars: list[Bar]) -> None:
    outcome = run(Bar, Costly(), budget="14s")
    (bar,) = bars
    assert outcome.fit is not None
    total = outcome.fit.members * outcome.fit.steps
    assert bar.totals == [None, total]
    assert 0 < total < 12
    assert (bar.n, bar.closed) == (total, 1)


def test_the_bars_of_tqdm_will_do() -> None:
    written = io.StringIO()
    run(functools.partial(tqdm.tqdm, file=written, mininterval=0, ascii=True, ncols=120))
    lines = written.getvalue().replace("\r", "\n").strip().splitlines()
    assert lines[-1].startswith("a.png: 100%|")
    assert "12/12" in lines[-1]
    assert "loss " in lines[-1]
    assert written.getvalue().endswith("\n")


def test_true_is_a_bar_of_tqdm_and_false_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    run(False)
    assert capsys.readouterr().err == ""
    run(True)
    assert "12/12" in capsys.readouterr().err


@pytest.mark.parametrize("progress", ["yes", None, 1])
def test_something_else_is_no_progress(progress: Any) -> None:
    with pytest.raises(ConfigError, match=r"progress must be True, False or a class such as tqdm\.tqdm"):
        run_with_progress(lambda on_step: pytest.fail("it ran"), progress, optim=Optim(), name="a")
