"""The generic test-time optimiser: a depth model, a renderer and a prior, whichever they are."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from redepth.config import Blend, Optim
from redepth.contracts import (
    Condition,
    DepthModel,
    Features,
    HoldsMemory,
    Invariance,
    LearnsByMember,
    Objective,
    Predicts,
    Prior,
    Renderer,
    StepDraws,
    Surface,
    Upcasts,
)
from redepth.errors import RedepthError
from redepth.ops import color, geometry
from redepth.ops.filters import detail
from redepth.ops.sky import sky_mask
from redepth.ops.statistics import agreement_weight
from redepth.optim import execution
from redepth.optim.budget import Fit, run_fitted
from redepth.optim.draws import draw_steps
from redepth.optim.loss_log import Answer, Losses, LossLog, NotFinite
from redepth.optim.parameterizations import Parameterization, check_supported
from redepth.optim.step_graph import Advance, Eager, StepGraph, Taken
from redepth.runtime.device import indexed, is_out_of_memory, numerics

log = logging.getLogger(__name__)

STREAMS = 4
"""Of a GPU, for members' decoders that run in several."""

SKIPS = ("cpu", "cuda")
"""Devices whose fused AdamW leaves the parameters as they are when it is told on the device to."""


@dataclass(frozen=True)
class StepReport:
    """What `on_step` is told after each step of a group of members.

    Whoever looks at ``losses`` waits for the device; see `optim.performance.read_losses_every`. A step whose
    losses nobody has looked at may turn out not to be finite; where the run can go on in another precision,
    such a step is then reported again.

    Attributes:
        step: 1-based index of the finished step.
        steps: how many there are.
        members: the indices of the members that advanced.
        of_members: how many members the ensemble has.
        losses: name -> (members,), on the CPU: ``prior`` unless its weight is 0, each objective (both
            unweighted) and ``total``.
        raw: (members,1,H,W) raw output that the step started from, detached.
        depth: the relative depth of it, likewise.
        relit: (members,L,3,H,W) the re-lit pictures, likewise.
        draws: the random numbers of the step.
    """

    step: int
    steps: int
    members: range
    of_members: int
    losses: Losses
    raw: Tensor
    depth: Tensor
    relit: Tensor
    draws: StepDraws


OnStep = Callable[[StepReport], None]


@dataclass(frozen=True)
class Outcome:
    """The result of `Refiner.run`, at network size, on the CPU.

    Attributes:
        predicts: what the raw outputs are.
        invariance: whether they are known up to scale and shift, or metric.
        initial: (1,1,H,W) the frozen model's raw output.
        members: (M,1,H,W) refined raw outputs.
        initial_depth: (1,1,H,W) relative depth of ``initial``.
        member_depths: (M,1,H,W) relative depth of each member, with its learned scale offset.
        offsets: (M,) learned scale offsets o.
        members_per_batch: how many members advanced together.
        history: name -> one list per member with a loss per step taken.
        steps_done: steps taken by each member.
        partial: whether the run ended before all members had taken all steps, but for an early stop and the
            end of a budget.
        reason: why, if so; also where a run ended, not partial, because its time did.
        seconds: wall time of the optimisation.
        unit: what raw outputs were divided by inside the optimisation; 1 unless the scale is ``auto``.
        blend: how the members' mean and the initial output are combined, as `Optim.blend` says.
        blend_tolerance: of ``agreement``.
        blend_scale: of ``detail``, a share of the shorter side.
        sky: (1,1,H,W) bool, where the photo shows sky; None if nobody looked.
        sky_given: whether the sky was given rather than found.
        fit: what was chosen for a time or memory limit; None without one.
    """

    predicts: Predicts
    initial: Tensor
    members: Tensor
    initial_depth: Tensor
    member_depths: Tensor
    offsets: Tensor
    history: dict[str, list[list[float]]]
    steps_done: list[int]
    members_per_batch: int
    invariance: Invariance = "affine"
    partial: bool = False
    reason: str = ""
    seconds: float = 0.0
    unit: float = 1.0
    blend: Blend = "none"
    blend_tolerance: float = 0.1
    blend_scale: float = 0.125
    sky: Tensor | None = None
    sky_given: bool = False
    fit: Fit | None = None

    @property
    def refined(self) -> Tensor:
        """The ensemble's answer, (1,1,H,W): the members' mean, or its blend with the initial output."""
        return self._blended(self.initial, self.members.mean(dim=0, keepdim=True))

    @property
    def refined_depth(self) -> Tensor:
        """The mean of the members' relative depths, (1,1,H,W), blended as `refined` is."""
        return self._blended(self.initial_depth, self.member_depths.mean(dim=0, keepdim=True))

    @cached_property
    def blend_weight(self) -> Tensor:
        """The members' share w in ``refined = initial + w (mean - initial)``, (1,1,H,W) in [0, 1].

        `ops.statistics.agreement_weight` under ``blend: agreement``, 1 everywhere under any other.
        """
        if self.blend == "agreement":
            return agreement_weight(self.initial, self.members, self.blend_tolerance)
        return torch.ones_like(self.initial)

    def _blended(self, initial: Tensor, mean: Tensor) -> Tensor:
        if self.blend == "none":
            return mean
        change = mean - initial
        return initial + (
            detail(change, self.blend_scale) if self.blend == "detail" else self.blend_weight * change
        )

    @property
    def uncertainty(self) -> Tensor:
        """Standard deviation of the members' raw outputs, (1,1,H,W); 0 for a single member."""
        return self.members.std(dim=0, correction=0, keepdim=True)


