"""The camera: from a pixel and its depth to a point, and the directions in which a surface is seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Camera:
    r"""The map from a pixel's relative depth to a point.

    Orthographic (neither argument, the paper's): P = (u, v, z) with u from -W/H to W/H along columns and v
    from 1 (top) to -1 (bottom) along rows. Pinhole: P = (z u, z v, z) with

    .. math:: u = \frac{(j + 1/2) / W - c_x}{f_x}, \qquad v = -\frac{(i + 1/2) / H - c_y}{f_y}

    so that scaling z scales the scene and does not change its normals.

    Args:
        field_of_view: horizontal, in degrees, in (0, 180): square pixels, centred axis.
        intrinsics: f_x, f_y, c_x, c_y in units of the picture's width (x) and height (y), so that they hold
            at any resolution: f_x pixels / W, f_y pixels / H, and (0.5, 0.5) for a centred axis.

    Raises:
        ValueError: for both arguments, a field of view outside (0, 180), a focal length <= 0 or other than
            four intrinsics.
    """

    field_of_view: float | None = None
    intrinsics: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.field_of_view is not None and self.intrinsics is not None:
            raise ValueError("field_of_view and intrinsics both set the focal length: give one")
        if self.field_of_view is not None and not 0 < self.field_of_view < 180:
            raise ValueError(f"field_of_view must be in (0, 180) degrees, got {self.field_of_view}")
        if self.intrinsics is not None and (len(self.intrinsics) != 4 or min(self.intrinsics[:2]) <= 0):
            raise ValueError(
                f"intrinsics must be four numbers (fx, fy, cx, cy) with fx and fy > 0, got {self.intrinsics}"
            )

    @property
    def pinhole(self) -> bool:
        """Whether all rays meet in one point."""
        return self.field_of_view is not None or self.intrinsics is not None

    def normalized_intrinsics(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Return the pinhole's f_x, f_y, c_x, c_y in units of width and height."""
        if self.intrinsics is not None:
            fx, fy, cx, cy = self.intrinsics
            return fx, fy, cx, cy
        focal = 0.5 / math.tan(math.radians(self.field_of_view or 0.0) / 2)
        return focal, focal * width / height, 0.5, 0.5

    def axes(
        self,
        height: int,
        width: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return u (W,) and v (H,). An orthographic single column or row lies at -W/H or 1."""
        if not self.pinhole:
            aspect = width / height
            u = torch.linspace(-aspect, aspect, width, dtype=dtype, device=device)
            return u, torch.linspace(1.0, -1.0, height, dtype=dtype, device=device)
        fx, fy, cx, cy = self.normalized_intrinsics(height, width)
        column = torch.arange(width, dtype=dtype, device=device)
        row = torch.arange(height, dtype=dtype, device=device)
        return ((column + 0.5) / width - cx) / fx, -((row + 0.5) / height - cy) / fy

    def view(self, height: int, width: int, *, like: Tensor) -> Tensor:
        """Return unit vectors from the surface to the camera, in the frame of `normals_from_depth`.

        (1, 3, 1, 1), the z axis, for an orthographic camera; (1, 3, H, W) for a pinhole.
        """
        if not self.pinhole:
            return axis(2, like)
        u, v = self.axes(height, width, dtype=like.dtype, device=like.device)
        rays = torch.stack(
            [-u.expand(height, width), -v[:, None].expand(height, width), torch.ones_like(u * v[:, None])]
        )
        return (rays / torch.linalg.vector_norm(rays, dim=0))[None]


def axis(which: int, like: Tensor) -> Tensor:
    """Unit vector (1, 3, 1, 1) along an axis, made on the device: a copy from the host would stall it."""
    return torch.eye(3, dtype=like.dtype, device=like.device)[which].view(1, 3, 1, 1)


ORTHOGRAPHIC = Camera()
