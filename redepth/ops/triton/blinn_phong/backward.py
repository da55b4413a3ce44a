"""The kernel of the gradients by depth and photo."""

# Kernels have no types: Triton decides them when it compiles.
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import triton
import triton.language as tl

from redepth.ops.triton.blinn_phong.rows import (
    INVERSE_GAMMA,
    LANES,
    difference_factor,
    dot,
    is_finite,
    left_of,
    linear_cotangent,
    load_depth,
    load_light,
    load_rgb,
    log2,
    right_of,
    rows_around,
    store_row,
    strip_columns,
    unit_normal,
)


@triton.jit(do_not_specialize=["height", "width"])
def gradient_kernel(
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
    x_scale,
    y_scale,
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
    g_x, g_y: of the vector s (g_n - c (c.g_n) s / |c|), times the factors of the differences
    g_z = g_x [left] - g_x [right] + (g_x [right] of the left pixel) - (g_x [left] of the right pixel)
    and likewise of g_y with up and down, where [left] says that the left pixel is finite, and so on
    g_I,c = sum over lights of g_c (k_d,c max(n.l, 0) + a)
    """
    batch = tl.program_id(2).to(tl.int64)
    top = tl.program_id(1) * ROWS
    start = tl.maximum(top - 1, 0)
    stop = tl.minimum(top + ROWS + 1, height)
    column, at, inside, written = strip_columns(width, STRIPS, PAIRED)
    along = difference_factor(column, width, x_scale)
    first = start.to(tl.int64)
    plane = height.to(tl.int64) * width

    depth_at, depth_step = at * depth_strides[2], depth_strides[1]
    depth += batch * depth_strides[0] + first * depth_step
    up, z, down, depth = rows_around(depth, depth_step, depth_at, inside, start, height, PAIRED)
    image_at, image_step = at * image_strides[3], image_strides[2]
    image += batch * image_strides[0] + first * image_step
    rgb = load_rgb(image, image_strides[1], image_at, PAIRED)
    g_at, g_step = at * cotangent_strides[4], cotangent_strides[3]
    cotangent += batch * cotangent_strides[0] + first * g_step
    g_out = load_rgb(cotangent, cotangent_strides[2], g_at, PAIRED)
    depth_grad += batch * plane + first * width
    if IMAGE_GRAD:
        image_grad += batch * 3 * plane + first * width
    if LIGHTS == 1:
        toward, half, k_d, k_s, p = load_light(direction, diffuse, specular, shininess, batch)
    zero = tl.zeros((STRIPS * LANES, 2), tl.float32)
    pending, from_above = zero, zero

    for row in range(start, stop):
        depth += tl.where(row + 2 < height, depth_step, 0)
        below = load_depth(depth, depth_at, inside & (row + 2 < height), PAIRED)
        image += tl.where(row + 1 < height, image_step, 0)
        next_rgb = load_rgb(image, image_strides[1], image_at, PAIRED)
        to_next_row = tl.where(row + 1 < height, g_step, 0)

        across = difference_factor(row, height, y_scale)
        left, right = left_of(z), right_of(z)
        n, c, scale, square = unit_normal(z, left, right, up, down, along, across, -x_scale * y_scale)
        g_n = (zero, zero, zero)
        g_image = (zero, zero, zero)
        for light in range(LIGHTS):
            last = light + 1 == LIGHTS
            cotangent += tl.where(last, to_next_row, 0)
            # All lights of an image can be more than 2^31 elements, where no single step is.
            next_light = tl.where(last, 0, light + 1).to(tl.int64) * cotangent_strides[1]
            next_g = load_rgb(cotangent + next_light, cotangent_strides[2], g_at, PAIRED)
            if LIGHTS > 1:
                toward, half, k_d, k_s, p = load_light(
                    direction, diffuse, specular, shininess, batch * LIGHTS + light
                )
            n_l, n_h = dot(n, toward), dot(n, half)
            cosine = tl.maximum(n_l, 0.0)
            slope = tl.where(n_h > 0, tl.exp2((p - 1.0) * log2(n_h)), 0.0)
            shine = slope * n_h
            share = (k_d[0] * cosine + ambient, k_d[1] * cosine + ambient, k_d[2] * cosine + ambient)
            g = (
                linear_cotangent(g_out[0], share[0] * rgb[0] + k_s[0] * shine),
                linear_cotangent(g_out[1], share[1] * rgb[1] + k_s[1] * shine),
                linear_cotangent(g_out[2], share[2] * rgb[2] + k_s[2] * shine),
            )
            lit = (g[0] * rgb[0], g[1] * rgb[1], g[2] * rgb[2])
            g_cosine = tl.where(n_l >= 0, dot(lit, k_d), 0.0)
            g_shine = dot(g, k_s) * (p * slope)
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
        along_c = dot(g_n, c) * (scale * tl.rsqrt(square))
        scale *= INVERSE_GAMMA
        g_x = (g_n[0] - c[0] * along_c) * (scale * along)
        g_y = (g_n[1] - c[1] * along_c) * (scale * across)
        to_left, to_right = tl.where(is_finite(left), g_x, 0.0), tl.where(is_finite(right), g_x, 0.0)
        to_up, to_down = tl.where(is_finite(up), g_y, 0.0), tl.where(is_finite(down), g_y, 0.0)
        if row > top:
            store_row(depth_grad - width, at, pending - to_up, written, PAIRED)
        pending = to_left - to_right + to_up - to_down + from_above + left_of(to_right) - right_of(to_left)
        if IMAGE_GRAD:
            if (row >= top) & (row < top + ROWS):
                for k in tl.static_range(3):
                    store_row(image_grad + k * plane, at, g_image[k] * INVERSE_GAMMA, written, PAIRED)
            image_grad += width
        from_above = to_down
        up, z, down = z, down, below
        rgb = next_rgb
        depth_grad += width
    # The last row of the image has none below it that would complete and store it.
    if stop < top + ROWS + 1:
        store_row(depth_grad - width, at, pending, written, PAIRED)
