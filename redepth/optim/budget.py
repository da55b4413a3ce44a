"""Fitting a refinement to a time and to a GPU's memory: a few steps are measured, the rest is arithmetic.

What is given up for time, in this order: members, down to one, then steps; never more of either than the
preset says. As many members run as fit with all their steps. Where that would leave more than a tenth of the
time unused, one member more runs, and all take fewer steps. The run ends when the time does, after the step
that it is at, and answers with what it has reached.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from redepth.config import EarlyStop, Optim
from redepth.config.units import memory, seconds
from redepth.errors import ConfigError, RedepthError
from redepth.optim.step_graph import EAGER_STEPS
from redepth.runtime.device import indexed, synchronize

if TYPE_CHECKING:
    from redepth.optim.refiner import Outcome, Refiner

log = logging.getLogger(__name__)

Clock = Callable[[], float]

COUNTED_STEPS = 3
"""Steps of a trial that count; those before them are the first, or all until a graph is captured."""

TRIAL_SHARE = 0.05
"""Share of the time after which a trial takes no further step."""

LONGEST_START = 0.2
"""Share of the time after which the first step of a trial stays its only one."""

PLANNED = 0.95
"""Share of the time left that is planned with: a pace is never known exactly."""

FULL = 0.9
"""Share of the planned time below which it counts as not used."""

FILLED = 0.95
"""Share of the memory that is planned with."""


@dataclass(frozen=True)
class Trial:
    """What a few steps of some members came to.

    Attributes:
        members: that advanced together.
        step_seconds: median time of a step.
        setup_seconds: what comes before the steps: encoder, prompt, and what only a first step takes.
        peak_bytes: most memory in use; None where there is no limit to it.
    """

    members: int
    step_seconds: float
    setup_seconds: float
    peak_bytes: int | None = None


@dataclass(frozen=True)
class Fit:
    """What was chosen for a time or a memory limit, and why.

    Attributes:
        budget: the time as it was given.
        vram: the memory as it was given.
        members: that run.
        members_per_batch: of them together.
        steps: of each.
        trials: what was measured.
        cut: whether the time ended before the chosen steps did.
    """

    budget: str | None
    vram: str | None
    members: int
    members_per_batch: int
    steps: int
    trials: tuple[Trial, ...]
    cut: bool = False

    def __str__(self) -> str:
        asked = ", ".join(limit for limit in (self.budget, self.vram) if limit is not None)
        chosen = f"{self.members} members x {self.steps} steps, {self.members_per_batch} at a time"
        return f"within {asked}: {chosen} (a step of one took {self.trials[0].step_seconds:.3g} s)"

    def record(self) -> dict[str, Any]:
        """Return it as plain data, with the overrides that repeat the run."""
        chosen = {name: getattr(self, name) for name in ("members", "members_per_batch", "steps")}
        overrides = [f"optim.{name}={value}" for name, value in chosen.items()]
        return {
            "budget": self.budget,
            "vram": self.vram,
            **chosen,
            "cut": self.cut,
            "trials": [vars(trial) for trial in self.trials],
            "repeat_with": [*overrides, "optim.budget=null", "optim.vram=null"],
        }


class Meter(Protocol):
    """Measures and limits the memory of a device."""

    def limited(self) -> AbstractContextManager[None]:
        """Let nobody take more than the limit; whoever tries is out of memory."""
        ...

    def reset(self) -> None:
        """Forget the peak."""
        ...

    def peak(self) -> int:
        """Return the most bytes in use since then."""
        ...


@dataclass(frozen=True)
class CudaMeter:
    """What torch holds on a CUDA device; the context, some hundred MB, comes on top.

    Args:
        device: the GPU.
        limit: in bytes.
    """

    device: torch.device
    limit: int

    @contextmanager
    def limited(self) -> Iterator[None]:
        """Limit torch's allocator, and lift the limit afterwards."""
        # torch asks for an index here, and nowhere else.
        device = indexed(self.device)
        whole = torch.cuda.get_device_properties(device).total_memory
        with torch.cuda.device(device):
            torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(min(1.0, self.limit / whole), device)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, device)

    def reset(self) -> None:
        """Forget the peak."""
        torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> int:
        """Return the most bytes that torch held since then: that is what the limit is on."""
        return torch.cuda.max_memory_reserved(self.device)


