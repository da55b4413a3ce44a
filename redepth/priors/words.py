"""Captions as a small model knows them: which words of a fixed list a text has, and words for a light."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from redepth.contracts import Illumination
from redepth.errors import InputError, brief
from redepth.priors.light import light_direction, light_material

WORD = re.compile(r"[a-z]+(?:-[a-z]+)*")

LIGHT_WORDS = ("left", "right", "above", "below", "front", "oblique", "glossy", "matt")
"""Words for the light and the material under it; left, right, above and below are where it comes from."""

BLURRED = "blurred"
"""The word for what is wrong with a picture: it is re-lit from a surface that is blurred and too flat."""

ASIDE, OBLIQUE, GLOSSY = 0.3, 0.8, 0.1
"""Tangents of the angle to the optical axis beyond which light comes from a side, and at a grazing angle;
how far the share of the highlight is from a half where a material is called glossy or matt."""


def known_words(words: Sequence[str], caption: str) -> list[str]:
    """Return the words of a list that a caption has, in the list's order; a plural is its singular."""
    said = {_stem(word) for word in WORD.findall(caption.lower())}
    return [word for word in words if _stem(word) in said]


def _stem(word: str) -> str:
    return word if word.endswith("ss") else word.removesuffix("s")


def word_rows(words: Sequence[str], captions: Sequence[str]) -> Tensor:
    """Return which words each caption has, (N, len(words)), 1.0 or 0.0."""
    rows = torch.zeros(len(captions), len(words))
    for row, caption in zip(rows, captions, strict=True):
        for word in known_words(words, caption):
            row[words.index(word)] = 1.0
    return rows


def caption_vector(words: Sequence[str], caption: str) -> Tensor:
    """Return the vector that a captioned model is conditioned on: a 1 for each word it has, and a last 1.

    The last number flags that there is a caption: zeros alone are no condition.

    Args:
        words: that the model knows.
        caption: any text; other words in it are passed over.

    Returns:
        (len(words) + 1,).

    Raises:
        InputError: if it has none of the words: the model would be told nothing.
    """
    if not known_words(words, caption):
        raise InputError(
            f"the prompt {brief(caption)} has none of the words that the prior knows: {', '.join(words)}"
        )
    return torch.cat([word_rows(words, [caption])[0], torch.ones(1)])


def light_rows(words: Sequence[str], illumination: Illumination) -> Tensor:
    """Return which of a model's words describe each light, (N, len(words)).

    With the direction (x, y, z), x right, y up, z to the viewer: right or left where |x / z| > 0.3, above or
    below where |y / z| > 0.3, front where neither, oblique where the root of the sum of their squares > 0.8.
    The material is glossy where k_s > 0.6 and matt where k_s < 0.4.

    Args:
        words: that the model knows; those of `LIGHT_WORDS` that are missing are left out.
        illumination: of N pictures, flattened.

    Raises:
        ConfigError: if the renderer draws no direction, or a part of a material alone.
    """
    direction, share = light_direction(illumination), light_material(illumination).specular
    x, y = (direction[:, :2] / direction[:, 2:].clamp(min=1e-3)).unbind(dim=1)
    true = {
        "left": x < -ASIDE,
        "right": x > ASIDE,
        "above": y > ASIDE,
        "below": y < -ASIDE,
        "front": (x.abs() <= ASIDE) & (y.abs() <= ASIDE),
        "oblique": torch.hypot(x, y) > OBLIQUE,
        "glossy": share > 0.5 + GLOSSY,
        "matt": share < 0.5 - GLOSSY,
    }
    nothing = torch.zeros_like(share, dtype=torch.bool)
    return torch.stack([true.get(word, nothing) for word in words], dim=1).to(share.dtype)
