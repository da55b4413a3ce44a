"""The kernel of `residual.add_with_bias`: reads a and b once, writes their sum once."""

# Kernels have no types: Triton decides them when it compiles.
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 4096
WARPS = 4


@triton.jit
def _add(a, b, bias, out, count, channels, BLOCK: tl.constexpr):
    """Out = a + b + bias of the channel, which is the innermost index."""
    start = tl.program_id(0).to(tl.int64) * BLOCK
    offset = tl.arange(0, BLOCK)
    inside = offset < tl.minimum(count - start, BLOCK).to(tl.int32)
    # The channel of the program's first element, so that the rest is arithmetic of 32 bits.
    channel = ((start % channels).to(tl.int32) + offset) % channels
    first = tl.load(a + start + offset, mask=inside).to(tl.float32)
    second = tl.load(b + start + offset, mask=inside).to(tl.float32)
    total = first + second + tl.load(bias + channel, mask=inside).to(tl.float32)
    tl.store(out + start + offset, total.to(out.dtype.element_ty), mask=inside)


def _sum(a: Tensor, b: Tensor, bias: Tensor) -> Tensor:
    out = torch.empty_like(a)
    count = a.numel()
    with torch.cuda.device_of(a):
        _add[(triton.cdiv(count, BLOCK),)](a, b, bias, out, count, a.shape[1], BLOCK=BLOCK, num_warps=WARPS)
    return out


class _AddWithBias(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, bias: Tensor) -> Tensor:
        return _sum(a, b, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, Tensor, None]:
        return cotangent, cotangent, None


def add_with_bias(a: Tensor, b: Tensor, bias: Tensor) -> Tensor:
    """Add two channels-last tensors and a bias by channel, as `residual.add_with_bias` has checked them."""
    if torch.is_grad_enabled() and (a.requires_grad or b.requires_grad):
        return _AddWithBias.apply(a, b, bias)
    return _sum(a, b, bias)
