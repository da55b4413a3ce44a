"""PixArt-Sigma as the prior: a small transformer with T5 as text encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from redepth import checkpoints
from redepth.errors import WeightsError
from redepth.ops.constants import constant
from redepth.priors.distillation import StepInputs
from redepth.priors.latent import LatentDiffusion
from redepth.priors.scores import Branch
from redepth.priors.stable_diffusion_xl import precise_vae
from redepth.priors.text import Reading, TextEmbeddings, TextPart
from redepth.registry import require

TOKENS = 300
"""Length of a text in tokens (arXiv 2403.04692, section 3.1)."""
NEEDED = ("sentencepiece", "google.protobuf")
"""They read a vocabulary that is there as ``spiece.model`` alone, as in the published checkpoints."""
EXTRA = "t5"


@dataclass(kw_only=True, eq=False)
class PixArtSigma(LatentDiffusion):
    r"""PixArt-Sigma checkpoints through diffusers: noise prediction in 4 channels, T5 under a mask.

    The transformer attends to T5's last hidden states at the prompt's tokens, in small letters. It also
    predicts a variance: of its 8 channels the first 4 are the noise. If the checkpoint says so
    (``use_additional_conditions``; the published ones of PixArt-Sigma do not), it is told the picture's size
    and its aspect ratio as well, here (size, size) and 1.

    The VAE is SDXL's, which overflows in float16 (`stable_diffusion_xl.precise_vae`).

    Args:
        transformer_checkpoint: hub id or local folder of another transformer, such as
            ``PixArt-alpha/PixArt-Sigma-XL-2-512-MS`` with ``size: 512``, whose repository holds nothing else.
        transformer_revision: commit, tag or branch of its repository.

    The other options are those of `latent.LatentDiffusion`.

    Source: Chen et al., arXiv 2403.04692.
    """

    checkpoint: str = "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS"
    size: Annotated[int, Field(ge=64, le=2048, multiple_of=16)] = 1024
    transformer_checkpoint: str | None = None
    transformer_revision: str | None = None

    family: ClassVar[str] = "pixart-sigma"
    denoiser: ClassVar[tuple[str, str]] = ("PixArtTransformer2DModel", "transformer")
    tiny_vae: ClassVar[str] = "madebyollin/taesdxl"
    text_widths: ClassVar[tuple[str, ...]] = ("caption_channels",)

    @property
    def text_parts(self) -> tuple[TextPart, ...]:
        """T5, which is told which tokens are padding."""
        return (TextPart("", "T5EncoderModel", TOKENS, masked=True),)

    @property
    def text_conditions(self) -> dict[str, int]:
        """The names of the text conditions, each with its number of dimensions."""
        return {"embedding": 3, "mask": 2}

    def prompts(self, prompt: str) -> dict[Branch, str]:
        """Return the prompt of each branch that the rule needs, in small letters."""
        return {branch: text.lower().strip() for branch, text in super().prompts(prompt).items()}

    def embed(self, outputs: list[Reading]) -> TextEmbeddings:
        """Return the last hidden states and the mask."""
        return {"embedding": outputs[0].last_hidden_state, "mask": outputs[0].mask}

    # --- loading ------------------------------------------------------------------------------

    def check_source(self, source: checkpoints.Source) -> None:
        """Raise MissingDependencyError if T5's vocabulary needs a missing package."""
        if not source.holds("tokenizer/tokenizer.json"):
            for package in NEEDED:
                require(package, EXTRA)

    def files(self) -> list[str]:
        """Return the names of the checkpoint's files."""
        folder = f"{self.denoiser[1]}/"
        return [n for n in super().files() if not (self.transformer_checkpoint and n.startswith(folder))]

    def _locate(self) -> tuple[checkpoints.Source, ...]:
        sources = super()._locate()
        if self.transformer_checkpoint is None:
            return (*sources, sources[0])
        weights = ["transformer/diffusion_pytorch_model.safetensors"] if self.weights == "trained" else []
        found = checkpoints.locate(
            self.transformer_checkpoint,
            self.transformer_revision,
            [self._variant_of(name) for name in ("transformer/config.json", *weights)],
            local_files_only=self.local_files_only,
        )
        return (*sources, found)

    @property
    def denoiser_source(self) -> checkpoints.Source:
        """The source of the transformer."""
        return self._sources[2]

    def check_denoiser(self) -> None:
        """Raise WeightsError unless it predicts a noise of its input's channels, and maybe a variance."""
        super().check_denoiser()
        channels, config = self.denoiser_channels(), self._denoiser.config
        if (config.out_channels or channels) not in (channels, 2 * channels):
            raise WeightsError(
                f"'{self.denoiser_source.name}': its transformer makes {config.out_channels} channels from "
                f"{channels}: take a checkpoint of PixArt-Sigma"
            )

    def vae_precision(self, config: Any) -> torch.dtype:
        """Return float32 in place of float16 for a VAE that overflows in it."""
        return precise_vae(self._dtype, config)

    # --- each step ----------------------------------------------------------------------------

    def denoise(self, noisy: Tensor, timestep: Tensor, texts: TextEmbeddings, inputs: StepInputs) -> Tensor:
        """Run the transformer; return the noise without the variance."""
        out = self._denoiser(
            noisy,
            encoder_hidden_states=texts["embedding"],
            encoder_attention_mask=texts["mask"],
            timestep=timestep,
            added_cond_kwargs=self._sizes(noisy),
        ).sample
        return out[:, : noisy.shape[1]]

    def _sizes(self, noisy: Tensor) -> dict[str, Tensor | None]:
        """Return the size and the aspect ratio, height over width, of the pictures of each row."""
        if not self._denoiser.use_additional_conditions:
            return {"resolution": None, "aspect_ratio": None}
        side = constant((float(self.size), float(self.size)), noisy)
        ratio = constant((1.0,), noisy)
        return {"resolution": side.expand(len(noisy), 2), "aspect_ratio": ratio.expand(len(noisy), 1)}

    def describe(self) -> dict[str, Any]:
        """Return also the source of another transformer."""
        if self.denoiser_source is self._source:
            return super().describe()
        own = {f"transformer_{name}": value for name, value in self.denoiser_source.describe().items()}
        return super().describe() | own
