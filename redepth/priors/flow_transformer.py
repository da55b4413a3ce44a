"""What the priors with a large flow-matching transformer and a language model as text encoder share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from redepth.priors.latent import LatentDiffusion


@dataclass(kw_only=True, eq=False)
class FlowTransformer(LatentDiffusion):
    """A flow-matching transformer of latents, published in bfloat16, through diffusers.

    It reads the latents in patches of 2 x 2, so that a token is a square of 16 pixels. Its time is a function
    of sigma = (t + 1) / 1000 (`schedule.Schedule`). The sampler's shift of timesteps does not apply.

    The options are those of `latent.LatentDiffusion`.
    """

    size: Annotated[int, Field(ge=64, le=2048, multiple_of=16)] = 1024
    vae: Literal["own"] = "own"

    half: ClassVar[torch.dtype] = torch.bfloat16

    def _scheduler_class(self) -> Any:
        from diffusers import FlowMatchEulerDiscreteScheduler

        return FlowMatchEulerDiscreteScheduler

    def sigma(self, timestep: Tensor) -> Tensor:
        """Return the noise level sigma of each row, (N,) float32."""
        return self.schedule.s[timestep]


def to_tokens(latents: Tensor) -> Tensor:
    """Return (N,C,H,W) as tokens (N, H W, C), row by row."""
    return latents.flatten(2).transpose(1, 2)


def from_tokens(tokens: Tensor, side: int) -> Tensor:
    """Return tokens (N, side^2, C) as (N, C, side, side)."""
    return tokens.transpose(1, 2).unflatten(2, (side, side))
