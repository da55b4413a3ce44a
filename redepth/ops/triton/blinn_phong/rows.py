"""Device functions of both kernels: one row of a strip of pixels."""

# Kernels have no types: Triton decides them when it compiles.
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra import libdevice

from redepth.ops.color import GAMMA
from redepth.ops.shading import FLOOR

_FLOOR = tl.constexpr(FLOOR)
INVERSE_GAMMA = tl.constexpr(1.0 / GAMMA)
LANES = tl.constexpr(32)


# --- values and their neighbours ------------------------------------------------------------------


@triton.jit
def _hardware_log2(x):
    return libdevice.fast_log2f(x)


INTERPRETED = not isinstance(_hardware_log2, triton.JITFunction)
"""Whether the kernels run in Triton's interpreter."""

_INTERPRETED = tl.constexpr(INTERPRETED)


@triton.jit
def log2(x):
    """Return the logarithm by the hardware's instruction.

    `tl.log2` takes about 20 instructions. The hardware's takes one and is off by 2^-22; an exponent of 128
    makes that a relative error of 2e-5.
    """
    if _INTERPRETED:
        return tl.log2(x)
    return _hardware_log2(x)


@triton.jit
def is_finite(x):
    """Return a mask, false for NaN too."""
    return tl.abs(x) < float("inf")


@triton.jit
def _finite_or(x, fallback):
    return tl.where(is_finite(x), x, fallback)


@triton.jit
def dot(a, b):
    """Return the scalar product of two vectors, tuples of three."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@triton.jit
def _from_lane(x, step: tl.constexpr):
    """Return the values of the lane ``step`` lanes on; beyond the first and the last lane, their own."""
    strips: tl.constexpr = x.shape[0] // LANES
    lane = tl.arange(0, LANES)[None, :] + step
    lane = tl.broadcast_to(tl.minimum(tl.maximum(lane, 0), LANES - 1), (strips, LANES))
    # One row per warp: the exchange stays within a warp.
    return tl.reshape(tl.gather(tl.reshape(x, (strips, LANES)), lane, 1), (strips * LANES,))


@triton.jit
def left_of(x):
    """Return the pixels one column to the left; undefined in the first column of a strip."""
    even, odd = tl.split(x)
    return tl.join(_from_lane(odd, -1), even)


@triton.jit
def right_of(x):
    """Return the pixels one column to the right; undefined in the last column of a strip."""
    even, odd = tl.split(x)
    return tl.join(odd, _from_lane(even, 1))


# --- memory ---------------------------------------------------------------------------------------


@triton.jit
def _load(row, at, PAIRED: tl.constexpr):
    """Load one row as float32."""
    if PAIRED:
        # The host has checked that every pair is aligned; the compiler cannot tell from the strides.
        pair_bytes: tl.constexpr = row.dtype.element_ty.primitive_bitwidth // 4
        return tl.load(tl.multiple_of(row + at, (1, pair_bytes))).to(tl.float32)
    # One load per column of the pair keeps the layout, and so the shuffles, of the paired case.
    even, odd = tl.split(at)
    return tl.join(tl.load(row + even), tl.load(row + odd)).to(tl.float32)


@triton.jit
def load_rgb(row, channel, at, PAIRED: tl.constexpr):
    """Load one row of the three channels, ``channel`` elements apart."""
    green = row + channel
    return _load(row, at, PAIRED), _load(green, at, PAIRED), _load(green + channel, at, PAIRED)


@triton.jit
def load_depth(row, at, inside, PAIRED: tl.constexpr):
    """Load one row of depth; NaN outside the image, which no pixel takes for a neighbour."""
    return tl.where(inside, _load(row, at, PAIRED), float("nan"))


@triton.jit
def store_row(row, at, value, mask, PAIRED: tl.constexpr):
    """Store one row in the tensor's dtype."""
    value = value.to(row.dtype.element_ty)
    if PAIRED:
        pair_bytes: tl.constexpr = row.dtype.element_ty.primitive_bitwidth // 4
        tl.store(tl.multiple_of(row + at, (1, pair_bytes)), value, mask=mask)
    else:
        even, odd = tl.split(at)
        even_value, odd_value = tl.split(value)
        even_mask, odd_mask = tl.split(mask)
        tl.store(row + even, even_value, mask=even_mask)
        tl.store(row + odd, odd_value, mask=odd_mask)


