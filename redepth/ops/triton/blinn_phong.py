r"""Blinn-Phong relighting in one kernel each way, for CUDA; the twin is `shading.relight_blinn_phong`.

Both kernels read depth, photo and light and write their result; normals live in registers only. The floor is
memory: for one light in float32, 28 bytes per pixel forward and 32 backward. At that rate a GPU has time for
about 200 instructions per pixel, so what follows saves instructions. A warp walks down a strip of columns:

- The pixels above and below the current row stay in registers from row to row.
- A lane holds two pixels side by side: a warp reads 64 columns with one 8-byte load per lane, and the pixels
  to the left and right come from the next lane by a shuffle.
- The next row is loaded before the current one is computed; a warp that waited for each row would stand
  still for most of the time.
- The lights of an image are a loop inside the row: depth and photo are read once for all of them.

The outer lanes of a warp lend their pixels to the inner ones, so a strip writes 60 of its 64 columns, and the
backward kernel computes a row more at either end. This repeats an eighth of the arithmetic, but needs no
atomics, no memory between programs and no barrier, and the results are the same to the bit in every run.

Triton decides at import whether kernels run in its interpreter (``TRITON_INTERPRET=1``), which takes CPU
tensors and is for tests only.
"""

# Kernels have no types: Triton decides them when it compiles.
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable
from triton.compiler import ASTSource
from triton.language.extra import libdevice

from redepth.ops.color import GAMMA
from redepth.ops.shading import FLOOR

_FLOOR = tl.constexpr(FLOOR)
_INVERSE_GAMMA = tl.constexpr(1.0 / GAMMA)
_LANES = tl.constexpr(32)


# --- values and their neighbours ------------------------------------------------------------------


@triton.jit
def _fast_log2(x):
    return libdevice.fast_log2f(x)


INTERPRETED = not isinstance(_fast_log2, triton.JITFunction)
"""Whether the kernels run in Triton's interpreter."""

_INTERPRETED = tl.constexpr(INTERPRETED)


@triton.jit
def _log2(x):
    # tl.log2 takes about 20 instructions. The hardware's takes one and is off by 2^-22, of which an exponent
    # of 128 makes a relative error of 2e-5.
    if _INTERPRETED:
        return tl.log2(x)
    return _fast_log2(x)


@triton.jit
def _finite(x):
    return tl.abs(x) < float("inf")


@triton.jit
def _finite_or(x, fallback):
    return tl.where(_finite(x), x, fallback)


@triton.jit
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@triton.jit
def _from_lane(x, step: tl.constexpr):
    """Return the values of the lane ``step`` lanes on; beyond the first and the last lane, their own."""
    strips: tl.constexpr = x.shape[0] // _LANES
    lane = tl.arange(0, _LANES)[None, :] + step
    lane = tl.broadcast_to(tl.minimum(tl.maximum(lane, 0), _LANES - 1), (strips, _LANES))
    # One row per warp: the exchange stays within a warp.
    return tl.reshape(tl.gather(tl.reshape(x, (strips, _LANES)), lane, 1), (strips * _LANES,))


@triton.jit
def _left(x):
    """Return the pixels one column to the left; the first column of a strip gets nothing of use."""
    even, odd = tl.split(x)
    return tl.join(_from_lane(odd, -1), even)


@triton.jit
def _right(x):
    """Return the pixels one column to the right; the last column of a strip gets nothing of use."""
    even, odd = tl.split(x)
    return tl.join(odd, _from_lane(even, 1))


# --- memory ---------------------------------------------------------------------------------------


@triton.jit
def _load(row, at, PAIRED: tl.constexpr):
    """Load one row as float32."""
    if PAIRED:
        # The host has checked that every pair is aligned, which the compiler cannot know of a stride.
        pair_bytes: tl.constexpr = row.dtype.element_ty.primitive_bitwidth // 4
        return tl.load(tl.multiple_of(row + at, (1, pair_bytes))).to(tl.float32)
    # One load per column of the pair keeps the layout, and so the shuffles, of the paired case.
    even, odd = tl.split(at)
    return tl.join(tl.load(row + even), tl.load(row + odd)).to(tl.float32)


