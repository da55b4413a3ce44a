"""Photos and maps made smaller before they are drawn: a panel of a sheet shows 640 pixels of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from redepth.io import row_blocks, to_uint8

SHEET_SIDE = 2000
"""The longest side of what a comparison sheet is drawn of, in pixels."""


def reduction(height: int, width: int, side: int = SHEET_SIDE) -> int:
    """Return the smallest whole factor that brings both sides to at most ``side`` pixels."""
    return -(-max(height, width) // side)


def reduced_map(values: NDArray[Any], factor: int) -> NDArray[Any]:
    """Return every factor-th row and column, (H, W, ...) as a copy; the map itself for a factor of 1."""
    return values if factor == 1 else values[::factor, ::factor].copy()


def reduced_photo(photo: ArrayLike, factor: int) -> NDArray[np.uint8]:
    """Return a photo (H, W, 3) as uint8, each block of factor x factor pixels averaged."""
    if factor == 1:
        return to_uint8(photo)
    pixels = np.asarray(photo)
    height, width = pixels.shape[:2]
    small = np.empty((-(-height // factor), -(-width // factor), 3), np.uint8)
    for rows in row_blocks((len(small), width * factor)):
        block = to_uint8(pixels[rows.start * factor : rows.stop * factor])
        small[rows] = np.asarray(Image.fromarray(block).reduce(factor))
    return small
