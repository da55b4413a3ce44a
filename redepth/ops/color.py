"""sRGB and linear light by the power law that the paper uses."""

from __future__ import annotations

from torch import Tensor

GAMMA = 2.2


def srgb_to_linear(image: Tensor) -> Tensor:
    """I_lin = I^2.2 for I in [0, 1] (the power law, not the piecewise sRGB curve)."""
    return image.clamp(min=0.0) ** GAMMA


def linear_to_srgb(image: Tensor, floor: float = 1e-3) -> Tensor:
    """I = clip(I_lin^(1/2.2), floor, 1); ``floor`` keeps the derivative finite at black."""
    return (image.clamp(min=floor) ** (1.0 / GAMMA)).clamp(floor, 1.0)
