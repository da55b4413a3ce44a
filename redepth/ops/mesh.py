"""Relative depth as a triangle mesh: building, cutting at depth edges, turning, projecting.

Points are in the frame of `geometry.point_map` (x right, y up, z away from the camera), normals and lights in
that of `geometry.normals_from_depth` (x right, y up, z towards the viewer). A rotation is given for points;
`viewer_rotation` returns its matrix for normals and lights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from redepth.ops.camera import ORTHOGRAPHIC, Camera
from redepth.ops.geometry import valid_depth

# The two triangles of a cell, (row, column) of their corners in it, anticlockwise as the camera sees them.
_TRIANGLES = (((0, 0), (1, 0), (0, 1)), ((1, 1), (0, 1), (1, 0)))


@dataclass(frozen=True)
class GridMesh:
    """Triangle meshes whose vertices are the pixels of a depth map and one ring of vertices around it.

    Vertex (i + 1) * (W + 2) + (j + 1) is pixel (i, j). The ring repeats the depth and the normal of the
    nearest pixel one pixel further out, so that the centres of the border's pixels lie inside the mesh.

    Attributes:
        points: (N, V, 3), V = (H + 2)(W + 2), in the frame of `point_map`.
        normals: (N, V, 3) unit vectors in the frame of `normals_from_depth`; 0 at vertices without a face.
        uv: (N, V, 2), positions in the photo in the convention of `grid_sample` (align_corners=False): x
            right, y down, -1 and 1 at the outer edges of the border's pixels.
        faces: one (F, 3) of vertex indices per mesh. A mesh without faces has one of area 0.
    """

    points: Tensor
    normals: Tensor
    uv: Tensor
    faces: tuple[Tensor, ...]

    def repeat(self, times: int) -> GridMesh:
        """Return each mesh ``times`` times in a row, (N * times, ...)."""
        points, normals, uv = (x.repeat_interleave(times, 0) for x in (self.points, self.normals, self.uv))
        faces = tuple(f for f in self.faces for _ in range(times))
        return replace(self, points=points, normals=normals, uv=uv, faces=faces)


def grid_mesh(depth: Tensor, camera: Camera = ORTHOGRAPHIC, *, cut: float = 0.1) -> GridMesh:
    r"""Return the mesh of a depth map: two triangles per cell of four pixels, fewer at depth edges.

    A triangle with an unusable corner is left out, and so is one that spans a depth edge,

    .. math:: \max z > (1 + c) \min z

    over its corners, independent of the scale of the depth. The normal of a vertex is the normalised sum of
    the cross products of its remaining faces (their normals, weighted with their areas).

    Args:
        depth: (B, 1, H, W) relative depth; unusable where it is not finite or not positive.
        camera: the camera of the depth map.
        cut: c > 0, the relative step between neighbours that counts as an edge.

    Returns:
        B meshes. Differentiable in the depth, but not through the choice of triangles.

    Raises:
        ValueError: for a spherical camera: no rasterizer projects all directions.
    """
    if camera.spherical:
        raise ValueError("a panorama cannot be rasterized: choose another renderer than mesh")
    height, width = depth.shape[-2:]
    valid = valid_depth(depth)
    surface = torch.where(valid, depth, median_depth(depth).view(-1, 1, 1, 1))
    points = _grid_points(_ringed(surface), camera, height, width)
    sound = _sound(surface, valid, cut)
    normals, used = _vertex_normals(points[..., 1:-1, 1:-1], sound)
    # A triangle of the ring is kept if the pixels that it continues have a normal.
    kept = _sound(_ringed(surface), _ringed(used) > 0, cut)
    # The triangles inside the ring all have used corners: for them this is `sound` again.
    return GridMesh(
        points.flatten(2).mT,
        _ringed(normals).flatten(2).mT,
        _grid_uv(height, width, like=depth).expand(len(depth), -1, -1),
        _faces(kept),
    )


def median_depth(depth: Tensor) -> Tensor:
    """Return the median of the usable depths of each map, (B,), detached; 1 where there is none."""
    usable = torch.where(valid_depth(depth), depth.detach(), torch.nan)
    return usable.flatten(1).nanmedian(dim=1).values.nan_to_num(nan=1.0)


def rotation_matrix(vector: Tensor) -> Tensor:
    r"""Return the matrices (..., 3, 3) of rotation vectors (..., 3), :math:`R = \exp([r]_\times)`.

    The vector's direction is the axis, its length the angle in radians.

    Source: Rodrigues, 1840.
    """
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    rows = [torch.stack(row, dim=-1) for row in ([zero, -z, y], [z, zero, -x], [-y, x, zero])]
    return torch.linalg.matrix_exp(torch.stack(rows, dim=-2))


def viewer_rotation(rotation: Tensor) -> Tensor:
    """Return rotations (..., 3, 3) of points as matrices for normals and lights, whose z axis is opposite."""
    flip = torch.diag(rotation.new_tensor([1.0, 1.0, -1.0]))
    return flip @ rotation @ flip


def turn(mesh: GridMesh, rotation: Tensor, centre: Tensor, camera: Camera = ORTHOGRAPHIC) -> GridMesh:
    r"""Turn each mesh about the point (0, 0, c) on the optical axis, as if the camera went around it.

    .. math:: P' = R (P - (0, 0, c)) + (0, 0, c), \qquad n' = F R F n, \quad F = \mathrm{diag}(1, 1, -1)

    Args:
        mesh: N meshes.
        rotation: (N, 3, 3), `rotation_matrix`.
        centre: (N,) depth c of the point.
        camera: for a pinhole, faces that come nearer than half the nearest point before are removed: a
            rasterizer cannot divide by a depth of 0.
    """
    pivot = F.pad(centre[:, None, None], (2, 0))
    points = (mesh.points - pivot) @ rotation.mT + pivot
    faces = mesh.faces
    if camera.pinhole:
        nearest = 0.5 * mesh.points[..., 2:].detach().amin(dim=1, keepdim=True)
        ahead = (points[..., 2:] >= nearest)[..., 0]
        faces = tuple(_nonempty(f[a[f].all(dim=1)]) for f, a in zip(faces, ahead, strict=True))
        points = torch.cat([points[..., :2], points[..., 2:].maximum(nearest)], dim=-1)
    return replace(mesh, points=points, normals=mesh.normals @ viewer_rotation(rotation).mT, faces=faces)


def clip_space(points: Tensor, camera: Camera, height: int, width: int) -> Tensor:
    r"""Project points to the clip coordinates (X, Y, Z, W) that rasterizers take.

    After division by W: x from -1 (left edge of the picture) to 1 (right), y from -1 (bottom) to 1 (top), z
    from -1 (nearest) to 1 (farthest), OpenGL's conventions. An unturned vertex (i, j) falls on the centre of
    pixel (i, j):

    .. math::
        (X, Y, W) = \Big(\tfrac{H (W - 1)}{W^2} P_x,\; \tfrac{H - 1}{H} P_y,\; 1\Big)
        \;\text{(orthographic)}, \qquad
        (X, Y, W) = (2 f_x P_x + (2 c_x - 1) P_z,\; 2 f_y P_y + (1 - 2 c_y) P_z,\; P_z) \;\text{(pinhole)}

    Args:
        points: (N, V, 3) in the frame of `point_map`; z > 0 for a pinhole.
        camera: the camera that sees them.
        height: of the picture, in pixels.
        width: of the picture.

    Returns:
        (N, V, 4). Z is the order of occlusion and has no gradient.
    """
    x, y, z = points.unbind(-1)
    nearest, farthest = z.detach().aminmax(dim=1, keepdim=True)
    if not camera.pinhole:
        across = (height * (width - 1) / width**2) * x
        span = torch.where(farthest > nearest, farthest - nearest, 1.0)
        order = 0.9 * (2 * (z.detach() - nearest) / span - 1)
        return torch.stack([across, y * ((height - 1) / height), order, torch.ones_like(z)], dim=-1)
    fx, fy, cx, cy = camera.normalized_intrinsics(height, width)
    near, far = 0.9 * nearest, 1.1 * farthest
    order = ((far + near) * z.detach() - 2 * far * near) / (far - near)
    return torch.stack([2 * fx * x + (2 * cx - 1) * z, 2 * fy * y + (1 - 2 * cy) * z, order, z], dim=-1)


def _ringed(grid: Tensor) -> Tensor:
    """Repeat the border of (B, C, H, W) once around it."""
    return F.pad(grid, (1, 1, 1, 1), mode="replicate")


def _grid_points(ringed: Tensor, camera: Camera, height: int, width: int) -> Tensor:
    """Return the points (B, 3, H + 2, W + 2) of a depth map with its ring."""
    axes = camera.axes(height, width, dtype=ringed.dtype, device=ringed.device)
    u, v = (_extended(axis) for axis in axes)
    plane = torch.stack([u.expand(len(v), len(u)), v[:, None].expand(len(v), len(u))])
    plane = plane.expand(len(ringed), -1, -1, -1)
    return torch.cat([plane * ringed if camera.pinhole else plane, ringed], dim=1)


def _extended(axis: Tensor) -> Tensor:
    """Continue an axis by its own pitch, one step at each end."""
    pitch = axis[1] - axis[0] if len(axis) > 1 else torch.zeros_like(axis[0])
    return torch.cat([axis[:1] - pitch, axis, axis[-1:] + pitch])


def _grid_uv(height: int, width: int, *, like: Tensor) -> Tensor:
    """Return the positions of the ringed grid's vertices in the photo, (1, V, 2)."""
    rows, columns = (
        torch.arange(-1, size + 1, dtype=like.dtype, device=like.device).mul(2).add(1).div(size).sub(1)
        for size in (height, width)
    )
    grid = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack(grid[::-1], dim=-1).view(1, -1, 2)


