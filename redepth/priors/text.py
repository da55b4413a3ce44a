"""The text encoders of latent priors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from redepth.errors import InputError

Component = Callable[..., Any]
"""Loads one component of a pipeline: (loader, class, subfolder, options)."""


@dataclass(frozen=True)
class TextPart:
    """A tokenizer and its text encoder, as folders of a pipeline.

    Attributes:
        number: suffix of the folders' names: empty, ``_2`` or ``_3``.
        encoder: the class in transformers.
        tokens: length that a text is padded to; None is the tokenizer's maximum.
    """

    number: str
    encoder: Literal["CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel"]
    tokens: int | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """The files that are loaded; the encoder's weights and configuration come first."""
        tokenizer, encoder = f"tokenizer{self.number}", f"text_encoder{self.number}"
        vocabulary = ("spiece.model",) if self.encoder == "T5EncoderModel" else ("vocab.json", "merges.txt")
        names = ("tokenizer_config.json", *vocabulary)
        return (
            f"{encoder}/model.safetensors",
            f"{encoder}/config.json",
            *(f"{tokenizer}/{name}" for name in names),
        )


class TextEncoders:
    """The text encoders of a pipeline; they are on the device only while they read.

    Args:
        parts: tokenizers and encoders of the pipeline.
        tokenizer: loads a tokenizer, (class, subfolder).
        model: loads an encoder, frozen, (class, subfolder).

    Raises:
        WeightsError: missing, corrupted or of another class.
    """

    def __init__(self, parts: Sequence[TextPart], tokenizer: Component, model: Component) -> None:
        import transformers

        self._parts = []
        for part in parts:
            kind = "T5TokenizerFast" if part.encoder == "T5EncoderModel" else "CLIPTokenizer"
            reader = tokenizer(getattr(transformers, kind), f"tokenizer{part.number}")
            encoder = model(getattr(transformers, part.encoder), f"text_encoder{part.number}")
            self._parts.append((part.tokens or reader.model_max_length, reader, encoder))

    @torch.no_grad()
    def read(self, text: str, device: torch.device) -> list[Any]:
        """Return each encoder's output for a text, with all its hidden states.

        Raises:
            InputError: if one of them cannot read a text of this length.
        """
        outputs = []
        for limit, tokenizer, encoder in self._parts:
            if (length := len(tokenizer(text, verbose=False).input_ids)) > limit:
                raise InputError(
                    f"the prompt '{text[:32]}...' is {length} tokens long and the text encoder reads "
                    f"{limit}: shorten it"
                )
            tokens = tokenizer(text, padding="max_length", max_length=limit, return_tensors="pt").input_ids
            outputs.append(encoder.to(device)(tokens.to(device), output_hidden_states=True))
        return outputs

    def release(self) -> None:
        """Move the encoders off the device."""
        for _, _, encoder in self._parts:
            encoder.to("cpu")


def misfit(
    row: Mapping[str, Tensor], parts: Sequence[TextPart], config: Mapping[str, Any], dtype: torch.dtype
) -> str:
    """Return why the embedding of one text is none for a denoiser, or an empty string.

    Args:
        row: ``embedding`` (1, tokens, C), and ``pooled`` (1, P) if an encoder has a projection.
        parts: the text encoders.
        config: of the denoiser.
        dtype: of the encoders.
    """
    pooled = any(part.encoder == "CLIPTextModelWithProjection" for part in parts)
    dimensions = {"embedding": 3, "pooled": 2} if pooled else {"embedding": 3}
    if set(row) != set(dimensions):
        return f"it holds {', '.join(sorted(row)) or 'nothing'}"
    for name, values in row.items():
        if values.dim() != dimensions[name] or len(values) != 1:
            return f"its {name} has the shape {tuple(values.shape)}"
        if values.dtype not in (dtype, torch.float32):  # T5 keeps some layers in float32
            return f"its {name} is {values.dtype}"
        if not bool(torch.isfinite(values).all()):
            return f"its {name} is not finite"
    width = config.get("joint_attention_dim") or config.get("cross_attention_dim")
    read = row["embedding"].shape[-1]
    return f"it has {read} channels, not {width}" if isinstance(width, int) and read != width else ""
