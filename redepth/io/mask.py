"""Read masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from redepth.errors import InputError
from redepth.io.arrays import as_map, read_numpy
from redepth.io.files import StrPath
from redepth.io.images import MAX_PIXELS, read_image


def load_mask(
    path: StrPath, *, max_pixels: int = MAX_PIXELS, may_be_empty: bool = False
) -> NDArray[np.bool_]:
    """Read a mask.

    Args:
        path: ``.npy``, or an image as `load_photo` reads them. A pixel is selected where it is
            above zero (not black); in a JPEG, whose black is never exact, where it is above 127.
        max_pixels: as for `load_photo`.
        may_be_empty: whether a mask that selects no pixel is accepted.

    Returns:
        (H, W) bool.

    Raises:
        InputError: the file is missing, damaged or of another shape, or the mask selects no pixel although
            it has to.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        values = np.nan_to_num(as_map(path, read_numpy(path)))
        threshold = 0
    else:
        image = read_image(path, max_pixels)
        # A palette's indices are the labels and 16 bits must not be cut to 8: both stay as stored.
        as_stored = image.mode in ("P", "F") or image.mode.startswith("I")
        values = np.asarray(image if as_stored else image.convert("L"))
        threshold = 127 if image.format in ("JPEG", "MPO") else 0
    mask: NDArray[np.bool_] = values > threshold
    if not mask.any() and not may_be_empty:
        raise InputError(f"{path}: the mask selects no pixel; check that it is not inverted")
    return mask
