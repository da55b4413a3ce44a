"""The loop of one run: groups of members, one after the other, each through all steps of a plan."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from redepth.contracts import Prior, StepDraws, Upcasts
from redepth.errors import RedepthError
from redepth.guidance import Anchors
from redepth.optim.draws import draw_steps
from redepth.optim.group import FinishedGroup, Group
from redepth.optim.loss_log import NotFinite
from redepth.optim.outcome import LossesOnDemand, OnStep, Outcome, StepReport, Tie
from redepth.optim.plan import Plan
from redepth.optim.problem import Problem, Solver
from redepth.optim.step_graph import Eager, StepGraph, Taken
from redepth.optim.warm import WarmStart, joined
from redepth.runtime.device import is_out_of_memory

log = logging.getLogger(__name__)

_ADVICE = ": lower optim.learning_rates, set prior.dtype=float32, or check the weights of prior.checkpoint"

Watch = Callable[[], str]
"""Called after each step; a text that is not empty ends the run and is the reason for its end."""


class Interrupted(Exception):
    """Ends the loop from inside a step; finished steps are kept."""


class Loop:
    """One run of a refiner on one photo.

    Args:
        solver: the refiner.
        problem: of the photo.
        plan: how many members take how many steps.
        seed: of all members' random streams.
        on_step: called after each step of each group of members.
        replay: recorded draws to use instead of new ones.
        watch: ends the run where it returns a reason.
        start: the warm start; without one the members begin with the model's weights, and forget theirs.

    Raises:
        RedepthError: if the replay has fewer steps or members than the plan.
    """

    def __init__(
        self,
        solver: Solver,
        problem: Problem,
        plan: Plan,
        *,
        seed: int = 0,
        on_step: OnStep | None = None,
        replay: Sequence[StepDraws] | None = None,
        watch: Watch | None = None,
        start: WarmStart | None = None,
    ) -> None:
        self.members_per_batch = plan.members_per_batch
        """Members that advance together; halved when memory runs out."""
        self._solver, self._problem, self._plan = solver, problem, plan
        self._seed, self._on_step, self._watch = seed, on_step, watch
        self._replay, self._start = replay, start
        self._finished: list[FinishedGroup] = []
        self._reason = ""
        self._stopped_by_watch = False
        if replay is not None:
            _check_replay(replay, plan)

    # --- groups -----------------------------------------------------------------------------------

    def run(self) -> None:
        """Run every group, unless something ends the run before."""
        start = 0
        while start < self._plan.members and not self._reason:
            members = range(start, min(start + self.members_per_batch, self._plan.members))
            if self._run_group(members):
                start = members.stop
            else:
                # Here, outside of the except clause, the traceback no longer keeps the group's tensors alive.
                self._halve(len(members))

    def _run_group(self, members: range) -> bool:
        """Run some members and keep their results; return False if memory ran out."""
        group = None
        try:
            group = self.new_group(members)
            self._take_steps(group)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return False
        except (KeyboardInterrupt, Interrupted) as stop:
            self._reason = str(stop) or "interrupted"
            if group is not None:
                self._read_losses(group)
            if not self._finished and (group is None or not group.loss_log.steps):
                raise
        if group is not None and group.loss_log.steps:
            self.finish(group)
        return True

    def _read_losses(self, group: Group) -> None:
        """Read the losses of an interrupted group, to know which steps were finite."""
        try:
            group.loss_log.read()
        except NotFinite as failure:
            self._reason = self._complaint(group, failure)

    def _halve(self, members: int) -> None:
        if members == 1:
            raise RedepthError(
                f"not even one member fits into the memory of {self._solver.device}: lower "
                "depth_model.longer_side or renderer.lights, or set optim.performance.checkpointing=true"
            )
        self.members_per_batch = members // 2
        self._solver.release_memory()
        log.warning("out of memory: going on with %d members at a time", self.members_per_batch)

    def new_group(self, members: range) -> Group:
        """Return a group at its start."""
        return Group(self._solver, self._problem, self._plan, members, self._start)

    def draws(self, members: range) -> Iterator[StepDraws]:
        """Return the draws of each step of some members."""
        if self._replay is not None:
            return (d.rows(slice(members.start, members.stop)) for d in self._replay)
        solver = self._solver
        return draw_steps(solver.renderer, solver.prior, self._seed, members, self._plan.steps)

    def finish(self, group: Group) -> None:
        """Keep what a group has reached.

        Raises:
            RedepthError: if a member's result is not finite, which can happen after the last step alone: the
                losses of each step have been checked at its start.
        """
        finished = group.finish()
        for member, result in zip(group.members, finished.results, strict=True):
            where = f"of member {member} is not finite after step {result.steps}"
            _check_finite({f"the output {where}": result.raw, f"the relative depth {where}": result.depth})
        self._finished.append(finished)

    # --- the steps of one group -------------------------------------------------------------------

    def _take_steps(self, group: Group) -> None:
        stepper = self._solver.stepper(group.advance)
        try:
            with stepper.stream():
                self._optimise(group, stepper)
        finally:
            # A graph keeps all tensors of a step in memory.
            stepper.forget()
        if not stepper.possible:
            self._solver.execution["cuda_graphs"] = "off"

    def _optimise(self, group: Group, stepper: StepGraph | Eager) -> None:
        """Take all steps; if some were not finite and the prior can be upcast, take these again."""
        draws, unread = self.draws(group.members), dict[int, StepDraws]()
        every, steps = self._solver.optim.performance.read_losses_every, self._plan.steps
        step = 0
        while step < steps and not group.loss_log.all_stopped:
            if step not in unread:
                unread[step] = next(draws)
            try:
                self.step(group, step, unread[step], stepper)
                step += 1
                # The first step is read at once: if it is not finite, later steps are not either.
                if step in (1, steps) or step % every == 0:
                    group.loss_log.read()
            except NotFinite as failure:
                self._upcast_or_end(group, failure)
                stepper.forget()
                step = failure.step
            unread = {k: drawn for k, drawn in unread.items() if k >= group.loss_log.steps}
            self._ask_watch()

    def step(self, group: Group, step: int, draws: StepDraws, stepper: StepGraph | Eager) -> None:
        """Take one step. It does not wait for the device, unless `on_step` reads the losses.

        Args:
            group: of members.
            step: 0-based.
            draws: of the step, on the CPU.
            stepper: takes the steps of the group.
        """
        drawn = draws.to(self._solver.device)
        rates = 1.0 if self._start is None else self._start.rates
        group.set_rates(rates * self._solver.rate_factor(step, self._plan.steps))
        taken = stepper(drawn)
        group.loss_log.keep(taken.raw, taken.depth, taken.offset)
        group.loss_log.add(taken.losses)
        if self._on_step is not None:
            self._on_step(self._report(step, group, taken, drawn))

    def _report(self, step: int, group: Group, taken: Taken, drawn: StepDraws) -> StepReport:
        return StepReport(
            step=step + 1,
            steps=self._plan.steps,
            members=group.members,
            of_members=self._plan.members,
            losses=LossesOnDemand(partial(group.loss_log.losses, step)),
            raw=taken.raw * self._problem.unit,
            depth=taken.depth,
            relit=taken.relit,
            draws=drawn,
        )

    def _ask_watch(self) -> None:
        reason = "" if self._watch is None else self._watch()
        if reason:
            self._stopped_by_watch = True
            raise Interrupted(reason)

    def _upcast_or_end(self, group: Group, failure: NotFinite) -> None:
        """Upcast the prior, if it runs in half precision; else end the run with the finite steps."""
        prior = self._solver.prior
        before = prior.upcast() if isinstance(prior, Upcasts) else ""
        if before:
            complaint = self._complaint(group, failure, advice="")
            log.warning("%s: going on in float32 instead of %s", complaint, before)
            group.loss_log.reset_failure()
            return
        message = self._complaint(group, failure)
        if failure.step == 0 and not self._finished:
            raise RedepthError(message)
        log.warning(message)
        raise Interrupted(message)

    def _complaint(self, group: Group, failure: NotFinite, advice: str = _ADVICE) -> str:
        """Say what was not finite at which step: the gradient, or the loss of the prior or an objective."""
        if failure.row is None:
            return f"the gradient is not finite at step {failure.step + 1}{advice}"
        losses = {"total": "the loss", "prior": f"the prior's loss ({_title(self._solver.prior)})"}
        loss = losses.get(failure.loss, f"the loss of objective '{failure.loss}'")
        member = group.members[failure.row]
        return f"{loss} of member {member} is not finite at step {failure.step + 1}{advice}"

    # --- the result -------------------------------------------------------------------------------

    def outcome(self, seconds: float) -> Outcome:
        """Collect the results of all groups.

        Args:
            seconds: wall time of the optimisation.

        Raises:
            RedepthError: if the answer is not finite.
        """
        solver, problem, optim = self._solver, self._problem, self._solver.optim
        results = [result for group in self._finished for result in group.results]
        sky = problem.sky
        outcome = Outcome(
            predicts=solver.depth_model.predicts,
            initial=problem.prediction.cpu(),
            members=torch.stack([result.raw for result in results]) * problem.unit,
            initial_depth=solver.relative_depth(problem.initial.cpu(), 0.0),
            member_depths=torch.stack([result.depth for result in results]),
            offsets=torch.stack([result.offset for result in results]).flatten(),
            history=self._history(),
            steps_done=[result.steps for result in results],
            members_per_batch=self.members_per_batch,
            invariance=solver.depth_model.invariance,
            seconds=seconds,
            unit=problem.unit,
            blend=optim.blend,
            blend_tolerance=optim.blend_tolerance,
            blend_scale=optim.detail_scale(*problem.initial.shape[-2:]),
            sky=sky.mask.cpu(),
            sky_given=sky.given,
            camera=problem.camera,
            support=_support(problem, solver),
            tie=_tie(problem, solver),
            learned=None if self._start is None else joined([group.learned for group in self._finished]),
            albedo=None if problem.albedo is None else problem.albedo.cpu(),
        )
        _check_finite(
            {
                "the members' joint output is not finite": outcome.refined,
                "the members' joint depth is not finite": outcome.refined_depth,
            }
        )
        return self._with_end(outcome)

    def _history(self) -> dict[str, list[list[float]]]:
        history: dict[str, list[list[float]]] = {}
        for group in self._finished:
            for name, rows in group.history.items():
                history.setdefault(name, []).extend(rows)
        return history

    def _with_end(self, outcome: Outcome) -> Outcome:
        """Add how the run ended, and its plan; the end of a time limit is no partial run."""
        plan = self._plan
        if not self._stopped_by_watch:
            return replace(outcome, partial=bool(self._reason), reason=self._reason, fit=plan)
        whole = len(outcome.members) == plan.members and min(outcome.steps_done) == plan.steps
        if whole:
            return replace(outcome, fit=plan)
        return replace(outcome, reason=self._reason, fit=replace(plan, cut=True))


def _check_replay(replay: Sequence[StepDraws], plan: Plan) -> None:
    rows = [len(next(iter(draws.illumination.tensors.values()))) for draws in replay]
    if len(replay) < plan.steps or min(rows, default=0) < plan.members:
        raise RedepthError(
            f"the replay holds {len(replay)} steps of {min(rows, default=0)} members; "
            f"this run needs {plan.steps} steps of {plan.members} members"
        )


def _title(prior: Prior) -> str:
    checkpoint = getattr(prior, "checkpoint", "")
    return f"{type(prior).__name__} '{checkpoint}'" if checkpoint else type(prior).__name__


def _support(problem: Problem, solver: Solver) -> Tensor | None:
    """Return in how far known points that pull on the surface fix its low frequencies, on the CPU."""
    anchors = problem.guidance.get(Anchors)
    weight, _ = solver.objectives.get("anchors", (0.0, None))
    if anchors is None or anchors.targets is None or not weight:
        return None
    height, width = problem.initial.shape[-2:]
    sigma = solver.optim.detail_scale(height, width) * min(height, width)
    return anchors.targets.support(sigma).cpu()


def _tie(problem: Problem, solver: Solver) -> Tie | None:
    """Return how the answer joins the last frame's, on the CPU."""
    previous = problem.previous
    if previous is None or previous.share is None:
        return None
    assert previous.prediction is not None
    answer = previous.answer.cpu()
    return Tie(
        answer=answer * problem.unit,
        depth=solver.relative_depth(answer, 0.0),
        share=previous.share.cpu(),
        prediction=previous.prediction.cpu() * problem.unit,
        scale=1.0 if previous.adjustment is None else previous.adjustment.scale,
        shift=0.0 if previous.adjustment is None else previous.adjustment.shift * problem.unit,
    )


def _check_finite(answers: Mapping[str, Tensor]) -> None:
    """Raise RedepthError, with the problem of the first answer that is not finite: problem -> values."""
    for problem, values in answers.items():
        if not bool(torch.isfinite(values).all()):
            raise RedepthError(f"{problem}: lower optim.learning_rates or optim.weight_decay")
