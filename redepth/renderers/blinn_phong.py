"""The paper's renderer: Blinn-Phong shading under one random light, composited with the photo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor

from redepth.contracts import Illumination
from redepth.ops import geometry, shading


@dataclass(kw_only=True, eq=False)
class BlinnPhong:
    """Blinn-Phong re-lighting (`ops.shading.blinn_phong`) of the orthographic height field.

    Each light: direction l = normalize(a, b, 1) with a, b uniform in [-1, 1]; exponent 2^k with k a
    uniform integer in {min_log2_shininess, ..., max_log2_shininess}; weights (k_d, k_s) two uniforms
    divided by their sum.

    Args:
        lights: L, how many lights one image is re-lit with at each step; their losses are averaged.
        min_log2_shininess: least k.
        max_log2_shininess: largest k.

    Source: arXiv 2512.17908 (L = 1, k in {2, ..., 7}).
    """

    lights: Annotated[int, Field(ge=1, le=64)] = 1
    min_log2_shininess: Annotated[int, Field(ge=0, le=12)] = 2
    max_log2_shininess: Annotated[int, Field(ge=0, le=12)] = 7

    def __post_init__(self) -> None:
        if self.min_log2_shininess > self.max_log2_shininess:
            raise ValueError(
                f"min_log2_shininess {self.min_log2_shininess} is above "
                f"max_log2_shininess {self.max_log2_shininess}"
            )

    def sample(self, batch: int, generator: Generator) -> Illumination:
        """Draw the light of ``batch`` members: direction (B, L, 3), diffuse, specular, shininess (B, L)."""
        size = (batch, self.lights)
        plane = torch.rand(*size, 2, generator=generator) * 2 - 1
        direction = shading.normalize(torch.cat([plane, torch.ones(*size, 1)], dim=-1))
        low, high = self.min_log2_shininess, self.max_log2_shininess
        exponent = torch.randint(low, high + 1, size, generator=generator)
        weights = torch.rand(*size, 2, generator=generator)
        weights = weights / weights.sum(dim=-1, keepdim=True).clamp(min=1e-8)
        return Illumination(
            {
                "direction": direction,
                "diffuse": weights[..., 0],
                "specular": weights[..., 1],
                "shininess": 2.0**exponent,
            }
        )

    def __call__(self, depth: Tensor, image_linear: Tensor, illumination: Illumination) -> Tensor:
        """Re-light: (B,1,H,W) relative depth, (B|1,3,H,W) linear image -> sRGB (B,L,3,H,W)."""
        return shading.blinn_phong(
            geometry.normals_from_depth(depth),
            image_linear,
            illumination.direction,
            illumination["diffuse"],
            illumination["specular"],
            illumination["shininess"],
        )
