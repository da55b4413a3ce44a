r"""The end of a residual block, out = a + b + bias_c, in one pass over memory.

In eager torch the bias of the block's last convolution takes one pass and the sum another. In the backward
pass the cotangent goes to both a and b unchanged.
"""

from __future__ import annotations

import torch
from torch import Tensor

from redepth.ops.triton import kernels


def add_with_bias(a: Tensor, b: Tensor, bias: Tensor) -> Tensor:
    """Return a + b + bias by channel, rounded once.

    By a kernel on CUDA (and in Triton's interpreter) where a and b are channels-last, or else in torch.

    Args:
        a: (N, C, H, W), float32, float16 or bfloat16.
        b: like ``a``.
        bias: (C,), without gradient.

    Returns:
        The shape, dtype and layout of ``a``.
    """
    if _fusable(a, b, bias):
        from redepth.ops.triton import residual as residual_triton

        return residual_triton.add_with_bias(a, b, bias)
    return a + (b + bias.to(b.dtype).view(-1, 1, 1))


def _fusable(a: Tensor, b: Tensor, bias: Tensor) -> bool:
    if not kernels.can_take(a) or (a.dtype, a.shape) != (b.dtype, b.shape) or kernels.learns(bias):
        return False
    if torch.compiler.is_compiling():
        return False
    layout = torch.channels_last
    return a.is_contiguous(memory_format=layout) and b.is_contiguous(memory_format=layout)
