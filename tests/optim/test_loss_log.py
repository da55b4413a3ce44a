"""Losses that are read every few steps: the same run, to the bit, as with a read after each step."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from redepth.config import EarlyStop
from redepth.optim.loss_log import LossLog, NotFinite
from redepth.optim.outcome import Outcome, StepReport
from tests.optim.test_refiner import Diverging, Interrupting, Poisoning
from tests.support.helpers import CPU, TargetPrior, make_refiner, photo


def run(read_every: int, prior: Any = None, on_step: Any = None, **settings: Any) -> Outcome:
    settings = {"steps": 9, "performance": {"read_losses_every": read_every}, **settings}
    return make_refiner(prior, **settings).run(photo(), seed=3, on_step=on_step)


def assert_same(actual: Outcome, expected: Outcome) -> None:
    for name in ("members", "member_depths", "offsets"):
        assert torch.equal(getattr(actual, name), getattr(expected, name)), name
    for name in ("history", "steps_done", "partial", "reason"):
        assert getattr(actual, name) == getattr(expected, name), name


@pytest.mark.parametrize("name", ["embeddings+decoder", "full", "depth"])
def test_how_often_losses_are_read_changes_nothing(name: str) -> None:
    assert_same(run(4, parameterization=name), run(1, parameterization=name))


@pytest.mark.parametrize("spoil", [Diverging, Poisoning])
@pytest.mark.parametrize("members_per_batch", ["auto", 2])
def test_steps_that_were_not_finite_change_nothing(spoil: Any, members_per_batch: Any) -> None:
    """One call later the prior is finite again; these later steps must not count either."""

    class Once(spoil):  # type: ignore[misc]
        def __call__(self, *args: Any) -> torch.Tensor:
            if self.good < 0:
                return TargetPrior.__call__(self, *args)
            return super().__call__(*args)

    settings = {"parameterization": "depth", "members_per_batch": members_per_batch}
    late, at_once = (run(n, Once(5), **settings) for n in (8, 1))
    assert_same(late, at_once)
    assert "not finite at step 6" in late.reason
    assert set(late.steps_done) == {5}
    assert torch.equal(late.members, run(1, steps=5, **settings).members[: len(late.members)])


def test_a_plateau_between_two_reads_stops_a_member_at_its_step() -> None:
    rule = {"enabled": True, "window": 2, "min_improvement": 0.02}
    settings: dict[str, Any] = {"parameterization": "depth", "steps": 30, "early_stop": rule}
    at_once = run(1, **settings)
    assert len(set(at_once.steps_done)) > 1
    for steps in (5, 7, 1000):
        assert_same(run(steps, **settings), at_once)


def test_an_interrupt_between_two_reads_keeps_finished_steps() -> None:
    outcome = run(1000, on_step=Interrupting(4))
    assert outcome.steps_done == [4, 4, 4]
    assert torch.equal(outcome.members, run(1, steps=4).members)


def test_reading_a_report_gives_its_losses_at_once_and_only_finite_ones() -> None:
    seen: list[float] = []

    def read(report: StepReport) -> None:
        assert set(report.losses) == {"prior", "smoothness", "total"}
        assert len(report.losses) == 3
        seen.append(float(report.losses["total"].sum()))

    outcome = run(1000, Diverging(4), read)
    assert "not finite at step 5" in outcome.reason
    assert seen == pytest.approx([sum(row[i] for row in outcome.history["total"]) for i in range(4)])


def test_a_report_keeps_its_losses_after_the_run() -> None:
    reports: list[StepReport] = []
    outcome = run(5, on_step=reports.append)
    for i, report in enumerate(reports):
        assert report.losses["prior"].tolist() == [row[i] for row in outcome.history["prior"]]


def test_the_loss_log_names_the_step_and_the_member() -> None:
    loss_log = LossLog(3, EarlyStop(), CPU)
    good, bad = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, float("inf")])
    for total in (good, bad, good):
        loss_log.check(total, [torch.ones(2)])
        loss_log.add({"total": total})
    assert loss_log.steps == 0
    assert float(loss_log.failed) == 1
    with pytest.raises(NotFinite) as error:
        loss_log.read()
    assert (error.value.step, error.value.row) == (1, 2)
    assert loss_log.steps == 1
    assert loss_log.losses(0)["total"].tolist() == [1.0, 2.0, 3.0]
    loss_log.reset_failure()
    loss_log.check(good, [torch.tensor([float("nan")])])
    loss_log.add({"total": good})
    with pytest.raises(NotFinite) as error:
        loss_log.losses(1)
    assert (error.value.step, error.value.row) == (1, None)
