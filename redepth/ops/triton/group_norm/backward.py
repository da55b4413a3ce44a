"""The backward kernels: sums over each group, their join, and the gradient of x."""

# Kernels have no types: Triton decides them when it compiles.
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from redepth.ops.triton.group_norm import launch
from redepth.ops.triton.group_norm.blocks import (
    activation_slope,
    channel_centre,
    load_group_values,
    program_block,
    store_partial,
)


@triton.jit(do_not_specialize=["pixels", "chunk"])
def _pulled(
    x,
    weight,
    bias,
    addend,
    mean,
    rstd,
    cotangent,
    partial,
    pixels,
    channels,
    groups,
    chunk,
    ACT: tl.constexpr,
    ADDEND: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Store by channel the sums of d = g act'(z) and of d xhat over a chunk of pixels."""
    image, begin, count, row, c, valid = program_block(pixels, channels, chunk, BLOCK_P, BLOCK_C)
    group = c // (channels // groups)
    w = tl.load(weight + c, mask=valid, other=0.0).to(tl.float32)[None, :]
    b = tl.load(bias + c, mask=valid, other=0.0).to(tl.float32)[None, :]
    centre = channel_centre(mean, addend, image, group, groups, c, channels, valid, ADDEND)[None, :]
    scale = load_group_values(rstd, image, group, groups, valid)[None, :]
    at = begin + row[:, None] * channels + c[None, :]
    plain = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    along = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    for start in range(0, count, BLOCK_P):
        inside = (row + start < count)[:, None] & valid[None, :]
        xhat = (tl.load(x + at, mask=inside, other=0.0).to(tl.float32) - centre) * scale
        # The cotangent is 0 beyond the end, and so are its products.
        g = tl.load(cotangent + at, mask=inside, other=0.0).to(tl.float32)
        d = g * activation_slope(xhat * w + b, ACT)
        plain += d
        along += d * xhat
        at += BLOCK_P * channels
    store_partial(partial, image, tl.sum(plain, 0), tl.sum(along, 0), c, valid, channels)


@triton.jit(do_not_specialize=["pixels", "chunks"])
def _join_pulled(
    partial,
    weight,
    plain,
    along,
    pixels,
    channels,
    groups,
    chunks,
    BLOCK_K: tl.constexpr,
    BLOCK_G: tl.constexpr,
):
    """Store each group's means of w d and of w d xhat."""
    group, image = tl.program_id(0), tl.program_id(1).to(tl.int64)
    width = channels // groups
    within = tl.arange(0, BLOCK_G)
    k = tl.arange(0, BLOCK_K)
    partial += image * chunks * 2 * channels + group * width
    w = tl.load(weight + group * width + within, mask=within < width, other=0.0).to(tl.float32)[None, :]
    first = tl.zeros((BLOCK_K, BLOCK_G), tl.float32)
    second = tl.zeros((BLOCK_K, BLOCK_G), tl.float32)
    for start in range(0, chunks, BLOCK_K):
        at = partial + ((start + k) * 2)[:, None] * channels + within[None, :]
        inside = (start + k < chunks)[:, None] & (within < width)[None, :]
        first += w * tl.load(at, mask=inside, other=0.0)
        second += w * tl.load(at + channels, mask=inside, other=0.0)
    share = 1.0 / (pixels.to(tl.float32) * width)
    tl.store(plain + image * groups + group, tl.sum(tl.sum(first, 1), 0) * share)
    tl.store(along + image * groups + group, tl.sum(tl.sum(second, 1), 0) * share)


@triton.jit(do_not_specialize=["pixels", "chunk"])
def _pull(
    x,
    weight,
    bias,
    addend,
    mean,
    rstd,
    plain,
    along,
    cotangent,
    gradient,
    pixels,
    channels,
    groups,
    chunk,
    ACT: tl.constexpr,
    ADDEND: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Store dx = rstd (w d - mean(w d) - xhat mean(w d xhat)), with d as in `_pulled`."""
    image, begin, count, row, c, valid = program_block(pixels, channels, chunk, BLOCK_P, BLOCK_C)
    group = c // (channels // groups)
    w = tl.load(weight + c, mask=valid, other=0.0).to(tl.float32)[None, :]
    b = tl.load(bias + c, mask=valid, other=0.0).to(tl.float32)[None, :]
    centre = channel_centre(mean, addend, image, group, groups, c, channels, valid, ADDEND)[None, :]
    scale = load_group_values(rstd, image, group, groups, valid)[None, :]
    level = load_group_values(plain, image, group, groups, valid)[None, :]
    tilt = load_group_values(along, image, group, groups, valid)[None, :]
    at = begin + row[:, None] * channels + c[None, :]
    for start in range(0, count, BLOCK_P):
        inside = (row + start < count)[:, None] & valid[None, :]
        xhat = (tl.load(x + at, mask=inside, other=0.0).to(tl.float32) - centre) * scale
        g = tl.load(cotangent + at, mask=inside, other=0.0).to(tl.float32)
        d = g * activation_slope(xhat * w + b, ACT)
        pulled = scale * (w * d - level - xhat * tilt)
        tl.store(gradient + at, pulled.to(gradient.dtype.element_ty), mask=inside)
        at += BLOCK_P * channels


def input_gradient(
    cotangent: Tensor,
    x: Tensor,
    groups: int,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    rstd: Tensor,
    silu: bool,
    addend: Tensor | None = None,
) -> Tensor:
    """Return the gradient of x, in channels-last memory."""
    rows, cotangent_rows = launch.as_rows(x), launch.as_rows(cotangent)
    images, pixels, channels = rows.shape
    gradient = torch.empty_like(rows)
    plain, along = torch.empty_like(mean), torch.empty_like(mean)
    sums = launch.cut(rows.shape, launch.BACKWARD, summed=True)
    result = launch.cut(rows.shape, launch.BACKWARD, summed=False)
    chunks = sums.grid[0]
    partial = rows.new_empty((images, chunks, 2, channels), dtype=torch.float32)
    # Without an addend the kernels do not read this argument; it only has to be a pointer.
    added = weight if addend is None else addend
    kind = launch.addend_kind(addend)
    operands = (rows, weight, bias, added, mean, rstd)
    sizes = (pixels, channels, groups)
    with torch.cuda.device_of(x):
        _pulled[sums.grid](
            *operands, cotangent_rows, partial, *sizes, sums.chunk, ACT=silu, ADDEND=kind, **sums.tile
        )
        _join_pulled[groups, images](
            partial, weight, plain, along, *sizes, chunks, **launch.join_tile(channels, groups)
        )
        _pull[result.grid](
            *operands,
            plain,
            along,
            cotangent_rows,
            gradient,
            *sizes,
            result.chunk,
            ACT=silu,
            ADDEND=kind,
            **result.tile,
        )
    return launch.as_pictures(gradient, x.shape)
