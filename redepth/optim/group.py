"""A group: the members of an ensemble that advance together, and one step of them on the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from redepth.config import EarlyStop
from redepth.contracts import LearnsByMember, StepDraws, Surface
from redepth.optim import component_checks as checks
from redepth.optim.loss_log import LossLog, Result
from redepth.optim.parameterizations import Parameterization
from redepth.optim.plan import Plan
from redepth.optim.problem import Problem, Solver
from redepth.optim.step_graph import Taken
from redepth.optim.warm import Learned, WarmStart

STREAMS = 4
"""CUDA streams for members' decoders, where these run in several streams."""

FUSED_DEVICES = ("cpu", "cuda")
"""Devices whose fused AdamW can skip a step by a flag that is on the device."""


@dataclass(frozen=True)
class FinishedGroup:
    """The results of a group, on the CPU: one per member, and name -> one list of losses per member.

    ``learned`` stays on the device; it is empty in a run that has no warm start.
    """

    results: list[Result]
    history: dict[str, list[list[float]]]
    learned: Learned


class Group:
    """Members that advance in lockstep.

    No object that a group holds refers back to it, so its memory is freed with its last reference.

    Args:
        solver: has the components and computes the losses.
        problem: of the photo.
        plan: says whether members may stop early.
        members: their indices in the ensemble.
        start: the warm start of the run; None without one.
    """

    def __init__(
        self,
        solver: Solver,
        problem: Problem,
        plan: Plan,
        members: range,
        start: WarmStart | None = None,
    ) -> None:
        self.members = members
        self._solver, self._problem, self._start = solver, problem, start
        if isinstance(solver.prior, LearnsByMember):
            solver.prior.begin(members)
        self.state = Parameterization(
            solver.optim.parameterization,
            solver.depth_model,
            problem.image,
            problem.features,
            problem.initial,
            len(members),
            problem.unit,
            streams=STREAMS if solver.execution["decoders"] == "streams" else 1,
            adjustment=None if problem.previous is None else problem.previous.adjustment,
        )
        learned = None if start is None else start.of(members)
        if learned is not None:
            self.state.adopt(learned)
        rule = solver.optim.early_stop if plan.early_stop else EarlyStop()
        self.loss_log = LossLog(len(members), rule, solver.device)
        self.optimizer = solver.make_optimizer(self.state)
        self._checked = False

    def set_rates(self, factor: float) -> None:
        """Set the learning rates to their base times a factor."""
        for params in self.optimizer.param_groups:
            rate = params["base"] * factor
            if isinstance(params["lr"], Tensor):
                params["lr"].fill_(rate)
            else:
                params["lr"] = rate

    def advance(self, draws: StepDraws) -> Taken:
        """Compute one step on the device: forward, backward and update, the same kernels each time."""
        problem = self._problem
        losses, surface, relit = self._solver.step(
            self.state, problem.image, problem.linear, problem.condition, draws, problem.guidance
        )
        if not self._checked:
            # The first step is no CUDA graph, which could not read values.
            self._check(losses, surface, relit)
        offset = self.state.offset.detach().clone()
        self.optimizer.zero_grad(set_to_none=True)
        losses["total"].sum().backward()
        self._update(losses["total"])
        detached = {name: values.detach() for name, values in losses.items()}
        return Taken(detached, surface.raw.detach(), surface.depth.detach(), offset, relit.detach())

    def _check(self, losses: Mapping[str, Tensor], surface: Surface, relit: Tensor) -> None:
        solver = self._solver
        titles = {name: checks.objective_title(name, term) for name, (_, term) in solver.objectives.items()}
        checks.check_values(checks.title("renderer", solver.renderer), relit, surface, losses, titles)
        self._checked = True

    def _update(self, total: Tensor) -> None:
        """Change the parameters, unless this or an earlier step was not finite."""
        parameters = [p for params in self.optimizer.param_groups for p in params["params"]]
        self.loss_log.check(total, [p.grad for p in parameters if p.grad is not None])
        if self._solver.device.type in FUSED_DEVICES:
            # A fused optimizer reads this flag on the device, as under torch.amp.GradScaler.
            setattr(self.optimizer, "found_inf", self.loss_log.failed)  # noqa: B010
            self.optimizer.step()
        elif not bool(self.loss_log.failed):
            self.optimizer.step()

    @torch.no_grad()
    def finish(self) -> FinishedGroup:
        """Return the results; the group's parameters are no longer needed."""
        raw, offset = self.state.raw(), self.state.offset
        results = self.loss_log.results(raw, self._solver.relative_depth(raw, offset), offset)
        history = self.loss_log.history([result.steps for result in results])
        return FinishedGroup(results, history, {} if self._start is None else self.state.learned())
