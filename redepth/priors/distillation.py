"""What all diffusion priors share: the options of a score rule and the step from picture to loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from redepth.contracts import Condition, Illumination, Noise
from redepth.errors import WeightsError
from redepth.priors import scores
from redepth.priors.scores import GuidanceBase, Reduction, Weighting

Precision = Literal["auto", "float32", "float16", "bfloat16"]
Fraction = Annotated[float, Field(ge=0, le=1)]


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


@dataclass(kw_only=True, eq=False)
class DiffusionPrior(ABC):
    """A frozen diffusion model under a score rule.

    Args:
        score: the rule; see `redepth.priors.scores`.
        guidance_scale: g of classifier-free guidance.
        guidance_base: which prediction guidance starts from; see `scores.guide`.
        weighting: w(t); see `scores.weight`.
        t_min: least timestep as a fraction of the schedule's length T.
        t_max: largest one; t is uniform over the integers between.
        reduction: whether a picture's loss is the mean or the sum over its entries.
        dtype: precision of the frozen model. ``auto`` is float16 on CUDA and float32 elsewhere; float16
            on a CPU runs in float32.
    """

    score: Literal["sds"] = "sds"
    guidance_scale: Annotated[float, Field(ge=0)] = 50.0
    guidance_base: GuidanceBase = "text"
    weighting: Weighting = "uniform"
    t_min: Fraction = 0.02
    t_max: Fraction = 0.60
    reduction: Reduction = "mean"
    dtype: Precision = "auto"

    alphas_cumprod: Tensor = field(init=False, repr=False)
    prediction_type: str = field(init=False, repr=False)
    timesteps: ClassVar[int] = 1000

    def __post_init__(self) -> None:
        if self.t_min > self.t_max:
            raise ValueError(f"t_min {self.t_min} is above t_max {self.t_max}")

    @abstractmethod
    def to_model_space(self, relit: Tensor, noise: Noise) -> Tensor:
        """Differentiable: (N,3,H,W) sRGB [0,1] to what the model denoises, float32."""

    @abstractmethod
    def predict(self, noisy: Tensor, given: Given) -> tuple[Tensor, Tensor | None]:
        """Return the conditioned prediction and the unconditioned one (None: there is no condition)."""

    def draw_timesteps(self, batch: int, generator: Generator) -> Tensor:
        """Draw t uniform over the integers of [t_min T, t_max T], (batch,)."""
        low, high = int(self.timesteps * self.t_min), int(self.timesteps * self.t_max)
        high = min(high, self.timesteps - 1)
        return torch.randint(low, high + 1, (batch,), generator=generator)

    def __call__(
        self, relit: Tensor, condition: Condition, illumination: Illumination, noise: Noise
    ) -> Tensor:
        """Score (N,3,H,W) sRGB [0,1]: a loss (N,) whose gradient is the rule's."""
        x = self.to_model_space(relit, noise)
        with torch.no_grad():
            gradient = self._gradient(x.detach(), Given(condition, illumination, noise))
        return scores.distillation_loss(x, gradient, self.reduction)

    def _gradient(self, x: Tensor, given: Given) -> Tensor:
        eps = given.noise["noise"]
        alpha_bar = self.alphas_cumprod[given.timestep]
        noisy = scores.add_noise(x, eps, alpha_bar)
        told, untold = self.predict(noisy, given)
        guided = told if untold is None else self._guide(told, untold)
        if self.prediction_type == "v_prediction":
            guided = scores.noise_from_velocity(guided, noisy, alpha_bar)
        elif self.prediction_type == "sample":
            guided = scores.noise_from_sample(guided, noisy, alpha_bar)
        return scores.sds_gradient(guided, eps, scores.weight(alpha_bar, self.weighting))

    def _guide(self, told: Tensor, untold: Tensor) -> Tensor:
        return scores.guide(told, untold, self.guidance_scale, self.guidance_base)

    def precision(self, device: torch.device) -> torch.dtype:
        """Return the dtype of the frozen model on a device."""
        if self.dtype == "auto":
            return torch.float16 if device.type == "cuda" else torch.float32
        if self.dtype == "float16" and device.type == "cpu":
            return torch.float32
        return {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[self.dtype]

    def use_schedule(self, scheduler_config: Mapping[str, Any], device: torch.device) -> None:
        """Take alpha_bar and the prediction type from a checkpoint's scheduler configuration.

        Raises:
            WeightsError: if the schedule is not of 1000 timesteps.
        """
        from diffusers import DDIMScheduler

        scheduler = DDIMScheduler.from_config(dict(scheduler_config))
        if scheduler.config.num_train_timesteps != self.timesteps:
            found = scheduler.config.num_train_timesteps
            raise WeightsError(f"a noise schedule of {found} timesteps; {self.timesteps} are supported")
        self.alphas_cumprod = scheduler.alphas_cumprod.to(device)
        self.prediction_type = scheduler.config.prediction_type
