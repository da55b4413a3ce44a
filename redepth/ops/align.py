"""Least-squares alignment of an affine-invariant prediction to ground truth."""

from __future__ import annotations

import torch
from torch import Tensor


def scale_and_shift(prediction: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return (a, b), float64 scalars, that minimise :math:`\sum_{mask} (a p + b - t)^2`.

    Args:
        prediction: any shape.
        target: the same shape.
        mask: bool, the same shape; which entries count.

    A prediction that is constant over the mask gives a = 0, b = the target's mean.

    Raises:
        ValueError: if shapes differ, or fewer than 2 entries count, or one of them is not finite.
    """
    if not prediction.shape == target.shape == mask.shape:
        shapes = f"{tuple(prediction.shape)}, {tuple(target.shape)}, {tuple(mask.shape)}"
        raise ValueError(f"prediction, target and mask must have one shape, got {shapes}")
    p, t = prediction[mask].double(), target[mask].double()
    if p.numel() < 2:
        raise ValueError(f"{p.numel()} valid pixels are too few to align scale and shift")
    if not bool(torch.isfinite(p).all() & torch.isfinite(t).all()):
        raise ValueError("prediction or target is not finite inside the mask")
    centred = p - p.mean()
    variance = (centred**2).mean()
    # Relative to the square of the values, so that a tiny but real signal is not taken for none.
    flat = variance <= 1e-20 * (p**2).mean()
    covariance = (centred * (t - t.mean())).mean()
    scale = torch.where(flat, 0.0, covariance / torch.where(flat, 1.0, variance))
    return scale, t.mean() - scale * p.mean()
