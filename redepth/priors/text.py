"""The text encoders of latent priors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from redepth.errors import InputError, cut

Component = Callable[..., Any]
"""Loads one component of a pipeline: (loader, class, subfolder, options)."""

Inputs = dict[str, Tensor]
"""Inputs of a text encoder by name, one row: ``input_ids``, ``attention_mask`` and others."""

TextEmbeddings = dict[str, Tensor]
"""The text conditions of a denoiser: ``embedding`` (N, tokens, C), in some families ``pooled`` (N, P) and
``mask`` (N, tokens), which is 0 at padding."""

BPE = ("vocab.json", "merges.txt")

LANGUAGE_MODELS = "Qwen2TokenizerFast"
"""The tokenizer of the language models, which has tokens of its own for chats and pictures."""

TOKENIZERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "CLIPTextModel": ("CLIPTokenizer", BPE),
    "CLIPTextModelWithProjection": ("CLIPTokenizer", BPE),
    "T5EncoderModel": ("T5TokenizerFast", ("spiece.model",)),
    "Qwen3VLTextModel": (LANGUAGE_MODELS, BPE),
    "Qwen3Model": (LANGUAGE_MODELS, BPE),
    "Qwen2_5_VLForConditionalGeneration": (LANGUAGE_MODELS, BPE),
}
"""Class of a text encoder in transformers -> the class of its tokenizer, and the files of its vocabulary."""

CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
"""Template of a chat with Qwen3: the published one, for one message of the user."""

NO_THOUGHTS = "<think>\n\n</think>\n\n"
"""The beginning of an answer without thoughts; a part of the same template."""


@dataclass(frozen=True)
class TextPart:
    """A tokenizer and its text encoder, as folders of a pipeline.

    Attributes:
        number: suffix of the folders' names: empty, ``_2`` or ``_3``.
        encoder: the class in transformers, one of `TOKENIZERS`.
        tokens: the longest text; None is the tokenizer's maximum.
        template: what the encoder reads; ``{}`` stands for the text.
        padded: whether a text is padded to the longest one.
        masked: whether the encoder is told which tokens are padding.
    """

    number: str
    encoder: str
    tokens: int | None = None
    template: str = "{}"
    padded: bool = True
    masked: bool = False

    @property
    def files(self) -> tuple[str, ...]:
        """The files that are loaded; the encoder's weights and configuration come first."""
        tokenizer, encoder = f"tokenizer{self.number}", f"text_encoder{self.number}"
        names = ("tokenizer_config.json", *TOKENIZERS[self.encoder][1])
        return (
            f"{encoder}/model.safetensors",
            f"{encoder}/config.json",
            *(f"{tokenizer}/{name}" for name in names),
        )

    @property
    def identity(self) -> str:
        """Everything that an embedding depends on except text, weights and tokenizer."""
        kind = f"{self.encoder}{self.number}/{self.tokens}"
        if self == TextPart(self.number, self.encoder, self.tokens):
            return kind
        return f"{kind} {self.template!r} padded={self.padded} masked={self.masked}"


@dataclass(frozen=True)
class Reading:
    """What a text encoder makes of a text, one row.

    Attributes:
        hidden_states: of every layer, (1, tokens, C); the first one is the embedding of the tokens.
        last_hidden_state: the encoder's output, (1, tokens, C).
        text_embeds: the pooled text (1, P) of an encoder with a projection.
        mask: (1, tokens), 1 at the text's tokens and 0 at the padding.
    """

    hidden_states: Sequence[Tensor]
    last_hidden_state: Tensor
    text_embeds: Tensor | None
    mask: Tensor


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
            kind = getattr(transformers, TOKENIZERS[part.encoder][0])
            reader = tokenizer(kind, f"tokenizer{part.number}")
            encoder = model(getattr(transformers, part.encoder), f"text_encoder{part.number}")
            self._parts.append((part, reader, encoder))

    @torch.no_grad()
    def read(
        self, text: str, device: torch.device, add: Callable[[Inputs, Any], Inputs] | None = None
    ) -> list[Reading]:
        """Return what each encoder makes of a text.

        Args:
            text: the prompt.
            device: that the encoders run on.
            add: completes the inputs of an encoder, (inputs, encoder's configuration).

        Raises:
            InputError: if one of them cannot read a text of this length, or it holds one of the tokens that
                give a chat its form, such as ``<|im_end|>``.
        """
        readings = []
        for part, tokenizer, encoder in self._parts:
            inputs = _tokens(part, tokenizer, text)
            if add is not None:
                inputs = add(inputs, encoder.config)
            inputs = {name: values.to(device) for name, values in inputs.items()}
            mask = inputs["attention_mask"] if part.masked else inputs.pop("attention_mask")
            output = encoder.to(device)(**inputs, output_hidden_states=True)
            states = output.hidden_states
            last = output.get("last_hidden_state", states[-1])
            readings.append(Reading(states, last, output.get("text_embeds"), mask))
        return readings

    def release(self) -> None:
        """Move the encoders off the device."""
        for _, _, encoder in self._parts:
            encoder.to("cpu")


def _check_text(part: TextPart, tokenizer: Any, text: str) -> None:
    """Refuse a text with a word that a language model's tokenizer has for the form of a chat."""
    if TOKENIZERS[part.encoder][0] != LANGUAGE_MODELS:
        return
    tokens = {*tokenizer.get_added_vocab(), *tokenizer.all_special_tokens}
    found = sorted(token for token in tokens if token in text)
    if found:
        raise InputError(
            f"the prompt holds {cut(repr(found[0]))}, which the text encoder reads as no words: remove it"
        )


def _tokens(part: TextPart, tokenizer: Any, text: str) -> Inputs:
    """Return ``input_ids`` and ``attention_mask`` (1, tokens) of a text in its template."""
    _check_text(part, tokenizer, text)
    limit = part.tokens or tokenizer.model_max_length
    # Not `format`: the text may hold braces.
    whole = part.template.replace("{}", text)
    if (length := len(tokenizer(whole, verbose=False).input_ids)) > limit:
        raise InputError(
            f"the prompt '{text[:32]}...' is {length} tokens long and the text encoder reads "
            f"{limit}: shorten it"
        )
    padding = {"padding": "max_length", "max_length": limit} if part.padded else {}
    found = tokenizer(whole, return_tensors="pt", return_attention_mask=True, **padding)
    return {name: found[name] for name in ("input_ids", "attention_mask")}


def misfit(
    row: Mapping[str, Tensor], dimensions: Mapping[str, int], width: int | None, dtype: torch.dtype
) -> str:
    """Return why the embedding of one text is none for a denoiser, or an empty string.

    Args:
        row: the text conditions by name, each of one row.
        dimensions: number of dimensions of each text condition.
        width: channels of ``embedding`` that the denoiser reads, if it is known.
        dtype: of the encoders.
    """
    if set(row) != set(dimensions):
        return f"it holds {', '.join(sorted(row)) or 'nothing'}"
    for name, values in row.items():
        if values.dim() != dimensions[name] or len(values) != 1:
            return f"its {name} has the shape {tuple(values.shape)}"
        # T5 keeps some layers in float32.
        if values.dtype not in ((torch.int64, torch.bool) if name == "mask" else (dtype, torch.float32)):
            return f"its {name} is {values.dtype}"
        if not bool(torch.isfinite(values).all()):
            return f"its {name} is not finite"
    read = row["embedding"].shape[-1]
    return f"it has {read} channels, not {width}" if width is not None and read != width else ""


def joined(parts: Sequence[TextEmbeddings]) -> TextEmbeddings:
    """Join rows of text conditions, of texts of one length."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
