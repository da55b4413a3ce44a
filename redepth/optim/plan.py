"""A plan: how many members take how many steps in one run, and how many of them together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Trial:
    """The measured cost of a few steps of some members.

    Attributes:
        members: that advanced together.
        step_seconds: median time of a step.
        setup_seconds: time before the steps: encoder, prompt, and the extra time of the first steps.
        peak_bytes: peak of the memory in use; None if memory is not limited.
    """

    members: int
    step_seconds: float
    setup_seconds: float
    peak_bytes: int | None = None


@dataclass(frozen=True)
class Plan:
    """The size of one run, and the limits and trials from which `optim.planning` chose it.

    Attributes:
        members: of the ensemble.
        steps: of each member.
        members_per_batch: members that advance together at most; halved where memory runs out.
        early_stop: whether members may stop early, where the preset allows it.
        budget: the time limit, as the preset has it.
        vram: the memory limit, as the preset has it.
        trials: what was measured, from one member to most.
        cut: whether the time limit ended the run before all steps were taken.

    Raises:
        ValueError: if one of the numbers is below 1.
    """

    members: int
    steps: int
    members_per_batch: int
    early_stop: bool = True
    budget: str | None = None
    vram: str | None = None
    trials: tuple[Trial, ...] = ()
    cut: bool = False

    def __post_init__(self) -> None:
        if min(self.members, self.steps, self.members_per_batch) < 1:
            raise ValueError(f"a plan needs at least 1 member, step and member per batch, got {self}")

    def __str__(self) -> str:
        text = f"{self.members} members x {self.steps} steps, {self.members_per_batch} at a time"
        limits = [limit for limit in (self.budget, self.vram) if limit is not None]
        if limits:
            text = f"within {', '.join(limits)}: {text}"
        if self.trials:
            text += f" (a step of one took {self.trials[0].step_seconds:.3g} s)"
        return text

    def record(self) -> dict[str, Any]:
        """Return the plan as plain data, with the overrides that repeat the run."""
        size = {"members": self.members, "members_per_batch": self.members_per_batch, "steps": self.steps}
        overrides = [f"optim.{name}={value}" for name, value in size.items()]
        return {
            "budget": self.budget,
            "vram": self.vram,
            **size,
            "cut": self.cut,
            "trials": [vars(trial) for trial in self.trials],
            "repeat_with": [*overrides, "optim.budget=null", "optim.vram=null"],
        }
