"""Z-Image as the prior: flow matching, one transformer for text and picture."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from redepth.priors.distillation import StepInputs
from redepth.priors.flow_transformer import FlowTransformer
from redepth.priors.text import CHAT, Reading, TextEmbeddings, TextPart

log = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False)
class ZImage(FlowTransformer):
    """Z-Image checkpoints through diffusers: 16 channels, a text without padding.

    The text is the penultimate hidden states of a Qwen3 language model at the prompt's tokens, at most 512.
    The transformer's time is 1 - sigma, and its output x - eps: the velocity with the other sign.

    Z-Image-Turbo has the same configuration, but is distilled to few noise levels and without guidance. It is
    not meant for this prior, and cannot be told from its files: a warning is logged for a name with "turbo".

    The other options are those of `latent.LatentDiffusion`.

    Source: Z-Image team, arXiv 2511.22699.
    """

    checkpoint: str = "Tongyi-MAI/Z-Image"

    family: ClassVar[str] = "z-image"
    denoiser: ClassVar[tuple[str, str]] = ("ZImageTransformer2DModel", "transformer")
    text_widths: ClassVar[tuple[str, ...]] = ("cap_feat_dim",)

    @property
    def text_parts(self) -> tuple[TextPart, ...]:
        """Qwen3, in a chat."""
        return (TextPart("", "Qwen3Model", 512, CHAT, masked=True),)

    def load_denoiser(self, cls: Any, dtype: torch.dtype) -> Any:
        """Return the transformer on the CPU; warn of one that is distilled by its name."""
        if "turbo" in Path(self.checkpoint).name.lower():
            log.warning(
                "'%s' seems to be Z-Image-Turbo, which is distilled to few noise levels and has no guidance: "
                "take %s",
                self.checkpoint,
                ZImage.checkpoint,
            )
        transformer = super().load_denoiser(cls, dtype)
        if self.weights == "random":
            # Older releases of diffusers leave the memory of these as it is.
            for token in (transformer.x_pad_token, transformer.cap_pad_token):
                torch.nn.init.zeros_(token)
        return transformer

    def embed(self, outputs: list[Reading]) -> TextEmbeddings:
        """Return the penultimate hidden states at the prompt's tokens."""
        reading = outputs[0]
        return {"embedding": reading.hidden_states[-2][:, reading.mask[0].bool()]}

    def joined_texts(self, parts: list[TextEmbeddings]) -> TextEmbeddings:
        """Return the text of each row by its number: their lengths differ, and the transformer pads them."""
        rows = [row.to(self._dtype) for part in parts for row in part["embedding"]]
        return {str(number): row for number, row in enumerate(rows)}

    def denoise(self, noisy: Tensor, timestep: Tensor, texts: TextEmbeddings, inputs: StepInputs) -> Tensor:
        """Run the transformer on pictures as videos of one frame."""
        frames = list(noisy[:, :, None].unbind())
        out = self._denoiser(frames, 1 - self.sigma(timestep), list(texts.values())).sample
        return -torch.stack(out)[:, :, 0]