@triton.jit
def _load_rgb(row, channel, at, PAIRED: tl.constexpr):
    """Load one row of the three channels, ``channel`` elements apart."""
    green = row + channel
    return _load(row, at, PAIRED), _load(green, at, PAIRED), _load(green + channel, at, PAIRED)


@triton.jit
def _load_depth(row, at, there, PAIRED: tl.constexpr):
    """Load one row of depth, NaN, which no pixel takes for a neighbour, where there is none."""
    return tl.where(there, _load(row, at, PAIRED), float("nan"))


@triton.jit
def _store(row, at, value, mask, PAIRED: tl.constexpr):
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
def _load_light(direction, diffuse, specular, shininess, index):
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
def _strip(width, STRIPS: tl.constexpr, PAIRED: tl.constexpr):
    """Return this program's columns, those to read, which are in the image, and which it writes.

    Columns beyond the image are read from its edge, so that loads need no mask.
    """
    thread = tl.arange(0, STRIPS * _LANES)[:, None]
    strip, lane = tl.program_id(0) * STRIPS + thread // _LANES, thread % _LANES
    even = 2 * (strip * (_LANES - 2) + lane - 1)
    which = tl.arange(0, 2)[None, :]
    column = even + which
    if PAIRED:
        # The width is even: a pair is in the image, or beyond it, as a whole.
        inside = (even >= 0) & (even < width)
        readable = tl.minimum(tl.maximum(even, 0), width - 2) + which
    else:
        inside = (column >= 0) & (column < width)
        readable = tl.minimum(tl.maximum(column, 0), width - 1)
    return column, readable.to(tl.int64), inside, inside & (lane > 0) & (lane < _LANES - 1)


@triton.jit
def _rows_around(depth, step, at, inside, row, height, PAIRED: tl.constexpr):
    """Return the rows above, at and below the one that ``depth`` points to, and a pointer to the last.

    Pointers stop at the last row of the image: what is read beyond it is never used, but has to be readable.
    """
    up = _load_depth(depth - tl.where(row > 0, step, 0), at, inside & (row > 0), PAIRED)
    z = _load_depth(depth, at, inside, PAIRED)
    depth += tl.where(row + 1 < height, step, 0)
    return up, z, _load_depth(depth, at, inside & (row + 1 < height), PAIRED), depth


@triton.jit
def _spacing(position, size, pitch):
    """Return what turns the difference of two neighbours to one over the pitch: one-sided at a border."""
    return tl.where((position == 0) | (position + 1 == size), pitch, 0.5 * pitch)


