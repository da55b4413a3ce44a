r"""Group normalisation and SiLU for channels-last tensors, for CUDA; the twin is `group_norm.group_norm`.

In torch, a GroupNorm between two channels-last convolutions copies its input to another layout and its output
back, and SiLU reads and writes everything once more. These kernels read and write channels-last only, and
work on memory as rows: (N, P, C), P pixels of C channels. The floor is memory: x is read twice and y written
once; on the way back x and its cotangent are read twice and the gradient written once. Nothing but x, the
mean and one over the deviation of each group is kept in between.

Small pictures, as inside a denoiser, are one launch: a program has a group of a picture to itself. Otherwise,
and on the way back, there are three: sums, their end, and the result.

- A program sums a chunk of pixels for a block of channels: wide loads of neighbouring channels, and sums by
  channel, so that it does not matter how many channels a group has.
- A second, tiny kernel adds up the chunks and channels of each group, in one order: no atomics, and the
  results are the same to the bit in every run. How pixels are cut does not depend on the number of pictures
  either: a picture's result is the same in every batch.
- The third writes the result.

An addend, a number for each channel (the bias of the convolution before, what a UNet makes of the time),
costs no pass of its own: it moves the mean of a channel and nothing else.

Squares are taken of what is left when the mean of the chunk's first rows is subtracted, and chunks are joined
by their means: a mean that is large beside the deviation costs no digits. All sums are float32.

Triton decides at import whether kernels run in its interpreter (``TRITON_INTERPRET=1``), which takes CPU
tensors and is for tests only.
"""

# Kernels have no types: Triton decides them when it compiles.
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable
from triton.compiler import ASTSource

from redepth.ops.triton.kernels import DTYPES

# --- parts ----------------------------------------------------------------------------------------


