"""A room seen from a point inside it, as a panorama whose geometry is known exactly."""

from __future__ import annotations

import torch
from torch import Tensor

from redepth.ops.camera import SPHERICAL
from redepth.ops.geometry import point_map

HALF_SIDES = torch.tensor([2.0, 1.5, 3.0], dtype=torch.float64)
"""Half the room's width, height and length in metres; the camera is in its middle."""


def box_distance(height: int, width: int) -> Tensor:
    """The distance along each ray to the walls, (1, 1, H, W)."""
    return (HALF_SIDES.view(3, 1, 1) / _rays(height, width).abs()).amin(dim=0)[None, None]


def box_normals(height: int, width: int) -> Tensor:
    """The normals (3, H, W) into the room: x right, y up, z towards the viewer."""
    rays = _rays(height, width)
    wall = (HALF_SIDES.view(3, 1, 1) / rays.abs()).argmin(dim=0)
    chosen = torch.nn.functional.one_hot(wall, 3).movedim(-1, 0)
    inwards = -rays.sign() * chosen
    return torch.cat([inwards[:2], -inwards[2:]])


def box_parts(height: int, width: int) -> Tensor:
    """Where a pixel and its neighbours see one wall, away from the poles, (H, W) bool."""
    wall = (HALF_SIDES.view(3, 1, 1) / _rays(height, width).abs()).argmin(dim=0)
    sign = torch.gather(_rays(height, width).sign(), 0, wall[None])[0]
    label = 2 * wall + (sign > 0)
    alone = torch.ones_like(label, dtype=torch.bool)
    for dim in (0, 1):
        for step in (-1, 1):
            alone &= label.roll(step, dim) == label
    alone[[0, -1]] = False
    return alone


def room_photo(height: int, width: int) -> Tensor:
    """A smooth pattern on the walls, (1, 3, H, W) in [0, 1]: a function of the point, so without a seam."""
    points = point_map(box_distance(height, width), SPHERICAL)
    return (0.5 + 0.4 * torch.sin(2.5 * points + torch.tensor([0.0, 1.0, 2.0]).view(1, 3, 1, 1))).float()


def _rays(height: int, width: int) -> Tensor:
    return point_map(torch.ones(1, 1, height, width, dtype=torch.float64), SPHERICAL)[0]
