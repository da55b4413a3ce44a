"""Read depth and disparity maps."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from redepth.errors import InputError
from redepth.io.arrays import as_map, grey_of_colour, read_numpy, read_pfm
from redepth.io.exr import read_exr
from redepth.io.files import StrPath
from redepth.io.samples import Samples, read_samples

_IMAGE_SUFFIXES = (".png", ".tif", ".tiff")

MapName = Literal["depth", "disparity"]

ASPECT_TOLERANCE = 0.05
"""Largest relative difference of a file's aspect ratio from the photo's; networks round sides to patches."""


def load_map(path: StrPath, kind: MapName, *, max_pixels: int | None = None) -> NDArray[np.float32]:
    """Read a map that is known to be depth or disparity, as `load_depth_map` does, with two differences.

    Of several arrays or channels the one with the name of the kind is taken, and disparity is never taken for
    depth; and a 16-bit PNG of redepth is decoded (`load_disparity_png`). A map named depth may be disparity:
    many tools call any map so.

    Raises:
        InputError: as `load_depth_map`, or depth was asked for and the map is named disparity.
    """
    path = Path(path)
    if path.suffix.lower() == ".png":
        # For a PNG that redepth did not write, or a damaged one, the general reader decides.
        with suppress(InputError):
            return load_disparity_png(path, max_pixels=max_pixels)
    return _load(path, kind, max_pixels)


def load_depth_map(path: StrPath, *, max_pixels: int | None = None) -> NDArray[np.float32]:
    """Read a depth or disparity map, in the units of the file.

    Args:
        path: ``.npy``; ``.npz`` with one array, or with one named ``depth`` or ``disparity``;
            ``.pfm`` (its scale gives the byte order only); ``.exr``, whose channel is chosen as in
            `redepth.io.exr.read_exr`; or a grey PNG or TIFF, whose stored numbers are returned (divide
            a KITTI PNG by 256 yourself). An image may be saved as colour if its channels are equal. It is
            turned upright, as a photo is.
        max_pixels: as for `load_photo`.

    Returns:
        (H, W); NaN and infinities, which mark unknown pixels in many data sets, are kept. Transparent pixels
        are NaN.

    Raises:
        InputError: the file is missing, damaged, too large, of another kind or shape, or has no finite value.
        MissingDependencyError: the file is OpenEXR and the package OpenEXR is not installed.
    """
    return _load(Path(path), None, max_pixels)


def _load(path: Path, kind: MapName | None, max_pixels: int | None) -> NDArray[np.float32]:
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz"):
        names = ("disparity", "depth") if kind == "disparity" else ("depth", "disparity")
        values = read_numpy(path, names, max_pixels=max_pixels, refused=_refused(kind))
    elif suffix == ".pfm":
        values = read_pfm(path, max_pixels=max_pixels)
    elif suffix == ".exr":
        values = read_exr(path, kind, max_pixels=max_pixels)
    elif suffix in _IMAGE_SUFFIXES:
        values = _grey(path, read_samples(path, max_pixels))
    else:
        raise InputError(f"{path}: not a depth map; give .npy, .npz, .pfm, .exr, .png or .tif")
    depth = as_map(path, values).astype(np.float32)
    if not np.isfinite(depth).any():
        raise InputError(f"{path}: holds no finite value; give another depth map")
    return depth


def load_grey16(path: StrPath, *, max_pixels: int | None = None) -> NDArray[np.uint16]:
    """Read the integers of a 16-bit grey PNG, (H, W).

    Raises:
        InputError: the file is missing, damaged or too large, or was converted to 8 bits or to colour.
    """
    path = Path(path)
    samples = read_samples(path, max_pixels)
    if samples.values.dtype != np.uint16 or samples.values.ndim != 2:
        bits = samples.values.dtype.itemsize * 8
        kind = "grey" if samples.values.ndim == 2 else "colour"
        raise InputError(
            f"{path}: is {bits}-bit {kind}, not 16-bit grey; an editor has changed it, copy it again"
        )
    return samples.values


def load_disparity_png(path: StrPath, *, max_pixels: int | None = None) -> NDArray[np.float32]:
    """Read back what `save_disparity_png` wrote.

    Returns:
        (H, W), each value within scale / 2 of what was saved, plus float32 rounding; NaN where it is unknown.

    Raises:
        InputError: the file is missing, damaged or too large, or lacks the scale and the offset.
    """
    path = Path(path)
    samples = read_samples(path, max_pixels)
    try:
        scale, offset = (float(samples.text[f"redepth:{key}"]) for key in ("scale", "offset"))
        unknown = samples.text.get("redepth:unknown")
        unknown = None if unknown is None else int(unknown)
    except (KeyError, ValueError):
        scale = offset = math.nan
    if samples.bits != 16 or not math.isfinite(scale + offset):
        raise InputError(
            f"{path}: has no 16 bits with redepth:scale and redepth:offset, an editor may have dropped them;"
            " give the original file, or read the stored numbers with load_depth_map"
        )
    stored = _grey(path, samples)
    values = (stored.astype(np.float64) * scale + offset).astype(np.float32)
    if unknown is not None:
        values[stored == unknown] = np.nan
    return values


def check_size(what: str, shape: tuple[int, ...], height: int, width: int) -> None:
    """Raise InputError unless an array that belongs to a photo has the photo's size."""
    if shape != (height, width):
        size = f"{shape[1]} x {shape[0]} pixels" if len(shape) == 2 else f"of shape {shape}"
        raise InputError(f"the {what} is {size} and the photo {width} x {height}: they must be one size")


def check_aspect(path: Path, what: str, size: tuple[int, int], photo: tuple[int, int]) -> None:
    """Raise InputError unless a file has the aspect ratio of its photo, within `ASPECT_TOLERANCE`.

    Args:
        path: the file.
        what: what it holds, such as ``map``.
        size: its height and width.
        photo: those of the photo, or of a smaller copy of it.
    """
    ratio = (size[1] / size[0]) / (photo[1] / photo[0])
    if abs(math.log(ratio)) > math.log1p(ASPECT_TOLERANCE):
        raise InputError(
            f"{path}: the {what} is {size[1]} x {size[0]}, the photo has the shape of {photo[1]} x "
            f"{photo[0]}: give the {what} of this photo, uncropped and unrotated"
        )


def _refused(kind: MapName | None) -> str | None:
    """Return the name that a map of this kind cannot have."""
    return "disparity" if kind == "depth" else None


def _grey(path: Path, samples: Samples) -> NDArray[Any]:
    """Return the numbers of one channel, NaN where they are transparent."""
    if samples.bits < 8:
        raise InputError(
            f"{path}: has {samples.bits} bits a pixel, too few for a depth map; save 8 bits or more"
        )
    values = samples.values
    if values.ndim == 3:
        values = grey_of_colour(path, "colour mode RGB", list(np.moveaxis(values, -1, 0)))
    if samples.alpha is None:
        return values
    return np.where(samples.alpha > 0, values, np.float32(np.nan))
