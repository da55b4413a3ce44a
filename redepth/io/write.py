"""Write results: every file is whole or absent."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, PngImagePlugin

from redepth.errors import InputError, OutputError
from redepth.io.files import StrPath

_TEMPORARY = ".redepth-"
_SPARE = 2**22
_LEFTOVER = re.compile(r"\.redepth-[0-9a-f]{32}(\.\w+)?")
_SURROGATE = re.compile("[\ud800-\udfff]")
BLOCK_PIXELS = 2**20
"""Pixels that are converted at a time."""

UNKNOWN_PIXEL = 0
"""The number of an unknown pixel in a 16-bit map that has some."""


@contextmanager
def atomic_path(path: StrPath) -> Iterator[Path]:
    """Write a file whole or not at all.

    Yields a path in the same folder, with the same suffix, that the caller writes to. On success it
    is flushed to the disk and replaces ``path`` in one step; on an error it is removed and an
    existing ``path`` is left as it was. Missing parent folders are created. A process that is killed
    leaves the temporary file; `remove_leftovers` removes it.

    Raises:
        OutputError: the folder cannot be created or written to, or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OutputError:
        raise
    except OSError as error:
        raise _output_error(path, error) from error
    finally:
        # A folder that is gone, or a disk that is gone, has its own error already.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def require_room(folder: Path, size: int) -> None:
    """Raise OutputError unless the disk has room for files of this size: better before the work than after.

    Args:
        folder: of the files; it need not exist.
        size: in bytes; a few megabytes are added.
    """
    free = _free(folder)
    if free is not None and free < size + _SPARE:
        raise OutputError(
            f"{folder}: the disk is full: {free / 2**20:.0f} MiB are free, and the results take up to "
            f"{(size + _SPARE) / 2**20:.0f} MiB; make room and run again"
        )


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed runs left in a folder of results and in the folders inside.

    The caller holds the lock of the folder: nobody else writes there now.
    """
    for pattern in ("", "*/", "images/*/"):
        for path in folder.glob(f"{pattern}{_TEMPORARY}*"):
            if _LEFTOVER.fullmatch(path.name) and path.is_file() and not path.is_symlink():
                path.unlink(missing_ok=True)


def _free(path: Path) -> int | None:
    """Return the free bytes of the disk that a path is on, or None if the system does not tell."""
    try:
        nearest = next(parent for parent in (path, *path.absolute().parents) if parent.is_dir())
        return shutil.disk_usage(nearest).free
    except (OSError, StopIteration):
        return None


def _output_error(path: Path, error: OSError) -> OutputError:
    """Say which file cannot be written and why; numpy's error for a full disk has no number."""
    free = _free(path)
    full = error.errno in (errno.ENOSPC, errno.EDQUOT) or (error.errno is None and (free or 0) < 2**20)
    if full:
        left = "" if free is None else f", {free / 2**20:.0f} MiB are free"
        return OutputError(f"{path}: cannot be written: the disk is full{left}; make room and run again")
    why = error.strerror or " ".join(str(error).split()) or type(error).__name__
    return OutputError(f"{path}: cannot be written: {why}")


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
    """Write JSON atomically; the arguments are those of `json_text`.

    Raises:
        TypeError: a value has no JSON form.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(json_text(value), encoding="utf-8")


def json_text(value: Any) -> str:
    """Return JSON, indented by 2, with a line break at its end.

    numpy scalars and arrays become numbers and lists, paths become strings. NaN and infinities,
    which JSON does not have, become null.

    Raises:
        TypeError: a value has no JSON form.
    """
    value = _jsonable(value)
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    if _SURROGATE.search(text):  # of a file name that is not UTF-8
        text = json.dumps(value, indent=2, allow_nan=False)
    return text + "\n"


def json_line(value: Any) -> str:
    """Return JSON on one line, with a line break at its end; values are converted as by `json_text`."""
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

    The smallest value becomes 0 and the largest 65535; a constant map has scale 1 and pixels 0. If a value is
    NaN, unknown, pixels are 1 to 65535, and 0 is unknown.

    Args:
        path: the file to write.
        disparity: (H, W), finite or NaN.
        kind: what the values are; it is stored in the file.

    Returns:
        ``scale``, ``offset`` and ``kind``, which the file also carries as the PNG text chunks
        ``redepth:scale``, ``redepth:offset`` and ``redepth:kind``; with unknown pixels also ``unknown``, the
        number that stands for them.

    Raises:
        InputError: a value is infinite, or none is finite.
        ValueError: ``disparity`` is not (H, W).
    """
    values = np.asarray(disparity)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"disparity must be (H, W), got {values.shape}")
    known = ~np.isnan(values)
    invalid = int(known.sum() - np.isfinite(values).sum())
    if invalid or not known.any():
        raise InputError(
            f"{path}: {invalid or values.size} of {values.size} pixels are not finite and have no 16-bit "
            "value; save the map as .npy"
        )
    complete = bool(known.all())
    lowest = 0 if complete else 1
    offset = float(np.nanmin(values))
    scale = (float(np.nanmax(values)) - offset) / (65535.0 - lowest)
    if scale == 0:
        scale = 1.0
    offset -= lowest * scale
    encoding: dict[str, float | str] = {"scale": scale, "offset": offset, "kind": kind}
    if not complete:
        encoding["unknown"] = UNKNOWN_PIXEL
    chunks = PngImagePlugin.PngInfo()
    for key, value in encoding.items():
        chunks.add_text(f"redepth:{key}", str(value))
    pixels = np.empty(values.shape, np.uint16)
    for rows in row_blocks(values.shape):
        scaled = np.rint((values[rows].astype(np.float64) - offset) / scale)
        pixels[rows] = np.where(known[rows], scaled, UNKNOWN_PIXEL)
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG", pnginfo=chunks)
    return encoding