def check_possible(optim: Optim, device: torch.device) -> None:
    """Raise ConfigError if a limit of memory is set and this device's cannot be limited."""
    if optim.vram is not None and device.type != "cuda":
        raise ConfigError(
            f"optim.vram={optim.vram} limits the memory of a CUDA GPU, and this run computes on "
            f"{device.type}: take it out, or set optim.members_per_batch"
        )


def run_fitted(
    refiner: Refiner,
    photo: Tensor,
    *,
    clock: Clock = time.perf_counter,
    meter: Meter | None = None,
    **given: Any,
) -> Outcome:
    """Refine one photo within the time and the memory that the refiner's settings state.

    Args:
        refiner: its ``optim`` has a ``budget``, a ``vram`` or both.
        photo: as for `Refiner.run`.
        clock: seconds, as of now.
        meter: of the memory; that of the refiner's GPU without it.
        **given: the other arguments of `Refiner.run`.

    Raises:
        ConfigError: if the memory of the refiner's device cannot be limited.
    """
    optim = refiner.optim
    if optim.vram is not None and meter is None:
        check_possible(optim, refiner.device)
        meter = CudaMeter(refiner.device, memory(optim.vram))
    began = clock()
    with nullcontext() if meter is None else meter.limited():
        fitting = _Fitting(refiner, photo, clock, began, meter, given)
        fit = fitting.choose()
        log.info("%s", fit)
        return fitting.run(fit)