@triton.jit
def _normal(z, left, right, up, down, along, across, upright):
    """Return n = s c, c = (dv z_col, du z_row, -dv du), s = 1 / (|c| + 1e-8) and |c|^2.

    A neighbour that is not finite counts as the pixel itself. Where the pixel is not finite or not positive,
    n is (0, 0, -1) and s is 0, which also stops its gradient.
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
def _srgb(linear):
    """Return clip(R, floor, 1)^(1 / gamma); NaN stays NaN."""
    clipped = tl.clamp(linear, _FLOOR, 1.0, propagate_nan=tl.PropagateNan.ALL)
    power = tl.exp2(_log2(clipped) * _INVERSE_GAMMA)
    return tl.minimum(power, 1.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _through_srgb(cotangent, linear):
    """Return gamma times the cotangent of R; 0 where `_srgb` clips."""
    slope = tl.exp2(_log2(linear) * (_INVERSE_GAMMA - 1.0))
    return tl.where((linear >= _FLOOR) & (linear <= 1.0), cotangent * slope, 0.0)


# --- forward --------------------------------------------------------------------------------------


@triton.jit(do_not_specialize=["height", "width"])
def _forward(
    depth,
    image,
    direction,
    diffuse,
    specular,
    shininess,
    relit,
    ambient,
    height,
    width,
    du,
    dv,
    depth_strides,
    image_strides,
    LIGHTS: tl.constexpr,
    ROWS: tl.constexpr,
    STRIPS: tl.constexpr,
    PAIRED: tl.constexpr,
):
    """out_c = clip(R_c, floor, 1)^(1 / gamma), R_c = (k_d,c max(n.l, 0) + a) I_c + k_s,c max(n.h, 0)^p."""
    batch = tl.program_id(2).to(tl.int64)
    start = tl.program_id(1) * ROWS
    stop = tl.minimum(start + ROWS, height)
    column, at, inside, written = _strip(width, STRIPS, PAIRED)
    along = _spacing(column, width, dv)
    first = start.to(tl.int64)
    plane = height.to(tl.int64) * width

    depth_at, depth_step = at * depth_strides[2], depth_strides[1]
    depth += batch * depth_strides[0] + first * depth_step
    up, z, down, depth = _rows_around(depth, depth_step, depth_at, inside, start, height, PAIRED)
    image_at, image_step = at * image_strides[3], image_strides[2]
    image += batch * image_strides[0] + first * image_step
    rgb = _load_rgb(image, image_strides[1], image_at, PAIRED)
    relit += batch * LIGHTS * 3 * plane + first * width
    if LIGHTS == 1:
        toward, half, k_d, k_s, p = _load_light(direction, diffuse, specular, shininess, batch)

    for row in range(start, stop):
        depth += tl.where(row + 2 < height, depth_step, 0)
        below = _load_depth(depth, depth_at, inside & (row + 2 < height), PAIRED)
        image += tl.where(row + 1 < height, image_step, 0)
        next_rgb = _load_rgb(image, image_strides[1], image_at, PAIRED)

        across = _spacing(row, height, du)
        n, _, _, _ = _normal(z, _left(z), _right(z), up, down, along, across, -dv * du)
        channel = relit
        for light in range(LIGHTS):
            if LIGHTS > 1:
                toward, half, k_d, k_s, p = _load_light(
                    direction, diffuse, specular, shininess, batch * LIGHTS + light
                )
            cosine = tl.maximum(_dot(n, toward), 0.0)
            shine = tl.exp2(p * _log2(tl.maximum(_dot(n, half), 0.0)))
            for k in tl.static_range(3):
                linear = (k_d[k] * cosine + ambient) * rgb[k] + k_s[k] * shine
                _store(channel, at, _srgb(linear), written, PAIRED)
                channel += plane
        up, z, down = z, down, below
        rgb = next_rgb
        relit += width


# --- backward -------------------------------------------------------------------------------------


@triton.jit(do_not_specialize=["height", "width"])
def _backward(
    depth,
    image,
    direction,
    diffuse,
    specular,
    shininess,
    cotangent,
    depth_grad,
    image_grad,
    ambient,
    height,
    width,
    du,
    dv,
    depth_strides,
    image_strides,
    cotangent_strides,
    LIGHTS: tl.constexpr,
    IMAGE_GRAD: tl.constexpr,
    ROWS: tl.constexpr,
    STRIPS: tl.constexpr,
    PAIRED: tl.constexpr,
):
    """With g_c the cotangent of R_c, [..] 1 where true and else 0, and sums over lights and channels.

    g_n = [n.l >= 0] (sum g_c k_d,c I_c) l + (sum g_c k_s,c) p max(n.h, 0)^(p - 1) h
    g_x, g_y: of the vector s (g_n - c (c.g_n) s / |c|), times dv and du and the weight of the differences
    g_z = g_x [left] - g_x [right] + (g_x [right] of the left pixel) - (g_x [left] of the right pixel)
    and likewise of g_y with up and down, where [left] says that the left pixel is finite, and so on
    g_I,c = sum over lights of g_c (k_d,c max(n.l, 0) + a)
    """
    batch = tl.program_id(2).to(tl.int64)
    top = tl.program_id(1) * ROWS
    start = tl.maximum(top - 1, 0)
    stop = tl.minimum(top + ROWS + 1, height)
    column, at, inside, written = _strip(width, STRIPS, PAIRED)
    along = _spacing(column, width, dv)
    first = start.to(tl.int64)
    plane = height.to(tl.int64) * width

    depth_at, depth_step = at * depth_strides[2], depth_strides[1]
    depth += batch * depth_strides[0] + first * depth_step
    up, z, down, depth = _rows_around(depth, depth_step, depth_at, inside, start, height, PAIRED)
    image_at, image_step = at * image_strides[3], image_strides[2]
    image += batch * image_strides[0] + first * image_step
    rgb = _load_rgb(image, image_strides[1], image_at, PAIRED)
    g_at, g_step = at * cotangent_strides[4], cotangent_strides[3]
    cotangent += batch * cotangent_strides[0] + first * g_step
    g_out = _load_rgb(cotangent, cotangent_strides[2], g_at, PAIRED)
    depth_grad += batch * plane + first * width
    if IMAGE_GRAD:
        image_grad += batch * 3 * plane + first * width
    if LIGHTS == 1:
        toward, half, k_d, k_s, p = _load_light(direction, diffuse, specular, shininess, batch)
    zero = tl.zeros((STRIPS * _LANES, 2), tl.float32)
    pending, from_above = zero, zero

    for row in range(start, stop):
        depth += tl.where(row + 2 < height, depth_step, 0)
        below = _load_depth(depth, depth_at, inside & (row + 2 < height), PAIRED)
        image += tl.where(row + 1 < height, image_step, 0)
        next_rgb = _load_rgb(image, image_strides[1], image_at, PAIRED)
        to_next_row = tl.where(row + 1 < height, g_step, 0)

        across = _spacing(row, height, du)
        left, right = _left(z), _right(z)
        n, c, scale, square = _normal(z, left, right, up, down, along, across, -dv * du)
        g_n = (zero, zero, zero)
        g_image = (zero, zero, zero)
        for light in range(LIGHTS):
            last = light + 1 == LIGHTS
            cotangent += tl.where(last, to_next_row, 0)
            # All lights of an image can be more than 2^31 elements, where no single step is.
            next_light = tl.where(last, 0, light + 1).to(tl.int64) * cotangent_strides[1]
            next_g = _load_rgb(cotangent + next_light, cotangent_strides[2], g_at, PAIRED)
            if LIGHTS > 1:
                toward, half, k_d, k_s, p = _load_light(
                    direction, diffuse, specular, shininess, batch * LIGHTS + light
                )
            n_l, n_h = _dot(n, toward), _dot(n, half)
            cosine = tl.maximum(n_l, 0.0)
            slope = tl.where(n_h > 0, tl.exp2((p - 1.0) * _log2(n_h)), 0.0)
            shine = slope * n_h
            share = (k_d[0] * cosine + ambient, k_d[1] * cosine + ambient, k_d[2] * cosine + ambient)
            g = (
                _through_srgb(g_out[0], share[0] * rgb[0] + k_s[0] * shine),
                _through_srgb(g_out[1], share[1] * rgb[1] + k_s[1] * shine),
                _through_srgb(g_out[2], share[2] * rgb[2] + k_s[2] * shine),
            )
            lit = (g[0] * rgb[0], g[1] * rgb[1], g[2] * rgb[2])
            g_cosine = tl.where(n_l >= 0, _dot(lit, k_d), 0.0)
            g_shine = _dot(g, k_s) * (p * slope)
            g_n = (
                g_n[0] + g_cosine * toward[0] + g_shine * half[0],
                g_n[1] + g_cosine * toward[1] + g_shine * half[1],
                g_n[2] + g_cosine * toward[2] + g_shine * half[2],
            )
            if IMAGE_GRAD:
                g_image = (
                    g_image[0] + g[0] * share[0],
                    g_image[1] + g[1] * share[1],
                    g_image[2] + g[2] * share[2],
                )
            g_out = next_g

        # Through n = c / (|c| + 1e-8); 1 / gamma was left out of the cotangents until here.
        along_c = _dot(g_n, c) * (scale * tl.rsqrt(square))
        scale *= _INVERSE_GAMMA
        g_x = (g_n[0] - c[0] * along_c) * (scale * along)
        g_y = (g_n[1] - c[1] * along_c) * (scale * across)
        to_left, to_right = tl.where(_finite(left), g_x, 0.0), tl.where(_finite(right), g_x, 0.0)
        to_up, to_down = tl.where(_finite(up), g_y, 0.0), tl.where(_finite(down), g_y, 0.0)
        if row > top:
            _store(depth_grad - width, at, pending - to_up, written, PAIRED)
        pending = to_left - to_right + to_up - to_down + from_above + _left(to_right) - _right(to_left)
        if IMAGE_GRAD:
            if (row >= top) & (row < top + ROWS):
                for k in tl.static_range(3):
                    _store(image_grad + k * plane, at, g_image[k] * _INVERSE_GAMMA, written, PAIRED)
            image_grad += width
        from_above = to_down
        up, z, down = z, down, below
        rgb = next_rgb
        depth_grad += width
    # The last row of the image has none below it that would complete and store it.
    if stop < top + ROWS + 1:
        _store(depth_grad - width, at, pending, written, PAIRED)


# --- launch ---------------------------------------------------------------------------------------


class Launch(NamedTuple):
    """How an image is cut: rows per program, and strips of columns, one warp each, side by side in it.

    Fewer rows repeat more of the backward kernel's border rows, more leave less to share among the
    multiprocessors. Strips that are neighbours share the cache lines at their borders.
    """

    rows: int = 32
    strips: int = 2


FORWARD = Launch()
BACKWARD = Launch()

_GRID_LIMIT = 65535  # of CUDA, along all axes but the first


def _launch(kernel: Any, cut: Launch, shape: torch.Size, *arguments: Any, **constants: Any) -> None:
    """Start a kernel on images of shape (B, ..., H, W)."""
    batch, height, width = shape[0], shape[-2], shape[-1]
    columns = 2 * (_LANES.value - 2)
    grid = (triton.cdiv(width, columns * cut.strips), triton.cdiv(height, cut.rows), batch)
    if max(grid[1:]) > _GRID_LIMIT:
        rows = _GRID_LIMIT * cut.rows
        raise ValueError(f"at most {_GRID_LIMIT} images of {rows} rows at a time, got {batch} of {height}")
    with torch.cuda.device_of(arguments[0]):
        kernel[grid](
            *arguments,
            ROWS=cut.rows,
            STRIPS=cut.strips,
            num_warps=cut.strips,
            enable_fp_fusion=True,
            **constants,
        )


def _pitch(height: int, width: int) -> tuple[float, float]:
    """Return du and dv, the steps of `geometry.orthographic_axes` along columns and rows."""
    du = 2 * width / (height * (width - 1)) if width > 1 else 1.0
    dv = -2 / (height - 1) if height > 1 else -1.0
    return du, dv


def _paired(*images: Tensor) -> bool:
    """Return whether every two columns (0, 1), (2, 3), ... of all images are one aligned pair in memory."""
    return all(
        image.shape[-1] % 2 == 0
        and image.stride(-1) == 1
        and image.data_ptr() % (2 * image.element_size()) == 0
        and all(s % 2 == 0 for n, s in zip(image.shape[:-1], image.stride()[:-1], strict=True) if n > 1)
        for image in images
    )


def _depth_strides(depth: Tensor) -> tuple[int, int, int]:
    return depth.stride(0), depth.stride(2), depth.stride(3)


class _Relight(torch.autograd.Function):
    """`relight_blinn_phong` for checked arguments of one batch size."""

    @staticmethod
    def forward(
        ctx: Any, depth: Tensor, image: Tensor, ambient: float, out_dtype: torch.dtype, *light: Tensor
    ) -> Tensor:
        light = tuple(value.contiguous() for value in light)
        batch, lights = light[0].shape[:2]
        height, width = depth.shape[-2:]
        relit = torch.empty((batch, lights, 3, height, width), dtype=out_dtype, device=depth.device)
        _launch(
            _forward,
            FORWARD,
            depth.shape,
            depth,
            image,
            *light,
            relit,
            ambient,
            height,
            width,
            *_pitch(height, width),
            _depth_strides(depth),
            image.stride(),
            LIGHTS=lights,
            PAIRED=_paired(depth, image, relit),
        )
        ctx.save_for_backward(depth, image, *light)
        ctx.ambient = ambient
        return relit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        depth, image, *light = ctx.saved_tensors
        height, width = depth.shape[-2:]
        depth_grad = torch.empty(depth.shape, dtype=depth.dtype, device=depth.device)
        wanted = ctx.needs_input_grad
        # Where the photo needs no gradient, the kernel is given any pointer and leaves it alone.
        image_grad = (
            torch.empty(image.shape, dtype=image.dtype, device=image.device) if wanted[1] else depth_grad
        )
        _launch(
            _backward,
            BACKWARD,
            depth.shape,
            depth,
            image,
            *light,
            cotangent,
            depth_grad,
            image_grad,
            ctx.ambient,
            height,
            width,
            *_pitch(height, width),
            _depth_strides(depth),
            image.stride(),
            cotangent.stride(),
            LIGHTS=cotangent.shape[1],
            IMAGE_GRAD=wanted[1],
            PAIRED=_paired(depth, image, cotangent, depth_grad, image_grad),
        )
        return (
            depth_grad if wanted[0] else None,
            image_grad if wanted[1] else None,
            *[None] * (2 + len(light)),
        )


def relight_blinn_phong(
    depth: Tensor,
    image_linear: Tensor,
    direction: Tensor,
    diffuse: Tensor,
    specular: Tensor,
    shininess: Tensor,
    ambient: float = 0.0,
    *,
    out_dtype: torch.dtype = torch.float32,
) -> Tensor:
    r"""Relight a photo: depth to normals, Blinn-Phong, an ambient share of the photo, sRGB.

    .. math::
        \mathrm{clip}(R_c,\, 10^{-3},\, 1)^{1/2.2}, \qquad
        R_c = (k_{d,c} \max(n \cdot l, 0) + a) \, I_c + k_{s,c} \max(n \cdot h, 0)^{p}

    with h = (l + v) / |l + v|, v = (0, 0, 1), and n by `geometry.normals_from_depth` of an orthographic
    camera, its rules for borders and invalid pixels included. Gradients flow to depth and photo; where
    max(n.h, 0) is 0, the highlight's is 0. Arithmetic is float32.

    Args:
        depth: (B, 1, H, W) relative depth, float32, on a CUDA device; any strides.
        image_linear: (B or 1, 3, H, W) linear colours in [0, 1], float32, float16 or bfloat16; any strides.
        direction: (B, L, 3) unit vectors l towards the light, float32.
        diffuse: (B, L, 3) weight k_d >= 0 per colour channel; light colour and exposure are folded in.
        specular: (B, L, 3) weight k_s >= 0, likewise.
        shininess: (B, L) exponent p > 0.
        ambient: share a of the photo that is added unshaded.
        out_dtype: of the result: float32, float16 or bfloat16.

    Returns:
        (B, L, 3, H, W) sRGB in [1e-3, 1].

    Raises:
        TypeError: a dtype is not one of those above.
        ValueError: a shape or a device does not fit, a light requires grad (these kernels have none for it),
            or the tensors are not on a CUDA device.
    """
    lights = {"direction": direction, "diffuse": diffuse, "specular": specular, "shininess": shininess}
    _check_shapes(depth, image_linear, lights)
    _check_dtypes(depth, image_linear, lights, out_dtype)
    _check_devices(depth, {"image_linear": image_linear, **lights})
    if torch.is_grad_enabled():
        for name, value in lights.items():
            if value.requires_grad:
                raise ValueError(f"the triton kernels have no gradient for {name}; use backend torch")
    image = image_linear.expand(depth.shape[0], -1, -1, -1)
    return _Relight.apply(depth, image, float(ambient), out_dtype, *lights.values())


def _check_shapes(depth: Tensor, image: Tensor, lights: dict[str, Tensor]) -> None:
    if depth.dim() != 4 or depth.shape[1] != 1 or depth.numel() == 0:
        raise ValueError(f"depth must be (B, 1, H, W) and not empty, got {tuple(depth.shape)}")
    batch, _, height, width = depth.shape
    if tuple(image.shape) not in {(n, 3, height, width) for n in (1, batch)}:
        raise ValueError(
            f"image_linear must be ({batch} or 1, 3, {height}, {width}) like the depth, "
            f"got {tuple(image.shape)}"
        )
    count = lights["direction"].shape[1] if lights["direction"].dim() == 3 else 1
    for name, value in lights.items():
        expected = (batch, max(count, 1), 3)[: 2 if name == "shininess" else 3]
        if tuple(value.shape) != expected:
            raise ValueError(f"{name} must be {expected} for a batch of {batch}, got {tuple(value.shape)}")


def _check_dtypes(depth: Tensor, image: Tensor, lights: dict[str, Tensor], out_dtype: torch.dtype) -> None:
    for name, value in {"depth": depth, **lights}.items():
        if value.dtype != torch.float32:
            raise TypeError(f"{name} must be float32, got {value.dtype}")
    for name, dtype in (("image_linear", image.dtype), ("out_dtype", out_dtype)):
        if dtype not in (torch.float32, torch.float16, torch.bfloat16):
            raise TypeError(f"{name} must be float32, float16 or bfloat16, got {dtype}")


def _check_devices(depth: Tensor, others: dict[str, Tensor]) -> None:
    for name, value in others.items():
        if value.device != depth.device:
            raise ValueError(f"{name} must be on {depth.device} as the depth is, got {value.device}")
    if depth.device.type != "cuda" and not INTERPRETED:
        raise ValueError(
            f"the triton kernels need a CUDA device, got {depth.device}; use backend torch, or set "
            "TRITON_INTERPRET=1 before the import to run them in Triton's slow interpreter"
        )


# --- ahead of time --------------------------------------------------------------------------------


def ahead_of_time(
    lights: int = 1, *, image_grad: bool = False, paired: bool = True
) -> dict[str, tuple[ASTSource, dict[str, Any]]]:
    """Return source and options of both kernels for `triton.compile`, which needs no GPU.

    They are specialized as the launches are for float32 images whose columns are adjacent in memory.

    Args:
        lights: L.
        image_grad: whether the backward kernel writes the gradient of the photo.
        paired: whether every two columns are an aligned pair, as in contiguous images of even width.
    """
    constants = {"LIGHTS": lights, "PAIRED": paired}
    return {
        "forward": _source(_forward, FORWARD, constants),
        "backward": _source(_backward, BACKWARD, {**constants, "IMAGE_GRAD": image_grad}),
    }


def _source(kernel: Any, cut: Launch, constants: dict[str, Any]) -> tuple[ASTSource, dict[str, Any]]:
    constants = {**constants, "ROWS": cut.rows, "STRIPS": cut.strips}
    strides = {"depth_strides": 3, "image_strides": 4, "cotangent_strides": 5}
    scalars = dict.fromkeys(("ambient", "du", "dv"), "fp32") | dict.fromkeys(("height", "width"), "i32")
    signature: dict[str, Any] = {}
    values: dict[tuple[int, ...], Any] = {}
    for position, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name], values[position,] = "constexpr", constants[name]
        elif name in strides:
            signature[name] = (*["i32"] * (strides[name] - 1), "constexpr")
            values[position, strides[name] - 1] = 1
        else:
            signature[name] = scalars.get(name, "*fp32")
    return ASTSource(kernel, signature, values), {"num_warps": cut.strips, "enable_fp_fusion": True}
