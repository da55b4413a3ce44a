"""Planning a run within a time limit and a GPU's memory: measure a few steps, then calculate.

To keep the time limit, the plan first takes fewer members, down to one, then fewer steps; it never exceeds
the preset. As many members run as can take all their steps. If that would leave more than a tenth of the
time unused, one member more runs, and all members take fewer steps. The run ends with the time limit, after
the step in progress, and returns what it has reached.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from statistics import median

from torch import Tensor

from redepth.config.units import memory
from redepth.contracts import StepDraws
from redepth.errors import RedepthError
from redepth.guidance import NOTHING, Given
from redepth.optim.execution import captures_steps
from redepth.optim.limits import Clock, CudaMeter, Deadline, Meter, check_memory_limit
from redepth.optim.outcome import OnStep, Outcome
from redepth.optim.plan import Plan, Trial
from redepth.optim.refiner import Refiner
from redepth.optim.step_graph import EAGER_STEPS
from redepth.optim.warm import WarmStart
from redepth.runtime.device import synchronize

log = logging.getLogger(__name__)

COUNTED_STEPS = 3
"""Steps of a trial that count. Those before are the first step, or all steps until a graph is captured."""

TRIAL_SHARE = 0.05
"""Share of the time limit after which a trial takes no further step."""

LONGEST_START = 0.2
"""Share of the time limit: a trial whose first step takes longer ends with it."""

PLANNED = 0.95
"""Share of the remaining time that is planned: the measured step time is not exact."""

FULL = 0.9
"""Share of the planned time below which the time counts as unused."""

FILLED = 0.95
"""Share of the memory limit that is planned."""


def run_within_limits(
    refiner: Refiner,
    photo: Tensor,
    *,
    prompt: str = "",
    seed: int = 0,
    on_step: OnStep | None = None,
    draws: Sequence[StepDraws] | None = None,
    given: Given = NOTHING,
    start: WarmStart | None = None,
    clock: Clock = time.perf_counter,
    meter: Meter | None = None,
) -> Outcome:
    """Refine one photo within the time and memory limits of the refiner's settings, if there are any.

    Args:
        refiner: its ``optim`` may have a ``budget``, a ``vram`` or both.
        photo: as for `Refiner.run`, like the next five.
        prompt: condition of the prior.
        seed: of the members' random streams.
        on_step: called after each step of the run, not of the trials.
        draws: recorded draws to replay.
        given: the camera and the data of the photo.
        start: the warm start; its plan, if it has one, needs no trials. The limits hold for it, too.
        clock: reads the time.
        meter: of the memory; by default that of the refiner's GPU.

    Raises:
        ConfigError: if memory is limited and the refiner's device is not a CUDA GPU.
        RedepthError: as `Refiner.run`.
    """
    optim = refiner.optim
    made = None if start is None else start.plan
    if optim.budget is None and optim.vram is None:
        return refiner.run(
            photo,
            prompt=prompt,
            seed=seed,
            on_step=on_step,
            draws=draws,
            given=given,
            plan=made,
            start=start,
        )
    if optim.vram is not None and meter is None:
        check_memory_limit(optim, refiner.device)
        meter = CudaMeter(refiner.device, memory(optim.vram))
    # An estimate is made once for all trials and the run: its memory and its time are not those of a step.
    refiner.find_albedo(photo, given, seed)
    deadline = Deadline.start(optim.budget, clock)
    with nullcontext() if meter is None else meter.limited():
        plan = made
        if plan is None:
            plan = choose_plan(refiner, photo, deadline, meter, prompt=prompt, seed=seed, given=given)
            log.info("%s", plan)
        outcome = refiner.run(
            photo,
            prompt=prompt,
            seed=seed,
            on_step=on_step,
            draws=draws,
            given=given,
            plan=plan,
            start=start,
            watch=deadline,
        )
        return replace(outcome, seconds=deadline.elapsed())


def choose_plan(
    refiner: Refiner,
    photo: Tensor,
    deadline: Deadline,
    meter: Meter | None = None,
    *,
    prompt: str = "",
    seed: int = 0,
    given: Given = NOTHING,
) -> Plan:
    """Time a few steps of the refiner on the photo, and choose a plan within the limits of its settings.

    Args:
        refiner: its ``optim`` has the limits, and the members and steps that are not exceeded.
        photo: as for `Refiner.run`, like ``prompt``, ``seed`` and ``given``.
        deadline: of trials and run together.
        meter: of the memory, whose limit is already set; needed if memory is limited.
        prompt: condition of the prior.
        seed: of the members' random streams.
        given: the camera and the data of the photo.

    Raises:
        RedepthError: if one member alone does not fit into the memory.
    """
    optim = refiner.optim
    trials = _Trials(refiner, photo, deadline, meter, prompt, seed, given)
    batch = min(refiner.members_per_batch, optim.members)
    trials.run(1)
    if optim.vram is not None and batch > 1:
        trials.run(2)
        batch = min(batch, refiner.members_per_batch, batch_within(memory(optim.vram), trials.done))
    if optim.budget is not None:
        batch = _faster_batch(trials, batch)
    left = PLANNED * (deadline.left() - trials.done[-1].setup_seconds)
    members, steps = affordable(optim.members, optim.steps, batch, trials.done, left)
    return Plan(
        members,
        steps,
        min(batch, members),
        budget=optim.budget,
        vram=optim.vram,
        trials=tuple(trials.done),
    )


class _Trials:
    """Timed runs of a few steps on one photo.

    Args:
        refiner: runs the trials.
        photo: the refiner's input, like ``prompt``, ``seed`` and ``given``.
        deadline: its time bounds each trial.
        meter: of the memory, if that is limited.
        prompt: condition of the prior.
        seed: of the members' random streams.
        given: the camera and the data of the photo.
    """

    def __init__(
        self,
        refiner: Refiner,
        photo: Tensor,
        deadline: Deadline,
        meter: Meter | None,
        prompt: str,
        seed: int,
        given: Given,
    ) -> None:
        self.refiner = refiner
        self.deadline = deadline
        self.done: list[Trial] = []
        """The results, in the order of the trials."""
        self._photo, self._prompt, self._seed, self._given = photo, prompt, seed, given
        self._meter = meter
        graphs = captures_steps(refiner.execution, refiner.device)
        self._early = EAGER_STEPS + 1 if graphs else 1
        """Steps at the beginning that take longer than the others."""

    def run(self, members: int) -> None:
        """Time a few steps of some members together; of fewer members if these do not fit into memory."""
        fitting, ticks = self._few_steps(members)
        while fitting < members:
            members = fitting
            fitting, ticks = self._few_steps(members)
        # Memory held for this batch size must not count in the peak of the next trial.
        self.refiner.release_memory()
        durations = [after - before for before, after in pairwise(ticks)]
        first = durations[: self._early]
        # A trial that was cut short has early steps only, or one step.
        pace = median(durations[self._early :] or durations[1:] or durations)
        setup = max(0.0, sum(first) - len(first) * pace)
        peak = None if self._meter is None else self._meter.peak()
        self.done.append(Trial(members, pace, setup, peak))

    def _few_steps(self, members: int) -> tuple[int, list[float]]:
        """Take a few steps; return how many members fit together, the time of the start and of each step."""
        deadline = self.deadline
        ticks = [deadline.clock()]

        def watch() -> str:
            synchronize(self.refiner.device)
            ticks.append(deadline.clock())
            start, first, now = ticks[0], ticks[1], ticks[-1]
            slow_start = first - start >= LONGEST_START * deadline.seconds
            return "timed" if slow_start or now - first >= TRIAL_SHARE * deadline.seconds else ""

        if self._meter is not None:
            self._meter.reset()
        outcome = self.refiner.run(
            self._photo,
            prompt=self._prompt,
            seed=self._seed,
            given=self._given,
            plan=Plan(members, self._early + COUNTED_STEPS, members, early_stop=False),
            watch=watch,
        )
        if outcome.reason == "interrupted":
            raise KeyboardInterrupt
        return outcome.members_per_batch, ticks


def _faster_batch(trials: _Trials, batch: int) -> int:
    """Time as many members together as the trial's share of the time allows; return the faster batch."""
    alone = trials.done[0].step_seconds
    together = min(batch, int(TRIAL_SHARE * trials.deadline.seconds / alone))
    if together > trials.done[-1].members:
        trials.run(together)
        batch = min(batch, trials.refiner.members_per_batch)
    most = trials.done[-1]
    return 1 if most.step_seconds / most.members > alone else batch


