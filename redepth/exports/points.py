"""The refined surface as a coloured point cloud."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from redepth import io
from redepth.errors import InputError
from redepth.exports.source import NotWrittenError, Source, Written
from redepth.exports.surface import EDGE, Surface


def write_points(source: Source, folder: Path) -> Written:
    """Write the points of the refined surface as binary PLY with colours."""
    surface = Surface.of(source)
    try:
        cloud = points_of(surface, source.photo, max_points=source.preset.output.max_points)
    except InputError as error:
        raise NotWrittenError(str(error)) from error
    with io.atomic_path(folder / "points.ply") as temporary:
        temporary.write_bytes(cloud.export(file_type="ply"))
    holds = f"points by the {surface.camera.kind} camera; x right, y up, the camera looks along -z"
    return Written("points.ply", holds, surface.unit, {"points": len(cloud.vertices)})


def points_of(surface: Surface, photo: ArrayLike, *, max_points: int = 500_000, limit: float = EDGE) -> Any:
    """Return the points of a surface with the colours of a photo, a `trimesh.PointCloud`.

    Torn pixels are left out (`Surface.intact`).

    Args:
        surface: (H, W).
        photo: (H, W, 3) sRGB, uint8 or floats in [0, 1].
        max_points: every k-th row and column are kept, for the smallest k within this number.
        limit: the largest relative step to a neighbour; ``math.inf`` keeps all.

    Returns:
        Points in the frame of `Surface.points`.

    Raises:
        InputError: no pixel is left.
        ValueError: the sizes differ.
    """
    import trimesh

    picture = np.asarray(photo)
    if picture.shape != (*surface.size, 3):
        raise ValueError(f"depth must be (H, W), photo (H, W, 3), got {surface.size}, {picture.shape}")
    step = stride(*surface.size, max_points)
    rows, columns = (np.arange(0, side, step) for side in surface.size)
    keep = surface.intact(rows, columns, limit)
    if not keep.any():
        raise InputError(f"no depth is finite, positive and within {limit:g} of its neighbours")
    colours = io.to_uint8(picture[::step, ::step][keep])
    return trimesh.PointCloud(surface.points(rows, columns)[keep], colors=colours)


def stride(height: int, width: int, max_points: int) -> int:
    """Return the smallest stride at which at most ``max_points`` pixels are left."""
    step = 1
    while math.ceil(height / step) * math.ceil(width / step) > max_points:
        step += 1
    return step