class _LossesOnDemand(Mapping[str, Tensor]):
    """The losses of one step, waited for when somebody looks."""

    def __init__(self, read: Callable[[], Losses]) -> None:
        self._read = read

    def __getitem__(self, name: str) -> Tensor:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())


@dataclass
class _Group:
    """Members that advance in lockstep, and what they have come to.

    Nothing in it refers back to it: its memory has to go when it does.
    """

    members: range
    state: Parameterization
    optimizer: torch.optim.Optimizer
    loss_log: LossLog


@dataclass(frozen=True)
class _Finished:
    """What a group has left behind, on the CPU."""

    answers: list[Answer]
    history: dict[str, list[list[float]]]


class Interrupted(Exception):
    """Raised inside the loop to end it and keep what is done."""


class Refiner:
    """Refines the depth of one photo by optimising what a parameterization makes learnable.

    Each step, for member i and light j: ``total_i = prior_weight * mean_j prior_ij + sum_k w_k
    objective_ik``; the sum over members is differentiated, so members never influence each other.

    The components are tuned for this refiner; another one made of the same ones tunes them anew.

    Args:
        depth_model: loaded.
        renderer: any `Renderer`.
        prior: loaded.
        optim: settings of the optimisation.
        objectives: name -> (weight, objective).
        device: where tensors live.
    """

    def __init__(
        self,
        depth_model: DepthModel,
        renderer: Renderer,
        prior: Prior,
        optim: Optim,
        objectives: dict[str, tuple[float, Objective]] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        check_supported(optim.parameterization, depth_model)
        self.depth_model = depth_model
        self.renderer = renderer
        self.prior = prior
        self.optim = optim
        self.objectives = objectives or {}
        self.device = indexed(device)
        automatic = optim.members_per_batch == "auto"
        self.batch = optim.members if automatic else int(optim.members_per_batch)
        """Members that advance together; halved, for all photos to come, when memory runs out."""
        self.watch: Callable[[], str] | None = None
        """Asked after each step whether to go on; what it says, unless it is empty, is why the run ends."""
        self.execution = execution.tune(optim, self.device, depth_model, prior, renderer)
        """What was decided about `optim.performance`."""

    @torch.no_grad()
    def predict(self, photo: Tensor) -> tuple[Tensor, Features, Tensor]:
        """Run the frozen model: the photo at network size, its features, the raw output (1,1,H,W).

        Raises:
            RedepthError: if the prediction is not finite.
            ValueError: if ``photo`` is not (1, 3, H, W).
        """
        if photo.dim() != 4 or photo.shape[:2] != (1, 3):
            raise ValueError(f"photo must be (1, 3, H, W), got {tuple(photo.shape)}")
        image = self.depth_model.prepare(photo.to(self.device, torch.float32))
        features = self.depth_model.encode(image)
        initial = self.depth_model.decode(features)
        if not bool(torch.isfinite(initial).all()):
            raise RedepthError("the depth model's own prediction is not finite: check its weights")
        return image, features, initial

    def run(
        self,
        photo: Tensor,
        *,
        prompt: str = "",
        seed: int = 0,
        on_step: OnStep | None = None,
        draws: Sequence[StepDraws] | None = None,
        sky: Tensor | None = None,
    ) -> Outcome:
        """Refine one photo.

        Args:
            photo: (1,3,H,W) sRGB in [0, 1], any size.
            prompt: what the prior is told about the photo.
            seed: of all members' random streams.
            on_step: called after each step of each group of members.
            draws: recorded draws to replay, a record per step with a row per member.
            sky: (1,1,h,w) bool, any size, True where there is sky; without it the sky is looked for in the
                photo and the initial output (`ops.sky.sky_mask`).

        Raises:
            RedepthError: if a replay does not fit, the first step already gives no finite loss or
                gradient, or one member alone does not fit into memory.

        Ctrl-C (KeyboardInterrupt) ends the run and returns what is done, marked partial, once at
        least one step has been taken.
        """
        if self.optim.budget is not None or self.optim.vram is not None:
            return run_fitted(self, photo, prompt=prompt, seed=seed, on_step=on_step, draws=draws, sky=sky)
        fast = self.optim.performance
        with numerics(self.device, tf32=fast.tf32, cudnn_benchmark=fast.cudnn_benchmark):
            return self._run(photo, prompt, seed, on_step, draws, sky)

    def _run(
        self,
        photo: Tensor,
        prompt: str,
        seed: int,
        on_step: OnStep | None,
        draws: Sequence[StepDraws] | None,
        sky: Tensor | None,
    ) -> Outcome:
        started = time.perf_counter()
        image, features, initial = self.predict(photo)
        condition = self.prior.condition(image, prompt)
        if self.optim.parameterization != "full":
            self.depth_model.release_encoder()
        run = _Run(self, image, features, initial, condition, seed, on_step, draws, sky)
        reason = run.all_groups()
        return run.outcome(reason, time.perf_counter() - started)

    def step(
        self,
        state: Parameterization,
        image: Tensor,
        linear: Tensor,
        condition: Condition,
        draws: StepDraws,
        sky: Tensor | None = None,
    ) -> tuple[dict[str, Tensor], Surface, Tensor]:
        """One deterministic forward pass: losses per member, the surface and the re-lit pictures."""
        raw = state.raw()
        depth = self.relative_depth(raw, state.offset)
        relit = self.renderer(depth, linear, draws.illumination)
        surface = Surface(raw, depth, image, self.depth_model.predicts, sky)
        losses: dict[str, Tensor] = {}
        total = raw.new_zeros(len(raw))
        # A prior that has no say is not asked: it is nearly all of a step's time.
        if self.optim.prior_weight:
            scored = self.prior(
                relit.flatten(0, 1), condition, draws.illumination.flatten(), draws.noise.flatten()
            )
            losses["prior"] = scored.view(relit.shape[:2]).mean(dim=1)
            total = total + self.optim.prior_weight * losses["prior"]
        for name, (weight, objective) in self.objectives.items():
            losses[name] = objective(surface)
            total = total + weight * losses[name]
        losses["total"] = total
        return losses, surface, relit

    def unit(self, initial: Tensor) -> float:
        """Return what the photo's raw outputs are divided by: 1 unless the depth model's scale is ``auto``.

        Raises:
            RedepthError: if the first prediction has no scale.
        """
        model = self.depth_model
        if model.scale != "auto":
            return 1.0
        try:
            return geometry.auto_unit(initial, predicts=model.predicts, margin=model.margin)
        except ValueError as error:
            raise RedepthError(
                f"scale=auto has nothing to go by in the depth model's prediction: {error}"
            ) from None

    def relative_depth(self, raw: Tensor, offset: Tensor | float) -> Tensor:
        """Relative depth of a raw output in its unit, under this depth model's constants."""
        model = self.depth_model
        scale = geometry.AUTO_SCALE if model.scale == "auto" else model.scale
        return geometry.relative_depth(
            raw, predicts=model.predicts, scale=scale, margin=model.margin, offset=offset
        )

    def make_optimizer(self, state: Parameterization) -> torch.optim.Optimizer:
        """AdamW (torch's defaults) with one learning rate per group of parameters.

        Fused, all parameters of a group are one kernel. Where steps become graphs, the rates are tensors,
        which a graph reads anew.
        """
        rates = self.optim.learning_rates.model_dump()
        graphs = self.execution["cuda_graphs"] == "step"
        groups = [
            {"params": params, "lr": self._rate(rates[name], graphs), "base": rates[name]}
            for name, params in state.groups().items()
        ]
        fused = self.device.type in SKIPS
        decay = self.optim.weight_decay
        return torch.optim.AdamW(groups, weight_decay=decay, fused=fused, capturable=graphs)

    def _rate(self, rate: float, as_tensor: bool) -> float | Tensor:
        return torch.full((), rate, device=self.device) if as_tensor else rate

    def stepper(self, advance: Advance) -> StepGraph | Eager:
        """Return what takes the steps of a group."""
        graphs = self.execution["cuda_graphs"] == "step" and self.device.type == "cuda"
        return StepGraph(advance, self.device) if graphs else Eager(advance)

    def release_memory(self) -> None:
        """Give back the device memory that is kept for batches of another size."""
        if isinstance(self.prior, HoldsMemory):
            self.prior.release_memory()
        if self.device.type == "cuda":
            with torch.cuda.device(self.device):
                torch.cuda.empty_cache()

    def rate_factor(self, step: int) -> float:
        """Return the learning rates' factor at a 0-based step under the schedule."""
        if self.optim.schedule == "constant":
            return 1.0
        progress = step / max(self.optim.steps - 1, 1)
        low = self.optim.final_rate
        return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress))


