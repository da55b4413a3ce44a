"""Shading models: unit normals and light to reflected light. The torch twins of any faster kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from redepth.ops.color import linear_to_srgb

FLOOR = 1e-3
"""Least value of a re-lit pixel, linear and sRGB: the power law's derivative is infinite at 0."""


def normalize(vectors: Tensor, dim: int = -1) -> Tensor:
    """Return unit vectors; a zero vector stays zero."""
    return vectors / torch.linalg.vector_norm(vectors, dim=dim, keepdim=True).clamp(min=1e-8)


def blinn_phong(
    normals: Tensor,
    image_linear: Tensor,
    direction: Tensor,
    diffuse: Tensor,
    specular: Tensor,
    shininess: Tensor,
) -> Tensor:
    r"""Re-light a photo by Blinn-Phong shading of its surface and composite in linear colours.

    .. math::
        R = \mathrm{clip}\big(k_d \max(n \cdot l, 0) \, I_{lin}
            + k_s \max(n \cdot h, 0)^{p},\; 10^{-3},\, 1\big), \qquad
        h = \frac{l + v}{\lVert l + v \rVert},\; v = (0, 0, 1)

    and the result is R^(1/2.2), clipped to [1e-3, 1].

    Args:
        normals: (B, 3, H, W) unit normals.
        image_linear: (B or 1, 3, H, W) linear colours in [0, 1].
        direction: (B, L, 3) unit vectors towards the light.
        diffuse: (B, L) weight k_d >= 0.
        specular: (B, L) weight k_s >= 0.
        shininess: (B, L) exponent p > 0.

    Returns:
        (B, L, 3, H, W) sRGB in [1e-3, 1].

    Source: Blinn, "Models of light reflection", SIGGRAPH 1977; composite of arXiv 2512.17908.
    """
    view = direction.new_tensor([0.0, 0.0, 1.0])
    half = normalize(direction + view)
    cosine = torch.einsum("bchw,blc->blhw", normals, direction).clamp(min=0.0)
    highlight = torch.einsum("bchw,blc->blhw", normals, half).clamp(min=0.0)
    lit = _per_light(diffuse) * cosine
    shine = _per_light(specular) * highlight ** _per_light(shininess)
    linear = lit[:, :, None] * image_linear[:, None] + shine[:, :, None]
    return linear_to_srgb(linear.clamp(FLOOR, 1.0), FLOOR)


def _per_light(values: Tensor) -> Tensor:
    return values[:, :, None, None]
