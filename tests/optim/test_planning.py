"""Plans within limits of time, by a clock that only a fake prior advances, and of memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from redepth.config import load_preset
from redepth.errors import ConfigError, RedepthError
from redepth.optim import planning
from redepth.optim.limits import Deadline
from redepth.optim.outcome import Outcome, StepReport
from redepth.optim.plan import Plan, Trial
from redepth.optim.planning import affordable, batch_within, choose_plan, run_within_limits
from redepth.optim.refiner import Refiner
from redepth.optim.warm import WarmStart
from redepth.renderers.blinn_phong import BlinnPhong
from redepth.renderers.intrinsics import MarigoldIntrinsics
from tests.support.helpers import TargetPrior, make_refiner, photo
from tests.support.tiny_intrinsics import save_intrinsics

GB = 10**9


class Costly(TargetPrior):
    """A prior that advances its own clock: by ``fixed`` for each call, by ``each`` for each picture."""

    def __init__(self, fixed: float = 0.5, each: float = 0.5) -> None:
        super().__init__()
        self.fixed, self.each = fixed, each
        self.now = 100.0
        self.calls: list[int] = []

    def clock(self) -> float:
        return self.now

    def __call__(self, relit: torch.Tensor, *rest: Any) -> torch.Tensor:
        self.calls.append(len(relit))
        self.now += self.fixed + self.each * len(relit)
        return super().__call__(relit, *rest)


def run_within(prior: Costly, budget: str, **optim: Any) -> tuple[Outcome, float]:
    """Run within a time limit; return the outcome and the time it took."""
    refiner = make_refiner(prior, budget=budget, **optim)
    began = prior.now
    outcome = run_within_limits(refiner, photo(), clock=prior.clock, seed=5)
    return outcome, prior.now - began


def test_with_enough_time_the_preset_runs_unchanged() -> None:
    outcome, _ = run_within(Costly(), "1h", members=3, steps=4)
    expected = make_refiner(members=3, steps=4).run(photo(), seed=5)
    assert torch.equal(outcome.members, expected.members)
    assert outcome.history == expected.history
    assert outcome.fit is not None
    assert not outcome.fit.cut
    assert not outcome.partial
    assert outcome.seconds == pytest.approx(4 * 1 + 4 * 2 + 4 * 2)  # trials of one and three members, and all


@pytest.mark.slow
def test_too_little_time_takes_fewer_members_and_the_overrides_repeat_the_run() -> None:
    outcome, took = run_within(Costly(fixed=0.0, each=1.0), "90s", members=5, steps=20, schedule="cosine")
    fit = outcome.fit
    assert fit is not None
    assert (fit.members, fit.steps, fit.members_per_batch) == (4, 17, 4)
    assert 0.85 * 90 < took < 1.15 * 90
    assert outcome.steps_done == [17] * 4
    assert (outcome.partial, outcome.reason) == (False, "")
    overrides = {key.removeprefix("optim."): value for key, value in _pairs(fit.record()["repeat_with"])}
    again = make_refiner(schedule="cosine", **overrides).run(photo(), seed=5)
    assert torch.equal(again.members, outcome.members)
    assert again.history == outcome.history


def _pairs(overrides: list[str]) -> Iterator[tuple[str, Any]]:
    for override in overrides:
        key, _, value = override.partition("=")
        yield key, None if value == "null" else int(value)


def test_without_time_for_one_member_one_takes_fewer_steps() -> None:
    outcome, took = run_within(Costly(fixed=0.0, each=1.0), "30s", members=4, steps=100)
    assert outcome.fit is not None
    assert outcome.fit.members == 1
    assert outcome.steps_done == [outcome.fit.steps]
    assert 0.85 * 30 < took < 1.15 * 30


def test_a_step_longer_than_the_time_is_taken_once() -> None:
    prior = Costly(fixed=0.0, each=100.0)
    outcome, took = run_within(prior, "10s", members=4, steps=100)
    assert prior.calls == [1, 1]  # a trial of one step, and the run
    assert outcome.steps_done == [1]
    assert took == 200
    assert outcome.fit is not None
    assert not outcome.fit.cut


class Slowing(Costly):
    """A prior that is three times slower after some calls."""

    def __init__(self, after: int) -> None:
        super().__init__(fixed=0.0, each=1.0)
        self.after = after

    def __call__(self, relit: torch.Tensor, *rest: Any) -> torch.Tensor:
        if len(self.calls) == self.after:
            self.each *= 3
        return super().__call__(relit, *rest)


def test_the_end_of_the_time_returns_the_finished_steps_and_is_no_failure() -> None:
    outcome, took = run_within(Slowing(after=12), "60s", members=2, steps=30)
    assert outcome.fit is not None
    assert outcome.fit.cut
    assert outcome.fit.record()["cut"] is True
    assert not outcome.partial
    assert outcome.reason == "the time of 60s has ended"
    assert 60 <= took <= 60 + 6
    assert 0 < max(outcome.steps_done) < outcome.fit.steps


def test_members_run_one_by_one_where_they_are_slower_together() -> None:
    class Thrashing(Costly):
        def __call__(self, relit: torch.Tensor, *rest: Any) -> torch.Tensor:
            self.now += 5.0 * (len(relit) - 1)
            return super().__call__(relit, *rest)

    outcome, _ = run_within(Thrashing(), "1h", members=3, steps=4)
    assert outcome.fit is not None
    assert outcome.fit.members_per_batch == 1
    assert outcome.members_per_batch == 1
    assert [trial.members for trial in outcome.fit.trials] == [1, 3]


@pytest.mark.slow
def test_a_trial_takes_a_small_share_of_the_time() -> None:
    prior = Costly(fixed=0.0, each=1.0)
    outcome, _ = run_within(prior, "100s", members=50, steps=1000)
    assert prior.calls[:6] == [
        1,
        1,
        1,
        1,
        5,
        5,
    ]  # five together take a twentieth of the time
    assert sum(prior.calls[6:]) == sum(outcome.steps_done)
    prior = Costly(fixed=0.0, each=1.0)
    outcome, took = run_within(prior, "100s", members=50, steps=25)
    assert outcome.fit is not None
    assert (outcome.fit.members, outcome.fit.steps) == (3, 25)
    assert 85 < took < 115


class Interrupting:
    def __init__(self, prior: Costly, call: int) -> None:
        self.prior, self.call = prior, call

    def __call__(self, report: StepReport) -> None:
        if len(self.prior.calls) == self.call:
            raise KeyboardInterrupt


def test_an_interrupted_run_is_partial_and_an_interrupted_trial_raises() -> None:
    prior = Costly()
    refiner = make_refiner(prior, budget="1h", members=2, steps=6)
    outcome = run_within_limits(refiner, photo(), clock=prior.clock, on_step=Interrupting(prior, 10))
    assert (outcome.partial, outcome.reason) == (True, "interrupted")
    assert outcome.steps_done == [2, 2]

    class Pressed(Costly):
        def __call__(self, relit: torch.Tensor, *rest: Any) -> torch.Tensor:
            if len(self.calls) == 2:
                raise KeyboardInterrupt
            return super().__call__(relit, *rest)

    with pytest.raises(KeyboardInterrupt):
        run_within(Pressed(), "1h", members=2, steps=6)


def test_reports_and_the_log_have_the_planned_size(caplog: pytest.LogCaptureFixture) -> None:
    prior, seen = Costly(fixed=0.0, each=1.0), list[StepReport]()
    refiner = make_refiner(prior, budget="60s", members=4, steps=20)
    with caplog.at_level(logging.INFO, logger="redepth.optim.planning"):
        outcome = run_within_limits(refiner, photo(), clock=prior.clock, on_step=seen.append)
    assert outcome.fit is not None
    assert {(r.steps, r.of_members) for r in seen} == {(outcome.fit.steps, outcome.fit.members)}
    (line,) = caplog.messages
    assert line == (
        f"within 60s: {outcome.fit.members} members x {outcome.fit.steps} steps, "
        f"{outcome.fit.members_per_batch} at a time (a step of one took 1 s)"
    )
    # The plan for one photo leaves the settings for the next one as they are.
    assert refiner.preset_plan == Plan(members=4, steps=20, members_per_batch=4)


def test_limits_need_a_plan_and_no_limits_need_none() -> None:
    refiner = make_refiner(budget="1h", members=2, steps=2)
    for limits, name in (({"budget": "1h"}, "budget=1h"), ({"vram": "8GB"}, "vram=8GB")):
        with pytest.raises(ConfigError, match=rf"optim.{name} needs a plan: .*run_within_limits"):
            make_refiner(**limits).run(photo())
    plan = choose_plan(refiner, photo(), Deadline.start("1h"), seed=5)
    outcome = refiner.run(photo(), seed=5, plan=plan)
    assert outcome.fit == plan
    assert (plan.members, plan.steps, plan.budget) == (2, 2, "1h")
    # The plan's batch is the one that was faster just now; members are equal bit for bit within one size.
    same_batch = make_refiner(members=2, steps=2, members_per_batch=plan.members_per_batch)
    unlimited = run_within_limits(same_batch, photo(), seed=5)
    assert torch.equal(outcome.members, unlimited.members)
    assert unlimited.fit is None


def test_a_plan_by_hand_replaces_the_size_of_the_preset() -> None:
    refiner = make_refiner(members=5, steps=9, schedule="cosine")
    outcome = refiner.run(photo(), seed=5, plan=Plan(members=3, steps=4, members_per_batch=2))
    smaller = make_refiner(members=3, steps=4, members_per_batch=2, schedule="cosine")
    expected = smaller.run(photo(), seed=5)
    assert torch.equal(outcome.members, expected.members)
    assert outcome.history == expected.history
    assert outcome.members_per_batch == 2
    assert str(outcome.fit) == "3 members x 4 steps, 2 at a time"
    assert refiner.preset_plan == Plan(5, 9, 5)
    with pytest.raises(ValueError, match="at least 1 member"):
        Plan(members=1, steps=1, members_per_batch=0)


def test_a_watch_ends_a_run_that_then_counts_as_complete() -> None:
    answers = iter(["", "", "enough"])
    outcome = make_refiner(members=2, steps=5).run(photo(), plan=Plan(2, 5, 2), watch=lambda: next(answers))
    assert (outcome.partial, outcome.reason, outcome.steps_done) == (False, "enough", [3, 3])
    assert outcome.fit is not None
    assert outcome.fit.cut


def test_a_trial_takes_all_its_steps_where_members_may_stop_early() -> None:
    rule = {"enabled": True, "window": 2, "min_improvement": 0.99}
    outcome = make_refiner(steps=6, early_stop=rule, performance={"read_losses_every": 1}).run(
        photo(), plan=Plan(2, 6, 2, early_stop=False)
    )
    assert outcome.steps_done == [6, 6]


# --- the arithmetic -------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [3.0, 17.0, 41.0, 100.0, 250.0, 390.0, 1000.0, 4001.0])
@pytest.mark.parametrize(("fixed", "each"), [(0.0, 0.1), (0.05, 0.05), (0.09, 0.01)])
@pytest.mark.parametrize("batch", [1, 4, 10])
def test_a_plan_fills_the_time_and_never_exceeds_the_preset(
    left: float, fixed: float, each: float, batch: int
) -> None:
    trials = [Trial(n, fixed + n * each, 0.0) for n in sorted({1, batch})]
    members, steps = affordable(10, 1000, batch, trials, left)
    assert 1 <= members <= 10
    assert 1 <= steps <= 1000
    groups = [batch] * (members // batch) + [members % batch] * (members % batch > 0)
    took = steps * sum(fixed + n * each for n in groups)
    assert took <= left or steps == 1
    if (members, steps) != (10, 1000):
        # Rounding leaves one step at most.
        assert took >= planning.FULL * left - took / steps
    if members > 1:
        assert steps > 500


def test_the_batch_that_fits_into_memory_follows_from_two_peaks() -> None:
    trials = [Trial(1, 0.1, 0.1, 4 * GB), Trial(2, 0.2, 0.1, 5 * GB)]
    assert batch_within(8 * GB, trials) == 4  # 3 + n GB within 95 %
    assert batch_within(5 * GB, trials) == 1
    assert batch_within(4 * GB, trials) == 1
    with pytest.raises(RedepthError, match=r"one member alone takes 4.0 GB, and 3 GB are allowed"):
        batch_within(3 * GB, trials)


class Meter:
    """A memory whose peak a prior sets."""

    def __init__(self, limit: int) -> None:
        self.limit, self.most, self.active = limit, 0, False

    @contextmanager
    def limited(self) -> Iterator[None]:
        self.active = True
        yield
        self.active = False

    def reset(self) -> None:
        self.most = 0

    def peak(self) -> int:
        return self.most


class Hungry(Costly):
    """A prior that needs 3 GB and one GB for each picture, and is out of memory beyond the limit."""

    def __init__(self, meter: Meter) -> None:
        super().__init__()
        self.meter = meter

    def __call__(self, relit: torch.Tensor, *rest: Any) -> torch.Tensor:
        assert self.meter.active
        self.meter.most = max(self.meter.most, (3 + len(relit)) * GB)
        if self.meter.most > self.meter.limit:
            self.meter.most = 0
            raise torch.OutOfMemoryError
        return super().__call__(relit, *rest)


@pytest.mark.parametrize(("limit", "together"), [("8GB", 4), ("20GB", 5), ("4.5GB", 1)])
def test_as_many_members_run_together_as_fit_into_memory(limit: str, together: int) -> None:
    meter = Meter(int(float(limit[:-2]) * GB))
    prior = Hungry(meter)
    refiner = make_refiner(prior, vram=limit, members=5, steps=2)
    outcome = run_within_limits(refiner, photo(), clock=prior.clock, meter=meter, seed=5)
    assert outcome.members_per_batch == together
    assert outcome.steps_done == [2] * 5
    assert not meter.active
    assert outcome.fit is not None
    assert outcome.fit.record()["trials"][0]["peak_bytes"] == 4 * GB
    expected = make_refiner(members=5, steps=2, members_per_batch=together).run(photo(), seed=5)
    assert torch.equal(outcome.members, expected.members)


def test_an_estimated_albedo_counts_neither_as_memory_nor_as_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = Meter(8 * GB)
    prior = Hungry(meter)
    estimate = MarigoldIntrinsics._estimate
    made: list[float] = []

    def costly(*given: Any) -> torch.Tensor:
        assert not meter.active
        prior.now += 1000
        meter.most = 7 * GB
        made.append(prior.now)
        return estimate(*given)

    monkeypatch.setattr(MarigoldIntrinsics, "_estimate", costly)
    outcomes = []
    options = {"albedo": "marigold-intrinsics", "albedo_checkpoint": str(save_intrinsics(tmp_path))}
    for renderer in (BlinnPhong(albedo="grey"), BlinnPhong(**options)):
        refiner = make_refiner(prior, vram="8GB", budget="60s", members=6, steps=20)
        refiner.renderer = renderer
        outcomes.append(run_within_limits(refiner, photo(), clock=prior.clock, meter=meter, seed=5))
    plain, estimated = outcomes
    assert len(made) == 1
    assert plain.fit is not None
    assert estimated.fit is not None
    assert estimated.fit.record() == plain.fit.record()
    assert estimated.seconds == plain.seconds


def test_a_trial_releases_its_memory_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Captured graphs of one batch size would count in the peak of the next one."""
    meter = Meter(8 * GB)
    released: list[int] = []
    prior = Hungry(meter)
    monkeypatch.setattr(Refiner, "release_memory", lambda _: released.append(len(prior.calls)))
    run_within_limits(
        make_refiner(prior, vram="8GB", members=5, steps=2), photo(), clock=prior.clock, meter=meter, seed=5
    )
    assert len(released) == 2


