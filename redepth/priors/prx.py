"""PRXPixel as the prior: flow matching of pixels, without a VAE."""

from __future__ import annotations

import html
import importlib.metadata
import re
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from redepth.contracts import Noise
from redepth.errors import MissingDependencyError, WeightsError, brief
from redepth.priors.distillation import StepInputs
from redepth.priors.pictures import fit_square
from redepth.priors.scores import Branch
from redepth.priors.text import Reading, TextEmbeddings, TextPart
from redepth.priors.text_diffusion import TextDiffusion

TOKENS = 256
"""Length of a text in tokens."""
NOISE_SCALE = 2.0
"""Standard deviation of the noise, unless the checkpoint has another one."""
LARGEST_SCALE = 100.0
DIFFUSERS = (0, 39)
"""The first release of diffusers whose transformer reads these checkpoints."""


@dataclass(kw_only=True, eq=False)
class PRXPixel(TextDiffusion):
    r"""PRXPixel checkpoints through diffusers: a flow-matching transformer of pixels.

    The picture is scaled to fit ``size`` x ``size`` (bilinear, corners aligned), padded with 0 to the square
    and mapped to [-1, 1]. That is what the transformer denoises: there is no encoder that gradients would
    have to pass. It predicts the clean picture, and its noise n has a standard deviation of 2:

    .. math:: x_t = (1 - \sigma) x + \sigma n, \qquad u = \frac{x_t - x}{\max(\sigma, 0.05)}

    (`schedule.Schedule`). In every rule, n is the noise. The transformer's time is sigma, and it is told its
    picture's size. The text is the last hidden states of Qwen3-VL's language model, padded to 256 tokens;
    the padding is masked.

    The options are those of `text_diffusion.TextDiffusion`.

    Source: Photoroom, https://huggingface.co/Photoroom/prxpixel-t2i; for the prediction of pictures Li and
    He, arXiv 2511.13720.
    """

    checkpoint: str = "Photoroom/prxpixel-t2i"
    size: Annotated[int, Field(ge=64, le=2048, multiple_of=16)] = 1024

    family: ClassVar[str] = "prx-pixel"
    denoiser: ClassVar[tuple[str, str]] = ("PRXTransformer2DModel", "transformer")
    half: ClassVar[torch.dtype] = torch.bfloat16
    flow_predicts: ClassVar[Literal["flow", "sample"]] = "sample"
    text_widths: ClassVar[tuple[str, ...]] = ("context_in_dim",)

    def check_packages(self) -> None:
        """Raise MissingDependencyError now if a package is missing, or diffusers is too old."""
        super().check_packages()
        found = importlib.metadata.version("diffusers")
        if tuple(int(number) for number in re.findall(r"\d+", found)[:2]) < DIFFUSERS:
            raise MissingDependencyError(
                f"diffusers {found} cannot load PRXPixel, and 0.39 or later can: pip install -U "
                '"diffusers>=0.39,<1"'
            )

    @property
    def text_parts(self) -> tuple[TextPart, ...]:
        """The language model of Qwen3-VL."""
        return (TextPart("", "Qwen3VLTextModel", TOKENS, masked=True),)

    @property
    def text_conditions(self) -> dict[str, int]:
        """The names of the text conditions, each with its number of dimensions."""
        return {"embedding": 3, "mask": 2}

    def prompts(self, prompt: str) -> dict[Branch, str]:
        """Return the prompt of each branch that the rule needs, its HTML entities as characters."""
        found = super().prompts(prompt).items()
        return {branch: html.unescape(html.unescape(text)).strip() for branch, text in found}

    def embed(self, outputs: list[Reading]) -> TextEmbeddings:
        """Return the last hidden states and the mask."""
        return {"embedding": outputs[0].last_hidden_state, "mask": outputs[0].mask.bool()}

    def _scheduler_class(self) -> Any:
        from diffusers import FlowMatchEulerDiscreteScheduler

        return FlowMatchEulerDiscreteScheduler

    def check_denoiser(self) -> None:
        """Raise WeightsError unless the transformer reads pixels, and the noise has a usable scale."""
        config = self._denoiser.config
        if config.in_channels != 3:
            raise WeightsError(
                f"'{self.checkpoint}': its transformer reads {config.in_channels} channels, not the 3 of "
                f"pixels: take a checkpoint of PRXPixel, such as {PRXPixel.checkpoint}"
            )
        if self.size % config.patch_size:
            raise WeightsError(
                f"'{self.checkpoint}': its transformer reads patches of {config.patch_size} pixels: "
                "prior.size must be a multiple of it"
            )
        scale = self._pipeline.get("noise_scale", NOISE_SCALE)
        if not isinstance(scale, int | float) or not 0 < scale <= LARGEST_SCALE:
            raise WeightsError(
                f"'{self.checkpoint}': its noise_scale {brief(scale)} must be a number above 0, up to "
                f"{LARGEST_SCALE:g}"
            )

    @property
    def noise_scale(self) -> float:
        """Standard deviation of the model's noise."""
        return float(self._pipeline.get("noise_scale", NOISE_SCALE))

    def draw_model(self, batch: int, generator: Generator) -> dict[str, Tensor]:
        """Draw the noise, (batch, 3, size, size)."""
        return {"noise": self.noise_scale * torch.randn(batch, 3, self.size, self.size, generator=generator)}

    def to_model_space(self, relit: Tensor, noise: Noise) -> Tensor:
        """Fit and pad (N,3,H,W) sRGB to (N,3,size,size) in [-1, 1], float32."""
        return fit_square(relit, self.size) * 2 - 1

    def denoise(self, noisy: Tensor, timestep: Tensor, texts: TextEmbeddings, inputs: StepInputs) -> Tensor:
        """Run the transformer; return the clean pictures."""
        return self._denoiser(
            noisy,
            timestep=self.schedule.s[timestep],
            encoder_hidden_states=texts["embedding"],
            attention_mask=texts["mask"],
        ).sample
