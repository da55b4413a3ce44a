"""Pictures on their way into a model: fitted to a square, their gradient scaled."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """Return x, whose gradient is multiplied by a factor on the way back."""
    return x if factor == 1.0 else _ScaleGradient.apply(x, factor)


def fit_square(picture: Tensor, size: int) -> Tensor:
    """Scale (N,3,H,W) to fit a square (bilinear, corners aligned) and pad with 0, picture in the middle."""
    height, width = picture.shape[-2:]
    scale = size / max(height, width)
    h, w = max(1, round(height * scale)), max(1, round(width * scale))
    fitted = F.interpolate(picture, size=(h, w), mode="bilinear", align_corners=True)
    top, left = (size - h) // 2, (size - w) // 2
    return F.pad(fitted, (left, size - w - left, top, size - h - top))
