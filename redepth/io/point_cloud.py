"""Write a relative depth map as a point cloud."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from redepth.errors import InputError
from redepth.io.files import StrPath
from redepth.io.write import atomic_path, to_uint8


def save_points(
    path: StrPath,
    depth: ArrayLike,
    image: ArrayLike,
    *,
    max_relative_jump: float = 0.05,
    max_points: int = 500_000,
) -> int:
    """Write the point cloud of a relative depth map as binary PLY with colours, atomically.

    A point is (u, v, -z) of the orthographic camera: u in [-W/H, W/H] points right, v in [-1, 1]
    up, and z is the relative depth. Depth networks blur the edges of objects to pixels that float between
    foreground and background; a pixel is left out where its depth and that of one of its four
    neighbours differ by more than ``max_relative_jump`` times the nearer of the two. That ratio
    depends neither on the unknown scale of relative depth nor on how far the scene reaches.

    Args:
        path: the file to write.
        depth: (H, W) relative depth; pixels that are not finite and positive are left out.
        image: (H, W, 3) sRGB, uint8 or floats in [0, 1].
        max_relative_jump: the largest accepted step between neighbours; ``math.inf`` keeps all.
        max_points: every k-th row and column are kept, for the smallest k within this number.

    Returns:
        How many points were written.

    Raises:
        InputError: no pixel is left.
        ValueError: the shapes do not match.
    """
    import trimesh

    z, picture = np.asarray(depth, dtype=np.float32), np.asarray(image)
    if z.ndim != 2 or picture.shape != (*z.shape, 3):
        raise ValueError(f"depth must be (H, W), image (H, W, 3), got {z.shape}, {picture.shape}")
    height, width = z.shape
    step = _stride(height, width, max_points)
    colours = to_uint8(picture[::step, ::step])
    keep = _smooth(z, step, max_relative_jump)
    if not keep.any():
        raise InputError(
            f"{path}: no depth is finite, positive and within max_relative_jump={max_relative_jump}"
            " of its neighbours; check the depth or raise that limit"
        )
    u = np.linspace(-width / height, width / height, width, dtype=np.float32)[::step]
    v = np.linspace(1.0, -1.0, height, dtype=np.float32)[::step]
    points = np.stack([*np.meshgrid(u, v), -z[::step, ::step]], axis=-1)
    cloud: Any = trimesh.PointCloud(points[keep], colors=colours[keep])
    with atomic_path(path) as temporary:
        temporary.write_bytes(cloud.export(file_type="ply"))
    return int(keep.sum())


def _stride(height: int, width: int, max_points: int) -> int:
    """Return the smallest stride at which at most ``max_points`` pixels are left."""
    step = 1
    while math.ceil(height / step) * math.ceil(width / step) > max_points:
        step += 1
    return step


def _smooth(z: NDArray[np.float32], step: int, max_relative_jump: float) -> NDArray[np.bool_]:
    """Return, of every step-th row and column, where z is finite, positive and without a jump.

    A jump is to one of the four true neighbours: at a stride, a plain slope would look like one.
    """
    rows, columns = (np.arange(0, size, step) for size in z.shape)
    here = z[::step, ::step]
    smooth = _valid(here)
    for offset in (-1, 1):
        # At the border a pixel is its own neighbour.
        above = np.clip(rows + offset, 0, z.shape[0] - 1)
        beside = np.clip(columns + offset, 0, z.shape[1] - 1)
        smooth &= ~_jumps(here, z[above][:, columns], max_relative_jump)
        smooth &= ~_jumps(here, z[::step][:, beside], max_relative_jump)
    return smooth


def _valid(z: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.isfinite(z) & (z > 0)


def _jumps(z: NDArray[np.float32], other: NDArray[np.float32], max_relative_jump: float) -> NDArray[np.bool_]:
    """Return where two valid depths differ by more than the relative jump."""
    near, far = np.minimum(z, other), np.maximum(z, other)
    with np.errstate(invalid="ignore"):
        jumps: NDArray[np.bool_] = far - near > max_relative_jump * near
    return jumps & _valid(z) & _valid(other)
