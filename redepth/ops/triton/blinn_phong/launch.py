"""How the kernels divide images among programs, and the start of a kernel."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from redepth.ops.triton.blinn_phong.rows import LANES


class Launch(NamedTuple):
    """How an image is divided among programs.

    Attributes:
        rows: per program. Fewer rows repeat more of the border rows of the gradient's kernel, more rows leave
            fewer programs to the multiprocessors.
        strips: of columns per program, one warp each. Neighbouring strips share cache lines.
    """

    rows: int = 32
    strips: int = 2


FORWARD = Launch()
BACKWARD = Launch()

GRID_LIMIT = 65535
"""CUDA's limit of a grid along all axes but the first."""


def start(kernel: Any, launch: Launch, shape: torch.Size, *arguments: Any, **constants: Any) -> None:
    """Start a kernel on images of shape (B, ..., H, W)."""
    batch, height, width = shape[0], shape[-2], shape[-1]
    columns = 2 * (LANES.value - 2)
    grid = (triton.cdiv(width, columns * launch.strips), triton.cdiv(height, launch.rows), batch)
    if max(grid[1:]) > GRID_LIMIT:
        rows = GRID_LIMIT * launch.rows
        raise ValueError(f"at most {GRID_LIMIT} images of {rows} rows at a time, got {batch} of {height}")
    with torch.cuda.device_of(arguments[0]):
        kernel[grid](
            *arguments,
            ROWS=launch.rows,
            STRIPS=launch.strips,
            num_warps=launch.strips,
            enable_fp_fusion=True,
            **constants,
        )


def normal_scale(height: int, width: int) -> tuple[float, float]:
    """Return the factors -dv and -du of `geometry.normals_from_depth` for an orthographic camera."""
    du = 2 * width / (height * (width - 1)) if width > 1 else 1.0
    dv = -2 / (height - 1) if height > 1 else -1.0
    return -dv, -du


def is_paired(*images: Tensor) -> bool:
    """Return whether every two columns (0, 1), (2, 3), ... of all images are one aligned pair in memory."""
    return all(
        image.shape[-1] % 2 == 0
        and image.stride(-1) == 1
        and image.data_ptr() % (2 * image.element_size()) == 0
        and all(s % 2 == 0 for n, s in zip(image.shape[:-1], image.stride()[:-1], strict=True) if n > 1)
        for image in images
    )


def depth_strides(depth: Tensor) -> tuple[int, int, int]:
    """Return the strides of (B, 1, H, W) without those of the channel."""
    return depth.stride(0), depth.stride(2), depth.stride(3)