@triton.jit
def _here(pixels, channels, chunk, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """Return this program's first element, its rows, which of them there are, and its channels likewise.

    Only the first element is far from the tensor's start: offsets from it fit into 32 bits.
    """
    image = tl.program_id(2).to(tl.int64)
    start = tl.program_id(0).to(tl.int64) * chunk
    count = tl.minimum(pixels - start, chunk).to(tl.int32)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    return image, (image * pixels + start) * channels, count, tl.arange(0, BLOCK_P), c, c < channels


@triton.jit
def _per_channel(values, image, group, groups, there):
    """Load what each channel's group has, float32."""
    return tl.load(values + image * groups + group, mask=there, other=0.0)


@triton.jit
def _added(addend, image, c, channels, there, ADDEND: tl.constexpr):
    """Load what is added to each channel, float32: of all pictures (1), or of each its own (2)."""
    return tl.load(addend + image * (ADDEND - 1) * channels + c, mask=there, other=0.0).to(tl.float32)


@triton.jit
def _centre(mean, addend, image, group, groups, c, channels, there, ADDEND: tl.constexpr):
    """Return each channel's mean, less what would be added to the channel before."""
    centre = _per_channel(mean, image, group, groups, there)
    if ADDEND:
        centre -= _added(addend, image, c, channels, there, ADDEND)
    return centre


@triton.jit
def _slope(z, ACT: tl.constexpr):
    """Return dy/dz."""
    if ACT:
        s = tl.sigmoid(z)
        return s * (1.0 + z * (1.0 - s))
    return tl.full(z.shape, 1.0, tl.float32)


@triton.jit
def _store_partial(partial, image, first, second, c, there, channels):
    """Store two sums by channel of this chunk: partial is (N, chunks, 2, C)."""
    partial += (image * tl.num_programs(0) + tl.program_id(0)) * 2 * channels
    tl.store(partial + c, first, mask=there)
    tl.store(partial + channels + c, second, mask=there)


# --- forward --------------------------------------------------------------------------------------


@triton.jit(do_not_specialize=["pixels", "chunk"])
def _moments(x, partial, pixels, channels, chunk, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """Store mean and summed squared deviation of each channel in a chunk of pixels."""
    image, begin, count, row, c, there = _here(pixels, channels, chunk, BLOCK_P, BLOCK_C)
    at = x + begin + row[:, None] * channels + c[None, :]
    inside = (row < count)[:, None] & there[None, :]
    value = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    # A value near the mean: of what is left, sums of squares lose nothing.
    shift = tl.sum(value, 0) / tl.minimum(count, BLOCK_P)
    value = tl.where(inside, value - shift[None, :], 0.0)
    total, squares = value, value * value
    for start in range(BLOCK_P, count, BLOCK_P):
        at += BLOCK_P * channels
        inside = (row + start < count)[:, None] & there[None, :]
        value = tl.load(at, mask=inside, other=0.0).to(tl.float32)
        value = tl.where(inside, value - shift[None, :], 0.0)
        total += value
        squares += value * value
    total = tl.sum(total, 0)
    mean = total / count
    deviation = tl.maximum(tl.sum(squares, 0) - total * mean, 0.0)
    _store_partial(partial, image, shift + mean, deviation, c, there, channels)


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
    """Store each group's mean and 1 / sqrt(variance + eps); an addend moves the means of channels alone."""
    group, image = tl.program_id(0), tl.program_id(1).to(tl.int64)
    width = channels // groups
    within = tl.arange(0, BLOCK_G)
    k = tl.arange(0, BLOCK_K)
    partial += image * chunks * 2 * channels + group * width
    moved = tl.zeros((BLOCK_G,), tl.float32)
    if ADDEND:
        moved = _added(addend, image, group * width + within, channels, within < width, ADDEND)
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
    image, begin, count, row, c, there = _here(pixels, channels, chunk, BLOCK_P, BLOCK_C)
    group = c // (channels // groups)
    w = tl.load(weight + c, mask=there, other=0.0).to(tl.float32)
    b = tl.load(bias + c, mask=there, other=0.0).to(tl.float32)[None, :]
    centre = _centre(mean, addend, image, group, groups, c, channels, there, ADDEND)[None, :]
    scale = (_per_channel(rstd, image, group, groups, there) * w)[None, :]
    at = begin + row[:, None] * channels + c[None, :]
    for start in range(0, count, BLOCK_P):
        inside = (row + start < count)[:, None] & there[None, :]
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
    """Do all of it for one group of one picture; its second look at x finds it in the cache."""
    group, image = tl.program_id(0), tl.program_id(1).to(tl.int64)
    within = tl.arange(0, BLOCK_G)
    row = tl.arange(0, BLOCK_P)
    there = within < WIDTH
    begin = image * pixels * channels + group * WIDTH
    first = row[:, None] * channels + within[None, :]
    inside = (row < pixels)[:, None] & there[None, :]
    moved = tl.zeros((BLOCK_G,), tl.float32)
    if ADDEND:
        moved = _added(addend, image, group * WIDTH + within, channels, there, ADDEND)
    value = tl.load(x + begin + first, mask=inside, other=0.0).to(tl.float32)
    value = tl.where(inside, value + moved[None, :], 0.0)
    shift = tl.sum(tl.sum(value, 1), 0) / (tl.minimum(pixels, BLOCK_P) * WIDTH).to(tl.float32)
    value = tl.where(inside, value - shift, 0.0)
    total, squares = value, value * value
    at = first
    for start in range(BLOCK_P, pixels, BLOCK_P):
        at += BLOCK_P * channels
        inside = (row + start < pixels)[:, None] & there[None, :]
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
    w = tl.load(weight + group * WIDTH + within, mask=there, other=0.0).to(tl.float32)[None, :] * scale
    b = tl.load(bias + group * WIDTH + within, mask=there, other=0.0).to(tl.float32)[None, :]
    at = first
    for start in range(0, pixels, BLOCK_P):
        inside = (row + start < pixels)[:, None] & there[None, :]
        value = tl.load(x + begin + at, mask=inside, other=0.0).to(tl.float32) + moved[None, :]
        z = (value - centre) * w + b
        if ACT:
            z = z * tl.sigmoid(z)
        tl.store(y + begin + at, z.to(y.dtype.element_ty), mask=inside)
        at += BLOCK_P * channels


# --- backward -------------------------------------------------------------------------------------


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
    """Store the sums of d = g act'(z) and of d xhat over a chunk of pixels, by channel."""
    image, begin, count, row, c, there = _here(pixels, channels, chunk, BLOCK_P, BLOCK_C)
    group = c // (channels // groups)
    w = tl.load(weight + c, mask=there, other=0.0).to(tl.float32)[None, :]
    b = tl.load(bias + c, mask=there, other=0.0).to(tl.float32)[None, :]
    centre = _centre(mean, addend, image, group, groups, c, channels, there, ADDEND)[None, :]
    scale = _per_channel(rstd, image, group, groups, there)[None, :]
    at = begin + row[:, None] * channels + c[None, :]
    plain = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    along = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    for start in range(0, count, BLOCK_P):
        inside = (row + start < count)[:, None] & there[None, :]
        xhat = (tl.load(x + at, mask=inside, other=0.0).to(tl.float32) - centre) * scale
        # Beyond the end the cotangent is 0, and so is what comes of it.
        g = tl.load(cotangent + at, mask=inside, other=0.0).to(tl.float32)
        d = g * _slope(xhat * w + b, ACT)
        plain += d
        along += d * xhat
        at += BLOCK_P * channels
    _store_partial(partial, image, tl.sum(plain, 0), tl.sum(along, 0), c, there, channels)


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
    """With d as above, dx = rstd (w d - mean(w d) - xhat mean(w d xhat))."""
    image, begin, count, row, c, there = _here(pixels, channels, chunk, BLOCK_P, BLOCK_C)
    group = c // (channels // groups)
    w = tl.load(weight + c, mask=there, other=0.0).to(tl.float32)[None, :]
    b = tl.load(bias + c, mask=there, other=0.0).to(tl.float32)[None, :]
    centre = _centre(mean, addend, image, group, groups, c, channels, there, ADDEND)[None, :]
    scale = _per_channel(rstd, image, group, groups, there)[None, :]
    level = _per_channel(plain, image, group, groups, there)[None, :]
    tilt = _per_channel(along, image, group, groups, there)[None, :]
    at = begin + row[:, None] * channels + c[None, :]
    for start in range(0, count, BLOCK_P):
        inside = (row + start < count)[:, None] & there[None, :]
        xhat = (tl.load(x + at, mask=inside, other=0.0).to(tl.float32) - centre) * scale
        g = tl.load(cotangent + at, mask=inside, other=0.0).to(tl.float32)
        d = g * _slope(xhat * w + b, ACT)
        pulled = scale * (w * d - level - xhat * tilt)
        tl.store(gradient + at, pulled.to(gradient.dtype.element_ty), mask=inside)
        at += BLOCK_P * channels


# --- launch ---------------------------------------------------------------------------------------


class Launch(NamedTuple):
    """How rows are cut.

    Attributes:
        elements: of a tile, pixels times channels; a thread has ``elements / (32 warps)`` of them.
        warps: of a program.
        tiles: of a program, one after the other, where the result is written.
    """

    elements: int = 4096
    warps: int = 4
    tiles: int = 1


SUMS = Launch()
RESULT = Launch()
WAY_BACK = Launch(elements=2048)
JOIN = Launch(elements=1024)
WHOLE = Launch(warps=8)

LARGEST_WHOLE = 32768
"""Most values of a group, pixels times channels, that one program normalises alone."""

WIDEST = 256
"""Most channels of a tile: 512 bytes in half precision, from a warp's 32 lanes of 16."""

_GRID_LIMIT = 65535  # of CUDA, along all axes but the first


class _Cut(NamedTuple):
    """Rows of one shape under one `Launch`: the grid, pixels of a program, and the tile."""

    grid: tuple[int, int, int]
    chunk: int
    tile: dict[str, int]


def channel_block(channels: int) -> int:
    """Return the channels of a tile: a power of two that divides C, so that no lane idles; else beyond it."""
    even = math.gcd(channels, WIDEST)
    return even if even >= 32 else min(triton.next_power_of_2(channels), WIDEST)


@functools.lru_cache(maxsize=1024)
def _cut(shape: torch.Size, launch: Launch, *, summed: bool) -> _Cut:
    """Cut (N, P, C).

    Sums are taken over about sqrt(P) pixels, for which there are as many partial sums: large pictures give
    enough programs, and small ones few sums to join. The number of pictures has no say.
    """
    images, pixels, channels = shape
    block = channel_block(channels)
    rows = max(1, min(launch.elements // block, triton.next_power_of_2(pixels)))
    tiles = triton.cdiv(math.isqrt(pixels - 1) + 1, rows) if summed else launch.tiles
    chunk = rows * tiles
    grid = (triton.cdiv(pixels, chunk), triton.cdiv(channels, block), images)
    tile = {"BLOCK_P": rows, "BLOCK_C": block, "num_warps": launch.warps}
    return _Cut(grid, chunk, tile)


def _joined(channels: int, groups: int) -> dict[str, int]:
    """Return the tile of chunks times a group's channels; few kinds of it, each of which is compiled once."""
    width = triton.next_power_of_2(channels // groups)
    return {"BLOCK_K": max(1, JOIN.elements // width), "BLOCK_G": width, "num_warps": JOIN.warps}


@functools.lru_cache(maxsize=1024)
def _alone(shape: torch.Size, groups: int) -> dict[str, int]:
    """Return the tile of a group of (N, P, C) that one program has to itself; empty if it is too large."""
    pixels, width = shape[1], shape[2] // groups
    if pixels * width > LARGEST_WHOLE:
        return {}
    block = triton.next_power_of_2(width)
    rows = max(1, min(WHOLE.elements // block, triton.next_power_of_2(pixels)))
    return {"WIDTH": width, "BLOCK_P": rows, "BLOCK_G": block, "num_warps": WHOLE.warps}


def _rows(x: Tensor) -> Tensor:
    """Return (N, C, ...) as (N, P, C) in contiguous memory: a view where it is channels-last."""
    return x.flatten(2).transpose(1, 2).contiguous()


def _pictures(rows: Tensor, shape: torch.Size) -> Tensor:
    """Return (N, P, C) as (N, C, ...), a view."""
    return rows.transpose(1, 2).unflatten(2, shape[2:])


def _kind(addend: Tensor | None) -> int:
    """Return what the kernels know an addend by: none, one for all pictures, one for each."""
    return 0 if addend is None else 1 if addend.shape[0] == 1 else 2


def _forward(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, silu: bool, addend: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y (N, C, ...) in channels-last memory, and mean and 1 / deviation, (N, groups)."""
    rows = _rows(x)
    images, pixels, channels = rows.shape
    y = torch.empty_like(rows)
    mean, rstd = (rows.new_empty((images, groups), dtype=torch.float32) for _ in range(2))
    kind, added = _kind(addend), weight if addend is None else addend
    given = (rows, weight, bias, added)
    if tile := _alone(rows.shape, groups):
        numbers = (eps, pixels, channels, groups)
        with torch.cuda.device_of(x):
            _whole[groups, images](*given, mean, rstd, y, *numbers, ACT=silu, ADDEND=kind, **tile)
        return _pictures(y, x.shape), mean, rstd
    sums, result = _cut(rows.shape, SUMS, summed=True), _cut(rows.shape, RESULT, summed=False)
    chunks = sums.grid[0]
    partial = rows.new_empty((images, chunks, 2, channels), dtype=torch.float32)
    with torch.cuda.device_of(x):
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
            **_joined(channels, groups),
        )
        _apply[result.grid](
            *given,
            mean,
            rstd,
            y,
            pixels,
            channels,
            groups,
            result.chunk,
            ACT=silu,
            ADDEND=kind,
            **result.tile,
        )
    return _pictures(y, x.shape), mean, rstd


def _backward(
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
    rows, pulled = _rows(x), _rows(cotangent)
    images, pixels, channels = rows.shape
    gradient = torch.empty_like(rows)
    plain, along = torch.empty_like(mean), torch.empty_like(mean)
    sums, result = _cut(rows.shape, WAY_BACK, summed=True), _cut(rows.shape, WAY_BACK, summed=False)
    chunks = sums.grid[0]
    partial = rows.new_empty((images, chunks, 2, channels), dtype=torch.float32)
    kind, added = _kind(addend), weight if addend is None else addend
    given = (rows, weight, bias, added, mean, rstd)
    with torch.cuda.device_of(x):
        _pulled[sums.grid](
            *given,
            pulled,
            partial,
            pixels,
            channels,
            groups,
            sums.chunk,
            ACT=silu,
            ADDEND=kind,
            **sums.tile,
        )
        _join_pulled[groups, images](
            partial,
            weight,
            plain,
            along,
            pixels,
            channels,
            groups,
            chunks,
            **_joined(channels, groups),
        )
        _pull[result.grid](
            *given,
            plain,
            along,
            pulled,
            gradient,
            pixels,
            channels,
            groups,
            result.chunk,
            ACT=silu,
            ADDEND=kind,
            **result.tile,
        )
    return _pictures(gradient, x.shape)


# --- autograd -------------------------------------------------------------------------------------


class _GroupNorm(torch.autograd.Function):
    """`group_norm` for checked arguments, outside of torch.compile."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        groups: int,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        silu: bool,
        addend: Tensor | None,
    ) -> Tensor:
        y, mean, rstd = _forward(x, groups, weight, bias, eps, silu, addend)
        ctx.save_for_backward(x, weight, bias, mean, rstd, addend)
        ctx.groups, ctx.silu = groups, silu
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, rstd, addend = ctx.saved_tensors
        gradient = _backward(cotangent, x, ctx.groups, weight, bias, mean, rstd, ctx.silu, addend)
        return gradient, *[None] * 6


# The same as operators, which torch.compile takes as they are; outside of it they cost more time than the
# launches do.

_forward_op = torch.library.custom_op(
    "redepth::group_norm",
    _forward,
    mutates_args=(),
    schema=(
        "(Tensor x, int groups, Tensor weight, Tensor bias, float eps, bool silu, Tensor? addend) -> "
        "(Tensor, Tensor, Tensor)"
    ),
)
_backward_op = torch.library.custom_op(
    "redepth::group_norm_backward",
    _backward,
    mutates_args=(),
    schema=(
        "(Tensor cotangent, Tensor x, int groups, Tensor weight, Tensor bias, Tensor mean, Tensor rstd, "
        "bool silu, Tensor? addend) -> Tensor"
    ),
)


def _like(x: Tensor) -> Tensor:
    rows = torch.empty((x.shape[0], *x.shape[2:], x.shape[1]), dtype=x.dtype, device=x.device)
    return rows.movedim(-1, 1)


@_forward_op.register_fake
def _(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, silu: bool, addend: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    mean, rstd = (x.new_empty((x.shape[0], groups), dtype=torch.float32) for _ in range(2))
    return _like(x), mean, rstd


@_backward_op.register_fake
def _(cotangent: Tensor, x: Tensor, *_: Any) -> Tensor:
    return _like(x)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, groups, weight, bias, _, silu, addend = inputs
    ctx.save_for_backward(x, weight, bias, *output[1:], addend)
    ctx.groups, ctx.silu = groups, silu


def _pull_back(ctx: Any, cotangent: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    x, weight, bias, mean, rstd, addend = ctx.saved_tensors
    gradient = _backward_op(cotangent, x, ctx.groups, weight, bias, mean, rstd, ctx.silu, addend)
    return gradient, *[None] * 6


_forward_op.register_autograd(_pull_back, setup_context=_keep)


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
    """Normalise groups of channels, and apply SiLU: `group_norm.group_norm`, whose equations hold.

    Gradients flow to x only. Arithmetic is float32.

    Args:
        x: (N, C, ...), float32, float16 or bfloat16, on a CUDA device; of any layout, but what is not
            channels-last is copied to it first.
        groups: into how many groups C falls.
        weight: (C,) w, of any such dtype.
        bias: (C,) b, likewise.
        eps: added to the variance.
        silu: whether SiLU comes behind it.
        addend: (1 or N, C), added to x before; of any such dtype, and without gradient.

    Returns:
        The shape and dtype of ``x``, in channels-last memory.

    Raises:
        TypeError: a dtype is not one of those above.
        ValueError: a shape or a device does not fit, weight or bias require grad (these kernels have none
            for them), or the tensors are not on a CUDA device.
    """
    _check(x, groups, weight, bias, addend)
    weight, bias = weight.contiguous(), bias.contiguous()
    addend = None if addend is None else addend.contiguous()
    if torch.compiler.is_compiling():
        return _forward_op(x, groups, weight, bias, eps, silu, addend)[0]
    if torch.is_grad_enabled() and x.requires_grad:
        return _GroupNorm.apply(x, groups, weight, bias, eps, silu, addend)
    return _forward(x, groups, weight, bias, eps, silu, addend)[0]


def _check(x: Tensor, groups: int, weight: Tensor, bias: Tensor, addend: Tensor | None) -> None:
    if x.dim() < 3 or x.numel() == 0:
        raise ValueError(f"x must be (N, C, ...) with pixels and not empty, got {tuple(x.shape)}")
    images, channels = x.shape[:2]
    if groups < 1 or channels % groups:
        raise ValueError(f"{channels} channels do not fall into {groups} groups")
    if images > _GRID_LIMIT or channels > _GRID_LIMIT:
        raise ValueError(f"at most {_GRID_LIMIT} pictures and channels at a time, got {tuple(x.shape)}")
    vectors: dict[str, tuple[Tensor, set[tuple[int, ...]]]]
    vectors = {"weight": (weight, {(channels,)}), "bias": (bias, {(channels,)})}
    if addend is not None:
        vectors["addend"] = (addend, {(1, channels), (images, channels)})
    for name, (value, shapes) in {"x": (x, {tuple(x.shape)}), **vectors}.items():
        if value.dtype not in DTYPES:
            raise TypeError(f"{name} must be float32, float16 or bfloat16, got {value.dtype}")
        if value.device != x.device:
            raise ValueError(f"{name} must be on {x.device} as x is, got {value.device}")
        if tuple(value.shape) not in shapes:
            wanted = " or ".join(str(shape) for shape in sorted(shapes))
            raise ValueError(f"{name} must be {wanted}, got {tuple(value.shape)}")
        if name != "x" and torch.is_grad_enabled() and value.requires_grad:
            raise ValueError(f"the triton kernels have no gradient for {name}; freeze it, or use the twin")
    if x.device.type != "cuda" and not INTERPRETED:
        raise ValueError(
            f"the triton kernels need a CUDA device, got {x.device}; use the twin, or set "
            "TRITON_INTERPRET=1 before the import to run them in Triton's slow interpreter"
        )


INTERPRETED = not isinstance(_apply, triton.JITFunction)
"""Whether the kernels run in Triton's interpreter."""


# --- ahead of time --------------------------------------------------------------------------------


def ahead_of_time(
    shape: tuple[int, int, int, int], groups: int = 32, *, dtype: str = "fp16", silu: bool = True
) -> dict[str, tuple[ASTSource, dict[str, Any]]]:
    """Return source and options of the kernels for `triton.compile`, which needs no GPU.

    All that such pictures take, there and back, specialized as the launches are, for contiguous weights of
    the same dtype.

    Args:
        shape: N, C, H and W.
        groups: into how many groups C falls.
        dtype: of the tensors, as Triton names it.
        silu: whether SiLU comes behind it.
    """
    images, channels, height, width = shape
    rows = torch.Size((images, height * width, channels))
    # An addend of each picture its own, which is the most that there is to load.
    added = {"ADDEND": 2}
    act = {"ACT": silu, **added}
    found: dict[str, tuple[ASTSource, dict[str, Any]]] = {}
    if alone := _alone(rows, groups):
        found["_whole"] = _source(_whole, alone | act, dtype, channels, groups)
    for kernel, launch, summed in (
        (_moments, SUMS, True),
        (_apply, RESULT, False),
        (_pulled, WAY_BACK, True),
        (_pull, WAY_BACK, False),
    ):
        if alone and kernel in (_moments, _apply):
            continue
        cut = _cut(rows, launch, summed=summed)
        constants = cut.tile | ({} if kernel is _moments else act)
        found[kernel.__name__] = _source(kernel, constants, dtype, channels, groups)
        if summed:
            join = _join_moments if kernel is _moments else _join_pulled
            constants = _joined(channels, groups) | (added if kernel is _moments else {})
            found[join.__name__] = _source(join, constants, dtype, channels, groups)
    return found


def _source(
    kernel: Any, constants: dict[str, Any], dtype: str, channels: int, groups: int
) -> tuple[ASTSource, dict[str, Any]]:
    constants = dict(constants)
    warps = constants.pop("num_warps")
    floats = ("partial", "mean", "rstd", "plain", "along")
    numbers = {"pixels": 0, "chunk": 0, "chunks": 0, "channels": channels, "groups": groups}
    signature: dict[str, str] = {}
    values: dict[tuple[int, ...], Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    aligned = [["tt.divisibility", 16]]
    for position, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name], values[position,] = "constexpr", constants[name]
        elif name in numbers:
            signature[name] = "i32"
            if numbers[name] and numbers[name] % 16 == 0:
                attributes[position,] = aligned
        elif name == "eps":
            signature[name] = "fp32"
        else:
            signature[name] = "*fp32" if name in floats else f"*{dtype}"
            attributes[position,] = aligned
    return ASTSource(kernel, signature, values, attributes), {"num_warps": warps}
