"""What all diffusion priors share: the options of a score rule and the step from picture to loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from redepth.contracts import Condition, Execution, Illumination, Noise
from redepth.errors import ConfigError, WeightsError
from redepth.priors import scores
from redepth.priors.lora import NEEDED, LearnedCopies
from redepth.priors.schedule import TIMESTEPS, Schedule
from redepth.priors.scores import RULES, Annealing, Branch, GuidanceBase, Query, Reduction, Score, Weighting
from redepth.registry import require
from redepth.runtime.networks import execute, release_graphs

Precision = Literal["auto", "float32", "float16", "bfloat16"]
Fraction = Annotated[float, Field(ge=0, le=1)]

TEXT_PRIORS = "stable-diffusion, stable-diffusion-2.1, stable-diffusion-xl, stable-diffusion-3, ic-light"


@dataclass(frozen=True)
class Given:
    """What a prediction may depend on beside the noisy picture, rows flattened."""

    condition: Condition
    illumination: Illumination
    noise: Noise

    @property
    def timestep(self) -> Tensor:
        """The noise level t of each row, (N,)."""
        return self.noise["timestep"]

    def rows(self, rows: slice) -> Given:
        """Return what some rows depend on."""
        return Given(self.condition, self.illumination.rows(rows), self.noise.rows(rows))


@dataclass(kw_only=True, eq=False)
class DiffusionPrior(ABC):
    r"""A frozen diffusion model under a score rule.

    The loss of a picture x (in the model's space) is half the squared distance to x - g, with the rule's
    gradient g = w(t) (...); its derivative is g. `redepth.priors.scores` has each rule's equation and source.

    Args:
        score: the rule.
        guidance_scale: g of classifier-free guidance.
        guidance_base: which prediction guidance starts from; see `scores.guide`.
        weighting: w(t); see `scores.weight`.
        t_min: least timestep as a fraction of the schedule's length T.
        t_max: largest one; t is uniform over the integers between.
        t_annealing: how t_max falls to t_min over the run: ``constant`` not at all, ``linear``, or ``sqrt``
            with the square root of the share that is done (fast at first).
        reduction: whether a picture's loss is the mean or the sum over its entries.
        clip: largest root mean square of a picture's gradient; none: not clipped. Non-finite entries are 0
            in float32; in half precision they make the loss so, and the run goes on in float32.
        negative_scale: omega_2 of ``csd``.
        inversion_steps: of ``ism`` and ``sdi``; each asks the model once (``sdi``: under guidance).
        inversion_guidance: of ``sdi``.
        interval: timesteps between the two levels of ``ism``.
        lora_rank: of ``vsd``'s learned copy.
        lora_rate: its learning rate.
        dtype: precision of the frozen model. ``auto`` is float16 on CUDA and float32 elsewhere; float16
            on a CPU runs in float32.
    """

    score: Score = "sds"
    guidance_scale: Annotated[float, Field(ge=0)] = 50.0
    guidance_base: GuidanceBase = "text"
    weighting: Weighting = "uniform"
    t_min: Fraction = 0.02
    t_max: Fraction = 0.60
    t_annealing: Annealing = "constant"
    reduction: Reduction = "mean"
    clip: Annotated[float, Field(gt=0)] | None = None
    negative_scale: Annotated[float, Field(ge=0)] = 0.0
    inversion_steps: Annotated[int, Field(ge=1, le=100)] = 5
    inversion_guidance: float = -7.5
    interval: Annotated[int, Field(ge=1, le=500)] = 50
    lora_rank: Annotated[int, Field(ge=1, le=256)] = 4
    lora_rate: Annotated[float, Field(gt=0, le=1)] = 1e-4
    dtype: Precision = "auto"

    schedule: Schedule = field(init=False, repr=False)
    answers: ClassVar[frozenset[Branch]] = frozenset({"text", "uncond"})
    """The branches that this kind of model can be asked for."""
    on_cpu: ClassVar[frozenset[str]] = frozenset()
    """Which of its draws are read as numbers and stay on the CPU."""

    def __post_init__(self) -> None:
        if self.t_min > self.t_max:
            raise ValueError(f"t_min {self.t_min} is above t_max {self.t_max}")
        if missing := self.asked - self.answers - {"learned"}:
            raise ValueError(
                f"score: {self.score} needs a prompt ({', '.join(sorted(missing))}), which this prior "
                f"cannot be told; these can: {TEXT_PRIORS}"
            )
        self._copies: LearnedCopies | None = None
        self._how = Execution()
        self._dtype = torch.float32

    @property
    def asked(self) -> frozenset[Branch]:
        """The branches that the rule asks for under these options."""
        away = self.score == "csd" and self.negative_scale > 0
        return RULES[self.score].asks | (frozenset({"negative"}) if away else frozenset())

    @abstractmethod
    def to_model_space(self, relit: Tensor, noise: Noise) -> Tensor:
        """Differentiable: (N,3,H,W) sRGB [0,1] to what the model denoises, float32."""

    @abstractmethod
    def predict(
        self, noisy: Tensor, timestep: Tensor, given: Given, branches: Sequence[Branch]
    ) -> Mapping[Branch, Tensor]:
        """Return what the model predicts of x_t (N, ...) at t (N,), told each branch's condition."""

    @abstractmethod
    def draw_model(self, batch: int, generator: Generator) -> dict[str, Tensor]:
        """Draw ``noise`` and what else the way into the model's space needs, tensors (batch, ...)."""

    @abstractmethod
    def network(self) -> torch.nn.Module:
        """Return the frozen denoiser."""

    def tune(self, how: Execution) -> None:
        """Execute the frozen networks in this way from now on.

        Raises:
            ConfigError: if the rule trains copies of a network that is to stay as it is.
        """
        if self.learns and (how.compile or how.cuda_graphs or how.fused_kernels):
            raise ConfigError(
                f"score: {self.score} trains copies of the denoiser, which can be neither compiled nor fused "
                "nor a CUDA graph: set optim.performance.compile=off, .fused_kernels=off and "
                ".cuda_graphs=off, or take another score"
            )
        if how != self._how:
            self._how = how
            self.set_up()

    def set_up(self) -> None:
        """Let the networks, once on their device and in their precision, be executed as they are to be."""
        execute(self.network(), self._how, graph=True)

    @property
    def learns(self) -> bool:
        """Whether the rule trains copies of the network while it runs."""
        return RULES[self.score].learns

    def release_memory(self) -> None:
        """Drop the graphs of the batch sizes until now."""
        release_graphs(self.network())

    def upcast(self) -> str:
        """Go on in float32; return the precision until now, empty if it is that already.

        A rule that trains copies cannot: they have learned from what was not finite.
        """
        if not self._may_widen:
            return ""
        before, self._dtype = self._dtype, torch.float32
        self.cast()
        self.set_up()
        return str(before).removeprefix("torch.")

    @property
    def _may_widen(self) -> bool:
        return self._dtype != torch.float32 and not self.learns

    def cast(self) -> None:
        """Take the networks to float32."""
        self.network().float()

    def check_packages(self) -> None:
        """Raise MissingDependencyError now if the rule needs a package that is not installed."""
        if self.learns:
            require(*NEEDED)

    def begin(self, members: Sequence[int]) -> None:
        """Forget what was learned; called before a group of members starts (``vsd``)."""
        if not self.learns:
            return
        if self._copies is None:
            self._copies = LearnedCopies(self.network(), self.lora_rank, self.lora_rate)
        self._copies.begin(members)

    def draw(self, batch: int, generator: Generator, progress: float = 0.0) -> Noise:
        """Draw timestep, noise and what else a step needs for ``batch`` pictures, tensors (batch, ...)."""
        drawn = {"timestep": self.draw_timesteps(batch, generator, progress)}
        drawn |= self.draw_model(batch, generator)
        drawn["progress"] = torch.full((batch,), float(progress))
        if self.learns:
            drawn["learned_timestep"] = torch.randint(0, TIMESTEPS, (batch,), generator=generator)
            drawn["learned_noise"] = torch.randn(drawn["noise"].shape, generator=generator)
        return Noise(drawn, self.on_cpu)

    def draw_timesteps(self, batch: int, generator: Generator, progress: float = 0.0) -> Tensor:
        """Draw t uniform over the integers of [t_min T, t_max T], the end annealed, (batch,)."""
        done = {"constant": 0.0, "linear": progress, "sqrt": progress**0.5}[self.t_annealing]
        end = self.t_max - (self.t_max - self.t_min) * done
        low = min(int(TIMESTEPS * self.t_min), TIMESTEPS - 1)
        high = min(max(int(TIMESTEPS * end), low), TIMESTEPS - 1)
        return torch.randint(low, high + 1, (batch,), generator=generator)

    def __call__(
        self, relit: Tensor, condition: Condition, illumination: Illumination, noise: Noise
    ) -> Tensor:
        """Score (N,3,H,W) sRGB [0,1]: a loss (N,) whose gradient is the rule's."""
        x = self.to_model_space(relit, noise)
        given = Given(condition, illumination, noise)
        with torch.no_grad():
            raw = RULES[self.score].gradient(self._query(x.detach(), given))
            gradient = scores.clip(raw, self.clip)
            if self._may_widen:
                # In half precision what is not finite is to show in the loss: `upcast` mends it.
                gradient = torch.where(torch.isfinite(raw), gradient, raw)
        if self._copies is not None:
            self._teach(x.detach(), given)
        return scores.distillation_loss(x, gradient, self.reduction)

    def _query(self, x: Tensor, given: Given) -> Query:
        settings = scores.Settings(
            self.guidance_scale,
            self.guidance_base,
            self.weighting,
            self.negative_scale,
            self.inversion_steps,
            self.inversion_guidance,
            self.interval,
        )
        return Query(
            x=x,
            noise=given.noise["noise"],
            timestep=given.timestep,
            progress=given.noise.tensors.get("progress", torch.zeros(len(x), device=x.device)),
            schedule=self.schedule,
            ask=partial(self._ask, given),
            photo=partial(self._photo, given, len(x)),
            settings=settings,
        )

    def _ask(
        self, given: Given, noisy: Tensor, timestep: Tensor, branches: Sequence[Branch]
    ) -> dict[Branch, Tensor]:
        if tuple(branches) == ("learned",):
            predicted: Mapping[Branch, Tensor] = {"learned": self._ask_copies(noisy, timestep, given)}
        else:
            predicted = self.predict(noisy, timestep, given, branches)
        return {name: self.schedule.noise_of(p, noisy, timestep) for name, p in predicted.items()}

    def _ask_copies(self, noisy: Tensor, timestep: Tensor, given: Given) -> Tensor:
        """Return each member's own copy's prediction of its rows."""
        if self._copies is None:
            self.begin(range(1))
        assert self._copies is not None
        rows = [
            self.predict(noisy[own], timestep[own], given.rows(own), ("text",))["text"]
            for own in self._copies.turns(len(noisy))
        ]
        return torch.cat(rows)

    def _teach(self, x: Tensor, given: Given) -> None:
        """Take one step of each member's copy towards the distribution of its pictures."""
        assert self._copies is not None
        timestep, noise = given.noise["learned_timestep"], given.noise["learned_noise"]
        noisy, target = self.schedule.add_noise(x, noise, timestep), self.schedule.target(x, noise, timestep)
        with torch.enable_grad():
            for own in self._copies.turns(len(x)):
                told = self.predict(noisy[own], timestep[own], given.rows(own), ("text",))["text"]
                self._copies.learn((told - target[own]).square().mean())

    def _photo(self, given: Given, rows: int) -> Tensor:
        photo = given.condition.tensors["photo"]
        return self.to_model_space(photo.expand(rows, -1, -1, -1), given.noise)

    def precision(self, device: torch.device) -> torch.dtype:
        """Return the dtype of the frozen model on a device."""
        if self.dtype == "auto":
            return torch.float16 if device.type == "cuda" else torch.float32
        if self.dtype == "float16" and device.type == "cpu":
            return torch.float32
        return {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[self.dtype]

    def use_schedule(self, scheduler_config: Mapping[str, Any], device: torch.device) -> None:
        """Take the noise schedule of a checkpoint's scheduler configuration.

        Raises:
            WeightsError: if it is not supported, or the score rule does not go with it.
        """
        self.schedule = Schedule.from_config(scheduler_config).to(device)
        if RULES[self.score].flow_only and not self.schedule.flow:
            raise WeightsError(
                f"score: {self.score} is defined for flow-matching models, and this checkpoint predicts "
                f"'{self.schedule.predicts}'; take prior.name=stable-diffusion-3, or another score"
            )
