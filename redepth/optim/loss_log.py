"""The loss log: losses of a group's steps, kept on the device and read every few steps.

A GPU works asynchronously, and each number that the host reads waits for all of its work. So the losses, the
check that they are finite and the rule of early stopping stay on the device, and are read together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from redepth.config import EarlyStop

Losses = Mapping[str, Tensor]


class Result(NamedTuple):
    """The result of one member: steps taken, raw output, relative depth, scale offset."""

    steps: int
    raw: Tensor
    depth: Tensor
    offset: Tensor


class NotFinite(Exception):
    """A loss or a gradient was not finite; this step and later ones have not changed the parameters.

    Args:
        step: the first step that was not finite, 0-based.
        row: the member of the group whose loss was not finite; None if only the gradient was not.
        loss: the name of the loss that was not finite: ``total`` if its parts were, or if there is none.
    """

    def __init__(self, step: int, row: int | None, loss: str = "total") -> None:
        super().__init__(step, row, loss)
        self.step, self.row, self.loss = step, row, loss


class LossLog:
    """Losses, finiteness and plateaus of one group of members.

    From the first step that is not finite, `failed` is 1 on the device: the optimizer skips its steps, no
    member stops, and `read` raises `NotFinite`. A member stops at exactly the step at which the rule holds,
    and its result is that of this step, however late the losses are read.

    Args:
        members: rows of the group.
        rule: of early stopping.
        device: of the losses.
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
        """Number of steps that were read, all of them finite."""
        return len(self._rows)

    def check(self, total: Tensor, gradients: Iterable[Tensor]) -> None:
        """Set `failed`, on the device, unless all losses and gradients of a step are finite."""
        norms = torch.stack(torch._foreach_norm(list(gradients)))
        finite = torch.isfinite(torch.cat([total.detach(), norms])).all()
        torch.maximum(self.failed, 1 - finite.to(self.failed.dtype), out=self.failed)

    def add(self, losses: Losses) -> None:
        """Add the losses of the step that was taken, (members,) each."""
        self._names = list(losses)
        self._find_plateaus(losses["total"].detach())
        flags = torch.stack([self.failed, (self._ends > 0).all().to(self.failed.dtype)])
        self._waiting.append(torch.cat([*(values.detach() for values in losses.values()), flags]))

    def _find_plateaus(self, total: Tensor) -> None:
        rule = self._rule
        if not rule.enabled:
            return
        finite = self.failed == 0
        self._recent = torch.where(finite, torch.cat([self._recent[1:], total[None]]), self._recent)
        # Until both windows are full, the first mean is NaN, and the comparison is false.
        before, after = self._recent[: rule.window].mean(dim=0), self._recent[rule.window :].mean(dim=0)
        plateau = after >= (1 - rule.min_improvement) * before
        self._new = plateau & (self._ends == 0) & finite
        self._ends = torch.where(self._new, self.steps + len(self._waiting) + 1, self._ends)

    def keep(self, raw: Tensor, depth: Tensor, offset: Tensor) -> None:
        """Keep the results of the members that stopped at the last step: the next step starts from them.

        Args:
            raw: (members,1,H,W) raw outputs at the start of a step.
            depth: their relative depth.
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
        """Wait for the device and read the losses of all steps since the last read.

        Raises:
            NotFinite: if one of them was not finite; it and later ones are dropped.
        """
        if not self._waiting:
            return
        table = torch.stack(self._waiting).cpu()
        self._waiting = []
        failed = table[:, -2].bool()
        finite = int((~failed).sum())
        losses = table[:, :-2].view(len(table), len(self._names), self._members)
        self._rows += losses[:finite].unbind()
        self.all_stopped = bool(table[-1, -1])
        if finite < len(table):
            raise self._failure(losses[finite])

    def _failure(self, losses: Tensor) -> NotFinite:
        """Return the error of a step with losses (names, members)."""
        wrong = ~torch.isfinite(losses)
        rows = wrong[self._names.index("total")].nonzero()
        if not len(rows):
            return NotFinite(self.steps, None)
        row = int(rows[0])
        # Each part comes before the total.
        return NotFinite(self.steps, row, self._names[int(wrong[:, row].nonzero()[0])])

    def reset_failure(self) -> None:
        """Continue after a step that was not finite, from the state before it."""
        self.failed.zero_()

    def losses(self, step: int) -> dict[str, Tensor]:
        """Return the losses of a 0-based step, on the CPU; reads the device if needed. Raises NotFinite."""
        if step >= self.steps:
            self.read()
        return dict(zip(self._names, self._rows[step], strict=True))

    def history(self, ends: Sequence[int]) -> dict[str, list[list[float]]]:
        """Return name -> one list of losses per member, each cut at the member's number of steps."""
        table = torch.stack(self._rows)
        return {
            name: [table[:end, k, i].tolist() for i, end in enumerate(ends)]
            for k, name in enumerate(self._names)
        }

    def results(self, raw: Tensor, depth: Tensor, offset: Tensor) -> list[Result]:
        """Return each member's result, on the CPU: of the step it stopped at, or the present state.

        Args:
            raw: (members,1,H,W) present raw outputs.
            depth: their relative depth.
            offset: (members,1,1,1) scale offsets, likewise.
        """
        self.keep(raw, depth, offset)
        now = [values.detach().cpu() for values in (raw, depth, offset)]
        kept = [values.cpu() for values in self._kept]
        results = []
        for row, end in enumerate(self._ends.tolist()):
            steps, source = (end, kept) if end else (self.steps, now)
            results.append(Result(steps, *(values[row].clone() for values in source)))
        return results
