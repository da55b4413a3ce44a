"""Colours: maps by a colour map, normals as RGB."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from redepth.io import row_blocks, to_uint8
from redepth.viz.library import import_matplotlib

DISPARITY_CMAP = "inferno"
DIFFERENCE_CMAP = "RdBu_r"
ERROR_CMAP = "Reds"
UNCERTAINTY_CMAP = "viridis"

_INVALID = (160, 160, 160)
_PERCENTILES = (1.0, 99.0)
_SAMPLED_PIXELS = 1_000_000


def display_range(*maps: ArrayLike) -> tuple[float, float]:
    """Return the 1st and 99th percentile of the finite values of one or several maps together.

    Several maps coloured with one range can be compared. The range is (0, 1) if no value is finite. Of a
    map with millions of pixels, about a million evenly spread ones are used.
    """
    flat = [np.ravel(np.asarray(values, dtype=np.float32)) for values in maps]
    sampled = np.concatenate([f[:: max(1, f.size // _SAMPLED_PIXELS)] for f in flat])
    values = sampled[np.isfinite(sampled)]
    if values.size == 0:
        return 0.0, 1.0
    lo, hi = np.percentile(values, _PERCENTILES)
    return float(lo), float(hi)


def colorize(
    values: ArrayLike,
    cmap: str = DISPARITY_CMAP,
    lo: float | None = None,
    hi: float | None = None,
) -> NDArray[np.uint8]:
    """Colour a map.

    Args:
        values: (H, W); pixels that are not finite become grey.
        cmap: a matplotlib colour map. The default is perceptually uniform and reads in greyscale:
            for disparity, near is bright.
        lo: the value of the first colour, by default the lower end of `display_range`.
        hi: the value of the last colour, by default the upper end.

    Returns:
        (H, W, 3).

    Raises:
        ValueError: ``values`` is not (H, W), or there is no such colour map.
    """
    array = np.asarray(values, dtype=np.float32)
    if array.ndim != 2:
        raise ValueError(f"values must be (H, W), got {array.shape}")
    if lo is None or hi is None:
        robust_lo, robust_hi = display_range(array)
        lo = robust_lo if lo is None else lo
        hi = robust_hi if hi is None else hi
    valid = np.isfinite(array)
    width = hi - lo if hi != lo else 1.0
    unit = (np.where(valid, array, lo) - lo) / width
    colours = colour_table(cmap)[np.rint(np.clip(unit, 0, 1) * 255).astype(np.uint8)]
    colours[~valid] = _INVALID
    return colours


@cache
def colour_table(cmap: str) -> NDArray[np.uint8]:
    """Return the 256 colours of a matplotlib colour map, (256, 3)."""
    matplotlib = import_matplotlib()
    try:
        colour_map = matplotlib.colormaps[cmap]
    except KeyError:
        raise ValueError(f"no colour map '{cmap}'; see matplotlib.colormaps") from None
    table: NDArray[np.uint8] = colour_map(np.linspace(0, 1, 256), bytes=True)[:, :3]
    return table


def normals_to_rgb(normals: ArrayLike) -> NDArray[np.uint8]:
    """Show unit normals as the usual colours, (n + 1) / 2.

    Args:
        normals: (H, W, 3), x right, y up, z to the viewer, so that a surface facing the viewer is
            light blue. Pixels that are not finite become grey.

    Returns:
        (H, W, 3).

    Raises:
        ValueError: ``normals`` is not (H, W, 3).
    """
    array = np.asarray(normals, dtype=np.float32)
    if array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"normals must be (H, W, 3), got {array.shape}")
    colours = np.empty(array.shape, np.uint8)
    for rows in row_blocks(array.shape):
        part = array[rows]
        colours[rows] = to_uint8((part + 1) / 2)
        colours[rows][~np.isfinite(part).all(axis=2)] = _INVALID
    return colours
