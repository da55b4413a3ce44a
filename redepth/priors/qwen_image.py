"""Qwen-Image as the prior: flow matching, a transformer of text and picture tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from redepth.priors.distillation import StepInputs
from redepth.priors.flow_transformer import FlowTransformer, from_tokens, to_tokens
from redepth.priors.latent_spaces import FrameSpace, LatentSpace
from redepth.priors.scores import Branch
from redepth.priors.text import Reading, TextEmbeddings, TextPart

ENCODER = "Qwen2_5_VLForConditionalGeneration"
TOKENS = 512
"""The longest prompt."""


@dataclass(kw_only=True, eq=False)
class QwenImage(FlowTransformer):
    """Qwen-Image checkpoints through diffusers: 16 channels of a video VAE in patches, normalised.

    The text is the last hidden states of the language model in Qwen2.5-VL, which is asked to describe the
    picture; those of the system's 34 tokens are left out. The transformer's time is sigma. An empty prompt is
    a space, as in the published examples.

    The published sampler also scales the guided prediction to the length of the conditional one. Score rules
    take the predictions as they are.

    The other options are those of `latent.LatentDiffusion`.

    Source: Wu et al., arXiv 2508.02324.
    """

    checkpoint: str = "Qwen/Qwen-Image"

    family: ClassVar[str] = "qwen-image"
    denoiser: ClassVar[tuple[str, str]] = ("QwenImageTransformer2DModel", "transformer")
    space: ClassVar[type[LatentSpace]] = FrameSpace
    system: ClassVar[str] = (
        "Describe the image by detailing the color, shape, size, texture, quantity, text, spatial "
        "relationships of the objects and background:"
    )
    """What the language model is told before the prompt."""
    seen: ClassVar[str] = ""
    """What it is shown before the prompt."""
    system_tokens: ClassVar[int] = 34
    """Length of the system's part in tokens."""

    @property
    def text_parts(self) -> tuple[TextPart, ...]:
        """Qwen2.5-VL, in a chat after the system's part."""
        template = (
            f"<|im_start|>system\n{self.system}<|im_end|>\n<|im_start|>user\n{self.seen}{{}}<|im_end|>\n"
            "<|im_start|>assistant\n"
        )
        return (TextPart("", ENCODER, TOKENS + self.system_tokens, template, padded=False, masked=True),)

    def prompts(self, prompt: str) -> dict[Branch, str]:
        """Return the prompt of each branch that the rule needs, a space if it is empty."""
        return {branch: text or " " for branch, text in super().prompts(prompt).items()}

    def embed(self, outputs: list[Reading]) -> TextEmbeddings:
        """Return the last hidden states after the system's part."""
        return {"embedding": outputs[0].hidden_states[-1][:, self.system_tokens :]}

    def predict(
        self, noisy: Tensor, timestep: Tensor, inputs: StepInputs, branches: Sequence[Branch]
    ) -> dict[Branch, Tensor]:
        """Predict under the prompt of each branch, in one batch for each length of a text.

        A batch of different lengths would need a mask, with which attention is slower.
        """
        lengths: dict[int, list[Branch]] = {}
        for branch in branches:
            lengths.setdefault(inputs.condition.tensors[branch].shape[1], []).append(branch)
        found: dict[Branch, Tensor] = {}
        for alike in lengths.values():
            found |= super().predict(noisy, timestep, inputs, alike)
        return {branch: found[branch] for branch in branches}

    def denoise(self, noisy: Tensor, timestep: Tensor, texts: TextEmbeddings, inputs: StepInputs) -> Tensor:
        """Run the transformer."""
        pictures, side = self.pictures(noisy, inputs), noisy.shape[-1]
        out = self._denoiser(
            hidden_states=torch.cat([to_tokens(latents) for latents in pictures], dim=1),
            encoder_hidden_states=texts["embedding"],
            timestep=self.sigma(timestep),
            img_shapes=[[(1, *latents.shape[2:]) for latents in pictures]] * len(noisy),
        ).sample
        return from_tokens(out[:, : side * side], side)

    def pictures(self, noisy: Tensor, inputs: StepInputs) -> list[Tensor]:
        """Return the latents of all pictures that the transformer reads, the noisy one first."""
        return [noisy]
