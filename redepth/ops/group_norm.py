r"""Group normalisation with or without SiLU behind it; the twin of the kernels of `ops.triton.group_norm`.

For each picture and each group of neighbouring channels, over its m values x,

.. math::
    \hat x = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}}, \qquad z = w_c \hat x + b_c, \qquad
    y = z \quad \text{or} \quad y = z \, s(z), \quad s(z) = \frac{1}{1 + e^{-z}}

with mean and (biased) variance of the group. Pulled back to x, with d = dL/dy y'(z), where SiLU's y'(z) =
s (1 + z (1 - s)) and without it y' = 1,

.. math::
    \frac{\partial L}{\partial x} = \frac{1}{\sqrt{\sigma^2 + \epsilon}} \Big( w_c d
    - \frac{1}{m} \sum w d - \frac{\hat x}{m} \sum w d \, \hat x \Big)

Source: Wu and He, "Group normalization", ECCV 2018; Elfwing et al., "Sigmoid-weighted linear units", 2018.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from redepth.ops.triton import kernels


def group_norm(
    x: Tensor,
    groups: int,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    *,
    silu: bool = False,
    addend: Tensor | None = None,
) -> Tensor:
    """Normalise groups of channels, and apply SiLU, in torch's own operators.

    Arithmetic is float32 (float64 for such input) and rounded once, at the end.

    Args:
        x: (N, C, ...) of any floating dtype, layout and device.
        groups: into how many groups C falls.
        weight: (C,) w.
        bias: (C,) b.
        eps: added to the variance.
        silu: whether SiLU comes behind it.
        addend: (1 or N, C), added to x before.

    Returns:
        The shape and dtype of ``x``.
    """
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    x, dtype = x.to(wide), x.dtype
    if addend is not None:
        x = x + addend.to(wide).view(*addend.shape, *[1] * (x.dim() - 2))
    y = F.group_norm(x, groups, weight.to(wide), bias.to(wide), eps)
    return (F.silu(y) if silu else y).to(dtype)


def fused_group_norm(
    x: Tensor,
    groups: int,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    *,
    silu: bool = False,
    addend: Tensor | None = None,
) -> Tensor:
    """Do what `group_norm` does, by the kernels where they can: `ops.triton.group_norm`.

    That is on CUDA, and on the CPU in Triton's interpreter, unless weight, bias or addend need a gradient, x
    is of another dtype than `kernels.DTYPES` or empty, or Triton is missing.
    """
    vectors = (weight, bias) if addend is None else (weight, bias, addend)
    if not kernels.can_take(x) or x.dim() < 3 or kernels.learns(*vectors):
        return group_norm(x, groups, weight, bias, eps, silu=silu, addend=addend)
    from redepth.ops.triton import group_norm as group_norm_triton

    return group_norm_triton.group_norm(x, groups, weight, bias, eps, silu=silu, addend=addend)
