"""Carry maps from one picture to the next: along a flow, or along the motion of the camera."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from redepth.ops.camera import Camera
from redepth.ops.geometry import point_map

HIDDEN = 1.05
"""A point this much farther than the nearest one at a pixel is hidden by it."""

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

    Bicubic, so that details last over many frames, but never beyond the range of the 3 x 3 pixels around the
    nearest one. Beyond the border it is repeated; `within` says where.

    Args:
        values: v, (B, C, H, W).
        back: f, (1, 2, H, W), x and y in pixels.
    """
    grid = _grid(back).expand(len(values), -1, -1, -1)

    def sampled(maps: Tensor, mode: str) -> Tensor:
        return F.grid_sample(maps, grid, mode=mode, padding_mode="border", align_corners=True)

    low = sampled(-F.max_pool2d(-values, 3, stride=1, padding=1), "nearest")
    high = sampled(F.max_pool2d(values, 3, stride=1, padding=1), "nearest")
    return torch.minimum(torch.maximum(sampled(values, "bicubic"), low), high)


def _grid(back: Tensor) -> Tensor:
    height, width = back.shape[-2:]
    places = pixels(height, width, like=back) + back
    sides = back.new_tensor([max(width - 1, 1), max(height - 1, 1)]).view(1, 2, 1, 1)
    return (2 * places / sides - 1).permute(0, 2, 3, 1)


def within(back: Tensor) -> Tensor:
    """Return where a flow (1, 2, H, W) points into the picture, (1, 1, H, W) bool."""
    return (_grid(back).abs() <= 1).all(dim=-1)[:, None]


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
    depth = torch.where(weight > 0, z.repeat(4), torch.inf)
    nearest = z.new_full((height * width,), torch.inf).scatter_reduce(0, where, depth, "amin")
    weight = torch.where(depth <= HIDDEN * nearest[where], weight, 0.0)
    sums = z.new_zeros(len(values), height * width)
    sums.index_add_(1, where, values.repeat(1, 4) * weight)
    return sums.view(-1, height, width)
