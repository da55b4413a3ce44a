"""Stable Diffusion class models (latent, text-conditioned) as the prior: the paper's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Generator, Tensor
from typing_extensions import Self

from redepth import hub
from redepth.contracts import Condition, Noise
from redepth.errors import InputError
from redepth.priors.distillation import DiffusionPrior, Given

FILES = (
    "scheduler/scheduler_config.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
)
"""What is loaded of a pipeline's repository."""


@dataclass(kw_only=True, eq=False)
class StableDiffusion(DiffusionPrior):
    """Stable Diffusion 1.x and 2.x checkpoints through diffusers.

    The picture is scaled to fit ``size`` x ``size`` (bilinear, corners aligned), padded with 0 to the
    square, mapped to [-1, 1], and encoded by the VAE: a sample of the posterior times the scaling factor.

    Args:
        checkpoint: hub id or local folder of a diffusers pipeline.
        revision: commit, tag or branch of the hub repository.
        size: side of the square picture, in pixels.
        negative_prompt: what the unconditioned prediction is told.

    Source: Rombach et al., arXiv 2112.10752; settings of arXiv 2512.17908.
    """

    checkpoint: str = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    revision: str | None = None
    size: Annotated[int, Field(ge=64, le=2048, multiple_of=8)] = 512
    negative_prompt: str = ""

    def ensure_available(self) -> None:
        """Raise WeightsError now if the weights cannot be had."""
        hub.ensure_available(self.checkpoint, self.revision, FILES)

    def load(self, device: torch.device) -> Self:
        """Load tokenizer, text encoder, VAE and UNet, frozen and in eval mode.

        Raises:
            WeightsError: missing, unreachable, corrupted or of another class.
        """
        from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
        from transformers import CLIPTextModel, CLIPTokenizer

        self._device, self._dtype = device, self.precision(device)

        def frozen(cls: Any, subfolder: str, **dtype: torch.dtype) -> Any:
            model = self._component(cls, subfolder, use_safetensors=True, **dtype)
            return model.eval().requires_grad_(False)

        self._tokenizer = self._component(CLIPTokenizer, "tokenizer")
        self._text_encoder = frozen(CLIPTextModel, "text_encoder", dtype=self._dtype)
        self._vae = frozen(AutoencoderKL, "vae", torch_dtype=self._dtype).to(device)
        self._unet = frozen(UNet2DConditionModel, "unet", torch_dtype=self._dtype).to(device)
        # The score needs the VAE's encoder alone.
        del self._vae.decoder
        self.use_schedule(self._component(DDIMScheduler, "scheduler").config, device)
        return self

    def condition(self, image: Tensor, prompt: str) -> Condition:
        """Embed the prompt and the negative prompt; the text encoder leaves the device afterwards.

        Raises:
            InputError: if the prompt is longer than the text encoder reads.
        """
        self._text_encoder.to(self._device)
        tensors = {"text": self._embed(prompt), "uncond": self._embed(self.negative_prompt)}
        self._text_encoder.to("cpu")
        return Condition(tensors)

    def draw(self, batch: int, generator: Generator) -> Noise:
        """Draw timestep (batch,), posterior and diffusion noise (batch, C, size/8, size/8)."""
        side = self.size // 8
        shape = (batch, self._vae.config.latent_channels, side, side)
        timestep = self.draw_timesteps(batch, generator)
        posterior = torch.randn(shape, generator=generator)
        noise = torch.randn(shape, generator=generator)
        return Noise({"timestep": timestep, "posterior": posterior, "noise": noise})

    def to_model_space(self, relit: Tensor, noise: Noise) -> Tensor:
        """Fit, pad and encode (N,3,H,W) sRGB to latents (N,C,size/8,size/8), float32."""
        picture = fit_square(relit, self.size) * 2 - 1
        # In half precision the gradient of a mean over the latents underflows inside the VAE, so it passes
        # through it multiplied by their number, and is divided again on the way out.
        scaled = self._dtype == torch.float16 and self.reduction == "mean"
        factor = float(noise["noise"][0].numel()) if scaled else 1.0
        picture = scale_gradient(picture, 1.0 / factor)
        posterior = self._vae.encode(picture.to(self._dtype)).latent_dist
        latents = posterior.mean.float() + posterior.std.float() * noise["posterior"]
        return scale_gradient(latents * self._vae.config.scaling_factor, factor)

    def predict(self, noisy: Tensor, given: Given) -> tuple[Tensor, Tensor]:
        """Predict under the prompt and under the negative prompt, in one batch."""
        count = len(noisy)
        embeddings = [given.condition.tensors[k].expand(count, -1, -1) for k in ("text", "uncond")]
        out = self._unet(
            torch.cat([noisy, noisy]).to(self._dtype),
            torch.cat([given.timestep, given.timestep]),
            encoder_hidden_states=torch.cat(embeddings),
        ).sample
        told, untold = out.float().chunk(2)
        return told, untold

    def describe(self) -> dict[str, Any]:
        """Return checkpoint, revision, precision and rule for the run record."""
        return {
            "checkpoint": self.checkpoint,
            "revision": self.revision,
            "dtype": str(self._dtype).removeprefix("torch."),
            "score": self.score,
        }

    def _component(self, cls: Any, subfolder: str, **options: Any) -> Any:
        return hub.from_pretrained(
            cls, self.checkpoint, revision=self.revision, subfolder=subfolder, **options
        )

    @torch.no_grad()
    def _embed(self, prompt: str) -> Tensor:
        limit = self._tokenizer.model_max_length
        length = len(self._tokenizer(prompt).input_ids)
        if length > limit:
            raise InputError(
                f"the prompt is {length} tokens long and the text encoder reads {limit}: shorten it"
            )
        tokens = self._tokenizer(
            prompt, padding="max_length", max_length=limit, return_tensors="pt"
        ).input_ids
        return self._text_encoder(tokens.to(self._device))[0]


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """Return x, whose gradient is multiplied by a factor on the way back."""
    return x if factor == 1.0 else _ScaleGradient.apply(x, factor)


def fit_square(picture: Tensor, size: int) -> Tensor:
    """Scale (N,3,H,W) to fit a square (bilinear, corners aligned) and pad with 0, picture in the middle."""
    height, width = picture.shape[-2:]
    scale = size / max(height, width)
    h, w = max(1, round(height * scale)), max(1, round(width * scale))
    fitted = F.interpolate(picture, size=(h, w), mode="bilinear", align_corners=True)
    top, left = (size - h) // 2, (size - w) // 2
    return F.pad(fitted, (left, size - w - left, top, size - h - top))
