"""The forward kernels: moments of each group and the result, or both in one kernel for small groups."""

# Kernels have no types: Triton decides them when it compiles.
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from redepth.ops.triton.group_norm import launch
from redepth.ops.triton.group_norm.blocks import (
    channel_centre,
    load_addend,
    load_group_values,
    program_block,
    store_partial,
)


@triton.jit(do_not_specialize=["pixels", "chunk"])
def _moments(x, partial, pixels, channels, chunk, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """Store mean and summed squared deviation of each channel in a chunk of pixels."""
    image, begin, count, row, c, valid = program_block(pixels, channels, chunk, BLOCK_P, BLOCK_C)
    at = x + begin + row[:, None] * channels + c[None, :]
    inside = (row < count)[:, None] & valid[None, :]
    value = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    # Sums of squares lose no digits after subtracting a value near the mean.
    shift = tl.sum(value, 0) / tl.minimum(count, BLOCK_P)
    value = tl.where(inside, value - shift[None, :], 0.0)
    total, squares = value, value * value
    for start in range(BLOCK_P, count, BLOCK_P):
        at += BLOCK_P * channels
        inside = (row + start < count)[:, None] & valid[None, :]
        value = tl.load(at, mask=inside, other=0.0).to(tl.float32)
        value = tl.where(inside, value - shift[None, :], 0.0)
        total += value
        squares += value * value
    total = tl.sum(total, 0)
    mean = total / count
    deviation = tl.maximum(tl.sum(squares, 0) - total * mean, 0.0)
    store_partial(partial, image, shift + mean, deviation, c, valid, channels)


@triton.jit(do_not_specialize=["pixels", "chunk", "chunks"])
def _join_moments(
    partial,
    addend,
    mean,
    rstd,
    eps,
    pixels,
    channels,
    groups,
    chunk,
    chunks,
    ADDEND: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_G: tl.constexpr,
):
    """Store each group's mean and 1 / sqrt(variance + eps); an addend shifts only the means of channels."""
    group, image = tl.program_id(0), tl.program_id(1).to(tl.int64)
    width = channels // groups
    within = tl.arange(0, BLOCK_G)
    k = tl.arange(0, BLOCK_K)
    partial += image * chunks * 2 * channels + group * width
    moved = tl.zeros((BLOCK_G,), tl.float32)
    if ADDEND:
        moved = load_addend(addend, image, group * width + within, channels, within < width, ADDEND)
    anchor = tl.load(partial)
    total = tl.zeros((BLOCK_K, BLOCK_G), tl.float32)
    for start in range(0, chunks, BLOCK_K):
        at = partial + ((start + k) * 2)[:, None] * channels + within[None, :]
        inside = (start + k < chunks)[:, None] & (within < width)[None, :]
        count = tl.minimum(pixels - (start + k) * chunk, chunk).to(tl.float32)[:, None]
        value = tl.load(at, mask=inside, other=0.0) + moved[None, :]
        total += tl.where(inside, (value - anchor) * count, 0.0)
    weight = 1.0 / (pixels.to(tl.float32) * width)
    centre = anchor + tl.sum(tl.sum(total, 1), 0) * weight
    squares = tl.zeros((BLOCK_K, BLOCK_G), tl.float32)
    for start in range(0, chunks, BLOCK_K):
        at = partial + ((start + k) * 2)[:, None] * channels + within[None, :]
        inside = (start + k < chunks)[:, None] & (within < width)[None, :]
        count = tl.minimum(pixels - (start + k) * chunk, chunk).to(tl.float32)[:, None]
        away = tl.load(at, mask=inside, other=0.0) + moved[None, :] - centre
        deviation = tl.load(at + channels, mask=inside, other=0.0)
        squares += tl.where(inside, deviation + count * away * away, 0.0)
    variance = tl.sum(tl.sum(squares, 1), 0) * weight
    tl.store(mean + image * groups + group, centre)
    tl.store(rstd + image * groups + group, 1.0 / tl.sqrt(variance + eps))


@triton.jit(do_not_specialize=["pixels", "chunk"])
def _apply(
    x,
    weight,
    bias,
    addend,
    mean,
    rstd,
    y,
    pixels,
    channels,
    groups,
    chunk,
    ACT: tl.constexpr,
    ADDEND: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Store y = act(w (x - mean) rstd + b)."""
    image, begin, count, row, c, valid = program_block(pixels, channels, chunk, BLOCK_P, BLOCK_C)
    group = c // (channels // groups)
    w = tl.load(weight + c, mask=valid, other=0.0).to(tl.float32)
    b = tl.load(bias + c, mask=valid, other=0.0).to(tl.float32)[None, :]
    centre = channel_centre(mean, addend, image, group, groups, c, channels, valid, ADDEND)[None, :]
    scale = (load_group_values(rstd, image, group, groups, valid) * w)[None, :]
    at = begin + row[:, None] * channels + c[None, :]
    for start in range(0, count, BLOCK_P):
        inside = (row + start < count)[:, None] & valid[None, :]
        z = (tl.load(x + at, mask=inside, other=0.0).to(tl.float32) - centre) * scale + b
        if ACT:
            z = z * tl.sigmoid(z)
        tl.store(y + at, z.to(y.dtype.element_ty), mask=inside)
        at += BLOCK_P * channels


@triton.jit(do_not_specialize=["pixels"])
def _whole(
    x,
    weight,
    bias,
    addend,
    mean,
    rstd,
    y,
    eps,
    pixels,
    channels,
    groups,
    WIDTH: tl.constexpr,
    ACT: tl.constexpr,
    ADDEND: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_G: tl.constexpr,
):
    """Normalise one group of one picture; the second read of x hits the cache."""
    group, image = tl.program_id(0), tl.program_id(1).to(tl.int64)
    within = tl.arange(0, BLOCK_G)
    row = tl.arange(0, BLOCK_P)
    valid = within < WIDTH
    begin = image * pixels * channels + group * WIDTH
    first = row[:, None] * channels + within[None, :]
    inside = (row < pixels)[:, None] & valid[None, :]
    moved = tl.zeros((BLOCK_G,), tl.float32)
    if ADDEND:
        moved = load_addend(addend, image, group * WIDTH + within, channels, valid, ADDEND)
    value = tl.load(x + begin + first, mask=inside, other=0.0).to(tl.float32)
    value = tl.where(inside, value + moved[None, :], 0.0)
    shift = tl.sum(tl.sum(value, 1), 0) / (tl.minimum(pixels, BLOCK_P) * WIDTH).to(tl.float32)
    value = tl.where(inside, value - shift, 0.0)
    total, squares = value, value * value
    at = first
    for start in range(BLOCK_P, pixels, BLOCK_P):
        at += BLOCK_P * channels
        inside = (row + start < pixels)[:, None] & valid[None, :]
        value = tl.load(x + begin + at, mask=inside, other=0.0).to(tl.float32) + moved[None, :]
        value = tl.where(inside, value - shift, 0.0)
        total += value
        squares += value * value
    share = 1.0 / (pixels.to(tl.float32) * WIDTH)
    away = tl.sum(tl.sum(total, 1), 0) * share
    variance = tl.maximum(tl.sum(tl.sum(squares, 1), 0) * share - away * away, 0.0)
    centre, scale = shift + away, 1.0 / tl.sqrt(variance + eps)
    tl.store(mean + image * groups + group, centre)
    tl.store(rstd + image * groups + group, scale)
    w = tl.load(weight + group * WIDTH + within, mask=valid, other=0.0).to(tl.float32)[None, :] * scale
    b = tl.load(bias + group * WIDTH + within, mask=valid, other=0.0).to(tl.float32)[None, :]
    at = first
    for start in range(0, pixels, BLOCK_P):
        inside = (row + start < pixels)[:, None] & valid[None, :]
        value = tl.load(x + begin + at, mask=inside, other=0.0).to(tl.float32) + moved[None, :]
        z = (value - centre) * w + b
        if ACT:
            z = z * tl.sigmoid(z)
        tl.store(y + begin + at, z.to(y.dtype.element_ty), mask=inside)
        at += BLOCK_P * channels


def normalize(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, silu: bool, addend: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y (N, C, ...) in channels-last memory, and mean and 1 / deviation, (N, groups)."""
    rows = launch.as_rows(x)
    images, pixels, channels = rows.shape
    y = torch.empty_like(rows)
    mean, rstd = (rows.new_empty((images, groups), dtype=torch.float32) for _ in range(2))
    # Without an addend the kernels do not read this argument; it only has to be a pointer.
    added = weight if addend is None else addend
    kind = launch.addend_kind(addend)
    operands = (rows, weight, bias, added, mean, rstd, y)
    sizes = (pixels, channels, groups)
    tile = launch.whole_tile(rows.shape, groups)
    with torch.cuda.device_of(x):
        if tile:
            _whole[groups, images](*operands, eps, *sizes, ACT=silu, ADDEND=kind, **tile)
        else:
            _group_moments(rows, groups, added, mean, rstd, eps, kind)
            result = launch.cut(rows.shape, launch.RESULT, summed=False)
            _apply[result.grid](*operands, *sizes, result.chunk, ACT=silu, ADDEND=kind, **result.tile)
    return launch.as_pictures(y, x.shape), mean, rstd


def _group_moments(
    rows: Tensor, groups: int, added: Tensor, mean: Tensor, rstd: Tensor, eps: float, kind: int
) -> None:
    """Fill mean and 1 / deviation of each group of (N, P, C)."""
    images, pixels, channels = rows.shape
    sums = launch.cut(rows.shape, launch.SUMS, summed=True)
    chunks = sums.grid[0]
    partial = rows.new_empty((images, chunks, 2, channels), dtype=torch.float32)
    _moments[sums.grid](rows, partial, pixels, channels, sums.chunk, **sums.tile)
    _join_moments[groups, images](
        partial,
        added,
        mean,
        rstd,
        eps,
        pixels,
        channels,
        groups,
        sums.chunk,
        chunks,
        ADDEND=kind,
        **launch.join_tile(channels, groups),
    )
