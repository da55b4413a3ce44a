"""Stable Diffusion class models (latent, text-conditioned) as the prior: the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Generator, Tensor
from typing_extensions import Self

from redepth import hub
from redepth.contracts import Condition, Noise
from redepth.errors import InputError
from redepth.priors.distillation import DiffusionPrior, Given
from redepth.priors.scores import Branch

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


NEGATIVE = (
    "unrealistic, blurry, low quality, out of focus, ugly, low contrast, dull, dark, low-resolution, gloomy"
)
"""Negative prompt of the scores that need one (arXiv 2310.17590, section 5)."""

ARTEFACTS = "oversaturated, smooth, pixelated, cartoon, foggy, hazy, blurry, bad structure, noisy, malformed"
"""What distilled pictures tend to look like (arXiv 2406.09417, section 5)."""


@dataclass(kw_only=True, eq=False)
class StableDiffusion(DiffusionPrior):
    """Stable Diffusion 1.x and 2.x checkpoints through diffusers.

    The picture is scaled to fit ``size`` x ``size`` (bilinear, corners aligned), padded with 0 to the
    square, mapped to [-1, 1], and encoded by the VAE: a sample of the posterior times the scaling factor.

    Args:
        checkpoint: hub id or local folder of a diffusers pipeline.
        revision: commit, tag or branch of the hub repository.
        size: side of the square picture, in pixels.
        negative_prompt: what the unconditioned prediction is told. For the scores that have a negative
            prompt beside the empty one (``nfsd``, ``csd`` with ``negative_scale``) it is that one, and empty
            means `NEGATIVE`.
        source_prompt: what the photo shows, for ``dds`` (empty: the prompt).
        artefacts: what the picture is like before it is refined, said after the prompt, for ``sds-bridge``.

    Source: Rombach et al., arXiv 2112.10752; settings of arXiv 2512.17908.
    """

    checkpoint: str = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    revision: str | None = None
    size: Annotated[int, Field(ge=64, le=2048, multiple_of=8)] = 512
    negative_prompt: str = ""
    source_prompt: str = ""
    artefacts: str = ARTEFACTS

    answers: ClassVar[frozenset[Branch]] = frozenset({"text", "uncond", "negative", "source", "artefacts"})

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
        """Embed what the rule asks for; the text encoder leaves the device afterwards.

        Raises:
            InputError: if a prompt is longer than the text encoder reads.
        """
        self._text_encoder.to(self._device)
        tensors = {name: self._embed(text) for name, text in self.prompts(prompt).items()}
        self._text_encoder.to("cpu")
        return Condition({**tensors, "photo": image})

    def prompts(self, prompt: str) -> dict[Branch, str]:
        """Return what each branch that the rule asks for is told."""
        contrasted = "negative" in self.asked
        told = {
            "text": prompt,
            "uncond": "" if contrasted else self.negative_prompt,
            "negative": self.negative_prompt or NEGATIVE,
            "source": self.source_prompt or prompt,
            "artefacts": ", ".join(part for part in (prompt, self.artefacts) if part),
        }
        return {name: text for name, text in told.items() if name in self.asked}

    def draw_model(self, batch: int, generator: Generator) -> dict[str, Tensor]:
        """Draw posterior and diffusion noise, (batch, C, size/8, size/8)."""
        side = self.size // 8
        shape = (batch, self._vae.config.latent_channels, side, side)
        posterior = torch.randn(shape, generator=generator)
        return {"posterior": posterior, "noise": torch.randn(shape, generator=generator)}

    def network(self) -> torch.nn.Module:
        """Return the UNet."""
        return self._unet

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

    def predict(
        self, noisy: Tensor, timestep: Tensor, given: Given, branches: Sequence[Branch]
    ) -> dict[Branch, Tensor]:
        """Predict under the prompt of each branch, in one batch."""
        embeddings = [given.condition.tensors[k].expand(len(noisy), -1, -1) for k in branches]
        out = self._unet(
            torch.cat([noisy] * len(branches)).to(self._dtype),
            torch.cat([timestep] * len(branches)),
            encoder_hidden_states=torch.cat(embeddings),
        ).sample
        return dict(zip(branches, out.float().chunk(len(branches)), strict=True))

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
