"""The progress bar of a run: its counts and its end, with a bar that writes down what it is told."""

from __future__ import annotations

import functools
import io
from pathlib import Path
from typing import Any

import pytest
import tqdm

import redepth
from redepth.errors import ConfigError
from tests.support.small_photos import write_photo

SMALL = {"optim.steps": 4, "optim.members": 3, "optim.performance.read_losses_every": 2}


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


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photo(tmp_path_factory.mktemp("photos") / "a.png")


def refine(photo: Path, **options: Any) -> redepth.Refinement:
    overrides = {**SMALL, **options.pop("overrides", {})}
    return redepth.refine(photo, "smoke", overrides=overrides, device="cpu", **options)


def test_the_bar_counts_steps_of_members_and_is_closed(photo: Path, bars: list[Bar]) -> None:
    seen = []

    def on_step(report: redepth.StepReport) -> None:
        seen.append((report.step, bars[0].n))

    result = refine(photo, progress=Bar, on_step=on_step)
    (bar,) = bars
    assert (bar.desc, bar.unit, bar.totals) == ("a.png", "step", [12])
    assert bar.counts == [0, 3, 6, 9, 12]
    assert seen == [(1, 3), (2, 6), (3, 9), (4, 12)]
    assert bar.closed == 1
    total = result.losses["total"].mean(axis=0)
    assert bar.texts == [f"loss {total[step - 1]:.3g}" for step in (1, 2, 4)]


def test_members_in_groups_count_on(photo: Path, bars: list[Bar]) -> None:
    refine(photo, progress=Bar, overrides={"optim.members_per_batch": 2})
    assert bars[0].counts == [0, 2, 4, 6, 8, 9, 10, 11, 12]


def test_an_early_stop_is_a_complete_run(photo: Path, bars: list[Bar]) -> None:
    rule = {"enabled": True, "window": 2, "min_improvement": 0.999}
    result = refine(photo, progress=Bar, overrides={"optim.early_stop": rule, "optim.steps": 40})
    steps = max(result.outcome.steps_done)
    assert steps < 40
    (bar,) = bars
    # The losses are read every other step, so a step more may be taken than counts.
    assert bar.totals == [120, bar.n]
    assert 0 < bar.n < 120
    assert bar.closed == 1


def test_a_partial_run_does_not_look_complete(photo: Path, bars: list[Bar]) -> None:
    def on_step(report: redepth.StepReport) -> None:
        if report.step == 2:
            raise KeyboardInterrupt

    result = refine(photo, progress=Bar, on_step=on_step)
    assert result.partial
    (bar,) = bars
    assert (bar.n, bar.total, bar.closed) == (6, 12, 1)


def test_an_exception_closes_the_bar(photo: Path, bars: list[Bar]) -> None:
    def on_step(report: redepth.StepReport) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        refine(photo, progress=Bar, on_step=on_step)
    assert (bars[0].n, bars[0].closed) == (3, 1)


def test_the_total_of_a_limited_run_is_known_with_its_first_step(photo: Path, bars: list[Bar]) -> None:
    refine(photo, progress=Bar, overrides={"optim.budget": "10m"})
    (bar,) = bars
    assert bar.totals == [None, 12]
    assert (bar.n, bar.closed) == (12, 1)


def test_the_bars_of_tqdm_will_do(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = io.StringIO()
    refine(photo, progress=functools.partial(tqdm.tqdm, file=written, mininterval=0, ascii=True))
    lines = written.getvalue().replace("\r", "\n").strip().splitlines()
    assert lines[-1].startswith("a.png: 100%|")
    assert "12/12" in lines[-1]
    assert "loss " in lines[-1]
    assert written.getvalue().endswith("\n")
    assert capsys.readouterr().err == ""


def test_true_is_the_bar_of_tqdm_and_false_is_none(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refine(photo)
    assert capsys.readouterr().err == ""
    refine(photo, progress=True)
    assert "12/12" in capsys.readouterr().err


def test_something_else_is_no_progress(photo: Path) -> None:
    with pytest.raises(ConfigError, match=r"progress must be True, False or a class such as tqdm\.tqdm"):
        refine(photo, progress="yes")
