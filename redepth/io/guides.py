"""Read maps of normals and of regions that are planes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from redepth.errors import InputError
from redepth.io.arrays import as_map, read_numpy
from redepth.io.files import StrPath
from redepth.io.samples import read_samples


def load_normals(path: StrPath, *, max_pixels: int | None = None) -> NDArray[np.float32]:
    r"""Read a map of normals, (H, W, 3), NaN where unknown.

    Args:
        path: ``.npy`` of (H, W, 3), unknown where it is 0 or not finite; or a picture of 8 or 16 bits of
            :math:`(n + 1) / 2`, unknown where it is transparent or black.
        max_pixels: as for `load_photo`.

    Raises:
        InputError: the file cannot be read, is grey or lossy, or its vectors are no normals.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        limit = None if max_pixels is None else 3 * max_pixels
        values = read_numpy(path, max_pixels=limit)
        if values.ndim != 3 or values.shape[2] != 3:
            raise InputError(f"{path}: has shape {values.shape}; give normals (H, W, 3)")
        normals = values.astype(np.float32)
        unknown = ~np.isfinite(normals).all(axis=2) | ~normals.any(axis=2)
    else:
        samples = read_samples(path, max_pixels)
        if samples.values.ndim != 3:
            raise InputError(f"{path}: is grey; give a picture of normals, or npy (H, W, 3)")
        if samples.lossy:
            raise InputError(f"{path}: its compression changes normals; save it as PNG")
        largest = np.iinfo(samples.values.dtype).max
        normals = samples.values.astype(np.float32) * np.float32(2 / largest) - 1
        unknown = ~samples.values.any(axis=2)
        if samples.alpha is not None:
            unknown |= samples.alpha == 0
    normals[unknown] = np.nan
    length = np.linalg.norm(normals[~unknown], axis=-1)
    if not len(length):
        raise InputError(f"{path}: holds no normal; give another map")
    if not 0.9 < np.median(length) < 1.1:
        raise InputError(
            f"{path}: its vectors have a length of {np.median(length):.2f}, not 1; give a map of normals"
        )
    return normals


def load_labels(path: StrPath, *, max_pixels: int | None = None) -> NDArray[np.int64]:
    """Read a picture of labels, (H, W): 0 for nothing, every other value is one region.

    Args:
        path: ``.npy`` of whole numbers, or a picture without loss: grey, or with a palette, whose entries are
            the labels.
        max_pixels: as for `load_photo`.

    Raises:
        InputError: the file cannot be read, is in colour or lossy, or has no region.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        values = as_map(path, read_numpy(path, max_pixels=max_pixels))
    else:
        samples = read_samples(path, max_pixels)
        if samples.lossy:
            raise InputError(f"{path}: its compression changes labels; save it as PNG")
        values = samples.values if samples.indices is None else samples.indices
    if values.ndim != 2 or values.dtype.kind not in "biu":
        raise InputError(f"{path}: labels are whole numbers (H, W): grey or a palette, not colour")
    labels = values.astype(np.int64)
    if not labels.any():
        raise InputError(f"{path}: marks no region; every label is 0")
    return labels
