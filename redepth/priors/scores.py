"""Score distillation rules: pure functions from a frozen model's predictions to a gradient, and its loss.

Notation: x the clean picture or latent, eps the noise, alpha_bar_t the cumulative noise schedule,
x_t = sqrt(alpha_bar_t) x + sqrt(1 - alpha_bar_t) eps, e the prediction of eps.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

GuidanceBase = Literal["text", "uncond"]
Weighting = Literal["uniform", "sds", "fantasia3d", "x0"]
Reduction = Literal["mean", "sum"]


def add_noise(x: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """x_t = sqrt(alpha_bar) x + sqrt(1 - alpha_bar) eps; ``alpha_bar`` (N,)."""
    a = _broadcast(alpha_bar, x)
    return a.sqrt() * x + (1 - a).sqrt() * noise


def noise_from_velocity(velocity: Tensor, noisy: Tensor, alpha_bar: Tensor) -> Tensor:
    """E = sqrt(alpha_bar) v + sqrt(1 - alpha_bar) x_t (Salimans and Ho, arXiv 2202.00512)."""
    a = _broadcast(alpha_bar, noisy)
    return a.sqrt() * velocity + (1 - a).sqrt() * noisy


def noise_from_sample(sample: Tensor, noisy: Tensor, alpha_bar: Tensor) -> Tensor:
    """E = (x_t - sqrt(alpha_bar) x0) / sqrt(1 - alpha_bar)."""
    a = _broadcast(alpha_bar, noisy)
    return (noisy - a.sqrt() * sample) / (1 - a).sqrt()


def guide(conditioned: Tensor, unconditioned: Tensor, scale: float, base: GuidanceBase = "text") -> Tensor:
    r"""Classifier-free guidance.

    .. math:: e = e_{base} + g \, (e_{text} - e_{uncond})

    ``base="text"`` is the paper's implementation's form, ``"uncond"`` the usual one (Ho and Salimans,
    arXiv 2207.12598): guidance g over "text" is guidance g + 1 over "uncond".
    """
    start = conditioned if base == "text" else unconditioned
    return start + scale * (conditioned - unconditioned)


def weight(alpha_bar: Tensor, weighting: Weighting) -> Tensor:
    r"""Return w(t), (N,).

    ``uniform`` 1; ``sds`` 1 - alpha_bar (DreamFusion, arXiv 2209.14988); ``fantasia3d``
    sqrt(alpha_bar) (1 - alpha_bar) (arXiv 2303.13873); ``x0`` sqrt((1 - alpha_bar) / alpha_bar), which
    makes the gradient x - x0_pred, the distance to the model's one-step reconstruction.
    """
    if weighting == "uniform":
        return torch.ones_like(alpha_bar)
    if weighting == "sds":
        return 1 - alpha_bar
    if weighting == "fantasia3d":
        return alpha_bar.sqrt() * (1 - alpha_bar)
    return ((1 - alpha_bar) / alpha_bar).sqrt()


def sds_gradient(predicted: Tensor, noise: Tensor, w: Tensor) -> Tensor:
    r"""Score distillation sampling: w(t) (e - eps), non-finite entries 0.

    Source: DreamFusion, arXiv 2209.14988, equation 3.
    """
    gradient = _broadcast(w, noise) * (predicted - noise)
    return torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)


def distillation_loss(x: Tensor, gradient: Tensor, reduction: Reduction = "mean") -> Tensor:
    r"""A loss per row whose derivative by x is the gradient (``sum``) or gradient / numel (``mean``).

    .. math:: \mathcal{L} = \tfrac12 \lVert x - \mathrm{sg}(x - g) \rVert^2

    summed or averaged over a row's entries; sg stops the gradient. Returns (N,).
    """
    squares = 0.5 * (x - (x - gradient).detach()) ** 2
    flat = squares.flatten(1)
    return flat.mean(dim=1) if reduction == "mean" else flat.sum(dim=1)


def _broadcast(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.dim() - 1))