@triton.jit
def load_light(direction, diffuse, specular, shininess, index):
    """Return l, h = (l + v) / |l + v| with v = (0, 0, 1), k_d, k_s and p of one light."""
    direction += 3 * index
    diffuse += 3 * index
    specular += 3 * index
    x, y, z = tl.load(direction), tl.load(direction + 1), tl.load(direction + 2)
    inverse = 1.0 / tl.maximum(tl.sqrt(x * x + y * y + (z + 1.0) * (z + 1.0)), 1e-8)
    k_d = (tl.load(diffuse), tl.load(diffuse + 1), tl.load(diffuse + 2))
    k_s = (tl.load(specular), tl.load(specular + 1), tl.load(specular + 2))
    half = (x * inverse, y * inverse, (z + 1.0) * inverse)
    return (x, y, z), half, k_d, k_s, tl.load(shininess + index)


# --- one row --------------------------------------------------------------------------------------


@triton.jit
def strip_columns(width, STRIPS: tl.constexpr, PAIRED: tl.constexpr):
    """Return the program's columns, the columns to read, and masks of those in the image and those it writes.

    Columns beyond the image are read from its edge, so that loads need no mask.
    """
    thread = tl.arange(0, STRIPS * LANES)[:, None]
    strip, lane = tl.program_id(0) * STRIPS + thread // LANES, thread % LANES
    even = 2 * (strip * (LANES - 2) + lane - 1)
    which = tl.arange(0, 2)[None, :]
    column = even + which
    if PAIRED:
        # The width is even: a pair is in the image, or beyond it, as a whole.
        inside = (even >= 0) & (even < width)
        readable = tl.minimum(tl.maximum(even, 0), width - 2) + which
    else:
        inside = (column >= 0) & (column < width)
        readable = tl.minimum(tl.maximum(column, 0), width - 1)
    return column, readable.to(tl.int64), inside, inside & (lane > 0) & (lane < LANES - 1)


@triton.jit
def rows_around(depth, step, at, inside, row, height, PAIRED: tl.constexpr):
    """Return the rows above, at and below the one that ``depth`` points to, and a pointer to the last.

    Pointers stop at the last row of the image: values beyond it are never used, but must be readable.
    """
    up = load_depth(depth - tl.where(row > 0, step, 0), at, inside & (row > 0), PAIRED)
    z = load_depth(depth, at, inside, PAIRED)
    depth += tl.where(row + 1 < height, step, 0)
    return up, z, load_depth(depth, at, inside & (row + 1 < height), PAIRED), depth


@triton.jit
def difference_factor(position, size, scale):
    """Return the factor of the difference of both neighbours: ``scale`` at a border, half of it inside."""
    return tl.where((position == 0) | (position + 1 == size), scale, 0.5 * scale)


@triton.jit
def unit_normal(z, left, right, up, down, along, across, upright):
    """Return n = s c, c, s = 1 / (|c| + 1e-8) and |c|^2, with c as in `geometry.normals_from_depth`.

    ``along`` and ``across`` are the factors of the differences along a row and across rows. A neighbour that
    is not finite counts as the pixel itself. Where the pixel is not finite or not positive, n is (0, 0, -1)
    and s is 0, which also stops its gradient.
    """
    z = _finite_or(z, 0.0)
    x = (_finite_or(right, z) - _finite_or(left, z)) * along
    y = (_finite_or(down, z) - _finite_or(up, z)) * across
    square = upright * upright + x * x + y * y
    norm = tl.sqrt(square) + 1e-8
    # 1 / norm: the square root's inverse is one instruction, a division is six.
    scale = tl.where(z > 0, tl.rsqrt(norm * norm), 0.0)
    normal = (x * scale, y * scale, tl.where(z > 0, upright * scale, -1.0))
    return normal, (x, y, upright), scale, square


@triton.jit
def to_srgb(linear):
    """Return clip(R, floor, 1)^(1 / gamma); NaN stays NaN."""
    clipped = tl.clamp(linear, _FLOOR, 1.0, propagate_nan=tl.PropagateNan.ALL)
    power = tl.exp2(log2(clipped) * INVERSE_GAMMA)
    return tl.minimum(power, 1.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def linear_cotangent(cotangent, linear):
    """Return gamma times the cotangent of R; 0 where `to_srgb` clips."""
    slope = tl.exp2(log2(linear) * (INVERSE_GAMMA - 1.0))
    return tl.where((linear >= _FLOOR) & (linear <= 1.0), cotangent * slope, 0.0)
