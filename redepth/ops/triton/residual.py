"""The kernel of `residual.add_with_bias`: it reads a and b once and writes their sum once."""

# Kernels have no types: Triton decides them when it compiles.
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from redepth.ops.triton.group_norm.launch import channel_block

ELEMENTS = 4096
"""Of a tile, pixels times channels."""
WARPS = 4


@triton.jit(do_not_specialize=["pixels"])
def _add(a, b, bias, out, pixels, channels, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """Store a + b + bias of the channel, for a tile of pixels and neighbouring channels."""
    start = tl.program_id(0).to(tl.int64) * BLOCK_P
    row = tl.arange(0, BLOCK_P)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = (start + row < pixels)[:, None] & (c < channels)[None, :]
    # Only the first element is far from the tensor's start: offsets from it fit into 32 bits.
    at = start * channels + row[:, None] * channels + c[None, :]
    first = tl.load(a + at, mask=inside).to(tl.float32)
    second = tl.load(b + at, mask=inside).to(tl.float32)
    total = first + second + tl.load(bias + c, mask=c < channels).to(tl.float32)[None, :]
    tl.store(out + at, total.to(out.dtype.element_ty), mask=inside)


def _sum(a: Tensor, b: Tensor, bias: Tensor) -> Tensor:
    out = torch.empty_like(a)
    channels = a.shape[1]
    pixels, block = a.numel() // channels, channel_block(channels)
    rows = max(1, ELEMENTS // block)
    grid = (triton.cdiv(pixels, rows), triton.cdiv(channels, block))
    with torch.cuda.device_of(a):
        _add[grid](a, b, bias, out, pixels, channels, BLOCK_P=rows, BLOCK_C=block, num_warps=WARPS)
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
    bias = bias.contiguous()
    if torch.is_grad_enabled() and (a.requires_grad or b.requires_grad):
        return _AddWithBias.apply(a, b, bias)
    return _sum(a, b, bias)
