"""The kernel that relights."""

# Kernels have no types: Triton decides them when it compiles.
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import triton
import triton.language as tl

from redepth.ops.triton.blinn_phong.rows import (
    difference_factor,
    dot,
    left_of,
    load_depth,
    load_light,
    load_rgb,
    log2,
    right_of,
    rows_around,
    store_row,
    strip_columns,
    to_srgb,
    unit_normal,
)


@triton.jit(do_not_specialize=["height", "width"])
def relight_kernel(
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
    x_scale,
    y_scale,
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
    relit += batch * LIGHTS * 3 * plane + first * width
    if LIGHTS == 1:
        toward, half, k_d, k_s, p = load_light(direction, diffuse, specular, shininess, batch)

    for row in range(start, stop):
        depth += tl.where(row + 2 < height, depth_step, 0)
        below = load_depth(depth, depth_at, inside & (row + 2 < height), PAIRED)
        image += tl.where(row + 1 < height, image_step, 0)
        next_rgb = load_rgb(image, image_strides[1], image_at, PAIRED)

        across = difference_factor(row, height, y_scale)
        n, _, _, _ = unit_normal(z, left_of(z), right_of(z), up, down, along, across, -x_scale * y_scale)
        channel = relit
        for light in range(LIGHTS):
            if LIGHTS > 1:
                toward, half, k_d, k_s, p = load_light(
                    direction, diffuse, specular, shininess, batch * LIGHTS + light
                )
            cosine = tl.maximum(dot(n, toward), 0.0)
            shine = tl.exp2(p * log2(tl.maximum(dot(n, half), 0.0)))
            for k in tl.static_range(3):
                linear = (k_d[k] * cosine + ambient) * rgb[k] + k_s[k] * shine
                store_row(channel, at, to_srgb(linear), written, PAIRED)
                channel += plane
        up, z, down = z, down, below
        rgb = next_rgb
        relit += width
