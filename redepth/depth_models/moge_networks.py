"""The two halves of MoGe's networks: encoders from pixels to features, decoders from features to depth."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from redepth.contracts import Features

PATCH = 14
"""Side of a patch of DINOv2 in pixels."""

NEAREST = 1e-4
"""Least depth, in the unit of the point map, of points that the optimisation moves behind the camera."""

Plane = Callable[..., Tensor]
"""The package's ``normalized_view_plane_uv``: (height, width, 2) coordinates on a plane of diagonal 2."""


class Encoder(nn.Module):
    """MoGe-2 and MoGe-3: DINOv2 whose four states are projected and summed to one map."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder = model.encoder

    def forward(self, pixels: Tensor) -> Features:
        """(B,3,H,W) sRGB [0,1], sides multiples of the patch -> features without the constants."""
        rows, columns = (side // PATCH for side in pixels.shape[-2:])
        return Features(maps=(self.encoder(pixels, rows, columns),), constants=(), grid=(rows, columns))


class FirstEncoder(nn.Module):
    """MoGe-1: the last states of DINOv2."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.layers = model.intermediate_layers
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", model.image_mean, persistent=False)
        self.register_buffer("std", model.image_std, persistent=False)

    def forward(self, pixels: Tensor) -> Features:
        """(B,3,H,W) sRGB [0,1], sides multiples of the patch -> features without the constants."""
        rows, columns = (side // PATCH for side in pixels.shape[-2:])
        states = self.backbone.get_intermediate_layers((pixels - self.mean) / self.std, self.layers)
        return Features(maps=tuple(states), constants=(), grid=(rows, columns))


class _ToDepth(nn.Module):
    r"""From the point map, whose third channel is o, to depth.

    .. math:: D = m \max(g \, r(o) + b, \epsilon)

    r is exp or what the checkpoint uses; shift b, metric scale m and MoGe-3's correction g are constants of
    the photo.
    """

    def __init__(self, model: Any, plane: Plane) -> None:
        super().__init__()
        self.remap = {"exp": torch.exp, "sinh_exp": torch.exp, "sinh": torch.sinh}.get(model.remap_output)
        self._plane = plane

    def at(self, x: Tensor, size: Sequence[int], grid: tuple[int, int]) -> Tensor:
        """Return the coordinates of a map of this size, (B,2,height,width); the grid has the aspect ratio."""
        height, width = size
        uv = self._plane(
            width=width, height=height, aspect_ratio=grid[1] / grid[0], dtype=x.dtype, device=x.device
        )
        return uv.permute(2, 0, 1).expand(len(x), -1, -1, -1)

    def depth(self, points: Tensor, features: Features) -> Tensor:
        """(B,3,H,W) -> (B,1,H,W)."""
        shift, scale, correction = features.constants
        z = points[:, 2:]
        if self.remap is not None:
            z = self.remap(z)
        return (z * correction + shift).clamp(min=NEAREST) * scale


class Decoder(_ToDepth):
    """MoGe-2 and MoGe-3: a neck over five scales and the head of the points."""

    def __init__(self, model: Any, plane: Plane) -> None:
        super().__init__(model, plane)
        self.neck = model.neck
        self.points_head = model.points_head

    def forward(self, features: Features) -> Tensor:
        """Features -> depth (B,1,H,W)."""
        (x,) = features.maps
        rows, columns = features.grid
        levels = [self.at(x, (rows << level, columns << level), features.grid) for level in range(5)]
        levels[0] = torch.cat([x, levels[0]], dim=1)
        points = self.points_head(self.neck(levels))[-1]
        points = F.interpolate(points, (PATCH * rows, PATCH * columns), mode="bilinear")
        return self.depth(points, features)


class FirstDecoder(_ToDepth):
    """MoGe-1: the head without its mask.

    The package recomputes each layer in the backward pass, which would then take the network's own weights,
    not those that replace them.
    """

    def __init__(self, model: Any, plane: Plane) -> None:
        super().__init__(model, plane)
        self.projects = model.head.projects
        self.upsample_blocks = model.head.upsample_blocks
        self.points = model.head.output_block[0]

    def forward(self, features: Features) -> Tensor:
        """Features -> depth (B,1,H,W)."""
        rows, columns = grid = features.grid
        x = sum(
            project(w.transpose(1, 2).unflatten(2, grid))
            for project, w in zip(self.projects, features.maps, strict=True)
        )
        for block in self.upsample_blocks:
            x = block(torch.cat([x, self.at(x, x.shape[-2:], grid)], dim=1))
        size = (PATCH * rows, PATCH * columns)
        x = F.interpolate(x, size, mode="bilinear")
        return self.depth(self.points(torch.cat([x, self.at(x, size, grid)], dim=1)), features)


@contextlib.contextmanager
def bounded(most: int) -> Iterator[None]:
    """Refuse to build networks of more weights than ``most`` in this thread; a layer of them takes no memory.

    Raises:
        ValueError: as soon as one weight more is registered, before it gets its first values.
    """
    thread, count = threading.get_ident(), 0

    def add(_module: nn.Module, _name: str, weight: nn.Parameter | None) -> None:
        nonlocal count
        if weight is not None and threading.get_ident() == thread:
            count += weight.numel()
            if count > most:
                raise ValueError("they ask for more weights than the file holds")

    handle = register_module_parameter_registration_hook(add)
    try:
        yield
    finally:
        handle.remove()