def test_memory_and_time_can_both_be_limited() -> None:
    meter = Meter(8 * GB)
    prior = Hungry(meter)
    refiner = make_refiner(prior, vram="8GB", budget="60s", members=6, steps=20)
    began = prior.now
    outcome = run_within_limits(refiner, photo(), clock=prior.clock, meter=meter)
    assert outcome.fit is not None
    assert outcome.fit.members_per_batch <= 4
    assert 0.85 * 60 < prior.now - began < 1.15 * 60


def test_memory_that_cannot_be_limited_is_an_error_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match=r"optim.vram=8GB limits the memory of a CUDA GPU, .* on cpu"):
        run_within_limits(make_refiner(Costly(), vram="8GB"), photo())


# --- notation of limits ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "expected"),
    [("60s", "60s"), ("2m", "2m"), ("90", "90"), ("1.5h", "1.5h"), ('"20 min"', "20 min"), ("null", None)],
)
def test_a_time_limit_keeps_its_notation(written: str, expected: str | None) -> None:
    assert load_preset("smoke", [f"optim.budget={written}"]).optim.budget == expected


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("optim.budget=soon", r"optim.budget: must be a number of seconds, .* got 'soon'"),
        ("optim.budget=0", r"optim.budget: must be a number of seconds, .* got 0"),
        ("optim.budget=-5s", r"optim.budget: must be"),
        ("optim.budget=8GB", r"optim.budget: must be"),
        ("optim.vram=8", r"optim.vram: must be a number with MB, GB, MiB or GiB, such as 8GB, got 8"),
        ("optim.vram=60s", r"optim.vram: must be"),
    ],
)
def test_a_limit_in_another_unit_is_an_error(override: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load_preset("smoke", [override])


def test_the_plan_of_a_clip_needs_no_trials_and_is_within_the_limits() -> None:
    start = WarmStart(None, Plan(2, 50, 2))
    prior = Costly()
    refiner = make_refiner(prior, budget="10s", members=2, steps=50)
    began = prior.now
    outcome = run_within_limits(refiner, photo(), clock=prior.clock, start=start)
    assert outcome.fit is not None
    assert outcome.fit.trials == ()
    assert outcome.fit.cut
    assert prior.now - began < 13
    meter = Meter(6 * GB)
    hungry = Hungry(meter)
    limited = make_refiner(hungry, vram="6GB", members=2, steps=2)
    # The prior asserts that the meter is active.
    assert run_within_limits(limited, photo(), clock=hungry.clock, meter=meter, start=start).steps_done
