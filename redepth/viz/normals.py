"""The normals of a map for display, and as a picture of another size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from redepth.io import row_blocks
from redepth.viz.color import normals_to_rgb

if TYPE_CHECKING:
    from torch import Tensor

    from redepth.ops.camera import Camera


def normals_of(
    depth: Tensor, camera: Camera, unknown: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """Return the unit normals of a depth map, (h, w, 3), x right, y up, z to the viewer.

    Args:
        depth: (1, 1, h, w).
        camera: that sees it.
        unknown: (h, w), where the normals are NaN; None: nowhere.
    """
    import torch

    from redepth.ops.geometry import normals_from_depth

    holes = torch.zeros_like(depth, dtype=torch.bool) if unknown is None else torch.from_numpy(unknown)
    # What was filled must not tilt the normals beside a hole.
    normals = normals_from_depth(depth.masked_fill(holes, torch.nan), camera)
    # Those of the renderer are a little too short where pixels are small.
    normals = torch.nn.functional.normalize(normals, dim=1).masked_fill(holes, torch.nan)
    units: NDArray[np.float32] = normals[0].permute(1, 2, 0).numpy()
    return units


def normals_picture(
    normals: NDArray[np.float32],
    height: int,
    width: int,
    *,
    in_strips: bool = False,
    closed: bool = False,
) -> NDArray[np.uint8]:
    """Return normals (h, w, 3) as colours of another size, (height, width, 3).

    They are resized bilinearly, corners aligned, and become unit vectors again. Those of a panorama are
    resized across its edge (`ops.panorama.resize`).

    Args:
        normals: as for `normals_to_rgb`.
        height: of the picture.
        width: of the picture.
        in_strips: resize some rows at a time; a colour may differ by 1 from that of the whole, which takes
            5 GB for 100 megapixels.
        closed: whether the left and right edge are neighbours.
    """
    if not in_strips:
        return normals_to_rgb(_resized(normals, height, width, closed))
    picture = np.empty((height, width, 3), np.uint8)
    for rows in row_blocks(picture.shape):
        picture[rows] = normals_to_rgb(_rows(normals, rows, height, width, closed))
    return picture


def normals_at_size(
    normals: NDArray[np.float32], height: int, width: int, *, closed: bool = False
) -> NDArray[np.float32]:
    """Return normals (h, w, 3) as unit vectors of another size, resized some rows at a time."""
    units = np.empty((height, width, 3), np.float32)
    for rows in row_blocks(units.shape):
        units[rows] = _rows(normals, rows, height, width, closed)
    return units


def _resized(normals: NDArray[np.float32], height: int, width: int, closed: bool) -> NDArray[np.float32]:
    import torch

    from redepth.ops import geometry, panorama

    tensor = torch.from_numpy(normals).permute(2, 0, 1)[None]
    if closed:
        resized = panorama.resize(tensor, height, width)
    else:
        resized = geometry.resize(tensor, height, width, align_corners=True)
    units: NDArray[np.float32] = torch.nn.functional.normalize(resized[0].permute(1, 2, 0), dim=-1).numpy()
    return units


def _rows(
    normals: NDArray[np.float32], rows: slice, height: int, width: int, closed: bool
) -> NDArray[np.float32]:
    last = len(normals) - 1
    if closed:
        down = (np.arange(height)[rows] + 0.5) * len(normals) / height - 0.5
        down = np.clip(down, 0, last)
    else:
        down = np.arange(height)[rows] * last / max(height - 1, 1)
    above = down.astype(np.intp)
    below = np.minimum(above + 1, last)
    share = (down - above).astype(np.float32)[:, None, None]
    mixed = normals[above] * (1 - share) + normals[below] * share
    return _resized(mixed, len(down), width, closed)
