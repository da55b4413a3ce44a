"""How the kernels cut (N, P, C) into programs and tiles."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
import triton
from torch import Tensor


class Launch(NamedTuple):
    """How rows are cut into programs.

    Attributes:
        elements: elements of a tile, pixels times channels; a thread has ``elements / (32 warps)`` of them.
        warps: warps of a program.
        tiles: tiles of a program, one after the other, in the kernels that write a result.
    """

    elements: int = 4096
    warps: int = 4
    tiles: int = 1


SUMS = Launch()
RESULT = Launch()
BACKWARD = Launch(elements=2048)
JOIN = Launch(elements=1024)
WHOLE = Launch(warps=8)

LARGEST_WHOLE = 32768
"""The largest group, pixels times channels, that a single program normalises."""

WIDEST = 256
"""Most channels of a tile: 512 bytes in half precision, 16 bytes for each of a warp's 32 lanes."""

GRID_LIMIT = 65535
"""CUDA's limit of a grid along all axes but the first."""


class Cut(NamedTuple):
    """The cut of rows of one shape by one `Launch`: the grid, the pixels of a program, and the tile."""

    grid: tuple[int, int, int]
    chunk: int
    tile: dict[str, int]


def channel_block(channels: int) -> int:
    """Return the channels of a tile: a power of two that divides C (no lane idles), or the next above C."""
    even = math.gcd(channels, WIDEST)
    return even if even >= 32 else min(triton.next_power_of_2(channels), WIDEST)


@functools.lru_cache(maxsize=1024)
def cut(shape: torch.Size, launch: Launch, *, summed: bool) -> Cut:
    """Cut (N, P, C) into chunks of pixels and blocks of channels.

    Partial sums are over about sqrt(P) pixels, so that there are about sqrt(P) of them: large pictures give
    enough programs, and small pictures few sums to join. The cut does not depend on the number of pictures.
    """
    images, pixels, channels = shape
    block = channel_block(channels)
    rows = max(1, min(launch.elements // block, triton.next_power_of_2(pixels)))
    tiles = triton.cdiv(math.isqrt(pixels - 1) + 1, rows) if summed else launch.tiles
    chunk = rows * tiles
    grid = (triton.cdiv(pixels, chunk), triton.cdiv(channels, block), images)
    tile = {"BLOCK_P": rows, "BLOCK_C": block, "num_warps": launch.warps}
    return Cut(grid, chunk, tile)


def join_tile(channels: int, groups: int) -> dict[str, int]:
    """Return the tile of chunks times a group's channels; it takes few values, each compiled once."""
    width = triton.next_power_of_2(channels // groups)
    return {"BLOCK_K": max(1, JOIN.elements // width), "BLOCK_G": width, "num_warps": JOIN.warps}


@functools.lru_cache(maxsize=1024)
def whole_tile(shape: torch.Size, groups: int) -> dict[str, int]:
    """Return the tile of a program that normalises a whole group of (N, P, C); {} if it is too large."""
    pixels, width = shape[1], shape[2] // groups
    if pixels * width > LARGEST_WHOLE:
        return {}
    block = triton.next_power_of_2(width)
    rows = max(1, min(WHOLE.elements // block, triton.next_power_of_2(pixels)))
    return {"WIDTH": width, "BLOCK_P": rows, "BLOCK_G": block, "num_warps": WHOLE.warps}


def as_rows(x: Tensor) -> Tensor:
    """Return (N, C, ...) as (N, P, C) in contiguous memory; a view if x is channels-last."""
    return x.flatten(2).transpose(1, 2).contiguous()


def as_pictures(rows: Tensor, shape: torch.Size) -> Tensor:
    """Return (N, P, C) as (N, C, ...), a view."""
    return rows.transpose(1, 2).unflatten(2, shape[2:])


def addend_kind(addend: Tensor | None) -> int:
    """Return the kernels' constant ADDEND: 0 without an addend, 1 for one of all pictures, 2 for one each."""
    if addend is None:
        return 0
    return 1 if addend.shape[0] == 1 else 2
