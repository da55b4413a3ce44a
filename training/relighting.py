"""What every prior is trained on, noised composites with some conditions dropped, and how it is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from redepth.priors.pixel_unet import PixelUNet, condition_rows
from training.networks import noise_schedule


@dataclass
class PriorBatch:
    """The inputs of one training step of the prior, all (N, ...)."""

    clean: Tensor
    noisy: Tensor
    target: Tensor
    timestep: Tensor
    photo: Tensor
    light: Tensor

    def to(self, device: torch.device) -> PriorBatch:
        """Return a copy on the device."""
        return PriorBatch(**{k: v.to(device) for k, v in vars(self).items()})


@dataclass(frozen=True)
class Composites:
    """Re-lit pictures of true surfaces: (N,3,S,S) ``relit`` and ``photo`` in [-1, 1], (N,7) ``light``."""

    relit: Tensor
    photo: Tensor
    light: Tensor


def draw_timesteps(count: int, generator: Generator, low_share: float = 0.15) -> Tensor:
    """Mostly high noise: at low noise the network only copies its input.

    Args:
        count: number of pictures.
        generator: of the CPU.
        low_share: share of the pictures with t below 500.
    """
    low = torch.where(torch.rand(count, generator=generator) < 1 - low_share, 500.0, 20.0)
    u = torch.rand(count, generator=generator)
    high = torch.where(low > 20.0, 1000.0, 500.0)
    return (low + u * (high - low)).long().clamp(max=999)


def prior_batch(seen: Composites, generator: Generator, alphas: Tensor) -> PriorBatch:
    """Noise the composites at random timesteps and drop conditions at random.

    80 % are conditioned on photo and light, 10 % on the photo alone, 10 % are unconditional.
    """
    count = len(seen.relit)
    timestep = draw_timesteps(count, generator)
    noise = torch.randn(seen.relit.shape, generator=generator)
    alpha = alphas[timestep].view(-1, 1, 1, 1)
    noisy = alpha.sqrt() * seen.relit + (1 - alpha).sqrt() * noise
    target = alpha.sqrt() * noise - (1 - alpha).sqrt() * seen.relit
    chance = torch.rand(count, generator=generator)
    tell_photo, tell_light = (chance < 0.9).float(), (chance < 0.8).float()
    photo, vector = condition_rows(seen.photo, seen.light, tell_photo, tell_light)
    return PriorBatch(seen.relit, noisy, target, timestep, photo, vector)


def denoising_steps(
    model: PixelUNet,
    batches: Iterator[PriorBatch],
    device: torch.device,
    forward: Callable[..., Tensor] | None = None,
) -> Callable[[], Tensor]:
    """Return a function that computes the loss of the next batch, with a compiled ``forward`` if set."""
    predict = model if forward is None else forward

    def step() -> Tensor:
        b = next(batches).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            prediction = predict(b.noisy, b.timestep, b.photo, b.light)
        return F.mse_loss(prediction.float(), b.target)

    return step


VALIDATION_TIMESTEPS = (100, 300, 500, 600, 700, 800, 900)


Told = tuple[Tensor, Tensor] | tuple[None, None] | tuple[None, Tensor]
"""What a model is told: photo and vector."""


def measured_scores(
    model: PixelUNet,
    seen: Composites,
    wrong: Tensor,
    generator: Generator,
    device: torch.device,
    *,
    unconditional: bool = False,
) -> dict[str, Any]:
    """Measure the scores with all conditions of the model and without conditions (`scores_when_told`).

    Args:
        model: the prior.
        seen: the true composites.
        wrong: (N, 3, S, S) in [-1, 1], re-lit from a wrong surface.
        generator: of the noise.
        device: of the model.
        unconditional: whether the model has no conditions.
    """
    told: dict[str, Told] = {}
    for conditional in (False,) if unconditional else (True, False):
        flag = torch.full((len(wrong),), float(conditional))
        # Keys of the stored logs.
        told["told" if conditional else "untold"] = condition_rows(seen.photo, seen.light, flag, flag)
    return scores_when_told(model, seen.relit, wrong, told, generator, device)


@torch.no_grad()
def scores_when_told(
    model: PixelUNet,
    truth: Tensor,
    wrong: Tensor,
    told: Mapping[str, Told],
    generator: Generator,
    device: torch.device,
) -> dict[str, Any]:
    """Measure by t the loss, and how well x0 points to the truth, under each condition.

    The picture x is re-lit from a wrong surface; its one-step reconstruction x0 should lie in the direction
    of the true composite. Reported is the mean cosine between x0 - x and truth - x.

    Args:
        model: the prior.
        truth: (N, 3, S, S) the true composites in [-1, 1].
        wrong: (N, 3, S, S) x in [-1, 1].
        told: name of a condition -> what the model is told.
        generator: of the noise.
        device: of the model.
    """
    noise, alphas = torch.randn(wrong.shape, generator=generator), noise_schedule()
    found: dict[str, Any] = {"timesteps": list(VALIDATION_TIMESTEPS)}
    for name, conditions in told.items():
        photo, vector = (None if v is None else v.to(device) for v in conditions)
        cosines, losses = [], []
        for t in VALIDATION_TIMESTEPS:
            a, b = alphas[t].sqrt(), (1 - alphas[t]).sqrt()
            timestep = torch.full((len(wrong),), t, device=device)
            v = [
                model((a * picture + b * noise).to(device), timestep, photo, vector).float().cpu()
                for picture in (wrong, truth)
            ]
            x0 = a * (a * wrong + b * noise) - b * v[0]
            cosine = F.cosine_similarity((x0 - wrong).flatten(1), (truth - wrong).flatten(1))
            cosines.append(float(cosine.mean()))
            losses.append(float(F.mse_loss(v[1], a * noise - b * truth)))
        found[name] = {"cosine": cosines, "loss": losses}
    return found