class _Run:
    """One call of `Refiner.run`: groups of members, one after the other."""

    def __init__(
        self,
        refiner: Refiner,
        image: Tensor,
        features: Features,
        initial: Tensor,
        condition: Condition,
        seed: int,
        on_step: OnStep | None,
        replay: Sequence[StepDraws] | None,
        sky: Tensor | None,
    ) -> None:
        self.refiner, self.optim = refiner, refiner.optim
        self.prediction, self.unit = initial, refiner.unit(initial)
        self.image, self.features, self.initial = image, features, initial / self.unit
        self.linear = color.srgb_to_linear(image)
        self.condition, self.seed, self.on_step = condition, seed, on_step
        self.replay = self._checked(replay)
        self.sky, self.sky_given = self._network_sky(sky), sky is not None
        self.finished: list[_Finished] = []

    def _checked(self, replay: Sequence[StepDraws] | None) -> Sequence[StepDraws] | None:
        if replay is None:
            return None
        rows = [len(next(iter(d.illumination.tensors.values()))) for d in replay]
        if len(replay) < self.optim.steps or min(rows, default=0) < self.optim.members:
            raise RedepthError(
                f"the replay holds {len(replay)} steps of {min(rows, default=0)} members; "
                f"{self.optim.steps} steps of {self.optim.members} members are asked for"
            )
        return replay

    def _network_sky(self, given: Tensor | None) -> Tensor:
        if given is None:
            return sky_mask(self.image, self.initial, self.refiner.depth_model.predicts)
        share = given.to(self.initial.device, torch.float32)
        return geometry.resize(share, *self.initial.shape[-2:], antialias=True) >= 0.5

    def all_groups(self) -> str:
        """Run every member; return why it ended early, or an empty string."""
        start = 0
        while start < self.optim.members:
            members = range(start, min(start + self.refiner.batch, self.optim.members))
            group, reason, exhausted = self._one_group(members)
            if exhausted:
                # Out of the except clause at last, whose traceback kept the group's tensors alive.
                self._halve(len(members))
                continue
            if group is not None:
                self.finished.append(self._finish(group))
            # Its memory is for the next one.
            del group
            if reason:
                return reason
            start = members.stop
        return ""

    def _one_group(self, members: range) -> tuple[_Group | None, str, bool]:
        """Run some members: what they reached, why they ended early, whether memory ran out."""
        group = None
        try:
            group = self._new_group(members)
            self._take_steps(group)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return None, "", True
        except (KeyboardInterrupt, Interrupted) as stop:
            reason = str(stop) or "interrupted"
            if group is not None:
                try:
                    group.loss_log.read()
                except NotFinite as failure:
                    reason = self._complaint(group, failure)
            begun = group is not None and bool(group.loss_log.steps)
            if not begun and not self.finished:
                raise
            return group if begun else None, reason, False
        return group, "", False

    def _halve(self, members: int) -> None:
        if members == 1:
            raise RedepthError(
                f"not even one member fits into the memory of {self.refiner.device}: lower "
                "depth_model.longer_side or renderer.lights, or set optim.performance.checkpointing=true"
            )
        self.refiner.batch = members // 2
        self.refiner.release_memory()
        log.warning("out of memory: going on with %d members at a time", self.refiner.batch)

    def _new_group(self, members: range) -> _Group:
        if isinstance(self.refiner.prior, LearnsByMember):
            self.refiner.prior.begin(members)
        state = Parameterization(
            self.optim.parameterization,
            self.refiner.depth_model,
            self.image,
            self.features,
            self.initial,
            len(members),
            self.unit,
            streams=STREAMS if self.refiner.execution["decoders"] == "streams" else 1,
        )
        loss_log = LossLog(len(members), self.optim.early_stop, self.refiner.device)
        return _Group(members, state, self.refiner.make_optimizer(state), loss_log)

    def _draws(self, members: range) -> Iterator[StepDraws]:
        if self.replay is not None:
            return (d.rows(slice(members.start, members.stop)) for d in self.replay)
        return draw_steps(self.refiner.renderer, self.refiner.prior, self.seed, members, self.optim.steps)

    def _take_steps(self, group: _Group) -> None:
        stepper = self.refiner.stepper(partial(self._advance, group))
        try:
            with stepper.stream():
                self._optimise(group, stepper)
        finally:
            # A graph holds all that a step needs.
            stepper.forget()
        if not stepper.possible:
            self.refiner.execution["cuda_graphs"] = "off"

    def _optimise(self, group: _Group, stepper: StepGraph | Eager) -> None:
        """Take all steps; those that were not finite are taken again where the prior can be upcast."""
        draws, unread = self._draws(group.members), dict[int, StepDraws]()
        step = 0
        while step < self.optim.steps and not group.loss_log.all_stopped:
            if step not in unread:
                unread[step] = next(draws)
            try:
                self._step(group, step, unread[step], stepper)
                step += 1
                # The first step tells at once what no later one would mend.
                if step in (1, self.optim.steps) or step % self.optim.performance.read_losses_every == 0:
                    group.loss_log.read()
            except NotFinite as failure:
                self._go_on_or_end(group, failure)
                stepper.forget()
                step = failure.step
            unread = {k: drawn for k, drawn in unread.items() if k >= group.loss_log.steps}
            if self.refiner.watch is not None and (why := self.refiner.watch()):
                raise Interrupted(why)

    def _step(self, group: _Group, step: int, draws: StepDraws, stepper: StepGraph | Eager) -> None:
        """Take one step; nothing in it waits for the device, unless `on_step` looks at the losses."""
        drawn = draws.to(self.refiner.device)
        for params in group.optimizer.param_groups:
            rate = params["base"] * self.refiner.rate_factor(step)
            if isinstance(params["lr"], Tensor):
                params["lr"].fill_(rate)
            else:
                params["lr"] = rate
        taken = stepper(drawn)
        group.loss_log.keep(taken.raw, taken.depth, taken.offset)
        group.loss_log.add(taken.losses)
        if self.on_step is not None:
            self.on_step(self._report(step, group, taken, drawn))

    def _advance(self, group: _Group, drawn: StepDraws) -> Taken:
        """Do what a step computes on the device: the same kernels each time."""
        losses, surface, relit = self.refiner.step(
            group.state, self.image, self.linear, self.condition, drawn, self.sky
        )
        offset = group.state.offset.detach().clone()
        group.optimizer.zero_grad(set_to_none=True)
        losses["total"].sum().backward()
        self._update(group, losses["total"])
        told = {name: values.detach() for name, values in losses.items()}
        return Taken(told, surface.raw.detach(), surface.depth.detach(), offset, relit.detach())

    def _update(self, group: _Group, total: Tensor) -> None:
        """Change the parameters, unless this or an earlier step was not finite."""
        loss_log, optimizer = group.loss_log, group.optimizer
        parameters = [p for params in optimizer.param_groups for p in params["params"]]
        loss_log.check(total, [p.grad for p in parameters if p.grad is not None])
        if self.refiner.device.type in SKIPS:
            # What torch.amp.GradScaler tells a fused optimizer: to skip a step without asking the host.
            setattr(optimizer, "found_inf", loss_log.failed)  # noqa: B010
            optimizer.step()
        elif not bool(loss_log.failed):
            optimizer.step()

    def _report(self, step: int, group: _Group, taken: Taken, drawn: StepDraws) -> StepReport:
        return StepReport(
            step=step + 1,
            steps=self.optim.steps,
            members=group.members,
            of_members=self.optim.members,
            losses=_LossesOnDemand(partial(group.loss_log.losses, step)),
            raw=taken.raw * self.unit,
            depth=taken.depth,
            relit=taken.relit,
            draws=drawn,
        )

    def _go_on_or_end(self, group: _Group, failure: NotFinite) -> None:
        """Upcast the prior, if it runs in half precision, or end the run with what was reached before."""
        prior = self.refiner.prior
        if isinstance(prior, Upcasts) and (before := prior.upcast()):
            log.warning(
                "%s: going on in float32 instead of %s", self._complaint(group, failure, advice=""), before
            )
            group.loss_log.forgive()
            return
        message = self._complaint(group, failure)
        if failure.step == 0 and not self.finished:
            raise RedepthError(message)
        log.warning(message)
        raise Interrupted(message)

    def _complaint(
        self,
        group: _Group,
        failure: NotFinite,
        advice: str = ": lower optim.learning_rates, or set prior.dtype=float32",
    ) -> str:
        row = failure.row
        what = "the gradient" if row is None else f"the loss of member {group.members[row]}"
        return f"{what} is not finite at step {failure.step + 1}{advice}"

    @torch.no_grad()
    def _finish(self, group: _Group) -> _Finished:
        """Take what a group has come to; its parameters may then go."""
        raw, offset = group.state.raw(), group.state.offset
        answers = group.loss_log.answers(raw, self.refiner.relative_depth(raw, offset), offset)
        return _Finished(answers, group.loss_log.history([answer.steps for answer in answers]))

    def outcome(self, reason: str, seconds: float) -> Outcome:
        """Collect what the groups have reached."""
        answers = [answer for group in self.finished for answer in group.answers]
        history: dict[str, list[list[float]]] = {}
        for group in self.finished:
            for name, rows in group.history.items():
                history.setdefault(name, []).extend(rows)
        initial = self.initial.cpu()
        return Outcome(
            predicts=self.refiner.depth_model.predicts,
            initial=self.prediction.cpu(),
            members=torch.stack([a.raw for a in answers]) * self.unit,
            initial_depth=self.refiner.relative_depth(initial, 0.0),
            member_depths=torch.stack([a.depth for a in answers]),
            offsets=torch.stack([a.offset for a in answers]).flatten(),
            history=history,
            steps_done=[a.steps for a in answers],
            members_per_batch=self.refiner.batch,
            invariance=self.refiner.depth_model.invariance,
            partial=bool(reason),
            reason=reason,
            seconds=seconds,
            unit=self.unit,
            blend=self.optim.blend,
            blend_tolerance=self.optim.blend_tolerance,
            blend_scale=self.optim.blend_scale,
            sky=self.sky.cpu(),
            sky_given=self.sky_given,
        )
