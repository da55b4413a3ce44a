"""Rasterization by pytorch3d: BSD licence, CPU and CUDA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from redepth.errors import MissingDependencyError
from redepth.registry import require

TOLERANCE = 1e-3
"""Pixels. pytorch3d leaves out pixels whose centre is exactly on an edge or a vertex, and all vertices of an
unturned mesh are on centres: a centre this near to a triangle counts as inside."""

TILE = 16
"""Pixels. On the CPU pytorch3d tests every triangle at every pixel; a tile gets only those near it."""


def ensure_available() -> None:
    """Raise MissingDependencyError if pytorch3d, or a library that it was built for, is missing."""
    _load("pytorch3d")
    _load("pytorch3d._C")


@dataclass(frozen=True)
class Pytorch3dFragments:
    """The visible triangles of N pictures.

    Attributes:
        covered: (N, 1, H, W) bool, whether a pixel has a triangle.
        corners: (N, H, W, 3), its triangle's vertices in N * V packed ones.
        weights: (N, H, W, 3), their perspective-correct weights; they add up to 1.
    """

    covered: Tensor
    corners: Tensor
    weights: Tensor

    def interpolate(self, attributes: Tensor) -> Tensor:
        """Return attributes (N, V, A) of the vertices as pictures (N, A, H, W), 0 in uncovered pixels."""
        pictures = (self.weights[..., None] * attributes.flatten(0, 1)[self.corners]).sum(dim=-2)
        pictures = pictures.movedim(-1, 1)
        return torch.where(self.covered, pictures, torch.zeros_like(pictures))

    def antialias(self, image: Tensor) -> Tensor:
        """Return the picture (N, C, H, W) unchanged: pytorch3d has no antialiasing."""
        return image


def rasterize(clip: Tensor, faces: Sequence[Tensor], height: int, width: int) -> Pytorch3dFragments:
    r"""Find the nearest triangle through the centre of each pixel.

    pytorch3d only finds the triangle. The corners' weights follow from their clip coordinates (X, Y, W) and
    the pixel's centre (x, y), perspective-correct and differentiable:

    .. math:: w_i = \frac{a_i}{\sum_j a_j}, \qquad a_0 = p_1 \times p_2, \quad a_1 = p_2 \times p_0, \quad
        a_2 = p_0 \times p_1, \qquad p_i = (X_i - x W_i, Y_i - y W_i)

    Args:
        clip: (N, V, 4) clip coordinates (`ops.mesh.clip_space`); converted to float32.
        faces: N times (F, 3), with F > 0.
        height: of the pictures, in pixels.
        width: of the pictures.

    Raises:
        MissingDependencyError: if pytorch3d is not installed.

    Source: Olano and Greer, "Triangle scan conversion using 2D homogeneous coordinates", 1997.
    """
    clip = clip.float()
    corners = torch.cat([f + n * clip.shape[1] for n, f in enumerate(faces)])
    nearest = _nearest(clip.detach(), corners, [len(f) for f in faces], height, width)
    covered, visible = nearest >= 0, corners[nearest.clamp(min=0)]
    return Pytorch3dFragments(covered[:, None], visible, _weights(clip.flatten(0, 1)[visible], covered))


def _weights(corners: Tensor, covered: Tensor) -> Tensor:
    """Return the weights (N, H, W, 3) of corners (N, H, W, 3, 4) at the centres of the pixels."""
    height, width = covered.shape[1:]
    row = 1 - (torch.arange(height, device=corners.device) * 2 + 1) / height
    column = (torch.arange(width, device=corners.device) * 2 + 1) / width - 1
    centre = torch.stack(torch.meshgrid(row, column, indexing="ij")[::-1], dim=-1)
    x, y = (corners[..., :2] - centre[:, :, None] * corners[..., 3:]).unbind(-1)
    area = x.roll(-1, -1) * y.roll(-2, -1) - y.roll(-1, -1) * x.roll(-2, -1)
    weights = area / torch.where(covered[..., None], area.sum(dim=-1, keepdim=True), 1.0)
    # A centre may be outside its triangle by the tolerance.
    weights = weights.clamp(min=0)
    return weights / torch.where(covered[..., None], weights.sum(dim=-1, keepdim=True), 1.0)


def _nearest(clip: Tensor, corners: Tensor, counts: Sequence[int], height: int, width: int) -> Tensor:
    """Return the index of the triangle that each pixel of each picture shows, or -1, (N, H, W)."""
    triangles = _to_pixels(clip, height, width).flatten(0, 1)[corners]
    side = TILE if clip.device.type == "cpu" else max(height, width)
    tiles = -(-height // side), -(-width // side)
    split = _tiled(triangles, counts, tiles, side)
    order = torch.cat(split)
    if not len(order):
        return corners.new_full((len(clip), height, width), -1)
    nearest = _rasterize_tiles(triangles[order], [len(t) for t in split], tiles, side)
    nearest = torch.where(nearest >= 0, order[nearest.clamp(min=0)], -1)
    grid = nearest.unflatten(0, (-1, *tiles)).transpose(2, 3)
    return grid.flatten(3, 4).flatten(1, 2)[:, :height, :width]


def _to_pixels(clip: Tensor, height: int, width: int) -> Tensor:
    """Return (N, V, 3) in pixels, x right and y down from the upper left corner; z >= 0 in view."""
    scale = clip.new_tensor([width / 2, -height / 2, 1.0])
    return clip[..., :3] / clip[..., 3:] * scale + clip.new_tensor([width / 2, height / 2, 1.0])


def _tiled(triangles: Tensor, counts: Sequence[int], tiles: tuple[int, int], side: int) -> list[Tensor]:
    """Return the indices of the triangles near each tile: picture by picture, row by row."""
    low, high = (limit[..., :2] / side for limit in triangles.aminmax(dim=1))
    near = []
    for picture in torch.arange(len(triangles), device=triangles.device).split(list(counts)):
        for row in range(tiles[0]):
            band = picture[(high[picture, 1] >= row) & (low[picture, 1] <= row + 1)]
            left, right = low[band, 0], high[band, 0]
            near += [band[(right >= column) & (left <= column + 1)] for column in range(tiles[1])]
    return near


def _rasterize_tiles(triangles: Tensor, counts: Sequence[int], tiles: tuple[int, int], side: int) -> Tensor:
    """Return the nearest triangle of each pixel (T, side, side); ``counts`` of (F, 3, 3) are in each tile."""
    structures, mesh = _load("pytorch3d.structures"), _load("pytorch3d.renderer.mesh")
    origin = torch.cartesian_prod(torch.arange(tiles[0]), torch.arange(tiles[1])).flip(1)
    origin = origin.repeat(len(counts) // len(origin), 1).to(triangles)
    repeats = torch.tensor(counts, device=triangles.device)
    # pytorch3d's screen: x left and y up, both from -1 to 1 over the tile.
    plane = 1 + 2 * origin.repeat_interleave(repeats, 0)[:, None] - 2 / side * triangles[..., :2]
    vertices = torch.cat([plane, triangles[..., 2:]], dim=-1).flatten(0, 1)
    soup = structures.Meshes(
        list(vertices.split([3 * count for count in counts])),
        [torch.arange(3 * count, device=triangles.device).view(-1, 3) for count in counts],
    )
    nearest, *_ = mesh.rasterize_meshes(
        soup,
        image_size=side,
        blur_radius=(TOLERANCE * 2 / side) ** 2,
        faces_per_pixel=1,
        clip_barycentric_coords=True,
    )
    return nearest[..., 0]


def _load(module: str) -> Any:
    try:
        return require(module, "pytorch3d")
    except MissingDependencyError as error:
        raise MissingDependencyError(
            f"{error}; its wheels need a CUDA build of torch, on the CPU too"
        ) from error
