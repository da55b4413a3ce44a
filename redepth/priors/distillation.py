"""The base class of the diffusion priors: the options of a score rule, and from picture to loss."""

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

FLOW_PRIORS = (
    "stable-diffusion-3, stable-diffusion-3.5, flux2-klein, z-image, qwen-image, qwen-image-edit, prx-pixel"
)
TEXT_PRIORS = (
    f"stable-diffusion, stable-diffusion-2.1, stable-diffusion-xl, {FLOW_PRIORS}, pixart-sigma, ic-light"
)


@dataclass(frozen=True)
class StepInputs:
    """The inputs of a prediction beside the noisy picture, rows flattened."""

    condition: Condition
    illumination: Illumination
    noise: Noise

    @property
    def timestep(self) -> Tensor:
        """The noise level t of each row, (N,)."""
        return self.noise["timestep"]

    def rows(self, rows: slice) -> StepInputs:
        """Return the inputs of some rows."""
        return StepInputs(self.condition, self.illumination.rows(rows), self.noise.rows(rows))


@dataclass(kw_only=True, eq=False)
class DiffusionPrior(ABC):
    r"""A frozen diffusion model under a score rule.

    The loss of a picture x (in the model's space) is half the squared distance to x - g, with the rule's
    gradient g = w(t) (...); its derivative is g. `redepth.priors.scores` has each rule's equation and source.

    Args:
        score: the rule that turns the model's predictions into a gradient.
        guidance_scale: g of classifier-free guidance: how strongly the prompt or condition counts.
        guidance_base: which prediction guidance starts from (`scores.guide`).
        weighting: w(t), how much each noise level counts (`scores.weight`).
        t_min: least timestep, the least noise, as a fraction of the schedule's length T.
        t_max: largest timestep, as t_min; t is uniform over the integers between.
        t_annealing: how t_max falls to t_min over the run: not at all (``constant``), ``linear``, or fast at
            first (``sqrt``: with the square root of the share of steps that are done).
        reduction: whether a picture's loss is the mean or the sum over its entries.
        clip: largest root mean square of a picture's gradient; null: not clipped. Entries that are not
            finite make the loss so: a run in half precision switches to float32, any other one ends.
        negative_scale: omega_2 of the score csd: weight of the negative prompt; 0: without it.
        inversion_steps: steps of the inversion of the scores ism and sdi; each runs the model once (sdi:
            under guidance).
        inversion_guidance: guidance scale of the inversion of the score sdi.
        interval: timesteps between the two noise levels of the score ism.
        lora_rank: rank of the adapter that the score vsd trains.
        lora_rate: learning rate of the adapter that the score vsd trains.
        dtype: precision of the frozen model. ``auto`` is float16 on CUDA (bfloat16 for models that are
            published in it) and float32 elsewhere; float16 on a CPU runs in float32.
    """

    score: Score = "sds"
    guidance_scale: Annotated[float, Field(ge=0, le=10_000)] = 50.0
    guidance_base: GuidanceBase = "text"
    weighting: Weighting = "uniform"
    t_min: Fraction = 0.02
    t_max: Fraction = 0.60
    t_annealing: Annealing = "constant"
    reduction: Reduction = "mean"
    clip: Annotated[float, Field(ge=1e-12, le=1e12)] | None = None
    negative_scale: Annotated[float, Field(ge=0, le=10_000)] = 0.0
    inversion_steps: Annotated[int, Field(ge=1, le=100)] = 5
    inversion_guidance: Annotated[float, Field(ge=-10_000, le=10_000)] = -7.5
    interval: Annotated[int, Field(ge=1, le=500)] = 50
    lora_rank: Annotated[int, Field(ge=1, le=256)] = 4
    lora_rate: Annotated[float, Field(ge=1e-12, le=1)] = 1e-4
    dtype: Precision = "auto"

    schedule: Schedule = field(init=False, repr=False)
    supported_branches: ClassVar[frozenset[Branch]] = frozenset({"text", "uncond"})
    """The branches that this kind of model can predict."""
    flow_predicts: ClassVar[Literal["flow", "sample"]] = "flow"
    """What a flow-matching model of this kind predicts: velocities, or the clean picture."""
    on_cpu: ClassVar[frozenset[str]] = frozenset()
    """Names of the draws whose values the host reads: they stay on the CPU."""

    def __post_init__(self) -> None:
        if self.t_min > self.t_max:
            raise ValueError(f"t_min {self.t_min} is above t_max {self.t_max}")
        self.check_branches(self.supported_branches)
        self._copies: LearnedCopies | None = None
        self._how = Execution()
        self._dtype = torch.float32

    def check_branches(self, supported: frozenset[Branch]) -> None:
        """Raise ValueError if the rule needs a branch that this prior does not have."""
        if missing := self.needed_branches - supported - {"learned"}:
            raise ValueError(
                f"score: {self.score} needs a prompt ({', '.join(sorted(missing))}), which this prior does "
                f"not take; these do: {TEXT_PRIORS}"
            )

    @property
    def needed_branches(self) -> frozenset[Branch]:
        """The branches that the rule needs under these options."""
        branches = RULES[self.score].branches
        return branches | {"negative"} if self.score == "csd" and self.negative_scale > 0 else branches

    @abstractmethod
    def to_model_space(self, relit: Tensor, noise: Noise) -> Tensor:
        """Map (N,3,H,W) sRGB [0,1] to what the model denoises, float32; differentiable."""

    @abstractmethod
    def predict(
        self, noisy: Tensor, timestep: Tensor, inputs: StepInputs, branches: Sequence[Branch]
    ) -> Mapping[Branch, Tensor]:
        """Return the model's predictions for x_t (N, ...) at t (N,) under each branch's condition."""

    @abstractmethod
    def draw_model(self, batch: int, generator: Generator) -> dict[str, Tensor]:
        """Draw ``noise`` and the other random inputs of `to_model_space`, tensors (batch, ...)."""

    @abstractmethod
    def network(self) -> torch.nn.Module:
        """Return the frozen denoiser."""

    def tune(self, how: Execution) -> None:
        """Execute the frozen networks in this way from now on.

        Raises:
            ConfigError: if the rule trains copies of the network, which such networks do not allow.
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
        """Apply the way of execution to the networks, which have their device and precision."""
        execute(self.network(), self._how, graph=True)

    @property
    def learns(self) -> bool:
        """Whether the rule trains copies of the network while it runs."""
        return RULES[self.score].learns

    def release_memory(self) -> None:
        """Drop the captured graphs of all batch sizes."""
        release_graphs(self.network())

    def upcast(self) -> str:
        """Switch to float32; return the previous precision, empty if nothing changed.

        A rule that trains copies cannot switch: the copies have learned from non-finite values.
        """
        if not self._can_upcast:
            return ""
        before, self._dtype = self._dtype, torch.float32
        self.cast()
        self.set_up()
        return str(before).removeprefix("torch.")

    @property
    def _can_upcast(self) -> bool:
        return self._dtype != torch.float32 and not self.learns

    def cast(self) -> None:
        """Take the networks to float32."""
        self.network().float()

    def check_packages(self) -> None:
        """Raise MissingDependencyError now if the rule needs a package that is not installed."""
        if self.learns:
            require(*NEEDED)

    def begin(self, members: Sequence[int]) -> None:
        """Reset the learned copies (``vsd``); called before a group of members starts."""
        if not self.learns:
            return
        if self._copies is None:
            self._copies = LearnedCopies(self.network(), self.lora_rank, self.lora_rate)
        self._copies.begin(members)

    def draw(self, batch: int, generator: Generator, progress: float = 0.0) -> Noise:
        """Draw timestep, noise and the other random inputs of ``batch`` pictures, tensors (batch, ...)."""
        drawn = {"timestep": self.draw_timesteps(batch, generator, progress)}
        drawn |= self.draw_model(batch, generator)
        drawn["progress"] = torch.full((batch,), float(progress))
        if self.learns:
            drawn["learned_timestep"] = torch.randint(0, TIMESTEPS, (batch,), generator=generator)
            shape = drawn["noise"].shape
            drawn["learned_noise"] = self.noise_scale * torch.randn(shape, generator=generator)
        return Noise(drawn, self.on_cpu)

    @property
    def noise_scale(self) -> float:
        """Standard deviation of the model's noise."""
        return 1.0

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
        inputs = StepInputs(condition, illumination, noise)
        with torch.no_grad():
            # A score that is not finite makes the loss so: the refiner then calls `upcast`, or ends the run.
            gradient = scores.clip(RULES[self.score].gradient(self._query(x.detach(), inputs)), self.clip)
        if self._copies is not None:
            self._train_copies(x.detach(), inputs)
        return scores.distillation_loss(x, gradient, self.reduction)

    def _query(self, x: Tensor, inputs: StepInputs) -> Query:
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
            noise=inputs.noise["noise"],
            timestep=inputs.timestep,
            progress=inputs.noise.tensors.get("progress", torch.zeros(len(x), device=x.device)),
            schedule=self.schedule,
            predict=partial(self._predict_noise, inputs),
            velocity=partial(self._predict_velocity, inputs),
            photo=partial(self._photo, inputs, len(x)),
            settings=settings,
        )

    def _predict_noise(
        self, inputs: StepInputs, noisy: Tensor, timestep: Tensor, branches: Sequence[Branch]
    ) -> dict[Branch, Tensor]:
        if tuple(branches) == ("learned",):
            learned = self._predict_by_copies(noisy, timestep, inputs)
            predicted: Mapping[Branch, Tensor] = {"learned": learned}
        else:
            predicted = self.predict(noisy, timestep, inputs, branches)
        return {name: self.schedule.noise_of(p, noisy, timestep) for name, p in predicted.items()}

    def _predict_velocity(
        self, inputs: StepInputs, noisy: Tensor, timestep: Tensor, branches: Sequence[Branch]
    ) -> dict[Branch, Tensor]:
        predicted = self.predict(noisy, timestep, inputs, branches)
        return {name: self.schedule.velocity_of(p, noisy, timestep) for name, p in predicted.items()}

    def _predict_by_copies(self, noisy: Tensor, timestep: Tensor, inputs: StepInputs) -> Tensor:
        """Return the predictions of the members' copies, each for its member's rows."""
        if self._copies is None:
            self.begin(range(1))
        assert self._copies is not None
        predictions = [
            self.predict(noisy[rows], timestep[rows], inputs.rows(rows), ("text",))["text"]
            for rows in self._copies.turns(len(noisy))
        ]
        return torch.cat(predictions)

    def _train_copies(self, x: Tensor, inputs: StepInputs) -> None:
        """Take one step of each member's copy towards the distribution of its pictures."""
        assert self._copies is not None
        timestep, noise = inputs.noise["learned_timestep"], inputs.noise["learned_noise"]
        noisy, target = self.schedule.add_noise(x, noise, timestep), self.schedule.target(x, noise, timestep)
        with torch.enable_grad():
            for rows in self._copies.turns(len(x)):
                predicted = self.predict(noisy[rows], timestep[rows], inputs.rows(rows), ("text",))["text"]
                self._copies.learn((predicted - target[rows]).square().mean())

    def _photo(self, inputs: StepInputs, rows: int) -> Tensor:
        photo = inputs.condition.tensors["photo"]
        return self.to_model_space(photo.expand(rows, -1, -1, -1), inputs.noise)

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
            WeightsError: if it is not supported, or the score rule does not work with it.
        """
        self.schedule = Schedule.from_config(scheduler_config, self.flow_predicts).to(device)
        if RULES[self.score].flow_only and not self.schedule.flow:
            raise WeightsError(
                f"score: {self.score} is defined for flow-matching models, and this checkpoint predicts "
                f"'{self.schedule.predicts}'; take another score, or one of these priors: {FLOW_PRIORS}"
            )
