"""Write results: every file is whole or absent."""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, PngImagePlugin

from redepth.errors import InputError
from redepth.io.files import StrPath

BLOCK_PIXELS = 2**20
"""Pixels that are converted at a time."""


@contextmanager
def atomic_path(path: StrPath) -> Iterator[Path]:
    """Write a file whole or not at all.

    Yields a path in the same folder, with the same suffix, that the caller writes to. On success it
    is flushed to the disk and replaces ``path`` in one step; on an error it is removed and an
    existing ``path`` is left as it was. Missing parent folders are created.

    Raises:
        OSError: the folder cannot be created or written to, or the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem[:40]}-{uuid.uuid4().hex[:12]}{path.suffix}")
    try:
        yield temporary
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_npy(path: StrPath, array: ArrayLike) -> None:
    """Write an array as ``.npy``, atomically."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.asarray(array), allow_pickle=False)


def save_npz(path: StrPath, arrays: Mapping[str, ArrayLike]) -> None:
    """Write named arrays as compressed ``.npz``, atomically."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        plain: dict[str, Any] = {name: np.asarray(array) for name, array in arrays.items()}
        np.savez_compressed(file, **plain)


def save_text(path: StrPath, text: str) -> None:
    """Write UTF-8 text, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def save_json(path: StrPath, value: Any) -> None:
    """Write JSON, indented by 2, atomically.

    numpy scalars and arrays become numbers and lists, paths become strings. NaN and infinities,
    which JSON does not have, become null.

    Raises:
        TypeError: a value has no JSON form.
    """
    text = json.dumps(_jsonable(value), indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def json_line(value: Any) -> str:
    """Return JSON on one line, with a line break at its end; values are converted as by `save_json`."""
    return json.dumps(_jsonable(value), allow_nan=False) + "\n"


def _jsonable(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def to_uint8(image: ArrayLike | Image.Image) -> NDArray[np.uint8]:
    """Return an image as uint8: uint8 is kept, anything else is clipped to [0, 1], NaN becomes 0."""
    array: NDArray[Any] = np.asarray(image)
    if array.dtype == np.uint8:
        return array
    values = np.atleast_1d(array)
    result = np.empty(values.shape, np.uint8)
    for rows in row_blocks(values.shape):
        unit = np.clip(np.nan_to_num(values[rows].astype(np.float32)), 0.0, 1.0)
        result[rows] = np.rint(unit * 255.0)
    return result.reshape(array.shape)


def row_blocks(shape: Sequence[int]) -> Iterator[slice]:
    """Yield the rows of a picture in blocks, so that what is computed of them stays small.

    An intermediate of all of 100 megapixels would take 0.4 to 2.4 GB.
    """
    size = max(1, BLOCK_PIXELS // max(1, math.prod(shape[1:2])))
    for start in range(0, shape[0], size):
        yield slice(start, min(start + size, shape[0]))


def save_jpeg(path: StrPath, image: ArrayLike | Image.Image, quality: int = 85) -> None:
    """Write a Pillow image or an array, as `save_png` takes it, as JPEG, atomically."""
    picture = _as_pillow(image)
    with atomic_path(path) as temporary:
        picture.save(temporary, format="JPEG", quality=quality)


def save_png(path: StrPath, image: ArrayLike | Image.Image) -> None:
    """Write a Pillow image, or an array (H, W) or (H, W, 3) for `to_uint8`, as PNG, atomically."""
    picture = _as_pillow(image)
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG")


def _as_pillow(image: ArrayLike | Image.Image) -> Image.Image:
    return image if isinstance(image, Image.Image) else Image.fromarray(to_uint8(image))


def save_disparity_png(
    path: StrPath, disparity: ArrayLike, *, kind: str = "disparity"
) -> dict[str, float | str]:
    r"""Write a map as 16-bit grey PNG, atomically.

    .. math:: \text{pixel} = \mathrm{round}((d - \text{offset}) / \text{scale}),
              \quad d \approx \text{pixel} \cdot \text{scale} + \text{offset}

    The smallest value becomes 0 and the largest 65535; a constant map has scale 1 and pixels 0.

    Args:
        path: the file to write.
        disparity: (H, W), finite.
        kind: what the values are; it is stored in the file.

    Returns:
        ``scale``, ``offset`` and ``kind``, which the file also carries as the PNG text chunks
        ``redepth:scale``, ``redepth:offset`` and ``redepth:kind``.

    Raises:
        InputError: a value is not finite.
        ValueError: ``disparity`` is not (H, W).
    """
    values = np.asarray(disparity)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"disparity must be (H, W), got {values.shape}")
    invalid = int(values.size - np.isfinite(values).sum())
    if invalid:
        raise InputError(
            f"{path}: {invalid} of {values.size} pixels are not finite and have no 16-bit value; "
            "save the map as .npy"
        )
    offset = float(values.min())
    scale = (float(values.max()) - offset) / 65535.0
    if scale == 0:
        scale = 1.0
    encoding: dict[str, float | str] = {"scale": scale, "offset": offset, "kind": kind}
    chunks = PngImagePlugin.PngInfo()
    for key, value in encoding.items():
        chunks.add_text(f"redepth:{key}", str(value))
    pixels = np.empty(values.shape, np.uint16)
    for rows in row_blocks(values.shape):
        pixels[rows] = np.rint((values[rows].astype(np.float64) - offset) / scale)
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG", pnginfo=chunks)
    return encoding
