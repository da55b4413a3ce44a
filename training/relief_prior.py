"""The priors of relief: composites, training steps, validation."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from redepth.data.scenes.synthetic import Domain, scenes
from redepth.ops.color import srgb_to_linear
from redepth.ops.filters import gaussian_blur
from redepth.priors.pixel_unet import PixelUNet, light_vector
from redepth.renderers.blinn_phong import BlinnPhong
from training.networks import SIZE, Kind, noise_schedule
from training.relief_depth import VALIDATION_SCENES, VALIDATION_SEED, with_mirrored
from training.relighting import Composites, denoising_steps, measured_scores, prior_batch

DOMAINS: dict[Kind, Domain] = {"relighting": "broad", "unconditional": "broad", "narrow": "mid"}


def composites(count: int, domain: Domain, generator: Generator) -> Composites:
    """Draw scenes and re-light them, half of the pictures mirrored.

    One batch in eight has quarters of scenes of twice the side, like the windows of a photo that is larger
    than the prior's size.
    """
    large = float(torch.rand((), generator=generator)) < 0.125
    side, tiles = (2 * SIZE, 4) if large else (SIZE, 1)
    drawn = with_mirrored(scenes(count // (2 * tiles), domain, generator, height=side, width=side))
    illumination = BlinnPhong().draw(len(drawn.image), generator)
    relit = BlinnPhong()(drawn.depth, srgb_to_linear(drawn.image), illumination)[:, 0]
    light = light_vector(illumination.flatten())
    return Composites(
        windows(relit) * 2 - 1, windows(drawn.image) * 2 - 1, light.repeat_interleave(tiles, dim=0)
    )


def windows(pictures: Tensor) -> Tensor:
    """Cut pictures of any multiple of `SIZE` into windows of it, (N * tiles, C, S, S)."""
    tiles = pictures.unfold(2, SIZE, SIZE).unfold(3, SIZE, SIZE).permute(0, 2, 3, 1, 4, 5)
    return tiles.reshape(-1, pictures.shape[1], SIZE, SIZE)


def prior_steps(
    model: PixelUNet,
    generator: Generator,
    batch: int,
    device: torch.device,
    kind: Kind = "relighting",
    forward: Callable[..., Tensor] | None = None,
) -> Callable[[], Tensor]:
    """Return a function that computes the loss of the next batch, with a compiled ``forward`` if set."""
    alphas = noise_schedule()
    batches = (
        prior_batch(composites(batch, DOMAINS[kind], generator), generator, alphas) for _ in itertools.count()
    )
    return denoising_steps(model, batches, device, forward)


def validate_prior(model: PixelUNet, kind: Kind, device: torch.device) -> dict[str, Any]:
    """Measure the scores on fixed scenes of the broad domain (`relighting.measured_scores`).

    The wrong surface is the true one blurred and half as high.
    """
    generator = torch.Generator().manual_seed(VALIDATION_SEED)
    drawn = scenes(VALIDATION_SCENES, "broad", generator, height=SIZE, width=SIZE)
    lights = BlinnPhong().draw(VALIDATION_SCENES, generator)
    linear = srgb_to_linear(drawn.image)
    flat = 1 + 0.5 * (gaussian_blur(drawn.depth, 4.0) - 1)
    truth, wrong = (BlinnPhong()(depth, linear, lights)[:, 0] * 2 - 1 for depth in (drawn.depth, flat))
    seen = Composites(truth, drawn.image * 2 - 1, light_vector(lights.flatten()))
    unconditional = kind == "unconditional"
    return measured_scores(model, seen, wrong, generator, device, unconditional=unconditional)
