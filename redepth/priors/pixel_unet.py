"""A diffusers UNet in pixel space, unconditional or conditioned on the photo and the light."""

from __future__ import annotations

import json
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

LIGHT_CHANNELS = 8
LAYOUT_FILE = "redepth.json"
LARGEST = 4096
"""Most pixels along a side of a model's picture."""
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

    Raises:
        ValueError: a value is of the wrong type or out of range.
    """

    size: int
    patch: int = 1
    relighting: bool = False

    def __post_init__(self) -> None:
        whole = type(self.size) is int and type(self.patch) is int and type(self.relighting) is bool
        if not whole or not 1 <= self.patch <= self.size <= LARGEST or self.size % self.patch:
            raise ValueError(
                f"size must be a multiple of patch up to {LARGEST}, and relighting true or false, got "
                f"{brief(self.size)}, {brief(self.patch)}, {brief(self.relighting)}"
            )

    def write(self, folder: Path) -> None:
        """Write ``redepth.json`` beside the weights."""
        (folder / LAYOUT_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n")


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
        unet: ``UNet2DModel`` (unconditional) or, for a relighting layout, ``UNet2DConditionModel`` with
            ``class_embed_type="projection"`` over `LIGHT_CHANNELS` numbers.
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
        light: Tensor | None = None,
    ) -> Tensor:
        """Predict what the model was trained to (eps, v or x0), in pixels.

        Args:
            noisy: (N, 3, S, S) noisy picture, its clean one in [-1, 1].
            timestep: (N,).
            photo: (N, 3, S, S) in [-1, 1], or None for no condition. A row of zeros with a zero flag (see
                `condition_rows`) is the same as None for that row.
            light: (N, 8), `light_vector` and the flag of the photo, or None.

        Returns:
            (N, 3, S, S).
        """
        x = F.pixel_unshuffle(noisy, self.layout.patch)
        if not self.layout.relighting:
            out = self.unet(x, timestep).sample
        else:
            condition = torch.zeros_like(noisy) if photo is None else photo
            vector = noisy.new_zeros(len(noisy), LIGHT_CHANNELS) if light is None else light
            x = torch.cat([x, F.pixel_unshuffle(condition, self.layout.patch)], dim=1)
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
