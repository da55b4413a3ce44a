"""Read colours in linear light, such as an albedo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from redepth.errors import InputError
from redepth.io.arrays import read_numpy, read_pfm_colours
from redepth.io.exr import read_exr_colours
from redepth.io.files import StrPath
from redepth.io.limits import limit_of
from redepth.io.photo import check_shape

LINEAR_SUFFIXES = (".npy", ".pfm", ".exr")
"""Endings of the files whose numbers are linear light; pictures are sRGB."""

_TOLERANCE = 1e-3
"""Of the upper bound of an albedo: what rounding adds is cut off."""


def load_linear(path: StrPath, *, max_pixels: int | None = None) -> NDArray[np.float32]:
    """Read linear colours in [0, 1].

    Args:
        path: ``.npy`` of floats, ``.pfm`` or ``.exr`` (`redepth.io.exr.read_exr_colours`); grey becomes three
            equal channels.
        max_pixels: as for `load_photo`.

    Returns:
        (H, W, 3).

    Raises:
        InputError: the file cannot be read, is no colour, or has numbers outside [0, 1].
        MissingDependencyError: the file is OpenEXR and the package OpenEXR is not installed.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".npy":
        values = read_numpy(path, max_pixels=3 * limit_of(max_pixels))
    elif suffix == ".pfm":
        values = read_pfm_colours(path, max_pixels=max_pixels)
    else:
        values = read_exr_colours(path, max_pixels=max_pixels)
    return linear_of_array(values, path)


def linear_of_array(values: ArrayLike, path: Path = Path("albedo")) -> NDArray[np.float32]:
    """Return floats (H, W), (H, W, 1) or (H, W, 3) as linear colours (H, W, 3) in [0, 1].

    Args:
        values: the array.
        path: its name in messages.

    Raises:
        InputError: another shape or type, or numbers that are not finite or outside [0, 1].
    """
    colours = np.asarray(values)
    if colours.ndim == 2:
        colours = colours[..., None]
    if colours.ndim != 3 or colours.shape[2] not in (1, 3) or not np.issubdtype(colours.dtype, np.floating):
        raise InputError(
            f"{path}: has shape {np.shape(values)}, type {colours.dtype}; linear colours are floats (H, W, 3)"
        )
    check_shape(path, colours.shape[1], colours.shape[0])
    unknown = int((~np.isfinite(colours)).any(axis=2).sum())
    if unknown:
        raise InputError(f"{path}: {unknown} pixels are not finite; fill them")
    low, high = float(colours.min()), float(colours.max())
    if low < 0 or high > 1 + _TOLERANCE:
        raise InputError(
            f"{path}: an albedo is the reflected share of light, 0 to 1, and these values are from {low:g} "
            f"to {high:g}; scale them"
        )
    if colours.shape[2] == 1:
        colours = np.repeat(colours, 3, axis=2)
    return colours.astype(np.float32).clip(0, 1)
