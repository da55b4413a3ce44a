"""Read arrays of numbers from numpy and PFM files, in the units of the file.

The size that a file declares is checked before memory is taken for it, and its length has to fit exactly: a
byte too many or too few shifts all values.
"""

from __future__ import annotations

import math
import os
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from redepth.errors import InputError
from redepth.io.files import open_regular, reason, shortened
from redepth.io.images import HEADER_END
from redepth.io.limits import check_pixels

_NUMBERS = "biuf"
"""Kinds of numpy types that a map may have: bool, integers, floats."""

_PFM_HEADER = re.compile(rb"P([fF])\s+(\d{1,9})\s+(\d{1,9})\s+([-+]?[\d.]{1,40}(?:[eE][-+]?\d{1,3})?)(?=\s)")


def read_numpy(
    path: Path, keys: Sequence[str] = (), *, max_pixels: int | None = None, refused: str | None = None
) -> NDArray[Any]:
    """Read an ``.npy`` file, or one array of an ``.npz`` file.

    Args:
        path: the file.
        keys: names of the array in an ``.npz`` file that holds several, the preferred one first.
        max_pixels: number of values beyond which the file is refused; None is the limit of `pixel_limit`.
        refused: a name that the array in an ``.npz`` file must not have.

    Raises:
        InputError: the file is missing or damaged, too large, longer or shorter than its header says, holds
            other things than numbers, or several arrays of which none has such a name.
    """
    with open_regular(path) as file:
        try:
            if file.read(2) != b"PK":
                file.seek(0)
                return _read_array(path, file, os.fstat(file.fileno()).st_size, max_pixels)
            with zipfile.ZipFile(file) as archive:
                entry = _choose(path, archive, keys, refused)
                with archive.open(entry) as stream:
                    return _read_array(path, stream, entry.file_size, max_pixels)
        except InputError:
            raise
        except Exception as error:  # zipfile, zlib and numpy each raise their own on damaged bytes
            raise InputError(f"{path}: not numbers saved by numpy ({reason(error)}); save again") from None


def _choose(
    path: Path, archive: zipfile.ZipFile, keys: Sequence[str], refused: str | None
) -> zipfile.ZipInfo:
    """Return the array with one of these names, or the only one."""
    entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
    for key in keys:
        if key == refused and key in entries:
            raise other_kind(path, key, keys[0])
        if key in entries:
            return entries[key]
    if len(entries) == 1:
        return next(iter(entries.values()))
    expected = " or ".join(map(repr, keys))
    raise InputError(f"{path}: holds the arrays {shortened(str(sorted(entries)))}; name the map {expected}")


def other_kind(path: Path, found: str, wanted: str) -> InputError:
    """Return the error for a map that is named as the other kind."""
    return InputError(f"{path}: its map is named {found}, and {wanted} was asked for; state the right kind")


def _read_array(path: Path, stream: IO[bytes], size: int, max_pixels: int | None) -> NDArray[Any]:
    """Read one array of ``.npy`` format from a stream of a known size."""
    shape, by_columns, dtype = _read_header(stream)
    if dtype.hasobject:
        raise InputError(f"{path}: holds Python objects, which need allow_pickle; save numbers")
    if dtype.kind not in _NUMBERS:
        raise InputError(f"{path}: has shape {shape}, type {shortened(str(dtype))}; give numbers (H, W)")
    count = math.prod(shape)
    sides = [side for side in shape if side != 1]
    height, width = sides if len(sides) == 2 else (1, count)
    check_pixels(path, width, height, max_pixels)
    expected, found = count * dtype.itemsize, size - stream.tell()
    # One more byte, so that a surplus shows; a compressed array is checked as a whole when it ends.
    content = stream.read(expected + 1)
    if not expected == found == len(content):
        raise InputError(
            f"{path}: holds {found} bytes of numbers in place of {expected}; copy or save it again"
        )
    values = np.frombuffer(content, dtype, count)
    return values.reshape(shape, order="F" if by_columns else "C")


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, by_columns, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, by_columns, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"version {version} of the format, which numbers do not need")
    if any(side < 0 for side in shape):
        raise ValueError(f"shape {shape}")
    return shape, by_columns, dtype


