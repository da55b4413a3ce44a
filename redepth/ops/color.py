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


def luma(image: Tensor) -> Tensor:
    """Return the perceived brightness, 0.2126 R + 0.7152 G + 0.0722 B of sRGB values, (B, 1, H, W).

    Source: the weights of ITU-R BT.709, on gamma-encoded values.
    """
    red, green, blue = image.split(1, dim=1)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
