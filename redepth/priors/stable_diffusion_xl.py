"""Stable Diffusion XL as the prior."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from redepth.errors import WeightsError
from redepth.ops.constants import constant
from redepth.priors.distillation import StepInputs
from redepth.priors.latent import LatentDiffusion
from redepth.priors.text import TextEmbeddings, TextPart


@dataclass(kw_only=True, eq=False)
class StableDiffusionXL(LatentDiffusion):
    """SDXL checkpoints through diffusers: two text encoders, conditioned on the picture's size.

    The UNet is conditioned on the penultimate hidden states of both encoders side by side, the pooled text of
    the second, and six numbers: original size, corner of the crop, target size; here (size, size), (0, 0),
    (size, size), a picture of the model's own size that was not cropped. If the checkpoint has
    ``force_zeros_for_empty_prompt``, like the base model, an empty prompt is zeros in every branch.

    The VAE overflows in float16. It runs in float32 then, unless its configuration has
    ``force_upcast: false`` (as madebyollin/sdxl-vae-fp16-fix).

    The options are those of `latent.LatentDiffusion`.

    Source: Podell et al., arXiv 2307.01952, sections 2.1 and 2.2.
    """

    checkpoint: str = "stabilityai/stable-diffusion-xl-base-1.0"
    size: Annotated[int, Field(ge=64, le=2048, multiple_of=8)] = 1024

    family: ClassVar[str] = "stable-diffusion-xl"
    tiny_vae: ClassVar[str] = "madebyollin/taesdxl"

    @property
    def text_parts(self) -> tuple[TextPart, ...]:
        """CLIP's, and OpenCLIP's with its projection."""
        return TextPart("", "CLIPTextModel"), TextPart("_2", "CLIPTextModelWithProjection")

    def embed(self, outputs: list[Any]) -> TextEmbeddings:
        """Return the penultimate hidden states side by side, and the second encoder's pooled text."""
        states = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        return {"embedding": states, "pooled": outputs[1].text_embeds}

    def embed_text(self, text: str) -> TextEmbeddings:
        """Embed a text; an empty one is zeros if the model was trained so."""
        embeddings = super().embed_text(text)
        if not text and self._pipeline.get("force_zeros_for_empty_prompt", True):
            return {name: torch.zeros_like(value) for name, value in embeddings.items()}
        return embeddings

    def text_origin(self) -> tuple[str, ...]:
        """Return everything that an embedding depends on except its text."""
        return (*super().text_origin(), str(self._pipeline.get("force_zeros_for_empty_prompt", True)))

    def vae_precision(self, config: Mapping[str, Any]) -> torch.dtype:
        """Return float32 in place of float16 for a VAE that overflows in it."""
        return precise_vae(self._dtype, config)

    def load_denoiser(self, cls: Any, dtype: torch.dtype) -> Any:
        """Return the UNet on the CPU. Raises WeightsError if it is not conditioned on text and size."""
        unet = super().load_denoiser(cls, dtype)
        if unet.config.addition_embed_type != "text_time":
            raise WeightsError(
                f"'{self.checkpoint}': its UNet is not conditioned on the size, so it is not SDXL's; for "
                "Stable Diffusion 1.x and 2.x take prior.name=stable-diffusion"
            )
        return unet

    def denoise(self, noisy: Tensor, timestep: Tensor, texts: TextEmbeddings, inputs: StepInputs) -> Tensor:
        """Run the UNet."""
        side = float(self.size)
        size = constant((side, side, 0.0, 0.0, side, side), noisy)
        added = {"text_embeds": texts["pooled"], "time_ids": size.expand(len(noisy), 6)}
        embedding = texts["embedding"]
        return self._denoiser(
            noisy, timestep, encoder_hidden_states=embedding, added_cond_kwargs=added
        ).sample


def precise_vae(dtype: torch.dtype, config: Mapping[str, Any]) -> torch.dtype:
    """Return the dtype of SDXL's VAE: float32 in place of float16, in which it overflows.

    Args:
        dtype: of the denoiser.
        config: of the VAE; ``force_upcast: false`` says that it does not overflow.
    """
    upcast = dtype == torch.float16 and config.get("force_upcast", True)
    return torch.float32 if upcast else dtype