def _at(grid: Tensor, corner: tuple[int, int]) -> Tensor:
    """Return the values (..., H - 1, W - 1) at one corner of each cell of a grid."""
    (row, column), (height, width) = corner, grid.shape[-2:]
    return grid[..., row : height - 1 + row, column : width - 1 + column]


def _sound(depth: Tensor, usable: Tensor, cut: float) -> Tensor:
    """Return which triangles are kept, (B, 2, H - 1, W - 1)."""
    kept = []
    for triangle in _TRIANGLES:
        z = torch.cat([_at(depth.detach(), corner) for corner in triangle], dim=1)
        corners = torch.cat([_at(usable, corner) for corner in triangle], dim=1)
        kept.append(corners.all(dim=1) & (z.amax(dim=1) <= (1 + cut) * z.amin(dim=1)))
    return torch.stack(kept, dim=1)


def _vertex_normals(points: Tensor, sound: Tensor) -> tuple[Tensor, Tensor]:
    """Return the normals (B, 3, H, W) of points (B, 3, H, W), and which have one, (B, 1, H, W)."""
    points = torch.cat([points[:, :2], -points[:, 2:]], dim=1)  # z towards the viewer, as the normals have it
    total, faces = torch.zeros_like(points), torch.zeros_like(points[:, :1])
    for k, triangle in enumerate(_TRIANGLES):
        kept = sound[:, k : k + 1].to(points.dtype)
        a, b, c = (_at(points, corner) for corner in triangle)
        area = torch.linalg.cross(b - a, c - a, dim=1) * kept
        for row, column in triangle:
            sides = (column, 1 - column, row, 1 - row)
            total, faces = total + F.pad(area, sides), faces + F.pad(kept, sides)
    norm = torch.linalg.vector_norm(total, dim=1, keepdim=True)
    # No lower bound of the norm: cells of a fine grid, or of a scene of small scale, have very small areas.
    return total / torch.where(norm > 0, norm, 1.0), (faces > 0).to(points.dtype)


def _faces(kept: Tensor) -> tuple[Tensor, ...]:
    """Return the vertex indices of the kept triangles, one (F, 3) per mesh."""
    height, width = kept.shape[-2:]
    index = torch.arange((height + 1) * (width + 1), device=kept.device).view(height + 1, width + 1)
    triangles = torch.stack([torch.stack([_at(index, c) for c in t], dim=-1) for t in _TRIANGLES])
    return tuple(_nonempty(triangles[k]) for k in kept)


def _nonempty(faces: Tensor) -> Tensor:
    """Add a face of area 0 to a mesh without faces: rasterizers need one, and it covers no pixel."""
    return faces if len(faces) else faces.new_zeros(1, 3)
