"""What the steps of a group of members came to, kept on the device until somebody looks.

A GPU works through its steps behind the program that asks for them; each number that the program looks at
makes it wait for all of them. So losses, the check that they are finite and the rule of early stopping stay
on the device, and are read together every few steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from redepth.config import EarlyStop

Losses = Mapping[str, Tensor]


class Answer(NamedTuple):
    """What one member has reached: steps taken, raw output, relative depth, scale offset."""

    steps: int
    raw: Tensor
    depth: Tensor
    offset: Tensor


class NotFinite(Exception):
    """A loss or a gradient was not finite: the steps from there on have changed nothing.

    Args:
        step: the first of them, 0-based.
        row: the member of the group whose loss it was; None if only the gradient was not finite.
    """

    def __init__(self, step: int, row: int | None) -> None:
        super().__init__(step, row)
        self.step, self.row = step, row


class LossLog:
    """Losses, finiteness and plateaus of one group of members.

    From the first step on that was not finite, nothing counts: `failed` is 1 on the device, which makes the
    optimizer skip its step, and no member stops. `read` raises it. A member stops at exactly the step that
    the rule says, and its answer is that step's, however late it is read.

    Args:
        members: rows of the group.
        rule: when a member stops early.
        device: where the losses are.
    """

    def __init__(self, members: int, rule: EarlyStop, device: torch.device) -> None:
        self.failed = torch.zeros((), dtype=torch.float32, device=device)
        self._rule = rule
        self._waiting: list[Tensor] = []
        self._names: list[str] = []
        self._rows: list[Tensor] = []
        self._members = members
        self._recent = torch.full((2 * rule.window, members), torch.nan, device=device)
        self._ends = torch.zeros(members, dtype=torch.int64, device=device)
        self._new = torch.zeros(members, dtype=torch.bool, device=device)
        self._kept: list[Tensor] = []
        self.all_stopped = False
        """Whether every member was on a plateau when the losses were last read."""

    @property
    def steps(self) -> int:
        """How many steps were read, all of them finite."""
        return len(self._rows)

    def check(self, total: Tensor, gradients: Iterable[Tensor]) -> None:
        """Fail, on the device, unless a step's losses and gradients are all finite."""
        norms = torch.stack(torch._foreach_norm(list(gradients)))
        finite = torch.isfinite(torch.cat([total.detach(), norms])).all()
        torch.maximum(self.failed, 1 - finite.to(self.failed.dtype), out=self.failed)

    def add(self, losses: Losses) -> None:
        """Note the losses of the step that was taken, (members,) each."""
        self._names = list(losses)
        self._find_plateaus(losses["total"].detach())
        flags = torch.stack([self.failed, (self._ends > 0).all().to(self.failed.dtype)])
        self._waiting.append(torch.cat([*(values.detach() for values in losses.values()), flags]))

    def _find_plateaus(self, total: Tensor) -> None:
        rule = self._rule
        if not rule.enabled:
            return
        counts = self.failed == 0
        self._recent = torch.where(counts, torch.cat([self._recent[1:], total[None]]), self._recent)
        # Until both windows are full there is a NaN in the first, which compares to nothing.
        before, after = self._recent[: rule.window].mean(dim=0), self._recent[rule.window :].mean(dim=0)
        plateau = after >= (1 - rule.min_improvement) * before
        self._new = plateau & (self._ends == 0) & counts
        self._ends = torch.where(self._new, self.steps + len(self._waiting) + 1, self._ends)

    def keep(self, raw: Tensor, depth: Tensor, offset: Tensor) -> None:
        """Take the answers of the members that stopped with the last step, which the next one starts from.

        Args:
            raw: (members,1,H,W) raw outputs that a step starts from.
            depth: the relative depth of them.
            offset: (members,1,1,1) scale offsets, likewise.
        """
        if not self._rule.enabled or self.steps + len(self._waiting) < 2 * self._rule.window:
            return
        now = [values.detach() for values in (raw, depth, offset)]
        if not self._kept:
            self._kept = [values.clone() for values in now]
        new = self._new.view(-1, 1, 1, 1)
        self._kept = [torch.where(new, value, old) for value, old in zip(now, self._kept, strict=True)]
        self._new = torch.zeros_like(self._new)

    def read(self) -> None:
        """Wait for the device and read the losses of all steps since the last time.

        Raises:
            NotFinite: if one of them was not finite; it and later ones are forgotten.
        """
        if not self._waiting:
            return
        table = torch.stack(self._waiting).cpu()
        self._waiting = []
        failed = table[:, -2].bool()
        good = int((~failed).sum())
        losses = table[:, :-2].view(len(table), len(self._names), self._members)
        self._rows += losses[:good].unbind()
        self.all_stopped = bool(table[-1, -1])
        if good < len(table):
            wrong = ~torch.isfinite(losses[good, self._names.index("total")])
            raise NotFinite(self.steps, int(wrong.nonzero()[0]) if bool(wrong.any()) else None)

    def forgive(self) -> None:
        """Go on after a step that was not finite, from the state before it."""
        self.failed.zero_()

    def losses(self, step: int) -> dict[str, Tensor]:
        """Return the losses of a 0-based step, on the CPU; reads those that wait. Raises NotFinite."""
        if step >= self.steps:
            self.read()
        return dict(zip(self._names, self._rows[step], strict=True))

    def history(self, ends: Sequence[int]) -> dict[str, list[list[float]]]:
        """Return name -> one list per member, cut after as many steps as are given for each."""
        table = torch.stack(self._rows)
        return {
            name: [table[:end, k, i].tolist() for i, end in enumerate(ends)]
            for k, name in enumerate(self._names)
        }

    def answers(self, raw: Tensor, depth: Tensor, offset: Tensor) -> list[Answer]:
        """Return each member's answer, on the CPU: the one it stopped with, or the present state."""
        self.keep(raw, depth, offset)
        stopped = self._ends.tolist()
        now = [values.detach().cpu() for values in (raw, depth, offset)]
        kept = [values.cpu() for values in self._kept]
        return [
            Answer(end or self.steps, *(values[i].clone() for values in (kept if end else now)))
            for i, end in enumerate(stopped)
        ]
