"""A diffusers UNet in pixel space: unconditional, told the photo and the light, or told a caption."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from redepth.contracts import Illumination
from redepth.errors import brief
from redepth.ops.geometry import half_turn
from redepth.priors.light import light_direction, light_material
from redepth.priors.words import WORD

LIGHT_CHANNELS = 8
LAYOUT_FILE = "redepth.json"
LARGEST = 4096
"""Most pixels along a side of a model's picture."""
MOST_WORDS = 10_000
"""Most words that a model can know."""
LOG2_SHININESS = (2.0, 7.0)
"""Range of log2(shininess) that these models are trained with; values beyond it are clamped."""


@dataclass(frozen=True)
class Layout:
    """How pictures enter the UNet.

    Attributes:
        size: side of the square picture it was trained on, in pixels.
        patch: pixels along a side that are folded into channels (pixel unshuffle).
        relighting: whether it is conditioned on the photo (as further channels) and the light (as a vector
            that is added to the time embedding); the flags of dropped conditions are part of that vector.
        words: the words of captions that it is conditioned on, as a vector that is added to the time
            embedding (`words.caption_vector`); empty for a model without captions.

    Raises:
        ValueError: a value is of the wrong type or out of range.
    """

    size: int
    patch: int = 1
    relighting: bool = False
    words: Sequence[str] = ()

    def __post_init__(self) -> None:
        whole = type(self.size) is int and type(self.patch) is int and type(self.relighting) is bool
        if not whole or not 1 <= self.patch <= self.size <= LARGEST or self.size % self.patch:
            raise ValueError(
                f"size must be a multiple of patch up to {LARGEST}, and relighting true or false, got "
                f"{brief(self.size)}, {brief(self.patch)}, {brief(self.relighting)}"
            )
        self._check_words()

    def _check_words(self) -> None:
        words: object = self.words
        if not isinstance(words, list | tuple) or not all(_is_word(word) for word in words):
            raise ValueError(f"words must be a list of words in small letters, got {brief(words)}")
        object.__setattr__(self, "words", tuple(words))  # JSON has a list
        if len(set(words)) < len(words) or len(words) > MOST_WORDS:
            raise ValueError(f"words must be different, at most {MOST_WORDS}, got {brief(words)}")
        if words and self.relighting:
            raise ValueError("relighting must be false for a model that is told a caption")

    @property
    def conditions(self) -> int:
        """Length of the vector that the UNet is conditioned on; 0 for an unconditional model."""
        if self.relighting:
            return LIGHT_CHANNELS
        return len(self.words) + 1 if self.words else 0

    @property
    def kind(self) -> str:
        """What such a model is called in messages and records."""
        if self.relighting:
            return "re-lighting prior"
        return "captioned prior" if self.words else "unconditional prior"

    @property
    def channels(self) -> int:
        """Channels that the UNet reads: of the noisy picture, and of the photo where it is told it."""
        return 3 * self.patch**2 * (2 if self.relighting else 1)

    def write(self, folder: Path) -> None:
        """Write ``redepth.json`` beside the weights."""
        values = asdict(self)
        if not self.words:
            del values["words"]
        (folder / LAYOUT_FILE).write_text(json.dumps(values, indent=2) + "\n")


def _is_word(value: object) -> bool:
    return isinstance(value, str) and WORD.fullmatch(value) is not None


def light_vector(illumination: Illumination) -> Tensor:
    """Return the vector (N, 7) that the UNet is conditioned on: direction, k_d, k_s, log2(p) / 7, 1.

    The last entry flags that the light is known. The direction is in the frame that the embedded
    checkpoints were trained in, the authors': x left, y down, z towards the viewer.

    Args:
        illumination: of N pictures, flattened.

    Raises:
        ConfigError: if the renderer draws no direction, or a part of a material alone.
    """
    direction, material = light_direction(illumination), light_material(illumination)
    values = [
        half_turn(direction),
        material.diffuse[:, None],
        material.specular[:, None],
        torch.log2(material.shininess).clamp(*LOG2_SHININESS)[:, None] / LOG2_SHININESS[1],
        torch.ones_like(material.diffuse)[:, None],
    ]
    return torch.cat(values, dim=1)


class PixelUNet(nn.Module):
    """Wraps a diffusers UNet so that every pixel-space model is called in one way.

    Args:
        unet: ``UNet2DModel`` (unconditional) or, for a conditional layout, ``UNet2DConditionModel`` with
            ``class_embed_type="projection"`` over `Layout.conditions` numbers.
        layout: how pictures enter it.
    """

    def __init__(self, unet: Any, layout: Layout) -> None:
        super().__init__()
        self.unet = unet
        self.layout = layout

    def forward(
        self,
        noisy: Tensor,
        timestep: Tensor,
        photo: Tensor | None = None,
        vector: Tensor | None = None,
    ) -> Tensor:
        """Predict what the model was trained to (eps, v or x0), in pixels.

        Args:
            noisy: (N, 3, S, S) noisy picture, its clean one in [-1, 1].
            timestep: (N,).
            photo: (N, 3, S, S) in [-1, 1], or None for no condition. A row of zeros with a zero flag (see
                `condition_rows`) is the same as None for that row.
            vector: (N, C) or None for no condition: `light_vector` and the flag of the photo (C = 8), or
                `words.caption_vector`.

        Returns:
            (N, 3, S, S).
        """
        x = F.pixel_unshuffle(noisy, self.layout.patch)
        if not self.layout.conditions:
            out = self.unet(x, timestep).sample
        else:
            if self.layout.relighting:
                condition = torch.zeros_like(noisy) if photo is None else photo
                x = torch.cat([x, F.pixel_unshuffle(condition, self.layout.patch)], dim=1)
            if vector is None:
                vector = noisy.new_zeros(len(noisy), self.layout.conditions)
            out = self.unet(x, timestep, None, class_labels=vector).sample
        return F.pixel_shuffle(out, self.layout.patch)


def condition_rows(
    photo: Tensor, light: Tensor, tell_photo: Tensor, tell_light: Tensor
) -> tuple[Tensor, Tensor]:
    """Drop conditions row by row.

    Args:
        photo: (N, 3, S, S) in [-1, 1].
        light: (N, 7) from `light_vector`.
        tell_photo: (N,) 1.0 or 0.0.
        tell_light: (N,) 1.0 or 0.0.

    Returns:
        The photo with dropped rows zeroed, and the (N, 8) vector with dropped light zeroed and the photo's
        flag appended.
    """
    vector = torch.cat([light * tell_light[:, None], tell_photo[:, None]], dim=1)
    return photo * tell_photo[:, None, None, None], vector
