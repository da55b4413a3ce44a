"""Noise schedules, and conversions between the prediction types of diffusion models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from redepth.errors import WeightsError, brief

Predicted = Literal["epsilon", "v_prediction", "sample", "flow"]

TIMESTEPS = 1000
LEAST_SIGMA = 0.05
"""Least noise level at which a predicted picture tells the noise: for velocities and inversion."""


@dataclass(frozen=True)
class Schedule:
    r"""The noise levels of x_t = a_t x + s_t eps, and the prediction type of the frozen model.

    Variance-preserving models (DDPM): a = sqrt(alpha_bar), s = sqrt(1 - alpha_bar). Flow matching:
    a = 1 - sigma, s = sigma with sigma = (t + 1) / T. A sampler's shift of timesteps is not applied: the
    prior draws t.

    Attributes:
        a: (T,) share of the clean picture at t = 0 ... T - 1.
        s: (T,) share of the noise.
        predicts: ``epsilon`` the noise; ``sample`` x; ``v_prediction`` v = a eps - s x (arXiv 2202.00512);
            ``flow`` the velocity u = eps - x (arXiv 2210.02747).
        flow: whether the noise levels are those of flow matching.
    """

    a: Tensor
    s: Tensor
    predicts: Predicted
    flow: bool = False

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], flow_predicts: Literal["flow", "sample"] = "flow"
    ) -> Schedule:
        """Read a diffusers scheduler configuration.

        Args:
            config: of the scheduler.
            flow_predicts: what the model predicts if the scheduler is one of flow matching. Its
                configuration does not say.

        Raises:
            WeightsError: if the schedule is not of 1000 timesteps or predicts something unknown.
        """
        steps = config.get("num_train_timesteps", TIMESTEPS)
        if steps != TIMESTEPS:
            raise WeightsError(f"a noise schedule of {brief(steps)} timesteps; {TIMESTEPS} are supported")
        if str(config.get("_class_name", "")).startswith("FlowMatch"):
            sigma = torch.arange(1, TIMESTEPS + 1, dtype=torch.float32) / TIMESTEPS
            return cls(1 - sigma, sigma, flow_predicts, flow=True)
        from diffusers import DDIMScheduler

        scheduler = DDIMScheduler.from_config(dict(config))
        predicts = scheduler.config.prediction_type
        if predicts not in ("epsilon", "v_prediction", "sample"):
            raise WeightsError(
                f"the scheduler's prediction_type is {brief(predicts)}, which is not supported"
            )
        alpha_bar = scheduler.alphas_cumprod
        if alpha_bar.shape != (TIMESTEPS,) or not bool(((alpha_bar >= 0) & (alpha_bar < 1)).all()):
            raise WeightsError("the scheduler's betas make no noise levels between 0 and 1")
        return cls(alpha_bar.sqrt(), (1 - alpha_bar).sqrt(), predicts)

    def to(self, device: torch.device) -> Schedule:
        """Return a copy on the device."""
        return replace(self, a=self.a.to(device), s=self.s.to(device))

    def at(self, timestep: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return a_t and s_t of each row, shaped to multiply ``like``; t = -1 is the clean picture."""
        shape = (-1, *[1] * (like.dim() - 1))
        index = timestep.clamp(min=0)
        clean = timestep < 0
        a = torch.where(clean, torch.ones_like(self.a[index]), self.a[index])
        s = torch.where(clean, torch.zeros_like(self.s[index]), self.s[index])
        return a.view(shape), s.view(shape)

    def add_noise(self, x: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """x_t = a_t x + s_t eps, rows (N, ...), timestep (N,)."""
        a, s = self.at(timestep, x)
        return a * x + s * noise

    def noise_of(self, prediction: Tensor, noisy: Tensor, timestep: Tensor) -> Tensor:
        """Return the noise e of a prediction."""
        a, s = self.at(timestep, noisy)
        if self.predicts == "sample":
            return (noisy - a * prediction) / s
        if self.predicts == "v_prediction":
            return a * prediction + s * noisy
        if self.predicts == "flow":
            return noisy + a * prediction
        return prediction

    def raised(self, timestep: Tensor) -> Tensor:
        r"""Return timesteps (N,) at which the model is asked for the noise while a picture is inverted.

        They are at least 0. For a model that predicts the clean picture they are also at least the first with
        s >= 0.05: below it the noise (x_t - a x) / s is the model's error many times over, 1000 times at
        s = 0.001.
        """
        if self.predicts != "sample":
            return timestep.clamp(min=0)
        # No number is read from the device. The levels rise with t.
        first = (self.s < LEAST_SIGMA).sum().clamp(max=len(self.s) - 1)
        return torch.maximum(timestep, first)

    def velocity_of(self, prediction: Tensor, noisy: Tensor, timestep: Tensor) -> Tensor:
        r"""Return the velocity u = eps - x of a flow-matching model's prediction.

        .. math:: u = \frac{x_t - x}{\max(\sigma, 0.05)}

        of a predicted clean picture x. The bound is that of training and sampling of such models (Li and He,
        arXiv 2511.13720); below it u is shorter than eps - x.
        """
        if self.predicts == "flow":
            return prediction
        _, s = self.at(timestep, noisy)
        return (noisy - prediction) / s.clamp(min=LEAST_SIGMA)

    def sample_of(self, noise: Tensor, noisy: Tensor, timestep: Tensor) -> Tensor:
        """Return the clean picture of a predicted noise, x = (x_t - s e) / a."""
        a, s = self.at(timestep, noisy)
        return (noisy - s * noise) / a.clamp(min=1e-3)

    def target(self, x: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """Return the regression target of training for x_t = a x + s eps."""
        a, s = self.at(timestep, x)
        targets = {"sample": x, "v_prediction": a * noise - s * x, "flow": noise - x, "epsilon": noise}
        return targets[self.predicts]

    def step(self, noisy: Tensor, noise: Tensor, start: Tensor, end: Tensor) -> Tensor:
        r"""Move from one noise level to another along the deterministic (DDIM) path.

        .. math:: x_{end} = a_{end} \frac{x_{start} - s_{start} e}{a_{start}} + s_{end} e

        ``end`` above ``start`` inverts. Source: Song et al., arXiv 2010.02502, equation 12 with eta = 0.
        """
        clean = self.sample_of(noise, noisy, start)
        return self.add_noise(clean, noise, end)
