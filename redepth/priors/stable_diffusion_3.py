"""Stable Diffusion 3 and 3.5 as the prior: flow matching by a transformer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from redepth.priors.distillation import StepInputs
from redepth.priors.latent import LatentDiffusion
from redepth.priors.schedule import TIMESTEPS
from redepth.priors.text import TextEmbeddings, TextPart

T5_TOKENS = 256


@dataclass(kw_only=True, eq=False)
class StableDiffusion3(LatentDiffusion):
    r"""SD 3 and 3.5 checkpoints through diffusers: flow matching in 16 channels, two or three text encoders.

    The transformer is conditioned on a sequence and on the pooled texts of both CLIP encoders. The sequence
    is the penultimate hidden states of both CLIP encoders side by side, padded with zeros to T5's width,
    followed by T5's last hidden states, which are zeros without it. Its time is 1000 sigma; t counts from 0,
    so that sigma is (t + 1) / 1000 (`schedule.Schedule`).

    Args:
        t5: whether T5 reads the prompt too (9.5 GB more to download, and in memory while it reads; the
            published pipeline also runs without it). Its embeddings are cached like the others.

    The other options are those of `latent.LatentDiffusion`.

    Source: Esser et al., arXiv 2403.03206.
    """

    checkpoint: str = "stabilityai/stable-diffusion-3-medium-diffusers"
    size: Annotated[int, Field(ge=64, le=2048, multiple_of=16)] = 1024
    t5: bool = False

    family: ClassVar[str] = "stable-diffusion-3"
    denoiser: ClassVar[tuple[str, str]] = ("SD3Transformer2DModel", "transformer")
    tiny_vae: ClassVar[str] = "madebyollin/taesd3"

    @property
    def text_parts(self) -> tuple[TextPart, ...]:
        """CLIP's and OpenCLIP's with their projections, and T5 if the option is set."""
        parts = (
            TextPart("", "CLIPTextModelWithProjection"),
            TextPart("_2", "CLIPTextModelWithProjection"),
        )
        return (*parts, TextPart("_3", "T5EncoderModel", T5_TOKENS)) if self.t5 else parts

    def embed(self, outputs: list[Any]) -> TextEmbeddings:
        """Return the joint sequence and the pooled texts."""
        width = self._denoiser.config.joint_attention_dim
        clip = torch.cat([output.hidden_states[-2] for output in outputs[:2]], dim=-1)
        clip = F.pad(clip, (0, width - clip.shape[-1]))
        t5 = outputs[2].last_hidden_state.to(clip.dtype) if self.t5 else clip.new_zeros(1, T5_TOKENS, width)
        pooled = torch.cat([output.text_embeds for output in outputs[:2]], dim=-1)
        return {"embedding": torch.cat([clip, t5], dim=1), "pooled": pooled}

    def denoise(self, noisy: Tensor, timestep: Tensor, texts: TextEmbeddings, inputs: StepInputs) -> Tensor:
        """Run the transformer."""
        time = self.schedule.s[timestep] * TIMESTEPS
        return self._denoiser(
            hidden_states=noisy,
            timestep=time,
            encoder_hidden_states=texts["embedding"],
            pooled_projections=texts["pooled"],
        ).sample

    def _scheduler_class(self) -> Any:
        from diffusers import FlowMatchEulerDiscreteScheduler

        return FlowMatchEulerDiscreteScheduler


@dataclass(kw_only=True, eq=False)
class StableDiffusion35(StableDiffusion3):
    """SD 3.5 medium, and large as ``checkpoint: stabilityai/stable-diffusion-3.5-large``.

    The same pipeline as SD 3 with normalised queries and keys; the first 13 layers of medium have a second
    attention among the latents. Published in bfloat16, and used with all three text encoders.

    Args:
        t5: whether T5 reads the prompt too (9.5 GB more to download, and in memory while it reads).

    The other options are those of `StableDiffusion3`.
    """

    checkpoint: str = "stabilityai/stable-diffusion-3.5-medium"
    t5: bool = True

    half: ClassVar[torch.dtype] = torch.bfloat16
