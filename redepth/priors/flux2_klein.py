"""FLUX.2 [klein] base as the prior: flow matching, a transformer of text and picture tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from redepth.errors import WeightsError
from redepth.priors.distillation import StepInputs
from redepth.priors.flow_transformer import FlowTransformer, from_tokens, to_tokens
from redepth.priors.latent_spaces import BatchNormSpace, LatentSpace
from redepth.priors.text import CHAT, NO_THOUGHTS, Reading, TextEmbeddings, TextPart

LAYERS = (9, 18, 27)
"""Layers of Qwen3 whose hidden states are the text."""


@dataclass(kw_only=True, eq=False)
class Flux2Klein(FlowTransformer):
    """FLUX.2 [klein] base checkpoints through diffusers: 32 channels in patches, normalised.

    The text is the hidden states of the layers 9, 18 and 27 of a Qwen3 language model side by side, padded to
    512 tokens, all of which the transformer reads. Its time is sigma. A token has four positions: picture,
    row, column, place in the text.

    The distilled checkpoints are refused: they have no guidance, and know few noise levels.

    The other options are those of `latent.LatentDiffusion`.

    Source: Black Forest Labs, https://github.com/black-forest-labs/flux2.
    """

    checkpoint: str = "black-forest-labs/FLUX.2-klein-base-4B"

    family: ClassVar[str] = "flux2-klein"
    denoiser: ClassVar[tuple[str, str]] = ("Flux2Transformer2DModel", "transformer")
    space: ClassVar[type[LatentSpace]] = BatchNormSpace

    @property
    def text_parts(self) -> tuple[TextPart, ...]:
        """Qwen3, in a chat that closes the model's thoughts before they begin."""
        return (TextPart("", "Qwen3Model", 512, CHAT + NO_THOUGHTS, masked=True),)

    def embed(self, outputs: list[Reading]) -> TextEmbeddings:
        """Return the hidden states of three layers side by side."""
        return {"embedding": torch.cat([outputs[0].hidden_states[layer] for layer in LAYERS], dim=-1)}

    def _read_pipeline(self) -> Mapping[str, Any]:
        found = super()._read_pipeline()
        if found.get("is_distilled"):
            raise self._distilled()
        return found

    def load_denoiser(self, cls: Any, dtype: torch.dtype) -> Any:
        """Return the transformer on the CPU. Raises WeightsError if its guidance is distilled."""
        transformer = super().load_denoiser(cls, dtype)
        if transformer.config.guidance_embeds:
            raise self._distilled()
        return transformer

    def _distilled(self) -> WeightsError:
        return WeightsError(
            f"'{self.checkpoint}' is distilled, so that it has no guidance: take a base checkpoint, such as "
            f"{Flux2Klein.checkpoint}"
        )

    def denoise(self, noisy: Tensor, timestep: Tensor, texts: TextEmbeddings, inputs: StepInputs) -> Tensor:
        """Run the transformer."""
        side, embedding = noisy.shape[-1], texts["embedding"]
        out = self._denoiser(
            hidden_states=to_tokens(noisy),
            encoder_hidden_states=embedding,
            timestep=self.sigma(timestep),
            img_ids=positions((1, side, side, 1), noisy.device),
            txt_ids=positions((1, 1, 1, embedding.shape[1]), noisy.device),
        ).sample
        return from_tokens(out, side)


def positions(counts: tuple[int, int, int, int], device: torch.device) -> Tensor:
    """Return the positions of a grid of tokens, (product of the counts, 4), the last one fastest."""
    return torch.cartesian_prod(*(torch.arange(count, device=device) for count in counts))
