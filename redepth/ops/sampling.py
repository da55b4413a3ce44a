"""Read a map at points between its pixels."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Taps(NamedTuple):
    """Where points read a map, as indices into its flattened pixels.

    Attributes:
        corners: (N, 4) the four pixels around each point.
        weights: (N, 4) their bilinear weights, which sum to 1.
        around: (N, 9) the 3 x 3 pixels around the nearest one; the border is repeated.
    """

    corners: Tensor
    weights: Tensor
    around: Tensor


def taps(x: Tensor, y: Tensor, height: int, width: int) -> Taps:
    r"""Return where points read a map of a size.

    A point at (x, y) lies at the column :math:`x W - 1/2` and the row :math:`y H - 1/2`, counted between
    pixel centres; beyond the outermost centres the border is repeated.

    Args:
        x: (N,) in [0, 1], from the left edge of the picture to the right one.
        y: (N,) in [0, 1], from the top edge to the bottom one.
        height: H.
        width: W.
    """
    column = (x * width - 0.5).clamp(0, width - 1)
    row = (y * height - 0.5).clamp(0, height - 1)
    left, top = column.floor().long(), row.floor().long()
    right, bottom = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)
    u, v = column - left, row - top
    corners = torch.stack(
        [top * width + left, top * width + right, bottom * width + left, bottom * width + right], 1
    )
    weights = torch.stack([(1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v], 1)
    step = torch.arange(-1, 2, device=x.device)
    columns = (column.round().long()[:, None, None] + step).clamp(0, width - 1)
    rows = (row.round().long()[:, None, None] + step[:, None]).clamp(0, height - 1)
    return Taps(corners, weights, (rows * width + columns).flatten(1))


def read(values: Tensor, where: Taps) -> Tensor:
    """Return the bilinear values of (B, 1, H, W) at the points, (B, N)."""
    return (values.flatten(1)[:, where.corners] * where.weights.to(values)).sum(dim=-1)


def extremes(values: Tensor, where: Taps) -> tuple[Tensor, Tensor]:
    """Return the least and the largest value of (B, 1, H, W) in the 3 x 3 pixels of each point, (B, N)."""
    around = values.flatten(1)[:, where.around]
    return around.amin(dim=-1), around.amax(dim=-1)


def nearest_around(depth: Tensor, pixel: Tensor, height: int, width: int, radius: int) -> Tensor:
    """Return for each point the least depth of all points in the square of this radius, (N,).

    Args:
        depth: (N,) positive.
        pixel: (N,) index of each point's pixel in the flattened map.
        height: of the map.
        width: of the map.
        radius: in pixels.
    """
    grid = depth.new_full((height * width,), torch.inf).scatter_reduce(0, pixel, depth, "amin")
    side = 2 * radius + 1
    least = -F.max_pool2d(-grid.view(1, 1, height, width), side, stride=1, padding=radius)
    return least.flatten()[pixel]
