"""Device functions that the forward and backward kernels share."""

# Kernels have no types: Triton decides them when it compiles.
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def program_block(pixels, channels, chunk, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """Return the block of pixels and channels of this program.

    That is: the picture, the offset of the block's first element, the number of its pixels, the rows of a
    tile, its channels, and which of the channels are valid. Only the first element is far from the tensor's
    start, so offsets from it fit into 32 bits.
    """
    image = tl.program_id(2).to(tl.int64)
    start = tl.program_id(0).to(tl.int64) * chunk
    count = tl.minimum(pixels - start, chunk).to(tl.int32)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    return image, (image * pixels + start) * channels, count, tl.arange(0, BLOCK_P), c, c < channels


@triton.jit
def load_group_values(values, image, group, groups, valid):
    """Load for each channel the value of its group, float32."""
    return tl.load(values + image * groups + group, mask=valid, other=0.0)


@triton.jit
def load_addend(addend, image, c, channels, valid, ADDEND: tl.constexpr):
    """Load the addend of each channel, float32: one for all pictures (ADDEND 1) or one for each (2)."""
    return tl.load(addend + image * (ADDEND - 1) * channels + c, mask=valid, other=0.0).to(tl.float32)


@triton.jit
def channel_centre(mean, addend, image, group, groups, c, channels, valid, ADDEND: tl.constexpr):
    """Return the mean of each channel's group minus the channel's addend."""
    centre = load_group_values(mean, image, group, groups, valid)
    if ADDEND:
        centre -= load_addend(addend, image, c, channels, valid, ADDEND)
    return centre


@triton.jit
def activation_slope(z, ACT: tl.constexpr):
    """Return dy/dz: the slope of SiLU, or 1 without it."""
    if ACT:
        s = tl.sigmoid(z)
        return s * (1.0 + z * (1.0 - s))
    return tl.full(z.shape, 1.0, tl.float32)


@triton.jit
def store_partial(partial, image, first, second, c, valid, channels):
    """Store two sums by channel for this chunk; partial is (N, chunks, 2, C)."""
    partial += (image * tl.num_programs(0) + tl.program_id(0)) * 2 * channels
    tl.store(partial + c, first, mask=valid)
    tl.store(partial + channels + c, second, mask=valid)