@dataclass
class _Fitting:
    """One photo's trials, and the run that follows from them."""

    refiner: Refiner
    photo: Tensor
    clock: Clock
    began: float
    meter: Meter | None
    given: dict[str, Any]
    trials: list[Trial] = field(default_factory=list)

    @property
    def time(self) -> float:
        budget = self.refiner.optim.budget
        return float("inf") if budget is None else seconds(budget)

    @property
    def early(self) -> int:
        """Steps at the beginning that are not like the others."""
        graphs = self.refiner.execution["cuda_graphs"] == "step" and self.refiner.device.type == "cuda"
        return EAGER_STEPS + 1 if graphs else 1

    def choose(self) -> Fit:
        """Measure and decide."""
        optim, limit = self.refiner.optim, self.refiner.optim.vram
        batch = min(self.refiner.batch, optim.members)
        self._try(1)
        if limit is not None and batch > 1:
            self._try(2)
            batch = min(batch, self.refiner.batch, batch_within(memory(limit), self.trials))
        if optim.budget is not None:
            batch = self._time_together(batch)
        left = PLANNED * (self.began + self.time - self.clock() - self.trials[-1].setup_seconds)
        members, steps = affordable(optim.members, optim.steps, batch, self.trials, left)
        return Fit(optim.budget, limit, members, min(batch, members), steps, tuple(self.trials))

    def _time_together(self, batch: int) -> int:
        """Time as many members together as take a trial's share of the time; return the better batch."""
        alone = self.trials[0].step_seconds
        together = min(batch, int(TRIAL_SHARE * self.time / alone))
        if together > self.trials[-1].members:
            self._try(together)
            batch = min(batch, self.refiner.batch)
        slower = self.trials[-1].step_seconds / self.trials[-1].members > alone
        return 1 if slower else batch

    def _try(self, members: int) -> None:
        """Time a few steps of some members, of fewer where these do not fit into the memory."""
        trial, ticks = self._few_steps(members)
        while trial.batch < members:
            members = self.refiner.batch = trial.batch
            trial, ticks = self._few_steps(members)
        # What this size held in memory is no part of the next one's peak.
        self.refiner.release_memory()
        took = [after - before for before, after in pairwise(ticks)]
        first = took[: self.early]
        # Where a trial was cut short, what there is has to do.
        pace = median(took[self.early :] or took[1:] or took)
        peak = None if self.meter is None else self.meter.peak()
        self.trials.append(Trial(members, pace, max(0.0, sum(first) - len(first) * pace), peak))

    def _few_steps(self, members: int) -> tuple[Refiner, list[float]]:
        """Take them; return the refiner that did, and when it began and ended each."""
        trial = self._with(
            members, self.early + COUNTED_STEPS, early_stop=EarlyStop(), members_per_batch="auto"
        )
        ticks = [self.clock()]

        def watch() -> str:
            synchronize(trial.device)
            ticks.append(self.clock())
            start, first, now = ticks[0], ticks[1], ticks[-1]
            late = first - start >= LONGEST_START * self.time or now - first >= TRIAL_SHARE * self.time
            return "timed" if late else ""

        trial.watch = watch
        if self.meter is not None:
            self.meter.reset()
        given = {name: value for name, value in self.given.items() if name not in ("on_step", "draws")}
        if trial.run(self.photo, **given).reason == "interrupted":
            raise KeyboardInterrupt
        return trial, ticks

    def _with(self, members: int, steps: int, **changes: Any) -> Refiner:
        """Return the refiner with other numbers and no limits; the components are the same ones."""
        changes |= {"members": members, "steps": steps, "budget": None, "vram": None}
        other = copy.copy(self.refiner)
        other.optim = self.refiner.optim.model_copy(update=changes)
        other.batch = members
        return other

    def run(self, fit: Fit) -> Outcome:
        """Run what was chosen, until the time ends."""
        fitted = self._with(fit.members, fit.steps)
        fitted.batch = fit.members_per_batch
        ended = False

        def watch() -> str:
            nonlocal ended
            ended = self.clock() - self.began >= self.time
            return f"the time of {fit.budget} has ended" if ended else ""

        fitted.watch = watch
        outcome = fitted.run(self.photo, **self.given)
        if fitted.batch < fit.members_per_batch:
            self.refiner.batch = fitted.batch
        whole = len(outcome.members) == fit.members and (not ended or min(outcome.steps_done) == fit.steps)
        return replace(
            outcome,
            fit=replace(fit, cut=ended and not whole),
            partial=outcome.partial and not ended,
            reason="" if ended and whole else outcome.reason,
            seconds=self.clock() - self.began,
        )


def affordable(members: int, steps: int, batch: int, trials: list[Trial], left: float) -> tuple[int, int]:
    """Return how many members can take how many steps in the time left; see the module for the order.

    Args:
        members: of the preset, as ``steps``.
        steps: of each.
        batch: members that advance together.
        trials: from one member to most.
        left: in seconds.
    """

    def a_step(count: int) -> float:
        whole, rest = divmod(count, batch)
        return whole * step_seconds(batch, trials) + (step_seconds(rest, trials) if rest else 0.0)

    fitting = max((n for n in range(1, members + 1) if steps * a_step(n) <= left), default=0)
    if fitting == members or (fitting and steps * a_step(fitting) >= FULL * left):
        return fitting, steps
    return fitting + 1, min(steps, max(1, int(left / a_step(fitting + 1))))


def step_seconds(members: int, trials: list[Trial]) -> float:
    """Return the time of a step of some members together, on the line through the first and last trial."""
    one, most = trials[0], trials[-1]
    if most.members == one.members:
        return members * one.step_seconds
    slope = max(0.0, most.step_seconds - one.step_seconds) / (most.members - one.members)
    return one.step_seconds + slope * (members - one.members)


def batch_within(limit: int, trials: list[Trial]) -> int:
    """Return how many members together fit into a memory, on the line through the peaks of two trials.

    Raises:
        RedepthError: if one alone does not.
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
