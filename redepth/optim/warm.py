"""The warm start of a run: what the members learned on the last frame of a clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redepth.optim.plan import Plan

Learned = Mapping[str, Tensor]
"""Name of a parameter -> (members, ...), on the device of the run."""


@dataclass(frozen=True, eq=False)
class WarmStart:
    """How the run of a frame begins. A run that is given one keeps what it learns (`Outcome.learned`).

    Attributes:
        learned: what the members of the last run learned; None: nothing, they begin as on a photo.
        plan: members and steps; None: those of the settings.
        rates: factor of the learning rates.
    """

    learned: Learned | None = None
    plan: Plan | None = None
    rates: float = 1.0

    def of(self, members: range) -> Learned | None:
        """Return what some members learned; None if the last run had fewer."""
        if self.learned is None or any(len(rows) < members.stop for rows in self.learned.values()):
            return None
        return {name: rows[members.start : members.stop] for name, rows in self.learned.items()}


def joined(groups: Sequence[Learned]) -> Learned:
    """Return what groups of members learned as one record, in their order."""
    return {name: torch.cat([group[name] for group in groups]) for name in groups[0]}