def read_pfm(path: Path, *, max_pixels: int | None = None) -> NDArray[np.float32]:
    """Read a PFM file of one channel, or of equal ones, (H, W), as `read_pfm_colours` does.

    Raises:
        InputError: as `read_pfm_colours`, or the file has different colour channels.
    """
    colours = read_pfm_colours(path, max_pixels=max_pixels)
    return grey_of_colour(path, "the colours of a PFM", list(np.moveaxis(colours, -1, 0)))


def read_pfm_colours(path: Path, *, max_pixels: int | None = None) -> NDArray[np.float32]:
    r"""Read a PFM file, (H, W, 1) or (H, W, 3); its scale gives the byte order only.

    The header may end in any one character of white space, in ``\r\n``, or in blanks and ``\n``. The length
    of the file says which.

    Raises:
        InputError: the file is missing, too large, longer or shorter than its header says, or is no PFM
            file.
    """
    with open_regular(path) as file:
        head = file.read(512)
        size = os.fstat(file.fileno()).st_size
    header = _PFM_HEADER.match(head)
    if header is None:
        raise InputError(f"{path}: not a PFM file; it must start with Pf, width, height and scale")
    if float(header[4]) == 0:
        raise InputError(f"{path}: its scale is 0, which gives no byte order; write -1.0 or 1.0")
    channels = 3 if header[1] == b"F" else 1
    width, height = int(header[2]), int(header[3])
    expected = 4 * channels * width * height
    start = size - expected
    end = head[header.end() : max(start, 0)]
    if start > header.end() and not (start <= len(head) and HEADER_END.fullmatch(end)):
        found = size - header.end() - 1
        raise InputError(f"{path}: holds {found} of {expected} bytes, too many; write or copy it again")
    if start <= header.end():
        found = size - header.end() - 1
        raise InputError(f"{path}: truncated, {found} of {expected} bytes; copy it again")
    order = "<" if header[4].startswith(b"-") else ">"
    check_pixels(path, width, height, max_pixels)
    numbers = channels * width * height
    values = read_floats(path, height, channels * width, start=start, order=order, max_pixels=numbers)
    # PFM stores the bottom row first.
    return values[::-1].reshape(height, width, channels)


def read_floats(
    path: Path,
    height: int,
    width: int,
    *,
    start: int = 0,
    order: str = "<",
    max_pixels: int | None = None,
) -> NDArray[np.float32]:
    """Read the float32 numbers that fill a file, (H, W), row by row.

    Args:
        path: the file.
        height: number of rows.
        width: numbers in a row.
        start: bytes in front of the numbers.
        order: ``<`` for little-endian numbers, ``>`` for big-endian ones.
        max_pixels: as for `read_numpy`.

    Raises:
        InputError: the file is missing, too large or of another length.
    """
    check_pixels(path, width, height, max_pixels)
    with open_regular(path) as file:
        found, expected = os.fstat(file.fileno()).st_size - start, 4 * height * width
        if found != expected or not expected:
            raise InputError(
                f"{path}: {found} bytes are not {width} x {height} floats ({expected} bytes); copy it again"
            )
        file.seek(start)
        values = np.frombuffer(file.read(), f"{order}f4", height * width)
    return values.reshape(height, width).astype(np.float32)


def as_map(path: Path, values: NDArray[Any]) -> NDArray[Any]:
    """Drop axes of length 1 around (H, W).

    Raises:
        InputError: the array has another shape, or holds no numbers.
    """
    shape = values.shape
    if values.size == 1 and values.ndim > 2:
        values = values.reshape(1, 1)
    elif values.ndim > 2:
        values = values.reshape([n for n in shape if n != 1])
    if values.ndim != 2 or values.size == 0 or values.dtype.kind not in _NUMBERS:
        raise InputError(f"{path}: has shape {shape}, type {values.dtype}; give numbers (H, W)")
    return values


def grey_of_colour(path: Path, what: str, channels: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return the one channel of a grey map that was saved as colour.

    Args:
        path: the file, for messages.
        what: its kind of colour, for messages.
        channels: each (H, W).

    Raises:
        InputError: the channels differ.
    """
    first = channels[0]
    for other in channels[1:]:
        if not np.array_equal(first, other, equal_nan=first.dtype.kind == "f"):
            raise InputError(f"{path}: has {what} with different channels; a depth map has one grey channel")
    return first