def affordable(members: int, steps: int, batch: int, trials: Sequence[Trial], left: float) -> tuple[int, int]:
    """Return how many members can take how many steps in the time left, in the order of the module's text.

    Args:
        members: of the preset, like ``steps``.
        steps: of each member.
        batch: members that advance together.
        trials: from one member to most.
        left: in seconds.
    """

    def one_step(count: int) -> float:
        whole, rest = divmod(count, batch)
        remainder = step_seconds(rest, trials) if rest else 0.0
        return whole * step_seconds(batch, trials) + remainder

    fitting = max((n for n in range(1, members + 1) if steps * one_step(n) <= left), default=0)
    if fitting == members or (fitting and steps * one_step(fitting) >= FULL * left):
        return fitting, steps
    return fitting + 1, min(steps, max(1, int(left / one_step(fitting + 1))))


def step_seconds(members: int, trials: Sequence[Trial]) -> float:
    """Return the time of a step of some members together, on the line through the first and last trial."""
    one, most = trials[0], trials[-1]
    if most.members == one.members:
        return members * one.step_seconds
    slope = max(0.0, most.step_seconds - one.step_seconds) / (most.members - one.members)
    return one.step_seconds + slope * (members - one.members)


def batch_within(limit: int, trials: Sequence[Trial]) -> int:
    """Return how many members together fit into a memory, on the line through the peaks of two trials.

    Args:
        limit: in bytes.
        trials: of one member and of more, with their peaks.

    Raises:
        RedepthError: if one member alone does not fit.
    """
    one, most = trials[0], trials[-1]
    assert one.peak_bytes is not None
    assert most.peak_bytes is not None
    if one.peak_bytes > limit:
        raise RedepthError(
            f"one member alone takes {one.peak_bytes / 1e9:.1f} GB, and {limit / 1e9:.3g} GB are allowed: "
            "lower depth_model.longer_side or renderer.lights, or allow more"
        )
    if most.members == one.members:
        return 1
    each = max(1, (most.peak_bytes - one.peak_bytes) // (most.members - one.members))
    return max(1, 1 + int(FILLED * limit - one.peak_bytes) // each)
