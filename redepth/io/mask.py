"""Read masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from redepth.errors import InputError
from redepth.io.arrays import as_map, read_numpy
from redepth.io.files import StrPath
from redepth.io.samples import Samples, read_samples


def load_mask(
    path: StrPath, *, max_pixels: int | None = None, may_be_empty: bool = False
) -> NDArray[np.bool_]:
    """Read a mask.

    Args:
        path: ``.npy``, or an image in any format of `load_photo`, upright as a photo is. A pixel is selected
            where it is not black and not transparent; under a lossy compression such as JPEG, whose black is
            never exact, where it is above 127 of 255 and its alpha too.
        max_pixels: as for `load_photo`.
        may_be_empty: whether a mask that selects no pixel is accepted.

    Returns:
        (H, W) bool.

    Raises:
        InputError: the file is missing, damaged, too large or of another shape, the colours and the indices
            of its palette select different pixels, or the mask selects no pixel although it has to.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        mask: NDArray[np.bool_] = np.nan_to_num(as_map(path, read_numpy(path, max_pixels=max_pixels))) > 0
    else:
        mask = _selected(path, read_samples(path, max_pixels))
    if not mask.any() and not may_be_empty:
        raise InputError(f"{path}: the mask selects no pixel; check that it is not inverted")
    return mask


def _selected(path: Path, samples: Samples) -> NDArray[np.bool_]:
    """Return the pixels that are neither black nor transparent."""
    values = samples.values
    threshold = _half(values) if samples.lossy else 0
    if values.ndim == 2:
        mask: NDArray[np.bool_] = values > threshold
    elif samples.lossy:
        # The luminance, because the hue of nearly black pixels is arbitrary.
        mask = np.asarray(Image.fromarray(values).convert("L")) > threshold
    else:
        mask = np.asarray(values.any(axis=-1))
    if samples.indices is not None and not np.array_equal(samples.indices > 0, mask):
        raise InputError(
            f"{path}: its palette has black for another entry than 0, so its colours and its labels select "
            "different pixels; save the mask as grey"
        )
    if samples.alpha is None:
        return mask
    return mask & (samples.alpha > (_half(samples.alpha) if samples.lossy else 0))


def _half(values: NDArray[Any]) -> int:
    """Return 127 of 255, at the bits of the values."""
    return 127 if values.dtype.itemsize == 1 else 127 * 257
