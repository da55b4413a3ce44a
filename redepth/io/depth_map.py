"""Read depth and disparity maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from redepth.errors import InputError
from redepth.io.arrays import as_map, read_exr, read_numpy, read_pfm
from redepth.io.files import StrPath
from redepth.io.images import MAX_PIXELS, read_image


def load_depth_map(path: StrPath, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.float32]:
    """Read a depth or disparity map, in the units of the file.

    Args:
        path: ``.npy``; ``.npz`` with one array, or with one named ``depth`` or ``disparity``;
            ``.pfm`` (its scale gives the byte order only); ``.exr`` with one channel, or with one named
            depth, disparity, Z, Y or V; or a grey PNG or TIFF, whose stored numbers are returned (divide
            a KITTI PNG by 256 yourself).
        max_pixels: as for `load_photo`.

    Returns:
        (H, W); NaN and infinities, which mark unknown pixels in many data sets, are kept.

    Raises:
        InputError: the file is missing, damaged, of another kind or shape, or has no finite value.
        MissingDependencyError: the file is OpenEXR and the package OpenEXR is not installed.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz"):
        values = read_numpy(path, ("depth", "disparity"))
    elif suffix == ".pfm":
        values = read_pfm(path)
    elif suffix == ".exr":
        values = read_exr(path)
    elif suffix in (".png", ".tif", ".tiff"):
        values = np.asarray(_read_grey(path, max_pixels))
    else:
        raise InputError(f"{path}: not a depth map; give .npy, .npz, .pfm, .exr, .png or .tif")
    depth = as_map(path, values).astype(np.float32)
    if not np.isfinite(depth).any():
        raise InputError(f"{path}: holds no finite value; give another depth map")
    return depth


def load_disparity_png(path: StrPath, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.float32]:
    """Read back what `save_disparity_png` wrote.

    Returns:
        (H, W), each value within scale / 2 of what was saved, plus float32 rounding.

    Raises:
        InputError: the file is missing or damaged, or lacks the scale and the offset.
    """
    path = Path(path)
    image = _read_grey(path, max_pixels)
    try:
        scale, offset = (float(image.info[f"redepth:{key}"]) for key in ("scale", "offset"))
    except (KeyError, ValueError):
        raise InputError(
            f"{path}: carries no redepth:scale and redepth:offset, an editor may have dropped them;"
            " give the original file, or read the stored numbers with load_depth_map"
        ) from None
    return (np.asarray(image, dtype=np.float64) * scale + offset).astype(np.float32)


def check_size(what: str, shape: tuple[int, ...], height: int, width: int) -> None:
    """Raise InputError unless an array that belongs to a photo has the photo's size."""
    if shape != (height, width):
        size = f"{shape[1]} x {shape[0]} pixels" if len(shape) == 2 else f"of shape {shape}"
        raise InputError(f"the {what} is {size} and the photo {width} x {height}: they must be one size")


def _read_grey(path: Path, max_pixels: int) -> Image.Image:
    """Read an image of one channel."""

    def check(image: Image.Image) -> None:
        if image.mode not in ("L", "F") and not image.mode.startswith("I"):
            raise InputError(f"{path}: has colour mode {image.mode}; a depth map has one grey channel")

    return read_image(path, max_pixels, check)
