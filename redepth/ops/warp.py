"""Carry maps from one picture to the next: along a flow, or along the motion of the camera."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from redepth.ops.camera import Camera
from redepth.ops.geometry import point_map

HIDDEN = 1.05
"""A point this much farther than the nearest one at a pixel is hidden by it."""

COVERS = 0.25
"""The bilinear weight from which on a point hides others at a pixel."""

SEEN = 0.3
"""The bilinear weight of all points that fall on a pixel below which it counts as not seen before."""


class Seen(NamedTuple):
    """What a camera that moved sees of a surface.

    Attributes:
        back: (1, 2, H, W) x and y in pixels: what is at pixel p was at ``p + back(p)``.
        valid: (1, 1, H, W) bool, where the surface was seen before.
        change: (1, 1, H, W) what to add to its depth before.
    """

    back: Tensor
    valid: Tensor
    change: Tensor


def pixels(height: int, width: int, *, like: Tensor) -> Tensor:
    """Return the columns and rows of all pixels, (1, 2, H, W)."""
    rows = torch.arange(height, dtype=like.dtype, device=like.device)
    columns = torch.arange(width, dtype=like.dtype, device=like.device)
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"))[None]


def warp(values: Tensor, back: Tensor) -> Tensor:
    r"""Return :math:`v(p + f(p))` at each pixel p.

    Catmull and Rom's cubic, so that details last over many frames; it is exact for planes. No value leaves
    the range of the 4 x 4 pixels that it is made of. Beyond the border it is repeated; `within` says where.

    Args:
        values: v, (B, C, H, W).
        back: f, (1, 2, H, W), x and y in pixels.

    Source: Keys, Cubic convolution interpolation for digital image processing, 1981, with a = -1/2.
    """
    height, width = back.shape[-2:]
    x, y = (pixels(height, width, like=back) + back)[0].to(values.dtype)
    x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
    left, top = x.floor(), y.floor()
    columns = [(left.long() + k).clamp(0, width - 1) for k in range(-1, 3)]
    rows = [(top.long() + k).clamp(0, height - 1) * width for k in range(-1, 3)]
    flat = values.flatten(2)
    taps = torch.stack([flat[:, :, row + column] for row in rows for column in columns])
    across, down = _cubic(x - left), _cubic(y - top)
    weights = (down[:, None] * across[None]).flatten(0, 1)[:, None, None]
    return torch.minimum(torch.maximum((taps * weights).sum(0), taps.amin(0)), taps.amax(0))


def _cubic(t: Tensor) -> Tensor:
    """Return the weights of the four pixels around a place at t in [0, 1) after the second one, (4, ...)."""
    t2, t3 = t * t, t * t * t
    outer = [-t3 + 2 * t2 - t, 3 * t3 - 5 * t2 + 2, -3 * t3 + 4 * t2 + t, t3 - t2]
    return torch.stack(outer) / 2


def within(back: Tensor) -> Tensor:
    """Return where a flow (1, 2, H, W) points into the picture, (1, 1, H, W) bool."""
    height, width = back.shape[-2:]
    x, y = (pixels(height, width, like=back) + back).split(1, dim=1)
    return (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)


def consistent(back: Tensor, forth: Tensor, tolerance: float) -> Tensor:
    r"""Return where a flow and the flow the other way lead back to the same pixel, (1, 1, H, W) bool.

    .. math:: \lVert b(p) + f(p + b(p)) \rVert \le \tau

    A pixel that the other picture does not show has no such flow.

    Args:
        back: b, (1, 2, H, W).
        forth: f, (1, 2, H, W).
        tolerance: tau, in pixels.
    """
    missed = torch.linalg.vector_norm(back + warp(forth, back), dim=1, keepdim=True)
    return within(back) & (missed <= tolerance)


def reproject(depth: Tensor, camera: Camera, motion: Tensor) -> Seen:
    """Return what a camera that moved sees of the surface that it saw before.

    Args:
        depth: (1, 1, H, W) > 0, before, in the unit of the motion.
        camera: pinhole or orthographic.
        motion: (4, 4), from the camera before to the camera now, in OpenCV's axes (x right, y down, z away).
    """
    height, width = depth.shape[-2:]
    flip = depth.new_tensor([1.0, -1.0, 1.0])
    turn, way = motion[:3, :3].to(depth), motion[:3, 3].to(depth)
    before = point_map(depth, camera).flatten(2)[0] * flip[:, None]
    x, y, z = (turn @ before + way[:, None]) * flip[:, None]
    column, row = _project(camera, x, y, z, height, width)
    here = pixels(height, width, like=depth).flatten(2)[0]
    carried = torch.stack([here[0] - column, here[1] - row, z - depth.flatten(), torch.ones_like(z)])
    sums = _splat(carried, column, row, z, height, width)
    weight = sums[3:]
    valid = weight > SEEN
    means = torch.where(valid, sums[:3] / weight.clamp(min=SEEN), 0.0)[None]
    return Seen(means[:, :2], valid[None], means[:, 2:])


def _project(
    camera: Camera, x: Tensor, y: Tensor, z: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """Return the columns and rows of points, the inverse of `Camera.axes`."""
    if not camera.pinhole:
        aspect = width / height
        return (x / aspect + 1) / 2 * (width - 1), (1 - y) / 2 * (height - 1)
    fx, fy, cx, cy = camera.normalized_intrinsics(height, width)
    front = z.clamp(min=1e-6)
    return (cx + fx * x / front) * width - 0.5, (cy - fy * y / front) * height - 0.5


def _splat(values: Tensor, column: Tensor, row: Tensor, z: Tensor, height: int, width: int) -> Tensor:
    """Sum values (C, N) of the points that are not hidden into the four pixels around each, (C, H, W)."""
    left, top = column.floor(), row.floor()
    corners, weights = [], []
    for dx in (0, 1):
        for dy in (0, 1):
            i, j = top + dy, left + dx
            share = (1 - (column - j).abs()) * (1 - (row - i).abs())
            inside = (i >= 0) & (i < height) & (j >= 0) & (j < width) & (z > 0)
            corners.append(torch.where(inside, i * width + j, 0.0).long())
            weights.append(torch.where(inside, share, 0.0))
    where, weight = torch.cat(corners), torch.cat(weights)
    depth = z.repeat(4)
    hiding = torch.where(weight > COVERS, depth, torch.inf)
    nearest = z.new_full((height * width,), torch.inf).scatter_reduce(0, where, hiding, "amin")
    weight = torch.where(depth <= HIDDEN * nearest[where], weight, 0.0)
    sums = z.new_zeros(len(values), height * width)
    sums.index_add_(1, where, values.repeat(1, 4) * weight)
    return sums.view(-1, height, width)
